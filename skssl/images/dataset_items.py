"""Items of data sets as images: read batch by batch, in other processes if need be, or once where they are a stream."""

from __future__ import annotations

import io
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from copy import copy
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import effective_n_jobs
from scipy.sparse import issparse
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset
from tqdm.auto import tqdm

from skssl.errors import warn_of_bad
from skssl.images.base import Images, Scale, Shape, describe
from skssl.images.image_files import Size, channels_of, decode_image, inspect_image, is_pil_image
from skssl.images.memory_maps import in_file

_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "ppm", "tif", "tiff", "bmp")  # of images in items with names
_UNREAD = object()


def is_dataset(X: Any) -> bool:
    """Tell a data set with numbered items: torch's, Hugging Face's, or anything like them that is no array.

    Parameters
    ----------
    X : object
        What may be one.

    Returns
    -------
    bool
        Whether it is.
    """
    if isinstance(X, Dataset):
        return not isinstance(X, IterableDataset)
    listed = isinstance(X, (str, bytes, bytearray, list, tuple, range, memoryview, array, Mapping))
    return hasattr(X, "__getitem__") and hasattr(X, "__len__") and not listed and not _is_like_an_array(X)


def is_stream(X: Any) -> bool:
    """Tell what gives one item after the other and has no numbers for them: generators, iterable data sets.

    Parameters
    ----------
    X : object
        What may be one.

    Returns
    -------
    bool
        Whether it is.
    """
    if isinstance(X, IterableDataset):
        return True
    return (
        hasattr(X, "__iter__") and not hasattr(X, "__getitem__") and not isinstance(X, Set) and not _is_like_an_array(X)
    )


class Reader:
    """Brings items to tensors of one shape: that of the first which is read.

    Parameters
    ----------
    where : str
        What the items are items of, for messages.
    channels : int or None
        The channels of pictures; by default those that the first has.
    size : (int, int) or None
        The size that pictures are brought to; by default their own.
    """

    shape: Shape
    dtype: torch.dtype

    def __init__(self, where: str, channels: int | None, size: Size | None) -> None:
        self.where, self.channels, self.size = where, channels, size
        self.first: str | None = None

    def __call__(self, item: Any, i: int) -> Tensor:
        """Bring an item to a tensor (c, h, w) of uint8 or float32; refuse what is no image."""
        name = f"Item {i} of {self.where}"
        image = _image_in(item)
        if is_pil_image(image) or isinstance(image, (io.BytesIO, Path)):
            channels = self.channels or channels_of([inspect_image(image, name)[0]])
            image = decode_image(image, name, channels, self.size)
        if isinstance(image, np.ndarray) and image.ndim in (2, 3) and image.dtype.kind in "uf":
            dtype = np.float32 if image.dtype.kind == "f" else image.dtype.newbyteorder("=")
            with np.errstate(over="ignore"):  # what becomes infinite is refused later
                image = torch.from_numpy(np.array(np.atleast_3d(image), dtype)).permute(2, 0, 1)
        if not isinstance(image, Tensor) or image.ndim not in (2, 3) or not is_dense(image):
            raise TypeError(
                f"{name} is {describe(item)}, but a tensor (c, h, w), a PIL image, an array (h, w) or (h, w, c), the "
                "bytes of an image file, a tuple that begins with one of these, or a dict that holds one was expected."
            )
        if image.dtype != torch.uint8 and not image.is_floating_point():
            raise TypeError(f"{name} is {describe(image)}, but uint8 or floats in [0, 1] were expected.")
        if 0 in image.shape:
            raise ValueError(f"{name} is {describe(image)}, but an image of at least one pixel was expected.")
        image = image.detach() if image.dtype == torch.uint8 else image.detach().float()
        return image if image.ndim == 3 else image[None]

    def check_alike(self, tensor: Tensor, i: int) -> None:
        """Refuse an item that is unlike the first."""
        if self.first is None:
            self.first = f"item {i}"
            self.shape, self.dtype = (tensor.shape[0], tensor.shape[1], tensor.shape[2]), tensor.dtype
            self.channels = self.shape[0]
        elif tensor.shape != self.shape or tensor.dtype != self.dtype:
            raise ValueError(
                f"Item {i} of {self.where} is a {describe(tensor)}, but {self.first} has the shape {self.shape} and "
                f"is of {self.dtype}; only pictures are brought to one size, and only where image_shape says to which."
            )

    def check_range(self, batch: Tensor, numbers: Sequence[int]) -> tuple[int, str] | None:
        """Find the first item with floats beyond [0, 1], and say what is wrong with it."""
        if not batch.is_floating_point():
            return None
        low, high = batch.flatten(1).aminmax(dim=1)
        beyond = ~((low >= -0.1) & (high <= 1.1))  # some room for what an interpolation overshoots
        if not beyond.any():
            return None
        k = int(beyond.nonzero()[0])
        return numbers[k], (
            f"Item {numbers[k]} of {self.where} gives floats from {low[k]:.3g} to {high[k]:.3g}, but uint8 or floats "
            "in [0, 1] were expected: leave the normalisation to the estimator."
        )


class DatasetImages(Images):
    """Images of a data set, read when they are asked for.

    Parameters
    ----------
    dataset : object with ``__len__`` and ``__getitem__``
        The data set.
    channels, size : int and (int, int), or None
        What pictures are brought to.
    scale : (float, float) or None
        As in `Images`; by default floats are left as they are.
    skip : bool
        Whether the next item that can be read stands in for one that cannot.
    n_jobs : int or None
        How many processes read in `batches`.
    """

    def __init__(
        self,
        dataset: Any,
        channels: int | None,
        size: Size | None,
        scale: Scale | None,
        skip: bool = False,
        n_jobs: int | None = None,
    ) -> None:
        self._dataset, self._length, self._device = dataset, length_of(dataset), torch.device("cpu")
        self._skip, self._n_jobs = skip, effective_n_jobs(n_jobs)
        self._bad: dict[int, str] = {}  # what is wrong with items that cannot be read
        self._reader = Reader("the data set X", channels, size)
        self._gather([0])
        self.shape = self._reader.shape
        self.scale = scale or (0.0, 1.0) if self._reader.dtype.is_floating_point else None

    def __len__(self) -> int:
        return self._length

    def read(self, index: Tensor) -> Tensor:
        """Read the images at some indices."""
        return self._there(self._gather(index.tolist())[1])

    def batches(self, indices: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Read one batch after the other."""
        before = len(self._bad)
        if self._n_jobs == 1:
            for index in indices:
                found, batch = self._gather(index.tolist())
                yield torch.tensor(found), self._there(batch)
        else:
            for read in self._ahead(indices):
                if isinstance(read, Exception):
                    raise read
                found, batch, bad = read
                self._bad.update(bad)
                yield found, self._there(batch)
        if len(self._bad) > before:
            warn_of_bad(self._bad, self._length, "the next ones that can took their places")

    def to(self, device: torch.device | str) -> Images:
        """Return the same images on another device."""
        moved = copy(self)
        moved._device = torch.device(device)
        moved.__dict__.pop("_loader", None)
        return moved

    def close(self) -> None:
        """End the processes that read ahead."""
        loader = self.__dict__.pop("_loader", None)
        if loader is not None and loader._iterator is not None:
            loader._iterator._shutdown_workers()  # torch has no public way, but to wait for the garbage collector

    def _ahead(self, indices: Sequence[Tensor]) -> Iterator[Any]:
        """Let other processes read, which stay until `close`."""
        if not hasattr(self, "_loader"):
            on_host = copy(self)
            on_host._device = torch.device("cpu")
            self._plan: list[Tensor] = []
            self._loader = DataLoader(
                _Batches(on_host),
                batch_size=None,
                sampler=self._plan,
                num_workers=self._n_jobs,
                pin_memory=self._device.type == "cuda",
                persistent_workers=True,
                generator=torch.Generator().manual_seed(torch.initial_seed()),  # leaves the global one as it is
            )
        self._plan[:] = indices
        return iter(self._loader)

    def _there(self, batch: Tensor) -> Tensor:
        return self._unit(batch.to(self._device, non_blocking=True))

    def _gather(self, indices: list[int]) -> tuple[list[int], Tensor]:
        """Read items, on the host; return which they are, as some may stand in for others, and their images."""
        items = self._at_once(indices)
        while True:
            numbers, tensors = zip(*map(self._readable, indices, items), strict=True)
            for i, tensor in zip(numbers, tensors, strict=True):
                self._reader.check_alike(tensor, i)
            batch = torch.stack(tensors)
            beyond = self._reader.check_range(batch, numbers)
            if beyond is None:
                return list(numbers), batch
            if not self._skip:
                raise ValueError(beyond[1])
            self._bad.update([beyond])

    def _at_once(self, indices: list[int]) -> Sequence[Any]:
        """Ask for a batch of items as a whole, where the data set can do that and does not fail."""
        unread = [_UNREAD] * len(indices)
        if not hasattr(self._dataset, "__getitems__"):
            return unread
        try:
            items = self._dataset.__getitems__(indices)
        except Exception:  # one by one it will be told which item fails
            return unread
        if not isinstance(items, (list, tuple)) or len(items) != len(indices):
            raise TypeError(
                f"The data set X gives {describe(items)} for {len(indices)} items through __getitems__, but a list of "
                "as many was expected."
            )
        return items

    def _readable(self, i: int, item: Any) -> tuple[int, Tensor]:
        """Bring an item to a tensor, or else the next one that can be read if bad ones are to be skipped."""
        for j in (k % self._length for k in range(i, i + self._length)):
            if j not in self._bad:
                try:
                    return j, self._reader(self._item(j) if item is _UNREAD else item, j)
                except (TypeError, ValueError) as error:
                    if not self._skip:
                        raise
                    self._bad[j] = str(error)
            item = _UNREAD
        raise ValueError(
            f"None of the {self._length} items of the data set X can be read, the first since: {self._bad[0]}"
        )

    def _item(self, i: int) -> Any:
        try:
            return self._dataset[i]
        except Exception as error:
            raise ValueError(f"Item {i} of the data set X cannot be read: {_reason(error)}") from error


class _Batches(Dataset):
    """What a process that reads is given: whole batches by their items' numbers."""

    def __init__(self, images: DatasetImages) -> None:
        self._images = images

    def __getitem__(self, index: Tensor) -> Any:
        """Read a batch, or return what is wrong, which would come through a raise in many lines."""
        try:
            found, batch = self._images._gather(index.tolist())
        except (TypeError, ValueError) as error:
            return error
        return torch.tensor(found), batch, self._images._bad


def length_of(dataset: Any) -> int:
    """Return the length of a data set, or refuse it if it has none.

    Parameters
    ----------
    dataset : object
        A data set with numbered items.

    Returns
    -------
    int
        How many.
    """
    try:
        return len(dataset)
    except Exception as error:
        raise TypeError(
            f"X is a {type(dataset).__name__}, a data set without a length, but one with __len__ and __getitem__, or "
            f"one to go through, was expected: {error}"
        ) from error


def read_stream(
    stream: Iterable[Any], channels: int | None, size: Size | None, skipped: dict[int, str] | None
) -> tuple[np.ndarray, int]:
    """Go once through items, of which only one is in memory at a time.

    Parameters
    ----------
    stream : iterable
        Items as those of a data set.
    channels, size : int and (int, int), or None
        What pictures are brought to.
    skipped : dict of int to str or None
        Where items that cannot be read are entered, with what is wrong; None refuses them.

    Returns
    -------
    data : ndarray of uint8 or float32, shape (n, c, h, w)
        The images, mapped from a temporary file that goes with them.
    n_items : int
        How many items there were.
    """
    reader, items, n_items = Reader("X", channels, size), iter(stream), 0

    def parts() -> Iterator[np.ndarray]:
        nonlocal n_items
        with tqdm(desc="Reading", unit=" images", unit_scale=True, delay=1.0) as bar:
            while (item := _next(items, n_items)) is not _UNREAD:
                i, n_items = n_items, n_items + 1
                try:
                    image = reader(item, i)
                    beyond = reader.check_range(image[None], [i])
                    if beyond:
                        raise ValueError(beyond[1])
                except (TypeError, ValueError) as error:
                    if skipped is None:
                        raise
                    skipped[i] = str(error)
                    continue
                reader.check_alike(image, i)
                bar.update()
                yield image[None].cpu().numpy()

    return in_file(parts()), n_items


def _is_like_an_array(X: Any) -> bool:
    """Tell what becomes an array, or is a file, from what has items."""
    return issparse(X) or any(
        hasattr(X, name) for name in ("__array__", "__array_interface__", "__dataframe__", "read")
    )


def peek(stream: Iterable[Any]) -> tuple[Any, Iterable[Any]]:
    """Look at the first item of a stream.

    Parameters
    ----------
    stream : iterable
        Items.

    Returns
    -------
    first : object
        The first item, None if there is none.
    stream : iterable
        The stream from its beginning.
    """
    items = iter(stream)
    first = _next(items, 0)
    return (None, ()) if first is _UNREAD else (first, chain([first], items))


def _next(items: Iterator[Any], i: int) -> Any:
    """Take the next item of a stream, `_UNREAD` at its end; name the one at which it breaks."""
    try:
        return next(items, _UNREAD)
    except Exception as error:
        raise ValueError(f"Item {i} of X cannot be read, nor what comes after it: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Say what went wrong, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def is_dense(image: Tensor) -> bool:
    """Tell whether a tensor has a number in memory for each of its places.

    Parameters
    ----------
    image : Tensor
        Any.

    Returns
    -------
    bool
        False if it is sparse, quantised, nested or without memory.
    """
    return image.layout == torch.strided and not image.is_quantized and not image.is_meta and not image.is_nested


def _image_in(item: Any) -> Any:
    """Find what is the image in an item: the first of a tuple, what a dict calls so, else its first that looks so."""
    if isinstance(item, (tuple, list)) and len(item) > 0:
        item = item[0]
    if isinstance(item, Mapping) and not {"bytes", "path"} <= item.keys():
        named = [item[name] for name in _NAMES if name in item]
        item = next(iter(named + [value for value in item.values() if _looks_like_one(value)]), item)
    if isinstance(item, Mapping) and {"bytes", "path"} <= item.keys():  # Hugging Face's, not decoded
        item = Path(item["path"]) if item["bytes"] is None and item["path"] else item["bytes"]
    return io.BytesIO(item) if isinstance(item, (bytes, bytearray)) else item


def _looks_like_one(value: Any) -> bool:
    """Tell an image by its kind."""
    return is_pil_image(value) or (isinstance(value, (np.ndarray, Tensor)) and value.ndim in (2, 3))
