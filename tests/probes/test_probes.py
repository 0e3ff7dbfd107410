"""Common tests of the probes: scikit-learn's conventions, errors, encoders and augmentation."""

from __future__ import annotations

import copy
import io
import math
import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from conftest import features, quick
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import make_scorer, top_k_accuracy_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import skssl
from skssl import Augmentation, KNNProbe, LinearProbe, MLPProbe
from skssl.augment import preset
from skssl.probes.encoders import as_encoder

SGD = {"solver": "sgd", "epochs": 5, "batch_size": 32, "device": "cpu"}
SMALL = {"hidden_layer_sizes": (16,), "epochs": 20, "batch_size": 32, "device": "cpu"}
PROBES = [LinearProbe(device="cpu"), LinearProbe(**SGD), KNNProbe(device="cpu"), MLPProbe(**SMALL)]
NEAREST = KNNProbe(n_neighbors=3, temperature=0.1, device="cpu")


@parametrize_with_checks(
    [
        LinearProbe(device="cpu"),
        LinearProbe(solver="sgd", epochs=50, device="cpu"),
        LinearProbe(protocol="moco", epochs=100, lr=1.0, device="cpu"),
        KNNProbe(n_neighbors=5, device="cpu"),
        KNNProbe(n_neighbors=5, temperature=0.1, device="cpu"),
        MLPProbe(**SMALL),
    ],
    expected_failed_checks=lambda estimator: {
        "check_sample_weight_equivalence_on_dense_data": "weights agree with repeated samples to float32's precision, "
        "and in several batches repeated samples are in other batches"
    },
)
def test_scikit_learn_estimator_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("model", PROBES)
def test_same_seed_gives_same_bits_and_global_random_state_is_unchanged(model):
    X, y = features()
    before = torch.get_rng_state()
    if "random_state" in model.get_params():
        model = clone(model).set_params(random_state=3)
    first, second = (clone(model).fit(X, y) for _ in range(2))
    assert np.array_equal(first.predict_proba(X), second.predict_proba(X))
    assert torch.equal(before, torch.get_rng_state())


BAD = {"layer": 3, "device": 1, "verbose": -1}
BAD_STEPS = {"epochs": 0, "batch_size": 0, "lr": 0, "momentum": 1, "nesterov": "yes", "schedule": "step"}
BAD_STEPS |= {"weight_decay": -1, "augment": 3, "random_state": "a", "class_weight": "even"}
BAD_LINEAR = {
    "protocol": 1,
    "C": 0,
    "solver": "adam",
    "max_iter": 0,
    "tol": -1,
    "init_std": -1,
    "validation_fraction": 1,
}


@pytest.mark.parametrize(
    ("probe", "bad"),
    [
        (LinearProbe, {**BAD, **BAD_STEPS, **BAD_LINEAR}),
        (KNNProbe, {**BAD, "protocol": 1, "n_neighbors": 0, "temperature": 0, "block_size": 0}),
        (MLPProbe, {**BAD, **BAD_STEPS, "hidden_layer_sizes": 512}),
    ],
)
def test_invalid_parameters_raise_scikit_learns_errors(probe, bad):
    X, y = features(n=40)
    assert {*bad, "encoder"} == set(probe().get_params())
    for name, value in bad.items():
        with pytest.raises(ValueError, match=f"The '{name}' parameter of {probe.__name__} must be"):
            probe(**{name: value}).fit(X, y)
    with pytest.raises(ValueError, match="device must be 'auto' or a device that torch knows"):
        probe(device="gpu").fit(X, y)


@pytest.mark.parametrize("model", PROBES)
def test_invalid_labels_raise(model):
    X, y = features(n=40)
    name = type(model).__name__
    with pytest.raises(ValueError, match=rf"{name} needs samples of at least 2 classes .* only one class: 'cat'"):
        clone(model).fit(X[:3], np.array(["cat"] * 3, dtype=object))
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[40, 39\]"):
        clone(model).fit(X, y[1:])
    probe = clone(model).fit(X, np.array(["a", "b", "c"])[y])
    with pytest.raises(
        ValueError, match=rf"y contains the class 'd', but {name} was fitted on 3 classes, from 'a' to 'c'"
    ):
        probe.score(X[:3], ["a", "d", "e"])
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[2, 3\]"):
        probe.score(X[:3], ["a", "b"])
    weighted = probe.score(X, np.array(["a", "b", "c"])[y], np.arange(40))
    assert weighted == pytest.approx(
        np.average(probe.predict(X) == np.array(["a", "b", "c"])[y], weights=np.arange(40))
    )


@pytest.mark.parametrize("model", PROBES)
def test_wrong_number_of_features_raises(model):
    X, y = features(n=40)
    with pytest.raises(ValueError, match=rf"X has 7 features, but {type(model).__name__} is expecting 12 features"):
        clone(model).fit(X, y).predict(X[:, :7])


@pytest.mark.parametrize("model", PROBES)
def test_string_labels_data_frames_and_joblib_dump(model):
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


def test_grid_search_over_a_pipeline():
    X, y = load_iris(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), LinearProbe(device="cpu"))
    search = GridSearchCV(pipeline, {"linearprobe__C": [1e-4, 1.0, 100.0]}, cv=3).fit(X, y)
    assert search.best_params_["linearprobe__C"] > 1e-4
    assert search.score(X, y) > 0.95
    assert len(pd.DataFrame(search.cv_results_)) == 3


@pytest.mark.parametrize("model", PROBES)
def test_input_features_are_not_modified(model):
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
    on = [m.set_params(random_state=0) if "random_state" in m.get_params() else m for m in on]
    cpu, cuda = (m.fit(X, y).predict_proba(X) for m in on)
    np.testing.assert_allclose(cpu, cuda, atol=1e-3)


@pytest.mark.parametrize("model", PROBES)
def test_progress_bar_is_shown_with_verbose(model, capsys):
    X, y = features(n=40)
    clone(model).fit(X, y).predict(X)
    assert capsys.readouterr().err == ""
    model = clone(model).set_params(verbose=1)
    if type(model) is LinearProbe:
        model.set_params(C=[1.0, 2.0])
    model.fit(X, y).predict(X)
    assert "100%" in capsys.readouterr().err


# Encoders


@pytest.fixture(scope="module")
def encoder(X):
    """A fitted estimator with a normalisation other than ImageNet's."""
    augment = Augmentation(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    return quick(skssl.SimCLR, augment=augment, proj_layers=3).fit(X)


IMAGE_PROBES = [
    LinearProbe(device="cpu"),
    LinearProbe(**SGD, random_state=0),
    NEAREST,
    MLPProbe(**SMALL, random_state=0),
]


@pytest.mark.parametrize("model", IMAGE_PROBES)
@pytest.mark.parametrize("layer", ["backbone", "projector", "projector2", "conv2"])
def test_probe_on_images_equals_probe_on_encoded_features(model, layer, encoder, X, y):
    table = as_encoder(encoder, X, layer=layer).transform(X)
    on_images = clone(model).set_params(encoder=FrozenEstimator(encoder), layer=layer).fit(X[:30], y[:30])
    on_features = clone(model).fit(table[:30], y[:30])
    np.testing.assert_allclose(
        on_images.predict_proba(X[30:]), on_features.predict_proba(table[30:]), rtol=1e-3, atol=1e-4
    )
    assert on_images.score(X[30:], y[30:]) == on_features.score(table[30:], y[30:])
    assert on_images.n_features_in_ == 3 * 16 * 16
    with pytest.raises(ValueError, match=r"shape \(c, h, w\) = \(3, 8, 16\), but SimCLR was fitted on images of shape"):
        on_images.predict(X[:, :8])


@pytest.mark.parametrize(
    ("name", "side", "layers"),
    [
        ("alexnet", 64, {"conv1": 64 * 12**2, "conv3": 384 * 3**2, "conv5": 256 * 3**2}),
        ("resnet18", 32, {"conv1": 64 * 12**2, "layer1": 64 * 8**2, "layer3": 256 * 2**2}),
    ],
)
def test_inner_layers_of_alexnet_and_resnet(name, side, layers):
    X, y = skssl.datasets.make_shapes(12, image_size=side, random_state=0)
    net = torchvision.models.get_model(name, weights=None)
    for layer, width in layers.items():
        probe = LinearProbe(encoder=net, layer=layer, C=1e-3, device="cpu").fit(X, y)
        assert probe.coef_.shape == (len(set(y)), width)
        assert probe.predict(X).shape == (12,)
    with pytest.raises(ValueError, match="Unknown layer 'layer9'"):
        LinearProbe(encoder=net, layer="layer9").fit(X, y)


def test_unfitted_encoder_is_cloned_and_fitted(X, y):
    method = quick(skssl.SupCon)
    probe = KNNProbe(encoder=method, n_neighbors=3).fit(X, y)
    expected = KNNProbe(n_neighbors=3).fit(clone(method).fit_transform(X, y), y)
    assert np.array_equal(probe.predict_proba(X), expected.predict_proba(clone(method).fit(X, y).transform(X)))
    assert not method.__sklearn_is_fitted__()


def test_grid_search_over_layers_and_pickle(encoder, X, y):
    probe = LinearProbe(encoder=FrozenEstimator(encoder), device="cpu")
    search = GridSearchCV(probe, {"layer": ["backbone", "conv4"], "C": [0.1, 1.0]}, cv=2, error_score="raise").fit(X, y)
    assert len(search.cv_results_["params"]) == 4
    again = pickle.loads(pickle.dumps(search))
    assert np.array_equal(again.predict_proba(X), search.predict_proba(X))


def test_probe_with_module_as_encoder_pickles(X, y):
    probe = KNNProbe(encoder=skssl.backbones.ConvNet(), n_neighbors=3, device="cpu").fit(X, y)
    assert np.array_equal(pickle.loads(pickle.dumps(probe)).predict_proba(X), probe.predict_proba(X))


def test_labels_are_checked_before_the_encoder_is_trained(X, y):
    probe = LinearProbe(encoder=quick(skssl.SimCLR, backbone="nothing"))
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[40, 39\]"):
        probe.fit(X, y[1:])
    with pytest.raises(ValueError, match="LinearProbe requires y to be passed, but the target y is None"):
        probe.fit(X, None)
    with pytest.raises(ValueError, match="only one class"):
        probe.fit(X, np.zeros(40))
    with pytest.raises(ValueError, match="leaves a class empty"):
        probe.set_params(C=[1.0, 2.0]).fit(X, np.arange(40) == 0)
    with pytest.raises(TypeError, match="encoder must be an estimator of skssl"):
        LinearProbe(encoder="simclr").fit(X, y)


# Augmentation


def test_sgd_on_augmented_images_matches_literal_loop(encoder, X, y):
    augment = Augmentation(jitter=0.0, gray=0.0)
    probe = LinearProbe(
        encoder=encoder,
        solver="sgd",
        augment=augment,
        epochs=3,
        batch_size=16,
        lr=0.1,
        weight_decay=0.0,
        random_state=0,
    ).fit(X, y)
    codes = np.unique(y, return_inverse=True)[1]
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    order = torch.Generator().manual_seed(seed)
    draws = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(2)[0]))
    normalised = Augmentation(jitter=0.0, gray=0.0, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    images = torch.from_numpy(X.copy()).permute(0, 3, 1, 2)
    coef, intercept, speeds, step = np.zeros((codes.max() + 1, 128)), np.zeros(codes.max() + 1), [0, 0], 0
    for _ in range(3):
        for rows in torch.randperm(40, generator=order).split(16):
            with torch.no_grad():
                h = encoder.encoder_(normalised(images[rows], draws)).double().numpy()
            odds = np.exp(h @ coef.T + intercept)
            residual = (odds / odds.sum(1, keepdims=True) - np.eye(len(coef))[codes[rows.numpy()]]) / len(rows)
            speeds = [0.9 * speed + grad for speed, grad in zip(speeds, (residual.T @ h, residual.sum(0)), strict=True)]
            rate = 0.1 * (1 + np.cos(np.pi * step / 9)) / 2
            coef, intercept, step = coef - rate * speeds[0], intercept - rate * speeds[1], step + 1
    np.testing.assert_allclose(probe.coef_, coef, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(probe.intercept_, intercept, rtol=1e-3, atol=1e-5)
    scores = encoder.transform(X) @ coef.T + intercept  # predictions do not augment
    np.testing.assert_allclose(probe.decision_function(X), scores, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "model",
    [
        LinearProbe(protocol="moco", lr=0.1, epochs=2, batch_size=16),
        LinearProbe(protocol="simsiam", epochs=2, lr=[0.1, 1.0]),
        MLPProbe(augment="simclr", epochs=2, batch_size=16),
    ],
)
def test_encoder_state_does_not_change(model, encoder, X, y):
    before = copy.deepcopy(encoder.net_.module_.state_dict())
    encoder.net_.module_.train()  # as `fit` leaves it
    probe = clone(model).set_params(encoder=FrozenEstimator(encoder), random_state=0).fit(X, y)
    after = encoder.net_.module_.state_dict()
    assert any("running_mean" in name for name in after)
    assert all(torch.equal(before[name], value) for name, value in after.items())
    again = clone(model).set_params(encoder=FrozenEstimator(encoder), random_state=0).fit(X, y)
    assert np.array_equal(probe.predict_proba(X), again.predict_proba(X))


def test_protocol_augments_only_images(encoder, X, y):
    frozen = FrozenEstimator(encoder)
    moco = {"protocol": "moco", "lr": 0.1, "epochs": 2, "batch_size": 16, "random_state": 0, "device": "cpu"}
    augmented = LinearProbe(**moco, encoder=frozen).fit(X, y)
    plain = LinearProbe(**moco, encoder=frozen, augment="none").fit(X, y)
    on_features = LinearProbe(**moco).fit(encoder.transform(X), y)
    np.testing.assert_allclose(plain.coef_, on_features.coef_, rtol=1e-4, atol=1e-6)
    assert np.abs(augmented.coef_ - plain.coef_).max() > 1e-3


def test_first_view_of_a_preset_is_used(encoder, X, y):
    frozen = FrozenEstimator(encoder)
    settings = {"encoder": frozen, "epochs": 1, "batch_size": 16, "random_state": 0, "hidden_layer_sizes": (4,)}
    named = MLPProbe(augment="byol", **settings).fit(X, y)
    spelled = MLPProbe(augment=preset("byol", 16)[0], **settings).fit(X, y)
    assert np.array_equal(named.predict_proba(X), spelled.predict_proba(X))


@pytest.mark.parametrize("probe", [LinearProbe(solver="sgd"), MLPProbe()])
def test_invalid_augmentation_raises(probe, X, y):
    table = X.reshape(40, -1)
    with pytest.raises(ValueError, match="augment='simclr' needs images and an encoder, but encoder is None"):
        clone(probe).set_params(augment="simclr").fit(table, y)
    with pytest.raises(ValueError, match="Unknown augment 'simclear', did you mean 'simclr'"):
        clone(probe).set_params(augment="simclear", encoder=quick(skssl.SimCLR)).fit(X, y)
    clone(probe).set_params(augment="none", epochs=1).fit(table, y)


@pytest.mark.parametrize("probe", [LinearProbe(solver="sgd", epochs=2), MLPProbe(epochs=2)])
def test_saliency_maps_belong_to_the_images(probe, encoder, X, y):
    maps = np.random.default_rng(0).random((41, 4, 4))
    probe = clone(probe).set_params(encoder=FrozenEstimator(encoder), random_state=0)
    for n in (39, 41):
        with pytest.raises(ValueError, match=f"one map for each image: expected 40 maps, got {n}"):
            probe.set_params(augment=Augmentation(saliency=maps[:n])).fit(X, y)
    found = [
        clone(probe).set_params(augment=Augmentation(saliency=saliency)).fit(X, y).predict_proba(X)
        for saliency in (maps[:40], maps[:0:-1], None)
    ]
    assert not np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


@pytest.mark.parametrize("params", [{"augment": "simclr"}, {"protocol": "moco", "solver": "lbfgs"}])
def test_lbfgs_with_augmentation_raises(params, X, y):
    with pytest.raises(ValueError, match="solver='lbfgs' needs fixed features, but augment="):
        LinearProbe(encoder=quick(skssl.SimCLR), **params).fit(X, y)


# Unknown labels


def unknown_among(y, names, value):
    """Return names of classes as objects, every third of them unknown, and a mask of the known ones."""
    labels, known = np.array(names, dtype=object)[y], np.arange(len(y)) % 3 > 0
    labels[~known] = value
    return labels, known


@pytest.mark.parametrize("model", PROBES)
@pytest.mark.parametrize("value", [-1, None, math.nan, ""])
def test_samples_of_unknown_class_are_left_out_with_a_warning(model, value):
    X, y = features(n=60)
    weights = {} if isinstance(model, KNNProbe) else {"sample_weight": np.linspace(1, 2, 60)}
    labels, known = unknown_among(y, ["a", "b", "c"], value)
    model = clone(model) if isinstance(model, KNNProbe) else clone(model).set_params(random_state=0)
    with pytest.warns(UserWarning, match=f"{type(model).__name__} leaves out 20 of 60 samples, whose label is -1"):
        probe = clone(model).fit(X, labels, **weights)
    expected = clone(model).fit(X[known], labels[known].astype(str), **{k: w[known] for k, w in weights.items()})
    assert probe.classes_.tolist() == expected.classes_.tolist() == ["a", "b", "c"]
    assert np.array_equal(probe.predict_proba(X), expected.predict_proba(X))
    shares = np.linspace(1, 3, 60)
    assert probe.score(X, labels, shares) == pytest.approx(expected.score(X[known], labels[known], shares[known]))


@pytest.mark.parametrize("model", PROBES)
def test_top_k_accuracy_of_classes_named_by_strings(model):
    X, y = features(n=60)
    y = np.array(["cat", "dog", "eel"])[y]
    model = clone(model) if isinstance(model, KNNProbe) else clone(model).set_params(random_state=0)
    scores = cross_val_score(model, X, y, scoring="top_k_accuracy", cv=2)  # k = 2
    found = cross_val_score(
        model, X, y, scoring=make_scorer(top_k_accuracy_score, response_method="predict_proba"), cv=2
    )
    assert scores.tolist() == found.tolist()
    for score, (train, test) in zip(scores, StratifiedKFold(2).split(X, y), strict=True):
        probe = clone(model).fit(X[train], y[train])
        probability = probe.predict_proba(X[test])
        right = probability[np.arange(len(test)), np.searchsorted(probe.classes_, y[test])][:, None]
        larger, ties = (probability > right).sum(1), (probability == right).sum(1)
        assert (larger + ties <= 2).mean() <= score <= (larger < 2).mean()  # equal if there are no ties
        some = top_k_accuracy_score(y[test[:5]], probability[:5], labels=probe.classes_)
        assert (larger + ties <= 2)[:5].mean() <= some <= (larger < 2)[:5].mean()


def test_labels_that_are_minus_one_or_one_are_two_classes():
    X, y = features(n=60)
    probe = LinearProbe(device="cpu").fit(X, np.where(y > 0, 1, -1))
    assert probe.classes_.tolist() == [-1, 1]
    assert probe.score(X, np.where(y > 0, 1, -1)) == LinearProbe(device="cpu").fit(X, y > 0).score(X, y > 0)
    with pytest.raises(ValueError, match=r"only one class: 0. 20 labels are -1, which is an unknown class"):
        LinearProbe(device="cpu").fit(X[:30], np.repeat([0, -1], [10, 20]))
    with pytest.raises(ValueError, match=r"LinearProbe\.score needs labels, but every label in y is -1"):
        LinearProbe(device="cpu").fit(X, y).score(X, np.full(60, -1))


@pytest.mark.parametrize("augment", [None, Augmentation(saliency=np.random.default_rng(0).random((40, 4, 4)))])
def test_encoder_is_trained_on_all_images_and_the_probe_on_labelled_ones(augment, X, y):
    labels, known = unknown_among(np.unique(y, return_inverse=True)[1], np.unique(y), None)
    method = quick(skssl.SimCLR, false_negatives="remove")
    probe = MLPProbe(encoder=method, augment=augment, epochs=2, random_state=0)
    with pytest.warns(UserWarning, match="leaves out 14 of 40 samples"):
        found = clone(probe).fit(X, labels)
    encoder = FrozenEstimator(clone(method).fit(X, labels))
    if augment is not None:
        probe.set_params(augment=Augmentation(saliency=augment.saliency[known]))
    expected = clone(probe).set_params(encoder=encoder).fit(X[known], y[known])
    assert np.array_equal(found.predict_proba(X), expected.predict_proba(X))


def test_partly_labelled_pipeline_in_a_grid_search():
    X, y = features(n=60)
    labels, _ = unknown_among(y, ["a", "b", "c"], "")
    with pytest.warns(UserWarning, match="leaves out"):
        search = GridSearchCV(LinearProbe(device="cpu"), {"C": [0.1, 1.0]}, cv=2, error_score="raise").fit(
            X, labels.astype(str)
        )
    assert search.best_estimator_.classes_.tolist() == ["a", "b", "c"]
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
