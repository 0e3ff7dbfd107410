"""Accuracy and speed of distributed training: the same cores shared by one, two or more processes.

Each run is the same script under torchrun on images of CIFAR-10, with gloo on CPUs and NCCL on GPUs. knn: cosine kNN
with k = 20 from the training images, on every second test image.

    python -m benchmarks distributed [NAME ...] [--processes 1 2] [--seeds 0 1 2] [--epochs 3] [--images 5000]
                                     [--backbone convnet] [--device auto]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.methods import METHODS
from benchmarks.record import record
from skssl import KNNProbe
from skssl.datasets import load_images
from skssl.nn.distributed import is_main_process

SETTINGS = "SKSSL_BENCHMARK_RUN"  # environment variable with the settings of a training process


def train(method: str, seed: int, images: int, **params: Any) -> None:
    """Train in this process as part of a group; one process of the group prints the results."""
    (X, y), (X_test, y_test) = (load_images("cifar10", split=split) for split in ("train", "test"))
    X, y = (of[:: len(X) // images][:images] for of in (X, y))  # evenly spaced, since the images are sorted by class
    kind, own = METHODS[method]
    estimator = kind(**{**own, **params}, random_state=seed).fit(X, y)
    if is_main_process():
        probe = KNNProbe(n_neighbors=20, device="cpu").fit(estimator.transform(X), y)
        found = {
            "knn": probe.score(estimator.transform(X_test[::2]), y_test[::2]),
            "loss": float(estimator.history_["loss"].iloc[-1]),
            "images_per_second": float(estimator.history_["images_per_second"].iloc[1:].max()),
        }
        print(json.dumps(found))


def run(processes: int, **settings: Any) -> dict[str, Any]:
    """Train in a group of processes that share the cores evenly, and return the printed results."""
    threads = max(1, (os.cpu_count() or 1) // processes)
    environment = {**os.environ, SETTINGS: json.dumps(settings), "OMP_NUM_THREADS": str(threads)}
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *command, "-m", "benchmarks.distributed"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run each number of processes in turn, and record each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["SimCLR", "SwAV"], help=f"of: {', '.join(METHODS)}")
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--backbone", default="convnet")
    parser.add_argument("--device", default="auto")
    arguments = vars(parser.parse_args())
    names, seeds, numbers = (arguments.pop(name) for name in ("names", "seeds", "processes"))
    for seed in seeds:
        for method in names:
            for processes in numbers:
                settings = {"method": method, "seed": seed, **arguments}
                found = run(processes, **settings)
                record("distributed", [{**settings, "processes": processes, **found}])


if __name__ == "__main__":
    train(**json.loads(os.environ[SETTINGS]))
