"""Embeddings of earlier steps: a queue of recent ones, and a memory bank with one per training image."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from skssl.nn.distributed import all_gather, n_processes

GATHER_BELOW = 1 / 16  # of the bank's size: with fewer memories an image, gathering them beats scoring the whole bank


class Queue(nn.Module):
    """A first-in, first-out queue of embeddings of past batches.

    Parameters
    ----------
    size : int
        Number of embeddings.
    dim : int
        Width of the embeddings.

    Attributes
    ----------
    items : Tensor of shape (size, dim)
        The embeddings, initially random unit vectors.
    pushed : int64 Tensor of shape ()
        Number of embeddings pushed so far.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.memories import Queue
    >>> queue = Queue(size=3, dim=1)
    >>> for batch in ([[1.0], [2.0]], [[3.0], [4.0]]):
    ...     queue.push(torch.tensor(batch))
    >>> queue.items.flatten()  # 4 replaces 1
    tensor([4., 2., 3.])
    """

    items: Tensor
    pushed: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("items", nn.functional.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.long))

    @property
    def pointer(self) -> Tensor:
        """Index of the oldest embedding, a Tensor of shape ()."""
        return self.pushed % len(self.items)

    @property
    def full(self) -> bool:
        """True once all initial random entries are replaced. Reading it synchronises with the device."""
        return bool(self.pushed >= len(self.items))

    @torch.no_grad()
    def nearest(self, z: Tensor) -> Tensor:
        """Return the embedding in the queue that is most similar to each of some embeddings.

        Parameters
        ----------
        z : Tensor of shape (n, dim)
            The embeddings.

        Returns
        -------
        Tensor of shape (n, dim)
            The neighbours by inner product, without a gradient.
        """
        with torch.autocast(z.device.type, enabled=False):
            return self.items[(z.to(self.items.dtype) @ self.items.T).argmax(1)]

    @torch.no_grad()
    def push(self, batch: Tensor) -> None:
        """Replace the oldest embeddings by a batch.

        Parameters
        ----------
        batch : Tensor of shape (n, dim)
            The new embeddings of all processes. If n exceeds the queue's size, the last ones are kept.
        """
        batch = batch[-len(self.items) :].to(self.items.dtype)
        index = (self.pointer + torch.arange(len(batch), device=batch.device)) % len(self.items)
        self.items.index_copy_(0, index, batch)
        self.pushed.add_(len(batch))


class MemoryBank(nn.Module):
    """A memory bank: one vector per training image, without gradient.

    Parameters
    ----------
    size : int
        Number of training images, N.
    dim : int
        Width of the embeddings.
    momentum : float, default=0.5
        Weight of the old vector in an update.
    fixed_z : bool, default=False
        Whether the normaliser Z is that of the first batch, as in the reference code, or of each batch. Z has no
        gradient. A fixed Z is that of a random bank. It becomes too small as embeddings cluster early in training:
        all probabilities are too high, the negatives dominate, and embeddings collapse into few dimensions.

    Attributes
    ----------
    items : Tensor of shape (size, dim)
        The vectors, of length one, initially random (the reference code's have about that length).
    log_z : Tensor of shape ()
        The logarithm of the normaliser Z; nan before the first batch.

    References
    ----------
    Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018, section 3.2.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.memories import MemoryBank
    >>> bank = MemoryBank(size=3, dim=2)
    >>> _ = bank.items.copy_(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    >>> bank.update(torch.tensor([1]), torch.tensor([[0.0, 5.0]]))
    >>> bank.scores(torch.tensor([[2.0, 0.0]]))
    tensor([[1.0000, 0.7071, 0.0000]])
    """

    items: Tensor
    log_z: Tensor

    def __init__(self, size: int, dim: int, momentum: float = 0.5, *, fixed_z: bool = False) -> None:
        super().__init__()
        self.momentum, self.fixed_z = momentum, fixed_z
        self.register_buffer("items", nn.functional.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("log_z", torch.tensor(torch.nan))

    def scores(self, v: Tensor, index: Tensor | None = None) -> Tensor:
        """Compute the cosines of embeddings and memories, in full precision.

        Parameters
        ----------
        v : Tensor of shape (n, dim)
            Embeddings.
        index : int64 Tensor of shape (n, k), optional
            The memories to compare each embedding with. By default all.

        Returns
        -------
        Tensor of shape (n, k) or (n, size)
            The cosines.
        """
        with torch.autocast(v.device.type, enabled=False):
            v = nn.functional.normalize(v.to(self.items.dtype), dim=1)
            if index is not None and index.shape[1] < GATHER_BELOW * len(self.items):
                return (self.items[index] @ v[:, :, None]).squeeze(2)  # (n, k, dim)
            scores = v @ self.items.clone().T  # a copy: the bank is updated before the backward pass
            return scores if index is None else scores.gather(1, index)

    def log_p(self, v: Tensor, index: Tensor, n_negatives: int, temperature: float) -> Tensor:
        """Estimate the log-probabilities of each embedding's image and of random negatives.

        Parameters
        ----------
        v : Tensor of shape (n, dim)
            Embeddings.
        index : int64 Tensor of shape (n,)
            Indices of their images.
        n_negatives : int
            Number of negatives per embedding, drawn uniformly with replacement from all images, its own included.
        temperature : float
            t, greater than 0.

        Returns
        -------
        Tensor of shape (n, 1 + n_negatives)
            The logarithm of exp(cos / t) / Z, the embedding's image first. Z is the number of images times the mean of
            exp(cos / t) over the rows of all processes, in this call or, if Z is fixed, in the first call.
        """
        others = torch.randint(len(self.items), (len(index), n_negatives), device=index.device)
        logits = self.scores(v, torch.cat([index[:, None], others], dim=1)) / temperature
        sums = all_gather(logits.detach().flatten().logsumexp(0, keepdim=True))
        estimate = sums.logsumexp(0) + math.log(len(self.items) / (n_processes() * logits.numel()))
        self.log_z.copy_(torch.where(self.log_z.isnan(), estimate, self.log_z) if self.fixed_z else estimate)
        return logits - self.log_z

    @torch.no_grad()
    def update(self, index: Tensor, v: Tensor) -> None:
        """Move the vectors of images towards their embeddings and normalise them, for the rows of all processes.

        Parameters
        ----------
        index : int64 Tensor of shape (n,)
            Indices of the images, all different.
        v : Tensor of shape (n, dim)
            Their embeddings, of any length.
        """
        index, v = all_gather(index), nn.functional.normalize(all_gather(v).to(self.items.dtype), dim=1)
        moved = self.momentum * self.items[index] + (1 - self.momentum) * v
        self.items.index_copy_(0, index, nn.functional.normalize(moved, dim=1))
