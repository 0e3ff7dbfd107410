"""Relative patch location (context prediction): predict the position of a patch relative to another."""

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

# Offsets of the second patch from the first, in row-major order. The label is the index in this list.
SIDES = [(i, j) for i, j in itertools.product((-1, 0, 1), repeat=2) if (i, j) != (0, 0)]


@dataclass(kw_only=True, eq=False, repr=False)
class RelativePatchTask(Task):
    """Predict the position of a patch relative to a neighbouring patch, one of eight.

    The patches are cut from the original image, not from its views, at random positions in the cells of a grid, so that
    the gaps vary. Each goes through the encoder once. The loss is over all ordered pairs of neighbours.

    Parameters
    ----------
    grid : int, default=3
        Patches per side.
    hidden_dim : int, default=512
        Width of the head's hidden layer; 4096 in the papers.
    drop_colors : float, default=1.0
        The probability, for each patch, that one random channel is kept and the others are replaced by weak noise. This
        hides chromatic aberration, which reveals the position of a patch in a photograph.
    tile_size : int, default=None
        Side in pixels to which patches are resized, for encoders that cannot read small images (AlexNet needs 63). None
        keeps their size.

    References
    ----------
    Doersch et al., Unsupervised Visual Representation Learning by Context Prediction, ICCV 2015, section 3. Its random
    downsampling is left out, as patches of small images have a low resolution already. Its patches of 96 pixels have
    gaps of about 48 pixels. Here the gaps are those of Jigsaw's tiles, from 0 to two thirds of a patch.

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
    reads_images: ClassVar[bool] = True
    _parameter_constraints: ClassVar[dict] = {
        "grid": [Interval(Integral, 2, 8, closed="both")],
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
        "drop_colors": [Interval(Real, 0, 1, closed="both")],
        "tile_size": [Interval(Integral, 1, None, closed="left"), None],
    }

    @property
    def chance(self) -> dict[str, float]:
        """The accuracy of a random guess, by the name of the measure."""
        return {"relative_patch_accuracy": 1 / len(SIDES)}

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        net.relative_patch_head = MLP((2 * dim, self.hidden_dim, len(SIDES)))
        net.register_buffer("relative_patch_pairs", neighbor_pairs(self.grid))

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        patches = normalize_tiles(cut_tiles(batch.images.float(), self.grid))
        patches = drop_channels(patches, self.drop_colors)
        features = encode_tiles(net.encoder, patches, self.tile_size)  # (n, patches, d)
        first, second, side = net.relative_patch_pairs
        pairs = torch.cat([features[:, first], features[:, second]], dim=2)  # concatenated, as the order matters
        scores = net.relative_patch_head(pairs.flatten(0, 1)).float()  # (n * pairs, 8)
        label = side.repeat(len(patches))
        accuracy = (scores.argmax(1) == label).float().mean()
        return {"relative_patch": F.cross_entropy(scores, label), "relative_patch_accuracy": accuracy}


def neighbor_pairs(grid: int) -> Tensor:
    """Return all ordered pairs of neighbours in a grid.

    Parameters
    ----------
    grid : int
        Cells per side. Cells are numbered in row-major order.

    Returns
    -------
    int64 Tensor of shape (3, pairs)
        The first cell, the second cell, and the position of the second relative to the first: 0 to 7, row-major.

    Examples
    --------
    >>> from skssl.pretext.relative_patch import neighbor_pairs
    >>> neighbor_pairs(2)[:, 0]  # cell 1 is to the right of cell 0
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


def drop_channels(patches: Tensor, probability: float) -> Tensor:
    """Keep a random channel of each patch, and replace the others by noise of standard deviation 0.01.

    Parameters
    ----------
    patches : Tensor of shape (n, patches, c, h, w)
        Patches, whose channels are standardised.
    probability : float
        The probability of the change, for each patch.

    Returns
    -------
    Tensor of shape (n, patches, c, h, w)
        The patches. Random numbers come from torch's global generator.

    Examples
    --------
    >>> import torch
    >>> from skssl.pretext.relative_patch import drop_channels
    >>> (drop_channels(torch.ones(1, 1, 3, 1, 1), 1.0) == 1).sum()
    tensor(1)
    """
    n, count, c = patches.shape[:3]
    kept = torch.randint(c, (n, count, 1), device=patches.device) == torch.arange(c, device=patches.device)
    kept |= torch.rand(n, count, 1, device=patches.device) >= probability
    noise = (torch.rand_like(patches) - 0.5) * (0.01 * 12**0.5)  # uniform
    return torch.where(kept[..., None, None], patches, noise)
