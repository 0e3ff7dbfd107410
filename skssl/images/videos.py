"""Frames and sound of video files, read by PyAV."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from skssl.images.base import Size, one_line

ENDINGS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv")


def is_video(file: Any) -> bool:
    """Return whether a path has the ending of a video file.

    Parameters
    ----------
    file : object
        Any object.

    Returns
    -------
    bool
        False for anything but a path.

    Examples
    --------
    >>> is_video("a.MP4"), is_video("a.png")
    (True, False)
    """
    return isinstance(file, (str, os.PathLike)) and os.fspath(file).lower().endswith(ENDINGS)


def import_av() -> Any:
    """Import PyAV.

    Returns
    -------
    module
        PyAV.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError("Video files are read by PyAV. Install it by pip install 'skssl[video]'.") from error
    return av


def count_frames(file: str | os.PathLike[str]) -> int:
    """Return the number of frames of a video, without decoding it.

    Parameters
    ----------
    file : str or path-like
        The file.

    Returns
    -------
    int
        The number of frames.

    Raises
    ------
    ValueError
        If the file cannot be read, or has no video.
    ImportError
        If PyAV is not installed.
    """
    av = import_av()
    try:
        with av.open(os.fspath(file)) as container:
            stream = container.streams.video[0]
            return stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"The video {os.fspath(file)!r} cannot be read: {one_line(error)}") from error


def read_frames(file: str | os.PathLike[str], n_frames: int, size: Size | None = None) -> np.ndarray:
    """Read evenly spaced frames of a video, from the first to the last.

    Parameters
    ----------
    file : str or path-like
        The file.
    n_frames : int
        The number of frames.
    size : (int, int), default=None
        Height and width. Frames are resized by their shorter side, and the centre is cut out. None keeps their size.

    Returns
    -------
    uint8 ndarray of shape (n_frames, h, w, 3)
        The frames.

    Raises
    ------
    ValueError
        If the file cannot be read, or has fewer frames.
    ImportError
        If PyAV is not installed.
    """
    av, count = import_av(), count_frames(file)
    if count < n_frames:
        raise ValueError(
            f"The video {os.fspath(file)!r} has {count} frames, but n_frames={n_frames} were expected. Leave out short "
            "videos, or reduce n_frames."
        )
    places, found = np.linspace(0, count - 1, n_frames).round().astype(int).tolist(), []
    try:
        with av.open(os.fspath(file)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for place, frame in enumerate(container.decode(video=0)):
                if place in places:
                    found.append(_to_array(frame, size))
    except av.FFmpegError as error:
        raise ValueError(f"The video {os.fspath(file)!r} cannot be read: {one_line(error)}") from error
    if len(found) < n_frames:
        raise ValueError(f"The video {os.fspath(file)!r} is damaged: only {place + 1} of its {count} frames were read.")
    return np.stack(found)


def _to_array(frame: Any, size: Size | None) -> np.ndarray:
    """Convert a frame of PyAV to RGB, with its shorter side resized and the centre cut out."""
    if size is None:
        return frame.to_ndarray(format="rgb24")
    ratio = max(size[0] / frame.height, size[1] / frame.width)
    height, width = max(size[0], round(frame.height * ratio)), max(size[1], round(frame.width * ratio))
    array = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return array[top : top + size[0], left : left + size[1]]


def read_sound(file: str | os.PathLike[str], sample_rate: int) -> np.ndarray:
    """Read the sound of a video or an audio file, as one channel.

    Parameters
    ----------
    file : str or path-like
        The file.
    sample_rate : int
        Samples in a second, to which the sound is resampled.

    Returns
    -------
    float32 ndarray of shape (samples,)
        The waveform, in [-1, 1].

    Raises
    ------
    ValueError
        If the file cannot be read, or has no sound.
    ImportError
        If PyAV is not installed.
    """
    av = import_av()
    try:
        with av.open(os.fspath(file)) as container:
            if not container.streams.audio:
                raise ValueError(f"The file {os.fspath(file)!r} has no sound.")
            resampler = av.AudioResampler(format="flt", layout="mono", rate=sample_rate)
            frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
            frames += resampler.resample(None)
    except av.FFmpegError as error:
        raise ValueError(f"The file {os.fspath(file)!r} cannot be read: {one_line(error)}") from error
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])
