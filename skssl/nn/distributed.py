"""Distributed training: several processes train one network, each on its rows of every batch.

The processes are those that ``torchrun`` starts. With one process, every function here is the identity. The rows of a
batch are ordered by rank: `local_rows` selects this process's, and `all_gather` concatenates those of all processes.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

__all__ = [
    "all_gather",
    "all_reduce_mean",
    "broadcast",
    "draw_seed",
    "init_process_group",
    "is_main_process",
    "local_rows",
    "n_processes",
    "rank",
    "shared_randperm",
    "sync_parameters",
    "wrap_ddp",
]


def n_processes() -> int:
    """Return the number of processes that train together.

    Returns
    -------
    int
        The world size; 1 without a process group.

    Examples
    --------
    >>> from skssl.nn.distributed import n_processes
    >>> n_processes()
    1
    """
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main_process() -> bool:
    """Return whether this is the main process, which writes files and logs and issues the warnings.

    Returns
    -------
    bool
        True at rank 0, and without a process group.

    Examples
    --------
    >>> from skssl.nn.distributed import is_main_process
    >>> is_main_process()
    True
    """
    return rank() == 0


def rank() -> int:
    """Return the rank of this process.

    Returns
    -------
    int
        From 0 to `n_processes` - 1.
    """
    return dist.get_rank() if n_processes() > 1 else 0


def init_process_group(device: torch.device) -> None:
    """Initialise torch's process group if ``torchrun`` started this process; otherwise do nothing.

    A group that the user has initialised is kept. Child processes, such as joblib's workers, inherit torchrun's
    environment, but do not belong to its processes, and are ignored.

    Parameters
    ----------
    device : torch.device
        The device of this process. GPUs communicate by NCCL, CPUs by gloo.
    """
    wanted = int(os.environ.get("WORLD_SIZE", 1)) > 1 and multiprocessing.parent_process() is None
    if not wanted or not dist.is_available() or dist.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL works on the current device
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    how: dict[str, Any] = {}
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
        # torchrun keeps one store for all restarts, so that restarted workers read the addresses of dead ones (PyTorch
        # issue 135712). On one machine all workers have the same restart count, which makes a prefix for their keys.
        store, own_rank, size = next(rendezvous("env://"))
        store = dist.PrefixStore(f"restart {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        how = {"store": store, "rank": own_rank, "world_size": size}
    dist.init_process_group(backend, **how)
    atexit.register(_destroy_process_group)


def _destroy_process_group() -> None:
    """Destroy the process group, unless the user did."""
    if dist.is_initialized():
        dist.destroy_process_group()


def all_gather(x: Tensor) -> Tensor:
    """Concatenate the rows of all processes; gradients flow back to each process's rows.

    Every process computes the same loss from all rows. The gradient of a row is summed over the processes, and
    DistributedDataParallel averages the gradients of the weights. The result is the gradient of a single process.

    Parameters
    ----------
    x : Tensor of shape (n, ...)
        This process's rows; n is the same in each process.

    Returns
    -------
    Tensor of shape (n_processes * n, ...)
        All rows, ordered by rank; `x` itself with one process.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.distributed import all_gather
    >>> all_gather(torch.arange(3))
    tensor([0, 1, 2])
    """
    return x if n_processes() == 1 else _AllGather.apply(x)


class _AllGather(torch.autograd.Function):
    """All-gather in the forward pass, reduce-scatter (a sum) in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        found = x.new_empty((n_processes() * len(x), *x.shape[1:]))
        _collective("all_gather_single", "all_gather_into_tensor")(found, x.contiguous())
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        own = grad.new_empty((len(grad) // n_processes(), *grad.shape[1:]))
        _collective("reduce_scatter_single", "reduce_scatter_tensor")(own, grad.contiguous())
        return own


def _collective(name: str, before: str) -> Callable[[Tensor, Tensor], Any]:
    """Return one of torch's collectives. torch 2.14 renamed them; the old names warn."""
    return getattr(dist, name if hasattr(dist, name) else before)


def all_reduce_mean(x: Tensor) -> Tensor:
    """Return the mean of a tensor over the processes, with its gradient.

    Parameters
    ----------
    x : Tensor of any shape
        The shape is the same in each process.

    Returns
    -------
    Tensor of the same shape
        The mean.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.distributed import all_reduce_mean
    >>> all_reduce_mean(torch.tensor(2.0))
    tensor(2.)
    """
    return x if n_processes() == 1 else all_gather(x[None]).mean(0)


def local_rows(x: Tensor) -> Tensor:
    """Return this process's rows of a batch.

    Parameters
    ----------
    x : Tensor of shape (n, ...)
        The rows of all processes; n is a multiple of `n_processes`.

    Returns
    -------
    Tensor of shape (n / n_processes, ...)
        This process's rows.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.distributed import local_rows
    >>> local_rows(torch.arange(3))
    tensor([0, 1, 2])
    """
    return x if n_processes() == 1 else x.chunk(n_processes())[rank()]


def broadcast(x: Tensor) -> Tensor:
    """Return the tensor of rank 0 in all processes.

    Parameters
    ----------
    x : Tensor of any shape
        The shape and the dtype are the same in each process.

    Returns
    -------
    Tensor of the same shape
        The tensor of rank 0, without a gradient; `x` itself with one process.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.distributed import broadcast
    >>> broadcast(torch.arange(3))
    tensor([0, 1, 2])
    """
    if n_processes() == 1:
        return x
    sent = x.detach().clone(memory_format=torch.contiguous_format)
    sent = sent.cuda() if dist.get_backend() == "nccl" else sent  # NCCL cannot send CPU tensors
    dist.broadcast(sent, 0)
    return sent.to(x.device)


def shared_randperm(n: int, device: torch.device) -> Tensor:
    """Draw a random permutation that is the same in all processes.

    Parameters
    ----------
    n : int
        Length of the permutation.
    device : torch.device
        Device of the result.

    Returns
    -------
    int64 Tensor of shape (n,)
        A permutation of 0 to n - 1.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.distributed import shared_randperm
    >>> shared_randperm(3, torch.device("cpu")).sort().values
    tensor([0, 1, 2])
    """
    # The remainder does not change the numbers. It avoids an indexing pattern that the compiler of torch 2.11 fails on.
    return broadcast(torch.randperm(n, device=device) % n)


def draw_seed(random_state: Any) -> int:
    """Draw the seed of a training, the same in all processes.

    Parameters
    ----------
    random_state : int, RandomState instance or None
        As in scikit-learn's estimators.

    Returns
    -------
    int
        The seed.

    Examples
    --------
    >>> from skssl.nn.distributed import draw_seed
    >>> draw_seed(0) == draw_seed(0)
    True
    """
    return int(broadcast(torch.tensor(check_random_state(random_state).randint(np.iinfo(np.int32).max))))


@torch.no_grad()
def sync_parameters(module: nn.Module) -> None:
    """Copy the parameters and buffers of rank 0 to all processes.

    Parameters
    ----------
    module : torch.nn.Module
        A module with the same parameters and buffers, by shape, in each process. It is changed in place.
    """
    if n_processes() > 1:
        for value in (*module.parameters(), *module.buffers()):
            value.copy_(broadcast(value))


def wrap_ddp(module: nn.Module) -> nn.Module:
    """Wrap a module in DistributedDataParallel, which averages the gradients over the processes.

    Parameters
    ----------
    module : torch.nn.Module
        A module that is equal in each process. The set of parameters with a gradient must not change between steps.
        Wrap the module again after freezing or unfreezing parameters.

    Returns
    -------
    torch.nn.Module
        The wrapper, or the module itself with one process.
    """
    if n_processes() == 1:
        return module
    wrapped = nn.parallel.DistributedDataParallel(module, init_sync=False, static_graph=True)
    wrapped.broadcast_buffers = False  # computed from all rows, they are equal in all processes
    return wrapped
