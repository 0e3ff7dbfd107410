"""ReSSL: match the similarities of two views to a queue of past keys."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import ClassVar

from sklearn.utils._param_validation import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.losses import ressl
from skssl.methods.queue import QueueMethod
from skssl.methods.settings import Settings
from skssl.nn.distributed import all_gather
from skssl.nn.heads import MLP
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class ReSSL(QueueMethod):
    """ReSSL: relational self-supervised learning with weak augmentation.

    The distribution of a view's similarities to a queue of past keys matches that of a second view by a momentum copy.
    Other images are not negatives, so similar images may stay similar. The second view is only cropped and flipped, so
    that its relations are reliable.

    Parameters
    ----------
    temperature : float, default=0.1
        Temperature of the softmax over the first view's similarities.
    teacher_temperature : float, default=0.04
        Temperature of the softmax over the second view's similarities. It is lower, so that the targets are sharper.
    hidden_dim : int, default=4096
        Width of the projector's hidden layer.
    proj_dim : int, default=256
        Width of the projector's output, 512 on ImageNet.
    ema_momentum : float, default=0.99
        Momentum of the copy: the share of its weights that it keeps in a step, 0.999 on ImageNet.

    References
    ----------
    Zheng et al., ReSSL: Relational Self-Supervised Learning with Weak Augmentation, NeurIPS 2021. Heads, temperatures,
    learning rate and weight decay are those of the authors' code, and also solo-learn's for CIFAR, except for
    `proj_dim`, which is solo-learn's. The momentum copy is updated after the optimiser's step; the code updates it at
    the beginning of the next step.

    Examples
    --------
    >>> from skssl import ReSSL
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> small = {"backbone": "convnet", "hidden_dim": 64, "bn_splits": 2}
    >>> encoder = ReSSL(**small, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 128)
    """

    temperature: float = 0.1
    teacher_temperature: float = 0.04
    hidden_dim: int = 4096
    proj_dim: int = 256

    default_settings: ClassVar[Settings] = replace(
        QueueMethod.default_settings, augment="ressl", lr=0.05, weight_decay=1e-4, schedule="cosine", warmup=0.025
    )
    _parameter_constraints: ClassVar[dict] = {
        **QueueMethod._parameter_constraints,
        "teacher_temperature": [Interval(Real, 0, None, closed="neither")],
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
    }

    def head(self, dim: int) -> nn.Module:
        """Make a projector with hidden layers of `hidden_dim`, with biases and without BatchNorm."""
        return MLP((dim, *[self.hidden_dim] * (self.proj_layers - 1), self.proj_dim), norm=False)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        strong, weak = batch.views
        (q,), (k,) = self.queries(net, strong), self.keys(net, weak)
        loss = ressl(q, k, net.queue.items, self.temperature, self.teacher_temperature)
        net.queue.push(F.normalize(all_gather(k).float(), dim=1))
        return {"ressl": loss}
