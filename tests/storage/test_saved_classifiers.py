"""Saved probes and fine-tuned classifiers: the same predictions, and forged files are refused."""

import time

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import quick
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from strategies import largest

import skssl
from skssl import Distiller, FineTuner, KNNProbe, LinearProbe, MLPProbe
from skssl.storage.files import read, write

PROBES = {
    "knn": KNNProbe(n_neighbors=3, block_size=8),
    "linear": LinearProbe(),
    "candidates": LinearProbe(C=[0.1, 1.0], random_state=0),
    "sgd": LinearProbe(solver="sgd", epochs=2, class_weight="balanced", random_state=0),
    "mlp": MLPProbe(hidden_layer_sizes=(6, 5), epochs=2, random_state=0),
}
TUNING = {"epochs": 1, "batch_size": 16, "random_state": 0}


def own_network():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2), torch.nn.ReLU(), torch.nn.Conv2d(8, 6, 3))


@pytest.fixture(scope="module")
def encoder():
    X = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    return quick(skssl.SimCLR, proj_dim=8, hidden_dim=8, proj_layers=3).fit(X)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.safetensors"


def check_round_trip(classifier, path, X, **modules):
    """Save and load a classifier, and compare its predictions and attributes."""
    classifier.save(path)
    before = torch.get_rng_state()
    loaded = skssl.load(path, **modules)
    assert torch.equal(torch.get_rng_state(), before)
    assert type(loaded) is type(classifier)
    assert np.array_equal(loaded.predict_proba(X), classifier.predict_proba(X))
    assert np.array_equal(loaded.predict(X), classifier.predict(X))
    assert loaded.classes_.tolist() == classifier.classes_.tolist()
    assert loaded.classes_.dtype.kind == classifier.classes_.dtype.kind
    assert loaded.n_features_in_ == classifier.n_features_in_
    return loaded


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_probes_of_features(name, n_classes, path):
    draw = np.random.default_rng(0)
    X, y = draw.normal(size=(60, 7)), np.array(["a", "b", "cd"])[np.arange(60) % n_classes]
    frame = pd.DataFrame(X, columns=list("abcdefg"))
    loaded = check_round_trip(clone(PROBES[name]).fit(frame, y), path, frame)
    assert loaded.feature_names_in_.tolist() == list("abcdefg")
    with pytest.raises(ValueError, match="feature names should match"):
        loaded.predict(frame.iloc[:, :3])
    if name == "candidates":
        assert loaded.best_params_["C"] in (0.1, 1.0)
        assert loaded.validation_scores_.shape == (2,)


@pytest.mark.parametrize(
    "y",
    [np.arange(40) % 3, np.arange(40) % 2 == 0, (np.arange(40) % 2).astype(np.int8), np.array([1.0, 2.0] * 20)],
    ids=["int64", "bool", "int8", "float64"],
)
def test_classes_keep_their_type(y, path):
    X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    loaded = check_round_trip(KNNProbe(n_neighbors=3).fit(X, y), path, X)
    assert loaded.classes_.dtype == y.dtype
    assert loaded.bank_.dtype == np.float32


@pytest.mark.parametrize("layer", ["backbone", "conv2", "projector1"])
def test_probes_of_a_fitted_encoder_save_it_once(layer, encoder, X, y, path):
    probe = LinearProbe(encoder=FrozenEstimator(encoder), layer=layer).fit(X, y)
    loaded = check_round_trip(probe, path, X)
    assert not any(name.startswith("encoder.") for name in read(path)[1])
    assert isinstance(loaded.encoder, FrozenEstimator)
    assert loaded.encoder_.module.training is False
    assert np.array_equal(loaded.encoder.transform(X), encoder.transform(X))
    check_round_trip(loaded.set_params(layer="backbone"), path, X)
    if layer == "backbone":
        assert loaded.encoder_.module is loaded.encoder.estimator.encoder_


@pytest.mark.parametrize("name", PROBES)
def test_probes_of_an_unfitted_encoder_save_what_fit_trained(name, X, y, path):
    given = quick(skssl.SimCLR, proj_dim=8, aux="rotation")
    probe = clone(PROBES[name]).set_params(encoder=given, layer="projector").fit(X, y)
    given.set_params(backbone="resnet18")  # after the fit
    loaded = check_round_trip(probe, path, X)
    assert loaded.encoder.backbone == "resnet18"
    with pytest.raises(NotFittedError):
        loaded.encoder.transform(X)


def test_probes_of_an_encoder_that_was_fitted_again(encoder, X, y, path):
    own = clone(encoder).fit(X[:24])
    probe = KNNProbe(encoder=own, n_neighbors=3).fit(X, y)
    own.set_params(random_state=1).fit(X)
    loaded = check_round_trip(probe, path, X)
    assert np.array_equal(loaded.encoder.transform(X), own.transform(X))


def test_fine_tuned_classifiers(encoder, X, y, path):
    few = skssl.label_fraction(y, 0.5, random_state=0)
    tuner = FineTuner(encoder, layer="projector1", **TUNING).fit(X, few)
    tuner.set_params(layer="backbone", augment="byol")  # after the fit
    loaded = check_round_trip(tuner, path, X)
    assert (loaded.layer, loaded.augment) == ("backbone", "byol")
    pd.testing.assert_frame_equal(loaded.history_, tuner.history_)
    assert np.array_equal(loaded.encoder.transform(X), encoder.transform(X))
    again = loaded.set_params(layer="projector1", augment=None).fit(X, few)
    tuner.set_params(layer="projector1", augment=None).fit(X, few)
    assert np.array_equal(again.predict_proba(X), tuner.predict_proba(X)), "fit starts from the saved encoder"
    check_round_trip(again, path, X)


def test_fine_tuned_classifiers_of_unfitted_encoders(X, y, path):
    given = quick(skssl.MoCo, bn_splits=2)
    loaded = check_round_trip(FineTuner(given, class_weight={"disc": 2.0}, **TUNING).fit(X, y), path, X)
    assert loaded.class_weight == {"disc": 2.0}
    numbers = np.unique(y, return_inverse=True)[1]
    loaded = check_round_trip(FineTuner(given, class_weight={0: 2.0, 1: 0.5}, **TUNING).fit(X, numbers), path, X)
    assert loaded.class_weight == {0: 2.0, 1: 0.5}


def test_distilled_students(encoder, X, y, path):
    teacher = FineTuner(encoder, **TUNING).fit(X, y)
    student = Distiller(teacher, quick(skssl.SimCLR, epochs=0), **TUNING).fit(X)
    loaded = check_round_trip(student, path, X)
    assert not any("teacher" in name for name in read(path)[1])
    assert np.array_equal(loaded.teacher.predict_proba(X), teacher.predict_proba(X))
    assert np.array_equal(loaded.fit(X).predict_proba(X), student.predict_proba(X)), "fit uses the saved teacher"
    light = student.set_params(teacher=clone(teacher).set_params(encoder=clone(encoder)))
    size = path.stat().st_size
    check_round_trip(light, path, X)
    assert path.stat().st_size < size / 2


def test_own_modules_are_passed_by_the_names_of_the_parameters(X, y, path):
    given = quick(skssl.SimCLR, backbone=own_network(), proj_dim=8)
    classifiers = [
        (FineTuner(given, **TUNING).fit(X, y), "encoder__backbone"),
        (FineTuner(clone(given).fit(X), **TUNING).fit(X, y), "encoder__backbone"),
        (FineTuner(own_network(), **TUNING).fit(X, y), "encoder"),
        (LinearProbe(encoder=own_network()).fit(X, y), "encoder"),
        (LinearProbe(encoder=FrozenEstimator(clone(given).fit(X))).fit(X, y), "encoder__backbone"),
        (Distiller(FineTuner(quick(skssl.SimCLR), **TUNING), given, **TUNING).fit(X, y), "student__backbone"),
    ]
    for classifier, name in classifiers:
        check_round_trip(classifier, path, X, **{name: own_network()})
        with pytest.raises(
            ValueError, match=rf"parameter {name} was a Sequential .* skssl\.load\(path, {name}=\.\.\.\)"
        ):
            skssl.load(path)
        with pytest.raises(ValueError, match="is not the one that was saved"):
            skssl.load(path, **{name: torch.nn.Conv2d(3, 6, 3)})


def test_unfitted_probes_and_other_estimators_are_refused(encoder, X, y, path):
    with pytest.raises(NotFittedError):
        KNNProbe().save(path)
    probe = KNNProbe(n_neighbors=3).fit(X.reshape(40, -1), y)
    probe.classes_ = np.array([1j, 2j])
    with pytest.raises(TypeError, match=r"Classes of the type complex128 cannot be saved"):
        probe.save(path)
    assert not path.exists()


# Forged files


@pytest.fixture(scope="module")
def files(encoder, tmp_path_factory):
    """The headers and tensors of saved classifiers."""
    X, y = skssl.datasets.make_shapes(40, image_size=16, n_classes=3, random_state=0)
    folder = tmp_path_factory.mktemp("files")
    classifiers = {
        "tuner": FineTuner(quick(skssl.SimCLR, proj_dim=8), **TUNING),
        "knn": KNNProbe(n_neighbors=3, encoder=quick(skssl.SimCLR, proj_dim=8)),
        "shared": LinearProbe(encoder=encoder),
        "mlp": MLPProbe(hidden_layer_sizes=(4,), epochs=1, encoder=encoder),
    }
    for name, classifier in classifiers.items():
        classifier.fit(X, y).save(folder / name)
    return {name: read(folder / name) for name in classifiers}


READ = {"shape": (3, 16, 16), "scale": None, "whole": False, "column": False, "feature_names": [], "n_samples": 40}


def nested(header, **changes):
    first, *others = header["estimators"]
    return {**header, "estimators": [{**first, **changes}, *others]}


def in_encoder(header, **changes):
    return {**header, "encoder": {**header["encoder"], **changes}}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("tuner", lambda h, t: {**h, "estimators": 3}, "'estimators' must be a list of at most 16 dicts"),
        ("tuner", lambda h, t: {**h, "estimators": h["estimators"] * 20}, "at most 16 dicts"),
        ("tuner", lambda h, t: {**h, "estimators": []}, "has no known meaning"),
        ("tuner", lambda h, t: nested(h, **{"class": "os"}), "Unknown class 'os'"),
        ("tuner", lambda h, t: nested(h, code="1"), "'code' is unknown"),
        ("tuner", lambda h, t: {**h, "parameters": {"encoder": {"estimator": 0}}}, "has no known meaning"),
        (
            "shared",
            lambda h, t: {**h, "encoder": {**h["estimators"][0], **READ, "estimator": 1, "layer": "conv2"}},
            "'encoder' must be None or a dict of estimator, layer, shape",
        ),
        ("shared", lambda h, t: {**h, "encoder": {**READ, "estimator": 1, "layer": "conv2"}}, "method of its own"),
        ("tuner", lambda h, t: in_encoder(h, estimator=99), "method of its own"),
        ("tuner", lambda h, t: in_encoder(h, estimator=None), "encoder must be a module. Got a SimCLR"),
        ("tuner", lambda h, t: in_encoder(h, layer="conv9"), "Unknown layer 'conv9'"),
        ("tuner", lambda h, t: in_encoder(h, layer="projector"), "'net.encoder.0.* is missing|unknown"),
        ("tuner", lambda h, t: in_encoder(h, shape=(3, 10**6, 0)), "'encoder' must be a dict of estimator"),
        ("tuner", lambda h, t: {**h, "classes": {"dtype": "os", "values": ["a"]}}, "'classes' must be the dtype"),
        ("tuner", lambda h, t: {**h, "classes": {"dtype": "int8", "values": [1, 2, 300]}}, "cannot be loaded"),
        ("tuner", lambda h, t: {**h, "classes": {"dtype": "str", "values": ["a"] * 10**5}}, "must be of shape"),
        ("tuner", lambda h, t: {**h, "history": [{"loss": "x"}]}, "'epoch' in row 0 of 'history'"),
        ("tuner", lambda h, t: t.update({"net.teacher.x": torch.ones(1)}), "'net.teacher.x' is unknown"),
        ("tuner", lambda h, t: t.update({"head.x": torch.ones(1)}), "'head.x' is unknown"),
        ("tuner", lambda h, t: t.update({"estimator.1.net.x": torch.ones(1)}), "'net.x' is unknown"),
        ("tuner", lambda h, t: t.update({"net.head.weight": torch.ones(3, 10)}), r"must be of shape \(3, 128\)"),
        ("knn", lambda h, t: t.update({"bank": torch.ones(40, 5)}), r"'bank' must be of shape \(-1, 128\)"),
        ("knn", lambda h, t: t.update({"codes": torch.full((40,), 3)}), "'codes' must be indices of 3 classes"),
        ("knn", lambda h, t: t.update({"codes": torch.full((40,), -1)}), "'codes' must be indices of 3 classes"),
        ("knn", lambda h, t: t.pop("codes") is None, "'codes' must be of shape"),
        ("knn", lambda h, t: t.update({"more": torch.ones(1)}), "'more' is unknown"),
        ("knn", lambda h, t: {**h, "encoder": None}, "not fitted|is unknown"),
        ("knn", lambda h, t: {**h, "layer": None, "encoder": None}, "'bank' must be of shape|is unknown"),
        ("shared", lambda h, t: {**h, "layer": "conv1"}, r"'coef' must be of shape \(3, \d+\)"),
        ("shared", lambda h, t: {**h, "parameters": {**h["parameters"], "encoder": None}}, "estimator|encoder"),
        ("shared", lambda h, t: t.update({"coef": torch.ones(3, 128, dtype=torch.int32)}), "torch.float64. Got"),
        ("mlp", lambda h, t: {**h, "widths": [128, 2**62, 3]}, "cannot be loaded"),
        ("mlp", lambda h, t: {**h, "widths": [128, 3]}, "network.0.weight' must be of shape|unknown"),
        ("mlp", lambda h, t: {**h, "widths": [64, 4, 3]}, "'widths' must begin with 128 and end with 3"),
        ("mlp", lambda h, t: {**h, "parameters": {**h["parameters"], "epochs": 0}}, "'epochs' parameter of MLPProbe"),
    ],
    ids=range(35),
)
def test_forged_files_are_refused(name, change, message, files, path):
    header, tensors = files[name][0], dict(files[name][1])
    found = change(header, tensors)
    write(path, found if isinstance(found, dict) else header, tensors)
    before, started = largest(), time.perf_counter()
    with pytest.raises(ValueError, match=message) as of:
        skssl.load(path)
    assert str(path) in str(of.value)
    assert time.perf_counter() - started < 2
    assert largest() - before < 2**27


def test_huge_images_of_an_encoder_take_no_memory(files, path):
    for name in ("tuner", "knn"):
        write(path, in_encoder(files[name][0], shape=(3, 10**5, 10**5)), files[name][1])
        before = largest()
        assert skssl.load(path).n_features_in_ == 3 * 10**10
        assert largest() - before < 2**27


def test_devices_that_are_missing_load_to_the_cpu(files, path):
    header, tensors = files["tuner"]
    for parameters in (header["parameters"], header["estimators"][0]["parameters"]):
        parameters["device"] = "cuda:77"
    write(path, header, tensors)
    loaded = skssl.load(path)
    assert loaded.net_.device == "cpu"
    assert loaded.predict(skssl.datasets.make_shapes(2, image_size=16)[0]).shape == (2,)
