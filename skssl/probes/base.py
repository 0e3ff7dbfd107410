"""The base class of the probes: classifiers of features, or of images through a frozen encoder."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from skssl.augment.presets import as_augmentations
from skssl.backbones import SMALL
from skssl.errors import pick
from skssl.images.labels import check_known_labels, require_labels
from skssl.methods.docstrings import inherit_parameters
from skssl.probes.encoders import as_encoder, read_once
from skssl.training.devices import resolve_device

DTYPES = [np.float64, np.float32]


@dataclass(kw_only=True, eq=False, repr=False)
class Probe(ClassifierMixin, BaseEstimator):
    """Base class of the probes.

    Parameters
    ----------
    encoder : SSLTransformer, FrozenEstimator of one, or torch.nn.Module, default=None
        The encoder of the features. X then holds images of any kind that skssl reads. The encoder is frozen, with the
        statistics of its BatchNorm. An estimator that is not fitted is cloned and fitted to the same images first.
        Cloning, as in ``GridSearchCV``, discards a fit unless the estimator is in a ``FrozenEstimator``. If None, X
        holds features.
    layer : str, default="backbone"
        The layer of the encoder to probe: "backbone", "projector", "projector1", …, or an inner layer such as "conv3"
        or "layer2", pooled as in the papers; see `encoders.at_layer`.
    device : str or torch.device, default="auto"
        The device; "auto" prefers CUDA, then MPS, then the CPU. An estimator as encoder has its own device.
    verbose : int, default=0
        1 shows a progress bar.
    """

    encoder: Any = None
    layer: str = "backbone"
    device: str | torch.device = "auto"
    verbose: int = 0

    #: The protocols by name, and the values of parameters that are None without a protocol.
    protocols: ClassVar[dict[str, dict[str, Any]]] = {}
    defaults: ClassVar[dict[str, Any]] = {}

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "layer": [str],
        "device": [str, torch.device],
        "verbose": ["verbose"],
    }

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Document the parameters that a probe inherits."""
        super().__init_subclass__(**kwargs)
        inherit_parameters(cls, Probe)

    @abstractmethod
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

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or images
            The features, or the images if there is an `encoder`.

        Returns
        -------
        ndarray of shape (n_samples,)
            The labels. The first of equally probable classes is returned.
        """
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def score(self, X: Any, y: npt.ArrayLike | None = None, sample_weight: npt.ArrayLike | None = None) -> float:
        """Return the accuracy.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or images
            The features, or the images if there is an `encoder`.
        y : array-like of shape (n_samples,), default=None
            The true labels. If None, they are those in X, as for `fit`.
        sample_weight : array-like of shape (n_samples,), default=None
            The sample weights.

        Returns
        -------
        float
            The share of correct predictions.

        Raises
        ------
        ValueError
            If y holds a class that is missing from the training labels.
        """
        check_is_fitted(self)
        samples = X if self.encoder_ is None else self.encoder_.read(X)
        labels = column_or_1d(require_labels(y, X, samples, type(self).__name__))
        check_known_labels(self, labels)
        return super().score(samples, labels, sample_weight)

    def setting(self, name: str) -> Any:
        """Return the value in use of a parameter that may be None.

        None is the value of the protocol, or the default if there is no protocol.

        Parameters
        ----------
        name : str
            The name of the parameter.

        Returns
        -------
        object
            The value.

        Examples
        --------
        >>> from skssl import LinearProbe
        >>> LinearProbe(protocol="moco").setting("lr"), LinearProbe().setting("lr")
        (30.0, 0.1)
        """
        value = getattr(self, name)
        if value is not None:
            return value
        protocol = getattr(self, "protocol", None)
        chosen = {} if protocol is None else pick("protocol", protocol, self.protocols)
        return chosen.get(name, self.defaults[name])

    def _validate_params(self) -> None:
        """Check the parameters beyond their ranges, too."""
        super()._validate_params()
        resolve_device(self.device)
        if getattr(self, "protocol", None) is not None:
            pick("protocol", self.protocol, self.protocols)
        augment = getattr(self, "augment", None)
        if augment not in (None, "none"):
            as_augmentations(augment, SMALL)
            if self.encoder is None:
                raise ValueError(f"augment={augment!r} needs images and an encoder, but encoder is None.")

    @property
    def _device(self) -> torch.device:
        """The device: the encoder's, if there is one."""
        return self.encoder_.device if self.encoder_ else resolve_device(self.device)

    def _check_X_y(self, X: Any, y: Any) -> tuple[Any, np.ndarray]:
        """Check the parameters and the data; return X and the classes as int64 codes from 0."""
        self._validate_params()
        if self.encoder is None:
            X, labels = validate_data(self, X, y, dtype=DTYPES)
        else:
            samples = read_once(self.encoder, X, y)
            labels = column_or_1d(require_labels(y, X, samples, type(self).__name__), warn=True)
            X = samples
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes in the data, but the data contains only "
                f"one class: {self.classes_.tolist()[0]!r}."
            )
        return X, codes.astype(np.int64, copy=False)

    def _read_samples(self, X: Any, y: Any) -> Any:
        """Return X itself, or the `Images` that the encoder reads from it."""
        self.encoder_: Any = None
        if self.encoder is None:
            return X
        self.encoder_ = as_encoder(self.encoder, X, y, layer=self.layer, device=self.device)
        images = self.encoder_.read(X)
        self.n_features_in_ = math.prod(images.shape)
        self.__dict__.pop("feature_names_in_", None)
        return images

    def _encode_samples(self, samples: Any) -> np.ndarray:
        """Return the features of what `_read_samples` returned."""
        return samples if self.encoder_ is None else self.encoder_.transform(samples)

    def _encode_queries(self, X: Any) -> np.ndarray:
        """Return the features of new samples."""
        check_is_fitted(self)
        if self.encoder_ is not None:
            return self.encoder_.transform(X)
        return validate_data(self, X, dtype=DTYPES, reset=False)
