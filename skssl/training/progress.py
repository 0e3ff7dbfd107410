"""The progress bar of a training."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, Self

import torch
from torch import Tensor
from tqdm.auto import tqdm

from skssl.nn.distributed import is_main_process
from skssl.training.objective import Batch


class Progress:
    """One progress bar for all epochs of a run, with the epoch, the loss, images per second and the time left.

    The speed is the mean since the start, so that the time left includes clustering, callbacks and checkpoints between
    the epochs.

    Parameters
    ----------
    verbose : int or bool
        Whether the bar is shown.
    epochs : int
        The number of epochs at the end of the run.
    steps, batch_size : int
        The number of batches of an epoch, and the images per batch.
    done : int, default=0
        The number of batches that have been done before the run, in all epochs.
    unit : str, default="images"
        What is counted, see `Images.unit`.
    """

    def __init__(
        self, verbose: int, epochs: int, steps: int, batch_size: int, done: int = 0, unit: str = "images"
    ) -> None:
        self.unit = unit
        self.steps, self.batch_size = steps, batch_size
        self.verbose = verbose and is_main_process()
        self.total, self.initial = epochs * steps * batch_size, done * batch_size
        self.bar: Any = None
        self.shown = 0.0
        self.copied: tuple[Tensor, int, Any] | None = None  # a sum that is copied to the host, its steps, an event

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.close()

    def __call__(self, batches: Iterable[Batch], title: str) -> Iterator[Batch]:
        """Iterate over the batches of an epoch and count them.

        Parameters
        ----------
        batches : iterable of Batch
            The remaining batches.
        title : str
            The text before the bar.

        Yields
        ------
        Batch
            The batches.
        """
        if not self.verbose:
            yield from batches
            return
        if self.bar is None:
            how: dict[str, Any] = {"unit": f" {self.unit}", "unit_scale": True, "dynamic_ncols": True}
            self.bar = tqdm(desc=title, total=self.total, initial=self.initial, smoothing=0, **how)
        self.copied = None
        self.bar.set_description(title, refresh=False)
        for batch in batches:
            yield batch
            self.bar.update(self.batch_size)

    def show(self, total: Tensor, steps: int) -> None:
        """Show the mean loss at most twice a second, and at the end of the epoch.

        The loss shown is that of half a second before, since reading the current one would wait for the device.

        Parameters
        ----------
        total : scalar Tensor
            The sum of the losses so far.
        steps : int
            The number of steps summed.
        """
        if self.bar is None:
            return
        if steps == self.steps:
            self.bar.set_postfix(loss=f"{total.item() / steps:.4g}", refresh=False)
        elif time.monotonic() - self.shown > 0.5:
            self.shown = time.monotonic()
            if self.copied is not None:
                copy, at, arrived = self.copied
                if arrived is not None and not arrived.query():
                    return
                self.bar.set_postfix(loss=f"{float(copy.numpy()) / at:.4g}", refresh=False)
            event = None if total.device.type == "cpu" else torch.get_device_module(total.device).Event()
            self.copied = total.to("cpu", non_blocking=True, copy=True), steps, event
            if event is not None:
                event.record()
