"""SimSiam: predict one view from the other; a stopped gradient alone keeps it from collapsing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from skssl.methods.settings import Settings
from skssl.methods.siamese import Siamese


@dataclass(kw_only=True, eq=False, repr=False)
class SimSiam(Siamese):
    """SimSiam: each view's projection is predicted from the other's, with no negatives and no momentum copy.

    Parameters
    ----------
    proj_dim : int, default=2048
        Width of the projector, hidden and output.
    proj_layers : int, default=2
        Its layers: 2 on CIFAR, 3 on ImageNet.
    pred_dim : int, default=512
        Width of the predictor's hidden layer. Its learning rate stays constant.
    predictor : bool, default=True
        Whether there is one. Without it the symmetric form collapses.
    stop_gradient : {"symmetric", "guided", "random", "reverse"}, default="symmetric"
        Which view of a pair gets no gradient: each in turn, or as in `SimSiamGSG`.
    pairing : {"fresh", "shared"}, default="fresh"
        As in `SimSiamGSG`; not used by the symmetric form.

    References
    ----------
    Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021; the settings are those of its appendix D
    for CIFAR-10. The projector's last BatchNorm has no scale and shift, as in the reference code.

    Examples
    --------
    >>> from skssl import SimSiam
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = SimSiam(backbone="convnet", proj_dim=64, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.history_[["epoch", "negative_cosine"]].shape
    (1, 2)
    """

    default_settings: ClassVar[Settings] = Settings(
        augment="simsiam",
        optimizer="sgd",
        lr=0.03,
        weight_decay=5e-4,
        schedule="epoch_cosine",
        warmup=0.0,
        aux_weight=0.1,
    )
    unscheduled: ClassVar[tuple[str, ...]] = ("predictor",)


@dataclass(kw_only=True, eq=False, repr=False)
class SimSiamGSG(SimSiam):
    """SimSiam with guided stop-gradient: of two images, the two nearest views are pulled apart.

    Images are paired at random. Of the four distances between the one's views and the other's, the smallest decides:
    its two views are moved towards their siblings, which get no gradient. So images that are too near each other
    repel without being called negatives.

    Parameters
    ----------
    proj_dim : int, default=2048
        Width of the projector, hidden and output.
    proj_layers : int, default=2
        Its layers: 2 on CIFAR, 3 on ImageNet.
    pred_dim : int, default=512
        Width of the predictor's hidden layer. Its learning rate stays constant.
    predictor : bool, default=True
        Whether there is one. The guided form does not collapse without it.
    stop_gradient : {"guided", "random", "reverse", "symmetric"}, default="guided"
        The paper's variants: by chance, the siblings of the nearest two as sources, or SimSiam itself.
    pairing : {"fresh", "shared"}, default="fresh"
        Whether an image has two further views of its own as the second of a pair (four in all, as in the reference
        code), or the same two (half the cost).

    References
    ----------
    Lee and Lee, Implicit Contrastive Representation Learning with Guided Stop-gradient, NeurIPS 2023, section 4,
    algorithm 1; settings for CIFAR-10 of its section 5. The text there has no schedule; the code that it follows has
    the cosine. Pairs are drawn among the whole batch, on all devices (the reference code's, on each by itself).

    Examples
    --------
    >>> from skssl import SimSiamGSG
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = SimSiamGSG(backbone="convnet", proj_dim=64, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 128)
    """

    stop_gradient: str = "guided"

    default_settings: ClassVar[Settings] = replace(SimSiam.default_settings, augment="gsg-cifar10")
