"""The pages' tables and figures, made from the rows that the benchmarks recorded: the latest of each run counts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import structure
from matplotlib.figure import Figure

from benchmarks import claims, curves, papers
from benchmarks.race import ATTEMPTS
from benchmarks.record import read
from skssl import Results, recipes

HERE = Path(__file__).parent
RECORDED, GENERATED = HERE.parent / "benchmarks" / "results", HERE / "generated"
PAGES = {"own passes": "own_passes", "plain forward": "transform"}  # of the loops that `fit` is not compared with
DATA_SETS = ("CIFAR10", "CIFAR100", "STL10", "TINY_IMAGENET", "IMAGENET100", "IMAGENET", "VIDEO", "RACE")


def render() -> None:
    """Make all of them; where a benchmark has not been run the page says so."""
    GENERATED.mkdir(exist_ok=True)
    for name in [*BENCHMARKS, *PAGES.values(), "race_tried"]:
        (GENERATED / f"{name}.md").write_text("*Not recorded yet.*\n")
    for name, (keys, page) in BENCHMARKS.items():
        if (RECORDED / f"{name}.csv").exists():
            page(name, read(name, RECORDED).fillna({"backbone": "", "data": ""}).drop_duplicates(keys, keep="last"))
    structure.render(GENERATED)
    tables_and_figures()
    cluster()
    shown = {"data set": 8, "recipe": 14, "estimator": 30, "linear": 5, "kNN": 5, "other scores": 6}
    shown |= {"source": 12, "not printed": 10, "judged by": 10}
    of_papers("recipes", {name: getattr(recipes, name) for name in DATA_SETS}, shown)
    of_papers(
        "fine_tuning",
        {"": recipes.FINE_TUNING},
        {"recipe": 20, "estimator": 40, "source": 20, "not printed": 10, "other scores": 10},
    )
    of_papers(
        "dense",
        {"": recipes.DENSE},
        {"recipe": 20, "estimator": 40, "source": 20, "not printed": 10, "other scores": 10},
    )


def write(name: str, table: pd.DataFrame, figure: Figure | None = None, widths: str = "auto") -> None:
    """Write a table, and a figure above it, in the form that a page includes; one machine is named once."""
    machines = table["hardware"].unique() if "hardware" in table else []
    if len(machines) == 1:
        table = table.drop(columns="hardware")
    text = f"```{{csv-table}}\n:header-rows: 1\n:widths: {widths}\n\n{table.to_csv(index=False)}```\n"
    text += f"\nOn: {machines[0]}.\n" if len(machines) == 1 else ""
    if figure is not None:
        figure.savefig(GENERATED / f"{name}.png", dpi=150)
        text = f"![{name.replace('_', ' ')}](generated/{name}.png)\n\n{text}"
    (GENERATED / f"{name}.md").write_text(text)


def means(rows: pd.DataFrame, keys: list[str], measures: list[str], digits: int | dict[str, int] = 3) -> pd.DataFrame:
    """Average over the seeds, with the deviation where there are several, and say what made the rows."""
    groups = rows.groupby(keys, sort=False)
    average, deviation = groups[measures].mean(), groups[measures].std()
    table = pd.DataFrame(index=average.index)
    for name in measures:
        n = digits[name] if isinstance(digits, dict) else digits
        mean, spread = (of[name].round(n).map(f"{{:.{max(n, 0)}f}}".format).astype(str) for of in (average, deviation))
        table[name] = mean.where(spread == "nan", mean + " ± " + spread).replace("nan", "")
    return table.assign(seeds=groups["seed"].nunique(), **groups[["hardware", "commit"]].last()).reset_index()


def of_papers(name: str, sets: dict[str, dict[str, Any]], shown: dict[str, int]) -> None:
    """Render recipes: some columns, and how wide they are."""
    rows = []
    for data_set, found in sets.items():
        for title, recipe in found.items():
            shown_as = {key: getattr(value, "__name__", repr(value)) for key, value in recipe["params"].items()}
            arguments = ", ".join(f"{key}={value}" for key, value in shown_as.items())
            call = f"``{recipe['method']}({arguments})``"
            by_origin = {
                said: [name for name, origin in recipe["origin"].items() if origin == kind]
                for kind, said in {"inferred": "inferred", "code": "from code"}.items()
            }
            origin = "; ".join(f"{said}: {', '.join(names)}" for said, names in by_origin.items() if names)
            if set(recipe["origin"].values()) == {"code"}:
                origin = "all from code"
            scores = ", ".join(f"{key} {value}" for key, value in recipe["scores"].items())
            row = {"data set": f"``{data_set}``", "recipe": title, "estimator": call, **recipe}
            judged = "; ".join(
                f"{'kNN' if probe == 'knn' else probe}: {', '.join(f'{key}={value!r}' for key, value in of.items())}"
                for probe, of in recipe.get("protocol", {}).items()
                if of
            )
            rows.append(
                {**row, "not printed": origin, "other scores": scores, "judged by": f"``{judged}``" if judged else ""}
            )
    write(name, pd.DataFrame(rows).rename(columns={"knn": "kNN"})[[*shown]], widths=" ".join(map(str, shown.values())))


def throughput(name: str, rows: pd.DataFrame) -> None:
    """Render the speed of training and of `transform`: a row a method, a column for each loop beside which it ran."""
    keys = ["backbone", "method", "hardware"]
    ours = rows[rows["loop"] == "fit"].set_index(keys)[["images_per_second", "commit"]]
    for title, of in rows[rows["loop"] != "fit"].groupby(rows["loop"].map(PAGES).fillna(name)):
        ratios = of.pivot(index=keys, columns="loop", values="fit_is_faster_by").add_prefix("by ").round(2)
        table = ratios.join(ours).reset_index().fillna("")
        table.insert(2, "images/s", table.pop("images_per_second").round().astype(int))
        write(title, table)


def augmentation(name: str, rows: pd.DataFrame) -> None:
    """Render the speed of the augmentation."""
    write(name, rows[["preset", "hsv", "yiq", "hardware", "commit"]])


def profile(name: str, rows: pd.DataFrame) -> None:
    """Render where a step's time goes."""
    shown = rows.drop(columns=["date", "versions", "command"]).round(1)
    write(name, shown)


def scaling(name: str, rows: pd.DataFrame) -> None:
    """Render how the cost grows with one thing at a time."""
    titles = {
        "images_per_second": "images/s",
        "time_an_image": "time an image",
        "memory": "MB",
        "of_images": "MB of images",
    }
    rows = rows.round({"images_per_second": 0, "time_an_image": 2, "memory": 0, "of_images": 0})
    whole = ["images_per_second", "memory", "of_images"]
    rows[whole] = rows[whole].astype(int)
    keys = ["varied", "backbone", "images", "source", "pixels", "batch"]
    write(name, rows[[*keys, *titles, "hardware", "commit"]].rename(columns=titles))


def cluster() -> None:
    """Render what the page on scaling computes: the share of several devices' time that is not spent on waiting."""
    # Multiply-adds a view, weights, passes through BatchNorm, embeddings' width, images a batch; of SimSiam and SimCLR
    jobs = {
        "SimSiam, ResNet-18, 32x32, batch 512": (0.56e9, 21e6, 2 * 24, 2048, 512),
        "SimCLR, ResNet-50, 224x224, batch 4096": (4.1e9, 28e6, 55, 128, 4096),
    }
    links = {"one machine": (300e9, 20e-6), "Ethernet": (12.5e9, 60e-6), "InfiniBand": (50e9, 25e-6)}
    rows = []
    for job, (multiplied, weights, layers, width, batch) in jobs.items():
        one = 2 * batch * 6 * multiplied / 200e12
        for link, (bandwidth, latency) in links.items():
            row: dict[str, Any] = {"job": job, "link": link, "step of one device, ms": round(1000 * one, 1)}
            for devices in (2, 4, 8, 16, 64):
                ring = 2 * (devices - 1) / devices / bandwidth
                compute = one / devices
                waiting = max(0.0, ring * 4 * weights - 2 / 3 * compute) + ring * 4 * 2 * batch * width
                waiting += 4 * layers * latency * math.ceil(math.log2(devices))
                fits = link != "one machine" or devices <= 8
                row[f"{devices} devices"] = f"{compute / (compute + waiting):.2f}" if fits else ""
            rows.append(row)
    write("cluster", pd.DataFrame(rows))


def distributed(name: str, rows: pd.DataFrame) -> None:
    """Render what one process and several make of the same training."""
    rows = rows.rename(columns={"images_per_second": "images/s", "knn": "kNN"})
    keys = ["method", "backbone", "images", "epochs", "processes"]
    write(name, means(rows, keys, ["kNN", "loss", "images/s"], digits={"kNN": 3, "loss": 2, "images/s": 0}))


def probes(name: str, rows: pd.DataFrame) -> None:
    """Render the probes' comparison with scikit-learn."""
    shown = ["job", "seconds", "sklearn_seconds", "ratio", "loss", "sklearn_loss", "accuracy", "sklearn_accuracy"]
    digits = {"seconds": 2, "sklearn_seconds": 2, "ratio": 3, "loss": 6, "sklearn_loss": 6}
    write(name, rows[[*shown, "same_prediction", "hardware", "commit"]].round(digits))


def methods(name: str, rows: pd.DataFrame) -> None:
    """Render how good the features are, and two papers' tables with these rows beside what the papers report."""
    measures = ["linear", "knn", "knn, two classes"]
    on_gpu = rows["hardware"].str.startswith("NVIDIA")
    write(name, means(rows[~on_gpu], ["method", "epochs"], measures))
    write("methods_gpu", means(rows[on_gpu], ["method", "epochs"], measures))
    rows = rows[~on_gpu]
    write("claims", claims.table(rows), widths="24 10 18 18 9 9 7 5 5 8")

    ours = rows[rows["epochs"] == 10].rename(columns={"knn": "kNN"}).assign(dataset="CIFAR-10, here")
    names = {"SimSiamGSG": "SimSiam + GSG", "BYOLGSG": "BYOL + GSG"}  # what the papers call them
    names |= {f"{method}, shared views": guided for method, guided in names.items()}
    for method in ("SimSiam", "BYOL"):
        names |= {f"{method}, GSG's baseline": method, f"{method}GSG, symmetric": method}
    sets = {"CIFAR-10": recipes.CIFAR10, "CIFAR-100": recipes.CIFAR100, "ImageNet": recipes.IMAGENET}
    for paper, number, digits in (("EffSSL", "table 5", 2), ("GSG", "table 1", 1)):
        published = [
            {"dataset": data_set, "method": method, "seed": 0}
            | {"kNN": recipe["knn"] / 100, "linear": recipe["linear"] / 100}
            for data_set, found in sets.items()
            for method, recipe in found.items()
            if recipe["source"].startswith(paper)
            and recipe["source"].endswith(number)
            and None not in (recipe["linear"], recipe["knn"])
        ]
        mine = ours[["dataset", "method", "seed", "kNN", "linear"]]
        if paper == "GSG":  # with two views an image, as its table's page says, and with one thing that differs
            mine = mine[~mine["method"].isin(["SimSiam", "SimSiamGSG", "BYOL", "BYOLGSG"])]
        both = pd.concat([mine, pd.DataFrame(published)])
        scores = both.melt(["dataset", "method", "seed"], var_name="probe", value_name="score")
        scores["method"] = scores["method"].replace(names if paper == "GSG" else {})
        shown = scores["method"][scores["dataset"] == "CIFAR-10"].unique().tolist()
        results = Results(scores.drop_duplicates(["dataset", "method", "seed", "probe"], keep="first"))
        table = results.to_html(shown, digits=digits)
        title = f"{paper.lower()}_{number.replace(' ', '_')}"
        (GENERATED / f"{title}.html").write_text(
            f'<div style="overflow-x: auto; font-size: 0.85em; margin-bottom: 1.5em">{table}</div>'
        )


def tables_and_figures() -> None:
    """Render the list of the papers' tables and figures with their commands."""
    rows = []
    for entry in papers.ENTRIES:
        commands = entry.commands() or [("", "")]
        for i, (where, command) in enumerate(commands):
            first = {"paper": entry.paper, "table or figure": entry.item, "shows": entry.shows, "note": entry.note}
            row = first if i == 0 else dict.fromkeys(first, "")
            rows.append({**row, "where": where, "command": f"``{command}``" if command else ""})
    shown = {"paper": 8, "table or figure": 12, "shows": 22, "where": 6, "command": 36, "note": 16}
    write("papers", pd.DataFrame(rows)[[*shown]], widths=" ".join(map(str, shown.values())))


def tables(name: str, rows: pd.DataFrame) -> None:
    """Render the runs of the papers' length beside the papers' own figures, in per cent."""
    rows[["linear", "knn"]] *= 100
    titles = {"linear": "linear", "knn": "kNN", "paper_linear": "the paper's linear", "paper_knn": "the paper's kNN"}
    keys = ["data", "method", "backbone", "epochs", "images"]
    write(name, means(rows.rename(columns=titles), keys, [*titles.values(), "seconds"], digits=2))


def gpu(name: str, rows: pd.DataFrame) -> None:
    """Render images a second on a GPU: a row a loop."""
    rows = rows[rows["error"].isna()].sort_values(
        ["method", "batch", "images_per_second"], ascending=[True, True, False]
    )
    rows["images/s"] = rows["images_per_second"].round(-2).astype(int)
    rows["GiB"] = rows["gib"].round(1)
    write(name, rows[["method", "batch", "loop", "images/s", "GiB", "hardware", "commit"]])


def protocols(name: str, rows: pd.DataFrame) -> None:
    """Render how long the papers' linear protocols take."""
    titles = {"eager_seconds": "seconds, step by step"}
    rows = rows.rename(columns=titles).round({"seconds": 1, titles["eager_seconds"]: 1, "accuracy": 3})
    write(name, rows[["job", "steps", "seconds", titles["eager_seconds"], "accuracy", "hardware", "commit"]])


def few_labels(name: str, rows: pd.DataFrame) -> None:
    """Render the few-label curves."""
    rows["share"] = [f"{100 * fraction:g} %" for fraction in rows["fraction"]]
    shares = rows.sort_values("fraction")["share"].unique().tolist()
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    colors = {method: f"C{i}" for i, method in enumerate(rows["method"].unique())}
    for (method, classifier), of in rows.groupby(["method", "classifier"], sort=False):
        curve = of.groupby("fraction")["accuracy"].mean()
        style = ":o" if classifier == "probe" else "-o"
        axes.plot(curve.index, curve, style, color=colors[method], label=f"{method}, {classifier}")
    axes.set(xscale="log", xlabel="labels", ylabel="accuracy")
    axes.set_xticks(sorted(rows["fraction"].unique()), shares, minor=False)
    axes.set_xticks([], minor=True)
    figure.legend(loc="outside right", fontsize="small")
    keys = ["method", "classifier", "epochs", "images"]
    origin = rows.groupby([*keys, "seed"], sort=False)[["hardware", "commit"]].last()
    wide = rows.pivot_table("accuracy", [*keys, "seed"], "share", sort=False).join(origin).reset_index()
    write(name, means(wide, keys, shares), figure)


def accuracy_curves(name: str, rows: pd.DataFrame) -> None:
    """Render the accuracy by epoch, a panel a figure and data set, and a table of the last epoch."""
    panels = [
        (f"{title} ({data or 'small scale'})", of[of["method"].isin(names[bool(data)])])
        for data, of in rows.groupby("data", sort=False)
        for title, names in curves.FIGURES.items()
    ]
    panels = [(title, of) for title, of in panels if len(of)] or [("", rows)]
    figure = Figure(figsize=(9, 3.5 * len(panels)), layout="constrained")
    for axes, (title, of) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        for method, curve in of.groupby("method", sort=False):
            by_epoch = curve.groupby("epoch")["knn"].agg(["mean", "min", "max"])
            axes.plot(by_epoch.index, by_epoch["mean"], "-o", markersize=3, label=method)
            axes.fill_between(by_epoch.index, by_epoch["min"], by_epoch["max"], alpha=0.2)
        axes.set(xlabel="epoch", ylabel="kNN accuracy", title=title)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    last = rows[rows["epoch"] == rows["epochs"]].rename(columns={"knn": "kNN"})
    write(name, means(last, ["data", "method", "epochs", "images"], ["kNN", "loss"]), figure)


def transfer(name: str, rows: pd.DataFrame) -> None:
    """Render the scores of transfers."""
    write(name, means(rows, ["encoder", "task", "data", "measure"], ["score"]))


def sharing(name: str, rows: pd.DataFrame) -> None:
    """Render what trainings side by side come to, the median of the rounds."""
    keys = ["backbone", "variables", "fits", "hardware", "commit"]
    rows = (
        rows.fillna({"variables": ""})
        .groupby(keys, sort=False)[["images_per_second", "by_turns"]]
        .median()
        .reset_index()
    )
    rows["images/s, together"] = rows["images_per_second"].round(-1).astype(int)
    rows["time by that of taking turns"] = rows["by_turns"].round(2)
    write(
        name,
        rows[
            [
                "backbone",
                "variables",
                "fits",
                "images/s, together",
                "time by that of taking turns",
                "hardware",
                "commit",
            ]
        ],
    )


def photographs(name: str, rows: pd.DataFrame) -> None:
    """Render the speed of trainings on photographs: a row a run."""
    rows = rows.rename(columns={"images_per_second": "images/s", "fit_is_faster_by": "fit is faster by"})
    shown = ["run", "images", "images/s", "fit is faster by", "precision", "rounds", "hardware", "commit"]
    write(name, rows[shown].round({"images/s": 0, "fit is faster by": 2}))


def photographs_packs(name: str, rows: pd.DataFrame) -> None:
    """Render the sizes of packs, and the time that crops from them take."""
    calls = {"files": "the files", **{kind: f'`"{kind}"`' for kind in ("jpeg", "pixels")}}
    longest = rows["max_side"].map(lambda side: f", `max_side={side:.0f}`" if side == side else "")
    rows = rows.assign(pictures=rows["kind"].map(calls) + longest).round({"megabytes": 0, "milliseconds": 2})
    rows = rows.astype({"megabytes": int})
    write(name, rows[["pictures", "megabytes", "milliseconds", "images", "hardware", "commit"]])


def accumulate(name: str, rows: pd.DataFrame) -> None:
    """Render the memory and the time of batches in parts."""
    rows = rows.rename(columns={"memory": "MB"}).round({"MB": 0, "time": 2}).astype({"MB": int})
    write(name, rows[["backbone", "batch_size", "accumulate", "MB", "time", "rounds", "hardware", "commit"]])


def photographs_memory(name: str, rows: pd.DataFrame) -> None:
    """Render the memory of trainings on photographs."""
    write(name, rows[["images", "memory", "hardware", "commit"]].round(0).rename(columns={"memory": "MB"}))


def photographs_quality(name: str, rows: pd.DataFrame) -> None:
    """Render how good the features of photographs are."""
    write(name, means(rows, ["run", "epochs"], ["knn", "linear", "seconds"]))


def pretext_accuracy(name: str, rows: pd.DataFrame) -> None:
    """Render what the features know of the pretext tasks."""
    measures = [f"{kind}, {layer}" for kind in ("rotation", "contrastive") for layer in ("backbone", "projector")]
    write(name, means(rows, ["method", "epochs", "images", "batch_size"], ["linear", *measures]))


def gradient_snr(name: str, rows: pd.DataFrame) -> None:
    """Render how the gradient's signal-to-noise ratio goes, and the table of the last epoch."""
    labels = {"gradient_snr": "|mean| / variance", "gradient_snr_squared": "mean² / variance"}
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    both = figure.subplots(1, 2)
    for axes, (measure, label) in zip(both, labels.items(), strict=True):
        for method, of in rows.groupby("method", sort=False):
            curve = of.groupby("epoch")[measure].agg(["mean", "min", "max"])
            axes.plot(curve.index, curve["mean"], "-o", label=method)
            axes.fill_between(curve.index, curve["min"], curve["max"], alpha=0.2)
        axes.set(xlabel="epoch", ylabel=label, yscale="log")
    both[0].legend()
    last = rows[rows["epoch"] == rows["epochs"]]
    write(name, means(last, ["method", "epochs", "images"], [*labels], digits=4), figure)


RUN = ["method", "backbone", "seed", "epochs"]


def clips(name: str, rows: pd.DataFrame) -> None:
    """Render the probes of methods on clips, and where their sound maps point."""
    keys = ["method", "epochs", "clips", "size"]
    write(name, means(rows, keys, ["shape", "motion", "sound map", "box"]))


def race(name: str, rows: pd.DataFrame) -> None:
    """Render the records of the race, and what was tried, with the difference from the entry that it changes."""
    limits = rows[rows["entry"] == "record"]
    digits = {"linear": 3, "seconds": 0, "transform": -2, "width": 0}
    write(name, means(limits, ["track"], [*digits], digits))
    tried = rows[rows["entry"] != "record"].assign(of=lambda table: table["entry"].map(lambda name: ATTEMPTS[name][0]))
    scores = tried.groupby("entry")["linear"].mean()
    table = means(tried, ["entry", "of", "epochs", "width"], ["linear", "seconds"], {"linear": 3, "seconds": 0})
    table.insert(3, "difference", (table["entry"].map(scores) - table["of"].map(scores)).map("{:+.3f}".format))
    write(f"{name}_tried", table.rename(columns={"of": "changes"}).replace("+nan", ""))


BENCHMARKS = {  # what tells the runs of each apart, and what makes its page
    "throughput": (["hardware", "backbone", "method", "loop"], throughput),
    "augmentation": (["hardware", "preset"], augmentation),
    "profile": (["hardware", "backbone", "step"], profile),
    "scaling": (["hardware", "varied", "backbone", "images", "source", "pixels", "batch"], scaling),
    "distributed": ([*RUN, "images", "processes"], distributed),
    "probes": (["hardware", "job"], probes),
    "protocols": (["hardware", "job"], protocols),
    "methods": ([*RUN, "hardware"], methods),
    "tables": (["data", *RUN, "images", "hardware"], tables),
    "curves": (["data", *RUN, "images", "epoch"], accuracy_curves),
    "transfer": (["encoder", "task", "data", "measure", "seed"], transfer),
    "gpu": (["hardware", "method", "batch", "loop"], gpu),
    "clips": (["hardware", "method", "seed", "epochs", "clips", "size"], clips),
    "race": (["track", "entry", "seed", "hardware"], race),
    "accumulate": (["hardware", "backbone", "pixels", "batch_size", "accumulate"], accumulate),
    "sharing": (["hardware", "backbone", "variables", "fits", "date"], sharing),
    "few_labels": ([*RUN, "images", "fraction", "classifier"], few_labels),
    "photographs": (["hardware", "run", "images", "precision"], photographs),
    "photographs_packs": (["hardware", "kind", "max_side", "images"], photographs_packs),
    "photographs_memory": (["hardware", "images"], photographs_memory),
    "photographs_quality": (["run", "backbone", "seed", "epochs"], photographs_quality),
    "pretext_accuracy": ([*RUN, "images", "batch_size"], pretext_accuracy),
    "gradient_snr": ([*RUN, "images", "decay", "epoch"], gradient_snr),
}
