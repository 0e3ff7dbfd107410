"""Colorization: which colours did a grey image have before it was grey? Answered in cells of the ab plane of Lab."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.augment.augmentation import Augmentation
from skssl.backbones import feature_map, map_channels
from skssl.losses import full_precision
from skssl.nn.distributed import all_reduce_mean, n_processes
from skssl.pretext.task import Task

if TYPE_CHECKING:
    from skssl.training.objective import Batch, Objective

# sRGB's primaries in XYZ, each row divided by D65's white, and the bend of CIE's cube root.
XYZ = (
    (0.4124564 / 0.95047, 0.3575761 / 0.95047, 0.1804375 / 0.95047),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339 / 1.08883, 0.1191920 / 1.08883, 0.9503041 / 1.08883),
)
BEND = 6 / 29
STEP, NEIGHBOURS, SIGMA = 10.0, 5, 5.0  # of the bins: the grid, and the soft encoding
GRAY = 5.0  # where neither a nor b of any pixel is farther from 0, an image counts as grey


@dataclass(kw_only=True, eq=False, repr=False)
class ColorizationTask(Task):
    """Predict the colours of an image from its luminance.

    A crop of the original image, mirrored or not, goes through the encoder as its luminance alone, in all three
    channels and scaled to [-2, 2]. A small decoder on the encoder's last map gives for a grid of pixels the
    probabilities of the cells of the ab plane of Lab that sRGB's colours fall into (260 cells of a side of 10). They
    are compared by cross-entropy with the true colour, which is spread over its five nearest cells by a Gaussian. Rare
    colours weigh more, and grey images nothing.

    Parameters
    ----------
    stride : int, default=4
        Every how many pixels, along both axes, a colour is asked for.
    hidden_dim : int, default=128
        Channels of the decoder.
    uniform : float, default=0.5
        lambda of the paper's equation 4, in [0, 1]: a cell's weight is the inverse of its share of all colours mixed
        with so much of an even share.
    crop_scale : tuple of float, default=(0.3, 1.0)
        The least and the greatest area of the crop.

    References
    ----------
    Zhang et al., Colorful Image Colorization, ECCV 2016, equations 2 to 4; the code encodes by ten cells. The shares
    of the colours are counted over all images that have been seen, a whole data set after the first epoch, instead of
    in advance. The loss that is recorded is the weighted one.

    Examples
    --------
    >>> from skssl import ColorizationTask, SimCLR
    >>> SimCLR(aux=ColorizationTask(stride=8)).aux
    ColorizationTask(stride=8)
    """

    stride: int = 4
    hidden_dim: int = 128
    uniform: float = 0.5
    crop_scale: tuple[float, float] = (0.3, 1.0)

    name: ClassVar[str] = "colorization"
    reads_views: ClassVar[bool] = False
    _parameter_constraints: ClassVar[dict] = {
        "stride": [Interval(Integral, 1, None, closed="left")],
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
        "uniform": [Interval(Real, 0, 1, closed="both")],
        "crop_scale": ["array-like"],
    }

    @property
    def _augment(self) -> Augmentation:
        """The crop and the flip, which leave colours as they are, in [0, 1]."""
        black, white = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        return Augmentation(crop_scale=self.crop_scale, jitter=0.0, gray=0.0, mean=black, std=white)

    def _crop(self, batch: Batch) -> Tensor:
        """Crop and mirror a batch's images."""
        return self._augment(batch.images, batch.generator or torch.default_generator)

    def _validate_params(self) -> None:
        super()._validate_params()
        self._augment.validate()

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        if net.shape[0] != 3:
            raise ValueError(
                "Colorization learns from the colours of images: expected 3 channels (red, green and blue), got "
                f"{net.shape[0]}."
            )
        with torch.device("cpu"):  # they are known, also where only the shapes of a network are wanted
            cells = color_cells()
        net.colorization_decoder = _layers(map_channels(net.encoder, net.shape), self.hidden_dim)
        last = nn.Conv2d(self.hidden_dim, len(cells), 1)
        net.colorization_head = nn.Sequential(_layers(self.hidden_dim, self.hidden_dim), last)
        net.register_buffer("colorization_cells", cells)
        net.register_buffer("colorization_counts", torch.zeros(len(cells)))

    def prepare(self, net: Objective, batch: Batch) -> None:  # noqa: D102
        batch.made[self.name] = self._crop(batch)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        lab = rgb_to_lab(batch.made[self.name] if self.name in batch.made else self._crop(batch))
        gray = ((lab[:, :1] - 50) / 25).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        start = [min(self.stride // 2, side - 1) for side in lab.shape[2:]]
        ab = lab[:, 1:, start[0] :: self.stride, start[1] :: self.stride]  # points, not means: (n, 2, h', w')
        target = soft_encode(ab.movedim(1, 3).flatten(0, 2), net.colorization_cells)  # (n * h' * w', cells)
        net.colorization_counts.add_(n_processes() * all_reduce_mean(target.sum(0)))
        weight = color_weights(net.colorization_counts, self.uniform)[target.argmax(1)]
        coloured = (ab.abs().amax((1, 2, 3)) > GRAY).float()
        weight = weight * coloured.repeat_interleave(ab.shape[2] * ab.shape[3])
        decoded = net.colorization_decoder(feature_map(net.encoder, gray)[1])
        scores = net.colorization_head(F.interpolate(decoded, ab.shape[2:], mode="bilinear"))
        logs = scores.float().log_softmax(1).movedim(1, 3).flatten(0, 2)  # (n * h' * w', cells)
        return {"colorization": -(weight * (target * logs).sum(1)).mean()}


def _layers(n_in: int, n_out: int) -> nn.Sequential:
    """A convolution with BatchNorm and ReLU."""
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True))


@full_precision
def rgb_to_lab(images: Tensor) -> Tensor:
    """Convert sRGB to CIE Lab with the white point D65.

    Parameters
    ----------
    images : Tensor of shape (n, 3, h, w)
        Red, green and blue in [0, 1].

    Returns
    -------
    Tensor of shape (n, 3, h, w)
        L in [0, 100], a and b within about 110 of 0.

    Examples
    --------
    >>> import torch
    >>> from skssl.pretext.colorization import rgb_to_lab
    >>> rgb_to_lab(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)).flatten().round(decimals=1)
    tensor([53.2000, 80.1000, 67.2000])
    """
    linear = torch.where(images <= 0.04045, images / 12.92, ((images + 0.055) / 1.055).clamp(min=0) ** 2.4)
    red, green, blue = linear.unbind(1)
    ratios = torch.stack([r * red + g * green + b * blue for r, g, b in XYZ], dim=1)  # to white
    root = torch.where(ratios > BEND**3, ratios.clamp(min=BEND**3) ** (1 / 3), ratios / (3 * BEND**2) + 4 / 29)
    x, y, z = root.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def color_cells() -> Tensor:
    """List the cells of a grid on the ab plane that sRGB's colours fall into.

    Returns
    -------
    float32 Tensor of shape (cells, 2)
        Their centres.

    Examples
    --------
    >>> from skssl.pretext.colorization import color_cells
    >>> color_cells().shape
    torch.Size([260, 2])
    """
    levels = torch.linspace(0, 1, 52)
    lab = rgb_to_lab(torch.cartesian_prod(levels, levels, levels).view(-1, 3, 1, 1))
    return (lab[:, 1:, 0, 0] / STEP).round().unique(dim=0) * STEP


def soft_encode(ab: Tensor, cells: Tensor) -> Tensor:
    """Spread colours over their nearest cells.

    Parameters
    ----------
    ab : Tensor of shape (n, 2)
        Colours.
    cells : Tensor of shape (cells, 2)
        Centres of the cells.

    Returns
    -------
    Tensor of shape (n, cells)
        Shares: a Gaussian of the distance to the five nearest cells, which adds up to one.

    Examples
    --------
    >>> import torch
    >>> from skssl.pretext.colorization import soft_encode
    >>> soft_encode(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])).round(decimals=2)
    tensor([[0.7500, 0.1500, 0.1000]])
    """
    across, down = (ab[:, None] - cells).unbind(2)  # not cdist, whose products lose digits
    squares = across.square() + down.square()  # (n, cells)
    nearest, place = squares.topk(min(NEIGHBOURS, len(cells)), largest=False)
    return torch.zeros_like(squares).scatter_(1, place, (-nearest / (2 * SIGMA**2)).softmax(1))


def color_weights(counts: Tensor, uniform: float) -> Tensor:
    """Weigh the cells by how rare they are.

    Parameters
    ----------
    counts : Tensor of shape (cells,)
        How often each has come.
    uniform : float
        How much of an even share over those that have come is mixed with a cell's own.

    Returns
    -------
    Tensor of shape (cells,)
        Weights whose mean over all that has come is one.

    Examples
    --------
    >>> import torch
    >>> from skssl.pretext.colorization import color_weights
    >>> color_weights(torch.tensor([3.0, 1.0, 0.0]), uniform=0.0)
    tensor([0.6667, 2.0000, 0.0000])
    """
    share, come = counts / counts.sum(), counts > 0
    weight = come / ((1 - uniform) * share + uniform / come.sum()).clamp(min=torch.finfo(share.dtype).tiny)
    return weight / (weight * share).sum()
