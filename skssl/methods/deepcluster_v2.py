"""DeepCluster-v2: cluster the embeddings of the last epoch, and predict the clusters from every view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.losses import prototype_scores
from skssl.methods.base import SSLTransformer
from skssl.methods.settings import Settings
from skssl.nn.clustering import k_means
from skssl.nn.distributed import all_gather
from skssl.nn.heads import MLP
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class DeepClusterV2(SSLTransformer):
    """DeepCluster-v2: the centres of the clustered embeddings of an epoch are the prototypes of the next epoch.

    During an epoch, an embedding of each of the first two views of every image is stored. Before the next epoch, each
    head clusters the embeddings of one of the two views, in turn. Its prototypes are the normalised centres, which are
    not trained. Before the first epoch, the images are embedded without augmentation.

    Parameters
    ----------
    n_prototypes : int, default=100
        Clusters of each head, at most the number of images. The paper has 3000 on ImageNet.
    n_heads : int, default=3
        Number of heads, each with its own clustering.
    temperature : float, default=0.1
        Temperature of the softmax over a view's cosine similarities with the prototypes.
    kmeans_iterations : int, default=10
        Maximum number of iterations of k-means.
    hidden_dim : int, default=2048
        Width of the projector's hidden layer.
    proj_dim : int, default=128
        Width of the projector's output.

    References
    ----------
    Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, NeurIPS 2020, section 4.1
    and appendix. The small crops of ``augment=MultiCrop()`` only predict. The reference code runs spherical k-means,
    which normalises the centres in every iteration. Here scikit-learn's k-means runs on normalised embeddings, and the
    centres are normalised at the end, when each embedding is assigned to the prototype with the largest cosine
    similarity. Before that, wide clusters, whose centres are short, attract slightly more embeddings. k-means relocates
    empty clusters; a prototype that is empty after the normalisation is kept. An image that an epoch leaves out keeps
    its older embedding; in the reference code it has no target. The learning rate and weight decay are ours for
    momentum SGD on small images; the paper has LARC with 4.8 for a batch of 4096, and 1e-6.

    Examples
    --------
    >>> from skssl import DeepClusterV2
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> method = DeepClusterV2(n_prototypes=8, backbone="convnet", epochs=1, batch_size=32, random_state=0)
    >>> method.fit(X).transform(X).shape
    (64, 128)
    """

    n_prototypes: int = 100
    n_heads: int = 3
    temperature: float = 0.1
    kmeans_iterations: int = 10
    hidden_dim: int = 2048
    proj_dim: int = 128

    default_settings: ClassVar[Settings] = Settings(
        augment="simclr",
        optimizer="sgd",
        lr=0.03,
        weight_decay=5e-4,
        schedule="cosine",
        warmup=0.05,
        aux_weight=0.5,
    )
    per_image: ClassVar[bool] = True
    multi_crop: ClassVar[bool] = True
    _parameter_constraints: ClassVar[dict] = {
        **SSLTransformer._parameter_constraints,
        "n_prototypes": [Interval(Integral, 1, None, closed="left")],
        "n_heads": [Interval(Integral, 1, None, closed="left")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "kmeans_iterations": [Interval(Integral, 1, None, closed="left")],
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
        "proj_dim": [Interval(Integral, 1, None, closed="left")],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        net.projector = MLP((dim, self.hidden_dim, self.proj_dim))
        k = min(self.n_prototypes, n_samples)
        net.register_buffer("embeddings", torch.zeros(2, n_samples, self.proj_dim))
        net.register_buffer("prototypes", F.normalize(torch.randn(self.n_heads, k, self.proj_dim), dim=2))
        net.register_buffer("assignments", torch.zeros(self.n_heads, n_samples, dtype=torch.long))

    @torch.no_grad()
    def before_epoch(self, net: Objective, epoch: int, encode: Callable[[nn.Module], Tensor]) -> None:
        """Cluster the embeddings for each head."""
        if epoch == 0:
            net.embeddings.copy_(F.normalize(encode(nn.Sequential(net.encoder, net.projector)), dim=1))
        for head, (prototypes, assignment) in enumerate(zip(net.prototypes, net.assignments, strict=True)):
            embeddings = net.embeddings[head % 2]
            prototypes.copy_(F.normalize(k_means(embeddings, len(prototypes), self.kmeans_iterations)[0], dim=1))
            parts = [prototype_scores(part, prototypes).argmax(1) for part in embeddings.split(8192)]
            assignment.copy_(torch.cat(parts))

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        z = torch.stack(net.project(batch.views))  # (views, n, proj_dim)
        index = all_gather(batch.index)
        for embeddings, view in zip(net.embeddings, z.detach(), strict=False):
            embeddings.index_copy_(0, index, all_gather(F.normalize(view.float(), dim=1).to(embeddings.dtype)))
        scores = prototype_scores(z, net.prototypes.flatten(0, 1)).unflatten(2, net.prototypes.shape[:2])
        target = net.assignments[:, batch.index].T.expand(len(z), -1, -1)  # (views, n, n_heads)
        loss = F.cross_entropy(scores.flatten(0, 2) / self.temperature, target.flatten())
        return {"deepcluster": loss}
