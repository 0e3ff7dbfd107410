"""Tests of packs: pictures in their own sizes in one mapped file."""

from __future__ import annotations

import errno
import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import quick
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from torchvision.datasets import ImageFolder

from skssl import Augmentation, BadImageWarning, SimCLR
from skssl.datasets import PackedImages, pack_images
from skssl.images import as_images, disk_cache, packing, subset
from skssl.images.arrays import MemoryImages
from skssl.images.image_files import ORIENTATION
from skssl.images.packed import open_pack
from skssl.images.photographs import Crops, Photographs
from skssl.training.digests import digest_images

SIZES = [(90, 120), (120, 90), (70, 70), (140, 81), (65, 150), (99, 98)]
GRAY = 4  # the index of a grey picture among them


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set the folder of the cache."""
    monkeypatch.setenv("SKSSL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "packed"


def smooth(height: int, width: int, seed: int) -> Image.Image:
    """Return an RGB picture that JPEG hardly changes, with some detail."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Write pictures of several sizes: JPEGs, two of them PNGs, one grey, one on its side."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    for i, size in enumerate(SIZES):
        (tmp_path / "files" / str(i % 2)).mkdir(parents=True, exist_ok=True)
        picture = smooth(*size, seed=i)
        picture = picture.convert("L") if i == GRAY else picture
        how = {"exif": exif} if i == 1 else {}
        picture.save(tmp_path / "files" / str(i % 2) / f"{i}.{'png' if i in (2, GRAY) else 'jpg'}", quality=95, **how)
    return sorted(map(str, (tmp_path / "files").rglob("*.*")))


def crops_of(images: Any, side: int = 24) -> list[torch.Tensor]:
    """Return random crops of all images, and their still views."""
    assert isinstance(images, Photographs)

    def plan(sizes: torch.Tensor) -> list[Crops]:
        generator = torch.Generator().manual_seed(0)
        return [Augmentation(size=side).draw_crops(sizes, (1, 1), generator, n_views=2)]

    index = torch.arange(len(images))
    return [*images.read_crops(index, plan), images.still((side, side), 256 / 224, "bilinear").read(index)]


@pytest.mark.parametrize("kind", ["jpeg", "pixels"])
def test_crops_from_packs_are_those_from_files(paths: list[str], kind: str) -> None:
    packed = pack_images(paths, kind)
    assert isinstance(packed, PackedImages)
    images, files = as_images(packed), as_images(paths)
    assert torch.equal(torch.from_numpy(packed.sizes), files.sizes)  # type: ignore[attr-defined]
    assert images.shape == files.shape == (3, 81, 81)
    assert images.guessed  # type: ignore[attr-defined]
    side = 24 if kind == "pixels" else 40
    views, still = crops_of(images, side)
    views_of_files, still_of_files = crops_of(files, side)
    lossless = [i for i, path in enumerate(paths) if kind == "pixels" or path.endswith("jpg")]
    both = [*lossless, *(i + len(paths) for i in lossless)]
    assert torch.equal(views[both], views_of_files[both])
    assert torch.equal(still[lossless], still_of_files[lossless])
    assert (views.int() - views_of_files.int()).abs().float().mean() < 2


def test_forms_of_pictures(paths: list[str], tmp_path: Path) -> None:
    expected = crops_of(as_images(pack_images(paths, "pixels")))
    folder = ImageFolder(str(tmp_path / "files"))
    opened = [Image.open(path) for path in paths]
    for X in (
        tuple(map(Path, paths)),
        np.array(paths),
        folder,
        opened,
        [io.BytesIO(Path(path).read_bytes()) for path in paths],
    ):
        packed = pack_images(X, "pixels")
        assert all(map(torch.equal, crops_of(as_images(packed)), expected))
        assert pack_images(X, "pixels").path == packed.path
    assert len(pack_images(str(tmp_path / "files"))) == len(paths)
    again = pack_images(pack_images(paths), "jpeg")
    assert [bytes(item.data()) for item in again] == [bytes(item.data()) for item in pack_images(paths)]
    for X in (np.zeros((3, 8, 8, 3), np.uint8), iter(opened), [1, 2]):
        with pytest.raises(TypeError, match="X is "):
            pack_images(X)


def test_jpegs_keep_their_bytes_unless_they_are_resized(paths: list[str]) -> None:
    packed, small = pack_images(paths), pack_images(paths, max_side=100)
    for path, item, other in zip(paths, packed, small, strict=True):
        given = Path(path).read_bytes()
        assert (bytes(item.data()) == given) == path.endswith("jpg")
        assert item.open().format == other.open().format == "JPEG"
        assert (bytes(other.data()) == given) == (path.endswith("jpg") and max(SIZES[int(Path(path).stem)]) <= 100)
    coarse = pack_images(paths, max_side=100, quality=10)
    assert coarse.path.stat().st_size < small.path.stat().st_size


@pytest.mark.parametrize("kind", ["jpeg", "pixels"])
def test_max_side_resizes_with_antialiasing(paths: list[str], kind: str) -> None:
    packed = pack_images(paths, kind, max_side=75)
    for path, item, (height, width) in zip(paths, packed, packed.sizes.tolist(), strict=True):
        turned = "1.jpg" in path
        with Image.open(path) as opened:
            given = opened.transpose(Image.Transpose.ROTATE_270) if turned else opened.copy()
        scale = min(1.0, 75 / max(given.size))
        assert (height, width) == (round(given.height * scale), round(given.width * scale))
        assert item.open().size == (width, height)
        expected = np.asarray(given.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
        difference = np.abs(np.asarray(item.open()) - expected)
        assert difference.mean() < (8 if kind == "jpeg" else 0.01)
    large = smooth(28, 37, 0).resize((1200, 896))
    large.save(paths[0], quality=95)  # is decoded at reduced scale
    pixels = np.asarray(pack_images(paths[:1], kind, max_side=75)[0].open()).astype(int)
    difference = np.abs(pixels - np.asarray(large.resize((75, 56), Image.Resampling.BICUBIC)))
    assert difference.mean() < (8 if kind == "jpeg" else 2)


def test_gray_pictures_keep_one_channel(paths: list[str]) -> None:
    packed = pack_images(paths, "pixels")
    gray = [i for i, path in enumerate(paths) if f"{GRAY}.png" in path]
    assert np.flatnonzero(packed.channels == 1).tolist() == gray
    assert packed.path.stat().st_size < 1000 + sum(h * w * (1 if i == GRAY else 3) for i, (h, w) in enumerate(SIZES))
    assert as_images(packed[gray], reset=False).shape[0] == 1
    for channels in (1, 4):  # Pillow converts whole pictures
        made = crops_of(as_images(packed, (channels, 30, 30)))
        assert all(map(torch.equal, made, crops_of(as_images(paths, (channels, 30, 30)))))
    assert (made[0][:, 3] == 255).all()


def test_subsets_items_and_pickles(paths: list[str]) -> None:
    packed = pack_images(paths, "pixels")
    expected = crops_of(as_images([paths[4], paths[1]]))
    mask = np.array([False, True, False, False, True, False])
    for X in (
        packed[[4, 1]],
        packed[4:0:-3],
        [packed[4], packed[1]],
        packed[1:][[3, 0]],
        subset(packed, np.array([4, 1])),
        pickle.loads(pickle.dumps(packed[[4, 1]])),
        [pickle.loads(pickle.dumps(packed[i])) for i in (4, 1)],
        packed[mask][::-1],
    ):
        assert len(X) == 2
        assert all(map(torch.equal, crops_of(as_images(X)), expected))
    assert len(pickle.dumps(packed)) < 1000
    both = as_images([packed[4], paths[1]])  # from a pack and a file
    assert all(map(torch.equal, crops_of(both), expected))
    images = pickle.loads(pickle.dumps(as_images(packed)))
    assert all(map(torch.equal, crops_of(images), crops_of(as_images(packed))))
    with pytest.raises(IndexError):
        packed[6]


def test_scikit_learn_splits_packs(paths: list[str]) -> None:
    packed, y = pack_images(paths * 2, "pixels"), [0, 1, 1] * 4
    train, test = train_test_split(packed, random_state=0)
    assert len(as_images(train)) == 9
    assert len(as_images(test, reset=False)) == 3
    encoder = quick(SimCLR, augment=Augmentation(size=16), batch_size=4)
    model = make_pipeline(encoder, LogisticRegression())
    scores = cross_val_score(model, packed, y, cv=2)
    assert scores.tolist() == cross_val_score(model, paths * 2, y, cv=2).tolist()
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("kind", ["jpeg", "pixels"])
def test_training_is_that_from_files_whatever_n_jobs(paths: list[str], kind: str) -> None:
    jpegs = [path for path in paths if path.endswith("jpg")]
    encoder = quick(SimCLR, augment=Augmentation(size=32), batch_size=4)
    expected = encoder.fit_transform(jpegs)
    for n_jobs in (1, 2):
        found = encoder.set_params(n_jobs=n_jobs).fit_transform(pack_images(jpegs, kind))
        np.testing.assert_array_equal(found, expected)


def test_packs_are_found_again_and_changed_files_are_packed_anew(
    paths: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pack_images(paths, "pixels")
    assert first.path.parent == cache
    assert len({pack_images(paths, *how).path for how in (("jpeg",), ("pixels",))}) == 2
    others = [{"max_side": 50}, {"quality": 50}, {"folder": cache.parent / "elsewhere"}]
    assert len({pack_images(paths, **how).path for how in others}) == 3  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        patch.setattr(packing, "_write", lambda *args: pytest.fail("it is written again"))
        assert pack_images(paths, "pixels").path == first.path
        assert pack_images(paths, "pixels", quality=50).path == first.path, "pixels have no quality"
    smooth(50, 60, 9).save(paths[0])
    assert pack_images(paths, "pixels").sizes[0].tolist() == [50, 60]
    assert first.sizes[0].tolist() == [90, 120]
    assert digest_images(first) == digest_images(pickle.loads(pickle.dumps(first)))
    assert digest_images(first) != digest_images(pack_images(paths, "pixels"))
    assert digest_images(first) != digest_images(first[:3])


@pytest.mark.parametrize("where", ["cut", "index", "description", "empty", "text"])
def test_damaged_packs_are_written_anew(paths: list[str], where: str) -> None:
    packed = pack_images(paths, "pixels")
    expected, content = crops_of(as_images(packed)), bytearray(packed.path.read_bytes())
    start = int(packed.pack.index[-1, :2].sum())
    if where == "cut":
        content = content[:-1000] + content[-16:]
    elif where in ("index", "description"):
        content[start + 3 if where == "index" else -20] ^= 1
    else:
        content = bytearray() if where == "empty" else bytearray(b"no pack, but a text of some length")
    packed.path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged, or no pack"):
        open_pack(packed.path)
    with pytest.warns(UserWarning, match="The pictures are packed anew"):
        found = pack_images(paths, "pixels")
    assert all(map(torch.equal, crops_of(as_images(found)), expected))


def test_full_disk_is_refused_before_pictures_are_decoded(
    paths: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, offset: int, n_bytes: int) -> None:
        assert n_bytes == sum(h * w * (1 if i == GRAY else 3) for i, (h, w) in enumerate(SIZES))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(packing, "_picture", lambda *args: pytest.fail("it is decoded"))
    monkeypatch.setattr(disk_cache.os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"0\.0 GB, but .* has no room for them\. Set the parameter folder"):
        pack_images(paths, "pixels")
    assert not list(cache.iterdir())


def test_disk_that_fills_up_is_reported(paths: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(packing.PackWriter, "add", full)
    with pytest.raises(OSError, match="has no room for them"):
        pack_images(paths)
    assert not list(cache.iterdir())


def test_pil_images_are_told_apart_by_all_that_changes_their_pixels() -> None:
    gray = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    palettes, turned = [gray.copy() for _ in range(2)], gray.copy()
    for k, image in enumerate(palettes):
        image.putpalette(np.roll(np.repeat(np.arange(256), 3), k).astype(np.uint8).tobytes())
    turned.getexif()[ORIENTATION] = 6
    packs = [pack_images([image], "pixels") for image in (gray, *palettes, turned)]
    assert len({pack.path for pack in packs}) == 4
    for pack, image in zip(packs, (gray, *palettes, gray.transpose(Image.Transpose.ROTATE_270)), strict=True):
        np.testing.assert_array_equal(np.asarray(pack[0].open().convert("RGB")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["jpeg", "pixels"])
def test_bad_pictures(paths: list[str], kind: str, cache: Path) -> None:
    Path(paths[0]).write_bytes(Path(paths[0]).read_bytes()[:1500])  # the size is known, the rest is missing
    Path(paths[2]).write_text("no image")
    with pytest.raises(ValueError, match=r"Sample \d of X, the file .* cannot be read as an image"):
        pack_images(paths, kind)
    assert not list(cache.glob("*"))
    for _ in range(2):  # the second time, from the cache
        with pytest.warns(
            BadImageWarning, match="2 of the 6 images in X cannot be read and .* The first: Sample 0 of X"
        ):
            packed = pack_images(paths, kind, on_bad_image="skip")
        assert len(packed) == 4
        assert packed.kept is not None
        assert packed.kept.tolist() == [False, True, False, True, True, True]
    assert packed[:2].kept is None
    with pytest.raises(ValueError, match="Sample 0 of X, the file"):
        pack_images(paths, kind)
    with (
        Image.open(paths[0]) as opened,
        pytest.raises(ValueError, match="Sample 0 of X cannot be read as an image"),
    ):
        pack_images([opened], kind)
    with pytest.raises(ValueError, match="None of the 1 images in X can be read"):
        pack_images(paths[2:3], kind, on_bad_image="skip")


def test_pictures_of_more_than_eight_bits_are_refused(tmp_path: Path) -> None:
    for name, size in (("a", 8), ("b", 9)):
        Image.fromarray(np.ones((8, size), np.uint16)).save(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match="The images in X hold more than 8 bits a value, which a pack does not keep"):
        pack_images([tmp_path / "a.png", tmp_path / "b.png"])


def test_parameters_are_checked() -> None:
    for params, match in (
        ({"kind": "png"}, "Unknown kind 'png'"),
        ({"max_side": 0}, "max_side must be at least 1. Got 0"),
        ({"quality": 101}, "quality must be from 1 to 100. Got 101"),
        ({"on_bad_image": "ignore"}, "Unknown on_bad_image 'ignore'"),
    ):
        with pytest.raises(ValueError, match=match):
            pack_images(["a.png"], **params)  # type: ignore[arg-type]


def test_pixels_of_one_size_are_a_mapped_array(tmp_path: Path) -> None:
    pictures = [smooth(40, 30, i) for i in range(5)]
    packed = pack_images(pictures, "pixels")
    array = np.stack([np.asarray(picture) for picture in pictures]).transpose(0, 3, 1, 2)
    images = as_images(packed)
    assert isinstance(images, MemoryImages)
    assert images._stored.file is not None
    np.testing.assert_array_equal(images.read(torch.arange(5)), array)
    part = as_images(packed[[3, 1]])
    assert not isinstance(part, Photographs)
    np.testing.assert_array_equal(part.read(torch.arange(2)), array[[3, 1]])
    gray = as_images(packed[1:], (40, 30, 1))
    assert isinstance(gray, MemoryImages)
    assert torch.equal(gray.read(torch.arange(4)), as_images(pictures[1:], (40, 30, 1)).read(torch.arange(4)))
    mixed = as_images(pack_images([pictures[0].convert("L"), *pictures[1:]], "pixels"))
    assert isinstance(mixed, MemoryImages)
    np.testing.assert_array_equal(mixed.read(torch.arange(1, 5)), array[1:])
    assert mixed.read(torch.tensor([0])).float().std(1).max() == 0
    for how in ({"image_shape": (20, 20)}, {"whole": True}):
        assert isinstance(as_images(packed, **how), Photographs)  # type: ignore[arg-type]
    assert isinstance(as_images(pack_images(pictures)), Photographs)
    resized = as_images(packed, (20, 20), whole=False)  # as for models of skssl 0.1.0
    assert torch.equal(resized.read(torch.arange(5)), as_images(pictures, (20, 20), whole=False).read(torch.arange(5)))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux reports resident memory")
def test_resident_memory_stays_small_while_a_pack_is_written_and_read(tmp_path: Path) -> None:
    def resident() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS"))

    paths = [str(tmp_path / f"{i}.ppm") for i in range(100)]
    Image.new("RGB", (1000, 900), (7, 0, 0)).save(tmp_path / "0.ppm")
    Image.new("RGB", (900, 1000), (8, 0, 0)).save(tmp_path / "1.ppm")
    for i in range(2, 100):
        os.link(paths[i % 2], paths[i])
    before, most = resident(), 0.0
    images = as_images(pack_images(paths, "pixels"), (24, 24), n_jobs=1)
    for index, batch in images.batches(torch.arange(100).split(10)):
        assert (batch[:, 0] == 7 + index[:, None, None] % 2).all()
        most = max(most, resident() - before)
    assert most < 120, "the file has 270 MB"
