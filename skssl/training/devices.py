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
