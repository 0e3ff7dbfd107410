"""Accuracy of every method after ten epochs on 20,000 images of CIFAR-10, on the test set.

linear: standardised logistic regression (C = 0.01) on 500 labels per class. knn: cosine kNN with k = 20 on 10,000
labels. "knn, two classes": on the first 2,000 test images, which are two classes if the test set is sorted by class. A
method and seed take about two minutes on two CPU cores. Each finished run is a row of ``results/methods.csv``. Recorded
runs are skipped, so that an interrupted benchmark resumes.

    python -m benchmarks methods [NAME ...] [--seeds 0 1 2] [--epochs 10] [--backbone convnet] [--again]
"""

from __future__ import annotations

import argparse
import itertools
import time
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skssl
from benchmarks.record import record, recorded
from skssl import KNNProbe
from skssl.datasets import load_images

SMALL_HEADS = {"proj_dim": 512, "pred_dim": 128, "lr": 0.1}  # for a network of 128 features
SHARED = {"pairing": "shared"}  # two views per image: as many forward passes as without guiding
BYOL_HEADS = {"hidden_dim": 512, "pred_dim": 512, "ema_momentum": 0.95}  # EffSSL's on CIFAR-10
# Memory banks need more steps than ten epochs of 78, and do not converge at the papers' learning rate.
MEMORY = {"batch_size": 64, "lr": 0.008, "schedule": "cosine"}
REMOVED = {"false_negatives": "remove"}
SYMMETRIC, NO_PREDICTOR = {"stop_gradient": "symmetric"}, {"predictor": False}  # GSG's baseline, and its figure 5
# GSG's section 5.1 has no schedule, and 0.06 for 512 images. Small batches have a proportional rate.
UNSCHEDULED, SMALL_BATCHES = {"lr": 0.06, "batch_size": 512, "schedule": "constant"}, {"lr": 0.025, "batch_size": 64}
IBOT_HEADS = {"n_prototypes": 1024, "hidden_dim": 512, "ema_momentum": 0.99}  # for a short training of "vit_micro"
AS_LEOCLR = {"temperature": 0.2, "proj_layers": 2}  # LeOCLR's settings of MoCo v2
# EffSSL's on CIFAR-10, section 4: a rate of 0.8, a weight of 5 and a twentieth of warm-up
PRINTED_BYOL = {**BYOL_HEADS, "lr": 0.8, "batch_size": 512, "warmup_epochs": 0.5}
ROTATED = {"aux": "rotation", "aux_weight": 5.0}


def guided() -> dict[str, tuple[Any, dict[str, Any]]]:
    """Return the values of `stop_gradient` with two and with four views an image, and other settings of some."""
    found: dict[str, tuple[Any, dict[str, Any]]] = {}
    for title, method in {"SimSiamGSG": skssl.SimSiamGSG, "BYOLGSG": skssl.BYOLGSG}.items():
        kinds: dict[str, dict[str, Any]] = {"symmetric": SYMMETRIC, "symmetric, no predictor": SYMMETRIC | NO_PREDICTOR}
        for views, pairing in {"": {}, "shared views": SHARED}.items():
            parts = {"": {}, "random": {"stop_gradient": "random"}, "reverse": {"stop_gradient": "reverse"}}
            for part, params in {**parts, "no predictor": NO_PREDICTOR}.items():
                kinds[", ".join(filter(None, (views, part)))] = {**pairing, **params}
        for setting, params in {"no schedule": UNSCHEDULED, "batch 64": SMALL_BATCHES}.items():
            kinds |= {f"{kind}, {setting}": {**kinds[kind], **params} for kind in ("symmetric", "shared views")}
        found |= {", ".join(filter(None, (title, k))): (method, {**SMALL_HEADS, **of}) for k, of in kinds.items()}
    return found


GUIDED = guided()
METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "untrained": (skssl.SimCLR, {}),
    "RotNet": (skssl.RotNet, {}),
    "RelativePatch": (skssl.RelativePatch, {"grid": 2, "drop_colors": 0.5}),
    "Jigsaw": (skssl.Jigsaw, {"grid": 2, "n_permutations": 24}),
    "Colorization": (skssl.Colorization, {}),
    "ContextEncoder": (skssl.ContextEncoder, {}),
    "SpotArtifacts": (skssl.SpotArtifacts, {}),
    "InstDisc": (skssl.InstDisc, MEMORY),
    "PIRL": (skssl.PIRL, MEMORY),
    "RotationDecoupling": (skssl.RotationDecoupling, {}),
    "RotationDecoupling, NT-Xent": (skssl.RotationDecoupling, {"loss": "nt_xent"}),
    "SimCLR": (skssl.SimCLR, {}),
    "SimCLR, YIQ hue": (skssl.SimCLR, {"augment": skssl.Augmentation(hue_space="yiq")}),
    "SimCLR, turned views": (skssl.SimCLR, {"augment": skssl.Augmentation(quarter_turn=1.0)}),
    "SimCLR + rotation": (skssl.SimCLR, {"aux": "rotation"}),
    "SimCLR + rotation, label noise 0.3": (skssl.SimCLR, {"aux": skssl.Rotation(label_noise=0.3)}),
    "SimCLR + jigsaw": (skssl.SimCLR, {"aux": "jigsaw"}),
    "SimCLR, false negatives removed": (skssl.SimCLR, REMOVED),
    "SimCLR, false negatives removed by 50 % of the labels": (skssl.SimCLR, {**REMOVED, "label_fraction": 0.5}),
    "SimCLR, false negatives removed by 30 % of the labels": (skssl.SimCLR, {**REMOVED, "label_fraction": 0.3}),
    "SimCLR + rotation, false negatives removed": (skssl.SimCLR, {**REMOVED, "aux": "rotation"}),
    "SimCLR + rotation, false negatives removed by 30 % of the labels": (
        skssl.SimCLR,
        {**REMOVED, "aux": "rotation", "label_fraction": 0.3},
    ),
    "DCL": (skssl.DCL, {}),
    "DCLW": (skssl.DCL, {"sigma": 0.5}),
    "NNCLR": (skssl.NNCLR, {"hidden_dim": 512, "pred_dim": 512}),
    "MoCoV3": (skssl.MoCoV3, {"hidden_dim": 512}),
    "FastSiam": (skssl.FastSiam, {**SMALL_HEADS, "batch_size": 64, "lr": 0.06}),
    "TiCo": (skssl.TiCo, {"hidden_dim": 512}),
    "WMSE": (skssl.WMSE, {}),
    "MMCR": (skssl.MMCR, {}),
    "ReSSL": (skssl.ReSSL, {"hidden_dim": 512}),
    "LeJEPA": (skssl.LeJEPA, {"lr": 2e-3}),
    "MSN": (skssl.MSN, {"hidden_dim": 512}),
    "SupCon": (skssl.SupCon, {}),
    "MoCo": (skssl.MoCo, {}),
    "MoCo, symmetric": (skssl.MoCo, {"symmetric": True}),
    "MoCo, LeOCLR's settings": (skssl.MoCo, AS_LEOCLR),
    "DenseCL": (skssl.DenseCL, {}),
    "PCL": (skssl.PCL, {}),
    "LeOCLR": (skssl.LeOCLR, {}),
    "LeOCLR, original cropped": (skssl.LeOCLR, {"crop_original": True}),
    "LeOCLR, end to end": (skssl.LeOCLR, {"encoder": "end-to-end"}),
    "DeepCluster": (skssl.DeepCluster, {}),
    "DeepClusterV2": (skssl.DeepClusterV2, {}),
    "SwAV": (skssl.SwAV, {}),
    "SwAV + rotation": (skssl.SwAV, {"aux": "rotation"}),
    "SimSiam": (skssl.SimSiam, SMALL_HEADS),
    "SimSiam + rotation": (skssl.SimSiam, {**SMALL_HEADS, "aux": "rotation"}),
    "SimSiam, no predictor": (skssl.SimSiam, {**SMALL_HEADS, "predictor": False}),
    "BYOL": (skssl.BYOL, BYOL_HEADS),
    "BYOL + rotation": (skssl.BYOL, {**BYOL_HEADS, "aux": "rotation", "aux_weight": 1.0}),
    "BYOL + rotation, weight 5": (skssl.BYOL, {**BYOL_HEADS, **ROTATED}),
    "BYOL, momentum 0.99": (skssl.BYOL, {**BYOL_HEADS, "ema_momentum": 0.99}),
    "BYOL + rotation, momentum 0.99": (
        skssl.BYOL,
        {**BYOL_HEADS, "ema_momentum": 0.99, "aux": "rotation", "aux_weight": 1.0},
    ),
    "BYOL + rotation, momentum 0.99, weight 5": (skssl.BYOL, {**BYOL_HEADS, "ema_momentum": 0.99, **ROTATED}),
    "BYOL, printed rate": (skssl.BYOL, PRINTED_BYOL),
    "BYOL + rotation, printed rate": (skssl.BYOL, {**PRINTED_BYOL, **ROTATED}),
    "BYOL + rotation, a quarter of the printed rate": (skssl.BYOL, {**PRINTED_BYOL, **ROTATED, "lr": 0.2}),
    "BYOL, printed rate, LARS": (skssl.BYOL, {**PRINTED_BYOL, "optimizer": "lars"}),
    "BYOL + rotation, printed rate, LARS": (skssl.BYOL, {**PRINTED_BYOL, **ROTATED, "optimizer": "lars"}),
    **GUIDED,
    "DirectPred": (skssl.DirectPred, {}),
    "BarlowTwins": (skssl.BarlowTwins, {}),
    "VICReg": (skssl.VICReg, {}),
    "VICRegL": (skssl.VICRegL, {}),
    "DINO": (skssl.DINO, {}),
    "SimMIM": (skssl.SimMIM, {"lr": 2e-3}),  # at the paper's rate, 780 steps hardly move the weights
    "vit_micro, untrained": (skssl.MAE, {"backbone": "vit_micro"}),
    "MAE": (skssl.MAE, {"backbone": "vit_micro"}),
    "IJEPA": (skssl.IJEPA, {"backbone": "vit_micro"}),
    "IBOT": (skssl.IBOT, {"backbone": "vit_micro", **IBOT_HEADS}),
    "IBOT, KoLeo and Sinkhorn": (
        skssl.IBOT,
        {"backbone": "vit_micro", **IBOT_HEADS, "koleo": 0.1, "centering": "sinkhorn"},
    ),
    "SimMIM, vit_micro": (skssl.SimMIM, {"backbone": "vit_micro", "lr": 1e-3}),
}


def cifar10(n_train: int = 20_000, n_test: int = 10_000) -> tuple[np.ndarray, ...]:
    """Load a fixed sample of training and test images with their classes."""
    (X, y), (X_test, y_test) = (load_images("cifar10", split=split) for split in ("train", "test"))
    chosen = np.random.RandomState(0).permutation(50_000)[:n_train]
    test = np.sort(np.random.RandomState(0).permutation(10_000)[:n_test])
    return X[chosen], y[chosen], X_test[test], y_test[test]


def balanced(y: np.ndarray, per_class: int) -> np.ndarray:
    """Return the first `per_class` indices of each class."""
    return np.concatenate([np.flatnonzero(y == label)[:per_class] for label in np.unique(y)])


def evaluate(features: Any, X: np.ndarray, y: np.ndarray, X_test: np.ndarray, y_test: np.ndarray) -> dict[str, float]:
    """Return the scores of a linear and a kNN probe."""
    few, many = balanced(y, 500), np.arange(len(y))[:10_000]
    train, test = features(X), features(X_test)
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000)).fit(train[few], y[few])
    knn = KNNProbe(n_neighbors=20).fit(train[many], y[many])
    correct = knn.predict(test) == y_test
    return {"linear": linear.score(test, y_test), "knn": correct.mean(), "knn, two classes": correct[:2000].mean()}


def main() -> None:
    """Train and evaluate the selected methods."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["pixels", *METHODS], help=f"of: pixels, {', '.join(METHODS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--backbone", default="convnet")
    parser.add_argument("--again", action="store_true", help="repeat recorded runs")
    arguments = parser.parse_args()
    X, y, X_test, y_test = cifar10()
    for name, seed in itertools.product(arguments.names, arguments.seeds):
        row: dict[str, Any] = {"method": name, "backbone": arguments.backbone, "seed": seed, "epochs": arguments.epochs}
        if name == "pixels":
            row |= {"backbone": "", "seed": 0, "epochs": 0}
        else:
            row["backbone"] = METHODS[name][1].get("backbone", arguments.backbone)
        if name.endswith("untrained"):
            row["epochs"] = 0
        if recorded("methods", row) and not arguments.again:
            print(f"{name}, seed {seed}: already recorded")
            continue
        if name == "pixels":
            scores = evaluate(lambda images: images.reshape(len(images), -1) / np.float32(255), X, y, X_test, y_test)
            record("methods", [{**row, **scores}])
            continue
        method, params = METHODS[name]
        settings = {"backbone": arguments.backbone, "epochs": row["epochs"], "random_state": seed, "verbose": 1}
        estimator = method(**{**settings, **params})
        start = time.perf_counter()
        estimator.fit(X, y)
        row["seconds"] = time.perf_counter() - start
        row |= evaluate(estimator.transform, X, y, X_test, y_test)
        if len(estimator.history_):
            row |= estimator.history_.iloc[-1][["embedding_std", "effective_rank"]].to_dict()
            row["images_per_second"] = estimator.history_["images_per_second"].median()
            row["precision"] = str(estimator.net_.dtype).removeprefix("torch.")
        record("methods", [row])


if __name__ == "__main__":
    main()
