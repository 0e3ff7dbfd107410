"""Fine-tuning: the whole network learns the classes of a few labelled images, or from one that has."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import check_consistent_length
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skssl.augment.augmentation import Augmentation
from skssl.augment.presets import CROPS_AND_FLIPS
from skssl.errors import pick
from skssl.images import Images
from skssl.images.labels import as_labels, check_known_labels
from skssl.methods.base import SSLTransformer
from skssl.methods.docstrings import inherit_parameters
from skssl.nn.distributed import draw_seed, init_process_group
from skssl.nn.precision import resolve_precision
from skssl.probes.encoders import Encoder, read_once
from skssl.training.checkpoints import train
from skssl.training.devices import resolve_device
from skssl.training.encoding import encode
from skssl.training.objective import Batch, Hooks, Objective
from skssl.training.optim import OPTIMIZERS, SCHEDULES
from skssl.training.seeding import seeded
from skssl.training.trainer import Trainer

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class ClassifierHooks(Hooks):
    """What a classifier's training does in a step, in the form in which the `Trainer` calls a method."""

    n_classes: int
    compute_losses: Callable[[Objective, Batch], dict[str, Tensor]]
    teacher: nn.Module | None = None
    read: Callable[[Any], Images] | None = None  # for `KNNMonitor`

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Put a head of zeros on the net, and the teacher where there is one."""
        net.head = nn.Linear(dim, self.n_classes)
        nn.init.zeros_(net.head.weight)
        nn.init.zeros_(net.head.bias)
        net.teacher = self.teacher

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:
        """Compute the losses by name."""
        return self.compute_losses(net, batch)

    def before_epoch(self, net: Objective, epoch: int, encode: Callable[[nn.Module], Tensor]) -> None:
        """Bring the teacher back to evaluation mode."""
        if net.teacher is not None:
            net.teacher.eval()


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
        """Document the parameters that a classifier inherits."""
        super().__init_subclass__(**kwargs)
        inherit_parameters(cls, ImageClassifier)

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
        check_known_labels(self, labels[known])
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

    def _read_once(self, encoder: Any, X: Any, y: Any) -> Any:
        """Read X as an encoder does if it must be decoded, and check the number of labels."""
        X = read_once(encoder, X)
        if y is not None:  # an `Images` has the shape of one image, which scikit-learn would take for the number
            check_consistent_length(range(len(X)) if isinstance(X, Images) else X, y)
        return X

    def _train(self, encoder: Encoder, images: Images, target: Tensor | None, hooks: ClassifierHooks) -> Self:
        """Train a copy of an encoder, with a head."""
        self._read, self.n_features_in_ = encoder.read, math.prod(images.shape)
        hooks.read = encoder.read
        device = resolve_device(self.device)
        init_process_group(device)
        seed = draw_seed(self.random_state)
        augment = CROPS_AND_FLIPS if self.augment is None else self.augment
        module = copy.deepcopy(encoder.module).requires_grad_(True)
        with torch.no_grad():
            blank = encoder.augment.eval_transform(torch.zeros(1, *images.shape, device=encoder.device))
            dim = module.eval()(blank).shape[1]
        with seeded(seed):
            objective = Objective(module, dim, hooks, {}, len(images), images.shape)
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
        train(self, self.net_, images, target, encoder=encoder.module, teacher=hooks.teacher)
        return self
