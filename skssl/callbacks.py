"""Callbacks that record measures of a training in ``history_``."""

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
from skssl.images.dataset_items import refuse_loader
from skssl.images.folders import expand_folder
from skssl.images.labels import as_labels, labels_in
from skssl.images.photographs import Photographs
from skssl.probes import KNNProbe
from skssl.training.encoding import encode
from skssl.training.trainer import Trainer

__all__ = ["GradientSNR", "KNNMonitor"]

EPSILON, WARM_UP_STEPS = 1e-12, 10  # added to variances, and the first steps without reliable variances


class KNNMonitor(Callback):
    """Record the accuracy of kNN classification in the column "knn".

    The features of the encoder, without the projector, are compared by cosine similarity. The training is
    unchanged, bit for bit.

    Parameters
    ----------
    X : array-like, sequence of files or PIL images, or torch Dataset
        Labelled images of the same kind as those of the training.
    y : array-like of shape (n,), default=None
        Their classes. Images of class -1 are ignored. If None, they are the labels in X, such as a data set of items
        (image, label).
    X_test, y_test : default=None
        The images to classify and their classes. By default a random fifth of X and y is held out, which leaves at
        least one image of each class. The labels in X_test serve as y_test, too.
    n_neighbors : int, default=20
        The number of neighbours, see `KNNProbe`.
    every : int, default=1
        The number of epochs between evaluations.

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
        self, X: Any, y: Any = None, X_test: Any = None, y_test: Any = None, n_neighbors: int = 20, every: int = 1
    ) -> None:
        self.X, self.y, self.X_test, self.y_test = X, y, X_test, y_test
        self.n_neighbors, self.every = n_neighbors, every

    def initialize(self) -> Self:
        """Check the parameters."""
        refuse_loader(self.X)
        refuse_loader(self.X_test)
        check_consistent_length(expand_folder(self.X), self.y)
        if self.X_test is None and self.y_test is not None:
            raise ValueError("KNNMonitor needs X_test, the images to which y_test belongs.")
        check_consistent_length(expand_folder(self.X_test), self.y_test)
        if not isinstance(self.every, Integral) or self.every < 1:
            raise ValueError(
                f"The 'every' parameter of KNNMonitor must be an integer of at least 1. Got {self.every!r}."
            )
        return self

    def on_train_begin(self, net: Trainer, X: Images, **kwargs: Any) -> None:
        """Read the images in the same way as those of the training."""
        method = net.module_.method
        like: Any = {"shape": X.shape, "scale": X.scale, "whole": isinstance(X, Photographs)}
        read: Any = getattr(method, "read", None) or partial(
            as_images, image_shape=method.image_shape, reset=False, **like
        )

        def labelled(X: Any, y: Any) -> tuple[Images, np.ndarray]:
            images = read(X)
            y = labels_in(X, images) if y is None else as_labels(y)
            if y is None:
                raise ValueError(
                    "KNNMonitor needs the classes of its images. Pass y, and y_test with X_test, or data sets of items "
                    "(image, label)."
                )
            known = np.flatnonzero(y != -1)
            if not len(known):
                raise ValueError("KNNMonitor needs labelled images, but all labels are -1.")
            return images.take(torch.from_numpy(known)), np.array(y[known].tolist())

        self.bank_, self.bank_labels_ = images, labels = labelled(self.X, self.y)
        if self.X_test is None:
            draw = np.random.RandomState(0).permutation(len(labels))
            _, kept = np.unique(labels[draw], return_index=True)  # one image of each class is not held out
            test = np.delete(draw, kept)[: math.ceil(len(labels) / 5)]
            if not len(test):
                raise ValueError("KNNMonitor cannot hold out the only image of each class: pass X_test and y_test.")
            bank = np.setdiff1d(draw, test)
            self.bank_, self.bank_labels_ = images.take(torch.from_numpy(bank)), labels[bank]
            self.test_, self.test_labels_ = images.take(torch.from_numpy(test)), labels[test]
        else:
            self.test_, self.test_labels_ = labelled(self.X_test, self.y_test)
            unseen = sorted(set(self.test_labels_.tolist()) - set(labels.tolist()))
            if unseen:
                raise ValueError(
                    f"y_test of KNNMonitor must hold only classes of y. Got {unseen[0]!r}, which y does not hold."
                )
        if len(np.unique(labels)) < 2:
            raise ValueError(f"KNNMonitor needs images of at least two classes. Got one: {labels.tolist()[0]!r}.")
        if not 1 <= self.n_neighbors <= len(self.bank_):
            raise ValueError(
                "The 'n_neighbors' parameter of KNNMonitor must be between 1 and the number of labelled images, "
                f"{len(self.bank_)}. Got {self.n_neighbors!r}."
            )

    def on_epoch_end(self, net: Trainer, **kwargs: Any) -> None:
        """Encode the images and record the accuracy."""
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
        """Return the state without the images, which are read again when training resumes."""
        return {name: value for name, value in vars(self).items() if not name.endswith("_")}


class GradientSNR(Callback):
    r"""Record the gradient's signal-to-noise ratio, in the columns "gradient_snr" and "gradient_snr_squared".

    The callback keeps exponential moving averages of the mean and the variance of each entry of the gradient,

    .. math:: \mu \leftarrow \beta \mu + (1 - \beta) g, \qquad \nu \leftarrow \beta \nu + (1 - \beta) (g - \mu)^2,

    corrected for their bias towards the initial zero; the mean is corrected before it enters the variance.
    "gradient_snr" is :math:`|\mu| / \nu`, averaged over the entries with a variance above zero and over the steps of
    the epoch. "gradient_snr_squared" is the same average of :math:`\mu^2 / \nu`, which does not depend on the scale of
    the loss. The first ten steps of the training are ignored, since their variances are unreliable. An epoch without
    other steps has NaN.

    For noise without a signal "gradient_snr_squared" is about :math:`(1 - \beta) / 2`, which is 0.005 for
    :math:`\beta = 0.99`. "gradient_snr" is inversely proportional to the scale of the loss: a task that adds to the
    gradient lowers it.

    Parameters
    ----------
    decay : float, default=0.99
        The decay :math:`\beta` of the averages.
    part : str, default="encoder"
        The submodule of the net whose gradient is measured; "" is the whole net. A task adds a head, so that only the
        encoder is comparable with and without a task.

    References ---------- Towards Efficient and Effective Self-Supervised Learning of Visual Representations (EffSSL),
    ECCV 2022, supplement, section 6, after Mitrovic et al., 2020. It uses the ratio of the mean to the variance and
    states neither beta nor the parameters; the absolute value keeps signed means from cancelling.

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
        """Check the parameters and reset the averages."""
        if not isinstance(self.decay, Real) or not 0 < self.decay < 1:
            raise ValueError(f"The 'decay' parameter of GradientSNR must be between 0 and 1. Got {self.decay!r}.")
        self.moments_: list[Tensor] = []
        self.steps_: int = 0
        return self

    def on_epoch_begin(self, net: Trainer, **kwargs: Any) -> None:
        """Reset the ratios of the epoch."""
        self.ratios_: list[Tensor] = []

    @torch.no_grad()
    def on_grad_computed(self, net: Trainer, **kwargs: Any) -> None:
        """Update the averages without synchronising with the device."""
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
        if self.steps_ > WARM_UP_STEPS:
            noise = variance / corrected
            some = (noise > 0).sum().clamp(min=1)
            ratios = [(signal / (noise + EPSILON) * (noise > 0)).sum() / some for signal in (centre.abs(), centre**2)]
            self.ratios_.append(torch.stack(ratios))

    def on_epoch_end(self, net: Trainer, **kwargs: Any) -> None:
        """Record the mean ratios of the epoch."""
        found = torch.stack(self.ratios_).mean(0).tolist() if self.ratios_ else [math.nan] * 2
        for name, value in zip(("gradient_snr", "gradient_snr_squared"), found, strict=True):
            net.history.record(name, value)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint.

        Returns
        -------
        dict of str to Tensor or int
            The averages, and the ratios of an unfinished epoch.
        """
        moments = dict(zip(("mean", "variance"), self.moments_, strict=False))
        ratios = {"ratios": torch.stack(self.ratios_)} if self.ratios_ else {}
        return {"steps": self.steps_, **moments, **ratios}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint.

        Parameters
        ----------
        state : dict of str to Tensor or int
            The return value of `state_dict`.
        """
        self.steps_ = state["steps"]
        self.moments_ = [state[name] for name in ("mean", "variance") if name in state]
        self.ratios_ = list(state.get("ratios", []))

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with the averages on the CPU."""
        state = {**vars(self), "ratios_": []}
        return {**state, "moments_": [moment.cpu() for moment in state.get("moments_", [])]}
