"""Trained estimators as files that run no code when loaded: values as JSON, tensors in safetensors' format."""

from __future__ import annotations

import importlib.util
import math
import os
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import joblib
import numpy as np
import torch
from torch import Tensor

from skssl.errors import pick
from skssl.storage.files import DamagedFileError, SavedFile, first_line, part, write
from skssl.storage.parameters import pack_parameters, unpack_parameters
from skssl.storage.registry import registered
from skssl.storage.version import __version__

OUTPUTS = None, "default", "pandas", "polars"  # containers that `set_output` accepts


def save(
    estimator: Any, trained: Any, state: Mapping[str, Any], tensors: Mapping[str, Tensor], path: str | os.PathLike[str]
) -> None:
    """Write a trained estimator to a file.

    Parameters
    ----------
    estimator : estimator
        An estimator of a registered class. Its parameters are written.
    trained : estimator
        One of the same class with the parameters that `fit` saw; they may have been changed since.
    state : mapping of str to object
        What `fit` learned, as plain values: all of `FIELDS` but the parameters.
    tensors : mapping of str to Tensor
        The network's tensors ("net.…") and the optimiser's ("optimizer.…").
    path : str or path-like
        The file.

    Raises
    ------
    TypeError
        If the class is not registered, or a parameter cannot be saved.
    OSError
        If the file cannot be written.
    """
    name = type(estimator).__name__
    if registered("estimator").get(name) is not type(estimator):
        raise TypeError(
            f"{name} cannot be saved: a file can only name skssl's own classes. joblib.dump saves estimators of any "
            "class."
        )
    arrays: list[Any] = []
    parameters, used = (pack_parameters(of, arrays) for of in (estimator, trained))
    header = {
        "skssl": __version__,
        "class": name,
        "parameters": parameters,
        "trained_with": {key: value for key, value in used.items() if value != parameters[key]},
        **state,
    }
    as_tensors = [torch.tensor(array) if isinstance(array, np.ndarray) else array for array in arrays]
    write(path, header, {**tensors, **{f"parameter.{i}": tensor for i, tensor in enumerate(as_tensors)}})


def load(path: str | os.PathLike[str]) -> Any:
    """Load a trained estimator that its method ``save`` has written.

    No code in the file runs, unlike with ``joblib.load``. The file is compared with the network that it describes
    before its tensors are read. Loading takes at most about twice as much memory as the file has bytes, even if the
    file is malicious.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    SSLTransformer
        The estimator, on the device that its `device` parameter names, or on the CPU if this machine has no such
        device. `transform` and `partial_fit` continue as if it had not been saved. Its `callbacks`, `checkpoint`
        and `warm_start_from` are None, and its `n_jobs` is at most the number of cores.

    Raises
    ------
    OSError
        If the file does not exist or cannot be read.
    ValueError
        If the file is damaged, was not written by ``save``, was written by a newer skssl, or holds anything unknown:
        another class, a parameter that the class lacks, a tensor that the network lacks.

    Examples
    --------
    >>> import tempfile
    >>> import skssl
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(32, image_size=16, random_state=0)
    >>> encoder = skssl.SimCLR(backbone="convnet", epochs=1, batch_size=16, random_state=0).fit(X)
    >>> path = tempfile.mkdtemp() + "/simclr.safetensors"
    >>> encoder.save(path)
    >>> bool((skssl.load(path).transform(X) == encoder.transform(X)).all())
    True
    """
    with SavedFile(path) as file:
        try:
            return _rebuild(file)
        except (DamagedFileError, OSError):
            raise
        except Exception as error:  # a malicious file can make any check of a parameter fail
            version = file.header.get("skssl")
            other = "" if version in (None, __version__) else f" (it was saved by skssl {reprlib.repr(version)})"
            raise ValueError(f"{os.fspath(path)!r} cannot be loaded{other}: {first_line(error)}") from error


def _rebuild(file: SavedFile) -> Any:
    """Return the estimator that a file describes; refuse a file that holds anything else."""
    header = {"whole": False, "n_features": None, **file.header}  # which skssl 0.1.0 did not write
    for name, field in FIELDS.items():
        if name not in header or not field.holds(header[name]):
            raise ValueError(f"{name!r} must be {field.expected}. Got {reprlib.repr(header.get(name))}.")
    for name in header.keys() - FIELDS.keys():
        raise ValueError(f"{name!r} is unknown.")
    for name in file.shapes:
        if not name.startswith(("net.", "optimizer.", "parameter.")):
            raise ValueError(f"The tensor {name!r} is unknown.")
    indices = part(file.shapes, "parameter.").keys()
    if indices != {str(i) for i in range(len(indices))}:
        raise ValueError("The tensors 'parameter.…' must be numbered from 0.")
    cls: Any = pick("class", header["class"], registered("estimator"))
    given = {f"parameter.{i}": file.read_tensor(f"parameter.{i}") for i in indices}
    arrays = {int(i): array for i, array in part(given, "parameter.").items()}
    parameters, used = (unpack_parameters(cls, header[name], arrays) for name in ("parameters", "trained_with"))
    for given_to in (parameters, used):
        if isinstance(given_to.get("n_jobs"), Integral):  # a file must not start more processes than there are cores
            given_to["n_jobs"] = min(given_to["n_jobs"], joblib.cpu_count())
    if header["output"] in ("pandas", "polars") and not importlib.util.find_spec(header["output"]):
        raise ValueError(
            f"Its 'output' is {header['output']!r}, which is not installed: pip install {header['output']}."
        )
    estimator = cls(**parameters)
    estimator._load(cls(**{**parameters, **used}) if used else estimator, header, file.shapes, lambda: file.read(given))
    return estimator


@dataclass
class Field:
    """A check of an entry of the header, and its description."""

    holds: Callable[[Any], bool]
    expected: str


def _is_int(low: int, high: int = 2**63) -> Callable[[Any], bool]:
    """Return a check for an integer in [low, high)."""
    return lambda value: type(value) is int and low <= value < high


def _is_float(value: Any) -> bool:
    """Return whether a value is a finite float."""
    return type(value) is float and math.isfinite(value)


def _is_sequence(kind: Any, holds: Callable[[Any], bool], length: int | None = None) -> Callable[[Any], bool]:
    """Return a check for a list or tuple whose items pass a check."""
    return lambda value: type(value) is kind and length in (None, len(value)) and all(map(holds, value))


FIELDS = {
    "skssl": Field(lambda value: type(value) is str, "the version of skssl"),
    "class": Field(lambda value: type(value) is str, "the name of a class"),
    "parameters": Field(lambda value: type(value) is dict, "a dict"),
    "trained_with": Field(lambda value: type(value) is dict, "a dict"),
    "shape": Field(_is_sequence(tuple, _is_int(1), 3), "channels, height and width"),
    "scale": Field(lambda value: value is None or _is_sequence(tuple, _is_float, 2)(value), "two floats or None"),
    "whole": Field(lambda value: type(value) is bool, "a bool"),
    "n_features": Field(lambda value: value is None or _is_int(1)(value), "a number of features"),
    "feature_names": Field(_is_sequence(list, lambda value: type(value) is str), "a list of strings"),
    "output": Field(lambda value: value in OUTPUTS, f"one of {OUTPUTS}"),
    "n_samples": Field(_is_int(1), "a number of images"),
    "seed": Field(_is_int(0), "an integer of at least 0"),
    "history": Field(_is_sequence(list, lambda row: type(row) is dict and "batches" not in row), "a list of rows"),
    "rates": Field(_is_sequence(list, _is_float), "a list of floats"),
}
