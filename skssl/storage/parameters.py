"""An estimator's parameters as plain values: an object of any other type becomes a dict that names its kind."""

from __future__ import annotations

import inspect
import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from torch import Tensor, nn
from torch.optim import Optimizer

from skssl.errors import pick
from skssl.storage.registry import registered

LARGEST = 2**16  # characters that the parameters may take, apart from arrays
SCALARS = "bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)), "float32", "float64"
UNSAVED = ("callbacks", "checkpoint", "warm_start_from")  # None in a loaded estimator
# Parameters of version 0.1.0 that are gone, with the values that the class has kept
_UNGUIDED = {"stop_gradient": ("symmetric",), "pairing": ("fresh", "shared")}
REMOVED: dict[str, dict[str, tuple[str, ...]]] = {"SimSiam": _UNGUIDED, "BYOL": _UNGUIDED}


@dataclass
class Parts:
    """What plain values refer to: by index in a file that is written, by index or name in one that is read.

    Attributes
    ----------
    arrays : list of ndarray or Tensor
        Arrays among the parameters.
    estimators : list of (estimator, estimator or None, str)
        Estimators among the parameters: each one, one with the parameters that its `fit` saw if they differ, and what
        precedes the names of its parameters, such as ``encoder__``.
    """

    arrays: list[Any] = field(default_factory=list)
    estimators: list[tuple[Any, Any, str]] = field(default_factory=list)

    def add_array(self, array: Any) -> int:
        """Return the index of an array, which is added unless it is in the list."""
        if not any(known is array for known in self.arrays):
            self.arrays.append(array)
        return next(i for i, known in enumerate(self.arrays) if known is array)

    def add_estimator(self, estimator: Any, prefix: str, trained: Any = None) -> int:
        """Return the index of an estimator, which is added unless it is in the list with this prefix."""
        if not any(known is estimator and place == prefix for known, _, place in self.estimators):
            self.estimators.append((estimator, trained, prefix))
        listed = enumerate(self.estimators)
        return next(i for i, (known, _, place) in listed if known is estimator and place == prefix)


@dataclass
class Given:
    """What the plain values in a file refer to.

    Attributes
    ----------
    arrays : dict of int to Tensor
        The arrays by index.
    estimators : dict of int to estimator
        The estimators by index.
    trained : dict of int to estimator
        Estimators with the parameters that their `fit` saw, by index.
    modules : mapping of str to object
        The user's modules by the full names of the parameters, such as ``encoder__backbone``.
    asked : dict of str to object
        The modules that were asked for. It is filled.
    """

    arrays: Mapping[int, Tensor] = field(default_factory=dict)
    estimators: Mapping[int, Any] = field(default_factory=dict)
    trained: Mapping[int, Any] = field(default_factory=dict)
    modules: Mapping[str, Any] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)

    def module(self, name: str, kind: str) -> Any:
        """Return the user's module for a parameter; raise if it was not passed."""
        if not name.isidentifier():
            raise ValueError(f"A module has the name {reprlib.repr(name)}.")
        if name not in self.modules:
            raise ValueError(
                f"The parameter {name} was a {kind[:80]} of your own, which a file cannot hold. Pass one of the same "
                f"architecture: skssl.load(path, {name}=...)."
            )
        self.asked[name] = self.modules[name]
        return self.modules[name]


class Unsaved:
    """A transform that a file cannot hold: its name, in place of the callable.

    Parameters
    ----------
    name : str
        The name of the function, or of the class of the object.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Raise an error that says what is missing."""
        raise ValueError(
            f"The estimator was loaded from a file, which holds no more than the name of {self.name}. Pass the "
            "transform to train again: set_params(augment=...).fit(X)."
        )

    def __repr__(self) -> str:
        """Return the name."""
        return f"<{self.name}, not saved>"


def name_of(fn: Any) -> str:
    """Return the full name of a function, or of the class of another callable.

    Parameters
    ----------
    fn : callable
        The function or object.

    Returns
    -------
    str
        Its name, with its module.

    Examples
    --------
    >>> from skssl.storage.parameters import name_of
    >>> name_of(len), name_of(torch.nn.Identity())
    ('builtins.len', 'torch.nn.modules.linear.Identity')
    """
    if isinstance(fn, Unsaved):
        return fn.name
    named = fn if hasattr(fn, "__qualname__") else type(fn)
    return f"{named.__module__}.{named.__qualname__}"


def pack_parameters(estimator: Any, parts: Parts, prefix: str = "") -> dict[str, Any]:
    """Turn an estimator's parameters into plain values.

    Parameters
    ----------
    estimator : estimator
        Its `callbacks`, `checkpoint` and `warm_start_from` are left out.
    parts : Parts
        Arrays and estimators among the parameters are added. The plain values refer to them by index.
    prefix : str, default=""
        What precedes the names of the parameters, such as ``encoder__``. A module is known by its full name.

    Returns
    -------
    dict of str to object
        The plain values by parameter: None, bools, numbers, strings, lists, tuples, and dicts of one key, such as
        ``{"array": 0}`` or ``{"optimizer": "LARS"}``.

    Raises
    ------
    TypeError
        If a parameter cannot be saved without code, such as a function.
    ValueError
        If the parameters are too long.

    Examples
    --------
    >>> from skssl import Rotation
    >>> from skssl.storage.parameters import Parts, pack_parameters
    >>> pack_parameters(Rotation(angles=(0, 180)), Parts())["angles"]
    (0, 180)
    """
    name = type(estimator).__name__
    found = {}
    for key, value in estimator.get_params(deep=False).items():
        if key in UNSAVED:
            continue
        if key == "fn" or (key == "augment" and _holds_callable(value)):
            found[key] = _pack_transforms(value, f"{name}.{key}", parts, f"{prefix}{key}__")
        elif isinstance(value, nn.Module) or (key == "backbone" and not isinstance(value, str) and callable(value)):
            kind = type(value).__name__ if isinstance(value, nn.Module) else "function"
            found[key] = {"module": (prefix + key, kind)}
        else:
            found[key] = _pack(value, f"{name}.{key}", parts, f"{prefix}{key}__")
    if len(repr(found)) > LARGEST:
        raise ValueError(f"The parameters of {name} take more than {LARGEST} characters. Pass long lists as arrays.")
    return found


def unpack_parameters(cls: type, packed: Any, given: Given) -> dict[str, Any]:
    """Turn plain values back into the parameters of a class.

    Parameters
    ----------
    cls : type
        The class that takes the parameters.
    packed : object
        The plain values, from a file that is not trusted.
    given : Given
        What the plain values refer to.

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
    >>> from skssl.storage.parameters import Given, unpack_parameters
    >>> unpack_parameters(SimCLR, {"optimizer": {"optimizer": "LARS"}}, Given())
    {'optimizer': <class 'skssl.training.optim.LARS'>}
    """
    if not isinstance(packed, dict):
        raise ValueError(f"The parameters of {cls.__name__} must be a dict. Got {reprlib.repr(packed)}.")
    if len(repr(packed)) > 2 * LARGEST:
        raise ValueError(f"The parameters of {cls.__name__} take more than {LARGEST} characters.")
    known = inspect.signature(cls).parameters.keys() - set(UNSAVED)
    gone = REMOVED.get(cls.__name__, {})
    packed = {name: value for name, value in packed.items() if name in known or value not in gone.get(name, ())}
    for name in packed:
        if name not in known:
            raise ValueError(f"{cls.__name__} has no parameter {name!r}.")
    return {name: _unpack(value, given) for name, value in packed.items()}


def _pack(value: Any, name: str, parts: Parts, prefix: str) -> Any:
    """Turn a parameter into plain values."""
    if isinstance(value, np.generic) and value.dtype.name in SCALARS:  # a NumPy scalar keeps its precision
        return {"scalar": (value.dtype.name, value.item())}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return type(value)([_pack(item, f"{name}[{i}]", parts, prefix) for i, item in enumerate(value)])
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _pack(item, f"{name}[{key!r}]", parts, prefix) for key, item in value.items()}}
    if isinstance(value, dict):
        return {"items": [_pack(pair, f"{name}[{pair[0]!r}]", parts, prefix) for pair in value.items()]}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "biuf"):
        return {"tensor" if isinstance(value, Tensor) else "array": parts.add_array(value)}
    if isinstance(value, type) and any(cls is value for cls in _optimizers().values()):
        return {"optimizer": value.__name__}
    if registered("object").get(type(value).__name__) is type(value):
        return {"object": {"class": type(value).__name__, "parameters": pack_parameters(value, parts, prefix)}}
    if registered("estimator").get(type(value).__name__) is type(value):
        return {"estimator": parts.add_estimator(value, prefix)}
    if type(value) is FrozenEstimator:
        return {"frozen": _pack(value.estimator, name, parts, prefix)}
    raise TypeError(
        f"{name} cannot be saved: expected a plain value, an array or an object of skssl. Got {reprlib.repr(value)}. "
        "joblib.dump saves anything that can be pickled."
    )


def _holds_callable(value: Any) -> bool:
    """Return whether a parameter is a transform of the user's own, or a sequence that holds one."""
    items = value if isinstance(value, list | tuple) else [value]
    return any(callable(item) and not hasattr(item, "get_params") for item in items)


def _pack_transforms(value: Any, name: str, parts: Parts, prefix: str) -> Any:
    """Turn a transform, or a sequence of augmentations and transforms, into plain values: names of callables."""
    if isinstance(value, list | tuple):
        return type(value)([_pack_transforms(item, f"{name}[{i}]", parts, prefix) for i, item in enumerate(value)])
    return {"transform": name_of(value)} if _holds_callable(value) else _pack(value, name, parts, prefix)


def _unpack(value: Any, given: Given) -> Any:
    """Turn plain values back into a parameter."""
    if isinstance(value, list | tuple):
        return type(value)([_unpack(item, given) for item in value])
    if not isinstance(value, dict):
        return value
    match list(value.items()):
        case [("dict", dict(items))]:
            return {name: _unpack(item, given) for name, item in items.items()}
        case [("items", list(pairs))]:
            return dict(_unpack(pair, given) for pair in pairs)
        case [("transform", str(name))]:
            return Unsaved(name[:200])
        case [("device", str(name))]:
            return torch.device(name)
        case [("scalar", (str(name), bool() | int() | float() as number))] if name in SCALARS:
            return np.dtype(name).type(number)
        case [("tensor", int(index))] if index in given.arrays:
            return given.arrays[index]
        case [("array", int(index))] if index in given.arrays:
            return given.arrays[index].numpy()
        case [("optimizer", str(name))]:
            return pick("optimizer", name, _optimizers())
        case [("object", {"class": str(name), "parameters": dict(packed), **rest})] if not rest:
            cls = pick("class", name, registered("object"))
            return cls(**unpack_parameters(cls, packed, given))
        case [("module", (str(name), str(kind)))]:
            return given.module(name, kind)
        case [("estimator", int(index))] if index in given.estimators:
            return given.estimators[index]
        case [("frozen", {"estimator": int(index), **rest})] if index in given.estimators and not rest:
            return FrozenEstimator(given.estimators[index])
    raise ValueError(f"A parameter is {reprlib.repr(value)}, which has no known meaning.")


def _optimizers() -> dict[str, type]:
    """Return the optimisers that a parameter may name."""
    classes = {**registered("optimizer"), **vars(torch.optim)}
    return {name: cls for name, cls in classes.items() if isinstance(cls, type) and issubclass(cls, Optimizer)}
