"""SupCon: all views of a class are positives."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor

from skssl.images import Images
from skssl.losses import sup_con
from skssl.methods.base import SSLTransformer
from skssl.methods.settings import Settings
from skssl.nn.distributed import all_gather
from skssl.nn.heads import MLP
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class SupCon(SSLTransformer):
    """SupCon: supervised contrastive learning, in which all views of a class are positives; requires labels.

    An image whose class is unknown (-1 in y) has its own other view as the only positive. If all classes are unknown,
    the loss is SimCLR's.

    Parameters
    ----------
    temperature : float, default=0.1
        Temperature of the softmax over similarities.
    proj_dim : int, default=128
        Width of the projector's output.
    hidden_dim : int, default=None
        Width of the projector's hidden layer. None is the encoder's width.
    label_noise : float, default=0.0
        Share of the known classes, in [0, 1], that are replaced by wrong ones (EffSSL's ablation). They are drawn once
        from the seed and stay the same in all epochs.

    References
    ----------
    Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, equation 2 (the logarithm inside the sum). Projector
    and settings are those of the reference code for CIFAR; the projector has no BatchNorm. That code multiplies the
    loss by t/0.07 = 1.43; here the learning rate has this factor (1.43 times the code's 0.5 for 1024 images). It rises
    from 0 and falls to 0; in the code it rises from 0.01 and falls to a thousandth.

    Examples
    --------
    >>> from skssl import SupCon
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = SupCon(backbone="convnet", epochs=1, batch_size=32, random_state=0).fit(X, y)
    >>> encoder.transform(X).shape
    (64, 128)
    """

    temperature: float = 0.1
    proj_dim: int = 128
    hidden_dim: int | None = None
    label_noise: float = 0.0

    default_settings: ClassVar[Settings] = Settings(
        augment="simsiam",  # on small images: crops of at least 0.2 of the area, and SimCLR's colours
        optimizer="sgd",
        lr=0.18,
        weight_decay=1e-4,
        schedule="cosine",
        warmup=0.01,
        aux_weight=1.0,
    )
    _parameter_constraints: ClassVar[dict] = {
        **SSLTransformer._parameter_constraints,
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "proj_dim": [Interval(Integral, 1, None, closed="left")],
        "hidden_dim": [Interval(Integral, 1, None, closed="left"), None],
        "label_noise": [Interval(Real, 0, 1, closed="both")],
    }

    @property
    def uses_labels(self) -> bool:
        """Always true."""
        return True

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        net.projector = MLP((dim, self.hidden_dim or dim, self.proj_dim), norm=False)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        z = torch.stack(net.project(batch.views), dim=1)  # (n, views, d)
        assert batch.labels is not None  # this method uses labels
        return {"sup_con": sup_con(all_gather(z), all_gather(batch.labels), self.temperature)}

    def _encode_labels(self, y: Any, images: Images, X: Any = None) -> Tensor | None:
        """Replace the share `label_noise` of the classes by the same wrong ones in every call."""
        labels = super()._encode_labels(y, images, X)
        assert labels is not None  # this method uses labels
        return corrupt(labels, self.label_noise, np.random.default_rng(self.net_.seed))


def corrupt(labels: Tensor, share: float, draw: np.random.Generator) -> Tensor:
    """Replace a share of the known classes by wrong ones, drawn uniformly.

    Parameters
    ----------
    labels : int64 Tensor of shape (n,)
        Classes from 0, -1 where unknown.
    share : float
        Share in [0, 1]. ``round(share * known)`` classes are replaced, unless there is only one class.
    draw : numpy.random.Generator
        Generator of the random numbers.

    Returns
    -------
    int64 Tensor of shape (n,)
        The noisy classes.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from skssl.methods.supcon import corrupt
    >>> corrupt(torch.tensor([0, -1, 1]), 1.0, np.random.default_rng(0))
    tensor([ 1, -1,  0])
    """
    known, n_classes = np.flatnonzero(labels >= 0), int(labels.max()) + 1
    if not share or n_classes < 2:
        return labels
    wrong = draw.permutation(known)[: round(share * len(known))]
    noisy = labels.numpy().copy()
    noisy[wrong] = (noisy[wrong] + draw.integers(1, n_classes, len(wrong))) % n_classes
    return torch.from_numpy(noisy)
