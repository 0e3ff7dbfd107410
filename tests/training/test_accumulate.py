"""`accumulate`: a batch in parts has the losses, gradients and buffers of the whole batch, in less memory."""

import weakref
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import QUICK, quick
from helpers import random_corners
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import skssl
from skssl.backbones import feature_map
from skssl.datasets import make_shapes
from skssl.images import as_images
from skssl.nn import accumulation
from skssl.nn.accumulation import encode_in_parts
from skssl.training.objective import Batch


def backbone(*, norm=False, dropout=0.0):
    """Make a tiny network, without BatchNorm by default."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6) if norm else nn.Identity(), nn.Tanh()]
    layers += [nn.Dropout(dropout), nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.Tanh()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(1))


@pytest.fixture
def double(monkeypatch):
    """Keep float64 where losses convert to float32."""
    narrow = torch.Tensor.float
    monkeypatch.setattr(torch.Tensor, "float", lambda x: x if x.dtype == torch.float64 else narrow(x))


def widened(x):
    """Return a tensor of floats in float64, and anything else unchanged."""
    return x.double() if torch.is_tensor(x) and x.is_floating_point() else x


def step(method, n, accumulate, *, steps=2, side=8, **params):
    """Compute the losses of batches of n images in float64; return the losses, the last gradients and the buffers."""
    X, y = make_shapes(n + 4, image_size=side, random_state=0)
    settings = {
        "backbone": QUICK[method].get("backbone", backbone()),
        "batch_size": n,
        "accumulate": accumulate,
        "precision": "float32",
    }
    trainer = quick(method, **{**settings, "device": "cpu", **params})._make_trainer(as_images(X))
    net = trainer.module_.double().train()
    for part in net.modules():  # crops that a task makes are in float32
        part.register_forward_pre_hook(lambda part, args: tuple(map(widened, args)))
    images = torch.from_numpy(X[:n]).movedim(3, 1)
    draw = torch.Generator().manual_seed(0)
    views = list(torch.randn(len(trainer.augmentations), n, 3, side, side, generator=draw, dtype=torch.float64))
    labels = torch.from_numpy(np.unique(y[:n], return_inverse=True)[1])
    corners = random_corners(len(views), n) if net.reads_corners else None
    losses = []
    for seed in range(steps):  # the second step uses the queues, banks and centres of the first
        torch.manual_seed(seed)
        net.zero_grad()
        batch = Batch(images, views, torch.arange(n), labels, draw.manual_seed(seed), corners=corners)
        found = trainer.train_step_single(batch)
        net.method.after_step(net, seed, 0.5)
        losses.append(found["y_pred"])
    result = {f"loss {name} {i}": value for i, row in enumerate(losses) for name, value in row.items()}
    result |= {f"gradient of {name}": p.grad for name, p in net.named_parameters() if p.grad is not None}
    return result | {name: value.clone() for name, value in net.named_buffers()}


def assert_same(one, two, tolerance=1e-9):
    """Compare by the norms of the differences."""
    assert one.keys() == two.keys()
    largest = max(value.norm() for name, value in one.items() if name.startswith("gradient"))
    for name, value in one.items():
        floor = 1e-3 * largest if name.startswith("gradient") else 1e-3
        difference = (value.double() - two[name].double()).norm() / value.double().norm().clamp(min=floor)
        assert difference < tolerance or value.isnan().all(), f"{name}: {difference:.2g}"


@pytest.mark.parametrize("aux", [None, "rotation"])
@pytest.mark.parametrize("name", ["SimCLR", "MoCo", "BYOL", "BarlowTwins", "VICReg"])
@pytest.mark.usefixtures("double")
def test_eight_parts_of_32_have_the_gradients_of_one_batch_of_256(name, aux):
    method, once = getattr(skssl, name), {"steps": 1, "aux": aux}
    assert_same(step(method, 256, 1, **once), step(method, 256, 8, **once))


TASKS = ["rotation", "jigsaw", "relative_patch", "inpainting", "colorization"]
CASES = {method.__name__: (method, {}) for method in QUICK} | {
    "MoCo, symmetric": (skssl.MoCo, {"bn_splits": 1, "symmetric": True}),
    "LeOCLR, end to end": (skssl.LeOCLR, {"encoder": "end-to-end"}),
    "SimCLR and tasks": (skssl.SimCLR, {"aux": TASKS}),
    "ContextEncoder, adversarial": (skssl.ContextEncoder, {"adversarial_weight": 0.1}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("double")
def test_every_method_has_the_losses_gradients_and_buffers_of_the_whole_batch(case):
    method, params = CASES[case]
    assert_same(step(method, 14, 1, side=16, **params), step(method, 14, 4, side=16, **params))


@pytest.mark.parametrize(
    ("name", "params"),
    [("SimCLR", {"aux": "rotation"}), ("MoCo", {}), ("MoCo", {"bn_splits": 8}), ("DenseCL", {}), ("DINO", {})],
)
@pytest.mark.usefixtures("double")
def test_the_second_pass_repeats_batchnorm_and_dropout_and_leaves_buffers(name, params):
    def run():
        return step(getattr(skssl, name), 32, 4, backbone=backbone(norm=True, dropout=0.5), **params)

    parts = run()
    with mock.patch.object(accumulation, "checkpoint", lambda function, *args, **kwargs: function(*args)):
        assert_same(run(), parts)  # one pass with a graph


def test_batchnorm_normalises_each_part_and_counts_it_once():
    encoder = backbone(norm=True)
    with encode_in_parts([encoder], 4):
        encoder(torch.rand(16, 3, 8, 8)).sum().backward()
    assert encoder[1].num_batches_tracked == 4
    assert "forward" not in vars(encoder)


def test_features_and_maps_keep_the_order_of_the_images():
    encoder, images = backbone(), torch.rand(11, 3, 8, 8)
    with encode_in_parts([encoder], 3):
        features, grid = feature_map(encoder, images)
    for found, expected in zip((features, grid), feature_map(encoder, images), strict=True):
        torch.testing.assert_close(found, expected)


def test_small_passes_have_fewer_parts():
    encoder = backbone(norm=True)
    with encode_in_parts([encoder], 4):
        encoder(torch.rand(5, 3, 8, 8))
        encoder(torch.rand(1, 3, 8, 8))
    assert encoder[1].num_batches_tracked == 3


class Memory(TorchDispatchMode):
    """Records the most bytes of tensors that are alive at any time."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.alive = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.alive:
                storage = tensor.untyped_storage()
                self.alive.add(storage._cdata)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self.freed, storage._cdata, storage.nbytes())
        return found

    def freed(self, key, n_bytes):
        self.alive.discard(key)
        self.now -= n_bytes


def most_memory(n, parts):
    """Return the most bytes that an encoder of 16 layers allocates for n images, forward and backward."""
    layers = [nn.Conv2d(3, 3, 3, padding=1), nn.Tanh()] * 8
    encoder, images = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), torch.rand(n, 3, 16, 16)
    with Memory() as memory, encode_in_parts([encoder], parts):
        encoder(images).square().sum().backward()
    return memory.most


def test_only_the_activations_of_one_part_are_in_memory():
    one = most_memory(16, 1)
    assert most_memory(128, 1) > 7 * one
    assert most_memory(128, 8) < 1.3 * one


def test_fit_partial_fit_and_checkpoints_in_parts_agree_bit_for_bit(X, tmp_path):
    settings = {"accumulate": 4, "epochs": 2, "aux": "rotation"}
    whole = quick(skssl.SimCLR, **settings).fit(X)
    again = quick(skssl.SimCLR, **settings).partial_fit(X).partial_fit(X)
    np.testing.assert_array_equal(whole.transform(X), again.transform(X))
    assert whole.net_.module_.encoder(torch.zeros(1, 3, 16, 16)).shape == (1, 128)
    saved = quick(skssl.SimCLR, **settings, checkpoint=tmp_path / "run").fit(X)
    np.testing.assert_array_equal(whole.transform(X), saved.transform(X))
    with pytest.raises(ValueError, match="accumulate"):
        quick(skssl.SimCLR, **{**settings, "accumulate": 2}, checkpoint=tmp_path / "run").fit(X)


def test_bfloat16_in_parts(X):
    history = quick(skssl.SimCLR, accumulate=4, precision="bfloat16").fit(X).history_
    assert np.isfinite(history["loss"]).all()


def test_parts_that_cannot_be_are_refused(X):
    with pytest.raises(ValueError, match=r"'accumulate' .* at most half of batch_size=16, .* Got 9\."):
        quick(skssl.SimCLR, accumulate=9).fit(X)
    with pytest.raises(ValueError, match=r"accumulate=1 or compile='auto', .* Got accumulate=2 and compile=True\."):
        quick(skssl.SimCLR, accumulate=2, compile=True).fit(X)
