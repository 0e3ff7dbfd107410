"""The papers' tables: CIFAR-10 with a ResNet-18, with the settings of `skssl.recipes`.

The rows are EffSSL's table 5 (each method with and without rotation), GSG's table 1 (each method with and without
guiding, without a schedule as printed and with the cosine of the code that it follows), EffSSL's table 2 (false
negatives removed by a share of the labels), MoCo, and LeOCLR beside its baseline. Each run is evaluated after the last
epoch by the kNN and the linear probe of its recipe on the test set. Probes that augment encode the training images in
each of their epochs; --fixed-features encodes them once. A checkpoint is saved every few minutes, at the time limit and
on Ctrl-C. The next call resumes from it and skips recorded rows.

    python -m benchmarks tables [NAME ...] [--seeds 0] [--epochs N] [--minutes 9] [--state FOLDER] [--results FOLDER]
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import top_k_accuracy_score
from skorch.callbacks import Callback

from benchmarks.methods import cifar10
from benchmarks.record import RESULTS, record, recorded
from skssl import recipes

PAIRS = ["SimSiam", "SimCLR", "BYOL", "SwAV"]
GUIDED = ["SimSiam, GSG's baseline", "SimSiamGSG", "BYOL, GSG's baseline", "BYOLGSG"]
NAMES = [
    *(name for base in PAIRS for name in (base, f"{base} + rotation")),
    *GUIDED,
    *(f"{name}, cosine" for name in GUIDED),
    "RotNet",
    *(name for name in recipes.CIFAR10 if "false negatives removed" in name),
    "MoCo",
    "MoCo, symmetric",
    "MoCo v2, LeOCLR's baseline",
    "LeOCLR",
]
ROWS: dict[str, Any] = {name: recipes.CIFAR10[name] for name in NAMES}


class TimeLimit(Callback):
    """Stop the training at a time limit by SIGTERM, as a cluster does; a checkpoint is saved first."""

    def __init__(self, until: float) -> None:
        self.until = until

    def on_batch_end(self, net: Any, **kwargs: Any) -> None:
        """Raise SIGTERM after the time limit."""
        if time.monotonic() > self.until:
            signal.raise_signal(signal.SIGTERM)


def train(estimator: Any, X: np.ndarray, y: np.ndarray, until: float) -> bool:
    """Train from the checkpoint until the last epoch or the time limit; return whether the training is complete."""
    try:
        estimator.set_params(callbacks=[TimeLimit(until)]).fit(X, y)
    except SystemExit:
        return False
    return True


def evaluate(
    estimator: Any,
    recipe: dict[str, Any],
    X: np.ndarray,
    y: np.ndarray,
    X_test: np.ndarray,
    y_test: np.ndarray,
    fixed_features: bool = False,
) -> dict:
    """Score an encoder by the probes of its recipe, for 100 classes or more with the linear probe's top-5 accuracy."""
    probes = recipes.make_probes(recipe, FrozenEstimator(estimator))
    probes["linear"].set_params(random_state=0, augment="none" if fixed_features else None)
    found = {name: probe.fit(X, y).score(X_test, y_test) for name, probe in probes.items()}
    if len(classes := probes["linear"].classes_) >= 100:  # tables of ImageNet have both; kNN has too few neighbours
        probabilities = probes["linear"].predict_proba(X_test)
        found["linear_top5"] = top_k_accuracy_score(y_test, probabilities, k=5, labels=classes)
    return found


def main() -> None:
    """Train and evaluate the selected rows within the time limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(ROWS), help=f"of: {', '.join(ROWS)}".replace("%", "%%"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, help="those of the recipe by default")
    parser.add_argument("--fixed-features", action="store_true", help="probe without augmentation")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--images", type=int, default=50_000, help="number of training images")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="time limit")
    parser.add_argument("--save-every", type=float, default=5.0, help="minutes between checkpoints")
    parser.add_argument("--state", type=Path, default=Path("~/.cache/skssl/benchmarks/tables"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--compile", action="store_true", help="compile even short trainings")
    arguments = parser.parse_args()
    until = time.monotonic() + 60 * arguments.minutes
    X, y, X_test, y_test = cifar10(arguments.images)
    for name, seed in itertools.product(arguments.names, arguments.seeds):
        recipe = ROWS[name]
        epochs = arguments.epochs or recipe["params"]["epochs"]
        run = {"method": name, "backbone": arguments.backbone, "seed": seed, "epochs": epochs}
        row: dict[str, Any] = {**run, "images": arguments.images}
        if recorded("tables", row, arguments.results):
            print(f"{name}, seed {seed}: already recorded")
            continue
        if time.monotonic() > until:
            break
        folder = arguments.state.expanduser() / "-".join(str(value).replace("/", "") for value in row.values())
        saving = {"checkpoint": folder, "checkpoint_every": f"{arguments.save_every} min"}
        settings = {"backbone": arguments.backbone, "epochs": epochs, "compile": arguments.compile or "auto"}
        estimator = recipes.make(recipe, **settings, **saving, random_state=seed, verbose=1)
        if not train(estimator, X, y, until):
            print(f"{name}, seed {seed}: stopped at the time limit; the next call resumes")
            break
        speed = estimator.history_["images_per_second"]
        row |= evaluate(estimator, recipe, X, y, X_test, y_test, arguments.fixed_features)
        row |= {"seconds": (len(X) / speed).sum(), "images_per_second": speed.median()}
        row |= {"paper_linear": recipe["linear"], "paper_knn": recipe["knn"]}
        record("tables", [row], arguments.results)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
