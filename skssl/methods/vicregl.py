"""VICRegL: VICReg on whole images, and on matched cells of their feature maps."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar

from sklearn.utils._param_validation import Interval
from torch import Tensor

from skssl.augment import cell_positions
from skssl.backbones import feature_map, map_channels
from skssl.losses import vicreg_terms, vicregl_terms
from skssl.methods.vicreg import VICReg
from skssl.nn.distributed import all_gather
from skssl.nn.heads import MLP
from skssl.training.objective import Batch, Objective

MATCHED = 20 / 49  # the share of the cells that the paper matches: 20 of a map of 7x7


@dataclass(kw_only=True, eq=False, repr=False)
class VICRegL(VICReg):
    """VICRegL: VICReg on the features of whole images, and on the cells of their last feature maps.

    Each cell is matched with a cell of the second view twice: with the one at the nearest position in the image, and
    with the one of the nearest embedding. The best matches are compared by VICReg's loss. The backbone must return a
    feature map, or pool it with ``nn.AdaptiveAvgPool2d``, as all named backbones do. Positions follow from the crops
    and flips of the views, so `augment` cannot be a transform of another library.

    The history has the three terms of both losses with their weights applied.

    Parameters
    ----------
    alpha : float, default=0.75
        Weight of the loss of whole images, in [0, 1]. The loss of the cells has the weight 1 - alpha. The paper prefers
        0.9 for classification and 0.75 for segmentation.
    n_matches : int, default=None
        Number of cells of each map that are matched, at most all. None: 20 of 49, the paper's share.
    local_dim : int, default=512
        Width of the hidden and output layers of the cells' projector, which has `proj_layers`, too.

    References
    ----------
    Bardes et al., VICRegL: Self-Supervised Learning of Local Visual Features, NeurIPS 2022. See
    `skssl.losses.vicregl_terms` for what differs from the authors' code, whose covariance term has half the scale:
    its settings correspond to ``cov=0.5``. The code ignores flips in the positions unless told otherwise; here they
    count. The small views of the paper's experiments with ConvNeXt are left out. Everything else is as in `VICReg`.

    Examples
    --------
    >>> from skssl import VICRegL
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> narrow = {"proj_dim": 64, "local_dim": 64}
    >>> encoder = VICRegL(backbone="convnet", epochs=1, batch_size=32, random_state=0, **narrow).fit(X)
    >>> encoder.history_.columns[5:8].tolist()
    ['local_invariance', 'local_variance', 'local_covariance']
    """

    alpha: float = 0.75
    n_matches: int | None = None
    local_dim: int = 512

    reads_corners: ClassVar[bool] = True
    _parameter_constraints: ClassVar[dict] = {
        **VICReg._parameter_constraints,
        "alpha": [Interval(Real, 0, 1, closed="both")],
        "n_matches": [Interval(Integral, 1, None, closed="left"), None],
        "local_dim": [Interval(Integral, 1, None, closed="left")],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        super().build(net, dim, n_samples)
        width = map_channels(net.encoder, net.shape)
        net.local_projector = MLP((width, *[self.local_dim] * self.proj_layers), bias=False)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        assert batch.corners is not None
        images, cells, positions = [], [], []
        for view, corners in zip(batch.views, batch.corners, strict=True):  # BatchNorm sees one view at a time
            features, grid = feature_map(net.encoder, view)
            rows = grid.flatten(2).mT  # (n, cells, channels)
            images.append(all_gather(net.projector(features)))
            cells.append(all_gather(net.local_projector(rows.flatten(0, 1)).view(*rows.shape[:2], -1)))
            positions.append(all_gather(cell_positions(corners, grid.shape[2:])))
        n_cells = cells[0].shape[1]
        n_matches = min(self.n_matches or max(1, round(MATCHED * n_cells)), n_cells)
        whole, local = vicreg_terms(*images), vicregl_terms(*cells, *positions, n_matches)
        names, weights = ("invariance", "variance", "covariance"), (self.sim, self.var, self.cov)
        return {
            **{name: self.alpha * weight * term for name, weight, term in zip(names, weights, whole, strict=True)},
            **{
                f"local_{name}": (1 - self.alpha) * weight * term
                for name, weight, term in zip(names, weights, local, strict=True)
            },
        }
