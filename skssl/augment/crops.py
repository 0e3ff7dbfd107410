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
    size: tuple[int, int] | Tensor,
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
    size : tuple of int, or int64 Tensor of shape (n, 2)
        Height and width of all images, or of each.
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
    corner, sides = boxes_from_numbers(numbers, size, scale, ratio)
    top, left, height, width = *corner.unbind(1), *sides.unbind(1)
    return top, left, height, width


def boxes_from_numbers(
    numbers: Tensor, size: Sequence[int] | Tensor, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Return the corners and the sides, (n, 2) each, of the crops that uniform numbers (n, CROP_NUMBERS) draw.

    The size is that of all images, or (n, 2).
    """
    if isinstance(size, Tensor):
        low, high = crop_limits((1, 1), scale, ratio)
        drawn = torch.lerp(constant(low, numbers.device), constant(high, numbers.device), numbers)
        drawn[:, :CANDIDATES] *= size.prod(1, keepdim=True)
        return crop_boxes(drawn, crop_frames(size, ratio))
    low, high = crop_limits(size, scale, ratio)
    drawn = torch.lerp(constant(low, numbers.device), constant(high, numbers.device), numbers)
    return crop_boxes(drawn, crop_frame(size, ratio, numbers.device))


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


def crop_frames(sizes: Tensor, ratio: tuple[float, float]) -> Tensor:
    """Return the same as `crop_frame` for images of the sizes (n, 2), as a tensor (4, n, 2)."""
    limits = torch.tensor((1 / ratio[0], ratio[1]), dtype=torch.float64, device=sizes.device)
    largest = sizes.minimum((sizes.flip(1) * limits).round().long())
    sign = torch.tensor((-1, 1), device=sizes.device).expand_as(sizes)
    return torch.stack((sizes, (sizes - largest) // 2, largest, sign)).float()


def crop_boxes(drawn: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
    """Return the corners (n, 2) and the sides (n, 2) of crops for numbers (n, CROP_NUMBERS) within `crop_limits`.

    The frame is that of all images, by `crop_frame`, or of each, by `crop_frames`.
    """
    whole, centred, largest, sign = frame
    area, half, place = drawn.split((CANDIDATES, CANDIDATES, 2), 1)
    sides = ((half[..., None] * sign[..., None, :]).exp() * area.sqrt()[..., None]).round()  # (n, CANDIDATES, 2)
    fits = ((sides >= 1) & (sides <= whole[..., None, :])).all(2)
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


def salient_boxes(candidates: Tensor, sizes: Tensor, maps: Tensor) -> Tensor:
    """Choose for every picture the first box whose mean saliency is above that of the whole picture.

    The maps may be smaller or larger than the pictures. Each value of a map holds for a rectangle of the picture, so
    that the mean in a box is exact.

    Parameters
    ----------
    candidates : Tensor of shape (n, k, 4)
        Top, left, height and width of k boxes in each picture. If no box is above the mean, the last one is taken.
    sizes : int64 Tensor of shape (n, 2)
        Heights and widths of the pictures.
    maps : Tensor of shape (n, h, w)
        Saliency maps of the pictures.

    Returns
    -------
    Tensor of shape (n, 4)
        The chosen boxes.

    Examples
    --------
    >>> boxes = torch.tensor([[[0, 20, 20, 20], [0, 0, 20, 20]]])
    >>> salient_boxes(boxes, torch.tensor([[40, 40]]), torch.eye(4)[None])
    tensor([[ 0,  0, 20, 20]])
    """
    extent = maps.new_tensor(maps.shape[1:]).double()
    integral = torch.nn.functional.pad(maps.double().cumsum(1).cumsum(2), (1, 0, 1, 0))  # (n, h + 1, w + 1)
    scale = (extent / sizes)[:, None]
    start = candidates[..., :2] * scale
    stop = (candidates[..., :2] + candidates[..., 2:]) * scale
    y, x = torch.stack((start[..., 0], stop[..., 0])), torch.stack((start[..., 1], stop[..., 1]))  # (2, n, k)

    def share(position: Tensor, length: int) -> Tensor:
        """Return the share (2, n, k, length + 1) that each entry along an axis has in a linear interpolation."""
        return (1 - (position[..., None] - torch.arange(length + 1, device=maps.device)).abs()).clamp(min=0)

    rows, columns = share(y, maps.shape[1]), share(x, maps.shape[2])
    total = torch.einsum("nki,nij,nkj->nk", rows[1] - rows[0], integral, columns[1] - columns[0])
    good = total / (stop - start).prod(2) > maps.double().mean((1, 2))[:, None]
    good[:, -1] = True
    first = good.byte().argmax(1)
    return candidates[torch.arange(len(maps), device=maps.device), first]
