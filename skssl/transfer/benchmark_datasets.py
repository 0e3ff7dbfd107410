"""The named data sets of `transfer_table`: their metrics, and how their splits are loaded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Subset

from skssl.datasets import connection_timeout, load_images
from skssl.images.labels import as_labels
from skssl.transfer.annotations import AnnotatedObject, read_objects

SPLITS = ("train", "val", "test")

#: A sequence of (image, label). Images are decoded when they are indexed.
Pairs = Any
#: From the name, the data home, whether to download, and a generator to the splits by name.
Loader = Callable[[str, Path, bool, np.random.RandomState], dict[str, Pairs]]


def _torchvision_dataset(name: str, kind: str, home: Path, download: bool, **options: Any) -> Any:
    """Return torchvision's data set, of paths instead of decoded images where possible; download it if allowed."""
    from torchvision import datasets

    make = getattr(datasets, kind)
    if "loader" in inspect.signature(make).parameters:
        options["loader"] = str
    root = home / "torchvision"
    try:
        try:
            return make(root, download=False, **options)
        except (OSError, RuntimeError):
            if not download:
                raise
        with connection_timeout():
            return make(root, download=True, **options)
    except (OSError, RuntimeError, ValueError) as error:
        tried = "its download failed" if download else "download=False"
        raise FileNotFoundError(f"{name!r} was not found in {str(root)!r}, and {tried}: {error}") from error


def _load_cifar(name: str, home: Path, download: bool, rng: np.random.RandomState) -> dict[str, Pairs]:
    """Load CIFAR from where `load_images` finds it."""
    parts = {split: load_images(name, split, data_home=home, download=download) for split in ("train", "test")}
    return {split: list(zip(X, as_labels(y).tolist(), strict=True)) for split, (X, y) in parts.items()}


def _load_splits(kind: str, *options: dict[str, Any]) -> Loader:
    """Return a loader of a data set that torchvision splits in two or three; `options` select each split."""

    def load(name: str, home: Path, download: bool, rng: np.random.RandomState) -> dict[str, Pairs]:
        splits = SPLITS if len(options) == 3 else ("train", "test")
        return {
            split: _torchvision_dataset(name, kind, home, download, **of)
            for split, of in zip(splits, options, strict=True)
        }

    return load


def _draw_splits(kind: str, n_train: int, n_test: int | None) -> Loader:
    """Return a loader that draws a number of images of each class for each split; None is all that are left."""

    def load(name: str, home: Path, download: bool, rng: np.random.RandomState) -> dict[str, Pairs]:
        data = _torchvision_dataset(name, kind, home, download)
        if hasattr(data, "y"):  # Caltech101, which would decode the images to return the labels
            labels = np.asarray(data.y)
        else:
            data = sorted(data[i] for i in range(len(data)))  # the file system's order varies
            labels = np.array([label for _, label in data])
        orders = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
        return {
            "train": Subset(data, [i for order in orders for i in order[:n_train].tolist()]),
            "test": Subset(data, [i for order in orders for i in order[n_train:][:n_test].tolist()]),
        }

    return load


def _load_voc2007(name: str, home: Path, download: bool, rng: np.random.RandomState) -> dict[str, Pairs]:
    """Load VOC2007, with labels 1 (present), 0 (absent) or -1 (all objects of the class are difficult)."""
    parts = {}
    for split in SPLITS:
        data = _torchvision_dataset(name, "VOCDetection", home, download, year="2007", image_set=split)
        parts[split] = [(file, read_objects(of)) for file, of in zip(data.images, data.annotations, strict=True)]
    names = sorted({thing.name for _, things in parts["train"] for thing in things})

    def labels_of(objects: Sequence[AnnotatedObject]) -> list[int]:
        present = {thing.name for thing in objects}
        certain = {thing.name for thing in objects if not thing.difficult}
        return [1 if name in certain else -1 if name in present else 0 for name in names]

    return {split: [(file, labels_of(objects)) for file, objects in pairs] for split, pairs in parts.items()}


_THREE_SPLITS = ({"split": "train"}, {"split": "val"}, {"split": "test"})
_TWO_SPLITS = ({"split": "train"}, {"split": "test"})

#: The metric and the loader of each data set.
BENCHMARK_DATASETS: dict[str, tuple[str, Loader]] = {
    "caltech101": ("mean per class", _draw_splits("Caltech101", 30, None)),
    "cifar10": ("accuracy", _load_cifar),
    "cifar100": ("accuracy", _load_cifar),
    "dtd": ("accuracy", _load_splits("DTD", *_THREE_SPLITS)),
    "fgvcaircraft": ("mean per class", _load_splits("FGVCAircraft", *_THREE_SPLITS)),
    "flowers102": ("mean per class", _load_splits("Flowers102", *_THREE_SPLITS)),
    "food101": ("accuracy", _load_splits("Food101", *_TWO_SPLITS)),
    "oxfordiiitpet": ("mean per class", _load_splits("OxfordIIITPet", {"split": "trainval"}, {"split": "test"})),
    "stanfordcars": ("accuracy", _load_splits("StanfordCars", *_TWO_SPLITS)),
    "sun397": ("accuracy", _draw_splits("SUN397", 50, 50)),
    "voc2007": ("11-point mAP", _load_voc2007),
}
