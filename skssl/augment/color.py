"""Batched augmentation on the device, with draws of its own for every image, and the papers' presets.

Each step is a small pure function of images and drawn numbers (`resized_crop`, `color_jitter`,
`gaussian_blur`, …) that computes for every image what torchvision's function of that name computes for one.
`Augmentation.draw` draws all numbers of a batch, and `Augmentation.apply` runs the steps on them in
torchvision's order: crop, flip, colour jitter, grey, blur, solarise, normalise.

Nothing here waits for the device. `apply` has static shapes, so that it can be compiled: an image that does
not get a step goes through it unchanged. A CPU skips what an image does not get, and works on as many images
at a time as fit in a core's cache.
"""

from __future__ import annotations

import functools
import itertools
import math
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from skssl.devices import matmul_precision
from skssl.errors import pick

__all__ = [
    "Augmentation",
    "Draws",
    "MultiCrop",
    "adjust_hue",
    "as_augmentations",
    "color_jitter",
    "gaussian_blur",
    "grayscale",
    "preset",
    "resized_crop",
    "rotate_quarter",
    "salient_crops",
    "sample_crops",
    "solarize",
]


def _rows(matrix: np.ndarray) -> tuple[tuple[float, ...], ...]:
    """A matrix as tuples."""
    return tuple(tuple(row) for row in matrix.tolist())


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LUMA = (0.2989, 0.587, 0.114)  # the weights of red, green and blue in grey, as torchvision rounds them
YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])  # NTSC's matrix
# For red, green and blue: what projects on the plane of I and Q, and what turns it from red towards green.
YIQ_PLANE = _rows(np.linalg.inv(YIQ) @ np.diag([0, 1, 1]) @ YIQ)
YIQ_QUARTER = _rows(np.linalg.inv(YIQ) @ [[0, 0, 0], [0, 0, 1], [0, -1, 0]] @ YIQ)
SMALL = 64  # up to this side, in pixels, the presets are those for CIFAR rather than ImageNet
TABLE_BYTES = 2**24  # up to this size all weights of a crop's filter are kept
BOXES = 10  # candidates of a crop, as torchvision draws them
TRIES = 10  # of a crop by a saliency map
UNCHANGED = 4  # stands for the place of the hue in images whose colours do not change
CACHED_PIXELS = 131072  # pixels that are worked on at a time on a CPU, so that they stay in its cache


# Geometry


def sample_crops(
    n: int,
    size: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw boxes as torchvision's ``RandomResizedCrop`` does, one for every image.

    The area is uniform within `scale`, the logarithm of the aspect ratio is uniform, the sides are rounded
    and the place is uniform among those where the box fits. The first of ten candidates that fits is taken;
    should none fit, the largest centred box within `ratio`.

    Parameters
    ----------
    n : int
        How many boxes.
    size : tuple of int
        Height and width of the images.
    scale : tuple of float
        The least and the greatest area, as fractions of the image's.
    ratio : tuple of float
        The least and the greatest width by height.
    generator : torch.Generator
        What is drawn from; the boxes lie on its device.

    Returns
    -------
    top, left, height, width : Tensor of shape (n,), float32
        Whole numbers of pixels.

    References
    ----------
    .. [1] Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> top, left, height, width = sample_crops(1000, (32, 48), (0.08, 1.0), (3 / 4, 4 / 3), generator)
    >>> bool((left + width).max() <= 48)
    True
    """
    numbers = torch.rand(n, 2 * BOXES + 2, generator=generator, device=generator.device)
    low, high = _limits_of_crops(size, scale, ratio)
    drawn = torch.lerp(_constant(low, generator.device), _constant(high, generator.device), numbers)
    corner, sides = _boxes(drawn, _frame(size, ratio, generator.device))
    top, left, height, width = *corner.unbind(1), *sides.unbind(1)
    return top, left, height, width


def _limits_of_crops(
    size: Sequence[int], scale: tuple[float, float], ratio: tuple[float, float]
) -> list[tuple[float, ...]]:
    """The least and the greatest of a crop's numbers: areas, half the logarithms of the ratios, and the place."""
    pairs = zip(scale, ratio, (0.0, 1.0), strict=True)
    return [(s * math.prod(size),) * BOXES + (math.log(r) / 2,) * BOXES + (place,) * 2 for s, r, place in pairs]


def _boxes(drawn: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
    """Corners (n, 2) and sides (n, 2) of `sample_crops` from numbers (n, 2 * BOXES + 2) within `_limits_of_crops`."""
    whole, centred, largest, sign = frame
    area, half, place = drawn.split((BOXES, BOXES, 2), 1)
    sides = ((half[..., None] * sign).exp() * area.sqrt()[..., None]).round()  # (n, BOXES, 2)
    fits = ((sides >= 1) & (sides <= whole)).all(2)
    first = fits.byte().argmax(1, keepdim=True)
    sides = sides.gather(1, first[..., None].expand(-1, -1, 2))[:, 0]
    corner = (place * (whole - sides + 1)).floor()
    found = fits.gather(1, first)
    return torch.where(found, corner, centred), torch.where(found, sides, largest)


def _frame(size: Sequence[int], ratio: tuple[float, float], device: torch.device) -> Tensor:
    """What `_boxes` needs for rows and columns, (4, 2).

    Height and width of the images, corner and sides of the largest centred box within the ratio, and the ratio's sign.
    """
    h, w = size
    height, width = min(h, round(w / ratio[0])), min(w, round(h * ratio[1]))
    return _constant(((h, w), ((h - height) // 2, (w - width) // 2), (height, width), (-1, 1)), device)


def salient_crops(candidates: Sequence[Tensor], maps: Tensor) -> tuple[Tensor, ...]:
    """Choose for every image the first box in which its map is higher on average than in the whole image.

    Parameters
    ----------
    candidates : sequence of 4 Tensors of shape (n, k)
        Top, left, height and width of k boxes for each image, in whole pixels. The last is taken where none of the
        others will do.
    maps : Tensor of shape (n, h, w)
        The maps, of the images' size.

    Returns
    -------
    top, left, height, width : Tensor of shape (n,)
        The boxes.

    References
    ----------
    .. [1] "Towards Efficient and Effective Self-Supervised Learning of Visual Representations", ECCV 2022, section
           3.2, with a threshold of 1.

    Examples
    --------
    >>> boxes = torch.tensor([[0, 2]]), torch.tensor([[0, 2]]), torch.tensor([[2, 2]]), torch.tensor([[2, 2]])
    >>> [side.item() for side in salient_crops(boxes, torch.eye(4)[None])]
    [0, 0, 2, 2]
    """
    n, w = len(maps), maps.shape[2]
    # Entry (y, x) of the integral is the sum above and to the left of pixel (y, x), so that four make a box.
    integral = torch.nn.functional.pad(maps.cumsum(1).cumsum(2), (1, 0, 1, 0)).view(n, -1)
    top, left, height, width = (side.long() for side in candidates)
    corners = [
        integral.gather(1, y * (w + 1) + x) for y, x in itertools.product((top, top + height), (left, left + width))
    ]
    total = corners[3] - corners[2] - corners[1] + corners[0]
    good = total / (height * width) > maps.mean((1, 2))[:, None]
    good[:, -1] = True
    first = good.byte().argmax(1, keepdim=True)
    return tuple(side.gather(1, first)[:, 0] for side in candidates)


def resized_crop(
    images: Tensor,
    top: Tensor,
    left: Tensor,
    height: Tensor,
    width: Tensor,
    size: tuple[int, int],
    flip: Tensor | None = None,
    interpolation: str = "bilinear",
    padding: int = 0,
) -> Tensor:
    """Cut a box of its own out of every image, resize it with antialiasing, and mirror it if asked.

    The same as torchvision's ``resized_crop(antialias=True)`` followed by ``hflip``. The filter is separable,
    so that the whole is one matrix product with the rows of an image and one with its columns.

    Parameters
    ----------
    images : Tensor of shape (n, c, h, w)
        uint8, or float in [0, 1].
    top, left, height, width : Tensor of shape (n,)
        The boxes, in whole pixels, within the image and its padding.
    size : tuple of int
        Height and width of what is returned.
    flip : Tensor of shape (n,), bool, default=None
        Which images are mirrored from left to right.
    interpolation : {"bilinear", "bicubic"}, default="bilinear"
        The filter: a triangle, or Keys' cubic with a = -1/2, which may leave [0, 1] by a little.
    padding : int, default=0
        How many black pixels surround every image.

    Returns
    -------
    Tensor of shape (n, c, height, width), float32
        The crops; uint8 images have been brought to [0, 1].

    Examples
    --------
    >>> images = torch.arange(16.0).view(1, 1, 4, 4)
    >>> box = torch.tensor([[1.0], [0.0], [2.0], [4.0]])
    >>> resized_crop(images, *box, size=(1, 2), flip=torch.tensor([True]))
    tensor([[[[8.2857, 6.7143]]]])
    """
    pairs, how = zip(images.shape[2:], size, strict=True), (interpolation, padding)
    tables = [_all_weights(*pair, *how, images.device) for pair in pairs]
    corner, sides = torch.stack((top, left), 1), torch.stack((height, width), 1)
    return _filter(images, *_filters(corner, sides, flip, images.shape[2:], size, *how, *tables))


def _filters(
    corner: Tensor,
    sides: Tensor,
    flip: Tensor | None,
    image_size: Sequence[int],
    size: Sequence[int],
    interpolation: str,
    padding: int,
    rows: Tensor | None,
    columns: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Weights for the rows and for the columns of every image that cut its box out, resize and mirror it."""
    (h, w), how = image_size, (interpolation, padding)
    if h == w and size[0] == size[1]:  # both at once
        flips = None if flip is None else (flip[:, None] & (torch.arange(2, device=flip.device) == 1)).flatten()
        both = _resampling(corner.flatten(), sides.flatten(), h, size[0], flips, *how, rows)
        return both[::2], both[1::2]
    return (
        _resampling(corner[:, 0], sides[:, 0], h, size[0], None, *how, rows),
        _resampling(corner[:, 1], sides[:, 1], w, size[1], flip, *how, columns),
    )


def _filter(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Multiply every image by matrices (n, h, height) and (n, w, width) of its own."""
    n, c, h, w = images.shape
    height, width = rows.shape[2], columns.shape[2]
    if images.dtype == torch.uint8:
        rows = rows / 255
    x = images.float().movedim(1, 3).reshape(n, h, w * c)  # no second copy where the channels lie last
    x = torch.bmm(rows.mT, x)
    x = x.view(n, height, w, c).movedim(3, 1).reshape(n, c * height, w)
    return torch.bmm(x, columns).view(n, c, height, width)


def _resampling(
    start: Tensor,
    length: Tensor,
    n_in: int,
    n_out: int,
    flip: Tensor | None,
    interpolation: str,
    padding: int,
    table: Tensor | None,
) -> Tensor:
    """Weights (n, n_in, n_out) that take intervals of `n_in` pixels to `n_out`, looked up where there is a table."""
    if table is None:
        return _weights(start, length, n_in, n_out, flip, interpolation, padding)
    whole = n_in + 2 * padding
    start = start + padding if padding else start
    # All lengths from the first pixel on, then from the second, …, then the same mirrored
    place = torch.addcmul(length - 1, start, torch.rsub(start, whole + 0.5, alpha=0.5))
    if flip is not None:
        place = torch.add(place, flip, alpha=whole * (whole + 1) // 2)
    return table.index_select(0, place.long())


@functools.lru_cache(maxsize=16)
def _all_weights(n_in: int, n_out: int, interpolation: str, padding: int, device: torch.device) -> Tensor | None:
    """Weights for all intervals of whole pixels, by their starts and then their ends, then mirrored; None if many."""
    whole = n_in + 2 * padding
    if whole * (whole + 1) * n_in * n_out * 4 > TABLE_BYTES:
        return None
    first, last = torch.triu_indices(whole, whole, device=device).float()
    weights = _weights(first - padding, last - first + 1, n_in, n_out, None, interpolation, padding)
    return torch.cat((weights, weights.flip(2)))


def _weights(
    start: Tensor, length: Tensor, n_in: int, n_out: int, flip: Tensor | None, interpolation: str, padding: int
) -> Tensor:
    """Compute the weights of `_resampling`."""
    device = start.device
    scale = (length / n_out)[:, None]
    shrink = 1 / scale.clamp(min=1)
    centre = (torch.arange(n_out, device=device) + 0.5) * scale  # from the start to each pixel that comes out
    if flip is not None:
        centre = torch.where(flip[:, None], length[:, None] - centre, centre)
    pixel = torch.arange(-padding, n_in + padding, device=device) + 0.5 - start[:, None]
    pixel = pixel.masked_fill((pixel < 0) | (pixel > length[:, None]), math.inf)  # what is outside weighs nothing
    distance = (pixel * shrink)[:, :, None] - (centre * shrink)[:, None]  # (n, n_in + 2 * padding, n_out)
    weights = _FILTERS[interpolation](distance.abs_())
    weights.div_(weights.sum(1, keepdim=True))
    return weights[:, padding : padding + n_in]


def _triangle(x: Tensor) -> Tensor:
    """Minus the triangle filter at a distance, in place; the sign goes as the weights are normalised."""
    return x.clamp_(max=1).sub_(1)


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic with a = -1/2 at a distance: what holds up to 2, and what is added to it up to 1."""
    near, far = x.clamp(max=1).sub_(1), x.clamp_(max=2).sub_(2)
    inner, outer = near.square(), far.square()
    inner.addcmul_(inner, near, value=2)  # (2 near + 1) near^2
    outer.addcmul_(outer, far)  # (far + 1) far^2
    return inner.sub_(outer, alpha=0.5)


_FILTERS = {"bilinear": _triangle, "bicubic": _cubic}


def rotate_quarter(images: Tensor, k: Tensor) -> Tensor:
    """Turn every image by a number of quarter-turns of its own, exactly: pixels move, none is interpolated.

    Parameters
    ----------
    images : Tensor of shape (n, c, side, side)
        Square images of any type.
    k : Tensor of shape (n,), int64
        How many quarter-turns, counter-clockwise as in `torch.rot90`, from 0 to 3.

    Returns
    -------
    Tensor of shape (n, c, side, side)
        The turned images, of the same type.

    Raises
    ------
    ValueError
        If the images are not square.

    Examples
    --------
    >>> rotate_quarter(torch.tensor([[[[1, 2], [3, 4]]]]), torch.tensor([1]))
    tensor([[[[2, 4],
              [1, 3]]]])
    """
    n, c, h, w = images.shape
    if h != w:
        raise ValueError(f"Quarter-turns need square images: expected as many rows as columns, got {h} and {w}.")
    place = torch.arange(h * w, device=images.device).view(h, w)
    table = torch.stack([place.rot90(i).flatten() for i in range(4)])  # (4, h * w): where each pixel comes from
    source = table.index_select(0, k)[:, None].expand(n, c, h * w)
    return images.reshape(n, c, h * w).gather(2, source).view(n, c, h, w)


# Colour


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


# Augmentation


class Draws(NamedTuple):
    """What `Augmentation.draw` has drawn for n views; None where a setting leaves nothing to draw.

    Attributes
    ----------
    corner, sides : Tensor of shape (n, 2), float32
        The crops' tops and lefts, and their heights and widths, in whole pixels.
    flip : Tensor of shape (n,), bool
        Which views are mirrored.
    jitter : Tensor of shape (n,), bool
        Which have their colours changed.
    factors : Tensor of shape (n, 3), float32
        Of brightness, contrast and saturation.
    shift : Tensor of shape (n,), float32
        Of the hue, in turns.
    order : Tensor of shape (n,), int64
        Where brightness, contrast, saturation and hue come: which of `itertools.permutations` of 0, 1, 2, 3. Of 0, 1, 2
        without the hue.
    gray, blur : Tensor of shape (n,), bool
        Which become grey, and which are blurred.
    sigma : Tensor of shape (n,), float32
        The blur's deviations.
    solarize : Tensor of shape (n,), bool
        Which are solarised.
    turns : Tensor of shape (n,), int64
        Quarter-turns.
    """

    corner: Tensor
    sides: Tensor
    flip: Tensor | None = None
    jitter: Tensor | None = None
    factors: Tensor | None = None
    shift: Tensor | None = None
    order: Tensor | None = None
    gray: Tensor | None = None
    blur: Tensor | None = None
    sigma: Tensor | None = None
    solarize: Tensor | None = None
    turns: Tensor | None = None

    def of(self, some: Tensor | slice) -> Draws:
        """The draws of some of the views."""
        return Draws._make(drawn if drawn is None else drawn[some] for drawn in self)


# How many numbers in [0, 1) each view takes, always and in this order: a crop's, whether it is mirrored, whether it is
# jittered, by how much, in which order, whether it becomes grey, whether it is blurred, by how much, whether it is
# solarised, and how it is turned.
NUMBERS = (2 * BOXES + 2, 1, 1, 4, 1, 1, 1, 1, 1, 1)
FLIP, JITTER, _, _, GRAY, BLUR, _, SOLARIZE, TURN = itertools.accumulate(NUMBERS[:-1])  # where they stand


class _Constants(NamedTuple):
    """What an augmentation computes with besides images and draws; see `Augmentation._constants`."""

    frame: Tensor  # as `_frame` gives it
    limits: Tensor  # (3, numbers): the least and the greatest of each, and where it is a chance, below what it hits
    here: Tensor  # (orders, steps, changes): `_here` of all orders
    colors: _Colors
    gain: Tensor  # (c,)
    offset: Tensor  # (c,)
    rows: Tensor | None  # as `_all_weights` gives them
    columns: Tensor | None
    blur_rows: Tensor | None  # as `_reflections` gives them
    blur_columns: Tensor | None


class _Plan(NamedTuple):
    """Draws, and what follows from them before any pixel is looked at."""

    draws: Draws
    turns: Any  # as `_hue_turns` gives them
    share: Any
    blends: Any  # as `_blends` gives them, where images are worked on in parts
    of_mean: Any
    colors: Tensor  # (n, c, c): grey, and normalisation but for its offset where nothing comes between the two

    def of(self, some: slice) -> _Plan:
        """The plan of some of the views."""
        parts = (tensor if tensor is None else tensor[some] for tensor in self[1:])
        return _Plan._make((self.draws.of(some), *parts))


def _full_precision(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Keep lower precisions out, for an augmentation that is called within a step."""

    @functools.wraps(call)
    def wrapped(self: Augmentation, images: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            if torch.compiler.is_compiling():
                return call(self, images, *args, **kwargs)
            with matmul_precision("highest", images.device):
                return call(self, images, *args, **kwargs)

    return wrapped


@dataclass(kw_only=True, eq=False, repr=False)
class Augmentation(BaseEstimator):
    """Random views of a batch of images, each image by draws of its own, as float32 that a network takes.

    The steps and their order are torchvision's: crop, flip, colour jitter, grey, blur, solarise, normalise.
    The defaults are the CIFAR settings of SimCLR with ImageNet's mean and deviation. Constructing stores,
    calling computes.

    Parameters
    ----------
    crop_scale : tuple of float or None, default=(0.08, 1.0)
        The least and the greatest area of the random crop, as fractions of the image's. None: no such crop.
    crop_ratio : tuple of float, default=(3/4, 4/3)
        The least and the greatest width by height of the random crop.
    crop_padding : int, default=0
        If above 0, then instead of that crop one of the image's own size, of the image surrounded by so many
        black pixels.
    saliency : array of shape (n_samples, h, w) or None, default=None
        A map for each of the training images, such as `saliency.grad_cam` makes, of any size. The random crop is drawn
        until its map is higher on average than the image's, ten times at most, then once more; see `salient_crops`.
    good_crops : float, default=1.0
        The probability that a crop is chosen so.
    size : int, tuple of int or None, default=None
        Side, or height and width, of a view. None: those of the images.
    interpolation : {"bilinear", "bicubic"}, default="bilinear"
        How crops are resized, always antialiased.
    flip : float, default=0.5
        Probability of mirroring from left to right.
    quarter_turn : float, default=0.0
        Probability of turning a square view by 0, 90, 180 or 270 degrees, each as likely: rotation as an augmentation.
    jitter : float, default=0.8
        Probability of changing brightness, contrast, saturation and hue, in a random order.
    brightness, contrast, saturation : float, default=0.4
        The factors are uniform within 1 minus (but at least 0) and 1 plus this.
    hue : float, default=0.1
        The shift is uniform within minus and plus this, in turns.
    hue_space : {"hsv", "yiq"}, default="hsv"
        Where the hue turns: see `adjust_hue`. "hsv" is what the papers used.
    gray : float, default=0.2
        Probability of becoming grey.
    blur : float, default=0.0
        Probability of a Gaussian blur.
    blur_sigma : tuple of float, default=(0.1, 2.0)
        Its least and greatest deviation, in pixels.
    solarize : float, default=0.0
        Probability of inverting the values from `solarize_threshold` on.
    solarize_threshold : float, default=0.5
        On the scale of [0, 1].
    mean, std : tuple of float, default=ImageNet's
        Subtracted from and divided by, for red, green and blue in [0, 1]. For images with other than three
        channels their averages count. Such images keep their saturation and hue and do not become grey.

    Notes
    -----
    Everything is drawn for each image by itself. A call is `draw` and then `apply`. The numbers that are drawn for a
    view do not depend on which steps there are, so that two settings with one seed crop alike.

    References
    ----------
    .. [1] Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020,
           appendix A.

    Examples
    --------
    >>> images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    >>> augment = Augmentation(crop_scale=(0.2, 1.0), hue=0.0)
    >>> views = augment(images, torch.Generator().manual_seed(0))
    >>> views.shape, views.dtype
    (torch.Size([8, 3, 32, 32]), torch.float32)
    >>> augment
    Augmentation(crop_scale=(0.2, 1.0), hue=0.0)
    """

    crop_scale: tuple[float, float] | None = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_padding: int = 0
    saliency: Any = None
    good_crops: float = 1.0
    size: int | tuple[int, int] | None = None
    interpolation: str = "bilinear"
    flip: float = 0.5
    quarter_turn: float = 0.0
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    hue_space: str = "hsv"
    gray: float = 0.2
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0
    solarize_threshold: float = 0.5
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "crop_scale": ["array-like", None],
        "crop_ratio": ["array-like"],
        "crop_padding": [Interval(Integral, 0, None, closed="left")],
        "saliency": ["array-like", Tensor, None],
        "size": [Interval(Integral, 1, None, closed="left"), "array-like", None],
        "interpolation": [StrOptions(set(_FILTERS))],
        "brightness": [Interval(Real, 0, None, closed="left")],
        "contrast": [Interval(Real, 0, None, closed="left")],
        "saturation": [Interval(Real, 0, None, closed="left")],
        "hue": [Interval(Real, 0, 0.5, closed="both")],
        "hue_space": [StrOptions({"hsv", "yiq"})],
        "blur_sigma": ["array-like"],
        "solarize_threshold": [Interval(Real, 0, 1, closed="both")],
        "mean": ["array-like"],
        "std": ["array-like"],
        **{
            name: [Interval(Real, 0, 1, closed="both")]
            for name in ("good_crops", "flip", "quarter_turn", "jitter", "gray", "blur", "solarize")
        },
    }

    def validate(self) -> None:
        """Check the parameters, in scikit-learn's words; done by `fit`, and by a call where they are new.

        Raises
        ------
        ValueError
            If a parameter is of the wrong type or out of its range.

        Examples
        --------
        >>> Augmentation(crop_scale=(1.0, 0.2)).validate()
        Traceback (most recent call last):
        ...
        ValueError: The 'crop_scale' parameter of Augmentation must be two numbers, the lower first, above 0
        and at most 1. Got (1.0, 0.2) instead.
        """
        self._validate_params()
        for name, greatest in (("crop_scale", 1.0), ("crop_ratio", math.inf), ("blur_sigma", math.inf)):
            if getattr(self, name) is not None:
                _check_range(self, name, greatest)
        for name, positive in (("mean", False), ("std", True)):
            value = getattr(self, name)
            if not (_reals(value, 3) and (min(value) > 0 or not positive)):
                raise _refusal(self, name, f"three numbers{' above 0' if positive else ''}")
        if self.saliency is not None and (np.ndim(self.saliency) != 3 or not self.crop_scale or self.crop_padding):
            raise ValueError(
                "The 'saliency' parameter of Augmentation must be an array (n_samples, h, w), and go with a crop_scale "
                f"and without crop_padding. Got {np.ndim(self.saliency)} axes, crop_scale={self.crop_scale!r} and "
                f"crop_padding={self.crop_padding!r}."
            )
        size: Any = self.size
        if not isinstance(size, Integral | None) and not (
            len(size) == 2 and all(isinstance(side, Integral) for side in size) and min(size) >= 1
        ):
            raise _refusal(self, "size", "a number of pixels, two of them (height and width) or None")
        self._checked = self._state()

    def _state(self) -> tuple[Any, ...]:
        """The parameters' values."""
        return tuple(getattr(self, field.name) for field in fields(self))

    def __getstate__(self) -> dict[str, Any]:
        """What is copied, pickled and hashed: nothing that only says that the parameters were checked."""
        return {key: value for key, value in super().__getstate__().items() if key not in ("_checked", "_maps")}

    def _ensure_valid(self) -> None:
        """Check the parameters unless they are those checked last."""
        checked = getattr(self, "_checked", None)
        if checked is None or any(old is not new for old, new in zip(checked, self._state(), strict=True)):
            self.validate()

    @torch.no_grad()
    @_full_precision
    def __call__(
        self,
        images: Tensor,
        generator: torch.Generator,
        index: Tensor | None = None,
        n_views: int = 1,
        compile: bool = False,
    ) -> Tensor:
        """Draw one view of every image, or several.

        Parameters
        ----------
        images : Tensor of shape (n, c, h, w)
            uint8, or float in [0, 1], on any device and in any memory format.
        generator : torch.Generator
            Where all draws come from, on the images' device.
        index : int64 Tensor of shape (n,), optional
            Which images of the training set they are; for `saliency` only.
        n_views : int, default=1
            How many of each, by draws of their own; quicker than as many calls.
        compile : bool, default=False
            Whether the views are made by ``torch.compile``. It takes seconds once for each setting and shape in a
            process; all augmentations of equal parameters share what was compiled.

        Returns
        -------
        Tensor of shape (n_views * n, c, height, width), float32
            The first view of each image, in the images' order, then the second of each, and so on. The channels lie
            last in memory, as convolutions like it.

        Raises
        ------
        ValueError
            If a parameter is of the wrong type or out of its range.
        """
        self._ensure_valid()
        size = tuple(images.shape[2:])
        index = index if index is None or n_views == 1 else index.repeat(n_views)
        numbers, maps = self._numbers(n_views * len(images), size, generator, index)
        constants = self._constants(images.shape[1], size, images.device)
        if compile and not torch.compiler.is_compiling():
            return _compiled(self, images, numbers, maps, constants)
        return self._run(images, self._interpret(numbers, size, maps, constants), constants)

    @torch.no_grad()
    def draw(self, n: int, size: tuple[int, int], generator: torch.Generator, index: Tensor | None = None) -> Draws:
        """Draw all numbers of n views, in one call of the generator.

        Parameters
        ----------
        n : int
            How many views.
        size : tuple of int
            Height and width of the images.
        generator : torch.Generator
            What is drawn from; the draws lie on its device.
        index : int64 Tensor of shape (n,), optional
            Which images of the training set the views are of; for `saliency` only.

        Returns
        -------
        Draws
            The draws.

        Raises
        ------
        ValueError
            If a parameter is of the wrong type or out of its range.

        Examples
        --------
        >>> augment = Augmentation(flip=0.0, jitter=1.0)
        >>> draws = augment.draw(4, (32, 32), torch.Generator().manual_seed(0))
        >>> draws.sides.shape, draws.flip, draws.jitter
        (torch.Size([4, 2]), None, tensor([True, True, True, True]))
        """
        self._ensure_valid()
        numbers, maps = self._numbers(n, size, generator, index)
        return self._interpret(numbers, size, maps, self._constants(3, size, generator.device))

    @torch.no_grad()
    @_full_precision
    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """Make the views that draws describe: a pure function, whose shapes depend on those of its arguments alone.

        Parameters
        ----------
        images : Tensor of shape (n, c, h, w)
            uint8, or float in [0, 1], on any device and in any memory format.
        draws : Draws
            Of ``n_views * n`` views, by `draw`. View i is one of image i % n.

        Returns
        -------
        Tensor of shape (n_views * n, c, height, width), float32
            The views, as a call returns them.

        Raises
        ------
        ValueError
            If a parameter is of the wrong type or out of its range.

        Examples
        --------
        >>> images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
        >>> augment = Augmentation(jitter=0.0)
        >>> draws = augment.draw(16, (32, 32), torch.Generator().manual_seed(0))
        >>> augment.apply(images, draws).shape
        torch.Size([16, 3, 32, 32])
        """
        self._ensure_valid()
        return self._run(images, draws, self._constants(images.shape[1], tuple(images.shape[2:]), images.device))

    def _numbers(
        self, n: int, size: Sequence[int], generator: torch.Generator, index: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Numbers (n, k) in [0, 1) from which the draws of n views follow, and the images' saliency maps (n, h, w)."""
        maps = self._salient(index, size)
        k = sum(NUMBERS) + (0 if maps is None else TRIES * NUMBERS[0] + 1)
        return torch.rand(n, k, generator=generator, device=generator.device), maps

    def _interpret(self, numbers: Tensor, size: Sequence[int], maps: Tensor | None, constants: _Constants) -> Draws:
        """Draws that follow from `_numbers`."""
        low, high, chance = constants.limits
        n, hits = len(numbers), (numbers < chance).unbind(1)
        parts = torch.lerp(low, high, numbers).split([*NUMBERS, numbers.shape[1] - sum(NUMBERS)], 1)
        crop, _, _, amounts, order, _, _, sigma, _, turns, more = parts
        if self.crop_padding:
            corner, sides = crop[:, -2:].floor(), constants.frame[0].expand(n, 2)
        elif self.crop_scale and maps is not None:
            boxes = _boxes(torch.cat((crop, more[:, :-1]), 1).view(-1, NUMBERS[0]), constants.frame)
            candidates = [side for box in boxes for side in box.view(n, -1, 2).unbind(2)]
            chosen = salient_crops(candidates, maps)
            mine = [torch.where(hits[-1], a, b[:, -1]) for a, b in zip(chosen, candidates, strict=True)]
            corner, sides = torch.stack(mine[:2], 1), torch.stack(mine[2:], 1)
        elif self.crop_scale:
            corner, sides = _boxes(crop, constants.frame)
        else:
            corner, sides = crop.new_zeros(n, 2), constants.frame[0].expand(n, 2)
        jitters = self.jitter and (self.brightness or self.contrast or self.saturation or self.hue)
        return Draws(
            corner,
            sides,
            flip=hits[FLIP] if self.flip else None,
            jitter=hits[JITTER] if jitters else None,
            factors=amounts[:, :3] if jitters else None,
            shift=amounts[:, 3] if jitters and self.hue else None,
            order=order[:, 0].long() if jitters else None,
            gray=hits[GRAY] if self.gray else None,
            blur=hits[BLUR] if self.blur else None,
            sigma=sigma[:, 0] if self.blur else None,
            solarize=hits[SOLARIZE] if self.solarize else None,
            turns=turns[:, 0].long().clamp(max=3) * hits[TURN] if self.quarter_turn else None,
        )

    def _run(self, images: Tensor, draws: Draws, constants: _Constants) -> Tensor:
        """The work of `apply`: all at once, or in parts on a CPU."""
        size = images.shape[2:]
        if images.device.type != "cpu" or torch.compiler.is_compiling():
            return self._views(images, self._plan(draws, size, constants), constants)
        n, c, (height, width) = len(draws.corner), images.shape[1], self.size_of(*size)
        rows, counts = _by_hue(draws)
        plan, source = self._plan(draws.of(rows), size, constants, in_parts=True), rows % len(images)
        views, images = torch.empty(n, height * width * c), images.movedim(1, 3)
        for hue_at, some in _parts(counts, max(1, CACHED_PIXELS // (height * width))):
            x = images.index_select(0, source[some]).movedim(3, 1)
            x = self._views(x, plan.of(some), constants, hue_at)
            views.index_copy_(0, rows[some], x.movedim(1, 3).reshape(len(x), -1))
        return views.view(n, height, width, c).movedim(3, 1)

    def _plan(self, draws: Any, size: Sequence[int], constants: _Constants, in_parts: bool = False) -> _Plan:
        """Make matrices of the changes of colour."""
        blends = of_mean = turns = share = None
        if draws.jitter is not None and in_parts:
            blends, of_mean = _blends(draws.factors, _place(draws), constants.colors)
        if draws.shift is not None:
            turns, share = _hue_turns(draws.shift, constants.colors.hue)
        colors = constants.colors.eye.expand(len(draws.corner), -1, -1)
        if draws.gray is not None:
            colors = _graying(draws.gray, constants.colors)
        if draws.blur is None and draws.solarize is None:
            colors = constants.gain[:, None] * colors
        return _Plan(draws, turns, share, blends, of_mean, colors)

    def _views(self, images: Tensor, plan: _Plan, constants: _Constants, hue_at: int | None = None) -> Tensor:
        """Views by a plan. Told where the hue comes in all of them, see `_by_hue`, it skips what none of them gets."""
        draws: Any = plan.draws  # whose fields follow from the parameters
        n, (c, *size) = len(draws.corner), images.shape[1:]
        height, width = self.size_of(*size)
        if torch.compiler.is_compiling():
            images = _as_float(images)  # in one kernel with what follows
        if n != len(images):
            images = images.movedim(1, 3).repeat(n // len(images), 1, 1, 1).movedim(3, 1)
        cropped = self.crop_padding or self.crop_scale or draws.flip is not None or [height, width] != size
        x = self._crop(images, draws, constants) if cropped else _as_float(images)
        x = x.reshape(n, c, height * width)
        planes = _planes(x)
        if draws.jitter is not None and hue_at != UNCHANGED:
            turns = None if plan.turns is None else (plan.turns, plan.share)
            if hue_at is None:
                here = constants.here.index_select(0, draws.order)
                steps = _around_contrast(draws.factors, here, turns, constants.colors)
                changed = _jitter(planes, draws.factors[:, 1], steps, constants.colors)
                where = draws.jitter[:, None, None]
                planes = tuple(torch.where(where, new, old) for new, old in zip(changed, planes, strict=True))
            else:
                planes = (_jitter_alike(x, (plan.blends, plan.of_mean), turns, hue_at),)
        colors = plan.colors
        if draws.blur is not None or draws.solarize is not None:
            planes = _mix(colors, planes)
            x = planes[0].view(n, c, height, width) if len(planes) == 1 else _last(planes, height)
            if draws.blur is not None:
                x = self._blur(x, draws, constants, hue_at)
            if draws.solarize is not None:
                x = solarize(x, self.solarize_threshold, draws.solarize)
            planes, colors = _planes(x.flatten(2)), constants.gain.diag().expand(n, c, c)
        if len(planes) > 1:
            offsets = constants.offset.split(1)
            x = _last([plane + offset for plane, offset in zip(_mix(colors, planes), offsets, strict=True)], height)
        else:
            x = _product(planes[0].mT, colors.mT).view(n, -1).add_(constants.offset.repeat(height * width))
            x = x.view(n, height, width, c).movedim(3, 1)
        if draws.turns is not None:
            x = rotate_quarter(x, draws.turns).contiguous(memory_format=torch.channels_last)
        return x

    def _crop(self, images: Tensor, draws: Draws, constants: _Constants) -> Tensor:
        """Cut out the boxes, and mirror."""
        size = images.shape[2:]
        how = self.interpolation, self.crop_padding, constants.rows, constants.columns
        crops = _filter(images, *_filters(draws.corner, draws.sides, draws.flip, size, self.size_of(*size), *how))
        return crops.clamp_(0, 1) if self.interpolation == "bicubic" else crops

    def _blur(self, x: Tensor, draws: Any, constants: Any, hue_at: int | None) -> Tensor:
        """Blur some of the images, and of a part those alone."""
        tables = constants.blur_rows, constants.blur_columns
        if hue_at is None:
            return torch.where(draws.blur[:, None, None, None], _blur(x, draws.sigma, *tables), x)
        some = draws.blur.nonzero()[:, 0]
        return x.index_copy_(0, some, _blur(x.index_select(0, some), draws.sigma.index_select(0, some), *tables))

    def _constants(self, c: int, size: Sequence[int], device: torch.device) -> _Constants:
        """All constants for images of a shape; they move to a device once, since the host waits for each such move."""
        sides, how = self.size_of(*size), (self.interpolation, self.crop_padding, device)
        gain, offset = self._scaling(c, device)
        return _Constants(
            _frame(size, self.crop_ratio, device),
            _constant(self._limits(size), device),
            _here_of_all(4 if self.hue else 3, device),
            _colors(c, self.hue_space, device),
            gain,
            offset,
            *(_all_weights(n_in, n_out, *how) for n_in, n_out in zip(size, sides, strict=True)),
            *(_reflections(side, sides[0], device) if self.blur else None for side in sides),
        )

    def _limits(self, size: Sequence[int]) -> tuple[tuple[float, ...], ...]:
        """Between what each of the drawn numbers lies, and below what those that are chances hit, see NUMBERS."""
        crop = _limits_of_crops(size, self.crop_scale or (1.0, 1.0), self.crop_ratio)
        if self.crop_padding:
            crop = [(of,) * NUMBERS[0] for of in (-self.crop_padding, self.crop_padding + 1)]
        factors = [(max(0, 1 - reach), 1 + reach) for reach in (self.brightness, self.contrast, self.saturation)]
        orders = (0, math.factorial(4 if self.hue else 3))
        turns = (0, 4 / (self.quarter_turn or 1))
        each = [(0, 1), (0, 1), *factors, (-self.hue, self.hue), orders, (0, 1), (0, 1), self.blur_sigma, (0, 1), turns]
        low, high = ((*of, *others) for of, others in zip(crop, zip(*each, strict=True), strict=True))
        chances = {
            FLIP: self.flip,
            JITTER: self.jitter,
            GRAY: self.gray,
            BLUR: self.blur,
            SOLARIZE: self.solarize,
            TURN: self.quarter_turn,
        }
        chance = tuple(chances.get(k, 1.0) for k in range(sum(NUMBERS)))
        if self.saliency is not None:
            low, high = ((*of, *crops * TRIES, k) for k, (of, crops) in enumerate(zip((low, high), crop, strict=True)))
            chance = (*chance, *(1.0,) * (TRIES * NUMBERS[0]), self.good_crops)
        return tuple(tuple(map(float, of)) for of in (low, high, chance))

    @torch.no_grad()
    @_full_precision
    def normalize(self, images: Tensor) -> Tensor:
        """Bring images to the scale of the views, and do nothing else.

        Parameters
        ----------
        images : Tensor of shape (n, c, h, w)
            uint8, or float in [0, 1].

        Returns
        -------
        Tensor of shape (n, c, h, w), float32
            Divided by 255 if they are uint8, less `mean`, by `std`; channels last in memory.

        Examples
        --------
        >>> white = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
        >>> Augmentation(mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0)).normalize(white).flatten()
        tensor([2.0000, 1.0000, 0.5000])
        """
        self._ensure_valid()
        n, c, h, w = images.shape
        gain, offset = (of.repeat(w) for of in self._scaling(c, images.device))
        gain = gain / 255 if images.dtype == torch.uint8 else gain
        rows = images.movedim(1, 3).reshape(n * h, w * c)  # long ones, so that a CPU takes many numbers at a time
        return torch.addcmul(offset, rows.float(), gain).view(n, h, w, c).movedim(3, 1)

    def still(self, images: Tensor) -> Tensor:
        """Bring images to the size and the scale of the views, and do nothing else: what a trained network is given.

        Parameters
        ----------
        images : Tensor of shape (n, c, h, w)
            uint8, or float in [0, 1].

        Returns
        -------
        Tensor of shape (n, c, height, width), float32
            Resized where `size` is another one, and normalised; channels last in memory.

        Examples
        --------
        >>> Augmentation(size=24).still(torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 3, 24, 24])
        """
        size = self.size_of(*images.shape[2:])
        if size != images.shape[2:]:
            images = _as_float(images)
            images = torch.nn.functional.interpolate(images, size, mode=self.interpolation, antialias=True).clamp_(0, 1)
        return self.normalize(images).contiguous(memory_format=torch.channels_last)

    def denormalize(self, views: Tensor) -> Tensor:
        """Undo `normalize`, to show what a network is given.

        Parameters
        ----------
        views : Tensor of shape (n, c, h, w), float32
            Normalised images.

        Returns
        -------
        Tensor of shape (n, c, h, w), float32
            Times `std`, plus `mean`; in [0, 1] where the images were.

        Examples
        --------
        >>> augment = Augmentation()
        >>> augment.denormalize(augment.normalize(torch.full((1, 3, 1, 1), 0.25))).flatten()
        tensor([0.2500, 0.2500, 0.2500])
        """
        self._ensure_valid()
        gain, offset = (of[:, None] for of in self._scaling(views.shape[1], views.device))
        return ((views.flatten(2) - offset) / gain).view(views.shape)

    def size_of(self, h: int, w: int) -> tuple[int, int]:
        """Tell the height and width of a view.

        Parameters
        ----------
        h, w : int
            Height and width of the images.

        Returns
        -------
        height, width : int
            Those of their views.

        Examples
        --------
        >>> Augmentation(size=24).size_of(16, 32)
        (24, 24)
        """
        if self.size is None:
            return h, w
        size: Any = self.size
        height, width = (size, size) if isinstance(size, Integral) else size
        return int(height), int(width)

    def _salient(self, index: Tensor | None, size: Sequence[int]) -> Tensor | None:
        """Saliency maps of images at their size, (n, h, w)."""
        if self.saliency is None:
            return None
        if index is None:
            raise ValueError("An Augmentation with saliency maps must be told which images it is given: index is None.")
        maps = getattr(self, "_maps", None)
        if maps is None or maps[0] is not self.saliency or maps[1].device != index.device:
            # They move to the device once, since the host waits for each such move.
            self._maps = maps = self.saliency, torch.as_tensor(self.saliency, dtype=torch.float32).to(index.device)
        own = maps[1].index_select(0, index)[:, None]  # (n, 1, h', w')
        return torch.nn.functional.interpolate(own, size, mode="bilinear", antialias=True)[:, 0]

    def _scaling(self, c: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """What normalisation multiplies c channels by, and then adds."""
        mean, std = ((*map(float, of),) if c == 3 else (sum(of) / 3,) * c for of in (self.mean, self.std))
        return (
            _constant(tuple(1 / s for s in std), device),
            _constant(tuple(-m / s for m, s in zip(mean, std, strict=True)), device),
        )


def _place(draws: Any) -> Tensor:
    """Where each change of colour comes, (n, 4), or (n, 3) without the hue."""
    return _places(3 if draws.shift is None else 4, draws.order.device).index_select(0, draws.order)


def _by_hue(draws: Draws) -> tuple[Tensor, list[int]]:
    """Put views in an order in which the hue of the first comes first, then second, …, last those that do not change.

    Returns the order, and how many there are of each. Without a hue all that change count as the fourth.
    """
    hue_at = torch.full((len(draws.corner),), UNCHANGED)
    if draws.jitter is not None:
        hue_at = torch.where(draws.jitter, UNCHANGED - 1 if draws.shift is None else _place(draws)[:, 3], hue_at)
    return hue_at.argsort(stable=True), hue_at.bincount(minlength=UNCHANGED + 1).tolist()


def _parts(counts: Sequence[int], most: int) -> Iterator[tuple[int, slice]]:
    """Slices of `most` views at a time, with the group of `_by_hue` that they belong to."""
    start = 0
    for group, count in enumerate(counts):
        stop = start + count
        for low in range(start, stop, most):
            yield group, slice(low, min(low + most, stop))
        start = stop


_COMPILED: dict[tuple[Any, ...], Callable[..., Tensor]] = {}  # by settings and shapes


def _compiled(
    augment: Augmentation, images: Tensor, numbers: Tensor, maps: Tensor | None, constants: _Constants
) -> Tensor:
    """Make views by what was compiled for their setting and shapes, and compile that the first time."""
    settings: dict[str, Any] = {
        field.name: _plain(getattr(augment, field.name)) for field in fields(augment) if field.name != "saliency"
    }
    shapes = (images.shape, images.stride(), images.dtype, images.device, numbers.shape, maps is None)
    key = (*settings.values(), *shapes)
    if key in _COMPILED:
        return _COMPILED[key](images, numbers, maps, constants)
    fixed = Augmentation(**settings)

    def views(images: Tensor, numbers: Tensor, maps: Tensor | None, constants: _Constants) -> Tensor:
        size = tuple(images.shape[2:])
        plan = fixed._plan(fixed._interpret(numbers, size, maps, constants), size, constants)
        return fixed._views(images, plan, constants)

    # Dynamo counts recompilations by code object, of which each setting and shape has its own.
    own = types.FunctionType(views.__code__.replace(), views.__globals__, "views", None, views.__closure__)
    compiled = torch.compile(own, dynamic=False, fullgraph=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's advice, such as to allow TF32
            made = compiled(images, numbers, maps, constants)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        warnings.warn(
            f"Views are made without torch.compile, which fails: {type(error).__name__}: {reason}", stacklevel=4
        )
        compiled, made = views, views(images, numbers, maps, constants)
    _COMPILED[key] = compiled
    return made


def _plain(value: Any) -> Any:
    """A parameter as Python's own numbers and tuples."""
    value = np.asarray(value).tolist()
    return tuple(value) if isinstance(value, list) else value


# What labels are learned with: torchvision's random resized crop and flip
CROPS_AND_FLIPS = Augmentation(jitter=0.0, gray=0.0)


@dataclass(kw_only=True, eq=False, repr=False)
class MultiCrop(BaseEstimator):
    """Some views of large crops and some smaller views of small crops, as SwAV and DINO take them.

    Parameters
    ----------
    n_global, n_local : int, default=2, 6
        How many of each.
    global_scale, local_scale : tuple of float, default=(0.14, 1.0), (0.05, 0.14)
        The least and the greatest area of the crops.
    local_size : int or None, default=None
        Side of the smaller views. None: 3/7 of the images' longer side, as 96 is of 224.
    augment : str, Augmentation or sequence of Augmentation, default="simclr"
        What else is done to the views; one for each, starting again from the first.

    References
    ----------
    .. [1] Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", NeurIPS 2020,
           section 3.2 and appendix A.

    Examples
    --------
    >>> [view.size for view in MultiCrop(n_local=1).views(32)]
    [None, None, 14]
    """

    n_global: int = 2
    n_local: int = 6
    global_scale: tuple[float, float] = (0.14, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.14)
    local_size: int | None = None
    augment: Any = "simclr"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_global": [Interval(Integral, 2, 100, closed="both")],
        "n_local": [Interval(Integral, 0, 100, closed="both")],
        "global_scale": ["array-like"],
        "local_scale": ["array-like"],
        "local_size": [Interval(Integral, 1, None, closed="left"), None],
    }

    def views(self, image_size: int) -> list[Augmentation]:
        """Make one augmentation a view, the global ones first.

        Parameters
        ----------
        image_size : int
            The images' longer side, in pixels.

        Returns
        -------
        list of Augmentation
            For ``n_global + n_local`` views.

        Raises
        ------
        ValueError
            If a parameter is out of its range.
        """
        self._validate_params()
        for name in ("global_scale", "local_scale"):
            _check_range(self, name, 1.0)
        given = as_augmentations(self.augment, image_size)
        small = {"crop_scale": self.local_scale, "size": self.local_size or round(image_size * 3 / 7)}
        large = {"crop_scale": self.global_scale}
        made = [[clone(augment).set_params(**crop) for augment in given] for crop in (large, small)]
        return [made[i >= self.n_global][i % len(given)] for i in range(self.n_global + self.n_local)]


def as_augmentations(augment: Any, image_size: int) -> list[Augmentation]:
    """Turn what the user gave as ``augment`` into a list of augmentations.

    Parameters
    ----------
    augment : str, Augmentation, sequence of Augmentation or MultiCrop
        A preset's name, one for all views, one for each, or crops of several sizes.
    image_size : int
        The images' longer side, in pixels.

    Returns
    -------
    list of Augmentation
        At least one, each with its parameters checked.

    Raises
    ------
    ValueError
        If a name is unknown or a parameter out of its range.
    TypeError
        If something is no augmentation.

    Examples
    --------
    >>> as_augmentations("none", 32)
    [Augmentation(crop_scale=None, flip=0.0, gray=0.0, jitter=0.0)]
    """
    if isinstance(augment, MultiCrop):
        augment = augment.views(image_size)
    elif isinstance(augment, str):
        augment = preset(augment, image_size)
    given = list(augment) if isinstance(augment, Sequence) else [augment]
    if not given:
        raise ValueError("The 'augment' parameter must have one Augmentation or more, but it is an empty sequence.")
    for augmentation in given:
        if not isinstance(augmentation, Augmentation):
            raise TypeError(
                "The 'augment' parameter must be a preset's name, an Augmentation, one Augmentation a view or a "
                f"MultiCrop. Got {augmentation!r}."
            )
        augmentation.validate()
    return given


# Presets


def preset(name: str, image_size: int) -> tuple[Augmentation, ...]:
    """Build a paper's augmentations by name.

    Parameters
    ----------
    name : {"simclr", "simsiam", "byol", "moco", "leoclr", "gsg-cifar10", "instdisc", "pirl", "rotnet", "none"}
        - "simclr": SimCLR [1]_, appendices A and B.9. Up to 64 pixels colour strength 1/2 and no blur, above
          them strength 1 and blur for half of the views. As in most PyTorch versions values are normalised (its own
          code leaves them in [0, 1], which only the borders of a convolution with BatchNorm notice) and crops
          are bilinear (its own are bicubic, which costs more).
        - "simsiam": SimSiam [2]_, section 4, with the views of MoCo v2: crops of at least a fifth, blur for
          half of the views. Up to 64 pixels no blur, as in its appendix D.
        - "byol": BYOL [3]_, appendix B. The two views differ in blur and solarisation. The paper has no small
          images; up to 64 pixels the blur is left out, as in solo-learn's settings for CIFAR.
        - "moco": MoCo v2 [6]_: crops of at least a fifth, blur for half of the views. Up to 64 pixels as in its
          authors' demonstration on CIFAR-10: any crops, no blur (there with that set's own mean and deviation).
        - "leoclr": LeOCLR [7]_, algorithm 1: the first of three views is not cropped, but flipped and coloured like
          the others. Up to 64 pixels, for which the paper says nothing else, no blur.
        - "instdisc": instance discrimination [8]_, from its code. Crops of at least a fifth, every image jittered, at
          full strength in hue, and above 64 pixels flips: there it is MoCo v1's, too.
        - "pirl": PIRL [9]_, from its code: SimCLR's crops, every image jittered, with a hue of 0.2.
        - "gsg-cifar10": GSG [4]_ on CIFAR-10: SimCLR at strength 1/2, no blur, ImageNet's mean and deviation.
        - "rotnet": RotNet [5]_, from its code. Flips, and up to 64 pixels a crop of the image padded by 4,
          above them a resized crop.
        - "none": normalisation alone.

    image_size : int
        The images' longer side, in pixels.

    Returns
    -------
    tuple of Augmentation
        One a view, the same object where they are alike; a method with more views starts again from the first.

    Raises
    ------
    ValueError
        If there is no preset of that name.

    References
    ----------
    .. [1] Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020.
    .. [2] Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021.
    .. [3] Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020.
    .. [4] "Implicit Contrastive Representation Learning with Guided Stop-gradient", NeurIPS 2023.
    .. [5] Gidaris et al., "Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018.
    .. [6] Chen et al., "Improved Baselines with Momentum Contrastive Learning", 2020.
    .. [7] "LeOCLR: Leveraging Original Images for Contrastive Learning of Visual Representations",
           arXiv:2403.06813.
    .. [8] Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018.
    .. [9] Misra and van der Maaten, "Self-Supervised Learning of Pretext-Invariant Representations", CVPR 2020.

    Examples
    --------
    >>> preset("byol", 224)[1]
    Augmentation(blur=0.1, interpolation='bicubic', saturation=0.2, solarize=0.2)
    """
    views: tuple[dict[str, Any], ...] = pick("augment", name, _PRESETS)(image_size <= SMALL)
    first = Augmentation(**views[0])
    return tuple(first if settings == views[0] else Augmentation(**settings) for settings in views)


_STILL: dict[str, Any] = {"jitter": 0.0, "gray": 0.0}
_SIMCLR_LARGE = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "blur": 0.5}
_PRESETS: Mapping[str, Callable[[bool], tuple[dict[str, Any], ...]]] = {
    "simclr": lambda small: ({} if small else _SIMCLR_LARGE,) * 2,
    "simsiam": lambda small: ({"crop_scale": (0.2, 1.0), "blur": 0.0 if small else 0.5},) * 2,
    "byol": lambda small: tuple(
        {
            "interpolation": "bicubic",
            "saturation": 0.2,
            "blur": 0.0 if small else blur,
            "solarize": solarize,
        }
        for blur, solarize in ((1.0, 0.0), (0.1, 0.2))
    ),
    "moco": lambda small: ({} if small else {"crop_scale": (0.2, 1.0), "blur": 0.5},) * 2,
    "leoclr": lambda small: tuple({**crop, "blur": 0.0 if small else 0.5} for crop in ({"crop_scale": None}, {}, {})),
    "gsg-cifar10": lambda small: ({},) * 2,
    "instdisc": lambda small: ({"crop_scale": (0.2, 1.0), "flip": 0.0 if small else 0.5, "jitter": 1.0, "hue": 0.4},),
    "pirl": lambda small: ({"jitter": 1.0, "hue": 0.2},),
    "rotnet": lambda small: ({**_STILL, "crop_padding": 4 if small else 0},),
    "none": lambda small: ({**_STILL, "crop_scale": None, "flip": 0.0},),
}


# Small parts


def _as_float(images: Tensor) -> Tensor:
    """Images as float32 in [0, 1]."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def _check_range(owner: BaseEstimator, name: str, greatest: float) -> None:
    """Refuse a parameter unless it is two positive numbers, the lower first."""
    value = getattr(owner, name)
    if not (_reals(value, 2) and 0 < value[0] <= value[1] <= greatest):
        limit = "" if greatest == math.inf else f" and at most {greatest:g}"
        raise _refusal(owner, name, f"two numbers, the lower first, above 0{limit}")


def _refusal(owner: BaseEstimator, name: str, expected: str) -> ValueError:
    """A parameter's refusal in scikit-learn's words."""
    return ValueError(
        f"The {name!r} parameter of {type(owner).__name__} must be {expected}. Got {getattr(owner, name)!r} instead."
    )


def _reals(value: Any, count: int) -> bool:
    """Whether a parameter is so many finite numbers."""
    return len(value) == count and all(isinstance(x, Real) and math.isfinite(x) for x in value)


@functools.lru_cache(maxsize=128)
def _constant(values: tuple[Any, ...], device: torch.device) -> Tensor:
    """A small tensor, which moves to a device once, since the host waits for each such move."""
    return torch.tensor(values, dtype=torch.float32, device=device)


@functools.lru_cache(maxsize=8)
def _places(steps: int, device: torch.device) -> Tensor:
    """All permutations of 0, 1, … (steps! of them, steps)."""
    return torch.tensor(list(itertools.permutations(range(steps))), device=device)


@functools.lru_cache(maxsize=8)
def _here_of_all(steps: int, device: torch.device) -> Tensor:
    """`_here` of all orders."""
    return _here(_places(steps, device))
