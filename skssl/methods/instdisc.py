"""InstDisc: every image is a class of its own, whose weight vector is a memory of the image."""

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
    """InstDisc (NPID): tell every image from all others by its vector in a memory bank.

    One view an image. Its vector in the bank follows its embeddings; where an epoch's last, shorter batch leaves an
    image out, its vector stays.

    Parameters
    ----------
    loss : {"nce", "softmax"}, default="nce"
        Noise-contrastive estimation with negatives that are drawn from the bank, or the softmax over all images.
    temperature : float, default=0.1
        Of the cosines. ImageNet: 0.07.
    n_negatives : int, default=4096
        Negatives an image, for "nce", drawn with replacement.
    normalizer : {"batch", "first"}, default="batch"
        What the exponentials are divided by to be probabilities: a value estimated on each batch, or the first batch's
        for good, as in the papers' code. The first's is too low once embeddings gather, whereupon all images repel.
    bank_momentum : float, default=0.5
        What a vector keeps of itself when its image is seen.
    proj_dim : int, default=128
        Width of the embedding, which is one linear layer.

    References
    ----------
    Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018, equations 2 to 8;
    settings of the reference code for CIFAR-10, but for the rate's course: it has a tenth from 60 and 80 % of the
    training on. The proximal term of equation 9 is not in that code, nor here.

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
