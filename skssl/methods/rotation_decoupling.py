"""Rotation decoupling: half of the features predicts the rotation, half discriminates images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.augment.geometry import rotate_quarter
from skssl.losses import nt_xent
from skssl.methods.memory_bank import MemoryBankMethod
from skssl.methods.settings import Settings
from skssl.nn.distributed import all_gather
from skssl.nn.heads import MLP
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class RotationDecoupling(MemoryBankMethod):
    """Rotation feature decoupling: half of the features predicts rotation, half discriminates images at any rotation.

    All four rotations of an image are in the same batch, so a step encodes four times `batch_size` images. The history
    has the accuracy of the rotation classifier on its own half and on the second half, where it should be at chance.

    Parameters
    ----------
    loss : {"nce", "nt_xent"}, default="nce"
        Loss that discriminates images. "nce" compares the mean of the rotations' second halves with a memory bank, as
        `InstDisc` does, and minimises the distance of each second half to that mean. "nt_xent" is SimCLR's loss of each
        rotation's second half and the mean, summed over rotations; the distance is only recorded.
    temperature : float, default=None
        Temperature of the cosine similarities. None is 0.07 for "nce" and 0.1 for "nt_xent".
    pu_weights : array-like of shape (n_samples, 4), default=None
        Weights of the rotation's cross-entropy for each image and number of quarter turns, which are not normalised.
        The paper uses 1 for the upright image and 1 - p^2 for a rotated one, where p is the probability that it is
        upright. `RotNet.pu_weights` estimates them. None weights all equally.
    pu_start : float, default=6/7
        Share of the training after which `pu_weights` are used (epoch 210 of 245 in the paper).

    References
    ----------
    Feng et al., Self-Supervised Representation Learning by Rotation Feature Decoupling, CVPR 2019, equations 3 to 9.
    The paper's invariance loss is a mean of distances; its code and this implementation use a mean over elements.
    Augmentation and schedule are RotNet's; in the reference code the learning rate falls to 1e-5 and rises again when
    the weights are introduced. Momentum is plain, not Nesterov's. The features must be outputs of a ReLU, as for all
    named backbones. "nt_xent" is Improving Feature Decoupling's, with normalisation after the projection as in its
    code; its text normalises before.

    Examples
    --------
    >>> from skssl import RotationDecoupling
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = RotationDecoupling(backbone="convnet", n_negatives=32, epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.history_.columns[1:5].tolist()
    ['loss', 'turn', 'turn_accuracy', 'still_turn_accuracy']

    The paper's weights, estimated by a RotNet on images that it was not trained on:

    >>> import numpy as np
    >>> from sklearn.base import clone
    >>> from sklearn.model_selection import KFold
    >>> from skssl import RotNet
    >>> rotnet = RotNet(backbone="convnet", epochs=1, batch_size=16, random_state=0)
    >>> weights = np.ones((64, 4))
    >>> for train, test in KFold(2, shuffle=True, random_state=0).split(X):
    ...     weights[test] = clone(rotnet).fit(X[train]).pu_weights(X[test])
    >>> weighted = clone(encoder).set_params(pu_weights=weights, pu_start=0.0).fit(X)
    """

    loss: str = "nce"
    temperature: float | None = None
    pu_weights: Any = None
    pu_start: float = 6 / 7

    default_settings: ClassVar[Settings] = Settings(
        augment="rotnet",
        optimizer="sgd",
        lr=0.02,
        weight_decay=5e-4,
        schedule="step",
        warmup=0.0,
        aux_weight=1.0,
    )
    _parameter_constraints: ClassVar[dict] = {
        **MemoryBankMethod._parameter_constraints,
        "loss": [StrOptions({"nce", "nt_xent"})],
        "temperature": [Interval(Real, 0, None, closed="neither"), None],
        "pu_weights": ["array-like", None],
        "pu_start": [Interval(Real, 0, 1, closed="both")],
    }

    @property
    def chance(self) -> dict[str, float]:
        """The accuracy of a random guess, by the name of the measure."""
        return {"turn_accuracy": 1 / 4, "still_turn_accuracy": 1 / 4}

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        if dim % 2:
            raise ValueError(
                f"RotationDecoupling expects a backbone with an even number of features, which it halves. Got {dim}."
            )
        half = dim // 2
        hidden = () if self.loss == "nce" else (max(half // 2, 1),)
        net.turn_classifier = MLP((half, *hidden, 4), norm=False)
        net.image_head = MLP((half, *hidden, self.proj_dim), norm=False)
        if self.loss == "nce":
            super().build(net, dim, n_samples)
        net.register_buffer("pu_weights", self._weights(n_samples))
        net.register_buffer("pu_counts", torch.zeros(()))  # 1 from pu_start on

    def before_epoch(self, net: Objective, epoch: int, encode: Callable[[nn.Module], Tensor]) -> None:
        """Use `pu_weights` from `pu_start` on."""
        net.pu_counts.fill_(epoch >= self.pu_start * self.epochs)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        (view,) = batch.views
        label = torch.arange(4, device=view.device).repeat_interleave(len(view))  # ordered by rotation, then by image
        turning, still = net.encoder(rotate_quarter(view.repeat(4, 1, 1, 1), label)).chunk(2, dim=1)
        scores = net.turn_classifier(turning).float()  # (4 n, 4)
        turn = F.cross_entropy(scores, label, reduction="none")
        if net.pu_weights is not None:
            weights = net.pu_weights[batch.index].T.flatten()
            turn = turn * torch.lerp(torch.ones_like(weights), weights, net.pu_counts)
        mean = still.unflatten(0, (4, -1)).mean(0)  # (n, d)
        # Detaching the mean does not change the gradient.
        invariance = F.mse_loss(still.float(), mean.detach().float().repeat(4, 1))
        return {
            "turn": turn.mean(),
            "turn_accuracy": _accuracy(scores, label),
            "still_turn_accuracy": _accuracy(net.turn_classifier(still.detach()), label),
            "invariance": invariance if self.loss == "nce" else invariance.detach(),
            self.loss: self._tell_images_apart(net, batch.index, still, mean),
        }

    def _tell_images_apart(self, net: Objective, index: Tensor, still: Tensor, mean: Tensor) -> Tensor:
        """Compare the mean over rotations with the bank, or each rotation with the mean."""
        if self.loss == "nce":
            v = net.image_head(mean)
            loss = self.nce(net, v, index, self.temperature or 0.07)
            net.bank.update(index, v)
            return loss
        *turns, whole = (all_gather(z) for z in net.image_head(torch.cat([still, mean])).chunk(5))
        return torch.stack([nt_xent(z, whole, self.temperature or 0.1) for z in turns]).sum()

    def _weights(self, n_samples: int) -> Tensor | None:
        """Return `pu_weights` as a tensor, after checking them."""
        if self.pu_weights is None:
            return None
        weights = np.asarray(self.pu_weights, dtype=np.float32)
        if weights.shape != (n_samples, 4) or not np.isfinite(weights).all() or (weights < 0).any():
            raise ValueError(
                "The 'pu_weights' parameter of RotationDecoupling must be non-negative numbers of shape "
                f"(n_samples, 4) = ({n_samples}, 4). Got an array of shape {weights.shape} instead."
            )
        return torch.from_numpy(weights.copy())


def _accuracy(scores: Tensor, label: Tensor) -> Tensor:
    """Return the share of rows whose highest score is at the label."""
    return (scores.argmax(1) == label).float().mean()
