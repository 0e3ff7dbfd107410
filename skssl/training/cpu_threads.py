"""Sharing the cores of a machine: how long threads spin, how many there are, and a warning if cores are crowded."""

from __future__ import annotations

import functools
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]

# OpenMP's threads spin for about a millisecond between two operations before they sleep. If programs share cores,
# spinning threads keep others from working, and all programs become many times slower. libgomp, part of torch's wheels
# for Linux, reads the number of spins when it is loaded. So it is set here, before torch is imported. With this number
# one training is about as fast as before, and two at once on two cores take 1.3 times as long as one by one.
SPIN_COUNT = 4000
CHOSEN = bool({"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys())  # the user has chosen
IN_TIME = "torch" not in sys.modules
if IN_TIME and not CHOSEN:
    os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)

# Cores are crowded if the threads of a training get less than this share of the time that they could compute, ...
LEAST_SHARE = 0.75
# ... and the system interrupts each of them more often than this per second: 17 times on a quiet machine, 125 times on
# a crowded one (two cores). This is checked after so many seconds.
MOST_SWITCHES, CHECKED_AFTER = 60, 5.0


@contextmanager
def limited_threads(device: torch.device) -> Iterator[None]:
    """Use no more threads than the process has cores, within a context.

    A container that may use two of a machine's 64 cores sees all of them, and torch starts a thread for each.

    Parameters
    ----------
    device : torch.device
        The device of the computation. Only on a CPU the number of threads is limited.

    Examples
    --------
    >>> import joblib
    >>> import torch
    >>> from skssl.training.cpu_threads import limited_threads
    >>> with limited_threads(torch.device("cpu")):
    ...     torch.get_num_threads() <= joblib.cpu_count()
    True
    """
    import joblib
    import torch

    before = torch.get_num_threads()
    allowed = joblib.cpu_count() if device.type == "cpu" else before  # respects affinities and limits of cgroups
    if before <= allowed:
        yield
        return
    torch.set_num_threads(allowed)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Crowd:
    """A check whether other programs use the cores of a training, which warns once.

    Parameters
    ----------
    device : torch.device
        The device of the training.
    """

    def __init__(self, device: torch.device) -> None:
        import torch

        threads = torch.get_num_threads()
        self.threads = threads if device.type == "cpu" and resource is not None and not (IN_TIME or CHOSEN) else 1
        self.before = _usage()

    def check(self) -> None:
        """Compare the time that the threads have computed with the time that they could have computed."""
        if self.threads < 2:
            return
        wall, computed, switches = (now - before for now, before in zip(_usage(), self.before, strict=True))
        share, rate = computed / (wall * self.threads), switches / (wall * self.threads)
        if wall >= CHECKED_AFTER and share < LEAST_SHARE and rate > MOST_SWITCHES:
            _warn(self.threads)


def _usage() -> tuple[float, float, float]:
    """Return the time, the time that this process has computed, and how often its threads were interrupted."""
    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw if resource is not None else 0
    return time.perf_counter(), time.process_time(), float(switches)


@functools.cache
def _warn(threads: int) -> None:
    """Warn once."""
    warnings.warn(
        f"Other programs use the cores of this training's {threads} threads, which makes all programs many times "
        "slower. Import skssl before torch, or set the environment variable OMP_NUM_THREADS to the number of "
        "cores that are free. See 'Sharing a machine' in the documentation.",
        stacklevel=2,
    )
