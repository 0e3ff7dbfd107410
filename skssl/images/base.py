"""Images of one shape, read a batch at a time: what they have in common, those in memory or mapped, some of others."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skssl.images.image_files import IN_MEMORY, is_pil_image
from skssl.images.memory_maps import Mapping, in_file, mapping_of, pieces

Shape = tuple[int, int, int]
Scale = tuple[float, float]


class Images(ABC):
    """Images of one shape that are read a batch at a time; made by `as_images`.

    Attributes
    ----------
    shape : tuple of int
        Channels, height and width of every image.
    scale : (float, float) or None
        The values that are mapped to 0 and 1 if the images are floats, None if they are uint8.
    kept : bool ndarray of shape (n_given,) or None
        Which of the images that were given these are; None if all.
    """

    shape: Shape
    scale: Scale | None
    kept: np.ndarray | None = None

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

    def batches(self, indices: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Read one batch after the other, ahead and by other processes where that was asked for.

        Parameters
        ----------
        indices : sequence of Tensors of int64, shape (b,)
            Which images each batch has.

        Yields
        ------
        index : Tensor of int64, shape (b,)
            Which images they are. Where one could not be read and is to be skipped, the next one stands in for it.
        images : Tensor of uint8 or float32, shape (b, c, h, w)
            The images, as `read` gives them.
        """
        for index in indices:
            yield index, self.read(index)

    @abstractmethod
    def to(self, device: torch.device | str) -> Images:
        """Return the same images on another device, on which `read` then gives its batches.

        Parameters
        ----------
        device : torch.device or str
            Where to. Images in memory are moved as a whole, those of a data set and large mapped files batch by batch.

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
        return SomeImages(self, index)

    def close(self) -> None:  # noqa: B027 - most have none
        """End the processes that read ahead, if there are any; who reads on starts new ones."""

    def _unit(self, batch: Tensor) -> Tensor:
        """Map `scale` to [0, 1] in place."""
        if self.scale is None or self.scale == (0.0, 1.0):
            return batch
        low, high = self.scale
        return batch.sub_(low).div_(high - low if high > low else 1.0)


class MemoryImages(Images):
    """Images that lie in one tensor; a batch is one gather.

    Parameters
    ----------
    data : Tensor of shape (n, c, h, w)
        The images: uint8 or float32, or any numbers if they are mapped.
    scale : (float, float) or None
        As in `Images`.
    mapping : Mapping, default=None
        The mapped file that they lie in.
    """

    def __init__(self, data: Tensor, scale: Scale | None, mapping: Mapping | None = None) -> None:
        # The gather runs along the memory, whatever the order of the axes is.
        axes = [0, *sorted((1, 2, 3), key=data.stride, reverse=True)]
        self.shape = (data.shape[1], data.shape[2], data.shape[3])
        self.scale = scale
        self._stored = data.permute(axes)
        self._axes = [axes.index(axis) for axis in range(4)]
        self._mapping = mapping
        self._device = data.device

    def __len__(self) -> int:
        return len(self._stored)

    def read(self, index: Tensor) -> Tensor:
        """Read the images at some indices."""
        if self._mapping is not None:
            return self._unit(self._from_file(index.to("cpu"), self._mapping).permute(self._axes))
        batch = self._stored.index_select(0, index.to(self._stored.device, non_blocking=True))
        return self._unit(batch.permute(self._axes))

    def to(self, device: torch.device | str) -> Images:
        """Return the same images on another device."""
        moved = copy(self)
        moved._device = torch.device(device)
        if self._mapping is None:
            moved._stored = self._stored.to(device)
        elif moved._device.type != "cpu" and self._stored.nbytes <= IN_MEMORY:
            dtype = torch.uint8 if self.scale is None else torch.float32
            moved._stored = torch.cat([part.to(device, dtype) for part in pieces(self._stored, self._mapping)])
            moved._mapping = None
        return moved

    def _from_file(self, index: Tensor, mapping: Mapping) -> Tensor:
        """Gather images from a mapped file, few at a time, as a page may bring many with it."""
        size, dtype = self._stored.shape[1:], self._stored.dtype
        batch = torch.empty((len(index), *size), dtype=dtype, pin_memory=self._device.type == "cuda")
        rows = mapping.at_a_time(math.prod(size) * dtype.itemsize)
        for part, into in zip(index.split(rows), batch.split(rows), strict=True):
            torch.index_select(self._stored, 0, part, out=into)
            mapping.touched(into.nbytes, len(part))
        return batch.to(self._device, torch.uint8 if self.scale is None else torch.float32, non_blocking=True)


class SomeImages(Images):
    """Some of the images of others.

    Parameters
    ----------
    images : Images
        The others.
    index : Tensor of int64, shape (m,)
        Which.
    """

    def __init__(self, images: Images, index: Tensor) -> None:
        self.shape, self.scale = images.shape, images.scale
        self._images, self._index = images, index

    def __len__(self) -> int:
        return len(self._index)

    def read(self, index: Tensor) -> Tensor:
        """Read the images at some indices."""
        return self._images.read(self._of(index))

    def batches(self, indices: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Read one batch after the other."""
        found = self._images.batches([self._of(index) for index in indices])
        for index, (_, images) in zip(indices, found, strict=True):
            yield index, images

    def to(self, device: torch.device | str) -> Images:
        """Return the same images on another device."""
        moved = copy(self)  # numbers stay on the host, for data sets
        moved._images = self._images.to(device)
        return moved

    def close(self) -> None:
        """End the processes that read ahead."""
        self._images.close()

    def _of(self, index: Tensor) -> Tensor:
        return self._index.index_select(0, index.to(self._index.device))


def gathered(data: Tensor, mapping: Mapping | None) -> tuple[Tensor, Mapping | None]:
    """Bring together images that are strewn over the memory, so that reading one does not touch all of it.

    Parameters
    ----------
    data : Tensor of shape (n, c, h, w)
        The images.
    mapping : Mapping or None
        The mapped file that they lie in.

    Returns
    -------
    data : Tensor of shape (n, c, h, w)
        The same, or a copy: in memory, or in a file that is mapped if they were.
    mapping : Mapping or None
        The mapped file that they lie in now.
    """
    strides = [stride for size, stride in zip(data.shape, data.stride(), strict=True) if size > 1]
    if len(data) < 2 or not strides or strides[0] >= max(strides):
        return data, mapping
    if mapping is None:
        return data.contiguous(), None
    return mapped_tensor(in_file(part.numpy() for part in pieces(data, mapping)))


def mapped_tensor(array: np.ndarray) -> tuple[Tensor, Mapping | None]:
    """View an array as a tensor, and find the mapped file that it lies in.

    Parameters
    ----------
    array : ndarray
        Real numbers of any type.

    Returns
    -------
    data : Tensor
        The same numbers in the same memory, where torch can view them; else a copy, in a file if they were in one.
    mapping : Mapping or None
        The mapped file.
    """
    mapping = mapping_of(array)
    if min(array.strides, default=0) < 0 or not array.dtype.isnative or array.dtype == np.longdouble:
        dtype = np.uint8 if array.dtype == np.uint8 else np.float32
        if mapping is None:
            array = array.astype(dtype)
        else:
            array = in_file(part.astype(dtype) for part in pieces(array, mapping))
            mapping = mapping_of(array)
    return _from_numpy(array), mapping


def _from_numpy(array: np.ndarray) -> Tensor:
    """View an array as a tensor; torch warns of read-only ones, but nothing here writes to them."""
    if not array.flags.writeable:
        interface = array.__array_interface__ | {"data": (array.__array_interface__["data"][0], False)}
        array = np.asarray(SimpleNamespace(__array_interface__=interface, owner=array))
    return torch.from_numpy(array)


def describe(value: Any) -> str:
    """Say in a few words what came.

    Parameters
    ----------
    value : object
        Anything.

    Returns
    -------
    str
        For a message.
    """
    if isinstance(value, (np.ndarray, Tensor)):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{type(value).__name__} of {dtype} and shape {tuple(value.shape)}"
    if is_pil_image(value):
        return f"PIL image of mode {value.mode} and size {value.size}"
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
