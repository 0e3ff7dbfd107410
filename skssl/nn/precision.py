"""Mixed precision: the dtype of networks, autocast, and the precision of matrix products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from skssl.errors import pick

PRECISIONS = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16}
SMALLEST_BFLOAT16 = 16  # smallest side, in pixels, of images in bfloat16 on a CPU


def resolve_precision(precision: str, device: torch.device, side: int) -> torch.dtype:
    """Return the dtype of the networks for the parameter ``precision``.

    Parameters
    ----------
    precision : {"auto", "float32", "bfloat16"}
        The dtype by name. "auto" is bfloat16 where the hardware supports it (NVIDIA GPUs since Ampere, AMD GPUs,
        CPUs with AMX or AVX512_BF16) and float32 elsewhere.
    device : torch.device
        The device that computes.
    side : int
        The shorter side of the images in pixels. bfloat16 on a CPU needs 16: in oneDNN the weight gradient of a
        strided 3x3 convolution is wrong for maps that are one pixel wide (seen in torch 2.15), as the last maps of
        smaller images are.

    Returns
    -------
    torch.dtype
        float32 or bfloat16.

    Raises
    ------
    ValueError
        If the precision is unknown, or the images are too small for bfloat16 on a CPU.

    Examples
    --------
    >>> resolve_precision("float32", torch.device("cpu"), side=32)
    torch.float32
    """
    dtype = pick("precision", precision, PRECISIONS)
    too_small = device.type == "cpu" and side < SMALLEST_BFLOAT16
    if dtype == torch.bfloat16 and too_small:
        raise ValueError(
            f"precision='bfloat16' on a CPU needs images of at least {SMALLEST_BFLOAT16} pixels a side. Got {side}. "
            "Use precision='auto' or 'float32'."
        )
    if dtype is None:
        return torch.bfloat16 if _computes_in_bfloat16(device) and not too_small else torch.float32
    return dtype


def usable_precision(precision: str, device: torch.device, side: int) -> torch.dtype:
    """Return the dtype of networks that may have been trained on another device.

    Parameters
    ----------
    precision, device, side
        As for `resolve_precision`.

    Returns
    -------
    torch.dtype
        The same as `resolve_precision`, but float32 where bfloat16 is not possible.

    Examples
    --------
    >>> usable_precision("bfloat16", torch.device("cpu"), side=8)
    torch.float32
    """
    too_small = precision == "bfloat16" and device.type == "cpu" and side < SMALLEST_BFLOAT16
    return resolve_precision("float32" if too_small else precision, device, side)


def mixed_precision(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """Return an autocast context for a dtype.

    Parameters
    ----------
    dtype : torch.dtype
        The dtype, see `resolve_precision`. float32 disables autocast.
    device : torch.device
        The device that computes.

    Returns
    -------
    torch.autocast
        The context.

    Examples
    --------
    >>> with mixed_precision(torch.bfloat16, torch.device("cpu")):
    ...     (torch.ones(1, 1) @ torch.ones(1, 1)).dtype
    torch.bfloat16
    """
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


@contextmanager
def matmul_precision(precision: str | None, device: torch.device) -> Iterator[None]:
    """Set the precision of float32 matrix products on CUDA within a context.

    Parameters
    ----------
    precision : {"highest", "high"} or None
        As in ``torch.set_float32_matmul_precision``: "highest" is float32. "high" is TF32, which has a mantissa of ten
        bits and is several times faster. None changes nothing.
    device : torch.device
        The device that computes. Nothing changes unless it is a CUDA device.

    Examples
    --------
    >>> with matmul_precision("high", torch.device("cpu")):
    ...     torch.get_float32_matmul_precision()
    'highest'
    """
    if precision is None or device.type != "cuda":
        yield
        return
    # Not torch.backends.cuda.matmul.fp32_precision: torch.compile fails if both settings are used.
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def autocast_for(images: torch.Tensor) -> torch.autocast:
    """Return a context that keeps autocast, but disables it for images too small for bfloat16 on a CPU.

    Parameters
    ----------
    images : Tensor of shape (n, c, h, w)
        Input of the encoder, such as small crops or tiles.

    Returns
    -------
    torch.autocast
        The context for a forward pass.

    Examples
    --------
    >>> with autocast_for(torch.zeros(1, 3, 8, 8)):
    ...     torch.is_autocast_enabled("cpu")
    False
    """
    # `resolve_precision` says why.
    kind = images.device.type
    wrong = kind == "cpu" and min(images.shape[2:]) < SMALLEST_BFLOAT16
    return torch.autocast(
        kind, dtype=torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind) and not wrong
    )


def _computes_in_bfloat16(device: torch.device) -> bool:
    """Return whether the device has bfloat16 instructions that are faster than those for float32."""
    if device.type == "cuda":
        return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        found = torch.cpu.get_capabilities()
        return any(found.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
    return False
