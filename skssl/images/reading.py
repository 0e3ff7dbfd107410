"""`as_images`, which reads anything that users call images. It chooses one reader by the kind of input."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _check_feature_names
from torch import Tensor
from torch.utils.data import Subset

from skssl.errors import warn_of_bad
from skssl.images.arrays import MemoryImages, StoredTensor, read_array, read_table, stack_arrays
from skssl.images.base import Images, Scale, Shape, Size, describe
from skssl.images.dataset_items import (
    DatasetImages,
    inspect_items,
    is_dataset,
    length_of,
    paths_of,
    refuse_loader,
)
from skssl.images.dataset_photographs import DatasetPhotographs
from skssl.images.disk_cache import to_temporary_file
from skssl.images.folders import expand_folder
from skssl.images.image_files import (
    WIDE_MODES,
    Header,
    are_deep,
    channels_for,
    check_channels,
    decode_image,
    decode_images,
    inspect_images,
    value_range,
)
from skssl.images.layout import channels_first, check_image_shape, decoding_target, parse_image_shape, unfold_rows
from skssl.images.packed import PackedImages
from skssl.images.photographs import FilePhotographs, default_size, in_memory
from skssl.images.sequences import as_list, kind_of, sample_name
from skssl.images.streams import is_stream, peek, store_stream

__all__ = ["Images", "as_images", "subset"]


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
    whole: bool | None = None,
    size: Size | None = None,
    min_samples: int | None = None,
) -> Images:
    """Read anything that users call images.

    Parameters
    ----------
    X : array, tensor, sequence, data set, iterable or Images
        One of

        - the path of a folder: all images below it, in sorted order. Subfolders are searched at any depth, and links
          are followed. A `BadImageWarning` counts and names the files without the ending of an image file;
        - an array or tensor ``(n, h, w)``, ``(n, h, w, c)`` or ``(n, c, h, w)``, or a list of arrays of one
          shape;
        - a 2-D array, list or data frame ``(n, features)`` whose rows `image_shape` unfolds into images;
        - a sequence of file paths, open files, contents of files or PIL images of any mode, or a torchvision
          ``ImageFolder`` without a transform. A sequence is a list, a tuple, an array, a Series or a data frame of one
          column. Its samples may also be items such as those of data sets. Images are read upright by their EXIF data,
          without transparency. Files of one size, unless `image_shape` or `size` asks for another, are decoded once
          into one array. All others become `Photographs`: they keep their own sizes and are decoded whenever they are
          needed. If all files hold floats or integers of more than 8 bits, they are read as floats. `Photographs` are
          then decoded once at the start to find `scale`. 16-bit files among 8-bit files are rounded to 8 bits;
        - a data set with ``__len__`` and ``__getitem__``: one of torch, Hugging Face or similar. Its items are read
          when they are needed, through ``__getitems__`` if it has one. An item is a tensor ``(c, h, w)``, a PIL image,
          an array ``(h, w)`` or ``(h, w, c)``, the path or the bytes of an image file, a tuple that begins with one of
          these, or a dict that holds one, preferably as "image" or "img". Floats are in [0, 1]. PIL images and image
          files become `Photographs` if their sizes differ among 16 evenly spaced items, or differ from `image_shape`
          or `size`. They are RGB unless all of these items are grey, and floats if all hold more than 8 bits, as files;
        - `skssl.datasets.PackedImages`, or a list of their items. Pixels of one size, unless `image_shape` or `size`
          asks for another, are one memory-mapped array. All others become `Photographs`;
        - an iterable of such items: a generator, or an iterable data set of torch, Hugging Face or WebDataset. It is
          read once into a memory-mapped temporary file. PIL images and image files of several sizes, or of another size
          than `image_shape` or `size`, become `Photographs`. They are RGB unless all are grey;
        - `Images`, which are checked and returned.

        uint8 is kept. All other numbers, including bools and integers, become float32. Arrays and tensors are not
        copied if possible. Memory-mapped arrays (`numpy.memmap`) are loaded batch by batch.
    image_shape : tuple of int, default=None
        ``(h, w)``, ``(h, w, c)`` or ``(c, h, w)``. For a 2-D `X`, the shape of the image in a row: one entry may be
        -1, ``(h, w)`` is grey, and None takes a square grey image. For files and PIL images, the shape of what the
        network is given: ``(h, w)`` keeps their channels (RGB unless all are grey). None takes `size`, or their own
        size if it is the same for all, or else 224 pixels, or the median of their shorter sides if that is smaller.
        Other images must have this shape.
    estimator : estimator, default=None
        The scikit-learn estimator that reads the images. If `reset`, its ``n_features_in_`` (channels times height
        times width, or 1 for a column of paths or images) and, for data frames, its ``feature_names_in_`` are set.
    reset : bool, default=True
        Whether the estimator's attributes are set, as in `fit`.
    shape : (int, int, int), default=None
        The `Images.shape` of the training images. An `X` of another shape is refused, as are floats if `scale` is
        None, and uint8 if it is not.
    scale : (float, float), default=None
        The values that are mapped to 0 and 1 if the images are floats. None takes the smallest and the largest value
        in `X`, or 0 and 1 for an iterable or a data set of floats. A data set of integers other than uint8, or of files
        of more than 8 bits, is read once to find its range. For test data, give the training images' `Images.scale`;
        values outside are not clipped. Two equal values are mapped to 0.
    on_bad_image : {"raise", "skip", "count"}, default="raise"
        How to treat files, PIL images and items that cannot be read. "skip" leaves them out with a
        `BadImageWarning`; `Images.kept` is the mask of the rest. In a data set, which is not read beforehand, the
        next item that can be read replaces a bad one. "count" raises an error with the number of bad images.
    n_jobs : int, default=None
        Number of processes that read a data set's items in `Images.batches` and cut their crops, as in scikit-learn.
        None reads in this process. Files are decoded by so many threads, and by one for each core if it is None.
    whole : bool, default=None
        Whether files and PIL images become `Photographs`. None: unless all have the size that is asked for. False: they
        are decoded at once into one array, resized by their shorter side and cropped at the centre; large collections
        are kept decoded on disk, see `image_files.decode_images`.
    size : (int, int), default=None
        Height and width of the views of photographs, if `image_shape` does not give any.
    min_samples : int, default=None
        The smallest number of images. None: 2 if `reset`, otherwise 1.

    Returns
    -------
    Images
        The images, to be read in batches.

    Raises
    ------
    TypeError
        If `X` or `image_shape` has a type that is not listed above, or if `X` is uint8 and the training images were
        floats, or vice versa.
    ValueError
        If `X` holds too few images, NaN, infinite or masked values, images of several shapes, of a shape other than
        `image_shape` or `shape`, or a file or an item that cannot be read; if the axis of the channels is ambiguous;
        or if `image_shape` does not match the number of features.
    OSError
        If `X` is a path, but not that of a folder, or if the disk has no room for the images that are kept there.

    Notes
    -----
    Of three axes, the first or the last holds the channels. It is the one that leaves a square, unless its own size
    is not 1, 3 or 4 and the opposite axis has the size 3 or 4. If neither leaves a square, it is the one whose size is
    1, 3 or 4. All other shapes are ambiguous and refused. The items of a data set have a fixed order of axes.

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
    parsed = None if image_shape is None else parse_image_shape(image_shape)
    min_samples = min_samples or (2 if reset else 1)
    options = _Options(parsed, estimator, reset, shape, scale, on_bad_image, n_jobs, whole, size, min_samples)
    read, samples = _choose_reader(X)
    images = read(samples, options)
    if parsed is not None:
        check_image_shape(images.shape, parsed)
    if shape is not None:
        _check_like_training(images, shape, scale, estimator)
    if estimator is not None and read is not _read_table:  # scikit-learn sets the attributes for a table
        _set_features(estimator, X, samples, math.prod(images.shape), reset)
    return images


def is_decoded(X: Any) -> bool:
    """Return whether `as_images` decodes X or reads a stream, so that X should be read only once.

    Parameters
    ----------
    X : array, tensor, sequence, data set, iterable or Images
        Images, as `as_images` reads them.

    Returns
    -------
    bool
        True for files, PIL images and streams; False for arrays, tables, data sets and `Images`.

    Examples
    --------
    >>> is_decoded(["a.png", "b.png"]), is_decoded([[0.0, 1.0], [1.0, 0.0]])
    (True, False)
    """
    return isinstance(X, (str, os.PathLike)) or is_stream(X) or _choose_reader(X)[0] is _read_files


def subset(X: Any, index: np.ndarray) -> Any:
    """Return a subset of the images in the form of X: rows of a table, files, or items of a data set.

    Parameters
    ----------
    X : array, tensor, sequence, Dataset or Images
        Images, as `as_images` reads them.
    index : int64 ndarray of shape (m,)
        Indices of the images, in the order of the result.

    Returns
    -------
    array, tensor, sequence, Dataset or Images
        The m images.

    Raises
    ------
    TypeError
        If `X` is a stream, which can be read only once.

    Examples
    --------
    >>> import numpy as np
    >>> subset(["a.png", "b.png", "c.png"], np.array([2, 0]))
    ['c.png', 'a.png']
    """
    refuse_loader(X)
    if is_stream(X):
        raise TypeError(
            f"X is {describe(X)}, which can be read only once, so no subset of it can be taken. Pass an array, a list "
            "or a data set with __len__ and __getitem__."
        )
    if isinstance(X, Images):
        return X.take(torch.from_numpy(index))
    X = expand_folder(X)
    if is_dataset(X):
        return Subset(X, index.tolist())
    return X[torch.from_numpy(index)] if isinstance(X, Tensor) else _safe_indexing(X, index)


def files_of(X: Any) -> list[Any]:
    """Return the files and PIL images in X as a list.

    Parameters
    ----------
    X : sequence of str, path, bytes, file object or PIL image, or torchvision ``ImageFolder``
        The pictures.

    Returns
    -------
    list of str, path, bytes, PIL image or PackedImage
        The pictures. Open files are read.

    Raises
    ------
    TypeError
        If `X` is anything else.

    Examples
    --------
    >>> files_of(("a.png", "b.png"))
    ['a.png', 'b.png']
    """
    read, found = _choose_reader(X)
    found = paths_of(found) if read is _read_dataset else found if read in (_read_files, _read_packed) else None
    if found is None:
        raise TypeError(
            f"X is {describe(X)}, but a sequence of image files, bytes or PIL images, or an ImageFolder without a "
            "transform was expected."
        )
    return [in_memory(item) for item in found]


@dataclass(frozen=True)
class _Options:
    """The parameters of `as_images` that the readers need; `image_shape` is parsed."""

    image_shape: tuple[int, ...] | None
    estimator: BaseEstimator | None
    reset: bool
    shape: Shape | None
    scale: Scale | None
    on_bad_image: str
    n_jobs: int | None
    whole: bool | None
    size: Size | None
    min_samples: int

    @property
    def skip(self) -> bool:
        """Whether bad images are skipped."""
        return self.on_bad_image == "skip"

    def new_bad(self) -> dict[int, str] | None:
        """Return a dict that receives the bad images, or None if the first of them is an error."""
        return None if self.on_bad_image == "raise" else {}

    def kept(self, n: int, bad: dict[int, str]) -> np.ndarray:
        """Return the mask of the images that are not bad. Warn of the bad ones, or refuse them."""
        if not self.skip:
            raise ValueError(
                f"{len(bad)} of the {n} images in X cannot be read, but fit_transform returns a row for each image. "
                f"Leave them out, or call fit, which skips them. The first: {bad[min(bad)]}"
            )
        warn_of_bad(bad, n)
        kept = np.ones(n, bool)
        kept[list(bad)] = False
        return kept

    def target(self) -> tuple[int | None, Size | None]:
        """Return the channels and the size to which files and PIL images are brought."""
        return decoding_target(self.image_shape, self.shape)

    def check_count(self, n_samples: int, bad: dict[int, str] | None = None) -> None:
        """Refuse too few images, in scikit-learn's words."""
        if n_samples < self.min_samples:
            readable = f" that can be read, of {n_samples + len(bad)}" if bad else ""
            raise ValueError(
                f"X has {n_samples} sample(s){readable}, while a minimum of {self.min_samples} is required by "
                f"{_name(self.estimator)}." + (f" The first error: {bad[min(bad)]}" if bad else "")
            )


# One reader for each kind of input


_Reader = Callable[[Any, _Options], Images]


def _choose_reader(X: Any) -> tuple[_Reader, Any]:
    """Return the reader for X, and X in the form that it reads."""
    refuse_loader(X)
    if isinstance(X, Images):
        return _read_images, X
    X = expand_folder(X)
    if is_stream(X):
        first, X = peek(X)
        if not isinstance(first, (str, os.PathLike)):
            return _read_stream, X
        X = list(X)
    if is_dataset(X):
        return _read_dataset, X
    X = as_list(X)
    if isinstance(X, PackedImages):
        return _read_packed, X
    kind = kind_of(next((item for item in X if item is not None), None)) if isinstance(X, list) else "number"
    if kind == "file":
        return _read_files, X
    return (_read_array if kind == "array" or getattr(X, "ndim", 2) > 2 else _read_table), X


def _read_table(X: Any, options: _Options) -> Images:
    """Read the rows of a table as images."""
    if isinstance(X, list):
        options.check_count(len(X))
    try:
        table = read_table(X, options.estimator, options.reset, options.min_samples)
    except ValueError as error:
        text = [name for name in getattr(X, "columns", ()) if len(X) and isinstance(next(iter(X[name])), str)]
        if not text:
            raise
        raise ValueError(
            f"X has {len(X.columns)} columns, and the column {text[0]!r} holds text. Pass a column of paths alone, "
            f"X[{text[0]!r}], or choose it by a ColumnTransformer."
        ) from error
    return _in_memory(StoredTensor(unfold_rows(table.tensor, options.image_shape), table.file), options)


def _read_array(X: Any, options: _Options) -> Images:
    """Read an array or tensor of images, or a list of such."""
    options.check_count(len(X))
    array = read_array(stack_arrays(X) if isinstance(X, list) else X, options.estimator)
    return _in_memory(StoredTensor(channels_first(array.tensor), array.file), options)


def _in_memory(stored: StoredTensor, options: _Options, kept: Sequence[int] | None = None) -> Images:
    """Return the images in a tensor (n, c, h, w) of finite numbers, whose range is that of the kept ones."""
    stored = stored.image_by_image()
    if stored.tensor.dtype == torch.uint8:
        return MemoryImages(stored, None)
    found = stored.value_range(kept)  # which also refuses values that are not finite
    return MemoryImages(stored, found if options.scale is None else options.scale)


def _read_files(X: list[Any], options: _Options, channels: int | None = None) -> Images:
    """Decode image files or PIL images, at once into one array or as `Photographs` whenever they are needed."""
    options.check_count(len(X))
    if isinstance(X[0], str) and not os.path.splitext(X[0])[1] and not any(map(os.path.exists, map(str, X[:8]))):
        raise ValueError(
            f"X holds strings such as {str(X[0])!r}, which are no paths of image files. X, the images, is the first "
            "argument; the classes y are the second one."
        )
    name, bad = partial(sample_name, X), options.new_bad()
    headers = inspect_images(X, name, bad)
    deep = _are_floats(headers, name, options)
    channels = channels or channels_for([header[0] for header in headers if header is not None])
    if _is_whole(headers, options):
        items = [item if header is None else in_memory(item) for item, header in zip(X, headers, strict=True)]
        scale = (options.scale or value_range(items, name, bad)) if deep else None
        headers = [None if bad and i in bad else header for i, header in enumerate(headers)]
        sizes = torch.tensor([(0, 0) if header is None else header[1] for header in headers])
        images: Images = _as_photographs(items, name, sizes, channels, options, scale)
    else:
        asked_channels, size = options.target()
        data = decode_images(X, name, asked_channels or channels, size, bad, headers, deep)
        stored = StoredTensor.from_numpy(data)
        stored = StoredTensor(stored.tensor.permute(0, 3, 1, 2), stored.file)
        images = _in_memory(stored, options, [i for i in range(len(X)) if i not in bad] if bad else None)
    return _without_bad(images, len(X), bad, options)


def _read_packed(X: PackedImages, options: _Options) -> Images:
    """Return the pictures of a pack: one array if they are pixels of the size that is asked for, or `Photographs`."""
    options.check_count(len(X))
    if options.whole is False:
        return _read_files(list(X), options)
    channels, size = options.target()
    channels = channels or int(X.channels.max())
    sizes, name = torch.from_numpy(X.sizes), partial(sample_name, X)
    is_resized = bool((sizes != sizes[0]).any()) or (size or options.size) not in (None, tuple(sizes[0].tolist()))
    if options.whole or is_resized or X.kind == "jpeg":
        return _as_photographs(X, name, sizes, channels, options)
    check_channels(channels, name(0))
    array, rows = X.pack.as_array(), torch.from_numpy(X.rows)
    if array is None or array.shape[3] != channels:
        array = to_temporary_file(decode_image(item, name(i), channels)[None] for i, item in enumerate(X))
        rows = torch.arange(len(array))
    stored = StoredTensor.from_numpy(array)
    images = MemoryImages(StoredTensor(stored.tensor.permute(0, 3, 1, 2), stored.file), None)
    return images if torch.equal(rows, torch.arange(len(array))) else images.take(rows)


def _are_floats(headers: Sequence[Header | None], name: Callable[[int], str], options: _Options) -> bool:
    """Return whether images are read as floats. 16 bits are rounded to 8 if those of the training images were."""
    deep = are_deep(headers, name)
    if deep and options.shape is not None and options.scale is None:
        return any(header[0] in WIDE_MODES for header in headers if header is not None)  # and refused later
    return deep


def _is_whole(headers: Sequence[Header | None], options: _Options) -> bool:
    """Return whether images are read as `Photographs`: by default, unless all have the size that is asked for."""
    sizes = {header[1] for header in headers if header is not None}
    asked = options.target()[1] or options.size
    return len(sizes) > 1 or asked not in (None, *sizes) if options.whole is None else options.whole


def _as_photographs(
    items: Sequence[Any],
    name: Callable[[int], str],
    sizes: Tensor,
    channels: int,
    options: _Options,
    scale: Scale | None = None,
) -> FilePhotographs:
    """Return pictures of known sizes, (0, 0) for bad ones, as `Photographs`."""
    channels = options.target()[0] or channels
    check_channels(channels, name(0), scale is not None)
    size, guessed = _view_size(sizes[sizes[:, 0] > 0], options)
    images = FilePhotographs(items, name, sizes, channels, size, options.skip, options.n_jobs, scale)
    images.guessed = guessed
    return images


def _view_size(sizes: Tensor, options: _Options) -> tuple[Size, bool]:
    """Return the height and width of the views of photographs, and whether nothing determines them."""
    asked = options.target()[1] or options.size or (options.shape and options.shape[1:])
    return asked or default_size(sizes), asked is None and bool((sizes != sizes[0]).any())


def _without_bad(images: Images, n: int, bad: dict[int, str] | None, options: _Options) -> Images:
    """Leave out the bad ones of n images, and warn of them."""
    if bad:
        options.check_count(n - len(bad), bad)
        kept = options.kept(n, bad)
        images = images.take(torch.from_numpy(np.flatnonzero(kept)))
        images.kept = kept
    return images


def _read_dataset(X: Any, options: _Options) -> Images:
    """Read a data set when its items are needed, or the files of an ``ImageFolder`` as other files, in colour."""
    options.check_count(length_of(X))
    paths = paths_of(X)
    if paths is not None:
        return _read_files(paths, options, channels=3)
    channels, size = options.target()
    found = inspect_items(X, options.skip)
    headers, deep = list(found.values()), False
    if headers:
        deep = _are_floats(headers, lambda k: f"Item {list(found)[k]} of the data set X", options)
        in_color, size = channels_for([mode for mode, _ in headers]) == 3, size or options.size
        if options.whole or (options.whole is None and {size or headers[0][1]} != {header[1] for header in headers}):
            check_channels(channels or 3, "Item 0 of the data set X", deep)
            size, guessed = _view_size(torch.tensor([size for _, size in headers]), options)
            images = DatasetPhotographs(
                X,
                channels or (3 if in_color else 1),
                size,
                options.skip,
                options.n_jobs,
                must_be_gray=channels is None and not in_color,
                deep=deep,
                scale=options.scale,
            )
            images.guessed = guessed
            return images
        channels = channels or (3 if in_color else None)
    return DatasetImages(X, channels, size, options.scale, options.skip, options.n_jobs, deep)


def _read_stream(X: Any, options: _Options) -> Images:
    """Read a stream into a temporary file."""
    bad = options.new_bad()
    deep = options.shape is None or options.scale is not None
    stored, labels, has_range = store_stream(X, options.target()[0], bad, deep)
    n_images = len(stored) if isinstance(stored, PackedImages) else len(stored.tensor)
    options.check_count(n_images, bad)
    if isinstance(stored, PackedImages):
        images = _read_packed(stored, options)
    elif has_range:
        images = _in_memory(stored, options)
    else:
        images = MemoryImages(stored, None if stored.tensor.dtype == torch.uint8 else options.scale or (0.0, 1.0))
    images.labels = labels
    if bad:
        images.kept = options.kept(len(labels), bad)
    return images


def _read_images(X: Images, options: _Options) -> Images:
    """Return images that have been read before."""
    options.check_count(len(X))
    return X


# The kind of a sample, its name, and checks


def _name(estimator: BaseEstimator | None) -> str:
    """Return the name of an estimator for a message."""
    return "the estimator" if estimator is None else type(estimator).__name__


def _is_one_image(images: Images, shape: Shape) -> bool:
    """Return whether images are the rows or channels of a single one."""
    axes = len(images), *images.shape[1:]
    return images.shape[0] == 1 and axes in (tuple(shape), (*shape[1:], shape[0]))


def _check_like_training(images: Images, shape: Shape, scale: Scale | None, estimator: BaseEstimator | None) -> None:
    """Refuse images whose shape or kind of numbers differs from that of the training images."""
    if images.shape != tuple(shape):
        raise ValueError(
            f"The images in X have the shape (c, h, w) = {images.shape}, but {_name(estimator)} was fitted on images "
            f"of shape {tuple(shape)}. "
            + ("Pass a single image as X[None]." if _is_one_image(images, shape) else "Bring the images to that shape.")
        )
    if (images.scale is None) != (scale is None):
        got, fitted = ("uint8", "floats") if images.scale is None else ("floats", "uint8")
        raise TypeError(
            f"The images in X are {got}, but {_name(estimator)} was fitted on {fitted}. Convert X as the training "
            "images were."
        )
    if images.scale != scale:
        raise ValueError(
            f"The images in X have the range {images.scale}, but {_name(estimator)} was fitted on images of the range "
            f"{scale}. Read them with scale={scale}."
        )


def _set_features(estimator: BaseEstimator, X: Any, samples: Any, n_values: int, reset: bool) -> None:
    """Set the number and the names of the features as scikit-learn does; a column of a table is one feature."""
    if reset:
        is_column = samples is not X and not (isinstance(X, (list, tuple, str, os.PathLike)) or is_stream(X))
        estimator.n_features_in_ = 1 if is_column else n_values
    if reset or (hasattr(X, "columns") and hasattr(estimator, "feature_names_in_")):
        _check_feature_names(estimator, X, reset=reset)
