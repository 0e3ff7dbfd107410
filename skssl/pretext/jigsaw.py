"""Jigsaw: tell in which order the tiles of an image have been laid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.augment.color import LUMA
from skssl.losses import full_precision
from skssl.pretext.task import Task
from skssl.pretext.tiles import cut_tiles, encode_tiles, normalize_tiles

if TYPE_CHECKING:
    from skssl.training.objective import Batch, Objective

SEED = 0  # of the permutations, which are the same in every training: another set would be another task


@dataclass(kw_only=True, eq=False, repr=False)
class JigsawTask(Task):
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
    reads_views: ClassVar[bool] = False
    _parameter_constraints: ClassVar[dict] = {
        "grid": [Interval(Integral, 2, 8, closed="both")],
        "n_permutations": [Interval(Integral, 2, 10000, closed="both")],
        "gray": [Interval(Real, 0, 1, closed="both")],
        "flip": [Interval(Real, 0, 1, closed="both")],
        "tile_dim": [Interval(Integral, 1, None, closed="left")],
        "tile_size": [Interval(Integral, 1, None, closed="left"), None],
    }

    def _validate_params(self) -> None:
        super()._validate_params()
        most = math.factorial(self.grid**2)
        if self.n_permutations > most:
            raise ValueError(
                f"The 'n_permutations' parameter of JigsawTask must be at most {most}, as many as there are of "
                f"{self.grid**2} tiles. Got {self.n_permutations!r} instead."
            )

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        tile = nn.Linear(dim, self.tile_dim, bias=False), nn.BatchNorm1d(self.tile_dim), nn.ReLU(inplace=True)
        net.jigsaw_tile = nn.Sequential(*tile)
        net.jigsaw_head = nn.Linear(self.grid**2 * self.tile_dim, self.n_permutations)
        permutations = far_permutations(self.grid**2, self.n_permutations, SEED)
        net.register_buffer("jigsaw_permutations", torch.from_numpy(permutations))

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
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
    if images.shape[1] == 3:
        grey = sum(share * images[:, i, None] for i, share in enumerate(LUMA))
        images = torch.where(drawn[0, :, None, None, None] < gray, grey, images)
    return torch.where(drawn[1, :, None, None, None] < flip, images.flip(3), images)


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
