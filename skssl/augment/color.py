"""Changes of colour and blur, with numbers of its own for every image."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skssl.augment.geometry import _filter


def _rows(matrix: np.ndarray) -> tuple[tuple[float, ...], ...]:
    """A matrix as tuples."""
    return tuple(tuple(row) for row in matrix.tolist())


LUMA = (0.2989, 0.587, 0.114)  # the weights of red, green and blue in grey, as torchvision rounds them
YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])  # NTSC's matrix
# For red, green and blue: what projects on the plane of I and Q, and what turns it from red towards green.
YIQ_PLANE = _rows(np.linalg.inv(YIQ) @ np.diag([0, 1, 1]) @ YIQ)
YIQ_QUARTER = _rows(np.linalg.inv(YIQ) @ [[0, 0, 0], [0, 0, 1], [0, -1, 0]] @ YIQ)
UNCHANGED = 4  # stands for the place of the hue in images whose colours do not change


def color_jitter(
    images: Tensor, factors: Tensor, place: Tensor, shift: Tensor | None, hue_space: str = "hsv"
) -> Tensor:
    """Change brightness, contrast, saturation and hue, each image by amounts and in an order of its own.

    The same as torchvision's ``adjust_brightness`` and so on, one after the other, with a clamp to [0, 1]
    after each.

    Parameters
    ----------
    images : Tensor of shape (n, c, h, w), float32
        In [0, 1]. Where c is not 3, only brightness and contrast change, and grey is the mean of the
        channels.
    factors : Tensor of shape (n, 3)
        Of brightness, contrast and saturation, at least 0; 1 leaves an image as it is.
    place : Tensor of shape (n, 4), int64
        Where brightness, contrast, saturation and hue come in the order: a permutation of 0, 1, 2, 3. Of
        shape (n, 3) without the hue.
    shift : Tensor of shape (n,) or None
        Of the hue, in turns.
    hue_space : {"hsv", "yiq"}, default="hsv"
        See `adjust_hue`.

    Returns
    -------
    Tensor of shape (n, c, h, w), float32
        In [0, 1].

    Examples
    --------
    >>> images = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1)
    >>> factors, place = torch.tensor([[1.5, 1.0, 0.0]]), torch.tensor([[0, 1, 2]])  # brighter, then grey
    >>> color_jitter(images, factors, place, None).flatten()
    tensor([0.5445, 0.5445, 0.5445])
    """
    colors = _colors(images.shape[1], hue_space, images.device)
    turns = None if shift is None else _hue_turns(shift, colors.hue)
    steps = _around_contrast(factors, _here(place), turns, colors)
    return torch.cat(_jitter(_planes(images.flatten(2)), factors[:, 1], steps, colors), 1).view(images.shape)


class _Colors(NamedTuple):
    """Constants of colours of c channels."""

    luma: Tensor  # (c,): what each weighs in grey
    eye: Tensor  # (c, c)
    tint: Tensor  # (c, c): what a pixel has besides its grey; nothing where grey images stay as they are
    hue: Tensor  # (3, 3, 3, 3) or (2, 3, 3): see `_hue_turns`


@functools.lru_cache(maxsize=32)
def _colors(c: int, space: str, device: torch.device) -> _Colors:
    """Make the constants."""
    luma, eye = torch.tensor(LUMA if c == 3 else (1 / c,) * c), torch.eye(c)
    if space == "yiq":
        hue = torch.tensor((YIQ_PLANE, YIQ_QUARTER))
    else:
        place = torch.arange(3)
        # By thirds of a turn: a channel from itself, the last, the next
        own, last, following = (((place[:, None] - place - place[:, None, None]) % 3 == k).float() for k in range(3))
        hue = torch.stack((own, last + following, last - following), 1)
    return _Colors(*(table.to(device) for table in (luma, eye, (eye - luma) * (c == 3), hue)))


Planes = tuple[Tensor, ...]  # one (n, c, pixels), or the channels one by one, see `_planes`
Turns = tuple[Tensor, Tensor | None]  # what `_hue_turns` gives
Steps = tuple[Tensor, Tensor | None, Tensor | None]  # what `_around_contrast` gives


def _here(place: Tensor) -> Tensor:
    """Tell which changes (n, 6, 4) come where, as many for all images: first before contrast, and then after it."""
    most = place.shape[1] - 1
    number = torch.arange(2 * most, device=place.device)
    step = torch.where(number < most, number, number - most + 1)  # 0, 1, 2, 1, 2, 3
    there = torch.where(number < most, step < place[:, 1, None], step > place[:, 1, None])
    return (place[:, None] == step[:, None]) & there[..., None]


def _around_contrast(factors: Tensor, here: Tensor, turns: Turns | None, colors: _Colors) -> Steps:
    """Steps of the jitter around contrast, as `_here` has them, as matrices: the identity where an image has no step.

    With them (n, steps, c, c) come shares (n, steps, 1, 1) of the extremes' sum, and what is 0 in the hue's steps and 1
    in others, see `_turn_hue`; None where no clamp depends on an image's colours.
    """
    brighter, _, purer = (here[..., :3] * (factors - 1)[:, None])[..., None, None].unbind(2)
    matrices = torch.addcmul(torch.addcmul(colors.eye, colors.eye, brighter), colors.tint, purer)
    if turns is None or len(colors.luma) != 3:
        return matrices, None, None
    turn, share = turns
    hue = here[..., 3, None, None]
    matrices = torch.where(hue, turn[:, None], matrices)
    return (matrices, None, None) if share is None else (matrices, hue * share[:, None], (~hue).float())


def _jitter(planes: Planes, contrast: Tensor, steps: Steps, colors: _Colors) -> Planes:
    """The work of `color_jitter`, for images with orders of their own."""
    matrices, shares, others = steps
    most = matrices.shape[1] // 2
    for number in range(2 * most):
        if number == most:
            (gray,) = _mix(colors.luma.expand(len(contrast), 1, -1), planes)
            mean = gray.mean(2, keepdim=True)
            planes = tuple(torch.lerp(mean, plane, contrast[:, None, None]).clamp(0, 1) for plane in planes)
        mixed = _mix(matrices[:, number], planes)
        if shares is None or others is None:
            planes = tuple(plane.clamp(0, 1) for plane in mixed)
            continue
        least, greatest = _extremes(planes)
        total, share, other = least + greatest, shares[:, number], others[:, number]
        low, high = torch.addcmul(least, least, other, value=-1), torch.maximum(greatest, other)
        planes = tuple(torch.addcmul(plane, total, share).clamp(low, high) for plane in mixed)
    return planes


def _planes(pixels: Tensor) -> Planes:
    """Take (n, c, pixels) apart for a compiler, which then makes one kernel of whatever is done to each pixel."""
    return pixels.split(1, 1) if torch.compiler.is_compiling() and pixels.shape[1] == 3 else (pixels,)


def _last(planes: Sequence[Tensor], height: int) -> Tensor:
    """Put planes together to images (n, c, height, width), with the channels last in memory."""
    return torch.cat([plane.mT for plane in planes], 2).unflatten(1, (height, -1)).movedim(3, 1)


def _mix(matrices: Tensor, planes: Planes) -> Planes:
    """Multiply the channels by matrices (n, i, c)."""
    if len(planes) == 1:
        return (_product(matrices, planes[0]),)
    rows = (row[..., None].split(1, 1) for row in matrices.unbind(1))  # (n, 1, 1) each
    return tuple(functools.reduce(torch.add, (w * plane for w, plane in zip(row, planes, strict=True))) for row in rows)


def _extremes(planes: Planes) -> tuple[Tensor, Tensor]:
    """Each pixel's least and greatest channel, (n, 1, pixels)."""
    if len(planes) == 1:
        return torch.aminmax(planes[0], dim=1, keepdim=True)
    return functools.reduce(torch.minimum, planes), functools.reduce(torch.maximum, planes)


def _blends(factors: Tensor, place: Tensor, colors: _Colors) -> tuple[Tensor, Tensor]:
    """Each step of the jitter but the hue as matrices for the pixels and for the mean pixel, both (n, steps, c, c)."""
    here = place[:, None, :3] == torch.arange(place.shape[1], device=place.device)[:, None]  # (n, steps, which)
    brighter, sharper, purer = (here * (factors - 1)[:, None])[..., None, None].unbind(2)  # (n, steps, 1, 1)
    return colors.eye * (1 + brighter + sharper) + purer * colors.tint, -sharper * colors.luma.expand_as(colors.eye)


def _jitter_alike(pixels: Tensor, blends: tuple[Tensor, Tensor], turns: Turns | None, hue_at: int) -> Tensor:
    """The same as `_jitter` for images in all of which the hue comes at one place: it is computed there alone."""
    for step, (matrix, of_mean) in enumerate(zip(*(of.unbind(1) for of in blends), strict=True)):
        if step != hue_at:
            offset = torch.bmm(of_mean, pixels.mean(2, keepdim=True))
            pixels = torch.baddbmm(offset, matrix, pixels).clamp_(0, 1)
        elif turns is not None and pixels.shape[1] == 3:
            pixels = _turn_hue(pixels, *turns)
    return pixels


def _product(a: Tensor, b: Tensor) -> Tensor:
    """A product of matrices (n, i, j) and (n, j, k), of which j is small."""
    if torch.compiler.is_compiling():  # which makes one kernel of this and of what is done before and after it
        return (a[..., None] * b[:, None]).sum(2)
    return torch.bmm(a, b)


def adjust_hue(images: Tensor, shift: Tensor, space: str = "hsv") -> Tensor:
    """Turn the hue of every image by a shift of its own.

    Parameters
    ----------
    images : Tensor of shape (n, 3, h, w), float32
        Red, green and blue in [0, 1].
    shift : Tensor of shape (n,)
        In turns: 1 is once round the circle of hues.
    space : {"hsv", "yiq"}, default="hsv"
        "hsv" keeps every pixel's greatest and least channel as torchvision's ``adjust_hue`` does. "yiq" turns
        the plane of chrominance of NTSC, which keeps luminance; it is one 3x3 matrix and a clamp.

    Returns
    -------
    Tensor of shape (n, 3, h, w), float32
        In [0, 1].

    Examples
    --------
    >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    >>> adjust_hue(red, torch.tensor([0.5])).flatten().round(decimals=3)  # cyan
    tensor([0., 1., 1.])
    """
    return _turn_hue(images.flatten(2), *_hue_turns(shift, _colors(3, space, images.device).hue)).view(images.shape)


def _hue_turns(shift: Tensor, hue: Tensor) -> tuple[Tensor, Tensor | None]:
    """Matrices (n, 3, 3) that turn the hue, and for HSV shares (n, 1, 1) of the extremes' sum, see `_turn_hue`."""
    if hue.dim() == 3:  # YIQ
        angle, (flat, across) = (shift * (2 * math.pi))[:, None, None], hue
        return torch.eye(3, device=shift.device) + (angle.cos() - 1) * flat + angle.sin() * across, None
    # As many thirds of the circle as come nearest, which exchange the channels, and the rest in sixths, in [-1, 1]. Of
    # the last channel a pixel gets 2 max(rest, 0) - 1, and of the next 2 max(-rest, 0) - 1.
    turns = shift * 3
    thirds = turns.round()
    rest = ((turns - thirds) * 2)[:, None, None]
    share = 1 - rest.abs()
    own, both, apart = hue.index_select(0, thirds.remainder(3).long()).unbind(1)
    return torch.addcmul(own, rest, apart).addcmul(share, both, value=-1), share


def _turn_hue(pixels: Tensor, matrices: Tensor, share: Tensor | None) -> Tensor:
    """Turn the hue of (n, 3, pixels) by what `_hue_turns` gives.

    HSV's hue goes round a hexagon, so that a turn by up to a sixth is linear but for a clamp. Scale the channels
    so that the least is 0 and the greatest 1; on a side of the hexagon one channel, x, changes. Forward by t sixths,
    red becomes 2 - t - x from red to yellow, x - t from there to green, 0 up to cyan, and then t - x, t + x and 1.
    All that is red - green + (2 t - 1) blue + 1 - t, clamped to [0, 1]; likewise for the others, round the circle,
    and backwards with the neighbours exchanged. Undoing the scale gives what stands here.
    """
    if share is None:
        return _product(matrices, pixels).clamp_(0, 1)
    r, g, b = pixels.unbind(1)
    low, high = torch.minimum(g, b), torch.maximum(g, b)
    least, most = torch.minimum(r, low)[:, None], torch.maximum(r, high)[:, None]
    return _product(matrices, pixels).addcmul_(least + most, share).clamp_(least, most)


def grayscale(images: Tensor, where: Tensor) -> Tensor:
    """Make some of the images grey, in all their channels.

    Parameters
    ----------
    images : Tensor of shape (n, c, h, w), float32
        Returned as they are where c is not 3.
    where : Tensor of shape (n,), bool
        Which images.

    Returns
    -------
    Tensor of shape (n, c, h, w), float32

    Examples
    --------
    >>> green = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1)
    >>> grayscale(green, torch.tensor([True])).flatten()
    tensor([0.5870, 0.5870, 0.5870])
    """
    n, c, h, w = images.shape
    return _product(_graying(where, _colors(c, "hsv", images.device)), images.reshape(n, c, h * w)).view(n, c, h, w)


def _graying(where: Tensor, colors: _Colors) -> Tensor:
    """Matrices (n, c, c): the identity, or grey in all channels."""
    return torch.addcmul(colors.eye, where.float()[:, None, None], colors.tint, value=-1)


def solarize(images: Tensor, threshold: float, where: Tensor) -> Tensor:
    """Invert, in some of the images, the values from a threshold on.

    Parameters
    ----------
    images : Tensor of shape (n, c, h, w), float32
        In [0, 1].
    threshold : float
        The least value that becomes 1 minus itself.
    where : Tensor of shape (n,), bool
        Which images.

    Returns
    -------
    Tensor of shape (n, c, h, w), float32

    Examples
    --------
    >>> solarize(torch.tensor([[[[0.25, 0.75]]]]), 0.5, torch.tensor([True])).flatten()
    tensor([0.2500, 0.2500])
    """
    limit = torch.where(where, threshold, math.inf)[:, None, None, None]
    inverted = (images >= limit).to(images.dtype)
    return images.lerp(1 - images, inverted)  # several times faster than `where` on a CPU


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur every image by a Gaussian with a deviation of its own.

    As in SimCLR, the kernel is as long as a tenth of the image's height, made odd, and at least 3. The
    borders are reflected. With them folded in, the blur is a matrix product with the rows and one with the
    columns.

    Parameters
    ----------
    images : Tensor of shape (n, c, h, w), float32
        At least 2 pixels high and wide.
    sigma : Tensor of shape (n,)
        The standard deviations, in pixels, above 0.

    Returns
    -------
    Tensor of shape (n, c, h, w), float32

    Examples
    --------
    >>> gaussian_blur(torch.tensor([[[[0.0, 0, 4, 0, 0]] * 2]]), torch.tensor([0.5]))[0, 0, 0]
    tensor([0.0000, 0.4260, 3.1479, 0.4260, 0.0000])
    """
    sides = images.shape[2:]
    return _blur(images, sigma, *(_reflections(side, sides[0], images.device) for side in sides))


def _blur(images: Tensor, sigma: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The work of `gaussian_blur`, with what `_reflections` gives for the rows and for the columns."""
    reach = len(rows) // 2
    taps = torch.arange(-reach, reach + 1, device=images.device)
    kernel = (-0.5 * (taps / sigma[:, None]).square()).exp()  # (n, taps)
    kernel = kernel / kernel.sum(1, keepdim=True)
    return _filter(images, *((kernel @ table.flatten(1)).view(-1, *table.shape[1:]) for table in (rows, columns)))


@functools.lru_cache(maxsize=16)
def _reflections(side: int, height: int, device: torch.device) -> Tensor:
    """Matrices (taps, side, side) of 0 and 1 that shift a side by each tap of a blur, reflected at the borders."""
    reach = max(1, height // 20)
    taps, pixel = torch.arange(-reach, reach + 1, device=device), torch.arange(side, device=device)
    source = (side - 1 - (side - 1 - (pixel[:, None] + taps).abs()).abs()).clamp(min=0)  # (side, taps)
    return (source.mT[:, None] == pixel[:, None]).float().contiguous()  # tap, from, to


def _place(draws: Any) -> Tensor:
    """Where each change of colour comes, (n, 4), or (n, 3) without the hue."""
    return _places(3 if draws.shift is None else 4, draws.order.device).index_select(0, draws.order)


@functools.lru_cache(maxsize=8)
def _places(steps: int, device: torch.device) -> Tensor:
    """All permutations of 0, 1, … (steps! of them, steps)."""
    return torch.tensor(list(itertools.permutations(range(steps))), device=device)


@functools.lru_cache(maxsize=8)
def _here_of_all(steps: int, device: torch.device) -> Tensor:
    """`_here` of all orders."""
    return _here(_places(steps, device))
