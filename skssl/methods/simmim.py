"""SimMIM: a linear head predicts masked pixels from the last map of an encoder, which sees a mask in their place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, cast

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.backbones import feature_map
from skssl.backbones.maps import map_shape
from skssl.backbones.vit import is_vit
from skssl.losses import simmim
from skssl.methods.base import SSLTransformer
from skssl.methods.settings import Settings
from skssl.nn.masking import enlarge_mask, random_mask
from skssl.training.objective import Batch, Objective
from skssl.training.optim import clip_gradients

CELLS = 7  # masked cells along the longer side of an image, by default


@dataclass(kw_only=True, eq=False, repr=False)
class SimMIM(SSLTransformer):
    """SimMIM: predict the masked pixels of an image by a linear head, with any encoder that has a map.

    In a vision transformer a trained token takes the place of masked patches. In other networks a trained colour takes
    the place of masked pixels. The features of a vision transformer are the mean of its patches unless `backbones.ViT`
    says otherwise, as no loss reads the class token. SimMIM is for encoders that are fine-tuned. For frozen features,
    as in a kNN probe, methods that compare views are better.

    Parameters
    ----------
    mask_ratio : float, default=0.6
        Share of the cells of the image that are masked, drawn anew for each image in each step.
    mask_size : int, default=None
        Side of the cells in pixels. None is a seventh of the view's longer side, 32 of 224 pixels as in the paper. A
        vision transformer rounds it to whole patches.
    clip_grad : float, default=5.0
        Maximum norm of the gradient of all parameters. None does not clip.

    References
    ----------
    Xie et al., SimMIM: A Simple Framework for Masked Image Modeling, CVPR 2022, and its code, whose settings for ViT-B
    the defaults are. That code adds relative positions and stochastic depth to the vision transformer, and keeps the
    learning rate above 0. Masking other networks by a trained colour is ours.

    Examples
    --------
    >>> from skssl import SimMIM
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = SimMIM(backbone="vit_micro", epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 96)
    """

    mask_ratio: float = 0.6
    mask_size: int | None = None
    clip_grad: float | None = 5.0

    default_settings: ClassVar[Settings] = Settings(
        augment="simmim",
        optimizer="adamw",
        lr=5e-5,
        weight_decay=0.05,
        schedule=((0.875, 0.1),),
        warmup=0.0125,
        aux_weight=1.0,
    )
    _parameter_constraints: ClassVar[dict] = {
        **SSLTransformer._parameter_constraints,
        "mask_ratio": [Interval(Real, 0, 1, closed="neither")],
        "mask_size": [Interval(Integral, 1, None, closed="left"), None],
        "clip_grad": [Interval(Real, 0, None, closed="neither"), None],
    }

    @property
    def n_views(self) -> int:
        """One view."""
        return 1

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        channels, height, width = net.shape
        encoder: Any = net.encoder
        if is_vit(encoder):
            encoder.pool = encoder.pool or "mean"
            net.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, dim), std=0.02, a=-0.02, b=0.02))
            n_in, stride = dim, encoder.patch_size
        else:
            net.mask_token = nn.Parameter(torch.zeros(1, channels, 1, 1))
            n_in, rows, columns = map_shape(encoder, net.shape)
            stride = max(math.ceil(height / rows), math.ceil(width / columns))
        net.pixel_decoder = nn.Sequential(nn.Conv2d(n_in, channels * stride**2, 1), nn.PixelShuffle(stride))

    def cell_size(self, height: int, width: int, patch_size: int) -> int:
        """Return the side of the masked cells in pixels for images and patches of a size."""
        side = max(height, width) / CELLS if self.mask_size is None else self.mask_size
        return int(patch_size * max(1, round(side / patch_size)))

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        view, encoder, vit = batch.views[0], cast(Any, net.encoder), is_vit(net.encoder)
        n, _, height, width = view.shape
        patch = encoder.patch_size if vit else 1
        cell = self.cell_size(height, width, patch)
        cells = random_mask(n, math.ceil(height / cell), math.ceil(width / cell), self.mask_ratio, view.device)
        masked = enlarge_mask(cells, cell, height, width)  # (n, h, w)
        if vit:
            patches = enlarge_mask(cells, cell // patch, *encoder.grid_of(height, width)).flatten(1)
            grid = encoder.as_map(encoder.tokens(view, None, patches, net.mask_token), view)
        else:
            _, grid = feature_map(encoder, torch.where(masked[:, None], net.mask_token.to(view.dtype), view))
        predicted = net.pixel_decoder(grid)
        if not vit and predicted.shape != view.shape:  # maps whose sides do not divide those of the images
            predicted = F.interpolate(predicted, (height, width), mode="bilinear")
        return {"simmim": simmim(predicted[:, :, :height, :width], view, masked)}

    def after_backward(self, net: Objective) -> None:
        """Clip the gradient of all parameters."""
        if self.clip_grad is not None:
            clip_gradients(net, self.clip_grad)
