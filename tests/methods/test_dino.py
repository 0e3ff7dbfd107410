"""DINO: loss, teacher, centre, frozen prototypes and clipping."""

import numpy as np
import pytest
import torch
from conftest import quick
from helpers import built, random_rows, reached

import skssl
from skssl import losses
from skssl.images import as_images
from skssl.methods.distillation import CosinePrototypes
from skssl.nn.momentum import cosine_schedule
from skssl.training.objective import Batch


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


@pytest.mark.parametrize(("n_views", "n_global"), [(2, 2), (5, 2), (4, 3)])
def test_dino_equals_a_literal_loop(n_views, n_global):
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
    """Make a net in float64 and a function that returns batches of two global and three local views."""
    net = estimator._make_trainer(as_images(X)).module_.double().train()
    draw = torch.Generator().manual_seed(0)

    def batch():
        sizes = [16, 16, 7, 7, 7]
        views = [torch.randn(12, 3, s, s, generator=draw, dtype=torch.float64) for s in sizes]
        return Batch(torch.zeros(12, 3, 16, 16), views, torch.arange(12))

    return net, batch


def test_dino_teacher_sees_global_views_and_centre_is_updated_after_the_loss(X):
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


def test_dino_teacher_copies_the_whole_head(X):
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


def test_dino_teacher_can_be_evaluated(X):
    estimator = quick(skssl.DINO, epochs=2, lr=0.1, precision="float32").fit(X)
    teacher = estimator.net_.module_.target[0].eval()
    views = estimator.net_.augmentations[0].normalize(torch.from_numpy(X.copy()).permute(0, 3, 1, 2))
    with torch.no_grad():
        features = teacher(views).numpy()
    assert features.shape == (40, 128)
    assert not np.allclose(features, estimator.transform(X), atol=1e-3), "transform uses the student"


def test_dino_last_layer_is_frozen_in_the_first_epoch(X):
    estimator = quick(skssl.DINO, epochs=3, freeze_last_layer=1, weight_decay=0.1, schedule="constant")
    weights = [quick(skssl.DINO, epochs=0, freeze_last_layer=1).fit(X).net_.module_.prototypes.weight.detach().clone()]
    for _ in range(3):
        net = estimator.partial_fit(X).net_
        weights.append(net.module_.prototypes.weight.detach().clone())
        assert not net.module_.target[2].weight.requires_grad
    assert torch.equal(weights[0], weights[1]), "gradient, weight decay and momentum do not change it"
    assert not torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[2], weights[3])
    trained = {id(p) for group in net.optimizer_.param_groups for p in group["params"]}
    assert id(net.module_.prototypes.weight) in trained


def test_dino_prototypes_are_cosines():
    layer = CosinePrototypes(3, 4, bias=False).double()
    z = torch.randn(2, 5, 3, dtype=torch.float64)
    weight = layer.weight.detach().numpy()
    for i in range(2):
        for j in range(5):
            for k in range(4):
                a, b = z[i, j].numpy(), weight[k]
                expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                assert layer(z)[i, j, k].item() == pytest.approx(expected, rel=1e-12)


def test_dino_clips_the_gradient_of_each_parameter(X):
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


def test_dino_teacher_temperature_warms_up(X):
    estimator, net, _ = built(skssl.DINO, X, warmup_teacher_epochs=2, teacher_temperature=0.08)
    found = []
    for epoch in range(4):
        estimator.before_epoch(net, epoch, None)
        found.append(net.teacher_temperature.item())
    assert found == pytest.approx([0.04, 0.06, 0.08, 0.08])
    estimator, net, _ = built(skssl.DINO, X, teacher_temperature=0.08)
    estimator.before_epoch(net, 0, None)
    assert net.teacher_temperature.item() == pytest.approx(0.08)


def test_dino_trains_with_multi_crop(X):
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
def test_invalid_parameters_raise(method, params, message, X):
    with pytest.raises(ValueError, match=message):
        method(backbone="convnet", **params).fit(X)
