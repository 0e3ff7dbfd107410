"""A training that is interrupted and resumed ends bit for bit like one that is not interrupted."""

import os
import resource
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import fuzz
import hypothesis
import joblib
import numpy as np
import pytest
import torch
from conftest import QUICK, quick
from interruptions import KILLED_EPOCHS, KILLS, OFTEN, Death, DiesAt, assert_same, killed_and_restarted
from sklearn.base import clone
from skorch.callbacks import Callback, EarlyStopping, EpochScoring, Freezer, PassthroughScoring, Unfreezer
from skorch.callbacks import Checkpoint as SkorchCheckpoint
from strategies import TARGETS
from torch import nn

import skssl
from skssl import FineTuner, Rotation
from skssl.callbacks import GradientSNR, KNNMonitor, LinearMonitor
from skssl.images import as_images
from skssl.storage.files import read, write
from skssl.training.checkpoints import STATE
from skssl.training.digests import digest_older
from skssl.training.resume import ResumeState


def dropping():
    """Return a network that draws random numbers."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.5))


@pytest.mark.parametrize("step", [2, 3])  # with two steps an epoch: between epochs, and within the second one
def test_resume_is_bit_exact(method, step, X, y, tmp_path):
    estimator = quick(method, epochs=2, checkpoint=tmp_path, checkpoint_every=OFTEN)
    with pytest.raises(Death):
        estimator.set_params(callbacks=[DiesAt(step)]).fit(X, y)
    resumed = quick(method, epochs=2, checkpoint=tmp_path).fit(X, y)
    assert_same(resumed, quick(method, epochs=2).fit(X, y), X)


@pytest.mark.parametrize(
    "params",
    [
        {"optimizer": "adamw", "lr": 1e-3},
        {"optimizer": "lars", "lr": 1.0},
        {"optimizer": torch.optim.RMSprop, "lr": 1e-3},
        {"precision": "bfloat16", "momentum": 0.0},
        {"aux": ["jigsaw", Rotation(label_noise=0.3)], "schedule": "epoch_cosine"},
        {"backbone": dropping, "schedule": "constant"},
    ],
    ids=lambda params: ", ".join(getattr(value, "__name__", str(value)) for value in params.values()),
)
def test_resume_is_bit_exact_with_any_parameters(params, X, tmp_path):
    with pytest.raises(Death):
        quick(skssl.SimCLR, epochs=3, checkpoint=tmp_path, checkpoint_every=OFTEN, **params).set_params(
            callbacks=[DiesAt(3)]
        ).fit(X)
    resumed = quick(skssl.SimCLR, epochs=3, checkpoint=tmp_path, **params).fit(X)
    assert_same(resumed, quick(skssl.SimCLR, epochs=3, **params).fit(X), X)


@pytest.mark.parametrize(
    ("method", "step", "params"),
    [
        (skssl.SwAV, 1, {"queue_length": 16}),  # the queue is full within the first epoch, and used from the second on
        (skssl.SwAV, 1, {"freeze_prototypes": 1, "queue_length": 0}),
        (skssl.DINO, 1, {"freeze_last_layer": 1}),
        (skssl.DirectPred, 1, {"freq": 2}),
        (skssl.ContextEncoder, 1, {"hidden_dim": 8, "adversarial_weight": 0.1}),
        (skssl.SpotArtifacts, 1, {"pretrain_epochs": 1}),
        (skssl.SpotArtifacts, 5, {"pretrain_epochs": 1}),
    ],
)
def test_resume_within_an_epoch_restores_its_phase(method, step, params, X, tmp_path):
    settings = {"epochs": 2, "batch_size": 10, "warmup_epochs": 0, **params}
    with pytest.raises(Death):
        quick(method, **settings, checkpoint=tmp_path, checkpoint_every=OFTEN, callbacks=[DiesAt(step + 1)]).fit(X)
    resumed = quick(method, **settings, checkpoint=tmp_path).fit(X)
    assert_same(resumed, quick(method, **settings).fit(X), X)


@pytest.mark.parametrize("step", [0, 13, 14])  # of the second epoch, with running averages of the first one
def test_states_of_callbacks_are_restored(step, X, y, tmp_path):
    def watched(*more):
        watching = [GradientSNR(), KNNMonitor(X, y, n_neighbors=3), LinearMonitor(y, lr=0.1), *more]
        return quick(skssl.SimSiam, epochs=2, batch_size=2, callbacks=watching, checkpoint=tmp_path / str(len(more)))

    with pytest.raises(Death):
        watched(DiesAt(20 + step)).set_params(checkpoint_every=OFTEN).fit(X)
    os.rename(tmp_path / "1", tmp_path / "0")
    resumed = watched().fit(X)
    plain = watched().set_params(checkpoint=None).fit(X)
    assert_same(resumed, plain, X)
    assert resumed.history_["gradient_snr"].notna().all()


def stopping(*more):
    """Return callbacks that stop a training early, after others."""
    return [*more, EarlyStopping("train_loss", sink=lambda text: None, **EARLY_STOPPING)]


EARLY_STOPPING = {"patience": 3, "threshold": 0.01, "load_best": True}
EARLY = {"epochs": 12, "batch_size": 10, "lr": 2.0, "precision": "float32"}  # the best epoch is the seventh of ten


def test_training_that_stopped_early_is_not_trained_again(X, tmp_path, capsys):
    plain = quick(skssl.SimCLR, **EARLY, callbacks=stopping()).fit(X)
    assert len(plain.history_) == 10
    first = quick(skssl.SimCLR, **EARLY, callbacks=stopping(), checkpoint=tmp_path).fit(X)
    assert_same(first, plain, X)
    capsys.readouterr()
    for callbacks in (stopping(DiesAt(0)), None):
        again = quick(skssl.SimCLR, **EARLY, callbacks=callbacks, checkpoint=tmp_path).fit(X)
        assert_same(again, plain, X)
        assert f"the training in '{tmp_path}' ended after {len(plain.history_)} epoch(s).\n" in capsys.readouterr().err


def test_training_that_a_callback_stopped_within_an_epoch_is_not_trained_again(X, tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    first = quick(skssl.SimCLR, epochs=3, checkpoint=tmp_path, callbacks=[At(3, interrupt)]).fit(X)
    assert len(first.history_) == 1
    assert_same(quick(skssl.SimCLR, epochs=3, checkpoint=tmp_path).fit(X), first, X)


@pytest.mark.parametrize("step", [16, 28, 30, 36])
def test_early_stopping_resumes_with_its_patience_and_best_weights(step, X, tmp_path):
    """Before, within and after the best epoch; an epoch has four steps."""
    plain = quick(skssl.SimCLR, **EARLY, callbacks=stopping()).fit(X)
    assert len(plain.history_) == 10
    often = {"checkpoint": tmp_path, "checkpoint_every": OFTEN}
    with pytest.raises(Death):
        quick(skssl.SimCLR, **EARLY, **often, callbacks=stopping(DiesAt(step))).fit(X)
    assert_same(quick(skssl.SimCLR, **EARLY, checkpoint=tmp_path, callbacks=stopping()).fit(X), plain, X)


@pytest.mark.parametrize("step", [5, 6])
def test_scores_and_frozen_layers_resume(step, X, tmp_path):
    def callbacks():
        return [
            PassthroughScoring("train_loss", on_train=True),
            EpochScoring(lambda net, X, y: net.history[-1, "loss"], on_train=True, name="score"),
            Freezer("encoder.features.0.*", at=2),
            Unfreezer("encoder.features.0.*", at=4),
        ]

    settings = {"epochs": 5, "lr": 1.0}  # with two steps an epoch
    often = {"checkpoint": tmp_path, "checkpoint_every": OFTEN}
    with pytest.raises(Death):
        quick(skssl.SimCLR, **settings, **often, callbacks=[*callbacks(), DiesAt(step)]).fit(X)
    resumed = quick(skssl.SimCLR, **settings, checkpoint=tmp_path, callbacks=callbacks()).fit(X)
    plain = quick(skssl.SimCLR, **settings, callbacks=callbacks()).fit(X)
    assert_same(resumed, plain, X)
    assert resumed.net_.history[:, "train_loss_best"] == plain.net_.history[:, "train_loss_best"]


def test_weights_that_callbacks_load_at_the_end_are_saved(X, tmp_path):
    def fit(callbacks, **params):
        return quick(skssl.SimCLR, epochs=3, batch_size=10, lr=1.0, callbacks=callbacks, **params).fit(X)

    best = SkorchCheckpoint(monitor="loss_best", dirname=tmp_path / "best", load_best=True)
    first = fit([best], checkpoint=tmp_path / "state")
    assert len(first.history_) < 3, "the history ends with the best epoch"
    assert_same(fit([DiesAt(0)], checkpoint=tmp_path / "state"), first, X)


STEADY = {"schedule": "constant", "warmup_epochs": 0}


def test_finished_training_continues_for_more_epochs(X, tmp_path, capsys):
    quick(skssl.SimCLR, epochs=2, checkpoint=tmp_path, **STEADY).fit(X)
    longer = quick(skssl.SimCLR, epochs=4, checkpoint=tmp_path, **STEADY)
    message = r"another number of epochs, of which 2 are done\. Pass checkpoint_extend=True to continue it to epochs=4"
    with pytest.raises(ValueError, match=message):
        longer.fit(X)
    capsys.readouterr()
    with pytest.raises(Death):
        longer.set_params(checkpoint_extend=True, checkpoint_every=OFTEN, callbacks=[DiesAt(3)]).fit(X)
    assert "after 2 epoch(s).\n" in capsys.readouterr().err
    plain = quick(skssl.SimCLR, epochs=4, **STEADY).fit(X)
    for extend in (True, False):  # an extension that was interrupted is the training in the folder
        longer.set_params(checkpoint_extend=extend, checkpoint_every="1 h", callbacks=None)
        assert_same(clone(longer).fit(X), plain, X)
    with pytest.raises(ValueError, match=r"differs in: epochs\."):
        clone(longer).set_params(epochs=3, checkpoint_extend=True).fit(X)


def test_rates_after_an_extension_are_those_of_the_longer_training(X, tmp_path):
    def rates(epochs, **params):
        return (
            quick(skssl.SimCLR, epochs=epochs, warmup_epochs=0, schedule="cosine", **params)
            .fit(X)
            .history_["lr"]
            .tolist()
        )

    short = rates(2, checkpoint=tmp_path)
    longer = rates(4, checkpoint=tmp_path, checkpoint_extend=True)
    assert longer == short + rates(4)[2:]
    assert longer[2] > longer[1]


def test_training_that_stopped_early_continues_for_more_epochs(X, tmp_path):
    first = quick(skssl.SimCLR, **EARLY, callbacks=stopping(), checkpoint=tmp_path).fit(X)
    settings = {**EARLY, "epochs": 16, "checkpoint": tmp_path, "checkpoint_extend": True}
    longer = quick(skssl.SimCLR, **settings, callbacks=stopping()).fit(X)
    assert len(longer.history_) >= len(first.history_) + 3, "with all its patience"
    assert longer.history_["loss"][:10].tolist() == first.history_["loss"].tolist()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"misses_": "x"}, "'misses_' is unknown, or no number"),
        ({"sink": 3}, "'sink' is unknown, or no number"),
        ({"best_model_weights_.encoder": torch.ones(2)}, "'best_model_weights_' must have the tensors of the network"),
    ],
)
def test_forged_state_of_early_stopping_is_refused(state, message, X):
    trainer = quick(skssl.SimCLR, callbacks=stopping())._make_trainer(as_images(X))
    with pytest.raises(ValueError, match=rf"callback 'EarlyStopping' does not take its state .*: {message}"):
        trainer.restore_state(ResumeState(callbacks={"EarlyStopping": state}))


def test_fine_tuning_resumes(X, y, tmp_path):
    encoder = quick(skssl.SimCLR).fit(X)
    tuner = partial(FineTuner, encoder, epochs=2, batch_size=16, random_state=0)
    with pytest.raises(Death):
        tuner(checkpoint=tmp_path, checkpoint_every=OFTEN, callbacks=[DiesAt(3)]).fit(X, y)
    assert_same(tuner(checkpoint=tmp_path).fit(X, y), tuner().fit(X, y), X)
    longer = tuner(checkpoint=tmp_path).set_params(epochs=3)
    with pytest.raises(ValueError, match="of which 2 are done"):
        longer.fit(X, y)
    assert len(longer.set_params(checkpoint_extend=True).fit(X, y).history_) == 3
    other = quick(skssl.SimCLR, random_state=1).fit(X)
    with pytest.raises(ValueError, match="differs in: encoder"):
        FineTuner(other, epochs=3, batch_size=16, random_state=0, checkpoint=tmp_path).fit(X, y)


def test_checkpoint_every_sets_when_the_state_is_saved(X, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(
        "skssl.training.checkpoints.write", lambda path, header, tensors: saved.append(header["training"])
    )

    def places(every):
        saved.clear()
        quick(skssl.SimCLR, epochs=5, checkpoint=tmp_path, checkpoint_every=every).fit(X)
        return [(len(state["history"]), state["step"]) for state in saved]

    assert places(2) == [(2, 0), (4, 0), (5, 0)]
    assert places("1 h") == [(5, 0)]
    assert places(OFTEN)[:3] == [(0, 1), (1, 0), (1, 1)]


def test_resume_reports_the_epoch_and_a_finished_training_is_not_trained_again(X, tmp_path, capsys):
    method = quick(skssl.SimCLR, epochs=2, checkpoint=tmp_path)
    with pytest.raises(Death):
        method.set_params(checkpoint_every=OFTEN, callbacks=[DiesAt(3)]).fit(X)
    assert "resuming" not in capsys.readouterr().err
    first = method.set_params(callbacks=None).fit(X).transform(X)
    assert f"SimCLR: resuming from '{tmp_path}', after 1 epoch(s) and 1 step(s).\n" in capsys.readouterr().err
    assert np.array_equal(method.set_params(callbacks=[DiesAt(0)]).fit(X).transform(X), first)
    assert "after 2 epoch(s).\n" in capsys.readouterr().err
    joblib.dump(method.set_params(callbacks=None).fit(X), tmp_path / "method.joblib")
    assert len(joblib.load(tmp_path / "method.joblib").partial_fit(X).history_) == 3


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"lr": 0.3}, "lr"),
        ({"epochs": 3, "temperature": 0.3, "checkpoint_extend": True}, "epochs, temperature"),
        ({"random_state": 1}, "random_state"),
        ({"aux": Rotation(angles=(0, 180))}, "aux"),
        ({"augment": skssl.Augmentation(hue=0.2)}, "augment"),
    ],
    ids=str,
)
def test_other_parameters_are_refused_by_name(params, named, X, tmp_path):
    quick(skssl.SimCLR, checkpoint=tmp_path, aux="rotation").fit(X)
    with pytest.raises(ValueError, match=rf"holds another training, which differs in: {named}\. Use the same"):
        quick(skssl.SimCLR, **{"checkpoint": tmp_path, "aux": "rotation", **params}).fit(X)


def test_other_images_classes_and_methods_are_refused(X, y, tmp_path):
    quick(skssl.SupCon, checkpoint=tmp_path).fit(X, y)
    changed = X.copy()
    changed[7, 3, 2, 1] ^= 1
    for images in (changed, X[::-1], X[:39]):
        with pytest.raises(ValueError, match=r"differs in: X"):
            quick(skssl.SupCon, checkpoint=tmp_path).fit(images, y[: len(images)])
    with pytest.raises(ValueError, match=r"differs in: y\."):
        quick(skssl.SupCon, checkpoint=tmp_path).fit(X, y[::-1])
    with pytest.raises(ValueError, match=r"differs in: .*estimator"):
        quick(skssl.SimCLR, checkpoint=tmp_path).fit(X)


def test_device_callbacks_and_verbose_may_change_on_resume(X, tmp_path):
    folder = tmp_path / "a" / "b"
    with pytest.raises(Death):
        quick(skssl.SimCLR, epochs=2, random_state=None, checkpoint=folder, checkpoint_every=1).set_params(
            callbacks=[DiesAt(2)]
        ).fit(X)
    method = quick(skssl.SimCLR, epochs=2, random_state=None, verbose=1, checkpoint_every="3 h", device="cpu")
    assert len(method.set_params(checkpoint=str(folder), callbacks=[]).fit(X).history_) == 2


@pytest.fixture
def in_the_foreground():
    """Handle Ctrl-C as in a terminal, even if this process was started in the background and ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Signals(DiesAt):
    """Sends this process a signal at the beginning of a step."""

    def on_batch_begin(self, net, **kwargs):
        self.seen += 1
        if self.seen == self.step + 1:
            os.kill(os.getpid(), self.error)


@pytest.mark.usefixtures("in_the_foreground")
@pytest.mark.parametrize("step", [0, 1, 2, 4])  # within an epoch (0, 2, 4) and at the end of one
@pytest.mark.parametrize(("kind", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_signals_save_the_state_and_leave_a_usable_estimator(kind, raised, step, X, tmp_path, capfd):
    handlers = [signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)]
    method = quick(skssl.SimSiam, epochs=3, checkpoint=tmp_path, callbacks=[Signals(step, kind)])
    with pytest.raises(raised) as stopped:
        method.fit(X)
    assert raised is KeyboardInterrupt or stopped.value.code == 128 + signal.SIGTERM
    assert "saved after this step" in capfd.readouterr().err
    assert [signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert method.transform(X).shape == (40, 128)
    assert len(method.history_) == (step + 1) // 2
    resumed = quick(skssl.SimSiam, epochs=3, checkpoint=tmp_path).fit(X)
    epochs, steps = divmod(step + 1, 2)
    assert f", after {epochs} epoch(s)" + (f" and {steps} step(s)." if steps else ".") in capfd.readouterr().err
    assert_same(resumed, quick(skssl.SimSiam, epochs=3).fit(X), X)


@pytest.mark.usefixtures("in_the_foreground")
def test_a_signal_after_the_last_step_is_not_lost(X, tmp_path):
    class Late(Callback):
        def on_train_end(self, net, **kwargs):
            os.kill(os.getpid(), signal.SIGINT)

    method = quick(skssl.SimCLR, checkpoint=tmp_path, callbacks=[Late()])
    with pytest.raises(KeyboardInterrupt):
        method.fit(X)
    assert_same(method, quick(skssl.SimCLR).fit(X), X)


def test_ctrl_c_stays_ignored_in_the_background(X, tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        method = quick(skssl.SimCLR, checkpoint=tmp_path, callbacks=[Signals(0, signal.SIGINT)]).fit(X)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(method.history_) == 1


@pytest.mark.usefixtures("in_the_foreground")
def test_a_second_signal_ends_the_training_at_once(X, tmp_path):
    class Twice(Signals):
        def on_grad_computed(self, net, **kwargs):
            if self.seen == 1:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        quick(skssl.SimCLR, checkpoint=tmp_path, callbacks=[Twice(0, signal.SIGINT)]).fit(X)
    assert not (tmp_path / STATE).exists()


class At(DiesAt):
    """Calls a function at the beginning of a step."""

    def on_batch_begin(self, net, **kwargs):
        self.seen += 1
        if self.seen == self.step + 1:
            self.error()


def test_a_full_disk_neither_stops_the_training_nor_loses_the_last_save(X, tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))

    method = quick(skssl.SimCLR, epochs=2, checkpoint=tmp_path, checkpoint_every=1, callbacks=[At(2, fill)])
    try:
        with pytest.warns(UserWarning, match=rf"could not be saved; the last save is unchanged: .*{STATE}"):
            method.fit(X)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert_same(method, quick(skssl.SimCLR, epochs=2).fit(X), X)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["lock", STATE]
    assert_same(quick(skssl.SimCLR, epochs=2, checkpoint=tmp_path).fit(X), method, X)


def test_a_deleted_folder_does_not_stop_the_training(X, tmp_path):
    folder = tmp_path / "state"
    gone = At(1, lambda: shutil.rmtree(folder))
    with pytest.warns(UserWarning, match="could not be saved"):
        quick(skssl.SimCLR, checkpoint=folder, callbacks=[gone]).fit(X)


def test_a_folder_that_is_not_writable_is_refused_before_training(X, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"checkpoint='.*file' is not a writable folder: "):
        quick(skssl.SimCLR, checkpoint=tmp_path / "file", callbacks=[DiesAt(0)]).fit(X)
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(OSError, match=r"checkpoint='.*closed' is not a writable folder: "):
        quick(skssl.SimCLR, checkpoint=tmp_path / "closed", callbacks=[DiesAt(0)]).fit(X)


def test_a_training_outside_the_main_thread_saves_and_resumes(X, tmp_path):
    def fit(**params):
        method = quick(skssl.SimCLR, epochs=2, checkpoint=tmp_path, checkpoint_every=OFTEN, **params)
        with ThreadPoolExecutor(1) as pool:  # threads other than the main one cannot handle signals
            return pool.submit(method.fit, X).result()

    with pytest.raises(Death):
        fit(callbacks=[DiesAt(3)])
    assert (tmp_path / STATE).exists()
    assert_same(fit(), quick(skssl.SimCLR, epochs=2).fit(X), X)


def test_a_checkpoint_of_another_format_is_refused(X, tmp_path):
    write(tmp_path / STATE, {"known": {}, "training": {}}, {})
    with pytest.raises(ValueError, match="holds no training state that this version of skssl can read"):
        quick(skssl.SimCLR, checkpoint=tmp_path).fit(X)


def test_an_empty_folder_name_is_refused(X):
    with pytest.raises(ValueError, match="'checkpoint' parameter must be a folder"):
        quick(skssl.SimCLR, checkpoint="").fit(X)


def test_a_second_run_in_a_folder_is_refused(X, tmp_path):
    def second():
        with pytest.raises(RuntimeError, match=r"checkpoint='.*' is in use by another run"):
            quick(skssl.SimCLR, checkpoint=tmp_path).fit(X)

    method = quick(skssl.SimCLR, checkpoint=tmp_path, callbacks=[At(1, second)]).fit(X)
    assert_same(quick(skssl.SimCLR, checkpoint=tmp_path).fit(X), method, X)


def test_files_left_by_a_killed_save_are_deleted(X, tmp_path):
    (tmp_path / f".{STATE}.0123").write_bytes(b"half")
    quick(skssl.SimCLR, checkpoint=tmp_path).fit(X)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["lock", STATE]


def test_a_damaged_state_is_refused(X, tmp_path):
    quick(skssl.SimCLR, checkpoint=tmp_path).fit(X)
    whole = (tmp_path / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=rf"{STATE}' cannot be read, it is damaged"):
        quick(skssl.SimCLR, checkpoint=tmp_path).fit(X)
    quick(skssl.SimCLR).fit(X).save(tmp_path / STATE)
    with pytest.raises(ValueError, match=rf"{STATE}' holds no training state that this version of skssl can read"):
        quick(skssl.SimCLR, checkpoint=tmp_path).fit(X)


def resumable(X, folder, step=3, **params):
    """Write a checkpoint after some steps; return its header and tensors, and an estimator that resumes from it."""
    estimator = quick(skssl.SimCLR, epochs=2, checkpoint=folder, **params)
    with pytest.raises(Death):
        estimator.set_params(checkpoint_every=OFTEN, callbacks=[DiesAt(step)]).fit(X)
    return (*read(folder / STATE), estimator.set_params(callbacks=None, checkpoint_every="1 h"))


def test_a_checkpoint_without_a_new_parameter_resumes_with_its_default(X, tmp_path, capsys):
    header, tensors, estimator = resumable(X, tmp_path)
    known = {name: digest for name, digest in header["known"].items() if name not in ("aux_weight", "schedule")}
    known["X"] = digest_older(estimator, as_images(X))["X"]  # of a sample, as older versions made it
    older = {name: value for name, value in header.items() if name != "skssl"} | {"known": known}
    write(tmp_path / STATE, older, tensors)
    with pytest.raises(ValueError, match=r"differs in: schedule\. It was saved by an older skssl; this is skssl \d"):
        clone(estimator).set_params(schedule="constant").fit(X)
    changed = X.copy()
    changed[7, 3, 2, 1] ^= 1
    with pytest.raises(ValueError, match=r"differs in: X\. It was saved by an older skssl"):
        clone(estimator).fit(changed)
    capsys.readouterr()
    resumed = clone(estimator).fit(X)
    assert "older skssl, which lacked these parameters, so they have their defaults: aux_weight, schedule" in (
        capsys.readouterr().err
    )
    assert_same(resumed, quick(skssl.SimCLR, epochs=2).fit(X), X)
    assert read(tmp_path / STATE)[0]["skssl"] == skssl.__version__

    write(tmp_path / STATE, {**header, "skssl": "0.0.9", "known": {**header["known"], "gone": "0"}}, tensors)
    with pytest.raises(ValueError, match=r"differs in: gone\. It was saved by skssl 0\.0\.9; this is skssl"):
        clone(estimator).fit(X)


def test_all_values_of_images_in_memory_are_compared(X, tmp_path, monkeypatch):
    monkeypatch.setattr("skssl.training.digests.SAMPLED", 10 * X[0].size)
    monkeypatch.setattr("skssl.training.digests.CHUNK", 7 * X[0].size)
    quick(skssl.SimCLR, checkpoint=tmp_path).fit(X)
    for i in range(0, 40, 3):
        blackened = X.copy()
        blackened[i : i + 1] = 0
        with pytest.raises(ValueError, match="differs in: X"):
            quick(skssl.SimCLR, checkpoint=tmp_path).fit(blackened)


def test_a_folder_in_the_place_of_a_temporary_file_is_left_alone(X, tmp_path):
    (tmp_path / f".{STATE}.0123").mkdir()
    quick(skssl.SimCLR, checkpoint=tmp_path).fit(X)
    assert (tmp_path / STATE).exists()


def drop(values, name):
    return {key: value for key, value in values.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values, tensors: drop(values, "seed"), "'seed' must be an integer of at least 0. Got None"),
        (lambda values, tensors: values | {"seed": "x"}, "'seed' must be an integer"),
        (lambda values, tensors: values | {"history": ["a", "b"]}, "Row 0 of 'history' must be a dict"),
        (lambda values, tensors: values | {"history": values["history"] * 9}, "'history' must be a list of at most 2"),
        (lambda values, tensors: values | {"history": [drop(values["history"][0], "loss")]}, "rows, each with a loss"),
        (lambda values, tensors: values | {"rates": [0.1, 0.1]}, "'rates' must be a list of 1 numbers"),
        (lambda values, tensors: values | {"rates": ["a"]}, "'rates' must be a list of 1 numbers"),
        (lambda values, tensors: values | {"step": 10**9}, r"'step' must be an integer in the range \[0, 2\)"),
        (lambda values, tensors: values | {"seconds": float("inf")}, "'seconds' must be a number"),
        (lambda values, tensors: values | {"trainable": []}, "'trainable' must be names of parameters"),
        (lambda values, tensors: values | {"callbacks": {"a": 1}}, "'callbacks' must be a dict of dicts"),
        (lambda values, tensors: values | {"finished": True}, "'finished' must be a bool, and False within an epoch"),
        (lambda values, tensors: values | {"optimizer": {"0.momentum_buffer": 1}}, "momentum_buffer must be a Tensor"),
        (lambda values, tensors: tensors.pop("random.global"), "state within an epoch are missing"),
        (
            lambda values, tensors: tensors.update({"random.global": torch.zeros(7, dtype=torch.uint8)}),
            "cannot be resumed",
        ),
        (lambda values, tensors: tensors.update({"random.draws": torch.zeros(7)}), "'random.draws' is unknown, or of"),
        (
            lambda values, tensors: tensors.update({"chosen": torch.full((40,), 999)}),
            "'chosen' must hold indices of 40",
        ),
        (lambda values, tensors: tensors.update({"chosen": torch.arange(0)}), "'chosen' is unknown, or of"),
        (lambda values, tensors: tensors.update({"more": torch.ones(1)}), "'more' is unknown, or of"),
        (lambda values, tensors: tensors.update({"optimizer.99.x": torch.ones(1)}), "no parameter '99'"),
        (lambda values, tensors: tensors.pop("net.encoder.features.0.weight"), r"features\.0\.weight' is missing"),
        (lambda values, tensors: tensors.pop("sums.nt_xent"), "lacks the sum of the loss 'nt_xent'"),
    ],
    ids=range(22),
)
def test_forged_states_are_refused(change, message, X, tmp_path):
    header, tensors, estimator = resumable(X, tmp_path)
    tensors.setdefault("optimizer.0.momentum_buffer", torch.zeros(16, 3, 3, 3))
    if "momentum_buffer" in message:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("optimizer.0.")}
    found = change(header["training"], tensors)
    header["training"] = found if isinstance(found, dict) else header["training"]
    write(tmp_path / STATE, header, tensors)
    with pytest.raises(ValueError, match=message):
        estimator.fit(X)


def test_a_forged_state_is_refused_before_its_tensors_are_read(X, tmp_path, monkeypatch):
    header, tensors, estimator = resumable(X, tmp_path)
    write(tmp_path / STATE, header, {**tensors, "net.encoder.features.0.weight": torch.zeros(10**6)})
    monkeypatch.setattr("skssl.storage.files.SavedFile.read_tensor", None)
    with pytest.raises(ValueError, match=r"features\.0\.weight' must be of shape \(16, 3, 3, 3\).* Got \(1000000,\)"):
        estimator.fit(X)
    for known in (1, {"X": 1}):
        write(tmp_path / STATE, {**header, "known": known}, {})
        with pytest.raises(ValueError, match="holds no training state that this version of skssl can read"):
            estimator.fit(X)


def test_fuzzed_checkpoints_resume_or_are_refused(tmp_path):
    cases, check = TARGETS["checkpoints"](tmp_path)
    outcomes = set()
    hypothesis.seed(0)(
        hypothesis.settings(fuzz.EASY, max_examples=60)(hypothesis.given(cases)(lambda case: outcomes.add(check(case))))
    )()
    assert outcomes == {"resumed", "refused"}


def test_a_callback_that_refuses_its_state_is_named(X, tmp_path):
    header, tensors, estimator = resumable(X, tmp_path)
    header["training"]["callbacks"] = {"GradientSNR": {}}
    write(tmp_path / STATE, header, tensors)
    with pytest.raises(ValueError, match="callback 'GradientSNR' does not take its state in the checkpoint: 'steps'"):
        estimator.set_params(callbacks=[GradientSNR()]).fit(X)


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "often", "-3 s", "", None])
def test_checkpoint_every_out_of_range_is_refused(every, X, tmp_path):
    with pytest.raises((TypeError, ValueError), match="'checkpoint_every' parameter"):
        quick(skssl.SimCLR, checkpoint=tmp_path, checkpoint_every=every).fit(X)


@pytest.mark.slow
@pytest.mark.parametrize("method", list(QUICK) if KILLS else [skssl.SimCLR, skssl.SwAV, skssl.DeepCluster])
def test_resume_after_sigkill_is_bit_exact(processes, method, X, y, tmp_path):
    make = partial(quick, method, epochs=KILLED_EPOCHS, batch_size=8)
    kills, estimator = killed_and_restarted(processes, make, X, y, tmp_path, KILLS or 3, method.__name__)
    assert kills == (KILLS or kills) > 0
    assert_same(estimator, make().fit(X, y), X)
