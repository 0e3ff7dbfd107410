"""Save and resume a training: atomic saves, bit-exact resume, refused for another run."""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import reprlib
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from numbers import Integral
from pathlib import Path
from types import FrameType
from typing import Any, Self

import filelock
import torch
from skorch.callbacks import LoadInitState
from torch import Tensor
from tqdm.auto import tqdm

from skssl.images import Images
from skssl.nn.distributed import is_main_process, n_processes
from skssl.storage.files import DamagedFileError, SavedFile, first_line, part, write
from skssl.storage.version import __version__
from skssl.training.digests import digest_older, digest_training
from skssl.training.optim import optimizer_parameters
from skssl.training.resume import ResumeState, callback_state, random_states, trainable
from skssl.training.state import (
    check_history,
    check_network,
    check_optimizer_state,
    load_training_state,
    training_state,
)
from skssl.training.trainer import Trainer

STATE, LOCK = "training.safetensors", "lock"  # the files in the folder
FORMAT = 2  # of the state; checkpoints of another format are refused
THIS = f"skssl {__version__}"


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
    older : callable, default=dict
        Returns the digests that stand for those in a checkpoint of an older version, see `digest_older`.
    extend : bool, default=False
        Whether a training with fewer `epochs` is continued.

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
        self,
        folder: str | os.PathLike[str],
        every: int | str | datetime.timedelta,
        known: Mapping[str, str],
        older: Callable[[], Mapping[str, str]] = dict,
        extend: bool = False,
    ) -> None:
        if not os.fspath(folder):
            raise ValueError("The 'checkpoint' parameter must be a folder. Got ''.")
        self.folder, self.known, self.older, self.extend = Path(folder), dict(known), older, extend
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
            if left.is_file() or left.is_symlink():
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
            The state for `Trainer.run`. None if the folder holds no training.

        Raises
        ------
        ValueError
            If the folder holds another training, or its file cannot be read.
        """
        file = self.folder / STATE
        if not file.exists():
            return None
        with SavedFile(file) as saved:
            assumed, longer = self._check_known(saved.header, trainer.max_epochs)
            try:
                check_state(trainer, saved.header["training"], saved.shapes)
                state = unpack(trainer, saved.header["training"], saved.read())
            except (DamagedFileError, OSError):
                raise
            except Exception as error:  # a malicious file can make any step of this fail
                raise ValueError(
                    f"{str(file)!r} cannot be resumed: {first_line(error)} Use another folder, or delete this one."
                ) from error
        if longer and state.finished:
            state.finished, state.callbacks = False, {}  # a callback that has stopped the training would stop it again
        if is_main_process():
            name, epochs = type(trainer.module_.method).__name__, len(trainer.history)
            steps = f" and {state.step} step(s)" if state.step else ""
            folder = repr(str(self.folder))
            where = f"the training in {folder} ended" if state.finished else f"resuming from {folder},"
            tqdm.write(f"{name}: {where} after {epochs} epoch(s){steps}.", file=sys.stderr)
            if assumed:
                tqdm.write(
                    f"{name}: it was saved by {_version(saved.header)}, which lacked these parameters, so they have "
                    f"their defaults: {', '.join(assumed)}.",
                    file=sys.stderr,
                )
        return state

    def _check_known(self, header: Mapping[str, Any], epochs: int) -> tuple[list[str], bool]:
        """Refuse another training; return the parameters that its version lacked, and whether `epochs` was raised."""
        found = header.get("known")
        if (
            header.get("format") != FORMAT
            or not isinstance(header.get("training"), dict)
            or not isinstance(found, dict)
            or not all(isinstance(value, str) for value in found.values())
        ):
            raise ValueError(
                f"{str(self.folder / STATE)!r} holds no training state that this version of skssl can read: use "
                "another folder, or delete this one."
            )
        differing = [name for name in {**self.known, **found} if self.known.get(name) != found.get(name)]
        older = self.older() if differing else {}
        # A parameter that is new since the checkpoint must have its default.
        assumed = [name for name in differing if name not in found and self.known[name] == older.get(name)]
        same_images = ["X"] if "X" in older and found.get("X") == older["X"] else []
        other = [name for name in differing if name not in (*assumed, *same_images)]
        history = header["training"].get("history")
        done = len(history) if isinstance(history, list) else epochs
        longer = other == ["epochs"] and done < epochs
        if longer and not self.extend:
            raise ValueError(
                f"checkpoint={str(self.folder)!r} holds a training with another number of epochs, of which {done} are "
                f"done. Pass checkpoint_extend=True to continue it to epochs={epochs}, with the learning rates of "
                f"{epochs} epochs from there on, or use another folder."
            )
        if other and not longer:
            saved_by = _version(header)
            before = "" if saved_by == THIS else f" It was saved by {saved_by}; this is {THIS}."
            raise ValueError(
                f"checkpoint={str(self.folder)!r} holds another training, which differs in: {', '.join(other)}."
                f"{before} Use the same parameters and images to resume it, use another folder, or delete this one."
            )
        return assumed, longer

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
        last = done == trainer.max_epochs
        if due or self.stop is not None or last:
            self._save(trainer, ResumeState(finished=last and not trainer.callbacks_))

    def after_training(self, trainer: Trainer) -> None:
        """Save the end of a training that has callbacks, which may have stopped it or loaded other weights.

        Parameters
        ----------
        trainer : Trainer
            The trainer.
        """
        if trainer.callbacks_:
            self._save(trainer, ResumeState(finished=True))

    def _save(self, trainer: Trainer, state: ResumeState) -> None:
        """Save the state, and end the training if a signal came. A failed save warns only."""
        try:
            if is_main_process():
                values, tensors = pack(trainer, state)
                header = {"format": FORMAT, "skssl": __version__, "known": self.known, "training": values}
                write(self.folder / STATE, header, tensors)
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
        An estimator with the parameters `epochs`, `checkpoint`, `checkpoint_every` and `checkpoint_extend`.
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
    if any(isinstance(callback, LoadInitState) for _, callback in trainer.callbacks_):
        raise ValueError("LoadInitState and 'checkpoint' both restore a training. Remove one of them.")
    known = digest_training(estimator, images, labels, **more)
    older = partial(digest_older, estimator, images)
    every, extend = estimator.checkpoint_every, estimator.checkpoint_extend
    with Checkpoint(estimator.checkpoint, every, known, older, extend) as checkpoint:
        resume = checkpoint.restore(trainer)
        if resume is None or not resume.finished:
            trainer.run(images, labels, estimator.epochs - len(trainer.history), checkpoint, resume)


def pack(trainer: Trainer, state: ResumeState) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the state of a training between epochs or within one.

    Parameters
    ----------
    trainer : Trainer
        The trainer.
    state : ResumeState
        The state within the epoch, or one without steps.

    Returns
    -------
    values : dict of str to object
        Plain values: those of `training_state`, the epoch's and the callbacks'.
    tensors : dict of str to Tensor
        Tensors: those of `training_state`, the epoch's ("sums.…", "random.…", "chosen") and the callbacks'
        ("callbacks.…").
    """
    values, tensors = training_state(trainer)
    values["history"] = [row for row in values["history"] if "loss" in row]  # an epoch in progress is recorded again
    values |= {"step": state.step, "seconds": state.seconds, "trainable": trainable(trainer.module_), "callbacks": {}}
    values["finished"] = state.finished
    tensors |= {f"sums.{name}": value for name, value in state.sums.items()}
    tensors |= {f"random.{name}": value for name, value in state.random.items()}
    if state.chosen is not None:
        tensors["chosen"] = state.chosen
    for name, callback in trainer.callbacks_:
        if own := callback_state(callback):
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
    random, chosen = part(tensors, "random."), tensors.get("chosen")
    for name, state in random.items():  # generators refuse states of another device, or invalid ones
        torch.Generator("cpu" if name == "global" else trainer.device).set_state(state)
    if chosen is not None and not ((chosen >= 0) & (chosen < trainer.module_.n_samples)).all():
        raise ValueError(f"'chosen' must hold indices of {trainer.module_.n_samples} images.")
    return ResumeState(
        step=values["step"],
        seconds=values["seconds"],
        sums=part(tensors, "sums."),
        chosen=tensors.get("chosen"),
        random=part(tensors, "random."),
        trainable=values["trainable"],
        callbacks={name: {**own, **part(tensors, f"callbacks.{name}.")} for name, own in values["callbacks"].items()},
        finished=values.get("finished", len(trainer.history) >= trainer.max_epochs),
    )


def check_state(trainer: Trainer, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Refuse a state that `pack` does not return for a trainer, before the tensors are read from a file.

    Parameters
    ----------
    trainer : Trainer
        The trainer, which has not trained.
    values : mapping of str to object
        Plain values.
    tensors : mapping of str to Tensor
        Tensors on the meta device.

    Raises
    ------
    ValueError
        If a value or a tensor is missing, unknown, or not as expected.
    """
    n_groups, n_samples = len(trainer.optimizer_.param_groups), trainer.module_.n_samples
    steps = max(1, n_samples // trainer.batch_size)
    parameters = dict(trainer.module_.named_parameters())
    expected: dict[str, tuple[Callable[[Any], bool], str]] = {
        "seed": (lambda it: type(it) is int and it >= 0, "an integer of at least 0"),
        "history": (
            lambda it: len(it) <= trainer.max_epochs and all("loss" in row for row in it),
            f"a list of at most {trainer.max_epochs} rows, each with a loss",
        ),
        "rates": (lambda it: len(it) == n_groups and all(map(math.isfinite, it)), f"a list of {n_groups} numbers"),
        "optimizer": (lambda it: type(it) is dict, "a dict"),
        "step": (lambda it: type(it) is int and 0 <= it < steps, f"an integer in the range [0, {steps})"),
        "seconds": (lambda it: math.isfinite(it) and it >= 0, "a number of at least 0"),
        "trainable": (lambda it: 0 < len(set(it)) == len(set(it) & parameters.keys()), "names of parameters"),
        "callbacks": (lambda it: all(type(own) is dict for own in it.values()), "a dict of dicts"),
        "finished": (lambda it: type(it) is bool and not (it and values["step"]), "a bool, and False within an epoch"),
    }
    check_history(values.get("history"))
    values = {"finished": False, **values}  # skssl 0.1.0 did not save it
    for name, (holds, what) in expected.items():
        with contextlib.suppress(TypeError, AttributeError):  # a value of another type
            if name in values and holds(values[name]):
                continue
        raise ValueError(f"{name!r} must be {what}. Got {reprlib.repr(values.get(name))}.")
    check_network(trainer.module_, tensors)
    if type(trainer.optimizer_).__module__.split(".")[0] in ("torch", "skssl"):  # a user's may keep another state later
        with contextlib.suppress(TypeError, RuntimeError):  # its step takes more arguments, as that of LBFGS
            check_optimizer_state(trainer.optimizer_, values, tensors)
    indices = {str(i) for i in range(len(optimizer_parameters(trainer.optimizer_)))}
    for name, like in tensors.items():
        kind, _, rest = name.partition(".")
        fits = {
            "net": True,
            "optimizer": rest.partition(".")[0] in indices,
            "sums": like.ndim == 0 and like.is_floating_point(),
            "random": like.ndim == 1 and like.dtype == torch.uint8,
            "chosen": like.shape == (n_samples,) and like.dtype == torch.int64 and not rest,
            "callbacks": rest.partition(".")[0] in values["callbacks"],
        }
        if not fits.get(kind, False):
            raise ValueError(f"The tensor {name[:80]!r} is unknown, or of an unexpected shape or type.")
    if values["step"] and not {"sums.loss", "random.draws", "random.global"} <= tensors.keys():
        raise ValueError("The tensors of a state within an epoch are missing.")


def _version(header: Mapping[str, Any]) -> str:
    """Return the version that saved a checkpoint, for a message."""
    version = header.get("skssl")
    return f"skssl {version[:40]}" if isinstance(version, str) else "an older skssl"


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
