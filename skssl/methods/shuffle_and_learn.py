"""Shuffle and Learn: tell whether the frames of a clip are in order."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import ClassVar

import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor
from torch.nn import functional as F

from skssl.methods.clips import ClipMethod
from skssl.nn.heads import MLP
from skssl.training.objective import Batch, Objective, concat_views

MOTION_SIDE = 32  # pixels of the longer side at which the motion between frames is measured


@dataclass(kw_only=True, eq=False, repr=False)
class ShuffleAndLearn(ClipMethod):
    """Shuffle and Learn: tell whether three frames of a clip are in order, or sort four.

    Five frames a, b, c, d, e of each clip are drawn, more probably where there is motion. The triplet (b, c, d) is in
    order, (b, a, d) and (b, e, d) are not. All are reversed at random. The encoder reads each frame, and a classifier
    reads the concatenated features.

    Parameters
    ----------
    frame_order : {"verify", "sort"}, default="verify"
        "verify": tell whether three frames are in order. "sort": tell in which of the 12 orders four frames are, where
        an order and its reverse count as one.
    positives : float, default=0.25
        Share of triplets in order, for ``frame_order="verify"``.
    hidden_dim : int, default=128
        Width of the classifier's hidden layer.

    References
    ----------
    Misra et al., Shuffle and Learn: Unsupervised Learning using Temporal Order Verification, ECCV 2016. Lee et al.,
    Unsupervised Representation Learning by Sorting Sequences, ICCV 2017, for "sort". The triplets, their reversal and
    the share of positives are those of the first paper, whose weights of the frames are magnitudes of optical flow.
    Ours are the mean absolute differences to the neighbouring frames. The paper also bounds the distances between
    frames of its long videos, which we leave out. Its classifier is linear, in which the frames' terms only add up;
    ours has a hidden layer, which can compare frames. Sorting has the same classifier, without the second paper's
    features of pairs of frames, its jitter of each frame and its splitting of colour channels. The settings are ours.

    Examples
    --------
    >>> from skssl import ShuffleAndLearn
    >>> from skssl.datasets import make_clips
    >>> clips, *_ = make_clips(64, image_size=16, random_state=0)
    >>> encoder = ShuffleAndLearn(backbone="convnet", epochs=1, batch_size=32, random_state=0).fit(clips)
    >>> encoder.history_.columns[:4].tolist()
    ['epoch', 'loss', 'frame_order', 'frame_order_accuracy']
    >>> encoder.transform(clips).shape, encoder.transform(clips[:, 0]).shape  # of clips, of images
    ((64, 128), (64, 128))
    """

    frame_order: str = "verify"
    positives: float = 0.25
    hidden_dim: int = 128

    _parameter_constraints: ClassVar[dict] = {
        **ClipMethod._parameter_constraints,
        "frame_order": [StrOptions({"verify", "sort"})],
        "positives": [Interval(Real, 0, 1, closed="neither")],
        "hidden_dim": [Interval(Integral, 1, None, closed="left")],
    }

    @property
    def n_views(self) -> int:
        """Three frames to verify, four to sort."""
        return 3 if self.frame_order == "verify" else 4

    @property
    def least_frames(self) -> int:
        """The frames from which those of the views are taken."""
        return 5 if self.frame_order == "verify" else 4

    @property
    def chance(self) -> dict[str, float]:
        """The accuracy of a guess that is always the same."""
        most = max(self.positives, 1 - self.positives) if self.frame_order == "verify" else 1 / 12
        return {"frame_order_accuracy": most}

    def build(self, net: Objective, dim: int, n_samples: int) -> None:  # noqa: D102
        orders = [order for order in itertools.permutations(range(self.n_views)) if order[0] < order[-1]]
        net.register_buffer("frame_orders", torch.tensor(orders))  # the first one is in order
        n_classes = 2 if self.frame_order == "verify" else len(orders)
        net.order_classifier = MLP((self.n_views * dim, self.hidden_dim, n_classes))

    def choose_frames(self, clips: Tensor, generator: torch.Generator) -> Tensor:  # noqa: D102
        draw = partial(torch.rand, generator=generator, device=clips.device)
        n, weights = len(clips), frame_motion(clips)
        # The earliest of exponential waiting times: frames without replacement, by their weights.
        waits = -torch.log1p(-draw(weights.shape)) / weights.clamp(min=1e-6)
        frames = waits.topk(self.least_frames, largest=False).indices.sort(1).values
        if self.frame_order == "sort":
            return frames.gather(1, draw(n, 4).argsort(1))
        ordered, late, reverse = (draw(n, 1) < share for share in (self.positives, 0.5, 0.5))
        middle = torch.where(ordered, 2, 4 * late.long())
        triplet = frames.gather(1, torch.cat([torch.ones_like(middle), middle, torch.full_like(middle, 3)], 1))
        return torch.where(reverse, triplet.flip(1), triplet)

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:  # noqa: D102
        features = net.encoder(concat_views(batch.views)).chunk(self.n_views)
        scores = net.order_classifier(torch.cat(features, 1)).float()  # (n, 2 or 12)
        label = order_class(batch.made["frames"], net.frame_orders)
        label = label.clamp(max=1) if self.frame_order == "verify" else label  # 0 is in order
        accuracy = (scores.argmax(1) == label).float().mean()
        return {"frame_order": F.cross_entropy(scores, label), "frame_order_accuracy": accuracy}


def frame_motion(clips: Tensor) -> Tensor:
    """Return the mean absolute difference of each frame to its neighbours, at a low resolution.

    Parameters
    ----------
    clips : Tensor of shape (n, t, c, h, w)
        The clips.

    Returns
    -------
    float32 Tensor of shape (n, t)
        The motion, in the units of `clips`.

    Examples
    --------
    >>> import torch
    >>> from skssl.methods.shuffle_and_learn import frame_motion
    >>> frame_motion(torch.tensor([0.0, 0.0, 4.0]).view(1, 3, 1, 1, 1))
    tensor([[0., 2., 4.]])
    """
    step = max(1, max(clips.shape[3:]) // MOTION_SIDE)
    steps = clips[..., ::step, ::step].float().diff(dim=1).abs().mean((2, 3, 4))  # (n, t - 1)
    return (torch.cat([steps[:, :1], steps], 1) + torch.cat([steps, steps[:, -1:]], 1)) / 2


def order_class(frames: Tensor, orders: Tensor) -> Tensor:
    """Return the class of the order of frames (n, v), or of its reverse, among orders (n_classes, v)."""
    ranks = frames.argsort(1).argsort(1)
    ranks = torch.where(ranks[:, :1] < ranks[:, -1:], ranks, ranks.flip(1))
    return (ranks[:, None] == orders).all(2).long().argmax(1)
