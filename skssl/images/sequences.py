"""Sequences of images as lists: lists of files, PIL images, arrays or items of data sets, and columns of tables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.utils._missing import is_pandas_na, is_scalar_nan
from torch import Tensor

from skssl.images.base import describe, is_pil_image
from skssl.images.dataset_items import image_in
from skssl.images.packed import PackedImage, gather

_FORMS = (
    "an array or tensor (n, h, w), (n, h, w, c) or (n, c, h, w), a 2-D array with image_shape, "
    "a sequence of file paths or PIL images, the path of a folder, or a data set"
)
_FILES = (str, os.PathLike, bytes, bytearray, Mapping, PackedImage)


def as_list(X: Any) -> Any:
    """Return a sequence of files, PIL images or arrays as a list of samples of one kind, and any other X unchanged.

    Parameters
    ----------
    X : object
        A list or tuple, whose samples may be items of data sets; a column of a table; or anything else.

    Returns
    -------
    list, PackedImages or object
        The images. A missing file is None. X if it holds numbers.

    Raises
    ------
    TypeError
        If X is one image, a dict or None, if a dict in it holds no image, or if its samples are of several kinds.

    Examples
    --------
    >>> import pandas as pd
    >>> as_list(pd.DataFrame({"path": ["a.png", None]})), as_list([({"image": b"abc"}, 3)])
    (['a.png', None], [b'abc'])
    """
    if X is None or isinstance(X, (bytes, dict, set)) or is_pil_image(X) or hasattr(X, "read"):
        raise TypeError(f"X is {describe(X)}, but {_FORMS} was expected.")
    samples = list(X) if isinstance(X, (list, tuple)) else _column(X)
    if not samples:
        return [] if isinstance(X, tuple) else X
    images = [_unpack(item) for item in samples]
    first = next((i for i, image in enumerate(images) if not _is_missing(image)), 0)
    kind = kind_of(images[first])
    if kind == "file":  # a missing file is one that cannot be read
        images = [None if _is_missing(image) else image for image in images]
    for i, image in enumerate(images):
        if isinstance(image, Mapping):
            raise TypeError(
                f'Sample {i} of X is {describe(image)}, which holds no image. An image was expected as "image", or a '
                'file as "bytes" or "path".'
            )
        if kind_of(image) != kind and not (kind == "file" and image is None):
            raise TypeError(
                f"Sample {i} of X is {describe(image)}, but sample {first} is {describe(images[first])}. Pass samples "
                "of one kind: arrays, or files and PIL images."
            )
    is_table = kind == "number" and not isinstance(X, (list, tuple))  # a column of numbers
    return X if is_table else gather(images)


def _column(X: Any) -> list[Any] | None:
    """Return a column of a table as a list: a Series, an array of objects or text, or a frame of one column."""
    if hasattr(X, "columns") and hasattr(X, "__getitem__"):
        X = X[X.columns[0]] if len(X.columns) == 1 else None
    if isinstance(X, np.ndarray):
        is_column = X.dtype.kind in "OUT" and (X.ndim == 1 or X.shape[1:] == (1,))
        return X.ravel().tolist() if is_column else None
    if isinstance(X, Tensor) or getattr(X, "ndim", 1) != 1:
        return None
    names = ("to_pylist", "tolist", "to_list")  # of Arrow, of pandas, of polars
    return next((getattr(X, name)() for name in names if hasattr(X, name)), None)


def _is_missing(item: Any) -> bool:
    """Return whether a sample is a missing value of a table."""
    return item is None or (not isinstance(item, str | list) and (is_scalar_nan(item) or is_pandas_na(item)))


def _unpack(item: Any) -> Any:
    """Return the image in a sample that is an item of a data set: a dict, bytes, or a tuple with a target."""
    if isinstance(item, (tuple, list)):
        kind = kind_of(item[0]) if len(item) > 0 else "number"
        has_target = isinstance(item, tuple) or kind == "file" or any(kind_of(value) != kind for value in item[1:])
        return image_in(item) if kind != "number" and has_target else item
    return image_in(item) if isinstance(item, (Mapping, bytearray)) else item


def kind_of(item: Any) -> str:
    """Return the kind of a sample.

    Parameters
    ----------
    item : object
        The sample.

    Returns
    -------
    {"file", "array", "number"}
        "file" is also a PIL image, bytes or a dict. "number" is a number or a row of a table, and anything else.

    Examples
    --------
    >>> kind_of("a.png"), kind_of([[1, 2], [3, 4]]), kind_of([1, 2])
    ('file', 'array', 'number')
    """
    if isinstance(item, int | float):  # the most frequent kind, in tables
        return "number"
    if isinstance(item, list | tuple):
        return "array" if len(item) > 0 and isinstance(item[0], list | tuple | np.ndarray) else "number"
    if isinstance(item, _FILES) or is_pil_image(item) or hasattr(item, "read"):
        return "file"
    return "array" if getattr(item, "ndim", 0) >= 2 else "number"


def sample_name(X: Sequence[Any], i: int) -> str:
    """Return the name of a sample for a message.

    Parameters
    ----------
    X : sequence
        The samples.
    i : int
        Its index.

    Returns
    -------
    str
        The index, and the path of a file.

    Examples
    --------
    >>> sample_name(["a.png"], 0)
    "Sample 0 of X, the file 'a.png',"
    """
    return f"Sample {i} of X" + (f", the file {X[i]!r}," if isinstance(X[i], (str, os.PathLike)) else "")
