"""SimSiam, BYOL and their variants with guided stop-gradient."""

import pytest
import torch
from conftest import quick
from helpers import built, drift, reached
from torch import nn

import skssl
import skssl.datasets
from skssl import losses


def test_simsiam_loss_and_stopped_gradient(X):
    estimator, net, batch = built(skssl.SimSiam, X)
    z = [net.projector(net.encoder(v)) for v in batch.views]
    p = [net.predictor(x) for x in z]
    cosine = nn.functional.cosine_similarity
    expected = -cosine(p[0], z[1]).mean() / 2 - cosine(p[1], z[0]).mean() / 2
    loss = estimator.losses(net, batch)["negative_cosine"]
    torch.testing.assert_close(loss, expected)
    loss.backward()
    stopped = net.encoder.features[0].weight.grad.clone()
    net.zero_grad()
    expected.backward()
    assert not torch.allclose(stopped, net.encoder.features[0].weight.grad), "the targets' gradient is stopped"


@pytest.mark.parametrize("method", [skssl.SimSiamGSG, skssl.BYOLGSG])
@pytest.mark.parametrize("pairing", ["fresh", "shared"])
@pytest.mark.parametrize("rule", ["guided", "reverse"])
def test_guided_stop_gradient_pairs_images_as_in_the_paper(method, pairing, rule, X):
    estimator, net, batch = built(method, X, pairing=pairing, stop_gradient=rule)
    assert len(batch.views) == (4 if pairing == "fresh" else 2)
    if method is skssl.BYOLGSG:
        drift(net.target)
    torch.manual_seed(3)
    found = estimator.losses(net, batch)["negative_cosine"]
    torch.manual_seed(3)
    partner = torch.randperm(12)
    online = [net.projector(net.encoder(v)) for v in batch.views]
    p = [net.predictor(x) for x in online]
    z = [net.target(v) for v in batch.views] if method is skssl.BYOLGSG else online
    q = (p[2], p[3], z[2], z[3]) if pairing == "fresh" else None
    expected = losses.guided_stop_gradient(p[0], p[1], z[0], z[1], partner, rule, q)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert reached(net) == {"encoder", "projector", "predictor"}


def test_byol_gsg_symmetric_loss_is_negative_cosine(X):
    """The baseline has the scale of the other variants, so that one learning rate suits all."""
    estimator, net, batch = built(skssl.BYOLGSG, X, stop_gradient="symmetric")
    drift(net.target)
    p1, p2 = (net.predictor(net.projector(net.encoder(v))) for v in batch.views)
    z1, z2 = (net.target(v) for v in batch.views)
    found = estimator.losses(net, batch)
    cosine = nn.functional.cosine_similarity
    expected = -cosine(p1, z2).mean() / 2 - cosine(p2, z1).mean() / 2
    torch.testing.assert_close(found, {"negative_cosine": expected})


def test_byol_predicts_the_momentum_copys_projections(X):
    estimator, net, batch = built(skssl.BYOL, X)
    drift(net.target)
    p1, p2 = (net.predictor(net.projector(net.encoder(v))) for v in batch.views)
    z1, z2 = (net.target(v) for v in batch.views)
    loss = estimator.losses(net, batch)["byol"]
    torch.testing.assert_close(loss, losses.byol_loss(p1, p2, z1, z2))
    loss.backward()
    assert reached(net) == {"encoder", "projector", "predictor"}


def kinds(head):
    return [type(layer).__name__ for layer in head]


@pytest.mark.parametrize("method", [skssl.SimSiam, skssl.SimSiamGSG, skssl.BYOLGSG])
def test_simsiam_heads(method, X):
    for layers in (2, 3):
        _, net, _ = built(method, X, proj_layers=layers)
        assert kinds(net.projector) == ["Linear", "BatchNorm1d", "ReLU"] * (layers - 1) + ["Linear", "BatchNorm1d"]
        assert not net.projector[-1].affine, "no scale and shift at the end"
        assert kinds(net.predictor) == ["Linear", "BatchNorm1d", "ReLU", "Linear"], "no BatchNorm at the end"
        assert net.predictor[0].bias is None
        assert net.predictor[-1].bias is not None
        assert [net.predictor[0].in_features, net.predictor[0].out_features] == [16, 8]


def test_byol_heads(X):
    _, net, _ = built(skssl.BYOL, X)
    for head, widths in [(net.projector, (128, 16, 8)), (net.predictor, (8, 16, 8))]:
        assert kinds(head) == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
        assert (head[0].in_features, head[0].out_features, head[-1].out_features) == widths
        assert head[-1].bias is None
    assert len(net.target) == 2, "encoder and projector: the copy has no predictor"


def test_predictor_learning_rate_is_constant(X):
    for method, constant in [
        (skssl.SimSiam, True),
        (skssl.SimSiamGSG, True),
        (skssl.BYOLGSG, True),
        (skssl.BYOL, False),
    ]:
        net = quick(method, epochs=3, lr=0.1, schedule="cosine").fit(X).net_
        assert {group["weight_decay"] for group in net.optimizer_.param_groups} == {5e-4}, "on all parameters"
        rates = {group["scheduled"]: group["lr"] for group in net.optimizer_.param_groups}
        assert rates[True] < 0.05
        assert rates.get(False) == (0.1 if constant else None)


def test_without_predictor_the_projection_is_the_prediction(X):
    estimator, net, batch = built(skssl.SimSiam, X, predictor=False)
    z1, z2 = (net.projector(net.encoder(v)) for v in batch.views)
    expected = -nn.functional.cosine_similarity(z1, z2).mean()
    found = estimator.losses(net, batch)["negative_cosine"]
    torch.testing.assert_close(found, expected)
    expected = losses.negative_cosine(z1, z2.detach()) / 2 + losses.negative_cosine(z2, z1.detach()) / 2
    parameters = list(net.encoder.parameters())
    for a, b in zip(*(torch.autograd.grad(loss, parameters) for loss in (found, expected)), strict=True):
        torch.testing.assert_close(a, b)
