"""The layout of arrays of images: which axis holds the channels, and how `image_shape` unfolds rows into images."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from skssl.images.base import Shape, Size

_CHANNELS = (1, 3, 4)  # numbers of channels that images commonly have


def parse_image_shape(image_shape: Any) -> tuple[int, ...]:
    """Return `image_shape` as a tuple of two or three integers, of which at most one is -1.

    Parameters
    ----------
    image_shape : object
        The parameter as the user gave it.

    Returns
    -------
    tuple of int
        The sizes.

    Raises
    ------
    TypeError
        If it is no sequence of integers.
    ValueError
        If it has another length, a size below 1 that is not -1, or several sizes of -1.
    """
    expected = "image_shape must be (h, w), (h, w, c) or (c, h, w)"
    try:
        shape = tuple(operator.index(size) for size in image_shape)
    except TypeError:
        raise TypeError(f"{expected} of integers. Got {image_shape!r}.") from None
    if len(shape) not in (2, 3) or any(size < 1 and size != -1 for size in shape) or shape.count(-1) > 1:
        raise ValueError(f"{expected} of positive integers, one of which may be -1. Got {image_shape!r}.")
    return shape


def decoding_target(image_shape: tuple[int, ...] | None, shape: Shape | None) -> tuple[int | None, Size | None]:
    """Return the channels and the size to which image files and PIL images are brought.

    Parameters
    ----------
    image_shape : tuple of int or None
        The parsed parameter.
    shape : (int, int, int) or None
        The shape of the training images.

    Returns
    -------
    channels : int or None
        None keeps the images' own.
    size : (int, int) or None
        Height and width. None keeps the images' own.

    Raises
    ------
    ValueError
        If `image_shape` contains -1 or is ambiguous.
    """
    channels = None if shape is None else shape[0]
    if image_shape is None:
        return channels, None
    if -1 in image_shape:
        raise ValueError(f"image_shape={image_shape} contains -1, which only a 2-D X can fill in. Give all sizes.")
    c, h, w = _channels_and_size(image_shape)
    return c or channels, (h, w)


def unfold_rows(table: Tensor, image_shape: tuple[int, ...] | None) -> Tensor:
    """View the rows of a table as images.

    Parameters
    ----------
    table : Tensor of shape (n, features)
        The table.
    image_shape : tuple of int or None
        The parsed parameter. None takes square grey images.

    Returns
    -------
    Tensor of shape (n, c, h, w)
        The images.

    Raises
    ------
    ValueError
        If the number of features does not match.
    """
    n_samples, n_features = table.shape
    if image_shape is None:
        side = math.isqrt(n_features)
        if side**2 != n_features:
            raise ValueError(
                f"X has {n_features} features, which is not a square number. Give the shape of an image: "
                "image_shape=(h, w), (h, w, c) or (c, h, w)."
            )
        image_shape = (side, side)
    shape = _fill_in(image_shape, n_features, f"X has {n_features} features")
    channels, h, w = _channels_and_size(shape)
    if channels is None or _channel_axis(shape) == 0:
        return table.reshape(n_samples, channels or 1, h, w)
    return table.reshape(n_samples, h, w, channels).permute(0, 3, 1, 2)


def channels_first(data: Tensor) -> Tensor:
    """View an array of images with the channels before height and width.

    Parameters
    ----------
    data : Tensor of shape (n, h, w), (n, h, w, c) or (n, c, h, w)
        The images.

    Returns
    -------
    Tensor of shape (n, c, h, w)
        The same images.

    Raises
    ------
    ValueError
        If the tensor has another number of axes or an empty one, or if the axis of the channels is ambiguous.
    """
    shape = tuple(data.shape)
    if data.ndim not in (3, 4) or 0 in shape:
        clips = (
            " ShuffleAndLearn and AudioVisual read clips (n, t, h, w, c). Pass their frames as images, "
            "X.reshape(-1, *X.shape[2:]), to anything else."
        )
        raise ValueError(
            f"X has the shape {shape}, but (n, h, w), (n, h, w, c) or (n, c, h, w) without empty axes was expected."
            + (clips if data.ndim == 5 else "")
        )
    if data.ndim == 3:
        return data[:, None]
    axis = _channel_axis(shape[1:])
    if axis is None:
        raise ValueError(
            f"X has the shape {shape}, which could be (n, c, h, w) or (n, h, w, c). Pass a torch Dataset of tensors "
            "(c, h, w), for example a TensorDataset."
        )
    return data if axis == 0 else data.permute(0, 3, 1, 2)


def check_image_shape(shape: Shape, image_shape: tuple[int, ...]) -> None:
    """Check that images have the shape that `image_shape` asks for.

    Parameters
    ----------
    shape : (int, int, int)
        Channels, height and width of the images.
    image_shape : tuple of int
        The parsed parameter.

    Raises
    ------
    ValueError
        If they do not.
    """
    c, h, w = shape
    got = f"The images in X have the shape (c, h, w) = {shape}"
    expected = _channels_and_size(_fill_in(image_shape, c * h * w if len(image_shape) == 3 else h * w, got))
    if expected not in ((c, h, w), (None, h, w)):
        raise ValueError(_mismatch(got, image_shape))


def _channel_axis(shape: Sequence[int]) -> int | None:
    """Return which of three axes holds the channels, 0 or 2, or None if that is ambiguous."""
    a, b, c = shape
    first, last = b == c, a == b  # whether the remaining axes form a square
    if first and last:
        return 2 if a == 1 else None
    if first or last:
        axis, opposite = (0, 2) if first else (2, 0)
        return None if shape[axis] not in _CHANNELS and shape[opposite] in (3, 4) else axis
    if (a in _CHANNELS) == (c in _CHANNELS):
        return None
    return 0 if a in _CHANNELS else 2


def _fill_in(image_shape: tuple[int, ...], n_values: int, got: str) -> tuple[int, ...]:
    """Replace the -1 in `image_shape`; refuse it if its sizes do not give the number of values."""
    shape = list(image_shape)
    if -1 in shape:
        shape[shape.index(-1)] = n_values // -math.prod(shape)
    if math.prod(shape) != n_values:
        raise ValueError(_mismatch(got, image_shape))
    return tuple(shape)


def _mismatch(got: str, image_shape: tuple[int, ...]) -> str:
    """Return the message for an `image_shape` that X does not have."""
    return (
        f"{got}, but image_shape={image_shape} was expected. Give the shape that the images have; only image files and "
        "PIL images are resized."
    )


def _channels_and_size(image_shape: tuple[int, ...]) -> tuple[int | None, int, int]:
    """Return the channels, height and width of an `image_shape`; the channels of (h, w) are None."""
    if len(image_shape) == 2:
        return None, image_shape[0], image_shape[1]
    axis = _channel_axis(image_shape)
    if axis is None:
        raise ValueError(
            f"image_shape={image_shape} could be (c, h, w) or (h, w, c). Pass a torch Dataset of tensors (c, h, w), "
            "for example a TensorDataset, without image_shape."
        )
    a, b, c = image_shape
    return (a, b, c) if axis == 0 else (c, a, b)
