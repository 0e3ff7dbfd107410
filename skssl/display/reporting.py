"""A trained estimator on one page of HTML that needs nothing else: parameters, curves, views, neighbours, a map."""

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
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, validate_params

from skssl.display._drawing import class_colors, classes_of, encoded, names_of, pictures, seen
from skssl.display.embedding import embed
from skssl.display.neighbors import NeighborsDisplay, nearest
from skssl.display.training import TrainingDisplay
from skssl.display.views import ViewsDisplay
from skssl.images import Images, subset
from skssl.methods.base import SSLTransformer
from skssl.storage.version import __version__

__all__ = ["report"]

SIDES = (32, 48)  # pixels of a thumbnail on the sheet: of small images and of others
QUERIES = 5  # in the figure of nearest images


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
    """Write a page about a trained estimator: what it is, how it was trained, and what it makes of images.

    The page has the parameters, the curves of the training, the views that it was trained on, images with their nearest
    neighbours, and a map of the features: the pointer on a point shows its image and the images nearest to it. It is
    one file, without any link to another, and works offline.

    Parameters
    ----------
    estimator : SSLTransformer, FrozenEstimator of one, or torch.nn.Module
        Fitted, or a module, which has no parameters, curves or views to show.
    X : array-like, sequence of files or PIL images, or torch Dataset
        Images: those of the training or others.
    y : array-like of shape (n,), default=None
        Their classes, for colours and frames; -1 where unknown, as `label_fraction` makes it.
    path : str or path, default="report.html"
        Where to write the page.
    layer : str, default="backbone"
        Which layer's output the features are, see `encoders.at_layer`.
    method : {"tsne", "pca"}, default="tsne"
        How features are brought to two dimensions, see `EmbeddingDisplay`.
    n_samples : int, default=1000
        How many images are on the page, drawn at random where there are more; neighbours are looked for among them. A
        thousand make a page of two or three megabytes.
    n_neighbors : int, default=8
        How many neighbours of an image are shown.
    title : str, default=None
        The page's title; None is the name of the estimator's class.
    random_state : int, RandomState instance or None, default=0
        Seed of all draws.

    Returns
    -------
    pathlib.Path
        Where the page is.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    ValueError
        If X cannot be read as images, there are too few, or y is of another length.

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
    y = classes_of(y, X)
    draw = check_random_state(random_state)
    index = np.sort(draw.permutation(len(X))[:n_samples])
    if len(index) <= n_neighbors:
        raise ValueError(f"n_neighbors={n_neighbors} neighbours of an image need more images. Got {len(index)}.")
    trained = estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator
    known = isinstance(trained, SSLTransformer)
    features, images = encoded(estimator, subset(X, index), layer)
    embedding, axes = embed(features, method, draw)
    similarity, near = nearest(features, features, n_neighbors, np.arange(len(features)))
    some = draw.permutation(len(index))[:QUERIES]
    shown = seen(images, np.concatenate([some, near[some].ravel()]))
    made: dict[str, Any] = {
        "queries": shown[: len(some)],
        "neighbors": shown[len(some) :].reshape(len(some), n_neighbors, *shown.shape[1:]),
        "similarity": similarity[some],
    }
    span, centre = np.ptp(embedding, axis=0).max(), (embedding.max(0) + embedding.min(0)) / 2
    sheet, side, across = _sheet(images)
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
        made |= {"query_y": y[some], "neighbor_y": y[near[some]]}
        names, codes = names_of(y)
        n_classes = len(names) - 1
        used = len(names) if (codes == -1).any() else n_classes
        data |= {"classes": names[:used], "codes": (codes % len(names)).tolist(), "colors": _hues(n_classes)[:used]}
        both = (codes != -1) & (codes[near[:, 0]] != -1)
        if both.any():
            share = (codes[near[:, 0]] == codes)[both].mean()
            of = f"{n_classes} classes" + ("" if both.all() else f"; of {both.sum():,} labelled pairs")
            facts["nearest image, same class"] = f"{100 * share:.1f} % (of {of})"
    return _write(
        Path(path),
        title=title or type(trained).__name__,
        facts=facts,
        parameters=_parameters(trained) if known else [],
        network=None if known else repr(trained),
        figures=_figures(trained, X, made, draw),
        history=trained.history_.round(4) if known and len(trained.history_) else None,
        axes=axes,
        sheet=sheet,
        data=data,
    )


def _write(path: Path, **parts: Any) -> Path:
    """Fill in the template, which escapes all that it is given, and write the page."""
    from jinja2 import Environment

    template = resources.files("skssl.display").joinpath("report.html.jinja").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    path.write_text(page.render(version=__version__, **parts), encoding="utf-8")
    return path


def _hues(n_classes: int) -> list[str]:
    """A colour for each class and one for what has none, as HTML names them."""
    from matplotlib.colors import to_hex

    return [to_hex(color) for color in class_colors(n_classes)]


def _parameters(estimator: SSLTransformer) -> list[tuple[str, str, str, bool]]:
    """Each parameter with its value, what None stands for, and whether it was set."""
    rows = []
    for name, value in estimator.get_params(deep=False).items():
        stands = value is None and name in (*vars(estimator.default_settings), "warmup_epochs")
        default = inspect.signature(type(estimator)).parameters[name].default
        rows.append((name, repr(value), repr(estimator.setting(name)) if stands else "", repr(value) != repr(default)))
    return rows


def _facts(estimator: Any, features: np.ndarray, images: Images) -> dict[str, str]:
    """What stands at the top of the page."""
    network = estimator.encoder_ if isinstance(estimator, SSLTransformer) else estimator
    channels, height, width = images.shape
    facts = {
        "images on this page": f"{len(images):,}, of {height} × {width} × {channels}",
        "features": f"{features.shape[1]:,}",
        "weights of the encoder": f"{sum(weight.numel() for weight in network.parameters()):,}",
    }
    if isinstance(estimator, SSLTransformer) and len(estimator.history_):
        last = estimator.history_.iloc[-1]
        facts["epochs"] = f"{len(estimator.history_)}"
        facts["loss in the end"] = f"{last['loss']:.4g}"
        facts["images per second"] = f"{estimator.history_['images_per_second'].median():,.0f}"
    return facts


def _figures(estimator: Any, X: Any, made: dict[str, Any], random_state: Any) -> dict[str, str]:
    """The displays by their headings, as addresses that hold the pictures."""
    from matplotlib import pyplot as plt

    drawn: dict[str, Any] = {}
    with plt.ioff():
        if isinstance(estimator, SSLTransformer):
            if len(estimator.history_):
                drawn["Training"] = TrainingDisplay.from_estimator(estimator).figure_
            drawn["Views"] = ViewsDisplay.from_estimator(estimator, X, random_state=random_state).figure_
        drawn["Nearest images"] = NeighborsDisplay(**made).plot().figure_
    found = {}
    for heading, figure in drawn.items():
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=150, facecolor="white")
        plt.close(figure)
        found[heading] = _address("png", file.getvalue())
    return found


def _address(kind: str, content: bytes) -> str:
    """A picture as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _sheet(images: Images) -> tuple[str, int, int]:
    """All images on one sheet, as an address; the side of each, and how many stand in a row."""
    from PIL import Image, ImageOps

    side = SIDES[max(images.shape[1:]) > SIDES[0]]
    across = math.ceil(math.sqrt(len(images)))
    sheet = Image.new("RGB", (across * side, -(-len(images) // across) * side), "white")
    for start in range(0, len(images), 256):
        pixels = pictures(images.read(torch.arange(start, min(start + 256, len(images)))))
        for place, picture in enumerate((255 * pixels).round().astype(np.uint8), start):
            larger = max(picture.shape[:2]) <= side
            how = Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS
            tile = ImageOps.pad(Image.fromarray(picture), (side, side), how, color="white")
            sheet.paste(tile, (place % across * side, place // across * side))
    file = io.BytesIO()
    sheet.save(file, "JPEG", quality=88, subsampling=0)  # with all colours, blocks of 8 pixels do not cross tiles
    return _address("jpeg", file.getvalue()), side, across
