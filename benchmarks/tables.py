"""The papers' tables: CIFAR-10 with a ResNet-18 in 200 epochs, with the settings of `skssl.recipes`.

The rows are EffSSL's table 5 (each method with and without rotation), GSG's table 1 (each method with and without
guiding), MoCo and LeOCLR. Each run is evaluated after the last epoch by the kNN and the linear probe of its paper on
the test set. A checkpoint is saved every few minutes, at the time limit and on Ctrl-C. The next call resumes from it
and skips recorded rows.

    python -m benchmarks tables [NAME ...] [--seeds 0] [--epochs 200] [--minutes 9] [--state FOLDER] [--results FOLDER]
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
from skorch.callbacks import Callback

from benchmarks.methods import cifar10
from benchmarks.record import RESULTS, record, recorded
from skssl import KNNProbe, LinearProbe, recipes

LEOCLR = {"epochs": 200, "batch_size": 512, "lr": 0.06, "weight_decay": 5e-4}  # those of MoCo, for comparison
PAIRS = ["SimSiam", "SimCLR", "BYOL", "SwAV"]
GUIDED = {"SimSiam, GSG's baseline": "SimSiamGSG", "BYOL, GSG's baseline": "BYOLGSG"}
ROWS: dict[str, Any] = {
    **{name: recipes.CIFAR10[name] for base in PAIRS for name in (base, f"{base} + rotation")},
    **{name: recipes.CIFAR10[name] for pair in GUIDED.items() for name in pair},
    "RotNet": recipes.CIFAR10["RotNet"],
    "MoCo, symmetric": recipes.CIFAR10["MoCo, symmetric"],
    "LeOCLR": {**recipes.CIFAR10["LeOCLR"], "params": LEOCLR},
}


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


def evaluate(estimator: Any, source: str, X: np.ndarray, y: np.ndarray, X_test: np.ndarray, y_test: np.ndarray) -> dict:
    """Score features by the protocol of the paper: one neighbour for GSG, 200 weighted neighbours for the others."""
    train, test = estimator.transform(X), estimator.transform(X_test)
    knn = KNNProbe(protocol="gsg" if source.startswith("GSG") else "effssl").fit(train, y)
    linear = LinearProbe(protocol="effssl", random_state=0).fit(train, y)
    return {"linear": linear.score(test, y_test), "knn": knn.score(test, y_test)}


def main() -> None:
    """Train and evaluate the selected rows within the time limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(ROWS), help=f"of: {', '.join(ROWS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=200)
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
        run = {"method": name, "backbone": arguments.backbone, "seed": seed, "epochs": arguments.epochs}
        row: dict[str, Any] = {**run, "images": arguments.images}
        if recorded("tables", row, arguments.results):
            print(f"{name}, seed {seed}: already recorded")
            continue
        if time.monotonic() > until:
            break
        recipe = ROWS[name]
        folder = arguments.state.expanduser() / "-".join(str(value).replace("/", "") for value in row.values())
        saving = {"checkpoint": folder, "checkpoint_every": f"{arguments.save_every} min"}
        settings = {"backbone": arguments.backbone, "epochs": arguments.epochs, "compile": arguments.compile or "auto"}
        estimator = recipes.make(recipe, **settings, **saving, random_state=seed, verbose=1)
        if not train(estimator, X, y, until):
            print(f"{name}, seed {seed}: stopped at the time limit; the next call resumes")
            break
        speed = estimator.history_["images_per_second"]
        row |= evaluate(estimator, recipe["source"], X, y, X_test, y_test)
        row |= {"seconds": (len(X) / speed).sum(), "images_per_second": speed.median()}
        row |= {"paper_linear": recipe["linear"], "paper_knn": recipe["knn"]}
        record("tables", [row], arguments.results)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
