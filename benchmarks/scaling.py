"""Time and memory of training by the number of images, their storage, their size, and the batch size.

Each run is a separate process that trains for some epochs. The speed is the median over all epochs but the first; the
memory is the peak resident memory above that before the images were made. The runs of a comparison take turns, and the
ratio to the first one is computed in each round. "memory" trains one epoch on half a million images stored on disk.

    python -m benchmarks scaling [images source pixels batch memory] [--images 500000] [--backbone convnet]
        [--rounds 3] [--device auto]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.processes import run_in_process
from benchmarks.record import record
from skssl import SimCLR

#: The values that vary, the baseline first. All other settings are those of BASE.
BASE: dict[str, Any] = {"images": 5_000, "source": "array", "pixels": 32, "batch": 256, "epochs": 3}
VARIED: dict[str, list[Any]] = {
    "images": [5_000, 10_000, 20_000, 50_000],
    "source": ["array", "memmap", "files"],
    "pixels": [32, 48, 64, 96],
    "batch": [256, 64, 128, 512, 1024],
    "memory": ["memmap", "files"],
}
VARIES = {"memory": "source"}  # the setting that varies, if it is not the name of the comparison
#: Other settings of a comparison.
ALSO: dict[str, dict[str, Any]] = {
    "source": {"images": 20_000},
    "batch": {"images": 10_000},
    "memory": {"images": 500_000, "epochs": 1},
}
CHUNK = 10_000  # images made in memory at once


def draw(images: int, pixels: int, seed: int = 0) -> np.ndarray:
    """Draw smooth random images, which JPEG compresses well."""
    random = np.random.default_rng(seed)
    drawn, cell = np.empty((images, pixels, pixels, 3), np.uint8), pixels // 4
    coarse = random.integers(0, 256, (images, 4, 1, 4, 1, 3), dtype=np.uint8)
    drawn.reshape(images, 4, cell, 4, cell, 3)[:] = coarse
    return drawn


def keep(images: int, source: str, pixels: int, folder: Path) -> None:
    """Write the images of a run, unless they exist, with few of them in memory."""
    place = folder / f"{source}-{images}-{pixels}"
    if source == "array" or place.exists():
        return
    place.mkdir()
    if source == "memmap":
        stored = np.lib.format.open_memmap(place / "X.npy", "w+", np.uint8, (images, pixels, pixels, 3))
    for start in range(0, images, CHUNK):
        drawn = draw(min(CHUNK, images - start), pixels, start)
        if source == "memmap":
            stored[start : start + len(drawn)] = drawn
            continue
        for i, image in enumerate(drawn, start):
            Image.fromarray(image).save(place / f"{i:06}.jpg", quality=90)


def find(images: int, source: str, pixels: int, folder: Path) -> Any:
    """Return the images of a run."""
    place = folder / f"{source}-{images}-{pixels}"
    if source == "array":
        return draw(images, pixels)
    if source == "memmap":
        return np.load(place / "X.npy", mmap_mode="r")
    return sorted(entry.path for entry in os.scandir(place))


def peak_memory() -> float:
    """Return the peak resident memory of this process in MB; NaN if the system does not report it."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM")]
    return found[0] if found else float("nan")


def run(
    backbone: str, device: str, folder: Path, images: int, source: str, pixels: int, batch: int, epochs: int
) -> dict[str, Any]:
    """Train in this process; return its speed and its memory."""
    os.environ["SKSSL_CACHE"] = str(folder)  # for decoded files
    shared = {"backbone": backbone, "batch_size": batch, "device": device, "random_state": 0}
    SimCLR(**shared, epochs=1).fit(draw(8 * batch, pixels))  # memory of any training
    before = peak_memory()
    history = SimCLR(**shared, epochs=epochs).fit(find(images, source, pixels, folder)).history_
    rates = history["images_per_second"].iloc[min(1, epochs - 1) :]
    return {"images_per_second": rates.median(), "memory": peak_memory() - before}


def main() -> None:
    """Run the comparisons in turns, and record them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("varied", nargs="*", default=list(VARIED), help=f"of: {', '.join(VARIED)}")
    parser.add_argument("--images", type=int, help="number of images, in comparisons that do not vary it")
    parser.add_argument("--backbone", default="convnet")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for varied in arguments.varied:
            fixed = {**BASE, **ALSO.get(varied, {}), **({"images": arguments.images} if arguments.images else {})}
            settings = [{**fixed, VARIES.get(varied, varied): value} for value in VARIED[varied]]
            found: list[list[dict[str, Any]]] = [[] for _ in settings]
            if varied == "images":  # equal numbers of steps, since the peak memory grows with them
                for setting in settings:
                    setting["epochs"] = 2 * max(VARIED["images"]) // setting["images"]
            for setting in settings:
                keep(setting["images"], setting["source"], setting["pixels"], Path(folder))
            for _ in range(arguments.rounds):
                for setting, of in zip(settings, found, strict=True):
                    of.append(run_in_process(run, arguments.backbone, arguments.device, Path(folder), **setting))
            rows = []
            for setting, of in zip(settings, found, strict=True):
                pairs = zip(of, found[0], strict=True)
                ratios = [first["images_per_second"] / one["images_per_second"] for one, first in pairs]
                rows.append(
                    {
                        "varied": varied,
                        "backbone": arguments.backbone,
                        **{name: value for name, value in setting.items() if name != "epochs"},
                        "images_per_second": statistics.median(one["images_per_second"] for one in of),
                        "time_an_image": statistics.median(ratios),
                        "memory": statistics.median(one["memory"] for one in of),
                        "of_images": setting["images"] * setting["pixels"] ** 2 * 3 / 1e6,
                        "rounds": len(of),
                    }
                )
            record("scaling", rows)


if __name__ == "__main__":
    main()
