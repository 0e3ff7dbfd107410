"""Class labels as users have them, also inside data sets, and as integers; weights of samples."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.utils import assert_all_finite, check_random_state
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import _check_sample_weight, _num_samples, column_or_1d
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset
from tqdm.auto import tqdm

from skssl.errors import show_call
from skssl.images.base import Images, describe, is_pil_image
from skssl.images.dataset_items import image_in, is_dataset, length_of, refuse_loader
from skssl.images.folders import class_names

_LABEL_KEYS = ("label", "labels", "target", "targets", "class", "cls")  # in items that are dicts


def as_labels(y: Any) -> np.ndarray:
    """Return labels as a 1-D array.

    Parameters
    ----------
    y : array-like of shape (n,) or (n, 1)
        Numbers or strings. -1 is an unknown class, and so are None, NaN and "" among strings or objects.

    Returns
    -------
    ndarray of shape (n,)
        The labels, with the number -1 for an unknown class.

    Raises
    ------
    ValueError
        If the shape differs, or a number is not finite.

    Examples
    --------
    >>> as_labels(["cat", -1, "dog"])
    array(['cat', -1, 'dog'], dtype=object)
    >>> as_labels(["cat", None, ""])
    array(['cat', -1, -1], dtype=object)
    """
    is_text = isinstance(y, list | tuple) and any(label is None or isinstance(label, str) for label in y)
    is_sequence = hasattr(y, "__len__") or hasattr(y, "__array__")
    if not is_sequence or isinstance(y, (str, Mapping)) or len(getattr(y, "shape", (0,))) not in (1, 2):
        raise ValueError(f"y must be a 1-D array of one class for each image, after the images X. Got {describe(y)}.")
    y = column_or_1d(np.array(y, dtype=object) if is_text else y, warn=True)
    if y.dtype.kind in "OUT":
        import pandas as pd  # here, so that `import skssl.images` remains quick

        unknown = pd.isna(y) | (y == "")
        if unknown.any():
            y = y.astype(object)
            y[unknown] = -1
    assert_all_finite(y, input_name="y")
    return y


def labels_in(X: Any, images: Any = None) -> np.ndarray | None:
    """Return the labels that X holds, for a y that is not given.

    Parameters
    ----------
    X : object
        Images, as `as_images` reads them. These hold labels: a data set of items (image, label) or of dicts with
        "label"; one that lists them as ``targets``, as torchvision's do; a list or stream of such items; the path of a
        folder of class folders.
    images : Images, default=None
        The images read from X. Those of a stream have the labels of its items, and clips those of their folders.

    Returns
    -------
    ndarray of shape (n,) or None
        The labels; -1 where an item has none. None if X holds no labels.

    Examples
    --------
    >>> from skssl.images.labels import labels_in
    >>> labels_in([("a.png", "cat"), ("b.png", "dog")])
    array(['cat', 'dog'], dtype=object)
    """
    refuse_loader(X)
    labels: list[Any] | None = getattr(X if images is None else images, "labels", None)
    if labels is None and isinstance(X, (str, os.PathLike)):
        labels = class_names(X)
    elif is_dataset(X):
        labels = _labels_of(X)
    elif isinstance(X, (list, tuple)) and len(X) and label_in(X[0]) is not None and is_image(image_in(X[0])):
        labels = [label_in(item) for item in X]
    if labels is None or all(label is None for label in labels):
        return None
    return as_labels([-1 if label is None else label for label in labels])


def require_labels(y: Any, X: Any, images: Any = None, name: str = "The estimator") -> Any:
    """Return y, or the labels in X if y is None.

    Parameters
    ----------
    y : array-like of shape (n,) or None
        The labels that were passed.
    X, images
        As for `labels_in`.
    name : str, default="The estimator"
        The name of the estimator, for the message.

    Returns
    -------
    array-like of shape (n,)
        The labels.

    Raises
    ------
    ValueError
        If y is None and X holds no labels.
    """
    y = labels_in(X, images) if y is None else y
    if y is None:
        raise ValueError(
            f"{name} requires y to be passed, but the target y is None, and X holds no labels. Pass the classes as y, "
            "or a data set of items (image, label)."
        )
    return y


def label_in(item: Any) -> Any:
    """Return the label in an item of a data set: the second entry of a tuple, or the value of a dict by key.

    Parameters
    ----------
    item : object
        The item.

    Returns
    -------
    int, float, str or None
        The label. None if there is none, or if it is no single number or string.

    Examples
    --------
    >>> import torch
    >>> from skssl.images.labels import label_in
    >>> label_in((torch.zeros(3, 8, 8), torch.tensor(4))), label_in({"img": torch.zeros(3, 8, 8), "label": "cat"})
    (4, 'cat')
    """
    label = None
    if isinstance(item, (tuple, list)) and len(item) > 1:
        label = item[1]
    elif isinstance(item, Mapping):
        label = next((item[key] for key in _LABEL_KEYS if key in item), None)
    if isinstance(label, (np.ndarray, np.generic, Tensor)) and label.ndim == 0:
        label = label.item()
    return label if isinstance(label, (int, float, str)) else None


def _labels_of(dataset: Any) -> list[Any] | None:
    """Return the labels of a data set: those that it lists, unless its items have others; None if it has none."""
    if type(dataset) is Subset:
        labels = _labels_of(dataset.dataset)
        return None if labels is None else [labels[i] for i in dataset.indices]
    if type(dataset) is ConcatDataset:
        parts = [_labels_of(part) for part in dataset.datasets]
        return None if None in parts else [label for part in parts for label in part or ()]
    n, labels = length_of(dataset), _listed_labels(dataset)
    ends = {i: label_in(dataset[i]) for i in {0, n - 1}} if n else {}
    if labels is not None and all(label in (None, labels[i]) for i, label in ends.items()):
        return labels
    if not n or ends[0] is None:
        return None
    with tqdm(range(n), "Reading labels", unit=" items", unit_scale=True, delay=1.0) as bar:
        return [label_in(dataset[i]) for i in bar]


def _listed_labels(dataset: Any) -> list[Any] | None:
    """Return the labels that a data set lists apart from its items; None if there are none."""
    columns = getattr(dataset, "column_names", None)  # of Hugging Face
    if isinstance(columns, list):
        key = next((key for key in _LABEL_KEYS if key in columns), None)
        listed = None if key is None else list(dataset.with_format(None)[key])
    else:
        listed = next((getattr(dataset, name) for name in ("targets", "labels") if hasattr(dataset, name)), None)
    if not isinstance(listed, (list, tuple, np.ndarray, Tensor)) or len(listed) != length_of(dataset):
        return None
    transform = getattr(dataset, "target_transform", None)
    return [label_in((None, transform(label) if transform else label)) for label in listed]


def is_image(value: Any) -> bool:
    """Return whether a value is a file, a PIL image or an array, and no number."""
    return (
        isinstance(value, (str, os.PathLike))
        or hasattr(value, "read")
        or is_pil_image(value)
        or getattr(value, "ndim", 0) >= 2
    )


def check_labels(y: Any, X: Any, name: str = "y", images: str = "X") -> np.ndarray:
    """Return labels as an array, and check that there is one for each image.

    Parameters
    ----------
    y : array-like of shape (n,)
        The labels.
    X : sequence of n images
        The images.
    name, images : str, default="y" and "X"
        The names of both in the error.

    Returns
    -------
    ndarray of shape (n,)
        The labels, as returned by `as_labels`.

    Raises
    ------
    ValueError
        If the number of labels is not that of the images.

    Examples
    --------
    >>> import numpy as np
    >>> from skssl.images.labels import check_labels
    >>> check_labels([1, 0], np.zeros((2, 8, 8)))
    array([1, 0])
    """
    refuse_loader(X)
    labels, n_images = as_labels(y), len(X) if isinstance(X, Images) else _num_samples(X)
    if len(labels) != n_images:
        raise ValueError(
            f"{name} must have one class for each image of {images}: expected {n_images} classes, got {len(labels)}."
        )
    return labels


def known_labels(labels: np.ndarray, classes: np.ndarray | None = None) -> np.ndarray:
    """Return whether the class of each sample is known.

    -1 is an unknown class. Labels that are all -1 or 1 are two classes, as in scikit-learn.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        The labels, as returned by `as_labels`.
    classes : ndarray of shape (n_classes,), default=None
        The classes of a fitted classifier, which decide whether -1 is a class. If None, the labels decide.

    Returns
    -------
    bool ndarray of shape (n,)
        Whether the class is known.

    Examples
    --------
    >>> import numpy as np
    >>> known_labels(np.array([0, 1, -1])), known_labels(np.array([1, 1, -1]))
    (array([ True,  True, False]), array([ True,  True,  True]))
    """
    known = np.asarray(labels != -1)
    if classes is None:
        return known | bool(known.any() and (labels[known] == 1).all())
    return known | (-1 in classes.tolist())


def encode_labels(y: Any) -> tuple[np.ndarray, Tensor]:
    """Encode labels as integers from 0 to n_classes - 1.

    Parameters
    ----------
    y : array-like of shape (n,) or (n, 1)
        Numbers or strings; -1 is an unknown class, see `known_labels`, and so are None, NaN and "" among strings.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
        The sorted classes, without the unknown one.
    labels : Tensor of int64, shape (n,)
        Index of each label's class; -1 where it is unknown.

    Examples
    --------
    >>> classes, labels = encode_labels(["cat", -1, "dog", "cat"])
    >>> classes.tolist(), labels.tolist()
    (['cat', 'dog'], [0, -1, 1, 0])
    """
    y = as_labels(y)
    labels = np.full(len(y), -1)
    known = known_labels(y)
    classes, labels[known] = np.unique(y[known], return_inverse=True)
    return np.array(classes.tolist()), torch.from_numpy(labels)


@show_call("label_fraction(y, 0.1)")
def label_fraction(y: Any, fraction: float, random_state: Any = None) -> np.ndarray:
    """Keep a fraction of the labels, the same number for each class, and set all others to -1.

    Parameters
    ----------
    y : array-like of shape (n,)
        Classes; -1 is an unknown class.
    fraction : float in (0, 1]
        Fraction of the known labels to keep, such as 0.1.
    random_state : int, RandomState or None, default=None
        Seed of the draw.

    Returns
    -------
    ndarray of shape (n,)
        A copy of y in which -1 marks an unknown class, as in scikit-learn's semi-supervised estimators. Its dtype is
        object if y contains strings. Every class keeps the same number of labels, rounded up; a class with fewer labels
        keeps all of them.

    Raises
    ------
    ValueError
        If `fraction` is out of range or keeps fewer labels than there are classes, or if the classes are -1 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> from skssl import label_fraction
    >>> y = np.repeat(["cat", "dog"], 50)
    >>> few = label_fraction(y, 0.1, random_state=0)
    >>> np.unique(few[few != -1], return_counts=True)
    (array(['cat', 'dog'], dtype=object), array([5, 5]))
    """
    if not isinstance(fraction, Real) or not 0 < fraction <= 1:
        raise ValueError(
            "fraction must be a number above 0 and up to 1. Got "
            f"{describe(fraction) if hasattr(fraction, 'shape') else repr(fraction)}. Call label_fraction(y, 0.1)."
        )
    y = as_labels(y)
    classes, labels = encode_labels(y)
    if -1 in classes.tolist():
        raise ValueError(
            "y of label_fraction holds only -1 and 1, which are two classes, but -1 marks unknown ones in the result. "
            "Replace -1 by 0."
        )
    sizes = np.bincount(labels[labels >= 0], minlength=len(classes))
    total = round(fraction * sizes.sum())
    if total < max(len(classes), 1):
        raise ValueError(
            f"fraction={fraction} leaves a class without a label: it keeps {total} of {sizes.sum()} labels, but there "
            f"are {len(classes)} classes. Use a larger fraction."
        )
    level = next(
        level for level in range(math.ceil(total / len(classes)), total + 1) if np.minimum(sizes, level).sum() >= total
    )
    draw = check_random_state(random_state)
    kept = np.concatenate([draw.permutation(np.flatnonzero(labels == place))[:level] for place in range(len(classes))])
    few = np.full(len(y), -1, dtype=y.dtype if y.dtype.kind in "if" else np.int64 if y.dtype.kind == "u" else object)
    few[kept] = y[kept]
    return few


def weigh_samples(
    class_weight: Any, sample_weight: Any, classes: np.ndarray, codes: np.ndarray, name: str
) -> np.ndarray | None:
    """Return the weight of each sample: its own times that of its class.

    Parameters
    ----------
    class_weight : {"balanced"}, dict or None
        The weight of each class. A class that is missing from a dict has the weight 1. "balanced" gives all classes the
        same total weight: ``sample_weight.sum() / (n_classes * sample_weight[y == c].sum())``.
    sample_weight : array-like of shape (n,) or None
        The weight of each sample, 1 by default.
    classes : ndarray of shape (n_classes,)
        The classes.
    codes : int64 ndarray of shape (n,)
        The class of each sample, as an index into `classes`.
    name : str
        The name of the estimator, for messages.

    Returns
    -------
    float64 ndarray of shape (n,) or None
        The weights. None if all are 1.

    Raises
    ------
    ValueError
        If a weight is negative or not finite, or a class has no weight.

    Examples
    --------
    >>> import numpy as np
    >>> from skssl.images.labels import weigh_samples
    >>> weigh_samples("balanced", None, np.array(["cat", "dog"]), np.array([0, 0, 0, 1]), "LinearProbe")
    array([0.66666667, 0.66666667, 0.66666667, 2.        ])
    """
    if class_weight is None and sample_weight is None:
        return None
    weights = _check_sample_weight(sample_weight, codes, dtype=np.float64, ensure_non_negative=True)
    totals = np.bincount(codes, weights, minlength=len(classes))
    if isinstance(class_weight, Mapping):
        by_class = compute_class_weight(dict(class_weight), classes=classes, y=classes[codes])
        if not (np.isfinite(by_class) & (by_class >= 0)).all():
            raise ValueError(f"class_weight of {name} must hold numbers of at least 0. Got {class_weight!r}.")
        totals = totals * by_class
    if not totals.all():
        raise ValueError(
            f"{name} needs samples of each class with a weight above 0, but all samples of the class "
            f"{classes.tolist()[totals.argmin()]!r} have the weight 0. Leave out the class, or raise its weight."
        )
    if class_weight == "balanced":
        by_class = totals.sum() / (len(classes) * totals)
    return weights if class_weight is None else weights * by_class[codes]


def check_known_labels(classifier: Any, labels: np.ndarray) -> None:
    """Check that a fitted classifier knows all classes in the labels.

    Parameters
    ----------
    classifier : classifier
        A fitted classifier, with ``classes_``.
    labels : ndarray of shape (n,)
        The labels.

    Raises
    ------
    ValueError
        If a class is not among ``classes_``, as its images cannot be scored.
    """
    known = classifier.classes_.tolist()
    unseen = [label for label in dict.fromkeys(labels.tolist()) if label not in known]
    if unseen:
        raise ValueError(
            f"y contains the class {unseen[0]!r}, but {type(classifier).__name__} was fitted on {len(known)} classes, "
            f"from {known[0]!r} to {known[-1]!r}, without it. Leave out images of unseen classes."
        )
