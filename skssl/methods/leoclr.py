"""LeOCLR: attract random crops to the whole image they are of, rather than to each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from sklearn.utils._param_validation import StrOptions
from torch import Tensor

from skssl.losses import nt_xent
from skssl.methods.queue import QueueMethod
from skssl.methods.settings import Settings
from skssl.nn.distributed import all_gather
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class LeOCLR(QueueMethod):
    """LeOCLR: the whole image is the query, two random crops of it are the keys.

    The crops are never attracted to each other, which may show different things. The first view is not cropped, but
    flipped and coloured as the others are. A step takes three views.

    Parameters
    ----------
    encoder : {"momentum", "end-to-end"}, default="momentum"
        Whether keys come from a momentum copy, with a queue of past keys as negatives (MoCo's form), or all views
        from one network, with the batch as negatives (SimCLR's form). In the second the gradient flows into the crops,
        too: the ablation says that both encoders are trained, although equation 3 has the keys fixed. The parameters
        of queue, groups and copy are then not used.
    proj_dim : int, default=128
        Width of the projector's output.
    proj_layers : int, default=2
        Its layers, with ReLU and no BatchNorm.
    temperature : float, default=0.2
        Of the softmax over similarities; MoCo v2's, as the paper names none.
    queue_size : int, default=4096
        Keys that serve as negatives, never more than a quarter of the training images. The queue takes the keys
        of both crops, about which the paper says nothing.
    bn_splits : int, default=8
        Groups of the batch that BatchNorm normalises by themselves, as in `MoCo`.
    ema_momentum : float, default=0.99
        What the copy keeps of itself in a step; on ImageNet 0.999.
    ema_schedule : {"constant", "cosine"}, default="constant"
        Whether it stays or rises to 1 by the training's end.

    References
    ----------
    LeOCLR: Leveraging Original Images for Contrastive Learning of Visual Representations, arXiv:2403.06813, equations 1
    to 3 and algorithm 1, and the end-to-end form of its table 4. The loss is the sum of two terms. The rest is as in
    `MoCo`. On CIFAR-10 the paper's MoCo v2 reaches 73.9 %, far less than MoCo can there: compare with a `MoCo` of your
    own.

    Examples
    --------
    >>> from skssl import LeOCLR
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = LeOCLR(backbone="convnet", bn_splits=2, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 128)
    """

    encoder: str = "momentum"

    default_settings: ClassVar[Settings] = replace(QueueMethod.default_settings, augment="leoclr")
    _parameter_constraints: ClassVar[dict] = {
        **QueueMethod._parameter_constraints,
        "encoder": [StrOptions({"momentum", "end-to-end"})],
    }

    @property
    def n_views(self) -> int:
        """The whole image and two crops."""
        return 3

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        if self.encoder == "momentum":
            super().build(net, dim, n_samples)
        else:
            net.projector = self.head(dim)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        whole, *crops = batch.views
        if self.encoder == "momentum":
            (u,) = self.queries(net, whole)
            return {"info_nce": self.contrast(net, [u, u], [self.keys(net, crop)[0] for crop in crops])}
        u, v1, v2 = (all_gather(z) for z in net.project(batch.views))
        return {"nt_xent": nt_xent(u, v1, self.temperature) + nt_xent(u, v2, self.temperature)}

    def after_step(self, net: Objective, step: int, progress: float) -> None:  # noqa: D102
        if self.encoder == "momentum":
            super().after_step(net, step, progress)
