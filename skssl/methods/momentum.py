"""The base class of methods with a momentum copy of the network."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from skssl.methods.base import SSLTransformer
from skssl.nn.momentum import cosine_schedule, momentum_copy, update_momentum
from skssl.training.objective import Objective


@dataclass(kw_only=True, eq=False, repr=False)
class MomentumMethod(SSLTransformer):
    """A method whose keys or targets come from a momentum copy of its networks; abstract.

    Parameters
    ----------
    ema_momentum : float, default=0.99
        Momentum of the copy: the share of its weights that it keeps in a step.
    ema_schedule : {"constant", "cosine", "linear"}, default="constant"
        Whether the momentum is constant, or rises to 1 along a cosine or linearly by the end of the training.
    """

    ema_momentum: float = 0.99
    ema_schedule: str = "constant"

    #: Names of the modules that have a momentum copy, in order.
    ema_modules: ClassVar[tuple[str, ...]] = ("encoder", "projector")

    _parameter_constraints: ClassVar[dict] = {
        **SSLTransformer._parameter_constraints,
        "ema_momentum": [Interval(Real, 0, 1, closed="both")],
        "ema_schedule": [StrOptions({"constant", "cosine", "linear"})],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Add the momentum copy, ``net.target``, of modules that are on the net already."""
        net.target = momentum_copy(nn.Sequential(*self.parts(net)))

    def parts(self, net: Objective) -> list[nn.Module]:
        """Return the modules that have a momentum copy."""
        return [getattr(net, name) for name in self.ema_modules]

    def after_step(self, net: Objective, step: int, progress: float) -> None:
        """Update the momentum copy."""
        momentum = self.ema_momentum
        if self.ema_schedule == "cosine":
            momentum = cosine_schedule(self.ema_momentum, 1.0, progress)
        elif self.ema_schedule == "linear":
            momentum += (1 - self.ema_momentum) * progress
        update_momentum(nn.ModuleList(self.parts(net)), net.target, momentum)
