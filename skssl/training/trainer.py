"""The training loop: a skorch net whose step is a method's loss."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Checkpoint as SkorchCheckpoint
from skorch.callbacks import ProgressBar, TrainEndCheckpoint
from torch import Tensor, nn

from skssl.augment.transforms import Transform, View
from skssl.images import Images
from skssl.images.clips import Clips
from skssl.images.photographs import Photographs
from skssl.nn.accumulation import encode_in_parts
from skssl.nn.batchnorm import sync_batchnorm
from skssl.nn.distributed import all_gather, all_reduce_mean, is_main_process, n_processes, rank, sync_parameters
from skssl.nn.momentum import cosine_schedule
from skssl.nn.precision import matmul_precision, mixed_precision
from skssl.storage.files import first_line
from skssl.training.callback_checks import check_callback, check_columns
from skssl.training.collapse import check_collapse
from skssl.training.cpu_threads import Crowd, limited_threads
from skssl.training.cuda_graphs import StepGraph, can_record, own_stream
from skssl.training.devices import keeping_memory
from skssl.training.encoding import encode_together
from skssl.training.forward import ForwardPass
from skssl.training.interrupts import Interrupts
from skssl.training.loader import ImageLoader, transforms_images
from skssl.training.objective import Batch, Objective
from skssl.training.optim import layer_scales, make_optimizer, reset_state
from skssl.training.progress import Progress
from skssl.training.resume import ResumeState, load_callback_state, set_random_states, trainable
from skssl.training.schedules import SchedulerRates, makes_scheduler, schedule_factor
from skssl.training.seeding import reseed, seeded

if TYPE_CHECKING:
    import pandas as pd

# From this number of steps, compiling pays off on CUDA: it takes 25 to 45 s for a ResNet-18, and saves 5 ms per step
# of 256 or 512 images of 32x32 (an H200, bfloat16) and at least as much with larger images.
COMPILED_FROM = 8000
# What skorch's callbacks read in the history under skorch's names, besides our "loss".
SKORCH_NAMES = ("train_loss", "train_loss_best", "loss_best")


class Checkpointer(Protocol):
    """An object that saves the state of a training, such as a `checkpoints.Checkpoint`."""

    def after_step(self, trainer: Trainer, state: ResumeState, draws: torch.Generator) -> None:
        """Save within an epoch if it is time."""

    def after_epoch(self, trainer: Trainer) -> None:
        """Save between two epochs if it is time."""

    def after_training(self, trainer: Trainer) -> None:
        """Save the end of the training if callbacks may have stopped or changed it."""


class Trainer(NeuralNet):
    """A skorch net whose module is an `Objective`. Its history holds the named losses.

    No step waits for the device. All random numbers of an epoch follow from ``seed`` and the number of the epoch, so
    that a pickled trainer continues as if it had not been pickled.

    Parameters
    ----------
    module : Objective
        The network and its losses.
    augmentations : sequence of Augmentation or Transform
        One for each view.
    schedule : str, sequence of float or callable
        The learning-rate schedule, see `schedule_factor` and `SchedulerRates`.
    warmup_epochs : float
        Number of epochs in which the learning rate rises.
    momentum, weight_decay : float
        Parameters of the optimiser.
    rates : mapping of str to float
        Submodules with a learning rate of their own.
    layer_decay : float
        Factor of the learning rate from a layer of the encoder to the one before it, see `layer_scales`.
    collapsible : bool
        Whether to warn when the embeddings collapse, which is no failure of a classifier.
    dtype : torch.dtype
        The type that the networks compute in.
    tf32 : bool
        Whether float32 matrix products use TF32 on a GPU.
    accumulate : int
        Number of parts in which the encoder runs on a batch, see `encode_in_parts`.
    seed : int
        Seed of all random numbers.
    n_jobs : int, optional
        The number of worker processes in which images are transformed one by one.
    **kwargs
        skorch's parameters: ``optimizer``, ``lr``, ``max_epochs``, ``batch_size``, ``device``, ``compile`` (which may
        also be "auto"), ``callbacks``, ``verbose``.
    """

    def __init__(
        self,
        module: Objective,
        *,
        augmentations: Sequence[View],
        schedule: str | Sequence[float] | Callable[..., Any],
        warmup_epochs: float,
        momentum: float,
        weight_decay: float,
        rates: Mapping[str, float] | None = None,
        layer_decay: float = 1.0,
        collapsible: bool = True,
        dtype: torch.dtype = torch.float32,
        tf32: bool = False,
        accumulate: int = 1,
        seed: int = 0,
        n_jobs: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(module, criterion=nn.Identity, train_split=None, **kwargs)
        self.augmentations = augmentations
        self.schedule, self.warmup_epochs = schedule, warmup_epochs
        self.momentum, self.weight_decay, self.rates = momentum, weight_decay, rates
        self.layer_decay = layer_decay
        self.collapsible = collapsible
        self.dtype, self.tf32, self.accumulate = dtype, tf32, accumulate
        self.seed, self.n_jobs = seed, n_jobs

    #: X and y as they were passed to `fit`, for callbacks.
    given: tuple[Any, Any] = (None, None)
    compile: bool | str
    n_jobs: int | None = None
    #: Whether the embeddings had collapsed after the last epoch.
    _collapsed: bool = False
    #: Whether compiled steps on CUDA are recorded as one graph, see `StepGraph`.
    _graphs: ClassVar[bool] = True
    # Made when they are needed, and not pickled.
    _forward: ForwardPass | None = None
    _graph: StepGraph | None = None
    _draws: torch.Generator | None = None
    _scheduler: SchedulerRates | None = None

    @property
    def _default_callbacks(self) -> list[tuple[str, Any]]:
        return []  # skorch's own read the loss after every step, which waits for the device

    # The net: module, optimiser and batches.

    def torch_compile(self, module: nn.Module, name: str) -> nn.Module:
        """Return the module unchanged, since the forward pass of a step is compiled instead, see `ForwardPass`."""
        return module

    def __getstate__(self) -> dict[str, Any]:
        """Drop what is made when it is needed, and the alias `module`; skorch keeps `module_`."""
        dropped = "_forward", "_graph", "_draws", "_scheduler", "given", "module"
        return {name: value for name, value in super().__getstate__().items() if name not in dropped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the trained module, on a device that this machine has."""
        super().__setstate__(state)
        self.module = self.module_
        self._initialize_scheduler()

    def initialize_callbacks(self) -> Trainer:
        """Initialise the callbacks. With several processes, keep skorch's file-writing callbacks on rank 0 only."""
        super().initialize_callbacks()
        for _, callback in self.callbacks_:
            check_callback(callback)
        if not is_main_process():
            self.callbacks_: list[Any] = [pair for pair in self.callbacks_ if not _writes(pair[1])]
        return self

    def initialize_module(self) -> Trainer:
        """Initialise the module, with its channels last, which is the fastest layout for convolutions."""
        super().initialize_module()
        self.module_.to(memory_format=torch.channels_last)
        return self

    def initialize_optimizer(self, triggered_directly: bool | None = None) -> Trainer:
        """Initialise the optimiser with its parameter groups."""
        factors = {name: factor for hooks in self.module_.hooks for name, factor in hooks.lr_factors.items()}
        self.optimizer_ = make_optimizer(
            self.optimizer,
            self.module_,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            unscheduled=self.module_.method.unscheduled,
            rates={**{name: factor * self.lr for name, factor in factors.items()}, **(self.rates or {})},
            scales=layer_scales(self.module_.encoder, self.layer_decay),
        )
        self._initialize_scheduler()
        return self

    def _initialize_scheduler(self) -> None:
        """Make the scheduler if the schedule is one of torch's."""
        if makes_scheduler(self.schedule):
            peaks = [group["peak"] for group in self.optimizer_.param_groups if group["scheduled"]]
            self._scheduler = SchedulerRates(cast(Any, self.schedule), peaks)

    def get_iterator(self, dataset: tuple[Images, Tensor | None], training: bool = False) -> ImageLoader:
        """Return the loader. It makes no views if no loss reads them."""
        images, labels = dataset
        device = torch.device(self.device)
        compile = self.compiled and device.type == "cuda"  # on a CPU passes that fit the cache are faster
        how: dict[str, Any] = {"compile": compile, "n_jobs": self.n_jobs}
        how |= {name: getattr(self.module_, name) for name in ("reads_images", "reads_corners")}
        how["choose_frames"] = self.module_.method.choose_frames
        return ImageLoader(images, self.batch_size, self.used_augmentations, device, labels, **how)

    # The training: a run of some epochs, an epoch, a step.

    def run(
        self,
        images: Images,
        labels: Tensor | None,
        epochs: int,
        checkpoint: Checkpointer | None = None,
        resume: ResumeState | None = None,
    ) -> None:
        """Train for some epochs.

        Parameters
        ----------
        images : Images
            The training images, in any place.
        labels : int64 Tensor of shape (n_samples,) or None
            Their classes.
        epochs : int
            The number of epochs.
        checkpoint : Checkpointer, optional
            Saves the state of the training.
        resume : ResumeState, optional
            A state before or within the first of these epochs, from which it resumes.
        """
        device = torch.device(self.device)
        labels = None if labels is None else labels.to(device)
        sync_parameters(self.module_)
        if self.compile is True and n_processes() > 1:
            self.compile = False
            if is_main_process():
                warnings.warn("compile=True is for one process. Several processes train without it.", stacklevel=3)
        steps = max(self.max_epochs, epochs) * (len(images) // min(self.batch_size, len(images)))
        self.forward_pass.compile = self.compiles(steps)
        products = matmul_precision("high" if self.tf32 else None, device)
        with (
            keeping_memory(),
            limited_threads(device),
            products,
            closing(images.to("cpu" if transforms_images(self.used_augmentations) else device)) as there,
            Interrupts() as interrupts,
        ):
            self.notify("on_train_begin", X=images, y=labels)
            if resume is not None and not resume.step:
                self.restore_state(resume)
            try:
                self.fit_loop(there, labels, epochs, checkpoint=checkpoint, resume=resume)
            except KeyboardInterrupt:  # from Ctrl-C, or from a callback such as skorch's EarlyStopping
                if interrupts.received:
                    raise
            finally:
                self._graph = None
            self.notify("on_train_end", X=images, y=labels)
            if checkpoint is not None:
                checkpoint.after_training(self)

    def fit_loop(
        self,
        X: Images,
        y: Tensor | None = None,
        epochs: int | None = None,
        *,
        checkpoint: Checkpointer | None = None,
        resume: ResumeState | None = None,
        **fit_params: Any,
    ) -> Trainer:
        """Train for some epochs, in one thread of the process at a time, and restore the global random state.

        Parameters
        ----------
        X : Images
            The training images, on the device.
        y : int64 Tensor of shape (n_samples,), optional
            Their classes, on the device.
        epochs : int, optional
            The number of epochs, ``max_epochs`` by default.
        checkpoint, resume : optional
            As for `run`.
        **fit_params : object
            Ignored.

        Returns
        -------
        self
            The trainer.
        """
        device, crowd = torch.device(self.device), Crowd(torch.device(self.device))
        loader = self.get_iterator((X, y), training=True)
        data = {"dataset_train": X if y is None else (X, y), "dataset_valid": None}
        epochs = self.max_epochs if epochs is None else epochs
        past, steps = len(self.history), len(loader)
        done = past * steps + (0 if resume is None else resume.step)
        with (
            closing(loader),
            seeded(self.seed, device),
            own_stream(device) if self._graphs and self.compiled else nullcontext(),
            Progress(self.verbose, past + epochs, steps, loader.batch_size, done, loader.images.unit) as progress,
        ):
            for _ in range(epochs):
                self.notify("on_epoch_begin", **data)
                how: dict[str, Any] = {"checkpoint": checkpoint, "resume": resume, "progress": progress}
                self.run_single_epoch(loader, True, "train", self.train_step, **how)
                resume = None
                self.notify("on_epoch_end", **data)
                del self.history[-1]["batches"][:-1]  # a long run would keep every batch otherwise
                crowd.check()
                if checkpoint is not None:
                    checkpoint.after_epoch(self)
        return self

    def run_single_epoch(
        self,
        iterator: ImageLoader,
        training: bool,
        prefix: str,
        step_fn: Callable[[Batch], dict[str, Any]],
        checkpoint: Checkpointer | None = None,
        resume: ResumeState | None = None,
        progress: Progress | None = None,
        **fit_params: Any,
    ) -> None:
        """Train for one epoch, or for the rest of one, and record its row of the history."""
        epoch, steps, state = len(self.history) - 1, len(iterator), resume or ResumeState()
        started = time.perf_counter() - state.seconds
        order, draws = self.generators(epoch)
        self.begin_epoch(iterator, epoch, draws, state)
        step_fn = self.graphed(iterator, step_fn)
        progress = progress or Progress(0, 1, steps, iterator.batch_size)
        batches = iterator.epoch(order, draws, state.chosen, state.step)
        for batch in progress(batches, f"Epoch {epoch + 1}/{max(self.max_epochs, epoch + 1)}"):
            self.set_learning_rate(epoch, state.step, steps)
            self.set_weight_decay((min(epoch, self.max_epochs) + state.step / steps) / self.max_epochs)
            self.notify("on_batch_begin", batch=batch, training=training)
            found = step_fn(batch)
            state.step += 1
            done = (min(epoch, self.max_epochs - 1) + state.step / steps) / self.max_epochs
            self.module_.method.after_step(self.module_, state.step - 1, done)
            if self.callbacks_:
                self.record_batch(found["loss"], iterator.batch_size)
            self.notify("on_batch_end", batch=batch, training=training, **found)
            state.add({"loss": found["loss"], **found["y_pred"]})
            progress.show(state.sums["loss"], state.step)
            if checkpoint is not None and state.step < steps:
                state.seconds = time.perf_counter() - started
                checkpoint.after_step(self, state, draws)
        self.forward_pass.share_gradients(False)
        self.record_epoch(state, steps * iterator.batch_size, started)
        self.check_embeddings(batch.views[0] if batch.views else self.augmentations[0].eval_transform(batch.images))

    def begin_epoch(self, loader: ImageLoader, epoch: int, draws: torch.Generator, state: ResumeState) -> None:
        """Prepare an epoch, or restore the state within it.

        Parameters
        ----------
        loader : ImageLoader
            The loader.
        epoch : int
            Number of completed epochs.
        draws : torch.Generator
            The generator of the augmentation.
        state : ResumeState
            A new state, to which the images that the method chooses are added, or one from which training resumes.
        """
        self._set_training(True)
        net, method, device = self.module_, self.module_.method, torch.device(self.device)
        if state.step:
            self.restore_state(state, draws)
        else:
            augment = self.augmentations[0]
            state.chosen = method.before_epoch(
                net, epoch, lambda module: encode_together(module, loader.images, augment, device, self.dtype)
            )
            for name in method.reset_each_epoch:
                reset_state(self.optimizer_, net.get_submodule(name))
        net.phase = method.phase(net, epoch)
        self.forward_pass.share_gradients(True)
        if rank():  # from here on each process draws its own random numbers
            reseed(draws.initial_seed(), device)

    def restore_state(self, state: ResumeState, draws: torch.Generator | None = None) -> None:
        """Restore what the network, the optimiser and the history do not hold.

        Parameters
        ----------
        state : ResumeState
            The state of an earlier run.
        draws : torch.Generator, optional
            The generator of the augmentation. None restores a state between two epochs.
        """
        for name, callback in self.callbacks_:
            if name in state.callbacks:
                try:
                    load_callback_state(callback, state.callbacks[name], self.module_)
                except Exception as error:  # the state comes from a file
                    raise ValueError(
                        f"The callback {name!r} does not take its state in the checkpoint: {first_line(error)}"
                    ) from error
        for name, parameter in self.module_.named_parameters():
            parameter.requires_grad_(name in state.trainable)
        if draws is not None:
            set_random_states(draws, state.random)
            state.sums = {name: value.to(self.device) for name, value in state.sums.items()}

    def train_step_single(self, batch: Batch, **fit_params: Any) -> dict[str, Any]:
        """Compute the losses of a batch and their gradients."""
        losses = self.infer(batch)
        losses["loss"].backward()
        self.module_.method.after_backward(self.module_)
        # Not in the objective: torch.compile takes a loss that is its only part for the detached one (torch 2.15).
        losses = {name: value.detach() for name, value in losses.items()}
        return {"loss": losses["loss"], "y_pred": losses}

    def infer(self, batch: Batch, **kwargs: Any) -> dict[str, Tensor]:
        """Compute the losses of a batch in the trainer's precision."""
        groups = self.compiled and self.module_.method.bn_splits > 1
        with mixed_precision(self.dtype, torch.device(self.device)), sync_batchnorm(self.module_, groups):
            self.module_.prepare(batch)
            with self.in_parts():
                return self.forward_pass(batch)

    def in_parts(self) -> AbstractContextManager[None]:
        """Return a context in which encoders run in `accumulate` parts."""
        return encode_in_parts(self.module_.encoders, self.accumulate) if self.accumulate > 1 else nullcontext()

    # The parts of a training.

    @property
    def forward_pass(self) -> ForwardPass:
        """The forward pass of a step."""
        if self._forward is None:
            self._forward = ForwardPass(self.module_)
        return self._forward

    @property
    def compiled(self) -> bool:
        """Whether steps are compiled, see `compiles`."""
        return self.forward_pass.compile

    def compiles(self, steps: int) -> bool:
        """Return whether the steps of a training are to be compiled.

        Parameters
        ----------
        steps : int
            The number of steps of the whole training, so that a training that is resumed computes as before.

        Returns
        -------
        bool
            ``compile``. "auto" compiles on CUDA from `COMPILED_FROM` steps on, in one process and without
            ``accumulate``.
        """
        if self.compile != "auto" or self.forward_pass.failed:
            return bool(self.compile) and not self.forward_pass.failed
        suits = torch.device(self.device).type == "cuda" and n_processes() == 1 and self.accumulate == 1
        return suits and steps >= COMPILED_FROM

    def graphed(
        self, loader: ImageLoader, step: Callable[[Batch], dict[str, Any]]
    ) -> Callable[[Batch], dict[str, Any]]:
        """Return a step that is recorded as a CUDA graph, or the step itself if it cannot be recorded."""
        recorded = self._graphs and self.compiled and not self.callbacks_ and can_record(self.optimizer_, self.device)
        recorded = recorded and not isinstance(loader.images, (Clips, Photographs))  # the loader makes their views
        recorded = recorded and not any(isinstance(augment, Transform) for augment in self.augmentations)
        recorded = recorded and self.module_.method.weight_decay_end is None  # a number in the recorded step
        if not recorded:
            self._graph = None
            return step
        key = loader, self.module_.phase, trainable(self.module_)
        if self._graph is None or self._graph.key != key:
            loader.bare = False
            self._graph = StepGraph(self.optimizer_, loader, step, key)
        return self._graph

    @property
    def used_augmentations(self) -> Sequence[View]:
        """The augmentations of the views that a loss reads."""
        return self.augmentations if self.module_.reads_views else []

    def generators(self, epoch: int) -> tuple[torch.Generator, torch.Generator]:
        """Seed all random generators for an epoch.

        Parameters
        ----------
        epoch : int
            Number of completed epochs.

        Returns
        -------
        order, draws : torch.Generator
            The generators of the order of the images, on the CPU, and of the augmentation, on the device and different
            in each process. The global generator, which dropout and the methods use, is seeded, too.
        """
        seeds = [int(seed) for seed in np.random.SeedSequence((self.seed, epoch)).generate_state(3)]
        reseed(seeds[0], torch.device(self.device))
        if self._draws is None:
            self._draws = torch.Generator(torch.device(self.device))  # the same in all epochs: CUDA graphs refer to it
        return torch.Generator().manual_seed(seeds[1]), self._draws.manual_seed(seeds[2] + rank())

    def set_learning_rate(self, epoch: int, step: int, steps: int) -> None:
        """Set the learning rate of a step.

        Parameters
        ----------
        epoch : int
            Number of completed epochs.
        step, steps : int
            The step within the epoch, from 0, and the number of steps of an epoch.
        """
        scheduled = [group for group in self.optimizer_.param_groups if group["scheduled"]]
        if self._scheduler is not None:
            if epoch >= self.max_epochs:
                epoch, step = self.max_epochs - 1, 0
            losses = [row["loss"] for row in self.history if "loss" in row]
            for group, rate in zip(scheduled, self._scheduler(epoch, step, steps, losses), strict=True):
                group["lr"] = rate
            return
        position = epoch + step / steps
        if position < self.warmup_epochs:
            position += 1 / steps  # the first step of the warm-up has a rate above 0
        factor = schedule_factor(self.schedule, position, self.max_epochs, self.warmup_epochs)
        for group in scheduled:
            group["lr"] = group["peak"] * factor

    def set_weight_decay(self, progress: float) -> None:
        """Set the weight decay of a step if the method changes it.

        Parameters
        ----------
        progress : float
            The share of the training that is done before the step. From 1 on the decay stays at its end.
        """
        if (end := self.module_.method.weight_decay_end) is not None:
            decay = cosine_schedule(self.weight_decay, end, min(progress, 1.0))
            for group in self.optimizer_.param_groups:
                group["weight_decay"] = decay if group["decayed"] else 0.0

    # Records.

    def record_batch(self, loss: Tensor, batch_size: int) -> None:
        """Record a step under skorch's names, until the end of the epoch.

        Parameters
        ----------
        loss : scalar Tensor
            The loss. It stays a tensor, since a number would wait for the device, unless a callback of skorch shows or
            logs it in every step.
        batch_size : int
            The number of images.
        """
        shown = any(isinstance(it, ProgressBar) or getattr(it, "log_on_batch_end", False) for _, it in self.callbacks_)
        self.history.record_batch("train_loss", loss.item() if shown else loss)
        self.history.record_batch("train_batch_size", batch_size)

    def record_epoch(self, state: ResumeState, n_images: int, started: float) -> None:
        """Record the mean losses of an epoch, the learning rate and the speed.

        Parameters
        ----------
        state : ResumeState
            The state at the end of the epoch.
        n_images : int
            Number of images in the epoch, of all processes together.
        started : float
            Time at which the epoch began, of `time.perf_counter`.
        """
        means = all_reduce_mean(torch.stack([value.float() for value in state.sums.values()]) / state.step)
        found = dict(zip(state.sums, means.tolist(), strict=True))
        speed = n_images / (time.perf_counter() - started)  # only now the device has finished the last step
        first = self.optimizer_.param_groups[0]
        best = all(found["loss"] < row["loss"] for row in self.history[:-1] if "loss" in row)
        found |= {"lr": first["lr"] / first["scale"], "images_per_second": speed}
        for name, value in {**found, **dict(zip(SKORCH_NAMES, (found["loss"], best, best), strict=True))}.items():
            self.history.record(name, value)
        for _, callback in self.callbacks_:
            check_columns(callback, self.history[-1])
        rows = [row for row in self.history[-1]["batches"] if isinstance(row.get("train_loss"), Tensor)]
        losses = torch.stack([row["train_loss"] for row in rows]).tolist() if rows else []
        for row, loss in zip(rows, losses, strict=True):  # with one copy to the host
            row["train_loss"] = loss

    @torch.no_grad()
    def check_embeddings(self, views: Tensor) -> None:
        """Record how far embeddings are spread. Warn on collapse, and raise if the training has diverged.

        Parameters
        ----------
        views : Tensor of shape (n, c, h, w)
            Views of the last batch of the epoch. Each process has its share.
        """
        epoch, loss = len(self.history), self.history[-1]["loss"]
        with mixed_precision(self.dtype, torch.device(self.device)), sync_batchnorm(self.module_), self.in_parts():
            z = all_gather(self.module_.embed(views))
        if not (np.isfinite(loss) and z.isfinite().all()):
            peaks = sorted({group["peak"] for group in self.optimizer_.param_groups})
            raise FloatingPointError(
                f"The training has diverged in epoch {epoch}: the loss is {loss:.4g}, or embeddings are not finite. "
                f"Try a learning rate below lr={' or '.join(f'{rate:g}' for rate in peaks)} or more warmup_epochs."
            )
        warn = self.collapsible and not self._collapsed and is_main_process()  # once for each collapse
        measures, self._collapsed = check_collapse(z, epoch, warn)
        for name, value in measures.items():
            self.history.record(name, value)

    def table(self) -> pd.DataFrame:
        """Return the history, with one row for each epoch and without skorch's second names."""
        import pandas as pd

        left_out = "batches", *SKORCH_NAMES
        rows = [{name: value for name, value in row.items() if name not in left_out} for row in self.history]
        return pd.DataFrame([row for row in rows if "loss" in row])


def _writes(callback: Any) -> bool:
    """Return whether a callback is one of skorch's that write files or logs."""
    return isinstance(callback, (SkorchCheckpoint, TrainEndCheckpoint)) or "skorch.callbacks.logging" in (
        kind.__module__ for kind in type(callback).__mro__
    )
