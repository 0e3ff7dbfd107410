"""The structure of the package in tables and pictures, drawn from the code: the rooms, and the way of a batch."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Any
from unittest import mock

import rooms
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import skssl
from skssl.datasets import make_shapes
from skssl.images.arrays import MemoryImages
from skssl.training import loader, objective

INK, FAINT, FILL = "#333333", "#9aa5b1", "#eef3f8"


def render(folder: Path) -> None:
    """Write the table and the pictures that docs/developing.md includes."""
    (folder / "rooms.md").write_text(table())
    for name, draw in {"rooms": draw_rooms, "batch": draw_batch}.items():
        draw().savefig(folder / f"{name}.png", dpi=150)


def table() -> str:
    """Return the rooms as a table, from the ground up, with the files in each."""
    files: dict[str, list[str]] = {room: [] for room in rooms.ROOMS}
    for module in rooms.modules():
        if module.count(".") > 1:
            files[rooms.room_of(module)].append(module.rpartition(".")[2])
    rows = ["| floor | room | what lives there | files |", "|---|---|---|---|"]
    for number, floor in enumerate(rooms.FLOORS):
        for room, text in floor.items():
            name = f"{room}/" if files[room] else f"{room}.py"
            shown = "one for each method" if room == "methods" else ", ".join(files[room])
            rows.append(f"| {number} | `{name}` | {text} | {shown} |")
    return "\n".join(rows) + "\n"


def uses() -> dict[str, set[str]]:
    """Return the rooms that each room imports from, without those that follow from others."""
    direct: dict[str, set[str]] = {room: set() for room in rooms.ROOMS}
    for module, others in rooms.imports().items():
        room = rooms.room_of(module)
        if room in direct:
            direct[room] |= {rooms.room_of(other) for other in others} & direct.keys() - {room}
    below: dict[str, set[str]] = {}  # from the ground up, so that those of the rooms below are known
    for room, others in direct.items():
        below[room] = others.union(*(below[other] for other in others))
    return {room: others - set().union(*(below[other] for other in others)) for room, others in direct.items()}


def draw_rooms() -> Figure:
    """Draw the rooms on their floors, and what each imports from."""
    figure = Figure(figsize=(9, 7), layout="constrained")
    ax = figure.add_subplot()
    width, height = 1.7, 0.5
    centres = {
        room: (2.15 * (i - (len(floor) - 1) / 2), 1.1 * y)
        for y, floor in enumerate(rooms.FLOORS)
        for i, room in enumerate(floor)
    }
    for room, others in uses().items():
        x, y = centres[room]
        for other in others:
            there, level = centres[other]
            side = width / 2 if there > x else -width / 2
            ends = (
                ((x + side, y), (there - side, y)) if level == y else ((x, y - height / 2), (there, level + height / 2))
            )
            behind = abs(there - x) > 3 if level == y else there == x and y - level > 1.2  # a room is in between
            bend = 0.3 if behind else 0
            ax.add_patch(arrow(*ends, connectionstyle=f"arc3,rad={bend}"))
    for room, (x, y) in centres.items():
        ax.add_patch(box(x - width / 2, y - height / 2, width, height))
        ax.text(x, y, room, ha="center", va="center", color=INK, fontsize=11, zorder=4)
    for y in range(len(rooms.FLOORS)):
        ax.text(-4.9, 1.1 * y, str(y), ha="center", va="center", color=FAINT, fontsize=11)
    ax.set(xlim=(-5.1, 4.5), ylim=(-0.4, 1.1 * (len(rooms.FLOORS) - 1) + 0.4))
    ax.axis("off")
    return figure


def box(x: float, y: float, width: float, height: float) -> FancyBboxPatch:
    """Return the frame of a room or a function."""
    return FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.02", fc=FILL, ec=INK, lw=0.9, zorder=3)


def arrow(start: tuple[float, float], end: tuple[float, float], **how: Any) -> FancyArrowPatch:
    """Return an arrow."""
    return FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=10, color=FAINT, lw=1, **how)


def shapes_of(value: Any) -> str:
    """Describe tensors in what a function takes or returns."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, dict):
        return ", ".join(value)
    if isinstance(value, list | tuple):
        found = [shapes_of(part) for part in value]
        return (
            f"{len(found)} x {found[0]}" if len(found) > 1 and len(set(found)) == 1 else ", ".join(filter(None, found))
        )
    return ""


def stages() -> list[tuple[Any, str, str]]:
    """Return the functions that a batch passes in a step: the class, the name, and what it does."""
    method, task = skssl.SimCLR, skssl.Rotation
    return [
        (MemoryImages, "read", "gathers the images of a batch by their numbers"),
        (loader.ImageLoader, "views", "draws random numbers and makes the views on the device"),
        (objective.Objective, "prepare", "lets hooks add to the batch what a compiled step cannot make"),
        (method, "losses", "the method's losses, by name"),
        (task, "losses", "the losses of an auxiliary task"),
        (objective.Objective, "forward", "their weighted sum"),
        (torch.Tensor, "backward", "gradients"),
        (method, "after_backward", "lets the method change gradients"),
        (torch.optim.SGD, "step", "moves the weights"),
        (method, "after_step", "lets the method move what has no gradient"),
    ]


def trace() -> list[tuple[str, str, str, str]]:
    """Train for one step, and return for each stage its room, name, purpose and result; refuse another order."""
    found: list[tuple[str, str, str, str]] = []

    def watched(owner: Any, name: str, text: str) -> Any:
        function = getattr(owner, name)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            out = function(*args, **kwargs)
            place = owner.__module__.split(".")
            room = place[1] if place[0] == "skssl" else place[0]
            found.append((room, f"{owner.__name__}.{name}", text, shapes_of(out)))
            return out

        return mock.patch.object(owner, name, call)

    images, _ = make_shapes(256, image_size=32, random_state=0)
    method = skssl.SimCLR(backbone="convnet", aux="rotation", epochs=1, random_state=0, device="cpu")
    with contextlib.ExitStack() as stack:
        for stage in stages():
            stack.enter_context(watched(*stage))
        method.fit(images)
    expected = [f"{owner.__name__}.{name}" for owner, name, _ in stages()]
    step = found[: len(expected)]  # what follows judges the epoch
    if [name for _, name, _, _ in step] != expected:
        raise RuntimeError(f"A step now calls {[name for _, name, _, _ in found]}, and not {expected}: mend `stages`.")
    return step


def draw_batch() -> Figure:
    """Draw what one step of SimCLR with rotation calls, in order, and the tensors that come out."""
    steps = trace()
    figure = Figure(figsize=(9, 0.62 * len(steps) + 0.3), layout="constrained")
    ax = figure.add_subplot()
    for i, (room, name, text, out) in enumerate(steps):
        y = -i
        ax.add_patch(box(0, y - 0.27, 3.1, 0.54))
        ax.text(1.55, y, name, ha="center", va="center", color=INK, fontsize=10, zorder=4)
        ax.text(-0.15, y, room, ha="right", va="center", color="#6b7785", fontsize=9, style="italic")
        ax.text(3.3, y + (0.13 if out else 0), text, ha="left", va="center", color=INK, fontsize=9)
        if out:
            ax.text(3.3, y - 0.15, f"→ {out}", ha="left", va="center", color="#6b7785", fontsize=8.5)
        if i:
            ax.add_patch(
                FancyArrowPatch((1.55, y + 0.73), (1.55, y + 0.29), arrowstyle="-|>", mutation_scale=9, color=INK)
            )
    ax.set(xlim=(-1.1, 8.4), ylim=(-len(steps) + 0.5, 0.5))
    ax.axis("off")
    return figure
