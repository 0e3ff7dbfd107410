"""SimSiam: predict one view from the other; the stopped gradient prevents collapse."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from skssl.methods.settings import Settings
from skssl.methods.siamese import GuidedSiamese, Siamese


@dataclass(kw_only=True, eq=False, repr=False)
class SimSiam(Siamese):
    """SimSiam: predict each view's projection from the other view, without negatives or a momentum copy.

    The stopped gradient and the predictor prevent collapse. The learning rate of the predictor stays constant.

    Parameters
    ----------
    predictor : bool, default=True
        Whether there is a predictor. Without it, the training collapses.

    References
    ----------
    Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021. The settings are those of appendix D for
    CIFAR-10. The projector's last BatchNorm has no scale and shift, as in the reference code.

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
class SimSiamGSG(GuidedSiamese, SimSiam):
    """SimSiam with guided stop-gradient, which repels images that are too near each other without negatives.

    Images are paired at random. Among the four distances between the views of the first and of the second image, the
    smallest selects one view of each. The selected views predict their siblings, whose gradient is stopped, and so move
    away from each other.

    Parameters
    ----------
    predictor : bool, default=True
        Whether there is a predictor. ``stop_gradient="guided"`` does not collapse without it.

    References
    ----------
    Lee and Lee, Implicit Contrastive Representation Learning with Guided Stop-gradient, NeurIPS 2023, section 4 and
    algorithm 1. The settings are those of section 5 for CIFAR-10. Section 5.1 says that there is no schedule; the code
    that it follows has a cosine, the default here. The crops have at least 0.08 of the area, those of `SimSiam` 0.2, so
    compare with ``SimSiamGSG(stop_gradient="symmetric")``. Pairs are drawn from the whole batch over all devices; the
    reference code draws them on each device separately.

    Examples
    --------
    >>> from skssl import SimSiamGSG
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = SimSiamGSG(backbone="convnet", proj_dim=64, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 128)
    """

    default_settings: ClassVar[Settings] = replace(SimSiam.default_settings, augment="gsg-cifar10")
    _parameter_constraints: ClassVar[dict] = GuidedSiamese._parameter_constraints
