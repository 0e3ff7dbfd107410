"""VICReg: the variance of every dimension is kept up by a term of its own, rather than by negatives or tricks."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar

from sklearn.utils._param_validation import Interval
from torch import Tensor

from skssl.losses import vicreg_terms
from skssl.methods.base import SSLTransformer
from skssl.methods.settings import Settings
from skssl.nn.distributed import all_gather
from skssl.nn.heads import MLP
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class VICReg(SSLTransformer):
    """VICReg: two views agree, every dimension varies over the batch, and no two dimensions vary together.

    The history has the three terms as they are weighed.

    Parameters
    ----------
    sim : float, default=25.0
        What the invariance weighs: the squared distance of the two views.
    var : float, default=25.0
        What the variance weighs: a hinge that keeps every dimension's deviation up to 1.
    cov : float, default=1.0
        What the covariance weighs: the squares of the dimensions' covariances.
    proj_dim : int, default=2048
        Width of the projector (the paper's expander), hidden and output; 8192 on ImageNet.
    proj_layers : int, default=3
        Its layers.

    References
    ----------
    Bardes et al., VICReg: Variance-Invariance-Covariance Regularization, ICLR 2022, equations 1 to 6; the terms are
    on the scale of the reference code, see `skssl.losses.vicreg_terms`. Width and weight decay are those of
    solo-learn's settings for CIFAR. The learning rate is ours: there it is 0.3 for a LARS with a trust coefficient 20
    times ours, and 0.2 in the paper's long trainings. Variance and covariance are those of the whole batch, which is on
    one device.

    Examples
    --------
    >>> from skssl import VICReg
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = VICReg(backbone="convnet", proj_dim=64, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.history_.columns[:5].tolist()
    ['epoch', 'loss', 'invariance', 'variance', 'covariance']
    """

    sim: float = 25.0
    var: float = 25.0
    cov: float = 1.0
    proj_dim: int = 2048
    proj_layers: int = 3

    default_settings: ClassVar[Settings] = Settings(
        augment="byol",
        optimizer="lars",
        lr=2.0,
        weight_decay=1e-4,
        schedule="cosine",
        warmup=0.1,
        aux_weight=1.0,
    )
    _parameter_constraints: ClassVar[dict] = {
        **SSLTransformer._parameter_constraints,
        **{name: [Interval(Real, 0, None, closed="left")] for name in ("sim", "var", "cov")},
        "proj_dim": [Interval(Integral, 1, None, closed="left")],
        "proj_layers": [Interval(Integral, 1, 100, closed="both")],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        net.projector = MLP((dim, *[self.proj_dim] * self.proj_layers), bias=False)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        # BatchNorm sees one view at a time.
        z1, z2 = (all_gather(net.projector(net.encoder(view))) for view in batch.views)
        invariance, variance, covariance = vicreg_terms(z1, z2)
        return {
            "invariance": self.sim * invariance,
            "variance": self.var * variance,
            "covariance": self.cov * covariance,
        }
