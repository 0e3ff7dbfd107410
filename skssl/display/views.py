"""Augmented views and the inputs of pretext tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from torch import Tensor

from skssl.augment.augmentation import Augmentation
from skssl.display._drawing import FONT, SMALL_FONT, TEXT_COLOR, draw_grid, make_axes, tile, to_pictures
from skssl.images import Clips
from skssl.images.base import describe
from skssl.methods.base import SSLTransformer
from skssl.methods.pirl import PIRL
from skssl.methods.pretext import PretextMethod
from skssl.methods.rotation_decoupling import RotationDecoupling
from skssl.training.loader import ImageLoader
from skssl.training.objective import Batch, Objective
from skssl.training.seeding import seeded

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

TASK_METHODS = (PretextMethod, PIRL, RotationDecoupling)  # methods that include a pretext task


class ViewsDisplay:
    """Images, their views, and the inputs that pretext tasks make of them.

    Parameters
    ----------
    columns : dict of str to list of ndarray of shape (h, w, 3)
        Pictures in [0, 1] by the title of the column, one for each image. The first column holds the images. Of clips,
        the first columns hold the frames that a step uses, "original 1", "original 2" and so on.
    frames : int ndarray of shape (n, n_views), default=None
        The place of each of these frames in its clip, from 0.

    Attributes
    ----------
    columns, frames : dict, and ndarray or None
        The parameters.
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

    def __init__(self, columns: dict[str, list[np.ndarray]], frames: np.ndarray | None = None) -> None:
        self.columns, self.frames = columns, frames

    @classmethod
    def from_estimator(
        cls, estimator: SSLTransformer, X: Any, *, n_images: int = 4, random_state: Any = 0, ax: Any = None
    ) -> Self:
        """Draw the inputs that an estimator, fitted or not, makes of images for its network.

        The losses of the pretext tasks are computed with a new network, and its inputs are drawn. A picture of several
        parts shows the tiles of a puzzle or the rotations of an image, in the order of the inputs. Saliency maps are
        ignored if their number is not that of the images.

        Parameters
        ----------
        estimator : SSLTransformer
            The estimator.
        X : array-like, sequence of files or PIL images, or torch Dataset
            The images or clips, as for `fit`.
        n_images : int, default=4
            The number of images or clips, drawn at random.
        random_state : int, RandomState instance or None, default=0
            The seed of the draw and of the views.
        ax : matplotlib Axes, default=None
            The axes; None makes a figure.

        Returns
        -------
        ViewsDisplay
            The display.

        Raises
        ------
        TypeError
            If it is not an estimator of skssl.
        ValueError
            If images or parameters are invalid, as in `fit`.
        """
        estimator = estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator
        if not isinstance(estimator, SSLTransformer):
            hint = f" Pass an instance, {estimator.__name__}()." if isinstance(estimator, type) else ""
            raise TypeError(
                "estimator must be an estimator of skssl, as in ViewsDisplay.from_estimator(encoder, X). Got "
                f"{describe(estimator)}.{hint}"
            )
        fitted = estimator.__sklearn_is_fitted__()
        images = estimator._read(X, reset=False) if fitted else estimator._as_images(X, reset=False)
        draw = check_random_state(random_state)
        index = torch.from_numpy(draw.permutation(len(images))[:n_images])
        estimator._validate_params()
        fresh = clone(estimator).set_params(device="cpu", compile=False, random_state=draw)
        net = fresh._make_trainer(images)
        generator = torch.Generator().manual_seed(int(draw.randint(2**31)))
        for augment in net.augmentations:
            if augment.saliency is not None and len(augment.saliency) != len(images):
                augment.set_params(saliency=None)
        columns, frames = {}, None
        if isinstance(images, Clips):
            loader = ImageLoader(images, len(index), net.augmentations, index.device, choose_frames=fresh.choose_frames)
            batch = next(loader.epoch(torch.Generator(), generator, index))
            pixels, views, frames = batch.images, batch.views, batch.made["frames"]
            clips = images.read(index)
            originals = [clips[torch.arange(len(index)), place] for place in frames.T]  # n_views x (n, c, h, w)
        else:
            pixels = images.read(index).cpu()
            views = [augment.read_views(images, index, generator) for augment in net.augmentations]
            originals = [pixels]
        columns = _columns("original", [to_pictures(each) for each in originals])
        if not isinstance(fresh, PretextMethod):  # their inputs are drawn below
            shown = [augment.denormalize(view) for augment, view in zip(net.augmentations, views, strict=True)]
            columns |= _columns("view", [to_pictures(view) for view in shown])
        with seeded(int(draw.randint(2**31))):
            own = {type(fresh).__name__: fresh} if isinstance(fresh, TASK_METHODS) else {}
            tasks = {name: task for name, (task, _) in fresh._tasks().items()}
            rows = (slice(i, i + 1) for i in range(len(pixels)))
            batches = [Batch(pixels[row], [view[row] for view in views], index[row], None, generator) for row in rows]
            for name, task in {**own, **tasks}.items():
                columns |= _task_inputs(net.module_, name, task, batches, net.augmentations[0])
        return cls(columns, None if frames is None else frames.numpy()).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw a row for each image or clip, with the numbers of the frames below those of a clip.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            The axes; None makes a figure.

        Returns
        -------
        ViewsDisplay
            The display itself.
        """
        rows = list(zip(*self.columns.values(), strict=True))
        left = np.arange(len(self.columns)) * 1.08
        left[1 if self.frames is None else self.frames.shape[1] :] += 0.2  # a gap after the originals
        height, width, _ = rows[0][0].shape
        gap = 0.08 if self.frames is None else 0.22
        size = 0.95 * (left[-1] + 1), 0.95 * len(rows) * (height / width + gap) + 0.2
        (self.ax_,) = make_axes(ax, 1, size=size)
        self.figure_ = self.ax_.figure
        extents = draw_grid(self.ax_, rows, left, gap)
        for (row, place), frame in np.ndenumerate([] if self.frames is None else self.frames):
            x_left, x_right, bottom, _ = extents[row][place]
            number: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": SMALL_FONT, "color": TEXT_COLOR}
            self.ax_.text((x_left + x_right) / 2, bottom + 0.02, f"frame {frame + 1}", **number)
        for x, title in zip(left, self.columns, strict=True):
            self.ax_.text(
                x + 0.5, -0.06, title.replace("_", " "), ha="center", va="bottom", fontsize=FONT, color=TEXT_COLOR
            )
        return self


def _columns(title: str, pictures: list[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Return columns of pictures by their titles, which are numbered if there are several."""
    return {f"{title} {k}" if len(pictures) > 1 else title: list(of) for k, of in enumerate(pictures, 1)}


@torch.no_grad()
def _task_inputs(
    net: Objective, name: str, task: Any, batches: list[Batch], augment: Augmentation
) -> dict[str, list[np.ndarray]]:
    """Return the inputs of the encoder in the losses of a task, as a column for each forward pass."""
    net.eval()  # BatchNorm cannot train on a single image
    passes: list[Tensor] = []
    kind = type(net.encoder)
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs: passes.append(inputs[0]))
        for module in net.modules()  # includes copies of the encoder that a task makes
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
                columns.setdefault(title, []).append(tile(_to_image_range(given, batch.views[0], augment)))
    finally:
        for hook in hooks:
            hook.remove()
    return columns


def _to_image_range(given: Tensor, view: Tensor, augment: Augmentation) -> np.ndarray:
    """Convert inputs of the network back to the range of images.

    Grey images and tiles, which are normalised individually, have no colour cast; the mean statistics are used.
    """
    if given.shape[2:] == view.shape[2:] and bool((given != given[:, :1]).any()):
        return to_pictures(augment.denormalize(given))
    return to_pictures(given * float(np.mean(augment.std)) + float(np.mean(augment.mean)))
