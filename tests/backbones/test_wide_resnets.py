"""The wide ResNets and selective kernels of SimCLRv2."""

import pytest
import torch
import torchvision
from torch import nn

from skssl.backbones import build_backbone, feature_map, stages
from skssl.backbones.wide_resnets import SelectiveKernel, WideResNet, wide_resnet_named

MILLIONS = {  # parameters in SimCLRv2's table 1, which has no classifier
    "resnet50_sk": 35,
    "resnet50_2x": 94,
    "resnet50_2x_sk": 140,
    "resnet101_sk": 65,
    "resnet101_2x": 170,
    "resnet101_2x_sk": 257,
    "resnet152_sk": 89,
    "resnet152_2x": 233,
    "resnet152_2x_sk": 354,
    "resnet152_3x_sk": 795,
}


@pytest.mark.parametrize("name", MILLIONS)
def test_numbers_of_parameters_are_those_of_the_paper(name):
    with torch.device("meta"):
        net = wide_resnet_named(name, small=False)
    assert sum(parameter.numel() for parameter in net.parameters()) / 1e6 == pytest.approx(MILLIONS[name], abs=0.8)


def test_width_1_is_torchvisions_resnet():
    ours, theirs = WideResNet(50).eval(), torchvision.models.resnet50(zero_init_residual=True).eval()
    theirs.fc = nn.Identity()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("stride", [1, 2])
def test_selective_kernel_equals_its_formula(stride):
    layer = SelectiveKernel(64, stride)
    maps = torch.randn(3, 64, 6, 6)
    layer(maps)  # statistics other than 0 and 1
    layer.eval()
    convolution, norm = layer.paths[0], layer.paths[1]
    reduce, reduced, expand = layer.mixing[0], layer.mixing[1], layer.mixing[3]
    assert reduce.out_channels == 32, "at least 32, though 64 / 16 = 4"
    assert SelectiveKernel(1024).mixing[0].out_channels == 64
    paths = [
        torch.relu(
            nn.functional.batch_norm(
                nn.functional.conv2d(maps, convolution.weight[part], None, stride, 1),
                norm.running_mean[part],
                norm.running_var[part],
            )
        )
        for part in (slice(0, 64), slice(64, 128))
    ]
    pooled = (paths[0] + paths[1]).mean((2, 3))
    hidden = pooled @ reduce.weight[:, :, 0, 0].T
    hidden = torch.relu((hidden - reduced.running_mean) / (reduced.running_var + reduced.eps).sqrt())
    scores = hidden @ expand.weight[:, :, 0, 0].T
    first = 1 / (1 + (scores[:, 64:] - scores[:, :64]).exp())[:, :, None, None]
    torch.testing.assert_close(layer(maps), first * paths[0] + (1 - first) * paths[1], rtol=1e-4, atol=1e-5)


def test_shortcuts_average_pixels_as_in_resnet_d():
    net = WideResNet(50, selective=True)
    x = torch.arange(16.0).view(1, 1, 4, 4).repeat(1, 64, 1, 1)
    pad, pool = net.layer1[0].downsample[:2]
    assert pool(pad(x))[0, 0].tolist() == [
        [2.5, 3.5, 4.5, 5],
        [6.5, 7.5, 8.5, 9],
        [10.5, 11.5, 12.5, 13],
        [12.5, 13.5, 14.5, 15],
    ], "without the pixels beyond the border, as TensorFlow's SAME padding"
    pad, pool = net.layer2[0].downsample[:2]
    assert pool(pad(x))[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert [layer.stride[0] for layer in net.conv1 if isinstance(layer, nn.Conv2d)] == [2, 1, 1]


@pytest.mark.parametrize(("name", "dim"), [("resnet50_sk", 2048), ("resnet101_2x", 4096), ("resnet152_3x_sk", 6144)])
@pytest.mark.parametrize("small", [True, False])
def test_width_and_stages_of_encoders(name, dim, small):
    with torch.device("meta"):
        net, images = wide_resnet_named(name, small), torch.zeros(1, 3, 64, 64)
    assert list(stages(net)) == ["conv1", "layer1", "layer2", "layer3", "layer4"]
    features, grid = feature_map(net.eval(), images)
    assert (features.shape, grid.shape) == ((1, dim), (1, dim, *((8, 8) if small else (2, 2))))


def test_encoder_by_name_is_adapted_and_trained():
    encoder, dim = build_backbone("resnet50_sk", (1, 32, 32))
    assert (dim, encoder.conv1.in_channels) == (2048, 1)
    assert isinstance(encoder.maxpool, nn.Identity)
    for block in (encoder.layer1[0], encoder.layer4[2]):
        assert (block.bn3.weight == 0).all(), "blocks start as the identity, as those of torchvision's ResNets by name"
        nn.init.ones_(block.bn3.weight)
    encoder(torch.randn(4, 1, 32, 32)).square().sum().backward()
    for block in (encoder.layer1[0], encoder.layer4[2]):
        assert all(parameter.grad.abs().sum() > 0 for parameter in block.conv2.parameters())


def test_unknown_names_are_refused():
    assert wide_resnet_named("resnet50", small=True) is None
    for name in ("resnet50_5x", "resnet18_2x", "resnet50_sk_2x"):
        with pytest.raises(ValueError, match=f"Unknown backbone '{name}'"):
            build_backbone(name, (3, 32, 32))
