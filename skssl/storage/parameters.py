"""An estimator's parameters as plain values: an object of any other type becomes a dict that names its kind."""

from __future__ import annotations

import inspect
import os
import reprlib
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from skssl.errors import pick
from skssl.storage.registry import registered

LARGEST = 2**16  # characters that the parameters may take, apart from arrays
SCALARS = "bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)), "float32", "float64"
UNSAVED = ("callbacks", "checkpoint", "warm_start_from")  # None in a loaded estimator


def pack_parameters(estimator: Any, arrays: list[Any]) -> dict[str, Any]:
    """Turn an estimator's parameters into plain values.

    Parameters
    ----------
    estimator : estimator
        Its `callbacks`, `checkpoint` and `warm_start_from` are left out.
    arrays : list of ndarray or Tensor
        Arrays among the parameters are appended. The plain values refer to them by index.

    Returns
    -------
    dict of str to object
        The plain values by parameter: None, bools, numbers, strings, lists, tuples, and dicts of one key, such as
        ``{"array": 0}`` or ``{"optimizer": "LARS"}``.

    Raises
    ------
    TypeError
        If a parameter cannot be saved without code, such as a module or a function.
    ValueError
        If the parameters are too long.

    Examples
    --------
    >>> from skssl import Rotation
    >>> from skssl.storage.parameters import pack_parameters
    >>> pack_parameters(Rotation(angles=(0, 180)), [])["angles"]
    (0, 180)
    """
    name = type(estimator).__name__
    params = estimator.get_params(deep=False).items()
    found = {key: _pack(value, f"{name}.{key}", arrays) for key, value in params if key not in UNSAVED}
    if len(repr(found)) > LARGEST:
        raise ValueError(f"The parameters of {name} take more than {LARGEST} characters. Pass long lists as arrays.")
    return found


def unpack_parameters(cls: type, packed: Any, arrays: dict[int, Tensor]) -> dict[str, Any]:
    """Turn plain values back into the parameters of a class.

    Parameters
    ----------
    cls : type
        The class that takes the parameters.
    packed : object
        The plain values, from a file that is not trusted.
    arrays : dict of int to Tensor
        The arrays by index.

    Returns
    -------
    dict of str to object
        The parameters.

    Raises
    ------
    ValueError
        If a parameter is unknown, or the values are not as `pack_parameters` writes them.

    Examples
    --------
    >>> from skssl import SimCLR
    >>> from skssl.storage.parameters import unpack_parameters
    >>> unpack_parameters(SimCLR, {"optimizer": {"optimizer": "LARS"}}, {})
    {'optimizer': <class 'skssl.training.optim.LARS'>}
    """
    if not isinstance(packed, dict):
        raise ValueError(f"The parameters of {cls.__name__} must be a dict. Got {reprlib.repr(packed)}.")
    if len(repr(packed)) > 2 * LARGEST:
        raise ValueError(f"The parameters of {cls.__name__} take more than {LARGEST} characters.")
    known = inspect.signature(cls).parameters.keys() - set(UNSAVED)
    for name in packed:
        if name not in known:
            raise ValueError(f"{cls.__name__} has no parameter {name!r}.")
    return {name: _unpack(value, arrays) for name, value in packed.items()}


def _pack(value: Any, name: str, arrays: list[Any]) -> Any:
    """Turn a parameter into plain values."""
    if isinstance(value, np.generic) and value.dtype.name in SCALARS:  # a NumPy scalar keeps its precision
        return {"scalar": (value.dtype.name, value.item())}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return type(value)([_pack(item, f"{name}[{i}]", arrays) for i, item in enumerate(value)])
    if isinstance(value, dict):
        return {"dict": {key: _pack(item, f"{name}[{key!r}]", arrays) for key, item in value.items()}}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "biuf"):
        if not any(array is value for array in arrays):
            arrays.append(value)
        index = next(i for i, array in enumerate(arrays) if array is value)
        return {"tensor" if isinstance(value, Tensor) else "array": index}
    if isinstance(value, type) and any(cls is value for cls in _optimizers().values()):
        return {"optimizer": value.__name__}
    if registered("object").get(type(value).__name__) is type(value):
        return {"object": {"class": type(value).__name__, "parameters": pack_parameters(value, arrays)}}
    raise TypeError(
        f"{name} cannot be saved: expected a plain value, an array or an object of skssl. Got {reprlib.repr(value)}. "
        "joblib.dump saves anything that can be pickled."
    )


def _unpack(value: Any, arrays: dict[int, Tensor]) -> Any:
    """Turn plain values back into a parameter."""
    if isinstance(value, list | tuple):
        return type(value)([_unpack(item, arrays) for item in value])
    if not isinstance(value, dict):
        return value
    match list(value.items()):
        case [("dict", dict(items))]:
            return {name: _unpack(item, arrays) for name, item in items.items()}
        case [("device", str(name))]:
            return torch.device(name)
        case [("scalar", (str(name), bool() | int() | float() as number))] if name in SCALARS:
            return np.dtype(name).type(number)
        case [("tensor", int(index))] if index in arrays:
            return arrays[index]
        case [("array", int(index))] if index in arrays:
            return arrays[index].numpy()
        case [("optimizer", str(name))]:
            return pick("optimizer", name, _optimizers())
        case [("object", {"class": str(name), "parameters": dict(packed), **rest})] if not rest:
            cls = pick("class", name, registered("object"))
            return cls(**unpack_parameters(cls, packed, arrays))
    raise ValueError(f"A parameter is {reprlib.repr(value)}, which has no known meaning.")


def _optimizers() -> dict[str, type]:
    """Return the optimisers that a parameter may name."""
    classes = {**registered("optimizer"), **vars(torch.optim)}
    return {name: cls for name, cls in classes.items() if isinstance(cls, type) and issubclass(cls, Optimizer)}
