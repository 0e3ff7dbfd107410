"""Encoders for evaluation: estimators and modules, and their layers."""

import pickle
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torchvision
from conftest import quick
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted
from torch import nn

import skssl
import skssl.metrics
from skssl.augment.normalization import IMAGENET_MEAN, IMAGENET_STD
from skssl.backbones import ConvNet
from skssl.methods.deepcluster import sobel_filter
from skssl.probes.encoders import as_encoder, at_layer


@pytest.fixture(scope="module")
def fitted():
    X = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    return quick(skssl.SimCLR, proj_layers=3, precision="float32").fit(X)


def test_features_of_a_fitted_estimator_equal_its_transform(fitted, X):
    np.testing.assert_array_equal(as_encoder(fitted, X).transform(X), fitted.transform(X))
    np.testing.assert_array_equal(as_encoder(FrozenEstimator(fitted), X).transform(X), fitted.transform(X))
    assert as_encoder(fitted, X).module is fitted.encoder_


def test_unpickling_without_the_device_falls_back_to_the_cpu(fitted, X):
    encoder = as_encoder(fitted, X)
    loaded = pickle.loads(pickle.dumps(replace(encoder, device=torch.device("cuda:99"))))
    assert loaded.device.type == "cpu"
    np.testing.assert_array_equal(loaded.transform(X), encoder.transform(X))


def test_unfitted_estimator_is_cloned_and_fitted(fitted, X):
    encoder = clone(fitted)
    np.testing.assert_array_equal(as_encoder(encoder, X).transform(X), clone(fitted).fit(X).transform(X))
    with pytest.raises(NotFittedError):
        check_is_fitted(encoder)
    assert as_encoder(clone(FrozenEstimator(fitted)), X).module is fitted.encoder_


def test_labels_are_passed_to_methods_that_use_them(X, y):
    assert as_encoder(quick(skssl.SupCon), X, y).transform(X).shape == (40, 128)
    with pytest.raises(ValueError, match="SupCon requires y to be passed"):
        as_encoder(quick(skssl.SupCon), X)


def test_layers_of_the_projector(fitted, X):
    module = fitted.net_.module_.eval()
    pixels = fitted.net_.augmentations[0].normalize(torch.from_numpy(X.copy()).permute(0, 3, 1, 2))
    with torch.no_grad():
        h = module.encoder(pixels)
        expected = {"projector": module.projector(h), "backbone": h}
        linear1, norm1, relu1, linear2, norm2, relu2, *_ = module.projector
        expected["projector1"] = relu1(norm1(linear1(h)))
        expected["projector2"] = relu2(norm2(linear2(expected["projector1"])))
        expected["projector3"] = expected["projector"]
    for layer, values in expected.items():
        np.testing.assert_allclose(as_encoder(fitted, X, layer=layer).transform(X), values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "sides"), [("alexnet", (12, 7, 5, 6, 6)), ("resnet50", (12, 6, 4, 3, 2))])
def test_inner_layers_are_pooled_as_in_the_papers(name, sides):
    net = torchvision.models.get_model(name).eval()
    images = torch.rand(1, 3, 224, 224)
    kept = {}
    if name == "alexnet":
        last = {f"conv{i}": net.features[place] for i, place in enumerate((1, 4, 7, 9, 11), 1)}  # the ReLUs
    else:
        last = {"conv1": net.relu, **{f"layer{i}": getattr(net, f"layer{i}") for i in range(1, 5)}}
    hooks = [
        module.register_forward_hook(lambda _, given, output, key=key: kept.update({key: output.clone()}))
        for key, module in last.items()
    ]
    with torch.no_grad():
        net(images)
        for hook in hooks:
            hook.remove()
        for (layer, grid), side in zip(kept.items(), sides, strict=True):
            pool = nn.AdaptiveMaxPool2d(side) if name == "alexnet" else nn.AdaptiveAvgPool2d(side)
            found = at_layer(net, None, layer)(images)
            assert found.shape[1] <= 9600 < grid.shape[1] * (side + 1) ** 2 or side == grid.shape[2]
            torch.testing.assert_close(found, pool(grid).flatten(1))


def test_inner_layers_apply_the_hooks_of_the_encoder(X):
    method = quick(skssl.DeepCluster, epochs=0, precision="float32").fit(X)  # a Sobel filter precedes its first layer
    pixels = method.net_.augmentations[0].normalize(torch.from_numpy(X.copy()).permute(0, 3, 1, 2))
    with torch.no_grad():
        grid = method.encoder_.features[:6](sobel_filter(method.encoder_, (pixels,)))  # 32 maps of 8x8
    found = as_encoder(method, X, layer="conv2").transform(X)
    np.testing.assert_allclose(found, grid.flatten(1), rtol=1e-4, atol=1e-5)


def test_module_is_copied_and_images_are_normalised_by_imagenet_statistics(X):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5, bias=False))
    nn.init.ones_(net[1].weight)
    encoder = as_encoder(net, X, device="cpu")
    pixels = (X / 255 - IMAGENET_MEAN) / IMAGENET_STD
    np.testing.assert_allclose(encoder.transform(X)[:, 0], pixels.sum((1, 2, 3)), rtol=1e-2, atol=3)  # bfloat16
    assert encoder.module is not net
    with pytest.raises(ValueError, match="16, 16"):
        encoder.transform(X[:, :8])


def test_invalid_encoder_or_layer_raises(fitted, X):
    with pytest.raises(TypeError, match=r"encoder must be an estimator of skssl, .* Got 'resnet18'"):
        as_encoder("resnet18", X)
    with pytest.raises(ValueError, match=r"Unknown layer 'layer3'\. Known names: 'backbone', 'projector1', "):
        as_encoder(fitted, X, layer="layer3")
    with pytest.raises(ValueError, match="Unknown layer 'projector'"):
        as_encoder(quick(skssl.RotNet, epochs=0), X, layer="projector")


@pytest.mark.parametrize("kind", ["module", "unfitted"])
@pytest.mark.parametrize("use", ["probe", "rotation accuracy", "contrastive accuracy", "display"])
def test_files_are_decoded_once_and_streams_are_read_once(use, kind, X, y, png_files, decoded_names):
    torch.manual_seed(0)
    encoder = ConvNet() if kind == "module" else quick(skssl.SimCLR, epochs=1)

    def run(images):
        if use == "probe":
            return skssl.KNNProbe(n_neighbors=5, encoder=encoder).fit(images, y).predict_proba(X)
        if use == "rotation accuracy":
            probe = LogisticRegression()
            return skssl.metrics.rotation_accuracy(encoder, images, X, probe=probe)
        if use == "contrastive accuracy":
            return skssl.metrics.contrastive_accuracy(encoder, images, batch_size=16, random_state=0)
        estimator = encoder if kind == "module" else clone(encoder).fit(X)
        ax = plt.Figure().add_subplot()
        return skssl.EmbeddingDisplay.from_estimator(estimator, images, n_samples=20, method="pca", ax=ax).embedding

    expected = run(X)
    np.testing.assert_array_equal(run(png_files), expected)
    assert len(decoded_names) == len(set(decoded_names))
    if use != "display":  # it needs the number of images
        np.testing.assert_array_equal(run(iter(X)), expected)
