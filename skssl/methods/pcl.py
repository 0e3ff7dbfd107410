"""PCL: MoCo, and a contrastive loss with the centres of clusters."""

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
    """One clustering of the training images: centres, concentrations and the cluster of each image."""

    centers: Tensor
    concentration: Tensor
    assignment: Tensor

    def __init__(self, n_clusters: int, dim: int, n_samples: int) -> None:
        super().__init__()
        self.register_buffer("centers", torch.zeros(n_clusters, dim))
        self.register_buffer("concentration", torch.ones(n_clusters))
        self.register_buffer("assignment", torch.zeros(n_samples, dtype=torch.long))

    def update(self, z: Tensor, temperature: float) -> None:
        """Cluster the embeddings (n_samples, d), which have unit length."""
        centers, assignment = k_means(z, len(self.centers), n_iterations=20)
        self.concentration.copy_(concentration(z, centers, assignment, temperature))
        self.centers.copy_(F.normalize(centers, dim=1))
        self.assignment.copy_(assignment)


@dataclass(kw_only=True, eq=False, repr=False)
class PCL(QueueMethod):
    """PCL: contrastive learning of images, as in MoCo, and of images with cluster centres (prototypes).

    Before every epoch, the momentum copy's embeddings of all images are clustered several times. Each query is
    contrasted with the centre of its cluster against other centres, at the temperature (concentration) of each cluster.

    Parameters
    ----------
    n_clusters : int or tuple of int, default=(250, 500, 1000)
        Clusters in each clustering, at most one for every two training images. The paper has 25000, 50000 and 100000 on
        ImageNet.
    instance_epochs : int, default=None
        Number of first epochs that train without clusters. None is a tenth of `epochs`, as in the paper (20 of 200).
    temperature : float, default=0.2
        Temperature of the softmax over keys, and the mean of the clusters' temperatures. Version 1 has 0.1.
    queue_size : int, default=4096
        Past keys that serve as negatives, 16384 on ImageNet. At most a quarter of the training images. Also the maximum
        number of negative prototypes, as in the reference code.

    References
    ----------
    Li et al., Prototypical Contrastive Learning of Unsupervised Representations, ICLR 2021, equations 11 and 12 and
    algorithm 1. As in the reference code, the images that are clustered are not augmented, and a centre is counted once
    for each image of its cluster in the batch. The reference code takes the best of 5 runs of k-means in faiss; here
    scikit-learn's k-means runs once.

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
                "The 'n_clusters' parameter of PCL must be an int in the range [1, inf) or a sequence of them. "
                f"Got {self.n_clusters!r} instead."
            )
        super().build(net, dim, n_samples)
        net.clusters = nn.ModuleList(
            Clusters(max(1, min(int(k), n_samples // 2)), self.proj_dim, n_samples) for k in numbers
        )
        net.register_buffer("clustered", torch.zeros(()))

    def before_epoch(self, net: Objective, epoch: int, encode: Callable[[nn.Module], Tensor]) -> None:
        """Cluster the momentum copy's embeddings of all training images."""
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
        # Before the first clustering the second loss and its gradient are 0.
        return {
            "info_nce": self.contrast(net, [q], [k]),
            "proto_nce": net.clustered * torch.stack(terms).mean(),
        }
