"""Encoders by name, and any torch module as an encoder: from images to one row of features each."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from skssl.augment import SMALL
from skssl.errors import pick


class ConvNet(nn.Module):
    """The encoder for a CPU: four 3x3 convolutions with BatchNorm and ReLU, then global average pooling.

    Parameters
    ----------
    in_channels : int, default=3
        Channels of the images.

    Attributes
    ----------
    features : torch.nn.Sequential
        From images (n, c, h, w) to maps of 16, 32, 64 and in the end 128 channels, at strides 1, 2, 2, 2.

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
        return self.features(images).mean((2, 3))


class Pooled(nn.Module):
    """A network that ends in a map, followed by global average pooling."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        """Encode images (n, c, h, w) as features (n, d)."""
        return self.body(images).mean((2, 3))


def _resnet(name: str) -> Callable[[int], nn.Module]:
    """Make torchvision's ResNet; small images get a 3x3 stem of stride 1 without max-pooling."""

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


BACKBONES: dict[str, Callable[[int], nn.Module]] = {
    "resnet18": _resnet("resnet18"),
    "resnet50": _resnet("resnet50"),
    "alexnet": _alexnet,
    "convnet": lambda side: ConvNet(),
}


def _drop_classifier(net: nn.Module) -> None:
    """Replace the linear layer that ends a network of torchvision or timm by the identity."""
    for name in ("fc", "classifier", "heads", "head"):
        child = getattr(net, name, None)
        if isinstance(child, nn.Linear):
            setattr(net, name, nn.Identity())
        elif isinstance(child, nn.Sequential) and len(child) and isinstance(child[-1], nn.Linear):
            child[-1] = nn.Identity()


def adapt_channels(net: nn.Module, channels: int) -> None:
    """Let the first convolution read another number of channels: its kernels are averaged, then repeated."""
    first = next((module for module in net.modules() if isinstance(module, nn.Conv2d)), None)
    if first is not None and first.in_channels != channels and first.groups == 1:
        kernel = first.weight.data.mean(1, keepdim=True) * (first.in_channels / channels)
        first.weight = nn.Parameter(kernel.repeat(1, channels, 1, 1))
        first.in_channels = channels


def build_backbone(
    backbone: str | nn.Module | Callable[[], nn.Module], shape: tuple[int, int, int]
) -> tuple[nn.Module, int]:
    """Make an encoder for images of a shape.

    Parameters
    ----------
    backbone : {"resnet18", "resnet50", "alexnet", "convnet"}, torch.nn.Module or callable
        A name; a module, which is copied, weights and all; or a callable that makes one. A linear classifier at its
        end (``fc``, ``classifier``, ``head`` or ``heads``) is dropped, and a map at its end is pooled.
    shape : tuple of int
        Channels, height and width of the images. The first convolution is adapted to the channels; ResNets by name
        get a 3x3 stem without max-pooling where the longer side is up to 64 pixels.

    Returns
    -------
    encoder : torch.nn.Module
        From images (n, c, h, w) to features (n, d), in training mode.
    dim : int
        d.

    Raises
    ------
    ValueError
        If the name is unknown or the network cannot read such images.
    TypeError
        If it is neither a name nor a module nor a callable that makes one.

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
            f"backbone must be one of {', '.join(map(repr, BACKBONES))}, a torch.nn.Module or a callable that makes "
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
