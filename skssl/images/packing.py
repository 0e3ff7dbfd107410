"""`pack_images`, which writes the pictures of a list into one file."""

from __future__ import annotations

import hashlib
import io
import math
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from joblib import cpu_count
from tqdm.auto import tqdm

from skssl.errors import pick, warn_of_bad
from skssl.images.base import Size, is_pil_image
from skssl.images.disk_cache import NO_ROOM, cache_folder, file_identity, no_room, write_to_cache
from skssl.images.image_files import (
    ORIENTATION,
    are_deep,
    channels_for,
    inspect_images,
    open_image,
    upright,
    upright_size,
)
from skssl.images.packed import Pack, PackedImage, PackedImages, PackWriter, open_pack
from skssl.images.photographs import DRAFT_MARGIN
from skssl.images.reading import files_of
from skssl.images.sequences import sample_name

_KINDS = {"jpeg": "jpeg", "pixels": "pixels"}
_Picture = tuple[np.ndarray, tuple[int, int, int]]  # the data of a picture, and its height, width and channels


def pack_images(
    X: Any,
    kind: str = "jpeg",
    *,
    max_side: int | None = None,
    quality: int = 95,
    folder: str | os.PathLike[str] | None = None,
    on_bad_image: str = "raise",
) -> PackedImages:
    """Write pictures in their own sizes into one file, from which a training reads them faster.

    The file is memory-mapped, so it may exceed the memory. It is found again by the paths, inodes, sizes and times of
    the image files and by the parameters: a second call returns at once, and a changed file is packed anew. A damaged
    pack is written anew, with a warning. Packs stay until you delete them.

    Parameters
    ----------
    X : sequence of str, path, bytes or PIL image, path of a folder, or torchvision ``ImageFolder``
        The pictures, as `as_images` reads them: upright, in 8 bits, without transparency, grey ones in one channel.
    kind : {"jpeg", "pixels"}, default="jpeg"
        The form of the pictures in the file.

        - "jpeg": the bytes of JPEGs. Other pictures, and those that are resized, are encoded. One file is read faster
          than many, and smaller pictures are decoded faster.
        - "pixels": the pixels, which need no decoding and several times the space.
    max_side : int, default=None
        The longest side in pixels. Larger pictures are resized with antialiasing. None keeps their sizes.
    quality : int, default=95
        The quality, from 1 to 100, of pictures that are encoded as JPEGs.
    folder : str or path, default=None
        The folder of the file. None takes the folder "packed" in that of the environment variable ``SKSSL_CACHE``, or
        in ``~/.cache/skssl``.
    on_bad_image : {"raise", "skip"}, default="raise"
        How to treat pictures that cannot be read. "skip" leaves them out with a `BadImageWarning`;
        `PackedImages.kept` is the mask of the rest.

    Returns
    -------
    PackedImages
        A sequence of the pictures, which estimators take as `X`.

    Raises
    ------
    OSError
        If the disk has no room for the file.
    TypeError
        If `X` has a type that is not listed above.
    ValueError
        If a picture cannot be read, if all pictures hold more than 8 bits, or if a parameter is out of range.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> from skssl.datasets import make_shapes, pack_images
    >>> X, _ = make_shapes(4, image_size=64, random_state=0)
    >>> pictures = [Image.fromarray(image[: 40 + i]) for i, image in enumerate(X)]
    >>> packed = pack_images(pictures, "pixels", max_side=48, folder=tempfile.mkdtemp())
    >>> len(packed), packed.sizes.tolist()
    (4, [[30, 48], [31, 48], [32, 48], [32, 48]])
    >>> packed[0].open().size
    (48, 30)
    """
    pick("kind", kind, _KINDS)
    pick("on_bad_image", on_bad_image, {"raise": False, "skip": True})
    if max_side is not None and max_side < 1:
        raise ValueError(f"max_side must be at least 1. Got {max_side}.")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be from 1 to 100. Got {quality}.")
    items = files_of(X)
    home = cache_folder() / "packed" if folder is None else Path(folder).expanduser()
    file = home / f"{_digest(items, kind, max_side, quality)}.pack"
    pack = _open(file)
    if pack is None:
        _write(file, items, kind, max_side, quality, on_bad_image == "skip")
        pack = open_pack(file)
    if pack.bad and on_bad_image == "raise":
        raise ValueError(pack.bad[min(pack.bad)])
    if pack.bad:
        warn_of_bad(pack.bad, len(items))
    return PackedImages(pack)


def _digest(items: Sequence[Any], kind: str, max_side: int | None, quality: int) -> str:
    """Return the name of the file for pictures and parameters."""
    key = hashlib.sha256(repr((kind, max_side, quality if kind == "jpeg" else None)).encode())
    for item in items:
        key.update(repr(_identity(item)).encode())
    return key.hexdigest()[:32]


def _identity(item: Any) -> Any:
    """Return what tells a picture from others."""
    if isinstance(item, PackedImage):
        return str(item.pack.path), item.i  # the name is a digest of the pictures
    if isinstance(item, (str, os.PathLike)):
        try:
            return file_identity(item)
        except (OSError, ValueError):  # `inspect_images` reports a missing file by name
            return os.fspath(item)
    if is_pil_image(item):
        try:
            how = (
                item.mode,
                item.size,
                item.getexif().get(ORIENTATION),
                item.getpalette(),
                item.info.get("transparency"),
            )
            return *how, hashlib.sha256(item.tobytes()).hexdigest()
        except OSError as error:  # `_picture` reports a damaged image by name
            return str(error)
    return hashlib.sha256(item).hexdigest()


def _open(file: Path) -> Pack | None:
    """Return the pack in a file; None if the file is missing or damaged."""
    try:
        return open_pack(file)
    except FileNotFoundError:
        return None
    except ValueError as error:
        warnings.warn(f"The pictures are packed anew. {error}", stacklevel=3)
        return None


def _write(file: Path, items: Sequence[Any], kind: str, max_side: int | None, quality: int, skip: bool) -> None:
    """Write the pictures into a file, in their order; threads decode them."""
    name = partial(sample_name, items)
    bad: dict[int, str] = {}
    headers = inspect_images(items, name, bad if skip else None)
    if are_deep(headers, name):
        raise ValueError("The images in X hold more than 8 bits a value, which a pack does not keep. Pass the files.")
    n_bytes = 0
    if kind == "pixels":
        n_bytes = sum(
            math.prod(_bounded(size, max_side)) * channels_for([mode]) for mode, size in filter(None, headers)
        )

    def work(i: int) -> _Picture | None:
        if i in bad:
            return None
        try:
            return _picture(items[i], name(i), kind, max_side, quality)
        except ValueError as error:
            if not skip:
                raise
            bad[i] = str(error)
            return None

    n = len(items)
    try:
        with write_to_cache(file, n_bytes) as unfinished:
            writer = PackWriter(unfinished, kind)
            for picture in tqdm(_in_threads(work, n), "Packing", n, unit=" images", delay=1.0):
                if picture is not None:
                    writer.add(*picture)
                    n_bytes = max(n_bytes, writer.n_bytes)
            if len(bad) == n:
                raise ValueError(f"None of the {n} images in X can be read. The first error: {bad[0]}")
            writer.finish(bad)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise no_room(n_bytes, file.parent, error.errno, "the parameter folder") from error
        raise


def _in_threads(work: Callable[[int], Any], n: int) -> Iterator[Any]:
    """Return the results of a function of 0, 1, ... in this order. Threads compute a few results ahead."""
    n_threads, waiting = cpu_count(), deque[Future[Any]]()
    with ThreadPoolExecutor(n_threads) as pool:
        for i in range(n):
            waiting.append(pool.submit(work, i))
            if len(waiting) > 4 * n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _picture(item: Any, name: str, kind: str, max_side: int | None, quality: int) -> _Picture:
    """Return the data of a picture for a pack, and its height, width and channels."""
    from PIL import Image

    with open_image(item, name) as pil:
        channels, given = channels_for([pil.mode]), upright_size(pil)
        size = _bounded(given, max_side)
        data = _jpeg_of(item) if kind == "jpeg" and pil.format == "JPEG" and size == given else None
        if data is not None:
            pil.draft(None, (1, 1))
            pil.load()  # raises an error if the file is cut
            return np.frombuffer(data, np.uint8), (*size, channels)
        if size != given:
            height, width = size if given == (pil.height, pil.width) else size[::-1]
            pil.draft(None, (DRAFT_MARGIN * width, DRAFT_MARGIN * height))
        pil = upright(pil, channels)
        if size != given:
            pil = pil.resize((size[1], size[0]), Image.Resampling.BICUBIC)
        if kind == "pixels":
            return np.atleast_3d(np.asarray(pil)), (*size, channels)
        encoded = io.BytesIO()
        pil.save(encoded, "JPEG", quality=quality)
        return np.frombuffer(encoded.getbuffer(), np.uint8), (*size, channels)


def _jpeg_of(item: Any) -> bytes | None:
    """Return the bytes of an image file; None for a PIL image."""
    if isinstance(item, PackedImage):
        return item.data().tobytes()
    if isinstance(item, (str, os.PathLike)):
        return Path(item).read_bytes()
    return item if isinstance(item, bytes) else None


def _bounded(size: Size, max_side: int | None) -> Size:
    """Return the size of a picture whose longer side is at most `max_side`."""
    if max_side is None or max(size) <= max_side:
        return size
    height, width = (max(1, round(side * max_side / max(size))) for side in size)
    return height, width
