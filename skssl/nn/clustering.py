"""k-means, how wide its clusters are, and draws from all of them alike, for the methods that cluster between epochs."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from skssl.nn.distributed import broadcast


def k_means(x: Tensor, n_clusters: int, n_iterations: int) -> tuple[Tensor, Tensor]:
    """Cluster rows by scikit-learn's k-means, once, from randomly chosen rows.

    A cluster that loses its members is given the row that is farthest from its centre. It runs on the CPU, in one
    thread, as with more the same seed does not give the same bits. All processes get what the first has found.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        The rows.
    n_clusters : int
        How many clusters; no more than n.
    n_iterations : int
        At most so many iterations.

    Returns
    -------
    centers : Tensor of shape (n_clusters, d)
        Their centres.
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
        warnings.simplefilter("ignore", ConvergenceWarning)  # of fewer distinct rows than clusters
        found.fit(x.cpu().numpy())
    centers, label = broadcast(torch.from_numpy(found.cluster_centers_)), broadcast(torch.from_numpy(found.labels_))
    return centers.to(x), label.long().to(x.device)


def balanced_sample(label: Tensor) -> Tensor:
    """Draw as many rows as there are, from all clusters alike and in a random order.

    Parameters
    ----------
    label : int64 Tensor of shape (n,)
        The cluster of each row, on the CPU.

    Returns
    -------
    int64 Tensor of shape (n,)
        Rows: n / k from each of k clusters that have any, up to rounding. None comes twice where a cluster has enough;
        where it has not, they are drawn with replacement.

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
    """Estimate how wide each cluster is, phi: the mean distance of its members by the logarithm of their number + 10.

    Clusters of one member get the widest of the others, all are clipped to the percentiles from 10 to 90, and scaled
    such that their mean is the temperature.

    Parameters
    ----------
    z : Tensor of shape (n, d)
        Embeddings.
    centers : Tensor of shape (k, d)
        K-means' centres as they are, not normalised.
    assignment : int64 Tensor of shape (n,)
        Each embedding's cluster.
    temperature : float
        The mean.

    Returns
    -------
    Tensor of shape (k,)
        Greater than 0.

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
