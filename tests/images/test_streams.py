"""Tests of streams of pictures in sizes of their own."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import quick
from PIL import Image
from torch.utils.data import IterableDataset

from skssl import Augmentation, BadImageWarning, SimCLR
from skssl.images import as_images, packed
from skssl.images.arrays import MemoryImages
from skssl.images.photographs import Crops, Photographs

SIZES = [(40, 60), (60, 40), (33, 33), (90, 35), (50, 51), (52, 53)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set the folder of the cache."""
    monkeypatch.setenv("SKSSL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(height: int, width: int, seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def pictures() -> list[Image.Image]:
    return [picture(*size, seed=i) for i, size in enumerate(SIZES)]


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


class Stream(IterableDataset):
    """A stand-in for a WebDataset pipeline."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


FORMS: dict[str, Callable[[list[Image.Image]], Any]] = {
    "generator": lambda pictures: (image for image in pictures),
    "tuples": lambda pictures: Stream([(image, 3) for image in pictures]),
    "encoded": lambda pictures: Stream([{"__key__": str(i), "png": png(image)} for i, image in enumerate(pictures)]),
    "dicts": lambda pictures: ({"label": 3, "image": image} for image in pictures),
}


def plan(sizes: torch.Tensor) -> list[Crops]:
    return [Augmentation(size=24).draw_crops(sizes, (1, 1), torch.Generator().manual_seed(0), n_views=2)]


@pytest.mark.parametrize("form", FORMS)
def test_streams_of_mixed_sizes_are_photographs(form: str, pictures: list[Image.Image]) -> None:
    images, expected = as_images(FORMS[form](pictures)), as_images(pictures)
    assert isinstance(images, Photographs)
    assert isinstance(expected, Photographs)
    assert images.sizes.tolist() == [list(size) for size in SIZES]  # type: ignore[attr-defined]
    assert images.shape == expected.shape
    assert images.guessed
    index = torch.arange(6)
    assert torch.equal(images.read_crops(index, plan)[0], expected.read_crops(index, plan)[0])
    assert torch.equal(images.read(index), expected.read(index))
    assert torch.equal(pickle.loads(pickle.dumps(images)).read(index), expected.read(index))


def test_training_on_a_stream_is_that_on_a_list_whatever_n_jobs(pictures: list[Image.Image], cache: Path) -> None:
    encoder = quick(SimCLR, augment=Augmentation(size=16), batch_size=3)
    expected = encoder.fit(pictures).transform(pictures)
    for n_jobs in (1, 2):
        encoder.set_params(n_jobs=n_jobs).fit(iter(pictures))
        np.testing.assert_array_equal(encoder.transform(iter(pictures)), expected)
    assert not list(cache.iterdir()), "the file of a stream is unnamed"


def test_streams_of_one_size_are_arrays_unless_another_size_is_asked_for() -> None:
    pictures = [picture(20, 30, i) for i in range(4)]
    expected = np.stack([np.asarray(image) for image in pictures]).transpose(0, 3, 1, 2)
    images = as_images(iter(pictures))
    assert isinstance(images, MemoryImages)
    np.testing.assert_array_equal(images.read(torch.arange(4)), expected)
    assert isinstance(as_images(iter(pictures), (20, 30)), MemoryImages)
    assert isinstance(as_images(iter(pictures), whole=True), Photographs)
    resized = as_images(iter(pictures), (16, 16))
    assert isinstance(resized, Photographs)
    assert torch.equal(resized.read(torch.arange(4)), as_images(pictures, (16, 16)).read(torch.arange(4)))
    cropped = as_images(iter(pictures), (16, 16), whole=False)  # as for models of skssl 0.1.0
    assert torch.equal(cropped.read(torch.arange(4)), as_images(pictures, (16, 16), whole=False).read(torch.arange(4)))


@pytest.mark.parametrize("sizes", [SIZES, [(20, 30)] * 4])
def test_channels_are_those_of_the_whole_stream(sizes: list[tuple[int, int]]) -> None:
    pictures = [picture(*size, seed=i) for i, size in enumerate(sizes)]
    pictures[0] = pictures[0].convert("L")
    index = torch.arange(len(sizes))
    images = as_images(iter(pictures))
    assert images.shape[0] == 3
    assert torch.equal(images.read(index), as_images(pictures).read(index))
    assert images.read(index[:1]).float().std(1).max() == 0
    assert images.read(index[1:]).float().std(1).mean() > 10
    gray = [image.convert("L") for image in pictures]
    assert as_images(iter(gray)).shape[0] == 1
    for shape in ((1, 16, 16), (3, 16, 16), (4, 16, 16)):
        asked = as_images(iter(pictures), shape)
        assert asked.shape == shape
        assert torch.equal(asked.read(index), as_images(pictures, shape).read(index))


def test_bad_items(pictures: list[Image.Image]) -> None:
    items = [None, png(pictures[0]), png(pictures[1])[:500], np.zeros((8, 8, 3), np.uint8), *map(png, pictures[2:])]
    with pytest.raises(ValueError, match="Item 1 of X cannot be read as an image"):
        as_images(iter(items[1:]))
    with pytest.raises(TypeError, match=r"Item 1 of X is ndarray .*, but the items before it are pictures of 8 bits"):
        as_images(iter([items[1], items[3]]))
    with pytest.warns(
        BadImageWarning, match="3 of the 8 images in X cannot be read and .* The first: Item 0 of X is None"
    ):
        images = as_images(iter(items), on_bad_image="skip")
    assert images.kept is not None
    assert np.flatnonzero(images.kept).tolist() == [1, 4, 5, 6, 7]
    expected = as_images([pictures[0], *pictures[2:]], images.shape[1:])
    assert torch.equal(images.read(torch.arange(5)), expected.read(torch.arange(5)))


def test_full_disk_is_reported(pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(packed.tempfile, "TemporaryFile", lambda dir: Full())
    with pytest.raises(OSError, match=r"has no room for them. Set the environment variable SKSSL_CACHE"):
        as_images(iter(pictures))


def test_numbers_of_more_than_eight_bits_are_kept() -> None:
    numbers = np.random.default_rng(0).integers(0, 4096, (4, 10, 12)).astype(np.uint16)
    deep = [Image.fromarray(image) for image in numbers]
    for X in (deep, map(png, deep), numbers, numbers.astype(np.int64)):
        images = as_images(iter(X))
        assert images.scale == (numbers.min(), numbers.max())
        expected = (numbers - numbers.min()) / np.float32(numbers.max() - numbers.min())
        np.testing.assert_allclose(images.read(torch.arange(4))[:, 0], expected, atol=1e-6)
    shallow = Image.fromarray((numbers[0] / 257).round().astype(np.uint8))
    images = as_images(iter([shallow, *deep]))
    assert images.scale is None
    np.testing.assert_array_equal(images.read(torch.tensor([0]))[0, 0], images.read(torch.tensor([1]))[0, 0])
    with pytest.raises(TypeError, match="but the items before it are pictures of more than 8 bits"):
        as_images(iter([*deep, shallow]))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux reports resident memory")
def test_resident_memory_stays_small_while_a_stream_is_read_and_cropped() -> None:
    def resident() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS"))

    pair = [Image.new("RGB", (1000, 900), (7, 0, 0)), Image.new("RGB", (900, 1000), (8, 0, 0))]
    before, most = resident(), 0.0
    images = as_images((pair[i % 2] for i in range(100)), (24, 24), n_jobs=1)
    for index, batch in images.batches(torch.arange(100).split(10)):
        assert (batch[:, 0] == 7 + index[:, None, None] % 2).all()
        most = max(most, resident() - before)
    assert most < 120, "the file has 270 MB"
