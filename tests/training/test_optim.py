"""Optimisers."""

import functools

import pytest
import torch
from torch import nn

from skssl.training.optim import LARC, LARS, make_optimizer


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
    made = make_optimizer(
        functools.partial(torch.optim.Adam, betas=(0.2, 0.9)), net, lr=0.1, momentum=0.9, weight_decay=0
    )
    assert made.param_groups[0]["betas"] == (0.2, 0.9), "those of a function are its own"
    with pytest.raises(ValueError, match="Unknown optimizer 'sdg', did you mean 'sgd'"):
        make_optimizer("sdg", net, lr=0.1, momentum=0.9, weight_decay=0.0)
