"""Methods with labels, and those that remember every image: SupCon, InstDisc, PIRL, rotation decoupling."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import quick
from sklearn.base import clone
from test_losses import cosine, numpy, random_rows
from test_methods import built, reached
from torch import nn

import skssl
from skssl import losses
from skssl.augment import preset
from skssl.images import as_images
from skssl.methods.supcon import corrupt
from skssl.nn import MemoryBank

LABELS = torch.tensor([0, 1, 0, -1, 2, -1])


# Labels


@pytest.mark.parametrize("views", [1, 2, 3])
def test_sup_con_is_the_literal_double_sum(views):
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
    assert len(of_anchor) == (2 if views == 1 else 6 * views), "only single views can be without a positive"
    loss = losses.sup_con(torch.stack(rows, 1), LABELS, 0.3)
    assert loss.item() == pytest.approx(np.mean(of_anchor), rel=1e-12)
    assert torch.autograd.gradcheck(lambda *rows: losses.sup_con(torch.stack(rows, 1), LABELS, 0.3), rows)


def test_sup_con_of_single_views_takes_rows_and_is_zero_without_positives():
    (z,) = random_rows(1)
    assert torch.equal(losses.sup_con(z, LABELS), losses.sup_con(z[:, None], LABELS))
    alone = losses.sup_con(z, torch.arange(6))
    alone.backward()
    assert alone.item() == 0
    assert torch.equal(z.grad, torch.zeros_like(z))


def test_sup_con_without_labels_is_nt_xent_without_a_factor():
    z1, z2 = random_rows(2)
    unknown = torch.full((6,), -1)
    loss = losses.sup_con(torch.stack([z1, z2], 1), unknown, 0.1)
    assert torch.isclose(loss, losses.nt_xent(z1, z2, 0.1), rtol=1e-12)


def test_nt_xent_forgets_false_negatives():
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
    assert losses.nt_xent(z1, z2, 0.3, torch.zeros(n, dtype=torch.long)).item() == 0, "no negative is left"


def test_supcon_compares_both_views_of_a_batch(X):
    estimator, net, batch = built(skssl.SupCon, X)
    batch = dataclasses.replace(batch, target=torch.arange(12) % 4 - 1)
    z1, z2 = (net.projector(net.encoder(torch.cat(batch.views)))).chunk(2)
    found = estimator.losses(net, batch)["sup_con"]
    torch.testing.assert_close(found, losses.sup_con(torch.stack([z1, z2], 1), batch.target, estimator.temperature))
    assert [type(layer) for layer in net.projector] == [nn.Linear, nn.ReLU, nn.Linear], "no BatchNorm"
    found.backward()
    assert reached(net) == {"encoder", "projector"}


def test_simclr_removes_what_is_known(X, y):
    estimator, net, batch = built(skssl.SimCLR, X, false_negatives="remove")
    batch = dataclasses.replace(batch, target=torch.arange(12) % 4 - 1)
    z1, z2 = net.project(batch.views)
    found = estimator.losses(net, batch)["nt_xent"]
    torch.testing.assert_close(found, losses.nt_xent(z1, z2, estimator.temperature, batch.target))
    assert found < losses.nt_xent(z1, z2, estimator.temperature)
    removed = quick(skssl.SimCLR, false_negatives="remove").fit(X, y).transform(X)
    kept = quick(skssl.SimCLR).fit(X).transform(X)
    assert not np.array_equal(removed, kept)
    assert np.array_equal(quick(skssl.SimCLR).fit(X, y).transform(X), kept), "y is ignored"
    unknown = quick(skssl.SimCLR, false_negatives="remove").fit(X, np.full(40, -1)).transform(X)
    np.testing.assert_allclose(unknown, kept, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("method", "params"), [(skssl.SupCon, {}), (skssl.SimCLR, {"false_negatives": "remove"})])
def test_methods_with_labels_need_them(method, params, X):
    assert quick(method, **params).__sklearn_tags__().target_tags.required
    with pytest.raises(ValueError, match="requires y to be passed"):
        quick(method, **params).fit(X)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        quick(method, **params).fit(X, [0, 1])


def test_simclr_v2_has_a_deeper_head(X):
    widths = [built(skssl.SimCLR, X, proj_layers=n, hidden_dim=24)[1].projector for n in (1, 2, 3)]
    shapes = [[layer.weight.shape for layer in mlp if isinstance(layer, nn.Linear)] for mlp in widths]
    assert shapes == [[(128, 128)], [(24, 128), (128, 24)], [(24, 128), (24, 24), (128, 24)]]


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_label_noise_is_a_fixed_share_of_wrong_classes(share):
    target = torch.arange(4000) % 5 - 1
    noisy = corrupt(target, share, np.random.default_rng(0))
    wrong = noisy != target
    assert wrong.sum() == share * 3200
    assert (noisy[target < 0] == -1).all()
    assert set(noisy[wrong].tolist()) == {0, 1, 2, 3}
    shift = np.bincount((noisy - target)[wrong].numpy() % 4, minlength=4)
    assert shift[1:] / wrong.sum().item() == pytest.approx([1 / 3] * 3, abs=0.05)
    assert corrupt(torch.zeros(5, dtype=torch.long), share, np.random.default_rng(0)).eq(0).all(), "one class only"


def test_label_noise_is_drawn_once_from_the_seed(X, y):
    estimator = quick(skssl.SupCon, label_noise=0.5, epochs=2).fit(X, y)
    images = as_images(X)
    first = estimator._target(y, images)
    assert (first != clone(estimator).set_params(label_noise=0.0).fit(X, y)._target(y, images)).sum() == 20
    assert torch.equal(first, estimator.partial_fit(X, y)._target(y, images))
    assert not torch.equal(first, quick(skssl.SupCon, label_noise=0.5, random_state=1).fit(X, y)._target(y, images))


# The memory bank


def literal_nce(v, items, own, negatives, t, n_samples, z):
    """The loss and the formula's Z (where none is given), a loop over images."""
    total = 0.0
    p = [[math.exp(v[i] @ items[j] / t) for j in [own[i], *negatives[i]]] for i in range(len(v))]
    z = n_samples * np.mean(p) if z is None else z
    share = len(negatives[0]) / n_samples
    for row in p:
        first, *others = (value / z for value in row)
        total -= math.log(first / (first + share + 1e-7))
        total -= sum(math.log(share / (other + share + 1e-7)) for other in others)
    return total / len(v), z


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("k", [2, 30])
def test_nce_of_a_bank_is_the_literal_loop(k):
    n_samples, t = 50, 0.2
    bank = MemoryBank(n_samples, 5, momentum=0.3).double()
    items = bank.items.clone().numpy()
    np.testing.assert_allclose(np.linalg.norm(items, axis=1), 1, rtol=1e-6)
    z = None
    for step in range(3):
        (v,) = random_rows(1, seed=step)
        index = torch.randperm(n_samples, generator=torch.Generator().manual_seed(step))[:6]
        torch.manual_seed(step)
        loss = losses.nce(bank.log_p(v, index, k, t), n_samples)
        torch.manual_seed(step)
        negatives = torch.randint(n_samples, (6, k)).numpy()
        rows = unit(v.detach().numpy())
        expected, z = literal_nce(rows, items, index.numpy(), negatives, t, n_samples, z)
        assert loss.item() == pytest.approx(expected, rel=1e-5)  # the code's 1e-7 is not ours
        assert bank.log_z.item() == pytest.approx(math.log(z)), "Z is the first batch's"
        bank.update(index, v)
        for i, row in zip(index, rows, strict=True):
            items[i] = 0.3 * items[i] + 0.7 * row
            items[i] /= np.linalg.norm(items[i])
        np.testing.assert_allclose(bank.items.numpy(), items, rtol=1e-12)
        loss.backward()  # the bank has moved in the meantime
        assert v.grad.abs().sum() > 0
    assert not any(tensor.requires_grad for tensor in bank.buffers())


def test_nce_is_differentiable_and_holds_at_low_temperatures():
    (z,) = random_rows(1)
    assert torch.autograd.gradcheck(lambda z: losses.nce(z, 20), (z,))
    bank = MemoryBank(8, 4)
    log_p = bank.log_p(torch.eye(4), torch.arange(4), 3, temperature=1e-3)  # exp(1000) is no float32
    assert losses.nce(log_p, 8).isfinite()


def test_the_banks_scores_are_the_same_by_either_way_and_stay_in_float32():
    v = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    bank = MemoryBank(200, 4)
    index = torch.tensor([[5, 199], [0, 0], [7, 3]])
    with torch.autocast("cpu", torch.bfloat16):
        few, all_of_them = bank.scores(v, index), bank.scores(v)
        half = bank.scores(v.bfloat16())
    assert {few.dtype, all_of_them.dtype, half.dtype} == {torch.float32}
    torch.testing.assert_close(few, all_of_them.gather(1, index))
    torch.testing.assert_close(bank.scores(v, index.repeat(1, 10)), few.repeat(1, 10))
    torch.testing.assert_close(all_of_them, nn.functional.cosine_similarity(v[:, None], bank.items, dim=2))


@pytest.mark.parametrize("loss", ["nce", "softmax"])
def test_instdisc_tells_images_by_their_data_set_index(loss, X):
    estimator, net, batch = built(skssl.InstDisc, X, loss=loss)
    batch = dataclasses.replace(batch, index=torch.arange(39, 27, -1))
    before = net.bank.items.clone()
    v = nn.functional.normalize(net.projector(net.encoder(batch.views[0])), dim=1)
    if loss == "nce":
        torch.manual_seed(2)
        negatives = torch.randint(40, (12, 16))
        expected, _ = literal_nce(*numpy([v, before]), batch.index.numpy(), negatives.numpy(), 0.1, 40, None)
    else:
        p = (v @ before.T / 0.1).softmax(1)
        expected = -p[torch.arange(12), batch.index].log().mean().item()
    torch.manual_seed(2)
    found = estimator.losses(net, batch)[loss]
    assert found.item() == pytest.approx(expected, rel=1e-5)
    found.backward()
    assert reached(net) == {"encoder", "projector"}
    after = nn.functional.normalize(before[batch.index] + v, dim=1)
    torch.testing.assert_close(net.bank.items[batch.index], after.detach())
    assert torch.equal(net.bank.items[:28], before[:28])


def test_the_bank_goes_on_where_it_stopped(X):
    first = quick(skssl.InstDisc, epochs=2, batch_size=20).partial_fit(X)
    z, items = first.net_.module_.bank.log_z.clone(), first.net_.module_.bank.items.clone()
    first.partial_fit(X)
    assert torch.equal(first.net_.module_.bank.log_z, z)
    assert (first.net_.module_.bank.items != items).any(1).all(), "every image was seen"
    with pytest.raises(ValueError, match="needs the 40 images that it began with"):
        first.partial_fit(X[:20])


def test_presets_are_the_papers():
    small, large = preset("instdisc", 32)[0], preset("instdisc", 224)[0]
    assert (small.crop_scale, small.jitter, small.hue, small.gray) == ((0.2, 1.0), 1.0, 0.4, 0.2)
    assert (small.flip, large.flip) == (0.0, 0.5), "the code has no flips on CIFAR"
