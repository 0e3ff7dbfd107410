"""How images are resized and normalised for a network, which `Augmentation` and `Transform` have in common."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from skssl.augment.geometry import FILTERS
from skssl.augment.normalization import IMAGENET_MEAN, IMAGENET_STD, denormalize, gain_and_offset, normalize
from skssl.augment.tensors import to_float
from skssl.images.photographs import EVAL_RESIZE
from skssl.nn.precision import matmul_precision


def full_precision(method: Callable[..., Any]) -> Callable[..., Any]:
    """Run a method of images in float32, also within a training step of lower precision.

    Parameters
    ----------
    method : callable
        A method whose first argument is images.

    Returns
    -------
    callable
        The method in float32.
    """

    @functools.wraps(method)
    def wrapped(self: Any, images: Tensor, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(images.device.type, enabled=False):
            if torch.compiler.is_compiling():
                return method(self, images, *args, **kwargs)
            with matmul_precision("highest", images.device):
                return method(self, images, *args, **kwargs)

    return wrapped


@dataclass(kw_only=True, eq=False, repr=False)
class Preprocessing(BaseEstimator):
    """How the images of a trained network are resized and normalised; abstract.

    Parameters
    ----------
    size : int, tuple of int or None, default=None
        Side, or height and width, of the views in pixels. None: those of the images.
    interpolation : {"bilinear", "bicubic"}, default="bilinear"
        How images are resized.
    eval_resize : float or None, default=256/224
        The shorter side of a photograph relative to that of its still view, see `Augmentation`.
    mean, std : tuple of float, default=ImageNet's
        Mean and standard deviation of red, green and blue in [0, 1], for the normalisation.
    """

    size: int | tuple[int, int] | None = None
    interpolation: str = "bilinear"
    eval_resize: float | None = EVAL_RESIZE
    mean: Any = IMAGENET_MEAN
    std: Any = IMAGENET_STD

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "size": [Interval(Integral, 1, None, closed="left"), "array-like", None],
        "interpolation": [StrOptions(set(FILTERS))],
        "eval_resize": [Interval(Real, 1, None, closed="left"), None],
        "mean": ["array-like"],
        "std": ["array-like"],
    }

    def validate(self) -> None:
        """Check the parameters, and remember them as valid.

        Raises
        ------
        ValueError
            If a parameter is of the wrong type or out of its range.
        """
        for name, positive in (("mean", False), ("std", True)):
            value = getattr(self, name)
            if value is not None and not (are_reals(value, 3) and (min(value) > 0 or not positive)):
                raise parameter_error(self, name, f"three numbers{' above 0' if positive else ''}")
        size: Any = self.size
        if not isinstance(size, Integral | None) and not (
            len(size) == 2 and all(isinstance(side, Integral) for side in size) and min(size) >= 1
        ):
            raise parameter_error(self, "size", "a number of pixels, two of them (height and width) or None")
        self._validated = self._values()

    def ensure_valid(self) -> None:
        """Call `validate` if a parameter has been replaced since the last call.

        Raises
        ------
        ValueError
            If a parameter is of the wrong type or out of its range.
        """
        validated = getattr(self, "_validated", None)
        if validated is None or any(old is not new for old, new in zip(validated, self._values(), strict=True)):
            self.validate()

    def _values(self) -> tuple[Any, ...]:
        """Return the values of the parameters."""
        return tuple(getattr(self, field.name) for field in fields(self))

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied, pickled and hashed: the parameters, without what is cached."""
        return {key: value for key, value in super().__getstate__().items() if not key.startswith("_")}

    def size_of(self, h: int, w: int) -> tuple[int, int]:
        """Return the height and width of a view.

        Parameters
        ----------
        h, w : int
            Height and width of the images.

        Returns
        -------
        height, width : int
            Height and width of their views.

        Examples
        --------
        >>> from skssl import Augmentation
        >>> Augmentation(size=24).size_of(16, 32)
        (24, 24)
        """
        if self.size is None:
            return h, w
        size: Any = self.size
        height, width = (size, size) if isinstance(size, Integral) else size
        return int(height), int(width)

    def eval_transform(self, images: Tensor) -> Tensor:
        """Resize images to the size of the views and normalise them, for a trained network.

        Parameters
        ----------
        images : Tensor of shape (n, c, h, w)
            uint8, or float in [0, 1].

        Returns
        -------
        Tensor of shape (n, c, height, width), float32
            The images, resized if `size` differs from theirs, and normalised. Channels are last in memory.

        Examples
        --------
        >>> from skssl import Augmentation
        >>> Augmentation(size=24).eval_transform(torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 3, 24, 24])
        """
        size = self.size_of(*images.shape[2:])
        if size != images.shape[2:]:
            images = to_float(images)
            images = torch.nn.functional.interpolate(images, size, mode=self.interpolation, antialias=True).clamp_(0, 1)
        return self.normalize(images).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    @full_precision
    def normalize(self, images: Tensor) -> Tensor:
        """Normalise images as views are.

        Parameters
        ----------
        images : Tensor of shape (n, c, h, w)
            uint8, or float in [0, 1].

        Returns
        -------
        Tensor of shape (n, c, h, w), float32
            The images, divided by 255 if they are uint8, minus `mean`, divided by `std`. Channels are last in memory.

        Examples
        --------
        >>> from skssl import Augmentation
        >>> white = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
        >>> Augmentation(mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0)).normalize(white).flatten()
        tensor([2.0000, 1.0000, 0.5000])
        """
        self.ensure_valid()
        return normalize(images, *gain_and_offset(self.mean, self.std, images.shape[1], images.device))

    def denormalize(self, views: Tensor) -> Tensor:
        """Undo `normalize`, to show views as images.

        Parameters
        ----------
        views : Tensor of shape (n, c, h, w), float32
            Normalised images.

        Returns
        -------
        Tensor of shape (n, c, h, w), float32
            The views times `std` plus `mean`, in [0, 1] if the images were.

        Examples
        --------
        >>> from skssl import Augmentation
        >>> augment = Augmentation()
        >>> augment.denormalize(augment.normalize(torch.full((1, 3, 1, 1), 0.25))).flatten()
        tensor([0.2500, 0.2500, 0.2500])
        """
        self.ensure_valid()
        return denormalize(views, *gain_and_offset(self.mean, self.std, views.shape[1], views.device))


def check_range(owner: BaseEstimator, name: str, greatest: float) -> None:
    """Raise a ValueError unless a parameter is two positive numbers, the lower first."""
    value = getattr(owner, name)
    if not (are_reals(value, 2) and 0 < value[0] <= value[1] <= greatest):
        limit = "" if greatest == math.inf else f" and at most {greatest:g}"
        raise parameter_error(owner, name, f"two numbers, the lower first, above 0{limit}")


def parameter_error(owner: BaseEstimator, name: str, expected: str) -> ValueError:
    """Return the error for a parameter, in scikit-learn's words."""
    return ValueError(
        f"The {name!r} parameter of {type(owner).__name__} must be {expected}. Got {getattr(owner, name)!r} instead."
    )


def are_reals(value: Any, count: int) -> bool:
    """Return whether a parameter is a sequence of `count` finite numbers."""
    return len(value) == count and all(isinstance(x, Real) and math.isfinite(x) for x in value)
