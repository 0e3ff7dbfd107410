"""CIFAR-10: images of 32 pixels, a ResNet-18 with a 3x3 stem (the default backbone)."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.base import clone

from skssl.augment import Augmentation, preset
from skssl.pretext import Rotation
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
    w_mse_by_views,
)

EFFSSL, _GSG = "EffSSL, section 4 and table 5", "GSG, section 5 and table 1"


def _pretext(*scores: float) -> dict[str, float]:
    """Return the scores of EffSSL's table 4: rotation and contrastive accuracy at the backbone and the projector."""
    names = [f"{kind}, {layer}" for kind in ("rotation", "contrastive") for layer in ("backbone", "projector")]
    return dict(zip(names, scores, strict=True))


simclr = new_recipe("SimCLR", EFFSSL, 88.77, 86.37, lr=0.5, temperature=0.2, warmup_epochs=10, **SHORT, **UNSTATED)
byol = new_recipe(
    "BYOL",
    EFFSSL,
    89.30,
    86.56,
    scores=_pretext(73.40, 58.32, 78.53, 78.82),
    lr=0.8,
    ema_momentum=0.95,
    warmup_epochs=10,
    optimizer="lars",  # with SGD this rate collapses, see docs/benchmarks.md
    **SHORT,
    **{**UNSTATED, "inferred": "batch_size warmup_epochs optimizer"},
)
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
_guided: dict[str, Recipe] = {
    "SimSiam, GSG's baseline": changed(_gsg, 82.7, 77.0, stop_gradient="symmetric"),
    "SimSiamGSG": _gsg,
    "BYOL, GSG's baseline": changed(_gsg_byol, 88.0, 85.4, stop_gradient="symmetric"),
    "BYOLGSG": _gsg_byol,
}


def _ablations_of_gsg() -> dict[str, Recipe]:
    """Return GSG's ablations of section 6: where the gradient is stopped, and the predictor."""
    found: dict[str, Recipe] = {}
    unknown, collapse = "a curve, score not known", "it collapses to 10 %, score not known"
    for title in ("SimSiamGSG", "BYOLGSG"):
        for kind in ("random", "reverse"):
            how = collapse if (title, kind) == ("SimSiamGSG", "reverse") else unknown
            source = f"GSG, section 6 and figure 4; {how}"
            found[f"{title}, {kind}"] = changed(_guided[title], source=source, stop_gradient=kind)
    for title, recipe in _guided.items():
        source = f"GSG, section 6 and figure 5; {collapse if 'baseline' in title else unknown}"
        found[f"{title}, no predictor"] = changed(recipe, source=source, predictor=False, epochs=400)
    return found


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
_LIGHTLY_128: dict[str, Recipe] = {
    "DCL": _dcl,
    "DCLW": changed(_dcl, None, 83.3, of="code", sigma=0.5),
    "NNCLR, lightly": new_recipe(
        "NNCLR", _LIGHTLY, None, 83.4, temperature=0.5, queue_size=4096, proj_layers=2, **_lightly
    ),
    "FastSiam": new_recipe(
        "FastSiam", f"{_LIGHTLY}; the predictor has its cosine, too", None, 90.6, n_views=4, proj_layers=2, **_lightly
    ),
}
_LIGHTLY_512 = {  # for 200 and for 800 epochs
    "DCL": (84.0, 87.4),
    "DCLW": (82.4, 87.1),
    "NNCLR, lightly": (81.5, 89.2),
    "FastSiam": (78.8, 90.2),
}
_solo: dict[str, Any] = {"augment": "byol", "of": "code", "judged": BY_SOLO, **LONG}
_wmse_view = Augmentation(
    crop_scale=(0.2, 1.0), brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, interpolation="bicubic"
)
_ressl_views = [
    Augmentation(saturation=0.2, blur=0.5, interpolation="bicubic"),
    Augmentation(jitter=0.0, gray=0.0, interpolation="bicubic"),
]
# solo-learn prints no score of MAE on small images.
mae = new_recipe(
    "MAE",
    "solo-learn's script; score not known",
    backbone="vit_small",
    lr=2e-4,
    weight_decay=0.05,
    mask_ratio=0.75,
    decoder_dim=512,
    decoder_depth=8,
    norm_pix_loss=True,
    **{**_solo, "augment": Augmentation(jitter=0.0, gray=0.0, interpolation="bicubic")},
)
mmcr = new_recipe(
    "MMCR",
    "MMCR's code; score not known",
    backbone="resnet50",
    n_views=40,
    epochs=500,
    batch_size=32,
    optimizer=torch.optim.Adam,
    lr=1e-3,
    weight_decay=1e-6,
    schedule="constant",
    warmup_epochs=0,
    lambd=0.0,
    hidden_dim=512,
    proj_dim=128,
    augment=Augmentation(),
    of="code",
)
ressl = new_recipe(
    "ReSSL",
    "ReSSL, table 1; epochs, weight decay and views of its author's answers",
    90.20,
    epochs=200,
    batch_size=256,
    lr=0.06,
    weight_decay=5e-4,
    warmup_epochs=5,
    temperature=0.1,
    teacher_temperature=0.04,
    queue_size=4096,
    bn_splits=8,
    ema_momentum=0.99,
    of="inferred",
    code="epochs weight_decay bn_splits",
)
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


def _lightly_larger_batches() -> dict[str, Recipe]:
    """Return lightly's trainings with batches of 512 images, for 200 and for 800 epochs."""
    found: dict[str, Recipe] = {}
    for title, scores in _LIGHTLY_512.items():
        base = changed(_LIGHTLY_128[title], batch_size=512)
        if title == "NNCLR, lightly":
            base = changed(base, queue_size=8192)
        # FastSiam's rate is that of SimSiam, which is not multiplied for the larger batch.
        rate: dict[str, Any] = {"of": "inferred", "lr": 0.06} if title == "FastSiam" else {"of": "code", "lr": 0.24}
        base = changed(base, **rate)
        for epochs, knn in zip((200, 800), scores, strict=True):
            found[f"{title}, batch 512, {epochs} epochs"] = changed(base, None, knn, epochs=epochs)
    return found


def _effssl_labels() -> dict[str, Recipe]:
    """Return the recipes of EffSSL's table 2: false negatives removed by a share of the labels."""
    found: dict[str, Recipe] = {}
    for share, scores in _FEW.items():
        for title, base, score in zip(
            ("SimCLR", "SimCLR + rotation"), (simclr, rotated(simclr, 1.0, None)), scores, strict=True
        ):
            few: dict[str, Any] = {} if share == 1 else {"label_fraction": share}
            ending = "" if share == 1 else f" by {share:.0%} of the labels".replace("%", " %")
            source = "EffSSL, section 3.1 and table 2"
            made = changed(base, score, source=source, false_negatives="remove", **few)
            found[f"{title}, false negatives removed{ending}"] = made
    return found


def _effssl_ablations() -> dict[str, Recipe]:
    """Return EffSSL's ablations of the rotation task: its loss, rotated views, no colour jitter, noisy labels."""
    rotation = rotated(byol, 5.0)

    def views(**params: Any) -> list[Augmentation]:
        return [clone(view).set_params(**params) for view in preset("byol", 32)]

    losses, views_by = "EffSSL, losses of the rotation task", "EffSSL, rotation as an augmentation"
    found = {
        "BYOL + rotation, SupCon loss": changed(
            rotation, 90.19, 88.05, source=losses, scores={"rotation, backbone": 81.86}, aux=Rotation(loss="sup_con")
        ),
        "BYOL + rotation, cosine loss": changed(
            rotation, 88.95, 86.84, source=losses, scores={"rotation, backbone": 77.27}, aux=Rotation(loss="cosine")
        ),
        "BYOL, turned views": changed(
            byol, 79.70, 74.32, source=views_by, scores={"rotation, backbone": 66.61}, augment=views(quarter_turn=1.0)
        ),
        "BYOL + rotation, turned views": changed(
            rotation,
            87.75,
            84.49,
            source=views_by,
            scores={"rotation, backbone": 94.24},
            augment=views(quarter_turn=1.0),
        ),
    }
    jitter: dict[str, Any] = {"source": "EffSSL, without colour jitter", "augment": views(jitter=0.0)}
    found["BYOL, no colour jitter"] = changed(byol, 85.90, 82.21, **jitter)
    found["BYOL + rotation, no colour jitter"] = changed(rotation, 91.28, 88.52, **jitter)
    unknown = "EffSSL, noisy labels of the rotation task; its four levels are inferred, so the score is not known"
    for noise in (0.1, 0.3, 0.5, 0.7):
        task = Rotation(label_noise=noise)
        found[f"BYOL + rotation, label noise {noise}"] = changed(rotation, of="inferred", source=unknown, aux=task)
    return found


def _effssl_sup_con() -> dict[str, Recipe]:
    """Return EffSSL's SupCon with noisy labels, with and without the rotation task."""
    source = "EffSSL, figure of SupCon with noisy labels; settings of SupCon's code, levels inferred, score not known"
    found: dict[str, Recipe] = {}
    for noise in (0.0, 0.3, 0.6):
        ending = f", label noise {noise}" if noise else ""
        base = new_recipe(
            "SupCon", source, of="inferred", judged=BY_EFFSSL, temperature=0.1, label_noise=noise, **SHORT
        )
        found[f"SupCon, EffSSL's{ending}"] = base
        found[f"SupCon + rotation, EffSSL's{ending}"] = changed(base, of="inferred", aux="rotation", aux_weight=1.0)
    return found


CIFAR10: dict[str, Recipe] = {
    "RotNet": new_recipe(
        "RotNet",
        EFFSSL,
        84.00,
        78.01,
        scores=_pretext(93.69, 93.46, 31.61, 1.52),
        inferred="batch_size",
        judged=BY_EFFSSL,
        **SHORT,
    ),
    "SimCLR": simclr,
    "SimCLR + rotation": rotated(simclr, 1.0, 90.91, 88.69),
    **_effssl_labels(),
    "BYOL": byol,
    "BYOL + rotation": rotated(byol, 5.0, 91.89, 89.80, scores=_pretext(93.73, 93.54, 72.85, 67.81)),
    **_effssl_ablations(),
    "SwAV": swav,
    "SwAV + rotation": rotated(swav, 0.5, 87.20, 85.26),
    "SimSiam": simsiam,
    "SimSiam + rotation": rotated(simsiam, 0.1, 91.91, 90.35),
    **_guided,
    **{
        f"{title}, cosine": changed(
            recipe, recipe["linear"], recipe["knn"], of="code", source=_COSINE, schedule="epoch_cosine"
        )
        for title, recipe in _guided.items()
    },
    **_ablations_of_gsg(),
    "MoCo": _moco,
    "MoCo, symmetric": changed(_moco, None, 85.3, of="code", symmetric=True),
    "MoCo v2, LeOCLR's baseline": new_recipe(
        "MoCo",
        _LEOCLR,
        73.88,
        scores={"STL-10": 80.08},
        inferred=_LEOCLR_UNSTATED,
        judged=BY_MOCO_IMAGENET,
        **_leoclr_params,
    ),
    "LeOCLR": new_recipe(
        "LeOCLR",
        _LEOCLR,
        79.59,
        scores={"STL-10": 85.20},
        inferred=_LEOCLR_UNSTATED,
        judged=BY_MOCO_IMAGENET,
        **_leoclr_params,
    ),
    **_LIGHTLY_128,
    **_lightly_larger_batches(),
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
    "WMSE": new_recipe(
        "WMSE",
        "solo-learn",
        88.67,
        hidden_dim=1024,
        proj_dim=64,
        whitening_size=128,
        whitening_eps=0.0,
        optimizer=torch.optim.Adam,
        lr=2e-3,
        weight_decay=1e-6,
        **{**_solo, "augment": _wmse_view},
    ),
    "ReSSL": new_recipe(
        "ReSSL",
        "solo-learn",
        90.63,
        temperature=0.1,
        teacher_temperature=0.04,
        hidden_dim=4096,
        proj_dim=256,
        queue_size=65536,
        bn_splits=1,
        ema_momentum=0.99,
        ema_schedule="cosine",
        lr=0.05,
        weight_decay=1e-4,
        **{**_solo, "augment": _ressl_views},
    ),
    "ReSSL, 200 epochs": ressl,
    **w_mse_by_views(50000, 1000, 3e-3, {2: (91.55, 89.69), 4: (91.99, 89.87)}),
    "MMCR": mmcr,
    "MAE": mae,
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
    **_effssl_sup_con(),
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
