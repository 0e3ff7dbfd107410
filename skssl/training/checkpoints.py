"""Save and resume a training: atomic saves, bit-exact resume, refused for another run."""

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
    """Saves the state of a training to a folder, and restores it.

    The context manager locks the folder. Within it, SIGTERM and Ctrl-C save the state after the current step and then
    end the training; a second signal ends it at once. With several processes, the main process saves, and only between
    epochs, because each process draws its own views.

    Parameters
    ----------
    folder : str or path-like
        The folder, for one training. It is created if it does not exist.
    every : int, str or datetime.timedelta
        Number of epochs between saves; or the time between them, such as "10 min", which also saves within an epoch.
        The state is always saved at the end.
    known : mapping of str to str
        Digests of what the training depends on, by name: parameters, images, labels. See `digest_training`.

    Raises
    ------
    ValueError
        If `folder` is empty, `every` is out of range, or the folder holds another training.
    OSError
        If the folder cannot be created or written to.
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
    >>> (again.transform(X) == method.transform(X)).all()  # the second fit has no epochs left
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
        self.stop: int | None = None  # the signal received
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Lock the folder and handle signals."""
        if is_main_process():
            self._lock_folder()
        if threading.current_thread() is threading.main_thread():  # other threads cannot handle signals
            for kind in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(kind) != signal.SIG_IGN:  # background jobs ignore Ctrl-C
                    self._handlers[kind] = signal.signal(kind, self._handle)
        self._saved = time.monotonic()
        return self

    def _lock_folder(self) -> None:
        """Create and lock the folder."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise RuntimeError(
                f"checkpoint={str(self.folder)!r} is in use by another run: use another folder, or wait."
            ) from None
        except OSError as error:
            raise OSError(
                error.errno, f"checkpoint={str(self.folder)!r} is not a writable folder: {error.strerror}"
            ) from error
        for left in self.folder.glob(f".{STATE}.*"):  # by a run that was killed while saving
            left.unlink()

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        """Restore the signal handlers and unlock the folder."""
        for which, handler in self._handlers.items():
            signal.signal(which, handler)
        self._lock.release()
        if self.stop is not None and kind is None:  # the signal came after the last step
            signal.raise_signal(self.stop)

    def restore(self, trainer: Trainer) -> ResumeState | None:
        """Load the state in the folder, if there is one, into a trainer.

        Parameters
        ----------
        trainer : Trainer
            A new trainer, initialised with the same parameters.

        Returns
        -------
        ResumeState or None
            The state within an epoch, for `Trainer.run`. None if the folder holds no training.

        Raises
        ------
        ValueError
            If the folder holds another training, or its file cannot be read.
        """
        file = self.folder / STATE
        if not file.exists():
            return None
        header, tensors = read(file)
        if header.get("format") != FORMAT:
            raise ValueError(
                f"{str(file)!r} holds no training state that this version of skssl can read: use another folder, or "
                "delete this one."
            )
        found = header["known"]
        other = [name for name in {**self.known, **found} if self.known.get(name) != found.get(name)]
        if other:
            raise ValueError(
                f"checkpoint={str(self.folder)!r} holds another training, which differs in: {', '.join(other)}. Use "
                "the same parameters and images to resume it, use another folder, or delete this one."
            )
        state, epochs = unpack(trainer, header["training"], tensors), len(trainer.history)
        if is_main_process():
            tqdm.write(
                f"{type(trainer.module_.method).__name__}: resuming from {str(self.folder)!r}, after {epochs} epoch(s)"
                + (f" and {state.step} step(s)." if state.step else "."),
                file=sys.stderr,
            )
        return state

    def after_step(self, trainer: Trainer, state: ResumeState, draws: torch.Generator) -> None:
        """Save within an epoch, if a save is due.

        Parameters
        ----------
        trainer : Trainer
            The trainer.
        state : ResumeState
            The state within the epoch.
        draws : torch.Generator
            The generator of the augmentation.
        """
        if n_processes() > 1:
            self._end()
        elif self.stop is not None or time.monotonic() - self._saved >= self.seconds:
            state.random = random_states(draws)
            self._save(trainer, state)

    def after_epoch(self, trainer: Trainer) -> None:
        """Save between epochs, if a save is due.

        Parameters
        ----------
        trainer : Trainer
            The trainer.
        """
        done = len(trainer.history)
        due = done % self.epochs == 0 if self.epochs else time.monotonic() - self._saved >= self.seconds
        if due or self.stop is not None or done == trainer.max_epochs:
            self._save(trainer, ResumeState())

    def _save(self, trainer: Trainer, state: ResumeState) -> None:
        """Save the state, and end the training if a signal came. A failed save warns only."""
        try:
            if is_main_process():
                values, tensors = pack(trainer, state)
                write(self.folder / STATE, {"format": FORMAT, "known": self.known, "training": values}, tensors)
        except (OSError, TypeError, ValueError) as error:
            warnings.warn(
                f"The training continues, but its state could not be saved; the last save is unchanged: {error}",
                stacklevel=2,
            )
        self._saved = time.monotonic()
        self._end()

    def _end(self) -> None:
        """End the training if a signal came."""
        if self.stop == signal.SIGINT:
            raise KeyboardInterrupt
        if self.stop is not None:
            raise SystemExit(128 + self.stop)

    def _handle(self, kind: int, frame: FrameType | None) -> None:
        """Remember the first signal until the step ends; pass on the second at once."""
        if self.stop is None:
            self.stop = kind
            os.write(2, b"\nThe state is saved after this step; a second signal ends the training at once.\n")
            return
        handler = self._handlers[kind]
        signal.signal(kind, handler)
        signal.raise_signal(kind)


def train(estimator: Any, trainer: Trainer, images: Images, labels: Tensor | None, **more: Any) -> None:
    """Train an estimator's net for all its epochs, and resume from its checkpoint if there is one.

    Parameters
    ----------
    estimator : estimator
        An estimator with the parameters `epochs`, `checkpoint` and `checkpoint_every`.
    trainer : Trainer
        Its net, initialised.
    images : Images
        The training images.
    labels : int64 Tensor of shape (n_samples,) or None
        Their classes.
    **more : object
        Anything else that the training depends on, by name, for `digest_training`.
    """
    if estimator.checkpoint is None:
        trainer.run(images, labels, estimator.epochs)
        return
    known = digest_training(estimator, images, labels, **more)
    with Checkpoint(estimator.checkpoint, estimator.checkpoint_every, known) as checkpoint:
        resume = checkpoint.restore(trainer)
        if left := estimator.epochs - len(trainer.history):
            trainer.run(images, labels, left, checkpoint, resume)


def pack(trainer: Trainer, state: ResumeState) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the state of a training between epochs or within one.

    Parameters
    ----------
    trainer : Trainer
        The trainer.
    state : ResumeState
        The state within the epoch.

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
        values["history"].pop()  # the current epoch's row is recorded again
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


def unpack(trainer: Trainer, values: Mapping[str, Any], tensors: dict[str, Tensor]) -> ResumeState:
    """Give a trainer the state that `pack` returned.

    Parameters
    ----------
    trainer : Trainer
        A trainer that was initialised with the same parameters and has not trained.
    values, tensors : mapping of str to object
        The state, as `pack` returns it.

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
    """Return the epochs between saves, or 0, and the seconds between saves, or infinity."""
    if isinstance(every, Integral) and not isinstance(every, bool) and int(every) >= 1:
        return int(every), float("inf")
    if isinstance(every, (str, datetime.timedelta)):
        import pandas as pd

        with contextlib.suppress(ValueError):
            seconds = pd.Timedelta(every).total_seconds()
            if seconds > 0:
                return 0, seconds
    raise ValueError(
        "The 'checkpoint_every' parameter must be a number of epochs, at least 1, or a time such as '10 min'. "
        f"Got {every!r}."
    )
