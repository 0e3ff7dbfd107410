"""DenseCL: MoCo on images, and beside it on the cells of their maps."""

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
    """DenseCL: as MoCo, and every cell of the encoder's last map is contrasted with the cell that it corresponds to.

    Which cell of the other view that is, the encoder's own maps say, query's and copy's. The backbone must pool its
    last map by an ``nn.AdaptiveAvgPool2d``, as all named ones do, or return a map.

    Parameters
    ----------
    dense_weight : float, default=0.5
        lambda, what the dense loss weighs; the other weighs the rest to 1. At 1, cells that no image's loss has taught
        to differ never come to correspond.
    proj_dim : int, default=128
        Width of both projectors' outputs.
    proj_layers : int, default=2
        Layers of both projectors, with ReLU and no BatchNorm; the dense one works cell by cell.
    temperature : float, default=0.2
        Of the softmax over similarities.
    queue_size : int, default=4096
        Keys that serve as negatives, 65536 on ImageNet, in each of two queues; never more than a quarter of
        the training images. The dense queue takes one key an image, the mean of its cells'.
    bn_splits : int, default=8
        Groups of the batch that BatchNorm normalises by themselves, as in `MoCo`.
    ema_momentum : float, default=0.99
        What the copy keeps of itself in a step; on ImageNet 0.999.
    ema_schedule : {"constant", "cosine"}, default="constant"
        Whether it stays or rises to 1 by the training's end.

    References
    ----------
    Wang et al., Dense Contrastive Learning for Self-Supervised Visual Pre-Training, CVPR 2021, equations 2 to 4. The
    rest is as in `MoCo`.

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
        """Embed images, their cells, and return the map as well."""
        encoder, projector, dense_projector = parts
        features, grid = feature_map(encoder, images)
        cells = dense_projector(grid.movedim(1, 3)).movedim(3, 1)  # on each cell, as 1x1 convolutions
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
