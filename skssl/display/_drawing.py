"""What the displays share: colours that all can tell apart, images as they are shown, and walls of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import _num_samples, check_is_fitted
from torch import Tensor

from skssl.images import Images, subset
from skssl.images.labels import as_labels, encode_labels
from skssl.probes.encoders import as_encoder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Petroff, Accessible Color Sequences for Data Visualization, arXiv:2107.02270: ten for every kind of colour vision.
COLORS = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#717581"),
    *("#a96b59", "#92dadd", "#e76300", "#94a4a2", "#b9ac70"),
)
MOST = 2 * len(COLORS)  # classes that a legend can hold, with two markers for each colour
MARKERS = "osD^vP"
INK, FAINT = "#333333", "#bbbbbb"
UNLABELLED = "unlabelled"  # what -1 among the classes is called; it is drawn in FAINT
SMALL, TEXT = 8, 9  # sizes of type, in points
PIXELATED = 96  # up to this side images are shown pixel by pixel


def new_axes(ax: Any, n_panels: int, *, size: tuple[float, float], columns: int = 1) -> np.ndarray:
    """The axes that were given, one a panel, or those of a new figure, of a size in inches a panel."""
    check_matplotlib_support("A display")
    from matplotlib import pyplot as plt

    if ax is None:
        columns = min(columns, n_panels)
        rows = -(-n_panels // columns)
        _, grid = plt.subplots(
            rows, columns, figsize=(size[0] * columns, size[1] * rows), squeeze=False, layout="compressed"
        )
        for spare in grid.flat[n_panels:]:
            spare.remove()
        ax = grid.flat[:n_panels]
    axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if len(axes) != n_panels:
        raise ValueError(f"ax must be None or as many axes as there are panels: expected {n_panels}, got {len(axes)}.")
    return axes


def tidy(ax: Axes) -> None:
    """Leave out what says nothing: the frame's upper right, dark ticks."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["bottom", "left"]].set_color("#888888")
    ax.tick_params(which="both", labelsize=SMALL, color="#888888", labelcolor=INK)
    ax.set_axisbelow(True)


def key(ax: Axes, **where: Any) -> None:
    """Add a legend, whose names may hold any signs."""
    legend = ax.legend(frameon=False, fontsize=SMALL, labelcolor=INK, **where)
    for text in legend.get_texts():
        text.set_parse_math(False)


def class_colors(n_classes: int) -> np.ndarray:
    """A colour for each class: these ten in turn, or shades of one scale where there are too many; then one for -1."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgba_array

    few = [COLORS[code % len(COLORS)] for code in range(n_classes)]
    colors = to_rgba_array(few) if n_classes <= MOST else colormaps["turbo"](np.linspace(0, 1, n_classes))
    return np.concatenate([colors, to_rgba_array(FAINT)])


def names_of(y: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The classes' names and, behind them, that of what has none; and each label's place, -1 for the latter."""
    classes, target = encode_labels(y)
    return [*map(str, classes), UNLABELLED], target.numpy()


def pictures(images: Tensor) -> np.ndarray:
    """Turn images (n, c, h, w), uint8 or float in [0, 1], into what is shown: float32 (n, h, w, 3) in [0, 1]."""
    shown = images.detach().cpu().float() / (1 if images.is_floating_point() else 255)
    shown = shown[:, :3] if shown.shape[1] in (3, 4) else shown.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    return shown.clamp(0, 1).movedim(1, 3).contiguous().numpy()


def mosaic(parts: np.ndarray) -> np.ndarray:
    """Lay pictures (k, h, w, 3) in a grid, row by row, with white gaps; one is left as it is."""
    k, height, width, _ = parts.shape
    across = math.ceil(math.sqrt(k))
    gap = max(1, height // 8)
    down = -(-k // across)
    sheet = np.ones((down * (height + gap) - gap, across * (width + gap) - gap, 3), np.float32)
    for place, part in enumerate(parts):
        top, left = (step * (side + gap) for step, side in zip(divmod(place, across), (height, width), strict=True))
        sheet[top : top + height, left : left + width] = part
    return sheet


def hang(ax: Axes, wall: Sequence[Sequence[np.ndarray]], columns: np.ndarray, gap: float = 0.08) -> None:
    """Hang pictures in rows of cells of the first picture's form, at columns' left sides in units of its width.

    What is smaller than the first is shown as much smaller, what is larger is fitted into its cell.
    """
    height, width, _ = wall[0][0].shape
    tall = height / width
    for row, shown in enumerate(wall):
        for left, picture in zip(columns, shown, strict=True):
            h, w, _ = picture.shape
            half_w = w / width / 2 / max(1, w / width, h / height)
            half_h = half_w * h / w
            x, y = left + 0.5, row * (tall + gap) + tall / 2
            ax.imshow(
                picture,
                extent=(x - half_w, x + half_w, y + half_h, y - half_h),
                interpolation="nearest" if max(h, w) <= PIXELATED else "antialiased",
            )
    ax.set(xlim=(columns[0], columns[-1] + 1), ylim=(len(wall) * (tall + gap) - gap, 0), aspect="equal")
    ax.axis("off")


def encoded(estimator: Any, X: Any, layer: str, index: np.ndarray | None = None) -> tuple[np.ndarray, Images]:
    """Encode images, or some of them, by a fitted estimator or a module; give the features (n, d) and the images."""
    if isinstance(estimator, BaseEstimator):
        check_is_fitted(estimator)
    encoder = as_encoder(estimator, X, layer=layer)
    images = encoder.read(X if index is None else subset(X, index))
    return encoder.transform(images), images


def seen(images: Images, index: np.ndarray) -> np.ndarray:
    """Read some images as they are shown: float32 (m, h, w, 3) in [0, 1]."""
    return pictures(images.read(torch.from_numpy(index)))


def classes_of(y: Any, X: Any) -> np.ndarray | None:
    """Check that there is one class for each image."""
    n_samples = _num_samples(X)
    if y is None:
        return None
    y = as_labels(y)
    if len(y) != n_samples:
        raise ValueError(f"y must have one class for each image: expected {n_samples}, got {len(y)}.")
    return y
