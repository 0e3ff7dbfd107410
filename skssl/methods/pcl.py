"""PCL: MoCo, and each image is drawn to the centre of its cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.losses import proto_nce
from skssl.methods.queue import QueueMethod
from skssl.nn.clustering import concentration, k_means
from skssl.nn.distributed import all_gather
from skssl.training.objective import Batch, Objective


class Clusters(nn.Module):
    """One clustering of the training images: centres, concentrations, and whose cluster each image is in."""

    centers: Tensor
    concentration: Tensor
    assignment: Tensor

    def __init__(self, n_clusters: int, dim: int, n_samples: int) -> None:
        super().__init__()
        self.register_buffer("centers", torch.zeros(n_clusters, dim))
        self.register_buffer("concentration", torch.ones(n_clusters))
        self.register_buffer("assignment", torch.zeros(n_samples, dtype=torch.long))

    def update(self, z: Tensor, temperature: float) -> None:
        """Cluster the embeddings (n_samples, d), of length one, anew."""
        centers, assignment = k_means(z, len(self.centers), n_iterations=20)
        self.concentration.copy_(concentration(z, centers, assignment, temperature))
        self.centers.copy_(F.normalize(centers, dim=1))
        self.assignment.copy_(assignment)


@dataclass(kw_only=True, eq=False, repr=False)
class PCL(QueueMethod):
    """PCL: as MoCo, and every query is contrasted with the centres of several clusterings, redone every epoch.

    Parameters
    ----------
    n_clusters : int or tuple of int, default=(250, 500, 1000)
        Clusters in each clustering, but no more than one for two training images. On ImageNet 25000, 50000, 100000.
    instance_epochs : int, default=None
        First epochs, in which there are no clusters yet. None is a tenth of `epochs`, as 20 are of the paper's 200.
    proj_dim : int, default=128
        Width of the projector's output.
    proj_layers : int, default=2
        Its layers: 2 as version 2, with a ReLU, biases and no BatchNorm; 1 as version 1.
    temperature : float, default=0.2
        Of the softmax over keys, and what the clusters' own are on average; version 1 has 0.1.
    queue_size : int, default=4096
        Keys that serve as negatives, 16384 on ImageNet, never more than a quarter of the training images; and, as in
        the reference code, how many centres do at most besides those of the batch.
    bn_splits : int, default=8
        Groups of the batch that BatchNorm normalises by themselves, as in `MoCo`.
    ema_momentum : float, default=0.99
        What the copy keeps of itself in a step; on ImageNet 0.999.
    ema_schedule : {"constant", "cosine"}, default="constant"
        Whether it stays or rises to 1 by the training's end.

    References
    ----------
    Li et al., Prototypical Contrastive Learning of Unsupervised Representations, ICLR 2021, equations 11 and 12 and
    algorithm 1. As in the reference code, clusters are those of whole images under the momentum copy, and a centre
    counts as often as the batch has images of its cluster; there k-means is faiss's, the best of 5.

    Examples
    --------
    >>> from skssl import PCL
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> pcl = PCL(backbone="convnet", n_clusters=(8, 16), bn_splits=2, epochs=1, batch_size=32, random_state=0)
    >>> pcl.fit(X).history_[["info_nce", "proto_nce"]].shape
    (1, 2)
    """

    n_clusters: int | tuple[int, ...] = (250, 500, 1000)
    instance_epochs: int | None = None

    per_image: ClassVar[bool] = True
    _parameter_constraints: ClassVar[dict] = {
        **QueueMethod._parameter_constraints,
        "n_clusters": [Integral, "array-like"],
        "instance_epochs": [Interval(Integral, 0, None, closed="left"), None],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        numbers: list[Any] = list(np.atleast_1d(self.n_clusters))
        if not (len(numbers) and all(isinstance(k, Integral) and int(k) >= 1 for k in numbers)):
            raise ValueError(
                "The 'n_clusters' parameter of PCL must be an int in the range [1, inf), or several. "
                f"Got {self.n_clusters!r} instead."
            )
        super().build(net, dim, n_samples)
        net.clusters = nn.ModuleList(
            Clusters(max(1, min(int(k), n_samples // 2)), self.proj_dim, n_samples) for k in numbers
        )
        net.register_buffer("clustered", torch.zeros(()))

    def before_epoch(self, net: Objective, epoch: int, encode: Callable[[nn.Module], Tensor]) -> None:
        """Cluster the copy's embeddings of all training images."""
        if epoch >= (self.epochs // 10 if self.instance_epochs is None else self.instance_epochs):
            net.clustered.fill_(1.0)
            z = F.normalize(encode(net.target), dim=1)
            for clusters in net.clusters:
                clusters.update(z, self.temperature)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        (q,), (k,) = self.queries(net, batch.views[0]), self.keys(net, batch.views[1])
        all_q, index = all_gather(q), all_gather(batch.index)
        terms = [
            proto_nce(all_q, c.centers, c.concentration, c.assignment[index], self.queue_size) for c in net.clusters
        ]
        # Without clusters the second is 0, and so is its gradient.
        return {
            "info_nce": self.contrast(net, [q], [k]),
            "proto_nce": net.clustered * torch.stack(terms).mean(),
        }
