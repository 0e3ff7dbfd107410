"""Methods without negatives that regularise, predict or distil: Barlow Twins, VICReg, DirectPred and DINO."""

import numpy as np
import pytest
import torch
from conftest import quick
from helpers import built, numpy, random_rows, reached

import skssl
from skssl import losses
from skssl.images import as_images
from skssl.methods.dino import CosinePrototypes
from skssl.methods.directpred import _by_eigenvectors, _by_products, correlation, direct_pred
from skssl.nn.momentum import cosine_schedule
from skssl.training.objective import Batch


@pytest.mark.parametrize("lambd", [0.0, 0.0051, 1.0])
def test_barlow_twins_is_the_literal_double_sum(lambd):
    z1, z2 = random_rows(2, n=7)
    a, b = ((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) for z in numpy([3 * z1 + 1, z2]))
    total = 0.0
    for i in range(5):
        for j in range(5):
            c = sum(a[n, i] * b[n, j] for n in range(7)) / 7
            total += (1 - c) ** 2 if i == j else lambd * c**2
    assert losses.barlow_twins(3 * z1 + 1, z2, lambd).item() == pytest.approx(total, rel=1e-12)
    assert torch.autograd.gradcheck(lambda *z: losses.barlow_twins(*z, lambd), (z1, z2))


def test_barlow_twins_standardises_each_view_by_itself():
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


def test_vicreg_is_the_literal_sums():
    z1, z2 = random_rows(2, n=7)
    z1 = 0.3 * z1  # below a deviation of 1, where the hinge pulls; the other has dimensions on both sides
    expected = literal_vicreg(*numpy([z1, z2]))
    assert [term.item() for term in losses.vicreg_terms(z1, z2)] == pytest.approx(expected, rel=1e-12)
    weighed = sum(weight * term for weight, term in zip((2.0, 3.0, 5.0), expected, strict=True))
    assert losses.vicreg(z1, z2, sim=2.0, var=3.0, cov=5.0).item() == pytest.approx(weighed, rel=1e-12)
    assert torch.autograd.gradcheck(losses.vicreg, random_rows(2, n=7))


def test_vicregs_gradient_is_finite_at_a_collapse():
    z = torch.ones(6, 4, requires_grad=True)
    losses.vicreg(z, 2 * z).backward()
    assert z.grad.isfinite().all()


def test_correlations_are_in_full_precision():
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


def test_barlow_twins_and_vicreg_see_one_view_at_a_time_and_stop_no_gradient(X):
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


def test_their_projectors_end_without_bias_and_norm(X):
    for method in (skssl.BarlowTwins, skssl.VICReg):
        _, net, _ = built(method, X)
        assert [type(layer).__name__ for layer in net.projector] == 2 * ["Linear", "BatchNorm1d", "ReLU"] + ["Linear"]
        assert net.projector[-1].bias is None


def literal_predictor(f, eps):
    """The reference code's: general eigenvalues, scaled by the largest, their root plus eps, at least 1e-4."""
    values, vectors = np.linalg.eig(f)
    e = np.maximum(np.sqrt(np.maximum(values.real, 0) / values.real.max()) + eps, 1e-4)
    return sum(e[j] * np.outer(vectors.real[:, j], vectors.real[:, j]) for j in range(len(f)))


@pytest.mark.parametrize("direct", ["pred", "copy"])
@pytest.mark.parametrize("freq", [1, 2])
def test_directpred_follows_the_correlation_for_several_steps(direct, freq, X):
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
            assert torch.equal(net.predictor.weight, before), "between two settings the gradient alone moves it"
        else:
            expected = literal_predictor(f, 0.02) if direct == "pred" else f + 0.02 * np.eye(8)
            np.testing.assert_allclose(net.predictor.weight.detach().numpy(), expected, rtol=1e-7, atol=1e-9)


def test_directpred_is_byols_loss_with_that_predictor(X):
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


def test_directpreds_copy_keeps_its_share(X):
    estimator, net, batch = built(skssl.DirectPred, X)
    estimator.losses(net, batch)
    old = [p.clone() for p in net.target.parameters()]
    with torch.no_grad():
        for p in net.encoder.parameters():
            p.add_(1.0)
    for progress in (0.5, 1.0):  # constant: also at the end
        estimator.after_step(net, 0, progress)
    assert torch.allclose(next(net.target.parameters()), old[0] + 1 - 0.996**2, atol=1e-10)


def test_directpreds_predictor_is_trained_only_between_settings(X):
    for freq in (1, 2):
        net = quick(skssl.DirectPred, freq=freq).fit(X).net_
        trained = {id(p) for group in net.optimizer_.param_groups for p in group["params"]}
        assert (id(net.module_.predictor.weight) in trained) == (freq > 1)
        assert net.module_.correlation.dtype == torch.float32


def test_direct_pred_of_what_is_no_full_matrix():
    """No spread at all, one direction, eigenvalues that rounding has made negative: all give something finite."""
    one = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    assert torch.allclose(direct_pred(one, 0.1), torch.tensor([[0.6, 0.5], [0.5, 0.6]]))
    assert torch.allclose(direct_pred(torch.zeros(3, 3), 0.01), 0.01 * torch.eye(3))
    assert torch.allclose(
        direct_pred(torch.diag(torch.tensor([4.0, 1.0, -1e-7])), 0.0).diag(), torch.tensor([1, 0.5, 1e-4])
    )
    assert direct_pred(torch.full((3, 3), torch.nan), 0.01).isfinite().all()


def test_direct_pred_of_equal_eigenvalues_has_orthogonal_eigenvectors():
    """Those of the general decomposition are not, where a symmetric matrix has an eigenvalue several times."""
    d = 8
    line = torch.full((d, d), 1 / d, dtype=torch.float64)
    plane = torch.eye(d, dtype=torch.float64) - line
    expected = ((0.3 / 8.3) ** 0.5 + 0.01) * plane + 1.01 * line
    torch.testing.assert_close(direct_pred(0.3 * plane + 8.3 * line, 0.01), expected)


@pytest.mark.parametrize(("n", "d"), [(512, 128), (40, 128), (64, 8), (1, 5)])
def test_direct_pred_by_products_is_that_by_eigenvectors(n, d):
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(n, d, generator=draw) * torch.logspace(1, -3, d)
    found, expected = (by(correlation(z), 0.01) for by in (_by_products, _by_eigenvectors))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)
    torch.testing.assert_close(found, found.T)


def test_direct_pred_by_products_is_finite_where_there_is_nothing():
    for f in (torch.zeros(3, 3), torch.ones(3, 3), torch.diag(torch.tensor([4.0, 1.0, -1e-7]))):
        assert _by_products(f, 0.0).isfinite().all()
    torch.testing.assert_close(
        _by_products(torch.diag(torch.tensor([4.0, 1.0, 0.0])), 0.01),
        torch.diag(torch.tensor([1.01, 0.51, 0.01])),
        rtol=0,
        atol=2e-3,
    )


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


@pytest.mark.parametrize(("n_views", "n_global"), [(2, 2), (5, 2), (4, 3)])
def test_dino_is_the_literal_sum_over_pairs_of_other_views(n_views, n_global):
    student, teacher = random_rows(n_views), random_rows(n_global, seed=1)
    center = torch.linspace(-1, 1, 5, dtype=torch.float64)
    total, terms = 0.0, 0
    for g in range(n_global):
        for v in range(n_views):
            if v != g:
                t, s = teacher[g].detach().numpy(), student[v].detach().numpy()
                terms += 1
                for i in range(6):
                    target = softmax((t[i] - center.numpy()) / 0.05)
                    total -= sum(target * np.log(softmax(s[i] / 0.2))) / 6
    found = losses.dino(torch.stack(student), torch.stack(teacher), center, 0.2, 0.05)
    assert found.item() == pytest.approx(total / terms, rel=1e-12)
    found.backward()
    assert all(s.grad.abs().sum() > 0 for s in student)
    assert all(t.grad is None for t in teacher)


def crops(estimator, X):
    """A net in float64 and a batch of two global and three local views, of other numbers each time."""
    net = estimator._make_trainer(as_images(X)).module_.double().train()
    draw = torch.Generator().manual_seed(0)

    def batch():
        sizes = [16, 16, 7, 7, 7]
        views = [torch.randn(12, 3, s, s, generator=draw, dtype=torch.float64) for s in sizes]
        return Batch(torch.zeros(12, 3, 16, 16), views, torch.arange(12))

    return net, batch


def test_dinos_teacher_sees_global_views_and_its_centre_moves_after_the_loss(X):
    estimator = quick(skssl.DINO, augment=skssl.MultiCrop(n_local=3), precision="float32")
    net, draw = crops(estimator, X)
    seen = []
    net.target.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    center = np.zeros(12)
    for _ in range(3):
        batch = draw()
        with torch.no_grad():
            for p in net.target.parameters():
                p.add_(torch.randn(p.shape, dtype=p.dtype), alpha=0.05)
        student = [net.encoder(torch.cat(batch.views[:2])), net.encoder(torch.cat(batch.views[2:]))]
        student = net.prototypes(net.projector(torch.cat(student))).chunk(5)
        teacher = net.target(torch.cat(batch.views[:2])).chunk(2)
        seen.clear()
        expected = losses.dino(
            torch.stack(student), torch.stack(teacher), torch.from_numpy(center), 0.1, net.teacher_temperature
        )
        torch.testing.assert_close(estimator.losses(net, batch)["dino"], expected)
        assert seen == [(24, 3, 16, 16)]
        center = 0.9 * center + 0.1 * np.mean([row for t in teacher for row in t.detach().numpy()], axis=0)
        np.testing.assert_allclose(net.center.numpy(), center, rtol=1e-10, atol=1e-13)
    expected.backward()
    assert reached(net) == {"encoder", "projector", "prototypes"}


def test_dinos_teacher_follows_the_whole_head(X):
    estimator, net, _ = built(skssl.DINO, X)
    assert not any(p.requires_grad for p in net.target.parameters())
    old = [p.clone() for p in net.target.parameters()]
    online = [p for part in (net.encoder, net.projector, net.prototypes) for p in part.parameters()]
    with torch.no_grad():
        for p in online:
            p.add_(1.0)
    estimator.after_step(net, 0, progress=0.25)
    m = cosine_schedule(0.99, 1.0, 0.25)
    for a, b, c in zip(old, net.target.parameters(), online, strict=True):
        torch.testing.assert_close(b, m * a + (1 - m) * c)


def test_dinos_teacher_can_be_evaluated(X):
    estimator = quick(skssl.DINO, epochs=2, lr=0.1, precision="float32").fit(X)
    teacher = estimator.net_.module_.target[0].eval()
    views = estimator.net_.augmentations[0].normalize(torch.from_numpy(X.copy()).permute(0, 3, 1, 2))
    with torch.no_grad():
        features = teacher(views).numpy()
    assert features.shape == (40, 128)
    assert not np.allclose(features, estimator.transform(X), atol=1e-3), "which are the student's"


def test_dinos_last_layer_is_frozen_in_the_first_epoch_and_trained_later(X):
    estimator = quick(skssl.DINO, epochs=3, freeze_last_layer=1, weight_decay=0.1, schedule="constant")
    weights = [quick(skssl.DINO, epochs=0, freeze_last_layer=1).fit(X).net_.module_.prototypes.weight.detach().clone()]
    for _ in range(3):
        net = estimator.partial_fit(X).net_
        weights.append(net.module_.prototypes.weight.detach().clone())
        assert not net.module_.target[2].weight.requires_grad
    assert torch.equal(weights[0], weights[1]), "neither gradient nor weight decay nor momentum moves it"
    assert not torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[2], weights[3])
    trained = {id(p) for group in net.optimizer_.param_groups for p in group["params"]}
    assert id(net.module_.prototypes.weight) in trained


def test_dinos_prototypes_are_cosines():
    layer = CosinePrototypes(3, 4, bias=False).double()
    z = torch.randn(2, 5, 3, dtype=torch.float64)
    weight = layer.weight.detach().numpy()
    for i in range(2):
        for j in range(5):
            for k in range(4):
                a, b = z[i, j].numpy(), weight[k]
                expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                assert layer(z)[i, j, k].item() == pytest.approx(expected, rel=1e-12)


def test_dino_clips_each_parameter_by_itself(X):
    estimator, net, _ = built(skssl.DINO, X)
    parameters = [p for p in net.parameters() if p.requires_grad]
    for i, p in enumerate(parameters[:-1]):  # the last has no gradient
        p.grad = torch.randn_like(p)
        p.grad *= (1.0 + i) / p.grad.norm()
    before = [p.grad.clone() for p in parameters[:-1]]
    estimator.after_backward(net)
    for i, (p, g) in enumerate(zip(parameters, before, strict=False)):
        torch.testing.assert_close(p.grad, g * min(1.0, 3 / (1 + i)), rtol=1e-5, atol=0)
    assert parameters[-1].grad is None
    parameters[0].grad.fill_(9.0)
    quick(skssl.DINO, clip_grad=None).after_backward(net)
    assert (parameters[0].grad == 9).all()


def test_dino_warms_the_teacher_up(X):
    estimator, net, _ = built(skssl.DINO, X, warmup_teacher_epochs=2, teacher_temperature=0.08)
    found = []
    for epoch in range(4):
        estimator.before_epoch(net, epoch, None)
        found.append(net.teacher_temperature.item())
    assert found == pytest.approx([0.04, 0.06, 0.08, 0.08])
    estimator, net, _ = built(skssl.DINO, X, teacher_temperature=0.08)
    estimator.before_epoch(net, 0, None)
    assert net.teacher_temperature.item() == pytest.approx(0.08)


def test_dino_trains_on_crops_of_two_sizes(X):
    for n_local in (0, 2):
        history = quick(skssl.DINO, augment=skssl.MultiCrop(n_local=n_local), aux="rotation").fit(X).history_
        assert np.isfinite(history["dino"]).all()


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        (skssl.BarlowTwins, {"lambd": -1}, "'lambd' parameter of BarlowTwins must be .* Got -1 instead"),
        (skssl.BarlowTwins, {"loss_scale": 0}, "'loss_scale' parameter of BarlowTwins must be .* Got 0 instead"),
        (skssl.DirectPred, {"direct": "set"}, "'direct' parameter of DirectPred must be .* Got 'set' instead"),
        (skssl.DirectPred, {"freq": 0}, "'freq' parameter of DirectPred must be .* Got 0 instead"),
        (skssl.DirectPred, {"rho": 1.0}, "'rho' parameter of DirectPred must be .* Got 1.0 instead"),
        (skssl.DINO, {"teacher_temperature": 0}, "'teacher_temperature' parameter of DINO must be .* Got 0 instead"),
        (skssl.DINO, {"clip_grad": 0.0}, "'clip_grad' parameter of DINO must be .* Got 0.0 instead"),
        (skssl.DINO, {"freeze_last_layer": -1}, "'freeze_last_layer' parameter of DINO must be .* Got -1 instead"),
        (skssl.VICReg, {"cov": -1}, "'cov' parameter of VICReg must be .* Got -1 instead"),
    ],
)
def test_wrong_parameters_are_refused(method, params, message, X):
    with pytest.raises(ValueError, match=message):
        method(backbone="convnet", **params).fit(X)
