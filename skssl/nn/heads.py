"""Projection and prediction heads."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from functools import partial

from torch import nn


class MLP(nn.Sequential):
    """Multilayer perceptron: linear layers with BatchNorm and an activation between them.

    Parameters
    ----------
    dims : sequence of int
        Widths from the input to the output, such as ``(512, 2048, 256)``.
    bias : bool, default=True
        Whether the last linear layer has a bias. Linear layers before a BatchNorm have no bias.
    norm : bool, default=True
        Whether BatchNorm follows the hidden layers.
    output_norm : bool, default=False
        Whether BatchNorm follows the last layer.
    output_affine : bool, default=False
        Whether the BatchNorm after the last layer has a learnable scale and shift.
    activation : callable, default=None
        Returns the module that follows each hidden layer. None is an in-place ReLU.

    Attributes
    ----------
    out_features : int
        The width of the output.

    Examples
    --------
    >>> import torch
    >>> from skssl.nn.heads import MLP
    >>> MLP((8, 16, 4))(torch.zeros(2, 8)).shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        dims: Iterable[int],
        *,
        bias: bool = True,
        norm: bool = True,
        output_norm: bool = False,
        output_affine: bool = False,
        activation: Callable[[], nn.Module] | None = None,
    ) -> None:
        dims = tuple(dims)
        activation = activation or partial(nn.ReLU, inplace=True)
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(dims[:-1]):
            layers += [nn.Linear(n_in, n_out, bias=not norm)]
            layers += [nn.BatchNorm1d(n_out), activation()] if norm else [activation()]
        layers += [nn.Linear(dims[-2], dims[-1], bias=bias and not output_norm)]
        layers += [nn.BatchNorm1d(dims[-1], affine=output_affine)] if output_norm else []
        super().__init__(*layers)
        self.out_features = dims[-1]
