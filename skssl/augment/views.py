"""Views from images and draws, by pure functions.

The steps and their order are torchvision's: crop, flip, colour jitter, grey, blur, solarise, normalise. Changes of
colour are prepared as one small matrix an image (the plan), before any pixel is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skssl.augment.blur import BlurConstants, blur, blur_constants
from skssl.augment.color import ColorConstants, color_constants, gray_matrices, hue_matrices, solarize
from skssl.augment.draws import Draws
from skssl.augment.geometry import crop_weights, rotate_quarter, separable_filter, weight_table
from skssl.augment.jitter import (
    UNCHANGED,
    Planes,
    active_changes,
    group_matrices,
    jitter,
    jitter_group,
    jitter_in_order,
    jitter_steps,
    join_channels,
    mix_channels,
    orders,
    positions,
    split_channels,
)
from skssl.augment.normalization import gain_and_offset
from skssl.augment.parameters import Parameters
from skssl.augment.tensors import small_matmul, to_float

PER_LEVEL = (1 / torch.tensor(255.0)).item()  # of uint8, as `separable_filter` scales it


class ViewConstants(NamedTuple):
    """Tensors for images of one shape that do not depend on the draws, on the images' device.

    Attributes
    ----------
    active : Tensor of shape (orders, steps, changes), bool
        See `active_changes`.
    orders : Tensor of shape (orders, changes, 4)
        See `jitter_in_order`.
    colors : ColorConstants
        Constants of the colours.
    gain, offset : Tensor of shape (c,)
        Factor and term of the normalisation.
    row_table, column_table : Tensor or None
        Resampling weights; see `weight_table`.
    blur : BlurConstants or None
        Constants of the blur.
    """

    active: Tensor
    orders: Tensor
    colors: ColorConstants
    gain: Tensor
    offset: Tensor
    row_table: Tensor | None
    column_table: Tensor | None
    blur: BlurConstants | None


class Plan(NamedTuple):
    """Draws, and what follows from them before any pixel is read.

    Attributes
    ----------
    draws : Draws
        The draws of n views.
    turns, shares : Tensor or None
        See `hue_matrices`.
    matrices, mean_matrices : Tensor or None
        See `group_matrices`; only for views that are grouped by the position of their hue.
    colors : Tensor of shape (n, c, c)
        Greyscale, together with the gain of the normalisation if no step comes between the two.
    """

    draws: Any  # Draws, whose fields are known from the parameters
    turns: Any
    shares: Any
    matrices: Any
    mean_matrices: Any
    colors: Tensor

    def take(self, rows: slice) -> Plan:
        """Return the plan of some of the views."""
        tensors = (tensor if tensor is None else tensor[rows] for tensor in self[1:])
        return Plan._make((self.draws.take(rows), *tensors))


def view_constants(parameters: Parameters, c: int, size: Sequence[int], device: torch.device) -> ViewConstants:
    """Return the constants for images of c channels and a size. They are cached: the host waits for every transfer."""
    p, sides = parameters, parameters.size_of(*size)
    pairs = zip(size, sides, strict=True)
    rows, columns = (weight_table(*pair, p.interpolation, p.crop_padding, device) for pair in pairs)
    return ViewConstants(
        active_changes(4 if p.hue else 3, device),
        orders(4 if p.hue else 3, device),
        color_constants(c, p.hue_space, device),
        *gain_and_offset(p.mean, p.std, c, device),
        rows,
        columns,
        blur_constants(sides, device) if p.blur else None,
    )


def make_plan(draws: Any, constants: ViewConstants, grouped: bool = False) -> Plan:
    """Return the plan of draws; `grouped` if the views are to be grouped by the position of their hue."""
    matrices = mean_matrices = turns = shares = None
    if draws.jitter is not None and grouped:
        matrices, mean_matrices = group_matrices(draws.factors, jitter_positions(draws), constants.colors)
    if draws.shift is not None:
        turns, shares = hue_matrices(draws.shift, constants.colors.hue)
    colors = constants.colors.eye.expand(len(draws.corner), -1, -1)
    if draws.gray is not None:
        colors = gray_matrices(draws.gray, constants.colors)
    if draws.blur is None and draws.solarize is None:
        colors = constants.gain[:, None] * colors
    return Plan(draws, turns, shares, matrices, mean_matrices, colors)


def jitter_positions(draws: Any) -> Tensor:
    """Return the positions of the changes of colour, (n, 4), or (n, 3) without the hue."""
    return positions(3 if draws.shift is None else 4, draws.order.device).index_select(0, draws.order)


def make_views(parameters: Parameters, images: Tensor, draws: Draws, constants: ViewConstants) -> Tensor:
    """Make all views at once, with static shapes and without waiting for the device.

    View i is one of image i % len(images). A view that does not get a step passes through it unchanged.
    """
    return apply_plan(parameters, images, make_plan(draws, constants), constants)


def apply_plan(
    parameters: Parameters, images: Tensor, plan: Plan, constants: ViewConstants, hue_position: int | None = None
) -> Tensor:
    """Make the views of a plan.

    If all views have the hue at one position (or no jitter: `UNCHANGED`), say so by `hue_position`. Steps are then
    skipped for views that do not get them, which makes shapes depend on the draws.
    """
    draws = plan.draws
    n, (c, *size) = len(draws.corner), images.shape[1:]
    height, width = parameters.size_of(*size)
    if torch.compiler.is_compiling():
        images = to_float(images)  # fused with the next steps
    if n != len(images):
        images = images.movedim(1, 3).repeat(n // len(images), 1, 1, 1).movedim(3, 1)
    if parameters.crop_padding or parameters.crop_scale or [height, width] != size:
        x = _crop(parameters, images, draws, constants)
    elif draws.flip is not None:
        x = _flip(images, draws.flip)
    else:
        x = to_float(images)
    planes = split_channels(x.reshape(n, c, height * width))
    if draws.jitter is not None and hue_position != UNCHANGED:
        planes = _jitter(planes, plan, constants, hue_position)
    if draws.blur is not None or draws.solarize is not None:
        planes = mix_channels(plan.colors, planes)
        x = planes[0].view(n, c, height, width) if len(planes) == 1 else join_channels(planes, height)
        if draws.blur is not None:
            x = _blur(x, draws, constants, hue_position)
        if draws.solarize is not None:
            x = solarize(x, parameters.solarize_threshold, draws.solarize)
        gain, offset = (of[:, None, None] for of in (constants.gain, constants.offset))
        x = (x * gain).add_(offset).movedim(1, 3).contiguous().movedim(3, 1)
    else:
        x = _to_images(planes, plan.colors, constants.offset, height)
    if draws.turns is not None:
        x = rotate_quarter(x, draws.turns).contiguous(memory_format=torch.channels_last)
    return x


def _crop(parameters: Parameters, images: Tensor, draws: Any, constants: ViewConstants) -> Tensor:
    """Cut out the boxes, resize and flip them."""
    size, p = images.shape[2:], parameters
    how = size, p.size_of(*size), p.interpolation, p.crop_padding, constants.row_table, constants.column_table
    crops = separable_filter(images, *crop_weights(draws.corner, draws.sides, draws.flip, *how))
    return crops.clamp_(0, 1) if p.interpolation == "bicubic" else crops


def _flip(images: Tensor, flip: Tensor) -> Tensor:
    """Flip images as `_crop` does with a box that is the whole image: the bits are the same."""
    x = torch.where(flip[:, None, None, None], images.flip(3), images).float()
    return x * PER_LEVEL if images.dtype == torch.uint8 else x


def _jitter(planes: Planes, plan: Plan, constants: ViewConstants, hue_position: int | None) -> Planes:
    """Jitter the colours of the views that are to be jittered; these are all views if there is a `hue_position`."""
    draws, turns = plan.draws, None if plan.turns is None else (plan.turns, plan.shares)
    if hue_position is not None:
        return (jitter_group(planes[0], (plan.matrices, plan.mean_matrices), turns, hue_position),)
    where = draws.jitter[:, None, None]
    if not torch.compiler.is_compiling():
        active = constants.orders.index_select(0, draws.order)
        changed = jitter_in_order(planes[0], draws.factors, active, turns, constants.colors)
        return (torch.where(where, changed, planes[0]),)
    active = constants.active.index_select(0, draws.order)
    steps = jitter_steps(draws.factors, active, turns, constants.colors)
    jittered = jitter(planes, draws.factors[:, 1], steps, constants.colors)
    return tuple(torch.where(where, new, old) for new, old in zip(jittered, planes, strict=True))


def _blur(x: Tensor, draws: Any, constants: Any, hue_position: int | None) -> Tensor:
    """Blur the views that are to be blurred."""
    if hue_position is None:
        return torch.where(draws.blur[:, None, None, None], blur(x, draws.sigma, constants.blur), x)
    rows = draws.blur.nonzero()[:, 0]
    return x.index_copy_(0, rows, blur(x.index_select(0, rows), draws.sigma.index_select(0, rows), constants.blur))


def _to_images(planes: Planes, colors: Tensor, offset: Tensor, height: int) -> Tensor:
    """Multiply the channels by matrices (n, c, c), add the offset, and return images with channels last in memory."""
    if len(planes) > 1:
        mixed = mix_channels(colors, planes)
        return join_channels([plane + term for plane, term in zip(mixed, offset.split(1), strict=True)], height)
    n, c, n_pixels = planes[0].shape
    x = small_matmul(planes[0].mT, colors.mT).view(n, -1).add_(offset.repeat(n_pixels))
    return x.view(n, height, -1, c).movedim(3, 1)
