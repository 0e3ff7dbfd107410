"""Views per second of each augmentation preset, with the hue in HSV and in YIQ.

    python -m benchmarks augmentation

A batch is 256 uint8 images of 32x32 pixels with channels last in memory, as from the loader. There are two CPU threads.
The presets take turns ten times; the fastest of many calls counts.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

import torch

from benchmarks.record import record
from skssl.augment import Augmentation, adjust_hue, preset

PRESETS = ("simclr", "simsiam", "byol", "gsg-cifar10", "rotnet", "none")
BATCH, SIDE, THREADS, ROUNDS = 256, 32, 2, 10


def views_per_second(augmentations: tuple[Augmentation, ...], images: torch.Tensor, seconds: float = 0.4) -> float:
    """Return the views per second in the fastest of many calls."""
    generator = torch.Generator().manual_seed(0)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        for augment in augmentations:
            augment(images, generator)
        best = min(best, time.perf_counter() - start)
    return len(images) * len(augmentations) / best


def main() -> None:
    """Time the presets in turn, so that other load on the machine affects all of them, and record the rates."""
    torch.set_num_threads(THREADS)
    torch.empty(7_500_000)  # lets the allocator keep freed memory, as it does in a training
    images = torch.randint(0, 256, (BATCH, SIDE, SIDE, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    rows: list[dict[str, Any]] = [{"preset": name, "hsv": 0, "yiq": 0} for name in PRESETS]
    for _, row, space in itertools.product(range(ROUNDS), rows, ("hsv", "yiq")):
        augmentations = preset(row["preset"], SIDE)
        for augment in augmentations:
            augment.set_params(hue_space=space)
        row[space] = max(row[space], round(views_per_second(augmentations, images)))
    record("augmentation", rows)
    # Error of the linear turn in YIQ on random colours, for the papers' shifts
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(1000, 3, 8, 8, generator=generator)
    for reach in (0.1, 0.2):
        shift = torch.empty(1000).uniform_(-reach, reach, generator=generator)
        error = (adjust_hue(colours, shift, "yiq") - adjust_hue(colours, shift, "hsv")).abs()
        print(f"yiq against hsv, shifts up to {reach}: mean error {error.mean():.3f}, largest {error.max():.3f}")


if __name__ == "__main__":
    main()
