"""Losses that predict one view's embedding from another's, and guided stop-gradient."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from skssl.errors import pick
from skssl.losses.precision import full_precision


def _negative_cosines(p: Tensor, z: Tensor) -> Tensor:
    """Return -cos(p_i, stop-gradient(z_i)) for every row, (n,)."""
    return -F.cosine_similarity(p, z.detach(), dim=1)


@full_precision
def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """Negative cosine similarity of predictions and detached targets, D(p, stopgrad(z)) of SimSiam.

    Parameters
    ----------
    p : Tensor of shape (n, d)
        Predictions, which receive the gradient.
    z : Tensor of shape (n, d)
        Targets; detached.

    Returns
    -------
    Tensor of shape ()
        The mean over rows, between -1 and 1.

    References
    ----------
    Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021, equations 1 and 3.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import negative_cosine
    >>> negative_cosine(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]]))
    tensor(-0.6000)
    """
    return _negative_cosines(p, z).mean()


@full_precision
def byol_loss(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
    r"""BYOL's symmetric loss: squared distances of normalised predictions and targets.

    .. math:: \lVert \bar p_1 - \bar z_2 \rVert^2 + \lVert \bar p_2 - \bar z_1 \rVert^2,

    summed over the two directions (each term is 2 - 2 cos) and averaged over images, between 0 and 8. The weights of
    auxiliary losses refer to this scale.

    Parameters
    ----------
    p1, p2 : Tensor of shape (n, d)
        The online network's predictions from the two views.
    z1, z2 : Tensor of shape (n, d)
        The target network's projections of the two views; detached.

    Returns
    -------
    Tensor of shape ()
        The loss.

    References
    ----------
    Grill et al., Bootstrap Your Own Latent, NeurIPS 2020, equation 2 and its symmetric form.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import byol_loss
    >>> x = torch.eye(2)
    >>> byol_loss(x, x, x, -x)  # the first direction is opposite, the second is equal
    tensor(4.)
    """
    return (4 + 2 * _negative_cosines(p1, z2) + 2 * _negative_cosines(p2, z1)).mean()


@full_precision
def averaged_targets(p: Tensor, z: Tensor) -> Tensor:
    r"""FastSiam: negative cosine of each view's prediction and the mean projection of the other views.

    .. math:: \frac 1 V \sum_v D\Bigl(p_v, \mathrm{sg}\Bigl(\frac{1}{V - 1}\sum_{w \neq v} z_w\Bigr)\Bigr),

    where D is `negative_cosine`. With two views it is SimSiam's symmetric loss.

    Parameters
    ----------
    p : Tensor of shape (V, n, d)
        Predictions from V views of n images.
    z : Tensor of shape (V, n, d)
        Their projections, not normalised; detached.

    Returns
    -------
    Tensor of shape ()
        The loss, between -1 and 1.

    References
    ----------
    Pototzky et al., FastSiam: Resource-Efficient Self-supervised Learning on a Single GPU, DAGM GCPR 2022.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import averaged_targets
    >>> z = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 1.0]]])  # three views of one image
    >>> round(averaged_targets(z, z).item(), 4)  # -(0 + 2 / sqrt(2)) / 3
    -0.4714
    """
    targets = (z.sum(0) - z) / (len(z) - 1)
    return negative_cosine(p.flatten(0, 1), targets.flatten(0, 1))


def _nearest(z1: Tensor, z2: Tensor, z3: Tensor, z4: Tensor) -> Tensor:
    """Return which of the distances 1-3, 1-4, 2-3, 2-4 is the smallest, the first in a tie; (n,), from 0 to 3."""
    squares = [(a - b).detach().square().sum(1) for a in (z1, z2) for b in (z3, z4)]
    index, least = torch.zeros_like(squares[0], dtype=torch.long), squares[0]
    for i, square in enumerate(squares[1:], start=1):  # torch.argmin may return any of equal minima
        index = torch.where(square < least, i, index)
        least = torch.minimum(square, least)
    return index


def _guided(z1: Tensor, z2: Tensor, z3: Tensor, z4: Tensor, generator: torch.Generator | None) -> Tensor:
    return _nearest(z1, z2, z3, z4)


def _reverse(z1: Tensor, z2: Tensor, z3: Tensor, z4: Tensor, generator: torch.Generator | None) -> Tensor:
    return 3 - _nearest(z1, z2, z3, z4)  # the other views of both images


def _random(z1: Tensor, z2: Tensor, z3: Tensor, z4: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randint(4, (len(z1),), device=z1.device, generator=generator)


GUIDES = {"guided": _guided, "random": _random, "reverse": _reverse}


@full_precision
def guided_stop_gradient(
    p1: Tensor,
    p2: Tensor,
    z1: Tensor,
    z2: Tensor,
    partner: Tensor,
    rule: str = "guided",
    q: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Guided stop-gradient: the nearest views of two images are the sources, so that they move apart.

    Image i has the projections ``z1[i], z2[i]`` and the predictions ``p1[i], p2[i]``. It is paired with image
    ``partner[i]``. View a of the first image and view c of the second have the smallest of the four Euclidean
    distances between their projections. Their predictions are the sources, and the projections of the images' other
    views are the targets:

    .. math:: \tfrac12 D(p_{1a}, \mathrm{sg}(z_{1\bar a})) + \tfrac12 D(p_{2c}, \mathrm{sg}(z_{2\bar c})),

    where D is the negative cosine. The loss is the mean over pairs. The distances are computed from unnormalised
    projections, and without a gradient.

    Parameters
    ----------
    p1, p2 : Tensor of shape (n, d)
        Predictions of the two views of the first images of the pairs.
    z1, z2 : Tensor of shape (n, d)
        Their projections; in BYOL those of the momentum network.
    partner : int64 Tensor of shape (n,)
        Index of the second image of pair i, usually a random permutation. Fixed points are allowed.
    rule : {"guided", "random", "reverse"}, default="guided"
        How the sources are chosen. "random" draws one of the four combinations for each pair. "reverse" takes the
        views that "guided" does not take (the complement, not the farthest two).
    q : tuple (p3, p4, z3, z4) of Tensors of shape (n, d), optional
        Predictions and projections of two further views of every image, used for the second images of the pairs, as
        in the paper and its code. By default the first two views are used for both.
    generator : torch.Generator, optional
        Random number generator of "random".

    Returns
    -------
    Tensor of shape ()
        The loss, between -1 and 1.

    Raises
    ------
    ValueError
        If the rule is unknown.

    References
    ----------
    Lee and Lee, Implicit Contrastive Representation Learning with Guided Stop-gradient, NeurIPS 2023, equation 6 and
    algorithm 1; the variants are those of its section 6.

    Examples
    --------
    View 2 of image 0 and view 1 of image 1 are nearest, at a distance of 0.22: their predictions are the sources.

    >>> import torch
    >>> from skssl.losses import guided_stop_gradient
    >>> z1, z2 = torch.tensor([[0.0, 2.0], [0.1, 1.0]]), torch.tensor([[0.0, 0.8], [3.0, 0.1]])
    >>> round(guided_stop_gradient(z1, z2, z1, z2, partner=torch.tensor([1, 0])).item(), 4)
    -0.5663
    """
    p3, p4, z3, z4 = (x[partner] for x in (q or (p1, p2, z1, z2)))
    choice = pick("rule", rule, GUIDES)(z1, z2, z3, z4, generator)
    first_is_source, third_is_source = choice < 2, choice % 2 == 0
    first = torch.where(first_is_source, _negative_cosines(p1, z2), _negative_cosines(p2, z1))
    second = torch.where(third_is_source, _negative_cosines(p3, z4), _negative_cosines(p4, z3))
    return (first + second).mean() / 2
