"""The parameters of `Augmentation` and their checks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from skssl.augment.preprocessing import Preprocessing, check_range

PROBABILITIES = ("good_crops", "flip", "quarter_turn", "jitter", "gray", "blur", "solarize")
STRENGTHS = ("brightness", "contrast", "saturation")


@dataclass(kw_only=True, eq=False, repr=False)
class Parameters(Preprocessing):
    """The parameters that `Augmentation` documents, for the functions that draw and make views by them."""

    crop_scale: tuple[float, float] | None = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_padding: int = 0
    saliency: Any = None
    good_crops: float = 1.0
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

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **Preprocessing._parameter_constraints,
        "crop_scale": ["array-like", None],
        "crop_ratio": ["array-like"],
        "crop_padding": [Interval(Integral, 0, None, closed="left")],
        "saliency": ["array-like", Tensor, None],
        "hue": [Interval(Real, 0, 0.5, closed="both")],
        "hue_space": [StrOptions({"hsv", "yiq"})],
        "blur_sigma": ["array-like"],
        "solarize_threshold": [Interval(Real, 0, 1, closed="both")],
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
        if self.saliency is not None and (np.ndim(self.saliency) != 3 or not self.crop_scale or self.crop_padding):
            raise ValueError(
                f"The 'saliency' parameter of {type(self).__name__} must be an array of shape (n_samples, h, w), and "
                f"needs a crop_scale and crop_padding=0. Got an array of {np.ndim(self.saliency)} dimensions, "
                f"crop_scale={self.crop_scale!r} and crop_padding={self.crop_padding!r}."
            )
        super().validate()
