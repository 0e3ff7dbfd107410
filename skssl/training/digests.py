"""Stable hashes of parameters and images, used as keys of checkpoints and caches: the same in every process."""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
import os
import pickle
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral
from types import CodeType, FunctionType
from typing import Any

import joblib
import torch
from sklearn.frozen import FrozenEstimator
from torch import Tensor, nn

from skssl.images import Images, as_images
from skssl.images.dataset_items import is_dataset
from skssl.images.memory_maps import mapped_file_of
from skssl.images.photographs import FilePhotographs

# Parameters that change no result of an estimator that is fitted for the first time.
IDLE = ("verbose", "n_jobs", "checkpoint", "checkpoint_every", "checkpoint_extend", "warm_start")
NOT_COMPARED = (*IDLE, "device", "callbacks", "random_state")  # parameters that may differ when a training resumes
SAMPLED = 2**28  # values of a data set's images, or bytes of files, that are hashed, at most
LEAST = 2**12  # bytes of a file that are hashed, at least
BATCH = 512  # images of a data set that are read at once
CHUNK, MOST_THREADS = 2**21, 8  # values of images that a thread hashes at once, and the number of threads


def digest(value: Any, what: str) -> str:
    """Compute a digest of an estimator or of one of its parameters.

    ``joblib.hash`` alone does not do: it hashes pickles, which contain the addresses of tensors and cannot contain
    lambdas.

    Parameters
    ----------
    value : object
        An estimator counts by its class and its parameters other than ``verbose``, ``n_jobs`` and ``checkpoint``, a
        ``FrozenEstimator`` also by its fitted state, a module by its ``repr`` and weights, a function by its code,
        defaults and captured variables.
    what : str
        Its name in the error message.

    Returns
    -------
    str
        Hexadecimal digits.

    Raises
    ------
    TypeError
        If a parameter cannot be pickled.

    Examples
    --------
    >>> from skssl import SimCLR
    >>> from skssl.training.digests import digest
    >>> same = digest(SimCLR(epochs=10), "a"), digest(SimCLR(epochs=10, verbose=1), "b")
    >>> same[0] == same[1], same[0] == digest(SimCLR(epochs=20), "c")
    (True, False)
    """
    try:
        return joblib.hash(_hashable(value))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"{what} has a parameter that cannot be pickled, so that its runs cannot be identified on disk: {error}"
        ) from error


def digest_images(X: Any) -> str:
    """Compute a digest of images: of their values, or of the path, inode, size and times of files.

    The times are those of the last change of the content and of the inode, in nanoseconds. A program may set the first
    one, but not the second one.

    Parameters
    ----------
    X : array, tensor, sequence or data set
        Images, as for `as_images`. A data set is read once.

    Returns
    -------
    str
        Hexadecimal digits.

    Examples
    --------
    >>> import numpy as np
    >>> from skssl.training.digests import digest_images
    >>> digest_images(np.zeros((5, 8, 8))) == digest_images(np.ones((5, 8, 8)))
    False
    """
    file = mapped_file_of(X)
    if file is not None:  # a copy in memory has another digest, as with joblib.hash
        return joblib.hash(["mapped", X.shape, [joblib.hash(part) for part in file.chunks(X)]])
    if is_dataset(X):
        images = as_images(X, reset=False)
        batches = torch.arange(len(images)).split(BATCH)
        return joblib.hash([joblib.hash(images.read(index).cpu().numpy()) for index in batches])
    if isinstance(X, Tensor):
        X = X.detach().cpu().numpy()
    elif len(X) and isinstance(next(iter(X)), (str, os.PathLike)):
        X = [(os.fspath(path), *_status(path)) for path in X]
    return joblib.hash(X)


def digest_training(estimator: Any, images: Images, labels: Tensor | None, **more: Any) -> dict[str, str]:
    """Compute digests of everything that the result of a training depends on.

    Parameters
    ----------
    estimator : estimator
        The estimator that trains. Parameters that change no result do not count, nor does the device.
    images : Images
        The training images. All values of arrays and decoded files count. Of the files of photographs, their sizes and
        `SAMPLED` bytes count, at least `LEAST` in the middle of each, so that they are not decoded. Of a data set whose
        items are read when they are needed, an evenly spaced sample of `SAMPLED` values counts, because reading it may
        take as long as an epoch.
    labels : Tensor or None
        Their classes.
    **more : object
        Anything else that counts, by name.

    Returns
    -------
    dict of str to str
        The digests by name: each parameter, "estimator" for its class, "X" and "y".

    Examples
    --------
    >>> import numpy as np
    >>> from skssl import SimCLR
    >>> from skssl.training.digests import digest_training
    >>> from skssl.images import as_images
    >>> images = as_images(np.zeros((5, 8, 8)))
    >>> one, other = (digest_training(SimCLR(epochs=epochs), images, None) for epochs in (10, 20))
    >>> [name for name in one if one[name] != other[name]]
    ['epochs']
    """
    known = {name: value for name, value in estimator.get_params(deep=False).items() if name not in NOT_COMPARED}
    seed = getattr(estimator, "random_state", None)
    known |= {"random_state": seed} if isinstance(seed, Integral) else {}  # a generator gives another seed each time
    known |= {"estimator": type(estimator), "y": labels, **more}
    return {
        "X": _digest_images(images),
        **{name: digest(value, f"{type(estimator).__name__}: {name}") for name, value in known.items()},
    }


def digest_older(estimator: Any, images: Images) -> dict[str, str]:
    """Compute the digests that stand for those in a checkpoint of an older version.

    Parameters
    ----------
    estimator : estimator
        The estimator that trains.
    images : Images
        The training images.

    Returns
    -------
    dict of str to str
        For each parameter the digest of its default, for a version that lacked the parameter. "X" is the digest of a
        sample of the images, which all images had before skssl hashed all of their values.

    Examples
    --------
    >>> import numpy as np
    >>> from skssl import SimCLR
    >>> from skssl.training.digests import digest_older, digest_training
    >>> from skssl.images import as_images
    >>> images = as_images(np.zeros((5, 8, 8)))
    >>> older, known = digest_older(SimCLR(), images), digest_training(SimCLR(epochs=10), images, None)
    >>> [name for name in known if name in older and known[name] != older[name]]
    ['X', 'epochs']
    """
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(type(estimator)).parameters.items()
        if name not in NOT_COMPARED and parameter.default is not parameter.empty
    }
    found = {name: digest(value, f"{type(estimator).__name__}: {name}") for name, value in defaults.items()}
    return {**found, "X": _digest_sample(images)}


def _digest_images(images: Images) -> str:
    """Compute the digest of the training images, see `digest_training`."""
    if isinstance(images, FilePhotographs):
        return _digest_files(images)
    return _digest_sample(images) if images.lazy else _digest_all(images)


def _digest_files(images: FilePhotographs) -> str:
    """Compute a digest of the sizes of pictures, and of bytes of their files."""
    most = max(LEAST, SAMPLED // len(images))

    def digest_part(index: Tensor) -> bytes:
        return b"".join(hashlib.sha256(images.contents(i, most)).digest() for i in index.tolist())

    with ThreadPoolExecutor(min(MOST_THREADS, joblib.cpu_count())) as pool:
        parts = list(pool.map(digest_part, torch.arange(len(images)).split(BATCH)))
    return joblib.hash([images.shape, images.scale, images.sizes.numpy(), b"".join(parts)])


def _digest_all(images: Images) -> str:
    """Compute a digest of all values of images, in threads: about as fast as memory is read."""

    def digest_part(index: Tensor) -> bytes:
        batch = images.read(index).cpu()
        in_memory = batch.permute(sorted(range(batch.ndim), key=batch.stride, reverse=True)).contiguous()
        return hashlib.sha256(in_memory.view(-1).view(torch.uint8).numpy().data).digest()

    n_images = max(1, CHUNK // math.prod(images.shape))
    with ThreadPoolExecutor(min(MOST_THREADS, joblib.cpu_count())) as pool:
        parts = list(pool.map(digest_part, torch.arange(len(images)).split(n_images)))
    extra = [{name: rows.cpu().numpy() for name, rows in images.extra.items()}] if images.extra else []
    return joblib.hash([len(images), images.shape, images.scale, b"".join(parts), *extra])


def _digest_sample(images: Images) -> str:
    """Compute a digest of images, evenly spaced, of `SAMPLED` values together: the first and the last one at least."""
    n_sampled = min(len(images), max(2, SAMPLED // math.prod(images.shape)))
    sample = torch.linspace(0, len(images) - 1, n_sampled).long()
    pixels = [joblib.hash(images.read(index).cpu().numpy()) for index in sample.split(BATCH)]
    return joblib.hash([len(images), images.shape, images.scale, pixels])


def _status(path: str | os.PathLike[str]) -> tuple[int, int, int, int]:
    """Return the inode of a file, its size and the times of its last changes."""
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _hashable(value: Any) -> Any:
    """Turn a value into one whose pickle is the same in every process."""
    if isinstance(value, FrozenEstimator):
        inner = value.estimator
        learned = inner.net_.module_ if hasattr(inner, "net_") else vars(inner)
        return ["frozen", _hashable(inner), _hashable(learned)]
    if hasattr(value, "get_params") and not isinstance(value, type):
        params = {name: of for name, of in value.get_params(deep=False).items() if name not in IDLE}
        return [_hashable(type(value)), _hashable(params)]
    if any(kind.__module__.split(".")[0] == "albumentations" for kind in type(value).__mro__):
        return [_hashable(type(value)), repr(value)]  # a pickle holds the state of its generators
    if isinstance(value, nn.Module):
        return [repr(value), _hashable(value.state_dict())]
    if isinstance(value, Tensor):
        return value.detach().cpu().float().numpy()
    if isinstance(value, Mapping):
        return {name: _hashable(of) for name, of in value.items()}
    if isinstance(value, (list, tuple)):
        return [_hashable(of) for of in value]
    if isinstance(value, functools.partial):
        return [_hashable(of) for of in (value.func, value.args, value.keywords)]
    if isinstance(value, FunctionType):
        captured = [cell.cell_contents for cell in value.__closure__ or ()]
        return [value.__qualname__, _hashable(value.__code__), _hashable([value.__defaults__, captured])]
    if isinstance(value, CodeType):
        return [value.co_code, value.co_names, _hashable(value.co_consts)]
    return f"{value.__module__}.{value.__qualname__}" if isinstance(value, type) else value
