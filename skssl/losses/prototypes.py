"""Losses that compare assignments: to prototypes, to a teacher's outputs, or to other images."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from skssl.losses.precision import full_precision


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
