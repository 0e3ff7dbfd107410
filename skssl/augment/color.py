"""Hue, greyscale and solarisation, with parameters of its own for every image."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from skssl.augment.tensors import small_matmul


def _rows(matrix: np.ndarray) -> tuple[tuple[float, ...], ...]:
    """Return the rows of a matrix as tuples."""
    return tuple(tuple(row) for row in matrix.tolist())


LUMA = (0.2989, 0.587, 0.114)  # weights of red, green and blue in grey, rounded as in torchvision
YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])  # NTSC's matrix
YIQ_PLANE = _rows(np.linalg.inv(YIQ) @ np.diag([0, 1, 1]) @ YIQ)  # projects RGB on the plane of I and Q
YIQ_QUARTER = _rows(np.linalg.inv(YIQ) @ [[0, 0, 0], [0, 0, 1], [0, -1, 0]] @ YIQ)  # a quarter-turn, red to green


class ColorConstants(NamedTuple):
    """Constants for images of c channels.

    Attributes
    ----------
    luma : Tensor of shape (c,)
        Weight of each channel in grey.
    eye : Tensor of shape (c, c)
        Identity.
    tint, gray : Tensor of shape (c, c)
        Matrices from a pixel to its difference from grey, and to grey. Zero and the identity unless c is 3, so that
        saturation and greyscale change nothing.
    changes : Tensor of shape (4, c * (2 * c + 2))
        What `jitter_in_order` combines: the identity, brightness, contrast and saturation.
    hue : Tensor of shape (3, 3, 3, 3) or (2, 3, 3)
        What `hue_matrices` combines, for HSV or YIQ.
    """

    luma: Tensor
    eye: Tensor
    tint: Tensor
    gray: Tensor
    changes: Tensor
    hue: Tensor


@functools.lru_cache(maxsize=32)
def color_constants(c: int, space: str, device: torch.device) -> ColorConstants:
    """Return the constants for c channels and a space of the hue, "hsv" or "yiq"."""
    luma, eye = torch.tensor(LUMA if c == 3 else (1 / c,) * c), torch.eye(c)
    if space == "yiq":
        hue = torch.tensor((YIQ_PLANE, YIQ_QUARTER))
    else:
        place = torch.arange(3)
        # For each third of a turn: the source of a channel, the channel before that and the channel after it
        own, last, following = (((place[:, None] - place - place[:, None, None]) % 3 == k).float() for k in range(3))
        hue = torch.stack((own, last + following, last - following), 1)
    tint, blank = (eye - luma) * (c == 3), torch.zeros(c, c + 2)
    from_mean = torch.cat((-luma.expand(c, c), blank[:, c:]), 1)
    changes = torch.stack((eye, eye, eye, tint)), torch.stack((blank, blank, from_mean, blank))
    tables = luma, eye, tint, eye - tint, torch.cat(changes, 2).flatten(1), hue
    return ColorConstants(*(table.to(device) for table in tables))


def adjust_hue(images: Tensor, shift: Tensor, space: str = "hsv") -> Tensor:
    """Turn the hue of every image by a shift of its own.

    Parameters
    ----------
    images : Tensor of shape (n, 3, h, w), float32
        Red, green and blue in [0, 1].
    shift : Tensor of shape (n,)
        Shifts in turns: 1 is the full circle of hues.
    space : {"hsv", "yiq"}, default="hsv"
        "hsv" keeps the smallest and the largest channel of every pixel, as torchvision's ``adjust_hue`` does. "yiq"
        rotates NTSC's plane of chrominance, which keeps the luminance; it is one 3x3 matrix and a clamp.

    Returns
    -------
    Tensor of shape (n, 3, h, w), float32
        In [0, 1].

    Examples
    --------
    >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    >>> adjust_hue(red, torch.tensor([0.5])).flatten().round(decimals=3)  # cyan
    tensor([0., 1., 1.])
    """
    matrices, share = hue_matrices(shift, color_constants(3, space, images.device).hue)
    return turn_hue(images.flatten(2), matrices, share).view(images.shape)


def hue_matrices(shift: Tensor, hue: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return matrices (n, 3, 3) that turn the hue, and the shares (n, 1, 1) that `turn_hue` needs for HSV."""
    if hue.dim() == 3:  # YIQ
        angle, (plane, quarter) = (shift * (2 * math.pi))[:, None, None], hue
        return torch.eye(3, device=shift.device) + (angle.cos() - 1) * plane + angle.sin() * quarter, None
    # The nearest number of thirds of the circle permutes the channels. The rest is in sixths, in [-1, 1]. The weight
    # of the channel before is 2 max(rest, 0) - 1, and that of the channel after 2 max(-rest, 0) - 1.
    turns = shift * 3
    thirds = turns.round()
    rest = ((turns - thirds) * 2)[:, None, None]
    share = 1 - rest.abs()
    own, both, apart = hue.index_select(0, thirds.remainder(3).long()).unbind(1)
    return torch.addcmul(own, rest, apart).addcmul(share, both, value=-1), share


def turn_hue(pixels: Tensor, matrices: Tensor, share: Tensor | None) -> Tensor:
    """Turn the hue of pixels (n, 3, pixels) by the matrices and shares of `hue_matrices`.

    HSV's hue runs around a hexagon, so that a turn by up to a sixth is linear but for a clamp. Scale the channels so
    that the smallest is 0 and the largest 1. One channel, x, changes on each side of the hexagon. Forward by t sixths,
    red becomes 2 - t - x from red to yellow, x - t from yellow to green, 0 from green to cyan, and then t - x, t + x
    and 1. All six are red - green + (2 t - 1) blue + 1 - t, clamped to [0, 1]. Green and blue follow by rotating the
    channels, and backward turns by exchanging the two neighbours. Undoing the scale gives the code below.
    """
    if share is None:
        return small_matmul(matrices, pixels).clamp_(0, 1)
    r, g, b = pixels.unbind(1)
    low, high = torch.minimum(g, b), torch.maximum(g, b)
    least, most = torch.minimum(r, low)[:, None], torch.maximum(r, high)[:, None]
    return small_matmul(matrices, pixels).addcmul_(least + most, share).clamp_(least, most)


def grayscale(images: Tensor, where: Tensor) -> Tensor:
    """Make some of the images grey, in all their channels.

    Parameters
    ----------
    images : Tensor of shape (n, c, h, w), float32
        Images. They are returned unchanged if c is not 3.
    where : Tensor of shape (n,), bool
        The images to change.

    Returns
    -------
    Tensor of shape (n, c, h, w), float32

    Examples
    --------
    >>> green = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1)
    >>> grayscale(green, torch.tensor([True])).flatten()
    tensor([0.5870, 0.5870, 0.5870])
    """
    n, c, h, w = images.shape
    matrices = gray_matrices(where, color_constants(c, "hsv", images.device))
    return small_matmul(matrices, images.reshape(n, c, h * w)).view(n, c, h, w)


def gray_matrices(where: Tensor, colors: ColorConstants) -> Tensor:
    """Return matrices (n, c, c): to grey where asked, and the identity elsewhere."""
    return torch.where(where[:, None, None], colors.gray, colors.eye)


def solarize(images: Tensor, threshold: float, where: Tensor) -> Tensor:
    """Invert the values from a threshold on, in some of the images.

    Parameters
    ----------
    images : Tensor of shape (n, c, h, w), float32
        In [0, 1].
    threshold : float
        Smallest value that is replaced by 1 minus itself.
    where : Tensor of shape (n,), bool
        The images to change.

    Returns
    -------
    Tensor of shape (n, c, h, w), float32

    Examples
    --------
    >>> solarize(torch.tensor([[[[0.25, 0.75]]]]), 0.5, torch.tensor([True])).flatten()
    tensor([0.2500, 0.2500])
    """
    inverted = (images >= threshold) * where.to(images.dtype)[:, None, None, None]
    return images.lerp(1 - images, inverted)  # several times faster than `where` on a CPU
