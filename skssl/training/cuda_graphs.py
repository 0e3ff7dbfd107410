"""A training step as one CUDA graph: views, forward and backward pass, and the optimiser's step."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from skssl.training.loader import ImageLoader
from skssl.training.objective import Batch

WARM_UP = 3  # steps in which kernels are compiled and chosen, and the state of the optimiser is initialised


class StepGraph:
    """A training step that is recorded as a CUDA graph and then replayed, after some steps that are not.

    The tensors that a step reads have fixed addresses, to which each batch is copied. Making the views is part of the
    step, so the loader makes no views once it is recorded. `Hooks.after_step` is not part of it.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimiser, one that `can_record` allows.
    loader : ImageLoader
        Makes the views, with static shapes.
    step : callable
        From a batch with views to the result of a step.
    key : tuple
        What else the recorded step depends on. If it changes, the step has to be recorded again.
    """

    def __init__(
        self, optimizer: Optimizer, loader: ImageLoader, step: Callable[[Batch], dict[str, Any]], key: tuple[Any, ...]
    ) -> None:
        self.optimizer, self.loader, self.step, self.key = optimizer, loader, step, key
        self.rates = [torch.zeros((), device=loader.device) for _ in optimizer.param_groups]
        self.left: int | None = WARM_UP
        self.graph: Any = None

    def __call__(self, batch: Batch) -> dict[str, Any]:
        """Take a step.

        Parameters
        ----------
        batch : Batch
            A batch. Its views are made by the loader until the step is recorded, and by the graph from then on.

        Returns
        -------
        dict
            The result of the step. The next step overwrites its tensors.
        """
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            rate.fill_(group["lr"])
        if self.graph is None:
            with tensor_rates(self.optimizer, self.rates):  # the same bits as in a graph
                found = self.step(batch)
            if self.left is not None:
                self.left -= 1
                if not self.left:
                    self.left = None
                    self._try(batch)
            return found
        for name, tensor in self._inputs(self.batch).items():
            tensor.copy_(getattr(batch, name), non_blocking=True)
        self.graph.replay()
        batch.views, batch.made, batch.corners = self.batch.views, self.batch.made, self.batch.corners
        return self.found

    @staticmethod
    def _inputs(batch: Batch) -> dict[str, Tensor]:
        """Return the tensors that differ from batch to batch, by name."""
        inputs = {"images": batch.images, "index": batch.index, "labels": batch.labels}
        return {name: value for name, value in inputs.items() if value is not None}

    def _try(self, batch: Batch) -> None:
        """Record a step, or warn that it cannot be recorded."""
        try:
            self._record(batch)
        except RuntimeError as error:
            self.graph = None
            message = str(error).strip().splitlines()[0]
            warnings.warn(f"A step cannot be a CUDA graph, so training continues without one: {message}", stacklevel=2)
        else:
            self.loader.bare = True

    def _record(self, batch: Batch) -> None:
        """Record a step without running it."""
        copies = {name: value.clone() for name, value in self._inputs(batch).items()}
        images, index, draws = copies["images"], copies["index"], cast("torch.Generator", batch.generator)
        self.batch = replace(batch, images=images, views=[], index=index, labels=copies.get("labels"), made={})

        def whole_step() -> None:
            self.batch.views, self.batch.corners = self.loader.views(images, draws, index)
            with tensor_rates(self.optimizer, self.rates):
                self.found = self.step(self.batch)

        self.graph = capture(whole_step, draws)


def can_record(optimizer: Optimizer, device: torch.device | str) -> bool:
    """Return whether steps of an optimiser can be recorded: on CUDA, by SGD or AdamW.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimiser.
    device : torch.device or str
        The device of the training.

    Returns
    -------
    bool
        Whether they can.
    """
    return torch.device(device).type == "cuda" and type(optimizer) in (torch.optim.SGD, torch.optim.AdamW)


def capture(work: Callable[[], None], generator: torch.Generator | None = None) -> Any:
    """Capture the kernels that a function launches, without running them.

    Parameters
    ----------
    work : callable
        A function of static shapes that does not synchronise with the device.
    generator : torch.Generator, default=None
        A generator that it draws from besides the device's default one. Each replay advances it.

    Returns
    -------
    torch.cuda.CUDAGraph
        The graph, run by its ``replay``.
    """
    graph = torch.cuda.CUDAGraph()
    if generator is not None:
        graph.register_generator_state(generator)
    current = torch.cuda.current_stream()
    stream = None if current == torch.cuda.default_stream() else current  # CUDA cannot capture the default stream
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        work()
    return graph


@contextmanager
def tensor_rates(optimizer: Optimizer, rates: list[Tensor]) -> Iterator[None]:
    """Let an optimiser read its learning rates from tensors within a context.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        A fused SGD or AdamW.
    rates : list of scalar Tensors
        One for each parameter group, on the device.

    Examples
    --------
    >>> import torch
    >>> from skssl.training.cuda_graphs import tensor_rates
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    >>> with tensor_rates(optimizer, [torch.tensor(0.1)]):
    ...     optimizer.param_groups[0]["lr"]
    tensor(0.1000)
    >>> optimizer.param_groups[0]["lr"]
    0.5
    """
    before = [dict(group) for group in optimizer.param_groups]
    try:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
            if "capturable" in group:
                group["capturable"] = True
        yield
    finally:
        for group, values in zip(optimizer.param_groups, before, strict=True):
            group.update(values)


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Work on a new CUDA stream, as recording a graph requires. On other devices nothing changes.

    Parameters
    ----------
    device : torch.device
        The device.
    """
    if device.type != "cuda":
        yield
        return
    current, own = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    own.wait_stream(current)
    try:
        with torch.cuda.stream(own):
            yield
    finally:
        current.wait_stream(own)
