"""SpotArtifacts: tell autoencoded images from damaged and repaired ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.augment.augmentation import Augmentation
from skssl.backbones import feature_map, map_channels
from skssl.methods.base import SSLTransformer
from skssl.methods.settings import Settings
from skssl.nn.adversarial import frozen_forward
from skssl.nn.autoencoder import Autoencoder, Repair
from skssl.nn.distributed import all_reduce_mean
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class SpotArtifacts(SSLTransformer):
    """SpotArtifacts: the encoder is a discriminator that tells images from images with artifacts.

    An autoencoder is trained first, and then frozen. Random entries of its code, which is a map, are dropped and
    replaced by the mean of their neighbours. The frozen decoder, with repair layers between its layers, makes an image
    with artifacts from this code. The encoder is trained to tell it from the autoencoded image, and to predict which
    entries were dropped. The repair layers are trained to make it err. `transform` returns the features of the encoder.

    Parameters
    ----------
    pretrain_epochs : int, default=None
        Epochs in which the autoencoder is trained, and the encoder is not. None is half of `epochs`.
    drop_rate : float, default=0.6
        Probability with which an entry of the code is dropped.
    depth : int, default=3
        Number of times that the autoencoder halves the sides of the images. The code has 4 for 96 pixels.
    width : int, default=32
        Channels of the autoencoder's first map, doubled with each halving.
    mask_weight : float, default=0.1
        Weight of the loss that predicts the dropped entries.
    repair_weight : float, default=7.5
        Weight of the mean squared error of the pixels of kept entries. It is 30 in the code for images in [-1, 1],
        which have half the deviation of normalised views.

    References
    ----------
    Jenni and Favaro, Self-Supervised Feature Learning by Learning to Spot Artifacts, CVPR 2018. Networks, losses,
    weights and the simultaneous update of both players are those of the code for STL-10. Ours are the discriminator, a
    linear layer on the features of any backbone and a convolution of its last map, resized to the code; an autoencoder
    without a final tanh, as views are normalised; AdamW and a cosine schedule over both phases, for Adam and two
    linear ones; and `depth`. The losses in the history are weighted.

    Examples
    --------
    >>> from skssl import SpotArtifacts
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = SpotArtifacts(backbone="convnet", width=8, epochs=2, batch_size=32, random_state=0).fit(X)
    >>> encoder.transform(X).shape
    (64, 128)
    """

    pretrain_epochs: int | None = None
    drop_rate: float = 0.6
    depth: int = 3
    width: int = 32
    mask_weight: float = 0.1
    repair_weight: float = 7.5
    momentum: float = 0.5

    default_settings: ClassVar[Settings] = Settings(
        augment=Augmentation(crop_scale=(1 / 3, 1.0), jitter=0.0, gray=0.0),
        optimizer="adamw",
        lr=3e-4,
        weight_decay=5e-5,
        schedule="cosine",
        warmup=0.0,
        aux_weight=1.0,
    )
    _parameter_constraints: ClassVar[dict] = {
        **SSLTransformer._parameter_constraints,
        "pretrain_epochs": [Interval(Integral, 0, None, closed="left"), None],
        "drop_rate": [Interval(Real, 0, 1, closed="neither")],
        "depth": [Interval(Integral, 1, 8, closed="both")],
        "width": [Interval(Integral, 1, None, closed="left")],
        "mask_weight": [Interval(Real, 0, None, closed="left")],
        "repair_weight": [Interval(Real, 0, None, closed="left")],
    }

    @property
    def n_views(self) -> int:
        """One view."""
        return 1

    @property
    def chance(self) -> dict[str, float]:
        """The accuracy of a random guess, and of the guess that no entry is dropped, by the name of the measure."""
        return {"discriminator_accuracy": 1 / 2, "mask_accuracy": 1 - self.drop_rate / 2}

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        net.autoencoder = Autoencoder(net.shape[0], self.width, self.depth)
        net.repair = nn.ModuleList(Repair(width) for width in reversed(net.autoencoder.widths))
        net.discriminator_head = nn.Linear(dim, 1)
        net.mask_head = nn.Conv2d(map_channels(net.encoder, net.shape), 1, 3, padding=1)

    def phase(self, net: Objective, epoch: int) -> bool:
        """Return whether the autoencoder is trained."""
        return epoch < (self.epochs // 2 if self.pretrain_epochs is None else self.pretrain_epochs)

    def before_epoch(self, net: Objective, epoch: int, encode: Callable[[nn.Module], Tensor]) -> None:
        """Freeze the autoencoder after its epochs."""
        net.autoencoder.requires_grad_(self.phase(net, epoch))

    def prepare(self, net: Objective, batch: Batch) -> None:
        """Set the mode of the autoencoder, whose statistics are frozen with it."""
        if net.autoencoder.training != net.phase:
            net.autoencoder.train(net.phase)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        view, autoencoder = batch.views[0], net.autoencoder
        if net.phase:
            return {"reconstruction": (autoencoder(view).float() - view).square().mean()}
        size = view.shape[2:]
        with torch.no_grad():
            code = autoencoder.encode(view)
            real = autoencoder.decode(code, size).float()
        mask = (torch.rand(len(code), 1, *code.shape[2:], device=code.device) >= self.drop_rate).to(code.dtype)
        mean = F.avg_pool2d(code, 3, stride=1, padding=1, count_include_pad=False)
        made = autoencoder.decode(mask * code + (1 - mask) * mean, size, net.repair, mask).float()

        features, grid = feature_map(net.encoder, torch.cat([real, made.detach()]))  # of both, for BatchNorm
        scores = net.discriminator_head(features).squeeze(1).float()
        is_real = torch.cat([torch.ones_like(scores[: len(view)]), torch.zeros_like(scores[len(view) :])])
        predicted = F.interpolate(net.mask_head(grid).float(), mask.shape[2:], mode="bilinear")
        mask = mask.float()
        is_kept = torch.cat([torch.ones_like(mask), mask])
        told = F.binary_cross_entropy_with_logits(scores, is_real)
        found = F.binary_cross_entropy_with_logits(predicted, is_kept)

        features = frozen_forward(net.encoder, torch.cat([real, made]))
        scores_of_made = frozen_forward(net.discriminator_head, features).squeeze(1).float()
        fooled = F.binary_cross_entropy_with_logits(scores_of_made, 1 - is_real)
        kept = F.interpolate(mask, size)
        error = (kept * (made - view).square()).mean() / all_reduce_mean(kept.mean()).clamp(min=1e-6)
        return {
            "discriminator": told,
            "mask": self.mask_weight * found,
            "adversarial": fooled,
            "reconstruction": self.repair_weight * error,
            "discriminator_accuracy": ((scores > 0) == is_real.bool()).float().mean(),
            "mask_accuracy": ((predicted > 0) == is_kept.bool()).float().mean(),
        }
