"""Linear evaluation: softmax regression at its optimum, or trained by SGD as in the papers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import ParameterGrid, train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions, validate_parameter_constraints
from sklearn.utils.validation import _check_sample_weight
from torch import nn
from tqdm.auto import tqdm

from skssl.augment.augmentation import Augmentation
from skssl.images.labels import weigh_samples
from skssl.probes.base import Probe, take_array
from skssl.probes.lbfgs import SoftmaxRegression
from skssl.probes.protocols import LINEAR, LINEAR_DEFAULTS
from skssl.probes.sgd import (
    SCHEDULES,
    AugmentedFeatures,
    FeatureSource,
    FixedFeatures,
    LinearHeads,
    normalize_weights,
    resolve_augmentation,
    train_head,
)
from skssl.storage.saving import Field, is_int

MAX_HEADS = 16  # candidates trained at once

Rows = np.ndarray | slice  # indices of samples
Solution = tuple[np.ndarray, np.ndarray]  # (n_classes, n_features) and (n_classes,), both float64


@dataclass(kw_only=True, eq=False, repr=False)
class LinearProbe(Probe):
    r"""Softmax regression on features, trained on the device: the linear evaluation of representations.

    By default the probe is the *optimum* of the same objective as scikit-learn's ``LogisticRegression``,

    .. math:: \sum_i -s_i \log p(y_i \mid x_i) + \frac{1}{2C} \lVert W \rVert^2,

    with sample weights :math:`s_i` of 1 by default, and an unpenalised intercept. The score then depends on the
    features alone, and not on a learning rate or a number of epochs. L-BFGS runs on standardised features and starts
    from the Gram matrix as an approximation of the Hessian. This leaves the optimum unchanged, and badly conditioned
    features, which are typical of networks, take about twenty iterations instead of hundreds. With a `protocol` or
    ``solver="sgd"`` the probe is trained as in the papers.

    Parameters
    ----------
    protocol : {"effssl", "simsiam", "gsg", "moco", "swav", "solo-learn", "decoupling", "transfer"}, default=None
        The paper whose settings replace None below, see the notes. Without a protocol None is the value named
        last.
    C : float in (0, inf] or sequence of float, default=None
        The inverse strength of the penalty on the weights, as in ``LogisticRegression``. None is the protocol's, or 1.
    weight_decay : float in [0, inf) or sequence of float, default=None
        The strength of the penalty relative to the *mean* cross-entropy, as in the papers:
        ``C = 1 / (n_samples * weight_decay)``, where n_samples is the sum of the weights if there are any. If given, it
        replaces ``C``. None is the protocol's, or ``C``.
    solver : {"lbfgs", "sgd", "larc"}, default=None
        "lbfgs" finds the optimum. "sgd" and "larc" take ``epochs`` passes over the features; "larc" scales its steps to
        the norm of the weights, see `optim.LARC`. None is the protocol's, or "lbfgs".
    max_iter : int, default=1000
        The maximum number of iterations of "lbfgs". A warning is issued when it is reached.
    tol : float, default=1e-4
        The tolerance of "lbfgs". It stops when no entry of the gradient with respect to the weights of the standardised
        features exceeds `tol` times the objective, or when float32 resolves no further decrease.
    epochs : int, default=None
        The number of passes over the data of "sgd" and "larc". None is the protocol's, or 100.
    batch_size : int, default=None
        The number of samples in a step. A last batch of one sample joins the one before it. None is the protocol's, or
        512.
    lr : float or sequence of float, default=None
        The initial learning rate, not scaled by the batch size. None is the protocol's, or 0.1.
    momentum : float in [0, 1), default=None
        The momentum. None is 0.9.
    nesterov : bool, default=None
        Whether "sgd" uses Nesterov's momentum. None is False.
    schedule : {"constant", "cosine", "epoch_cosine", "multistep"} or sequence, default=None
        The schedule of the learning rate: constant; half a cosine down to zero, step by step or epoch by epoch; or
        multiplied by 0.1 after 60 % and again after 80 % of the training. Numbers are shares of the training at which
        the rate is multiplied by 0.2, as for `FineTuner`, and pairs are shares and the factor from there on. None is
        the protocol's, or "cosine".
    init_std : float, default=None
        The standard deviation of the initial weights of "sgd" and "larc". None is the protocol's, or 0.
    augment : str or Augmentation, default=None
        The augmentation of the training images in every epoch, for "sgd" and "larc" with an `encoder`: a name of
        `augment.preset`, whose first view is used, an augmentation, or "none". The mean and the standard deviation are
        the encoder's. Predictions never augment. None is the protocol's, or "none".
    class_weight : {"balanced"} or dict, default=None
        The weight of each class, as in ``LogisticRegression``: "balanced" gives all classes the same total weight, and
        a class that is missing from a dict has the weight 1.
    validation_fraction : float in (0, 1), default=0.2
        The stratified share of the samples that is held out if ``C``, ``weight_decay`` or ``lr`` is a sequence. The
        first combination with the highest accuracy on it is chosen, and trained on all samples.
    random_state : int, RandomState instance or None, default=None
        The seed of the held-out share, the initial weights, the order of the samples and the augmentation. "lbfgs" with
        a single penalty is deterministic.

    Attributes
    ----------
    coef_ : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
        The weights, in the dtype of the features.
    intercept_ : ndarray of shape (n_classes,), or (1,) for two classes
        The intercepts.
    best_params_ : dict
        The chosen values by parameter; empty if no parameter is a sequence.
    validation_scores_ : ndarray of shape (n_candidates,)
        The accuracies on the held-out share, in the order of ``sklearn.model_selection.ParameterGrid``; empty if no
        parameter is a sequence.
    classes_ : ndarray of shape (n_classes,)
        The class labels.
    n_iter_ : int
        The number of iterations of "lbfgs", or of epochs of "sgd" and "larc".
    encoder_ : Encoder or None
        The encoder, if there is one.
    n_features_in_ : int
        The number of features, or of values in an image.

    Raises
    ------
    ValueError
        On ``fit``, if a parameter is invalid, the labels hold a single class, the held-out share leaves a class empty,
        or "sgd" diverges; on ``score``, if a class is missing from the training labels.

    Notes
    -----
    ============  ======  ======  ==========  =========================  ============  ================
    protocol      solver  epochs  batch_size  chosen or fixed            schedule      augmentation
    ============  ======  ======  ==========  =========================  ============  ================
    "effssl"      sgd     100     512         lr of 0.1, 0.5, 1, 1.5, 2  cosine        none
    "simsiam"     larc    90      4096        lr=1.6                     epoch_cosine  crops and flips
    "gsg"         sgd     90      256         lr=30                      epoch_cosine  crops and flips
    "moco"        sgd     100     256         lr=30                      multistep     crops and flips
    "swav"        sgd     100     256         lr=0.3                     epoch_cosine  crops and flips
    "solo-learn"  sgd     100     256         lr=1                       multistep     crops and flips
    "decoupling"  sgd     65      192         lr=0.01                    multistep     crops of 7/8 of
                                                                                       the side, flips
    "transfer"    lbfgs                       C = 1 / w, w 45 values     \             none
                                              from 1e-6 to 1e5
    ============  ======  ======  ==========  =========================  ============  ================

    - Crops and flips are torchvision's ``RandomResizedCrop`` and ``RandomHorizontalFlip``. They require an `encoder`;
      on features the rest of the protocol applies.
    - All but "transfer" use momentum 0.9, and no weight decay except for "swav" (1e-6) and "decoupling" (5e-4). All but
      "transfer" and "effssl" draw the initial weights with a standard deviation of 0.01, "decoupling" of 0.1.
    - "effssl" is EffSSL [1]_ on CIFAR. The paper states neither the schedule, nor the weight decay, nor the data on
      which the best learning rate is chosen. For SimSiam it uses crops, flips and ``lr=30``:
      ``protocol="gsg", epochs=100, batch_size=512``.
    - "simsiam" is SimSiam's code [2]_; the paper states ``lr=0.32``.
    - "gsg" is guided stop-gradient [3]_ on CIFAR-10, with the augmentation of its script for ImageNet. On ImageNet the
      rest of its protocol is "simsiam".
    - "moco" is MoCo's code [4]_, "swav" SwAV's, which EffSSL uses for SwAV, with 30 epochs on ImageNet. "solo-learn" is
      solo-learn's script for SimCLR on ImageNet-100, which EffSSL uses there.
    - "decoupling" is the code of rotation feature decoupling, for ``layer="conv5"`` of an AlexNet, with Nesterov's
      momentum. The rate falls to a fifth at epochs 5, 25 and 45. Its BatchNorm before the layer is left out.
    - "transfer" is [5]_, where the held-out fifth is not stratified and L-BFGS stops after 100 iterations.

    A learning rate of 30 assumes features of small norm. SimCLR [6]_ on CIFAR-10 is ``solver="sgd", lr=0.2,
    weight_decay=0, nesterov=True``.

    References
    ----------
    .. [1] "Towards Efficient and Effective Self-Supervised Learning of Visual Representations", ECCV 2022, section 4.1.
    .. [2] Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021, appendix A.
    .. [3] Lee and Lee, "Implicit Contrastive Representation Learning with Guided Stop-gradient", NeurIPS 2023.
    .. [4] He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020.
    .. [5] Ericsson et al., "How Well Do Self-Supervised Models Transfer?", CVPR 2021.
    .. [6] Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> probe = LinearProbe(C=10.0, device="cpu").fit(X, y)
    >>> round(probe.score(X, y), 2)
    0.98
    >>> LinearProbe(protocol="effssl", epochs=10, device="cpu", random_state=0).fit(X, y).best_params_
    {'lr': 0.1}
    """

    protocol: str | None = None
    C: float | Sequence[float] | None = None
    weight_decay: float | Sequence[float] | None = None
    solver: str | None = None
    max_iter: int = 1000
    tol: float = 1e-4
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | Sequence[float] | None = None
    momentum: float | None = None
    nesterov: bool | None = None
    schedule: str | Sequence[Any] | None = None
    init_std: float | None = None
    augment: str | Augmentation | None = None
    class_weight: str | Mapping[Any, float] | None = None
    validation_fraction: float = 0.2
    random_state: int | np.random.RandomState | None = None

    saved_fields: ClassVar[dict[str, Field]] = {
        **Probe.saved_fields,
        "n_iter": Field(is_int(0), "a number of iterations"),
        "best_params": Field(
            lambda value: type(value) is dict and all(type(of) in (int, float) for of in value.values()),
            "a dict of numbers",
        ),
    }
    protocols: ClassVar[dict[str, dict[str, Any]]] = LINEAR
    defaults: ClassVar[dict[str, Any]] = LINEAR_DEFAULTS

    #: The parameters that may be sequences, and the range of each value.
    _ranges: ClassVar[dict[str, list[Any]]] = {
        "C": [Interval(Real, 0, None, closed="right")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
    }

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **Probe._parameter_constraints,
        **{name: [*interval, "array-like", None] for name, interval in _ranges.items()},
        "protocol": [str, None],
        "solver": [StrOptions({"lbfgs", "sgd", "larc"}), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "epochs": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "momentum": [Interval(Real, 0, 1, closed="left"), None],
        "nesterov": ["boolean", None],
        "schedule": [StrOptions(set(SCHEDULES)), tuple, list, None],
        "init_std": [Interval(Real, 0, None, closed="left"), None],
        "augment": [str, Augmentation, None],
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "random_state": ["random_state"],
    }

    def fit(self, X: Any, y: npt.ArrayLike | None = None, sample_weight: npt.ArrayLike | None = None) -> LinearProbe:
        """Train the probe.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or images
            The features, or the images if there is an `encoder`.
        y : array-like of shape (n_samples,), default=None
            The labels: numbers or strings. Samples of unknown class, -1, are left out, with a warning that says how
            many. An encoder that is not fitted is trained on all. Labels that are all -1 or 1 are two classes. None
            takes the labels in X, such as a data set of items (image, label).
        sample_weight : array-like of shape (n_samples,), default=None
            The weight of each sample in the loss. A weight of 2 counts as two samples, and a sample of weight 0 is left
            out. None is 1 for all.

        Returns
        -------
        LinearProbe
            The fitted probe.
        """
        X, labels, known = self._check_X_y(X, y)
        codes = self._codes(labels[known])
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, labels)[known]
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        candidates = self._candidates()
        weights = weigh_samples(self.class_weight, sample_weight, self.classes_, codes, "LinearProbe")
        used = slice(None) if weights is None else np.flatnonzero(weights)
        split = self._hold_out(codes, used, seed) if len(candidates) > 1 else None
        samples = self._read_samples(X, labels, known)
        augment = resolve_augmentation(self.encoder_, self.setting("augment"), samples.shape, known)
        features: Any = None if augment and split is None else self._encode_samples(samples)
        learn: Callable[[Rows, list[dict[str, float]]], Iterator[Solution]]
        if self.setting("solver") == "lbfgs":
            learn = partial(self._solve_lbfgs, features, codes, weights)
        else:
            source = (
                AugmentedFeatures(samples, self.encoder_, augment) if augment else FixedFeatures(features, self._device)
            )
            learn = partial(self._train_sgd, source, torch.from_numpy(codes).to(self._device), weights, seed)
        self.best_params_, self.validation_scores_ = candidates[0], np.empty(0)
        if split is not None:
            rows, held_out = split
            scores = []
            bar = tqdm(
                learn(rows, candidates), "LinearProbe", len(candidates), unit=" candidates", disable=not self.verbose
            )
            for coef, intercept in bar:
                logits = features[held_out] @ coef.T + intercept
                shares = None if sample_weight is None else np.asarray(sample_weight)[held_out]
                scores.append(np.average(logits.argmax(axis=1) == codes[held_out], weights=shares))
            self.validation_scores_ = np.array(scores)
            self.best_params_ = candidates[int(self.validation_scores_.argmax())]
        ((coef, intercept),) = learn(used, [self.best_params_])
        if len(self.classes_) == 2:
            coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
        dtype = np.float32 if self.encoder_ else X.dtype
        self.coef_, self.intercept_ = coef.astype(dtype), intercept.astype(dtype)
        return self

    def _pack_learned(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        arrays = {"coef": self.coef_, "intercept": self.intercept_, "validation_scores": self.validation_scores_}
        values = {"n_iter": self.n_iter_, "best_params": self.best_params_}
        return values, {name: torch.tensor(array) for name, array in arrays.items()}

    def _set_learned(self, values: Mapping[str, Any], tensors: dict[str, torch.Tensor], width: int) -> None:
        rows, floats = 1 if len(self.classes_) == 2 else len(self.classes_), (torch.float32, torch.float64)
        self.coef_ = take_array(tensors, "coef", (rows, width), *floats)
        self.intercept_ = take_array(tensors, "intercept", (rows,), *floats)
        self.validation_scores_ = take_array(tensors, "validation_scores", (-1,), torch.float64)
        self.n_iter_, self.best_params_ = values["n_iter"], values["best_params"]

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or images
            The features, or the images if there is an `encoder`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            The logit of each class; for two classes the logit of ``classes_[1]`` against ``classes_[0]``.
        """
        logits = self._encode_queries(X) @ self.coef_.T + self.intercept_
        return logits.ravel() if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the class probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or images
            The features, or the images if there is an `encoder`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            The probabilities, in the order of ``classes_``.
        """
        logits = self.decision_function(X)
        if logits.ndim == 1:
            logits = np.stack([np.zeros_like(logits), logits], axis=1)
        return softmax(logits, axis=1)

    def _validate_params(self) -> None:
        """Check the parameters and their combinations."""
        super()._validate_params()
        self._candidates()
        augment = self.setting("augment")
        if self.encoder is not None and augment not in (None, "none") and self.setting("solver") == "lbfgs":
            raise ValueError(
                f"solver='lbfgs' needs fixed features, but augment={augment!r} changes them in every epoch: set "
                "solver='sgd' or augment='none'."
            )

    @property
    def _penalty(self) -> str:
        """The name of the parameter that sets the penalty: the user's choice, or the protocol's."""
        by_user = [name for name in ("weight_decay", "C") if getattr(self, name) is not None]
        return next(iter(by_user), "C" if self.setting("weight_decay") is None else "weight_decay")

    def _candidates(self) -> list[dict[str, float]]:
        """Return the combinations of the parameters that are sequences; one empty dict if there are none."""
        names = [self._penalty] if self.setting("solver") == "lbfgs" else [self._penalty, "lr"]
        several = {name: np.ravel(self.setting(name)).tolist() for name in names if np.ndim(self.setting(name))}
        candidates = list(ParameterGrid(several))
        for candidate in candidates:
            validate_parameter_constraints(self._ranges, candidate, caller_name=type(self).__name__)
        return candidates

    def _hold_out(self, codes: np.ndarray, used: Rows, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Split the indices in use into a training share, which holds every class, and a held-out share."""
        indices, codes = np.arange(len(codes))[used], codes[used]
        n, counts = len(codes), np.bincount(codes)
        n_held = math.ceil(self.validation_fraction * n)
        if counts.min() >= 2 and len(counts) <= n_held <= n - len(counts):
            rows, held = train_test_split(np.arange(n), test_size=n_held, stratify=codes, random_state=seed)
            if len(np.unique(codes[rows])) == len(counts):
                return indices[rows], indices[held]
        raise ValueError(
            f"validation_fraction={self.validation_fraction} of {n} samples leaves a class empty. It is held out to "
            f"choose {' and '.join(self._candidates()[0])}, and the smallest of the {len(counts)} classes, "
            f"{self.classes_.tolist()[counts.argmin()]!r}, has {counts.min()} samples."
        )

    def _weight_decay(self, candidate: dict[str, float], n: float) -> float:
        """Return the strength of the penalty relative to the mean cross-entropy of samples of total weight n."""
        value = candidate.get(self._penalty, self.setting(self._penalty))
        decay = value if self._penalty == "weight_decay" else 1 / (n * value)
        # The two rows ±w / 2 of a softmax equal the weights w of a logistic regression and have half their square.
        return decay * 2 if len(self.classes_) == 2 else decay

    def _solve_lbfgs(
        self,
        features: np.ndarray,
        codes: np.ndarray,
        weights: np.ndarray | None,
        rows: Rows,
        candidates: list[dict[str, float]],
    ) -> Iterator[Solution]:
        """Solve by L-BFGS on some samples for each candidate in turn."""
        shares = None if weights is None else weights[rows]
        total = len(codes[rows]) if shares is None else shares.sum()
        problem = SoftmaxRegression(features[rows], codes[rows], self._device, shares)
        for candidate in candidates:
            decay = self._weight_decay(candidate, total)
            coef, intercept, self.n_iter_, converged = problem.minimise(decay, self.tol, self.max_iter)
            if not converged:
                warnings.warn(
                    f"LinearProbe did not converge in max_iter={self.max_iter} iterations: the largest entry of the "
                    f"gradient exceeds tol={self.tol} of the objective. Increase max_iter or tol.",
                    ConvergenceWarning,
                    stacklevel=3,
                )
            yield coef, intercept

    def _train_sgd(
        self,
        features: FeatureSource,
        labels: torch.Tensor,
        weights: np.ndarray | None,
        seed: int,
        rows: Rows,
        candidates: list[dict[str, float]],
    ) -> Iterator[Solution]:
        """Train by SGD on some samples, up to `MAX_HEADS` candidates at once."""
        numbers, n_classes = torch.arange(len(labels))[rows], len(self.classes_)
        names = ("solver", "epochs", "batch_size", "momentum", "nesterov", "schedule")
        settings = {name: self.setting(name) for name in names}
        self.n_iter_ = settings["epochs"]
        total = len(numbers) if weights is None else weights[rows].sum()

        def make(n_heads: int, width: int) -> nn.Module:
            layer = nn.Linear(width, n_classes)
            nn.init.normal_(layer.weight, std=self.setting("init_std"))
            nn.init.zeros_(layer.bias)
            return LinearHeads(layer, n_heads)

        for some in (candidates[i : i + MAX_HEADS] for i in range(0, len(candidates), MAX_HEADS)):
            heads = train_head(
                partial(make, len(some)),
                features,
                numbers,
                labels,
                lr=[candidate.get("lr", self.setting("lr")) for candidate in some],
                weight_decay=[self._weight_decay(candidate, total) for candidate in some],
                seed=seed,
                verbose=self.verbose,
                weights=None if weights is None else normalize_weights(weights, numbers, labels.device),
                **settings,
            )
            yield from zip(*(param.detach().numpy().astype(np.float64) for param in heads.parameters()), strict=True)
