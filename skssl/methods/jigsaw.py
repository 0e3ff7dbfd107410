"""Jigsaw: solving puzzles as a method of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from skssl.methods.pretext import PretextMethod
from skssl.pretext.jigsaw import JigsawTask


@dataclass(kw_only=True, eq=False, repr=False)
class Jigsaw(JigsawTask, PretextMethod):
    """Jigsaw: learn by telling in which order the tiles of an image have been laid.

    The tiles are cut from the images themselves; `augment` serves auxiliary tasks alone.

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

    _parameter_constraints: ClassVar[dict] = {
        **PretextMethod._parameter_constraints,
        **JigsawTask._parameter_constraints,
    }
