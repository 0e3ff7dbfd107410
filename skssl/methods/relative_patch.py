"""Relative patch location as a method of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from skssl.methods.pretext import PretextMethod
from skssl.pretext.relative_patch import RelativePatchTask


@dataclass(kw_only=True, eq=False, repr=False)
class RelativePatch(RelativePatchTask, PretextMethod):
    """Context prediction: learn by telling on which side of a patch another one was.

    The patches are cut from the images themselves; `augment` serves auxiliary tasks alone.

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

    _parameter_constraints: ClassVar[dict] = {
        **PretextMethod._parameter_constraints,
        **RelativePatchTask._parameter_constraints,
    }
