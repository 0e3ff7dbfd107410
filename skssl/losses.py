"""Losses of the papers, as pure functions of tensors.

Embeddings are rows. A loss normalises them where its formula has a cosine, and returns a differentiable scalar. It is
computed in float32 (or float64), whatever the precision of the networks.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from skssl.errors import pick

__all__ = [
    "averaged_targets",
    "barlow_twins",
    "byol_loss",
    "contrastive_loss",
    "correspondence",
    "dcl",
    "dense_info_nce",
    "dino",
    "guided_stop_gradient",
    "ibot",
    "ijepa",
    "info_nce",
    "koleo",
    "mae",
    "mmcr",
    "msn_terms",
    "nce",
    "negative_cosine",
    "nt_xent",
    "nuclear_norm",
    "proto_nce",
    "prototype_scores",
    "ressl",
    "sigreg",
    "simmim",
    "sinkhorn",
    "sup_con",
    "swapped_prediction",
    "tico",
    "tico_covariance",
    "triplet_loss",
    "vicreg",
    "vicreg_terms",
    "vicregl_terms",
    "w_mse",
    "whiten",
]


def full_precision(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a loss to run in full precision: half-precision arguments become float32, and autocast is disabled."""

    def widen(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(widen, value))
        half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
        return value.float() if half else value

    @functools.wraps(loss)
    def wrapped(first: Tensor, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(first.device.type, enabled=False):
            return loss(widen(first), *map(widen, args), **{name: widen(value) for name, value in kwargs.items()})

    return wrapped


@full_precision
def nt_xent(z1: Tensor, z2: Tensor, temperature: float = 0.5, y: Tensor | None = None) -> Tensor:
    r"""Normalised temperature-scaled cross-entropy of SimCLR.

    The positive of each of the 2n embeddings is the other view of its image. All remaining embeddings are negatives:

    .. math:: \ell_{ij} = -\log\frac{\exp(\cos(z_i, z_j)/t)}{\sum_{k \neq i}\exp(\cos(z_i, z_k)/t)},

    and the loss is the mean over the 2n anchors. The reference code returns twice this value, the sum of the means
    over the two views.

    Parameters
    ----------
    z1, z2 : Tensor of shape (n, d)
        Embeddings of the first and the second view of n images.
    temperature : float, default=0.5
        t, greater than 0.
    y : int64 Tensor of shape (n,), optional
        Classes, -1 where unknown. Other images of an anchor's known class are removed from its denominator. They do
        not become positives.

    Returns
    -------
    Tensor of shape ()
        The loss, between 0 and log(2n - 1) + 2/t.

    References
    ----------
    Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020, equation 1. The
    removal of false negatives: Towards Efficient and Effective Self-Supervised Learning of Visual Representations,
    ECCV 2022, section 3.1.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import nt_xent
    >>> z = torch.eye(3)
    >>> round(nt_xent(z, z, temperature=0.5).item(), 4)  # -log(e^2 / (e^2 + 4 e^0))
    0.4327
    """
    z = F.normalize(torch.cat([z1, z2]), dim=1)  # (2n, d)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)  # an embedding is not its own negative
    if y is not None:
        logits = logits.masked_fill(_others_of_class(y).repeat(2, 2), -torch.inf)
    positive = torch.arange(len(z), device=z.device).roll(len(z1))
    return F.cross_entropy(logits, positive)


@full_precision
def dcl(
    z1: Tensor, z2: Tensor, temperature: float = 0.1, sigma: float | None = None, y: Tensor | None = None
) -> Tensor:
    r"""Decoupled contrastive loss: `nt_xent` without the positive pair in the denominator.

    .. math:: \ell_i = -w_i\,\frac{\cos(z_i, z_{p(i)})}{t} + \log\sum_{k \neq i, p(i)}\exp(\cos(z_i, z_k)/t),

    averaged over the 2n embeddings, where p(i) is the other view of the image. The weight w is 1, or in the weighted
    form (DCLW), with the sum over the n images,

    .. math:: w_i = 2 - n\,\frac{\exp(\cos(z_i, z_{p(i)})/\sigma)}{\sum_j\exp(\cos(z_j, z_{p(j)})/\sigma)}.

    Parameters
    ----------
    z1, z2 : Tensor of shape (n, d)
        Embeddings of the first and the second view of n images, at least two.
    temperature : float, default=0.1
        t, greater than 0.
    sigma : float, default=None
        Width of the weights, 0.5 in the paper. They have no gradient. None weights all pairs by 1.
    y : int64 Tensor of shape (n,), optional
        Classes, -1 where unknown. Other images of an anchor's known class are removed from its denominator, unless no
        image would remain.

    Returns
    -------
    Tensor of shape ()
        The loss, which may be negative.

    References
    ----------
    Yeh et al., Decoupled Contrastive Learning, ECCV 2022, equation 6, as a mean instead of a sum.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import dcl
    >>> z = torch.eye(3)
    >>> round(dcl(z, z, temperature=0.5).item(), 4)  # -2 + log(4 e^0)
    -0.6137
    """
    n, z = len(z1), F.normalize(torch.cat([z1, z2]), dim=1)  # (2n, d)
    removed = torch.eye(n, dtype=torch.bool, device=z.device)
    if y is not None:
        both = removed | _others_of_class(y)
        removed = torch.where(both.all(1, keepdim=True), removed, both)
    negative = (z @ z.T / temperature).masked_fill(removed.repeat(2, 2), -torch.inf).logsumexp(1)
    positive = (z[:n] * z[n:]).sum(1)
    weight = 1.0 if sigma is None else 2 - n * F.softmax(positive.detach() / sigma, dim=0)
    return negative.mean() - (weight * positive).mean() / temperature


@full_precision
def contrastive_loss(z1: Tensor, z2: Tensor, same: Tensor, margin: float = 1.0) -> Tensor:
    r"""Contrastive loss of pairs: positives are drawn together, negatives are pushed apart up to a margin.

    .. math::
        \frac 1 n \sum_i s_i\, d_i^2 + (1 - s_i) \max(0, m - d_i)^2, \quad d_i = \lVert z_{1i} - z_{2i} \rVert.

    Parameters
    ----------
    z1, z2 : Tensor of shape (n, d)
        Embeddings of the first and the second sample of each pair. They are not normalised.
    same : bool Tensor of shape (n,)
        s: whether the samples of a pair belong together, as two views of an image or two images of a class do.
    margin : float, default=1.0
        m: the distance from which a negative pair adds nothing.

    Returns
    -------
    Tensor of shape ()
        The mean over the pairs.

    References
    ----------
    Hadsell et al., Dimensionality Reduction by Learning an Invariant Mapping, CVPR 2006, equation 4, without its factor
    of 1/2.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import contrastive_loss
    >>> z1, z2 = torch.zeros(2, 2), torch.tensor([[0.6, 0.0], [0.6, 0.0]])
    >>> round(contrastive_loss(z1, z2, same=torch.tensor([True, False])).item(), 2)  # (0.36 + 0.16) / 2
    0.26
    """
    square = (z1 - z2).square().sum(1)
    apart = (margin - torch.linalg.vector_norm(z1 - z2, dim=1)).clamp(min=0).square()
    return torch.where(same, square, apart).mean()


@full_precision
def triplet_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0) -> Tensor:
    r"""Triplet loss: an anchor is nearer to its positive than to its negative, by a margin of squared distance.

    .. math::
        \frac 1 n \sum_i \max(0, \lVert a_i - p_i \rVert^2 - \lVert a_i - n_i \rVert^2 + m).

    Parameters
    ----------
    anchor, positive, negative : Tensor of shape (n, d)
        Embeddings of samples, of samples that belong with them, and of samples that do not. They are not normalised;
        FaceNet normalises them.
    margin : float, default=1.0
        m.

    Returns
    -------
    Tensor of shape ()
        The mean over the triplets.

    References
    ----------
    Schroff et al., FaceNet: A Unified Embedding for Face Recognition and Clustering, CVPR 2015, equation 2, which is a
    sum and has a margin of 0.2. ``torch.nn.TripletMarginLoss`` compares distances that are not squared.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import triplet_loss
    >>> anchor, positive, negative = torch.tensor([[0.0]]), torch.tensor([[0.5]]), torch.tensor([[1.0]])
    >>> triplet_loss(anchor, positive, negative).item()  # 0.25 - 1 + 1
    0.25
    """
    near, far = ((anchor - other).square().sum(1) for other in (positive, negative))
    return (near - far + margin).clamp(min=0).mean()


@full_precision
def info_nce(q: Tensor, k: Tensor, negatives: Tensor | None = None, temperature: float = 0.2) -> Tensor:
    r"""InfoNCE of queries with one positive key each and shared negatives.

    .. math:: -\log\frac{\exp(\cos(q_i, k_i)/t)}{\exp(\cos(q_i, k_i)/t) + \sum_j\exp(\cos(q_i, n_j)/t)},

    averaged over the queries. Without negatives of their own, the keys of the other queries are the negatives.

    Parameters
    ----------
    q : Tensor of shape (n, d)
        Queries.
    k : Tensor of shape (n, d)
        The key of each query; not detached.
    negatives : Tensor of shape (m, d), optional
        Negatives, such as MoCo's queue. By default the keys of the other queries, as in MoCo v3 and NNCLR.
    temperature : float, default=0.2
        t, greater than 0.

    Returns
    -------
    Tensor of shape ()
        The loss.

    References
    ----------
    He et al., Momentum Contrast for Unsupervised Visual Representation Learning, CVPR 2020, equation 1. MoCo v3: Chen
    et al., ICCV 2021, equation 1.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import info_nce
    >>> x = torch.eye(4)
    >>> round(info_nce(x[:1], x[:1], x[1:], temperature=1.0).item(), 4)  # -log(e / (e + 3))
    0.7437
    """
    q, k = F.normalize(q, dim=1), F.normalize(k, dim=1)
    if negatives is None:
        return F.cross_entropy(q @ k.T / temperature, torch.arange(len(q), device=q.device))
    negatives = F.normalize(negatives, dim=1)
    positive = (q * k).sum(1, keepdim=True)  # (n, 1)
    logits = torch.cat([positive, q @ negatives.T], dim=1) / temperature  # (n, 1 + m)
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))


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


def _off_diagonal(c: Tensor) -> Tensor:
    """Return the sum of the squared off-diagonal entries of a matrix, or of several (..., d, d)."""
    return c.square().sum() - c.diagonal(dim1=-2, dim2=-1).square().sum()


@full_precision
def barlow_twins(z1: Tensor, z2: Tensor, lambd: float = 0.0051) -> Tensor:
    r"""Barlow Twins: the cross-correlation matrix of two views approaches the identity.

    With c the cross-correlation of the dimensions of the two views over the batch,

    .. math:: \sum_i (1 - c_{ii})^2 + \lambda \sum_i \sum_{j \neq i} c_{ij}^2.

    Each view is standardised by its own statistics (biased, with BatchNorm's 1e-5 under the root, as in the reference
    code). Both sums grow with d, so plain SGD needs a scaled-down loss.

    Parameters
    ----------
    z1, z2 : Tensor of shape (n, d)
        Embeddings of the first and the second view of n images. The gradient flows into both.
    lambd : float, default=0.0051
        Weight of the off-diagonal terms.

    Returns
    -------
    Tensor of shape ()
        The loss.

    References
    ----------
    Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction, ICML 2021, equations 1 and 2.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import barlow_twins
    >>> z = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])  # two independent dimensions
    >>> round(barlow_twins(z, z).item(), 3), round(barlow_twins(z, z.flip(1), lambd=0.5).item(), 3)
    (0.0, 3.0)
    """
    a, b = ((z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt() for z in (z1, z2))
    c = a.T @ b / len(z1)  # (d, d)
    return (1 - c.diagonal()).square().sum() + lambd * _off_diagonal(c)


@full_precision
def vicreg_terms(z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Invariance, variance and covariance: the three unweighted terms of VICReg.

    .. math::
        s = \frac{1}{nd} \sum_{ij} (z_{ij} - z'_{ij})^2, \quad
        v = \frac{1}{2d} \sum_j \Bigl[\max\bigl(0, 1 - \sqrt{\mathrm{Var}_j(z) + 10^{-4}}\bigr)
        + \max\bigl(0, 1 - \sqrt{\mathrm{Var}_j(z') + 10^{-4}}\bigr)\Bigr], \quad
        c = \frac{1}{d} \sum_{i \neq j} \bigl[C(z)_{ij}^2 + C(z')_{ij}^2\bigr],

    where Var and the covariance C have the divisor n - 1.

    Parameters
    ----------
    z1, z2 : Tensor of shape (n, d) or (k, n, d)
        Embeddings of the first and the second view of n images, at least two. The gradient flows into both. Of k
        batches, variance and covariance are computed for each, and the terms are means over the batches.

    Returns
    -------
    invariance, variance, covariance : Tensor of shape ()
        The terms.

    References
    ----------
    Bardes et al., VICReg: Variance-Invariance-Covariance Regularization, ICLR 2022, equations 1 to 5. Two details
    follow the reference code, to which the weights 25, 25 and 1 belong: the squared distance is the mean over
    dimensions (the sum in the paper), and the variance term is halved (not in the paper).

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import vicreg_terms
    >>> z = torch.tensor([[2.0, 2.0], [-2.0, -2.0]])  # large variance, but in one direction only
    >>> vicreg_terms(z, z)
    (tensor(0.), tensor(0.), tensor(128.))
    """
    n, d = z1.shape[-2:]
    centred = [z - z.mean(-2, keepdim=True) for z in (z1, z2)]
    deviations = [(z.square().sum(-2) / (n - 1) + 1e-4).sqrt() for z in centred]
    variance = torch.stack([F.relu(1 - deviation).mean() for deviation in deviations]).mean()
    covariances = [z.mT @ z / (n - 1) for z in centred]  # (..., d, d)
    covariance = torch.stack([_off_diagonal(c) / (c.numel() // d) for c in covariances]).sum()
    return F.mse_loss(z1, z2), variance, covariance


def vicreg(z1: Tensor, z2: Tensor, sim: float = 25.0, var: float = 25.0, cov: float = 1.0) -> Tensor:
    """VICReg: the weighted sum of invariance, variance and covariance.

    Parameters
    ----------
    z1, z2 : Tensor of shape (n, d)
        Embeddings of the first and the second view of n images, at least two, not normalised. The gradient flows into
        both.
    sim, var, cov : float, default=25.0, 25.0, 1.0
        Weights of the terms of `vicreg_terms`: lambda, mu and nu of the paper.

    Returns
    -------
    Tensor of shape ()
        ``sim * invariance + var * variance + cov * covariance``.

    References
    ----------
    Bardes et al., VICReg: Variance-Invariance-Covariance Regularization, ICLR 2022, equation 6.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import vicreg
    >>> z = torch.zeros(3, 2)  # collapsed: only the variance term is large
    >>> vicreg(z, z)
    tensor(24.7500)
    """
    invariance, variance, covariance = vicreg_terms(z1, z2)
    return sim * invariance + var * variance + cov * covariance


@full_precision
def vicregl_terms(
    z1: Tensor, z2: Tensor, positions1: Tensor, positions2: Tensor, n_matches: int
) -> tuple[Tensor, Tensor, Tensor]:
    r"""VICRegL: the terms of VICReg for matched cells of the maps of two views.

    Cell s of one view is matched with its nearest cell t of the other view, by a distance :math:`D_{st}`. The
    `n_matches` cells of each image with the smallest distances are kept, in their order in the map. The k-th pairs of
    all images are the rows of `vicreg_terms`, of which the mean is over k and over the two directions:

    .. math:: L(D) = \frac{1}{2K} \sum_{k=1}^{K} \bigl[\ell(z_{s_k}, z'_{t_k}) + \ell(z'_{s'_k}, z_{t'_k})\bigr].

    The result is the sum for two distances: that of the positions in the image, and that of the embeddings.

    Parameters
    ----------
    z1, z2 : Tensor of shape (n, s, d)
        Embeddings of the s cells of the maps of both views of n images, at least two. The gradient flows into both.
    positions1, positions2 : Tensor of shape (n, s, 2)
        Where the cells lie in the images.
    n_matches : int
        K, the number of pairs of each image and direction, at most s.

    Returns
    -------
    invariance, variance, covariance : Tensor of shape ()
        The terms. The matches have no gradient.

    References
    ----------
    Bardes et al., VICRegL: Self-Supervised Learning of Local Visual Features, NeurIPS 2022, section 3. Variance and
    covariance are computed for each k separately, as in the authors' code. The code differs in its defaults: it matches
    all cells by embeddings, and halves the covariance term.

    Examples
    --------
    The second view is mirrored, and so are its cells.

    >>> import torch
    >>> from skssl.losses import vicregl_terms
    >>> z, positions = torch.randn(8, 4, 3), torch.arange(8.0).view(1, 4, 2).expand(8, 4, 2)
    >>> vicregl_terms(z, z.flip(1), positions, positions.flip(1), n_matches=2)[0]
    tensor(0.)
    """
    with torch.no_grad():
        offsets = positions1[:, :, None] - positions2[:, None]
        distances = offsets.square().sum(3), torch.cdist(z1, z2)  # (n, s, s); without a square root, of equal order
    pairs = [
        match
        for of in distances
        for match in (_nearest_cells(z1, z2, of, n_matches), _nearest_cells(z2, z1, of.mT, n_matches))
    ]
    matched = (torch.cat(of, 1).transpose(0, 1) for of in zip(*pairs, strict=True))  # two of (4 * n_matches, n, d)
    invariance, variance, covariance = vicreg_terms(*matched)
    return 2 * invariance, 2 * variance, 2 * covariance  # from the mean over two distances to the sum


def _nearest_cells(z1: Tensor, z2: Tensor, distances: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the n cells of z1 that are nearest to a cell of z2, and these cells of z2, both (batch, n, d)."""
    smallest, nearest = distances.min(2)
    rows = smallest.topk(n, largest=False).indices.sort().values
    columns = nearest.gather(1, rows)
    first, second = (z.gather(1, at[..., None].expand(-1, -1, z.shape[2])) for z, at in ((z1, rows), (z2, columns)))
    return first, second


@full_precision
def dino(
    student: Tensor,
    teacher: Tensor,
    center: Tensor,
    student_temperature: float = 0.1,
    teacher_temperature: float | Tensor = 0.04,
) -> Tensor:
    r"""DINO: cross-entropy of the student's distribution over prototypes with the teacher's from other views.

    .. math::
        -\frac{1}{G (V - 1)} \sum_{g=1}^{G} \sum_{v \neq g} \frac{1}{n} \sum_i
        \mathrm{softmax}\Bigl(\frac{t_{gi} - c}{\tau_t}\Bigr) \cdot
        \log \mathrm{softmax}\Bigl(\frac{s_{vi}}{\tau_s}\Bigr)

    Parameters
    ----------
    student : Tensor of shape (V, n, k)
        The student's scores of V views of n images. The first G are the views of the teacher.
    teacher : Tensor of shape (G, n, k)
        The teacher's scores before the temperature; detached.
    center : Tensor of shape (k,)
        c, a running mean of the teacher's scores. It prevents the collapse to one prototype.
    student_temperature, teacher_temperature : float or scalar Tensor, default=0.1, 0.04
        Temperatures of the softmax. The teacher's is lower, so that its distribution is sharper.

    Returns
    -------
    Tensor of shape ()
        The loss.

    References
    ----------
    Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021, equation 3 and algorithm 1.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import dino
    >>> scores = torch.tensor([[[9.0, -9.0]], [[9.0, -9.0]]])  # two views of one image, both confident
    >>> dino(scores, scores, center=torch.zeros(2)).item()
    0.0
    """
    target = F.softmax((teacher.detach() - center) / teacher_temperature, dim=2).flatten(1)  # (G, n * k)
    log_share = F.log_softmax(student / student_temperature, dim=2).flatten(1)  # (V, n * k)
    entropies = target @ log_share.T / -student.shape[1]  # (G, V)
    return (entropies.sum() - entropies.diagonal().sum()) / (len(target) * (len(log_share) - 1))


@full_precision
def prototype_scores(z: Tensor, prototypes: Tensor) -> Tensor:
    """Cosines of embeddings and prototypes of length one.

    Parameters
    ----------
    z : Tensor of shape (..., d)
        Embeddings, of any length.
    prototypes : Tensor of shape (k, d)
        Prototypes, of length one.

    Returns
    -------
    Tensor of shape (..., k)
        The scores.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import prototype_scores
    >>> prototype_scores(torch.tensor([[3.0, 4.0]]), torch.eye(2))
    tensor([[0.6000, 0.8000]])
    """
    return F.normalize(z, dim=-1) @ prototypes.T


@torch.no_grad()
@full_precision
def sinkhorn(scores: Tensor, epsilon: float = 0.05, n_iterations: int = 3) -> Tensor:
    r"""Soft assignments of samples to equally used prototypes, by the Sinkhorn-Knopp algorithm.

    .. math:: Q = \mathrm{Diag}(u)\, \exp(S / \varepsilon)\, \mathrm{Diag}(v).

    Every iteration normalises the prototypes (columns), then the samples (rows). The computation is in logarithms, so
    that small epsilons neither overflow nor leave a prototype without weight.

    Parameters
    ----------
    scores : Tensor of shape (n, k)
        Similarities of n samples and k prototypes.
    epsilon : float, default=0.05
        Weight of the entropy, greater than 0. Larger values give smoother assignments.
    n_iterations : int, default=3
        Number of iterations, at least 1.

    Returns
    -------
    Tensor of shape (n, k)
        Q, whose rows sum to one and whose columns sum to about n / k. It has no gradient.

    References
    ----------
    Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, NeurIPS 2020, equations
    3 to 5 (where Q is transposed and sums to one as a whole).

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import sinkhorn
    >>> sinkhorn(torch.tensor([[1.0, 0.9], [1.0, 0.2]])).round(decimals=2)  # both prefer the first
    tensor([[0.1400, 0.8600],
            [1.0000, 0.0000]])
    """
    log_q = scores / epsilon
    for _ in range(n_iterations):
        log_q = log_q.log_softmax(0).log_softmax(1)  # the constants of the paper cancel in the next step
    return log_q.exp()


@full_precision
def mae(predicted: Tensor, pixels: Tensor, normalize: bool = True) -> Tensor:
    r"""Compute MAE's loss: the mean squared error of the pixels of masked patches.

    Parameters
    ----------
    predicted : Tensor of shape (n, k, p)
        Predictions of the p values of k patches of each image.
    pixels : Tensor of shape (n, k, p)
        The values.
    normalize : bool, default=True
        Whether the target is :math:`(x - \mu) / \sqrt{\sigma^2 + 10^{-6}}`, with the mean and the unbiased variance of
        each patch.

    Returns
    -------
    scalar Tensor
        The loss.

    References
    ----------
    He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022, section 3.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import mae
    >>> pixels = torch.tensor([[[1.0, 3.0]]])
    >>> mae(pixels, pixels, normalize=False).item(), round(mae(torch.zeros(1, 1, 2), pixels).item(), 3)
    (0.0, 0.5)
    """
    if normalize:
        variance, mean = torch.var_mean(pixels, 2, keepdim=True)
        pixels = (pixels - mean) / (variance + 1e-6).sqrt()
    return (predicted - pixels).square().mean()


@full_precision
def simmim(predicted: Tensor, images: Tensor, masked: Tensor) -> Tensor:
    """Compute SimMIM's loss: the mean absolute error of masked pixels.

    Parameters
    ----------
    predicted, images : Tensor of shape (n, c, h, w)
        Predictions, and the normalised images.
    masked : bool Tensor of shape (n, h, w)
        True at masked pixels, of which each image has one or more.

    Returns
    -------
    scalar Tensor
        The loss, a mean over images. The authors' code divides by the number of masked pixels of the batch, which is
        the same if all images have as many.

    References
    ----------
    Xie et al., SimMIM: A Simple Framework for Masked Image Modeling, CVPR 2022, section 3.4.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import simmim
    >>> images = torch.tensor([[[[1.0, 5.0]]]])
    >>> simmim(torch.zeros(1, 1, 1, 2), images, torch.tensor([[[True, False]]]))
    tensor(1.)
    """
    errors = (predicted - images).abs().mean(1) * masked  # (n, h, w)
    return (errors.sum((1, 2)) / masked.sum((1, 2))).mean()


@full_precision
def ibot(student: Tensor, targets: Tensor, n_masked: Tensor, n_views: int, temperature: float = 0.1) -> Tensor:
    r"""iBOT: cross-entropy of the student's distributions at masked patches with the teacher's, which sees the patches.

    .. math:: -\frac{1}{V} \sum_i \frac{1}{m_i} q_i \cdot \log \mathrm{softmax}\Bigl(\frac{s_i}{t}\Bigr),

    the mean over the masked patches of each view, then over the V views. A view without masked patches counts as 0.

    Parameters
    ----------
    student : Tensor of shape (m, k)
        The student's scores of k prototypes at the masked patches of all views.
    targets : Tensor of shape (m, k)
        q, the teacher's probabilities at the same patches; detached.
    n_masked : int64 Tensor of shape (m,)
        Number of masked patches of the view in which each patch lies.
    n_views : int
        V, the number of views, those without masked patches included.
    temperature : float, default=0.1
        t, the temperature of the student's softmax.

    Returns
    -------
    Tensor of shape ()
        The loss.

    References
    ----------
    Zhou et al., iBOT: Image BERT Pre-Training with Online Tokenizer, ICLR 2022. The means are those of the authors'
    code; the paper has a sum over patches.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import ibot
    >>> scores, targets = torch.zeros(2, 4), torch.eye(4)[:2]  # two of the patches of one of two views
    >>> round(ibot(scores, targets, n_masked=torch.tensor([2, 2]), n_views=2).item(), 4)  # log(4) / 2
    0.6931
    """
    cross_entropy = -(targets.detach() * (student / temperature).log_softmax(1)).sum(1)
    return (cross_entropy / n_masked).sum() / n_views


@full_precision
def koleo(z: Tensor) -> Tensor:
    r"""KoLeo regulariser, an estimate of the entropy of embeddings: spread them over the sphere.

    .. math:: -\frac{1}{n} \sum_i \log\bigl(\lVert \bar z_i - \bar z_{j(i)} \rVert + 10^{-8}\bigr),

    where j(i) is the nearest neighbour of i among the normalised embeddings of the others.

    Parameters
    ----------
    z : Tensor of shape (n, d)
        Embeddings of n images, at least two. Two views of an image must not be among them.

    Returns
    -------
    Tensor of shape ()
        The loss, at least -log 2.

    References
    ----------
    Sablayrolles et al., Spreading Vectors for Similarity Search, ICLR 2019. Oquab et al., DINOv2: Learning
    Robust Visual Features without Supervision, TMLR 2024, section 4.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import koleo
    >>> round(koleo(torch.tensor([[3.0, 0.0], [0.0, 2.0]])).item(), 4)  # -log(2) / 2
    -0.3466
    """
    z = F.normalize(z, dim=1)
    nearest = (z.detach() @ z.detach().T).fill_diagonal_(-2.0).argmax(1)
    return -(F.pairwise_distance(z, z.index_select(0, nearest), eps=1e-8) + 1e-8).log().mean()


@full_precision
def ijepa(predicted: Tensor, targets: Tensor) -> Tensor:
    r"""Compute I-JEPA's loss: the smooth L1 distance.

    An error e costs :math:`e^2 / 2` if it is below 1, and :math:`|e| - 1/2` otherwise.

    Parameters
    ----------
    predicted, targets : Tensor of shape (..., d)
        Predicted tokens, and those of the momentum copy, each normalised by a LayerNorm without parameters.

    Returns
    -------
    scalar Tensor
        The mean over tokens and their values.

    References
    ----------
    Assran et al., CVPR 2023. Equation 1 of the paper has the squared distance; this is the loss of the authors' code.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import ijepa
    >>> ijepa(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0]]))
    tensor(1.)
    """
    return F.smooth_l1_loss(predicted, targets)


@full_precision
def swapped_prediction(scores: Tensor, codes: Tensor, temperature: float = 0.1) -> Tensor:
    r"""SwAV: every view predicts the codes of the first views, except its own.

    .. math:: -\frac{1}{A} \sum_{a=1}^{A} \frac{1}{V - 1} \sum_{v \neq a} \frac{1}{n} \sum_{i=1}^{n}
        \sum_{j=1}^{k} q_{aij} \log\frac{\exp(s_{vij}/t)}{\sum_{l}\exp(s_{vil}/t)}.

    Parameters
    ----------
    scores : Tensor of shape (V, n, k)
        Scores of V views of n images for k prototypes.
    codes : Tensor of shape (A, n, k)
        The targets: assignments of the first A views, A <= V; detached.
    temperature : float, default=0.1
        t, greater than 0.

    Returns
    -------
    Tensor of shape ()
        The loss; ln k for uniform predictions.

    References
    ----------
    Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, NeurIPS 2020, equations
    1, 2 and 6.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import swapped_prediction
    >>> scores, codes = torch.zeros(2, 3, 4), torch.full((2, 3, 4), 0.25)
    >>> round(swapped_prediction(scores, codes).item(), 4)  # ln 4
    1.3863
    """
    log_p = (scores / temperature).log_softmax(-1)
    cross_entropy = -torch.einsum("aik,vik->av", codes.detach(), log_p) / scores.shape[1]
    others = cross_entropy.sum() - cross_entropy.diagonal().sum()
    return others / (len(codes) * (len(scores) - 1))


@full_precision
def dense_info_nce(
    q: Tensor, k: Tensor, q_map: Tensor, k_map: Tensor, negatives: Tensor, temperature: float = 0.2
) -> Tensor:
    r"""DenseCL: InfoNCE of every cell of a map with the corresponding cell of the other view.

    Cell s of the query's map corresponds to the cell of the key's map with the most similar encoder features F,

    .. math:: c_s = \arg\max_t \cos(F^q_s, F^k_t),

    and its loss is `info_nce` of :math:`q_s` with the key :math:`k_{c_s}` and the negatives. The mean is over all cells
    of all images. The correspondence has no gradient.

    Parameters
    ----------
    q, k : Tensor of shape (n, d, h, w)
        Dense embeddings of the two views; the keys are not detached.
    q_map, k_map : Tensor of shape (n, c, h, w)
        The encoder's maps of the same cells, before the head.
    negatives : Tensor of shape (m, d)
        Negatives shared by all cells, such as a queue of the mean dense embeddings of other images.
    temperature : float, default=0.2
        t, greater than 0.

    Returns
    -------
    Tensor of shape ()
        The loss.

    References
    ----------
    Wang et al., Dense Contrastive Learning for Self-Supervised Visual Pre-Training, CVPR 2021, equations 2 and 4.

    Examples
    --------
    The second view is mirrored, and so are its cells. Each cell finds its key.

    >>> import torch
    >>> from skssl.losses import dense_info_nce
    >>> q, negatives = torch.eye(4)[None, :, None, :2], torch.eye(4)[2:]
    >>> round(dense_info_nce(q, q.flip(3), q, q.flip(3), negatives, temperature=1.0).item(), 4)  # -log(e / (e + 2))
    0.5514
    """
    q, k, q_map, k_map = (x.flatten(2) for x in (q, k, q_map.detach(), k_map.detach()))  # (n, ., s)
    similarity = F.normalize(q_map, dim=1).transpose(1, 2) @ F.normalize(k_map, dim=1)  # (n, s, s)
    match = similarity.argmax(2)  # (n, s)
    k = k.gather(2, match.unsqueeze(1).expand_as(k))
    q, k = (x.transpose(1, 2).flatten(0, 1) for x in (q, k))  # (n * s, d)
    return info_nce(q, k, negatives, temperature)


@full_precision
def proto_nce(q: Tensor, prototypes: Tensor, concentration: Tensor, assignment: Tensor, n_negatives: int) -> Tensor:
    r"""ProtoNCE of PCL: queries against the prototypes of their clusters, each with its own temperature.

    .. math:: -\log\frac{\exp(\cos(q_i, c_{s(i)})/\phi_{s(i)})}
        {\sum_j\exp(\cos(q_i, c_{s(j)})/\phi_{s(j)}) + \sum_{r \in R}\exp(\cos(q_i, c_r)/\phi_r)},

    averaged over the queries. The first sum is over the batch, as in the reference code: a prototype counts once for
    each query of its cluster. R is a random set of other prototypes.

    Parameters
    ----------
    q : Tensor of shape (n, d)
        Queries.
    prototypes : Tensor of shape (k, d)
        The centres of the clusters.
    concentration : Tensor of shape (k,)
        phi, greater than 0.
    assignment : int64 Tensor of shape (n,)
        s, the cluster of each query.
    n_negatives : int
        Size of R, drawn from torch's global generator; fewer if fewer prototypes remain.

    Returns
    -------
    Tensor of shape ()
        The loss.

    References
    ----------
    Li et al., Prototypical Contrastive Learning of Unsupervised Representations, ICLR 2021, equation 11, for one
    clustering and without the first term, which is `info_nce`.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import proto_nce
    >>> c = torch.eye(4)
    >>> loss = proto_nce(c[:1], c, torch.ones(4), torch.tensor([0]), n_negatives=3)
    >>> round(loss.item(), 4)  # -log(e / (e + 3))
    0.7437
    """
    drawn = torch.rand(len(prototypes), device=q.device).index_fill(0, assignment, -1.0)  # the batch's prototypes last
    drawn, others = drawn.topk(min(n_negatives, len(prototypes)))
    chosen = torch.cat([assignment, others])
    logits = F.normalize(q, dim=1) @ F.normalize(prototypes, dim=1)[chosen].T / concentration[chosen]
    spare = torch.cat([torch.zeros_like(assignment, dtype=torch.bool), drawn < 0])
    logits = logits.masked_fill(spare, -torch.inf)  # if fewer than n_negatives remain
    return F.cross_entropy(logits, torch.arange(len(q), device=q.device))


def _others_of_class(y: Tensor) -> Tensor:
    """Return which other images are known to have the class of each image: bool (n, n), False on the diagonal."""
    itself = torch.eye(len(y), dtype=torch.bool, device=y.device)
    return (y[:, None] == y) & (y >= 0) & ~itself


@full_precision
def sup_con(z: Tensor, y: Tensor, temperature: float = 0.1) -> Tensor:
    r"""Supervised contrastive loss: the positives of an anchor are all views of its class.

    .. math:: \ell_i = -\frac{1}{|P(i)|}\sum_{p \in P(i)}
        \log\frac{\exp(\cos(z_i, z_p)/t)}{\sum_{a \neq i}\exp(\cos(z_i, z_a)/t)},

    averaged over the anchors. P(i) contains the other views of the anchor's image and all views of other images of its
    class. The logarithm is inside the sum over positives (L_out of the paper). Anchors without a positive, which occur
    with one view per image, are ignored. The factor t/0.07 of the reference code (1.43 at its t = 0.1), which scales
    the learning rate, is left out. Without labels the loss therefore equals `nt_xent`.

    Parameters
    ----------
    z : Tensor of shape (n, views, d) or (n, d)
        Embeddings of one or more views of n images.
    y : int64 Tensor of shape (n,)
        Classes, -1 where unknown. The positives of an image of unknown class are its own other views, and it is a
        negative for all other images.
    temperature : float, default=0.1
        t, greater than 0.

    Returns
    -------
    Tensor of shape ()
        The loss; 0 if no anchor has a positive.

    References
    ----------
    Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, equation 2.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import sup_con
    >>> z = torch.eye(3)[[0, 0, 1, 2]]
    >>> round(sup_con(z, torch.tensor([7, 7, -1, -1]), temperature=1.0).item(), 4)  # -log(e / (e + 2)), two anchors
    0.5514
    """
    n, views = len(z), z.shape[1] if z.ndim == 3 else 1
    z = F.normalize(z.reshape(n * views, -1), dim=1)
    itself = torch.eye(n * views, dtype=torch.bool, device=z.device)
    related = _others_of_class(y) | torch.eye(n, dtype=torch.bool, device=z.device)
    positive = related.repeat_interleave(views, 0).repeat_interleave(views, 1) & ~itself
    log_p = (z @ z.T / temperature).masked_fill(itself, -torch.inf).log_softmax(1)
    count = positive.sum(1)
    of_anchor = -log_p.where(positive, 0.0).sum(1) / count.clamp(min=1)
    return of_anchor.sum() / (count > 0).sum().clamp(min=1)


@full_precision
def correspondence(positive: Tensor, negative: Tensor) -> Tensor:
    r"""Logistic loss of pairs that belong together and of pairs that do not, with equal weights.

    .. math:: -\tfrac{1}{2} \log \sigma(p) - \tfrac{1}{2} \log \sigma(-n),

    averaged over the pairs of each kind.

    Parameters
    ----------
    positive, negative : Tensor of shape (n,)
        Logits of the pairs that belong together, p, and of the others, n.

    Returns
    -------
    Tensor of shape ()
        The loss, 0 or more. It is log(2) if all logits are 0.

    References
    ----------
    Arandjelović and Zisserman, Look, Listen and Learn, ICCV 2017, and Objects that Sound, ECCV 2018.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import correspondence
    >>> round(correspondence(torch.zeros(3), torch.zeros(3)).item(), 4)
    0.6931
    """
    return (F.softplus(-positive).mean() + F.softplus(negative).mean()) / 2


@full_precision
def nce(log_p: Tensor, n_samples: int) -> Tensor:
    r"""Noise-contrastive estimation: discriminate an image's memory from memories of random images.

    .. math:: -\log\frac{P_i}{P_i + K/N} - \sum_{k=1}^K \log\frac{K/N}{P_k + K/N},

    summed over the K negatives and averaged over images. It is about 10 at first, to which the papers' learning rates
    refer. The computation is in logarithms, without the 1e-7 that the reference code adds to the denominators.

    Parameters
    ----------
    log_p : Tensor of shape (n, 1 + K)
        Estimated log-probabilities over the N images: of the image itself first, then of K negatives, drawn with
        replacement from all N images.
    n_samples : int
        Number of training images, N.

    Returns
    -------
    Tensor of shape ()
        The loss, 0 or more.

    References
    ----------
    Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018, equations 5 to 7.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import nce
    >>> p = torch.tensor([[0.75, 0.25, 0.25]])  # K/N is 1/4
    >>> round(nce(p.log(), n_samples=8).item(), 4)  # -log(3/4) - 2 log(1/2)
    1.674
    """
    odds = log_p - math.log((log_p.shape[1] - 1) / n_samples)  # log-odds of the image against noise
    return -(F.logsigmoid(odds[:, 0]) + F.logsigmoid(-odds[:, 1:]).sum(1)).mean()


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


@full_precision
def tico_covariance(z: Tensor, covariance: Tensor, beta: float = 0.9) -> Tensor:
    r"""TiCo's moving average of the second moment of normalised embeddings.

    .. math:: C \leftarrow \beta\, C + (1 - \beta) \frac 1 n \sum_i \bar z_i \bar z_i^\top.

    Parameters
    ----------
    z : Tensor of shape (n, d)
        Embeddings, of any length. The gradient flows into them.
    covariance : Tensor of shape (d, d)
        C after the last step, 0 at first.
    beta : float, default=0.9
        Share that is kept.

    Returns
    -------
    Tensor of shape (d, d)
        The new C.

    References
    ----------
    Zhu et al., TiCo: Transformation Invariance and Covariance Contrast for Self-Supervised Visual Representation
    Learning, 2022.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import tico_covariance
    >>> tico_covariance(torch.tensor([[2.0, 0.0]]), torch.zeros(2, 2), beta=0.5)
    tensor([[0.5000, 0.0000],
            [0.0000, 0.0000]])
    """
    z = F.normalize(z, dim=1)
    return beta * covariance + (1 - beta) * (z.T @ z) / len(z)


@full_precision
def tico(z1: Tensor, z2: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    r"""Invariance and covariance contrast: the two unweighted terms of TiCo.

    .. math::
        \frac 1 n \sum_i 1 - \bar z_{1i}^\top \bar z_{2i}, \quad
        \frac 1 n \sum_i \bar z_{1i}^\top C\, \bar z_{1i}.

    Parameters
    ----------
    z1 : Tensor of shape (n, d)
        Embeddings of the first view, of any length.
    z2 : Tensor of shape (n, d)
        Embeddings of the second view by the momentum copy; detached.
    covariance : Tensor of shape (d, d)
        C of `tico_covariance`, with its gradient with respect to this batch.

    Returns
    -------
    invariance, contrast : Tensor of shape ()
        The terms.

    References
    ----------
    Zhu et al., TiCo: Transformation Invariance and Covariance Contrast for Self-Supervised Visual Representation
    Learning, 2022.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import tico
    >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> tico(z, z.flip(0), torch.eye(2))
    (tensor(1.), tensor(1.))
    """
    z1 = F.normalize(z1, dim=1)
    return 1 + negative_cosine(z1, z2), ((z1 @ covariance) * z1).sum(1).mean()


@full_precision
def whiten(z: Tensor, eps: float = 0.0) -> Tensor:
    r"""Whiten embeddings: centre them and multiply them by the inverse Cholesky factor of their covariance matrix.

    .. math:: L^{-1} (z_i - \mu), \quad L L^\top = (1 - \epsilon) \Sigma + \epsilon I.

    Parameters
    ----------
    z : Tensor of shape (..., n, d)
        Embeddings. The gradient flows through the statistics.
    eps : float, default=0.0
        Share of the identity in the covariance matrix, whose divisor is n - 1. It must be positive unless n > d.

    Returns
    -------
    Tensor of shape (..., n, d)
        The whitened embeddings.

    References
    ----------
    Ermolov et al., Whitening for Self-Supervised Representation Learning, ICML 2021.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import whiten
    >>> w = whiten(torch.randn(100, 3, generator=torch.Generator().manual_seed(0)))
    >>> torch.allclose(w.T @ w / 99, torch.eye(3), atol=1e-4)
    True
    """
    centred = z - z.mean(-2, keepdim=True)
    covariance = centred.mT @ centred / (z.shape[-2] - 1)  # (..., d, d)
    identity = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    factor, _ = torch.linalg.cholesky_ex((1 - eps) * covariance + eps * identity)  # `cholesky` waits for the device
    return torch.linalg.solve_triangular(factor, centred.mT, upper=False).mT


@full_precision
def w_mse(z: Tensor, groups: int = 1, eps: float = 0.0) -> Tensor:
    r"""W-MSE: mean squared error of whitened and normalised embeddings, over all pairs of views.

    .. math:: \frac{2}{V (V - 1)} \sum_{v < w} \frac 1 n \sum_i \lVert \bar u_{vi} - \bar u_{wi} \rVert^2,

    where u are the embeddings after `whiten`, for each view and group separately.

    Parameters
    ----------
    z : Tensor of shape (V, n, d)
        Embeddings of V views of n images. The gradient flows into all.
    groups : int, default=1
        Number of groups of successive images that are whitened apart from each other. n is a multiple of it.
    eps : float, default=0.0
        As in `whiten`.

    Returns
    -------
    Tensor of shape ()
        The loss, between 0 and 4.

    References
    ----------
    Ermolov et al., Whitening for Self-Supervised Representation Learning, ICML 2021. Whitened embeddings are normalised
    as in the authors' code.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import w_mse
    >>> z = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    >>> round(w_mse(torch.stack([z, 2 * z + 1])).item(), 4)  # whitening removes the scale and the shift
    0.0
    """
    u = F.normalize(whiten(z.unflatten(1, (groups, -1)), eps), dim=-1)
    pairs = [2 - 2 * (u[v] * u[w]).sum(-1).mean() for w in range(len(u)) for v in range(w)]
    return torch.stack(pairs).mean()


@full_precision
def nuclear_norm(x: Tensor, n_iterations: int = 30) -> Tensor:
    r"""Sum of the singular values of matrices, by products alone.

    The Newton-Schulz iteration finds U V^T of a singular value decomposition, whose inner product with the matrix is
    the sum of its singular values. U V^T is also the gradient, so none flows through the iteration. Singular values
    below about 1e-5 of the Frobenius norm are not counted in full. ``torch.linalg.svdvals`` would synchronise with a
    CUDA device.

    Parameters
    ----------
    x : Tensor of shape (..., n, d)
        The matrices.
    n_iterations : int, default=30
        Number of iterations, each of which increases small singular values by half.

    Returns
    -------
    Tensor of shape (...)
        The nuclear norms.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import nuclear_norm
    >>> round(nuclear_norm(torch.tensor([[3.0, 0.0], [0.0, -4.0]])).item(), 4)
    7.0
    """
    with torch.no_grad():
        y = x if x.shape[-1] <= x.shape[-2] else x.mT
        y = y / torch.linalg.matrix_norm(y, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
        for _ in range(n_iterations):
            y = 1.5 * y - 0.5 * y @ (y.mT @ y)
        y = y if x.shape[-1] <= x.shape[-2] else y.mT
    return (x * y).sum((-2, -1))


@full_precision
def mmcr(z: Tensor, lambd: float = 0.0) -> Tensor:
    r"""MMCR: the negative nuclear norm of the images' centroids, and that of each image's views.

    .. math:: -\lVert C \rVert_* + \frac{\lambda}{n} \sum_i \lVert \bar z_i \rVert_*, \quad
        C_i = \frac 1 V \sum_v \bar z_{iv}.

    Parameters
    ----------
    z : Tensor of shape (n, V, d)
        Embeddings of V views of n images, of any length.
    lambd : float, default=0.0
        lambda.

    Returns
    -------
    Tensor of shape ()
        The loss.

    References
    ----------
    Yerxa et al., Learning Efficient Coding of Natural Images with Maximum Manifold Capacity Representations, NeurIPS
    2023.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import mmcr
    >>> z = torch.eye(3)[:, None].repeat(1, 2, 1)  # two equal views of three orthogonal images
    >>> round(mmcr(z).item(), 4), round(mmcr(z, lambd=1.0).item(), 4)
    (-3.0, -1.5858)
    """
    z = F.normalize(z, dim=-1)
    loss = -nuclear_norm(z.mean(1))
    return loss + lambd * nuclear_norm(z).mean() if lambd else loss


@full_precision
def ressl(q: Tensor, k: Tensor, queue: Tensor, temperature: float = 0.1, teacher_temperature: float = 0.04) -> Tensor:
    r"""ReSSL: cross-entropy of the similarities of two views to a queue.

    .. math:: -\frac 1 n \sum_i \mathrm{softmax}_j\Bigl(\frac{\cos(k_i, m_j)}{t'}\Bigr) \cdot
        \log \mathrm{softmax}_j\Bigl(\frac{\cos(q_i, m_j)}{t}\Bigr).

    Parameters
    ----------
    q : Tensor of shape (n, d)
        Embeddings of the first view.
    k : Tensor of shape (n, d)
        Embeddings of the second view by the momentum copy; detached.
    queue : Tensor of shape (m, d)
        m, past keys.
    temperature, teacher_temperature : float, default=0.1, 0.04
        t and t', greater than 0.

    Returns
    -------
    Tensor of shape ()
        The loss, at least the entropy of the targets.

    References
    ----------
    Zheng et al., ReSSL: Relational Self-Supervised Learning with Weak Augmentation, NeurIPS 2021.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import ressl
    >>> queue = torch.eye(2)
    >>> round(ressl(queue.sum(0, keepdim=True), queue[:1], queue).item(), 4)  # an even guess: log 2
    0.6931
    """
    q, k, queue = (F.normalize(x, dim=1) for x in (q, k.detach(), queue))
    targets = (k @ queue.T / teacher_temperature).softmax(1)
    return -(targets * (q @ queue.T / temperature).log_softmax(1)).sum(1).mean()


@full_precision
def sigreg(z: Tensor, directions: Tensor, n_points: int = 17, t_max: float = 3.0) -> Tensor:
    r"""SIGReg: a test of embeddings against the standard Gaussian along random directions.

    Along each direction a, the Epps-Pulley statistic compares the empirical characteristic function of the projections
    with the Gaussian's, weighted by the latter, by the trapezoidal rule:

    .. math:: n \int_{-T}^{T} \Bigl| \frac 1 n \sum_j e^{i t a^\top z_j} - e^{-t^2/2} \Bigr|^2 e^{-t^2/2}\, dt.

    Parameters
    ----------
    z : Tensor of shape (..., n, d)
        Embeddings of one or more views.
    directions : Tensor of shape (k, d)
        Directions, of any length.
    n_points : int, default=17
        Points of the integral over half of its range, which is symmetric.
    t_max : float, default=3.0
        T.

    Returns
    -------
    Tensor of shape ()
        The mean of the statistic over views and directions.

    References
    ----------
    Balestriero and LeCun, LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics,
    arXiv:2511.08544. The points are those of the authors' minimal example; the paper has 17 from -5 to 5.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import sigreg
    >>> z = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0))
    >>> sigreg(z, torch.eye(4)).item() < 2 < 50 < sigreg(2 * z, torch.eye(4)).item()
    True
    """
    t = torch.linspace(0, t_max, n_points, dtype=z.dtype, device=z.device)
    gaussian = (-t.square() / 2).exp()
    angles = (z @ F.normalize(directions, dim=1).T)[..., None] * t  # (..., n, k, points)
    square = (angles.cos().mean(-3) - gaussian).square() + angles.sin().mean(-3).square()  # (..., k, points)
    return 2 * z.shape[-2] * torch.trapezoid(square * gaussian, t, dim=-1).mean()


@full_precision
def msn_terms(scores: Tensor, targets: Tensor, temperature: float = 0.1) -> tuple[Tensor, Tensor]:
    r"""Cross-entropy and mean entropy maximisation: the two unweighted terms of MSN.

    With p the softmax of the scores divided by the temperature, q the targets, and k prototypes,

    .. math::
        -\frac{1}{A n} \sum_{ai} q_i \cdot \log p_{ai}, \quad
        \log k + \sum_j \bar p_j \log \bar p_j, \quad \bar p = \frac{1}{A n} \sum_{ai} p_{ai}.

    Parameters
    ----------
    scores : Tensor of shape (A, n, k)
        Similarities of A anchors of n images to the prototypes.
    targets : Tensor of shape (n, k)
        Probabilities of the prototypes by the targets; detached.
    temperature : float, default=0.1
        Temperature, greater than 0.

    Returns
    -------
    cross_entropy, me_max : Tensor of shape ()
        The terms. The second is 0 if all prototypes are predicted equally often, and log k if only one is.

    References
    ----------
    Assran et al., Masked Siamese Networks for Label-Efficient Learning, ECCV 2022, equation 1. The constant log k is
    the authors' code's.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import msn_terms
    >>> cross_entropy, me_max = msn_terms(torch.zeros(1, 2, 4), torch.eye(4)[:2])
    >>> round(cross_entropy.item(), 4), round(me_max.item(), 4)  # log 4, and even predictions
    (1.3863, 0.0)
    """
    log_p = (scores / temperature).log_softmax(2)
    mean = log_p.exp().mean((0, 1))
    cross_entropy = -(targets.detach() * log_p).sum(2).mean()
    return cross_entropy, math.log(len(mean)) - torch.special.entr(mean).sum()
