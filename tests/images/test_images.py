from __future__ import annotations

import errno
import io
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import quick
from helpers import Items
from PIL import Image, PngImagePlugin
from sklearn.base import BaseEstimator
from torch.utils.data import Dataset, Subset, TensorDataset

from skssl import BadImageWarning, SimCLR
from skssl.images import as_images, disk_cache, image_files
from skssl.images.arrays import MemoryImages
from skssl.images.image_files import decode_image, decode_images, inspect_image

RNG = np.random.default_rng(0)
NHWC = RNG.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
NCHW = np.ascontiguousarray(NHWC.transpose(0, 3, 1, 2))
GRAY = RNG.integers(0, 256, (6, 8, 10), dtype=np.uint8)


def everything(images: Any) -> np.ndarray:
    return images.read(torch.arange(len(images))).numpy()


def read(*args: Any, **kwargs: Any) -> np.ndarray:
    return everything(as_images(*args, **kwargs))


def save(folder: Path, images: np.ndarray, ending: str = ".png") -> list[str]:
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}{ending}")
    return [str(folder / f"{i}{ending}") for i in range(len(images))]


# Arrays


@pytest.mark.parametrize(
    "X",
    [
        NHWC,
        NCHW,
        np.asfortranarray(NHWC),
        NHWC[::-1][::-1],
        torch.from_numpy(NHWC),
        torch.from_numpy(NHWC).permute(0, 3, 1, 2),
        torch.from_numpy(NCHW),
        list(NHWC),
        tuple(NCHW),
        list(torch.from_numpy(NCHW)),
        NHWC.tolist(),
        [(image, 1) for image in torch.from_numpy(NCHW)],
    ],
    ids=lambda X: type(X).__name__,
)
def test_layouts_of_colour_images_read_the_same(X: Any) -> None:
    images = as_images(X)
    assert (len(images), images.shape) == (6, (3, 8, 8))
    batch = images.read(torch.tensor([4, 0, 4])).numpy()
    if images.scale is None:
        assert batch.dtype == np.uint8
        np.testing.assert_array_equal(batch, NCHW[[4, 0, 4]])
    else:  # nested lists are of int64
        low, high = NCHW.min(), NCHW.max()
        np.testing.assert_allclose(batch, (NCHW[[4, 0, 4]] - low) / (high - low), atol=1e-6)


def test_gray_images_get_a_channel_axis() -> None:
    np.testing.assert_array_equal(read(GRAY), GRAY[:, None])


def test_memory_maps_and_read_only_arrays_are_not_copied(tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", NHWC)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    fixed = NHWC.copy()
    fixed.flags.writeable = False
    for X in (mapped, fixed):
        images = as_images(X)
        np.testing.assert_array_equal(everything(images), NCHW)
        assert images._stored.tensor.data_ptr() == X.__array_interface__["data"][0]


@pytest.mark.parametrize("X", [NHWC, NCHW, GRAY, NHWC[:, :5], NCHW.astype(np.float32), NHWC.reshape(6, -1)])
def test_arrays_are_not_copied(X: np.ndarray) -> None:
    shape = (8, 8, 3) if X.ndim == 2 else None
    assert np.shares_memory(as_images(X, shape)._stored.tensor.numpy(), X)


def test_batches_are_copies_in_the_memory_format_of_the_images() -> None:
    X = NHWC.astype(np.float32)
    images = as_images(X)
    batch = images.read(torch.tensor([0, 1]))
    assert batch.permute(0, 2, 3, 1).is_contiguous()
    batch.zero_()
    np.testing.assert_array_equal(X, NHWC)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.int8, ">f4", object])
def test_numbers_other_than_uint8_are_mapped_to_the_unit_interval(dtype: Any) -> None:
    X = (GRAY // 2).astype(dtype)
    images = as_images(X)
    low, high = float((GRAY // 2).min()), float((GRAY // 2).max())
    assert images.scale == (low, high)
    batch = everything(images)
    assert batch.dtype == np.float32
    assert (batch.min(), batch.max()) == (0, 1)
    np.testing.assert_allclose(batch[:, 0], (GRAY // 2 - low) / (high - low), atol=1e-6)


def test_bool_images_become_zero_and_one() -> None:
    np.testing.assert_array_equal(read(GRAY > 100)[:, 0], GRAY > 100)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int32])
def test_tensors_of_other_dtypes(dtype: torch.dtype) -> None:
    X = torch.from_numpy(GRAY // 2).to(dtype)
    np.testing.assert_array_equal(read(X, scale=(0.0, 1.0))[:, 0], GRAY // 2)


def test_tensors_that_need_a_gradient_are_detached() -> None:
    assert not as_images(torch.rand(3, 8, 8, requires_grad=True)).read(torch.tensor([0])).requires_grad


def test_training_scale_applies_to_test_data_without_clipping() -> None:
    train = as_images(np.linspace(2, 4, 32).reshape(2, 4, 4))
    test = as_images(np.full((1, 4, 4), 5.0), reset=False, shape=train.shape, scale=train.scale)
    assert float(test.read(torch.tensor([0])).max()) == 1.5


def test_constant_images_are_mapped_to_zero() -> None:
    np.testing.assert_array_equal(read(np.full((2, 4, 4), 7.0)), 0)


def test_to_keeps_shape_scale_length_and_values() -> None:
    for X in (NHWC, NHWC.astype(float), TensorDataset(torch.from_numpy(NCHW))):
        images = as_images(X)
        moved = images.to("cpu")
        assert (moved.shape, moved.scale, len(moved)) == (images.shape, images.scale, len(images))
        np.testing.assert_array_equal(everything(moved), everything(images))
    meta = as_images(NHWC).to("meta").read(torch.tensor([0, 1], device="meta"))
    assert (meta.device.type, meta.shape) == ("meta", (2, 3, 8, 8))
    lazy = as_images(TensorDataset(torch.from_numpy(NCHW))).to("meta").read(torch.tensor([0, 1]))
    assert (lazy.device.type, lazy.shape) == ("meta", (2, 3, 8, 8))


# The axis of the channels

LAYOUTS = {  # shape: axis of the channels, or None if it is ambiguous
    (3, 32, 32): 0,
    (32, 32, 3): 2,
    (1, 28, 28): 0,
    (28, 28, 1): 2,
    (4, 8, 8): 0,
    (8, 8, 4): 2,
    (7, 32, 32): 0,  # the remaining axes form a square
    (32, 32, 7): 2,
    (1, 1, 5): 2,
    (5, 1, 1): 0,
    (1, 1, 1): 2,
    (3, 20, 30): 0,  # no square, but one size is 3
    (20, 30, 3): 2,
    (20, 30, 1): 2,
    (4, 3, 3): 0,  # the remaining axes form a square, and the size is 4
    (3, 3, 4): 2,
    (3, 3, 5): None,  # five channels of 3x3, or three of 3x5
    (5, 3, 3): None,
    (4, 4, 9): None,
    (20, 30, 5): None,
    (3, 30, 4): None,
    (1, 20, 1): None,
    (3, 3, 3): None,
    (8, 8, 8): None,
}


@pytest.mark.parametrize(("shape", "axis"), LAYOUTS.items())
def test_channel_axis_is_found_or_ambiguous(shape: tuple[int, int, int], axis: int | None) -> None:
    X = np.arange(2 * np.prod(shape), dtype=np.float32).reshape(2, *shape)
    flat = X.reshape(2, -1)
    if axis is None:
        with pytest.raises(ValueError, match=r"could be \(n, c, h, w\) or \(n, h, w, c\)\. Pass a torch Dataset"):
            as_images(X)
        with pytest.raises(ValueError, match=r"image_shape=.* could be \(c, h, w\) or \(h, w, c\)"):
            as_images(flat, shape)
        return
    expected = X if axis == 0 else X.transpose(0, 3, 1, 2)
    for images in (as_images(X, scale=(0, 1)), as_images(flat, shape, scale=(0, 1))):
        assert images.shape == expected.shape[1:]
        np.testing.assert_array_equal(everything(images), expected)


# Tables


@pytest.mark.parametrize(
    ("n_features", "image_shape", "shape"),
    [
        (64, None, (1, 8, 8)),
        (80, (8, 10), (1, 8, 10)),
        (80, (-1, 10), (1, 8, 10)),
        (192, (8, 8, 3), (3, 8, 8)),
        (192, (3, 8, -1), (3, 8, 8)),
        (192, (8, -1, 3), (3, 8, 8)),
        (192, [8, 8, np.int64(3)], (3, 8, 8)),
        (7, (1, 1, -1), (7, 1, 1)),
        (3, (1, 1, -1), (3, 1, 1)),
        (1, (1, 1, -1), (1, 1, 1)),
    ],
)
def test_rows_of_a_table_are_unfolded(n_features: int, image_shape: Any, shape: tuple[int, int, int]) -> None:
    X = RNG.random((3, n_features), dtype=np.float32)
    for form in (X, X.astype(float), X.tolist(), pd.DataFrame(X), torch.from_numpy(X), X.astype(object)):
        images = as_images(form, image_shape, scale=(0.0, 1.0))
        assert images.shape == shape
        expected = X.reshape(3, *shape)
        if image_shape is not None and len(image_shape) == 3 and shape[0] != image_shape[0]:
            expected = X.reshape(3, *shape[1:], shape[0]).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(everything(images), expected)


def test_tables_and_data_frames_of_uint8_keep_their_dtype() -> None:
    X = GRAY.reshape(6, -1)
    for form in (X, pd.DataFrame(X), torch.from_numpy(X)):
        np.testing.assert_array_equal(read(form, (8, 10)), GRAY[:, None])


@pytest.mark.parametrize(
    ("image_shape", "message"),
    [
        ((8, 9), r"X has 80 features, but image_shape=\(8, 9\) was expected"),
        ((7, -1), r"X has 80 features, but image_shape=\(7, -1\) was expected"),
        ((8, 10, 3), r"X has 80 features, but image_shape=\(8, 10, 3\) was expected"),
        ((-1, -1), "one of which may be -1"),
        ((0, 80), "positive integers"),
        ((80,), r"image_shape must be \(h, w\), .* Got \(80,\)"),
        (None, "X has 80 features, which is not a square number. Give the shape"),
    ],
)
def test_image_shape_must_match_the_number_of_features(image_shape: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_images(np.zeros((3, 80)), image_shape)


@pytest.mark.parametrize("image_shape", [8, "8x10", (8.0, 10)])
def test_image_shape_must_be_integers(image_shape: Any) -> None:
    with pytest.raises(TypeError, match=r"image_shape must be .* of integers\. Got "):
        as_images(np.zeros((3, 80)), image_shape)


@pytest.mark.parametrize("image_shape", [(8, 8), (8, 8, 3), (3, 8, 8), (-1, 8), (8, 8, -1)])
def test_images_that_have_image_shape_are_accepted(image_shape: tuple[int, ...]) -> None:
    for X in (NHWC, NCHW, TensorDataset(torch.from_numpy(NCHW))):
        if -1 in image_shape and isinstance(X, Dataset):
            continue
        np.testing.assert_array_equal(read(X, image_shape), NCHW)


@pytest.mark.parametrize("image_shape", [(8, 9), (1, 8, 8), (8, 8, 4), (7, -1)])
def test_images_that_lack_image_shape_are_refused(image_shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(c, h, w\) = \(3, 8, 8\), but image_shape=.* was expected"):
        as_images(NHWC, image_shape)


# The estimator


def test_estimator_attributes_are_set() -> None:
    estimator = BaseEstimator()
    as_images(pd.DataFrame(np.eye(4), columns=list("abcd")), estimator=estimator)
    assert estimator.n_features_in_ == 4
    assert list(estimator.feature_names_in_) == list("abcd")
    as_images(NHWC, estimator=estimator)
    assert estimator.n_features_in_ == 192
    assert not hasattr(estimator, "feature_names_in_")
    as_images(GRAY[:1], estimator=estimator, reset=False)
    assert estimator.n_features_in_ == 192


def test_another_number_of_features_raises_the_error_of_scikit_learn() -> None:
    estimator = BaseEstimator()
    as_images(np.eye(4), estimator=estimator)
    with pytest.raises(ValueError, match=r"X has 9 features, but BaseEstimator is expecting 4 features as input"):
        as_images(np.eye(9), estimator=estimator, reset=False)


@pytest.mark.parametrize("X", [NHWC[:, :5], GRAY, TensorDataset(torch.zeros(2, 3, 9, 9, dtype=torch.uint8))])
def test_shape_other_than_in_training_is_refused(X: Any) -> None:
    with pytest.raises(ValueError, match=r"but BaseEstimator was fitted on images of shape \(3, 8, 8\)"):
        as_images(X, estimator=BaseEstimator(), reset=False, shape=(3, 8, 8))


def test_dtype_kind_other_than_in_training_is_refused() -> None:
    for X in (NHWC / 255, TensorDataset(torch.rand(2, 3, 8, 8))):
        with pytest.raises(TypeError, match="in X are floats, but the estimator was fitted on uint8"):
            as_images(X, reset=False, shape=(3, 8, 8))
    with pytest.raises(TypeError, match="in X are uint8, but the estimator was fitted on floats"):
        as_images(NHWC, reset=False, shape=(3, 8, 8), scale=(0.0, 1.0))


# Invalid input


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("shape", [(5, 64), (5, 8, 8), (5, 8, 8, 3)])
def test_nan_and_infinite_values_are_refused(bad: float, shape: tuple[int, ...]) -> None:
    X = np.zeros(shape)
    X[3].flat[7] = bad
    for form in (X, torch.from_numpy(X)):
        with pytest.raises(ValueError, match=r"contains NaN, infinity or a value too large .* in sample 3"):
            as_images(form)


def test_masked_values_are_refused(tmp_path: Path) -> None:
    X = np.ma.masked_equal(GRAY.astype(np.float32), -9999)
    np.save(tmp_path / "X.npy", GRAY)
    mapped = np.ma.MaskedArray(np.load(tmp_path / "X.npy", mmap_mode="r"))
    forms = [
        (X, read(GRAY.astype(np.float32))),
        (X.reshape(6, -1), read(GRAY.astype(np.float32))),
        (list(X), read(GRAY.astype(np.float32))),
        (list(X.reshape(6, -1)), read(GRAY.astype(np.float32))),
        (np.ma.MaskedArray(GRAY), GRAY[:, None]),
        (Items(np.ma.MaskedArray(GRAY)), GRAY[:, None]),
        (iter(np.ma.MaskedArray(GRAY)), GRAY[:, None]),
        (mapped, GRAY[:, None]),
    ]
    for form, expected in forms:
        np.testing.assert_array_equal(read(form, (8, 10)), expected)
    assert as_images(mapped)._stored.file is not None
    X[3, 2, 1], X[4] = np.ma.masked, np.ma.masked
    for form in (X, X.reshape(6, -1), list(X), list(X.reshape(6, -1)), X[:, ::-1]):
        with pytest.raises(ValueError, match=r"Sample 3 of X has masked values.* Fill them by filled\(value\)"):
            as_images(form, (8, 10))
    for form in (Items(X / 255), iter(X / 255)):
        with pytest.raises(ValueError, match=r"Item 3 of .*X has masked values"):
            read(form)


@pytest.mark.parametrize(
    "X",
    [
        NHWC[:1],
        NHWC[:0],
        torch.from_numpy(NHWC[:1]),
        np.zeros((1, 64)),
        np.zeros((0, 64)),
        [],
        ["a.png"],
        TensorDataset(torch.zeros(1, 3, 8, 8)),
    ],
)
def test_fit_needs_two_images(X: Any) -> None:
    with pytest.raises(ValueError, match=r"[01] sample.* minimum of 2 is required"):
        as_images(X)


def test_transform_needs_one_image() -> None:
    assert len(as_images(NHWC[:1], reset=False)) == 1
    with pytest.raises(ValueError, match=r"0 sample.* minimum of 1 is required"):
        as_images(NHWC[:0], reset=False)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.zeros(5), ValueError, "Expected 2D array, got 1D array"),
        (np.zeros((2, 3, 8, 8, 8)), ValueError, r"shape \(2, 3, 8, 8, 8\), but"),
        (np.zeros((2, 0, 8)), ValueError, r"shape \(2, 0, 8\), but"),
        (np.zeros((2, 8, 8), complex), ValueError, "Complex data not supported"),
        (torch.zeros((2, 8, 8), dtype=torch.complex64), ValueError, "dense tensor of real numbers"),
        (torch.eye(4).to_sparse(), ValueError, "dense tensor of real numbers"),
        (np.array([[["a"] * 4] * 4] * 2), ValueError, "convert|numeric"),
        (np.array([[{}] * 4] * 2), TypeError, "X cannot be read as numbers"),
        (np.array([[[{}] * 4] * 4] * 2), TypeError, "X cannot be read as numbers"),
        (None, TypeError, "X is NoneType None, but"),
        ({"X": NHWC}, TypeError, "X is dict .*, but"),
        (Image.fromarray(NHWC[0]), TypeError, "PIL image of mode RGB .*, but"),
        (
            [NHWC[0], NHWC[1], NHWC[2, :4]],
            ValueError,
            r"Sample 2 of X is ndarray .*\(4, 8, 3\), but sample 0",
        ),
        ([NHWC[0], NHWC[1] / 255], ValueError, "Sample 1 of X is ndarray of float64"),
        ([NHWC[0], "a.png"], TypeError, "Sample 1 of X is str 'a.png', but sample 0 is ndarray"),
        ([NHWC[0], None], TypeError, "Sample 1 of X is NoneType None, but sample 0 is ndarray"),
    ],
)
def test_input_that_is_no_images_is_refused(X: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_images(X)


# Files and PIL images


def test_files_read_as_their_pixels(tmp_path: Path) -> None:
    paths = save(tmp_path, NHWC)
    forms = [paths, tuple(paths), [Path(p) for p in paths], np.array(paths), np.array(paths, dtype=object)]
    forms += [pd.Series(paths), pd.Series([Path(p) for p in paths]), [Image.open(p) for p in paths]]
    for form in forms:
        np.testing.assert_array_equal(read(form), NCHW)
    np.testing.assert_array_equal(read([*paths[:1], Image.fromarray(NHWC[1])]), NCHW[:2])
    image = Image.open(paths[0])
    np.testing.assert_array_equal(read([image] * 20), NCHW[[0] * 20])


def test_files_have_one_channel_if_all_are_gray(tmp_path: Path) -> None:
    gray = save(tmp_path, GRAY)
    assert as_images(gray).shape == (1, 8, 10)
    Image.fromarray(NHWC[0]).resize((10, 8)).save(tmp_path / "colour.png")
    mixed = [*gray, str(tmp_path / "colour.png")]
    images = as_images(mixed)
    assert images.shape == (3, 8, 10)
    np.testing.assert_array_equal(everything(images)[0], GRAY[[0, 0, 0]])
    assert as_images(mixed, (8, 10, 1)).shape == (1, 8, 10)
    assert as_images(gray, (3, 8, 10)).shape == (3, 8, 10)
    assert as_images(gray, (8, 10, 4)).shape == (4, 8, 10)
    # After training on colour images, grey files are read in colour
    assert as_images(gray[:1], reset=False, shape=(3, 8, 10)).shape == (3, 8, 10)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "F", "I", "I;16"])
def test_pil_modes(mode: str) -> None:
    image = Image.new("RGB", (6, 5), (255, 255, 255))
    image.paste((0, 0, 0), (0, 0, 3, 5))  # the left half black
    levels = np.asarray(image.convert("L"))
    dtype = {"I": np.int32, "I;16": np.uint16}.get(mode)
    picture = image.convert(mode) if dtype is None else Image.fromarray(levels.astype(dtype) * 16)
    assert picture.mode == mode
    batch = read([picture, picture], (5, 6, 3))
    white = 1 if mode in DEEP else 255
    np.testing.assert_allclose(batch / white, levels[None, None].repeat(2, 0).repeat(3, 1) / 255, atol=0.01)


def test_palette_with_transparency_gives_no_warning(tmp_path: Path) -> None:
    image = Image.fromarray(NHWC[0]).convert("P")
    colours = np.asarray(image.convert("RGB"))
    image.save(tmp_path / "p.png", transparency=bytes(range(256)))
    batch = read([tmp_path / "p.png"] * 2)
    np.testing.assert_array_equal(batch[0], colours.transpose(2, 0, 1))


DEEP = {  # by Pillow's mode: numbers that need more than 8 bits
    "I;16": RNG.integers(0, 4096, (4, 8, 10)).astype(np.uint16),  # of 12 bits
    "I": RNG.integers(-(2**20), 2**20, (4, 8, 10)).astype(np.int32),
    "F": RNG.random((4, 8, 10), np.float32),
}


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize(
    ("ending", "mode"), [(".png", "I;16"), (".tif", "I;16"), (".pgm", "I;16"), (".tif", "I"), (".tif", "F")]
)
def test_files_keep_numbers_of_more_than_eight_bits(
    ending: str, mode: str, on_disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKSSL_CACHE", str(tmp_path))
    if on_disk:
        monkeypatch.setattr(image_files, "MAX_IN_MEMORY", 0)
    paths, X = save(tmp_path, DEEP[mode], ending), DEEP[mode].astype(np.float32)
    files, arrays = as_images(paths), as_images(X)
    assert isinstance(files, MemoryImages)
    assert (files._stored.file is not None) == on_disk
    assert (files.shape, files.scale) == (arrays.shape, arrays.scale)
    for _ in range(2):
        np.testing.assert_array_equal(everything(as_images(paths)), everything(arrays))
    test = read(paths[:1], reset=False, shape=files.shape, scale=(0.0, 2 * files.scale[1]))
    np.testing.assert_allclose(test[0, 0], X[0] / (2 * X.max()), rtol=1e-6)
    colour = read(paths, (8, 10, 3))
    np.testing.assert_array_equal(colour, everything(arrays).repeat(3, 1))
    with pytest.raises(ValueError, match="decoded to 4 channels, but 1 or 3 are supported for more than 8 bits"):
        as_images(paths, (8, 10, 4))


def test_sixteen_bits_among_eight_are_rounded_to_eight(tmp_path: Path) -> None:
    for ending in ("png", "pgm", "tif"):
        Image.fromarray(GRAY[0].astype(np.uint16) * 257).save(tmp_path / f"wide.{ending}")
        Image.fromarray(GRAY[1]).save(tmp_path / "narrow.png")
        wide, narrow = tmp_path / f"wide.{ending}", tmp_path / "narrow.png"
        images = as_images([wide, narrow])
        assert images.scale is None
        np.testing.assert_array_equal(everything(images), GRAY[:2, None])
        np.testing.assert_array_equal(read([wide], reset=False, shape=images.shape), GRAY[:1, None])


@pytest.mark.parametrize(("mode", "kind"), [("F", "floats"), ("I", "32-bit integers")])
def test_numbers_without_a_common_scale_are_refused(mode: str, kind: str, tmp_path: Path) -> None:
    first, deep = save(tmp_path, GRAY[:1])[0], tmp_path / "deep.tif"
    Image.fromarray(DEEP[mode][0]).save(deep)
    with pytest.raises(ValueError, match=rf"Sample 2 of X, the file .*deep\.tif.* holds {kind}, but Sample 0 .*8-bit"):
        as_images([first, first, deep])
    with pytest.raises(TypeError, match="in X are floats, but the estimator was fitted on uint8"):
        as_images([deep], reset=False, shape=(1, 8, 10))
    with pytest.raises(TypeError, match="in X are uint8, but the estimator was fitted on floats"):
        as_images([first], reset=False, shape=(1, 8, 10), scale=(0.0, 1.0))
    with pytest.raises(TypeError, match="in X are floats, but the estimator was fitted on uint8"):
        as_images(Items([deep]), reset=False, shape=(1, 8, 10))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_files_with_values_that_are_not_finite_are_named(bad: float, tmp_path: Path) -> None:
    X = DEEP["F"] + 1
    X[2, 3, 3] = bad
    paths = save(tmp_path, X, ".tif")
    with pytest.raises(ValueError, match=r"Sample 2 of X, the file .*2\.tif.* contains NaN or infinity"):
        as_images(paths)
    with pytest.warns(BadImageWarning, match="1 of the 4 images"):
        images = as_images(paths, on_bad_image="skip")
    X = X[[0, 1, 3]]
    assert images.scale == (X.min(), X.max())
    np.testing.assert_allclose(everything(images)[:, 0], (X - X.min()) / (X.max() - X.min()), atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["a.jpg", "a.png", "a.webp", "a.tif", "lzw.tif"])
def test_images_are_read_upright(tmp_path: Path, form: str, orientation: int) -> None:
    upright = np.kron([[0, 80, 160], [255, 120, 40]], np.ones((8, 8))).astype(np.uint8)  # JPEG keeps such blocks
    stored = {
        1: upright,
        2: np.fliplr(upright),
        3: np.rot90(upright, 2),
        4: np.flipud(upright),
        5: upright.T,
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).T,
        8: np.rot90(upright, -1),
    }[orientation]
    path, tags = tmp_path / form, Image.Exif()
    tags[0x0112] = orientation
    how = {"jpg": {"quality": 95}, "webp": {"lossless": True}}.get(form[2:], {})
    how |= {"compression": "tiff_lzw"} if form == "lzw.tif" else {}
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=tags, **how)
    assert inspect_image(path, "")[1] == upright.shape
    stream = io.BytesIO(path.read_bytes())  # by its path, Pillow itself mixes up the pixels of "a.tif"
    with Image.open(stream) as opened, Image.open(stream) as decoded:
        assert opened.getexif()[0x0112] == orientation
        decoded.load()
        for image in (path, stream, opened, decoded):
            for options in ({}, {"image_shape": (16, 24, 3)}, {"whole": True, "image_shape": (3, 16, 24)}):
                images = as_images([image, image], **options).still((16, 24), None, "bilinear")
                np.testing.assert_allclose(everything(images)[0, 0], upright, atol=1)


def test_pngs_are_inspected_without_decoding_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GRAY[0]).save(tmp_path / "plain.png")
    Image.fromarray(GRAY[0]).save(tmp_path / "turned.png", exif=exif)
    whole = (tmp_path / "turned.png").read_bytes()
    start, end = whole.index(b"eXIf") - 4, whole.index(b"IDAT") - 4
    (tmp_path / "late.png").write_bytes(whole[:start] + whole[end:-12] + whole[start:end] + whole[-12:])
    (tmp_path / "cut.png").write_bytes((tmp_path / "plain.png").read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"a\.png cannot be read as an image"):
        inspect_image(tmp_path / "cut.png", "a.png")
    assert inspect_image(tmp_path / "late.png", "") == ("L", (10, 8))
    assert decode_image(tmp_path / "late.png", "", 1).shape == (10, 8, 1)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", None)
    assert inspect_image(tmp_path / "plain.png", "") == ("L", (8, 10))
    assert inspect_image(tmp_path / "turned.png", "") == ("L", (10, 8))


def test_resizing_crops_the_centre_with_antialiasing(tmp_path: Path) -> None:
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 40:80] = np.indices((40, 40)).sum(0)[..., None] % 2 * 255  # a chequerboard in the middle
    paths = save(tmp_path, np.stack([wide, wide]))
    tall = [Image.open(path).transpose(Image.Transpose.ROTATE_90) for path in paths]
    for X in (paths, tall):
        images = as_images(X, (10, 10), whole=False)
        assert images.shape == (3, 10, 10)
        np.testing.assert_allclose(everything(images), 127.5, atol=16)  # grey: neither aliased nor the black sides


def test_jpegs_of_several_sizes_are_resized_to_image_shape(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 640).astype(np.uint8)[None, :, None].repeat(480, 0).repeat(3, 2)
    Image.fromarray(ramp).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(ramp[:, ::2]).save(tmp_path / "b.jpg", quality=95)
    paths = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    batch = read(paths, (16, 16), whole=False).astype(int)
    assert batch.shape == (2, 3, 16, 16)
    expected = np.asarray(Image.fromarray(ramp[:, 80:560]).resize((16, 16), Image.Resampling.BICUBIC)).astype(int)
    np.testing.assert_allclose(batch[0], expected.transpose(2, 0, 1), atol=4)
    with pytest.raises(ValueError, match=r"Sample 1 of X, the file .*b\.jpg.*\(480, 320\).* has \(480, 640\)"):
        as_images(paths, whole=False)
    with pytest.raises(ValueError, match=r"Sample 1 of X has the height and width \(480, 320\)"):
        as_images([Image.open(path) for path in paths], whole=False)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    good = save(tmp_path, NHWC[:2])
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "PNG")
    (tmp_path / "cut.png").write_bytes(buffer.getvalue()[:3000])
    (tmp_path / "text.png").write_text("no image")
    for bad in ("cut.png", "text.png", "missing.png"):
        for image_shape in (None, (8, 8), (8, 8, 3)):
            with pytest.raises(ValueError, match=f"Sample 2 of X, the file .*{bad}"):
                as_images([*good, str(tmp_path / bad)], image_shape)
    with (
        Image.open(tmp_path / "cut.png") as cut,
        pytest.raises(ValueError, match="Sample 1 of X cannot be read as an image"),
    ):
        as_images([Image.open(good[0]), cut], (8, 8))


@pytest.fixture
def decoded_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Send all files to the cache, whatever their size, and return the folder of the decoded files."""
    monkeypatch.setattr(image_files, "MAX_IN_MEMORY", 0)
    monkeypatch.setenv("SKSSL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "packed"


def test_large_collections_of_files_are_decoded_once_into_the_cache(
    tmp_path: Path, decoded_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = save(tmp_path, NHWC)
    np.testing.assert_array_equal(read(paths), NCHW)
    (file,) = decoded_folder.iterdir()
    found = decode_images(paths, str)
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable
    with monkeypatch.context() as patch:
        patch.setattr(image_files, "decode_image", None)  # nothing is decoded again
        np.testing.assert_array_equal(read(paths), NCHW)
        np.testing.assert_array_equal(read(paths[:1] + paths[1:]), NCHW)
    Image.fromarray(NHWC[1]).save(paths[0])
    os.utime(paths[0], ns=(0, 0))  # a new file of that name
    np.testing.assert_array_equal(read(paths)[0], NCHW[1])
    assert len(list(decoded_folder.iterdir())) == 2
    assert read(paths, (4, 4)).shape == (6, 3, 4, 4), "another size has another file in the cache"
    assert file in decoded_folder.iterdir()


def test_training_on_cached_files_is_bit_identical(tmp_path: Path, decoded_folder: Path) -> None:
    X = RNG.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    trained = [quick(SimCLR).fit(images).transform(X) for images in (X, save(tmp_path, X))]
    assert len(list(decoded_folder.iterdir())) == 1
    assert np.array_equal(*trained)


def refuse(code: int) -> None:
    raise OSError(code, os.strerror(code))


def test_failed_decoding_leaves_no_file_in_the_cache(
    tmp_path: Path, decoded_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = save(tmp_path, NHWC)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", lambda *args: refuse(errno.EOPNOTSUPP), raising=False)
        assert len(read(paths)) == 6, "some file systems allocate no space"
        shutil.rmtree(decoded_folder)
        patch.setattr(disk_cache.shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
        with pytest.raises(OSError, match=r"has no room for them"):
            read(paths)
        patch.setattr(os, "posix_fallocate", lambda *args: refuse(errno.ENOSPC), raising=False)
        patch.setattr(disk_cache.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**40))
        with pytest.raises(OSError, match=r"take at least 0.0 GB, but .* has no room for them. Set .* SKSSL_CACHE"):
            read(paths)
    with open(paths[3], "r+b") as file:
        file.truncate(60)
    with pytest.raises(ValueError, match="Sample 3 of X, the file"):
        read(paths, (8, 8, 3))
    assert not list(decoded_folder.iterdir())
    assert len(read([Image.open(paths[0])] * 3)) == 3, "PIL images do not go into the cache"
    assert not list(decoded_folder.iterdir())


def test_file_objects_can_be_read_twice() -> None:
    buffer = io.BytesIO()
    Image.fromarray(NHWC[0]).save(buffer, "PNG")
    for _ in range(2):
        np.testing.assert_array_equal(decode_images([buffer], str), NHWC[:1])


@pytest.mark.parametrize(
    ("image_shape", "message"),
    [((8, 8, -1), "contains -1, which only a 2-D X"), ((8, 8, 5), "5 channels")],
)
def test_image_shapes_that_files_cannot_have(tmp_path: Path, image_shape: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_images(save(tmp_path, NHWC), image_shape)


# Data sets


@pytest.mark.parametrize(
    "dataset",
    [
        TensorDataset(torch.from_numpy(NCHW)),
        TensorDataset(torch.from_numpy(NCHW), torch.arange(6)),
        Subset(TensorDataset(torch.from_numpy(NCHW)), range(6)),
        Items([Image.fromarray(image) for image in NHWC]),
        Items([(Image.fromarray(image), 1) for image in NHWC]),
        Items(NHWC),
    ],
)
def test_data_set_items_are_read_by_index(dataset: Dataset) -> None:
    images = as_images(dataset)
    assert (len(images), images.shape, images.scale) == (6, (3, 8, 8), None)
    np.testing.assert_array_equal(images.read(torch.tensor([5, 0, 5])).numpy(), NCHW[[5, 0, 5]])


def test_getitems_is_called_once_for_each_batch() -> None:
    asked = []

    class Batched(Items):
        def __getitems__(self, indices: list[int]) -> list[Any]:
            asked.append(indices)
            return [self.items[i] for i in indices]

    images = as_images(Batched(NHWC))
    images.read(torch.tensor([3, 1]))
    assert asked[1:] == [[3, 1]]


def test_items_are_read_one_by_one_if_getitems_fails() -> None:
    class Broken(Items):
        def __getitems__(self, indices: list[int]) -> list[Any]:
            raise RuntimeError("no batches")

        def __getitem__(self, i: int) -> Any:
            if i == 4:
                raise OSError("gone")
            return self.items[i]

    images = as_images(Broken(NHWC))
    np.testing.assert_array_equal(images.read(torch.tensor([3, 1])), NCHW[[3, 1]])
    with pytest.raises(ValueError, match=r"^Item 4 of the data set X cannot be read: OSError: gone$"):
        images.read(torch.tensor([3, 4]))


@pytest.mark.parametrize("returned", [NHWC[:2], [NHWC[0]], None])
def test_getitems_must_return_one_item_for_each_index(returned: Any) -> None:
    class Wrong(Items):
        def __getitems__(self, indices: list[int]) -> Any:
            return [self.items[0]] if len(indices) == 1 else returned

    images = as_images(Wrong(NHWC))
    with pytest.raises(TypeError, match=r"returned .* from __getitems__, but a list of 2 items was expected"):
        images.read(torch.tensor([0, 1]))


def test_items_without_pixels_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"Item 0 of the data set X is .*\(3, 0, 8\), but an image of at least one pixel"
    ):
        as_images(Items(torch.zeros(2, 3, 0, 8)))


def test_gray_items_and_float_items() -> None:
    gray = Items(GRAY)
    assert as_images(gray).shape == (1, 8, 10)
    assert as_images(Items([Image.fromarray(image) for image in GRAY])).shape == (1, 8, 10)
    floats = Items(torch.from_numpy(GRAY / 255.0))
    images = as_images(floats)
    assert (images.shape, images.scale) == ((1, 8, 10), (0.0, 1.0))
    np.testing.assert_allclose(everything(images)[:, 0], GRAY / 255, atol=1e-6)
    scaled = as_images(floats, reset=False, shape=(1, 8, 10), scale=(0.0, 0.5))
    np.testing.assert_allclose(everything(scaled)[:, 0], GRAY / 255 * 2, atol=1e-6)


def test_axes_of_data_set_items_are_not_guessed() -> None:
    assert as_images(TensorDataset(torch.rand(2, 8, 8, 8))).shape == (8, 8, 8)
    assert as_images(Items(RNG.random((2, 20, 30, 5)))).shape == (5, 20, 30)


def test_pil_items_of_several_sizes_are_resized_to_image_shape() -> None:
    items = Items([Image.new("RGB", (10 + i, 20), (50 * i, 0, 0)) for i in range(3)])
    for whole in (None, False):
        images = as_images(items, (8, 8), whole=whole)
        np.testing.assert_array_equal(everything(images)[:, 0, 4, 4], [0, 50, 100])
    with pytest.raises(ValueError, match=r"Item 1 of the data set X .*\(3, 20, 11\), but item 0 .*\(3, 20, 10\)"):
        read(items, whole=False)


def test_items_of_another_shape_or_dtype_are_named() -> None:
    items = [torch.zeros(3, 8, 8) for _ in range(4)]
    items[2] = torch.zeros(3, 8, 9)
    with pytest.raises(ValueError, match=r"Item 2 of the data set X is a Tensor .*\(3, 8, 9\), but item 0"):
        read(Items(items))
    items[2] = torch.zeros(3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"Item 2 .* of uint8 .* but item 0 .* torch.float32"):
        read(Items(items))


@pytest.mark.parametrize("value", [-2.0, 255.0, np.nan])
def test_float_items_outside_the_unit_interval_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"has floats from .* but uint8 or floats in \[0, 1\] were expected"):
        as_images(TensorDataset(torch.full((2, 3, 8, 8), value)))


@pytest.mark.parametrize("item", [{"label": 3}, torch.zeros(5), torch.zeros(3, 8, 8).cfloat(), None])
def test_items_that_are_no_images_are_refused(item: Any) -> None:
    with pytest.raises(TypeError, match=r"Item 0 of the data set X is .* expected"):
        as_images(Items([item, item]))


def test_data_sets_without_a_length_are_refused() -> None:
    class Endless(Dataset):
        def __getitem__(self, i: int) -> Any:
            return NHWC[0]

    with pytest.raises(TypeError, match=r"X is a Endless, a data set without a length\. Define its __len__"):
        as_images(Endless())


def test_take_returns_a_subset() -> None:
    index = torch.tensor([4, 1, 1])
    for given in (NHWC, NHWC / 255, Items([torch.from_numpy(image) for image in NCHW])):
        images = as_images(given)
        some = images.take(index).to("cpu")
        assert (len(some), some.shape, some.scale) == (3, images.shape, images.scale)
        np.testing.assert_array_equal(everything(some), everything(images)[index])
        np.testing.assert_array_equal(some.read(torch.tensor([2, 0])), images.read(torch.tensor([1, 4])))


def test_images_are_checked_and_returned() -> None:
    images, estimator = as_images(NHWC / 255), BaseEstimator()
    assert as_images(images, estimator=estimator, shape=(3, 8, 8), scale=images.scale) is images
    assert estimator.n_features_in_ == 192
    with pytest.raises(ValueError, match=r"1 sample.* minimum of 2 is required"):
        as_images(images.take(torch.tensor([0])))
    with pytest.raises(ValueError, match=r"image_shape=\(8, 9\) was expected"):
        as_images(images, (8, 9))
    with pytest.raises(
        ValueError, match=r"have the range .*, but the estimator was fitted on images of the range \(0, 2\)"
    ):
        as_images(images, shape=(3, 8, 8), scale=(0, 2))
