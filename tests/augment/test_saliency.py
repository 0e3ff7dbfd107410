"""Grad-CAM, and crops that follow its maps."""

import numpy as np
import pytest
import torch
from conftest import quick
from torch import nn

import skssl
from skssl import Augmentation
from skssl.augment import draws, grad_cam, salient_crops, sample_crops
from skssl.augment.normalization import IMAGENET_MEAN, IMAGENET_STD
from skssl.backbones import ConvNet


def test_salient_crops_takes_the_first_box_above_the_mean_or_the_last():
    draw = torch.Generator().manual_seed(0)
    maps = torch.rand(200, 9, 12, generator=draw) ** 3
    boxes = [side.view(200, 4) for side in sample_crops(800, (9, 12), (0.08, 1.0), (3 / 4, 4 / 3), draw)]
    found = torch.stack(salient_crops(boxes, maps), dim=1)
    counts = [0] * 4
    for i in range(200):
        for k in range(4):
            top, left, height, width = (int(side[i, k]) for side in boxes)
            if k == 3 or maps[i, top : top + height, left : left + width].mean() > maps[i].mean():
                break
        counts[k] += 1
        assert found[i].tolist() == [top, left, height, width]
    assert min(counts) > 5, "every case has come"


@pytest.mark.parametrize(("jitter", "n_views"), [(0.0, 1), (0.8, 1), (0.8, 2)])
def test_crops_follow_the_saliency_map_of_their_own_image(jitter, n_views):
    """Images are 1 where their map is, each in a quadrant of its own, so that a crop's mean is its score."""
    marked = torch.zeros(40, 1, 16, 16)
    for i in range(40):
        marked[i, :, 8 * (i % 2) :, :][:, : 8 if i % 2 == 0 else 16, 8 * (i // 2 % 2) :][:, :, :8] = 1
    index = torch.randperm(40, generator=torch.Generator().manual_seed(1)).repeat(20)
    images = marked[index].expand(-1, 3, -1, -1)
    share = {}
    for good in (0.0, 0.5, 1.0):
        augment = Augmentation(
            saliency=marked[:, 0, ::2, ::2].numpy(), good_crops=good, crop_scale=(0.1, 0.2), jitter=jitter, gray=0.0,
            brightness=0.0, contrast=0.0, saturation=0.0, hue=1e-9, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0),
        )  # fmt: skip
        views = augment(images, torch.Generator().manual_seed(0), index, n_views)
        share[good] = (views.mean((1, 2, 3)) > 0.25).float().mean().item()
        scores = views.mean((1, 2, 3)).view(n_views, -1)
        assert n_views == 1 or (scores[0] != scores[1]).float().mean() > 0.5, "each view has a crop of its own"
    assert share[1.0] > 0.97
    assert share[0.0] < 0.6
    assert share[0.5] == pytest.approx((share[0.0] + share[1.0]) / 2, abs=0.06)


def test_ten_crops_are_compared_before_the_last_is_taken(monkeypatch):
    tried = []
    monkeypatch.setattr(
        draws, "salient_crops", lambda boxes, maps: tried.append(boxes[0].shape) or salient_crops(boxes, maps)
    )
    view = Augmentation(saliency=np.ones((5, 4, 4)))
    view(torch.rand(5, 3, 8, 8), torch.Generator().manual_seed(0), torch.arange(5))
    assert tried == [(5, 10 + 1)]


def test_constant_saliency_map_crops_as_no_map():
    images = torch.rand(2000, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = Augmentation(jitter=0.0)
    even = Augmentation(jitter=0.0, saliency=np.ones((2000, 8, 8)))
    means = [
        a(images, torch.Generator().manual_seed(1), torch.arange(2000)).std((2, 3)).mean().item() for a in (plain, even)
    ]
    assert means[0] == pytest.approx(means[1], rel=0.02)


def test_maps_of_uint8_choose_the_crops_of_their_values():
    maps = np.random.default_rng(0).integers(0, 256, (20, 2, 2), dtype=np.uint8)
    images, index = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(20)
    views = [
        Augmentation(saliency=saliency)(images, torch.Generator().manual_seed(1), index)
        for saliency in (maps, maps.astype(np.float64))
    ]
    assert torch.equal(*views)


def test_saliency_maps_change_training_and_are_validated(X):
    maps = np.random.default_rng(0).random((40, 4, 4))
    fitted = quick(skssl.BYOL, augment=Augmentation(saliency=maps)).fit(X)
    assert not np.array_equal(fitted.transform(X), quick(skssl.BYOL, augment=Augmentation()).fit(X).transform(X))
    with pytest.raises(ValueError, match=r"one map for each training image: expected 40, got 39"):
        quick(skssl.BYOL, augment=Augmentation(saliency=maps[1:])).fit(X)
    with pytest.raises(ValueError, match=r"'saliency' parameter of Augmentation must be .*Got an array of 2 dim"):
        Augmentation(saliency=maps[0]).validate()
    with pytest.raises(ValueError, match=r"crop_scale=None"):
        Augmentation(saliency=maps, crop_scale=None).validate()
    with pytest.raises(ValueError, match="index is None"):
        Augmentation(saliency=maps)(torch.zeros(2, 3, 8, 8), torch.Generator())


@pytest.mark.parametrize("frozen", [False, True])
def test_grad_cam_matches_a_literal_version(frozen, X):
    torch.manual_seed(0)
    body = ConvNet()
    classifier = nn.Sequential(body, nn.Linear(128, 4)).train().requires_grad_(not frozen)
    classifier[1].eval()
    found = grad_cam(classifier, X, layer=body.features, batch_size=7)
    assert classifier.training
    assert not classifier[1].training, "each module's mode is put back"
    assert all(p.grad is None for p in classifier.parameters())
    classifier.eval()
    mean, std = (torch.tensor(of).view(3, 1, 1) for of in (IMAGENET_MEAN, IMAGENET_STD))
    for i in (0, 39):
        image = (torch.from_numpy(X[i].copy()).permute(2, 0, 1) / 255 - mean) / std
        maps = body.features(image[None])[0].detach().requires_grad_()
        classifier[1](maps.mean((1, 2))).max().backward()
        cam = torch.zeros(maps.shape[1:])
        for k in range(len(maps)):
            cam += maps.grad[k].mean() * maps[k].detach()
        cam = cam.relu()
        np.testing.assert_allclose(found[i], 255 * cam / max(float(cam.max()), 1e-12), atol=0.51)
    assert found.dtype == np.uint8
    assert found.shape == (40, 2, 2)
    assert found.max() == 255


def test_grad_cam_finds_its_layer_or_raises(X):
    import torchvision

    torch.manual_seed(0)
    small = skssl.backbones.build_backbone("resnet18", (3, 16, 16))[0]
    body, alexnet, densenet = ConvNet(), torchvision.models.alexnet(num_classes=3), torchvision.models.densenet121()
    large = torch.rand(2, 64, 64, 3).numpy()
    for classifier, layer, images in [
        (nn.Sequential(small, nn.Linear(512, 3)), small.layer4, X[:8]),  # as `FineTuner.classifier_`
        (nn.Sequential(body, nn.Linear(128, 3)), body.features, X[:8]),
        (torchvision.models.resnet18(num_classes=3), None, large),
        (alexnet, alexnet.features[11], large),  # before the pooling
        (densenet, densenet.features, large),
    ]:
        expected = grad_cam(classifier, images, layer=layer or classifier.layer4)
        assert np.array_equal(grad_cam(classifier, images), expected)
        assert expected.any()
    with pytest.raises(ValueError, match="no convolution"):
        grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(768, 2)), X)
