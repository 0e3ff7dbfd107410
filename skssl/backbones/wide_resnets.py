"""The wide ResNets of SimCLR and SimCLRv2, also with selective kernels."""

from __future__ import annotations

import re

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
NAME = re.compile(r"resnet(50|101|152)(?:_([234])x)?(_sk)?")


class SelectiveKernel(nn.Module):
    """Two 3x3 convolutions whose outputs are mixed, channel by channel, by weights that depend on the image.

    Parameters
    ----------
    channels : int
        Channels of the input and of the output.
    stride : int, default=1
        The stride of the convolutions.

    References
    ----------
    Li et al., Selective Kernel Networks, CVPR 2019, in the form of SimCLRv2's code: both kernels are 3x3, and the
    weights come from an MLP with a hidden layer of a sixteenth of the channels, at least 32.

    Examples
    --------
    >>> import torch
    >>> from skssl.backbones.wide_resnets import SelectiveKernel
    >>> SelectiveKernel(64, stride=2)(torch.zeros(2, 64, 8, 8)).shape
    torch.Size([2, 64, 4, 4])
    """

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        hidden = max(channels // 16, 32)
        self.paths = nn.Sequential(*_convolution(channels, 2 * channels, 3, stride), nn.ReLU(inplace=True))
        self.mixing = nn.Sequential(
            *_convolution(channels, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, 2 * channels, 1, bias=False)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve maps.

        Parameters
        ----------
        maps : Tensor of shape (n, channels, h, w)
            The input.

        Returns
        -------
        Tensor of shape (n, channels, h / stride, w / stride)
            The mixture.
        """
        paths = self.paths(maps).unflatten(1, (2, -1))  # (n, 2, c, h, w)
        means = paths.sum(1).mean((2, 3), keepdim=True)  # (n, c, 1, 1)
        return (paths * self.mixing(means).unflatten(1, (2, -1)).softmax(1)).sum(1)


class WideResNet(ResNet):
    """A ResNet of SimCLR: all of its layers are wider, and it may have selective kernels.

    It differs from torchvision's "wide_resnet50_2", whose 3x3 convolutions alone are wider. The keys of its
    ``state_dict`` are torchvision's if there are no selective kernels. With them, the network has the stem of three 3x3
    convolutions and the average pooling in the shortcuts of ResNet-D, as in SimCLRv2.

    Parameters
    ----------
    depth : {50, 101, 152}
        Number of layers.
    width : int, default=1
        Factor of the numbers of channels.
    selective : bool, default=False
        Whether the 3x3 convolutions are selective kernels.
    small : bool, default=False
        Whether the stem is a 3x3 convolution without pooling, for small images.

    References
    ----------
    Chen et al., Big Self-Supervised Models are Strong Semi-Supervised Learners (SimCLRv2), NeurIPS 2020, and its code.
    The initial weights and the padding of the max-pooling are torchvision's.

    Examples
    --------
    >>> import torch
    >>> from skssl.backbones.wide_resnets import WideResNet
    >>> WideResNet(50, width=2, selective=True).eval()(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 4096])
    """

    def __init__(self, depth: int, width: int = 1, selective: bool = False, small: bool = False) -> None:
        nn.Module.__init__(self)  # torchvision's would make layers of the usual width
        n = 64 * width
        if small:
            stem = _convolution(3, n, 3)
        elif selective:
            first, second = _convolution(3, n // 2, 3, 2), _convolution(n // 2, n // 2, 3)
            stem = [*first, nn.ReLU(inplace=True), *second, nn.ReLU(inplace=True), *_convolution(n // 2, n, 3)]
        else:
            stem = _convolution(3, n, 7, 2)
        *convolutions, self.bn1 = stem
        self.conv1 = convolutions[0] if len(convolutions) == 1 else nn.Sequential(*convolutions)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, padding=1)
        channels = n
        for k, n_blocks in enumerate(BLOCKS[depth]):
            blocks = []
            for i in range(n_blocks):
                blocks.append(_block(channels, n << k, 2 if k and not i else 1, i == 0, selective))
                channels = 4 * n << k
            setattr(self, f"layer{k + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)


def _convolution(n_in: int, n_out: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """Return a convolution and its BatchNorm."""
    return [nn.Conv2d(n_in, n_out, kernel, stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(n_out)]


def _block(n_in: int, n: int, stride: int, projects: bool, selective: bool) -> Bottleneck:
    """Return a block with n channels within and 4 n channels out."""
    shortcut: list[nn.Module] = []
    if projects and selective:  # a mean of 2x2 pixels, also for a stride of 1
        shortcut = [nn.ReplicationPad2d((0, 1, 0, 1)), nn.AvgPool2d(2, stride), *_convolution(n_in, 4 * n, 1)]
    elif projects:
        shortcut = _convolution(n_in, 4 * n, 1, stride)
    block = Bottleneck(n_in, n, stride, nn.Sequential(*shortcut) if shortcut else None)
    if selective:
        block.conv2, block.bn2 = SelectiveKernel(n, stride), nn.Identity()
    return block


def wide_resnet_named(name: str, small: bool) -> WideResNet | None:
    """Build the network of a name, such as "resnet50_2x" or "resnet152_3x_sk".

    Parameters
    ----------
    name : str
        "resnet", the depth, and a width of 2 to 4, "_sk" for selective kernels, or both.
    small : bool
        Whether the images are small.

    Returns
    -------
    WideResNet or None
        The network; None for other names.

    Examples
    --------
    >>> from skssl.backbones.wide_resnets import wide_resnet_named
    >>> wide_resnet_named("resnet50", small=False) is None
    True
    """
    found = NAME.fullmatch(name)
    if found is None or not (found[2] or found[3]):
        return None
    return WideResNet(int(found[1]), int(found[2] or 1), bool(found[3]), small)
