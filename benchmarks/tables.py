"""The papers' tables: CIFAR-10 by a ResNet-18 in 200 epochs, settings from `skssl.recipes`, run by run.

EffSSL's table 5 (each method with and without rotation), GSG's table 1 (each with and without guiding), MoCo and
LeOCLR. Every run is judged on the test set as its paper judges, after the last epoch: kNN, and a linear probe. A run's
state is saved every few minutes, when its time is over and on Ctrl-C, and the next call goes on from there: the table
fills over several sittings. Rows that are recorded are left out.

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

from benchmarks import record as recording
from benchmarks.methods import cifar10
from benchmarks.record import record, recorded
from skssl import KNNProbe, LinearProbe, recipes

LEOCLR = {"epochs": 200, "batch_size": 512, "lr": 0.06, "weight_decay": 5e-4}  # as MoCo's, beside which it stands
PAIRS = ["SimSiam", "SimCLR", "BYOL", "SwAV"]
GUIDED = {"SimSiam, GSG's baseline": "SimSiamGSG", "BYOL, GSG's baseline": "BYOLGSG"}
ROWS: dict[str, Any] = {
    **{name: recipes.CIFAR10[name] for base in PAIRS for name in (base, f"{base} + rotation")},
    **{name: recipes.CIFAR10[name] for pair in GUIDED.items() for name in pair},
    "RotNet": recipes.CIFAR10["RotNet"],
    "MoCo, symmetric": recipes.CIFAR10["MoCo, symmetric"],
    "LeOCLR": {**recipes.CIFAR10["LeOCLR"], "params": LEOCLR},
}


class Until(Callback):
    """Asks for the end when the time is over, as a cluster does; the state is saved first."""

    def __init__(self, until: float) -> None:
        self.until = until

    def on_batch_end(self, net: Any, **kwargs: Any) -> None:
        """Look at the clock."""
        if time.monotonic() > self.until:
            signal.raise_signal(signal.SIGTERM)


def train(estimator: Any, X: np.ndarray, y: np.ndarray, until: float) -> bool:
    """Train from where its checkpoint is until the last epoch, or until the time is over; whether it has ended."""
    try:
        estimator.set_params(callbacks=[Until(until)]).fit(X, y)
    except SystemExit:
        return False
    return True


def judge(estimator: Any, source: str, X: np.ndarray, y: np.ndarray, X_test: np.ndarray, y_test: np.ndarray) -> dict:
    """Score features as the paper does: one neighbour in GSG's, 200 weighted ones elsewhere."""
    train, test = estimator.transform(X), estimator.transform(X_test)
    knn = KNNProbe(protocol="gsg" if source.startswith("GSG") else "effssl").fit(train, y)
    linear = LinearProbe(protocol="effssl", random_state=0).fit(train, y)
    return {"linear": linear.score(test, y_test), "knn": knn.score(test, y_test)}


def main() -> None:
    """Train and judge what was asked for, as far as the time goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(ROWS), help=f"of: {', '.join(ROWS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--images", type=int, default=50_000, help="to train on")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which no further epoch begins")
    parser.add_argument("--save-every", type=float, default=5.0, help="minutes")
    parser.add_argument("--state", type=Path, default=Path("~/.cache/skssl/benchmarks/tables"))
    parser.add_argument("--results", type=Path, default=recording.RESULTS)
    parser.add_argument("--compile", action="store_true", help="also where it is not worth it")
    arguments = parser.parse_args()
    recording.RESULTS = arguments.results
    until = time.monotonic() + 60 * arguments.minutes
    X, y, X_test, y_test = cifar10(arguments.images)
    for name, seed in itertools.product(arguments.names, arguments.seeds):
        run = {"method": name, "backbone": arguments.backbone, "seed": seed, "epochs": arguments.epochs}
        row: dict[str, Any] = {**run, "images": arguments.images}
        if recorded("tables", row):
            print(f"{name}, seed {seed}: recorded already")
            continue
        if time.monotonic() > until:
            break
        recipe = ROWS[name]
        folder = arguments.state.expanduser() / "-".join(str(value).replace("/", "") for value in row.values())
        saving = {"checkpoint": folder, "checkpoint_every": f"{arguments.save_every} min"}
        settings = {"backbone": arguments.backbone, "epochs": arguments.epochs, "compile": arguments.compile or "auto"}
        estimator = recipes.make(recipe, **settings, **saving, random_state=seed, verbose=1)
        if not train(estimator, X, y, until):
            print(f"{name}, seed {seed}: the next call goes on")
            break
        speed = estimator.history_["images_per_second"]
        row |= judge(estimator, recipe["source"], X, y, X_test, y_test)
        row |= {"seconds": (len(X) / speed).sum(), "images_per_second": speed.median()}
        row |= {"paper_linear": recipe["linear"], "paper_knn": recipe["knn"]}
        record("tables", [row])
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
