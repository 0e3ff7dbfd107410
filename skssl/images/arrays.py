"""Arrays and tensors, in memory or memory-mapped: how their numbers are read, and their images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, validate_data
from torch import Tensor

from skssl.images.base import Images, Scale, describe
from skssl.images.disk_cache import to_temporary_file
from skssl.images.memory_maps import MAX_IN_MEMORY, MappedFile, mapped_file_of


@dataclass(frozen=True)
class StoredTensor:
    """A tensor, and the mapped file that it lies in.

    Attributes
    ----------
    tensor : Tensor
        The numbers.
    file : MappedFile or None
        None if the tensor is in memory.
    """

    tensor: Tensor
    file: MappedFile | None = None

    @classmethod
    def from_numpy(cls, array: np.ndarray) -> StoredTensor:
        """View an array as a tensor.

        Parameters
        ----------
        array : ndarray
            Real numbers of any dtype.

        Returns
        -------
        StoredTensor
            The same memory where torch supports its dtype and strides, otherwise a copy: in memory, or in a temporary
            file if the array is mapped.
        """
        file = mapped_file_of(array)
        if min(array.strides, default=0) < 0 or not array.dtype.isnative or array.dtype == np.longdouble:
            dtype = np.uint8 if array.dtype == np.uint8 else np.float32
            if file is None:
                array = array.astype(dtype)
            else:
                array = to_temporary_file(part.astype(dtype) for part in file.chunks(array))
                file = mapped_file_of(array)
        if not array.flags.writeable:  # torch warns of read-only arrays, but nothing here writes to the tensor
            interface = array.__array_interface__ | {"data": (array.__array_interface__["data"][0], False)}
            array = np.asarray(SimpleNamespace(__array_interface__=interface, owner=array))
        return cls(torch.from_numpy(array), file)

    def chunks(self) -> Iterator[Tensor]:
        """Iterate over the tensor by chunks of rows if it is mapped, otherwise return it whole.

        Yields
        ------
        Tensor of shape (m, ...)
            The next rows.
        """
        return iter([self.tensor]) if self.file is None else self.file.chunks(self.tensor)

    def image_by_image(self) -> StoredTensor:
        """Return a tensor in which each image occupies one stretch of memory, so that a read touches little else.

        Returns
        -------
        StoredTensor
            The same tensor if its first axis has the largest stride. Otherwise a copy: in memory, or in a temporary
            file if the tensor is mapped.
        """
        strides = [stride for n, stride in zip(self.tensor.shape, self.tensor.stride(), strict=True) if n > 1]
        if len(self.tensor) < 2 or not strides or strides[0] >= max(strides):
            return self
        if self.file is None:
            return StoredTensor(self.tensor.contiguous())
        return self.from_numpy(to_temporary_file(part.numpy() for part in self.chunks()))

    def value_range(self, kept: Sequence[int] | None = None) -> Scale:
        """Return the smallest and the largest value; refuse NaN and infinite values.

        Parameters
        ----------
        kept : sequence of int, default=None
            The indices of the rows that count. None: all.

        Returns
        -------
        low, high : float
            The range.

        Raises
        ------
        ValueError
            If a value is not a finite float32.
        """
        axes, stop = tuple(range(1, self.tensor.ndim)), 0
        low, high = torch.empty(2, len(self.tensor))  # of each row; both are NaN if any value is
        for part in self.chunks():
            start, stop = stop, stop + len(part)
            part = part.float()
            low[start:stop], high[start:stop] = part.amin(axes), part.amax(axes)
        is_finite = low.isfinite() & high.isfinite()
        if not is_finite.all():
            raise ValueError(
                "Input X contains NaN, infinity or a value too large for float32, first in sample "
                f"{int(is_finite.logical_not().nonzero()[0])}. Finite numbers were expected: remove such samples or "
                "replace the values."
            )
        if kept is not None:
            low, high = low[list(kept)], high[list(kept)]
        return float(low.min()), float(high.max())


class MemoryImages(Images):
    """Images in one tensor; a batch is one gather.

    Parameters
    ----------
    stored : StoredTensor of shape (n, c, h, w)
        The images: uint8 or float32, or any numbers if they are mapped.
    scale : (float, float) or None
        See `Images`.
    """

    def __init__(self, stored: StoredTensor, scale: Scale | None) -> None:
        # The gather runs along the memory, whatever the order of the axes.
        data = stored.tensor
        axes = [0, *sorted((1, 2, 3), key=data.stride, reverse=True)]
        self.shape = (data.shape[1], data.shape[2], data.shape[3])
        self.scale = scale
        self._stored = StoredTensor(data.permute(axes), stored.file)
        self._axes = [axes.index(axis) for axis in range(4)]
        self._device = data.device

    def __len__(self) -> int:
        return len(self._stored.tensor)

    def read(self, index: Tensor) -> Tensor:
        """Read the images at the given indices."""
        data, file = self._stored.tensor, self._stored.file
        if file is not None:
            batch = self._read_mapped(index.to("cpu"), file)
        else:
            batch = data.index_select(0, index.to(data.device, non_blocking=True))
        return self._rescale(batch.permute(self._axes))

    def to(self, device: torch.device | str) -> Images:
        """Return the same images, whose `read` returns batches on another device."""
        moved = copy(self)
        moved._device = torch.device(device)
        if self._stored.file is None:
            moved._stored = StoredTensor(self._stored.tensor.to(device))
        elif moved._device.type != "cpu" and self._stored.tensor.nbytes <= MAX_IN_MEMORY:
            moved._stored = StoredTensor(torch.cat([part.to(device, self._dtype) for part in self._stored.chunks()]))
        return moved

    def _read_mapped(self, index: Tensor, file: MappedFile) -> Tensor:
        """Gather images from a mapped file, a few at a time, as reading a page may map many around it."""
        data = self._stored.tensor
        batch = torch.empty((len(index), *data.shape[1:]), dtype=data.dtype, pin_memory=self._device.type == "cuda")
        rows = file.rows_per_read(math.prod(data.shape[1:]) * data.dtype.itemsize)
        for part, out in zip(index.split(rows), batch.split(rows), strict=True):
            torch.index_select(data, 0, part, out=out)
            file.count_read(out.nbytes, len(part))
        return batch.to(self._device, self._dtype, non_blocking=True)


def unmasked(array: Any, name: str | None = None) -> Any:
    """Return the data of a masked array, and anything else unchanged; refuse masked values.

    Parameters
    ----------
    array : object
        An array, or any other object.
    name : str, default=None
        The name of the image in the message. None: the rows of `array` are the samples of X.

    Returns
    -------
    object
        A view of the data if it is a `numpy.ma.MaskedArray`, otherwise `array`.

    Raises
    ------
    ValueError
        If a value is masked.

    Examples
    --------
    >>> import numpy as np
    >>> unmasked(np.ma.masked_equal([[1.0, 2.0]], -9999))
    array([[1., 2.]])
    """
    if not isinstance(array, np.ma.MaskedArray):
        return array
    if np.ma.is_masked(array):
        name = name or f"Sample {int(np.ma.getmaskarray(array).reshape(len(array), -1).any(1).argmax())} of X"
        raise ValueError(
            f"{name} has masked values, but a value for each pixel was expected. Fill them by filled(value), or leave "
            "such samples out."
        )
    return array.data


def read_table(X: Any, estimator: BaseEstimator | None, reset: bool, min_samples: int) -> StoredTensor:
    """Read a table of numbers by scikit-learn's checks.

    Parameters
    ----------
    X : array, tensor, data frame or list
        The table.
    estimator : estimator or None
        The estimator whose ``n_features_in_`` and ``feature_names_in_`` are set or compared.
    reset : bool
        Whether they are set.
    min_samples : int
        The smallest number of rows.

    Returns
    -------
    StoredTensor of uint8 or float32, or any numbers if mapped, shape (n, features)
        The table.

    Raises
    ------
    TypeError, ValueError
        If it is no table of real numbers, has masked values, is too short, or has other features than in training.
    """
    X = [unmasked(row, f"Sample {i} of X") for i, row in enumerate(X)] if isinstance(X, list) else unmasked(X)
    if isinstance(X, Tensor):
        X = _plain_tensor(X).cpu().numpy()
    how: dict[str, Any] = {"dtype": _dtype_for(X), "ensure_all_finite": False, "ensure_min_samples": min_samples}
    with _reading_numbers():
        if estimator is None:
            return StoredTensor.from_numpy(check_array(X, **how))
        return StoredTensor.from_numpy(validate_data(estimator, X, reset=reset, **how))


def read_array(X: Any, estimator: BaseEstimator | None) -> StoredTensor:
    """Read an array or tensor of more than two axes.

    Parameters
    ----------
    X : array or tensor
        The array.
    estimator : estimator or None
        The estimator to name in messages.

    Returns
    -------
    StoredTensor of uint8 or float32, or any numbers if mapped, and of the shape of X
        The array.

    Raises
    ------
    TypeError, ValueError
        If it holds anything but real numbers, or masked values.
    """
    if isinstance(X, Tensor):
        return StoredTensor(_plain_tensor(X))
    X = unmasked(X)
    with _reading_numbers():
        return StoredTensor.from_numpy(
            check_array(X, allow_nd=True, dtype=_dtype_for(X), ensure_all_finite=False, estimator=estimator)
        )


def stack_arrays(arrays: list[Any]) -> Any:
    """Stack a list of arrays or tensors of one shape.

    Parameters
    ----------
    arrays : list of array, tensor or nested list
        The arrays.

    Returns
    -------
    ndarray or Tensor
        The arrays along a new first axis.

    Raises
    ------
    ValueError
        If their shapes differ, only some are uint8, or one has masked values.
    """
    if not all(isinstance(array, Tensor) for array in arrays):
        arrays = [np.asarray(unmasked(array, f"Sample {i} of X")) for i, array in enumerate(arrays)]
    for i, array in enumerate(arrays):
        differs = str(array.dtype).endswith("uint8") != str(arrays[0].dtype).endswith("uint8")
        if differs or array.shape != arrays[0].shape:
            raise ValueError(
                f"Sample {i} of X is {describe(array)}, but sample 0 is {describe(arrays[0])}. Give all arrays one "
                "dtype and one shape."
            )
    return torch.stack(arrays) if isinstance(arrays[0], Tensor) else np.stack(arrays)


def is_dense(tensor: Tensor) -> bool:
    """Return whether a tensor has one number in memory for each element.

    Parameters
    ----------
    tensor : Tensor
        Any tensor.

    Returns
    -------
    bool
        False if it is sparse, quantised, nested or on the meta device.
    """
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta and not tensor.is_nested


@contextmanager
def _reading_numbers() -> Iterator[None]:
    """Name X in a TypeError; let overflows pass, as infinite values are refused later."""
    try:
        with np.errstate(over="ignore"):
            yield
    except TypeError as error:
        raise TypeError(f"X cannot be read as numbers: {error}") from error


def _dtype_for(X: Any) -> list[type] | None:
    """Return the dtypes for `check_array`; mapped numbers are converted batch by batch."""
    return None if mapped_file_of(X) and X.dtype.kind in "buif" else [np.float32, np.uint8]


def _plain_tensor(X: Tensor) -> Tensor:
    """Return a tensor as uint8 or float32 without gradient, on its own device."""
    if X.is_complex() or not is_dense(X):
        raise ValueError(
            f"X is a {describe(X)} and layout {X.layout}, but a dense tensor of real numbers was expected. Convert it, "
            "for example by X.to_dense() or X.abs()."
        )
    return X.detach() if X.dtype == torch.uint8 else X.detach().float()
