"""Fine-tuning on few labels."""

from __future__ import annotations

from typing import Any

from skssl.recipes.building import Recipe
from skssl.recipes.imagenet import OTHER_LARS
from skssl.recipes.tiny_imagenet import TINY_IMAGENET

# Fine-tuning on few labels: random resized crops and flips, no weight decay except for rotation decoupling


def _tuning(
    source: str, /, *rates: float, of: str = "code", scores: dict[str, float] | None = None, **params: Any
) -> Recipe:
    rates_by_name = dict(zip(("backbone_lr", "head_lr"), rates, strict=False))  # both or neither
    params = {**rates_by_name, **params}
    origin = dict.fromkeys(params, of)
    return {"method": "FineTuner", "params": params, "scores": scores or {}, "source": source, "origin": origin}


_SIMCLR_LR = 0.005 * 1024**0.5
_simclr_tuning: dict[str, Any] = {"batch_size": 1024, "optimizer": "lars", "schedule": "cosine"}
_epoch_cosine: dict[str, Any] = {"epochs": 20, "batch_size": 256, "schedule": "epoch_cosine"}
_fifths: dict[str, Any] = {"epochs": 20, "batch_size": 256, "schedule": (0.6, 0.8)}
_SIMCLR_SOURCE = f"SimCLRv2's code; {OTHER_LARS}"
_v2_tuning: dict[str, Any] = {**_simclr_tuning, "layer": "projector1"}

FINE_TUNING: dict[str, Recipe] = {
    "SwAV, PCL and EffSSL, 1 %": _tuning("EffSSL and SwAV's code", 0.02, 5.0, **_fifths),
    "SwAV, PCL and EffSSL, 10 %": _tuning("EffSSL and SwAV's code", 0.01, 0.2, **_fifths),
    "SimCLR, 1 %": _tuning(_SIMCLR_SOURCE, _SIMCLR_LR, _SIMCLR_LR, epochs=60, **_simclr_tuning),
    "SimCLR, 10 %": _tuning(
        f"{_SIMCLR_SOURCE}; epochs not checked", _SIMCLR_LR, _SIMCLR_LR, epochs=30, **_simclr_tuning
    ),
    "SimCLRv2, 1 %": _tuning(_SIMCLR_SOURCE, _SIMCLR_LR, _SIMCLR_LR, epochs=60, **_v2_tuning),
    "SimCLRv2, 10 %": _tuning(f"{_SIMCLR_SOURCE}; epochs not checked", _SIMCLR_LR, _SIMCLR_LR, epochs=30, **_v2_tuning),
    "LeOCLR, 1 %": _tuning("LeOCLR, which states only the epochs", of="printed", epochs=60),
    "LeOCLR, 10 %": _tuning("LeOCLR, which states only the epochs", of="printed", epochs=30),
    "Barlow Twins, 1 %": _tuning("Barlow Twins' code", 0.005, 0.5, **_epoch_cosine),
    "Barlow Twins, 10 %": _tuning("Barlow Twins' code; the head's rate not checked", 0.005, 0.05, **_epoch_cosine),
    "VICReg, 1 %": _tuning("VICReg's code", 0.03, 0.08, **_epoch_cosine),
    "VICReg, 10 %": _tuning("VICReg's code", 0.01, 0.1, **_epoch_cosine),
    "RotationDecoupling, Tiny-ImageNet, 20 %": _tuning(
        "NT-Xent report's code, which uses Nesterov's momentum",
        0.1,
        0.1,
        scores={
            "linear": 33.56,
            "non-linear": 40.25,
            "MiniPlaces": 27.25,
            "CIFAR-10": 67.55,
            "NT-Xent, linear": 34.90,
            "NT-Xent, non-linear": 40.99,
            "NT-Xent, MiniPlaces": 27.62,
            "NT-Xent, CIFAR-10": 67.79,
        },
        epochs=65,
        batch_size=192,
        weight_decay=5e-4,
        schedule=(5 / 65, 25 / 65, 45 / 65),
        augment=TINY_IMAGENET["RotationDecoupling, NT-Xent"]["params"]["augment"],
    ),
}
