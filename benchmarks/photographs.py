"""Training on a folder of photographs: speed and memory from files, and what whole pictures gain in accuracy.

The folder is ``FOLDER/train/<class>/<file>`` and ``FOLDER/validation/<class>/<file>``.

speed: SimCLR with views of 128 pixels by lightly's default augmentation. *fit* reads the files. *pixels* and *jpeg* are
`fit` from packs. *lightly* is lightly's own loop: its transform in a worker process for each core, its head and its
loss, with the same network and precision. *decoder* decodes and cuts the crops, without colours and without steps.
*array* is `fit` on pictures that were resized to 128 pixels before, from memory. Each run is a process of its own; the
runs take turns, and the median of the ratios counts.

packs: the megabytes of the files and of the packs, and the milliseconds of a core that two crops of a picture take.

memory: the peak resident memory of `fit` in MB, by the number of pictures. More pictures than the folder has are
repetitions.

quality: the accuracy on the validation split of a linear and a kNN probe, after training on whole pictures, and on
pictures that were cut to 64x64 before: shorter side resized, centre cut out. Views have 64 pixels in both.

    python -m benchmarks photographs --folder FOLDER [--parts speed packs memory quality] [--rounds 5] [--seeds 0 1 2]
                                     [--epochs 60] [--images N] [--precision auto]
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import cpu_count
from PIL import Image
from torch import nn

from benchmarks.methods import evaluate
from benchmarks.processes import run_in_process
from benchmarks.record import RESULTS, read, record, recorded
from benchmarks.scaling import peak_memory
from benchmarks.throughput import seconds_per_step
from skssl import Augmentation, SimCLR
from skssl.augment import preset
from skssl.backbones import build_backbone
from skssl.datasets import load_images, pack_images
from skssl.images import as_images
from skssl.images.photographs import DEFAULT_SIDE, Photographs
from skssl.nn.precision import mixed_precision, resolve_precision
from skssl.training.devices import resolve_device

PARTS = ("speed", "packs", "memory", "quality")
CUT = 64  # side of the views, and of the pictures that are cut before, in pixels
#: The training of the quality: few pictures, so that AdamW is far ahead of SGD after as many epochs.
TRAINING: dict[str, Any] = {
    "augment": Augmentation(size=CUT, crop_scale=(0.2, 1.0)),
    "optimizer": "adamw",
    "lr": 2e-3,
    "temperature": 0.2,
}
#: The goals: the measured ratio, and its lowest or highest value.
GOALS = {"fit, of lightly": 2.0, "fit, of decoder": 0.9, "pixels, of lightly": 3.0}
MEMORY_GOAL = 1.1  # of all pictures, relative to the fewest


def simclr(asked: argparse.Namespace, side: int, **settings: Any) -> SimCLR:
    """Return SimCLR with views of a side."""
    shared = {"backbone": asked.backbone, "batch_size": asked.batch, "precision": asked.precision}
    shared |= {"augment": preset("simclr", DEFAULT_SIDE)[0].set_params(size=side), "device": asked.device}
    return SimCLR(**{"random_state": 0, **shared, **settings})


def resized(path: str, side: int, *, cut: bool) -> np.ndarray:
    """Return a picture resized to a square, whole or its centre."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    if cut:
        ratio = side / min(picture.size)
        width, height = (max(side, round(extent * ratio)) for extent in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - side) // 2, (height - side) // 2
        return np.asarray(picture.crop((left, top, left + side, top + side)))
    return np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))


# Speed: each function returns images per second.


def fit_speed(X: Any, asked: argparse.Namespace) -> float:
    """Time the epochs of `fit` but the first."""
    history = simclr(asked, asked.side, epochs=3).fit(X).history_
    return history["images_per_second"].iloc[1:].max()


def array_speed(paths: Sequence[str], asked: argparse.Namespace) -> float:
    """Time `fit` on pictures in memory."""
    return fit_speed(np.stack([resized(path, asked.side, cut=False) for path in paths]), asked)


def decoder_speed(X: Any, asked: argparse.Namespace, clock: Callable[[], float] = time.perf_counter) -> float:
    """Time the decoding and cutting of two crops of each picture, by the clock of the wall or of the process."""
    augment, size = simclr(asked, asked.side).augment, (asked.side, asked.side)
    images, generator = as_images(X, size), torch.Generator().manual_seed(0)
    if not isinstance(images, Photographs):
        raise TypeError("The pictures must differ in size.")

    def plan(sizes: torch.Tensor) -> list[Any]:
        return [augment.draw_crops(sizes, size, generator, n_views=2)]

    best = 0.0
    for _ in range(3):
        start = clock()
        order = torch.randperm(len(images), generator=generator).split(asked.batch)
        for _ in images.crops((index, plan) for index in order):
            pass
        best = max(best, len(images) / (clock() - start))
    return best


class Files(torch.utils.data.Dataset):
    """Image files for lightly's loop, which worker processes decode and transform one by one."""

    def __init__(self, paths: Sequence[str], transform: Callable[[Image.Image], list[torch.Tensor]]) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> list[torch.Tensor]:
        with Image.open(self.paths[i]) as picture:
            return self.transform(picture.convert("RGB"))


def lightly_speed(paths: Sequence[str], asked: argparse.Namespace) -> float:
    """Time lightly's loop."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform

    device = resolve_device(asked.device)
    how: dict[str, Any] = {"shuffle": True, "drop_last": True, "num_workers": cpu_count(), "persistent_workers": True}
    files = Files(paths, SimCLRTransform(input_size=asked.side))
    loader = torch.utils.data.DataLoader(files, min(asked.batch, len(paths)), **how)
    encoder, dim = build_backbone(asked.backbone, (3, asked.side, asked.side))
    net = nn.Sequential(encoder, SimCLRProjectionHead(dim, max(dim, 256), 128)).to(device)
    criterion, optimizer = NTXentLoss(temperature=0.5), torch.optim.SGD(net.parameters(), lr=0.06, momentum=0.9)
    dtype = resolve_precision(asked.precision, device, asked.side)

    def step(views: Any) -> None:
        optimizer.zero_grad()
        with mixed_precision(dtype, device):
            z0, z1 = (net(view.to(device)) for view in views)
        criterion(z0.float(), z1.float()).backward()
        optimizer.step()

    def batches() -> Iterator[Any]:
        while True:
            yield from loader

    return len(paths[: asked.batch]) / seconds_per_step(step, batches(), len(loader), device)


def speed(paths: list[str], asked: argparse.Namespace) -> list[str]:
    """Measure the speed, record it, and return the missed goals."""
    with tempfile.TemporaryDirectory() as folder:
        runs: dict[str, tuple[Callable[..., float], Any]] = {
            "fit": (fit_speed, paths),
            "lightly": (lightly_speed, paths),
            "decoder": (decoder_speed, paths),
            **{kind: (fit_speed, pack_images(paths, kind, folder=folder)) for kind in ("pixels", "jpeg")},
            "array": (array_speed, paths),
        }
        found: dict[str, list[float]] = {name: [] for name in runs}
        for _, (name, (function, X)) in itertools.product(range(asked.rounds), list(runs.items())):
            if name in found:
                try:
                    found[name].append(run_in_process(function, X, asked))
                except ImportError as error:
                    print(f"{name} is skipped: {error}")
                    del found[name]
    rows = []
    for name, rates in found.items():
        ratios = [ours / theirs for ours, theirs in zip(found["fit"], rates, strict=True)]
        row = {"run": name, "backbone": asked.backbone, "side": asked.side, "batch": asked.batch}
        row |= {"precision": asked.precision, "images": len(paths), "rounds": len(rates)}
        row |= {"images_per_second": statistics.median(rates), "fit_is_faster_by": statistics.median(ratios)}
        rows.append({**row, "lowest": min(ratios), "highest": max(ratios)})
    record("photographs", rows, asked.results)
    return shortfalls(found)


def shortfalls(found: dict[str, list[float]]) -> list[str]:
    """Return the missed goals of the speed, with what the steps alone allow."""
    missed = []
    for goal, least in GOALS.items():
        ours, theirs = goal.split(", of ")
        if ours not in found or theirs not in found:
            missed.append(f"{goal}: not measured, the goal is {least:g}")
            continue
        ratio = statistics.median(a / b for a, b in zip(found[ours], found[theirs], strict=True))
        if ratio < least:
            missed.append(f"{goal}: {ratio:.2f}, the goal is {least:g}")
    if missed and {"array", "decoder"} <= found.keys():
        pairs = zip(found["fit"], found["array"], found["decoder"], strict=True)
        share = statistics.median(fit * (1 / array + 1 / decoder) for fit, array, decoder in pairs)
        missed.append(
            f"For comparison: fit takes {1 / share:.2f} times as long as the decoder and fit on arrays in turn."
        )
    return missed


# Packs.


def packs(paths: list[str], asked: argparse.Namespace) -> None:
    """Measure the sizes of packs and the time of a core for crops from them, and record both."""
    rows = []
    kinds = itertools.product(("jpeg", "pixels"), (None, asked.max_side))
    with tempfile.TemporaryDirectory() as folder:
        for kind, max_side in [("files", None), *kinds]:
            place = Path(folder) / f"{kind}-{max_side}"
            X = paths if kind == "files" else pack_images(paths, kind, max_side=max_side, folder=place)
            files = paths if kind == "files" else [file for file in place.rglob("*") if file.is_file()]
            size = sum(os.path.getsize(file) for file in files) / 1e6
            rate = run_in_process(decoder_speed, X, asked, time.process_time)
            row = {"kind": kind, "max_side": max_side or "", "side": asked.side, "images": len(paths)}
            rows.append({**row, "megabytes": size, "milliseconds": 1000 / rate})
    record("photographs_packs", rows, asked.results)


# Memory.


def fit_memory(X: Any, asked: argparse.Namespace) -> float:
    """Return the peak memory of an epoch."""
    simclr(asked, asked.side, epochs=1).fit(X)
    return peak_memory()


def memory(paths: list[str], asked: argparse.Namespace) -> list[str]:
    """Measure the memory, record it, and return a missed goal."""
    counts = [min(250, len(paths)), len(paths), *asked.repeated]
    peaks = [run_in_process(fit_memory, (paths * (n // len(paths) + 1))[:n], asked) for n in counts]
    shared = {"backbone": asked.backbone, "side": asked.side, "batch": asked.batch}
    rows = [{**shared, "images": n, "memory": peak} for n, peak in zip(counts, peaks, strict=True)]
    record("photographs_memory", rows, asked.results)
    ratio = max(peaks) / peaks[0]
    return [f"memory: grows by {ratio:.2f}, the goal is {MEMORY_GOAL:g}"] if ratio > MEMORY_GOAL else []


# Quality.


def quality(asked: argparse.Namespace) -> list[str]:
    """Train on whole pictures and on cut ones, record the accuracy, and return the missed goals."""
    (X, y), (X_test, y_test) = (load_images(asked.folder, split=split) for split in ("train", "validation"))
    cut, cut_test = (np.stack([resized(path, CUT, cut=True) for path in paths]) for paths in (X, X_test))
    runs = [("pixels", 0, 0), ("untrained", 0, 0)]
    runs += [(name, asked.epochs, seed) for seed in asked.seeds for name in ("whole", "cut")]
    for name, epochs, seed in runs:
        row: dict[str, Any] = {"run": name, "backbone": asked.backbone, "side": CUT}
        row |= {"batch": asked.batch, "seed": seed, "epochs": epochs}
        if recorded("photographs_quality", row, asked.results) and not asked.again:
            print(f"{name}, seed {seed}: already recorded")
            continue
        data = (X, y, X_test, y_test) if name in ("whole", "untrained") else (cut, y, cut_test, y_test)
        if name == "pixels":
            scores = evaluate(lambda images: images.reshape(len(images), -1) / np.float32(255), *data)
        else:
            start = time.perf_counter()
            estimator = simclr(asked, CUT, epochs=epochs, random_state=seed, **TRAINING).fit(data[0])
            row["seconds"] = time.perf_counter() - start
            scores = evaluate(estimator.transform, *data)
        record("photographs_quality", [{**row, "linear": scores["linear"], "knn": scores["knn"]}], asked.results)
    table = read("photographs_quality", asked.results).drop_duplicates(["run", "seed", "epochs"], keep="last")
    knn = table[table["epochs"].isin([0, asked.epochs])].groupby("run")["knn"].mean()
    beaten = [name for name in ("cut", "pixels") if knn["whole"] <= knn[name]]
    return [
        f"kNN, whole pictures: {knn['whole']:.3f}, the goal is more than {knn[name]:.3f} ({name})" for name in beaten
    ]


def main() -> None:
    """Run the parts, record them, and print the missed goals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=60, help="of the quality")
    parser.add_argument("--images", type=int, default=None, help="pictures of the speed and the memory (default: all)")
    parser.add_argument("--repeated", type=int, nargs="*", default=[10_000], help="further numbers for the memory")
    parser.add_argument("--side", type=int, default=128, help="of the views of the speed and the memory")
    parser.add_argument("--max-side", type=int, default=256, help="of the pictures in two of the packs")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--backbone", default="convnet")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true", help="repeat recorded trainings")
    asked = parser.parse_args()
    asked.device = str(resolve_device(asked.device))
    X, X_test = (load_images(asked.folder, split=split)[0] for split in ("train", "validation"))
    paths = [os.fspath(path) for path in [*X, *X_test]][: asked.images]
    missed = []
    if "speed" in asked.parts:
        missed += speed(paths, asked)
    if "packs" in asked.parts:
        packs(paths, asked)
    if "memory" in asked.parts:
        missed += memory(paths, asked)
    if "quality" in asked.parts:
        missed += quality(asked)
    print("\n".join(["missed goals:", *(f"  {line}" for line in missed or ["none"])]))


if __name__ == "__main__":
    main()
