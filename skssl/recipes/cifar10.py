"""CIFAR-10: images of 32 pixels, a ResNet-18 with a 3x3 stem (the default backbone)."""

from __future__ import annotations

from typing import Any

from skssl.augment import Augmentation
from skssl.recipes.building import (
    BY_EFFSSL,
    BY_EFFSSL_SIMSIAM,
    BY_GSG,
    BY_LIGHTLY,
    BY_MOCO,
    BY_MOCO_IMAGENET,
    BY_SOLO,
    BY_SUPCON,
    LONG,
    SHORT,
    TENTHS,
    UNSTATED,
    Recipe,
    changed,
    new_recipe,
    rotated,
)

EFFSSL, _GSG = "EffSSL, section 4 and table 5", "GSG, section 5 and table 1"

simclr = new_recipe("SimCLR", EFFSSL, 88.77, 86.37, lr=0.5, temperature=0.2, warmup_epochs=10, **SHORT, **UNSTATED)
byol = new_recipe("BYOL", EFFSSL, 89.30, 86.56, lr=0.8, ema_momentum=0.95, warmup_epochs=10, **SHORT, **UNSTATED)
swav = new_recipe(
    "SwAV",
    EFFSSL,
    83.60,
    80.65,
    n_prototypes=100,
    epsilon=0.03,
    inferred="batch_size",
    judged=BY_EFFSSL,
    **SHORT,
)
simsiam = new_recipe(
    "SimSiam",
    EFFSSL,
    89.77,
    87.05,
    lr=0.07,
    proj_layers=2,
    schedule="cosine",
    warmup_epochs=10,
    **SHORT,
    **{**UNSTATED, "judged": BY_EFFSSL_SIMSIAM},
)
# Section 5.1 says that there is no schedule of the learning rate. lightly's benchmark, which it follows, has a cosine.
# The paper's authors released no code for CIFAR-10.
_gsg_params: dict[str, Any] = {"lr": 0.06, "weight_decay": 5e-4, "schedule": "constant", **SHORT}
_gsg = new_recipe("SimSiamGSG", _GSG, 86.4, 82.2, judged=BY_GSG, **_gsg_params)
_gsg_byol = new_recipe(
    "BYOLGSG", _GSG, 90.3, 89.4, ema_momentum=0.99, inferred="ema_momentum", judged=BY_GSG, **_gsg_params
)
_guided = {
    "SimSiam, GSG's baseline": changed(_gsg, 82.7, 77.0, stop_gradient="symmetric"),
    "SimSiamGSG": _gsg,
    "BYOL, GSG's baseline": changed(_gsg_byol, 88.0, 85.4, stop_gradient="symmetric"),
    "BYOLGSG": _gsg_byol,
}
_LIGHTLY = "lightly's benchmark on CIFAR-10, whose score is that of the best epoch"
_lightly: dict[str, Any] = {
    "epochs": 200,
    "batch_size": 128,
    "lr": 0.06,
    "weight_decay": 5e-4,
    "schedule": "epoch_cosine",
    "warmup_epochs": 0,
    "of": "code",
    "judged": BY_LIGHTLY,
}
_dcl = new_recipe("DCL", _LIGHTLY, None, 84.4, temperature=0.1, **_lightly)
_solo: dict[str, Any] = {"augment": "byol", "of": "code", "judged": BY_SOLO, **LONG}
_COSINE = "lightly's benchmark, which GSG follows, with a cosine; the scores are GSG's, whose text has no schedule"
_moco = new_recipe(
    "MoCo",
    "MoCo's demonstration on CIFAR-10 (kNN on its 128 outputs)",
    None,
    82.6,
    lr=0.06,
    weight_decay=5e-4,
    proj_layers=1,
    temperature=0.1,
    queue_size=4096,
    ema_momentum=0.99,
    bn_splits=8,
    of="code",
    judged=BY_MOCO,
    **SHORT,
)
_leoclr_params: dict[str, Any] = {
    "epochs": 800,
    "batch_size": 256,
    "lr": 0.03,
    "weight_decay": 1e-4,
    "ema_momentum": 0.999,
    "temperature": 0.2,
    "proj_layers": 2,
    "queue_size": 4096,
}
_LEOCLR = (
    "LeOCLR, table of CIFAR-10 and STL-10; learning rate, weight decay and momentum of ImageNet, queue of MoCo's demo"
)
_LEOCLR_UNSTATED = "lr weight_decay ema_momentum temperature proj_layers queue_size"
_FEW = {1.0: (93.27, 94.15), 0.5: (92.93, 94.02), 0.3: (92.26, 93.94)}  # without and with rotation


def _effssl_labels() -> dict[str, Recipe]:
    """Return the recipes of EffSSL's table 2: false negatives removed by a share of the labels."""
    found: dict[str, Recipe] = {}
    for share, scores in _FEW.items():
        for title, base, score in zip(
            ("SimCLR", "SimCLR + rotation"), (simclr, rotated(simclr, 1.0, None)), scores, strict=True
        ):
            few: dict[str, Any] = {} if share == 1 else {"label_fraction": share}
            ending = "" if share == 1 else f" by {share:.0%} of the labels".replace("%", " %")
            made = changed(base, score, false_negatives="remove", **few)
            found[f"{title}, false negatives removed{ending}"] = {**made, "source": "EffSSL, section 3.1 and table 2"}
    return found


CIFAR10: dict[str, Recipe] = {
    "RotNet": new_recipe("RotNet", EFFSSL, 84.00, 78.01, inferred="batch_size", judged=BY_EFFSSL, **SHORT),
    "SimCLR": simclr,
    "SimCLR + rotation": rotated(simclr, 1.0, 90.91, 88.69),
    **_effssl_labels(),
    "BYOL": byol,
    "BYOL + rotation": rotated(byol, 5.0, 91.89, 89.80),
    "SwAV": swav,
    "SwAV + rotation": rotated(swav, 0.5, 87.20, 85.26),
    "SimSiam": simsiam,
    "SimSiam + rotation": rotated(simsiam, 0.1, 91.91, 90.35),
    **_guided,
    **{
        f"{title}, cosine": {
            **changed(recipe, recipe["linear"], recipe["knn"], of="code", schedule="epoch_cosine"),
            "source": _COSINE,
        }
        for title, recipe in _guided.items()
    },
    "MoCo": _moco,
    "MoCo, symmetric": changed(_moco, None, 85.3, of="code", symmetric=True),
    "MoCo v2, LeOCLR's baseline": new_recipe(
        "MoCo", _LEOCLR, 73.88, inferred=_LEOCLR_UNSTATED, judged=BY_MOCO_IMAGENET, **_leoclr_params
    ),
    "LeOCLR": new_recipe(
        "LeOCLR", _LEOCLR, 79.59, inferred=_LEOCLR_UNSTATED, judged=BY_MOCO_IMAGENET, **_leoclr_params
    ),
    "DCL": _dcl,
    "DCLW": changed(_dcl, None, 83.3, of="code", sigma=0.5),
    "NNCLR": new_recipe(
        "NNCLR",
        "solo-learn",
        91.88,
        temperature=0.2,
        queue_size=65536,
        hidden_dim=2048,
        proj_dim=256,
        pred_dim=4096,
        **_solo,
    ),
    "NNCLR, lightly": new_recipe(
        "NNCLR", _LIGHTLY, None, 83.4, temperature=0.5, queue_size=4096, proj_layers=2, **_lightly
    ),
    "MoCoV3": new_recipe(
        "MoCoV3",
        "solo-learn, whose predictor has no BatchNorm after the last layer",
        93.10,
        temperature=0.2,
        hidden_dim=4096,
        proj_dim=256,
        ema_momentum=0.99,
        **_solo,
    ),
    "SupCon": new_recipe(
        "SupCon",
        "SupCon's code for CIFAR-10",
        96.0,
        backbone="resnet50",
        epochs=1000,
        batch_size=1024,
        weight_decay=1e-4,
        warmup_epochs=10,
        temperature=0.1,
        of="code",
        judged=BY_SUPCON,
    ),
    "InstDisc": new_recipe(
        "InstDisc",
        "InstDisc, CIFAR-10; not checked",
        None,
        80.4,
        epochs=200,
        batch_size=128,
        lr=0.03,
        n_negatives=4096,
        **TENTHS,
        of="code",
        judged={"knn": {"n_neighbors": 200, "temperature": 0.1, "layer": "projector"}},
    ),
    "DirectPred": new_recipe(
        "DirectPred", "DirectPred, 100 epochs; not checked", 85.2, epochs=100, batch_size=128, lr=0.03, of="code"
    ),
    "BarlowTwins": new_recipe(
        "BarlowTwins", "solo-learn", 92.10, proj_dim=2048, lambd=5e-3, of="code", judged=BY_SOLO, **LONG
    ),
    "VICReg": new_recipe(
        "VICReg",
        "solo-learn",
        92.07,
        proj_dim=2048,
        augment=Augmentation(crop_scale=(0.2, 1.0), saturation=0.2, solarize=0.1, interpolation="bicubic"),
        of="code",
        judged=BY_SOLO,
        **LONG,
    ),
    "DINO": new_recipe(
        "DINO", "solo-learn", 89.52, n_prototypes=4096, ema_momentum=0.9995, of="code", judged=BY_SOLO, **LONG
    ),
    "DeepClusterV2": new_recipe("DeepClusterV2", "solo-learn", 88.85, of="code", judged=BY_SOLO, **LONG),
}
