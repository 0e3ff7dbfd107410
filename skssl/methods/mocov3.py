"""MoCo v3: contrast a prediction with the keys of a momentum copy, with negatives from the batch."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor

from skssl.backbones.vit import require_vit
from skssl.losses import info_nce
from skssl.methods.momentum import MomentumMethod
from skssl.methods.settings import Settings
from skssl.nn.distributed import all_gather
from skssl.nn.heads import MLP
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class MoCoV3(MomentumMethod):
    """MoCo v3: contrastive learning with a momentum encoder and a predictor, and without a queue.

    The prediction from one view is compared with the keys of the other view, which come from a momentum copy of the
    encoder and the projector. The keys of the other images of the batch are the negatives, so the batch should be
    large.

    Parameters
    ----------
    temperature : float, default=0.2
        Temperature of the softmax over similarities: solo-learn's value for CIFAR and the paper's for vision
        transformers; 1 in the authors' code for ResNets.
    hidden_dim : int, default=4096
        Width of the hidden layers of the projector and the predictor.
    proj_dim : int, default=256
        Width of the projector's and the predictor's output.
    proj_layers : int, default=2
        Layers of the projector: 2 for ResNets, 3 for vision transformers.
    freeze_patches : bool, default=False
        Whether the first layer of a vision transformer, which projects the patches, keeps its random weights. The paper
        does so, because the training is then more stable. It requires one of skssl's vision transformers as `backbone`.
    ema_momentum : float, default=0.99
        Momentum of the copy at the start, 0.996 in the longest training on ImageNet.

    References
    ----------
    Chen et al., An Empirical Study of Training Self-Supervised Vision Transformers, ICCV 2021, equation 1 and algorithm
    1. The loss is the sum over both directions times twice the temperature, as in the authors' code. All layers of the
    heads have BatchNorm and no biases; the last ones have no scale and shift, as in the code. The momentum copy is
    updated after the optimiser's step; the code updates it before it computes the keys. The views are BYOL's. The
    learning rate and weight decay are ours for momentum SGD on small images; the paper uses LARS with 0.3 for a batch
    of 256 and 1e-6 for ResNets.

    Examples
    --------
    >>> from skssl import MoCoV3
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = MoCoV3(backbone="convnet", hidden_dim=64, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 128)
    """

    temperature: float = 0.2
    hidden_dim: int = 4096
    proj_dim: int = 256
    proj_layers: int = 2
    freeze_patches: bool = False
    ema_schedule: str = "cosine"

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
        **MomentumMethod._parameter_constraints,
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
        "proj_dim": [Interval(Integral, 1, None, closed="left")],
        "proj_layers": [Interval(Integral, 1, 100, closed="both")],
        "freeze_patches": ["boolean"],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Add the projector, the predictor and the momentum copy; freeze the first layer."""
        if self.freeze_patches:
            require_vit(net.encoder, "MoCoV3(freeze_patches=True)").conv_proj.requires_grad_(False)
        net.projector = MLP((dim, *[self.hidden_dim] * (self.proj_layers - 1), self.proj_dim), output_norm=True)
        net.predictor = MLP((self.proj_dim, self.hidden_dim, self.proj_dim), output_norm=True)
        super().build(net, dim, n_samples)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        # BatchNorm sees one view at a time.
        q1, q2 = (all_gather(net.predictor(net.projector(net.encoder(view)))) for view in batch.views)
        with torch.no_grad():
            k1, k2 = (all_gather(net.target(view)) for view in batch.views)
        loss = info_nce(q1, k2, None, self.temperature) + info_nce(q2, k1, None, self.temperature)
        return {"info_nce": 2 * self.temperature * loss}
