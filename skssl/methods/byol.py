"""BYOL: predict the projection that a momentum copy computes from the other view."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral
from typing import ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn

from skssl.losses import byol_loss
from skssl.methods.momentum import MomentumMethod
from skssl.methods.settings import Settings
from skssl.methods.siamese import GuidedSiamese, Siamese
from skssl.methods.simsiam import SimSiam
from skssl.nn.heads import MLP
from skssl.training.objective import Objective


@dataclass(kw_only=True, eq=False, repr=False)
class MomentumSiamese(Siamese, MomentumMethod):
    """A Siamese method whose targets are the projections of a momentum copy; abstract."""

    ema_schedule: str = "cosine"

    _parameter_constraints: ClassVar[dict] = {**Siamese._parameter_constraints, **MomentumMethod._parameter_constraints}

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Add the heads and the momentum copy."""
        Siamese.build(self, net, dim, n_samples)
        MomentumMethod.build(self, net, dim, n_samples)

    @torch.no_grad()
    def targets(self, net: Objective, views: list[Tensor], projections: list[Tensor]) -> list[Tensor]:
        """Return the momentum copy's projections."""
        return [net.target(view) for view in views]


@dataclass(kw_only=True, eq=False, repr=False)
class BYOL(MomentumSiamese):
    """BYOL: predict the projections of a momentum copy of the network, without negatives.

    An online network predicts, from one view, the projection that the momentum copy (the target network) computes from
    the other view.

    Parameters
    ----------
    hidden_dim : int, default=4096
        Width of the projector's hidden layers.
    proj_dim : int, default=256
        Width of the projector's output.
    proj_layers : int, default=2
        Layers of the projector.
    ema_momentum : float, default=0.99
        Momentum of the copy at the start. Lower values are better on small data sets and in short trainings: EffSSL
        uses 0.95 on CIFAR-10 and 0.85 on CIFAR-100 for 200 epochs.

    References
    ----------
    Grill et al., Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning, NeurIPS 2020. The copy starts
    with the online weights; the reference code initialises it separately. The loss has the paper's scale, 0 to 8,
    which is four times that of `BYOLGSG`. The learning rate and weight decay are ours for momentum SGD on small images;
    the paper uses LARS with 0.2 for a batch of 256 and 1.5e-6. The default of `aux_weight` is ours, too: EffSSL's
    weight of 5 makes the task unstable at this learning rate.

    Examples
    --------
    >>> from skssl import BYOL
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = BYOL(backbone="convnet", hidden_dim=64, pred_dim=64, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 128)
    """

    hidden_dim: int = 4096
    proj_dim: int = 256
    pred_dim: int = 4096

    default_settings: ClassVar[Settings] = Settings(
        augment="byol",
        optimizer="sgd",
        lr=0.1,
        weight_decay=5e-4,
        schedule="cosine",
        warmup=0.05,
        aux_weight=1.0,
    )
    _parameter_constraints: ClassVar[dict] = {
        **MomentumSiamese._parameter_constraints,
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
    }

    def heads(self, dim: int) -> tuple[nn.Module, nn.Module]:
        """Make BYOL's heads, with BatchNorm on the hidden layers only and no bias at the end."""
        projector = MLP((dim, *[self.hidden_dim] * (self.proj_layers - 1), self.proj_dim), bias=False)
        return projector, MLP((self.proj_dim, self.pred_dim, self.proj_dim), bias=False)

    def symmetric(self, p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:  # noqa: D102
        return {"byol": byol_loss(p1, p2, z1, z2)}


@dataclass(kw_only=True, eq=False, repr=False)
class BYOLGSG(GuidedSiamese, MomentumSiamese):
    """BYOL with guided stop-gradient, which repels images that are too near each other without negatives.

    The pairs, the heads and the predictor's constant learning rate are those of `SimSiamGSG`. The projections that are
    compared and predicted are the momentum copy's. All values of `stop_gradient` have one scale of the loss, -1 to 1, a
    quarter of BYOL's.

    References
    ----------
    Lee and Lee, Implicit Contrastive Representation Learning with Guided Stop-gradient, NeurIPS 2023, section 4. The
    momentum of 0.99 is that of its ImageNet experiments.

    Examples
    --------
    >>> from skssl import BYOLGSG
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = BYOLGSG(backbone="convnet", proj_dim=64, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 128)
    """

    ema_schedule: str = "constant"

    default_settings: ClassVar[Settings] = replace(SimSiam.default_settings, augment="gsg-cifar10")
    _parameter_constraints: ClassVar[dict] = {
        **MomentumSiamese._parameter_constraints,
        **GuidedSiamese._parameter_constraints,
    }
    unscheduled: ClassVar[tuple[str, ...]] = ("predictor",)
