"""Colorization: predict the colours of an image from its luminance, as cells of the ab plane of Lab."""

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
from skssl.losses.precision import full_precision
from skssl.nn.distributed import all_reduce_mean, n_processes
from skssl.pretext.task import Task

if TYPE_CHECKING:
    from skssl.training.objective import Batch, Objective

# sRGB's primaries in XYZ, with each row divided by the white point D65, and the threshold of CIE's cube root.
XYZ = (
    (0.4124564 / 0.95047, 0.3575761 / 0.95047, 0.1804375 / 0.95047),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339 / 1.08883, 0.1191920 / 1.08883, 0.9503041 / 1.08883),
)
BEND = 6 / 29
STEP, NEIGHBOURS, SIGMA = 10.0, 5, 5.0  # side of the cells; neighbours and width of the soft encoding
GRAY = 5.0  # an image is grey if |a| and |b| of every pixel are at most this


@dataclass(kw_only=True, eq=False, repr=False)
class ColorizationTask(Task):
    """Predict the colours of an image from its luminance.

    A random crop of the original image is flipped at random. The encoder reads its luminance, scaled to [-2, 2], in all
    three channels. A small decoder on the encoder's last map classifies the colour of a grid of pixels into the cells
    of the ab plane of Lab that contain colours of sRGB (260 cells with a side of 10). The loss is the cross-entropy
    with the true colour, which is a Gaussian over its five nearest cells. Rare colours have larger weights, and grey
    images have none.

    Parameters
    ----------
    stride : int, default=4
        Distance in pixels, along both axes, between the pixels whose colours are predicted.
    hidden_dim : int, default=128
        Channels of the decoder.
    uniform : float, default=0.5
        lambda of the paper's equation 4, in [0, 1]: the weight of a cell is the inverse of its frequency, which is
        mixed with a uniform distribution by this factor.
    crop_scale : tuple of float, default=(0.3, 1.0)
        The smallest and the largest area of the crop, relative to the image.

    References
    ----------
    Zhang et al., Colorful Image Colorization, ECCV 2016, equations 2 to 4. The code encodes by ten cells. Here the
    frequencies of colours are counted during training, over all images seen so far, instead of in advance. The
    recorded loss is the weighted one.

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
    reads_images: ClassVar[bool] = True
    _parameter_constraints: ClassVar[dict] = {
        "stride": [Interval(Integral, 1, None, closed="left")],
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
        "uniform": [Interval(Real, 0, 1, closed="both")],
        "crop_scale": ["array-like"],
    }

    @property
    def _augment(self) -> Augmentation:
        """The crop and the flip, without colour changes and normalisation."""
        black, white = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        return Augmentation(crop_scale=self.crop_scale, jitter=0.0, gray=0.0, mean=black, std=white)

    def _crop(self, batch: Batch) -> Tensor:
        """Crop and flip the images of a batch."""
        return self._augment(batch.images, batch.generator or torch.default_generator)

    def _validate_params(self) -> None:
        super()._validate_params()
        self._augment.validate()

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        if net.shape[0] != 3:
            raise ValueError(
                "Colorization needs colour images: expected X with 3 channels (red, green and blue), got "
                f"{net.shape[0]}."
            )
        with torch.device("cpu"):  # constants, also if the net is built on the meta device
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
        ab = lab[:, 1:, start[0] :: self.stride, start[1] :: self.stride]  # sampled, not averaged: (n, 2, h', w')
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
    """Return a convolution with BatchNorm and ReLU."""
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
    ratios = torch.stack([r * red + g * green + b * blue for r, g, b in XYZ], dim=1)  # relative to white
    root = torch.where(ratios > BEND**3, ratios.clamp(min=BEND**3) ** (1 / 3), ratios / (3 * BEND**2) + 4 / 29)
    x, y, z = root.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def color_cells() -> Tensor:
    """Return the cells of a grid on the ab plane that contain colours of sRGB.

    Returns
    -------
    float32 Tensor of shape (cells, 2)
        The centres of the cells.

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
    """Encode colours as distributions over their nearest cells.

    Parameters
    ----------
    ab : Tensor of shape (n, 2)
        Colours.
    cells : Tensor of shape (cells, 2)
        Centres of the cells.

    Returns
    -------
    Tensor of shape (n, cells)
        A Gaussian of the distance to the five nearest cells; rows sum to one.

    Examples
    --------
    >>> import torch
    >>> from skssl.pretext.colorization import soft_encode
    >>> soft_encode(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])).round(decimals=2)
    tensor([[0.7500, 0.1500, 0.1000]])
    """
    across, down = (ab[:, None] - cells).unbind(2)  # torch.cdist is less accurate
    squares = across.square() + down.square()  # (n, cells)
    nearest, place = squares.topk(min(NEIGHBOURS, len(cells)), largest=False)
    return torch.zeros_like(squares).scatter_(1, place, (-nearest / (2 * SIGMA**2)).softmax(1))


def color_weights(counts: Tensor, uniform: float) -> Tensor:
    """Compute weights of cells that are larger for rarer colours.

    Parameters
    ----------
    counts : Tensor of shape (cells,)
        Number of pixels counted in each cell.
    uniform : float
        Weight, in [0, 1], of the uniform distribution over nonempty cells that is mixed with the frequencies.

    Returns
    -------
    Tensor of shape (cells,)
        Weights, whose mean over all counted pixels is one. Empty cells have weight 0.

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
