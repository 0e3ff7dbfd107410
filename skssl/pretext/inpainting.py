"""Inpainting: what was in the middle of an image? A context encoder sees what is around it."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.pretext.task import Task

if TYPE_CHECKING:
    from skssl.engine import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class ContextEncoderTask(Task):
    """Predict the middle of a view from what is around it.

    The middle of the first view, half as high and wide as the view, is filled with the mean colour (that of the
    normalisation), but for a margin that can be seen. The encoder reads this, and a decoder makes the middle out of the
    pooled features. The margin counts more, so that what is made joins what is there.

    Parameters
    ----------
    hidden_dim : int, default=256
        Channels of the decoder's first map, of 4x4; each doubling of the side halves them.
    margin_weight : float, default=10.0
        What an error in the margin, a sixteenth of the middle and at least one pixel wide, counts more than elsewhere.

    References
    ----------
    Pathak et al., Context Encoders: Feature Learning by Inpainting, CVPR 2016, equation 1, with the central region of
    its code. There is no adversarial loss: it sharpens what is made, but the paper learns its features without it. Its
    encoder has no pooling and a bottleneck of 4000 numbers; here it is the method's features.

    Examples
    --------
    >>> from skssl import ContextEncoderTask, SimCLR
    >>> SimCLR(aux=ContextEncoderTask(hidden_dim=64)).aux
    ContextEncoderTask(hidden_dim=64)
    """

    hidden_dim: int = 256
    margin_weight: float = 10.0

    name: ClassVar[str] = "inpainting"
    _parameter_constraints: ClassVar[dict] = {
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
        "margin_weight": [Interval(Real, 0, None, closed="left")],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        width, side = self.hidden_dim, 4
        layers: list[nn.Module] = [nn.Linear(dim, width * side**2, bias=False), nn.Unflatten(1, (width, side, side))]
        layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        while side < max(net.shape[1:]) // 2:
            n_in, width, side = width, max(width // 2, 1), 2 * side
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(n_in, width, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        net.inpainting_decoder = nn.Sequential(*layers, nn.Conv2d(width, net.shape[0], 3, padding=1))

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        view = batch.views[0]
        rows, columns, margin = middle(*view.shape[2:])
        holed = view.clone()
        target, hole = view[:, :, rows, columns], holed[:, :, rows, columns]
        hole[:, :, margin : hole.shape[2] - margin, margin : hole.shape[3] - margin] = 0  # the mean of normalised views
        made = net.inpainting_decoder(net.encoder(holed)).float()
        made = F.interpolate(made, target.shape[2:], mode="bilinear")  # as it is where the side is a power of 2
        weight = torch.full(target.shape[2:], float(self.margin_weight), device=view.device)
        weight[margin : len(weight) - margin, margin : weight.shape[1] - margin] = 1
        return {"inpainting": (weight * (made - target).square()).mean()}


def middle(height: int, width: int) -> tuple[slice, slice, int]:
    """Say where the middle of an image is.

    Parameters
    ----------
    height, width : int
        Sides of the image.

    Returns
    -------
    rows, columns : slice
        Half of each side, at least one pixel.
    margin : int
        How much of it, on every side, can be seen.

    Examples
    --------
    >>> from skssl.pretext.inpainting import middle
    >>> middle(128, 128)
    (slice(32, 96, None), slice(32, 96, None), 4)
    """
    sides = [max(1, side // 2) for side in (height, width)]
    starts = [(side - half) // 2 for side, half in zip((height, width), sides, strict=True)]
    rows, columns = (slice(start, start + half) for start, half in zip(starts, sides, strict=True))
    return rows, columns, min(max(1, min(sides) // 16), (min(sides) - 1) // 2)
