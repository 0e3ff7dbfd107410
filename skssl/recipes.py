"""Recipes: the papers' settings by data set, with their source and the reported scores.

A recipe is a dict with

- "method": the name of the estimator, and "params", its arguments; missing ones have their defaults;
- "linear" and "knn": the reported accuracy in per cent, or None, and "scores", other reported ones by name;
- "source", and "origin": where the value of each argument comes from, which is "printed" in the paper, "code" (of its
  authors, or of the third party that the source names) or "inferred", where neither states it;
- "protocol": the arguments of `LinearProbe` and `KNNProbe` by which the source judges, see `make_probes`. Empty ones
  mean that the source has a protocol of its own, or none.

EffSSL's batch of 512 images and warm-up of 10 epochs are inferred, for all data sets. Its learning rates for SimSiam,
0.07 and 0.05, are used as printed. The code that EffSSL cites multiplies the rate by ``batch_size / 256``, which would
make them 0.14 and 0.1. The text states neither this factor nor the batch size, and 0.07 is near to the 0.06 for 512
images of SimSiam's appendix D and of GSG. "not checked" in the source means that the settings or the score are not
verified.

``FINE_TUNING`` holds the settings of `FineTuner` by share of labels, for ImageNet unless another data set is named. Its
recipes have no scores, which depend on the encoder. `make` requires the ``encoder`` for them.

>>> from skssl import recipes
>>> recipe = recipes.CIFAR10["BYOL + rotation"]
>>> recipe["linear"], recipe["source"]
(91.89, 'EffSSL, section 4 and table 5')
>>> recipes.make(recipe, epochs=20, random_state=0)
BYOL(aux='rotation', aux_weight=5.0, batch_size=512, ema_momentum=0.95,
     epochs=20, lr=0.8, random_state=0, warmup_epochs=10)

Sources other than the papers and the code of the methods. EffSSL: Towards Efficient and Effective Self-Supervised
Learning of Visual Representations, ECCV 2022. GSG: Implicit Contrastive Representation Learning with Guided Stop-
gradient, NeurIPS 2023. LeOCLR: arXiv:2403.06813. NT-Xent report: Improving Self-Supervised Representation Learning by
Rotation Feature Decoupling & NT-Xent Loss. solo-learn: da Costa et al., JMLR 2022; its learning rates are not used:
its LARS differs (a trust coefficient of 0.02, with clipping).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from sklearn.base import clone

from skssl import methods
from skssl.augment import Augmentation, MultiCrop, preset
from skssl.pretext import Rotation
from skssl.probes import KNNProbe, LinearProbe
from skssl.training.optim import LARC
from skssl.transfer import FineTuner

__all__ = ["CIFAR10", "CIFAR100", "FINE_TUNING", "IMAGENET", "IMAGENET100", "TINY_IMAGENET", "make", "make_probes"]

Recipe = dict[str, Any]


def make(recipe: Recipe, **changes: Any) -> Any:
    """Make the estimator of a recipe.

    Parameters
    ----------
    recipe : dict
        A recipe of this module.
    **changes
        Arguments in addition to, or instead of, the recipe's, such as ``epochs`` or ``random_state``.

    Returns
    -------
    estimator
        The estimator, not fitted.

    Examples
    --------
    >>> from skssl import recipes
    >>> recipes.make(recipes.IMAGENET["SimSiam"]).get_params()["backbone"]
    'resnet50'
    """
    estimators = {**vars(methods), "FineTuner": FineTuner}
    return estimators[recipe["method"]](**{**recipe["params"], **changes})


def make_probes(recipe: Recipe, encoder: Any, **changes: Any) -> dict[str, Any]:
    """Make the probes by which the source of a recipe judges.

    Parameters
    ----------
    recipe : dict
        A recipe of this module with a "protocol".
    encoder : estimator
        The encoder. A fitted one is frozen.
    **changes
        Arguments in addition to, or instead of, those of both probes, such as ``device``.

    Returns
    -------
    dict of str to estimator
        A `LinearProbe` as "linear" and a `KNNProbe` as "knn". They are fitted to images.

    Examples
    --------
    >>> from skssl import recipes
    >>> recipe = recipes.CIFAR10["MoCo"]
    >>> recipes.make_probes(recipe, recipes.make(recipe))["knn"].get_params(deep=False)["layer"]
    'projector'
    """
    probes = {"linear": LinearProbe, "knn": KNNProbe}
    return {name: probe(encoder=encoder, **{**recipe["protocol"][name], **changes}) for name, probe in probes.items()}


def _origins(params: Mapping[str, Any], default: str, named: Mapping[str, str]) -> dict[str, str]:
    """Return the origin of each argument. `named` lists those with another origin than the default."""
    found = dict.fromkeys(params, default)
    for origin, names in named.items():
        found |= dict.fromkeys(names.split(), origin)
    return found


def _recipe(
    method: str,
    source: str,
    linear: float | None = None,
    knn: float | None = None,
    /,
    *,
    of: str = "printed",
    printed: str = "",
    code: str = "",
    inferred: str = "",
    judged: dict[str, dict[str, Any]] | None = None,
    scores: dict[str, float] | None = None,
    **params: Any,
) -> Recipe:
    """Return a recipe whose arguments are of one origin, except for the names listed by another."""
    origin = _origins(params, of, {"printed": printed, "code": code, "inferred": inferred})
    protocol = {"linear": {}, "knn": {}, **(judged or {})}
    return {
        "method": method,
        "params": params,
        "linear": linear,
        "knn": knn,
        "scores": scores or {},
        "source": source,
        "origin": origin,
        "protocol": protocol,
    }


def _with(
    recipe: Recipe,
    linear: float | None,
    knn: float | None = None,
    /,
    *,
    of: str = "printed",
    scores: dict[str, float] | None = None,
    **params: Any,
) -> Recipe:
    """Return a recipe with additional arguments, all of one origin, and another score."""
    return {
        **recipe,
        "linear": linear,
        "knn": knn,
        "scores": scores or {},
        "params": {**recipe["params"], **params},
        "origin": {**recipe["origin"], **dict.fromkeys(params, of)},
    }


def _rotated(recipe: Recipe, weight: float, linear: float | None, knn: float | None = None, /) -> Recipe:
    return _with(recipe, linear, knn, aux="rotation", aux_weight=weight)


# How the sources judge

_BY_EFFSSL: dict[str, dict[str, Any]] = {"linear": {"protocol": "effssl"}, "knn": {"protocol": "effssl"}}
# Section 4.3: for SimSiam a rate of 30, crops and flips
_BY_EFFSSL_SIMSIAM: dict[str, dict[str, Any]] = {
    **_BY_EFFSSL,
    "linear": {"protocol": "gsg", "epochs": 100, "batch_size": 512},
}
_BY_GSG: dict[str, dict[str, Any]] = {"linear": {"protocol": "gsg"}, "knn": {"protocol": "gsg"}}
_BY_GSG_IN: dict[str, dict[str, Any]] = {"linear": {"protocol": "simsiam"}, "knn": {"n_neighbors": 200}}
# The demonstration has no linear classifier.
_BY_MOCO: dict[str, dict[str, Any]] = {
    "linear": {"protocol": "moco"},
    "knn": {"protocol": "moco", "layer": "projector"},
}
_BY_MOCO_IN: dict[str, dict[str, Any]] = {"linear": {"protocol": "moco"}}
_BY_SWAV: dict[str, dict[str, Any]] = {"linear": {"protocol": "swav"}}
_BY_SOLO: dict[str, dict[str, Any]] = {"linear": {"protocol": "solo-learn"}}
_BY_LIGHTLY: dict[str, dict[str, Any]] = {"knn": {"n_neighbors": 200, "temperature": 0.1}}
_BY_SUPCON: dict[str, dict[str, Any]] = {
    "linear": {
        "solver": "sgd",
        "epochs": 100,
        "batch_size": 512,
        "lr": 5.0,
        "weight_decay": 0.0,
        "schedule": (0.6, 0.75, 0.9),
        "augment": Augmentation(crop_scale=(0.2, 1.0), jitter=0.0, gray=0.0),
    }
}
_BY_DECOUPLING: dict[str, dict[str, Any]] = {"linear": {"protocol": "decoupling", "layer": "conv5"}}

# CIFAR-10: 32x32, a ResNet-18 with a 3x3 stem (the default backbone)

_EFFSSL, _GSG = "EffSSL, section 4 and table 5", "GSG, section 5 and table 1"
_SHORT: dict[str, Any] = {"epochs": 200, "batch_size": 512}
_LONG: dict[str, Any] = {"epochs": 1000, "batch_size": 256}
_TENTHS: dict[str, Any] = {"schedule": ((0.6, 0.1), (0.8, 0.01))}  # epochs 120 and 160 of 200
_UNSTATED: dict[str, Any] = {"inferred": "batch_size warmup_epochs", "judged": _BY_EFFSSL}  # by EffSSL

_simclr = _recipe("SimCLR", _EFFSSL, 88.77, 86.37, lr=0.5, temperature=0.2, warmup_epochs=10, **_SHORT, **_UNSTATED)
_byol = _recipe("BYOL", _EFFSSL, 89.30, 86.56, lr=0.8, ema_momentum=0.95, warmup_epochs=10, **_SHORT, **_UNSTATED)
_swav = _recipe(
    "SwAV",
    _EFFSSL,
    83.60,
    80.65,
    n_prototypes=100,
    epsilon=0.03,
    inferred="batch_size",
    judged=_BY_EFFSSL,
    **_SHORT,
)
_simsiam = _recipe(
    "SimSiam",
    _EFFSSL,
    89.77,
    87.05,
    lr=0.07,
    proj_layers=2,
    schedule="cosine",
    warmup_epochs=10,
    **_SHORT,
    **{**_UNSTATED, "judged": _BY_EFFSSL_SIMSIAM},
)
# Section 5.1 says that there is no schedule of the learning rate. lightly's benchmark, which it follows, has a cosine.
# The paper's authors released no code for CIFAR-10.
_gsg_params: dict[str, Any] = {"lr": 0.06, "weight_decay": 5e-4, "schedule": "constant", **_SHORT}
_gsg = _recipe("SimSiamGSG", _GSG, 86.4, 82.2, judged=_BY_GSG, **_gsg_params)
_gsg_byol = _recipe(
    "BYOLGSG", _GSG, 90.3, 89.4, ema_momentum=0.99, inferred="ema_momentum", judged=_BY_GSG, **_gsg_params
)
_guided = {
    "SimSiam, GSG's baseline": _with(_gsg, 82.7, 77.0, stop_gradient="symmetric"),
    "SimSiamGSG": _gsg,
    "BYOL, GSG's baseline": _with(_gsg_byol, 88.0, 85.4, stop_gradient="symmetric"),
    "BYOLGSG": _gsg_byol,
}
_COSINE = "lightly's benchmark, which GSG follows, with a cosine; the scores are GSG's, whose text has no schedule"
_moco = _recipe(
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
    judged=_BY_MOCO,
    **_SHORT,
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
            ("SimCLR", "SimCLR + rotation"), (_simclr, _rotated(_simclr, 1.0, None)), scores, strict=True
        ):
            few: dict[str, Any] = {} if share == 1 else {"label_fraction": share}
            ending = "" if share == 1 else f" by {share:.0%} of the labels".replace("%", " %")
            made = _with(base, score, false_negatives="remove", **few)
            found[f"{title}, false negatives removed{ending}"] = {**made, "source": "EffSSL, section 3.1 and table 2"}
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
    "judged": _BY_LIGHTLY,
}
_dcl = _recipe("DCL", _LIGHTLY, None, 84.4, temperature=0.1, **_lightly)

CIFAR10: dict[str, Recipe] = {
    "RotNet": _recipe("RotNet", _EFFSSL, 84.00, 78.01, inferred="batch_size", judged=_BY_EFFSSL, **_SHORT),
    "SimCLR": _simclr,
    "SimCLR + rotation": _rotated(_simclr, 1.0, 90.91, 88.69),
    **_effssl_labels(),
    "BYOL": _byol,
    "BYOL + rotation": _rotated(_byol, 5.0, 91.89, 89.80),
    "SwAV": _swav,
    "SwAV + rotation": _rotated(_swav, 0.5, 87.20, 85.26),
    "SimSiam": _simsiam,
    "SimSiam + rotation": _rotated(_simsiam, 0.1, 91.91, 90.35),
    **_guided,
    **{
        f"{title}, cosine": {
            **_with(recipe, recipe["linear"], recipe["knn"], of="code", schedule="epoch_cosine"),
            "source": _COSINE,
        }
        for title, recipe in _guided.items()
    },
    "MoCo": _moco,
    "MoCo, symmetric": _with(_moco, None, 85.3, of="code", symmetric=True),
    "MoCo v2, LeOCLR's baseline": _recipe(
        "MoCo", _LEOCLR, 73.88, inferred=_LEOCLR_UNSTATED, judged=_BY_MOCO_IN, **_leoclr_params
    ),
    "LeOCLR": _recipe("LeOCLR", _LEOCLR, 79.59, inferred=_LEOCLR_UNSTATED, judged=_BY_MOCO_IN, **_leoclr_params),
    "DCL": _dcl,
    "DCLW": _with(_dcl, None, 83.3, of="code", sigma=0.5),
    "NNCLR": _recipe(
        "NNCLR",
        "solo-learn",
        91.88,
        temperature=0.2,
        hidden_dim=2048,
        pred_dim=4096,
        proj_dim=256,
        queue_size=65536,
        augment="byol",
        of="code",
        judged=_BY_SOLO,
        **_LONG,
    ),
    "NNCLR, lightly": _recipe(
        "NNCLR", _LIGHTLY, None, 83.4, temperature=0.5, proj_layers=2, queue_size=4096, **_lightly
    ),
    "SupCon": _recipe(
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
        judged=_BY_SUPCON,
    ),
    "InstDisc": _recipe(
        "InstDisc",
        "InstDisc, CIFAR-10; not checked",
        None,
        80.4,
        epochs=200,
        batch_size=128,
        lr=0.03,
        n_negatives=4096,
        **_TENTHS,
        of="code",
        judged={"knn": {"n_neighbors": 200, "temperature": 0.1, "layer": "projector"}},
    ),
    "DirectPred": _recipe(
        "DirectPred", "DirectPred, 100 epochs; not checked", 85.2, epochs=100, batch_size=128, lr=0.03, of="code"
    ),
    "BarlowTwins": _recipe(
        "BarlowTwins", "solo-learn", 92.10, proj_dim=2048, lambd=5e-3, of="code", judged=_BY_SOLO, **_LONG
    ),
    "VICReg": _recipe(
        "VICReg",
        "solo-learn",
        92.07,
        proj_dim=2048,
        augment=Augmentation(crop_scale=(0.2, 1.0), saturation=0.2, solarize=0.1, interpolation="bicubic"),
        of="code",
        judged=_BY_SOLO,
        **_LONG,
    ),
    "DINO": _recipe(
        "DINO", "solo-learn", 89.52, n_prototypes=4096, ema_momentum=0.9995, of="code", judged=_BY_SOLO, **_LONG
    ),
    "DeepClusterV2": _recipe("DeepClusterV2", "solo-learn", 88.85, of="code", judged=_BY_SOLO, **_LONG),
}

# CIFAR-100

_simclr100, _swav100 = _with(_simclr, 62.96, 55.10), _with(_swav, 51.50, 40.35)
_byol100 = _with(_byol, 60.67, 54.37, ema_momentum=0.85)
_simsiam100 = _with(_simsiam, 64.27, 56.90, lr=0.05, proj_layers=3)

CIFAR100: dict[str, Recipe] = {
    "RotNet": _recipe("RotNet", _EFFSSL, 50.87, 36.25, inferred="batch_size", judged=_BY_EFFSSL, **_SHORT),
    "SimCLR": _simclr100,
    "SimCLR + rotation": _rotated(_simclr100, 1.0, 65.40, 57.09),
    "BYOL": _byol100,
    "BYOL + rotation": _rotated(_byol100, 5.0, 67.03, 58.41),
    "SwAV": _swav100,
    "SwAV + rotation": _rotated(_swav100, 0.5, 58.60, 50.09),
    "SimSiam": _simsiam100,
    "SimSiam + rotation": _rotated(_simsiam100, 0.2, 67.38, 58.92),
    "SupCon": {**CIFAR10["SupCon"], "linear": 76.5, "source": "SupCon's code for CIFAR-100"},
    "BarlowTwins": _with(CIFAR10["BarlowTwins"], 70.90),
    "VICReg": _with(CIFAR10["VICReg"], 68.54),
    "DINO": _with(CIFAR10["DINO"], 66.76),
    "DeepClusterV2": _with(CIFAR10["DeepClusterV2"], 63.61),
    "NNCLR": _with(CIFAR10["NNCLR"], 69.62),
}

# Tiny-ImageNet: 64x64 images enlarged to 224, an AlexNet with BatchNorm. With NT-Xent the report enlarges them to 256
# and crops 224, 7/8 of the side. The scores are of the last convolution, not of the block after it that `transform`
# returns. The code's rates are those of 245 epochs, of which 200 are trained. The NT-Xent script sets them after an
# epoch, so its first epoch has a rate of 0.1.

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
    "RotationDecoupling": _recipe(
        "RotationDecoupling",
        _report,
        26.58,
        scores={"non-linear": 37.22, "MiniPlaces": 26.31, "CIFAR-10": 65.60},
        of="code",
        printed="backbone epochs",
        judged=_BY_DECOUPLING,
        temperature=0.07,
        **_decoupling,
    ),
    "RotationDecoupling, NT-Xent": _recipe(
        "RotationDecoupling",
        _report,
        27.54,
        scores={"non-linear": 38.19, "MiniPlaces": 26.54, "CIFAR-10": 66.46},
        of="code",
        printed="backbone epochs loss temperature",
        judged=_BY_DECOUPLING,
        loss="nt_xent",
        temperature=0.1,
        **_decoupling_nt_xent,
    ),
}

# ImageNet-100: 224x224, ResNet-18. EffSSL, section S4.1, takes solo-learn's settings for SimCLR, and those of SwAV's
# code, with multi-crop, for SwAV. It has one batch size, inferred to be 512 as on CIFAR.

_IN100: dict[str, Any] = {"epochs": 100, "batch_size": 512, "warmup_epochs": 10}
_TABLE = "EffSSL, table of ImageNet-100"
# solo-learn's LARS clips the rate of each layer at lr, so that lr is the rate of momentum SGD where it is clipped: 0.3
# for 256 images, here in SGD for 512.
_simclr_100 = _recipe(
    "SimCLR",
    f"{_TABLE}; solo-learn's script, whose LARS differs",
    72.02,
    temperature=0.2,
    hidden_dim=2048,
    weight_decay=1e-4,
    lr=0.6,
    code="temperature hidden_dim weight_decay",
    inferred="lr batch_size warmup_epochs",
    judged=_BY_SOLO,
    **_IN100,
)
_byol_100 = _recipe("BYOL", _TABLE, 71.02, lr=0.6, ema_momentum=0.95, **_IN100, **_UNSTATED)
# SwAV's code has 4.8 for 4,096 images, as EffSSL's scripts for ImageNet have 1.2 for 1,024. It would cut a queue that
# is shorter than the batch to none; here the queue holds the last 384 embeddings.
_swav_100 = _recipe(
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
    judged=_BY_SWAV,
    **_IN100,
)

IMAGENET100: dict[str, Recipe] = {
    "RotNet": _recipe("RotNet", _TABLE, 53.86, **_IN100, **_UNSTATED),
    "Jigsaw": _recipe(
        "Jigsaw", "EffSSL, section 5.5", 42.01, n_permutations=100, code="n_permutations", **_IN100, **_UNSTATED
    ),
    "SimCLR": _simclr_100,
    "SimCLR + rotation": _rotated(_simclr_100, 0.1, 73.24),
    "BYOL": _byol_100,
    "BYOL + rotation": _rotated(_byol_100, 6.0, 73.60),
    # The weight of the jigsaw task is not stated; it is that of rotation.
    "BYOL + jigsaw": _with(_with(_byol_100, None, aux="jigsaw"), 73.60, of="inferred", aux_weight=6.0),
    "BYOL + jigsaw + rotation": _with(
        _with(_byol_100, None, aux=["jigsaw", "rotation"]), 74.72, of="inferred", aux_weight=6.0
    ),
    "SwAV": _swav_100,
    "SwAV + rotation": _rotated(_swav_100, 0.1, 74.40),
}

# ImageNet: 224x224, ResNet-50. The patches of RelativePatch are cut from images of 255 pixels.

_R50: dict[str, Any] = {"backbone": "resnet50"}
_LARS: dict[str, Any] = {**_R50, "optimizer": "lars", "warmup_epochs": 10}
_OTHER_LARS = "its LARS differs, with the learning rate inside the momentum"
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
_large = preset("byol", 224)
_dino_views = [*_large, *[clone(_large[0]).set_params(blur=0.5)] * 8]
_swav_in = _recipe(
    "SwAV",
    "SwAV's code, 2 x 224 + 6 x 96",
    75.3,
    of="code",
    judged=_BY_SWAV,
    epochs=800,
    batch_size=4096,
    lr=4.8,
    weight_decay=1e-6,
    n_prototypes=3000,
    epsilon=0.05,
    augment=MultiCrop(),
    **{**_LARS, "optimizer": LARC},
)
_BY_SWAV_30: dict[str, dict[str, Any]] = {"linear": {"protocol": "swav", "epochs": 30}, "knn": {}}
# EffSSL's code uses LARS, which excludes biases and norms, and puts the rotation head on the features.
_swav_30 = {
    **_with(
        _swav_in,
        54.90,
        of="inferred",
        epochs=30,
        batch_size=256,
        lr=0.6,
        optimizer="lars",
        warmup_epochs=0,
        queue_length=3840,
        augment="simclr",
    ),
    "source": "EffSSL, 30 epochs; settings of SwAV's code for batches of 256, inferred",
    "protocol": _BY_SWAV_30,
}
_swav_30["origin"] |= dict.fromkeys(("epochs", "batch_size", "augment"), "printed")
_swav_50 = {
    **_with(_swav_in, 65.8, of="code", epochs=50, batch_size=1024, lr=1.2, optimizer="lars"),
    "source": "EffSSL and its code, 2 x 224 + 6 x 96",
    "protocol": _BY_SWAV_30,
}
_turned: dict[str, Any] = {"aux": Rotation(head="backbone"), "aux_weight": 0.1}

IMAGENET: dict[str, Recipe] = {
    "RotNet": _recipe(
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
    "RelativePatch": _recipe(
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
    "Colorization": _recipe(
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
    "ContextEncoder": _recipe(
        "ContextEncoder",
        "Context Encoders' code, with a first beta of 0.5 in Adam; AlexNet and the shape of the holes not checked",
        backbone="alexnet",
        batch_size=64,
        optimizer=torch.optim.Adam,
        lr=2e-3,
        weight_decay=0.0,
        schedule="constant",
        region="random",
        of="code",
    ),
    "DeepCluster": _recipe(
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
    "InstDisc": _recipe(
        "InstDisc",
        "InstDisc; not checked",
        54.0,
        46.5,
        epochs=200,
        batch_size=256,
        lr=0.03,
        weight_decay=1e-4,
        temperature=0.07,
        **_TENTHS,
        of="code",
        **_R50,
    ),
    "PIRL": _recipe(
        "PIRL", "PIRL, in VISSL", 64.29, epochs=800, batch_size=1024, lr=0.12, n_negatives=32000, of="code", **_R50
    ),
    "SimCLR": _recipe(
        "SimCLR",
        f"SimCLR; {_OTHER_LARS}",
        69.3,
        epochs=1000,
        batch_size=4096,
        lr=4.8,
        weight_decay=1e-6,
        temperature=0.1,
        **_LARS,
    ),
    "MoCo v1": _recipe(
        "MoCo",
        "MoCo's code",
        60.6,
        epochs=200,
        augment="instdisc",
        proj_layers=1,
        temperature=0.07,
        **_TENTHS,
        of="code",
        judged=_BY_MOCO_IN,
        **_moco_in,
    ),
    "MoCo v2": _recipe(
        "MoCo",
        "MoCo's code",
        71.1,
        epochs=800,
        proj_layers=2,
        temperature=0.2,
        of="code",
        judged=_BY_MOCO_IN,
        **_moco_in,
    ),
    "DenseCL": _recipe(
        "DenseCL",
        "DenseCL; not checked",
        63.3,
        epochs=200,
        temperature=0.2,
        dense_weight=0.5,
        of="code",
        judged=_BY_MOCO_IN,
        **_moco_in,
    ),
    "PCL v2": _recipe(
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
    "LeOCLR": _recipe("LeOCLR", "LeOCLR", 76.2, epochs=800, inferred="queue_size", judged=_BY_MOCO_IN, **_moco_in),
    "DeepClusterV2": _recipe(
        "DeepClusterV2",
        "SwAV's code, 2 x 224 + 6 x 96",
        75.2,
        epochs=800,
        batch_size=4096,
        lr=4.8,
        weight_decay=1e-6,
        n_prototypes=3000,
        augment=MultiCrop(),
        of="code",
        judged=_BY_SWAV,
        **{**_LARS, "optimizer": LARC},
    ),
    "SwAV": _swav_in,
    "SwAV, 30 epochs": _swav_30,
    "SwAV + rotation, 30 epochs": _with(_swav_30, 57.30, of="code", **_turned),
    "SwAV, 50 epochs": _swav_50,
    "SwAV + rotation, 50 epochs": _with(_swav_50, 68.3, of="code", **_turned),
    "BYOL": _recipe(
        "BYOL", "BYOL", 74.3, epochs=1000, batch_size=4096, lr=3.2, weight_decay=1.5e-6, ema_momentum=0.996, **_LARS
    ),
    "SimSiam": _recipe("SimSiam", "SimSiam", 68.1, judged={"linear": {"protocol": "simsiam"}}, **_gsg_in),
    "SimSiam, GSG's baseline": _recipe("SimSiam", _GSG_IN, 67.9, 51.7, judged=_BY_GSG_IN, **_gsg_in),
    "SimSiamGSG": _recipe("SimSiamGSG", _GSG_IN, 69.4, 58.4, augment="simsiam", judged=_BY_GSG_IN, **_gsg_in),
    "BYOL, GSG's baseline": _recipe(
        "BYOLGSG",
        _GSG_IN,
        69.9,
        56.5,
        augment="simsiam",
        stop_gradient="symmetric",
        ema_momentum=0.99,
        judged=_BY_GSG_IN,
        **_gsg_in,
    ),
    "BYOLGSG": _recipe(
        "BYOLGSG", _GSG_IN, 71.1, 62.2, augment="simsiam", ema_momentum=0.99, judged=_BY_GSG_IN, **_gsg_in
    ),
    "BarlowTwins": _recipe(
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
        judged=_BY_SWAV,
        **_LARS,
    ),
    "VICReg": _recipe(
        "VICReg",
        "VICReg",
        73.2,
        epochs=1000,
        batch_size=2048,
        lr=1.6,
        weight_decay=1e-6,
        proj_dim=8192,
        judged={"linear": {"protocol": "swav", "lr": 0.02}},
        **_LARS,
    ),
    "DINO": _recipe(
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
    ),
}

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
_SIMCLR_SOURCE = f"SimCLRv2's code; {_OTHER_LARS}"
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
