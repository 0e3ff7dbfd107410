"""The MLP probe: agreement with a literal loop, and classes that are not linearly separable."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import features

from skssl import LinearProbe, MLPProbe
from skssl.nn.heads import MLP


def literal_mlp(X, y, *, hidden, lr, decay, epochs, batch_size, random_state, weights=1.0):
    """Train a hidden layer with BatchNorm and ReLU by SGD with momentum 0.9, in float64; return predict_proba."""
    X, n_classes = X.astype(np.float64), y.max() + 1
    weights = np.broadcast_to(weights / np.mean(weights), (len(X), 1))
    seed = int(np.random.RandomState(random_state).randint(2**31 - 1))
    order = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(2)[1]))
        first, *_, last = MLP((X.shape[1], hidden, n_classes))
    params = {
        "V": first.weight,
        "gain": torch.ones(hidden),
        "shift": torch.zeros(hidden),
        "W": last.weight,
        "b": last.bias,
    }
    params = {name: p.detach().double().numpy() for name, p in params.items()}
    speeds = {name: np.zeros_like(p) for name, p in params.items()}
    mean, variance = np.zeros(hidden), np.ones(hidden)  # running
    steps, step = epochs * -(-len(X) // batch_size), 0
    for _ in range(epochs):
        for rows in torch.randperm(len(X), generator=order).split(batch_size):
            x, n = X[rows.numpy()], len(rows)
            a = x @ params["V"].T
            mu, var = a.mean(0), a.var(0)
            mean, variance = 0.9 * mean + 0.1 * mu, 0.9 * variance + 0.1 * var * n / (n - 1)
            normal = (a - mu) / np.sqrt(var + 1e-5)
            h = normal * params["gain"] + params["shift"]
            odds = np.exp(np.maximum(h, 0) @ params["W"].T + params["b"])
            residual = (
                (odds / odds.sum(1, keepdims=True) - np.eye(n_classes)[y[rows.numpy()]]) * weights[rows.numpy()] / n
            )
            back = residual @ params["W"] * (h > 0)
            scaled = back * params["gain"]
            inner = (scaled - scaled.mean(0) - normal * (scaled * normal).mean(0)) / np.sqrt(var + 1e-5)
            grads = {"V": inner.T @ x + decay * params["V"], "gain": (back * normal).sum(0), "shift": back.sum(0)}
            grads |= {"W": residual.T @ np.maximum(h, 0) + decay * params["W"], "b": residual.sum(0)}
            for name, grad in grads.items():
                speeds[name] = 0.9 * speeds[name] + grad
                params[name] = params[name] - lr * (1 + np.cos(np.pi * step / steps)) / 2 * speeds[name]
            step += 1

    def predict_proba(X):
        normal = (X.astype(np.float64) @ params["V"].T - mean) / np.sqrt(variance + 1e-5)
        odds = np.exp(np.maximum(normal * params["gain"] + params["shift"], 0) @ params["W"].T + params["b"])
        return odds / odds.sum(1, keepdims=True)

    return predict_proba


@pytest.mark.parametrize("weights", [1.0, np.random.default_rng(0).random((100, 1))], ids=["equal", "weighted"])
def test_mlp_probe_matches_literal_loop(weights):
    X, y = features(n=100)
    X -= 3
    settings = {"lr": 0.1, "epochs": 4, "batch_size": 32, "random_state": 0}
    probe = MLPProbe(hidden_layer_sizes=(6,), weight_decay=0.01, device="cpu", **settings)
    probe.fit(X, y, sample_weight=None if np.isscalar(weights) else weights.ravel())
    expected = literal_mlp(X, y, hidden=6, decay=0.01, weights=weights, **settings)(X)
    np.testing.assert_allclose(probe.predict_proba(X), expected, atol=1e-3)
    assert np.abs(expected - 1 / 3).max() > 0.2


def test_mlp_probe_separates_classes_that_are_not_linearly_separable():
    X = np.random.default_rng(0).normal(size=(600, 2))
    y = np.where((X > 0).all(1) | (X < 0).all(1), "same", "other")
    linear = LinearProbe(device="cpu").fit(X[:400], y[:400])
    probe = MLPProbe(hidden_layer_sizes=(32, 16), epochs=30, batch_size=50, device="cpu", random_state=0)
    assert linear.score(X[400:], y[400:]) < 0.7
    assert probe.fit(X[:400], y[:400]).score(X[400:], y[400:]) > 0.9
    assert [layer.out_features for layer in probe.network_ if isinstance(layer, torch.nn.Linear)] == [32, 16, 2]


def test_last_batch_of_one_sample_joins_the_one_before():
    X, y = features(n=33)
    probe = MLPProbe(hidden_layer_sizes=(4,), epochs=3, batch_size=16, device="cpu", random_state=0).fit(X, y)
    assert int(probe.network_[1].num_batches_tracked) == 2 * 3


def test_prediction_in_batches(monkeypatch):
    X, y = features(n=50)
    probe = MLPProbe(hidden_layer_sizes=(4,), epochs=1, device="cpu").fit(X, y)
    whole = probe.predict_proba(X)
    monkeypatch.setattr("skssl.probes.mlp.PREDICTION_BATCH", 7)
    np.testing.assert_allclose(probe.predict_proba(X), whole, atol=1e-6)


@pytest.mark.parametrize("sizes", [(0,), (8, -1), (1.5,)])
def test_invalid_hidden_layer_sizes_raise(sizes):
    with pytest.raises(ValueError, match="'hidden_layer_sizes' parameter of MLPProbe must be integers of at least 1"):
        MLPProbe(hidden_layer_sizes=sizes).fit(*features(n=20))


def test_mlp_probe_without_hidden_layers_is_linear():
    X, y = features(n=80)
    probe = MLPProbe(hidden_layer_sizes=(), epochs=2, device="cpu", random_state=0).fit(X, y)
    assert isinstance(probe.network_[0], torch.nn.Linear)
    assert len(probe.network_) == 1
