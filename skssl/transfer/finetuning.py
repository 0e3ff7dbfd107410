"""Fine-tuning of an encoder on few labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar, Self

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight
from torch import Tensor
from torch.nn import functional as F

from skssl.images.labels import encode_labels, require_labels, weigh_samples
from skssl.probes.encoders import as_encoder, read_once
from skssl.training.objective import Batch, Objective
from skssl.transfer.classifier import ClassifierHooks, ImageClassifier


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

    layer_decay : float, default=1.0
        Factor of `backbone_lr` from a layer of the encoder to the one before it, in (0, 1]. Layers are the blocks of a
        vision transformer, or the stages of other networks. MAE fine-tunes ViT-B with 0.65 and larger ones with 0.75.

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
    layer_decay: float = 1.0

    _parameter_constraints: ClassVar[dict] = {
        **ImageClassifier._parameter_constraints,
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "layer_decay": [Interval(Real, 0, 1, closed="right")],
    }

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fine-tune on the labelled images.

        Parameters
        ----------
        X : array-like, sequence of files or PIL images, or torch Dataset
            Images.
        y : array-like of shape (n,), default=None
            Their classes; -1 is an unknown class, as in the result of `label_fraction`. Labels that are all -1 or 1 are
            two classes. If None, they are the labels in X, such as a data set of items (image, label).
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
