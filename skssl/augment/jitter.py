"""Colour jitter, with factors and an order of its own for every image.

There are three forms. `jitter_in_order` has static shapes and few operators, for a GPU. `jitter` is for the compiler,
which fuses all operators between two means. It makes the orders alike: the changes before contrast, contrast, and the
changes after it, each at a fixed step; an image that lacks a change at a step gets the identity there. `jitter_group`
is the fastest form on a CPU, for images whose hue comes at the same position.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from skssl.augment.color import ColorConstants, color_constants, hue_matrices, turn_hue
from skssl.augment.tensors import constant, small_matmul

UNCHANGED = 4  # in place of the hue's position, 0 to 3: the image has no jitter

Planes = tuple[Tensor, ...]  # (n, c, pixels) as one tensor, or as one tensor a channel; see `split_channels`
HueTurns = tuple[Tensor, Tensor | None]  # the matrices and shares of `hue_matrices`
Steps = tuple[Tensor, Tensor | None, Tensor | None]  # the result of `jitter_steps`


def color_jitter(
    images: Tensor, factors: Tensor, place: Tensor, shift: Tensor | None, hue_space: str = "hsv"
) -> Tensor:
    """Change brightness, contrast, saturation and hue, each image by amounts and in an order of its own.

    The result is that of torchvision's ``adjust_brightness``, ``adjust_contrast``, ``adjust_saturation`` and
    ``adjust_hue`` in that order, with a clamp to [0, 1] after each.

    Parameters
    ----------
    images : Tensor of shape (n, c, h, w), float32
        In [0, 1]. If c is not 3, only brightness and contrast change, and grey is the mean of the channels.
    factors : Tensor of shape (n, 3)
        Factors of brightness, contrast and saturation, at least 0. A factor of 1 changes nothing.
    place : Tensor of shape (n, 4), int64
        Positions of brightness, contrast, saturation and hue in the order: a permutation of 0, 1, 2, 3. The shape is
        (n, 3) without the hue.
    shift : Tensor of shape (n,) or None
        Shifts of the hue, in turns.
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
    colors = color_constants(images.shape[1], hue_space, images.device)
    turns = None if shift is None else hue_matrices(shift, colors.hue)
    return jitter_in_order(images.flatten(2), factors, _one_hot(place), turns, colors).view(images.shape)


@functools.lru_cache(maxsize=8)
def positions(n_changes: int, device: torch.device) -> Tensor:
    """Return the positions of the changes in every order, (n_changes!, n_changes): all permutations of 0, 1, …."""
    return torch.tensor(list(itertools.permutations(range(n_changes))), device=device)


@functools.lru_cache(maxsize=8)
def orders(n_changes: int, device: torch.device) -> Tensor:
    """Return which change is active at which step of `jitter_in_order`, for every order: (n_changes!, n_changes, 4)."""
    return _one_hot(positions(n_changes, device))


def _one_hot(place: Tensor) -> Tensor:
    """Return 1 where a change is active at a step, else 0: (n, steps, 4). Without a hue the last change never is."""
    steps = torch.arange(place.shape[1], device=place.device)
    return torch.nn.functional.pad((place[:, None] == steps[:, None]).float(), (0, 4 - place.shape[1]))


@functools.lru_cache(maxsize=8)
def active_changes(n_changes: int, device: torch.device) -> Tensor:
    """Return which change is active at which step of `jitter`, (n_changes!, 6, 4): three before contrast, three after.

    Without a hue the steps are 4 and the changes 3.
    """
    place = positions(n_changes, device)
    half = place.shape[1] - 1
    number = torch.arange(2 * half, device=place.device)
    step = torch.where(number < half, number, number - half + 1)  # positions 0, 1, 2, 1, 2, 3
    used = torch.where(number < half, step < place[:, 1, None], step > place[:, 1, None])
    return (place[:, None] == step[:, None]) & used[..., None]


def jitter_steps(factors: Tensor, active: Tensor, turns: HueTurns | None, colors: ColorConstants) -> Steps:
    """Return the steps of `jitter` as matrices (n, steps, c, c), the identity where no change is active.

    For HSV's hue there are also the shares (n, steps, 1, 1) of `turn_hue`, and a mask (n, steps, 1, 1) of the steps
    that are clamped to [0, 1] rather than to the pixel's extremes. Both are None if every step is clamped to [0, 1].
    """
    brighter, _, purer = (active[..., :3] * (factors - 1)[:, None])[..., None, None].unbind(2)
    matrices = torch.addcmul(torch.addcmul(colors.eye, colors.eye, brighter), colors.tint, purer)
    if turns is None or len(colors.luma) != 3:
        return matrices, None, None
    turn, share = turns
    hue = active[..., 3, None, None]
    matrices = torch.where(hue, turn[:, None], matrices)
    return (matrices, None, None) if share is None else (matrices, hue * share[:, None], (~hue).float())


def jitter(planes: Planes, contrast: Tensor, steps: Steps, colors: ColorConstants) -> Planes:
    """Apply the steps of `jitter_steps`, and contrast between the two halves of them."""
    matrices, shares, to_unit = steps
    half = matrices.shape[1] // 2
    for number in range(2 * half):
        if number == half:
            (gray,) = mix_channels(colors.luma.expand(len(contrast), 1, -1), planes)
            mean = gray.mean(2, keepdim=True)
            planes = tuple(torch.lerp(mean, plane, contrast[:, None, None]).clamp(0, 1) for plane in planes)
        mixed = mix_channels(matrices[:, number], planes)
        if shares is None or to_unit is None:
            planes = tuple(plane.clamp(0, 1) for plane in mixed)
            continue
        least, greatest = functools.reduce(torch.minimum, planes), functools.reduce(torch.maximum, planes)
        total, share, unit = least + greatest, shares[:, number], to_unit[:, number]
        low, high = torch.addcmul(least, least, unit, value=-1), torch.maximum(greatest, unit)
        planes = tuple(torch.addcmul(plane, total, share).clamp(low, high) for plane in mixed)
    return planes


def jitter_in_order(
    pixels: Tensor, factors: Tensor, active: Tensor, turns: HueTurns | None, colors: ColorConstants
) -> Tensor:
    """Apply the jitter to (n, c, pixels), the changes of every image in its own order, see `orders`.

    At each step a channel is a sum over the channels of a pixel, their means over the image, and the smallest and the
    largest channel of the pixel, which the hue needs.
    """
    n, c, _ = pixels.shape
    identity, by_hue = colors.changes[0], active[..., 3, None, None]
    amounts = (active[..., :3] * (factors - 1)[:, None]).flatten(0, 1)  # (n * steps, 3)
    matrices = torch.addmm(identity, amounts, colors.changes[1:]).view(n, -1, c, 2 * c + 2)
    share = None
    if turns is not None and c == 3:
        (turn, share), zeros = turns, identity.view(c, -1)[:, c:].expand(n, -1, -1)  # (n, c, c + 2)
        of_extremes = zeros[..., c:] if share is None else share.expand(-1, c, 2)
        matrices = matrices.lerp(torch.cat((turn, zeros[..., :c], of_extremes), 2)[:, None], by_hue)
    for matrix, hue in zip(matrices.unbind(1), by_hue.unbind(1), strict=True):
        least, greatest = torch.aminmax(pixels, dim=1, keepdim=True)
        joined = torch.cat((pixels, pixels.mean(2, keepdim=True).expand_as(pixels), least, greatest), 1)
        pixels = torch.bmm(matrix, joined)
        if share is None:
            pixels = pixels.clamp_(0, 1)
        else:
            limits = constant(((0.0,), (1.0,)), pixels.device).lerp(joined[:, -2:], hue)
            pixels = pixels.clamp(*limits.split(1, 1))
    return pixels


def group_matrices(factors: Tensor, place: Tensor, colors: ColorConstants) -> tuple[Tensor, Tensor]:
    """Return the steps of `jitter_group` without the hue: matrices (n, steps, c, c) of the pixels and of their mean."""
    active = place[:, None, :3] == torch.arange(place.shape[1], device=place.device)[:, None]  # (n, steps, changes)
    brighter, sharper, purer = (active * (factors - 1)[:, None])[..., None, None].unbind(2)  # (n, steps, 1, 1)
    return colors.eye * (1 + brighter + sharper) + purer * colors.tint, -sharper * colors.luma.expand_as(colors.eye)


def jitter_group(pixels: Tensor, matrices: tuple[Tensor, Tensor], turns: HueTurns | None, hue_position: int) -> Tensor:
    """Apply the jitter to (n, c, pixels) of images whose hue comes at one position, by `group_matrices`."""
    for step, (matrix, of_mean) in enumerate(zip(*(of.unbind(1) for of in matrices), strict=True)):
        if step != hue_position:
            offset = torch.bmm(of_mean, pixels.mean(2, keepdim=True))
            pixels = torch.baddbmm(offset, matrix, pixels).clamp_(0, 1)
        elif turns is not None and pixels.shape[1] == 3:
            pixels = turn_hue(pixels, *turns)
    return pixels


def split_channels(pixels: Tensor) -> Planes:
    """Split (n, c, pixels) by channel for the compiler, which then fuses all steps of a pixel; else keep one tensor."""
    return pixels.split(1, 1) if torch.compiler.is_compiling() and pixels.shape[1] == 3 else (pixels,)


def join_channels(planes: Sequence[Tensor], height: int) -> Tensor:
    """Join planes to images (n, c, height, width) with channels last in memory."""
    return torch.cat([plane.mT for plane in planes], 2).unflatten(1, (height, -1)).movedim(3, 1)


def mix_channels(matrices: Tensor, planes: Planes) -> Planes:
    """Multiply the channels by matrices (n, i, c)."""
    if len(planes) == 1:
        return (small_matmul(matrices, planes[0]),)
    rows = (row[..., None].split(1, 1) for row in matrices.unbind(1))  # (n, 1, 1) each
    return tuple(functools.reduce(torch.add, (w * plane for w, plane in zip(row, planes, strict=True))) for row in rows)
