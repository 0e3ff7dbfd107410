"""NNCLR and MoCo v3 against literal versions of a step."""

import math

import numpy as np
import pytest
import torch
from conftest import quick
from helpers import built, cosine, drift, reached

import skssl


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
