"""Find the classifier of any network by what it does: the linear map that the output comes from.

The graph that autograd records is walked from the output towards the images. It shows what a network computes, whatever
its modules are called and however they are nested.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

# Names of autograd's nodes, without "Backward" and what follows it.
LINEAR = {"Addmm", "Mm", "Bmm", "Baddbmm", "Addbmm", "Linear", "MkldnnLinear"}
SUMS = {"Add", "Sub", "Cat", "Stack"}
SCALINGS = {"Add", "Sub", "Mul", "Div"}
POOLINGS = {"Mean", "AdaptiveAvgPool2D", "AvgPool2D", "MkldnnAdaptiveAvgPool2D"}
RESHAPINGS = {
    *("View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "Select", "Slice", "Permute", "Transpose", "T"),
    *("Expand", "Clone", "ToCopy", "Alias", "Split", "Unbind"),
}
SCORES = {"Softmax", "LogSoftmax", "Sigmoid", "LogSigmoid"}
SCORE_MODULES = nn.Softmax, nn.LogSoftmax, nn.Sigmoid, nn.LogSigmoid
AFTER_A_CLASSIFIER = SCALINGS | SUMS | POOLINGS | RESHAPINGS | SCORES | {"Sum", "Neg"}


class Graph:
    """The graph of a network's computation, as autograd recorded it.

    Parameters
    ----------
    output : Tensor
        The output of the network.
    images : Tensor
        The leaf that stands for the images.
    """

    def __init__(self, output: Tensor, images: Tensor) -> None:
        users: dict[Any, list[Any]] = {output.grad_fn: []}  # of each node; it also keeps the nodes alive
        queue: list[Any] = [output.grad_fn]
        leaf = None
        while queue:
            node = queue.pop()
            if getattr(node, "variable", None) is images:
                leaf = node
            for source in _sources(node):
                if source not in users:
                    users[source] = []
                    queue.append(source)
                users[source].append(node)
        self.output = output.grad_fn
        self.nodes = users
        self.on_path: set[Any] = set()  # the nodes that depend on the images
        queue = [] if leaf is None else [leaf]
        while queue:
            node = queue.pop()
            if node not in self.on_path:
                self.on_path.add(node)
                queue += users[node]

    def parameters(self, node: Any) -> dict[int, Tensor]:
        """Return the parameters, by id, that a node combines with what depends on the images."""
        found, queue = {}, [source for source in _sources(node) if source not in self.on_path]
        while queue:
            current = queue.pop()
            if hasattr(current, "variable"):
                found[id(current.variable)] = current.variable
            queue += _sources(current)
        return found


def _sources(node: Any) -> list[Any]:
    """Return the nodes whose results a node reads."""
    return [source for source, _ in node.next_functions if source is not None]


def _kind(node: Any) -> str:
    """Return the name of what a node computes, such as "Addmm"."""
    return re.sub(r"Backward\d*$", "", node.name())


def _is_classifier(kind: str, weights: Iterable[Tensor], after: tuple[str, ...]) -> bool:
    """Return whether a node is a linear map or a 1x1 convolution, after which nothing is learned or activated."""
    activations = [i for i, name in enumerate(after) if name not in AFTER_A_CLASSIFIER]
    poolings = [i for i, name in enumerate(after) if name in POOLINGS]
    if kind != "Convolution":
        return kind in LINEAR and not activations
    # SqueezeNet has a ReLU between its last convolution and the global pooling.
    pooled = not activations or (bool(poolings) and poolings[0] < activations[0])
    return pooled and all(size == 1 for weight in weights for size in weight.shape[2:])


def _last_maps(graph: Graph, node: Any, after: tuple[str, ...] = ()) -> list[tuple[set[int], set[int]]] | None:
    """Return the linear maps that a node's result is made of, or None if it is made of anything else.

    A linear map is given by the ids of its weights, and of these and the parameters that scale or shift its result.
    `after` has the kinds of the nodes from the output up to this one.
    """
    more: set[int] = set()
    while node in graph.on_path:
        kind, own = _kind(node), graph.parameters(node)
        sources = [source for source in _sources(node) if source in graph.on_path]
        if kind in SUMS and len(sources) > 1:
            found: list[tuple[set[int], set[int]]] = []
            for source in sources:
                maps = _last_maps(graph, source, (*after, kind))
                if maps is None:
                    return None
                found += [one for one in maps if one not in found]
            return found
        if len(sources) != 1:
            return None
        if own and kind not in SCALINGS:
            return [(set(own), more | set(own))] if _is_classifier(kind, own.values(), after) else None
        more |= set(own)
        after = (*after, kind)
        node = sources[0]
    return None


def _module_of(net: nn.Module, weights: set[int], more: set[int]) -> str | None:
    """Return the name of the innermost module with the weights of a linear map and no parameters of anything else."""
    found = None
    for name, module in net.named_modules():
        own = {id(parameter) for parameter in module.parameters()}
        if weights <= own <= more and not isinstance(module, nn.utils.parametrize.ParametrizationList):
            found = name
    return found


def remove_head(net: nn.Module, output: Tensor, images: Tensor, called: Sequence[nn.Module] = ()) -> str | None:
    """Replace the classifier of a network by the identity.

    The classifier is the linear map or the 1x1 convolution that the output comes from, with nothing learned and no
    activation in between. A 1x1 convolution may have an activation before a global pooling. A softmax or sigmoid after
    it is removed, too. A network that consists of the linear map alone has no classifier.

    Parameters
    ----------
    net : torch.nn.Module
        The network, which is changed.
    output : Tensor
        Its output, for parameters that require gradients.
    images : Tensor
        The leaf that the output was computed from.
    called : sequence of torch.nn.Module, default=()
        Modules in the order in which they were called, to find those after the classifier.

    Returns
    -------
    str or None
        The name and the class of the module that was replaced. None if there is no classifier.

    Raises
    ------
    ValueError
        If the output comes from several linear maps, or the linear map is not a module of its own.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skssl.backbones.heads import remove_head
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 6 * 6, 10))
    >>> images = torch.zeros(2, 3, 8, 8, requires_grad=True)
    >>> remove_head(net, net(images), images)
    '3, a Linear'
    >>> net(images).shape
    torch.Size([2, 288])
    """
    if output.grad_fn is None:
        return None
    graph = Graph(output, images)
    maps = _last_maps(graph, graph.output) or []
    if {id(parameter) for parameter in net.parameters()} <= set().union(*(more for _, more in maps)):
        return None
    names = [_module_of(net, weights, more) for weights, more in maps]
    if not names:
        return None
    if len(names) > 1 or not names[0]:
        maps_named = ", ".join(name or "one that is not a module" for name in names)
        raise ValueError(
            f"its output comes from these linear maps: {maps_named}. It cannot be told which are the classifier. Put "
            "nn.Identity() in place of the classifier. If there is none, let the network end with nn.Identity()"
        )
    head = net.get_submodule(names[0])
    later = list(called[called.index(head) + 1 :]) if head in called else []
    for module in [head, *(module for module in later if isinstance(module, SCORE_MODULES))]:
        name = next(name for name, own in net.named_modules() if own is module)
        parent, _, last = name.rpartition(".")
        setattr(net.get_submodule(parent), last, nn.Identity())
    return f"{names[0]}, a {type(head).__name__}"


def check_unscored(output: Tensor, images: Tensor) -> None:
    """Raise an error if features pass through a softmax or sigmoid that was meant for class scores.

    Parameters
    ----------
    output : Tensor
        The output of a network without its classifier.
    images : Tensor
        The leaf that it was computed from.

    Raises
    ------
    ValueError
        If they do.
    """
    graph = Graph(output, images)
    node, kinds = graph.output, set()
    while node in graph.on_path and not graph.parameters(node):
        kinds.add(_kind(node))
        sources = [source for source in _sources(node) if source in graph.on_path]
        if len(sources) != 1:
            break
        node = sources[0]
    if kinds & SCORES:
        raise ValueError(
            "it normalises its class scores by a function. Let it return the features that its classifier reads"
        )
