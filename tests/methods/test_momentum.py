"""The momentum copies of all methods that have one."""

import math

import pytest
import torch
from conftest import QUICK, quick
from helpers import Look

import skssl
import skssl.datasets
from skssl.methods.momentum import MomentumMethod


def both(net):
    """Return the parameters of the trained modules and of their momentum copy."""
    fast = [p.detach().clone() for part in net.method.parts(net) for p in part.parameters()]
    return fast, [p.clone() for p in net.target.parameters()]


@pytest.mark.filterwarnings("ignore::skssl.CollapseWarning")  # the momentum is too low and the rate too high for some
@pytest.mark.parametrize("schedule", ["cosine", "constant", "linear"])
@pytest.mark.parametrize("method", [method for method in QUICK if issubclass(method, MomentumMethod)])
def test_momentum_copy_equals_a_literal_moving_average(method, schedule, X):
    look = Look(both)
    quick(method, epochs=3, ema_momentum=0.7, ema_schedule=schedule, lr=0.1, warmup_epochs=0, callbacks=[look]).fit(X)
    (fast, copy), *steps = look.seen
    assert all(map(torch.equal, fast, copy)), "the copy starts with the trained network's weights"
    assert len(steps) == 6
    for k, (online, slow) in enumerate(steps, start=1):
        m = {"cosine": 1 - 0.3 * (1 + math.cos(math.pi * k / 6)) / 2, "linear": 0.7 + 0.05 * k}.get(schedule, 0.7)
        assert not all(map(torch.equal, fast, online)), "the copy is updated after the optimiser's step"
        copy = [m * old + (1 - m) * new for old, new in zip(copy, online, strict=True)]
        torch.testing.assert_close(slow, copy)
        fast = online


def test_momentum_copy_has_separate_batchnorm_statistics(X):
    look = Look(lambda net: all(module.training for module in net.target.modules()))
    estimator = quick(skssl.BYOL, epochs=2, ema_momentum=1.0, callbacks=[look])
    estimator.partial_fit(X).transform(X)
    net = estimator.partial_fit(X).net_.module_
    assert look.seen == [True] * 5
    slow, fast = net.target[0].features[1], net.encoder.features[1]
    assert slow.num_batches_tracked == 2 * 4, "two views in each of four steps"
    assert slow.running_mean.abs().sum() > 0
    assert not torch.allclose(slow.running_mean, fast.running_mean)


def test_momentum_copy_is_updated_after_the_last_planned_epoch(X):
    estimator = quick(skssl.BYOL).fit(X)
    before = [p.clone() for p in estimator.net_.module_.target.parameters()]
    estimator.partial_fit(X)
    assert any(not torch.equal(a, b) for a, b in zip(before, estimator.net_.module_.target.parameters(), strict=True))
