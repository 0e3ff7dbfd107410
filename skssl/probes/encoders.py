"""Trained encoders as those see them who judge them: from whatever the user calls images to what a layer gives."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.augment.augmentation import Augmentation
from skssl.augment.presets import as_augmentations
from skssl.backbones import build_backbone, stages
from skssl.errors import pick
from skssl.images import Images, as_images
from skssl.images.reading import is_decoded
from skssl.methods.base import SSLTransformer
from skssl.nn.precision import resolve_precision
from skssl.training.devices import available, portable, resolve_device
from skssl.training.encoding import encode

MODULE_SHAPE = (3, 224, 224)  # what a module that comes without images is taken to read
MAP_NUMBERS = 9600  # what an inner layer's map is pooled to at most: 64x12x12, 192x7x7, 384x5x5, 256x6x6


def last_of(stage: Sequence[nn.Module]) -> nn.Module:
    """Find the module whose output is a stage's map: its last one, or the one before its own pooling.

    Parameters
    ----------
    stage : sequence of torch.nn.Module
        One of `backbones.stages`.

    Returns
    -------
    torch.nn.Module
        The module.

    Examples
    --------
    >>> import torchvision
    >>> from skssl.backbones import stages
    >>> last_of(stages(torchvision.models.resnet18())["conv1"])  # before the max-pooling
    ReLU(inplace=True)
    """
    pools = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
    end = next((i for i, part in enumerate(stage) if isinstance(part, pools)), len(stage))
    return stage[end - 1]


def outputs_of(modules: Sequence[nn.Module], encoder: nn.Module, images: Tensor) -> list[Tensor]:
    """Encode images as whole encoders do, hooks and all, and keep what some of the modules in it give.

    Parameters
    ----------
    modules : sequence of torch.nn.Module
        Parts of the encoder.
    encoder : torch.nn.Module
        The encoder.
    images : Tensor of shape (n, c, h, w)
        Images.

    Returns
    -------
    list of Tensor
        The output of each of the modules.

    Examples
    --------
    >>> import torch
    >>> from skssl.backbones import ConvNet
    >>> encoder = ConvNet()
    >>> [tuple(output.shape) for output in outputs_of([encoder.avgpool], encoder, torch.zeros(5, 3, 32, 32))]
    [(5, 128, 1, 1)]
    """
    found: dict[nn.Module, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: found.update({module: output}))
        for module in modules
    ]
    try:
        encoder(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [found[module] for module in modules]


class InnerLayer(nn.Module):
    """An encoder up to one of its inner layers, whose map is pooled to about 9,000 numbers.

    Parameters
    ----------
    encoder : torch.nn.Module
        The encoder.
    layer : str
        One of its `backbones.stages`, such as "conv3" or "layer2".

    Notes
    -----
    The side of the pooled map is the largest with which it holds no more than 9,600 numbers: 12, 7, 5, 6 and 6 for
    AlexNet's five convolutions [1]_, 12, 6, 4, 3 and 2 for a ResNet-50's five stages [2]_. AlexNet's maps are pooled
    by their maximum, as in [1]_, all others by their mean. A stage ends before its own pooling.

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
        self.last = [last_of(pick("layer", layer, stages(encoder)))]  # in a list, as it is no child of this module, too
        self.pool = F.adaptive_max_pool2d if type(encoder).__name__ == "AlexNet" else F.adaptive_avg_pool2d

    def forward(self, images: Tensor) -> Tensor:
        """Encode images (n, c, h, w) as the layer's pooled map (n, d)."""
        (grid,) = outputs_of(self.last, self.encoder, images)
        side = math.isqrt(MAP_NUMBERS // grid.shape[1]) or 1
        height, width = (min(side, extent) for extent in grid.shape[2:])
        return self.pool(grid, (height, width)).flatten(1)


def at_layer(encoder: nn.Module, projector: nn.Module | None, layer: str) -> nn.Module:
    """Cut a network at a layer.

    Parameters
    ----------
    encoder : torch.nn.Module
        From images to features.
    projector : torch.nn.Module or None
        From features to embeddings, where there is one.
    layer : str
        "backbone", the encoder's features; "projector", the embeddings; "projector1", "projector2", …, the
        projector up to its first, second, … linear layer with the BatchNorm and the activation that follow it
        (SimCLRv2's middle of the head); or an inner layer of the encoder, see `InnerLayer`.

    Returns
    -------
    torch.nn.Module
        From images (n, c, h, w) to (n, d); it shares its parts with what it was made from.

    Raises
    ------
    ValueError
        If there is no such layer.

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
class Encoder:
    """A trained network and how images come to it; made by `as_encoder`.

    Attributes
    ----------
    module : torch.nn.Module
        From normalised images (n, c, h, w) to features (n, d).
    augment : Augmentation
        Whose normalisation the network was trained with.
    device : torch.device
        Where the module is.
    dtype : torch.dtype
        What it computes in: what it was trained in, or what suits the device.
    shape : tuple of int
        Channels, height and width of the images that the network was trained on.
    read : callable
        From X to images of that shape, and of the range that the network was trained on; it can be pickled.
    """

    module: nn.Module
    augment: Augmentation
    device: torch.device
    dtype: torch.dtype
    shape: tuple[int, int, int]
    read: Callable[[Any], Images]

    def __getstate__(self) -> dict[str, Any]:
        """Bring the network to where it can be loaded anywhere."""
        return {**vars(self), "module": portable(self.module)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Bring the network to its device, if this machine has such a one."""
        vars(self).update(state, device=available(state["device"]))
        self.module.to(self.device)

    def transform(self, X: Any) -> np.ndarray:
        """Encode images, in evaluation mode and without augmentation.

        Parameters
        ----------
        X : Images, or what `as_images` takes
            Images.

        Returns
        -------
        float32 ndarray of shape (n, d)
            Their features.
        """
        images = X if isinstance(X, Images) else self.read(X)
        return encode(self.module, images, self.augment, self.device, self.dtype).numpy()

    def augmentations(self, augment: Any, side: int, n_images: int | None = None) -> list[Augmentation]:
        """Make augmentations whose views are normalised as the network was trained with.

        Parameters
        ----------
        augment : str, Augmentation, sequence of Augmentation or None
            As for `as_augmentations`. Mean and deviation are replaced by the encoder's own, and so is the size where
            none is given. None is the encoder's `augment` without saliency maps, which are those of the images that it
            was trained on.
        side : int
            The images' longer side, in pixels.
        n_images : int, default=None
            How many images are augmented by their numbers. None: who augments checks that there is a map for each.

        Returns
        -------
        list of Augmentation
            Copies of them, one a view.

        Raises
        ------
        ValueError
            If saliency maps are of another number than the images.
        """
        own: dict[str, Any] = {"mean": self.augment.mean, "std": self.augment.std}
        if augment is None:
            augment, own["saliency"] = self.augment, None
        views = [clone(given).set_params(**own) for given in as_augmentations(augment, side)]
        for view in views:
            view.size = self.augment.size if view.size is None else view.size
        for maps in (view.saliency for view in views):
            if n_images is not None and maps is not None and len(maps) != n_images:
                raise ValueError(
                    "The 'saliency' parameter of Augmentation must have one map for each image that is augmented: "
                    f"expected {n_images}, got {len(maps)}."
                )
        return views


def as_encoder(encoder: Any, X: Any, y: Any = None, *, layer: str = "backbone", device: Any = "auto") -> Encoder:
    """Take whatever the user calls an encoder.

    Parameters
    ----------
    encoder : SSLTransformer, FrozenEstimator of one, or torch.nn.Module
        An estimator that is fitted is used as it is. One that is not is cloned and fitted to `X` first, which is
        also what becomes of a fitted one when scikit-learn clones what holds it, as in a `GridSearchCV`; in a
        ``FrozenEstimator`` it stays fitted. A module is copied, its last classifier is dropped, and ImageNet's
        mean and deviation are taken for its own.
    X : array-like, sequence of files or PIL images, or torch Dataset
        Images: what an estimator that is not fitted learns from, and what a module reads.
    y : array-like of shape (n,), default=None
        Classes, for an estimator that is not fitted and uses them; -1 where unknown.
    layer : str, default="backbone"
        Which layer's output the features are, see `at_layer`.
    device : str or torch.device, default="auto"
        Where a module goes. An estimator has its own.

    Returns
    -------
    Encoder
        The encoder. Its module is the estimator's own, not a copy.

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If it has no such layer.

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
    if isinstance(encoder, FrozenEstimator):
        encoder = encoder.estimator
    if isinstance(encoder, SSLTransformer):
        fitted = encoder if encoder.__sklearn_is_fitted__() else clone(encoder).fit(X, y)
        net = fitted.net_.module_
        module = at_layer(net.encoder, getattr(net, "projector", None), layer)
        reader = copy.copy(fitted)  # without the net: whoever keeps the encoder may want to pickle how it reads
        del reader.net_
        trainer, read = fitted.net_, partial(reader._read, reset=False)
        return Encoder(module, trainer.augmentations[0], torch.device(trainer.device), trainer.dtype, net.shape, read)
    if isinstance(encoder, nn.Module):
        images = as_images(X)
        home = resolve_device(device)
        module = at_layer(build_backbone(encoder, images.shape)[0].to(home), None, layer)
        read = partial(as_images, reset=False, shape=images.shape, scale=images.scale)
        dtype = resolve_precision("auto", home, min(images.shape[1:]))
        return Encoder(module, Augmentation(), home, dtype, images.shape, read)
    raise TypeError(
        "encoder must be an estimator of skssl, fitted or not, a FrozenEstimator of one, or a torch.nn.Module. Got "
        f"{encoder!r}."
    )


def read_once(encoder: Any, X: Any) -> Any:
    """Read X as an encoder does if it must be decoded, so that it can be used several times.

    Parameters
    ----------
    encoder : SSLTransformer, FrozenEstimator of one, or torch.nn.Module
        As for `as_encoder`, fitted or not.
    X : array-like, sequence of files or PIL images, data set or iterable
        Images.

    Returns
    -------
    Images, or X
        `Images` for files, PIL images and iterables. Arrays, tables and data sets are returned unchanged.

    Examples
    --------
    >>> from skssl import SimCLR
    >>> from skssl.datasets import make_shapes
    >>> from skssl.probes.encoders import read_once
    >>> X, _ = make_shapes(8, image_size=16, random_state=0)
    >>> len(read_once(SimCLR(), iter(X)))
    8
    """
    if not is_decoded(X):
        return X
    if isinstance(encoder, FrozenEstimator):
        encoder = encoder.estimator
    if not isinstance(encoder, SSLTransformer):
        return as_images(X)
    fitted = encoder.__sklearn_is_fitted__()
    return (encoder if fitted else clone(encoder))._read(X, reset=not fitted)


def as_trained(
    encoder: Any,
    *,
    layer: str = "backbone",
    device: Any = "auto",
    shape: tuple[int, int, int] = MODULE_SHAPE,
) -> Encoder:
    """Take a trained encoder, to be judged on other images than it was trained on.

    Parameters
    ----------
    encoder : SSLTransformer, FrozenEstimator of one, or torch.nn.Module
        As for `as_encoder`, but an estimator must be fitted.
    layer : str, default="backbone"
        Which layer's output the features are, see `at_layer`.
    device : str or torch.device, default="auto"
        Where a module goes. An estimator has its own.
    shape : tuple of int, default=(3, 224, 224)
        Channels, height and width of the images that a module reads.

    Returns
    -------
    Encoder
        The encoder.

    Raises
    ------
    NotFittedError
        If it is an estimator that is not fitted.
    TypeError
        If it is none of these.
    ValueError
        If it has no such layer, or is a module that cannot read such images.

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
            msg="The encoder, %(name)s, is not fitted: transfer needs one that was fitted before. scikit-learn's clone "
            "forgets the fit, unless the encoder is in a FrozenEstimator.",
        )
    return as_encoder(encoder, torch.zeros(2, *shape, dtype=torch.uint8), layer=layer, device=device)
