"""Pictures, which are files and PIL images, as arrays."""

from __future__ import annotations

import errno
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
from tqdm.auto import tqdm

if TYPE_CHECKING:
    from PIL.Image import Image

Size = tuple[int, int]

IN_MEMORY = 2**30  # bytes that decoded files may take there
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's mode for a number of channels
_GRAY_MODES = ("1", "L", "LA", "La", "F", "I", "I;16", "I;16L", "I;16B", "I;16N")
_loading = Lock()


def is_pil(value: Any) -> bool:
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


def channels_of(modes: Sequence[str]) -> int:
    """Choose the channels for pictures of some modes.

    Parameters
    ----------
    modes : sequence of str
        Pillow's names.

    Returns
    -------
    int
        3, or 1 if all are grey.
    """
    return 1 if all(mode in _GRAY_MODES for mode in modes) else 3


def read_pictures(
    pictures: Sequence[Any], names: Sequence[str], channels: int | None = None, size: Size | None = None
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
    names : sequence of str
        How to call each of them in a message.
    channels : int, default=None
        1 (grey), 3 (RGB) or 4 (RGBA); by default 3, or 1 if all are grey.
    size : (int, int), default=None
        Height and width to bring all to; by default the size of all.

    Returns
    -------
    ndarray of uint8, shape (n, h, w, channels)
        The images; a `numpy.memmap` that cannot be written to where they are kept on disk.

    Raises
    ------
    OSError
        If the disk has no room for them.
    ValueError
        If one cannot be read, or has another size than the first although no `size` is given.
    """
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        if channels is None or size is None:
            modes, sizes = zip(*pool.map(inspect_picture, pictures, names), strict=True)
            channels = channels or channels_of(modes)
            for name, other in zip(names, sizes, strict=True):
                if size is None and other != sizes[0]:
                    raise ValueError(
                        f"{name} has the height and width {other}, but the first picture has {sizes[0]}: "
                        "without image_shape=(h, w) all must have the same."
                    )
            size = size or sizes[0]
        shape = (len(pictures), *size, channels)

        def decode(into: np.ndarray, delay: float) -> None:
            def fill(indices: np.ndarray) -> None:
                for i in indices:
                    into[i] = read_picture(pictures[i], names[i], channels, size)
                bar.update(len(indices))

            with tqdm(total=len(pictures), desc="Decoding", unit=" images", unit_scale=True, delay=delay) as bar:
                list(pool.map(fill, np.array_split(np.arange(len(pictures)), len(pictures) // 32 + 1)))

        if math.prod(shape) > IN_MEMORY and all(isinstance(picture, (str, os.PathLike)) for picture in pictures):
            return _packed(pictures, shape, decode)
        data = np.empty(shape, np.uint8)
        decode(data, 10.0)
    return data


def _packed(paths: Sequence[Any], shape: tuple[int, ...], decode: Callable[[np.ndarray, float], None]) -> np.ndarray:
    """Map the decoded files that lie in the cache into memory; put them there first if they do not."""
    known = [(os.path.abspath(path), (status := os.stat(path)).st_size, status.st_mtime_ns) for path in paths]
    folder = Path(os.environ.get("SKSSL_CACHE") or "~/.cache/skssl").expanduser() / "packed"
    file = folder / f"{joblib.hash((known, shape))}.npy"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        needed, free = math.prod(shape), shutil.disk_usage(folder).free
        if needed > free:
            raise OSError(
                errno.ENOSPC,
                f"{shape[0]} images of {shape[1]}x{shape[2]} take {needed / 1e9:.1f} GB, but {str(folder)!r} has room "
                f"for {free / 1e9:.1f}: set the environment variable SKSSL_CACHE to a folder with more.",
            )
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            part = Path(unfinished) / file.name
            decode(np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape), 0.0)
            part.replace(file)  # whole, or not there
    return np.load(file, mmap_mode="r")


def inspect_picture(picture: Any, name: str) -> tuple[str, Size]:
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


def read_picture(item: Any, name: str, channels: int, size: Size | None = None) -> np.ndarray:
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
        if size is not None and not is_pil(item):
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
        if is_pil(picture):
            with _loading:  # the same image may stand in a sequence twice
                picture.load()
            yield picture
        else:
            with Image.open(picture) as image:
                yield image
    except Exception as error:
        raise ValueError(f"{name} cannot be read as an image: {error}") from error
