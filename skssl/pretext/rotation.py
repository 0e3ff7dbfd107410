"""Rotation: by which angle has this view been turned? (RotNet, and EffSSL's auxiliary task)."""

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

from skssl.augment.geometry import rotate_quarter
from skssl.backbones import stages
from skssl.errors import pick
from skssl.losses import sup_con
from skssl.nn.distributed import all_gather
from skssl.nn.heads import MLP
from skssl.pretext.task import Task

if TYPE_CHECKING:
    from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class Rotation(Task):
    """Predict the angle by which a view was turned.

    As an auxiliary task each of the first two views is turned by an angle of its own, goes through the encoder (and
    the projector) in a pass of its own, and a two-layer head names the angle. The method's own loss never sees a
    turned view.

    Parameters
    ----------
    angles : tuple of float, default=(0, 90, 180, 270)
        The angles in degrees, counter-clockwise, two or more. The label is the place in this tuple. Where all are
        multiples of 90, pixels move and none is interpolated. Otherwise views are turned by interpolation at every
        angle, 0 as well, cropped to the square that the worst angle leaves without a corner, and resized: neither
        corners nor blur tell the angle.
    label_noise : float, default=0.0
        The probability, in [0, 1], that a label is replaced by one of the wrong ones, drawn evenly and anew in every
        step. The view is still turned by the true angle.
    head : {"projector", "backbone"}, default="projector"
        Where the head sits: on the projector's output, as in the paper's text, or on the features, as in its released
        SwAV code. A method without a projector has it on the features.
    loss : {"cross_entropy", "sup_con", "cosine"}, default="cross_entropy"
        What is minimised: the cross-entropy of the angle; the supervised contrastive loss at temperature 0.1, whose
        positives are the views turned by the same angle; or the cosine between an image's two views, which are then
        turned by different angles. The latter two compare outputs of a head as wide as what it sits on.
    shared : str, default="projector"
        How far up the task shares the method's layers, in their order: "conv1", "layer1" to "layer4" (ResNets; "conv1"
        to "conv4" for the small ConvNet), "backbone" (the whole encoder) or "projector" (all). What is above, up to
        where the head sits, is copied for the task and trained by it alone. With ``head="backbone"`` no projector is
        passed, so that "backbone" and "projector" are the same.

    References
    ----------
    Towards Efficient and Effective Self-Supervised Learning of Visual Representations, ECCV 2022, section 4 and
    equation 1; the two views' losses are added, as in the released code. Angles, losses and shared layers are the
    ablations of its section 5 and supplement, which do not say where "sup_con" and "cosine" have their head.

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

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        on_projector = self.head == "projector" and hasattr(net, "projector")
        if self.shared not in ("projector", "backbone"):
            options = stages(net.encoder)
            pick("shared", self.shared, dict.fromkeys([*options, "backbone", "projector"]))
            names = list(options)[: list(options).index(self.shared) + 1]
            kept = {id(layer): layer for name in names for layer in options[name]}
            net.rotation_encoder = copy.deepcopy(net.encoder, kept)  # what is kept is not copied
        if on_projector and self.shared != "projector":
            net.rotation_projector = copy.deepcopy(net.projector)
        dim = net.projector.out_features if on_projector else dim
        net.rotation_head = MLP((dim, dim, len(self.angles) if self.loss == "cross_entropy" else dim))
        net.register_buffer("rotation_angles", torch.tensor(self.angles, dtype=torch.float32))

    def embed(self, net: Objective, turned: Tensor) -> Tensor:
        """Map turned views to where the head sits, through the layers that are shared and the copied ones.

        Parameters
        ----------
        net : Objective
            The network.
        turned : Tensor of shape (n, c, s, s)
            Views.

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
                labels.append(mislabel(labels[0], k, 1.0))  # an image's two views at different angles
            else:
                labels.append(torch.randint(k, (n,), device=view.device))
            turned = turn(view, net.rotation_angles[labels[-1]], zoom(self.angles))
            outputs.append(net.rotation_head(self.embed(net, turned)).float())
        if self.loss == "cosine":
            return {"rotation": F.cosine_similarity(outputs[0], outputs[1]).mean()}
        compare: Callable[..., Tensor] = F.cross_entropy if self.loss == "cross_entropy" else _sup_con_of_all
        noisy = [mislabel(label, k, self.label_noise) for label in labels]
        found = {"rotation": torch.stack([compare(*pair) for pair in zip(outputs, noisy, strict=True)]).sum()}
        if self.loss == "cross_entropy":
            right = [scores.argmax(1) == label for scores, label in zip(outputs, labels, strict=True)]
            found["rotation_accuracy"] = torch.stack(right).float().mean()
        return found


def _sup_con_of_all(outputs: Tensor, label: Tensor) -> Tensor:
    """Compare the views of all processes."""
    return sup_con(all_gather(outputs), all_gather(label))


def zoom(angles: Sequence[float]) -> float | None:
    """How much of a turned square's side is left when its corners are cut off.

    Parameters
    ----------
    angles : sequence of float
        All angles that there are, in degrees.

    Returns
    -------
    float or None
        The share at the worst of them; None where all are multiples of 90 and nothing need be cut.

    Examples
    --------
    >>> from skssl.pretext.rotation import zoom
    >>> round(zoom((0, 45)), 4), zoom((0, 90))
    (0.7071, None)
    """
    if not any(angle % 90 for angle in angles):
        return None
    return min(1 / (abs(math.cos(turn)) + abs(math.sin(turn))) for turn in map(math.radians, angles))


def turn(view: Tensor, angle: Tensor, share: float | None = None) -> Tensor:
    """Turn each image by an angle of its own.

    Parameters
    ----------
    view : Tensor of shape (n, c, s, s)
        Square images.
    angle : float32 Tensor of shape (n,)
        Degrees, counter-clockwise; whole multiples of 90 unless `share` is given.
    share : float, default=None
        If given, images are interpolated bilinearly, and a central square with this share of the side is resized to
        the whole.

    Returns
    -------
    Tensor of shape (n, c, s, s)
        The images, turned counter-clockwise.

    Raises
    ------
    ValueError
        If the images are not square.

    Examples
    --------
    >>> import torch
    >>> from skssl.pretext.rotation import turn
    >>> image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> turn(image, angle=torch.tensor([90.0]))
    tensor([[[[2., 4.],
              [1., 3.]]]])
    """
    if share is None:
        return rotate_quarter(view, (angle / 90).round().long() % 4)
    h, w = view.shape[2:]
    if h != w:
        raise ValueError(f"Rotations need square images: expected as many rows as columns, got {h} and {w}.")
    # Products element by element, not affine_grid's of matrices, which autocast would have in bfloat16.
    radians = angle.deg2rad()[:, None, None]
    cosine, sine = share * radians.cos(), share * radians.sin()
    place = (torch.arange(h, device=view.device) * 2 + 1) / h - 1  # pixels' centres in [-1, 1]
    x, y = place, place[:, None]
    grid = torch.stack([cosine * x - sine * y, sine * x + cosine * y], dim=3)  # (n, s, s, 2)
    return F.grid_sample(view, grid.to(view.dtype), padding_mode="border", align_corners=False)


def mislabel(label: Tensor, n_classes: int, share: float) -> Tensor:
    """Replace a share of the labels by wrong ones.

    Parameters
    ----------
    label : int64 Tensor of shape (n,)
        The true labels.
    n_classes : int
        How many classes there are.
    share : float
        The probability, for each label, of becoming one of the others, all of them equally likely.

    Returns
    -------
    int64 Tensor of shape (n,)
        The noisy labels.

    Examples
    --------
    >>> import torch
    >>> from skssl.pretext.rotation import mislabel
    >>> mislabel(torch.tensor([0, 1, 0]), n_classes=2, share=1.0)
    tensor([1, 0, 1])
    """
    if not share:
        return label
    shift = torch.randint(1, n_classes, label.shape, device=label.device)
    noisy = torch.rand(label.shape, device=label.device) < share
    return (label + shift * noisy) % n_classes
