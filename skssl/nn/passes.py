"""How a network is run: views joined into one pass, BatchNorm by groups, evaluation mode, BatchNorm folded away."""

from __future__ import annotations

import copy
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from skssl.nn.batchnorm import grouped
from skssl.nn.distributed import n_processes


def join(views: Sequence[Tensor]) -> Tensor:
    """Concatenate views of one size, without a copy where they lie side by side in memory, as the loader makes them.

    Parameters
    ----------
    views : sequence of Tensors of shape (n, c, h, w)
        At least one.

    Returns
    -------
    Tensor of shape (n_views * n, c, h, w)
        All of them, one after the other.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.passes import join
    >>> both = torch.arange(4.0).view(4, 1, 1, 1)
    >>> join(both.chunk(2)).data_ptr() == both.data_ptr()
    True
    """
    first = views[0]
    if torch.compiler.is_compiling() or first.requires_grad:
        return torch.cat(list(views))
    places = [first.data_ptr() + i * first.nbytes for i in range(len(views))]
    one = first.untyped_storage().data_ptr()
    if all(
        view.data_ptr() == place and view.stride() == first.stride() and view.untyped_storage().data_ptr() == one
        for view, place in zip(views, places, strict=True)
    ):
        return first.as_strided((len(views) * len(first), *first.shape[1:]), first.stride())
    return torch.cat(list(views))


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
    >>> from skssl.nn.passes import in_groups
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
    >>> from skssl.nn.passes import evaluating
    >>> trained = nn.BatchNorm1d(3).eval()
    >>> with evaluating(nn.Sequential(trained, nn.Dropout())) as net:
    ...     net[1].training
    False
    >>> trained.training, net[1].training
    (False, True)
    """
    parts = list(module.modules())
    with _lock:
        for part in parts:
            users, training = _evaluated.get(part, (0, part.training))
            _evaluated[part] = users + 1, training
        module.eval()
    try:
        yield module
    finally:
        with _lock:
            for part in parts:
                users, training = _evaluated.pop(part)
                if users > 1:
                    _evaluated[part] = users - 1, training
                else:
                    part.training = training


# Modules in evaluation mode: in how many threads, and their mode before. The last thread restores it.
_evaluated: WeakKeyDictionary[nn.Module, tuple[int, bool]] = WeakKeyDictionary()
_lock = threading.Lock()


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
    >>> from skssl.nn.passes import folded
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
