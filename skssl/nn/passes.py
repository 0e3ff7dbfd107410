"""Forward passes: concatenated views, evaluation mode, and BatchNorm fused into the layer before it."""

from __future__ import annotations

import copy
import itertools
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval


def concat_views(views: Sequence[Tensor]) -> Tensor:
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
    >>> from skssl.nn.passes import concat_views
    >>> both = torch.arange(4.0).view(4, 1, 1, 1)
    >>> concat_views(both.chunk(2)).data_ptr() == both.data_ptr()
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


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[nn.Module]:
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
    >>> from skssl.nn.passes import eval_mode
    >>> trained = nn.BatchNorm1d(3).eval()
    >>> with eval_mode(nn.Sequential(trained, nn.Dropout())) as net:
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


def fuse_batchnorm(module: nn.Module) -> nn.Module:
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
    >>> from skssl.nn.passes import fuse_batchnorm
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    >>> [type(part).__name__ for part in fuse_batchnorm(net).children()]
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
