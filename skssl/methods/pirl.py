"""PIRL: compare an image and its shuffled tiles with the image's vector in a memory bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar

import torch
from sklearn.base import clone
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn

from skssl.augment.augmentation import Augmentation
from skssl.augment.presets import as_augmentations
from skssl.augment.transforms import Transform
from skssl.methods.memory_bank import MemoryBankMethod
from skssl.methods.settings import Settings
from skssl.pretext.tiles import cut_tiles, encode_tiles
from skssl.training.objective import Batch, Objective

GRID = 3  # rows and columns of tiles
CROP = Augmentation(crop_scale=(0.6, 1.0), jitter=0.0, gray=0.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@dataclass(kw_only=True, eq=False, repr=False)
class PIRL(MemoryBankMethod):
    """PIRL: representations that are invariant to a Jigsaw transformation of the image.

    A view of each image and nine shuffled tiles of another crop of it are embedded. Both embeddings are compared with
    the image's vector in a memory bank, which is the positive, and with the vectors of other images. They are not
    compared with each other. The vectors in the bank are running means of the views' embeddings.

    Parameters
    ----------
    image_weight : float, default=0.5
        Weight of the view's loss, in [0, 1]. The tiles' loss has the weight 1 - `image_weight`.
    temperature : float, default=0.07
        Temperature of the cosine similarities.
    tile_size : int, default=None
        Side to which the tiles are resized, in pixels. None keeps their size: 9 pixels for images of 32, 64 for 224.

    References
    ----------
    Misra and van der Maaten, Self-Supervised Learning of Pretext-Invariant Representations, CVPR 2020, equations 3 to
    5. Heads and settings are those of the code in VISSL; of its colour augmentations, jitter and grey are used. Weight
    decay also applies to biases and normalisation layers.

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
    tile_size: int | None = None

    reads_images: ClassVar[bool] = True
    default_settings: ClassVar[Settings] = Settings(
        augment="pirl",
        optimizer="sgd",
        lr=0.03,
        weight_decay=1e-4,
        schedule="cosine",
        warmup=0.0,
        aux_weight=1.0,
    )
    _parameter_constraints: ClassVar[dict] = {
        **MemoryBankMethod._parameter_constraints,
        "image_weight": [Interval(Real, 0, 1, closed="both")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "tile_size": [Interval(Integral, 1, None, closed="left"), None],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        augment = self.setting("augment")
        if isinstance(augment, list) and isinstance(augment[0], Transform):
            raise TypeError(
                "PIRL changes the colours of tiles by an Augmentation, not by a Transform. Pass a preset's name or an "
                "Augmentation as 'augment'."
            )
        net.projector = nn.Linear(dim, self.proj_dim)
        net.tile_projector = nn.Linear(dim, self.proj_dim)
        net.tiles_projector = nn.Linear(GRID**2 * self.proj_dim, self.proj_dim)
        net.tile_augmentations = None  # made for the first batch
        super().build(net, dim, n_samples)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        (view,) = batch.views
        image, tiles = net.projector(net.encoder(view)), self._embed_tiles(net, batch)
        numbers = {}
        for name, v, weight in (("nce_image", image, self.image_weight), ("nce_tiles", tiles, 1 - self.image_weight)):
            numbers[name] = weight * self.nce(net, v, batch.index, self.temperature)
        net.bank.update(batch.index, image)  # the tiles never enter the bank
        return numbers

    def prepare(self, net: Objective, batch: Batch) -> None:  # noqa: D102
        batch.made["tiles"] = self._tiles(net, batch)

    def _tiles(self, net: Objective, batch: Batch) -> Tensor:
        """Cut each image into tiles with separate colours and shuffle them: (n, 9, c, side, side)."""
        n, _, *sides = batch.images.shape
        if net.tile_augmentations is None:
            net.tile_augmentations = self._tile_augmentations(sides)
        crop, colour = net.tile_augmentations
        tiles = cut_tiles(crop(batch.images, batch.generator), GRID)  # (n, 9, c, side, side)
        tiles = colour(tiles.flatten(0, 1), batch.generator).unflatten(0, (n, -1))
        order = torch.rand(n, GRID**2, device=tiles.device).argsort(1)
        return tiles[torch.arange(n, device=tiles.device)[:, None], order].to(batch.views[0])

    def _tile_augmentations(self, sides: Sequence[int]) -> tuple[Augmentation, Augmentation]:
        """Return the augmentation that crops images, and the one that changes the colours of their tiles."""
        crop = clone(CROP).set_params(size=max(round(min(sides) * 255 / 224), GRID))
        colour = clone(as_augmentations(self.setting("augment"), max(sides))[0])
        return crop, colour.set_params(crop_scale=None, crop_padding=0, saliency=None, flip=0.0, size=None)

    def _embed_tiles(self, net: Objective, batch: Batch) -> Tensor:
        """Embed the tiles of each image, in one pass of the encoder."""
        tiles = batch.made["tiles"] if "tiles" in batch.made else self._tiles(net, batch)
        features = encode_tiles(net.encoder, tiles, self.tile_size)
        return net.tiles_projector(net.tile_projector(features).flatten(1))
