"""Relative patch location, or context prediction, as a method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from skssl.methods.pretext import PretextMethod
from skssl.pretext.relative_patch import RelativePatchTask


@dataclass(kw_only=True, eq=False, repr=False)
class RelativePatch(RelativePatchTask, PretextMethod):
    """Context prediction: predict the location of a patch relative to another patch of the image.

    The patches are cut from the original images. `augment` is only used by auxiliary tasks.

    References
    ----------
    Doersch et al., Unsupervised Visual Representation Learning by Context Prediction, ICCV 2015. `RelativePatchTask`
    lists the differences. Learning rate and schedule are those of `RotNet`. The patches of 32x32 images have 8x8
    pixels, from which only weak features can be learned.

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
