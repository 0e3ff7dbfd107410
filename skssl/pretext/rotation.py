"""Rotation prediction: the task of RotNet, and the auxiliary task of EffSSL."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, ClassVar

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor
from torch.nn import functional as F

from skssl.augment.blur import tap_shifts
from skssl.augment.geometry import rotate_quarter
from skssl.backbones import stages
from skssl.errors import pick
from skssl.losses import sup_con
from skssl.nn.distributed import all_gather
from skssl.nn.heads import MLP
from skssl.pretext.task import Task

if TYPE_CHECKING:
    from skssl.training.objective import Batch, Objective

BLUR_REACH = 3  # pixels on either side of a Gaussian with a standard deviation of 1


@dataclass(kw_only=True, eq=False, repr=False)
class Rotation(Task):
    """Predict the angle by which a view was rotated.

    As an auxiliary task it rotates each of the first two views by a random angle. Each rotated view goes through the
    encoder (and the projector) in a separate pass, and a two-layer head predicts the angle. The method's own loss uses
    the views without rotation.

    Parameters
    ----------
    angles : tuple of float, default=(0, 90, 180, 270)
        Two or more angles in degrees, counter-clockwise. The label is the index in this tuple. Rotations by multiples
        of 90 are exact. If another angle is given, all rotations, by 0 degrees too, are interpolated, cropped to the
        square that has no empty corners at any angle, and resized. If the angles also differ by other than quarter
        turns, all views are blurred first, see `rotate_among`. What remains is the grid of the original file, such as
        JPEG's blocks.
    label_noise : float, default=0.0
        The probability, in [0, 1], that a label is replaced by a random wrong one, drawn anew in every step. The view
        is still rotated by the true angle.
    head : {"projector", "backbone"}, default="projector"
        The input of the head: the projector's output, as in the paper's text, or the features, as in its released SwAV
        code. It is the features for a method without a projector.
    loss : {"cross_entropy", "sup_con", "cosine"}, default="cross_entropy"
        The loss. "cross_entropy" classifies the angle. "sup_con" is the supervised contrastive loss at temperature 0.1,
        whose positives are the views rotated by the same angle. "cosine" is the cosine similarity of an image's two
        views, which are rotated by different angles. The last two use a head whose output is as wide as its input.
    shared : str, default="projector"
        The last layer that the task shares with the method: "conv1", "layer1" to "layer4" (ResNets; "conv1" to "conv4"
        for the small ConvNet), "backbone" (the whole encoder) or "projector" (everything). The layers between it and
        the head are copied, and the copies are trained by the task alone. With ``head="backbone"`` the projector is not
        used, and "backbone" and "projector" are the same.

    References
    ----------
    Towards Efficient and Effective Self-Supervised Learning of Visual Representations, ECCV 2022, section 4 and
    equation 1. The losses of the two views are added, as in the released code. Angles, losses and shared layers are the
    ablations of section 5 and the supplement, which do not state the input of the head for "sup_con" and "cosine".

    Examples
    --------
    >>> from skssl import Rotation, SimCLR
    >>> SimCLR(aux=Rotation(angles=(0, 180), label_noise=0.1)).aux
    Rotation(angles=(0, 180), label_noise=0.1)
    """

    angles: tuple[float, ...] = (0, 90, 180, 270)
    label_noise: float = 0.0
    head: str = "projector"
    loss: str = "cross_entropy"
    shared: str = "projector"

    name: ClassVar[str] = "rotation"
    _parameter_constraints: ClassVar[dict] = {
        "angles": ["array-like"],
        "label_noise": [Interval(Real, 0, 1, closed="both")],
        "head": [StrOptions({"projector", "backbone"})],
        "loss": [StrOptions({"cross_entropy", "sup_con", "cosine"})],
        "shared": [str],
    }

    def _validate_params(self) -> None:
        super()._validate_params()
        finite = all(isinstance(angle, Real) and math.isfinite(angle) for angle in self.angles)
        if not finite or len({angle % 360 for angle in self.angles}) < max(len(self.angles), 2):
            raise ValueError(
                "The 'angles' parameter of Rotation must be two or more different angles in degrees. "
                f"Got {self.angles!r} instead."
            )

    @property
    def chance(self) -> dict[str, float]:
        """The accuracy of a random guess, by the name of the measure."""
        return {"rotation_accuracy": 1 / len(self.angles)}

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        on_projector = self.head == "projector" and hasattr(net, "projector")
        if self.shared not in ("projector", "backbone"):
            options = stages(net.encoder)
            pick("shared", self.shared, dict.fromkeys([*options, "backbone", "projector"]))
            names = list(options)[: list(options).index(self.shared) + 1]
            kept = {id(layer): layer for name in names for layer in options[name]}
            net.rotation_encoder = copy.deepcopy(net.encoder, kept)  # shared layers are not copied
        if on_projector and self.shared != "projector":
            net.rotation_projector = copy.deepcopy(net.projector)
        dim = net.projector.out_features if on_projector else dim
        net.rotation_head = MLP((dim, dim, len(self.angles) if self.loss == "cross_entropy" else dim))
        net.register_buffer("rotation_angles", torch.tensor(self.angles, dtype=torch.float32))

    def embed(self, net: Objective, turned: Tensor) -> Tensor:
        """Map rotated views to the input of the head, through the shared and the copied layers.

        Parameters
        ----------
        net : Objective
            The network.
        turned : Tensor of shape (n, c, s, s)
            Rotated views.

        Returns
        -------
        Tensor of shape (n, d)
            Features or projections.
        """
        features = getattr(net, "rotation_encoder", net.encoder)(turned)
        if self.head == "projector" and hasattr(net, "projector"):
            return getattr(net, "rotation_projector", net.projector)(features)
        return features

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        views = (batch.views * 2)[:2] if self.loss == "cosine" else batch.views[:2]
        n, k = len(views[0]), len(self.angles)
        outputs: list[Tensor] = []
        labels: list[Tensor] = []
        for view in views:
            if self.loss == "cosine" and labels:
                labels.append(corrupt_labels(labels[0], k, 1.0))  # an image's two views at different angles
            else:
                labels.append(torch.randint(k, (n,), device=view.device))
            turned = rotate_among(view, net.rotation_angles[labels[-1]], self.angles)
            outputs.append(net.rotation_head(self.embed(net, turned)).float())
        if self.loss == "cosine":
            return {"rotation": F.cosine_similarity(outputs[0], outputs[1]).mean()}
        compare: Callable[..., Tensor] = F.cross_entropy if self.loss == "cross_entropy" else _sup_con_of_all
        noisy = [corrupt_labels(label, k, self.label_noise) for label in labels]
        found = {"rotation": torch.stack([compare(*pair) for pair in zip(outputs, noisy, strict=True)]).sum()}
        if self.loss == "cross_entropy":
            right = [scores.argmax(1) == label for scores, label in zip(outputs, labels, strict=True)]
            found["rotation_accuracy"] = torch.stack(right).float().mean()
        return found


def _sup_con_of_all(outputs: Tensor, label: Tensor) -> Tensor:
    """Compute the supervised contrastive loss over the views of all processes."""
    return sup_con(all_gather(outputs), all_gather(label))


def inner_square(angles: Sequence[float]) -> float | None:
    """Return the side of the largest centred square that has no empty corners after any rotation.

    Parameters
    ----------
    angles : sequence of float
        Angles in degrees.

    Returns
    -------
    float or None
        The side as a fraction of the image's; None if all angles are multiples of 90, which need no crop.

    Examples
    --------
    >>> from skssl.pretext.rotation import inner_square
    >>> round(inner_square((0, 45)), 4), inner_square((0, 90))
    (0.7071, None)
    """
    if not any(angle % 90 for angle in angles):
        return None
    return min(1 / (abs(math.cos(turn)) + abs(math.sin(turn))) for turn in map(math.radians, angles))


def rotate_among(view: Tensor, angle: Tensor, angles: Sequence[float]) -> Tensor:
    """Rotate each image by one of several angles, so that only the content of the view tells the angle.

    An interpolation along the pixels' axes leaves other traces in fine details than one along a diagonal. A network
    finds them even in noise. If some angles differ by other than multiples of 90 degrees, all images are therefore
    blurred by the same Gaussian of one pixel, which removes the frequencies that a square grid holds along its
    diagonals alone, and interpolated by cubic polynomials. The crop leaves out the pixels that the borders affect.

    Parameters
    ----------
    view : Tensor of shape (n, c, s, s)
        Square images.
    angle : float32 Tensor of shape (n,)
        Angles in degrees, each one of `angles`.
    angles : sequence of float
        All angles.

    Returns
    -------
    Tensor of shape (n, c, s, s)
        The rotated images.

    Examples
    --------
    >>> import torch
    >>> from skssl.pretext.rotation import rotate_among
    >>> rotate_among(torch.ones(2, 3, 16, 16), torch.tensor([0.0, 45.0]), (0, 45)).std().item() < 1e-6
    True
    """
    share, side = inner_square(angles), view.shape[2]
    if share is None or len({angle % 90 for angle in angles}) == 1:
        return rotate(view, angle, share)
    with torch.autocast(view.device.type, enabled=False):
        taps = torch.arange(-BLUR_REACH, BLUR_REACH + 1, device=view.device)
        kernel = (-taps.square() / 2).softmax(0)
        matrix = (kernel @ tap_shifts(side, BLUR_REACH, view.device).flatten(1)).view(side, side)
        blurred = matrix.mT @ view.float() @ matrix
    margin = min(BLUR_REACH + 1, side // 4)  # the cubic polynomials reach one pixel further than lines
    return rotate(blurred.to(view.dtype), angle, share * (1 - 2 * margin / side), "bicubic")


def rotate(view: Tensor, angle: Tensor, share: float | None = None, interpolation: str = "bilinear") -> Tensor:
    """Rotate each image counter-clockwise by its own angle.

    Parameters
    ----------
    view : Tensor of shape (n, c, s, s)
        Square images.
    angle : float32 Tensor of shape (n,)
        Angles in degrees; multiples of 90 unless `share` is given.
    share : float, default=None
        Side of the central square that is cropped after the rotation, as a fraction of s. The crop is resized to s.
    interpolation : {"bilinear", "bicubic"}, default="bilinear"
        The interpolation, if `share` is given.

    Returns
    -------
    Tensor of shape (n, c, s, s)
        The rotated images.

    Raises
    ------
    ValueError
        If the images are not square.

    Examples
    --------
    >>> import torch
    >>> from skssl.pretext.rotation import rotate
    >>> image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> rotate(image, angle=torch.tensor([90.0]))
    tensor([[[[2., 4.],
              [1., 3.]]]])
    """
    if share is None:
        return rotate_quarter(view, (angle / 90).round().long() % 4)
    h, w = view.shape[2:]
    if h != w:
        raise ValueError(f"Rotation needs square images: expected as many rows as columns, got {h} and {w}.")
    # Not F.affine_grid, whose matrix products autocast would compute in bfloat16.
    radians = angle.deg2rad()[:, None, None]
    cosine, sine = share * radians.cos(), share * radians.sin()
    place = (torch.arange(h, device=view.device) * 2 + 1) / h - 1  # centres of pixels in [-1, 1]
    x, y = place, place[:, None]
    grid = torch.stack([cosine * x - sine * y, sine * x + cosine * y], dim=3)  # (n, s, s, 2)
    return F.grid_sample(view, grid.to(view.dtype), mode=interpolation, padding_mode="border", align_corners=False)


def corrupt_labels(label: Tensor, n_classes: int, share: float) -> Tensor:
    """Replace random labels by wrong ones.

    Parameters
    ----------
    label : int64 Tensor of shape (n,)
        The true labels.
    n_classes : int
        Number of classes.
    share : float
        The probability, for each label, that it is replaced by one of the others, drawn uniformly.

    Returns
    -------
    int64 Tensor of shape (n,)
        The noisy labels.

    Examples
    --------
    >>> import torch
    >>> from skssl.pretext.rotation import corrupt_labels
    >>> corrupt_labels(torch.tensor([0, 1, 0]), n_classes=2, share=1.0)
    tensor([1, 0, 1])
    """
    if not share:
        return label
    shift = torch.randint(1, n_classes, label.shape, device=label.device)
    noisy = torch.rand(label.shape, device=label.device) < share
    return (label + shift * noisy) % n_classes
