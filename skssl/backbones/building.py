"""Encoders, by name or from any torch module, which map images to features."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from skssl.errors import pick
from skssl.nn.heads import MLP

SMALL = 64  # largest side, in pixels, of images that get the stems and presets of CIFAR rather than ImageNet


class ConvNet(nn.Module):
    """Small encoder for CPUs: four 3x3 convolutions with BatchNorm and ReLU, then global average pooling.

    Parameters
    ----------
    in_channels : int, default=3
        Channels of the images.

    Attributes
    ----------
    features : torch.nn.Sequential
        The convolutions, with 16, 32, 64 and 128 channels and strides 1, 2, 2 and 2.
    avgpool : torch.nn.AdaptiveAvgPool2d
        The pooling of the last map.

    Examples
    --------
    >>> import torch
    >>> from skssl.backbones import ConvNet
    >>> ConvNet(in_channels=1)(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 128])
    """

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        widths = (in_channels, 16, 32, 64, 128)
        layers: list[nn.Module] = []
        for (n_in, n_out), stride in zip(itertools.pairwise(widths), (1, 2, 2, 2), strict=True):
            layers += [nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Parameters
        ----------
        images : Tensor of shape (n, c, h, w)
            Images.

        Returns
        -------
        Tensor of shape (n, 128)
            Features.
        """
        return self.avgpool(self.features(images)).flatten(1)


class Pooled(nn.Module):
    """Global average pooling of the map that a network outputs."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.avgpool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images (n, c, h, w) as features (n, d)."""
        return self.avgpool(self.body(images)).flatten(1)


def _resnet(name: str) -> Callable[[int], nn.Module]:
    """Return a function that builds torchvision's ResNet; small images get a 3x3 stem without max-pooling."""

    def make(side: int) -> nn.Module:
        import torchvision

        net = torchvision.models.get_model(name, weights=None, zero_init_residual=True)
        if side <= SMALL:
            net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
            net.maxpool = nn.Identity()
        return net

    return make


def _alexnet(side: int) -> nn.Module:
    import torchvision

    return torchvision.models.alexnet(weights=None)


def _alexnet_bn(side: int) -> nn.Module:
    """Build torchvision's AlexNet with BatchNorm after every layer, and without dropout."""
    net = _alexnet(side)
    layers: list[nn.Module] = []
    for layer in net.get_submodule("features").children():
        layers += [layer, nn.BatchNorm2d(layer.out_channels)] if isinstance(layer, nn.Conv2d) else [layer]
    net.features = nn.Sequential(*layers)
    head = MLP((256 * 6**2, 4096, 4096), output_norm=True, output_affine=True)
    net.classifier = head.append(nn.ReLU(inplace=True))  # torchvision's name; it outputs features here
    return net


BACKBONES: dict[str, Callable[[int], nn.Module]] = {
    "resnet18": _resnet("resnet18"),
    "resnet50": _resnet("resnet50"),
    "alexnet": _alexnet,
    "alexnet_bn": _alexnet_bn,
    "convnet": lambda side: ConvNet(),
}


def _drop_classifier(net: nn.Module) -> None:
    """Replace the final linear layer of a torchvision or timm network by the identity."""
    for name in ("fc", "classifier", "heads", "head"):
        child = getattr(net, name, None)
        if isinstance(child, nn.Linear):
            setattr(net, name, nn.Identity())
        elif isinstance(child, nn.Sequential) and len(child) and isinstance(child[-1], nn.Linear):
            child[-1] = nn.Identity()


def adapt_channels(net: nn.Module, channels: int) -> None:
    """Adapt the first convolution to a number of input channels; its kernels are averaged, then repeated."""
    first = next((module for module in net.modules() if isinstance(module, nn.Conv2d)), None)
    if first is not None and first.in_channels != channels and first.groups == 1:
        kernel = first.weight.data.mean(1, keepdim=True) * (first.in_channels / channels)
        first.weight = nn.Parameter(kernel.repeat(1, channels, 1, 1))
        first.in_channels = channels


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
        start at the child of that name. Each ends before the next starts.

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
    for name, child in getattr(encoder, "features", encoder).named_children():
        if isinstance(child, nn.Conv2d):
            convolutions += 1
            found[f"conv{convolutions}"] = []
        elif name.startswith("layer"):
            found[name] = []
        if found:
            found[next(reversed(found))].append(child)
    return found


def build_backbone(
    backbone: str | nn.Module | Callable[[], nn.Module], shape: tuple[int, int, int]
) -> tuple[nn.Module, int]:
    """Build an encoder for images of a shape.

    Parameters
    ----------
    backbone : {"resnet18", "resnet50", "alexnet", "alexnet_bn", "convnet"}, torch.nn.Module or callable
        A name, a module, which is copied with its weights, or a callable that returns a module. A final linear
        classifier (``fc``, ``classifier``, ``head`` or ``heads``) is removed, and a final map is pooled. "alexnet_bn"
        is the AlexNet of RotNet and rotation feature decoupling: BatchNorm follows every layer, without dropout.
    shape : tuple of int
        Channels, height and width of the images. The first convolution is adapted to the channels. ResNets by name
        get a 3x3 stem without max-pooling where the longer side is at most 64 pixels. Their residual blocks start as
        the identity (a gain of 0 in the last BatchNorm), as in SimSiam, Barlow Twins and VICReg, but not in MoCo and
        SwAV.

    Returns
    -------
    encoder : torch.nn.Module
        The encoder, which maps images (n, c, h, w) to features (n, d), in training mode.
    dim : int
        The width of the features, d.

    Raises
    ------
    ValueError
        If the name is unknown, or the network fails on images of this shape.
    TypeError
        If `backbone` is not a name, a module or a callable that returns a module.

    Examples
    --------
    >>> from skssl.backbones import build_backbone
    >>> encoder, dim = build_backbone("resnet18", (1, 28, 28))
    >>> dim, encoder.conv1
    (512, Conv2d(1, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False))
    """
    if isinstance(backbone, str):
        net = pick("backbone", backbone, BACKBONES)(max(shape[1:]))
    elif isinstance(backbone, nn.Module):
        net = copy.deepcopy(backbone)
    else:
        net = backbone() if callable(backbone) else backbone
    if not isinstance(net, nn.Module):
        raise TypeError(
            f"backbone must be one of {', '.join(map(repr, BACKBONES))}, a torch.nn.Module or a callable that returns "
            f"one. Got {backbone!r}."
        )
    _drop_classifier(net)
    adapt_channels(net, shape[0])
    net.eval()
    weight = next(net.parameters(), torch.zeros(()))
    try:
        with torch.no_grad():
            features = net(torch.zeros(2, *shape, device=weight.device))
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"backbone {backbone!r} cannot read images of shape (channels, height, width) = {shape}: {error}"
        ) from error
    if features.ndim == 4:
        net, features = Pooled(net), features.mean((2, 3))
    if features.ndim != 2:
        raise ValueError(
            f"backbone must map images to features (n, d) or maps (n, d, h, w). Got shape {tuple(features.shape)} "
            "for n = 2."
        )
    return net.train(), features.shape[1]


def feature_map(encoder: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Encode images, and return the features and the map before pooling.

    Parameters
    ----------
    encoder : torch.nn.Module
        An encoder of `build_backbone`. Its last ``nn.AdaptiveAvgPool2d`` is the pooling, as in torchvision's networks
        (in AlexNet, layers follow it) and in networks whose output is a map.
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
        If the encoder has no ``nn.AdaptiveAvgPool2d``.

    Examples
    --------
    >>> import torch
    >>> from skssl.backbones import ConvNet, feature_map
    >>> features, grid = feature_map(ConvNet(), torch.zeros(5, 3, 32, 32))
    >>> features.shape, grid.shape
    (torch.Size([5, 128]), torch.Size([5, 128, 4, 4]))
    """
    pools = [module for module in encoder.modules() if isinstance(module, nn.AdaptiveAvgPool2d)]
    if not pools:
        raise ValueError(
            "This method needs the backbone's map: backbone must pool its last map by an nn.AdaptiveAvgPool2d, or "
            f"return a map (n, d, h, w). Got {type(encoder).__name__}, which has no nn.AdaptiveAvgPool2d."
        )
    grids: list[Tensor] = []
    pool, hooks = pools[-1], pools[-1]._forward_pre_hooks
    # Not register_forward_pre_hook, which torch.compile cannot trace.
    pool._forward_pre_hooks = {**hooks, -1: lambda module, inputs: grids.append(inputs[0])}
    try:
        features = encoder(images)
    finally:
        pool._forward_pre_hooks = hooks
    return features, grids[-1]


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
    training, weight = encoder.training, next(encoder.parameters(), torch.zeros(()))
    with torch.no_grad():
        grid = feature_map(encoder.eval(), torch.zeros(1, *shape, device=weight.device))[1]
    encoder.train(training)
    return grid.shape[1]
