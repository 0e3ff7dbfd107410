"""SimCLR: contrast two views of each image with all other images of the batch."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from skssl.images import Images
from skssl.images.labels import label_fraction
from skssl.losses import nt_xent
from skssl.methods.base import SSLTransformer
from skssl.methods.settings import Settings
from skssl.nn.distributed import all_gather
from skssl.nn.heads import MLP
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class SimCLR(SSLTransformer):
    """SimCLR: contrastive learning of two views of every image against all other images of the batch.

    Parameters
    ----------
    temperature : float, default=0.2
        Temperature of the softmax over similarities. Lower values weight the hardest negatives more.
    proj_dim : int, default=128
        Width of the projector's output.
    hidden_dim : int, default=None
        Width of the projector's hidden layers. None is the encoder's width, but at least 256.
    proj_layers : int, default=2
        Layers of the projector. SimCLRv2 has 3.
    false_negatives : {"keep", "remove"}, default="keep"
        "remove" excludes images of the same known class from the negatives; they do not become positives. It requires
        y, which is -1 where the class is unknown.
    label_fraction : float in [0, 1], default=1.0
        Fraction of the labels in y that ``false_negatives="remove"`` uses, as kept by `skssl.label_fraction`: the same
        number of each class, drawn from `random_state`. A probe behind the method has all labels.

    References
    ----------
    Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020. The projector is that
    of the reference code: no biases, BatchNorm after both layers (here the last one has a shift). Negatives and
    BatchNorm's statistics come from the whole batch over all devices. The temperature is EffSSL's for CIFAR-10 (ECCV
    2022, section 4.1). EffSSL does not state the learning rate and weight decay in full; ours are for momentum SGD. The
    removal of false negatives is EffSSL's, section 3.1 and table 2; it does not state how the labels are drawn.
    SimCLRv2: Chen et al., Big Self-Supervised Models are Strong Semi-Supervised Learners, NeurIPS 2020. `transform`
    returns the features before the projector, as in version 1; ``FineTuner(layer="projector1")`` starts from the
    projector's first layer, as version 2 does.

    Examples
    --------
    >>> from skssl import SimCLR
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = SimCLR(backbone="convnet", epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 128)
    """

    temperature: float = 0.2
    proj_dim: int = 128
    hidden_dim: int | None = None
    proj_layers: int = 2
    false_negatives: str = "keep"
    label_fraction: float = 1.0

    default_settings: ClassVar[Settings] = Settings(
        augment="simclr",
        optimizer="sgd",
        lr=0.4,
        weight_decay=5e-4,
        schedule="cosine",
        warmup=0.05,
        aux_weight=1.0,
    )
    _parameter_constraints: ClassVar[dict] = {
        **SSLTransformer._parameter_constraints,
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "proj_dim": [Interval(Integral, 1, None, closed="left")],
        "hidden_dim": [Interval(Integral, 1, None, closed="left"), None],
        "proj_layers": [Interval(Integral, 1, 100, closed="both")],
        "false_negatives": [StrOptions({"keep", "remove"})],
        "label_fraction": [Interval(Real, 0, 1, closed="both")],
    }

    @property
    def uses_labels(self) -> bool:
        """Whether y is used to remove false negatives."""
        return self.false_negatives == "remove"

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        hidden = self.hidden_dim or max(dim, 256)
        dims = (dim, *[hidden] * (self.proj_layers - 1), self.proj_dim)
        net.projector = MLP(dims, output_norm=True, output_affine=True)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        z1, z2 = net.project(batch.views)  # BatchNorm sees both views at once
        y = None if batch.labels is None else all_gather(batch.labels)
        return self.contrast(all_gather(z1), all_gather(z2), y)

    def contrast(self, z1: Tensor, z2: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        """Compute the loss of the projections of two views of the whole batch."""
        return {"nt_xent": nt_xent(z1, z2, self.temperature, y)}

    def _encode_labels(self, y: Any, images: Images, X: Any = None) -> Tensor | None:
        """Keep the share `label_fraction` of the known labels, the same ones in every call."""
        labels = super()._encode_labels(y, images, X)
        if labels is None or self.label_fraction == 1:
            return labels
        if self.label_fraction == 0:
            return torch.full_like(labels, -1)
        return torch.from_numpy(label_fraction(labels, self.label_fraction, self.net_.seed))
