"""Two-dimensional maps of features by t-SNE, PCA or UMAP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.utils import check_random_state

from skssl.display._drawing import (
    COLORS,
    FONT,
    MARKERS,
    MAX_NAMED_CLASSES,
    TEXT_COLOR,
    UNLABELLED,
    add_legend,
    class_colors,
    encode_images,
    make_axes,
    names_and_codes,
    read_pictures,
)
from skssl.errors import pick
from skssl.images.base import describe
from skssl.images.labels import check_labels
from skssl.probes.encoders import as_samples, check_encoder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


class EmbeddingDisplay:
    """Features in two dimensions, coloured by class.

    Parameters
    ----------
    embedding : ndarray of shape (n, 2)
        The position of each image.
    y : ndarray of shape (n,), default=None
        The classes; -1 if unknown.
    images : ndarray of shape (n, h, w, 3), default=None
        The images in [0, 1], for thumbnails.
    index : int64 ndarray of shape (n,), default=None
        Their indices among the given images.
    names : (str, str), default=("", "")
        The names of the two dimensions.

    Attributes
    ----------
    embedding, y, images, index, names
        The parameters.
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.

    See Also
    --------
    EmbeddingDisplay.from_estimator : Encode images and draw a map of their features.
    EmbeddingDisplay.from_features : Draw a map of features.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from skssl import EmbeddingDisplay, SimCLR
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = SimCLR(backbone="convnet", epochs=0).fit(X)
    >>> display = EmbeddingDisplay.from_estimator(encoder, X, y, method="pca", n_samples=50)
    >>> display.embedding.shape
    (50, 2)
    >>> plt.close(display.figure_)
    """

    ax_: Axes
    figure_: Figure | SubFigure

    def __init__(
        self,
        embedding: np.ndarray,
        *,
        y: np.ndarray | None = None,
        images: np.ndarray | None = None,
        index: np.ndarray | None = None,
        names: tuple[str, str] = ("", ""),
    ) -> None:
        self.embedding, self.y, self.images, self.index, self.names = embedding, y, images, index, names

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        layer: str = "backbone",
        method: str = "tsne",
        n_samples: int = 1000,
        thumbnails: bool = False,
        random_state: Any = 0,
        ax: Any = None,
    ) -> Self:
        """Encode images and draw a map of their features.

        Parameters
        ----------
        estimator : SSLTransformer, FrozenEstimator of one, or torch.nn.Module
            A fitted estimator or a module, see `encoders.as_encoder`.
        X : array-like, sequence of files or PIL images, or torch Dataset
            The images, or clips, whose middle frames are the thumbnails.
        y : array-like of shape (n,), default=None
            The classes; -1 if unknown, as in `label_fraction`.
        layer : str, default="backbone"
            The layer whose output the features are, see `encoders.at_layer`.
        method : {"tsne", "pca", "umap"}, default="tsne"
            t-SNE by cosine distance, which preserves neighbourhoods; the first two principal components; or UMAP by
            cosine distance, which needs umap-learn.
        n_samples : int, default=1000
            The maximum number of images, drawn at random.
        thumbnails : bool, default=False
            Whether to draw images as thumbnails, as many as fit.
        random_state : int, RandomState instance or None, default=0
            The seed of the draw, of t-SNE and of UMAP.
        ax : matplotlib Axes, default=None
            The axes; None makes a figure.

        Returns
        -------
        EmbeddingDisplay
            The display.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        ValueError
            If the method or the layer is unknown, or the number of classes is not that of the images.
        ImportError
            If method="umap" and umap-learn is not installed.
        """
        check_encoder(estimator, "estimator")
        X = as_samples(estimator, X)
        y = None if y is None else check_labels(y, X)
        index = np.sort(check_random_state(random_state).permutation(len(X))[:n_samples])
        features, images = encode_images(estimator, X, layer, index)
        embedding, names = embed(features, method, random_state)
        chosen = None if y is None else y[index]
        shown = read_pictures(images, np.arange(len(images)))
        return cls(embedding, y=chosen, images=shown, index=index, names=names).plot(ax, thumbnails=thumbnails)

    @classmethod
    def from_features(
        cls, features: Any, y: Any = None, *, method: str = "tsne", random_state: Any = 0, ax: Any = None
    ) -> Self:
        """Draw a map of features.

        Parameters
        ----------
        features : array-like of shape (n, d)
            The features.
        y, method, random_state, ax
            As for `from_estimator`.

        Returns
        -------
        EmbeddingDisplay
            The display.
        """
        embedding, names = embed(np.asarray(features), method, random_state)
        y = None if y is None else check_labels(y, features, images="features")
        return cls(embedding, y=y, names=names).plot(ax)

    def plot(self, ax: Any = None, *, thumbnails: bool = False, legend: bool = True) -> Self:
        """Draw the map, with unlabelled images as small grey dots below the others.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            The axes; None makes a figure.
        thumbnails : bool, default=False
            Whether to draw images as thumbnails, as many as fit, with frames in the colours of the classes.
        legend : bool, default=True
            Whether to draw a legend of the classes. More than 20 classes have no legend and the colours of a colormap.

        Returns
        -------
        EmbeddingDisplay
            The display itself.

        Raises
        ------
        ValueError
            If thumbnails are requested but the display has no images.
        """
        if thumbnails and self.images is None:
            raise ValueError("thumbnails=True needs images, but images is None.")
        (self.ax_,) = make_axes(ax, 1, size=(4.6, 3.8))
        self.figure_ = self.ax_.figure
        names, codes = ["", UNLABELLED], np.zeros(len(self.embedding), int)
        if self.y is not None:
            names, codes = names_and_codes(self.y)
        n_classes = len(names) - 1
        colors = class_colors(n_classes)
        few = n_classes <= MAX_NAMED_CLASSES
        markers = np.array([*(MARKERS[code // len(COLORS)] if few else "o" for code in range(n_classes)), "."])
        # One call for each marker, in a random order: drawn class by class, the last class would hide the others.
        order = np.random.default_rng(0).permutation(len(codes))
        for marker in [each for each in dict.fromkeys(markers[::-1].tolist()) if each in markers[codes]]:
            some = order[markers[codes[order]] == marker]
            self.ax_.scatter(
                self.embedding[some, 0],
                self.embedding[some, 1],
                c=colors[codes[some]],
                marker=marker,
                s=max(5, min(22, 9000 / len(codes))),
                alpha=0.25 if thumbnails else 0.85,
                linewidths=0,
            )
        if thumbnails:
            self._draw_thumbnails(colors[codes])
        low, high = self.embedding.min(0), self.embedding.max(0)
        (x, y), reach = (low + high) / 2, 0.55 * (high - low).max()
        self.ax_.set(xticks=[], yticks=[], aspect="equal")
        self.ax_.set(xlim=(x - reach, x + reach), ylim=(y - reach, y + reach))
        self.ax_.spines[:].set_color("#cccccc")
        self.ax_.set_xlabel(self.names[0], fontsize=FONT, color=TEXT_COLOR)
        self.ax_.set_ylabel(self.names[1], fontsize=FONT, color=TEXT_COLOR)
        if legend and self.y is not None and few:
            for code in [*range(n_classes), *([-1] if (codes == -1).any() else [])]:
                self.ax_.plot([], [], markers[code], color=colors[code], markersize=5, label=names[code])
            beside = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "handletextpad": 0.2, "labelspacing": 0.4}
            add_legend(self.ax_, **beside)
        return self

    def _draw_thumbnails(self, colors: np.ndarray) -> None:
        """Draw thumbnails in a random order, without those that would overlap."""
        from matplotlib.offsetbox import AnnotationBbox, OffsetImage

        low, high = self.embedding.min(0), self.embedding.max(0)
        room = (high - low).max() / 13
        taken: list[np.ndarray] = []
        for i in np.random.default_rng(0).permutation(len(self.embedding)):
            if all(np.abs(self.embedding[i] - other).max() > room for other in taken):
                taken.append(self.embedding[i])
                height, width, _ = self.images[i].shape  # type: ignore[index]
                picture = OffsetImage(self.images[i], zoom=15 / max(height, width), interpolation="nearest")  # type: ignore[index]
                frame = {"facecolor": colors[i], "edgecolor": "none"}
                self.ax_.add_artist(AnnotationBbox(picture, self.embedding[i], pad=0.1, bboxprops=frame))


def embed(features: np.ndarray, method: str, random_state: Any) -> tuple[np.ndarray, tuple[str, str]]:
    """Reduce features to two dimensions.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        The features.
    method : {"tsne", "pca", "umap"}
        The method.
    random_state : int, RandomState instance or None
        The seed of t-SNE and UMAP.

    Returns
    -------
    embedding : ndarray of shape (n, 2)
        The two-dimensional features.
    names : (str, str)
        The names of the dimensions.

    Examples
    --------
    >>> import numpy as np
    >>> from skssl.display.embedding import embed
    >>> embed(np.eye(3), "pca", 0)[1]
    ('component 1 (50 %)', 'component 2 (50 %)')
    """
    if features.ndim != 2 or not np.issubdtype(features.dtype, np.number):
        raise ValueError(
            f"features must be an array (n, d) of numbers, as in from_features(encoder.transform(X), y). Got "
            f"{describe(features)}."
        )
    pick("method", method, dict.fromkeys(("tsne", "pca", "umap")))
    if len(features) < 3:
        raise ValueError(f"A map needs at least three images. Got {len(features)}.")
    features = features.astype(np.float64)  # float32 sums depend on the number of threads
    if method == "pca":
        pca = PCA(2)
        embedding = pca.fit_transform(features)
        shares = [f"component {i} ({100 * share:.0f} %)" for i, share in enumerate(pca.explained_variance_ratio_, 1)]
        return embedding, (shares[0], shares[1])
    if method == "umap":
        try:
            from umap import UMAP
        except ImportError as error:
            raise ImportError(
                "method='umap' needs umap-learn: pip install 'skssl[umap]', or use method='tsne' or method='pca'. "
                f"{type(error).__name__}: {error}"
            ) from error
        umap = UMAP(min(15, len(features) - 1), metric="cosine", init="pca", random_state=random_state, n_jobs=1)
        return umap.fit_transform(features), ("UMAP 1", "UMAP 2")
    perplexity = min(30.0, (len(features) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, metric="cosine", init="pca", random_state=random_state)
    return tsne.fit_transform(features), ("t-SNE 1", "t-SNE 2")
