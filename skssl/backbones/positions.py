"""Positions of the patches of vision transformers."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def sincos_positions(height: int, width: int, dim: int) -> Tensor:
    """Return sines and cosines of the places of patches, as in MAE.

    Parameters
    ----------
    height, width : int
        Number of rows and columns of patches.
    dim : int
        Width of the tokens, a multiple of 4: half of the values depend on the column, the others on the row.

    Returns
    -------
    float32 Tensor of shape (height * width, dim)
        The positions, row by row.

    Examples
    --------
    >>> from skssl.backbones.positions import sincos_positions
    >>> sincos_positions(1, 2, 4)  # sin(column), cos(column), sin(row), cos(row)
    tensor([[0.0000, 1.0000, 0.0000, 1.0000],
            [0.8415, 0.5403, 0.0000, 1.0000]])
    """
    frequencies = 10000 ** -(torch.arange(dim // 4) / (dim // 4))

    def along(n: int) -> Tensor:
        angles = torch.outer(torch.arange(n), frequencies)
        return torch.cat([angles.sin(), angles.cos()], 1)

    columns, rows = along(width), along(height)
    return torch.cat([columns.repeat(height, 1), rows.repeat_interleave(width, 0)], 1)


def resample_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Interpolate positions for another grid of patches, bicubically and with antialiasing.

    Parameters
    ----------
    positions : Tensor of shape (1, k + h * w, d)
        The positions of k other tokens, such as the class token, and of the patches.
    old, new : tuple of int
        Rows and columns of the grid, (h, w) and (h', w').

    Returns
    -------
    Tensor of shape (1, k + h' * w', d)
        The positions. Those of the other tokens are unchanged.

    Examples
    --------
    >>> import torch
    >>> from skssl.backbones.positions import resample_positions
    >>> resample_positions(torch.zeros(1, 17, 8), (4, 4), (2, 3)).shape
    torch.Size([1, 7, 8])
    """
    if old == new:
        return positions
    n = math.prod(old)
    # A product with the weights of the pixels: the gradient of F.interpolate is not deterministic on CUDA.
    each = torch.eye(n, device=positions.device).view(1, n, *old)
    weights = F.interpolate(each, new, mode="bicubic", antialias=True).flatten(2)[0].T.to(positions.dtype)
    others, patches = positions.tensor_split([positions.shape[1] - n], 1)
    with torch.autocast(positions.device.type, enabled=False):
        return torch.cat([others, weights @ patches], 1)


def fit_positions(positions: Tensor, n_tokens: int) -> Tensor | None:
    """Interpolate the positions of a square grid of patches for another number of tokens.

    Parameters
    ----------
    positions : Tensor of shape (1, k + s * s, d)
        The positions of at most two other tokens and of the patches.
    n_tokens : int
        The number of tokens, k + s' * s'.

    Returns
    -------
    Tensor of shape (1, n_tokens, d) or None
        None if the numbers of tokens do not belong to square grids.

    Examples
    --------
    >>> import torch
    >>> from skssl.backbones.positions import fit_positions
    >>> fit_positions(torch.zeros(1, 197, 8), 65).shape
    torch.Size([1, 65, 8])
    """
    for others in range(3):
        old, new = (math.isqrt(max(n - others, 0)) for n in (positions.shape[1], n_tokens))
        if old and new and (old**2 + others, new**2 + others) == (positions.shape[1], n_tokens):
            return resample_positions(positions, (old, old), (new, new))
    return None
