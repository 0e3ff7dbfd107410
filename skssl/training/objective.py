"""What one step of training computes: a batch, the hooks of methods and tasks, and the network with its losses."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from skssl.nn.precision import autocast_for

if TYPE_CHECKING:
    pass
from skssl.nn.passes import concat_views


@dataclass
class Batch:
    """What one step works on.

    Attributes
    ----------
    images : Tensor of shape (n, c, h, w)
        The images themselves, uint8 or float32 in [0, 1].
    views : list of float32 Tensors of shape (n, c, h', w')
        Their augmented and normalised views.
    index : int64 Tensor of shape (n,)
        Which images of the training set they are.
    labels : int64 Tensor of shape (n,), optional
        Their classes, -1 where unknown; None unless the method uses labels.
    generator : torch.Generator, optional
        Where further augmentation draws from, on the device; of tasks that augment by themselves.
    made : dict of str to Tensor
        What hooks have made of it before the step, by their names; see `Hooks.prepare`.
    """

    images: Tensor
    views: list[Tensor]
    index: Tensor
    labels: Tensor | None = None
    generator: torch.Generator | None = None
    made: dict[str, Tensor] = field(default_factory=dict)


class Objective(nn.Module):
    """The network and the loss of one step in one forward pass, for autocast and ``torch.compile`` to wrap.

    It is the ``net`` that a method's and a task's hooks are given: they put their heads, momentum copies and
    buffers on it when it is built and use them in every step.

    Parameters
    ----------
    encoder : torch.nn.Module
        From views to features of width `dim`.
    dim : int
        The features' width.
    method : object with ``build`` and ``losses``
        The method, holding parameters only.
    tasks : mapping of str to (object with ``build`` and ``losses``, float)
        Auxiliary tasks by name, with their weights.
    n_samples : int
        The number of training images.
    shape : tuple of int
        Their channels, height and width.
    """

    def __init__(
        self,
        encoder: nn.Module,
        dim: int,
        method: Hooks,
        tasks: Mapping[str, tuple[Hooks, float]],
        n_samples: int,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.encoder, self.dim, self.n_samples, self.shape = encoder, dim, n_samples, shape
        self.method, self.tasks = method, tasks
        self.reads_views = any(hooks.reads_views for hooks in (method, *(task for task, _ in tasks.values())))
        for hooks in (method, *(task for task, _ in tasks.values())):
            hooks.build(self, dim, n_samples)

    def prepare(self, batch: Batch) -> None:
        """Let the hooks make what `forward`, which may be compiled, only reads.

        Parameters
        ----------
        batch : Batch
            The batch.
        """
        for hooks in (self.method, *(task for task, _ in self.tasks.values())):
            hooks.prepare(self, batch)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Parameters
        ----------
        batch : Batch
            The batch.

        Returns
        -------
        dict of str to scalar Tensor
            "loss", the weighted sum of all that requires a gradient, and every number by its name.
        """
        numbers = self.method.losses(self, batch)
        total: Any = sum(value for value in numbers.values() if value.requires_grad)
        for task, weight in self.tasks.values():
            found = task.losses(self, batch)
            total = total + weight * sum(value for value in found.values() if value.requires_grad)
            numbers = {**numbers, **found}
        return {"loss": total, **numbers}

    def project(self, views: Sequence[Tensor]) -> list[Tensor]:
        """Map views to the projector's output, all in one pass, or one a resolution where they differ in size.

        BatchNorm sees the views of a resolution at once in the encoder, and all of them in the projector.

        Parameters
        ----------
        views : sequence of Tensors of shape (n, c, h, w)
            Views; those of a size stand side by side.

        Returns
        -------
        list of Tensors of shape (n, d)
            One for each view; none where no views are wanted.
        """
        features = []
        for _, group in itertools.groupby(views, key=lambda view: view.shape[2:]):
            joined = concat_views(list(group))
            with autocast_for(joined):  # small crops may be too small for a CPU's bfloat16
                features.append(self.encoder(joined))
        return list(self.projector(torch.cat(features)).chunk(len(views)))

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Whatever the hooks have put on the net."""

        def __setattr__(self, name: str, value: Any) -> None:
            """What the hooks put there; numbers and flags, too, though only where they follow from the epoch."""

    def embed(self, view: Tensor) -> Tensor:
        """Map views to where the loss compares them, normalised by the batch as in training.

        Parameters
        ----------
        view : Tensor of shape (n, c, h, w)
            Views.

        Returns
        -------
        Tensor of shape (n, d)
            The projector's output, or the features where there is no projector. Running statistics stay as they are.
        """
        for part in (self.encoder, getattr(self, "projector", None)):
            if part is not None:
                buffers = {name: buffer.clone() for name, buffer in part.named_buffers()}
                view = torch.func.functional_call(part, buffers, (view,))
        return view


class Hooks(Protocol):
    """What a method and an auxiliary task have in common."""

    @property
    def reads_views(self) -> bool:
        """Whether the losses are those of views, and not of what is cut from the images themselves."""

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Put heads, momentum copies and buffers on the net."""

    def prepare(self, net: Objective, batch: Batch) -> None:
        """Put on the batch, in ``made``, what a compiled step cannot make: further views, drawn by its generator."""

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:
        """Compute the named losses of a batch; what needs no gradient is recorded only."""
