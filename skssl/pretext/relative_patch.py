"""Relative patch location: on which side of a patch was another one? This is context prediction."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor
from torch.nn import functional as F

from skssl.nn.heads import MLP
from skssl.pretext.task import Task
from skssl.pretext.tiles import cut_tiles, encode_tiles, normalize_tiles

if TYPE_CHECKING:
    from skssl.training.objective import Batch, Objective

# The second patch seen from the first, row by row; the label is the place in this list.
SIDES = [(i, j) for i, j in itertools.product((-1, 0, 1), repeat=2) if (i, j) != (0, 0)]


@dataclass(kw_only=True, eq=False, repr=False)
class RelativePatchTask(Task):
    """Predict on which of eight sides of a patch another patch of the image was.

    Patches are cut from the original image, not from its views: a grid of them, each at a random place in its cell, so
    that there are gaps that vary. Each goes through the encoder once, and all pairs of neighbours are asked about, in
    both orders.

    Parameters
    ----------
    grid : int, default=3
        Patches a side.
    hidden_dim : int, default=512
        Width of the head's hidden layer; the papers' are of 4096.
    drop_colors : float, default=1.0
        The probability, for each patch, that one of its channels is kept and the others become faint noise. Chromatic
        aberration, which tells where in a photograph a patch was, then cannot be seen.
    tile_size : int, default=None
        To how many pixels a side patches are resized, for encoders that cannot read small ones (AlexNet needs 63).
        None: not at all.

    References
    ----------
    Doersch et al., Unsupervised Visual Representation Learning by Context Prediction, ICCV 2015, section 3. Its random
    loss of resolution is left out: patches of small images have none to lose. Its patches of 96 pixels
    are about 48 apart; here gaps are those of Jigsaw's tiles, from none to two thirds of a patch.

    Examples
    --------
    >>> from skssl import RelativePatchTask, SimCLR
    >>> SimCLR(aux=RelativePatchTask(grid=2)).aux
    RelativePatchTask(grid=2)
    """

    grid: int = 3
    hidden_dim: int = 512
    drop_colors: float = 1.0
    tile_size: int | None = None

    name: ClassVar[str] = "relative_patch"
    reads_views: ClassVar[bool] = False
    _parameter_constraints: ClassVar[dict] = {
        "grid": [Interval(Integral, 2, 8, closed="both")],
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
        "drop_colors": [Interval(Real, 0, 1, closed="both")],
        "tile_size": [Interval(Integral, 1, None, closed="left"), None],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        net.relative_patch_head = MLP((2 * dim, self.hidden_dim, len(SIDES)))
        net.register_buffer("relative_patch_pairs", neighbours(self.grid))

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        patches = normalize_tiles(cut_tiles(batch.images.float(), self.grid))
        patches = keep_one_channel(patches, self.drop_colors)
        features = encode_tiles(net.encoder, patches, self.tile_size)  # (n, patches, d)
        first, second, side = net.relative_patch_pairs
        pairs = torch.cat([features[:, first], features[:, second]], dim=2)  # joined, not added: the order counts
        scores = net.relative_patch_head(pairs.flatten(0, 1)).float()  # (n * pairs, 8)
        label = side.repeat(len(patches))
        accuracy = (scores.argmax(1) == label).float().mean()
        return {"relative_patch": F.cross_entropy(scores, label), "relative_patch_accuracy": accuracy}


def neighbours(grid: int) -> Tensor:
    """List all pairs of neighbours in a grid, in both orders.

    Parameters
    ----------
    grid : int
        Cells a side, numbered row by row.

    Returns
    -------
    int64 Tensor of shape (3, pairs)
        The first of each pair, the second, and the side of the first on which the second is: 0 to 7, row by row.

    Examples
    --------
    >>> from skssl.pretext.relative_patch import neighbours
    >>> neighbours(2)[:, 0]  # of the cell in the upper left the one to the right
    tensor([0, 1, 4])
    """
    cells = list(itertools.product(range(grid), repeat=2))
    pairs = [
        (cells.index((i, j)), cells.index((i + down, j + right)), side)
        for i, j in cells
        for side, (down, right) in enumerate(SIDES)
        if (i + down, j + right) in cells
    ]
    return torch.tensor(pairs).T


def keep_one_channel(patches: Tensor, probability: float) -> Tensor:
    """Keep a random channel of a patch and make the others noise of a hundredth of its deviation.

    Parameters
    ----------
    patches : Tensor of shape (n, patches, c, h, w)
        Patches whose channels have mean 0 and deviation 1.
    probability : float
        How likely this happens to a patch.

    Returns
    -------
    Tensor of shape (n, patches, c, h, w)
        The patches, changed by draws from the global generator.

    Examples
    --------
    >>> import torch
    >>> from skssl.pretext.relative_patch import keep_one_channel
    >>> (keep_one_channel(torch.ones(1, 1, 3, 1, 1), 1.0) == 1).sum()
    tensor(1)
    """
    n, count, c = patches.shape[:3]
    kept = torch.randint(c, (n, count, 1), device=patches.device) == torch.arange(c, device=patches.device)
    kept |= torch.rand(n, count, 1, device=patches.device) >= probability
    noise = (torch.rand_like(patches) - 0.5) * (0.01 * 12**0.5)  # uniform
    return torch.where(kept[..., None, None], patches, noise)
