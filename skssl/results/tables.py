"""Scores of a comparison as tables: a data frame, and the layouts of the papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import joblib

from skssl.errors import pick
from skssl.images.base import describe

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.formats.style import Styler

__all__ = ["Results"]

KEY = ["dataset", "method", "seed", "probe"]
DEFAULTS: dict[str, Any] = {"dataset": "", "seed": 0, "seconds": float("nan"), "images_per_second": float("nan")}
STYLES = [  # of HTML tables: booktabs rules in the colour of the surrounding text
    {"selector": "", "props": "border-collapse: collapse"},
    {"selector": "caption", "props": "caption-side: bottom; text-align: left; padding-top: 0.4em"},
    {"selector": "th, td", "props": "padding: 0.2em 0.8em; border: none; white-space: nowrap; text-align: right"},
    {"selector": "th.row_heading, th.index_name, th.blank", "props": "text-align: left; font-weight: normal"},
    {"selector": "th.col_heading.level0", "props": "text-align: center"},
    {"selector": "thead", "props": "border-top: 2px solid; border-bottom: 1px solid"},
    {"selector": "tbody", "props": "border-bottom: 2px solid"},
]


class Results:
    """Scores of methods as a tidy data frame and as tables.

    `compare` returns its scores in this form. It can also be made from recorded rows.

    Parameters
    ----------
    rows : pandas.DataFrame or sequence of dict
        A row for each run of a method and each probe, with "method", "probe" and "score". "dataset", "seed", "seconds"
        (of the training) and "images_per_second" are optional. Other columns are kept.

    Attributes
    ----------
    frame : pandas.DataFrame
        The rows, with all of these columns. A missing name of a data set, which a CSV file turns into NaN, is "".

    Raises
    ------
    ValueError
        If a column is missing, a score is not a number, a method or a probe has no name, or a run has two rows for
        one probe.

    Examples
    --------
    Rows of EffSSL's table 5, which has one seed:

    >>> from skssl import Results
    >>> knn = {"SimCLR": 0.8637, "SimCLR + rotation": 0.8869, "BYOL": 0.8656, "BYOL + rotation": 0.8980}
    >>> results = Results([{"method": method, "probe": "kNN", "score": score} for method, score in knn.items()])
    >>> results.pivot_results()
    probe                      kNN
    method
    SimCLR                    86.4
    SimCLR + rotation  88.7 (+2.3)
    BYOL                      86.6
    BYOL + rotation    89.8 (+3.2)
    """

    frame: pd.DataFrame

    def __init__(self, rows: Any) -> None:
        import pandas as pd

        try:
            frame = pd.DataFrame(rows).reset_index(drop=True)
        except (TypeError, ValueError) as error:
            raise TypeError(
                "rows must be a data frame or a list of dicts, such as {'method': 'SimCLR', 'probe': 'kNN', "
                f"'score': 0.9}}. Got {describe(rows)}."
            ) from error
        missing = [name for name in ("method", "probe", "score") if name not in frame]
        if missing:
            raise ValueError(f"rows must have the columns 'method', 'probe' and 'score'. Missing: {missing}.")
        if not pd.api.types.is_numeric_dtype(frame["score"]):
            raise ValueError(f"The column 'score' of rows must hold numbers. Got {frame['score'].dtype}.")
        for name, value in DEFAULTS.items():
            if name not in frame:
                frame[name] = value
        for name in ("method", "probe"):
            if frame[name].isna().any():
                raise ValueError(f"The column {name!r} of rows must hold a name in every row. Got NaN.")
        frame["dataset"] = frame["dataset"].astype(object).where(frame["dataset"].notna(), "")
        twice = frame[frame.duplicated(KEY)]
        if len(twice):
            raise ValueError(
                "rows must hold one row for each data set, method, seed and probe. Got two of "
                f"{tuple(twice.iloc[0][KEY].tolist())}: remove one, or give them different seeds."
            )
        first = [*KEY, "score", "seconds", "images_per_second"]
        self.frame = frame[[*first, *(name for name in frame if name not in first)]]

    def __repr__(self) -> str:
        """Return the table as text."""
        return self.pivot_results().to_string()

    def _repr_html_(self) -> str:
        """Return the table as HTML, for notebooks."""
        return self.to_html()

    def summary(
        self,
        methods: Sequence[str] | Mapping[str, str] | None = None,
        *,
        baseline: str | Mapping[str, str] | None = "auto",
    ) -> pd.DataFrame:
        """Summarise the scores of each method over the seeds.

        Parameters
        ----------
        methods : sequence of str or dict of str to str, default=None
            The methods in the order of the table; a dict renames them. None is all, in order of appearance.
        baseline : str, dict of str to str or None, default="auto"
            The baseline of all other methods, or of each method by name. "auto" compares a method named "A + B" with
            "A", if there is one. None compares nothing.

        Returns
        -------
        pandas.DataFrame
            A row for each data set, method and probe: "mean" and "std" over the seeds (with n - 1; NaN for one seed),
            "seeds" (their number), "baseline" (its name or None) and "difference" (of the means).

        Raises
        ------
        ValueError
            If a method is unknown.

        Examples
        --------
        >>> from skssl import Results
        >>> rows = [{"method": "SimCLR", "probe": "kNN", "seed": seed, "score": 0.5 + seed / 10} for seed in (0, 1, 2)]
        >>> Results(rows).summary().round(3).iloc[0].to_dict()
        {'dataset': '', 'method': 'SimCLR', 'probe': 'kNN', 'mean': 0.6, 'std': 0.1, 'seeds': 3,
         'baseline': None, 'difference': nan}
        """
        import pandas as pd

        known = dict.fromkeys(self.frame["method"])
        chosen = dict(methods) if isinstance(methods, Mapping) else {name: name for name in methods or known}
        for name in chosen:
            pick("method", name, known)
        names = list(chosen.values())
        if len(set(names)) < len(names):
            raise ValueError(f"methods must give every method a distinct name. Got {names}.")
        rows = pd.concat([self.frame[self.frame["method"] == name].assign(method=chosen[name]) for name in chosen])
        table = rows.groupby(["dataset", "method", "probe"], sort=False)["score"].agg(["mean", "std", "count"])
        table = table.rename(columns={"count": "seeds"}).reset_index()
        baselines = _baselines(names, baseline)
        table["baseline"] = table["method"].map(baselines).astype(object).where(lambda names: names.notna(), None)
        means = table.set_index(["dataset", "method", "probe"])["mean"]
        theirs = means.reindex(list(zip(table["dataset"], table["baseline"], table["probe"], strict=True))).to_numpy()
        return table.assign(difference=table["mean"] - theirs)

    def pivot_results(
        self,
        methods: Sequence[str] | Mapping[str, str] | None = None,
        *,
        baseline: str | Mapping[str, str] | None = "auto",
        percent: bool = True,
        digits: int = 1,
    ) -> pd.DataFrame:
        """Make a table of methods by data sets and probes, as in the papers.

        A cell holds the mean, the standard deviation if there are several seeds, and in parentheses the difference from
        the baseline.

        Parameters
        ----------
        methods : sequence of str or dict of str to str, default=None
            The methods in the order of the table; a dict renames them. None is all, in order of appearance.
        baseline : str, dict of str to str or None, default="auto"
            The baseline of each method, see `summary`.
        percent : bool, default=True
            Whether to multiply the scores by 100.
        digits : int, default=1
            The number of decimals.

        Returns
        -------
        pandas.DataFrame of str
            A row for each method and a column for each data set and probe, or for each probe if no data set has a name.
            The cells of missing runs are empty.

        Raises
        ------
        ValueError
            If a method is unknown.

        Examples
        --------
        >>> from skssl import Results
        >>> scores = [("SimSiam", 0, 0.82), ("SimSiam", 1, 0.84), ("SimSiamGSG", 0, 0.86), ("SimSiamGSG", 1, 0.87)]
        >>> results = Results([{"method": m, "seed": s, "probe": "linear", "score": x} for m, s, x in scores])
        >>> results.pivot_results({"SimSiam": "SimSiam", "SimSiamGSG": "SimSiam + GSG"})
        probe                     linear
        method
        SimSiam               83.0 ± 1.4
        SimSiam + GSG  86.5 ± 0.7 (+3.5)
        """
        return self._table(methods, baseline, percent, digits)[0]

    def to_markdown(self, methods: Any = None, **options: Any) -> str:
        """Return the table as Markdown, with the best of each column in bold.

        Parameters
        ----------
        methods, **options
            As for `pivot_results`.

        Returns
        -------
        str
            The table.

        Examples
        --------
        >>> from skssl import Results
        >>> print(Results([{"method": "SimCLR", "probe": "kNN", "score": 0.5}]).to_markdown())
        | method | kNN |
        |:--|--:|
        | SimCLR | **50.0** |
        """
        cells, best = self._table(methods, **options)
        names = [" ".join(column) if isinstance(column, tuple) else column for column in cells]
        rows = [
            [name, *(f"**{cell}**" if bold else cell for cell, bold in zip(row, marks, strict=True))]
            for name, row, marks in zip(cells.index, cells.to_numpy(), best.to_numpy(), strict=True)
        ]
        head, *body = (" | ".join(str(part).replace("|", r"\|") for part in row) for row in [["method", *names], *rows])
        return "\n".join([f"| {head} |", "|:--|" + "--:|" * len(names), *(f"| {row} |" for row in body)])

    def to_latex(
        self, methods: Any = None, *, caption: str | None = None, label: str | None = None, **options: Any
    ) -> str:
        r"""Return the table as LaTeX, with the best of each column in bold.

        Parameters
        ----------
        methods, **options
            As for `pivot_results`.
        caption, label : str, default=None
            The caption and the label, in LaTeX.

        Returns
        -------
        str
            The table. It requires the packages booktabs and multirow.

        Examples
        --------
        >>> from skssl import Results
        >>> print(Results([{"method": "SimCLR", "probe": "kNN", "score": 0.5}]).to_latex())
        \begin{tabular}{lr}
        \toprule
         & kNN \\
        \midrule
        SimCLR & \bfseries 50.0 \\
        \bottomrule
        \end{tabular}
        <BLANKLINE>
        """
        cells, best = self._table(methods, **options)
        latex = _styler(cells, best, "latex").to_latex(
            hrules=True,
            convert_css=True,
            multicol_align="c",
            column_format="l" + "r" * cells.shape[1],
            caption=caption,
            label=label,
            position_float="centering" if caption or label else None,
        )
        return latex.replace("±", r"$\pm$").replace("−", "$-$")

    def to_html(self, methods: Any = None, *, caption: str | None = None, **options: Any) -> str:
        """Return the table as styled HTML, with the best of each column in bold.

        Parameters
        ----------
        methods, **options
            As for `pivot_results`.
        caption : str, default=None
            The caption below the table, in HTML.

        Returns
        -------
        str
            The table with its style, in the colours of the surrounding page.

        Examples
        --------
        >>> from skssl import Results
        >>> "font-weight: bold" in Results([{"method": "SimCLR", "probe": "kNN", "score": 0.5}]).to_html()
        True
        """
        cells, best = self._table(methods, **options)
        # The styles refer to the table by its uuid, which must be unique on a page.
        styler = _styler(cells, best, "html").set_uuid(joblib.hash((cells.to_csv(), best.to_csv()))[:8])
        if caption is not None:
            styler.set_caption(caption)
        return styler.set_table_styles(STYLES).to_html()  # type: ignore[arg-type]

    def _table(
        self, methods: Any = None, baseline: Any = "auto", percent: bool = True, digits: int = 1
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the cells as text, and a mask of the best in each column."""
        import pandas as pd

        table = self.summary(methods, baseline=baseline)
        unit = 100 if percent else 1

        def text(column: str, form: str) -> pd.Series:
            """Return a column of the summary as text, with NaN as an empty string."""
            return table[column].map(lambda number: "" if pd.isna(number) else form.format(unit * number, digits))

        change = text("difference", " ({:+.{}f})").str.replace("-", "−")
        table = table.assign(cell=text("mean", "{:.{}f}") + text("std", " ± {:.{}f}") + change)
        columns = ["dataset", "probe"] if any(table["dataset"] != "") else ["probe"]
        wide: Any = table.pivot(index="method", columns=columns, values=["cell", "mean"])
        # pivot sorts by name; restore the order of appearance.
        ranks = [{value: rank for rank, value in enumerate(self.frame[name].unique())} for name in columns]
        heads = table[columns].drop_duplicates()
        heads = heads.sort_values(columns, key=lambda values: values.map(ranks[columns.index(str(values.name))]))
        kept = heads["probe"] if len(columns) == 1 else pd.MultiIndex.from_frame(heads)
        cells, means = (wide[of].loc[table["method"].unique(), kept] for of in ("cell", "mean"))
        means = means.astype(float)
        return cells.fillna(""), means == means.max()


def _baselines(methods: list[str], baseline: str | Mapping[str, str] | None) -> dict[str, str]:
    """Return the baseline of each method that has one."""
    if baseline is None:
        return {}
    if baseline == "auto":
        pairs = {name: str(name).split(" + ")[0] for name in methods}
        return {name: base for name, base in pairs.items() if base != name and base in methods}
    pairs = (
        dict(baseline) if isinstance(baseline, Mapping) else {name: baseline for name in methods if name != baseline}
    )
    for name in [*pairs, *pairs.values(), *([baseline] if isinstance(baseline, str) else [])]:
        pick("baseline", name, dict.fromkeys(methods))
    return pairs


def _styler(cells: pd.DataFrame, best: pd.DataFrame, escape: str) -> Styler:
    """Return a styler with the best cells in bold and all names escaped."""
    cells, best = (
        table.rename_axis(index=None).set_axis(table.columns.set_names([None] * table.columns.nlevels), axis=1)
        for table in (cells, best)
    )
    styler = cells.style.format(escape=escape).format_index(escape=escape, axis=0).format_index(escape=escape, axis=1)
    return styler.apply(lambda _: best.map(lambda bold: "font-weight: bold" if bold else ""), axis=None)
