"""Folders of annotated images in the formats of PASCAL VOC, COCO, Cityscapes and ADE20K."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
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

IGNORE_INDEX = 255  # class of pixels without a class, in masks of every format once they are read


class AnnotatedObject(NamedTuple):
    """An object in an image.

    Parameters
    ----------
    name : str
        Its class.
    box : tuple of float
        Its box: left, top, right, bottom in pixels.
    difficult : bool, default=False
        Whether it is difficult to recognise (PASCAL VOC).
    crowd : bool, default=False
        Whether the box is around a crowd of objects (COCO).
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool = False
    crowd: bool = False


def read_objects(path: str | os.PathLike[str]) -> list[AnnotatedObject]:
    """Read the objects of an annotation in PASCAL VOC's format.

    Parameters
    ----------
    path : str or path
        The XML file. Its boxes consist of the first and the last pixel, counted from 1.

    Returns
    -------
    list of AnnotatedObject
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
            found.append(AnnotatedObject(name, box, node.findtext("difficult", "0").strip() == "1"))
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


def read_coco(path: str | os.PathLike[str]) -> dict[str, list[AnnotatedObject]]:
    """Read a file of COCO's instances.

    Parameters
    ----------
    path : str or path
        The JSON file. Its boxes are left, top, width and height in pixels.

    Returns
    -------
    dict of str to list of AnnotatedObject
        The objects of each image by the name of its file. Boxes without an area, of which COCO has a few, are left out.

    Raises
    ------
    ValueError
        If the file is not in COCO's format.
    """
    try:
        data = json.loads(Path(path).read_bytes())
        names = {category["id"]: str(category["name"]) for category in data["categories"]}
        objects: dict[Any, list[AnnotatedObject]] = {image["id"]: [] for image in data["images"]}
        for found in data["annotations"]:
            left, top, width, height = (float(value) for value in found["bbox"])
            if not all(map(math.isfinite, (left, top, width, height))):
                raise ValueError(f"an object has the box {found['bbox']}")
            if width > 0 and height > 0:
                box = (left, top, left + width, top + height)
                thing = AnnotatedObject(names[found["category_id"]], box, crowd=bool(found.get("iscrowd", 0)))
                objects[found["image_id"]].append(thing)
        return {str(image["file_name"]): objects[image["id"]] for image in data["images"]}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is not in COCO's format: {type(error).__name__}, {error}.") from error


class MaskFile(NamedTuple):
    """A file with a mask.

    Parameters
    ----------
    path : Path
        The file.
    classes : ndarray of uint8, shape (256,), default=None
        The class of each value in the file; `IGNORE_INDEX` for no class. None if the values are the classes.
    """

    path: Path
    classes: np.ndarray | None = None

    def read(self) -> np.ndarray:
        """Return the class of each pixel, uint8 (h, w)."""
        values = read_mask(self.path)
        return values if self.classes is None else self.classes[values]


#: An image, with its objects or its mask.
Sample = tuple[Path, Any]


class Format(NamedTuple):
    """A format of annotated images.

    Parameters
    ----------
    name : str
        Its name in messages.
    parts : tuple of str
        The folders that it consists of. A folder is in this format if it has the first.
    find : callable
        Returns the samples of a folder and a split.
    """

    name: str
    parts: tuple[str, ...]
    find: Callable[[Path, str], list[Sample]]


def find_samples(folder: Any, split: Any, formats: Sequence[Format]) -> list[Sample]:
    """Return the images of one or more folders, each with its annotation.

    Parameters
    ----------
    folder : str, path or sequence of these
        The folder, or several in the same format.
    split : str or sequence of str
        The split, or one for each folder.
    formats : sequence of Format
        The formats that the folders may have.

    Returns
    -------
    list of (Path, list of AnnotatedObject or MaskFile)
        The samples of all folders, in order.

    Raises
    ------
    FileNotFoundError
        If a folder is in no format, or lacks a part of its format, an image or an annotation.
    TypeError
        If `folder` is no path.
    ValueError
        If there is no such split, the splits are not as many as the folders, or the folders differ in format.
    """
    folders = folder if isinstance(folder, (list, tuple)) else [folder]
    splits = [split] * len(folders) if isinstance(split, str) else list(split)
    known = " or ".join(each.name for each in formats)
    for each in folders:
        if not isinstance(each, (str, os.PathLike)):
            raise TypeError(
                f"The first argument must be the path of a folder in the format of {known}, or a list of these. Got "
                f"{describe(each)}."
            )
    if not folders or len(splits) != len(folders):
        raise ValueError(
            "split must be one name, or one for each folder. Got "
            f"{len(splits)} names for {len(folders)} folders: {split!r}."
        )
    roots = [Path(each) for each in folders]
    found = [_format_of(root, formats) for root in roots]
    if len({each.name for each in found}) > 1:
        raise ValueError(f"The folders must have the same format. Got {', '.join(each.name for each in found)}.")
    return [sample for each, root, name in zip(found, roots, splits, strict=True) for sample in each.find(root, name)]


def _format_of(root: Path, formats: Sequence[Format]) -> Format:
    """Return the format of a folder."""
    found = next((each for each in formats if (root / each.parts[0]).is_dir()), None)
    if found is None:
        expected = ", ".join(f"{each.parts[0]} ({each.name})" for each in formats)
        raise FileNotFoundError(f"{str(root)!r} is in no known format: it must contain one of {expected}.")
    for part in found.parts:
        if not (root / part).is_dir():
            raise FileNotFoundError(
                f"{str(root)!r} is not a folder in the format of {found.name}: it lacks {part}. Expected "
                f"{', '.join(found.parts)}."
            )
    return found


def _check_samples(samples: Sequence[tuple[Path | None, str, Path]], root: Path, split: str) -> None:
    """Raise if a split is empty, or an image or its annotation is missing; `samples` has the image, name and file."""
    if not samples:
        raise ValueError(f"The split {split!r} of {str(root)!r} has no images.")
    for image, name, annotation in samples:
        if image is None:
            raise FileNotFoundError(f"The image {name!r} of the split {split!r} has no file in {str(root)!r}.")
        if not annotation.is_file():
            raise FileNotFoundError(f"The image {name!r} of the split {split!r} has no annotation {str(annotation)!r}.")


def _find_voc(root: Path, split: str, lists: str, annotations: str, ending: str) -> list[tuple[Path, Path]]:
    """Return the images of a split in PASCAL VOC's format, each with its annotation file."""
    splits = {path.stem: path for path in sorted((root / "ImageSets" / lists).glob("*.txt"))}
    try:
        lines = pick("split", split, splits).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"The split {split!r} of {str(root)!r} cannot be read as text: {error}.") from error
    names = [line.split()[0] for line in lines if line.strip()]
    images = {path.stem: path for path in sorted((root / "JPEGImages").iterdir())}
    files = [root / annotations / f"{name}{ending}" for name in names]
    _check_samples([(images.get(name), name, file) for name, file in zip(names, files, strict=True)], root, split)
    return [(images[name], file) for name, file in zip(names, files, strict=True)]


def _voc_objects(root: Path, split: str) -> list[Sample]:
    return [(image, read_objects(file)) for image, file in _find_voc(root, split, "Main", "Annotations", ".xml")]


def _voc_masks(root: Path, split: str) -> list[Sample]:
    files = _find_voc(root, split, "Segmentation", "SegmentationClass", ".png")
    return [(image, MaskFile(file)) for image, file in files]


def _coco_objects(root: Path, split: str) -> list[Sample]:
    start = "instances_"
    splits = {path.stem.removeprefix(start): path for path in sorted((root / "annotations").glob(f"{start}*.json"))}
    path = pick("split", split, splits)
    if not (root / split).is_dir():
        raise FileNotFoundError(f"{str(root)!r} lacks {split}, the folder of the images of {str(path)!r}.")
    images, objects = {image.name: image for image in (root / split).iterdir()}, read_coco(path)
    _check_samples([(images.get(name), name, path) for name in objects], root / split, split)
    return [(images[name], things) for name, things in objects.items()]


def _find_masks(
    root: Path, split: str, images: str, pattern: str, mask_of: Callable[[Path], Path], classes: np.ndarray
) -> list[Sample]:
    """Return the images in the folder of a split, each with its mask."""
    splits = {path.name: path for path in sorted((root / images).iterdir()) if path.is_dir()}
    found = sorted(pick("split", split, splits).glob(pattern))
    _check_samples([(image, image.name, mask_of(image)) for image in found], root, split)
    return [(image, MaskFile(mask_of(image), classes)) for image in found]


def _cityscapes_masks(root: Path, split: str) -> list[Sample]:
    from torchvision.datasets import Cityscapes

    classes = np.full(256, IGNORE_INDEX, np.uint8)
    for each in Cityscapes.classes:
        if not each.ignore_in_eval:
            classes[each.id] = each.train_id

    def mask_of(image: Path) -> Path:
        name = image.name.replace("_leftImg8bit", "_gtFine_labelIds")
        return root / "gtFine" / split / image.parent.name / name

    return _find_masks(root, split, "leftImg8bit", "*/*_leftImg8bit.png", mask_of, classes)


def _ade20k_masks(root: Path, split: str) -> list[Sample]:
    classes = np.arange(256, dtype=np.uint8)
    classes[0] = IGNORE_INDEX  # no class, such as what the annotators did not name

    def mask_of(image: Path) -> Path:
        return root / "annotations" / split / f"{image.stem}.png"

    return _find_masks(root, split, "images", "*.jpg", mask_of, classes)


#: Formats of folders with the objects of images.
OBJECTS = (
    Format("PASCAL VOC", ("JPEGImages", "ImageSets/Main", "Annotations"), _voc_objects),
    Format("COCO", ("annotations",), _coco_objects),
)
#: Formats of folders with the masks of images.
MASKS = (
    Format("PASCAL VOC", ("JPEGImages", "ImageSets/Segmentation", "SegmentationClass"), _voc_masks),
    Format("Cityscapes", ("leftImg8bit", "gtFine"), _cityscapes_masks),
    Format("ADE20K", ("images", "annotations"), _ade20k_masks),
)


class AnnotatedImages(Dataset):
    """A data set of images, each with its objects or its mask."""

    def __init__(self, samples: Sequence[Sample], channels: int) -> None:
        self.samples, self.channels = samples, channels

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> tuple[Tensor, Any]:
        """Return an image, uint8 (c, h, w), with its objects or its mask, uint8 (h, w)."""
        path, target = self.samples[i]
        image = torch.from_numpy(decode_image(path, f"The file {str(path)!r}", self.channels)).permute(2, 0, 1)
        if isinstance(target, MaskFile):
            mask = torch.from_numpy(target.read().copy())
            if mask.shape != image.shape[1:]:
                raise ValueError(
                    f"The mask {str(target.path)!r} has the height and width {tuple(mask.shape)}, but its image has "
                    f"{tuple(image.shape[1:])}."
                )
            return image, mask
        return image, target
