"""Shared parts of the displays: colours, axes, legends, and grids of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skssl.images import Clips, Images, subset
from skssl.images.labels import encode_labels
from skssl.probes.encoders import as_encoder, read_once

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Petroff, Accessible Color Sequences for Data Visualization, arXiv:2107.02270: ten colours for all colour vision.
COLORS = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#717581"),
    *("#a96b59", "#92dadd", "#e76300", "#94a4a2", "#b9ac70"),
)
MAX_NAMED_CLASSES = 2 * len(COLORS)  # classes in a legend, with two markers for each colour
MARKERS = "osD^vP"
TEXT_COLOR, GREY = "#333333", "#bbbbbb"
UNLABELLED = "unlabelled"  # the name of class -1, drawn in GREY
SMALL_FONT, FONT = 8, 9  # in points
Extent = tuple[float, float, float, float]  # left, right, bottom, top
MAX_PIXELATED_SIDE = 96  # images up to this side are drawn without interpolation


def make_axes(ax: Any, n_panels: int, *, size: tuple[float, float], columns: int = 1) -> np.ndarray:
    """Return the given axes, one for each panel, or those of a new figure; `size` is that of a panel in inches."""
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
        raise ValueError(f"ax must be None or one axes for each panel: expected {n_panels} axes, got {len(axes)}.")
    return axes


def style_axes(ax: Axes) -> None:
    """Remove the upper and right spines, and draw the others and the ticks in grey."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["bottom", "left"]].set_color("#888888")
    ax.tick_params(which="both", labelsize=SMALL_FONT, color="#888888", labelcolor=TEXT_COLOR)
    ax.set_axisbelow(True)


def add_legend(ax: Axes, **where: Any) -> None:
    """Add a legend without mathtext."""
    legend = ax.legend(frameon=False, fontsize=SMALL_FONT, labelcolor=TEXT_COLOR, **where)
    for text in legend.get_texts():
        text.set_parse_math(False)


def class_colors(n_classes: int, most: int = MAX_NAMED_CLASSES) -> np.ndarray:
    """Return a colour for each class, by a colour map if there are more than `most`, followed by that of class -1."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgba_array

    few = [COLORS[code % len(COLORS)] for code in range(n_classes)]
    colors = to_rgba_array(few) if n_classes <= most else colormaps["turbo"](np.linspace(0, 1, n_classes))
    return np.concatenate([colors, to_rgba_array(GREY)])


def names_and_codes(y: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return the names of the classes followed by "unlabelled", and each label as an index into them."""
    classes, labels = encode_labels(y)
    return [*map(str, classes), UNLABELLED], labels.numpy()


def to_pictures(images: Tensor) -> np.ndarray:
    """Convert images (n, c, h, w), uint8 or float in [0, 1], to float32 pictures (n, h, w, 3) in [0, 1]."""
    shown = images.detach().cpu().float() / (1 if images.is_floating_point() else 255)
    shown = shown[:, :3] if shown.shape[1] in (3, 4) else shown.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    return shown.clamp(0, 1).movedim(1, 3).contiguous().numpy()


def tile(parts: np.ndarray) -> np.ndarray:
    """Arrange pictures (k, h, w, 3) in one picture, row by row with white gaps."""
    k, height, width, _ = parts.shape
    across = math.ceil(math.sqrt(k))
    gap = max(1, height // 8)
    down = -(-k // across)
    sheet = np.ones((down * (height + gap) - gap, across * (width + gap) - gap, 3), np.float32)
    for place, part in enumerate(parts):
        top, left = (step * (side + gap) for step, side in zip(divmod(place, across), (height, width), strict=True))
        sheet[top : top + height, left : left + width] = part
    return sheet


def draw_grid(
    ax: Axes, rows: Sequence[Sequence[np.ndarray]], columns: np.ndarray, gap: float = 0.08
) -> list[list[Extent]]:
    """Draw rows of pictures in cells of the shape of the first picture, and return where each is.

    `columns` holds the left sides of the cells in units of their width. Smaller pictures are drawn in proportion, and
    larger ones are scaled down to the cell.
    """
    height, width, _ = rows[0][0].shape
    tall = height / width
    extents: list[list[Extent]] = []
    for row, pictures in enumerate(rows):
        extents.append([])
        for left, picture in zip(columns, pictures, strict=True):
            h, w, _ = picture.shape
            half_w = w / width / 2 / max(1, w / width, h / height)
            half_h = half_w * h / w
            x, y = left + 0.5, row * (tall + gap) + tall / 2
            extents[-1].append((x - half_w, x + half_w, y + half_h, y - half_h))
            ax.imshow(
                picture,
                extent=extents[-1][-1],
                interpolation="nearest" if max(h, w) <= MAX_PIXELATED_SIDE else "antialiased",
            )
    ax.set(xlim=(columns[0], columns[-1] + 1), ylim=(len(rows) * (tall + gap) - gap, 0), aspect="equal")
    ax.axis("off")
    return extents


def encode_images(estimator: Any, X: Any, layer: str, index: np.ndarray | None = None) -> tuple[np.ndarray, Images]:
    """Return the features (n, d) of images, or of those at some indices, and the images."""
    if isinstance(estimator, BaseEstimator):
        check_is_fitted(estimator)
    if isinstance(estimator, nn.Module):  # it reads all images, for their shape and range
        X = read_once(estimator, X)
    encoder = as_encoder(estimator, X, layer=layer)
    images = encoder.read(X if index is None else subset(X, index))
    return encoder.transform(images), images


def read_pictures(images: Images, index: np.ndarray) -> np.ndarray:
    """Return the images, or the middle frames of clips, at some indices as float32 pictures (m, h, w, 3) in [0, 1]."""
    images = images.middle_frames() if isinstance(images, Clips) else images
    return to_pictures(images.read(torch.from_numpy(index)))
