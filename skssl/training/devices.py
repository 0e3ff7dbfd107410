"""Devices, and memory that is kept during a training."""

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


def resolve_device(device: str | torch.device) -> torch.device:
    """Resolve the parameter ``device`` to a device that this machine has.

    Parameters
    ----------
    device : str or torch.device
        A device of torch, such as "cpu", "cuda", "cuda:1" or "mps", or "auto": CUDA if available, else Apple's MPS,
        else the CPU. Under ``torchrun``, CUDA without a number is the GPU of the process.

    Returns
    -------
    torch.device
        The device.

    Raises
    ------
    ValueError
        If torch does not know the device, or this machine does not have it.

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
    """Return a network on the CPU, so that its pickle can be loaded on any machine.

    Parameters
    ----------
    module : torch.nn.Module
        The network.

    Returns
    -------
    torch.nn.Module
        The network itself if it is on the CPU, or a copy.

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
    """Return a device, or the CPU if this machine does not have the device.

    Parameters
    ----------
    device : str or torch.device
        As for `resolve_device`.

    Returns
    -------
    torch.device
        The device.

    Examples
    --------
    >>> available("cuda:99")
    device(type='cpu')
    """
    try:
        return resolve_device(device)
    except ValueError:
        return torch.device("cpu")


@contextmanager
def keeping_memory() -> Iterator[None]:
    """Keep freed memory for later allocations within a context, if glibc is the allocator.

    By default large blocks return to the system as soon as they are freed, and the system clears them page by page when
    they are allocated again. On a CPU this takes a tenth to a quarter of a training step. When a long context ends, all
    free memory returns to the system.

    Examples
    --------
    >>> with keeping_memory():
    ...     first = torch.empty(10_000_000)
    ...     del first
    ...     second = torch.empty(10_000_000)  # at the same address
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
                # The values at which glibc's dynamic thresholds end up after large blocks have been freed.
                _set_malloc(M_MMAP_MAX=2**16, M_MMAP_THRESHOLD=2**25, M_TRIM_THRESHOLD=2**26)
                if time.monotonic() - started > LONG:
                    _glibc("malloc_trim", 0)


LONG = 1.0  # seconds; returning memory takes milliseconds, too much for shorter contexts
_keeping, _change = 0, threading.Lock()  # number of active `keeping_memory` contexts of all threads
_MALLOPT = {"M_TRIM_THRESHOLD": -1, "M_MMAP_THRESHOLD": -3, "M_MMAP_MAX": -4}  # from glibc's malloc.h


def _set_malloc(**options: int) -> None:
    """Set options of glibc's malloc."""
    for name, value in options.items():
        _glibc("mallopt", _MALLOPT[name], value)


def _glibc(name: str, *arguments: int) -> Any:
    """Call a function of glibc, or do nothing if the C library is another one."""
    try:
        function = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return None
    return function(*arguments)


def _n_devices(kind: str) -> int:
    """Return the number of this machine's devices of a type, 0 for a type without data such as "meta"."""
    count = getattr(getattr(torch, kind, None), "device_count", None)
    return count() if count else 0
