"""STL-10: images of 96 pixels, of which W-MSE, ReSSL and MMCR crop 64."""

from __future__ import annotations

import torch
from sklearn.base import clone

from skssl.augment import Augmentation, preset
from skssl.recipes.building import Recipe, changed, new_recipe, w_mse_by_views
from skssl.recipes.cifar10 import mmcr, ressl


def two_linear_decays(progress: float) -> float:
    """Return the factor of a learning rate that falls to 0.01 within nine tenths of each half of a training.

    Parameters
    ----------
    progress : float
        The share of the training that is done, in [0, 1].

    Returns
    -------
    float
        The factor.

    Examples
    --------
    >>> from skssl.recipes.stl10 import two_linear_decays
    >>> [round(two_linear_decays(progress), 3) for progress in (0, 0.225, 0.45, 0.499, 0.5, 0.725)]
    [1.0, 0.505, 0.01, 0.01, 1.0, 0.505]
    """
    done = 2 * progress % 1 / 0.9
    return max(1 - 0.99 * done, 0.01)


STL10: dict[str, Recipe] = {
    "SpotArtifacts": new_recipe(
        "SpotArtifacts",
        "LearningToSpotArtifacts' code; an epsilon of 1e-5 in Adam, additive brightness, larger maps; score not known",
        backbone="alexnet_bn",
        augment=Augmentation(
            crop_scale=(0.333, 1.0),
            crop_ratio=(0.75, 1.33),
            jitter=1.0,
            brightness=32 / 255,
            contrast=0.0,
            saturation=0.5,
            hue=0.0,
            gray=0.0,
        ),
        epochs=1000,
        pretrain_epochs=500,
        batch_size=256,
        optimizer=torch.optim.Adam,
        momentum=0.5,
        lr=3e-4,
        weight_decay=5e-5,
        schedule=two_linear_decays,
        drop_rate=0.6,
        depth=4,
        width=32,
        mask_weight=0.1,
        repair_weight=7.5,
        of="code",
        inferred="backbone repair_weight",
    ),
    **w_mse_by_views(
        105000, 2000, 2e-3, {2: (None, None), 4: (None, None)}, proj_dim=128, whitening_iterations=4, size=64
    ),
    "ReSSL": changed(
        ressl,
        88.25,
        of="inferred",
        queue_size=16384,
        ema_momentum=0.996,
        augment=[clone(view).set_params(size=64) for view in preset("ressl", 64)],
    ),
    "MMCR": changed(
        mmcr,
        of="code",
        augment=Augmentation(crop_scale=(0.2, 1.0), gray=0.1, size=64, interpolation="bicubic"),
    ),
}
