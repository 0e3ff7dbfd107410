"""Image files and PIL images, decoded by Pillow into arrays."""

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
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from tqdm.auto import tqdm

from skssl.images.base import Scale, Size, is_pil_image
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
WIDE_MODES = ("F", "I")  # 32 bits: floats and integers
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_DEEP_MODES = (*WIDE_MODES, *_SIXTEEN_BITS)  # more than 8 bits; Pillow has them for grey images only
_GRAY_MODES = ("1", "L", "LA", "La", *_DEEP_MODES)
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
_PNG_MARK = b"\x89PNG\r\n\x1a\n"
_loading = Lock()

Header = tuple[str, Size]  # Pillow's mode, and the upright height and width


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


def are_deep(headers: Sequence[Header | None], name: Callable[[int], str]) -> bool:
    """Return whether images are read as floats, because all of them hold more than 8 bits a value.

    Parameters
    ----------
    headers : sequence of (str, (int, int)) or None
        The images' modes and sizes, as `inspect_images` returns them.
    name : callable
        Returns the name of an image in messages from its index.

    Returns
    -------
    bool
        True if all hold floats, or integers of 16 or 32 bits. False if some hold 8 bits: 16 bits are then rounded to 8.

    Raises
    ------
    ValueError
        If some images hold floats or integers of 32 bits, and others 8 bits.
    """
    modes = {i: header[0] for i, header in enumerate(headers) if header is not None}
    shallow = next((i for i, mode in modes.items() if mode not in _DEEP_MODES), None)
    deepest = next((i for i, mode in modes.items() if mode in WIDE_MODES), None)
    if shallow is not None and deepest is not None:
        kind = "floats" if modes[deepest] == "F" else "32-bit integers"
        raise ValueError(
            f"{name(deepest)} holds {kind}, but {name(shallow)} holds 8-bit values. They have no common scale: convert "
            "all images to one kind of numbers."
        )
    return shallow is None


def decode_images(
    images: Sequence[Any],
    name: Callable[[int], str],
    channels: int | None = None,
    size: Size | None = None,
    bad: dict[int, str] | None = None,
    headers: Sequence[Header | None] | None = None,
    deep: bool | None = None,
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
    headers : sequence of (str, (int, int)) or None, default=None
        The images' modes and sizes, if `inspect_images` has read them already.
    deep : bool, default=None
        Whether to keep the numbers of images that hold more than 8 bits a value, as floats. None: see `are_deep`.

    Returns
    -------
    ndarray of uint8 or float32, shape (n, h, w, channels)
        The images; a read-only `numpy.memmap` if they are in the cache.

    Raises
    ------
    OSError
        If the disk has no room for them.
    ValueError
        If an image cannot be read and `bad` is None, if no image can be read, or if sizes differ without `size`.
    """
    with _Decoder(images, name, bad) as decoder:
        headers = decoder.inspect() if headers is None else headers
        deep = are_deep(headers, name) if deep is None else deep
        channels = channels or channels_for([header[0] for header in headers if header is not None])
        shape = (len(images), *(size or common_size(headers, name)), channels)
        dtype = np.dtype(np.float32 if deep else np.uint8)

        def decode(write: Write, delay: float = 0.0) -> None:
            decoder.decode(write, channels, (shape[1], shape[2]), deep, delay)

        is_on_disk = all(isinstance(image, (str, os.PathLike)) for image in images)
        if math.prod(shape) * dtype.itemsize > MAX_IN_MEMORY and is_on_disk:
            return cached_images(images, shape, decode, bad, dtype)
        data = np.zeros(shape, dtype)
        decode(data.__setitem__, _PROGRESS_DELAY)
    return data


def common_size(headers: Sequence[Header | None], name: Callable[[int], str]) -> Size:
    """Return the height and width of images, which must be the same for all.

    Parameters
    ----------
    headers, name
        As for `are_deep`.

    Returns
    -------
    (int, int)
        Height and width.

    Raises
    ------
    ValueError
        If they differ.
    """
    sizes = {i: header[1] for i, header in enumerate(headers) if header is not None}
    first = next(iter(sizes.values()))
    for i, size in sizes.items():
        if size != first:
            raise ValueError(
                f"{name(i)} has the height and width {size}, but the first image has {first}. Give "
                "image_shape=(h, w) to resize all images."
            )
    return first


def value_range(images: Sequence[Any], name: Callable[[int], str], bad: dict[int, str] | None = None) -> Scale:
    """Decode images that hold more than 8 bits a value in threads, and return their smallest and largest value.

    Parameters
    ----------
    images, name, bad
        As for `decode_images`.

    Returns
    -------
    low, high : float
        The range.

    Raises
    ------
    ValueError
        If an image cannot be read or has a value that is not finite, and `bad` is None, or if none can be read.
    """
    ends: list[Scale] = []
    with _Decoder(images, name, bad) as decoder:
        note = lambda _, pixels: ends.append((float(pixels.min()), float(pixels.max())))  # noqa: E731
        decoder.decode(note, 1, None, True, _PROGRESS_DELAY)
    return min(low for low, _ in ends), max(high for _, high in ends)


class _Decoder:
    """Decodes images in threads, and records those that cannot be read; see `decode_images`."""

    def __init__(self, images: Sequence[Any], name: Callable[[int], str], bad: dict[int, str] | None) -> None:
        self.images, self.name, self.bad = images, name, bad
        self.pool = ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1))

    def __enter__(self) -> _Decoder:
        return self

    def __exit__(self, *error: Any) -> None:
        self.pool.shutdown(cancel_futures=True)

    def inspect(self) -> list[Header | None]:
        """Return the mode and the size of each image from its header."""
        found = list(self._map(lambda i: self._attempt(inspect_image, i)))
        self._check_any_good()
        return found

    def decode(self, write: Write, channels: int, size: Size | None, deep: bool, delay: float = 0.0) -> None:
        """Decode all images and write them by their indices; show a progress bar after some seconds."""

        def work(i: int) -> None:
            if not self.bad or i not in self.bad:
                pixels = self._attempt(decode_image, i, channels, size, deep)
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


def inspect_image(image: Any, name: str) -> Header:
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
        Pillow's mode, "I;16" also for a 16-bit PGM, whose mode is "I".
    size : (int, int)
        Height and width.

    Raises
    ------
    ValueError
        If the image cannot be read.
    """
    with open_image(image, name) as pil:
        return "I;16" if _is_pgm(pil) else pil.mode, upright_size(pil)


def decode_image(image: Any, name: str, channels: int, size: Size | None = None, deep: bool = False) -> np.ndarray:
    """Decode an image upright, and without transparency unless `channels` is 4.

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
    deep : bool, default=False
        Whether to keep the numbers of an image that holds more than 8 bits a value, as floats.

    Returns
    -------
    ndarray of uint8 or float32, shape (h, w, channels)
        The image.

    Raises
    ------
    ValueError
        If the image cannot be read, or cannot have so many channels.
    """
    from PIL import Image, ImageOps

    check_channels(channels, name, deep)
    with open_image(image, name) as pil:
        if size is not None and not is_pil_image(image):
            pil.draft(None, (2 * max(size), 2 * max(size)))  # a JPEG is decoded at the lowest sufficient resolution
        pil = upright(pil, channels, deep)
        if size is not None:
            pil = ImageOps.fit(pil, (size[1], size[0]), Image.Resampling.BICUBIC)
        pixels = np.atleast_3d(np.array(pil))
        return pixels.repeat(channels, 2) if deep else pixels


def check_channels(channels: int, name: str, deep: bool = False) -> None:
    """Refuse a number of channels that images cannot be decoded to.

    Parameters
    ----------
    channels : int
        The number.
    name : str
        The name of an image in the message.
    deep : bool, default=False
        Whether it is a grey image that holds more than 8 bits a value.

    Raises
    ------
    ValueError
        If it is not 1 or 3, nor 4 with 8 bits.
    """
    if channels not in _MODES or (deep and channels == 4):
        supported = "1 or 3 are supported for more than 8 bits" if deep else "1, 3 or 4 are supported"
        raise ValueError(
            f"{name} was to be decoded to {channels} channels, but {supported}. Check image_shape and the channels of "
            "the training images."
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
    from PIL import Image

    # Pillow gives a TIFF with this tag its upright size when it opens it, and turns its pixels when it decodes it.
    is_turned_later = ORIENTATION not in getattr(pil, "tag_v2", ())
    # Pillow decodes a PNG without EXIF data before its pixels, since there may be some behind them.
    is_plain = pil.format == "PNG" and "exif" not in pil.info and _ends_with_pixels(getattr(pil, "fp", None))
    exif = Image.Image.getexif(pil) if is_plain else pil.getexif()
    if is_turned_later and exif.get(ORIENTATION) in (5, 6, 7, 8):
        return pil.width, pil.height
    return pil.height, pil.width


def _ends_with_pixels(png: BinaryIO | None) -> bool:
    """Return whether the file of a PNG is open and whole, and has no EXIF data or text after its pixels."""
    if png is None:
        return False
    position, after_pixels = png.tell(), False
    png.seek(len(_PNG_MARK))
    try:
        while len(header := png.read(8)) == 8:
            length, kind = int.from_bytes(header[:4], "big"), header[4:]
            after_pixels = after_pixels or kind == b"IDAT"
            if kind == b"IEND" or (after_pixels and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt")):
                return kind == b"IEND"
            png.seek(length + 4, os.SEEK_CUR)
        return False
    finally:
        png.seek(position)


def upright(pil: Image, channels: int, deep: bool = False) -> Image:
    """Decode an open image upright, and without transparency unless `channels` is 4.

    Parameters
    ----------
    pil : PIL.Image.Image
        The image.
    channels : int
        1 (grey), 3 (RGB) or 4 (RGBA).
    deep : bool, default=False
        Whether to keep the numbers of an image that holds more than 8 bits a value.

    Returns
    -------
    PIL.Image.Image
        The image in the mode "L", "RGB" or "RGBA", or "F" if `deep`.

    Raises
    ------
    ValueError
        If it has a value that is not finite, holds 8 bits if `deep`, or holds floats or 32-bit integers if not.
    """
    from PIL import Image, ImageOps

    is_pgm = _is_pgm(pil)
    pil = ImageOps.exif_transpose(pil)
    if deep:
        if pil.mode not in _DEEP_MODES:
            raise ValueError("it holds 8 bits a value, but the images before it hold more")
        numbers = np.asarray(pil).astype(np.float32)
        if not np.isfinite(numbers).all():
            raise ValueError("it contains NaN or infinity. Finite numbers were expected")
        return Image.fromarray(numbers)
    if pil.mode in _SIXTEEN_BITS or is_pgm:
        pil = Image.fromarray((np.asarray(pil) / 257).round().astype(np.uint8))
    elif pil.mode in WIDE_MODES:
        kind = "floats" if pil.mode == "F" else "32-bit integers"
        raise ValueError(f"it holds {kind}, but 8 or 16 bits were expected. Convert it, or pass an array")
    if "transparency" in pil.info and pil.mode == "P":
        pil = pil.convert("RGBA")
    return pil.convert(_MODES[channels])


def _is_pgm(pil: Image) -> bool:
    """Return whether an open image is a 16-bit PGM, for which Pillow has the mode of 32-bit integers."""
    return pil.mode == "I" and pil.format == "PPM"


def inspect_images(
    images: Sequence[Any], name: Callable[[int], str], bad: dict[int, str] | None = None
) -> list[Header | None]:
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
    with _Decoder(images, name, bad) as decoder:
        return decoder.inspect()


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
        if image is None:
            raise ValueError("it is missing")
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
