"""SimCLR: two views of an image attract each other, all other images repel."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar

from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from skssl.losses import nt_xent
from skssl.methods.base import SSLTransformer
from skssl.methods.settings import Settings
from skssl.nn.distributed import all_gather
from skssl.nn.heads import MLP
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class SimCLR(SSLTransformer):
    """SimCLR: contrastive learning of two views of every image against all others of the batch.

    Parameters
    ----------
    temperature : float, default=0.2
        Of the softmax over similarities; lower weighs the hardest negatives more.
    proj_dim : int, default=128
        Width of the projector's output.
    hidden_dim : int, default=None
        Width of its hidden layers. None is the encoder's width, but at least 256.
    proj_layers : int, default=2
        Its layers. SimCLRv2 has 3.
    false_negatives : {"keep", "remove"}, default="keep"
        "remove" needs y, -1 where unknown: two images of the same known class do not repel each other (nor do they
        attract).

    References
    ----------
    Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020. The projector is
    that of the reference code: no biases, BatchNorm after both layers (the last has a shift here, but not there).
    Negatives and BatchNorm's statistics are those of the whole batch, on all devices. The temperature is what EffSSL
    (ECCV 2022, section 4.1) found on CIFAR-10; learning rate and weight decay, which it does not state in full, are
    ours for momentum SGD. The removal of false negatives is EffSSL's, section 3.1; SimCLRv2: Chen et al., Big
    Self-Supervised Models are Strong Semi-Supervised Learners, NeurIPS 2020. `transform` gives the features
    below the projector, as in version 1; ``FineTuner(layer="projector1")`` begins within it, as version 2 does.

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
    }

    @property
    def uses_labels(self) -> bool:
        """Whether y says which negatives are false."""
        return self.false_negatives == "remove"

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        hidden = self.hidden_dim or max(dim, 256)
        dims = (dim, *[hidden] * (self.proj_layers - 1), self.proj_dim)
        net.projector = MLP(dims, output_norm=True, output_affine=True)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        z1, z2 = net.project(batch.views)  # BatchNorm sees both views at once
        y = None if batch.labels is None else all_gather(batch.labels)
        return {"nt_xent": nt_xent(all_gather(z1), all_gather(z2), self.temperature, y)}
