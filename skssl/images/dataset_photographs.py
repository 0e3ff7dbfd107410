"""Photographs in a data set, of which crops are cut where its items are fetched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from skssl.images.base import Scale, Size, describe
from skssl.images.dataset_items import AT_ONCE, DatasetItems, image_in, is_picture
from skssl.images.image_files import channels_for, decode_image, inspect_image
from skssl.images.photographs import Crops, Cut, Photographs, Plan, cut_picture, to_device, whole_picture


class DatasetPhotographs(DatasetItems, Photographs):
    """Items of a data set that are pictures in sizes of their own: PIL images, paths or encoded images.

    Their sizes are not known before they are fetched.

    Parameters
    ----------
    dataset, skip, n_jobs
        See `DatasetItems`.
    channels : int
        1 (grey), 3 (RGB) or 4 (RGBA).
    size : (int, int)
        Height and width of the still views.
    must_be_gray : bool, default=False
        Whether pictures in colour are refused.
    deep : bool, default=False
        Whether the pictures hold more than 8 bits a value, and are read as float32.
    scale : (float, float), default=None
        See `Images`. None takes the range of `deep` pictures, for which the data set is read once.
    """

    def __init__(
        self,
        dataset: Any,
        channels: int,
        size: Size,
        skip: bool = False,
        n_jobs: int | None = None,
        must_be_gray: bool = False,
        deep: bool = False,
        scale: Scale | None = None,
    ) -> None:
        super().__init__(dataset, skip, n_jobs)
        self.shape, self._must_be_gray = (channels, *size), must_be_gray
        self.scale = (scale or self._value_range()) if deep else None

    def crops(self, plans: Iterable[tuple[Tensor, Plan]]) -> Iterator[Cut]:
        """Cut boxes out of pictures, batch by batch, see `Photographs.crops`.

        With worker processes, plans are pickled. The boxes of a picture that replaces a bad one are those for its size.
        """
        for index, (made, boxes) in self._batches(plans):
            yield index, to_device(made, self._device), boxes

    def read_crops(self, index: Tensor, plan: Plan) -> list[Tensor]:
        """Cut boxes out of the pictures of one batch in this process."""
        return to_device(self._make((index.cpu(), plan))[1][0], self._device)

    def pictures(self, index: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Read pictures as they were given, see `Images.pictures`."""
        given = index.tolist()
        found, pictures = self._read_items(given, self._fetch(given), self._read_picture)
        return torch.tensor(found), pictures

    def _read_picture(self, item: Any, i: int) -> Tensor:
        """Return a whole picture (c, h, w)."""
        name, image, mode, _ = self._read_item(item, i)
        self._check_gray(name, mode)
        return whole_picture(image, name, self.shape[0], self.scale)

    def _check_gray(self, name: str, mode: str) -> None:
        """Refuse a picture in colour if all must be grey."""
        if self._must_be_gray and channels_for([mode]) > 1:
            raise ValueError(
                f"{name} is in colour, but all items that were inspected at first are grey. Give "
                "image_shape=(h, w, 3) to read all in colour, or (h, w, 1) to read all in grey."
            )

    def _read_item(self, item: Any, i: int) -> tuple[str, Any, str, Size]:
        """Return the name of an item in messages, its picture, and the picture's mode and size."""
        name, image = f"Item {i} of the data set X", image_in(item)
        if not is_picture(image):
            raise TypeError(
                f"{name} is {describe(item)}, but the items before are PIL images, paths or the bytes of image files. "
                "Return items of one kind."
            )
        return name, image, *inspect_image(image, name)

    def _read_values(self, item: Any, i: int) -> Tensor:
        """Return the values of a picture of more than 8 bits."""
        name, image, *_ = self._read_item(item, i)
        return torch.from_numpy(decode_image(image, name, 1, deep=True))

    def _make(self, request: tuple[Tensor, Plan]) -> tuple[list[int], tuple[list[Tensor], list[Tensor]]]:
        """Cut the crops of a batch; return the indices of the pictures, the crops (v, b, h, w, c), and their boxes."""
        index, plan = request
        sizes = torch.ones(len(index), 2, dtype=torch.int64)
        found: list[int] = []
        made: list[Tensor] = []
        for rows in torch.arange(len(index)).split(AT_ONCE):
            given = index[rows].tolist()
            items = self._fetch(given)
            while True:
                numbers, pictures = self._read_items(given, items, self._read_item)
                sizes[rows] = torch.tensor([size for *_, size in pictures])
                crops = plan(sizes)  # the boxes of these rows; those of others do not count yet
                made = made or [
                    torch.empty((*of.boxes.shape[:2], *of.size, self.shape[0]), dtype=self._dtype) for of in crops
                ]
                if self._cut(rows.tolist(), numbers, pictures, crops, made):
                    break
            found += numbers
        return found, (made, [of.boxes for of in crops])

    def _cut(
        self,
        rows: Sequence[int],
        numbers: Sequence[int],
        pictures: Sequence[tuple[str, Any, str, Size]],
        crops: Sequence[Crops],
        made: Sequence[Tensor],
    ) -> bool:
        """Cut the crops of some rows of a batch; return False if a picture is bad, which is then known."""
        for row, i, (name, image, mode, size) in zip(rows, numbers, pictures, strict=True):
            self._check_gray(name, mode)
            boxes = [of.boxes[:, row].numpy() for of in crops]
            try:
                cut_picture(
                    image, name, self.shape[0], size, crops, boxes, [of[:, row].numpy() for of in made], self.scale
                )
            except ValueError as error:
                if not self._skip:
                    raise
                self._bad[self._items[i]] = str(error)
                return False
        return True
