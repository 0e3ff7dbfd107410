"""DeepCluster: cluster the features and classify images into the clusters, in turn."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.augment.augmentation import Augmentation
from skssl.backbones import adapt_channels
from skssl.methods.base import SSLTransformer
from skssl.methods.settings import Settings
from skssl.nn.clustering import balanced_sample, k_means
from skssl.training.objective import Batch, Objective


def sobel_filter(module: nn.Module, args: tuple[Tensor]) -> Tensor:
    """Convert the images (n, c, h, w) that a module receives to grey and its two gradients, (n, 3, h, w)."""
    (images,) = args
    gray = images.mean(1, keepdim=True)  # equal weights, as in the reference code
    padded = F.pad(gray, (1, 1, 1, 1), mode="replicate")
    columns = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    rows = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    return torch.cat([gray, columns[..., 2:] - columns[..., :-2], rows[..., 2:, :] - rows[..., :-2, :]], dim=1)


@dataclass(kw_only=True, eq=False, repr=False)
class DeepCluster(SSLTransformer):
    """DeepCluster: the clusters of the images' features are the classes of the next epoch.

    Before every epoch, the features of all images are whitened, normalised and clustered by k-means. Since the
    numbering of the clusters changes, the top layer is initialised again, and its momentum is reset. The epoch samples
    the same number of images from each cluster, with repetition in small clusters, so that large clusters do not
    dominate. "nmi" in `history_` is the normalised mutual information with the clusters of the previous epoch. It grows
    as the clusters become stable, and is 0 in the first epoch.

    Parameters
    ----------
    n_clusters : int, default=100
        Number of clusters, at most the number of images. The paper has 10,000 on ImageNet, ten times the classes.
    n_components : int, default=16
        Principal components that are clustered, at most the number of features and less than the number of images. The
        paper has 256 of 4096. Fewer are better on a few thousand small images.
    kmeans_iterations : int, default=20
        Maximum number of iterations of k-means.
    sobel : bool, default=True
        Whether the encoder receives grey and its two gradients instead of the channels, so that images are not
        clustered by colour. `encoder_` has a hook that applies the filter; its ``state_dict`` does not hold the hook.
        The paper uses the gradients without grey.

    References
    ----------
    Caron et al., Deep Clustering for Unsupervised Learning of Visual Features, ECCV 2018. The paper clusters AlexNet's
    last hidden layer before its ReLU; here the pooled features that `transform` returns are clustered. The paper trains
    the top layer with a separate optimiser without momentum; here it has the common optimiser. The learning rate is
    ours for small images; the paper has 0.05.

    Examples
    --------
    >>> from skssl import DeepCluster
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = DeepCluster(n_clusters=8, backbone="convnet", epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 128)
    """

    n_clusters: int = 100
    n_components: int = 16
    kmeans_iterations: int = 20
    sobel: bool = True

    default_settings: ClassVar[Settings] = Settings(
        augment=Augmentation(jitter=0.0, gray=0.0),
        optimizer="sgd",
        lr=0.8,
        weight_decay=1e-5,
        schedule="constant",
        warmup=0.0,
        aux_weight=1.0,
    )
    per_image: ClassVar[bool] = True
    reset_each_epoch: ClassVar[tuple[str, ...]] = ("top_layer",)
    _parameter_constraints: ClassVar[dict] = {
        **SSLTransformer._parameter_constraints,
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "kmeans_iterations": [Interval(Integral, 1, None, closed="left")],
        "sobel": ["boolean"],
    }

    @property
    def n_views(self) -> int:
        """One view."""
        return 1

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        net.top_layer = nn.Linear(dim, min(self.n_clusters, n_samples))
        net.register_buffer("assignment", torch.zeros(n_samples, dtype=torch.long))
        net.register_buffer("nmi", torch.zeros(()))
        if self.sobel:
            adapt_channels(net.encoder, 3)
            net.encoder.register_forward_pre_hook(sobel_filter)

    @torch.no_grad()
    def before_epoch(self, net: Objective, epoch: int, encode: Callable[[nn.Module], Tensor]) -> Tensor:
        """Cluster the features, initialise the top layer, and sample the epoch's images."""
        from sklearn.decomposition import PCA
        from sklearn.metrics import normalized_mutual_info_score

        features = encode(net.encoder).cpu().numpy()
        n_components = min(self.n_components, net.dim, len(features) - 1)
        white = PCA(n_components, whiten=True, svd_solver="covariance_eigh").fit_transform(features)
        x = F.normalize(torch.from_numpy(white), dim=1)
        _, label = k_means(x, net.top_layer.out_features, self.kmeans_iterations)
        with warnings.catch_warnings():  # scikit-learn before 1.9 warns of more clusters than half the images
            warnings.simplefilter("ignore", UserWarning)
            net.nmi.fill_(normalized_mutual_info_score(net.assignment.cpu().numpy(), label.numpy()))
        net.assignment.copy_(label)
        nn.init.normal_(net.top_layer.weight, std=0.01)
        nn.init.zeros_(net.top_layer.bias)
        return balanced_sample(label)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        scores = net.top_layer(net.encoder(batch.views[0])).float()  # (n, n_clusters)
        label = net.assignment.index_select(0, batch.index)
        accuracy = (scores.argmax(1) == label).float().mean()
        return {"deepcluster": F.cross_entropy(scores, label), "cluster_accuracy": accuracy, "nmi": net.nmi}
