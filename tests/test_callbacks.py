"""Callbacks: the gradient's signal-to-noise ratio and the kNN monitor."""

import copy
import pickle

import numpy as np
import pytest
import torch
from conftest import quick
from sklearn.base import clone
from skorch.callbacks import Callback

import skssl
from skssl.callbacks import GradientSNR, KNNMonitor, LinearMonitor
from skssl.callbacks import _OnlineClassifier as OnlineClassifier
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
    watched = quick(
        skssl.SimCLR, epochs=2, callbacks=[KNNMonitor(X, y, n_neighbors=3), LinearMonitor(y), GradientSNR()]
    ).fit(X)
    np.testing.assert_array_equal(alone.transform(X), watched.transform(X))
    assert set(watched.history_) - set(alone.history_) == {"knn", "linear", "gradient_snr", "gradient_snr_squared"}
    tuner = skssl.FineTuner(alone, epochs=1, batch_size=16, callbacks=[KNNMonitor(X, y), GradientSNR()]).fit(X, y)
    assert {"knn", "gradient_snr"} < set(tuner.history_)


def test_callbacks_survive_clone_and_pickle(X, y):
    callbacks = [KNNMonitor(X, y, n_neighbors=3), GradientSNR(decay=0.8), LinearMonitor(y, lr=0.1)]
    whole = quick(skssl.SimCLR, epochs=3, batch_size=8, callbacks=callbacks).fit(X)
    assert whole.history_["gradient_snr"][2] > 0
    copied = clone(whole)
    assert copied.callbacks[1].get_params() == {"decay": 0.8, "part": "encoder"}
    assert copied.callbacks[1] is not callbacks[1]
    parts = copied
    for _ in range(3):
        parts = pickle.loads(pickle.dumps(parts.partial_fit(X)))
    columns = ["knn", "linear", "gradient_snr", "gradient_snr_squared"]
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


@pytest.fixture
def steps(monkeypatch):
    """The features and labels of all steps of the online classifiers."""
    steps, train_step = [], OnlineClassifier.train_step
    monkeypatch.setattr(
        OnlineClassifier,
        "train_step",
        lambda self, features, labels: steps.append((features, labels)) or train_step(self, features, labels),
    )
    return steps


def test_linear_monitor_matches_literal_loop(X, y, steps):
    """Softmax regression by SGD with momentum on standardised features; images of class -1 have no gradient."""
    classes, codes = np.unique(y, return_inverse=True)
    few = np.where(np.arange(40) % 3 == 0, -1, codes)
    queries, labels = make_shapes(24, image_size=16, random_state=1)
    queries, labels = queries[np.isin(labels, classes[few[few >= 0]])], labels[np.isin(labels, classes[few[few >= 0]])]
    monitor = LinearMonitor(np.where(few < 0, -1, classes[few].astype(object)), queries, labels, lr=0.1)
    estimator = quick(skssl.SimSiam, epochs=2, callbacks=[monitor]).fit(X)
    names = np.unique(classes[few[few >= 0]])
    mean, variance = np.zeros(128), np.ones(128)
    weight, speed = np.zeros((len(names), 129)), np.zeros((len(names), 129))
    for features, targets in steps:
        x, n = features.double().numpy(), len(features)
        z = np.c_[(x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), np.ones(n)]
        mean, variance = 0.9 * mean + 0.1 * x.mean(0), 0.9 * variance + 0.1 * x.var(0) * n / (n - 1)
        odds = np.exp(z @ weight.T)
        known = targets.numpy() >= 0
        residual = (odds / odds.sum(1, keepdims=True) - np.eye(len(names))[targets.numpy()])[known] / known.sum()
        speed = 0.9 * speed + residual.T @ z[known]
        weight = weight - 0.1 * speed
    np.testing.assert_allclose(monitor.head_.weight, weight, rtol=1e-3, atol=1e-4)
    encoded = np.c_[(estimator.transform(queries) - mean) / np.sqrt(variance + 1e-5), np.ones(len(queries))]
    accuracy = (names[(encoded @ weight.T).argmax(1)] == labels).mean()
    assert estimator.history_["linear"][1] == pytest.approx(accuracy)
    assert sum((labels < 0).sum() for _, labels in steps) > 10


@pytest.mark.parametrize(
    ("method", "params", "extra"),
    [
        (skssl.SimCLR, {}, 0),
        (skssl.SimSiam, {"aux": "rotation"}, 0),
        (skssl.SwAV, {"augment": skssl.MultiCrop()}, 1),
        (skssl.BYOL, {}, 0),
        (skssl.RotNet, {}, 1),
        (skssl.Jigsaw, {}, 1),
        (skssl.SimCLR, {"augment": [skssl.Augmentation(), skssl.Augmentation(flip=1.0)]}, 1),
    ],
)
def test_linear_monitor_takes_the_features_of_the_first_view(method, params, extra, X, y, steps):
    """The encoder runs as often as without the monitor, unless it does not see the first view as it is."""

    def run(callbacks):
        calls, views = [], []

        class Watch(Callback):
            def on_batch_begin(self, net, batch, **kwargs):
                views.append([view.clone() for view in batch.views])
                self.hook = net.module_.encoder.register_forward_hook(
                    lambda module, inputs, output: calls.append((module.training, output.detach().clone()))
                )

            def on_batch_end(self, net, **kwargs):
                self.hook.remove()

        fitted = quick(method, **params, precision="float32", callbacks=[*callbacks, Watch()]).fit(X)
        return fitted, calls, views

    plain, alone, _ = run([])
    watched, calls, _ = run([LinearMonitor(y)])
    np.testing.assert_array_equal(plain.transform(X), watched.transform(X))
    assert len(calls) == len(alone) + extra * len(steps)
    assert len(steps) == 2
    for features, _ in steps:
        assert any(len(output) >= 16 and torch.equal(features, output[:16]) for _, output in calls)
    assert not watched.net_.module_.encoder._forward_hooks


def test_linear_monitor_learns_separable_classes(steps):
    X, y = np.zeros((48, 16, 16, 3), np.uint8), np.repeat(["red", "green", "blue"], 16)
    X[np.arange(48), :, :, np.repeat([0, 1, 2], 16)] = 200
    X += np.random.default_rng(0).integers(0, 50, X.shape, np.uint8)
    params = {"epochs": 8, "lr": 1e-9, "augment": "none", "callbacks": [LinearMonitor(lr=0.1)]}
    history = quick(skssl.SimCLR, **params).fit(X, y).history_
    assert history["linear"].iloc[-1] == 1
    targets = torch.cat([labels for _, labels in steps])
    assert (targets < 0).sum() == 8 * 10, "a fifth is held out"


def test_linear_monitor_takes_labels_from_anywhere(X, y, png_files):
    def linear(monitor, *given, method=skssl.SimCLR):
        return quick(method, epochs=2, callbacks=[monitor]).fit(*given).history_["linear"].tolist()

    expected = linear(LinearMonitor(y), X)
    assert linear(LinearMonitor(), X, y) == expected
    assert linear(LinearMonitor(), list(zip(png_files, y, strict=True))) == expected
    assert linear(LinearMonitor(y), X, np.zeros(40)) == expected, "its own classes first"
    assert linear(LinearMonitor(), X, y, method=skssl.SupCon) == linear(LinearMonitor(y), X, y, method=skssl.SupCon)
    tested = linear(LinearMonitor(X_test=X[:20], y_test=y[:20]), X, y)
    assert linear(LinearMonitor(X_test=list(zip(png_files[:20], y, strict=False))), X, y) == tested
    few = skssl.label_fraction(y, 0.5, random_state=0)
    tuner = skssl.FineTuner(quick(skssl.SimCLR, epochs=0).fit(X), epochs=1, batch_size=8, random_state=0)
    tuner.set_params(callbacks=[LinearMonitor(X_test=X, y_test=y)]).fit(X, few)
    assert tuner.history_["linear"].between(0, 1).all()


def test_linear_monitor_skips_epochs_and_bad_images(X, y, png_files):
    history = quick(skssl.SimCLR, epochs=4, callbacks=[LinearMonitor(every=2)]).fit(X, y).history_
    assert history["linear"].notna().tolist() == [False, True, False, True]
    files, labels = [png_files[0], "missing.png", *png_files[1:]], [y[0], "missing", *y[1:]]
    with pytest.warns(skssl.BadImageWarning):
        skipped = quick(skssl.SimCLR, on_bad_image="skip", callbacks=[LinearMonitor()]).fit(files, labels).history_
    assert (
        skipped["linear"].tolist()
        == quick(skssl.SimCLR, callbacks=[LinearMonitor(y)]).fit(X).history_["linear"].tolist()
    )


@pytest.mark.parametrize("monitor", [KNNMonitor, lambda X, y, *test: LinearMonitor(y, *test)])
def test_labels_that_are_minus_one_or_one_are_two_classes(monitor, X, y):
    """The classes of the training images decide whether -1 is a class of the test images."""
    history = [
        quick(skssl.SimCLR, callbacks=[monitor(X, labels)]).fit(X).history_.iloc[:, -1].tolist()
        for labels in (np.where(y == y[0], 1, -1), y == y[0])
    ]
    assert history[0] == history[1]
    codes = np.unique(y, return_inverse=True)[1]
    test = monitor(X, codes, X, np.where(codes == 1, 1, -1))
    quick(skssl.SimCLR, callbacks=[test]).fit(X)
    assert len(test.test_) == (codes == 1).sum()


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
        (lambda X, y: LinearMonitor(), "needs the classes of the training images: pass y to fit or to LinearMonitor"),
        (lambda X, y: LinearMonitor(y[1:]), "expected 40 classes, got 39"),
        (lambda X, y: LinearMonitor(y, y_test=y), "LinearMonitor needs X_test"),
        (lambda X, y: LinearMonitor(y, X), "LinearMonitor needs the classes of its images. Pass y"),
        (lambda X, y: LinearMonitor(y, X, np.full(40, "cat")), "only classes of y. Got 'cat'"),
        (
            lambda X, y: LinearMonitor(np.full(40, "cat")),
            r"at least two classes. Got \['cat'\] and 0 images of class -1",
        ),
        (lambda X, y: LinearMonitor(y, lr=0), "'lr' parameter of LinearMonitor must be a number above 0. Got 0"),
        (lambda X, y: LinearMonitor(y, every=0), r"'every' parameter .* of at least 1\. Got 0"),
        (lambda X, y: GradientSNR(decay=1.0), r"'decay' parameter of GradientSNR must be between 0 and 1\. Got 1\.0"),
    ],
)
def test_invalid_parameters_raise(make, message, X, y):
    with pytest.raises(ValueError, match=message):
        quick(skssl.SimCLR, callbacks=[make(X, y)]).fit(X)
