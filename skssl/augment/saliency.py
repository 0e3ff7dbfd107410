"""Where in an image a classifier looks."""

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
    """Map where in each image a classifier sees the class that it predicts: Grad-CAM.

    The channels of a map within the network are added, each weighted by the mean of the predicted score's gradient in
    it; what is below zero is cut off. No labels are used.

    Parameters
    ----------
    classifier : torch.nn.Module
        From normalised images (n, c, h, w) to scores (n, classes). It is run in evaluation mode, and left as it was.
    images : array-like, sequence of files or PIL images, or torch Dataset
        Images, as for `fit`.
    layer : torch.nn.Module, default=None
        The one whose output is the map. None: ``layer4`` (ResNets), ``features``, or else the last convolution.
    augment : str or Augmentation, default="none"
        Its normalisation is used.
    batch_size : int, default=128
        Images at a time.

    Returns
    -------
    float32 ndarray of shape (n, h, w)
        The maps, of the images' size, divided by their maximum, as ``Augmentation(saliency=...)`` takes them.

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
        raise ValueError("grad_cam needs a layer whose output is a map: this classifier has no convolution.")
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
                pixels = normalize(found.read(index).to(device)).requires_grad_()  # frozen weights have no graph
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
