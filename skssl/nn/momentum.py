"""Momentum copies of networks (exponential moving averages), and their momentum schedule."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn


def momentum_copy(module: nn.Module) -> nn.Module:
    """Copy a module as the start of its moving average, see `update_momentum`.

    The copy follows the mode of the net, training or evaluation. In training its BatchNorm uses batch statistics and
    keeps running statistics of its own, as only parameters are averaged.

    Parameters
    ----------
    module : torch.nn.Module
        The source.

    Returns
    -------
    torch.nn.Module
        The copy, whose parameters require no gradient.

    Examples
    --------
    >>> from torch import nn
    >>> from skssl.nn.momentum import momentum_copy
    >>> [p.requires_grad for p in momentum_copy(nn.Linear(2, 2)).parameters()]
    [False, False]
    """
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def update_momentum(model: nn.Module, model_ema: nn.Module, m: float) -> None:
    """Update a momentum copy by an exponential moving average: model_ema <- m * model_ema + (1 - m) * model.

    Parameters
    ----------
    model : torch.nn.Module
        The source. Its buffers are not averaged.
    model_ema : torch.nn.Module
        The copy, from `momentum_copy`.
    m : float
        The momentum, between 0 (the copy equals its source) and 1 (the copy does not change).

    Examples
    --------
    >>> from torch import nn
    >>> from skssl.nn.momentum import momentum_copy, update_momentum
    >>> model = nn.Linear(1, 1)
    >>> model_ema = momentum_copy(model)
    >>> _ = nn.init.zeros_(model_ema.weight), nn.init.ones_(model.weight)
    >>> update_momentum(model, model_ema, m=0.75)
    >>> model_ema.weight.item()
    0.25
    """
    torch._foreach_lerp_(list(model_ema.parameters()), list(model.parameters()), 1 - m)


def cosine_schedule(start: float, end: float, progress: float) -> float:
    """Return a value between two ends along half a cosine, the momentum schedule of BYOL and DINO.

    Parameters
    ----------
    start, end : float
        The values at progress 0 and 1.
    progress : float
        The fraction of the training that is done, in [0, 1].

    Returns
    -------
    float
        ``end - (end - start) * (1 + cos(pi * progress)) / 2``.

    Examples
    --------
    >>> from skssl.nn.momentum import cosine_schedule
    >>> cosine_schedule(0.5, 1.0, 0.5)
    0.75
    """
    return end - (end - start) * (1 + math.cos(math.pi * progress)) / 2
