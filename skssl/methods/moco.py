"""MoCo: contrast a query with its key of a momentum copy, and with a queue of past keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from skssl.methods.queue import QueueMethod
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class MoCo(QueueMethod):
    """MoCo: tell a query's key from a queue of past keys, all of them made by a slowly following copy.

    Parameters
    ----------
    proj_dim : int, default=128
        Width of the projector's output.
    proj_layers : int, default=2
        Its layers: 1 is version 1's linear projector (and that of the authors' demonstration on CIFAR-10), 2 is
        version 2's, with a ReLU, biases and no BatchNorm.
    temperature : float, default=0.1
        Of the softmax over similarities: 0.1 in the demonstration, on ImageNet 0.07 (v1) and 0.2 (v2).
    queue_size : int, default=4096
        Keys that serve as negatives, 65536 on ImageNet; never more than a quarter of the training images, since a
        longer queue too often holds an older key of the query's own image. It need not be a multiple of the batch size.
    symmetric : bool, default=False
        Whether each view is the query once; the two losses are added, and the queue takes the keys of both.
    bn_splits : int, default=8
        Groups of the batch that BatchNorm normalises by themselves, as on so many devices; the keys' are of other
        images than the queries', so that no group's statistics tell which key belongs to a query. Fewer where a group
        would have less than two images; 1 is plain BatchNorm, which can cheat.
    ema_momentum : float, default=0.99
        What the copy keeps of itself in a step; on ImageNet 0.999.
    ema_schedule : {"constant", "cosine"}, default="constant"
        Whether it stays or rises to 1 by the training's end.

    References
    ----------
    He et al., Momentum Contrast for Unsupervised Visual Representation Learning, CVPR 2020, equation 1 and algorithm
    1; Chen et al., Improved Baselines with Momentum Contrastive Learning, 2020 (v2). The other settings are those of
    the authors' demonstration on CIFAR-10. The copy follows after the optimiser's step, which is the beginning of the
    next step in the reference code.

    Examples
    --------
    >>> from skssl import MoCo
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = MoCo(backbone="convnet", bn_splits=2, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 128)
    """

    temperature: float = 0.1
    symmetric: bool = False

    _parameter_constraints: ClassVar[dict] = {**QueueMethod._parameter_constraints, "symmetric": ["boolean"]}

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        directions = 2 if self.symmetric else 1
        queries = [self.queries(net, view)[0] for view in batch.views[:directions]]
        keys = [self.keys(net, view)[0] for view in batch.views[::-1][:directions]]
        return {"info_nce": self.contrast(net, queries, keys)}
