"""Losses of a batch's statistics: variances, correlations, whitening and the shape of the distribution."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from skssl.losses.precision import full_precision
from skssl.losses.prediction import negative_cosine


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
