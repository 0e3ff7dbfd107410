"""Pictures, which are files and PIL images, as arrays."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from skssl.images.memory_maps import cache_folder, mapping_of, no_room

if TYPE_CHECKING:
    from PIL.Image import Image

Size = tuple[int, int]

IN_MEMORY = 2**30  # bytes that decoded files may take there
WAITING = 2**14  # pictures that wait for a thread
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's mode for a number of channels
_GRAY_MODES = ("1", "L", "LA", "La", "F", "I", "I;16", "I;16L", "I;16B", "I;16N")
_loading = Lock()


def is_pil_image(value: Any) -> bool:
    """Tell a PIL image, without importing Pillow.

    Parameters
    ----------
    value : object
        What may be one.

    Returns
    -------
    bool
        Whether it is.
    """
    return hasattr(value, "getbands") and hasattr(value, "convert")


def channels_of(modes: Collection[str]) -> int:
    """Choose the channels for pictures of some modes.

    Parameters
    ----------
    modes : collection of str
        Pillow's names.

    Returns
    -------
    int
        3, or 1 if all are grey.
    """
    return 1 if all(mode in _GRAY_MODES for mode in modes) else 3


def decode_images(
    pictures: Sequence[Any],
    name: Callable[[int], str],
    channels: int | None = None,
    size: Size | None = None,
    skipped: dict[int, str] | None = None,
) -> np.ndarray:
    """Decode files, file objects or PIL images in a few threads into one array.

    Files whose pixels would take more than a gigabyte are decoded once into a file that is mapped into memory, so that
    they may be more than the memory holds. It lies in the folder ``packed`` of the one that the environment variable
    ``SKSSL_CACHE`` names, by default ``~/.cache/skssl``, until you delete it. It is found again by the files' paths,
    sizes and times.

    Parameters
    ----------
    pictures : sequence of str, path, file object or PIL image
        What to decode.
    name : callable
        From a picture's number to how to call it in a message.
    channels : int, default=None
        1 (grey), 3 (RGB) or 4 (RGBA); by default 3, or 1 if all are grey.
    size : (int, int), default=None
        Height and width to bring all to; by default the size of all.
    skipped : dict of int to str, default=None
        Where the pictures that cannot be read are entered by their numbers, with what is wrong. What stands in their
        place in the array means nothing. By default they are refused.

    Returns
    -------
    ndarray of uint8, shape (n, h, w, channels)
        The images; a `numpy.memmap` that cannot be written to where they are kept on disk.

    Raises
    ------
    OSError
        If the disk has no room for them.
    ValueError
        If one cannot be read, or none, or if one has another size than the first although no `size` is given.
    """

    def unless_skipped(work: Callable[..., Any], i: int, *args: Any) -> Any:
        try:
            return work(pictures[i], name(i), *args)
        except ValueError as error:
            if skipped is None:
                raise
            skipped[i] = str(error)

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        if channels is None or size is None:
            modes, first = set(), None
            for i, found in enumerate(_in_threads(pool, partial(unless_skipped, inspect_image), len(pictures))):
                if found is not None:
                    modes.add(found[0])
                    first = first or found[1]
                    if size is None and found[1] != first:
                        raise ValueError(
                            f"{name(i)} has the height and width {found[1]}, but the first picture has {first}: "
                            "without image_shape=(h, w) all must have the same."
                        )
            _refuse_if_none(pictures, skipped)
            channels, size = channels or channels_of(modes), size or first
        shape = (len(pictures), *size, channels)  # type: ignore[misc]

        def decode(into: np.ndarray, delay: float) -> None:
            mapping = mapping_of(into)

            def fill(i: int) -> None:
                if not skipped or i not in skipped:
                    pixels = unless_skipped(decode_image, i, channels, size)
                    into[i] = 0 if pixels is None else pixels

            with tqdm(total=len(pictures), desc="Decoding", unit=" images", unit_scale=True, delay=delay) as bar:
                for i, _ in enumerate(_in_threads(pool, fill, len(pictures))):
                    if i % 32 == 31:
                        bar.update(32)
                        if mapping is not None:
                            mapping.touched(32 * into[0].nbytes)
                bar.update(len(pictures) % 32)
            _refuse_if_none(pictures, skipped)

        if math.prod(shape) > IN_MEMORY and all(isinstance(picture, (str, os.PathLike)) for picture in pictures):
            return _packed(pictures, shape, decode, skipped)
        data = np.empty(shape, np.uint8)
        decode(data, 10.0)
    return data


def _in_threads(pool: ThreadPoolExecutor, work: Callable[[int], Any], n: int) -> Iterator[Any]:
    """Call a function with 0, 1, ... in threads; what waits takes no more memory for a million than for a thousand."""

    def some(numbers: range) -> list[Any]:
        return [work(i) for i in numbers]

    for block in range(0, n, WAITING):
        last = min(block + WAITING, n)
        for found in pool.map(some, [range(i, min(i + 32, last)) for i in range(block, last, 32)]):
            yield from found


def _refuse_if_none(pictures: Sequence[Any], skipped: dict[int, str] | None) -> None:
    """Refuse pictures of which none can be read."""
    if skipped and len(skipped) == len(pictures):
        raise ValueError(f"None of the {len(pictures)} images in X can be read, the first since: {skipped[0]}")


def _packed(
    paths: Sequence[Any],
    shape: tuple[int, ...],
    decode: Callable[[np.ndarray, float], None],
    skipped: dict[int, str] | None,
) -> np.ndarray:
    """Map the decoded files that lie in the cache into memory; put them there first if they do not."""
    known = hashlib.sha256(repr(shape).encode())
    for path in paths:
        known.update(os.fsencode(os.path.abspath(path)))
        with suppress(OSError, ValueError):  # who decodes it names what is missing
            status = os.stat(path)
            known.update(f"\0{status.st_size} {status.st_mtime_ns}\0".encode())
    folder = cache_folder() / "packed"
    file = folder / f"{known.hexdigest()[:32]}.npy"
    lacking = file.with_suffix(".json")  # what could not be read, by number
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        needed = math.prod(shape)
        if needed > shutil.disk_usage(folder).free:
            raise no_room(needed, folder)
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            part = Path(unfinished) / file.name
            decode(np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape), 0.0)
            if skipped:
                note = part.with_suffix(".json")
                note.write_text(json.dumps(skipped))
                note.replace(lacking)
            part.replace(file)  # whole, or not there
    if lacking.exists():
        found = {int(i): what for i, what in json.loads(lacking.read_text()).items()}
        if skipped is None:
            raise ValueError(found[min(found)])
        skipped.update(found)
    return np.load(file, mmap_mode="r")


def inspect_image(picture: Any, name: str) -> tuple[str, Size]:
    """Return the mode and, when upright, the height and width of a picture, without decoding it.

    Parameters
    ----------
    picture : str, path, file object or PIL image
        What to look at.
    name : str
        How to call it in a message.

    Returns
    -------
    mode : str
        Pillow's name of the kind of pixels.
    size : (int, int)
        Height and width.

    Raises
    ------
    ValueError
        If it cannot be read.
    """
    with _opened(picture, name) as image:
        on_its_side = image.getexif().get(0x0112, 1) >= 5
        return image.mode, (image.width, image.height) if on_its_side else (image.height, image.width)


def decode_image(item: Any, name: str, channels: int, size: Size | None = None) -> np.ndarray:
    """Decode one picture, upright.

    Parameters
    ----------
    item : str, path, file object or PIL image
        What to decode.
    name : str
        How to call it in a message.
    channels : int
        1 (grey), 3 (RGB) or 4 (RGBA).
    size : (int, int), default=None
        Height and width to bring it to, by resizing the shorter side and cropping the centre; by default its own.

    Returns
    -------
    ndarray of uint8, shape (h, w, channels)
        The picture.

    Raises
    ------
    ValueError
        If it cannot be read.
    """
    from PIL import Image, ImageOps

    if channels not in _MODES:
        raise ValueError(f"image_shape has {channels} channels, but pictures can be read with 1, 3 or 4.")
    with _opened(item, name) as image:
        if size is not None and not is_pil_image(item):
            image.draft(None, (2 * max(size), 2 * max(size)))  # JPEG: decode no more than is needed
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16 bits
            levels = (np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8)
            image = Image.fromarray(levels)
        if "transparency" in image.info and image.mode == "P":
            image = image.convert("RGBA")
        image = image.convert(_MODES[channels])
        if size is not None:
            image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BICUBIC)
        return np.atleast_3d(np.array(image))


@contextmanager
def _opened(picture: Any, name: str) -> Iterator[Image]:
    """Open a picture; whatever is wrong with it is a ValueError that names it."""
    from PIL import Image

    try:
        if is_pil_image(picture):
            with _loading:  # the same image may stand in a sequence twice
                picture.load()
            yield picture
        else:
            with Image.open(picture) as image:
                yield image
    except Exception as error:
        raise ValueError(f"{name} cannot be read as an image: {error}") from error
