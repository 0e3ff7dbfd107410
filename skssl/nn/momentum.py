"""Momentum copies of networks, and the schedule of their momentum."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn


def momentum_copy(module: nn.Module) -> nn.Module:
    """Copy a module for `follow` to move: no gradient reaches it.

    It stays in training mode with its source, so that its BatchNorm normalises by the batch and keeps running
    statistics of its own (only parameters are averaged).

    Parameters
    ----------
    module : torch.nn.Module
        What to copy, weights and all.

    Returns
    -------
    torch.nn.Module
        The copy.

    Examples
    --------
    >>> from torch import nn
    >>> from skssl.nn.momentum import momentum_copy
    >>> [p.requires_grad for p in momentum_copy(nn.Linear(2, 2)).parameters()]
    [False, False]
    """
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """Move a momentum copy towards its source: slow <- momentum * slow + (1 - momentum) * fast.

    Parameters
    ----------
    slow : torch.nn.Module
        What `momentum_copy` made.
    fast : torch.nn.Module
        Its source. Only parameters are followed, not buffers.
    momentum : float
        Between 0 (jump) and 1 (stay).

    Examples
    --------
    >>> from torch import nn
    >>> from skssl.nn.momentum import follow, momentum_copy
    >>> fast = nn.Linear(1, 1)
    >>> slow = momentum_copy(fast)
    >>> _ = nn.init.zeros_(slow.weight), nn.init.ones_(fast.weight)
    >>> follow(slow, fast, momentum=0.75)
    >>> slow.weight.item()
    0.25
    """
    torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), 1 - momentum)


def cosine_ramp(start: float, end: float, progress: float) -> float:
    """Go from one value to another along half a cosine, as BYOL's and DINO's momentum does.

    Parameters
    ----------
    start, end : float
        The values at progress 0 and 1.
    progress : float
        The share of the training that is done, in [0, 1].

    Returns
    -------
    float
        ``end - (end - start) * (1 + cos(pi * progress)) / 2``.

    Examples
    --------
    >>> from skssl.nn.momentum import cosine_ramp
    >>> cosine_ramp(0.5, 1.0, 0.5)
    0.75
    """
    return end - (end - start) * (1 + math.cos(math.pi * progress)) / 2
