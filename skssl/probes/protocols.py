"""How the papers probe, as plain dicts of the probes' parameters; what a protocol leaves out is the probe's own
default.

Where two sources differ the line says so. All score the last epoch here, though MoCo's and SimSiam's scripts report the
best one, which takes the test set for choosing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

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

# main_lincls.py of MoCo, from which SimSiam's and guided stop-gradient's are made.
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
    # EffSSL, section 4.1, for CIFAR: the best of five rates, no spatial augmentation. It does not say how the rate
    # falls, on what the best is chosen, or the weight decay; half a cosine, a held-out fifth and none are ours.
    "effssl": {
        "solver": "sgd",
        "epochs": 100,
        "batch_size": 512,
        "lr": (0.1, 0.5, 1.0, 1.5, 2.0),
        "weight_decay": 0.0,
        "schedule": "cosine",
    },
    # SimSiam's code: 0.1 for 256 images. Its paper, appendix A, has 0.02 for 256, which is lr=0.32.
    "simsiam": {
        **_MOCO,
        "solver": "larc",
        "epochs": 90,
        "batch_size": 4096,
        "lr": 0.1 * 4096 / 256,
        "schedule": "epoch_cosine",
    },
    # Guided stop-gradient on CIFAR-10, whose script is not released; on ImageNet it probes as SimSiam's code does.
    "gsg": {**_MOCO, "epochs": 90, "schedule": "epoch_cosine"},
    "moco": _MOCO,
    # linear.py of ssl-transfer, also in guided stop-gradient's appendix D. There the held-out fifth is not stratified,
    # and L-BFGS stops after 100 iterations.
    "transfer": {"solver": "lbfgs", "C": tuple((1 / np.logspace(-6, 5, 45)).tolist())},
}

KNN_DEFAULTS: dict[str, Any] = {"n_neighbors": 20, "temperature": math.inf}

KNN: Protocols = {
    # EffSSL gives neither number; these are MoCo's.
    "effssl": {"n_neighbors": 200, "temperature": 0.1},
    # The text, on CIFAR-10: one neighbour. On ImageNet it has the majority of 200, the released script 200 weighted by
    # exp(similarity / 0.2).
    "gsg": {"n_neighbors": 1, "temperature": math.inf},
    # The authors' demonstration on CIFAR-10, there on the projector's output: layer="projector".
    "moco": {"n_neighbors": 200, "temperature": 0.1},
}
