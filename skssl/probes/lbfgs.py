"""Softmax regression brought to its optimum by L-BFGS, on the device."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

WIDEST_WHITENED = 4096  # with more features than this the preconditioner is diagonal
ROWS = 4096  # samples whose squares are computed at a time


class SoftmaxRegression:
    """Some samples, and the way to the softmax regression on them for one penalty or several.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Features.
    codes : int64 ndarray of shape (n,)
        Classes, as numbers from 0; each occurs.
    device : torch.device
        Where it computes, in float32.
    """

    def __init__(self, X: np.ndarray, codes: np.ndarray, device: torch.device) -> None:
        self.shift = X.mean(axis=0)
        A = torch.empty(X.shape, dtype=torch.float32)
        np.subtract(X, self.shift, out=A.numpy(), casting="same_kind")  # in X's precision: it may be far from zero
        self.A = A.to(device)
        self.Y = torch.nn.functional.one_hot(torch.from_numpy(codes)).to(device, torch.float32)
        self.gram: Tensor | None = None  # of the standardised features, (d, d)
        if X.shape[1] <= WIDEST_WHITENED:
            self.gram = (self.A.T @ self.A).cpu().double() / len(A)
            variance = self.gram.diagonal()
        else:
            variance = sum(part.square().sum(dim=0) for part in self.A.split(ROWS)).cpu().double() / len(A)
        # What varies less than float32 can tell apart is not blown up.
        tiny = torch.from_numpy(1e-6 * np.abs(self.shift, dtype=np.float64))
        self.scale = torch.where(variance.sqrt() > tiny, variance.sqrt(), 1.0)[:, None]  # (d, 1)
        if self.gram is not None:
            self.gram = self.gram / (self.scale * self.scale.T)

    def minimise(self, decay: float, tol: float, max_iter: int) -> tuple[np.ndarray, np.ndarray, int, bool]:
        """Minimise the mean cross-entropy plus half the penalty on the squared weights of X.

        Parameters
        ----------
        decay : float
            The penalty's strength.
        tol : float
            What share of the objective no entry of the gradient may exceed.
        max_iter : int
            The most iterations.

        Returns
        -------
        coef : float64 ndarray of shape (n_classes, d)
            The weights.
        intercept : float64 ndarray of shape (n_classes,)
            The intercepts.
        n_iter : int
            The iterations.
        converged : bool
            Whether the gradient is as small as `tol` wants it, or float32 can show no further gain.
        """
        scale = self.scale.to(self.A)
        penalty = torch.cat([decay / scale.square(), scale.new_zeros(1, 1)])  # (d + 1, 1), none for the intercept
        prior = self.Y.mean(dim=0)
        curvature = float((prior * (1 - prior)).mean())  # what it is where all samples are as uncertain as the prior
        if self.gram is None:
            factor = (curvature + penalty).rsqrt()
        else:  # the features are centred: they and the intercept have nothing in common
            factor = _inverse_root(torch.block_diag(self.gram, torch.ones(1, 1)) * curvature, penalty)
        problem = _Problem(self.A, scale, self.Y, penalty)
        W, n_iter, converged = _minimise(problem, factor, tol, max_iter)
        coef = (W[:-1].cpu().double() / self.scale).T.numpy()
        intercept = W[-1].cpu().double().numpy() - coef @ self.shift.astype(np.float64)
        return coef, intercept, n_iter, converged


@dataclass
class _Problem:
    """The objective in terms of the weights of the standardised features and, in the last row, the intercepts."""

    A: Tensor  # (n, d), centred, not scaled
    scale: Tensor  # (d, 1)
    Y: Tensor  # (n, n_classes)
    penalty: Tensor  # (d + 1, 1)

    def logits(self, W: Tensor) -> Tensor:
        """Multiply by the standardised features and add the intercepts."""
        return torch.nn.functional.linear(self.A, (W[:-1] / self.scale).T.contiguous(), W[-1])

    def gradient(self, residual: Tensor, W: Tensor) -> Tensor:
        """Give the gradient with respect to W."""
        weights = (residual.T @ self.A).T / self.scale
        return torch.cat([weights, residual.sum(dim=0, keepdim=True)]) / len(self.A) + self.penalty * W

    def objective(self, residual: Tensor, W: Tensor) -> float:
        """Give the mean cross-entropy plus the penalty, or 1e-8 if that is more: it may have no minimum but 0."""
        likelihood = (residual * self.Y).sum(dim=1).clamp_min(-1 + 1e-7).log1p()
        return max(float((self.penalty * W.square()).sum() / 2 - likelihood.mean()), 1e-8)


def _residual(logits: Tensor, Y: Tensor) -> Tensor:
    """Give softmax(logits) - Y, exact to a relative and not only an absolute rounding error."""
    odds = (logits - logits.amax(dim=1, keepdim=True)).exp_()  # torch's softmax wakes all threads for a few rows
    others = odds.div_(odds.sum(dim=1, keepdim=True)).mul_(1 - Y)
    return others.sub_(Y * others.sum(dim=1, keepdim=True))


def _minimise(problem: _Problem, factor: Tensor, tol: float, max_iter: int) -> tuple[Tensor, int, bool]:
    """Minimise by L-BFGS that starts from factorᵀ factor for the inverse Hessian; give W, the steps and success."""
    prior = problem.Y.mean(dim=0)
    W = prior.new_zeros(len(problem.penalty), len(prior))
    W[-1] = prior.log() - prior.log().mean()
    logits = problem.logits(W)  # (n, n_classes), kept up to date: a step along a line needs no product with A
    residual = _residual(logits, problem.Y)  # also (n, n_classes)
    grad = problem.gradient(residual, W)
    pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=10)
    best, stalled = math.inf, 0
    for n_iter in range(1, max_iter + 1):
        direction = -_inverse_hessian(grad, pairs, factor)
        slope = float((grad * direction).sum())
        loss = problem.objective(residual, W)
        best, stalled = (loss, 0) if loss < best else (best, stalled + 1)
        exhausted = slope >= -1e-9 * loss or stalled == 5  # float32 shows no smaller gain
        if exhausted or float(grad.abs().max()) <= tol * loss:
            return W, max(n_iter - 1, 1), True
        along = problem.logits(direction)
        rest = float((problem.penalty * W * direction).sum()), float((problem.penalty * direction.square()).sum())
        step, residual = _line_search(logits, along, problem.Y, rest, 0.1 * abs(slope))
        logits += step * along
        W = W + step * direction
        previous, grad = grad, problem.gradient(residual, W)
        moved, bent = step * direction, grad - previous
        if float((moved * bent).sum()) > 0:  # always, but for rounding
            pairs.append((moved, bent))
    return W, max_iter, float(grad.abs().max()) <= tol * problem.objective(residual, W)


def _inverse_root(hessian: Tensor, penalty: Tensor) -> Tensor:
    """Give M with MᵀM ≈ (hessian + penalty)⁻¹, the Hessian if all samples were equally certain."""
    identity = torch.eye(len(hessian), dtype=torch.float64)
    penalised = hessian + identity * penalty.cpu()
    size = hessian[-1, -1]  # the intercept's, and any standardised feature's
    for ridge in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2):  # collinear features: float32 leaves eigenvalues around zero
        lower, failed = torch.linalg.cholesky_ex(penalised + ridge * size * identity)
        if not failed:
            break
    return torch.linalg.solve_triangular(lower, identity, upper=False).to(penalty)


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
