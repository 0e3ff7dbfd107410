"""Stable hashes of parameters and images, used as keys of checkpoints and caches: the same in every process."""

from __future__ import annotations

import functools
import math
import os
import pickle
from collections.abc import Mapping
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

IDLE = ("verbose", "n_jobs", "checkpoint", "checkpoint_every")  # parameters that change no result
NOT_COMPARED = (*IDLE, "device", "callbacks", "random_state")  # parameters that may differ when a training resumes
SAMPLED = 2**28  # pixel values of a training's images that are hashed, at most
BATCH = 512  # images read at once


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
    """Compute a digest of images: of their values, or of the path, size and modification time of files.

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
        X = [(os.fspath(path), os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in X]
    return joblib.hash(X)


def digest_training(estimator: Any, images: Images, labels: Tensor | None, **more: Any) -> dict[str, str]:
    """Compute digests of everything that the result of a training depends on.

    Parameters
    ----------
    estimator : estimator
        The estimator that trains. Parameters that change no result do not count, nor does the device.
    images : Images
        The training images. If they hold more than `SAMPLED` pixel values, an evenly spaced subset of that size counts.
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
    n_sampled = min(len(images), max(2, SAMPLED // math.prod(images.shape)))  # the first and the last one at least
    sample = torch.linspace(0, len(images) - 1, n_sampled).long()
    pixels = [joblib.hash(images.read(index).cpu().numpy()) for index in sample.split(BATCH)]
    return {
        "X": joblib.hash([len(images), images.shape, images.scale, pixels]),
        **{name: digest(value, f"{type(estimator).__name__}: {name}") for name, value in known.items()},
    }


def _hashable(value: Any) -> Any:
    """Turn a value into one whose pickle is the same in every process."""
    if isinstance(value, FrozenEstimator):
        inner = value.estimator
        learned = inner.net_.module_ if hasattr(inner, "net_") else vars(inner)
        return ["frozen", _hashable(inner), _hashable(learned)]
    if hasattr(value, "get_params") and not isinstance(value, type):
        params = {name: of for name, of in value.get_params(deep=False).items() if name not in IDLE}
        return [_hashable(type(value)), _hashable(params)]
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
