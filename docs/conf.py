"""How the documentation is built."""

import skssl

project = "skssl"
author = "the skssl developers"
copyright = "2026, the skssl developers"
release = version = skssl.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "generated/*.md"]  # what other pages include is no page
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
autosummary_generate = True
suppress_warnings = ["ref.ref"]  # what is inherited from scikit-learn refers to its own pages
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
nitpicky = False
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": "/plot_",  # the others take minutes: shown, not run
    "download_all_examples": False,
    "show_memory": False,
    "min_reported_time": 1e9,
    "image_srcset": ["2x"],
    "capture_repr": ("_repr_html_",),
}
templates_path = ["_templates"]
html_theme = "pydata_sphinx_theme"
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False, "show_prev_next": False}
html_title = "skssl"
html_show_sourcelink = False


def render_tables() -> None:
    """Make the pages' tables from the rows that the benchmarks recorded: the latest commit of each method counts."""
    from pathlib import Path

    import pandas as pd

    from skssl import Results, recipes

    here = Path(__file__).parent
    results, generated = here.parent / "benchmarks" / "results", here / "generated"
    generated.mkdir(exist_ok=True)

    speed = (
        pd.read_csv(results / "throughput.csv").groupby(["hardware", "backbone", "method", "loop"], sort=False).last()
    )
    speed = speed.reset_index()[
        [
            "backbone",
            "method",
            "loop",
            "images_per_second",
            "fit_is_faster_by",
            "rounds",
            "hardware",
            "versions",
            "commit",
        ]
    ]
    speed.round({"images_per_second": 0, "fit_is_faster_by": 2}).to_csv(generated / "throughput.csv", index=False)

    views = pd.read_csv(results / "augmentation.csv").groupby(["hardware", "preset"], sort=False).last().reset_index()
    views[["preset", "hsv", "yiq", "hardware", "commit"]].to_csv(generated / "augmentation.csv", index=False)

    probes = pd.read_csv(results / "probes.csv").groupby(["hardware", "job"], sort=False).last().reset_index()
    shown = ["job", "seconds", "sklearn_seconds", "ratio", "loss", "sklearn_loss", "accuracy", "sklearn_accuracy"]
    probes = probes.reindex(columns=[*shown, "same_prediction", "hardware", "commit"])
    probes.round({"seconds": 2, "sklearn_seconds": 2, "ratio": 3, "loss": 6, "sklearn_loss": 6}).to_csv(
        generated / "probes.csv", index=False
    )

    runs = pd.read_csv(results / "methods.csv").drop_duplicates(["method", "backbone", "seed", "epochs"], keep="last")
    measures = ["linear", "knn", "knn, two classes", "seconds"]
    groups = runs.groupby(["method", "epochs"], sort=False, dropna=False)
    table = groups[measures].mean().round(3).astype(str)
    deviation = groups[measures].std().round(3)
    table = table.where(deviation.isna(), table + " ± " + deviation.astype(str))
    table["seconds"] = groups["seconds"].mean().round(0)
    table = table.assign(seeds=groups.size(), hardware=groups["hardware"].last(), commit=groups["commit"].last())
    table.reset_index().to_csv(generated / "methods.csv", index=False)

    rows = []
    for name in ("CIFAR10", "CIFAR100", "TINY_IMAGENET", "IMAGENET100", "IMAGENET"):
        for title, recipe in getattr(recipes, name).items():
            arguments = ", ".join(f"{key}={value!r}" for key, value in recipe["params"].items())
            call = f"``{recipe['method']}({arguments})``"
            rows.append([f"``{name}``", title, call, recipe["linear"], recipe["knn"], recipe["source"]])
    columns = ["data set", "recipe", "estimator", "linear", "kNN", "source"]
    pd.DataFrame(rows, columns=columns).to_csv(generated / "recipes.csv", index=False)

    rows = []
    for title, recipe in recipes.FINE_TUNING.items():
        arguments = ", ".join(f"{key}={value!r}" for key, value in recipe["params"].items())
        rows.append([title, f"``FineTuner(encoder, {arguments})``", recipe["source"]])
    columns = ["recipe", "estimator", "source"]
    pd.DataFrame(rows, columns=columns).to_csv(generated / "fine_tuning.csv", index=False)

    # Two papers' tables: ours beside what the papers report, under the papers' names
    names = {"SimSiamGSG": "SimSiam + GSG", "BYOLGSG": "BYOL + GSG"}
    names |= {f"{name}, GSG's baseline": name for name in ("SimSiam", "BYOL")}
    names |= {f"{name}, shared views": names[name] for name in ("SimSiamGSG", "BYOLGSG")}
    ours = runs[runs["epochs"] == 10].rename(columns={"knn": "kNN"}).assign(dataset="CIFAR-10, here")
    for paper, title, digits in (("EffSSL", "effssl_table_5", 2), ("GSG", "gsg_table_1", 1)):
        published = [
            {"dataset": name, "method": method, "seed": 0, "kNN": recipe["knn"] / 100, "linear": recipe["linear"] / 100}
            for name, found in (
                ("CIFAR-10", recipes.CIFAR10),
                ("CIFAR-100", recipes.CIFAR100),
                ("ImageNet", recipes.IMAGENET),
            )
            for method, recipe in found.items()
            if recipe["source"].startswith(paper) and "table" in recipe["source"]
        ]
        both = pd.concat([ours[["dataset", "method", "seed", "kNN", "linear"]], pd.DataFrame(published)])
        scores = both.melt(["dataset", "method", "seed"], var_name="probe", value_name="score")
        scores["method"] = scores["method"].replace(names if paper == "GSG" else {})
        shown = scores["method"][scores["dataset"] == "CIFAR-10"].unique().tolist()
        results = Results(scores.drop_duplicates(["dataset", "method", "seed", "probe"], keep="first"))
        table = results.to_html(shown, digits=digits)
        (generated / f"{title}.html").write_text(
            f'<div style="overflow-x: auto; font-size: 0.85em; margin-bottom: 1.5em">{table}</div>'
        )


def render_curves() -> None:
    """Make what the pages show of the experiments on trained encoders, where they have been recorded."""
    from pathlib import Path

    import pandas as pd
    from matplotlib.figure import Figure

    here = Path(__file__).parent
    results, generated = here.parent / "benchmarks" / "results", here / "generated"
    run = ["method", "backbone", "seed", "epochs", "images"]

    def latest(name: str, keys: list[str], measures: list[str]) -> pd.DataFrame | None:
        """Read the latest row of each run; write a note where there is none."""
        file = results / f"{name}.csv"
        if not file.exists():
            (generated / f"{name}.md").write_text("*Not recorded yet.*\n")
            return None
        rows = pd.read_csv(file, keep_default_na=False).drop_duplicates(keys, keep="last")
        return rows.assign(**rows[measures].apply(pd.to_numeric))

    def means(rows: pd.DataFrame, keys: list[str], measures: list[str]) -> pd.DataFrame:
        """Average over the seeds, with the deviation where there are several, and say what made the rows."""
        groups = rows.groupby(keys, sort=False)
        table, deviation = groups[measures].mean().round(3).astype(str), groups[measures].std().round(3)
        table = table.where(deviation.isna(), table + " ± " + deviation.astype(str)).replace("nan", "")
        return table.assign(seeds=groups["seed"].nunique(), **groups[["hardware", "commit"]].last())

    def write(name: str, table: pd.DataFrame, figure: Figure | None = None) -> None:
        """Write a table, and a figure above it, in the form that a page includes."""
        text = f"```{{csv-table}}\n:header-rows: 1\n\n{table.reset_index().to_csv(index=False)}```\n"
        if figure is not None:
            figure.savefig(generated / f"{name}.png", dpi=150)
            text = f"![{name.replace('_', ' ')}](generated/{name}.png)\n\n{text}"
        (generated / f"{name}.md").write_text(text)

    few = latest("few_labels", [*run, "fraction", "classifier"], ["accuracy"])
    if few is not None:
        few["share"] = [f"{100 * fraction:g} %" for fraction in few["fraction"]]
        shares = few.sort_values("fraction")["share"].unique().tolist()
        figure = Figure(figsize=(9, 4), layout="constrained")
        axes = figure.subplots()
        colors = {name: f"C{i}" for i, name in enumerate(few["method"].unique())}
        for (name, classifier), rows in few.groupby(["method", "classifier"], sort=False):
            curve = rows.groupby("fraction")["accuracy"].mean()
            style = ":o" if classifier == "probe" else "-o"
            axes.plot(curve.index, curve, style, color=colors[name], label=f"{name}, {classifier}")
        axes.set(xscale="log", xlabel="labels", ylabel="accuracy")
        axes.set_xticks(sorted(few["fraction"].unique()), shares, minor=False)
        axes.set_xticks([], minor=True)
        figure.legend(loc="outside right", fontsize="small")
        keys = ["method", "classifier", "epochs", "images"]
        origin = few.groupby([*keys, "seed"], sort=False)[["hardware", "commit"]].last()
        wide = few.pivot_table("accuracy", [*keys, "seed"], "share", sort=False).join(origin).reset_index()
        write("few_labels", means(wide, keys, shares), figure)

    measures = [f"{kind}, {layer}" for kind in ("rotation", "contrastive") for layer in ("backbone", "projector")]
    tasks = latest("pretext_accuracy", [*run, "batch_size"], ["linear", *measures])
    if tasks is not None:
        table = means(tasks, ["method", "epochs", "images", "batch_size"], ["linear", *measures])
        write("pretext_accuracy", table)

    measures = ["gradient_snr", "gradient_snr_squared"]
    noise = latest("gradient_snr", [*run, "decay", "epoch"], measures)
    if noise is not None:
        figure = Figure(figsize=(9, 3.5), layout="constrained")
        both = figure.subplots(1, 2)
        for axes, measure, label in zip(both, measures, ["|mean| / variance", "mean² / variance"], strict=True):
            for name, rows in noise.groupby("method", sort=False):
                curve = rows.groupby("epoch")[measure].agg(["mean", "min", "max"])
                axes.plot(curve.index, curve["mean"], "-o", label=name)
                axes.fill_between(curve.index, curve["min"], curve["max"], alpha=0.2)
            axes.set(xlabel="epoch", ylabel=label, yscale="log")
        both[0].legend()
        last = noise[noise["epoch"] == noise["epochs"]]
        write("gradient_snr", means(last, ["method", "epochs", "images"], measures), figure)


render_tables()
render_curves()
