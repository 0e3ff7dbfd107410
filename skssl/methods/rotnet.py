"""RotNet: rotation prediction as a method."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.methods.pretext import PretextMethod
from skssl.pretext.rotation import Rotation, corrupt_labels, inner_square, rotate_among
from skssl.training.encoding import encode
from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class RotNet(PretextMethod):
    """RotNet: predict by which angle an image was rotated.

    All rotations of an image are in the same batch, so a step encodes ``len(angles)`` times `batch_size` images.

    Parameters
    ----------
    angles : tuple of float, default=(0, 90, 180, 270)
        Two or more angles in degrees, counter-clockwise. If any is not a multiple of 90, all rotations are interpolated
        and cropped, see `Rotation`.
    label_noise : float, default=0.0
        Probability that a label is replaced by a wrong one, in [0, 1], see `Rotation`.

    References
    ----------
    Gidaris et al., Unsupervised Representation Learning by Predicting Image Rotations, ICLR 2018, equations 2 and 3.
    The settings are those of the reference code for CIFAR-10, except for its Nesterov momentum. The last layers of a
    network specialise in the task: the paper's classifiers read the second of four blocks, while `transform` returns
    the pooled last map, as for every method.

    Examples
    --------
    >>> from skssl import RotNet
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = RotNet(backbone="convnet", epochs=1, batch_size=32, random_state=0).fit(X)
    >>> encoder.history_.columns[:4].tolist()
    ['epoch', 'loss', 'rotation', 'rotation_accuracy']
    """

    angles: tuple[float, ...] = (0, 90, 180, 270)
    label_noise: float = 0.0

    _parameter_constraints: ClassVar[dict] = {
        **PretextMethod._parameter_constraints,
        **{name: Rotation._parameter_constraints[name] for name in ("angles", "label_noise")},
    }

    def _validate_params(self) -> None:
        super()._validate_params()
        Rotation(angles=self.angles).validate()

    @property
    def chance(self) -> dict[str, float]:
        """The accuracy of a random guess, by the name of the measure."""
        return {"rotation_accuracy": 1 / len(self.angles)}

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        net.turn_classifier = nn.Linear(dim, len(self.angles))

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        (view,) = batch.views
        share = inner_square(self.angles)
        square = view.shape[2] == view.shape[3]
        turned = torch.cat(
            [
                torch.rot90(view, round(angle / 90), (2, 3))  # also for images that are not square
                if share is None and (square or angle % 180 == 0)
                else rotate_among(view, view.new_full((len(view),), angle), self.angles)
                for angle in self.angles
            ]
        )
        label = torch.arange(len(self.angles), device=view.device).repeat_interleave(len(view))
        scores = net.turn_classifier(net.encoder(turned)).float()  # (angles * n, angles)
        loss = F.cross_entropy(scores, corrupt_labels(label, len(self.angles), self.label_noise))
        return {"rotation": loss, "rotation_accuracy": (scores.argmax(1) == label).float().mean()}

    def pu_weights(self, X: Any, *, gamma: float = 2.0) -> np.ndarray:
        r"""Return how much each rotation of each image counts in `RotationDecoupling`.

        A rotated image that looks upright, such as a round object, is a noisy example of its rotation. The weight is

        .. math:: w_{ik} = \begin{cases} 1 & k = 0 \\ 1 - p_{ik}^\gamma & \text{otherwise,} \end{cases}

        where :math:`p_{ik}` is the probability that image i, rotated by k quarter turns, is upright: that of 0 degrees.

        Parameters
        ----------
        X : array-like, sequence of files or PIL images, path of a folder, data set or iterable
            Images of the shape that was passed to `fit`. Images that were not used in `fit` have better estimates.
        gamma : float in (0, inf), default=2.0
            The exponent. The default is that of the authors' code.

        Returns
        -------
        float32 ndarray of shape (n, 4)
            The weights by the number of quarter turns, counter-clockwise, between 0 and 1.

        Raises
        ------
        ValueError
            If `gamma` is out of range, or `angles` are not 0, 90, 180 and 270 degrees.

        References
        ----------
        Feng et al., Self-Supervised Representation Learning by Rotation Feature Decoupling, CVPR 2019. In the paper the
        probability is that of a classifier of upright (positive) and rotated (unlabelled) images. The README of its
        code takes predictions of RotNet, out of sample if possible, without saying how. The probability of 0 degrees is
        inferred.

        Examples
        --------
        >>> from skssl import RotNet
        >>> from skssl.datasets import make_shapes
        >>> X, _ = make_shapes(64, image_size=16, random_state=0)
        >>> rotnet = RotNet(backbone="convnet", epochs=1, batch_size=16, random_state=0).fit(X[:32])
        >>> weights = rotnet.pu_weights(X)
        >>> weights.shape, weights[:, 0].min()
        ((64, 4), np.float32(1.0))
        """
        check_is_fitted(self)
        if not isinstance(gamma, Real) or not gamma > 0:
            raise ValueError(f"gamma must be a number above 0. Got {gamma!r}.")
        angles = [angle % 360 for angle in self.angles]
        if sorted(angles) != [0, 90, 180, 270]:
            raise ValueError(f"pu_weights needs a RotNet of the angles 0, 90, 180 and 270. Got {self.angles}.")
        net = self.net_
        module = _ScoresOfTurns(net.module_.encoder, net.module_.turn_classifier)
        device = torch.device(net.device)
        scores = encode(module, self._read(X, reset=False), net.augmentations[0], device, net.dtype)  # (n, 16)
        upright = scores.double().unflatten(1, (4, 4)).softmax(2)[:, :, angles.index(0)].numpy()  # (n, 4)
        weights = 1 - upright**gamma
        weights[:, 0] = 1
        return weights.astype(np.float32)


class _ScoresOfTurns(nn.Module):
    """Map images (n, c, s, s) to the scores of their four quarter turns (n, 16)."""

    def __init__(self, encoder: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.encoder, self.classifier = encoder, classifier

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores of each turn, one turn after another."""
        return torch.cat([self.classifier(self.encoder(torch.rot90(images, k, (2, 3)))) for k in range(4)], dim=1)
