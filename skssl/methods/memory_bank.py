"""What the methods with a memory bank share."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar

from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from skssl.losses import nce
from skssl.methods.base import SSLTransformer
from skssl.nn.memories import MemoryBank
from skssl.training.objective import Objective


@dataclass(kw_only=True, eq=False, repr=False)
class MemoryBankMethod(SSLTransformer):
    """A method that compares one view of an image with a memory of every image; abstract."""

    n_negatives: int = 4096
    normalizer: str = "batch"
    bank_momentum: float = 0.5
    proj_dim: int = 128

    per_image: ClassVar[bool] = True
    _parameter_constraints: ClassVar[dict] = {
        **SSLTransformer._parameter_constraints,
        "n_negatives": [Interval(Integral, 1, None, closed="left")],
        "normalizer": [StrOptions({"batch", "first"})],
        "bank_momentum": [Interval(Real, 0, 1, closed="both")],
        "proj_dim": [Interval(Integral, 1, None, closed="left")],
    }

    @property
    def n_views(self) -> int:
        """One, of which all else is made."""
        return 1

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Put the bank on the net."""
        net.bank = MemoryBank(n_samples, self.proj_dim, self.bank_momentum, fixed_z=self.normalizer == "first")

    def nce(self, net: Objective, v: Tensor, index: Tensor, temperature: float) -> Tensor:
        """Tell embeddings' own memories from others."""
        return nce(net.bank.log_p(v, index, self.n_negatives, temperature), net.n_samples)
