"""Batches of views: the images are gathered, moved and augmented a whole batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skssl.augment.augmentation import Augmentation
from skssl.augment.tensors import to_float
from skssl.augment.transforms import Transform, View
from skssl.images import Images
from skssl.images.base import Size
from skssl.images.clips import Clips
from skssl.images.photographs import Crops, Photographs, Plan, still_boxes, to_device
from skssl.nn.distributed import local_rows, n_processes
from skssl.training.objective import Batch
from skssl.training.transformed import TransformedImages


class ImageLoader:
    """Batches of views: the images are gathered, moved and augmented a whole batch at a time.

    Parameters
    ----------
    images : Images
        The training images, on the device. On the CPU if `transforms_images` is true of the augmentations.
    batch_size : int
        Images per batch, of all processes together. The last, shorter batch of an epoch is dropped unless it is the
        only one.
    augmentations : sequence of Augmentation or Transform
        One for each view.
    device : torch.device
        The device on which views are made.
    labels : int64 Tensor of shape (n_samples,), optional
        The images' classes, on the device.
    compile : bool, default=False
        Whether ``torch.compile`` makes the views; see `Augmentation`.
    reads_images : bool, default=True
        Whether a hook reads `Batch.images`. If not, photographs are not resized for it.
    n_jobs : int, optional
        The number of worker processes in which images are transformed one by one.
    choose_frames : callable, optional
        Chooses the frames of clips that become views, see `Hooks.choose_frames`. Only clips need it.
    reads_corners : bool, default=False
        Whether a hook reads `Batch.corners`. All augmentations must have `with_corners` then.

    Attributes
    ----------
    bare : bool
        Whether batches have no views, because the step makes them.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        augmentations: Sequence[View],
        device: torch.device,
        labels: Tensor | None = None,
        compile: bool = False,
        reads_images: bool = True,
        n_jobs: int | None = None,
        choose_frames: Callable[[Tensor, torch.Generator], Tensor] | None = None,
        reads_corners: bool = False,
    ) -> None:
        self.choose_frames = choose_frames
        self.images, self.augmentations, self.device, self.labels = images, augmentations, device, labels
        self.compile, self.reads_images, self.reads_corners = compile, reads_images, reads_corners
        self.bare = False
        self._by_image = {
            place: augment for place, augment in enumerate(augmentations) if transforms_images([augment])
        }  # the transforms that are given one image at a time, by the places of their views
        self._transformed: TransformedImages | None = None
        if self._by_image:
            self._transformed = TransformedImages(images, list(self._by_image.values()), n_jobs).to(device)
        cropped = isinstance(images, Photographs)
        self._rest = {augment: augment.after_crop() for augment in self._places()} if cropped else {}
        n = n_processes()
        if batch_size % n:
            raise ValueError(
                f"The 'batch_size' parameter counts the images of all processes together, so it must be a multiple of "
                f"their number, {n}. Got {batch_size}."
            )
        if len(images) < n:
            raise ValueError(f"X must have at least one image for each of the {n} processes. Got {len(images)} images.")
        if len(images) < 2:
            raise ValueError("X must have at least 2 images to train on, since BatchNorm compares them. Got 1 image.")
        self.batch_size = int(min(batch_size, len(images) // n * n))  # NumPy's integers, too
        for augment in augmentations:
            if augment.saliency is not None and len(augment.saliency) != len(images):
                raise ValueError(
                    "The 'saliency' parameter of Augmentation must have one map for each training image: expected "
                    f"{len(images)}, got {len(augment.saliency)}."
                )

    def __len__(self) -> int:
        return len(self.images) // self.batch_size

    def epoch(
        self, order: torch.Generator, draws: torch.Generator, chosen: Tensor | None = None, done: int = 0
    ) -> Iterator[Batch]:
        """Iterate over the images once in random order, or over those that a method has chosen.

        Each process has its share of every batch. The boxes of photographs follow from the seed of `order` and the
        number of the batch.

        Parameters
        ----------
        order : torch.Generator
            The generator of the order, on the CPU and in the same state in every process.
        draws : torch.Generator
            The generator of the augmentation, on the device.
        chosen : int64 Tensor of shape (n_samples,), optional
            Indices of the images, in their order.
        done : int, default=0
            The number of batches to skip at the beginning.

        Yields
        ------
        Batch
            The next batch.
        """
        seed = order.initial_seed()
        permutation = torch.randperm(len(self.images), generator=order) if chosen is None else chosen.cpu()
        indices = permutation[: len(self) * self.batch_size].split(self.batch_size)
        if self._transformed is not None:
            yield from self._transform(self._transformed, indices, seed, draws, done)
            return
        if isinstance(self.images, Photographs):
            yield from self._cropped(self.images, indices, seed, draws, done)
            return
        shares = [local_rows(index) for index in indices[done:]]
        for index, images in self.images.batches(shares):  # by numbers on the host, where a data set needs them
            index = index.to(self.device, non_blocking=True)
            labels = None if self.labels is None else self.labels.index_select(0, index)
            made = {name: rows.index_select(0, index) for name, rows in self.images.extra.items()}
            if isinstance(self.images, Clips):
                yield self._of_clips(images, index, labels, draws, made)
                continue
            views, corners = ([], None) if self.bare else self.views(images, draws, index)
            yield Batch(images, views, index, labels, draws, made, corners)

    def _of_clips(
        self, clips: Tensor, index: Tensor, labels: Tensor | None, draws: torch.Generator, made: dict[str, Tensor]
    ) -> Batch:
        """Return a batch of clips (n, t, c, h, w), whose views are those of the frames that the method chooses."""
        assert self.choose_frames is not None
        made["frames"] = self.choose_frames(clips, draws)  # (n, n_views)
        chosen = clips[torch.arange(len(clips), device=clips.device), made["frames"].T]  # (n_views, n, c, h, w)
        views, corners = self._in_places(
            self._augment(augment, torch.cat([chosen[place] for place in places]), draws, index, n_frames=len(places))
            for augment, places in self._places().items()
        )
        return Batch(chosen[0], views, index, labels, draws, made, corners)

    def _cropped(
        self, images: Photographs, indices: Sequence[Tensor], seed: int, draws: torch.Generator, done: int
    ) -> Iterator[Batch]:
        """Iterate over batches of photographs, which are cropped where they are decoded."""
        plans = ((local_rows(index), self._plan(index, seed, k)) for k, index in enumerate(indices) if k >= done)
        for index, made, boxes in images.crops(plans):
            index = index.to(self.device, non_blocking=True)
            labels = None if self.labels is None else self.labels.index_select(0, index)
            views, corners = self._finish(made, draws, boxes)
            yield _batch(made[-1] if self._reads_whole else None, views, index, labels, draws, corners)

    def _transform(
        self,
        transformed: TransformedImages,
        indices: Sequence[Tensor],
        seed: int,
        draws: torch.Generator,
        done: int,
    ) -> Iterator[Batch]:
        """Iterate over batches with views that are made image by image."""
        photographs = isinstance(self.images, Photographs)
        requests = (
            (
                local_rows(index),
                self._plan(index, seed, k) if photographs else None,
                [(seed, k, row) for row in local_rows(torch.arange(len(index))).tolist()],
            )
            for k, index in enumerate(indices)
            if k >= done
        )
        for index, on_host, by_image in transformed.transformed(requests):
            index = index.to(self.device, non_blocking=True)
            labels = None if self.labels is None else self.labels.index_select(0, index)
            made = to_device(on_host, self.device)
            if photographs:
                views, _ = self._finish(made, draws)
                images = made[-1] if self._reads_whole else None
            else:
                images = made[0]
                views, _ = self.views(images, draws, index)
            own = to_device([view[None] for view in by_image], self.device)
            for place, view in zip(self._by_image, own, strict=True):
                views[place] = to_float(view)
            yield _batch(images, views, index, labels, draws)

    def _plan(self, index: Tensor, seed: int, k: int) -> Plan:
        """Return the crops of batch k, of photographs at the given indices; see `_finish`."""
        kinds: list[tuple[Any, int]] = [(augment.for_images(index), len(at)) for augment, at in self._places().items()]
        kinds += [(None, 1)] if self._reads_whole else []
        rows, size = local_rows(torch.arange(len(index))), self.images.shape[1:]
        return partial(crop_batch, seeds=(seed, k), views=kinds, size=size, n=self.batch_size, rows=rows)

    @property
    def _reads_whole(self) -> bool:
        """Whether photographs are resized whole."""
        return self.reads_images or not self.augmentations

    def _finish(
        self, made: Sequence[Tensor], draws: torch.Generator, boxes: Sequence[Tensor] = ()
    ) -> tuple[list[Tensor], list[Tensor] | None]:
        """Return the views of photographs from their crops, and their corners from the boxes."""
        parts = []
        for k, (augment, crops) in enumerate(zip(self._places(), made, strict=False)):
            views, corners = self._augment(self._rest[augment], crops, draws)
            parts.append((views, corners if corners is None else corners_in_pictures(corners, crops, boxes[k])))
        return self._in_places(parts)

    def _augment(
        self, augment: Any, images: Tensor, draws: torch.Generator, index: Tensor | None = None, **how: int
    ) -> tuple[Tensor, Tensor | None]:
        """Return the views of images by an augmentation, and their corners if a hook reads them."""
        if self.reads_corners:
            return augment.with_corners(images, draws, index, compile=self.compile, **how)
        return augment(images, draws, index, compile=self.compile, **how), None

    def _in_places(self, made: Iterable[tuple[Tensor, Tensor | None]]) -> tuple[list[Any], list[Any] | None]:
        """Return the views and the corners that each augmentation made in the places of the views."""
        views: list[Any] = [None] * len(self.augmentations)
        corners = [*views] if self.reads_corners else None
        for places, parts in zip(self._places().values(), made, strict=True):
            for placed, part in zip((views, corners), parts, strict=True):
                if placed is not None and part is not None:
                    for place, of in zip(places, part.chunk(len(places)), strict=True):
                        placed[place] = of
        return views, corners

    def _places(self) -> dict[Any, list[int]]:
        """Return the places among the views of each augmentation that runs on the device."""
        return {
            augment: [place for place, other in enumerate(self.augmentations) if other is augment]
            for place, augment in enumerate(self.augmentations)
            if place not in self._by_image
        }

    def close(self) -> None:
        """Stop the worker processes, if there are any."""
        if self._transformed is not None:
            self._transformed.close()

    def views(self, images: Tensor, draws: torch.Generator, index: Tensor) -> tuple[list[Tensor], list[Tensor] | None]:
        """Make the views of some images, and return their corners if a hook reads them, see `Batch`."""
        return self._in_places(
            self._augment(augment, images, draws, index, n_views=len(places))
            for augment, places in self._places().items()
        )


def _batch(
    images: Tensor | None,
    views: list[Tensor],
    index: Tensor,
    labels: Tensor | None,
    draws: torch.Generator,
    corners: list[Tensor] | None = None,
) -> Batch:
    """Return a batch; without images, reading them raises an error."""
    batch = Batch(views[0] if images is None else images, views, index, labels, draws, corners=corners)
    if images is None:
        del batch.images
    return batch


def corners_in_pictures(corners: Tensor, crops: Tensor, boxes: Tensor) -> Tensor:
    """Return where the corners of views lie in pictures, from where they lie in crops of these pictures.

    Parameters
    ----------
    corners : Tensor of shape (v * b, 2, 2, 2)
        The corners in the crops, see `Augmentation.with_corners`.
    crops : Tensor of shape (v * b, c, height, width)
        The crops.
    boxes : float64 Tensor of shape (v, b, 4)
        Top, left, height and width of the crops in the pictures, on any device.

    Returns
    -------
    Tensor of shape (v * b, 2, 2, 2)
        The corners in the pictures, in their own pixels.

    Examples
    --------
    >>> whole = torch.tensor([[[[0.0, 0.0], [4.0, 4.0]], [[0.0, 4.0], [0.0, 4.0]]]])
    >>> corners_in_pictures(whole, torch.zeros(1, 3, 4, 4), torch.tensor([[[10.0, 20.0, 8.0, 2.0]]]))[0, :, 1, 1]
    tensor([18., 22.])
    """
    corner, sides = boxes.flatten(0, 1).to(crops.device, corners.dtype, non_blocking=True).split(2, 1)
    height, width = crops.shape[2:]
    shares = torch.stack((corners[:, 0] / height, corners[:, 1] / width), 1)  # without a tensor of Python numbers
    return torch.addcmul(corner[..., None, None], sides[..., None, None], shares)


def transforms_images(augmentations: Sequence[View]) -> bool:
    """Return whether any of some augmentations is a transform that is given one image at a time."""
    return any(isinstance(augment, Transform) and not augment.by_batch for augment in augmentations)


def crop_batch(
    sizes: Tensor,
    seeds: tuple[int, int],
    views: Sequence[tuple[Augmentation | None, int]],
    size: Size,
    n: int,
    rows: Tensor,
) -> list[Crops]:
    """Draw the crops of one process's share of a batch of photographs.

    The random numbers are drawn for the whole batch, so that the crops do not depend on the number of processes.

    Parameters
    ----------
    sizes : int64 Tensor of shape (m, 2)
        Heights and widths of the pictures in the share.
    seeds : (int, int)
        The seed of the epoch, and the number of the batch.
    views : sequence of (Augmentation or None, int)
        The augmentations, and the number of views by each; saliency maps are those of the batch. None takes the whole
        picture.
    size : (int, int)
        Height and width of views for which no other size is asked.
    n : int
        The number of pictures in the batch of all processes.
    rows : int64 Tensor of shape (m,)
        The places of the share in the batch.

    Returns
    -------
    list of Crops
        One for each entry of `views`.
    """
    generator, plan = batch_generator(*seeds), []
    of_all = sizes.new_ones(n, 2).index_copy(0, rows, sizes)  # the crops of other shares are not used
    for augment, n_views in views:
        if augment is None:
            crops = Crops(still_boxes(sizes, size, None)[None], size)
        else:
            crops = augment.draw_crops(of_all, size, generator, torch.arange(n), n_views)
            crops = crops._replace(boxes=crops.boxes[:, rows])
        plan.append(crops)
    return plan


def batch_generator(seed: int, batch: int) -> torch.Generator:
    """Return the generator of the crops of photographs in a batch.

    Parameters
    ----------
    seed : int
        The seed of the epoch.
    batch : int
        The number of the batch in the epoch.

    Returns
    -------
    torch.Generator
        A generator on the CPU, the same in every process.
    """
    return torch.Generator().manual_seed(int(np.random.SeedSequence((seed, batch)).generate_state(1)[0]))
