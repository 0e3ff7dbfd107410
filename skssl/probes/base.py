"""The base class of the probes: classifiers of features, or of images through a frozen encoder."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.frozen import FrozenEstimator
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data
from torch import Tensor

from skssl.augment.presets import as_augmentations
from skssl.backbones import SMALL
from skssl.errors import pick
from skssl.images import Images
from skssl.images.base import describe
from skssl.images.dataset_items import is_dataset
from skssl.images.labels import as_labels, check_known_labels, is_image, known_labels, require_labels
from skssl.methods.base import SSLTransformer
from skssl.methods.docstrings import inherit_parameters
from skssl.probes.encoders import as_encoder, read_once
from skssl.probes.saved_encoders import ENCODER, SavedEncoder, n_features, pack_encoder
from skssl.storage.files import take
from skssl.storage.parameters import Given, Parts
from skssl.storage.registry import register
from skssl.storage.saving import (
    LABELS,
    READING,
    Field,
    Restore,
    Saved,
    holds_fields,
    is_int,
    pack_labels,
    unpack_labels,
)
from skssl.training.devices import available, resolve_device
from skssl.training.schedules import check_schedule

DTYPES = [np.float64, np.float32]


@dataclass(kw_only=True, eq=False, repr=False)
class Probe(ClassifierMixin, Saved, BaseEstimator):
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

    saved_fields: ClassVar[dict[str, Field]] = {
        "classes": LABELS,
        "layer": Field(lambda value: value is None or type(value) is str, "a layer, or None for features"),
        "encoder": Field(
            lambda value: value is None or holds_fields(ENCODER)(value), f"None or a dict of {', '.join(ENCODER)}"
        ),
        "n_features": Field(is_int(1), "a number of features"),
        "feature_names": READING["feature_names"],
    }

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
        register("estimator")(cls)
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
            The true labels. Samples of unknown class, -1, are left out. If None, the labels are those in X, as for
            `fit`.
        sample_weight : array-like of shape (n_samples,), default=None
            The sample weights.

        Returns
        -------
        float
            The share of correct predictions.

        Raises
        ------
        ValueError
            If y holds a class that is missing from the training labels, or no known class.
        """
        check_is_fitted(self)
        samples = X if self.encoder_ is None else self.encoder_.read(X)
        labels = as_labels(require_labels(y, X, samples, type(self).__name__))
        known = known_labels(labels, self.classes_)
        if len(labels) and not known.any():
            raise ValueError(f"{type(self).__name__}.score needs labels, but every label in y is -1 (unknown).")
        check_known_labels(self, labels[known])
        if known.all():
            return super().score(samples, labels, sample_weight)
        check_consistent_length(range(len(samples)) if isinstance(samples, Images) else samples, labels, sample_weight)
        found = self.predict(samples)[known]
        weights = None if sample_weight is None else np.asarray(sample_weight)[known]
        return float(np.average(found == labels[known], weights=weights))

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
        if getattr(self, "protocol", None) is not None:
            pick("protocol", self.protocol, self.protocols)
        schedule = getattr(self, "schedule", None)
        if isinstance(schedule, (tuple, list)):
            check_schedule(schedule, None)
        augment = getattr(self, "augment", None)
        if augment not in (None, "none"):
            as_augmentations(augment, SMALL)
            if self.encoder is None:
                raise ValueError(f"augment={augment!r} needs images and an encoder, but encoder is None.")

    @property
    def _device(self) -> torch.device:
        """The device: the encoder's, if there is one."""
        return self.encoder_.device if self.encoder_ else available(self.device)

    def _check_X_y(self, X: Any, y: Any) -> tuple[Any, np.ndarray, np.ndarray]:
        """Check the parameters and the data; return X, the labels, and whether each is known."""
        self._validate_params()
        resolve_device(self.device)
        if self.encoder is None:
            self._refuse_images(X)
            X, labels = validate_data(self, X, None if y is None else as_labels(y), dtype=DTYPES)
        else:
            samples = read_once(self.encoder, X, y)
            labels = as_labels(require_labels(y, X, samples, type(self).__name__))
            X = samples
        name, known = type(self).__name__, known_labels(labels)
        seen, n_unknown = labels[known], int((~known).sum())
        seen = np.array(seen.tolist()) if n_unknown and labels.dtype == object else seen
        check_classification_targets(seen)
        self.classes_ = np.unique(seen)
        if len(self.classes_) < 2:
            held = f"only one class: {self.classes_.tolist()[0]!r}" if len(self.classes_) else "no class"
            note = f" {n_unknown} labels are -1, which is an unknown class." if n_unknown else ""
            raise ValueError(
                f"{name} needs samples of at least 2 classes in the data, but the data contains {held}.{note}"
            )
        if n_unknown:
            warnings.warn(
                f"{name} leaves out {n_unknown} of {len(labels)} samples, whose label is -1 (unknown).", stacklevel=3
            )
        return X, labels, known

    def _refuse_images(self, X: Any) -> None:
        """Refuse images and encoders in place of features, and show the right call."""
        first = X[0] if isinstance(X, (list, tuple)) and len(X) else X
        is_encoder = hasattr(X, "fit") or isinstance(X, torch.nn.Module)
        is_text = isinstance(X, np.ndarray) and X.dtype.kind in "US"
        if is_encoder or is_text or is_dataset(X) or (is_image(first) and getattr(first, "ndim", 3) > 2):
            name = type(self).__name__
            raise ValueError(
                f"X must be features (n, d) for {name} without an encoder. Got {describe(X)}. Pass {name}("
                f"encoder=encoder).fit(X, y) for images, or {name}().fit(encoder.transform(X), y)."
            )

    def _codes(self, labels: np.ndarray) -> np.ndarray:
        """Return the indices in ``classes_`` of labels of known classes, as int64."""
        return np.searchsorted(self.classes_, labels).astype(np.int64, copy=False)

    def _read_samples(self, X: Any, labels: np.ndarray, known: np.ndarray) -> Any:
        """Return the labelled samples of X, or the `Images` that the encoder reads from them.

        An encoder that is not fitted is trained on all of X.
        """
        self.encoder_: Any = None
        if self.encoder is None:
            return X if known.all() else X[known]
        self.encoder_ = as_encoder(self.encoder, X, labels, layer=self.layer, device=self.device)
        images = self.encoder_.read(X)
        self.n_features_in_ = math.prod(images.shape)
        self.__dict__.pop("feature_names_in_", None)
        return images if known.all() else images.take(torch.from_numpy(known.nonzero()[0]))

    def _encode_samples(self, samples: Any) -> np.ndarray:
        """Return the features of what `_read_samples` returned."""
        return samples if self.encoder_ is None else self.encoder_.transform(samples)

    def _encode_queries(self, X: Any) -> np.ndarray:
        """Return the features of new samples."""
        check_is_fitted(self)
        if self.encoder_ is not None:
            return self.encoder_.transform(X)
        self._refuse_images(X)
        return validate_data(self, X, dtype=DTYPES, reset=False)

    # What `save` writes and `skssl.load` reads.

    @abstractmethod
    def _pack_learned(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return what `fit` learned about features: the other values of `saved_fields`, and tensors."""

    @abstractmethod
    def _set_learned(self, values: Mapping[str, Any], tensors: dict[str, Tensor], width: int) -> None:
        """Take over what `_pack_learned` returned, for features of a width; raise ValueError if it does not fit."""

    def _pack_state(self, parts: Parts, prefix: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        values, tensors = self._pack_learned()
        values |= {
            "classes": pack_labels(self.classes_),
            "layer": None if self.encoder_ is None else self.encoder_.read.layer,
            "encoder": None,
            "n_features": self.n_features_in_,
            "feature_names": getattr(self, "feature_names_in_", np.empty(0)).tolist(),
        }
        if self.encoder_ is not None and not self._uses_fitted_encoder():
            values["encoder"] = pack_encoder(self.encoder_.read, parts, f"{prefix}encoder__")
            tensors |= {f"encoder.{name}": value for name, value in self.encoder_.module.state_dict().items()}
        return values, tensors

    def _uses_fitted_encoder(self) -> bool:
        """Return whether the network is that of the parameter `encoder`, which is then saved once."""
        encoder = self.encoder.estimator if isinstance(self.encoder, FrozenEstimator) else self.encoder
        if not isinstance(encoder, SSLTransformer) or not encoder.__sklearn_is_fitted__():
            return False
        theirs = {id(value) for value in encoder.net_.module_.parameters()}
        return all(id(value) in theirs for value in self.encoder_.module.parameters())

    def _check_state(
        self, trained: Self, values: Mapping[str, Any], shapes: Mapping[str, Tensor], given: Given
    ) -> Restore:
        self._validate_params()
        saved = None if values["encoder"] is None else SavedEncoder(values["encoder"], self.encoder, given)
        if saved is not None:
            blank = saved.blank(saved.network)
            blank.check(shapes, "encoder.")

        def restore(tensors: dict[str, Tensor]) -> None:
            self.classes_, self.encoder_ = unpack_labels(values["classes"]), None
            self.n_features_in_ = width = values["n_features"]
            if saved is not None:
                self.encoder_ = saved.encoder(blank.fill(take(tensors, "encoder.")), self.device)
            elif values["layer"] is not None:
                check_is_fitted(self.encoder)
                self.encoder_ = as_encoder(self.encoder, None, layer=values["layer"])
            if self.encoder_ is not None:
                width = n_features(self.encoder_.module, self.encoder_.encoded)
                self.n_features_in_ = math.prod(self.encoder_.shape)
            elif names := values["feature_names"]:
                self.feature_names_in_ = np.array(names, dtype=object)
            self._set_learned(values, tensors, width)
            for name in tensors:
                raise ValueError(f"The tensor {name[:80]!r} is unknown.")

        return restore


def take_array(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...], *dtypes: torch.dtype) -> np.ndarray:
    """Remove a tensor of a saved probe, and return it as an array.

    Parameters
    ----------
    tensors : dict of str to Tensor
        The tensors, from a file that is not trusted.
    name : str
        The name.
    shape : tuple of int
        The expected shape; -1 is any length.
    *dtypes : torch.dtype
        The accepted types.

    Returns
    -------
    ndarray
        The array.

    Raises
    ------
    ValueError
        If the tensor is missing, or of another shape or type.
    """
    found = tensors.pop(name, torch.empty(0))
    fits = len(shape) == found.ndim and all(n in (-1, length) for n, length in zip(shape, found.shape, strict=True))
    if not fits or found.dtype not in dtypes:
        raise ValueError(
            f"The tensor {name!r} must be of shape {shape} and {' or '.join(map(str, dtypes))}. Got "
            f"{tuple(found.shape)} and {found.dtype}."
        )
    return found.numpy()
