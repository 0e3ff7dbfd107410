"""Losses of the papers, as pure functions on tensors.

Every function takes embeddings as rows, normalises them itself where its formula has a cosine, returns a scalar
that can be differentiated, and computes in float32 (or float64) whatever precision the networks run in.
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
    "vicreg",
    "vicreg_terms",
]


def full_precision(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Keep a loss out of mixed precision: half-precision arguments become float32 and autocast is off inside."""

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

    Each of the 2n embeddings has the other view of its image as its positive and all the rest as negatives:

    .. math:: \ell_{ij} = -\log\frac{\exp(\cos(z_i, z_j)/t)}{\sum_{k \neq i}\exp(\cos(z_i, z_k)/t)},

    and the loss is the mean over the 2n anchors. (The reference code returns twice that: it adds the means over
    the two views.)

    Parameters
    ----------
    z1, z2 : Tensor of shape (n, d)
        Embeddings of the first and the second view of n images.
    temperature : float, default=0.5
        t, greater than 0.
    y : int64 Tensor of shape (n,), optional
        Classes, -1 where unknown. Other images of an anchor's known class leave its denominator; they do not become
        positives.

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
def info_nce(q: Tensor, k: Tensor, negatives: Tensor, temperature: float = 0.2) -> Tensor:
    r"""InfoNCE of queries against their own key and a set of negatives that all share.

    .. math:: -\log\frac{\exp(\cos(q_i, k_i)/t)}{\exp(\cos(q_i, k_i)/t) + \sum_j\exp(\cos(q_i, n_j)/t)},

    the mean over the queries.

    Parameters
    ----------
    q : Tensor of shape (n, d)
        Queries.
    k : Tensor of shape (n, d)
        The key of each query. Whether a gradient flows into it is the caller's affair.
    negatives : Tensor of shape (m, d)
        Negatives, such as MoCo's queue.
    temperature : float, default=0.2
        t, greater than 0.

    Returns
    -------
    Tensor of shape ()
        The loss.

    References
    ----------
    He et al., Momentum Contrast for Unsupervised Visual Representation Learning, CVPR 2020, equation 1.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import info_nce
    >>> x = torch.eye(4)
    >>> round(info_nce(x[:1], x[:1], x[1:], temperature=1.0).item(), 4)  # -log(e / (e + 3))
    0.7437
    """
    q, k, negatives = (F.normalize(x, dim=1) for x in (q, k, negatives))
    positive = (q * k).sum(1, keepdim=True)  # (n, 1)
    logits = torch.cat([positive, q @ negatives.T], dim=1) / temperature  # (n, 1 + m)
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))


def _negative_cosines(p: Tensor, z: Tensor) -> Tensor:
    """-cos(p_i, stop-gradient(z_i)) for every row: (n,)."""
    return -F.cosine_similarity(p, z.detach(), dim=1)


@full_precision
def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """Negative cosine similarity of predictions to targets that get no gradient, D(p, stopgrad(z)) of SimSiam.

    Parameters
    ----------
    p : Tensor of shape (n, d)
        Predictions; the gradient flows here.
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
    r"""BYOL's squared distance of normalised predictions and targets, of both directions.

    .. math:: \lVert \bar p_1 - \bar z_2 \rVert^2 + \lVert \bar p_2 - \bar z_1 \rVert^2,

    a sum of two terms (each 2 - 2 cos) and a mean over images: between 0 and 8. Auxiliary losses are weighed
    against this scale.

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
    >>> byol_loss(x, x, x, -x)  # the first direction is opposite, the second is right
    tensor(4.)
    """
    return (4 + 2 * _negative_cosines(p1, z2) + 2 * _negative_cosines(p2, z1)).mean()


def _nearest(z1: Tensor, z2: Tensor, z3: Tensor, z4: Tensor) -> Tensor:
    """Which of the distances 1-3, 1-4, 2-3, 2-4 is the smallest, the first of them in a tie: (n,) in 0..3."""
    squares = [(a - b).detach().square().sum(1) for a in (z1, z2) for b in (z3, z4)]
    index, least = torch.zeros_like(squares[0], dtype=torch.long), squares[0]
    for i, square in enumerate(squares[1:], start=1):  # torch.argmin does not promise the first of equals
        index = torch.where(square < least, i, index)
        least = torch.minimum(square, least)
    return index


def _guided(z1: Tensor, z2: Tensor, z3: Tensor, z4: Tensor, generator: torch.Generator | None) -> Tensor:
    return _nearest(z1, z2, z3, z4)


def _reverse(z1: Tensor, z2: Tensor, z3: Tensor, z4: Tensor, generator: torch.Generator | None) -> Tensor:
    return 3 - _nearest(z1, z2, z3, z4)  # the siblings of the nearest two


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
    r"""Guided stop-gradient: of two images' views, the two nearest are pulled away from each other.

    Image i has the projections ``z1[i], z2[i]`` and the predictions ``p1[i], p2[i]``; its pair is image
    ``partner[i]``. Of the four Euclidean distances between the one's projections and the other's, let that of view
    a of the first and view c of the second be the least. These two become the sources and their siblings the
    targets,

    .. math:: \tfrac12 D(p_{1a}, \mathrm{sg}(z_{1\bar a})) + \tfrac12 D(p_{2c}, \mathrm{sg}(z_{2\bar c})),

    with D the negative cosine, and the loss is the mean over pairs. Distances are those of the projections as they
    are, not normalised; no gradient passes through them nor through the choice.

    Parameters
    ----------
    p1, p2 : Tensor of shape (n, d)
        Predictions of the two views of the pairs' first images.
    z1, z2 : Tensor of shape (n, d)
        Their projections: SimSiam's own, BYOL's from the momentum network.
    partner : int64 Tensor of shape (n,)
        Which image is the second of pair i, usually a random permutation; fixed points are allowed.
    rule : {"guided", "random", "reverse"}, default="guided"
        "random" chooses one of the four ways for each pair, "reverse" makes the siblings of the nearest two the
        sources (the complement, not the farthest two).
    q : tuple (p3, p4, z3, z4) of Tensors of shape (n, d), optional
        Predictions and projections of two further views of every image, for its part as the second of a pair, as in
        the paper and its code. By default the first two views serve in both parts.
    generator : torch.Generator, optional
        Where "random" draws from.

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
    View 2 of image 0 and view 1 of image 1 are nearest, 0.22 apart, so that their predictions are the sources.

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
    """Sum of the squares of a matrix, without its diagonal."""
    return c.square().sum() - c.diagonal().square().sum()


@full_precision
def barlow_twins(z1: Tensor, z2: Tensor, lambd: float = 0.0051) -> Tensor:
    r"""Barlow Twins: the dimensions of one view correlate with those of the other, each with its own alone.

    With c the cross-correlation of the two views' dimensions over the batch,

    .. math:: \sum_i (1 - c_{ii})^2 + \lambda \sum_i \sum_{j \neq i} c_{ij}^2.

    Each view is brought to mean 0 and deviation 1 by its own statistics (biased, with BatchNorm's 1e-5 beneath the
    root, as in the reference code). Both sums grow with d, so that plain SGD needs the loss scaled down.

    Parameters
    ----------
    z1, z2 : Tensor of shape (n, d)
        Embeddings of the first and the second view of n images. The gradient flows into both.
    lambd : float, default=0.0051
        What the decorrelation weighs.

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
    r"""Invariance, variance and covariance, the three terms of VICReg, before they are weighed.

    .. math::
        s = \frac{1}{nd} \sum_{ij} (z_{ij} - z'_{ij})^2, \quad
        v = \frac{1}{2d} \sum_j \Bigl[\max\bigl(0, 1 - \sqrt{\mathrm{Var}_j(z) + 10^{-4}}\bigr)
        + \max\bigl(0, 1 - \sqrt{\mathrm{Var}_j(z') + 10^{-4}}\bigr)\Bigr], \quad
        c = \frac{1}{d} \sum_{i \neq j} \bigl[C(z)_{ij}^2 + C(z')_{ij}^2\bigr],

    variance and covariance C with the divisor n - 1.

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
    Bardes et al., VICReg: Variance-Invariance-Covariance Regularization, ICLR 2022, equations 1 to 5. As in the
    reference code, which the weights 25, 25 and 1 belong to, the squared distance is the mean over dimensions (the
    paper's is their sum) and the variance term is halved (the paper's is not).

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import vicreg_terms
    >>> z = torch.tensor([[2.0, 2.0], [-2.0, -2.0]])  # spread, but in one direction only
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
    """VICReg: views of an image agree, every dimension varies, and no two of them do so together.

    Parameters
    ----------
    z1, z2 : Tensor of shape (n, d)
        Embeddings of the first and the second view of n images, at least two, not normalised. The gradient flows into
        both.
    sim, var, cov : float, default=25.0, 25.0, 1.0
        What the invariance, the variance and the covariance of `vicreg_terms` weigh: lambda, mu and nu.

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
    >>> z = torch.zeros(3, 2)  # collapsed: only the variance says so
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
    r"""DINO: the student's distribution over prototypes agrees with the teacher's of every other view.

    .. math::
        -\frac{1}{G (V - 1)} \sum_{g=1}^{G} \sum_{v \neq g} \frac{1}{n} \sum_i
        \mathrm{softmax}\Bigl(\frac{t_{gi} - c}{\tau_t}\Bigr) \cdot
        \log \mathrm{softmax}\Bigl(\frac{s_{vi}}{\tau_s}\Bigr)

    Parameters
    ----------
    student : Tensor of shape (V, n, k)
        The student's scores of V views of n images. The first G views are those that the teacher saw.
    teacher : Tensor of shape (G, n, k)
        The teacher's scores, before its temperature; detached.
    center : Tensor of shape (k,)
        c, a running mean of the teacher's scores, which keeps one prototype from taking all.
    student_temperature, teacher_temperature : float or scalar Tensor, default=0.1, 0.04
        The lower one of the teacher makes its distribution the sharper one.

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
    >>> scores = torch.tensor([[[9.0, -9.0]], [[9.0, -9.0]]])  # two views of one image, of which both are sure
    >>> dino(scores, scores, center=torch.zeros(2)).item()
    0.0
    """
    target = F.softmax((teacher.detach() - center) / teacher_temperature, dim=2).flatten(1)  # (G, n * k)
    log_share = F.log_softmax(student / student_temperature, dim=2).flatten(1)  # (V, n * k)
    entropies = target @ log_share.T / -student.shape[1]  # (G, V)
    return (entropies.sum() - entropies.diagonal().sum()) / (len(target) * (len(log_share) - 1))


@full_precision
def prototype_scores(z: Tensor, prototypes: Tensor) -> Tensor:
    """Cosines of embeddings with prototypes of length one.

    Parameters
    ----------
    z : Tensor of shape (..., d)
        Embeddings; normalised here.
    prototypes : Tensor of shape (k, d)
        Prototypes; taken as they are.

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
    r"""Soft assignments of samples to prototypes that use all prototypes equally, by Sinkhorn and Knopp's iteration.

    .. math:: Q = \mathrm{Diag}(u)\, \exp(S / \varepsilon)\, \mathrm{Diag}(v).

    Every iteration first gives each prototype the same total, then each sample; the samples' comes last and is one. It
    works on logarithms, so that no epsilon overflows or leaves a prototype without any weight.

    Parameters
    ----------
    scores : Tensor of shape (n, k)
        Similarities of n samples and k prototypes.
    epsilon : float, default=0.05
        Weight of the entropy, greater than 0: the greater, the more even the assignments of a sample.
    n_iterations : int, default=3
        How many, at least 1.

    Returns
    -------
    Tensor of shape (n, k)
        Q, with rows that sum to one and columns that sum to about n / k. It has no gradient.

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
    r"""SwAV's loss: every view predicts the codes of the first views, except its own.

    .. math:: -\frac{1}{A} \sum_{a=1}^{A} \frac{1}{V - 1} \sum_{v \neq a} \frac{1}{n} \sum_{i=1}^{n}
        \sum_{j=1}^{k} q_{aij} \log\frac{\exp(s_{vij}/t)}{\sum_{l}\exp(s_{vil}/t)}.

    Parameters
    ----------
    scores : Tensor of shape (V, n, k)
        Scores of V views of n images for k prototypes.
    codes : Tensor of shape (A, n, k)
        Assignments of the first A views, the targets, A <= V; detached.
    temperature : float, default=0.1
        t, greater than 0.

    Returns
    -------
    Tensor of shape ()
        The loss. At ln k nothing has been learnt.

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
    r"""InfoNCE of every cell of a map against the cell of the other view that shows the same, as DenseCL has it.

    Cell s of the query's map corresponds to the cell of the key's that is nearest by the encoder's features F,

    .. math:: c_s = \arg\max_t \cos(F^q_s, F^k_t),

    and its loss is `info_nce` of :math:`q_s` against :math:`k_{c_s}` and the negatives; the mean is over all cells of
    all images. No gradient passes through the choice.

    Parameters
    ----------
    q, k : Tensor of shape (n, d, h, w)
        Dense embeddings of the two views. Whether a gradient flows into the keys is the caller's affair.
    q_map, k_map : Tensor of shape (n, c, h, w)
        The encoder's maps, before the head, of the same cells.
    negatives : Tensor of shape (m, d)
        Negatives that all cells share, such as a queue of other images' mean dense embeddings.
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
    The second view is mirrored, and so are the keys' cells. Where a cell's key is right, it is like any one query's.

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
    r"""ProtoNCE of PCL: queries against the prototypes of their clusters, each at a temperature of its own.

    .. math:: -\log\frac{\exp(\cos(q_i, c_{s(i)})/\phi_{s(i)})}
        {\sum_j\exp(\cos(q_i, c_{s(j)})/\phi_{s(j)}) + \sum_{r \in R}\exp(\cos(q_i, c_r)/\phi_r)},

    the mean over the queries. The first sum is over the whole batch, so that a prototype counts as often as the batch
    has queries of its cluster (the reference code's way); R are random others.

    Parameters
    ----------
    q : Tensor of shape (n, d)
        Queries.
    prototypes : Tensor of shape (k, d)
        The clusters' centres.
    concentration : Tensor of shape (k,)
        phi, greater than 0.
    assignment : int64 Tensor of shape (n,)
        s, each query's cluster.
    n_negatives : int
        How many there are in R, drawn from torch's global generator; of those that are left when there are fewer, all.

    Returns
    -------
    Tensor of shape ()
        The loss.

    References
    ----------
    Li et al., Prototypical Contrastive Learning of Unsupervised Representations, ICLR 2021, equation 11, for one of
    its clusterings and without its first term, which is `info_nce`.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import proto_nce
    >>> c = torch.eye(4)
    >>> loss = proto_nce(c[:1], c, torch.ones(4), torch.tensor([0]), n_negatives=3)
    >>> round(loss.item(), 4)  # -log(e / (e + 3))
    0.7437
    """
    drawn = torch.rand(len(prototypes), device=q.device).index_fill(0, assignment, -1.0)  # the batch's come last
    drawn, others = drawn.topk(min(n_negatives, len(prototypes)))
    chosen = torch.cat([assignment, others])
    logits = F.normalize(q, dim=1) @ F.normalize(prototypes, dim=1)[chosen].T / concentration[chosen]
    spare = torch.cat([torch.zeros_like(assignment, dtype=torch.bool), drawn < 0])
    logits = logits.masked_fill(spare, -torch.inf)  # where fewer are left
    return F.cross_entropy(logits, torch.arange(len(q), device=q.device))


def _others_of_class(y: Tensor) -> Tensor:
    """Which other images are known to be of an image's class: bool (n, n), False on the diagonal."""
    itself = torch.eye(len(y), dtype=torch.bool, device=y.device)
    return (y[:, None] == y) & (y >= 0) & ~itself


@full_precision
def sup_con(z: Tensor, y: Tensor, temperature: float = 0.1) -> Tensor:
    r"""Supervised contrastive loss: all views of an anchor's class are its positives.

    .. math:: \ell_i = -\frac{1}{|P(i)|}\sum_{p \in P(i)}
        \log\frac{\exp(\cos(z_i, z_p)/t)}{\sum_{a \neq i}\exp(\cos(z_i, z_a)/t)},

    the mean over the anchors, where P(i) is the other views of the anchor's image and all views of the images of its
    class. The logarithm is inside the sum over positives (the paper's L_out). An anchor without a positive, which
    there is among single views only, counts as no anchor. The factor t/0.07 of the reference code (1.43 at its t = 0.1)
    is left out, so that without labels this is `nt_xent`; it scales the learning rate.

    Parameters
    ----------
    z : Tensor of shape (n, views, d) or (n, d)
        Embeddings of one or more views of n images.
    y : int64 Tensor of shape (n,)
        Classes, -1 where unknown: such an image has its own other views alone for positives, and is a negative of all
        other images.
    temperature : float, default=0.1
        t, greater than 0.

    Returns
    -------
    Tensor of shape ()
        The loss; 0 where no anchor has a positive.

    References
    ----------
    Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, equation 2.

    Examples
    --------
    >>> import torch
    >>> from skssl.losses import sup_con
    >>> z = torch.eye(3)[[0, 0, 1, 2]]
    >>> round(sup_con(z, torch.tensor([7, 7, -1, -1]), temperature=1.0).item(), 4)  # -log(e / (e + 2)), of two anchors
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
def nce(log_p: Tensor, n_samples: int) -> Tensor:
    r"""Noise-contrastive estimation: tell an image's own memory from memories drawn evenly among all images.

    .. math:: -\log\frac{P_i}{P_i + K/N} - \sum_{k=1}^K \log\frac{K/N}{P_k + K/N},

    a sum over the K negatives and a mean over images, so that it is about 10 at first and the learning rate is tied
    to that. (The reference code adds 1e-7 to the denominators, which are not formed here: all is done in logarithms.)

    Parameters
    ----------
    log_p : Tensor of shape (n, 1 + K)
        The logarithm of each image's estimated probabilities of being one of N, that of being itself first, then those
        of K negatives, which are drawn with replacement among all N.
    n_samples : int
        N.

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
    odds = log_p - math.log((log_p.shape[1] - 1) / n_samples)  # of being the image rather than noise
    return -(F.logsigmoid(odds[:, 0]) + F.logsigmoid(-odds[:, 1:]).sum(1)).mean()
