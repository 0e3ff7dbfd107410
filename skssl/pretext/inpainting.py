"""Inpainting by context encoders: predict a region of an image from its surroundings."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, ClassVar

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.nn.adversarial import frozen_forward
from skssl.pretext.task import Task

if TYPE_CHECKING:
    from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class ContextEncoderTask(Task):
    """Predict a region of a view from its surroundings.

    The region is filled with the mean colour of the normalisation. The encoder reads the filled view, and a decoder
    predicts the region from the pooled features.

    Parameters
    ----------
    region : {"random", "center"}, default="random"
        "random": blobs of random shape that cover a quarter of the image, as for the paper's features. "center": the
        central half of each side. A margin of it is not filled.
    hidden_dim : int, default=256
        Channels of the decoder's first map, of 4x4 pixels. They are halved with each doubling of the side.
    margin_weight : float, default=10.0
        Weight of errors in the margin of the central region, relative to errors inside it. The margin is a sixteenth of
        the region's side, at least one pixel. The weight makes the prediction join its surroundings.
    adversarial_weight : float, default=0.0
        Weight of the adversarial loss, 0.001 in the code; that of the reconstruction is 1 minus it. A discriminator
        then learns to tell the region from the prediction, with a tenth of the learning rate. It sharpens the
        prediction, but the paper learns its features without it.

    References
    ----------
    Pathak et al., Context Encoders: Feature Learning by Inpainting, CVPR 2016, equations 1 to 3 and section 3.3. The
    blobs are the highest values of smooth noise, as in the code, which uses one mask per batch. The paper's encoder has
    a bottleneck of 4000 units instead of pooling; here the bottleneck is the method's features. The discriminator is
    DCGAN's, as wide as the decoder. It sees the predicted centre, as in the code, or the view with the predicted blobs;
    the code's decoder predicts the whole image, and the discriminator sees that. The code updates the discriminator
    first. Here all networks are updated at the same time, so the prediction is judged by the discriminator before its
    update. "inpainting_adversarial" in the history is weighted, "inpainting_discriminator" is not.

    Examples
    --------
    >>> from skssl import ContextEncoderTask, SimCLR
    >>> SimCLR(aux=ContextEncoderTask(hidden_dim=64)).aux
    ContextEncoderTask(hidden_dim=64)
    """

    region: str = "random"
    hidden_dim: int = 256
    margin_weight: float = 10.0
    adversarial_weight: float = 0.0

    name: ClassVar[str] = "inpainting"
    _parameter_constraints: ClassVar[dict] = {
        "region": [StrOptions({"random", "center"})],
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
        "margin_weight": [Interval(Real, 0, None, closed="left")],
        "adversarial_weight": [Interval(Real, 0, 1, closed="left")],
    }

    @property
    def chance(self) -> dict[str, float]:
        """The accuracy of a random guess, by the name of the measure."""
        return {"inpainting_discriminator_accuracy": 1 / 2} if self.adversarial_weight else {}

    @property
    def lr_factors(self) -> Mapping[str, float]:
        """A tenth of the learning rate for the discriminator, as in the code."""
        return {"inpainting_discriminator": 0.1}

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
        if self.adversarial_weight:
            net.inpainting_discriminator = dcgan_discriminator(net.shape[0], side, self.hidden_dim)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        view = batch.views[0]
        if self.region == "random":
            hole = random_region(len(view), view.shape[2], view.shape[3], view.device)
            part, weight = view, hole / hole.float().mean()
        else:
            rows, columns, margin = center_region(*view.shape[2:])
            part = view[:, :, rows, columns]
            weight = torch.full(part.shape[2:], float(self.margin_weight), device=view.device)
            weight[margin : len(weight) - margin, margin : weight.shape[1] - margin] = 1
            hole = torch.zeros(view.shape[2:], dtype=torch.bool, device=view.device)
            hole[rows.start + margin : rows.stop - margin, columns.start + margin : columns.stop - margin] = True
        made = net.inpainting_decoder(net.encoder(view * ~hole)).float()  # 0 is the mean of a normalised view
        side = made.shape[2:]
        made = F.interpolate(made, part.shape[2:], mode="bilinear")  # the identity if the side is a power of 2
        error = (weight * (made - part).square()).mean()
        if not self.adversarial_weight:
            return {"inpainting": error}
        if self.region == "random":
            made = torch.where(hole, made, part)
        real, made = (F.interpolate(images, side, mode="bilinear") for images in (part, made))
        scores, made_scores = (net.inpainting_discriminator(images).float() for images in (real, made.detach()))
        fooled = F.softplus(-frozen_forward(net.inpainting_discriminator, made).float()).mean()
        return {
            "inpainting": (1 - self.adversarial_weight) * error,
            "inpainting_adversarial": self.adversarial_weight * fooled,
            "inpainting_discriminator": F.softplus(-scores).mean() + F.softplus(made_scores).mean(),
            "inpainting_discriminator_accuracy": torch.cat([scores > 0, made_scores < 0]).float().mean(),
        }


def dcgan_discriminator(channels: int, side: int, width: int) -> nn.Sequential:
    """Build the discriminator of DCGAN for square images.

    Parameters
    ----------
    channels, side : int
        Channels and side of the images. The side is a power of 2, at least 4.
    width : int
        Channels of the last map, of 4x4 pixels. They are doubled with each halving of the side.

    Returns
    -------
    torch.nn.Sequential
        Maps images (n, channels, side, side) to the logits of being real, (n,).

    References
    ----------
    Radford et al., Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks, ICLR
    2016: strided convolutions, LeakyReLU, BatchNorm except in the first layer, weights of a deviation of 0.02.

    Examples
    --------
    >>> import torch
    >>> from skssl.pretext.inpainting import dcgan_discriminator
    >>> dcgan_discriminator(3, 16, 32)(torch.zeros(5, 3, 16, 16)).shape
    torch.Size([5])
    """
    n_halvings = side.bit_length() - 3
    widths = [channels, *(max(int(width) // 2**i, 1) for i in reversed(range(n_halvings)))]
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        norm = nn.BatchNorm2d(n_out) if i else nn.Identity()
        layers += [nn.Conv2d(n_in, n_out, 4, stride=2, padding=1, bias=not i), norm, nn.LeakyReLU(0.2, inplace=True)]
    net = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4), nn.Flatten(0))
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            nn.init.normal_(module.weight, float(isinstance(module, nn.BatchNorm2d)), 0.02)
    return net


def random_region(n: int, height: int, width: int, device: torch.device) -> Tensor:
    """Draw random blobs that cover a quarter of each image, the highest values of smooth noise.

    Parameters
    ----------
    n, height, width : int
        Number of images, and their sides.
    device : torch.device
        Device of the result.

    Returns
    -------
    bool Tensor of shape (n, 1, height, width)
        True in the blobs, which are drawn from torch's global generator.

    Examples
    --------
    >>> import torch
    >>> from skssl.pretext.inpainting import random_region
    >>> random_region(3, 32, 32, torch.device("cpu")).sum((1, 2, 3))
    tensor([256, 256, 256])
    """
    cells = [min(side, 8) for side in (height, width)]  # as in the code: 0.06 values per pixel for images of 128 pixels
    noise = F.interpolate(torch.rand(n, 1, *cells, device=device), (height, width), mode="bicubic").flatten(1)
    count = max(1, noise.shape[1] // 4)
    least = noise.topk(count, dim=1).values[:, -1:]  # torch.kthvalue is not deterministic on CUDA
    return (noise >= least).view(n, 1, height, width)


def center_region(height: int, width: int) -> tuple[slice, slice, int]:
    """Return the central region of an image and the width of its margin.

    Parameters
    ----------
    height, width : int
        Sides of the image.

    Returns
    -------
    rows, columns : slice
        The central half of each side, at least one pixel.
    margin : int
        Width in pixels of the margin inside the region, which is not filled.

    Examples
    --------
    >>> from skssl.pretext.inpainting import center_region
    >>> center_region(128, 128)
    (slice(32, 96, None), slice(32, 96, None), 4)
    """
    sides = [max(1, side // 2) for side in (height, width)]
    starts = [(side - half) // 2 for side, half in zip((height, width), sides, strict=True)]
    rows, columns = (slice(start, start + half) for start, half in zip(starts, sides, strict=True))
    return rows, columns, min(max(1, min(sides) // 16), (min(sides) - 1) // 2)
