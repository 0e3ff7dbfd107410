"""Random masks of patches, and the tokens at given places."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def random_order(n: int, length: int, device: torch.device) -> Tensor:
    """Draw a random order of patches for each image.

    Parameters
    ----------
    n, length : int
        Number of images, and of patches of each image.
    device : torch.device
        Device of the result.

    Returns
    -------
    int64 Tensor of shape (n, length)
        Permutations of the patches, drawn from torch's global generator.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.masking import random_order
    >>> random_order(3, 4, torch.device("cpu")).sort(1).values[2]
    tensor([0, 1, 2, 3])
    """
    return torch.rand(n, length, device=device).argsort(1)


def random_mask(n: int, height: int, width: int, ratio: float, device: torch.device) -> Tensor:
    """Draw the masked cells of a grid for each image, the same number in each.

    Parameters
    ----------
    n, height, width : int
        Number of images, and of rows and columns of the grid.
    ratio : float
        Share of the cells that are masked. Their number is rounded up.
    device : torch.device
        Device of the result.

    Returns
    -------
    bool Tensor of shape (n, height, width)
        True in masked cells.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.masking import random_mask
    >>> random_mask(3, 4, 4, 0.6, torch.device("cpu")).sum((1, 2))
    tensor([10, 10, 10])
    """
    masked = random_order(n, height * width, device)[:, : math.ceil(height * width * ratio)]
    return torch.zeros(n, height * width, dtype=torch.bool, device=device).scatter(1, masked, True).view(n, height, -1)


def enlarge_mask(mask: Tensor, scale: int, height: int, width: int) -> Tensor:
    """Enlarge each cell of masks to a square, and crop the result.

    Parameters
    ----------
    mask : Tensor of shape (n, h, w)
        Masks.
    scale : int
        Side of the square.
    height, width : int
        Sides of the result, at most ``h * scale`` and ``w * scale``.

    Returns
    -------
    Tensor of shape (n, height, width)
        The masks.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.masking import enlarge_mask
    >>> enlarge_mask(torch.tensor([[[1, 2]]]), 2, 2, 3)
    tensor([[[1, 1, 2],
             [1, 1, 2]]])
    """
    large = mask[:, :, None, :, None].expand(-1, -1, scale, -1, scale).flatten(3).flatten(1, 2)
    return large[:, :height, :width]


def block_size(grid: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return the rows and columns of a nearly square block.

    Parameters
    ----------
    grid : tuple of int
        Rows and columns of the grid.
    scale : float
        Area of the block as a share of the grid.

    Returns
    -------
    tuple of int
        Rows and columns, from 1 to one less than those of the grid if it has more than one.

    Examples
    --------
    >>> from skssl.nn.masking import block_size
    >>> block_size((14, 14), 0.175), block_size((2, 8), 0.175)
    ((6, 6), (1, 2))
    """
    side = math.sqrt(grid[0] * grid[1] * scale)
    rows, columns = (min(max(1, round(side)), max(1, whole - 1)) for whole in grid)
    return rows, columns


def random_blocks(n: int, n_blocks: int, grid: tuple[int, int], sides: tuple[int, int], device: torch.device) -> Tensor:
    """Draw the places of blocks of patches for each image.

    Parameters
    ----------
    n, n_blocks : int
        Number of images, and of blocks of each image.
    grid, sides : tuple of int
        Rows and columns of the grid and of the blocks.
    device : torch.device
        Device of the result.

    Returns
    -------
    int64 Tensor of shape (n, n_blocks, sides[0] * sides[1])
        The indices of the patches of each block. Blocks may overlap.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.masking import random_blocks
    >>> random_blocks(1, 1, (3, 4), (3, 4), torch.device("cpu"))
    tensor([[[ 0,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11]]])
    """
    (height, width), (rows, columns) = grid, sides
    top = torch.randint(0, height - rows + 1, (n, n_blocks), device=device)[..., None, None]
    left = torch.randint(0, width - columns + 1, (n, n_blocks), device=device)[..., None, None]
    inside = torch.arange(rows, device=device)[:, None] * width + torch.arange(columns, device=device)
    return (top * width + left + inside).flatten(2)


def order_outside(blocks: Tensor, length: int) -> Tensor:
    """Draw an order of the patches of each image in which those outside of its blocks come first.

    Parameters
    ----------
    blocks : int64 Tensor of shape (n, k, b)
        The indices of the patches of each block.
    length : int
        The number of patches.

    Returns
    -------
    int64 Tensor of shape (n, length)
        The indices of the patches.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.masking import order_outside
    >>> order_outside(torch.tensor([[[0, 1]], [[1, 2]]]), 3)[:, 0]
    tensor([2, 0])
    """
    noise = torch.rand(len(blocks), length, device=blocks.device)
    inside = torch.zeros_like(noise).scatter(1, blocks.flatten(1), 1.0)
    return (noise + inside).argsort(1)


def take_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Return tokens by their indices.

    Parameters
    ----------
    tokens : Tensor of shape (n, l, d)
        Tokens of each image.
    index : int64 Tensor of shape (n, k)
        Indices in [0, l).

    Returns
    -------
    Tensor of shape (n, k, d)
        The tokens.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.masking import take_tokens
    >>> take_tokens(torch.arange(8.0).view(2, 4, 1), torch.tensor([[3, 0], [1, 1]])).flatten(1)
    tensor([[3., 0.],
            [5., 5.]])
    """
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[2]))
