"""`Images`, the interface through which a training reads batches, and a subset of such images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

Shape = tuple[int, int, int]  # channels, height, width
Size = tuple[int, int]  # height, width
Scale = tuple[float, float]


class Images(ABC):
    """Images of one shape that are read batch by batch; made by `as_images`.

    Attributes
    ----------
    shape : tuple of int
        Channels, height and width of every image.
    scale : (float, float) or None
        The values that are mapped to 0 and 1 if the images are floats, None if they are uint8.
    kept : bool ndarray of shape (n_given,) or None
        Mask of the given images that could be read. None if all could.
    labels : list of n_given int, float, str or None, or None
        The labels of the items of a stream, which can be read only once; see `labels_in` for other images.
    lazy : bool
        Whether the images are items of a data set, which are read when they are needed.
    unit : str
        What a sample is called in messages: "images", or "clips" if it has several frames.
    extra : mapping of str to Tensor
        Tensors with a row for each image, such as the sounds of clips. Batches have their rows in `Batch.made`.
    """

    shape: Shape
    scale: Scale | None
    kept: np.ndarray | None = None
    labels: list[Any] | None = None
    lazy: bool = False
    unit: str = "images"
    extra: Mapping[str, Tensor] = MappingProxyType({})

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def read(self, index: Tensor) -> Tensor:
        """Read the images at the given indices.

        Parameters
        ----------
        index : Tensor of int64, shape (b,)
            Indices in any order, with repetitions allowed; best on the device that the images were moved to.

        Returns
        -------
        Tensor of uint8 or float32, shape (b, c, h, w)
            Images of uint8 as they were given; floats with `scale` mapped to [0, 1]. The batch is a copy that the
            caller may change. Its memory format is that of the images, such as channels last.
        """

    def batches(self, indices: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Read batches in turn; with `n_jobs`, worker processes prefetch them.

        Parameters
        ----------
        indices : sequence of Tensors of int64, shape (b,)
            The indices of each batch.

        Yields
        ------
        index : Tensor of int64, shape (b,)
            The indices of the images in the batch. They differ from the given ones where an image that cannot be
            read was replaced by the next one.
        images : Tensor of uint8 or float32, shape (b, c, h, w)
            The images, as `read` returns them.
        """
        for index in indices:
            yield index, self.read(index)

    def pictures(self, index: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Read images as they were given, in this process: photographs are neither cropped nor resized.

        Parameters
        ----------
        index : Tensor of int64, shape (b,)
            The indices, on the CPU.

        Returns
        -------
        index : Tensor of int64, shape (b,)
            The indices of the images. They differ from the given ones where an image that cannot be read was replaced
            by the next one.
        pictures : list of uint8 or float32 Tensors of shape (c, h, w)
            The images, on the CPU, as `read` returns them but for their size.
        """
        return index, list(self.read(index).cpu())

    @abstractmethod
    def to(self, device: torch.device | str) -> Images:
        """Return the same images, whose `read` returns batches on another device.

        Parameters
        ----------
        device : torch.device or str
            The device. Images in memory are moved as a whole, those of a data set or a large mapped file batch by
            batch.

        Returns
        -------
        Images
            The same images.
        """

    def take(self, index: Tensor) -> Images:
        """Return a subset of the images without reading them.

        Parameters
        ----------
        index : Tensor of int64, shape (m,)
            Indices of the images.

        Returns
        -------
        Images
            These m images.
        """
        return SubsetImages(self, index)

    def still(self, size: Size, resize: float | None, interpolation: str) -> Images:
        """Return the same images as a network is given them outside of training, where they are larger than that.

        Parameters
        ----------
        size : (int, int)
            Height and width.
        resize : float or None
            Photographs are resized so that their shorter side is `resize` times that of `size`, and the centre is cut
            out. None resizes them whole.
        interpolation : {"bilinear", "bicubic"}
            The filter of the resizing.

        Returns
        -------
        Images
            The images with another `shape` if they are photographs, otherwise the images unchanged.
        """
        return self

    def close(self) -> None:  # noqa: B027 - most images have no worker processes
        """Stop the worker processes, if there are any. The next read starts new ones."""

    @property
    def _dtype(self) -> torch.dtype:
        """Return the dtype of a batch."""
        return torch.uint8 if self.scale is None else torch.float32

    def _rescale(self, batch: Tensor) -> Tensor:
        """Map `scale` to [0, 1] in place."""
        return batch if self.scale is None else rescale(batch, self.scale)


Values = TypeVar("Values", np.ndarray, Tensor)


def rescale(values: Values, scale: Scale) -> Values:
    """Map the ends of a range to 0 and 1 in place. A range of one value is mapped to 0.

    Parameters
    ----------
    values : float ndarray or Tensor
        The values.
    scale : (float, float)
        The ends of the range.

    Returns
    -------
    ndarray or Tensor
        The values.

    Examples
    --------
    >>> rescale(np.array([0.0, 5.0, 20.0]), (0.0, 10.0))
    array([0. , 0.5, 2. ])
    """
    low, high = scale
    if scale != (0.0, 1.0):
        values -= low
        values /= high - low if high > low else 1.0
    return values


class SubsetImages(Images):
    """A subset of images in memory or in a mapped file.

    Parameters
    ----------
    images : Images
        All images.
    index : Tensor of int64, shape (m,)
        Indices of the images in the subset.
    """

    def __init__(self, images: Images, index: Tensor) -> None:
        self.shape, self.scale, self.lazy = images.shape, images.scale, images.lazy
        self._images, self._index = images, index

    def __len__(self) -> int:
        return len(self._index)

    def read(self, index: Tensor) -> Tensor:
        """Read the images at the given indices."""
        return self._images.read(self._index.index_select(0, index.to(self._index.device)))

    def to(self, device: torch.device | str) -> Images:
        """Return the same images, whose `read` returns batches on another device."""
        moved = copy(self)
        moved._images = self._images.to(device)
        return moved


def is_pil_image(value: Any) -> bool:
    """Return whether a value is a PIL image, without importing Pillow.

    Parameters
    ----------
    value : object
        Any value.

    Returns
    -------
    bool
        Whether it is a PIL image.
    """
    return hasattr(value, "getbands") and hasattr(value, "convert")


def describe(value: Any) -> str:
    """Describe a value for an error message.

    Parameters
    ----------
    value : object
        Any value.

    Returns
    -------
    str
        Its type, and its dtype and shape or the beginning of its repr.

    Examples
    --------
    >>> import numpy as np
    >>> describe(np.zeros((2, 3), np.uint8)), describe("a.png")
    ('ndarray of uint8 and shape (2, 3)', "str 'a.png'")
    """
    if isinstance(value, (np.ndarray, Tensor)):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{type(value).__name__} of {dtype} and shape {tuple(value.shape)}"
    if is_pil_image(value):
        return f"PIL image of mode {value.mode} and size {value.size}"
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def one_line(error: Exception) -> str:
    """Return an error's type and message in one line of at most 500 characters.

    Parameters
    ----------
    error : Exception
        The error.

    Returns
    -------
    str
        For a message.
    """
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text if len(text) <= 500 else text[:497] + "..."
