"""What the tests of interrupted trainings share: ways to end a training, and the comparison of two."""

import os
import random
import signal
import time
import warnings

import joblib
import numpy as np
import torch
from skorch.callbacks import Callback

import skssl
from skssl.training.checkpoints import STATE

OFTEN = "1 us"  # after every step


class Death(Exception):
    """Ends a training in these tests."""


class DiesAt(Callback):
    """Raises an error at the beginning of a step of the run."""

    def __init__(self, step, error=Death):
        self.step, self.error = step, error

    def initialize(self):
        self.seen = 0
        return self

    def on_batch_begin(self, net, **kwargs):
        self.seen += 1
        if self.seen > self.step:
            raise self.error


def assert_same(first, second, X):
    """Check that two trainings have the same parameters, buffers, history and features."""
    state, other = (of.net_.module_.state_dict() for of in (first, second))
    assert state.keys() == other.keys()
    different = [name for name in state if not torch.equal(state[name], other[name])]
    assert not different
    ours, theirs = (of.history_.drop(columns="images_per_second") for of in (first, second))
    assert ours.equals(theirs), (ours, theirs)
    if hasattr(first, "transform"):
        assert np.array_equal(first.transform(X), second.transform(X))


def in_a_process(make, folder, X, y, place):
    """Train, with a checkpoint if there is a folder, and dump the estimator."""
    warnings.simplefilter("ignore", skssl.CollapseWarning)
    estimator = make(checkpoint=folder, checkpoint_every=OFTEN) if folder else make()
    joblib.dump(estimator.fit(X, y), f"{place}.part")
    os.replace(f"{place}.part", place)


def killed_and_restarted(processes, make, X, y, folder, times, seed):
    """Kill a training at random moments, then let it finish; return the number of kills and the estimator.

    Every second kill waits for a step of the run, so that the number of steps between kills does not depend on the
    speed of the machine. The kills between them come while a run starts or restores its state.
    """
    draw, place, state = random.Random(seed), folder / "estimator.joblib", folder / "state" / STATE
    kills = 0
    while not place.exists():
        process = processes.Process(target=in_a_process, args=(make, folder / "state", X, y, place))
        before = inode(state)
        process.start()
        if kills < times:
            while kills % 2 == 0 and inode(state) == before and process.is_alive():
                time.sleep(0.001)
            process.join(draw.uniform(0, 0.05 if kills % 2 == 0 else 0.2))
            process.kill()
            kills += process.exitcode is None
        process.join(600)  # on a crowded machine a step takes seconds
        assert process.exitcode in (0, -signal.SIGKILL)
    assert [file.name for file in (folder / "state").iterdir() if file.name.startswith(".")] == []
    return kills, joblib.load(place)


def inode(file):
    """Return a number that changes when a file is replaced; None if there is no file."""
    return file.stat().st_ino if file.exists() else None


# SKSSL_KILLS tests all methods and sets the number of kills of each. By default three methods are killed a few times.
KILLS = int(os.environ.get("SKSSL_KILLS", "0"))
KILLED_EPOCHS = max(6, 2 * KILLS)  # of five steps; more than the kills leave time for
