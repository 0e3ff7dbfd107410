"""Labels as users have them, and the numbers of their classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import column_or_1d
from torch import Tensor

if TYPE_CHECKING:
    pass


def as_labels(y: Any) -> np.ndarray:
    """Read labels; in a list of strings -1 does not become one."""
    listed = isinstance(y, list | tuple) and any(isinstance(label, str) for label in y)
    y = column_or_1d(np.array(y, dtype=object) if listed else y, warn=True)
    assert_all_finite(y, input_name="y")
    return y


def encode_labels(y: Any) -> tuple[np.ndarray, Tensor]:
    """Find the classes in y, and each label's place among them; -1 stays -1: an unknown class."""
    y = as_labels(y)
    target = np.full(len(y), -1)
    known = np.asarray(y != -1)
    classes, target[known] = np.unique(y[known], return_inverse=True)
    return np.array(classes.tolist()), torch.from_numpy(target)


def check_known_labels(classifier: Any, labels: np.ndarray) -> None:
    """Refuse labels that a fitted classifier cannot predict, as it has not seen them."""
    known = classifier.classes_.tolist()
    unseen = [label for label in dict.fromkeys(labels.tolist()) if label not in known]
    if unseen:
        raise ValueError(
            f"y holds the class {unseen[0]!r}, but {type(classifier).__name__} was trained on {len(known)} others, "
            f"from {known[0]!r} to {known[-1]!r}: a class that it cannot predict cannot be scored."
        )
