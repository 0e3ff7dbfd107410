"""LeOCLR: contrast random crops with the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import ClassVar

from sklearn.utils._param_validation import StrOptions
from torch import Tensor

from skssl.augment.augmentation import Augmentation
from skssl.losses import nt_xent
from skssl.methods.queue import QueueMethod
from skssl.methods.settings import Settings
from skssl.nn.distributed import all_gather
from skssl.training.objective import Batch, Objective

CROP = ("crop_scale", "crop_ratio", "crop_padding", "saliency")  # parameters of the crop
WHOLE = Augmentation(crop_scale=None)


@dataclass(kw_only=True, eq=False, repr=False)
class LeOCLR(QueueMethod):
    """LeOCLR: contrastive learning of random crops with the original image.

    The whole image is the query, and two random crops of it are the keys. The crops are not compared with each other,
    since they may show different objects. The first view is not cropped, but flipped and colour-jittered like the
    others. A step encodes three views. The queue receives the keys of both crops; the paper does not say which keys it
    uses.

    Parameters
    ----------
    encoder : {"momentum", "end-to-end"}, default="momentum"
        "momentum" takes the keys from a momentum copy and the negatives from a queue, as MoCo does. "end-to-end"
        encodes all views with one network and takes the negatives from the batch, as SimCLR does. It also propagates
        the gradient through the crops: the paper's ablation says that both encoders are trained, although equation 3
        stops the gradient of the keys. `queue_size`, `bn_splits`, `ema_momentum` and `ema_schedule` are then not used.
    crop_original : bool, default=False
        Whether the first view is cropped as the second is. False leaves it whole whatever `augment` is, except that a
        sequence of augmentations, or a transform of another library, is used as given. The paper compares both.
    temperature : float, default=0.2
        Temperature of the softmax over similarities. The paper does not state it; 0.2 is MoCo v2's.

    References
    ----------
    LeOCLR: Leveraging Original Images for Contrastive Learning of Visual Representations, arXiv:2403.06813, equations 1
    to 3 and algorithm 1; the end-to-end form is that of table 4. The loss is the sum of two terms. Everything else is
    as in `MoCo`. The paper reports 73.9 % for MoCo v2 on CIFAR-10, far less than MoCo reaches there, so compare with
    `MoCo` in the same setting.

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
    crop_original: bool = False

    default_settings: ClassVar[Settings] = replace(QueueMethod.default_settings, augment="leoclr")
    _parameter_constraints: ClassVar[dict] = {
        **QueueMethod._parameter_constraints,
        "encoder": [StrOptions({"momentum", "end-to-end"})],
        "crop_original": ["boolean"],
    }

    @property
    def n_views(self) -> int:
        """The whole image and two crops."""
        return 3

    def _augmentations(self, side: int) -> list[Augmentation]:
        """Return one augmentation for each view. The crop of the first follows `crop_original`."""
        first, *crops = super()._augmentations(side)
        augment = self.setting("augment")
        if isinstance(augment, Sequence) and not isinstance(augment, str):
            return [first, *crops]
        source = crops[0] if self.crop_original else WHOLE
        return [copy(first).set_params(**{name: getattr(source, name) for name in CROP}), *crops]

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
