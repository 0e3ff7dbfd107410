"""Saliency maps of a classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skssl.augment.presets import as_augmentations
from skssl.backbones import last_module, stages
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
        Layer whose output is the feature map. None is the end of the last stage of the encoder that the classifier is
        or contains, see `backbones.stages`: ``layer4`` of a ResNet, the last layer of ``features`` before its pooling,
        the first LayerNorm of the last block of a `backbones.ViT`, or else the last convolution.
    augment : str or Augmentation, default="none"
        Its normalisation is applied, and nothing else.
    batch_size : int, default=128
        Number of images at a time.

    Returns
    -------
    uint8 ndarray of shape (n, h', w')
        The maps at the size of the feature map, such as 7x7 for images of 224 pixels, each scaled to a maximum of 255,
        for ``Augmentation(saliency=...)``. Those of ImageNet-100 take 6 MB.

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
    >>> grad_cam(nn.Sequential(classifier, nn.Linear(128, 4)), X).shape
    (8, 2, 2)
    """
    found = as_images(images)
    normalize = as_augmentations(augment, max(found.shape[1:]))[0].normalize
    vit = None if layer else _find_vit(classifier)
    layer = vit.encoder.layers[-1].ln_1 if vit else layer or _last_stage(classifier)
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
            grid = outputs[-1].detach()
            if vit:  # tokens (n, 1 + h' * w', d), of which the first is the class token
                sides = vit.grid_of(*pixels.shape[2:])
                gradient, grid = (x[:, 1:].transpose(1, 2).unflatten(2, sides) for x in (gradient, grid))
            weighted = (gradient.mean((2, 3), keepdim=True) * grid).sum(1, keepdim=True)
            cam = weighted[:, 0].relu()
            cam = cam / cam.amax((1, 2), keepdim=True).clamp(min=1e-12)
            maps.append((255 * cam).round().to(torch.uint8).cpu())
    finally:
        hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return torch.cat(maps).numpy()


def _find_vit(classifier: nn.Module) -> Any:
    """Return the vision transformer of skssl that a classifier is or contains, or None."""
    from skssl.backbones.transformers import VisionTransformer

    return next((module for module in classifier.modules() if isinstance(module, VisionTransformer)), None)


def _last_stage(classifier: nn.Module) -> nn.Module | None:
    """Return the module at whose end the last stage of the contained encoder ends; None without a convolution."""
    for module in classifier.modules():
        if hasattr(module, "layer1") or hasattr(module, "features"):
            parts = list(stages(module).values())
            if len(parts) < 2 and hasattr(module, "features"):  # as in a DenseNet
                return module.get_submodule("features")
            return last_module(parts[-1])
    convolutions = [module for module in classifier.modules() if isinstance(module, nn.Conv2d)]
    return next(iter(convolutions[-1:]), None)
