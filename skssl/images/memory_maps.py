"""Memory-mapped arrays, read in chunks so that little of the file stays in memory.

Linux counts every page that was read from a mapped file as resident until memory runs short, so a training would seem
to take as much memory as the file. Here pages are released as reading proceeds. The system's file cache keeps them.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np

MAX_IN_MEMORY = 2**30  # bytes; larger arrays stay in mapped files
MAX_RESIDENT = 2**26  # bytes of a mapped file's pages that may stay resident
FAULT_AROUND = 2**21  # bytes that Linux may map along with the page that is read
CHUNK = 2**22  # bytes of a chunk


class MappedFile:
    """A file mapping whose resident pages are limited.

    Parameters
    ----------
    pages : mmap.mmap
        The mapping.
    private : bool
        Whether the mapping is copy-on-write. Its pages are kept, as they may hold changes that no file has.
    """

    def __init__(self, pages: mmap.mmap, private: bool) -> None:
        self._pages, self._bytes_read = pages, 0
        self._advice = None if private or len(pages) <= MAX_RESIDENT else getattr(mmap, "MADV_DONTNEED", None)

    def count_read(self, n_bytes: int, n_places: int = 1) -> None:
        """Count bytes that were read, and release the pages when there are too many.

        Parameters
        ----------
        n_bytes : int
            Number of bytes.
        n_places : int, default=1
            Number of places in the file that they come from.
        """
        self._bytes_read += n_bytes + n_places * FAULT_AROUND
        if self._bytes_read > MAX_RESIDENT // 2:
            self.release()

    def rows_per_read(self, row_bytes: int) -> int:
        """Return the number of rows to read between two releases.

        Parameters
        ----------
        row_bytes : int
            Bytes of a row.

        Returns
        -------
        int
            The number of rows, at least 1.
        """
        return max(1, MAX_RESIDENT // 2 // (row_bytes + FAULT_AROUND))

    def chunks(self, data: Any) -> Iterator[Any]:
        """Iterate over an array in this file by chunks of rows, and release the pages after each.

        Parameters
        ----------
        data : ndarray or Tensor of shape (n, ...)
            The array.

        Yields
        ------
        ndarray or Tensor of shape (m, ...)
            The next rows.
        """
        rows = max(1, CHUNK * len(data) // max(data.nbytes, 1))
        for start in range(0, len(data), rows):
            yield data[start : start + rows]
            self.release()

    def release(self) -> None:
        """Release all pages where the system supports it; the next read takes them from the file."""
        self._bytes_read = 0
        if self._advice is not None:
            self._pages.madvise(self._advice)


def mapped_file_of(array: Any) -> MappedFile | None:
    """Return the mapped file that an array is a view of.

    Parameters
    ----------
    array : object
        An array, or any other object.

    Returns
    -------
    MappedFile or None
        None if `array` is no view of a mapped file.

    Examples
    --------
    >>> import numpy as np
    >>> mapped_file_of(np.zeros(3)) is None
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
    if mode is None:  # an mmap that numpy.memmap did not make
        with memoryview(array) as view:
            return MappedFile(array, private=not view.readonly)
    return MappedFile(array, private=mode == "c")
