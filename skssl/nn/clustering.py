"""Clustering between epochs: k-means, concentrations of clusters, and samples balanced over clusters."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from skssl.nn.distributed import broadcast


def k_means(x: Tensor, n_clusters: int, n_iterations: int) -> tuple[Tensor, Tensor]:
    """Cluster rows by one run of scikit-learn's k-means, initialised with random rows.

    An empty cluster is moved to the row that is farthest from its centre. k-means runs on the CPU in one thread,
    because several threads are not reproducible to the bit. All processes return the result of rank 0.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        The rows.
    n_clusters : int
        Number of clusters, at most n.
    n_iterations : int
        Maximum number of iterations.

    Returns
    -------
    centers : Tensor of shape (n_clusters, d)
        The centres of the clusters.
    label : int64 Tensor of shape (n,)
        The cluster of each row.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.clustering import k_means
    >>> _ = torch.manual_seed(0)  # the draws are torch's
    >>> k_means(torch.tensor([[0.0], [1.0], [8.0], [9.0]]), n_clusters=2, n_iterations=10)[0].sort(0).values
    tensor([[0.5000],
            [8.5000]])
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    seed = int(torch.randint(2**31 - 1, ()))
    found = KMeans(n_clusters, init="random", n_init=1, max_iter=n_iterations, random_state=seed)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters
        found.fit(x.cpu().numpy())
    centers, label = broadcast(torch.from_numpy(found.cluster_centers_)), broadcast(torch.from_numpy(found.labels_))
    return centers.to(x), label.long().to(x.device)


def balanced_sample(label: Tensor) -> Tensor:
    """Draw n of n rows in random order, equally many from each cluster.

    Parameters
    ----------
    label : int64 Tensor of shape (n,)
        The cluster of each row, on the CPU.

    Returns
    -------
    int64 Tensor of shape (n,)
        Indices of rows: n / k from each of the k nonempty clusters, up to rounding. Clusters with at least n / k rows
        are sampled without replacement, smaller clusters with replacement.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.clustering import balanced_sample
    >>> _ = torch.manual_seed(0)
    >>> label = torch.tensor([0, 0, 0, 0, 0, 1])
    >>> label[balanced_sample(label)].bincount().max()  # three of each
    tensor(3)
    """
    sizes = label.bincount()
    share = math.ceil(len(label) / int(sizes.count_nonzero()))
    rows = []
    for members in label.argsort(stable=True).split(sizes.tolist()):
        size = len(members)
        if size:
            rows.append(members[torch.randperm(size)[:share] if size >= share else torch.randint(size, (share,))])
    drawn = torch.cat(rows)
    return drawn[torch.randperm(len(drawn))[: len(label)]]


def concentration(z: Tensor, centers: Tensor, assignment: Tensor, temperature: float) -> Tensor:
    """Estimate the concentration of each cluster.

    It is the mean distance of its m members to its centre, divided by log(m + 10). Clusters of one member get the
    largest value. All values are clipped to their percentiles 10 and 90, and scaled to a mean of `temperature`.

    Parameters
    ----------
    z : Tensor of shape (n, d)
        Embeddings.
    centers : Tensor of shape (k, d)
        Centres of k-means, not normalised.
    assignment : int64 Tensor of shape (n,)
        The cluster of each embedding.
    temperature : float
        The mean concentration.

    Returns
    -------
    Tensor of shape (k,)
        phi, greater than 0. Small values are compact clusters.

    References
    ----------
    Li et al., Prototypical Contrastive Learning of Unsupervised Representations, ICLR 2021, equation 12; percentiles
    and clusters of one member are the reference code's.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.clustering import concentration
    >>> z = torch.tensor([[0.0], [2.0], [7.0], [11.0]])
    >>> concentration(z, torch.tensor([[1.0], [9.0]]), torch.tensor([0, 0, 1, 1]), temperature=0.3)  # about 1 to 2
    tensor([0.2200, 0.3800])
    """
    members = torch.bincount(assignment, minlength=len(centers)).to(z.dtype)
    distances = (z - centers[assignment]).norm(dim=1)
    phi = distances.new_zeros(len(centers)).index_add_(0, assignment, distances) / members / (members + 10).log()
    phi = torch.where(members > 1, phi, 0.0)
    phi = torch.where(members > 1, phi, phi.max())
    low, high = phi.quantile(0.1).item(), phi.quantile(0.9).item()
    phi = phi.clamp(max(low, high / 1000, torch.finfo(phi.dtype).tiny), max(high, torch.finfo(phi.dtype).tiny))
    return temperature * phi / phi.mean()
