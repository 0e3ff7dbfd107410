"""Folders in PASCAL VOC's format: splits, images, objects and masks."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from skssl.errors import pick
from skssl.images.base import describe
from skssl.images.image_files import decode_image, open_image

VOID = 255  # value of pixels without a class


class VOCObject(NamedTuple):
    """An object: its class, its box (left, top, right, bottom) in pixels, and whether it is difficult to recognise."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


def read_objects(path: str | os.PathLike[str]) -> list[VOCObject]:
    """Read the objects of an annotation.

    Parameters
    ----------
    path : str or path
        The XML file. Its boxes consist of the first and the last pixel, counted from 1.

    Returns
    -------
    list of VOCObject
        The objects. Boxes go from edge to edge: (0, 0, width, height) is the whole image.

    Raises
    ------
    ValueError
        If the file is not an annotation in PASCAL VOC's format, or a box has no area.
    """
    found = []
    try:
        for node in ElementTree.parse(path).getroot().iter("object"):
            corners = [float(node.findtext(f"bndbox/{of}", "missing")) for of in ("xmin", "ymin", "xmax", "ymax")]
            box = (corners[0] - 1, corners[1] - 1, corners[2], corners[3])
            name = node.findtext("name", "").strip()
            if not (name and box[0] < box[2] and box[1] < box[3] and all(map(math.isfinite, box))):
                raise ValueError(f"an object {name!r} has the corners {corners}")
            found.append(VOCObject(name, box, node.findtext("difficult", "0").strip() == "1"))
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is not an annotation in PASCAL VOC's format: {error}.") from error
    return found


def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a mask, uint8 (h, w), whose values are classes."""
    with open_image(path, f"The file {str(path)!r}", "a mask") as mask:
        mode, values = mask.mode, np.asarray(mask)
    if mode not in ("P", "L"):
        raise ValueError(
            f"{str(path)!r} has mode {mode}, but a palette (P) or grey (L) image is expected, whose values are classes."
        )
    return values


def find_files(
    folder: str | os.PathLike[str], split: str, lists: str, annotations: str, ending: str
) -> list[tuple[Path, Path]]:
    """Return the images of a split, each with its annotation file."""
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(
            f"The first argument must be the path of a folder in PASCAL VOC's format. Got {describe(folder)}."
        )
    root = Path(folder)
    parts = ("JPEGImages", f"ImageSets/{lists}", annotations)
    for part in parts:
        if not (root / part).is_dir():
            raise FileNotFoundError(
                f"{str(root)!r} is not a folder in PASCAL VOC's format: it lacks {part}. Expected {', '.join(parts)}."
            )
    splits = {path.stem: path for path in sorted((root / parts[1]).glob("*.txt"))}
    try:
        lines = pick("split", split, splits).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"The split {split!r} of {str(root)!r} cannot be read as text: {error}.") from error
    names = [line.split()[0] for line in lines if line.strip()]
    if not names:
        raise ValueError(f"The split {split!r} of {str(root)!r} has no images.")
    images = {path.stem: path for path in sorted((root / parts[0]).iterdir())}
    files = []
    for name in names:
        annotation = root / annotations / f"{name}{ending}"
        if name not in images or not annotation.is_file():
            lacking = f"annotation {str(annotation)!r}" if name in images else f"file in {str(root / parts[0])!r}"
            raise FileNotFoundError(f"The image {name!r} of the split {split!r} has no {lacking}.")
        files.append((images[name], annotation))
    return files


class VOCDataset(Dataset):
    """A data set of images, each with its objects or its mask."""

    def __init__(self, files: Sequence[tuple[Path, Any]], channels: int) -> None:
        self.files, self.channels = files, channels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Tensor, Any]:
        """Return an image, uint8 (c, h, w), with its objects or its mask, uint8 (h, w)."""
        path, target = self.files[i]
        image = torch.from_numpy(decode_image(path, f"The file {str(path)!r}", self.channels)).permute(2, 0, 1)
        if isinstance(target, Path):
            mask = torch.from_numpy(read_mask(target).copy())
            if mask.shape != image.shape[1:]:
                raise ValueError(
                    f"The mask {str(target)!r} has the height and width {tuple(mask.shape)}, but its image has "
                    f"{tuple(image.shape[1:])}."
                )
            return image, mask
        return image, target
