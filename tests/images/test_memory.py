"""Memory-mapped files, bad images, data sets, streams and worker processes: memory, results and errors."""

from __future__ import annotations

import io
import mmap
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import quick
from helpers import Items
from PIL import Image
from sklearn.frozen import FrozenEstimator
from torch.utils.data import IterableDataset

import skssl
from skssl import BadImageWarning, SimCLR, SupCon
from skssl.datasets import make_shapes
from skssl.images import arrays, as_images, disk_cache, image_files, memory_maps, subset
from skssl.images.arrays import StoredTensor
from skssl.images.memory_maps import mapped_file_of
from skssl.training.digests import digest_images

X16, Y16 = make_shapes(24, image_size=16, random_state=1)


def everything(images: Any) -> np.ndarray:
    return images.read(torch.arange(len(images))).numpy()


def resident() -> float:
    """Return the resident memory in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS"))


on_linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux reports resident memory")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set the folder of the cache."""
    monkeypatch.setenv("SKSSL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def saved(folder: Path, X: np.ndarray = X16) -> list[str]:
    paths = [str(folder / f"{i}.png") for i in range(len(X))]
    for path, image in zip(paths, X, strict=True):
        Image.fromarray(image).save(path)
    return paths


def damage(path: str) -> None:
    with open(path, "r+b") as file:
        file.truncate(60)


# Mapped files


@on_linux
@pytest.mark.parametrize("mode", ["r", "r+", "scattered", "float16"])
def test_resident_memory_stays_small_while_a_mapped_file_is_read(mode: str, tmp_path: Path, cache: Path) -> None:
    file, n = tmp_path / "X.npy", 50_000 if mode == "float16" else 100_000
    shape, dtype = (n, 32, 32, 3), np.float16 if mode == "float16" else np.uint8
    X = np.lib.format.open_memmap(file, "w+", dtype, shape, fortran_order=mode == "scattered")
    X[::2000] = 1  # so that the file is not sparse
    del X
    X = np.load(file, mmap_mode=mode if mode.startswith("r") else "r")
    before, most = resident(), 0.0
    images = as_images(X)
    for index in torch.randperm(n, generator=torch.Generator().manual_seed(0)).split(256):
        batch = images.read(index)
        assert int(batch.sum()) == 32 * 32 * 3 * int((index % 2000 == 0).sum())
        most = max(most, resident() - before)
    assert most < 120, "the file has 300 MB"


@on_linux
def test_training_reads_a_mapped_file_in_random_order_with_little_memory(tmp_path: Path) -> None:
    n = 100_000
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.uint8, (n, 32, 32, 3))
    del X
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    images = as_images(X)
    loader = skssl.training.loader.ImageLoader(images, 512, [], torch.device("cpu"))
    before, most, order = resident(), 0.0, []
    for batch in loader.epoch(torch.Generator().manual_seed(0), torch.Generator()):
        order.append(batch.index)
        most = max(most, resident() - before)
    order = torch.cat(order).double()
    assert len(order) == n // 512 * 512
    assert len(order.unique()) == len(order)
    centred = order - order.mean()
    for lag in (1, 2, 511, 512, 1024):
        correlation = (centred[lag:] * centred[:-lag]).mean() / centred.square().mean()
        assert abs(correlation) < 5 / n**0.5
    assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 5 / n**0.5, "the order ignores the position"
    assert most < 150, "the file has 300 MB"


@pytest.mark.parametrize("dtype", ["u1", "?", "i2", "u2", "f2", "f4", "f8", ">f4", ">u2", "g"])
@pytest.mark.parametrize("how", ["plain", "backwards", "scattered", "table"])
def test_mapped_arrays_read_the_same_as_arrays_in_memory(
    dtype: str, how: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_maps, "MAX_RESIDENT", 0)  # releases the pages after every read
    monkeypatch.setattr(memory_maps, "CHUNK", 500)
    X = np.random.default_rng(0).integers(0, 2, (7, 6, 5, 3)).astype(dtype)
    stored = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", X.dtype, X.shape, fortran_order=how == "scattered")
    stored[:] = X
    X = X[::-1] if how == "backwards" else X.reshape(7, -1) if how == "table" else X
    stored = np.load(tmp_path / "X.npy", mmap_mode="r")
    stored = stored[::-1] if how == "backwards" else stored.reshape(7, -1) if how == "table" else stored
    shape = (6, 5, 3)
    there, here = as_images(stored, shape), as_images(X, shape)
    assert there._stored.file is not None
    assert (there.scale, there.shape) == (here.scale, here.shape)
    assert np.array_equal(everything(there), everything(here))
    assert everything(there).dtype == everything(here).dtype


def test_changes_to_private_and_shared_maps_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_maps, "MAX_RESIDENT", 0)
    for mode in ("c", "r+"):
        np.save(tmp_path / "X.npy", X16)
        X = np.load(tmp_path / "X.npy", mmap_mode=mode)
        X[3] = 7
        images = as_images(X)
        for _ in range(3):
            assert (everything(images)[3] == 7).all()
        assert (X[3] == 7).all()
        assert bool((np.load(tmp_path / "X.npy")[3] == 7).all()) == (mode == "r+")


def test_mapped_files_are_found_without_numpy_memmap(tmp_path: Path) -> None:
    (tmp_path / "X").write_bytes(X16.tobytes())
    with open(tmp_path / "X", "r+b") as file:
        for access, private in ((mmap.ACCESS_READ, False), (mmap.ACCESS_COPY, True)):
            view = np.frombuffer(mmap.mmap(file.fileno(), 0, access=access), np.uint8).reshape(X16.shape)
            found = mapped_file_of(view[2:])
            assert found is not None
            assert np.array_equal(everything(as_images(view)), everything(as_images(X16)))
            if private:
                assert found._advice is None
    assert mapped_file_of(X16) is None
    assert mapped_file_of(np.memmap(tmp_path / "X", np.uint8, "r")[[1, 2]]) is None, "a copy"
    assert [len(part) for part in StoredTensor.from_numpy(X16).chunks()] == [24]


def test_nan_in_a_mapped_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_maps, "CHUNK", 1)
    X = X16 / 255
    X[17, 3, 3] = np.nan
    np.save(tmp_path / "X.npy", X)
    with pytest.raises(ValueError, match="NaN, infinity or a value too large for float32, first in sample 17"):
        as_images(np.load(tmp_path / "X.npy", mmap_mode="r"))


def test_training_on_mapped_images_is_bit_identical_and_they_have_a_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_maps, "MAX_RESIDENT", 0)
    np.save(tmp_path / "X.npy", X16)
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert np.array_equal(quick(SimCLR).fit(X).transform(X), quick(SimCLR).fit(X16).transform(X16))
    assert digest_images(X) == digest_images(np.load(tmp_path / "X.npy", mmap_mode="c"))
    assert digest_images(X) != digest_images(X[:20])


def test_only_small_mapped_files_are_moved_to_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "X.npy", X16)
    images = as_images(np.load(tmp_path / "X.npy", mmap_mode="r"))
    assert images.to("meta")._stored.tensor.is_meta
    monkeypatch.setattr(arrays, "MAX_IN_MEMORY", 0)
    moved = images.to("meta")
    assert not moved._stored.tensor.is_meta
    assert moved.read(torch.arange(3)).is_meta


# Files


@pytest.mark.parametrize("in_memory", [2**30, 0])
def test_bad_files_are_skipped_with_one_warning(
    in_memory: int, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "MAX_IN_MEMORY", in_memory)
    paths = saved(tmp_path)
    damage(paths[0])
    damage(paths[5])
    paths[9] = str(tmp_path / "missing.png")
    kept = np.delete(np.arange(24), [0, 5, 9])
    for image_shape in (None, (16, 16), (16, 16, 3)):
        for _ in range(2):  # the second time, from the cache
            with pytest.warns(BadImageWarning) as caught:
                images = as_images(paths, image_shape, on_bad_image="skip")
            assert len(caught) == 1
            assert str(caught[0].message).startswith("3 of the 24 images in X cannot be read and were left out.")
            assert "Sample 0 of X, the file" in str(caught[0].message)
            assert np.array_equal(everything(images), X16[kept].transpose(0, 3, 1, 2))
            assert np.flatnonzero(images.kept).tolist() == kept.tolist()
        with pytest.raises(ValueError, match=r"Sample \d of X, the file .* cannot be read"):
            as_images(paths, image_shape)


def test_labels_of_skipped_images_are_dropped(tmp_path: Path) -> None:
    paths = saved(tmp_path)
    damage(paths[2])
    with pytest.warns(BadImageWarning, match="1 of the 24"):
        skipped = quick(SupCon, on_bad_image="skip").fit(paths, Y16)
    kept = np.delete(np.arange(24), 2)
    clean = quick(SupCon).fit(X16[kept], Y16[kept])
    assert np.array_equal(skipped.transform(X16), clean.transform(X16))
    with (
        pytest.warns(BadImageWarning),
        pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[24, 23\]"),
    ):
        quick(SupCon, on_bad_image="skip").fit(paths, Y16[kept])
    with pytest.raises(ValueError, match="Sample 2 of X, the file"):
        skipped.transform(paths)
    with pytest.warns(BadImageWarning, match="1 of the 24"):
        skipped.partial_fit(paths, Y16)


class Untrained(skssl.SimCLR):
    def losses(self, net: Any, batch: Any) -> Any:
        raise AssertionError("the training has begun")


def test_fit_transform_refuses_bad_images_before_the_training(tmp_path: Path) -> None:
    skipping = {"backbone": "convnet", "epochs": 1, "batch_size": 8, "on_bad_image": "skip", "image_shape": (16, 16)}
    paths = saved(tmp_path)
    rows = "fit_transform returns a row for each image"
    damage(paths[2])
    damage(paths[7])
    with pytest.raises(ValueError, match=rf"2 of the 24 images in X cannot be read, but {rows}.* The first: Sample 2 "):
        Untrained(**skipping).fit_transform(paths)
    with pytest.raises(ValueError, match=r"^Sample 2 of X, the file .*2\.png.* cannot be read as an image"):
        Untrained(backbone="convnet").fit_transform(paths)
    with pytest.raises(
        ValueError, match=rf"1 of the 4 images in X cannot be read, but {rows}.* The first: Item 1 of X"
    ):
        Untrained(**skipping).fit_transform(iter([X16[0], b"no image", X16[1], X16[2]]))
    for i, name in enumerate(("whole.jpg", "cut.jpg")):
        Image.fromarray(np.kron(X16[i], np.ones((4, 4, 1), np.uint8))).save(tmp_path / name)
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:-100])  # with a whole header
    photographs = [tmp_path / "whole.jpg", tmp_path / "cut.jpg"]
    with pytest.raises(ValueError, match=rf"^{rows}, so it skips none\. Sample 1 of X, .*cut\.jpg.* cannot be read"):
        Untrained(**skipping).fit_transform(photographs)
    items = Items([*X16[:5], OSError("gone"), *X16[6:]])
    with pytest.raises(
        ValueError, match=rf"^{rows}, so it skips none\. Item 5 of the data set X cannot be read: .*gone"
    ):
        Untrained(**skipping).fit_transform(items)


def test_fit_transform_reads_images_once(tmp_path: Path) -> None:
    X = X16[:8]
    expected = quick(SimCLR).fit(X).transform(X)
    for form in (iter(X), Items(X)):
        assert np.array_equal(quick(SimCLR, on_bad_image="skip").fit_transform(form), expected)
    frame = quick(SimCLR).set_output(transform="pandas").fit_transform(saved(tmp_path, X))
    assert frame.columns[0] == "simclr0"
    assert np.array_equal(frame, expected)


def test_training_needs_two_images() -> None:
    fitted = quick(SimCLR).fit(X16)
    for X in (X16[:1], Items(X16[:1]), [Image.fromarray(X16[0])], iter(X16[:1])):
        with pytest.raises(ValueError, match=r"X has 1 sample\(s\), while a minimum of 2 is required by SimCLR"):
            fitted.partial_fit(X)
    student = FrozenEstimator(fitted)
    teacher = skssl.FineTuner(student, epochs=1, batch_size=24).fit(X16, Y16)
    with pytest.raises(ValueError, match=r"X must have at least 2 images to train on, since BatchNorm .* Got 1 image"):
        skssl.Distiller(FrozenEstimator(teacher), student, epochs=1).fit(X16[:1])


@pytest.mark.parametrize("in_memory", [2**30, 0])
def test_only_bad_images_are_refused(
    in_memory: int, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "MAX_IN_MEMORY", in_memory)
    paths = saved(tmp_path)[:3]
    for path in paths:
        damage(path)
    for image_shape in (None, (8, 8, 3)):
        with pytest.raises(ValueError, match=r"None of the 3 images in X can be read\. The first error: Sample 0"):
            as_images(paths, image_shape, on_bad_image="skip")
    with pytest.raises(
        ValueError, match=r"None of the 2 items of the data set X can be read\. The first error: Item 0"
    ):
        as_images(Items([OSError("gone")] * 2), on_bad_image="skip")
    with pytest.raises(
        ValueError, match=r"1 sample\(s\) that can be read, of 3, .*minimum of 2.* The first error: Item 1 of X"
    ):
        as_images(iter([X16[0], None, b"no image"]), on_bad_image="skip")
    assert not cache.exists() or not [path for path in cache.rglob("*") if path.is_file()], "no file remains"


@on_linux
def test_reading_many_paths_takes_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "inspect_image", lambda picture, name: ("L", (1, 1)))
    monkeypatch.setattr(image_files, "decode_image", lambda *args: np.zeros((1, 1, 1), np.uint8))
    paths = [str(tmp_path / f"{i:06}.png") for i in range(200_000)]
    before = resident()
    images = as_images(paths)
    assert len(images) == len(paths)
    assert resident() - before < 40


@on_linux
def test_resident_memory_stays_small_while_photographs_are_read(tmp_path: Path) -> None:
    for i in range(2):
        Image.fromarray(np.full((600, 700 + i, 3), 9 + i, np.uint8)).save(tmp_path / f"{i}.bmp")
    for i in range(200):  # 250 MB of pixels
        (tmp_path / f"link{i:03}.bmp").symlink_to(tmp_path / f"{i % 2}.bmp")
    images = as_images(sorted(map(str, tmp_path.glob("link*"))), (32, 32), n_jobs=2)
    before, most = resident(), 0.0
    for index, batch in images.batches(torch.arange(200).split(10)):
        assert batch[:, 0, 0, 0].tolist() == (9 + index % 2).tolist()
        most = max(most, resident() - before)
    assert most < 80


# Data sets


def test_items_of_every_kind_are_read(tmp_path: Path) -> None:
    png = io.BytesIO()
    Image.fromarray(X16[0]).save(png, "PNG")
    Image.fromarray(X16[0]).save(tmp_path / "0.png")
    picture = Image.fromarray(X16[0])
    chw = torch.from_numpy(X16[0]).permute(2, 0, 1)
    for item in (
        picture,
        (picture, 3),
        {"label": 3, "image": picture},
        {"label": 3, "img": X16[0]},
        {"label": np.zeros(2), "scan": picture},
        {"image": {"bytes": png.getvalue(), "path": None}},  # Hugging Face's, with decode=False
        {"image": {"bytes": None, "path": str(tmp_path / "0.png")}},
        {"__key__": "0", "png": png.getvalue(), "cls": b"3"},  # WebDataset's, before decode()
        ({"image": chw}, 3),
        png.getvalue(),
        chw,
    ):
        for X in (Items([item] * 3), iter([item] * 3)):
            assert np.array_equal(everything(as_images(X)), X16[[0, 0, 0]].transpose(0, 3, 1, 2)), item


class HuggingFace:
    """A stand-in for `datasets.Dataset`: no torch Dataset, with columns and items that are dicts."""

    column_names = ["image", "label"]

    def __init__(self, X: np.ndarray) -> None:
        self.X = X

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.X), 2

    def __len__(self) -> int:
        return len(self.X)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, str):
            return [row[i] for row in self]
        return {"image": Image.fromarray(self.X[i]), "label": 0}

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[i] for i in indices]

    def to_list(self) -> list[Any]:
        raise AssertionError("all at once")


class HuggingFaceStream:
    """A stand-in for `datasets.IterableDataset`: no length and no indices."""

    def __init__(self, X: np.ndarray) -> None:
        self.X = X

    def __iter__(self) -> Any:
        return ({"image": Image.fromarray(x), "label": 0} for x in self.X)


class WebStream(IterableDataset):
    """A stand-in for a WebDataset pipeline after decode("pil").to_tuple("png", "cls")."""

    def __init__(self, X: np.ndarray) -> None:
        self.X = X

    def __iter__(self) -> Any:
        return ((Image.fromarray(x), 0) for x in self.X)


@pytest.mark.parametrize("form", [HuggingFace, HuggingFaceStream, WebStream, iter, lambda X: map(Image.fromarray, X)])
def test_training_on_data_sets_and_streams_is_bit_identical(form: Any, cache: Path) -> None:
    fitted = quick(SimCLR).fit(form(X16))
    assert np.array_equal(fitted.transform(form(X16)), quick(SimCLR).fit(X16).transform(X16))
    assert not cache.exists() or not list(cache.iterdir()), "the file of a stream is unnamed"


def test_iterator_of_paths_is_read_as_a_list(tmp_path: Path) -> None:
    saved(tmp_path)
    assert len(as_images(tmp_path.glob("*.png"))) == 24


def test_bad_items_of_streams_are_named(cache: Path) -> None:
    def breaking() -> Any:
        yield from X16[:3]
        raise ConnectionError("the line is dead")

    with pytest.raises(
        ValueError, match=r"Item 3 of X and all after it cannot be read: ConnectionError: the line is dead"
    ):
        as_images(breaking(), on_bad_image="skip")
    with pytest.raises(ValueError, match=r"Item 2 of X is a Tensor .*\(3, 16, 8\), but item 0 has the shape"):
        as_images(iter([X16[0], X16[1], X16[2][:, :8]]))
    with pytest.raises(ValueError, match=r"Item 1 of X cannot be read as an image: .*No such file or directory: 'no'"):
        as_images(iter([X16[0], "no"]))
    with pytest.raises(ValueError, match="Item 0 of X has floats from 0 to 255"):
        as_images(iter([np.linspace(0, 255, 256).reshape(16, 16)] * 2))
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        as_images(iter([]))
    with pytest.raises(TypeError, match="can be read only once"):
        subset(iter(X16), np.arange(3))
    with pytest.warns(
        BadImageWarning, match="2 of the 6 images in X cannot be read and .* The first: Item 1 of X is None"
    ):
        images = as_images(iter([X16[0], None, X16[1] / 255 * np.nan, *X16[2:5]]), on_bad_image="skip")
    assert images.kept.tolist() == [True, False, False, True, True, True]
    assert np.array_equal(everything(images), X16[[0, 2, 3, 4]].transpose(0, 3, 1, 2))


@on_linux
def test_resident_memory_stays_small_while_a_stream_is_read(cache: Path) -> None:
    before, most = resident(), 0.0

    def stream() -> Any:
        nonlocal most
        for i in range(1500):
            most = max(most, resident() - before)
            yield np.full((256, 256, 3), i % 256, np.uint8)  # 300 MB

    images = as_images(stream())
    assert most < 60
    assert images.read(torch.tensor([1030]))[0, 0, 0, 0] == 1030 % 256


def test_full_disk_is_reported(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk_cache.tempfile, "TemporaryFile", lambda dir: Full())
    with pytest.raises(OSError, match=r"has no room for them. Set the environment variable SKSSL_CACHE"):
        as_images(iter(X16))


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_bad_items_of_a_data_set_are_replaced_by_the_next(n_jobs: int | None) -> None:
    items = [(image, 0) for image in X16]
    items[3], items[4], items[23], items[0] = OSError("gone"), None, (b"cut", 0), b"no image"
    bad = Items(items)
    with pytest.raises(ValueError, match="Item 0 of the data set X cannot be read as an image"):
        as_images(bad)
    with pytest.raises(ValueError, match="Item 1 of the data set X cannot be read: OSError: gone"):
        everything(as_images(Items([X16[0], items[3]])))
    images = as_images(bad, on_bad_image="skip", n_jobs=n_jobs)
    with pytest.warns(BadImageWarning, match=r"4 of the 24 images in X .* and were replaced") as caught:
        read = list(images.batches([torch.tensor([2, 3, 4]), torch.tensor([23, 22, 0])]))
    images.close()
    assert len([warning for warning in caught if issubclass(warning.category, BadImageWarning)]) == 1
    assert [index.tolist() for index, _ in read] == [[2, 5, 5], [1, 22, 1]]
    for index, batch in read:
        assert np.array_equal(batch, X16[index].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_in_a_subset_the_next_image_of_the_subset_replaces_a_bad_one(n_jobs: int | None) -> None:
    items = [(image, 0) for image in X16]
    items[3], items[23] = OSError("gone"), None
    subset = as_images(Items(items), on_bad_image="skip", n_jobs=n_jobs).take(torch.tensor([9, 3, 7, 1, 23]))
    part = subset.take(torch.tensor([1, 3]))
    with pytest.warns(BadImageWarning, match="2 of the 24 images in X cannot be read"):
        read = list(subset.batches([torch.tensor([0, 1, 2]), torch.tensor([4, 3])]))
    read_part = list(part.batches([torch.tensor([0, 1])]))
    subset.close()
    part.close()
    assert [index.tolist() for index, _ in read + read_part] == [[0, 2, 2], [0, 3], [1, 1]]
    for (_, batch), of in zip(read + read_part, ([9, 7, 7], [9, 1], [1, 1]), strict=True):
        assert np.array_equal(batch, X16[of].transpose(0, 3, 1, 2))


def test_float_items_outside_the_unit_interval_are_bad(cache: Path) -> None:
    items = list(X16 / 255)
    items[1], items[2] = items[1] + np.nan, items[2] * 255
    with pytest.raises(ValueError, match="Item 1 of the data set X has floats from nan to nan"):
        everything(as_images(Items(items)))
    images = as_images(Items(items), on_bad_image="skip")
    with pytest.warns(BadImageWarning, match="2 of the 24 images"):
        ((index, batch),) = images.batches([torch.tensor([0, 1, 2, 3])])
    assert index.tolist() == [0, 3, 3, 3]
    np.testing.assert_allclose(batch, (X16[[0, 3, 3, 3]] / 255).transpose(0, 3, 1, 2), atol=1e-6)


# Worker processes


@pytest.fixture
def workers() -> Callable[[], set[Any]]:
    """Return the running processes that the test has started; joblib keeps those of other tests."""
    others = set(multiprocessing.active_children())
    return lambda: set(multiprocessing.active_children()) - others


def test_n_jobs_does_not_change_results(workers: Callable[[], set[Any]]) -> None:
    trained = []
    for n_jobs in (None, 1, 2):
        state = torch.random.get_rng_state()
        trained.append(quick(SimCLR, n_jobs=n_jobs, epochs=2).fit(Items(X16)).transform(Items(X16)))
        assert torch.equal(state, torch.random.get_rng_state())
        assert not workers(), "they stop with the training"
    assert np.array_equal(trained[0], trained[1])
    assert np.array_equal(trained[0], trained[2])


def test_worker_processes_read_and_stop_on_close(workers: Callable[[], set[Any]]) -> None:
    class Who(Items):
        def __getitem__(self, i: int) -> Any:
            return torch.full((1, 2, 2), os.getpid() % 251 / 255)

    images = as_images(Who(X16), n_jobs=2)
    read = torch.cat([batch for _, batch in images.batches(torch.arange(24).split(4))])
    first = workers()
    again = torch.cat([batch for _, batch in images.batches(torch.arange(24).split(4))])
    assert workers() == first, "they keep running between epochs"
    images.close()
    assert not workers()
    assert len(read.unique()) == len(again.unique()) == 2
    assert os.getpid() % 251 / 255 not in read.unique().tolist()
    images.close()


def test_errors_of_items_stop_the_worker_processes_and_are_one_line(workers: Callable[[], set[Any]]) -> None:
    items = list(X16)
    items[7] = OSError("gone")
    with pytest.raises(ValueError, match=r"^Item 7 of the data set X cannot be read: OSError: gone$"):
        quick(SimCLR, n_jobs=2, batch_size=8).fit(Items(items))
    assert not workers()


def test_ctrl_c_stops_the_worker_processes(workers: Callable[[], set[Any]]) -> None:
    class Interrupted(skssl.SimCLR):
        def losses(self, net: Any, batch: Any) -> Any:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        Interrupted(backbone="convnet", epochs=1, batch_size=8, n_jobs=2, random_state=0).fit(Items(X16))
    assert not workers()


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"on_bad_image": "ignore"}, "'on_bad_image' parameter of SimCLR must be a str among"),
        ({"n_jobs": 0}, "'n_jobs' parameter of SimCLR must be"),
        ({"n_jobs": 1.5}, "'n_jobs' parameter of SimCLR must be"),
    ],
)
def test_parameters_are_validated_before_images_are_read(params: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        quick(SimCLR, **params).fit(Items([OSError("gone")] * 3))
