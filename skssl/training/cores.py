"""The cores of a machine that others use, too: how long threads wait for work, how many there are, and a warning."""

from __future__ import annotations

import functools
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import joblib

if TYPE_CHECKING:
    import torch

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]

# OpenMP's threads spin for about a millisecond between two operations before they sleep. Where programs share cores, a
# thread that spins keeps another one from its work, and all of them become many times slower. libgomp, which torch's
# wheels for Linux hold, reads the number of turns when it is loaded. So it is set here, before torch is imported. With
# this number one training is about as fast as before, and two on two cores take 1.3 times what they take in turn.
SPIN_COUNT = 4000
CHOSEN = bool({"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys())  # the user's own choice stands
IN_TIME = "torch" not in sys.modules
if IN_TIME and not CHOSEN:
    os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)

# A training is crowded when its threads get less than this share of the time that they could compute, ...
LEAST_SHARE = 0.75
# ... and are sent off their cores more often than this, each of them a second: 17 times on a quiet machine, 125 on a
# crowded one (two cores). It is looked at after so many seconds.
MOST_SWITCHES, LOOKED_AFTER = 60, 5.0


@contextmanager
def limited_threads(device: torch.device) -> Iterator[None]:
    """Compute with no more threads than the process may have cores for a while.

    A container that may use two of a machine's 64 cores sees all of them, and torch takes a thread for each.

    Parameters
    ----------
    device : torch.device
        Where is computed. Only a CPU needs threads.

    Examples
    --------
    >>> import joblib
    >>> import torch
    >>> from skssl.training.cores import limited_threads
    >>> with limited_threads(torch.device("cpu")):
    ...     torch.get_num_threads() <= joblib.cpu_count()
    True
    """
    import torch

    before = torch.get_num_threads()
    allowed = joblib.cpu_count() if device.type == "cpu" else before  # knows of affinities and of cgroups' limits
    if before <= allowed:
        yield
        return
    torch.set_num_threads(allowed)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Crowd:
    """Notices that other programs use the cores that a training's threads wait for, and warns once.

    Parameters
    ----------
    device : torch.device
        Where is trained.
    """

    def __init__(self, device: torch.device) -> None:
        import torch

        threads = torch.get_num_threads()
        self.threads = threads if device.type == "cpu" and resource is not None and not (IN_TIME or CHOSEN) else 1
        self.before = _usage()

    def look(self) -> None:
        """Compare what was computed since the beginning with what could have been."""
        if self.threads < 2:
            return
        wall, computed, switches = (now - before for now, before in zip(_usage(), self.before, strict=True))
        share, rate = computed / (wall * self.threads), switches / (wall * self.threads)
        if wall >= LOOKED_AFTER and share < LEAST_SHARE and rate > MOST_SWITCHES:
            _warn(self.threads)


def _usage() -> tuple[float, float, float]:
    """The time, the time that this process has computed, and how often its threads had to leave a core."""
    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw if resource is not None else 0
    return time.perf_counter(), time.process_time(), float(switches)


@functools.cache
def _warn(threads: int) -> None:
    """Say once what is wrong and what helps."""
    warnings.warn(
        f"Other programs use the cores that this training's {threads} threads wait for, which makes all of them many "
        "times slower. Import skssl before torch, or set the environment variable OMP_NUM_THREADS to the number of "
        "cores that are free. See 'Sharing a machine' in the documentation.",
        stacklevel=2,
    )
