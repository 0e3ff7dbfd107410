"""The random numbers of a batch of views, drawn in one call of the generator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from skssl.augment.crops import (
    CROP_NUMBERS,
    boxes_from_numbers,
    crop_boxes,
    crop_frame,
    crop_limits,
    salient_boxes,
    salient_crops,
)
from skssl.augment.geometry import rotate_quarter
from skssl.augment.parameters import Parameters
from skssl.augment.tensors import constant

SALIENT_TRIES = 10  # crops that are compared with the saliency map before one more is taken

#: Uniform numbers of every view, in this order. They do not depend on the parameters, so that two settings with one
#: seed crop alike. "amounts" are those of brightness, contrast, saturation and hue.
COUNTS = {
    "crop": CROP_NUMBERS,
    "flip": 1,
    "jitter": 1,
    "amounts": 4,
    "order": 1,
    "gray": 1,
    "blur": 1,
    "sigma": 1,
    "solarize": 1,
    "turns": 1,
}
#: Further numbers with saliency maps: more crops, and whether the map chooses among them.
SALIENT_COUNTS = {"tries": SALIENT_TRIES * CROP_NUMBERS, "good": 1}


class Draws(NamedTuple):
    """Random parameters of n views, drawn by `Augmentation.draw`. A field is None if its step is off.

    Attributes
    ----------
    corner, sides : Tensor of shape (n, 2), float32
        Top and left, and height and width of the crops, in whole pixels.
    flip : Tensor of shape (n,), bool
        Whether the view is flipped from left to right.
    jitter : Tensor of shape (n,), bool
        Whether the colours are jittered.
    factors : Tensor of shape (n, 3), float32
        Factors of brightness, contrast and saturation.
    shift : Tensor of shape (n,), float32
        Shift of the hue, in turns.
    order : Tensor of shape (n,), int64
        Index into `itertools.permutations` of 0, 1, 2, 3. The permutation holds the positions of brightness, contrast,
        saturation and hue in the order of the jitter. Without the hue it is one of 0, 1, 2.
    gray, blur : Tensor of shape (n,), bool
        Whether the view becomes grey, and whether it is blurred.
    sigma : Tensor of shape (n,), float32
        Standard deviation of the blur, in pixels.
    solarize : Tensor of shape (n,), bool
        Whether the view is solarised.
    turns : Tensor of shape (n,), int64
        Number of quarter-turns.
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

    def take(self, rows: Tensor | slice) -> Draws:
        """Return the draws of some of the views."""
        return Draws._make(drawn if drawn is None else drawn[rows] for drawn in self)


class DrawConstants(NamedTuple):
    """What turns uniform numbers into draws, on their device.

    Attributes
    ----------
    limits : Tensor of shape (3, numbers)
        Lower limit, upper limit and probability that go with each number.
    frame : Tensor of shape (4, 2)
        The images' sides and the largest crop; see `crop_frame`.
    """

    limits: Tensor
    frame: Tensor


def number_counts(salient: bool) -> dict[str, int]:
    """Return the count of uniform numbers that each part of a view takes, in order."""
    return {**COUNTS, **SALIENT_COUNTS} if salient else COUNTS


def draw_constants(parameters: Parameters, size: Sequence[int], device: torch.device) -> DrawConstants:
    """Return the constants for images of a size."""
    p = parameters
    low, high = crop_limits(size, p.crop_scale or (1.0, 1.0), p.crop_ratio)
    if p.crop_padding:
        low, high = (-p.crop_padding,) * CROP_NUMBERS, (p.crop_padding + 1,) * CROP_NUMBERS
    crop = list(zip(low, high, strict=True))
    ranges: dict[str, list[tuple[float, float]]] = {
        "crop": crop,
        "amounts": [(max(0, 1 - x), 1 + x) for x in (p.brightness, p.contrast, p.saturation)] + [(-p.hue, p.hue)],
        "order": [(0, math.factorial(4 if p.hue else 3))],
        "sigma": [p.blur_sigma],
        "turns": [(0, 4 / (p.quarter_turn or 1))],
        "tries": crop * SALIENT_TRIES,
    }
    probabilities = {
        "flip": p.flip,
        "jitter": p.jitter,
        "gray": p.gray,
        "blur": p.blur,
        "solarize": p.solarize,
        "turns": p.quarter_turn,
        "good": p.good_crops,
    }
    limits = [
        (float(low), float(high), float(probabilities.get(name, 1.0)))
        for name in number_counts(p.saliency is not None)
        for low, high in ranges.get(name, [(0.0, 1.0)])
    ]
    return DrawConstants(constant(tuple(zip(*limits, strict=True)), device), crop_frame(size, p.crop_ratio, device))


def to_draws(parameters: Parameters, numbers: Tensor, maps: Tensor | None, constants: DrawConstants) -> Draws:
    """Return the draws for uniform numbers (n, k) in [0, 1) and the images' saliency maps (n, h, w)."""
    p, counts = parameters, number_counts(maps is not None)
    low, high, probability = constants.limits
    splits = torch.lerp(low, high, numbers).split(list(counts.values()), 1)
    values = dict(zip(counts, splits, strict=True))
    hits = dict(zip(counts, (numbers < probability).split(list(counts.values()), 1), strict=True))
    corner, sides = _draw_crops(p, values, hits, maps, constants.frame)
    jitters = p.jitter and (p.brightness or p.contrast or p.saturation or p.hue)
    return Draws(
        corner,
        sides,
        flip=hits["flip"][:, 0] if p.flip else None,
        jitter=hits["jitter"][:, 0] if jitters else None,
        factors=values["amounts"][:, :3] if jitters else None,
        shift=values["amounts"][:, 3] if jitters and p.hue else None,
        order=values["order"][:, 0].long() if jitters else None,
        gray=hits["gray"][:, 0] if p.gray else None,
        blur=hits["blur"][:, 0] if p.blur else None,
        sigma=values["sigma"][:, 0] if p.blur else None,
        solarize=hits["solarize"][:, 0] if p.solarize else None,
        turns=values["turns"][:, 0].long().clamp(max=3) * hits["turns"][:, 0] if p.quarter_turn else None,
    )


def view_corners(draws: Draws) -> Tensor:
    """Return where the corners of views lie in their images, (n, 2, 2, 2); see `Augmentation.with_corners`.

    The corners are handled as images of two channels, y and x, and of 2x2 pixels: they are flipped and turned as views.
    """
    ends = torch.stack((draws.corner, draws.corner + draws.sides), 2)  # (n, 2, 2): of the rows, and of the columns
    corners = torch.stack((ends[:, 0, :, None].expand(-1, 2, 2), ends[:, 1, None, :].expand(-1, 2, 2)), 1)
    if draws.flip is not None:
        corners = torch.where(draws.flip[:, None, None, None], corners.flip(3), corners)
    return corners if draws.turns is None else rotate_quarter(corners, draws.turns)


def draw_boxes(parameters: Parameters, sizes: Tensor, generator: torch.Generator, maps: Tensor | None = None) -> Tensor:
    """Draw the crops of pictures in sizes of their own.

    Parameters
    ----------
    parameters : Parameters
        The parameters of an augmentation.
    sizes : int64 Tensor of shape (n, 2)
        Heights and widths of the pictures.
    generator : torch.Generator
        Source of the random numbers.
    maps : Tensor of shape (n, h, w), optional
        Saliency maps of the pictures, of any size.

    Returns
    -------
    float64 Tensor of shape (n, 4)
        Top, left, height and width in whole pixels. Whole pictures if there is no random resized crop.
    """
    p, n = parameters, len(sizes)
    if p.crop_padding or not p.crop_scale:
        return torch.cat((torch.zeros_like(sizes), sizes), 1).double()
    k = CROP_NUMBERS * (1 if maps is None else 1 + SALIENT_TRIES)
    numbers = torch.rand(n, k + (maps is not None), generator=generator, device=generator.device)
    tries = numbers[:, :k].reshape(-1, CROP_NUMBERS)
    corner, sides = boxes_from_numbers(tries, sizes.repeat_interleave(k // CROP_NUMBERS, 0), p.crop_scale, p.crop_ratio)
    boxes = torch.cat((corner, sides), 1).double().view(n, -1, 4)
    if maps is None:
        return boxes[:, 0]
    chosen = salient_boxes(boxes, sizes, maps)
    return torch.where(numbers[:, k:] < p.good_crops, chosen, boxes[:, -1])


def _draw_crops(
    parameters: Parameters, values: dict[str, Tensor], hits: dict[str, Tensor], maps: Tensor | None, frame: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the corners and the sides of the crops, both (n, 2)."""
    crop, n = values["crop"], len(values["crop"])
    if parameters.crop_padding:
        return crop[:, -2:].floor(), frame[0].expand(n, 2)
    if not parameters.crop_scale:
        return crop.new_zeros(n, 2), frame[0].expand(n, 2)
    if maps is None:
        return crop_boxes(crop, frame)
    boxes = crop_boxes(torch.cat((crop, values["tries"]), 1).view(-1, CROP_NUMBERS), frame)
    candidates = [side for box in boxes for side in box.view(n, -1, 2).unbind(2)]
    chosen = salient_crops(candidates, maps)
    top, left, height, width = (
        torch.where(hits["good"][:, 0], salient, drawn[:, -1])
        for salient, drawn in zip(chosen, candidates, strict=True)
    )
    return torch.stack((top, left), 1), torch.stack((height, width), 1)
