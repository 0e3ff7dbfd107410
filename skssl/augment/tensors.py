"""Helpers for tensors that the files of this folder share."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor


@functools.lru_cache(maxsize=128)
def constant(values: tuple[Any, ...], device: torch.device) -> Tensor:
    """Return numbers as a float32 tensor on a device, which is cached: the host waits for every transfer."""
    return torch.tensor(values, dtype=torch.float32, device=device)


def to_float(images: Tensor) -> Tensor:
    """Return images as float32 in [0, 1]."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def small_matmul(a: Tensor, b: Tensor) -> Tensor:
    """Multiply matrices (n, i, j) by matrices (n, j, k) where j is small."""
    if torch.compiler.is_compiling():  # elementwise operations are fused with the steps before and after
        return (a[..., None] * b[:, None]).sum(2)
    return torch.bmm(a, b)
