"""Views of images that are transformed one by one, in worker processes or in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from skssl.augment.transforms import Transform, transform_images
from skssl.images import Images
from skssl.images.dataset_items import DatasetItems
from skssl.images.photographs import Plan, cut_boxes

#: A batch: the indices of its images; the crops of photographs that are cut as well, or None to get the images
#: themselves; and the seeds of each image.
Request = tuple[Tensor, Plan | None, Sequence[tuple[int, ...]]]


class TransformedImages(DatasetItems):
    """Images that are transformed one by one.

    Parameters
    ----------
    images : Images
        The images, on the CPU.
    transforms : sequence of Transform
        One for each view.
    n_jobs : int or None
        Number of worker processes. None makes the views in this process.
    """

    def __init__(self, images: Images, transforms: Sequence[Transform], n_jobs: int | None) -> None:
        super().__init__(images, False, n_jobs)
        self.shape, self.scale, self.transforms = images.shape, images.scale, transforms
        self._bad = getattr(images, "_bad", self._bad)

    def read(self, index: Tensor) -> Tensor:
        """Read the images at the given indices, without a transform."""
        return self._dataset.read(index)

    def transformed(self, requests: Iterable[Request]) -> Iterator[tuple[Tensor, list[Tensor], list[Tensor]]]:
        """Make the views of batches in turn.

        Parameters
        ----------
        requests : iterable of Request
            The batches. With worker processes, they are pickled, and read a few batches ahead.

        Yields
        ------
        index : int64 Tensor of shape (b,)
            The indices of the images. They differ from the given ones where an image that cannot be read was replaced
            by the next one.
        made : list of uint8 or float32 Tensors of shape (v, b, h, w, c)
            The crops for each entry of the plan. Without a plan, the images (1, b, h, w, c).
        views : list of uint8 or float32 Tensors of shape (b, height, width, c)
            One for each transform.
        """
        for index, (made, views) in self._batches(requests):
            yield index, made, views

    def _make(self, request: Request) -> tuple[list[int], tuple[list[Tensor], list[Tensor]]]:
        """Return the indices of the images in a batch, what is cut out of them, and their views."""
        index, plan, seeds = request
        found, pictures = self._dataset.pictures(index)
        if plan is None:
            made = [torch.stack([picture.permute(1, 2, 0) for picture in pictures])[None]]
        else:
            made = self._cut(pictures, plan)
        return found.tolist(), (made, transform_images(self.transforms, pictures, seeds))

    def _cut(self, pictures: Sequence[Tensor], plan: Plan) -> list[Tensor]:
        """Cut boxes out of pictures."""
        crops = plan(torch.tensor([picture.shape[1:] for picture in pictures]))
        made = [
            torch.empty((*of.boxes.shape[:2], *of.size, self._dataset.shape[0]), dtype=self._dataset._dtype)
            for of in crops
        ]
        for row, picture in enumerate(pictures):
            boxes = [of.boxes[:, row].numpy() for of in crops]
            cut_boxes(picture.permute(1, 2, 0).numpy(), crops, boxes, [of[:, row].numpy() for of in made])
        return made

    def _read_values(self, item: Any, i: int) -> Tensor:
        """Return an image as it was given."""
        return self._dataset.pictures(torch.tensor([i]))[1][0]
