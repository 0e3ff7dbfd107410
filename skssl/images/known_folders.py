"""Folders of data sets that users bring: where their images are, and how their classes are given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from skssl.errors import pick
from skssl.images.folders import NO_IMAGE, find_images

Found = tuple[list[str], list[str] | None, dict[str, list[str]]]

IMAGENET_FOLDERS = ("imagenet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC", "imagenet/ILSVRC/Data/CLS-LOC")
IMAGENET_SOURCE = "Register at https://image-net.org, and unpack ILSVRC2012"


@dataclass(frozen=True)
class KnownFolder:
    """A data set that is a folder of splits.

    Attributes
    ----------
    folders : tuple of str
        The folders with the split "train", relative to a folder of data sets, in the order of the search.
    source : str
        How to get the data set, for messages.
    needs : str
        What gives the classes of the split "val", for messages.
    """

    folders: tuple[str, ...]
    source: str
    needs: str


KNOWN_FOLDERS = {
    "imagenet": KnownFolder(
        IMAGENET_FOLDERS,
        IMAGENET_SOURCE,
        "class folders val/<WordNet id>, which torchvision.datasets.ImageNet(root, split='val') makes",
    ),
    "imagenet100": KnownFolder(
        ("imagenet100", "imagenet-100", *IMAGENET_FOLDERS),
        f"{IMAGENET_SOURCE}, which holds the 100 classes",
        "class folders val/<WordNet id>, which torchvision.datasets.ImageNet(root, split='val') makes",
    ),
    "miniplaces": KnownFolder(
        ("miniplaces/images", "miniplaces/data/images", "miniplaces"),
        "Unpack http://miniplaces.csail.mit.edu/data/data.tar.gz into the folder miniplaces, and add val.txt and "
        "categories.txt of https://github.com/CSAILVision/miniplaces",
        "val.txt and categories.txt of https://github.com/CSAILVision/miniplaces beside the folder images",
    ),
    "tiny-imagenet": KnownFolder(
        ("tiny-imagenet-200", "tiny-imagenet"),
        "Unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        "val/val_annotations.txt of the archive",
    ),
}

# The classes of ImageNet-100 in contrastive multiview coding (CMC), which later papers use as well, from
# https://github.com/HobbitLong/CMC/blob/master/imagenet100.txt. Other lists of 100 classes exist.
_WORDNET_IDS = """
    n01558993 n01692333 n01729322 n01735189 n01749939 n01773797 n01820546 n01855672 n01978455 n01980166
    n01983481 n02009229 n02018207 n02085620 n02086240 n02086910 n02087046 n02089867 n02089973 n02090622
    n02091831 n02093428 n02099849 n02100583 n02104029 n02105505 n02106550 n02107142 n02108089 n02109047
    n02113799 n02113978 n02114855 n02116738 n02119022 n02123045 n02138441 n02172182 n02231487 n02259212
    n02326432 n02396427 n02483362 n02488291 n02701002 n02788148 n02804414 n02859443 n02869837 n02877765
    n02974003 n03017168 n03032252 n03062245 n03085013 n03259280 n03379051 n03424325 n03492542 n03494278
    n03530642 n03584829 n03594734 n03637318 n03642806 n03764736 n03775546 n03777754 n03785016 n03787032
    n03794056 n03837869 n03891251 n03903868 n03930630 n03947888 n04026417 n04067472 n04099969 n04111531
    n04127249 n04136333 n04229816 n04238763 n04336792 n04418357 n04429376 n04435653 n04485082 n04493381
    n04517823 n04589890 n04592741 n07714571 n07715103 n07753275 n07831146 n07836838 n13037406 n13040303
"""
IMAGENET100 = _WORDNET_IDS.split()


def find_known_folder(name: str, homes: Iterable[Path]) -> Path | None:
    """Return the folder of a data set with the split "train".

    Parameters
    ----------
    name : str
        The data set, one of `KNOWN_FOLDERS`.
    homes : iterable of Path
        The folders to search.

    Returns
    -------
    Path or None
        The first one that exists.
    """
    folders = [home / folder for home in homes for folder in KNOWN_FOLDERS[name].folders]
    return next((folder for folder in folders if (folder / "train").is_dir()), None)


def known_images(name: str, folder: Path, split: str) -> Found:
    """Return the images of a split and their classes.

    Parameters
    ----------
    name : str
        The data set, one of `KNOWN_FOLDERS`.
    folder : Path
        The folder of its splits.
    split : {"train", "val", "test"}
        The split.

    Returns
    -------
    files : list of str
        The sorted paths relative to `folder`.
    classes : list of str or None
        The class of each: the WordNet id, or the name of the scene without its first letter's folder. None for
        "test", whose classes are not public.
    left_out : dict of str to list of str
        Images that are left out, by the reason.

    Raises
    ------
    ValueError
        If there is no such split, or the classes are missing.
    """
    pick("split", split, {"train": 0, "val": 0, "test": 0})
    if not (folder / split).is_dir():
        raise ValueError(f"{name!r} has no split {split!r}: the folder {str(folder / split)!r} does not exist.")
    if name == "imagenet100" and split != "test":
        below = [f"{split}/{wnid}" for wnid in IMAGENET100]
        if missing := [path for path in below if not (folder / path).is_dir()]:
            raise ValueError(
                f"{name!r} in {str(folder)!r} lacks {len(missing)} of its 100 class folders, such as {missing[0]!r}. "
                + (
                    f"The split 'val' needs {KNOWN_FOLDERS[name].needs}."
                    if split == "val"
                    else "To use other classes, pass the path of their folder."
                )
            )
    else:
        below = [split]
    files: list[str] = []
    left_out: dict[str, list[str]] = {}
    for path in below:
        found, unused = find_images(folder / path)
        files += [f"{path}/{file}" for file in found]
        for reason, names in unused.items():
            if reason != NO_IMAGE:  # such as lists of boxes, which belong to the data set
                left_out.setdefault(reason, []).extend(f"{path}/{file}" for file in names)
    if split == "test":
        return files, None, left_out
    listed = _listed_classes(name, folder) if split == "val" else {}
    classes = [listed.get(file.rsplit("/", 1)[1]) or _class_of(name, file) for file in files]
    if "" in classes:
        raise ValueError(
            f"The class of {files[classes.index('')]!r} in {str(folder)!r} is unknown. The split 'val' of {name!r} "
            f"needs {KNOWN_FOLDERS[name].needs}."
        )
    return files, classes, left_out


def _class_of(name: str, file: str) -> str:
    """Return the class in a path <split>/<class>/…, or "" if there is none."""
    _, *folders, _ = file.split("/")
    if name == "miniplaces":  # <split>/<letter>/<scene>/<file>, where a scene such as church/outdoor has two folders
        return "/".join(folders[1:])
    return folders[0] if folders and folders != ["images"] else ""


def _listed_classes(name: str, folder: Path) -> dict[str, str]:
    """Return the classes of the split "val" by the names of the files, if the data set has a list of them."""
    if name == "tiny-imagenet":
        (lines,) = _read_lists([folder / "val"], "val_annotations.txt") or ([],)
        return {file: wnid for file, wnid, *_ in lines}
    if name == "miniplaces":
        homes = [folder, folder.parent, folder.parent / "data", folder.parent / "development_kit" / "data"]
        lines, categories = _read_lists(homes, "val.txt", "categories.txt") or ([], [])
        scenes = {code: scene.split("/", 2)[2] for scene, code in categories}  # /c/church/outdoor 32
        return {file.rsplit("/", 1)[-1]: scenes[code] for file, code in lines}
    return {}


def _read_lists(homes: list[Path], *names: str) -> list[list[list[str]]] | None:
    """Return the lines of text files, split into words, from the first folder that has all of them."""
    for home in homes:
        if all((home / name).is_file() for name in names):
            return [[line.split() for line in (home / name).read_text().splitlines() if line.strip()] for name in names]
    return None
