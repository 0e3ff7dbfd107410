"""Context encoder: inpainting as a method."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from skssl.methods.pretext import PretextMethod
from skssl.methods.settings import Settings
from skssl.pretext.inpainting import ContextEncoderTask


@dataclass(kw_only=True, eq=False, repr=False)
class ContextEncoder(ContextEncoderTask, PretextMethod):
    """Context encoder: predict a missing region of an image from its surroundings.

    References
    ----------
    Pathak et al., Context Encoders: Feature Learning by Inpainting, CVPR 2016. `ContextEncoderTask` lists the
    differences. The learning rate and the schedule are ours. With `adversarial_weight`, DCGAN's `momentum` is 0.5.

    Examples
    --------
    >>> from skssl import ContextEncoder
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = ContextEncoder(backbone="convnet", hidden_dim=16, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.history_.columns[:3].tolist()
    ['epoch', 'loss', 'inpainting']
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
        **ContextEncoderTask._parameter_constraints,
    }
