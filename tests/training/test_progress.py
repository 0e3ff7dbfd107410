"""The progress bar: one for all epochs of a run."""

import re

import numpy as np
import pytest
import torch
from conftest import quick
from skorch.callbacks import Callback

import skssl
from skssl.training import progress


@pytest.fixture
def bars(monkeypatch):
    """All bars, in order."""
    bars, make = [], progress.tqdm
    monkeypatch.setattr(progress, "tqdm", lambda **how: bars.append(make(**how)) or bars[-1])
    return bars


def test_one_bar_counts_all_epochs(X, bars, capsys):
    quick(skssl.SimCLR, epochs=3, verbose=1).fit(X)
    (bar,) = bars
    assert (bar.n, bar.total, bar.initial, bar.smoothing) == (3 * 32, 3 * 32, 0, 0)
    assert bar.disable, "closed"
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "Epoch 1/3:   0%" in shown
    assert re.search(r"Epoch 3/3: 100%.*96.0/96.0 \[.*<00:00, .* images/s, loss=\d", shown)


def test_bar_resumes_and_partial_fit_shows_its_epoch(X, bars, tmp_path):
    class Stop(Callback):
        def on_batch_end(self, net, **kwargs):
            if len(net.history) == 2:
                raise RuntimeError("stopped")

    params = {"epochs": 3, "checkpoint_every": 1, "checkpoint": tmp_path}
    with pytest.raises(RuntimeError, match="stopped"):
        quick(skssl.SimCLR, **params, verbose=1, callbacks=[Stop()]).fit(X)
    assert bars[0].disable, "closed by the error"
    quick(skssl.SimCLR, **params, verbose=1).fit(X)
    assert (bars[1].initial, bars[1].n, bars[1].total) == (32, 96, 96)
    estimator = quick(skssl.SimCLR, epochs=2, verbose=1)
    for epoch in range(1, 4):
        estimator.partial_fit(X)
        assert (bars[-1].initial, bars[-1].n, bars[-1].total) == (32 * epoch - 32, 32 * epoch, 32 * epoch)
    assert [bar.desc for bar in bars[2:]] == ["Epoch 1/2: ", "Epoch 2/2: ", "Epoch 3/3: "]


def test_silent_without_verbose(X, y, bars, capsys):
    encoder = quick(skssl.SimCLR, epochs=2).fit(X)
    skssl.FineTuner(encoder, epochs=1, batch_size=16).fit(X, y)
    assert not bars
    assert capsys.readouterr() == ("", "")
    shown = quick(skssl.SimCLR, epochs=2, verbose=1).fit(X)
    np.testing.assert_array_equal(shown.transform(X), encoder.transform(X))


def test_loss_shown_is_a_mean_although_the_sum_grows_in_place(bars, monkeypatch):
    clock = iter(range(1, 100))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    bar, total, shown = progress.Progress(1, 1, 5, 8), torch.zeros(()), []
    for step, _ in enumerate(bar(range(5), "Epoch 1/1"), start=1):
        total += 2.0
        bar.show(total, step)
        shown.append(bars[0].postfix)
    assert shown == [None, "loss=2", "loss=2", "loss=2", "loss=2"]
