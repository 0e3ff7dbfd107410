"""Time, objective and accuracy of the probes and of scikit-learn's equivalent estimators.

The synthetic features resemble those of a network: 50,000 x 512 in float32 for training and 10,000 for the test, in 10
classes, correlated and rectified, thus badly conditioned and far from zero. The clusters overlap or are almost linearly
separable. For the latter LogisticRegression is also timed with a tolerance at which its objective is close to the
optimum. "linear, CIFAR-10" uses as many standardised features of an untrained "convnet": its last map, pooled to 2x2.
Both estimators use all cores and take turns; the shortest time of each counts. Each finished job is a row of
``results/probes.csv``. Recorded jobs are skipped.

The "protocol" jobs time the papers' protocols without augmentation on the same features, and are recorded in
``results/protocols.csv``. On CUDA, where hundreds of steps form a graph, "eager_seconds" is ten times the time of a
tenth of the epochs without graphs.

    python -m benchmarks probes [JOB ...] [--repeats 3] [--device cpu] [--again]
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import sklearn
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from benchmarks.record import record, recorded
from skssl import KNNProbe, LinearProbe, MLPProbe, SimCLR
from skssl.datasets import load_images
from skssl.probes import sgd
from skssl.probes.encoders import as_encoder

LINEAR = {  # the spread of the clusters (None for CIFAR-10) and the tolerance of LogisticRegression
    "linear, overlapping": (0.15, 1e-4),
    "linear, separable": (0.5, 1e-4),
    "linear, separable, tol=1e-6": (0.5, 1e-6),
    "linear, CIFAR-10": (None, 1e-4),
}
PROTOCOLS: dict[str, LinearProbe | MLPProbe] = {
    **{f"protocol, {name}": LinearProbe(protocol=name) for name in ("effssl", "simsiam", "gsg", "moco")},
    "protocol, MLP": MLPProbe(),
}
NEAREST = {"nearest, k=1": 1, "nearest, k=20": 20, "nearest, k=200": 200}


def features(
    spread: float, n_train: int = 50_000, n_test: int = 10_000, d: int = 512, n_classes: int = 10
) -> tuple[np.ndarray, ...]:
    """Draw rectified clusters with correlated noise, whose variances decrease as 1 / rank."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, n_classes, n_train + n_test)
    mixing = rng.standard_normal((d, d)) / np.sqrt(np.arange(1, d + 1))[:, None]
    X = spread * rng.standard_normal((n_classes, d))[y] + rng.standard_normal((len(y), d)) @ mixing
    X = np.maximum(X + rng.standard_normal(X.shape) + 0.2, 0).astype(np.float32)
    return X[:n_train], y[:n_train], X[n_train:], y[n_train:]


def cifar10() -> tuple[np.ndarray, ...]:
    """Encode CIFAR-10 as 512 standardised features."""
    data = [load_images("cifar10", split=split) for split in ("train", "test")]
    untrained = SimCLR(backbone="convnet", epochs=0, random_state=0).fit(data[0][0][:256])
    encoder = as_encoder(untrained, data[0][0], layer="conv4")  # 128 maps of 4x4
    maps = [encoder.transform(X).reshape(-1, 128, 2, 2, 2, 2).mean((3, 5)).reshape(-1, 512) for X, _ in data]
    scaler = StandardScaler().fit(maps[0])
    return scaler.transform(maps[0]), data[0][1], scaler.transform(maps[1]), data[1][1]


def best_times(jobs: list[Callable[[], Any]], repeats: int) -> tuple[list[float], list[Any]]:
    """Run the jobs in turn; return the shortest time and the last result of each."""
    times: list[list[float]] = [[] for _ in jobs]
    results = [None] * len(jobs)
    for _ in range(repeats):
        for i, job in enumerate(jobs):
            start = time.perf_counter()
            results[i] = job()
            times[i].append(time.perf_counter() - start)
    return [min(seconds) for seconds in times], results


def objective(model: LinearProbe | LogisticRegression, X: np.ndarray, y: np.ndarray) -> float:
    """Return the objective with C=1 divided by the number of samples, in float64."""
    logits = X.astype(np.float64) @ model.coef_.T.astype(np.float64) + model.intercept_
    loss = (np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(y)), y]).mean()
    return float(loss + (model.coef_.astype(np.float64) ** 2).sum() / (2 * len(y)))


def linear(job: str, device: str, repeats: int) -> dict[str, Any]:
    """Compare LinearProbe with LogisticRegression."""
    spread, tol = LINEAR[job]
    X, y, X_test, y_test = cifar10() if spread is None else features(spread)
    y, y_test = (np.unique(labels, return_inverse=True)[1] for labels in (y, y_test))
    exact = LogisticRegression(max_iter=1000, tol=tol)
    seconds, models = best_times([lambda: LinearProbe(device=device).fit(X, y), lambda: exact.fit(X, y)], repeats)
    losses = [objective(model, X, y) for model in models]
    scores = [model.score(X_test, y_test) for model in models]
    row = {"seconds": seconds[0], "sklearn_seconds": seconds[1], "ratio": seconds[0] / seconds[1]}
    row |= {"loss": losses[0], "sklearn_loss": losses[1], "accuracy": scores[0], "sklearn_accuracy": scores[1]}
    return {**row, "n_iter": models[0].n_iter_, "sklearn_n_iter": int(models[1].n_iter_[0])}


def nearest(job: str, device: str, repeats: int) -> dict[str, Any]:
    """Compare KNNProbe with KNeighborsClassifier."""
    X, y, X_test, y_test = features(0.5)
    knn = KNNProbe(n_neighbors=NEAREST[job], device=device).fit(X, y)
    brute = KNeighborsClassifier(NEAREST[job], metric="cosine", algorithm="brute").fit(X, y)
    seconds, labels = best_times([lambda: knn.predict(X_test), lambda: brute.predict(X_test)], repeats)
    row = {"seconds": seconds[0], "sklearn_seconds": seconds[1], "ratio": seconds[0] / seconds[1]}
    row |= {"accuracy": (labels[0] == y_test).mean(), "sklearn_accuracy": (labels[1] == y_test).mean()}
    return {**row, "same_prediction": (labels[0] == labels[1]).mean()}


def protocol(job: str, device: str, repeats: int) -> dict[str, Any]:
    """Time the protocol of a paper."""
    X, y, X_test, y_test = features(0.5)
    X, X_test = X / 10, X_test / 10  # learning rates of 30 assume features of small norm
    probe = clone(PROTOCOLS[job]).set_params(device=device, random_state=0)
    (seconds,), (model,) = best_times([lambda: clone(probe).fit(X, y)], repeats)
    row = {"seconds": seconds, "steps": model.n_iter_ * math.ceil(len(X) / _setting(probe, "batch_size"))}
    row |= {"accuracy": model.score(X_test, y_test)}
    if torch.device(device).type in sgd.GRAPH_DEVICES:
        short = clone(probe).set_params(epochs=_setting(probe, "epochs") // 10)
        with mock.patch.object(sgd, "GRAPH_DEVICES", set()):
            (eager,), _ = best_times([lambda: clone(short).fit(X, y)], 1)
        row |= {"eager_seconds": 10 * eager}
    return row


def _setting(probe: LinearProbe | MLPProbe, name: str) -> int:
    """Return a parameter of a probe, or its protocol's value if it is None."""
    return int(getattr(probe, name) if isinstance(probe, MLPProbe) else probe.setting(name))


def main() -> None:
    """Run the selected jobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    jobs = dict.fromkeys(LINEAR, ("probes", linear)) | dict.fromkeys(NEAREST, ("probes", nearest))
    jobs |= dict.fromkeys(PROTOCOLS, ("protocols", protocol))
    parser.add_argument("jobs", nargs="*", default=[*jobs], help=f"of: {'; '.join(jobs)}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--again", action="store_true", help="repeat recorded jobs")
    arguments = parser.parse_args()
    for job in arguments.jobs:
        file, run = jobs[job]
        if recorded(file, {"job": job, "device": arguments.device}) and not arguments.again:
            print(f"{job}: already recorded")
            continue
        measured = run(job, arguments.device, arguments.repeats)
        settings = {"job": job, "device": arguments.device, "repeats": arguments.repeats}
        record(file, [{**settings, **measured, "scikit-learn": sklearn.__version__}])


if __name__ == "__main__":
    main()
