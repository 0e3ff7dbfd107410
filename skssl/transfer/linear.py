"""Many-shot transfer: how well linear classifiers on frozen features recover the classes of other data sets."""

from __future__ import annotations

import inspect
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, precision_recall_curve
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, validate_params
from torch import nn
from torch.utils.data import Dataset, Subset
from tqdm.auto import tqdm

from skssl.datasets import connection_timeout, load_images
from skssl.errors import pick
from skssl.images import Images, as_images
from skssl.images.image_files import decode_image
from skssl.metrics import mean_per_class_accuracy
from skssl.probes import LinearProbe
from skssl.probes.encoders import DEFAULT_SHAPE, Encoder, as_trained
from skssl.probes.protocols import LINEAR
from skssl.transfer.voc import read_objects

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["mean_average_precision", "transfer_table"]

HELD_OUT = 0.2  # of the training samples, where a data set has no validation split

Pairs = Any  # a sequence of pictures with their labels, read when they are asked for


@validate_params(
    {
        "image_size": [Interval(Integral, 1, None, closed="left"), None],
        "download": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    },
    prefer_skip_nested_validation=False,
)
def transfer_table(
    encoder: Any,
    datasets: Iterable[str] | Mapping[str, Sequence[Any]] | None = None,
    *,
    layer: str = "backbone",
    image_size: int | None = None,
    data_home: str | os.PathLike[str] | None = None,
    download: bool = False,
    device: Any = "auto",
    random_state: int | np.random.RandomState | None = None,
    verbose: int = 0,
) -> pd.DataFrame:
    """Measure a trained encoder on other data sets, by logistic regression on its features as they are.

    The strength of the penalty is chosen on a validation split among 45, from 1e-6 to 1e5 in even steps of its
    logarithm; then training and validation samples are learned from together, and the test split is scored.

    Parameters
    ----------
    encoder : fitted estimator of skssl, FrozenEstimator of one, or torch.nn.Module
        The encoder. Images are normalised as those that it was trained on; for a module, by ImageNet's mean and
        deviation.
    datasets : iterable of str, or mapping of str to tuple, default=None
        Which data sets, by name; None is all that are named here, with their measures:

        - "cifar10", "cifar100", "dtd" (its first split), "food101", "stanfordcars", "sun397": the accuracy;
        - "caltech101", "fgvcaircraft", "flowers102", "oxfordiiitpet": the mean of the classes' accuracies;
        - "voc2007": the mean of the classes' 11-point average precisions, see `mean_average_precision`.

        Or data of your own by name, as (X_train, y_train, X_test, y_test) or (X_train, y_train, X_val, y_val, X_test,
        y_test), with images of any kind that `fit` takes. Where y holds a class for each image the accuracy is
        measured; where it is a matrix (n, n_classes) of 1, 0 and -1 for present, absent and better ignored, the mean
        average precision. Each column of y_train must hold a 1 and a 0.
    layer : str, default="backbone"
        Which layer's output the features are, see `encoders.at_layer`.
    image_size : int, default=None
        To what side images are brought: the shorter side is resized (bicubic), and the centre is cropped. None is the
        size of the images that an estimator was fitted on (your own images must have it, as for its `transform`), and
        224 for a module. Arrays must have the size already.
    data_home : str or path, default=None
        Folder of the data sets, ``~/.cache/skssl`` by default; torchvision's are in its folder ``torchvision``.
        `load_images` finds CIFAR in other places, too.
    download : bool, default=False
        Whether to download what is not there; SUN397 alone is 37 GB. StanfordCars can no longer be downloaded.
    device : str or torch.device, default="auto"
        Where a module and the regression are computed. An estimator has its own device.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws of validation samples and splits.
    verbose : int, default=0
        1 shows progress bars.

    Returns
    -------
    pandas.DataFrame
        A row a data set: dataset, metric, score (from 0 to 1), C (the inverse of the strength that was chosen, as in
        `LinearProbe`), n_train (validation samples included), n_test and seconds.

    Raises
    ------
    FileNotFoundError
        If a data set is not there and could not be downloaded.
    NotFittedError
        If the encoder is an estimator that is not fitted.
    ValueError
        If there is no such data set or layer, labels are of another number than images, classes of test samples are
        not among those of the training samples, or a matrix of labels has nothing to learn or to score.

    Notes
    -----
    The protocol is that of Ericsson et al. [1]_ and their code. The regression goes to its optimum, where theirs stops
    after 100 iterations of L-BFGS. Where a data set has no validation split a fifth of the training samples are drawn;
    of a matrix of labels, a 1 and a 0 of each column stay in what is learned from, and a 1 at least is drawn.
    Two data sets have no splits in torchvision, and they are drawn by `random_state`: 30 training images a class and
    the others for testing for Caltech-101 (101 classes, without the background that the paper counts as one), 50 and 50
    for SUN397, where the paper takes the first of the ten splits of its authors. In VOC2007, if all objects of a class
    in an image are marked difficult, the image is left out for that class, as by the benchmark's own code.

    References
    ----------
    .. [1] Ericsson, Gouk and Hospedales, How Well Do Self-Supervised Models Transfer?, CVPR 2021.
    .. [2] Kornblith, Shlens and Le, Do Better ImageNet Models Transfer Better?, CVPR 2019.

    Examples
    --------
    >>> from skssl import SimCLR, transfer_table
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(90, image_size=16, n_classes=2, random_state=0)
    >>> encoder = SimCLR(backbone="convnet", epochs=0, random_state=0).fit(X)
    >>> table = transfer_table(encoder, {"shapes": (X[:60], y[:60], X[60:], y[60:])}, random_state=0)
    >>> table[["dataset", "metric", "n_train", "n_test"]]
      dataset    metric  n_train  n_test
    0  shapes  accuracy       60      30
    """
    import pandas as pd

    if isinstance(datasets, str):
        raise TypeError(f"datasets must be a list of names or a mapping. Got {datasets!r}: put it into a list.")
    own = datasets if isinstance(datasets, Mapping) else {}
    names = list(_SETS if datasets is None else datasets)
    for name in names:
        if name not in own:
            pick("data set", name, _SETS)
    side = (image_size or DEFAULT_SHAPE[1],) * 2
    trained = as_trained(encoder, layer=layer, device=device, shape=(DEFAULT_SHAPE[0], *side))
    shape = trained.shape if image_size is None else (trained.shape[0], *side)
    resized = image_size is not None or isinstance(encoder, nn.Module)
    home = Path(data_home or "~/.cache/skssl").expanduser()
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    rows = []
    for name in names:
        started, rng = time.perf_counter(), np.random.RandomState(seed)
        if name in own:
            splits = _encode_own(name, own[name], trained, shape if resized else None)
            metric = "accuracy" if splits["train"][1].ndim == 1 else "11-point mAP"
        else:
            metric, load = _SETS[name]
            splits = {
                split: _encode(pairs, trained, shape, f"{name}, {split}", verbose)
                for split, pairs in load(name, home, download, rng).items()
            }
        if "val" not in splits:
            train, held_out = _hold_out(*splits["train"], rng)
            splits = {"train": train, "val": held_out, "test": splits["test"]}
        learn: Callable[..., np.ndarray] = partial(_learn, device=trained.device)
        C = _choose(splits["train"], splits["val"], METRICS[metric], learn, verbose)
        both = [np.concatenate(of) for of in zip(splits["train"], splits["val"], strict=True)]
        X_test, y_test = splits["test"]
        score = METRICS[metric](y_test, learn(C, *both, X_test))
        seconds = time.perf_counter() - started
        rows.append([name, metric, score, C, len(both[0]), len(X_test), seconds])
    return pd.DataFrame(rows, columns=["dataset", "metric", "score", "C", "n_train", "n_test", "seconds"])


# The regression


def _choose(train: Any, val: Any, score: Callable[[Any, Any], float], learn: Callable, verbose: int) -> float:
    """Find the C with the best score on the validation samples; of equals the largest, as in the paper's code."""
    scores = {}
    for C in tqdm(LINEAR["transfer"]["C"], desc="Regularisation", leave=False, disable=not verbose):
        scores[C] = score(val[1], learn(C, *train, val[0]))
    return max(scores, key=scores.__getitem__)


def _learn(C: float, X: np.ndarray, y: np.ndarray, X_new: np.ndarray, device: Any) -> np.ndarray:
    """Learn from labelled features, and predict the labels of others; where y is a matrix, a score for each class."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the weakest penalties have no optimum to speak of
        if y.ndim == 1:
            return LinearProbe(C=C, device=device).fit(X, y).predict(X_new)
        return np.stack(
            [
                LinearProbe(C=C, device=device).fit(X[of >= 0], of[of >= 0]).decision_function(X_new)
                for of in y.T  # -1 is neither present nor absent
            ],
            axis=1,
        )


def _hold_out(X: np.ndarray, y: np.ndarray, rng: np.random.RandomState) -> tuple[Any, Any]:
    """Draw validation samples; where y is a matrix, such that all classes can be learned and one can be scored."""
    order, n_out = rng.permutation(len(X)), int(HELD_OUT * len(X))
    if y.ndim == 2:
        scored = _spare(y)[order].argmax()
        order = np.r_[order[scored], np.delete(order, scored)]
        kept = np.unique([1 + (y[order[1:]] == value).argmax(axis=0) for value in (0, 1)])  # the first of each
        order, n_out = np.r_[np.delete(order, kept), order[kept]], min(n_out, len(order) - len(kept))
    return (X[order[n_out:]], y[order[n_out:]]), (X[order[:n_out]], y[order[:n_out]])


def _spare(y: np.ndarray) -> np.ndarray:
    """Tell which samples of a matrix of labels show a class and are no column's only 0 or only 1, bool (n,)."""
    has = np.stack([y == 0, y == 1])  # (2, n, n_classes)
    only = has & (has.sum(axis=1, keepdims=True) == 1)
    return has[1].any(axis=1) & ~only.any(axis=(0, 2))


def _check(name: str, splits: Mapping[str, tuple[Images, np.ndarray]]) -> None:
    """Refuse labels that do not go with the images, that cannot be learned, or that leave nothing to score."""
    y_train = splits["train"][1]
    for split, (images, y) in splits.items():
        if y.ndim == 0 or len(images) != len(y):
            raise ValueError(f"The {split} split of {name!r} has {len(images)} images, but {y.size} labels.")
        if y.shape[1:] != y_train.shape[1:] or y.ndim > 2:
            raise ValueError(
                f"The labels of the {split} split of {name!r} have the shape {y.shape}, but (n,) or (n, n_classes) was "
                "expected, the same for all splits."
            )
        unseen = [] if y.ndim == 2 else sorted(set(y.tolist()) - set(y_train.tolist()))
        if unseen:
            raise ValueError(
                f"The {split} split of {name!r} has the class {unseen[0]!r}, which its training split has not."
            )
        if y.ndim == 2 and not (y == 1).any():
            raise ValueError(f"The {split} split of {name!r} has no 1 in any column: no class is present.")
    if len(y_train) < 1 / HELD_OUT:
        raise ValueError(f"{name!r} has {len(y_train)} training samples, but at least {1 / HELD_OUT:.0f} are needed.")
    if y_train.ndim == 1:
        return
    for value in (0, 1):
        missing = np.flatnonzero(~(y_train == value).any(axis=0))
        if len(missing):
            raise ValueError(
                f"The train split of {name!r} must have a 0 and a 1 in each column of its labels, but has no {value} "
                f"in column {missing[0]}."
            )
    if "val" not in splits and not _spare(y_train).any():
        raise ValueError(
            f"{name!r} needs a validation split: no training sample with a 1 can be held out such that each column "
            "keeps a 0 and a 1."
        )


# Measures


def mean_average_precision(y_true: np.ndarray, y_score: np.ndarray) -> float:
    """Mean over classes of the 11-point interpolated average precision, as in PASCAL VOC 2007.

    Of a class, the highest precision at a recall of at least 0, 0.1, …, 1 is averaged.

    Parameters
    ----------
    y_true : ndarray of shape (n_samples, n_classes)
        1 where the class is present, 0 where it is absent, -1 where the sample is left out for the class.
    y_score : ndarray of shape (n_samples, n_classes)
        The higher, the more likely is the class. Samples with equal scores are found together.

    Returns
    -------
    float
        The mean over the classes that are present in any sample, from 0 to 1.

    Raises
    ------
    ValueError
        If none is.

    Notes
    -----
    The code of Ericsson et al. has a precision of 1 at a recall of 0 whatever is found first, which is scikit-learn's
    convention. Here it is as in the benchmark's own code the highest precision at any recall.

    References
    ----------
    Everingham et al., The PASCAL Visual Object Classes (VOC) Challenge, IJCV 2010, section 4.2.

    Examples
    --------
    >>> import numpy as np
    >>> from skssl.transfer.linear import mean_average_precision
    >>> mean_average_precision(np.array([[0], [1], [-1]]), np.array([[0.9], [0.8], [0.95]]))
    0.5
    """
    values = []
    for true, score in zip(y_true.T, y_score.T, strict=True):
        if (true == 1).any():
            precision, recall, _ = precision_recall_curve(true[true >= 0], score[true >= 0])
            precision, recall = precision[:-1], recall[:-1]  # scikit-learn's last point: precision 1 at recall 0
            values.append(np.mean([precision[recall >= least - 1e-9].max() for least in np.arange(11) / 10]))
    if not values:
        raise ValueError("y_true must hold at least one 1. Got none.")
    return float(np.mean(values))


METRICS: dict[str, Callable[[Any, Any], float]] = {
    "accuracy": accuracy_score,
    "mean per class": mean_per_class_accuracy,
    "11-point mAP": mean_average_precision,
}


# Features


class _Pictures(Dataset):
    """The pictures of labelled pairs, brought to a shape by a few threads; their labels are kept on the way."""

    def __init__(self, pairs: Pairs, shape: tuple[int, int, int], title: str, verbose: int) -> None:
        self.pairs, self.shape, self.title = pairs, shape, title
        self.labels: list[Any] = [None] * len(pairs)
        self.bar = tqdm(total=len(pairs), desc=title, unit=" images", dynamic_ncols=True, disable=not verbose)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> np.ndarray:
        """Read a picture, uint8 (h, w, c)."""
        from PIL import Image

        picture, self.labels[i] = self.pairs[i]
        picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
        return decode_image(picture, f"Image {i} of {self.title}", self.shape[0], self.shape[1:])

    def __getitems__(self, indices: list[int]) -> list[np.ndarray]:
        """Read some pictures."""
        with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
            found = list(pool.map(self.__getitem__, indices))
        self.bar.update(len(indices))
        return found


def _encode(pairs: Pairs, trained: Encoder, shape: tuple[int, int, int], title: str, verbose: int) -> tuple[Any, Any]:
    """Encode the pictures of a split, and collect their labels."""
    pictures = _Pictures(pairs, shape, title, verbose)
    with pictures.bar:
        features = trained.transform(as_images(pictures, reset=False))
    return features, np.asarray(pictures.labels)


def _encode_own(
    name: str, parts: Sequence[Any], trained: Encoder, shape: tuple[int, int, int] | None
) -> dict[str, tuple[Any, Any]]:
    """Encode the user's own images, brought to a shape if one is given."""
    if len(parts) not in (4, 6):
        raise ValueError(
            f"The data set {name!r} must be (X_train, y_train, X_test, y_test), or have X_val, y_val in between. Got "
            f"{len(parts)} parts."
        )
    names = ("train", "test") if len(parts) == 4 else _SPLITS
    read = trained.read
    if shape is not None:
        first = as_images(parts[0], shape, reset=False)
        read = partial(as_images, image_shape=shape, reset=False, shape=first.shape, scale=first.scale)
    splits = {split: (read(X), np.asarray(y)) for split, X, y in zip(names, parts[::2], parts[1::2], strict=True)}
    _check(name, splits)
    return {split: (trained.transform(images), y) for split, (images, y) in splits.items()}


# The data sets


def _torchvision(name: str, kind: str, home: Path, download: bool, **options: Any) -> Any:
    """Make torchvision's data set, of paths rather than of images where it can be; download it if it is not there."""
    from torchvision import datasets

    make = getattr(datasets, kind)
    if "loader" in inspect.signature(make).parameters:
        options["loader"] = str
    root = home / "torchvision"
    try:
        try:
            return make(root, download=False, **options)
        except (OSError, RuntimeError):
            if not download:
                raise
        with connection_timeout():
            return make(root, download=True, **options)
    except (OSError, RuntimeError, ValueError) as error:
        tried = "its download failed" if download else "download=False"
        raise FileNotFoundError(f"{name!r} was not found in {str(root)!r}, and {tried}: {error}") from error


def _found(name: str, home: Path, download: bool, rng: np.random.RandomState) -> dict[str, Pairs]:
    """CIFAR, from wherever `load_images` finds it."""
    parts = {split: load_images(name, split, data_home=home, download=download) for split in ("train", "test")}
    return {split: list(zip(X, y.tolist(), strict=True)) for split, (X, y) in parts.items()}


def _split(kind: str, *options: dict[str, Any]) -> Callable[..., dict[str, Pairs]]:
    """What torchvision has in two or three splits: the options of each."""

    def load(name: str, home: Path, download: bool, rng: np.random.RandomState) -> dict[str, Pairs]:
        splits = _SPLITS if len(options) == 3 else ("train", "test")
        return {
            split: _torchvision(name, kind, home, download, **of) for split, of in zip(splits, options, strict=True)
        }

    return load


def _drawn(kind: str, n_train: int, n_test: int | None) -> Callable[..., dict[str, Pairs]]:
    """What torchvision has in one piece: so many images of each class are drawn; None is all others."""

    def load(name: str, home: Path, download: bool, rng: np.random.RandomState) -> dict[str, Pairs]:
        data = _torchvision(name, kind, home, download)
        if hasattr(data, "y"):  # Caltech101, whose images would be decoded for their labels
            labels = np.asarray(data.y)
        else:
            data = sorted(data[i] for i in range(len(data)))  # paths, in any order that the disk has them
            labels = np.array([label for _, label in data])
        orders = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
        return {
            "train": Subset(data, [i for order in orders for i in order[:n_train].tolist()]),
            "test": Subset(data, [i for order in orders for i in order[n_train:][:n_test].tolist()]),
        }

    return load


def _voc2007(name: str, home: Path, download: bool, rng: np.random.RandomState) -> dict[str, Pairs]:
    """VOC2007: for each class 1, 0, or -1 where only objects marked difficult show it."""
    parts = {}
    for split in _SPLITS:
        data = _torchvision(name, "VOCDetection", home, download, year="2007", image_set=split)
        parts[split] = [(file, read_objects(of)) for file, of in zip(data.images, data.annotations, strict=True)]
    names = sorted({thing.name for _, things in parts["train"] for thing in things})

    def presence(things: Sequence[Any]) -> list[int]:
        sure, all_of_them = {thing.name for thing in things if not thing.difficult}, {thing.name for thing in things}
        return [1 if of in sure else -1 if of in all_of_them else 0 for of in names]

    return {split: [(file, presence(things)) for file, things in pairs] for split, pairs in parts.items()}


_SPLITS = ("train", "val", "test")
_IN_THREE = ({"split": "train"}, {"split": "val"}, {"split": "test"})
_IN_TWO = ({"split": "train"}, {"split": "test"})

# The measure, and how the splits come
_SETS: dict[str, tuple[str, Callable[..., dict[str, Pairs]]]] = {
    "caltech101": ("mean per class", _drawn("Caltech101", 30, None)),
    "cifar10": ("accuracy", _found),
    "cifar100": ("accuracy", _found),
    "dtd": ("accuracy", _split("DTD", *_IN_THREE)),
    "fgvcaircraft": ("mean per class", _split("FGVCAircraft", *_IN_THREE)),
    "flowers102": ("mean per class", _split("Flowers102", *_IN_THREE)),
    "food101": ("accuracy", _split("Food101", *_IN_TWO)),
    "oxfordiiitpet": ("mean per class", _split("OxfordIIITPet", {"split": "trainval"}, {"split": "test"})),
    "stanfordcars": ("accuracy", _split("StanfordCars", *_IN_TWO)),
    "sun397": ("accuracy", _drawn("SUN397", 50, 50)),
    "voc2007": ("11-point mAP", _voc2007),
}
