"""Adversarial training in one backward pass, against a literal loop with two optimisers."""

import copy
import functools

import numpy as np
import pytest
import torch
from skorch.callbacks import GradientNormClipping
from torch import nn
from torch._dynamo.utils import counters

import skssl
from skssl.images import as_images
from skssl.nn.accumulation import encode_in_parts
from skssl.nn.adversarial import frozen_forward
from skssl.training.objective import Batch

F = nn.functional
SMALL = {"backbone": "convnet", "batch_size": 16, "precision": "float32", "random_state": 0}


class Gan(skssl.SimCLR):
    """Generate a thumbnail of an image from its features, against a discriminator."""

    n_views = 1

    @property
    def lr_factors(self):
        return {"discriminator": 0.1}

    def build(self, net, dim, n_samples):
        net.generator = nn.Linear(dim, 12)
        net.discriminator = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.LeakyReLU(0.2), nn.Linear(8, 1))

    def losses(self, net, batch):
        real = thumbnail(batch.views[0])
        made = net.generator(net.encoder(batch.views[0]))
        fooled = F.softplus(-frozen_forward(net.discriminator, made)).mean()
        scores = net.discriminator(torch.cat([real, made.detach()])).chunk(2)
        told = F.softplus(-scores[0]).mean() + F.softplus(scores[1]).mean()
        return {"distance": (made - real).square().mean(), "fooled": fooled, "told": told}


def thumbnail(view):
    return F.adaptive_avg_pool2d(view, 2).flatten(1)


def rows(n, seed):
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("schedule", ["constant", ((0.4, 0.5),)])
@pytest.mark.parametrize(
    ("optimizer", "kind", "options"),
    [
        ("adamw", torch.optim.AdamW, {"betas": (0.5, 0.999)}),
        (torch.optim.Adam, torch.optim.Adam, {"betas": (0.5, 0.999)}),
        ("sgd", torch.optim.SGD, {"momentum": 0.5}),
    ],
)
def test_one_backward_pass_is_the_simultaneous_step_of_two_optimizers(optimizer, kind, options, schedule, X):
    rates = {"lr": 0.02, "schedule": schedule, "epochs": 3}
    method = Gan(**SMALL, **rates, optimizer=optimizer, momentum=0.5, weight_decay=0.0)
    trainer = method._make_trainer(as_images(X))
    net = trainer.module_.double().train()
    trainer.initialize_optimizer()
    other = copy.deepcopy(net)
    makers = nn.ModuleList([other.encoder, other.generator])
    players = [kind(part.parameters(), lr=0.0, weight_decay=0.0, **options) for part in (makers, other.discriminator)]
    for step in range(3):
        view = rows(12, step)
        trainer.set_learning_rate(step, 0, 1)
        trainer.train_step(Batch(torch.zeros(12, 3, 16, 16), [view], torch.arange(12)))

        made = other.generator(other.encoder(view))
        critic = copy.deepcopy(other.discriminator)  # the one before this step
        generated = (made - thumbnail(view)).square().mean() + F.softplus(-critic(made)).mean()
        scores = other.discriminator(torch.cat([thumbnail(view), made.detach()]))
        told = F.softplus(-scores[:12]).mean() + F.softplus(scores[12:]).mean()
        for player, loss, factor in zip(players, (generated, told), (1.0, 0.1), strict=True):
            player.param_groups[0]["lr"] = 0.02 * factor * (0.5 if schedule != "constant" and step > 1 else 1)
            player.zero_grad()
            loss.backward()
            player.step()
    for (name, found), expected in zip(net.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_frozen_forward_gives_a_gradient_to_its_inputs_only(dropout):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(dropout), nn.Tanh()).double()
    first, second = (rows(5, 0).requires_grad_() for _ in range(2))
    before = copy.deepcopy(module.state_dict())
    torch.manual_seed(1)
    found = frozen_forward(module, first)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    torch.manual_seed(1)
    expected = module(second)
    assert torch.equal(found, expected)
    found.square().sum().backward()
    assert all(parameter.grad is None for parameter in module.parameters())
    expected.square().sum().backward()
    assert torch.equal(first.grad, second.grad)


def test_frozen_forward_of_an_encoder_that_runs_in_parts():
    layers = [nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 14**2, 5)]
    encoder = nn.Sequential(*layers).double()
    whole, parts = (rows(8, 0).requires_grad_() for _ in range(2))
    before = copy.deepcopy(encoder.state_dict())
    with encode_in_parts([encoder.eval()], 4):
        found = frozen_forward(encoder, parts)
    found.square().sum().backward()
    assert all(parameter.grad is None for parameter in encoder.parameters())
    encoder(whole).square().sum().backward()
    torch.testing.assert_close(parts.grad, whole.grad, rtol=1e-12, atol=1e-12)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_clipping_bounds_the_gradient_of_all_players_together(X):
    norms = []

    class Watched(Gan):
        def after_step(self, net, step, progress):
            norms.append(torch.stack([p.grad.norm() for p in net.parameters() if p.grad is not None]).norm().item())

    Watched(**SMALL, epochs=1, callbacks=[GradientNormClipping(0.01)]).fit(X)
    assert len(norms) == 2
    assert norms == pytest.approx([0.01, 0.01], rel=1e-3)


def test_adversarial_losses_are_one_compiled_graph(X, monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    counters.clear()
    compiled, plain = (Gan(**SMALL, epochs=2, compile=on).fit(X) for on in (True, False))
    assert compiled.net_.compiled
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    np.testing.assert_allclose(compiled.transform(X), plain.transform(X), rtol=1e-4, atol=1e-5)
