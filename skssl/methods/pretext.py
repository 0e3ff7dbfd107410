"""The base class of methods that are a pretext task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from skssl.methods.base import SSLTransformer
from skssl.methods.settings import Settings


@dataclass(kw_only=True, eq=False, repr=False)
class PretextMethod(SSLTransformer):
    """A method that is a pretext task; abstract.

    A task and a method have the same hooks. A method inherits its parameters and losses from the task, which precedes
    this class among its bases, and the training from this class.
    """

    default_settings: ClassVar[Settings] = Settings(
        augment="rotnet",
        optimizer="sgd",
        lr=0.2,
        weight_decay=5e-4,
        schedule="step",
        warmup=0.0,
        aux_weight=1.0,
    )

    @property
    def n_views(self) -> int:
        """One view."""
        return 1
