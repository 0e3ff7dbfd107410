"""Trained weights from files of other libraries, and from fitted estimators."""

import warnings

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import StandardScaler
from torch import nn

import skssl
from skssl.backbones import ConvNet, build_backbone, load_weights
from skssl.datasets import make_shapes


def trained(seed=0):
    torch.manual_seed(seed)
    return {name: torch.rand_like(value) for name, value in ConvNet().state_dict().items() if value.is_floating_point()}


def prefixed(prefix, tensors):
    return {prefix + name: value for name, value in tensors.items()}


def same(encoder, tensors):
    own = encoder.state_dict()
    return all(torch.equal(own[name], value) for name, value in tensors.items())


MOCO = {
    **prefixed("module.encoder_q.", trained(0)),
    **prefixed("module.encoder_k.", trained(1)),
    "module.queue": torch.ones(2),
}
CHECKPOINTS = {
    "torchvision": {**trained(), "fc.weight": torch.ones(5, 128)},
    "moco": {"epoch": 200, "arch": "resnet50", "state_dict": MOCO, "optimizer": {"state": {}}},
    "swav": {**prefixed("module.", trained()), "module.prototypes.weight": torch.ones(3, 8)},
    "simsiam": {"state_dict": prefixed("module.encoder.", trained())},
    "dino": {"student": prefixed("module.backbone.", trained(1)), "teacher": prefixed("backbone.", trained(0))},
    "mae": {"model": trained()},
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_released_checkpoints_are_read(name, tmp_path):
    torch.save(CHECKPOINTS[name], tmp_path / "weights.pth.tar")
    encoder = ConvNet()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_weights(encoder, tmp_path / "weights.pth.tar") == []
    assert same(encoder, trained())


def test_safetensors_are_read(tmp_path):
    save_file(trained(), tmp_path / "weights.safetensors")
    encoder = ConvNet()
    assert load_weights(encoder, str(tmp_path / "weights.safetensors")) == []
    assert same(encoder, trained())


def test_what_does_not_fit_is_named(capsys):
    tensors = trained()
    del tensors["features.3.weight"]
    tensors |= {"features.6.weight": torch.ones(7), "projector.weight": torch.ones(2, 2)}
    encoder = ConvNet()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with pytest.warns(UserWarning, match=r"^2 of the 24 tensors .*: features\.3\.weight, features\.6\.weight\.$"):
        assert load_weights(encoder, tensors, verbose=1) == ["features.3.weight", "features.6.weight"]
    assert capsys.readouterr().out == "Loaded 18 of 24 tensors; not used: features.6.weight, projector.weight.\n"
    assert torch.equal(encoder.state_dict()["features.3.weight"], before["features.3.weight"])
    assert torch.equal(encoder.state_dict()["features.0.weight"], tensors["features.0.weight"])


def test_files_that_fit_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"None of the tensors .* It has other; the encoder, a ConvNet"):
        load_weights(ConvNet(), {"other": torch.ones(3)})
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    with pytest.raises(ValueError, match=r"must hold a state dict\. Got a Tensor"):
        load_weights(ConvNet(), tmp_path / "tensor.pt")
    torch.save({"model": nn.Linear(2, 2)}, tmp_path / "pickle.pt")
    with pytest.raises(ValueError, match=r"a safetensors file .* an object of torch\.nn\.\S+\. Save its state_dict"):
        load_weights(ConvNet(), tmp_path / "pickle.pt")
    for name in ("broken.safetensors", "broken.pt"):
        (tmp_path / name).write_bytes(b"junkjunk")
        with pytest.raises(ValueError, match="cannot be read as trained weights"):
            load_weights(ConvNet(), tmp_path / name)
    for missing in (tmp_path / "missing.pt", ""):
        with pytest.raises(FileNotFoundError, match=r"backbone_weights is .* but there is no file"):
            load_weights(ConvNet(), missing)


def test_trained_kernels_are_adapted_to_the_channels():
    encoder, _ = build_backbone("convnet", (4, 16, 16), weights=trained())
    expected = trained()["features.0.weight"][:, [0, 1, 2, 0]] * 0.75
    torch.testing.assert_close(encoder.features[0].weight, expected)


def test_weights_of_a_network_with_a_map():
    net, tensors = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), {"0.weight": torch.ones(4, 3, 3, 3)}
    with pytest.warns(UserWarning, match=r"keep their initial values: 0\.bias"):
        encoder, _ = build_backbone(net, (3, 9, 9), weights=tensors)
    assert torch.equal(encoder.body[0].weight, tensors["0.weight"])


def test_a_modules_trained_weights_are_kept():
    net = torchvision.models.resnet18(weights=None)
    encoder, _ = build_backbone(net, (3, 64, 64))
    assert same(encoder, {name: value for name, value in net.state_dict().items() if not name.startswith("fc.")})


def test_an_estimator_starts_from_a_file_and_saves_it(tmp_path):
    X, _ = make_shapes(16, image_size=16, random_state=0)
    torch.save(trained(), tmp_path / "weights.pt")
    settings = {"backbone": "convnet", "epochs": 0, "batch_size": 8, "random_state": 0}
    estimator = skssl.BYOL(backbone_weights=tmp_path / "weights.pt", **settings).fit(X)
    assert same(estimator.encoder_, trained())
    assert same(estimator.net_.module_.target[0], trained()), "the momentum copy, too"
    estimator.save(tmp_path / "byol.safetensors")
    (tmp_path / "weights.pt").unlink()
    loaded = skssl.load(tmp_path / "byol.safetensors")
    assert loaded.backbone_weights == str(tmp_path / "weights.pt")
    assert np.array_equal(loaded.transform(X), estimator.transform(X))
    again = skssl.SimCLR(backbone_weights=tmp_path / "byol.safetensors", **settings).fit(X)
    assert same(again.encoder_, trained())


def test_an_estimator_starts_from_another_on_other_images():
    settings = {"backbone": "convnet", "epochs": 1, "batch_size": 8, "random_state": 0}
    X, _ = make_shapes(16, image_size=16, random_state=0)
    first = skssl.SimCLR(**settings).fit(X)
    grey = make_shapes(16, image_size=24, random_state=1)[0].mean(-1)
    second = skssl.SimSiam(**{**settings, "epochs": 0}, warm_start_from=FrozenEstimator(first))
    for estimator in (second, clone(second)):
        own, given = estimator.fit(grey).encoder_.state_dict(), first.encoder_.state_dict()
        torch.testing.assert_close(own.pop("features.0.weight")[:, 0], given.pop("features.0.weight").sum(1))
        assert all(torch.equal(own[name], value) for name, value in given.items())
    with pytest.raises(NotFittedError, match="a FrozenEstimator"):
        skssl.SimSiam(**settings, warm_start_from=skssl.SimCLR()).fit(X)
    with pytest.raises(ValueError, match="Pass one of them"):
        skssl.SimSiam(**settings, warm_start_from=first, backbone_weights="file.pt").fit(X)
    with pytest.raises(TypeError, match="warm_start_from must be an estimator of skssl"):
        skssl.SimSiam(**settings, warm_start_from=StandardScaler()).fit(X)
