"""DirectPred: the predictor that is computed from the correlation."""

import numpy as np
import pytest
import torch
from conftest import quick
from helpers import built, reached

import skssl
from skssl import losses
from skssl.methods.directpred import _by_eigenvectors, _by_products, correlation, direct_pred


def literal_predictor(f, eps):
    """Compute the predictor as the reference code does, from a general eigendecomposition."""
    values, vectors = np.linalg.eig(f)
    e = np.maximum(np.sqrt(np.maximum(values.real, 0) / values.real.max()) + eps, 1e-4)
    return sum(e[j] * np.outer(vectors.real[:, j], vectors.real[:, j]) for j in range(len(f)))


@pytest.mark.parametrize("direct", ["pred", "copy"])
@pytest.mark.parametrize("freq", [1, 2])
def test_directpred_predictor_equals_the_reference_over_several_steps(direct, freq, X):
    estimator, net, batch = built(skssl.DirectPred, X, direct=direct, freq=freq, rho=0.3, eps=0.02)
    f = None
    for step in range(4):
        views = [view.roll(step, 0) * (1 + step) for view in batch.views]  # other statistics in each step
        batch.views = views
        z = [net.projector(net.encoder(view)).detach().numpy() for view in views]
        now = np.mean([np.outer(row, row) for projections in z for row in projections], axis=0)
        f = now if f is None else 0.3 * f + 0.7 * now
        estimator.losses(net, batch)
        before = net.predictor.weight.clone()
        estimator.after_step(net, step, progress=0.1)
        np.testing.assert_allclose(net.correlation.numpy(), f, rtol=1e-10, atol=1e-12)
        if step % freq:
            assert torch.equal(net.predictor.weight, before), "only the gradient changes it between two updates"
        else:
            expected = literal_predictor(f, 0.02) if direct == "pred" else f + 0.02 * np.eye(8)
            np.testing.assert_allclose(net.predictor.weight.detach().numpy(), expected, rtol=1e-7, atol=1e-9)


def test_directpred_loss_is_byols_with_the_computed_predictor(X):
    estimator, net, batch = built(skssl.DirectPred, X)
    with torch.no_grad():
        for p in net.target.parameters():  # away from the online network
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(0), dtype=p.dtype), alpha=0.1)
    z = [net.projector(net.encoder(view)) for view in batch.views]
    p1, p2 = (x @ net.predictor.weight.T for x in z)
    loss = estimator.losses(net, batch)["byol"]
    torch.testing.assert_close(loss, losses.byol_loss(p1, p2, *(net.target(view) for view in batch.views)))
    loss.backward()
    assert reached(net) == {"encoder", "projector"}


def test_directpred_momentum_copy(X):
    estimator, net, batch = built(skssl.DirectPred, X)
    estimator.losses(net, batch)
    old = [p.clone() for p in net.target.parameters()]
    with torch.no_grad():
        for p in net.encoder.parameters():
            p.add_(1.0)
    for progress in (0.5, 1.0):  # constant: also at the end
        estimator.after_step(net, 0, progress)
    assert torch.allclose(next(net.target.parameters()), old[0] + 1 - 0.996**2, atol=1e-10)


def test_directpred_predictor_is_trained_only_between_updates(X):
    for freq in (1, 2):
        net = quick(skssl.DirectPred, freq=freq).fit(X).net_
        trained = {id(p) for group in net.optimizer_.param_groups for p in group["params"]}
        assert (id(net.module_.predictor.weight) in trained) == (freq > 1)
        assert net.module_.correlation.dtype == torch.float32


def test_direct_pred_of_rank_deficient_and_zero_matrices():
    """The predictor is finite for zeros, rank one, and eigenvalues that are negative by rounding."""
    one = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    assert torch.allclose(direct_pred(one, 0.1), torch.tensor([[0.6, 0.5], [0.5, 0.6]]))
    assert torch.allclose(direct_pred(torch.zeros(3, 3), 0.01), 0.01 * torch.eye(3))
    assert torch.allclose(
        direct_pred(torch.diag(torch.tensor([4.0, 1.0, -1e-7])), 0.0).diag(), torch.tensor([1, 0.5, 1e-4])
    )
    assert direct_pred(torch.full((3, 3), torch.nan), 0.01).isfinite().all()


def test_direct_pred_of_equal_eigenvalues():
    """The eigenvectors of repeated eigenvalues must be orthogonal. A general decomposition does not ensure this."""
    d = 8
    line = torch.full((d, d), 1 / d, dtype=torch.float64)
    plane = torch.eye(d, dtype=torch.float64) - line
    expected = ((0.3 / 8.3) ** 0.5 + 0.01) * plane + 1.01 * line
    torch.testing.assert_close(direct_pred(0.3 * plane + 8.3 * line, 0.01), expected)


@pytest.mark.parametrize(("n", "d"), [(512, 128), (40, 128), (64, 8), (1, 5)])
def test_direct_pred_by_matrix_products_agrees_with_eigenvectors(n, d):
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(n, d, generator=draw) * torch.logspace(1, -3, d)
    found, expected = (by(correlation(z), 0.01) for by in (_by_products, _by_eigenvectors))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)
    torch.testing.assert_close(found, found.T)


def test_direct_pred_by_matrix_products_is_finite_for_zeros():
    for f in (torch.zeros(3, 3), torch.ones(3, 3), torch.diag(torch.tensor([4.0, 1.0, -1e-7]))):
        assert _by_products(f, 0.0).isfinite().all()
    torch.testing.assert_close(
        _by_products(torch.diag(torch.tensor([4.0, 1.0, 0.0])), 0.01),
        torch.diag(torch.tensor([1.01, 0.51, 0.01])),
        rtol=0,
        atol=2e-3,
    )
