"""A training's state in a folder: saved whole every so often, gone on from bit by bit, never taken for another's."""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from types import FrameType
from typing import Any, Self

import filelock
import torch
from torch import Tensor
from tqdm.auto import tqdm

from skssl.images import Images
from skssl.nn.distributed import is_main_process, n_processes
from skssl.storage.files import part, read, write
from skssl.training.digests import digest_training
from skssl.training.resume import ResumeState, random_states, trainable
from skssl.training.state import load_training_state, training_state
from skssl.training.trainer import Trainer

STATE, LOCK = "training.safetensors", "lock"  # the files in the folder
FORMAT = 2  # of the state; checkpoints of another format are refused


class Checkpoint:
    """What saves a training's state while it trains, and brings it back.

    As a context it locks the folder, and makes SIGTERM and Ctrl-C save before they end the training: after the step
    that is under way, or at once when they come again. Of several processes one saves, and between epochs only, as each
    draws its own views.

    Parameters
    ----------
    folder : str or path-like
        Where the state is kept. It is made if it does not exist; a folder is for one training.
    every : int, str or datetime.timedelta
        After how many epochs the state is saved, or after how much time, such as "10 min", in the middle of an epoch.
        It is also saved at the end.
    known : mapping of str to str
        Digests of what makes the training what it is, by name: parameters, images, labels.

    Raises
    ------
    ValueError
        If `folder` or `every` is no such thing, or the folder holds what another training has left.
    OSError
        If the folder cannot be made or written to.
    RuntimeError
        If another run is using the folder.

    Examples
    --------
    >>> import tempfile
    >>> from skssl import SimCLR
    >>> from skssl.datasets import make_shapes
    >>> X, _ = make_shapes(32, image_size=16, random_state=0)
    >>> folder = tempfile.mkdtemp()
    >>> method = SimCLR(backbone="convnet", epochs=2, batch_size=16, random_state=0, checkpoint=folder).fit(X)
    >>> again = SimCLR(backbone="convnet", epochs=2, batch_size=16, random_state=0, checkpoint=folder).fit(X)
    >>> (again.transform(X) == method.transform(X)).all()  # the second has nothing left to do
    np.True_
    """

    def __init__(
        self, folder: str | os.PathLike[str], every: int | str | datetime.timedelta, known: Mapping[str, str]
    ) -> None:
        if not os.fspath(folder):
            raise ValueError("The 'checkpoint' parameter must be a folder. Got ''.")
        self.folder, self.known = Path(folder), dict(known)
        self._lock = filelock.FileLock(self.folder / LOCK)
        self.epochs, self.seconds = _parse(every)
        self.stop: int | None = None  # the signal that asked for the end
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Lock the folder, and listen to signals."""
        if is_main_process():
            self._take()
        if threading.current_thread() is threading.main_thread():  # others cannot, and get no signals
            for kind in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(kind) != signal.SIG_IGN:  # as what runs in the background ignores Ctrl-C
                    self._handlers[kind] = signal.signal(kind, self._asked)
        self._saved = time.monotonic()
        return self

    def _take(self) -> None:
        """Make the folder one's own."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise RuntimeError(
                f"checkpoint={str(self.folder)!r} is in use by another run: give each run a folder of its own, or wait."
            ) from None
        except OSError as error:
            raise OSError(
                error.errno, f"checkpoint={str(self.folder)!r} is no folder that can be written to: {error.strerror}"
            ) from error
        for left in self.folder.glob(f".{STATE}.*"):  # of a run that was killed while it saved
            left.unlink()

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        """Leave signals and the folder to others."""
        for which, handler in self._handlers.items():
            signal.signal(which, handler)
        self._lock.release()
        if self.stop is not None and kind is None:  # it came after the last step
            signal.raise_signal(self.stop)

    def restore(self, trainer: Trainer) -> ResumeState | None:
        """Bring a new trainer to where the folder's training was saved; leave it new if there is none.

        Parameters
        ----------
        trainer : Trainer
            One that has been initialised with the same parameters.

        Returns
        -------
        ResumeState or None
            The state within an epoch, for `Trainer.run`. None if the folder holds no training.

        Raises
        ------
        ValueError
            If the training in the folder is another one, or its file cannot be read.
        """
        file = self.folder / STATE
        if not file.exists():
            return None
        header, tensors = read(file)
        if header.get("format") != FORMAT:
            raise ValueError(
                f"{str(file)!r} holds no training state that this version of skssl reads: take another folder, or "
                "delete this one."
            )
        found = header["known"]
        other = [name for name in {**self.known, **found} if self.known.get(name) != found.get(name)]
        if other:
            raise ValueError(
                f"checkpoint={str(self.folder)!r} holds a training that differs in: {', '.join(other)}. Go on with the "
                "same, take another folder, or delete this one."
            )
        state, epochs = unpack(trainer, header["training"], tensors), len(trainer.history)
        if is_main_process():
            tqdm.write(
                f"{type(trainer.module_.method).__name__}: going on from {str(self.folder)!r}, after {epochs} epoch(s)"
                + (f" and {state.step} step(s)." if state.step else "."),
                file=sys.stderr,
            )
        return state

    def after_step(self, trainer: Trainer, state: ResumeState, draws: torch.Generator) -> None:
        """Save in the middle of an epoch, if it is time.

        Parameters
        ----------
        trainer : Trainer
            What trains.
        state : ResumeState
            How far the epoch is.
        draws : torch.Generator
            The augmentation's.
        """
        if n_processes() > 1:
            self._end()
        elif self.stop is not None or time.monotonic() - self._saved >= self.seconds:
            state.random = random_states(draws)
            self._save(trainer, state)

    def after_epoch(self, trainer: Trainer) -> None:
        """Save between two epochs, if it is time.

        Parameters
        ----------
        trainer : Trainer
            What trains.
        """
        done = len(trainer.history)
        due = done % self.epochs == 0 if self.epochs else time.monotonic() - self._saved >= self.seconds
        if due or self.stop is not None or done == trainer.max_epochs:
            self._save(trainer, ResumeState())

    def _save(self, trainer: Trainer, state: ResumeState) -> None:
        """Save, and end the training if that was asked for. What cannot be saved is no reason to stop."""
        try:
            if is_main_process():
                values, tensors = pack(trainer, state)
                write(self.folder / STATE, {"format": FORMAT, "known": self.known, "training": values}, tensors)
        except (OSError, TypeError, ValueError) as error:
            warnings.warn(
                f"The training goes on, but its state could not be saved; what was saved before stays: {error}",
                stacklevel=2,
            )
        self._saved = time.monotonic()
        self._end()

    def _end(self) -> None:
        """End the training if a signal has asked for it."""
        if self.stop == signal.SIGINT:
            raise KeyboardInterrupt
        if self.stop is not None:
            raise SystemExit(128 + self.stop)

    def _asked(self, kind: int, frame: FrameType | None) -> None:
        """Note a signal, for the end of the step; the second one counts at once."""
        if self.stop is None:
            self.stop = kind
            os.write(2, b"\nThe state is saved after this step; a second signal ends the training at once.\n")
            return
        handler = self._handlers[kind]
        signal.signal(kind, handler)
        signal.raise_signal(kind)


def train(estimator: Any, trainer: Trainer, images: Images, target: Tensor | None, **more: Any) -> None:
    """Train an estimator's net to its end, from the start or from where its checkpoint is.

    Parameters
    ----------
    estimator : estimator
        Has `epochs`, `checkpoint` and `checkpoint_every`.
    trainer : Trainer
        Its net, initialised.
    images : Images
        The training images.
    target : int64 Tensor of shape (n_samples,) or None
        Their classes.
    **more : object
        What else, apart from parameters, images and classes, makes the training what it is.
    """
    if estimator.checkpoint is None:
        trainer.run(images, target, estimator.epochs)
        return
    known = digest_training(estimator, images, target, **more)
    with Checkpoint(estimator.checkpoint, estimator.checkpoint_every, known) as checkpoint:
        resume = checkpoint.restore(trainer)
        if left := estimator.epochs - len(trainer.history):
            trainer.run(images, target, left, checkpoint, resume)


def pack(trainer: Trainer, state: ResumeState) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the state of a training, perhaps in the middle of an epoch.

    Parameters
    ----------
    trainer : Trainer
        The trainer.
    state : ResumeState
        The state of the epoch.

    Returns
    -------
    values : dict of str to object
        Plain values: those of `training_state`, the epoch's and the callbacks'.
    tensors : dict of str to Tensor
        Tensors: those of `training_state`, the epoch's ("sums.…", "random.…", "chosen") and the callbacks'
        ("callbacks.…").
    """
    values, tensors = training_state(trainer)
    if state.step:
        values["history"].pop()  # the row of the epoch under way is recorded again
    values |= {"step": state.step, "seconds": state.seconds, "trainable": trainable(trainer.module_), "callbacks": {}}
    tensors |= {f"sums.{name}": value for name, value in state.sums.items()}
    tensors |= {f"random.{name}": value for name, value in state.random.items()}
    if state.chosen is not None:
        tensors["chosen"] = state.chosen
    for name, callback in trainer.callbacks_:
        if hasattr(callback, "state_dict"):
            own = callback.state_dict()
            tensors |= {f"callbacks.{name}.{key}": value for key, value in own.items() if isinstance(value, Tensor)}
            values["callbacks"][name] = {key: value for key, value in own.items() if not isinstance(value, Tensor)}
    return values, tensors


def unpack(trainer: Trainer, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ResumeState:
    """Give a trainer the state that `pack` returned.

    Parameters
    ----------
    trainer : Trainer
        A trainer that was initialized with the same parameters and has not trained.
    values, tensors : mapping of str to object
        The state.

    Returns
    -------
    ResumeState
        The state within an epoch, for `Trainer.run`.
    """
    load_training_state(trainer, values, tensors)
    return ResumeState(
        step=values["step"],
        seconds=values["seconds"],
        sums=part(tensors, "sums."),
        chosen=tensors.get("chosen"),
        random=part(tensors, "random."),
        trainable=values["trainable"],
        callbacks={name: {**own, **part(tensors, f"callbacks.{name}.")} for name, own in values["callbacks"].items()},
    )


def _parse(every: Any) -> tuple[int, float]:
    """Tell epochs (0: time counts) and seconds (infinite: epochs count)."""
    if isinstance(every, Integral) and not isinstance(every, bool) and int(every) >= 1:
        return int(every), float("inf")
    if isinstance(every, (str, datetime.timedelta)):
        import pandas as pd

        with contextlib.suppress(ValueError):
            seconds = pd.Timedelta(every).total_seconds()
            if seconds > 0:
                return 0, seconds
    raise ValueError(
        "The 'checkpoint_every' parameter must be a number of epochs from 1 on, or a time such as '10 min'. "
        f"Got {every!r}."
    )
