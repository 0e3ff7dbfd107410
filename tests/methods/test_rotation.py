"""RotNet, and rotation as an auxiliary task of the methods."""

import numpy as np
import pytest
import torch
from conftest import quick
from helpers import built, reached
from sklearn.exceptions import NotFittedError
from torch import nn

import skssl
import skssl.datasets
from skssl.pretext.rotation import corrupt_labels


def test_rotnet_encodes_all_rotations_in_one_batch(X):
    estimator, net, batch = built(skssl.RotNet, X)
    numbers = estimator.losses(net, batch)
    (view,) = batch.views
    images = [torch.rot90(image, k, (1, 2)) for k in range(4) for image in view]
    scores = net.turn_classifier(net.encoder(torch.stack(images))).float()
    label = torch.tensor([k for k in range(4) for _ in view])
    torch.testing.assert_close(numbers["rotation"], nn.functional.cross_entropy(scores, label))
    assert numbers["rotation_accuracy"].item() == pytest.approx((scores.argmax(1) == label).float().mean().item())


@pytest.mark.parametrize("head", ["projector", "backbone"])
def test_rotation_task_sums_over_two_views(head, X):
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


def test_method_loss_does_not_see_rotated_views(X):
    estimator, net, batch = built(skssl.SimSiam, X, aux="rotation")
    alone = estimator.losses(net, batch)["negative_cosine"]
    torch.testing.assert_close(net(batch)["negative_cosine"], alone.detach())


@pytest.mark.parametrize("method", [skssl.BYOL, skssl.BYOLGSG, skssl.SimSiam, skssl.MoCo, skssl.LeOCLR, skssl.DINO])
def test_rotation_task_uses_encoder_and_projector_only(method, X):
    task = skssl.Rotation()
    _, net, batch = built(method, X, aux=task)
    seen = []
    for name, module in net.named_children():
        module.register_forward_pre_hook(lambda module, given, name=name: seen.append(name))
    task.losses(net, batch)["rotation"].backward()
    assert seen == ["encoder", "projector", "rotation_head"] * 2
    assert reached(net) == {"encoder", "projector", "rotation_head"}


@pytest.mark.parametrize("method", [skssl.SwAV, skssl.DINO, skssl.DeepClusterV2])
def test_rotation_task_does_not_rotate_small_crops(method, X):
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


def test_rotation_defaults_match_the_paper_except_for_byol():
    assert skssl.Rotation().head == "projector"
    found = {
        method: method.default_settings.aux_weight for method in (skssl.SimCLR, skssl.BYOL, skssl.SimSiam, skssl.SwAV)
    }
    assert found == {skssl.SimCLR: 1.0, skssl.BYOL: 1.0, skssl.SimSiam: 0.1, skssl.SwAV: 0.5}
    assert skssl.SimSiamGSG.default_settings.aux_weight == skssl.BYOLGSG.default_settings.aux_weight == 0.1, (
        "as their losses' scale"
    )


def test_rotation_labels_match_the_rotated_views(X):
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


def test_corrupt_labels_replaces_a_share_of_labels():
    torch.manual_seed(0)
    label = torch.randint(4, (20000,))
    noisy = corrupt_labels(label, 4, 0.3)
    wrong = noisy != label
    assert wrong.float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert np.bincount(((noisy - label) % 4)[wrong].numpy(), minlength=4)[1:] / wrong.sum().item() == pytest.approx(
        [1 / 3] * 3, abs=0.02
    )
    assert corrupt_labels(label, 4, 0.0) is label


def test_label_noise_affects_the_loss_but_not_the_accuracy(X):
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
    noisy = [corrupt_labels(label, 4, 0.5) for label in labels]
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
    torch.testing.assert_close(found["rotation"], nn.functional.cross_entropy(scores, corrupt_labels(label, 4, 0.5)))
    assert found["rotation_accuracy"].item() == pytest.approx((scores.argmax(1) == label).float().mean().item())


def test_rotnet_learns_rotations_of_shapes():
    """The accuracy is well above chance after a few epochs."""
    X, _ = skssl.datasets.make_shapes(256, image_size=16, random_state=0)
    history = quick(skssl.RotNet, epochs=6, batch_size=32, lr=0.1).fit(X).history_
    assert history["rotation_accuracy"].iloc[-1] > 0.4
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]


# Weights of rotated images for rotation decoupling


@pytest.mark.parametrize("angles", [(0, 90, 180, 270), (90, 270, -360, 180)])
def test_pu_weights_equal_the_papers_formula(angles, X):
    rotnet = quick(skssl.RotNet, epochs=3, batch_size=16, lr=0.1, angles=angles, precision="float32").fit(X[:30])
    layer = rotnet.net_.module_.turn_classifier
    w, b = (value.detach().numpy().astype(np.float64) for value in (layer.weight, layer.bias))
    expected = np.ones((40, 4))
    for k in range(1, 4):
        features = rotnet.transform(np.rot90(X, k, (1, 2)).copy())
        for i in range(40):
            odds = np.exp(w @ features[i].astype(np.float64) + b)
            expected[i, k] = 1 - (odds[[angle % 360 for angle in angles].index(0)] / odds.sum()) ** 3
    found = rotnet.pu_weights(X, gamma=3)
    assert (found.shape, found.dtype) == ((40, 4), np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.ptp(found[:, 1:]) > 1e-3
    np.testing.assert_allclose(rotnet.pu_weights(X)[:, 1:], 1 - np.cbrt(1 - expected[:, 1:]) ** 2, rtol=1e-4)
    quick(skssl.RotationDecoupling, pu_weights=found, pu_start=0.0).fit(X)


def test_pu_weights_are_low_for_images_without_direction(X):
    """RotNet cannot tell the rotation of a uniform image: its four rotations share one probability."""
    rotnet = quick(skssl.RotNet, epochs=1).fit(X)
    flat = np.full_like(X[:4], 100) + np.arange(4, dtype=np.uint8)[:, None, None, None]
    weights = rotnet.pu_weights(flat)
    assert (weights[:, 0] == 1).all()
    np.testing.assert_allclose(weights[:, 1:], weights[:, 1:2].repeat(3, 1), rtol=1e-4)
    assert (weights[:, 1:] < 1).all()


def test_pu_weights_refuse_other_angles_and_exponents(X):
    with pytest.raises(ValueError, match=r"needs a RotNet of the angles 0, 90, 180 and 270\. Got \(0, 180\)"):
        quick(skssl.RotNet, angles=(0, 180), epochs=0).fit(X).pu_weights(X)
    with pytest.raises(ValueError, match=r"gamma must be a number above 0\. Got 0"):
        quick(skssl.RotNet, epochs=0).fit(X).pu_weights(X, gamma=0)
    with pytest.raises(NotFittedError):
        skssl.RotNet().pu_weights(X)
