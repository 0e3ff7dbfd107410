"""I-JEPA: predict a momentum copy's tokens of blocks of an image from the tokens of the rest."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, cast

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor
from torch.nn import functional as F

from skssl.backbones.vit import require_vit
from skssl.losses import ijepa
from skssl.methods.momentum import MomentumMethod
from skssl.methods.settings import Settings
from skssl.nn.masking import block_size, order_outside, random_blocks, take_tokens
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class IJEPA(MomentumMethod):
    """I-JEPA: predict features of blocks of an image from the rest of it, without views that differ.

    A momentum copy of a vision transformer encodes the whole image. The transformer itself encodes a part of the
    patches outside of some blocks, and a predictor predicts the copy's tokens in each block. No pixels are predicted,
    and no colours are changed. The features are the mean of the patches unless `backbones.ViT` says otherwise.

    Parameters
    ----------
    n_blocks : int, default=4
        Blocks that are predicted in each image.
    block_scale : float, default=0.175
        Area of each block as a share of the image, the middle of the paper's range from 0.15 to 0.2.
    predictor_dim : int, default=None
        Width of the predictor, a multiple of 4. None is half the width of the encoder.
    predictor_depth : int, default=None
        Blocks of the predictor. None is half of those of the encoder.
    weight_decay_end : float, default=0.4
        Weight decay at the end of the training, to which `weight_decay` changes along a cosine. None keeps it constant.
    ema_momentum : float, default=0.996
        Momentum of the copy at the start.

    References
    ----------
    Assran et al., Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture, CVPR 2023,
    section 3 and its code, whose settings for ViT-H/14 the defaults are. All blocks are squares of one size, and a
    fixed number of patches outside of them is encoded, so that steps have static shapes: as many as are outside if no
    blocks overlap, at least a quarter of all. The code draws the size of the blocks for each batch, and encodes as many
    patches as the image with the fewest has left. A class token is encoded with the patches. `transform` encodes with
    the trained network; the paper evaluates its copy, ``net_.module_.target[0]``.

    Examples
    --------
    >>> from skssl import IJEPA
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = IJEPA(backbone="vit_micro", epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 96)
    """

    backbone: Any = "vit_tiny"
    n_blocks: int = 4
    block_scale: float = 0.175
    predictor_dim: int | None = None
    predictor_depth: int | None = None
    weight_decay_end: float | None = 0.4
    ema_momentum: float = 0.996
    ema_schedule: str = "linear"

    default_settings: ClassVar[Settings] = Settings(
        augment="ijepa",
        optimizer="adamw",
        lr=1.25e-4,
        weight_decay=0.04,
        schedule="cosine",
        warmup=0.13,
        aux_weight=1.0,
    )
    ema_modules: ClassVar[tuple[str, ...]] = ("encoder",)
    _parameter_constraints: ClassVar[dict] = {
        **MomentumMethod._parameter_constraints,
        "n_blocks": [Interval(Integral, 1, None, closed="left")],
        "block_scale": [Interval(Real, 0, 1, closed="neither")],
        "predictor_dim": [Interval(Integral, 4, None, closed="left"), None],
        "predictor_depth": [Interval(Integral, 1, None, closed="left"), None],
        "weight_decay_end": [Interval(Real, 0, None, closed="left"), None],
    }

    @property
    def n_views(self) -> int:
        """One view."""
        return 1

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Add the predictor and the momentum copy."""
        from skssl.backbones.transformers import TokenDecoder

        encoder = require_vit(net.encoder, "IJEPA")
        encoder.pool = encoder.pool or "mean"
        width = self.predictor_dim or dim // 2
        depth = self.predictor_depth or max(1, len(encoder.encoder.layers) // 2)
        net.predictor = TokenDecoder(dim, int(width), int(depth), encoder.grid, dim)
        super().build(net, dim, n_samples)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        view, encoder = batch.views[0], cast(Any, net.encoder)
        grid = encoder.grid_of(*view.shape[2:])
        sides = block_size(grid, self.block_scale)
        blocks = random_blocks(len(view), self.n_blocks, grid, sides, view.device)  # (n, k, b)
        n_patches = grid[0] * grid[1]
        n_context = max(n_patches - self.n_blocks * sides[0] * sides[1], n_patches // 4, 1)
        context = order_outside(blocks, n_patches)[:, :n_context]
        with torch.no_grad():
            tokens = cast(Any, net.target)[0].tokens(view)[:, 1:]
            targets = take_tokens(F.layer_norm(tokens, tokens.shape[2:]), blocks.flatten(1))  # (n, k * b, d)
        known = encoder.tokens(view, context).repeat_interleave(self.n_blocks, 0)  # block by block of each image
        predicted = net.predictor(known, context.repeat_interleave(self.n_blocks, 0), blocks.flatten(0, 1))
        return {"ijepa": ijepa(predicted.view(targets.shape), targets)}
