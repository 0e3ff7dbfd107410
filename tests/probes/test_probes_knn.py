"""The kNN probe: agreement with scikit-learn, weighted votes, blocks and protocols."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import features
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

import skssl.probes.knn
from skssl import KNNProbe


@pytest.mark.parametrize("n_neighbors", [1, 5, 60])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unweighted_votes_match_k_neighbors_classifier(n_neighbors, dtype):
    X, y = load_digits(return_X_y=True)
    X, y = X.astype(dtype) - 5, np.array(list("abcdefghij"))[y]
    probe = KNNProbe(n_neighbors=n_neighbors, block_size=100, device="cpu").fit(X[:1000], y[:1000])
    exact = KNeighborsClassifier(n_neighbors, metric="cosine", algorithm="brute").fit(X[:1000], y[:1000])
    np.testing.assert_allclose(probe.predict_proba(X[1000:]), exact.predict_proba(X[1000:]), atol=1e-7)
    assert np.array_equal(probe.predict(X[1000:]), exact.predict(X[1000:]))


def test_first_class_wins_a_tie():
    X = np.array([[1.0, 0.1], [1.0, -0.1], [1.0, 0.2], [1.0, -0.2], [-1.0, 0.0]])
    probe = KNNProbe(n_neighbors=4, device="cpu").fit(X, ["b", "a", "b", "a", "c"])
    np.testing.assert_array_equal(probe.predict_proba([[1.0, 0.0]]), [[0.5, 0.5, 0]])
    assert probe.predict([[1.0, 0.0]]) == ["a"]


@pytest.mark.parametrize("temperature", [0.07, 1.0, 1e-4])
def test_weighted_votes_match_literal_loop(temperature):
    X, y = features(n=90, seed=1)
    X -= 3
    bank, queries = X[:60].astype(np.float64), X[60:].astype(np.float64)
    expected = np.zeros((30, 3))
    for i, query in enumerate(queries):
        similarities = [float(query @ x / np.sqrt((query @ query) * (x @ x))) for x in bank]
        nearest = sorted(range(60), key=lambda j: -similarities[j])[:7]
        for j in nearest:
            expected[i, y[j]] += np.exp((similarities[j] - max(similarities)) / temperature)
        expected[i] /= expected[i].sum()
    probe = KNNProbe(n_neighbors=7, temperature=temperature, device="cpu").fit(bank, y[:60])
    np.testing.assert_allclose(probe.predict_proba(queries), expected, atol=1e-3 if temperature < 0.01 else 1e-5)


@pytest.mark.parametrize("n_neighbors", [1, 4, 50, 60])
def test_block_sizes_do_not_change_predictions(monkeypatch, n_neighbors):
    X, y = features(n=90)
    X -= 3
    whole = KNNProbe(n_neighbors=n_neighbors, temperature=0.1, device="cpu").fit(X[:60], y[:60])
    expected = whole.predict_proba(X[60:])
    monkeypatch.setattr(skssl.probes.knn, "BANK_ROWS", 7)
    blocks = whole.set_params(block_size=4)
    np.testing.assert_allclose(blocks.predict_proba(X[60:]), expected, atol=1e-6)


def test_similarity_blocks_have_bounded_size(monkeypatch):
    X, y = features(n=300)
    monkeypatch.setattr(skssl.probes.knn, "BANK_ROWS", 50)
    sizes = []
    topk = torch.Tensor.topk
    monkeypatch.setattr(torch.Tensor, "topk", lambda block, k: (sizes.append(block.numel()), topk(block, k))[1])
    KNNProbe(n_neighbors=3, block_size=10, device="cpu").fit(X, y).predict(X)
    assert max(sizes) == 10 * 50


def test_zero_vectors_have_zero_similarity():
    X = np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    probe = KNNProbe(n_neighbors=2, temperature=0.1, device="cpu").fit(X, [0, 1, 2])
    assert np.isfinite(probe.predict_proba(X)).all()
    assert probe.predict([[1.0, 0.0]]) == 1
    np.testing.assert_allclose(probe.predict_proba([[1.0, 0.0]])[0, 0], np.exp(-10) / (1 + np.exp(-10)), rtol=1e-5)


def test_more_neighbours_than_samples_raises():
    X, y = features(n=10)
    probe = KNNProbe(n_neighbors=11, device="cpu").fit(X, y)
    with pytest.raises(ValueError, match="Expected n_neighbors <= n_samples_fit, but n_neighbors = 11"):
        probe.predict(X)


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [(None, (20, math.inf)), ("effssl", (200, 0.1)), ("gsg", (1, math.inf)), ("moco", (200, 0.1))],
)
def test_protocol_settings_are_those_of_the_papers(protocol, expected):
    X, y = features(n=300)
    named, spelled = KNNProbe(protocol=protocol), KNNProbe(n_neighbors=expected[0], temperature=expected[1])
    assert (named.setting("n_neighbors"), named.setting("temperature")) == expected
    assert np.array_equal(named.fit(X, y).predict_proba(X[:9] + 1), spelled.fit(X, y).predict_proba(X[:9] + 1))
    assert KNNProbe(protocol=protocol, n_neighbors=5).setting("n_neighbors") == 5


@pytest.mark.parametrize("protocol", ["simsiam", "transfer"])
def test_protocol_without_knn_settings_raises(protocol):
    with pytest.raises(ValueError, match=f"Unknown protocol '{protocol}'. Known names: 'effssl', 'gsg', 'moco'"):
        KNNProbe(protocol=protocol).fit(*features(n=30))
