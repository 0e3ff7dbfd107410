"""The random numbers of a batch of views, drawn in one call."""

from __future__ import annotations

import itertools
from typing import NamedTuple

from torch import Tensor

from skssl.augment.geometry import BOXES


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
