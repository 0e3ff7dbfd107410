"""Crop boxes: drawn at random, or chosen by saliency maps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from skssl.augment.tensors import constant

CANDIDATES = 10  # boxes that are drawn for a crop until one fits, as in torchvision
CROP_NUMBERS = 2 * CANDIDATES + 2  # uniform numbers of a crop: areas, aspect ratios, and its place


def sample_crops(
    n: int,
    size: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw one crop box for every image as torchvision's ``RandomResizedCrop`` does.

    The area is uniform within `scale`, and the logarithm of the aspect ratio is uniform. The sides are rounded. The
    place is uniform among those where the box fits. The first of ten candidates that fits the image is taken. If no
    candidate fits, the box is the largest centred one within `ratio`.

    Parameters
    ----------
    n : int
        Number of boxes.
    size : tuple of int
        Height and width of the images.
    scale : tuple of float
        Smallest and largest area, as fractions of the image's area.
    ratio : tuple of float
        Smallest and largest aspect ratio, width by height.
    generator : torch.Generator
        Source of the random numbers. The boxes are on its device.

    Returns
    -------
    top, left, height, width : Tensor of shape (n,), float32
        The boxes, in whole pixels.

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
    numbers = torch.rand(n, CROP_NUMBERS, generator=generator, device=generator.device)
    low, high = crop_limits(size, scale, ratio)
    drawn = torch.lerp(constant(low, generator.device), constant(high, generator.device), numbers)
    corner, sides = crop_boxes(drawn, crop_frame(size, ratio, generator.device))
    top, left, height, width = *corner.unbind(1), *sides.unbind(1)
    return top, left, height, width


def crop_limits(
    size: Sequence[int], scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the lower and the upper limits of a crop's numbers: areas, halved logarithms of the ratios, and place."""
    low, high = (
        (s * math.prod(size),) * CANDIDATES + (math.log(r) / 2,) * CANDIDATES + (place,) * 2
        for s, r, place in zip(scale, ratio, (0.0, 1.0), strict=True)
    )
    return low, high


def crop_frame(size: Sequence[int], ratio: tuple[float, float], device: torch.device) -> Tensor:
    """Return what `crop_boxes` needs to know of the images, (4, 2), each row for the height and for the width.

    The rows are the sides of the images, the corner and the sides of the largest centred box within the ratio, and
    the sign of the ratio's logarithm.
    """
    h, w = size
    height, width = min(h, round(w / ratio[0])), min(w, round(h * ratio[1]))
    return constant(((h, w), ((h - height) // 2, (w - width) // 2), (height, width), (-1, 1)), device)


def crop_boxes(drawn: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
    """Return the corners (n, 2) and the sides (n, 2) of crops for numbers (n, CROP_NUMBERS) within `crop_limits`."""
    whole, centred, largest, sign = frame
    area, half, place = drawn.split((CANDIDATES, CANDIDATES, 2), 1)
    sides = ((half[..., None] * sign).exp() * area.sqrt()[..., None]).round()  # (n, CANDIDATES, 2)
    fits = ((sides >= 1) & (sides <= whole)).all(2)
    first = fits.byte().argmax(1, keepdim=True)
    sides = sides.gather(1, first[..., None].expand(-1, -1, 2))[:, 0]
    corner = (place * (whole - sides + 1)).floor()
    found = fits.gather(1, first)
    return torch.where(found, corner, centred), torch.where(found, sides, largest)


def salient_crops(candidates: Sequence[Tensor], maps: Tensor) -> tuple[Tensor, ...]:
    """Choose for every image the first box whose mean saliency is above that of the whole image.

    Parameters
    ----------
    candidates : sequence of 4 Tensors of shape (n, k)
        Top, left, height and width of k boxes for each image, in whole pixels. If no box is above the mean, the last
        one is taken.
    maps : Tensor of shape (n, h, w)
        Saliency maps of the images' size.

    Returns
    -------
    top, left, height, width : Tensor of shape (n,)
        The chosen boxes.

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
    # Entry (y, x) of the integral image is the sum above and to the left of pixel (y, x). Four give the sum in a box.
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
