"""Batched augmentation on the device, with draws of its own for every image, and the papers' presets.

Each step is a small pure function of images and drawn numbers (`resized_crop`, `color_jitter`,
`gaussian_blur`, …) that computes for every image what torchvision's function of that name computes for one.
`Augmentation.draw` draws all numbers of a batch, and `Augmentation.apply` runs the steps on them in
torchvision's order: crop, flip, colour jitter, grey, blur, solarise, normalise.

Nothing here waits for the device. `apply` has static shapes, so that it can be compiled: an image that does
not get a step goes through it unchanged. A CPU skips what an image does not get, and works on as many images
at a time as fit in a core's cache.
"""

from __future__ import annotations

import functools
import math
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from skssl.augment.color import (
    UNCHANGED,
    _around_contrast,
    _blends,
    _blur,
    _Colors,
    _colors,
    _graying,
    _here_of_all,
    _hue_turns,
    _jitter,
    _jitter_alike,
    _last,
    _mix,
    _place,
    _planes,
    _product,
    _reflections,
    solarize,
)
from skssl.augment.draws import BLUR, FLIP, GRAY, JITTER, NUMBERS, SOLARIZE, TURN, Draws
from skssl.augment.geometry import (
    _FILTERS,
    TRIES,
    _all_weights,
    _boxes,
    _constant,
    _filter,
    _filters,
    _frame,
    _limits_of_crops,
    rotate_quarter,
    salient_crops,
)
from skssl.nn.precision import matmul_precision
from skssl.storage.registry import register

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CACHED_PIXELS = 131072  # pixels that are worked on at a time on a CPU, so that they stay in its cache


class _Constants(NamedTuple):
    """What an augmentation computes with besides images and draws; see `Augmentation._constants`."""

    frame: Tensor  # as `_frame` gives it
    limits: Tensor  # (3, numbers): the least and the greatest of each, and where it is a chance, below what it hits
    here: Tensor  # (orders, steps, changes): `_here` of all orders
    colors: _Colors
    gain: Tensor  # (c,)
    offset: Tensor  # (c,)
    rows: Tensor | None  # as `_all_weights` gives them
    columns: Tensor | None
    blur_rows: Tensor | None  # as `_reflections` gives them
    blur_columns: Tensor | None


class _Plan(NamedTuple):
    """Draws, and what follows from them before any pixel is looked at."""

    draws: Draws
    turns: Any  # as `_hue_turns` gives them
    share: Any
    blends: Any  # as `_blends` gives them, where images are worked on in parts
    of_mean: Any
    colors: Tensor  # (n, c, c): grey, and normalisation but for its offset where nothing comes between the two

    def of(self, some: slice) -> _Plan:
        """The plan of some of the views."""
        parts = (tensor if tensor is None else tensor[some] for tensor in self[1:])
        return _Plan._make((self.draws.of(some), *parts))


def _full_precision(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Keep lower precisions out, for an augmentation that is called within a step."""

    @functools.wraps(call)
    def wrapped(self: Augmentation, images: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            if torch.compiler.is_compiling():
                return call(self, images, *args, **kwargs)
            with matmul_precision("highest", images.device):
                return call(self, images, *args, **kwargs)

    return wrapped


@register("object")
@dataclass(kw_only=True, eq=False, repr=False)
class Augmentation(BaseEstimator):
    """Random views of a batch of images, each image by draws of its own, as float32 that a network takes.

    The steps and their order are torchvision's: crop, flip, colour jitter, grey, blur, solarise, normalise.
    The defaults are the CIFAR settings of SimCLR with ImageNet's mean and deviation. Constructing stores,
    calling computes.

    Parameters
    ----------
    crop_scale : tuple of float or None, default=(0.08, 1.0)
        The least and the greatest area of the random crop, as fractions of the image's. None: no such crop.
    crop_ratio : tuple of float, default=(3/4, 4/3)
        The least and the greatest width by height of the random crop.
    crop_padding : int, default=0
        If above 0, then instead of that crop one of the image's own size, of the image surrounded by so many
        black pixels.
    saliency : array of shape (n_samples, h, w) or None, default=None
        A map for each of the training images, such as `grad_cam` makes, of any size. The random crop is drawn
        until its map is higher on average than the image's, ten times at most, then once more; see `salient_crops`.
    good_crops : float, default=1.0
        The probability that a crop is chosen so.
    size : int, tuple of int or None, default=None
        Side, or height and width, of a view. None: those of the images.
    interpolation : {"bilinear", "bicubic"}, default="bilinear"
        How crops are resized, always antialiased.
    flip : float, default=0.5
        Probability of mirroring from left to right.
    quarter_turn : float, default=0.0
        Probability of turning a square view by 0, 90, 180 or 270 degrees, each as likely: rotation as an augmentation.
    jitter : float, default=0.8
        Probability of changing brightness, contrast, saturation and hue, in a random order.
    brightness, contrast, saturation : float, default=0.4
        The factors are uniform within 1 minus (but at least 0) and 1 plus this.
    hue : float, default=0.1
        The shift is uniform within minus and plus this, in turns.
    hue_space : {"hsv", "yiq"}, default="hsv"
        Where the hue turns: see `adjust_hue`. "hsv" is what the papers used.
    gray : float, default=0.2
        Probability of becoming grey.
    blur : float, default=0.0
        Probability of a Gaussian blur.
    blur_sigma : tuple of float, default=(0.1, 2.0)
        Its least and greatest deviation, in pixels.
    solarize : float, default=0.0
        Probability of inverting the values from `solarize_threshold` on.
    solarize_threshold : float, default=0.5
        On the scale of [0, 1].
    mean, std : tuple of float, default=ImageNet's
        Subtracted from and divided by, for red, green and blue in [0, 1]. For images with other than three
        channels their averages count. Such images keep their saturation and hue and do not become grey.

    Notes
    -----
    Everything is drawn for each image by itself. A call is `draw` and then `apply`. The numbers that are drawn for a
    view do not depend on which steps there are, so that two settings with one seed crop alike.

    References
    ----------
    .. [1] Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020,
           appendix A.

    Examples
    --------
    >>> images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    >>> augment = Augmentation(crop_scale=(0.2, 1.0), hue=0.0)
    >>> views = augment(images, torch.Generator().manual_seed(0))
    >>> views.shape, views.dtype
    (torch.Size([8, 3, 32, 32]), torch.float32)
    >>> augment
    Augmentation(crop_scale=(0.2, 1.0), hue=0.0)
    """

    crop_scale: tuple[float, float] | None = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_padding: int = 0
    saliency: Any = None
    good_crops: float = 1.0
    size: int | tuple[int, int] | None = None
    interpolation: str = "bilinear"
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
        "interpolation": [StrOptions(set(_FILTERS))],
        "brightness": [Interval(Real, 0, None, closed="left")],
        "contrast": [Interval(Real, 0, None, closed="left")],
        "saturation": [Interval(Real, 0, None, closed="left")],
        "hue": [Interval(Real, 0, 0.5, closed="both")],
        "hue_space": [StrOptions({"hsv", "yiq"})],
        "blur_sigma": ["array-like"],
        "solarize_threshold": [Interval(Real, 0, 1, closed="both")],
        "mean": ["array-like"],
        "std": ["array-like"],
        **{
            name: [Interval(Real, 0, 1, closed="both")]
            for name in ("good_crops", "flip", "quarter_turn", "jitter", "gray", "blur", "solarize")
        },
    }

    def validate(self) -> None:
        """Check the parameters, in scikit-learn's words; done by `fit`, and by a call where they are new.

        Raises
        ------
        ValueError
            If a parameter is of the wrong type or out of its range.

        Examples
        --------
        >>> Augmentation(crop_scale=(1.0, 0.2)).validate()
        Traceback (most recent call last):
        ...
        ValueError: The 'crop_scale' parameter of Augmentation must be two numbers, the lower first, above 0
        and at most 1. Got (1.0, 0.2) instead.
        """
        self._validate_params()
        for name, greatest in (("crop_scale", 1.0), ("crop_ratio", math.inf), ("blur_sigma", math.inf)):
            if getattr(self, name) is not None:
                _check_range(self, name, greatest)
        for name, positive in (("mean", False), ("std", True)):
            value = getattr(self, name)
            if not (_reals(value, 3) and (min(value) > 0 or not positive)):
                raise _refusal(self, name, f"three numbers{' above 0' if positive else ''}")
        if self.saliency is not None and (np.ndim(self.saliency) != 3 or not self.crop_scale or self.crop_padding):
            raise ValueError(
                "The 'saliency' parameter of Augmentation must be an array (n_samples, h, w), and go with a crop_scale "
                f"and without crop_padding. Got {np.ndim(self.saliency)} axes, crop_scale={self.crop_scale!r} and "
                f"crop_padding={self.crop_padding!r}."
            )
        size: Any = self.size
        if not isinstance(size, Integral | None) and not (
            len(size) == 2 and all(isinstance(side, Integral) for side in size) and min(size) >= 1
        ):
            raise _refusal(self, "size", "a number of pixels, two of them (height and width) or None")
        self._checked = self._state()

    def _state(self) -> tuple[Any, ...]:
        """The parameters' values."""
        return tuple(getattr(self, field.name) for field in fields(self))

    def __getstate__(self) -> dict[str, Any]:
        """What is copied, pickled and hashed: nothing that only says that the parameters were checked."""
        return {key: value for key, value in super().__getstate__().items() if key not in ("_checked", "_maps")}

    def _ensure_valid(self) -> None:
        """Check the parameters unless they are those checked last."""
        checked = getattr(self, "_checked", None)
        if checked is None or any(old is not new for old, new in zip(checked, self._state(), strict=True)):
            self.validate()

    @torch.no_grad()
    @_full_precision
    def __call__(
        self,
        images: Tensor,
        generator: torch.Generator,
        index: Tensor | None = None,
        n_views: int = 1,
        compile: bool = False,
    ) -> Tensor:
        """Draw one view of every image, or several.

        Parameters
        ----------
        images : Tensor of shape (n, c, h, w)
            uint8, or float in [0, 1], on any device and in any memory format.
        generator : torch.Generator
            Where all draws come from, on the images' device.
        index : int64 Tensor of shape (n,), optional
            Which images of the training set they are; for `saliency` only.
        n_views : int, default=1
            How many of each, by draws of their own; quicker than as many calls.
        compile : bool, default=False
            Whether the views are made by ``torch.compile``. It takes seconds once for each setting and shape in a
            process; all augmentations of equal parameters share what was compiled.

        Returns
        -------
        Tensor of shape (n_views * n, c, height, width), float32
            The first view of each image, in the images' order, then the second of each, and so on. The channels lie
            last in memory, as convolutions like it.

        Raises
        ------
        ValueError
            If a parameter is of the wrong type or out of its range.
        """
        self._ensure_valid()
        size = tuple(images.shape[2:])
        index = index if index is None or n_views == 1 else index.repeat(n_views)
        numbers, maps = self._numbers(n_views * len(images), size, generator, index)
        constants = self._constants(images.shape[1], size, images.device)
        if compile and not torch.compiler.is_compiling():
            return _compiled(self, images, numbers, maps, constants)
        return self._run(images, self._interpret(numbers, size, maps, constants), constants)

    @torch.no_grad()
    def draw(self, n: int, size: tuple[int, int], generator: torch.Generator, index: Tensor | None = None) -> Draws:
        """Draw all numbers of n views, in one call of the generator.

        Parameters
        ----------
        n : int
            How many views.
        size : tuple of int
            Height and width of the images.
        generator : torch.Generator
            What is drawn from; the draws lie on its device.
        index : int64 Tensor of shape (n,), optional
            Which images of the training set the views are of; for `saliency` only.

        Returns
        -------
        Draws
            The draws.

        Raises
        ------
        ValueError
            If a parameter is of the wrong type or out of its range.

        Examples
        --------
        >>> augment = Augmentation(flip=0.0, jitter=1.0)
        >>> draws = augment.draw(4, (32, 32), torch.Generator().manual_seed(0))
        >>> draws.sides.shape, draws.flip, draws.jitter
        (torch.Size([4, 2]), None, tensor([True, True, True, True]))
        """
        self._ensure_valid()
        numbers, maps = self._numbers(n, size, generator, index)
        return self._interpret(numbers, size, maps, self._constants(3, size, generator.device))

    @torch.no_grad()
    @_full_precision
    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """Make the views that draws describe: a pure function, whose shapes depend on those of its arguments alone.

        Parameters
        ----------
        images : Tensor of shape (n, c, h, w)
            uint8, or float in [0, 1], on any device and in any memory format.
        draws : Draws
            Of ``n_views * n`` views, by `draw`. View i is one of image i % n.

        Returns
        -------
        Tensor of shape (n_views * n, c, height, width), float32
            The views, as a call returns them.

        Raises
        ------
        ValueError
            If a parameter is of the wrong type or out of its range.

        Examples
        --------
        >>> images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
        >>> augment = Augmentation(jitter=0.0)
        >>> draws = augment.draw(16, (32, 32), torch.Generator().manual_seed(0))
        >>> augment.apply(images, draws).shape
        torch.Size([16, 3, 32, 32])
        """
        self._ensure_valid()
        return self._run(images, draws, self._constants(images.shape[1], tuple(images.shape[2:]), images.device))

    def _numbers(
        self, n: int, size: Sequence[int], generator: torch.Generator, index: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Numbers (n, k) in [0, 1) from which the draws of n views follow, and the images' saliency maps (n, h, w)."""
        maps = self._salient(index, size)
        k = sum(NUMBERS) + (0 if maps is None else TRIES * NUMBERS[0] + 1)
        return torch.rand(n, k, generator=generator, device=generator.device), maps

    def _interpret(self, numbers: Tensor, size: Sequence[int], maps: Tensor | None, constants: _Constants) -> Draws:
        """Draws that follow from `_numbers`."""
        low, high, chance = constants.limits
        n, hits = len(numbers), (numbers < chance).unbind(1)
        parts = torch.lerp(low, high, numbers).split([*NUMBERS, numbers.shape[1] - sum(NUMBERS)], 1)
        crop, _, _, amounts, order, _, _, sigma, _, turns, more = parts
        if self.crop_padding:
            corner, sides = crop[:, -2:].floor(), constants.frame[0].expand(n, 2)
        elif self.crop_scale and maps is not None:
            boxes = _boxes(torch.cat((crop, more[:, :-1]), 1).view(-1, NUMBERS[0]), constants.frame)
            candidates = [side for box in boxes for side in box.view(n, -1, 2).unbind(2)]
            chosen = salient_crops(candidates, maps)
            mine = [torch.where(hits[-1], a, b[:, -1]) for a, b in zip(chosen, candidates, strict=True)]
            corner, sides = torch.stack(mine[:2], 1), torch.stack(mine[2:], 1)
        elif self.crop_scale:
            corner, sides = _boxes(crop, constants.frame)
        else:
            corner, sides = crop.new_zeros(n, 2), constants.frame[0].expand(n, 2)
        jitters = self.jitter and (self.brightness or self.contrast or self.saturation or self.hue)
        return Draws(
            corner,
            sides,
            flip=hits[FLIP] if self.flip else None,
            jitter=hits[JITTER] if jitters else None,
            factors=amounts[:, :3] if jitters else None,
            shift=amounts[:, 3] if jitters and self.hue else None,
            order=order[:, 0].long() if jitters else None,
            gray=hits[GRAY] if self.gray else None,
            blur=hits[BLUR] if self.blur else None,
            sigma=sigma[:, 0] if self.blur else None,
            solarize=hits[SOLARIZE] if self.solarize else None,
            turns=turns[:, 0].long().clamp(max=3) * hits[TURN] if self.quarter_turn else None,
        )

    def _run(self, images: Tensor, draws: Draws, constants: _Constants) -> Tensor:
        """The work of `apply`: all at once, or in parts on a CPU."""
        size = images.shape[2:]
        if images.device.type != "cpu" or torch.compiler.is_compiling():
            return self._views(images, self._plan(draws, size, constants), constants)
        n, c, (height, width) = len(draws.corner), images.shape[1], self.size_of(*size)
        rows, counts = _by_hue(draws)
        plan, source = self._plan(draws.of(rows), size, constants, in_parts=True), rows % len(images)
        views, images = torch.empty(n, height * width * c), images.movedim(1, 3)
        for hue_at, some in _parts(counts, max(1, CACHED_PIXELS // (height * width))):
            x = images.index_select(0, source[some]).movedim(3, 1)
            x = self._views(x, plan.of(some), constants, hue_at)
            views.index_copy_(0, rows[some], x.movedim(1, 3).reshape(len(x), -1))
        return views.view(n, height, width, c).movedim(3, 1)

    def _plan(self, draws: Any, size: Sequence[int], constants: _Constants, in_parts: bool = False) -> _Plan:
        """Make matrices of the changes of colour."""
        blends = of_mean = turns = share = None
        if draws.jitter is not None and in_parts:
            blends, of_mean = _blends(draws.factors, _place(draws), constants.colors)
        if draws.shift is not None:
            turns, share = _hue_turns(draws.shift, constants.colors.hue)
        colors = constants.colors.eye.expand(len(draws.corner), -1, -1)
        if draws.gray is not None:
            colors = _graying(draws.gray, constants.colors)
        if draws.blur is None and draws.solarize is None:
            colors = constants.gain[:, None] * colors
        return _Plan(draws, turns, share, blends, of_mean, colors)

    def _views(self, images: Tensor, plan: _Plan, constants: _Constants, hue_at: int | None = None) -> Tensor:
        """Views by a plan. Told where the hue comes in all of them, see `_by_hue`, it skips what none of them gets."""
        draws: Any = plan.draws  # whose fields follow from the parameters
        n, (c, *size) = len(draws.corner), images.shape[1:]
        height, width = self.size_of(*size)
        if torch.compiler.is_compiling():
            images = _as_float(images)  # in one kernel with what follows
        if n != len(images):
            images = images.movedim(1, 3).repeat(n // len(images), 1, 1, 1).movedim(3, 1)
        cropped = self.crop_padding or self.crop_scale or draws.flip is not None or [height, width] != size
        x = self._crop(images, draws, constants) if cropped else _as_float(images)
        x = x.reshape(n, c, height * width)
        planes = _planes(x)
        if draws.jitter is not None and hue_at != UNCHANGED:
            turns = None if plan.turns is None else (plan.turns, plan.share)
            if hue_at is None:
                here = constants.here.index_select(0, draws.order)
                steps = _around_contrast(draws.factors, here, turns, constants.colors)
                changed = _jitter(planes, draws.factors[:, 1], steps, constants.colors)
                where = draws.jitter[:, None, None]
                planes = tuple(torch.where(where, new, old) for new, old in zip(changed, planes, strict=True))
            else:
                planes = (_jitter_alike(x, (plan.blends, plan.of_mean), turns, hue_at),)
        colors = plan.colors
        if draws.blur is not None or draws.solarize is not None:
            planes = _mix(colors, planes)
            x = planes[0].view(n, c, height, width) if len(planes) == 1 else _last(planes, height)
            if draws.blur is not None:
                x = self._blur(x, draws, constants, hue_at)
            if draws.solarize is not None:
                x = solarize(x, self.solarize_threshold, draws.solarize)
            planes, colors = _planes(x.flatten(2)), constants.gain.diag().expand(n, c, c)
        if len(planes) > 1:
            offsets = constants.offset.split(1)
            x = _last([plane + offset for plane, offset in zip(_mix(colors, planes), offsets, strict=True)], height)
        else:
            x = _product(planes[0].mT, colors.mT).view(n, -1).add_(constants.offset.repeat(height * width))
            x = x.view(n, height, width, c).movedim(3, 1)
        if draws.turns is not None:
            x = rotate_quarter(x, draws.turns).contiguous(memory_format=torch.channels_last)
        return x

    def _crop(self, images: Tensor, draws: Draws, constants: _Constants) -> Tensor:
        """Cut out the boxes, and mirror."""
        size = images.shape[2:]
        how = self.interpolation, self.crop_padding, constants.rows, constants.columns
        crops = _filter(images, *_filters(draws.corner, draws.sides, draws.flip, size, self.size_of(*size), *how))
        return crops.clamp_(0, 1) if self.interpolation == "bicubic" else crops

    def _blur(self, x: Tensor, draws: Any, constants: Any, hue_at: int | None) -> Tensor:
        """Blur some of the images, and of a part those alone."""
        tables = constants.blur_rows, constants.blur_columns
        if hue_at is None:
            return torch.where(draws.blur[:, None, None, None], _blur(x, draws.sigma, *tables), x)
        some = draws.blur.nonzero()[:, 0]
        return x.index_copy_(0, some, _blur(x.index_select(0, some), draws.sigma.index_select(0, some), *tables))

    def _constants(self, c: int, size: Sequence[int], device: torch.device) -> _Constants:
        """All constants for images of a shape; they move to a device once, since the host waits for each such move."""
        sides, how = self.size_of(*size), (self.interpolation, self.crop_padding, device)
        gain, offset = self._scaling(c, device)
        return _Constants(
            _frame(size, self.crop_ratio, device),
            _constant(self._limits(size), device),
            _here_of_all(4 if self.hue else 3, device),
            _colors(c, self.hue_space, device),
            gain,
            offset,
            *(_all_weights(n_in, n_out, *how) for n_in, n_out in zip(size, sides, strict=True)),
            *(_reflections(side, sides[0], device) if self.blur else None for side in sides),
        )

    def _limits(self, size: Sequence[int]) -> tuple[tuple[float, ...], ...]:
        """Between what each of the drawn numbers lies, and below what those that are chances hit, see NUMBERS."""
        crop = _limits_of_crops(size, self.crop_scale or (1.0, 1.0), self.crop_ratio)
        if self.crop_padding:
            crop = [(of,) * NUMBERS[0] for of in (-self.crop_padding, self.crop_padding + 1)]
        factors = [(max(0, 1 - reach), 1 + reach) for reach in (self.brightness, self.contrast, self.saturation)]
        orders = (0, math.factorial(4 if self.hue else 3))
        turns = (0, 4 / (self.quarter_turn or 1))
        each = [(0, 1), (0, 1), *factors, (-self.hue, self.hue), orders, (0, 1), (0, 1), self.blur_sigma, (0, 1), turns]
        low, high = ((*of, *others) for of, others in zip(crop, zip(*each, strict=True), strict=True))
        chances = {
            FLIP: self.flip,
            JITTER: self.jitter,
            GRAY: self.gray,
            BLUR: self.blur,
            SOLARIZE: self.solarize,
            TURN: self.quarter_turn,
        }
        chance = tuple(chances.get(k, 1.0) for k in range(sum(NUMBERS)))
        if self.saliency is not None:
            low, high = ((*of, *crops * TRIES, k) for k, (of, crops) in enumerate(zip((low, high), crop, strict=True)))
            chance = (*chance, *(1.0,) * (TRIES * NUMBERS[0]), self.good_crops)
        return tuple(tuple(map(float, of)) for of in (low, high, chance))

    @torch.no_grad()
    @_full_precision
    def normalize(self, images: Tensor) -> Tensor:
        """Bring images to the scale of the views, and do nothing else.

        Parameters
        ----------
        images : Tensor of shape (n, c, h, w)
            uint8, or float in [0, 1].

        Returns
        -------
        Tensor of shape (n, c, h, w), float32
            Divided by 255 if they are uint8, less `mean`, by `std`; channels last in memory.

        Examples
        --------
        >>> white = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
        >>> Augmentation(mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0)).normalize(white).flatten()
        tensor([2.0000, 1.0000, 0.5000])
        """
        self._ensure_valid()
        n, c, h, w = images.shape
        gain, offset = (of.repeat(w) for of in self._scaling(c, images.device))
        gain = gain / 255 if images.dtype == torch.uint8 else gain
        rows = images.movedim(1, 3).reshape(n * h, w * c)  # long ones, so that a CPU takes many numbers at a time
        return torch.addcmul(offset, rows.float(), gain).view(n, h, w, c).movedim(3, 1)

    def still(self, images: Tensor) -> Tensor:
        """Bring images to the size and the scale of the views, and do nothing else: what a trained network is given.

        Parameters
        ----------
        images : Tensor of shape (n, c, h, w)
            uint8, or float in [0, 1].

        Returns
        -------
        Tensor of shape (n, c, height, width), float32
            Resized where `size` is another one, and normalised; channels last in memory.

        Examples
        --------
        >>> Augmentation(size=24).still(torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 3, 24, 24])
        """
        size = self.size_of(*images.shape[2:])
        if size != images.shape[2:]:
            images = _as_float(images)
            images = torch.nn.functional.interpolate(images, size, mode=self.interpolation, antialias=True).clamp_(0, 1)
        return self.normalize(images).contiguous(memory_format=torch.channels_last)

    def denormalize(self, views: Tensor) -> Tensor:
        """Undo `normalize`, to show what a network is given.

        Parameters
        ----------
        views : Tensor of shape (n, c, h, w), float32
            Normalised images.

        Returns
        -------
        Tensor of shape (n, c, h, w), float32
            Times `std`, plus `mean`; in [0, 1] where the images were.

        Examples
        --------
        >>> augment = Augmentation()
        >>> augment.denormalize(augment.normalize(torch.full((1, 3, 1, 1), 0.25))).flatten()
        tensor([0.2500, 0.2500, 0.2500])
        """
        self._ensure_valid()
        gain, offset = (of[:, None] for of in self._scaling(views.shape[1], views.device))
        return ((views.flatten(2) - offset) / gain).view(views.shape)

    def size_of(self, h: int, w: int) -> tuple[int, int]:
        """Tell the height and width of a view.

        Parameters
        ----------
        h, w : int
            Height and width of the images.

        Returns
        -------
        height, width : int
            Those of their views.

        Examples
        --------
        >>> Augmentation(size=24).size_of(16, 32)
        (24, 24)
        """
        if self.size is None:
            return h, w
        size: Any = self.size
        height, width = (size, size) if isinstance(size, Integral) else size
        return int(height), int(width)

    def _salient(self, index: Tensor | None, size: Sequence[int]) -> Tensor | None:
        """Saliency maps of images at their size, (n, h, w)."""
        if self.saliency is None:
            return None
        if index is None:
            raise ValueError("An Augmentation with saliency maps must be told which images it is given: index is None.")
        maps = getattr(self, "_maps", None)
        if maps is None or maps[0] is not self.saliency or maps[1].device != index.device:
            # They move to the device once, since the host waits for each such move.
            self._maps = maps = self.saliency, torch.as_tensor(self.saliency, dtype=torch.float32).to(index.device)
        own = maps[1].index_select(0, index)[:, None]  # (n, 1, h', w')
        return torch.nn.functional.interpolate(own, size, mode="bilinear", antialias=True)[:, 0]

    def _scaling(self, c: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """What normalisation multiplies c channels by, and then adds."""
        mean, std = ((*map(float, of),) if c == 3 else (sum(of) / 3,) * c for of in (self.mean, self.std))
        return (
            _constant(tuple(1 / s for s in std), device),
            _constant(tuple(-m / s for m, s in zip(mean, std, strict=True)), device),
        )


def _by_hue(draws: Draws) -> tuple[Tensor, list[int]]:
    """Put views in an order in which the hue of the first comes first, then second, …, last those that do not change.

    Returns the order, and how many there are of each. Without a hue all that change count as the fourth.
    """
    hue_at = torch.full((len(draws.corner),), UNCHANGED)
    if draws.jitter is not None:
        hue_at = torch.where(draws.jitter, UNCHANGED - 1 if draws.shift is None else _place(draws)[:, 3], hue_at)
    return hue_at.argsort(stable=True), hue_at.bincount(minlength=UNCHANGED + 1).tolist()


def _parts(counts: Sequence[int], most: int) -> Iterator[tuple[int, slice]]:
    """Slices of `most` views at a time, with the group of `_by_hue` that they belong to."""
    start = 0
    for group, count in enumerate(counts):
        stop = start + count
        for low in range(start, stop, most):
            yield group, slice(low, min(low + most, stop))
        start = stop


_COMPILED: dict[tuple[Any, ...], Callable[..., Tensor]] = {}  # by settings and shapes


def _compiled(
    augment: Augmentation, images: Tensor, numbers: Tensor, maps: Tensor | None, constants: _Constants
) -> Tensor:
    """Make views by what was compiled for their setting and shapes, and compile that the first time."""
    settings: dict[str, Any] = {
        field.name: _plain(getattr(augment, field.name)) for field in fields(augment) if field.name != "saliency"
    }
    shapes = (images.shape, images.stride(), images.dtype, images.device, numbers.shape, maps is None)
    key = (*settings.values(), *shapes)
    if key in _COMPILED:
        return _COMPILED[key](images, numbers, maps, constants)
    fixed = Augmentation(**settings)

    def views(images: Tensor, numbers: Tensor, maps: Tensor | None, constants: _Constants) -> Tensor:
        size = tuple(images.shape[2:])
        plan = fixed._plan(fixed._interpret(numbers, size, maps, constants), size, constants)
        return fixed._views(images, plan, constants)

    # Dynamo counts recompilations by code object, of which each setting and shape has its own.
    own = types.FunctionType(views.__code__.replace(), views.__globals__, "views", None, views.__closure__)
    compiled = torch.compile(own, dynamic=False, fullgraph=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's advice, such as to allow TF32
            made = compiled(images, numbers, maps, constants)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        warnings.warn(
            f"Views are made without torch.compile, which fails: {type(error).__name__}: {reason}", stacklevel=4
        )
        compiled, made = views, views(images, numbers, maps, constants)
    _COMPILED[key] = compiled
    return made


def _plain(value: Any) -> Any:
    """A parameter as Python's own numbers and tuples."""
    value = np.asarray(value).tolist()
    return tuple(value) if isinstance(value, list) else value


def _as_float(images: Tensor) -> Tensor:
    """Images as float32 in [0, 1]."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def _check_range(owner: BaseEstimator, name: str, greatest: float) -> None:
    """Refuse a parameter unless it is two positive numbers, the lower first."""
    value = getattr(owner, name)
    if not (_reals(value, 2) and 0 < value[0] <= value[1] <= greatest):
        limit = "" if greatest == math.inf else f" and at most {greatest:g}"
        raise _refusal(owner, name, f"two numbers, the lower first, above 0{limit}")


def _refusal(owner: BaseEstimator, name: str, expected: str) -> ValueError:
    """A parameter's refusal in scikit-learn's words."""
    return ValueError(
        f"The {name!r} parameter of {type(owner).__name__} must be {expected}. Got {getattr(owner, name)!r} instead."
    )


def _reals(value: Any, count: int) -> bool:
    """Whether a parameter is so many finite numbers."""
    return len(value) == count and all(isinstance(x, Real) and math.isfinite(x) for x in value)
