"""How far embeddings are spread, and whether they have collapsed."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from skssl.errors import CollapseWarning

# Embeddings have collapsed to a point if their standard deviation is below this share of evenly spread ones', and to a
# few dimensions if their effective rank is below this and there are images and dimensions enough for a rank of 32. On
# CIFAR-10 healthy trainings are at 0.48 and 26 or more, SimSiam without its predictor (symmetric) at 0.2 to 0.65 and
# 1.5 to 4.
COLLAPSED_STD, COLLAPSED_RANK, LEAST_DIMENSIONS = 0.1, 5, 32


def check_collapse(z: Tensor, epoch: int, warn: bool = True) -> tuple[dict[str, float], bool]:
    """Measure how far embeddings are spread, and warn if they have collapsed.

    Parameters
    ----------
    z : Tensor of shape (n, d)
        Embeddings.
    epoch : int
        Number of the epoch, for the warning.
    warn : bool, default=True
        Whether to warn.

    Returns
    -------
    measures : dict of str to float
        "embedding_std" and "effective_rank", see `spread` and `effective_rank`.
    collapsed : bool
        Whether the embeddings have collapsed.

    Examples
    --------
    >>> import torch
    >>> from skssl.training.collapse import check_collapse
    >>> measures, collapsed = check_collapse(torch.ones(4, 3), epoch=1, warn=False)
    >>> measures["embedding_std"], collapsed
    (0.0, True)
    """
    deviation, rank = spread(z).item(), effective_rank(z).item()
    few = rank < COLLAPSED_RANK and min(len(z) - 1, z.shape[1]) >= LEAST_DIMENSIONS
    collapsed = deviation < COLLAPSED_STD or few
    if warn and collapsed:
        warnings.warn(
            f"The embeddings have collapsed in epoch {epoch}: their standard deviation is {deviation:.2g} of that of "
            f"evenly spread ones, their effective rank is {rank:.1f} of {z.shape[1]}. Try a lower learning rate, "
            "SimSiamGSG or keep the predictor (SimSiam, BYOL), a larger batch or weaker augmentation.",
            CollapseWarning,
            stacklevel=2,
        )
    return {"embedding_std": deviation, "effective_rank": rank}, collapsed


def spread(z: Tensor) -> Tensor:
    """Compute how evenly directions are spread: the standard deviation of normalised rows in units of 1/sqrt(d).

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
    """Compute the effective rank: the exponential of the entropy of the centred rows' normalised singular values.

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
