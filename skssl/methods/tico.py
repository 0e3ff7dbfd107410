"""TiCo: match a momentum copy, and penalise embeddings along the directions that past batches used."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor

from skssl.losses import tico, tico_covariance
from skssl.methods.momentum import MomentumMethod
from skssl.methods.settings import Settings
from skssl.nn.distributed import all_gather
from skssl.nn.heads import MLP
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class TiCo(MomentumMethod):
    """TiCo: transformation invariance and covariance contrast.

    The embedding of the first view matches that of the second view by a momentum copy. A moving average of the
    embeddings' covariance matrix acts as an unlimited memory bank: embeddings along its large directions are penalised.
    No predictor is needed. The history has the two terms with their weights applied.

    Parameters
    ----------
    rho : float, default=20.0
        Weight of the covariance term.
    beta : float, default=0.9
        Share of the covariance matrix that is kept in a step.
    hidden_dim : int, default=4096
        Width of the projector's hidden layer.
    proj_dim : int, default=256
        Width of the projector's output.
    ema_momentum : float, default=0.99
        Momentum of the copy at the start.

    References
    ----------
    Zhu et al., TiCo: Transformation Invariance and Covariance Contrast for Self-Supervised Visual Representation
    Learning, 2022. `rho` and `beta` are those of lightly and of the unofficial implementation by S. Nag, which names 8
    as the paper's `rho`. As in that implementation, embeddings are normalised without centring, and only one view is
    trained in a step; lightly centres them over the batch. The learning rate and weight decay are ours for momentum SGD
    on small images.

    Examples
    --------
    >>> from skssl import TiCo
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = TiCo(backbone="convnet", hidden_dim=64, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.history_.columns[:4].tolist()
    ['epoch', 'loss', 'invariance', 'covariance']
    """

    rho: float = 20.0
    beta: float = 0.9
    hidden_dim: int = 4096
    proj_dim: int = 256
    ema_schedule: str = "cosine"

    default_settings: ClassVar[Settings] = Settings(
        augment="byol",
        optimizer="sgd",
        lr=0.3,
        weight_decay=5e-4,
        schedule="cosine",
        warmup=0.05,
        aux_weight=1.0,
    )
    _parameter_constraints: ClassVar[dict] = {
        **MomentumMethod._parameter_constraints,
        "rho": [Interval(Real, 0, None, closed="left")],
        "beta": [Interval(Real, 0, 1, closed="left")],
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
        "proj_dim": [Interval(Integral, 1, None, closed="left")],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Add the projector, the covariance matrix and the momentum copy."""
        net.projector = MLP((dim, self.hidden_dim, self.proj_dim))
        net.register_buffer("covariance", torch.zeros(self.proj_dim, self.proj_dim))
        super().build(net, dim, n_samples)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        first, second = batch.views
        z1 = all_gather(net.projector(net.encoder(first)))
        with torch.no_grad():
            z2 = all_gather(net.target(second))
        covariance = tico_covariance(z1, net.covariance, self.beta)
        invariance, contrast = tico(z1, z2, covariance)
        net.covariance.copy_(covariance.detach())
        return {"invariance": invariance, "covariance": self.rho * contrast}
