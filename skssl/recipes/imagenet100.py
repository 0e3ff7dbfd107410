"""ImageNet-100: images of 224 pixels, a ResNet-18."""

from __future__ import annotations

from typing import Any

from sklearn.base import clone

from skssl.augment import Augmentation, MultiCrop, preset
from skssl.recipes.building import (
    BY_SOLO,
    BY_SWAV,
    UNSTATED,
    Recipe,
    changed,
    new_recipe,
    rotated,
    w_mse_by_views,
)
from skssl.recipes.cifar10 import CIFAR10
from skssl.training.optim import LARC

# EffSSL, section S4.1, takes solo-learn's settings for SimCLR, and those of SwAV's
# code, with multi-crop, for SwAV. It has one batch size, inferred to be 512 as on CIFAR.

_IN100: dict[str, Any] = {"epochs": 100, "batch_size": 512, "warmup_epochs": 10}
_TABLE = "EffSSL, table of ImageNet-100"


def _scores(*accuracies: float, top_5: float | None = None) -> dict[str, float]:
    """Return the scores of fine-tuning on 1 and 10 % of the labels, and the top-5 accuracy of the linear probe."""
    names = ("1 %", "1 %, top-5", "10 %", "10 %, top-5")
    found = dict(zip(names, accuracies, strict=True)) if accuracies else {}
    return found if top_5 is None else {"top-5": top_5, **found}


# solo-learn's LARS clips the rate of each layer at lr, so that lr is the rate of momentum SGD where it is clipped: 0.3
# for 256 images, here in SGD for 512.
_simclr_100 = new_recipe(
    "SimCLR",
    f"{_TABLE}; solo-learn's script, whose LARS differs",
    72.02,
    scores=_scores(57.28, 83.69, 71.44, 91.72),
    temperature=0.2,
    hidden_dim=2048,
    weight_decay=1e-4,
    lr=0.6,
    code="temperature hidden_dim weight_decay",
    inferred="lr batch_size warmup_epochs",
    judged=BY_SOLO,
    **_IN100,
)
_byol_100 = new_recipe(
    "BYOL",
    _TABLE,
    71.02,
    scores=_scores(46.60, 75.50, 68.00, 89.80, top_5=91.78),
    lr=0.6,
    ema_momentum=0.95,
    **_IN100,
    **UNSTATED,
)
# SwAV's code has 4.8 for 4,096 images, as EffSSL's scripts for ImageNet have 1.2 for 1,024. It would cut a queue that
# is shorter than the batch to none; here the queue holds the last 384 embeddings.
_swav_100 = new_recipe(
    "SwAV",
    f"{_TABLE}; SwAV's code, 2 x 224 + 6 x 96",
    72.20,
    scores=_scores(49.38, 78.41, 67.56, 90.78),
    n_prototypes=300,
    queue_length=384,
    epsilon=0.05,
    lr=0.6,
    weight_decay=1e-6,
    optimizer=LARC,
    augment=MultiCrop(),
    code="epsilon weight_decay optimizer augment",
    inferred="lr batch_size warmup_epochs",
    judged=BY_SWAV,
    **_IN100,
)

_rotated = rotated(_byol_100, 6.0, 73.60, scores=_scores(56.40, 83.50, 72.30, 91.40, top_5=92.98))
_SALIENCY = {0: (63.64, 68.62), 25: (64.50, 68.30), 50: (66.30, 68.90), 100: (66.72, 70.26)}  # the second with the task


def _salient() -> dict[str, Recipe]:
    """Return the recipes of EffSSL's section 3.2: BYOL with a share of the crops chosen by saliency.

    The maps of the images are not part of a recipe: see `grad_cam`, and ``saliency`` of `Augmentation`.
    """
    source = "EffSSL, section 3.2; fewer epochs than 100, how many is not known; maps by grad_cam"
    found: dict[str, Recipe] = {}
    for share, scores in _SALIENCY.items():
        views = [clone(view).set_params(good_crops=share / 100) for view in preset("byol", 224)]
        for title, base, score in zip(("BYOL", "BYOL + rotation"), (_byol_100, _rotated), scores, strict=True):
            made = changed(base, score, source=source, augment=views)
            made = changed(made, score, of="inferred", epochs=50)
            found[f"{title}, {share} % saliency-guided crops"] = made
    return found


def _jigsaws() -> dict[str, Recipe]:
    """Return BYOL with the jigsaw task, whose weight is not stated: it is that of rotation."""
    found: dict[str, Recipe] = {}
    for title, aux, linear, top_5 in (
        ("BYOL + jigsaw", "jigsaw", 73.60, 92.72),
        ("BYOL + jigsaw + rotation", ["jigsaw", "rotation"], 74.72, 92.94),
    ):
        made = changed(_byol_100, source="EffSSL, section 5.5", aux=aux)
        found[title] = changed(made, linear, scores=_scores(top_5=top_5), of="inferred", aux_weight=6.0)
    return found


def _solo(title: str, offline: float | None, online: float | None, **params: Any) -> Recipe:
    """Return the recipe of solo-learn's script, with the accuracy of a linear layer after and during the training."""
    source = "solo-learn; 'online' is the accuracy of a linear layer trained beside the encoder"
    scores = {"online": online} if online else {}
    return changed(CIFAR10[title], offline, of="code", source=source, scores=scores, epochs=400, **params)


_mocov3 = _solo("MoCoV3", 80.36, 80.36)

IMAGENET100: dict[str, Recipe] = {
    "RotNet": new_recipe(
        "RotNet", _TABLE, 53.86, scores=_scores(34.72, 65.70, 51.18, 81.38, top_5=81.26), **_IN100, **UNSTATED
    ),
    "Jigsaw": new_recipe(
        "Jigsaw",
        "EffSSL, section 5.5",
        42.01,
        scores=_scores(top_5=72.10),
        n_permutations=100,
        code="n_permutations",
        **_IN100,
        **UNSTATED,
    ),
    "SimCLR": _simclr_100,
    "SimCLR + rotation": rotated(_simclr_100, 0.1, 73.24, scores=_scores(57.80, 83.84, 72.52, 92.10)),
    "BYOL": _byol_100,
    "BYOL + rotation": _rotated,
    **_jigsaws(),
    **_salient(),
    "SwAV": _swav_100,
    "SwAV + rotation": rotated(_swav_100, 0.1, 74.40, scores=_scores(52.02, 80.01, 69.68, 91.43)),
    "MoCoV3": _mocov3,
    "MoCoV3, ResNet-50": changed(
        _mocov3,
        84.58,
        source="solo-learn, with the script of its ResNet-18",
        scores={"online": 85.48},
        backbone="resnet50",
    ),
    "NNCLR": _solo("NNCLR", 80.16, 79.80),
    "NNCLR, lightly": new_recipe(
        "NNCLR",
        "lightly's benchmark on ImageNet-100, whose score is that of the best epoch",
        None,
        45.3,
        epochs=200,
        batch_size=256,
        optimizer="lars",
        lr=0.3,
        weight_decay=1e-6,
        schedule="epoch_cosine",
        warmup_epochs=0,
        temperature=0.5,
        queue_size=65536,
        hidden_dim=4096,
        of="code",
        judged={"knn": {"n_neighbors": 20, "temperature": 0.1}},
    ),
    "ReSSL": _solo("ReSSL", 78.48, 76.92, lr=0.3),
    "VICReg": _solo(
        "VICReg",
        79.40,
        79.22,
        augment=Augmentation(crop_scale=(0.2, 1.0), saturation=0.2, blur=0.5, solarize=0.1, interpolation="bicubic"),
    ),
    "MAE": changed(CIFAR10["MAE"], of="code", backbone="vit_base", epochs=400),
    **w_mse_by_views(
        126689,
        240,
        2e-3,
        {2: (None, None), 4: (None, None)},
        proj_dim=128,
        crop_scale=(0.08, 1.0),
        brightness=0.8,
        contrast=0.8,
        saturation=0.8,
        hue=0.2,
        gray=0.2,
    ),
}
