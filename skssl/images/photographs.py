"""Photographs: pictures in sizes of their own, of which crops are cut where they are decoded."""

from __future__ import annotations

import io
import os
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from joblib import cpu_count
from torch import Tensor
from torch.nn.functional import interpolate

from skssl.errors import warn_of_bad
from skssl.images.base import Images, Scale, Size, is_pil_image, rescale
from skssl.images.image_files import ORIENTATION, decode_image, open_image, upright
from skssl.images.packed import PackedImage, pil_of

DEFAULT_SIDE = 224  # of the images that a network is given, where pictures differ in size
EVAL_RESIZE = 256 / 224  # the shorter side relative to that of the centre crop, as in the papers on ImageNet
# How many times as large as a crop its box in a JPEG decoded at reduced scale is at least. On photographs of 2400x2132
# pixels, 99.8% of the values of 64-pixel crops are then within one step of 255 of those from the full picture, and all
# within five. At 3 it is 98.7%, and fifteen.
DRAFT_MARGIN = 8
BATCHES_AHEAD = 2  # that are decoded while a step runs
#: The axes (height, width) of the upright picture that run against those of the file, by EXIF's orientation.
MIRRORED = {2: (False, True), 3: (True, True), 4: (True, False), 6: (False, True), 7: (True, True), 8: (True, False)}


class Crops(NamedTuple):
    """Boxes of pictures, and the size that they are resized to.

    Attributes
    ----------
    boxes : float64 Tensor of shape (v, b, 4)
        Top, left, height and width of v boxes in each of b pictures, in the pictures' own pixels.
    size : (int, int)
        Height and width of the crops.
    interpolation : {"bilinear", "bicubic"}
        The filter of the resizing, always with antialiasing.
    alone : bool
        True: a box is cut out and then resized, as torchvision's ``resized_crop`` does. False: the whole picture is
        resized and the box is then cut out, so that the filter reaches beyond the box.
    """

    boxes: Tensor
    size: Size
    interpolation: str = "bilinear"
    alone: bool = True


#: The crops of the b pictures in a batch, as a function of their heights and widths (b, 2), int64. The boxes of a
#: picture must depend on its own size alone.
Plan = Callable[[Tensor], Sequence[Crops]]

#: What `Photographs.crops` yields for each batch: indices, crops and boxes.
Cut = tuple[Tensor, list[Tensor], list[Tensor]]


class Photographs(Images):
    """Pictures in sizes of their own. `crops` cuts boxes out of them. `read` returns still views, all of one shape.

    Attributes
    ----------
    guessed : bool
        Whether the size of the still views is a default and not asked for.
    """

    guessed = False
    _still: tuple[float | None, str] = EVAL_RESIZE, "bilinear"

    @abstractmethod
    def crops(self, plans: Iterable[tuple[Tensor, Plan]]) -> Iterator[Cut]:
        """Cut boxes out of pictures, batch by batch. Each picture is decoded once for all its boxes, ahead of its use.

        Parameters
        ----------
        plans : iterable of (int64 Tensor of shape (b,), Plan)
            The indices of each batch, on the CPU, and its crops. The iterable is read a few batches ahead.

        Yields
        ------
        index : int64 Tensor of shape (b,)
            The indices of the pictures. They differ from the given ones where a picture that cannot be decoded was
            replaced by the next one.
        crops : list of uint8 or float32 Tensors of shape (v * b, c, height, width)
            One for each entry of the plan, on the images' device: the first box of each picture, then the second of
            each, and so on. Channels are last in memory.
        boxes : list of float64 Tensors of shape (v, b, 4)
            The boxes that were cut, for each entry of the plan, on the CPU.

        Raises
        ------
        ValueError
            If a picture cannot be decoded, unless such pictures are skipped.
        """

    def read_crops(self, index: Tensor, plan: Plan) -> list[Tensor]:
        """Cut boxes out of the pictures of one batch, as `crops` does."""
        ((_, made, _),) = self.crops([(index.cpu(), plan)])
        return made

    def read(self, index: Tensor) -> Tensor:
        """Return the still views of the pictures at the given indices."""
        return self.read_crops(index, self._still_plan())[0]

    def batches(self, indices: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Return the still views of one batch after the other."""
        plan = self._still_plan()
        for index, (images,), _ in self.crops((index.cpu(), plan) for index in indices):
            yield index, images

    def still(self, size: Size, resize: float | None, interpolation: str) -> Self:
        """Return the same images with still views of another size, see `Images.still`."""
        changed = copy(self)
        changed.shape, changed._still = (self.shape[0], *size), (resize, interpolation)
        return changed

    def _still_plan(self) -> Plan:
        """Return the plan of the still views."""
        resize, interpolation = self._still
        return partial(still_crops, size=self.shape[1:], resize=resize, interpolation=interpolation)


class FilePhotographs(Photographs):
    """Image files, encoded images and PIL images in sizes of their own, decoded in threads whenever they are needed.

    Parameters
    ----------
    items : sequence of str, path, bytes or PIL image
        The pictures.
    name : callable
        Returns the name of a picture in messages from its index.
    sizes : int64 Tensor of shape (n, 2)
        Their heights and widths, upright by their EXIF data.
    channels : int
        1 (grey), 3 (RGB) or 4 (RGBA).
    size : (int, int)
        Height and width of the still views.
    skip : bool
        Whether a picture that cannot be decoded is replaced by the next one that can.
    n_jobs : int or None
        Number of threads. None and -1 use one for each core. The crops do not depend on it.
    scale : (float, float), default=None
        The values that are mapped to 0 and 1, if the pictures hold more than 8 bits a value and crops are floats.

    Attributes
    ----------
    sizes : int64 Tensor of shape (n, 2)
        The pictures' heights and widths.
    """

    def __init__(
        self,
        items: Sequence[Any],
        name: Callable[[int], str],
        sizes: Tensor,
        channels: int,
        size: Size,
        skip: bool = False,
        n_jobs: int | None = None,
        scale: Scale | None = None,
    ) -> None:
        self.shape, self.scale, self.sizes = (channels, *size), scale, sizes
        self._items, self._name, self._skip = items, name, skip
        self._index = torch.arange(len(items))
        n_jobs = -1 if n_jobs is None else n_jobs
        self._n_jobs = n_jobs if n_jobs > 0 else max(1, cpu_count() + 1 + n_jobs)
        self._device = torch.device("cpu")
        self._bad: dict[int, str] = {}  # why pictures cannot be decoded, by index among the items

    def __len__(self) -> int:
        return len(self._index)

    def crops(self, plans: Iterable[tuple[Tensor, Plan]]) -> Iterator[Cut]:
        """Cut boxes out of pictures, batch by batch, see `Photographs.crops`.

        The boxes of a picture that replaces a bad one have the same place, relative to its height and width.
        """
        n_bad, pool = len(self._bad), ThreadPoolExecutor(self._n_jobs, "skssl-decode")
        waiting: deque[tuple[list[Future[list[int]]], list[Tensor], list[Tensor]]] = deque()
        try:
            for index, plan in plans:
                waiting.append(self._submit(pool, index, plan(self.sizes[index])))
                if len(waiting) > max(BATCHES_AHEAD, 4 * self._n_jobs // max(1, len(index))):
                    yield self._finish(*waiting.popleft())
            while waiting:
                yield self._finish(*waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        if len(self._bad) > n_bad:
            warn_of_bad(self._bad, len(self), "replaced by the next readable ones")

    def pictures(self, index: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Read pictures as they were given, see `Images.pictures`."""
        made: list[Tensor] = []

        def decode(j: int, item: int) -> None:
            made.append(whole_picture(self._items[item], self._name(item), self.shape[0], self.scale))

        return torch.tensor([self._use_or_next(i, decode) for i in index.tolist()]), made

    def to(self, device: torch.device | str) -> FilePhotographs:
        """Return the same images, whose batches are on another device."""
        moved = copy(self)
        moved._device = torch.device(device)
        return moved

    def take(self, index: Tensor) -> FilePhotographs:
        """Return a subset of the images without reading them."""
        taken, index = copy(self), index.cpu()
        taken._index, taken.sizes, taken.kept = self._index[index], self.sizes[index], None
        return taken

    def contents(self, i: int, most: int) -> bytes:
        """Return what tells a picture from others without decoding it.

        Parameters
        ----------
        i : int
            The index of the picture.
        most : int
            The number of bytes that are read at most.

        Returns
        -------
        bytes
            The size of the file, and bytes from its middle. Of a PIL image, those of its pixels.
        """
        item = int(self._index[i])
        picture = self._items[item]
        if is_pil_image(picture):
            picture = decode_image(picture, self._name(item), self.shape[0], deep=self.scale is not None).tobytes()
        elif isinstance(picture, PackedImage):
            picture = picture.data().reshape(-1)
        if isinstance(picture, (str, os.PathLike)):
            with open(picture, "rb") as file:
                n_bytes = os.fstat(file.fileno()).st_size
                file.seek(max(0, (n_bytes - most) // 2))
                part = file.read(most)
        else:
            n_bytes = len(picture)
            start = max(0, (n_bytes - most) // 2)
            part = bytes(picture[start : start + most])
        return n_bytes.to_bytes(8, "little") + part

    def _submit(
        self, pool: ThreadPoolExecutor, index: Tensor, plan: Sequence[Crops]
    ) -> tuple[list[Future[list[int]]], list[Tensor], list[Tensor]]:
        """Let threads decode a batch; return their futures, the memory (v, b, h, w, c) of the crops, and the boxes."""
        how: Any = {"dtype": self._dtype, "pin_memory": self._device.type == "cuda"}
        made = [torch.empty((*crops.boxes.shape[:2], *crops.size, self.shape[0]), **how) for crops in plan]
        own = [crops.boxes.clone() for crops in plan]  # `_cut_or_next` changes them
        boxes, outs = [of.numpy() for of in own], [crops.numpy() for crops in made]
        given = index.tolist()

        def work(rows: range) -> list[int]:
            return [
                self._cut_or_next(given[k], plan, [box[:, k] for box in boxes], [out[:, k] for out in outs])
                for k in rows
            ]

        step = max(1, len(given) // (4 * self._n_jobs))
        parts = [range(start, min(start + step, len(given))) for start in range(0, len(given), step)]
        return [pool.submit(work, rows) for rows in parts], made, own

    def _finish(self, futures: Sequence[Future[list[int]]], made: Sequence[Tensor], boxes: list[Tensor]) -> Cut:
        """Wait for a batch, and move its crops to the device."""
        found = torch.tensor([i for future in futures for i in future.result()], dtype=torch.int64)
        return found, to_device(made, self._device), boxes

    def _cut_or_next(self, i: int, plan: Sequence[Crops], boxes: list[np.ndarray], outs: list[np.ndarray]) -> int:
        """Cut the boxes out of a picture, or of the next one that can be decoded; return its index.

        The boxes become those of the picture that was decoded.
        """

        def own_boxes(j: int) -> list[np.ndarray]:
            ratio = np.tile((self.sizes[j] / self.sizes[i]).numpy(), 2)
            return boxes if j == i else [box * ratio for box in boxes]

        def cut(j: int, item: int) -> None:
            how = self._name(item), self.shape[0], self.sizes[j].tolist(), plan, own_boxes(j), outs, self.scale
            cut_picture(self._items[item], *how)

        used = self._use_or_next(i, cut)
        if used != i:
            for box, own in zip(boxes, own_boxes(used), strict=True):
                box[:] = own
        return used

    def _use_or_next(self, i: int, use: Callable[[int, int], None]) -> int:
        """Call a function with the indices of a picture and its item, or those of the next one that can be decoded."""
        n = len(self)
        for j in (k % n for k in range(i, i + n)):
            item = int(self._index[j])
            if item not in self._bad:
                try:
                    use(j, item)
                    return j
                except ValueError as error:
                    if not self._skip:
                        raise
                    self._bad[item] = str(error)
        raise ValueError(f"None of the {n} images in X can be decoded. The first error: {self._bad[min(self._bad)]}")


def cut_picture(
    picture: Any,
    name: str,
    channels: int,
    size: Sequence[int],
    plan: Sequence[Crops],
    boxes: Sequence[np.ndarray],
    outs: Sequence[np.ndarray],
    scale: Scale | None = None,
) -> None:
    """Decode a picture once, and cut boxes out of it.

    Parameters
    ----------
    picture : str, path, bytes, file object, PIL image or PackedImage
        The picture.
    name : str
        Its name in messages.
    channels : int
        1 (grey), 3 (RGB) or 4 (RGBA).
    size : sequence of int
        The height and width that were read before.
    plan : sequence of Crops
        How boxes are resized.
    boxes : sequence of float64 ndarrays of shape (v, 4)
        The boxes of this picture, for each entry of the plan.
    outs : sequence of uint8 or float32 ndarrays of shape (v, height, width, channels)
        Receive the crops.
    scale : (float, float), default=None
        The values that are mapped to 0 and 1, if the crops are floats.

    Raises
    ------
    ValueError
        If the picture cannot be decoded, or has another size.
    """
    if isinstance(picture, PackedImage) and picture.pack.kind == "pixels":
        pixels = picture.data()
        if pixels.shape[2] == channels or (pixels.shape[2], channels) == (1, 3):  # grey crops are repeated
            cut_boxes(pixels, plan, boxes, outs)
            return
    with open_image(picture, name) as pil:
        divisor = _draft(pil, plan, boxes)
        mirrored = MIRRORED.get(pil.getexif().get(ORIENTATION, 1), (False, False))
        pil = upright(pil, channels, scale is not None)
        if (pil.height, pil.width) != tuple(-(-side // divisor) for side in size):
            raise ValueError(f"it has changed since its size was read. Expected {tuple(size)} pixels.")
        # A decoded pixel is a square of `divisor` pixels. Where sides are no multiple, the last row and column extend
        # beyond the picture, and these are the first ones of mirrored axes.
        beyond = [pil.height * divisor - size[0], pil.width * divisor - size[1]]
        moved = np.array([extent * axis for extent, axis in zip(beyond, mirrored, strict=True)] + [0, 0])
        cut_boxes(pil, plan, [(of + moved) / divisor for of in boxes], outs)
        if scale is not None:
            for crops, out in zip(plan, outs, strict=True):
                rescale(out, scale)
                if crops.interpolation == "bicubic":  # which overshoots; uint8 crops end at 0 and 255, too
                    out.clip(0, 1, out)


def whole_picture(picture: Any, name: str, channels: int, scale: Scale | None = None) -> Tensor:
    """Decode a whole picture.

    Parameters
    ----------
    picture, name, channels, scale
        As for `cut_picture`.

    Returns
    -------
    uint8 or float32 Tensor of shape (c, h, w)
        The picture. Floats are mapped to [0, 1].

    Raises
    ------
    ValueError
        If the picture cannot be decoded.
    """
    pixels = torch.from_numpy(decode_image(picture, name, channels, deep=scale is not None)).permute(2, 0, 1)
    return pixels if scale is None else rescale(pixels, scale)


def cut_boxes(picture: Any, plan: Sequence[Crops], boxes: Sequence[np.ndarray], outs: Sequence[np.ndarray]) -> None:
    """Cut boxes out of a decoded picture and resize them.

    Parameters
    ----------
    picture : PIL image, or uint8 ndarray of shape (h, w, c)
        The pixels. The mode "F" gives crops of floats.
    plan, boxes, outs
        As for `cut_picture`. The boxes are in the pixels of `picture`.
    """
    pil: Any = None if isinstance(picture, np.ndarray) else picture
    pixels: Any = picture if pil is None else None
    for crops, of, out in zip(plan, boxes, outs, strict=True):
        for box, place in zip(of, out, strict=True):
            if crops.alone and (box == box.astype(int)).all():
                pixels = np.atleast_3d(np.asarray(pil)) if pixels is None else pixels
                place[:] = resized_pixels(pixels, box.astype(int), crops)
            else:
                pil = pil_of(pixels) if pil is None else pil
                place[:] = np.atleast_3d(np.asarray(resized_box(pil, box, crops)))


def _draft(pil: Any, plan: Sequence[Crops], boxes: Sequence[np.ndarray]) -> int:
    """Let a JPEG be decoded at the lowest scale that suits all its crops; return the divisor of its sides."""
    if pil.format != "JPEG" or getattr(pil, "fp", None) is None:  # None if it has been decoded already
        return 1
    ratios = [
        of[:, 2:] / (DRAFT_MARGIN * np.array(crops.size)) for crops, of in zip(plan, boxes, strict=True) if len(of)
    ]
    wanted = min((float(ratio.min()) for ratio in ratios), default=1.0)
    if wanted < 2:
        return 1
    full, divisor = pil.size, next(s for s in (8, 4, 2) if s <= wanted)
    pil.draft(None, (full[0] // divisor, full[1] // divisor))
    return next((s for s in (2, 4, 8) if pil.size == tuple(-(-side // s) for side in full)), 1)


def resized_pixels(pixels: np.ndarray, box: np.ndarray, crops: Crops) -> np.ndarray:
    """Cut out a box of whole pixels and resize it, as torchvision does. This takes a third of Pillow's time.

    Parameters
    ----------
    pixels : uint8 or float32 ndarray of shape (h, w, c)
        The picture.
    box : int ndarray of shape (4,)
        Top, left, height and width.
    crops : Crops
        How it is resized.

    Returns
    -------
    uint8 or float32 ndarray of shape (height, width, c)
        The crop.
    """
    top, left, height, width = box
    cut = torch.from_numpy(pixels[top : top + height, left : left + width].copy()).permute(2, 0, 1)[None]
    return interpolate(cut, crops.size, mode=crops.interpolation, antialias=True)[0].permute(1, 2, 0).numpy()


def resized_box(pil: Any, box: np.ndarray, crops: Crops) -> Any:
    """Cut out a box and resize it by Pillow, whose boxes may have fractions of pixels.

    Parameters
    ----------
    pil : PIL.Image.Image
        The image.
    box : ndarray of shape (4,)
        Top, left, height and width.
    crops : Crops
        How it is resized.

    Returns
    -------
    PIL.Image.Image
        The crop.
    """
    from PIL import Image

    top, left = float(box[0]), float(box[1])
    bottom, right = min(top + float(box[2]), pil.height), min(left + float(box[3]), pil.width)
    if crops.alone:
        y, x = int(top), int(left)
        pil = pil.crop((x, y, int(np.ceil(right)), int(np.ceil(bottom))))
        top, left, bottom, right = top - y, left - x, bottom - y, right - x
    height, width = crops.size
    return pil.resize((width, height), Image.Resampling[crops.interpolation.upper()], (left, top, right, bottom))


def to_device(made: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Move the crops of a batch to a device.

    Parameters
    ----------
    made : sequence of uint8 Tensors of shape (v, b, height, width, c)
        The crops.
    device : torch.device
        The device.

    Returns
    -------
    list of uint8 Tensors of shape (v * b, c, height, width)
        The crops, with channels last in memory.
    """
    return [crops.flatten(0, 1).to(device, non_blocking=True).permute(0, 3, 1, 2) for crops in made]


def still_crops(sizes: Tensor, size: Size, resize: float | None, interpolation: str) -> list[Crops]:
    """Return the crops of still views, see `still_boxes`.

    Parameters
    ----------
    sizes, size, resize
        As for `still_boxes`.
    interpolation : {"bilinear", "bicubic"}
        The filter of the resizing.

    Returns
    -------
    list of one Crops
        One box of each picture.
    """
    return [Crops(still_boxes(sizes, size, resize)[None], size, interpolation, alone=False)]


def still_boxes(sizes: Tensor, size: Size, resize: float | None) -> Tensor:
    """Return the boxes of still views: pictures are resized by their shorter side, and the centre is cut out.

    Parameters
    ----------
    sizes : int64 Tensor of shape (n, 2)
        Heights and widths of the pictures.
    size : (int, int)
        Height and width of the views.
    resize : float or None
        The shorter side of the resized picture relative to that of the view. None takes the whole picture.

    Returns
    -------
    float64 Tensor of shape (n, 4)
        Top, left, height and width, in the pictures' own pixels.

    Examples
    --------
    >>> still_boxes(torch.tensor([[256, 320]]), (224, 224), 256 / 224)
    tensor([[ 16.,  48., 224., 224.]], dtype=torch.float64)
    """
    given, wanted = sizes.double(), torch.tensor(size, dtype=torch.float64)
    if resize is None:
        return torch.cat((torch.zeros_like(given), given), 1)
    enlarged = (wanted * resize).round()
    ratio = enlarged / given
    by = ratio.argmax(1, keepdim=True)  # the axis that limits the picture: its shorter side if views are square
    # As torchvision's Resize: one side is as asked for, and the longer one is rounded down.
    longer = (enlarged[by] * given / given.gather(1, by)).floor()
    resized = torch.where(torch.arange(2) == by, enlarged, longer).maximum(wanted)
    corner = ((resized - wanted) / 2).round()
    pixels = given / resized
    return torch.cat((corner * pixels, wanted * pixels), 1)


def default_size(sizes: Tensor) -> Size:
    """Return the height and width of what a network is given of pictures, unless they are asked for.

    Parameters
    ----------
    sizes : int64 Tensor of shape (n, 2)
        Heights and widths of the pictures.

    Returns
    -------
    (int, int)
        That of the pictures if all have one size, otherwise 224 or the median of their shorter sides if it is smaller.

    Examples
    --------
    >>> default_size(torch.tensor([[300, 400], [400, 300]])), default_size(torch.tensor([[70, 80], [70, 80]]))
    ((224, 224), (70, 80))
    """
    if bool((sizes == sizes[0]).all()):
        return int(sizes[0, 0]), int(sizes[0, 1])
    side = min(DEFAULT_SIDE, int(sizes.amin(1).median()))
    return side, side


def in_memory(item: Any) -> Any:
    """Return an open file as its bytes, and any other item unchanged, since threads read items in any order.

    Parameters
    ----------
    item : str, path, file object or PIL image
        The item.

    Returns
    -------
    str, path, bytes or PIL image
        The item.
    """
    if isinstance(item, io.BytesIO):
        return item.getvalue()
    if not hasattr(item, "read"):
        return item
    item.seek(0)
    return item.read()
