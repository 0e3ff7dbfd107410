"""The parameters of `Augmentation` and their checks."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from skssl.augment.geometry import FILTERS
from skssl.augment.normalization import IMAGENET_MEAN, IMAGENET_STD
from skssl.images.photographs import EVAL_RESIZE

PROBABILITIES = ("good_crops", "flip", "quarter_turn", "jitter", "gray", "blur", "solarize")
STRENGTHS = ("brightness", "contrast", "saturation")


@dataclass(kw_only=True, eq=False, repr=False)
class Parameters(BaseEstimator):
    """The parameters that `Augmentation` documents, for the functions that draw and make views by them."""

    crop_scale: tuple[float, float] | None = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_padding: int = 0
    saliency: Any = None
    good_crops: float = 1.0
    size: int | tuple[int, int] | None = None
    interpolation: str = "bilinear"
    eval_resize: float | None = EVAL_RESIZE
    flip: float = 0.5
    quarter_turn: float = 0.0
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    hue_space: str = "hsv"
    gray: float = 0.2
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0
    solarize_threshold: float = 0.5
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "crop_scale": ["array-like", None],
        "crop_ratio": ["array-like"],
        "crop_padding": [Interval(Integral, 0, None, closed="left")],
        "saliency": ["array-like", Tensor, None],
        "size": [Interval(Integral, 1, None, closed="left"), "array-like", None],
        "interpolation": [StrOptions(set(FILTERS))],
        "eval_resize": [Interval(Real, 1, None, closed="left"), None],
        "hue": [Interval(Real, 0, 0.5, closed="both")],
        "hue_space": [StrOptions({"hsv", "yiq"})],
        "blur_sigma": ["array-like"],
        "solarize_threshold": [Interval(Real, 0, 1, closed="both")],
        "mean": ["array-like"],
        "std": ["array-like"],
        **{name: [Interval(Real, 0, None, closed="left")] for name in STRENGTHS},
        **{name: [Interval(Real, 0, 1, closed="both")] for name in PROBABILITIES},
    }

    def validate(self) -> None:
        """Check the parameters.

        `fit` calls it, and so does every other method if parameters have changed since the last check.

        Raises
        ------
        ValueError
            If a parameter is of the wrong type or out of its range.

        Examples
        --------
        >>> from skssl import Augmentation
        >>> Augmentation(crop_scale=(1.0, 0.2)).validate()
        Traceback (most recent call last):
        ...
        ValueError: The 'crop_scale' parameter of Augmentation must be two numbers, the lower first, above 0
        and at most 1. Got (1.0, 0.2) instead.
        """
        self._validate_params()
        for name, greatest in (("crop_scale", 1.0), ("crop_ratio", math.inf), ("blur_sigma", math.inf)):
            if getattr(self, name) is not None:
                check_range(self, name, greatest)
        for name, positive in (("mean", False), ("std", True)):
            value = getattr(self, name)
            if not (_are_reals(value, 3) and (min(value) > 0 or not positive)):
                raise _error(self, name, f"three numbers{' above 0' if positive else ''}")
        if self.saliency is not None and (np.ndim(self.saliency) != 3 or not self.crop_scale or self.crop_padding):
            raise ValueError(
                f"The 'saliency' parameter of {type(self).__name__} must be an array of shape (n_samples, h, w), and "
                f"needs a crop_scale and crop_padding=0. Got an array of {np.ndim(self.saliency)} dimensions, "
                f"crop_scale={self.crop_scale!r} and crop_padding={self.crop_padding!r}."
            )
        size: Any = self.size
        if not isinstance(size, Integral | None) and not (
            len(size) == 2 and all(isinstance(side, Integral) for side in size) and min(size) >= 1
        ):
            raise _error(self, "size", "a number of pixels, two of them (height and width) or None")
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


def check_range(owner: BaseEstimator, name: str, greatest: float) -> None:
    """Raise a ValueError unless a parameter is two positive numbers, the lower first."""
    value = getattr(owner, name)
    if not (_are_reals(value, 2) and 0 < value[0] <= value[1] <= greatest):
        limit = "" if greatest == math.inf else f" and at most {greatest:g}"
        raise _error(owner, name, f"two numbers, the lower first, above 0{limit}")


def _error(owner: BaseEstimator, name: str, expected: str) -> ValueError:
    """Return the error for a parameter, in scikit-learn's words."""
    return ValueError(
        f"The {name!r} parameter of {type(owner).__name__} must be {expected}. Got {getattr(owner, name)!r} instead."
    )


def _are_reals(value: Any, count: int) -> bool:
    """Return whether a parameter is a sequence of `count` finite numbers."""
    return len(value) == count and all(isinstance(x, Real) and math.isfinite(x) for x in value)
