"""W-MSE: whiten the embeddings, then match the views."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor

from skssl.losses import w_mse
from skssl.methods.base import SSLTransformer
from skssl.methods.settings import Settings
from skssl.nn.distributed import all_gather, shared_randperm
from skssl.nn.heads import MLP
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class WMSE(SSLTransformer):
    """W-MSE: the mean squared error of whitened embeddings of the views of an image.

    Whitening scatters the embeddings of a batch over all directions, which prevents collapse without negatives and
    without a momentum copy.

    Parameters
    ----------
    n_views : int, default=2
        Views of an image, all pairs of which are compared: 2 or 4 in the authors' code.
    whitening_size : int, default=128
        Images that are whitened together, twice `proj_dim` in the authors' code. The batch is divided at random into
        as many groups of at least this size as it has; the few images that remain are left out of the step.
    whitening_iterations : int, default=1
        Random divisions of the batch over whose losses the mean is taken. The authors' code has 4 for two views on
        STL-10.
    whitening_eps : float, default=1e-4
        Share of the identity in the covariance matrix: 0 in the authors' code, whose groups are large enough.
    hidden_dim : int, default=1024
        Width of the projector's hidden layer.
    proj_dim : int, default=64
        Width of the projector's output.

    References
    ----------
    Ermolov et al., Whitening for Self-Supervised Representation Learning, ICML 2021. The widths, the group size and the
    optimiser's settings are solo-learn's for CIFAR, where AdamW replaces Adam; the authors' rate is 0.003. The
    covariance matrix is that of a group of the whole batch over all devices.

    Examples
    --------
    >>> from skssl import WMSE
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> small = {"backbone": "convnet", "hidden_dim": 64, "proj_dim": 8, "whitening_size": 16}
    >>> encoder = WMSE(**small, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 128)
    """

    n_views: int = 2
    whitening_size: int = 128
    whitening_iterations: int = 1
    whitening_eps: float = 1e-4
    hidden_dim: int = 1024
    proj_dim: int = 64

    default_settings: ClassVar[Settings] = Settings(
        augment="simsiam",  # on small images: crops of at least 0.2 of the area, and SimCLR's colours
        optimizer="adamw",
        lr=2e-3,
        weight_decay=1e-6,
        schedule="cosine",
        warmup=0.01,
        aux_weight=1.0,
    )
    _parameter_constraints: ClassVar[dict] = {
        **SSLTransformer._parameter_constraints,
        "n_views": [Interval(Integral, 2, 100, closed="both")],
        "whitening_size": [Interval(Integral, 2, None, closed="left")],
        "whitening_iterations": [Interval(Integral, 1, 100, closed="both")],
        "whitening_eps": [Interval(Real, 0, 1, closed="both")],
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
        "proj_dim": [Interval(Integral, 1, None, closed="left")],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        net.projector = MLP((dim, self.hidden_dim, self.proj_dim))

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        # BatchNorm sees one view at a time in the encoder, and all views in the projector.
        projections = net.projector(torch.cat([net.encoder(view) for view in batch.views])).chunk(len(batch.views))
        z = torch.stack([all_gather(projection) for projection in projections])  # (views, n, d)
        groups = max(1, z.shape[1] // self.whitening_size)
        losses = []
        for _ in range(self.whitening_iterations):
            rows = shared_randperm(z.shape[1], z.device)[: z.shape[1] // groups * groups]
            losses.append(w_mse(z[:, rows], groups, self.whitening_eps))
        return {"w_mse": torch.stack(losses).mean()}
