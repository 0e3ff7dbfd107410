"""SimCLR and SupCon: losses against literal loops, labels, projectors."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import quick
from helpers import built, cosine, numpy, random_rows, reached
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from torch import nn

import skssl
import skssl.datasets
from skssl import losses
from skssl.images import as_images
from skssl.methods.supcon import corrupt

LABELS = torch.tensor([0, 1, 0, -1, 2, -1])


def test_simclr_batchnorm_sees_both_views(X):
    estimator, net, batch = built(skssl.SimCLR, X)
    found = estimator.losses(net, batch)["nt_xent"]
    z1, z2 = net.projector(net.encoder(torch.cat(batch.views))).chunk(2)
    torch.testing.assert_close(found, losses.nt_xent(z1, z2, estimator.temperature))
    apart = losses.nt_xent(*(net.projector(net.encoder(v)) for v in batch.views), estimator.temperature)
    assert not torch.isclose(found, apart)
    found.backward()
    assert reached(net) == {"encoder", "projector"}


@pytest.mark.parametrize("views", [1, 2, 3])
def test_sup_con_equals_a_literal_loop(views):
    rows = random_rows(views)
    z, image = np.concatenate(numpy(rows)), np.tile(np.arange(6), views)
    of_anchor = []
    for i in range(len(z)):
        alike = LABELS[image] == LABELS[image[i]]
        positives = [
            p for p in range(len(z)) if p != i and (image[p] == image[i] or (alike[p] and LABELS[image[i]] >= 0))
        ]
        total = sum(math.exp(cosine(z[i], z[a]) / 0.3) for a in range(len(z)) if a != i)
        terms = [math.log(math.exp(cosine(z[i], z[p]) / 0.3) / total) for p in positives]
        of_anchor += [-sum(terms) / len(terms)] if terms else []
    assert len(of_anchor) == (2 if views == 1 else 6 * views), "only anchors of single views may lack positives"
    loss = losses.sup_con(torch.stack(rows, 1), LABELS, 0.3)
    assert loss.item() == pytest.approx(np.mean(of_anchor), rel=1e-12)
    assert torch.autograd.gradcheck(lambda *rows: losses.sup_con(torch.stack(rows, 1), LABELS, 0.3), rows)


def test_sup_con_of_single_views_without_positives_is_zero():
    (z,) = random_rows(1)
    assert torch.equal(losses.sup_con(z, LABELS), losses.sup_con(z[:, None], LABELS))
    alone = losses.sup_con(z, torch.arange(6))
    alone.backward()
    assert alone.item() == 0
    assert torch.equal(z.grad, torch.zeros_like(z))


def test_sup_con_without_labels_equals_nt_xent():
    z1, z2 = random_rows(2)
    unknown = torch.full((6,), -1)
    loss = losses.sup_con(torch.stack([z1, z2], 1), unknown, 0.1)
    assert torch.isclose(loss, losses.nt_xent(z1, z2, 0.1), rtol=1e-12)


def test_nt_xent_excludes_false_negatives():
    z1, z2 = random_rows(2)
    z, y, n = np.concatenate(numpy([z1, z2])), torch.cat([LABELS, LABELS]).numpy(), 6
    total = 0.0
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        kept = [k for k in range(2 * n) if k not in (i, j) and not (y[k] == y[i] >= 0)]
        assert len(kept) == (8 if y[i] == 0 else 10)
        positive = math.exp(cosine(z[i], z[j]) / 0.3)
        total -= math.log(positive / (positive + sum(math.exp(cosine(z[i], z[k]) / 0.3) for k in kept)))
    assert losses.nt_xent(z1, z2, 0.3, LABELS).item() == pytest.approx(total / (2 * n), rel=1e-12)
    assert torch.autograd.gradcheck(lambda *z: losses.nt_xent(*z, 0.3, LABELS), (z1, z2))
    assert torch.equal(losses.nt_xent(z1, z2, 0.3, torch.full((n,), -1)), losses.nt_xent(z1, z2, 0.3))
    assert losses.nt_xent(z1, z2, 0.3, torch.zeros(n, dtype=torch.long)).item() == 0, "there are no negatives"


def test_supcon_loss_uses_both_views_and_the_labels(X):
    estimator, net, batch = built(skssl.SupCon, X)
    batch = dataclasses.replace(batch, labels=torch.arange(12) % 4 - 1)
    z1, z2 = (net.projector(net.encoder(torch.cat(batch.views)))).chunk(2)
    found = estimator.losses(net, batch)["sup_con"]
    torch.testing.assert_close(found, losses.sup_con(torch.stack([z1, z2], 1), batch.labels, estimator.temperature))
    assert [type(layer) for layer in net.projector] == [nn.Linear, nn.ReLU, nn.Linear], "no BatchNorm"
    found.backward()
    assert reached(net) == {"encoder", "projector"}


def test_simclr_removes_false_negatives(X, y):
    estimator, net, batch = built(skssl.SimCLR, X, false_negatives="remove")
    batch = dataclasses.replace(batch, labels=torch.arange(12) % 4 - 1)
    z1, z2 = net.project(batch.views)
    found = estimator.losses(net, batch)["nt_xent"]
    torch.testing.assert_close(found, losses.nt_xent(z1, z2, estimator.temperature, batch.labels))
    assert found < losses.nt_xent(z1, z2, estimator.temperature)
    removed = quick(skssl.SimCLR, false_negatives="remove").fit(X, y).transform(X)
    kept = quick(skssl.SimCLR).fit(X).transform(X)
    assert not np.array_equal(removed, kept)
    assert np.array_equal(quick(skssl.SimCLR).fit(X, y).transform(X), kept), "y is ignored"
    unknown = quick(skssl.SimCLR, false_negatives="remove").fit(X, np.full(40, -1)).transform(X)
    np.testing.assert_allclose(unknown, kept, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_label_fraction_uses_that_share_of_the_labels_of_each_class(fraction, X, y):
    fit = quick(skssl.SimCLR, false_negatives="remove", label_fraction=fraction).fit(X, y)
    labels = fit._encode_labels(y, as_images(X))
    kept = labels >= 0
    sizes = np.bincount(np.unique(y, return_inverse=True)[1])
    assert np.bincount(labels[kept], minlength=len(sizes)).tolist() == [math.ceil(fraction * size) for size in sizes]
    assert torch.equal(labels, fit._encode_labels(y, as_images(X)))
    few = np.where(kept, np.unique(y, return_inverse=True)[1], -1)
    expected = quick(skssl.SimCLR, false_negatives="remove").fit(X, few)
    assert np.array_equal(fit.transform(X), expected.transform(X))
    if fraction == 0.5:
        other = quick(skssl.SimCLR, false_negatives="remove", label_fraction=0.5, random_state=1).fit(X, y)
        assert not torch.equal(labels, other._encode_labels(y, as_images(X)))


def test_grid_search_over_the_share_of_labels_gives_the_probe_all_labels(X, y):
    method = quick(skssl.SimCLR, false_negatives="remove", epochs=1)
    pipe = Pipeline([("ssl", method), ("probe", skssl.LinearProbe(device="cpu"))])
    grid = {"ssl__label_fraction": [0.5, 1.0]}
    search = GridSearchCV(pipe, grid, cv=2, error_score="raise").fit(X, y)
    assert search.best_estimator_["probe"].classes_.tolist() == np.unique(y).tolist()
    half = method.set_params(label_fraction=0.5)
    results = skssl.compare([half], X, y, X_test=X, y_test=y, probes=[skssl.KNNProbe(n_neighbors=3)])
    encoder = clone(half).fit(X, y)
    assert half.random_state == 0
    probe = skssl.KNNProbe(n_neighbors=3).fit(encoder.transform(X), y)
    assert results.frame["score"].tolist() == [probe.score(encoder.transform(X), y)]


@pytest.mark.parametrize(("method", "params"), [(skssl.SupCon, {}), (skssl.SimCLR, {"false_negatives": "remove"})])
def test_methods_with_labels_require_y(method, params, X):
    assert quick(method, **params).__sklearn_tags__().target_tags.required
    with pytest.raises(ValueError, match="requires y to be passed"):
        quick(method, **params).fit(X)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        quick(method, **params).fit(X, [0, 1])


def test_simclr_projector_layers(X):
    widths = [built(skssl.SimCLR, X, proj_layers=n, hidden_dim=24)[1].projector for n in (1, 2, 3)]
    shapes = [[layer.weight.shape for layer in mlp if isinstance(layer, nn.Linear)] for mlp in widths]
    assert shapes == [[(128, 128)], [(24, 128), (128, 24)], [(24, 128), (24, 24), (128, 24)]]
    kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert [type(layer) for layer in widths[2]] == [*kinds, *kinds, *kinds[:2]], "BatchNorm ends it"
    assert all(layer.bias is None for mlp in widths for layer in mlp if isinstance(layer, nn.Linear))
    assert all(mlp[-1].weight is not None for mlp in widths), "the last BatchNorm has a scale"


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_corrupt_replaces_a_fixed_share_of_classes(share):
    target = torch.arange(4000) % 5 - 1
    noisy = corrupt(target, share, np.random.default_rng(0))
    wrong = noisy != target
    assert wrong.sum() == share * 3200
    assert (noisy[target < 0] == -1).all()
    assert set(noisy[wrong].tolist()) == {0, 1, 2, 3}
    shift = np.bincount((noisy - target)[wrong].numpy() % 4, minlength=4)
    assert shift[1:] / wrong.sum().item() == pytest.approx([1 / 3] * 3, abs=0.05)
    assert corrupt(torch.zeros(5, dtype=torch.long), share, np.random.default_rng(0)).eq(0).all(), "one class is kept"


def test_supcon_label_noise_is_drawn_once_from_the_seed(X, y):
    estimator = quick(skssl.SupCon, label_noise=0.5, epochs=2).fit(X, y)
    images = as_images(X)
    first = estimator._encode_labels(y, images)
    assert (first != clone(estimator).set_params(label_noise=0.0).fit(X, y)._encode_labels(y, images)).sum() == 20
    assert torch.equal(first, estimator.partial_fit(X, y)._encode_labels(y, images))
    assert not torch.equal(
        first, quick(skssl.SupCon, label_noise=0.5, random_state=1).fit(X, y)._encode_labels(y, images)
    )
