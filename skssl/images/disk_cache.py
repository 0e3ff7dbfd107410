"""The cache on disk: decoded image files, and temporary files for streams.

It lies in the folder that the environment variable ``SKSSL_CACHE`` names, by default ``~/.cache/skssl``.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from skssl.storage.files import atomic_write, write_bytes


def cache_folder() -> Path:
    """Return the folder of the cache: ``SKSSL_CACHE``, or ``~/.cache/skssl``.

    Returns
    -------
    Path
        The folder, which may not exist yet.
    """
    return Path(os.environ.get("SKSSL_CACHE") or "~/.cache/skssl").expanduser()


def cached_images(
    paths: Sequence[Any],
    shape: tuple[int, ...],
    decode: Callable[[np.ndarray], None],
    bad: dict[int, str] | None,
) -> np.ndarray:
    """Map the decoded image files from the cache; decode them into it first if they are not there.

    The files are known by their paths, sizes and modification times.

    Parameters
    ----------
    paths : sequence of str or path
        The image files.
    shape : tuple of int
        Shape of the decoded images, (n, h, w, channels).
    decode : callable
        Fills an array of this shape, and enters the files that cannot be read in `bad`.
    bad : dict of int to str or None
        Receives the index of each file that cannot be read, and the reason. If None, such a file is an error.

    Returns
    -------
    numpy.memmap of uint8 and this shape
        The images, read-only.

    Raises
    ------
    OSError
        If the disk has no room for them.
    ValueError
        If a file cannot be read and `bad` is None.
    """
    key = hashlib.sha256(repr(shape).encode())
    for path in paths:
        key.update(os.fsencode(os.path.abspath(path)))
        with suppress(OSError, ValueError):  # the decoder reports a missing file by name
            status = os.stat(path)
            key.update(f"\0{status.st_size} {status.st_mtime_ns}\0".encode())
    folder = cache_folder() / "packed"
    file = folder / f"{key.hexdigest()[:32]}.npy"
    bad_file = file.with_suffix(".json")  # the files that could not be read, by index
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if math.prod(shape) > shutil.disk_usage(folder).free:
            raise no_room(math.prod(shape), folder)
        with atomic_write(file) as unfinished:
            decode(np.lib.format.open_memmap(unfinished.name, mode="w+", dtype=np.uint8, shape=shape))
            if bad:
                write_bytes(bad_file, json.dumps(bad).encode())
    if bad_file.exists():
        reasons = {int(i): reason for i, reason in json.loads(bad_file.read_text()).items()}
        if bad is None:
            raise ValueError(reasons[min(reasons)])
        bad.update(reasons)
    return np.load(file, mmap_mode="r")


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


def no_room(n_bytes: int, folder: Path, code: int | None = None) -> OSError:
    """Return the error for images that do not fit into the cache.

    Parameters
    ----------
    n_bytes : int
        Bytes that the images take at least.
    folder : Path
        The folder without room.
    code : int, default=None
        The system's error number, by default that of a full disk.

    Returns
    -------
    OSError
        The error, to be raised.
    """
    return OSError(
        code or errno.ENOSPC,
        f"The images in X take at least {n_bytes / 1e9:.1f} GB, but {str(folder)!r} has no room for them. Set the "
        "environment variable SKSSL_CACHE to a folder on a larger disk.",
    )
