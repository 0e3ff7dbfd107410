"""Callbacks that watch a training: a column of ``history_`` each."""

from __future__ import annotations

import math
from functools import partial
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from sklearn.utils import check_consistent_length
from skorch.callbacks import Callback
from torch import Tensor

from skssl.images import Images, as_images
from skssl.images.labels import as_labels
from skssl.probes import KNNProbe
from skssl.training.encoding import encode
from skssl.training.trainer import Trainer

__all__ = ["GradientSNR", "KNNMonitor"]

EPSILON, UNSETTLED = 1e-12, 10  # what variances are increased by, and the steps before they are taken for one


class KNNMonitor(Callback):
    """Record how many images the nearest neighbours classify rightly, in the column "knn".

    The encoder's features, without the projector, are compared by cosine after an epoch. The training itself stays the
    same, bit by bit.

    Parameters
    ----------
    X : array-like, sequence of files or PIL images, or torch Dataset
        Labelled images, like the training's.
    y : array-like of shape (n,)
        Their classes. Images whose class is -1 are left out.
    X_test, y_test : default=None
        Images that are classified, and their classes. By default a random fifth of X and y, which then does not vote;
        one image of each class stays.
    n_neighbors : int, default=20
        How many neighbours vote, see `KNNProbe`.
    every : int, default=1
        After every so many epochs.

    Examples
    --------
    >>> from skssl import SimCLR
    >>> from skssl.callbacks import KNNMonitor
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> monitor = KNNMonitor(X, y, n_neighbors=5)
    >>> encoder = SimCLR(backbone="convnet", epochs=2, batch_size=32, callbacks=[monitor], random_state=0).fit(X)
    >>> encoder.history_["knn"].between(0, 1).all()
    np.True_
    """

    def __init__(
        self, X: Any, y: Any, X_test: Any = None, y_test: Any = None, n_neighbors: int = 20, every: int = 1
    ) -> None:
        self.X, self.y, self.X_test, self.y_test = X, y, X_test, y_test
        self.n_neighbors, self.every = n_neighbors, every

    def initialize(self) -> Self:
        """Check the parameters."""
        check_consistent_length(self.X, self.y)
        if (self.X_test is None) != (self.y_test is None):
            raise ValueError("KNNMonitor needs both X_test and y_test, or neither.")
        if self.X_test is not None:
            check_consistent_length(self.X_test, self.y_test)
        if not isinstance(self.every, Integral) or self.every < 1:
            raise ValueError(f"KNNMonitor's every must be a whole number from 1. Got {self.every!r}.")
        return self

    def on_train_begin(self, net: Trainer, X: Images, **kwargs: Any) -> None:
        """Read the images as the training's are read."""
        method = net.module_.method
        read = getattr(method, "read", None) or partial(
            as_images, image_shape=method.image_shape, reset=False, shape=X.shape, scale=X.scale
        )

        def labelled(X: Any, y: Any) -> tuple[Images, np.ndarray]:
            y = as_labels(y)
            known = np.flatnonzero(y != -1)
            if not len(known):
                raise ValueError("KNNMonitor needs labelled images, but all labels are -1: unknown.")
            return read(X).take(torch.from_numpy(known)), np.array(y[known].tolist())

        self.bank_, self.bank_labels_ = images, labels = labelled(self.X, self.y)
        if self.X_test is None:
            draw = np.random.RandomState(0).permutation(len(labels))
            _, voters = np.unique(labels[draw], return_index=True)  # one of each class is not held out
            test = np.delete(draw, voters)[: math.ceil(len(labels) / 5)]
            if not len(test):
                raise ValueError("KNNMonitor holds images out, but there is only one of each class: give X_test.")
            kept = np.setdiff1d(draw, test)
            self.bank_, self.bank_labels_ = images.take(torch.from_numpy(kept)), labels[kept]
            self.test_, self.test_labels_ = images.take(torch.from_numpy(test)), labels[test]
        else:
            self.test_, self.test_labels_ = labelled(self.X_test, self.y_test)
            unseen = sorted(set(self.test_labels_.tolist()) - set(labels.tolist()))
            if unseen:
                raise ValueError(f"KNNMonitor's y_test has the class {unseen[0]!r}, which y has not.")
        if len(np.unique(labels)) < 2:
            raise ValueError(f"KNNMonitor needs images of two classes or more. Got one only: {labels.tolist()[0]!r}.")
        if not 1 <= self.n_neighbors <= len(self.bank_):
            raise ValueError(
                "KNNMonitor's n_neighbors must be from 1 to the number of labelled images to compare with, "
                f"{len(self.bank_)}. Got {self.n_neighbors!r}."
            )

    def on_epoch_end(self, net: Trainer, **kwargs: Any) -> None:
        """Encode, and vote."""
        if len(net.history) % self.every:
            return
        augment, device = net.augmentations[0], torch.device(net.device)
        bank, test = (
            encode(net.module_.encoder, images, augment, device, net.dtype).numpy()
            for images in (self.bank_, self.test_)
        )
        probe = KNNProbe(n_neighbors=self.n_neighbors, device=device).fit(bank, self.bank_labels_)
        net.history.record("knn", float(probe.score(test, self.test_labels_)))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is read again when training goes on."""
        return {name: value for name, value in vars(self).items() if not name.endswith("_")}


class GradientSNR(Callback):
    r"""Record the gradient's signal-to-noise ratio, in the columns "gradient_snr" and "gradient_snr_squared".

    For every entry of the gradient, exponential moving averages of its mean and of its variance are kept,

    .. math:: \mu \leftarrow \beta \mu + (1 - \beta) g, \qquad \nu \leftarrow \beta \nu + (1 - \beta) (g - \mu)^2,

    and corrected for their start from zero, the mean before it enters the variance. "gradient_snr" is
    :math:`|\mu| / \nu`, averaged over the entries whose variance is not zero and over the epoch's steps;
    "gradient_snr_squared" is the same of :math:`\mu^2 / \nu`, which does not change with the loss's scale. The first
    ten steps of all are left out: the inverse of a variance of so few has no mean worth the name. An epoch without any
    other has NaN.

    Of noise without any signal "gradient_snr_squared" is about :math:`(1 - \beta) / 2`, 0.005 at 0.99. "gradient_snr"
    is inversely proportional to the loss's scale: a task that adds to the gradient lowers it.

    Parameters
    ----------
    decay : float, default=0.99
        Beta.
    part : str, default="encoder"
        The submodule of the net whose gradient is measured; "" is all of it. A task adds a head, so that only the
        encoder has the same entries with and without it.

    References
    ----------
    Towards Efficient and Effective Self-Supervised Learning of Visual Representations (EffSSL), ECCV 2022, supplement,
    section 6, after Mitrovic et al., 2020. It has the ratio of the mean to the variance and states neither beta nor
    which parameters count; of signed means only the absolute value does not cancel.

    Examples
    --------
    >>> from skssl import SimSiam
    >>> from skssl.callbacks import GradientSNR
    >>> from skssl.datasets import make_shapes
    >>> X, _ = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = SimSiam(backbone="convnet", epochs=4, batch_size=16, callbacks=[GradientSNR()], random_state=0).fit(X)
    >>> (encoder.history_["gradient_snr"] > 0).tolist()
    [False, False, True, True]
    """

    def __init__(self, decay: float = 0.99, part: str = "encoder") -> None:
        self.decay, self.part = decay, part

    def initialize(self) -> Self:
        """Begin anew."""
        if not isinstance(self.decay, Real) or not 0 < self.decay < 1:
            raise ValueError(f"GradientSNR's decay must be between 0 and 1. Got {self.decay!r}.")
        self.moments_: list[Tensor] = []
        self.steps_: int = 0
        return self

    def on_epoch_begin(self, net: Trainer, **kwargs: Any) -> None:
        """Begin an epoch's averages."""
        self.ratios_: list[Tensor] = []

    @torch.no_grad()
    def on_grad_computed(self, net: Trainer, **kwargs: Any) -> None:
        """Move the averages by a step, without waiting for the device."""
        parameters = net.module_.get_submodule(self.part).parameters()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        gradient = torch.cat([g.flatten() for g in grads]).float()
        self.steps_ += 1
        mean, variance = (
            moment.to(gradient.device) for moment in self.moments_ or [torch.zeros_like(gradient) for _ in range(2)]
        )
        corrected = 1 - self.decay**self.steps_
        mean = mean.lerp_(gradient, 1 - self.decay)
        centre = mean / corrected
        variance = variance.lerp_((gradient - centre).square_(), 1 - self.decay)
        self.moments_ = [mean, variance]
        if self.steps_ > UNSETTLED:
            noise = variance / corrected
            some = (noise > 0).sum().clamp(min=1)
            ratios = [(signal / (noise + EPSILON) * (noise > 0)).sum() / some for signal in (centre.abs(), centre**2)]
            self.ratios_.append(torch.stack(ratios))

    def on_epoch_end(self, net: Trainer, **kwargs: Any) -> None:
        """Record the epoch's averages."""
        found = torch.stack(self.ratios_).mean(0).tolist() if self.ratios_ else [math.nan] * 2
        for name, value in zip(("gradient_snr", "gradient_snr_squared"), found, strict=True):
            net.history.record(name, value)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps.

        Returns
        -------
        dict of str to Tensor or int
            The averages, in the middle of an epoch the epoch's, too.
        """
        moments = dict(zip(("mean", "variance"), self.moments_, strict=False))
        ratios = {"ratios": torch.stack(self.ratios_)} if self.ratios_ else {}
        return {"steps": self.steps_, **moments, **ratios}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint has kept.

        Parameters
        ----------
        state : dict of str to Tensor or int
            What `state_dict` has returned.
        """
        self.steps_ = state["steps"]
        self.moments_ = [state[name] for name in ("mean", "variance") if name in state]
        self.ratios_ = list(state.get("ratios", []))

    def __getstate__(self) -> dict[str, Any]:
        """Move the averages to where they can be loaded anywhere."""
        state = {**vars(self), "ratios_": []}
        return {**state, "moments_": [moment.cpu() for moment in state.get("moments_", [])]}
