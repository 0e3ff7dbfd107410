"""Relative patch location as a method of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from skssl.methods.pretext import PretextMethod
from skssl.pretext.relative_patch import RelativePatchTask


@dataclass(kw_only=True, eq=False, repr=False)
class RelativePatch(PretextMethod):
    """Context prediction: learn by telling on which side of a patch another one was.

    The patches are cut from the images themselves; `augment` serves auxiliary tasks alone.

    Parameters
    ----------
    grid : int, default=3
        Patches a side.
    hidden_dim : int, default=512
        Width of the head's hidden layer; the papers' are of 4096.
    drop_colors : float, default=1.0
        The probability, for each patch, that all but one of its channels become faint noise.
    tile_size : int, default=None
        To how many pixels a side patches are resized. None: not at all.

    References
    ----------
    Doersch et al., Unsupervised Visual Representation Learning by Context Prediction, ICCV 2015. Details and where
    they differ are `RelativePatchTask`'s; learning rate and schedule are those of our RotNet. Images of 32x32 have
    patches of 8x8: expect weak features.

    Examples
    --------
    >>> from skssl import RelativePatch
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = RelativePatch(backbone="convnet", epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.history_.columns[:4].tolist()
    ['epoch', 'loss', 'relative_patch', 'relative_patch_accuracy']
    """

    grid: int = 3
    hidden_dim: int = 512
    drop_colors: float = 1.0
    tile_size: int | None = None

    task_class: ClassVar[Any] = RelativePatchTask
    _parameter_constraints: ClassVar[dict] = {
        **PretextMethod._parameter_constraints,
        **RelativePatchTask._parameter_constraints,
    }
