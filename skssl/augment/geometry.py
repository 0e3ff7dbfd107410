"""Crops, flips and turns, with a box of its own for every image."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

TABLE_BYTES = 2**24  # up to this size all weights of a crop's filter are kept
BOXES = 10  # candidates of a crop, as torchvision draws them
TRIES = 10  # of a crop by a saliency map


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


@functools.lru_cache(maxsize=128)
def _constant(values: tuple[Any, ...], device: torch.device) -> Tensor:
    """A small tensor, which moves to a device once, since the host waits for each such move."""
    return torch.tensor(values, dtype=torch.float32, device=device)
