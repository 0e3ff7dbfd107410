"""The base class of all methods: shared parameters, ``fit``, ``partial_fit``, ``transform``, ``save``, ``export``."""

from __future__ import annotations

import datetime
import importlib.util
import math
import os
import warnings
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.frozen import FrozenEstimator
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from tqdm.auto import tqdm

from skssl.augment.augmentation import Augmentation
from skssl.augment.presets import MultiCrop, view_size
from skssl.augment.transforms import View, as_views, has_transforms, resolve_transforms, size_of_views
from skssl.backbones import StagePool, ViT, build_backbone
from skssl.errors import pick
from skssl.images import Images, as_images
from skssl.images.folders import expand_folder
from skssl.images.labels import encode_labels, require_labels
from skssl.images.photographs import Photographs
from skssl.methods.docstrings import inherit_parameters
from skssl.methods.settings import Settings
from skssl.nn.distributed import draw_seed, init_process_group, is_main_process
from skssl.nn.precision import resolve_precision, usable_precision
from skssl.pretext import as_tasks
from skssl.storage.exporting import export
from skssl.storage.files import take
from skssl.storage.parameters import Given, Parts
from skssl.storage.registry import register
from skssl.storage.saving import READING, Field, Restore, Saved, is_float, is_int, is_sequence
from skssl.training.checkpoints import train
from skssl.training.devices import available, resolve_device
from skssl.training.encoding import TransformModule, encode
from skssl.training.objective import Hooks, Objective
from skssl.training.optim import OPTIMIZERS
from skssl.training.schedules import check_schedule, makes_scheduler
from skssl.training.seeding import seeded
from skssl.training.state import (
    Blank,
    check_history,
    check_network,
    check_optimizer_state,
    load_training_state,
    training_state,
)
from skssl.training.trainer import Trainer

if TYPE_CHECKING:
    import pandas as pd

READ_AT_ONCE = 64  # images that are verified before a training
LARGEST_VIEW = 2**24  # pixels of a view that a loaded estimator may enlarge images to
OUTPUTS = None, "default", "pandas", "polars"  # containers that `set_output` accepts


def pixels(shape: tuple[int, int, int]) -> int:
    """Return the number of pixels of an image of shape (c, h, w)."""
    return shape[1] * shape[2]


@dataclass(kw_only=True, eq=False, repr=False)
class SSLTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Hooks, Saved, BaseEstimator):
    """A self-supervised method as a scikit-learn transformer from images to features; abstract.

    Parameters
    ----------
    backbone : str, ViT, StagePool, torch.nn.Module or callable, default="resnet18"
        The encoder: "convnet", a small network for CPUs with 128 features, or "convnet_2x" with twice the channels; a
        vision transformer, "vit_micro" for CPUs, "vit_tiny", "vit_small" or "vit_base", or a `backbones.ViT` with other
        options; a classification network of torchvision, such as "resnet18" or "convnext_tiny"; a wide ResNet of
        SimCLRv2, such as "resnet50_2x", or one with selective kernels, such as "resnet50_sk"; one of timm, such as
        "timm:resnet26d"; "alexnet_bn", which is RotNet's AlexNet with BatchNorm and without dropout; a
        `backbones.StagePool` of one of them, whose features are several maps on a grid; a module, or a callable that
        returns one. A module is copied with its weights, and loses its classifier, see `backbones.build_backbone`.
        ResNets by name have a 3x3 stem for images up to 64 pixels, as is usual for CIFAR.
    backbone_weights : str or path-like, default=None
        File of trained weights that the training starts from: safetensors, or a ``state_dict`` of ``torch.save``, such
        as the released checkpoints of torchvision, timm, MoCo and SwAV; a file of `save`; or a folder of Hugging Face.
        See `backbones.load_weights`. A warning names the encoder's tensors that the file lacks.
    warm_start_from : SSLTransformer or FrozenEstimator of one, default=None
        A fitted estimator from whose encoder the training starts. Its images may have another size and other channels.
        Cloning, as in ``cross_val_score``, discards a fit unless the estimator is in a ``FrozenEstimator``.
    warm_start : bool, default=False
        Whether `fit` of a fitted estimator starts from its network, with heads, momentum copies and queues. It is a
        training of its own: the optimiser, the schedule and `history_` begin anew, and the same `random_state` gives
        the same views again. The images must have the same shape. Clones are not fitted.
    image_shape : tuple of int, default=None
        Shape of an image, (h, w), (h, w, c) or (c, h, w). The rows of a 2-D X are reshaped to it; one entry may be -1,
        and by default rows are square grey images. For image files it is the shape of the views. By default their size
        is that of `augment`, or that of the files if it is the same for all, or else at most 224 pixels. Views are
        cropped from whole files.
    augment : str, Augmentation, MultiCrop, callable or sequence of Augmentation or callable, default=None
        Augmentation of the views: the name of a preset of `augment.preset` such as "simclr", one augmentation for all
        views, one for each view, or crops of several sizes for methods that support them. A callable is a transform of
        torchvision, Albumentations, Kornia or lightly, or a function of an image, see `augment.Transform`. None is the
        method's default.
    epochs : int, default=100
        Number of passes over the images. 0 leaves the encoder untrained, which is a baseline.
    batch_size : int, default=256
        Images in a step, over all processes. The last batch of an epoch is dropped if it is smaller, unless it is the
        only one.
    accumulate : int, default=1
        Number of parts in which the encoder runs on a batch, to save memory: ``batch_size=256, accumulate=8`` keeps
        the activations of 32 images, and computes the gradients of one batch of 256, also of contrastive losses
        (gradient caching). Each step takes a second forward pass. `batch_size` is not multiplied by it, so learning
        rates and schedules do not change. BatchNorm in the encoder normalises each part separately. At most half of
        `batch_size`.
    optimizer : {"sgd", "lars", "adamw"} or torch.optim.Optimizer subclass, default=None
        The optimiser. None is the method's default.
    lr : float, default=None
        Peak learning rate, which is not scaled. None is the method's default times `batch_size` / 256.
    momentum : float, default=0.9
        Momentum of the optimiser, if it has one; the first beta of Adam and AdamW.
    weight_decay : float, default=None
        Weight decay. None is the method's default.
    schedule : {"constant", "cosine", "epoch_cosine", "polynomial", "step"}, sequence or callable, default=None
        Learning rate schedule: a name; shares of the training at which the rate falls to a fifth, such as (0.6, 0.8);
        pairs of a share and the factor of `lr` from there on, such as ((0.6, 0.1), (0.8, 0.01)); a function of the
        progress after the warm-up, from 0 to 1, that returns the factor of `lr`; or a function of an optimizer that
        returns one of torch's schedulers, such as ``functools.partial(StepLR, step_size=30)``. A scheduler steps after
        each epoch, `OneCycleLR` and `CyclicLR` after each batch. `ReduceLROnPlateau` watches the loss. None is the
        method's default.
    warmup_epochs : float, default=None
        Epochs in which the learning rate rises from 0. None is the method's default share of `epochs`, or 0 if
        `schedule` makes one of torch's schedulers, which set the rates of the whole training.
    aux : str, task or list of these, default=None
        Auxiliary pretext tasks, such as "rotation" or `Rotation(angles=(0, 180))`.
    aux_weight : float or dict of str to float, default=None
        Weight of the auxiliary losses, or one weight for each task by name: lambda in equation 1 of EffSSL. None is the
        method's default. For SimCLR, BYOL, SwAV and SimSiam it is the best value for rotation on CIFAR-10 in EffSSL.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of the networks in training and in `transform`. "auto" is bfloat16 if the hardware supports it, on a
        CPU for images of at least 16 pixels. Losses are computed in float32. On CUDA, "auto" allows TF32 in their
        matrix products.
    compile : {"auto"} or bool, default="auto"
        Whether to compile the step with ``torch.compile``. "auto" compiles on CUDA, in one process, if at least 8,000
        steps are planned (`epochs` times the steps of an epoch). If compiling fails, training warns and runs
        uncompiled.
    device : str or torch.device, default="auto"
        Device to train on. "auto" is CUDA if available, else MPS, else the CPU.
    callbacks : list of skorch callbacks, default=None
        Callbacks of the training, called as in any skorch net without validation data. Those that cannot work raise an
        error that names what to pass.
    on_bad_image : {"raise", "skip"}, default="raise"
        Whether `fit` raises an error if a file, a PIL image or an item of a data set cannot be read, or skips it with a
        `BadImageWarning`. y has an entry for skipped images, too. If a data set is read during training, the next
        readable item replaces a bad one. `transform` and `fit_transform` always raise, because their rows correspond to
        those of X.
    n_jobs : int, default=None
        Processes that read the items of a data set: none by default, -1 is one for each core. Image files are decoded
        in as many threads, by default in one for each core. The images and their order do not depend on it. Arrays in
        memory or mapped files are always read in this process. Transforms of other libraries in `augment` run in as
        many processes, by default in this one.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the order of the images, the augmentation and all other random numbers. The global
        random state is not used.
    checkpoint : str or path-like, default=None
        Folder in which `fit` saves the state of the training. A second `fit` with the same parameters and images
        resumes from it bit for bit, also after the training has ended. With other parameters or images it raises an
        error. The state is also saved on SIGTERM and Ctrl-C.
    checkpoint_every : int, str or datetime.timedelta, default="10 min"
        Number of epochs, or time, between two checkpoints.
    checkpoint_extend : bool, default=False
        Whether `fit` may continue a training in `checkpoint` that had fewer `epochs`, with the optimiser's state. From
        there on the learning rate and other schedules are those of a training of `epochs`: after a cosine that has
        reached 0, the rate jumps up again. False raises an error.
    verbose : int, default=0
        1 shows a progress bar with the time left, and the number of images in a folder.

    Attributes
    ----------
    encoder_ : torch.nn.Module
        The trained encoder in evaluation mode. The keys of its ``state_dict`` are torchvision's.
    history_ : pandas.DataFrame
        One row for each epoch: epoch, loss, each loss and measure by name, lr (at the end of the epoch),
        images_per_second (or clips, including clustering before the epoch), embedding_std (standard deviation of the
        normalised embeddings in units of 1/sqrt(d): 1 is healthy, 0 is collapse) and effective_rank, and what callbacks
        record.
    net_ : skorch.NeuralNet
        The trained skorch net. ``net_.module_`` also has the heads. ``net_.history`` also has the loss under skorch's
        names: train_loss, train_loss_best and loss_best.
    n_features_in_ : int
        Values in an image: channels x height x width. 1 if X is a column of a table that holds paths or images.
    feature_names_in_ : ndarray of str
        Names of the columns of X. Defined only if X is a DataFrame whose column names are strings.
    """

    backbone: Any = "resnet18"
    backbone_weights: Any = None
    warm_start_from: Any = None
    warm_start: bool = False
    image_shape: tuple[int, ...] | None = None
    augment: Any = None
    epochs: int = 100
    batch_size: int = 256
    accumulate: int = 1
    optimizer: Any = None
    lr: float | None = None
    momentum: float = 0.9
    weight_decay: float | None = None
    schedule: Any = None
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
    checkpoint_extend: bool = False
    verbose: int = 0

    saved_fields: ClassVar[dict[str, Field]] = {
        **READING,
        "output": Field(lambda value: value in OUTPUTS, f"one of {OUTPUTS}"),
        "seed": Field(is_int(0), "an integer of at least 0"),
        "history": Field(is_sequence(list, lambda row: type(row) is dict and "batches" not in row), "a list of rows"),
        "rates": Field(is_sequence(list, is_float), "a list of floats"),
    }

    #: Values that parameters have if they are None.
    default_settings: ClassVar[Settings]
    #: Whether views may differ in size and number.
    multi_crop: ClassVar[bool] = False
    #: Whether the net stores a value for every training image, as in a memory bank.
    per_image: ClassVar[bool] = False

    _parameter_constraints: ClassVar[dict] = {
        "backbone": [str, ViT, StagePool, nn.Module, callable],
        "backbone_weights": [str, os.PathLike, None],
        "warm_start_from": [HasMethods(["transform"]), None],
        "warm_start": ["boolean"],
        "image_shape": ["array-like", None],
        "augment": [str, Augmentation, MultiCrop, callable, "array-like", None],
        "epochs": [Interval(Integral, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "accumulate": [Interval(Integral, 1, None, closed="left")],
        "optimizer": [str, callable, None],
        "lr": [Interval(Real, 0, None, closed="neither"), None],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left"), None],
        "schedule": [str, tuple, list, callable, None],
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
        "checkpoint_extend": ["boolean"],
        "verbose": ["verbose"],
    }

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train the encoder.

        Parameters
        ----------
        X : array-like, sequence of files or PIL images, path of a folder, data set or iterable
            Images: (n, h, w), (n, h, w, c), (n, c, h, w), or (n, features) with `image_shape`; see `images.as_images`.
        y : array-like of shape (n,), default=None
            Classes, -1 where unknown. Ignored unless the method uses labels. If None, such a method uses the labels in
            X: the items (image, label) of a data set, a list or a stream.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError
            If X cannot be read as images, a parameter is out of range, or `checkpoint` belongs to another training.
        FloatingPointError
            If the training diverges.
        OSError, RuntimeError
            If the folder `checkpoint` cannot be written to, or another run uses it.
        """
        self._validate_params()
        self._train(self._read(X, reset=not self._warm, on_bad_image=self.on_bad_image, min_samples=2), X, y)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Train the encoder, and encode the same images, which are read once.

        Every image must be readable, as each has a row in the result. With ``on_bad_image="skip"``, which `fit` would
        apply, all images are read before the training, and bad ones are refused.

        Parameters
        ----------
        X : array-like, sequence of files or PIL images, path of a folder, data set or iterable
            Images, as for `fit`.
        y : array-like of shape (n,), default=None
            Classes, as for `fit`.

        Returns
        -------
        float32 ndarray of shape (n, d)
            The features, as `transform` returns them.

        Raises
        ------
        ValueError
            As in `fit`. Also if an image cannot be read, whatever `on_bad_image` is.
        """
        self._validate_params()
        on_bad_image = "count" if self.on_bad_image == "skip" else "raise"
        images = self._read(X, reset=not self._warm, on_bad_image=on_bad_image, min_samples=2)
        if self.on_bad_image == "skip" and (images.lazy or isinstance(images, Photographs)):
            self._check_readable(images)
        self._train(images, X, y)
        return self._encode(images)

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Train for one more epoch.

        Calling it `epochs` times gives the same result as `fit`. After that, the learning rate stays at its value at
        the beginning of the last epoch. `checkpoint` is ignored.

        Parameters
        ----------
        X : array-like, sequence of files or PIL images, path of a folder, data set or iterable
            Images, as for `fit`.
        y : array-like of shape (n,), default=None
            Classes, as for `fit`.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError
            As in `fit`. Also if the number of images changes and the method stores something for every image.
        """
        first = not self.__sklearn_is_fitted__()
        if first:
            self._validate_params()
        images = self._read(X, reset=first, on_bad_image=self.on_bad_image, min_samples=2)
        if first:
            self.net_ = self._make_trainer(images)
        else:
            self._check_number(images, "partial_fit")
        self.net_.set_params(max_epochs=max(self.epochs, 1))
        self.net_.given = X, y
        self.net_.run(images, self._encode_labels(y, images, X), 1)
        del self.net_.given
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Encode images.

        Parameters
        ----------
        X : array-like, sequence of files or PIL images, path of a folder, data set or iterable
            Images of the shape that was passed to `fit`.

        Returns
        -------
        float32 ndarray of shape (n, d)
            The pooled output of the encoder in evaluation mode, without the projector. It is computed in the
            `precision` of the training; bfloat16 has three significant digits.
        """
        check_is_fitted(self)
        return self._encode(self._read(X, reset=False))

    def export(self, path: str | os.PathLike[str]) -> None:
        """Export the trained encoder for other programs.

        Parameters
        ----------
        path : str or path-like
            The file. Its suffix selects the format. ".safetensors", ".pt" and ".pth" hold the encoder's ``state_dict``
            with the keys of torchvision and timm. ".onnx" holds a graph that computes `transform` for any number of
            images: from "images", float32 of shape (n, c, h, w) in [0, 1] and of the size that `fit` saw, to
            "features" of shape (n, d). It needs ``pip install 'skssl[onnx]'``.

        Raises
        ------
        ValueError
            If the suffix is unknown.
        OSError
            If the file cannot be written.
        """
        check_is_fitted(self)
        shape = self.net_.module_.shape
        export(self.encoder_, TransformModule(self.encoder_, self.net_.augmentations[0], shape), shape, path)

    @property
    def encoder_(self) -> nn.Module:
        """The trained encoder in evaluation mode."""
        return self.net_.module_.encoder.eval()

    @property
    def history_(self) -> pd.DataFrame:
        """The history of the training, one row for each epoch."""
        return self.net_.table()

    def setting(self, name: str) -> Any:
        """Return the value of a parameter, or the method's default setting if the parameter is None.

        Parameters
        ----------
        name : str
            Name of the parameter.

        Returns
        -------
        object
            The value in use.

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
            return 0.0 if makes_scheduler(self.setting("schedule")) else self.default_settings.warmup * self.epochs
        return getattr(self.default_settings, name)

    # A method overrides these properties, and the hooks of `Hooks`.

    @property
    def n_views(self) -> int:
        """Number of views of each image in a step."""
        return 2

    @property
    def uses_labels(self) -> bool:
        """Whether the method uses y, in which -1 marks an unknown class."""
        return False

    # From parameters and images to the trainer.

    @property
    def _warm(self) -> bool:
        """Whether `fit` starts from the fitted network."""
        return self.warm_start and self.__sklearn_is_fitted__()

    def _train(self, images: Images, X: Any, y: Any) -> None:
        """Train on images, which were read from X."""
        warm = self._warm
        if warm:
            self._check_number(images, "warm_start=True")
        self.net_ = self._make_trainer(images, self.net_.module_.state_dict() if warm else None)
        start = {"warm_start": self.net_.module_} if warm else {}
        self.net_.given = X, y
        train(self, self.net_, images, self._encode_labels(y, images, X), **start)
        del self.net_.given

    def _encode(self, images: Images) -> np.ndarray:
        """Return the features of images."""
        net = self.net_
        return encode(self.encoder_, images, net.augmentations[0], torch.device(net.device), net.dtype).numpy()

    def _check_readable(self, images: Images) -> None:
        """Read images that are read when they are needed once, and refuse bad ones."""
        try:
            with closing(images), tqdm(total=len(images), desc="Reading", unit=" images", delay=10.0) as bar:
                for index, _ in images.batches(torch.arange(len(images)).split(READ_AT_ONCE)):
                    bar.update(len(index))
        except (TypeError, ValueError) as error:
            raise ValueError(f"fit_transform returns a row for each image, so it skips none. {error}") from error

    def _check_number(self, images: Images, what: str) -> None:
        """Refuse another number of images than that of the fitted net if it stores a value for each."""
        n_samples = self.net_.module_.n_samples
        if self.per_image and len(images) != n_samples:
            raise ValueError(
                f"{type(self).__name__} stores a value for every training image, so {what} expects the same "
                f"{n_samples} images in the same order. Got {len(images)} images."
            )

    def _make_trainer(self, images: Images, start: dict[str, Tensor] | None = None) -> Trainer:
        """Make the trainer for images, whose network starts from a ``state_dict`` if there is one."""
        device = resolve_device(self.device)
        init_process_group(device)
        augment = self.setting("augment")
        if has_transforms(augment):
            self._refuse_corners(augment)
        tried = resolve_transforms(augment, images, type(self).__name__, self.n_views)
        method = self if tried is augment else type(self)(**{**self.get_params(deep=False), "augment": tried})
        augmentations, shape = method._views(images.shape)
        if isinstance(images, Photographs) and images.guessed and is_main_process():
            warnings.warn(
                f"The images in X differ in size. Their views have {shape[1]}x{shape[2]} pixels: give "
                "Augmentation(size=...) or image_shape=(h, w) for another size.",
                stacklevel=3,
            )
        dtype = resolve_precision(self.precision, device, min(shape[1:]))
        seed = draw_seed(self.random_state)
        with seeded(seed):
            weights = self._initial_weights() if start is None else None
            objective = method._make_objective(images.shape, shape, len(images), self.backbone, weights, self.verbose)
        if start is not None:
            try:
                check_network(objective, {f"net.{name}": value for name, value in start.items()})
            except ValueError as error:
                raise ValueError(
                    f"warm_start=True starts from the fitted network, which does not fit the parameters: {error} Pass "
                    "warm_start=False, or the parameters of the earlier fit."
                ) from error
            objective.load_state_dict(start)
        return self._wrap(objective, augmentations, device, dtype, seed)

    def _refuse_corners(self, augment: Any) -> None:
        """Refuse transforms of other libraries if the method or a task needs to know where views were cropped."""
        for hooks in (self, *(task for task, _ in self._tasks().values())):
            if hooks.reads_corners:
                raise TypeError(
                    f"{type(hooks).__name__} needs to know where each view was cropped and whether it was flipped, "
                    "which transforms of other libraries do not tell. Pass an Augmentation or the name of a preset as "
                    f"augment. Got {augment!r}."
                )

    def _initial_weights(self) -> Any:
        """Return what the encoder starts from: a file, a state dict or None."""
        source = self.warm_start_from
        if source is None:
            return self.backbone_weights
        if self.backbone_weights is not None:
            raise ValueError("The encoder starts from backbone_weights or from warm_start_from. Pass one of them.")
        source = source.estimator if isinstance(source, FrozenEstimator) else source
        if not isinstance(source, SSLTransformer):
            raise TypeError(
                "warm_start_from must be an estimator of skssl or a FrozenEstimator of one. "
                f"Got {type(source).__name__}."
            )
        check_is_fitted(
            source,
            msg="warm_start_from must be fitted. Got a %(name)s that is not. Cloning discards a fit unless the "
            "estimator is in a FrozenEstimator.",
        )
        return source.encoder_.state_dict()

    def _make_objective(
        self,
        shape: tuple[int, int, int],
        encoded: tuple[int, int, int],
        n_samples: int,
        backbone: Any,
        weights: Any = None,
        verbose: int = 0,
    ) -> Objective:
        """Check the parameters that are names, and make the network for images of a shape."""
        check_schedule(self.setting("schedule"), self.warmup_epochs)
        if isinstance(self.setting("optimizer"), str):
            pick("optimizer", self.setting("optimizer"), OPTIMIZERS)
        tasks = self._tasks()
        encoder, dim = build_backbone(backbone, encoded, weights=weights, verbose=verbose)
        method = type(self)(**self.get_params(deep=False))  # a copy without net_, which would contain itself
        return Objective(encoder, dim, method, tasks, n_samples, shape)

    def _wrap(
        self,
        objective: Objective,
        augmentations: list[View],
        device: torch.device,
        dtype: torch.dtype,
        seed: int,
    ) -> Trainer:
        """Make the trainer of a network."""
        trainer = Trainer(
            objective,
            augmentations=augmentations,
            schedule=self.setting("schedule"),
            warmup_epochs=self.setting("warmup_epochs"),
            momentum=self.momentum,
            weight_decay=self.setting("weight_decay"),
            dtype=dtype,
            tf32=self.precision == "auto",
            accumulate=int(self.accumulate),  # NumPy's integers, too
            seed=seed,
            n_jobs=self.n_jobs,
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

    def _views(self, shape: tuple[int, int, int]) -> tuple[list[View], tuple[int, int, int]]:
        """Return the augmentations for images of a shape, and the shape of their views."""
        augmentations = self._augmentations(max(shape[1:]))
        return augmentations, (shape[0], *augmentations[0].size_of(*shape[1:]))

    def _augmentations(self, side: int) -> list[View]:
        """Return one augmentation for each view of images whose longer side is `side`."""
        augment = self.setting("augment")
        given = as_views(augment, side)
        if not isinstance(augment, MultiCrop):
            return [given[view % len(given)] for view in range(self.n_views)]
        if not self.multi_crop:
            raise TypeError(
                f"{type(self).__name__} compares views of one size. Expected an Augmentation, got a MultiCrop."
            )
        return given

    def _tasks(self) -> dict[str, tuple[Any, float]]:
        """Return the auxiliary tasks with their weights by name."""
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

    def _read(self, X: Any, *, reset: bool, on_bad_image: str = "raise", min_samples: int | None = None) -> Images:
        """Read X as images. Unless `reset`, they must have the shape and value range of those seen in `fit`."""
        if reset:
            augment = self.setting("augment")
            like: dict[str, Any] = {"size": size_of_views(augment) or view_size(augment)}
        else:
            like = {"shape": self._shape, "scale": self._scale, "whole": self._whole}
        how: dict[str, Any] = {"reset": reset, "on_bad_image": on_bad_image, "min_samples": min_samples}
        images = self._as_images(X, estimator=self, **how, **like)
        if self.verbose and isinstance(X, (str, os.PathLike)) and is_main_process():
            print(f"{os.fspath(X)}: {len(images)} {images.unit}.")
        if reset:
            self._shape: tuple[int, int, int] = images.shape
            self._scale: Any = images.scale
            self._whole: bool = isinstance(images, Photographs)
        return images

    def _as_images(self, X: Any, **how: Any) -> Images:
        """Read X as images, in the way that `as_images` is told."""
        return as_images(X, self.image_shape, n_jobs=self.n_jobs, **how)

    def _as_samples(self, X: Any) -> Any:
        """Return X in a form whose samples can be counted and indexed. Nothing is decoded."""
        return expand_folder(X)

    def _encode_labels(self, y: Any, images: Images, X: Any = None) -> Tensor | None:
        """Return the classes in y, or in X, as integers from 0, -1 where unknown. None if the method uses no labels."""
        if not self.uses_labels:
            return None
        y = require_labels(y, X, images, type(self).__name__)
        labels, kept = encode_labels(y)[1], images.kept
        n_given = len(images) if kept is None else len(kept)
        if len(labels) != n_given:
            raise ValueError(f"Found input variables with inconsistent numbers of samples: {[n_given, len(labels)]}")
        return labels if kept is None else labels[torch.from_numpy(kept)]

    # What `save` writes and `skssl.load` reads.

    def _trained(self) -> SSLTransformer:
        return self.net_.module_.method

    def _pack_state(self, parts: Parts, prefix: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        net = self.net_
        values, tensors = training_state(net)
        for name, value in values.pop("optimizer").items():
            raise TypeError(
                f"{type(self).__name__}.optimizer cannot be saved: {type(net.optimizer_).__name__} keeps "
                f"{name.partition('.')[2]}={value!r}, which is not a tensor. joblib.dump saves anything that can be "
                "pickled."
            )
        values["output"] = getattr(self, "_sklearn_output_config", {}).get("transform")
        return {**self._pack_reading(), **values}, tensors

    def _pack_reading(self) -> dict[str, Any]:
        """Return how images are read after `fit`: the values of `READING`."""
        return {
            "shape": self._shape,
            "scale": self._scale,
            "whole": self._whole,
            "column": self.n_features_in_ != math.prod(self._shape),
            "feature_names": getattr(self, "feature_names_in_", np.empty(0)).tolist(),
            "n_samples": self.net_.module_.n_samples,
        }

    def _check_state(
        self, trained: SSLTransformer, values: Mapping[str, Any], shapes: Mapping[str, Tensor], given: Given
    ) -> Restore:
        trained._validate_params()
        check_history(values["history"])
        if values["output"] in ("pandas", "polars") and not importlib.util.find_spec(values["output"]):
            raise ValueError(
                f"Its 'output' is {values['output']!r}, which is not installed: pip install {values['output']}."
            )
        for name in shapes:
            if not name.startswith(("net.", "optimizer.")):
                raise ValueError(f"The tensor {name[:80]!r} is unknown.")
        self._set_reading(values)
        shape, n_samples = values["shape"], values["n_samples"]
        augmentations, encoded = trained._loaded_views(shape)
        network = Blank(partial(trained._make_objective, shape, encoded, n_samples), trained.backbone, pixels(encoded))
        network.check(shapes)
        with torch.device("meta"):
            blank = trained._wrap(network.module, augmentations, torch.device("meta"), torch.float32, values["seed"])
        check_optimizer_state(blank.optimizer_, values, shapes)

        def restore(tensors: dict[str, Tensor]) -> None:
            module, device = network.fill(take(tensors, "net.")), available(trained.device)
            dtype = usable_precision(trained.precision, device, min(encoded[1:]))
            net = trained._wrap(module, augmentations, device, dtype, values["seed"])
            load_training_state(net, values, tensors)
            self.net_ = net
            self.set_output(transform=values["output"])

        return restore

    def _set_reading(self, values: Mapping[str, Any]) -> None:
        """Set how images are read, as `fit` does."""
        self._shape, self._scale, self._whole = (values[name] for name in ("shape", "scale", "whole"))
        self.n_features_in_ = 1 if values["column"] else math.prod(self._shape)
        if names := values["feature_names"]:
            if len(names) != self.n_features_in_:
                raise ValueError(f"'feature_names' must hold {self.n_features_in_} names. Got {len(names)}.")
            self.feature_names_in_ = np.array(names, dtype=object)

    def _loaded_views(self, shape: tuple[int, int, int]) -> tuple[list[View], tuple[int, int, int]]:
        """Return the same as `_views` for a file's shape; refuse huge views."""
        with torch.device("meta"):
            augmentations, encoded = self._views(shape)
        if pixels(encoded) > max(LARGEST_VIEW, pixels(shape)):
            raise ValueError(
                f"The views have {encoded[1]} x {encoded[2]} pixels. A file may ask for {LARGEST_VIEW}, or "
                f"for as many as the images have, {shape[1]} x {shape[2]}."
            )
        return augmentations, encoded

    # The scikit-learn protocol.

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Register the method, and document the parameters that it inherits."""
        super().__init_subclass__(**kwargs)
        register("estimator")(cls)
        inherit_parameters(cls, SSLTransformer)

    def _validate_params(self) -> None:
        """Check the parameters. Unlike scikit-learn, refuse bools for numbers and check each callback."""
        for name, value in self.get_params(deep=False).items():
            for each in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(each, type) and hasattr(each, "get_params"):
                    raise TypeError(
                        f"The {name!r} parameter of {type(self).__name__} got the class {each.__name__}. Pass an "
                        f"instance, {each.__name__}()."
                    )
        super()._validate_params()
        for name, rules in self._parameter_constraints.items():
            value = getattr(self, name, None)
            if isinstance(value, bool) and any(isinstance(rule, Interval) for rule in rules):
                raise TypeError(f"The {name!r} parameter of {type(self).__name__} must be a number. Got {value}.")
        if self.accumulate > max(self.batch_size // 2, 1):
            raise ValueError(
                f"The 'accumulate' parameter of {type(self).__name__} must be at most half of batch_size="
                f"{self.batch_size}, as each part of a batch has at least two images. Got {self.accumulate}."
            )
        if self.accumulate > 1 and self.compile is True:
            raise ValueError(
                f"{type(self).__name__} cannot compile a step that runs in parts. Pass accumulate=1 or compile='auto', "
                f"which does not compile such steps. Got accumulate={self.accumulate} and compile=True."
            )
        for callback in self.callbacks if isinstance(self.callbacks, list) else ():
            named = isinstance(callback, tuple) and len(callback) == 2 and isinstance(callback[0], str)
            if not hasattr(callback[1] if named else callback, "on_train_begin"):
                raise TypeError(
                    f"The 'callbacks' parameter of {type(self).__name__} must be a list of skorch callbacks or of "
                    f"(name, callback) tuples. Got {callback!r} in the list."
                )

    @property
    def _n_features_out(self) -> int:
        return self.net_.module_.dim

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Explain that an encoder is no classifier."""
            own = type(self).__name__
            hint = ""
            if callable(getattr(type(self), name, None)):  # a method that other parameters have
                hint = f" with these parameters, see help({own}.{name})"
            elif name in ("predict", "predict_proba", "score"):
                hint = f". {own} gives features: LinearProbe(encoder=encoder).fit(X, y) predicts classes"
            raise AttributeError(f"{own!r} object has no attribute {name!r}{hint}")

    def __sklearn_is_fitted__(self) -> bool:
        """Return whether there is a trained net."""
        return hasattr(self, "net_")

    def __sklearn_tags__(self) -> Any:
        """Return the tags: float32 features, images with three or more axes, whether y is required."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.input_tags.three_d_array = True
        tags.target_tags.required = self.uses_labels
        return tags
