"""The base of `FineTuner` and `Distiller`: an encoder with a linear head, trained together."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

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
from skssl.images.labels import as_labels, check_known_labels, known_labels, require_labels
from skssl.methods.base import SSLTransformer
from skssl.methods.docstrings import inherit_parameters
from skssl.nn.distributed import draw_seed, init_process_group
from skssl.nn.precision import resolve_precision, usable_precision
from skssl.probes.encoders import Encoder
from skssl.probes.saved_encoders import ENCODER, SavedEncoder, n_features, pack_encoder
from skssl.storage.files import take
from skssl.storage.parameters import Given, Parts
from skssl.storage.registry import register
from skssl.storage.saving import (
    LABELS,
    Field,
    Restore,
    Saved,
    holds_fields,
    is_int,
    is_sequence,
    pack_labels,
    unpack_labels,
)
from skssl.training.checkpoints import train
from skssl.training.devices import available, resolve_device
from skssl.training.encoding import encode
from skssl.training.objective import Batch, Hooks, Objective
from skssl.training.optim import OPTIMIZERS
from skssl.training.schedules import check_schedule
from skssl.training.seeding import seeded
from skssl.training.state import check_history, training_state
from skssl.training.trainer import Trainer

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class ClassifierHooks(Hooks):
    """Hooks that train a linear head on the encoder; subclasses define the losses.

    Parameters
    ----------
    n_classes : int
        Number of classes.
    teacher : torch.nn.Module, default=None
        A frozen network that the losses use.
    """

    n_classes: int
    teacher: nn.Module | None = None
    read: Callable[[Any], Images] | None = None  # for `KNNMonitor`

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Add a head whose weights are zero, and the teacher if there is one."""
        net.head = nn.Linear(dim, self.n_classes)
        nn.init.zeros_(net.head.weight)
        nn.init.zeros_(net.head.bias)
        net.teacher = self.teacher

    def prepare(self, net: Objective, batch: Batch) -> None:
        """Set the teacher to evaluation mode, since the net was set to training mode, also within an epoch."""
        if net.teacher is not None and net.teacher.training:
            net.teacher.eval()


@dataclass(kw_only=True, eq=False, repr=False)
class ImageClassifier(ClassifierMixin, Saved, BaseEstimator):
    """Base class of image classifiers that train an encoder and a linear head together.

    Parameters
    ----------
    layer : str, default="backbone"
        The layer that the head is placed on: "backbone"; "projector1" for the first layer of the projector (SimCLRv2
        with a projector of three layers); "projector" for its last layer; or an inner layer of the encoder. See
        `encoders.at_layer`.
    augment : str or Augmentation, default=None
        None is a random resized crop and a flip. The images are always normalised as in the encoder's training.
    epochs : int, default=20
        Number of passes over the images.
    batch_size : int, default=256
        Images per step, over all processes. The last batch of an epoch is dropped if it is shorter, unless it is the
        only one.
    optimizer : {"sgd", "lars", "adamw"} or torch.optim.Optimizer subclass, default="sgd"
        The optimiser.
    backbone_lr : float, default=0.01
        Peak learning rate of the encoder. It is not scaled by the batch size.
    head_lr : float, default=0.2
        Peak learning rate of the head.
    momentum : float, default=0.9
        Momentum, if the optimiser has one; the first beta of Adam and AdamW.
    weight_decay : float, default=0.0
        Weight decay of all parameters.
    schedule : {"constant", "cosine", "epoch_cosine", "polynomial", "step"}, sequence or callable, default=(0.6, 0.8)
        Schedule of both learning rates. Numbers are fractions of the training at which the rates are multiplied by
        0.2: the default does so at epochs 12 and 16 of 20. Pairs are fractions and the factor from there on. Functions
        and torch's schedulers are accepted as by the methods.
    warmup_epochs : float, default=0.0
        Epochs during which the rates rise linearly from 0.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of the training, as for the methods. Predictions are computed in float32.
    compile : {"auto"} or bool, default="auto"
        Whether to compile the training step with ``torch.compile``, as for the methods.
    device : str or torch.device, default="auto"
        "auto" is CUDA if available, else Apple's MPS, else the CPU.
    callbacks : list of skorch callbacks, default=None
        Called during training.
    random_state : int, RandomState or None, default=None
        Seed of all random numbers. The global random state is restored.
    checkpoint : str or path-like, default=None
        Folder to which `fit` saves the state of the training, and from which it resumes, as for the methods.
    checkpoint_every : int, str or datetime.timedelta, default="10 min"
        Number of epochs, or time, between saves.
    checkpoint_extend : bool, default=False
        Whether `fit` may continue a training in `checkpoint` that had fewer `epochs`, as for the methods.
    verbose : int, default=0
        1 shows a progress bar with the time left.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classes, sorted.
    classifier_ : torch.nn.Module
        The trained network in evaluation mode. It maps normalised images (n, c, h, w) to logits (n, n_classes);
        ``classifier_[0]`` is the encoder.
    history_ : pandas.DataFrame
        One row per epoch: epoch, loss, each loss and measure by name, lr (of the encoder, at the end of the epoch),
        images_per_second, embedding_std and effective_rank (of the input of the head).
    net_ : skorch.NeuralNet
        The trained net.
    n_features_in_ : int
        Values per image: channels x height x width.
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
    schedule: str | Sequence[float] | Callable[..., Any] = (0.6, 0.8)
    warmup_epochs: float = 0.0
    precision: str = "auto"
    compile: bool | str = "auto"
    device: Any = "auto"
    callbacks: Any = None
    random_state: Any = None
    checkpoint: Any = None
    checkpoint_every: Any = "10 min"
    checkpoint_extend: bool = False
    verbose: int = 0

    saved_fields: ClassVar[dict[str, Field]] = {
        "encoder": Field(holds_fields(ENCODER), f"a dict of {', '.join(ENCODER)}"),
        "classes": LABELS,
        "n_samples": Field(is_int(1), "a number of images"),
        "seed": Field(is_int(0), "an integer of at least 0"),
        "history": Field(is_sequence(list, lambda row: type(row) is dict), "a list of rows"),
    }
    #: The parameter that holds the encoder.
    encoder_parameter: ClassVar[str] = "encoder"

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
                "checkpoint_extend",
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
        "schedule": [str, "array-like", callable],
        "warmup_epochs": [Interval(Real, 0, None, closed="left")],
    }

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Document the parameters that a classifier inherits."""
        super().__init_subclass__(**kwargs)
        register("estimator")(cls)
        inherit_parameters(cls, ImageClassifier)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class.

        Parameters
        ----------
        X : array-like, sequence of files or PIL images, or torch Dataset
            Images of the shape that the estimator was fitted to.

        Returns
        -------
        float32 ndarray of shape (n, n_classes)
            Probabilities, in the order of ``classes_``.
        """
        check_is_fitted(self, "net_")
        net = self.net_
        logits = encode(self.classifier_, self._reader(X), net.augmentations[0], torch.device(net.device), net.dtype)
        return logits.softmax(1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class.

        Parameters
        ----------
        X : array-like, sequence of files or PIL images, or torch Dataset
            Images of the shape that the estimator was fitted to.

        Returns
        -------
        ndarray of shape (n,)
            Class labels.
        """
        probability = self.predict_proba(X)
        return self.classes_[probability.argmax(1)]

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the accuracy.

        Parameters
        ----------
        X : array-like, sequence of files or PIL images, or torch Dataset
            Images of the shape that the estimator was fitted to.
        y : array-like of shape (n,), default=None
            True classes. Images of class -1 (unknown) are ignored. If None, they are the labels in X, as for `fit`.
        sample_weight : array-like of shape (n,), default=None
            Weight of each image.

        Returns
        -------
        float
            Fraction of the images whose class is predicted.

        Raises
        ------
        ValueError
            If y contains a class that was not in the training labels, or only -1.
        """
        check_is_fitted(self, "net_")
        images = self._reader(X)
        labels = as_labels(require_labels(y, X, images, type(self).__name__))
        check_consistent_length(range(len(images)), labels, sample_weight)
        known = known_labels(labels, self.classes_)
        if not known.any():
            raise ValueError(
                f"{type(self).__name__} cannot be scored: y needs at least one known class, but every label is -1 "
                "(unknown)."
            )
        check_known_labels(self, labels[known])
        predicted, true = self.predict(images), np.array(labels[known].tolist())
        weight = None if sample_weight is None else np.asarray(sample_weight)[known]
        return accuracy_score(true, predicted[known], sample_weight=weight)

    @property
    def classifier_(self) -> nn.Module:
        """The trained network, in evaluation mode."""
        return nn.Sequential(self.net_.module_.encoder, self.net_.module_.head).eval()

    @property
    def history_(self) -> pd.DataFrame:
        """The history of the training, one row per epoch."""
        return self.net_.table()

    def __sklearn_is_fitted__(self) -> bool:
        """Return whether there is a trained net."""
        return hasattr(self, "net_")

    def __sklearn_tags__(self) -> Any:
        """Declare that X may have three or more axes."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _check_params(self) -> None:
        """Check types, ranges and names of the parameters."""
        self._validate_params()
        if isinstance(self.optimizer, str):
            pick("optimizer", self.optimizer, OPTIMIZERS)
        check_schedule(self.schedule, self.warmup_epochs)

    def _train(self, encoder: Encoder, images: Images, labels: Tensor | None, hooks: ClassifierHooks) -> Self:
        """Train a copy of the encoder with a new head."""
        self._reader: Any = encoder.read
        self.n_features_in_ = math.prod(images.shape)
        self._fitted_with = type(self)(**self.get_params(deep=False))
        hooks.read = encoder.read
        device = resolve_device(self.device)
        init_process_group(device)
        seed = draw_seed(self.random_state)
        module = copy.deepcopy(encoder.module).requires_grad_(True)
        with torch.no_grad():
            blank = encoder.augment.eval_transform(torch.zeros(1, *images.shape, device=encoder.device))
            dim = module.eval()(blank).shape[1]
        with seeded(seed):
            objective = Objective(module, dim, hooks, {}, len(images), images.shape)
        dtype = resolve_precision(self.precision, device, min(images.shape[1:]))
        self.net_ = self._make_trainer(objective, encoder, device, dtype, seed)
        if labels is not None:
            names = [*self.classes_.tolist(), -1]
            self.net_.given = None, [names[label] for label in labels.tolist()]
        weights = getattr(hooks, "weights", None)
        more = {} if weights is None else {"sample_weight": weights}
        train(self, self.net_, images, labels, encoder=encoder.module, teacher=hooks.teacher, **more)
        self.net_.__dict__.pop("given", None)
        return self

    def _make_trainer(
        self, objective: Objective, encoder: Encoder, device: torch.device, dtype: torch.dtype, seed: int
    ) -> Trainer:
        """Make the trainer of a network."""
        augment = CROPS_AND_FLIPS if self.augment is None else self.augment
        trainer = Trainer(
            objective,
            augmentations=encoder.augmentations(augment, max(objective.shape[1:]))[:1],
            schedule=self.schedule,
            warmup_epochs=self.warmup_epochs,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            rates={"head": self.head_lr},
            layer_decay=getattr(self, "layer_decay", 1.0),
            collapsible=False,
            dtype=dtype,
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
        return trainer.initialize()

    # What `save` writes and `skssl.load` reads. The teacher and the optimiser's state are only needed by `fit`.

    def _trained(self) -> Self:
        # Estimators that have been replaced since are not saved: `encoder` in the file has what is needed of them.
        used = self._fitted_with.get_params(deep=False).items()
        return type(self)(**{name: getattr(self, name) if hasattr(value, "fit") else value for name, value in used})

    def _pack_state(self, parts: Parts, prefix: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        values, tensors = training_state(self.net_)
        packed = {
            "encoder": pack_encoder(self._reader, parts, f"{prefix}{self.encoder_parameter}__"),
            "classes": pack_labels(self.classes_),
            "n_samples": self.net_.module_.n_samples,
            "seed": values["seed"],
            "history": values["history"],
        }
        own = ("net.encoder.", "net.head.")
        return packed, {name: tensor for name, tensor in tensors.items() if name.startswith(own)}

    def _check_state(
        self, trained: Self, values: Mapping[str, Any], shapes: Mapping[str, Tensor], given: Given
    ) -> Restore:
        trained._check_params()
        check_history(values["history"])
        classes = unpack_labels(values["classes"])
        saved = SavedEncoder(values["encoder"], getattr(trained, self.encoder_parameter), given)

        def make(backbone: Any) -> Objective:
            module, hooks = saved.network(backbone), ClassifierHooks(len(classes))
            return Objective(module, n_features(module, saved.encoded), hooks, {}, values["n_samples"], saved.shape)

        blank = saved.blank(make)
        blank.check(shapes)
        for name in shapes:
            if not name.startswith("net."):
                raise ValueError(f"The tensor {name[:80]!r} is unknown.")

        def restore(tensors: dict[str, Tensor]) -> None:
            objective = blank.fill(take(tensors, "net."))
            cast(ClassifierHooks, objective.method).read = saved.source
            device = available(trained.device)
            dtype = usable_precision(trained.precision, device, min(saved.shape[1:]))
            encoder = saved.encoder(objective.encoder, device)
            self.net_ = trained._make_trainer(objective, encoder, device, dtype, values["seed"])
            self.net_.history.extend({**row, "batches": []} for row in values["history"])
            self.classes_, self._reader, self._fitted_with = classes, saved.source, trained
            self.n_features_in_ = math.prod(saved.shape)

        return restore
