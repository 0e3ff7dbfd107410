"""Packs: pictures in their own sizes, as pixels or as JPEGs, in one memory-mapped file.

A pack begins with the pictures, one after the other. The index (a row for each picture) and a description as JSON
follow. The last bytes are the length of the description and a mark, which show that the file is whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import tempfile
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, overload

import numpy as np

from skssl.images.base import one_line
from skssl.images.disk_cache import cache_folder, no_room
from skssl.images.memory_maps import mapped_file_of

if TYPE_CHECKING:
    from PIL.Image import Image

_COLUMNS = 5  # of the index: offset, number of bytes, height, width, channels
_END = struct.Struct("<Q8s")  # the length of the description, and the mark
_MARK = b"skspack1"


class Pack:
    """A file of pictures, mapped into memory.

    A pickle of a pack holds its path. The pickle of a temporary pack holds the pictures.

    Parameters
    ----------
    data : uint8 ndarray of shape (n_bytes,)
        The pictures, one after the other.
    index : int64 ndarray of shape (n, 5)
        Offset, number of bytes, height, width and channels of each picture. Height and width are those of the upright
        picture.
    kind : {"jpeg", "pixels"}
        The form of the pictures.
    path : Path, default=None
        The file. None if it is temporary.
    bad : dict of int to str, default=None
        Why some of the given pictures are not in the pack, by their indices.
    """

    def __init__(
        self,
        data: np.ndarray,
        index: np.ndarray,
        kind: str,
        path: Path | None = None,
        bad: dict[int, str] | None = None,
    ) -> None:
        self.data, self.index, self.kind, self.path, self.bad = data, index, kind, path, bad or {}
        self._file = mapped_file_of(data)

    def __reduce__(self) -> tuple[Callable[..., Pack], tuple[Any, ...]]:
        if self.path is None:
            return Pack, (np.array(self.data), self.index, self.kind)
        return open_pack, (self.path,)

    def read(self, i: int) -> np.ndarray:
        """Return a picture without copying it.

        Parameters
        ----------
        i : int
            The number of the picture in the file.

        Returns
        -------
        uint8 ndarray of shape (h, w, channels) or (n_bytes,)
            The pixels, or the bytes of a JPEG.
        """
        offset, n_bytes, *shape = self.index[i].tolist()
        if self._file is not None:
            self._file.count_read(n_bytes)
        picture = self.data[offset : offset + n_bytes]
        return picture.reshape(shape) if self.kind == "pixels" else picture

    def as_array(self) -> np.ndarray | None:
        """Return all pictures as one array without copying them.

        Returns
        -------
        uint8 ndarray of shape (n, h, w, channels) or None
            None unless they are pixels of one shape.
        """
        shapes = self.index[:, 2:]
        if self.kind != "pixels" or bool((shapes != shapes[0]).any()):
            return None
        return self.data.reshape(-1, *shapes[0].tolist())


class PackedImage:
    """A picture in a pack. It takes the place of an image file, and is read when it is needed.

    Parameters
    ----------
    pack : Pack
        The pack.
    i : int
        The number of the picture in the file.
    """

    __slots__ = ("i", "pack")

    def __init__(self, pack: Pack, i: int) -> None:
        self.pack, self.i = pack, i

    def __repr__(self) -> str:
        return f"PackedImage({str(self.pack.path)!r}, {self.i})"

    def open(self) -> Image:
        """Return the picture as a PIL image. A JPEG may have an EXIF orientation."""
        from PIL import Image

        source = self.source()
        return Image.open(source) if isinstance(source, io.BytesIO) else source

    def data(self) -> np.ndarray:
        """Return the pixels (h, w, channels), or the bytes of a JPEG, without copying them."""
        return self.pack.read(self.i)

    def source(self) -> Image | io.BytesIO:
        """Return the picture as a PIL image, or the bytes of a JPEG as a file object."""
        picture = self.data()
        return pil_of(picture) if self.pack.kind == "pixels" else io.BytesIO(picture.tobytes())


class PackedImages(Sequence[PackedImage]):
    """The pictures of a pack, as `pack_images` returns them. They take the place of a list of image files.

    An integer gives an item, which takes little memory. A slice, an array of indices and a mask give `PackedImages`.
    Estimators and scikit-learn's tools also take lists of items, such as `train_test_split` returns.

    Parameters
    ----------
    pack : Pack
        The file.
    rows : int64 ndarray of shape (n,), default=None
        The numbers of the pictures in the file. None takes all.

    Attributes
    ----------
    pack, rows
        The parameters.
    kept : bool ndarray of shape (n_given,) or None
        Mask of the pictures that could be packed, for the labels: ``y[X.kept]``. None if all could.
    """

    def __init__(self, pack: Pack, rows: np.ndarray | None = None) -> None:
        self.pack, self.kept = pack, None
        self.rows = np.arange(len(pack.index)) if rows is None else rows
        if rows is None and pack.bad:
            self.kept = np.ones(len(pack.index) + len(pack.bad), bool)
            self.kept[list(pack.bad)] = False

    @property
    def path(self) -> Path | None:
        """Path: the file."""
        return self.pack.path

    @property
    def kind(self) -> str:
        """{"jpeg", "pixels"}: the form of the pictures in the file."""
        return self.pack.kind

    @property
    def sizes(self) -> np.ndarray:
        """Int64 ndarray of shape (n, 2): the heights and widths of the pictures."""
        return self.pack.index[self.rows, 2:4]

    @property
    def channels(self) -> np.ndarray:
        """Int64 ndarray of shape (n,): 1 for grey pictures, 3 for RGB."""
        return self.pack.index[self.rows, 4]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"PackedImages({str(self.path)!r}, {self.kind}, {len(self)} pictures)"

    @overload
    def __getitem__(self, i: int) -> PackedImage: ...
    @overload
    def __getitem__(self, i: slice | list[int] | np.ndarray) -> PackedImages: ...
    def __getitem__(self, i: Any) -> PackedImage | PackedImages:
        rows = self.rows[i]
        return PackedImages(self.pack, rows) if np.ndim(rows) else PackedImage(self.pack, int(rows))


def gather(X: list[Any]) -> list[Any] | PackedImages:
    """Return a list of items of one pack as `PackedImages`, and any other list unchanged.

    Parameters
    ----------
    X : list
        Items of packs, or others.

    Returns
    -------
    list or PackedImages
        The same pictures.
    """
    pack = X[0].pack if X and isinstance(X[0], PackedImage) else None
    if pack is None or not all(isinstance(item, PackedImage) and _is_same(item.pack, pack) for item in X):
        return X
    return PackedImages(pack, np.array([item.i for item in X]))


def _is_same(pack: Pack, other: Pack) -> bool:
    return pack is other or (pack.path is not None and pack.path == other.path)


def pil_of(pixels: np.ndarray) -> Image:
    """Return pixels as a PIL image.

    Parameters
    ----------
    pixels : uint8 ndarray of shape (h, w, channels)
        Grey, RGB or RGBA pixels.

    Returns
    -------
    PIL image
        In the mode "L", "RGB" or "RGBA".
    """
    from PIL import Image

    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


class PackWriter:
    """Writes the pictures of a pack in turn.

    Parameters
    ----------
    file : binary file
        An open, empty file.
    kind : {"jpeg", "pixels"}
        The form of the pictures.

    Attributes
    ----------
    n_bytes : int
        The number of bytes written.
    """

    def __init__(self, file: BinaryIO, kind: str) -> None:
        self._file, self._kind, self._rows, self.n_bytes = file, kind, array("q"), 0

    def add(self, picture: np.ndarray, shape: Sequence[int]) -> None:
        """Write the next picture.

        Parameters
        ----------
        picture : uint8 ndarray of any shape
            The pixels (h, w, channels), or the bytes of a JPEG.
        shape : (int, int, int)
            Height, width and channels of the upright picture.
        """
        self._file.write(np.ascontiguousarray(picture).data)
        self._rows.extend((self.n_bytes, picture.nbytes, *shape))
        self.n_bytes += picture.nbytes

    def finish(self, bad: dict[int, str]) -> None:
        """Write the index and the description.

        Parameters
        ----------
        bad : dict of int to str
            Why some of the given pictures are not in the pack, by their indices.
        """
        index = self._index().tobytes()
        digest = hashlib.sha256(index).hexdigest()
        about = json.dumps({"kind": self._kind, "n": len(self._index()), "sha256": digest, "bad": bad}).encode()
        self._file.write(index + about + _END.pack(len(about), _MARK))
        self._file.truncate()  # where more was allocated

    def as_pack(self) -> Pack:
        """Return the pictures that were written to a temporary file, which is deleted with the pack."""
        data = np.memmap(self._file, np.uint8, "r", shape=(self.n_bytes,))
        return Pack(data, self._index(), self._kind)

    def _index(self) -> np.ndarray:
        return np.array(self._rows, "<i8").reshape(-1, _COLUMNS)


def temporary_pack(pictures: Iterable[np.ndarray]) -> Pack:
    """Write pictures one after the other to an unnamed file in the cache, and map it into memory.

    Parameters
    ----------
    pictures : iterable of uint8 ndarrays of shape (h, w, channels)
        The pixels of at least one picture.

    Returns
    -------
    Pack
        The pack. The file is deleted with it.

    Raises
    ------
    OSError
        If the disk has no room for them.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        writer = PackWriter(file, "pixels")
        for picture in pictures:
            try:
                writer.add(picture, picture.shape)
                file.flush()
            except OSError as error:
                raise no_room(writer.n_bytes + picture.nbytes, folder, error.errno) from error
        return writer.as_pack()


def open_pack(path: str | os.PathLike[str]) -> Pack:
    """Map the file of a pack into memory. The file need not be trusted.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    Pack
        The pack. Its index is verified, its pictures are not.

    Raises
    ------
    OSError
        If the file does not exist or cannot be read.
    ValueError
        If it is damaged, or no pack.
    """
    with open(path, "rb") as file:
        try:
            return _read(file, Path(path))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise ValueError(f"{os.fspath(path)!r} is damaged, or no pack of pictures: {one_line(error)}") from error


def _read(file: BinaryIO, path: Path) -> Pack:
    """Read the end of a file, check it, and map the pictures."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END.size))
    end = file.read()
    length, mark = _END.unpack(end) if len(end) == _END.size else (0, b"")
    if mark != _MARK or length > size - _END.size:
        raise ValueError("it has another end")
    file.seek(size - _END.size - length)
    about = json.loads(file.read(length))
    kind, n, bad = about["kind"], int(about["n"]), {int(i): str(reason) for i, reason in about["bad"].items()}
    start = size - _END.size - length - n * _COLUMNS * 8
    if kind not in ("jpeg", "pixels") or n < 1 or start < 1 or not all(0 <= i < n + len(bad) for i in bad):
        raise ValueError("its description is wrong")
    file.seek(start)
    rows = file.read(n * _COLUMNS * 8)
    index = np.frombuffer(rows, "<i8").reshape(n, _COLUMNS)
    offset, n_bytes, height, width, channels = index.T
    ends = np.concatenate(([0], np.cumsum(n_bytes)))
    fits = (index[:, 1:] > 0).all() and (n_bytes <= start).all() and (offset == ends[:-1]).all() and ends[-1] == start
    if kind == "pixels":
        fits = fits and (n_bytes == height * width * channels).all()
    if hashlib.sha256(rows).hexdigest() != about["sha256"] or not fits:
        raise ValueError("its index is wrong")
    return Pack(np.memmap(file, np.uint8, "r", shape=(start,)), index, kind, path, bad)
