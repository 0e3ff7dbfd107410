"""Networks for other channels than RGB: tried first, then their first convolution is adapted."""

import pytest
import torch
import torchvision
from torch import nn

from skssl.backbones import build_backbone


class Grey(nn.Module):
    """A network that repeats a grey image itself."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3)

    def forward(self, images):
        return self.body(images.repeat(1, 3, 1, 1))


class Split(nn.Module):
    """A network with one convolution for RGB, and one for near infrared."""

    def __init__(self):
        super().__init__()
        self.rgb, self.nir = nn.Conv2d(3, 8, 3), nn.Conv2d(1, 8, 3)

    def forward(self, images):
        return torch.cat([self.rgb(images[:, :3]), self.nir(images[:, 3:])], 1)


@pytest.mark.parametrize(
    ("net", "channels"),
    [(nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, 8, 3)), 3), (Grey(), 1), (Split(), 4)],
    ids=["PixelUnshuffle", "Grey", "Split"],
)
def test_a_network_that_can_read_the_images_is_not_changed(net, channels):
    encoder, _ = build_backbone(net, (channels, 16, 16))
    given = net.state_dict().values()
    assert all(torch.equal(one, two) for one, two in zip(encoder.state_dict().values(), given, strict=True))


@pytest.mark.parametrize(("channels", "order"), [(4, [0, 1, 2, 0]), (2, [0, 1]), (6, [0, 1, 2, 0, 1, 2])])
def test_trained_kernels_are_repeated_and_scaled_as_in_timm(channels, order, capsys):
    net = torchvision.models.resnet18(weights=None)
    encoder, _ = build_backbone(net, (channels, 64, 64), verbose=1)
    torch.testing.assert_close(encoder.conv1.weight, net.conv1.weight[:, order] * 3 / channels)
    assert f"its convolution conv1 for {channels} instead of 3 channels" in capsys.readouterr().out


def test_the_first_convolution_is_the_first_that_is_called():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.second, self.first = nn.Conv2d(8, 6, 3), nn.Conv2d(3, 8, 3)

        def forward(self, images):
            return self.second(self.first(images))

    encoder, dim = build_backbone(Backwards(), (1, 16, 16))
    assert dim == 6
    assert (encoder.body.first.in_channels, encoder.body.second.in_channels) == (1, 8)


def test_adapted_kernels_stay_frozen():
    net = nn.Conv2d(3, 8, 3).requires_grad_(False)
    assert not build_backbone(net, (1, 16, 16))[0].body.weight.requires_grad


def test_a_network_that_fails_for_another_reason_is_refused():
    with pytest.raises(ValueError, match="Split cannot read images of shape"):
        build_backbone(Split(), (2, 16, 16))
