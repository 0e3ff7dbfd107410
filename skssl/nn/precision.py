"""Where the computing happens, and in which floating-point type."""

from __future__ import annotations

import copy
import ctypes
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from skssl.errors import pick

PRECISIONS = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16}
SMALLEST_BFLOAT16 = 16  # pixels a side, on a CPU


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn what the user gave as ``device`` into a device that this machine has.

    Parameters
    ----------
    device : str or torch.device
        A device as torch names it ("cpu", "cuda", "cuda:1", "mps"), or "auto": CUDA where there is one,
        else Apple's MPS, else the CPU. Under ``torchrun`` CUDA without a number is each process's own GPU.

    Returns
    -------
    torch.device
        The device.

    Raises
    ------
    ValueError
        If torch knows no such device, or this machine does not have it.

    Examples
    --------
    >>> resolve_device("cpu")
    device(type='cpu')
    >>> resolve_device("gpu")
    Traceback (most recent call last):
    ...
    ValueError: device must be 'auto' or a device that torch knows, such as 'cpu', 'cuda', 'cuda:1' or 'mps'.
    Got 'gpu'.
    """
    if isinstance(device, str) and device == "auto":
        device = next(kind for kind in ("cuda", "mps", "cpu") if _n_devices(kind))
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            "device must be 'auto' or a device that torch knows, such as 'cpu', 'cuda', 'cuda:1' or 'mps'. "
            f"Got {device!r}."
        ) from error
    if found.type == "cuda" and found.index is None and "LOCAL_RANK" in os.environ:
        found = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    n_devices = _n_devices(found.type)
    if (found.index or 0) >= n_devices:
        have = f"{n_devices} device(s)" if n_devices else "no device"
        raise ValueError(f"device={str(found)!r} is not available: torch finds {have} of type {found.type!r}.")
    return found


def portable(module: nn.Module) -> nn.Module:
    """Bring a network to where it can be pickled for any machine: to the CPU, as a copy if it is somewhere else.

    Parameters
    ----------
    module : torch.nn.Module
        The network.

    Returns
    -------
    torch.nn.Module
        The network itself, if it is on the CPU, or a copy.

    Examples
    --------
    >>> from torch import nn
    >>> layer = nn.Linear(2, 2)
    >>> portable(layer) is layer
    True
    """
    if all(value.device.type == "cpu" for value in module.state_dict().values()):
        return module
    return copy.deepcopy(module).cpu()


def available(device: str | torch.device) -> torch.device:
    """Tell where what was on a device on another machine goes on this one.

    Parameters
    ----------
    device : str or torch.device
        As for `resolve_device`.

    Returns
    -------
    torch.device
        The device, or the CPU where there is no such one.

    Examples
    --------
    >>> available("cuda:99")
    device(type='cpu')
    """
    try:
        return resolve_device(device)
    except ValueError:
        return torch.device("cpu")


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


def in_precision(dtype: torch.dtype, device: torch.device) -> torch.autocast:
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
    >>> with in_precision(torch.bfloat16, torch.device("cpu")):
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


@contextmanager
def keeping_memory() -> Iterator[None]:
    """Keep memory that is freed for what is allocated next, where glibc allocates.

    By default large blocks go back to the system as soon as they are freed, and each time they come back the system
    clears them anew, page by page: a tenth to a quarter of a training step on a CPU. At the end of what took long, all
    that is free is given back.

    Examples
    --------
    >>> with keeping_memory():
    ...     first = torch.empty(10_000_000)
    ...     del first
    ...     second = torch.empty(10_000_000)  # in the same place
    """
    global _keeping
    started = time.monotonic()
    with _change:
        _keeping += 1
        if _keeping == 1:
            _set_malloc(M_MMAP_MAX=0, M_TRIM_THRESHOLD=-1)
    try:
        yield
    finally:
        with _change:
            _keeping -= 1
            if _keeping == 0:
                # Where glibc's own thresholds end up when large blocks have been freed; it no longer moves them.
                _set_malloc(M_MMAP_MAX=2**16, M_MMAP_THRESHOLD=2**25, M_TRIM_THRESHOLD=2**26)
                if time.monotonic() - started > LONG:
                    _glibc("malloc_trim", 0)


LONG = 1.0  # seconds, after which it is worth the milliseconds to give memory back
_keeping, _change = 0, threading.Lock()  # how many are in `keeping_memory`, here or in other threads
_MALLOPT = {"M_TRIM_THRESHOLD": -1, "M_MMAP_THRESHOLD": -3, "M_MMAP_MAX": -4}  # numbers in glibc's malloc.h


def _set_malloc(**options: int) -> None:
    """Set options of glibc's malloc."""
    for name, value in options.items():
        _glibc("mallopt", _MALLOPT[name], value)


def _glibc(name: str, *arguments: int) -> Any:
    """Call a function of glibc's, or nothing where this is no glibc."""
    try:
        function = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # other systems' libraries, and Windows, which has none of no name
        return None
    return function(*arguments)


def _n_devices(kind: str) -> int:
    """Count this machine's devices of one type; none for a type that holds no data, such as "meta"."""
    count = getattr(getattr(torch, kind, None), "device_count", None)
    return count() if count else 0


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
