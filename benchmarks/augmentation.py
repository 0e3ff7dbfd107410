"""Views a second of each augmentation preset, with the exact hue and with the linear one.

    python -m benchmarks augmentation

Images are as the loader gives them: 256, uint8, 32x32, the channels last in memory. Two CPU threads; the presets take
turns ten times, and the best of many calls counts.
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
    """Time one view of each augmentation, again and again."""
    generator = torch.Generator().manual_seed(0)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        for augment in augmentations:
            augment(images, generator)
        best = min(best, time.perf_counter() - start)
    return len(images) * len(augmentations) / best


def main() -> None:
    """Time the presets in turns, so that a neighbour's burst does not fall on one of them, and record them."""
    torch.set_num_threads(THREADS)
    torch.empty(7_500_000)  # as beside a network, the allocator keeps what is freed from here on
    images = torch.randint(0, 256, (BATCH, SIDE, SIDE, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    rows: list[dict[str, Any]] = [{"preset": name, "hsv": 0, "yiq": 0} for name in PRESETS]
    for _, row, space in itertools.product(range(ROUNDS), rows, ("hsv", "yiq")):
        augmentations = preset(row["preset"], SIDE)
        for augment in augmentations:
            augment.set_params(hue_space=space)
        row[space] = max(row[space], round(views_per_second(augmentations, images)))
    record("augmentation", rows)
    # How far the linear turn is from the papers' one, on random colours, for shifts as the papers draw them.
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(1000, 3, 8, 8, generator=generator)
    for reach in (0.1, 0.2):
        shift = torch.empty(1000).uniform_(-reach, reach, generator=generator)
        error = (adjust_hue(colours, shift, "yiq") - adjust_hue(colours, shift, "hsv")).abs()
        print(f"yiq against hsv, shifts up to {reach}: mean error {error.mean():.3f}, largest {error.max():.3f}")


if __name__ == "__main__":
    main()
