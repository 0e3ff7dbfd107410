"""The papers' rows at the papers' length: the recipes of a data set, and a list of the papers' tables and figures.

Each run is evaluated after the last epoch by the kNN and the linear probe of its recipe on the test images. Probes that
augment encode the training images in each of their epochs; --fixed-features encodes them once. A checkpoint is saved
every few minutes, at the time limit and on Ctrl-C. The next call resumes from it and skips recorded rows.

CIFAR is downloaded. The other data sets are folders where `skssl.datasets.load_images` finds them by name. Under
torchrun several processes train together, and one of them records.

    python -m benchmarks tables --list
    python -m benchmarks tables [NAME ...] [--data cifar10] [--seeds 0] [--epochs N] [--minutes 9] [--save FOLDER]
                                [--state FOLDER] [--results FOLDER]
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import top_k_accuracy_score
from skorch.callbacks import Callback

from benchmarks import papers
from benchmarks.methods import cifar10
from benchmarks.record import RESULTS, record, recorded
from skssl import recipes
from skssl.datasets import load_images
from skssl.images import subset
from skssl.nn.distributed import is_main_process

DATA: dict[str, dict[str, Any]] = {
    "cifar10": recipes.CIFAR10,
    "cifar100": recipes.CIFAR100,
    "tiny-imagenet": recipes.TINY_IMAGENET,
    "imagenet100": recipes.IMAGENET100,
    "imagenet": recipes.IMAGENET,
}
TEST = {"cifar10": "test", "cifar100": "test"}  # the split of the test images; "val" of the others
STATE = Path("~/.cache/skssl/benchmarks")


class TimeLimit(Callback):
    """Stop the training at a time limit by SIGTERM, as a cluster does; a checkpoint is saved first."""

    def __init__(self, until: float) -> None:
        self.until = until

    def on_batch_end(self, net: Any, **kwargs: Any) -> None:
        """Raise SIGTERM after the time limit."""
        if time.monotonic() > self.until:
            signal.raise_signal(signal.SIGTERM)


def load(data: str, images: int | None = None) -> tuple[Any, ...]:
    """Load the training images, all or a fixed sample, and the test images, with their classes."""
    if data == "cifar10":
        return cifar10(images or 50_000)
    try:
        (X, y), (X_test, y_test) = (load_images(data, split=split) for split in ("train", TEST.get(data, "val")))
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"The data set {data!r} cannot be loaded: {error}")
    if images is not None and images < len(X):
        chosen = np.sort(np.random.RandomState(0).permutation(len(X))[:images])
        X, y = subset(X, chosen), y[chosen]
    return X, y, X_test, y_test


def train(estimator: Any, X: Any, y: Any, until: float, callbacks: Sequence[Callback] = ()) -> bool:
    """Train from the checkpoint until the last epoch or the time limit; return whether the training is complete."""
    try:
        estimator.set_params(callbacks=[TimeLimit(until), *callbacks]).fit(X, y)
    except SystemExit:
        return False
    return True


def evaluate(
    estimator: Any,
    recipe: dict[str, Any],
    X: Any,
    y: np.ndarray,
    X_test: Any,
    y_test: np.ndarray,
    fixed_features: bool = False,
) -> dict[str, float]:
    """Score an encoder by the probes of its recipe, for 100 classes or more with the linear probe's top-5 accuracy."""
    probes = recipes.make_probes(recipe, FrozenEstimator(estimator))
    probes["linear"].set_params(random_state=0, augment="none" if fixed_features else None)
    found = {name: probe.fit(X, y).score(X_test, y_test) for name, probe in probes.items()}
    if len(classes := probes["linear"].classes_) >= 100:  # tables of ImageNet have both; kNN has too few neighbours
        probabilities = probes["linear"].predict_proba(X_test)
        found["linear_top5"] = top_k_accuracy_score(y_test, probabilities, k=5, labels=classes)
    return found


def with_saliency(recipe: dict[str, Any], maps: np.ndarray) -> dict[str, Any]:
    """Return the changes that give the views of a recipe saliency maps, one for each training image."""
    return {"augment": [clone(view).set_params(saliency=maps) for view in recipe["params"]["augment"]]}


def file_name(*parts: Any) -> str:
    """Return the name of a file or folder for a run."""
    return "-".join(str(part).replace("/", "") for part in parts)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of resumable trainings."""
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, default=float("inf"), help="time limit")
    parser.add_argument("--save-every", type=float, default=5.0, help="minutes between checkpoints")
    parser.add_argument("--state", type=Path, default=STATE, help="folder of the checkpoints")
    parser.add_argument("--results", type=Path, default=RESULTS)


def main() -> None:
    """Train and evaluate the selected rows within the time limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    rows = "; ".join(f"{data}: {', '.join(found)}" for data, found in DATA.items()).replace("%", "%%")
    parser.add_argument("names", nargs="*", help=f"all of the data set by default. {rows}")
    parser.add_argument("--list", action="store_true", help="list the papers' tables and figures with their commands")
    parser.add_argument("--data", choices=list(DATA), default="cifar10")
    parser.add_argument("--epochs", type=int, help="those of the recipe by default")
    parser.add_argument("--fixed-features", action="store_true", help="probe without augmentation")
    parser.add_argument("--backbone", help="that of the recipe by default")
    parser.add_argument("--images", type=int, help="number of training images, all by default")
    parser.add_argument("--saliency", type=Path, help="maps (.npy) of the training images, in the order of load_images")
    parser.add_argument("--save", type=Path, help="folder for the trained encoders, for `benchmarks transfer`")
    parser.add_argument("--compile", action="store_true", help="compile even short trainings")
    add_run_options(parser)
    arguments = parser.parse_args()
    if arguments.list:
        print(papers.listing())
        return
    found = DATA[arguments.data]
    unknown = [name for name in arguments.names if name not in found]
    if unknown:
        parser.error(f"{arguments.data} has no row {unknown[0]!r}. Its rows: {', '.join(found)}")
    names = arguments.names or [name for name in found if arguments.saliency or "saliency" not in name]
    guided = [name for name in names if "saliency" in name]
    if guided and arguments.saliency is None:
        parser.error(f"{guided[0]!r} needs --saliency, a file of maps such as skssl.augment.grad_cam computes.")
    until = time.monotonic() + 60 * arguments.minutes
    X, y, X_test, y_test = load(arguments.data, arguments.images)
    maps = None if arguments.saliency is None else np.load(arguments.saliency)
    if maps is not None and len(maps) != len(X):
        sys.exit(f"--saliency needs a map for each of the {len(X)} training images. Got {len(maps)}.")
    for name, seed in itertools.product(names, arguments.seeds):
        recipe = found[name]
        settings: dict[str, Any] = {"random_state": seed, "verbose": 1, "compile": arguments.compile or "auto"}
        chosen = {"backbone": arguments.backbone, "epochs": arguments.epochs}
        settings |= {key: value for key, value in chosen.items() if value is not None}
        if maps is not None and name in guided:
            settings |= with_saliency(recipe, maps)
        estimator = recipes.make(recipe, **settings)
        run = {"data": arguments.data, "method": name, "backbone": estimator.backbone, "seed": seed}
        row: dict[str, Any] = {**run, "epochs": estimator.epochs, "images": len(X)}
        if recorded("tables", row, arguments.results):
            print(f"{name}, seed {seed}: already recorded")
            continue
        if time.monotonic() > until:
            break
        folder = arguments.state.expanduser() / "tables" / file_name(*row.values())
        estimator.set_params(checkpoint=folder, checkpoint_every=f"{arguments.save_every} min")
        if not train(estimator, X, y, until):
            print(f"{name}, seed {seed}: stopped at the time limit; the next call resumes")
            break
        speed = estimator.history_["images_per_second"]
        row |= evaluate(estimator, recipe, X, y, X_test, y_test, arguments.fixed_features)
        row |= {"seconds": (len(X) / speed).sum(), "images_per_second": speed.median()}
        row |= {"paper_linear": recipe["linear"], "paper_knn": recipe["knn"]}
        if is_main_process():
            if arguments.save is not None:
                arguments.save.mkdir(parents=True, exist_ok=True)
                estimator.save(arguments.save / f"{file_name(arguments.data, name, seed)}.safetensors")
            record("tables", [row], arguments.results)
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
