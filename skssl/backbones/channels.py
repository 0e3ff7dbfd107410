"""First convolutions for other numbers of channels."""

from __future__ import annotations

from torch import Tensor, nn


def adapt_kernels(weight: Tensor, channels: int) -> Tensor:
    """Adapt the kernels of a convolution to a number of input channels, and keep what they have learned.

    Parameters
    ----------
    weight : Tensor of shape (n_out, n_in, h, w)
        The kernels.
    channels : int
        The number of input channels.

    Returns
    -------
    Tensor of shape (n_out, channels, h, w)
        The kernels, repeated over the channels (of RGB: R, G, B, R, …) and scaled by n_in / channels, as in timm. Their
        sum for one channel, which then acts as if the channel were repeated.

    Examples
    --------
    >>> import torch
    >>> from skssl.backbones.channels import adapt_kernels
    >>> adapt_kernels(torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1), 4).flatten()
    tensor([0.7500, 1.5000, 2.2500, 0.7500])
    """
    n_in = weight.shape[1]
    if channels == 1:
        return weight.mean(1, keepdim=True) * n_in
    return weight.repeat(1, -(-channels // n_in), 1, 1)[:, :channels] * (n_in / channels)


def adapt_channels(net: nn.Module, channels: int) -> None:
    """Adapt the first convolution to a number of input channels, see `adapt_kernels`.

    Parameters
    ----------
    net : torch.nn.Module
        The network, which is changed.
    channels : int
        The number of input channels.
    """
    first = next((module for module in net.modules() if isinstance(module, nn.Conv2d)), None)
    if first is not None:
        adapt_convolution(first, channels)


def adapt_convolution(convolution: nn.Conv2d, channels: int) -> None:
    """Adapt a convolution, unless it has groups, to a number of input channels.

    Parameters
    ----------
    convolution : torch.nn.Conv2d
        The convolution, which is changed.
    channels : int
        The number of input channels.
    """
    if convolution.in_channels != channels and convolution.groups == 1:
        weight = convolution.weight
        convolution.weight = nn.Parameter(adapt_kernels(weight.detach(), channels), requires_grad=weight.requires_grad)
        convolution.in_channels = channels
