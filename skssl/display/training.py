"""Training curves: losses, accuracies of pretext tasks and measures of collapse by epoch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skssl.display._drawing import COLORS, FONT, MARKERS, TEXT_COLOR, add_legend, make_axes, style_axes
from skssl.errors import pick

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure, SubFigure

MEASURES = ("embedding_std", "effective_rank")
COMMON = ("epoch", "loss", "lr", "images_per_second", *MEASURES)  # columns of every history
SCORES = ("agreement", "knn", "nmi")  # columns in [0, 1], besides those that end in "accuracy"
GRADIENT_SNR = "gradient_snr"  # prefix of the columns on a logarithmic axis
MAX_MARKERS = 20  # epochs; longer curves have no markers


class TrainingDisplay:
    """Curves of one training or several.

    Parameters
    ----------
    histories : DataFrame or dict of str to DataFrame
        The ``history_`` of an estimator, or of several by name.

    Attributes
    ----------
    histories : dict of str to DataFrame
        The histories by name.
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

    def __init__(self, histories: Any) -> None:
        self.histories: dict[str, pd.DataFrame] = dict(histories) if isinstance(histories, dict) else {"": histories}
        for name, history in self.histories.items():
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
            check_is_fitted(each)
        return cls({name: each.history_ for name, each in given.items()}).plot(ax, measures=measures)

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
        chosen = [(given,) if isinstance(given, str) else tuple(given) for given in measures or self._measures()]
        for name in (name for panel in chosen for name in panel):
            pick("measures", name, columns)
        alone = len(self.histories) == 1
        self.axes_ = make_axes(ax, len(chosen), size=(2.9, 2.4), columns=4)
        self.figure_ = self.axes_[0].figure
        for ax, panel in zip(self.axes_, chosen, strict=True):
            for place, (title, history) in enumerate(self.histories.items()):
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
            style_axes(ax)
            ax.grid(axis="y", color="#e6e6e6", linewidth=0.6)
            ax.set_xlabel("epoch", fontsize=FONT, color=TEXT_COLOR)
            scores = len(panel) > 1 and all(map(_is_score, panel))
            ax.set_ylabel("score" if scores else panel[0].replace("_", " "), fontsize=FONT, color=TEXT_COLOR)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            if alone and len(panel) > 1:
                across = max(1, min(3, 30 // max(map(len, panel))))  # columns that fit the width of the panel
                above = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "ncols": across}
                add_legend(ax, **above, handlelength=1.4, columnspacing=1.2)
        if not alone:
            add_legend(self.axes_[-1], loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.6)
        return self

    def _measures(self) -> list[Any]:
        """Return the default panels."""
        histories = self.histories.values()
        numbers = [history.select_dtypes("number").dropna(axis=1, how="all") for history in histories]
        found = dict.fromkeys(str(name) for history in numbers for name in history)
        terms = dict.fromkeys(name for history in histories for name in _terms(history))
        others = [name for name in found if name not in (*COMMON, *terms)]
        scores = [name for name in others if _is_score(name)]
        ratios = [name for name in others if name.startswith(GRADIENT_SNR)]
        others = [name for name in others if name not in (*scores, *ratios)]
        healthy = [name for name in MEASURES if name in found]
        if len(self.histories) > 1:
            return ["loss", *scores, *others, *ratios, *healthy]
        (history,) = histories
        losses = ["loss", *(name for name in terms if not np.allclose(history[name], history["loss"]))]
        return [tuple(panel) for panel in (losses, scores, *([name] for name in others), ratios) if panel] + healthy


def _is_score(name: str) -> bool:
    """Return whether a column holds values in [0, 1]."""
    return name in SCORES or name.endswith("accuracy")


def _terms(history: pd.DataFrame) -> list[str]:
    """Return the columns of loss terms: those before "lr" that are not scores. Columns of callbacks come after it."""
    step = itertools.takewhile(lambda name: name != "lr", map(str, history.select_dtypes("number")))
    return [name for name in step if name not in COMMON and not _is_score(name)]
