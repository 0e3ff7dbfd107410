"""Barlow Twins and VICReg: losses on the covariance of the embeddings."""

import functools

import numpy as np
import pytest
import torch
from conftest import quick
from helpers import built, numpy, random_rows, reached
from torchvision.transforms import v2

import skssl
from skssl import Augmentation, losses
from skssl.backbones import feature_map
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


def literal_matches(z1, z2, p1, p2, n_matches):
    """Return the pairs of cells (from, to) of an image by each distance, in the order of the map."""
    found = []
    for x1, x2 in ((p1, p2), (z1, z2)):
        nearest = []
        for s, a in enumerate(x1):
            distances = [np.sqrt(sum((a - b) ** 2)) for b in x2]
            nearest.append((min(distances), s, int(np.argmin(distances))))
        found.append(sorted((s, t) for _, s, t in sorted(nearest)[:n_matches]))
    return found


def literal_vicregl(z1, z2, p1, p2, n_matches):
    """Compute the terms of VICRegL with loops over images, directions, distances, cells and matches."""
    total = np.zeros(3)
    for a, b, pa, pb in ((z1, z2, p1, p2), (z2, z1, p2, p1)):
        matches = [literal_matches(*of, n_matches) for of in zip(a, b, pa, pb, strict=True)]
        for distance in range(2):
            for k in range(n_matches):
                pairs = [of[distance][k] for of in matches]
                left = np.stack([a[i, s] for i, (s, _) in enumerate(pairs)])
                right = np.stack([b[i, t] for i, (_, t) in enumerate(pairs)])
                total += np.array(literal_vicreg(left, right)) / n_matches / 2
    return total


@pytest.mark.parametrize("n_matches", [1, 4, 9])
def test_vicregl_equals_loops_over_images_and_cells(n_matches):
    draw = torch.Generator().manual_seed(0)
    z1, z2 = (torch.randn(5, 9, 4, generator=draw, dtype=torch.float64, requires_grad=True) for _ in range(2))
    p1, p2 = (torch.rand(5, 9, 2, generator=draw, dtype=torch.float64) for _ in range(2))
    expected = literal_vicregl(*numpy([z1, z2, p1, p2]), n_matches)
    terms = losses.vicregl_terms(z1, z2, p1, p2, n_matches)
    assert [term.item() for term in terms] == pytest.approx(expected, rel=1e-10)
    few = [z[:3, :4, :2].detach().requires_grad_() for z in (z1, z2)]
    terms = functools.partial(losses.vicregl_terms, positions1=p1[:3, :4], positions2=p2[:3, :4], n_matches=2)
    assert torch.autograd.gradcheck(lambda *z: sum(terms(*z)), few)


def test_vicregl_matches_cells_of_flipped_crops(X):
    settings = {"n_matches": 2, "alpha": 0.7, "sim": 2.0, "var": 3.0, "cov": 5.0}
    estimator, net, batch = built(skssl.VICRegL, X, **settings)
    cells, positions = [], []
    for view, corners in zip(batch.views, batch.corners, strict=True):
        grid = feature_map(net.encoder, view)[1]  # (12, 128, 2, 2)
        rows = grid.detach().permute(0, 2, 3, 1).reshape(48, 128)
        cells.append(net.local_projector(rows).detach().numpy().reshape(12, 4, 8))
        left, right = corners[:, 1, 0].unbind(1)
        top, bottom = corners[:, 0, :, 0].unbind(1)
        assert 0 < (right < left).sum() < 12  # some are flipped
        own = [
            (top + (bottom - top) * (2 * i + 1) / 4, left + (right - left) * (2 * j + 1) / 4)
            for i in range(2)
            for j in range(2)
        ]
        positions.append(np.stack([np.stack(place, 1) for place in own], 1))
    expected = literal_vicregl(*cells, *positions, 2)
    found = estimator.losses(net, batch)
    local = [found[f"local_{name}"].item() for name in ("invariance", "variance", "covariance")]
    assert local == pytest.approx([0.3 * weight * term for weight, term in zip((2, 3, 5), expected, strict=True)])
    z1, z2 = (net.projector(net.encoder(view)) for view in batch.views)
    whole = sum(found[name] for name in ("invariance", "variance", "covariance"))
    torch.testing.assert_close(whole, 0.7 * losses.vicreg(z1, z2, 2.0, 3.0, 5.0))
    sum(found.values()).backward()
    assert reached(net) == {"encoder", "projector", "local_projector"}


@pytest.mark.parametrize(("n_matches", "expected"), [(None, 2), (3, 3), (50, 4)])
def test_vicregl_matches_the_papers_share_of_cells_by_default(n_matches, expected, X, monkeypatch):
    seen, terms = [], losses.vicregl_terms
    monkeypatch.setattr(skssl.methods.vicregl, "vicregl_terms", lambda *of: seen.append(of[-1]) or terms(*of))
    quick(skssl.VICRegL, n_matches=n_matches, batch_size=40).fit(X)  # maps of 2x2 cells
    assert seen == [expected]


def test_vicregl_refuses_augmentations_that_do_not_tell_crops(X):
    with pytest.raises(TypeError, match=r"VICRegL needs to know where each view was cropped .* Pass an Augmentation"):
        quick(skssl.VICRegL, augment=[v2.RandomHorizontalFlip(), Augmentation()]).fit(X)
    assert quick(skssl.VICReg, augment=v2.RandomHorizontalFlip()).fit(X)


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
