"""Features of several stages of a convolutional network, pooled on a grid."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, InvalidParameterError
from torch import Tensor, nn

from skssl.backbones.maps import last_module, module_outputs, stages
from skssl.storage.registry import register


@register("object")
@dataclass(eq=False, repr=False)
class StagePool(BaseEstimator):
    """A convolutional network as the parameter `backbone`, whose features are maps of several stages on a grid.

    The maps of the last stages are each averaged over the cells of a grid, and concatenated. Such features say where
    something is, and hold edges and textures beside the deepest maps. After short trainings and with small networks a
    linear classifier finds more in them than in the average of the last map. They are wider, so that classifiers take
    longer, and so does the training, unless `hidden_dim` of the method is set: the hidden layer of a projector is by
    default as wide as the features.

    Parameters
    ----------
    backbone : str, torch.nn.Module or callable, default="convnet"
        The network, as for `build_backbone`.
    n_stages : int, default=2
        How many of the last `stages` are used.
    grid : int, default=3
        Number of rows and of columns of the grid. 1 averages over the whole map.

    References
    ----------
    Coates et al., An Analysis of Single-Layer Networks in Unsupervised Feature Learning, AISTATS 2011, pools on a grid
    of 2x2; Goyal et al., Scaling and Benchmarking Self-Supervised Visual Representation Learning, ICCV 2019, scores the
    maps of single stages on grids.

    Examples
    --------
    >>> from skssl import SimCLR
    >>> from skssl.backbones import StagePool
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = SimCLR(backbone=StagePool("convnet", n_stages=2, grid=2), epochs=1, batch_size=32, random_state=0)
    >>> encoder.fit_transform(X).shape  # (64 + 128) * 2 * 2
    (64, 768)
    """

    backbone: Any = "convnet"
    n_stages: int = 2
    grid: int = 3

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "backbone": [str, nn.Module, callable],
        "n_stages": [Interval(Integral, 1, None, closed="left")],
        "grid": [Interval(Integral, 1, None, closed="left")],
    }

    def build(self, encoder: nn.Module) -> PooledStages:
        """Build the module.

        Parameters
        ----------
        encoder : torch.nn.Module
            The network that `backbone` names, see `build_backbone`.

        Returns
        -------
        PooledStages
            The module, from images (n, c, h, w) to features (n, d).

        Raises
        ------
        InvalidParameterError
            If the network has fewer stages.
        """
        self._validate_params()
        if len(found := stages(encoder)) < self.n_stages:
            raise InvalidParameterError(
                f"n_stages={self.n_stages} of StagePool is more than the stages of {type(encoder).__name__}: "
                f"{list(found) or 'none that are known'}."
            )
        return PooledStages(encoder, self.n_stages, self.grid)


class PooledStages(nn.Module):
    """An encoder whose features are the pooled maps of its last stages, see `StagePool`.

    Parameters
    ----------
    encoder : torch.nn.Module
        The network.
    n_stages : int
        How many of the last stages are used.
    grid : int
        Number of rows and of columns of the grid.
    """

    def __init__(self, encoder: nn.Module, n_stages: int, grid: int) -> None:
        super().__init__()
        self.encoder, self.n_stages = encoder, n_stages
        self.avgpool = nn.AdaptiveAvgPool2d(grid)

    def forward(self, images: Tensor) -> Tensor:
        """Encode images (n, c, h, w) as features (n, d)."""
        ends = [last_module(stage) for stage in list(stages(self.encoder).values())[-self.n_stages :]]
        maps = module_outputs(ends, self.encoder, images)
        return torch.cat([self.avgpool(of_stage).flatten(1) for of_stage in maps], 1)
