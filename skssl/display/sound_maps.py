"""Where in frames sounds come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from skssl.display._drawing import FONT, SMALL_FONT, TEXT_COLOR, draw_grid, make_axes, read_pictures
from skssl.images import subset
from skssl.images.base import describe
from skssl.images.sounds import check_counts
from skssl.methods import AudioVisual
from skssl.probes.encoders import as_samples

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


class SoundMapDisplay:
    """Frames, and where in them sounds come from by `AudioVisual.sound_map`.

    Parameters
    ----------
    pictures : sequence of float ndarray of shape (h, w, 3)
        The frames, in [0, 1].
    maps : float ndarray of shape (n, h, w)
        The probability of each place, in [0, 1].

    Attributes
    ----------
    pictures, maps : sequence and ndarray
        The parameters.
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.

    See Also
    --------
    SoundMapDisplay.from_estimator : Draw the maps of an estimator.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from skssl import AudioVisual, SoundMapDisplay
    >>> from skssl.datasets import make_clips
    >>> clips, waveforms, *_ = make_clips(16, image_size=16, random_state=0)
    >>> encoder = AudioVisual(backbone="convnet", epochs=1, batch_size=16, random_state=0).fit((clips, waveforms))
    >>> display = SoundMapDisplay.from_estimator(encoder, clips[:, 0], waveforms, n_images=3)
    >>> display.maps.shape
    (3, 16, 16)
    >>> plt.close(display.figure_)
    """

    ax_: Axes
    figure_: Figure | SubFigure

    def __init__(self, pictures: Any, maps: np.ndarray) -> None:
        self.pictures, self.maps = pictures, maps

    @classmethod
    def from_estimator(
        cls, estimator: AudioVisual, frames: Any, waveforms: Any, *, n_images: int = 4, ax: Any = None
    ) -> Self:
        """Draw the first frames with their maps.

        Parameters
        ----------
        estimator : AudioVisual
            A fitted estimator with ``fusion="localize"``.
        frames : array-like or sequence
            Images or clips, as for `fit`. Of a clip the middle frame is drawn.
        waveforms : array-like of shape (n, samples)
            Their sounds.
        n_images : int, default=4
            The number of images or clips.
        ax : matplotlib Axes, default=None
            The axes; None makes a figure.

        Returns
        -------
        SoundMapDisplay
            The display.

        Raises
        ------
        TypeError
            If it is not an `AudioVisual`.
        ValueError
            If its `fusion` has no maps, or there is not one sound for each image or clip.
        """
        estimator = estimator.estimator if isinstance(estimator, FrozenEstimator) else estimator
        if not isinstance(estimator, AudioVisual):
            raise TypeError(f"estimator must be an AudioVisual. Got {describe(estimator)}.")
        check_is_fitted(estimator)
        if not hasattr(estimator, "sound_map"):
            raise ValueError(
                "estimator must be an AudioVisual with fusion='localize', which has sound maps. Got "
                f"fusion={estimator.fusion!r}."
            )
        frames = as_samples(estimator, frames)
        check_counts(len(frames), len(waveforms))
        n = min(n_images, len(frames))
        clips: Any = estimator._read(subset(frames, np.arange(n)), reset=False)
        middle = clips.middle_frames()
        maps = estimator.sound_map(middle, waveforms[:n])
        return cls(list(read_pictures(middle, np.arange(n))), maps).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the frames in a row, and below them the frames in the light of their maps.

        The brightest place of a frame has the largest value of its map, and the darkest the smallest. The text below
        has both.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            The axes; None makes a figure.

        Returns
        -------
        SoundMapDisplay
            The display itself.
        """
        low, high = self.maps.min((1, 2), keepdims=True), self.maps.max((1, 2), keepdims=True)
        light = 0.15 + 0.85 * (self.maps - low) / np.where(high > low, high - low, 1.0)
        lit = [picture * of[..., None] for picture, of in zip(self.pictures, light, strict=True)]
        height, width, _ = self.pictures[0].shape
        left = np.arange(len(lit)) * 1.08
        (self.ax_,) = make_axes(ax, 1, size=(0.95 * (left[-1] + 1), 1.9 * height / width + 0.5))
        self.figure_ = self.ax_.figure
        extents = draw_grid(self.ax_, [self.pictures, lit], left)[1]
        for (x, _, bottom, _), least, most in zip(extents, low.ravel(), high.ravel(), strict=True):
            where: dict[str, Any] = {"va": "top", "fontsize": SMALL_FONT, "color": TEXT_COLOR}
            self.ax_.text(x, bottom + 0.04, f"{least:.2f} to {most:.2f}", **where)
        self.ax_.text(0, -0.06, "frames, and their sound maps", va="bottom", fontsize=FONT, color=TEXT_COLOR)
        return self
