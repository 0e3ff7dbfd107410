"""What the augmentation and the pretext tasks do to images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from torch import Tensor

from skssl.augment.augmentation import Augmentation
from skssl.display._drawing import INK, TEXT, hang, mosaic, new_axes, pictures
from skssl.images import as_images
from skssl.methods.base import SSLTransformer
from skssl.methods.pirl import PIRL
from skssl.methods.pretext import PretextMethod
from skssl.methods.rotation_decoupling import RotationDecoupling
from skssl.training.objective import Batch, Objective
from skssl.training.seeding import seeded

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

OWN = (PretextMethod, PIRL, RotationDecoupling)  # methods that have a pretext task within them


class ViewsDisplay:
    """Images, their views, and what the pretext tasks give to the network.

    Parameters
    ----------
    columns : dict of str to list of ndarray of shape (h, w, 3)
        Pictures in [0, 1] by the column's title, one for each image; the first column has the images themselves.

    Attributes
    ----------
    columns : dict
        The same.
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.

    See Also
    --------
    ViewsDisplay.from_estimator : Draw the views that an estimator trains on.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from skssl import SimCLR, ViewsDisplay
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(8, random_state=0)
    >>> display = ViewsDisplay.from_estimator(SimCLR(aux=["rotation", "jigsaw"], backbone="convnet"), X, n_images=2)
    >>> list(display.columns)
    ['original', 'view 1', 'view 2', 'rotation 1', 'rotation 2', 'jigsaw']
    >>> plt.close(display.figure_)
    """

    ax_: Axes
    figure_: Figure | SubFigure

    def __init__(self, columns: dict[str, list[np.ndarray]]) -> None:
        self.columns = columns

    @classmethod
    def from_estimator(
        cls, estimator: SSLTransformer, X: Any, *, n_images: int = 4, random_state: Any = 0, ax: Any = None
    ) -> Self:
        """Draw what an estimator, fitted or not, makes of images before its network sees them.

        What the pretext tasks do is not imitated: their losses are computed with a new network, and what this is given
        is what is shown. A picture of several parts is a puzzle's tiles, or an image's turns, in the order in which
        the network gets them. Crops by saliency maps are drawn without these where the images are not theirs.

        Parameters
        ----------
        estimator : SSLTransformer
            The estimator.
        X : array-like, sequence of files or PIL images, or torch Dataset
            Images, as for `fit`.
        n_images : int, default=4
            How many to show, drawn at random.
        random_state : int, RandomState instance or None, default=0
            Seed of this draw and of the views.
        ax : matplotlib Axes, default=None
            None makes a figure.

        Returns
        -------
        ViewsDisplay
            The display.

        Raises
        ------
        TypeError
            If the estimator is none of skssl's, which have an augmentation.
        ValueError
            As in `fit`, for images or parameters.
        """
        estimator = estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator
        if not isinstance(estimator, SSLTransformer):
            raise TypeError(f"estimator must be an estimator of skssl, which makes views of images. Got {estimator!r}.")
        fitted = estimator.__sklearn_is_fitted__()
        images = estimator._read(X, reset=False) if fitted else as_images(X, estimator.image_shape, reset=False)
        draw = check_random_state(random_state)
        index = torch.from_numpy(draw.permutation(len(images))[:n_images])
        pixels = images.read(index).cpu()
        estimator._validate_params()
        fresh = clone(estimator).set_params(device="cpu", compile=False, random_state=draw)
        net = fresh._make_trainer(images)
        generator = torch.Generator().manual_seed(int(draw.randint(2**31)))
        for augment in net.augmentations:
            if augment.saliency is not None and len(augment.saliency) != len(images):
                augment.set_params(saliency=None)
        views = [augment(pixels, generator, index) for augment in net.augmentations]
        columns = {"original": list(pictures(pixels))}
        if not isinstance(fresh, PretextMethod):  # what those give to the network is shown below
            titles = [f"view {place}" for place in range(1, len(views) + 1)] if len(views) > 1 else ["view"]
            shown = [
                pictures(augment.denormalize(view)) for augment, view in zip(net.augmentations, views, strict=True)
            ]
            columns |= {title: list(view) for title, view in zip(titles, shown, strict=True)}
        with seeded(int(draw.randint(2**31))):
            own = {type(fresh).__name__: fresh} if isinstance(fresh, OWN) else {}
            tasks = {name: task for name, (task, _) in fresh._tasks().items()}
            rows = (slice(i, i + 1) for i in range(len(pixels)))
            batches = [Batch(pixels[row], [view[row] for view in views], index[row], None, generator) for row in rows]
            for name, task in {**own, **tasks}.items():
                columns |= _given(net.module_, name, task, batches, net.augmentations[0])
        return cls(columns).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw a row for each image.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a figure.

        Returns
        -------
        ViewsDisplay
            The display itself.
        """
        wall = list(zip(*self.columns.values(), strict=True))
        left = np.arange(len(self.columns)) * 1.08
        left[1:] += 0.2  # the originals stand apart
        height, width, _ = wall[0][0].shape
        size = 0.95 * (left[-1] + 1), 0.95 * len(wall) * height / width + 0.3
        (self.ax_,) = new_axes(ax, 1, size=size)
        self.figure_ = self.ax_.figure
        hang(self.ax_, wall, left)
        for x, title in zip(left, self.columns, strict=True):
            self.ax_.text(x + 0.5, -0.06, title.replace("_", " "), ha="center", va="bottom", fontsize=TEXT, color=INK)
        return self


@torch.no_grad()
def _given(
    net: Objective, name: str, task: Any, batches: list[Batch], augment: Augmentation
) -> dict[str, list[np.ndarray]]:
    """Record what a task gives to the encoder for each image, a column for each pass through it."""
    net.eval()  # so that one image is enough for BatchNorm
    passes: list[Tensor] = []
    kind = type(net.encoder)
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs: passes.append(inputs[0]))
        for module in net.modules()  # the task's own copy of the encoder, too
        if type(module) is kind
    ]
    columns: dict[str, list[np.ndarray]] = {}
    try:
        for batch in batches:
            passes.clear()
            task.losses(net, batch)
            new = [given for given in passes if not any(given is view for view in batch.views)]
            for place, given in enumerate(new):
                title = f"{name} {place + 1}" if len(new) > 1 else name
                columns.setdefault(title, []).append(mosaic(_visible(given, batch.views[0], augment)))
    finally:
        for hook in hooks:
            hook.remove()
    return columns


def _visible(given: Tensor, view: Tensor, augment: Augmentation) -> np.ndarray:
    """Bring what a network is given back to the scale of images.

    Grey images, and tiles, which are normalised by themselves, have no colour cast to undo.
    """
    if given.shape[2:] == view.shape[2:] and bool((given != given[:, :1]).any()):
        return pictures(augment.denormalize(given))
    return pictures(given * float(np.mean(augment.std)) + float(np.mean(augment.mean)))
