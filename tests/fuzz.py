"""Fuzz the library with Hypothesis: each input is read correctly or refused with a clear error.

The test suite runs a few hundred cases. A long run: ``python tests/fuzz.py --cases 100000``.
"""

from __future__ import annotations

import argparse
import bz2
import faulthandler
import gzip
import io
import lzma
import math
import os
import re
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import strategies
import torch
from conftest import QUICK
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image, features
from torch.utils.data import Dataset

from skssl import BadImageWarning, CollapseWarning
from skssl.datasets import load_images, pack_images
from skssl.images import as_images, image_files, memory_maps
from skssl.images.photographs import Photographs

REFUSALS = (ValueError, TypeError, OSError)
BATCH = 500  # cases per call of Hypothesis, which keeps them all in memory
SECONDS = 30  # time limit of a case
SEEDS = st.integers(0, 2**32 - 1)
EASY = settings(
    deadline=None,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
# What the error for images must name: the sample or array, or the parameter
CULPRIT = r"X\b|[Ss]ample|[Ii]tem|image_shape|[Aa]rray|[Cc]omplex|[Ss]parse|convert|dtype|numeric|feature|quantized"


class Items(Dataset):
    """A data set of any items, whose length may be wrong."""

    def __init__(self, items: list[Any], length: int) -> None:
        self.items, self.length = items, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Any:
        return self.items[i]


@contextmanager
def watched() -> Iterator[Path]:
    """Run a case in a temporary folder, with warnings as errors; check that it ends and leaves no files behind."""

    def hang(*args: Any) -> None:
        raise AssertionError(f"hangs: it takes more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", BadImageWarning)
            warnings.simplefilter("ignore", CollapseWarning)
            os.environ["SKSSL_CACHE"] = f"{folder}/cache"
            with chdir(folder):  # a checkpoint may have any name
                yield Path(folder)
            kinds = (".npy", ".npz", ".pack", ".json", "")
            left = [path for path in Path(folder, "cache").rglob("*") if path.suffix not in kinds]
            left += [path for path in Path(folder, "cache", "packed").glob("*") if path.is_dir()]
            assert not left, f"left behind: {left}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        os.environ.pop("SKSSL_CACHE", None)


def check_refusal(error: Exception, names: str) -> None:
    """Check that an error is a short sentence that names the cause."""
    text = str(error)
    assert 10 < len(text.splitlines()[0]) < 900, (
        f"not a sentence: {error!r}"
    )  # scikit-learn adds lines with the numbers
    assert re.search(names, text), f"does not name the cause: {error!r}"


# Arrays and their containers

DTYPES = st.sampled_from(
    "u1 u1 u1 ? i1 i2 i4 i8 u2 u4 u8 f2 f4 f4 f8 g >f4 >i2 >u2 c8 U3 S2 M8[s] m8[s] O V3".split()  # noqa: SIM905
)
LAYOUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "plain": lambda X: X,
    "fortran": np.asfortranarray,
    "backwards": lambda X: X[::-1] if X.ndim else X,
    "mirrored": lambda X: X[..., ::-1] if X.ndim else X,
    "every other": lambda X: X.repeat(2, -1)[..., ::2] if X.ndim else X,
    "broadcast": lambda X: np.broadcast_to(X, X.shape),
    "masked": np.ma.asarray,
    "turned": np.transpose,
}
HOLDERS: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda X: X,
    "list": list,
    "tuple": tuple,
    "nested": lambda X: X.tolist(),
    "objects": lambda X: pd.Series(list(X)).to_numpy(),
    "series": lambda X: pd.Series(list(X)),
    "frame": pd.DataFrame,
    "tensor": lambda X: torch.from_numpy(np.array(X, X.dtype.newbyteorder("="))),
    "tensors": lambda X: [torch.from_numpy(np.array(x)) for x in X],
    "items": lambda X: Items(list(X), len(X)),
    "tensor items": lambda X: Items([torch.from_numpy(np.array(x)) for x in X], len(X)),
    "short items": lambda X: Items(list(X), len(X) + 1),
    "long items": lambda X: Items(list(X), max(len(X) - 1, 0)),
    "dicts": lambda X: Items([{"label": 0, "image": x} for x in X], len(X)),
    "pairs": lambda X: [(x, 0) for x in X],
    "stream": iter,
    "sparse": lambda X: torch.from_numpy(np.array(X)).to_sparse(),
    "quantised": lambda X: torch.quantize_per_tensor(torch.from_numpy(X.astype("f4")), 0.1, 0, torch.quint8),
    "meta": lambda X: torch.from_numpy(np.array(X)).to("meta"),
    "half": lambda X: torch.from_numpy(np.array(X)).bfloat16(),
    "gradient": lambda X: torch.from_numpy(np.array(X)).float().requires_grad_(),
    "dict": lambda X: {"X": X},
    "odd one out": lambda X: [*X, None],
    "of two shapes": lambda X: [*X, np.zeros((2, 7))],
    "mixed": lambda X: [*X, "a.png"],
}


@st.composite
def arrays(draw: Any) -> np.ndarray:
    """Draw arrays of any type, shape and memory layout, some with numbers that are not finite."""
    dtype = np.dtype(draw(DTYPES))
    shape = draw(st.lists(st.sampled_from((0, 1, 2, 3, 4, 5, 8)), max_size=5).filter(lambda s: math.prod(s) < 5000))
    if draw(st.booleans()):  # make image shapes frequent
        shape = [draw(st.integers(2, 5)), *draw(st.sampled_from(([6, 6], [6, 7], [6, 6, 3], [3, 6, 7], [4], [9])))]
    random = np.random.default_rng(draw(SEEDS))
    X = random.integers(0, 256 if dtype.itemsize > 1 or dtype.kind == "u" else 2, shape)
    X = X.astype("S2" if dtype.kind == "V" else "U3" if dtype.kind in "US" else dtype).astype(dtype)
    if dtype.kind in "fc" and X.size:
        if draw(st.booleans()):
            X = X / X.dtype.type(255)
        odd = draw(st.sampled_from((None, None, np.nan, np.inf, 1e300, -5.0)))
        if odd is not None:
            with np.errstate(over="ignore"):
                X.flat[random.integers(X.size)] = odd
    return LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))](X)


SHAPES = st.one_of(
    st.none(),
    st.none(),
    st.sampled_from([(6, 6), (6, 7), (6, 6, 3), (3, 6, 7), (2, 2), (3, 3), (-1, 3), (6, -1), (6, 6, 4), (8, 8, 2)]),
    st.lists(st.sampled_from((-2, -1, 0, 1, 2, 3, 6)), max_size=4),
    st.sampled_from([5, "6x6", (6.0, 6.0), (None, 6), {}, ((6, 6), 3), np.array([6, 6])]),
)


def literal(X: np.ndarray, shape: tuple[int, int, int], scale: Any, are_items: bool) -> np.ndarray:
    """Read an array image by image, given the shape and scale of the result; the channels of items are last."""
    c, h, w = shape
    found = []
    for x in X:
        if x.ndim == 1:
            x = x.reshape(h, w, c).transpose(2, 0, 1)
        elif x.ndim == 2:
            x = x[None]
        elif are_items or x.shape != shape:
            x = np.moveaxis(x, 2, 0)
        with np.errstate(over="ignore"):  # a bad item may have been replaced
            found.append(x if scale is None else (x.astype("f4") - scale[0]) / ((scale[1] - scale[0]) or 1))
    return np.array(found)


def check_images(X: np.ndarray, holder: str, image_shape: Any, reset: bool, mapped_file: bool, skip: bool) -> None:
    """Check that arrays in any container are read as image by image, or refused."""
    with watched() as folder:
        try:
            if mapped_file and X.dtype.kind not in "OV" and X.size:
                np.save(folder / "X.npy", X)
                X = np.load(folder / "X.npy", mmap_mode="r")
            given = HOLDERS[holder](X)
        except Exception:  # NumPy, pandas or PyTorch cannot hold this array
            return
        kept, memory_maps.MAX_RESIDENT = memory_maps.MAX_RESIDENT, 0
        try:
            images = as_images(given, image_shape, reset=reset, on_bad_image="skip" if skip else "raise")
            read = images.read(torch.arange(len(images)))
        except REFUSALS as error:
            check_refusal(error, CULPRIT)
            return
        finally:
            memory_maps.MAX_RESIDENT = kept
        assert read.shape == (len(images), *images.shape)
        assert read.dtype == (torch.uint8 if images.scale is None else torch.float32)
        assert read.isfinite().all()
        if images.scale is not None:
            assert -0.1001 <= read.min() <= read.max() <= 1.1001
        numbers = X.dtype.kind in "buif" and images.kept is None
        if numbers and holder in ("array", "list", "tuple", "nested", "tensor", "items", "stream", "dicts"):
            expected = literal(np.asarray(X), images.shape, images.scale, holder in ("items", "stream", "dicts"))
            if X.ndim == 2 and image_shape is not None and len(image_shape) == 3 and image_shape[0] == images.shape[0]:
                expected = np.asarray(expected).transpose(0, 2, 3, 1).reshape(read.shape)  # (c, h, w) was meant
            if not skip:  # bad images may have been replaced
                np.testing.assert_allclose(read.numpy(), expected, rtol=1e-4, atol=1e-4)


# Image files, intact and damaged

MODES = (
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "HSV",
    "LAB",
    "F",
    "I",
    "I;16",
)
FORMATS = ["PNG", "JPEG", "GIF", "TIFF", "BMP", "PPM", "ICO", "TGA", *(["WEBP"] if features.check("webp") else [])]


@st.composite
def encoded(draw: Any) -> tuple[bytes, np.ndarray | None]:
    """Draw the bytes of an image file, perhaps damaged, and its pixels where they can be known."""
    size = draw(st.sampled_from([(6, 6), (6, 6), (9, 5), (1, 1), (40, 30)]))
    mode, form = draw(st.sampled_from(MODES)), draw(st.sampled_from(FORMATS))
    pixels = np.random.default_rng(draw(SEEDS)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    try:
        image = Image.fromarray(pixels).convert(mode if mode != "I;16" else "I")
        (image.convert("I;16") if mode == "I;16" else image).save(file, form)
    except Exception:  # the format lacks the mode
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, form := "PNG")
        mode = "RGB"
    data = bytearray(file.getvalue())
    damage = draw(st.sampled_from(["none", "none", "cut", "flip", "flip", "insert", "empty", "noise", "bomb"]))
    place = draw(st.integers(0, len(data) - 1))
    if damage == "cut":
        del data[place:]
    elif damage == "flip":
        for _ in range(draw(st.integers(1, 4))):
            data[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
    elif damage == "insert":
        data[place:place] = draw(st.binary(max_size=20))
    elif damage == "empty":
        data.clear()
    elif damage == "noise":
        data = bytearray(draw(st.binary(max_size=200)))
    elif damage == "bomb":  # a header of 60,000 x 60,000 pixels
        side = (60_000).to_bytes(4, "big")
        data[:] = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + side + side + b"\x08\x02\x00\x00\x00" + bytes(data[29:])
    known = damage == "none" and mode == "RGB" and form in ("PNG", "BMP", "TIFF", "PPM")
    return bytes(data), pixels if known else None


def opened(data: bytes) -> Any:
    """Open an image file without decoding its pixels."""
    return Image.open(io.BytesIO(data))


PICTURES = ("paths", "open files", "PIL", "items of bytes", "items of PIL", "stream")


def check_pictures(files: list[Any], holder: str, image_shape: Any, skip: bool, packed: bool) -> None:
    """Check that files and PIL images of any mode and format, intact or damaged, are read or refused by name."""
    with watched() as folder:
        paths = [folder / f"{i}" for i in range(len(files))]
        for path, (data, _) in zip(paths, files, strict=True):
            path.write_bytes(data)
        parts = [data for data, _ in files]
        try:
            given: Any = {
                "paths": lambda: [str(path) for path in paths],
                "open files": lambda: [io.BytesIO(data) for data in parts],
                "PIL": lambda: [opened(data) for data in parts],
                "items of bytes": lambda: Items([(data, 0) for data in parts], len(files)),
                "items of PIL": lambda: Items([{"image": opened(data)} for data in parts], len(files)),
                "stream": lambda: iter(parts),
            }[holder]()
        except Exception:  # Pillow cannot open it
            return
        in_memory, image_files.MAX_IN_MEMORY = image_files.MAX_IN_MEMORY, 0 if packed else 2**30
        try:
            images = as_images(given, image_shape, reset=False, on_bad_image="skip" if skip else "raise")
            read = images.read(torch.arange(len(images)))
        except REFUSALS as error:
            check_refusal(error, CULPRIT)
            named = re.match(r"(?:Sample|Item) (\d+) of .* cannot be read", str(error))
            whole = named is not None and files[int(named[1])][1] is not None
            assert not whole, f"the file is intact: {error!r}"  # noqa: PT017 - no test expects it
            return
        finally:
            image_files.MAX_IN_MEMORY = in_memory
        assert read.dtype == (torch.uint8 if images.scale is None else torch.float32)
        assert read.shape == (len(images), *images.shape)
        assert images.shape[0] in (1, 3, 4)
        resized = image_shape is not None or isinstance(images, Photographs)
        if images.kept is None and not resized and images.shape[0] == 3 and not skip:
            for (_, pixels), image in zip(files, read.numpy(), strict=True):
                if pixels is not None:
                    np.testing.assert_array_equal(image, pixels.transpose(2, 0, 1))


# Archives and caches


PIXELS = np.random.default_rng(1).integers(0, 256, (6, 6, 7, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """Return the bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


PNGS = [png(pixels) for pixels in PIXELS]
KINDS = [tarfile.REGTYPE, *(bytes([kind]) for kind in b"1234567xgLKSDMV\0z")]
SIZES = [0, 1, 60, 511, 512, 513, 5000, 2**20, 2**33, 2**63, 2**80, -1, -512, -(2**40)]
NAMES = [
    "a/0.png",
    "../a/0.png",
    "/a/0.png",
    "train/a/0.png",
    "a",
    "a/0.txt",
    "a/.0.png",
    "",
    "a/\udc80.png",
    "a/" * 90,
]
PAX = [
    b"30 path=a/very/long/name.png\n",
    b"18 size=99999999\n",
    b"14 size=-5000\n",
    b"9 hdrcharset=x",
    b"99999999999 a=b\n",
]
Damage = tuple[str, float, int, bytes]
DAMAGES = st.tuples(
    st.sampled_from(["none", "cut", "flip", "insert", "empty", "noise"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 7),
    st.binary(min_size=1, max_size=100),
)


def damaged(data: bytes, damage: Damage) -> bytes:
    """Damage the bytes of a file in one place."""
    how, where, bit, other = damage
    place = int(where * len(data))
    if how == "flip":
        return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
    changed = {"none": data, "cut": data[:place], "insert": data[:place] + other + data[place:], "empty": b""}
    return changed.get(how, other)


@st.composite
def forged_members(draw: Any) -> bytes:
    """Draw a header with a right checksum whose fields may be wrong, and what follows it."""
    info = tarfile.TarInfo(draw(st.sampled_from(NAMES)))
    body = draw(st.sampled_from([b"", *PNGS[:1], *PAX, bytes(600)]))
    info.type, info.size = draw(st.sampled_from(KINDS)), draw(st.sampled_from([len(body), len(body), *SIZES]))
    info.linkname = draw(st.sampled_from(["", "a/0.png", "/etc/passwd"]))
    try:
        header = info.tobuf(tarfile.GNU_FORMAT)
    except (ValueError, OverflowError):  # a number that no header can hold
        header = bytes(10) + b"junk" * 100
    return header + body + bytes(-len(body) % 512)


def check_archives(form: str, members: list[bytes | int], damage: Damage) -> None:
    """Archives and .npz files are read rightly, also from their decoded copies, or refused in a sentence."""
    with watched() as folder:
        file = io.BytesIO()
        plain = [i for i in members if isinstance(i, int)]
        if form == "npz":
            np.savez_compressed(file, X=PIXELS[plain], y=np.array(plain))
            data = file.getvalue()
        else:
            for place, member in enumerate(members):
                if isinstance(member, int):
                    info = tarfile.TarInfo(f"{member}/{place}.png")
                    info.size = len(PNGS[member])
                    file.write(info.tobuf() + PNGS[member] + bytes(-len(PNGS[member]) % 512))
                else:
                    file.write(member)
            data = {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress}.get(form, bytes)(
                file.getvalue() + bytes(1024)
            )
        path = folder / ("small.npz" if form == "npz" else "small.tar")
        path.write_bytes(damaged(data, damage))
        for _ in range(2):
            try:
                images, y = load_images(path, max_bytes=2**20)
            except REFUSALS as error:
                check_refusal(error, r"small\.(npz|tar)")
                whole = damage[0] == "none" and len(plain) == len(members) > 0
                assert not whole, f"it is whole: {error!r}"  # noqa: PT017 - no test expects it
                return
            assert len(images) == len(y)
            if len(plain) == len(members) and (form != "tar" or damage[0] == "none"):  # a tar archive has no checksum
                order = sorted(range(len(plain)), key=lambda k: (str(plain[k]), f"{k}.png"))
                order = order if form != "npz" else list(range(len(plain)))
                assert [int(name) for name in y] == [plain[k] for k in order]
                np.testing.assert_array_equal(images, PIXELS[[plain[k] for k in order]])


def check_caches(kind: str, bad: bool, damage: Damage, note: str) -> None:
    """Images come out of a damaged cache as they come out of their files."""
    with watched() as folder:
        warnings.filterwarnings("ignore", message="The decoded .* decoded anew|The pictures are packed anew")
        if kind == "archive":
            with tarfile.open(folder / "small.tar", "w") as tar:
                for i, data in enumerate(PNGS):
                    info = tarfile.TarInfo(f"a/{i}.png")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        else:
            for i, data in enumerate(PNGS):
                (folder / f"{i}.png").write_bytes(b"no image" if bad and i == 2 else data)

        def read() -> np.ndarray:
            if kind == "archive":
                return load_images(folder / "small.tar")[0].transpose(0, 3, 1, 2)
            paths = [f"{i}.png" for i in range(len(PNGS))]
            X = pack_images(paths, "pixels", on_bad_image="skip") if kind == "pack" else paths
            images = as_images(X, on_bad_image="skip")
            return images.read(torch.arange(len(images))).numpy()

        in_memory, image_files.MAX_IN_MEMORY = image_files.MAX_IN_MEMORY, 0
        try:
            first = read()
            (file,) = (path for path in Path(folder, "cache").rglob("*") if path.is_file())
            data = file.read_bytes()
            if note:
                data = data[: data.rindex(b"{")] + note.encode()
            elif damage[0] == "flip" and kind == "files":  # the pixels and the reasons in the cache are not verified
                end = data.index(b"\n")
                data = damaged(data[:end], damage) + data[end:]
            elif damage[0] == "flip" and kind == "pack":
                end = first.size
                data = data[:end] + damaged(data[end:], damage)
            else:
                data = damaged(data, damage)
            file.write_bytes(data)
            for _ in range(2):
                np.testing.assert_array_equal(read(), first)
        finally:
            image_files.MAX_IN_MEMORY = in_memory
        expected = PIXELS[[i for i in range(len(PIXELS)) if not bad or i != 2 or kind == "archive"]]
        np.testing.assert_array_equal(first, expected.transpose(0, 3, 1, 2))


# Parameters

X = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
VALUES: list[Any] = [
    -1, 0, 1, 2, 3, 7, True, None, 0.0, 0.5, 1.0, -0.5, 1e9, float("nan"), float("inf"), np.float32(0.5), np.int64(2),
    "", "x", "rotation", "sgd", "cosine", "shared", "auto", "cpu", [], (), {}, [1], (0.2, 1.0), [1, 2], (2, 3),
    object(), int, np.ones(2), {"rotation": 0.5}, torch.nn.Identity(), ["rotation"], [None], ("a",),
]  # fmt: skip
COMPILED = {(method.__name__, "compile") for method in QUICK}  # takes half a minute
PARAMETERS = sorted(
    {(method.__name__, name) for method in QUICK for name in method().get_params(deep=False)} - COMPILED
)
BY_NAME = {method.__name__: method for method in QUICK}


def check_parameters(parameter: tuple[str, str], number: int) -> None:
    """Check that an estimator with any value of a parameter trains, or that the error names the parameter."""
    method, name = parameter
    value = VALUES[number]
    params = {"backbone": "convnet", "epochs": 1, "batch_size": 4, "random_state": 0, **QUICK[BY_NAME[method]]}
    with watched():
        try:
            estimator = BY_NAME[method](**{**params, name: value}).fit(X, np.arange(8) % 2)
            features = estimator.transform(X)
        except REFUSALS as error:
            check_refusal(error, name)
            return
        except FloatingPointError as error:
            check_refusal(error, "diverged")
            return
        assert features.shape[0] == 8
        assert features.ndim == 2
        assert features.dtype == np.float32


#: Checks by name, with the strategies for their arguments.
TARGETS: dict[str, tuple[Callable[..., None], tuple[Any, ...]]] = {
    "images": (
        check_images,
        (arrays(), st.sampled_from(sorted(HOLDERS)), SHAPES, st.booleans(), st.booleans(), st.booleans()),
    ),
    "pictures": (
        check_pictures,
        (st.lists(encoded(), min_size=1, max_size=4), st.sampled_from(PICTURES), SHAPES, st.booleans(), st.booleans()),
    ),
    "archives": (
        check_archives,
        (
            st.sampled_from(["tar", "gz", "xz", "bz2", "npz"]),
            st.lists(st.one_of(st.sampled_from(range(6)), st.sampled_from(range(6)), forged_members()), max_size=6),
            DAMAGES,
        ),
    ),
    "caches": (
        check_caches,
        (
            st.sampled_from(["files", "archive", "pack"]),
            st.booleans(),
            DAMAGES,
            st.sampled_from(
                ["", "", "", "", "{}", "[]", '{"bad": 1}', '{"bad": {"x": ""}}', '{"bad": {"7": ""}}', "["]
            ),
        ),
    ),
    "parameters": (check_parameters, (st.sampled_from(PARAMETERS), st.sampled_from(range(len(VALUES))))),
}


def run(target: str, folder: Path, how: settings, first: int = 0) -> int:
    """Check some cases and return their number."""
    if target in strategies.TARGETS:  # reads files from the folder
        cases, check = strategies.TARGETS[target](folder)
        given_to: tuple[Any, ...] = (cases,)
    else:
        check, given_to = TARGETS[target]
    n = 0

    def one(*case: Any) -> None:
        nonlocal n
        n += 1
        faulthandler.dump_traceback_later(2 * SECONDS, exit=True)  # also shows hangs outside of Python
        check(*case)

    try:
        how(seed(first)(given(st.tuples(*given_to))(lambda case: one(*case))))()
    finally:
        faulthandler.cancel_dump_traceback_later()
    return n


def main() -> None:
    """Run the cases of each target and print the rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [*TARGETS, *strategies.TARGETS]
    parser.add_argument("targets", nargs="*", default=names, help=f"of: {', '.join(names)}")
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=math.inf, help="time limit for each target")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    failed = False
    for target in arguments.targets:
        started, n = time.monotonic(), 0
        with tempfile.TemporaryDirectory() as folder:
            while n < arguments.cases and time.monotonic() - started < arguments.seconds:
                how = settings(EASY, max_examples=min(BATCH, arguments.cases - n))
                try:
                    n += run(target, Path(folder), how, arguments.seed + n)
                except BaseException as error:
                    failed = True
                    traceback.print_exception(error)
                    break
        took = time.monotonic() - started
        print(f"{target}: {n} cases in {took:.0f} s, {n / took:.0f} a second", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
