"""The rooms of the package, from the ground up: the tests hold the imports to this list, and the docs draw it."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "skssl"

#: Floor by floor, the rooms in order: a file imports from its own room and from rooms before it.
FLOORS: list[dict[str, str]] = [
    {
        "errors": "the warnings, and the error for an unknown name",
        "storage": "saved estimators without pickle, exports, atomic writes",
    },
    {
        "images": "arrays, files, data sets and streams, read as `Images`; labels; the cache of decoded files",
        "datasets": "data sets by name or from a folder, and generated images",
    },
    {
        "nn": "heads, momentum copies, queues and banks, clustering, BatchNorm, precision, processes",
        "backbones": "encoders by name, or any module: its classifier removed, its weights kept or loaded",
        "augment": "random numbers of a batch, then views as a pure function of them; the papers' presets; saliency",
        "losses": "losses as pure functions of tensors",
    },
    {"training": "the training loop: loader, objective, trainer, optimisers, checkpoints, devices; encoding"},
    {"pretext": "one file for each pretext task, which any method takes as `aux`"},
    {"methods": "`SSLTransformer`, and one file for each method"},
    {
        "probes": "trained encoders, and the linear, kNN and MLP probes that score their features",
        "metrics": "measures of representations, and per-class accuracy",
        "results": "`compare` and its tables",
    },
    {
        "transfer": "fine-tuning, distillation, linear transfer, detection and segmentation",
        "display": "plots, and the HTML report",
        "callbacks": "callbacks that record measures during training",
    },
    {"recipes": "the papers' settings by data set"},
    {"api": "the public names, which `skssl` imports when the first is used", "cli": "the command line"},
]
ROOMS = {room: text for floor in FLOORS for room, text in floor.items()}


def modules() -> dict[str, Path]:
    """Return the files of the package by the names of their modules."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports() -> dict[str, set[str]]:
    """Return what each module imports from the package, inside functions and for type checkers, too."""
    files = modules()
    found: dict[str, set[str]] = {module: set() for module in files}
    for module, path in files.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [name if name in files else node.module for name in whole]
            found[module] |= {name for name in names if name.split(".")[0] == PACKAGE.name}
    return found


def room_of(module: str) -> str:
    """Return the room that a module lies in; that of the package itself is "skssl"."""
    return "cli" if module == "skssl.__main__" else module.split(".")[1] if "." in module else module
