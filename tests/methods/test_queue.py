"""Methods with a queue of keys: MoCo, LeOCLR, DenseCL and PCL."""

import itertools
import math

import numpy as np
import pytest
import torch
from conftest import quick
from helpers import Look, built, drift, reached
from torch import nn

import skssl
from skssl import losses
from skssl.augment import Augmentation
from skssl.images import as_images
from skssl.nn.batchnorm import sync_batchnorm
from skssl.nn.clustering import concentration


def unit(x):
    return nn.functional.normalize(x, dim=1)


def fourfold(X):
    """Repeat the images four times, enough for a queue of 40."""
    return np.tile(X, (4, 1, 1, 1))


def literal_info_nce(q, k, negatives, temperature):
    """Compute equation 1 of MoCo in float64, one query at a time."""
    q, k, negatives = (unit(x.detach()) for x in (q, k, negatives))
    total = 0.0
    for i in range(len(q)):
        positive = math.exp(float(q[i] @ k[i]) / temperature)
        total -= math.log(positive / (positive + sum(math.exp(float(q[i] @ n) / temperature) for n in negatives)))
    return total / len(q)


def moved(queue, keys, place):
    """Return the items of a queue after adding keys one by one."""
    items = queue.clone()
    for key in unit(keys.detach()):
        items[place % len(items)] = key.to(items.dtype)
        place += 1
    return items


@pytest.mark.parametrize("method", [skssl.MoCo, skssl.DenseCL])
def test_compiled_losses_are_one_graph_with_one_pass(method, X):
    (_, net, batch), (_, eager, _) = (built(method, X, bn_splits=4) for _ in range(2))
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(net, backend=count, fullgraph=True)
    for _ in range(2):
        torch.manual_seed(0)
        with sync_batchnorm(net, groups=True):
            found = compiled(batch)["loss"]
        torch.manual_seed(0)
        torch.testing.assert_close(found, eager(batch)["loss"], rtol=1e-9, atol=1e-9)
    assert len(graphs) == 1
    layers = sum(isinstance(part, nn.Conv2d) for part in net.encoder.modules())
    passes = len(batch.views)  # each through the network or through its copy
    assert sum("conv2d" in str(node.target) for node in graphs[0].graph.nodes) == passes * layers
    for (name, a), b in zip(eager.named_buffers(), net.buffers(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("symmetric", [False, True])
def test_moco_loss_uses_the_queue_before_the_update(symmetric, X):
    estimator, net, batch = built(skssl.MoCo, fourfold(X), bn_splits=1, symmetric=symmetric, queue_size=30)
    drift(net.target)
    place = 0
    for _ in range(3):  # 36 or 72 keys go through a queue of 30
        q = [net.projector(net.encoder(v)) for v in batch.views]
        k = [net.target(v) for v in batch.views]
        old = net.queue.items.clone()
        expected = literal_info_nce(q[0], k[1], old, 0.1)
        expected += literal_info_nce(q[1], k[0], old, 0.1) if symmetric else 0.0
        found = estimator.losses(net, batch)["info_nce"]
        assert found.item() == pytest.approx(expected, rel=1e-9)
        keys = torch.cat([k[1], k[0]]) if symmetric else k[1]
        torch.testing.assert_close(net.queue.items, moved(old, keys, place))
        place += len(keys)
        batch.views.reverse()
    found.backward()
    assert reached(net) == {"encoder", "projector"}
    torch.testing.assert_close(net.queue.items.norm(dim=1), torch.ones(30, dtype=torch.float64))


@pytest.mark.parametrize("method", [skssl.MoCo, skssl.LeOCLR, skssl.DenseCL, skssl.PCL])
def test_queues_receive_the_keys_of_every_step(method, X):
    look = Look(lambda net: [q.items.clone() for name, q in net.named_children() if name.endswith("queue")])
    quick(method, epochs=2, batch_size=12, callbacks=[look]).fit(fourfold(X)[:120])
    assert len(look.seen) == 1 + 2 * 10
    for old, new in itertools.pairwise(look.seen):
        changed = [(a != b).any(1).sum() for a, b in zip(old, new, strict=True)]
        assert changed == ([24] if method is skssl.LeOCLR else [12, 12] if method is skssl.DenseCL else [12])


def test_moco_gradient_flows_through_queries_only(X):
    estimator, net, batch = built(skssl.MoCo, X, bn_splits=1)
    old, k = net.queue.items.clone(), net.target(batch.views[1]).detach()
    estimator.losses(net, batch)["info_nce"].backward()
    found = [p.grad.clone() for p in net.encoder.parameters()]
    net.zero_grad()
    losses.info_nce(net.projector(net.encoder(batch.views[0])), k, old, 0.1).backward()
    for a, p in zip(found, net.encoder.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad)
    assert all(p.grad is None for p in net.target.parameters())


def test_keys_are_normalised_in_shuffled_groups_and_returned_in_order(X):
    estimator, net, batch = built(skssl.MoCo, X, bn_splits=3)
    view = batch.views[1]
    torch.manual_seed(4)
    (found,) = estimator.keys(net, view)
    torch.manual_seed(4)
    order = torch.randperm(12)
    assert order.tolist() != list(range(12))
    expected = torch.empty_like(found)
    for group in order.split(4):
        expected[group] = net.target(view[group]).detach()
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, net.target(view)), "plain BatchNorm sees the whole batch"
    (queries,) = estimator.queries(net, view)
    torch.testing.assert_close(queries[4:8], net.projector(net.encoder(view[4:8])))


def test_moco_heads(X):
    v1, v2 = (quick(skssl.MoCo, proj_layers=n)._make_trainer(as_images(X)).module_ for n in (1, 2))
    assert [type(layer).__name__ for layer in v1.projector] == ["Linear"]
    assert [type(layer).__name__ for layer in v2.projector] == ["Linear", "ReLU", "Linear"]
    assert all(layer.bias is not None for layer in (v1.projector[0], v2.projector[0], v2.projector[2]))
    assert [(layer.in_features, layer.out_features) for layer in list(v2.projector)[::2]] == [(128, 128), (128, 128)]
    assert v2.queue.items.shape == (10, 128), "at most a quarter of the data set"
    torch.testing.assert_close(v2.queue.items.norm(dim=1), torch.ones(10))


def test_queue_that_is_cut_is_said_with_verbose(X, capsys):
    quick(skssl.MoCo, queue_size=10).set_params(verbose=1)._make_trainer(as_images(X))
    quick(skssl.MoCo, queue_size=11)._make_trainer(as_images(X))
    skssl.LeOCLR(backbone="convnet", encoder="end-to-end", verbose=1)._make_trainer(as_images(X))
    assert "queue" not in capsys.readouterr().out
    quick(skssl.MoCo, queue_size=11).set_params(verbose=1)._make_trainer(as_images(X))
    assert "The queue holds 10 keys, a quarter of the 40 images, instead of queue_size=11." in capsys.readouterr().out


def test_leoclr_compares_crops_with_the_whole_image_only(X):
    estimator, net, batch = built(skssl.LeOCLR, fourfold(X), bn_splits=1, queue_size=30)
    drift(net.target)
    for step in range(3):  # 72 keys go through a queue of 30
        u = net.projector(net.encoder(batch.views[0]))
        k = [net.target(v) for v in batch.views[1:]]
        old = net.queue.items.clone()
        found = estimator.losses(net, batch)["info_nce"]
        assert found.item() == pytest.approx(sum(literal_info_nce(u, v, old, 0.2) for v in k), rel=1e-9)
        torch.testing.assert_close(net.queue.items, moved(old, torch.cat(k), 24 * step))
        batch.views = [*batch.views[1:], batch.views[0]]
    found.backward()
    assert reached(net) == {"encoder", "projector"}
    gradient = net.encoder.features[0].weight.grad.clone()
    net.zero_grad()
    sum(losses.info_nce(u, v.detach(), old, 0.2) for v in k).backward()
    torch.testing.assert_close(gradient, net.encoder.features[0].weight.grad)  # of both terms


def test_leoclr_end_to_end_gradient_flows_through_the_crops(X):
    estimator, net, batch = built(skssl.LeOCLR, X, encoder="end-to-end")
    assert not hasattr(net, "target")
    assert not hasattr(net, "queue")
    found = estimator.losses(net, batch)["nt_xent"]
    u, v1, v2 = net.projector(net.encoder(torch.cat(batch.views))).chunk(3)
    torch.testing.assert_close(found, losses.nt_xent(u, v1, 0.2) + losses.nt_xent(u, v2, 0.2))
    z = [torch.randn(12, 128, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    net.project = lambda views: z
    estimator.losses(net, batch)["nt_xent"].backward()
    assert all(x.grad.abs().sum() > 0 for x in z)
    assert quick(skssl.LeOCLR, encoder="end-to-end").fit(X).transform(X).shape == (40, 128)


def test_leoclr_first_view_is_not_cropped(X):
    trainer = quick(skssl.LeOCLR, batch_size=40)._make_trainer(as_images(X))
    first, *crops = trainer.augmentations
    assert first.crop_scale is None
    assert [view.crop_scale for view in crops] == [(0.08, 1.0)] * 2
    assert (first.flip, first.jitter, first.gray) == (crops[0].flip, crops[0].jitter, crops[0].gray) == (0.5, 0.8, 0.2)
    still = {"jitter": 0.0, "gray": 0.0}
    images = as_images(X).read(torch.arange(40))
    view = first.set_params(**still)(images, torch.Generator().manual_seed(0))
    pairs = zip(view, first.normalize(images), strict=True)
    same = [torch.allclose(a, b, atol=1e-5) or torch.allclose(a, b.flip(2), atol=1e-5) for a, b in pairs]
    assert all(same), "the view is flipped only"


@pytest.mark.parametrize(
    "augment", ["leoclr", "simclr", "byol", "rotnet", Augmentation(crop_scale=(0.2, 0.6), saliency=np.ones((40, 2, 2)))]
)
def test_leoclr_crops_the_first_view_only_if_asked(augment):
    whole, second, third = skssl.LeOCLR(augment=augment)._augmentations(32)
    assert (whole.crop_scale, whole.crop_padding, whole.saliency) == (None, 0, None)
    whole.validate()
    cropped = skssl.LeOCLR(augment=augment, crop_original=True)._augmentations(32)[0]
    for name in ("crop_scale", "crop_padding", "saliency"):
        assert getattr(cropped, name) is getattr(second, name) is not None or name == "saliency"
    color = ("flip", "jitter", "gray", "saturation", "solarize")
    assert all(getattr(whole, name) == getattr(cropped, name) for name in color)
    assert third.crop_scale == second.crop_scale


def test_leoclr_uses_a_sequence_of_augmentations_as_given():
    given = [Augmentation(crop_scale=(0.5, 1.0)), Augmentation(), Augmentation()]
    for crop_original in (False, True):
        assert skssl.LeOCLR(augment=given, crop_original=crop_original)._augmentations(32) == given


def literal_dense(q, k, q_map, k_map, negatives, temperature):
    """Compute equation 2 of DenseCL one cell at a time, with the keys that equation 4 selects."""
    q_map, k_map = q_map.detach(), k_map.detach()
    n, _, h, w = q.shape
    rows, keys = [], []
    for i in range(n):
        for y in range(h):
            for x in range(w):
                cells = [(v, u) for v in range(h) for u in range(w)]
                nearest = [
                    float(nn.functional.cosine_similarity(q_map[i, :, y, x], k_map[i, :, v, u], 0)) for v, u in cells
                ]
                v, u = cells[nearest.index(max(nearest))]
                rows.append(q[i, :, y, x])
                keys.append(k[i, :, v, u])
    return literal_info_nce(torch.stack(rows), torch.stack(keys), negatives, temperature)


def test_dense_info_nce_equals_a_literal_loop():
    draw = torch.Generator().manual_seed(0)
    q, k, q_map, k_map = (
        torch.randn(3, d, 2, 3, dtype=torch.float64, generator=draw, requires_grad=True) for d in (5, 5, 4, 4)
    )
    negatives = torch.randn(7, 5, dtype=torch.float64, generator=draw)
    found = losses.dense_info_nce(q, k, q_map, k_map, negatives, 0.3)
    assert found.item() == pytest.approx(literal_dense(q, k, q_map, k_map, negatives, 0.3), rel=1e-12)
    found.backward()
    assert q.grad.abs().sum() > 0
    assert q_map.grad is k_map.grad is None, "no gradient through the matching"
    assert torch.autograd.gradcheck(lambda a, b: losses.dense_info_nce(a, b, q_map, k_map, negatives, 0.3), (q, k))
    shuffled = losses.dense_info_nce(q, k.flip(3), q_map, k_map.flip(3), negatives, 0.3)
    torch.testing.assert_close(shuffled, found)  # the keys' cells are found wherever they are
    assert not torch.isclose(losses.dense_info_nce(q, k.flip(3), q_map, k_map, negatives, 0.3), found)


def convolved(head, grid):
    """Apply the weights of a head as the paper's dense head: two 1x1 convolutions."""
    first, _, last = head
    hidden = nn.functional.conv2d(grid, first.weight[:, :, None, None], first.bias).relu()
    return nn.functional.conv2d(hidden, last.weight[:, :, None, None], last.bias)


def test_densecl_loss_uses_the_queues_before_the_update(X):
    estimator, net, batch = built(skssl.DenseCL, fourfold(X), bn_splits=1, queue_size=20, dense_weight=0.3)
    drift(net.target)
    assert not torch.equal(net.queue.items, net.dense_queue.items)
    for step in range(3):  # 36 keys go through queues of 20
        old, dense_old = net.queue.items.clone(), net.dense_queue.items.clone()
        q_map, k_map = net.encoder.features(batch.views[0]), net.target[0].features(batch.views[1])
        q, k = net.projector(q_map.mean((2, 3))), net.target[1](k_map.mean((2, 3)))
        q_cells, k_cells = convolved(net.dense_projector, q_map), convolved(net.target[2], k_map)
        assert q_cells.shape == (12, 128, 2, 2)
        found = estimator.losses(net, batch)
        assert found["info_nce"].item() == pytest.approx(0.7 * literal_info_nce(q, k, old, 0.2), rel=1e-9)
        expected = 0.3 * literal_dense(q_cells, k_cells, q_map, k_map, dense_old, 0.2)
        assert found["dense_info_nce"].item() == pytest.approx(expected, rel=1e-9)
        torch.testing.assert_close(net.queue.items, moved(old, k, 12 * step))
        torch.testing.assert_close(net.dense_queue.items, moved(dense_old, k_cells.mean((2, 3)), 12 * step))
        batch.views.reverse()
    found["dense_info_nce"].backward(retain_graph=True)
    assert reached(net) == {"encoder", "dense_projector"}
    found["info_nce"].backward()
    assert reached(net) == {"encoder", "projector", "dense_projector"}


def test_densecl_momentum_copy_has_the_dense_head(X):
    estimator, net, _ = built(skssl.DenseCL, X, ema_momentum=0.9)
    drift(net.target)
    old = [p.clone() for p in net.target[2].parameters()]
    estimator.after_step(net, 0, 0.5)
    for a, b, c in zip(old, net.target[2].parameters(), net.dense_projector.parameters(), strict=True):
        torch.testing.assert_close(b, 0.9 * a + 0.1 * c)
    assert [type(layer).__name__ for layer in net.dense_projector] == ["Linear", "ReLU", "Linear"]


def test_densecl_requires_a_pooled_map(X):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(768, 8))
    with pytest.raises(ValueError, match=r"pool its last map by an nn.AdaptiveAvgPool2d.* Got Sequential, which has"):
        quick(skssl.DenseCL, backbone=flat).fit(X)
    returns_a_map = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
    assert quick(skssl.DenseCL, backbone=returns_a_map).fit(X).transform(X).shape == (40, 6)


def literal_proto(q, prototypes, phi, assignment, others):
    """Compute PCL's second term for one clustering, one query at a time, as the reference code does."""
    q, c = unit(q.detach()), unit(prototypes)
    columns = [*assignment.tolist(), *others]
    total = 0.0
    for i, row in enumerate(q):
        scores = [math.exp(float(row @ c[j]) / float(phi[j])) for j in columns]
        total -= math.log(scores[i] / sum(scores))
    return total / len(q)


def test_proto_nce_equals_a_literal_loop():
    draw = torch.Generator().manual_seed(0)
    q = torch.randn(4, 5, dtype=torch.float64, generator=draw, requires_grad=True)
    prototypes, phi = (torch.rand(s, dtype=torch.float64, generator=draw) + 0.1 for s in ((8, 5), (8,)))
    assignment = torch.tensor([2, 5, 2, 0])  # two in a cluster: its prototype has two columns
    left = {1, 3, 4, 6, 7}
    everything = literal_proto(q, prototypes, phi, assignment, left)
    for n in (5, 6, 100):  # as many as are left, and more
        assert losses.proto_nce(q, prototypes, phi, assignment, n).item() == pytest.approx(everything, rel=1e-12)
    torch.manual_seed(0)
    possible = [literal_proto(q, prototypes, phi, assignment, pair) for pair in itertools.combinations(left, 2)]
    drawn = [losses.proto_nce(q, prototypes, phi, assignment, 2).item() for _ in range(100)]
    which = [min(range(10), key=lambda j: abs(possible[j] - value)) for value in drawn]
    assert [possible[j] for j in which] == pytest.approx(drawn, rel=1e-12)
    assert set(which) == set(range(10)), "two of the remaining prototypes"
    assert torch.autograd.gradcheck(lambda x: losses.proto_nce(x, prototypes, phi, assignment, 9), (q,))


def test_concentration_equals_the_reference_code():
    draw = np.random.default_rng(0)
    z, centers = draw.normal(size=(40, 3)), draw.normal(size=(7, 3))
    assignment = np.concatenate([np.arange(5).repeat([3, 9, 1, 20, 6]), [6]])  # 2 and 6 have one member, 5 has none
    phi = np.zeros(7)
    for c in range(7):
        distances = [math.dist(z[i], centers[c]) for i in np.flatnonzero(assignment == c)]  # not squared
        if len(distances) > 1:
            phi[c] = np.mean(distances) / np.log(len(distances) + 10)
    phi[[2, 5, 6]] = phi.max()
    phi = phi.clip(np.percentile(phi, 10), np.percentile(phi, 90))
    found = concentration(*map(torch.from_numpy, (z, centers, assignment)), 0.2)
    np.testing.assert_allclose(found.numpy(), 0.2 * phi / phi.mean(), rtol=1e-12)


def test_concentration_is_positive_for_equal_members():
    z = torch.tensor([[1.0, 0.0]] * 6 + [[0.0, 1.0], [0.6, 0.8]])
    assignment = torch.tensor([0] * 3 + [1] * 3 + [2] * 2)
    some = concentration(z, torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.3, 0.9]]), assignment, 0.2)
    assert (some > 0).all()
    assert some.mean().item() == pytest.approx(0.2)
    none = concentration(z[:6], z[:2], assignment[:6], 0.2)
    torch.testing.assert_close(none, torch.full((2,), 0.2))


def test_pcl_clusters_the_momentum_copys_embeddings(X):
    estimator, net, _ = built(skssl.PCL, X, n_clusters=(4, 30), instance_epochs=1)
    net.float()
    drift(net.target)
    trainer = estimator._make_trainer(as_images(X))
    pixels = trainer.augmentations[0].normalize(as_images(X).read(torch.arange(40)))
    with torch.no_grad():
        z = unit(net.target.eval()(pixels))
    net.target.train()
    asked = []
    estimator.before_epoch(net, 0, asked.append)
    assert not asked
    assert net.clustered == 0
    estimator.before_epoch(net, 1, lambda module: asked.append(module) or z)
    assert asked == [net.target]
    assert net.clustered == 1
    assert [len(c.centers) for c in net.clusters] == [4, 20], "at most one cluster for two images"
    for c in net.clusters:
        centers = torch.stack([z[c.assignment == i].mean(0) for i in range(len(c.centers))])
        torch.testing.assert_close(c.centers, unit(centers))  # of length one
        expected = concentration(z, centers, c.assignment, 0.2)  # from the means themselves
        torch.testing.assert_close(c.concentration, expected, rtol=1e-4, atol=1e-5)
        nearest = torch.cdist(z, centers).argmin(1)
        assert (nearest == c.assignment).float().mean() > 0.9


def test_pcl_loss_is_moco_plus_the_mean_over_clusterings(X):
    estimator, net, batch = built(skssl.PCL, fourfold(X), bn_splits=1, queue_size=20, instance_epochs=0)
    drift(net.target)
    batch.index = torch.arange(12) * 13
    q, k, old = net.projector(net.encoder(batch.views[0])), net.target(batch.views[1]), net.queue.items.clone()
    found = estimator.losses(net, batch)
    assert found["proto_nce"] == 0, "no clusters yet"
    found["proto_nce"].backward()
    assert reached(net) == set()
    z = torch.randn(160, 128, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    estimator.before_epoch(net, 0, lambda module: z)
    net.queue.items.copy_(old)
    found = estimator.losses(net, batch)
    assert found["info_nce"].item() == pytest.approx(literal_info_nce(q, k[:12], old, 0.2), rel=1e-9)
    expected = []
    for c in net.clusters:
        mine = c.assignment[batch.index]  # by the data set's index, not the place in the batch
        others = set(range(len(c.centers))) - set(mine.tolist())
        expected.append(literal_proto(q, c.centers, c.concentration, mine, others))
    assert found["proto_nce"].item() == pytest.approx(np.mean(expected), rel=1e-6)
    found["proto_nce"].backward()
    assert reached(net) == {"encoder", "projector"}


def test_pcl_clusters_are_fixed_within_an_epoch(X):
    estimator, net, batch = built(skssl.PCL, X, n_clusters=(5,), instance_epochs=0)
    (clusters,) = net.clusters
    for epoch in range(3):
        z = unit(torch.randn(40, 128, generator=torch.Generator().manual_seed(epoch), dtype=torch.float64))
        estimator.before_epoch(net, epoch, lambda module, z=z: z)
        label = clusters.assignment.clone()
        for _ in range(2):
            estimator.losses(net, batch)["proto_nce"].backward()
        assert torch.equal(clusters.assignment, label)
        centers = torch.stack([z[label == i].mean(0) for i in range(5)])
        torch.testing.assert_close(clusters.centers, unit(centers))
        torch.testing.assert_close(clusters.concentration, concentration(z, centers, label, 0.2))


def test_pcl_instance_epochs_default_to_a_tenth(X):
    history = quick(skssl.PCL, epochs=10).fit(X).history_
    assert (history["proto_nce"] > 0).tolist() == [False] + [True] * 9
    history = quick(skssl.PCL, epochs=3, instance_epochs=2).fit(X).history_
    assert (history["proto_nce"] > 0).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"temperature": 0.0}, "'temperature' parameter of MoCo must be a float in the range"),
        ({"queue_size": 0}, r"'queue_size' parameter of MoCo must be an int in the range \[1, inf\). Got 0"),
        ({"bn_splits": 0}, r"'bn_splits' parameter of MoCo must be an int"),
        ({"proj_layers": 0}, r"'proj_layers' parameter of MoCo must be an int"),
        ({"method": skssl.DenseCL, "dense_weight": 1.1}, r"'dense_weight' parameter of DenseCL must be a float in the"),
        ({"method": skssl.LeOCLR, "encoder": "simclr"}, "'encoder' parameter of LeOCLR must be a str among"),
        (
            {"method": skssl.PCL, "n_clusters": ()},
            r"must be an int in the range \[1, inf\) or a sequence of them. Got \(\)",
        ),
        ({"method": skssl.PCL, "n_clusters": (4, 0)}, r"'n_clusters' parameter of PCL must be an int in the range"),
        ({"method": skssl.PCL, "n_clusters": 0}, r"'n_clusters' parameter of PCL must be an int in the range"),
        ({"method": skssl.PCL, "n_clusters": "4"}, r"'n_clusters' parameter of PCL must be an in"),
        ({"method": skssl.PCL, "instance_epochs": -1}, "'instance_epochs' parameter of PCL must be an int"),
        ({"symmetric": "yes"}, "'symmetric' parameter of MoCo must be an instance of 'bool'"),
    ],
)
def test_invalid_parameters_raise(params, message, X):
    with pytest.raises(ValueError, match=message):
        quick(**{"method": skssl.MoCo, **params}).fit(X)
