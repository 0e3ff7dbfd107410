"""Speed of several trainings on the same cores: one, two and four trainings of SimCLR with "convnet" at once.

All start at the same time and train for the same number of seconds. by_turns is the time of parallel trainings relative
to consecutive ones: 1 means no loss. Environment variables are set by ``--set NAME=VALUE``.

    python -m benchmarks sharing [--fits 2 4] [--seconds 10] [--rounds 3] [--set NAME=VALUE] [--backbone convnet]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

STARTS_AT = "SKSSL_BENCHMARK_STARTS_AT"  # environment variable with the start time of a training process
READY = 5.0  # seconds for imports and warm-up of a process


def train(starts_at: float, seconds: float, backbone: str) -> None:
    """Wait for the start, train, and print the images per second."""
    import skssl  # before torch, whose threads it configures  # isort: skip
    import numpy as np

    X = np.random.default_rng(0).integers(0, 256, (2048, 32, 32, 3), dtype=np.uint8)
    method = skssl.SimCLR(backbone=backbone, epochs=100, random_state=0, device="cpu").partial_fit(X[:512])
    time.sleep(max(0.0, starts_at - time.time()))
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        method.partial_fit(X)
        done += len(X)
    print(done / (time.perf_counter() - begun))


def side_by_side(fits: int, seconds: float, backbone: str, variables: dict[str, str]) -> float:
    """Train in several processes at once; return their total images per second."""
    starts_at = str(time.time() + READY * (1 + fits))
    command = [sys.executable, "-m", "benchmarks.sharing", str(seconds), backbone]
    environment = {**os.environ, **variables, STARTS_AT: starts_at}
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(fits)]
    return sum(float(process.communicate()[0].splitlines()[-1]) for process in running)


def main() -> None:
    """Run each number of trainings in turn, and record each round."""
    from benchmarks.record import record

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fits", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="environment variables")
    parser.add_argument("--backbone", default="convnet")
    arguments = parser.parse_args()
    variables = dict(pair.split("=", 1) for pair in arguments.set)
    for _ in range(arguments.rounds):
        alone = 0.0
        for fits in (1, *arguments.fits):
            rate = side_by_side(fits, arguments.seconds, arguments.backbone, variables)
            alone = rate if fits == 1 else alone
            row = {"backbone": arguments.backbone, "variables": " ".join(arguments.set), "fits": fits}
            record("sharing", [{**row, "images_per_second": rate, "by_turns": alone / rate}])


if __name__ == "__main__":
    train(float(os.environ[STARTS_AT]), float(sys.argv[1]), sys.argv[2])
