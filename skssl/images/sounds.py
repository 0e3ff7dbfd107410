"""Sounds of clips: pairs of frames and waveforms, and log-spectrograms."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from scipy import signal
from sklearn.utils.validation import check_array
from torch import Tensor

from skssl.images.base import Images
from skssl.images.clips import ClipFiles, Clips

AT_ONCE = 256  # waveforms whose spectrograms are computed at once


def split_pairs(X: Any) -> tuple[Any, Any]:
    """Split pairs of frames and sounds.

    Parameters
    ----------
    X : (frames, waveforms), list of (frame or clip, waveform), or object
        Two sequences of one length as a tuple; a list of pairs, which scikit-learn's splitters can index; or anything
        else, which has no sounds.

    Returns
    -------
    frames : object
        Images or clips.
    waveforms : object or None
        The sounds.

    Examples
    --------
    >>> from skssl.images.sounds import split_pairs
    >>> split_pairs([("a.png", [0.0, 0.1]), ("b.png", [0.2, 0.0])])
    (['a.png', 'b.png'], [[0.0, 0.1], [0.2, 0.0]])
    """
    if isinstance(X, tuple) and len(X) == 2:
        return X
    if isinstance(X, list) and X and all(isinstance(item, tuple) and len(item) == 2 for item in X):
        frames, sounds = zip(*X, strict=True)
        return list(frames), list(sounds)
    return X, None


def as_pairs(X: Any) -> Any:
    """Return frames and sounds as a list of pairs, which can be counted and indexed.

    Parameters
    ----------
    X : (frames, waveforms), or object
        As for `split_pairs`. Frames may be the path of a folder of clips.

    Returns
    -------
    list of (frame or clip, waveform), or object
        The pairs, or X itself if it is no tuple.

    Raises
    ------
    TypeError
        If the frames are `Images`, which cannot be iterated over.
    ValueError
        If there is not one waveform for each image or clip.

    Examples
    --------
    >>> from skssl.images.sounds import as_pairs
    >>> as_pairs((["a.png", "b.png"], [[0.0, 0.1], [0.2, 0.0]]))
    [('a.png', [0.0, 0.1]), ('b.png', [0.2, 0.0])]
    """
    if not isinstance(X, tuple) or len(X) != 2:
        return X
    frames, sounds = X
    if isinstance(frames, Images):
        raise TypeError(
            f"The frames in X are {type(frames).__name__}, but arrays, files or folders were expected here. Pass what "
            "they were read from."
        )
    frames = ClipFiles(frames) if isinstance(frames, (str, os.PathLike)) else frames
    check_counts(len(frames), len(sounds))
    return list(zip(frames, sounds, strict=True))


def log_spectrogram(waveforms: Any, window: int) -> Tensor:
    """Compute log-spectrograms, each with the mean 0 and the standard deviation 1.

    Parameters
    ----------
    waveforms : array-like or Tensor of shape (n, samples)
        Sounds of one channel and one sample rate. Integers are scaled by the range of their dtype.
    window : int
        Samples of a window, at most as many as a waveform has. Windows overlap by half.

    Returns
    -------
    float32 Tensor of shape (n, 1, window // 2 + 1, windows)
        The logarithms of the power, from low to high frequencies. Power below 1e-5 of the mean power of a sound is
        not told apart.

    Raises
    ------
    TypeError, ValueError
        If the waveforms are not finite real numbers of this shape.

    Examples
    --------
    >>> import numpy as np
    >>> from skssl.images.sounds import log_spectrogram
    >>> tone = np.sin(2 * np.pi * 500 * np.arange(4000) / 4000)  # a second
    >>> spectrogram = log_spectrogram(tone[None], 128)
    >>> spectrogram.shape, int(spectrogram[0, 0, :, 0].argmax()) * 4000 // 128  # Hz
    (torch.Size([1, 1, 65, 61]), 500)
    """
    waveforms = waveforms.cpu().numpy() if isinstance(waveforms, Tensor) else np.asarray(waveforms)
    if waveforms.ndim != 2 or waveforms.shape[1] < window:
        raise ValueError(
            f"The waveforms have the shape {waveforms.shape}, but (n, samples) with at least window={window} samples "
            "was expected. Cut or pad them to one length, and average their channels."
        )
    scale = np.iinfo(waveforms.dtype).max if waveforms.dtype.kind in "iu" else 1.0
    parts = []
    for start in range(0, len(waveforms), AT_ONCE):
        part = check_array(waveforms[start : start + AT_ONCE], dtype=np.float32, input_name="waveforms") / scale
        power = signal.spectrogram(part, nperseg=window, noverlap=window // 2, detrend=False)[2]  # (n, bands, windows)
        mean = power.mean((1, 2), keepdims=True)
        logs = np.log(power / np.where(mean > 0, mean, 1) + 1e-5)
        logs -= logs.mean((1, 2), keepdims=True)
        logs /= logs.std((1, 2), keepdims=True) + 1e-6
        parts.append(torch.from_numpy(logs.astype(np.float32)))
    return torch.cat(parts)[:, None]


def add_sounds(clips: Clips, waveforms: Any, window: int) -> Clips:
    """Add the log-spectrograms of sounds to clips, as the extra tensor "sounds".

    Parameters
    ----------
    clips : Clips
        The clips. Those that could not be read may be left out.
    waveforms : array-like or Tensor of shape (n, samples)
        The sound of each clip, including those that could not be read.
    window : int
        As for `log_spectrogram`.

    Returns
    -------
    Clips
        The given clips.

    Raises
    ------
    TypeError, ValueError
        If the waveforms are not finite real numbers, or there is not one for each clip.
    """
    sounds, kept = log_spectrogram(waveforms, window), clips.kept
    check_counts(len(clips) if kept is None else len(kept), len(sounds))
    clips.extra = {"sounds": sounds if kept is None else sounds[torch.from_numpy(kept)]}
    return clips


def check_counts(n_clips: int, n_sounds: int) -> None:
    """Refuse any other number of sounds than that of the clips.

    Parameters
    ----------
    n_clips, n_sounds : int
        The numbers of images or clips, and of waveforms.

    Raises
    ------
    ValueError
        If they differ.
    """
    if n_sounds != n_clips:
        raise ValueError(f"X must have a waveform for each of its {n_clips} images or clips. Got {n_sounds}.")
