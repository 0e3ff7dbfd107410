"""The training loop: a skorch net whose step is a method's loss."""

from __future__ import annotations

import time
import traceback
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Checkpoint as FilesOfParameters
from torch import Tensor, nn

from skssl.augment.augmentation import Augmentation
from skssl.errors import CollapseWarning
from skssl.images import Images
from skssl.nn.batchnorm import sync_batchnorm
from skssl.nn.distributed import (
    all_gather,
    all_reduce_mean,
    is_main_process,
    n_processes,
    rank,
    sync_parameters,
    wrap_ddp,
)
from skssl.nn.precision import matmul_precision, mixed_precision
from skssl.training.collapse import effective_rank, spread
from skssl.training.cores import Crowd, limited_threads
from skssl.training.devices import keeping_memory
from skssl.training.graphs import StepGraph, apart_from_others
from skssl.training.optim import forget, make_optimizer, schedule_factor

if TYPE_CHECKING:
    import pandas as pd
from skssl.training.encoding import encode_together
from skssl.training.loader import ImageLoader
from skssl.training.objective import Batch, Objective
from skssl.training.progress import Progress

# Embeddings have collapsed to a point when their spread is below this share of an even one's, and to a few dimensions
# when their effective rank is below this, provided there are images and dimensions enough for a rank of 32. On CIFAR-10
# the healthy are at 0.48 and 26 or more, SimSiam without its predictor (symmetric) at 0.2 to 0.65 and 1.5 to 4.
COLLAPSED_SPREAD, COLLAPSED_RANK, ROOM = 0.1, 5, 32
# Steps of a training from which on compiling pays on CUDA: it takes 25 to 45 s for a ResNet-18 and saves 5.6 ms of a
# step of 256 or 512 images of 32x32 (an H200, bfloat16), and no less of larger ones.
COMPILED_FROM = 8000


@dataclass
class Place:
    """A place in a training, from where it goes on as if it had never stopped.

    Attributes
    ----------
    step : int
        Steps done in the epoch; 0 is before all that it begins with.
    seconds : float
        Time that they took.
    sums : dict of str to scalar Tensor
        The losses' sums so far, by name.
    chosen : int64 Tensor of shape (n_samples,) or None
        Which images the method has chosen for the epoch.
    random : dict of str to uint8 Tensor
        The states of the random generators, see `Trainer.random_states`.
    learns : list of str
        Parameters that require a gradient.
    callbacks : dict of str to (dict of str to object)
        The states of callbacks that have a ``state_dict``, by name.
    """

    step: int = 0
    seconds: float = 0.0
    sums: dict[str, Tensor] = field(default_factory=dict)
    chosen: Tensor | None = None
    random: dict[str, Tensor] = field(default_factory=dict)
    learns: list[str] = field(default_factory=list)
    callbacks: dict[str, dict[str, Any]] = field(default_factory=dict)

    @torch.no_grad()
    def add(self, numbers: Mapping[str, Tensor]) -> None:
        """Add a step's losses to the sums, all in one call.

        Parameters
        ----------
        numbers : dict of str to scalar Tensor
            The losses, by name; the same in every step.
        """
        if self.sums:
            torch._foreach_add_(list(self.sums.values()), [numbers[name] for name in self.sums])
        else:
            self.sums = {name: value.detach().clone() for name, value in numbers.items()}


class Keeper(Protocol):
    """What saves a training's state on the way, such as a `checkpoints.Checkpoint`."""

    def after_step(self, trainer: Trainer, place: Place, draws: torch.Generator) -> None:
        """Take a look in the middle of an epoch."""

    def after_epoch(self, trainer: Trainer) -> None:
        """Take a look between two epochs."""


class Trainer(NeuralNet):
    """skorch's net, with an `Objective` for a module: its losses, named, are what the history holds.

    Nothing in a step waits for the device. All random numbers of an epoch follow from ``seed`` and the epoch's
    number, so that training goes on from a pickled trainer as if it had never stopped.

    Parameters
    ----------
    module : Objective
        The network and the loss.
    augmentations : sequence of Augmentation
        One for each view.
    schedule : str or sequence of float
        The learning rate's course, see `schedule_factor`.
    warmup_epochs : float
        Epochs in which it rises.
    momentum, weight_decay : float
        For the optimiser.
    constant : sequence of str
        Submodules whose learning rate is left alone.
    rates : mapping of str to float
        Submodules with a learning rate of their own.
    collapsible : bool
        Whether embeddings in a few dimensions are a failure worth a warning; a classifier's are none.
    dtype : torch.dtype
        What the networks compute in.
    tf32 : bool
        Whether products of matrices that stay float32 are computed in TF32, where a GPU does that.
    seed : int
        Of all random numbers.
    **kwargs
        skorch's own: ``optimizer``, ``lr``, ``max_epochs``, ``batch_size``, ``device``, ``compile`` (which may be
        "auto", too), ``callbacks``, ``verbose``.

    Attributes
    ----------
    compiled : bool
        Whether the training's steps are compiled, see `compiles`.
    """

    def __init__(
        self,
        module: Objective,
        *,
        augmentations: Sequence[Augmentation],
        schedule: str | Sequence[float],
        warmup_epochs: float,
        momentum: float,
        weight_decay: float,
        constant: Sequence[str] = (),
        rates: Mapping[str, float] | None = None,
        collapsible: bool = True,
        dtype: torch.dtype = torch.float32,
        tf32: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(module, criterion=nn.Identity, train_split=None, **kwargs)
        self.augmentations = augmentations
        self.schedule, self.warmup_epochs = schedule, warmup_epochs
        self.momentum, self.weight_decay, self.constant, self.rates = momentum, weight_decay, constant, rates
        self.collapsible = collapsible
        self.dtype, self.tf32, self.seed = dtype, tf32, seed

    compile: bool | str
    compiled = False
    #: Whether compiled steps on CUDA are recorded as one graph, see `StepGraph`.
    _graphs: ClassVar[bool] = True
    crowd: Crowd | None = None  # what watches the cores while it trains
    checkpoint: Keeper | None = None  # what saves the state while it trains
    place: Place | None = None  # where it goes on, if it does

    @property
    def _default_callbacks(self) -> list[tuple[str, Any]]:
        return []  # skorch's own read the loss after every step, which waits for the device

    def torch_compile(self, module: nn.Module, name: str) -> nn.Module:
        """Leave the module as it is: what is compiled is a step's forward pass, in `infer`."""
        return module

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what wraps `module_`, which is made anew, and what else it is, which skorch keeps."""
        state = super().__getstate__()
        wraps = "_compiled", "_parallel", "_draws", "_graph", "module", "checkpoint"
        return {name: value for name, value in state.items() if name not in wraps}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the module that was trained, on a device that this machine has, for the one to train."""
        super().__setstate__(state)
        self.module = self.module_

    def initialize_callbacks(self) -> Trainer:
        """Initialise the callbacks; of several processes one has those of skorch's that write files and logs."""
        super().initialize_callbacks()
        if not is_main_process():
            self.callbacks_: list[Any] = [pair for pair in self.callbacks_ if not _writes(pair[1])]
        return self

    def initialize_module(self) -> Trainer:
        """Initialise the module, in the memory layout that convolutions are quickest in."""
        super().initialize_module()
        self.module_.to(memory_format=torch.channels_last)
        return self

    def initialize_optimizer(self, triggered_directly: bool | None = None) -> Trainer:
        """Initialise the optimiser with its parameter groups."""
        self.optimizer_ = make_optimizer(
            self.optimizer,
            self.module_,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            constant=self.constant,
            rates=self.rates,
        )
        return self

    def get_dataset(self, X: Images, y: Tensor | None = None) -> tuple[Images, Tensor | None]:
        """Return the images and their classes as they are."""
        return X, y

    def get_iterator(self, dataset: tuple[Images, Tensor | None], training: bool = False) -> ImageLoader:
        """Make the loader."""
        images, target = dataset
        augmentations = self.augmentations if self.module_.reads_views else []  # what nobody reads is not made
        device = torch.device(self.device)
        compile = self.compiled and device.type == "cuda"  # a CPU's cache is better served in passes
        return ImageLoader(images, self.batch_size, augmentations, device, target, compile=compile)

    def fit_loop(self, X: Images, y: Any = None, epochs: int | None = None, **kwargs: Any) -> Trainer:
        """Train, and leave the global random state as it was."""
        device = torch.device(self.device)
        devices = [] if device.type == "cpu" else [device.index or 0]
        with (
            torch.random.fork_rng(devices, device_type="cuda" if device.type == "cpu" else device.type),
            apart_from_others(device) if self._graphs and self.compiled else nullcontext(),
        ):
            return super().fit_loop(X, y, epochs, **kwargs)

    def notify(self, method_name: str, **kwargs: Any) -> None:
        """Call the callbacks; an epoch has ended when all of them have seen it."""
        super().notify(method_name, **kwargs)
        if method_name == "on_epoch_end" and self.crowd is not None:
            self.crowd.look()
        if method_name == "on_epoch_end" and self.checkpoint is not None:
            self.checkpoint.after_epoch(self)

    def run(self, images: Images, target: Tensor | None, epochs: int, checkpoint: Keeper | None = None) -> None:
        """Train for some more epochs, from images wherever they are.

        Parameters
        ----------
        images : Images
            The training images.
        target : int64 Tensor of shape (n_samples,) or None
            Their classes.
        epochs : int
            How many.
        checkpoint : Keeper, optional
            What saves the state on the way.
        """
        target = None if target is None else target.to(self.device)
        sync_parameters(self.module_)
        if self.compile is True and n_processes() > 1:
            self.compile = False
            if is_main_process():
                warnings.warn("compile=True is for one process: several train without it.", stacklevel=3)
        self.compiled = self.compiles(max(self.max_epochs, epochs) * (len(images) // min(self.batch_size, len(images))))
        self.checkpoint = checkpoint
        device = torch.device(self.device)
        try:
            products = matmul_precision("high" if self.tf32 else None, device)
            with keeping_memory(), limited_threads(device), products, closing(images.to(device)) as there:
                self.crowd = Crowd(device)
                self.notify("on_train_begin", X=images, y=target)
                try:
                    self.fit_loop(there, target, epochs=epochs)
                except KeyboardInterrupt as stop:  # from a user, or from a callback such as skorch's EarlyStopping
                    *_, (frame, _) = traceback.walk_tb(stop.__traceback__)
                    if not frame.f_globals["__name__"].startswith("skorch.callbacks"):
                        raise
                self.notify("on_train_end", X=images, y=target)
        finally:
            self.checkpoint = self.crowd = None
            self.__dict__.pop("_graph", None)

    def compiles(self, steps: int) -> bool:
        """Tell whether a training's steps are to be compiled.

        Parameters
        ----------
        steps : int
            How many are planned in all, those that are done among them, so that a training that goes on computes as it
            began.

        Returns
        -------
        bool
            What was asked for. "auto": on CUDA from `COMPILED_FROM` steps on, in one process.
        """
        if self.compile != "auto":
            return bool(self.compile)
        return torch.device(self.device).type == "cuda" and n_processes() == 1 and steps >= COMPILED_FROM

    def table(self) -> pd.DataFrame:
        """Return the history, a row an epoch."""
        import pandas as pd

        rows = [{name: value for name, value in row.items() if name != "batches"} for row in self.history]
        return pd.DataFrame([row for row in rows if "loss" in row])

    def generators(self, epoch: int) -> tuple[torch.Generator, torch.Generator]:
        """Seed everything for an epoch.

        Parameters
        ----------
        epoch : int
            Its number.

        Returns
        -------
        order, draws : torch.Generator
            For the order of the images, on the CPU, and for augmentation, on the device, of which each process has
            its own. The global generator, which dropout and the methods' own draws use, is seeded, too.
        """
        seeds = [int(seed) for seed in np.random.SeedSequence((self.seed, epoch)).generate_state(3)]
        torch.manual_seed(seeds[0])
        draws = self.__dict__.setdefault("_draws", torch.Generator(torch.device(self.device)))  # one: graphs know it
        return torch.Generator().manual_seed(seeds[1]), draws.manual_seed(seeds[2] + rank())

    def random_states(self, draws: torch.Generator) -> dict[str, Tensor]:
        """Tell where all random generators are that a step draws from.

        Parameters
        ----------
        draws : torch.Generator
            The augmentation's.

        Returns
        -------
        dict of str to uint8 Tensor
            Its state, that of the global generator and that of the device's.
        """
        states = {"draws": draws.get_state(), "global": torch.get_rng_state()}
        device = torch.device(self.device)
        if device.type != "cpu":
            states["device"] = torch.get_device_module(device).get_rng_state(device)
        return states

    def go_on(self, place: Place, draws: torch.Generator) -> None:
        """Bring to a place what the parameters and buffers do not hold.

        Parameters
        ----------
        place : Place
            Where an earlier run has been.
        draws : torch.Generator
            The augmentation's.
        """
        for name, callback in self.callbacks_:
            if name in place.callbacks:
                callback.load_state_dict(place.callbacks[name])
        if not place.step:
            return
        device = torch.device(self.device)
        draws.set_state(place.random["draws"])
        torch.set_rng_state(place.random["global"])
        if "device" in place.random and device.type != "cpu":
            torch.get_device_module(device).set_rng_state(place.random["device"], device)
        for name, parameter in self.module_.named_parameters():
            parameter.requires_grad_(name in place.learns)

    def infer(self, batch: Batch, **kwargs: Any) -> dict[str, Tensor]:
        """Run the objective in the trainer's precision, compiled where that was asked for and works."""
        groups = self.compiled and self.module_.method.bn_splits > 1
        with mixed_precision(self.dtype, torch.device(self.device)), sync_batchnorm(self.module_, groups):
            self.module_.prepare(batch)
            if not self.compiled:
                return self.__dict__.get("_parallel", self.module_)(batch)  # type: ignore[misc]
            try:
                if "_compiled" not in self.__dict__:
                    self.__dict__["_compiled"] = compiled(self.module_)
                return self._compiled(batch)
            except Exception as error:
                warnings.warn(
                    f"compile={self.compile!r} did not work here, training goes on without it: {type(error).__name__}: "
                    f"{str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}",
                    stacklevel=2,
                )
                self.compile = self.compiled = False
                return self.module_(batch)

    def train_step_single(self, batch: Batch, **fit_params: Any) -> dict[str, Any]:
        """Compute the losses of a batch and their gradients."""
        numbers = self.infer(batch)
        numbers["loss"].backward()
        self.module_.method.after_backward(self.module_)
        # Not in the objective: torch.compile takes a loss that is its only part for the detached one (torch 2.15).
        numbers = {name: value.detach() for name, value in numbers.items()}
        return {"loss": numbers["loss"], "y_pred": numbers}

    def run_single_epoch(
        self, iterator: ImageLoader | None, training: bool, prefix: str, step_fn: Any, **fit_params: Any
    ) -> None:
        """Go through the images once and write the epoch's row of the history."""
        if iterator is None:
            return
        self._set_training(True)
        done, steps = len(self.history) - 1, len(iterator)
        method, augment, device = self.module_.method, self.augmentations[0], torch.device(self.device)
        order, draws = self.generators(done)
        here, self.place = self.place or Place(), None
        here.sums = {name: value.to(device) for name, value in here.sums.items()}
        self.go_on(here, draws)
        started = time.perf_counter() - here.seconds
        if not here.step:
            here.chosen = method.before_epoch(
                self.module_, done, lambda module: encode_together(module, iterator.images, augment, device, self.dtype)
            )
            for name in method.reset_each_epoch:
                forget(self.optimizer_, self.module_.get_submodule(name))
        self.module_.phase = method.phase(self.module_, done)
        self.__dict__["_parallel"] = wrap_ddp(self.module_)  # anew, as layers may have been frozen or thawed
        if rank():  # from here on processes draw on their own
            torch.manual_seed(draws.initial_seed())
        step_fn = self.graphed(iterator, step_fn)
        progress = Progress(f"Epoch {done + 1}/{max(self.max_epochs, done + 1)}", self.verbose)
        batches = iterator.epoch(order, draws, here.chosen, here.step)
        for batch in progress(batches, steps, iterator.batch_size, here.step):
            epoch = done + here.step / steps
            self.set_learning_rate(epoch if epoch >= self.warmup_epochs else epoch + 1 / steps)
            self.notify("on_batch_begin", batch=batch, training=training)
            found = step_fn(batch)
            here.step += 1
            progress_made = (min(done, self.max_epochs - 1) + here.step / steps) / self.max_epochs
            method.after_step(self.module_, here.step - 1, progress_made)
            self.notify("on_batch_end", batch=batch, training=training, **found)
            here.add({"loss": found["loss"], **found["y_pred"]})
            progress.show(here.sums["loss"], here.step)
            if self.checkpoint is not None and here.step < steps:
                here.seconds = time.perf_counter() - started
                self.checkpoint.after_step(self, here, draws)
        del self.__dict__["_parallel"]
        sums = here.sums
        of_all = all_reduce_mean(torch.stack([value.float() for value in sums.values()]) / steps)
        means = dict(zip(sums, of_all.tolist(), strict=True))
        seconds = time.perf_counter() - started
        for name, value in means.items():
            self.history.record(name, value)
        self.history.record("lr", self.optimizer_.param_groups[0]["lr"])
        self.history.record("images_per_second", steps * iterator.batch_size / seconds)
        self.history[-1]["batches"].clear()  # a long run would keep every batch otherwise
        self.judge(batch.views[0] if batch.views else augment.eval_transform(batch.images), means["loss"])

    def graphed(
        self, loader: ImageLoader, step: Callable[[Batch], dict[str, Any]]
    ) -> Callable[[Batch], dict[str, Any]]:
        """Take steps as one CUDA graph each, where nothing in them works on the host."""
        graph = self.__dict__.pop("_graph", None)
        if not (self._graphs and self.compiled and StepGraph.takes(self)):
            return step
        if graph is None or graph.loader is not loader or graph.key != (self.module_.phase, self.trainable()):
            loader.bare = False
            graph = StepGraph(self, loader, step)
        self.__dict__["_graph"] = graph
        return graph

    def trainable(self) -> list[str]:
        """Return the names of the parameters that require a gradient."""
        return [name for name, parameter in self.module_.named_parameters() if parameter.requires_grad]

    def set_learning_rate(self, epoch: float) -> None:
        """Set the learning rate for a point of the training.

        Parameters
        ----------
        epoch : float
            Epochs done, with the fraction of the current one.
        """
        factor = schedule_factor(self.schedule, epoch, self.max_epochs, self.warmup_epochs)
        for group in self.optimizer_.param_groups:
            if group["scheduled"]:
                group["lr"] = group["peak"] * factor

    @torch.no_grad()
    def judge(self, view: Tensor, loss: float) -> None:
        """Record how far the embeddings of some views are spread; name a collapse, and stop at a loss that is none.

        Parameters
        ----------
        view : Tensor of shape (n, c, h, w)
            Views, of the epoch's last batch; in each process its share.
        loss : float
            The epoch's mean loss.
        """
        epoch = len(self.history)
        with mixed_precision(self.dtype, torch.device(self.device)), sync_batchnorm(self.module_):
            z = all_gather(self.module_.embed(view))
        if not (np.isfinite(loss) and z.isfinite().all()):
            rates = " or ".join(
                f"{rate:g}" for rate in sorted({group["peak"] for group in self.optimizer_.param_groups})
            )
            raise FloatingPointError(
                f"The training has diverged in epoch {epoch}: the loss is {loss:.4g}, or embeddings are not finite. "
                f"Try a learning rate below lr={rates} or more warmup_epochs."
            )
        deviation, rank = spread(z).item(), effective_rank(z).item()
        self.history.record("embedding_std", deviation)
        self.history.record("effective_rank", rank)
        few = rank < COLLAPSED_RANK and min(len(z) - 1, z.shape[1]) >= ROOM
        if self.collapsible and is_main_process() and (deviation < COLLAPSED_SPREAD or few):
            warnings.warn(
                f"The embeddings have collapsed in epoch {epoch}: their standard deviation is {deviation:.2g} of that "
                f"of evenly spread ones, their effective rank {rank:.1f} of {z.shape[1]}. Try a lower learning rate, "
                'stop_gradient="guided" or keep the predictor (SimSiam, BYOL), a larger batch or weaker augmentation.',
                CollapseWarning,
                stacklevel=2,
            )


def compiled(module: nn.Module) -> Callable[..., Any]:
    """Compile a module's forward pass, for one shape of its input.

    torch.compile keeps what it has made with a function's code, and after a few makes no more for the same code. As
    every training has an objective of its own, each gets a copy of the code. What an earlier one has compiled is found
    in inductor's cache nevertheless.

    Parameters
    ----------
    module : torch.nn.Module
        The module.

    Returns
    -------
    callable
        As ``module.forward``.
    """
    forward = type(module).forward
    own = types.FunctionType(forward.__code__.replace(), forward.__globals__, closure=forward.__closure__)
    return torch.compile(types.MethodType(own, module), dynamic=False)


def _writes(callback: Any) -> bool:
    """Whether a callback is one of skorch's that write: checkpoints, and all that log."""
    return isinstance(callback, FilesOfParameters) or "skorch.callbacks.logging" in (
        kind.__module__ for kind in type(callback).__mro__
    )
