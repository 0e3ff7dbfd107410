"""DINO: a student matches a teacher's distribution over prototypes; the teacher is its momentum copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from skssl.losses import dino
from skssl.methods.distillation import SelfDistillation
from skssl.methods.settings import Settings
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class DINO(SelfDistillation):
    """DINO: self-distillation without labels; centring and sharpening the teacher's output prevents collapse.

    The student's distribution over prototypes of one view matches the teacher's distribution of another view. The
    teacher is a momentum copy of the student. With ``augment=MultiCrop(...)`` the student sees all crops, the teacher
    only the global crops.

    Parameters
    ----------
    n_prototypes : int, default=4096
        Outputs of the head, 65536 in the paper for ImageNet.
    head_norm : bool, default=True
        Whether the hidden layers have BatchNorm, which is better for small convolutional networks. The paper has none.
    ema_momentum : float, default=0.99
        Momentum of the teacher at the start. The paper uses 0.996 for far more steps.

    References
    ----------
    Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021, section 3 and appendices C and
    D. The views are BYOL's, with crops from 0.08 of the area instead of 0.14. Small crops use the blur and solarisation
    of the large ones in turn, unless `MultiCrop` sets them, as the recipe does. BatchNorm in the head and 4096
    prototypes follow the settings of lightly and solo-learn for CIFAR. The learning rate and weight decay are ours for
    momentum SGD. For vision transformers the paper has ``optimizer="adamw"``, ``lr=5e-4 * batch_size / 256``,
    ``weight_decay=0.04``, ``weight_decay_end=0.4``, ``warmup_epochs=10`` and ``head_norm=False``. `transform` encodes
    with the student; the paper evaluates the teacher, whose encoder is ``net_.module_.target[0]``.

    Examples
    --------
    >>> from skssl import DINO, MultiCrop
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> small = {"backbone": "convnet", "n_prototypes": 64, "hidden_dim": 64, "epochs": 1, "batch_size": 32}
    >>> encoder = DINO(augment=MultiCrop(n_local=2), random_state=0, **small).fit(X)
    >>> encoder.transform(X).shape
    (64, 128)
    """

    default_settings: ClassVar[Settings] = Settings(
        augment="byol",
        optimizer="sgd",
        lr=0.3,
        weight_decay=1e-4,
        schedule="cosine",
        warmup=0.1,
        aux_weight=1.0,
    )

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        views = self.global_views(batch)
        student = net.prototypes(torch.stack(net.project(batch.views)))  # (V, n, k)
        with torch.no_grad():
            teacher = net.target(torch.cat(views)).unflatten(0, (len(views), -1))  # (G, n, k)
        loss = dino(student, teacher, net.center, self.student_temperature, net.teacher_temperature)
        self.update_center(net.center, teacher)
        return {"dino": loss}
