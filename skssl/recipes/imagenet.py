"""ImageNet: images of 224 pixels, a ResNet-50."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.base import clone

from skssl.augment import Augmentation, MultiCrop, preset
from skssl.backbones import ViT
from skssl.pretext import Rotation
from skssl.recipes.building import (
    BY_GSG_IMAGENET,
    BY_LIGHTLY,
    BY_MOCO_IMAGENET,
    BY_SWAV,
    BY_SWAV_30,
    TENTHS,
    Recipe,
    changed,
    new_recipe,
)
from skssl.training.optim import LARC

# The patches of RelativePatch are cut from images of 255 pixels.

_R50: dict[str, Any] = {"backbone": "resnet50"}
_LARS: dict[str, Any] = {**_R50, "optimizer": "lars", "warmup_epochs": 10}
_SWAV_800: dict[str, Any] = {
    **_LARS,
    "optimizer": LARC,
    "epochs": 800,
    "batch_size": 4096,
    "lr": 4.8,
    "weight_decay": 1e-6,
    "n_prototypes": 3000,
    "augment": MultiCrop(),
    "of": "code",
    "judged": BY_SWAV,
}
_VICREG: dict[str, Any] = {
    **_LARS,
    "batch_size": 2048,
    "lr": 1.6,
    "weight_decay": 1e-6,
    "proj_dim": 8192,
    "judged": {"linear": {"protocol": "swav", "lr": 0.02}},
}
# AdamW, of DINO's, iBOT's and MSN's codes
_VIT_S: dict[str, Any] = {"backbone": "vit_small", "weight_decay": 0.04, "ema_momentum": 0.996, "of": "code"}
OTHER_LARS = "its LARS differs, with the learning rate inside the momentum"
_gsg_in: dict[str, Any] = {**_R50, "epochs": 100, "batch_size": 512, "lr": 0.1, "weight_decay": 1e-4, "proj_layers": 3}
_moco_in: dict[str, Any] = {
    **_R50,
    "batch_size": 256,
    "lr": 0.03,
    "weight_decay": 1e-4,
    "queue_size": 65536,
    "ema_momentum": 0.999,
}
_GSG_IN = "GSG, table 1"
_views: dict[str, Any] = {"augment": "simsiam", "judged": BY_GSG_IMAGENET}
_gsg = new_recipe("SimSiamGSG", _GSG_IN, 69.4, 58.4, **_views, **_gsg_in)
_gsg_byol = new_recipe("BYOLGSG", _GSG_IN, 71.1, 62.2, ema_momentum=0.99, **_views, **_gsg_in)
_RANDOM_CROPS = "random crops in the test"
_large = preset("byol", 224)
_dino_views = [*_large, *[clone(_large[0]).set_params(blur=0.5)] * 10]  # up to ten small crops
_swav_in = new_recipe("SwAV", "SwAV's code, 2 x 224 + 6 x 96", 75.3, epsilon=0.05, **_SWAV_800)
# EffSSL's code uses LARS, which excludes biases and norms, and puts the rotation head on the features.
_SMALL_BATCH = "settings of SwAV's code for batches of 256, inferred"
_swav_30 = changed(
    _swav_in,
    54.90,
    of="inferred",
    source=f"EffSSL, 30 epochs; {_SMALL_BATCH}",
    scores={"1 %": 32.20, "1 %, top-5": 58.20, "10 %": 51.82, "10 %, top-5": 77.60},
    epochs=30,
    batch_size=256,
    lr=0.6,
    optimizer="lars",
    warmup_epochs=0,
    queue_length=3840,
    augment="simclr",
)
_swav_30["origin"] |= dict.fromkeys(("epochs", "batch_size", "augment"), "printed")
_swav_30["protocol"] = BY_SWAV_30
_swav_50 = changed(
    _swav_in,
    65.8,
    of="code",
    source="EffSSL and its code, 2 x 224 + 6 x 96",
    epochs=50,
    batch_size=1024,
    lr=1.2,
    optimizer="lars",
)
_swav_50["protocol"] = BY_SWAV_30
_moco_v3 = new_recipe(
    "MoCoV3",
    "MoCo v3's code",
    72.8,
    epochs=300,
    batch_size=4096,
    lr=4.8,
    weight_decay=1e-6,
    temperature=1.0,
    ema_momentum=0.99,
    augment=[clone(view).set_params(crop_scale=(0.2, 1.0)) for view in _large],
    of="code",
    **_LARS,
)
_moco_v3_vit = new_recipe(
    "MoCoV3",
    "MoCo v3's code, whose positions are fixed sines and cosines and whose ViT-S has 12 heads",
    73.2,
    scores={"fine-tuned": 81.4},
    backbone="vit_small",
    freeze_patches=True,
    epochs=300,
    batch_size=4096,
    optimizer="adamw",
    lr=2.4e-3,
    weight_decay=0.1,
    warmup_epochs=40,
    proj_layers=3,
    temperature=0.2,
    ema_momentum=0.99,
    of="code",
)
_vicregl = new_recipe(
    "VICRegL",
    "VICRegL's code, whose covariance term has half the scale; it matches 20 and 4 cells by position, all by embedding",
    70.4,
    scores={"VOC12, linear, mIoU": 55.9},
    of="code",
    inferred="n_matches",
    epochs=300,
    alpha=0.75,
    cov=0.5,
    n_matches=20,
    local_dim=512,
    **_VICREG,
)
_dino = new_recipe(
    "DINO",
    "DINO's code, ResNet-50",
    75.3,
    67.5,
    epochs=800,
    batch_size=256,
    lr=0.03,
    weight_decay=1e-4,
    warmup_epochs=10,
    ema_momentum=0.996,
    n_prototypes=65536,
    head_norm=False,
    augment=MultiCrop(n_local=8, augment=_dino_views),
    of="code",
    **_R50,
)
_mae = new_recipe(
    "MAE",
    "MAE's code, fine-tuned; linear accuracy of the paper's table",
    68.0,
    scores={"fine-tuned": 83.66},
    of="code",
    backbone="vit_base",
    epochs=1600,
    batch_size=4096,
    lr=2.4e-3,
    weight_decay=0.05,
    warmup_epochs=40,
    mask_ratio=0.75,
    decoder_dim=512,
    decoder_depth=8,
    norm_pix_loss=True,
)
_IBOT = "iBOT's code, which adds stochastic depth and trains the length of the prototypes"
_ibot = new_recipe(
    "IBOT",
    _IBOT,
    77.9,
    75.2,
    scores={"fine-tuned": 82.3},
    epochs=800,
    batch_size=1024,
    lr=2e-3,
    weight_decay_end=0.4,
    warmup_epochs=10,
    n_prototypes=8192,
    teacher_temperature=0.07,
    warmup_teacher_epochs=30,
    mask_ratio=(0.1, 0.5),
    mask_probability=0.5,
    augment=MultiCrop(n_local=10, global_scale=(0.25, 1.0), local_scale=(0.05, 0.25), augment=_dino_views),
    **_VIT_S,
)
_lejepa = new_recipe(
    "LeJEPA",
    "LeJEPA's README; the scores are of linear probes on other data sets",
    scores={"CIFAR-10": 96.5, "CIFAR-100": 83.71, "mean of eight data sets": 79.48},
    of="code",
    inferred="backbone batch_size warmup_epochs",  # crops of 98 pixels are 7 patches of 14
    backbone=ViT("large", patch_size=14),
    epochs=100,
    batch_size=512,
    lr=5e-4,
    weight_decay=5e-2,
    warmup_epochs=1,
    n_directions=1024,
    augment=MultiCrop(
        global_scale=(0.3, 1.0),
        local_scale=(0.05, 0.3),
        local_size=98,
        augment=Augmentation(saturation=0.2, blur=0.5, solarize=0.2),
    ),
)
_turned: dict[str, Any] = {"aux": Rotation(head="backbone"), "aux_weight": 0.1}

_ROTATED_30 = {"1 %": 32.80, "1 %, top-5": 59.12, "10 %": 53.80, "10 %, top-5": 78.54}


def _longer() -> dict[str, Recipe]:
    """Return EffSSL's longer trainings on two crops, whose scores are known with the task alone."""
    found: dict[str, Recipe] = {}
    for epochs, linear in {35: 59.5, 50: 61.9, 100: 64.3}.items():
        source = f"EffSSL, {epochs} epochs; {_SMALL_BATCH}"
        base = changed(_swav_30, source=f"{source}; score of this baseline not known", epochs=epochs)
        found[f"SwAV, {epochs} epochs, 2 x 224"] = base
        found[f"SwAV + rotation, {epochs} epochs, 2 x 224"] = changed(base, linear, of="code", source=source, **_turned)
    return found


def _guided_batches() -> dict[str, Recipe]:
    """Return GSG's table 4: batches of 1,024 and of 256 images. Those of 512 are the recipes of its table 1."""
    found: dict[str, Recipe] = {}
    for title, recipe, scores in (("SimSiamGSG", _gsg, (70.1, 69.9)), ("BYOLGSG", _gsg_byol, (71.9, 71.6))):
        for batch_size, linear in zip((1024, 256), scores, strict=True):
            lr = 0.05 * batch_size / 256
            found[f"{title}, batch {batch_size}"] = changed(
                recipe, linear, source="GSG, table 4", batch_size=batch_size, lr=lr
            )
    return found


def _lightly() -> dict[str, Recipe]:
    """Return lightly's trainings of 100 epochs."""
    found: dict[str, Recipe] = {}

    def add(title: str, linear: float, knn: float, tuned: float, how: str = "", /, **params: Any) -> None:
        settings: dict[str, Any] = {"batch_size": 256, **params, "of": "code", "judged": BY_LIGHTLY, "epochs": 100}
        source = f"lightly's benchmark on ImageNet{how}"
        scores = {"fine-tuned": tuned}
        method = title.split(",")[0].replace("DCLW", "DCL")
        found[title] = new_recipe(method, source, linear, knn, scores=scores, **settings)

    simclr: dict[str, Any] = {"lr": 0.075 * 256**0.5, "weight_decay": 1e-6, "temperature": 0.1, **_LARS}
    lars: dict[str, Any] = {**_LARS, "weight_decay": 1e-6}
    add("SimCLR, lightly", 63.2, 44.8, 73.9, **simclr)
    add("DCL, lightly", 65.1, 49.6, 73.5, **simclr)
    add("DCLW, lightly", 64.5, 48.5, 73.2, sigma=0.5, **simclr)
    swav = {**_SWAV_800, **lars, "batch_size": 256, "lr": 0.6, "epsilon": 0.05, "queue_length": 3840}
    add("SwAV, lightly", 67.2, 49.5, 75.4, **swav)
    add("BYOL, lightly", 62.5, 46.0, 74.5, lr=0.45, ema_momentum=0.99, **lars)
    add(
        "BarlowTwins, lightly",
        *(62.9, 45.6, 72.6),
        **{**lars, "lr": 0.2, "weight_decay": 1.5e-6, "lambd": 5e-3, "proj_dim": 8192, "loss_scale": 0.024},
        inferred="loss_scale",
    )
    view = Augmentation(saturation=0.2, blur=0.5, solarize=0.1)
    vicreg = {**_VICREG, "batch_size": 256, "lr": 0.2, "augment": view, "inferred": "lr"}  # of an unfinished script
    add("VICReg, lightly", 63.0, 46.3, 73.7, **vicreg)
    add(
        "TiCo, lightly",
        *(49.7, 26.6, 72.7),
        "; the table says 256 images, the steps of its checkpoint are those of 512",
        **{**_LARS, "batch_size": 512, "lr": 0.4, "weight_decay": 1.5e-6, "ema_momentum": 0.99},
    )
    add("IBOT, ViT-S, lightly", 72.2, 65.4, 78.3, **{**_ibot["params"], "batch_size": 128, "lr": 2.5e-4})
    how = ", which predicts pixels that are not normalised by patch"
    add(
        "MAE, ViT-B, lightly",
        46.0,
        11.2,
        81.3,
        how,
        **{**_mae["params"], "batch_size": 256, "lr": 1.5e-4, "norm_pix_loss": False},
    )
    first, second = (clone(view).set_params(blur=0.5) for view in _large)
    crops = MultiCrop(
        global_scale=(0.3, 1.0), local_scale=(0.05, 0.3), local_size=96, augment=[first, second, *[first] * 6]
    )
    how = ", which compares the small views alone with the mean of the large ones"
    add(
        "LeJEPA, ViT-S, lightly",
        64.0,
        47.1,
        78.7,
        how,
        **{**_lejepa["params"], "backbone": "vit_small", "batch_size": 256, "augment": crops},
    )
    return found


def _leoclr() -> dict[str, Recipe]:
    """Return LeOCLR's experiments of 200 epochs beside MoCo v2 and SimCLR."""
    moco: dict[str, Any] = {
        "judged": BY_MOCO_IMAGENET,
        "inferred": "queue_size temperature proj_layers",
        "temperature": 0.2,
        "proj_layers": 2,
        **_moco_in,
    }
    base = new_recipe("MoCo", "LeOCLR, 200 epochs", 67.5, scores={_RANDOM_CROPS: 63.2}, epochs=200, **moco)
    ours = new_recipe("LeOCLR", "LeOCLR, 200 epochs", 71.7, scores={_RANDOM_CROPS: 68.9}, epochs=200, **moco)
    joint: dict[str, Any] = {**_R50, "epochs": 200, "batch_size": 256, "lr": 0.03, "weight_decay": 1e-4}
    simclr = new_recipe(
        "SimCLR",
        "LeOCLR, table 4",
        62.0,
        inferred="lr weight_decay temperature",
        judged=BY_MOCO_IMAGENET,
        temperature=0.2,
        **joint,
    )
    crops = "LeOCLR, views that are only cropped; no flips, inferred"
    alone: dict[str, Any] = {"flip": 0.0, "jitter": 0.0, "gray": 0.0}
    return {
        "MoCo v2, 200 epochs": base,
        "LeOCLR, 200 epochs": ours,
        "LeOCLR, cropped original": changed(ours, source="LeOCLR, figure 4; score not known", crop_original=True),
        "MoCo v2, crops alone": changed(
            base, 39.5, of="inferred", source=crops, augment=Augmentation(crop_scale=(0.2, 1.0), **alone)
        ),
        "LeOCLR, crops alone": changed(ours, 46.6, of="inferred", source=crops, augment=Augmentation(**alone)),
        "SimCLR, LeOCLR's baseline": simclr,
        "LeOCLR, end-to-end": changed(ours, 65.5, source="LeOCLR, table 4", encoder="end-to-end"),
    }


IMAGENET: dict[str, Recipe] = {
    "RotNet": new_recipe(
        "RotNet",
        "RotNet's code",
        backbone="alexnet_bn",
        epochs=50,
        batch_size=192,
        lr=0.01,
        weight_decay=5e-4,
        schedule=((15 / 50, 0.1), (30 / 50, 0.01), (45 / 50, 0.001)),
        of="code",
    ),
    "RelativePatch": new_recipe(
        "RelativePatch",
        "OpenSelfSup's code, with grey patches at a probability of 0.66",
        epochs=70,
        batch_size=512,
        lr=0.2,
        weight_decay=1e-4,
        warmup_epochs=5,
        hidden_dim=4096,
        schedule=((25 / 65, 0.1), (45 / 65, 0.01)),  # epochs 30 and 50, of 65 after the warm-up
        of="code",
        **_R50,
    ),
    "Colorization": new_recipe(
        "Colorization",
        "Colorful Image Colorization's code, a fully convolutional AlexNet; 450,000 steps",
        backbone="alexnet_bn",
        epochs=28,
        batch_size=80,
        optimizer=torch.optim.Adam,
        lr=3e-5,
        weight_decay=1e-3,
        schedule="step",
        stride=8,
        of="code",
        inferred="schedule",
    ),
    "ContextEncoder": new_recipe(
        "ContextEncoder",
        "Context Encoders' code; AlexNet and the shape of the holes not checked",
        backbone="alexnet",
        batch_size=64,
        optimizer=torch.optim.Adam,
        momentum=0.5,
        lr=2e-3,
        weight_decay=0.0,
        schedule="constant",
        region="random",
        of="code",
    ),
    "ContextEncoder, adversarial": new_recipe(
        "ContextEncoder",
        "Context Encoders' code for inpainting, with an encoder of its own",
        epochs=500,
        batch_size=64,
        optimizer=torch.optim.Adam,
        momentum=0.5,
        lr=2e-3,
        weight_decay=0.0,
        schedule="constant",
        region="center",
        hidden_dim=512,
        adversarial_weight=0.001,
        of="code",
    ),
    "DeepCluster": new_recipe(
        "DeepCluster",
        "DeepCluster's code, with a wider AlexNet and dropout",
        backbone="alexnet_bn",
        epochs=200,
        batch_size=256,
        lr=0.05,
        weight_decay=1e-5,
        n_clusters=10000,
        n_components=256,
        of="code",
    ),
    "InstDisc": new_recipe(
        "InstDisc",
        "InstDisc; not checked",
        54.0,
        46.5,
        epochs=200,
        batch_size=256,
        lr=0.03,
        weight_decay=1e-4,
        temperature=0.07,
        **TENTHS,
        of="code",
        **_R50,
    ),
    "PIRL": new_recipe(
        "PIRL", "PIRL, in VISSL", 64.29, epochs=800, batch_size=1024, lr=0.12, n_negatives=32000, of="code", **_R50
    ),
    "SimCLR": new_recipe(
        "SimCLR",
        f"SimCLR; {OTHER_LARS}",
        69.3,
        epochs=1000,
        batch_size=4096,
        lr=4.8,
        weight_decay=1e-6,
        temperature=0.1,
        **_LARS,
    ),
    "MoCo v1": new_recipe(
        "MoCo",
        "MoCo's code",
        60.6,
        epochs=200,
        augment="instdisc",
        proj_layers=1,
        temperature=0.07,
        **TENTHS,
        of="code",
        judged=BY_MOCO_IMAGENET,
        **_moco_in,
    ),
    "MoCo v2": new_recipe(
        "MoCo",
        "MoCo's code; fine-tuned by LeOCLR",
        71.1,
        scores={"1 %": 47.6, "10 %": 64.8},
        epochs=800,
        proj_layers=2,
        temperature=0.2,
        of="code",
        judged=BY_MOCO_IMAGENET,
        **_moco_in,
    ),
    "MoCo v3, 100 epochs": {
        **changed(_moco_v3, 68.9, of="code", epochs=100, lr=0.6 * 4096 / 256),
        "origin": {**_moco_v3["origin"], "lr": "inferred"},  # the default, which differs between versions of the code
    },
    "MoCo v3, 300 epochs": _moco_v3,
    "MoCo v3, 1000 epochs": changed(_moco_v3, 74.6, of="code", epochs=1000, weight_decay=1.5e-6, ema_momentum=0.996),
    "MoCo v3, ViT-S": _moco_v3_vit,
    "MoCo v3, ViT-B": changed(_moco_v3_vit, 76.7, of="code", scores={"fine-tuned": 83.2}, backbone="vit_base"),
    "ReSSL": new_recipe(
        "ReSSL",
        "ReSSL's code",
        69.9,
        epochs=200,
        batch_size=256,
        lr=0.05,
        weight_decay=1e-4,
        warmup_epochs=5,
        temperature=0.1,
        teacher_temperature=0.04,
        hidden_dim=4096,
        proj_dim=512,
        queue_size=131072,
        ema_momentum=0.999,
        of="code",
        **_R50,
    ),
    "DenseCL": new_recipe(
        "DenseCL",
        "DenseCL; not checked",
        63.3,
        epochs=200,
        temperature=0.2,
        dense_weight=0.5,
        of="code",
        judged=BY_MOCO_IMAGENET,
        **_moco_in,
    ),
    "PCL v2": new_recipe(
        "PCL",
        "PCL",
        67.6,
        epochs=200,
        n_clusters=(25000, 50000, 100000),
        instance_epochs=20,
        of="code",
        judged={"linear": {"protocol": "moco", "lr": 5.0}},
        **{**_moco_in, "queue_size": 16384},
    ),
    "LeOCLR": new_recipe(
        "LeOCLR",
        "LeOCLR",
        76.2,
        scores={"1 %": 62.8, "10 %": 71.5, "CIFAR-10, fine-tuned": 98.1, "CIFAR-100, fine-tuned": 86.9},
        epochs=800,
        inferred="queue_size",
        judged=BY_MOCO_IMAGENET,
        **_moco_in,
    ),
    **_leoclr(),
    "DeepClusterV2": new_recipe("DeepClusterV2", "SwAV's code, 2 x 224 + 6 x 96", 75.2, **_SWAV_800),
    "SwAV": _swav_in,
    "SwAV, 30 epochs": _swav_30,
    "SwAV + rotation, 30 epochs": changed(_swav_30, 57.30, of="code", scores=_ROTATED_30, **_turned),
    **_longer(),
    "SwAV, 50 epochs": _swav_50,
    "SwAV + rotation, 50 epochs": changed(_swav_50, 68.3, of="code", **_turned),
    "BYOL": new_recipe(
        "BYOL", "BYOL", 74.3, epochs=1000, batch_size=4096, lr=3.2, weight_decay=1.5e-6, ema_momentum=0.996, **_LARS
    ),
    "SimSiam": new_recipe("SimSiam", "SimSiam", 68.1, judged={"linear": {"protocol": "simsiam"}}, **_gsg_in),
    "SimSiam, GSG's baseline": new_recipe("SimSiam", _GSG_IN, 67.9, 51.7, judged=BY_GSG_IMAGENET, **_gsg_in),
    "SimSiamGSG": _gsg,
    "BYOL, GSG's baseline": changed(_gsg_byol, 69.9, 56.5, stop_gradient="symmetric"),
    "BYOLGSG": _gsg_byol,
    **_guided_batches(),
    "BarlowTwins": new_recipe(
        "BarlowTwins",
        "Barlow Twins' code",
        73.5,
        epochs=1000,
        batch_size=2048,
        lr=1.6,
        # The learning rate of biases and norms over that of the weights, whose LARS steps do not depend on the scale.
        loss_scale=0.024,
        weight_decay=2.4e-8,
        proj_dim=8192,
        of="code",
        inferred="loss_scale",
        judged=BY_SWAV,
        **_LARS,
    ),
    "VICReg": new_recipe("VICReg", "VICReg", 73.2, epochs=1000, **_VICREG),
    "VICRegL": _vicregl,
    "VICRegL, alpha 0.9": changed(_vicregl, 71.2, of="code", scores={"VOC12, linear, mIoU": 54.0}, alpha=0.9),
    "DINO": _dino,
    "DINO, ViT-S": changed(
        _dino,
        73.8,
        69.3,
        of="code",
        source="DINO's code, ViT-S, 100 epochs",
        backbone="vit_small",
        epochs=100,
        batch_size=512,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.04,
        weight_decay_end=0.4,
        augment=MultiCrop(n_local=8, global_scale=(0.4, 1.0), local_scale=(0.05, 0.4), augment=_dino_views),
    ),
    "IBOT, ViT-S": _ibot,
    "IBOT, ViT-B": changed(
        _ibot,
        79.5,
        77.1,
        of="inferred",
        source=f"{_IBOT}; epochs of VISReg's table, settings of descendants' scripts",
        scores={"fine-tuned": 83.8},
        backbone="vit_base",
        epochs=400,
        lr=3e-3,
        augment=MultiCrop(n_local=10, global_scale=(0.32, 1.0), local_scale=(0.05, 0.32), augment=_dino_views),
    ),
    "MSN, ViT-S": new_recipe(
        "MSN",
        "MSN's code, ViT-S on 16 GPUs, which clips gradients and lets the weight decay rise to 0.4; accuracy not known",
        epochs=800,
        batch_size=1024,
        lr=1e-3,
        warmup_epochs=15,
        mask_ratio=0.15,
        augment=MultiCrop(n_local=10, global_scale=(0.3, 1.0), local_scale=(0.05, 0.3), local_size=96),
        **_VIT_S,
    ),
    "LeJEPA, ViT-L": _lejepa,
    "LeJEPA, ViT-H": {
        **changed(_lejepa, 79.0, source="LeJEPA, abstract", backbone=ViT("huge", patch_size=14)),
        "origin": {**dict.fromkeys(_lejepa["params"], "inferred"), "backbone": "printed"},
    },
    **_lightly(),
    "DCL, 200 epochs": new_recipe(
        "DCL",
        "DCL, abstract; other settings of lightly's benchmark",
        68.2,
        epochs=200,
        batch_size=256,
        lr=0.075 * 256**0.5,
        weight_decay=1e-6,
        temperature=0.1,
        inferred="lr weight_decay temperature optimizer warmup_epochs",
        **_LARS,
    ),
    "MAE, ViT-B": _mae,
    "MAE, ViT-B, 100 epochs": changed(
        changed(_mae, of="inferred", batch_size=128, lr=1e-4, warmup_epochs=10),
        source="solo-learn, table of ImageNet; the batch of its script for 400 epochs",
        scores={"fine-tuned": 81.60},
        epochs=100,
        augment=Augmentation(jitter=0.0, gray=0.0, interpolation="bicubic"),
    ),
    "MAE, ViT-L": changed(_mae, 75.8, scores={"fine-tuned": 85.95}, of="code", backbone="vit_large"),
    "SimMIM, ViT-B": new_recipe(
        "SimMIM",
        "SimMIM's code, which adds relative positions; linear accuracy of the eighth block, table 6",
        56.7,
        scores={"fine-tuned": 83.8},
        of="code",
        inferred="batch_size lr",
        backbone="vit_base",
        epochs=800,
        batch_size=2048,
        lr=4e-4,
        weight_decay=0.05,
        warmup_epochs=10,
        schedule=((0.873, 0.1),),
        mask_ratio=0.6,
        mask_size=32,
        clip_grad=5.0,
    ),
    "IJEPA, ViT-H": new_recipe(
        "IJEPA",
        "I-JEPA's code; scores of tables 1 and 2",
        79.3,
        scores={"1 %": 73.3},
        of="code",
        backbone=ViT("huge", patch_size=14),
        epochs=300,
        batch_size=2048,
        lr=1e-3,
        weight_decay=0.04,
        weight_decay_end=0.4,
        warmup_epochs=40,
        ema_momentum=0.996,
        predictor_dim=384,
        predictor_depth=12,
        n_blocks=4,
    ),
}
