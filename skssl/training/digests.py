"""What parameters and images are known by on disk: numbers that are the same in every process."""

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
NOT_COMPARED = (*IDLE, "device", "callbacks", "random_state")  # when a training goes on
READ = 2**28  # pixels' values by which a training's images are known


def digest(value: Any, what: str) -> str:
    """Digest an estimator's parameters, or any one of them.

    ``joblib.hash`` of what they are known by: pickles, of which it is made, hold the addresses of tensors and cannot
    hold lambdas.

    Parameters
    ----------
    value : object
        An estimator: its class and its parameters but ``verbose`` and ``n_jobs``, in a ``FrozenEstimator`` what it has
        learned, too. A module: its form and its weights. A function: its code and what it has captured.
    what : str
        How to call it in a message.

    Returns
    -------
    str
        A number in hexadecimal digits.

    Raises
    ------
    TypeError
        If it has a parameter that cannot be pickled.

    Examples
    --------
    >>> from skssl import SimCLR
    >>> from skssl.training.digests import digest
    >>> same = digest(SimCLR(epochs=10), "a"), digest(SimCLR(epochs=10, verbose=1), "b")
    >>> same[0] == same[1], same[0] == digest(SimCLR(epochs=20), "c")
    (True, False)
    """
    try:
        return joblib.hash(_known_by(value))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"{what} has a parameter that cannot be pickled, so that its runs cannot be told from others on "
            f"disk: {error}"
        ) from error


def digest_images(X: Any) -> str:
    """Digest images: their values, or the path, size and time of files; a data set is read once.

    Parameters
    ----------
    X : array, tensor, sequence or data set
        Images, as `as_images` reads them.

    Returns
    -------
    str
        A number in hexadecimal digits.

    Examples
    --------
    >>> import numpy as np
    >>> from skssl.training.digests import digest_images
    >>> digest_images(np.zeros((5, 8, 8))) == digest_images(np.ones((5, 8, 8)))
    False
    """
    file = mapped_file_of(X)
    if file is not None:  # a copy in memory has another digest, as joblib.hash says, too
        return joblib.hash(["mapped", X.shape, [joblib.hash(part) for part in file.chunks(X)]])
    if is_dataset(X):
        images = as_images(X, reset=False)
        batches = torch.arange(len(images)).split(512)
        return joblib.hash([joblib.hash(images.read(index).cpu().numpy()) for index in batches])
    if isinstance(X, Tensor):
        X = X.detach().cpu().numpy()
    elif len(X) and isinstance(next(iter(X)), (str, os.PathLike)):
        X = [(os.fspath(path), os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in X]
    return joblib.hash(X)


def digest_training(estimator: Any, images: Images, target: Tensor | None, **more: Any) -> dict[str, str]:
    """Digest what makes a training what it is, apart from where and how it is watched.

    Parameters
    ----------
    estimator : estimator
        Whose parameters count.
    images : Images
        The training images. Of more than a quarter of a gigabyte so many count, evenly apart, that they make that.
    target : Tensor or None
        Their classes.
    **more : object
        What else counts, by name.

    Returns
    -------
    dict of str to str
        The digests by name: of the parameters, "estimator", its class, "X" and "y".

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
    known |= {"random_state": seed} if isinstance(seed, Integral) else {}  # others give another seed each time
    known |= {"estimator": type(estimator), "y": target, **more}
    some = torch.linspace(0, len(images) - 1, min(len(images), READ // math.prod(images.shape) + 2)).long()
    pixels = [joblib.hash(images.read(index).cpu().numpy()) for index in some.split(512)]
    return {
        "X": joblib.hash([len(images), images.shape, images.scale, pixels]),
        **{name: digest(value, f"{type(estimator).__name__}: {name}") for name, value in known.items()},
    }


def _known_by(value: Any) -> Any:
    """Turn what a parameter may be into what it is known by."""
    if isinstance(value, FrozenEstimator):
        inner = value.estimator
        learned = inner.net_.module_ if hasattr(inner, "net_") else vars(inner)
        return ["frozen", _known_by(inner), _known_by(learned)]
    if hasattr(value, "get_params") and not isinstance(value, type):
        params = {name: of for name, of in value.get_params(deep=False).items() if name not in IDLE}
        return [_known_by(type(value)), _known_by(params)]
    if isinstance(value, nn.Module):
        return [repr(value), _known_by(value.state_dict())]
    if isinstance(value, Tensor):
        return value.detach().cpu().float().numpy()
    if isinstance(value, Mapping):
        return {name: _known_by(of) for name, of in value.items()}
    if isinstance(value, (list, tuple)):
        return [_known_by(of) for of in value]
    if isinstance(value, functools.partial):
        return [_known_by(of) for of in (value.func, value.args, value.keywords)]
    if isinstance(value, FunctionType):
        captured = [cell.cell_contents for cell in value.__closure__ or ()]
        return [value.__qualname__, _known_by(value.__code__), _known_by([value.__defaults__, captured])]
    if isinstance(value, CodeType):
        return [value.co_code, value.co_names, _known_by(value.co_consts)]
    return f"{value.__module__}.{value.__qualname__}" if isinstance(value, type) else value
