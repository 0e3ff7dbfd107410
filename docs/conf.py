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
exclude_patterns = ["_build"]
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

    from skssl import recipes

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
    probes = probes[[*shown, "same_prediction", "hardware", "commit"]]
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


render_tables()
