"""Images with their true and predicted masks or boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skssl.display._drawing import (
    COLORS,
    FONT,
    GREY,
    TEXT_COLOR,
    Extent,
    add_legend,
    class_colors,
    draw_grid,
    make_axes,
    to_pictures,
)
from skssl.images.base import describe
from skssl.transfer.annotations import IGNORE_INDEX, MASKS, OBJECTS, AnnotatedImages, Format, Sample, find_samples
from skssl.transfer.detection import DetectionTransfer, objects_to_arrays
from skssl.transfer.segmentation import SegmentationTransfer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

IMAGE_WIDTH, LEGEND_LINE = 1.7, 0.18  # in inches


class SegmentationDisplay:
    """Images beside their true and predicted segmentations.

    Parameters
    ----------
    images : sequence of ndarray of shape (h, w, 3)
        The images in [0, 1], each of its own size.
    truth, predicted : sequence of ndarray of uint8, shape (h, w)
        The true and the predicted class of each pixel. 255 is no class.
    classes : array-like of int
        All classes in order. They determine the colours.
    class_names : mapping of int to str, default=None
        Names of the classes in the legend. Classes without one are named by their numbers.

    Attributes
    ----------
    images, truth, predicted, classes, class_names
        The parameters.
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.

    See Also
    --------
    SegmentationDisplay.from_estimator : Segment images of a folder and draw them.

    Examples
    --------
    >>> import tempfile
    >>> import matplotlib.pyplot as plt
    >>> from skssl import SegmentationDisplay, SegmentationTransfer, SimCLR
    >>> from skssl.datasets import make_shapes, make_voc_folder
    >>> encoder = SimCLR(backbone="convnet", epochs=0).fit(make_shapes(2, random_state=0)[0])
    >>> folder = make_voc_folder(tempfile.mkdtemp(), 8, random_state=0)
    >>> segmenter = SegmentationTransfer(encoder, image_size=64, width=16, epochs=1, random_state=0).fit(folder)
    >>> names = {0: "background", 1: "disc", 2: "square"}
    >>> display = SegmentationDisplay.from_estimator(segmenter, folder, n_images=2, class_names=names)
    >>> display.predicted[0].shape
    (64, 64)
    >>> plt.close(display.figure_)
    """

    ax_: Axes
    figure_: Figure | SubFigure

    def __init__(
        self,
        images: Sequence[np.ndarray],
        truth: Sequence[np.ndarray],
        predicted: Sequence[np.ndarray],
        *,
        classes: Any,
        class_names: Mapping[int, str] | None = None,
    ) -> None:
        self.images, self.truth, self.predicted = images, truth, predicted
        self.classes, self.class_names = classes, class_names

    @classmethod
    def from_estimator(
        cls,
        estimator: SegmentationTransfer,
        folder: Any,
        split: str | Sequence[str] = "val",
        *,
        n_images: int = 4,
        class_names: Mapping[int, str] | None = None,
        random_state: Any = 0,
        ax: Any = None,
    ) -> Self:
        """Segment images of a folder and draw them.

        Parameters
        ----------
        estimator : SegmentationTransfer
            The fitted estimator.
        folder, split
            The folder and its split, or several, as for `SegmentationTransfer.evaluate`.
        n_images : int, default=4
            The number of images, drawn at random.
        class_names : mapping of int to str, default=None
            Names of the classes. For Cityscapes, they are
            ``{kind.train_id: kind.name for kind in torchvision.datasets.Cityscapes.classes}``.
        random_state : int, RandomState instance or None, default=0
            The seed of the draw.
        ax : matplotlib Axes, default=None
            The axes; None makes a figure.

        Returns
        -------
        SegmentationDisplay
            The display.

        Raises
        ------
        FileNotFoundError
            If a folder lacks a part of its format, an image or a mask.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        TypeError
            If it is no `SegmentationTransfer`.
        ValueError
            If there is no such split.
        """
        samples = _draw_samples(estimator, SegmentationTransfer, folder, split, MASKS, n_images, random_state)
        pairs = [AnnotatedImages(samples, 3)[i] for i in range(len(samples))]
        return cls(
            [to_pictures(image[None])[0] for image, _ in pairs],
            [mask.numpy() for _, mask in pairs],
            estimator.predict([path for path, _ in samples]),
            classes=estimator.classes_,
            class_names=class_names,
        ).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw a row for each image: the image, its true and its predicted mask.

        Pixels without a class are white. The legend has the classes that occur.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            The axes; None makes a figure.

        Returns
        -------
        SegmentationDisplay
            The display itself.
        """
        colors = np.ones((256, 3), np.float32)
        colors[np.asarray(self.classes)] = class_colors(len(self.classes), len(COLORS))[:-1, :3]
        rows = [
            [image, colors[true], colors[found]]
            for image, true, found in zip(self.images, self.truth, self.predicted, strict=True)
        ]
        shown = np.unique(np.concatenate([mask.ravel() for mask in [*self.truth, *self.predicted]])).tolist()
        names = {**(self.class_names or {}), IGNORE_INDEX: "no class"}
        legend = {str(names.get(value, value)): colors[value] for value in shown}
        self.ax_, _ = _draw_columns(ax, ("image", "truth", "prediction"), rows, legend)
        self.figure_ = self.ax_.figure
        return self


class DetectionDisplay:
    """Images with their true and predicted boxes.

    Parameters
    ----------
    images : sequence of ndarray of shape (h, w, 3)
        The images in [0, 1], each of its own size.
    truth : sequence of dict
        For each image "boxes" (k, 4): left, top, right, bottom in pixels; and "labels" (k,).
    predicted : sequence of dict
        For each image the predicted "boxes", "labels" and "scores", as `DetectionTransfer.predict` returns them.
    classes : array-like of str
        All classes in order. They determine the colours.

    Attributes
    ----------
    images, truth, predicted, classes
        The parameters.
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.

    See Also
    --------
    DetectionDisplay.from_estimator : Detect objects in images of a folder and draw them.

    Examples
    --------
    >>> import tempfile
    >>> import matplotlib.pyplot as plt
    >>> from skssl import DetectionDisplay, DetectionTransfer, SimCLR
    >>> from skssl.datasets import make_shapes, make_voc_folder
    >>> encoder = SimCLR(backbone="convnet", epochs=0).fit(make_shapes(2, random_state=0)[0])
    >>> folder = make_voc_folder(tempfile.mkdtemp(), 8, random_state=0)
    >>> detector = DetectionTransfer(encoder, image_size=64, width=16, epochs=1, random_state=0).fit(folder)
    >>> display = DetectionDisplay.from_estimator(detector, folder, n_images=2, threshold=0.5)
    >>> display.truth[0]["boxes"].shape[1]
    4
    >>> plt.close(display.figure_)
    """

    ax_: Axes
    figure_: Figure | SubFigure

    def __init__(
        self,
        images: Sequence[np.ndarray],
        truth: Sequence[dict[str, np.ndarray]],
        predicted: Sequence[dict[str, np.ndarray]],
        *,
        classes: Any,
    ) -> None:
        self.images, self.truth, self.predicted, self.classes = images, truth, predicted, classes

    @classmethod
    def from_estimator(
        cls,
        estimator: DetectionTransfer,
        folder: Any,
        split: str | Sequence[str] = "val",
        *,
        n_images: int = 4,
        threshold: float = 0.5,
        random_state: Any = 0,
        ax: Any = None,
    ) -> Self:
        """Detect objects in images of a folder and draw them.

        Parameters
        ----------
        estimator : DetectionTransfer
            The fitted estimator.
        folder, split
            The folder and its split, or several, as for `DetectionTransfer.evaluate`.
        n_images : int, default=4
            The number of images, drawn at random.
        threshold : float, default=0.5
            The lowest score of a box that is drawn.
        random_state : int, RandomState instance or None, default=0
            The seed of the draw.
        ax : matplotlib Axes, default=None
            The axes; None makes a figure.

        Returns
        -------
        DetectionDisplay
            The display.

        Raises
        ------
        FileNotFoundError
            If a folder lacks a part of its format, an image or an annotation.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        TypeError
            If it is no `DetectionTransfer`.
        ValueError
            If there is no such split.
        """
        samples = _draw_samples(estimator, DetectionTransfer, folder, split, OBJECTS, n_images, random_state)
        pairs = [AnnotatedImages(samples, 3)[i] for i in range(len(samples))]
        return cls(
            [to_pictures(image[None])[0] for image, _ in pairs],
            [objects_to_arrays(things) for _, things in pairs],
            estimator.predict([path for path, _ in samples]),
            classes=estimator.classes_,
        ).plot(ax, threshold=threshold)

    def plot(self, ax: Any = None, *, threshold: float = 0.5) -> Self:
        """Draw a row for each image: the image with its true, and with its predicted boxes.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            The axes; None makes a figure.
        threshold : float, default=0.5
            The lowest score of a box that is drawn.

        Returns
        -------
        DetectionDisplay
            The display itself.
        """
        from matplotlib.patches import Rectangle

        found = [
            {name: values[each["scores"] >= threshold] for name, values in each.items()} for each in self.predicted
        ]
        boxes = list(zip(self.truth, found, strict=True))
        names = [str(name) for name in self.classes]
        colors = dict(zip(names, class_colors(len(names), len(COLORS))[:-1, :3], strict=True))
        shown = {str(name) for pair in boxes for each in pair for name in each["labels"]}
        legend = {name: color for name, color in colors.items() if name in shown}
        rows = [[image, image] for image in self.images]
        self.ax_, extents = _draw_columns(ax, ("truth", "prediction"), rows, legend)
        self.figure_ = self.ax_.figure
        for image, pair, places in zip(self.images, boxes, extents, strict=True):
            for each, (x0, x1, y1, y0) in zip(pair, places, strict=True):
                scale = (x1 - x0) / image.shape[1], (y1 - y0) / image.shape[0]
                for (left, top, right, bottom), name in zip(each["boxes"], each["labels"], strict=True):
                    corner = x0 + left * scale[0], y0 + top * scale[1]
                    frame = Rectangle(corner, (right - left) * scale[0], (bottom - top) * scale[1], fill=False)
                    frame.set(edgecolor=colors[str(name)], linewidth=1.8)
                    self.ax_.add_patch(frame)
        return self


def _draw_samples(
    estimator: Any,
    kind: type[SegmentationTransfer | DetectionTransfer],
    folder: Any,
    split: Any,
    formats: Sequence[Format],
    n_images: int,
    random_state: Any,
) -> list[Sample]:
    """Return some samples of a folder, drawn at random for an estimator of a kind."""
    if not isinstance(estimator, kind):
        raise TypeError(f"estimator must be a fitted {kind.__name__}. Got {describe(estimator)}.")
    check_is_fitted(estimator, "model_")
    samples = find_samples(folder, split, formats)
    chosen = check_random_state(random_state).permutation(len(samples))[:n_images]
    return [samples[i] for i in chosen]


def _draw_columns(
    ax: Any, titles: Sequence[str], rows: Sequence[Sequence[np.ndarray]], legend: Mapping[str, np.ndarray]
) -> tuple[Axes, list[list[Extent]]]:
    """Draw rows of pictures below titles, and a legend of colours; return the axes and the extents of the pictures."""
    from matplotlib.patches import Patch

    left = np.arange(len(titles)) * 1.06
    height, width, _ = rows[0][0].shape
    tall = IMAGE_WIDTH * len(rows) * (height / width + 0.06)
    n_columns = -(-len(legend) // max(1, int(tall / LEGEND_LINE)))
    (ax,) = make_axes(ax, 1, size=(IMAGE_WIDTH * (left[-1] + 1) + 1.2 * n_columns, tall + 0.25))
    extents = draw_grid(ax, rows, left, 0.06)
    for x, title in zip(left, titles, strict=True):
        ax.text(x + 0.5, -0.03, title, ha="center", va="bottom", fontsize=FONT, color=TEXT_COLOR)
    patches = [Patch(facecolor=tuple(color.tolist()), edgecolor=GREY, label=name) for name, color in legend.items()]
    add_legend(ax, handles=patches, loc="center left", bbox_to_anchor=(1.0, 0.5), ncols=n_columns or 1)
    return ax, extents
