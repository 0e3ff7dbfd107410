"""Digests of images: what they see."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from skssl.datasets import pack_images
from skssl.images import as_images, photographs
from skssl.training import digests
from skssl.training.digests import digest_images, digest_training


class Estimator:
    """An estimator without parameters."""

    def get_params(self, deep=True):
        return {}


def digest_of(X):
    return digest_training(Estimator(), as_images(X), None)["X"]


@pytest.mark.parametrize("layout", ["first", "last"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_digest_of_a_training_sees_every_value(layout, dtype, monkeypatch):
    monkeypatch.setattr(digests, "CHUNK", 500)
    shape = (20, 3, 8, 8) if layout == "first" else (20, 8, 8, 3)
    X = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    X[0].flat[:2] = 0, 255  # the range of the floats stays
    first = digest_of(X)
    assert digest_of(X.copy()) == digest_of(torch.from_numpy(X)) == first
    for place in np.random.default_rng(1).choice(np.arange(2, X.size), 40, replace=False):
        changed = X.copy()
        changed.flat[place] = 255 - changed.flat[place]
        assert digest_of(changed) != first
    assert digest_of(X[::-1].copy()) != first


def test_the_digest_of_a_mapped_file_is_that_of_the_array(tmp_path):
    X = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "X.npy", X)
    assert digest_of(np.load(tmp_path / "X.npy", mmap_mode="r")) == digest_of(X)


class Items(torch.utils.data.Dataset):
    def __init__(self, n):
        self.n, self.read = n, set()

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.read.add(i)
        return torch.full((3, 8, 8), i, dtype=torch.uint8)


def test_the_digest_of_a_data_set_reads_a_sample(monkeypatch):
    monkeypatch.setattr(digests, "SAMPLED", 5 * 3 * 8 * 8)
    items = Items(100)
    digest_of(items)
    assert items.read == {0, 24, 49, 74, 99}


@pytest.mark.parametrize("form", ["paths", "bytes", "PIL images", "pack"])
def test_the_digest_of_photographs_sees_each_picture_without_decoding_it(form, tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "SAMPLED", 0)
    monkeypatch.setattr(digests, "LEAST", 300)

    def digest_of_files(changed=None, folder="a", order=range(5)):
        (tmp_path / folder).mkdir(exist_ok=True)
        paths = [tmp_path / folder / f"{i}.bmp" for i in range(5)]
        for i, path in enumerate(paths):
            pixels = np.full((40, 30 + i % 2, 3), i, np.uint8)
            pixels[19:21, :10] += i == changed  # 60 of 3,600 bytes
            Image.fromarray(pixels).save(path)
        paths = [paths[i] for i in order]
        opened = [Image.fromarray(np.asarray(Image.open(path))) for path in paths]
        make = {
            "paths": lambda: paths,
            "bytes": lambda: [path.read_bytes() for path in paths],
            "PIL images": lambda: opened,
        }
        X = make[form]() if form != "pack" else pack_images(opened, "pixels", folder=tmp_path / "packs")
        images = as_images(X, (16, 16))
        with monkeypatch.context() as patched:
            patched.setattr(photographs, "cut_picture", None)
            return digest_training(Estimator(), images, None)["X"]

    before = digest_of_files()
    assert digest_of_files(folder="moved") == before
    others = [digest_of_files(changed) for changed in range(5)] + [digest_of_files(order=[2, 1, 0, 3, 4])]
    assert len({before, *others}) == 7


def test_a_file_replaced_at_equal_size_and_time_has_another_digest(tmp_path):
    paths = [tmp_path / f"{i}.bmp" for i in range(3)]
    for i, path in enumerate(paths):
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(path)
    before, status = digest_images(paths), os.stat(paths[1])
    assert digest_images(paths) == before
    Image.fromarray(np.full((8, 8, 3), 99, np.uint8)).save(paths[1])
    os.utime(paths[1], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (os.stat(paths[1]).st_size, os.stat(paths[1]).st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert digest_images(paths) != before
