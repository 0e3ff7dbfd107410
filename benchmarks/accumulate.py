"""Memory and time of training by `accumulate`, the number of parts of a batch.

Each run is a separate process that trains SimCLR for two epochs of two batches. memory is the peak above that of a
training on 16 images: of the process, or on a GPU of the allocated memory. time is relative to the first row, by the
second epoch, and the median of the rounds.

    python -m benchmarks accumulate [--batch 256] [--parts 1 2 4 8] [--pixels 64] [--backbone resnet18] [--rounds 3]
        [--device auto]
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch

from benchmarks.processes import run_in_process
from benchmarks.record import RESULTS, record
from benchmarks.scaling import draw, peak_memory
from skssl import SimCLR
from skssl.training.devices import resolve_device


def peak(device: torch.device) -> float:
    """Return the peak memory in MB so far: allocated on a GPU, or resident in this process."""
    return torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else peak_memory()


def run(backbone: str, batch: int, parts: int, pixels: int, device: torch.device) -> tuple[float, float]:
    """Train in this process; return the memory in MB and the images per second."""
    X, shared = draw(2 * batch, pixels), {"backbone": backbone, "device": str(device), "compile": False}
    SimCLR(**shared, batch_size=16, epochs=1, random_state=0).fit(X[:16])
    before = peak(device)
    method = SimCLR(**shared, batch_size=batch, accumulate=parts, epochs=2, precision="float32", random_state=0)
    rate = method.fit(X).history_["images_per_second"].iloc[-1]
    return peak(device) - before, rate


def main() -> None:
    """Run all numbers of parts in turns, and record them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--parts", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args()
    device = resolve_device(asked.device)
    found: dict[int, list[tuple[float, float]]] = {parts: [] for parts in asked.parts}
    for _ in range(asked.rounds):
        for parts, of in found.items():
            of.append(run_in_process(run, asked.backbone, asked.batch, parts, asked.pixels, device))
    shared = {"backbone": asked.backbone, "pixels": asked.pixels, "batch_size": asked.batch}
    rows = []
    for parts, of in found.items():
        memory, rates = (statistics.median(values) for values in zip(*of, strict=True))
        times = [first[1] / one[1] for one, first in zip(of, found[asked.parts[0]], strict=True)]
        row = {**shared, "accumulate": parts, "memory": memory, "images_per_second": rates}
        rows.append({**row, "time": statistics.median(times), "rounds": len(of)})
    record("accumulate", rows, asked.results)


if __name__ == "__main__":
    main()
