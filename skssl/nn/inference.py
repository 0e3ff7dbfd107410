"""Networks in inference: evaluation mode, and BatchNorm fused into the layer before it."""

from __future__ import annotations

import copy
import itertools
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[nn.Module]:
    """Put a network into evaluation mode within a context, then restore the mode of each module.

    Parameters
    ----------
    module : torch.nn.Module
        The network. It may share modules with other networks.

    Yields
    ------
    torch.nn.Module
        The network.

    Examples
    --------
    >>> from torch import nn
    >>> from skssl.nn.inference import eval_mode
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


# For modules in evaluation mode: the number of threads that use them, and their mode before, which the last restores.
_evaluated: WeakKeyDictionary[nn.Module, tuple[int, bool]] = WeakKeyDictionary()
_lock = threading.Lock()


def fuse_batchnorm(module: nn.Module) -> nn.Module:
    """Fuse BatchNorm into the convolution or linear layer before it, for inference.

    Layers are fused where their order is known without running the network: in ``nn.Sequential`` and in torchvision's
    ResNets. Modules of unknown classes, and all that they contain, are not changed. The function does not trace the
    network, so it is thread-safe.

    Parameters
    ----------
    module : torch.nn.Module
        A network in evaluation mode.

    Returns
    -------
    torch.nn.Module
        A copy with the same output up to rounding; or the network itself, if there is nothing to fuse or a module has
        forward hooks.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skssl.nn.inference import fuse_batchnorm
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    >>> [type(part).__name__ for part in fuse_batchnorm(net).children()]
    ['Conv2d', 'Identity', 'ReLU']
    """
    pairs = list(_fusable(module))
    if not pairs or any(part._forward_hooks or part._forward_pre_hooks for part in module.modules()):
        return module
    network = copy.deepcopy(module)
    for path, norm_path in pairs:
        layer, norm = network.get_submodule(path), network.get_submodule(norm_path)
        fuse: Any = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
        network.set_submodule(path, fuse(layer, norm))
        network.set_submodule(norm_path, nn.Identity())
    return network.to(memory_format=torch.channels_last)


def _fusable(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the paths of layers and of the BatchNorm that follows each, in modules whose order is known."""
    uses = Counter(id(part) for _, part in module.named_modules(remove_duplicate=False))
    known: set[str] = set()  # paths of modules whose order is known, along with that of all modules around them
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
            fits = (type(layer), type(norm)) in FUSABLE and uses[id(layer)] == uses[id(norm)] == 1
            if fits and not norm.training and norm.running_mean is not None:
                yield f"{path}.{first}".lstrip("."), f"{path}.{second}".lstrip(".")


FUSABLE = {(nn.Conv2d, nn.BatchNorm2d), (nn.Linear, nn.BatchNorm1d)}
KNOWN_NETWORKS = (
    "torch.nn.",
    "torchvision.models.",
    "skssl.",
)  # packages whose classes run a Sequential as a whole
