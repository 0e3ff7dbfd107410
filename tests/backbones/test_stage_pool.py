"""StagePool: features of several stages on a grid."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils._param_validation import InvalidParameterError
from torch import nn

import skssl
from skssl.backbones import StagePool, build_backbone, feature_map
from skssl.datasets import make_shapes


def literal(net: nn.Module, images: torch.Tensor, n_stages: int, grid: int) -> np.ndarray:
    """Average the maps of the last stages of a ConvNet over the cells of a grid, one value at a time."""
    maps = []
    for layer in net.features:
        images = layer(images)
        if isinstance(layer, nn.ReLU):
            maps.append(images.detach().numpy().copy())
    rows = []
    for k in range(len(images)):
        row = []
        for of_stage in maps[-n_stages:]:
            side = of_stage.shape[2]
            bounds = [(side * i // grid, -(-side * (i + 1) // grid)) for i in range(grid)]
            row += [
                of_stage[k, c, a:b, d:e].mean() for c in range(of_stage.shape[1]) for a, b in bounds for d, e in bounds
            ]
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize(("n_stages", "grid"), [(1, 1), (2, 3), (4, 2)])
def test_features_are_the_pooled_maps_of_the_last_stages(n_stages, grid):
    net, dim = build_backbone(StagePool("convnet", n_stages, grid), (3, 32, 32))
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = net.eval()(images)
        expected = literal(copy.deepcopy(net.encoder), images, n_stages, grid)
    assert found.shape == (3, dim) == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet18", "alexnet_bn"])
def test_other_networks_have_stages_too(name):
    net, dim = build_backbone(StagePool(name, 2, 2), (3, 64, 64))
    channels = {"resnet18": 256 + 512, "alexnet_bn": 256 + 256}[name]
    assert dim == 4 * channels
    assert net.eval()(torch.rand(2, 3, 64, 64)).shape == (2, dim)


def test_feature_map_is_that_of_the_last_stage():
    net, _ = build_backbone(StagePool("convnet", 3, 2), (3, 32, 32))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        features, grid = feature_map(net.eval(), images)
        assert torch.equal(grid, net.encoder.features(images))
        assert torch.equal(features, net(images))


def test_gradients_reach_every_stage():
    net, _ = build_backbone(StagePool("convnet", 1, 2), (3, 16, 16))
    net(torch.rand(4, 3, 16, 16)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in net.parameters())


def test_a_network_with_too_few_stages_is_refused():
    with pytest.raises(
        InvalidParameterError, match=r"n_stages=5 of StagePool is more than the stages of ConvNet: \['conv1"
    ):
        build_backbone(StagePool(n_stages=5), (3, 32, 32))
    with pytest.raises(InvalidParameterError, match="'grid' parameter of StagePool"):
        build_backbone(StagePool(grid=0), (3, 32, 32))


def test_it_is_a_parameter_that_is_cloned_searched_and_saved(tmp_path):
    X, y = make_shapes(40, image_size=16, random_state=0)
    encoder = skssl.SimCLR(backbone=StagePool(n_stages=2, grid=2), epochs=1, batch_size=20, random_state=0)
    assert clone(encoder).get_params()["backbone__grid"] == 2
    features = encoder.fit(X).transform(X)
    assert features.shape == (40, 4 * (64 + 128))
    encoder.save(tmp_path / "encoder.safetensors")
    loaded = skssl.load(tmp_path / "encoder.safetensors")
    np.testing.assert_array_equal(loaded.transform(X), features)
    pipeline = make_pipeline(encoder, skssl.LinearProbe(C=0.1))
    search = GridSearchCV(pipeline, {"simclr__backbone__grid": [1, 2]}, cv=2).fit(X, y)
    assert search.best_params_["simclr__backbone__grid"] in (1, 2)


def test_weights_are_those_of_the_network_within(tmp_path):
    X, _ = make_shapes(40, image_size=16, random_state=0)
    skssl.SimCLR(backbone="convnet", epochs=1, batch_size=20, random_state=0).fit(X).export(tmp_path / "w.safetensors")
    started = skssl.SimCLR(
        backbone=StagePool(grid=2), backbone_weights=str(tmp_path / "w.safetensors"), epochs=0, random_state=1
    ).fit(X)
    plain = skssl.SimCLR(backbone="convnet", backbone_weights=str(tmp_path / "w.safetensors"), epochs=0).fit(X)
    same = zip(started.encoder_.encoder.parameters(), plain.encoder_.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in same)


@pytest.mark.slow
def test_training_is_compiled_as_a_whole():
    X, _ = make_shapes(40, image_size=16, random_state=0)
    settings = {"backbone": StagePool(grid=2), "epochs": 1, "batch_size": 20, "random_state": 0}
    eager = skssl.SimCLR(**settings).fit(X)
    compiled = skssl.SimCLR(**settings, compile=True).fit(X)
    np.testing.assert_allclose(compiled.history_["loss"], eager.history_["loss"], rtol=1e-3)
