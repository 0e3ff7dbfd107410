"""Rotation: by which angle has this view been turned? (RotNet, and EffSSL's auxiliary task)."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, ClassVar

import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor
from torch.nn import functional as F

from skssl.augment import rotate_quarter
from skssl.nn import MLP

if TYPE_CHECKING:
    from skssl.engine import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class Rotation(BaseEstimator):
    """Predict the angle by which a view was turned.

    As an auxiliary task each of the first two views is turned by an angle of its own, goes through the encoder (and
    the projector) in a pass of its own, and a two-layer head names the angle. The method's own loss never sees a
    turned view.

    Parameters
    ----------
    angles : tuple of int, default=(0, 90, 180, 270)
        The angles in degrees, counter-clockwise: two or more multiples of 90. The label is the place in this tuple.
    label_noise : float, default=0.0
        The probability, in [0, 1], that a label is replaced by one of the wrong ones, drawn evenly and anew in every
        step. The view is still turned by the true angle.
    head : {"projector", "backbone"}, default="projector"
        Where the head sits: on the projector's output, as in the paper's text, or on the features, as in its released
        SwAV code. A method without a projector has it on the features.
    loss : {"cross_entropy"}, default="cross_entropy"
        What is minimised.

    References
    ----------
    Towards Efficient and Effective Self-Supervised Learning of Visual Representations, ECCV 2022, section 4 and
    equation 1; the two views' losses are added, as in the released code.

    Examples
    --------
    >>> from skssl import Rotation, SimCLR
    >>> SimCLR(aux=Rotation(angles=(0, 180), label_noise=0.1)).aux
    Rotation(angles=(0, 180), label_noise=0.1)
    """

    angles: tuple[int, ...] = (0, 90, 180, 270)
    label_noise: float = 0.0
    head: str = "projector"
    loss: str = "cross_entropy"

    name: ClassVar[str] = "rotation"
    _parameter_constraints: ClassVar[dict] = {
        "angles": ["array-like"],
        "label_noise": [Interval(Real, 0, 1, closed="both")],
        "head": [StrOptions({"projector", "backbone"})],
        "loss": [StrOptions({"cross_entropy"})],
    }

    def validate(self) -> None:
        """Refuse parameters that are out of range.

        Raises
        ------
        ValueError
            Naming the parameter, what was expected and what came.
        """
        self._validate_params()
        turns = [angle % 360 for angle in self.angles]
        if len(turns) < 2 or len(set(turns)) < len(turns) or any(turn % 90 for turn in turns):
            raise ValueError(
                "The 'angles' parameter of Rotation must be two or more different multiples of 90 degrees. "
                f"Got {self.angles!r} instead."
            )

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Put the head on the net: two layers, BatchNorm on the hidden one.

        Parameters
        ----------
        net : Objective
            The network.
        dim : int
            Width of the features.
        n_samples : int
            Number of training images; not used.
        """
        if self.head == "projector" and hasattr(net, "projector"):
            dim = net.projector.out_features
        net.rotation_head = MLP((dim, dim, len(self.angles)))
        net.register_buffer("rotation_quarters", torch.tensor([angle // 90 % 4 for angle in self.angles]))

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:
        """Turn the first two views, and compare what the head says with what was done.

        Parameters
        ----------
        net : Objective
            The network.
        batch : Batch
            The batch.

        Returns
        -------
        dict of str to scalar Tensor
            "rotation", the sum over the views of the mean cross-entropy, and "rotation_accuracy".
        """
        loss, accuracy = torch.zeros(()), torch.zeros(())
        views = batch.views[:2]
        for view in views:
            turned, label = turn(view, net.rotation_quarters)
            embedding = net.encoder(turned)
            if self.head == "projector" and hasattr(net, "projector"):
                embedding = net.projector(embedding)
            scores = net.rotation_head(embedding).float()  # (n, angles)
            loss = loss + F.cross_entropy(scores, mislabel(label, len(self.angles), self.label_noise))
            accuracy = accuracy + (scores.argmax(1) == label).float().mean() / len(views)
        return {"rotation": loss, "rotation_accuracy": accuracy}


def turn(view: Tensor, quarters: Tensor) -> tuple[Tensor, Tensor]:
    """Turn each image by one of several numbers of quarter-turns, drawn evenly.

    Parameters
    ----------
    view : Tensor of shape (n, c, s, s)
        Square images.
    quarters : int64 Tensor of shape (k,)
        How many quarter-turns there are to choose from, each from 0 to 3.

    Returns
    -------
    turned : Tensor of shape (n, c, s, s)
        The images, turned counter-clockwise.
    label : int64 Tensor of shape (n,)
        The place in `quarters` of what each image was turned by.

    Examples
    --------
    >>> import torch
    >>> from skssl.pretext.rotation import turn
    >>> image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> turn(image, quarters=torch.tensor([1, 1]))[0]
    tensor([[[[2., 4.],
              [1., 3.]]]])
    """
    label = torch.randint(len(quarters), (len(view),), device=view.device)
    return rotate_quarter(view, quarters[label]), label


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
