"""Jigsaw: in which order have the tiles of this image been laid? And how to cut tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.augment import grayscale
from skssl.devices import autocast_for
from skssl.losses import full_precision

if TYPE_CHECKING:
    from skssl.engine import Batch, Objective

SEED = 0  # of the permutations, which are the same in every training: another set would be another task


@dataclass(kw_only=True, eq=False, repr=False)
class JigsawTask(BaseEstimator):
    """Predict the permutation in which the tiles of an image were laid.

    The tiles are cut from the original image, not from its views, one puzzle an image. Each is normalised by its own
    mean and deviation, channel by channel, which takes from it what would give its place away (and with it the shift
    of each channel that some codes add). All tiles go through the encoder in one pass, so that BatchNorm's statistics
    mix them.

    Parameters
    ----------
    grid : int, default=3
        Tiles a side. Each covers three quarters of its cell's side, at a random place: 8 of 10 pixels on CIFAR, 64 of
        85 in the papers, whose images are of 255.
    n_permutations : int, default=100
        How many permutations there are to tell apart, far from each other by `far_permutations`: 100 in EffSSL, 1000
        or 2000 where Jigsaw is the only task and the data are ImageNet.
    gray : float, default=0.2
        The probability that an image is grey: chromatic aberration tells where in a photograph a tile was.
    flip : float, default=0.5
        The probability that an image is mirrored before it is cut.
    tile_dim : int, default=256
        What the features of a tile are reduced to before those of all tiles are joined.
    tile_size : int, default=None
        To how many pixels a side tiles are resized, for encoders that cannot read small ones (AlexNet needs 63). None:
        not at all.

    References
    ----------
    Noroozi and Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles, ECCV 2016. As an
    auxiliary task: Towards Efficient and Effective Self-Supervised Learning of Visual Representations, ECCV 2022,
    section 5.5, whose code has the head on the features and tiles column by column, here row by row. It does not state
    the weight: that of rotation is taken.

    Examples
    --------
    >>> from skssl import JigsawTask, SimCLR
    >>> SimCLR(aux=JigsawTask(n_permutations=50)).aux
    JigsawTask(n_permutations=50)
    """

    grid: int = 3
    n_permutations: int = 100
    gray: float = 0.2
    flip: float = 0.5
    tile_dim: int = 256
    tile_size: int | None = None

    name: ClassVar[str] = "jigsaw"
    _parameter_constraints: ClassVar[dict] = {
        "grid": [Interval(Integral, 2, None, closed="left")],
        "n_permutations": [Interval(Integral, 2, None, closed="left")],
        "gray": [Interval(Real, 0, 1, closed="both")],
        "flip": [Interval(Real, 0, 1, closed="both")],
        "tile_dim": [Interval(Integral, 1, None, closed="left")],
        "tile_size": [Interval(Integral, 1, None, closed="left"), None],
    }

    def validate(self) -> None:
        """Refuse parameters that are out of range.

        Raises
        ------
        ValueError
            Naming the parameter, what was expected and what came.
        """
        self._validate_params()
        most = math.factorial(self.grid**2)
        if self.n_permutations > most:
            raise ValueError(
                f"The 'n_permutations' parameter of JigsawTask must be at most {most}, as many as there are of "
                f"{self.grid**2} tiles. Got {self.n_permutations!r} instead."
            )

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Put the head and the permutations on the net.

        Parameters
        ----------
        net : Objective
            The network.
        dim : int
            Width of the features.
        n_samples : int
            Number of training images; not used.
        """
        tile = nn.Linear(dim, self.tile_dim, bias=False), nn.BatchNorm1d(self.tile_dim), nn.ReLU(inplace=True)
        net.jigsaw_tile = nn.Sequential(*tile)
        net.jigsaw_head = nn.Linear(self.grid**2 * self.tile_dim, self.n_permutations)
        permutations = far_permutations(self.grid**2, self.n_permutations, SEED)
        net.register_buffer("jigsaw_permutations", torch.from_numpy(permutations))

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:
        """Lay a puzzle of each image, and compare what the head says with how it was laid.

        Parameters
        ----------
        net : Objective
            The network.
        batch : Batch
            The batch.

        Returns
        -------
        dict of str to scalar Tensor
            "jigsaw", the mean cross-entropy, and "jigsaw_accuracy".
        """
        n, device = len(batch.images), batch.images.device
        images = gray_and_mirror(batch.images.float(), self.gray, self.flip)
        tiles = normalize_tiles(cut_tiles(images, self.grid))
        label = torch.randint(self.n_permutations, (n,), device=device)
        laid = tiles[torch.arange(n, device=device)[:, None], net.jigsaw_permutations[label]]
        features = encode_tiles(net.encoder, laid, self.tile_size)
        reduced = net.jigsaw_tile(features.flatten(0, 1))  # (n * tiles, tile_dim)
        scores = net.jigsaw_head(reduced.view(n, -1)).float()  # (n, n_permutations)
        accuracy = (scores.argmax(1) == label).float().mean()
        return {"jigsaw": F.cross_entropy(scores, label), "jigsaw_accuracy": accuracy}


@full_precision
def gray_and_mirror(images: Tensor, gray: float, flip: float) -> Tensor:
    """Make some of the images grey, and mirror some from left to right.

    Parameters
    ----------
    images : Tensor of shape (n, c, h, w), float32
        Images.
    gray, flip : float
        The probability of either.

    Returns
    -------
    Tensor of shape (n, c, h, w), float32
        The same, changed by draws from the global generator.

    Examples
    --------
    >>> import torch
    >>> from skssl.pretext.jigsaw import gray_and_mirror
    >>> gray_and_mirror(torch.tensor([[[[1.0, 2.0]]]]), gray=0.0, flip=1.0)
    tensor([[[[2., 1.]]]])
    """
    drawn = torch.rand(2, len(images), device=images.device)
    images = grayscale(images, drawn[0] < gray)
    return torch.where(drawn[1, :, None, None, None] < flip, images.flip(3), images)


def cut_tiles(images: Tensor, grid: int, share: float = 0.75) -> Tensor:
    """Cut every image into a grid of tiles, each at a random place of its own in its cell.

    The gaps between tiles keep a network from following lines and colours across their borders.

    Parameters
    ----------
    images : Tensor of shape (n, c, h, w)
        Images. Where a side has fewer than two pixels a cell, they are enlarged first, pixel by pixel.
    grid : int
        Tiles a side. The grid, of the largest cells that fit, lies at a random place, too.
    share : float, default=0.75
        A tile's side as a share of its cell's, rounded.

    Returns
    -------
    Tensor of shape (n, grid * grid, c, side, side)
        The tiles, row by row, drawn from the global generator.

    Examples
    --------
    >>> import torch
    >>> from skssl.pretext.jigsaw import cut_tiles
    >>> cut_tiles(torch.zeros(5, 3, 32, 32), grid=3).shape
    torch.Size([5, 9, 3, 8, 8])
    """
    times = -(-2 * grid // min(images.shape[2:]))
    if times > 1:
        images = images.repeat_interleave(times, 2).repeat_interleave(times, 3)
    n, c, h, w = images.shape
    device = images.device
    side = max(1, round(share * (min(h, w) // grid)))

    def places(length: int) -> Tensor:
        """Which pixels of an axis each tile takes: (n, grid, grid, side)."""
        cell = length // grid
        origin = torch.randint(length - grid * cell + 1, (n, 1, 1, 1), device=device)
        within = torch.randint(cell - side + 1, (n, grid, grid, 1), device=device)
        return origin + within + torch.arange(side, device=device)

    steps = torch.arange(grid, device=device)
    rows = places(h) + steps.view(grid, 1, 1) * (h // grid)
    columns = places(w) + steps.view(grid, 1) * (w // grid)
    pixel = (rows[..., :, None] * w + columns[..., None, :]).view(n, 1, -1)  # grid * grid * side * side of them
    tiles = images.reshape(n, c, h * w).gather(2, pixel.expand(n, c, -1))
    return tiles.view(n, c, grid * grid, side, side).transpose(1, 2)


def normalize_tiles(tiles: Tensor) -> Tensor:
    """Bring every channel of every tile to mean 0 and deviation 1; an even one becomes 0.

    Parameters
    ----------
    tiles : Tensor of shape (n, tiles, c, h, w)
        Tiles.

    Returns
    -------
    Tensor of shape (n, tiles, c, h, w)
        The same, normalised.

    Examples
    --------
    >>> import torch
    >>> from skssl.pretext.jigsaw import normalize_tiles
    >>> normalize_tiles(torch.tensor([[[[[1.0, 5.0]]]]])).flatten()
    tensor([-1.,  1.])
    """
    deviation, mean = torch.std_mean(tiles, (3, 4), correction=0, keepdim=True)
    return (tiles - mean) / deviation.masked_fill(deviation < 1e-6, 1.0)


def encode_tiles(encoder: nn.Module, tiles: Tensor, size: int | None = None) -> Tensor:
    """Encode all tiles in one pass.

    Parameters
    ----------
    encoder : torch.nn.Module
        From images to features.
    tiles : Tensor of shape (n, tiles, c, h, w)
        Tiles.
    size : int, default=None
        To how many pixels a side they are resized first.

    Returns
    -------
    Tensor of shape (n, tiles, d)
        Their features.

    Examples
    --------
    >>> import torch
    >>> from skssl.backbones import ConvNet
    >>> from skssl.pretext.jigsaw import encode_tiles
    >>> encode_tiles(ConvNet(), torch.zeros(2, 9, 3, 8, 8)).shape
    torch.Size([2, 9, 128])
    """
    flat = tiles.flatten(0, 1)
    if size is not None:
        flat = F.interpolate(flat, size=(size, size), mode="bilinear", antialias=True)
    with autocast_for(flat):  # tiles may be too small for a CPU's bfloat16
        features = encoder(flat.contiguous(memory_format=torch.channels_last))
    return features.view(*tiles.shape[:2], -1)


def far_permutations(length: int, count: int, seed: int) -> np.ndarray:
    """Choose permutations one by one, each with the largest mean Hamming distance to those before it.

    The sum of the distances is that over places of how many of those before have another number there, so that the
    farthest permutation is the solution of an assignment problem. Among equals chance decides; where a permutation
    has been chosen already, chance is given more weight until a new one comes.

    Parameters
    ----------
    length : int
        How many numbers are permuted.
    count : int
        How many permutations, at most length!.
    seed : int
        Of the first permutation, and of the choice among equals.

    Returns
    -------
    int64 ndarray of shape (count, length)
        The permutations, all different.

    Examples
    --------
    >>> from skssl.pretext.jigsaw import far_permutations
    >>> far_permutations(3, 3, seed=0)  # each number once at each place
    array([[2, 0, 1],
           [0, 1, 2],
           [1, 2, 0]])
    """
    draw = np.random.default_rng(seed)
    place = np.arange(length)
    used = np.zeros((length, length))  # how often a number (column) stood at a place (row)
    chosen: dict[tuple[int, ...], None] = {}
    weight = 1 / (2 * length)  # so little that chance decides among equals only
    while len(chosen) < count:
        permutation = linear_sum_assignment(used + weight * draw.random(used.shape))[1]
        if tuple(permutation) in chosen:
            weight *= 1.5
            continue
        chosen[tuple(permutation)] = None
        used[place, permutation] += 1
        weight = 1 / (2 * length)
    return np.array(list(chosen), dtype=np.int64)
