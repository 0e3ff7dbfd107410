"""Trained estimators as files that execute nothing: parameters and history as JSON, all else as safetensors."""

from __future__ import annotations

import inspect
import math
import os
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.optim import Optimizer

from skssl.errors import pick
from skssl.methods.base import SSLTransformer
from skssl.nn.precision import SMALLEST_BFLOAT16, resolve_precision
from skssl.storage.files import first_line, read, write
from skssl.storage.registry import registered
from skssl.storage.version import __version__
from skssl.training.devices import available
from skssl.training.optim import laid_out_as, optimizer_parameters

LARGEST_PARAMETERS = 2**16  # characters; arrays do not count
OUTPUTS = None, "default", "pandas", "polars"  # what set_output takes
SCALARS = "bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)), "float32", "float64"
UNSAVED = ("callbacks", "checkpoint")  # parameters that are None in what is loaded


def save(estimator: SSLTransformer, path: str | os.PathLike[str]) -> None:
    """Write a trained estimator to a file, see `SSLTransformer.save`.

    Parameters
    ----------
    estimator : SSLTransformer
        It is fitted, and of one of skssl's own classes.
    path : str or path-like
        The file.
    """
    check_is_fitted(estimator)
    name = type(estimator).__name__
    if registered("estimator").get(name) is not type(estimator):
        raise TypeError(
            f"{name} is no class of skssl's, which alone a saved file may name: joblib.dump keeps an estimator of any "
            "class."
        )
    trainer, arrays = estimator.net_, []  # type: ignore[var-annotated]
    module, optimizer = trainer.module_, trainer.optimizer_
    parameters, trained = (_pack_parameters(of, arrays) for of in (estimator, module.method))
    header = {
        "skssl": __version__,
        "class": name,
        "parameters": parameters,
        # The user may have set others since.
        "trained_with": {key: value for key, value in trained.items() if value != parameters[key]},
        "shape": estimator._shape,
        "scale": estimator._scale,
        "feature_names": getattr(estimator, "feature_names_in_", np.empty(0)).tolist(),
        "output": getattr(estimator, "_sklearn_output_config", {}).get("transform"),
        "n_samples": module.n_samples,
        "seed": int(trainer.seed),
        "history": [{key: of for key, of in row.items() if key != "batches"} for row in trainer.history],
        "rates": [float(group["lr"]) for group in optimizer.param_groups],
    }
    tensors = {f"net.{key}": value for key, value in _tensors_of(module).items()}
    tensors |= {
        f"parameter.{i}": torch.tensor(array) if isinstance(array, np.ndarray) else array
        for i, array in enumerate(arrays)
    }
    for i, parameter in enumerate(optimizer_parameters(optimizer)):
        for key, value in optimizer.state.get(parameter, {}).items():
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"{name}.optimizer cannot be saved: {type(optimizer).__name__} keeps {key}={value!r}, which is no "
                    "tensor. joblib.dump keeps whatever can be pickled."
                )
            tensors[f"optimizer.{i}.{key}"] = value
    write(path, header, tensors)


def load(path: str | os.PathLike[str]) -> SSLTransformer:
    """Load a trained estimator that its method ``save`` has written.

    Nothing in the file is executed, and it takes about its own size of memory, wherever it comes from. It is unlike
    ``joblib.load`` in this, which runs whatever code a file holds.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    SSLTransformer
        The estimator, on the device that its parameter says, or on the CPU where this machine has no such device.
        It transforms, and `partial_fit` goes on, as if it had not been saved. Its `callbacks` and `checkpoint` are
        None.

    Raises
    ------
    OSError
        If there is no such file, or it may not be read.
    ValueError
        If the file is truncated, too long or damaged, was not written by ``save`` or by a newer skssl, or holds
        anything unknown: another class, parameters that this class does not take, tensors that its network lacks.

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
    header, tensors = read(path)
    try:
        return _rebuild(header, tensors)
    except Exception as error:  # whatever a hostile file makes the checks of parameters trip over
        version = header.get("skssl")
        other = "" if version in (None, __version__) else f" (it was saved by skssl {reprlib.repr(version)})"
        raise ValueError(f"{os.fspath(path)!r} cannot be loaded{other}: {first_line(error)}") from error


def _rebuild(header: dict[str, Any], tensors: dict[str, Tensor]) -> SSLTransformer:
    """Make an estimator of what was read, and leave nothing over."""
    for name, field in FIELDS.items():
        if name not in header or not field.holds(header[name]):
            raise ValueError(f"{name!r} must be {field.expected}. Got {reprlib.repr(header.get(name))}.")
    for name in header.keys() - FIELDS.keys():
        raise ValueError(f"{name!r} is unknown.")
    cls = pick("class", header["class"], registered("estimator"))
    if len(repr((header["parameters"], header["trained_with"]))) > 2 * LARGEST_PARAMETERS:
        raise ValueError(f"The parameters take more than {LARGEST_PARAMETERS} characters.")
    parts = {prefix: _part(tensors, prefix) for prefix in ("net.", "optimizer.", "parameter.")}
    if sum(map(len, parts.values())) < len(tensors):
        raise ValueError(
            f"The tensor {next(name for name in tensors if not name.startswith(tuple(parts)))!r} is unknown."
        )
    arrays = {i: parts["parameter."].get(str(i)) for i in range(len(parts["parameter."]))}
    if None in arrays.values():
        raise ValueError("The tensors 'parameter.…' must be numbered from 0.")
    parameters = _unpack_parameters(cls, header["parameters"], arrays)
    trained_with = _unpack_parameters(cls, header["trained_with"], arrays)
    estimator = cls(**parameters)
    trained = cls(**{**parameters, **trained_with}) if trained_with else estimator
    trained._validate_params()
    shape = header["shape"]
    with torch.device("meta"):  # what the file should hold is found out without memory for it
        augmentations, encoded = trained._views(shape)
        module = trained._make_objective(shape, encoded, header["n_samples"])
    _fill(module, parts["net."])
    device = available(trained.device)
    trainer = trained._wrap(module, augmentations, device, _precision(trained, device, encoded), header["seed"])
    _restore(trainer.optimizer_, parts["optimizer."], header["rates"])
    trainer.history.extend({**row, "batches": []} for row in header["history"])
    estimator._shape, estimator._scale, estimator.net_ = shape, header["scale"], trainer
    estimator.set_output(transform=header["output"])
    estimator.n_features_in_ = math.prod(shape)
    if header["feature_names"]:
        if len(header["feature_names"]) != estimator.n_features_in_:
            raise ValueError(f"There are {len(header['feature_names'])} names of {estimator.n_features_in_} features.")
        estimator.feature_names_in_ = np.array(header["feature_names"], dtype=object)
    return estimator


@dataclass
class Field:
    """What an entry of the header must be."""

    holds: Callable[[Any], bool]
    expected: str


def _is_int(low: int, high: int = 2**63) -> Callable[[Any], bool]:
    """Whether something is an integer in a range."""
    return lambda value: type(value) is int and low <= value < high


def _is_float(value: Any) -> bool:
    """Whether something is a finite float."""
    return type(value) is float and math.isfinite(value)


def _is_sequence(kind: Any, of: Callable[[Any], bool], length: int | None = None) -> Callable[[Any], bool]:
    """Whether something is a list or a tuple of such things."""
    return lambda value: type(value) is kind and length in (None, len(value)) and all(map(of, value))


FIELDS = {
    "skssl": Field(lambda value: type(value) is str, "the version of skssl"),
    "class": Field(lambda value: type(value) is str, "the name of a class"),
    "parameters": Field(lambda value: type(value) is dict, "a dict"),
    "trained_with": Field(lambda value: type(value) is dict, "a dict"),
    "shape": Field(_is_sequence(tuple, _is_int(1), 3), "channels, height and width"),
    "scale": Field(lambda value: value is None or _is_sequence(tuple, _is_float, 2)(value), "two floats or None"),
    "feature_names": Field(_is_sequence(list, lambda value: type(value) is str), "a list of strings"),
    "output": Field(lambda value: value in OUTPUTS, f"one of {OUTPUTS}"),
    "n_samples": Field(_is_int(1), "a number of images"),
    "seed": Field(_is_int(0), "an integer of at least 0"),
    "history": Field(_is_sequence(list, lambda row: type(row) is dict and "batches" not in row), "a list of rows"),
    "rates": Field(_is_sequence(list, _is_float), "a list of floats"),
}


def _precision(estimator: SSLTransformer, device: torch.device, shape: tuple[int, int, int]) -> torch.dtype:
    """What to compute in: on a CPU not the bfloat16 that images so small can have on a GPU only."""
    side = min(shape[1:])
    unfit = estimator.precision == "bfloat16" and device.type == "cpu" and side < SMALLEST_BFLOAT16
    return resolve_precision("float32" if unfit else estimator.precision, device, side)


# Parameters: plain values, in which a dict says what it stands for. Arrays are kept aside, under their numbers.


def _optimizers() -> dict[str, type[Optimizer]]:
    """The optimisers that a parameter may name."""
    kinds = {**registered("optimizer"), **vars(torch.optim)}
    return {name: cls for name, cls in kinds.items() if isinstance(cls, type) and issubclass(cls, Optimizer)}


def _pack_parameters(estimator: Any, arrays: list[Any]) -> dict[str, Any]:
    """Bring an estimator's parameters into plain values."""
    name = type(estimator).__name__
    params = estimator.get_params(deep=False).items()
    found = {key: _pack(value, f"{name}.{key}", arrays) for key, value in params if key not in UNSAVED}
    if len(repr(found)) > LARGEST_PARAMETERS:
        raise ValueError(
            f"The parameters of {name} take more than {LARGEST_PARAMETERS} characters: give long lists as arrays."
        )
    return found


def _pack(value: Any, name: str, arrays: list[Any]) -> Any:
    """Bring a parameter into plain values."""
    if isinstance(value, np.generic) and value.dtype.name in SCALARS:  # they compute in another precision
        return {"scalar": (value.dtype.name, value.item())}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return type(value)([_pack(of, f"{name}[{i}]", arrays) for i, of in enumerate(value)])
    if isinstance(value, dict):
        return {"dict": {key: _pack(of, f"{name}[{key!r}]", arrays) for key, of in value.items()}}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "biuf"):
        if not any(of is value for of in arrays):
            arrays.append(value)
        number = next(i for i, of in enumerate(arrays) if of is value)
        return {"tensor" if isinstance(value, Tensor) else "array": number}
    if isinstance(value, type) and any(of is value for of in _optimizers().values()):
        return {"optimizer": value.__name__}
    if not isinstance(value, type) and registered("object").get(type(value).__name__) is type(value):
        return {"object": {"class": type(value).__name__, "parameters": _pack_parameters(value, arrays)}}
    raise TypeError(
        f"{name} cannot be saved: expected a plain value, an array or an object of skssl's, got {reprlib.repr(value)}. "
        "joblib.dump keeps whatever can be pickled."
    )


def _unpack_parameters(cls: type, packed: Any, arrays: dict[int, Any]) -> dict[str, Any]:
    """Make the parameters that a class takes of plain values."""
    if not isinstance(packed, dict):
        raise ValueError(f"The parameters of {cls.__name__} must be a dict. Got {reprlib.repr(packed)}.")
    known = inspect.signature(cls).parameters.keys() - set(UNSAVED)
    for name in packed:
        if name not in known:
            raise ValueError(f"{cls.__name__} has no parameter {name!r}.")
    return {name: _unpack(value, arrays) for name, value in packed.items()}


def _unpack(value: Any, arrays: dict[int, Any]) -> Any:
    """Make of plain values what they stand for."""
    if isinstance(value, list | tuple):
        return type(value)([_unpack(of, arrays) for of in value])
    if not isinstance(value, dict):
        return value
    match list(value.items()):
        case [("dict", dict(of))]:
            return {name: _unpack(inner, arrays) for name, inner in of.items()}
        case [("device", str(name))]:
            return torch.device(name)
        case [("scalar", (str(name), bool() | int() | float() as number))] if name in SCALARS:
            return np.dtype(name).type(number)
        case [("tensor", int(number))] if number in arrays:
            return arrays[number]
        case [("array", int(number))] if number in arrays:
            return arrays[number].numpy()
        case [("optimizer", str(name))]:
            return pick("optimizer", name, _optimizers())
        case [("object", {"class": str(name), "parameters": dict(packed), **rest})] if not rest:
            cls = pick("class", name, registered("object"))
            return cls(**_unpack_parameters(cls, packed, arrays))
    raise ValueError(f"A parameter is {reprlib.repr(value)}, which stands for nothing that is known.")


# Tensors


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those tensors whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): of for name, of in tensors.items() if name.startswith(prefix)}


def _tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, each once."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _check_like(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str) -> None:
    """Refuse the first tensor that is missing, unknown, or of another shape or type."""
    for name, like in wanted.items():
        if name not in found:
            raise ValueError(f"The tensor '{where}{name}' is missing.")
        if (found[name].shape, found[name].dtype) != (like.shape, like.dtype):
            raise ValueError(
                f"The tensor '{where}{name}' must be of shape {tuple(like.shape)} and {like.dtype}. Got "
                f"{tuple(found[name].shape)} and {found[name].dtype}."
            )
    for name in found.keys() - wanted.keys():
        raise ValueError(f"The tensor '{where}{name[:80]}' is unknown.")


def _fill(module: nn.Module, found: Mapping[str, Tensor]) -> None:
    """Give a network without memory its tensors."""
    _check_like(found, _tensors_of(module), "net.")
    for prefix, part in module.named_modules():
        for leaf, old in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            new = found[f"{prefix}.{leaf}" if prefix else leaf]
            setattr(part, leaf, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)


def _restore(optimizer: Optimizer, found: Mapping[str, Tensor], rates: list[float]) -> None:
    """Give an optimiser its state."""
    own = optimizer.state_dict()
    if len(rates) != len(own["param_groups"]):
        raise ValueError(f"'rates' must be {len(own['param_groups'])} of the optimiser's groups. Got {len(rates)}.")
    states: dict[str, dict[str, Tensor]] = {}
    for name, value in found.items():
        number, _, key = name.partition(".")
        states.setdefault(number, {})[key] = value
    likes: dict[Any, Mapping[str, Tensor]] = {}
    for i, parameter in enumerate(optimizer_parameters(optimizer)):
        state = states.pop(str(i), None)
        if state is not None:
            kind = parameter.shape, parameter.dtype
            likes[kind] = likes.get(kind) or _state_like(optimizer, parameter)
            _check_like(state, likes[kind], f"optimizer.{i}.")
            own["state"][i] = {name: laid_out_as(parameter, value) for name, value in state.items()}
    for number in states:
        raise ValueError(f"The optimiser has no parameter {number[:80]!r}.")
    own["param_groups"] = [{**group, "lr": rate} for group, rate in zip(own["param_groups"], rates, strict=True)]
    optimizer.load_state_dict(own)


def _state_like(optimizer: Optimizer, parameter: nn.Parameter) -> Mapping[str, Tensor]:
    """What an optimiser keeps for a parameter, found out by a step of one that is like it."""
    twin = torch.zeros(parameter.shape, dtype=parameter.dtype, requires_grad=True)
    twin.grad = torch.zeros_like(twin)
    takes = inspect.signature(type(optimizer)).parameters
    other = type(optimizer)([twin], **{name: value for name, value in optimizer.defaults.items() if name in takes})
    other.step()
    return other.state[twin]
