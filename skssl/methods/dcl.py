"""DCL: SimCLR's loss without the positive pair in the denominator."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Real
from typing import ClassVar

from sklearn.utils._param_validation import Interval
from torch import Tensor

from skssl.losses import dcl
from skssl.methods.settings import Settings
from skssl.methods.simclr import SimCLR


@dataclass(kw_only=True, eq=False, repr=False)
class DCL(SimCLR):
    """DCL: decoupled contrastive learning, which is SimCLR without the positive pair in the denominator.

    In SimCLR's loss an easy positive pair reduces the gradient of the negatives, and few or easy negatives reduce that
    of the positive pair. Without the positive pair in the denominator they are independent, so small batches are nearly
    as good as large ones. Everything else is as in `SimCLR`.

    Parameters
    ----------
    temperature : float, default=0.1
        Temperature of the similarities: the value of the two implementations below.
    sigma : float, default=None
        Width of the weights of the positive pairs, which are larger for pairs that are less similar: the weighted form,
        DCLW. The paper has 0.5. None weights all pairs equally.

    References
    ----------
    Yeh et al., Decoupled Contrastive Learning, ECCV 2022, equation 6. The negatives of an image are one sum over
    both views, as in the paper and in R. Nakhli's implementation; lightly adds the logarithms of one sum for each view.
    The weights have no gradient, as in lightly; they have one in Nakhli's implementation. The learning rate and weight
    decay are lightly's for CIFAR-10.

    Examples
    --------
    >>> from skssl import DCL
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = DCL(backbone="convnet", sigma=0.5, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 128)
    """

    temperature: float = 0.1
    sigma: float | None = None

    default_settings: ClassVar[Settings] = replace(SimCLR.default_settings, lr=0.12)
    _parameter_constraints: ClassVar[dict] = {
        **SimCLR._parameter_constraints,
        "sigma": [Interval(Real, 0, None, closed="neither"), None],
    }

    def contrast(self, z1: Tensor, z2: Tensor, y: Tensor | None) -> dict[str, Tensor]:  # noqa: D102
        return {"dcl": dcl(z1, z2, self.temperature, self.sigma, y)}
