"""Streams, which can be read once: generators and iterable data sets. They are stored in a temporary file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from itertools import chain
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset
from tqdm.auto import tqdm

from skssl.images.arrays import StoredTensor
from skssl.images.base import Size, one_line
from skssl.images.dataset_items import ItemReader, is_array_like
from skssl.images.disk_cache import to_temporary_file
from skssl.images.labels import label_in

_END = object()


def is_stream(X: Any) -> bool:
    """Return whether X yields items without indices: a generator, an iterable data set or similar.

    Parameters
    ----------
    X : object
        Any object.

    Returns
    -------
    bool
        False for arrays, lists, files and data sets with indexed items.
    """
    if isinstance(X, IterableDataset):
        return True
    return hasattr(X, "__iter__") and not hasattr(X, "__getitem__") and not isinstance(X, Set) and not is_array_like(X)


def peek(stream: Iterable[Any]) -> tuple[Any, Iterable[Any]]:
    """Return the first item of a stream without losing it.

    Parameters
    ----------
    stream : iterable
        The items.

    Returns
    -------
    first : object
        The first item. None if the stream is empty.
    stream : iterable
        All items, the first included.
    """
    items = iter(stream)
    first = _next(items, 0)
    return (None, ()) if first is _END else (first, chain([first], items))


def store_stream(
    stream: Iterable[Any], channels: int | None, size: Size | None, bad: dict[int, str] | None
) -> tuple[StoredTensor, list[Any]]:
    """Read a stream once into a temporary file. Only one item is in memory at a time.

    Parameters
    ----------
    stream : iterable
        Items such as those of a data set.
    channels, size : int and (int, int), or None
        See `ItemReader`.
    bad : dict of int to str or None
        Receives the index of each item that cannot be read, and the reason. If None, such an item is an error.

    Returns
    -------
    stored : StoredTensor of uint8 or float32, shape (n, c, h, w)
        The images.
    labels : list of n_items int, float, str or None
        The label of each item, bad ones included; None where it has none.

    Raises
    ------
    OSError
        If the disk has no room for the images.
    TypeError, ValueError
        If an item cannot be read and `bad` is None, or if items differ in shape or dtype.
    """
    reader, items = ItemReader("X", channels, size), iter(stream)
    labels: list[Any] = []

    def images() -> Iterator[np.ndarray]:
        with tqdm(desc="Reading", unit=" images", unit_scale=True, delay=1.0) as bar:
            while (item := _next(items, len(labels))) is not _END:
                i = len(labels)
                labels.append(label_in(item))
                try:
                    image = reader(item, i)
                    found = reader.out_of_range(image[None], [i])
                    if found:
                        raise ValueError(found[1])
                except (TypeError, ValueError) as error:
                    if bad is None:
                        raise
                    bad[i] = str(error)
                    continue
                reader.check_consistent(image, i)
                bar.update()
                yield image[None].cpu().numpy()

    return StoredTensor.from_numpy(to_temporary_file(images())), labels


def _next(items: Iterator[Any], i: int) -> Any:
    """Return the next item of a stream, or `_END`; name the item if that fails."""
    try:
        return next(items, _END)
    except Exception as error:
        raise ValueError(f"Item {i} of X and all after it cannot be read: {one_line(error)}") from error
