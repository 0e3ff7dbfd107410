"""LeJEPA: views agree, and their embeddings are distributed as an isotropic Gaussian."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor

from skssl.augment.presets import MultiCrop
from skssl.losses import sigreg
from skssl.methods.base import SSLTransformer
from skssl.methods.settings import Settings
from skssl.nn.distributed import all_gather, broadcast
from skssl.nn.heads import MLP
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class LeJEPA(SSLTransformer):
    """LeJEPA: the views of an image agree, and the embeddings of a batch are an isotropic Gaussian (SIGReg).

    Each view is drawn to the mean embedding of the image's large views. A statistical test along random directions
    keeps the embeddings of each view near a standard Gaussian, which prevents collapse without a momentum copy, a
    stopped gradient or a predictor. With ``augment=MultiCrop(...)`` small views are trained beside the large ones. The
    history has the two terms with their weights applied.

    Parameters
    ----------
    n_views : int, default=4
        Views of an image, all of which are large. Not used with `MultiCrop`.
    lambd : float, default=0.05
        Weight of the Gaussian regularisation, in [0, 1]; that of the agreement is 1 - `lambd`. The paper tries 0.01
        to 0.1.
    n_directions : int, default=256
        Random directions of the test in a step, 1024 in the paper.
    hidden_dim : int, default=2048
        Width of the projector's two hidden layers.
    proj_dim : int, default=16
        Width of the projector's output.

    References
    ----------
    Balestriero and LeCun, LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics,
    arXiv:2511.08544. Widths, directions and the integral of the test, from 0 to 3 instead of from -5 to 5, are those of
    the authors' minimal example, in which the mean is that of all views. The learning rate is the authors' starting
    point, and the weight decay theirs for ResNets.

    Examples
    --------
    >>> from skssl import LeJEPA
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = LeJEPA(backbone="convnet", hidden_dim=64, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.history_.columns[:4].tolist()
    ['epoch', 'loss', 'invariance', 'sigreg']
    """

    n_views: int = 4
    lambd: float = 0.05
    n_directions: int = 256
    hidden_dim: int = 2048
    proj_dim: int = 16

    default_settings: ClassVar[Settings] = Settings(
        augment="simclr",
        optimizer="adamw",
        lr=5e-4,
        weight_decay=5e-4,
        schedule="cosine",
        warmup=0.05,
        aux_weight=1.0,
    )
    multi_crop: ClassVar[bool] = True
    _parameter_constraints: ClassVar[dict] = {
        **SSLTransformer._parameter_constraints,
        "n_views": [Interval(Integral, 2, 100, closed="both")],
        "lambd": [Interval(Real, 0, 1, closed="both")],
        "n_directions": [Interval(Integral, 1, None, closed="left")],
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
        "proj_dim": [Interval(Integral, 1, None, closed="left")],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        net.projector = MLP((dim, self.hidden_dim, self.hidden_dim, self.proj_dim))

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        n_global = self.augment.n_global if isinstance(self.augment, MultiCrop) else self.n_views
        z = torch.stack([all_gather(view) for view in net.project(batch.views)])  # (views, n, d)
        directions = broadcast(torch.randn(self.n_directions, self.proj_dim, dtype=z.dtype, device=z.device))
        invariance = (z - z[:n_global].mean(0)).square().mean()
        return {"invariance": (1 - self.lambd) * invariance, "sigreg": self.lambd * sigreg(z, directions)}
