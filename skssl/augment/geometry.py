"""Cutting, resizing, flipping and turning, with parameters of its own for every image."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import threshold

TABLE_BYTES = 2**24  # largest size of a table of resampling weights; beyond it weights are computed for each batch


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
    """Cut a box of its own out of every image, resize it with antialiasing, and flip it if asked.

    The result is that of torchvision's ``resized_crop(antialias=True)`` followed by ``hflip``. The filter is separable,
    so that it takes one matrix product with the rows of an image and one with its columns.

    Parameters
    ----------
    images : Tensor of shape (n, c, h, w)
        uint8, or float in [0, 1].
    top, left, height, width : Tensor of shape (n,)
        The boxes, in whole pixels, within the image and its padding.
    size : tuple of int
        Height and width of the crops.
    flip : Tensor of shape (n,), bool, default=None
        The images to flip from left to right.
    interpolation : {"bilinear", "bicubic"}, default="bilinear"
        The filter: a triangle, or Keys' cubic with a = -1/2, whose values may leave [0, 1] by a little.
    padding : int, default=0
        Number of black pixels around every image.

    Returns
    -------
    Tensor of shape (n, c, height, width), float32
        The crops. uint8 images are scaled to [0, 1].

    Examples
    --------
    >>> images = torch.arange(16.0).view(1, 1, 4, 4)
    >>> box = torch.tensor([[1.0], [0.0], [2.0], [4.0]])
    >>> resized_crop(images, *box, size=(1, 2), flip=torch.tensor([True]))
    tensor([[[[8.2857, 6.7143]]]])
    """
    pairs, how = zip(images.shape[2:], size, strict=True), (interpolation, padding)
    tables = [weight_table(*pair, *how, images.device) for pair in pairs]
    corner, sides = torch.stack((top, left), 1), torch.stack((height, width), 1)
    return separable_filter(images, *crop_weights(corner, sides, flip, images.shape[2:], size, *how, *tables))


def crop_weights(
    corner: Tensor,
    sides: Tensor,
    flip: Tensor | None,
    image_size: Sequence[int],
    size: Sequence[int],
    interpolation: str,
    padding: int,
    row_table: Tensor | None,
    column_table: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return weights (n, h, height) and (n, w, width) that cut, resize and flip; see `separable_filter`.

    `corner` and `sides`, both (n, 2), are the boxes. The tables are those of `weight_table`.
    """
    (h, w), how = image_size, (interpolation, padding)
    if h == w and size[0] == size[1]:  # rows and columns at once
        flips = None if flip is None else (flip[:, None] & (torch.arange(2, device=flip.device) == 1)).flatten()
        both = _weights(corner.flatten(), sides.flatten(), h, size[0], flips, *how, row_table)
        return both[::2], both[1::2]
    return (
        _weights(corner[:, 0], sides[:, 0], h, size[0], None, *how, row_table),
        _weights(corner[:, 1], sides[:, 1], w, size[1], flip, *how, column_table),
    )


def separable_filter(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Multiply every image by matrices (n, h, height) and (n, w, width) of its own; uint8 is scaled to [0, 1]."""
    n, c, h, w = images.shape
    height, width = rows.shape[2], columns.shape[2]
    if images.dtype == torch.uint8:
        rows = rows / 255
    x = images.float().movedim(1, 3).reshape(n, h, w * c)  # no second copy if channels are last in memory
    x = torch.bmm(rows.mT, x)
    x = x.view(n, height, w, c).movedim(3, 1).reshape(n, c * height, w)
    return torch.bmm(x, columns).view(n, c, height, width)


@functools.lru_cache(maxsize=16)
def weight_table(n_in: int, n_out: int, interpolation: str, padding: int, device: torch.device) -> Tensor | None:
    """Return the weights of every interval of whole pixels, or None if the table would exceed ``TABLE_BYTES``.

    Intervals are sorted by their start, then by their end. The flipped ones follow.
    """
    padded = n_in + 2 * padding
    if padded * (padded + 1) * n_in * n_out * 4 > TABLE_BYTES:
        return None
    first, last = torch.triu_indices(padded, padded, device=device).float()
    weights = _computed_weights(first - padding, last - first + 1, n_in, n_out, None, interpolation, padding)
    return torch.cat((weights, weights.flip(2)))


def _weights(
    start: Tensor,
    length: Tensor,
    n_in: int,
    n_out: int,
    flip: Tensor | None,
    interpolation: str,
    padding: int,
    table: Tensor | None,
) -> Tensor:
    """Return weights (n, n_in, n_out) that resample intervals of a line, from the table if there is one."""
    if table is None:
        return _computed_weights(start, length, n_in, n_out, flip, interpolation, padding)
    padded = n_in + 2 * padding
    start = start + padding if padding else start
    # start * (2 * padded + 1 - start) / 2 intervals have an earlier start.
    row = torch.addcmul(length - 1, start, torch.rsub(start, padded + 0.5, alpha=0.5))
    if flip is not None:
        row = torch.add(row, flip, alpha=padded * (padded + 1) // 2)
    return table.index_select(0, row.long())


def _computed_weights(
    start: Tensor, length: Tensor, n_in: int, n_out: int, flip: Tensor | None, interpolation: str, padding: int
) -> Tensor:
    """Compute the weights of `_weights`."""
    device = start.device
    scale = (length / n_out)[:, None]
    shrink = scale.clamp(min=1).reciprocal()
    centre = torch.arange(0.5, n_out, device=device) * scale  # of each output pixel, from the interval's start
    if flip is not None:
        centre = torch.where(flip[:, None], length[:, None] - centre, centre)
    pixel = torch.arange(0.5 - padding, n_in + padding, device=device) - start[:, None]
    pixel = threshold(pixel, 0, math.inf)  # pixels outside weigh nothing
    pixel = pixel.masked_fill(pixel > length[:, None], math.inf)
    distance = torch.addcmul((pixel * shrink)[:, :, None], centre[:, None], shrink[:, None], value=-1)
    weights = FILTERS[interpolation](distance.abs_())  # (n, n_in + 2 * padding, n_out)
    weights.div_(weights.sum(1, keepdim=True))
    return weights[:, padding : padding + n_in]


def _triangle(x: Tensor) -> Tensor:
    """Return the negative of the triangle filter at distances, in place; normalising the weights drops the sign."""
    return x.clamp_(max=1).sub_(1)


def _cubic(x: Tensor) -> Tensor:
    """Return Keys' cubic with a = -1/2 at distances: one term for distances up to 1, one for those up to 2."""
    near, far = x.clamp(max=1).sub_(1), x.clamp_(max=2).sub_(2)
    inner, outer = near.square(), far.square()
    inner.addcmul_(inner, near, value=2)  # (2 near + 1) near^2
    outer.addcmul_(outer, far)  # (far + 1) far^2
    return inner.sub_(outer, alpha=0.5)


#: Resampling filters by name: functions of the distance in pixels.
FILTERS = {"bilinear": _triangle, "bicubic": _cubic}


def cell_positions(corners: Tensor, size: Sequence[int]) -> Tensor:
    """Return where the cells of a map of views lie in the images.

    Parameters
    ----------
    corners : Tensor of shape (n, 2, 2, 2)
        Where the corners of the views lie, see `Augmentation.with_corners`.
    size : sequence of int
        Height and width of the map.

    Returns
    -------
    Tensor of shape (n, height * width, 2)
        The position (y, x) of the centre of each cell, in pixels of the image, row by row.

    Examples
    --------
    >>> corners = torch.tensor([[[[0.0, 0.0], [8.0, 8.0]], [[4.0, 0.0], [4.0, 0.0]]]])  # 8x4 pixels, flipped
    >>> cell_positions(corners, (1, 2))
    tensor([[[4., 3.],
             [4., 1.]]])
    """
    like: Any = {"dtype": corners.dtype, "device": corners.device}
    rows, columns = ((torch.arange(side, **like) + 0.5) / side for side in size)
    edges = torch.lerp(corners[:, :, 0, None], corners[:, :, 1, None], rows[:, None])  # (n, 2, height, 2)
    return torch.lerp(edges[..., :1], edges[..., 1:], columns).flatten(2).mT


def rotate_quarter(images: Tensor, k: Tensor) -> Tensor:
    """Turn every image by its own number of quarter-turns. Pixels move and are not interpolated.

    Parameters
    ----------
    images : Tensor of shape (n, c, side, side)
        Square images of any dtype.
    k : Tensor of shape (n,), int64
        Number of quarter-turns, from 0 to 3, counter-clockwise as in `torch.rot90`.

    Returns
    -------
    Tensor of shape (n, c, side, side)
        The turned images, of the same dtype.

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
    table = torch.stack([place.rot90(i).flatten() for i in range(4)])  # (4, h * w): source of each pixel
    source = table.index_select(0, k)[:, None].expand(n, c, h * w)
    return images.reshape(n, c, h * w).gather(2, source).view(n, c, h, w)
