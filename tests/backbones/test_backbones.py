"""Encoders by name and from modules."""

import pytest
import torch
from torch import nn

from skssl.backbones import AudioConvNet, build_backbone, dilate, feature_map, map_channels, stages
from skssl.backbones.maps import map_shape
from skssl.probes.encoders import at_layer


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
def test_resnet_blocks_start_as_the_identity(name):
    encoder, _ = build_backbone(name, (3, 32, 32))
    last = "bn2" if name == "resnet18" else "bn3"
    gains = {module: p.abs().sum().item() for module, p in encoder.named_parameters() if module.endswith("weight")}
    assert all((gain == 0) == (f".{last}." in module) for module, gain in gains.items())


@pytest.mark.parametrize("name", ["convnet", "audio_convnet", "resnet18", "alexnet", "alexnet_bn"])
def test_features_are_not_negative(name):
    encoder, _ = build_backbone(name, (3, 64, 64))
    with torch.no_grad():
        features = encoder(torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert features.min() >= 0
    assert features.std() > 0


@pytest.mark.parametrize("shape", [(1, 65, 61), (1, 9, 9), (1, 3, 1), (2, 33, 20)])
def test_audio_convnet_reads_spectrograms_of_any_size(shape):
    encoder, dim = build_backbone("audio_convnet", shape)
    assert dim == 512
    assert encoder(torch.rand(3, *shape)).shape == (3, 512)


def test_audio_convnet_tells_pitches_but_not_times():
    torch.manual_seed(0)
    net = AudioConvNet().eval()
    tones = torch.zeros(3, 1, 128, 256)
    for tone, (band, time) in zip(tones, [(40, 96), (72, 96), (40, 128)], strict=True):
        tone[0, band, time] = 1.0
    low, high, late = net(tones)
    torch.testing.assert_close(late, low)
    assert (high - low).norm() > 0.5 * low.norm()
    torch.testing.assert_close(high.view(128, 4).mean(1), low.view(128, 4).mean(1))  # global pooling hides the pitch


@pytest.mark.parametrize("name", ["convnet", "resnet18", "resnet50", "vgg11_bn"])
def test_dilated_encoders_have_finer_maps_of_the_same_values(name):
    shape = (3, 224, 224) if name == "vgg11_bn" else (3, 64, 64)
    torch.manual_seed(0)
    encoder = build_backbone(name, shape)[0].eval()
    image, names = torch.rand(1, *shape), list(encoder.state_dict())
    with torch.no_grad():
        coarse = feature_map(encoder, image)[1]
        dilate(encoder, shape, coarse.shape[2] + 1)
        fine = feature_map(encoder, image)[1]
    assert fine.shape[2] in (2 * coarse.shape[2], 2 * coarse.shape[2] - 1)
    torch.testing.assert_close(fine[..., ::2, ::2], coarse, rtol=1e-3, atol=1e-4)
    assert list(encoder.state_dict()) == names
    dilate(encoder, shape, fine.shape[2])
    assert map_shape(encoder, shape)[1] == fine.shape[2]


def test_maps_are_not_finer_than_images_or_strides():
    encoder = build_backbone("convnet", (3, 4, 32))[0]
    dilate(encoder, (3, 4, 32), 100)
    assert map_shape(encoder, (3, 4, 32)) == (128, 4, 32)
    vit = build_backbone("vit_micro", (3, 32, 32))[0]
    size = map_shape(vit, (3, 32, 32))
    dilate(vit, (3, 32, 32), 100)
    assert map_shape(vit, (3, 32, 32)) == size


def test_alexnet_bn_matches_the_papers_architecture():
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
def test_first_convolution_is_adapted_to_the_channels(channels, name, side, dim):
    encoder, found = build_backbone(name, (channels, side, side))
    assert found == dim
    with torch.no_grad():
        assert encoder.eval()(torch.zeros(2, channels, side, side)).shape == (2, dim)


def test_a_module_is_copied_without_its_classifier():
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


def test_maps_are_pooled_and_callables_are_called():
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
def test_feature_map_matches_the_input_of_the_pooling(backbone, side, grid):
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


def test_unsuitable_encoders_are_rejected():
    with pytest.raises(ValueError, match="Unknown backbone 'resnet81', did you mean 'resnet18'"):
        build_backbone("resnet81", (3, 32, 32))
    with pytest.raises(ValueError, match=r"'alexnet' cannot read images of shape .* \(3, 32, 32\)"):
        build_backbone("alexnet", (3, 32, 32))
    with pytest.raises(TypeError, match=r"backbone must be a name .* Got 3"):
        build_backbone(3, (3, 32, 32))
    with pytest.raises(ValueError, match=r"Got shape \(2, 3, 64\) from Flatten"):
        build_backbone(nn.Flatten(2), (3, 8, 8))


class Unknown(nn.Module):
    """A network of somebody else's, which looks between its layers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

    def forward(self, images):
        return self.layers[0](images) + self.layers(images)
