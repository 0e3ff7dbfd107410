"""Full disks, killed and hanging processes, damaged caches, and files that should not be opened."""

from __future__ import annotations

import io
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Items
from PIL import EpsImagePlugin, Image

from skssl.datasets import make_shapes
from skssl.images import as_images, image_files

X16 = make_shapes(12, image_size=16, random_state=1)[0]
NCHW = X16.transpose(0, 3, 1, 2)


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Send all files to the cache, whatever their size, and return the folder of the decoded files."""
    monkeypatch.setattr(image_files, "MAX_IN_MEMORY", 0)
    monkeypatch.setenv("SKSSL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "packed"


def save(folder: Path, ending: str = "png") -> list[str]:
    folder.mkdir(exist_ok=True)
    paths = [str(folder / f"{i}.{ending}") for i in range(len(X16))]
    for path, image in zip(paths, X16, strict=True):
        Image.fromarray(image).save(path)
    return paths


def read(X: Any, **how: Any) -> np.ndarray:
    images = as_images(X, **how)
    return images.read(torch.arange(len(images))).numpy()


# Full disks and killed processes


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Return a function that limits the size of the files that this process writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda n_bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("allocates", [True, False])
def test_disk_without_room_is_reported_and_leaves_no_file(
    allocates: bool, tmp_path: Path, packed: Path, small_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = save(tmp_path)
    if not allocates:
        monkeypatch.delattr(os, "posix_fallocate")
    small_files(X16.nbytes // 2)
    with pytest.raises(OSError, match=r"take at least 0\.0 GB, but .*packed' has no room .* SKSSL_CACHE"):
        as_images(paths)
    assert not list(packed.iterdir())


DECODE_AND_WAIT = """
import sys, time
from skssl.images import as_images, image_files
image_files.MAX_IN_MEMORY = 0
decode = image_files.decode_image
def wait(*args):
    print("decoding", flush=True)
    time.sleep(60)
image_files.decode_image = wait
as_images(sys.argv[1:])
"""


def test_files_of_killed_processes_are_removed_and_those_of_living_ones_are_kept(tmp_path: Path, packed: Path) -> None:
    paths, others = save(tmp_path / "a"), save(tmp_path / "b")
    with subprocess.Popen([sys.executable, "-c", DECODE_AND_WAIT, *paths], stdout=subprocess.PIPE, stderr=-3) as child:
        assert child.stdout is not None
        child.stdout.readline()
        (unfinished,) = packed.iterdir()
        assert unfinished.stat().st_size > X16.nbytes, "the space is allocated"
        np.testing.assert_array_equal(read(others), NCHW)
        assert unfinished.exists(), "its process lives"
        child.send_signal(signal.SIGKILL)
    np.testing.assert_array_equal(read(others[::-1]), NCHW[::-1])
    assert not unfinished.exists()
    assert len(list(packed.iterdir())) == 2


# Damaged and outdated caches


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-1],
        lambda whole: whole[:1000],
        lambda whole: b"",
        lambda whole: whole.replace(b"|u1", b"|i1"),
        lambda whole: whole[: whole.rindex(b"{")] + b"no JSON",
        lambda whole: whole[: whole.rindex(b"{")] + b'{"bad": []}',
        lambda whole: whole[: whole.rindex(b"{")] + b'{"bad": {"99": "none"}}',
        lambda whole: whole[: whole.rindex(b"{")] + b"[" * 100_000,
    ],
)
def test_damaged_file_of_the_cache_is_made_anew_with_a_warning(damage: Any, tmp_path: Path, packed: Path) -> None:
    paths = save(tmp_path)
    read(paths)
    (file,) = packed.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    with pytest.warns(UserWarning, match="are damaged, so they are decoded anew"):
        np.testing.assert_array_equal(read(paths), NCHW)
    assert file.read_bytes() == whole
    np.testing.assert_array_equal(read(paths), NCHW)


@pytest.mark.parametrize("in_place", [True, False])
def test_file_replaced_at_equal_size_and_time_is_decoded_again(in_place: bool, tmp_path: Path, packed: Path) -> None:
    paths = save(tmp_path, "bmp")
    np.testing.assert_array_equal(read(paths), NCHW)
    before = os.stat(paths[0])
    Image.fromarray(X16[1]).save(paths[0] if in_place else tmp_path / "new.bmp")
    if not in_place:
        os.utime(tmp_path / "new.bmp", ns=(before.st_atime_ns, before.st_mtime_ns))
        os.replace(tmp_path / "new.bmp", paths[0])
    os.utime(paths[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(paths[0])
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    np.testing.assert_array_equal(read(paths)[0], NCHW[1])


# Formats and sizes


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\n%%EOF\n"
HOLDERS: dict[str, Callable[[Path], Any]] = {
    "paths": lambda path: [str(path)] * 2,
    "open files": lambda path: [io.BytesIO(path.read_bytes()) for _ in range(2)],
    "items": lambda path: Items([path.read_bytes()] * 2),
    "stream": lambda path: iter([path.read_bytes()] * 2),
    "PIL images": lambda path: [Image.open(io.BytesIO(path.read_bytes())) for _ in range(2)],
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_postscript_is_refused_and_starts_no_program(
    holder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **more: started.append(args))
    (tmp_path / "photo.png").write_bytes(POSTSCRIPT)
    for image_shape in (None, (8, 8, 3)):
        with pytest.raises(ValueError, match=r"cannot be read as an image: its format is PostScript|it is PostScript"):
            as_images(HOLDERS[holder](tmp_path / "photo.png"), image_shape)
    assert not started


@pytest.mark.parametrize(
    ("content", "name"),
    [(b"%PDF-1.4", "PDF"), (b"\0\0\0\x18ftypheic", "HEIC"), (b"no image", "unknown"), (b"", "unknown")],
)
def test_other_formats_are_named(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.png', cannot be read .* its format is {name}, but one of JPEG, PNG"):
        as_images([str(tmp_path / "a.png")] * 2)


def test_all_formats_are_read_that_pillow_knows() -> None:
    assert {"JPEG", "PNG", "TIFF", "BMP", "GIF", "PPM", "TGA"} <= set(image_files._known_formats())
    assert {".jpg", ".jpeg", ".png", ".tif"} <= set(image_files.image_endings())
    assert not {".eps", ".pdf", ".wmf", ".psd"} & set(image_files.image_endings())


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("limit", [100, 200])  # of 256 pixels; Pillow warns from its limit on, and raises at twice that
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_of_too_many_pixels_are_refused_before_they_are_decoded(
    holder: str, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(save(tmp_path)[0])
    given = HOLDERS[holder](path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with monkeypatch.context() as patch:
        patch.setattr(Image.core, "zip_decoder", None, raising=False)
        with pytest.raises(ValueError, match=rf"more than {limit} pixels.* set PIL\.Image\.MAX_IMAGE_PIXELS"):
            as_images(given, (8, 8, 3))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert len(read(HOLDERS[holder](path))) == 2


def test_warnings_of_large_images_as_errors_are_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"Sample 0 of X, the file .* more than 200 pixels"):
            as_images(save(tmp_path))


def test_pipes_are_refused_and_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png', cannot be read as an image: it is no regular file"):
        as_images([str(tmp_path / "a.png")] * 2)


# Worker processes that hang


FIT_ON_ITEMS_THAT_HANG = r"""
import os, sys, time
import numpy as np
from torch.utils.data import DataLoader, Dataset
from skssl import SimCLR

class Hanging(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, i):
        if os.getpid() != parent:
            os.write(1, b"hangs\n")
            time.sleep(1000)
        return np.zeros((16, 16, 3), np.uint8)

parent = os.getpid()
if sys.argv[1] == "while they start":
    start = DataLoader._get_iterator
    DataLoader._get_iterator = lambda self: (start(self), time.sleep(3))[0]
SimCLR(backbone="convnet", epochs=1, batch_size=8, n_jobs=2, device="cpu").fit(Hanging())
"""


@pytest.mark.parametrize("when", ["while they start", "after they have started"])
def test_first_ctrl_c_ends_a_training_whose_worker_processes_hang(when: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FIT_ON_ITEMS_THAT_HANG, when],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as child:
        try:
            assert child.stdout is not None
            for _ in range(2):
                assert child.stdout.readline() == b"hangs\n"
            started = time.monotonic()
            child.send_signal(signal.SIGINT)  # to the parent only
            _, errors = child.communicate(timeout=20)  # which ends when the worker processes have ended, too
        finally:
            if child.returncode is None:
                os.killpg(child.pid, signal.SIGKILL)
    assert time.monotonic() - started < 8, "torch waits 5 seconds for each worker process"
    assert errors.splitlines()[-1] == b"KeyboardInterrupt"
