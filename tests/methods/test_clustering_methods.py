"""SwAV, DeepCluster and DeepCluster v2 against literal versions."""

import pickle

import numpy as np
import pytest
import torch
from conftest import quick
from helpers import built, reached
from skorch.callbacks import Callback
from torch.nn import functional as F

import skssl
from skssl import MultiCrop, losses
from skssl.images import as_images
from skssl.methods.deepcluster import sobel_filter
from skssl.nn.clustering import k_means


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_swav_predicts_the_assignments_of_the_first_two_crops(X):
    estimator, net, batch = built(skssl.SwAV, X, augment=MultiCrop(n_local=2), queue_length=0)
    batch.views += [random(12, 3, 7, 7, seed=seed) for seed in (1, 2)]
    with torch.no_grad():
        net.prototypes.mul_(3.0)  # an optimiser's step leaves them of any length
    found = estimator.losses(net, batch)["swav"]
    torch.testing.assert_close(net.prototypes.norm(dim=1), torch.ones(6).double())
    h = [net.encoder(torch.cat(batch.views[:2])), net.encoder(torch.cat(batch.views[2:]))]
    z = F.normalize(net.projector(torch.cat(h)), dim=1).chunk(4)  # the head's BatchNorm sees all crops
    scores = [one @ net.prototypes.T for one in z]
    codes = [losses.sinkhorn(one, 0.03, 3) for one in scores[:2]]
    expected = losses.swapped_prediction(torch.stack(scores), torch.stack(codes), 0.1)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert reached(net) == {"encoder", "projector", "prototypes"}
    history = quick(skssl.SwAV, augment=MultiCrop(n_local=2)).fit(X).history_
    assert np.isfinite(history["swav"]).all()


def test_swav_queue_is_used_when_full_and_updated_after_scoring(X):
    estimator, net, batch = built(skssl.SwAV, X, queue_length=20, queue_start=1)
    queue = [random(0, 8), random(0, 8)]
    used = []
    for step in range(5):
        net.phase = estimator.phase(net, step)
        used.append(net.phase.queued)
        net.prototypes.data = random(6, 8, seed=step)  # the scores of what is queued are those of today
        found = estimator.losses(net, batch)["swav"]
        prototypes = F.normalize(net.prototypes.detach(), dim=1)
        z = [F.normalize(one, dim=1) for one in net.project(batch.views)]
        scores = torch.stack(z) @ prototypes.T
        past = [items @ prototypes.T if net.phase.queued else scores[0, :0] for items in queue]
        codes = [losses.sinkhorn(torch.cat([a, b]), 0.03, 3)[-12:] for a, b in zip(past, scores, strict=True)]
        torch.testing.assert_close(found, losses.swapped_prediction(scores, torch.stack(codes), 0.1))
        queue = [torch.cat([items, new.detach()])[-20:] for items, new in zip(queue, z, strict=True)]
        batch.views = [view + 0.1 for view in batch.views]
    assert used == [False, False, True, True, True]  # full after two batches, and not before its start
    assert not estimator.set_params(queue_start=4).phase(net, 3).queued


def test_swav_prototypes_are_frozen_for_whole_epochs(X):
    params = {"epochs": 2, "warmup_epochs": 0, "freeze_prototypes": 1, "queue_length": 0, "weight_decay": 0.1}
    estimator = quick(skssl.SwAV, **params)
    start = quick(skssl.SwAV, **params | {"epochs": 0}).fit(X).net_.module_.prototypes.detach().clone()
    first = estimator.partial_fit(X).net_.module_
    torch.testing.assert_close(first.prototypes.detach(), start)
    assert first.prototypes.requires_grad
    assert not estimator.net_.optimizer_.state[first.prototypes]["momentum_buffer"].any()
    second = estimator.partial_fit(X).net_.module_.prototypes.detach()
    assert not torch.allclose(F.normalize(second, dim=1), start)


def test_multi_crop_is_refused_by_methods_without_support(X):
    with pytest.raises(TypeError, match="SimCLR compares views of one size"):
        quick(skssl.SimCLR, augment=MultiCrop()).fit(X)
    with pytest.raises(ValueError, match="'epsilon' parameter of SwAV must be a float"):
        quick(skssl.SwAV, epsilon=0).fit(X)


def test_deepcluster_v2_compares_all_crops_with_the_clusters_of_their_image(X):
    estimator, net, batch = built(skssl.DeepClusterV2, X, augment=MultiCrop(n_local=1))
    batch.views += [random(12, 3, 7, 7, seed=1)]
    net.assignments = torch.randint(6, (3, 40))
    kept = net.embeddings.clone()
    for _ in range(3):
        batch.index = torch.randperm(40)[:12]
        batch.views = [view + 0.1 for view in batch.views]
        found = estimator.losses(net, batch)["deepcluster"]
        h = [net.encoder(torch.cat(batch.views[:2])), net.encoder(batch.views[2])]
        z = F.normalize(net.projector(torch.cat(h)), dim=1).chunk(3)
        total = 0.0
        for head in range(3):
            for view in range(3):
                for row, i in enumerate(batch.index):
                    p = (net.prototypes[head] @ z[view][row] / 0.1).softmax(0)
                    total = total - p[net.assignments[head, i]].log() / (3 * 3 * 12)
        torch.testing.assert_close(found, total)
        for view in range(2):  # the small crop is not kept
            kept[view, batch.index] = z[view].detach()
        torch.testing.assert_close(net.embeddings, kept)
    assert not net.embeddings.requires_grad
    before = net.prototypes.clone()
    found.backward()
    assert reached(net) == {"encoder", "projector"}
    assert torch.equal(net.prototypes, before)


def test_deepcluster_v2_clusters_the_views_in_turn_and_never_trains_the_prototypes(X):
    estimator = quick(skssl.DeepClusterV2, epochs=2).partial_fit(X)
    net = estimator.net_.module_
    assert "prototypes" not in dict(net.named_parameters())
    kept, asked = net.embeddings.clone(), []
    torch.testing.assert_close(kept.norm(dim=2), torch.ones(2, 40))
    torch.manual_seed(3)
    estimator.before_epoch(net, 1, asked.append)
    assert not asked, "the images are encoded before the first epoch only"
    torch.manual_seed(3)
    for head, crop in enumerate([0, 1, 0]):
        centers = F.normalize(k_means(kept[crop], 6, 10)[0], dim=1)
        torch.testing.assert_close(net.prototypes[head], centers)
        assert torch.equal(net.assignments[head], (kept[crop] @ centers.T).argmax(1))
    assert not torch.equal(net.prototypes[0], net.prototypes[2]), "a start of its own for each head"
    assert all(len(row.unique()) > 3 for row in net.assignments)


def test_deepcluster_v2_embeds_all_images_before_the_first_epoch(X):
    estimator, net, _ = built(skssl.DeepClusterV2, X, n_prototypes=1000)
    z = random(40, 8)
    estimator.before_epoch(net, 0, lambda module: z if isinstance(module[0], type(net.encoder)) else None)
    torch.testing.assert_close(net.embeddings, F.normalize(z, dim=1).expand(2, -1, -1))
    assert net.prototypes.shape == (3, 40, 8)  # no more than there are images
    with pytest.raises(ValueError, match=r"stores a value for every training image.* Got 20"):
        quick(skssl.DeepClusterV2).partial_fit(X).partial_fit(X[:20])


def test_deepcluster_clusters_whitened_directions(X):
    estimator, net, _ = built(skssl.DeepCluster, X, n_clusters=3, n_components=2)
    angle = torch.tensor([0.0, 2.1, 4.2]).repeat(14)[:40]
    length = 14 - torch.arange(40) // 3
    flat = torch.stack([angle.cos(), angle.sin()], 1).double() * length[:, None] + 0.01 * random(40, 2, seed=1)
    features = torch.cat([100 * flat[:, :1], flat[:, 1:], 1e-3 * random(40, 126, seed=2)], 1)  # noise beyond two
    net.assignment.copy_(torch.arange(40) % 2)
    torch.manual_seed(0)
    order = estimator.before_epoch(net, 0, lambda module: features.float() if module is net.encoder else None)
    label = net.assignment
    for k in range(3):
        assert len(label[k::3].unique()) == 1, "lengths and scales of the features do not matter, directions do"
    assert len(label.unique()) == 3
    assert net.nmi.item() < 0.1
    assert (label[order].bincount() - 40 / 3).abs().max() <= 2
    torch.manual_seed(0)
    estimator.before_epoch(net, 1, lambda module: features.float())
    assert net.nmi.item() == pytest.approx(1.0)


def test_deepcluster_whitens_then_normalises_features_of_either_sign(X, monkeypatch):
    seen = []
    monkeypatch.setattr("skssl.methods.deepcluster.k_means", lambda x, *args: seen.append(x) or k_means(x, *args))
    estimator, net, _ = built(skssl.DeepCluster, X, n_components=3)
    features = random(40, 6) @ random(6, 6, seed=1) + 5
    estimator.before_epoch(net, 0, lambda module: features)
    centred = features - features.mean(0)
    variance, axes = torch.linalg.eigh(centred.T @ centred / 39)  # ascending
    white = F.normalize(centred @ axes[:, -3:] / variance[-3:].sqrt(), dim=1)
    torch.testing.assert_close(seen[0] @ seen[0].T, white @ white.T)  # axes may be mirrored


def test_deepcluster_predicts_the_clusters_with_a_new_top_layer_each_epoch(X):
    estimator, net, batch = built(skssl.DeepCluster, X)
    net.assignment = torch.randint(6, (40,))
    batch.index = torch.randint(40, (12,))
    found = estimator.losses(net, batch)
    scores = net.top_layer(net.encoder(batch.views[0])).float()
    target = torch.stack([net.assignment[i] for i in batch.index])
    torch.testing.assert_close(found["deepcluster"], F.cross_entropy(scores, target))
    found["deepcluster"].backward()
    assert reached(net) == {"encoder", "top_layer"}
    net.top_layer.weight.data.fill_(5.0)
    net.top_layer.bias.data.fill_(5.0)
    estimator.before_epoch(net, 1, lambda module: random(40, 128).float())
    assert net.top_layer.weight.std().item() == pytest.approx(0.01, rel=0.2)
    assert not net.top_layer.bias.any()
    assert len(quick(skssl.DeepCluster, n_clusters=100).fit(X).net_.module_.top_layer.weight) == 40


@pytest.mark.parametrize("optimizer", ["sgd", "lars", "adamw"])
def test_optimiser_state_of_the_top_layer_is_reset(optimizer, X):
    estimator = quick(skssl.DeepCluster, optimizer=optimizer, lr=0.01).fit(X)
    net, seen = estimator.net_.module_, {}

    class Look(Callback):
        def on_batch_begin(self, trainer, **kwargs):
            for name in ("top_layer", "encoder"):
                weight = next(trainer.module_.get_submodule(name).parameters())
                state = trainer.optimizer_.state[weight].values()
                seen.setdefault(name, [value.abs().sum().item() for value in state if torch.is_tensor(value)])

    assert any(value.any() for value in estimator.net_.optimizer_.state[net.top_layer.weight].values())
    estimator.net_.callbacks_.append(("look", Look()))
    estimator.partial_fit(X)
    assert not any(seen["top_layer"])
    assert all(seen["encoder"])
    assert np.isfinite(estimator.history_["loss"]).all()


def test_an_epoch_uses_the_chosen_images(X):
    seen = []

    class Look(Callback):
        def on_batch_begin(self, trainer, batch, **kwargs):
            seen.append(batch.index)

    drawn = []
    estimator = quick(skssl.DeepCluster, callbacks=[Look()], batch_size=20)
    trainer = estimator._make_trainer(as_images(X))
    method = trainer.module_.method
    before_epoch = method.before_epoch
    method.before_epoch = lambda *args: drawn.append(before_epoch(*args)) or drawn[-1]
    trainer.fit_loop(as_images(X), None, epochs=1)
    assert torch.equal(torch.cat(seen), drawn[0])
    assert len(drawn[0].unique()) < 40


def test_sobel_filter_returns_grey_and_gradients(X):
    image = torch.zeros(1, 3, 5, 6)
    image[..., 3:] = torch.tensor([3.0, 0.0, 6.0])[None, :, None, None]  # an edge from left to right
    gray, columns, rows = sobel_filter(None, (image,))[0]
    assert torch.equal(gray, image.mean(1)[0])
    assert torch.equal(columns, torch.tensor([0.0, 0, 12, 12, 0, 0]).expand(5, 6))
    assert not rows.any()
    turned = sobel_filter(None, (image.transpose(2, 3),))[0]
    assert torch.equal(turned[2], columns.T)
    estimator = quick(skssl.DeepCluster, sobel=True, precision="float32").fit(X)
    views = estimator.net_.augmentations[0].normalize(torch.from_numpy(X.copy()).permute(0, 3, 1, 2))
    with torch.no_grad():
        expected = estimator.encoder_.features(sobel_filter(None, (views,))).mean((2, 3))
    np.testing.assert_allclose(estimator.transform(X), expected, rtol=1e-4, atol=1e-5)
    loaded = pickle.loads(pickle.dumps(estimator))
    assert np.array_equal(loaded.transform(X), estimator.transform(X))
    assert quick(skssl.DeepCluster, sobel=True).fit(X[..., 0]).encoder_.features[0].in_channels == 3
    assert quick(skssl.DeepCluster, sobel=False).fit(X[..., 0]).encoder_.features[0].in_channels == 1
