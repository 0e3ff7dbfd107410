"""What a network returns, as features: one tensor is selected, and a map is pooled."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

NAMED = ("pooler_output", "logits")  # Hugging Face's and torchvision's names; the logits are features without the head


class Pooled(nn.Module):
    """Global average pooling of the map that a network outputs."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.avgpool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images (n, c, h, w) as features (n, d)."""
        return self.avgpool(self.body(images)).flatten(1)


class Selected(nn.Module):
    """The one tensor of a network's outputs that holds features or a map."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        """Encode images (n, c, h, w) as features (n, d) or maps (n, d, h, w)."""
        return select(self.body(images))


def select(output: Any) -> Tensor:
    """Return the tensor of features, or the map, among the outputs of a network.

    Parameters
    ----------
    output : Tensor, tuple, list, mapping or dataclass
        The output. A mapping, a named tuple or a dataclass may hold "pooler_output" or "logits", which are taken.

    Returns
    -------
    Tensor
        The output named so, else the only tensor, the only one of shape (n, d), or the only map (n, d, h, w).

    Raises
    ------
    ValueError
        If several tensors could be the features.

    Examples
    --------
    >>> import torch
    >>> from skssl.backbones.outputs import select
    >>> select({"last_hidden_state": torch.zeros(2, 5, 8), "pooler_output": torch.ones(2, 8)}).shape
    torch.Size([2, 8])
    """
    if isinstance(output, Tensor):
        return output
    named: Mapping[Any, Any] = {}
    if isinstance(output, Mapping):
        named = output
    elif dataclasses.is_dataclass(output):
        named = vars(output)
    elif isinstance(output, tuple | list):
        named = dict(zip(getattr(output, "_fields", range(len(output))), output, strict=True))
    for name in NAMED:
        if isinstance(named.get(name), Tensor):
            return named[name]
    tensors = [value for value in named.values() if isinstance(value, Tensor)]
    for found in (tensors, [of for of in tensors if of.ndim == 2], [of for of in tensors if of.ndim == 4]):
        if len(found) == 1:
            return found[0]
    held = ", ".join(
        f"{name}: {tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__}"
        for name, value in named.items()
    )
    raise ValueError(
        f"it returns a {type(output).__name__}{f' ({held})' if held else ''}, in which the features cannot be told. "
        "Wrap it in a module that returns one tensor, (n, d) or (n, d, h, w)"
    )
