"""Optimisers."""

import math
from functools import partial

import pytest
import torch
from conftest import quick
from skorch.callbacks import Callback
from torch import nn

import skssl
from skssl.backbones import build_backbone
from skssl.training.optim import LARC, LARS, clip_gradients, layer_scales, make_optimizer


def test_sgd_with_parameters_whose_gradient_appears_later():
    """Momentum that begins with zeros is the momentum that begins with the first gradient."""
    ours, torchs = (torch.nn.Linear(3, 2, bias=False) for _ in range(2))
    torchs.load_state_dict(ours.state_dict())
    late = torch.nn.Linear(3, 2)
    net = torch.nn.ModuleList([ours, late])
    made = make_optimizer("sgd", net, lr=0.1, momentum=0.9, weight_decay=0.01)
    plain = torch.optim.SGD(torchs.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01, fused=True)
    for step in range(3):
        for optimizer, module in ((made, ours), (plain, torchs)):
            optimizer.zero_grad()
            (module.weight.square().sum() + (late.weight.sum() if step else 0)).backward()
            optimizer.step()
    assert torch.equal(ours.weight, torchs.weight)


def test_lars_matches_a_loop():
    draw = torch.Generator().manual_seed(0)
    start = [torch.randn(4, 3, generator=draw), torch.zeros(2, 2), torch.randn(5, generator=draw)]
    params = [nn.Parameter(p.clone()) for p in start]
    lars = LARS(params, lr=0.5, momentum=0.8, weight_decay=0.1, trust=0.01)
    expected = [p.double().clone() for p in start]
    velocity = [torch.zeros_like(p) for p in expected]
    for lr in (0.5, 0.1, 0.3):  # outside of the momentum
        lars.param_groups[0]["lr"] = lr
        gradients = [torch.randn(p.shape, generator=draw) for p in params]
        for p, g in zip(params, gradients, strict=True):
            p.grad = g.clone()
        lars.step()
        for i, g in enumerate(gradients):
            d = g.double()
            if d.ndim > 1:
                d = d + 0.1 * expected[i]
                if expected[i].norm() > 0 and d.norm() > 0:
                    d = d * 0.01 * expected[i].norm() / d.norm()
            velocity[i] = 0.8 * velocity[i] + d
            expected[i] = expected[i] - lr * velocity[i]
    for p, e in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach().double(), e, rtol=1e-5, atol=1e-6)


def test_larc_matches_a_loop():
    draw = torch.Generator().manual_seed(0)
    start = [torch.randn(4, 3, generator=draw), torch.zeros(2, 2), torch.randn(5, generator=draw)]
    params = [nn.Parameter(p.clone()) for p in start]
    larc = LARC(params, lr=0.5, momentum=0.8, weight_decay=0.1, trust=0.01)
    expected = [p.double().clone() for p in start]
    velocity = [torch.zeros_like(p) for p in expected]
    for lr in (0.5, 0.1, 0.3):
        larc.param_groups[0]["lr"] = lr
        for i, p in enumerate(params):
            p.grad = torch.randn(p.shape, generator=draw)
            w, g = expected[i], p.grad.double()
            if w.norm() > 0:
                g = 0.01 * w.norm() / (g.norm() + 0.1 * w.norm() + 1e-8) * (g + 0.1 * w)
            velocity[i] = 0.8 * velocity[i] + g
            expected[i] = w - lr * velocity[i]
        larc.step()
    for p, e in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach().double(), e, rtol=1e-5, atol=1e-6)
        p.grad = None
    assert larc.step(lambda: 7) == 7  # what has no gradient stays
    torch.testing.assert_close(params[0].detach().double(), expected[0], rtol=1e-5, atol=1e-6)


class Unknown(nn.Module):
    """A network of somebody else's, which looks between its layers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

    def forward(self, images):
        return self.layers[0](images) + self.layers(images)


def test_functions_that_make_optimizers_are_accepted_and_others_are_refused():
    net = nn.Linear(2, 2)

    def adagrad(params, lr):
        return torch.optim.Adagrad(params, lr=lr)

    made = make_optimizer(adagrad, net, lr=0.1, momentum=0.9, weight_decay=0.0)
    assert isinstance(made, torch.optim.Adagrad)
    with pytest.raises(TypeError, match=r"^optimizer=.* must make a torch\.optim\.Optimizer\. It made dict"):
        make_optimizer(lambda groups, lr: {}, net, lr=0.1, momentum=0.9, weight_decay=0.0)


def test_adamw_does_not_decay_norms_and_torch_optimizers_are_accepted():
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    adamw = make_optimizer("adamw", net, lr=0.1, momentum=0.9, weight_decay=0.3)
    assert {(len(g["params"]), g["weight_decay"]) for g in adamw.param_groups} == {(1, 0.3), (3, 0.0)}
    rmsprop = make_optimizer(torch.optim.RMSprop, net, lr=0.1, momentum=0.7, weight_decay=0.3)
    assert rmsprop.param_groups[0]["momentum"] == 0.7
    made = make_optimizer(partial(torch.optim.Adam, betas=(0.2, 0.9)), net, lr=0.1, momentum=0.9, weight_decay=0)
    assert made.param_groups[0]["betas"] == (0.2, 0.9), "those of a function are its own"
    with pytest.raises(ValueError, match="Unknown optimizer 'sdg', did you mean 'sgd'"):
        make_optimizer("sdg", net, lr=0.1, momentum=0.9, weight_decay=0.0)


def test_positions_and_class_tokens_are_not_decayed():
    net = nn.ModuleDict({"encoder": build_backbone("vit_micro", (3, 16, 16))[0], "head": nn.Linear(96, 2)})
    names = {id(p): name for name, p in net.named_parameters()}
    for optimizer in ("adamw", partial(torch.optim.AdamW, betas=(0.9, 0.95))):
        made = make_optimizer(optimizer, net, lr=0.1, momentum=0.9, weight_decay=0.3)
        found = {names[id(p)]: group["weight_decay"] for group in made.param_groups for p in group["params"]}
        assert len(found) == len(names)
        for name, decay in found.items():
            exempt = name.endswith(("bias", "ln_1.weight", "ln_2.weight", "ln.weight", "class_token", "pos_embedding"))
            assert decay == (0.0 if exempt else 0.3), name
    assert made.defaults["betas"] == (0.9, 0.95)
    assert made.defaults["fused"]


def test_layer_decay_of_vision_transformers_and_resnets():
    vit = build_backbone("vit_micro", (3, 16, 16))[0]
    found = layer_scales(nn.Sequential(vit, nn.Linear(96, 8)), 0.5, "")
    assert {name: scale for name, scale in found.items() if "layers" not in name} == {
        **dict.fromkeys(["0.class_token", "0.conv_proj.weight", "0.conv_proj.bias", "0.encoder.pos_embedding"], 0.5**5),
        **dict.fromkeys(["0.encoder.ln.weight", "0.encoder.ln.bias", "1.weight", "1.bias"], 1.0),
    }
    for i in range(4):
        assert {scale for name, scale in found.items() if f"encoder_layer_{i}." in name} == {0.5 ** (4 - i)}
    found = layer_scales(build_backbone("resnet18", (3, 32, 32))[0], 0.5)
    first = {name.split(".")[1]: scale for name, scale in found.items()}
    assert first == {"conv1": 2**-5, "bn1": 2**-5, "layer1": 2**-4, "layer2": 2**-3, "layer3": 2**-2, "layer4": 2**-1}
    with pytest.raises(ValueError, match=r"layer_decay needs .* Got layer_decay=0\.5 and Linear"):
        layer_scales(nn.Linear(2, 2), 0.5)


def test_fine_tuning_with_layer_decay(X, y):
    encoder = quick(skssl.SimCLR, backbone="vit_micro", epochs=0).fit(X)
    tuner = skssl.FineTuner(encoder, epochs=1, batch_size=20, schedule="constant", layer_decay=0.5, random_state=0)
    net = tuner.fit(X, y).net_
    names = {id(p): name for name, p in net.module_.named_parameters()}
    found = {names[id(p)]: group["lr"] for group in net.optimizer_.param_groups for p in group["params"]}
    assert found["encoder.conv_proj.weight"] == pytest.approx(0.01 * 0.5**5)
    assert found["encoder.encoder.layers.encoder_layer_3.ln_1.weight"] == pytest.approx(0.01 * 0.5)
    assert (found["encoder.encoder.ln.weight"], found["head.weight"]) == (0.01, 0.2)
    assert tuner.history_["lr"].tolist() == pytest.approx([0.01])


@pytest.mark.parametrize("each", [False, True])
def test_gradients_are_clipped(each):
    net, like = nn.Linear(3, 2), nn.Linear(3, 2)
    draw = torch.Generator().manual_seed(0)
    for p, q in zip(net.parameters(), like.parameters(), strict=True):
        p.grad = torch.randn(p.shape, generator=draw)
        q.grad = p.grad.clone()
    clip_gradients(net, 0.7, each=each)
    for group in [[p] for p in like.parameters()] if each else [like.parameters()]:
        nn.utils.clip_grad_norm_(group, 0.7)
    for p, q in zip(net.parameters(), like.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


class SeenDecay(Callback):
    """Record the weight decay of each parameter group in every step."""

    def on_train_begin(self, net, **kwargs):
        self.seen = []

    def on_batch_end(self, net, **kwargs):
        self.seen.append(sorted({group["weight_decay"] for group in net.optimizer_.param_groups}))


def test_weight_decay_follows_a_cosine_to_its_end(X):
    decay = SeenDecay()
    settings = {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.04, "weight_decay_end": 0.4}
    quick(skssl.DINO, backbone="vit_micro", callbacks=[decay], epochs=2, **settings).fit(X)
    expected = [0.4 + (0.04 - 0.4) * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]
    assert [found for found, _ in decay.seen] == [0] * 4
    assert [found for _, found in decay.seen] == pytest.approx(expected)
