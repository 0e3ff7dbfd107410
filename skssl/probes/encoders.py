"""Wraps a trained encoder for evaluation."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_consistent_length, check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.augment.augmentation import Augmentation
from skssl.augment.presets import as_augmentations
from skssl.augment.transforms import Transform, View
from skssl.backbones import build_backbone, last_module, module_outputs, stages
from skssl.errors import pick
from skssl.images import Images, as_images
from skssl.images.base import describe
from skssl.images.folders import expand_folder
from skssl.images.photographs import Photographs
from skssl.images.reading import is_decoded
from skssl.methods.base import SSLTransformer
from skssl.methods.clips import ClipMethod
from skssl.nn.precision import resolve_precision
from skssl.training.devices import available, portable, resolve_device
from skssl.training.encoding import encode

DEFAULT_SHAPE = (3, 224, 224)  # of the images that a module reads
MAX_MAP_SIZE = 9600  # values of a pooled map: 64x12x12, 192x7x7, 384x5x5, 256x6x6 for AlexNet


class InnerLayer(nn.Module):
    """An encoder up to one of its inner layers, whose map is pooled to about 9,000 values.

    Parameters
    ----------
    encoder : torch.nn.Module
        The encoder.
    layer : str
        One of its `backbones.stages`, such as "conv3" or "layer2".

    Notes
    -----
    The side of the pooled map is the largest for which it holds at most 9,600 values: 12, 7, 5, 6 and 6 for the five
    convolutions of AlexNet [1]_, 12, 6, 4, 3 and 2 for the five stages of a ResNet-50 [2]_. AlexNet's maps are
    max-pooled, as in [1]_; all others are average-pooled. A stage ends before its own pooling.

    References
    ----------
    .. [1] Gidaris et al., Unsupervised Representation Learning by Predicting Image Rotations, ICLR 2018, and its code.
    .. [2] Goyal et al., Scaling and Benchmarking Self-Supervised Visual Representation Learning, ICCV 2019.

    Examples
    --------
    >>> import torch
    >>> from skssl.backbones import ConvNet
    >>> from skssl.probes.encoders import InnerLayer
    >>> InnerLayer(ConvNet(), "conv2")(torch.zeros(5, 3, 32, 32)).shape  # 32 maps of 16x16
    torch.Size([5, 8192])
    """

    def __init__(self, encoder: nn.Module, layer: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.last_module = [last_module(pick("layer", layer, stages(encoder)))]  # a list, so that it is no submodule
        self.pool = F.adaptive_max_pool2d if type(encoder).__name__ == "AlexNet" else F.adaptive_avg_pool2d

    def forward(self, images: Tensor) -> Tensor:
        """Return the pooled map (n, d) of images (n, c, h, w)."""
        (grid,) = module_outputs(self.last_module, self.encoder, images)
        side = math.isqrt(MAX_MAP_SIZE // grid.shape[1]) or 1
        height, width = (min(side, extent) for extent in grid.shape[2:])
        return self.pool(grid, (height, width)).flatten(1)


def at_layer(encoder: nn.Module, projector: nn.Module | None, layer: str) -> nn.Module:
    """Return the network up to a layer.

    Parameters
    ----------
    encoder : torch.nn.Module
        The network from images to features.
    projector : torch.nn.Module or None
        The network from features to embeddings, if there is one.
    layer : str
        "backbone" for the encoder's features; "projector" for the embeddings; "projector1", "projector2", … for the
        projector up to its first, second, … linear layer with the BatchNorm and the activation that follow it, as in
        SimCLRv2; or an inner layer of the encoder, see `InnerLayer`.

    Returns
    -------
    torch.nn.Module
        A module from images (n, c, h, w) to features (n, d). It shares its parts with the given modules.

    Raises
    ------
    ValueError
        If the layer is unknown.

    Examples
    --------
    >>> from skssl.backbones import ConvNet
    >>> from skssl.probes.encoders import at_layer
    >>> from skssl.nn.heads import MLP
    >>> at_layer(ConvNet(), MLP((128, 64, 32)), "projector1")[1]
    Sequential(
      (0): Linear(in_features=128, out_features=64, bias=False)
      (1): BatchNorm1d(64, ...)
      (2): ReLU(inplace=True)
    )
    """
    heads: dict[str, nn.Module] = {}
    if projector is not None:
        parts = list(projector) if isinstance(projector, nn.Sequential) else [projector]
        starts = [i for i, part in enumerate(parts) if isinstance(part, nn.Linear)]
        ends = [*starts[1:], len(parts)]
        heads = {f"projector{i}": nn.Sequential(*parts[:end]) for i, end in enumerate(ends, 1)} if starts else {}
        heads["projector"] = projector
    found = pick("layer", layer, {"backbone": None, **heads, **dict.fromkeys(stages(encoder))})
    if layer == "backbone":
        return encoder
    return InnerLayer(encoder, layer) if found is None else nn.Sequential(encoder, found)


@dataclass
class Source:
    """Where an encoder comes from. Called with X, it reads images as in the training.

    Attributes
    ----------
    estimator : SSLTransformer or None
        The fitted estimator without its net, so that it is small when it is pickled; None for a module.
    trained : SSLTransformer or None
        One with the parameters of the training.
    layer : str
        The layer whose output the features are, see `at_layer`.
    reading : dict of str to object
        How images are read: the values of `storage.saving.READING`.
    """

    estimator: SSLTransformer | None
    trained: SSLTransformer | None
    layer: str
    reading: dict[str, Any]

    def __call__(self, X: Any) -> Images:
        """Return images in the shape and the range of the training images."""
        if self.estimator is not None:
            return self.estimator._read(X, reset=False)
        return as_images(X, reset=False, **{name: self.reading[name] for name in ("shape", "scale", "whole")})


@dataclass
class Encoder:
    """A trained network and the preprocessing of its images; made by `as_encoder`.

    Attributes
    ----------
    module : torch.nn.Module
        The network from normalised images (n, c, h, w) to features (n, d).
    augment : Augmentation or Transform
        The augmentation whose normalisation the network was trained with.
    device : torch.device
        The device of the module.
    dtype : torch.dtype
        The dtype of the computations: that of the training, or one that suits the device.
    shape : tuple of int
        Channels, height and width of the training images.
    read : callable
        A function that can be pickled, from X to images in the shape and the range of the training images.
    """

    module: nn.Module
    augment: View
    device: torch.device
    dtype: torch.dtype
    shape: tuple[int, int, int]
    read: Callable[[Any], Images]

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with the network in a form that any machine can load."""
        return {**vars(self), "module": portable(self.module)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Move the network to its device if this machine has it."""
        vars(self).update(state, device=available(state["device"]))
        self.module.to(self.device)

    @property
    def encoded(self) -> tuple[int, int, int]:
        """Channels, height and width of the images that the network reads."""
        return self.shape[0], *self.augment.size_of(*self.shape[1:])

    def transform(self, X: Any) -> np.ndarray:
        """Encode images, in evaluation mode and without augmentation.

        Parameters
        ----------
        X : Images, or any input of `as_images`
            The images.

        Returns
        -------
        float32 ndarray of shape (n, d)
            The features.
        """
        images = X if isinstance(X, Images) else self.read(X)
        return encode(self.module, images, self.augment, self.device, self.dtype).numpy()

    def encode_views(self, view: View, batch: Tensor, index: Tensor, generator: torch.Generator) -> Tensor:
        """Make one random view of each image, and encode it. The frames of a clip have the same random numbers.

        Parameters
        ----------
        view : Augmentation or Transform
            The augmentation.
        batch : Tensor of shape (n, c, h, w), or (n, t, c, h, w) of clips
            The images, on the network's device.
        index : int64 Tensor of shape (n,)
            Their indices among all images.
        generator : torch.Generator
            Source of the random numbers.

        Returns
        -------
        float32 Tensor of shape (n, d)
            The features, which are the mean over the frames of a clip. Gradients and the mode of the network are the
            caller's.
        """
        if batch.ndim == 4:
            return self.module(view(batch, generator, index)).float()
        n, t = batch.shape[:2]
        frames = view(batch.transpose(0, 1).flatten(0, 1), generator, index, n_frames=t)
        return self.module(frames).float().unflatten(0, (t, n)).mean(0)

    def augmentations(self, augment: Any, side: int, n_images: int | None = None) -> list[View]:
        """Return augmentations with the normalisation of the network's training.

        Parameters
        ----------
        augment : str, Augmentation, sequence of Augmentation or None
            As for `as_augmentations`. The mean and the standard deviation are replaced by the encoder's own, and so is
            a size of None. None is the encoder's `augment` without its saliency maps, which belong to its training
            images. A `Transform` is not copied.
        side : int
            The longer side of the images, in pixels.
        n_images : int, default=None
            The number of images. Saliency maps are checked against it unless it is None.

        Returns
        -------
        list of Augmentation or Transform
            Copies, one for each view.

        Raises
        ------
        ValueError
            If the number of saliency maps is not that of the images.
        """
        if augment is None and isinstance(self.augment, Transform):
            return [self.augment]
        own: dict[str, Any] = {"mean": self.augment.mean, "std": self.augment.std}
        if augment is None:
            augment, own["saliency"] = self.augment, None
        views: list[Any] = [clone(given).set_params(**own) for given in as_augmentations(augment, side)]
        for view in views:
            view.size = self.augment.size if view.size is None else view.size
        for maps in (view.saliency for view in views):
            if n_images is not None and maps is not None and len(maps) != n_images:
                raise ValueError(
                    "The 'saliency' parameter of Augmentation must have one map for each image: expected "
                    f"{n_images} maps, got {len(maps)}."
                )
        return views


def as_encoder(encoder: Any, X: Any, y: Any = None, *, layer: str = "backbone", device: Any = "auto") -> Encoder:
    """Wrap an estimator or a module as an `Encoder`.

    Parameters
    ----------
    encoder : SSLTransformer, FrozenEstimator of one, or torch.nn.Module
        A fitted estimator is used directly. An estimator that is not fitted is cloned and fitted to `X`. Cloning, as in
        ``GridSearchCV``, discards a fit unless the estimator is in a ``FrozenEstimator``. A module is copied without
        its final classifier, and its images are normalised by ImageNet's mean and standard deviation.
    X : array-like, sequence of files or PIL images, or torch Dataset
        The images. An estimator that is not fitted is fitted to them. A module reads images of their shape and range.
    y : array-like of shape (n,), default=None
        The classes, for the fit of an estimator that uses labels; -1 if unknown.
    layer : str, default="backbone"
        The layer whose output the features are, see `at_layer`.
    device : str or torch.device, default="auto"
        The device of a module. An estimator has its own.

    Returns
    -------
    Encoder
        The encoder. Its module is the estimator's own, not a copy.

    Raises
    ------
    TypeError
        If the encoder is neither an estimator nor a module.
    ValueError
        If the layer is unknown.

    Examples
    --------
    >>> from skssl import SimCLR
    >>> from skssl.datasets import make_shapes
    >>> from skssl.probes.encoders import as_encoder
    >>> X, y = make_shapes(8, image_size=16, random_state=0)
    >>> untrained = SimCLR(backbone="convnet", epochs=0)
    >>> as_encoder(untrained, X, layer="projector").transform(X).shape
    (8, 128)
    """
    check_encoder(encoder)
    if isinstance(encoder, FrozenEstimator):
        encoder = encoder.estimator
    if isinstance(encoder, SSLTransformer):
        fitted = encoder if encoder.__sklearn_is_fitted__() else clone(encoder).fit(X, y)
        net = fitted.net_.module_
        module = at_layer(net.encoder, getattr(net, "projector", None), layer)
        reader, trainer = copy.copy(fitted), fitted.net_
        del reader.net_
        read = Source(reader, fitted._trained(), layer, fitted._pack_reading())
        return Encoder(module, trainer.augmentations[0], torch.device(trainer.device), trainer.dtype, net.shape, read)
    images = as_images(X)
    home = resolve_device(device)
    module = at_layer(build_backbone(encoder, images.shape)[0].to(home), None, layer)
    reading = {"shape": images.shape, "scale": images.scale, "whole": isinstance(images, Photographs)}
    read = Source(None, None, layer, {**reading, "column": False, "feature_names": [], "n_samples": len(images)})
    dtype = resolve_precision("auto", home, min(images.shape[1:]))
    return Encoder(module, Augmentation(), home, dtype, images.shape, read)


def check_encoder(encoder: Any, name: str = "encoder") -> None:
    """Refuse anything but an encoder, and say what to pass instead.

    Parameters
    ----------
    encoder : object
        An SSLTransformer, a FrozenEstimator of one, or a torch.nn.Module.
    name : str, default="encoder"
        The name of the parameter, for the message.

    Raises
    ------
    TypeError
        If it is anything else.
    """
    inner = encoder.estimator if isinstance(encoder, FrozenEstimator) else encoder
    if isinstance(inner, (SSLTransformer, nn.Module)):
        return
    if isinstance(encoder, type):
        hint = f" Pass an instance, {encoder.__name__}()."
    elif isinstance(encoder, (str, os.PathLike)):
        hint = " Pass skssl.load(path) for a file that save has written, or SimCLR(backbone=...) for a network by name."
    elif hasattr(inner, "encoder"):
        hint = f" Pass the encoder that the {type(inner).__name__} was given."
    elif isinstance(encoder, (list, tuple, np.ndarray, Tensor)):
        hint = f" The {name} comes first, then the images."
    else:
        hint = ""
    raise TypeError(
        f"{name} must be an estimator of skssl, a FrozenEstimator of one, or a torch.nn.Module. Got "
        f"{repr(encoder) if isinstance(encoder, (str, type)) else describe(encoder)}.{hint}"
    )


def read_once(encoder: Any, X: Any, y: Any = None) -> Any:
    """Read X as an encoder does if it must be decoded, so that it can be used several times.

    Parameters
    ----------
    encoder : SSLTransformer, FrozenEstimator of one, or torch.nn.Module
        As for `as_encoder`, fitted or not.
    X : array-like, sequence of files or PIL images, data set or iterable
        Images.
    y : array-like of shape (n,), default=None
        Labels, whose number is checked.

    Returns
    -------
    Images, or X
        `Images` for clips, files, PIL images and iterables. Arrays, tables and data sets are returned unchanged.

    Raises
    ------
    ValueError
        If the numbers of labels and images differ.

    Examples
    --------
    >>> from skssl import SimCLR
    >>> from skssl.datasets import make_shapes
    >>> from skssl.probes.encoders import read_once
    >>> X, _ = make_shapes(8, image_size=16, random_state=0)
    >>> len(read_once(SimCLR(), iter(X)))
    8
    """
    encoder = encoder.estimator if isinstance(encoder, FrozenEstimator) else encoder
    if isinstance(encoder, ClipMethod) or is_decoded(X):
        if isinstance(encoder, SSLTransformer):
            fitted = encoder.__sklearn_is_fitted__()
            X = (encoder if fitted else clone(encoder))._read(X, reset=not fitted)
        else:
            X = as_images(X)
    if y is not None:  # scikit-learn would read the number of images from `Images.shape`, which has none
        check_consistent_length(range(len(X)) if isinstance(X, Images) else X, y)
    return X


def as_samples(encoder: Any, X: Any) -> Any:
    """Return X in a form whose samples can be counted and indexed, as an encoder reads them. Nothing is decoded.

    Parameters
    ----------
    encoder : SSLTransformer, FrozenEstimator or Pipeline of one, or object
        An estimator, fitted or not. A pipeline reads what its first step reads, and anything else reads images.
    X : object
        What the encoder reads.

    Returns
    -------
    object
        The files or clips below a folder, a list of pairs for a tuple (frames, waveforms), and any other X unchanged.

    Examples
    --------
    >>> from skssl import AudioVisual
    >>> from skssl.datasets import make_clips
    >>> from skssl.probes.encoders import as_samples
    >>> clips, waveforms, *_ = make_clips(8, random_state=0)
    >>> len(as_samples(AudioVisual(), (clips, waveforms)))
    8
    """
    while isinstance(encoder, (FrozenEstimator, Pipeline)):
        encoder = encoder.estimator if isinstance(encoder, FrozenEstimator) else encoder[0]
    return encoder._as_samples(X) if isinstance(encoder, SSLTransformer) else expand_folder(X)


def as_trained(
    encoder: Any,
    *,
    layer: str = "backbone",
    device: Any = "auto",
    shape: tuple[int, int, int] = DEFAULT_SHAPE,
) -> Encoder:
    """Wrap a fitted estimator or a module as an `Encoder`, for images of other data sets.

    Parameters
    ----------
    encoder : SSLTransformer, FrozenEstimator of one, or torch.nn.Module
        As for `as_encoder`. An estimator must be fitted.
    layer : str, default="backbone"
        The layer whose output the features are, see `at_layer`.
    device : str or torch.device, default="auto"
        The device of a module. An estimator has its own.
    shape : tuple of int, default=(3, 224, 224)
        Channels, height and width of the images that a module reads.

    Returns
    -------
    Encoder
        The encoder.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    TypeError
        If the encoder is neither an estimator nor a module.
    ValueError
        If the layer is unknown, or the module cannot read images of this shape.

    Examples
    --------
    >>> from skssl.backbones import ConvNet
    >>> from skssl.probes.encoders import as_trained
    >>> as_trained(ConvNet(), layer="conv4").shape
    (3, 224, 224)
    """
    if isinstance(encoder, SSLTransformer | FrozenEstimator):
        check_is_fitted(
            encoder,
            msg="The encoder, %(name)s, is not fitted: call fit before the transfer. scikit-learn's clone discards the "
            "fit unless the encoder is in a FrozenEstimator.",
        )
    return as_encoder(encoder, torch.zeros(2, *shape, dtype=torch.uint8), layer=layer, device=device)
