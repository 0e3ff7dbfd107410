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
    "barlow_twins",
    "byol_loss",
    "contrastive_loss",
    "correspondence",
    "dcl",
    "dense_info_nce",
    "dino",
    "guided_stop_gradient",
    "info_nce",
    "nce",
    "negative_cosine",
    "nt_xent",
    "proto_nce",
    "prototype_scores",
    "sinkhorn",
    "sup_con",
    "swapped_prediction",
    "triplet_loss",
    "vicreg",
    "vicreg_terms",
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
    Yeh et al., Decoupled Contrastive Learning, ECCV 2022, equations 5 and 6, as means instead of sums.

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
    """Return the sum of the squared off-diagonal entries of a matrix."""
    return c.square().sum() - c.diagonal().square().sum()


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
    z1, z2 : Tensor of shape (n, d)
        Embeddings of the first and the second view of n images, at least two. The gradient flows into both.

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
    centred = [z - z.mean(0) for z in (z1, z2)]
    deviations = [(z.square().sum(0) / (len(z) - 1) + 1e-4).sqrt() for z in centred]
    variance = torch.stack([F.relu(1 - deviation).mean() for deviation in deviations]).mean()
    covariances = [z.T @ z / (len(z) - 1) for z in centred]  # (d, d)
    covariance = torch.stack([_off_diagonal(c) / len(c) for c in covariances]).sum()
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
