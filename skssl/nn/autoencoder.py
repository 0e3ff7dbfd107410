"""A convolutional autoencoder whose code is a map, and layers that repair its decoder's maps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Autoencoder(nn.Module):
    """Convolutional autoencoder: each layer halves the sides of the map and doubles its channels, and back.

    Parameters
    ----------
    channels : int
        Channels of the images.
    width : int
        Channels of the first map.
    depth : int
        Number of halvings. The code has ``width * 2**depth`` channels.

    References
    ----------
    Jenni and Favaro, Self-Supervised Feature Learning by Learning to Spot Artifacts, CVPR 2018, and its code: strided
    2x2 convolutions, bilinear upsampling and 3x3 convolutions, each with BatchNorm and LeakyReLU.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.autoencoder import Autoencoder
    >>> net, images = Autoencoder(3, width=8, depth=2), torch.zeros(4, 3, 10, 16)
    >>> net.encode(images).shape, net(images).shape
    (torch.Size([4, 32, 3, 4]), torch.Size([4, 3, 10, 16]))
    """

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.widths = [int(width) * 2**i for i in range(int(depth) + 1)]
        self.first = _layer(channels, self.widths[0], 3)
        pairs = list(zip(self.widths, self.widths[1:], strict=False))
        self.down = nn.ModuleList(_layer(n_in, n_out, 2, stride=2) for n_in, n_out in pairs)
        self.up = nn.ModuleList(_layer(n_in, n_out, 3) for n_out, n_in in reversed(pairs))
        self.last = nn.Conv2d(self.widths[0], channels, 3, padding=1)

    def encode(self, images: Tensor) -> Tensor:
        """Encode images.

        Parameters
        ----------
        images : Tensor of shape (n, c, h, w)
            The images.

        Returns
        -------
        Tensor of shape (n, width * 2**depth, h', w')
            The code. Its sides are those of the images over 2**depth, rounded up.
        """
        x = self.first(images)
        for layer in self.down:
            x = layer(F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)))
        return x

    def decode(
        self, code: Tensor, size: Iterable[int], repair: nn.ModuleList | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Decode a code.

        Parameters
        ----------
        code : Tensor of shape (n, width * 2**depth, h', w')
            The code.
        size : iterable of int
            Height and width of the images.
        repair : torch.nn.ModuleList, default=None
            Modules that change the maps of (n, c, h, w), from the code on, given a mask (n, 1, h, w).
        mask : Tensor of shape (n, 1, h', w'), default=None
            The mask, which is upsampled to the size of each map.

        Returns
        -------
        Tensor of shape (n, c, h, w)
            The images.
        """
        sides = [tuple(-(-side // 2**i) for side in size) for i in range(len(self.up))]
        x = code if repair is None else repair[0](code, mask)
        for i, (layer, side) in enumerate(zip(self.up, reversed(sides), strict=True), 1):
            x = layer(F.interpolate(x, side, mode="bilinear"))
            if repair is not None and mask is not None:
                x = repair[i](x, F.interpolate(mask, side))
        return self.last(x)

    def forward(self, images: Tensor) -> Tensor:
        """Encode and decode images, (n, c, h, w)."""
        return self.decode(self.encode(images), images.shape[2:])


class Repair(nn.Module):
    """Add a residual to the entries of a map that a mask does not keep.

    Parameters
    ----------
    width : int
        Channels of the map.

    References
    ----------
    Jenni and Favaro, CVPR 2018, and its code: two 3x3 convolutions of the map and the mask.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.autoencoder import Repair
    >>> grid, kept = torch.zeros(2, 5, 4, 4), torch.ones(2, 1, 4, 4)
    >>> torch.equal(Repair(5)(grid, kept), grid)
    True
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        first = [nn.Conv2d(width + 1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.residual = nn.Sequential(*first, nn.Conv2d(width, width, 3, padding=1))

    def forward(self, grid: Tensor, mask: Tensor) -> Tensor:
        """Repair a map.

        Parameters
        ----------
        grid : Tensor of shape (n, width, h, w)
            The map.
        mask : Tensor of shape (n, 1, h, w)
            1 where the map is kept, 0 where it is repaired.

        Returns
        -------
        Tensor of shape (n, width, h, w)
            The repaired map.
        """
        return grid + (1 - mask) * self.residual(torch.cat([grid, mask], 1))


def _layer(n_in: int, n_out: int, side: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution, BatchNorm and LeakyReLU. Convolutions without stride keep the size."""
    convolution = nn.Conv2d(n_in, n_out, side, stride, padding=0 if stride > 1 else side // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(n_out), nn.LeakyReLU(0.1, inplace=True))
