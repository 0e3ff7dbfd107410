"""Fine-tuning an encoder on few labels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Self

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor
from torch.nn import functional as F

from skssl.images.labels import as_labels, encode_labels
from skssl.probes.encoders import as_encoder
from skssl.training.objective import Batch, Objective
from skssl.transfer.classifier import ClassifierHooks, ImageClassifier


def label_fraction(y: Any, fraction: float, random_state: Any = None) -> np.ndarray:
    """Keep a part of the labels, as many of each class, and set the others to -1.

    Parameters
    ----------
    y : array-like of shape (n,)
        Classes; -1 where unknown already.
    fraction : float in (0, 1]
        How much of the known labels to keep: 0.01, 0.1, 0.2.
    random_state : int, RandomState or None, default=None
        The seed of the draw.

    Returns
    -------
    ndarray of shape (n,)
        A copy of y in which -1 stands for an unknown class, as in scikit-learn's semi-supervised estimators; if y holds
        strings its dtype is object. Every class keeps the same number of labels, rounded up, and one that has fewer
        keeps them all.

    Raises
    ------
    ValueError
        If the fraction is out of its range, or leaves a class without a label.

    Examples
    --------
    >>> import numpy as np
    >>> from skssl import label_fraction
    >>> y = np.repeat(["cat", "dog"], 50)
    >>> few = label_fraction(y, 0.1, random_state=0)
    >>> np.unique(few[few != -1], return_counts=True)
    (array(['cat', 'dog'], dtype=object), array([5, 5]))
    """
    y = as_labels(y)
    classes, target = encode_labels(y)
    sizes = np.bincount(target[target >= 0], minlength=len(classes))
    if not isinstance(fraction, Real) or not 0 < fraction <= 1:
        raise ValueError(f"fraction must be a number above 0 and up to 1. Got {fraction!r}.")
    total = round(fraction * sizes.sum())
    if total < max(len(classes), 1):
        raise ValueError(
            f"fraction={fraction} leaves a class without a label: it keeps {total} of {sizes.sum()} labels, and there "
            f"are {len(classes)} classes."
        )
    level = next(
        level for level in range(math.ceil(total / len(classes)), total + 1) if np.minimum(sizes, level).sum() >= total
    )
    draw = check_random_state(random_state)
    kept = np.concatenate([draw.permutation(np.flatnonzero(target == place))[:level] for place in range(len(classes))])
    few = np.full(len(y), -1, dtype=y.dtype if y.dtype.kind in "if" else np.int64 if y.dtype.kind == "u" else object)
    few[kept] = y[kept]
    return few


def _cross_entropy(net: Objective, batch: Batch) -> dict[str, Tensor]:
    """Compute the cross-entropy of labelled images, and how many are classified correctly."""
    assert batch.labels is not None
    logits = net.head(net.encoder(batch.views[0])).float()
    return {
        "cross_entropy": F.cross_entropy(logits, batch.labels),
        "accuracy": (logits.argmax(1) == batch.labels).float().mean(),
    }


@dataclass(kw_only=True, eq=False, repr=False)
class FineTuner(ImageClassifier):
    """Train a whole encoder, with a linear head of zeros on it, to classify: fine-tuning on few labels.

    Only the labelled images are used; the encoder itself is copied and stays as it is. The defaults are those of SwAV
    for a tenth of ImageNet's labels; `skssl.recipes.FINE_TUNING` has the other papers'. They are for thousands of
    steps: with a few hundred images take smaller batches, or more epochs.

    Parameters
    ----------
    encoder : SSLTransformer, FrozenEstimator of one, or torch.nn.Module
        What is fine-tuned, see `encoders.as_encoder`: an estimator that is not fitted, as after scikit-learn's `clone`,
        first learns from all images, labelled or not.

    References
    ----------
    Chen et al., Big Self-Supervised Models are Strong Semi-Supervised Learners (SimCLRv2), NeurIPS 2020, section 2.
    Caron et al., SwAV, NeurIPS 2020, and its code (there the head begins with small random weights, as at Barlow Twins;
    SimCLR's begins with zeros). BatchNorm normalises by the batch, as in both.

    Examples
    --------
    >>> from skssl import FineTuner, SimCLR, label_fraction
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = SimCLR(backbone="convnet", epochs=1, batch_size=32, random_state=0).fit(X)
    >>> tuner = FineTuner(encoder, epochs=2, batch_size=16, head_lr=0.1, random_state=0)
    >>> tuner.fit(X, label_fraction(y, 0.5, random_state=0)).predict(X).shape
    (64,)
    >>> tuner.history_[["epoch", "loss", "accuracy", "lr"]].shape
    (2, 4)
    """

    encoder: Any = field(kw_only=False)

    def fit(self, X: Any, y: Any) -> Self:
        """Fine-tune on the labelled images.

        Parameters
        ----------
        X : array-like, sequence of files or PIL images, or torch Dataset
            Images.
        y : array-like of shape (n,)
            Their classes; -1 where unknown, as `label_fraction` makes it.

        Returns
        -------
        self
            The fitted classifier.

        Raises
        ------
        ValueError
            If the labels are of another number than the images, hold fewer than two classes or nothing but -1, or a
            parameter is out of its range.
        FloatingPointError
            If the training diverges.
        """
        self._check()
        if y is None:
            raise ValueError("FineTuner requires y to be passed, but the target y is None.")
        X = self._read_once(self.encoder, X, y)
        self.classes_, target = encode_labels(y)
        if not len(self.classes_):
            raise ValueError("FineTuner needs labelled images, but all of y is -1, which stands for an unknown class.")
        check_classification_targets(self.classes_)
        if len(self.classes_) < 2:
            raise ValueError(
                "FineTuner needs labelled images of 2 classes or more, but y has one class only, "
                f"{self.classes_.tolist()[0]!r} (-1 stands for an unknown class)."
            )
        encoder = as_encoder(self.encoder, X, y, layer=self.layer, device=self.device)
        known = (target >= 0).nonzero()[:, 0]
        hooks = ClassifierHooks(len(self.classes_), _cross_entropy)
        return self._train(encoder, encoder.read(X).take(known), target[known], hooks)
