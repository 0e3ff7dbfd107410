"""Softmax regression by L-BFGS on the device."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MAX_WHITENED = 4096  # features; with more the preconditioner is diagonal
CHUNK_ROWS = 4096  # samples whose squares are computed at once


class SoftmaxRegression:
    """Softmax regression on some samples, for one penalty or several.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        The features.
    codes : int64 ndarray of shape (n,)
        The classes, as integers from 0. Each of them occurs.
    device : torch.device
        The device. Computations are in float32.
    weights : ndarray of shape (n,), default=None
        The weights of the samples, above 0. None is 1 for all.
    """

    def __init__(
        self, X: np.ndarray, codes: np.ndarray, device: torch.device, weights: np.ndarray | None = None
    ) -> None:
        self.shift = np.average(X, axis=0, weights=weights)
        A = torch.empty(X.shape, dtype=torch.float32)
        np.subtract(X, self.shift, out=A.numpy(), casting="same_kind")  # in the precision of X
        self.A = A.to(device)
        self.Y = torch.nn.functional.one_hot(torch.from_numpy(codes)).to(device, torch.float32)
        self.weights: Tensor | None = None  # (n, 1), of mean 1
        if weights is not None:
            self.weights = torch.from_numpy(weights / weights.mean())[:, None].to(self.Y)
        self.gram: Tensor | None = None  # of the standardised features, (d, d)
        if X.shape[1] <= MAX_WHITENED:
            self.gram = (_weigh(self.A, self.weights).T @ self.A).cpu().double() / len(A)
            variance = self.gram.diagonal()
        else:
            shares = [None] * len(A) if self.weights is None else self.weights.split(CHUNK_ROWS)
            parts = zip(self.A.split(CHUNK_ROWS), shares, strict=False)
            squares = [_weigh(part.square(), share).sum(dim=0) for part, share in parts]
            variance = torch.stack(squares).sum(dim=0).cpu().double() / len(A)
        # Features whose variation float32 cannot resolve are not scaled.
        tiny = torch.from_numpy(1e-6 * np.abs(self.shift, dtype=np.float64))
        self.scale = torch.where(variance.sqrt() > tiny, variance.sqrt(), 1.0)[:, None]  # (d, 1)
        if self.gram is not None:
            self.gram = self.gram / (self.scale * self.scale.T)

    def minimise(self, decay: float, tol: float, max_iter: int) -> tuple[np.ndarray, np.ndarray, int, bool]:
        """Minimise the mean cross-entropy plus half the decay times the squared weights.

        Parameters
        ----------
        decay : float
            The strength of the penalty.
        tol : float
            The largest entry of the gradient at convergence, relative to the objective.
        max_iter : int
            The maximum number of iterations.

        Returns
        -------
        coef : float64 ndarray of shape (n_classes, d)
            The weights.
        intercept : float64 ndarray of shape (n_classes,)
            The intercepts.
        n_iter : int
            The number of iterations.
        converged : bool
            Whether the gradient is within `tol`, or float32 resolves no further decrease.
        """
        scale = self.scale.to(self.A)
        penalty = torch.cat([decay / scale.square(), scale.new_zeros(1, 1)])  # (d + 1, 1), none for the intercept
        prior = _weigh(self.Y, self.weights).mean(dim=0)
        curvature = float((prior * (1 - prior)).mean())  # if the prior is predicted for all samples
        if self.gram is None:
            factor = (curvature + penalty).rsqrt()
        else:  # centred features are orthogonal to the intercept
            factor = _inverse_root(torch.block_diag(self.gram, torch.ones(1, 1)) * curvature, penalty)
        problem = _Problem(self.A, scale, self.Y, penalty, self.weights)
        W, n_iter, converged = _minimise(problem, factor, tol, max_iter)
        coef = (W[:-1].cpu().double() / self.scale).T.numpy()
        intercept = W[-1].cpu().double().numpy() - coef @ self.shift.astype(np.float64)
        return coef, intercept, n_iter, converged


@dataclass
class _Problem:
    """The objective as a function of the weights of the standardised features, with the intercepts in the last row."""

    A: Tensor  # (n, d), centred, not scaled
    scale: Tensor  # (d, 1)
    Y: Tensor  # (n, n_classes)
    penalty: Tensor  # (d + 1, 1)
    weights: Tensor | None  # (n, 1)

    def weigh(self, values: Tensor) -> Tensor:
        """Multiply a row (n, k) for each sample by the weight of the sample."""
        return _weigh(values, self.weights)

    def logits(self, W: Tensor) -> Tensor:
        """Return the logits of all samples."""
        return torch.nn.functional.linear(self.A, (W[:-1] / self.scale).T.contiguous(), W[-1])

    def gradient(self, residual: Tensor, W: Tensor) -> Tensor:
        """Return the gradient with respect to W."""
        residual = self.weigh(residual)
        weights = (residual.T @ self.A).T / self.scale
        return torch.cat([weights, residual.sum(dim=0, keepdim=True)]) / len(self.A) + self.penalty * W

    def objective(self, residual: Tensor, W: Tensor) -> float:
        """Return the mean cross-entropy plus the penalty, at least 1e-8 since its infimum may be 0."""
        likelihood = self.weigh((residual * self.Y).sum(dim=1, keepdim=True).clamp_min(-1 + 1e-7).log1p())
        return max(float((self.penalty * W.square()).sum() / 2 - likelihood.mean()), 1e-8)


def _weigh(values: Tensor, weights: Tensor | None) -> Tensor:
    """Multiply rows (n, k) by weights (n, 1); None is 1 for all."""
    return values if weights is None else values * weights


def _residual(logits: Tensor, Y: Tensor) -> Tensor:
    """Return softmax(logits) - Y, with a small relative rounding error."""
    odds = (logits - logits.amax(dim=1, keepdim=True)).exp_()  # softmax starts all threads for a few rows
    others = odds.div_(odds.sum(dim=1, keepdim=True)).mul_(1 - Y)
    return others.sub_(Y * others.sum(dim=1, keepdim=True))


def _minimise(problem: _Problem, factor: Tensor, tol: float, max_iter: int) -> tuple[Tensor, int, bool]:
    """Minimise by L-BFGS, with factorᵀ factor as the initial inverse Hessian; return W, n_iter and converged."""
    prior = problem.weigh(problem.Y).mean(dim=0)
    W = prior.new_zeros(len(problem.penalty), len(prior))
    W[-1] = prior.log() - prior.log().mean()
    logits = problem.logits(W)  # (n, n_classes), updated in place: a line search needs no product with A
    residual = _residual(logits, problem.Y)  # (n, n_classes)
    grad = problem.gradient(residual, W)
    pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=10)
    best, stalled = math.inf, 0
    for n_iter in range(1, max_iter + 1):
        direction = -_inverse_hessian(grad, pairs, factor)
        slope = float((grad * direction).sum())
        loss = problem.objective(residual, W)
        best, stalled = (loss, 0) if loss < best else (best, stalled + 1)
        exhausted = slope >= -1e-9 * loss or stalled == 5  # float32 resolves no smaller decrease
        if exhausted or float(grad.abs().max()) <= tol * loss:
            return W, max(n_iter - 1, 1), True
        direction_logits = problem.logits(direction)
        penalty = float((problem.penalty * W * direction).sum()), float((problem.penalty * direction.square()).sum())
        step, residual = _line_search(problem, logits, direction_logits, penalty, 0.1 * abs(slope))
        logits += step * direction_logits
        W = W + step * direction
        previous, grad = grad, problem.gradient(residual, W)
        move, change = step * direction, grad - previous
        if float((move * change).sum()) > 0:  # true up to rounding
            pairs.append((move, change))
    return W, max_iter, float(grad.abs().max()) <= tol * problem.objective(residual, W)


def _inverse_root(hessian: Tensor, penalty: Tensor) -> Tensor:
    """Return M with MᵀM ≈ (hessian + penalty)⁻¹, for equal uncertainty of all samples."""
    identity = torch.eye(len(hessian), dtype=torch.float64)
    penalised = hessian + identity * penalty.cpu()
    size = hessian[-1, -1]  # of the intercept and of each standardised feature
    for ridge in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2):  # for collinear features, whose eigenvalues are rounding errors
        lower, failed = torch.linalg.cholesky_ex(penalised + ridge * size * identity)
        if not failed:
            break
    return torch.linalg.solve_triangular(lower, identity, upper=False).to(penalty)


def _inverse_hessian(grad: Tensor, pairs: Sequence[tuple[Tensor, Tensor]], factor: Tensor) -> Tensor:
    """Multiply the gradient by the L-BFGS approximation of the inverse Hessian, from factorᵀ factor on."""

    def start(g: Tensor) -> Tensor:
        return factor.square() * g if factor.shape[1] == 1 else factor.T @ (factor @ g)

    alphas = []
    for step, change in reversed(pairs):  # a step and the change of the gradient along it
        alphas.append((step * grad).sum() / (step * change).sum())
        grad = grad - alphas[-1] * change
    result = start(grad)
    if pairs:
        step, change = pairs[-1]
        result = result * (step * change).sum() / (change * start(change)).sum()
    for (step, change), alpha in zip(pairs, reversed(alphas), strict=True):
        result = result + step * (alpha - (change * result).sum() / (step * change).sum())
    return result


def _line_search(
    problem: _Problem, logits: Tensor, direction: Tensor, penalty: tuple[float, float], flat: float
) -> tuple[float, Tensor]:
    """Search along a line until the slope is at most `flat`: Newton steps, safeguarded by bisection and doubling."""
    Y, weigh = problem.Y, problem.weigh
    low, high, step = 0.0, math.inf, 1.0
    for _ in range(30):
        residual = _residual(logits + step * direction, Y)
        slope = float(weigh(residual * direction).sum()) / len(Y) + penalty[0] + step * penalty[1]
        if abs(slope) <= flat:
            break
        low, high = (low, step) if slope > 0 else (step, high)
        moment = (residual + Y) * direction
        spread = weigh(moment * direction).sum() - weigh(moment.sum(dim=1, keepdim=True).square()).sum()
        curvature = float(spread) / len(Y) + penalty[1]
        step = step - slope / curvature if curvature > 0 else math.inf
        if not low < step < high:
            step = (low + high) / 2 if high < math.inf else 2 * low
    return step, residual
