"""Arrays in files that are mapped into memory: told from others, gone through in pieces, and kept out of the memory.

Every page that is read from a mapped file stays resident until the system needs its room, so that a training would seem
to take as much memory as there is. Here pages are given back as reading goes on; the file's own cache keeps them.
"""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

KEPT = 2**26  # bytes of pages that may stay resident
AROUND = 2**21  # bytes that a read of a page may bring in with it, on Linux
PIECE = 2**22  # bytes that are gone through at a time


class Mapping:
    """The file mapping below an array.

    Parameters
    ----------
    mapped : mmap.mmap
        The mapping.
    private : bool
        Whether pages hold changes that no file has, and must stay.
    """

    def __init__(self, mapped: mmap.mmap, private: bool) -> None:
        self._mapped, self._read = mapped, 0
        self._drop = None if private or len(mapped) <= KEPT else getattr(mmap, "MADV_DONTNEED", None)

    def touched(self, n_bytes: int, n_places: int = 1) -> None:
        """Count what was read; give the pages back when it is enough.

        Parameters
        ----------
        n_bytes : int
            Bytes.
        n_places : int, default=1
            In how many places of the file.
        """
        self._read += n_bytes + n_places * AROUND
        if self._read > KEPT // 2:
            self.release()

    def at_a_time(self, n_bytes: int) -> int:
        """Tell how many rows may be read before pages are given back.

        Parameters
        ----------
        n_bytes : int
            Bytes of a row.

        Returns
        -------
        int
            At least one.
        """
        return max(1, KEPT // 2 // (n_bytes + AROUND))

    def release(self) -> None:
        """Give all pages back, where the system knows how; the next read finds them in the file."""
        self._read = 0
        if self._drop is not None:
            self._mapped.madvise(self._drop)


def mapping_of(array: Any) -> Mapping | None:
    """Find the file mapping that an array is a view of.

    Parameters
    ----------
    array : object
        Anything.

    Returns
    -------
    Mapping or None
        None if there is no such mapping.

    Examples
    --------
    >>> import numpy as np
    >>> mapping_of(np.zeros(3)) is None
    True
    """
    mode = None
    while isinstance(array, np.ndarray):
        mode = mode or getattr(array, "mode", None)
        array = array.base
    if isinstance(array, memoryview):
        array = array.obj
    if not isinstance(array, mmap.mmap):
        return None
    if mode is None:  # no numpy.memmap
        with memoryview(array) as view:
            return Mapping(array, private=not view.readonly)
    return Mapping(array, private=mode == "c")


def pieces(data: Any, mapping: Mapping | None) -> Iterator[Any]:
    """Go through an array some rows at a time, if it is mapped; their pages are given back.

    Parameters
    ----------
    data : ndarray or Tensor of shape (n, ...)
        The array.
    mapping : Mapping or None
        What `mapping_of` found.

    Yields
    ------
    ndarray or Tensor of shape (m, ...)
        The next rows: all, if there is no mapping.
    """
    rows = len(data) if mapping is None else PIECE * len(data) // max(data.nbytes, 1)
    for start in range(0, len(data), max(rows, 1)):
        yield data[start : start + max(rows, 1)]
        if mapping is not None:
            mapping.release()


def in_file(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Write arrays to a file without a name, one after the other, and map it into memory.

    Parameters
    ----------
    parts : iterable of ndarray of shape (m, ...)
        Arrays of one type, and of one shape but for their first axis.

    Returns
    -------
    ndarray of shape (n, ...)
        All of them; a `numpy.memmap` that cannot be written to, whose file goes with it.

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


def cache_folder() -> Path:
    """Return the folder for what is kept on disk: `SKSSL_CACHE`, or ``~/.cache/skssl``.

    Returns
    -------
    Path
        The folder; it may have to be made.
    """
    return Path(os.environ.get("SKSSL_CACHE") or "~/.cache/skssl").expanduser()


def no_room(n_bytes: int, folder: Path, code: int | None = None) -> OSError:
    """Say that images do not go into the cache's folder, and what to do.

    Parameters
    ----------
    n_bytes : int
        What they take.
    folder : Path
        The folder.
    code : int, default=None
        The system's number of the error; by default that of a full disk.

    Returns
    -------
    OSError
        To be raised.
    """
    return OSError(
        code or errno.ENOSPC,
        f"The images in X take {n_bytes / 1e9:.1f} GB or more, for which {str(folder)!r} has no room: set the "
        "environment variable SKSSL_CACHE to a folder with more.",
    )
