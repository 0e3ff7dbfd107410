"""Whatever the user calls images, as uint8 or float tensors that a batch can be read from at once.

`as_images` is the one way in: it refuses what cannot be read as images, settles which axis holds the channels
and returns `Images`, whose `read` turns a tensor of indices into a batch ``(b, c, h, w)``.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_array, validate_data
from torch import Tensor
from torch.utils.data import Subset

from skssl.errors import warn_of_bad
from skssl.images.base import Images, MemoryImages, Scale, Shape, describe, gathered, mapped_tensor
from skssl.images.dataset_items import DatasetImages, is_dataset, is_dense, is_stream, length_of, peek, read_stream
from skssl.images.image_files import Size, decode_images, is_pil_image
from skssl.images.memory_maps import Mapping, mapping_of, pieces

__all__ = ["Images", "as_images", "subset"]

_FORMS = (
    "an array or tensor (n, h, w), (n, h, w, c) or (n, c, h, w), a 2-D array with image_shape, "
    "a sequence of file paths or PIL images, or a data set"
)


def as_images(
    X: Any,
    image_shape: Sequence[int] | None = None,
    *,
    estimator: BaseEstimator | None = None,
    reset: bool = True,
    shape: Shape | None = None,
    scale: Scale | None = None,
    on_bad_image: str = "raise",
    n_jobs: int | None = None,
) -> Images:
    """Read whatever the user calls images.

    Parameters
    ----------
    X : array, tensor, sequence, data set or iterable
        One of

        - an array or tensor ``(n, h, w)``, ``(n, h, w, c)`` or ``(n, c, h, w)``, or a list of arrays of one
          shape;
        - a 2-D array, list or data frame ``(n, features)`` whose rows `image_shape` unfolds into images;
        - a sequence of file paths, open files or PIL images of any mode, decoded at once into one uint8 array,
          upright by their EXIF data, 16-bit grey brought to 8 bits, transparency left out; files that would take
          much memory are kept decoded on disk, see `image_files.decode_images`;
        - a data set with ``__len__`` and ``__getitem__``, torch's, Hugging Face's or any like them, read when it
          is indexed (through ``__getitems__`` where it has it). Its items are tensors ``(c, h, w)``, PIL images,
          arrays ``(h, w)`` or ``(h, w, c)``, the bytes of an image file, tuples that begin with one of these, or
          dicts that hold one, best as "image" or "img"; floats are in [0, 1];
        - an iterable of such items, such as an iterable data set of torch, Hugging Face or WebDataset, or a
          generator. It is gone through once, into a temporary file that is mapped into memory;
        - `Images`, which are checked and returned.

        uint8 stays uint8. All other numbers, bools and integers included, become float32. Arrays and tensors
        are used in place where they can be. Of arrays in mapped files (`numpy.memmap`) only batches are in memory.
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
        largest value in `X`, or 0 and 1 for a data set or an iterable. Give the training data's `Images.scale` for test
        data; values beyond it are not clipped. If the two are equal, they are mapped to 0.
    on_bad_image : {"raise", "skip"}, default="raise"
        What becomes of files, PIL images and items that cannot be read. "skip" leaves them out, so that
        `Images.kept` says which are left, and warns of them (`BadImageWarning`). In a data set, which is not read
        beforehand, the next item that can be read takes the place of a bad one.
    n_jobs : int, default=None
        Processes that read a data set's items in `Images.batches`, as in scikit-learn; None is this one.

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
        `image_shape` or `shape`, or a file or an item that cannot be read; if it cannot be told which axis holds
        the channels; or if `image_shape` does not go with the number of features.
    OSError
        If the disk has no room for what is kept there.

    Notes
    -----
    Of three axes the first or the last holds the channels: the one that leaves a square, unless its own size
    is not 1, 3 or 4 and the other's is 3 or 4; if none leaves a square, the one whose size is 1, 3 or 4. What
    this does not settle is refused. The items of a data set need no guess.

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
    if isinstance(X, Images):
        _check_count(len(X), minimum, estimator)
        return _checked(X, image_shape, shape, scale, estimator, reset)
    bad: dict[int, str] | None = {} if on_bad_image == "skip" else None
    stream = None
    if is_stream(X):
        first, stream = peek(X)
        if isinstance(first, (str, os.PathLike)):
            X, stream = list(stream), None
    images: Images
    is_table = False
    if is_dataset(X):
        _check_count(length_of(X), minimum, estimator)
        images = DatasetImages(X, *_wanted(image_shape, shape), scale, bad is not None, n_jobs)
    elif stream is not None:
        array, n_given = read_stream(stream, *_wanted(image_shape, shape), bad)
        _check_count(len(array), minimum, estimator, bad)
        data, mapping = mapped_tensor(array)
        images = MemoryImages(data, None if data.dtype == torch.uint8 else scale or (0.0, 1.0), mapping)
        images.kept = _kept(n_given, bad)
    else:
        X = _plain(X)
        if isinstance(X, list):
            _check_count(len(X), minimum, estimator)
        kind = _kind(X[0]) if isinstance(X, list) else "number"
        if kind == "picture":
            name = partial(_name_of_sample, X)
            array = decode_images(X, name, *_wanted(image_shape, shape), bad)
            data, mapping = mapped_tensor(array)
            images = MemoryImages(data.permute(0, 3, 1, 2), None, mapping)
            if bad:
                _check_count(len(X) - len(bad), minimum, estimator, bad)
                images = images.take(torch.tensor([i for i in range(len(X)) if i not in bad]))
                images.kept = _kept(len(X), bad)
        else:
            X = _stack_arrays(X) if kind == "array" else X
            is_table = getattr(X, "ndim", 2) <= 2
            if is_table:
                table, mapping = _table(X, estimator, reset, minimum)
                data = _unfold(table, image_shape)
            else:
                _check_count(len(X), minimum, estimator)
                data, mapping = _array(X, estimator)
                data = _channels_first(data)
            data, mapping = gathered(data, mapping)
            images = MemoryImages(data, _finite_range(data, mapping, scale), mapping)
    return _checked(images, image_shape, shape, scale, estimator, reset and not is_table)


def _checked(
    images: Images,
    image_shape: tuple[int, ...] | None,
    shape: Shape | None,
    scale: Scale | None,
    estimator: BaseEstimator | None,
    set_features: bool,
) -> Images:
    """Return images that have the expected shape and range, and set the estimator's number of features."""
    if image_shape is not None:
        _check_image_shape(images.shape, image_shape)
    if shape is not None:
        _check_like_training(images, shape, scale, estimator)
    if estimator is not None and set_features:  # for a table, validate_data sets them
        estimator.n_features_in_ = math.prod(images.shape)
        if hasattr(estimator, "feature_names_in_"):
            del estimator.feature_names_in_
    return images


def is_decoded(X: Any) -> bool:
    """Return whether `as_images` decodes X or goes through it, so that X should be read only once.

    Parameters
    ----------
    X : array, tensor, sequence, data set or iterable
        Images, as `as_images` reads them.

    Returns
    -------
    bool
        True for files, PIL images and iterables without a length; False for arrays, tables and data sets.

    Examples
    --------
    >>> is_decoded(["a.png", "b.png"]), is_decoded([[0.0, 1.0], [1.0, 0.0]])
    (True, False)
    """
    if is_stream(X):
        return True
    if isinstance(X, Images) or is_dataset(X):
        return False
    X = _plain(X)
    return isinstance(X, list) and len(X) > 0 and _kind(X[0]) == "picture"


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
    if is_stream(X):
        raise TypeError(
            f"X is {describe(X)}, which can be gone through once only: some of its images cannot be chosen."
        )
    if is_dataset(X):
        return Subset(X, index.tolist())
    return X[torch.from_numpy(index)] if isinstance(X, Tensor) else _safe_indexing(X, index)


# What came, in words and in kind


def _name(estimator: BaseEstimator | None) -> str:
    """Name who asks, for a message."""
    return "the estimator" if estimator is None else type(estimator).__name__


def _name_of_sample(X: Sequence[Any], i: int) -> str:
    """Name a picture, for a message."""
    return f"Sample {i} of X" + (f", the file {X[i]!r}," if isinstance(X[i], (str, os.PathLike)) else "")


def _kind(item: Any) -> str:
    """Tell by an item what a sequence holds: "picture", "array", or "number" for the rows of a table."""
    if isinstance(item, (str, os.PathLike)) or is_pil_image(item) or hasattr(item, "read"):
        return "picture"
    nested = isinstance(item, (list, tuple)) and len(item) > 0 and isinstance(item[0], (list, tuple, np.ndarray))
    return "array" if nested or getattr(item, "ndim", 0) >= 2 else "number"


def _plain(X: Any) -> Any:
    """Make every sequence of things other than numbers a list; refuse what is no sequence."""
    if X is None or isinstance(X, (str, bytes, os.PathLike, dict, set)) or is_pil_image(X) or hasattr(X, "read"):
        raise TypeError(f"X is {describe(X)}, but {_FORMS} was expected.")
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
                raise TypeError(f"Sample {i} of X is {describe(item)}, but sample 0 is {describe(X[0])}.")
    return X


def _check_count(
    n_samples: int, minimum: int, estimator: BaseEstimator | None, bad: dict[int, str] | None = None
) -> None:
    """Refuse too few images, in scikit-learn's words."""
    if n_samples < minimum:
        unread = f" that can be read, of {n_samples + len(bad)}" if bad else ""
        raise ValueError(
            f"X has {n_samples} sample(s){unread}, while a minimum of {minimum} is required by {_name(estimator)}."
            + (f" The first that cannot: {bad[min(bad)]}" if bad else "")
        )


def _kept(n: int, bad: dict[int, str] | None) -> np.ndarray | None:
    """Tell which images are kept, and warn of the others."""
    if not bad:
        return None
    warn_of_bad(bad, n)
    kept = np.ones(n, bool)
    kept[list(bad)] = False
    return kept


def _finite_range(data: Tensor, mapping: Mapping | None, scale: Scale | None) -> Scale | None:
    """Return `scale`, or the smallest and the largest value; None for uint8; refuse NaN and infinite values."""
    if data.dtype == torch.uint8:
        return None
    low, high, n = math.inf, -math.inf, 0
    for part in pieces(data, mapping):
        part = part.float()
        ends = [float(value) for value in torch.aminmax(part)]  # both are NaN where any value is
        if not all(map(math.isfinite, ends)):
            first = n + int(torch.isfinite(part).flatten(1).all(1).logical_not().nonzero()[0])
            raise ValueError(
                f"Input X contains NaN, infinity or a value too large for float32, first in sample {first}, but "
                "finite numbers were expected."
            )
        low, high, n = min(low, ends[0]), max(high, ends[1]), n + len(part)
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
    if images.scale != scale:
        raise ValueError(
            f"The images in X have the range {images.scale}, but {_name(estimator)} was fitted on images of the range "
            f"{scale}."
        )


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
            raise ValueError(f"Sample {i} of X is {describe(array)}, but sample 0 is {describe(arrays[0])}.")
    return torch.stack(arrays) if isinstance(arrays[0], Tensor) else np.stack(arrays)


def _table(X: Any, estimator: BaseEstimator | None, reset: bool, minimum: int) -> tuple[Tensor, Mapping | None]:
    """Let scikit-learn check whatever is to be a table of numbers; return uint8, float32 or what is mapped."""
    if isinstance(X, Tensor):
        X = _tensor_numbers(X).cpu().numpy()
    how: dict[str, Any] = {**_dtype_for(X), "ensure_all_finite": False, "ensure_min_samples": minimum}
    with _reading_numbers():
        if estimator is None:
            return mapped_tensor(check_array(X, **how))
        return mapped_tensor(validate_data(estimator, X, reset=reset, **how))


def _array(X: Any, estimator: BaseEstimator | None) -> tuple[Tensor, Mapping | None]:
    """Bring an array or tensor of more than two axes to a tensor of uint8 or float32, or leave it as it is mapped."""
    if isinstance(X, Tensor):
        return _tensor_numbers(X), None
    with _reading_numbers():
        return mapped_tensor(
            check_array(X, allow_nd=True, **_dtype_for(X), ensure_all_finite=False, estimator=estimator)
        )


@contextmanager
def _reading_numbers() -> Iterator[None]:
    """Name X where Python's words for what is no number do not; what becomes infinite is refused later."""
    try:
        with np.errstate(over="ignore"):
            yield
    except TypeError as error:
        raise TypeError(f"X cannot be read as numbers: {error}") from error


def _dtype_for(X: Any) -> dict[str, Any]:
    """Let scikit-learn convert numbers, but not those in a file, which are converted as they are read."""
    return {"dtype": None if mapping_of(X) and X.dtype.kind in "buif" else [np.float32, np.uint8]}


def _tensor_numbers(X: Tensor) -> Tensor:
    """Bring a tensor to uint8 or float32, on its own device."""
    if X.is_complex() or not is_dense(X):
        raise ValueError(f"X is a {describe(X)} and layout {X.layout}, but dense real numbers were expected.")
    return X.detach() if X.dtype == torch.uint8 else X.detach().float()
