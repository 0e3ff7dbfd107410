"""Fine-tuning: the whole network learns the classes of a few labelled images, or from one that has."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.augment import CROPS_AND_FLIPS, Augmentation
from skssl.base import SSLTransformer, add_shared, as_labels, check_scorable, number_classes
from skssl.checkpoints import train
from skssl.devices import resolve_device, resolve_precision
from skssl.distributed import draw_seed, join
from skssl.encoders import Encoder, as_encoder
from skssl.engine import Batch, Objective, Trainer, encode
from skssl.errors import pick
from skssl.images import Images, as_images
from skssl.optim import OPTIMIZERS, SCHEDULES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Distiller", "FineTuner", "label_fraction"]


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
    classes, target = number_classes(y)
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
    assert batch.target is not None
    logits = net.head(net.encoder(batch.views[0])).float()
    return {
        "cross_entropy": F.cross_entropy(logits, batch.target),
        "accuracy": (logits.argmax(1) == batch.target).float().mean(),
    }


def _distillation(net: Objective, batch: Batch, *, temperature: float, alpha: float) -> dict[str, Tensor]:
    """Compute SimCLRv2's equations 2 and 3, divided by the number of images, and how often both networks agree."""
    (view,) = batch.views
    logits = net.head(net.encoder(view)).float()
    with torch.no_grad():
        taught = net.teacher(view).float()
    soft = F.cross_entropy(logits / temperature, (taught / temperature).softmax(1))
    found = {"distillation": alpha * soft, "agreement": (logits.argmax(1) == taught.argmax(1)).float().mean()}
    if alpha < 1 and batch.target is not None:
        known = F.cross_entropy(logits, batch.target, ignore_index=-1, reduction="sum") / len(logits)
        found["cross_entropy"] = (1 - alpha) * known
    return found


@dataclass
class _Step:
    """What a classifier's training does in a step, in the form in which the `Trainer` calls a method."""

    n_classes: int
    losses: Callable[[Objective, Batch], dict[str, Tensor]]
    read: Callable[[Any], Images]
    teacher: nn.Module | None = None

    renewed: ClassVar[tuple[str, ...]] = ()
    reads_views: ClassVar[bool] = True

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Put a head of zeros on the net, and the teacher where there is one."""
        net.head = nn.Linear(dim, self.n_classes)
        nn.init.zeros_(net.head.weight)
        nn.init.zeros_(net.head.bias)
        net.teacher = self.teacher

    def prepare(self, net: Objective, batch: Batch) -> None:
        """Make nothing but the views."""

    def before_epoch(self, net: Objective, epoch: int, encode: Callable[[nn.Module], Tensor]) -> None:
        """Bring the teacher back to evaluation mode."""
        if net.teacher is not None:
            net.teacher.eval()

    def after_backward(self, net: Objective) -> None:
        """Leave the gradient as it is."""

    def after_step(self, net: Objective, progress: float) -> None:
        """Move nothing."""


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
class ImageClassifier(ClassifierMixin, BaseEstimator):
    """What `FineTuner` and `Distiller` share: a network with a linear head, all of which is trained.

    Parameters
    ----------
    layer : str, default="backbone"
        Up to where the encoder is kept: "backbone", "projector1" for the projector's first layer, too (SimCLRv2 with a
        projector of three layers), "projector" for all of it, or an inner layer; see `encoders.at_layer`.
    augment : str or Augmentation, default=None
        None is a random resized crop and a flip. Mean and deviation are those that the encoder was trained with.
    epochs : int, default=20
        How often `fit` goes through the images.
    batch_size : int, default=256
        Images a step, of all processes together. An epoch's last, shorter batch is left out, unless it is the only
        one.
    optimizer : {"sgd", "lars", "adamw"} or torch.optim.Optimizer subclass, default="sgd"
        The optimiser.
    backbone_lr : float, default=0.01
        The encoder's learning rate at its highest, used as it is.
    head_lr : float, default=0.2
        The head's.
    momentum : float, default=0.9
        The optimiser's, where it has one.
    weight_decay : float, default=0.0
        Of all parameters.
    schedule : {"constant", "cosine", "epoch_cosine", "step"} or tuple of float, default=(0.6, 0.8)
        The learning rates' course. Numbers are the shares of the training at which both fall to a fifth: epochs 12 and
        16 of 20.
    warmup_epochs : float, default=0.0
        Epochs in which the rates rise from 0.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        What the network trains in, as for the methods. Predictions are made in float32.
    compile : {"auto"} or bool, default="auto"
        Whether to compile the step with ``torch.compile``, as for the methods.
    device : str or torch.device, default="auto"
        "auto" is CUDA where there is one, else Apple's MPS, else the CPU.
    callbacks : list of skorch callbacks, default=None
        Called during training.
    random_state : int, RandomState or None, default=None
        Seed of the order, the augmentation and all else. The global random state is not used.
    checkpoint : str or path-like, default=None
        A folder in which `fit` keeps the training's state, and goes on from, as for the methods.
    checkpoint_every : int, str or datetime.timedelta, default="10 min"
        After how many epochs the state is saved, or after how much time.
    verbose : int, default=0
        1 shows a progress bar for every epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classes.
    classifier_ : torch.nn.Module
        From images, normalised, to logits (n, n_classes), in evaluation mode; ``classifier_[0]`` is the encoder.
    history_ : pandas.DataFrame
        A row an epoch: epoch, loss, each loss and measure by name, lr (the encoder's, at the epoch's end),
        images_per_second, embedding_std and effective_rank (of the features that the head is given).
    net_ : skorch.NeuralNet
        The net that was trained.
    n_features_in_ : int
        Numbers in an image: channels x height x width.
    """

    layer: str = "backbone"
    augment: Any = None
    epochs: int = 20
    batch_size: int = 256
    optimizer: Any = "sgd"
    backbone_lr: float = 0.01
    head_lr: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str | Sequence[float] = (0.6, 0.8)
    warmup_epochs: float = 0.0
    precision: str = "auto"
    compile: bool | str = "auto"
    device: Any = "auto"
    callbacks: Any = None
    random_state: Any = None
    checkpoint: Any = None
    checkpoint_every: Any = "10 min"
    verbose: int = 0

    _parameter_constraints: ClassVar[dict] = {
        **{
            name: SSLTransformer._parameter_constraints[name]
            for name in (
                "batch_size",
                "momentum",
                "precision",
                "compile",
                "device",
                "callbacks",
                "random_state",
                "checkpoint",
                "checkpoint_every",
                "verbose",
            )
        },
        "layer": [str],
        "augment": [str, Augmentation, None],
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "optimizer": [str, callable],
        "backbone_lr": [Interval(Real, 0, None, closed="left")],
        "head_lr": [Interval(Real, 0, None, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "schedule": [str, "array-like"],
        "warmup_epochs": [Interval(Real, 0, None, closed="left")],
    }

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Add the shared parameters to the class's constraints and to its docstring."""
        super().__init_subclass__(**kwargs)
        add_shared(cls, ImageClassifier)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Give the probability of every class.

        Parameters
        ----------
        X : array-like, sequence of files or PIL images, or torch Dataset
            Images of the shape that the estimator was fitted to.

        Returns
        -------
        float32 ndarray of shape (n, n_classes)
            The probabilities, in the order of ``classes_``.
        """
        check_is_fitted(self, "net_")
        net = self.net_
        logits = encode(self.classifier_, self._read(X), net.augmentations[0], torch.device(net.device), net.dtype)
        return logits.softmax(1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Give the most probable class.

        Parameters
        ----------
        X : array-like, sequence of files or PIL images, or torch Dataset
            Images of the shape that the estimator was fitted to.

        Returns
        -------
        ndarray of shape (n,)
            The labels.
        """
        probability = self.predict_proba(X)
        return self.classes_[probability.argmax(1)]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Give the accuracy.

        Parameters
        ----------
        X : array-like, sequence of files or PIL images, or torch Dataset
            Images of the shape that the estimator was fitted to.
        y : array-like of shape (n,)
            The true classes; images whose class is -1, unknown, are left out.
        sample_weight : array-like of shape (n,), default=None
            What each image counts.

        Returns
        -------
        float
            The share of images whose class is predicted.

        Raises
        ------
        ValueError
            If y holds a class that was not in the training, or nothing but -1.
        """
        check_is_fitted(self, "net_")
        check_consistent_length(X, y, sample_weight)
        labels = as_labels(y)
        known = np.asarray(labels != -1)
        if not known.any():
            raise ValueError(f"{type(self).__name__} cannot be scored: all of y is -1, which stands for unknown.")
        check_scorable(self, labels[known])
        predicted, true = self.predict(X)[known], np.array(labels[known].tolist())
        weight = None if sample_weight is None else np.asarray(sample_weight)[known]
        return accuracy_score(true, predicted, sample_weight=weight)

    @property
    def classifier_(self) -> nn.Module:
        """The trained network, in evaluation mode."""
        return nn.Sequential(self.net_.module_.encoder, self.net_.module_.head).eval()

    @property
    def history_(self) -> pd.DataFrame:
        """The training's history, a row an epoch."""
        return self.net_.table()

    def __sklearn_is_fitted__(self) -> bool:
        """Whether there is a trained net."""
        return hasattr(self, "net_")

    def __sklearn_tags__(self) -> Any:
        """Say that images may have three or more axes."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _check(self) -> None:
        """Check the parameters."""
        self._validate_params()
        if isinstance(self.optimizer, str):
            pick("optimizer", self.optimizer, OPTIMIZERS)
        if isinstance(self.schedule, str):
            pick("schedule", self.schedule, SCHEDULES)
        elif not all(isinstance(share, Real) and 0 <= share <= 1 for share in self.schedule):
            raise ValueError(
                "schedule must be a name, or shares of the training, between 0 and 1, at which the learning rates fall "
                f"to a fifth. Got {self.schedule!r}."
            )

    def _train(self, encoder: Encoder, images: Images, target: Tensor | None, step: _Step) -> Self:
        """Train a copy of an encoder, with a head."""
        self._read, self.n_features_in_ = encoder.read, math.prod(images.shape)
        device = resolve_device(self.device)
        join(device)
        seed = draw_seed(self.random_state)
        augment = CROPS_AND_FLIPS if self.augment is None else self.augment
        module = copy.deepcopy(encoder.module).requires_grad_(True)
        with torch.no_grad():
            blank = encoder.augment.still(torch.zeros(1, *images.shape, device=encoder.device))
            dim = module.eval()(blank).shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            objective = Objective(module, dim, step, {}, len(images), images.shape)
        trainer = Trainer(
            objective,
            augmentations=encoder.augmentations(augment, max(images.shape[1:]))[:1],
            schedule=self.schedule,
            warmup_epochs=self.warmup_epochs,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            rates={"head": self.head_lr},
            collapsible=False,
            dtype=resolve_precision(self.precision, device, min(images.shape[1:])),
            tf32=self.precision == "auto",
            seed=seed,
            optimizer=self.optimizer,
            lr=self.backbone_lr,
            max_epochs=self.epochs,
            batch_size=self.batch_size,
            device=str(device),
            compile=self.compile,
            callbacks=self.callbacks,
            verbose=self.verbose,
        )
        self.net_ = trainer.initialize()
        train(self, self.net_, images, target, encoder=encoder.module, teacher=step.teacher)
        return self


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
        check_consistent_length(X, y)
        self.classes_, target = number_classes(y)
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
        return self._train(
            encoder, encoder.read(X).take(known), target[known], _Step(len(self.classes_), _cross_entropy, encoder.read)
        )


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
        if y is not None:
            check_consistent_length(X, y)
        if self.alpha < 1 and (y is None or not len(number_classes(y)[0])):
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
        return self._train(encoder, images, target, _Step(len(self.classes_), losses, encoder.read, module))

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
        classes, target = number_classes(y)
        unknown = np.setdiff1d(classes, self.classes_)
        if len(unknown):
            raise ValueError(
                f"y has classes that the teacher does not know: {unknown.tolist()} are not among "
                f"{self.classes_.tolist()}."
            )
        places = torch.from_numpy(np.searchsorted(self.classes_, classes))
        return torch.where(target >= 0, places[target], -1)
