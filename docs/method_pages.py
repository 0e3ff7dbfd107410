"""A page for each method, made from its docstring, one step of its training, the recipes and the recorded rows."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import flow
import pandas as pd
from numpydoc.docscrape import NumpyDocString

import skssl
from benchmarks.methods import METHODS
from skssl import methods, recipes
from skssl.methods.base import SSLTransformer
from skssl.training.objective import Hooks

DATA_SETS = ("CIFAR10", "CIFAR100", "TINY_IMAGENET", "IMAGENET100", "IMAGENET", "VIDEO")

FOR_USERS = {"pu_weights", "sound_map", "transform_audio"}  # of what single methods have beyond `SSLTransformer`

FAMILIES = (
    "Contrastive",
    "Prediction of another view",
    "Statistics of a batch",
    "Clusters and prototypes",
    "Masked images",
    "Pretext tasks",
    "Clips and sounds",
)
ADVICE = tomllib.loads(Path(__file__).with_name("advice.toml").read_text())


def inner_members() -> dict[str, str]:
    """Return the members by class that are no part of the reference: hooks, and what methods compute in their steps."""
    hooks = {"n_views", *(name for name in vars(Hooks) if not name.startswith("_"))}
    own = {name: set(dir(getattr(skssl, name))) - set(dir(SSLTransformer)) for name in methods.__all__}
    inner = {name: {of for of in names - FOR_USERS if not of.startswith("_")} for name, names in own.items()}
    return {name: ", ".join(sorted(hooks | of)) for name, of in {**inner, "SSLTransformer": set()}.items()}


def render(folder: Path, recorded: Path) -> None:
    """Write the pages and their pictures.

    Parameters
    ----------
    folder : Path
        Where to write them.
    recorded : Path
        The rows of ``benchmarks methods``.
    """
    folder.mkdir(exist_ok=True)
    rows = pd.read_csv(recorded).drop_duplicates(["method", "backbone", "seed", "epochs", "hardware"], keep="last")
    for name in methods.__all__:
        method = getattr(skssl, name)
        backbone = "vit_micro" if method.backbone.startswith("vit") else "convnet"
        traced = flow.trace(method(backbone=backbone, epochs=1, batch_size=64, random_state=0))
        for palette, colors in {"light": flow.LIGHT, "dark": flow.DARK}.items():
            flow.draw(traced, colors).savefig(folder / f"{name}-{palette}.png", dpi=160, transparent=True)
        (folder / f"{name}.md").write_text(page(name, rows))
    (folder.parent / "generated" / "list_of_methods.md").write_text(list_of_methods())


def list_of_methods() -> str:
    """Return a table for each family with the first sentences of its methods, and the table of contents."""
    parts = []
    for family in FAMILIES:
        names = [name for name in sorted(ADVICE, key=str.lower) if ADVICE[name]["family"] == family]
        ideas = [" ".join(NumpyDocString(getattr(skssl, name).__doc__)["Summary"]) for name in names]
        rows = [f"| {{doc}}`methods/{name}` | {idea} |" for name, idea in zip(names, ideas, strict=True)]
        parts += [f"## {family}", "\n".join(["| method | idea |", "|---|---|", *rows])]
        pages = "\n".join(f"methods/{name}" for name in names)
        parts.append(f"```{{toctree}}\n:hidden:\n:caption: {family}\n\n{pages}\n```")
    return "\n\n".join(parts) + "\n"


def page(name: str, rows: pd.DataFrame) -> str:
    """Return the page of a method."""
    found = NumpyDocString(getattr(skssl, name).__doc__)
    idea = [" ".join(found["Summary"]), *found["Extended Summary"]]
    parts = [
        f"# {name}",
        rst(idea),
        "::::{container} scrolls",
        *(
            f"```{{image}} {name}-{mode}.png\n:class: only-{mode}\n:alt: flow of {name}\n```"
            for mode in ("light", "dark")
        ),
        "::::",
        "One step of training. Gradients do not flow back along dashed arrows.",
        f"**Use it if:** {ADVICE[name]['use']}\n\n**Use something else if:** {ADVICE[name]['other']}",
        "## Example",
        "```python\n" + "\n".join(found["Examples"]) + "\n```",
        f"{{class}}`skssl.{name}` lists all parameters.",
        "## Settings by data set",
        settings(name),
        "## Measured",
        measured(name, rows),
        "## Paper",
        rst(found["References"]),
    ]
    return "\n\n".join(parts) + "\n"


def rst(lines: list[str]) -> str:
    """Include lines of a docstring, which are reStructuredText."""
    return "```{eval-rst}\n" + "\n".join(lines) + "\n```"


def settings(name: str) -> str:
    """Return a table of the method's recipes."""
    found = [
        {
            "data set": data_set,
            "recipe": title,
            "arguments": f"``{arguments(recipe['params'])}``",
            "linear, %": recipe["linear"],
            "kNN, %": recipe["knn"],
            "source": recipe["source"],
        }
        for data_set in DATA_SETS
        for title, recipe in getattr(recipes, data_set).items()
        if recipe["method"] == name
    ]
    if not found:
        return "There is no recipe yet."
    how = "The papers' settings and scores. `skssl.recipes.make` makes an estimator of each; see {doc}`../recipes`."
    return f"{how}\n\n{table(pd.DataFrame(found), '12 16 38 8 8 18')}"


def arguments(params: dict[str, Any]) -> str:
    """Return arguments as in a call."""
    return ", ".join(f"{key}={getattr(value, '__name__', repr(value))}" for key, value in params.items())


def measured(name: str, rows: pd.DataFrame) -> str:
    """Return a table of the recorded rows of a method."""
    own = {row: params for row, (method, params) in METHODS.items() if method.__name__ == name and row != "untrained"}
    of = rows[rows["method"].isin(own)]
    if of.empty:
        return "Not recorded yet."
    groups = of.groupby(["method", "epochs", "hardware"], sort=False)
    mean, deviation = (getattr(groups[["linear", "knn"]], how)() for how in ("mean", "std"))
    shown = (
        mean.round(3)
        .astype(str)
        .where(deviation.isna(), mean.round(3).astype(str) + " ± " + deviation.round(3).astype(str))
    )
    shown = shown.assign(seeds=groups["seed"].nunique()).reset_index().rename(columns={"method": "row", "knn": "kNN"})
    shown.insert(1, "arguments", [f"``{arguments(own[row])}``" if own[row] else "" for row in shown["row"]])
    untrained, pixels = (rows[rows["method"] == row]["knn"].iloc[-1] for row in ("untrained", "pixels"))
    text = (
        'A small encoder ("convnet") on 20,000 images of CIFAR-10, evaluated as in {doc}`../benchmarks`. '
        f"The kNN accuracy of the untrained encoder is {untrained:.3f}, that of pixels {pixels:.3f}."
    )
    return f"{text}\n\n{table(shown, '22 34 6 14 12 12 6')}"


def table(frame: pd.DataFrame, widths: str) -> str:
    """Return a table that scrolls in its own frame."""
    csv = frame.to_csv(index=False)
    return f"::::{{container}} scrolls\n```{{csv-table}}\n:header-rows: 1\n:widths: {widths}\n\n{csv}```\n::::"
