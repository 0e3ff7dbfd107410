"""Barlow Twins and VICReg: losses on the covariance of the embeddings."""

import numpy as np
import pytest
import torch
from helpers import built, numpy, random_rows, reached

import skssl
from skssl import losses
from skssl.methods.directpred import correlation


@pytest.mark.parametrize("lambd", [0.0, 0.0051, 1.0])
def test_barlow_twins_equals_a_literal_loop(lambd):
    z1, z2 = random_rows(2, n=7)
    a, b = ((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) for z in numpy([3 * z1 + 1, z2]))
    total = 0.0
    for i in range(5):
        for j in range(5):
            c = sum(a[n, i] * b[n, j] for n in range(7)) / 7
            total += (1 - c) ** 2 if i == j else lambd * c**2
    assert losses.barlow_twins(3 * z1 + 1, z2, lambd).item() == pytest.approx(total, rel=1e-12)
    assert torch.autograd.gradcheck(lambda *z: losses.barlow_twins(*z, lambd), (z1, z2))


def test_barlow_twins_standardises_views_separately():
    z1, z2 = random_rows(2, n=50)
    assert torch.isclose(losses.barlow_twins(z1, z2), losses.barlow_twins(100 * z1 + 7, z2), rtol=1e-3)


def literal_vicreg(a, b):
    n, d = a.shape
    s = sum((a[i, j] - b[i, j]) ** 2 for i in range(n) for j in range(d)) / n / d
    v = c = 0.0
    for z in (a, b):
        mean = z.sum(0) / n
        for i in range(d):
            for j in range(d):
                shared = sum((z[k, i] - mean[i]) * (z[k, j] - mean[j]) for k in range(n)) / (n - 1)
                v += max(0.0, 1 - np.sqrt(shared + 1e-4)) / d / 2 if i == j else 0.0
                c += shared**2 / d if i != j else 0.0
    return s, v, c


def test_vicreg_equals_literal_loops():
    z1, z2 = random_rows(2, n=7)
    z1 = 0.3 * z1  # below a deviation of 1, where the hinge pulls; the other has dimensions on both sides
    expected = literal_vicreg(*numpy([z1, z2]))
    assert [term.item() for term in losses.vicreg_terms(z1, z2)] == pytest.approx(expected, rel=1e-12)
    weighed = sum(weight * term for weight, term in zip((2.0, 3.0, 5.0), expected, strict=True))
    assert losses.vicreg(z1, z2, sim=2.0, var=3.0, cov=5.0).item() == pytest.approx(weighed, rel=1e-12)
    assert torch.autograd.gradcheck(losses.vicreg, random_rows(2, n=7))


def test_vicreg_gradient_is_finite_at_collapse():
    z = torch.ones(6, 4, requires_grad=True)
    losses.vicreg(z, 2 * z).backward()
    assert z.grad.isfinite().all()


def test_correlations_are_computed_in_float32():
    z1, z2 = (z.detach().float() for z in random_rows(2, n=32, d=16))
    for loss in (losses.barlow_twins, losses.vicreg):
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(loss(z1, z2), inside := loss(z1, z2))
            assert loss(z1.bfloat16(), z2.bfloat16()).dtype == torch.float32
        assert torch.equal(inside, loss(z1, z2))
    with torch.autocast("cpu", torch.bfloat16):
        inside = correlation(z1)
        assert correlation(z1.bfloat16()).dtype == torch.float32
    assert torch.equal(inside, correlation(z1))


def test_batchnorm_sees_one_view_and_no_gradient_is_stopped(X):
    for method in (skssl.BarlowTwins, skssl.VICReg):
        estimator, net, batch = built(method, X)
        found = estimator.losses(net, batch)
        z1, z2 = (net.projector(net.encoder(view)) for view in batch.views)
        together = net.project(batch.views)
        if method is skssl.BarlowTwins:
            expected = 0.1 * losses.barlow_twins(z1, z2, 0.0051)
            assert not torch.isclose(expected, 0.1 * losses.barlow_twins(*together, 0.0051))
            assert set(found) == {"barlow_twins"}
        else:
            expected = losses.vicreg(z1, z2)
            assert list(found) == ["invariance", "variance", "covariance"]
            assert found["covariance"].item() == pytest.approx(losses.vicreg_terms(z1, z2)[2].item())
        total = sum(found.values())
        torch.testing.assert_close(total, expected)
        total.backward()
        assert reached(net) == {"encoder", "projector"}
        gradient = net.projector[-1].weight.grad.clone()
        net.zero_grad()
        z1, z2 = (net.projector(net.encoder(view)) for view in batch.views)
        z2 = z2.detach()  # were one view a target, its gradient would be missing
        (losses.vicreg(z1, z2) if method is skssl.VICReg else 0.1 * losses.barlow_twins(z1, z2)).backward()
        assert not torch.allclose(gradient, net.projector[-1].weight.grad)


def test_projectors_end_without_bias_and_norm(X):
    for method in (skssl.BarlowTwins, skssl.VICReg):
        _, net, _ = built(method, X)
        assert [type(layer).__name__ for layer in net.projector] == 2 * ["Linear", "BatchNorm1d", "ReLU"] + ["Linear"]
        assert net.projector[-1].bias is None
