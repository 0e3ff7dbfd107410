"""The state of a training within an epoch and of its callbacks, from which it resumes bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch
from skorch.callbacks import EarlyStopping, MlflowLogger, PassthroughScoring
from skorch.callbacks.scoring import ScoringBase
from torch import Tensor, nn

from skssl.storage.files import part

# What skorch's callbacks must keep to resume, since they have no `state_dict`. All but the weights are numbers.
KEPT: dict[type, tuple[str, ...]] = {
    EarlyStopping: ("misses_", "dynamic_threshold_", "best_epoch_"),
    PassthroughScoring: ("best_score_",),
    ScoringBase: ("best_score_",),
    MlflowLogger: ("_batch_count",),
}
WEIGHTS = "best_model_weights_"  # of EarlyStopping(load_best=True)


@dataclass
class ResumeState:
    """The state of a training besides the network, the optimiser and the history.

    Attributes
    ----------
    step : int
        Number of steps completed in the epoch. 0 is before the epoch has been prepared. The next four attributes belong
        to an epoch in progress.
    seconds : float
        Duration of these steps.
    sums : dict of str to scalar Tensor
        The losses summed over these steps, by name.
    chosen : int64 Tensor of shape (n_samples,) or None
        Indices of the epoch's images, if the method chooses them.
    random : dict of str to uint8 Tensor
        The states of the random generators, see `random_states`.
    trainable : list of str
        Names of the parameters that require a gradient.
    callbacks : dict of str to (dict of str to object)
        The states of the callbacks by name, see `callback_state`.
    finished : bool
        Whether the training has ended, after its last epoch or stopped by a callback.
    """

    step: int = 0
    seconds: float = 0.0
    sums: dict[str, Tensor] = field(default_factory=dict)
    chosen: Tensor | None = None
    random: dict[str, Tensor] = field(default_factory=dict)
    trainable: list[str] = field(default_factory=list)
    callbacks: dict[str, dict[str, Any]] = field(default_factory=dict)
    finished: bool = False

    @torch.no_grad()
    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of a step to the sums, in one call.

        Parameters
        ----------
        losses : dict of str to scalar Tensor
            The losses by name, with the same names in every step.
        """
        if self.sums:
            try:
                self.sums = {name: self.sums[name] for name in losses}  # files sort the names
            except KeyError as error:
                raise ValueError(f"The checkpoint lacks the sum of the loss {error}.") from error
            torch._foreach_add_(list(self.sums.values()), list(losses.values()))
        else:
            self.sums = {name: value.detach().clone() for name, value in losses.items()}


def trainable(module: nn.Module) -> list[str]:
    """Return the names of the parameters of a module that require a gradient.

    Parameters
    ----------
    module : torch.nn.Module
        The module.

    Returns
    -------
    list of str
        The names.

    Examples
    --------
    >>> from torch import nn
    >>> from skssl.training.resume import trainable
    >>> trainable(nn.Linear(2, 2))
    ['weight', 'bias']
    """
    return [name for name, parameter in module.named_parameters() if parameter.requires_grad]


def random_states(draws: torch.Generator) -> dict[str, Tensor]:
    """Return the states of all random generators that a training step uses.

    Parameters
    ----------
    draws : torch.Generator
        The generator of the augmentation, on the device of the training.

    Returns
    -------
    dict of str to uint8 Tensor
        The states of this generator ("draws"), of the global one ("global"), and of the device's global one ("device")
        where the device is not the CPU.
    """
    states = {"draws": draws.get_state(), "global": torch.get_rng_state()}
    if draws.device.type != "cpu":
        states["device"] = torch.get_device_module(draws.device).get_rng_state(draws.device)
    return states


def set_random_states(draws: torch.Generator, states: Mapping[str, Tensor]) -> None:
    """Set the states of all random generators that a training step uses.

    Parameters
    ----------
    draws : torch.Generator
        The generator of the augmentation, on the device of the training.
    states : dict of str to uint8 Tensor
        As `random_states` returns them. The device's is ignored on a CPU.
    """
    draws.set_state(states["draws"])
    torch.set_rng_state(states["global"])
    if "device" in states and draws.device.type != "cpu":
        torch.get_device_module(draws.device).set_rng_state(states["device"], draws.device)


def callback_state(callback: Any) -> dict[str, Any]:
    """Return the state of a callback.

    Parameters
    ----------
    callback : skorch.callbacks.Callback
        The callback.

    Returns
    -------
    dict of str to object
        Plain values and tensors: what its ``state_dict`` returns, or what a callback of skorch must keep.

    Examples
    --------
    >>> from skorch.callbacks import EarlyStopping
    >>> from skssl.training.resume import callback_state
    >>> callback_state(EarlyStopping())
    {'misses_': 0, 'dynamic_threshold_': None}
    """
    if hasattr(callback, "state_dict"):
        return callback.state_dict()
    state = {name: getattr(callback, name) for name in _kept(callback) if hasattr(callback, name)}
    weights = getattr(callback, WEIGHTS, None) or {}
    return {**state, **{f"{WEIGHTS}.{name}": value for name, value in weights.items()}}


def load_callback_state(callback: Any, state: Mapping[str, Any], module: nn.Module) -> None:
    """Restore the state of a callback.

    Parameters
    ----------
    callback : skorch.callbacks.Callback
        The callback.
    state : mapping of str to object
        As `callback_state` returns it. It may come from a file.
    module : torch.nn.Module
        The network of the training.

    Raises
    ------
    ValueError
        If the state is not that of a callback of skorch. ``load_state_dict`` of other callbacks may raise other errors.
    """
    if hasattr(callback, "load_state_dict"):
        callback.load_state_dict(state)
        return
    weights = part(state, f"{WEIGHTS}.")
    if weights:
        shapes = {name: value.shape for name, value in module.state_dict().items()}
        if {name: getattr(value, "shape", None) for name, value in weights.items()} != shapes:
            raise ValueError(f"{WEIGHTS!r} must have the tensors of the network.")
        setattr(callback, WEIGHTS, weights)
    for name, value in state.items():
        if name.removeprefix(f"{WEIGHTS}.") not in weights:
            if name not in _kept(callback) or not isinstance(value, Real):
                raise ValueError(f"{name!r} is unknown, or no number.")
            setattr(callback, name, value)


def _kept(callback: Any) -> tuple[str, ...]:
    """Return the names of the numbers that a callback of skorch must keep."""
    return next((names for kind, names in KEPT.items() if isinstance(callback, kind)), ())
