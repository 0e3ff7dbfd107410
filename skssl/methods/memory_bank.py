"""The base class of methods with a memory bank."""

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
    """A method that compares one view of each image with a memory bank of all images; abstract.

    Parameters
    ----------
    n_negatives : int, default=4096
        Negatives for each image, drawn from the bank with replacement, 32000 for PIRL on ImageNet.
    normalizer : {"batch", "first"}, default="batch"
        Normalising constant Z of the probabilities in noise-contrastive estimation. "batch" estimates it on each batch,
        "first" on the first batch, as in the papers' code. A fixed Z becomes too small as embeddings cluster, so
        negatives dominate.
    bank_momentum : float, default=0.5
        Share of an image's vector in the bank that is kept when the vector is updated.
    proj_dim : int, default=128
        Width of the embeddings.
    """

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
        """One view."""
        return 1

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Add the memory bank."""
        net.bank = MemoryBank(n_samples, self.proj_dim, self.bank_momentum, fixed_z=self.normalizer == "first")

    def nce(self, net: Objective, v: Tensor, index: Tensor, temperature: float) -> Tensor:
        """Compute the noise-contrastive loss of embeddings and their images' vectors in the bank."""
        return nce(net.bank.log_p(v, index, self.n_negatives, temperature), net.n_samples)
