"""Image files and PIL images, decoded by Pillow into uint8 arrays."""

from __future__ import annotations

import io
import math
import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from skssl.images.base import Size, is_pil_image
from skssl.images.disk_cache import Write, cached_images
from skssl.images.memory_maps import MAX_IN_MEMORY
from skssl.images.packed import PackedImage

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

_MAX_THREADS = 16
_BLOCK = 32  # images that a thread takes at a time
_QUEUED = 2**14  # images that wait for a thread
_PROGRESS_DELAY = 10.0  # seconds before a progress bar appears
ORIENTATION = 0x0112  # the tag of EXIF and TIFF; from 5 to 8, height and width are swapped
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's mode for a number of channels
_GRAY_MODES = ("1", "L", "LA", "La", "F", "I", "I;16", "I;16L", "I;16B", "I;16N")
#: The formats that are opened. Pillow decodes each of them within this process.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF", "JPEG2000", "QOI", "ICO", "TGA")
_OTHER_FORMATS = {
    b"%!PS": "PostScript (EPS)",
    b"\xc5\xd0\xd3\xc6": "PostScript (EPS)",
    b"%PDF": "PDF",
    b"\xd7\xcd\xc6\x9a": "WMF",
    b"8BPS": "PSD",
    b"<svg": "SVG",
    b"<?xml": "XML or SVG",
    b"ftypheic": "HEIC",
    b"ftypmif1": "HEIF",
    b"\x89HDF": "HDF5",
    b"SIMPLE": "FITS",
    b"\x93NUMPY": ".npy",
    b"PK\x03\x04": "ZIP",
}
_loading = Lock()


def channels_for(modes: Collection[str]) -> int:
    """Return the number of channels for images of the given modes.

    Parameters
    ----------
    modes : collection of str
        Pillow's modes.

    Returns
    -------
    int
        1 if all are grey, otherwise 3.
    """
    return 1 if all(mode in _GRAY_MODES for mode in modes) else 3


def decode_images(
    images: Sequence[Any],
    name: Callable[[int], str],
    channels: int | None = None,
    size: Size | None = None,
    bad: dict[int, str] | None = None,
) -> np.ndarray:
    """Decode image files, file objects or PIL images in threads into one array.

    Files that take more than a gigabyte when decoded are decoded once into the cache on disk and mapped into memory,
    so they may exceed the memory. They stay in the folder ``packed`` of the cache until you delete it, see
    `disk_cache`.

    Parameters
    ----------
    images : sequence of str, path, file object or PIL image
        The images.
    name : callable
        Returns the name of an image in messages from its index.
    channels : int, default=None
        1 (grey), 3 (RGB) or 4 (RGBA). None takes 1 if all images are grey, otherwise 3.
    size : (int, int), default=None
        Height and width to resize to. None takes the images' own, which must be the same for all.
    bad : dict of int to str, default=None
        Receives the index of each image that cannot be read, and the reason; the array is 0 there. If None,
        such an image is an error.

    Returns
    -------
    ndarray of uint8, shape (n, h, w, channels)
        The images; a read-only `numpy.memmap` if they are in the cache.

    Raises
    ------
    OSError
        If the disk has no room for them.
    ValueError
        If an image cannot be read and `bad` is None, if no image can be read, or if sizes differ without `size`.
    """
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        decoder = _Decoder(images, name, bad, pool)
        if channels is None or size is None:
            channels, size = decoder.common_format(channels, size)

        shape = (len(images), *size, channels)
        if math.prod(shape) > MAX_IN_MEMORY and all(isinstance(image, (str, os.PathLike)) for image in images):
            return cached_images(images, shape, lambda write: decoder.decode(write, channels, size, 0.0), bad)
        data = np.zeros(shape, np.uint8)
        decoder.decode(data.__setitem__, channels, size, _PROGRESS_DELAY)
    return data


class _Decoder:
    """Decodes images in threads, and records those that cannot be read; see `decode_images`."""

    def __init__(
        self, images: Sequence[Any], name: Callable[[int], str], bad: dict[int, str] | None, pool: ThreadPoolExecutor
    ) -> None:
        self.images, self.name, self.bad, self.pool = images, name, bad, pool

    def common_format(self, channels: int | None, size: Size | None) -> tuple[int, Size]:
        """Return the channels and the size of all images, where they are not given."""
        modes, first = set(), None
        for i, found in enumerate(self.inspect()):
            if found is not None:
                modes.add(found[0])
                first = first or found[1]
                if size is None and found[1] != first:
                    raise ValueError(
                        f"{self.name(i)} has the height and width {found[1]}, but the first image has {first}. Give "
                        "image_shape=(h, w) to resize all images."
                    )
        return channels or channels_for(modes), size or first  # type: ignore[return-value]

    def inspect(self) -> list[tuple[str, Size] | None]:
        """Return the mode and the size of each image from its header."""
        found = list(self._map(lambda i: self._attempt(inspect_image, i)))
        self._check_any_good()
        return found

    def decode(self, write: Write, channels: int, size: Size, delay: float) -> None:
        """Decode all images and write them by their indices; show a progress bar after some seconds."""

        def work(i: int) -> None:
            if not self.bad or i not in self.bad:
                pixels = self._attempt(decode_image, i, channels, size)
                if pixels is not None:
                    write(i, pixels)

        n = len(self.images)
        with tqdm(total=n, desc="Decoding", unit=" images", unit_scale=True, delay=delay) as bar:
            for done, _ in enumerate(self._map(work), start=1):
                if done % _BLOCK == 0:
                    bar.update(_BLOCK)
            bar.update(n % _BLOCK)
        self._check_any_good()

    def _attempt(self, work: Callable[..., Any], i: int, *args: Any) -> Any:
        """Call a function with an image; return None if it is bad and bad images are recorded."""
        try:
            return work(self.images[i], self.name(i), *args)
        except ValueError as error:
            if self.bad is None:
                raise
            self.bad[i] = str(error)

    def _map(self, work: Callable[[int], Any]) -> Iterator[Any]:
        """Call a function with 0, 1, ... in threads; the queue is short, whatever the number of images."""

        def work_on(block: range) -> list[Any]:
            return [work(i) for i in block]

        for start in range(0, len(self.images), _QUEUED):
            stop = min(start + _QUEUED, len(self.images))
            blocks = [range(i, min(i + _BLOCK, stop)) for i in range(start, stop, _BLOCK)]
            for found in self.pool.map(work_on, blocks):
                yield from found

    def _check_any_good(self) -> None:
        """Raise an error if no image can be read."""
        if self.bad and len(self.bad) == len(self.images):
            raise ValueError(f"None of the {len(self.images)} images in X can be read. The first error: {self.bad[0]}")


def inspect_image(image: Any, name: str) -> tuple[str, Size]:
    """Return the mode and the upright size of an image without decoding it.

    Parameters
    ----------
    image : str, path, file object or PIL image
        The image.
    name : str
        Its name in messages.

    Returns
    -------
    mode : str
        Pillow's mode.
    size : (int, int)
        Height and width.

    Raises
    ------
    ValueError
        If the image cannot be read.
    """
    with open_image(image, name) as pil:
        return pil.mode, upright_size(pil)


def decode_image(image: Any, name: str, channels: int, size: Size | None = None) -> np.ndarray:
    """Decode an image upright, in 8 bits and without transparency unless `channels` is 4.

    Parameters
    ----------
    image : str, path, file object or PIL image
        The image.
    name : str
        Its name in messages.
    channels : int
        1 (grey), 3 (RGB) or 4 (RGBA).
    size : (int, int), default=None
        Height and width. The shorter side is resized to it, and the centre is cropped. None keeps the image's own.

    Returns
    -------
    ndarray of uint8, shape (h, w, channels)
        The image.

    Raises
    ------
    ValueError
        If the image cannot be read, or cannot have so many channels.
    """
    from PIL import Image, ImageOps

    check_channels(channels, name)
    with open_image(image, name) as pil:
        if size is not None and not is_pil_image(image):
            pil.draft(None, (2 * max(size), 2 * max(size)))  # a JPEG is decoded at the lowest sufficient resolution
        pil = upright(pil, channels)
        if size is not None:
            pil = ImageOps.fit(pil, (size[1], size[0]), Image.Resampling.BICUBIC)
        return np.atleast_3d(np.array(pil))


def check_channels(channels: int, name: str) -> None:
    """Refuse a number of channels that images cannot be decoded to.

    Parameters
    ----------
    channels : int
        The number.
    name : str
        The name of an image in the message.

    Raises
    ------
    ValueError
        If it is not 1, 3 or 4.
    """
    if channels not in _MODES:
        raise ValueError(
            f"{name} was to be decoded to {channels} channels, but 1, 3 or 4 are supported. Check image_shape and the "
            "channels of the training images."
        )


def upright_size(pil: Image) -> Size:
    """Return the height and width that an open image has when it is upright, without decoding it.

    Parameters
    ----------
    pil : PIL.Image.Image
        The image.

    Returns
    -------
    (int, int)
        Height and width.
    """
    # Pillow gives a TIFF with this tag its upright size when it opens it, and turns its pixels when it decodes it.
    is_turned_later = ORIENTATION not in getattr(pil, "tag_v2", ())
    if is_turned_later and pil.getexif().get(ORIENTATION) in (5, 6, 7, 8):
        return pil.width, pil.height
    return pil.height, pil.width


def upright(pil: Image, channels: int) -> Image:
    """Decode an open image upright, in 8 bits and without transparency unless `channels` is 4.

    Parameters
    ----------
    pil : PIL.Image.Image
        The image.
    channels : int
        1 (grey), 3 (RGB) or 4 (RGBA).

    Returns
    -------
    PIL.Image.Image
        The image in the mode "L", "RGB" or "RGBA".
    """
    from PIL import Image, ImageOps

    pil = ImageOps.exif_transpose(pil)
    if pil.mode.startswith("I"):  # 16 bits
        pil = Image.fromarray((np.asarray(pil).clip(0, 65535) / 257).round().astype(np.uint8))
    if "transparency" in pil.info and pil.mode == "P":
        pil = pil.convert("RGBA")
    return pil.convert(_MODES[channels])


def inspect_images(
    images: Sequence[Any], name: Callable[[int], str], bad: dict[int, str] | None = None
) -> list[tuple[str, Size] | None]:
    """Return the modes and the upright sizes of images from their headers, in threads.

    Parameters
    ----------
    images, name, bad
        As for `decode_images`.

    Returns
    -------
    list of (str, (int, int)) or None
        As `inspect_image` returns them. None for a bad image.

    Raises
    ------
    ValueError
        If an image cannot be read and `bad` is None, or if no image can be read.
    """
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        return _Decoder(images, name, bad, pool).inspect()


@contextmanager
def open_image(image: Any, name: str, what: str = "an image") -> Iterator[Image]:
    """Open an image of one of the `FORMATS`; turn any error, also of the block, into a ValueError that names it.

    Pillow hands some other formats to other programs, such as PostScript to Ghostscript. Images of more than
    ``PIL.Image.MAX_IMAGE_PIXELS`` pixels are refused before they are decoded.

    Parameters
    ----------
    image : str, path, bytes, file object or PIL image
        The image.
    name : str
        Its name in messages.
    what : str, default="an image"
        What it should be, in messages.

    Yields
    ------
    PIL image
        The image, which may not be decoded yet.

    Raises
    ------
    ValueError
        If the image cannot be read, has another format or too many pixels.
    """
    from PIL import Image, ImageFile, UnidentifiedImageError

    image = io.BytesIO(image) if isinstance(image, bytes) else image
    image = image.source() if isinstance(image, PackedImage) else image
    try:
        if is_pil_image(image):
            if isinstance(image, ImageFile.ImageFile):  # its pixels may not be decoded yet
                _check_opened(image)
            with _loading:  # a sequence may contain the same image twice
                image.load()
            yield image
        else:
            is_path = isinstance(image, (str, os.PathLike))
            if is_path and not stat.S_ISREG(os.stat(image).st_mode):
                raise ValueError("it is no regular file")  # a pipe would block for ever
            with ExitStack() as stack:
                # Pillow maps a file that it opens by its path. It then mixes up the pixels of some TIFFs on their side.
                file = stack.enter_context(open(image, "rb")) if is_path else image
                pil = stack.enter_context(Image.open(file, formats=_known_formats()))
                _check_opened(pil)
                yield pil
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{name} cannot be read as {what}: its format is {_name_format(image)}, but one of {', '.join(FORMATS)} "
            "was expected. Convert the file to one of these."
        ) from error
    except (_TooManyPixels, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"{name} cannot be read as {what}: it has more than {Image.MAX_IMAGE_PIXELS:,} pixels. A small file could "
            "fill the memory in this way. If you trust the file, set PIL.Image.MAX_IMAGE_PIXELS to a larger number."
        ) from error
    except Exception as error:
        raise ValueError(f"{name} cannot be read as {what}: {error}") from error


class _TooManyPixels(Exception):
    """An image has more pixels than Pillow's limit."""


def _check_opened(image: ImageFile) -> None:
    """Refuse an image that was opened, but perhaps not decoded: PostScript, and one of too many pixels."""
    from PIL import Image

    if image.format == "EPS":
        raise ValueError(
            "it is PostScript, which Pillow decodes by the program Ghostscript. If you trust the file, pass "
            "image.convert('RGB')"
        )
    if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise _TooManyPixels


@cache
def _known_formats() -> list[str]:
    """Return those of the `FORMATS` that the installed Pillow can open."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _name_format(image: Any) -> str:
    """Return the name of a format that is not supported, from the first bytes of a file."""
    if isinstance(image, (str, os.PathLike)):
        with open(image, "rb") as file:
            start = file.read(16)
    else:
        image.seek(0)
        start = image.read(16)
    return next((name for mark, name in _OTHER_FORMATS.items() if mark in (start[: len(mark)], start[4:12])), "unknown")


def image_endings() -> tuple[str, ...]:
    """Return the endings of the names of image files, in lower case.

    Returns
    -------
    tuple of str
        Such as ".png".
    """
    from PIL import Image

    known = _known_formats()
    return tuple(ending for ending, name in Image.registered_extensions().items() if name in known)
