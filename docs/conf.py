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
        (generated / f"{title}.html").write_text(f'<div style="overflow-x: auto; font-size: 0.85em">{table}</div>')


render_tables()
