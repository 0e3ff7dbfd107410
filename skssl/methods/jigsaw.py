"""Jigsaw: solving jigsaw puzzles as a method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from skssl.methods.pretext import PretextMethod
from skssl.pretext.jigsaw import JigsawTask


@dataclass(kw_only=True, eq=False, repr=False)
class Jigsaw(JigsawTask, PretextMethod):
    """Jigsaw: predict the permutation in which the tiles of an image were arranged.

    The tiles are cut from the original images. `augment` is only used by auxiliary tasks.

    References
    ----------
    Noroozi and Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles, ECCV 2016. The paper
    has 64 permutations at first, later 1000. `JigsawTask` lists the other differences. Learning rate and schedule are
    those of `RotNet`.

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
