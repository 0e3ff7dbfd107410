"""Steps of the joint-embedding methods against literal versions."""

import math

import numpy as np
import pytest
import torch
from conftest import quick
from helpers import built, cosine, drift, reached

import skssl
from skssl import losses


def literal_info_nce(q, k, temperature):
    """Compute InfoNCE with the keys of the batch, one query at a time."""
    q, k = q.detach().numpy(), k.detach().numpy()
    total = 0.0
    for i in range(len(q)):
        shares = [math.exp(cosine(q[i], key) / temperature) for key in k]
        total -= math.log(shares[i] / sum(shares))
    return total / len(q)


def literal_nearest(queue, z):
    """Return the item of the queue with the largest cosine with each row."""
    items = [max(queue.numpy(), key=lambda item, row=row: cosine(item, row)) for row in z.detach().numpy()]
    return torch.from_numpy(np.stack(items))


@pytest.mark.parametrize("sigma", [None, 0.5])
def test_dcl_leaves_both_views_of_an_image_out_of_its_negatives(X, sigma):
    estimator, net, batch = built(skssl.DCL, X, temperature=0.3, sigma=sigma)
    z = net.projector(net.encoder(torch.cat(batch.views)))
    rows, total = z.detach().numpy(), 0.0
    positive = [cosine(rows[i], rows[i + 12]) for i in range(12)]
    shares = np.exp(np.array(positive) / sigma) if sigma else np.ones(12)
    weights = 2 - shares / shares.mean()
    for i in range(24):
        others = [math.exp(cosine(rows[i], rows[k]) / 0.3) for k in range(24) if k % 12 != i % 12]
        total += math.log(sum(others)) - weights[i % 12] * positive[i % 12] / 0.3
    loss = estimator.losses(net, batch)["dcl"]
    assert loss.item() == pytest.approx(total / 24, rel=1e-9)
    loss.backward()
    assert reached(net) == {"encoder", "projector"}


def test_fastsiam_predicts_the_mean_projection_of_the_other_views(X):
    estimator, net, batch = built(skssl.FastSiam, X, n_views=3)
    z = [net.projector(net.encoder(view)) for view in batch.views]
    p, total = [net.predictor(of).detach().numpy() for of in z], 0.0
    z = [of.detach().numpy() for of in z]
    for v in range(3):
        target = sum(z[w] for w in range(3) if w != v) / 2
        total -= np.mean([cosine(p[v][i], target[i]) for i in range(12)]) / 3
    loss = estimator.losses(net, batch)["negative_cosine"]
    assert loss.item() == pytest.approx(total, rel=1e-9)
    loss.backward()
    assert reached(net) == {"encoder", "projector", "predictor"}


def test_mmcr_maximises_the_nuclear_norm_of_the_mean_embeddings(X):
    estimator, net, batch = built(skssl.MMCR, X, n_views=3, lambd=0.2)
    z = net.projector(net.encoder(torch.cat(batch.views))).detach().numpy().reshape(3, 12, -1)
    z = z / np.linalg.norm(z, axis=2, keepdims=True)
    expected = -np.linalg.norm(z.mean(0), "nuc")
    expected += 0.2 * np.mean([np.linalg.norm(z[:, i], "nuc") for i in range(12)])
    loss = estimator.losses(net, batch)["mmcr"]
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    loss.backward()
    assert reached(net) == {"encoder", "projector"}


def test_nnclr_contrasts_the_neighbour_of_one_view_with_the_prediction_of_the_other(X):
    estimator, net, batch = built(skssl.NNCLR, X, temperature=0.3)
    for step in range(2):  # the second step searches the projections of the first
        z1, z2 = (net.projector(net.encoder(view)) for view in batch.views)
        queue = net.queue.items.clone()
        neighbours = [literal_nearest(queue, z) for z in (z1, z2)]
        expected = literal_info_nce(neighbours[0], net.predictor(z2), 0.3)
        expected += literal_info_nce(neighbours[1], net.predictor(z1), 0.3)
        loss = estimator.losses(net, batch)["info_nce"]
        assert loss.item() == pytest.approx(expected / 2, rel=1e-9)
        queue[12 * step : 12 * step + 12] = torch.nn.functional.normalize(z1.detach(), dim=1)
        torch.testing.assert_close(net.queue.items, queue)
    loss.backward()
    assert reached(net) == {"encoder", "projector", "predictor"}


def test_moco_v3_contrasts_predictions_with_the_keys_of_the_momentum_copy(X):
    estimator, net, batch = built(skssl.MoCoV3, X, temperature=0.4)
    drift(net.target)
    q1, q2 = (net.predictor(net.projector(net.encoder(view))) for view in batch.views)
    with torch.no_grad():
        k1, k2 = (net.target(view) for view in batch.views)
    expected = 2 * 0.4 * (literal_info_nce(q1, k2, 0.4) + literal_info_nce(q2, k1, 0.4))
    loss = estimator.losses(net, batch)["info_nce"]
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    loss.backward()
    assert reached(net) == {"encoder", "projector", "predictor"}


def test_moco_v3_freezes_the_projection_of_the_patches(X):
    vit = skssl.backbones.ViT("micro", patch_size=8)
    with pytest.raises(ValueError, match=r"MoCoV3\(freeze_patches=True\) needs a vision transformer"):
        quick(skssl.MoCoV3, freeze_patches=True).fit(X)
    for frozen in (True, False):
        estimator = quick(skssl.MoCoV3, backbone=vit, freeze_patches=frozen, lr=0.1)
        start, end = (estimator.set_params(epochs=epochs).fit(X).encoder_.state_dict() for epochs in (0, 1))
        moved = {name for name, value in end.items() if not torch.equal(value, start[name])}
        assert ("conv_proj.weight" in moved) is not frozen
        assert "encoder.ln.weight" in moved


def test_tico_trains_one_view_and_keeps_the_covariance_of_past_batches(X):
    estimator, net, batch = built(skssl.TiCo, X, rho=3.0, beta=0.6)
    drift(net.target)
    matrix = torch.zeros(8, 8, dtype=torch.float64)
    for _ in range(2):
        z1, z2 = net.projector(net.encoder(batch.views[0])).detach(), net.target(batch.views[1])
        unit = torch.nn.functional.normalize(z1, dim=1)
        matrix = 0.6 * matrix + 0.4 * unit.T @ unit / 12
        found = estimator.losses(net, batch)
        assert found["invariance"].item() == pytest.approx(
            np.mean([1 - cosine(a, b) for a, b in zip(z1.numpy(), z2.numpy(), strict=True)]), rel=1e-9
        )
        assert found["covariance"].item() == pytest.approx(3 * torch.einsum("ni,ij,nj->", unit, matrix, unit) / 12)
        torch.testing.assert_close(net.covariance, matrix)
    sum(found.values()).backward()
    assert reached(net) == {"encoder", "projector"}


def test_w_mse_whitens_random_groups_of_the_batch(X):
    estimator, net, batch = built(skssl.WMSE, X, n_views=3, whitening_size=5, whitening_iterations=2)
    z = net.projector(torch.cat([net.encoder(view) for view in batch.views])).view(3, 12, -1)
    torch.manual_seed(0)
    expected = [losses.w_mse(z[:, torch.randperm(12) % 12], 2, 1e-4) for _ in range(2)]  # groups of 6, not of 5
    torch.manual_seed(0)
    loss = estimator.losses(net, batch)["w_mse"]
    torch.testing.assert_close(loss, (expected[0] + expected[1]) / 2)
    assert not torch.isclose(*expected)
    loss.backward()
    assert reached(net) == {"encoder", "projector"}


def test_re_ssl_compares_a_strong_view_with_a_weak_one(X):
    estimator, net, batch = built(skssl.ReSSL, np.tile(X, (4, 1, 1, 1)), bn_splits=1)
    drift(net.target)
    queue = net.queue.items.clone()
    q, k = net.projector(net.encoder(batch.views[0])), net.target(batch.views[1])
    loss = estimator.losses(net, batch)["ressl"]
    torch.testing.assert_close(loss, losses.ressl(q, k, queue, 0.1, 0.04))
    queue[:12] = torch.nn.functional.normalize(k, dim=1)
    torch.testing.assert_close(net.queue.items, queue, rtol=1e-6, atol=1e-6)
    loss.backward()
    assert reached(net) == {"encoder", "projector"}
    strong, weak = estimator._augmentations(16)
    assert (strong.jitter, weak.jitter, weak.gray) == (0.8, 0.0, 0.0)


def test_lejepa_takes_the_mean_of_the_large_views(X):
    crops = skssl.MultiCrop(n_global=2, n_local=2)
    estimator, net, batch = built(skssl.LeJEPA, X, augment=crops, lambd=0.1)
    batch.views = [torch.randn(12, 3, side, side, dtype=torch.float64) for side in (16, 16, 8, 8)]
    z = torch.stack(net.project(batch.views))
    torch.manual_seed(0)
    found = estimator.losses(net, batch)
    expected = 0.9 * (z - z[:2].mean(0)).square().mean()
    torch.testing.assert_close(found["invariance"], expected)
    torch.manual_seed(0)
    directions = torch.randn(8, 4, dtype=torch.float64)
    torch.testing.assert_close(found["sigreg"], 0.1 * losses.sigreg(z, directions))
    history = quick(skssl.LeJEPA, augment=crops).fit(X).history_
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize("iterations", [0, 3])
def test_msn_predicts_the_prototypes_of_the_first_view(X, iterations):
    estimator, net, batch = built(skssl.MSN, X, sinkhorn_iterations=iterations, me_max_weight=0.5)
    drift(net.target)
    unit = torch.nn.functional.normalize
    prototypes = unit(net.prototypes, dim=1)
    scores = unit(net.projector(net.encoder(batch.views[1])), dim=1) @ prototypes.T
    sharp = (unit(net.target(batch.views[0]), dim=1) @ prototypes.T / 0.1).softmax(1) ** 4  # sharpened by 0.25
    targets = sharp / sharp.sum(1, keepdim=True)
    for _ in range(iterations):
        targets = targets / targets.sum(0)
        targets = targets / targets.sum(1, keepdim=True)
    cross_entropy, me_max = losses.msn_terms(scores[None], targets, 0.1)
    found = estimator.losses(net, batch)
    torch.testing.assert_close(found["msn"], cross_entropy)
    torch.testing.assert_close(found["me_max"], 0.5 * me_max)
    sum(found.values()).backward()
    assert reached(net) == {"encoder", "projector", "prototypes"}


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_msn_hides_patches_of_the_anchors_from_a_vision_transformer(X, pool):
    vit = skssl.backbones.ViT("micro", patch_size=4, pool=pool)
    params = {"backbone": vit, "mask_ratio": 0.5}
    estimator, net, batch = built(skssl.MSN, X, **params)
    torch.manual_seed(0)
    found = estimator.encode(net, batch.views[1])
    torch.manual_seed(0)
    visible = torch.rand(12, 16).argsort(1)[:, :8]  # half of 4 x 4 patches
    for i in range(3):
        tokens = net.encoder.tokens(batch.views[1][i : i + 1], visible[i : i + 1])[0]
        torch.testing.assert_close(found[i], tokens[1:].mean(0) if pool == "mean" else tokens[0])
    history = quick(skssl.MSN, **params, augment=skssl.MultiCrop(n_local=2)).fit(X).history_
    assert np.isfinite(history["loss"]).all()
