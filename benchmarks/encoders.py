"""Shared options and cached encoders of the benchmarks of trained encoders.

Encoders are trained as in `benchmarks.methods`. joblib caches them outside the results for use by several benchmarks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from benchmarks.methods import METHODS
from benchmarks.record import COMMIT, recorded


def options(description: str | None, names: list[str]) -> argparse.Namespace:
    """Parse the shared options."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=names, help=f"of: {', '.join(METHODS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=10, help="of the training of the encoders")
    parser.add_argument("--backbone", default="convnet")
    parser.add_argument("--images", type=int, default=20_000, help="number of training images")
    parser.add_argument("--test", type=int, default=10_000, help="number of test images")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/skssl/benchmarks"))
    parser.add_argument("--again", action="store_true", help="repeat recorded runs")
    return parser.parse_args()


def to_do(benchmark: str, rows: list[dict[str, Any]], *, again: bool) -> Iterator[dict[str, Any]]:
    """Yield the rows without a recorded result."""
    for row in rows:
        if again or not recorded(benchmark, row):
            yield row
        else:
            print(", ".join(map(str, row.values())), "is already recorded")


def run(name: str, seed: int, asked: argparse.Namespace) -> dict[str, Any]:
    """Return the leading columns of a result."""
    backbone = "" if name == "pixels" else asked.backbone
    epochs = 0 if name in ("pixels", "untrained") else asked.epochs
    return {"method": name, "backbone": backbone, "seed": seed, "epochs": epochs, "images": asked.images}


def train(method: Any, params: dict[str, Any], n_images: int, X: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Train an encoder; return it with the seconds and the commit."""
    start = time.perf_counter()
    estimator = method(**params, verbose=1).fit(X, y)
    return {"encoder": estimator, "seconds": time.perf_counter() - start, "commit": COMMIT}


def trained(row: dict[str, Any], cache: Path, X: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Return the encoder of a run, trained or from the cache, with its training time in seconds and its commit."""
    method, params = METHODS[row["method"]]
    params = {"backbone": row["backbone"], "epochs": row["epochs"], "random_state": row["seed"], **params}
    memory = joblib.Memory(cache.expanduser(), verbose=0)
    return memory.cache(train, ignore=["X", "y"])(method, params, row["images"], X, y)
