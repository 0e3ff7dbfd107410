"""Learning-rate schedules: by name, by functions of the progress, and by torch's schedulers."""

import math
import pickle
from functools import partial

import numpy as np
import pytest
import skorch
import torch
from conftest import quick
from interruptions import OFTEN, Death, DiesAt, assert_same
from skorch.callbacks import Callback
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

import skssl
from skssl.training.schedules import schedule_factor


def test_schedule_factor_of_every_schedule():
    def cosine(t):
        return (1 + math.cos(math.pi * t)) / 2

    assert schedule_factor("cosine", 2.5, epochs=10) == pytest.approx(cosine(0.25))
    assert schedule_factor("epoch_cosine", 2.9, epochs=10) == pytest.approx(cosine(0.2))
    assert schedule_factor("cosine", 1.0, epochs=12, warmup_epochs=2) == 0.5
    assert schedule_factor("cosine", 7.0, epochs=12, warmup_epochs=2) == pytest.approx(0.5)
    assert [schedule_factor("step", e, epochs=200) for e in (59, 60, 120, 160)] == pytest.approx([1, 0.2, 0.04, 0.008])
    assert [schedule_factor("polynomial", e, epochs=10) for e in (0, 5)] == pytest.approx([1, 0.5**0.9])
    assert schedule_factor("cosine", 25, epochs=10) == pytest.approx(cosine(0.9))
    assert schedule_factor("cosine", 1, epochs=1, warmup_epochs=0.05) == 1, "not the warm-up's zero"
    assert schedule_factor("cosine", 12, epochs=10, warmup_epochs=10) == 1
    table = ((90 / 200, 0.1), (130 / 200, 0.01), (190 / 200, 0.5))
    found = [schedule_factor(table, e, epochs=200) for e in (0, 89.9, 90, 129, 130, 189, 190, 199)]
    assert found == [1, 1, 0.1, 0.1, 0.01, 0.01, 0.5, 0.5]
    assert schedule_factor(table[:1], 2 + 90, epochs=202, warmup_epochs=2) == 0.1
    with pytest.raises(ValueError, match="Unknown schedule 'cosinus', did you mean 'cosine'"):
        schedule_factor("cosinus", 0, epochs=1)


def test_methods_take_steps_and_are_saved_with_them(X, tmp_path):
    for schedule, expected in [
        ((0.5, 0.75), [0.1, 0.1, 0.02, 0.004]),
        (((0.25, 0.1), (0.5, 2)), [0.1, 0.01, 0.2, 0.2]),
    ]:
        seen, fitted = rates(X, schedule=schedule, warmup_epochs=0)
        assert seen[::2, 0].tolist() == pytest.approx(expected)
        fitted.set_params(callbacks=None).save(tmp_path / "saved.safetensors")
        assert skssl.load(tmp_path / "saved.safetensors").schedule == schedule


class Rates(Callback):
    """Records the rates of the parameter groups in every step."""

    def initialize(self):
        self.seen = []
        return self

    def on_batch_begin(self, net, **kwargs):
        self.seen.append([group["lr"] for group in net.optimizer_.param_groups])


def rates(X, method=skssl.SimCLR, **params):
    watch = Rates()
    fitted = quick(method, callbacks=[watch], **{"lr": 0.1, "epochs": 4, "batch_size": 20, **params}).fit(X)
    return np.array(watch.seen), fitted


def test_function_of_the_progress_sets_the_factor_after_the_warm_up(X):
    seen, fitted = rates(X, schedule=lambda progress: 1 - progress**2, warmup_epochs=1)
    expected = [0.5, 1, 1, *(1 - (step / 6) ** 2 for step in range(1, 6))]  # of the 6 steps after the warm-up
    assert seen[:, 0] == pytest.approx(np.array([0.1 * factor for factor in expected]))
    assert fitted.history_["lr"].iloc[-1] == seen[-1, 0]
    like_cosine = rates(X, schedule=lambda progress: (1 + math.cos(math.pi * progress)) / 2)[0]
    assert (like_cosine == rates(X, schedule="cosine")[0]).all()


def by_torch(make, epochs=4, steps=2, per_batch=False):
    """Return the rates of a loop as in torch's documentation."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler, seen = make(optimizer), []
    for _ in range(epochs):
        for _ in range(steps):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if per_batch:
                scheduler.step()
        if not per_batch:
            scheduler.step()
    return seen


def linear_then_cosine(optimizer):
    first, second = LinearLR(optimizer, 0.5, total_iters=2), CosineAnnealingLR(optimizer, T_max=2, eta_min=0.01)
    return SequentialLR(optimizer, [first, second], milestones=[2])


@pytest.mark.parametrize(
    ("make", "per_batch"),
    [
        (partial(StepLR, step_size=2), False),
        (partial(CosineAnnealingLR, T_max=4, eta_min=0.02), False),
        (lambda optimizer: LambdaLR(optimizer, lambda epoch: 0.9**epoch), False),
        (linear_then_cosine, False),
        (partial(skorch.callbacks.WarmRestartLR, min_lr=0.01, max_lr=0.1), False),
        (partial(OneCycleLR, max_lr=0.3, total_steps=8, cycle_momentum=False), True),
    ],
    ids=["StepLR", "CosineAnnealingLR", "LambdaLR", "SequentialLR", "WarmRestartLR", "OneCycleLR"],
)
def test_schedulers_of_torch_give_the_rates_of_a_loop_in_torch(make, per_batch, X):
    assert rates(X, schedule=make)[0][:, 0].tolist() == by_torch(make, per_batch=per_batch)


def test_reduce_on_plateau_watches_the_loss(X):
    seen, fitted = rates(X, schedule=partial(ReduceLROnPlateau, patience=0, threshold=0.5), epochs=5)
    losses, expected, best = fitted.history_["loss"], [0.1], math.inf
    for loss in losses[:-1]:
        expected.append(expected[-1] * (1 if loss < 0.5 * best else 0.1))
        best = loss if loss < 0.5 * best else best
    assert seen[::2, 0] == pytest.approx(np.array(expected))
    assert seen[-1, 0] < 0.1


def test_each_parameter_group_has_its_own_rate_and_unscheduled_ones_are_constant(X, y):
    halved = partial(StepLR, step_size=1, gamma=0.5)
    seen, _ = rates(X, skssl.SimSiam, schedule=halved, epochs=2)
    assert seen[2:].tolist() == [[0.05, 0.1]] * 2, "the predictor's rate is constant"
    watch = Rates()
    encoder = quick(skssl.SimCLR, epochs=0).fit(X)
    settings = {"epochs": 2, "backbone_lr": 0.0, "head_lr": 0.3, "batch_size": 20, "random_state": 0}
    skssl.FineTuner(encoder, schedule=halved, callbacks=[watch], **settings).fit(X, y)
    assert sorted(watch.seen[-1]) == [0.0, 0.15]


def test_rates_after_the_planned_epochs_are_those_at_the_beginning_of_the_last_one(X):
    for make in (partial(StepLR, step_size=1), partial(OneCycleLR, max_lr=0.3, total_steps=6, cycle_momentum=False)):
        _, fitted = rates(X, schedule=make, epochs=3)
        last = fitted.net_.callbacks_[0][1].seen[-2]
        assert fitted.partial_fit(X).net_.callbacks_[0][1].seen[-2:] == [last, last]


@pytest.mark.parametrize(
    "schedule",
    [
        partial(StepLR, step_size=1),
        partial(ReduceLROnPlateau, patience=0, threshold=0.5),
        lambda progress: 1 - progress,
    ],
    ids=["StepLR", "ReduceLROnPlateau", "function"],
)
def test_resume_repeats_the_steps_of_a_scheduler(schedule, X, tmp_path):
    settings = {"epochs": 4, "schedule": schedule}
    with pytest.raises(Death):
        quick(skssl.SimCLR, **settings, checkpoint=tmp_path, checkpoint_every=OFTEN, callbacks=[DiesAt(5)]).fit(X)
    assert_same(quick(skssl.SimCLR, **settings, checkpoint=tmp_path).fit(X), quick(skssl.SimCLR, **settings).fit(X), X)


def test_pickled_estimator_continues_with_its_scheduler(X):
    settings = {"epochs": 3, "schedule": partial(StepLR, step_size=1)}
    parts = quick(skssl.SimCLR, **settings)
    for _ in range(3):
        parts = pickle.loads(pickle.dumps(parts.partial_fit(X)))
    assert_same(parts, quick(skssl.SimCLR, **settings).fit(X), X)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (lambda progress: "slow", r"a function of the progress .* Got <function .*>, which returns 'slow'"),
        (lambda optimizer: StepLR(optimizer), "which raises for the progress 0.0: .* missing 1 required positional"),
        (lambda optimizer: optimizer.param_groups, r"returns \[{'params'"),
        (
            partial(StepLR, stepsize=3),
            r"schedule=functools\.partial\(<class .*StepLR'>, stepsize=3\) makes no scheduler",
        ),
        (partial(OneCycleLR, max_lr=1.0, total_steps=9), "makes no scheduler: optimizer must support momentum"),
        (lambda progress: 0.2 - progress, r"finite factors of at least 0\. Got -0\.3"),
        ((0.5, 1.5), r"pairs of ascending fractions and factors\. Got \(0\.5, 1\.5\)"),
        (((0.5, 0.1), (0.2, 0.1)), "pairs of ascending fractions and factors"),
        (((0.5, 0.1), 0.8), "pairs of ascending fractions and factors"),
        (((0.5, -0.1),), "pairs of ascending fractions and factors"),
        ("cosinus", "Unknown schedule 'cosinus', did you mean 'cosine'"),
    ],
)
def test_invalid_schedules_are_refused(schedule, message, X):
    with pytest.raises((TypeError, ValueError), match=message):
        quick(skssl.SimCLR, schedule=schedule, epochs=2, batch_size=40, warmup_epochs=0).fit(X)


def test_warm_up_before_a_scheduler_is_refused(X):
    with pytest.raises(ValueError, match="warmup_epochs=2 has no effect on one of torch's schedulers"):
        quick(skssl.SimCLR, schedule=partial(StepLR, step_size=2), warmup_epochs=2).fit(X)
    assert skssl.SimCLR(schedule=partial(StepLR, step_size=2)).setting("warmup_epochs") == 0


def test_lr_scheduler_of_skorch_is_refused_with_the_schedule_to_pass(X):
    callback = skorch.callbacks.LRScheduler("StepLR", step_size=30)
    with pytest.raises(ValueError, match=r"Pass schedule=functools\.partial\(StepLR, step_size=30\) instead"):
        quick(skssl.SimCLR, callbacks=[callback]).fit(X)
