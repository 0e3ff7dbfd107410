"""Scores of a comparison with their standard deviation over the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from skssl.display._drawing import COLORS, FONT, MARKERS, TEXT_COLOR, add_legend, make_axes, style_axes
from skssl.images.base import describe
from skssl.results.tables import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure


class ResultsDisplay:
    """Scores of each method: the mean, the standard deviation over the seeds, and the score of each seed.

    Parameters
    ----------
    results : Results
        The scores, as returned by `compare`. If they have a column "chance", it is drawn as a dotted line.

    Attributes
    ----------
    results : Results
        The scores.
    axes_ : ndarray of matplotlib Axes
        The axes, one for each data set.
    figure_ : matplotlib Figure
        The figure.

    See Also
    --------
    ResultsDisplay.from_results : Draw scores.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from skssl import Results, ResultsDisplay
    >>> scores = {"SimCLR": 0.86, "BYOL": 0.87}
    >>> results = Results([{"method": name, "probe": "kNN", "score": score} for name, score in scores.items()])
    >>> display = ResultsDisplay.from_results(results)
    >>> [label.get_text() for label in display.axes_[0].get_yticklabels()]
    ['SimCLR', 'BYOL']
    >>> plt.close(display.figure_)
    """

    axes_: np.ndarray
    figure_: Figure | SubFigure

    def __init__(self, results: Results) -> None:
        if not isinstance(results, Results):
            raise TypeError(
                f"results must be Results, as compare returns. Got {describe(results)}. Pass Results(rows)."
            )
        self.results = results

    @classmethod
    def from_results(
        cls,
        results: Results,
        methods: Sequence[str] | Mapping[str, str] | None = None,
        *,
        percent: bool = True,
        ax: Any = None,
    ) -> Self:
        """Draw scores.

        Parameters
        ----------
        results : Results
            The scores, as returned by `compare`.
        methods, percent, ax
            As for `plot`.

        Returns
        -------
        ResultsDisplay
            The display.

        Raises
        ------
        ValueError
            If a method is unknown.
        """
        return cls(results).plot(ax, methods=methods, percent=percent)

    def plot(
        self, ax: Any = None, *, methods: Sequence[str] | Mapping[str, str] | None = None, percent: bool = True
    ) -> Self:
        """Draw a panel for each data set.

        Parameters
        ----------
        ax : matplotlib Axes or array of these, default=None
            The axes, one for each data set; None makes a figure.
        methods : sequence of str or dict of str to str, default=None
            The methods from top to bottom; a dict renames them. None is all.
        percent : bool, default=True
            Whether to multiply the scores by 100.

        Returns
        -------
        ResultsDisplay
            The display itself.
        """
        table = self.results.summary(methods, baseline=None)
        names, probes, sets = (list(dict.fromkeys(table[of])) for of in ("method", "probe", "dataset"))
        titles = dict(methods) if isinstance(methods, Mapping) else {name: name for name in names}
        seeds = self.results.frame.assign(method=self.results.frame["method"].map(titles))
        size = 4.6 if len(sets) == 1 else 3.6, 0.24 * len(names) * (1 + 0.35 * len(probes)) + 0.8
        self.axes_ = make_axes(ax, len(sets), size=size, columns=3)
        self.figure_ = self.axes_[0].figure
        unit = 100 if percent else 1
        for ax, name in zip(self.axes_, sets, strict=True):
            for place, probe in enumerate(probes):
                color, marker = COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)]
                shift = (place - (len(probes) - 1) / 2) * 0.5 / len(probes)
                mine = table[(table["dataset"] == name) & (table["probe"] == probe)]
                at = [names.index(method) + shift for method in mine["method"]]
                runs = seeds[(seeds["dataset"] == name) & (seeds["probe"] == probe) & seeds["method"].isin(names)]
                runs = runs[runs["method"].map(mine.set_index("method")["seeds"]) > 1]
                dots = [names.index(method) + shift for method in runs["method"]]
                ax.scatter(unit * runs["score"], dots, s=9, color=color, alpha=0.35, linewidths=0, zorder=2)
                ax.errorbar(
                    unit * mine["mean"],
                    at,
                    xerr=unit * mine["std"].fillna(0),
                    fmt=marker,
                    color=color,
                    markersize=5,
                    elinewidth=1.4,
                    label=probe,
                    zorder=3,
                )
            if "chance" in seeds:
                for level in seeds.loc[seeds["dataset"] == name, "chance"].dropna().unique():
                    ax.axvline(unit * level, color=TEXT_COLOR, linewidth=1.0, linestyle=(0, (1, 2)), label="chance")
            style_axes(ax)
            ax.set_yticks(range(len(names)), names, parse_math=False)
            ax.tick_params(axis="y", length=0)
            ax.set_ylim(len(names) - 0.5, -0.5)
            ax.grid(axis="x", color="#e6e6e6", linewidth=0.6)
            ax.set_xlabel("score (%)" if percent else "score", fontsize=FONT, color=TEXT_COLOR)
            ax.set_title(name, fontsize=FONT, color=TEXT_COLOR, loc="left", parse_math=False)
            if ax is not self.axes_[0]:
                ax.set_yticklabels([])
        has_chance = "chance" in seeds and seeds["chance"].notna().any()
        if len(probes) > 1 or has_chance:
            add_legend(self.axes_[-1], loc="center left", bbox_to_anchor=(1.0, 0.5), handletextpad=0.2)
        return self
