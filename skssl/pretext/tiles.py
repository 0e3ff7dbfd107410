"""Tiles of images: cutting, normalising and encoding them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.nn.precision import autocast_for


def cut_tiles(images: Tensor, grid: int, share: float = 0.75) -> Tensor:
    """Cut every image into a grid of cells, and a tile from a random position in each cell.

    The gaps between tiles prevent a network from following lines and colours across their borders.

    Parameters
    ----------
    images : Tensor of shape (n, c, h, w)
        Images. Images with fewer than two pixels per cell and side are enlarged first, by repeating pixels.
    grid : int
        Number of tiles per side. The cells are as large as possible, and the position of the grid is random.
    share : float, default=0.75
        Side of a tile relative to the side of its cell; the result is rounded.

    Returns
    -------
    Tensor of shape (n, grid * grid, c, side, side)
        The tiles in row-major order. Their positions are drawn from torch's global generator.

    Examples
    --------
    >>> import torch
    >>> from skssl.pretext.tiles import cut_tiles
    >>> cut_tiles(torch.zeros(5, 3, 32, 32), grid=3).shape
    torch.Size([5, 9, 3, 8, 8])
    """
    times = -(-2 * grid // min(images.shape[2:]))
    if times > 1:
        images = images.repeat_interleave(times, 2).repeat_interleave(times, 3)
    n, c, h, w = images.shape
    device = images.device
    side = max(1, round(share * (min(h, w) // grid)))

    def places(length: int) -> Tensor:
        """Return the pixels of each tile along an axis: (n, grid, grid, side)."""
        cell = length // grid
        origin = torch.randint(length - grid * cell + 1, (n, 1, 1, 1), device=device)
        within = torch.randint(cell - side + 1, (n, grid, grid, 1), device=device)
        return origin + within + torch.arange(side, device=device)

    steps = torch.arange(grid, device=device)
    rows = places(h) + steps.view(grid, 1, 1) * (h // grid)
    columns = places(w) + steps.view(grid, 1) * (w // grid)
    pixel = (rows[..., :, None] * w + columns[..., None, :]).view(n, 1, -1)  # (n, 1, grid * grid * side * side)
    tiles = images.reshape(n, c, h * w).gather(2, pixel.expand(n, c, -1))
    return tiles.view(n, c, grid * grid, side, side).transpose(1, 2)


def normalize_tiles(tiles: Tensor) -> Tensor:
    """Standardise every channel of every tile; constant channels become 0.

    Parameters
    ----------
    tiles : Tensor of shape (n, tiles, c, h, w)
        Tiles.

    Returns
    -------
    Tensor of shape (n, tiles, c, h, w)
        The normalised tiles.

    Examples
    --------
    >>> import torch
    >>> from skssl.pretext.tiles import normalize_tiles
    >>> normalize_tiles(torch.tensor([[[[[1.0, 5.0]]]]])).flatten()
    tensor([-1.,  1.])
    """
    deviation, mean = torch.std_mean(tiles, (3, 4), correction=0, keepdim=True)
    return (tiles - mean) / deviation.masked_fill(deviation < 1e-6, 1.0)


def encode_tiles(encoder: nn.Module, tiles: Tensor, size: int | None = None) -> Tensor:
    """Encode all tiles in one pass.

    Parameters
    ----------
    encoder : torch.nn.Module
        The encoder.
    tiles : Tensor of shape (n, tiles, c, h, w)
        Tiles.
    size : int, default=None
        Side in pixels to which tiles are resized first. None keeps their size.

    Returns
    -------
    Tensor of shape (n, tiles, d)
        Features of the tiles.

    Examples
    --------
    >>> import torch
    >>> from skssl.backbones import ConvNet
    >>> from skssl.pretext.tiles import encode_tiles
    >>> encode_tiles(ConvNet(), torch.zeros(2, 9, 3, 8, 8)).shape
    torch.Size([2, 9, 128])
    """
    flat = tiles.flatten(0, 1)
    if size is not None:
        flat = F.interpolate(flat, size=(size, size), mode="bilinear", antialias=True)
    with autocast_for(flat):  # tiles may be too small for bfloat16 on a CPU
        features = encoder(flat.contiguous(memory_format=torch.channels_last))
    return features.view(*tiles.shape[:2], -1)
