"""SwAV: predict the cluster assignment of one view from another view."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar, NamedTuple

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.losses import prototype_scores, sinkhorn, swapped_prediction
from skssl.methods.base import SSLTransformer
from skssl.methods.settings import Settings
from skssl.nn.distributed import all_gather
from skssl.nn.heads import MLP
from skssl.nn.memories import Queue
from skssl.training.objective import Batch, Objective


class Phase(NamedTuple):
    """The phase of a SwAV training: what its step uses in an epoch."""

    frozen: bool
    queued: bool


@dataclass(kw_only=True, eq=False, repr=False)
class SwAV(SSLTransformer):
    """SwAV: predict from each view the assignment of another view to prototypes.

    The assignments are computed online by the Sinkhorn algorithm, which uses all prototypes equally. A loss that stays
    at ln `n_prototypes` is a sign of collapse. A lower `epsilon` or a longer `freeze_prototypes` helps.

    Parameters
    ----------
    n_prototypes : int, default=100
        Number of prototypes: EffSSL's value on CIFAR. The paper has 3000 on ImageNet.
    temperature : float, default=0.1
        Temperature of the softmax over a view's scores.
    epsilon : float, default=0.03
        Regularisation of the Sinkhorn algorithm. Smaller values give sharper assignments. The value is EffSSL's on
        CIFAR; the paper has 0.05.
    sinkhorn_iterations : int, default=3
        Iterations of the Sinkhorn algorithm.
    queue_length : int, default=0
        Past embeddings of each of the two assigned views that take part in the assignment, for batches much smaller
        than `n_prototypes`. The paper has 3840 with a batch of 256. Their scores are computed with the current
        prototypes.
    queue_start : int, default=15
        Epoch from which the queue is used. It fills from the first step, and is used from the first epoch that begins
        with a full queue. The reference code starts to fill it at this epoch and uses it as soon as it is full.
    freeze_prototypes : int, default=1
        Number of first epochs in which the prototypes are not trained. The reference code also has one at the paper's
        batch size.
    hidden_dim : int, default=2048
        Width of the projector's hidden layer.
    proj_dim : int, default=128
        Width of the projector's output.

    References
    ----------
    Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, NeurIPS 2020. Only the
    first two views are assigned; the small crops of ``augment=MultiCrop()`` only predict. Images are normalised as in
    all methods; the reference code has a deviation of 0.228 for red. The learning rate and weight decay are ours for
    momentum SGD on small images; the paper has LARC with 0.6 for a batch of 256, and 1e-6. Assignments are those of the
    whole batch over all devices.

    Examples
    --------
    >>> from skssl import SwAV
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = SwAV(backbone="convnet", hidden_dim=64, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 128)
    """

    n_prototypes: int = 100
    temperature: float = 0.1
    epsilon: float = 0.03
    sinkhorn_iterations: int = 3
    queue_length: int = 0
    queue_start: int = 15
    freeze_prototypes: int = 1
    hidden_dim: int = 2048
    proj_dim: int = 128

    default_settings: ClassVar[Settings] = Settings(
        augment="simclr",
        optimizer="sgd",
        lr=0.1,
        weight_decay=5e-4,
        schedule="cosine",
        warmup=0.05,
        aux_weight=0.5,
    )
    multi_crop: ClassVar[bool] = True
    _parameter_constraints: ClassVar[dict] = {
        **SSLTransformer._parameter_constraints,
        "n_prototypes": [Interval(Integral, 2, None, closed="left")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "sinkhorn_iterations": [Interval(Integral, 1, None, closed="left")],
        "queue_length": [Interval(Integral, 0, None, closed="left")],
        "queue_start": [Interval(Integral, 0, None, closed="left")],
        "freeze_prototypes": [Interval(Integral, 0, None, closed="left")],
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
        "proj_dim": [Interval(Integral, 1, None, closed="left")],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        net.projector = MLP((dim, self.hidden_dim, self.proj_dim))
        net.prototypes = nn.Parameter(F.normalize(torch.randn(self.n_prototypes, self.proj_dim), dim=1))
        net.queues = nn.ModuleList(Queue(self.queue_length, self.proj_dim) for _ in range(2) if self.queue_length)

    def phase(self, net: Objective, epoch: int) -> Phase:
        """Return whether the prototypes are frozen and whether the queues, if full, are used."""
        batch_size = min(self.batch_size, net.n_samples)
        pushed = epoch * (net.n_samples // batch_size) * batch_size  # known within an epoch, too, when training resumes
        full = bool(net.queues) and pushed >= self.queue_length and all(queue.full for queue in net.queues)
        return Phase(frozen=bool(epoch < self.freeze_prototypes), queued=bool(full and epoch >= self.queue_start))

    @torch.no_grad()
    def assign(self, net: Objective, z: list[Tensor], scores: Tensor) -> Tensor:
        """Compute the assignments of the first two views, each together with its queue, and update the queues.

        Parameters
        ----------
        net : Objective
            The network.
        z : list of Tensors of shape (n, d)
            Embeddings of the views.
        scores : Tensor of shape (n_views, n, n_prototypes)
            Their scores.

        Returns
        -------
        Tensor of shape (2, n, n_prototypes)
            The assignments (codes).
        """
        codes = []
        for view in range(2):
            past = [prototype_scores(net.queues[view].items, net.prototypes)] if net.phase.queued else []
            codes += [sinkhorn(torch.cat([*past, scores[view]]), self.epsilon, self.sinkhorn_iterations)]
            if net.queues:
                net.queues[view].push(F.normalize(z[view].float(), dim=1))
        return torch.stack([code[-scores.shape[1] :] for code in codes])

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        with torch.no_grad():
            net.prototypes.copy_(F.normalize(net.prototypes, dim=1))  # before they are used, not after the step
        z = [all_gather(view) for view in net.project(batch.views)]
        scores = prototype_scores(torch.stack(z), net.prototypes)  # (views, n, n_prototypes)
        return {"swav": swapped_prediction(scores, self.assign(net, z, scores), self.temperature)}

    def after_backward(self, net: Objective) -> None:
        """Drop the gradient of frozen prototypes, so that the optimiser does not change them."""
        if net.phase.frozen:  # detaching them in the loss would recompile the step
            net.prototypes.grad = None
