"""Non-linear evaluation: a multi-layer perceptron on frozen features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight

from skssl.augment.augmentation import Augmentation
from skssl.images.labels import weigh_samples
from skssl.nn.heads import MLP
from skssl.probes.base import Probe
from skssl.probes.sgd import (
    SCHEDULES,
    AugmentedFeatures,
    FixedFeatures,
    normalize_weights,
    resolve_augmentation,
    train_head,
)
from skssl.storage.files import take
from skssl.storage.saving import Field, is_int, is_sequence
from skssl.training.state import check_network, fill

PREDICTION_BATCH = 8192  # samples


@dataclass(kw_only=True, eq=False, repr=False)
class MLPProbe(Probe):
    """Multi-layer perceptron on features, for classes that are not linearly separable.

    The hidden layers have BatchNorm and ReLU. The network is trained by SGD on the cross-entropy.

    Parameters
    ----------
    hidden_layer_sizes : sequence of int, default=(512,)
        The widths of the hidden layers. Rotation feature decoupling [1]_ uses (4096, 4096) on the maps of an AlexNet;
        non-linear probes of pooled features mostly use one layer.
    epochs : int, default=100
        The number of passes over the data.
    batch_size : int, default=512
        The number of samples in a step. A last batch of one sample joins the one before it.
    lr : float, default=0.1
        The initial learning rate, not scaled by the batch size.
    momentum : float in [0, 1), default=0.9
        The momentum.
    nesterov : bool, default=False
        Whether to use Nesterov's momentum.
    weight_decay : float, default=5e-4
        The weight decay of the linear layers, as in [1]_. Biases and BatchNorm are not decayed.
    schedule : {"constant", "cosine", "epoch_cosine", "multistep"} or sequence, default="cosine"
        The schedule of the learning rate: constant; half a cosine down to zero, step by step or epoch by epoch; or
        multiplied by 0.1 after 60 % and again after 80 % of the training. Numbers are shares of the training at which
        the rate is multiplied by 0.2, as for `FineTuner`, and pairs are shares and the factor from there on.
    augment : str or Augmentation, default=None
        The augmentation of the training images in every epoch, with an `encoder`: a name of `augment.preset`, whose
        first view is used, or an augmentation. The mean and the standard deviation are the encoder's. Predictions never
        augment.
    class_weight : {"balanced"} or dict, default=None
        The weight of each class, as in ``LogisticRegression``: "balanced" gives all classes the same total weight, and
        a class that is missing from a dict has the weight 1.
    random_state : int, RandomState instance or None, default=None
        The seed of the initial weights, the order of the samples and the augmentation.

    Attributes
    ----------
    network_ : skssl.nn.heads.MLP
        The network from features to logits, in evaluation mode and on the CPU.
    classes_ : ndarray of shape (n_classes,)
        The class labels.
    n_iter_ : int
        The number of epochs.
    encoder_ : Encoder or None
        The encoder, if there is one.
    n_features_in_ : int
        The number of features, or of values in an image.

    Raises
    ------
    ValueError
        On ``fit``, if a parameter is invalid, the labels hold a single class, or SGD diverges; on ``score``, if a class
        is missing from the training labels.

    References
    ----------
    .. [1] Feng et al., "Self-Supervised Representation Learning by Rotation Feature Decoupling", CVPR 2019.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> probe = MLPProbe(hidden_layer_sizes=(32,), epochs=30, batch_size=32, device="cpu", random_state=0).fit(X, y)
    >>> probe.score(X, y) > 0.95
    True
    """

    hidden_layer_sizes: Sequence[int] = (512,)
    epochs: int = 100
    batch_size: int = 512
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: str | Sequence[Any] = "cosine"
    augment: str | Augmentation | None = None
    class_weight: str | Mapping[Any, float] | None = None
    random_state: int | np.random.RandomState | None = None

    saved_fields: ClassVar[dict[str, Field]] = {
        **Probe.saved_fields,
        "n_iter": Field(is_int(1), "a number of epochs"),
        "widths": Field(
            lambda value: is_sequence(list, is_int(1))(value) and 2 <= len(value) <= 100, "2 to 100 widths"
        ),
    }
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **Probe._parameter_constraints,
        "hidden_layer_sizes": ["array-like"],
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "nesterov": ["boolean"],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "schedule": [StrOptions(set(SCHEDULES)), tuple, list],
        "augment": [str, Augmentation, None],
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "random_state": ["random_state"],
    }

    def fit(self, X: Any, y: npt.ArrayLike | None = None, sample_weight: npt.ArrayLike | None = None) -> MLPProbe:
        """Train the probe.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or images
            The features, or the images if there is an `encoder`.
        y : array-like of shape (n_samples,), default=None
            The labels: numbers or strings. Samples of unknown class, -1, are left out, with a warning that says how
            many. An encoder that is not fitted is trained on all. Labels that are all -1 or 1 are two classes. None
            takes the labels in X, such as a data set of items (image, label).
        sample_weight : array-like of shape (n_samples,), default=None
            The weight of each sample in the loss. A weight of 2 counts as two samples, and a sample of weight 0 is left
            out. None is 1 for all.

        Returns
        -------
        MLPProbe
            The fitted probe.
        """
        X, labels, known = self._check_X_y(X, y)
        codes = self._codes(labels[known])
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, labels)[known]
        weights = weigh_samples(self.class_weight, sample_weight, self.classes_, codes, "MLPProbe")
        index = torch.arange(len(codes)) if weights is None else torch.from_numpy(np.flatnonzero(weights))
        samples = self._read_samples(X, labels, known)
        augment = resolve_augmentation(self.encoder_, self.augment, samples.shape, known)
        source = (
            AugmentedFeatures(samples, self.encoder_, augment)
            if augment
            else FixedFeatures(self._encode_samples(samples), self._device)
        )
        self.network_ = train_head(
            lambda width: MLP((width, *self.hidden_layer_sizes, len(self.classes_))),
            source,
            index,
            torch.from_numpy(codes).to(self._device),
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=[self.lr],
            momentum=self.momentum,
            nesterov=self.nesterov,
            schedule=self.schedule,
            weight_decay=[self.weight_decay],
            seed=int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max)),
            verbose=self.verbose,
            weights=None if weights is None else normalize_weights(weights, index, self._device),
        )
        self.n_iter_ = self.epochs
        return self

    def _pack_learned(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        linear = [layer for layer in self.network_.children() if isinstance(layer, torch.nn.Linear)]
        widths = [linear[0].in_features, *(layer.out_features for layer in linear)]
        network = {f"network.{name}": value for name, value in self.network_.state_dict().items()}
        return {"n_iter": self.n_iter_, "widths": widths}, network

    def _set_learned(self, values: Mapping[str, Any], tensors: dict[str, torch.Tensor], width: int) -> None:
        widths = values["widths"]
        if (widths[0], widths[-1]) != (width, len(self.classes_)):
            raise ValueError(f"'widths' must begin with {width} and end with {len(self.classes_)}. Got {widths}.")
        with torch.device("meta"):
            network = MLP(widths)
        check_network(network, tensors, "network.")
        fill(network, take(tensors, "network."))
        self.network_, self.n_iter_ = network.eval(), values["n_iter"]

    @torch.inference_mode()
    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the class probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or images
            The features, or the images if there is an `encoder`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            The probabilities, in the order of ``classes_``.
        """
        features = torch.tensor(self._encode_queries(X), dtype=torch.float32)
        logits = [self.network_(part) for part in features.split(PREDICTION_BATCH)]
        return torch.cat(logits).double().softmax(dim=1).numpy()

    def _validate_params(self) -> None:
        """Check the parameters and each of the widths."""
        super()._validate_params()
        sizes = self.hidden_layer_sizes
        if not all(isinstance(size, Integral) and size >= 1 for size in sizes):
            raise ValueError(
                f"The 'hidden_layer_sizes' parameter of MLPProbe must be integers of at least 1. Got {sizes!r} instead."
            )
