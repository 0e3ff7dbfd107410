"""The evaluation protocols of the papers, as dicts of the probes' parameters.

A parameter that is missing has the probe's default. A comment says where sources differ. The last epoch is scored.
MoCo's and SimSiam's scripts report the best epoch instead, which selects on the test set.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from skssl.augment.augmentation import Augmentation
from skssl.augment.presets import CROPS_AND_FLIPS

Protocols = dict[str, dict[str, Any]]


LINEAR_DEFAULTS: dict[str, Any] = {
    "solver": "lbfgs",
    "C": 1.0,
    "weight_decay": None,
    "epochs": 100,
    "batch_size": 512,
    "lr": 0.1,
    "momentum": 0.9,
    "nesterov": False,
    "schedule": "cosine",
    "init_std": 0.0,
    "augment": None,
}

# main_lincls.py of MoCo, on which the scripts of SimSiam and guided stop-gradient are based.
_MOCO: dict[str, Any] = {
    "solver": "sgd",
    "epochs": 100,
    "batch_size": 256,
    "lr": 30.0,
    "weight_decay": 0.0,
    "schedule": "multistep",
    "init_std": 0.01,
    "augment": CROPS_AND_FLIPS,
}

LINEAR: Protocols = {
    # EffSSL, section 4.1, for CIFAR: best of five learning rates, no spatial augmentation. The schedule, the data of
    # the choice and the weight decay are not stated; a cosine, a held-out fifth and no decay are our choice.
    "effssl": {
        "solver": "sgd",
        "epochs": 100,
        "batch_size": 512,
        "lr": (0.1, 0.5, 1.0, 1.5, 2.0),
        "weight_decay": 0.0,
        "schedule": "cosine",
    },
    # SimSiam's code: 0.1 for 256 images. The paper, appendix A, states 0.02 for 256 images: lr=0.32.
    "simsiam": {
        **_MOCO,
        "solver": "larc",
        "epochs": 90,
        "batch_size": 4096,
        "lr": 0.1 * 4096 / 256,
        "schedule": "epoch_cosine",
    },
    # Guided stop-gradient on CIFAR-10; the script is not released. On ImageNet it uses the protocol of SimSiam's code.
    "gsg": {**_MOCO, "epochs": 90, "schedule": "epoch_cosine"},
    "moco": _MOCO,
    # eval_linear.py of SwAV, also used by EffSSL for SwAV.
    "swav": {**_MOCO, "lr": 0.3, "weight_decay": 1e-6, "schedule": "epoch_cosine"},
    # solo-learn's settings for SimCLR on ImageNet-100, also used by EffSSL there. Its layer starts as torch's does.
    "solo-learn": {**_MOCO, "lr": 1.0},
    # Rotation feature decoupling's code. It resizes images to 256 pixels and crops 224, and its BatchNorm without gain
    # before the layer is left out. Its initial weights have a deviation of sqrt(2 / n_classes), for 200 classes here.
    "decoupling": {
        **_MOCO,
        "epochs": 65,
        "batch_size": 192,
        "lr": 0.01,
        "weight_decay": 5e-4,
        "nesterov": True,
        "init_std": 0.1,
        "schedule": (5 / 65, 25 / 65, 45 / 65),
        "augment": Augmentation(crop_scale=(49 / 64, 49 / 64), crop_ratio=(1.0, 1.0), jitter=0.0, gray=0.0),
    },
    # linear.py of ssl-transfer, also used in guided stop-gradient's appendix D. Its held-out fifth is not stratified,
    # and its L-BFGS stops after 100 iterations.
    "transfer": {"solver": "lbfgs", "C": tuple((1 / np.logspace(-6, 5, 45)).tolist())},
}

KNN_DEFAULTS: dict[str, Any] = {"n_neighbors": 20, "temperature": math.inf}

KNN: Protocols = {
    # EffSSL states neither; these are MoCo's values.
    "effssl": {"n_neighbors": 200, "temperature": 0.1},
    # The paper on CIFAR-10: one neighbour. On ImageNet the paper uses the majority of 200 neighbours, and the released
    # script weighs 200 neighbours by exp(similarity / 0.2).
    "gsg": {"n_neighbors": 1, "temperature": math.inf},
    # The authors' CIFAR-10 demo, which uses the projector's output: layer="projector".
    "moco": {"n_neighbors": 200, "temperature": 0.1},
}
