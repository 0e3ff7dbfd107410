"""Images and their nearest neighbours in the feature space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import check_random_state

from skssl.display._drawing import (
    FONT,
    GREY,
    SMALL_FONT,
    TEXT_COLOR,
    UNLABELLED,
    draw_grid,
    encode_images,
    make_axes,
    read_pictures,
)
from skssl.images.labels import check_labels
from skssl.probes.encoders import as_samples, check_encoder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

SAME_COLOR, OTHER_COLOR = "#009e73", "#d55e00"  # bluish green and vermilion of Okabe and Ito
FRAMES: dict[bool | None, tuple[str, Any]] = {
    True: (SAME_COLOR, "-"),
    False: (OTHER_COLOR, (0, (2.2, 1.2))),
    None: (GREY, ":"),
}


class NeighborsDisplay:
    """Query images with their nearest neighbours by the cosine similarity of features.

    Parameters
    ----------
    queries : ndarray of shape (n, h, w, 3)
        The query images in [0, 1].
    neighbors : ndarray of shape (n, k, h, w, 3)
        The neighbours of each query, the nearest first.
    similarity : ndarray of shape (n, k)
        The cosine similarity of each neighbour.
    query_y : ndarray of shape (n,), default=None
        The classes of the queries; -1 if unknown.
    neighbor_y : ndarray of shape (n, k), default=None
        The classes of the neighbours; -1 if unknown.

    Attributes
    ----------
    queries, neighbors, similarity, query_y, neighbor_y
        The parameters.
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.

    See Also
    --------
    NeighborsDisplay.from_estimator : Encode images and draw nearest neighbours.

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
        """Encode images and draw the nearest neighbours of some of them.

        Parameters
        ----------
        estimator : SSLTransformer, FrozenEstimator of one, or torch.nn.Module
            A fitted estimator or a module, see `encoders.as_encoder`.
        X : array-like, sequence of files or PIL images, or torch Dataset
            The images to search, or clips, whose middle frames are drawn.
        y : array-like of shape (n,), default=None
            The classes; -1 if unknown, as in `label_fraction`.
        X_query, y_query : array-like, default=None
            The query images and their classes. If None, the queries are images of X, and not their own neighbours.
        n_queries : int, default=5
            The number of queries, drawn at random.
        n_neighbors : int, default=8
            The number of neighbours.
        layer : str, default="backbone"
            The layer whose output the features are, see `encoders.at_layer`.
        random_state : int, RandomState instance or None, default=0
            The seed of the draw.
        ax : matplotlib Axes, default=None
            The axes; None makes a figure.

        Returns
        -------
        NeighborsDisplay
            The display.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        ValueError
            If there are too few images, or the number of classes is not that of the images.
        """
        check_encoder(estimator, "estimator")
        X, X_query = as_samples(estimator, X), as_samples(estimator, X_query)
        separate = X_query is not None
        query_pool = X_query if separate else X
        y = None if y is None else check_labels(y, X)
        query_y = y
        if separate:
            query_y = None if y_query is None else check_labels(y_query, X_query, "y_query", "X_query")
        n_needed = n_neighbors + (not separate)
        if len(X) < n_needed:
            raise ValueError(f"n_neighbors={n_neighbors} needs at least {n_needed} images. Got {len(X)}.")
        features, images = encode_images(estimator, X, layer)
        chosen = check_random_state(random_state).permutation(len(query_pool))[:n_queries]
        if separate:
            queries, query_images = encode_images(estimator, X_query, layer, chosen)
            query_pictures = read_pictures(query_images, np.arange(len(chosen)))
        else:
            queries, query_pictures = features[chosen], read_pictures(images, chosen)
        similarity, index = nearest(features, queries, n_neighbors, None if separate else chosen)
        near = read_pictures(images, index.ravel())
        return cls(
            query_pictures,
            near.reshape(*index.shape, *near.shape[1:]),
            similarity,
            query_y=None if query_y is None else query_y[chosen],
            neighbor_y=None if y is None else y[index],
        ).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw a row for each query, with its nearest images and their similarity.

        If there are classes, a neighbour of the query's class has a solid green frame, one of another class a dashed
        orange frame, and a pair with an unlabelled image a dotted grey frame.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            The axes; None makes a figure.

        Returns
        -------
        NeighborsDisplay
            The display itself.
        """
        from matplotlib.patches import Rectangle

        n, k = self.similarity.shape
        left = np.arange(k + 1) * 1.12
        left[1:] += 0.25
        rows = [[query, *near] for query, near in zip(self.queries, self.neighbors, strict=True)]
        tall, gap = self.queries.shape[1] / self.queries.shape[2], 0.3
        (self.ax_,) = make_axes(ax, 1, size=(0.85 * (left[-1] + 1), 0.85 * n * (tall + gap) + 0.2))
        self.figure_ = self.ax_.figure
        draw_grid(self.ax_, rows, left, gap)
        caption: dict[str, Any] = {
            "ha": "center",
            "va": "top",
            "fontsize": SMALL_FONT,
            "color": TEXT_COLOR,
            "parse_math": False,
        }
        for row in range(n):
            top = row * (tall + gap)
            if self.query_y is not None:
                name = UNLABELLED if self.query_y[row] == -1 else str(self.query_y[row])
                self.ax_.text(0.5, top + tall + 0.05, name, **caption)
            for place in range(k):
                x = left[place + 1]
                self.ax_.text(x + 0.5, top + tall + 0.05, f"{self.similarity[row, place]:.2f}", **caption)
                if self.query_y is not None and self.neighbor_y is not None:
                    both = self.query_y[row], self.neighbor_y[row, place]
                    color, line = FRAMES[None if -1 in both else bool(both[0] == both[1])]
                    frame = Rectangle((x, top), 1, tall, fill=False, linewidth=2.2, clip_on=False)
                    frame.set(edgecolor=color, linestyle=line)
                    self.ax_.add_patch(frame)
        self.ax_.text(0.5, -0.06, "query", ha="center", va="bottom", fontsize=FONT, color=TEXT_COLOR)
        self.ax_.text(left[1], -0.06, "nearest, with similarity", va="bottom", fontsize=FONT, color=TEXT_COLOR)
        self.ax_.set_ylim(n * (tall + gap), 0)
        return self


def nearest(
    features: np.ndarray, queries: np.ndarray, k: int, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest features of some queries by cosine similarity.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        The features to search.
    queries : ndarray of shape (m, d)
        The features of the queries.
    k : int
        The number of neighbours.
    own : int64 ndarray of shape (m,), default=None
        The indices of the queries among the features, which are excluded. None excludes nothing.

    Returns
    -------
    similarity : ndarray of shape (m, k)
        The similarities in descending order.
    index : int64 ndarray of shape (m, k)
        The indices of the neighbours.

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
        others[others.all(1), -1] = False  # if duplicates of the query take its place, drop the last
        distance, index = distance[others].reshape(-1, k), index[others].reshape(-1, k)
    return 1 - distance, index
