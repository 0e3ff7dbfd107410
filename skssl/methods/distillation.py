"""The base class of DINO and its relatives: a student matches its momentum copy's distributions over prototypes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar, NamedTuple

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.augment.presets import MultiCrop
from skssl.losses import prototype_scores
from skssl.methods.momentum import MomentumMethod
from skssl.nn.distributed import all_reduce_mean
from skssl.nn.heads import MLP
from skssl.training.objective import Batch, Objective
from skssl.training.optim import clip_gradients


@dataclass(kw_only=True, eq=False, repr=False)
class SelfDistillation(MomentumMethod):
    """A method whose student matches the distributions of its teacher, a momentum copy, over prototypes; abstract.

    Parameters
    ----------
    n_prototypes : int, default=4096
        Outputs of the head.
    hidden_dim : int, default=2048
        Width of the head's two hidden layers.
    proj_dim : int, default=256
        Width of the bottleneck, whose output is normalised before the prototypes.
    head_norm : bool, default=True
        Whether the hidden layers have BatchNorm. The papers have none.
    student_temperature : float, default=0.1
        Temperature of the student's softmax.
    teacher_temperature : float, default=0.04
        Temperature of the teacher's softmax after its warm-up. The papers' best value is 0.07, after a warm-up.
    warmup_teacher_temperature : float, default=0.04
        Temperature of the teacher at the start of the warm-up.
    warmup_teacher_epochs : int, default=0
        Epochs of the warm-up, 30 in the papers.
    center_momentum : float, default=0.9
        Share of the centre that is kept in a step.
    freeze_last_layer : int, default=1
        Number of first epochs in which the last layer is not trained.
    clip_grad : float, default=3.0
        Maximum norm of each parameter's gradient. None does not clip.
    weight_decay_end : float, default=None
        Weight decay at the end of the training, to which `weight_decay` changes along a cosine. None keeps it constant.
    ema_momentum : float, default=0.99
        Momentum of the teacher at the start.
    """

    n_prototypes: int = 4096
    hidden_dim: int = 2048
    proj_dim: int = 256
    head_norm: bool = True
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    warmup_teacher_temperature: float = 0.04
    warmup_teacher_epochs: int = 0
    center_momentum: float = 0.9
    freeze_last_layer: int = 1
    clip_grad: float | None = 3.0
    weight_decay_end: float | None = None
    ema_schedule: str = "cosine"

    multi_crop: ClassVar[bool] = True
    ema_modules: ClassVar[tuple[str, ...]] = ("encoder", "projector", "prototypes")
    _parameter_constraints: ClassVar[dict] = {
        **MomentumMethod._parameter_constraints,
        **{name: [Interval(Integral, 1, None, closed="left")] for name in ("n_prototypes", "hidden_dim", "proj_dim")},
        "head_norm": ["boolean"],
        "student_temperature": [Interval(Real, 0, None, closed="neither")],
        "teacher_temperature": [Interval(Real, 0, None, closed="neither")],
        "warmup_teacher_temperature": [Interval(Real, 0, None, closed="neither")],
        "warmup_teacher_epochs": [Interval(Integral, 0, None, closed="left")],
        "center_momentum": [Interval(Real, 0, 1, closed="both")],
        "freeze_last_layer": [Interval(Integral, 0, None, closed="left")],
        "clip_grad": [Interval(Real, 0, None, closed="neither"), None],
        "weight_decay_end": [Interval(Real, 0, None, closed="left"), None],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Add the head (projector and prototypes), the centre and the teacher."""
        dims = (dim, self.hidden_dim, self.hidden_dim, self.proj_dim)
        net.projector = MLP(dims, norm=self.head_norm, activation=nn.GELU)
        net.prototypes = CosinePrototypes(self.proj_dim, self.n_prototypes, bias=False)
        for layer in net.projector:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        net.register_buffer("center", torch.zeros(self.n_prototypes))
        net.register_buffer("teacher_temperature", torch.tensor(float(self.teacher_temperature)))
        super().build(net, dim, n_samples)

    def global_views(self, batch: Batch) -> list[Tensor]:
        """Return the views that the teacher sees: all but the local views of `MultiCrop`."""
        return batch.views[: self.augment.n_global if isinstance(self.augment, MultiCrop) else self.n_views]

    def update_center(self, center: Tensor, teacher: Tensor) -> None:
        """Update a centre by the teacher's scores, (..., k), for the next step."""
        mean = teacher.to(center.dtype).mean(tuple(range(teacher.dim() - 1)))
        center.lerp_(all_reduce_mean(mean), 1 - self.center_momentum)

    def before_epoch(self, net: Objective, epoch: int, encode: Callable[[nn.Module], Tensor]) -> None:
        """Set the teacher's temperature."""
        share = min(epoch / self.warmup_teacher_epochs, 1.0) if self.warmup_teacher_epochs else 1.0
        start, end = self.warmup_teacher_temperature, self.teacher_temperature
        net.teacher_temperature.fill_(start + (end - start) * share)

    def phase(self, net: Objective, epoch: int) -> Phase:
        """Return whether the prototypes are frozen."""
        return Phase(frozen=bool(epoch < self.freeze_last_layer))  # a Python bool, also for NumPy integers

    def after_backward(self, net: Objective) -> None:
        """Drop the gradient of frozen prototypes, so that they do not decay either; clip each parameter's gradient."""
        if net.phase.frozen:  # changing requires_grad would recompile the step
            net.prototypes.weight.grad = None
        if self.clip_grad is not None:
            clip_gradients(net, self.clip_grad, each=True)


class Phase(NamedTuple):
    """The phase of a training: what its step uses in an epoch."""

    frozen: bool


class CosinePrototypes(nn.Linear):
    """Cosine similarities of normalised input with the weights: a weight-normalised layer with gain 1."""

    def forward(self, z: Tensor) -> Tensor:
        """Compute the scores of embeddings: (..., d) -> (..., k)."""
        return prototype_scores(z, F.normalize(self.weight, dim=1))
