"""Views by ``torch.compile``: draws and all steps in one graph."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skssl.augment.draws import DrawConstants, to_draws, view_corners
from skssl.augment.parameters import Parameters
from skssl.augment.views import ViewConstants, make_views

#: Compiled functions by parameters and shapes.
COMPILED: dict[tuple[Any, ...], Callable[..., tuple[Tensor, Tensor | None]]] = {}


def make_compiled_views(
    parameters: Parameters,
    images: Tensor,
    numbers: Tensor,
    maps: Tensor | None,
    draw_constants: DrawConstants,
    view_constants: ViewConstants,
    corners: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Make views, and their corners if asked, by a compiled function that equal parameters and shapes share.

    If compilation fails, a warning is issued and the function runs without it from then on.
    """
    values: dict[str, Any] = {
        field.name: _plain(getattr(parameters, field.name)) for field in fields(parameters) if field.name != "saliency"
    }
    shapes = (images.shape, images.stride(), images.dtype, images.device, numbers.shape, maps is None, corners)
    key, tensors = (*values.values(), *shapes), (images, numbers, maps, draw_constants, view_constants)
    if key in COMPILED:
        return COMPILED[key](*tensors)
    fixed = Parameters(**values)

    def views(
        images: Tensor,
        numbers: Tensor,
        maps: Tensor | None,
        draw_constants: DrawConstants,
        view_constants: ViewConstants,
    ) -> tuple[Tensor, Tensor | None]:
        draws = to_draws(fixed, numbers, maps, draw_constants)
        return make_views(fixed, images, draws, view_constants), view_corners(draws) if corners else None

    # Dynamo limits recompilations by code object, hence one for each key.
    own = types.FunctionType(views.__code__.replace(), views.__globals__, "views", None, views.__closure__)
    compiled = torch.compile(own, dynamic=False, fullgraph=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's advice, such as to allow TF32
            made = compiled(*tensors)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        warnings.warn(
            f"Views are made without torch.compile, which failed: {type(error).__name__}: {reason}", stacklevel=4
        )
        compiled, made = views, views(*tensors)
    COMPILED[key] = compiled
    return made


def _plain(value: Any) -> Any:
    """Return a parameter as Python's own numbers and tuples."""
    value = np.asarray(value).tolist()
    return tuple(value) if isinstance(value, list) else value
