"""Fitted estimators as files that run no code when loaded: values as JSON, tensors in safetensors' format."""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar, Self

import joblib
import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skssl.errors import pick
from skssl.storage.files import DamagedFileError, ForeignFileError, SavedFile, first_line, part, take, write
from skssl.storage.parameters import SCALARS, Given, Parts, pack_parameters, unpack_parameters
from skssl.storage.registry import registered
from skssl.storage.version import __version__

MOST_ESTIMATORS = 16  # in a file, besides its own
Restore = Callable[[dict[str, Tensor]], None]  # gives an estimator its tensors


@dataclass
class Field:
    """A check of a value in a file.

    Attributes
    ----------
    holds : callable
        Returns whether a value is as expected.
    expected : str
        What is expected, for the error.
    default : object
        The value in files of versions that did not write it; by default it is required.
    """

    holds: Callable[[Any], bool]
    expected: str
    default: Any = ...


class Saved:
    """Base class of the estimators that have `save`. A subclass defines what is saved besides the parameters.

    Attributes
    ----------
    saved_fields : dict of str to Field
        The plain values that `_pack_state` returns.
    """

    saved_fields: ClassVar[dict[str, Field]]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the fitted estimator to one file for `skssl.load`, which runs no code from it.

        The file holds the parameters and everything that the methods of the estimator need after `fit`. For an encoder
        it includes the heads, momentum copies and queues, the optimiser's state and the history, so that `partial_fit`
        continues as if the estimator had not been saved. `callbacks`, `checkpoint` and `warm_start_from` are left out.
        An existing file is replaced only when the new one is complete.

        Parameters
        ----------
        path : str or path-like
            The file, in safetensors' format with JSON among its metadata.

        Raises
        ------
        TypeError
            If a parameter cannot be saved without code, such as a function, or the class is not one of skssl's.
            ``joblib.dump`` saves such estimators.
        OSError
            If the file cannot be written.

        Notes
        -----
        A module of your own among the parameters, such as `backbone`, is not saved, but its trained weights are. Pass a
        module of the same architecture to `load`. Of transforms of other libraries and functions in `augment`, only the
        names are saved: a loaded estimator encodes images, but needs ``set_params(augment=...)`` before `fit`. A fitted
        estimator among the parameters, such as `encoder`, is saved with its own weights, so that `fit` can be repeated.
        """
        check_is_fitted(self)
        parts, records, tensors = Parts(), [], dict[str, Tensor]()
        parts.add_estimator(self, "")
        for i, (estimator, trained, prefix) in enumerate(parts.estimators):  # which grows in the loop
            record, own = _pack_estimator(estimator, trained, parts, prefix)
            records.append(record)
            tensors |= {f"estimator.{i}.{name}" if i else name: tensor for name, tensor in own.items()}
        header = {"skssl": __version__, **records[0]}
        if len(records) > 1:
            header["estimators"] = records[1:]
        for i, array in enumerate(parts.arrays):
            tensors[f"parameter.{i}"] = torch.tensor(array) if isinstance(array, np.ndarray) else array
        write(path, header, tensors)

    def _trained(self) -> Any:
        """Return an estimator with the parameters that `fit` saw; they may have been changed since."""
        return self

    def _pack_state(self, parts: Parts, prefix: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return what `fit` learned: the values of `saved_fields`, and tensors by name."""
        raise NotImplementedError

    def _check_state(
        self, trained: Self, values: Mapping[str, Any], shapes: Mapping[str, Tensor], given: Given
    ) -> Restore:
        """Compare what a file holds with the estimator, before tensors are read.

        Parameters
        ----------
        trained : estimator
            One with the parameters of the training.
        values : dict of str to object
            The values of `saved_fields`, each of which holds what its field expects. They are not trusted further.
        shapes : dict of str to Tensor
            The tensors by name, on the meta device.
        given : Given
            The estimators to which the values refer.

        Returns
        -------
        callable
            From the tensors to None. It makes the estimator fitted.

        Raises
        ------
        ValueError
            If the tensors or the values do not fit.
        """
        raise NotImplementedError


def _pack_estimator(
    estimator: Any, trained: Any, parts: Parts, prefix: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return an estimator's parameters and what it learned, as plain values and tensors."""
    kind: Any = type(estimator)
    name = kind.__name__
    if registered("estimator").get(name) is not kind:
        raise TypeError(
            f"{name} cannot be saved: a file can only name skssl's own classes. joblib.dump saves estimators of any "
            "class."
        )
    try:
        check_is_fitted(estimator)
        fitted = True
    except NotFittedError:
        fitted = False
    trained = trained or (estimator._trained() if fitted else estimator)
    parameters, used = (pack_parameters(of, parts, prefix) for of in (estimator, trained))
    changed = {key: value for key, value in used.items() if value != parameters[key]}
    record = {"class": name, "parameters": parameters, "trained_with": changed}
    values, tensors = estimator._pack_state(parts, prefix) if fitted else ({}, {})
    return {**record, **values}, tensors


def load(path: str | os.PathLike[str], **modules: Any) -> Any:
    """Load a fitted estimator that its method ``save`` has written.

    No code in the file runs, unlike with ``joblib.load``. The file is compared with the network that it describes
    before its tensors are read. Loading takes at most about twice as much memory as the file has bytes, even if the
    file is malicious.

    Parameters
    ----------
    path : str or path-like
        The file.
    **modules : torch.nn.Module or callable
        Modules of your own, which a file cannot hold, by the name of the parameter: ``backbone=net``. Those of an
        estimator within another one have its name in front, as in ``set_params``: ``encoder__backbone=net``. Their
        weights do not matter, but must have the names and shapes of those that were saved. An error names the
        parameters that the file needs.

    Returns
    -------
    estimator
        The estimator, on the device that its `device` parameter names, or on the CPU if this machine has no such
        device. `transform`, `partial_fit` and `predict` continue as if it had not been saved. Its `callbacks`,
        `checkpoint` and `warm_start_from` are None, and its `n_jobs` is at most the number of cores.

    Raises
    ------
    OSError
        If the file does not exist or cannot be read.
    ValueError
        If the file is damaged, was not written by ``save``, was written by a newer skssl, or holds anything unknown:
        another class, a parameter that the class lacks, a tensor that the network lacks. Also if a module is missing or
        does not fit. Trained weights of other libraries are passed to a method as `backbone_weights` instead.

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
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be the path of a file that save has written. Got {type(path).__name__}.")
    try:
        file = SavedFile(path)
    except ValueError as error:
        if not (isinstance(error, ForeignFileError) or os.path.isdir(path)):
            raise
        where = os.fspath(path)
        reason = f"{where!r} cannot be read: it is a folder." if os.path.isdir(path) else str(error)
        raise ValueError(
            f"{reason} Trained weights of other libraries are passed to a method: SimCLR(backbone=..., "
            f"backbone_weights={where!r}). With epochs=0, fit keeps them."
        ) from error
    with file:
        try:
            return _rebuild(file, modules)
        except (DamagedFileError, OSError):
            raise
        except Exception as error:  # a malicious file can make any check of a parameter fail
            version = file.header.get("skssl")
            other = "" if version in (None, __version__) else f" (it was saved by skssl {reprlib.repr(version)})"
            raise ValueError(f"{os.fspath(path)!r} cannot be loaded{other}: {first_line(error)}") from error


def _rebuild(file: SavedFile, modules: Mapping[str, Any]) -> Any:
    """Return the estimator that a file describes; refuse a file that holds anything else."""
    header = dict(file.header)
    if "training" in header:
        raise ValueError("It holds the state of a training, which fit resumes if `checkpoint` is its folder.")
    others = header.pop("estimators", [])
    if not is_sequence(list, lambda value: type(value) is dict)(others) or len(others) > MOST_ESTIMATORS:
        raise ValueError(f"'estimators' must be a list of at most {MOST_ESTIMATORS} dicts. Got {reprlib.repr(others)}.")
    if type(header.pop("skssl", None)) is not str:
        raise ValueError(f"'skssl' must be the version of skssl. Got {reprlib.repr(file.header.get('skssl'))}.")
    indices = part(file.shapes, "parameter.").keys()
    if indices != {str(i) for i in range(len(indices))}:
        raise ValueError("The tensors 'parameter.…' must be numbered from 0.")
    read = {f"parameter.{i}": file.read_tensor(f"parameter.{i}") for i in indices}
    arrays = {int(i): array for i, array in part(read, "parameter.").items()}
    left = {name: shape for name, shape in file.shapes.items() if name not in read}
    built: dict[int, Any] = {}
    trained: dict[int, Any] = {}
    restore: list[tuple[str, Restore]] = []
    asked: dict[str, Any] = {}
    for i in range(len(others), -1, -1):  # an estimator refers to later ones only
        prefix = f"estimator.{i}." if i else ""
        shapes = take(left, prefix)
        given = Given(arrays, dict(built), dict(trained), modules, asked)
        built[i], trained[i], finish = _build(others[i - 1] if i else header, shapes, not i, given)
        restore.append((prefix, finish))
    for name in modules.keys() - asked.keys():
        needed = f"It needs {', '.join(asked)}." if asked else "It needs no module."
        raise ValueError(f"The file has no use for {name}=.... {needed}")
    tensors = file.read(read)
    for prefix, finish in restore:
        finish(take(tensors, prefix))
    return built[0]


def _build(record: dict[str, Any], shapes: dict[str, Tensor], fitted: bool, given: Given) -> tuple[Any, Any, Restore]:
    """Return an estimator that a file describes, one as `fit` saw it, and the function that gives it its tensors."""
    cls: Any = pick("class", _checked(record, PARAMETERS)["class"], registered("estimator"))
    parameters, used = (unpack_parameters(cls, record[name], given) for name in ("parameters", "trained_with"))
    for given_to in (parameters, used):
        if isinstance(given_to.get("n_jobs"), Integral):  # a file must not start more processes than there are cores
            given_to["n_jobs"] = min(given_to["n_jobs"], joblib.cpu_count())
    fields = cls.saved_fields if fitted or record.keys() != PARAMETERS.keys() else {}
    for name in record.keys() - PARAMETERS.keys() - fields.keys():
        raise ValueError(f"{name[:80]!r} is unknown.")
    estimator = cls(**parameters)
    trained = cls(**{**parameters, **used}) if used else estimator
    if fields:
        return estimator, trained, estimator._check_state(trained, _checked(record, fields), shapes, given)
    for name in shapes:
        raise ValueError(f"The tensor {name[:80]!r} is unknown.")
    return estimator, trained, lambda tensors: None


def _checked(record: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    """Return the values of fields; refuse values that are not as expected."""
    values = {name: record.get(name, field.default) for name, field in fields.items()}
    for name, field in fields.items():
        if not field.holds(values[name]):
            raise ValueError(f"{name!r} must be {field.expected}. Got {reprlib.repr(record.get(name))}.")
    return values


def is_int(low: int, high: int = 2**63) -> Callable[[Any], bool]:
    """Return a check for an integer in [low, high)."""
    return lambda value: type(value) is int and low <= value < high


def is_float(value: Any) -> bool:
    """Return whether a value is a finite float."""
    return type(value) is float and math.isfinite(value)


def is_sequence(kind: Any, holds: Callable[[Any], bool], length: int | None = None) -> Callable[[Any], bool]:
    """Return a check for a list or tuple whose items pass a check."""
    return lambda value: type(value) is kind and length in (None, len(value)) and all(map(holds, value))


PARAMETERS = {
    "class": Field(lambda value: type(value) is str, "the name of a class"),
    "parameters": Field(lambda value: type(value) is dict, "a dict"),
    "trained_with": Field(lambda value: type(value) is dict, "a dict"),
}


def holds_fields(fields: Mapping[str, Field]) -> Callable[[Any], bool]:
    """Return a check for a dict of fields."""
    return lambda value: (
        type(value) is dict
        and value.keys() == fields.keys()
        and all(field.holds(value[name]) for name, field in fields.items())
    )


def pack_labels(labels: np.ndarray) -> dict[str, Any]:
    """Turn an array of class labels into plain values.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        Bools, numbers or strings.

    Returns
    -------
    dict of str to object
        The name of the dtype ("str" for strings of any length), and the values.

    Raises
    ------
    TypeError
        If the labels are of another type.

    Examples
    --------
    >>> import numpy as np
    >>> from skssl.storage.saving import pack_labels, unpack_labels
    >>> pack_labels(np.array(["cat", "dog"]))
    {'dtype': 'str', 'values': ['cat', 'dog']}
    >>> unpack_labels(pack_labels(np.array([1, 3], dtype=np.int16)))
    array([1, 3], dtype=int16)
    """
    kind = {"U": "str", "T": "str", "O": "object"}.get(labels.dtype.kind, labels.dtype.name)
    packed = {"dtype": kind, "values": labels.tolist()}
    if not LABELS.holds(packed):
        raise TypeError(f"Classes of the type {labels.dtype} cannot be saved. Use numbers or strings.")
    return packed


def unpack_labels(packed: Mapping[str, Any]) -> np.ndarray:
    """Invert `pack_labels`.

    Parameters
    ----------
    packed : dict of str to object
        What `LABELS` accepts.

    Returns
    -------
    ndarray of shape (n,)
        The labels.
    """
    return np.array(packed["values"], dtype=packed["dtype"])


def _holds_labels(value: Any) -> bool:
    """Return whether a value is as `pack_labels` returns it."""
    if not isinstance(value, dict) or value.keys() != {"dtype", "values"} or value["dtype"] not in LABEL_TYPES:
        return False
    return is_sequence(list, lambda label: type(label) in LABEL_TYPES[value["dtype"]])(value["values"])


#: The types of the labels by the name of the dtype.
LABEL_TYPES: dict[Any, tuple[type, ...]] = {
    **{name: (bool,) if name == "bool" else (float,) if "float" in name else (int,) for name in SCALARS},
    "str": (str,),
    "object": (str, int, float, bool),
}
LABELS = Field(_holds_labels, "the dtype and the values of class labels")

#: How images are read after `fit`, and the number of training images.
READING = {
    "shape": Field(is_sequence(tuple, is_int(1), 3), "channels, height and width"),
    "scale": Field(lambda value: value is None or is_sequence(tuple, is_float, 2)(value), "two floats or None"),
    "whole": Field(lambda value: type(value) is bool, "a bool", default=False),  # skssl 0.1.0 resized photographs
    "column": Field(lambda value: type(value) is bool, "a bool", default=False),  # whether X was a column of a table
    "feature_names": Field(is_sequence(list, lambda value: type(value) is str), "a list of strings"),
    "n_samples": Field(is_int(1), "a number of images"),
}
