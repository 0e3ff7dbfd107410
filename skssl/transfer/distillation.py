"""Distillation of a teacher into a student, on images without labels."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.augment.augmentation import Augmentation
from skssl.augment.normalization import gain_and_offset
from skssl.images import as_images
from skssl.images.labels import as_labels, encode_labels, known_labels
from skssl.nn.precision import resolve_precision
from skssl.probes.encoders import Encoder, as_encoder, read_once
from skssl.training.devices import resolve_device
from skssl.training.objective import Batch, Objective
from skssl.transfer.classifier import ClassifierHooks, ImageClassifier


@dataclass(kw_only=True)
class _DistillationHooks(ClassifierHooks):
    """SimCLRv2's equations 2 and 3, with both sums divided by the number of images."""

    temperature: float
    alpha: float

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted losses, and the fraction of the images that teacher and student classify alike."""
        (view,) = batch.views
        logits = net.head(net.encoder(view)).float()
        with torch.no_grad():
            teacher_logits = net.teacher(view).float()
        soft = F.cross_entropy(logits / self.temperature, (teacher_logits / self.temperature).softmax(1))
        agreement = (logits.argmax(1) == teacher_logits.argmax(1)).float().mean()
        found = {"distillation": self.alpha * soft, "agreement": agreement}
        if self.alpha < 1 and batch.labels is not None:
            known = F.cross_entropy(logits, batch.labels, ignore_index=-1, reduction="sum") / len(logits)
            found["cross_entropy"] = (1 - self.alpha) * known
        return found


class _Renormalized(nn.Module):
    """A network that accepts images normalised for another network.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    own : Augmentation
        The normalisation that the network was trained with.
    other : Augmentation
        The normalisation of the images.
    channels : int
        Channels of the images.
    """

    gain: Tensor
    shift: Tensor

    def __init__(self, module: nn.Module, own: Augmentation, other: Augmentation, channels: int) -> None:
        super().__init__()
        self.module = module
        (own_gain, own_offset), (gain, offset) = (
            (part[:, None, None] for part in gain_and_offset(a.mean, a.std, channels, torch.device("cpu")))
            for a in (own, other)
        )
        self.register_buffer("gain", own_gain / gain)
        self.register_buffer("shift", own_offset - offset * own_gain / gain)

    def forward(self, views: Tensor) -> Tensor:
        """Return the output of the network for images (n, c, h, w) that are normalised by `other`."""
        return self.module(views * self.gain + self.shift)


@dataclass(kw_only=True, eq=False, repr=False)
class Distiller(ImageClassifier):
    r"""Train a student to predict the probabilities of a teacher: (self-)distillation.

    .. math:: -\alpha \sum_i \sum_c P^T_c(x_i; \tau) \log P^S_c(x_i; \tau)
              - (1 - \alpha) \sum_{i\ \mathrm{labelled}} \log P^S_{y_i}(x_i)

    All images are used, labelled or not. The teacher is frozen, in evaluation mode, and sees the same views as the
    student. The defaults are not a paper's; they suit a student that is trained from scratch.

    Parameters
    ----------
    teacher : FineTuner, Distiller, FrozenEstimator of one, or torch.nn.Module
        The teacher. An estimator that is not fitted, as after scikit-learn's `clone`, is cloned and fitted to X and y
        first. A module maps images, normalised by ImageNet's mean and deviation, to logits of the classes 0, 1, ….
    student : SSLTransformer, FrozenEstimator of one, or torch.nn.Module
        The encoder of the student, as for `FineTuner`. ``SimCLR(epochs=0)`` is an untrained one.
    temperature : float, default=1.0
        Temperature tau of both softmaxes.
    alpha : float in [0, 1], default=1.0
        Weight of the teacher's term in the loss. If it is 1, the labels are not used.

    References
    ----------
    Chen et al., Big Self-Supervised Models are Strong Semi-Supervised Learners (SimCLRv2), NeurIPS 2020, equations 2
    and 3. Here both sums are divided by the number of images.

    Examples
    --------
    >>> from skssl import Distiller, FineTuner, SimCLR
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> fresh = SimCLR(backbone="convnet", epochs=0, random_state=0)
    >>> teacher = FineTuner(fresh, epochs=2, batch_size=32, random_state=0).fit(X, y)
    >>> student = Distiller(teacher, fresh, epochs=2, batch_size=32, random_state=0).fit(X)
    >>> student.predict(X).shape, student.history_.columns[1:4].tolist()
    ((64,), ['loss', 'distillation', 'agreement'])
    """

    teacher: Any = field(kw_only=False)
    student: Any = field(kw_only=False)
    temperature: float = 1.0
    alpha: float = 1.0

    epochs: int = 100
    backbone_lr: float = 0.1
    head_lr: float = 0.1
    weight_decay: float = 1e-4
    schedule: str | Sequence[float] = "cosine"

    encoder_parameter: ClassVar[str] = "student"
    _parameter_constraints: ClassVar[dict] = {
        **ImageClassifier._parameter_constraints,
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "alpha": [Interval(Real, 0, 1, closed="both")],
    }

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train the student.

        Parameters
        ----------
        X : array-like, sequence of files or PIL images, or torch Dataset
            Images.
        y : array-like of shape (n,), default=None
            Their classes; -1 is an unknown class. They are used if `alpha` is below 1, and to fit an unfitted teacher.

        Returns
        -------
        self
            The fitted classifier.

        Raises
        ------
        ValueError
            If the numbers of labels and images differ, y contains a class that the teacher does not know, `alpha` is
            below 1 and no image has a label, teacher and student expect different images, or a parameter is out of
            range.
        TypeError
            If `teacher` is not a classifier.
        FloatingPointError
            If the training diverges.
        """
        self._check_params()
        X = read_once(self.student, X, y)
        if self.alpha < 1 and (y is None or not len(encode_labels(y)[0])):
            raise ValueError(
                f"alpha={self.alpha} uses labels in the loss, but no image has a label: set alpha=1 or pass y."
            )
        teacher, self.classes_ = self._fit_teacher(X, y)
        labels = None if y is None else self._class_indices(y)
        encoder = as_encoder(self.student, X, y, layer=self.layer, device=self.device)
        images, seen = encoder.read(X), teacher.read(X)
        if (images.shape, images.scale) != (seen.shape, seen.scale):
            raise ValueError(
                "teacher and student must expect images of the same shape (c, h, w) and range of values, but the "
                f"teacher expects {seen.shape} and {seen.scale}, and the student {images.shape} and {images.scale}."
            )
        module = copy.deepcopy(teacher.module).requires_grad_(False)
        hooks = _DistillationHooks(
            n_classes=len(self.classes_),
            teacher=_Renormalized(module, teacher.augment, encoder.augment, images.shape[0]),
            temperature=self.temperature,
            alpha=self.alpha,
        )
        return self._train(encoder, images, labels, hooks)

    def _fit_teacher(self, X: Any, y: Any) -> tuple[Encoder, np.ndarray]:
        """Return the teacher, fitted if it was not, and its classes."""
        teacher = self.teacher.estimator if isinstance(self.teacher, FrozenEstimator) else self.teacher
        if isinstance(teacher, ImageClassifier):
            fitted = teacher if teacher.__sklearn_is_fitted__() else clone(teacher).fit(X, y)
            net = fitted.net_
            how = net.augmentations[0], torch.device(net.device), net.dtype, net.module_.shape, fitted._reader
            return Encoder(fitted.classifier_, *how), fitted.classes_
        if isinstance(teacher, nn.Module):
            images, home = as_images(X), resolve_device(self.device)
            module = copy.deepcopy(teacher).to(home).eval()
            with torch.no_grad():
                n_classes = module(torch.zeros(1, *images.shape, device=home)).shape[1]
            dtype = resolve_precision(self.precision, home, min(images.shape[1:]))
            return Encoder(module, Augmentation(), home, dtype, images.shape, as_images), np.arange(n_classes)
        raise TypeError(
            "teacher must be a FineTuner or a Distiller, a FrozenEstimator of one, or a torch.nn.Module. Got "
            f"{self.teacher!r}."
        )

    def _class_indices(self, y: Any) -> Tensor:
        """Return the index of each label in the teacher's classes, int64 (n,); -1 is an unknown class."""
        labels = as_labels(y)
        known, indices = known_labels(labels, self.classes_), np.full(len(labels), -1)
        given = np.array(labels[known].tolist())
        unknown = np.setdiff1d(given, self.classes_)
        if len(unknown):
            raise ValueError(
                f"y has the classes {unknown.tolist()}, which the teacher does not know. Its classes are "
                f"{self.classes_.tolist()}."
            )
        indices[known] = np.searchsorted(self.classes_, given)
        return torch.from_numpy(indices)
