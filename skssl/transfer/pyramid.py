"""A feature pyramid on the stages of any encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.backbones import last_module, module_outputs, stages
from skssl.errors import pick
from skssl.probes.encoders import DEFAULT_SHAPE

MAX_MAPS = 4  # of the pyramid, the coarsest ones


class Pyramid(nn.Module):
    """A feature pyramid network on the stages of an encoder: one map per resolution, at most the coarsest four.

    Parameters
    ----------
    encoder : torch.nn.Module
        The encoder, which becomes a submodule.
    channels : int
        Channels of the images.
    width : int
        Channels of the pyramid's maps.
    frozen : bool or str
        Whether the encoder is kept in evaluation mode and without gradients, or the name of the last stage that is.
    pooled : bool, default=False
        Whether the coarsest map passes through pyramid pooling (PSPNet).
    beyond : bool, default=False
        Whether another map is added, with half the resolution of the coarsest.

    Attributes
    ----------
    out_channels : int
        `width`, for torchvision.
    strides : list of int
        Strides of the encoder's maps in pixels, in increasing order.

    Raises
    ------
    ValueError
        If the encoder has no stages that end in feature maps.

    References
    ----------
    Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017. Convolutions are followed by BatchNorm, as in
    MoCo [He et al., CVPR 2020, section 4.2], since the scale of feature maps differs between encoders.
    """

    def __init__(
        self,
        encoder: nn.Module,
        channels: int,
        width: int,
        *,
        frozen: bool | str,
        pooled: bool = False,
        beyond: bool = False,
    ) -> None:
        from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

        super().__init__()
        self.encoder, self.out_channels = encoder.requires_grad_(True), width
        parts = stages(encoder)
        self.frozen = [encoder] if frozen is True else []  # in a list, as they are no children of this module, too
        if isinstance(frozen, str):
            last = pick("frozen", frozen, {name: place for place, name in enumerate(parts)})
            self.frozen = [module for stage in list(parts.values())[: last + 1] for module in stage]
        for module in self.frozen:
            module.requires_grad_(False)
        ends = [last_module(stage) for stage in parts.values()]
        with torch.no_grad():
            weight = next(encoder.parameters(), torch.zeros(()))
            side = DEFAULT_SHAPE[1]
            grids = module_outputs(ends, encoder.eval(), torch.zeros(1, channels, side, side, device=weight.device))
        found = {grid.shape[2]: (end, grid.shape[1]) for end, grid in zip(ends, grids, strict=True) if grid.ndim == 4}
        if not found:
            raise ValueError(
                "encoder must have stages that end in maps, as ResNets have (see skssl.backbones.stages). Got "
                f"{type(encoder).__name__}, which has none."
            )
        sides = sorted(found, reverse=True)[-MAX_MAPS:]
        self.ends = [found[side][0] for side in sides]  # in a list, as above
        self.strides = [2 ** round(math.log2(side / cells)) for cells in sides]
        widths = [found[side][1] for side in sides]
        self.context = PyramidPooling(widths[-1], width) if pooled else nn.Identity()
        self.fpn = FeaturePyramidNetwork(
            [*widths[:-1], width if pooled else widths[-1]],
            width,
            extra_blocks=LastLevelMaxPool() if beyond else None,
            norm_layer=nn.BatchNorm2d,
        )

    def train(self, mode: bool = True) -> Self:
        """Set the mode, but keep frozen modules in evaluation mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps (n, width, h_i, w_i) of images (n, c, h, w), named "0", "1", …, the finest first."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.encoder not in self.frozen):
            grids = module_outputs(self.ends, self.encoder, images)
        return self.fpn({str(i): grid for i, grid in enumerate([*grids[:-1], self.context(grids[-1])])})


class PyramidPooling(nn.Module):
    """Concatenate a map with its means over grids of 1, 2, 3 and 6 cells a side (Zhao et al., PSPNet, CVPR 2017)."""

    def __init__(self, channels: int, width: int) -> None:
        from torchvision.ops import Conv2dNormActivation

        super().__init__()
        cells = (1, 2, 3, 6)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(n), Conv2dNormActivation(channels, width, 1)) for n in cells
        )
        self.join = Conv2dNormActivation(channels + len(cells) * width, width, 3)

    def forward(self, grid: Tensor) -> Tensor:
        """Map (n, c, h, w) to (n, width, h, w)."""
        seen = [resize(branch(grid), grid.shape[2:]) for branch in self.branches]
        return self.join(torch.cat([grid, *seen], dim=1))


def resize(grid: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps (n, c, h, w) bilinearly."""
    return F.interpolate(grid, tuple(size), mode="bilinear")
