"""NNCLR: contrast with the nearest neighbour of a view in a queue of past embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar

from sklearn.utils._param_validation import Interval
from torch import Tensor
from torch.nn import functional as F

from skssl.losses import info_nce
from skssl.methods.base import SSLTransformer
from skssl.methods.settings import Settings
from skssl.nn.distributed import all_gather
from skssl.nn.heads import MLP
from skssl.nn.memories import Queue
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class NNCLR(SSLTransformer):
    """NNCLR: contrastive learning whose positives are nearest neighbours from other images.

    The projection of one view is replaced by the most similar projection in a queue of past batches, the support set.
    The prediction from the other view is its positive, and the predictions of the other images are the negatives. So
    the positives vary more than two views of one image do, and weaker augmentation suffices.

    Parameters
    ----------
    temperature : float, default=0.2
        Temperature of the softmax over similarities: solo-learn's value for CIFAR.
    queue_size : int, default=4096
        Past projections among which the neighbours are searched, 65536 in solo-learn. It need not be a multiple of
        `batch_size`.
    hidden_dim : int, default=2048
        Width of the projector's hidden layers.
    proj_dim : int, default=256
        Width of the projector's output.
    proj_layers : int, default=3
        Layers of the projector. lightly has 2 on CIFAR-10.
    pred_dim : int, default=4096
        Width of the predictor's hidden layer.

    References
    ----------
    Dwibedi et al., With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning of Visual Representations,
    ICCV 2021. The widths are solo-learn's for CIFAR. The queue, learning rate and weight decay are lightly's for
    CIFAR-10. The queue receives the projections of the first view, as in the paper and solo-learn. lightly's loss also
    has the neighbours of the other images as negatives.

    Examples
    --------
    >>> from skssl import NNCLR
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> small = {"backbone": "convnet", "queue_size": 64, "hidden_dim": 64, "pred_dim": 64}
    >>> encoder = NNCLR(**small, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 128)
    """

    temperature: float = 0.2
    queue_size: int = 4096
    hidden_dim: int = 2048
    proj_dim: int = 256
    proj_layers: int = 3
    pred_dim: int = 4096

    default_settings: ClassVar[Settings] = Settings(
        augment="simclr",
        optimizer="sgd",
        lr=0.12,
        weight_decay=5e-4,
        schedule="cosine",
        warmup=0.05,
        aux_weight=1.0,
    )
    _parameter_constraints: ClassVar[dict] = {
        **SSLTransformer._parameter_constraints,
        "temperature": [Interval(Real, 0, None, closed="neither")],
        **{name: [Interval(Integral, 1, None, closed="left")] for name in ("queue_size", "hidden_dim", "proj_dim")},
        "proj_layers": [Interval(Integral, 1, 100, closed="both")],
        "pred_dim": [Interval(Integral, 1, None, closed="left")],
    }

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        dims = (dim, *[self.hidden_dim] * (self.proj_layers - 1), self.proj_dim)
        net.projector = MLP(dims, output_norm=True, output_affine=True)
        net.predictor = MLP((self.proj_dim, self.pred_dim, self.proj_dim))
        net.queue = Queue(self.queue_size, self.proj_dim)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        z = [net.projector(net.encoder(view)) for view in batch.views]  # BatchNorm sees one view at a time
        p1, p2 = (all_gather(net.predictor(projection)) for projection in z)
        z1, z2 = (F.normalize(all_gather(part.detach()).to(net.queue.items.dtype), dim=1) for part in z)
        n1, n2 = net.queue.nearest(z1), net.queue.nearest(z2)
        net.queue.push(z1)
        return {"info_nce": (info_nce(n1, p2, None, self.temperature) + info_nce(n2, p1, None, self.temperature)) / 2}
