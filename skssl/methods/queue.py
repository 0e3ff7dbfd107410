"""What MoCo and its kin share: a momentum copy makes the keys, and a queue of past keys has the negatives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.losses import info_nce
from skssl.methods.momentum import MomentumMethod
from skssl.methods.settings import Settings
from skssl.nn.batchnorm import run_with_split_batchnorm
from skssl.nn.distributed import all_gather, local_rows, n_processes, shared_randperm
from skssl.nn.heads import MLP
from skssl.nn.memories import Queue
from skssl.training.objective import Objective


@dataclass(kw_only=True, eq=False, repr=False)
class QueueMethod(MomentumMethod):
    """Contrast queries with the keys of a momentum copy and a queue of past keys; abstract."""

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

    def head(self, dim: int) -> nn.Module:
        """Make the projector: linear (v1), or with hidden layers of the features' width and no BatchNorm (v2)."""
        return MLP((*[dim] * self.proj_layers, self.proj_dim), norm=False)

    def queue(self, n_samples: int) -> Queue:
        """Make a queue, short enough to seldom hold an older key of the query's own image."""
        return Queue(max(1, min(self.queue_size, n_samples // 4)), self.proj_dim)

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Put the projector, the momentum copy and the queue on the net."""
        if self.bn_splits > 1 and self.bn_splits % n_processes():
            raise ValueError(
                f"bn_splits={self.bn_splits} groups of the batch must be shared out evenly among the {n_processes()} "
                "processes that train: take a multiple of their number, or 1."
            )
        net.projector = self.head(dim)
        super().build(net, dim, n_samples)
        net.queue = self.queue(n_samples)

    def outputs(self, parts: Iterable[nn.Module], images: Tensor) -> tuple[Tensor, ...]:
        """Run what `ema_modules` names, of the net or of its copy; the first output is the embedding."""
        encoder, projector = parts
        return (projector(encoder(images)),)

    def queries(self, net: Objective, images: Tensor) -> tuple[Tensor, ...]:
        """Run the trained networks on groups of the batch."""
        return self.split_outputs(self.parts(net), images)

    @torch.no_grad()
    def keys(self, net: Objective, images: Tensor) -> tuple[Tensor, ...]:
        """Run the copy on other groups than the queries', whose statistics else would tell which key is theirs."""
        images = all_gather(images)
        order = shared_randperm(len(images), images.device)
        found = self.split_outputs(net.target, images[local_rows(order)])
        return tuple(all_gather(output)[local_rows(order.argsort())] for output in found)

    def split_outputs(self, parts: Sequence[nn.Module], images: Tensor) -> tuple[Tensor, ...]:
        """Run networks on those of the batch's groups that are this process's, or together on a batch in one piece."""
        if self.bn_splits == 1:
            return self.outputs(parts, images)
        splits = self.bn_splits // n_processes()
        return run_with_split_batchnorm(lambda part: self.outputs(parts, part), parts, images, splits)

    def contrast(self, net: Objective, queries: Sequence[Tensor], keys: Sequence[Tensor]) -> Tensor:
        """Sum InfoNCE over pairs of queries and keys, with the queue as it was; then the queue takes the keys."""
        pairs = zip(queries, keys, strict=True)
        loss = torch.stack([info_nce(q, k, net.queue.items, self.temperature) for q, k in pairs]).sum()
        net.queue.push(F.normalize(torch.cat([all_gather(k) for k in keys]).float(), dim=1))
        return loss
