"""Colorization as a method of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from skssl.methods.pretext import PretextMethod
from skssl.methods.settings import Settings
from skssl.pretext.colorization import ColorizationTask


@dataclass(kw_only=True, eq=False, repr=False)
class Colorization(ColorizationTask, PretextMethod):
    """Colorization: learn by predicting the colours of an image from its luminance.

    The encoder, which has three channels all the same, sees grey images alone while it is trained. `transform` shows it
    the images as they are; what its first layer then makes of colours, beyond their mean, is what it made of them
    before the training. `augment` serves auxiliary tasks alone.

    References
    ----------
    Zhang et al., Colorful Image Colorization, ECCV 2016. Details and where they differ are `ColorizationTask`'s; the
    decoder is ours, and so are learning rate and schedule.

    Examples
    --------
    >>> from skssl import Colorization
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = Colorization(backbone="convnet", hidden_dim=16, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.history_.columns[:3].tolist()
    ['epoch', 'loss', 'colorization']
    """

    default_settings: ClassVar[Settings] = replace(
        PretextMethod.default_settings,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=1e-3,
        schedule="cosine",
    )
    _parameter_constraints: ClassVar[dict] = {
        **PretextMethod._parameter_constraints,
        **ColorizationTask._parameter_constraints,
    }
