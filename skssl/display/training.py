"""Training curves: losses, accuracies of pretext tasks and measures of collapse by epoch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skssl.display._drawing import COLORS, FONT, MARKERS, TEXT_COLOR, add_legend, make_axes, style_axes
from skssl.errors import pick
from skssl.images.base import describe

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure, SubFigure

MEASURES = ("embedding_std", "effective_rank")
COMMON = ("epoch", "loss", "lr", "images_per_second", *MEASURES)  # columns of every history
SCORES = ("agreement", "knn", "linear", "nmi")  # columns in [0, 1], besides those that end in "accuracy"
GRADIENT_SNR = "gradient_snr"  # prefix of the columns on a logarithmic axis
FAR = 10  # ratio of the medians of losses that do not share axes
MAX_MARKERS = 20  # epochs; longer curves have no markers


class TrainingDisplay:
    """Curves of one training or several.

    Parameters
    ----------
    histories : DataFrame or dict of str to DataFrame
        The ``history_`` of an estimator, or of several by name.
    chance : dict of str to float, default=None
        The accuracy of a guess, by the name of the column: a dotted line in the panel of the column.

    Attributes
    ----------
    histories : dict of str to DataFrame
        The histories by name.
    chance : dict of str to float
        The accuracies of guesses by column.
    axes_ : ndarray of matplotlib Axes
        The axes, one for each panel.
    figure_ : matplotlib Figure
        The figure.

    See Also
    --------
    TrainingDisplay.from_estimator : Draw the history of fitted estimators.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from skssl import SimCLR, TrainingDisplay
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = SimCLR(aux="rotation", backbone="convnet", epochs=2, batch_size=32, random_state=0).fit(X)
    >>> display = TrainingDisplay.from_estimator(encoder)
    >>> [ax.get_ylabel() for ax in display.axes_]
    ['loss', 'rotation accuracy', 'embedding std', 'effective rank']
    >>> plt.close(display.figure_)
    """

    axes_: np.ndarray
    figure_: Figure | SubFigure

    def __init__(self, histories: Any, *, chance: Mapping[str, float] | None = None) -> None:
        self.chance = dict(chance or {})
        self.histories: dict[str, pd.DataFrame] = dict(histories) if isinstance(histories, dict) else {"": histories}
        for name, history in self.histories.items():
            if not hasattr(history, "columns"):
                raise TypeError(
                    "histories must be a data frame or a dict of these by name, as in "
                    f"TrainingDisplay(encoder.history_). Got {describe(history)}."
                )
            if not len(history):
                of = f" of {name!r}" if name else ""
                raise ValueError(f"The history{of} is empty: train for at least one epoch.")

    @classmethod
    def from_estimator(cls, estimator: Any, *, measures: Sequence[Any] | None = None, ax: Any = None) -> Self:
        """Draw the history of a fitted estimator, or of several.

        Parameters
        ----------
        estimator : SSLTransformer, or dict of str to SSLTransformer
            A fitted estimator, or several by name.
        measures, ax
            As for `plot`.

        Returns
        -------
        TrainingDisplay
            The display.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If an estimator is not fitted.
        ValueError
            If a history is empty.
        """
        given = dict(estimator) if isinstance(estimator, Mapping) else {"": estimator}
        for each in given.values():
            if isinstance(each, type) or not hasattr(each, "fit"):
                raise TypeError(
                    "estimator must be a fitted estimator, or a dict of these by name, as in from_estimator({'SimCLR': "
                    f"encoder}}). Got {describe(each)}."
                )
            check_is_fitted(each)
            if not hasattr(each, "history_"):
                raise TypeError(f"estimator must have a history_, which {type(each).__name__} has not.")
        levels = [_chance_levels(each) for each in given.values()]
        common = {
            name: level for name, level in levels[0].items() if all(of.get(name, level) == level for of in levels)
        }
        return cls({name: each.history_ for name, each in given.items()}, chance=common).plot(ax, measures=measures)

    def plot(self, ax: Any = None, *, measures: Sequence[Any] | None = None) -> Self:
        """Draw a panel for each measure.

        Parameters
        ----------
        ax : matplotlib Axes or array of these, default=None
            The axes, one for each panel; None makes a figure.
        measures : sequence of str or tuple of str, default=None
            Columns of the history; those of a tuple share a panel. None is the loss, the scores in [0, 1] such as
            accuracies, all other measures of steps and callbacks, ``embedding_std`` (1 is healthy) and
            ``effective_rank``. For a single training the terms share the panel of the loss, and the scores share one.
            Losses of another scale, by a factor of ten, have a panel of their own, also those of several trainings.

        Returns
        -------
        TrainingDisplay
            The display itself.

        Raises
        ------
        ValueError
            If no history has a column.
        """
        from matplotlib.ticker import MaxNLocator

        columns = {str(name): None for history in self.histories.values() for name in history}
        every = list(self.histories)
        if isinstance(measures, str):
            raise TypeError(f"measures must be a list of columns. Got {measures!r}; put it into a list.")
        panels = [((given,) if isinstance(given, str) else tuple(given), every) for given in measures or ()]
        panels = panels or self._panels()
        for name in (name for panel, _ in panels for name in panel):
            pick("measures", name, columns)
        alone = len(self.histories) == 1
        self.axes_ = make_axes(ax, len(panels), size=(2.9, 2.4), columns=4)
        self.figure_ = self.axes_[0].figure
        for ax, (panel, titles) in zip(self.axes_, panels, strict=True):
            for place, (title, history) in enumerate(self.histories.items()):
                if title not in titles:
                    continue
                for curve, name in enumerate(name for name in panel if name in history):
                    style = curve if alone else place
                    measured = history[history[name].notna()]  # a callback may skip epochs
                    ax.plot(
                        measured["epoch"],
                        measured[name],
                        color=COLORS[style % len(COLORS)],
                        linestyle="-" if alone else ("-", "--", ":", "-.")[curve % 4],
                        marker=MARKERS[style % len(MARKERS)] if len(measured) <= MAX_MARKERS else "",
                        markersize=3.5,
                        linewidth=1.6,
                        label=name if alone else title if len(panel) == 1 else f"{title}, {name}",
                    )
            if panel[0] == "embedding_std":
                ax.axhline(1, color=TEXT_COLOR, linewidth=0.8, linestyle=(0, (1, 3)))
                ax.set_ylim(0, max(1.05, ax.get_ylim()[1]))
            if all(name.startswith(GRADIENT_SNR) for name in panel):
                ax.set_yscale("log")
            chance = self._draw_chance(ax, panel)
            style_axes(ax)
            ax.grid(axis="y", color="#e6e6e6", linewidth=0.6)
            ax.set_xlabel("epoch", fontsize=FONT, color=TEXT_COLOR)
            scores = len(panel) > 1 and all(map(_is_score, panel))
            ax.set_ylabel("score" if scores else panel[0].replace("_", " "), fontsize=FONT, color=TEXT_COLOR)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            if alone and len(panel) + len(chance) > 1:
                across = max(1, min(3, 30 // max(map(len, panel))))  # columns that fit the width of the panel
                above = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "ncols": across}
                add_legend(ax, **above, handlelength=1.4, columnspacing=1.2)
            elif chance and ax is not self.axes_[-1]:
                add_legend(ax, handles=chance, loc="best", handlelength=1.4)
        if not alone:
            add_legend(self.axes_[-1], loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.6)
        return self

    def _draw_chance(self, ax: Any, panel: Sequence[str]) -> list[Any]:
        """Draw the accuracies of guesses as dotted lines, and return the lines."""
        levels: dict[float, list[str]] = {}
        for name in panel:
            if name in self.chance:
                levels.setdefault(self.chance[name], []).append(name)
        return [
            ax.axhline(
                level,
                color=TEXT_COLOR,
                linewidth=1.0,
                linestyle=(0, (1, 2 + place)),
                label=f"chance of {', '.join(names)}" if len(panel) > len(names) else "chance",
            )
            for place, (level, names) in enumerate(levels.items())
        ]

    def _panels(self) -> list[tuple[tuple[str, ...], list[str]]]:
        """Return the default panels: their columns and the names of the trainings that they show."""
        histories = self.histories.values()
        numbers = [history.select_dtypes("number").dropna(axis=1, how="all") for history in histories]
        found = dict.fromkeys(str(name) for history in numbers for name in history)
        terms = dict.fromkeys(name for history in histories for name in _terms(history))
        others = [name for name in found if name not in (*COMMON, *terms)]
        scores = [name for name in others if _is_score(name)]
        ratios = [name for name in others if name.startswith(GRADIENT_SNR)]
        others = [name for name in others if name not in (*scores, *ratios)]
        healthy = [name for name in MEASURES if name in found]
        every = list(self.histories)
        if len(every) > 1:
            groups = _by_scale({name: history["loss"] for name, history in self.histories.items()})
            shown = [("loss", group) for group in groups]
            shown += [(name, every) for name in (*scores, *others, *ratios, *healthy)]
            return [((name,), titles) for name, titles in shown]
        (history,) = histories
        drawn = ["loss", *(name for name in terms if not np.allclose(history[name], history["loss"]))]
        losses = _by_scale({name: history[name] for name in drawn})
        panels = (*losses, scores, *([name] for name in others), ratios, *([name] for name in healthy))
        return [(tuple(panel), every) for panel in panels if panel]


def _by_scale(curves: Mapping[str, pd.Series]) -> list[list[str]]:
    """Group curves by scale: the medians of absolute values in a group are within a factor of ten of its first."""
    groups: dict[float, list[str]] = {}
    for name, values in curves.items():
        size = float(values.abs().median())
        near = [first for first in groups if not size or (first and 1 / FAR <= size / first <= FAR)]
        groups.setdefault(near[0] if near else size, []).append(name)
    return list(groups.values())


def _chance_levels(estimator: Any) -> dict[str, float]:
    """Return the accuracy of a guess by column, as the method, its tasks and its callbacks know it."""
    net = getattr(estimator, "net_", None)
    if net is None:
        return {}
    hooks = (net.module_.method, *(task for task, _ in net.module_.tasks.values()))
    found = {name: level for each in hooks for name, level in each.chance.items()}
    return found | {name: level for _, each in net.callbacks_ for name, level in getattr(each, "chance_", {}).items()}


def _is_score(name: str) -> bool:
    """Return whether a column holds values in [0, 1]."""
    return name in SCORES or name.endswith("accuracy")


def _terms(history: pd.DataFrame) -> list[str]:
    """Return the columns of loss terms: those before "lr" that are not scores. Columns of callbacks come after it."""
    step = itertools.takewhile(lambda name: name != "lr", map(str, history.select_dtypes("number")))
    return [name for name in step if name not in COMMON and not _is_score(name)]
