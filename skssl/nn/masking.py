"""Random masks of patches, and the tokens at given places."""

from __future__ import annotations

import math

import torch
from torch import Tensor

N_RECTANGLES = 16  # attempts to mask a rectangle, about as many as iBOT's code makes
LARGEST_ASPECT = 1 / 0.3


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


def random_mask_sizes(
    shape: tuple[int, ...], n_patches: int, ratio: tuple[float, float], probability: float, device: torch.device
) -> tuple[Tensor, int]:
    """Draw how many patches are masked in each view. Their sum is always the same, so that steps have static shapes.

    Parameters
    ----------
    shape : tuple of int
        Shape of the result: how many views there are.
    n_patches : int
        Number of patches of a view.
    ratio : tuple of float
        The smallest and the largest share of masked patches. The shares are evenly spaced between them.
    probability : float
        Share of the views that have masked patches.
    device : torch.device
        Device of the result.

    Returns
    -------
    sizes : int64 Tensor of the given shape
        Number of masked patches of each view, at least 1 in views with masked patches.
    total : int
        Their sum.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.masking import random_mask_sizes
    >>> sizes, total = random_mask_sizes((10,), 20, (0.1, 0.5), 0.5, torch.device("cpu"))
    >>> sizes.sort().values, total
    (tensor([0, 0, 0, 0, 0, 2, 3, 5, 7, 9]), 26)
    """
    low, high = (max(1, int(n_patches * share)) for share in ratio)
    n_views = math.prod(shape)
    n_masked, span = max(1, round(n_views * probability)), high - low + 1
    rank = random_order(1, n_views, device).view(shape)
    sizes = torch.where(rank < n_masked, low + rank * span // n_masked, 0)
    return sizes, sum(low + i * span // n_masked for i in range(n_masked))


def random_block_mask(sizes: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mask patches of each view by rectangles of random places, sizes and aspect ratios.

    Each of 16 rectangles is kept if it fits in and masks no more patches than are missing. At last, patches drawn at
    random make up for what is missing, which is one in a hundred.

    Parameters
    ----------
    sizes : int64 Tensor of shape (...)
        Number of masked patches of each view.
    grid : tuple of int
        Rows and columns of the patches.

    Returns
    -------
    bool Tensor of shape (..., rows * columns)
        True in masked patches.

    References
    ----------
    Bao et al., BEiT: BERT Pre-Training of Image Transformers, ICLR 2022, algorithm 1, with the ranges of iBOT's code,
    whose aspect ratios are between 0.3 and 1 / 0.3. That code tries until ten rectangles in a row do not fit, and masks
    fewer patches then. DINOv3's code adds patches at random.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.masking import random_block_mask
    >>> random_block_mask(torch.tensor([0, 3, 7]), (4, 4)).sum(1)
    tensor([0, 3, 7])
    """
    height, width = grid
    least = (min(grid) // 3) ** 2  # area of the smallest rectangle
    rows, columns = (torch.arange(side, device=sizes.device) for side in grid)
    share, log_aspect, top, left = torch.rand(4, N_RECTANGLES, *sizes.shape, device=sizes.device)
    aspect = (math.log(LARGEST_ASPECT) * (2 * log_aspect - 1)).exp()
    masked = torch.zeros(*sizes.shape, *grid, dtype=torch.bool, device=sizes.device)
    for i in range(N_RECTANGLES):
        missing = sizes - masked.sum((-2, -1))
        area = least + (missing - least) * share[i]
        h, w = (area * aspect[i]).sqrt().round(), (area / aspect[i]).sqrt().round()
        first, start = (top[i] * (height - h + 1)).floor(), (left[i] * (width - w + 1)).floor()
        in_rows = (rows >= first[..., None]) & (rows < (first + h)[..., None])
        in_columns = (columns >= start[..., None]) & (columns < (start + w)[..., None])
        joined = masked | (in_rows[..., :, None] & in_columns[..., None, :])
        fits = (h < height) & (w < width) & (joined.sum((-2, -1)) <= sizes)
        masked = torch.where(fits[..., None, None], joined, masked)
    noise = torch.rand(*sizes.shape, height * width, device=sizes.device)
    order = (masked.flatten(-2) + noise).argsort(-1, descending=True)  # masked patches first
    return order.argsort(-1) < sizes[..., None]


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
