"""Large batches in little memory: encoders run on a batch in parts, and again for the gradient (gradient caching)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from skssl.nn.batchnorm import SplitBatchNorm, split_batchnorm, sync_batchnorm

ENTRIES = "forward", "tokens"  # methods by which an encoder is called


class PartwiseForward:
    """The forward pass of an encoder on a batch in parts, which keeps no activations.

    The backward pass runs each part again, with the same random numbers, parameters and buffers, and propagates the
    gradient of its outputs. At any time there are activations of one part only. The buffers of the encoder, such as
    BatchNorm's running statistics, are updated by the first passes only.

    Parameters
    ----------
    encoder : torch.nn.Module
        Maps images (n, ...) to features (n, d).
    parts : int
        Number of parts. Their sizes differ by at most one image. There are fewer parts if one would have less than two
        images.
    name : str, default="forward"
        The method of the encoder that is called: ``forward``, or ``tokens`` of a vision transformer.
    """

    def __init__(self, encoder: nn.Module, parts: int, name: str = "forward") -> None:
        self.encoder, self.parts = encoder, parts
        self.forward: Callable[..., Tensor] = getattr(encoder, name)

    def __call__(self, images: Tensor, *more: Tensor | None) -> Tensor:
        """Encode images. Further tensors with a row for each image are divided as the images are."""
        return self.join([self._encode(rows, images, *more) for rows in self._rows(len(images), images.device)[0]])

    def join(self, found: Sequence[Tensor]) -> Tensor:
        """Concatenate what the parts have returned, and restore the order of the images.

        Parameters
        ----------
        found : sequence of Tensors of shape (rows of a part, ...)
            One for each part.

        Returns
        -------
        Tensor of shape (n, ...)
            One row for each image.
        """
        joined = torch.cat(list(found))
        return joined[self._rows(len(joined), joined.device)[1]]

    def _rows(self, n: int, device: torch.device) -> tuple[Sequence[Tensor], Tensor]:
        return _shuffled_rows(n, max(1, min(self.parts, n // 2)), device)

    def _encode(self, rows: Tensor, *inputs: Tensor | None) -> Tensor:
        """Encode some rows of the images."""

        def run(rows: Tensor, *inputs: Tensor | None) -> Tensor:
            n = len(cast(Tensor, inputs[0]))
            return self.forward(*(x[rows] if x is not None and len(x) == n else x for x in inputs))

        if not torch.is_grad_enabled():
            return run(rows, *inputs)
        modules = list(self.encoder.modules())
        kept: list[tuple[Any, str, Any]] = [
            (module._buffers, name, buffer.clone())
            for module in modules
            for name, buffer in module.named_buffers(recurse=False)
        ]
        kept += [(module._parameters, name, value) for module in modules for name, value in module._parameters.items()]
        layers = (module for module in self.encoder.modules() if isinstance(module, SplitBatchNorm))
        groups = next((layer.groups for layer in layers), 0)

        @contextmanager
        def again() -> Iterator[None]:
            now = [(holder, name, holder[name]) for holder, name, _ in kept]
            # The contexts of the first pass have ended.
            norm = split_batchnorm([self.encoder], groups) if groups else sync_batchnorm(self.encoder)
            try:
                for holder, name, value in kept:
                    holder[name] = value
                with norm:
                    yield
            finally:
                for holder, name, value in now:
                    holder[name] = value

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), again()

        return checkpoint(run, rows, *inputs, use_reentrant=False, context_fn=contexts)


@functools.lru_cache(maxsize=32)
def _shuffled_rows(n: int, parts: int, device: torch.device) -> tuple[Sequence[Tensor], Tensor]:
    """Return the rows of each part, and the places of all rows among those of the parts.

    The rows are shuffled, since a batch may hold its first views before its second views. If the two views of an image
    were in corresponding parts, BatchNorm's statistics would reveal which images belong together.
    """
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    return [rows.to(device) for rows in order.tensor_split(parts)], order.argsort().to(device)


@contextmanager
def encode_in_parts(encoders: Iterable[nn.Module], parts: int) -> Iterator[None]:
    """Make encoders run on their batches in parts within a context, see `PartwiseForward`.

    Features and gradients are those of a single pass, except that BatchNorm in training mode normalises each part
    separately, and that dropout draws other numbers. Modules that are applied to the features see the whole batch. The
    gradient takes a second forward pass. It may be computed after the context.

    Parameters
    ----------
    encoders : iterable of torch.nn.Module
        The encoders.
    parts : int
        Number of parts; 1 changes nothing.

    References
    ----------
    Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, RepL4NLP 2021.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skssl.nn.accumulation import encode_in_parts
    >>> encoder, images = nn.Linear(3, 2), torch.rand(8, 3)
    >>> with encode_in_parts([encoder], parts=4):
    ...     features = encoder(images)
    >>> torch.allclose(features, encoder(images))
    True
    """
    encoders = list(encoders) if parts > 1 else []
    try:
        for encoder in encoders:
            for name in ENTRIES:
                if hasattr(encoder, name):
                    setattr(encoder, name, PartwiseForward(encoder, parts, name))
        yield
    finally:
        for encoder in encoders:
            for name in ENTRIES:
                vars(encoder).pop(name, None)
