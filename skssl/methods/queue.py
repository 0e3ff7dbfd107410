"""The base class of MoCo and its relatives: keys from a momentum copy, negatives from a queue of past keys."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.images import Images
from skssl.losses import info_nce
from skssl.methods.momentum import MomentumMethod
from skssl.methods.settings import Settings
from skssl.nn.batchnorm import run_with_split_batchnorm
from skssl.nn.distributed import all_gather, is_main_process, local_rows, n_processes, shared_randperm
from skssl.nn.heads import MLP
from skssl.nn.memories import Queue
from skssl.training.objective import Objective
from skssl.training.trainer import Trainer


@dataclass(kw_only=True, eq=False, repr=False)
class QueueMethod(MomentumMethod):
    """A method that contrasts queries with the keys of a momentum copy and a queue of past keys; abstract.

    Parameters
    ----------
    proj_dim : int, default=128
        Width of the projector's output.
    proj_layers : int, default=2
        Layers of the projector, with biases and without BatchNorm: 1 is the linear projector of MoCo v1, 2 has a hidden
        layer with ReLU, as in MoCo v2.
    temperature : float, default=0.2
        Temperature of the softmax over similarities.
    queue_size : int, default=4096
        Past keys that serve as negatives, 65536 on ImageNet. The queue holds at most a quarter of the training images,
        because a longer queue would too often hold an older key of the query's own image; ``verbose=1`` says so. It
        need not be a multiple of `batch_size`.
    bn_splits : int, default=8
        Groups of the batch that BatchNorm normalises separately, as if on that many devices. The keys are grouped in
        another order than the queries, so that the statistics of a group do not reveal which key belongs to a query.
        There are fewer groups if one would have less than two images. 1 is plain BatchNorm, which leaks this
        information. There are at least `accumulate` groups.
    ema_momentum : float, default=0.99
        Momentum of the copy: the share of its weights that it keeps in a step, 0.999 on ImageNet.
    """

    proj_dim: int = 128
    proj_layers: int = 2
    temperature: float = 0.2
    queue_size: int = 4096
    bn_splits: int = 8

    default_settings: ClassVar[Settings] = Settings(
        augment="moco",
        optimizer="sgd",
        lr=0.03,
        weight_decay=5e-4,
        schedule="epoch_cosine",
        warmup=0.0,
        aux_weight=1.0,
    )
    _parameter_constraints: ClassVar[dict] = {
        **MomentumMethod._parameter_constraints,
        "proj_dim": [Interval(Integral, 1, None, closed="left")],
        "proj_layers": [Interval(Integral, 1, 100, closed="both")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "queue_size": [Interval(Integral, 1, None, closed="left")],
        "bn_splits": [Interval(Integral, 1, None, closed="left")],
    }

    def _make_trainer(self, images: Images, start: dict[str, Tensor] | None = None) -> Trainer:
        """Make the trainer, and say if the queue is shorter than `queue_size`."""
        trainer = super()._make_trainer(images, start)
        queue = getattr(trainer.module_, "queue", None)
        if self.verbose and is_main_process() and queue is not None and len(queue.items) < self.queue_size:
            print(
                f"The queue holds {len(queue.items)} keys, a quarter of the {len(images)} images, instead of "
                f"queue_size={self.queue_size}."
            )
        return trainer

    def head(self, dim: int) -> nn.Module:
        """Make a projector. Its hidden layers have the width of the features."""
        return MLP((*[dim] * self.proj_layers, self.proj_dim), norm=False)

    def queue(self, n_samples: int) -> Queue:
        """Make a queue of at most a quarter of the training images."""
        return Queue(max(1, min(self.queue_size, n_samples // 4)), self.proj_dim)

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Add the projector, the momentum copy and the queue."""
        if self.bn_splits > 1 and self.bn_splits % n_processes():
            raise ValueError(
                f"The 'bn_splits' parameter of {type(self).__name__} must be 1 or a multiple of the number of "
                f"processes, {n_processes()}. Got {self.bn_splits} instead."
            )
        net.projector = self.head(dim)
        super().build(net, dim, n_samples)
        net.queue = self.queue(n_samples)

    def outputs(self, parts: Iterable[nn.Module], images: Tensor) -> tuple[Tensor, ...]:
        """Run the modules of `ema_modules`, or their copies, on images. The first output is the embedding."""
        encoder, projector = parts
        return (projector(encoder(images)),)

    def queries(self, net: Objective, images: Tensor) -> tuple[Tensor, ...]:
        """Run the trained networks on groups of the batch."""
        return self.split_outputs(self.parts(net), images)

    @torch.no_grad()
    def keys(self, net: Objective, images: Tensor) -> tuple[Tensor, ...]:
        """Run the momentum copy on groups of the shuffled batch, and return its outputs in the original order."""
        images = all_gather(images)
        order = shared_randperm(len(images), images.device)
        found = self.split_outputs(net.target, images[local_rows(order)])
        return tuple(all_gather(output)[local_rows(order.argsort())] for output in found)

    def split_outputs(self, parts: Sequence[nn.Module], images: Tensor) -> tuple[Tensor, ...]:
        """Run networks with `bn_splits`; each process has an equal share of the groups."""
        if self.bn_splits == 1:
            return self.outputs(parts, images)
        splits = math.ceil(self.bn_splits // n_processes() / self.accumulate)  # the encoder runs in parts
        return run_with_split_batchnorm(lambda part: self.outputs(parts, part), parts, images, splits)

    def contrast(self, net: Objective, queries: Sequence[Tensor], keys: Sequence[Tensor]) -> Tensor:
        """Sum InfoNCE over pairs of queries and keys, then add the keys to the queue."""
        pairs = zip(queries, keys, strict=True)
        loss = torch.stack([info_nce(q, k, net.queue.items, self.temperature) for q, k in pairs]).sum()
        net.queue.push(F.normalize(torch.cat([all_gather(k) for k in keys]).float(), dim=1))
        return loss
