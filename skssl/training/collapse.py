"""Building blocks of the methods' networks: heads, and copies that follow slowly."""

from __future__ import annotations

import copy
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from skssl.distributed import gather, grouped, n_processes


class MLP(nn.Sequential):
    """Linear layers with BatchNorm and ReLU, or another activation, between them.

    Parameters
    ----------
    dims : sequence of int
        Widths from the input to the output, such as ``(512, 2048, 256)``.
    bias : bool, default=True
        Whether the last linear layer has a bias; one that BatchNorm follows never does.
    norm : bool, default=True
        Whether BatchNorm follows the hidden layers.
    output_norm : bool, default=False
        Whether BatchNorm follows the last layer, too.
    output_affine : bool, default=False
        Whether that last BatchNorm learns a scale and a shift.
    activation : callable, default=None
        Makes what follows every hidden layer. None is ReLU, in place.

    Attributes
    ----------
    out_features : int
        The width of the output.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn import MLP
    >>> MLP((8, 16, 4))(torch.zeros(2, 8)).shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        dims: Iterable[int],
        *,
        bias: bool = True,
        norm: bool = True,
        output_norm: bool = False,
        output_affine: bool = False,
        activation: Callable[[], nn.Module] | None = None,
    ) -> None:
        dims = tuple(dims)
        activation = activation or partial(nn.ReLU, inplace=True)
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(dims[:-1]):
            layers += [nn.Linear(n_in, n_out, bias=not norm)]
            layers += [nn.BatchNorm1d(n_out), activation()] if norm else [activation()]
        layers += [nn.Linear(dims[-2], dims[-1], bias=bias and not output_norm)]
        layers += [nn.BatchNorm1d(dims[-1], affine=output_affine)] if output_norm else []
        super().__init__(*layers)
        self.out_features = dims[-1]


def momentum_copy(module: nn.Module) -> nn.Module:
    """Copy a module for `follow` to move: no gradient reaches it.

    It stays in training mode with its source, so that its BatchNorm normalises by the batch and keeps running
    statistics of its own (only parameters are averaged).

    Parameters
    ----------
    module : torch.nn.Module
        What to copy, weights and all.

    Returns
    -------
    torch.nn.Module
        The copy.

    Examples
    --------
    >>> from torch import nn
    >>> from skssl.nn import momentum_copy
    >>> [p.requires_grad for p in momentum_copy(nn.Linear(2, 2)).parameters()]
    [False, False]
    """
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """Move a momentum copy towards its source: slow <- momentum * slow + (1 - momentum) * fast.

    Parameters
    ----------
    slow : torch.nn.Module
        What `momentum_copy` made.
    fast : torch.nn.Module
        Its source. Only parameters are followed, not buffers.
    momentum : float
        Between 0 (jump) and 1 (stay).

    Examples
    --------
    >>> from torch import nn
    >>> from skssl.nn import follow, momentum_copy
    >>> fast = nn.Linear(1, 1)
    >>> slow = momentum_copy(fast)
    >>> _ = nn.init.zeros_(slow.weight), nn.init.ones_(fast.weight)
    >>> follow(slow, fast, momentum=0.75)
    >>> slow.weight.item()
    0.25
    """
    torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), 1 - momentum)


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
    >>> from skssl.nn import Queue
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
    >>> from skssl.nn import MemoryBank
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
        sums = gather(logits.detach().flatten().logsumexp(0, keepdim=True))
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
        index, v = gather(index), nn.functional.normalize(gather(v).to(self.items.dtype), dim=1)
        moved = self.momentum * self.items[index] + (1 - self.momentum) * v
        self.items.index_copy_(0, index, nn.functional.normalize(moved, dim=1))


def cosine_ramp(start: float, end: float, progress: float) -> float:
    """Go from one value to another along half a cosine, as BYOL's and DINO's momentum does.

    Parameters
    ----------
    start, end : float
        The values at progress 0 and 1.
    progress : float
        The share of the training that is done, in [0, 1].

    Returns
    -------
    float
        ``end - (end - start) * (1 + cos(pi * progress)) / 2``.

    Examples
    --------
    >>> from skssl.nn import cosine_ramp
    >>> cosine_ramp(0.5, 1.0, 0.5)
    0.75
    """
    return end - (end - start) * (1 + math.cos(math.pi * progress)) / 2


def spread(z: Tensor) -> Tensor:
    """How evenly directions are spread: the standard deviation of normalised rows in units of 1/sqrt(d).

    Parameters
    ----------
    z : Tensor of shape (n, d)
        Embeddings.

    Returns
    -------
    Tensor of shape ()
        0 when all rows point the same way (collapse), about 1 when they point everywhere.

    References
    ----------
    Chen and He, Exploring Simple Siamese Representation Learning, CVPR 2021, figure 2 (there not divided).

    Examples
    --------
    >>> import torch
    >>> from skssl.nn import spread
    >>> spread(torch.ones(4, 3))
    tensor(0.)
    """
    z = nn.functional.normalize(z.float(), dim=1)
    return z.std(0).mean() * z.shape[1] ** 0.5


def effective_rank(z: Tensor) -> Tensor:
    """Effective rank: the exponential of the entropy of the normalised singular values of the centred rows.

    Parameters
    ----------
    z : Tensor of shape (n, d)
        Embeddings.

    Returns
    -------
    Tensor of shape ()
        Between 1 (all on a line, or all equal) and min(n - 1, d).

    References
    ----------
    Roy and Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn import effective_rank
    >>> effective_rank(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])).round(decimals=3)
    tensor(2.)
    """
    values = torch.linalg.svdvals(z.float() - z.float().mean(0))
    share = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    return torch.special.entr(share).sum().exp()


def in_groups(
    network: Callable[[Tensor], tuple[Tensor, ...]], parts: Sequence[nn.Module], images: Tensor, groups: int
) -> tuple[Tensor, ...]:
    """Run a network such that BatchNorm normalises groups of a batch by themselves, as if on a device of its own each.

    Running statistics move once a group. All else in the network must work on each image by itself, as do
    convolutions, LayerNorm, GroupNorm and dropout: it is run once, see `distributed.grouped`. On a CPU, where maps of
    a group stay in the cache, it is run once a group, unless it is compiled or one of several processes.

    Parameters
    ----------
    network : callable
        From images to one or more tensors with a row an image.
    parts : sequence of torch.nn.Module
        The modules that it is made of.
    images : Tensor of shape (n, c, h, w)
        The batch; of several processes this one's share.
    groups : int
        How many, of as equal size as can be; fewer where they would have less than two images.

    Returns
    -------
    tuple of Tensors
        The outputs for the whole batch.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skssl.nn import in_groups
    >>> norm = nn.BatchNorm1d(1)
    >>> images = torch.tensor([[1.0], [3.0], [10.0], [20.0]])
    >>> (found,) = in_groups(lambda images: (norm(images),), [norm], images, groups=2)
    >>> found.flatten().round().tolist()
    [-1.0, 1.0, -1.0, 1.0]
    """
    groups = max(1, min(groups, len(images) // 2))
    if _at_once(images):
        with grouped(parts, groups):
            return network(images)
    found = [network(part) for part in images.tensor_split(groups)]
    return tuple(torch.cat(outputs) for outputs in zip(*found, strict=True))


def _at_once(images: Tensor) -> bool:
    """Whether groups of images go through a network in one pass."""
    return images.device.type != "cpu" or torch.compiler.is_compiling() or n_processes() > 1


@contextmanager
def evaluating(module: nn.Module) -> Iterator[nn.Module]:
    """Put a network into evaluation mode for a while; each of its parts goes back into the mode that it was in.

    Parameters
    ----------
    module : torch.nn.Module
        The network, which may hold parts of others.

    Yields
    ------
    torch.nn.Module
        The network.

    Examples
    --------
    >>> from torch import nn
    >>> from skssl.nn import evaluating
    >>> trained = nn.BatchNorm1d(3).eval()
    >>> with evaluating(nn.Sequential(trained, nn.Dropout())) as net:
    ...     net[1].training
    False
    >>> trained.training, net[1].training
    (False, True)
    """
    modes = {part: part.training for part in module.modules()}
    try:
        yield module.eval()
    finally:
        for part, training in modes.items():
            part.training = training


def folded(module: nn.Module) -> nn.Module:
    """Fold BatchNorm into the convolutions and linear layers before it, for inference.

    Layers are folded where their order is known without running the network: in sequences, and in torchvision's
    ResNets. A module of any other origin is left as it is, with all that it holds. Nothing is traced, so that any
    number of threads may do this at a time.

    Parameters
    ----------
    module : torch.nn.Module
        A network in evaluation mode.

    Returns
    -------
    torch.nn.Module
        A copy that computes the same to within rounding and in fewer passes over the maps; or the network itself,
        where there is nothing to fold or hooks want to see its parts.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skssl.nn import folded
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    >>> [type(part).__name__ for part in folded(net).children()]
    ['Conv2d', 'Identity', 'ReLU']
    """
    pairs = list(_foldable(module))
    if not pairs or any(part._forward_hooks or part._forward_pre_hooks for part in module.modules()):
        return module
    network = copy.deepcopy(module)
    for path, norm_path in pairs:
        layer, norm = network.get_submodule(path), network.get_submodule(norm_path)
        fuse: Any = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
        network.set_submodule(path, fuse(layer, norm))
        network.set_submodule(norm_path, nn.Identity())
    return network.to(memory_format=torch.channels_last)


def _foldable(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Find the paths of layers that BatchNorm follows, with its own path, in networks whose order is known."""
    uses = Counter(id(part) for _, part in module.named_modules(remove_duplicate=False))
    known: set[str] = set()  # paths of modules whose order is known, and that of all that they lie in
    for path, part in module.named_modules(remove_duplicate=False):
        if (path and path.rpartition(".")[0] not in known) or not type(part).__module__.startswith(KNOWN_NETWORKS):
            continue
        known.add(path)
        children = dict(part.named_children())
        pairs: Iterable[tuple[str, str]] = ()
        if type(part).forward is nn.Sequential.forward:
            pairs = itertools.pairwise(children)
        elif type(part).__module__ == "torchvision.models.resnet":
            pairs = ((name, name.replace("conv", "bn")) for name in children if name.startswith("conv"))
        for first, second in pairs:
            layer, norm = children[first], children[second]
            fits = (type(layer), type(norm)) in FOLDABLE and uses[id(layer)] == uses[id(norm)] == 1
            if fits and not norm.training and norm.running_mean is not None:
                yield f"{path}.{first}".lstrip("."), f"{path}.{second}".lstrip(".")


FOLDABLE = {(nn.Conv2d, nn.BatchNorm2d), (nn.Linear, nn.BatchNorm1d)}
KNOWN_NETWORKS = ("torch.nn.", "torchvision.models.", "skssl.")  # whose classes run a sequence from end to end
