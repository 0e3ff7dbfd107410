"""CIFAR-100: images of 32 pixels, a ResNet-18 with a 3x3 stem."""

from __future__ import annotations

from skssl.pretext import Rotation
from skssl.recipes.building import BY_EFFSSL, SHORT, Recipe, changed, new_recipe, rotated, w_mse_by_views
from skssl.recipes.cifar10 import CIFAR10, EFFSSL, byol, mae, mmcr, ressl, simclr, simsiam, swav

_simclr100, _swav100 = changed(simclr, 62.96, 55.10), changed(swav, 51.50, 40.35)
_byol100 = changed(byol, 60.67, 54.37, ema_momentum=0.85)
_simsiam100 = changed(simsiam, 64.27, 56.90, lr=0.05, proj_layers=3)

# The angles of each set could not be read: they are inferred from what the paper says about them.
_ANGLES: dict[str, tuple[tuple[float, ...], float, float]] = {  # with the linear and the kNN score
    "0 and 180 degrees": ((0, 180), 66.21, 58.03),
    "90 and 270 degrees": ((90, 270), 62.96, 53.86),
    "0 and 90 degrees": ((0, 90), 65.24, 56.41),
    "0 and 270 degrees": ((0, 270), 65.04, 56.29),
    "diagonal angles": ((45, 135, 225, 315), 65.50, 57.60),
    "8 angles": (tuple(range(0, 360, 45)), 67.25, 57.54),
    "12 angles": (tuple(range(0, 360, 30)), 63.61, 55.43),
}
_SHARED = {  # the last layer that the task shares with the method, with the linear and the kNN score
    "conv1": (52.50, 50.36),
    "layer1": (52.84, 50.98),
    "layer2": (54.85, 51.75),
    "layer3": (58.31, 52.77),
    "backbone": (66.06, 58.29),
}


def _ablations() -> dict[str, Recipe]:
    """Return EffSSL's ablations of the angles, and of the layers that the task shares with BYOL."""
    task = rotated(_byol100, 5.0)
    found: dict[str, Recipe] = {}
    for title, (angles, linear, knn) in _ANGLES.items():
        aux = Rotation(angles=angles)
        made = changed(task, linear, knn, of="inferred", source="EffSSL, sets of angles", aux=aux)
        found[f"BYOL + rotation, {title}"] = made
    for layer, (linear, knn) in _SHARED.items():
        source, aux = "EffSSL, table S2", Rotation(shared=layer)
        found[f"BYOL + rotation, shared to {layer}"] = changed(task, linear, knn, source=source, aux=aux)
    return found


CIFAR100: dict[str, Recipe] = {
    "RotNet": new_recipe("RotNet", EFFSSL, 50.87, 36.25, inferred="batch_size", judged=BY_EFFSSL, **SHORT),
    "SimCLR": _simclr100,
    "SimCLR + rotation": rotated(_simclr100, 1.0, 65.40, 57.09),
    "BYOL": _byol100,
    "BYOL + rotation": rotated(_byol100, 5.0, 67.03, 58.41),
    **_ablations(),
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
    "WMSE": changed(CIFAR10["WMSE"], 61.33),
    "ReSSL": changed(CIFAR10["ReSSL"], 65.92),
    "ReSSL, 200 epochs": changed(ressl, 63.79),
    **w_mse_by_views(50000, 1000, 3e-3, {2: (66.10, 56.69), 4: (67.64, 56.45)}),
    "MMCR": mmcr,
    "MAE": mae,
    "DeepClusterV2": changed(CIFAR10["DeepClusterV2"], 63.61),
}
