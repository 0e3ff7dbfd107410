"""Networks of every family of torchvision and timm give features, never class scores."""

import importlib.util

import numpy as np
import pytest
import torch
import torchvision

import skssl
from skssl.backbones import build_backbone
from skssl.datasets import make_shapes

N_CLASSES = 7
TORCHVISION = {
    "alexnet": 4096,
    "convnext_tiny": 768,
    "densenet121": 1024,
    "efficientnet_b0": 1280,
    "googlenet": 1024,
    "mnasnet0_5": 1280,
    "mobilenet_v2": 1280,
    "mobilenet_v3_small": 1024,
    "regnet_x_400mf": 400,
    "regnet_y_400mf": 440,
    "resnet18": 512,
    "shufflenet_v2_x0_5": 1024,
    "squeezenet1_0": 512,
    "squeezenet1_1": 512,
    "swin_t": 768,
    "vit_b_32": 768,
}
TIMM = {
    "convit_tiny": 192,
    "convnext_atto": 320,
    "cs3darknet_focus_s": 512,
    "deit_tiny_distilled_patch16_224": 192,
    "densenet121": 1024,
    "dla46x_c": 256,
    "edgenext_xx_small": 168,
    "efficientformerv2_s0": 176,
    "efficientvit_b0": 1280,
    "efficientvit_m0": 192,
    "ese_vovnet19b_slim_dw": 512,
    "fastvit_t8": 768,
    "gernet_s": 1920,
    "ghostnet_050": 1280,
    "gmlp_ti16_224": 128,
    "hardcorenas_a": 1280,
    "hgnetv2_b0": 2048,
    "inception_next_atto": 960,
    "lcnet_035": 1280,
    "legacy_seresnet18": 512,
    "levit_128s": 384,
    "mnasnet_050": 1280,
    "mobilenetv3_small_050": 1024,
    "mobileone_s0": 1024,
    "mobilevit_xxs": 320,
    "nf_regnet_b0": 960,
    "pit_ti_224": 256,
    "poolformerv2_s12": 512,
    "pvt_v2_b0": 256,
    "regnetx_002": 368,
    "repghostnet_050": 1280,
    "repvit_m0_9": 384,
    "resnest14d": 2048,
    "resnet10t": 512,
    "resnetv2_50": 2048,
    "rexnetr_100": 1280,
    "selecsls42": 1280,
    "shvit_s1": 320,
    "skresnet18": 512,
    "starnet_s050": 128,
    "swiftformer_xs": 220,
    "swin_tiny_patch4_window7_224": 768,
    "tresnet_m": 2048,
    "visformer_tiny": 384,
    "vit_tiny_patch16_224": 192,
    "xcit_nano_12_p16_224": 128,
}
SIZED = "convit", "efficientformerv2", "efficientvit_m", "gmlp", "levit", "pit", "swin_", "visformer", "xcit"
needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")


def check(encoder, dim, width, side=64):
    """Check the width, and that a step reaches the first layer."""
    assert dim == width
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    features = encoder.train()(images)
    assert features.shape == (2, width)
    (features * torch.linspace(-1, 2, 2 * width).view(2, width)).sum().backward()
    layers = [module for module in encoder.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]
    assert layers[0].weight.grad.abs().sum() > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name):
    settings = {"googlenet": {"init_weights": False}, "vit_b_32": {"image_size": 64}}.get(name, {})
    net = torchvision.models.get_model(name, weights=None, num_classes=N_CLASSES, **settings)
    check(*build_backbone(net, (3, 64, 64)), TORCHVISION[name])


@needs_timm
@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    import timm

    size = {"img_size": 64} if name.startswith(SIZED) else {}
    net = timm.create_model(name, num_classes=N_CLASSES, **size)
    check(*build_backbone(net, (3, 64, 64)), TIMM[name])


@needs_timm
@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "gmlp_ti16_224", "lcnet_035"])
@pytest.mark.parametrize("channels", [3, 4])
def test_timm_by_name(name, channels):
    encoder, dim = build_backbone(f"timm:{name}", (channels, 64, 64))
    assert dim == TIMM[name]
    assert next(module for module in encoder.modules() if isinstance(module, torch.nn.Conv2d)).in_channels == channels


@needs_timm
def test_timm_agrees_with_the_graph():
    import timm

    # Within another module a network has no reset_classifier, so that its classifier is found by what it does.
    for name in ("resnet10t", "convnext_atto", "lcnet_035", "repghostnet_050"):
        net = timm.create_model(name, num_classes=N_CLASSES)
        encoder, dim = build_backbone(torch.nn.Sequential(net), (3, 64, 64))
        images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        assert dim == TIMM[name]
        assert torch.equal(encoder.eval()(images), build_backbone(net, (3, 64, 64))[0].eval()(images))


@pytest.mark.parametrize("name", ["resnet34", "shufflenet_v2_x0_5"])
def test_torchvision_by_name(name):
    encoder, dim = build_backbone(name, (1, 32, 32))
    assert dim == {"resnet34": 512, "shufflenet_v2_x0_5": 1024}[name]
    assert encoder(torch.zeros(2, 1, 32, 32)).shape == (2, dim)


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match="Unknown backbone 'convnext_tinny', did you mean 'convnext_tiny'"):
        build_backbone("convnext_tinny", (3, 32, 32))


@needs_timm
@pytest.mark.parametrize("name", ["resnet26e", "hf-hub:someone/resnet", "resnet26d.bt_in1k"])
def test_names_of_timm_load_nothing(name):
    with pytest.raises(ValueError, match=f"Unknown backbone 'timm:{name}'"):
        build_backbone(f"timm:{name}", (3, 32, 32))


def test_timm_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install 'skssl\[timm\]'"):
        build_backbone("timm:resnet26d", (3, 32, 32))


@pytest.mark.parametrize("name", ["swin_t", "shufflenet_v2_x0_5"])
def test_estimators_with_named_networks_are_saved(name, tmp_path):
    # Swin's relative positions are buffers that are not in a state dict.
    X, _ = make_shapes(4, image_size=32, random_state=0)
    estimator = skssl.SimCLR(backbone=name, epochs=0, batch_size=2, random_state=0).fit(X)
    estimator.save(tmp_path / "estimator.safetensors")
    assert np.array_equal(skssl.load(tmp_path / "estimator.safetensors").transform(X), estimator.transform(X))
