"""Gaussian blur, with a standard deviation of its own for every image."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from skssl.augment.geometry import separable_filter


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur every image by a Gaussian with a standard deviation of its own.

    As in SimCLR, the kernel is as long as a tenth of the image's height, made odd, and at least 3. The borders are
    reflected. The blur is one matrix product with the rows and one with the columns.

    Parameters
    ----------
    images : Tensor of shape (n, c, h, w), float32
        At least 2 pixels high and wide.
    sigma : Tensor of shape (n,)
        Standard deviations in pixels, above 0.

    Returns
    -------
    Tensor of shape (n, c, h, w), float32

    Examples
    --------
    >>> gaussian_blur(torch.tensor([[[[0.0, 0, 4, 0, 0]] * 2]]), torch.tensor([0.5]))[0, 0, 0]
    tensor([0.0000, 0.4260, 3.1479, 0.4260, 0.0000])
    """
    height, width = images.shape[2:]
    return blur(images, sigma, *(tap_shifts(side, height, images.device) for side in (height, width)))


def blur(images: Tensor, sigma: Tensor, row_shifts: Tensor, column_shifts: Tensor) -> Tensor:
    """Compute `gaussian_blur` with the matrices of `tap_shifts` for the rows and for the columns."""
    reach = len(row_shifts) // 2
    taps = torch.arange(-reach, reach + 1, device=images.device)
    kernel = (-0.5 * (taps / sigma[:, None]).square()).exp()  # (n, taps)
    kernel = kernel / kernel.sum(1, keepdim=True)
    weights = ((kernel @ shifts.flatten(1)).view(-1, *shifts.shape[1:]) for shifts in (row_shifts, column_shifts))
    return separable_filter(images, *weights)


@functools.lru_cache(maxsize=16)
def tap_shifts(side: int, height: int, device: torch.device) -> Tensor:
    """Return matrices (taps, side, side) of 0 and 1 that shift a line by each tap of the kernel, with reflection.

    `height` is that of the image; the number of taps depends on it.
    """
    reach = max(1, height // 20)
    taps, pixel = torch.arange(-reach, reach + 1, device=device), torch.arange(side, device=device)
    source = (side - 1 - (side - 1 - (pixel[:, None] + taps).abs()).abs()).clamp(min=0)  # (side, taps)
    return (source.mT[:, None] == pixel[:, None]).float().contiguous()  # (tap, from, to)
