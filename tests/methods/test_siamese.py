"""What is a method's own: its loss from its networks, what the gradient reaches, and what moves otherwise."""

import math

import numpy as np
import pytest
import torch
from conftest import QUICK, quick
from helpers import Look, built, drift, reached
from torch import nn

import skssl
import skssl.datasets
from skssl import losses
from skssl.methods.momentum import MomentumMethod
from skssl.methods.settings import Settings
from skssl.nn.momentum import cosine_schedule
from skssl.pretext.rotation import mislabel


def test_simclr_normalises_both_views_as_one_batch(X):
    estimator, net, batch = built(skssl.SimCLR, X)
    found = estimator.losses(net, batch)["nt_xent"]
    z1, z2 = net.projector(net.encoder(torch.cat(batch.views))).chunk(2)
    torch.testing.assert_close(found, losses.nt_xent(z1, z2, estimator.temperature))
    apart = losses.nt_xent(*(net.projector(net.encoder(v)) for v in batch.views), estimator.temperature)
    assert not torch.isclose(found, apart)
    found.backward()
    assert reached(net) == {"encoder", "projector"}


def test_simsiam_is_its_formula(X):
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
def test_guided_methods_pair_as_the_papers_algorithm(method, pairing, rule, X):
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


def test_gsgs_variants_of_byol_are_on_one_scale_with_their_baseline(X):
    """One learning rate serves them all: the baseline has half the negative cosines, not BYOL's squared distances."""
    estimator, net, batch = built(skssl.BYOLGSG, X, stop_gradient="symmetric")
    drift(net.target)
    p1, p2 = (net.predictor(net.projector(net.encoder(v))) for v in batch.views)
    z1, z2 = (net.target(v) for v in batch.views)
    found = estimator.losses(net, batch)
    cosine = nn.functional.cosine_similarity
    expected = -cosine(p1, z2).mean() / 2 - cosine(p2, z1).mean() / 2
    torch.testing.assert_close(found, {"negative_cosine": expected})


def test_byol_predicts_the_momentum_copy(X):
    estimator, net, batch = built(skssl.BYOL, X)
    drift(net.target)
    p1, p2 = (net.predictor(net.projector(net.encoder(v))) for v in batch.views)
    z1, z2 = (net.target(v) for v in batch.views)
    loss = estimator.losses(net, batch)["byol"]
    torch.testing.assert_close(loss, losses.byol_loss(p1, p2, z1, z2))
    loss.backward()
    assert reached(net) == {"encoder", "projector", "predictor"}


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_momentum_copy_follows_by_its_schedule(schedule, X):
    estimator, net, _ = built(skssl.BYOL, X, ema_momentum=0.9, ema_schedule=schedule)
    old = [p.clone() for p in net.target.parameters()]
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1.0)
    fast = [*net.encoder.parameters(), *net.projector.parameters()]
    start = [p + 1 for p in old]
    estimator.after_step(net, 0, progress=0.25)
    m = cosine_schedule(0.9, 1.0, 0.25) if schedule == "cosine" else 0.9
    for a, b, c in zip(start, net.target.parameters(), fast, strict=True):
        torch.testing.assert_close(b, m * a + (1 - m) * c)


def both(net):
    """The parameters of what is followed and of the copy."""
    fast = [p.detach().clone() for part in net.method.parts(net) for p in part.parameters()]
    return fast, [p.clone() for p in net.target.parameters()]


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
@pytest.mark.parametrize("method", [method for method in QUICK if issubclass(method, MomentumMethod)])
def test_the_copy_follows_the_trained_network_step_by_step(method, schedule, X):
    look = Look(both)
    quick(method, epochs=3, ema_momentum=0.7, ema_schedule=schedule, lr=0.1, warmup_epochs=0, callbacks=[look]).fit(X)
    (fast, copy), *steps = look.seen
    assert all(map(torch.equal, fast, copy)), "the copy starts with the trained network's weights"
    assert len(steps) == 6
    for k, (online, slow) in enumerate(steps, start=1):
        m = 1 - 0.3 * (1 + math.cos(math.pi * k / 6)) / 2 if schedule == "cosine" else 0.7
        assert not all(map(torch.equal, fast, online)), "the optimiser's step comes first"
        copy = [m * old + (1 - m) * new for old, new in zip(copy, online, strict=True)]
        torch.testing.assert_close(slow, copy)
        fast = online


def test_the_copy_normalises_by_the_batch_and_keeps_statistics_of_its_own(X):
    look = Look(lambda net: all(module.training for module in net.target.modules()))
    estimator = quick(skssl.BYOL, epochs=2, ema_momentum=1.0, callbacks=[look])
    estimator.partial_fit(X).transform(X)
    net = estimator.partial_fit(X).net_.module_
    assert look.seen == [True] * 5
    slow, fast = net.target[0].features[1], net.encoder.features[1]
    assert slow.num_batches_tracked == 2 * 4, "two views in each of four steps"
    assert slow.running_mean.abs().sum() > 0
    assert not torch.allclose(slow.running_mean, fast.running_mean)


def kinds(head):
    return [type(layer).__name__ for layer in head]


@pytest.mark.parametrize("method", [skssl.SimSiam, skssl.SimSiamGSG, skssl.BYOLGSG])
def test_simsiams_heads(method, X):
    for layers in (2, 3):
        _, net, _ = built(method, X, proj_layers=layers)
        assert kinds(net.projector) == ["Linear", "BatchNorm1d", "ReLU"] * (layers - 1) + ["Linear", "BatchNorm1d"]
        assert not net.projector[-1].affine, "no scale and shift at the end"
        assert kinds(net.predictor) == ["Linear", "BatchNorm1d", "ReLU", "Linear"], "no BatchNorm at the end"
        assert net.predictor[0].bias is None
        assert net.predictor[-1].bias is not None
        assert [net.predictor[0].in_features, net.predictor[0].out_features] == [16, 8]


def test_byols_heads(X):
    _, net, _ = built(skssl.BYOL, X)
    for head, widths in [(net.projector, (128, 16, 8)), (net.predictor, (8, 16, 8))]:
        assert kinds(head) == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
        assert (head[0].in_features, head[0].out_features, head[-1].out_features) == widths
        assert head[-1].bias is None
    assert len(net.target) == 2, "encoder and projector: the copy has no predictor"


def test_predictors_rate_is_constant(X):
    for method, constant in [
        (skssl.SimSiam, True),
        (skssl.SimSiamGSG, True),
        (skssl.BYOLGSG, True),
        (skssl.BYOL, False),
    ]:
        net = quick(method, epochs=3, lr=0.1, schedule="cosine").fit(X).net_
        assert {group["weight_decay"] for group in net.optimizer_.param_groups} == {5e-4}, "of all parameters"
        rates = {group["scheduled"]: group["lr"] for group in net.optimizer_.param_groups}
        assert rates[True] < 0.05
        assert rates.get(False) == (0.1 if constant else None)


def test_without_a_predictor_the_projection_is_the_prediction(X):
    estimator, net, batch = built(skssl.SimSiam, X, predictor=False)
    z1, z2 = (net.projector(net.encoder(v)) for v in batch.views)
    expected = -nn.functional.cosine_similarity(z1, z2).mean()
    found = estimator.losses(net, batch)["negative_cosine"]
    torch.testing.assert_close(found, expected)
    expected = losses.negative_cosine(z1, z2.detach()) / 2 + losses.negative_cosine(z2, z1.detach()) / 2
    parameters = list(net.encoder.parameters())
    for a, b in zip(*(torch.autograd.grad(loss, parameters) for loss in (found, expected)), strict=True):
        torch.testing.assert_close(a, b)


def test_rotnet_sees_every_turn_of_every_image_in_one_batch(X):
    estimator, net, batch = built(skssl.RotNet, X)
    numbers = estimator.losses(net, batch)
    (view,) = batch.views
    images = [torch.rot90(image, k, (1, 2)) for k in range(4) for image in view]
    scores = net.turn_classifier(net.encoder(torch.stack(images))).float()
    label = torch.tensor([k for k in range(4) for _ in view])
    torch.testing.assert_close(numbers["rotation"], nn.functional.cross_entropy(scores, label))
    assert numbers["rotation_accuracy"].item() == pytest.approx((scores.argmax(1) == label).float().mean().item())


@pytest.mark.parametrize("head", ["projector", "backbone"])
def test_rotation_task_is_the_sum_over_two_views(head, X):
    task = skssl.Rotation(head=head)
    _, net, batch = built(skssl.SimSiam, X, aux=task)
    torch.manual_seed(5)
    found = task.losses(net, batch)
    torch.manual_seed(5)
    expected = 0.0
    for view in batch.views:
        label = torch.randint(4, (12,))
        turned = torch.stack([torch.rot90(v, int(k), (1, 2)) for v, k in zip(view, label, strict=True)])
        h = net.encoder(turned)
        h = net.projector(h) if head == "projector" else h
        expected = expected + nn.functional.cross_entropy(net.rotation_head(h).float(), label)
    torch.testing.assert_close(found["rotation"], expected)
    found["rotation"].backward()
    assert reached(net) == {"encoder", "rotation_head"} | ({"projector"} if head == "projector" else set())


def test_the_methods_own_loss_never_sees_a_turned_view(X):
    estimator, net, batch = built(skssl.SimSiam, X, aux="rotation")
    alone = estimator.losses(net, batch)["negative_cosine"]
    torch.testing.assert_close(net(batch)["negative_cosine"], alone.detach())


@pytest.mark.parametrize("method", [skssl.BYOL, skssl.BYOLGSG, skssl.SimSiam, skssl.MoCo, skssl.LeOCLR, skssl.DINO])
def test_rotation_goes_through_the_trained_encoder_and_not_through_copy_or_predictor(method, X):
    task = skssl.Rotation()
    _, net, batch = built(method, X, aux=task)
    seen = []
    for name, module in net.named_children():
        module.register_forward_pre_hook(lambda module, given, name=name: seen.append(name))
    task.losses(net, batch)["rotation"].backward()
    assert seen == ["encoder", "projector", "rotation_head"] * 2
    assert reached(net) == {"encoder", "projector", "rotation_head"}


@pytest.mark.parametrize("method", [skssl.SwAV, skssl.DINO, skssl.DeepClusterV2])
def test_small_crops_are_not_turned(method, X):
    task = skssl.Rotation(head="backbone")
    _, net, batch = built(method, X, aux=task, augment=skssl.MultiCrop(n_global=3, n_local=2))
    batch.views = [*batch.views, batch.views[0].flip(0), *(view[..., :7, :7] for view in batch.views)]
    seen = []
    net.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    task.losses(net, batch)
    assert len(seen) == 2, "one pass for each of the first two crops"
    for view, turned in zip(batch.views, seen, strict=False):
        sums = view.sum((1, 2, 3)), turned.sum((1, 2, 3))
        torch.testing.assert_close(*sums)


def test_rotations_default_is_the_papers_text_with_its_weights_for_cifar():
    assert skssl.Rotation().head == "projector"
    found = {
        method: method.default_settings.aux_weight for method in (skssl.SimCLR, skssl.BYOL, skssl.SimSiam, skssl.SwAV)
    }
    assert found == {skssl.SimCLR: 1.0, skssl.BYOL: 5.0, skssl.SimSiam: 0.1, skssl.SwAV: 0.5}
    assert skssl.SimSiamGSG.default_settings.aux_weight == skssl.BYOLGSG.default_settings.aux_weight == 0.1, (
        "as their losses' scale"
    )


def test_turns_and_labels_agree(X):
    task = skssl.Rotation(angles=(90, -90, 720))
    _, net, batch = built(skssl.SimSiam, X, aux=task)
    seen = []
    net.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    counts = np.zeros(3)
    for _ in range(15):
        seen.clear()
        torch.manual_seed(int(counts.sum()))
        task.losses(net, batch)
        torch.manual_seed(int(counts.sum()))
        for view, turned in zip(batch.views, seen, strict=True):
            label = torch.randint(3, (12,))
            for image, result, k in zip(view, turned, label, strict=True):
                assert torch.equal(torch.rot90(image, (1, 3, 0)[int(k)], (1, 2)), result)
            counts += np.bincount(label, minlength=3)
    assert counts / counts.sum() == pytest.approx([1 / 3] * 3, abs=0.08)


def test_label_noise_replaces_its_share_by_wrong_labels_only():
    torch.manual_seed(0)
    label = torch.randint(4, (20000,))
    noisy = mislabel(label, 4, 0.3)
    wrong = noisy != label
    assert wrong.float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert np.bincount(((noisy - label) % 4)[wrong].numpy(), minlength=4)[1:] / wrong.sum().item() == pytest.approx(
        [1 / 3] * 3, abs=0.02
    )
    assert mislabel(label, 4, 0.0) is label


def test_noisy_labels_enter_the_loss_and_not_the_accuracy(X):
    task = skssl.Rotation(head="backbone", label_noise=0.5)
    _, net, batch = built(skssl.SimSiam, X, aux=task)
    torch.manual_seed(5)
    found = task.losses(net, batch)
    torch.manual_seed(5)
    scores, labels = [], []
    for view in batch.views:
        labels.append(torch.randint(4, (12,)))
        turned = torch.stack([torch.rot90(v, int(k), (1, 2)) for v, k in zip(view, labels[-1], strict=True)])
        scores.append(net.rotation_head(net.encoder(turned)).float())
    noisy = [mislabel(label, 4, 0.5) for label in labels]
    expected = sum(nn.functional.cross_entropy(*pair) for pair in zip(scores, noisy, strict=True))
    torch.testing.assert_close(found["rotation"], expected)
    right = torch.cat([s.argmax(1) == k for s, k in zip(scores, labels, strict=True)])
    assert found["rotation_accuracy"].item() == pytest.approx(right.float().mean().item())

    estimator, net, batch = built(skssl.RotNet, X, label_noise=0.5)
    torch.manual_seed(5)
    found = estimator.losses(net, batch)
    torch.manual_seed(5)
    label = torch.arange(4).repeat_interleave(12)
    turned = torch.cat([torch.rot90(batch.views[0], k, (2, 3)) for k in range(4)])
    scores = net.turn_classifier(net.encoder(turned)).float()
    torch.testing.assert_close(found["rotation"], nn.functional.cross_entropy(scores, mislabel(label, 4, 0.5)))
    assert found["rotation_accuracy"].item() == pytest.approx((scores.argmax(1) == label).float().mean().item())


def test_copies_follow_in_epochs_beyond_those_planned(X):
    estimator = quick(skssl.BYOL).fit(X)
    before = [p.clone() for p in estimator.net_.module_.target.parameters()]
    estimator.partial_fit(X)
    assert any(not torch.equal(a, b) for a, b in zip(before, estimator.net_.module_.target.parameters(), strict=True))


def test_rotation_is_learnt_on_real_shapes():
    """Behaviour, not only formulas: upright shapes can be told from turned ones after a few epochs."""
    X, _ = skssl.datasets.make_shapes(256, image_size=16, random_state=0)
    history = quick(skssl.RotNet, epochs=6, batch_size=32, lr=0.1).fit(X).history_
    assert history["rotation_accuracy"].iloc[-1] > 0.4
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]


def test_settings_refuse_unknown_and_missing_names():
    for wrong in ({"learning_rate": 0.1}, {"lr": 0.1}):
        with pytest.raises(TypeError, match=r"unexpected keyword|missing"):
            Settings(**wrong)
