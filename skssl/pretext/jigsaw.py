"""Jigsaw puzzles: predict the permutation of the tiles of an image."""

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
from skssl.losses.precision import full_precision
from skssl.pretext.task import Task
from skssl.pretext.tiles import cut_tiles, encode_tiles, normalize_tiles

if TYPE_CHECKING:
    from skssl.training.objective import Batch, Objective

SEED = 0  # of the permutations, which are the same in every training, as they define the task


@dataclass(kw_only=True, eq=False, repr=False)
class JigsawTask(Task):
    """Predict the permutation of the tiles of an image.

    The tiles are cut from the original images, not from their views. Every channel of a tile is standardised, which
    removes the low-level statistics that give its position away (and the channel shifts that some codes add). All tiles
    go through the encoder in one pass and share the statistics of BatchNorm.

    Parameters
    ----------
    grid : int, default=3
        Tiles per side. The side of a tile is three quarters of its cell's, at a random position: 8 of 10 pixels on
        CIFAR, and 64 of 85 in the papers, whose images have a side of 255.
    n_permutations : int, default=100
        Number of permutations (classes), chosen by `far_permutations`: 100 in EffSSL, 1000 or 2000 if Jigsaw is the
        only task, on ImageNet.
    gray : float, default=0.2
        The probability that an image is made grey, as chromatic aberration reveals the position of a tile.
    flip : float, default=0.5
        The probability that an image is flipped horizontally before it is cut.
    tile_dim : int, default=256
        Width to which the features of a tile are reduced before the features of all tiles are concatenated.
    tile_size : int, default=None
        Side in pixels to which tiles are resized, for encoders that cannot read small images (AlexNet needs 63). None
        keeps their size.

    References
    ----------
    Noroozi and Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles, ECCV 2016. As an
    auxiliary task: Towards Efficient and Effective Self-Supervised Learning of Visual Representations, ECCV 2022,
    section 5.5. Its code has the head on the features, and tiles in column-major order (here row-major). It does not
    state the weight; here it is that of rotation.

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
    reads_images: ClassVar[bool] = True
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
                f"The 'n_permutations' parameter of JigsawTask must be at most {most}, the number of permutations of "
                f"{self.grid**2} tiles. Got {self.n_permutations!r} instead."
            )

    @property
    def chance(self) -> dict[str, float]:
        """The accuracy of a random guess, by the name of the measure."""
        return {"jigsaw_accuracy": 1 / self.n_permutations}

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
    """Make random images grey, and flip random images horizontally.

    Parameters
    ----------
    images : Tensor of shape (n, c, h, w), float32
        Images.
    gray, flip : float
        The probabilities, for each image.

    Returns
    -------
    Tensor of shape (n, c, h, w), float32
        The images. Random numbers come from torch's global generator.

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
    """Select permutations greedily, each with the largest mean Hamming distance to those before it.

    The sum of the distances to the selected permutations is a sum over positions, so the farthest permutation solves an
    assignment problem. Random noise breaks ties. If the solution has been selected before, the noise is increased until
    a new permutation is found.

    Parameters
    ----------
    length : int
        Length of the permutations.
    count : int
        Number of permutations, at most length!.
    seed : int
        Seed of the first permutation and of the ties.

    Returns
    -------
    int64 ndarray of shape (count, length)
        The permutations, all different.

    Examples
    --------
    >>> from skssl.pretext.jigsaw import far_permutations
    >>> far_permutations(3, 3, seed=0)  # each number once at each position
    array([[2, 0, 1],
           [0, 1, 2],
           [1, 2, 0]])
    """
    draw = np.random.default_rng(seed)
    place = np.arange(length)
    used = np.zeros((length, length))  # counts of each number (column) at each position (row)
    chosen: dict[tuple[int, ...], None] = {}
    weight = 1 / (2 * length)  # small enough to break ties only
    while len(chosen) < count:
        permutation = linear_sum_assignment(used + weight * draw.random(used.shape))[1]
        if tuple(permutation) in chosen:
            weight *= 1.5
            continue
        chosen[tuple(permutation)] = None
        used[place, permutation] += 1
        weight = 1 / (2 * length)
    return np.array(list(chosen), dtype=np.int64)
