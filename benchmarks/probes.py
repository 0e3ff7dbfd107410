"""Time the probes against scikit-learn's estimators of the same answers: ``python -m benchmarks.probes``.

The features are made up but shaped like a network's: 50,000 x 512 in float32 for training and 10,000 for the
test, 10 classes, correlated and rectified, so badly conditioned and far from zero; once with clusters that
overlap and once with clusters that planes nearly separate. There LogisticRegression is also timed with a
tolerance at which its objective comes close to the optimum. Both sides get all cores, and take turns.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np
import sklearn
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from skssl.probes import KNNProbe, LinearProbe


def features(
    spread: float, n_train: int = 50_000, n_test: int = 10_000, d: int = 512, n_classes: int = 10
) -> tuple[np.ndarray, ...]:
    """Draw clusters whose noise is correlated, with variances that fall as 1 / rank, and rectify them."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, n_classes, n_train + n_test)
    mixing = rng.standard_normal((d, d)) / np.sqrt(np.arange(1, d + 1))[:, None]
    X = spread * rng.standard_normal((n_classes, d))[y] + rng.standard_normal((len(y), d)) @ mixing
    X = np.maximum(X + rng.standard_normal(X.shape) + 0.2, 0).astype(np.float32)
    return X[:n_train], y[:n_train], X[n_train:], y[n_train:]


def best_times(jobs: list[Callable], repeats: int) -> tuple[list[float], list]:
    """Run the jobs in turn and give the shortest time of each, and what it returned last."""
    times, results = [[] for _ in jobs], [None] * len(jobs)
    for _ in range(repeats):
        for i, job in enumerate(jobs):
            start = time.perf_counter()
            results[i] = job()
            times[i].append(time.perf_counter() - start)
    return [min(t) for t in times], results


def objective(model: LinearProbe | LogisticRegression, X: np.ndarray, y: np.ndarray) -> float:
    """Give the objective with C=1 divided by the number of samples, in float64."""
    logits = X.astype(np.float64) @ model.coef_.T.astype(np.float64) + model.intercept_
    loss = (np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(y)), y]).mean()
    return float(loss + (model.coef_.astype(np.float64) ** 2).sum() / (2 * len(y)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    print(
        f"{os.cpu_count()} cores, device {args.device}, torch {torch.__version__}, "
        f"scikit-learn {sklearn.__version__}, best of {args.repeats}"
    )
    for spread, name, tol in [(0.15, "overlapping", 1e-4), (0.5, "separable", 1e-4), (0.5, "separable", 1e-6)]:
        X, y, X_test, y_test = features(spread)
        (ours, theirs), (probe, exact) = best_times(
            [
                lambda X=X, y=y: LinearProbe(device=args.device).fit(X, y),
                lambda X=X, y=y, tol=tol: LogisticRegression(max_iter=1000, tol=tol).fit(X, y),
            ],
            args.repeats,
        )
        print(
            f"{name}: LinearProbe {ours:.2f} s, LogisticRegression(tol={tol}) {theirs:.2f} s: ratio {ours / theirs:.3f}"
        )
        print(f"    iterations {probe.n_iter_} and {exact.n_iter_[0]}", end=", ")
        print(f"objective {objective(probe, X, y):.6f} and {objective(exact, X, y):.6f}", end=", ")
        print(f"test accuracy {probe.score(X_test, y_test):.4f} and {exact.score(X_test, y_test):.4f}")
    for n_neighbors in (20, 200):
        knn = KNNProbe(n_neighbors=n_neighbors, device=args.device).fit(X, y)
        brute = KNeighborsClassifier(n_neighbors, metric="cosine", algorithm="brute").fit(X, y)
        (ours, theirs), (labels, expected) = best_times(
            [lambda knn=knn: knn.predict(X_test), lambda brute=brute: brute.predict(X_test)], args.repeats
        )
        print(
            f"KNNProbe, k={n_neighbors}, {ours:.2f} s, KNeighborsClassifier {theirs:.2f} s: ratio {ours / theirs:.3f}"
        )
        print(f"    the same prediction for {(labels == expected).mean():.4%}", end=", ")
        print(f"test accuracy {(labels == y_test).mean():.4f}")


if __name__ == "__main__":
    main()
