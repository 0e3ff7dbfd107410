"""BYOL: predict what a slow copy of the network makes of the other view."""

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
from skssl.methods.siamese import Siamese
from skssl.methods.simsiam import SimSiam
from skssl.nn.heads import MLP
from skssl.training.objective import Objective


@dataclass(kw_only=True, eq=False, repr=False)
class MomentumSiamese(Siamese, MomentumMethod):
    """A Siamese method whose targets come from a momentum copy of encoder and projector; abstract."""

    ema_schedule: str = "cosine"

    _parameter_constraints: ClassVar[dict] = {**Siamese._parameter_constraints, **MomentumMethod._parameter_constraints}

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Add the momentum copy to the heads."""
        Siamese.build(self, net, dim, n_samples)
        MomentumMethod.build(self, net, dim, n_samples)

    @torch.no_grad()
    def targets(self, net: Objective, views: list[Tensor], projections: list[Tensor]) -> list[Tensor]:
        """Return the momentum copy's projections."""
        return [net.target(view) for view in views]


@dataclass(kw_only=True, eq=False, repr=False)
class BYOL(MomentumSiamese):
    """BYOL: an online network predicts the projections of its own slowly following copy.

    Parameters
    ----------
    hidden_dim : int, default=4096
        Width of the projector's hidden layer.
    proj_dim : int, default=256
        Width of the projector's output.
    proj_layers : int, default=2
        Its layers.
    pred_dim : int, default=4096
        Width of the predictor's hidden layer.
    predictor : bool, default=True
        Whether there is one.
    ema_momentum : float, default=0.99
        What the copy keeps of itself in a step, at the start. On small data sets and in short trainings less is
        better: EffSSL has 0.95 on CIFAR-10 and 0.85 on CIFAR-100 in 200 epochs.
    ema_schedule : {"cosine", "constant"}, default="cosine"
        Whether it rises to 1 by the training's end or stays.
    stop_gradient : {"symmetric", "guided", "random", "reverse"}, default="symmetric"
        Which view of a pair gets no gradient: each in turn, or as in `BYOLGSG`.
    pairing : {"fresh", "shared"}, default="fresh"
        As in `BYOLGSG`; not used by the symmetric form.

    References
    ----------
    Grill et al., Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning, NeurIPS 2020. The copy starts
    with the online weights (the reference code draws others). The loss is on the paper's scale, 0 to 8; the other forms
    are on that of `BYOLGSG`, -1 to 1, a quarter of it, which `lr` and `aux_weight` are to make up for. Learning rate
    and weight decay are ours for momentum SGD on small images; the paper has LARS with 0.2 for a batch of 256, and
    1.5e-6.

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
        aux_weight=5.0,
    )
    _parameter_constraints: ClassVar[dict] = {
        **MomentumSiamese._parameter_constraints,
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
    }

    def heads(self, dim: int) -> tuple[nn.Module, nn.Module]:
        """Make BYOL's heads: BatchNorm on the hidden layers only, no bias at the end."""
        projector = MLP((dim, *[self.hidden_dim] * (self.proj_layers - 1), self.proj_dim), bias=False)
        return projector, MLP((self.proj_dim, self.pred_dim, self.proj_dim), bias=False)

    def symmetric(self, p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:  # noqa: D102
        return {"byol": byol_loss(p1, p2, z1, z2)}


@dataclass(kw_only=True, eq=False, repr=False)
class BYOLGSG(MomentumSiamese):
    """BYOL with guided stop-gradient: of two images, the two nearest views are pulled apart.

    As in `SimSiamGSG`, whose heads it has; the projections that are compared and predicted are the momentum copy's.

    Parameters
    ----------
    proj_dim : int, default=2048
        Width of the projector, hidden and output.
    proj_layers : int, default=2
        Its layers: 2 on CIFAR, 3 on ImageNet.
    pred_dim : int, default=512
        Width of the predictor's hidden layer. Its learning rate stays constant.
    predictor : bool, default=True
        Whether there is one.
    ema_momentum : float, default=0.99
        What the copy keeps of itself in a step.
    ema_schedule : {"constant", "cosine"}, default="constant"
        Whether it stays or rises to 1 by the training's end.
    stop_gradient : {"guided", "random", "reverse", "symmetric"}, default="guided"
        The paper's variants: by chance, the siblings of the nearest two as sources, or its baseline, in which each view
        is predicted from the other. All are on one scale, -1 to 1, a quarter of BYOL's.
    pairing : {"fresh", "shared"}, default="fresh"
        Whether an image has two further views of its own as the second of a pair (four in all, as in the reference
        code), or the same two (half the cost).

    References
    ----------
    Lee and Lee, Implicit Contrastive Representation Learning with Guided Stop-gradient, NeurIPS 2023, section 4; the
    momentum of 0.99 is that of its ImageNet runs.

    Examples
    --------
    >>> from skssl import BYOLGSG
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = BYOLGSG(backbone="convnet", proj_dim=64, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 128)
    """

    stop_gradient: str = "guided"
    ema_schedule: str = "constant"

    default_settings: ClassVar[Settings] = replace(SimSiam.default_settings, augment="gsg-cifar10")
    unscheduled: ClassVar[tuple[str, ...]] = ("predictor",)
