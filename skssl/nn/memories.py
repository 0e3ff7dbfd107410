"""Embeddings kept from earlier steps: a queue, and a memory bank with one for each image."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from skssl.nn.distributed import all_gather, n_processes


class Queue(nn.Module):
    """The embeddings of past batches, the oldest of which make room for new ones.

    Parameters
    ----------
    size : int
        How many it holds.
    dim : int
        Their width.

    Attributes
    ----------
    items : Tensor of shape (size, dim)
        The embeddings; random directions of length one at first.
    pushed : int64 Tensor of shape ()
        How many it has ever taken in.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.memories import Queue
    >>> queue = Queue(size=3, dim=1)
    >>> for batch in ([[1.0], [2.0]], [[3.0], [4.0]]):
    ...     queue.push(torch.tensor(batch))
    >>> queue.items.flatten()  # 4 has taken the place of 1
    tensor([4., 2., 3.])
    """

    items: Tensor
    pushed: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("items", nn.functional.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.long))

    @property
    def place(self) -> Tensor:
        """Where the oldest is, a Tensor of shape ()."""
        return self.pushed % len(self.items)

    @property
    def full(self) -> bool:
        """Whether nothing is left of what it held at first. Asking waits for the device."""
        return bool(self.pushed >= len(self.items))

    @torch.no_grad()
    def push(self, batch: Tensor) -> None:
        """Let a batch take the places of the oldest.

        Parameters
        ----------
        batch : Tensor of shape (n, dim)
            What is new, gathered from all processes; of more than the queue holds, the last.
        """
        batch = batch[-len(self.items) :].to(self.items.dtype)
        index = (self.place + torch.arange(len(batch), device=batch.device)) % len(self.items)
        self.items.index_copy_(0, index, batch)
        self.pushed.add_(len(batch))


class MemoryBank(nn.Module):
    """A vector for every training image, to compare embeddings with; no gradient reaches it.

    Parameters
    ----------
    size : int
        Number of training images, N.
    dim : int
        Width of the embeddings.
    momentum : float, default=0.5
        What a vector keeps of itself in an update.
    fixed_z : bool, default=False
        Whether the normaliser Z stays that of the first batch, as in the reference code, or is each batch's own. Z has
        no gradient. Fixed, it is that of a random bank: as soon as embeddings gather, which they do at the start, all
        probabilities are far too high, the negatives' pushes outweigh the positive's pull by their sum, and embeddings
        chase each other's memories into few dimensions.

    Attributes
    ----------
    items : Tensor of shape (size, dim)
        The vectors, of length one; random directions at first (the reference code's are of about that length).
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
        """Compare embeddings with memories by their cosine, in full precision.

        Parameters
        ----------
        v : Tensor of shape (n, dim)
            Embeddings.
        index : int64 Tensor of shape (n, k), optional
            With which memories each of them; by default with all.

        Returns
        -------
        Tensor of shape (n, k) or (n, size)
            The cosines.
        """
        with torch.autocast(v.device.type, enabled=False):
            v = nn.functional.normalize(v.to(self.items.dtype), dim=1)
            if index is not None and len(self.items) > 16 * index.shape[1]:
                return (self.items[index] @ v[:, :, None]).squeeze(2)  # (n, k, dim) is smaller than the work on all
            scores = v @ self.items.clone().T  # a copy, since the bank moves before the backward pass
            return scores if index is None else scores.gather(1, index)

    def log_p(self, v: Tensor, index: Tensor, n_negatives: int, temperature: float) -> Tensor:
        """Estimate how probable each embedding makes its own image, and others that are drawn among all.

        Parameters
        ----------
        v : Tensor of shape (n, dim)
            Embeddings.
        index : int64 Tensor of shape (n,)
            Which images they are of.
        n_negatives : int
            How many others are drawn for each, evenly and with replacement among all, itself included.
        temperature : float
            t, greater than 0.

        Returns
        -------
        Tensor of shape (n, 1 + n_negatives)
            The logarithm of exp(cos / t) / Z, that of the own image first. Z is the mean of exp(cos / t) here or, if
            it is fixed, in the first call, times the number of images. The mean is over the rows of all processes.
        """
        others = torch.randint(len(self.items), (len(index), n_negatives), device=index.device)
        logits = self.scores(v, torch.cat([index[:, None], others], dim=1)) / temperature
        sums = all_gather(logits.detach().flatten().logsumexp(0, keepdim=True))
        estimate = sums.logsumexp(0) + math.log(len(self.items) / (n_processes() * logits.numel()))
        self.log_z.copy_(torch.where(self.log_z.isnan(), estimate, self.log_z) if self.fixed_z else estimate)
        return logits - self.log_z

    @torch.no_grad()
    def update(self, index: Tensor, v: Tensor) -> None:
        """Move the images' vectors, of all processes, towards their embeddings, and back to length one.

        Parameters
        ----------
        index : int64 Tensor of shape (n,)
            Which images, each once.
        v : Tensor of shape (n, dim)
            Their embeddings, of any length.
        """
        index, v = all_gather(index), nn.functional.normalize(all_gather(v).to(self.items.dtype), dim=1)
        moved = self.momentum * self.items[index] + (1 - self.momentum) * v
        self.items.index_copy_(0, index, nn.functional.normalize(moved, dim=1))
