"""What a training step computes: the batch, the hooks of methods and tasks, and the network with its losses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from skssl.nn.adversarial import frozen_forward
from skssl.nn.precision import autocast_for


@dataclass
class Batch:
    """The images of one step, and their views.

    Attributes
    ----------
    images : Tensor of shape (n, c, h, w)
        The images themselves, uint8 or float32 in [0, 1]. Photographs are resized whole to the size of a network's
        input if a hook sets `Hooks.reads_images`, and cannot be read otherwise. Of clips they are the first of the
        frames that `Hooks.choose_frames` returned.
    views : list of float32 Tensors of shape (n, c, h', w')
        Their augmented and normalised views.
    index : int64 Tensor of shape (n,)
        Their indices in the training set.
    labels : int64 Tensor of shape (n,), optional
        Their classes, -1 where unknown; None unless the method uses labels.
    generator : torch.Generator, optional
        The generator of further augmentation, on the device.
    made : dict of str to Tensor
        What the hooks have added before the step, by name; see `Hooks.prepare`. Also the rows of `Images.extra`, and of
        clips the indices of the frames, "frames", an int64 Tensor of shape (n, n_views).
    corners : list of float32 Tensors of shape (n, 2, 2, 2), optional
        Where the corners of each view lie in the images, see `Augmentation.with_corners`. None unless a hook sets
        `Hooks.reads_corners`.
    """

    images: Tensor
    views: list[Tensor]
    index: Tensor
    labels: Tensor | None = None
    generator: torch.Generator | None = None
    made: dict[str, Tensor] = field(default_factory=dict)
    corners: list[Tensor] | None = None

    def __iter__(self) -> Iterator[Tensor | None]:
        """Return the images and their classes: skorch's callbacks unpack a batch as ``X, y``.

        The images of photographs that were only cropped are their first views.
        """
        return iter((vars(self).get("images", self.views[0] if self.views else None), self.labels))

    def __getattr__(self, name: str) -> Any:
        """Raise an error for an attribute that is missing, as the images of photographs are that were only cropped."""
        if name == "images":
            raise RuntimeError(
                "The whole photographs of this batch were not read. A method or task whose hooks read batch.images "
                "must set its class attribute reads_images to True."
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class Hooks:
    """The hooks of a method or an auxiliary task, which the training loop calls.

    A method has all hooks; only `build` and `losses` are required. Of an auxiliary task only `build`, `prepare` and
    `losses` are called.
    """

    #: Submodules of the net whose learning rate stays constant.
    unscheduled: ClassVar[tuple[str, ...]] = ()
    #: Submodules of the net that `before_epoch` resets, so that their optimiser state is reset as well.
    reset_each_epoch: ClassVar[tuple[str, ...]] = ()
    #: Whether `Batch.images` is read. Photographs are read whole only if it is.
    reads_images: ClassVar[bool] = False
    #: Whether `Batch.corners` is read. Transforms of other libraries are refused if it is.
    reads_corners: ClassVar[bool] = False
    #: Groups of a batch that BatchNorm normalises apart from each other.
    bn_splits: int = 1
    #: Weight decay at the end of the training, to which it changes along a cosine. None keeps it constant.
    weight_decay_end: float | None = None

    @property
    def chance(self) -> dict[str, float]:
        """The accuracy of a random guess, by the name of the measure."""
        return {}

    @property
    def lr_factors(self) -> Mapping[str, float]:
        """Factors of the learning rate of submodules of the net, by name, such as a discriminator's."""
        return {}

    @property
    def reads_views(self) -> bool:
        """Whether the losses read the views. Tasks that only cut tiles from the images do not."""
        return True

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Add heads, momentum copies and buffers to the net.

        Parameters
        ----------
        net : Objective
            The network, which has its encoder already; for a task, the method's modules, too.
        dim : int
            Width of the encoder's features.
        n_samples : int
            Number of training images.

        Raises
        ------
        ValueError
            If the network or the images do not suit the method or task.
        """
        raise NotImplementedError

    def choose_frames(self, clips: Tensor, generator: torch.Generator) -> Tensor:
        """Choose the frames of clips whose views a step uses, one for each view. By default a random one.

        Parameters
        ----------
        clips : Tensor of shape (n, t, c, h, w)
            The clips, uint8 or float32 in [0, 1].
        generator : torch.Generator
            The generator of the augmentation, on the device.

        Returns
        -------
        int64 Tensor of shape (n, n_views)
            Indices of frames, from 0 to t - 1.
        """
        return torch.randint(clips.shape[1], (len(clips), 1), generator=generator, device=clips.device)

    def prepare(self, net: Objective, batch: Batch) -> None:
        """Add to ``batch.made`` what a compiled step cannot compute, such as further views.

        Frozen modules are set to evaluation mode here, since a training that resumes within an epoch skips
        `before_epoch`.

        Parameters
        ----------
        net : Objective
            The network.
        batch : Batch
            The batch. Random numbers come from ``batch.generator``.
        """

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:
        """Compute the losses of a batch by name.

        Parameters
        ----------
        net : Objective
            The network.
        batch : Batch
            The batch.

        Returns
        -------
        dict of str to scalar Tensor
            The losses, which are summed. Values that require no gradient are recorded, but not minimised.
        """
        raise NotImplementedError

    def before_epoch(self, net: Objective, epoch: int, encode: Callable[[nn.Module], Tensor]) -> Tensor | None:
        """Prepare an epoch, for example by clustering.

        Parameters
        ----------
        net : Objective
            The network.
        epoch : int
            Number of completed epochs.
        encode : callable
            From a module on the net to its output for all training images, (n_samples, d), in evaluation mode and
            without augmentation.

        Returns
        -------
        int64 Tensor of shape (n_samples,) or None
            Indices of the epoch's images, in their order. None is all images in random order.
        """
        return None

    def phase(self, net: Objective, epoch: int) -> Hashable:
        """Return the phase of the training: what differs between the steps of two epochs, such as frozen prototypes.

        It is called before each epoch, and when a training resumes within one. Hooks read it as ``net.phase``.

        Parameters
        ----------
        net : Objective
            The network.
        epoch : int
            Number of completed epochs, on which alone the phase of a `fit` depends.

        Returns
        -------
        hashable
            The phase. A compiled step is compiled and recorded again when it changes.
        """
        return None

    def after_backward(self, net: Objective) -> None:
        """Change the gradients before the optimiser's step.

        Parameters
        ----------
        net : Objective
            The network.
        """

    def after_step(self, net: Objective, step: int, progress: float) -> None:
        """Update what has no gradient, such as a momentum copy, after the optimiser's step.

        Parameters
        ----------
        net : Objective
            The network.
        step : int
            The step within the epoch, from 0.
        progress : float
            The share of the training that is done, in (0, 1].
        """


class Objective(nn.Module):
    """The network and the losses of a step as one module, which autocast and ``torch.compile`` wrap.

    It is the ``net`` of the hooks. They add heads, momentum copies and buffers to it when it is built, and use them in
    every step.

    Parameters
    ----------
    encoder : torch.nn.Module
        Maps views to features of width `dim`.
    dim : int
        Width of the features.
    method : Hooks
        The method, holding parameters only.
    tasks : mapping of str to (Hooks, float)
        The auxiliary tasks by name, with their weights.
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
        self.reads_views = any(hooks.reads_views for hooks in self.hooks)
        self.reads_images = any(hooks.reads_images for hooks in self.hooks)
        self.reads_corners = any(hooks.reads_corners for hooks in self.hooks)
        for hooks in self.hooks:
            hooks.build(self, dim, n_samples)
        self.phase: Any = method.phase(self, epoch=0)

    @property
    def hooks(self) -> list[Hooks]:
        """The method and the tasks."""
        return [self.method, *(task for task, _ in self.tasks.values())]

    @property
    def encoders(self) -> list[nn.Module]:
        """The encoder, and the copies that the method and the tasks have made of it."""

        def names(module: nn.Module) -> list[str]:
            return [name for name, _ in module.named_parameters()]

        alike = [module for module in self.modules() if type(module) is type(self.encoder)]
        return [module for module in alike if names(module) == names(self.encoder)]

    def prepare(self, batch: Batch) -> None:
        """Let the hooks add to the batch what a compiled `forward` cannot compute.

        Parameters
        ----------
        batch : Batch
            The batch.
        """
        for hooks in self.hooks:
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
            "loss", the weighted sum of the losses that require a gradient, and every loss by its name.
        """
        numbers = self.method.losses(self, batch)
        total: Any = sum(value for value in numbers.values() if value.requires_grad)
        for task, weight in self.tasks.values():
            found = task.losses(self, batch)
            total = total + weight * sum(value for value in found.values() if value.requires_grad)
            numbers = {**numbers, **found}
        return {"loss": total, **numbers}

    def project(self, views: Sequence[Tensor]) -> list[Tensor]:
        """Map views to the projector's output, with one pass of the encoder for each resolution.

        BatchNorm normalises the views of a resolution together in the encoder, and all views in the projector.

        Parameters
        ----------
        views : sequence of Tensors of shape (n, c, h, w)
            The views. Views of the same size are neighbours.

        Returns
        -------
        list of Tensors of shape (n, d)
            One for each view.
        """
        features = []
        for _, group in itertools.groupby(views, key=lambda view: view.shape[2:]):
            joined = concat_views(list(group))
            with autocast_for(joined):  # small crops may be too small for a CPU's bfloat16
                features.append(self.encoder(joined))
        return list(self.projector(torch.cat(features)).chunk(len(views)))

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return what the hooks have put on the net."""

        def __setattr__(self, name: str, value: Any) -> None:
            """Set what the hooks put on the net. State that changes must be in parameters and buffers."""

    def embed(self, view: Tensor) -> Tensor:
        """Map views to the space of the loss, with BatchNorm in training mode.

        Parameters
        ----------
        view : Tensor of shape (n, c, h, w)
            The views.

        Returns
        -------
        Tensor of shape (n, d)
            The projector's output, or the features if there is no projector. Running statistics do not change, and
            parameters receive no gradient.
        """
        for part in (self.encoder, getattr(self, "projector", None)):
            if part is not None:
                view = frozen_forward(part, view)
        return view


def concat_views(views: Sequence[Tensor]) -> Tensor:
    """Concatenate views of one size. Views that are adjacent in memory, as the loader's are, are not copied.

    Parameters
    ----------
    views : sequence of Tensors of shape (n, c, h, w)
        One or more views.

    Returns
    -------
    Tensor of shape (n_views * n, c, h, w)
        The views in order.

    Examples
    --------
    >>> import torch
    >>> from skssl.training.objective import concat_views
    >>> both = torch.arange(4.0).view(4, 1, 1, 1)
    >>> concat_views(both.chunk(2)).data_ptr() == both.data_ptr()
    True
    """
    first = views[0]
    if torch.compiler.is_compiling() or first.requires_grad:
        return torch.cat(list(views))
    storage = first.untyped_storage().data_ptr()
    if all(
        view.data_ptr() == first.data_ptr() + i * first.nbytes
        and view.stride() == first.stride()
        and view.untyped_storage().data_ptr() == storage
        for i, view in enumerate(views)
    ):
        return first.as_strided((len(views) * len(first), *first.shape[1:]), first.stride())
    return torch.cat(list(views))
