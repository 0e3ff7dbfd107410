"""How far embeddings are spread, and when they have collapsed."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def spread(z: Tensor) -> Tensor:
    """How evenly directions are spread: the standard deviation of normalised rows in units of 1/sqrt(d).

    Parameters
    ----------
    z : Tensor of shape (n, d)
        Embeddings.

    Returns
    -------
    Tensor of shape ()
        0 when all rows point the same way (collapse), about 1 when they point everywhere.

    References
    ----------
    Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021, figure 2 (there not divided).

    Examples
    --------
    >>> import torch
    >>> from skssl.training.collapse import spread
    >>> spread(torch.ones(4, 3))
    tensor(0.)
    """
    z = nn.functional.normalize(z.float(), dim=1)
    return z.std(0).mean() * z.shape[1] ** 0.5


def effective_rank(z: Tensor) -> Tensor:
    """Effective rank: the exponential of the entropy of the normalised singular values of the centred rows.

    Parameters
    ----------
    z : Tensor of shape (n, d)
        Embeddings.

    Returns
    -------
    Tensor of shape ()
        Between 1 (all on a line, or all equal) and min(n - 1, d).

    References
    ----------
    Roy and Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007.

    Examples
    --------
    >>> import torch
    >>> from skssl.training.collapse import effective_rank
    >>> effective_rank(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])).round(decimals=3)
    tensor(2.)
    """
    values = torch.linalg.svdvals(z.float() - z.float().mean(0))
    share = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    return torch.special.entr(share).sum().exp()
