"""The state of a training between two steps: network, optimiser and history, for checkpoints and saved estimators."""

from __future__ import annotations

import copy
import inspect
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from skssl.storage.files import part, take
from skssl.training.optim import laid_out_as, optimizer_parameters
from skssl.training.seeding import seeded
from skssl.training.trainer import Trainer

M = TypeVar("M", bound=nn.Module)

LARGEST_TRIED = 2**21  # pixels of images that a network runs on while an estimator is loaded
RECORDED = ("epoch", "loss", "lr", "images_per_second")  # numbers in each row of the history
MEASURES = ("embedding_std", "effective_rank")  # further numbers, recorded at the end of the epoch


def training_state(trainer: Trainer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the state of a training.

    Parameters
    ----------
    trainer : Trainer
        An initialised trainer.

    Returns
    -------
    values : dict of str to object
        Plain values: "seed"; "history", a row an epoch; "rates", the learning rate of each parameter group;
        "optimizer", the entries of the optimiser's state that are not tensors, by "{index}.{name}".
    tensors : dict of str to Tensor
        The network's parameters and buffers, "net.{name}", and the optimiser's state, "optimizer.{index}.{name}", where
        index counts the parameters of the optimiser. They are not copies.
    """
    optimizer = trainer.optimizer_
    state = {
        f"{i}.{name}": value
        for i, parameter in enumerate(optimizer_parameters(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
    }
    tensors = {f"net.{name}": value for name, value in trainer.module_.state_dict().items()}
    tensors |= {f"optimizer.{name}": value for name, value in state.items() if isinstance(value, Tensor)}
    values = {
        "seed": int(trainer.seed),
        "history": [{name: value for name, value in row.items() if name != "batches"} for row in trainer.history],
        "rates": [float(group["lr"]) for group in optimizer.param_groups],
        "optimizer": {name: value for name, value in state.items() if not isinstance(value, Tensor)},
    }
    return values, tensors


def load_training_state(trainer: Trainer, values: Mapping[str, Any], tensors: dict[str, Tensor]) -> None:
    """Give a trainer the state of another one.

    Parameters
    ----------
    trainer : Trainer
        A trainer that was initialised with the same parameters and has not trained.
    values : mapping of str to object
        Plain values as returned by `training_state`; "optimizer" may be missing.
    tensors : dict of str to Tensor
        Tensors as returned by `training_state`; others are ignored. They are removed from the dict, so that memory
        holds them once. Without the network's, the trainer keeps its network.
    """
    if network := take(tensors, "net."):
        trainer.module_.load_state_dict(network)
        del network
    trainer.seed = values["seed"]
    trainer.history.extend({**row, "batches": [{}]} for row in values["history"])
    optimizer = trainer.optimizer_
    states = _by_index({**values.get("optimizer", {}), **take(tensors, "optimizer.")})
    state = optimizer.state_dict()
    for i, parameter in enumerate(optimizer_parameters(optimizer)):
        if str(i) in states:
            state["state"][i] = {
                name: laid_out_as(parameter, value) if isinstance(value, Tensor) else value
                for name, value in states.pop(str(i)).items()
            }
    for group, rate in zip(state["param_groups"], values["rates"], strict=True):
        group["lr"] = rate
    optimizer.load_state_dict(state)  # keeps counters on the CPU and moves the rest to the parameters' device


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a network that was built on the meta device its parameters and buffers.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    tensors : mapping of str to Tensor
        Its ``state_dict``, which `check_network` has accepted. The tensors are not copied.
    """
    module.load_state_dict(dict(tensors), assign=True)


def check_network(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str = "net.") -> None:
    """Refuse tensors that do not fit a network, before they are read from a file that is not trusted.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    tensors : mapping of str to Tensor
        Tensors as returned by `training_state`. They may lie on the meta device, because their values are not read.
    prefix : str, default="net."
        What precedes the names of the network's tensors.

    Raises
    ------
    ValueError
        If a tensor of the network is missing, unknown, or of another shape or type.
    """
    _check_like(part(tensors, prefix), module.state_dict(), prefix)


class Blank(Generic[M]):
    """A network whose tensors take no memory until a file gives them.

    Parameters
    ----------
    make : callable
        Returns the network for a backbone.
    backbone : str, torch.nn.Module or callable
        The backbone. A user's module is not changed.
    pixels : int
        The pixels of an image. Networks that need values run on two images while they are made.

    Attributes
    ----------
    module : torch.nn.Module
        The network, on the meta device if it can run there.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skssl.training.state import Blank
    >>> blank = Blank(lambda backbone: backbone, nn.Linear(2, 2), 1)
    >>> blank.module.weight.is_meta, blank.fill(nn.Linear(2, 2).state_dict()).weight.is_meta
    (True, False)
    """

    def __init__(self, make: Callable[[Any], M], backbone: Any, pixels: int) -> None:
        self.make, self.backbone, self.pixels = make, backbone, pixels
        try:
            copied = _without_values(backbone)
            with torch.device("meta"):
                self.module = make(copied)
        except Exception:
            if isinstance(backbone, str) or pixels > LARGEST_TRIED:
                raise
            self.module = self._make()  # a user's module may need values

    def check(self, shapes: Mapping[str, Tensor], prefix: str = "net.") -> None:
        """Refuse tensors that do not fit, see `check_network`."""
        try:
            check_network(self.module, shapes, prefix)
        except ValueError as error:
            if isinstance(self.backbone, str):
                raise
            name = type(self.backbone).__name__
            raise ValueError(f"The backbone, a {name}, is not the one that was saved: {error}") from error

    def fill(self, tensors: Mapping[str, Tensor]) -> M:
        """Return the network with tensors that `check` has accepted, by their names in its ``state_dict``."""
        fill(self.module, tensors)
        if any(buffer.is_meta for buffer in self.module.buffers()):  # those that no state dict has must be computed
            if self.pixels > LARGEST_TRIED:
                raise ValueError(f"Images of {self.pixels} pixels are too large to make this network.")
            self.module = self._make()
            fill(self.module, tensors)
        return self.module

    def _make(self) -> M:
        with seeded(0):
            return self.make(self.backbone)


def _without_values(backbone: Any) -> Any:
    """Return a copy of a module, or of what a function returns, whose tensors take no memory."""
    if isinstance(backbone, str):
        return backbone
    with seeded(0):
        module = backbone if isinstance(backbone, nn.Module) else backbone()
    return copy.deepcopy(module).to("meta")


def check_history(history: Any) -> None:
    """Refuse a history whose rows lack what tables and plots show, before it is loaded from a file.

    Parameters
    ----------
    history : object
        A list of rows, as `training_state` returns it. Callbacks may have recorded other plain values.

    Raises
    ------
    ValueError
        If a row has another form.
    """
    if type(history) is not list:
        raise ValueError(f"'history' must be a list of rows. Got {reprlib.repr(history)}.")
    for i, row in enumerate(history):
        if type(row) is not dict or "batches" in row:
            raise ValueError(f"Row {i} of 'history' must be a dict without 'batches'. Got {reprlib.repr(row)}.")
        recorded = RECORDED if "loss" in row else ()  # an interrupted epoch has no loss
        for name in (*recorded, *(name for name in MEASURES if name in row)):
            if type(row.get(name)) not in (int, float):
                raise ValueError(
                    f"{name!r} in row {i} of 'history' must be a number. Got {reprlib.repr(row.get(name))}."
                )


def check_optimizer_state(optimizer: Optimizer, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Refuse an optimiser's state that does not fit, before it is loaded from a file that is not trusted.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        A new optimizer.
    values : mapping of str to object
        Plain values as returned by `training_state`.
    tensors : mapping of str to Tensor
        Tensors as returned by `training_state`. They may lie on the meta device.

    Raises
    ------
    ValueError
        If the learning rates are not one for each group, or a tensor is missing, unknown, or of another shape or type.
    """
    n_groups, n_rates = len(optimizer.param_groups), len(values["rates"])
    if n_rates != n_groups:
        raise ValueError(f"'rates' must hold {n_groups} learning rates, one for each parameter group. Got {n_rates}.")
    states = _by_index({**values.get("optimizer", {}), **part(tensors, "optimizer.")})
    expected: dict[Any, Mapping[str, Any]] = {}
    for i, parameter in enumerate(optimizer_parameters(optimizer)):
        if (state := states.pop(str(i), None)) is not None:
            kind = parameter.shape, parameter.dtype
            expected[kind] = expected.get(kind) or _state_after_step(optimizer, parameter)
            _check_like(state, expected[kind], f"optimizer.{i}.")
    for index in states:
        raise ValueError(f"The optimiser has no parameter {index[:80]!r}.")


def _by_index(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Group the entries of an optimiser's state by the index that begins their names."""
    found: dict[str, dict[str, Any]] = {}
    for full_name, value in state.items():
        index, _, name = full_name.partition(".")
        found.setdefault(index, {})[name] = value
    return found


def _check_like(found: Mapping[str, Any], expected: Mapping[str, Any], prefix: str) -> None:
    """Refuse the first tensor or number that is missing, unknown, or of another shape or type."""
    for name, like in expected.items():
        if name not in found:
            raise ValueError(f"The tensor '{prefix}{name}' is missing.")
        if not isinstance(like, Tensor) or not isinstance(found[name], Tensor):
            if type(found[name]) is not type(like):
                raise ValueError(f"{prefix}{name} must be a {type(like).__name__}. Got {reprlib.repr(found[name])}.")
            continue
        if (found[name].shape, found[name].dtype) != (like.shape, like.dtype):
            raise ValueError(
                f"The tensor '{prefix}{name}' must be of shape {tuple(like.shape)} and {like.dtype}. Got "
                f"{tuple(found[name].shape)} and {found[name].dtype}."
            )
    for name in found.keys() - expected.keys():
        raise ValueError(f"The tensor '{prefix}{name[:80]}' is unknown.")


def _state_after_step(optimizer: Optimizer, parameter: nn.Parameter) -> Mapping[str, Any]:
    """Return the state that an optimiser of the same kind keeps for a like parameter after one step."""
    takes = inspect.signature(type(optimizer)).parameters
    options = {name: value for name, value in optimizer.defaults.items() if name in takes and name != "fused"}

    def after_step(device: str) -> Mapping[str, Any]:
        twin = torch.zeros(parameter.shape, dtype=parameter.dtype, device=device, requires_grad=True)
        twin.grad = torch.zeros_like(twin)
        other = type(optimizer)([twin], **options)
        other.step()
        return other.state[twin]

    try:
        return after_step("meta")  # takes no memory; fused kernels lack this device
    except (RuntimeError, NotImplementedError):  # the optimiser reads values
        return after_step("cpu")
