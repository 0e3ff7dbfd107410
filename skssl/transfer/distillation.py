"""Distillation of a teacher into a student, on images without labels."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
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
from skssl.images import as_images
from skssl.images.labels import encode_labels
from skssl.nn.precision import resolve_precision
from skssl.probes.encoders import Encoder, as_encoder
from skssl.training.devices import resolve_device
from skssl.training.objective import Batch, Objective
from skssl.transfer.classifier import ClassifierHooks, ImageClassifier


def _distillation(net: Objective, batch: Batch, *, temperature: float, alpha: float) -> dict[str, Tensor]:
    """Compute SimCLRv2's equations 2 and 3, divided by the number of images, and how often both networks agree."""
    (view,) = batch.views
    logits = net.head(net.encoder(view)).float()
    with torch.no_grad():
        taught = net.teacher(view).float()
    soft = F.cross_entropy(logits / temperature, (taught / temperature).softmax(1))
    found = {"distillation": alpha * soft, "agreement": (logits.argmax(1) == taught.argmax(1)).float().mean()}
    if alpha < 1 and batch.labels is not None:
        known = F.cross_entropy(logits, batch.labels, ignore_index=-1, reduction="sum") / len(logits)
        found["cross_entropy"] = (1 - alpha) * known
    return found


class _Renormalized(nn.Module):
    """A network that was trained with its own normalisation, for images that are normalised as for another one."""

    gain: Tensor
    shift: Tensor

    def __init__(self, module: nn.Module, own: Augmentation, other: Augmentation, channels: int) -> None:
        super().__init__()
        self.module = module
        black, white = torch.zeros(1, channels, 1, 1), torch.ones(1, channels, 1, 1)
        gain, given = (a.normalize(white) - a.normalize(black) for a in (own, other))
        self.register_buffer("gain", gain / given)
        self.register_buffer("shift", own.normalize(black) - other.normalize(black) * gain / given)

    def forward(self, views: Tensor) -> Tensor:
        """Map images (n, c, h, w) that are normalised by `other` to what the module gives."""
        return self.module(views * self.gain + self.shift)


@dataclass(kw_only=True, eq=False, repr=False)
class Distiller(ImageClassifier):
    r"""Train a student to give the probabilities that a teacher gives, on all images: (self-)distillation.

    .. math:: -\alpha \sum_i \sum_c P^T_c(x_i; \tau) \log P^S_c(x_i; \tau)
              - (1 - \alpha) \sum_{i\ \mathrm{labelled}} \log P^S_{y_i}(x_i)

    The teacher stays as it is, in evaluation mode, and sees the same views as the student. The defaults are ours, for a
    student that begins anew.

    Parameters
    ----------
    teacher : FineTuner, Distiller, FrozenEstimator of one, or torch.nn.Module
        Who teaches. An estimator that is not fitted, as after scikit-learn's `clone`, is cloned and fitted to X and y
        first. A module maps images, normalised by ImageNet's mean and deviation, to logits of the classes 0, 1, ….
    student : SSLTransformer, FrozenEstimator of one, or torch.nn.Module
        The encoder that learns, as for `FineTuner`; ``SimCLR(epochs=0)`` is a fresh one.
    temperature : float, default=1.0
        Tau, of both softmaxes.
    alpha : float in [0, 1], default=1.0
        The teacher's share of the loss. Below 1 labels have a share, too; at 1 they are not used.

    References
    ----------
    Chen et al., Big Self-Supervised Models are Strong Semi-Supervised Learners (SimCLRv2), NeurIPS 2020, equations 2
    and 3; here both sums are divided by the number of images.

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

    _parameter_constraints: ClassVar[dict] = {
        **ImageClassifier._parameter_constraints,
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "alpha": [Interval(Real, 0, 1, closed="both")],
    }

    def fit(self, X: Any, y: Any = None) -> Self:
        """Distil the teacher into the student.

        Parameters
        ----------
        X : array-like, sequence of files or PIL images, or torch Dataset
            Images.
        y : array-like of shape (n,), default=None
            Their classes; -1 where unknown. Used where `alpha` is below 1, and to fit a teacher that is not.

        Returns
        -------
        self
            The fitted classifier.

        Raises
        ------
        ValueError
            If the labels are of another number than the images or hold a class that the teacher does not know, if there
            are none where `alpha` gives them a share, if teacher and student do not read images alike, or a parameter
            is out of its range.
        TypeError
            If the teacher is none.
        FloatingPointError
            If the training diverges.
        """
        self._check()
        X = self._read_once(self.student, X, y)
        if self.alpha < 1 and (y is None or not len(encode_labels(y)[0])):
            raise ValueError(
                f"alpha={self.alpha} gives labels a share in the loss, but no image has one: take alpha=1 or give y."
            )
        teacher, self.classes_ = self._teacher(X, y)
        target = None if y is None else self._places(y)
        encoder = as_encoder(self.student, X, y, layer=self.layer, device=self.device)
        images, seen = encoder.read(X), teacher.read(X)
        if (images.shape, images.scale) != (seen.shape, seen.scale):
            raise ValueError(
                "teacher and student must read images alike, but the values that they map to 0 and 1 or the shapes "
                f"(c, h, w) differ: {seen.scale} and {seen.shape} against {images.scale} and {images.shape}."
            )
        module = copy.deepcopy(teacher.module).requires_grad_(False)
        module = _Renormalized(module, teacher.augment, encoder.augment, images.shape[0])
        losses = partial(_distillation, temperature=self.temperature, alpha=self.alpha)
        return self._train(encoder, images, target, ClassifierHooks(len(self.classes_), losses, module))

    def _teacher(self, X: Any, y: Any) -> tuple[Encoder, np.ndarray]:
        """Take whatever the user calls a teacher: how it sees images, and the classes that it knows."""
        teacher = self.teacher.estimator if isinstance(self.teacher, FrozenEstimator) else self.teacher
        if isinstance(teacher, ImageClassifier):
            fitted = teacher if teacher.__sklearn_is_fitted__() else clone(teacher).fit(X, y)
            net = fitted.net_
            how = net.augmentations[0], torch.device(net.device), net.dtype, net.module_.shape, fitted._read
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

    def _places(self, y: Any) -> Tensor:
        """Each label's place among the classes that the teacher knows, -1 where it is unknown."""
        classes, target = encode_labels(y)
        unknown = np.setdiff1d(classes, self.classes_)
        if len(unknown):
            raise ValueError(
                f"y has classes that the teacher does not know: {unknown.tolist()} are not among "
                f"{self.classes_.tolist()}."
            )
        places = torch.from_numpy(np.searchsorted(self.classes_, classes))
        return torch.where(target >= 0, places[target], -1)
