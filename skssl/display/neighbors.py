"""Which images a representation takes for alike: queries, and the images that are nearest to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import check_random_state

from skssl.display._drawing import FAINT, INK, SMALL, TEXT, UNLABELLED, classes_of, encoded, hang, new_axes, seen

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

SAME, OTHER = "#009e73", "#d55e00"  # bluish green and vermilion of Okabe and Ito
FRAMES: dict[bool | None, tuple[str, Any]] = {True: (SAME, "-"), False: (OTHER, (0, (2.2, 1.2))), None: (FAINT, ":")}


class NeighborsDisplay:
    """Queries, each with the images whose features are nearest by cosine similarity.

    Parameters
    ----------
    queries : ndarray of shape (n, h, w, 3)
        The queries, in [0, 1].
    neighbors : ndarray of shape (n, k, h, w, 3)
        The images that are nearest to each, the nearest first.
    similarity : ndarray of shape (n, k)
        Their cosine similarity.
    query_y : ndarray of shape (n,), default=None
        The queries' classes, -1 where unknown.
    neighbor_y : ndarray of shape (n, k), default=None
        The neighbours' classes, -1 where unknown.

    Attributes
    ----------
    queries, neighbors, similarity, query_y, neighbor_y
        The same.
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.

    See Also
    --------
    NeighborsDisplay.from_estimator : Encode images and find the nearest.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from skssl import NeighborsDisplay, SimCLR
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = SimCLR(backbone="convnet", epochs=0).fit(X)
    >>> display = NeighborsDisplay.from_estimator(encoder, X, y, n_queries=3, n_neighbors=4)
    >>> display.similarity.shape
    (3, 4)
    >>> plt.close(display.figure_)
    """

    ax_: Axes
    figure_: Figure | SubFigure

    def __init__(
        self,
        queries: np.ndarray,
        neighbors: np.ndarray,
        similarity: np.ndarray,
        *,
        query_y: np.ndarray | None = None,
        neighbor_y: np.ndarray | None = None,
    ) -> None:
        self.queries, self.neighbors, self.similarity = queries, neighbors, similarity
        self.query_y, self.neighbor_y = query_y, neighbor_y

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        X_query: Any = None,
        y_query: Any = None,
        n_queries: int = 5,
        n_neighbors: int = 8,
        layer: str = "backbone",
        random_state: Any = 0,
        ax: Any = None,
    ) -> Self:
        """Encode images and find the nearest to some of them.

        Parameters
        ----------
        estimator : SSLTransformer, FrozenEstimator of one, or torch.nn.Module
            Fitted, or a module, see `encoders.as_encoder`.
        X : array-like, sequence of files or PIL images, or torch Dataset
            Images among which the nearest are looked for.
        y : array-like of shape (n,), default=None
            Their classes; -1 where unknown, as `label_fraction` makes it.
        X_query, y_query : array-like, default=None
            Images to look for, and their classes. None: images of X, each of which is not its own neighbour.
        n_queries : int, default=5
            How many of them, drawn at random.
        n_neighbors : int, default=8
            How many images to find.
        layer : str, default="backbone"
            Which layer's output the features are, see `encoders.at_layer`.
        random_state : int, RandomState instance or None, default=0
            Seed of the draw.
        ax : matplotlib Axes, default=None
            None makes a figure.

        Returns
        -------
        NeighborsDisplay
            The display.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        ValueError
            If there are not enough images, or another number of classes than of images.
        """
        others = X_query is not None
        asked_of = X_query if others else X
        y, query_y = classes_of(y, X), classes_of(y_query if others else y, asked_of)
        if len(X) < n_neighbors + (not others):
            raise ValueError(f"n_neighbors={n_neighbors} neighbours of an image need more images than {len(X)}.")
        features, images = encoded(estimator, X, layer)
        chosen = check_random_state(random_state).permutation(len(asked_of))[:n_queries]
        asked, asked_images = encoded(estimator, X_query, layer, chosen) if others else (features[chosen], None)
        similarity, index = nearest(features, asked, n_neighbors, None if others else chosen)
        near = seen(images, index.ravel())
        return cls(
            seen(images, chosen) if asked_images is None else seen(asked_images, np.arange(len(chosen))),
            near.reshape(*index.shape, *near.shape[1:]),
            similarity,
            query_y=None if query_y is None else query_y[chosen],
            neighbor_y=None if y is None else y[index],
        ).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw a row for each query: the query, and its nearest images with their similarity.

        Where the classes are known a frame says whether a neighbour's is the query's: green and whole where it is,
        orange and broken where it is not, grey and dotted where one of the two is unlabelled.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a figure.

        Returns
        -------
        NeighborsDisplay
            The display itself.
        """
        from matplotlib.patches import Rectangle

        n, k = self.similarity.shape
        left = np.arange(k + 1) * 1.12
        left[1:] += 0.25
        wall = [[query, *near] for query, near in zip(self.queries, self.neighbors, strict=True)]
        tall, gap = self.queries.shape[1] / self.queries.shape[2], 0.3
        (self.ax_,) = new_axes(ax, 1, size=(0.85 * (left[-1] + 1), 0.85 * n * (tall + gap) + 0.2))
        self.figure_ = self.ax_.figure
        hang(self.ax_, wall, left, gap)
        write: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": SMALL, "color": INK, "parse_math": False}
        for row in range(n):
            top = row * (tall + gap)
            if self.query_y is not None:
                name = UNLABELLED if self.query_y[row] == -1 else str(self.query_y[row])
                self.ax_.text(0.5, top + tall + 0.05, name, **write)
            for place in range(k):
                x = left[place + 1]
                self.ax_.text(x + 0.5, top + tall + 0.05, f"{self.similarity[row, place]:.2f}", **write)
                if self.query_y is not None and self.neighbor_y is not None:
                    both = self.query_y[row], self.neighbor_y[row, place]
                    color, line = FRAMES[None if -1 in both else bool(both[0] == both[1])]
                    frame = Rectangle((x, top), 1, tall, fill=False, linewidth=2.2, clip_on=False)
                    frame.set(edgecolor=color, linestyle=line)
                    self.ax_.add_patch(frame)
        self.ax_.text(0.5, -0.06, "query", ha="center", va="bottom", fontsize=TEXT, color=INK)
        self.ax_.text(left[1], -0.06, "nearest, with their similarity", va="bottom", fontsize=TEXT, color=INK)
        self.ax_.set_ylim(n * (tall + gap), 0)
        return self


def nearest(
    features: np.ndarray, queries: np.ndarray, k: int, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest features of some queries by cosine similarity.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        Among which to look.
    queries : ndarray of shape (m, d)
        What to look for.
    k : int
        How many to find.
    own : int64 ndarray of shape (m,), default=None
        Where the queries themselves are among the features, which is then left out.

    Returns
    -------
    similarity : ndarray of shape (m, k)
        In falling order.
    index : int64 ndarray of shape (m, k)
        Where they are.

    Examples
    --------
    >>> import numpy as np
    >>> from skssl.display.neighbors import nearest
    >>> features = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> nearest(features, features[:2], 1, own=np.array([0, 1]))[1]
    array([[2],
           [2]])
    """
    search = NearestNeighbors(n_neighbors=k + (own is not None), metric="cosine").fit(features)
    distance, index = search.kneighbors(queries)
    if own is not None:
        others = index != own[:, None]
        others[others.all(1), -1] = False  # where copies of it came before it, the last is left out
        distance, index = distance[others].reshape(-1, k), index[others].reshape(-1, k)
    return 1 - distance, index
