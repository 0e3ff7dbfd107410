"""SpotArtifacts against a literal version of its step, and its two phases."""

import copy
import functools
import itertools

import numpy as np
import pytest
import torch
from conftest import quick
from helpers import built
from torch import nn
from torch._dynamo.utils import counters

import skssl
from skssl.backbones import feature_map
from skssl.datasets import make_shapes
from skssl.nn.autoencoder import Autoencoder

F = nn.functional


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def mean_of_neighbors(code, i, r, c):
    h, w = code.shape[2:]
    places = [(y, x) for y in (r - 1, r, r + 1) for x in (c - 1, c, c + 1) if 0 <= y < h and 0 <= x < w]
    return torch.stack([code[i, :, y, x] for y, x in places]).mean(0)


def two_classes(scores, labels):
    """Compute the cross-entropy of a softmax over two classes, as in the code."""
    return F.cross_entropy(torch.stack([torch.zeros_like(scores), scores], 1), labels)


def test_step_matches_literal_losses_of_both_players_on_one_forward_pass(X, monkeypatch):
    narrow = torch.Tensor.float
    monkeypatch.setattr(torch.Tensor, "float", lambda x: x if x.dtype == torch.float64 else narrow(x))
    params = {"depth": 2, "width": 3, "drop_rate": 0.5, "mask_weight": 0.2, "repair_weight": 3.0}
    method, net, batch = built(skssl.SpotArtifacts, X, **params)
    for part in net.autoencoder.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.3, 0.3)
            part.running_var.uniform_(0.5, 1.5)
    method.before_epoch(net, 0, None)
    other, (view,) = copy.deepcopy(net), batch.views
    net.prepare(batch)
    torch.manual_seed(1)
    found = net(batch)
    found["loss"].backward()

    autoencoder, repair = other.autoencoder.eval(), other.repair
    torch.manual_seed(1)
    mask = (torch.rand(12, 1, 4, 4) >= 0.5).double()
    code = autoencoder.encode(view)
    real, made = code.clone(), code.clone()
    for i, r, c in itertools.product(range(12), range(4), range(4)):
        if not mask[i, 0, r, c]:
            made[i, :, r, c] = mean_of_neighbors(code, i, r, c)
    grid = mask
    for step in range(3):
        change = repair[step].residual(torch.cat([made, grid], 1))
        made = torch.where(grid.bool(), made, made + change)
        if step < 2:
            real, made = (autoencoder.up[step](F.interpolate(x, scale_factor=2, mode="bilinear")) for x in (real, made))
            grid = grid.repeat_interleave(2, 2).repeat_interleave(2, 3)
    real, made = autoencoder.last(real), autoencoder.last(made)

    features, maps = feature_map(other.encoder, torch.cat([real, made]))
    scores = other.discriminator_head(features)[:, 0]
    predicted = F.interpolate(other.mask_head(maps), (4, 4), mode="bilinear")
    label = torch.cat([torch.ones(12, 1, 4, 4), mask])
    predicted_right = label * torch.sigmoid(predicted).log() + (1 - label) * torch.sigmoid(-predicted).log()
    is_real = torch.tensor([1] * 12 + [0] * 12)
    discriminator = two_classes(scores, is_real) - 0.2 * predicted_right.mean()
    errors = [(made[i, :, r, c] - view[i, :, r, c]) ** 2 for i, _, r, c in grid.nonzero().tolist()]
    repairing = two_classes(scores, 1 - is_real) + 3.0 * torch.stack(errors).mean()

    players = {"encoder": discriminator, "discriminator_head": discriminator, "mask_head": discriminator}
    for name, loss in {**players, "repair": repairing}.items():
        literal = torch.autograd.grad(loss, list(other.get_submodule(name).parameters()), retain_graph=True)
        for (part, p), expected in zip(net.get_submodule(name).named_parameters(), literal, strict=True):
            torch.testing.assert_close(p.grad, expected, rtol=1e-8, atol=1e-11, msg=f"{name}.{part}")
    assert all(p.grad is None for p in net.autoencoder.parameters())
    torch.testing.assert_close(found["loss"], discriminator + repairing)
    right = ((predicted > 0) == (label > 0)).double().mean()
    assert found["mask_accuracy"].item() == pytest.approx(right.item())
    for (name, value), expected in zip(net.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12, msg=name)


def test_the_autoencoder_is_trained_alone_and_then_frozen(X):
    def trained(epochs):
        method = quick(skssl.SpotArtifacts, epochs=4, pretrain_epochs=None)
        for _ in range(epochs):
            method.partial_fit(X)
        return method if epochs else quick(skssl.SpotArtifacts, epochs=0).fit(X)

    nets = [trained(epochs).net_.module_ for epochs in (0, 2, 4)]
    for name, changes in {"autoencoder": (True, False), "encoder": (False, True), "repair": (False, True)}.items():
        states = [state(net.get_submodule(name)) for net in nets]
        for (first, second), changed in zip(itertools.pairwise(states), changes, strict=True):
            same = [torch.equal(value, second[key]) for key, value in first.items()]
            assert not any(same) if changed else all(same), name
    history = trained(4).history_
    assert history["reconstruction"].notna().all()
    assert history["discriminator"].isna().tolist() == [True, True, False, False]


def test_the_autoencoder_learns_and_artifacts_are_spotted():
    X, _ = make_shapes(128, image_size=16, random_state=0)
    few = {"epochs": 4, "lr": 2e-3, "schedule": "constant", "width": 8, "batch_size": 32}
    history = quick(skssl.SpotArtifacts, pretrain_epochs=2, **few).fit(X).history_
    assert history["reconstruction"][1] < 0.8 * history["reconstruction"][0]
    assert history["discriminator_accuracy"][3] > 0.8
    assert history["mask_accuracy"][3] > 0.75 > skssl.SpotArtifacts().chance["mask_accuracy"]


def test_each_phase_is_compiled_once(X, monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    counters.clear()
    compiled, plain = (
        quick(skssl.SpotArtifacts, epochs=2, pretrain_epochs=1, precision="float32", compile=on).fit(X)
        for on in (True, False)
    )
    assert compiled.net_.compiled
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]
    np.testing.assert_allclose(compiled.transform(X), plain.transform(X), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (13, 10), (16, 16)])
def test_the_autoencoder_takes_images_of_any_size(size):
    net, images = Autoencoder(3, width=2, depth=3), torch.rand(2, 3, *size)
    assert net.encode(images).shape == (2, 16, *(-(-side // 8) for side in size))
    assert net(images).shape == images.shape


def test_a_backbone_without_a_map_is_refused(X):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 8))
    with pytest.raises(ValueError, match="map"):
        quick(skssl.SpotArtifacts, backbone=flat).fit(X)
