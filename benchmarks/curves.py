"""Accuracy of a kNN probe by epoch, as in the figures of EffSSL and GSG.

After each epoch the test images are classified by the vote of their nearest training images, by cosine. Without --data
the rows are those of `benchmarks methods`: "convnet" on 20,000 images of CIFAR-10, with k = 20 on 10,000 labels. With
--data they are the recipes of the data set, with the recipe's k on all labels. Each epoch is a row of
``results/curves.csv``. Recorded runs are skipped. An interrupted run resumes.

    python -m benchmarks curves [NAME ...] [--seeds 0 1 2] [--epochs 10] [--backbone convnet] [--images 20000]
    python -m benchmarks curves [NAME ...] --data cifar10 [--minutes 9] [--state FOLDER] [--results FOLDER]
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import time
from typing import Any

from benchmarks.methods import METHODS, cifar10
from benchmarks.record import record, recorded
from benchmarks.tables import DATA, add_run_options, file_name, load, train
from skssl import recipes
from skssl.callbacks import KNNMonitor
from skssl.nn.distributed import is_main_process

ROTATED = [name for base in ("SimCLR", "BYOL", "SimSiam", "SwAV") for name in (base, f"{base} + rotation")]
GUIDED = [f"{method}{kind}" for method in ("SimSiamGSG", "BYOLGSG") for kind in ("", ", random", ", reverse")]
#: The figures, with the rows of `benchmarks methods` and the recipes of CIFAR-10 that they show.
FIGURES: dict[str, tuple[list[str], list[str]]] = {
    "EffSSL, figures 3 to 5: the rotation task": (ROTATED, ROTATED),
    "GSG, figure 4: guiding": (
        ["SimSiamGSG, symmetric", "BYOLGSG, symmetric", *GUIDED],
        ["SimSiam, GSG's baseline", "BYOL, GSG's baseline", *GUIDED],
    ),
    "GSG, figure 5: no predictor": (
        [f"{method}{kind}, no predictor" for method in ("SimSiamGSG", "BYOLGSG") for kind in ("", ", symmetric")],
        [
            f"{name}, no predictor"
            for name in ("SimSiam, GSG's baseline", "SimSiamGSG", "BYOL, GSG's baseline", "BYOLGSG")
        ],
    ),
}


def make(name: str, data: str | None, **settings: Any) -> tuple[Any, int]:
    """Return the estimator of a row and the number of neighbours of its probe."""
    if data is None:
        method, params = METHODS[name]
        return method(**{"backbone": "convnet", "epochs": 10, **params, **settings}), 20
    recipe = DATA[data][name]
    return recipes.make(recipe, **settings), recipes.make_probes(recipe, None)["knn"].setting("n_neighbors")


def main() -> None:
    """Train the selected rows and record their curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="the rows of all figures by default")
    parser.add_argument("--data", choices=list(DATA), help="train the recipes of this data set")
    parser.add_argument("--epochs", type=int, help="those of the recipe, or 10")
    parser.add_argument("--backbone", help="that of the recipe, or convnet")
    parser.add_argument("--images", type=int, help="number of training images: all, or 20,000")
    add_run_options(parser)
    arguments = parser.parse_args()
    data = arguments.data
    known: dict[str, Any] = METHODS if data is None else DATA[data]
    figures = dict.fromkeys(name for ours, papers in FIGURES.values() for name in (ours if data is None else papers))
    names = arguments.names or [name for name in figures if name in known]
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"There is no row {unknown[0]!r}. The rows are: {', '.join(known)}")
    until = time.monotonic() + 60 * arguments.minutes
    X, y, X_test, y_test = cifar10(arguments.images or 20_000) if data is None else load(data, arguments.images)
    labelled = 10_000 if data is None else len(X)
    for name, seed in itertools.product(names, arguments.seeds):
        chosen = {"backbone": arguments.backbone, "epochs": arguments.epochs}
        settings = {key: value for key, value in chosen.items() if value is not None}
        estimator, n_neighbors = make(name, data, random_state=seed, verbose=1, **settings)
        run = {"data": data or "", "method": name, "backbone": estimator.backbone, "seed": seed}
        row: dict[str, Any] = {**run, "epochs": estimator.epochs, "images": len(X)}
        if recorded("curves", row, arguments.results):
            print(f"{name}, seed {seed}: already recorded")
            continue
        if time.monotonic() > until:
            break
        folder = arguments.state.expanduser() / "curves" / file_name(*row.values())
        estimator.set_params(checkpoint=folder, checkpoint_every=f"{arguments.save_every} min")
        monitor = KNNMonitor(X[:labelled], y[:labelled], X_test, y_test, n_neighbors=n_neighbors)
        if not train(estimator, X, y, until, [monitor]):
            print(f"{name}, seed {seed}: stopped at the time limit; the next call resumes")
            break
        if is_main_process():
            curve = estimator.history_[["epoch", "knn", "loss"]].to_dict("records")
            record("curves", [{**row, **of_epoch} for of_epoch in curve], arguments.results)
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
