"""skorch's callbacks work as in any skorch net, or are refused with what to use instead."""

import itertools
import json

import numpy as np
import pytest
import torch
from conftest import quick
from skorch import callbacks as skorch_callbacks
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    EpochTimer,
    Freezer,
    GradientNormClipping,
    Initializer,
    InputShapeSetter,
    LoadInitState,
    ParamMapper,
    PassthroughScoring,
    PrintLog,
    ProgressBar,
    TrainEndCheckpoint,
    Unfreezer,
)

import skssl
from skssl.callbacks import KNNMonitor

FIRST = "encoder.features.0.weight"


def fit(X, *callbacks, **params):
    return quick(skssl.SimCLR, **{"epochs": 3, "batch_size": 10, "callbacks": list(callbacks), **params}).fit(X)


def last_loss(net, X, y=None):
    return net.history[-1, "loss"]


def test_history_of_the_net_has_the_names_of_skorch(X):
    fitted = fit(X, lr=1.0)
    history = fitted.net_.history
    losses = fitted.history_["loss"].tolist()
    assert history[:, "train_loss"] == losses
    best = [loss == min(losses[: i + 1]) for i, loss in enumerate(losses)]
    assert history[:, "train_loss_best"] == history[:, "loss_best"] == best
    assert True in best
    assert False in best
    assert not {"train_loss", "train_loss_best", "loss_best", "batches"} & set(fitted.history_)
    assert [len(row["batches"]) for row in history] == [1, 1, 1], "only the last batch of an epoch is kept"


def test_batches_have_the_names_of_skorch_within_an_epoch(X):
    seen = []

    class Reads(Callback):
        def on_epoch_end(self, net, dataset_train, **kwargs):
            seen.append((net.history[-1, "batches", :, ("train_loss", "train_batch_size")], len(dataset_train)))

        def on_batch_end(self, net, batch, **kwargs):
            images, labels = batch
            assert images is batch.images
            assert labels is None

    fitted = fit(X, Reads())
    rows, n = seen[-1]
    assert n == 40
    assert [size for _, size in rows] == [10] * 4
    assert np.mean([loss for loss, _ in rows]) == pytest.approx(fitted.history_["loss"].iloc[-1], rel=1e-6)


def test_scoring_callbacks_record_scores_of_the_training(X, y):
    class Mean(EpochScoring):
        """Reads the losses of the batches, as skorch's documentation shows."""

    def mean(net, X=None, y=None):
        return np.mean(net.history[-1, "batches", :, "train_loss"])

    scores = [
        EpochScoring(last_loss, on_train=True, name="last"),
        EpochScoring(last_loss, on_train=True, name="uncached", use_caching=False),
        Mean(mean, on_train=True, name="mean"),
        BatchScoring(lambda net, X, y=None: float(len(X)), on_train=True, name="size", lower_is_better=False),
        PassthroughScoring("train_loss", on_train=True),
    ]
    history = fit(X, *scores).history_
    for name in ("last", "uncached"):
        assert history[name].tolist() == history["loss"].tolist()
    assert history["mean"].to_numpy() == pytest.approx(history["loss"].to_numpy(), rel=1e-6)
    assert history["size"].tolist() == [10] * 3
    assert history["last_best"].tolist() == fit(X).net_.history[:, "loss_best"]
    seen = []
    classes = EpochScoring(lambda net, X, y: seen.append(y) or 0.0, on_train=True, name="classes")
    quick(skssl.SupCon, epochs=1, callbacks=[classes]).fit(X, y)
    assert len(seen[0]) == 32
    assert set(seen[0].tolist()) <= set(range(len(set(y)))), "the classes of the batches, as numbers"


@pytest.mark.parametrize("monitor", ["train_loss_best", "loss_best"])
def test_checkpoint_saves_and_loads_the_best_epoch(monitor, X, tmp_path):
    best = Checkpoint(monitor=monitor, dirname=tmp_path, load_best=True, f_pickle="net.pkl")
    fitted = fit(X, best, lr=1.0)
    losses = fit(X, lr=1.0).history_["loss"]
    assert losses.idxmin() < len(losses) - 1
    assert fitted.history_["loss"].tolist() == losses[: losses.idxmin() + 1].tolist(), "the best epoch is the last one"
    assert len(json.loads((tmp_path / "history.json").read_text())) == losses.idxmin() + 1
    saved = torch.load(tmp_path / "params.pt")
    assert all(torch.equal(value, saved[name]) for name, value in fitted.net_.module_.state_dict().items())
    assert {file.name for file in tmp_path.iterdir()} == {
        *("params.pt", "optimizer.pt", "criterion.pt", "history.json", "net.pkl")
    }


def test_train_end_checkpoint_saves_what_load_init_state_continues_from(X, tmp_path):
    end = TrainEndCheckpoint(dirname=tmp_path)
    first = fit(X, end)
    saved = torch.load(tmp_path / "train_end_params.pt")
    assert all(torch.equal(value, saved[name]) for name, value in first.net_.module_.state_dict().items())
    with pytest.raises(ValueError, match="LoadInitState and 'checkpoint' both restore a training"):
        fit(X, end, LoadInitState(end), checkpoint=tmp_path / "state")
    second = fit(X, end, LoadInitState(end))
    assert second.history_["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert second.history_["loss"][:3].tolist() == first.history_["loss"].tolist()


@pytest.mark.parametrize("monitor", ["loss", "train_loss"])
def test_early_stopping_stops_and_restores_the_best_weights(monitor, X):
    stopping = EarlyStopping(monitor, patience=2, load_best=True, sink=lambda text: None)
    fitted = fit(X, stopping, lr=1.0, epochs=12)
    losses = fitted.history_["loss"]
    assert len(losses) < 12
    assert losses.idxmin() == len(losses) - 3
    parts = quick(skssl.SimCLR, epochs=12, batch_size=10, lr=1.0)
    for _ in range(len(losses) - 2):
        parts.partial_fit(X)
    assert np.array_equal(fitted.transform(X), parts.transform(X)), "the weights are those of the best epoch"


def test_early_stopping_on_the_column_of_another_callback(X, y):
    knn = KNNMonitor(X, y, n_neighbors=3)
    stopping = EarlyStopping("knn", lower_is_better=False, patience=1, threshold=10.0, sink=lambda text: None)
    assert len(fit(X, knn, stopping, epochs=5).history_) == 2


@pytest.mark.parametrize("at", ["on_batch_end", "on_epoch_end", "on_batch_begin"])
def test_callback_of_a_user_ends_fit_by_keyboard_interrupt(at, X):
    ended = []

    class Stops(Callback):
        def on_train_end(self, net, **kwargs):
            ended.append(net)

    def stop(self, net, **kwargs):
        if len(net.history) == 2:
            raise KeyboardInterrupt

    setattr(Stops, at, stop)
    fitted = fit(X, Stops())
    assert ended == [fitted.net_]
    assert len(fitted.history_) == (2 if at == "on_epoch_end" else 1)
    assert fitted.transform(X).shape == (40, 128)


def test_print_log_and_progress_bar_show_the_losses(X):
    rows = []
    fitted = fit(X, PrintLog(sink=rows.append, keys_ignored="train_loss"), bar := ProgressBar(), EpochTimer())
    assert rows[0].split() == ["epoch", *sorted(set(fitted.history_) - {"epoch", "dur"}), "dur"]
    assert len(rows) == 2 + 3
    assert bar.pbar_.n == 4
    assert bar.pbar_.postfix.startswith("train_loss=")
    assert float(bar.pbar_.postfix.partition("=")[2]) > 0
    assert (fitted.history_["dur"] > 0).all()


def test_gradients_are_clipped_before_the_step(X):
    """With SGD without momentum and decay, a step moves the weights by the rate times the clipped norm."""
    settings = {"momentum": 0.0, "weight_decay": 0.0, "schedule": "constant", "warmup_epochs": 0, "lr": 1.0}
    weights = []

    class Weights(Callback):
        def on_batch_begin(self, net, **kwargs):
            weights.append(torch.cat([p.detach().flatten().double() for p in net.module_.parameters()]))

    fit(X, GradientNormClipping(0.01), Weights(), **settings)
    moved = [(after - before).norm().item() for before, after in itertools.pairwise(weights)]
    assert moved == pytest.approx([0.01] * len(moved), rel=1e-3)


def test_parameters_are_frozen_mapped_and_initialised(X):
    weights = []

    class Weights(Callback):
        def on_epoch_begin(self, net, **kwargs):
            weights.append(net.module_.get_parameter(FIRST).detach().clone())

    fit(X, Freezer(FIRST, at=2), Unfreezer(FIRST, at=4), Weights(), epochs=5)
    same = [torch.equal(before, after) for before, after in itertools.pairwise(weights)]
    assert same == [False, True, True, False]
    small = fit(X, Initializer(FIRST, fn=lambda p: torch.nn.init.constant_(p[:4], 0.25)), Freezer(FIRST))
    assert (small.encoder_.features[0].weight[:4] == 0.25).all()
    halved = fit(X, ParamMapper(FIRST, fn=lambda p: p.data.mul_(0.5), at=3), lr=1e-9, weight_decay=0.0)
    whole = fit(X, lr=1e-9, weight_decay=0.0)
    torch.testing.assert_close(halved.encoder_.features[0].weight * 2, whole.encoder_.features[0].weight)


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (EarlyStopping(), "EarlyStopping monitors 'valid_loss', but .* no validation data. Pass monitor='train_loss'"),
        (Checkpoint(), "Checkpoint monitors 'valid_loss_best', but .* Pass monitor='train_loss_best'"),
        (EpochScoring(last_loss), "EpochScoring scores validation data, but there is none. Pass on_train=True"),
        (PassthroughScoring("valid_loss"), "PassthroughScoring scores validation data"),
        (EpochScoring("accuracy", on_train=True), "scoring='accuracy' needs predictions, .* Pass a function of"),
        (EpochScoring(None, on_train=True), "scoring=None needs predictions"),
        (InputShapeSetter(), "InputShapeSetter is not needed: the network is built for the shape"),
        (skorch_callbacks.WandbLogger(None), "WandbLogger saves the model .* Pass save_model=False"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_callbacks_without_effect_are_refused_with_what_to_pass(callback, message, X):
    with pytest.raises(ValueError, match=message):
        fit(X, callback)
