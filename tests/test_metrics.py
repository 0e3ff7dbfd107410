"""Measures of representations against literal versions."""

import numpy as np
import pytest
import torch
from conftest import quick
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from torch import nn

import skssl
from skssl import Augmentation, metrics
from skssl.datasets import make_shapes
from skssl.metrics import nearest_is_positive


@pytest.fixture(scope="module")
def encoder():
    return quick(skssl.SimCLR).fit(make_shapes(40, image_size=16, random_state=0)[0])


def unit(z):
    return [row / np.sqrt((row**2).sum()) for row in z]


@pytest.mark.parametrize(("alpha", "t"), [(2.0, 2.0), (1.0, 0.5)])
def test_alignment_and_uniformity_match_the_paper(alpha, t):
    rng = np.random.default_rng(0)
    z1, z2 = rng.normal(size=(2, 30, 5))
    a, b = unit(z1), unit(z2)
    expected = sum(((a[i] - b[i]) ** 2).sum() ** (alpha / 2) for i in range(30)) / 30
    assert metrics.alignment(z1, z2, alpha=alpha) == pytest.approx(expected, rel=1e-12)
    pairs = [np.exp(-t * ((a[i] - a[j]) ** 2).sum()) for i in range(30) for j in range(30) if i != j]
    assert metrics.uniformity(z1, t=t) == pytest.approx(np.log(np.mean(pairs)), rel=1e-12)
    assert metrics.uniformity(torch.from_numpy(3 * z1), t=t) == pytest.approx(np.log(np.mean(pairs)), rel=1e-12)


def test_uniformity_in_blocks(monkeypatch):
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


def test_invalid_input_is_rejected():
    with pytest.raises(ValueError, match=r"z1 and z2 must have the same shape\. Got \(3, 2\) and \(2, 2\)"):
        metrics.alignment(np.ones((3, 2)), np.ones((2, 2)))
    with pytest.raises(ValueError, match="minimum of 2 is required"):
        metrics.uniformity(np.ones((1, 2)))
    with pytest.raises(ValueError, match="NaN"):
        metrics.effective_rank(np.full((3, 2), np.nan))


def test_nearest_is_positive_matches_a_loop():
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
    assert nearest_is_positive(torch.from_numpy(z1), torch.from_numpy(z2)).tolist() == expected
    same = torch.ones(3, 2)
    assert not nearest_is_positive(same, same).any(), "a collapsed encoder must have accuracy 0"


@pytest.mark.parametrize("layer", ["backbone", "projector"])
def test_contrastive_accuracy_is_the_mean_over_full_batches(layer, encoder, X):
    """The same draws, batch by batch, through the network."""
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
        right += nearest_is_positive(*z).tolist()
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


def test_contrastive_accuracy_with_own_and_given_augmentations(encoder, X):
    params = {"batch_size": 20, "random_state": 0}
    own = metrics.contrastive_accuracy(encoder, X, **params)
    assert own == metrics.contrastive_accuracy(encoder, X, augment=encoder.net_.augmentations[0], **params)
    assert own == metrics.contrastive_accuracy(encoder, X, augment="simclr", **params)
    unlike = Augmentation(mean=(0.0, 0.0, 0.0), std=(9.0, 9.0, 9.0))  # the encoder's own normalisation is used
    assert own == metrics.contrastive_accuracy(encoder, X, augment=unlike, **params)
    assert metrics.contrastive_accuracy(encoder, X, augment="none", **params) == 1.0
    assert metrics.contrastive_accuracy(encoder, X, augment="byol", **params) > 0


def test_contrastive_accuracy_leaves_out_the_encoders_saliency_maps(X):
    images = make_shapes(60, image_size=16, random_state=1)[0]
    maps = np.random.default_rng(0).random((40, 4, 4)) ** 8
    plain, salient = Augmentation(jitter=0.0), Augmentation(jitter=0.0, saliency=maps)
    encoder = quick(skssl.SimCLR, augment=salient, epochs=0).fit(X)
    params = {"batch_size": 20, "random_state": 0}
    for other in (images[:20], images[:40], images):  # fewer images than maps, as many, and more
        expected = metrics.contrastive_accuracy(encoder, other, augment=plain, **params)
        assert metrics.contrastive_accuracy(encoder, other, **params) == expected
        if len(other) != 40:
            with pytest.raises(ValueError, match=f"one map for each image: expected {len(other)} maps, got 40"):
                metrics.contrastive_accuracy(encoder, other, augment=salient, **params)
    assert encoder.net_.augmentations[0].saliency is not None, "the encoder must keep its maps"
    given, without = (
        metrics.contrastive_accuracy(encoder, X, augment=augment, **params) for augment in (salient, plain)
    )
    assert given != without, "given maps must be used"


def test_contrastive_accuracy_of_a_module_uses_the_simclr_preset():
    images = make_shapes(32, image_size=72, random_state=0)[0]
    net = nn.Sequential(nn.AdaptiveAvgPool2d(6), nn.Flatten())
    params = {"batch_size": 32, "random_state": 0, "device": "cpu"}
    own = metrics.contrastive_accuracy(net, images, **params)
    assert own == metrics.contrastive_accuracy(net, images, augment="simclr", **params)
    assert own != metrics.contrastive_accuracy(net, images, augment=Augmentation(), **params)


def test_no_float64_on_the_device(encoder, X, monkeypatch):
    class Elsewhere(torch.Tensor):
        """A tensor on a device without float64, such as MPS."""

        def cpu(self):
            return self.as_subclass(torch.Tensor)

        def double(self):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    params = {"batch_size": 20, "random_state": 0}
    expected = metrics.contrastive_accuracy(encoder, X, **params)
    monkeypatch.setattr(metrics, "nearest_is_positive", lambda *z: nearest_is_positive(*z).as_subclass(Elsewhere))
    assert metrics.contrastive_accuracy(encoder, X, **params) == expected


def test_metrics_do_not_change_the_encoder(encoder, X):
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


def test_rotation_accuracy_matches_a_probe_on_all_rotations(encoder, X):
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
    assert found == pytest.approx(expected, abs=0.03)  # the solver has a tolerance; another order


def test_rotation_accuracy_of_rotnet_and_of_a_blind_encoder():
    """RotNet's features contain the rotation. Those of a network that returns the mean colour do not."""
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
