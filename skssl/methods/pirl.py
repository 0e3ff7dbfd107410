"""PIRL: an image, and its tiles in a random order, are both compared with the image's vector in a memory bank."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from sklearn.base import clone
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.augment import Augmentation, as_augmentations
from skssl.base import SSLTransformer
from skssl.devices import SMALLEST_BFLOAT16
from skssl.engine import Batch, Objective
from skssl.losses import nce
from skssl.nn import MemoryBank

GRID = 3  # tiles a side
CROP = Augmentation(crop_scale=(0.6, 1.0), jitter=0.0, gray=0.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@dataclass(kw_only=True, eq=False, repr=False)
class PIRL(SSLTransformer):
    """PIRL with Jigsaw: representations that do not depend on the order of an image's tiles.

    Each image has a view, and nine tiles of a crop of its own in a random order. Both embeddings have the image's
    vector in a memory bank for a positive, and others' vectors for negatives; they are not compared with each other.

    Parameters
    ----------
    image_weight : float, default=0.5
        Weight of the view's loss, in [0, 1]; the tiles' has the rest.
    temperature : float, default=0.07
        Of the cosines.
    n_negatives : int, default=4096
        Negatives an image, drawn with replacement. ImageNet: 32000.
    bank_momentum : float, default=0.5
        What a vector keeps of itself when its image is seen; it moves to the view's embedding.
    proj_dim : int, default=128
        Width of the embeddings.
    tile_size : int, default=None
        To how many pixels a side the tiles are resized. By default they stay as they are cut: 9 for images of 32, and
        64 for 224.

    References
    ----------
    Misra and van der Maaten, Self-Supervised Learning of Pretext-Invariant Representations, CVPR 2020, equations 3 to
    5; heads and settings of the code in VISSL, of whose colours we have jitter and grey.

    Examples
    --------
    >>> from skssl import PIRL
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = PIRL(backbone="convnet", n_negatives=32, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.history_.columns[1:4].tolist()
    ['loss', 'nce_image', 'nce_tiles']
    """

    image_weight: float = 0.5
    temperature: float = 0.07
    n_negatives: int = 4096
    bank_momentum: float = 0.5
    proj_dim: int = 128
    tile_size: int | None = None

    per_image: ClassVar[bool] = True
    paper: ClassVar[dict[str, Any]] = {
        "augment": "pirl",
        "optimizer": "sgd",
        "lr": 0.03,
        "weight_decay": 1e-4,
        "schedule": "cosine",
        "warmup": 0.0,
        "aux_weight": 1.0,
    }
    _parameter_constraints: ClassVar[dict] = {
        "image_weight": [Interval(Real, 0, 1, closed="both")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "n_negatives": [Interval(Integral, 1, None, closed="left")],
        "bank_momentum": [Interval(Real, 0, 1, closed="both")],
        "proj_dim": [Interval(Integral, 1, None, closed="left")],
        "tile_size": [Interval(Integral, 1, None, closed="left"), None],
    }

    @property
    def n_views(self) -> int:
        """One; the tiles are cut from the image."""
        return 1

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        net.projector = nn.Linear(dim, self.proj_dim)
        net.tile_projector = nn.Linear(dim, self.proj_dim)
        net.tiles_projector = nn.Linear(GRID**2 * self.proj_dim, self.proj_dim)
        net.bank = MemoryBank(n_samples, self.proj_dim, self.bank_momentum)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        (view,) = batch.views
        image, tiles = net.projector(net.encoder(view)), self._embed_tiles(net, batch)
        numbers = {}
        for name, v, weight in (("nce_image", image, self.image_weight), ("nce_tiles", tiles, 1 - self.image_weight)):
            log_p = net.bank.log_p(v, batch.index, self.n_negatives, self.temperature)
            numbers[name] = weight * nce(log_p, net.n_samples)
        net.bank.update(batch.index, image)  # the tiles never enter the bank
        return numbers

    def _embed_tiles(self, net: Objective, batch: Batch) -> Tensor:
        """Embed each image's tiles, which have colours of their own, in an order of its own, all in one pass."""
        n, _, *sides = batch.images.shape
        crop = clone(CROP).set_params(size=max(round(min(sides) * 255 / 224), GRID))
        tiles = cut_tiles(crop(batch.images, batch.generator), GRID)  # (n, 9, c, side, side)
        colour = clone(as_augmentations(self.setting("augment"), max(sides))[0])
        colour.set_params(crop_scale=None, crop_padding=0, flip=0.0, size=None)
        tiles = colour(tiles.flatten(0, 1), batch.generator).unflatten(0, (n, -1))
        order = torch.rand(n, GRID**2, device=tiles.device).argsort(1)
        shuffled = tiles[torch.arange(n, device=tiles.device)[:, None], order]
        features = encode_tiles(net.encoder, shuffled.to(batch.views[0]), self.tile_size)
        return net.tiles_projector(net.tile_projector(features).flatten(1))


def cut_tiles(images: Tensor, grid: int, share: float = 0.75) -> Tensor:
    """Cut a grid of square tiles out of every image, each from a random place within its cell.

    Parameters
    ----------
    images : Tensor of shape (n, c, h, w)
        Images of `grid` pixels a side or more.
    grid : int
        Tiles a side.
    share : float, default=0.75
        Side of a tile as a share of its cell's, rounded.

    Returns
    -------
    Tensor of shape (n, grid * grid, c, side, side)
        The tiles, row by row.

    Examples
    --------
    >>> import torch
    >>> from skssl.methods.pirl import cut_tiles
    >>> cut_tiles(torch.arange(9.0).view(1, 1, 3, 3), grid=3).flatten()
    tensor([0., 1., 2., 3., 4., 5., 6., 7., 8.])
    """
    n, _, *lengths = images.shape
    device = images.device
    side = max(round(min(lengths) // grid * share), 1)
    place = torch.arange(grid**2, device=device)
    pixels = []
    for length, cell in zip(lengths, (place // grid, place % grid), strict=True):
        within = torch.randint(length // grid - side + 1, (n, grid**2), device=device)
        pixels.append((cell * (length // grid) + within)[..., None] + torch.arange(side, device=device))
    rows, columns = pixels  # (n, grid * grid, side)
    which = torch.arange(n, device=device).view(n, 1, 1, 1)
    return images[which, :, rows[..., :, None], columns[..., None, :]].movedim(-1, 2)


def encode_tiles(encoder: nn.Module, tiles: Tensor, size: int | None = None) -> Tensor:
    """Encode tiles (n, tiles, c, h, w) in one pass as features (n, tiles, d), resized if a size is given."""
    flat = tiles.flatten(0, 1)
    if size is not None:
        flat = F.interpolate(flat, size=(size, size), mode="bilinear", antialias=True)
    # A CPU's bfloat16 gradient is wrong where a map is one pixel wide, see `devices.resolve_precision`.
    small = flat.device.type == "cpu" and min(flat.shape[2:]) < SMALLEST_BFLOAT16
    with torch.autocast("cpu", enabled=False) if small else contextlib.nullcontext():
        features = encoder(flat.contiguous(memory_format=torch.channels_last))
    return features.unflatten(0, tiles.shape[:2])
