"""Callbacks that record measures of a training in ``history_``."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from sklearn.utils import check_consistent_length
from skorch.callbacks import Callback
from torch import Tensor, nn

from skssl.images import Images
from skssl.images.dataset_items import refuse_loader
from skssl.images.labels import as_labels, known_labels, labels_in
from skssl.images.photographs import Photographs
from skssl.nn.distributed import all_gather
from skssl.nn.inference import eval_mode
from skssl.nn.precision import mixed_precision
from skssl.probes import KNNProbe
from skssl.training.devices import portable
from skssl.training.encoding import encode
from skssl.training.objective import Batch
from skssl.training.trainer import Trainer

__all__ = ["GradientSNR", "KNNMonitor", "LinearMonitor"]

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
        _check_monitor(self)
        return self

    def on_train_begin(self, net: Trainer, X: Images, **kwargs: Any) -> None:
        """Read the images in the same way as those of the training."""
        read = _reader_like(net, X)
        images, labels = _read_labelled("KNNMonitor", read, self.X, self.y)
        if len(np.unique(labels)) < 2:
            raise ValueError(f"KNNMonitor needs images of at least two classes. Got one: {labels.tolist()[0]!r}.")
        if self.X_test is None:
            test = _hold_out("KNNMonitor", labels)
            bank = np.setdiff1d(np.arange(len(labels)), test)
            self.bank_, self.bank_labels_ = images.take(torch.from_numpy(bank)), labels[bank]
            self.test_, self.test_labels_ = images.take(torch.from_numpy(test)), labels[test]
        else:
            self.bank_, self.bank_labels_ = images, labels
            self.test_, self.test_labels_ = _read_test(self, read, labels)
        self.chance_ = {"knn": _share_of_most_frequent(self.bank_labels_, self.test_labels_)}
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
        return {name: value for name, value in vars(self).items() if not name.endswith("_") or name == "chance_"}


class LinearMonitor(Callback):
    """Record the accuracy of an online linear probe in the column "linear".

    A linear classifier is trained beside the encoder. In each step it takes the features that the encoder computes for
    the first view of the images anyway, and no gradient flows back to the encoder. The training is unchanged, bit for
    bit. At the end of an epoch, test images are encoded without augmentation and classified.

    Parameters
    ----------
    y : array-like of shape (n,), default=None
        The classes of the training images; -1 where unknown. If None, they are those that are passed to `fit`, or the
        labels in its X, such as a data set of items (image, label).
    X_test, y_test : default=None
        The images to classify, of the same kind as those of the training, and their classes. By default a random fifth
        of the labelled training images is held out: their labels are not used to train the classifier, which leaves at
        least one image of each class.
    lr : float, default=0.01
        The learning rate of the classifier. It is constant, because the features change.
    every : int, default=1
        The number of epochs between evaluations.

    Notes
    -----
    The classifier is trained by SGD with momentum 0.9, from weights of zero, on features that are standardised by
    running means and variances, as by a BatchNorm without parameters. No features of the first view remain if the step
    is compiled, if views of several augmentations are encoded at once, as with `MultiCrop`, or if the method encodes
    the views in another form, as RotNet does. The view is then encoded once more after the step, without a gradient.
    The weights are part of checkpoints. With several processes, each trains the same classifier on the whole batch.

    Examples
    --------
    >>> from skssl import SimCLR
    >>> from skssl.callbacks import LinearMonitor
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(64, image_size=16, random_state=0)
    >>> params = {"backbone": "convnet", "epochs": 2, "batch_size": 32, "random_state": 0}
    >>> encoder = SimCLR(**params, callbacks=[LinearMonitor()]).fit(X, y)  # the encoder does not use y
    >>> encoder.history_["linear"].between(0, 1).all()
    np.True_
    """

    def __init__(self, y: Any = None, X_test: Any = None, y_test: Any = None, lr: float = 0.01, every: int = 1) -> None:
        self.y, self.X_test, self.y_test, self.lr, self.every = y, X_test, y_test, lr, every

    def initialize(self) -> Self:
        """Check the parameters and discard the classifier."""
        if not isinstance(self.lr, Real) or not self.lr > 0:
            raise ValueError(f"The 'lr' parameter of LinearMonitor must be a number above 0. Got {self.lr!r}.")
        _check_monitor(self)
        self.head_: _OnlineClassifier | None = None
        return self

    def on_train_begin(self, net: Trainer, X: Images, **kwargs: Any) -> None:
        """Encode the labels, and read the test images in the same way as those of the training."""
        source, y = net.given
        y = y if self.y is None else self.y
        y = labels_in(source, X) if y is None else y
        if y is None:
            raise ValueError(
                "LinearMonitor needs the classes of the training images: pass y to fit or to LinearMonitor, or fit a "
                "data set of items (image, label)."
            )
        labels = as_labels(y)
        if X.kept is not None and len(labels) == len(X.kept):
            labels = labels[X.kept]
        if len(labels) != len(X):
            raise ValueError(f"y must have one class for each image: expected {len(X)} classes, got {len(labels)}.")
        known = np.flatnonzero(known_labels(labels))
        names = np.array(labels[known].tolist())
        self.classes_, codes = np.unique(names, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"LinearMonitor needs images of at least two classes. Got {self.classes_.tolist()} and "
                f"{len(labels) - len(known)} images of class -1."
            )
        if self.X_test is None:
            test = _hold_out("LinearMonitor", names)
            self.test_, test_labels = X.take(torch.from_numpy(known[test])), names[test]
            known, codes = np.delete(known, test), np.delete(codes, test)
        else:
            self.test_, test_labels = _read_test(self, _reader_like(net, X), names)
        self.chance_ = {"linear": _share_of_most_frequent(self.classes_[codes], test_labels)}
        targets = np.full(len(labels), -1)
        targets[known] = codes
        device = torch.device(net.device)
        self.targets_ = torch.from_numpy(targets).to(device)
        self.test_targets_ = torch.from_numpy(np.searchsorted(self.classes_, test_labels)).to(device)
        if self.head_ is None:
            self.head_ = _OnlineClassifier(net.module_.dim, len(self.classes_), self.lr)
        self.head_.to(device)

    def on_batch_begin(self, net: Trainer, batch: Batch, **kwargs: Any) -> None:
        """Wait for the encoder to encode the first view."""
        self.features_: Tensor | None = None
        self._remove_hook()
        if not batch.views or net.compiled:
            return
        view = batch.views[0]

        def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            images = inputs[0]
            same = images.data_ptr() == view.data_ptr() and images.stride() == view.stride()
            if self.features_ is None and same and images.shape[1:] == view.shape[1:] and len(images) >= len(view):
                self.features_ = output[: len(view)].detach().to(torch.float32, copy=True)

        self.hook_ = net.module_.encoder.register_forward_hook(keep)

    @torch.no_grad()
    def on_batch_end(self, net: Trainer, batch: Batch, **kwargs: Any) -> None:
        """Train the classifier on the features of the step."""
        self._remove_hook()
        if self.features_ is None:
            view = batch.views[0] if batch.views else net.augmentations[0].eval_transform(batch.images)
            with eval_mode(net.module_.encoder), mixed_precision(net.dtype, torch.device(net.device)):
                self.features_ = net.module_.encoder(view).float()
        assert self.head_ is not None  # made when the training began
        self.head_.train_step(all_gather(self.features_), all_gather(self.targets_.index_select(0, batch.index)))

    def on_train_end(self, net: Trainer, **kwargs: Any) -> None:
        """Remove the hook of a step that was interrupted."""
        self._remove_hook()

    def _remove_hook(self) -> None:
        """Remove the hook from the encoder, if there is one."""
        if hasattr(self, "hook_"):
            self.hook_.remove()
            del self.hook_

    def on_epoch_end(self, net: Trainer, **kwargs: Any) -> None:
        """Encode the test images and record the accuracy."""
        if len(net.history) % self.every:
            return
        device = torch.device(net.device)
        features = encode(net.module_.encoder, self.test_, net.augmentations[0], device, net.dtype, device)
        assert self.head_ is not None  # made when the training began
        predicted = self.head_.eval()(features).argmax(1)
        net.history.record("linear", float((predicted == self.test_targets_).double().mean()))

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint.

        Returns
        -------
        dict of str to Tensor
            The classifier's weights, their velocities and the statistics of the features.
        """
        return {} if self.head_ is None else dict(self.head_.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint.

        Parameters
        ----------
        state : dict of str to Tensor
            The return value of `state_dict`.
        """
        assert self.head_ is not None  # made when the training began
        self.head_.load_state_dict(state)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with the classifier on the CPU, without images and labels, which are read again."""
        state = {name: value for name, value in vars(self).items() if not name.endswith("_") or name == "chance_"}
        head = getattr(self, "head_", None)
        return {**state, "head_": None if head is None else portable(head)}


class _OnlineClassifier(nn.Module):
    """A linear classifier of standardised features that is trained by SGD with momentum 0.9."""

    weight: Tensor
    speed: Tensor

    def __init__(self, dim: int, n_classes: int, lr: float) -> None:
        super().__init__()
        self.lr = lr
        self.norm = nn.BatchNorm1d(dim, affine=False)
        self.register_buffer("weight", torch.zeros(n_classes, dim + 1))  # the last column is the bias
        self.register_buffer("speed", torch.zeros(n_classes, dim + 1))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (n, d) to logits (n, n_classes)."""
        return nn.functional.linear(self.norm(features), self.weight[:, :-1], self.weight[:, -1])

    @torch.no_grad()
    def train_step(self, features: Tensor, labels: Tensor) -> None:
        """Take a step on features (n, d) of classes (n,), without those of class -1."""
        inputs = nn.functional.pad(self.train().norm(features), (0, 1), value=1.0)  # (n, d + 1)
        known = labels >= 0
        residual = (inputs @ self.weight.T).softmax(1)
        residual.scatter_add_(1, labels.clamp(min=0)[:, None], residual.new_full((len(labels), 1), -1.0))
        residual *= (known / known.sum().clamp(min=1))[:, None]
        self.speed.mul_(0.9).add_(residual.T @ inputs)
        self.weight.sub_(self.speed, alpha=self.lr)


def _check_monitor(monitor: Any) -> None:
    """Check the parameters that KNNMonitor and LinearMonitor share."""
    name = type(monitor).__name__
    refuse_loader(monitor.X_test)
    if monitor.X_test is None and monitor.y_test is not None:
        raise ValueError(f"{name} needs X_test, the images to which y_test belongs.")
    if not isinstance(monitor.every, Integral) or monitor.every < 1:
        raise ValueError(f"The 'every' parameter of {name} must be an integer of at least 1. Got {monitor.every!r}.")


def _reader_like(net: Trainer, images: Images) -> Callable[[Any], Images]:
    """Return a function that reads images in the same way as those of the training."""
    method = net.module_.method
    like: Any = {"shape": images.shape, "scale": images.scale, "whole": isinstance(images, Photographs)}
    return getattr(method, "read", None) or partial(method._as_images, reset=False, **like)


def _read_labelled(
    name: str, read: Callable[[Any], Images], X: Any, y: Any, classes: np.ndarray | None = None
) -> tuple[Images, np.ndarray]:
    """Read images and their classes, without those of unknown class, see `known_labels`."""
    images = read(X)
    y = labels_in(X, images) if y is None else as_labels(y)
    if y is None:
        raise ValueError(
            f"{name} needs the classes of its images. Pass y, and y_test with X_test, or data sets of items "
            "(image, label)."
        )
    check_consistent_length(range(len(images)), y)
    known = np.flatnonzero(known_labels(y, classes))
    if not len(known):
        raise ValueError(f"{name} needs labelled images, but all labels are -1.")
    labels = np.array(y[known].tolist())
    return images.take(torch.from_numpy(known)), labels


def _read_test(monitor: Any, read: Callable[[Any], Images], labels: np.ndarray) -> tuple[Images, np.ndarray]:
    """Read the test images and their classes, which must be among the labels."""
    name = type(monitor).__name__
    test, test_labels = _read_labelled(name, read, monitor.X_test, monitor.y_test, np.unique(labels))
    unseen = sorted(set(test_labels.tolist()) - set(labels.tolist()))
    if unseen:
        raise ValueError(f"y_test of {name} must hold only classes of y. Got {unseen[0]!r}, which y does not hold.")
    return test, test_labels


def _share_of_most_frequent(labels: np.ndarray, test_labels: np.ndarray) -> float:
    """Return the accuracy of predicting the most frequent class for all test images."""
    classes, counts = np.unique(labels, return_counts=True)
    return float((test_labels == classes[counts.argmax()]).mean())


def _hold_out(name: str, labels: np.ndarray) -> np.ndarray:
    """Return the indices of a random fifth, without one image of each class."""
    draw = np.random.RandomState(0).permutation(len(labels))
    _, kept = np.unique(labels[draw], return_index=True)
    test = np.delete(draw, kept)[: math.ceil(len(labels) / 5)]
    if not len(test):
        raise ValueError(f"{name} cannot hold out the only image of each class: pass X_test and y_test.")
    return test


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

    References
    ----------
    Towards Efficient and Effective Self-Supervised Learning of Visual Representations (EffSSL), ECCV 2022, supplement,
    section 6, after Mitrovic et al., 2020. It uses the ratio of the mean to the variance and states neither beta nor
    the parameters; the absolute value keeps signed means from cancelling.

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
