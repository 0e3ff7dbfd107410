"""VICReg: regularise the variance and covariance of the embeddings instead of using negatives."""

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
    """VICReg: invariance of two views, variance of every dimension, and no covariance between dimensions.

    The history has the three terms with their weights applied.

    Parameters
    ----------
    sim : float, default=25.0
        Weight of the invariance term: the squared distance of the two views.
    var : float, default=25.0
        Weight of the variance term: a hinge that keeps the standard deviation of every dimension at 1 or more.
    cov : float, default=1.0
        Weight of the covariance term: the squared covariances of the dimensions.
    proj_dim : int, default=2048
        Width of the hidden and output layers of the projector, the paper's expander; 8192 on ImageNet.
    proj_layers : int, default=3
        Layers of the projector.

    References
    ----------
    Bardes et al., VICReg: Variance-Invariance-Covariance Regularization, ICLR 2022, equations 1 to 6. The terms have
    the scale of the reference code, see `skssl.losses.vicreg_terms`. Width and weight decay are solo-learn's for CIFAR.
    The learning rate is ours: solo-learn uses 0.3 with a LARS whose trust coefficient is 20 times ours, the paper 0.2
    in longer trainings. Variance and covariance are computed over the whole batch on all devices.

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
