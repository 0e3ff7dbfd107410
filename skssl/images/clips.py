"""Clips: arrays of frames, folders of frames and video files, read as `Clips`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from itertools import chain, groupby
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from skssl.images.arrays import stack_arrays
from skssl.images.base import Images, Scale, Shape
from skssl.images.folders import classes_of, find_images, image_paths
from skssl.images.layout import decoding_target, parse_image_shape
from skssl.images.reading import as_images
from skssl.images.videos import count_frames, is_video, read_frames

MOST_FRAMES = 16  # frames of a folder or a video that are read by default
_CHANNELS = (1, 3, 4)


class Clips(Images):
    """Clips of as many frames each, all of one shape.

    Parameters
    ----------
    frames : Images
        The frames of the first clip in their order, then those of the second, and so on.
    n_frames : int, default=1
        The number of frames of each clip.
    extra : mapping of str to Tensor, default=None
        Tensors with a row for each clip, such as its sound. Batches have them in `Batch.made`.

    Attributes
    ----------
    frames, n_frames : Images and int
        The parameters.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from skssl.images import as_images
    >>> from skssl.images.clips import Clips
    >>> clips = Clips(as_images(np.zeros((20, 8, 8, 3), np.uint8)), 5)
    >>> len(clips), clips.shape, clips.read(torch.tensor([3, 0])).shape
    (4, (3, 8, 8), torch.Size([2, 5, 3, 8, 8]))
    """

    def __init__(self, frames: Images, n_frames: int = 1, extra: Mapping[str, Tensor] | None = None) -> None:
        self.frames, self.n_frames, self.extra = frames, n_frames, extra or {}
        self.shape, self.scale, self.lazy = frames.shape, frames.scale, frames.lazy
        self.unit = "clips" if n_frames > 1 else "images"

    def __len__(self) -> int:
        return len(self.frames) // self.n_frames

    def read(self, index: Tensor) -> Tensor:
        """Read the clips at the given indices.

        Parameters
        ----------
        index : Tensor of int64, shape (b,)
            The indices.

        Returns
        -------
        Tensor of uint8 or float32, shape (b, n_frames, c, h, w)
            The clips.
        """
        return self.frames.read(self._frames_of(index)).unflatten(0, (len(index), self.n_frames))

    def to(self, device: torch.device | str) -> Self:
        """Return the same clips, whose `read` returns batches on another device."""
        moved = copy(self)
        moved.frames = self.frames.to(device)
        moved.extra = {name: rows.to(device) for name, rows in self.extra.items()}
        return moved

    def take(self, index: Tensor) -> Self:
        """Return a subset of the clips without reading them."""
        subset = copy(self)
        subset.kept = subset.labels = None
        subset.frames = self.frames.take(self._frames_of(index))
        subset.extra = {name: rows[index.to(rows.device)] for name, rows in self.extra.items()}
        return subset

    def middle_frames(self) -> Images:
        """Return the middle frame of each clip."""
        return self.frames.take(torch.arange(len(self)) * self.n_frames + self.n_frames // 2)

    def close(self) -> None:
        """Stop the worker processes of the frames, if there are any."""
        self.frames.close()

    def _frames_of(self, index: Tensor) -> Tensor:
        """Return the indices of the frames of clips."""
        return (index[:, None] * self.n_frames + torch.arange(self.n_frames, device=index.device)).flatten()


class ClipFiles(list[Any]):
    """The clips below a folder: each folder that holds image files, or each video file.

    An item is the list of the image files of a clip, or the path of a video.

    Parameters
    ----------
    folder : str or path-like
        The folder.

    Attributes
    ----------
    names : list of str
        The path of each folder or video, relative to the folder, with "/" between its parts.
    labels : list of str or None
        The class of each clip: the name of its class folder, see `folders.classes_of`.

    Raises
    ------
    NotADirectoryError
        If there is no such folder.
    ValueError
        If there are neither videos nor image files below it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        root = os.path.expanduser(folder)
        if not os.path.isdir(root):
            raise NotADirectoryError(f"X is the path {os.fspath(folder)!r}, but there is no such folder.")
        paths = sorted(os.path.join(path, name) for path, _, names in os.walk(root) for name in names if is_video(name))
        self.names = [os.path.relpath(path, root).replace(os.sep, "/") for path in paths]
        super().__init__(paths)
        if not paths:
            for name, files in groupby(find_images(root)[0], key=os.path.dirname):
                self.names.append(name)
                self.append([os.path.join(root, file) for file in files])
        if not self:
            raise ValueError(f"{os.fspath(folder)!r} contains neither video files nor folders of image files.")
        self.labels = classes_of(self.names)


def as_clips(
    X: Any,
    image_shape: Sequence[int] | None = None,
    *,
    n_frames: int | None = None,
    estimator: BaseEstimator | None = None,
    reset: bool = True,
    shape: Shape | None = None,
    scale: Scale | None = None,
    on_bad_image: str = "raise",
    n_jobs: int | None = None,
    min_samples: int | None = None,
) -> Clips:
    """Read clips, or images as clips of one frame.

    Parameters
    ----------
    X : array, tensor, sequence, path of a folder or Images
        One of

        - an array or tensor ``(n, t, h, w, c)`` or ``(n, t, c, h, w)``, or ``(n, t, h, w)`` if neither the second nor
          the last axis has the size 1, 3 or 4, since four axes with such an axis are images;
        - a list of arrays ``(t, h, w, c)`` or ``(t, c, h, w)``, whose t may differ;
        - a list of folders, each of which holds the frames of a clip as image files, in the order of their names;
        - a list of video files, with ``pip install 'skssl[video]'``;
        - the path of a folder, or its `ClipFiles`. Each folder below it that holds image files is a clip, or each
          video file is one, in the order of their paths;
        - a list of pairs of one of the clips above and anything else, such as its class or its sound, which is ignored;
        - anything else that `as_images` reads, as clips of one frame.
    image_shape : tuple of int, default=None
        Shape of a frame, as for `as_images`. Image files of several sizes need ``(h, w)``. Videos
        are resized to it, by default to the size of the first.
    n_frames : int, default=None
        The number of frames of a clip to use, evenly spaced from the first to the last. None: all frames of an array,
        of other clips as many as the shortest has, but at most 16 of files and videos.
    estimator, reset, shape, scale, on_bad_image, n_jobs
        As for `as_images`. With ``on_bad_image="skip"`` a clip with a frame that cannot be read is left out.
    min_samples : int, default=None
        The smallest number of clips. None: 2 if `reset`, otherwise 1.

    Returns
    -------
    Clips
        The clips, to be read in batches.

    Raises
    ------
    TypeError, ValueError, OSError
        As for `as_images`. Also if a clip has fewer than `n_frames` frames.
    ImportError
        If X holds videos, and PyAV is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from skssl.images import as_clips
    >>> clips = as_clips(np.zeros((10, 8, 32, 32, 3), np.uint8), n_frames=5)
    >>> len(clips), clips.n_frames, clips.shape
    (10, 5, (3, 32, 32))
    """
    if isinstance(X, (str, os.PathLike)):
        X = ClipFiles(X)
    if isinstance(X, Clips):
        frames: Any = X.frames
        count = X.n_frames
    else:
        frames, count = _frames_of(X, n_frames, image_shape, shape)
    found = as_images(
        frames,
        image_shape,
        estimator=estimator,
        reset=reset,
        shape=shape,
        scale=scale,
        on_bad_image=on_bad_image,
        n_jobs=n_jobs,
        whole=False,
        min_samples=1,
    )
    clips = Clips(found, count, X.extra if isinstance(X, Clips) else None)
    if found.kept is not None:
        clips = _without_bad(found, count)
    clips.labels = getattr(X, "labels", None) if isinstance(X, (ClipFiles, Clips)) else None
    min_samples = min_samples or (2 if reset else 1)
    if len(clips) < min_samples:
        name = "the estimator" if estimator is None else type(estimator).__name__
        raise ValueError(f"X has {len(clips)} sample(s), while a minimum of {min_samples} is required by {name}.")
    return clips


def _without_bad(frames: Images, count: int) -> Clips:
    """Return the clips all of whose frames could be read."""
    kept = frames.kept
    assert kept is not None
    whole = np.all(kept.reshape(-1, count), axis=1)
    places = np.cumsum(kept) - 1  # of the given frames among those that could be read
    clips = Clips(frames.take(torch.from_numpy(places[np.repeat(whole, count)])), count)
    clips.kept = np.asarray(whole)
    return clips


def _frames_of(X: Any, n_frames: int | None, image_shape: Sequence[int] | None, shape: Shape | None) -> tuple[Any, int]:
    """Return the frames of all clips in a form that `as_images` reads, and the number of frames of a clip."""
    items = list(X) if isinstance(X, (list, tuple)) else []
    if items and all(isinstance(item, tuple) and item and _is_clip(item[0]) for item in items):
        X = items = [item[0] for item in items]
    if items and all(map(_is_path, items)):
        if all(is_video(item) for item in items):
            return _video_frames(items, n_frames, image_shape, shape)
        if all(os.path.isdir(os.path.expanduser(item)) for item in items):
            items = [image_paths(item) for item in items]
    if items and all(isinstance(item, list) and all(map(_is_path, item)) for item in items):
        places, count = _spaced([len(item) for item in items], n_frames, MOST_FRAMES)
        return [item[place] for item, own in zip(items, places, strict=True) for place in own], count
    if items and all(getattr(item, "ndim", 0) == 4 for item in items):
        places, count = _spaced([len(item) for item in items], n_frames)
        X = stack_arrays([item[own] for item, own in zip(items, places, strict=True)])
    elif items and all(getattr(item, "ndim", 0) == 3 for item in items):
        X = stack_arrays(items)
    axes: tuple[int, ...] = tuple(getattr(X, "shape", ()))
    if len(axes) == 5 or (len(axes) == 4 and axes[1] not in _CHANNELS and axes[3] not in _CHANNELS):
        if n_frames is not None:
            X = X[:, _spaced([axes[1]], n_frames)[0][0]]
        return X.reshape(-1, *X.shape[2:]), X.shape[1]
    return X, 1


def _is_path(item: Any) -> bool:
    """Return whether an item is the path of a file or a folder."""
    return isinstance(item, (str, os.PathLike))


def _is_clip(item: Any) -> bool:
    """Return whether an item can only be a clip: a folder, a video, a list of paths or an array of four axes."""
    if _is_path(item):
        return is_video(item) or os.path.isdir(os.path.expanduser(item))
    return getattr(item, "ndim", 0) == 4 or (isinstance(item, list) and all(map(_is_path, item)))


def _spaced(lengths: Sequence[int], n_frames: int | None, most: int | None = None) -> tuple[list[np.ndarray], int]:
    """Return evenly spaced places in clips of the given lengths, as many of each, and their number."""
    shortest = int(np.argmin(lengths))
    count = n_frames or min(lengths[shortest], most or lengths[shortest])
    if not 0 < count <= lengths[shortest]:
        raise ValueError(
            f"Sample {shortest} of X has {lengths[shortest]} frames, but n_frames={n_frames or 1} were expected. Leave "
            "out short clips, or reduce n_frames."
        )
    return [np.linspace(0, length - 1, count).round().astype(int) for length in lengths], count


def _video_frames(
    files: list[Any], n_frames: int | None, image_shape: Sequence[int] | None, shape: Shape | None
) -> tuple[Iterator[np.ndarray], int]:
    """Return an iterator of the frames of videos, (h, w, 3), and the number of frames of each."""
    size = decoding_target(None if image_shape is None else parse_image_shape(image_shape), shape)[1]
    size = size or (shape and shape[1:])
    count = n_frames or min(MOST_FRAMES, *map(count_frames, files))
    first = read_frames(files[0], count, size)
    rest = (frame for file in files[1:] for frame in read_frames(file, count, first.shape[1:3]))
    return chain(first, rest), count
