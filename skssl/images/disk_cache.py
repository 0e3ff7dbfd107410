"""The cache on disk: decoded image files, and temporary files for streams.

It lies in the folder that the environment variable ``SKSSL_CACHE`` names, by default ``~/.cache/skssl``.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np

from skssl.images.base import one_line
from skssl.storage.files import atomic_write

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNFINISHED = re.compile(r"\..+\.(np[yz]|pack)\.[0-9a-f]{8}")  # the names of `atomic_write`'s temporary files

Write = Callable[[int, np.ndarray], None]


def cache_folder() -> Path:
    """Return the folder of the cache: ``SKSSL_CACHE``, or ``~/.cache/skssl``.

    Returns
    -------
    Path
        The folder, which may not exist yet.
    """
    return Path(os.environ.get("SKSSL_CACHE") or "~/.cache/skssl").expanduser()


def file_identity(path: str | os.PathLike[str]) -> tuple[str, int, int, int, int]:
    """Return what tells a file from others and from its earlier content, without reading it.

    Every write to a file, every change of its times and every replacement sets its change time or its inode, which
    programs cannot set. Two writes within a tick of the system's clock (up to 10 ms before Linux 6.13) are not told
    apart, nor are writes that a network file system does not show yet. A copy of a file is another file.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    path : str
        The absolute path.
    inode, size, mtime_ns, ctime_ns : int
        The inode, the size in bytes, and the times of the last modification and the last change in nanoseconds.

    Raises
    ------
    OSError
        If there is no such file.
    """
    # Content is not hashed: blake2b reads 0.7 GB/s, which for ImageNet is three minutes at each start; stat takes 5 s.
    status = os.stat(path)
    return os.path.abspath(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def cached_images(
    paths: Sequence[Any],
    shape: tuple[int, ...],
    decode: Callable[[Write], None],
    bad: dict[int, str] | None,
    dtype: np.dtype,
) -> np.ndarray:
    """Map the decoded image files from the cache; decode them into it first if they are not there.

    The files are known by `file_identity`. A damaged file in the cache is made anew, with a warning. The pixels in it
    are not verified.

    Parameters
    ----------
    paths : sequence of str or path
        The image files.
    shape : tuple of int
        Shape of the decoded images, (n, h, w, channels).
    decode : callable
        Calls the function that it is given with the index and the pixels (h, w, channels) of each image, from several
        threads, and enters the files that cannot be read in `bad`.
    bad : dict of int to str or None
        Receives the index of each file that cannot be read, and the reason. If None, such a file is an error.
    dtype : numpy.dtype
        uint8 or float32.

    Returns
    -------
    numpy.memmap of this shape and dtype
        The images, read-only.

    Raises
    ------
    OSError
        If the disk has no room for them.
    ValueError
        If a file cannot be read and `bad` is None.
    """
    key = hashlib.sha256(repr(shape if dtype == np.uint8 else (*shape, str(dtype))).encode())
    for path in paths:
        try:
            key.update(repr(file_identity(path)).encode())
        except (OSError, ValueError):  # the decoder reports a missing file by name
            key.update(repr(os.fspath(path)).encode())
    file = cache_folder() / "packed" / f"{key.hexdigest()[:32]}.npy"
    found = _read(file, shape, dtype)
    if found is None:
        _write(file, shape, decode, bad, dtype)
        found = _read(file, shape, dtype)
        if found is None:
            raise OSError(f"{str(file)!r} was changed by another program while the images were decoded. Try again.")
    images, reasons = found
    if reasons and bad is None:
        raise ValueError(reasons[min(reasons)])
    if bad is not None:
        bad.update(reasons)
    return images


def _header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """Return the header of an .npy file."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    return header.getvalue()


def _read(file: Path, shape: tuple[int, ...], dtype: np.dtype) -> tuple[np.ndarray, dict[int, str]] | None:
    """Map a file of the cache, and return why images could not be read; None if the file is missing or damaged.

    It is an .npy file, followed by the reasons as JSON. The end of the file shows that it is whole.
    """
    header = _header(shape, dtype)
    try:
        with file.open("rb") as stored:
            if stored.read(len(header)) != header:
                raise ValueError("it has another header")
            stored.seek(math.prod(shape) * dtype.itemsize, os.SEEK_CUR)
            reasons = {int(i): str(reason) for i, reason in json.loads(stored.read())["bad"].items()}
            if not all(0 <= i < shape[0] for i in reasons):
                raise ValueError("it names images that do not exist")
            return np.memmap(stored, dtype, "r", len(header), shape), reasons
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        warnings.warn(
            f"The decoded images in {str(file)!r} are damaged, so they are decoded anew. {one_line(error)}",
            stacklevel=2,
        )
        return None


def _write(
    file: Path, shape: tuple[int, ...], decode: Callable[[Write], None], bad: dict[int, str] | None, dtype: np.dtype
) -> None:
    """Decode images into a file of the cache."""
    header = _header(shape, dtype)
    size = math.prod(shape[1:]) * dtype.itemsize
    end = len(header) + shape[0] * size
    try:
        with write_to_cache(file, end) as unfinished:
            unfinished.write(header)
            lock = Lock()

            def write(i: int, pixels: np.ndarray) -> None:  # a write to a map would end the process if the disk is full
                with lock:
                    unfinished.seek(len(header) + i * size)
                    unfinished.write(np.ascontiguousarray(pixels).data)

            decode(write)
            unfinished.seek(end)
            unfinished.write(json.dumps({"bad": bad or {}}).encode())
    except OSError as error:
        if error.errno in NO_ROOM:
            raise no_room(shape[0] * size, file.parent, error.errno) from error
        raise


@contextmanager
def write_to_cache(file: Path, n_bytes: int = 0) -> Iterator[BinaryIO]:
    """Open a temporary file that becomes a file of the cache once it is complete.

    The temporary files of processes that were killed are removed from the folder. A living process holds a lock on its
    own.

    Parameters
    ----------
    file : Path
        The file. Its folder is created.
    n_bytes : int, default=0
        The number of bytes to allocate at once.

    Yields
    ------
    binary file
        The temporary file.

    Raises
    ------
    OSError
        If the disk has no room for these bytes, or the file cannot be written.
    """
    folder = file.parent
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with _lock_folder(folder) as locked:  # so that no process removes a file before its lock is taken
            if locked:
                _remove_unfinished(folder)
            unfinished = stack.enter_context(atomic_write(file))
            if locked:
                fcntl.flock(unfinished, fcntl.LOCK_EX)
        if n_bytes:
            _allocate(unfinished, n_bytes)
        yield unfinished


@contextmanager
def _lock_folder(folder: Path) -> Iterator[bool]:
    """Lock a folder, and return whether the file system supports that."""
    if fcntl is None:
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            locked = True
        except OSError:
            locked = False
        yield locked
    finally:
        os.close(handle)


def _remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that no process holds a lock on."""
    for path in folder.iterdir():
        if _UNFINISHED.fullmatch(path.name):
            with suppress(OSError), path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _allocate(file: BinaryIO, n_bytes: int) -> None:
    """Allocate the space of a file; where the file system cannot, compare with the free space."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, n_bytes)
            return
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
    if n_bytes > shutil.disk_usage(file.name).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def to_temporary_file(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Write arrays one after the other to an unnamed file in the cache, and map it into memory.

    Parameters
    ----------
    parts : iterable of ndarray of shape (m, ...)
        Arrays of one dtype, whose shapes differ in the first axis only.

    Returns
    -------
    ndarray of shape (n, ...)
        The concatenated arrays: a read-only `numpy.memmap`. The file is deleted with it.

    Raises
    ------
    OSError
        If the disk has no room for them.
    """
    folder, n, part = cache_folder(), 0, np.empty(0)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        for part in parts:
            n += len(part)
            try:
                file.write(np.ascontiguousarray(part).data)
                file.flush()
            except OSError as error:
                raise no_room(n * part[:1].nbytes, folder, error.errno) from error
        return np.memmap(file, part.dtype, "r", shape=(n, *part.shape[1:])) if n else part


def no_room(
    n_bytes: int, folder: Path, code: int | None = None, remedy: str = "the environment variable SKSSL_CACHE"
) -> OSError:
    """Return the error for images that do not fit into the cache.

    Parameters
    ----------
    n_bytes : int
        Bytes that the images take at least.
    folder : Path
        The folder without room.
    code : int, default=None
        The system's error number, by default that of a full disk.
    remedy : str, default="the environment variable SKSSL_CACHE"
        What chooses the folder.

    Returns
    -------
    OSError
        The error, to be raised.
    """
    return OSError(
        code or errno.ENOSPC,
        f"The images in X take at least {n_bytes / 1e9:.1f} GB, but {str(folder)!r} has no room for them. Set "
        f"{remedy} to a folder on a larger disk.",
    )
