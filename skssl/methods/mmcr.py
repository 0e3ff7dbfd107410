"""MMCR: views of an image share a direction, and the images' mean directions span all dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor

from skssl.losses import mmcr
from skssl.methods.base import SSLTransformer
from skssl.methods.settings import Settings
from skssl.nn.distributed import all_gather
from skssl.nn.heads import MLP
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class MMCR(SSLTransformer):
    """MMCR: maximum manifold capacity representations.

    The views of an image form a manifold, whose centroid is the mean of their normalised embeddings. The nuclear norm
    of a batch's centroids is maximised. It is large if the views of an image agree, which makes centroids long, and if
    the centroids of different images are orthogonal.

    Parameters
    ----------
    n_views : int, default=4
        Views of an image. The authors' code has 40 for batches of 32 on CIFAR, and 2 to 8 on ImageNet.
    lambd : float, default=0.0
        Weight of the nuclear norm of each image's views, which compresses the manifolds further; 0 in the authors' code
        for CIFAR.
    hidden_dim : int, default=512
        Width of the projector's hidden layer.
    proj_dim : int, default=128
        Width of the projector's output.

    References
    ----------
    Yerxa et al., Learning Efficient Coding of Natural Images with Maximum Manifold Capacity Representations, NeurIPS
    2023. The widths and the optimiser's settings are those of the authors' code for CIFAR-10, where AdamW replaces Adam
    and the rate is for 32 images of 40 views. The momentum copy of the code for ImageNet is left out. The nuclear norm
    is that of the whole batch over all devices.

    Examples
    --------
    >>> from skssl import MMCR
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = MMCR(backbone="convnet", hidden_dim=64, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 128)
    """

    n_views: int = 4
    lambd: float = 0.0
    hidden_dim: int = 512
    proj_dim: int = 128

    default_settings: ClassVar[Settings] = Settings(
        augment="simclr",
        optimizer="adamw",
        lr=1e-3,
        weight_decay=1e-6,
        schedule="cosine",
        warmup=0.05,
        aux_weight=1.0,
    )
    _parameter_constraints: ClassVar[dict] = {
        **SSLTransformer._parameter_constraints,
        "n_views": [Interval(Integral, 2, 100, closed="both")],
        "lambd": [Interval(Real, 0, None, closed="left")],
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
        "proj_dim": [Interval(Integral, 1, None, closed="left")],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        net.projector = MLP((dim, self.hidden_dim, self.proj_dim), bias=False)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        z = torch.stack(net.project(batch.views), dim=1)  # (n, views, d); BatchNorm sees all views at once
        return {"mmcr": mmcr(all_gather(z), self.lambd)}
