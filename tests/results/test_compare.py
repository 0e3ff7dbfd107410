"""Comparisons and their tables: scores, the cache of runs, invalid input, and the layouts of the papers."""

import itertools
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from conftest import quick
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer, top_k_accuracy_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import skssl
from skssl import KNNProbe, LinearProbe, Results, SimCLR, SupCon, compare, label_fraction
from skssl.backbones import ConvNet
from skssl.datasets import make_shapes
from skssl.probes.encoders import as_encoder
from skssl.training.digests import digest

PROBES = {"kNN": KNNProbe(n_neighbors=3), "Bayes": GaussianNB()}


class Counted(TransformerMixin, BaseEstimator):
    """A transformer that scales pixels by random weights and records its fits."""

    trained: list = []

    def __init__(self, scale=1.0, random_state=None, verbose=0):
        self.scale, self.random_state, self.verbose = scale, random_state, verbose

    def fit(self, X, y=None):
        self.trained.append((self.scale, self.random_state))
        draw = np.random.RandomState(self.random_state)
        self.weights_ = self.scale * draw.rand(X[0].size)
        return self

    def transform(self, X):
        return X.reshape(len(X), -1) * self.weights_


@pytest.fixture
def trained():
    """The fits of `Counted` in this test."""
    Counted.trained = []
    return Counted.trained


@pytest.fixture(scope="module")
def data():
    """Two classes of images, (X, y, X_test, y_test)."""
    X, y = make_shapes(60, image_size=8, n_classes=3, random_state=0)
    return X[:40], y[:40], X[40:], y[40:]


def scores_of(results):
    return results.frame[["dataset", "method", "seed", "probe", "score"]]


# The comparison


def test_scores_equal_those_of_manual_training_and_probing(data):
    X, y, X_test, y_test = data
    methods = {"SimCLR": quick(SimCLR), "SupCon": quick(SupCon, precision="float32")}
    results = compare(methods, X, y, X_test=X_test, y_test=y_test, probes=PROBES, random_state=[3, 1])
    rows = iter(results.frame.to_dict("records"))
    for (name, method), seed in itertools.product(methods.items(), [3, 1]):
        encoder = clone(method).set_params(random_state=seed).fit(X, y)
        for probe, judge in PROBES.items():
            score = clone(judge).fit(encoder.transform(X), y).score(encoder.transform(X_test), y_test)
            row = next(rows)
            assert (row["method"], row["seed"], row["probe"], row["score"]) == (name, seed, probe, score)
            assert row["seconds"] > 0
            assert row["images_per_second"] > 0
    assert next(rows, None) is None
    assert methods["SimCLR"].random_state == 0, "the given estimators are not modified"
    assert not methods["SimCLR"].__sklearn_is_fitted__()


def test_held_out_share_is_the_same_for_all_methods_and_seeds(data, trained):
    X, y, *_ = data
    results = compare({"a": Counted(), "b": Counted(2.0)}, X, y, test_size=0.3, probes=PROBES, random_state=[0, 1])
    wide = results.frame.pivot_table(index=["seed", "probe"], columns="method", values="score")
    # Cosine similarity ignores brightness, so that equal splits give equal scores.
    assert wide.loc[(slice(None), "kNN"), "a"].equals(wide.loc[(slice(None), "kNN"), "b"].rename("a"))
    assert len(trained) == 4


def test_probes_ignore_unlabelled_images(data):
    X, y, X_test, y_test = data
    codes, test_codes = (np.unique(of, return_inverse=True)[1] for of in (y, y_test))
    few = np.where(np.arange(40) < 15, codes, -1)
    method = quick(SimCLR)
    found = compare([method], X, few, X_test=X_test, y_test=test_codes, probes=[KNNProbe(n_neighbors=3)])
    encoder = clone(method).set_params(random_state=0).fit(X)
    probe = KNNProbe(n_neighbors=3).fit(encoder.transform(X[:15]), codes[:15])
    assert found.frame["score"].tolist() == [probe.score(encoder.transform(X_test), test_codes)]


class Recording(Counted):
    """A `Counted` that also records its training data."""

    def fit(self, X, y=None):
        self.trained.append((X, y))
        return super().fit(X, y)


@pytest.mark.parametrize("kind", ["array", "list", "numbers"])
def test_held_out_share_of_partly_labelled_images_is_stratified(data, trained, kind):
    X, y, *_ = data
    few = label_fraction(y, 0.5, random_state=0)
    known = few != -1
    if kind == "numbers":
        few = np.where(known, np.unique(y, return_inverse=True)[1], -1)
    labels = few.tolist() if kind == "list" else few
    frame = compare([Recording()], X, labels, test_size=0.3, probes=PROBES).frame
    (X_train, y_train), _ = trained
    # Indices of the training images; all others are test images.
    places = [next(i for i, image in enumerate(X) if (image == one).all()) for one in X_train]
    assert y_train.tolist() == [few[i] for i in places]
    test = sorted(set(range(40)) - set(places))
    assert len(test) == np.ceil(0.3 * known.sum())
    assert known[test].all(), "all unlabelled images are training images"
    assert {few[i] for i in test} == set(few[known])
    features = Counted(random_state=0).fit(X)
    kept = [i for i in places if known[i]]
    for probe, judge in PROBES.items():
        judge = clone(judge).fit(features.transform(X[kept]), y[kept])
        (score,) = frame.loc[frame["probe"] == probe, "score"]
        assert score == pytest.approx(judge.score(features.transform(X[test]), y[test]))


def test_unlabelled_test_images_raise(data):
    X, y, X_test, y_test = data
    few = label_fraction(y, 0.5, random_state=0)
    given = {"X_test": X_test, "probes": PROBES}
    scores = compare([Counted()], X, few.tolist(), y_test=y_test.tolist(), **given).frame["score"]
    assert scores.tolist() == compare([Counted()], X, few, y_test=y_test, **given).frame["score"].tolist()
    y_test = [-1, *y_test[1:].tolist()]
    with pytest.raises(ValueError, match=r"only classes of y. Got \[-1\]"):
        compare([Counted()], X, few, y_test=y_test, **given)
    with pytest.raises(ValueError, match=r"at least two classes. Got \[\]"):
        compare([Counted()], X, np.full(40, -1), probes=PROBES)


def test_labels_that_are_minus_one_or_one_are_two_classes(data):
    X, y, X_test, y_test = data
    y, y_test = y == y[0], y_test == y[0]
    expected = compare([Counted()], X, y, X_test=X_test, y_test=y_test, probes=PROBES).frame
    signs = compare([Counted()], X, np.where(y, 1, -1), X_test=X_test, y_test=np.where(y_test, 1, -1), probes=PROBES)
    assert signs.frame[["score", "chance"]].equals(expected[["score", "chance"]])


def test_default_probes_are_linear_and_knn(data):
    frame = compare([Counted()], *data[:2], X_test=data[2], y_test=data[3]).frame
    assert frame["probe"].tolist() == ["linear", "kNN"]
    features = Counted(random_state=0).fit(data[0])
    linear = make_pipeline(StandardScaler(), LinearProbe()).fit(features.transform(data[0]), data[1])
    assert frame["score"][0] == linear.score(features.transform(data[2]), data[3])


def test_top_k_accuracy_is_recorded_beside_the_accuracy(data, trained, tmp_path):
    X, y, X_test, y_test = data
    test = {"X_test": X_test, "y_test": y_test, "probes": PROBES, "cache": tmp_path}
    top_2 = make_scorer(top_k_accuracy_score, response_method="predict_proba", k=2)
    scoring = {"top-1": "accuracy", "top-2": top_2}
    frame = compare([Counted()], X, y, scoring=scoring, **test).frame
    assert frame["probe"].tolist() == ["kNN, top-1", "kNN, top-2", "Bayes, top-1", "Bayes, top-2"]
    features = Counted(random_state=0).fit(X)
    for name, probe in PROBES.items():
        fitted = clone(probe).fit(features.transform(X), y)
        best = np.argsort(fitted.predict_proba(features.transform(X_test)))[:, -2:]
        scores = frame.set_index("probe")["score"]
        assert scores[f"{name}, top-1"] == fitted.score(features.transform(X_test), y_test)
        assert scores[f"{name}, top-2"] >= scores[f"{name}, top-1"]
        if name == "Bayes":  # kNN has ties
            assert scores[f"{name}, top-2"] == (fitted.classes_[best] == y_test[:, None]).any(1).mean()
    assert frame["chance"].isna().tolist() == [False, True] * 2
    count = len(trained)
    again = compare([Counted()], X, y, scoring=scoring, **test).frame
    pd.testing.assert_frame_equal(frame, again)
    plain = compare([Counted()], X, y, **test).frame
    assert plain["score"].tolist() == frame["score"][::2].tolist()
    one = compare([Counted()], X, y, scoring="top_k_accuracy", **test).frame  # k = 2
    assert one["probe"].tolist() == list(PROBES)
    assert one["score"].tolist() == frame["score"][1::2].tolist()
    assert len(trained) == count, "another scorer trains no method"
    top_3 = make_scorer(top_k_accuracy_score, response_method="predict_proba", k=3, labels=np.unique(y))
    with pytest.warns(UserWarning, match="perfect score"):
        changed = compare([Counted()], X, y, scoring={"top-1": "accuracy", "top-2": top_3}, **test).frame
    assert changed["score"][1::2].tolist() == [1, 1], "a scorer is known by its parameters, not by its name"


def test_method_without_random_state_runs_once(data):
    X, y, *_ = data
    flat = FunctionTransformer(lambda X: X.reshape(len(X), -1))
    frame = compare({"pixels": flat, "counted": Counted()}, X, y, probes=PROBES, random_state=[4, 5]).frame
    assert frame.groupby("method", sort=False)["seed"].unique().map(list).to_dict() == {
        "pixels": [4],
        "counted": [4, 5],
    }


def test_modules_and_frozen_estimators_as_methods(data):
    X, y, X_test, y_test = data
    module, fitted = ConvNet(), quick(SimCLR).fit(X)
    probes = {"kNN": KNNProbe(n_neighbors=3)}
    methods = {"module": module, "frozen": FrozenEstimator(fitted)}
    found = compare(methods, X, y, X_test=X_test, y_test=y_test, probes=probes, random_state=[0, 1]).frame
    by_hand = [
        KNNProbe(n_neighbors=3).fit(transform(X), y).score(transform(X_test), y_test)
        for transform in (as_encoder(module, X).transform, fitted.transform)
    ]
    assert found["score"].tolist() == by_hand


def test_several_data_sets(data):
    X, y, X_test, y_test = data
    results = compare([Counted()], {"bright": data, "dark": (X // 2, y)}, probes=PROBES)
    assert results.frame["dataset"].tolist() == ["bright", "bright", "dark", "dark"]
    alone = compare([Counted()], X, y, X_test=X_test, y_test=y_test, probes=PROBES)
    assert results.frame["score"][:2].tolist() == alone.frame["score"].tolist()


def test_parallel_jobs_give_the_same_rows(data):
    X, y, *_ = data
    methods = {"lambda": FunctionTransformer(lambda X: X.reshape(len(X), -1)), "counted": Counted()}
    one = compare(methods, X, y, probes=PROBES, random_state=[0, 1])
    with joblib.parallel_config(backend="threading"):
        threads = compare(methods, X, y, probes=PROBES, random_state=[0, 1], n_jobs=2)
    processes = compare(methods, X, y, probes=PROBES, random_state=[0, 1], n_jobs=2)
    pd.testing.assert_frame_equal(scores_of(one), scores_of(threads))
    pd.testing.assert_frame_equal(scores_of(one), scores_of(processes))


def test_progress_bar_is_shown_with_verbose(data, capsys):
    X, y, *_ = data
    compare([Counted()], X, y, probes=PROBES)
    assert capsys.readouterr().err == ""
    compare([Counted()], X, y, probes=PROBES, random_state=[0, 1], verbose=1)
    assert "2/2" in capsys.readouterr().err


def test_error_names_the_run(data):
    with pytest.raises(ValueError, match="n_neighbors") as caught:
        compare({"mine": Counted()}, {"shapes": data}, probes=[KNNProbe(n_neighbors=100)], random_state=7)
    assert caught.value.__notes__ == ["This was method 'mine' with seed 7 of the data set 'shapes', in compare."]


# The cache


def test_cached_runs_are_not_repeated(data, trained, tmp_path):
    X, y, X_test, y_test = data
    test = {"X_test": X_test, "y_test": y_test, "cache": tmp_path / "runs"}
    first = compare({"a": Counted(), "b": Counted(2.0)}, X, y, probes=PROBES, random_state=[0, 1], **test)
    assert len(trained) == 4
    again = compare({"a": Counted(), "b": Counted(2.0)}, X, y, probes=PROBES, random_state=[0, 1], **test)
    pd.testing.assert_frame_equal(first.frame, again.frame)
    more = {**PROBES, "1-NN": KNNProbe(n_neighbors=1)}
    renamed = {"new name": Counted(verbose=1)}
    compare(renamed, X, y, probes=more, random_state=[1, 0], **test)
    assert len(trained) == 4, "a run does not depend on probes, name, order or progress bar"
    fresh = compare(renamed, X, y, probes=more, random_state=[1, 0], X_test=X_test, y_test=y_test)
    cached = compare(renamed, X, y, probes=more, random_state=[1, 0], **test)
    pd.testing.assert_frame_equal(scores_of(fresh), scores_of(cached))
    assert len(trained) == 6, "only the comparison without a cache trained"


def test_changed_parameters_images_or_labels_are_new_runs(data, trained, tmp_path):
    X, y, X_test, y_test = data
    other, classes = X.copy(), y.copy()
    other[0, 0, 0, 0] ^= 1
    classes[0] = next(each for each in y if each != y[0])
    half = {"X_test": X_test[:10], "y_test": y_test[:10]}
    test = {"X_test": X_test, "y_test": y_test}
    for count, (method, images, labels, tested) in enumerate(
        [
            (Counted(), X, y, test),
            (Counted(1.5), X, y, test),
            (Counted(), other, y, test),
            (Counted(), X, classes, test),
            (Counted(), X, y, half),
        ],
        start=1,
    ):
        compare([method], images, labels, **tested, probes=PROBES, cache=tmp_path)
        assert len(trained) == count


def test_damaged_files_are_computed_anew_with_a_warning(data, trained, tmp_path):
    X, y, *_ = data
    first = compare([Counted()], X, y, probes=PROBES, cache=tmp_path)
    (scores,), (features,) = tmp_path.glob("*.json"), tmp_path.glob("*.npz")
    assert sorted(tmp_path.iterdir()) == sorted([scores, features]), "no temporary files remain"
    for path in (scores, features):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match=r"\.(json|npz)' is damaged, so it is computed anew") as caught:
        again = compare([Counted()], X, y, probes=PROBES, cache=tmp_path)
    assert len(caught) == 2
    assert len(trained) == 2
    pd.testing.assert_frame_equal(scores_of(first), scores_of(again))
    for foreign in (b"", b"[]", b'{"scores": {}}', b'{"scores": 1, "seconds": 1.0, "images_per_second": 1.0}'):
        scores.write_bytes(foreign)
        with pytest.warns(UserWarning, match=r"\.json' is damaged, so it is computed anew"):
            compare([Counted()], X, y, probes=PROBES, cache=tmp_path)
    assert len(trained) == 2, "only the probes are fitted again"
    scores.unlink()
    np.savez(features, train=X)
    with pytest.warns(UserWarning, match=r"\.npz' is damaged, so it is computed anew"):
        compare([Counted()], X, y, probes=PROBES, cache=tmp_path)
    assert len(trained) == 3


def test_features_are_cached_if_a_probe_fails(data, trained, tmp_path):
    X, y, *_ = data
    with pytest.raises(ValueError, match="n_neighbors"):
        compare([Counted()], X, y, probes=[KNNProbe(n_neighbors=100)], cache=tmp_path)
    compare([Counted()], X, y, probes=[KNNProbe(n_neighbors=5)], cache=tmp_path)
    assert len(trained) == 1


WORK = """
import os, time
from pathlib import Path
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.preprocessing import FunctionTransformer
from skssl import KNNProbe, compare
from skssl.backbones import ConvNet
import torch

class Slow(TransformerMixin, BaseEstimator):
    def __init__(self, scale=1, network=None, func=None, random_state=None):
        self.scale, self.network, self.func, self.random_state = scale, network, func, random_state

    def fit(self, X, y=None):
        log = Path(os.environ["TRAININGS"])
        with log.open("a") as file:
            file.write(f"{self.scale} {self.random_state}\\n")
        if "HANG" in os.environ and len(log.read_text().splitlines()) == 4:
            time.sleep(60)
        return self

    def transform(self, X):
        return self.scale * X.reshape(len(X), -1) + self.random_state

def run():
    rng = np.random.default_rng(0)
    X, y = rng.random((30, 4, 4)), np.arange(30) % 3
    torch.manual_seed(0)
    offset = 3
    methods = {f"method {i}": Slow(i, ConvNet(), lambda x: (lambda y: y + i)(x) + offset) for i in (1, 2)}
    return compare(methods, X, y, probes=[KNNProbe(n_neighbors=3)], random_state=[0, 1, 2], cache=os.environ["RUNS"])
"""


def test_killed_comparison_resumes(tmp_path, monkeypatch):
    (tmp_path / "work.py").write_text(textwrap.dedent(WORK))
    log = tmp_path / "trainings"
    monkeypatch.setenv("TRAININGS", str(log))
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    monkeypatch.syspath_prepend(tmp_path)
    path = os.pathsep.join([str(Path(skssl.__file__).parents[1]), str(tmp_path)])
    process = subprocess.Popen(
        [sys.executable, "-c", "import work; work.run()"], env={**os.environ, "HANG": "1", "PYTHONPATH": path}
    )
    deadline = time.monotonic() + 60
    while not log.exists() or len(log.read_text().splitlines()) < 4:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL

    import work

    frame = work.run().frame
    assert len(frame) == 6
    trainings = Counter(log.read_text().splitlines())
    assert sorted(trainings.values()) == [1, 1, 1, 1, 1, 2], "only the interrupted training was repeated"
    assert trainings["2 0"] == 2, "the fourth training"


def test_digests_depend_on_parameters():
    def known_by(value):
        return digest(value, "it")

    def adder(k):
        return lambda x: x + k

    module, other = ConvNet(), ConvNet()
    same = ConvNet()
    same.load_state_dict(module.state_dict())
    assert known_by(SimCLR(backbone=module)) == known_by(SimCLR(backbone=same))
    assert known_by(SimCLR(backbone=module)) != known_by(SimCLR(backbone=other))
    assert known_by(adder(1)) == known_by(adder(1))
    assert len({known_by(each) for each in (adder(1), adder(2), lambda x: x - 1, lambda x: x * 1, ConvNet)}) == 5
    augment = [skssl.Augmentation(crop_scale=(low, 1.0)) for low in (0.1, 0.2)]
    assert known_by(SimCLR(augment=augment[0])) != known_by(SimCLR(augment=augment[1]))
    assert known_by(SimCLR(verbose=1)) == known_by(SimCLR())
    assert known_by(KNNProbe()) != known_by(LinearProbe())


def test_changed_image_files_are_a_new_run(data, trained, tmp_path):
    from PIL import Image

    X, y, *_ = data
    paths = [str(tmp_path / f"{i}.png") for i in range(40)]
    for path, image in zip(paths, X, strict=True):
        Image.fromarray(image).save(path)
    method = quick(SimCLR, epochs=0)
    runs = {"probes": [KNNProbe(n_neighbors=3)], "cache": tmp_path / "runs"}
    compare([method], paths, y, **runs)
    compare([method], paths, y, **runs)
    assert len(list((tmp_path / "runs").glob("*.json"))) == 1
    Image.fromarray(255 - X[0]).save(paths[0])
    compare([method], paths, y, **runs)
    assert len(list((tmp_path / "runs").glob("*.json"))) == 2


# Bad input


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"y": None}, ValueError, "y is missing"),
        ({"y": np.zeros(39)}, ValueError, "y must have one class for each image of X: expected 40 classes, got 39"),
        ({"y": np.zeros(40)}, ValueError, "at least two classes"),
        ({"y_test": None}, ValueError, "y_test is missing"),
        ({"scoring": "top5"}, ValueError, "'top5'"),
        ({"scoring": []}, ValueError, r"scoring must hold at least one scorer\. Got \[\]"),
        ({"y_test": np.full(20, "whale")}, ValueError, r"only classes of y. Got \['whale'\]"),
        ({"y_test": np.full(19, "disc")}, ValueError, "expected 20 classes, got 19"),
        ({"methods": {}}, ValueError, "methods must hold at least one estimator"),
        ({"methods": SimCLR}, TypeError, "dict of names to estimators"),
        ({"methods": [SimCLR()] * 2}, ValueError, "several estimators of one class"),
        ({"methods": {"a": SimCLR}}, TypeError, r"methods\['a'\] must be an estimator with fit and transform"),
        ({"methods": [LogisticRegression()]}, TypeError, "fit and transform"),
        ({"probes": [FunctionTransformer()]}, TypeError, "fit and score"),
        ({"random_state": []}, ValueError, "distinct integers"),
        ({"random_state": [1, 1]}, ValueError, "distinct integers"),
        ({"random_state": [0.5]}, ValueError, "distinct integers"),
        ({"cache": 1}, ValueError, "'cache' parameter"),
        ({"X": {"a": 3}}, TypeError, r"tuple \(X, y\)"),
    ],
)
def test_invalid_input_raises_before_training(data, trained, changes, error, message):
    X, y, X_test, y_test = data
    given = {"methods": [Counted()], "X": X, "y": y, "X_test": X_test, "y_test": y_test, "probes": PROBES, **changes}
    with pytest.raises(error, match=message):
        compare(given.pop("methods"), given.pop("X"), given.pop("y"), **given)
    assert not trained


def test_split_that_leaves_a_class_empty_raises(data, trained):
    X, y, *_ = data
    with pytest.raises(ValueError, match="The test_size = 2 should be greater or equal to the number of classes = 3"):
        compare([Counted()], X, y, test_size=2, probes=PROBES)
    with pytest.raises(ValueError, match="least populated class"):
        compare([Counted()], X, np.where(np.arange(40) == 0, "only one", y), probes=PROBES)


def test_parameter_that_cannot_be_pickled_raises_with_a_cache(data, tmp_path):
    X, y, *_ = data

    class Local:
        """A local class, which cannot be pickled."""

    with pytest.raises(TypeError, match=r"methods\['Counted'\] has a parameter that cannot be pickled"):
        compare([Counted(scale=Local())], X, y, probes=PROBES, cache=tmp_path)


# The tables


EFFSSL = {  # kNN and linear on CIFAR-10, then on CIFAR-100
    "RotNet": (78.01, 84.00, 36.25, 50.87),
    "SimCLR": (86.37, 88.77, 55.10, 62.96),
    "SimCLR + rotation": (88.69, 90.91, 57.09, 65.40),
    "BYOL": (86.56, 89.30, 54.37, 60.67),
    "BYOL + rotation": (89.80, 91.89, 58.41, 67.03),
}


def effssl():
    cells = list(itertools.product(["CIFAR-10", "CIFAR-100"], ["kNN", "linear"]))
    return Results(
        [
            {"dataset": dataset, "method": method, "probe": probe, "score": score / 100}
            for method, scores in EFFSSL.items()
            for (dataset, probe), score in zip(cells, scores, strict=True)
        ]
    )


def test_layout_of_effssl_table_5():
    table = effssl().pivot_results(digits=2)
    assert table.index.tolist() == list(EFFSSL)
    assert table.columns.tolist() == [
        ("CIFAR-10", "kNN"), ("CIFAR-10", "linear"), ("CIFAR-100", "kNN"), ("CIFAR-100", "linear"),
    ]  # fmt: skip
    assert table.loc["RotNet"].tolist() == ["78.01", "84.00", "36.25", "50.87"]
    assert table.loc["BYOL + rotation"].tolist() == ["89.80 (+3.24)", "91.89 (+2.59)", "58.41 (+4.04)", "67.03 (+6.36)"]


def test_layout_of_gsg_table_1():
    rng = np.random.default_rng(0)
    means = {"SimSiam": (77.0, 82.7), "SimSiamGSG": (82.2, 86.4), "BYOL": (85.4, 88.0), "BYOLGSG": (89.4, 90.3)}
    rows = []
    for (method, scores), seed in itertools.product(means.items(), range(5)):
        for probe, score in zip(("kNN", "linear"), scores, strict=True):
            rows.append({"dataset": "CIFAR-10", "method": method, "seed": seed, "probe": probe, "score": score / 100})
    rows = pd.DataFrame(rows).sample(frac=1, random_state=0)  # any order
    rows["score"] += 0.005 * rng.standard_normal(len(rows))
    names = {"SimSiam": "SimSiam", "SimSiamGSG": "SimSiam + GSG", "BYOL": "BYOL", "BYOLGSG": "BYOL + GSG"}
    table = Results(rows).pivot_results(names)
    assert table.index.tolist() == list(names.values())
    for method, name in names.items():
        for probe in ("kNN", "linear"):
            mine = 100 * rows[(rows["method"] == method) & (rows["probe"] == probe)]["score"].to_numpy()
            text = f"{mine.mean():.1f} ± {np.sqrt(((mine - mine.mean()) ** 2).sum() / 4):.1f}"
            if name.endswith("GSG"):
                base = rows[(rows["method"] == method.removesuffix("GSG")) & (rows["probe"] == probe)]["score"]
                text += f" ({mine.mean() - 100 * base.mean():+.1f})".replace("-", "−")
            assert table.loc[name, ("CIFAR-10", probe)] == text


def test_recorded_benchmark_rows_make_both_tables():
    rows = pd.read_csv(Path(__file__).parents[2] / "benchmarks" / "results" / "methods.csv")
    rows = rows[rows["epochs"] == 10].drop_duplicates(["method", "backbone", "seed"], keep="last")
    results = Results(rows.melt(["method", "seed"], ["knn", "linear"], "probe", "score").assign(dataset="CIFAR-10"))
    table = results.pivot_results(["SimCLR", "SimCLR + rotation", "SwAV", "SwAV + rotation"])
    mean = {
        name: 100 * np.mean([row["knn"] for row in rows.to_dict("records") if row["method"] == name])
        for name in table.index
    }
    gain = mean["SwAV + rotation"] - mean["SwAV"]
    cell = table.loc["SwAV + rotation", ("CIFAR-10", "knn")]  # with a deviation as soon as there are several seeds
    assert cell.startswith(f"{mean['SwAV + rotation']:.1f}")
    assert cell.endswith(f"({gain:+.1f})")
    names = {"SimSiam": "SimSiam", "SimSiamGSG, shared views": "SimSiam + GSG"}
    assert results.pivot_results(names).index.tolist() == ["SimSiam", "SimSiam + GSG"]


def test_gsg_table_uses_shared_views_and_symmetric_baselines_for_any_order_of_rows(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "docs")
    import rendering

    monkeypatch.setattr(rendering, "GENERATED", tmp_path)
    row = {"backbone": "convnet", "seed": 0, "epochs": 10, "seconds": 1.0, "hardware": "", "commit": ""}
    knn = {"SimSiamGSG": 0.111, "SimSiamGSG, shared views": 0.222, "SimSiamGSG, symmetric": 0.333, "SimSiam": 0.999}
    knn |= {"BYOLGSG": 0.555, "BYOLGSG, shared views": 0.666, "BYOLGSG, symmetric": 0.444, "BYOL": 0.999}
    rows = [row | {"method": m, "knn": k, "linear": k + 0.01, "knn, two classes": k} for m, k in knn.items()]
    for recorded in (rows, rows[::-1]):
        rendering.methods("methods", pd.DataFrame(recorded))
        page = (tmp_path / "gsg_table_1.html").read_text()
        lines = [re.findall(r"<t[hd][^>]*>([^<]*)<", line) for line in page.split("<tr>")]
        cells = {line[0]: line[1:] for line in lines if line}
        assert cells["SimSiam + GSG"][:2] == ["22.2 (−11.1)", "23.2 (−11.1)"]
        assert cells["BYOL + GSG"][:2] == ["66.6 (+22.2)", "67.6 (+22.2)"]
        assert cells["SimSiam + GSG"][2].startswith("82.2"), "the paper's own"


def test_scores_survive_a_csv_file(data, tmp_path):
    results = compare([Counted()], *data[:2], probes=PROBES)
    results.frame.to_csv(tmp_path / "scores.csv", index=False)
    again = Results(pd.read_csv(tmp_path / "scores.csv"))
    pd.testing.assert_frame_equal(results.frame, again.frame)
    pd.testing.assert_frame_equal(results.summary(), again.summary())
    pd.testing.assert_frame_equal(results.pivot_results(), again.pivot_results())
    assert again.pivot_results().index.tolist() == ["Counted"]
    part = pd.concat([results.frame, results.frame.assign(dataset="shapes")])
    part.to_csv(tmp_path / "both.csv", index=False)
    both = Results(pd.read_csv(tmp_path / "both.csv")).pivot_results()
    assert both.columns.tolist() == [("", "kNN"), ("", "Bayes"), ("shapes", "kNN"), ("shapes", "Bayes")]


def test_baselines():
    results = effssl()
    assert "(" not in results.pivot_results(baseline=None).to_string()
    against = results.summary(["SimCLR", "BYOL", "RotNet"], baseline="RotNet").set_index(["method", "dataset", "probe"])
    assert against["difference"]["BYOL", "CIFAR-10", "kNN"] == pytest.approx(0.8656 - 0.7801)
    assert against["baseline"].isna().tolist() == [False] * 8 + [True] * 4
    given = results.summary(baseline={"BYOL": "SimCLR"})
    assert given.loc[given["method"] == "BYOL", "difference"].tolist() == pytest.approx(
        [0.0019, 0.0053, -0.0073, -0.0229]
    )
    assert given["difference"].notna().sum() == 4


def test_missing_runs_are_empty_and_order_is_kept():
    rows = [("b", "z", 0.1), ("b", "y", 0.2), ("a", "y", 0.3), ("c", "x", np.nan)]
    table = Results([{"method": m, "probe": p, "score": s} for m, p, s in rows]).pivot_results(percent=False, digits=2)
    assert table.index.tolist() == ["b", "a", "c"]
    assert table.columns.tolist() == ["z", "y", "x"]
    assert table.to_numpy().tolist() == [["0.10", "0.20", ""], ["", "0.30", ""], ["", "", ""]]


def test_best_of_each_column_is_bold_and_names_are_escaped():
    scores = {"A & B_1 | <i>": 0.5, "A & B_1 | <i> + more": 0.4}
    results = Results([{"method": m, "probe": "k%", "score": s, "dataset": "D#"} for m, s in scores.items()])
    assert results.to_markdown().splitlines() == [
        "| method | D# k% |",
        "|:--|--:|",
        r"| A & B_1 \| <i> | **50.0** |",
        r"| A & B_1 \| <i> + more | 40.0 (−10.0) |",
    ]
    latex = results.to_latex(caption="Accuracy", label="tab:one")
    assert r"A \& B\_1 | <i> & \bfseries 50.0 \\" in latex
    assert r"<i> + more & 40.0 ($-$10.0) \\" in latex
    assert r"\multicolumn{1}{c}{D\#}" in latex or r"D\#" in latex
    assert r"k\%" in latex
    assert r"\caption{Accuracy}" in latex
    html = results.to_html(caption="Accuracy")
    assert "A &amp; B_1 | &lt;i&gt;" in html
    assert "<i>" not in html
    (bold,) = re.findall(r"#(\w+) \{\s*font-weight: bold", html)
    assert re.search(rf'id="{bold}" [^>]*>50.0<', html)
    assert results._repr_html_() == results.to_html()
    assert results.to_html() == results.to_html(), "the same table is the same text"


def test_summary_matches_literal_loop():
    rng = np.random.default_rng(0)
    rows = [
        {"dataset": d, "method": m, "seed": s, "probe": p, "score": rng.random()}
        for d, m, s, p in itertools.product("DE", ["A", "A + x"], range(4), "pq")
        if rng.random() < 0.8
    ]
    found = Results(rows).summary()
    for row in found.to_dict("records"):

        def mine(method, row=row):
            return [
                r["score"]
                for r in rows
                if (r["dataset"], r["method"], r["probe"]) == (row["dataset"], method, row["probe"])
            ]

        scores = mine(row["method"])
        assert row["mean"] == pytest.approx(np.mean(scores))
        assert row["seeds"] == len(scores)
        assert row["std"] == pytest.approx(np.std(scores, ddof=1))
        gain = np.mean(scores) - np.mean(mine("A")) if row["method"] == "A + x" else np.nan
        assert row["difference"] == pytest.approx(gain, nan_ok=True)
    assert len(found) == 8


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"method": "a", "score": 1.0}], r"Missing: \['probe'\]"),
        ([{"method": "a", "probe": "p", "score": "high"}], "must hold numbers"),
        ([{"method": "a", "probe": "p", "score": 1.0}] * 2, "Got two of"),
        ([{"method": None, "probe": "p", "score": 1.0}], "'method' of rows must hold a name"),
        ([{"method": "a", "probe": np.nan, "score": 1.0}], "'probe' of rows must hold a name"),
    ],
)
def test_invalid_rows_raise(rows, message):
    with pytest.raises(ValueError, match=message):
        Results(rows)


def test_unknown_methods_raise():
    results = effssl()
    with pytest.raises(ValueError, match="Unknown method 'SimCRL', did you mean 'SimCLR'"):
        results.pivot_results(["SimCRL"])
    with pytest.raises(ValueError, match="Unknown baseline 'Nobody'"):
        results.pivot_results(baseline="Nobody")
    with pytest.raises(ValueError, match="a distinct name"):
        results.pivot_results({"SimCLR": "x", "BYOL": "x"})
