"""Tests of data sets whose items are pictures in sizes of their own."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Items
from PIL import Image
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder

from skssl import Augmentation, BadImageWarning
from skssl.images import as_images
from skssl.images.dataset_items import DatasetImages
from skssl.images.dataset_photographs import DatasetPhotographs
from skssl.images.photographs import Crops, Photographs
from skssl.training import loader
from skssl.training.loader import ImageLoader

SIZES = [(40, 60), (60, 40), (30, 30), (80, 33), (28, 90)] * 4  # more than a process holds at once


def smooth(height: int, width: int, seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("pictures")
    for i, size in enumerate(SIZES):
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        smooth(*size, seed=i).save(folder / "ab"[i % 2] / f"{i:02}.jpg", quality=95)
    return sorted(map(str, folder.rglob("*.jpg")))


def photographs(X: Any, **options: Any) -> Photographs:
    images = as_images(X, **{"size": (16, 16), **options})
    assert isinstance(images, Photographs)
    assert images.lazy == isinstance(images, DatasetPhotographs) == isinstance(X, Dataset)
    return images


def epoch(images: Any, done: int = 0, **options: Any) -> list[Any]:
    """Return batches whose views are crops, without changes of colour."""
    large, small = (Augmentation(size=size, jitter=0.0, gray=0.0, flip=0.0) for size in (16, 8))
    made = ImageLoader(images, 8, [large, small, large], torch.device("cpu"), **options)
    batches = list(made.epoch(torch.Generator().manual_seed(1), torch.Generator().manual_seed(2), done=done))
    images.close()
    return batches


def assert_same_batches(first: list[Any], second: list[Any]) -> None:
    assert len(first) == len(second) > 0
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one.index, two.index)
        assert torch.equal(one.images, two.images)
        assert all(map(torch.equal, one.views, two.views))


def opened(path: str) -> Image.Image:
    with Image.open(path) as pil:
        return pil.convert("RGB")


FORMS = {
    "PIL": lambda path: (opened(path), 1),
    "bytes": lambda path: Path(path).read_bytes(),
    "path": lambda path: [path, "a"],
    "Hugging Face": lambda path: {"label": 3, "image": opened(path)},
    "Hugging Face, not decoded": lambda path: {"image": {"bytes": Path(path).read_bytes(), "path": None}},
    "Hugging Face, as files": lambda path: {"image": {"bytes": None, "path": path}},
}


@pytest.mark.parametrize("form", FORMS)
def test_views_are_those_of_a_list(paths: list[str], form: str) -> None:
    items = [FORMS[form](path) for path in paths]
    listed = list(map(opened, paths)) if "PIL" in form or form == "Hugging Face" else paths
    expected = photographs(listed)
    images = photographs(Items(items))
    assert images.shape == expected.shape
    assert_same_batches(epoch(images), epoch(expected))
    index = torch.tensor([19, 3, 3])
    for resize in (256 / 224, None):
        ours, theirs = (of.still((20, 24), resize, "bilinear").read(index) for of in (images, expected))
        assert torch.equal(ours, theirs)


def test_an_image_folder_with_a_loader_of_its_own(paths: list[str]) -> None:
    folder = str(Path(paths[0]).parents[1])
    images = photographs(ImageFolder(folder, loader=opened))
    assert_same_batches(epoch(images), epoch(photographs(list(map(opened, paths)))))
    assert not isinstance(photographs([*paths]), DatasetPhotographs)


def test_views_do_not_depend_on_worker_processes(paths: list[str]) -> None:
    maps = torch.rand(len(paths), 4, 4, generator=torch.Generator().manual_seed(0))
    X = Items([(path, 0) for path in paths])

    def views(n_jobs: int | None) -> list[Any]:
        images = photographs(X, n_jobs=n_jobs)
        made = ImageLoader(images, 8, [Augmentation(size=16, saliency=maps)] * 2, torch.device("cpu"))
        batches = list(made.epoch(torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)))
        images.close()
        return batches

    assert_same_batches(views(None), views(2))
    for n_jobs in (None, 2):
        assert_same_batches(epoch(photographs(X, n_jobs=n_jobs), done=1), epoch(photographs(X))[1:])
    images = photographs(X, n_jobs=2)
    still = list(images.batches(torch.arange(20).split(6)))
    images.close()
    assert torch.equal(torch.cat([batch for _, batch in still]), images.read(torch.arange(20)))


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_shares_of_two_processes_make_up_the_batch(
    paths: list[str], n_jobs: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = Items(paths)
    whole = epoch(photographs(X))
    monkeypatch.setattr(loader, "n_processes", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(loader, "local_rows", lambda x, rank=rank: x.chunk(2)[rank])
        shares.append(epoch(photographs(X, n_jobs=n_jobs)))
    for batch, first, second in zip(whole, *shares, strict=True):
        assert torch.equal(batch.index, torch.cat((first.index, second.index)))
        assert torch.equal(batch.images, torch.cat((first.images, second.images)))
        for view, *halves in zip(batch.views, first.views, second.views, strict=True):
            assert torch.equal(view, torch.cat(halves))


def test_only_pictures_of_several_sizes_are_photographs(paths: list[str]) -> None:
    same = Items([(smooth(24, 32, i), 0) for i in range(40)])
    images = as_images(same)
    assert isinstance(images, DatasetImages)
    assert images.shape == (3, 24, 32)
    for options in ({"image_shape": (24, 32)}, {"size": (24, 32)}):
        images = as_images(same, **options)
        assert isinstance(images, DatasetImages)
        assert images.shape == (3, 24, 32)
    for options in ({"image_shape": (16, 16)}, {"size": (16, 16)}):
        images = as_images(same, **options)
        assert isinstance(images, DatasetPhotographs)
        assert (images.shape, images.guessed) == ((3, 16, 16), False)
    images = as_images(Items([smooth(100, 40 + i, i) for i in range(31)]))
    assert isinstance(images, Photographs)
    assert (images.shape, images.guessed) == ((3, 54, 54), True)  # the median of the sides 40, 42, ..., 70
    assert isinstance(as_images(same, reset=False, shape=(3, 24, 32), whole=True), DatasetPhotographs)
    arrays = Items(np.zeros((3, 8, 8, 3), np.uint8))
    assert isinstance(as_images(arrays, size=(4, 4)), DatasetImages)


def test_a_picture_of_another_size_behind_the_inspected_ones(paths: list[str]) -> None:
    items = [(smooth(24, 32, i), 0) for i in range(40)]
    items[1] = smooth(24, 33, 0), 0
    with pytest.raises(ValueError, match=r"Item 1 of .* image_shape=\(h, w\) or Augmentation\(size=...\) reads PIL"):
        as_images(Items(items)).read(torch.arange(3))
    assert as_images(Items(items), size=(24, 32)).read(torch.arange(3)).shape == (3, 3, 24, 32)
    assert as_images(Items(items), size=(16, 16)).read(torch.arange(3)).shape == (3, 3, 16, 16)


@pytest.mark.parametrize("sides", [(24, 24), (24, 30)])
def test_a_gray_picture_at_the_head_of_a_data_set(sides: tuple[int, int]) -> None:
    items = [smooth(24, sides[i % 2], i).convert("L") if i in (0, 1) else smooth(24, sides[i % 2], i) for i in range(8)]
    images = as_images(Items(items))
    assert images.shape[0] == 3
    assert torch.equal(images.read(torch.tensor([0]))[0, 0], images.read(torch.tensor([0]))[0, 2])
    gray = [item.convert("L") for item in items] * 5
    assert as_images(Items(gray)).shape[0] == 1
    gray[1] = items[7]  # not among the inspected ones
    images = as_images(Items(gray), on_bad_image="skip")
    with pytest.raises(ValueError, match=r"Item 1 of the data set X is .*image_shape=\(h, w, 3\)"):
        images.read(torch.arange(2))
    for channels in (1, 3):
        images = as_images(Items(gray), (24, 24, channels))
        assert images.read(torch.arange(2)).shape == (2, channels, 24, 24)


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_bad_items_are_replaced_by_the_next(paths: list[str], n_jobs: int | None) -> None:
    items: list[Any] = [Path(path).read_bytes() for path in paths]
    items[4], items[9], items[14], items[19] = OSError("gone"), items[9][:700], np.zeros((8, 8, 3)), b"no image"
    with pytest.raises(ValueError, match="Item 19 of the data set X cannot be read as an image"):
        photographs(Items(items))
    images = photographs(Items([*items[:19], items[0]]), n_jobs=n_jobs)
    for i, message in ((4, "cannot be read: OSError: gone"), (9, "cannot be read as an image.*truncated")):
        with pytest.raises(ValueError, match=f"^Item {i} of the data set X {message}"):
            list(images.batches([torch.tensor([2, i])]))
    with pytest.raises(TypeError, match=r"Item 14 of the data set X is ndarray .* Return items of one kind"):
        list(images.batches([torch.tensor([14])]))
    images.close()
    images = photographs(Items(items), on_bad_image="skip", n_jobs=n_jobs)
    plan = [(torch.tensor([3, 4, 9, 19, 14]), WholePictures())]
    with pytest.warns(BadImageWarning, match="4 of the 20 images in X .* replaced by the next readable ones") as caught:
        ((index, (crops,), _),) = images.crops(plan)
    assert len(caught) == 1
    images.close()
    assert index.tolist() == [3, 5, 10, 0, 15]
    ((_, (expected,), _),) = photographs(paths).crops([(index, WholePictures())])
    assert torch.equal(crops, expected)
    part = images.take(torch.tensor([4, 7]))
    ((index, _, _),) = part.crops([(torch.tensor([0, 1]), WholePictures())])
    part.close()
    assert index.tolist() == [1, 1]


class WholePictures:
    """A plan that can be pickled."""

    def __call__(self, sizes: torch.Tensor) -> list[Crops]:
        return [Crops(torch.cat((torch.zeros_like(sizes), sizes), 1).double()[None], (8, 8))]


def test_subsets_and_pickles(paths: list[str]) -> None:
    images = photographs(Items(paths))
    everything = images.read(torch.arange(20))
    taken = images.take(torch.tensor([5, 1, 1])).take(torch.tensor([2, 0]))
    assert torch.equal(taken.read(torch.arange(2)), everything[[1, 5]])
    assert torch.equal(pickle.loads(pickle.dumps(taken)).read(torch.arange(2)), everything[[1, 5]])


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64, bool])
def test_integer_items_are_scaled_by_their_range(dtype: Any, n_jobs: int | None) -> None:
    X = np.random.default_rng(0).integers(0, 2 if dtype is bool else 4096, (6, 8, 10)).astype(dtype)
    of_arrays = as_images(X)
    images = as_images(Items(X), n_jobs=n_jobs)
    assert (images.shape, images.scale) == ((1, 8, 10), of_arrays.scale)
    assert torch.equal(images.read(torch.arange(6)), of_arrays.read(torch.arange(6)))
    tensors = Items([torch.from_numpy(x) for x in X])
    assert torch.equal(as_images(tensors).read(torch.arange(6)), of_arrays.read(torch.arange(6)))
    half = as_images(Items(X[:3]), shape=images.shape, scale=images.scale, reset=False)
    assert torch.equal(half.read(torch.arange(3)), of_arrays.read(torch.arange(3)))


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("mixed", [False, True])
def test_pictures_of_more_than_eight_bits_keep_their_numbers(
    mixed: bool, dtype: Any, n_jobs: int | None, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{i}.tif" for i in range(20)]
    for i, path in enumerate(paths):
        pixels = np.random.default_rng(i).integers(0, 4096, (20, 24 + (mixed and i % 3)))
        Image.fromarray(pixels.astype(dtype)).save(path)
    listed, images = as_images(paths), as_images(Items(paths), n_jobs=n_jobs)
    assert isinstance(images, DatasetPhotographs) == mixed
    assert (images.shape, images.scale) == (listed.shape, listed.scale)
    index = torch.arange(20)
    assert torch.equal(images.read(index), listed.read(index))
    assert torch.equal(torch.cat([batch for _, batch in images.batches(index.split(7))]), listed.read(index))
    assert_same_batches(epoch(images), epoch(listed))
    like: Any = {"shape": listed.shape, "scale": (0.0, 9.0), "whole": mixed, "reset": False}
    some = paths[5:7]
    assert torch.equal(as_images(Items(some), **like).read(index[:2]), as_images(some, **like).read(index[:2]))


@pytest.mark.parametrize("place", [1, 4])  # 4 is not inspected
def test_pictures_of_eight_and_of_more_bits(place: int) -> None:
    deep = Image.fromarray(np.random.default_rng(0).random((20, 24), np.float32))
    items = [deep] * 20
    items[place] = smooth(20, 24, 0).convert("L")
    with pytest.raises(ValueError, match=f"Item {place} of the data set X.* holds 8.bit"):
        as_images(Items(items))
    items = [smooth(20, 24, 0)] * 20
    items[place] = deep
    with pytest.raises(ValueError, match=f"Item {place} of the data set X.* holds floats, but"):
        as_images(Items(items)).read(torch.arange(20))


def test_complex_items_are_refused() -> None:
    with pytest.raises(TypeError, match="Item 0 of the data set X is Tensor of complex64"):
        as_images(Items([torch.zeros(1, 4, 4, dtype=torch.complex64)] * 2))


def test_encoded_items_are_decoded_at_reduced_scale(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    smooth(400, 640, 0).save(buffer, "JPEG", quality=95)
    smooth(401, 640, 0).save(tmp_path / "a.jpg", quality=95)
    items = [buffer.getvalue(), tmp_path / "a.jpg"]
    boxes = torch.tensor([[[0, 0, 400, 640], [0, 0, 401, 640]]], dtype=torch.float64)
    plan = [(torch.arange(2), lambda sizes: [Crops(boxes, (16, 16))])]
    ((_, (ours,), _),) = photographs(Items(items)).crops(plan)
    (tmp_path / "b.jpg").write_bytes(items[0])
    ((_, (theirs,), _),) = photographs([tmp_path / "b.jpg", items[1]]).crops(plan)
    assert torch.equal(ours, theirs)
