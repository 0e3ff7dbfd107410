"""Several processes that train one network, each on its share of every batch, as ``torchrun`` starts them.

All of it is the identity where there is one process only. Rows of a batch lie on the processes in their order: `share`
takes a process's own, `gather` brings all of them together. BatchNorm is here, too: by the rows of all processes, or by
groups of a process's own.
"""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = [
    "agree",
    "average",
    "draw_seed",
    "gather",
    "grouped",
    "is_writer",
    "join",
    "n_processes",
    "parallel",
    "permutation",
    "rank",
    "same",
    "share",
    "synchronized",
]


def n_processes() -> int:
    """Tell how many processes train together.

    Returns
    -------
    int
        1 unless this process has joined others.

    Examples
    --------
    >>> from skssl.distributed import n_processes
    >>> n_processes()
    1
    """
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_writer() -> bool:
    """Tell whether this process is the one to write files and logs, and to warn of what all of them see.

    Returns
    -------
    bool
        True in the first process, and where there are no others.

    Examples
    --------
    >>> from skssl.distributed import is_writer
    >>> is_writer()
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


def join(device: torch.device) -> None:
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


def gather(x: Tensor) -> Tensor:
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
    >>> from skssl.distributed import gather
    >>> gather(torch.arange(3))
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


def average(x: Tensor) -> Tensor:
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
    >>> from skssl.distributed import average
    >>> average(torch.tensor(2.0))
    tensor(2.)
    """
    return x if n_processes() == 1 else gather(x[None]).mean(0)


def share(x: Tensor) -> Tensor:
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
    >>> from skssl.distributed import share
    >>> share(torch.arange(3))
    tensor([0, 1, 2])
    """
    return x if n_processes() == 1 else x.chunk(n_processes())[rank()]


def same(x: Tensor) -> Tensor:
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
    >>> from skssl.distributed import same
    >>> same(torch.arange(3))
    tensor([0, 1, 2])
    """
    if n_processes() == 1:
        return x
    sent = x.detach().clone(memory_format=torch.contiguous_format)
    sent = sent.cuda() if dist.get_backend() == "nccl" else sent  # which knows nothing of CPUs
    dist.broadcast(sent, 0)
    return sent.to(x.device)


def permutation(n: int, device: torch.device) -> Tensor:
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
    >>> from skssl.distributed import permutation
    >>> permutation(3, torch.device("cpu")).sort().values
    tensor([0, 1, 2])
    """
    # The remainder changes nothing, but keeps torch 2.11's compiler from a pattern of indexing that it fails with.
    return same(torch.randperm(n, device=device) % n)


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
    >>> from skssl.distributed import draw_seed
    >>> draw_seed(0) == draw_seed(0)
    True
    """
    return int(same(torch.tensor(check_random_state(random_state).randint(np.iinfo(np.int32).max))))


@torch.no_grad()
def agree(module: nn.Module) -> None:
    """Give all processes the weights and buffers that the first has.

    Parameters
    ----------
    module : torch.nn.Module
        Of one form in each process.
    """
    if n_processes() > 1:
        for value in (*module.parameters(), *module.buffers()):
            value.copy_(same(value))


def parallel(module: nn.Module) -> nn.Module:
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


class _InGroups(_BatchNorm):
    """BatchNorm that can normalise groups of its rows by themselves, in one pass; mixed into a layer's own class.

    `synchronized` and `grouped` give layers a class with it, and their own again.
    """

    groups = 0  # of this process's rows; 0: the layer is what it is otherwise
    plain = True  # whether its own class only normalises
    BY_MOMENTS: ClassVar[tuple[str, ...]] = ("cuda",)  # types of device on which that is the faster way

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, c, ...)."""
        if not self.groups or not (self.training or self.running_mean is None):
            return super().forward(x)
        if not self.plain:
            return torch.cat([super(_InGroups, self).forward(part) for part in x.tensor_split(self.groups)])
        larger = len(x) % self.groups  # so many groups have a row more, and come first
        rows = larger * (len(x) // self.groups + 1)
        parts = [(x[:rows], larger), (x[rows:], self.groups - larger)] if larger else [(x, self.groups)]
        outputs, statistics = zip(*(self._normalize(part, n) for part, n in parts), strict=True)
        with torch.no_grad():
            self._follow(gather(statistics[0] if len(parts) == 1 else torch.cat(statistics)))
        return outputs[0] if len(parts) == 1 else torch.cat(outputs)

    def _normalize(self, x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """Normalise groups of one size as if their channels were side by side; also give (g, 2, c) statistics."""
        if x.device.type in self.BY_MOMENTS:
            return self._normalize_by_moments(x, groups)
        wide = x.movedim(1, -1).unflatten(0, (groups, -1)).movedim(0, -2).flatten(-2).movedim(-1, 1)  # (m, g * c, ...)
        known = torch.promote_types(x.dtype, torch.float32) if self.running_mean is None else self.running_mean.dtype
        statistics = x.new_zeros((2, wide.shape[1]), dtype=known)
        weight, bias = (None if p is None else p.repeat(groups) for p in (self.weight, self.bias))
        mean, variance = statistics
        wide = F.batch_norm(wide, mean, variance, weight, bias, training=True, momentum=1.0, eps=self.eps)
        found = wide.movedim(1, -1).unflatten(-1, (groups, -1)).movedim(-2, 0).flatten(0, 1).movedim(-1, 1)
        return found, statistics.unflatten(1, (groups, -1)).transpose(0, 1)

    def _normalize_by_moments(self, x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """Do the same without moving the pixels: a reduction and a product, where each is one kernel."""
        rows = x.movedim(1, -1).reshape(groups, -1, x.shape[1])  # (g, m * h * w, c): no copy with the channels last
        known = torch.promote_types(x.dtype, torch.float32)
        rows = rows.to(known)
        variance, mean = torch.var_mean(rows, 1, correction=0)  # (g, c)
        found = (rows - mean[:, None]) * (variance + self.eps).rsqrt()[:, None]
        found = found if self.weight is None else found * self.weight
        found = found if self.bias is None else found + self.bias
        found = found.to(x.dtype).view(len(x), *x.shape[2:], x.shape[1]).movedim(-1, 1)
        n = rows.shape[1]
        return found, torch.stack((mean, variance * (n / max(n - 1, 1))), 1).detach()

    def _follow(self, statistics: Tensor) -> None:
        """Move the running statistics as by one batch after the other: (k, 2, c), means and unbiased variances."""
        if self.running_mean is None or self.running_var is None:
            return
        k, seen = len(statistics), self.num_batches_tracked
        if self.momentum is None and seen is not None:  # the mean over all batches
            weights = (1 / (seen + k).to(statistics.dtype)).expand(k)
        else:
            rate = self.momentum or 0.0
            weights = rate * (1 - rate) ** torch.arange(k - 1, -1, -1, dtype=statistics.dtype, device=statistics.device)
        if seen is not None:
            seen.add_(k)
        kept, moves = 1 - weights.sum(), (weights[:, None, None] * statistics).sum(0)
        for value, moved in zip((self.running_mean, self.running_var), moves, strict=True):
            # Behind autograd's back, as torch's own layers do: an earlier pass may have kept them for its gradient.
            value.data.mul_(kept).add_(moved)


class SyncBatchNorm(_InGroups, nn.SyncBatchNorm):
    """BatchNorm by the statistics of all processes' rows: torch's own on GPUs, and on CPUs, which that cannot.

    `synchronized` makes layers of this class, and what they were again.
    """

    process_group = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, c, ...)."""
        if self.groups:
            return super().forward(x)
        if not self.training:
            return _BatchNorm.forward(self, x)
        if x.is_cuda:
            return nn.SyncBatchNorm.forward(self, x)
        with torch.no_grad():
            blank = torch.zeros(x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32))
            own = torch.batch_norm_update_stats(x, blank, blank.clone(), 1.0)
            means, variances = gather(torch.stack(own)[None]).unbind(1)
            mean = means.mean(0)
            variance = variances.mean(0) + (means - mean).square().mean(0)
            n = n_processes() * x.numel() // x.shape[1]
            self._follow(torch.stack([mean, variance * (n / max(n - 1, 1))])[None])
        return _Normalize.apply(x, self.weight, self.bias, mean, variance, self.eps)


class _Normalize(torch.autograd.Function):
    """BatchNorm by statistics of all processes' rows, whose gradient comes from all rows, too."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt())
        ctx.eps = eps
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        gain = scale if weight is None else weight * scale
        # As if all rows were this process's, and then what the others' rows change in the two means over rows.
        found, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, gain / scale, None, None, mean, scale, True, ctx.eps, [True, True, True]
        )
        # Means over this process's rows: of the gradient, and of it times the output.
        own = torch.stack([of_bias, of_weight]) * (x.shape[1] / x.numel())
        shift, slope = own - average(own)
        slope = gain * scale * slope
        shift = gain * shift - mean * slope
        # slope * x + shift in one pass, by a variance of one: torch 2.11 wants an eps, and adds it
        found += F.batch_norm(x, torch.zeros_like(mean), torch.full_like(mean, 1 - ctx.eps), slope, shift, eps=ctx.eps)
        return found, None if weight is None else of_weight, None if weight is None else of_bias, None, None, None


@contextmanager
def synchronized(module: nn.Module, groups: bool = False) -> Iterator[None]:
    """Let every BatchNorm of a network normalise by all processes' rows for a while.

    Parameters
    ----------
    module : torch.nn.Module
        The network. Its layers are the same objects before, meanwhile and afterwards.
    groups : bool, default=False
        Whether layers are made ready for `grouped` where there is one process, too: torch.compile does not follow
        that.
    """
    layers = [part for part in module.modules() if isinstance(part, _BatchNorm)] if groups or n_processes() > 1 else []
    kinds: list[tuple[Any, type]] = [(layer, type(layer)) for layer in layers if not isinstance(layer, _InGroups)]
    try:
        for layer, kind in kinds:
            layer.__class__ = SyncBatchNorm if n_processes() > 1 else _with_groups(kind)
            layer.groups = 0
        yield
    finally:
        for layer, kind in kinds:
            layer.__class__ = kind
            del layer.groups


@functools.cache
def _with_groups(kind: Any) -> type[_BatchNorm]:
    """Make the class of a layer that is of another, and can do groups."""
    return type(kind.__name__, (_InGroups, kind), {"plain": kind.forward is _BatchNorm.forward})


@contextmanager
def grouped(modules: Iterable[nn.Module], groups: int) -> Iterator[None]:
    """Let BatchNorm normalise groups of this process's rows by themselves for a while, all of them in one pass.

    Outputs, gradients and running statistics are those of the groups of all processes one after the other, provided
    that all else in the networks works on each image by itself, as do convolutions, LayerNorm, GroupNorm and dropout.

    Parameters
    ----------
    modules : iterable of torch.nn.Module
        The networks.
    groups : int
        How many, at least 1, of as equal size as can be; of the larger come first. Each has two rows or more.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skssl.distributed import grouped
    >>> norm = nn.BatchNorm1d(1)
    >>> with grouped([norm], groups=2):
    ...     norm(torch.tensor([[1.0], [3.0], [10.0], [20.0]])).flatten().round().tolist()
    [-1.0, 1.0, -1.0, 1.0]
    """
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(synchronized(module, groups=True))
        layers = [part for module in modules for part in module.modules() if isinstance(part, _InGroups)]
        try:
            for layer in layers:
                layer.groups = groups
            yield
        finally:
            for layer in layers:
                layer.groups = 0
