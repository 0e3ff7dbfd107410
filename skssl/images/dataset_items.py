"""Data sets, whose items are read when they are needed: one item as a tensor, and batches of items."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from joblib import effective_n_jobs
from scipy.sparse import issparse
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset
from tqdm.auto import tqdm

from skssl.errors import warn_of_bad
from skssl.images.arrays import is_dense, unmasked
from skssl.images.base import Images, Scale, Shape, Size, describe, is_pil_image, one_line
from skssl.images.image_files import Header, channels_for, decode_image, inspect_image
from skssl.images.packed import PackedImage, PackedImages

_IMAGE_KEYS = ("image", "img", "jpg", "jpeg", "png", "webp", "ppm", "tif", "tiff", "bmp")  # in items that are dicts
_OVERSHOOT = 0.1  # beyond [0, 1], as bicubic interpolation gives
_PATIENCE = 1.0  # seconds that worker processes have to stop; torch gives each of them 5
_UNREAD = object()
_INSPECTED = 16  # items whose sizes and channels are looked at before the others
AT_ONCE = 32  # items in the memory of a process, where they need not be a batch


def is_dataset(X: Any) -> bool:
    """Return whether X is a data set with indexed items: one of torch, Hugging Face or similar.

    Parameters
    ----------
    X : object
        Any object.

    Returns
    -------
    bool
        False for arrays, lists, files and streams.
    """
    if isinstance(X, Dataset):
        return not isinstance(X, IterableDataset)
    is_builtin = isinstance(X, (str, bytes, bytearray, list, tuple, range, memoryview, array, Mapping, PackedImages))
    return hasattr(X, "__getitem__") and hasattr(X, "__len__") and not is_builtin and not is_array_like(X)


def refuse_loader(X: Any) -> None:
    """Refuse a ``DataLoader``, whose batches, sampler and collate function would not be used.

    Parameters
    ----------
    X : object
        Any object.

    Raises
    ------
    TypeError
        If X is a ``DataLoader``.
    """
    if isinstance(X, DataLoader):
        raise TypeError(
            "X is a DataLoader. Pass its data set, X.dataset: skssl draws the batches itself, by the parameters "
            "batch_size and n_jobs, and augments and normalises the images by the parameter augment, so the data set "
            "needs no random transforms and no normalisation."
        )


def paths_of(dataset: Any) -> list[str] | None:
    """Return the paths of the files in a torchvision ``ImageFolder`` or a subset of one.

    Parameters
    ----------
    dataset : object
        A data set.

    Returns
    -------
    list of str or None
        None unless the items are the files' pictures, without a transform or a loader of the user's own.
    """
    if type(dataset) is Subset:
        paths = paths_of(dataset.dataset)
        return None if paths is None else [paths[i] for i in dataset.indices]
    folder = sys.modules.get("torchvision.datasets.folder")  # loaded if the data set is one of its classes
    if folder is None or type(dataset) not in (folder.ImageFolder, folder.DatasetFolder):
        return None
    plain = dataset.transform is None and dataset.loader in (folder.default_loader, folder.pil_loader)
    return [path for path, _ in dataset.samples] if plain else None


def is_array_like(X: Any) -> bool:
    """Return whether X converts to an array, or is a file, although it has items.

    Parameters
    ----------
    X : object
        Any object.

    Returns
    -------
    bool
        True for arrays, sparse matrices, data frames and file objects.
    """
    return issparse(X) or any(
        hasattr(X, name) for name in ("__array__", "__array_interface__", "__dataframe__", "read")
    )


def length_of(dataset: Any) -> int:
    """Return the number of items in a data set.

    Parameters
    ----------
    dataset : object
        A data set with indexed items.

    Returns
    -------
    int
        The number of items.

    Raises
    ------
    TypeError
        If the data set has no length.
    """
    try:
        return len(dataset)
    except Exception as error:
        raise TypeError(
            f"X is a {type(dataset).__name__}, a data set without a length. Define its __len__, or pass an iterable "
            f"over its items. Error: {one_line(error)}"
        ) from error


class ItemReader:
    """Reads items as tensors, all of the shape and dtype of the first.

    Parameters
    ----------
    source : str
        What the items belong to, for messages.
    channels : int or None
        Channels to which PIL images and encoded images are brought. None: RGB if the first is in colour. If it is grey,
        all must be grey.
    size : (int, int) or None
        Height and width to which they are resized. None keeps their own.
    deep : bool, default=False
        Whether PIL images and encoded images hold more than 8 bits a value, and are read as float32.

    Attributes
    ----------
    has_range : bool
        Whether the first item holds such numbers, whose range is not [0, 1].
    """

    shape: Shape
    dtype: torch.dtype

    def __init__(self, source: str, channels: int | None, size: Size | None, deep: bool = False) -> None:
        self.source, self.channels, self.size, self.deep = source, channels, size, deep
        self.first: int | None = None
        self.has_range = False

    def __call__(self, item: Any, i: int) -> Tensor:
        """Return an item as a tensor (c, h, w) of uint8 or float32; refuse an item that is no image."""
        name = f"Item {i} of {self.source}"
        image = unmasked(image_in(item), name)
        has_range = self.deep and is_picture(image)
        if is_picture(image):
            channels = self.channels or channels_for([inspect_image(image, name)[0]])
            image = decode_image(image, name, channels, self.size, self.deep)
        if isinstance(image, np.ndarray) and image.ndim in (2, 3) and image.dtype.kind in "uifb":
            dtype = np.float32 if image.dtype.kind == "f" else image.dtype.newbyteorder("=")
            with np.errstate(over="ignore"):  # infinite values are refused later
                image = torch.from_numpy(np.array(np.atleast_3d(image), dtype)).permute(2, 0, 1)
        if not isinstance(image, Tensor) or image.ndim not in (2, 3) or not is_dense(image):
            raise TypeError(
                f"{name} is {describe(item)}, but a tensor (c, h, w), a PIL image, an array (h, w) or (h, w, c), the "
                "bytes of an image file, a tuple that begins with one of these, or a dict that holds one was expected."
            )
        is_integer = image.dtype != torch.uint8 and not image.is_floating_point()
        if image.is_complex():
            raise TypeError(f"{name} is {describe(image)}, but real numbers were expected. Convert it in the data set.")
        if 0 in image.shape:
            raise ValueError(f"{name} is {describe(image)}, but an image of at least one pixel was expected.")
        if self.first is None:
            self.has_range = is_integer or has_range
        image = image.detach() if image.dtype == torch.uint8 else image.detach().float()
        return image if image.ndim == 3 else image[None]

    def check_consistent(self, image: Tensor, i: int) -> None:
        """Refuse an item that differs from the first in shape or dtype."""
        if self.first is None:
            self.first = i
            self.shape, self.dtype = (image.shape[0], image.shape[1], image.shape[2]), image.dtype
            self.channels = self.channels or (self.shape[0] if self.shape[0] > 1 else None)
        elif image.shape != self.shape or image.dtype != self.dtype:
            if image.shape[0] != self.shape[0]:
                advice = "image_shape=(h, w, 3) reads all PIL images and encoded images in colour"
            else:
                advice = "image_shape=(h, w) or Augmentation(size=...) reads PIL images and encoded images of any size"
            raise ValueError(
                f"Item {i} of {self.source} is a {describe(image)}, but item {self.first} has the shape {self.shape} "
                f"and the dtype {self.dtype}. Bring all items to one shape and dtype; {advice}."
            )

    def out_of_range(self, batch: Tensor, indices: Sequence[int]) -> tuple[int, str] | None:
        """Return the index of the first item with floats outside [0, 1], and the reason; None if there is none."""
        if self.has_range or not batch.is_floating_point():
            return None
        low, high = batch.flatten(1).aminmax(dim=1)
        outside = ~((low >= -_OVERSHOOT) & (high <= 1 + _OVERSHOOT))  # True for NaN
        if not outside.any():
            return None
        k = int(outside.nonzero()[0])
        return indices[k], (
            f"Item {indices[k]} of {self.source} has floats from {low[k]:.3g} to {high[k]:.3g}, but uint8 or floats in "
            "[0, 1] were expected. Leave the normalisation to the estimator."
        )


class DatasetItems(Images):
    """Images of a data set, whose items are fetched when they are needed. A subclass makes batches of them.

    Parameters
    ----------
    dataset : object with ``__len__`` and ``__getitem__``
        The data set.
    skip : bool
        Whether an item that cannot be read is replaced by the next one that can.
    n_jobs : int or None
        Number of worker processes that make batches. 1 makes them in this process.
    """

    lazy = True

    def __init__(self, dataset: Any, skip: bool, n_jobs: int | None) -> None:
        self._dataset, self._device = dataset, torch.device("cpu")
        self._items: Sequence[int] = range(length_of(dataset))  # the index in the data set of each image
        self._skip, self._n_jobs = skip, effective_n_jobs(n_jobs)
        self._bad: dict[int, str] = {}  # why items cannot be read, by index
        self._warned: set[int] = set()

    @abstractmethod
    def _read_values(self, item: Any, i: int) -> Tensor:
        """Return the values of item i of the data set; raise a TypeError or ValueError if it is bad."""

    @abstractmethod
    def _make(self, request: Any) -> tuple[list[int], Any]:
        """Return the indices of the images in a batch, and the batch on the host."""

    def __len__(self) -> int:
        return len(self._items)

    def to(self, device: torch.device | str) -> Self:
        """Return the same images, whose `read` returns batches on another device."""
        moved = copy(self)
        moved._device = torch.device(device)
        moved.__dict__.pop("_loader", None)
        return moved

    def take(self, index: Tensor) -> Self:
        """Return a subset of the images without reading them; an image of the subset replaces a bad one."""
        subset = copy(self)
        subset._items = [self._items[i] for i in index.tolist()]
        subset.__dict__.pop("_loader", None)
        return subset

    def close(self) -> None:
        """Stop the worker processes; end those that hang."""
        loader = self.__dict__.pop("_loader", None)
        if loader is not None and loader._iterator is not None:
            workers = loader._iterator._workers
            timer = threading.Timer(_PATIENCE, lambda: [worker.terminate() for worker in workers])
            timer.start()
            try:
                loader._iterator._shutdown_workers()  # torch's public way is to wait for the garbage collector
            finally:
                timer.cancel()

    def _value_range(self) -> Scale:
        """Read all images; return the smallest and the largest value."""
        low, high = math.inf, -math.inf
        with tqdm(total=len(self), desc="Reading", unit=" images", unit_scale=True, delay=1.0) as bar:
            for index, ends in self._batches(torch.arange(len(self)).split(AT_ONCE), "_make_ranges"):
                low, high = min(low, float(ends.min())), max(high, float(ends.max()))
                bar.update(len(index))
        self.close()
        return low, high

    def _make_ranges(self, request: Tensor) -> tuple[list[int], Tensor]:
        """Return the indices of images, and the smallest and the largest value of each."""
        indices = request.tolist()
        found, values = self._read_items(indices, self._fetch(indices), self._read_values)
        return found, torch.tensor([[of.min(), of.max()] for of in values])

    def _batches(self, requests: Iterable[Any], make: str = "_make") -> Iterator[tuple[Tensor, Any]]:
        """Make batches in turn, in this process or in worker processes; warn of bad items."""
        if self._n_jobs == 1:
            for request in requests:
                found, batch = getattr(self, make)(request)
                yield torch.tensor(found), batch
        else:
            for result in self._prefetch((make, request) for request in requests):
                if isinstance(result, Exception):
                    raise result
                index, batch, bad = result
                self._bad.update(bad)
                yield index, batch
        if self._bad.keys() - self._warned:
            self._warned.update(self._bad)
            warn_of_bad(self._bad, len(self._dataset), "replaced by the next readable ones")

    def _prefetch(self, requests: Iterable[Any]) -> Iterator[Any]:
        """Make batches in worker processes, which run until `close`."""
        if not hasattr(self, "_loader"):
            on_host = copy(self)
            on_host._device = torch.device("cpu")
            self._requests = _Requests()
            self._loader = DataLoader(
                _BatchDataset(on_host),
                batch_size=None,
                sampler=self._requests,
                num_workers=self._n_jobs,
                pin_memory=self._device.type == "cuda",
                persistent_workers=True,
                worker_init_fn=_end_with_parent,
                generator=torch.Generator().manual_seed(torch.initial_seed()),  # spares the global generator
            )
        self._requests.of_epoch = requests
        with _uninterrupted():  # `close` does not know the worker processes before
            return iter(self._loader)

    def _read_items(
        self, indices: Sequence[int], items: Sequence[Any], read: Callable[[Any, int], Any]
    ) -> tuple[list[int], list[Any]]:
        """Read images from items that have been fetched; return the indices of those that were read, and the images."""
        found, images = zip(*map(partial(self._read_or_next, read), indices, items), strict=True)
        return list(found), list(images)

    def _read_or_next(self, read: Callable[[Any, int], Any], i: int, item: Any) -> tuple[int, Any]:
        """Return an image and its index, or those of the next image that can be read if bad ones are skipped."""
        for k in (j % len(self) for j in range(i, i + len(self))):
            number = self._items[k]
            if number not in self._bad:
                try:
                    return k, read(fetch_item(self._dataset, number) if item is _UNREAD else item, number)
                except (TypeError, ValueError) as error:
                    if not self._skip:
                        raise
                    self._bad[number] = str(error)
            item = _UNREAD
        raise ValueError(
            f"None of the {len(self)} items of the data set X can be read. The first error: {self._bad[self._items[0]]}"
        )

    def _fetch(self, indices: Sequence[int]) -> Sequence[Any]:
        """Return the items from the data set's ``__getitems__``, or `_UNREAD` for each if it has none or fails."""
        unread = [_UNREAD] * len(indices)
        if not hasattr(self._dataset, "__getitems__"):
            return unread
        try:
            items = self._dataset.__getitems__([self._items[i] for i in indices])
        except Exception:  # the items are then read one by one, so that the error names the one that fails
            return unread
        if not isinstance(items, (list, tuple)) or len(items) != len(indices):
            raise TypeError(
                f"The data set X returned {describe(items)} from __getitems__, but a list of {len(indices)} items was "
                "expected, one for each index."
            )
        return items


class DatasetImages(DatasetItems):
    """Images of a data set that have one shape.

    Parameters
    ----------
    dataset, skip, n_jobs
        See `DatasetItems`.
    channels, size : int and (int, int), or None
        See `ItemReader`.
    scale : (float, float) or None
        See `Images`. None leaves floats unchanged, and takes the range of other numbers, for which the data set is read
        once.
    deep : bool, default=False
        See `ItemReader`.
    """

    def __init__(
        self,
        dataset: Any,
        channels: int | None,
        size: Size | None,
        scale: Scale | None,
        skip: bool = False,
        n_jobs: int | None = None,
        deep: bool = False,
    ) -> None:
        super().__init__(dataset, skip, n_jobs)
        self._reader = ItemReader("the data set X", channels, size, deep)
        self._make([0])
        self.shape = self._reader.shape
        if self._reader.has_range and scale is None:
            scale = self._value_range()
        self.scale = scale or (0.0, 1.0) if self._reader.dtype.is_floating_point else None

    def read(self, index: Tensor) -> Tensor:
        """Read the images at the given indices."""
        return self._to_device(self._make(index.tolist())[1])

    def pictures(self, index: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Read images as they were given, see `Images.pictures`."""
        found, batch = self._make(index.tolist())
        return torch.tensor(found), list(self._rescale(batch))

    def batches(self, indices: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Read batches in turn."""
        for found, batch in self._batches(index.tolist() for index in indices):
            yield found, self._to_device(batch)

    def _to_device(self, batch: Tensor) -> Tensor:
        return self._rescale(batch.to(self._device, non_blocking=True))

    def _read_values(self, item: Any, i: int) -> Tensor:
        """Return an item as a tensor."""
        return self._reader(item, i)

    def _make(self, request: Sequence[int]) -> tuple[list[int], Tensor]:
        """Read a batch on the host; return the indices of the images that were read, and the images."""
        items = self._fetch(request)
        while True:
            found, images = self._read_items(request, items, self._read_values)
            numbers = [self._items[i] for i in found]
            for number, image in zip(numbers, images, strict=True):
                self._reader.check_consistent(image, number)
            batch = torch.stack(images)
            bad = self._reader.out_of_range(batch, numbers)
            if bad is None:
                return found, batch
            if not self._skip:
                raise ValueError(bad[1])
            self._bad.update([bad])


class _Requests:
    """What worker processes are asked for in an epoch."""

    of_epoch: Iterable[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.of_epoch)


class _BatchDataset(Dataset):
    """The batches that worker processes make, by what they are asked for."""

    def __init__(self, images: DatasetItems) -> None:
        self._images = images

    def __getitem__(self, request: Any) -> Any:
        """Make a batch; return an error, as raising it would add the worker's traceback to its message."""
        try:
            make, arguments = request
            found, batch = getattr(self._images, make)(arguments)
        except (TypeError, ValueError) as error:
            return error
        return torch.tensor(found), batch, self._images._bad


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Handle SIGINT after a block instead of within it. Signals arrive in the main thread only."""
    handler, received = signal.getsignal(signal.SIGINT), []
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    signal.signal(signal.SIGINT, lambda *of: received.append(of))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    for of in received[:1]:
        handler(*of)


def _end_with_parent(worker: int) -> None:
    """Let a worker process end at once if its parent is killed.

    torch compares parent process IDs every five seconds. Workers of a fork server, which Python 3.14 uses by default,
    never end that way, since the server is their parent, and lives as long as they do.
    """
    if callable(signal.getsignal(signal.SIGINT)):
        signal.signal(signal.SIGINT, signal.default_int_handler)  # not the one of `_uninterrupted`
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def fetch_item(dataset: Any, i: int) -> Any:
    """Return an item of a data set; name it if that fails.

    Parameters
    ----------
    dataset : object with ``__getitem__``
        The data set.
    i : int
        The index of the item.

    Returns
    -------
    object
        The item.

    Raises
    ------
    ValueError
        If the data set raises any error.
    """
    try:
        return dataset[i]
    except Exception as error:
        raise ValueError(f"Item {i} of the data set X cannot be read: {one_line(error)}") from error


def inspect_items(dataset: Any, skip: bool) -> dict[int, Header]:
    """Return the modes and the upright sizes of a few evenly spaced items that are pictures.

    Parameters
    ----------
    dataset : object with ``__len__`` and ``__getitem__``
        The data set.
    skip : bool
        Whether items that cannot be read are left out.

    Returns
    -------
    dict of int to (str, (int, int))
        By the items' indices, as `inspect_image` returns them. It is empty if the first item is no picture.

    Raises
    ------
    ValueError
        If an item cannot be read, unless it is left out.
    """
    n, headers = length_of(dataset), {}
    for i in np.linspace(0, n - 1, min(n, _INSPECTED)).astype(int).tolist():
        try:
            image = image_in(fetch_item(dataset, i))
            if is_picture(image):
                headers[i] = inspect_image(image, f"Item {i} of the data set X")
            elif not headers:
                break
        except ValueError:
            if not skip:
                raise
    return headers


def image_in(item: Any) -> Any:
    """Return the image in an item of a data set or of a list.

    Parameters
    ----------
    item : object
        A tuple or list that begins with the image or with a dict; a dict that holds it, preferably as "image" or "img",
        or as the "bytes" or "path" of a file, as Hugging Face's images without decoding; or the image.

    Returns
    -------
    object
        The image. The contents of a file are bytes. A dict without an image is returned unchanged.

    Examples
    --------
    >>> image_in(({"bytes": None, "path": "a.png"}, 3)), image_in({"img": b"abc"})
    (PosixPath('a.png'), b'abc')
    """
    if isinstance(item, (tuple, list)) and len(item) > 0:
        item = item[0]
    if isinstance(item, Mapping) and not {"bytes", "path"} <= item.keys():
        candidates = [item[key] for key in _IMAGE_KEYS if key in item]
        item = next(iter(candidates + [value for value in item.values() if _is_image_like(value)]), item)
    if isinstance(item, Mapping) and {"bytes", "path"} <= item.keys():
        item = Path(item["path"]) if item["bytes"] is None and item["path"] else item["bytes"]
    return bytes(item) if isinstance(item, bytearray) else item


def is_picture(image: Any) -> bool:
    """Return whether an image must be opened by Pillow.

    Parameters
    ----------
    image : object
        As `image_in` returns it.

    Returns
    -------
    bool
        True for PIL images, paths and the contents of files.
    """
    return is_pil_image(image) or isinstance(image, (str, os.PathLike, bytes, PackedImage))


def _is_image_like(value: Any) -> bool:
    """Return whether a value's type and number of axes are those of an image."""
    return is_pil_image(value) or (isinstance(value, (np.ndarray, Tensor)) and value.ndim in (2, 3))
