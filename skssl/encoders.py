"""Trained encoders as those see them who judge them: from whatever the user calls images to what a layer gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.augment import Augmentation
from skssl.backbones import build_backbone, stages
from skssl.base import SSLTransformer
from skssl.devices import resolve_device
from skssl.engine import encode
from skssl.errors import pick
from skssl.images import Images, as_images

MAP_NUMBERS = 9600  # what an inner layer's map is pooled to at most: 64x12x12, 192x7x7, 384x5x5, 256x6x6


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
    >>> from skssl.encoders import InnerLayer
    >>> InnerLayer(ConvNet(), "conv2")(torch.zeros(5, 3, 32, 32)).shape  # 32 maps of 16x16
    torch.Size([5, 8192])
    """

    def __init__(self, encoder: nn.Module, layer: str) -> None:
        super().__init__()
        self.encoder = encoder
        parts = pick("layer", layer, stages(encoder))
        pools = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
        end = next((i for i, part in enumerate(parts) if isinstance(part, pools)), len(parts))
        self.last = [parts[end - 1]]  # in a list, as it is no child of this module, too
        self.pool = F.adaptive_max_pool2d if type(encoder).__name__ == "AlexNet" else F.adaptive_avg_pool2d

    def forward(self, images: Tensor) -> Tensor:
        """Encode images (n, c, h, w) as the layer's pooled map (n, d)."""
        grids: list[Tensor] = []
        handle = self.last[0].register_forward_hook(lambda module, inputs, output: grids.append(output))
        try:
            self.encoder(images)
        finally:
            handle.remove()
        side = math.isqrt(MAP_NUMBERS // grids[0].shape[1]) or 1
        height, width = (min(side, extent) for extent in grids[0].shape[2:])
        return self.pool(grids[0], (height, width)).flatten(1)


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
    >>> from skssl.encoders import at_layer
    >>> from skssl.nn import MLP
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
    read : callable
        From X to images of the shape and range that the network was trained on.
    """

    module: nn.Module
    augment: Augmentation
    device: torch.device
    read: Callable[[Any], Images]

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
        parts = [part.cpu() for part in encode(self.module, images, self.augment, self.device)]
        return torch.cat(parts).numpy()


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
    >>> from skssl.encoders import as_encoder
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
        home = torch.device(fitted.net_.device)
        return Encoder(module, fitted.net_.augmentations[0], home, partial(fitted._read, reset=False))
    if isinstance(encoder, nn.Module):
        images = as_images(X)
        home = resolve_device(device)
        module = at_layer(build_backbone(encoder, images.shape)[0].to(home), None, layer)
        read = partial(as_images, reset=False, shape=images.shape, scale=images.scale)
        return Encoder(module, Augmentation(), home, read)
    raise TypeError(
        "encoder must be an estimator of skssl, fitted or not, a FrozenEstimator of one, or a torch.nn.Module. Got "
        f"{encoder!r}."
    )
