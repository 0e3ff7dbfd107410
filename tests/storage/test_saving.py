"""Saved estimators: a loaded one continues bit for bit, and a malicious file is refused."""

import errno
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hypothesis
import joblib
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
import torchvision
from conftest import QUICK, quick
from sklearn.exceptions import NotFittedError
from strategies import TARGETS, largest

import skssl
from skssl import Augmentation, JigsawTask, MultiCrop, Rotation
from skssl.backbones import ViT
from skssl.callbacks import GradientSNR
from skssl.datasets import make_shapes
from skssl.storage.files import SavedFile, checksum, read, write
from skssl.storage.parameters import Given, unpack_parameters


def small(**params):
    return quick(skssl.SimCLR, **{"proj_dim": 4, "hidden_dim": 4, **params})


def assert_same_net(first, second):
    for (name, a), (other, b) in zip(
        first.net_.module_.state_dict().items(), second.net_.module_.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(a.nan_to_num(), b.nan_to_num()), name
        assert a.ndim < 4 or a.stride() == b.stride(), f"{name} has another memory layout"


def check_round_trip(estimator, path, X, y=None):
    """Save and load an estimator, compare both, train both for one more epoch and compare them again."""
    estimator.save(path)
    before = torch.get_rng_state()
    loaded = skssl.load(path)
    assert torch.equal(torch.get_rng_state(), before)
    assert type(loaded) is type(estimator)
    for name, value in estimator.get_params(deep=False).items():
        other = getattr(loaded, name)
        assert name == "callbacks" or repr(other) == repr(value) or other == value
    assert loaded.n_features_in_ == estimator.n_features_in_
    assert np.array_equal(loaded.transform(X), estimator.transform(X))
    pd.testing.assert_frame_equal(loaded.history_, estimator.history_, check_dtype=False)
    estimator.partial_fit(X, y)
    loaded.partial_fit(X, y)
    assert_same_net(estimator, loaded)
    assert estimator.history_["loss"].tolist() == loaded.history_["loss"].tolist()
    return loaded


SHARED = {method: "patches" for method, params in QUICK.items() if isinstance(params.get("backbone"), ViT)}


def test_loaded_estimators_continue_bit_for_bit(method, X, y, tmp_path):
    aux = {skssl.RotNet: None, skssl.RotationDecoupling: None}.get(method, Rotation(shared=SHARED.get(method, "conv2")))
    check_round_trip(quick(method, epochs=3, aux=aux).partial_fit(X, y), tmp_path / "a", X, y)


@pytest.mark.parametrize(
    "params",
    [
        {"optimizer": "sgd", "momentum": 0.0},
        {"optimizer": "lars"},
        {"optimizer": "adamw"},
        {"optimizer": torch.optim.NAdam, "lr": 1e-3},
        {"optimizer": torch.optim.Adafactor, "lr": 1e-3},
        {"optimizer": skssl.training.optim.LARC, "lr": 0.01},
        {"compile": False, "device": torch.device("cpu"), "precision": "float32", "random_state": np.int64(3)},
        {"lr": np.float32(0.01), "weight_decay": np.float64(1e-4), "schedule": "step", "warmup_epochs": 1},
        {"augment": [Augmentation(hue=0.0), Augmentation(size=(14, 14))], "image_shape": (16, 16, 3)},
        {"aux": ["rotation", JigsawTask(n_permutations=4)], "aux_weight": {"rotation": 2, "jigsaw": 0.1}},
    ],
    ids=str,
)
def test_parameters_of_all_kinds_are_saved(params, X, tmp_path):
    loaded = check_round_trip(small(epochs=3, **params).fit(X), tmp_path / "a", X)
    for name, value in params.items():
        assert type(getattr(loaded, name)) is type(value)


def test_threads_load_at_the_same_time(X, tmp_path):
    estimator = quick(skssl.BYOL).fit(X)
    estimator.save(tmp_path / "byol")
    with ThreadPoolExecutor(8) as pool:
        for loaded in pool.map(lambda _: skssl.load(tmp_path / "byol"), range(32)):
            assert (loaded.transform(X) == estimator.transform(X)).all()


def test_array_parameters_are_saved(X, tmp_path):
    weights = np.random.default_rng(0).random((40, 4))
    loaded = check_round_trip(quick(skssl.RotationDecoupling, pu_weights=weights).fit(X), tmp_path / "a", X)
    assert np.array_equal(loaded.pu_weights, weights)
    maps = torch.rand(40, 16, 16, generator=torch.Generator().manual_seed(0))
    loaded = check_round_trip(small(augment=Augmentation(saliency=maps)).fit(X), tmp_path / "b", X)
    assert torch.equal(loaded.augment.saliency, maps)


def test_multi_crop_is_saved(X, tmp_path):
    check_round_trip(quick(skssl.SwAV, augment=MultiCrop(n_local=1)).fit(X), tmp_path / "a", X)


def test_feature_names_scale_and_output_are_saved(X, tmp_path):
    frame = pd.DataFrame(X.reshape(40, -1) / 7).rename(columns="pixel{}".format)
    estimator = small(image_shape=(16, 16, 3)).set_output(transform="pandas").fit(frame)
    loaded = check_round_trip(estimator, tmp_path / "a", frame)
    assert loaded.feature_names_in_.tolist() == frame.columns.tolist()
    assert loaded.transform(frame).columns[0] == "simclr0"
    with pytest.raises(ValueError, match="feature names"):
        loaded.transform(frame.rename(columns=str.upper))


def test_parameters_set_after_fit_are_saved_beside_those_of_the_training(X, tmp_path):
    estimator = small(epochs=2).fit(X).set_params(proj_dim=16, lr=9.0, optimizer="adamw", backbone=None)
    loaded = check_round_trip(estimator, tmp_path / "a", X)
    assert (loaded.proj_dim, loaded.optimizer, loaded.net_.optimizer, loaded.backbone) == (16, "adamw", "sgd", None)


def own_network(width=8):
    """Return a network with a buffer that its state dict lacks."""
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, width, 3, 2), torch.nn.BatchNorm2d(width), torch.nn.ReLU(), torch.nn.Conv2d(width, 6, 3)
    )
    net[2].register_buffer("unsaved", torch.ones(3), persistent=False)
    return net


@pytest.mark.parametrize("backbone", [own_network(), own_network], ids=["module", "function"])
def test_own_backbones_are_passed_to_load(backbone, X, tmp_path):
    estimator = small(epochs=3, backbone=backbone, aux="rotation").fit(X)
    estimator.save(tmp_path / "a")
    other = own_network()
    weight, before = other[0].weight.clone(), torch.get_rng_state()
    loaded = skssl.load(tmp_path / "a", backbone=other)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(other[0].weight, weight)
    assert loaded.backbone is other
    assert np.array_equal(loaded.transform(X), estimator.transform(X))
    assert_same_net(loaded.partial_fit(X), estimator.partial_fit(X))
    loaded.save(tmp_path / "b")
    assert np.array_equal(skssl.load(tmp_path / "b", backbone=own_network).transform(X), loaded.transform(X))


class Branching(torch.nn.Module):
    """A network that the meta device cannot run."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 6, 3)

    def forward(self, images):
        maps = self.conv(images)
        return maps if maps.isfinite().all().item() else -maps


def test_own_backbones_that_need_values_load(X, tmp_path):
    estimator = small(backbone=Branching(), compile=False).fit(X)
    estimator.save(tmp_path / "a")
    assert np.array_equal(skssl.load(tmp_path / "a", backbone=Branching()).transform(X), estimator.transform(X))


def test_a_missing_or_different_backbone_is_refused(X, saved, tmp_path):
    small(backbone=own_network(), epochs=0).fit(X).save(tmp_path / "a")
    for modules, message in [
        ({}, r"backbone was a Sequential of your own, .* skssl\.load\(path, backbone=\.\.\.\)\.$"),
        (
            {"backbone": own_network(9)},
            r"backbone, a Sequential, is not the one that was saved: The tensor 'net\.enc.*shape",
        ),
        (
            {"backbone": Branching()},
            r"backbone, a Branching, is not the one .* 'net\.encoder\.body\.conv\.weight' is missing",
        ),
        ({"backbone": own_network(), "encoder": 1}, r"no use for encoder=.*It needs backbone\."),
        ({"backbone": lambda: None}, "cannot be loaded: backbone must be a name"),
    ]:
        with pytest.raises(ValueError, match=message) as of:
            skssl.load(tmp_path / "a", **modules)
        assert str(tmp_path / "a") in str(of.value)
    write(tmp_path / "b", *saved)
    with pytest.raises(ValueError, match=r"no use for backbone=.*It needs no module\."):
        skssl.load(tmp_path / "b", backbone=own_network())
    forged = with_parameters(saved[0], backbone={"module": ("__class__ x", "Sequential")})
    write(tmp_path / "c", forged, saved[1])
    with pytest.raises(ValueError, match="A module has the name '__class__ x'"):
        skssl.load(tmp_path / "c")


def test_weights_of_other_libraries_are_refused_with_the_way_to_use_them(X, tmp_path):
    network = torchvision.models.resnet18(weights=None)
    folder = tmp_path / "resnet"
    folder.mkdir()
    (folder / "config.json").write_text('{"architecture": "resnet18"}')
    safetensors.torch.save_file(network.state_dict(), folder / "model.safetensors")
    torch.save(network.state_dict(), tmp_path / "new.pth")
    torch.save(network.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for path in (folder, folder / "model.safetensors", tmp_path / "new.pth", tmp_path / "old.pth"):
        with pytest.raises(ValueError, match=r"backbone_weights='.*'\)\. With epochs=0, fit keeps them\.$") as of:
            skssl.load(path)
        assert str(path) in str(of.value)
        assert "\n" not in str(of.value)
        encoder = skssl.SimCLR(backbone=torchvision.models.resnet18(), backbone_weights=path, epochs=0).fit(X)
        assert torch.equal(encoder.encoder_.conv1.weight, network.conv1.weight)


def test_callbacks_are_not_saved(X, tmp_path):
    loaded = check_round_trip(small(callbacks=[GradientSNR()]).fit(X), tmp_path / "a", X)
    assert loaded.callbacks is None


def test_an_estimator_of_a_missing_device_loads_to_the_cpu(X, tmp_path):
    estimator = small(precision="bfloat16", device="cpu").fit(X)
    features = estimator.transform(X)
    estimator.set_params(device="cuda:77").net_.module_.method.device = "cuda:77"  # as if trained there
    estimator.save(tmp_path / "a")
    loaded = skssl.load(tmp_path / "a")
    assert loaded.net_.device == "cpu"
    assert loaded.device == "cuda:77"
    assert np.array_equal(loaded.transform(X), features)

    tiny = make_shapes(8, image_size=8, random_state=0)[0]  # a CPU cannot train these in bfloat16
    estimator = small(batch_size=4).fit(tiny).set_params(precision="bfloat16", device="cuda:77")
    estimator.net_.module_.method.set_params(precision="bfloat16", device="cuda:77")
    estimator.save(tmp_path / "b")
    assert skssl.load(tmp_path / "b").net_.dtype == torch.float32


class Own(skssl.SimCLR):
    pass


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"optimizer": type("Mine", (torch.optim.SGD,), {})}, r"SimCLR\.optimizer cannot be saved: .*Mine"),
        ({"random_state": np.random.RandomState(0)}, r"SimCLR\.random_state cannot be saved: .* joblib\.dump"),
        ({"aux": [type("Turned", (Rotation,), {})()]}, r"SimCLR\.aux\[0\] cannot be saved: .*Turned"),
    ],
)
def test_parameters_that_need_code_are_refused(params, message, X, tmp_path):
    estimator = small(**params).fit(X)
    with pytest.raises(TypeError, match=message):
        estimator.save(tmp_path / "a")
    assert not os.listdir(tmp_path)


def test_unfitted_estimators_and_subclasses_of_users_are_refused(X, tmp_path):
    with pytest.raises(NotFittedError):
        small().save(tmp_path / "a")
    estimator = Own(backbone="convnet", epochs=0).fit(X)
    with pytest.raises(TypeError, match="Own cannot be saved: a file can only name skssl's own classes"):
        estimator.save(tmp_path / "a")
    assert not os.listdir(tmp_path)


# Files


def test_write_and_read_tensors_and_plain_values(tmp_path):
    path = tmp_path / "a.safetensors"
    whole = torch.arange(24.0).view(2, 3, 2, 2)
    tensors = {
        "last": whole.to(memory_format=torch.channels_last),
        "part": whole[:, 1],
        "whole": whole,
        "inner": whole.flatten()[3:7],
        "same": whole,
        "expanded": torch.ones(1).expand(5),
        "scalar": torch.tensor(3),
        "flags": torch.tensor([True, False]),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "bytes": torch.arange(3, dtype=torch.uint8),
        "none": torch.zeros(0, 5),
        "trained": torch.nn.Parameter(torch.ones(2)),
    }
    header = {
        "tuple": (1, [2, (3,)]),
        "!tuple": {"!float": "inf", "!!": None},
        "floats": [float("inf"), float("-inf"), 1e-320, 0.1],
        "numpy": [np.float32(0.5), np.int64(-(2**63)), np.bool_(True)],
        "text": "\ud800 ü \x00",
    }
    write(path, header, tensors)
    found, loaded = read(path)
    assert found == header
    assert type(found["numpy"][0]) is float
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor)
        assert loaded[name].dtype == tensor.dtype
    first = path.read_bytes()
    write(path, header, tensors)
    assert path.read_bytes() == first, "equal contents give equal files"
    write(path, {"nan": float("nan")}, {})
    assert np.isnan(read(path)[0]["nan"])
    with pytest.raises(TypeError, match=r"header\['a'\]\[0\] must be a plain value.*Got <object"):
        write(path, {"a": [object()]}, {})
    with pytest.raises(ValueError, match="64 bits"):
        write(path, {"a": 2**64}, {})


def test_writes_are_atomic(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    write(path, {"old": True}, {})
    (tmp_path / "link").symlink_to(path)
    write(tmp_path / "link", {"old": 1}, {})
    assert (tmp_path / "link").is_symlink()

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"a\.safetensors' could not be written and is unchanged: No space") as of:
        write(path, {"old": False}, {})
    assert of.value.errno == errno.ENOSPC
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "link"]
    assert read(path)[0] == {"old": 1}
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError, match=r"none/a' could not be written"):
        write(tmp_path / "none" / "a", {}, {})
    with pytest.raises(IsADirectoryError, match="could not be written"):
        write(tmp_path, {}, {})
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting property name"),
        ("[]", "is not a dict"),
        ("{}", "lacks the number of its format"),
        ('{"format": -7, "header": {}}', "lacks the number of its format"),
        ('{"format": 2, "header": {}}', "format 2 is that of a newer skssl; this one reads up to 1"),
        ('{"format": 1, "header": {}}', "other keys than 'format', 'sha256' and 'header'"),
        ('{"format": 1, "sha256": "0", "header": {}}', "checksum"),
        ('{"format": 1, "header": {"a": 1, "a": 2}}', "'a' twice"),
        ('{"format": 1, "header": {"a": NaN}}', "NaN is not JSON"),
        ('{"format": 1, "header": {"a": 1e999}}', "1e999 is too large for a float"),
        (f'{{"format": {"1" * 5000}}}', "does not fit into 64 bits"),
        (f'{{"format": 1, "header": {"[" * 10**6}', "nested too deeply"),
        (f'{{"format": 1, "header": {"[" * 10**4}{"]" * 10**4}}}', "nested too deeply|other keys than"),
    ],
    ids=range(13),
)
def test_invalid_headers_are_refused(text, message, tmp_path):
    path = tmp_path / "a"
    safetensors.torch.save_file({"a": torch.zeros(2)}, path, {"skssl": text})
    with pytest.raises(ValueError, match=message) as of:
        read(path)
    assert str(path) in str(of.value)


def test_other_files_are_refused(X, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a regular file"):
        skssl.load(tmp_path / "pipe")
    with pytest.raises(ValueError, match="cannot be read: it is a folder"):
        skssl.load(tmp_path)
    safetensors.torch.save_file({"a": torch.zeros(2)}, tmp_path / "other")
    with pytest.raises(ValueError, match=r"other' cannot be read, .* its metadata lack 'skssl'"):
        skssl.load(tmp_path / "other")
    torch.save({"a": torch.zeros(2)}, tmp_path / "pickle")
    with pytest.raises(ValueError, match=r"pickle' cannot be read, .* it is a file of torch\.save"):
        skssl.load(tmp_path / "pickle")
    (tmp_path / "noise").write_bytes(bytes(range(7, 250)))
    with pytest.raises(ValueError, match=r"noise' cannot be read, .* its header would have \d+ bytes"):
        skssl.load(tmp_path / "noise")
    safetensors.torch.save_file({f"{i}": torch.zeros(0) for i in range(20_000)}, tmp_path / "many", {"skssl": "{}"})
    with pytest.raises(ValueError, match=r"many' cannot be read.* it has 20000 tensors, of at most 16384"):
        skssl.load(tmp_path / "many")
    with pytest.raises(ValueError, match="more' would have a header of more than 8388608 bytes"):
        write(tmp_path / "more", {"a": "x" * 2**23}, {})
    quick(skssl.SimCLR, checkpoint=tmp_path / "state").fit(X)
    with pytest.raises(ValueError, match=r"cannot be loaded: It holds the state of a training, which fit resumes if"):
        skssl.load(tmp_path / "state" / "training.safetensors")
    write(tmp_path / "empty", {}, {})
    with pytest.raises(ValueError, match="empty' cannot be loaded: 'skssl' must be the version"):
        skssl.load(tmp_path / "empty")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The header and the tensors of a saved estimator."""
    path = tmp_path_factory.mktemp("saved") / "a"
    small(aux=Rotation()).fit(make_shapes(16, image_size=16, random_state=0)[0]).save(path)
    return read(path)


def test_damaged_files_are_refused(saved, tmp_path):
    path = tmp_path / "a"
    write(path, *saved)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1  # a weight
    path.write_bytes(content)
    with pytest.raises(ValueError, match="its checksum does not match"):
        skssl.load(path)


def change_header(path, change):
    """Change the header of a safetensors file, but not the tensors."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    text = change(content[8 : 8 + length].decode()).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def test_a_file_that_is_truncated_while_it_is_read_is_refused(saved, tmp_path, monkeypatch):
    path, read_tensor = tmp_path / "a", SavedFile.read_tensor
    write(path, *saved)

    def truncate_and_read(file, name):
        os.truncate(path, 2**15)
        return read_tensor(file, name)

    monkeypatch.setattr(SavedFile, "read_tensor", truncate_and_read)
    with pytest.raises(ValueError, match=r"a' cannot be read, .*: it was truncated while it was read\."):
        skssl.load(path)


@pytest.mark.parametrize("name", ["net.encoder.features.0.weight", "optimizer.0.momentum_buffer"])
def test_a_sparse_file_is_refused_before_its_tensors_are_read(name, saved, tmp_path):
    path = tmp_path / "a"
    write(path, saved[0], {**saved[1], name: torch.zeros(5)})

    def enlarge(text):
        outer = json.loads(text)
        end = max(entry["data_offsets"][1] for key, entry in outer.items() if key != "__metadata__")
        begin, old = outer[name]["data_offsets"]
        for key, entry in outer.items():
            if key not in ("__metadata__", name) and entry["data_offsets"][0] >= old:
                entry["data_offsets"] = [of - (old - begin) for of in entry["data_offsets"]]
        outer[name] |= {"shape": [5 * 2**28], "data_offsets": [end - (old - begin), end - (old - begin) + 5 * 2**30]}
        return json.dumps(outer)

    change_header(path, enlarge)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    outer = json.loads(content[8 : 8 + length])
    os.truncate(path, 8 + length + outer[name]["data_offsets"][1])
    assert path.stat().st_size > 5 * 2**30
    before, started = largest(), time.perf_counter()
    with pytest.raises(ValueError, match=f"The tensor '{name}' must be of shape"):
        skssl.load(path)
    assert time.perf_counter() - started < 2
    assert largest() - before < 2**27


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: text.replace('{"', '{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{},"', 1),
            "'a' twice",
        ),
        (lambda text: text.replace('"shape":[2]', '"shape":[3]'), "'x' takes 12 bytes, but its place has 8"),
        (lambda text: text.replace('"shape":[2]', '"shape":[-2]'), "the tensor 'x' is described by"),
        (lambda text: text.replace('"shape":[2]', '"shape":[' + "1," * 99 + "2]"), "the tensor 'x' is described by"),
        (lambda text: text.replace("F32", "F4"), "the tensor 'x' is described by"),
        (lambda text: text.replace("[0,8]", "[4,12]"), "a tensor begins at byte 4 of the data"),
        (lambda text: text.replace("[8,24]", "[0,16]"), "a tensor begins at byte 0 of the data"),
        (lambda text: text.replace("[8,24]", "[8,32]").replace('"shape":[4]', '"shape":[6]'), "but the file has"),
        (lambda text: "[" * 10**5, "nested too deeply"),
        (lambda text: text[:-9], "damaged"),
        (lambda text: "[]", "not a dict"),
    ],
    ids=range(11),
)
def test_forged_entries_of_tensors_are_refused(change, message, tmp_path):
    path = tmp_path / "a"
    write(path, {}, {"x": torch.ones(2), "y": torch.ones(4)})
    assert read(path)[1].keys() == {"x", "y"}
    before = path.read_bytes()
    change_header(path, change)
    assert path.read_bytes() != before
    with pytest.raises(ValueError, match=message) as of:
        read(path)
    assert str(path) in str(of.value)


def test_reading_takes_the_memory_of_the_tensors_once(tmp_path):
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("the peak of the memory cannot be reset")
    write(tmp_path / "a", {}, {"x": torch.ones(2**24)})
    Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what the process takes now
    before = largest()
    _, tensors = read(tmp_path / "a")
    assert largest() - before < 1.3 * tensors["x"].nbytes


def with_parameters(header, **params):
    return {**header, "parameters": {**header["parameters"], **params}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header, tensors: {**header, "class": "Pipeline"}, "Unknown class 'Pipeline'"),
        (lambda header, tensors: {**header, "class": "SSLTransformer"}, "Unknown class"),
        (lambda header, tensors: {**header, "code": "1"}, "'code' is unknown"),
        (
            lambda header, tensors: {**with_parameters(header, epoch=1), "skssl": "9.9"},
            r"\(it was saved by skssl '9\.9'\): SimCLR has no parameter 'epoch'",
        ),
        (lambda header, tensors: {**header, "shape": (3, 16)}, "'shape' must be channels, height and width"),
        (lambda header, tensors: with_parameters(header, callbacks=[]), "SimCLR has no parameter 'callbacks'"),
        (lambda header, tensors: with_parameters(header, momentum=float("nan")), "'momentum' parameter of SimCLR"),
        (lambda header, tensors: with_parameters(header, backbone="resnet18"), "The tensor 'net.encoder"),
        (lambda header, tensors: with_parameters(header, hidden_dim=10**12), r"must be of shape \(10{12}, 128\)"),
        (lambda header, tensors: with_parameters(header, proj_dim=10**12), "cannot be loaded"),
        (lambda header, tensors: with_parameters(header, proj_dim=2**62), "cannot be loaded"),
        (lambda header, tensors: with_parameters(header, proj_layers=10**9), "'proj_layers' parameter of SimCLR"),
        (
            lambda header, tensors: with_parameters(
                header, aux={"object": {"class": "JigsawTask", "parameters": {"n_permutations": 10**9}}}
            ),
            "'n_permutations' parameter of JigsawTask",
        ),
        (
            lambda header, tensors: with_parameters(header, augment={"object": {"class": "os", "parameters": {}}}),
            "Unknown class 'os'",
        ),
        (lambda header, tensors: with_parameters(header, optimizer={"optimizer": "system"}), "Unknown optimizer"),
        (lambda header, tensors: with_parameters(header, optimizer={"call": "system"}), "has no known meaning"),
        (lambda header, tensors: with_parameters(header, aux=["x" * 10**6]), "take more than"),
        (lambda header, tensors: tensors.pop("net.encoder.features.0.weight") is None, "0.weight' is missing"),
        (lambda header, tensors: tensors.update({"net.more": torch.ones(1)}), "'net.more' is unknown"),
        (lambda header, tensors: tensors.update({"more": torch.ones(1)}), "'more' is unknown"),
        (lambda header, tensors: tensors.update({"optimizer.0.exp_avg": torch.ones(1)}), "exp_avg' is unknown"),
        (
            lambda header, tensors: tensors.update({"optimizer.0.momentum_buffer": torch.ones(1)}),
            r"momentum_buffer' must be of shape \(16, 3, 3, 3\)",
        ),
        (lambda header, tensors: tensors.update({"optimizer.99.x": torch.ones(1)}), "no parameter '99'"),
        (lambda header, tensors: {**header, "rates": [0.1, 0.1]}, "'rates' must hold 1 learning rates"),
    ],
    ids=range(24),
)
def test_forged_files_are_refused_without_much_time_or_memory(change, message, saved, tmp_path):
    header, tensors = saved[0], dict(saved[1])
    found = change(header, tensors)
    write(tmp_path / "a", found if isinstance(found, dict) else header, tensors)
    before, started = largest(), time.perf_counter()
    with pytest.raises(ValueError, match=message) as of:
        skssl.load(tmp_path / "a")
    assert str(tmp_path / "a") in str(of.value)
    assert time.perf_counter() - started < 2
    assert largest() - before < 2**27


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"history": [{"epoch": "a", "loss": "b"}]}, "'epoch' in row 0 of 'history' must be a number. Got 'a'"),
        ({"history": [{"loss": 1.0, "epoch": 1, "lr": 0.1}]}, "'images_per_second' in row 0 .* Got None"),
        ({"history": [{"epoch": 1, "effective_rank": "x"}]}, "'effective_rank' in row 0 of 'history' must be a number"),
        ({"output": "polars"}, "'polars', which is not installed: pip install polars"),
    ],
    ids=range(4),
)
def test_forged_histories_and_outputs_are_refused(change, message, saved, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    write(tmp_path / "a", {**saved[0], **change}, saved[1])
    with pytest.raises(ValueError, match=message):
        skssl.load(tmp_path / "a")


def test_a_file_starts_no_more_processes_than_there_are_cores(saved, tmp_path):
    cores = joblib.cpu_count()
    for n_jobs, expected in [(4000, cores), (np.int64(4000), cores), (1, 1), (-1, -1), (None, None)]:
        packed = {"scalar": ("int64", 4000)} if isinstance(n_jobs, np.int64) else n_jobs
        write(tmp_path / "a", with_parameters(saved[0], n_jobs=packed), saved[1])
        assert skssl.load(tmp_path / "a").n_jobs == expected


def test_a_file_of_huge_views_is_refused(saved, tmp_path):
    augment = {"object": {"class": "Augmentation", "parameters": {"size": 30_000}}}
    write(tmp_path / "a", with_parameters(saved[0], augment=augment), saved[1])
    with pytest.raises(ValueError, match="views have 30000 x 30000 pixels"):
        skssl.load(tmp_path / "a")


def test_a_file_of_a_version_without_a_parameter_loads_with_its_default(saved, tmp_path):
    parameters = {name: value for name, value in saved[0]["parameters"].items() if name != "on_bad_image"}
    write(tmp_path / "a", {**saved[0], "skssl": "0.0.9", "parameters": parameters}, saved[1])
    assert skssl.load(tmp_path / "a").on_bad_image == "raise"


def test_a_huge_image_shape_takes_no_memory(saved, tmp_path):
    write(tmp_path / "a", {**saved[0], "shape": (3, 10**5, 10**5), "n_samples": 10**12}, saved[1])
    before = largest()
    assert skssl.load(tmp_path / "a").n_features_in_ == 3 * 10**10, "the network takes images of any size"
    assert largest() - before < 2**27


def test_fuzzed_files(tmp_path):
    cases, check = TARGETS["load"](tmp_path)
    hypothesis.configuration.set_hypothesis_home_dir(tmp_path.parent / "hypothesis")
    settings = hypothesis.settings(
        max_examples=300,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    outcomes = set()
    settings(hypothesis.given(cases)(lambda case: outcomes.add(check(case))))()
    assert outcomes == {"loaded", "refused"}


def test_a_file_written_by_hand_is_read(saved, tmp_path):
    """Format 1 must stay readable, so this test does not use `write`."""
    header, tensors = {"a": {"!tuple": [1, {"!float": "inf"}]}}, {"x": torch.ones(2)}
    text = json.dumps({"format": 1, "sha256": checksum(header, tensors), "header": header})
    safetensors.torch.save_file(tensors, tmp_path / "a", {"skssl": text})
    assert read(tmp_path / "a")[0] == {"a": (1, float("inf"))}


def test_a_file_of_0_1_0_loads():
    """The file was written by skssl 0.1.0: SimCLR with Rotation(angles=(0, 180)), trained by Adafactor for an epoch."""
    estimator = skssl.load(Path(__file__).with_name("simclr-0.1.0.safetensors"))
    assert (type(estimator), estimator.optimizer) == (skssl.SimCLR, torch.optim.Adafactor)
    assert estimator.aux.angles == (0, 180)
    features = estimator.transform(make_shapes(32, image_size=16, random_state=0)[0])
    assert features[0, :5] == pytest.approx([0.0831, 0.0, 0.0654, 0.0587, 0.1287], abs=1e-3)
    assert features.sum() == pytest.approx(167.29, rel=1e-3)
    assert estimator.history_["loss"].tolist() == pytest.approx([6.655505])
    states = list(estimator.net_.optimizer_.state.values())
    assert len(states) == 23
    assert all(state["step"] == 2 for state in states)


def test_parameters_that_simsiam_and_byol_no_longer_have_are_left_out():
    packed = {"stop_gradient": "symmetric", "pairing": "fresh", "pred_dim": 8}
    assert unpack_parameters(skssl.BYOL, packed, Given()) == {"pred_dim": 8}
    with pytest.raises(ValueError, match="SimSiam has no parameter 'stop_gradient'"):
        unpack_parameters(skssl.SimSiam, {"stop_gradient": "guided"}, Given())
    assert unpack_parameters(skssl.BYOLGSG, packed, Given()) == packed


# Export


@pytest.fixture(scope="module")
def resnet():
    """An untrained ResNet-18 with the stem for large images."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 72, 72, 3), dtype=np.uint8)
    params = {"backbone": "resnet18", "epochs": 0, "precision": "float32", "random_state": 0}
    return skssl.SimCLR(**params).fit(pixels), pixels


def normalized(estimator, X):
    return estimator.net_.augmentations[0].normalize(torch.from_numpy(X.copy()).permute(0, 3, 1, 2))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_torchvision_loads_the_weights(suffix, resnet, tmp_path):
    estimator, X = resnet
    path = tmp_path / f"encoder{suffix}"
    estimator.export(path)
    state = safetensors.torch.load_file(path) if suffix == ".safetensors" else torch.load(path, weights_only=True)
    net = torchvision.models.resnet18()
    assert net.load_state_dict(state, strict=False).missing_keys == ["fc.weight", "fc.bias"]
    net.fc = torch.nn.Identity()
    with torch.no_grad():
        features = net.eval()(normalized(estimator, X))
    np.testing.assert_allclose(features, estimator.transform(X), rtol=1e-4, atol=1e-5)


def test_timm_loads_the_weights(resnet, tmp_path):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    estimator, X = resnet
    estimator.export(tmp_path / "encoder.safetensors")
    net = timm.create_model("resnet18", num_classes=0, checkpoint_path=str(tmp_path / "encoder.safetensors"))
    with torch.no_grad():
        features = net.eval()(normalized(estimator, X))
    np.testing.assert_allclose(features, estimator.transform(X), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator",
    [small(), small(augment=Augmentation(size=24)), quick(skssl.DeepCluster), small(backbone="resnet18")],
    ids=["plain", "resized", "with a hook", "resnet18"],
)
def test_onnx_export_equals_transform(estimator, X, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    estimator.set_params(precision="float32", batch_size=40).fit(X).export(tmp_path / "encoder.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
    for n in (1, 7):
        images = (X[:n] / 255).astype(np.float32).transpose(0, 3, 1, 2)
        (features,) = session.run(["features"], {"images": images})
        np.testing.assert_allclose(features, estimator.transform(X[:n]), rtol=1e-4, atol=1e-5)


def test_unknown_suffixes_are_refused(resnet, tmp_path):
    with pytest.raises(ValueError, match=r"Unknown suffix of the exported file '\.onx', did you mean '\.onnx'"):
        resnet[0].export(tmp_path / "encoder.onx")
    with pytest.raises(NotFittedError):
        skssl.SimCLR().export(tmp_path / "encoder.onnx")
