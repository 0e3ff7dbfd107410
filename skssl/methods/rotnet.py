"""RotNet: rotation prediction as a method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.methods.pretext import PretextMethod
from skssl.pretext.rotation import Rotation, corrupt_labels, inner_square, rotate_among
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
