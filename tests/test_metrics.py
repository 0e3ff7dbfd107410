"""Measures against literal versions, and callbacks that watch without touching."""

import copy
import pickle

import numpy as np
import pytest
import torch
from conftest import quick
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from torch import nn

import skssl
from skssl import Augmentation, metrics
from skssl.callbacks import GradientSNR, KNNMonitor
from skssl.datasets import make_shapes
from skssl.metrics import _finds_its_other
from skssl.probes.encoders import as_encoder
from skssl.training.trainer import Trainer


@pytest.fixture(scope="module")
def encoder():
    return quick(skssl.SimCLR).fit(make_shapes(40, image_size=16, random_state=0)[0])


def unit(z):
    return [row / np.sqrt((row**2).sum()) for row in z]


@pytest.mark.parametrize(("alpha", "t"), [(2.0, 2.0), (1.0, 0.5)])
def test_alignment_and_uniformity_are_wang_and_isolas(alpha, t):
    rng = np.random.default_rng(0)
    z1, z2 = rng.normal(size=(2, 30, 5))
    a, b = unit(z1), unit(z2)
    expected = sum(((a[i] - b[i]) ** 2).sum() ** (alpha / 2) for i in range(30)) / 30
    assert metrics.alignment(z1, z2, alpha=alpha) == pytest.approx(expected, rel=1e-12)
    pairs = [np.exp(-t * ((a[i] - a[j]) ** 2).sum()) for i in range(30) for j in range(30) if i != j]
    assert metrics.uniformity(z1, t=t) == pytest.approx(np.log(np.mean(pairs)), rel=1e-12)
    assert metrics.uniformity(torch.from_numpy(3 * z1), t=t) == pytest.approx(np.log(np.mean(pairs)), rel=1e-12)


def test_uniformity_block_by_block(monkeypatch):
    z = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    whole = metrics.uniformity(z)
    chunked = metrics.pairwise_distances_chunked
    monkeypatch.setattr(metrics, "pairwise_distances_chunked", lambda *a, **k: chunked(*a, **k, working_memory=0.01))
    assert metrics.uniformity(z) == pytest.approx(whole, rel=1e-6)


def test_effective_rank_of_arrays():
    z = np.random.default_rng(0).normal(size=(50, 6)) * np.logspace(0, -2, 6)
    values = np.linalg.svd(z - z.mean(0), compute_uv=False)
    share = values / values.sum()
    assert metrics.effective_rank(z) == pytest.approx(np.exp(-sum(p * np.log(p) for p in share)), rel=1e-5)


def test_mean_per_class_accuracy():
    rng = np.random.default_rng(0)
    y, predicted = rng.choice(["a", "b", "c"], size=(2, 60), p=[0.7, 0.2, 0.1])
    expected = np.mean([np.mean([p == c for p, true in zip(predicted, y, strict=True) if true == c]) for c in "abc"])
    assert metrics.mean_per_class_accuracy(y, predicted) == pytest.approx(expected)
    assert metrics.mean_per_class_accuracy(y, predicted) == pytest.approx(balanced_accuracy_score(y, predicted))
    assert metrics.mean_per_class_accuracy(["a", "b"], ["a", "never seen"]) == 0.5


def test_measures_refuse_what_they_cannot_measure():
    with pytest.raises(ValueError, match=r"z1 and z2 must have the same shape\. Got \(3, 2\) and \(2, 2\)"):
        metrics.alignment(np.ones((3, 2)), np.ones((2, 2)))
    with pytest.raises(ValueError, match="minimum of 2 is required"):
        metrics.uniformity(np.ones((1, 2)))
    with pytest.raises(ValueError, match="NaN"):
        metrics.effective_rank(np.full((3, 2), np.nan))


# Contrastive accuracy


def test_who_finds_its_other_view():
    rng = np.random.default_rng(0)
    z1 = rng.normal(size=(40, 3))
    z2 = z1 + 0.3 * rng.normal(size=(40, 3))
    views = unit([*z1, *z2])
    expected = []
    for i in range(80):
        other = (i + 40) % 80
        own = views[i] @ views[other]
        expected.append(all(own > views[i] @ views[j] for j in range(80) if j not in (i, other)))
    assert 0.1 < np.mean(expected) < 0.9
    assert _finds_its_other(torch.from_numpy(z1), torch.from_numpy(z2)).tolist() == expected
    same = torch.ones(3, 2)
    assert not _finds_its_other(same, same).any(), "an encoder that has collapsed finds nothing"


@pytest.mark.parametrize("layer", ["backbone", "projector"])
def test_contrastive_accuracy_is_the_mean_over_full_batches(layer, encoder, X):
    """The same draws, batch by batch, through the network itself."""
    augment = Augmentation(jitter=0.0)
    found = metrics.contrastive_accuracy(encoder, X, batch_size=12, layer=layer, augment=augment, random_state=3)
    seed = int(np.random.RandomState(3).randint(np.iinfo(np.int32).max))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
    draws = torch.Generator().manual_seed(seed)
    pixels, net, right = torch.from_numpy(X.copy()).permute(0, 3, 1, 2), encoder.net_.module_.eval(), []
    for start in (0, 12, 24):
        index = order[start : start + 12]
        views = [augment(pixels[index], draws) for _ in range(2)]
        with torch.no_grad():
            z = [net.projector(net.encoder(view)) if layer == "projector" else net.encoder(view) for view in views]
        right += _finds_its_other(*z).tolist()
    assert found == pytest.approx(np.mean(right))
    assert 0 < found < 1


def test_contrastive_accuracy_falls_with_the_batch_and_follows_the_seed(X):
    images = make_shapes(200, image_size=16, random_state=1)[0]
    encoder = quick(skssl.SimCLR, epochs=0).fit(images)
    small, large = (metrics.contrastive_accuracy(encoder, images, batch_size=n, random_state=0) for n in (10, 200))
    assert small > large + 0.1
    assert large == metrics.contrastive_accuracy(FrozenEstimator(encoder), images, batch_size=200, random_state=0)
    assert large != metrics.contrastive_accuracy(encoder, images, batch_size=200, random_state=1)
    for wrong in (201, 1, 2.5):
        with pytest.raises(ValueError, match=rf"batch_size must be from 2 to the number of images, 200\. Got {wrong}"):
            metrics.contrastive_accuracy(encoder, images, batch_size=wrong)


def test_views_of_its_own_and_of_others(encoder, X):
    params = {"batch_size": 20, "random_state": 0}
    own = metrics.contrastive_accuracy(encoder, X, **params)
    assert own == metrics.contrastive_accuracy(encoder, X, augment=encoder.net_.augmentations[0], **params)
    assert own == metrics.contrastive_accuracy(encoder, X, augment="simclr", **params)
    unlike = Augmentation(mean=(0.0, 0.0, 0.0), std=(9.0, 9.0, 9.0))  # the encoder's own normalisation is used
    assert own == metrics.contrastive_accuracy(encoder, X, augment=unlike, **params)
    assert metrics.contrastive_accuracy(encoder, X, augment="none", **params) == 1.0
    assert metrics.contrastive_accuracy(encoder, X, augment="byol", **params) > 0


def test_saliency_maps_are_those_of_the_training_images(X):
    images = make_shapes(60, image_size=16, random_state=1)[0]
    maps = np.random.default_rng(0).random((40, 4, 4)) ** 8
    plain, salient = Augmentation(jitter=0.0), Augmentation(jitter=0.0, saliency=maps)
    encoder = quick(skssl.SimCLR, augment=salient, epochs=0).fit(X)
    params = {"batch_size": 20, "random_state": 0}
    for other in (images[:20], images[:40], images):  # fewer than there are maps, as many, more
        expected = metrics.contrastive_accuracy(encoder, other, augment=plain, **params)
        assert metrics.contrastive_accuracy(encoder, other, **params) == expected
        if len(other) != 40:
            with pytest.raises(ValueError, match=f"one map for each image .* expected {len(other)}, got 40"):
                metrics.contrastive_accuracy(encoder, other, augment=salient, **params)
    assert encoder.net_.augmentations[0].saliency is not None, "the encoder's own stays as it is"
    given, without = (
        metrics.contrastive_accuracy(encoder, X, augment=augment, **params) for augment in (salient, plain)
    )
    assert given != without, "maps of these images are used"


def test_a_module_has_simclrs_views_for_the_images_size():
    images = make_shapes(32, image_size=72, random_state=0)[0]
    net = nn.Sequential(nn.AdaptiveAvgPool2d(6), nn.Flatten())
    params = {"batch_size": 32, "random_state": 0, "device": "cpu"}
    own = metrics.contrastive_accuracy(net, images, **params)
    assert own == metrics.contrastive_accuracy(net, images, augment="simclr", **params)
    assert own != metrics.contrastive_accuracy(net, images, augment=Augmentation(), **params)


def test_nothing_is_computed_in_float64_on_the_device(encoder, X, monkeypatch):
    class Elsewhere(torch.Tensor):
        """What lies on a device that has no float64, as MPS."""

        def cpu(self):
            return self.as_subclass(torch.Tensor)

        def double(self):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    params = {"batch_size": 20, "random_state": 0}
    expected = metrics.contrastive_accuracy(encoder, X, **params)
    monkeypatch.setattr(metrics, "_finds_its_other", lambda *z: _finds_its_other(*z).as_subclass(Elsewhere))
    assert metrics.contrastive_accuracy(encoder, X, **params) == expected


def test_measuring_leaves_the_encoder_as_it_was(encoder, X):
    net = encoder.net_.module_
    before, state = encoder.transform(X), torch.get_rng_state()
    for mode in (True, False):
        net.train(mode)
        net.encoder.features[0].train(not mode)
        modes = [part.training for part in net.modules()]
        metrics.contrastive_accuracy(encoder, X, batch_size=20)
        metrics.rotation_accuracy(encoder, X[:20], X[20:], probe=LogisticRegression(max_iter=1000))
        metrics.rotation_accuracy(encoder, X[:20], X[20:], layer="conv1", probe=LogisticRegression(max_iter=1000))
        assert [part.training for part in net.modules()] == modes
    np.testing.assert_array_equal(encoder.transform(X), before)
    assert torch.equal(torch.get_rng_state(), state)


# Rotation accuracy


def test_rotation_accuracy_is_a_probe_on_all_turns(encoder, X):
    module = encoder.encoder_
    pixels = encoder.net_.augmentations[0].normalize(torch.from_numpy(X.copy()).permute(0, 3, 1, 2))
    features, labels = [], []
    for image in pixels:
        for k in range(4):
            with torch.no_grad():
                features.append(module(torch.rot90(image, k, (1, 2))[None])[0].numpy())
            labels.append(k)
    probe = LogisticRegression(max_iter=2000)
    expected = probe.fit(features[:120], labels[:120]).score(features[120:], labels[120:])
    found = metrics.rotation_accuracy(encoder, X[:30], X[30:], probe=LogisticRegression(max_iter=2000))
    assert found == pytest.approx(expected, abs=0.03)  # solved to a tolerance, in another order


def test_rotation_accuracy_tells_who_knows_the_turn():
    """RotNet's features know the turn; those of a network whose output is the mean colour cannot."""
    X = make_shapes(300, image_size=16, random_state=0)[0]
    rotnet = quick(skssl.RotNet, epochs=8, batch_size=64, lr=0.1).fit(X)
    assert metrics.rotation_accuracy(rotnet, X[:200], X[200:], random_state=0) > 0.55
    blind = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 8, bias=False))
    assert metrics.rotation_accuracy(blind, X[:200], X[200:], random_state=0) < 0.35
    same = [metrics.rotation_accuracy(rotnet, X[:50], X[200:220], random_state=seed) for seed in (0, 0)]
    assert same[0] == same[1]


def test_rotation_accuracy_at_the_projector(encoder, X):
    found = metrics.rotation_accuracy(
        encoder, X[:30], X[30:], layer="projector", probe=LogisticRegression(max_iter=9999)
    )
    assert 0 <= found <= 1
    with pytest.raises(ValueError, match="Unknown layer 'projector'"):
        metrics.rotation_accuracy(quick(skssl.RotNet, epochs=0), X, X, layer="projector")


# Callbacks


def test_gradient_snr_is_the_formula(X, monkeypatch):
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


def test_gradients_without_noise_do_not_count(X):
    """Where a gradient is always the same nothing is divided by zero, and of the others alone the average is taken."""

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


def test_noise_alone_has_the_ratio_that_the_docstring_names(X):
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


def test_knn_monitor_is_a_knn_probe_after_each_epoch(X, y):
    queries, labels = make_shapes(24, image_size=16, random_state=1)
    monitor = KNNMonitor(X, y, queries, labels, n_neighbors=3)
    estimator = quick(skssl.SimCLR, epochs=2, callbacks=[monitor])
    for epoch in range(2):
        estimator.partial_fit(X)
        probe = skssl.KNNProbe(n_neighbors=3).fit(estimator.transform(X), y)
        assert estimator.history_["knn"][epoch] == probe.score(estimator.transform(queries), labels)


def test_knn_monitor_holds_a_fifth_out_and_rests_between(X, y):
    estimator = quick(skssl.SimCLR, epochs=5, callbacks=[KNNMonitor(X, y, n_neighbors=3, every=2)]).fit(X)
    history = estimator.history_["knn"]
    assert history.notna().tolist() == [False, True, False, True, False]
    assert (history.dropna() * 8 % 1 == 0).all(), "8 of 40 images are judged"


def test_knn_monitor_leaves_out_what_has_no_class(X, y):
    few = skssl.label_fraction(y, 0.8, random_state=0)
    known = few != -1
    columns = [
        quick(skssl.SimCLR, callbacks=[monitor]).fit(X).history_["knn"]
        for monitor in (KNNMonitor(X, few, n_neighbors=3), KNNMonitor(X[known], y[known], n_neighbors=3))
    ]
    np.testing.assert_array_equal(*columns)
    with pytest.raises(ValueError, match="needs labelled images, but all labels are -1"):
        quick(skssl.SimCLR, callbacks=[KNNMonitor(X, np.full(40, -1))]).fit(X)


def test_knn_monitor_keeps_a_voter_of_every_class(X):
    """A class of one image is not held out: it would be one that no neighbour can vote for."""
    for rare in range(8):
        y = np.where(np.arange(40) == 5 * rare, "rare", np.repeat(["a", "b"], 20))
        history = quick(skssl.SimCLR, callbacks=[KNNMonitor(X, y, n_neighbors=3)]).fit(X).history_
        assert history["knn"].between(0, 1).all()


def test_knn_monitor_reads_as_the_classifier_that_it_watches(X, y):
    table = X[:, :8].reshape(40, -1)
    encoder = quick(skssl.SimCLR, image_shape=(8, 16, 3), epochs=0).fit(table)
    tuner = skssl.FineTuner(encoder, epochs=1, batch_size=16, callbacks=[KNNMonitor(table, y)], random_state=0)
    assert tuner.fit(table, y).history_["knn"].between(0, 1).all()


def test_watching_changes_nothing(X, y):
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


def test_tables_and_gray_images_are_read_as_in_training(y):
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
        (lambda X, y: KNNMonitor(X, y, X), "KNNMonitor needs both X_test and y_test, or neither"),
        (lambda X, y: KNNMonitor(X, y, every=0), r"every must be a whole number from 1\. Got 0"),
        (lambda X, y: KNNMonitor(X, y, n_neighbors=33), r"n_neighbors must be from 1 to .* 32\. Got 33"),
        (lambda X, y: KNNMonitor(X[:, :8], y), r"\(3, 8, 16\)"),
        (lambda X, y: KNNMonitor(X, y, X, np.full(40, "cat")), "y_test has the class 'cat', which y has not"),
        (lambda X, y: KNNMonitor(X, np.full(40, "cat")), "two classes or more. Got one only: 'cat'"),
        (lambda X, y: KNNMonitor(X[:4], list("abcd")), "only one of each class: give X_test"),
        (lambda X, y: GradientSNR(decay=1.0), r"decay must be between 0 and 1\. Got 1\.0"),
    ],
)
def test_what_callbacks_refuse(make, message, X, y):
    with pytest.raises(ValueError, match=message):
        quick(skssl.SimCLR, callbacks=[make(X, y)]).fit(X)
