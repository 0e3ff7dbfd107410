"""How good in how little time: linear accuracy after two minutes of training on two cores, or three on one GPU.

An entry is trained without labels. Logistic regression on its features then classifies the test images of CIFAR-10. The
rules are in docs/race.md. On the track "CPU" an entry trains for as many epochs as fit into its time at the speed of a
short training before, which is not counted, or for those of its recipe. Each run is a row of ``results/race.csv``.

    python -m benchmarks race [ENTRY ...] [--track CPU] [--seeds 0 1 2 3 4] [--epochs N] [--results FOLDER] [--again]
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skssl
from benchmarks.methods import balanced, cifar10
from benchmarks.patches import WhitenedPatches
from benchmarks.record import RESULTS, record, recorded
from skssl import Augmentation, recipes
from skssl.backbones import StagePool
from skssl.methods.base import SSLTransformer

RATE = 3000  # images per second that `transform` must reach


@dataclass(frozen=True)
class Track:
    """The limits of a track: seconds of `fit`, training images, and labels per class, or all."""

    seconds: float
    images: int
    per_class: int | None


TRACKS = {"CPU": Track(120, 20_000, 500), "GPU": Track(180, 50_000, None)}
SIMCLR: dict[str, Any] = {"backbone": "convnet", "batch_size": 256, "hidden_dim": 128}  # as wide as the features
FASTER = {**SIMCLR, "precision": "bfloat16"}
FIFTH = {"augment": Augmentation(crop_scale=(0.2, 1.0))}
GRID = {**FASTER, "backbone": StagePool("convnet", n_stages=2, grid=3)}


def on_grid(backbone: str, n_stages: int, grid: int) -> dict[str, Any]:
    """Return the parameters of a network with features of several stages on a grid."""
    return {"backbone": StagePool(backbone, n_stages, grid)}


#: What was tried: the entry that it changes in one thing, the method and its parameters. Epochs fill the time.
ATTEMPTS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "random whitened patches, no training": ("", WhitenedPatches, {}),
    "SimCLR": ("", skssl.SimCLR, SIMCLR),
    "bfloat16": ("SimCLR", skssl.SimCLR, FASTER),
    **{
        name: ("bfloat16", skssl.SimCLR, {**FASTER, **params})
        for name, params in {
            "compiled": {"compile": True},
            "last stage on a 2x2 grid": on_grid("convnet", 1, 2),
            "two stages on a 3x3 grid": on_grid("convnet", 2, 3),
        }.items()
    },
    **{
        name: ("two stages on a 3x3 grid", method, {**GRID, **params})
        for name, method, params in (
            ("four stages on a 3x3 grid", skssl.SimCLR, on_grid("convnet", 4, 3)),
            ("two stages on a 4x4 grid", skssl.SimCLR, on_grid("convnet", 2, 4)),
            ("twice the channels", skssl.SimCLR, on_grid("convnet_2x", 2, 3)),
            ("hidden layer of 512", skssl.SimCLR, {"hidden_dim": 512}),
            ("hidden layer of 1,728", skssl.SimCLR, {"hidden_dim": 1728}),
            ("rotation", skssl.SimCLR, {"aux": "rotation"}),
            ("batches of 128", skssl.SimCLR, {"batch_size": 128}),
            ("batches of 512", skssl.SimCLR, {"batch_size": 512}),
            ("temperature 0.1", skssl.SimCLR, {"temperature": 0.1}),
            ("temperature 0.5", skssl.SimCLR, {"temperature": 0.5}),
            ("twice the rate", skssl.SimCLR, {"lr": 1.0}),
            ("half the rate", skssl.SimCLR, {"lr": 0.25}),
            ("AdamW", skssl.SimCLR, {"optimizer": "adamw", "lr": 2e-3, "weight_decay": 1e-2}),
            ("crops of a fifth and more", skssl.SimCLR, FIFTH),
            ("crops of a third and more", skssl.SimCLR, {"augment": Augmentation(crop_scale=(1 / 3, 1.0))}),
            ("views of 24 pixels", skssl.SimCLR, {"augment": Augmentation(size=24)}),
            ("MoCo", skssl.MoCo, {}),
            ("DCL", skssl.DCL, {}),
        )
    },
    "crops of a fifth and more, hidden layer of 512": (
        "crops of a fifth and more",
        skssl.SimCLR,
        {**GRID, **FIFTH, "hidden_dim": 512},
    ),
    "DCL, crops of a fifth and more": ("crops of a fifth and more", skssl.DCL, {**GRID, **FIFTH}),
    "DCL, crops of a fifth and more, hidden layer of 512": (
        "DCL, crops of a fifth and more",
        skssl.DCL,
        {**GRID, **FIFTH, "hidden_dim": 512},
    ),
    **{
        name: ("hidden layer of 1,728", skssl.SimCLR, {**GRID, "hidden_dim": width, **params})
        for name, width, params in (
            ("rotation, hidden layer of 1,728", 1728, {"aux": "rotation"}),
            ("twice the channels, hidden layer of 3,456", 3456, on_grid("convnet_2x", 2, 3)),
        )
    },
}


def epochs_within(seconds: float, method: Any, params: dict[str, Any], X: np.ndarray) -> int:
    """Return how many epochs fit into the time, at the speed of a second short training."""
    short = method(**params, epochs=1, random_state=0)
    for _ in range(2):
        speed = short.fit(X[:4096]).history_["images_per_second"].iloc[-1]
    return max(1, int(seconds * speed / len(X)))


def judge(
    encoder: Any, track: Track, X: np.ndarray, y: np.ndarray, X_test: np.ndarray, y_test: np.ndarray
) -> dict[str, Any]:
    """Return the accuracy of logistic regression, the width of the features, and the speed of `transform`."""
    labelled = np.arange(len(X)) if track.per_class is None else balanced(y, track.per_class)
    start = time.perf_counter()
    test = encoder.transform(X_test)
    rate = len(X_test) / (time.perf_counter() - start)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    classifier.fit(encoder.transform(X[labelled]), y[labelled])
    return {"linear": classifier.score(test, y_test), "width": test.shape[1], "transform": rate}


def main() -> None:
    """Train and judge entries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entries", nargs="*", help=f"of: record, {', '.join(ATTEMPTS)}; record by default")
    parser.add_argument("--track", choices=list(TRACKS), default="GPU" if torch.cuda.is_available() else "CPU")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, help="those of the recipe, or as many as fit into the time")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true", help="repeat recorded runs")
    arguments = parser.parse_args()
    track = TRACKS[arguments.track]
    X, y, X_test, y_test = cifar10(track.images)
    for entry, seed in itertools.product(arguments.entries or ["record"], arguments.seeds):
        row = {"track": arguments.track, "entry": entry, "seed": seed}
        if recorded("race", row, arguments.results) and not arguments.again:
            print(f"{entry}, seed {seed}: already recorded")
            continue
        settings: dict[str, Any] = {"random_state": seed, "verbose": 1}
        if arguments.epochs:
            settings["epochs"] = arguments.epochs
        if entry == "record":
            encoder = recipes.make(recipes.RACE[arguments.track], **settings)
        else:
            _, method, params = ATTEMPTS[entry]
            if method is WhitenedPatches:
                settings = {"random_state": seed}
            elif not arguments.epochs:  # some seconds are left for what precedes the first step
                settings["epochs"] = epochs_within(0.96 * track.seconds, method, params, X)
            encoder = method(**params, **settings)
        start = time.perf_counter()
        encoder.fit(X)
        seconds = time.perf_counter() - start
        found = judge(encoder, track, X, y, X_test, y_test)
        found |= {"epochs": 0, "seconds": seconds}
        if isinstance(encoder, SSLTransformer):
            found |= {"epochs": encoder.epochs, "effective_rank": encoder.history_["effective_rank"].iloc[-1]}
        found["valid"] = seconds <= track.seconds and found["transform"] >= RATE
        record("race", [{**row, **found, "amx": "amx_bf16" in Path("/proc/cpuinfo").read_text()}], arguments.results)


if __name__ == "__main__":
    main()
