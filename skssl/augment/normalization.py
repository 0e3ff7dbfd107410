"""Normalisation by the mean and the standard deviation of each channel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from skssl.augment.tensors import constant

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def gain_and_offset(
    mean: Sequence[float], std: Sequence[float], n_channels: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the factor 1 / std and the term -mean / std of every channel, both (n_channels,).

    `mean` and `std` are those of red, green and blue. Other numbers of channels take their averages.
    """
    mean, std = (tuple(map(float, of)) if n_channels == 3 else (sum(of) / 3,) * n_channels for of in (mean, std))
    gain, offset = tuple(1 / s for s in std), tuple(-m / s for m, s in zip(mean, std, strict=True))
    return constant(gain, device), constant(offset, device)


def normalize(images: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    """Multiply the channels of images (n, c, h, w) by a gain and add an offset; uint8 is divided by 255 first.

    The result is float32 with channels last in memory.
    """
    n, c, h, w = images.shape
    gain, offset = gain.repeat(w), offset.repeat(w)
    gain = gain / 255 if images.dtype == torch.uint8 else gain
    rows = images.movedim(1, 3).reshape(n * h, w * c)  # long rows vectorise well on a CPU
    return torch.addcmul(offset, rows.float(), gain).view(n, h, w, c).movedim(3, 1)


def denormalize(views: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    """Undo `normalize` for views (n, c, h, w)."""
    return ((views.flatten(2) - offset[:, None]) / gain[:, None]).view(views.shape)
