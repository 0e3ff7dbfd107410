"""The base class of all estimators: shared parameters, checks, ``fit`` and ``transform``."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skssl.augment.augmentation import Augmentation
from skssl.augment.presets import MultiCrop, as_augmentations
from skssl.backbones import build_backbone
from skssl.errors import pick
from skssl.images import Images, as_images
from skssl.nn.distributed import draw_seed, init_process_group
from skssl.nn.precision import resolve_precision
from skssl.pretext import as_tasks
from skssl.storage.registry import register
from skssl.training.checkpoints import train
from skssl.training.devices import resolve_device
from skssl.training.encoding import encode
from skssl.training.objective import Hooks, Objective
from skssl.training.optim import OPTIMIZERS, SCHEDULES
from skssl.training.seeding import seeded
from skssl.training.trainer import Trainer

if TYPE_CHECKING:
    import pandas as pd
from skssl.images.labels import encode_labels
from skssl.methods.docstrings import inherit_parameters
from skssl.methods.settings import Settings


@dataclass(kw_only=True, eq=False, repr=False)
class SSLTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Hooks, BaseEstimator):
    """What all estimators share: images in, features out.

    Parameters
    ----------
    backbone : str, torch.nn.Module or callable, default="resnet18"
        The encoder: "resnet18", "resnet50", "alexnet", "alexnet_bn" or "convnet", a module (copied, its last classifier
        dropped) or a callable that makes one. ResNets have CIFAR's 3x3 stem up to 64 pixels. "alexnet_bn" is RotNet's,
        with BatchNorm and without dropout. "convnet" is a small one for CPUs, with 128 features.
    image_shape : tuple of int, default=None
        (h, w), (h, w, c) or (c, h, w): how to read the rows of a 2-D X, where one entry may be -1, and to what size
        to bring image files. By default such rows are square grey images, and files must be of one size.
    augment : str, Augmentation, sequence of Augmentation or MultiCrop, default=None
        The name of one of `augment.preset`'s, such as "simclr", one augmentation for all views, one a view, or crops
        of several sizes for a method that takes them. None is the method's own.
    epochs : int, default=100
        How often `fit` goes through the images. 0 leaves the encoder untrained, which makes a baseline.
    batch_size : int, default=256
        Images a step, of all processes together. An epoch's last, shorter batch is left out, unless it is the only
        one.
    optimizer : {"sgd", "lars", "adamw"} or torch.optim.Optimizer subclass, default=None
        None is the method's own.
    lr : float, default=None
        Learning rate at its highest. It is used as it is; None is the method's own rate times batch_size / 256.
    momentum : float, default=0.9
        The optimiser's, where it has one.
    weight_decay : float, default=None
        None is the method's own.
    schedule : {"constant", "cosine", "epoch_cosine", "step"}, default=None
        The learning rate's course. None is the method's own.
    warmup_epochs : float, default=None
        Epochs in which the rate rises from 0. None is the method's own share of the epochs.
    aux : str, task or list of these, default=None
        Auxiliary pretext tasks, such as "rotation" or `Rotation(angles=(0, 180))`.
    aux_weight : float or dict of str to float, default=None
        The tasks' weight, or one for each by name: lambda of EffSSL's equation 1. None is the method's own: for SimCLR,
        BYOL, SwAV and SimSiam what EffSSL found best for rotation on CIFAR-10.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        What the networks train in, and `transform` computes in. "auto" is bfloat16 where the hardware computes in it
        (on a CPU for images from 16 pixels on). Losses compute in float32; in a training on CUDA with "auto" their
        products of matrices are TF32.
    compile : {"auto"} or bool, default="auto"
        Whether to compile the step with ``torch.compile``. "auto" does where it pays: on CUDA, in one process, if 8,000
        steps or more are planned (`epochs` times steps an epoch). Where it fails, training says so and goes on without.
    device : str or torch.device, default="auto"
        "auto" is CUDA, else MPS, else the CPU.
    callbacks : list of skorch callbacks, default=None
        Called as in any skorch net, with the net as their first argument.
    on_bad_image : {"raise", "skip"}, default="raise"
        What `fit` does with files, PIL images and items of data sets that cannot be read. "skip" goes on without them,
        as long as there are others, and tells their number and the first of them in a `BadImageWarning`. y is as long
        as X nevertheless. Where a data set is read as the training goes, the next item that can be read stands in for
        a bad one. `transform` always raises, since its rows are those of X.
    n_jobs : int, default=None
        Processes that read a data set's items; the images and their order do not depend on it. None and 1 are this
        process, -1 is one for each core. Images in memory, and in mapped files, need none.
    random_state : int, RandomState instance or None, default=None
        Seed of the weights, the order, the augmentation and all else. The global random state is not used.
    checkpoint : str or path-like, default=None
        A folder in which `fit` keeps the training's state. A second `fit` with the same parameters and images goes on
        from there, bit by bit, as does one that has ended; with others it is refused. SIGTERM and Ctrl-C save first.
    checkpoint_every : int, str or datetime.timedelta, default="10 min"
        After how many epochs the state is saved, or after how much time.
    verbose : int, default=0
        1 shows a progress bar for every epoch.

    Attributes
    ----------
    encoder_ : torch.nn.Module
        The trained encoder, in evaluation mode. Its ``state_dict`` has torchvision's keys.
    history_ : pandas.DataFrame
        A row an epoch: epoch, loss, each loss and measure by name, lr (at the epoch's end), images_per_second (what
        the method does before the epoch, such as clustering, counts), embedding_std (standard deviation of the
        normalised embeddings in units of 1/sqrt(d): 1 is healthy, 0 is collapse) and effective_rank.
    net_ : skorch.NeuralNet
        The net that was trained; ``net_.module_`` holds the heads, too.
    n_features_in_ : int
        Numbers in an image: channels x height x width.
    feature_names_in_ : ndarray of str
        Names of the columns, where X was a DataFrame with names.
    """

    backbone: Any = "resnet18"
    image_shape: tuple[int, ...] | None = None
    augment: Any = None
    epochs: int = 100
    batch_size: int = 256
    optimizer: Any = None
    lr: float | None = None
    momentum: float = 0.9
    weight_decay: float | None = None
    schedule: str | None = None
    warmup_epochs: float | None = None
    aux: Any = None
    aux_weight: Any = None
    precision: str = "auto"
    compile: bool | str = "auto"
    device: Any = "auto"
    callbacks: Any = None
    on_bad_image: str = "raise"
    n_jobs: int | None = None
    random_state: Any = None
    checkpoint: Any = None
    checkpoint_every: Any = "10 min"
    verbose: int = 0

    #: Values of the parameters that are None.
    default_settings: ClassVar[Settings]
    #: Whether views may differ in size and number.
    multi_crop: ClassVar[bool] = False
    #: Whether the net keeps something for every training image, such as a memory bank.
    per_image: ClassVar[bool] = False

    _parameter_constraints: ClassVar[dict] = {
        "backbone": [str, nn.Module, callable],
        "image_shape": ["array-like", None],
        "augment": [str, Augmentation, MultiCrop, "array-like", None],
        "epochs": [Interval(Integral, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "optimizer": [str, callable, None],
        "lr": [Interval(Real, 0, None, closed="neither"), None],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left"), None],
        "schedule": [str, None],
        "warmup_epochs": [Interval(Real, 0, None, closed="left"), None],
        "aux_weight": [Interval(Real, 0, None, closed="left"), dict, None],
        "precision": [str],
        "compile": ["boolean", StrOptions({"auto"})],
        "device": [str, torch.device],
        "callbacks": [list, StrOptions({"disable"}), None],
        "on_bad_image": [StrOptions({"raise", "skip"})],
        "n_jobs": [
            Interval(Integral, None, -1, closed="right"),
            Interval(Integral, 1, None, closed="left"),
            None,
        ],
        "random_state": ["random_state"],
        "checkpoint": [str, os.PathLike, None],
        "checkpoint_every": [Interval(Integral, 1, None, closed="left"), str, datetime.timedelta],
        "verbose": ["verbose"],
    }

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Register the method, and document the parameters that it inherits."""
        super().__init_subclass__(**kwargs)
        register("estimator")(cls)
        inherit_parameters(cls, SSLTransformer)

    @property
    def n_views(self) -> int:
        """Views that a step makes of each image."""
        return 2

    @property
    def uses_labels(self) -> bool:
        """Whether y is more than ignored; -1 in it stands for an unknown class."""
        return False

    # scikit-learn's side.

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn an encoder from images.

        Parameters
        ----------
        X : array-like, sequence of files or PIL images, data set or iterable
            Images: (n, h, w), (n, h, w, c), (n, c, h, w), or (n, features) with `image_shape`; see `images.as_images`.
        y : array-like of shape (n,), default=None
            Classes, for the methods that use them; -1 where unknown. All others ignore it.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError
            If X cannot be read as images, a parameter is out of range, or `checkpoint` holds another training.
        FloatingPointError
            If the training diverges.
        OSError, RuntimeError
            If the folder `checkpoint` cannot be written to, or another run is using it.
        """
        self._validate_params()
        images = self._read(X, reset=True, on_bad_image=self.on_bad_image)
        self.net_ = self._make_trainer(images)
        train(self, self.net_, images, self._encode_labels(y, images))
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Train for one more epoch.

        Called `epochs` times it does what `fit` does; beyond that the learning rate stays at that of the last epoch's
        beginning. `checkpoint` is for `fit` alone.

        Parameters
        ----------
        X : array-like, sequence of files or PIL images, data set or iterable
            Images, as for `fit`.
        y : array-like of shape (n,), default=None
            As for `fit`.

        Returns
        -------
        self
            The estimator.

        Raises
        ------
        ValueError
            As in `fit`, and for another number of images where the method keeps something for every image.
        """
        first = not self.__sklearn_is_fitted__()
        if first:
            self._validate_params()
        images = self._read(X, reset=first, on_bad_image=self.on_bad_image)
        if first:
            self.net_ = self._make_trainer(images)
        elif self.per_image and len(images) != self.net_.module_.n_samples:
            raise ValueError(
                f"{type(self).__name__} keeps something for every training image, so that partial_fit needs the "
                f"{self.net_.module_.n_samples} images that it began with, in their order. Got {len(images)}."
            )
        self.net_.set_params(max_epochs=max(self.epochs, 1))
        self.net_.run(images, self._encode_labels(y, images), 1)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Encode images.

        Parameters
        ----------
        X : array-like, sequence of files or PIL images, data set or iterable
            Images of the shape that the estimator was fitted to.

        Returns
        -------
        float32 ndarray of shape (n, d)
            The encoder's pooled output, without the projector, in evaluation mode. It is computed in the `precision` of
            the training: bfloat16 leaves three digits.
        """
        check_is_fitted(self)
        images = self._read(X, reset=False)
        net = self.net_
        return encode(self.encoder_, images, net.augmentations[0], torch.device(net.device), net.dtype).numpy()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trained estimator to one file, which `skssl.load` reads without executing anything in it.

        It holds the parameters, the encoder, heads, momentum copies and queues, the optimiser's state and the history,
        so that `partial_fit` goes on as if it had not been saved. `callbacks` and `checkpoint` are left out. The file
        is written whole, or what was there before stays.

        Parameters
        ----------
        path : str or path-like
            The file: one in the format of safetensors, whose metadata hold the rest as JSON.

        Raises
        ------
        TypeError
            If a parameter is something that cannot be saved without code, such as a module or a function, or the class
            is not one of skssl's: ``joblib.dump`` keeps these.
        OSError
            If the file cannot be written.
        """
        from skssl.storage.saving import save

        save(self, path)

    def export(self, path: str | os.PathLike[str]) -> None:
        """Write the trained encoder for other programs.

        Parameters
        ----------
        path : str or path-like
            The file. Its suffix says what is in it: ".safetensors", ".pt" or ".pth" the encoder's ``state_dict``, with
            the keys of torchvision and timm; ".onnx" a graph from "images", float32 of shape (n, c, h, w) in [0, 1] as
            `fit` had them, to "features" (n, d), which are what `transform` gives, for any n. The graph needs
            ``pip install 'skssl[onnx]'``.

        Raises
        ------
        ValueError
            If the suffix is another one.
        OSError
            If the file cannot be written.
        """
        from skssl.storage.exporting import export

        export(self, path)

    @property
    def encoder_(self) -> nn.Module:
        """The trained encoder, in evaluation mode."""
        return self.net_.module_.encoder.eval()

    @property
    def history_(self) -> pd.DataFrame:
        """The training's history, a row an epoch."""
        return self.net_.table()

    @property
    def _n_features_out(self) -> int:
        return self.net_.module_.dim

    def __sklearn_is_fitted__(self) -> bool:
        """Whether there is a trained net."""
        return hasattr(self, "net_")

    def __sklearn_tags__(self) -> Any:
        """Say that features are float32 and that images may have three or more axes; whether y is needed."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.input_tags.three_d_array = True
        tags.target_tags.required = self.uses_labels
        return tags

    # Between the two.

    def _validate_params(self) -> None:
        """Check the parameters, and what scikit-learn lets pass: True for a number, and callbacks that are none."""
        super()._validate_params()
        for name, rules in self._parameter_constraints.items():
            value = getattr(self, name, None)
            if isinstance(value, bool) and any(isinstance(rule, Interval) for rule in rules):
                raise TypeError(f"The {name!r} parameter of {type(self).__name__} must be a number. Got {value}.")
        for callback in self.callbacks if isinstance(self.callbacks, list) else ():
            named = isinstance(callback, tuple) and len(callback) == 2 and isinstance(callback[0], str)
            if not hasattr(callback[1] if named else callback, "on_train_begin"):
                raise TypeError(
                    f"The 'callbacks' parameter of {type(self).__name__} must be a list of skorch's callbacks, or of "
                    f"(name, callback). It holds {callback!r}."
                )

    def setting(self, name: str) -> Any:
        """Return a parameter's value, or the method's default setting if it is None.

        Parameters
        ----------
        name : str
            The parameter.

        Returns
        -------
        object
            Its value in use.

        Examples
        --------
        >>> from skssl import SimCLR
        >>> SimCLR().setting("optimizer")
        'sgd'
        """
        value = getattr(self, name)
        if value is not None:
            return value
        if name == "lr":
            return self.default_settings.lr * self.batch_size / 256
        if name == "warmup_epochs":
            return self.default_settings.warmup * self.epochs
        return getattr(self.default_settings, name)

    def _read(self, X: Any, *, reset: bool, on_bad_image: str = "raise") -> Images:
        """Turn X into images of the shape and the range that the estimator was fitted to."""
        like: dict[str, Any] = {} if reset else {"shape": self._shape, "scale": self._scale}
        images = as_images(
            X, self.image_shape, estimator=self, reset=reset, on_bad_image=on_bad_image, n_jobs=self.n_jobs, **like
        )
        if reset:
            self._shape: Any = images.shape
            self._scale: Any = images.scale
        return images

    def _augmentations(self, side: int) -> list[Augmentation]:
        """One augmentation a view."""
        augment = self.setting("augment")
        given = as_augmentations(augment, side)
        if not isinstance(augment, MultiCrop):
            return [given[view % len(given)] for view in range(self.n_views)]
        if not self.multi_crop:
            raise TypeError(f"{type(self).__name__} compares views of one size and cannot take a MultiCrop.")
        return given

    def _tasks(self) -> dict[str, tuple[Any, float]]:
        """The auxiliary tasks with their weights."""
        tasks = as_tasks(self.aux)
        weights = self.aux_weight
        if isinstance(weights, dict):
            for name in weights:
                pick("aux_weight", name, tasks)
        found = {}
        for name, task in tasks.items():
            task.validate()
            weight = weights.get(name) if isinstance(weights, dict) else weights
            found[name] = task, float(self.default_settings.aux_weight if weight is None else weight)
        return found

    def _make_trainer(self, images: Images) -> Trainer:
        """Make the net that trains."""
        device = resolve_device(self.device)
        init_process_group(device)
        augmentations, shape = self._views(images.shape)
        dtype = resolve_precision(self.precision, device, min(shape[1:]))
        seed = draw_seed(self.random_state)
        with seeded(seed):
            objective = self._make_objective(images.shape, shape, len(images))
        return self._wrap(objective, augmentations, device, dtype, seed)

    def _views(self, shape: tuple[int, int, int]) -> tuple[list[Augmentation], tuple[int, int, int]]:
        """Make the augmentations for images of a shape, and tell the shape of what is encoded."""
        augmentations = self._augmentations(max(shape[1:]))
        return augmentations, (shape[0], *augmentations[0].size_of(*shape[1:]))

    def _make_objective(self, shape: tuple[int, int, int], encoded: tuple[int, int, int], n_samples: int) -> Objective:
        """Check the parameters that are names, and make the network for images of a shape."""
        pick("schedule", self.setting("schedule"), SCHEDULES)
        if isinstance(self.setting("optimizer"), str):
            pick("optimizer", self.setting("optimizer"), OPTIMIZERS)
        tasks = self._tasks()
        encoder, dim = build_backbone(self.backbone, encoded)
        method = type(self)(**self.get_params(deep=False))  # parameters only: the net must not hold itself
        return Objective(encoder, dim, method, tasks, n_samples, shape)

    def _wrap(
        self,
        objective: Objective,
        augmentations: list[Augmentation],
        device: torch.device,
        dtype: torch.dtype,
        seed: int,
    ) -> Trainer:
        """Put a network into the net that trains it."""
        trainer = Trainer(
            objective,
            augmentations=augmentations,
            schedule=self.setting("schedule"),
            warmup_epochs=self.setting("warmup_epochs"),
            momentum=self.momentum,
            weight_decay=self.setting("weight_decay"),
            dtype=dtype,
            tf32=self.precision == "auto",
            seed=seed,
            optimizer=self.setting("optimizer"),
            lr=self.setting("lr"),
            max_epochs=max(self.epochs, 1),
            batch_size=self.batch_size,
            device=str(device),
            compile=self.compile,
            callbacks=self.callbacks,
            verbose=self.verbose,
        )
        return trainer.initialize()

    def _encode_labels(self, y: Any, images: Images) -> Tensor | None:
        """Classes as numbers from 0, -1 where unknown; None unless the method uses labels."""
        if not self.uses_labels:
            return None
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        target, kept = encode_labels(y)[1], images.kept
        n_given = len(images) if kept is None else len(kept)
        if len(target) != n_given:
            raise ValueError(f"Found input variables with inconsistent numbers of samples: {[n_given, len(target)]}")
        return target if kept is None else target[torch.from_numpy(kept)]
