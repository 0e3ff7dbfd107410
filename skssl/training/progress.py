"""The progress bar of an epoch."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from skssl.nn.distributed import is_main_process

if TYPE_CHECKING:
    pass
from skssl.training.objective import Batch


class Progress:
    """A progress bar for an epoch, with the loss, images a second and the time left.

    Parameters
    ----------
    title : str
        What stands before the bar.
    verbose : int or bool
        Whether it is shown.
    """

    def __init__(self, title: str, verbose: int) -> None:
        self.title, self.verbose = title, verbose and is_main_process()
        self.bar: Any = None
        self.steps, self.shown = 0, 0.0
        self.copied: tuple[Tensor, int, Any] | None = None  # a sum on its way to the host, its steps, when it is there

    def __call__(self, batches: Iterable[Batch], steps: int, batch_size: int, done: int = 0) -> Iterator[Batch]:
        """Pass the batches on and count them.

        Parameters
        ----------
        batches : iterable of Batch
            The batches that are left.
        steps, batch_size : int
            How many there are in all, and images in each.
        done : int, default=0
            How many went before.

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
        """Show the mean loss at most twice a second, as it was half a second before, and at the end.

        Reading it at once would wait for the device.

        Parameters
        ----------
        total : scalar Tensor
            The sum of the losses.
        steps : int
            Of how many steps.
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
