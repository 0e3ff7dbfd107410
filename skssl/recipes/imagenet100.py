"""ImageNet-100."""

from __future__ import annotations

from typing import Any

from skssl.augment import MultiCrop
from skssl.recipes.building import BY_SOLO, BY_SWAV, UNSTATED, Recipe, changed, new_recipe, rotated
from skssl.training.optim import LARC

# ImageNet-100: 224x224, ResNet-18. EffSSL, section S4.1, takes solo-learn's settings for SimCLR, and those of SwAV's
# code, with multi-crop, for SwAV. It has one batch size, inferred to be 512 as on CIFAR.

_IN100: dict[str, Any] = {"epochs": 100, "batch_size": 512, "warmup_epochs": 10}
_TABLE = "EffSSL, table of ImageNet-100"
# solo-learn's LARS clips the rate of each layer at lr, so that lr is the rate of momentum SGD where it is clipped: 0.3
# for 256 images, here in SGD for 512.
_simclr_100 = new_recipe(
    "SimCLR",
    f"{_TABLE}; solo-learn's script, whose LARS differs",
    72.02,
    temperature=0.2,
    hidden_dim=2048,
    weight_decay=1e-4,
    lr=0.6,
    code="temperature hidden_dim weight_decay",
    inferred="lr batch_size warmup_epochs",
    judged=BY_SOLO,
    **_IN100,
)
_byol_100 = new_recipe("BYOL", _TABLE, 71.02, lr=0.6, ema_momentum=0.95, **_IN100, **UNSTATED)
# SwAV's code has 4.8 for 4,096 images, as EffSSL's scripts for ImageNet have 1.2 for 1,024. It would cut a queue that
# is shorter than the batch to none; here the queue holds the last 384 embeddings.
_swav_100 = new_recipe(
    "SwAV",
    f"{_TABLE}; SwAV's code, 2 x 224 + 6 x 96",
    72.20,
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

IMAGENET100: dict[str, Recipe] = {
    "RotNet": new_recipe("RotNet", _TABLE, 53.86, **_IN100, **UNSTATED),
    "Jigsaw": new_recipe(
        "Jigsaw", "EffSSL, section 5.5", 42.01, n_permutations=100, code="n_permutations", **_IN100, **UNSTATED
    ),
    "SimCLR": _simclr_100,
    "SimCLR + rotation": rotated(_simclr_100, 0.1, 73.24),
    "BYOL": _byol_100,
    "BYOL + rotation": rotated(_byol_100, 6.0, 73.60),
    # The weight of the jigsaw task is not stated; it is that of rotation.
    "BYOL + jigsaw": changed(changed(_byol_100, None, aux="jigsaw"), 73.60, of="inferred", aux_weight=6.0),
    "BYOL + jigsaw + rotation": changed(
        changed(_byol_100, None, aux=["jigsaw", "rotation"]), 74.72, of="inferred", aux_weight=6.0
    ),
    "SwAV": _swav_100,
    "SwAV + rotation": rotated(_swav_100, 0.1, 74.40),
}
