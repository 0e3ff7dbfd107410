from __future__ import annotations

import io
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import skssl.probes
from skssl.probes import KNNProbe, LinearProbe

SGD = {"solver": "sgd", "epochs": 5, "batch_size": 32, "device": "cpu"}


@parametrize_with_checks(
    [
        LinearProbe(device="cpu"),
        LinearProbe(solver="sgd", epochs=20, device="cpu"),
        KNNProbe(n_neighbors=5, device="cpu"),
        KNNProbe(n_neighbors=5, temperature=0.1, device="cpu"),
    ]
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def features(n=400, d=12, n_classes=3, seed=0):
    """Badly conditioned features: mixed directions whose variances span four decades, far from zero."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    X = rng.normal(size=(n_classes, d))[y] + rng.normal(size=(n, d))
    X = X @ np.diag(np.logspace(0, -2, d)) @ np.linalg.qr(rng.normal(size=(d, d)))[0] + 3
    return X.astype(np.float32), y


def objective(model, X, y, C):
    """The objective of LogisticRegression divided by the number of samples, in float64."""
    loss = -np.log(model.predict_proba(X.astype(np.float64))[np.arange(len(y)), y]).mean()
    return loss + (model.coef_.astype(np.float64) ** 2).sum() / (2 * C * len(y))


@pytest.mark.parametrize("n_classes", [2, 3, 7])
@pytest.mark.parametrize("C", [1e-3, 1.0, 1e4])
def test_linear_probe_reaches_the_optimum_of_logistic_regression(n_classes, C):
    X, y = features(n_classes=n_classes)
    probe = LinearProbe(C=C, tol=1e-6, device="cpu").fit(X, y)
    exact = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-10).fit(X.astype(np.float64), y)
    assert probe.coef_.shape == exact.coef_.shape
    assert probe.intercept_.shape == exact.intercept_.shape
    assert objective(probe, X, y, C) == pytest.approx(objective(exact, X, y, C), rel=1e-5)
    np.testing.assert_allclose(probe.predict_proba(X), exact.predict_proba(X), atol=2e-3)


def test_linear_probe_at_its_default_tolerance_is_within_a_thousandth_of_the_optimum():
    X, y = features()
    probe = LinearProbe(device="cpu").fit(X, y)
    exact = LogisticRegression(solver="newton-cholesky", tol=1e-10).fit(X.astype(np.float64), y)
    assert objective(probe, X, y, 1.0) < objective(exact, X, y, 1.0) * 1.001
    assert probe.n_iter_ < 20


def test_linear_probe_on_separable_data_with_a_weak_penalty():
    X, y = load_iris(return_X_y=True)
    X, y = X[y < 2], y[y < 2]
    probe = LinearProbe(C=1e4, tol=1e-7, device="cpu").fit(X, y)
    exact = LogisticRegression(C=1e4, solver="newton-cholesky", tol=1e-10).fit(X, y)
    assert probe.score(X, y) == 1
    assert objective(probe, X, y, 1e4) == pytest.approx(objective(exact, X, y, 1e4), rel=1e-6)


def test_linear_probe_on_separable_data_without_a_penalty():
    X, y = load_iris(return_X_y=True)
    probe = LinearProbe(C=np.inf, device="cpu").fit(X[:100], y[:100])
    assert probe.score(X[:100], y[:100]) == 1
    assert np.isfinite(probe.coef_).all()


def test_linear_probe_on_collinear_constant_and_huge_features():
    X, y = features()
    X = np.hstack([X, X[:, :3], np.full((len(X), 1), 7, np.float32), 1e4 * X[:, 3:5]])
    probe = LinearProbe(device="cpu").fit(X, y)
    exact = LogisticRegression(solver="newton-cholesky", tol=1e-10).fit(X.astype(np.float64), y)
    assert objective(probe, X, y, 1.0) < objective(exact, X, y, 1.0) * 1.001


def test_linear_probe_on_few_samples_of_many_features():
    X, y = make_classification(60, 200, n_informative=20, n_classes=3, random_state=0)
    probe = LinearProbe(tol=1e-6, device="cpu").fit(X, y)
    exact = LogisticRegression(tol=1e-8, max_iter=1000).fit(X, y)
    assert objective(probe, X, y, 1.0) == pytest.approx(objective(exact, X, y, 1.0), rel=1e-4)


def test_linear_probe_with_a_diagonal_preconditioner(monkeypatch):
    X, y = features()
    whitened = LinearProbe(device="cpu").fit(X, y)
    monkeypatch.setattr(skssl.probes, "WIDEST_WHITENED", 2)
    diagonal = LinearProbe(device="cpu").fit(X, y)
    assert objective(diagonal, X, y, 1.0) == pytest.approx(objective(whitened, X, y, 1.0), rel=1e-3)
    assert diagonal.n_iter_ > whitened.n_iter_


def test_linear_probe_without_a_penalty():
    X, y = features()
    probe = LinearProbe(weight_decay=0.0, tol=1e-6, device="cpu").fit(X, y)
    exact = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10).fit(X.astype(np.float64), y)
    np.testing.assert_allclose(probe.predict_proba(X), exact.predict_proba(X), atol=5e-3)
    assert LinearProbe(C=np.inf, tol=1e-6, device="cpu").fit(X, y).coef_ == pytest.approx(probe.coef_)


def test_weight_decay_takes_the_place_of_c():
    X, y = features()
    by_decay = LinearProbe(C=123.0, weight_decay=1 / (len(X) * 2.0), device="cpu").fit(X, y)
    np.testing.assert_allclose(by_decay.coef_, LinearProbe(C=2.0, device="cpu").fit(X, y).coef_, rtol=1e-4)


def test_linear_probe_far_from_zero_in_float64():
    X, y = load_iris(return_X_y=True)
    near, far = (LinearProbe(tol=1e-6, device="cpu").fit(X + offset, y) for offset in (0, 1e6))
    np.testing.assert_allclose(far.predict_proba(X + 1e6), near.predict_proba(X), atol=1e-4)


def test_linear_probe_warns_when_it_has_not_converged():
    X, y = features()
    with pytest.warns(ConvergenceWarning, match=r"max_iter=2 iterations: .* tol=0\.0001 of the objective\. Increase"):
        probe = LinearProbe(max_iter=2, device="cpu").fit(X, y)
    assert probe.n_iter_ == 2


def test_linear_probe_stops_where_float32_ends():
    X, y = features()
    probe = LinearProbe(tol=0.0, device="cpu").fit(X, y)
    assert probe.n_iter_ < 100


@pytest.mark.parametrize("model", [LinearProbe(device="cpu"), LinearProbe(**SGD), KNNProbe(device="cpu")])
def test_same_seed_same_bits_and_no_global_state(model):
    X, y = features()
    before = torch.get_rng_state()
    if isinstance(model, LinearProbe):
        model = clone(model).set_params(random_state=3)
    first, second = (clone(model).fit(X, y) for _ in range(2))
    assert np.array_equal(first.predict_proba(X), second.predict_proba(X))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("schedule", ["cosine", "steps", "constant"])
def test_sgd_is_torchs(nesterov, schedule):
    X, y = features(n=70)
    X -= 3
    probe = LinearProbe(**SGD, lr=0.3, weight_decay=0.01, nesterov=nesterov, schedule=schedule, random_state=0).fit(
        X, y
    )
    layer = torch.nn.Linear(X.shape[1], 3)
    for param in layer.parameters():
        torch.nn.init.zeros_(param)
    groups = [{"params": [layer.weight], "weight_decay": 0.01}, {"params": [layer.bias]}]
    optimizer = torch.optim.SGD(groups, lr=0.3, momentum=0.9, nesterov=nesterov)
    factors = {
        "cosine": lambda step: (1 + np.cos(np.pi * step / 15)) / 2,  # 5 epochs of 32 + 32 + 6 samples
        "steps": lambda step: 1 if step < 9 else 0.1 if step < 12 else 0.01,
        "constant": lambda step: 1,
    }
    schedule_ = torch.optim.lr_scheduler.LambdaLR(optimizer, factors[schedule])
    generator = torch.Generator().manual_seed(int(np.random.RandomState(0).randint(2**31 - 1)))
    for _ in range(5):
        for rows in torch.randperm(70, generator=generator).split(32):
            loss = torch.nn.functional.cross_entropy(layer(torch.from_numpy(X)[rows]), torch.from_numpy(y)[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule_.step()
    np.testing.assert_allclose(probe.coef_, layer.weight.detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(probe.intercept_, layer.bias.detach().numpy(), rtol=1e-4, atol=1e-5)
    assert probe.n_iter_ == 5


@pytest.mark.parametrize("n_classes", [2, 3])
def test_sgd_goes_to_the_same_optimum(n_classes):
    X, y = features(n_classes=n_classes)
    X = StandardScaler().fit_transform(X)
    sgd = LinearProbe(**{**SGD, "epochs": 60}, lr=0.5, weight_decay=0.01, random_state=0).fit(X, y)
    optimum = LinearProbe(weight_decay=0.01, device="cpu").fit(X, y)
    C = 1 / (0.01 * len(X))
    assert objective(sgd, X, y, C) == pytest.approx(objective(optimum, X, y, C), rel=1e-3)


def test_sgd_that_diverges_is_refused():
    X, y = features()
    with pytest.raises(ValueError, match=r"SGD diverged: with lr=1e\+30 the weights are not finite. Lower lr"):
        LinearProbe(**SGD, lr=1e30, weight_decay=1.0).fit(X, y)


@pytest.mark.parametrize("probe", [LinearProbe, KNNProbe])
def test_bad_parameters_are_refused_in_scikit_learns_words(probe):
    X, y = features(n=40)
    if probe is LinearProbe:
        bad = {"C": 0, "weight_decay": -1, "solver": "adam", "max_iter": 0, "tol": -1, "epochs": 0}
        bad |= {"batch_size": 0, "lr": 0, "momentum": 1, "nesterov": "yes", "schedule": "step"}
        bad |= {"device": 1, "random_state": "a"}
    else:
        bad = {"n_neighbors": 0, "temperature": 0, "block_size": 0, "device": None}
    assert set(bad) == set(probe().get_params())
    for name, value in bad.items():
        with pytest.raises(ValueError, match=f"The '{name}' parameter of {probe.__name__} must be"):
            probe(**{name: value}).fit(X, y)
    with pytest.raises(ValueError, match="device must be 'auto' or a device that torch knows"):
        probe(device="gpu").fit(X, y)


def test_a_single_class_is_refused():
    with pytest.raises(ValueError, match="contains only one class: 'cat'"):
        LinearProbe().fit(np.eye(3), np.array(["cat"] * 3, dtype=object))


@pytest.mark.parametrize("n_neighbors", [1, 5, 60])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_knn_probe_is_k_neighbors_classifier(n_neighbors, dtype):
    X, y = load_digits(return_X_y=True)
    X, y = X.astype(dtype) - 5, np.array(list("abcdefghij"))[y]
    probe = KNNProbe(n_neighbors=n_neighbors, block_size=100, device="cpu").fit(X[:1000], y[:1000])
    exact = KNeighborsClassifier(n_neighbors, metric="cosine", algorithm="brute").fit(X[:1000], y[:1000])
    np.testing.assert_allclose(probe.predict_proba(X[1000:]), exact.predict_proba(X[1000:]), atol=1e-7)
    assert np.array_equal(probe.predict(X[1000:]), exact.predict(X[1000:]))


def test_knn_probe_gives_a_tie_to_the_first_class():
    X = np.array([[1.0, 0.1], [1.0, -0.1], [1.0, 0.2], [1.0, -0.2], [-1.0, 0.0]])
    probe = KNNProbe(n_neighbors=4, device="cpu").fit(X, ["b", "a", "b", "a", "c"])
    np.testing.assert_array_equal(probe.predict_proba([[1.0, 0.0]]), [[0.5, 0.5, 0]])
    assert probe.predict([[1.0, 0.0]]) == ["a"]


@pytest.mark.parametrize("temperature", [0.07, 1.0, 1e-4])
def test_weighted_votes_by_a_literal_loop(temperature):
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
def test_the_blocks_of_knn_probe_do_not_show(monkeypatch, n_neighbors):
    X, y = features(n=90)
    X -= 3
    whole = KNNProbe(n_neighbors=n_neighbors, temperature=0.1, device="cpu").fit(X[:60], y[:60])
    expected = whole.predict_proba(X[60:])
    monkeypatch.setattr(skssl.probes, "BANK_ROWS", 7)
    blocks = whole.set_params(block_size=4)
    np.testing.assert_allclose(blocks.predict_proba(X[60:]), expected, atol=1e-6)


def test_the_memory_of_knn_probe_is_bounded(monkeypatch):
    X, y = features(n=300)
    monkeypatch.setattr(skssl.probes, "BANK_ROWS", 50)
    sizes = []
    topk = torch.Tensor.topk
    monkeypatch.setattr(torch.Tensor, "topk", lambda block, k: (sizes.append(block.numel()), topk(block, k))[1])
    KNNProbe(n_neighbors=3, block_size=10, device="cpu").fit(X, y).predict(X)
    assert max(sizes) == 10 * 50


def test_knn_probe_knows_vectors_of_zeros():
    X = np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    probe = KNNProbe(n_neighbors=2, temperature=0.1, device="cpu").fit(X, [0, 1, 2])
    assert np.isfinite(probe.predict_proba(X)).all()
    assert probe.predict([[1.0, 0.0]]) == 1
    np.testing.assert_allclose(probe.predict_proba([[1.0, 0.0]])[0, 0], np.exp(-10) / (1 + np.exp(-10)), rtol=1e-5)


def test_knn_probe_refuses_more_neighbours_than_samples():
    X, y = features(n=10)
    probe = KNNProbe(n_neighbors=11, device="cpu").fit(X, y)
    with pytest.raises(ValueError, match="Expected n_neighbors <= n_samples_fit, but n_neighbors = 11"):
        probe.predict(X)


PROBES = [LinearProbe(device="cpu"), LinearProbe(**SGD), KNNProbe(device="cpu")]


@pytest.mark.parametrize("model", PROBES)
def test_string_labels_pandas_and_the_way_through_a_file(model):
    X, y = load_iris(return_X_y=True, as_frame=True)
    y = y.map({0: "setosa", 1: "versicolor", 2: "virginica"})
    probe = clone(model).fit(X, y)
    assert list(probe.classes_) == ["setosa", "versicolor", "virginica"]
    assert list(probe.feature_names_in_) == list(X.columns)
    assert probe.score(X, y) > 0.6
    assert probe.predict_proba(X).sum(axis=1) == pytest.approx(1)
    file = io.BytesIO()
    joblib.dump(probe, file)
    file.seek(0)
    assert np.array_equal(joblib.load(file).predict_proba(X), probe.predict_proba(X))
    with pytest.raises(ValueError, match="feature names should match"):
        probe.predict(X.rename(columns={"sepal length (cm)": "other"}))


def test_grid_search_at_the_end_of_a_pipeline():
    X, y = load_iris(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), LinearProbe(device="cpu"))
    search = GridSearchCV(pipeline, {"linearprobe__C": [1e-4, 1.0, 100.0]}, cv=3).fit(X, y)
    assert search.best_params_["linearprobe__C"] > 1e-4
    assert search.score(X, y) > 0.95
    assert len(pd.DataFrame(search.cv_results_)) == 3


@pytest.mark.parametrize("model", PROBES)
def test_features_are_left_as_they_were(model):
    X, y = features()
    before = X.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        X.flags.writeable = False  # as joblib hands memory-mapped arrays to its workers
        clone(model).fit(X, y).predict(X)
    assert np.array_equal(X, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("model", PROBES)
def test_cuda_agrees_with_the_cpu(model):
    X, y = features()
    X -= 3
    on = [clone(model).set_params(device=device) for device in ("cpu", "cuda")]
    on = [m.set_params(random_state=0) if isinstance(m, LinearProbe) else m for m in on]
    cpu, cuda = (m.fit(X, y).predict_proba(X) for m in on)
    np.testing.assert_allclose(cpu, cuda, atol=1e-3)
