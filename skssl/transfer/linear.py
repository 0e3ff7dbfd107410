"""Many-shot linear transfer: logistic regression on frozen features of other data sets."""

from __future__ import annotations

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
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from skssl.errors import pick, show_call
from skssl.images import Images, as_images
from skssl.images.base import describe
from skssl.images.disk_cache import cache_folder
from skssl.images.image_files import decode_image
from skssl.images.photographs import Photographs
from skssl.metrics import mean_per_class_accuracy
from skssl.probes import LinearProbe
from skssl.probes.encoders import DEFAULT_SHAPE, Encoder, as_trained
from skssl.probes.protocols import LINEAR
from skssl.transfer.benchmark_datasets import BENCHMARK_DATASETS, SPLITS, Pairs

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["mean_average_precision", "transfer_table"]

HELD_OUT = 0.2  # fraction of the training samples, if a data set has no validation split


@show_call("transfer_table(encoder, {'name': (X_train, y_train, X_test, y_test)})")
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
    """Score a trained encoder on other data sets by logistic regression on its frozen features.

    The strength of the L2 penalty is chosen on the validation split among 45 values, evenly spaced on a logarithmic
    scale from 1e-6 to 1e5. The regression is then fitted to the training and validation samples and scored on the test
    split.

    Parameters
    ----------
    encoder : fitted estimator of skssl, FrozenEstimator of one, or torch.nn.Module
        The encoder. Images are normalised as in its training; for a module, by ImageNet's mean and standard deviation.
    datasets : iterable of str, or mapping of str to tuple, default=None
        Names of data sets. None is all of them. Their metrics are

        - accuracy: "cifar10", "cifar100", "dtd" (its first split), "food101", "stanfordcars", "sun397";
        - mean accuracy per class: "caltech101", "fgvcaircraft", "flowers102", "oxfordiiitpet";
        - mean 11-point average precision (`mean_average_precision`): "voc2007".

        A mapping from names to your own data has values (X_train, y_train, X_test, y_test) or (X_train, y_train, X_val,
        y_val, X_test, y_test), with images of any kind that `fit` accepts. If y has shape (n,), the metric is accuracy.
        If y has shape (n, n_classes), with 1 for present, 0 for absent and -1 for ignored, it is mean average
        precision. Each column of y_train then needs a 1 and a 0.
    layer : str, default="backbone"
        The layer whose output is used as features, see `encoders.at_layer`.
    image_size : int, default=None
        Side of the images. The shorter side is resized (bicubic) and the centre is cropped; arrays are not resized and
        must have this size. None is 224 for a module, and the size of the training images for an estimator. Your own
        images must then have that size, as for `transform`.
    data_home : str or path, default=None
        Folder of the data sets. None takes the folder that the environment variable ``SKSSL_CACHE`` names, or
        ``~/.cache/skssl``. Those of torchvision are in its subfolder ``torchvision``. CIFAR is also found where
        `load_images` finds it.
    download : bool, default=False
        Whether to download missing data sets. SUN397 alone is 37 GB. StanfordCars can no longer be downloaded.
    device : str or torch.device, default="auto"
        Device of a module and of the regression. An estimator uses its own device.
    random_state : int, RandomState instance or None, default=None
        Seed of the validation samples and of splits that are drawn.
    verbose : int, default=0
        1 shows progress bars.

    Returns
    -------
    pandas.DataFrame
        One row per data set: dataset, metric, score (in [0, 1]), C (inverse of the chosen strength, as in
        `LinearProbe`), n_train (including validation samples), n_test and seconds.

    Raises
    ------
    FileNotFoundError
        If a data set is missing and was not downloaded.
    NotFittedError
        If the encoder is an estimator that is not fitted.
    ValueError
        If there is no such data set or layer, the numbers of labels and images differ, validation or test samples
        have a class that the training samples lack, or a column of labels cannot be learned or scored.

    Notes
    -----
    The protocol is that of Ericsson et al. [1]_ and their code, with these differences:

    - The regression is solved to its optimum. Theirs stops after 100 iterations of L-BFGS.
    - If a data set has no validation split, a fifth of the training samples are drawn. For a matrix of labels, the
      draw leaves a 1 and a 0 of each column in the training samples and takes at least one 1.
    - Torchvision has no splits of Caltech-101 and SUN397, so they are drawn by `random_state`: 30 training images per
      class and all others for testing (Caltech-101: 101 classes, while the paper counts the background as another
      class), and 50 and 50 (SUN397: the paper uses the first of its authors' ten splits).

    In VOC2007, an image is ignored for a class if all its objects of that class are marked difficult, as in the
    benchmark's code.

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
        raise TypeError(f"datasets must be a list of names or a mapping. Got {datasets!r}; put it into a list.")
    if datasets is not None and not all(isinstance(name, str) for name in datasets):
        raise TypeError(
            "datasets must be a list of names, or a dict of a tuple (X_train, y_train, X_test, y_test) for each name. "
            f"Got {describe(datasets)}."
        )
    own = datasets if isinstance(datasets, Mapping) else {}
    names = list(BENCHMARK_DATASETS if datasets is None else datasets)
    for name in names:
        if name not in own:
            pick("data set", name, BENCHMARK_DATASETS)
    side = (image_size or DEFAULT_SHAPE[1],) * 2
    trained = as_trained(encoder, layer=layer, device=device, shape=(DEFAULT_SHAPE[0], *side))
    shape = trained.shape if image_size is None else (trained.shape[0], *side)
    resized = image_size is not None or isinstance(encoder, nn.Module)
    home = Path(data_home or cache_folder()).expanduser()
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    rows = []
    for name in names:
        started, rng = time.perf_counter(), np.random.RandomState(seed)
        if name in own:
            splits = _encode_own(name, own[name], trained, shape if resized else None)
            metric = "accuracy" if splits["train"][1].ndim == 1 else "11-point mAP"
        else:
            metric, load = BENCHMARK_DATASETS[name]
            splits = {
                split: _encode(pairs, trained, shape, f"{name}, {split}", verbose)
                for split, pairs in load(name, home, download, rng).items()
            }
        if "val" not in splits:
            train, held_out = hold_out(*splits["train"], rng)
            splits = {"train": train, "val": held_out, "test": splits["test"]}
        predict: Callable[..., np.ndarray] = partial(_fit_predict, device=trained.device)
        C = _choose_c(splits["train"], splits["val"], METRICS[metric], predict, verbose)
        both = [np.concatenate(parts) for parts in zip(splits["train"], splits["val"], strict=True)]
        X_test, y_test = splits["test"]
        score = METRICS[metric](y_test, predict(C, *both, X_test))
        seconds = time.perf_counter() - started
        rows.append([name, metric, score, C, len(both[0]), len(X_test), seconds])
    return pd.DataFrame(rows, columns=["dataset", "metric", "score", "C", "n_train", "n_test", "seconds"])


# The regression


def _choose_c(train: Any, val: Any, score: Callable[[Any, Any], float], predict: Callable, verbose: int) -> float:
    """Return the C with the best validation score; in a tie the largest, as in the paper's code."""
    scores = {}
    for C in tqdm(LINEAR["transfer"]["C"], desc="Regularisation", leave=False, disable=not verbose):
        scores[C] = score(val[1], predict(C, *train, val[0]))
    return max(scores, key=scores.__getitem__)


def _fit_predict(C: float, X: np.ndarray, y: np.ndarray, X_new: np.ndarray, device: Any) -> np.ndarray:
    """Fit a regression and predict labels (n_new,), or scores (n_new, n_classes) if y is a matrix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the weakest penalties hardly bound the weights
        if y.ndim == 1:
            return LinearProbe(C=C, device=device).fit(X, y).predict(X_new)
        return np.stack(
            [
                LinearProbe(C=C, device=device).fit(X[of >= 0], of[of >= 0]).decision_function(X_new)
                for of in y.T  # -1 is neither present nor absent
            ],
            axis=1,
        )


def hold_out(X: np.ndarray, y: np.ndarray, rng: np.random.RandomState) -> tuple[Any, Any]:
    """Split off validation samples at random.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Features.
    y : ndarray of shape (n,) or (n, n_classes)
        Labels. The training part of a matrix keeps a 1 and a 0 of each column, and the validation part has a 1.
    rng : RandomState
        Generator.

    Returns
    -------
    train, val : tuple of (X, y)
        The two parts.
    """
    order, n_out = rng.permutation(len(X)), int(HELD_OUT * len(X))
    if y.ndim == 2:
        scored = can_hold_out(y)[order].argmax()
        order = np.r_[order[scored], np.delete(order, scored)]
        kept = np.unique([1 + (y[order[1:]] == value).argmax(axis=0) for value in (0, 1)])  # the first of each
        order, n_out = np.r_[np.delete(order, kept), order[kept]], min(n_out, len(order) - len(kept))
    return (X[order[n_out:]], y[order[n_out:]]), (X[order[:n_out]], y[order[:n_out]])


def can_hold_out(y: np.ndarray) -> np.ndarray:
    """Return which samples have a 1 and are not the only 0 or the only 1 of a column.

    Parameters
    ----------
    y : ndarray of shape (n, n_classes)
        Labels: 1, 0 and -1.

    Returns
    -------
    ndarray of bool, shape (n,)
        Whether each sample can be a validation sample.
    """
    has = np.stack([y == 0, y == 1])  # (2, n, n_classes)
    only = has & (has.sum(axis=1, keepdims=True) == 1)
    return has[1].any(axis=1) & ~only.any(axis=(0, 2))


def _check_labels(name: str, splits: Mapping[str, tuple[Images, np.ndarray]]) -> None:
    """Raise if labels do not match the images, cannot be learned, or cannot be scored."""
    y_train = splits["train"][1]
    for split, (images, y) in splits.items():
        if y.ndim == 0 or len(images) != len(y):
            raise ValueError(f"The {split} split of {name!r} has {len(images)} images, but {y.size} labels.")
        if y.shape[1:] != y_train.shape[1:] or y.ndim > 2:
            raise ValueError(
                f"The labels of the {split} split of {name!r} have the shape {y.shape}, but (n,) or (n, n_classes) is "
                "expected, the same in all splits."
            )
        unseen = [] if y.ndim == 2 else sorted(set(y.tolist()) - set(y_train.tolist()))
        if unseen:
            raise ValueError(f"The {split} split of {name!r} has the class {unseen[0]!r}, which its train split lacks.")
        if y.ndim == 2 and not (y == 1).any():
            raise ValueError(f"The {split} split of {name!r} has no 1 in any column, so it cannot be scored.")
    if len(y_train) < 1 / HELD_OUT:
        raise ValueError(f"{name!r} has {len(y_train)} training samples, but at least {1 / HELD_OUT:.0f} are needed.")
    if y_train.ndim == 1:
        return
    for value in (0, 1):
        missing = np.flatnonzero(~(y_train == value).any(axis=0))
        if len(missing):
            raise ValueError(
                f"The train split of {name!r} must have a 0 and a 1 in each column of its labels, but it has no "
                f"{value} in column {missing[0]}."
            )
    if "val" not in splits and not can_hold_out(y_train).any():
        raise ValueError(
            f"{name!r} needs a validation split: no training sample with a 1 can be held out, since each "
            "has the only 0 or the only 1 of a column."
        )


# Metrics


def mean_average_precision(y_true: np.ndarray, y_score: np.ndarray) -> float:
    """Compute the mean 11-point interpolated average precision, as in PASCAL VOC 2007.

    The average precision of a class is the mean, over r = 0, 0.1, …, 1, of the highest precision at a recall of at
    least r.

    Parameters
    ----------
    y_true : ndarray of shape (n_samples, n_classes)
        1 if the class is present, 0 if it is absent, -1 if the sample is ignored for the class.
    y_score : ndarray of shape (n_samples, n_classes)
        Scores; a higher score means a more likely class. Samples with equal scores are retrieved together.

    Returns
    -------
    float
        Mean over the classes that are present in at least one sample, in [0, 1].

    Raises
    ------
    ValueError
        If no class is present.

    Notes
    -----
    The code of Ericsson et al. sets the precision at recall 0 to 1, which is scikit-learn's convention. Here it is the
    highest precision at any recall, as in the benchmark's code.

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
            precision, recall = precision[:-1], recall[:-1]  # drop scikit-learn's point at recall 0
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
    """Images of (image, label) pairs, decoded and resized by a few threads; collects the labels on the way."""

    def __init__(self, pairs: Pairs, shape: tuple[int, int, int], title: str, verbose: int) -> None:
        self.pairs, self.shape, self.title = pairs, shape, title
        self.labels: list[Any] = [None] * len(pairs)
        self.bar = tqdm(total=len(pairs), desc=title, unit=" images", dynamic_ncols=True, disable=not verbose)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> np.ndarray:
        """Decode an image, uint8 (h, w, c)."""
        from PIL import Image

        picture, self.labels[i] = self.pairs[i]
        picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
        return decode_image(picture, f"Image {i} of {self.title}", self.shape[0], self.shape[1:])

    def __getitems__(self, indices: list[int]) -> list[np.ndarray]:
        """Decode several images."""
        with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
            found = list(pool.map(self.__getitem__, indices))
        self.bar.update(len(indices))
        return found


def _encode(pairs: Pairs, trained: Encoder, shape: tuple[int, int, int], title: str, verbose: int) -> tuple[Any, Any]:
    """Encode the images of a split, and collect their labels."""
    pictures = _Pictures(pairs, shape, title, verbose)
    with pictures.bar:
        features = trained.transform(as_images(pictures, reset=False))
    return features, np.asarray(pictures.labels)


def _encode_own(
    name: str, parts: Sequence[Any], trained: Encoder, shape: tuple[int, int, int] | None
) -> dict[str, tuple[Any, Any]]:
    """Encode the user's own images, resized if a shape is given."""
    if len(parts) not in (4, 6):
        raise ValueError(
            f"The data set {name!r} must be (X_train, y_train, X_test, y_test) or (X_train, y_train, X_val, y_val, "
            f"X_test, y_test). Got {len(parts)} parts."
        )
    names = ("train", "test") if len(parts) == 4 else SPLITS
    read = trained.read
    if shape is not None:
        first = as_images(parts[0], shape, reset=False)
        like: Any = {"shape": first.shape, "scale": first.scale, "whole": isinstance(first, Photographs)}
        read = partial(as_images, image_shape=shape, reset=False, **like)
    splits = {split: (read(X), np.asarray(y)) for split, X, y in zip(names, parts[::2], parts[1::2], strict=True)}
    _check_labels(name, splits)
    return {split: (trained.transform(images), y) for split, (images, y) in splits.items()}
