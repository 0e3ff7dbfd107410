"""The progress bar of an epoch."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from skssl.nn.distributed import is_main_process
from skssl.training.objective import Batch


class Progress:
    """A progress bar of an epoch, with the loss, images per second and the time left.

    Parameters
    ----------
    title : str
        The text before the bar.
    verbose : int or bool
        Whether the bar is shown.
    """

    def __init__(self, title: str, verbose: int) -> None:
        self.title, self.verbose = title, verbose and is_main_process()
        self.bar: Any = None
        self.steps, self.shown = 0, 0.0
        self.copied: tuple[Tensor, int, Any] | None = None  # a sum that is copied to the host, its steps, an event

    def __call__(self, batches: Iterable[Batch], steps: int, batch_size: int, done: int = 0) -> Iterator[Batch]:
        """Iterate over the batches of an epoch and count them.

        Parameters
        ----------
        batches : iterable of Batch
            The remaining batches.
        steps, batch_size : int
            The number of batches of the whole epoch, and the images per batch.
        done : int, default=0
            The number of batches that have been done.

        Yields
        ------
        Batch
            The batches.
        """
        if not self.verbose:
            yield from batches
            return
        self.steps = steps
        with tqdm(
            total=steps * batch_size,
            initial=done * batch_size,
            desc=self.title,
            unit=" images",
            unit_scale=True,
            dynamic_ncols=True,
        ) as self.bar:
            for batch in batches:
                yield batch
                self.bar.update(batch_size)

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
            self.copied = total.to("cpu", non_blocking=True), steps, event
            if event is not None:
                event.record()
