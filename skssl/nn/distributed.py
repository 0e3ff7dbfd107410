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
    """Tell how many processes train together.

    Returns
    -------
    int
        1 unless this process has joined others.

    Examples
    --------
    >>> from skssl.nn.distributed import n_processes
    >>> n_processes()
    1
    """
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main_process() -> bool:
    """Tell whether this process is the one to write files and logs, and to warn of what all of them see.

    Returns
    -------
    bool
        True in the first process, and where there are no others.

    Examples
    --------
    >>> from skssl.nn.distributed import is_main_process
    >>> is_main_process()
    True
    """
    return rank() == 0


def rank() -> int:
    """Tell which of the processes this is.

    Returns
    -------
    int
        From 0 on.
    """
    return dist.get_rank() if n_processes() > 1 else 0


def init_process_group(device: torch.device) -> None:
    """Join the processes that ``torchrun`` has started with this one, if it has, and once.

    A group that the user has initialised is used as it is. What this process starts itself, such as joblib's workers,
    inherits torchrun's environment, but is none of its processes.

    Parameters
    ----------
    device : torch.device
        Where this process computes: GPUs talk by NCCL, CPUs by gloo.
    """
    wanted = int(os.environ.get("WORLD_SIZE", 1)) > 1 and multiprocessing.parent_process() is None
    if not wanted or not dist.is_available() or dist.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # where NCCL's own work goes
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    how: dict[str, Any] = {}
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
        # torchrun keeps one store for all restarts, in which those who start anew find addresses of the dead (PyTorch's
        # issue 135712). On one machine all count the restarts alike, and can keep apart what they write.
        store, own_rank, size = next(rendezvous("env://"))
        store = dist.PrefixStore(f"restart {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        how = {"store": store, "rank": own_rank, "world_size": size}
    dist.init_process_group(backend, **how)
    atexit.register(_leave)


def _leave() -> None:
    """End the group, unless the user has."""
    if dist.is_initialized():
        dist.destroy_process_group()


def all_gather(x: Tensor) -> Tensor:
    """Bring the rows of all processes together, with their gradients.

    A loss that is computed from all rows, by every process alike, has the gradient that it would have in one process:
    what flows back to a row is the sum over the processes, and the gradients of the weights are averaged.

    Parameters
    ----------
    x : Tensor of shape (n, ...)
        This process's rows; as many in each process.

    Returns
    -------
    Tensor of shape (n_processes * n, ...)
        All rows, in the order of the processes; `x` itself where there is one process.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.distributed import all_gather
    >>> all_gather(torch.arange(3))
    tensor([0, 1, 2])
    """
    return x if n_processes() == 1 else _Gather.apply(x)


class _Gather(torch.autograd.Function):
    """All rows forward; backward the sum of what the processes have for one's own rows."""

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
    """Look up one of torch's collectives by its name, or by the name before torch 2.14, which now warns."""
    return getattr(dist, name if hasattr(dist, name) else before)


def all_reduce_mean(x: Tensor) -> Tensor:
    """Average a tensor over the processes, with its gradient.

    Parameters
    ----------
    x : Tensor of any shape
        The same shape in each process.

    Returns
    -------
    Tensor of this shape
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
    """Take this process's rows.

    Parameters
    ----------
    x : Tensor of shape (n, ...)
        All rows; n is a multiple of the number of processes.

    Returns
    -------
    Tensor of shape (n / n_processes, ...)
        The process's own.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.distributed import local_rows
    >>> local_rows(torch.arange(3))
    tensor([0, 1, 2])
    """
    return x if n_processes() == 1 else x.chunk(n_processes())[rank()]


def broadcast(x: Tensor) -> Tensor:
    """Give all processes what the first has drawn or computed.

    Parameters
    ----------
    x : Tensor of any shape
        The same shape and type in each process.

    Returns
    -------
    Tensor of this shape
        The first process's.

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
    sent = sent.cuda() if dist.get_backend() == "nccl" else sent  # which knows nothing of CPUs
    dist.broadcast(sent, 0)
    return sent.to(x.device)


def shared_randperm(n: int, device: torch.device) -> Tensor:
    """Draw an order of the rows of all processes, the same in all of them.

    Parameters
    ----------
    n : int
        The number of rows.
    device : torch.device
        Where they are.

    Returns
    -------
    int64 Tensor of shape (n,)
        The numbers from 0 to n - 1.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.distributed import shared_randperm
    >>> shared_randperm(3, torch.device("cpu")).sort().values
    tensor([0, 1, 2])
    """
    # The remainder changes nothing, but keeps torch 2.11's compiler from a pattern of indexing that it fails with.
    return broadcast(torch.randperm(n, device=device) % n)


def draw_seed(random_state: Any) -> int:
    """Draw a training's seed, the same in all processes.

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
    """Give all processes the weights and buffers that the first has.

    Parameters
    ----------
    module : torch.nn.Module
        Of one form in each process.
    """
    if n_processes() > 1:
        for value in (*module.parameters(), *module.buffers()):
            value.copy_(broadcast(value))


def wrap_ddp(module: nn.Module) -> nn.Module:
    """Wrap a module such that its gradients are averaged over the processes as they are computed.

    Parameters
    ----------
    module : torch.nn.Module
        The same in each process. Which of its parameters have a gradient must not change from one step to the next;
        what is frozen or thawed between epochs needs a new wrapper.

    Returns
    -------
    torch.nn.Module
        torch's ``DistributedDataParallel``, or the module itself where there is one process.
    """
    if n_processes() == 1:
        return module
    wrapped = nn.parallel.DistributedDataParallel(module, init_sync=False, static_graph=True)
    wrapped.broadcast_buffers = False  # they are equal, as they follow from all rows
    return wrapped
