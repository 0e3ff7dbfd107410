"""Tiny-ImageNet: images of 64 pixels."""

from __future__ import annotations

from typing import Any

from skssl.augment import Augmentation
from skssl.recipes.building import BY_DECOUPLING, Recipe, changed, new_recipe, w_mse_by_views
from skssl.recipes.cifar10 import ressl

# RotationDecoupling: images enlarged to 224 pixels, an AlexNet with BatchNorm. With NT-Xent the report enlarges them to
# 256 and crops 224, 7/8 of the side. The scores are of the last convolution, not of the block after it that
# `transform` returns. The code's rates are those of 245 epochs, of which 200 are trained. The NT-Xent script sets them
# after an epoch, so its first epoch has a rate of 0.1.

_report = "NT-Xent report"
_decoupling: dict[str, Any] = {
    "backbone": "alexnet_bn",
    "epochs": 200,
    "batch_size": 192,
    "lr": 0.01,
    "schedule": ((90 / 200, 0.1), (130 / 200, 0.01), (190 / 200, 0.001)),
    "augment": Augmentation(crop_scale=(0.08, 1.0), size=224, jitter=0.0, gray=0.0),
}
_decoupling_nt_xent: dict[str, Any] = {
    **_decoupling,
    "augment": Augmentation(crop_scale=(49 / 64, 49 / 64), crop_ratio=(1.0, 1.0), size=224, jitter=0.0, gray=0.0),
}

TINY_IMAGENET: dict[str, Recipe] = {
    "RotationDecoupling": new_recipe(
        "RotationDecoupling",
        _report,
        26.58,
        scores={"non-linear": 37.22, "MiniPlaces": 26.31, "CIFAR-10": 65.60},
        of="code",
        printed="backbone epochs",
        judged=BY_DECOUPLING,
        temperature=0.07,
        **_decoupling,
    ),
    "RotationDecoupling, NT-Xent": new_recipe(
        "RotationDecoupling",
        _report,
        27.54,
        scores={"non-linear": 38.19, "MiniPlaces": 26.54, "CIFAR-10": 66.46},
        of="code",
        printed="backbone epochs loss temperature",
        judged=BY_DECOUPLING,
        loss="nt_xent",
        temperature=0.1,
        **_decoupling_nt_xent,
    ),
    # The ResNet-18 of W-MSE keeps its max-pooling here and on STL-10.
    **w_mse_by_views(100000, 1000, 2e-3, {2: (48.20, 34.16), 4: (49.20, 35.44)}, proj_dim=128, whitening_iterations=4),
    "ReSSL": changed(ressl, 46.60, of="inferred", queue_size=16384, ema_momentum=0.996),
}
