"""What the methods with a slowly following copy of the network share."""

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
    """A method whose keys, targets or teachers come from a momentum copy of encoder and projector; abstract."""

    ema_momentum: float = 0.99
    ema_schedule: str = "constant"

    #: The parts of the net that the copy has, in their order.
    ema_modules: ClassVar[tuple[str, ...]] = ("encoder", "projector")

    _parameter_constraints: ClassVar[dict] = {
        **SSLTransformer._parameter_constraints,
        "ema_momentum": [Interval(Real, 0, 1, closed="both")],
        "ema_schedule": [StrOptions({"cosine", "constant"})],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Put the copy, ``net.target``, on a net that has its heads already."""
        net.target = momentum_copy(nn.Sequential(*self.parts(net)))

    def parts(self, net: Objective) -> list[nn.Module]:
        """Return what the copy follows."""
        return [getattr(net, name) for name in self.ema_modules]

    def after_step(self, net: Objective, step: int, progress: float) -> None:
        """Let the copy follow; its momentum rises to 1 along a cosine, or is constant."""
        end = 1.0 if self.ema_schedule == "cosine" else self.ema_momentum
        momentum = cosine_schedule(self.ema_momentum, end, progress)
        update_momentum(nn.ModuleList(self.parts(net)), net.target, momentum)
