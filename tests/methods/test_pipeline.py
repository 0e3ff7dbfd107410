"""The estimators inside scikit-learn's own tools: pipelines, searches, caches, frames, processes."""

import joblib
import numpy as np
import pandas as pd
import pytest
from conftest import quick
from interruptions import OFTEN, Death, DiesAt, assert_same
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import skssl
from skssl import KNNProbe, LinearProbe, SimCLR, SimSiamGSG


def pipeline(**params):
    return Pipeline([("ssl", quick(SimCLR, aux="rotation", **params)), ("clf", LinearProbe())])


def test_pipeline_with_scikit_learn_and_skssl_classifiers(method, X, y):
    for classifier in (LogisticRegression(max_iter=200), LinearProbe(), KNNProbe(n_neighbors=3)):
        fitted = make_pipeline(quick(method), StandardScaler(), classifier).fit(X, y)
        assert set(fitted.predict(X)) <= set(y)
        assert fitted.score(X, y) > 1 / len(set(y))


def test_grid_search_over_weight_and_temperature(X, y):
    grid = {"ssl__aux_weight": [0.1, 1.0], "ssl__temperature": [0.2, 0.5]}
    search = GridSearchCV(pipeline(), grid, cv=2).fit(X, y)
    table = pd.DataFrame(search.cv_results_)
    assert len(table) == 4
    assert np.isfinite(table["mean_test_score"]).all()
    assert set(search.best_params_) == set(grid)
    assert search.best_estimator_.named_steps["ssl"].aux_weight == search.best_params_["ssl__aux_weight"]


def test_halving_search_over_epochs(X, y):
    search = HalvingGridSearchCV(
        pipeline(), {"ssl__temperature": [0.1, 0.5]}, resource="ssl__epochs", max_resources=2, factor=2, cv=2
    ).fit(X, y)
    assert search.n_resources_ == [1, 2]
    assert search.best_estimator_.named_steps["ssl"].epochs == 2


def test_search_over_the_classifier_trains_the_encoder_once_for_each_fold(X, y, tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(SimCLR, "after_step", lambda self, net, step, progress: trained.append(progress))
    cached = Pipeline(pipeline().steps, memory=str(tmp_path))
    one_fit = len(X) // 2 // 16  # steps in half of the images
    search = GridSearchCV(cached, {"clf__C": [0.01, 0.1, 1.0, 10.0]}, cv=2, refit=False).fit(X, y)
    assert len(trained) == 2 * one_fit, "two folds, four classifiers, one encoder a fold"
    assert len(search.cv_results_["params"]) == 4


def test_search_with_two_processes_equals_one_process(X, y):
    one = cross_val_score(pipeline(precision="float32"), X, y, cv=2)
    two = cross_val_score(pipeline(precision="float32"), X, y, cv=2, n_jobs=2)
    np.testing.assert_allclose(one, two, atol=0.11)  # another number of threads adds in another order


def test_search_in_threads_equals_one_thread(X, y):
    search = GridSearchCV(make_pipeline(quick(SimCLR), KNNProbe()), {"simclr__temperature": [0.1, 0.5]}, cv=2)
    expected = search.fit(X, y).cv_results_["mean_test_score"]
    with joblib.parallel_config("threading", n_jobs=2):
        assert (clone(search).fit(X, y).cv_results_["mean_test_score"] == expected).all()


def test_set_output_pandas(X):
    frame = quick(SimSiamGSG).set_output(transform="pandas").fit_transform(X)
    assert isinstance(frame, pd.DataFrame)
    assert frame.columns[:2].tolist() == ["simsiamgsg0", "simsiamgsg1"]
    assert frame.dtypes.unique().tolist() == [np.dtype("float32")]


def test_fit_on_a_data_frame():
    pixels = pd.DataFrame(np.random.default_rng(0).random((20, 64)), columns=[f"p{i}" for i in range(64)])
    estimator = quick(SimCLR).fit(pixels)
    assert estimator.feature_names_in_.tolist() == pixels.columns.tolist()
    with pytest.raises(ValueError, match="feature names"):
        estimator.transform(pixels[pixels.columns[::-1]])


def test_set_params_of_nested_objects(X, y):
    whole = pipeline(augment=skssl.Augmentation())
    whole.set_params(ssl__augment__crop_scale=(0.5, 1.0), ssl__temperature=0.7, clf__C=3.0)
    copied = clone(whole)
    assert copied.named_steps["ssl"].augment.crop_scale == (0.5, 1.0)
    assert copied.fit(X, y).named_steps["ssl"].net_.augmentations[1].crop_scale == (0.5, 1.0)
    with pytest.raises(ValueError, match="Invalid parameter 'tempratur'"):
        whole.set_params(ssl__tempratur=1.0)


def test_html_display_shows_the_method():
    assert "SimCLR" in pipeline()._repr_html_()


def test_warm_start_is_a_training_of_its_own_from_the_fitted_network(method, X, y):
    first = quick(method, warm_start=True).fit(X, y)
    fitted = {name: value.clone() for name, value in first.net_.module_.state_dict().items()}
    old = first.net_
    second = first.set_params(epochs=2).fit(X, y)
    assert second.net_ is not old
    assert second.history_["epoch"].tolist() == [1, 2]
    by_hand = quick(method, epochs=2)
    images = by_hand._read(X, reset=True)
    by_hand.net_ = by_hand._make_trainer(images)
    by_hand.net_.module_.load_state_dict(fitted)
    by_hand.net_.run(images, by_hand._encode_labels(y, images, X), 2)
    assert_same(second, by_hand, X)
    assert not np.array_equal(second.transform(X), quick(method, epochs=2).fit(X, y).transform(X))


def test_warm_start_takes_the_network_even_without_training(X):
    first = quick(SimCLR, warm_start=True).fit(X)
    features = first.transform(X)
    assert np.array_equal(first.set_params(epochs=0, lr=3.0, random_state=7).fit(X[:20]).transform(X), features)
    assert np.array_equal(first.fit_transform(X), features)
    assert not np.array_equal(first.set_params(warm_start=False).fit(X).transform(X), features)


def test_warm_start_of_what_does_not_fit_is_refused(X):
    first = quick(SimCLR, warm_start=True).fit(X)
    with pytest.raises(
        ValueError, match=r"does not fit the parameters: The tensor 'net\.projector.* Pass warm_start=False"
    ):
        first.set_params(proj_dim=7).fit(X)
    with pytest.raises(ValueError, match=r"\(3, 8, 16\)"):
        first.set_params(proj_dim=128).fit(X[:, :8])
    bank = quick(skssl.PIRL, warm_start=True).fit(X)
    with pytest.raises(ValueError, match=r"so warm_start=True expects the same 40 images .* Got 30 images"):
        bank.fit(X[:30])


def test_search_with_warm_start_equals_one_without(X, y):
    """Searches clone their estimators, and clones are not fitted."""
    grid = {"ssl__temperature": [0.2, 0.5]}
    scores = [
        GridSearchCV(pipeline(warm_start=warm_start), grid, cv=2).fit(X, y).cv_results_["mean_test_score"].tolist()
        for warm_start in (False, True)
    ]
    assert scores[0] == scores[1]


def test_warm_start_resumes_in_a_folder_of_its_own(X, tmp_path):
    def script(killed):
        """Train twice, each time with a checkpoint; the second training may die."""
        encoder = quick(SimCLR, epochs=2, warm_start=True, checkpoint=tmp_path / "first").fit(X)
        encoder.set_params(lr=0.01, checkpoint=tmp_path / "second", checkpoint_every=OFTEN)
        return encoder.set_params(callbacks=[DiesAt(3)] if killed else None).fit(X)

    with pytest.raises(Death):
        script(killed=True)
    plain = quick(SimCLR, epochs=2, warm_start=True).fit(X).set_params(lr=0.01).fit(X)
    assert_same(script(killed=False), plain, X)
    other = quick(SimCLR, epochs=2, warm_start=True, random_state=1).fit(X)
    with pytest.raises(ValueError, match=r"differs in: .*warm_start"):
        other.set_params(random_state=0, lr=0.01, checkpoint=tmp_path / "second").fit(X)
