"""Seeds in several threads: the same numbers, and the program's own generators as they were."""

import multiprocessing
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import quick
from torch import nn

import skssl
from skssl.training import seeding
from skssl.training.seeding import seeded


def test_a_thread_draws_only_after_the_other_has_restored_the_generator():
    before = torch.get_rng_state()
    first_seeded, go_on = threading.Event(), threading.Event()
    found = {}

    def first():
        with seeded(1):
            first_seeded.set()
            go_on.wait(0.2)  # the second thread is waiting by then, or would have drawn
            found["first"] = torch.rand(2)

    def second():
        first_seeded.wait()
        with seeded(2):
            found["second"] = torch.rand(2)
            go_on.set()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(first), pool.submit(second)]:
            done.result()
    for name, seed in (("first", 1), ("second", 2)):
        assert torch.equal(found[name], torch.rand(2, generator=torch.Generator().manual_seed(seed)))
    assert torch.equal(torch.get_rng_state(), before)


def test_one_thread_may_seed_within_itself():
    with seeded(1):
        torch.rand(1)
        with seeded(2):
            torch.rand(5)
        inner = torch.rand(1)
    draws = torch.Generator().manual_seed(1)
    torch.rand(1, generator=draws)
    assert torch.equal(inner, torch.rand(1, generator=draws))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_does_not_wait_for_a_thread_that_it_lacks():
    held, done = threading.Event(), threading.Event()

    def hold():
        with seeded(0):
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        child = multiprocessing.get_context("fork").Process(target=_seed)
        child.start()
        child.join(10)
        assert child.exitcode == 0
    finally:
        done.set()
        holder.join()
        if child.is_alive():
            child.kill()


def _seed():
    with seeding.seeded(1):
        pass


def with_dropout():
    """A network that draws from the global generator."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_fits_in_threads_are_reproducible_and_leave_the_generator_alone(X, y):
    def fit(seed):
        return quick(skssl.SimCLR, backbone=with_dropout, random_state=seed).fit(X).transform(X)

    expected = [fit(seed) for seed in range(2)]
    before = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(fit, [0, 1] * 3))
    assert torch.equal(torch.get_rng_state(), before)
    for i, features in enumerate(found):
        assert (features == expected[i % 2]).all()
