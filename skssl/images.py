"""Whatever the user calls images, as uint8 or float tensors that a batch can be read from at once.

`as_images` is the one way in: it refuses what cannot be read as images, settles which axis holds the channels
and returns `Images`, whose `read` turns a tensor of indices into a batch ``(b, c, h, w)``.
"""

from __future__ import annotations

import math
import operator
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_array, validate_data
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset

from skssl.pictures import Size, channels_of, is_pil, read_picture, read_pictures

__all__ = ["Images", "as_images", "subset"]

Shape = tuple[int, int, int]
Scale = tuple[float, float]

_FORMS = (
    "an array or tensor (n, h, w), (n, h, w, c) or (n, c, h, w), a 2-D array with image_shape, "
    "a sequence of file paths or PIL images, or a torch Dataset"
)


class Images(ABC):
    """Images of one shape that are read a batch at a time; made by `as_images`.

    Attributes
    ----------
    shape : tuple of int
        Channels, height and width of every image.
    scale : (float, float) or None
        The values that are mapped to 0 and 1 if the images are floats, None if they are uint8.
    """

    shape: Shape
    scale: Scale | None

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def read(self, index: Tensor) -> Tensor:
        """Read the images at some indices.

        Parameters
        ----------
        index : Tensor of int64, shape (b,)
            Which images, best on the device that the images were moved to; any order, repetitions allowed.

        Returns
        -------
        Tensor of uint8 or float32, shape (b, c, h, w)
            uint8 as it was given; floats with `scale` mapped to [0, 1]. Its memory is the caller's own, and
            may be laid out in another order than its axes.
        """

    @abstractmethod
    def to(self, device: torch.device | str) -> Images:
        """Return the same images on another device, on which `read` then gives its batches.

        Parameters
        ----------
        device : torch.device or str
            Where to. Images in memory are moved as a whole, those of a data set batch by batch.

        Returns
        -------
        Images
            The same images.
        """

    def take(self, index: Tensor) -> Images:
        """Choose some of the images, without reading them.

        Parameters
        ----------
        index : Tensor of int64, shape (m,)
            Which.

        Returns
        -------
        Images
            These m images.
        """
        return _SomeImages(self, index)

    def _unit(self, batch: Tensor) -> Tensor:
        """Map `scale` to [0, 1] in place."""
        if self.scale is None or self.scale == (0.0, 1.0):
            return batch
        low, high = self.scale
        return batch.sub_(low).div_(high - low if high > low else 1.0)


class _MemoryImages(Images):
    """Images that lie in one tensor; a batch is one gather."""

    def __init__(self, data: Tensor, scale: Scale | None) -> None:
        strides = [stride for size, stride in zip(data.shape, data.stride(), strict=True) if size > 1]
        if len(data) > 1 and strides[0] < max(strides):  # every image is strewn over the memory: collect it once
            data = data.contiguous()
        # The gather runs along the memory, whatever the order of the axes is.
        axes = [0, *sorted((1, 2, 3), key=data.stride, reverse=True)]
        self.shape = (data.shape[1], data.shape[2], data.shape[3])
        self._stored = data.permute(axes)
        self._axes = [axes.index(axis) for axis in range(4)]
        self.scale = None if data.dtype == torch.uint8 else _finite_range(self._stored, scale)

    def __len__(self) -> int:
        return len(self._stored)

    def read(self, index: Tensor) -> Tensor:
        return self._unit(
            self._stored.index_select(0, index.to(self._stored.device, non_blocking=True)).permute(self._axes)
        )

    def to(self, device: torch.device | str) -> Images:
        moved = copy(self)
        moved._stored = self._stored.to(device)
        return moved


class _SomeImages(Images):
    """Some of the images of others."""

    def __init__(self, images: Images, index: Tensor) -> None:
        self.shape, self.scale = images.shape, images.scale
        self._images, self._index = images, index

    def __len__(self) -> int:
        return len(self._index)

    def read(self, index: Tensor) -> Tensor:
        return self._images.read(self._index.index_select(0, index.to(self._index.device)))

    def to(self, device: torch.device | str) -> Images:
        return _SomeImages(self._images.to(device), self._index)  # numbers stay on the host, for data sets


class _DatasetImages(Images):
    """Images of a torch data set, read when they are asked for."""

    def __init__(self, dataset: Any, channels: int | None, size: Size | None, scale: Scale | None) -> None:
        self._dataset, self._length, self._device = dataset, len(dataset), torch.device("cpu")
        self._channels, self._size = channels, size
        first = self._tensor(dataset[0], 0)
        self._channels, self._dtype = first.shape[0], first.dtype
        self.shape = (first.shape[0], first.shape[1], first.shape[2])
        self.scale = scale or (0.0, 1.0) if first.is_floating_point() else None
        self._stack([first], [0])

    def __len__(self) -> int:
        return self._length

    def read(self, index: Tensor) -> Tensor:
        indices = index.tolist()
        if hasattr(self._dataset, "__getitems__"):
            items = self._dataset.__getitems__(indices)
        else:
            items = [self._dataset[i] for i in indices]
        tensors = [self._tensor(item, i) for item, i in zip(items, indices, strict=True)]
        return self._unit(self._stack(tensors, indices).to(self._device, non_blocking=True))

    def to(self, device: torch.device | str) -> Images:
        moved = copy(self)
        moved._device = torch.device(device)
        return moved

    def _tensor(self, item: Any, i: int) -> Tensor:
        """Bring one item to a tensor (c, h, w) of uint8 or float32."""
        image = item[0] if isinstance(item, (tuple, list)) and len(item) > 0 else item
        name = f"Item {i} of the data set X"
        if is_pil(image):
            image = read_picture(image, name, self._channels or channels_of([image.mode]), self._size)
        if isinstance(image, np.ndarray) and image.ndim in (2, 3) and image.dtype.kind in "uf":
            image = _from_numpy(np.atleast_3d(image)).permute(2, 0, 1)
        if not isinstance(image, Tensor) or image.ndim not in (2, 3):
            raise TypeError(
                f"{name} is {_describe(item)}, but a tensor (c, h, w), a PIL image, an array (h, w) or "
                "(h, w, c), or a tuple that begins with one of these was expected."
            )
        if image.dtype != torch.uint8 and not image.is_floating_point():
            raise TypeError(f"{name} is {_describe(image)}, but uint8 or floats in [0, 1] were expected.")
        image = image.detach() if image.dtype == torch.uint8 else image.detach().float()
        return image if image.ndim == 3 else image[None]

    def _stack(self, tensors: list[Tensor], indices: list[int]) -> Tensor:
        """Stack the items of a batch; refuse what is unlike the first item, and floats beyond [0, 1]."""
        for i, tensor in zip(indices, tensors, strict=True):
            if tensor.shape != self.shape or tensor.dtype != self._dtype:
                raise ValueError(
                    f"Item {i} of the data set X is a {_describe(tensor)}, but item 0 has the shape "
                    f"{self.shape} and is of {self._dtype}; only PIL images are brought to one size, and "
                    "only where image_shape says to which."
                )
        batch = torch.stack(tensors)
        if batch.is_floating_point():
            low, high = (float(value) for value in torch.aminmax(batch))
            if not (low >= -0.1 and high <= 1.1):  # some room for what an interpolation overshoots
                raise ValueError(
                    f"The data set X gives floats from {low:.3g} to {high:.3g}, but uint8 or floats in "
                    "[0, 1] were expected: leave the normalisation to the estimator."
                )
        return batch


def as_images(
    X: Any,
    image_shape: Sequence[int] | None = None,
    *,
    estimator: BaseEstimator | None = None,
    reset: bool = True,
    shape: Shape | None = None,
    scale: Scale | None = None,
) -> Images:
    """Read whatever the user calls images.

    Parameters
    ----------
    X : array, tensor, sequence or Dataset
        One of

        - an array or tensor ``(n, h, w)``, ``(n, h, w, c)`` or ``(n, c, h, w)``, or a list of arrays of one
          shape;
        - a 2-D array, list or data frame ``(n, features)`` whose rows `image_shape` unfolds into images;
        - a sequence of file paths or of PIL images of any mode, decoded at once into one uint8 array, upright
          by their EXIF data, 16-bit grey brought to 8 bits, transparency left out; files that would take much
          memory are kept decoded on disk, see `pictures.read_pictures`;
        - a torch `Dataset` with a length, read when it is indexed (through ``__getitems__`` where it has it);
          its items are tensors ``(c, h, w)``, PIL images, arrays ``(h, w)`` or ``(h, w, c)``, or tuples that
          begin with one, and floats are in [0, 1].

        uint8 stays uint8. All other numbers, bools and integers included, become float32. Arrays and tensors
        are used in place where they can be.
    image_shape : tuple of int, default=None
        ``(h, w)``, ``(h, w, c)`` or ``(c, h, w)``. It unfolds the rows of a 2-D `X`; then one entry may be
        -1, ``(h, w)`` is grey, and None reads a square number of features as a square grey image. Files and
        PIL images are brought to it by resizing the shorter side and cropping the centre; ``(h, w)`` leaves
        their channels (RGB unless all are grey), None leaves their size too, which must then be one for all.
        Other images must already have it.
    estimator : estimator, default=None
        The scikit-learn estimator that asks. It is given ``n_features_in_`` (channels times height times
        width) and, for data frames, ``feature_names_in_``.
    reset : bool, default=True
        True in `fit`: at least two images are needed, and the estimator's attributes are set. False
        afterwards: one image is enough.
    shape : (int, int, int), default=None
        The `Images.shape` of the training data, for images that must be like them: an `X` of another shape is
        refused, as is one of floats if `scale` is None and one of uint8 if it is not.
    scale : (float, float), default=None
        The values that are mapped to 0 and 1 where the images are floats. None takes the smallest and the
        largest value in `X`, or 0 and 1 for a `Dataset`. Give the training data's `Images.scale` for test
        data; values beyond it are not clipped. If the two are equal, they are mapped to 0.

    Returns
    -------
    Images
        The images, to be read in batches.

    Raises
    ------
    TypeError
        If `X` or `image_shape` is of no such type, or `X` is uint8 and the training data were not, or the
        other way round.
    ValueError
        If `X` holds too few images, NaN, infinite values, images of several shapes, of a shape other than
        `image_shape` or `shape`, or a file that cannot be read; if it cannot be told which axis holds
        the channels; or if `image_shape` does not go with the number of features.

    Notes
    -----
    Of three axes the first or the last holds the channels: the one that leaves a square, unless its own size
    is not 1, 3 or 4 and the other's is 3 or 4; if none leaves a square, the one whose size is 1, 3 or 4. What
    this does not settle is refused. The items of a `Dataset` need no guess.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> images = as_images(np.zeros((10, 32, 32, 3), np.uint8))
    >>> len(images), images.shape, images.scale
    (10, (3, 32, 32), None)
    >>> images.read(torch.tensor([5, 0])).shape
    torch.Size([2, 3, 32, 32])
    >>> from sklearn.datasets import load_digits
    >>> images = as_images(load_digits().data)
    >>> images.shape, images.scale
    ((1, 8, 8), (0.0, 16.0))
    """
    minimum = 2 if reset else 1
    image_shape = None if image_shape is None else _parse(image_shape)
    X = _plain(X)
    if isinstance(X, list):
        _check_count(len(X), minimum, estimator)
    kind = _kind(X[0]) if isinstance(X, list) else "number"
    images: Images
    is_table = False
    if isinstance(X, Dataset):
        _check_count(_dataset_length(X), minimum, estimator)
        images = _DatasetImages(X, *_wanted(image_shape, shape), scale)
    elif kind == "picture":
        names = [f"Sample {i} of X" + ("" if is_pil(x) else f", the file {x!r},") for i, x in enumerate(X)]
        data = _from_numpy(read_pictures(X, names, *_wanted(image_shape, shape)))
        images = _MemoryImages(data.permute(0, 3, 1, 2), None)
    else:
        X = _stack_arrays(X) if kind == "array" else X
        is_table = getattr(X, "ndim", 2) <= 2
        if is_table:
            data = _unfold(_table(X, estimator, reset, minimum), image_shape)
        else:
            _check_count(len(X), minimum, estimator)
            data = _channels_first(_array(X, estimator))
        images = _MemoryImages(data, scale)
    if image_shape is not None:
        _check_image_shape(images.shape, image_shape)
    if shape is not None:
        _check_like_training(images, shape, scale, estimator)
    if estimator is not None and reset and not is_table:  # for a table, validate_data has done so
        estimator.n_features_in_ = math.prod(images.shape)
        if hasattr(estimator, "feature_names_in_"):
            del estimator.feature_names_in_
    return images


def subset(X: Any, index: np.ndarray) -> Any:
    """Choose some of the images, which stay what they are: rows of a table, files, items of a data set.

    Parameters
    ----------
    X : array, tensor, sequence or Dataset
        Images, as `as_images` reads them.
    index : int64 ndarray of shape (m,)
        Which, in this order.

    Returns
    -------
    array, tensor, sequence or Dataset
        Those images.

    Examples
    --------
    >>> import numpy as np
    >>> subset(["a.png", "b.png", "c.png"], np.array([2, 0]))
    ['c.png', 'a.png']
    """
    if isinstance(X, Dataset):
        return Subset(X, index.tolist())
    return X[torch.from_numpy(index)] if isinstance(X, Tensor) else _safe_indexing(X, index)


# What came, in words and in kind


def _name(estimator: BaseEstimator | None) -> str:
    """Name who asks, for a message."""
    return "the estimator" if estimator is None else type(estimator).__name__


def _describe(value: Any) -> str:
    """Say in a few words what came."""
    if isinstance(value, (np.ndarray, Tensor)):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{type(value).__name__} of {dtype} and shape {tuple(value.shape)}"
    if is_pil(value):
        return f"PIL image of mode {value.mode} and size {value.size}"
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def _kind(item: Any) -> str:
    """Tell by an item what a sequence holds: "picture", "array", or "number" for the rows of a table."""
    if isinstance(item, (str, os.PathLike)) or is_pil(item):
        return "picture"
    nested = isinstance(item, (list, tuple)) and len(item) > 0 and isinstance(item[0], (list, tuple, np.ndarray))
    return "array" if nested or getattr(item, "ndim", 0) >= 2 else "number"


def _plain(X: Any) -> Any:
    """Make every sequence of things other than numbers a list; refuse what is no sequence."""
    if X is None or isinstance(X, (str, bytes, os.PathLike, dict, set)) or is_pil(X):
        raise TypeError(f"X is {_describe(X)}, but {_FORMS} was expected.")
    if isinstance(X, np.ndarray) and X.ndim == 1 and X.dtype.kind in "OU":
        X = X.tolist()
    elif hasattr(X, "to_list") and not hasattr(X, "columns"):  # a Series
        X = X.to_list()
    elif isinstance(X, tuple):
        X = list(X)
    if isinstance(X, list) and X:
        if isinstance(X[0], tuple) and X[0] and _kind(X[0][0]) != "number":  # items (image, target) of a data set
            X = [item[0] for item in X]
        kind = _kind(X[0])
        for i, item in enumerate(X):
            if _kind(item) != kind:
                raise TypeError(f"Sample {i} of X is {_describe(item)}, but sample 0 is {_describe(X[0])}.")
    return X


def _check_count(n_samples: int, minimum: int, estimator: BaseEstimator | None) -> None:
    """Refuse too few images, in scikit-learn's words."""
    if n_samples < minimum:
        raise ValueError(
            f"X has {n_samples} sample(s), while a minimum of {minimum} is required by {_name(estimator)}."
        )


def _dataset_length(dataset: Any) -> int:
    """Return the length of a data set that can be indexed."""
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise TypeError(
            f"X is a {type(dataset).__name__}, a data set that cannot be indexed, but a torch Dataset with "
            "__len__ and __getitem__ was expected."
        )
    return len(dataset)


def _finite_range(data: Tensor, scale: Scale | None) -> Scale:
    """Return `scale`, or the smallest and the largest value; refuse NaN and infinite values."""
    low, high = (float(value) for value in torch.aminmax(data))  # both are NaN where any value is
    if not (math.isfinite(low) and math.isfinite(high)):
        first = int(torch.isfinite(data).flatten(1).all(1).logical_not().nonzero()[0])
        raise ValueError(
            f"Input X contains NaN, infinity or a value too large for float32, first in sample {first}, but "
            "finite numbers were expected."
        )
    return (low, high) if scale is None else scale


def _check_image_shape(shape: Shape, image_shape: tuple[int, ...]) -> None:
    """Refuse images that are unlike `image_shape`."""
    c, h, w = shape
    came = f"The images in X have the shape (c, h, w) = {shape}"
    expected = _split(_fill(image_shape, c * h * w if len(image_shape) == 3 else h * w, came))
    if expected not in ((c, h, w), (None, h, w)):
        raise ValueError(f"{came}, but image_shape={image_shape} was expected.")


def _check_like_training(images: Images, shape: Shape, scale: Scale | None, estimator: BaseEstimator | None) -> None:
    """Refuse images of a shape or kind of number that differs from the training data's."""
    if images.shape != tuple(shape):
        raise ValueError(
            f"The images in X have the shape (c, h, w) = {images.shape}, but {_name(estimator)} was fitted "
            f"on images of shape {tuple(shape)}."
        )
    if (images.scale is None) != (scale is None):
        came, fitted = ("uint8", "floats") if images.scale is None else ("floats", "uint8")
        raise TypeError(f"The images in X are {came}, but {_name(estimator)} was fitted on {fitted}.")


# Which axis is which


def _parse(image_shape: Any) -> tuple[int, ...]:
    """Refuse an `image_shape` that is not two or three sizes with at most one -1."""
    try:
        shape = tuple(operator.index(size) for size in image_shape)
    except TypeError:
        raise TypeError(
            f"image_shape={image_shape!r}, but (h, w), (h, w, c) or (c, h, w) of integers was expected."
        ) from None
    if len(shape) not in (2, 3) or any(size < 1 and size != -1 for size in shape) or shape.count(-1) > 1:
        raise ValueError(
            f"image_shape={image_shape!r}, but (h, w), (h, w, c) or (c, h, w) was expected, of positive "
            "integers of which one may be -1."
        )
    return shape


def _channel_axis(shape: Sequence[int]) -> int | None:
    """Tell which of three axes holds the channels, 0 or 2; None where it cannot be told."""
    a, b, c = shape
    first, last = b == c, a == b  # whether the others make a square
    if first and last:
        return 2 if a == 1 else None
    if first or last:
        axis, other = (0, 2) if first else (2, 0)
        return None if shape[axis] not in (1, 3, 4) and shape[other] in (3, 4) else axis
    if (a in (1, 3, 4)) == (c in (1, 3, 4)):
        return None
    return 0 if a in (1, 3, 4) else 2


def _fill(image_shape: tuple[int, ...], n_values: int, came: str) -> tuple[int, ...]:
    """Fill in the -1 of `image_shape`, or refuse a number of values that does not go with it."""
    shape = list(image_shape)
    if -1 in shape:
        shape[shape.index(-1)] = n_values // -math.prod(shape)
    if math.prod(shape) != n_values:
        raise ValueError(f"{came}, but image_shape={image_shape} was expected.")
    return tuple(shape)


def _split(image_shape: tuple[int, ...]) -> tuple[int | None, int, int]:
    """Return the channels (None if there are two entries), height and width of an `image_shape`."""
    if len(image_shape) == 2:
        return None, image_shape[0], image_shape[1]
    axis = _channel_axis(image_shape)
    if axis is None:
        raise ValueError(
            f"image_shape={image_shape} could be (c, h, w) or (h, w, c): for images of such a shape pass a "
            "torch Dataset of tensors (c, h, w) without image_shape."
        )
    a, b, c = image_shape
    return (a, b, c) if axis == 0 else (c, a, b)


def _wanted(image_shape: tuple[int, ...] | None, shape: Shape | None) -> tuple[int | None, Size | None]:
    """Return the channels and the size that pictures are brought to; None leaves them as they are."""
    channels = None if shape is None else shape[0]
    if image_shape is None:
        return channels, None
    if -1 in image_shape:
        raise ValueError(f"image_shape={image_shape} has an entry of -1, which only a 2-D X can fill in.")
    c, h, w = _split(image_shape)
    return c or channels, (h, w)


def _unfold(table: Tensor, image_shape: tuple[int, ...] | None) -> Tensor:
    """View a table (n, features) as images (n, c, h, w)."""
    n_samples, n_features = table.shape
    if image_shape is None:
        side = math.isqrt(n_features)
        if side**2 != n_features:
            raise ValueError(
                f"X has {n_features} features, which is not a square number: give image_shape=(h, w), "
                "(h, w, c) or (c, h, w) to say how they make an image."
            )
        image_shape = (side, side)
    shape = _fill(image_shape, n_features, f"X has {n_features} features")
    channels, h, w = _split(shape)
    if channels is None or _channel_axis(shape) == 0:
        return table.reshape(n_samples, channels or 1, h, w)
    return table.reshape(n_samples, h, w, channels).permute(0, 3, 1, 2)


def _channels_first(data: Tensor) -> Tensor:
    """View an array of three or four axes as images (n, c, h, w)."""
    shape = tuple(data.shape)
    if data.ndim not in (3, 4) or 0 in shape:
        raise ValueError(f"X has the shape {shape}, but (n, h, w), (n, h, w, c) or (n, c, h, w) was expected.")
    if data.ndim == 3:
        return data[:, None]
    axis = _channel_axis(shape[1:])
    if axis is None:
        raise ValueError(
            f"X has the shape {shape}, which could be (n, c, h, w) or (n, h, w, c): pass a torch Dataset of "
            "tensors (c, h, w), for example a TensorDataset."
        )
    return data if axis == 0 else data.permute(0, 3, 1, 2)


# Numbers


def _stack_arrays(arrays: list[Any]) -> Any:
    """Stack a list of arrays or tensors of one shape."""
    if not all(isinstance(array, Tensor) for array in arrays):
        arrays = [np.asarray(array) for array in arrays]
    for i, array in enumerate(arrays):
        unlike = str(array.dtype).endswith("uint8") != str(arrays[0].dtype).endswith("uint8")
        if unlike or array.shape != arrays[0].shape:
            raise ValueError(f"Sample {i} of X is {_describe(array)}, but sample 0 is {_describe(arrays[0])}.")
    return torch.stack(arrays) if isinstance(arrays[0], Tensor) else np.stack(arrays)


def _table(X: Any, estimator: BaseEstimator | None, reset: bool, minimum: int) -> Tensor:
    """Let scikit-learn check whatever is to be a table of numbers; return it as uint8 or float32."""
    if isinstance(X, Tensor):
        X = _tensor_numbers(X).cpu().numpy()
    how: dict[str, Any] = {
        "dtype": [np.float32, np.uint8], "ensure_all_finite": False, "ensure_min_samples": minimum,
    }  # fmt: skip
    with np.errstate(over="ignore"):  # what becomes infinite is refused later
        if estimator is None:
            return _from_numpy(check_array(X, **how))
        return _from_numpy(validate_data(estimator, X, reset=reset, **how))


def _array(X: Any, estimator: BaseEstimator | None) -> Tensor:
    """Bring an array or tensor of more than two axes to a tensor of uint8 or float32."""
    if isinstance(X, Tensor):
        return _tensor_numbers(X)
    with np.errstate(over="ignore"):
        return _from_numpy(
            check_array(X, allow_nd=True, dtype=[np.float32, np.uint8], ensure_all_finite=False, estimator=estimator)
        )


def _tensor_numbers(X: Tensor) -> Tensor:
    """Bring a tensor to uint8 or float32, on its own device."""
    if X.is_complex() or X.layout != torch.strided:
        raise ValueError(f"X is a {_describe(X)} and layout {X.layout}, but dense real numbers were expected.")
    return X.detach() if X.dtype == torch.uint8 else X.detach().float()


def _from_numpy(array: np.ndarray) -> Tensor:
    """View an array as a tensor; torch warns of read-only ones, but nothing here writes to them."""
    if min(array.strides, default=0) < 0 or not array.dtype.isnative:
        array = np.array(array, dtype=array.dtype.newbyteorder("="))
    if not array.flags.writeable:
        interface = array.__array_interface__ | {"data": (array.__array_interface__["data"][0], False)}
        array = np.asarray(SimpleNamespace(__array_interface__=interface, owner=array))
    return torch.from_numpy(array)
