"""Digests of images: what they see."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from skssl.images import as_images
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
