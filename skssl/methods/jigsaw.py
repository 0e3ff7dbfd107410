"""Jigsaw: solving puzzles as a method of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from skssl.methods.pretext import PretextMethod
from skssl.pretext.jigsaw import JigsawTask


@dataclass(kw_only=True, eq=False, repr=False)
class Jigsaw(PretextMethod):
    """Jigsaw: learn by telling in which order the tiles of an image have been laid.

    The tiles are cut from the images themselves; `augment` serves auxiliary tasks alone.

    Parameters
    ----------
    grid : int, default=3
        Tiles a side.
    n_permutations : int, default=100
        How many permutations there are to tell apart: 64 at first in the paper, then 1000.
    gray : float, default=0.2
        The probability that an image is grey.
    flip : float, default=0.5
        The probability that an image is mirrored.
    tile_dim : int, default=256
        What the features of a tile are reduced to.
    tile_size : int, default=None
        To how many pixels a side tiles are resized. None: not at all.

    References
    ----------
    Noroozi and Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles, ECCV 2016. Details
    and where they differ are `JigsawTask`'s; learning rate and schedule are those of our RotNet.

    Examples
    --------
    >>> from skssl import Jigsaw
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = Jigsaw(backbone="convnet", tile_dim=16, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.history_.columns[:4].tolist()
    ['epoch', 'loss', 'jigsaw', 'jigsaw_accuracy']
    """

    grid: int = 3
    n_permutations: int = 100
    gray: float = 0.2
    flip: float = 0.5
    tile_dim: int = 256
    tile_size: int | None = None

    task_class: ClassVar[Any] = JigsawTask
    _parameter_constraints: ClassVar[dict] = {
        **PretextMethod._parameter_constraints,
        **JigsawTask._parameter_constraints,
    }
