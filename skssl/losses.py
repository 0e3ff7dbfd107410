"""Losses of the papers, as pure functions on tensors.

Every function takes embeddings as rows, normalises them itself where its formula has a cosine, returns a scalar
that can be differentiated, and computes in float32 (or float64) whatever precision the networks run in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from skssl.errors import pick

__all__ = [
    "byol_loss",
    "guided_stop_gradient",
    "info_nce",
    "negative_cosine",
    "nt_xent",
    "prototype_scores",
    "sinkhorn",
    "swapped_prediction",
]


def full_precision(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Keep a loss out of mixed precision: half-precision arguments become float32 and autocast is off inside."""

    def widen(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(widen, value))
        half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
        return value.float() if half else value

    @functools.wraps(loss)
    def wrapped(first: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        with torch.autocast(first.device.type, enabled=False):
            return loss(widen(first), *map(widen, args), **{name: widen(value) for name, value in kwargs.items()})

    return wrapped


@full_precision
def nt_xent(z1: Tensor, z2: Tensor, temperature: float = 0.5) -> Tensor:
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

    Returns
    -------
    Tensor of shape ()
        The loss, between 0 and log(2n - 1) + 2/t.

    References
    ----------
    Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020, equation 1.

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
