"""Inpainting: what was in a part of an image? A context encoder sees what is around it."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, ClassVar

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.pretext.task import Task

if TYPE_CHECKING:
    from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class ContextEncoderTask(Task):
    """Predict a part of a view from what is around it.

    The part is filled with the mean colour (that of the normalisation). The encoder reads this, and a decoder makes the
    part out of the pooled features.

    Parameters
    ----------
    region : {"random", "center"}, default="random"
        "random": in each image blobs of any form that cover a quarter of it, with which the paper learns its features.
        "center": the middle, half as high and wide as the view, but for a margin that can be seen.
    hidden_dim : int, default=256
        Channels of the decoder's first map, of 4x4; each doubling of the side halves them.
    margin_weight : float, default=10.0
        What an error in the middle's margin, a sixteenth of it and at least one pixel wide, counts more than elsewhere,
        so that what is made joins what is there.

    References
    ----------
    Pathak et al., Context Encoders: Feature Learning by Inpainting, CVPR 2016, equation 1 and section 3.3. The blobs
    are where smooth noise is highest, as in its code, whose mask is the same for a whole batch. There is no adversarial
    loss: it sharpens what is made, but the paper learns its features without it. Its encoder has no pooling and a
    bottleneck of 4000 numbers; here it is the method's features.

    Examples
    --------
    >>> from skssl import ContextEncoderTask, SimCLR
    >>> SimCLR(aux=ContextEncoderTask(hidden_dim=64)).aux
    ContextEncoderTask(hidden_dim=64)
    """

    region: str = "random"
    hidden_dim: int = 256
    margin_weight: float = 10.0

    name: ClassVar[str] = "inpainting"
    _parameter_constraints: ClassVar[dict] = {
        "region": [StrOptions({"random", "center"})],
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
        "margin_weight": [Interval(Real, 0, None, closed="left")],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        width, side = self.hidden_dim, 4
        end = max(net.shape[1:]) // (2 if self.region == "center" else 1)
        layers: list[nn.Module] = [
            nn.Linear(dim, width * side**2, bias=False),
            nn.Unflatten(1, (int(width), side, side)),
        ]
        layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        while side < end:
            n_in, width, side = width, max(width // 2, 1), 2 * side
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(n_in, width, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        net.inpainting_decoder = nn.Sequential(*layers, nn.Conv2d(width, net.shape[0], 3, padding=1))

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        view = batch.views[0]
        if self.region == "random":
            hole = blobs(len(view), view.shape[2], view.shape[3], view.device)
            part, weight = view, hole / hole.float().mean()
        else:
            rows, columns, margin = middle(*view.shape[2:])
            part = view[:, :, rows, columns]
            weight = torch.full(part.shape[2:], float(self.margin_weight), device=view.device)
            weight[margin : len(weight) - margin, margin : weight.shape[1] - margin] = 1
            hole = torch.zeros(view.shape[2:], dtype=torch.bool, device=view.device)
            hole[rows.start + margin : rows.stop - margin, columns.start + margin : columns.stop - margin] = True
        made = net.inpainting_decoder(net.encoder(view * ~hole)).float()  # 0 is the mean of normalised views
        made = F.interpolate(made, part.shape[2:], mode="bilinear")  # as it is where the side is a power of 2
        return {"inpainting": (weight * (made - part).square()).mean()}


def blobs(n: int, height: int, width: int, device: torch.device) -> Tensor:
    """Draw a quarter of each image, where smooth noise is highest.

    Parameters
    ----------
    n, height, width : int
        How many images, and their sides.
    device : torch.device
        Where they are.

    Returns
    -------
    bool Tensor of shape (n, 1, height, width)
        True in the blobs, drawn from the global generator.

    Examples
    --------
    >>> import torch
    >>> from skssl.pretext.inpainting import blobs
    >>> blobs(3, 32, 32, torch.device("cpu")).sum((1, 2, 3))
    tensor([256, 256, 256])
    """
    cells = [min(side, 8) for side in (height, width)]  # the code's: 0.06 numbers a pixel, and images of 128 pixels
    noise = F.interpolate(torch.rand(n, 1, *cells, device=device), (height, width), mode="bicubic").flatten(1)
    count = max(1, noise.shape[1] // 4)
    least = noise.topk(count, dim=1).values[:, -1:]  # kthvalue has no deterministic form on CUDA
    return (noise >= least).view(n, 1, height, width)


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
