"""iBOT: DINO, whose student also predicts the teacher's distributions at patches that are masked in its own views."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, cast

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from skssl.augment.preprocessing import check_range
from skssl.backbones.vit import require_vit
from skssl.losses import ibot, koleo, sinkhorn, swapped_prediction
from skssl.methods.distillation import SelfDistillation
from skssl.methods.settings import Settings
from skssl.nn.distributed import all_gather, local_rows
from skssl.nn.masking import random_block_mask, random_mask_sizes
from skssl.nn.precision import autocast_for
from skssl.training.objective import Batch, Objective, concat_views


@dataclass(kw_only=True, eq=False, repr=False)
class IBOT(SelfDistillation):
    """iBOT: DINO's loss on class tokens, and masked image modelling with the teacher as the tokenizer.

    The student sees global views with blocks of masked patches, the teacher sees them whole. At masked patches the
    student predicts the teacher's distribution over prototypes. Class tokens are compared between views, as in DINO.
    One head serves both. With ``augment=MultiCrop(...)`` the student also sees small crops, which are not masked.
    ``IBOT(koleo=0.1, centering="sinkhorn")`` is the loss of DINOv2.

    Parameters
    ----------
    mask_ratio : tuple of float, default=(0.1, 0.5)
        The smallest and the largest share of the patches that are masked in a masked view.
    mask_probability : float, default=0.5
        Share of the global views that are masked.
    koleo : float, default=0.0
        Weight of the KoLeo regulariser, which spreads the class tokens of different images: 0.1 in DINOv2.
    centering : {"mean", "sinkhorn"}, default="mean"
        How the teacher's collapse is prevented: by subtracting running means of its scores of class tokens and of
        patches, or by three iterations of the Sinkhorn-Knopp algorithm over the batch.
    n_prototypes : int, default=8192
        Outputs of the head, the paper's. DINOv2's code has 65536.
    ema_momentum : float, default=0.996
        Momentum of the teacher at the start, the paper's for ImageNet.

    References
    ----------
    Zhou et al., iBOT: Image BERT Pre-Training with Online Tokenizer, ICLR 2022; Oquab et al., DINOv2: Learning Robust
    Visual Features without Supervision, TMLR 2024. The optimiser's settings are those of iBOT's code. Masks are drawn
    as in DINOv2's code: the same number of views and patches in each batch, with evenly spaced ratios. Its head, too,
    is applied to masked patches only, whose mean is the centre; iBOT's code averages all patches. The prototypes have
    length one, which iBOT's code does not require of ViT-S. Sinkhorn-Knopp and KoLeo see the batch of all devices.
    `transform` encodes with the student; the papers evaluate the teacher, ``net_.module_.target[0]``.

    Examples
    --------
    >>> from skssl import IBOT
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> small = {"backbone": "vit_micro", "n_prototypes": 64, "hidden_dim": 64, "epochs": 1, "batch_size": 32}
    >>> encoder = IBOT(koleo=0.1, centering="sinkhorn", random_state=0, **small).fit(X)
    >>> encoder.history_[["dino", "ibot", "koleo"]].shape
    (1, 3)
    """

    backbone: Any = "vit_tiny"
    mask_ratio: tuple[float, float] = (0.1, 0.5)
    mask_probability: float = 0.5
    koleo: float = 0.0
    centering: str = "mean"
    n_prototypes: int = 8192
    head_norm: bool = False
    weight_decay_end: float | None = 0.4
    ema_momentum: float = 0.996

    default_settings: ClassVar[Settings] = Settings(
        augment="byol", optimizer="adamw", lr=5e-4, weight_decay=0.04, schedule="cosine", warmup=0.1, aux_weight=1.0
    )
    _parameter_constraints: ClassVar[dict] = {
        **SelfDistillation._parameter_constraints,
        "mask_ratio": ["array-like"],
        "mask_probability": [Interval(Real, 0, 1, closed="right")],
        "koleo": [Interval(Real, 0, None, closed="left")],
        "centering": [StrOptions({"mean", "sinkhorn"})],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Add the mask token, the centre of patches, the head and the teacher."""
        require_vit(net.encoder, "IBOT")
        check_range(self, "mask_ratio", 1.0)
        net.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        net.register_buffer("patch_center", torch.zeros(self.n_prototypes))
        super().build(net, dim, n_samples)

    def tokens(self, encoder: Any, views: list[Tensor], *mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Encode views of one size. Return the class tokens, (V * n, d), and those of all patches, (V * n * l, d)."""
        joined = concat_views(views)
        with autocast_for(joined):  # small crops may be too small for a CPU's bfloat16
            tokens = encoder.tokens(joined, *mask)
        return tokens[:, 0], tokens[:, 1:].flatten(0, 1)

    def targets(self, net: Objective, scores: Tensor, center: Tensor) -> Tensor:
        """Return the teacher's probabilities for scores (m, k), and update their centre."""
        if self.centering == "sinkhorn":
            return local_rows(sinkhorn(all_gather(scores), net.teacher_temperature))
        found = ((scores.to(center.dtype) - center) / net.teacher_temperature).softmax(1)
        self.update_center(center, scores)
        return found

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        large = self.global_views(batch)
        small, shape, encoder = batch.views[len(large) :], (len(large), len(large[0])), cast(Any, net.encoder)
        grid = encoder.grid_of(*large[0].shape[2:])
        n_patches, device = grid[0] * grid[1], large[0].device
        sizes, total = random_mask_sizes(shape, n_patches, self.mask_ratio, self.mask_probability, device)
        masked = random_block_mask(sizes, grid).flatten(0, 1)  # (G * n, l)
        place = masked.flatten().byte().argsort(descending=True, stable=True)[:total]  # the masked patches, (m,)
        tokens, patches = self.tokens(encoder, large, None, masked, net.mask_token)
        classes = torch.cat([tokens, self.tokens(encoder, small)[0]]) if small else tokens
        scores = net.prototypes(net.projector(torch.cat([classes, patches.index_select(0, place)])))
        student, student_patches = scores.tensor_split([len(classes)])
        with torch.no_grad():
            encoder, projector, prototypes = net.target
            whole, patches = self.tokens(encoder, large)
            scores = prototypes(projector(torch.cat([whole, patches.index_select(0, place)])))
            q = self.targets(net, scores[: len(whole)], net.center).unflatten(0, shape)
            q_patches = self.targets(net, scores[len(whole) :], net.patch_center)
        n_masked = sizes.flatten().index_select(0, place // n_patches)
        found = {
            "dino": swapped_prediction(student.unflatten(0, (-1, shape[1])), q, self.student_temperature),
            "ibot": ibot(student_patches, q_patches, n_masked, len(masked), self.student_temperature),
        }
        if self.koleo:
            found["koleo"] = self.koleo * sum(koleo(all_gather(view)) for view in tokens.chunk(len(large)))
        return found
