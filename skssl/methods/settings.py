"""A method's default settings, which stand for parameters that are None."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The values of a method's parameters that default to None.

    Parameters
    ----------
    augment : str or Augmentation
        The views: a preset's name or an augmentation.
    optimizer : {"sgd", "lars", "adamw"} or callable
        The optimiser.
    lr : float
        Peak learning rate for a batch of 256 images. It is scaled linearly with `batch_size`.
    weight_decay : float
        Weight decay.
    schedule : {"constant", "cosine", "epoch_cosine", "polynomial", "step"} or tuple
        Learning rate schedule.
    warmup : float
        Share of the epochs in which the learning rate rises from 0, in [0, 1].
    aux_weight : float
        Weight of each auxiliary task.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from skssl import SimCLR
    >>> replace(SimCLR.default_settings, augment="byol").augment
    'byol'
    """

    augment: Any
    optimizer: Any
    lr: float
    weight_decay: float
    schedule: Any
    warmup: float
    aux_weight: float
