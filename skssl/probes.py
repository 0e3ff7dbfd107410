"""Probes: how well simple classifiers on frozen features recover the classes."""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import normalize
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from skssl.devices import resolve_device

DTYPES = [np.float64, np.float32]
WIDEST_WHITENED = 4096  # with more features than this the preconditioner is diagonal
BANK_ROWS = 16384  # training rows that one block of queries is compared with at a time


@dataclass(kw_only=True, eq=False, repr=False)
class LinearProbe(ClassifierMixin, BaseEstimator):
    r"""Softmax regression on features, trained on the device: the linear evaluation of representations.

    By default the probe is the *optimum* of the same objective as scikit-learn's ``LogisticRegression``,

    .. math:: \sum_i -\log p(y_i \mid x_i) + \frac{1}{2C} \lVert W \rVert^2,

    with a free intercept, so that a score depends on the features alone and not on a learning rate or a
    number of epochs. It is found by L-BFGS on standardised features, which starts from the Gram matrix as its
    guess of the Hessian. This changes the way and not the goal: badly conditioned features, which is what
    networks give, take some twenty iterations instead of hundreds. With ``solver="sgd"`` it is trained as the
    papers train it.

    Parameters
    ----------
    C : float in (0, inf], default=1.0
        The inverse strength of the penalty on the weights, as in ``LogisticRegression``.
    weight_decay : float in [0, inf), default=None
        The strength of the penalty as the papers count it, on the *mean* cross-entropy:
        ``C = 1 / (n_samples * weight_decay)``. If given, it takes the place of ``C``.
    solver : {"lbfgs", "sgd"}, default="lbfgs"
        "lbfgs" goes to the optimum; "sgd" takes ``epochs`` passes over the features as they are, from zero
        weights.
    max_iter : int, default=1000
        The most iterations of "lbfgs"; reaching it warns.
    tol : float, default=1e-4
        "lbfgs" has converged when no entry of the gradient with respect to the weights of the standardised
        features exceeds this times the objective, or when float32 can show no further gain.
    epochs : int, default=100
        The passes over the data of "sgd".
    batch_size : int, default=512
        The samples in a step of "sgd".
    lr : float, default=0.1
        The (initial) learning rate of "sgd", used as it is and not scaled by the batch size.
    momentum : float in [0, 1), default=0.9
        The momentum of "sgd".
    nesterov : bool, default=False
        Whether the momentum is Nesterov's.
    schedule : {"cosine", "steps", "constant"}, default="cosine"
        The learning rate of "sgd": half a cosine down to zero, a tenth after 60 % and again after 80 % of the
        training, or constant.
    device : str or torch.device, default="auto"
        Where it is trained; "auto" takes CUDA, then MPS, then the CPU. A fitted probe is plain NumPy.
    random_state : int, RandomState instance or None, default=None
        The seed of the order of the samples in "sgd"; "lbfgs" draws nothing.

    Attributes
    ----------
    coef_ : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
        The weights, of the features' dtype.
    intercept_ : ndarray of shape (n_classes,), or (1,) for two classes
        The intercepts.
    classes_ : ndarray of shape (n_classes,)
        The class labels.
    n_iter_ : int
        The iterations of "lbfgs" or the epochs of "sgd".
    n_features_in_ : int
        The number of features.

    Raises
    ------
    ValueError
        On ``fit``: if a parameter is out of its range, the labels hold a single class, or "sgd" diverges.

    Notes
    -----
    Settings of the papers, all with ``solver="sgd"``, momentum .9 and ``weight_decay=0``:

    - MoCo [1]_: ``lr=30, batch_size=256, epochs=100, schedule="steps"``
    - SimCLR [2]_ on CIFAR-10: ``lr=0.2, batch_size=512, epochs=100, nesterov=True``
    - GSG [3]_ on CIFAR-10: ``lr=30, batch_size=256, epochs=90``

    A learning rate of 30 presumes features of small norm.

    References
    ----------
    .. [1] He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020.
    .. [2] Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020.
    .. [3] Lee et al., "Implicit Contrastive Representation Learning with Guided Stop-gradient", NeurIPS 2023.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> probe = LinearProbe(C=10.0, device="cpu").fit(X, y)
    >>> round(probe.score(X, y), 2)
    0.98
    """

    C: float = 1.0
    weight_decay: float | None = None
    solver: str = "lbfgs"
    max_iter: int = 1000
    tol: float = 1e-4
    epochs: int = 100
    batch_size: int = 512
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    schedule: str = "cosine"
    device: str | torch.device = "auto"
    random_state: int | np.random.RandomState | None = None

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "C": [Interval(Real, 0, None, closed="right")],
        "weight_decay": [Interval(Real, 0, None, closed="left"), None],
        "solver": [StrOptions({"lbfgs", "sgd"})],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "nesterov": ["boolean"],
        "schedule": [StrOptions({"cosine", "steps", "constant"})],
        "device": [str, torch.device],
        "random_state": ["random_state"],
    }

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> LinearProbe:
        """Train the probe.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The features.
        y : array-like of shape (n_samples,)
            The labels, numbers or strings.

        Returns
        -------
        LinearProbe
            The fitted probe.
        """
        self._validate_params()
        features, labels = validate_data(self, X, y, dtype=DTYPES)
        self.classes_, codes = _encode(labels)
        n, n_classes = len(features), len(self.classes_)
        if n_classes < 2:
            raise ValueError(
                "LinearProbe needs samples of at least 2 classes in the data, but the data contains only one "
                f"class: {self.classes_[0]!r}."
            )
        device = resolve_device(self.device)
        decay = 1 / (n * self.C) if self.weight_decay is None else self.weight_decay
        # Two rows of a softmax, ±w / 2, stand for a logistic regression's one, w, and have half its square.
        decay *= 2 if n_classes == 2 else 1
        Y = torch.nn.functional.one_hot(torch.from_numpy(codes), n_classes).to(device, torch.float32)
        solve = {"lbfgs": self._optimum, "sgd": self._descend}[self.solver]
        coef, intercept = solve(features, Y, decay)  # (n_classes, n_features), (n_classes,), both float64
        if n_classes == 2:
            coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
        self.coef_, self.intercept_ = coef.astype(features.dtype), intercept.astype(features.dtype)
        return self

    def decision_function(self, X: npt.ArrayLike) -> np.ndarray:
        """Give the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The features.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            The logit of each class; for two classes that of ``classes_[1]`` against ``classes_[0]``.
        """
        check_is_fitted(self)
        features = validate_data(self, X, dtype=DTYPES, reset=False)
        logits = features @ self.coef_.T + self.intercept_
        return logits.ravel() if len(self.classes_) == 2 else logits

    def predict_proba(self, X: npt.ArrayLike) -> np.ndarray:
        """Give the probability of every class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The features.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            The probabilities, in the order of ``classes_``.
        """
        logits = self.decision_function(X)
        if logits.ndim == 1:
            logits = np.stack([np.zeros_like(logits), logits], axis=1)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    def predict(self, X: npt.ArrayLike) -> np.ndarray:
        """Give the most probable class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The features.

        Returns
        -------
        ndarray of shape (n_samples,)
            The labels.
        """
        logits = self.decision_function(X)
        return self.classes_[(logits > 0).astype(int) if logits.ndim == 1 else logits.argmax(axis=1)]

    def _optimum(self, X: np.ndarray, Y: Tensor, decay: float) -> tuple[np.ndarray, np.ndarray]:
        """Minimise over the weights of the standardised features, the penalty still on those of X."""
        shift = X.mean(axis=0)  # taken off in X's precision: features may be far from zero
        A = torch.ones(len(X), X.shape[1] + 1)  # the last column is the intercept's
        A[:, :-1] = torch.from_numpy(X - shift)
        A = A.to(Y.device)
        scale = A[:, :-1].square().mean(dim=0).sqrt()
        # What varies less than float32 can tell apart is not blown up.
        scale = torch.where(scale.cpu() > 1e-6 * torch.from_numpy(np.abs(shift)), scale.cpu(), 1.0).to(A)
        A[:, :-1] /= scale
        penalty = torch.nn.functional.pad(decay / scale.square(), (0, 1))[:, None]  # (n_features + 1, 1)
        W, self.n_iter_, converged = _minimise(A, Y, penalty, self.tol, self.max_iter)
        if not converged:
            warnings.warn(
                f"LinearProbe did not converge in max_iter={self.max_iter} iterations: the largest entry of "
                f"the gradient is still above tol={self.tol} of the objective. Increase max_iter or tol.",
                ConvergenceWarning,
                stacklevel=3,
            )
        weights = W.cpu().numpy().astype(np.float64).T
        coef = weights[:, :-1] / scale.cpu().numpy().astype(np.float64)
        return coef, weights[:, -1] - coef @ shift.astype(np.float64)

    def _descend(self, X: np.ndarray, Y: Tensor, decay: float) -> tuple[np.ndarray, np.ndarray]:
        """Train by SGD with momentum, from zero weights."""
        features = torch.tensor(X, dtype=torch.float32, device=Y.device)
        n, n_steps = len(features), self.epochs * math.ceil(len(features) / self.batch_size)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        generator = torch.Generator().manual_seed(int(seed))
        params = [Y.new_zeros(Y.shape[1], features.shape[1]), Y.new_zeros(Y.shape[1])]
        speeds = [torch.zeros_like(param) for param in params]
        step = 0
        for _ in range(self.epochs):
            for rows in torch.randperm(n, generator=generator).to(Y.device).split(self.batch_size):
                lr = self.lr * _lr_factor(self.schedule, step / n_steps)
                x = features[rows]
                residual = _residual(torch.addmm(params[1], x, params[0].T), Y[rows]) / len(x)
                grads = [residual.T @ x + decay * params[0], residual.sum(dim=0)]
                for param, speed, grad in zip(params, speeds, grads, strict=True):
                    speed.mul_(self.momentum).add_(grad)
                    param.sub_(lr * (grad + self.momentum * speed if self.nesterov else speed))
                step += 1
        self.n_iter_ = self.epochs
        coef, intercept = (param.cpu().numpy().astype(np.float64) for param in params)
        if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
            raise ValueError(
                f"SGD diverged: with lr={self.lr} the weights are not finite. Lower lr or scale the features."
            )
        return coef, intercept


@dataclass(kw_only=True, eq=False, repr=False)
class KNNProbe(ClassifierMixin, BaseEstimator):
    """Vote of the nearest training samples by cosine similarity: an evaluation without any training.

    A class's score is the sum over its samples among the ``n_neighbors`` nearest of
    ``exp(similarity / temperature)`` [1]_, or their number if there is no temperature. Of classes with the
    same score the first wins. Similarities are computed in blocks of ``block_size`` rows by 16,384 columns,
    so that memory stays bounded however large the data.

    Parameters
    ----------
    n_neighbors : int, default=20
        The number of neighbours that vote.
    temperature : float, default=None
        The temperature of the weights; None lets every neighbour count the same.
    block_size : int, default=1024
        The queries compared at a time; 1,024 take 64 MiB.
    device : str or torch.device, default="auto"
        Where the similarities are computed; "auto" takes CUDA, then MPS, then the CPU.

    Attributes
    ----------
    bank_ : ndarray of shape (n_samples, n_features), float32
        The training features, of unit norm.
    codes_ : ndarray of shape (n_samples,), int64
        Their classes, as places in ``classes_``.
    classes_ : ndarray of shape (n_classes,)
        The class labels.
    n_features_in_ : int
        The number of features.

    Raises
    ------
    ValueError
        On ``fit``, if a parameter is out of its range; on prediction, if there are fewer training samples
        than ``n_neighbors``.

    Notes
    -----
    The papers weight 200 neighbours with a temperature of .07 (ImageNet) [1]_ or .1 (CIFAR-10). A feature
    vector of zeros has a similarity of 0 to every other.

    References
    ----------
    .. [1] Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> probe = KNNProbe(n_neighbors=10, temperature=0.1, device="cpu").fit(X[::2], y[::2])
    >>> round(probe.score(X[1::2], y[1::2]), 2)
    0.97
    """

    n_neighbors: int = 20
    temperature: float | None = None
    block_size: int = 1024
    device: str | torch.device = "auto"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "temperature": [Interval(Real, 0, None, closed="neither"), None],
        "block_size": [Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
    }

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> KNNProbe:
        """Keep the training features and their labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The features.
        y : array-like of shape (n_samples,)
            The labels, numbers or strings.

        Returns
        -------
        KNNProbe
            The fitted probe.
        """
        self._validate_params()
        resolve_device(self.device)
        features, labels = validate_data(self, X, y, dtype=DTYPES)
        self.classes_, self.codes_ = _encode(labels)
        self.bank_ = normalize(features).astype(np.float32, copy=False)
        return self

    def predict_proba(self, X: npt.ArrayLike) -> np.ndarray:
        """Give every class's share of the vote.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The features.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            The shares, in the order of ``classes_``.
        """
        check_is_fitted(self)
        features = validate_data(self, X, dtype=DTYPES, reset=False)
        if self.n_neighbors > len(self.bank_):
            raise ValueError(
                f"Expected n_neighbors <= n_samples_fit, but n_neighbors = {self.n_neighbors}, "
                f"n_samples_fit = {len(self.bank_)}, n_samples = {len(features)}"
            )
        device = resolve_device(self.device)
        bank, codes = torch.from_numpy(self.bank_).to(device), torch.from_numpy(self.codes_).to(device)
        votes = []
        for queries in torch.from_numpy(normalize(features).astype(np.float32, copy=False)).split(self.block_size):
            similarity, index = _nearest(queries.to(device), bank, self.n_neighbors)
            weights = torch.ones_like(similarity)
            if self.temperature is not None:
                weights = ((similarity - similarity[:, :1]) / self.temperature).exp()  # the nearest weighs 1
            score = weights.new_zeros(len(weights), len(self.classes_))
            votes.append(score.scatter_add_(1, codes[index], weights).cpu())
        share = torch.cat(votes).numpy().astype(np.float64)
        return share / share.sum(axis=1, keepdims=True)

    def predict(self, X: npt.ArrayLike) -> np.ndarray:
        """Give the class with the largest share of the vote.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The features.

        Returns
        -------
        ndarray of shape (n_samples,)
            The labels.
        """
        share = self.predict_proba(X)
        return self.classes_[share.argmax(axis=1)]


def _encode(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split labels into the sorted classes and each sample's place among them."""
    check_classification_targets(y)
    classes, codes = np.unique(y, return_inverse=True)
    return classes, codes.astype(np.int64, copy=False)


def _lr_factor(schedule: str, progress: float) -> float:
    """Give the share of the learning rate that is left at a progress in [0, 1)."""
    if schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    return 0.1 ** ((progress >= 0.6) + (progress >= 0.8)) if schedule == "steps" else 1.0


def _residual(logits: Tensor, Y: Tensor) -> Tensor:
    """Give softmax(logits) - Y, exact to a relative and not only an absolute rounding error."""
    odds = (logits - logits.amax(dim=1, keepdim=True)).exp_()  # torch's softmax wakes all threads for a few rows
    others = odds.div_(odds.sum(dim=1, keepdim=True)).mul_(1 - Y)
    return others.sub_(Y * others.sum(dim=1, keepdim=True))


def _minimise(A: Tensor, Y: Tensor, penalty: Tensor, tol: float, max_iter: int) -> tuple[Tensor, int, bool]:
    """Minimise the mean cross-entropy of softmax(A W) + penalty W² / 2; give W, the steps and success."""
    n = len(A)
    prior = Y.mean(dim=0)
    W = A.new_zeros(A.shape[1], Y.shape[1])
    W[-1] = prior.log() - prior.log().mean()
    logits = A @ W  # (n, n_classes), kept up to date: a step along a line needs no product with A
    residual = _residual(logits, Y)  # also (n, n_classes)
    grad = (residual.T @ A).T / n + penalty * W
    factor = _inverse_root(A, penalty, curvature=float((prior * (1 - prior)).mean()))
    pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=10)
    best, stalled = math.inf, 0
    for n_iter in range(1, max_iter + 1):
        direction = -_inverse_hessian(grad, pairs, factor)
        slope = float((grad * direction).sum())
        loss = _objective(residual, Y, penalty, W)
        best, stalled = (loss, 0) if loss < best else (best, stalled + 1)
        exhausted = slope >= -1e-9 * loss or stalled == 5  # float32 shows no smaller gain
        if exhausted or float(grad.abs().max()) <= tol * loss:
            return W, max(n_iter - 1, 1), True
        along = A @ direction
        rest = float((penalty * W * direction).sum()), float((penalty * direction.square()).sum())
        step, residual = _line_search(logits, along, Y, rest, 0.1 * abs(slope))
        logits += step * along
        W = W + step * direction
        previous, grad = grad, (residual.T @ A).T / n + penalty * W
        moved, bent = step * direction, grad - previous
        if float((moved * bent).sum()) > 0:  # always, but for rounding
            pairs.append((moved, bent))
    return W, max_iter, float(grad.abs().max()) <= tol * _objective(residual, Y, penalty, W)


def _objective(residual: Tensor, Y: Tensor, penalty: Tensor, W: Tensor) -> float:
    """Give the mean cross-entropy plus the penalty, or 1e-8 if that is more: it may have no minimum but 0."""
    likelihood = (residual * Y).sum(dim=1).clamp_min(-1 + 1e-7).log1p()
    return max(float((penalty * W.square()).sum() / 2 - likelihood.mean()), 1e-8)


def _inverse_root(A: Tensor, penalty: Tensor, curvature: float) -> Tensor:
    """Give M with MᵀM ≈ H⁻¹, H the Hessian if all samples were equally certain; a column if diagonal."""
    if A.shape[1] - 1 > WIDEST_WHITENED:
        return (curvature + penalty).rsqrt()
    gram = (A.T @ A).cpu().double() * (curvature / len(A))
    gram.diagonal().add_(penalty[:, 0].cpu())
    for ridge in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2):  # collinear features: float32 leaves eigenvalues around zero
        lower, failed = torch.linalg.cholesky_ex(gram + ridge * curvature * torch.eye(len(gram)))
        if not failed:
            break
    return torch.linalg.solve_triangular(lower, torch.eye(len(gram)).double(), upper=False).to(A)


def _inverse_hessian(grad: Tensor, pairs: Sequence[tuple[Tensor, Tensor]], factor: Tensor) -> Tensor:
    """Multiply by the L-BFGS approximation of the inverse Hessian that starts from factorᵀ factor."""

    def start(g: Tensor) -> Tensor:
        return factor.square() * g if factor.shape[1] == 1 else factor.T @ (factor @ g)

    shares = []
    for moved, bent in reversed(pairs):  # a step and the change of the gradient along it
        shares.append((moved * grad).sum() / (moved * bent).sum())
        grad = grad - shares[-1] * bent
    result = start(grad)
    if pairs:
        moved, bent = pairs[-1]
        result = result * (moved * bent).sum() / (bent * start(bent)).sum()
    for (moved, bent), share in zip(pairs, reversed(shares), strict=True):
        result = result + moved * (share - (bent * result).sum() / (moved * bent).sum())
    return result


def _line_search(
    logits: Tensor, along: Tensor, Y: Tensor, rest: tuple[float, float], flat: float
) -> tuple[float, Tensor]:
    """Go along a line until the slope is flat: Newton steps, and where they fail halving or doubling."""
    low, high, step = 0.0, math.inf, 1.0
    for _ in range(30):
        residual = _residual(logits + step * along, Y)
        slope = float((residual * along).sum()) / len(Y) + rest[0] + step * rest[1]
        if abs(slope) <= flat:
            break
        low, high = (low, step) if slope > 0 else (step, high)
        moment = (residual + Y) * along
        bend = float((moment * along).sum() - moment.sum(dim=1).square().sum()) / len(Y) + rest[1]
        step = step - slope / bend if bend > 0 else math.inf
        if not low < step < high:
            step = (low + high) / 2 if high < math.inf else 2 * low
    return step, residual


def _nearest(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the k largest products of each query with the bank, in falling order, and where they are."""
    values, indices = (
        queries.new_empty(len(queries), 0),
        torch.empty(len(queries), 0).to(queries.device, torch.int64),
    )
    for start in range(0, len(bank), BANK_ROWS):
        block = queries @ bank[start : start + BANK_ROWS].T  # (n_queries, at most BANK_ROWS)
        value, index = block.topk(min(k, block.shape[1]))
        values, indices = torch.cat([values, value], dim=1), torch.cat([indices, index + start], dim=1)
        values, order = values.topk(min(k, values.shape[1]))
        indices = indices.gather(1, order)
    return values, indices
