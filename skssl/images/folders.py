"""Folders of image files: which files below a folder are images, their splits and classes, and what is left out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from skssl.errors import BadImageWarning
from skssl.images.image_files import image_endings

#: The names that folders of splits usually have.
SPLITS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing", "extra", "unlabeled")
_SYSTEM_FILES = ("thumbs.db", "desktop.ini", "__macosx", "@eadir")  # names in lower case
_NAMED = 3  # files that a message names for each reason
# Why files are left out, after their number.
NO_IMAGE = "without the ending of an image file"
NO_CLASS = "in no class folder"
BROKEN = "with a broken link"
CIRCULAR = "with a link to a folder that contains it"
UNREADABLE = "that cannot be read"


def is_folder(X: Any) -> bool:
    """Return whether X is a path, and refuse the path of anything but a folder.

    Parameters
    ----------
    X : object
        Any object.

    Returns
    -------
    bool
        Whether it is a str or a path-like.

    Raises
    ------
    FileNotFoundError
        If the path does not exist.
    NotADirectoryError
        If it is a file.
    """
    if not isinstance(X, (str, os.PathLike)):
        return False
    path = os.path.expanduser(X)
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"X is the path {os.fspath(X)!r}, but there is no such folder. Pass a folder or a list of paths; "
            "skssl.datasets.load_images loads data sets by name."
        )
    if not os.path.isdir(path):
        raise NotADirectoryError(
            f"X is the path of a file, {os.fspath(X)!r}, but a folder was expected. Pass [{os.fspath(X)!r}] for one "
            "image; skssl.datasets.load_images reads archives and .npz files."
        )
    return True


def expand_folder(X: Any) -> Any:
    """Return the paths of the images below a folder, and any other X unchanged.

    Parameters
    ----------
    X : object
        Images, as `as_images` reads them.

    Returns
    -------
    object
        X, or a list of str.

    Raises
    ------
    OSError
        If `X` is a path, but not that of a folder that can be read.
    ValueError
        If there is no image file below the folder.
    """
    return image_paths(X) if is_folder(X) else X


def find_images(folder: str | os.PathLike[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Find all image files below a folder, as torchvision's ``ImageFolder`` does.

    Subfolders are searched at any depth, and links are followed. Hidden files and folders, whose names begin with a
    dot, and files of operating systems such as ``Thumbs.db`` are not counted.

    Parameters
    ----------
    folder : str or path-like
        The folder.

    Returns
    -------
    files : list of str
        The sorted paths relative to the folder, with "/" between their parts. They are the files with the ending of
        an image file, and may still be damaged.
    left_out : dict of str to list of str
        The paths of all other files by the reason, as for `warn_of_left_out`.

    Raises
    ------
    OSError
        If a folder cannot be read.
    """
    endings = image_endings()
    files: list[str] = []
    left_out: dict[str, list[str]] = {NO_IMAGE: [], BROKEN: [], CIRCULAR: []}
    pending: list[tuple[str, str, tuple[tuple[int, int], ...]]] = [(os.path.expanduser(folder), "", ())]
    while pending:
        path, relative, above = pending.pop()
        status = os.stat(path)
        identity = status.st_dev, status.st_ino
        if identity in above:
            left_out[CIRCULAR].append(relative[:-1])
            continue
        with os.scandir(path) as entries:
            for entry in entries:
                name = relative + entry.name
                if is_hidden(entry.name):
                    continue
                if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                    pending.append((entry.path, name + "/", (*above, identity)))
                elif name.lower().endswith(endings):
                    files.append(name)
                else:
                    left_out[NO_IMAGE if os.path.exists(entry.path) else BROKEN].append(name)
    return sorted(files), {reason: sorted(names) for reason, names in left_out.items()}


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or belongs to an operating system.

    Parameters
    ----------
    name : str
        Its name, without the folder.

    Returns
    -------
    bool
        Such files are left out without a message.

    Examples
    --------
    >>> is_hidden(".ipynb_checkpoints"), is_hidden("Thumbs.db"), is_hidden("cat.jpg")
    (True, True, False)
    """
    return name.startswith(".") or name.lower() in _SYSTEM_FILES


def image_paths(folder: str | os.PathLike[str]) -> list[str]:
    """Return the paths of all image files below a folder, in sorted order, and warn of what is left out.

    Parameters
    ----------
    folder : str or path-like
        The folder.

    Returns
    -------
    list of str
        The paths.

    Raises
    ------
    ValueError
        If there is no image file.
    OSError
        If a folder cannot be read.
    """
    files, left_out = find_images(folder)
    if not files:
        raise ValueError(
            f"{os.fspath(folder)!r} contains no image files, but files such as a.jpg or a/b.png were expected."
            + summarize(left_out)
        )
    warn_of_left_out(folder, len(files), left_out)
    return [os.path.join(os.path.expanduser(folder), *file.split("/")) for file in files]


def class_names(folder: str | os.PathLike[str]) -> list[str | None]:
    """Return the class of each image below a folder: the name of its class folder.

    Parameters
    ----------
    folder : str or path-like
        The folder of ``<class>/<file>`` or ``<split>/<class>/<file>``.

    Returns
    -------
    list of str or None
        The classes, in the order of `image_paths`. None for an image that lies in no class folder.
    """
    return classes_of(find_images(folder)[0])


def classes_of(files: Iterable[str]) -> list[str | None]:
    """Return the class of each file below a folder: the name of its class folder.

    Parameters
    ----------
    files : iterable of str
        Paths relative to the folder, with "/" between their parts: ``<class>/<file>`` or ``<split>/<class>/<file>``.

    Returns
    -------
    list of str or None
        The classes. None for a file that lies in no class folder.

    Examples
    --------
    >>> classes_of(["cat/a.mp4", "dog/b.mp4", "c.mp4"])
    ['cat', 'dog', None]
    """
    paths = [file.split("/") for file in files]
    depth = 1 if split_names(paths, "train") else 0
    return [steps[depth] if len(steps) > depth + 1 else None for steps in paths]


def choose_split(
    files: Iterable[str], split: str, where: str | os.PathLike[str]
) -> tuple[list[str], list[str] | None, dict[str, list[str]]]:
    """Choose the images of a split, and read their classes from the names of the folders.

    Parameters
    ----------
    files : iterable of str
        Paths of image files, relative to the folder or archive.
    split : str
        The split.
    where : str or path-like
        The folder or archive, for messages.

    Returns
    -------
    chosen : list of str
        The images at ``<split>/<class>/...``, or at ``<class>/...`` if there are no splits and `split` is "train". A
        class is the first folder; an image may lie in a folder below it.
    classes : list of str or None
        The class of each. None if all images lie in one folder without class folders.
    left_out : dict of str to list of str
        Images that belong to no split or class, by the reason.

    Raises
    ------
    ValueError
        If there is no such split.
    """
    paths = [file.split("/") for file in sorted(files)]
    splits = split_names(paths, split)
    left_out: dict[str, list[str]] = {}
    if split in splits:
        outside = [steps for steps in paths if steps[0] not in splits or len(steps) == 1]
        left_out[f"beside the split folders {', '.join(splits)}"] = ["/".join(steps) for steps in outside]
        paths = [steps for steps in paths if steps[0] == split and len(steps) > 1]
        depth = 1
    elif split == "train" and not splits and paths:
        depth = 0
    else:
        raise ValueError(
            f"{os.fspath(where)!r} has no split {split!r}. Images at {split}/<class>/<file> were expected, or at "
            f"<class>/<file> if all are for training. Its splits are {splits}."
        )
    in_classes = [steps for steps in paths if len(steps) > depth + 1]
    if not in_classes:
        return ["/".join(steps) for steps in paths], None, left_out
    left_out[NO_CLASS] = ["/".join(steps) for steps in paths if len(steps) == depth + 1]
    return ["/".join(steps) for steps in in_classes], [steps[depth] for steps in in_classes], left_out


def split_names(paths: Iterable[list[str]], split: str) -> list[str]:
    """Return the names of the folders that are splits.

    Parameters
    ----------
    paths : iterable of list of str
        The parts of the paths of image files.
    split : str
        The split that is asked for.

    Returns
    -------
    list of str
        The first folders, sorted. If all have usual names of splits, all are splits. If one of them has such a name,
        or the name `split`, and contains class folders, it is a split, and so are all others that contain nothing but
        class folders. A single folder of class folders is a split of any name.
    """
    direct: set[str] = set()
    nested: set[str] = set()
    for steps in paths:
        if len(steps) > 1:
            (direct if len(steps) == 2 else nested).add(steps[0])
    tops = direct | nested
    if tops <= set(SPLITS) or (len(tops) == 1 and not direct):
        return sorted(tops)
    if named := nested & {*SPLITS, split}:
        return sorted((nested - direct) | named)
    return []


def summarize(left_out: Mapping[str, list[str]]) -> str:
    """Return how many files are left out, for which reasons, and the names of the first ones.

    Parameters
    ----------
    left_out : mapping of str to list of str
        The names of the files by the reason, such as "in no class folder".

    Returns
    -------
    str
        A sentence that begins with a space. Empty if no file is left out.

    Examples
    --------
    >>> summarize({"in no class folder": ["a.png", "b.png"], "that cannot be read": []})
    " Left out: 2 in no class folder ('a.png', 'b.png')."
    """
    parts = []
    for reason, names in left_out.items():
        if names:
            first = ", ".join(map(repr, names[:_NAMED])) + (", ..." if len(names) > _NAMED else "")
            parts.append(f"{len(names)} {reason} ({first})")
    return f" Left out: {'; '.join(parts)}." if parts else ""


def warn_of_left_out(
    where: str | os.PathLike[str],
    n_found: int,
    left_out: Mapping[str, list[str]],
    bad: Mapping[int, str] | None = None,
) -> None:
    """Warn of files in a folder that are left out, in one message.

    Parameters
    ----------
    where : str or path-like
        The folder or archive.
    n_found : int
        The number of images that are not left out.
    left_out : mapping of str to list of str
        As for `summarize`.
    bad : mapping of int to str, default=None
        The errors of images that cannot be read. The first one is quoted.
    """
    if summary := summarize(left_out):
        error = f" The first error: {bad[min(bad)]}" if bad else ""
        warnings.warn(f"Found {n_found} images in {os.fspath(where)!r}.{summary}{error}", BadImageWarning, stacklevel=4)
