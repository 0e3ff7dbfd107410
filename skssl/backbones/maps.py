"""Stages of encoders, and the map before pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from skssl.nn.accumulation import PartwiseForward


class PatchMap(nn.Identity):
    """The identity of the map of a vision transformer's patches, by which `feature_map` and `stages` find it."""


def stages(encoder: nn.Module) -> dict[str, list[nn.Module]]:
    """Split an encoder into stages, with the names that papers use.

    Parameters
    ----------
    encoder : torch.nn.Module
        A network like torchvision's, whose children, or those of its child ``features``, run in order.

    Returns
    -------
    dict of str to list of Module
        The modules of each stage, in order. Stages "conv1", "conv2", … start at a convolution; stages "layer1", …
        start at the child of that name. Each ends before the next starts. A vision transformer of skssl has one stage,
        "patches", which ends in the map of its patches.

    Examples
    --------
    >>> import torchvision
    >>> from skssl.backbones import ConvNet, stages
    >>> list(stages(ConvNet()))
    ['conv1', 'conv2', 'conv3', 'conv4']
    >>> list(stages(torchvision.models.resnet18()))
    ['conv1', 'layer1', 'layer2', 'layer3', 'layer4']
    """
    found: dict[str, list[nn.Module]] = {}
    convolutions = 0
    if any(isinstance(child, PatchMap) for child in encoder.children()):
        return {"patches": list(encoder.children())}
    for name, child in getattr(encoder, "features", encoder).named_children():
        if isinstance(child, nn.Conv2d) or name == "conv1":  # some stems are several convolutions
            convolutions += 1
            found[f"conv{convolutions}"] = []
        elif name.startswith("layer"):
            found[name] = []
        if found:
            found[next(reversed(found))].append(child)
    return found


def layers(encoder: nn.Module) -> list[list[nn.Module]]:
    """List the layers of the network that an encoder is or contains, for rates that depend on the depth.

    Parameters
    ----------
    encoder : torch.nn.Module
        The encoder.

    Returns
    -------
    list of list of Module
        The modules of each layer, from the images on. Those of a vision transformer of torchvision or timm are what
        makes tokens of patches, then each block. Those of other networks are their `stages`. Empty if there are none.

    Examples
    --------
    >>> from skssl.backbones import ConvNet, build_backbone
    >>> from skssl.backbones.maps import layers
    >>> len(layers(ConvNet())), len(layers(build_backbone("vit_micro", (3, 32, 32))[0]))
    (4, 5)
    """
    for module in (encoder, *encoder.children()):
        embedding = getattr(module, "conv_proj", None) or getattr(module, "patch_embed", None)
        blocks = getattr(module, "blocks", None) or getattr(getattr(module, "encoder", None), "layers", None)
        if isinstance(embedding, nn.Module) and isinstance(blocks, (nn.Sequential, nn.ModuleList)):
            return [[embedding], *([block] for block in blocks)]
        if len(found := stages(module)) > 1:
            return list(found.values())
    return []


def last_module(stage: Sequence[nn.Module]) -> nn.Module:
    """Return the module whose output is the map of a stage: the last one before its pooling.

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
    >>> from skssl.backbones import last_module, stages
    >>> last_module(stages(torchvision.models.resnet18())["conv1"])  # before the max-pooling
    ReLU(inplace=True)
    """
    pools = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
    end = next((i for i, part in enumerate(stage) if isinstance(part, pools)), len(stage))
    return stage[end - 1]


def module_outputs(modules: Sequence[nn.Module], encoder: nn.Module, images: Tensor) -> list[Tensor]:
    """Encode images, with the encoder's own hooks, and return the outputs of some of its modules.

    Parameters
    ----------
    modules : sequence of torch.nn.Module
        Modules of the encoder.
    encoder : torch.nn.Module
        The encoder.
    images : Tensor of shape (n, c, h, w)
        The images.

    Returns
    -------
    list of Tensor
        The output of each module.

    Examples
    --------
    >>> import torch
    >>> from skssl.backbones import ConvNet
    >>> encoder = ConvNet()
    >>> [tuple(output.shape) for output in module_outputs([encoder.avgpool], encoder, torch.zeros(5, 3, 32, 32))]
    [(5, 128, 1, 1)]
    """
    found: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        found[module] = output

    own = [module._forward_hooks for module in modules]
    for module in modules:  # not register_forward_hook, which torch.compile cannot trace
        module._forward_hooks = {**module._forward_hooks, -1: keep}
    try:
        encoder(images)
    finally:
        for module, hooks in zip(modules, own, strict=True):
            module._forward_hooks = hooks
    return [found[module] for module in modules]


def feature_map(encoder: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Encode images, and return the features and the map before pooling.

    Parameters
    ----------
    encoder : torch.nn.Module
        An encoder of `build_backbone`. Its last ``nn.AdaptiveAvgPool2d`` is the pooling, as in torchvision's networks
        (in AlexNet, layers follow it) and in networks whose output is a map. The map of skssl's vision transformers is
        that of the patches' tokens after the last LayerNorm.
    images : Tensor of shape (n, c, h, w)
        Images.

    Returns
    -------
    features : Tensor of shape (n, d)
        The output of the encoder.
    grid : Tensor of shape (n, c', h', w')
        The map before pooling.

    Raises
    ------
    ValueError
        If the encoder has no ``nn.AdaptiveAvgPool2d`` and is no vision transformer of skssl.

    Examples
    --------
    >>> import torch
    >>> from skssl.backbones import ConvNet, feature_map
    >>> features, grid = feature_map(ConvNet(), torch.zeros(5, 3, 32, 32))
    >>> features.shape, grid.shape
    (torch.Size([5, 128]), torch.Size([5, 128, 4, 4]))
    """
    pools = [module for module in encoder.modules() if isinstance(module, nn.AdaptiveAvgPool2d | PatchMap)]
    if not pools:
        raise ValueError(
            "This method needs the backbone's map: backbone must pool its last map by an nn.AdaptiveAvgPool2d, return "
            "a map (n, d, h, w), or be a skssl.backbones.ViT. "
            f"Got {type(encoder).__name__}, which has no nn.AdaptiveAvgPool2d."
        )
    grids: list[Tensor] = []
    pool, hooks = pools[-1], pools[-1]._forward_pre_hooks
    # Not register_forward_pre_hook, which torch.compile cannot trace.
    pool._forward_pre_hooks = {**hooks, -1: lambda module, inputs: grids.append(inputs[0])}
    try:
        features = encoder(images)
    finally:
        pool._forward_pre_hooks = hooks
    forward = encoder.forward
    return features, forward.join(grids) if isinstance(forward, PartwiseForward) else grids[-1]


def map_channels(encoder: nn.Module, shape: tuple[int, int, int]) -> int:
    """Return the number of channels of the map that an encoder pools.

    Parameters
    ----------
    encoder : torch.nn.Module
        An encoder of `build_backbone`. Its running statistics are not changed.
    shape : tuple of int
        Channels, height and width of the images.

    Returns
    -------
    int
        The channels c' of the map, see `feature_map`.

    Examples
    --------
    >>> from skssl.backbones import ConvNet, map_channels
    >>> map_channels(ConvNet(), (3, 32, 32))
    128
    """
    return map_shape(encoder, shape)[0]


def map_shape(encoder: nn.Module, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the shape of the map that an encoder pools.

    Parameters
    ----------
    encoder, shape
        As for `map_channels`.

    Returns
    -------
    tuple of int
        The channels, height and width of the map, see `feature_map`.

    Examples
    --------
    >>> from skssl.backbones import ConvNet
    >>> from skssl.backbones.maps import map_shape
    >>> map_shape(ConvNet(), (3, 32, 32))
    (128, 4, 4)
    """
    training, weight = encoder.training, next(encoder.parameters(), torch.zeros(()))
    with torch.no_grad():
        grid = feature_map(encoder.eval(), torch.zeros(1, *shape, device=weight.device))[1]
    encoder.train(training)
    return grid.shape[1], grid.shape[2], grid.shape[3]
