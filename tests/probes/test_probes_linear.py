"""The linear probe: optimum, SGD against a literal loop, protocols, choice of parameters, CUDA graphs."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import features
from sklearn.base import clone
from sklearn.datasets import load_iris, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import skssl.probes.lbfgs
from skssl import LinearProbe, MLPProbe
from skssl.probes import sgd

SGD = {"solver": "sgd", "epochs": 5, "batch_size": 32, "device": "cpu"}


def objective(model, X, y, C):
    """Return the objective of LogisticRegression divided by the number of samples, in float64."""
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


def test_default_tolerance_is_within_a_thousandth_of_the_optimum():
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
    monkeypatch.setattr(skssl.probes.lbfgs, "MAX_WHITENED", 2)
    diagonal = LinearProbe(device="cpu").fit(X, y)
    assert objective(diagonal, X, y, 1.0) == pytest.approx(objective(whitened, X, y, 1.0), rel=1e-3)
    assert diagonal.n_iter_ > whitened.n_iter_


def test_linear_probe_without_a_penalty():
    X, y = features()
    probe = LinearProbe(weight_decay=0.0, tol=1e-6, device="cpu").fit(X, y)
    exact = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10).fit(X.astype(np.float64), y)
    np.testing.assert_allclose(probe.predict_proba(X), exact.predict_proba(X), atol=5e-3)
    assert LinearProbe(C=np.inf, tol=1e-6, device="cpu").fit(X, y).coef_ == pytest.approx(probe.coef_)


def test_weight_decay_replaces_C():
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


def test_zero_tolerance_stops_at_float32_precision():
    X, y = features()
    probe = LinearProbe(tol=0.0, device="cpu").fit(X, y)
    assert probe.n_iter_ < 100


FACTORS = {  # of the learning rate in each of 15 steps: 5 epochs of 32 + 32 + 6 samples
    "constant": lambda step: 1,
    "cosine": lambda step: (1 + np.cos(np.pi * step / 15)) / 2,
    "epoch_cosine": lambda step: (1 + np.cos(np.pi * (step // 3) / 5)) / 2,
    "multistep": lambda step: 1 if step < 9 else 0.1 if step < 12 else 0.01,
    "steps": lambda step: 1 if step < 9 else 0.1 if step < 12 else 0.01,  # its name in version 0.1.0
}


def initial(shape, std, seed):
    """Return the initial weights of the probe."""
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(2)[1]))
    torch.nn.init.kaiming_uniform_(torch.empty(shape), generator=generator)  # as in torch.nn.Linear
    torch.empty(shape[0]).uniform_(generator=generator)
    return std * torch.randn(shape, generator=generator).double().numpy()


def literal_sgd(X, y, *, lr, decay, schedule, nesterov=False, larc=False, std=0.0, random_state=0, weights=1.0):
    """Train softmax regression in float64 by SGD with momentum 0.9, in 5 epochs of batches of 32."""
    weights = np.broadcast_to(weights / np.mean(weights), (len(X), 1))
    X, n_classes = X.astype(np.float64), y.max() + 1
    seed = int(np.random.RandomState(random_state).randint(2**31 - 1))
    order = torch.Generator().manual_seed(seed)
    params = [initial((n_classes, X.shape[1]), std, seed), np.zeros(n_classes)]
    speeds, step = [np.zeros_like(p) for p in params], 0
    for _ in range(5):
        for rows in torch.randperm(len(X), generator=order).split(32):
            x, targets = X[rows.numpy()], y[rows.numpy()]
            odds = np.exp(x @ params[0].T + params[1])
            residual = (odds / odds.sum(1, keepdims=True) - np.eye(n_classes)[targets]) * weights[rows.numpy()] / len(x)
            grads = [residual.T @ x, residual.sum(0)]
            for i, weight_decay in enumerate((decay, 0)):
                sizes = np.linalg.norm(params[i]), np.linalg.norm(grads[i])
                if not larc or min(sizes) > 0:
                    grads[i] = grads[i] + weight_decay * params[i]
                if larc and min(sizes) > 0:
                    grads[i] = grads[i] * 1e-3 * sizes[0] / (sizes[1] + weight_decay * sizes[0] + 1e-8)
                speeds[i] = 0.9 * speeds[i] + grads[i]
                move = grads[i] + 0.9 * speeds[i] if nesterov else speeds[i]
                params[i] = params[i] - lr * FACTORS[schedule](step) * move
            step += 1
    return params


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("schedule", FACTORS)
def test_sgd_matches_literal_loop(nesterov, schedule):
    X, y = features(n=70)
    X -= 3
    settings = {"lr": 0.3, "schedule": schedule, "nesterov": nesterov}
    probe = LinearProbe(**SGD, **settings, weight_decay=0.01, random_state=0).fit(X, y)
    coef, intercept = literal_sgd(X, y, **settings, decay=0.01)
    np.testing.assert_allclose(probe.coef_, coef, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(probe.intercept_, intercept, rtol=1e-4, atol=1e-5)
    assert probe.n_iter_ == 5


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_larc_matches_literal_loop(decay):
    X, y = features(n=70)
    X -= 3
    probe = LinearProbe(**{**SGD, "solver": "larc"}, lr=20.0, init_std=0.01, weight_decay=decay, random_state=1)
    probe.fit(X, y)
    coef, intercept = literal_sgd(X, y, lr=20.0, decay=decay, schedule="cosine", larc=True, std=0.01, random_state=1)
    np.testing.assert_allclose(probe.coef_, coef, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(probe.intercept_, intercept, rtol=1e-3, atol=1e-5)


def test_weighted_sgd_matches_literal_loop():
    X, y = features(n=70)
    X -= 3
    weights = np.random.default_rng(0).random(70)
    probe = LinearProbe(**SGD, lr=0.3, weight_decay=0.01, random_state=0).fit(X, y, sample_weight=weights)
    coef, intercept = literal_sgd(X, y, lr=0.3, schedule="cosine", decay=0.01, weights=weights[:, None])
    np.testing.assert_allclose(probe.coef_, coef, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(probe.intercept_, intercept, rtol=1e-4, atol=1e-5)


WEIGHTED = [LinearProbe(tol=1e-7), LinearProbe(**{**SGD, "batch_size": 4000}), MLPProbe(hidden_layer_sizes=(), epochs=5,
            batch_size=4000)]  # fmt: skip


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 3.0, 1: 0.5}])
@pytest.mark.parametrize("C", [0.01, 100.0])
def test_weights_are_those_of_logistic_regression(n_classes, class_weight, C):
    X, y = features(n_classes=n_classes)
    kept = (y > 0) | (np.arange(400) % 4 == 0)
    X, y = X[kept], y[kept]
    weights = np.random.default_rng(1).integers(0, 4, len(y)) / 2
    for given in (weights, None):
        probe = LinearProbe(C=C, tol=1e-7, class_weight=class_weight, device="cpu").fit(X, y, sample_weight=given)
        exact = LogisticRegression(C=C, class_weight=class_weight, solver="newton-cholesky", tol=1e-10)
        exact.fit(X.astype(np.float64), y, sample_weight=given)
        np.testing.assert_allclose(probe.predict_proba(X), exact.predict_proba(X), atol=2e-3)
        np.testing.assert_allclose(probe.intercept_, exact.intercept_, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("model", WEIGHTED, ids=["lbfgs", "sgd", "mlp"])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_integer_weights_equal_repeated_samples(model, class_weight):
    """In one batch this is exact; a sample of weight 0 is left out."""
    X, y = features()
    times = np.random.default_rng(1).integers(0, 4, len(y))
    model = clone(model).set_params(class_weight=class_weight, random_state=0, device="cpu")
    weighted = clone(model).fit(X, y, sample_weight=times).predict_proba(X)
    repeated = clone(model).fit(X.repeat(times, axis=0), y.repeat(times)).predict_proba(X)
    np.testing.assert_allclose(weighted, repeated, atol=1e-4)
    assert np.abs(weighted - clone(model).fit(X, y).predict_proba(X)).max() > 1e-3


@pytest.mark.parametrize("model", WEIGHTED, ids=["lbfgs", "sgd", "mlp"])
def test_balanced_classes_have_equal_weight(model):
    """The intercept of features without information is the prior."""
    X, y = np.random.default_rng(0).normal(size=(300, 2)) * 1e-3, np.repeat(["a", "b", "c"], [200, 90, 10])
    model = clone(model).set_params(class_weight="balanced", random_state=0, device="cpu")
    if isinstance(model, MLPProbe):
        model.set_params(epochs=300)
    model.fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), 1 / 3, atol=0.01)


def test_weighted_diagonal_preconditioner(monkeypatch):
    X, y = features()
    weights = np.random.default_rng(0).random(len(y))
    full = LinearProbe(tol=1e-7, device="cpu").fit(X, y, weights)
    monkeypatch.setattr(skssl.probes.lbfgs, "MAX_WHITENED", 0)
    monkeypatch.setattr(skssl.probes.lbfgs, "CHUNK_ROWS", 64)
    diagonal = LinearProbe(tol=1e-7, device="cpu").fit(X, y, weights)
    np.testing.assert_allclose(diagonal.predict_proba(X), full.predict_proba(X), atol=2e-3)


def test_held_out_samples_are_weighted():
    X, y = features()
    weights = np.random.default_rng(1).integers(0, 3, len(y))
    probe = LinearProbe(C=(1e-3, 1.0), random_state=0, device="cpu").fit(X, y, sample_weight=weights)
    used = np.flatnonzero(weights)
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    rows, held = train_test_split(used, test_size=-(-len(used) // 5), stratify=y[used], random_state=seed)
    for score, C in zip(probe.validation_scores_, (1e-3, 1.0), strict=True):
        alone = LinearProbe(C=C, device="cpu").fit(X[rows], y[rows], weights[rows])
        assert score == pytest.approx(alone.score(X[held], y[held], weights[held]))


@pytest.mark.parametrize(
    ("class_weight", "weights", "message"),
    [
        (None, -np.ones(40), "Negative values in data passed to `sample_weight`"),
        (None, np.ones(39), r"sample_weight.shape == \(39,\), expected \(40,\)"),
        (None, np.full(40, np.nan), "sample_weight contains NaN"),
        ({0: 1.0, 1: 0.0}, None, "samples of the class 1 have the weight 0. Leave out the class"),
        ({0: -1.0}, None, "class_weight of LinearProbe must hold numbers of at least 0"),
        ({0: 1.0, "one": 2.0}, None, "classes, .*1.*, are not in class_weight"),
        ("even", None, "'class_weight' parameter of LinearProbe must be"),
    ],
)
def test_invalid_weights_raise(class_weight, weights, message):
    X, y = features(n=40, n_classes=2)
    with pytest.raises(ValueError, match=message):
        LinearProbe(class_weight=class_weight).fit(X, y, sample_weight=weights)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_sgd_converges_to_the_optimum(n_classes):
    X, y = features(n_classes=n_classes)
    X = StandardScaler().fit_transform(X)
    sgd = LinearProbe(**{**SGD, "epochs": 60}, lr=0.5, weight_decay=0.01, random_state=0).fit(X, y)
    optimum = LinearProbe(weight_decay=0.01, device="cpu").fit(X, y)
    C = 1 / (0.01 * len(X))
    assert objective(sgd, X, y, C) == pytest.approx(objective(optimum, X, y, C), rel=1e-3)


def test_diverging_sgd_raises():
    X, y = features()
    with pytest.raises(ValueError, match=r"SGD diverged: with lr=1e\+30 the weights are not finite. Lower lr"):
        LinearProbe(**SGD, lr=1e30, weight_decay=1.0).fit(X, y)


# protocol: solver, epochs, batch_size, lr, schedule, init_std, penalty, crops and flips
PROTOCOLS = {
    None: ("lbfgs", 100, 512, 0.1, "cosine", 0, {"C": 1}, False),
    "effssl": ("sgd", 100, 512, (0.1, 0.5, 1, 1.5, 2), "cosine", 0, {"weight_decay": 0}, False),
    "simsiam": ("larc", 90, 4096, 1.6, "epoch_cosine", 0.01, {"weight_decay": 0}, True),
    "gsg": ("sgd", 90, 256, 30, "epoch_cosine", 0.01, {"weight_decay": 0}, True),
    "moco": ("sgd", 100, 256, 30, "multistep", 0.01, {"weight_decay": 0}, True),
    "swav": ("sgd", 100, 256, 0.3, "epoch_cosine", 0.01, {"weight_decay": 1e-6}, True),
    "solo-learn": ("sgd", 100, 256, 1, "multistep", 0.01, {"weight_decay": 0}, True),
    "decoupling": ("sgd", 65, 192, 0.01, (5 / 65, 25 / 65, 45 / 65), 0.1, {"weight_decay": 5e-4}, True),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_protocol_settings_are_those_of_the_papers(protocol):
    solver, epochs, batch_size, lr, schedule, init_std, penalty, augments = PROTOCOLS[protocol]
    probe = LinearProbe(protocol=protocol)
    expected = {"solver": solver, "epochs": epochs, "batch_size": batch_size, "lr": lr, "schedule": schedule}
    expected |= {"init_std": init_std, "momentum": 0.9, "nesterov": protocol == "decoupling", **penalty}
    assert {name: probe.setting(name) for name in expected} == expected
    augment = probe.setting("augment")
    assert (augment is not None) == augments
    if augments:
        crop = (49 / 64, 49 / 64) if protocol == "decoupling" else (0.08, 1.0)
        assert (augment.crop_scale, augment.flip, augment.jitter, augment.gray) == (crop, 0.5, 0.0, 0.0)


@pytest.mark.parametrize("protocol", ["effssl", "simsiam", "gsg", "moco", "swav", "solo-learn"])
def test_protocol_trains_with_its_settings(protocol):
    X, y = features(n=70)
    X -= 3
    solver, *_, schedule, init_std, penalty, _ = PROTOCOLS[protocol]
    named = LinearProbe(protocol=protocol, lr=0.5, epochs=5, batch_size=32, device="cpu", random_state=0).fit(X, y)
    rules = {"lr": 0.5, "schedule": schedule, "larc": solver == "larc", "std": init_std}
    coef, intercept = literal_sgd(X, y, decay=penalty["weight_decay"], **rules)
    np.testing.assert_allclose(named.coef_, coef, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(named.intercept_, intercept, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("steps", [(0.4, 0.8), ((0.4, 0.2), (0.8, 0.04))])
@pytest.mark.parametrize("probe", [LinearProbe(**SGD), MLPProbe(epochs=5, batch_size=32, device="cpu")])
def test_schedule_takes_steps(probe, steps):
    X, y = features(n=70)
    falls = clone(probe).set_params(epochs=5, random_state=0, schedule=steps).fit(X, y)
    pairs = clone(probe).set_params(epochs=5, random_state=0, schedule=((0.4, 0.2), (0.8, 0.04))).fit(X, y)
    assert np.array_equal(falls.predict_proba(X), pairs.predict_proba(X))
    stays = clone(probe).set_params(epochs=5, random_state=0, schedule="constant").fit(X, y)
    assert not np.allclose(falls.predict_proba(X), stays.predict_proba(X))
    with pytest.raises(ValueError, match="schedule must be a name, a function, or fractions"):
        clone(probe).set_params(schedule=(2.0,)).fit(X, y)


def test_parameters_override_the_protocol():
    probe = LinearProbe(protocol="moco", epochs=10, momentum=0.0, C=3.0)
    assert (probe.setting("epochs"), probe.setting("momentum"), probe.setting("lr")) == (10, 0, 30)
    assert probe._penalty == "C"
    assert LinearProbe(protocol="moco")._penalty == LinearProbe(weight_decay=1.0, C=3.0)._penalty == "weight_decay"
    assert LinearProbe(protocol="transfer")._penalty == LinearProbe()._penalty == "C"
    with pytest.raises(ValueError, match="Unknown protocol 'mocco', did you mean 'moco'"):
        LinearProbe(protocol="mocco").fit(*features(n=20))


def test_transfer_protocol_matches_literal_loop():
    X, y = features(n=200)
    X = ((X - 3) / X.std(0)).astype(np.float64)
    probe = LinearProbe(protocol="transfer", tol=1e-6, device="cpu", random_state=0).fit(X, y)
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    train, held = train_test_split(np.arange(200), test_size=40, stratify=y, random_state=seed)
    exact, decays = LogisticRegression(solver="newton-cholesky", tol=1e-8), np.logspace(-6, 5, 45)
    fits = (exact.set_params(C=1 / decay).fit(X[train], y[train]) for decay in decays)
    scores = [fit.score(X[held], y[held]) for fit in fits]
    assert np.array_equal(probe.validation_scores_, scores)
    best = 1 / decays[int(np.argmax(scores))]
    assert probe.best_params_ == {"C": pytest.approx(best)}
    np.testing.assert_allclose(probe.predict_proba(X), exact.set_params(C=best).fit(X, y).predict_proba(X), atol=2e-3)


def test_best_learning_rate_is_chosen_on_held_out_samples():
    X, y = features(n=200)
    rates = (1e-4, 0.3, 1.0)
    probe = LinearProbe(**SGD, lr=rates, weight_decay=0.0, random_state=0).fit(X - 3, y)
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    train, held = train_test_split(np.arange(200), test_size=40, stratify=y, random_state=seed)
    scores = [
        LinearProbe(**SGD, lr=lr, weight_decay=0.0, random_state=0)
        .fit(X[train] - 3, y[train])
        .score(X[held] - 3, y[held])
        for lr in rates
    ]
    np.testing.assert_allclose(probe.validation_scores_, scores)
    assert probe.best_params_ == {"lr": rates[int(np.argmax(scores))]} != {"lr": 1e-4}
    alone = LinearProbe(**SGD, **probe.best_params_, weight_decay=0.0, random_state=0).fit(X - 3, y)
    assert np.array_equal(probe.coef_, alone.coef_)
    assert alone.best_params_ == {}
    assert len(alone.validation_scores_) == 0


def test_all_combinations_of_sequences_are_compared():
    X, y = features(n=60)
    probe = LinearProbe(**SGD, lr=[0.1, 0.2], weight_decay=np.array([0.0, 0.1, 1.0]), random_state=0).fit(X - 3, y)
    assert probe.validation_scores_.shape == (6,)
    assert set(probe.best_params_) == {"lr", "weight_decay"}
    with pytest.raises(ValueError, match=r"The 'lr' parameter of LinearProbe must be a float in the range .* Got -1"):
        LinearProbe(**SGD, lr=[0.1, -1]).fit(X, y)
    with pytest.raises(ValueError, match=r"parameter 'lr' need.* a non-empty sequence"):
        LinearProbe(**SGD, lr=[]).fit(X, y)


@pytest.mark.parametrize(("y", "fraction"), [("aaaaaaaaab", 0.2), ("abcdeabcde", 0.3), ("aabbccddee", 0.6)])
def test_validation_fraction_that_leaves_a_class_empty_raises(y, fraction):
    X = np.random.default_rng(0).normal(size=(10, 2))
    probe = LinearProbe(C=[1.0, 2.0], validation_fraction=fraction)
    with pytest.raises(
        ValueError, match=rf"validation_fraction={fraction} of 10 samples leaves a class empty. .* to choose C, "
    ):
        probe.fit(X, list(y))
    assert probe.set_params(C=1.0).fit(X, list(y)).predict(X).shape == (10,)


def test_rare_class_is_always_in_the_training_share():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [45, 45, 10])
    for seed in range(20):
        probe = LinearProbe(C=[1e-3, 1.0], validation_fraction=0.9, random_state=seed, device="cpu")
        assert probe.fit(rng.normal(size=(100, 3)), y).coef_.shape == (3, 3)


def several(solver, **params):
    """Train heads with several learning rates and penalties together, and one by one; return both."""
    X, y = features(n=97)
    lr, decay = [0.1, 0.5, 2.0], [0.0, 0.01, 0.1]
    draw, target = sgd.FixedFeatures(X, torch.device("cpu")), torch.from_numpy(y)
    how = {"epochs": 4, "batch_size": 32, "momentum": 0.9, "nesterov": False, "schedule": "cosine", "seed": 3}
    how |= {"solver": solver, "verbose": 0, **params}

    def heads(some):
        def make(width):
            return sgd.LinearHeads(torch.nn.Linear(width, 3), len(some))

        rates = {"lr": [lr[i] for i in some], "weight_decay": [decay[i] for i in some]}
        return sgd.train_head(make, draw, torch.arange(97), target, **rates, **how)

    return heads([0, 1, 2]), [heads([i]) for i in range(3)]


@pytest.mark.parametrize(("solver", "nesterov"), [("sgd", False), ("sgd", True), ("larc", False)])
def test_candidates_trained_together_equal_those_trained_one_by_one(solver, nesterov):
    together, alone = several(solver, nesterov=nesterov)
    for i, head in enumerate(alone):
        torch.testing.assert_close(together.weight[i], head.weight[0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(together.bias[i], head.bias[0], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(together.weight[0], together.weight[1])


class FakeGraphs:
    """A stand-in for CUDA graphs: a capture runs nothing, and a replay runs the function."""

    def __init__(self, monkeypatch, fails=False):
        self.captured, self.replayed, self.fails = [], 0, fails
        monkeypatch.setattr(sgd, "GRAPH_DEVICES", {"cpu"})
        monkeypatch.setattr(sgd, "capture", self.capture)

    def capture(self, work):
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.captured.append([len(x) for x in work.__self__.inputs])

        def replay():
            self.replayed += 1
            work()

        return SimpleNamespace(replay=replay)


@pytest.mark.parametrize("probe", [LinearProbe(**SGD, lr=(0.1, 0.5)), MLPProbe(hidden_layer_sizes=(8,), epochs=5)])
@pytest.mark.parametrize("n", [400, 385, 449])
def test_graphed_steps_equal_eager_steps(probe, n, monkeypatch):
    X, y = features(n=n)
    probe = clone(probe).set_params(batch_size=32, random_state=0, device="cpu")
    expected = clone(probe).fit(X, y).predict_proba(X)
    monkeypatch.setattr(sgd, "STEPS_PER_GRAPH", 4)
    graphs = FakeGraphs(monkeypatch)
    np.testing.assert_array_equal(clone(probe).fit(X, y).predict_proba(X), expected)
    assert graphs.captured
    if isinstance(probe, MLPProbe):  # n / 128 parts in each of five epochs; the first call of each shape warms up
        rest = {400: [16, 1], 385: [129, 4], 449: [65, 2]}[n]
        assert sorted(graphs.captured) == sorted([[128, 4], rest])
        assert graphs.replayed == 5 * {400: 4, 385: 3, 449: 4}[n] - 2


def test_failed_capture_warns_and_trains_eagerly(monkeypatch):
    X, y = features()
    probe = LinearProbe(**SGD, random_state=0)
    expected = clone(probe).fit(X, y).coef_
    graphs = FakeGraphs(monkeypatch, fails=True)
    with pytest.warns(RuntimeWarning, match="not permitted when stream is capturing") as caught:
        found = clone(probe).fit(X, y).coef_
    np.testing.assert_array_equal(found, expected)
    assert len(caught) == 1
    assert graphs.replayed == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("probe", [LinearProbe(**SGD, lr=(0.1, 0.5)), MLPProbe(hidden_layer_sizes=(8,), epochs=5)])
@pytest.mark.parametrize("solver", ["sgd", "larc"])
def test_cuda_graphs_agree_with_the_cpu(probe, solver, monkeypatch):
    X, y = features(n=385)
    probe = clone(probe).set_params(batch_size=32, random_state=0, device="cuda")
    probe.set_params(**({"solver": solver} if isinstance(probe, LinearProbe) else {}))
    monkeypatch.setattr(sgd, "STEPS_PER_GRAPH", 4)
    found = clone(probe).fit(X, y).predict_proba(X)  # a failed capture would warn
    expected = clone(probe).set_params(device="cpu").fit(X, y).predict_proba(X)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    monkeypatch.setattr(sgd, "GRAPH_DEVICES", set())
    np.testing.assert_allclose(clone(probe).fit(X, y).predict_proba(X), found, atol=1e-5)
