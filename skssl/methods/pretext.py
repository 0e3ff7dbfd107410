"""What the pretext estimators share: a task and a name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from skssl.methods.base import SSLTransformer
from skssl.methods.settings import Settings
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class PretextMethod(SSLTransformer):
    """A pretext task as a method of its own, with the task's parameters; abstract."""

    #: The task's class.
    task_class: ClassVar[Any]

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
        """One."""
        return 1

    @property
    def reads_views(self) -> bool:
        """As the task."""
        return self.task_class.reads_views

    @property
    def task(self) -> Any:
        """The task, with those of its parameters that the method has."""
        mine = self.get_params(deep=False)
        return self.task_class(**{name: mine[name] for name in self.task_class().get_params() if name in mine})

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Check the task's parameters and put on the net what it needs."""
        net.pretext = self.task
        net.pretext.validate()
        net.pretext.build(net, dim, n_samples)

    def prepare(self, net: Objective, batch: Batch) -> None:
        """Make what the task needs."""
        net.pretext.prepare(net, batch)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:
        """Compute the task's losses."""
        return net.pretext.losses(net, batch)
