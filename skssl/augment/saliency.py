"""Saliency maps of a classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.augment.presets import as_augmentations
from skssl.images import as_images

__all__ = ["grad_cam"]


def grad_cam(
    classifier: nn.Module, images: Any, *, layer: nn.Module | None = None, augment: Any = "none", batch_size: int = 128
) -> np.ndarray:
    """Compute Grad-CAM maps: where in each image a classifier sees the class that it predicts.

    A map is the sum of the channels of one of the network's feature maps, each weighted by the mean gradient of the
    predicted class's score in it. Negative values are set to 0. No labels are used.

    Parameters
    ----------
    classifier : torch.nn.Module
        Network from normalised images (n, c, h, w) to scores (n, classes). It runs in evaluation mode; the mode of each
        module is restored.
    images : array-like, sequence of files or PIL images, or torch Dataset
        Images, as for `fit`.
    layer : torch.nn.Module, default=None
        Layer whose output is the feature map. None: ``layer4`` (ResNets), ``features``, or else the last convolution.
    augment : str or Augmentation, default="none"
        Its normalisation is applied, and nothing else.
    batch_size : int, default=128
        Number of images at a time.

    Returns
    -------
    float32 ndarray of shape (n, h, w)
        The maps at the images' size, each divided by its maximum, for ``Augmentation(saliency=...)``.

    Raises
    ------
    ValueError
        If no `layer` is given and the classifier has no convolution, or the images cannot be read.

    References
    ----------
    Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, ICCV 2017,
    equations 1 and 2.

    Examples
    --------
    >>> from torch import nn
    >>> from skssl.backbones import ConvNet
    >>> from skssl.datasets import make_shapes
    >>> from skssl.augment.saliency import grad_cam
    >>> X, y = make_shapes(8, image_size=16, random_state=0)
    >>> classifier = ConvNet()
    >>> grad_cam(nn.Sequential(classifier, nn.Linear(128, 4)), X, layer=classifier.features).shape
    (8, 16, 16)
    """
    found = as_images(images)
    normalize = as_augmentations(augment, max(found.shape[1:]))[0].normalize
    convolutions = [module for module in classifier.modules() if isinstance(module, nn.Conv2d)]
    named = [getattr(classifier, name) for name in ("layer4", "features") if hasattr(classifier, name)]
    layer = layer or next(iter([*named, *convolutions[-1:]]), None)
    if layer is None:
        raise ValueError(
            "grad_cam needs a layer whose output is a feature map: this classifier has no convolution, so pass one."
        )
    device = next(classifier.parameters(), torch.zeros(())).device
    outputs: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, given, output: outputs.append(output))
    modes = {module: module.training for module in classifier.modules()}
    maps = []
    try:
        classifier.eval()
        for index in torch.arange(len(found)).split(batch_size):
            outputs.clear()
            with torch.enable_grad():
                pixels = normalize(found.read(index).to(device)).requires_grad_()  # frozen weights make no graph
                scores = classifier(pixels).max(1).values.sum()
                (gradient,) = torch.autograd.grad(scores, outputs[-1])
            weighted = (gradient.mean((2, 3), keepdim=True) * outputs[-1].detach()).sum(1, keepdim=True)
            cam = F.interpolate(weighted.relu(), found.shape[1:], mode="bilinear")[:, 0]
            maps.append((cam / cam.amax((1, 2), keepdim=True).clamp(min=1e-12)).float().cpu())
    finally:
        hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return torch.cat(maps).numpy()
