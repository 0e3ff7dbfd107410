"""Views on a CPU, in parts that fit in a core's cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from skssl.augment.draws import Draws
from skssl.augment.jitter import UNCHANGED
from skssl.augment.parameters import Parameters
from skssl.augment.views import ViewConstants, apply_plan, jitter_positions, make_plan

CACHED_PIXELS = 131072  # pixels of a part; views do not depend on it


def make_views_in_parts(parameters: Parameters, images: Tensor, draws: Draws, constants: ViewConstants) -> Tensor:
    """Make the same views as `make_views`, in parts, and skip the steps that a view does not get.

    Views are sorted by the position of their hue, so that it is computed at one step of a part.
    """
    n, c, (height, width) = len(draws.corner), images.shape[1], parameters.size_of(*images.shape[2:])
    rows, counts = _sort_by_hue(draws)
    plan, source = make_plan(draws.take(rows), constants, grouped=True), rows % len(images)
    views, images = torch.empty(n, height * width * c), images.movedim(1, 3)
    for hue_position, part in _parts(counts, max(1, CACHED_PIXELS // (height * width))):
        x = images.index_select(0, source[part]).movedim(3, 1)
        x = apply_plan(parameters, x, plan.take(part), constants, hue_position)
        views.index_copy_(0, rows[part], x.movedim(1, 3).reshape(len(x), -1))
    return views.view(n, height, width, c).movedim(3, 1)


def _sort_by_hue(draws: Draws) -> tuple[Tensor, list[int]]:
    """Return the order of views by the position of their hue, and the number of views at each position.

    Views without jitter come last, at `UNCHANGED`. Without a hue, jittered views are at the position before.
    """
    position = torch.full((len(draws.corner),), UNCHANGED)
    if draws.jitter is not None:
        jittered = UNCHANGED - 1 if draws.shift is None else jitter_positions(draws)[:, 3]
        position = torch.where(draws.jitter, jittered, position)
    return position.argsort(stable=True), position.bincount(minlength=UNCHANGED + 1).tolist()


def _parts(counts: Sequence[int], most: int) -> Iterator[tuple[int, slice]]:
    """Yield slices of at most `most` sorted views, with the position of their hue."""
    start = 0
    for position, count in enumerate(counts):
        stop = start + count
        for low in range(start, stop, most):
            yield position, slice(low, min(low + most, stop))
        start = stop
