"""Methods with a memory bank: InstDisc, PIRL and rotation decoupling."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import quick
from helpers import built, numpy, random_rows, reached
from sklearn.base import clone
from torch import nn

import skssl
import skssl.datasets
from skssl import Augmentation, losses
from skssl.augment import preset
from skssl.methods import pirl as pirl_module
from skssl.nn.memories import MemoryBank
from skssl.training.objective import Batch


def literal_nce(v, items, own, negatives, t, n_samples, z):
    """Compute the loss and Z, unless it is given, in a loop over images."""
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


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("k", [2, 30])
def test_nce_equals_a_literal_loop(k, fixed):
    n_samples, t = 50, 0.2
    bank = MemoryBank(n_samples, 5, momentum=0.3, fixed_z=fixed).double()
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
        expected, z = literal_nce(rows, items, index.numpy(), negatives, t, n_samples, z if fixed else None)
        assert loss.item() == pytest.approx(expected, rel=1e-5)  # the code's 1e-7 is not ours
        assert bank.log_z.item() == pytest.approx(math.log(z)), "Z is the first batch's, or each batch's own"
        bank.update(index, v)
        for i, row in zip(index, rows, strict=True):
            items[i] = 0.3 * items[i] + 0.7 * row
            items[i] /= np.linalg.norm(items[i])
        np.testing.assert_allclose(bank.items.numpy(), items, rtol=1e-12)
        loss.backward()  # the bank has moved in the meantime
        assert v.grad.abs().sum() > 0
    assert not any(tensor.requires_grad for tensor in bank.buffers())


def test_nce_gradient_at_low_temperatures():
    (z,) = random_rows(1)
    assert torch.autograd.gradcheck(lambda z: losses.nce(z, 20), (z,))
    bank = MemoryBank(8, 4)
    log_p = bank.log_p(torch.eye(4), torch.arange(4), 3, temperature=1e-3)  # exp(1000) is no float32
    assert losses.nce(log_p, 8).isfinite()


def test_memory_bank_scores_agree_and_are_float32():
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
def test_instdisc_loss_uses_the_data_set_index(loss, X):
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


def test_partial_fit_continues_with_the_memory_bank(X):
    first = quick(skssl.InstDisc, normalizer="first", epochs=2, batch_size=20).partial_fit(X)
    z, items = first.net_.module_.bank.log_z.clone(), first.net_.module_.bank.items.clone()
    first.partial_fit(X)
    assert torch.equal(first.net_.module_.bank.log_z, z)
    assert (first.net_.module_.bank.items != items).any(1).all(), "every image was seen"
    with pytest.raises(ValueError, match="expects the same 40 images"):
        first.partial_fit(X[:20])


def test_augmentation_presets_match_the_papers():
    small, large = preset("instdisc", 32)[0], preset("instdisc", 224)[0]
    assert (small.crop_scale, small.jitter, small.hue, small.gray) == ((0.2, 1.0), 1.0, 0.4, 0.2)
    assert (small.flip, large.flip) == (0.0, 0.5), "the code has no flips on CIFAR"


def halves(net, view):
    """Return the two halves of the features of four rotations, each of shape (4, n, d / 2)."""
    turned = torch.cat([torch.rot90(view, k, (2, 3)) for k in range(4)])
    features = net.encoder(turned).reshape(4, len(view), 128)
    return features[..., :64], features[..., 64:]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("loss", ["nce", "nt_xent"])
def test_rotation_decoupling_equals_the_papers_loss(loss, late, X):
    weights = np.random.default_rng(0).random((40, 4))
    estimator, net, batch = built(skssl.RotationDecoupling, X, loss=loss, pu_weights=weights, epochs=10, pu_start=0.75)
    batch = dataclasses.replace(batch, index=torch.arange(39, 27, -1))
    estimator.before_epoch(net, 8 if late else 7, None)
    turning, still = halves(net, batch.views[0])
    mean = still.mean(0)
    turn = 0.0
    for i, image in enumerate(batch.index):
        for k in range(4):
            w = np.float32(weights[image, k]) if late else 1.0
            turn -= w * net.turn_classifier(turning[k, i]).float().log_softmax(0)[k].item() / 48
    distances = [((still[k, i] - mean[i]) ** 2).mean() for k in range(4) for i in range(12)]
    before = net.bank.items.clone() if loss == "nce" else None
    torch.manual_seed(2)
    found = estimator.losses(net, batch)
    assert found["turn"].item() == pytest.approx(turn, rel=1e-5)
    assert found["invariance"].item() == pytest.approx(sum(distances).item() / 48, rel=1e-5)
    assert found["invariance"].requires_grad == (loss == "nce")
    for name, half in [("turn_accuracy", turning), ("still_turn_accuracy", still)]:
        right = net.turn_classifier(half).argmax(2) == torch.arange(4)[:, None]
        assert found[name].item() == pytest.approx(right.float().mean().item())
    v = nn.functional.normalize(net.image_head(mean), dim=1)
    if loss == "nce":
        torch.manual_seed(2)
        negatives = torch.randint(40, (12, 16)).numpy()
        expected, _ = literal_nce(*numpy([v, before]), batch.index.numpy(), negatives, 0.07, 40, None)
        assert torch.equal(net.bank.items[:28], before[:28])
        moved = nn.functional.normalize(before[batch.index] + v, dim=1).detach()
        torch.testing.assert_close(net.bank.items[batch.index], moved)
    else:
        z = [nn.functional.normalize(net.image_head(of), dim=1) for of in still]
        expected = sum(losses.nt_xent(of, v, 0.1).item() for of in z)
        assert not hasattr(net, "bank")
    assert found[loss].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", ["nce", "nt_xent"])
def test_gradients_reach_the_halves_of_the_features(loss, X):
    """The gradient of the rotation loss reaches the first half of the features, that of the image loss the second."""
    estimator, net, batch = built(skssl.RotationDecoupling, X, loss=loss)
    features = []
    net.encoder.register_forward_hook(lambda module, args, output: (output.retain_grad(), features.append(output))[0])
    for name, own in [("turn", slice(0, 64)), (loss, slice(64, 128))]:
        features.clear()
        estimator.losses(net, batch)[name].backward()
        reaches = features[0].grad.abs().sum(0) > 0
        assert reaches[own].any()
        assert reaches.sum() == reaches[own].sum()
        assert reached(net) == {"encoder", "turn_classifier" if name == "turn" else "image_head"}
        net.zero_grad()


def test_rotation_decoupling_heads(X):
    for loss, hidden in [("nce", []), ("nt_xent", [32])]:
        _, net, _ = built(skssl.RotationDecoupling, X, loss=loss)
        for head, width in [(net.turn_classifier, 4), (net.image_head, 128)]:
            assert [layer.out_features for layer in head if isinstance(layer, nn.Linear)] == [*hidden, width]
            assert {type(layer) for layer in head} <= {nn.Linear, nn.ReLU}, "no BatchNorm"
            assert all(layer.bias is not None for layer in head if isinstance(layer, nn.Linear))


def test_nt_xent_gradient_flows_through_the_mean_over_rotations(X):
    estimator, net, batch = built(skssl.RotationDecoupling, X, loss="nt_xent")
    _, still = halves(net, batch.views[0])

    def gradient(loss):
        return torch.autograd.grad(loss, net.encoder.features[0].weight, retain_graph=True)[0]

    found = gradient(estimator.losses(net, batch)["nt_xent"])
    through, stopped = (
        gradient(sum(losses.nt_xent(net.image_head(of), net.image_head(mean), 0.1) for of in still))
        for mean in (still.mean(0), still.mean(0).detach())
    )
    torch.testing.assert_close(found, through)
    assert not torch.allclose(found, stopped)


def test_pu_weights_start_at_epoch_210_of_245(X):
    estimator, net, _ = built(skssl.RotationDecoupling, X, epochs=245)
    for epoch, counts in [(0, 0), (209, 0), (210, 1), (244, 1)]:
        estimator.before_epoch(net, epoch, None)
        assert net.pu_counts == counts


def test_detaching_the_mean_does_not_change_the_gradient():
    still = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    mean = still.mean(0)
    (stopped,) = torch.autograd.grad((still - mean.detach()).square().mean(), still, retain_graph=True)
    (through,) = torch.autograd.grad((still - mean).square().mean(), still)
    torch.testing.assert_close(stopped, through)


def test_pu_weights_belong_to_the_images_of_the_batch(X):
    start = quick(skssl.RotationDecoupling, epochs=4, pu_start=0.5, batch_size=40)
    weighed = clone(start).set_params(pu_weights=np.zeros((40, 4))).fit(X).history_["turn"]
    alike = start.fit(X).history_["turn"]
    assert weighed.tolist()[:2] == alike.tolist()[:2]
    assert weighed.tolist()[2:] == [0, 0], "weights are not normalised"


@pytest.mark.parametrize("weights", [np.ones((39, 4)), np.ones(160), np.full((40, 4), np.nan), -np.ones((40, 4))])
def test_invalid_pu_weights_raise(weights, X):
    with pytest.raises(ValueError, match=r"'pu_weights' parameter .* \(40, 4\)"):
        quick(skssl.RotationDecoupling, pu_weights=weights).fit(X)


def test_rotation_decoupling_requires_even_features_and_square_images(X):
    odd = nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU())
    with pytest.raises(ValueError, match=r"even number of features.* Got 7"):
        quick(skssl.RotationDecoupling, backbone=odd).fit(X)
    with pytest.raises(ValueError, match="square"):
        quick(skssl.RotationDecoupling).fit(X[:, :12])


def test_rotation_decoupling_learns_rotations():
    shapes, _ = skssl.datasets.make_shapes(256, image_size=16, random_state=0)
    history = quick(skssl.RotationDecoupling, epochs=6, batch_size=32, lr=0.02).fit(shapes).history_
    assert history["turn_accuracy"].iloc[-1] > 0.4


@pytest.fixture
def pirl(X):
    """Make an estimator, its net in float32 and a batch of images."""
    estimator, net, batch = built(skssl.PIRL, X, normalizer="first", image_weight=0.3)
    images = torch.from_numpy(X[28:].copy()).permute(0, 3, 1, 2)
    index = torch.arange(28, 40)
    draws = torch.Generator().manual_seed(0)
    return estimator, net.float(), Batch(images, [batch.views[0].float()], index, generator=draws)


def test_pirl_compares_view_and_tiles_with_the_bank(pirl, monkeypatch):
    estimator, net, batch = pirl
    tiles = torch.randn(12, 128, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(type(estimator), "_embed_tiles", lambda self, net, batch: tiles)
    before = net.bank.items.clone()
    image = net.projector(net.encoder(batch.views[0]))
    torch.manual_seed(2)
    negatives = [torch.randint(40, (12, 16)).numpy() for _ in range(2)]
    torch.manual_seed(2)
    found = estimator.losses(net, batch)
    z = None
    for name, v, drawn, weight in zip(found, (image, tiles), negatives, (0.3, 0.7), strict=True):
        rows = unit(v.detach().double().numpy())
        loss, z = literal_nce(rows, before.double().numpy(), range(28, 40), drawn, 0.07, 40, z)  # one Z for both
        assert found[name].item() == pytest.approx(weight * loss, rel=1e-4)
    after = nn.functional.normalize(before[28:] + nn.functional.normalize(image, dim=1), dim=1)
    torch.testing.assert_close(net.bank.items[28:], after.detach(), msg="the image moves its memory, not the tiles")
    assert torch.equal(net.bank.items[:28], before[:28])


def test_pirl_gradients_reach_the_heads(pirl):
    estimator, net, batch = pirl
    heads = {"nce_image": {"projector"}, "nce_tiles": {"tile_projector", "tiles_projector"}}
    for name, own in heads.items():
        estimator.losses(net, batch)[name].backward()
        assert reached(net) == {"encoder"} | own
        net.zero_grad()


def test_pirl_shuffles_uniformly_and_encodes_tiles_in_one_pass(pirl, monkeypatch):
    estimator, net, batch = pirl
    batch = dataclasses.replace(batch, images=batch.images[:1].expand(600, 3, 16, 16))
    numbered = torch.arange(9.0).view(1, 9, 1, 1, 1).expand(600, 9, 3, 4, 4)
    monkeypatch.setattr(pirl_module, "cut_tiles", lambda images, grid: numbered)
    estimator.set_params(augment=Augmentation(jitter=0.0, gray=0.0, mean=(0.0,) * 3, std=(1.0,) * 3))
    seen = []

    class Encoder(nn.Module):
        def forward(self, tiles):
            seen.append(tiles)
            return tiles[:, :1, 0, 0].expand(-1, 128)

    net.encoder = Encoder()
    torch.manual_seed(0)
    out = estimator._embed_tiles(net, batch)
    (tiles,) = seen
    order = tiles[:, 0, 0, 0].view(600, 9)
    assert torch.equal(order.sort(1).values, torch.arange(9.0).expand(600, 9))
    for position in range(9):
        counts = torch.bincount(order[:, position].long(), minlength=9)
        assert counts / 600 == pytest.approx([1 / 9] * 9, abs=0.05)
    heads = net.tile_projector(order[..., None].expand(600, 9, 128)).reshape(600, -1)
    torch.testing.assert_close(out, net.tiles_projector(heads), msg="positions stay apart up to the last layer")


def test_pirl_tile_sizes_match_the_paper(pirl):
    estimator, net, batch = pirl
    shapes = []
    net.encoder.register_forward_hook(lambda module, args, output: shapes.append(args[0].shape))
    for side, tile in [(32, 9), (224, 64), (1, 2)]:
        images = torch.zeros(2, 3, side, side, dtype=torch.uint8)
        net.tile_augmentations = None  # as in a new net
        estimator._embed_tiles(net, dataclasses.replace(batch, images=images))
        assert shapes.pop() == (18, 3, tile, tile)
    estimator.set_params(tile_size=5)._embed_tiles(net, batch)
    assert shapes.pop() == (108, 3, 5, 5)


def test_pirl_validates_the_augmentations_of_its_tiles_once(pirl, monkeypatch):
    estimator, net, batch = pirl
    validated, validate = [], Augmentation.validate
    monkeypatch.setattr(Augmentation, "validate", lambda self: validated.append(self) or validate(self))
    estimator.prepare(net, batch)
    assert validated
    validated.clear()
    estimator.prepare(net, batch)
    assert not validated


def test_pirl_tiles_have_separate_colours_and_the_views_normalisation(pirl):
    estimator, net, batch = pirl
    colour = torch.tensor([200, 100, 50], dtype=torch.uint8).view(3, 1, 1)
    batch = dataclasses.replace(batch, images=colour.repeat(12, 1, 16, 16))
    seen = []
    net.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    estimator._embed_tiles(net, batch)
    for tiles in seen.pop().unflatten(0, (12, 9)):
        assert (tiles.amax((2, 3)) - tiles.amin((2, 3))).max() < 1e-4
        assert len(tiles[:, :, 0, 0].unique(dim=0)) > 5
    still = Augmentation(jitter=0.0, gray=0.0)
    net.tile_augmentations = None  # as in a new net
    estimator.set_params(augment=still)._embed_tiles(net, batch)
    torch.testing.assert_close(seen.pop(), still.normalize(colour[None]).expand(108, 3, 4, 4))


def test_normalizer_batch_keeps_images_apart():
    """With normalizer="first" the embeddings cluster and the loss grows; with "batch" they do not."""
    shapes, _ = skssl.datasets.make_shapes(256, image_size=16, random_state=0)
    estimator = quick(skssl.InstDisc, epochs=6, batch_size=32, n_negatives=64)
    own = estimator.fit(shapes).history_["loss"]
    first = clone(estimator).set_params(normalizer="first").fit(shapes).history_["loss"]
    assert own.iloc[-1] < own.iloc[0]
    assert first.iloc[-1] > 2 * own.iloc[-1]


def test_pirl_tiles_are_not_cropped_again(pirl):
    estimator, net, batch = pirl
    maps = np.ones((40, 16, 16))
    estimator.set_params(augment=Augmentation(saliency=maps, blur=0.5))
    assert estimator._embed_tiles(net, batch).shape == (12, 128)
