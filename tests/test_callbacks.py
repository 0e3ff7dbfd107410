"""Callbacks: the gradient's signal-to-noise ratio and the kNN monitor."""

import copy
import pickle

import numpy as np
import pytest
import torch
from conftest import quick
from sklearn.base import clone

import skssl
from skssl.callbacks import GradientSNR, KNNMonitor
from skssl.datasets import make_shapes
from skssl.probes.encoders import as_encoder
from skssl.training.trainer import Trainer


def test_gradient_snr_matches_literal_formula(X, monkeypatch):
    gradients = []
    notify = Trainer.notify

    def watch(self, name, **kwargs):
        if name == "on_grad_computed":
            parts = [p.grad.flatten().double() for p in self.module_.encoder.parameters()]
            gradients.append(torch.cat(parts).numpy())
        notify(self, name, **kwargs)

    monkeypatch.setattr(Trainer, "notify", watch)
    params = {"epochs": 4, "batch_size": 8, "aux": "rotation", "callbacks": [GradientSNR(decay=0.9)]}
    history = quick(skssl.SimSiam, **params).fit(X).history_
    assert len(gradients) == 20, "five steps an epoch"
    mean = variance = np.zeros_like(gradients[0])
    ratios = []
    for t, g in enumerate(gradients, 1):
        mean = 0.9 * mean + 0.1 * g
        centre = mean / (1 - 0.9**t)
        variance = 0.9 * variance + 0.1 * (g - centre) ** 2
        noise = variance / (1 - 0.9**t)
        some = noise > 0
        ratios.append([(s[some] / (noise[some] + 1e-12)).mean() for s in (abs(centre), centre**2)])
    found = history[["gradient_snr", "gradient_snr_squared"]].to_numpy()
    assert np.isnan(found[:2]).all()
    np.testing.assert_allclose(found[2:], np.array(ratios[10:]).reshape(2, 5, 2).mean(1), rtol=1e-3)


def test_entries_without_variance_are_ignored(X):
    """Entries with a constant gradient are left out of the average, without a division by zero."""

    class Alternating(GradientSNR):
        def on_grad_computed(self, net, **kwargs):
            for i, parameter in enumerate(net.module_.encoder.parameters()):
                parameter.grad = torch.full_like(parameter, 0.0 if i % 2 else self.steps_ % 2 + 0.5)
            super().on_grad_computed(net, **kwargs)

    params = {"epochs": 3, "batch_size": 4, "lr": 1e-9, "callbacks": [Alternating(decay=0.9)]}
    history = quick(skssl.SimSiam, **params).fit(X).history_
    mean = variance = 0.0
    ratios = []
    for t in range(1, 31):
        g = (t - 1) % 2 + 0.5
        mean = 0.9 * mean + 0.1 * g
        variance = 0.9 * variance + 0.1 * (g - mean / (1 - 0.9**t)) ** 2
        ratios.append((mean / variance, mean**2 / variance / (1 - 0.9**t)))
    found = history[["gradient_snr", "gradient_snr_squared"]].to_numpy()
    np.testing.assert_allclose(found[1:], np.array(ratios[10:]).reshape(2, 10, 2).mean(1), rtol=1e-4)


def test_gradient_snr_of_pure_noise(X):
    class Noise(GradientSNR):
        def on_grad_computed(self, net, **kwargs):
            for parameter in net.module_.encoder.parameters():
                parameter.grad = torch.randn_like(parameter)
            super().on_grad_computed(net, **kwargs)

    params = {"epochs": 12, "batch_size": 4, "lr": 1e-9, "callbacks": [Noise(decay=0.9)]}
    history = quick(skssl.SimSiam, **params).fit(X).history_
    assert history["gradient_snr_squared"].iloc[-1] == pytest.approx(0.1 / 2 / 0.9**2, rel=0.15)


def test_gradient_snr_of_the_whole_net(X):
    snr = GradientSNR(part="")
    fitted = quick(skssl.SimSiam, callbacks=[snr]).fit(X)
    assert len(snr.moments_[0]) == sum(parameter.numel() for parameter in fitted.net_.module_.parameters())


def test_knn_monitor_matches_a_knn_probe_after_each_epoch(X, y):
    queries, labels = make_shapes(24, image_size=16, random_state=1)
    monitor = KNNMonitor(X, y, queries, labels, n_neighbors=3)
    estimator = quick(skssl.SimCLR, epochs=2, callbacks=[monitor])
    for epoch in range(2):
        estimator.partial_fit(X)
        probe = skssl.KNNProbe(n_neighbors=3).fit(estimator.transform(X), y)
        assert estimator.history_["knn"][epoch] == probe.score(estimator.transform(queries), labels)


def test_knn_monitor_holds_out_a_fifth_and_skips_epochs(X, y):
    estimator = quick(skssl.SimCLR, epochs=5, callbacks=[KNNMonitor(X, y, n_neighbors=3, every=2)]).fit(X)
    history = estimator.history_["knn"]
    assert history.notna().tolist() == [False, True, False, True, False]
    assert (history.dropna() * 8 % 1 == 0).all(), "8 of 40 images are judged"


def test_knn_monitor_ignores_unlabelled_images(X, y):
    few = skssl.label_fraction(y, 0.8, random_state=0)
    known = few != -1
    columns = [
        quick(skssl.SimCLR, callbacks=[monitor]).fit(X).history_["knn"]
        for monitor in (KNNMonitor(X, few, n_neighbors=3), KNNMonitor(X[known], y[known], n_neighbors=3))
    ]
    np.testing.assert_array_equal(*columns)
    with pytest.raises(ValueError, match="needs labelled images, but all labels are -1"):
        quick(skssl.SimCLR, callbacks=[KNNMonitor(X, np.full(40, -1))]).fit(X)


def test_knn_monitor_keeps_one_image_of_every_class(X):
    """A class of one image is not held out, since no neighbour could vote for it."""
    for rare in range(8):
        y = np.where(np.arange(40) == 5 * rare, "rare", np.repeat(["a", "b"], 20))
        history = quick(skssl.SimCLR, callbacks=[KNNMonitor(X, y, n_neighbors=3)]).fit(X).history_
        assert history["knn"].between(0, 1).all()


def test_knn_monitor_reads_images_as_the_estimator_does(X, y):
    table = X[:, :8].reshape(40, -1)
    encoder = quick(skssl.SimCLR, image_shape=(8, 16, 3), epochs=0).fit(table)
    tuner = skssl.FineTuner(encoder, epochs=1, batch_size=16, callbacks=[KNNMonitor(table, y)], random_state=0)
    assert tuner.fit(table, y).history_["knn"].between(0, 1).all()


def test_callbacks_do_not_change_the_training(X, y):
    alone = quick(skssl.SimCLR, epochs=2).fit(X)
    watched = quick(skssl.SimCLR, epochs=2, callbacks=[KNNMonitor(X, y, n_neighbors=3), GradientSNR()]).fit(X)
    np.testing.assert_array_equal(alone.transform(X), watched.transform(X))
    assert set(watched.history_) - set(alone.history_) == {"knn", "gradient_snr", "gradient_snr_squared"}
    tuner = skssl.FineTuner(alone, epochs=1, batch_size=16, callbacks=[KNNMonitor(X, y), GradientSNR()]).fit(X, y)
    assert {"knn", "gradient_snr"} < set(tuner.history_)


def test_callbacks_survive_clone_and_pickle(X, y):
    callbacks = [KNNMonitor(X, y, n_neighbors=3), GradientSNR(decay=0.8)]
    whole = quick(skssl.SimCLR, epochs=3, batch_size=8, callbacks=callbacks).fit(X)
    assert whole.history_["gradient_snr"][2] > 0
    copied = clone(whole)
    assert copied.callbacks[1].get_params() == {"decay": 0.8, "part": "encoder"}
    assert copied.callbacks[1] is not callbacks[1]
    parts = copied
    for _ in range(3):
        parts = pickle.loads(pickle.dumps(parts.partial_fit(X)))
    columns = ["knn", "gradient_snr", "gradient_snr_squared"]
    np.testing.assert_array_equal(parts.history_[columns], whole.history_[columns])
    assert copy.deepcopy(callbacks[0]).get_params()["n_neighbors"] == 3


def test_knn_monitor_reads_tables_and_gray_images(y):
    gray = make_shapes(40, image_size=16, random_state=0)[0].mean(3)
    table = np.stack([gray, 255 - gray, gray / 2], axis=3).reshape(40, -1)
    for images, shape in ((gray, None), (table, (16, 16, 3))):
        monitor = KNNMonitor(images[:30], y[:30], images[30:], y[30:], n_neighbors=3)
        estimator = quick(skssl.SimCLR, image_shape=shape, callbacks=[monitor]).fit(images)
        probe = skssl.KNNProbe(n_neighbors=3).fit(as_encoder(estimator, images).transform(images[:30]), y[:30])
        assert estimator.history_["knn"][0] == probe.score(estimator.transform(images[30:]), y[30:])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda X, y: KNNMonitor(X, y[:39]), r"inconsistent numbers of samples: \[40, 39\]"),
        (lambda X, y: KNNMonitor(X, y, X), "needs the classes of its images. Pass y, and y_test with X_test"),
        (
            lambda X, y: KNNMonitor(X, y, every=0),
            r"'every' parameter .* of at least 1\. Got 0",
        ),
        (
            lambda X, y: KNNMonitor(X, y, n_neighbors=33),
            r"'n_neighbors' parameter .* between 1 and .* 32\. Got 33",
        ),
        (lambda X, y: KNNMonitor(X[:, :8], y), r"\(3, 8, 16\)"),
        (lambda X, y: KNNMonitor(X, y, X, np.full(40, "cat")), "only classes of y. Got 'cat'"),
        (lambda X, y: KNNMonitor(X, np.full(40, "cat")), "at least two classes. Got one: 'cat'"),
        (lambda X, y: KNNMonitor(X[:4], list("abcd")), "the only image of each class: pass X_test"),
        (lambda X, y: GradientSNR(decay=1.0), r"'decay' parameter of GradientSNR must be between 0 and 1\. Got 1\.0"),
    ],
)
def test_invalid_parameters_raise(make, message, X, y):
    with pytest.raises(ValueError, match=message):
        quick(skssl.SimCLR, callbacks=[make(X, y)]).fit(X)
