"""DenseCL: MoCo on whole images and on the cells of their feature maps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

from sklearn.utils._param_validation import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.backbones import feature_map, map_channels
from skssl.losses import dense_info_nce
from skssl.methods.queue import QueueMethod
from skssl.nn.distributed import all_gather
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class DenseCL(QueueMethod):
    """DenseCL: contrastive learning of whole images, as in MoCo, and of the cells of their feature maps.

    Each cell of the query's last feature map is matched with the most similar cell of the key's map, and contrasted
    with its embedding. A second queue holds the negatives: for each image, the mean of its cells' embeddings. The
    backbone must return a feature map, or pool it with ``nn.AdaptiveAvgPool2d``, as all named backbones do.

    Parameters
    ----------
    dense_weight : float, default=0.5
        Weight lambda of the dense loss, in [0, 1]. The loss of whole images has the weight 1 - lambda. At 1 the matches
        do not become meaningful, because the features are not trained to differ between images.
    proj_dim : int, default=128
        Width of the output of both projectors.
    proj_layers : int, default=2
        Layers of both projectors, with ReLU and without BatchNorm. The dense projector is applied to each cell.
    queue_size : int, default=4096
        Past keys in each of the two queues, 65536 on ImageNet. At most a quarter of the training images.

    References
    ----------
    Wang et al., Dense Contrastive Learning for Self-Supervised Visual Pre-Training, CVPR 2021, equations 2 to 4.
    Everything else is as in `MoCo`.

    Examples
    --------
    >>> from skssl import DenseCL
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = DenseCL(backbone="convnet", bn_splits=2, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.history_[["info_nce", "dense_info_nce"]].shape
    (1, 2)
    """

    dense_weight: float = 0.5

    ema_modules: ClassVar[tuple[str, ...]] = ("encoder", "projector", "dense_projector")
    _parameter_constraints: ClassVar[dict] = {
        **QueueMethod._parameter_constraints,
        "dense_weight": [Interval(Real, 0, 1, closed="both")],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        net.dense_projector = self.head(map_channels(net.encoder, net.shape))
        super().build(net, dim, n_samples)
        net.dense_queue = self.queue(n_samples)

    def outputs(self, parts: Iterable[nn.Module], images: Tensor) -> tuple[Tensor, ...]:
        """Return the embedding of each image, the embeddings of its cells, and its feature map."""
        encoder, projector, dense_projector = parts
        features, grid = feature_map(encoder, images)
        cells = dense_projector(grid.movedim(1, 3)).movedim(3, 1)  # a linear layer on each cell is a 1x1 convolution
        return projector(features), cells, grid

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        q, q_cells, q_map = self.queries(net, batch.views[0])
        k, k_cells, k_map = self.keys(net, batch.views[1])
        dense = dense_info_nce(q_cells, k_cells, q_map, k_map, net.dense_queue.items, self.temperature)
        net.dense_queue.push(all_gather(F.normalize(k_cells.float().mean((2, 3)), dim=1)))
        return {
            "info_nce": (1 - self.dense_weight) * self.contrast(net, [q], [k]),
            "dense_info_nce": self.dense_weight * dense,
        }
