"""torch's global random generators, seeded for one thread at a time and restored afterwards."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_turn = threading.RLock()


def _renew() -> None:
    """Make a new lock in a process that was forked while another thread held it."""
    global _turn
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed the global generators of the CPU and of a device for a while.

    The initial weights, dropout and some methods draw from torch's global generators, of which a process has one for
    each device. A lock lets one thread at a time draw from them, so that a seed gives the same numbers whatever other
    threads train. The generators' states are restored at the end.

    Parameters
    ----------
    seed : int
        The seed.
    device : torch.device or str, default="cpu"
        The device.

    Examples
    --------
    >>> import torch
    >>> from skssl.training.seeding import seeded
    >>> with seeded(0):
    ...     first = torch.rand(3)
    >>> with seeded(0):
    ...     second = torch.rand(3)
    >>> torch.equal(first, second)
    True
    """
    device = torch.device(device)
    kind = "cuda" if device.type == "cpu" else device.type
    with _turn, torch.random.fork_rng([] if device.type == "cpu" else [device.index or 0], device_type=kind):
        reseed(seed, device)
        yield


def reseed(seed: int, device: torch.device) -> None:
    """Seed the global generators of the CPU and of one device; within `seeded`.

    ``torch.manual_seed`` would seed those of all devices, which nothing restores.

    Parameters
    ----------
    seed : int
        The seed.
    device : torch.device
        The device.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.init()
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
