"""The report of a trained estimator: one HTML file with parameters, training curves, views, neighbours and a map."""

from __future__ import annotations

import base64
import inspect
import io
import math
import os
from importlib import resources
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, validate_params

from skssl.display._drawing import (
    class_colors,
    encode_images,
    names_and_codes,
    read_pictures,
)
from skssl.display.embedding import embed
from skssl.display.neighbors import NeighborsDisplay, nearest
from skssl.display.training import TrainingDisplay
from skssl.display.views import ViewsDisplay
from skssl.errors import show_call
from skssl.images import Clips, Images, subset
from skssl.images.labels import check_labels
from skssl.methods.base import SSLTransformer
from skssl.methods.clips import ClipMethod
from skssl.probes.encoders import as_samples, check_encoder
from skssl.storage.version import __version__

__all__ = ["report"]

THUMBNAIL_SIDES = (32, 48)  # pixels; the smaller one for images that fit it
N_QUERIES = 5  # of the figure of nearest images


@show_call("report(encoder, X, y, path='report.html')")
@validate_params(
    {
        "path": [str, os.PathLike],
        "n_samples": [Interval(Integral, 3, None, closed="left")],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "title": [str, None],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def report(
    estimator: Any,
    X: Any,
    y: Any = None,
    path: str | os.PathLike[str] = "report.html",
    *,
    layer: str = "backbone",
    method: str = "tsne",
    n_samples: int = 1000,
    n_neighbors: int = 8,
    title: str | None = None,
    random_state: Any = 0,
) -> Path:
    """Write an HTML report of a trained estimator.

    The report shows the parameters, the training curves, the views of the training, images with their nearest
    neighbours, and a map of the features, where hovering over a point shows its image and the nearest images. It is one
    file without external resources, and works offline.

    Parameters
    ----------
    estimator : SSLTransformer, FrozenEstimator of one, or torch.nn.Module
        A fitted estimator, or a module, for which parameters, curves and views are omitted. Views are also omitted if
        the estimator trains on clips and X holds images.
    X : array-like, sequence of files or PIL images, or torch Dataset
        The images or clips, of the training or of a test set. The middle frames of clips are shown.
    y : array-like of shape (n,), default=None
        The classes, shown by colours and frames; -1 if unknown, as in `label_fraction`.
    path : str or path, default="report.html"
        The file to write.
    layer : str, default="backbone"
        The layer whose output the features are, see `encoders.at_layer`.
    method : {"tsne", "pca", "umap"}, default="tsne"
        The method of the map, see `EmbeddingDisplay`.
    n_samples : int, default=1000
        The maximum number of images in the report, drawn at random. Neighbours are searched among them. A report of a
        thousand images has two to three megabytes.
    n_neighbors : int, default=8
        The number of neighbours of an image.
    title : str, default=None
        The title; None is the name of the estimator's class.
    random_state : int, RandomState instance or None, default=0
        The seed of all random draws.

    Returns
    -------
    pathlib.Path
        The path of the report.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    ValueError
        If X cannot be read as images, there are too few of them, or the number of classes is not that of the images.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skssl import SimCLR, report
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = SimCLR(backbone="convnet", epochs=1, batch_size=32, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = report(encoder, X, y, Path(folder) / "report.html", method="pca").read_text()
    >>> page.startswith("<!DOCTYPE html>"), "SimCLR" in page
    (True, True)
    """
    check_encoder(estimator, "estimator")
    X = as_samples(estimator, X)
    y = None if y is None else check_labels(y, X)
    draw = check_random_state(random_state)
    index = np.sort(draw.permutation(len(X))[:n_samples])
    if len(index) <= n_neighbors:
        raise ValueError(f"n_neighbors={n_neighbors} needs at least {n_neighbors + 1} images. Got {len(index)}.")
    trained = estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator
    known = isinstance(trained, SSLTransformer)
    features, images = encode_images(estimator, subset(X, index), layer)
    embedding, axes = embed(features, method, draw)
    similarity, near = nearest(features, features, n_neighbors, np.arange(len(features)))
    queries = draw.permutation(len(index))[:N_QUERIES]
    shown = read_pictures(images, np.concatenate([queries, near[queries].ravel()]))
    neighbors: dict[str, Any] = {
        "queries": shown[: len(queries)],
        "neighbors": shown[len(queries) :].reshape(len(queries), n_neighbors, *shown.shape[1:]),
        "similarity": similarity[queries],
    }
    span, centre = np.ptp(embedding, axis=0).max(), (embedding.max(0) + embedding.min(0)) / 2
    sheet, side, across = _sprite_sheet(images)
    data: dict[str, Any] = {
        "points": ((embedding - centre) / (span or 1.0)).round(4).tolist(),
        "index": index.tolist(),
        "near": near.tolist(),
        "similarity": similarity.round(2).tolist(),
        "side": side,
        "across": across,
    }
    facts = _facts(trained, features, images)
    if y is not None:
        y = y[index]
        neighbors |= {"query_y": y[queries], "neighbor_y": y[near[queries]]}
        names, codes = names_and_codes(y)
        n_classes = len(names) - 1
        used = len(names) if (codes == -1).any() else n_classes
        data |= {
            "classes": names[:used],
            "codes": (codes % len(names)).tolist(),
            "colors": _hex_colors(n_classes)[:used],
        }
        labelled = (codes != -1) & (codes[near[:, 0]] != -1)
        if labelled.any():
            share = (codes[near[:, 0]] == codes)[labelled].mean()
            basis = f"{n_classes} classes" + ("" if labelled.all() else f"; {labelled.sum():,} labelled pairs")
            facts["nearest image of the same class"] = f"{100 * share:.1f} % ({basis})"
    return _render(
        Path(path),
        title=title or type(trained).__name__,
        facts=facts,
        parameters=_parameters(trained) if known else [],
        network=None if known else repr(trained),
        **_figures(trained, X, neighbors, draw, views=known and not _are_frames(trained, images)),
        history=trained.history_.round(4) if known and len(trained.history_) else None,
        axes=axes,
        sheet=sheet,
        data=data,
    )


def _render(path: Path, **parts: Any) -> Path:
    """Render the template, which escapes all values, and write the page."""
    from jinja2 import Environment

    template = resources.files("skssl.display").joinpath("report.html.jinja").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    path.write_text(page.render(version=__version__, **parts), encoding="utf-8")
    return path


def _hex_colors(n_classes: int) -> list[str]:
    """Return a hexadecimal colour for each class and one for unlabelled images."""
    from matplotlib.colors import to_hex

    return [to_hex(color) for color in class_colors(n_classes)]


def _parameters(estimator: SSLTransformer) -> list[tuple[str, str, str, bool]]:
    """Return for each parameter its name, its value, the value in use if it is None, and whether it was set."""
    rows = []
    for name, value in estimator.get_params(deep=False).items():
        resolved = value is None and name in (*vars(estimator.default_settings), "warmup_epochs")
        default = inspect.signature(type(estimator)).parameters[name].default
        rows.append(
            (name, repr(value), repr(estimator.setting(name)) if resolved else "", repr(value) != repr(default))
        )
    return rows


def _facts(estimator: Any, features: np.ndarray, images: Images) -> dict[str, str]:
    """Return the facts at the top of the page."""
    network = estimator.encoder_ if isinstance(estimator, SSLTransformer) else estimator
    channels, height, width = images.shape
    frames = f"{images.n_frames} frames of " if isinstance(images, Clips) and images.n_frames > 1 else ""
    facts = {
        f"{images.unit} on this page": f"{len(images):,} of {frames}{height} × {width} × {channels}",
        "features": f"{features.shape[1]:,}",
        "encoder parameters": f"{sum(weight.numel() for weight in network.parameters()):,}",
    }
    if isinstance(estimator, SSLTransformer) and len(estimator.history_):
        last = estimator.history_.iloc[-1]
        facts["epochs"] = f"{len(estimator.history_)}"
        facts["final loss"] = f"{last['loss']:.4g}"
        facts[f"{images.unit} per second"] = f"{estimator.history_['images_per_second'].median():,.0f}"
    return facts


def _are_frames(estimator: SSLTransformer, images: Images) -> bool:
    """Return whether images are frames, of which a method on clips cannot make views."""
    return isinstance(estimator, ClipMethod) and isinstance(images, Clips) and images.n_frames < estimator.least_frames


def _figures(estimator: Any, X: Any, neighbors: dict[str, Any], random_state: Any, views: bool) -> dict[str, Any]:
    """Return the figures as data URLs by heading, and the training curves in one column for narrow screens."""
    from matplotlib import pyplot as plt

    drawn: dict[str, Any] = {}
    with plt.ioff():
        if isinstance(estimator, SSLTransformer) and len(estimator.history_):
            display = TrainingDisplay.from_estimator(estimator)
            drawn["Training"] = display.figure_
            n = len(display.axes_)
            narrow, axes = plt.subplots(n, figsize=(3.6, 2.4 * n), layout="constrained", squeeze=False)
            display.plot(axes.ravel())
            drawn["narrow"] = narrow
        if views:
            drawn["Views"] = ViewsDisplay.from_estimator(estimator, X, random_state=random_state).figure_
        drawn["Nearest images"] = NeighborsDisplay(**neighbors).plot().figure_
    found = {}
    for heading, figure in drawn.items():
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=150, facecolor="white")
        plt.close(figure)
        found[heading] = _data_url("png", file.getvalue())
    return {"narrow_curves": found.pop("narrow", None), "figures": found}


def _data_url(kind: str, content: bytes) -> str:
    """Return a picture as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _sprite_sheet(images: Images) -> tuple[str, int, int]:
    """Return a sheet of all thumbnails as a data URL, their side in pixels, and their number in a row."""
    from PIL import Image, ImageOps

    side = THUMBNAIL_SIDES[max(images.shape[1:]) > THUMBNAIL_SIDES[0]]
    across = math.ceil(math.sqrt(len(images)))
    sheet = Image.new("RGB", (across * side, -(-len(images) // across) * side), "white")
    for start in range(0, len(images), 256):
        pixels = read_pictures(images, np.arange(start, min(start + 256, len(images))))
        for place, picture in enumerate((255 * pixels).round().astype(np.uint8), start):
            larger = max(picture.shape[:2]) <= side
            how = Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS
            tile = ImageOps.pad(Image.fromarray(picture), (side, side), how, color="white")
            sheet.paste(tile, (place % across * side, place // across * side))
    file = io.BytesIO()
    sheet.save(file, "JPEG", quality=88, subsampling=0)  # JPEG blocks of 8 pixels stay within thumbnails
    return _data_url("jpeg", file.getvalue()), side, across
