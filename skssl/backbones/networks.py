"""Networks by name: skssl's own, torchvision's and timm's."""

from __future__ import annotations

import contextlib
import difflib
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

from sklearn.utils._param_validation import InvalidParameterError
from torch import Tensor, nn

from skssl.backbones.vit import SIZES, vit_named
from skssl.nn.heads import MLP

SMALL = 64  # largest side, in pixels, of images that get the stems and presets of CIFAR rather than ImageNet
NAMES = (
    "'convnet', 'convnet_2x', 'vit_micro', 'vit_tiny', 'vit_small', 'vit_base', 'alexnet_bn', 'audio_convnet', "
    "torchvision's classification networks ('resnet18', …), SimCLR's ('resnet50_2x', 'resnet50_sk', "
    "'resnet152_3x_sk', …) and timm's ('timm:resnet26d')"
)


class ConvNet(nn.Module):
    """Small encoder for CPUs: four 3x3 convolutions with BatchNorm and ReLU, then global average pooling.

    Parameters
    ----------
    in_channels : int, default=3
        Channels of the images.
    width : int, default=1
        Multiple of all channels: 2 is the network "convnet_2x".

    Attributes
    ----------
    features : torch.nn.Sequential
        The convolutions, with 16, 32, 64 and 128 channels times `width`, and strides 1, 2, 2 and 2.
    avgpool : torch.nn.AdaptiveAvgPool2d
        The pooling of the last map.

    Examples
    --------
    >>> import torch
    >>> from skssl.backbones import ConvNet
    >>> ConvNet(in_channels=1)(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 128])
    """

    def __init__(self, in_channels: int = 3, width: int = 1) -> None:
        super().__init__()
        widths = (in_channels, *(width * channels for channels in (16, 32, 64, 128)))
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
        Tensor of shape (n, 128 width)
            Features.
        """
        return self.avgpool(self.features(images)).flatten(1)


class AudioConvNet(nn.Module):
    """Small encoder of log-spectrograms: four strided convolutions with BatchNorm and ReLU, then pooling over time.

    The pooling keeps four ranges of frequencies apart, because global pooling would hide the pitch.

    Parameters
    ----------
    in_channels : int, default=1
        Channels of the spectrograms.

    Attributes
    ----------
    features : torch.nn.Sequential
        The convolutions, with 16, 32, 64 and 128 channels. Their strides in frequency are 2, and in time 4, 2, 2 and 2.
    avgpool : torch.nn.AdaptiveAvgPool2d
        The pooling of the last map to 4 rows and 1 column.

    Examples
    --------
    >>> import torch
    >>> from skssl.backbones import AudioConvNet
    >>> AudioConvNet()(torch.zeros(5, 1, 65, 61)).shape  # (n, 1, bands, windows)
    torch.Size([5, 512])
    """

    def __init__(self, in_channels: int = 1) -> None:
        super().__init__()
        widths = (in_channels, 16, 32, 64, 128)
        layers: list[nn.Module] = []
        for (n_in, n_out), stride in zip(itertools.pairwise(widths), (4, 2, 2, 2), strict=True):
            layers += [nn.Conv2d(n_in, n_out, (3, stride + 1), (2, stride), padding=(1, stride // 2), bias=False)]
            layers += [nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((4, 1))

    def forward(self, spectrograms: Tensor) -> Tensor:
        """Encode spectrograms.

        Parameters
        ----------
        spectrograms : Tensor of shape (n, c, bands, windows)
            Log-spectrograms.

        Returns
        -------
        Tensor of shape (n, 512)
            Features.
        """
        return self.avgpool(self.features(spectrograms)).flatten(1)


def _alexnet_bn() -> nn.Module:
    """Build torchvision's AlexNet with BatchNorm after every layer, and without dropout."""
    import torchvision

    net = torchvision.models.alexnet(weights=None)
    layers: list[nn.Module] = []
    for layer in net.get_submodule("features").children():
        layers += [layer, nn.BatchNorm2d(layer.out_channels)] if isinstance(layer, nn.Conv2d) else [layer]
    net.features = nn.Sequential(*layers)
    head = MLP((256 * 6**2, 4096, 4096), output_norm=True, output_affine=True)
    net.classifier = head.append(nn.ReLU(inplace=True))  # torchvision's name; it outputs features here
    return net


def _torchvision(name: str, height: int, width: int) -> nn.Module:
    """Build a network of torchvision, untrained; ResNets for small images get a 3x3 stem without max-pooling."""
    import torchvision

    resnet = name.startswith(("resnet", "resnext", "wide_resnet"))
    settings: dict[str, Any] = {}
    if resnet:
        settings["zero_init_residual"] = True
    elif name in ("googlenet", "inception_v3"):
        settings |= {"aux_logits": False, "init_weights": True}
    elif name.startswith("maxvit"):
        settings["input_size"] = (height, width)
    net = torchvision.models.get_model(name, weights=None, **settings)
    if resnet and max(height, width) <= SMALL:
        net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
        net.maxpool = nn.Identity()
    return net


def _timm(name: str, channels: int, height: int, width: int) -> nn.Module:
    """Build a network of timm, untrained and without a classifier, for images of a shape."""
    try:
        import timm
    except ImportError as error:
        raise ImportError(f"backbone 'timm:{name}' needs timm: pip install 'skssl[timm]'.") from error
    if name not in (names := timm.list_models()):
        raise InvalidParameterError(_unknown(f"timm:{name}", [f"timm:{known}" for known in names]))
    make = partial(timm.create_model, name, pretrained=False, num_classes=0, in_chans=channels)
    size = height if height == width else (height, width)
    # Vision transformers take all three, other transformers the size alone, and most convolutional networks none.
    whole: dict[str, Any] = {"img_size": size, "dynamic_img_size": True, "dynamic_img_pad": True}
    for settings in (whole, {"img_size": size}):
        with contextlib.suppress(TypeError):
            return make(**settings)
    return make()


OWN: dict[str, Callable[[], nn.Module]] = {
    "alexnet_bn": _alexnet_bn,
    "audio_convnet": AudioConvNet,
    "convnet": ConvNet,
    **{f"convnet_{width}x": partial(ConvNet, width=width) for width in (2, 3, 4)},
}


def build_network(name: str, shape: tuple[int, int, int]) -> nn.Module:
    """Build an untrained network by name.

    Parameters
    ----------
    name : str
        "convnet", "alexnet_bn", "audio_convnet", "vit_" and a size of `ViT`, a classification network of torchvision, a
        `WideResNet` such as "resnet50_2x" or "resnet152_3x_sk", or "timm:" and a network of timm.
    shape : tuple of int
        Channels, height and width of the images. Networks that are made for one size are made for this one.

    Returns
    -------
    torch.nn.Module
        The network. torchvision's have their classifiers, and read three channels.

    Raises
    ------
    InvalidParameterError
        If the name is unknown.
    ImportError
        If the name is one of timm's, and timm is not installed.

    Examples
    --------
    >>> from skssl.backbones.networks import build_network
    >>> build_network("resnet34", (3, 32, 32)).maxpool
    Identity()
    """
    import torchvision

    if name in OWN:
        return OWN[name]()
    if name.startswith("timm:"):
        return _timm(name.removeprefix("timm:"), *shape)
    if name.startswith("resnet"):
        from skssl.backbones.wide_resnets import wide_resnet_named

        if (net := wide_resnet_named(name, small=max(shape[1:]) <= SMALL)) is not None:
            return net
    known = torchvision.models.list_models(module=torchvision.models)
    vits = [f"vit_{size}" for size in SIZES]
    if name not in (*vits, *known):
        raise InvalidParameterError(_unknown(name, [*OWN, *vits, *known]))
    if (vit := vit_named(name)) is not None:
        return vit.build(*shape[1:], small=SMALL)
    return _torchvision(name, *shape[1:])


def _unknown(name: str, known: list[str]) -> str:
    """Return the message for an unknown name, with the nearest known one."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f", did you mean {near[0]!r}?" if near else "."
    return f"Unknown backbone {name!r}{hint} Known are {NAMES}."
