"""Barlow Twins: the cross-correlation matrix of two views approaches the identity."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar

from sklearn.utils._param_validation import Interval
from torch import Tensor

from skssl.losses import barlow_twins
from skssl.methods.base import SSLTransformer
from skssl.methods.settings import Settings
from skssl.nn.distributed import all_gather
from skssl.nn.heads import MLP
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class BarlowTwins(SSLTransformer):
    """Barlow Twins: the cross-correlation matrix of the two views' projections approaches the identity.

    Parameters
    ----------
    lambd : float, default=0.0051
        Weight of the off-diagonal terms, which decorrelate the dimensions.
    loss_scale : float, default=0.1
        Factor of the loss, which is a sum over dimensions. 0.1 is solo-learn's value, 1 the paper's. The paper trains
        biases and normalisation layers at 1/40 of the other learning rate. ``loss_scale=0.024`` with 0.024 times the
        paper's weight decay has the same effect, because LARS cancels the scale for the other weights.
    proj_dim : int, default=2048
        Width of the projector's hidden and output layers, 8192 on ImageNet.
    proj_layers : int, default=3
        Layers of the projector.

    References
    ----------
    Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction, ICML 2021, equations 1 and 2 and
    section 2.2. Width, loss scale and weight decay are solo-learn's for CIFAR. The learning rate is ours: solo-learn
    uses 0.3 with a LARS whose trust coefficient is 20 times ours, the paper 0.2 in longer trainings. The correlation is
    computed over the whole batch on all devices.

    Examples
    --------
    >>> from skssl import BarlowTwins
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = BarlowTwins(backbone="convnet", proj_dim=64, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 128)
    """

    lambd: float = 0.0051
    loss_scale: float = 0.1
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
        "lambd": [Interval(Real, 0, None, closed="left")],
        "loss_scale": [Interval(Real, 0, None, closed="neither")],
        "proj_dim": [Interval(Integral, 1, None, closed="left")],
        "proj_layers": [Interval(Integral, 1, 100, closed="both")],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        net.projector = MLP((dim, *[self.proj_dim] * self.proj_layers), bias=False)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        # BatchNorm sees one view at a time.
        z1, z2 = (all_gather(net.projector(net.encoder(view))) for view in batch.views)
        return {"barlow_twins": self.loss_scale * barlow_twins(z1, z2, self.lambd)}
