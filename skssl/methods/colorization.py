"""Colorization as a method."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from skssl.methods.pretext import PretextMethod
from skssl.methods.settings import Settings
from skssl.pretext.colorization import ColorizationTask


@dataclass(kw_only=True, eq=False, repr=False)
class Colorization(ColorizationTask, PretextMethod):
    """Colorization: predict the colours of an image from its luminance.

    The encoder has three input channels, but sees only grey images in training. `transform` encodes the original
    images. The response of the first layer to differences between the channels is untrained. `augment` is only used by
    auxiliary tasks.

    References
    ----------
    Zhang et al., Colorful Image Colorization, ECCV 2016. `ColorizationTask` lists the differences. The decoder, the
    learning rate and the schedule are ours.

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
