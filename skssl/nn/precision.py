"""The precision that networks compute in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from skssl.errors import pick

PRECISIONS = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16}
SMALLEST_BFLOAT16 = 16  # pixels a side, on a CPU


def resolve_precision(precision: str, device: torch.device, side: int) -> torch.dtype:
    """Turn what the user gave as ``precision`` into the type that the networks compute in.

    Parameters
    ----------
    precision : {"auto", "float32", "bfloat16"}
        The type by name. "auto" is bfloat16 where the hardware computes in it (NVIDIA GPUs from Ampere on,
        AMD GPUs, CPUs with AMX) and float32 elsewhere.
    device : torch.device
        The device that computes.
    side : int
        The shorter side of the images in pixels. On a CPU bfloat16 needs 16: the weights' gradient of a strided 3x3
        convolution is wrong in oneDNN where the map is one pixel wide (seen in torch 2.15), which the last maps of
        smaller images are.

    Returns
    -------
    torch.dtype
        The floating-point type.

    Raises
    ------
    ValueError
        If there is no such precision, or the images are too small for the one that was asked for.

    Examples
    --------
    >>> resolve_precision("float32", torch.device("cpu"), side=32)
    torch.float32
    """
    dtype = pick("precision", precision, PRECISIONS)
    too_small = device.type == "cpu" and side < SMALLEST_BFLOAT16
    if dtype == torch.bfloat16 and too_small:
        raise ValueError(
            f"precision='bfloat16' on a CPU needs images of at least {SMALLEST_BFLOAT16} pixels a side. Got {side}: "
            "take precision='auto' or 'float32'."
        )
    if dtype is None:
        return torch.bfloat16 if _computes_in_bfloat16(device) and not too_small else torch.float32
    return dtype


def mixed_precision(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """Compute in a type, where that loses nothing that matters; float32 is as ever.

    Parameters
    ----------
    dtype : torch.dtype
        The type, see `resolve_precision`.
    device : torch.device
        Where.

    Returns
    -------
    torch.autocast
        A context.

    Examples
    --------
    >>> with mixed_precision(torch.bfloat16, torch.device("cpu")):
    ...     (torch.ones(1, 1) @ torch.ones(1, 1)).dtype
    torch.bfloat16
    """
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


@contextmanager
def matmul_precision(precision: str | None, device: torch.device) -> Iterator[None]:
    """Compute products of float32 matrices on CUDA in a precision for a while.

    Parameters
    ----------
    precision : {"highest", "high"} or None
        As ``torch.set_float32_matmul_precision`` has it: "highest" is float32, "high" TF32, with ten bits of mantissa
        and many times faster. None leaves all as it is.
    device : torch.device
        Where. On others than CUDA nothing changes.

    Examples
    --------
    >>> with matmul_precision("high", torch.device("cpu")):
    ...     torch.get_float32_matmul_precision()
    'highest'
    """
    if precision is None or device.type != "cuda":
        yield
        return
    # Not by ``torch.backends.cuda.matmul.fp32_precision``: where both ways are mixed, torch.compile fails.
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def autocast_for(images: torch.Tensor) -> torch.autocast:
    """Keep autocast as it is for a pass through an encoder, but off where bfloat16 is wrong.

    Parameters
    ----------
    images : Tensor of shape (n, c, h, w)
        What the encoder is given, perhaps smaller than the training images: tiles, patches.

    Returns
    -------
    torch.autocast
        A context for the pass.

    Examples
    --------
    >>> with autocast_for(torch.zeros(1, 3, 8, 8)):
    ...     torch.is_autocast_enabled("cpu")
    False
    """
    # See `resolve_precision`: oneDNN's gradient of a strided 3x3 convolution is wrong where a map is one pixel wide.
    kind = images.device.type
    wrong = kind == "cpu" and min(images.shape[2:]) < SMALLEST_BFLOAT16
    return torch.autocast(
        kind, dtype=torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind) and not wrong
    )


def _computes_in_bfloat16(device: torch.device) -> bool:
    """Tell whether the device has instructions for bfloat16 that are faster than those for float32."""
    if device.type == "cuda":
        return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        capabilities = getattr(torch.cpu, "get_capabilities", None)  # public, but not in every torch from 2.11 on
        if capabilities:
            return bool(capabilities().get("amx_bf16", False))
        return getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return False
