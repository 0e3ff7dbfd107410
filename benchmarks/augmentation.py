"""Views per second of each augmentation preset, with the exact and the linear hue.

    python -m benchmarks augmentation

Batches are those of the loader: 256 uint8 images of 32x32 pixels, channels last. The presets take turns for ten rounds
on two CPU threads; the fastest call counts.
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
    """Return the views per second of the fastest call."""
    generator = torch.Generator().manual_seed(0)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        for augment in augmentations:
            augment(images, generator)
        best = min(best, time.perf_counter() - start)
    return len(images) * len(augmentations) / best


def main() -> None:
    """Time the presets in turns, so that load from other processes affects all of them, and record the results."""
    torch.set_num_threads(THREADS)
    torch.empty(7_500_000)  # makes the allocator keep freed memory, as in a training
    images = torch.randint(0, 256, (BATCH, SIDE, SIDE, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    rows: list[dict[str, Any]] = [{"preset": name, "hsv": 0, "yiq": 0} for name in PRESETS]
    for _, row, space in itertools.product(range(ROUNDS), rows, ("hsv", "yiq")):
        augmentations = preset(row["preset"], SIDE)
        for augment in augmentations:
            augment.set_params(hue_space=space)
        row[space] = max(row[space], round(views_per_second(augmentations, images)))
    record("augmentation", rows)
    # The error of the linear hue on random colours, for the shifts of the papers.
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(1000, 3, 8, 8, generator=generator)
    for reach in (0.1, 0.2):
        shift = torch.empty(1000).uniform_(-reach, reach, generator=generator)
        error = (adjust_hue(colours, shift, "yiq") - adjust_hue(colours, shift, "hsv")).abs()
        print(f"yiq vs. hsv, shifts up to {reach}: mean error {error.mean():.3f}, maximum {error.max():.3f}")


if __name__ == "__main__":
    main()
