"""Contrastive losses: an image is told from others."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from skssl.losses.precision import full_precision


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
