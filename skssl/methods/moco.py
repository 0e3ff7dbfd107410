"""MoCo: contrast a query with its key from a momentum copy and with a queue of past keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from skssl.methods.queue import QueueMethod
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class MoCo(QueueMethod):
    """MoCo: contrastive learning with a momentum encoder and a queue of negatives.

    A query from one view is compared with the key of the other view, which comes from a momentum copy of the encoder,
    and with a queue of keys from past batches.

    Parameters
    ----------
    temperature : float, default=0.1
        Temperature of the softmax over similarities: 0.1 in the authors' demonstration on CIFAR-10, 0.07 (v1) and 0.2
        (v2) on ImageNet.
    symmetric : bool, default=False
        Whether each view is the query once. The two losses are summed, and the queue receives the keys of both views.

    References
    ----------
    He et al., Momentum Contrast for Unsupervised Visual Representation Learning, CVPR 2020, equation 1 and algorithm 1.
    Chen et al., Improved Baselines with Momentum Contrastive Learning, 2020 (v2). The other settings are those of the
    authors' demonstration on CIFAR-10, whose projector is linear (``proj_layers=1``). The momentum copy is updated
    after the optimiser's step; the reference code updates it at the beginning of the next step.

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
