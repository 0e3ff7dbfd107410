"""FastSiam: SimSiam with the mean of several views as the target."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor

from skssl.losses import averaged_targets
from skssl.methods.settings import Settings
from skssl.methods.siamese import Siamese
from skssl.methods.simsiam import SimSiam
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class FastSiam(Siamese):
    """FastSiam: predict the mean projection of several views, which trains stably on small batches.

    Each view predicts the mean of the projections of the other views of its image, whose gradient is stopped. The mean
    is a more stable target than a single view, so small batches and few epochs suffice. With two views it is `SimSiam`.
    A step encodes `n_views` views. Everything else is as in `SimSiam`.

    Parameters
    ----------
    n_views : int, default=4
        Views of an image, each of which predicts the mean of the others; 4 in lightly.

    References
    ----------
    Pototzky et al., FastSiam: Resource-Efficient Self-supervised Learning on a Single GPU, DAGM GCPR 2022. As in
    lightly, the projections are averaged before they are normalised. The settings are SimSiam's for CIFAR-10. The paper
    trains with batches of 32.

    Examples
    --------
    >>> from skssl import FastSiam
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = FastSiam(backbone="convnet", proj_dim=64, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 128)
    """

    n_views: int = 4

    default_settings: ClassVar[Settings] = SimSiam.default_settings
    unscheduled: ClassVar[tuple[str, ...]] = ("predictor",)
    _parameter_constraints: ClassVar[dict] = {
        **Siamese._parameter_constraints,
        "n_views": [Interval(Integral, 2, 100, closed="both")],
    }

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss of the predictions of all views."""
        p, z = self.predictions(net, batch.views)
        return {"negative_cosine": averaged_targets(torch.stack(p), torch.stack(z))}
