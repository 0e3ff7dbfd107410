"""Fine-tuning of an encoder on few labels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight
from torch import Tensor
from torch.nn import functional as F

from skssl.errors import show_call
from skssl.images.base import describe
from skssl.images.labels import as_labels, encode_labels, require_labels, weigh_samples
from skssl.probes.encoders import as_encoder, read_once
from skssl.training.objective import Batch, Objective
from skssl.transfer.classifier import ClassifierHooks, ImageClassifier


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
        If `fraction` is out of range, or keeps fewer labels than there are classes.

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


@dataclass
class _FineTuningHooks(ClassifierHooks):
    """The cross-entropy of labelled images, with a weight for each image."""

    weights: Tensor | None = None  # (n_samples,), of mean 1; None is 1 for all

    @property
    def chance(self) -> dict[str, float]:
        """The accuracy of a random guess, by the name of the measure."""
        return {"accuracy": 1 / self.n_classes}

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Add the head, and the weights if there are any."""
        super().build(net, dim, n_samples)
        if self.weights is not None:
            net.register_buffer("sample_weight", self.weights, persistent=False)  # not part of the model

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy and the accuracy."""
        assert batch.labels is not None
        logits = net.head(net.encoder(batch.views[0])).float()
        if self.weights is None:
            loss = F.cross_entropy(logits, batch.labels)
        else:
            loss = (F.cross_entropy(logits, batch.labels, reduction="none") * net.sample_weight[batch.index]).mean()
        return {
            "cross_entropy": loss,
            "accuracy": (logits.argmax(1) == batch.labels).float().mean(),
        }


@dataclass(kw_only=True, eq=False, repr=False)
class FineTuner(ImageClassifier):
    """Fine-tune an encoder with a linear classification head on few labels.

    Only the labelled images are used. The encoder is copied, and the copy is trained. The defaults are SwAV's for a
    tenth of ImageNet's labels; `skssl.recipes.FINE_TUNING` has the settings of other papers. They assume thousands of
    steps. For a few hundred images, use smaller batches or more epochs.

    Parameters
    ----------
    encoder : SSLTransformer, FrozenEstimator of one, or torch.nn.Module
        The encoder, see `encoders.as_encoder`. An estimator that is not fitted, as after scikit-learn's `clone`, is
        first fitted to all images, labelled or not.
    class_weight : {"balanced"} or dict, default=None
        Weight of each class in the loss, as in scikit-learn's classifiers: "balanced" gives all classes the same total
        weight, and a class that is missing from a dict has the weight 1.

    References
    ----------
    Chen et al., Big Self-Supervised Models are Strong Semi-Supervised Learners (SimCLRv2), NeurIPS 2020, section 2.
    Caron et al., SwAV, NeurIPS 2020, and its code. SwAV's and Barlow Twins' head starts from small random weights; here
    it starts from zeros, as SimCLR's does. BatchNorm uses the statistics of the batch, as in both.

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
    class_weight: Any = None

    _parameter_constraints: ClassVar[dict] = {
        **ImageClassifier._parameter_constraints,
        "class_weight": [StrOptions({"balanced"}), dict, None],
    }

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fine-tune on the labelled images.

        Parameters
        ----------
        X : array-like, sequence of files or PIL images, or torch Dataset
            Images.
        y : array-like of shape (n,), default=None
            Their classes; -1 is an unknown class, as in the result of `label_fraction`. If None, they are the labels in
            X, such as a data set of items (image, label).
        sample_weight : array-like of shape (n,), default=None
            Weight of each image in the loss. Images of weight 0 are left out. None is 1 for all.

        Returns
        -------
        self
            The fitted classifier.

        Raises
        ------
        ValueError
            If the numbers of labels and images differ, y contains fewer than two classes, or a parameter is out of
            range.
        FloatingPointError
            If the training diverges.
        """
        self._check_params()
        images = read_once(self.encoder, X, y)
        y = require_labels(y, X, images, "FineTuner")
        X = images
        self.classes_, labels = encode_labels(y)
        if not len(self.classes_):
            raise ValueError("FineTuner needs labelled images, but every label in y is -1 (unknown).")
        check_classification_targets(self.classes_)
        if len(self.classes_) < 2:
            raise ValueError(
                "FineTuner needs labelled images of at least 2 classes, but y has only one class, "
                f"{self.classes_.tolist()[0]!r} (-1 is an unknown class)."
            )
        known = (labels >= 0).nonzero()[:, 0]
        weights = None
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, labels)[known]
        found = weigh_samples(self.class_weight, sample_weight, self.classes_, labels[known].numpy(), "FineTuner")
        if found is not None:
            known = known[found > 0]
            weights = torch.from_numpy(found[found > 0] / found[found > 0].mean()).float()
        encoder = as_encoder(self.encoder, X, y, layer=self.layer, device=self.device)
        hooks = _FineTuningHooks(len(self.classes_), weights=weights)
        return self._train(encoder, encoder.read(X).take(known), labels[known], hooks)
