"""Adversarial training: networks that pass a gradient to their inputs, and receive none themselves."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.func import functional_call


def frozen_forward(module: nn.Module, *inputs: Any) -> Any:
    """Run a module as a constant function: its inputs receive gradients, its parameters do not.

    The loss of a generator is computed by ``frozen_forward(discriminator, made)``, and that of the discriminator by
    ``discriminator(made.detach())``. Each loss then has a gradient for its own network only, so the gradient of their
    sum is that of two optimisers that step at the same time.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    *inputs : object
        Its inputs.

    Returns
    -------
    object
        Its output. Buffers, such as running statistics, do not change.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skssl.nn.adversarial import frozen_forward
    >>> layer, x = nn.Linear(2, 1), torch.ones(3, 2, requires_grad=True)
    >>> frozen_forward(layer, x).sum().backward()
    >>> x.grad.shape, layer.weight.grad
    (torch.Size([3, 2]), None)
    """
    constants = {name: parameter.detach() for name, parameter in module.named_parameters()}
    constants |= {name: buffer.clone() for name, buffer in module.named_buffers()}
    return functional_call(module, constants, inputs)
