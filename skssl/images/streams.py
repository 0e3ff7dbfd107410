"""Streams, which can be read once: generators and iterable data sets. They are stored in a temporary file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import IterableDataset
from tqdm.auto import tqdm

from skssl.images.arrays import StoredTensor
from skssl.images.base import describe, one_line
from skssl.images.dataset_items import ItemReader, image_in, is_array_like, is_picture
from skssl.images.disk_cache import to_temporary_file
from skssl.images.image_files import are_deep, channels_for, decode_image, inspect_image
from skssl.images.labels import label_in
from skssl.images.packed import PackedImages, temporary_pack

_END = object()
_SHALLOW, _DEEP = "pictures of 8 bits", "pictures of more than 8 bits"
_SHALLOW, _DEEP = "pictures of 8 bits", "pictures of more than 8 bits"


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


class StoredStream(NamedTuple):
    """The images of a stream, in a temporary file.

    Attributes
    ----------
    images : PackedImages, or StoredTensor of uint8 or float32 and shape (n, c, h, w)
        Pictures of 8 bits in their own sizes, or images of one shape.
    labels : list of int, float, str or None
        The label of each item, bad ones included; None where it has none.
    has_range : bool
        Whether the images are floats of any range. Otherwise floats are in [0, 1].
    """

    images: PackedImages | StoredTensor
    labels: list[Any]
    has_range: bool


def store_stream(stream: Iterable[Any], channels: int | None, bad: dict[int, str] | None, deep: bool) -> StoredStream:
    """Read a stream once into a temporary file. Only one item is in memory at a time.

    Parameters
    ----------
    stream : iterable
        Items such as those of a data set, either all arrays or all pictures.
    channels : int or None
        The number of channels that pictures of more than 8 bits are brought to. None is 1.
    bad : dict of int to str or None
        Receives the index of each item that cannot be read, and the reason. If None, such an item is an error.
    deep : bool
        Whether the numbers of pictures are kept as floats if the first picture holds more than 8 bits.

    Returns
    -------
    StoredStream
        The images and labels.

    Raises
    ------
    OSError
        If the disk has no room for the images.
    TypeError, ValueError
        If an item cannot be read and `bad` is None, or if arrays differ in shape or dtype.
    """
    reader, items = _Reader(channels, deep), iter(stream)
    labels: list[Any] = []

    def images() -> Iterator[Any]:
        with tqdm(desc="Reading", unit=" images", unit_scale=True, delay=1.0) as bar:
            while (item := _next(items, len(labels))) is not _END:
                i = len(labels)
                labels.append(label_in(item))
                try:
                    image = reader(item, i)
                except (TypeError, ValueError) as error:
                    if bad is None:
                        raise
                    bad[i] = str(error)
                    continue
                if isinstance(image, Tensor):
                    reader.arrays.check_consistent(image, i)
                bar.update()
                yield image

    read = images()
    first = next(read, None)
    read = chain([] if first is None else [first], read)
    stored: PackedImages | StoredTensor
    if isinstance(first, np.ndarray):
        stored = PackedImages(temporary_pack(read))
    else:
        stored = StoredTensor.from_numpy(to_temporary_file(image[None].cpu().numpy() for image in read))
    return StoredStream(stored, labels, reader.arrays.has_range)


class _Reader:
    """Reads the items of a stream, which are of one kind: arrays, pictures of 8 bits, or pictures of more.

    Parameters
    ----------
    channels, deep
        See `store_stream`.
    """

    def __init__(self, channels: int | None, deep: bool) -> None:
        self.arrays = ItemReader("X", channels, None)
        self._kind: str | None = None
        self._deep = deep

    def __call__(self, item: Any, i: int) -> np.ndarray | Tensor:
        """Return a picture of 8 bits as an array (h, w, c), and any other image as a tensor (c, h, w)."""
        image, name, mode = image_in(item), f"Item {i} of X", ""
        kind = "arrays"
        if is_picture(image):
            mode = inspect_image(image, name)[0]
            self.arrays.deep = self._deep and self._kind != _SHALLOW and are_deep([(mode, (1, 1))], str)
            kind = _DEEP if self.arrays.deep else _SHALLOW
        if self._kind not in (None, kind):
            raise TypeError(
                f"{name} is {describe(item)}, but the items before it are {self._kind}. Give items of one kind."
            )
        read = decode_image(image, name, channels_for([mode])) if kind == _SHALLOW else self.arrays(item, i)
        found = self.arrays.out_of_range(read[None], [i]) if isinstance(read, Tensor) else None
        if found:
            raise ValueError(found[1])
        self._kind = kind
        return read


def _next(items: Iterator[Any], i: int) -> Any:
    """Return the next item of a stream, or `_END`; name the item if that fails."""
    try:
        return next(items, _END)
    except Exception as error:
        raise ValueError(f"Item {i} of X and all after it cannot be read: {one_line(error)}") from error
