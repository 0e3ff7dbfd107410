"""k-means, and draws from all clusters alike, for the methods that cluster between epochs."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor


def k_means(x: Tensor, n_clusters: int, n_iterations: int) -> tuple[Tensor, Tensor]:
    """Cluster rows by scikit-learn's k-means, once, from randomly chosen rows.

    A cluster that loses its members is given the row that is farthest from its centre. It runs on the CPU, in one
    thread, as with more the same seed does not give the same bits.

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
    >>> from skssl.clusters import k_means
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
    return torch.from_numpy(found.cluster_centers_).to(x), torch.from_numpy(found.labels_).long().to(x.device)


def draw_evenly(label: Tensor) -> Tensor:
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
    >>> from skssl.clusters import draw_evenly
    >>> _ = torch.manual_seed(0)
    >>> label = torch.tensor([0, 0, 0, 0, 0, 1])
    >>> label[draw_evenly(label)].bincount().max()  # three of each
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
