"""MSN: match the prototypes of a masked view with those of a whole view."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.backbones.transformers import VisionTransformer
from skssl.losses import msn_terms, prototype_scores, sinkhorn
from skssl.methods.momentum import MomentumMethod
from skssl.methods.settings import Settings
from skssl.nn.distributed import all_gather
from skssl.nn.heads import MLP
from skssl.nn.precision import autocast_for
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class MSN(MomentumMethod):
    """MSN: masked Siamese networks.

    The first view is the target: a momentum copy assigns it to prototypes. The other views are the anchors, which
    predict this assignment. A vision transformer sees only some of the patches of an anchor, which also makes the step
    cheaper. Other encoders see whole anchors. The mean prediction is kept near the uniform distribution, which prevents
    collapse. With ``augment=MultiCrop(...)`` the small crops are anchors, too. The history has the two terms with their
    weights applied.

    Parameters
    ----------
    mask_ratio : float, default=0.15
        Share of the patches of each anchor that a vision transformer does not see: the authors' value for ViT-S. Larger
        networks have larger ones.
    n_prototypes : int, default=1024
        Number of prototypes.
    temperature : float, default=0.1
        Temperature of the softmax over an anchor's similarities to the prototypes.
    target_temperature : float, default=0.025
        Temperature of the targets: 0.1, sharpened by 0.25 in the paper.
    me_max_weight : float, default=1.0
        Weight of the entropy of the mean prediction (mean entropy maximisation).
    sinkhorn_iterations : int, default=3
        Iterations of the Sinkhorn algorithm on the targets; 0 leaves them as they are, which is the paper's basic form.
    hidden_dim : int, default=2048
        Width of the projector's two hidden layers.
    proj_dim : int, default=256
        Width of the projector's output.
    ema_momentum : float, default=0.99
        Momentum of the copy at the start. The paper has 0.996 for far more steps.

    References
    ----------
    Assran et al., Masked Siamese Networks for Label-Efficient Learning, ECCV 2022. Prototypes, temperatures, weights
    and widths are those of the authors' code for ViT-S, where the weight decay of 0.04 rises to 0.4. Assignments are
    those of the whole batch over all devices.

    Examples
    --------
    >>> from skssl import MSN
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> small = {"backbone": "vit_micro", "n_prototypes": 64, "hidden_dim": 64, "epochs": 1, "batch_size": 32}
    >>> encoder = MSN(**small, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 96)
    """

    mask_ratio: float = 0.15
    n_prototypes: int = 1024
    temperature: float = 0.1
    target_temperature: float = 0.025
    me_max_weight: float = 1.0
    sinkhorn_iterations: int = 3
    hidden_dim: int = 2048
    proj_dim: int = 256
    ema_schedule: str = "cosine"

    default_settings: ClassVar[Settings] = Settings(
        augment="simclr",
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.04,
        schedule="cosine",
        warmup=0.05,
        aux_weight=1.0,
    )
    multi_crop: ClassVar[bool] = True
    _parameter_constraints: ClassVar[dict] = {
        **MomentumMethod._parameter_constraints,
        "mask_ratio": [Interval(Real, 0, 1, closed="left")],
        "n_prototypes": [Interval(Integral, 2, None, closed="left")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "target_temperature": [Interval(Real, 0, None, closed="neither")],
        "me_max_weight": [Interval(Real, 0, None, closed="left")],
        "sinkhorn_iterations": [Interval(Integral, 0, 100, closed="both")],
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
        "proj_dim": [Interval(Integral, 1, None, closed="left")],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Add the projector, the prototypes and the momentum copy."""
        net.projector = MLP((dim, self.hidden_dim, self.hidden_dim, self.proj_dim), activation=nn.GELU)
        net.prototypes = nn.Parameter(F.normalize(torch.randn(self.n_prototypes, self.proj_dim), dim=1))
        super().build(net, dim, n_samples)

    def encode(self, net: Objective, view: Tensor) -> Tensor:
        """Encode an anchor: a vision transformer sees a random part of its patches."""
        with autocast_for(view):  # small crops may be too small for a CPU's bfloat16
            if not isinstance(net.encoder, VisionTransformer) or not self.mask_ratio:
                return net.encoder(view)
            rows, columns = net.encoder.grid_of(*view.shape[2:])
            kept = max(1, round(rows * columns * (1 - self.mask_ratio)))
            visible = torch.rand(len(view), rows * columns, device=view.device).argsort(1)[:, :kept]
            tokens = net.encoder.tokens(view, visible)
        return tokens[:, 1:].mean(1) if net.encoder.pool == "mean" else tokens[:, 0]

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        target, *anchors = batch.views
        prototypes = F.normalize(net.prototypes, dim=1)
        z = net.projector(torch.cat([self.encode(net, view) for view in anchors])).chunk(len(anchors))
        scores = torch.stack([prototype_scores(all_gather(view), prototypes) for view in z])  # (anchors, n, k)
        with torch.no_grad():
            similarity = prototype_scores(all_gather(net.target(target)), prototypes) / self.target_temperature
            if self.sinkhorn_iterations:
                targets = sinkhorn(similarity.log_softmax(1), 1.0, self.sinkhorn_iterations)
            else:
                targets = similarity.softmax(1)
        cross_entropy, me_max = msn_terms(scores, targets, self.temperature)
        return {"msn": cross_entropy, "me_max": self.me_max_weight * me_max}
