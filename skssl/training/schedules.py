"""Learning-rate schedules: by name, by functions of the progress, and by torch's schedulers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from skssl.errors import pick
from skssl.storage.files import first_line


def _constant(progress: float, epoch: float) -> float:
    """Stay at 1."""
    return 1.0


def _cosine(progress: float, epoch: float) -> float:
    """Fall along half a cosine, step by step."""
    return (1 + math.cos(math.pi * progress)) / 2


def _epoch_cosine(progress: float, epoch: float) -> float:
    """Fall along half a cosine, constant within an epoch."""
    return _cosine(progress * math.floor(epoch) / epoch, epoch) if epoch else 1.0


def _polynomial(progress: float, epoch: float) -> float:
    """Fall to 0 almost linearly, by the power of 0.9 that segmentation uses (DeepLab, PSPNet, UPerNet)."""
    return (1 - progress) ** 0.9


def step_decay(milestones: Sequence[float], gamma: float, progress: float, epoch: float) -> float:
    """Return the factor of a learning rate that is multiplied by gamma at each milestone.

    Parameters
    ----------
    milestones : sequence of float
        Shares of the training in [0, 1].
    gamma : float
        The factor at each of them.
    progress : float
        The share of the training that is done.
    epoch : float
        Not used; schedules have the same signature.

    Returns
    -------
    float
        The factor.

    Examples
    --------
    >>> from skssl.training.schedules import step_decay
    >>> step_decay((0.3, 0.6), 0.5, progress=0.7, epoch=70)
    0.25
    """
    return gamma ** sum(progress >= milestone for milestone in milestones)


def piecewise(steps: Sequence[tuple[float, float]], progress: float, epoch: float) -> float:
    """Return the factor of a learning rate that is constant between given shares of the training.

    Parameters
    ----------
    steps : sequence of (float, float)
        Shares of the training in ascending order, and the factor from each of them on. The factor is 1 before them.
    progress : float
        The share of the training that is done.
    epoch : float
        Not used; schedules have the same signature.

    Returns
    -------
    float
        The factor.

    Examples
    --------
    >>> from skssl.training.schedules import piecewise
    >>> [piecewise([(0.5, 0.1), (0.9, 0.3)], progress, epoch=0) for progress in (0.4, 0.5, 0.95)]
    [1.0, 0.1, 0.3]
    """
    return next((float(factor) for share, factor in reversed(steps) if progress >= share), 1.0)


def sequence_course(schedule: Sequence[Any]) -> Callable[[float, float], float]:
    """Return the function of a schedule that is a sequence.

    Parameters
    ----------
    schedule : sequence of float, or of (float, float)
        Shares of the training at which the rate falls to a fifth, or the shares and the factors of `piecewise`.

    Returns
    -------
    callable
        Maps the progress and the epoch to the factor.
    """
    if len(schedule) and isinstance(schedule[0], (tuple, list)):
        return partial(piecewise, schedule)
    return partial(step_decay, schedule, STEP_GAMMA)


def _of_progress(schedule: Callable[[float], float], progress: float, epoch: float) -> float:
    """Call a user's schedule."""
    factor = float(schedule(progress))
    if not 0 <= factor < math.inf:
        raise ValueError(f"schedule must return finite factors of at least 0. Got {factor} for progress {progress:g}.")
    return factor


STEP_GAMMA = 0.2  # of "step" and of milestones given as numbers

SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "constant": _constant,
    "cosine": _cosine,
    "epoch_cosine": _epoch_cosine,
    "polynomial": _polynomial,
    "step": partial(step_decay, (0.3, 0.6, 0.8), STEP_GAMMA),
}


def schedule_factor(
    schedule: str | Sequence[float] | Callable[[float], float],
    epoch: float,
    epochs: int,
    warmup_epochs: float = 0.0,
) -> float:
    """Return the factor of the learning rate at a point of the training.

    Parameters
    ----------
    schedule : {"constant", "cosine", "epoch_cosine", "polynomial", "step"}, sequence or callable
        The schedule after the warm-up. "cosine" falls step by step (SimCLR, BYOL), "epoch_cosine" at the end of each
        epoch (SimSiam, MoCo v2), "polynomial" as ``(1 - progress) ** 0.9`` (segmentation), "step" to a fifth at 30, 60
        and 80 % of the training (RotNet's epochs 60, 120 and 160 of 200). Numbers in [0, 1] are other shares of the
        training at which it falls to a fifth. Pairs are shares and the factor from each of them on, see `piecewise`. A
        function maps the progress after the warm-up, in [0, 1], to the factor.
    epoch : float
        Number of completed epochs, with the fraction of the current one.
    epochs : int
        Number of planned epochs. After them the factor stays at that of the start of the last planned epoch, or of the
        end of the warm-up if that is later, so that further epochs do not train at a rate of zero.
    warmup_epochs : float, default=0
        Number of epochs in which the factor rises linearly to 1.

    Returns
    -------
    float
        The factor, which is between 0 and 1 for a schedule by name.

    Raises
    ------
    ValueError
        If the schedule is unknown, or its function returns a negative or infinite factor.

    Examples
    --------
    >>> from skssl.training.schedules import schedule_factor
    >>> [round(schedule_factor("cosine", epoch, epochs=4), 2) for epoch in (0, 1, 2, 3, 3.5, 4)]
    [1.0, 0.85, 0.5, 0.15, 0.04, 0.15]
    >>> [round(schedule_factor((0.6, 0.8), epoch, epochs=20), 2) for epoch in (11, 12, 16)]
    [1.0, 0.2, 0.04]
    >>> [schedule_factor(((0.6, 0.1), (0.8, 0.5)), epoch, epochs=20) for epoch in (11, 12, 16)]
    [1.0, 0.1, 0.5]
    >>> schedule_factor(lambda progress: 1 - progress, 3, epochs=4)
    0.25
    """
    if isinstance(schedule, str):
        course = pick("schedule", schedule, SCHEDULES)
    elif callable(schedule):
        course = partial(_of_progress, schedule)
    else:
        course = sequence_course(schedule)
    if epoch >= epochs:
        epoch = max(epochs - 1, min(warmup_epochs, epochs))
    if epoch < warmup_epochs:
        return epoch / warmup_epochs
    epoch, epochs_left = epoch - warmup_epochs, max(epochs - warmup_epochs, 1e-9)
    return course(epoch / epochs_left, epoch)


EXPECTED = (
    "schedule must be a name, a function of the progress from 0 to 1 that returns a factor, or a function of an "
    "optimizer that returns one of torch's schedulers."
)


class SchedulerRates:
    """The learning rates of one of torch's schedulers at any step of a training.

    The scheduler belongs to a stand-in for the optimiser. Its rates depend on the position in the training and on the
    losses of earlier epochs alone, so a training that resumes repeats the scheduler's steps.

    Parameters
    ----------
    make : callable
        Makes a ``torch.optim.lr_scheduler.LRScheduler`` of an optimizer.
    peaks : sequence of float
        The learning rates of the optimiser's parameter groups, from which the scheduler starts.

    Examples
    --------
    >>> from functools import partial
    >>> from torch.optim.lr_scheduler import ExponentialLR
    >>> from skssl.training.schedules import SchedulerRates
    >>> rates = SchedulerRates(partial(ExponentialLR, gamma=0.5), peaks=[0.8])
    >>> [rates(epoch, step=0, steps=10, losses=[]) for epoch in (0, 1, 3)]
    [[0.8], [0.4], [0.1]]
    """

    def __init__(self, make: Callable[[Optimizer], LRScheduler], peaks: Sequence[float]) -> None:
        self.make, self.peaks = make, peaks
        self._start()

    def _start(self) -> None:
        """Go back to the first step."""
        self.optimizer, self.done = _StandIn(self.peaks), 0
        try:
            self.scheduler = self.make(self.optimizer)
        except (TypeError, ValueError) as error:
            raise type(error)(f"schedule={self.make!r} makes no scheduler: {first_line(error)}") from error

    def __call__(self, epoch: int, step: int, steps: int, losses: Sequence[float]) -> list[float]:
        """Return the learning rates of a step.

        Parameters
        ----------
        epoch : int
            Number of completed epochs.
        step, steps : int
            The step within the epoch, from 0, and the number of steps of an epoch.
        losses : sequence of float
            The losses of the completed epochs, for ``ReduceLROnPlateau``.

        Returns
        -------
        list of float
            A rate for each parameter group. `OneCycleLR` and `CyclicLR` step after each batch, as torch's documentation
            says, and the others after each epoch.
        """
        position = epoch * steps + step if isinstance(self.scheduler, (OneCycleLR, CyclicLR)) else epoch
        if isinstance(self.scheduler, ReduceLROnPlateau):
            position = min(position, len(losses))  # an interrupted epoch has no loss
        if position < self.done:
            self._start()
        while self.done < position:
            self.optimizer.step()
            if isinstance(self.scheduler, ReduceLROnPlateau):
                self.scheduler.step(losses[self.done])
            else:
                self.scheduler.step()
            self.done += 1
        return [float(group["lr"]) for group in self.optimizer.param_groups]


class _StandIn(Optimizer):
    """An optimiser that trains nothing. It holds the learning rates that a scheduler sets.

    Parameters
    ----------
    rates : sequence of float
        The learning rates of the parameter groups.
    """

    def __init__(self, rates: Sequence[float]) -> None:
        super().__init__([{"params": [torch.zeros(1)], "lr": rate} for rate in rates], {"lr": rates[0]})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Do nothing."""


def makes_scheduler(schedule: Any) -> bool:
    """Return whether a schedule makes one of torch's schedulers.

    Parameters
    ----------
    schedule : object
        The schedule. A function is called with the progress 0.0, and if that fails with an optimizer.

    Returns
    -------
    bool
        False for a name, for numbers, and for a function of the progress.

    Raises
    ------
    ValueError
        If a function returns neither a number nor a scheduler.

    Examples
    --------
    >>> from torch.optim.lr_scheduler import StepLR
    >>> from skssl.training.schedules import makes_scheduler
    >>> [makes_scheduler(each) for each in ("cosine", lambda progress: 1 - progress, lambda it: StepLR(it, 30))]
    [False, False, True]
    """
    if not callable(schedule):
        return False
    function = schedule.func if isinstance(schedule, partial) else schedule
    if isinstance(function, type) and issubclass(function, LRScheduler):
        return True
    made: Any
    try:
        made = schedule(0.0)
    except Exception as of_progress:
        try:
            made = schedule(_StandIn([1.0]))
        except Exception as of_optimizer:
            raise ValueError(
                f"{EXPECTED} Got {schedule!r}, which raises for the progress 0.0: {first_line(of_progress)} For an "
                f"optimizer it raises: {first_line(of_optimizer)}"
            ) from of_optimizer
    if not isinstance(made, (Real, LRScheduler)):
        raise ValueError(f"{EXPECTED} Got {schedule!r}, which returns {made!r}.")
    return isinstance(made, LRScheduler)


def check_schedule(schedule: Any, warmup_epochs: float | None) -> None:
    """Refuse an unknown schedule, and a warm-up before one of torch's schedulers.

    Parameters
    ----------
    schedule : str, sequence of float or callable
        The schedule.
    warmup_epochs : float or None
        The parameter of this name.

    Raises
    ------
    ValueError
        If the name is unknown, a number is not in [0, 1], a function returns neither a factor nor a scheduler, or one
        of torch's schedulers is preceded by a warm-up.
    """
    if isinstance(schedule, str):
        pick("schedule", schedule, SCHEDULES)
    elif callable(schedule):
        if makes_scheduler(schedule) and warmup_epochs:
            raise ValueError(
                f"warmup_epochs={warmup_epochs:g} has no effect on one of torch's schedulers, which sets the rates of "
                "the whole training. Pass warmup_epochs=0, and begin with LinearLR in a SequentialLR."
            )
    elif not _is_sequence_of_steps(schedule):
        raise ValueError(
            "schedule must be a name, a function, or fractions of the training, between 0 and 1, at which the learning "
            f"rates are multiplied by {STEP_GAMMA}, or pairs of ascending fractions and factors. Got {schedule!r}."
        )


def _is_sequence_of_steps(schedule: Any) -> bool:
    """Return whether a schedule is a sequence of shares of the training, or of such shares in order with factors."""
    pairs = [step if isinstance(step, (tuple, list)) else (step,) for step in schedule]
    if len({len(pair) for pair in pairs}) > 1 or not all(isinstance(n, Real) for pair in pairs for n in pair):
        return False
    shares, factors = [float(pair[0]) for pair in pairs], [float(n) for pair in pairs for n in pair[1:]]
    ordered = not factors or (len(factors) == len(shares) and shares == sorted(shares))
    return ordered and all(0 <= share <= 1 for share in shares) and all(0 <= factor < math.inf for factor in factors)
