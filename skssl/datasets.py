"""Load images from folders, archives, ``.npz`` files and torchvision's data sets, or generate them."""

from __future__ import annotations

import hashlib
import math
import os
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from skssl.errors import pick
from skssl.images.archives import check_decoded_size, read_npz, read_tar
from skssl.images.disk_cache import cache_folder, file_identity, write_to_cache
from skssl.images.folders import NO_IMAGE, UNREADABLE, choose_split, find_images, split_names, warn_of_left_out
from skssl.images.image_files import decode_images, image_endings, inspect_images
from skssl.images.known_folders import KNOWN_FOLDERS, find_known_folder, known_images
from skssl.images.packed import PackedImages
from skssl.images.packing import pack_images

__all__ = ["PackedImages", "load_images", "make_clips", "make_rings", "make_shapes", "make_voc_folder", "pack_images"]

# torchvision's class, and its parameter for the split: `train` is a bool, `split` is a string
_TORCHVISION = {
    "cifar10": ("CIFAR10", "train"),
    "cifar100": ("CIFAR100", "train"),
    "fashion-mnist": ("FashionMNIST", "train"),
    "kmnist": ("KMNIST", "train"),
    "mnist": ("MNIST", "train"),
    "stl10": ("STL10", "split"),
    "svhn": ("SVHN", "split"),
}
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def load_images(
    name_or_path: str | os.PathLike[str],
    split: str = "train",
    *,
    data_home: str | os.PathLike[str] | None = None,
    download: bool = True,
    max_bytes: int | None = 2**32,
    on_bad_image: str = "raise",
) -> tuple[np.ndarray | list[str] | list[bytes], np.ndarray | None]:
    """Load images and their classes from a folder, an archive, an ``.npz`` file, or by name.

    Parameters
    ----------
    name_or_path : str or path
        Where the images are:

        - a folder ``<class>/<file>`` or ``<split>/<class>/<file>``, see Notes;
        - a tar archive of such a folder, which is decoded once and cached as an ``.npz`` file in `data_home`. It is
          decoded again if its path, inode, size or times change. A cut or damaged archive is refused. Archives
          without classes, with images of several sizes or with unreadable images are read anew every time;
        - an ``.npz`` file with ``X_<split>`` and ``y_<split>`` (or ``x_…``, or ``<split>_images`` and
          ``<split>_labels``), or without splits ``X`` and ``y`` (or ``x``, ``images`` and ``labels``,
          ``data`` and ``target``);
        - a name, for which ``<name>.npz``, the folder ``<name>`` and the archives ``<name>.tar.xz`` and
          ``<name>-jpeg.tar.xz`` are looked for in the folder that the environment variable ``SKSSL_DATA`` names, in
          ``../shared/data`` and in `data_home`. Otherwise torchvision loads its data set of that name, one of
          "cifar10", "cifar100", "fashion-mnist", "kmnist", "mnist", "stl10" and "svhn". "imagenet", "imagenet100",
          "miniplaces" and "tiny-imagenet" are folders that you have, see Notes.
    split : str, default="train"
        The split to load, such as "train" or "test". Data without splits are one split, "train".
    data_home : str or path, default=None
        Folder for downloads and decoded archives. None takes the folder that the environment variable ``SKSSL_CACHE``
        names, or ``~/.cache/skssl``.
    download : bool, default=True
        Whether torchvision may download a data set that is not found.
    max_bytes : int or None, default=2**32
        The largest number of bytes that an archive or an ``.npz`` file may unpack to, encoded and decoded, or its own
        size if that is more. A small file could fill the memory otherwise. None sets no limit.
    on_bad_image : {"raise", "skip"}, default="raise"
        Whether an image in a folder or archive that cannot be read is an error, or is left out with a
        `BadImageWarning`. If images differ in size, only their headers are read.

    Returns
    -------
    X : ndarray of uint8 or float32, shape (n, h, w), (n, h, w, c) or (n, c, h, w), list of str, or list of bytes
        The images: floats if all files hold more than 8 bits a value. If they differ in size, the paths of the files in
        a folder, or the contents of the files in an archive; all estimators take both. An array in an ``.npz`` file is
        returned unchanged, whatever its dtype and shape.
    y : ndarray of shape (n,), or None
        The class names if they are known, otherwise integers. None for a folder or archive without class folders.

    Raises
    ------
    FileNotFoundError
        If the path does not exist, or if the data set is not found and cannot be downloaded. The message says where
        it was looked for.
    ValueError
        If the name is unknown; if the data have no such split, not one label for each image, or an image that cannot
        be read; if an archive is cut, damaged or too large; or if the file is of another kind.

    Notes
    -----
    Folders are read as by torchvision's ``ImageFolder``. The class of an image is the first folder below the root, or
    below the split. Images may lie in folders below it, at any depth. Links to files and folders are followed; in an
    archive they are refused. Images are sorted by their paths, so that ``fit(folder)`` sees them in the same order.

    A folder of class folders is a split if it has the name `split` or a usual name such as "train", "val" or "test".
    The class folders beside it are not used. If all folders have usual names of splits, images may also lie in the
    splits without class folders. If a folder holds images but no folders, all images are used and y is None.

    These data sets are read from their usual folders, with the splits "train", "val" and "test". They are not
    downloaded. "test" has no classes. A folder of that name in the working directory is read as any other.

    ===============  ============================================  ==================================================
    name             folder                                        classes
    ===============  ============================================  ==================================================
    "imagenet"       ``imagenet``, ``ILSVRC2012`` or               ``<split>/<WordNet id>``
                     ``ILSVRC/Data/CLS-LOC``
    "imagenet100"    ``imagenet100`` or those of "imagenet"        the 100 of contrastive multiview coding [1]_
    "miniplaces"     ``miniplaces/images`` or                      ``train/<letter>/<scene>``; ``val.txt`` and
                     ``miniplaces/data/images``                    ``categories.txt`` beside ``images``
    "tiny-imagenet"  ``tiny-imagenet-200`` or ``tiny-imagenet``    ``train/<WordNet id>``; ``val/val_annotations.txt``
    ===============  ============================================  ==================================================

    One `BadImageWarning` counts and names the files that are left out: those without the ending of an image file, those
    outside of the splits or class folders, broken links, links to a folder that contains them, and unreadable images.
    Of archives it is given when they are decoded. Hidden files and folders, and files of operating systems such as
    ``Thumbs.db``, are ignored without a message.

    References
    ----------
    .. [1] Tian et al., "Contrastive Multiview Coding", ECCV 2020, and its code.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from skssl.datasets import load_images, make_shapes
    >>> folder = Path(tempfile.mkdtemp())
    >>> X, y = make_shapes(20, random_state=0)
    >>> for i, (image, name) in enumerate(zip(X, y)):
    ...     (folder / name).mkdir(exist_ok=True)
    ...     Image.fromarray(image).save(folder / name / f"{i}.png")
    >>> X_read, y_read = load_images(folder)
    >>> X_read.shape, bool((X_read.sum() == X.sum()))
    ((20, 32, 32, 3), True)
    """
    if max_bytes is not None:
        _check_range("max_bytes", max_bytes, 1)
    skip = pick("on_bad_image", on_bad_image, {"raise": False, "skip": True})
    home = Path(data_home or cache_folder()).expanduser()
    name = os.fspath(name_or_path)
    path = Path(name).expanduser()
    is_name = isinstance(name_or_path, str) and name == path.name and not path.suffix
    if is_name and (name in _TORCHVISION or not path.exists()):
        homes = [Path(os.environ["SKSSL_DATA"]).expanduser()] if os.environ.get("SKSSL_DATA") else []
        homes += [Path("../shared/data"), home]
        found = _find(name, homes)
        if name in KNOWN_FOLDERS and (found is None or found.is_dir()):
            found = find_known_folder(name, homes)
            if found is None:
                raise FileNotFoundError(_not_found(name, homes))
            return _from_folder(found, skip, *known_images(name, found, split))
        if found is None:
            return _from_torchvision(name, split, home, download, homes)
        path = found
    if path.is_dir():
        files, left_out = find_images(path)
        chosen, classes, outside = choose_split(files, split, path)
        return _from_folder(path, skip, chosen, classes, outside | left_out)
    if not path.is_file():
        raise FileNotFoundError(f"name_or_path is {name!r}, but there is no such folder or file.")
    if path.name.endswith(_ARCHIVES):
        return _from_archive(path, split, home, max_bytes, skip)
    return _from_npz(path, split, max_bytes)


def _find(name: str, homes: list[Path]) -> Path | None:
    """Return the first file or folder for a name in the given folders, or None."""
    files = [f"{name}.npz", name, *(f"{name}{tag}{ending}" for tag in ("", "-jpeg") for ending in _ARCHIVES)]
    return next((home / file for home in homes for file in files if (home / file).exists()), None)


def _not_found(name: str, homes: list[Path]) -> str:
    """Return the message for a known folder that is not found."""
    known = KNOWN_FOLDERS[name]
    return (
        f"{name!r} was not found: none of the folders {', '.join(str(home) for home in homes)} holds {name}.npz or "
        f"one of {', '.join(known.folders)} with a folder 'train'. It is not downloaded. {known.source}. Then put it, "
        "or a link to it, into one of these folders, or let the environment variable SKSSL_DATA name the folder of it."
    )


def _from_folder(
    folder: Path, skip: bool, chosen: list[str], classes: list[str] | None, left_out: dict[str, list[str]]
) -> tuple[np.ndarray | list[str], np.ndarray | None]:
    """Load images of a folder; return paths if they differ in size."""
    paths = [str(folder / file) for file in chosen]
    names = [f"The file {path!r}" for path in paths]
    X, y, bad = _decode(paths, names, classes, skip)
    warn_of_left_out(folder, len(X), left_out | {UNREADABLE: [chosen[i] for i in sorted(bad)]}, bad)
    return X, y


def _from_archive(
    archive: Path, split: str, home: Path, max_bytes: int | None, skip: bool
) -> tuple[np.ndarray | list[bytes], np.ndarray | None]:
    """Load an archive of images, by the decoded copy in `home` once it is there."""
    version = hashlib.sha256(repr(file_identity(archive)).encode()).hexdigest()[:16]
    copy = home / f"{archive.name}-{version}.npz"
    if copy.exists():
        try:
            return _from_npz(copy, split, None)
        except (ValueError, OSError) as error:
            if not isinstance(error, _NoSplit):
                warnings.warn(f"The decoded archive is damaged, so it is decoded anew. {error}", stacklevel=3)
    files, left_out = read_tar(archive, image_endings(), max_bytes)
    parts: dict[str, tuple[Any, np.ndarray | None]] = {}
    complete = True
    for part in [split, *split_names([name.split("/") for name in files], split)]:
        if part in parts or not complete:  # the other splits are decoded only if they can be cached
            continue
        chosen, classes, outside = choose_split(files, part, archive)
        names = [f"The file {name!r} in {str(archive)!r}" for name in chosen]
        check = partial(check_decoded_size, archive, max_bytes=max_bytes)
        X, y, bad = _decode([files[name] for name in chosen], names, classes, skip, check)
        parts[part] = X, y
        complete = complete and isinstance(X, np.ndarray) and y is not None and not bad
        if part == split:
            unread = {UNREADABLE: [chosen[i] for i in sorted(bad)]}
            warn_of_left_out(archive, len(X), outside | {NO_IMAGE: left_out} | unread, bad)
    if complete:
        arrays = {f"{key}_{part}": array for part, pair in parts.items() for key, array in zip("Xy", pair, strict=True)}
        with suppress(OSError), write_to_cache(copy) as file:  # if that fails, the archive is decoded every time
            np.savez(file, allow_pickle=False, **arrays)
    return parts[split]


def _decode(
    files: list[Any],
    names: list[str],
    classes: list[str] | None,
    skip: bool,
    check: Callable[[Sequence[int]], None] | None = None,
) -> tuple[Any, np.ndarray | None, dict[int, str]]:
    """Decode images of one size, or return the files if they differ in size.

    Return them with their classes, and the errors of images that cannot be read and were left out. `check` refuses a
    shape of the decoded images.
    """
    bad: dict[int, str] = {}
    found = inspect_images(files, names.__getitem__, bad if skip else None)
    sizes = {header[1] for header in found if header is not None}
    while True:
        kept = [i for i in range(len(files)) if i not in bad]
        X: Any = [files[i] for i in kept]
        unread: dict[int, str] = {}
        if len(sizes) == 1:
            if check is not None:
                check((len(kept), *min(sizes), 3))
            name, headers = [names[i] for i in kept].__getitem__, [found[i] for i in kept]
            X = decode_images(X, name, bad=unread if skip else None, headers=headers)
        if not unread:
            return X, None if classes is None else np.array([classes[i] for i in kept]), bad
        bad |= {kept[k]: reason for k, reason in unread.items()}  # the rest is decoded once more, without them


class _NoSplit(ValueError):
    """An ``.npz`` file lacks a split."""


def _from_npz(path: Path, split: str, max_bytes: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Load a split from an ``.npz`` file."""
    pairs = [
        (f"X_{split}", f"y_{split}"),
        (f"x_{split}", f"y_{split}"),
        (f"{split}_images", f"{split}_labels"),
    ]
    if split == "train":
        pairs += [("X", "y"), ("x", "y"), ("images", "labels"), ("data", "target")]
    found = read_npz(path, pairs, max_bytes)
    if isinstance(found, list):
        raise _NoSplit(
            f"{str(path)!r} has no split {split!r}. One of the pairs {', '.join(map(str, pairs))} was expected, but "
            f"its arrays are {found[:10]}{' and others' if len(found) > 10 else ''}."
        )
    return found


def _from_torchvision(
    name: str, split: str, home: Path, download: bool, homes: list[Path]
) -> tuple[np.ndarray, np.ndarray]:
    """Load a data set by torchvision."""
    class_name, parameter = pick("data set", name, dict.fromkeys(KNOWN_FOLDERS, ("", "")) | _TORCHVISION)
    if parameter == "train" and split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test' for {name!r}. Got {split!r}.")
    from torchvision import datasets

    try:
        with connection_timeout():
            data = getattr(datasets, class_name)(
                home / "torchvision",  # a folder with the data set's name would be read as class folders
                **{parameter: split == "train" if parameter == "train" else split},
                download=download,
            )
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"{name!r} was not found in the folders {', '.join(str(home) for home in homes)}, and "
            f"{'its download failed' if download else 'download=False'}. Put it into one of them. Error: {error}"
        ) from error
    y = np.asarray(data.targets if hasattr(data, "targets") else data.labels)
    return np.asarray(data.data), np.asarray(data.classes)[y] if hasattr(data, "classes") else y


@contextmanager
def connection_timeout(seconds: float = 10.0) -> Iterator[None]:
    """Set a timeout for new connections inside a ``with`` block, as torchvision sets none for its downloads.

    Parameters
    ----------
    seconds : float, default=10.0
        The timeout.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


# Generated images. A shape is its signed distance function: negative inside, in units of its radius, y pointing down.
# The maximum of two distances is the intersection of two shapes, the minimum their union.


def _polygon(x: np.ndarray, y: np.ndarray, n_sides: int, inner: float) -> np.ndarray:
    """Return the signed distance to a regular polygon with a corner at the top and this inner radius."""
    angles = 2 * np.pi * (np.arange(n_sides) + 0.5) / n_sides
    return np.max([np.sin(angle) * x - np.cos(angle) * y for angle in angles], axis=0) - inner


def _box(x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
    """Return the signed distance to a rectangle; width and height are half of its sides."""
    return np.maximum(np.abs(x) - width, np.abs(y) - height)


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the signed distance to a star of five points, one at the top."""
    half = np.pi / 5
    angle, radius = np.abs((np.arctan2(x, -y) + half) % (2 * half) - half), np.hypot(x, y)
    point, dent = np.array([1.1, 0.0]), 0.5 * np.array([np.cos(half), np.sin(half)])  # the ends of an edge
    along = (dent - point) / np.linalg.norm(dent - point)
    return (radius * np.sin(angle) - point[1]) * -along[0] + (radius * np.cos(angle) - point[0]) * along[1]


_SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "disc": lambda x, y: np.hypot(x, y) - 0.85,
    "square": lambda x, y: _box(x, y, 0.75, 0.75),
    "triangle": lambda x, y: _polygon(x, y - 0.2, 3, 0.55),
    "cross": lambda x, y: np.minimum(_box(x, y, 0.95, 0.3), _box(x, y, 0.3, 0.95)),
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.7) - 0.22,
    "star": _star,
    "crescent": lambda x, y: np.maximum(np.hypot(x, y) - 0.95, 0.75 - np.hypot(x - 0.45, y + 0.25)),
    "arrow": lambda x, y: np.minimum(_polygon(x, y + 0.25, 3, 0.4), _box(x, y - 0.45, 0.25, 0.5)),
}
_MIN_SHAPES, _MAX_SHAPES = 6, 12  # in an image


def make_shapes(
    n_samples: int = 2000,
    *,
    image_size: int = 32,
    n_classes: int = 8,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Generate images of scattered shapes; the class is the kind of shape.

    The set needs no download. Places, sizes, colours and backgrounds are random, so that only the form tells the
    classes apart: a small network finds it, but a linear classifier or nearest neighbours on the pixels do not. As in
    photographs, the parts of an image belong together and there is an upright direction: shapes are tilted only a
    little, light comes from above, and shadows fall below.

    Parameters
    ----------
    n_samples : int, default=2000
        Number of images. The sizes of the classes differ by at most one.
    image_size : int, default=32
        Height and width in pixels, at least 8.
    n_classes : int, default=8
        Number of shapes to use, from 2 to 8, in the order disc, square, triangle, cross, ring, star, crescent,
        arrow.
    random_state : int, RandomState or None, default=None
        Seed of all draws.

    Returns
    -------
    X : ndarray of uint8, shape (n_samples, image_size, image_size, 3)
        The images, in random order.
    y : ndarray of str, shape (n_samples,)
        The names of the shapes.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(100, n_classes=3, random_state=0)
    >>> X.shape, X.dtype, sorted(set(y.tolist()))
    ((100, 32, 32, 3), dtype('uint8'), ['disc', 'square', 'triangle'])
    """
    _check_range("n_samples", n_samples, 1)
    _check_range("image_size", image_size, 8)
    _check_range("n_classes", n_classes, 2, len(_SHAPES))
    rng = check_random_state(random_state)
    names = np.array(list(_SHAPES)[:n_classes])
    target = rng.permutation(np.arange(n_samples) % n_classes)

    def draw(low: float, high: float, *shape: int) -> np.ndarray:
        """Draw uniformly, by default one number for each image."""
        return rng.uniform(low, high, (n_samples, *(shape or (1, 1)))).astype(np.float32)

    down, right = _pixel_grid(image_size)
    brightness, image = _backgrounds(rng, n_samples, image_size)

    count = rng.randint(_MIN_SHAPES, _MAX_SHAPES + 1, n_samples)
    for i in range(_MAX_SHAPES):
        # The coordinates of the pixels in units of the shape's radius
        radius = draw(0.22, 0.34)
        reach = 1.05 - radius
        tilt = draw(-np.pi / 12, np.pi / 12)
        x, y = _own_axes(right - reach * draw(-1, 1), down - reach * draw(-1, 1), radius, tilt)
        kinds = np.where(count > i, target, -1)
        cover = (0.5 - _distances(kinds, x, y) * (image_size / 2 * radius)).clip(0, 1)  # an edge of one pixel
        shadow = (0.5 - 2 * _distances(kinds, x, y - 0.25)).clip(0, 1)

        # The shape: lighter or darker than the background, brighter at its top
        image *= 1 - 0.35 * shadow[..., None]
        step = draw(0.25, 0.5, 1, 1, 1) * np.sign(draw(-1, 1, 1, 1, 1))
        colour = brightness + step + draw(-0.25, 0.25, 1, 1, 3)
        image += cover[..., None] * (colour * (1 - 0.15 * y.clip(-1, 1))[..., None] - image)
    image += draw(0, 0.04, 1, 1, 1) * rng.standard_normal(image.shape).astype(np.float32)
    return (image.clip(0, 1) * 255).round().astype(np.uint8), names[target]


def make_rings(
    n_samples: int = 600,
    *,
    image_size: int = 24,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Generate images of a disc, a ring, or a ring with a dot, on a dark, noisy background.

    The set needs no download. It is much easier than `make_shapes`: a small network improves on its random weights in
    seconds. Places, sizes and colours are random, and no side is up.

    Parameters
    ----------
    n_samples : int, default=600
        Number of images. The sizes of the classes differ by at most one.
    image_size : int, default=24
        Height and width in pixels, at least 8.
    random_state : int, RandomState or None, default=None
        Seed of all draws.

    Returns
    -------
    X : ndarray of uint8, shape (n_samples, image_size, image_size, 3)
        The images, in random order.
    y : ndarray of str, shape (n_samples,)
        The classes: "disc", "ring" or "target", the ring with a dot.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> from skssl.datasets import make_rings
    >>> X, y = make_rings(100, random_state=0)
    >>> X.shape, X.dtype, sorted(set(y.tolist()))
    ((100, 24, 24, 3), dtype('uint8'), ['disc', 'ring', 'target'])
    """
    _check_range("n_samples", n_samples, 1)
    _check_range("image_size", image_size, 8)
    rng = check_random_state(random_state)
    kind = rng.permutation(np.arange(n_samples) % 3)[:, None, None]
    down, right = _pixel_grid(image_size)
    radius, x, y = rng.uniform([[0.33], [-0.25], [-0.25]], [[0.6], [0.25], [0.25]], (3, n_samples))[..., None, None]
    distance = np.hypot(right - x, down - y)
    covered = np.where(kind == 0, distance < radius, abs(distance - radius) < 0.1) | ((kind == 2) & (distance < 0.17))
    image = 0.25 + rng.uniform(0.1, 0.7, (n_samples, 1, 1, 3)) * covered[..., None]
    image += 0.08 * rng.standard_normal(covered.shape)[..., None]
    return (image.clip(0, 1) * 255).round().astype(np.uint8), np.array(["disc", "ring", "target"])[kind[:, 0, 0]]


_MOTIONS = ("slide", "fall", "grow", "spin")


def make_clips(
    n_samples: int = 500,
    *,
    n_frames: int = 8,
    image_size: int = 32,
    n_classes: int = 4,
    n_silent: int = 1,
    sample_rate: int = 4000,
    return_masks: bool = False,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[np.ndarray, ...]:
    """Generate clips of a shape that moves and sounds; the classes are the kind of shape and the kind of motion.

    The set needs no download. The pitch of the tone is that of the shape, and the tone follows its motion: it is steady
    while the shape slides, falls and rises with it, swells as it grows, and beats while it spins. Other shapes, a
    crescent and an arrow, stand still and make no sound. Places, sizes, colours and backgrounds are random.

    Parameters
    ----------
    n_samples : int, default=500
        Number of clips. The sizes of the classes differ by at most one.
    n_frames : int, default=8
        Frames of a clip, at least 2.
    image_size : int, default=32
        Height and width in pixels, at least 8.
    n_classes : int, default=4
        Number of shapes that sound, from 2 to 6, in the order disc, square, triangle, cross, ring, star.
    n_silent : int, default=1
        Number of shapes in a clip that stand still and make no sound.
    sample_rate : int, default=4000
        Samples of the waveform in a second, which is the length of a clip; at least 4000.
    return_masks : bool, default=False
        Whether to return where the sounding shape is.
    random_state : int, RandomState or None, default=None
        Seed of all draws.

    Returns
    -------
    clips : ndarray of uint8, shape (n_samples, n_frames, image_size, image_size, 3)
        The clips, in random order.
    waveforms : ndarray of float32, shape (n_samples, sample_rate)
        The sound of each clip, in [-1, 1].
    shapes : ndarray of str, shape (n_samples,)
        The names of the sounding shapes.
    motions : ndarray of str, shape (n_samples,)
        How they move: "slide", "fall", "grow" or "spin", in one direction or the opposite one.
    masks : ndarray of bool, shape (n_samples, n_frames, image_size, image_size)
        Whether a pixel is in the sounding shape. Only returned if `return_masks` is true.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> from skssl.datasets import make_clips
    >>> clips, waveforms, shapes, motions = make_clips(48, random_state=0)
    >>> clips.shape, waveforms.shape, sorted(set(motions.tolist()))
    ((48, 8, 32, 32, 3), (48, 4000), ['fall', 'grow', 'slide', 'spin'])
    """
    _check_range("n_samples", n_samples, 1)
    _check_range("n_frames", n_frames, 2)
    _check_range("image_size", image_size, 8)
    _check_range("n_classes", n_classes, 2, len(_SHAPES) - 2)
    _check_range("n_silent", n_silent, 0)
    _check_range("sample_rate", sample_rate, 4000)
    rng = check_random_state(random_state)
    kind, motion = np.divmod(rng.permutation(np.arange(n_samples) % (n_classes * len(_MOTIONS))), len(_MOTIONS))

    def draw(low: float, high: float, *shape: int) -> np.ndarray:
        """Draw uniformly, by default one number for each clip."""
        return rng.uniform(low, high, (n_samples, *(shape or (1, 1)))).astype(np.float32)

    down, right = _pixel_grid(image_size)
    brightness, background = _backgrounds(rng, n_samples, image_size)
    background = brightness + 0.4 * (background - brightness)

    def paint(image: np.ndarray, kinds: np.ndarray, place: Any, radius: Any, tilt: Any, colour: Any) -> np.ndarray:
        """Paint a shape on each image, brighter at its top; return whether pixels are in it."""
        x, y = _own_axes(right - place[0], down - place[1], radius, tilt)
        cover = (0.5 - _distances(kinds, x, y) * (image_size / 2 * radius)).clip(0, 1)
        image += cover[..., None] * (colour * (1 - 0.4 * y.clip(-1, 1))[..., None] - image)
        return cover > 0.5

    def draw_colour() -> np.ndarray:
        """Draw colours that are lighter or darker than the background."""
        step = draw(0.25, 0.5, 1, 1, 1) * np.sign(draw(-1, 1, 1, 1, 1))
        return brightness + step + draw(-0.25, 0.25, 1, 1, 3)

    for _ in range(n_silent):
        silent, place = len(_SHAPES) - 1 - rng.randint(2, size=n_samples), (draw(-0.8, 0.8), draw(-0.8, 0.8))
        paint(background, silent, place, draw(0.25, 0.4), draw(-np.pi / 12, np.pi / 12), draw_colour())

    # The course of a motion goes from -1 to 1, or back. At its middle the shape is where and as it was drawn.
    slides, falls, grows, spins = (motion[:, None, None] == k for k in range(len(_MOTIONS)))
    way, radius, tilt, colour = np.sign(draw(-1, 1)), draw(0.4, 0.48), draw(-np.pi / 12, np.pi / 12), draw_colour()
    reach = 0.95 - radius * np.where(grows, 1.5, 1)
    x, y = (draw(-1, 1) * (reach - 0.4 * moves) for moves in (slides, falls))
    noise = draw(0, 0.04, 1, 1, 1)
    clips = np.empty((n_samples, n_frames, image_size, image_size, 3), np.uint8)
    masks = np.empty(clips.shape[:-1], bool)
    for i, course in enumerate(way * step for step in np.linspace(-1, 1, n_frames, dtype=np.float32)):
        image, place = background.copy(), (x + 0.4 * course * slides, y + 0.4 * course * falls)
        size, angle = radius * 1.5 ** (course * grows), tilt + np.pi / 2 * course * spins
        masks[:, i] = paint(image, kind, place, size, angle, colour)
        image += noise * rng.standard_normal(image.shape).astype(np.float32)
        clips[:, i] = (image.clip(0, 1) * 255).round()

    slides, falls, grows, spins, way = (of[:, 0] for of in (slides, falls, grows, spins, way))
    second = np.linspace(0, 1, sample_rate, endpoint=False, dtype=np.float32)
    course = way * (2 * second - 1)
    pitch = 150 * 1.35 ** kind[:, None] * draw(0.97, 1.03, 1) * 2 ** (-0.3 * course * falls)
    loudness = np.where(spins, 0.55 + 0.45 * np.cos(16 * np.pi * second), 1) * np.exp(1.2 * (course - 1) * grows)
    phase = 2 * np.pi * (np.cumsum(pitch, 1) / sample_rate + draw(0, 1, 1))
    waveforms = draw(0.3, 0.6, 1) * loudness * (np.sin(phase) + 0.5 * np.sin(2 * phase))
    waveforms = (waveforms + 0.02 * rng.standard_normal(waveforms.shape)).clip(-1, 1).astype(np.float32)
    found = clips, waveforms, np.array(list(_SHAPES))[kind], np.array(_MOTIONS)[motion]
    return (*found, masks) if return_masks else found


def _pixel_grid(image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the rows, (1, s, 1), and of the columns, (1, 1, s), from -1 to 1."""
    grid = (np.arange(image_size, dtype=np.float32) + 0.5) / image_size * 2 - 1
    return grid[None, :, None], grid[None, None, :]


def _backgrounds(rng: np.random.RandomState, n_samples: int, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean brightness (n, 1, 1, 1) and the pixels (n, s, s, 3) of cloudy backgrounds, lit from above."""
    down, right = _pixel_grid(image_size)

    def draw(low: float, high: float, *shape: int) -> np.ndarray:
        return rng.uniform(low, high, (n_samples, *shape)).astype(np.float32)

    angle = draw(0, 2 * np.pi, 1, 1)
    mix = 0.5 + 0.5 * (np.cos(angle) * right + np.sin(angle) * down)
    brightness = draw(0.3, 0.7, 1, 1, 1)
    ends = brightness[:, None] + draw(-0.2, 0.2, 2, 1, 1, 3)
    image = ends[:, 0] + mix[..., None] * (ends[:, 1] - ends[:, 0])  # a gradient of two colours
    image += draw(0, 0.3, 1, 1, 1) * _clouds(rng, n_samples, image_size)[..., None]
    return brightness, image * (1 - 0.25 * down)[..., None]


def _own_axes(across: Any, below: Any, radius: Any, tilt: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates of pixels in units of a shape's radius, by their distance from its centre."""
    x = (np.cos(tilt) * across + np.sin(tilt) * below) / radius
    return x, (np.cos(tilt) * below - np.sin(tilt) * across) / radius


def _distances(kinds: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the signed distances (n, s, s) to the shapes of the given numbers, infinite where the number is -1."""
    found = np.full(x.shape, np.inf, np.float32)
    for k, distance in enumerate(_SHAPES.values()):
        found[kinds == k] = distance(x[kinds == k], y[kinds == k])
    return found


def _check_range(parameter: str, value: int, low: int, high: float = math.inf) -> None:
    """Refuse a parameter that is out of range."""
    if not low <= value <= high:
        expected = f"at least {low}" if high == math.inf else f"from {low} to {high}"
        raise ValueError(f"{parameter} must be {expected}. Got {value}.")


def _clouds(rng: np.random.RandomState, n_samples: int, image_size: int) -> np.ndarray:
    """Return smooth noise of three scales, (n, s, s), with amplitudes of about 0.1."""
    clouds = np.zeros((n_samples, image_size, image_size), np.float32)
    for cells in (3, 6, 12):
        place = np.linspace(0, cells, image_size, dtype=np.float32)[:, None]
        weight = (1 - np.abs(place - np.arange(cells + 1, dtype=np.float32))).clip(0)  # linear interpolation
        noise = rng.standard_normal((n_samples, cells + 1, cells + 1)).astype(np.float32)
        clouds += 0.1 * (weight @ noise @ weight.T)
    return clouds


_ANNOTATION = """<annotation>
  <filename>{name}.jpg</filename>
  <size><width>{side}</width><height>{side}</height><depth>3</depth></size>
  <segmented>1</segmented>
{objects}</annotation>
"""
_OBJECT = """  <object>
    <name>{name}</name><difficult>0</difficult>
    <bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox>
  </object>
"""


def make_voc_folder(
    folder: str | os.PathLike[str],
    n_samples: int = 32,
    *,
    image_size: int = 64,
    random_state: int | np.random.RandomState | None = None,
) -> Path:
    """Generate images of discs and squares with boxes and masks, as a folder in the format of PASCAL VOC.

    The set needs no download and serves detection and segmentation. Each image has one to three objects, red discs
    and green squares of random shades, on a bluish, noisy background.

    Parameters
    ----------
    folder : str or path
        The folder to write, created if it does not exist.
    n_samples : int, default=32
        Number of images, at least 2. The first half is the split "train", the second "val".
    image_size : int, default=64
        Height and width in pixels, at least 32.
    random_state : int, RandomState or None, default=None
        Seed of all draws.

    Returns
    -------
    Path
        The folder, with ``JPEGImages``, ``Annotations``, ``SegmentationClass`` and ``ImageSets``. In the masks, 0 is
        the background, 1 a disc, 2 a square and 255 (void) the edge of an object.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> import tempfile
    >>> from skssl.datasets import make_voc_folder
    >>> folder = make_voc_folder(tempfile.mkdtemp(), 4, random_state=0)
    >>> sorted(path.name for path in folder.iterdir())
    ['Annotations', 'ImageSets', 'JPEGImages', 'SegmentationClass']
    """
    from PIL import Image

    _check_range("n_samples", n_samples, 2)
    _check_range("image_size", image_size, 32)
    rng, root = check_random_state(random_state), Path(folder)
    for part in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True, exist_ok=True)
    names = [f"{i:06d}" for i in range(n_samples)]
    grid = np.arange(image_size) + 0.5
    quarter = image_size / 4  # each object lies in a quarter of its own
    for name in names:
        image = rng.uniform((0, 0, 60), (60, 60, 160)) + rng.normal(0, 10, (image_size, image_size, 3))
        mask, objects = np.zeros((image_size, image_size), np.uint8), ""
        for place in rng.choice(4, rng.randint(1, 4), replace=False):
            k, radius = rng.randint(2), rng.uniform(0.5, 0.85) * quarter
            y, x = (2 * (np.array(divmod(place, 2))) + 1) * quarter + rng.uniform(-1, 1, 2) * (quarter - radius)
            kind = ("disc", "square")[k]
            distance = radius * _SHAPES[kind](*np.meshgrid((grid - x) / radius, (grid - y) / radius))
            rows, columns = (np.flatnonzero((distance < 0).any(axis)) for axis in (1, 0))
            image[distance < 0] = rng.uniform(*(((150, 0, 0), (255, 60, 60)), ((0, 130, 0), (60, 220, 60)))[k])
            mask[distance < 0] = k + 1
            mask[np.abs(distance) < 0.5] = 255
            objects += _OBJECT.format(
                name=kind, left=columns[0] + 1, top=rows[0] + 1, right=columns[-1] + 1, bottom=rows[-1] + 1
            )
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
        values = Image.fromarray(mask)
        values.putpalette([0, 0, 0, 200, 0, 0, 0, 180, 0] + [255] * 759)
        values.save(root / "SegmentationClass" / f"{name}.png")
        text = _ANNOTATION.format(name=name, side=image_size, objects=objects)
        (root / "Annotations" / f"{name}.xml").write_text(text)
    for kind in ("Main", "Segmentation"):
        for split, listed in (("train", names[: n_samples // 2]), ("val", names[n_samples // 2 :])):
            (root / "ImageSets" / kind / f"{split}.txt").write_text("\n".join(listed) + "\n")
    return root
