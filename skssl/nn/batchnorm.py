"""Synchronised BatchNorm, over the rows of all processes, and split BatchNorm, over groups of a process's rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from skssl.nn.distributed import all_gather, all_reduce_mean, n_processes


class SplitBatchNorm(_BatchNorm):
    """Mixin of BatchNorm layers that normalises groups of the rows separately, in one pass.

    The context managers `sync_batchnorm` and `split_batchnorm` set and reset the class of the layers.
    """

    groups = 0  # number of groups of this process's rows; 0 leaves the layer's behaviour unchanged
    plain = True  # False if the layer's class overrides `forward`, for example to add an activation
    BY_MOMENTS: ClassVar[tuple[str, ...]] = ("cuda",)  # device types on which `_normalize_by_moments` is faster

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, c, ...)."""
        if not self.groups or not (self.training or self.running_mean is None):
            return super().forward(x)
        if not self.plain:
            return torch.cat([super(SplitBatchNorm, self).forward(part) for part in x.tensor_split(self.groups)])
        larger = len(x) % self.groups  # the first groups have one more row
        rows = larger * (len(x) // self.groups + 1)
        parts = [(x[:rows], larger), (x[rows:], self.groups - larger)] if larger else [(x, self.groups)]
        outputs, statistics = zip(*(self._normalize(part, n) for part, n in parts), strict=True)
        with torch.no_grad():
            self._update_running_statistics(all_gather(statistics[0] if len(parts) == 1 else torch.cat(statistics)))
        return outputs[0] if len(parts) == 1 else torch.cat(outputs)

    def _normalize(self, x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """Normalise groups of equal size as extra channels; return the output and statistics (g, 2, c)."""
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
        """Do the same without moving pixels, by one reduction and one product, each a single kernel."""
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

    def _update_running_statistics(self, statistics: Tensor) -> None:
        """Update the running statistics by k batches in order; (k, 2, c) holds means and unbiased variances."""
        if self.running_mean is None or self.running_var is None:
            return
        k, seen = len(statistics), self.num_batches_tracked
        if self.momentum is None and seen is not None:  # a cumulative average
            weights = (1 / (seen + k).to(statistics.dtype)).expand(k)
        else:
            rate = self.momentum or 0.0
            weights = rate * (1 - rate) ** torch.arange(k - 1, -1, -1, dtype=statistics.dtype, device=statistics.device)
        if seen is not None:
            seen.add_(k)
        kept, moves = 1 - weights.sum(), (weights[:, None, None] * statistics).sum(0)
        for value, moved in zip((self.running_mean, self.running_var), moves, strict=True):
            # Hidden from autograd, as in torch's layers: an earlier pass may have saved these tensors for its gradient.
            value.data.mul_(kept).add_(moved)


class SyncBatchNorm(SplitBatchNorm, nn.SyncBatchNorm):
    """BatchNorm with statistics of all processes' rows: torch's SyncBatchNorm on GPUs, the same computation on CPUs.

    The context manager `sync_batchnorm` sets and resets the class of the layers.
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
            means, variances = all_gather(torch.stack(own)[None]).unbind(1)
            mean = means.mean(0)
            variance = variances.mean(0) + (means - mean).square().mean(0)
            n = n_processes() * x.numel() // x.shape[1]
            self._update_running_statistics(torch.stack([mean, variance * (n / max(n - 1, 1))])[None])
        return _Normalize.apply(x, self.weight, self.bias, mean, variance, self.eps)


class _Normalize(torch.autograd.Function):
    """BatchNorm with given statistics of all processes' rows, and its gradient with respect to all rows."""

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
        # The gradient for this process's rows alone, then the correction by the means over the rows of all processes.
        found, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, gain / scale, None, None, mean, scale, True, ctx.eps, [True, True, True]
        )
        # Means over this process's rows of the gradient, and of the gradient times the normalised input.
        own = torch.stack([of_bias, of_weight]) * (x.shape[1] / x.numel())
        shift, slope = own - all_reduce_mean(own)
        slope = gain * scale * slope
        shift = gain * shift - mean * slope
        # slope * x + shift in one pass. The variance is 1 - eps, as torch adds eps, which torch 2.11 requires.
        found += F.batch_norm(x, torch.zeros_like(mean), torch.full_like(mean, 1 - ctx.eps), slope, shift, eps=ctx.eps)
        return found, None if weight is None else of_weight, None if weight is None else of_bias, None, None, None


@contextmanager
def sync_batchnorm(module: nn.Module, groups: bool = False) -> Iterator[None]:
    """Make every BatchNorm of a network use the statistics of all processes' rows within a context.

    Parameters
    ----------
    module : torch.nn.Module
        The network. Only the class of its BatchNorm layers changes; the layers stay the same objects.
    groups : bool, default=False
        Whether to prepare the layers for `split_batchnorm` with one process, too. torch.compile cannot trace this
        preparation.
    """
    layers = [part for part in module.modules() if isinstance(part, _BatchNorm)] if groups or n_processes() > 1 else []
    kinds: list[tuple[Any, type]] = [(layer, type(layer)) for layer in layers if not isinstance(layer, SplitBatchNorm)]
    try:
        for layer, kind in kinds:
            layer.__class__ = SyncBatchNorm if n_processes() > 1 else _split_class(kind)
            layer.groups = 0
        yield
    finally:
        for layer, kind in kinds:
            layer.__class__ = kind
            del layer.groups


@functools.cache
def _split_class(kind: Any) -> type[_BatchNorm]:
    """Return a subclass of a BatchNorm class that can split."""
    return type(kind.__name__, (SplitBatchNorm, kind), {"plain": kind.forward is _BatchNorm.forward})


@contextmanager
def split_batchnorm(modules: Iterable[nn.Module], groups: int) -> Iterator[None]:
    """Make BatchNorm normalise groups of this process's rows separately, in one pass, within a context.

    Outputs, gradients and running statistics equal those of one pass for each group of each process in order. This
    requires that all other layers treat each image independently, as convolutions, LayerNorm, GroupNorm and dropout do.

    Parameters
    ----------
    modules : iterable of torch.nn.Module
        The networks.
    groups : int
        Number of groups, at least 1. Their sizes differ by at most one row, larger groups first, and are at least 2.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skssl.nn.batchnorm import split_batchnorm
    >>> norm = nn.BatchNorm1d(1)
    >>> with split_batchnorm([norm], groups=2):
    ...     norm(torch.tensor([[1.0], [3.0], [10.0], [20.0]])).flatten().round().tolist()
    [-1.0, 1.0, -1.0, 1.0]
    """
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(sync_batchnorm(module, groups=True))
        layers = [part for module in modules for part in module.modules() if isinstance(part, SplitBatchNorm)]
        try:
            for layer in layers:
                layer.groups = groups
            yield
        finally:
            for layer in layers:
                layer.groups = 0


def run_with_split_batchnorm(
    network: Callable[[Tensor], tuple[Tensor, ...]], parts: Sequence[nn.Module], images: Tensor, groups: int
) -> tuple[Tensor, ...]:
    """Run a network with split BatchNorm, which normalises groups of a batch as separate devices would.

    Running statistics are updated once per group. All other layers must treat each image independently, see
    `split_batchnorm`, as the network runs once for all groups. On a CPU it runs once per group, since the maps of a
    group stay in the cache, unless it is compiled or several processes train.

    Parameters
    ----------
    network : callable
        Maps images to a tuple of tensors with one row per image.
    parts : sequence of torch.nn.Module
        The modules that the network calls.
    images : Tensor of shape (n, c, h, w)
        This process's images of the batch.
    groups : int
        Number of groups. It is reduced where a group would have fewer than two images.

    Returns
    -------
    tuple of Tensors
        The outputs for all images.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skssl.nn.batchnorm import run_with_split_batchnorm
    >>> norm = nn.BatchNorm1d(1)
    >>> images = torch.tensor([[1.0], [3.0], [10.0], [20.0]])
    >>> (found,) = run_with_split_batchnorm(lambda images: (norm(images),), [norm], images, groups=2)
    >>> found.flatten().round().tolist()
    [-1.0, 1.0, -1.0, 1.0]
    """
    groups = max(1, min(groups, len(images) // 2))
    if _at_once(images):
        with split_batchnorm(parts, groups):
            return network(images)
    found = [network(part) for part in images.tensor_split(groups)]
    return tuple(torch.cat(outputs) for outputs in zip(*found, strict=True))


def _at_once(images: Tensor) -> bool:
    """Return whether all groups go through the network in one pass."""
    return images.device.type != "cpu" or torch.compiler.is_compiling() or n_processes() > 1
