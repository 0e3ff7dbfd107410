"""The training loop: labels, hooks, views of several sizes, early stopping, compiled and recorded steps."""

import functools
import pickle
import shutil
import signal
import threading
import time
import types
from collections import deque
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import skorch
import torch
from conftest import quick
from skorch.callbacks import Callback
from torch._dynamo.utils import counters
from torch.nn import functional as F

import skssl
from skssl.augment import MultiCrop
from skssl.backbones import ViT
from skssl.methods.base import SSLTransformer
from skssl.methods.settings import Settings
from skssl.nn.heads import MLP
from skssl.nn.memories import Queue
from skssl.training import cuda_graphs
from skssl.training.objective import concat_views
from skssl.training.resume import ResumeState
from skssl.training.trainer import COMPILED_FROM, Trainer


@dataclass(kw_only=True, eq=False, repr=False)
class Probing(SSLTransformer):
    """Records the arguments of its hooks."""

    labelled: bool = True
    multi_crop: ClassVar[bool] = True
    default_settings: ClassVar[Settings] = replace(skssl.SimCLR.default_settings, augment="none")
    seen: ClassVar[list] = []

    @property
    def uses_labels(self):
        return self.labelled

    def build(self, net, dim, n_samples):
        net.projector = MLP((dim, 8))
        net.frozen = torch.nn.Linear(8, 8)

    def losses(self, net, batch):
        target = None if batch.labels is None else batch.labels.tolist()
        self.seen.append(("losses", batch.index.tolist(), target, [tuple(view.shape[1:]) for view in batch.views]))
        z = torch.stack(net.project(batch.views))
        return {"square": net.frozen(z).square().mean()}

    def before_epoch(self, net, epoch, encode):
        self.seen.append(("before_epoch", epoch, encode(net.encoder)))

    def after_backward(self, net):
        assert all(p.grad is not None for p in net.parameters())
        net.frozen.zero_grad()


@pytest.fixture
def seen():
    Probing.seen.clear()
    return Probing.seen


def probing(**params):
    return Probing(backbone="convnet", epochs=2, batch_size=16, random_state=0, **params)


def test_labels_reach_the_batch_as_numbers_by_image(seen, X):
    y = np.array(["dog", "cat", "emu", "cat"] * 10, dtype=object)
    y[5] = -1
    probing().fit(X, y)
    batches = [entry for entry in seen if entry[0] == "losses"]
    assert len(batches) == 4
    for _, index, target, _ in batches:
        assert target == [-1 if i == 5 else ["cat", "dog", "emu"].index(y[i]) for i in index]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y to be passed, but the target y is None"),
        (np.zeros(39), r"inconsistent numbers of samples: \[40, 39\]"),
        (np.zeros((40, 2)), "1d array"),
    ],
)
def test_labels_that_are_missing_or_misshapen_are_refused(y, message, X):
    with pytest.raises(ValueError, match=message):
        probing().fit(X, y)


def test_labels_are_ignored_unless_the_method_uses_them(seen, X):
    probing(labelled=False).fit(X, y="anything")
    assert {target for kind, _, target, *_ in (e for e in seen if e[0] == "losses")} == {None}


def test_encode_in_before_epoch_equals_transform(seen, X):
    estimator = probing().partial_fit(X, np.arange(40))
    trained = estimator.transform(X)
    estimator.partial_fit(X, np.arange(40))
    epochs = [entry for entry in seen if entry[0] == "before_epoch"]
    assert [epoch for _, epoch, _ in epochs] == [0, 1]
    np.testing.assert_allclose(epochs[1][2].numpy(), trained, rtol=1e-5, atol=1e-6)
    assert estimator.net_.module_.encoder.training, "training goes on in training mode"


def test_after_backward_can_cancel_a_gradient(X):
    estimator = probing(weight_decay=0.0)
    start = estimator._make_trainer(skssl.images.as_images(X)).module_.frozen.weight.clone()
    net = estimator.fit(X, np.arange(40)).net_.module_
    assert torch.equal(net.frozen.weight, start)


def test_the_state_of_a_training_is_in_parameters_and_buffers_alone(method, X, y):
    def numbers(net):
        return {
            f"{path}.{name}": value
            for path, module in net.named_modules()
            for name, value in vars(module).items()
            if isinstance(value, bool | int | float) and name != "training"
        }

    estimator = quick(method, epochs=2, **{skssl.DirectPred: {"freq": 2}}.get(method, {}))
    before = numbers(estimator._make_trainer(skssl.images.as_images(X)).module_)
    assert numbers(estimator.fit(X, y).net_.module_) == before


def test_partial_fit_refuses_another_number_of_images_if_the_method_has_a_bank(X):
    @dataclass(kw_only=True, eq=False, repr=False)
    class Bank(Probing):
        per_image: ClassVar[bool] = True

    estimator = Bank(backbone="convnet", batch_size=16, labelled=False).partial_fit(X)
    with pytest.raises(ValueError, match=r"Bank stores a value .* the same 40 images .* Got 30"):
        estimator.partial_fit(X[:30])


def test_project_runs_the_encoder_once_per_resolution_and_the_projector_once(X):
    net = probing()._make_trainer(skssl.images.as_images(X)).module_
    views = [torch.randn(4, 3, side, side) for side in (16, 16, 8, 8, 8)]
    calls = []
    hook = net.encoder.register_forward_hook(lambda module, args, out: calls.append(tuple(args[0].shape)))
    found = net.project(views)
    hook.remove()
    assert calls == [(8, 3, 16, 16), (12, 3, 8, 8)]
    by_hand = [net.encoder(torch.cat(views[:2])), net.encoder(torch.cat(views[2:]))]
    torch.testing.assert_close(torch.cat(found), net.projector(torch.cat(by_hand)))
    assert [len(z) for z in found] == [4] * 5


def test_views_too_small_for_bfloat16_are_encoded_in_float32(X):
    net = probing()._make_trainer(skssl.images.as_images(X)).module_
    dtypes = []
    net.encoder.register_forward_hook(lambda module, args, out: dtypes.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        found = net.project([torch.randn(4, 3, side, side) for side in (16, 16, 7, 7)])
    assert dtypes == [torch.bfloat16, torch.float32]
    assert all(z.isfinite().all() for z in found)


def test_adjacent_views_are_concatenated_without_a_copy():
    whole = torch.randn(6, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    parts = whole.chunk(3)
    assert concat_views(parts).data_ptr() == whole.data_ptr()
    for views in (parts, parts[1:], parts[::-1], parts[::2], [parts[0], parts[0]], [torch.ones(2, 3, 4, 4)] * 2):
        assert torch.equal(concat_views(views), torch.cat(list(views)))
        assert concat_views(views).is_contiguous(memory_format=torch.channels_last) or views[0] is not parts[0]
    grad = [torch.randn(2, 3, 4, 4, requires_grad=True) for _ in range(2)]
    concat_views(grad).sum().backward()
    assert all(torch.equal(view.grad, torch.ones(2, 3, 4, 4)) for view in grad)


def test_multi_crop_makes_views_of_two_sizes(seen, X):
    crops = MultiCrop(n_local=3, augment="byol", global_scale=(0.3, 1.0), local_size=8)
    estimator = probing(augment=crops).fit(X, np.arange(40))
    assert seen[1][3] == [(3, 16, 16)] * 2 + [(3, 8, 8)] * 3
    made = estimator.net_.augmentations
    assert [view.solarize for view in made] == [0.0, 0.2, 0.0, 0.2, 0.0], "the pair of BYOL's takes turns"
    assert [view.crop_scale for view in made] == [(0.3, 1.0)] * 2 + [(0.05, 0.14)] * 3
    assert estimator.transform(X).shape == (40, 128)


def test_multi_crop_is_refused_by_methods_that_need_views_of_one_size(X):
    with pytest.raises(TypeError, match="SimCLR compares views of one size"):
        skssl.SimCLR(backbone="convnet", augment=MultiCrop()).fit(X)
    with pytest.raises(ValueError, match=r"'n_global' parameter of MultiCrop must be an int in the range \[2, 100\]"):
        probing(augment=MultiCrop(n_global=1)).fit(X, np.arange(40))


def test_queue_keeps_the_latest_rows_as_a_ring_buffer():
    torch.manual_seed(0)
    queue, literal = Queue(7, 2), deque(maxlen=7)
    assert torch.allclose(queue.items.norm(dim=1), torch.ones(7))
    for n in (3, 3, 5, 9, 1):
        batch = F.normalize(torch.randn(n, 2), dim=1)
        queue.push(batch)
        literal.extend(batch)
    found = torch.cat([queue.items[queue.pointer :], queue.items[: queue.pointer]])  # oldest first
    assert torch.equal(found, torch.stack(list(literal)))


class CompiledGraphs(Callback):
    """Counts the compiled graphs at the end of each epoch, and changes the learning rate."""

    def initialize(self):
        self.counts = []
        return self

    def on_epoch_end(self, net, **kwargs):
        self.counts.append(counters["stats"]["unique_graphs"])
        net.optimizer_.param_groups[0]["peak"] *= 0.5


def with_eager_backend(monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    counters.clear()


def assert_compiled_once(method, X, y, monkeypatch, **params):
    """Check that the losses are one graph, compiled in the first epoch, with the values of an uncompiled training."""
    with_eager_backend(monkeypatch)
    watch = CompiledGraphs()
    # In bfloat16, gradients of weights that a step uses several times are added up in another precision.
    settings = {"epochs": 3, "callbacks": [watch], "precision": "float32", **params}
    estimator = quick(method, compile=True, **settings).fit(X, y).partial_fit(X, y)
    assert estimator.net_.compiled, "compiling failed"
    assert watch.counts == [1] * 4
    assert not counters["graph_break"]
    plain = quick(method, compile=False, **settings).fit(X, y).history_
    names = plain.columns.drop("images_per_second")
    np.testing.assert_allclose(estimator.history_.loc[:2, names], plain[names], rtol=1e-4)


def test_the_losses_of_a_method_are_one_graph_that_is_compiled_once(method, X, y, monkeypatch):
    thawed = {"SwAV": {"freeze_prototypes": 1, "queue_length": 0}, "DINO": {"freeze_last_layer": 1}}
    assert_compiled_once(method, X, y, monkeypatch, **thawed.get(method.__name__, {}))


def test_msn_of_a_vision_transformer_is_one_graph_that_is_compiled_once(X, monkeypatch):
    assert_compiled_once(skssl.MSN, X, None, monkeypatch, backbone=ViT("micro"), lr=1e-3, mask_ratio=0.5)


def test_a_failing_compiled_step_leaves_the_buffers_unchanged(X, monkeypatch):
    def compile(forward, dynamic):
        def fail(batch):
            forward(batch)  # moves running statistics and the queue
            raise RuntimeError("no kernel")

        return fail

    monkeypatch.setattr(torch, "compile", compile)
    with pytest.warns(UserWarning, match="compile=True failed, so training continues without it: RuntimeError: no ker"):
        failed = quick(skssl.MoCo, compile=True, bn_splits=1).fit(X)
    assert not failed.net_.compiled
    plain = quick(skssl.MoCo, compile=False, bn_splits=1).fit(X)
    pushed, expected = (of.net_.module_.queue.pushed for of in (failed, plain))
    assert pushed == expected


def test_an_error_in_a_later_compiled_step_is_raised(X, monkeypatch):
    calls = []

    def compile(forward, dynamic):
        def fail(batch):
            calls.append(batch)
            if len(calls) == 2:
                raise RuntimeError("out of memory")
            return forward(batch)

        return fail

    monkeypatch.setattr(torch, "compile", compile)
    with pytest.raises(RuntimeError, match="out of memory"):
        quick(skssl.SimCLR, compile=True).fit(X)


class Stops(Callback):
    """Stops a training at the end of its second epoch, by an exception or by a signal."""

    def __init__(self, stop):
        self.stop = stop

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            self.stop()


def raise_keyboard_interrupt():
    raise KeyboardInterrupt


def test_a_callback_stops_a_training_early(X):
    early = skorch.callbacks.EarlyStopping(monitor="loss", patience=1, threshold=1e9, sink=lambda text: None)
    for callback in (early, Stops(raise_keyboard_interrupt)):
        assert len(quick(skssl.SimCLR, epochs=4, callbacks=[callback]).fit(X).history_) == 2


@pytest.mark.parametrize("module", ["skorch.callbacks.training", "mine"])
def test_ctrl_c_in_a_callback_ends_fit(module, X):
    """The signal may arrive within skorch's code, from where it is raised like an early stopping."""
    code = compile("import os, signal\ndef interrupt(): os.kill(os.getpid(), signal.SIGINT)", "<callback>", "exec")
    namespace = {"__name__": module}
    exec(code, namespace)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            quick(skssl.SimCLR, epochs=4, callbacks=[Stops(namespace["interrupt"])]).fit(X)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_early_stopping_works_outside_the_main_thread(X):
    found = []
    estimator = quick(skssl.SimCLR, epochs=4, callbacks=[Stops(raise_keyboard_interrupt)])
    thread = threading.Thread(target=lambda: found.append(estimator.fit(X)))
    thread.start()
    thread.join()
    assert len(found[0].history_) == 2


def test_many_trainings_are_all_compiled(X, monkeypatch):
    with_eager_backend(monkeypatch)
    for n in range(1, 13):  # torch.compile gives up after 8 for one function
        quick(skssl.SimSiam, compile=True, backbone=tiny).fit(X)
        assert counters["stats"]["unique_graphs"] == n


def tiny():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
def test_compiled_trainings_equal_plain_ones_and_reuse_the_cache(X, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    settings = {"precision": "float32", "lr": 0.01, "epochs": 2, "backbone": small}  # a rate at which rounding stays
    plain = quick(skssl.SimCLR, compile=False, **settings).fit(X)
    for misses, hits in ((1, 0), (0, 1)):
        counters.clear()
        compiled = quick(skssl.SimCLR, compile=True, **settings).fit(X)
        assert compiled.net_.compiled, "compiling failed"
        found = counters["aot_autograd"]
        assert (found["autograd_cache_miss"], found["autograd_cache_hit"]) == (misses, hits), counters
        for name in ("loss", "nt_xent", "embedding_std", "effective_rank"):
            np.testing.assert_allclose(compiled.history_[name], plain.history_[name], rtol=1e-4)
        np.testing.assert_allclose(compiled.transform(X), plain.transform(X), rtol=1e-3, atol=1e-4)
    assert len(pickle.loads(pickle.dumps(compiled)).partial_fit(X).history_) == 3


def small():
    layers = torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.BatchNorm2d(8), torch.nn.ReLU(inplace=True)
    return torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())


@pytest.mark.parametrize(
    ("compile", "device", "steps", "expected"),
    [
        ("auto", "cuda", COMPILED_FROM, True),
        ("auto", "cuda", COMPILED_FROM - 1, False),
        ("auto", "cpu", 10 * COMPILED_FROM, False),
        (True, "cpu", 1, True),
        (False, "cuda", 10 * COMPILED_FROM, False),
    ],
)
def test_auto_compiles_long_trainings_on_cuda(compile, device, steps, expected, X):
    trainer = quick(skssl.SimCLR, compile=compile)._make_trainer(skssl.images.as_images(X))
    trainer.device = device
    assert trainer.compiles(steps) is expected


def test_auto_compile_counts_the_steps_of_all_epochs(X, monkeypatch):
    seen = []
    monkeypatch.setattr(skssl.training.trainer.Trainer, "compiles", lambda self, steps: seen.append(steps))
    estimator = quick(skssl.SimCLR, epochs=3, backbone=tiny).fit(X)
    estimator.partial_fit(X)
    assert seen == [6, 6], "40 images in batches of 16"


def test_compile_must_be_auto_or_a_boolean(X):
    assert skssl.SimCLR().get_params()["compile"] == skssl.FineTuner(None).get_params()["compile"] == "auto"
    with pytest.raises(ValueError, match="'compile' parameter of SimCLR must be"):
        quick(skssl.SimCLR, compile="always").fit(X)


def test_losses_are_summed_and_not_changed():
    state = ResumeState()
    numbers = [{"loss": torch.tensor(x), "other": torch.tensor(2 * x)} for x in (1.0, 2.0, 4.0)]
    for number in numbers:
        state.add(number)
    assert state.sums == {"loss": torch.tensor(7.0), "other": torch.tensor(14.0)}
    assert numbers[0]["loss"] == 1, "the losses are not changed"


@pytest.mark.parametrize(
    ("method", "params", "graphs_made"),
    [
        (skssl.SimCLR, {}, 1),
        (skssl.BYOL, {"warmup_epochs": 1}, 1),
        (skssl.Jigsaw, {}, 1),
        (skssl.SwAV, {}, 2),  # whose queue takes part from the second epoch on
    ],
)
def test_recorded_steps_equal_plain_steps(method, params, graphs_made, X, y, monkeypatch):
    settings = {"epochs": 3, "batch_size": 8, "augment": "none", "precision": "float32", "compile": True, **params}
    with_eager_backend(monkeypatch)
    plain = quick(method, **settings).fit(X, y)

    def capture(work, draws):  # as if a graph, but that a CPU records nothing
        recorded.append(draws)
        return types.SimpleNamespace(replay=lambda: (replayed.append(1), work()))

    def static(trainer, *args, **kwargs):
        loader = get_iterator(trainer, *args, **kwargs)
        loader.compile = True
        return loader

    recorded, replayed, get_iterator = [], [], Trainer.get_iterator
    monkeypatch.setattr(Trainer, "get_iterator", static)
    monkeypatch.setattr(cuda_graphs, "capture", capture)
    monkeypatch.setattr(skssl.training.trainer, "can_record", lambda optimizer, device: True)
    monkeypatch.setattr(Trainer, "_graphs", True)
    graphed = quick(method, **settings).fit(X, y)
    assert len(recorded) == graphs_made
    assert len(replayed) == 3 * 5 - graphs_made * cuda_graphs.WARM_UP
    ours, theirs = (of.history_.drop(columns="images_per_second") for of in (graphed, plain))
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)
    np.testing.assert_allclose(graphed.transform(X), plain.transform(X), rtol=1e-3, atol=1e-4)


def test_speed_includes_the_work_that_the_device_finishes_after_the_last_step(X, monkeypatch):
    reduce_mean = skssl.training.trainer.all_reduce_mean

    def slowly(values):  # on a GPU, this reads what the steps have computed
        time.sleep(0.5)
        return reduce_mean(values)

    monkeypatch.setattr(skssl.training.trainer, "all_reduce_mean", slowly)
    (speed,) = quick(skssl.SimCLR).fit(X).history_["images_per_second"]
    assert speed < 32 / 0.5
