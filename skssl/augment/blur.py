"""Gaussian blur, with a standard deviation of its own for every image."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from skssl.augment.geometry import separable_filter
from skssl.augment.tensors import constant


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
    return blur(images, sigma, blur_constants(images.shape[2:], images.device))


class BlurConstants(NamedTuple):
    """Constants for images of one size.

    Attributes
    ----------
    exponents : Tensor of shape (taps,)
        Logarithm of the kernel for a standard deviation of 1.
    row_shifts, column_shifts : Tensor of shape (taps, side, side)
        See `tap_shifts`. They are equal for square images.
    """

    exponents: Tensor
    row_shifts: Tensor
    column_shifts: Tensor


def blur_constants(size: Sequence[int], device: torch.device) -> BlurConstants:
    """Return the constants for images of a height and a width."""
    height, width = size
    reach = max(1, height // 20)
    exponents = constant(tuple(-0.5 * tap**2 for tap in range(-reach, reach + 1)), device)
    return BlurConstants(exponents, *(tap_shifts(side, reach, device) for side in (height, width)))


def blur(images: Tensor, sigma: Tensor, constants: BlurConstants) -> Tensor:
    """Compute `gaussian_blur` with the constants of the images' size."""
    kernel = (constants.exponents / sigma.square()[:, None]).softmax(1)  # (n, taps)
    height, width = images.shape[2:]
    rows = columns = _shift(kernel, constants.row_shifts)
    if height != width:
        columns = _shift(kernel, constants.column_shifts)
    return separable_filter(images, rows, columns)


def _shift(kernel: Tensor, shifts: Tensor) -> Tensor:
    """Return the matrices (n, side, side) of a convolution by kernels (n, taps)."""
    return (kernel @ shifts.flatten(1)).view(-1, *shifts.shape[1:])


@functools.lru_cache(maxsize=16)
def tap_shifts(side: int, reach: int, device: torch.device) -> Tensor:
    """Return matrices (taps, side, side) of 0 and 1 that shift a line by -reach, …, reach pixels, with reflection."""
    taps, pixel = torch.arange(-reach, reach + 1, device=device), torch.arange(side, device=device)
    source = (side - 1 - (side - 1 - (pixel[:, None] + taps).abs()).abs()).clamp(min=0)  # (side, taps)
    return (source.mT[:, None] == pixel[:, None]).float().contiguous()  # (tap, from, to)
