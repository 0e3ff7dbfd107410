"""CIFAR-100: images of 32 pixels, a ResNet-18 with a 3x3 stem."""

from __future__ import annotations

from skssl.recipes.building import BY_EFFSSL, SHORT, Recipe, changed, new_recipe, rotated
from skssl.recipes.cifar10 import CIFAR10, EFFSSL, byol, simclr, simsiam, swav

_simclr100, _swav100 = changed(simclr, 62.96, 55.10), changed(swav, 51.50, 40.35)
_byol100 = changed(byol, 60.67, 54.37, ema_momentum=0.85)
_simsiam100 = changed(simsiam, 64.27, 56.90, lr=0.05, proj_layers=3)

CIFAR100: dict[str, Recipe] = {
    "RotNet": new_recipe("RotNet", EFFSSL, 50.87, 36.25, inferred="batch_size", judged=BY_EFFSSL, **SHORT),
    "SimCLR": _simclr100,
    "SimCLR + rotation": rotated(_simclr100, 1.0, 65.40, 57.09),
    "BYOL": _byol100,
    "BYOL + rotation": rotated(_byol100, 5.0, 67.03, 58.41),
    "SwAV": _swav100,
    "SwAV + rotation": rotated(_swav100, 0.5, 58.60, 50.09),
    "SimSiam": _simsiam100,
    "SimSiam + rotation": rotated(_simsiam100, 0.2, 67.38, 58.92),
    "SupCon": {**CIFAR10["SupCon"], "linear": 76.5, "source": "SupCon's code for CIFAR-100"},
    "BarlowTwins": changed(CIFAR10["BarlowTwins"], 70.90),
    "VICReg": changed(CIFAR10["VICReg"], 68.54),
    "DINO": changed(CIFAR10["DINO"], 66.76),
    "NNCLR": changed(CIFAR10["NNCLR"], 69.62),
    "MoCoV3": changed(CIFAR10["MoCoV3"], 68.83),
    "DeepClusterV2": changed(CIFAR10["DeepClusterV2"], 63.61),
}
