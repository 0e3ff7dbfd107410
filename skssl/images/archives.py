"""Archives of images: tar archives and ``.npz`` files, read within limits and only if they are whole."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import os
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from skssl.images.base import one_line
from skssl.images.folders import is_hidden

_OPEN: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_BLOCK = tarfile.BLOCKSIZE


def read_tar(path: Path, endings: tuple[str, ...], max_bytes: int | None) -> tuple[dict[str, bytes], list[str]]:
    """Read the image files in a tar archive, one by one.

    Parameters
    ----------
    path : Path
        The archive, compressed by gzip, bzip2 or xz, or not compressed.
    endings : tuple of str
        The endings of the names of image files, in lower case. Other files are skipped, as are hidden ones and
        those of operating systems.
    max_bytes : int or None
        The largest number of bytes to unpack, or the archive's own size if that is more. None sets no limit.

    Returns
    -------
    files : dict of str to bytes
        The contents of the image files by their names.
    others : list of str
        The names of the files that are skipped, without hidden ones.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it is no tar archive, is cut or damaged, unpacks to more bytes, or if an image is a link or a device, or has
        a path outside of the archive.
    """
    limit = _limit(path, max_bytes)
    with path.open("rb") as file:
        start = file.read(6)
    unpack = next((unpack for mark, unpack in _OPEN.items() if start.startswith(mark)), open)
    files: dict[str, bytes] = {}
    others: list[str] = []
    total = 0.0
    try:
        with unpack(path, "rb") as unpacked:
            stream = _Bounded(unpacked, limit)
            with tarfile.open(fileobj=stream, mode="r:") as members:  # type: ignore[call-overload]
                for member in members:
                    if member.size < 0 or members.offset <= member.offset:  # tarfile would go back, and read for ever
                        raise ValueError(f"it holds {member.name!r}, whose size is negative")
                    name = member.name.removeprefix("./")
                    steps = name.split("/")
                    if member.isdir() or any(is_hidden(step) for step in steps if step != ".."):
                        continue
                    if not name.lower().endswith(endings):
                        others.append(name)
                        continue
                    if ".." in steps or "" in steps:
                        raise ValueError(f"it holds {name!r}, a path outside of the archive")
                    if not member.isfile():
                        raise ValueError(f"it holds {name!r}, which is a link or a device. Pack the files themselves")
                    total += member.size  # a sparse file unpacks to more than is read
                    if total > limit:
                        raise _too_large(limit)
                    files[name] = members.extractfile(member).read()
                end = members.offset
            stream.seek(end)
            if stream.read(_BLOCK) != bytes(_BLOCK):  # tarfile stops at any block that is no header
                raise ValueError("it does not end with an end-of-archive block, so it is cut or damaged")
            while stream.read(2**16):  # to the end, where the checksum is
                pass
    except Exception as error:
        raise ValueError(f"{str(path)!r} cannot be read as a tar archive: {_reason(error)}.") from error
    return files, sorted(others)


def read_npz(
    path: Path, pairs: Sequence[tuple[str, str]], max_bytes: int | None
) -> tuple[np.ndarray, np.ndarray] | list[str]:
    """Read images and labels from an ``.npz`` file.

    Parameters
    ----------
    path : Path
        The file.
    pairs : sequence of (str, str)
        The names of the images and of the labels; the first pair that the file has is read.
    max_bytes : int or None
        The largest number of bytes to unpack, or the file's own size if that is more. None sets no limit.

    Returns
    -------
    X : ndarray of shape (n, ...)
        The images.
    y : ndarray of shape (n,)
        The labels. If the file has none of the pairs, the result is the list of the names that it has.

    Raises
    ------
    ValueError
        If it is no such file, is cut or damaged, unpacks to more bytes, or if there is not one label for each image.
    """
    limit = _limit(path, max_bytes)
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is another kind of file, or cut. A folder, a tar archive or an .npz file was expected")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            pair = next((pair for pair in pairs if set(pair) <= set(arrays.files)), None)
            if pair is None:
                return list(arrays.files)
            sizes = {info.filename.removesuffix(".npy"): info.file_size for info in arrays.zip.infolist()}
            if sum(sizes[name] for name in pair) > limit:
                raise _too_large(limit)
            X, y = (arrays[name] for name in pair)
        for name, array in zip(pair, (X, y), strict=True):
            if not isinstance(array, np.ndarray) or array.ndim == 0:
                raise ValueError(f"{name!r} is no array of at least one axis")
        if math.prod(y.shape) != len(X):
            raise ValueError(
                f"{pair[0]!r} has {len(X)} images, but {pair[1]!r} has the shape {y.shape}. One label for each image "
                "was expected"
            )
    except Exception as error:
        raise ValueError(f"{str(path)!r} cannot be read as an .npz file: {_reason(error)}.") from error
    return X, y.reshape(-1)


def check_decoded_size(path: Path, shape: Sequence[int], max_bytes: int | None) -> None:
    """Refuse images in an archive that would take too much memory when decoded.

    Parameters
    ----------
    path : Path
        The archive.
    shape : sequence of int
        The shape of the decoded images, of uint8.
    max_bytes : int or None
        The limit, as in `read_tar`.

    Raises
    ------
    ValueError
        If they would take more bytes.
    """
    limit = _limit(path, max_bytes)
    if math.prod(shape) > limit:
        raise ValueError(f"{str(path)!r} cannot be decoded: {_too_large(limit)}.")


class _Bounded:
    """A binary file that raises an error when it is read beyond a limit."""

    def __init__(self, file: BinaryIO, limit: float) -> None:
        self._file, self._limit = file, limit
        self.tell, self.close = file.tell, file.close

    def read(self, size: int = -1) -> bytes:
        left = self._limit + 1 - self._file.tell()
        found = self._file.read(size if left == math.inf else int(left) if size < 0 else min(size, int(left)))
        if self._file.tell() > self._limit:
            raise _too_large(self._limit)
        return found

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET and place > self._limit:
            raise _too_large(self._limit)
        return self._file.seek(place, whence)


def _limit(path: Path, max_bytes: int | None) -> float:
    """Return the number of bytes that an archive may unpack to."""
    return math.inf if max_bytes is None else max(max_bytes, os.path.getsize(path))


def _too_large(limit: float) -> ValueError:
    """Return the error for an archive that unpacks to more than the limit."""
    return ValueError(
        f"it unpacks to more than {limit:,.0f} bytes. A small archive could fill the memory in this way. If you trust "
        "it, set max_bytes to a larger number, or to None"
    )


def _reason(error: Exception) -> str:
    """Return a reason for a message: that of this module, or the type and message of another error."""
    return one_line(error).removeprefix("ValueError: ")
