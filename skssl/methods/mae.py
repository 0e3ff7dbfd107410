"""MAE: a light decoder predicts the pixels of masked patches from an encoder's tokens of the visible patches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, cast

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor

from skssl.backbones.vit import require_vit
from skssl.losses import mae
from skssl.methods.base import SSLTransformer
from skssl.methods.settings import Settings
from skssl.nn.masking import random_order, take_tokens
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class MAE(SSLTransformer):
    """MAE: predict the pixels of masked patches. A vision transformer encodes the visible patches alone.

    A light decoder reads the tokens of the visible patches, and a mask token at each masked place. A step takes less
    than half the time of a step that encodes all patches. `transform` encodes all patches. MAE is for encoders that are
    fine-tuned. For frozen features, as in a kNN probe, methods that compare views are better.

    Parameters
    ----------
    mask_ratio : float, default=0.75
        Share of the patches that are masked, drawn anew for each image in each step.
    decoder_dim : int, default=None
        Width of the decoder, a multiple of 4. None is half the width of the encoder, as for the paper's ViT-L.
    decoder_depth : int, default=None
        Blocks of the decoder. None is a third of those of the encoder, as for the paper's ViT-L.
    norm_pix_loss : bool, default=True
        Whether the pixels of each patch are normalised by their own mean and standard deviation.

    References
    ----------
    He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022, and its code. In the paper the decoder has 8
    blocks of width 512 for encoders of any size. Positions are trained here, from the code's fixed sines and cosines.
    The initial weights are torchvision's.

    Examples
    --------
    >>> from skssl import MAE
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = MAE(backbone="vit_micro", epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 96)
    """

    backbone: Any = "vit_tiny"
    mask_ratio: float = 0.75
    decoder_dim: int | None = None
    decoder_depth: int | None = None
    norm_pix_loss: bool = True

    default_settings: ClassVar[Settings] = Settings(
        augment="mae",
        optimizer=partial(torch.optim.AdamW, betas=(0.9, 0.95)),
        lr=1.5e-4,
        weight_decay=0.05,
        schedule="cosine",
        warmup=0.05,
        aux_weight=1.0,
    )
    _parameter_constraints: ClassVar[dict] = {
        **SSLTransformer._parameter_constraints,
        "mask_ratio": [Interval(Real, 0, 1, closed="neither")],
        "decoder_dim": [Interval(Integral, 4, None, closed="left"), None],
        "decoder_depth": [Interval(Integral, 1, None, closed="left"), None],
        "norm_pix_loss": ["boolean"],
    }

    @property
    def n_views(self) -> int:
        """One view."""
        return 1

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        from skssl.backbones.transformers import TokenDecoder

        encoder = require_vit(net.encoder, "MAE")
        width = self.decoder_dim or dim // 2
        depth = self.decoder_depth or max(1, len(encoder.encoder.layers) // 3)
        net.decoder = TokenDecoder(dim, int(width), int(depth), encoder.grid, net.shape[0] * encoder.patch_size**2)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        view, encoder = batch.views[0], cast(Any, net.encoder)
        pixels = encoder.pixels(view)  # (n, l, p * p * c)
        order = random_order(len(view), pixels.shape[1], view.device)
        n_visible = int(pixels.shape[1] * (1 - self.mask_ratio))
        visible, masked = order.tensor_split([n_visible], 1)
        predicted = net.decoder(encoder.tokens(view, visible), visible, masked)
        return {"mae": mae(predicted, take_tokens(pixels, masked), self.norm_pix_loss)}
