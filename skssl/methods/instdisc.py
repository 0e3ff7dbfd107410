"""InstDisc: classify each image as its own class, with a memory bank."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.methods.memory_bank import MemoryBankMethod
from skssl.methods.settings import Settings
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class InstDisc(MemoryBankMethod):
    """InstDisc (NPID): non-parametric instance discrimination with a memory bank.

    Every image is its own class. One view of it is compared with the image's vector in the memory bank and with the
    vectors of other images. The vector is a running mean of the image's embeddings. It is not updated in an epoch whose
    last, smaller batch leaves the image out.

    Parameters
    ----------
    loss : {"nce", "softmax"}, default="nce"
        "nce" is noise-contrastive estimation with negatives drawn from the bank, "softmax" is the softmax over all
        images.
    temperature : float, default=0.1
        Temperature of the cosine similarities, 0.07 on ImageNet.

    References
    ----------
    Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018, equations 2 to 8.
    The settings are those of the reference code for CIFAR-10 except for the schedule: here the learning rate drops
    after 60 % and 80 % of the training. The proximal term of equation 9 is not in the reference code and not
    implemented.

    Examples
    --------
    >>> from skssl import InstDisc
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = InstDisc(backbone="convnet", n_negatives=32, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.net_.module_.bank.items.shape
    torch.Size([64, 128])
    """

    loss: str = "nce"
    temperature: float = 0.1

    default_settings: ClassVar[Settings] = Settings(
        augment="instdisc",
        optimizer="sgd",
        lr=0.06,
        weight_decay=5e-4,
        schedule="step",
        warmup=0.0,
        aux_weight=1.0,
    )
    _parameter_constraints: ClassVar[dict] = {
        **MemoryBankMethod._parameter_constraints,
        "loss": [StrOptions({"nce", "softmax"})],
        "temperature": [Interval(Real, 0, None, closed="neither")],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        net.projector = nn.Linear(dim, self.proj_dim)
        super().build(net, dim, n_samples)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        (view,) = batch.views
        v = net.projector(net.encoder(view))
        if self.loss == "softmax":
            loss = F.cross_entropy(net.bank.scores(v) / self.temperature, batch.index)
        else:
            loss = self.nce(net, v, batch.index, self.temperature)
        net.bank.update(batch.index, v)
        return {self.loss: loss}
