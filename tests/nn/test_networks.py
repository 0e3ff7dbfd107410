"""Heads, momentum copies and forward passes."""

import contextlib
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from skssl.backbones import build_backbone
from skssl.nn.heads import MLP
from skssl.nn.inference import eval_mode, fuse_batchnorm
from skssl.nn.momentum import cosine_schedule, momentum_copy, update_momentum


def test_heads_match_the_papers():
    simsiam = MLP((512, 2048, 2048), output_norm=True)
    assert [type(layer).__name__ for layer in simsiam] == [
        "Linear",
        "BatchNorm1d",
        "ReLU",
        "Linear",
        "BatchNorm1d",
    ]
    assert simsiam[-1].affine is False
    assert simsiam[0].bias is None
    assert simsiam[3].bias is None
    byol = MLP((512, 4096, 256), bias=False)
    assert byol[-1].bias is None
    assert byol.out_features == 256


def test_momentum_copy_averages_parameters_not_buffers():
    torch.manual_seed(0)
    fast = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    slow = momentum_copy(fast)
    with torch.no_grad():
        for p in fast.parameters():
            p.add_(torch.randn_like(p))
    before = [p.clone() for p in slow.parameters()]
    fast(torch.randn(8, 3))
    update_momentum(fast, slow, 0.9)
    for old, new, source in zip(before, slow.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * source)
    assert torch.equal(slow[1].running_mean, torch.zeros(4))
    assert fast[1].running_mean.abs().sum() > 0


def test_cosine_schedule_matches_byols_formula():
    for progress in (0.0, 0.3, 1.0):
        expected = 1 - (1 - 0.99) * (math.cos(math.pi * progress) + 1) / 2
        assert cosine_schedule(0.99, 1.0, progress) == pytest.approx(expected)


class Unknown(nn.Module):
    """A network of somebody else's, which looks between its layers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

    def forward(self, images):
        return self.layers[0](images) + self.layers(images)


@pytest.mark.parametrize("name", ["convnet", "audio_convnet", "resnet18", "alexnet_bn", "head"])
def test_fused_networks_have_the_same_output(name):
    torch.manual_seed(0)
    if name == "head":
        net, x = MLP((6, 8, 4), output_norm=True, output_affine=True), torch.randn(16, 6)
    else:
        net, x = build_backbone(name, (3, 64, 64))[0], torch.randn(4, 3, 64, 64)
    for _ in range(2):
        net.train()(x)  # moves the running statistics away from 0 and 1
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d) and part.weight is not None:
            nn.init.uniform_(part.weight, 0.5, 1.5)
    before = {key: value.clone() for key, value in net.eval().state_dict().items()}
    with torch.no_grad():
        torch.testing.assert_close(fuse_batchnorm(net)(x), net(x), rtol=1e-4, atol=1e-5)
    assert not any("BatchNorm" in type(part).__name__ for part in fuse_batchnorm(net).modules())
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])


def test_unknown_or_hooked_networks_are_not_fused():
    unknown = Unknown().eval()
    assert fuse_batchnorm(unknown) is unknown
    around = nn.Sequential(unknown, nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)).eval()
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(fuse_batchnorm(around)(images), around(images))
    assert [type(part).__name__ for part in fuse_batchnorm(around)] == ["Unknown", "Conv2d", "Identity"]
    watched = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    hook = watched[0].register_forward_hook(lambda *args: None)
    assert fuse_batchnorm(watched) is watched
    hook.remove()
    assert fuse_batchnorm(watched) is not watched
    by_batch = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    assert fuse_batchnorm(by_batch) is by_batch, "statistics of the batch cannot be folded"
    twice = nn.Conv2d(3, 3, 1)
    shared = nn.Sequential(twice, nn.BatchNorm2d(3), twice, nn.BatchNorm2d(3)).eval()
    assert fuse_batchnorm(shared) is shared, "a layer that two norms follow cannot be folded"


def test_fusing_is_thread_safe():
    net = build_backbone("convnet", (3, 16, 16))[0].eval()
    images = torch.randn(4, 3, 16, 16)
    with torch.no_grad(), ThreadPoolExecutor(8) as pool:
        expected = net(images)
        for found in pool.map(lambda _: fuse_batchnorm(net)(images), range(64)):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_eval_mode_lasts_until_the_last_thread_leaves():
    shared = nn.Dropout()
    first, second = nn.Sequential(shared, nn.ReLU()), nn.Sequential(nn.Dropout().eval(), shared)
    with contextlib.ExitStack() as stack:
        stack.enter_context(eval_mode(first))
        with eval_mode(second):  # as another thread does, whose turn ends in between
            stack.pop_all().close()
            assert not shared.training
            assert first.training
            assert first[1].training
        assert shared.training
    assert second.training
    assert not second[0].training
