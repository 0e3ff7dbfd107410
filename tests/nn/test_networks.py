"""Heads, momentum copies, encoders, optimisers and schedules."""

import contextlib
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from skssl.backbones import build_backbone, feature_map, map_channels, stages
from skssl.nn.heads import MLP
from skssl.nn.momentum import cosine_schedule, momentum_copy, update_momentum
from skssl.nn.passes import eval_mode, fuse_batchnorm
from skssl.probes.encoders import at_layer
from skssl.training.collapse import effective_rank, spread
from skssl.training.optim import LARC, LARS, make_optimizer, schedule_factor


def test_heads_have_the_papers_layers():
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


def test_momentum_copy_follows_parameters_and_keeps_its_own_statistics():
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


def test_cosine_ramp_is_byols_formula():
    for progress in (0.0, 0.3, 1.0):
        expected = 1 - (1 - 0.99) * (math.cos(math.pi * progress) + 1) / 2
        assert cosine_schedule(0.99, 1.0, progress) == pytest.approx(expected)


def test_spread_and_effective_rank_tell_health_from_collapse():
    draw = torch.Generator().manual_seed(0)
    even = torch.randn(2000, 64, generator=draw)
    assert spread(even).item() == pytest.approx(1, abs=0.02)
    assert effective_rank(even).item() > 60
    point = torch.ones(2000, 64) + 0.001 * even
    assert spread(point).item() < 0.01
    line = torch.randn(2000, 1, generator=draw) * torch.ones(64)
    assert effective_rank(line).item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("side", [32, 96])
def test_resnet_stem_depends_on_the_image_size(side):
    import torchvision

    encoder, dim = build_backbone("resnet18", (3, side, side))
    assert dim == 512
    assert encoder.conv1.kernel_size == ((3, 3) if side <= 64 else (7, 7))
    assert isinstance(encoder.maxpool, nn.Identity if side <= 64 else nn.MaxPool2d)
    expected = set(torchvision.models.resnet18(weights=None).state_dict()) - {"fc.weight", "fc.bias"}
    assert set(encoder.state_dict()) == expected
    assert encoder(torch.zeros(2, 3, side, side)).shape == (2, 512)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnets_blocks_begin_as_the_identity(name):
    encoder, _ = build_backbone(name, (3, 32, 32))
    last = "bn2" if name == "resnet18" else "bn3"
    gains = {module: p.abs().sum().item() for module, p in encoder.named_parameters() if module.endswith("weight")}
    assert all((gain == 0) == (f".{last}." in module) for module, gain in gains.items())


@pytest.mark.parametrize("name", ["convnet", "resnet18", "alexnet", "alexnet_bn"])
def test_features_are_what_a_relu_leaves(name):
    encoder, _ = build_backbone(name, (3, 64, 64))
    with torch.no_grad():
        features = encoder(torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert features.min() >= 0
    assert features.std() > 0


def test_alexnet_with_batchnorm_is_that_of_rotnet_and_rotation_decoupling():
    encoder, dim = build_backbone("alexnet_bn", (3, 224, 224))
    assert dim == 4096
    assert map_channels(encoder, (3, 224, 224)) == 256
    layers = [layer for layer in encoder.modules() if not list(layer.children())]
    kinds = [layer._get_name() for layer in layers]
    convolution, hidden = ["Conv2d", "BatchNorm2d", "ReLU"], ["Linear", "BatchNorm1d", "ReLU"]
    pooled = [*convolution, "MaxPool2d"]
    assert kinds == [*pooled * 2, *convolution * 2, *pooled, "AdaptiveAvgPool2d", *hidden * 2]
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    shapes = [(layer.out_channels, layer.kernel_size[0], layer.stride[0], layer.padding[0]) for layer in convolutions]
    assert shapes == [(64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1)]
    assert all(layer.bias is not None and layer.groups == 1 for layer in convolutions)
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features, layer.bias) for layer in linear] == [
        (9216, 4096, None),
        (4096, 4096, None),
    ]
    assert all(layer.affine for layer in layers if "BatchNorm" in type(layer).__name__)

    # Inner layers: up to the ReLU, pooled by the maximum to a side of 12, 7, 5, 6 and 6.
    images = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    found, grid = {}, images
    with torch.no_grad():
        for (name, stage), side in zip(stages(encoder.eval()).items(), (12, 7, 5, 6, 6), strict=True):
            grid = nn.Sequential(*stage[:3])(grid)
            found[name] = nn.functional.adaptive_max_pool2d(grid, side).flatten(1)
            grid = nn.Sequential(*stage[3:])(grid)
        assert list(found) == ["conv1", "conv2", "conv3", "conv4", "conv5"]
        for name, expected in found.items():
            torch.testing.assert_close(at_layer(encoder, None, name)(images), expected)


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize(("name", "side", "dim"), [("convnet", 8, 128), ("resnet50", 32, 2048), ("alexnet", 64, 4096)])
def test_encoders_read_any_number_of_channels(channels, name, side, dim):
    encoder, found = build_backbone(name, (channels, side, side))
    assert found == dim
    with torch.no_grad():
        assert encoder.eval()(torch.zeros(2, channels, side, side)).shape == (2, dim)


def test_a_module_is_copied_and_loses_its_classifier():
    import torchvision

    given = torchvision.models.mobilenet_v3_small(weights=None, num_classes=7)
    before = {name: value.clone() for name, value in given.state_dict().items()}
    encoder, dim = build_backbone(given, (1, 64, 64))
    assert dim == 1024
    assert given.state_dict().keys() == before.keys()
    assert all(torch.equal(given.state_dict()[name], value) for name, value in before.items())
    # Grey is read as a colour image with three equal channels would be.
    grey = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    given.classifier[-1] = nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(encoder.eval()(grey), given.eval()(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_a_map_is_pooled_and_a_callable_is_called():
    encoder, dim = build_backbone(lambda: nn.Conv2d(3, 7, 3), (3, 9, 9))
    assert dim == 7
    assert encoder(torch.zeros(2, 3, 9, 9)).shape == (2, 7)


@pytest.mark.parametrize(
    ("backbone", "side", "grid"),
    [
        ("convnet", 16, (128, 2, 2)),
        ("resnet18", 32, (512, 4, 4)),
        ("resnet50", 32, (2048, 4, 4)),
        ("alexnet", 95, (256, 2, 2)),
        (nn.Conv2d(3, 7, 3), 9, (7, 7, 7)),
    ],
    ids=lambda value: str(value).split("(")[0],
)
def test_the_map_before_pooling(backbone, side, grid):
    encoder, _ = build_backbone(backbone, (3, side, side))
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    hooks = [len(module._forward_pre_hooks) for module in encoder.modules()]
    with torch.no_grad():
        features, found = feature_map(encoder.eval(), images)
        assert torch.equal(features, encoder(images))
    assert found.shape == (2, *grid)
    assert [len(module._forward_pre_hooks) for module in encoder.modules()] == hooks
    if backbone == "alexnet":
        torch.testing.assert_close(found, encoder.features(images))
    else:
        torch.testing.assert_close(found.mean((2, 3)), features)


def test_encoders_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="Unknown backbone 'resnet81', did you mean 'resnet18'"):
        build_backbone("resnet81", (3, 32, 32))
    with pytest.raises(ValueError, match=r"'alexnet' cannot read images of shape .* \(3, 32, 32\)"):
        build_backbone("alexnet", (3, 32, 32))
    with pytest.raises(TypeError, match=r"backbone must be one of .* Got 3"):
        build_backbone(3, (3, 32, 32))
    with pytest.raises(ValueError, match=r"Got shape \(2, 3, 64\)"):
        build_backbone(nn.Flatten(2), (3, 8, 8))


def test_lars_is_the_literal_rule():
    draw = torch.Generator().manual_seed(0)
    start = [torch.randn(4, 3, generator=draw), torch.zeros(2, 2), torch.randn(5, generator=draw)]
    params = [nn.Parameter(p.clone()) for p in start]
    lars = LARS(params, lr=0.5, momentum=0.8, weight_decay=0.1, trust=0.01)
    expected = [p.double().clone() for p in start]
    velocity = [torch.zeros_like(p) for p in expected]
    for lr in (0.5, 0.1, 0.3):  # outside of the momentum
        lars.param_groups[0]["lr"] = lr
        gradients = [torch.randn(p.shape, generator=draw) for p in params]
        for p, g in zip(params, gradients, strict=True):
            p.grad = g.clone()
        lars.step()
        for i, g in enumerate(gradients):
            d = g.double()
            if d.ndim > 1:
                d = d + 0.1 * expected[i]
                if expected[i].norm() > 0 and d.norm() > 0:
                    d = d * 0.01 * expected[i].norm() / d.norm()
            velocity[i] = 0.8 * velocity[i] + d
            expected[i] = expected[i] - lr * velocity[i]
    for p, e in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach().double(), e, rtol=1e-5, atol=1e-6)


def test_larc_is_the_literal_rule():
    draw = torch.Generator().manual_seed(0)
    start = [torch.randn(4, 3, generator=draw), torch.zeros(2, 2), torch.randn(5, generator=draw)]
    params = [nn.Parameter(p.clone()) for p in start]
    larc = LARC(params, lr=0.5, momentum=0.8, weight_decay=0.1, trust=0.01)
    expected = [p.double().clone() for p in start]
    velocity = [torch.zeros_like(p) for p in expected]
    for lr in (0.5, 0.1, 0.3):
        larc.param_groups[0]["lr"] = lr
        for i, p in enumerate(params):
            p.grad = torch.randn(p.shape, generator=draw)
            w, g = expected[i], p.grad.double()
            if w.norm() > 0:
                g = 0.01 * w.norm() / (g.norm() + 0.1 * w.norm() + 1e-8) * (g + 0.1 * w)
            velocity[i] = 0.8 * velocity[i] + g
            expected[i] = w - lr * velocity[i]
        larc.step()
    for p, e in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach().double(), e, rtol=1e-5, atol=1e-6)
        p.grad = None
    assert larc.step(lambda: 7) == 7  # what has no gradient stays
    torch.testing.assert_close(params[0].detach().double(), expected[0], rtol=1e-5, atol=1e-6)


class Unknown(nn.Module):
    """A network of somebody else's, which looks between its layers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

    def forward(self, images):
        return self.layers[0](images) + self.layers(images)


@pytest.mark.parametrize("name", ["convnet", "resnet18", "alexnet_bn", "head"])
def test_folded_networks_compute_the_same_without_batchnorm(name):
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


def test_networks_that_are_unknown_or_watched_are_not_folded():
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


def test_folding_in_threads_leaves_torch_as_it_is():
    net = build_backbone("convnet", (3, 16, 16))[0].eval()
    images = torch.randn(4, 3, 16, 16)
    with torch.no_grad(), ThreadPoolExecutor(8) as pool:
        expected = net(images)
        for found in pool.map(lambda _: fuse_batchnorm(net)(images), range(64)):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_module_stays_in_evaluation_mode_until_its_last_user_leaves():
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


def test_adamw_spares_norms_and_any_torch_optimizer_will_do():
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    adamw = make_optimizer("adamw", net, lr=0.1, momentum=0.9, weight_decay=0.3)
    assert {(len(g["params"]), g["weight_decay"]) for g in adamw.param_groups} == {(1, 0.3), (3, 0.0)}
    rmsprop = make_optimizer(torch.optim.RMSprop, net, lr=0.1, momentum=0.7, weight_decay=0.3)
    assert rmsprop.param_groups[0]["momentum"] == 0.7
    with pytest.raises(ValueError, match="Unknown optimizer 'sdg', did you mean 'sgd'"):
        make_optimizer("sdg", net, lr=0.1, momentum=0.9, weight_decay=0.0)


def test_schedules():
    def cosine(t):
        return (1 + math.cos(math.pi * t)) / 2

    assert schedule_factor("cosine", 2.5, epochs=10) == pytest.approx(cosine(0.25))
    assert schedule_factor("epoch_cosine", 2.9, epochs=10) == pytest.approx(cosine(0.2))
    assert schedule_factor("cosine", 1.0, epochs=12, warmup_epochs=2) == 0.5
    assert schedule_factor("cosine", 7.0, epochs=12, warmup_epochs=2) == pytest.approx(0.5)
    assert [schedule_factor("step", e, epochs=200) for e in (59, 60, 120, 160)] == pytest.approx([1, 0.2, 0.04, 0.008])
    assert schedule_factor("cosine", 25, epochs=10) == pytest.approx(cosine(0.9))
    assert schedule_factor("cosine", 1, epochs=1, warmup_epochs=0.05) == 1, "not the warm-up's zero"
    assert schedule_factor("cosine", 12, epochs=10, warmup_epochs=10) == 1
    with pytest.raises(ValueError, match="Unknown schedule 'cosinus', did you mean 'cosine'"):
        schedule_factor("cosinus", 0, epochs=1)
