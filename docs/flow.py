"""The flow of a method, drawn from one step of its training: which module sees what, and where gradients stop."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from skssl import AudioVisual
from skssl.datasets import make_clips, make_shapes
from skssl.methods.clips import ClipMethod
from skssl.training.objective import Objective

LIGHT = {"ink": "#333333", "faint": "#8793a0", "view": "#ffffff", "module": "#eef3f8", "loss": "#fdf1e0"}
DARK = {"ink": "#e6e6e6", "faint": "#8793a0", "view": "#1c2127", "module": "#26313d", "loss": "#43341c"}


@dataclass
class Flow:
    """A graph: nodes of a kind ("view", "module" or "loss") with a name, and edges with whether the gradient stops.

    Attributes
    ----------
    nodes : list of (str, str)
        The kind and the name of each node.
    edges : dict of (int, int) to bool
        By the indices of two nodes, whether no gradient flows back.
    """

    nodes: list[tuple[str, str]] = field(default_factory=list)
    edges: dict[tuple[int, int], bool] = field(default_factory=dict)

    def add(self, kind: str, name: str, sources: dict[int, bool]) -> int:
        """Add a node and return its index. Repeated and continued calls of a module are one node."""
        for node, known in enumerate(self.nodes):
            same = {a for a, b in self.edges if b == node} == {*sources} or {*sources} == {node}
            if kind == "module" and known == (kind, name) and same:
                return node
        self.nodes.append((kind, name))
        node = len(self.nodes) - 1
        views = [kind == "view" for kind, _ in self.nodes]
        self.edges |= {(source, node): stopped and not views[source] for source, stopped in sources.items()}
        return node

    def columns(self) -> list[int]:
        """Return the column of each node: the number of edges on the longest way to it."""
        found = [0] * len(self.nodes)
        for (source, node), _ in sorted(self.edges.items(), key=lambda edge: edge[0][1]):
            found[node] = max(found[node], found[source] + 1)
        last = max(found)
        return [last if kind == "loss" else column for column, (kind, _) in zip(found, self.nodes, strict=True)]


class Tracer(TorchFunctionMode):
    """Follow tensors through functions and modules, and write down a `Flow`."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow
        self.seen: dict[int, tuple[Tensor, dict[int, bool]]] = {}  # a tensor, kept alive, and the nodes it comes from

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function; what it returns comes from what it was given."""
        out = func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            sources = self.sources((args, kwargs))
            for tensor in tensors(out) if sources else ():
                stops = tensor.is_floating_point() and not tensor.requires_grad
                before = self.seen.get(id(tensor), (tensor, {}))[1]  # an operation in place
                self.mark(tensor, before | {node: stopped or stops for node, stopped in sources.items()})
        return out

    def mark(self, tensor: Tensor, sources: dict[int, bool]) -> None:
        """Set the nodes that a tensor comes from."""
        self.seen[id(tensor)] = tensor, sources

    def sources(self, value: Any) -> dict[int, bool]:
        """Return the nodes that tensors come from; one that reaches them with a gradient counts as such."""
        found: dict[int, bool] = {}
        for tensor in tensors(value):
            for node, stopped in self.seen.get(id(tensor), (tensor, {}))[1].items():
                found[node] = stopped and found.get(node, True)
        return found

    def watch(self, name: str, part: nn.Module) -> Iterator[Any]:
        """Make each call of a part, or of modules in it, a node. Yield the handles of the hooks."""
        running: list[int] = []  # the node, for each module that has begun

        def enter(module: nn.Module, args: Any) -> None:
            running.append(running[-1] if running else self.flow.add("module", name, self.sources(args)))

        def leave(module: nn.Module, args: Any, out: Any) -> None:
            node = running.pop()
            for tensor in tensors(out):  # also of modules inside, whose maps some methods use
                self.mark(tensor, {node: not tensor.requires_grad})

        if tokens := getattr(part, "tokens", None):  # a vision transformer's second way in

            def call(*args: Any) -> Any:
                enter(part, args)
                out = tokens(*args)
                leave(part, args, out)
                return out

            part.tokens = call
            yield SimpleNamespace(remove=lambda: vars(part).pop("tokens"))
        for module in part.modules():
            yield module.register_forward_pre_hook(enter)
            yield module.register_forward_hook(leave)


def modules(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts of a network with their names. A momentum copy is as many parts as its source."""
    parts = dict(net.named_children())
    for name, module in parts.items():
        if name == "target":
            yield from (
                (f"momentum\n{part.replace('_', ' ')}", copy)
                for part, copy in zip(parts, module.children(), strict=False)
            )
        else:
            yield name.replace("_", " "), module


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from itertools.chain.from_iterable(map(tensors, value.values()))
    elif isinstance(value, list | tuple):
        yield from itertools.chain.from_iterable(map(tensors, value))


def trace(estimator: Any) -> Flow:
    """Train an estimator for one step on generated images and return its flow.

    Parameters
    ----------
    estimator : estimator
        A method that is not fitted, with ``epochs=1`` and a batch of at least 64 images.

    Returns
    -------
    Flow
        The views, the calls of the network's modules, and the losses.
    """
    flow = Flow()
    losses = type(estimator).losses

    def traced(self: Any, net: Objective, batch: Any) -> dict[str, Tensor]:
        if flow.nodes:  # one step is enough
            return losses(self, net, batch)
        tracer, handles = Tracer(flow), []
        batch.views = [view.clone() for view in batch.views]  # they may be parts of one tensor
        inputs = {f"view {i + 1}": view for i, view in enumerate(batch.views)} | {"image": batch.images}
        for name, view in inputs.items():
            tracer.mark(view, {flow.add("view", name, {}): False})
        for name, made in batch.made.items():  # such as tiles of the images
            if name == "sounds":
                tracer.mark(made, {flow.add("view", "sound", {}): False})
            elif made.dim() >= 4:
                tracer.mark(made, tracer.sources(batch.images))
        for name, module in modules(net):
            handles += tracer.watch(name, module)
            weights = list(module.parameters())  # a loss may use prototypes without a call
            node = flow.add("module" if weights else "view", name, {})
            for tensor in weights or module.buffers(recurse=False):
                tracer.mark(tensor, {node: False})
        for name, weight in net.named_parameters(recurse=False):
            tracer.mark(weight, {flow.add("module", name.replace("_", " "), {}): False})
        with tracer:
            found = losses(self, net, batch)
        for name, loss in found.items():
            flow.add("loss", name.replace("_", " "), tracer.sources(loss))
        for handle in handles:
            handle.remove()
        return found

    images, labels = make_shapes(64, image_size=32, random_state=0)
    if isinstance(estimator, ClipMethod):
        clips, sounds, labels, _ = make_clips(64, random_state=0)
        images = (clips, sounds) if isinstance(estimator, AudioVisual) else clips
    with mock.patch.object(type(estimator), "losses", traced):
        estimator.fit(images, labels)
    return flow


def draw(flow: Flow, colors: dict[str, str]) -> Figure:
    """Draw a flow from left to right. Dashed arrows carry no gradient."""
    used = {node for edge in flow.edges for node in edge}
    columns = flow.columns()
    rows: dict[int, float] = {}
    by_column = [[i for i in sorted(used) if columns[i] == column] for column in range(max(columns) + 1)]
    for nodes in by_column:
        wanted = {}
        for i in nodes:
            at = [rows[source] for source, node in flow.edges if node == i and source in rows]
            wanted[i] = sum(at) / len(at) if at else float(len(wanted))
        free = min(wanted.values(), default=0.0) - max(0, len(set(nodes)) - len(set(wanted.values()))) / 2
        for i in sorted(nodes, key=lambda i: (wanted[i], i)):
            rows[i] = max(free, wanted[i])
            free = rows[i] + 1
    height = 0.55 * (max(rows.values()) - min(rows.values()) + 1)
    figure = Figure(figsize=(1.75 * len(by_column), max(height, 0.8)), layout="constrained")
    figure.patch.set_alpha(0)
    ax = figure.add_subplot()
    width, tall = 1.2, 0.6
    centres = {i: (1.75 * columns[i], -rows[i]) for i in used}
    for (source, node), stopped in flow.edges.items():
        (x, y), (there, level) = centres[source], centres[node]
        style = {"linestyle": (0, (3, 2))} if stopped else {}
        bend = 0.0 if columns[node] - columns[source] == 1 else 0.12
        ax.add_patch(
            FancyArrowPatch(
                (x + width / 2, y),
                (there - width / 2, level),
                arrowstyle="-|>",
                mutation_scale=9,
                color=colors["faint"],
                connectionstyle=f"arc3,rad={bend}",
                **style,
            )
        )
    for i, (x, y) in centres.items():
        kind, name = flow.nodes[i]
        frame = {"boxstyle": "round,pad=0.02", "fc": colors[kind], "ec": colors["ink"], "lw": 0.8, "zorder": 3}
        ax.add_patch(FancyBboxPatch((x - width / 2, y - tall / 2), width, tall, **frame))
        ax.text(x, y, textwrap.fill(name, 15), ha="center", va="center", color=colors["ink"], fontsize=9, zorder=4)
    ax.set(xlim=(-0.7, 1.75 * (len(by_column) - 1) + 0.7), ylim=(-max(rows.values()) - 0.5, -min(rows.values()) + 0.5))
    ax.axis("off")
    return figure
