"""What only a GPU can show: it trains as a CPU does, deterministically, without waiting, compiled and as a graph."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CLIP_METHODS, QUICK, quick
from skorch.callbacks import Callback
from torch._dynamo.utils import counters
from torch.overrides import TorchFunctionMode
from torchvision.transforms import v2

import skssl
from skssl import Augmentation, Distiller, FineTuner, label_fraction
from skssl.augment import preset
from skssl.backbones import StagePool
from skssl.callbacks import KNNMonitor, LinearMonitor
from skssl.datasets import make_clips, pack_images
from skssl.training.cuda_graphs import can_record
from skssl.training.trainer import Trainer

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA begins; deterministic products need it
pytestmark = [
    pytest.mark.cuda,
    # What PyTorch warns of on a GPU, such as TF32 that is off, is no error; that a step is not compiled is.
    pytest.mark.filterwarnings("default", "error:compile=", "error:A step cannot be a CUDA graph"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]
CUDA = {"device": "cuda", "precision": "float32", "compile": False}
FEW = [skssl.SimCLR, skssl.MoCo, skssl.BYOL, skssl.SwAV, skssl.DINO, skssl.Colorization]


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Convolutions in float32 as such, not in TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


class DrawsOnTheCPU(TorchFunctionMode):
    """All random numbers come from one generator on the CPU, wherever they are wanted."""

    FACTORIES = (torch.rand, torch.randn, torch.randint, torch.randperm)
    LIKE = {torch.rand_like: torch.rand, torch.randn_like: torch.randn}
    IN_PLACE = (torch.Tensor.uniform_, torch.Tensor.normal_, torch.Tensor.bernoulli_, torch.Tensor.exponential_)

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in self.FACTORIES:
            device = kwargs.pop("device", None)
            return func(*args, **{**kwargs, "generator": self.generator}).to(device or "cpu")
        if func in self.LIKE:
            drawn = self.LIKE[func](args[0].shape, generator=self.generator, dtype=kwargs.get("dtype", args[0].dtype))
            return drawn.to(args[0].device)
        if func in self.IN_PLACE:
            blank = torch.empty(args[0].shape, dtype=args[0].dtype)
            return args[0].copy_(func(blank, *args[1:], **{**kwargs, "generator": self.generator}))
        return func(*args, **kwargs)


def difference(found, wanted):
    """The largest difference, relative to the largest number."""
    found, wanted = (np.asarray(x, dtype=np.float64) for x in (found, wanted))
    return np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-12)


def losses(estimator):
    """The losses of every epoch."""
    names = [name for name in estimator.history_ if name not in ("epoch", "lr", "images_per_second", "effective_rank")]
    return estimator.history_[names]


def assert_close(found, wanted, X, tolerance=1e-3):
    """Whether losses and features agree; says by how much they do not."""
    ours, theirs = losses(found), losses(wanted)
    off = {name: difference(ours[name], theirs[name]) for name in theirs}
    assert max(off.values()) < tolerance, f"losses differ by {off}:\n{ours}\n{theirs}"
    off = difference(found.transform(X), wanted.transform(X))
    assert off < tolerance, f"features differ by {off:.2g} of the largest"


def assert_same_bits(first, second, X):
    """Whether two trainings ended in the same place."""
    states = [of.net_.module_.state_dict() for of in (first, second)]
    different = [
        name for name in states[0] if not torch.equal(states[0][name].nan_to_num(), states[1][name].nan_to_num())
    ]
    assert not different, f"{len(different)} of {len(states[0])} tensors differ, first {different[:5]}"
    assert losses(first).equals(losses(second)), f"{losses(first)}\n{losses(second)}"
    assert np.array_equal(first.transform(X), second.transform(X))


# Without a difference between the views, these losses are decided by rounding.
VIEWS = {method: {"augment": Augmentation(jitter=0.0, gray=0.0)} for method in (skssl.WMSE, skssl.VICRegL)}


def test_two_steps_on_cuda_equal_those_on_a_cpu(method, X, y):
    def trained(device):
        with DrawsOnTheCPU():
            settings = {**CUDA, "device": device, "augment": "none", **VIEWS.get(method, {})}
            return quick(method, **settings).fit(X, y)

    # Which of two centres or places is nearer may be a matter of rounding, and decides a whole image's loss.
    rounded = method in (skssl.DeepCluster, skssl.VICRegL)
    assert_close(trained("cuda"), trained("cpu"), X, tolerance=0.3 if rounded else 1e-3)


# The parts of a training that the defaults leave out.
PARTS = {
    "accumulate": (skssl.SimCLR, {"accumulate": 2}),
    "rotation": (skssl.SimCLR, {"aux": "rotation"}),
    "jigsaw": (skssl.SimSiam, {"aux": "jigsaw"}),
    "adversarial": (skssl.ContextEncoder, {"adversarial_weight": 0.1}),
    "stages": (skssl.SimCLR, {"backbone": StagePool("convnet", n_stages=2, grid=2)}),
    "pretrained decoder": (skssl.SpotArtifacts, {"pretrain_epochs": 1, "width": 4}),
    "lars": (skssl.BYOL, {"optimizer": "lars", "lr": 0.1}),
}


@pytest.mark.parametrize(("method", "params"), PARTS.values(), ids=PARTS)
def test_parts_of_a_training_on_cuda_equal_those_on_a_cpu(method, params, X):
    def trained(device):
        with DrawsOnTheCPU():
            return quick(method, **{**CUDA, "device": device, "augment": "none", **params}).fit(X)

    assert_close(trained("cuda"), trained("cpu"), X)


@pytest.mark.parametrize("method", CLIP_METHODS, ids=lambda method: method.__name__)
def test_clips_on_cuda_equal_those_on_a_cpu(method):
    clips, sounds, *_ = make_clips(24, n_frames=6, image_size=16, random_state=0)
    seen = (clips, sounds) if method is skssl.AudioVisual else clips

    def trained(device):
        with DrawsOnTheCPU():
            return quick(method, **{**CUDA, "device": device, "augment": "none"}).fit(seen)

    assert_close(on_cuda := trained("cuda"), on_cpu := trained("cpu"), clips)
    if method is skssl.AudioVisual:
        assert difference(on_cuda.sound_map(clips, sounds), on_cpu.sound_map(clips, sounds)) < 1e-3
        assert difference(on_cuda.transform_audio(sounds), on_cpu.transform_audio(sounds)) < 1e-3


@pytest.mark.parametrize("packed", [False, True], ids=["files", "pack"])
def test_training_on_files_on_cuda_equals_that_on_a_cpu(packed, png_files, X):
    images = pack_images(png_files) if packed else png_files

    def trained(device):
        with DrawsOnTheCPU():
            augment = Augmentation(jitter=0.0, gray=0.0)
            return quick(skssl.SimCLR, **{**CUDA, "device": device, "augment": augment}).fit(images)

    assert_close(trained("cuda"), trained("cpu"), X)


def test_transforms_of_torchvision_on_cuda_equal_those_on_a_cpu(X):
    augment = v2.Compose([v2.ToImage(), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)])
    on_cuda, on_cpu = (
        quick(skssl.SimCLR, **{**CUDA, "device": device, "augment": augment}).fit(X) for device in ("cuda", "cpu")
    )
    assert_close(on_cuda, on_cpu, X)


def test_fine_tuning_and_distillation_on_cuda_equal_those_on_a_cpu(X, y):
    still = {"augment": "none", "precision": "float32", "epochs": 2, "batch_size": 20, "random_state": 0}
    found = {}
    for device in ("cuda", "cpu"):
        encoder = quick(skssl.SimCLR, **{**CUDA, "device": "cpu"}).fit(X).set_params(device=device)
        teacher = FineTuner(encoder, backbone_lr=0.01, device=device, **still)
        teacher.fit(X, label_fraction(y, 0.5, random_state=0))
        student = Distiller(teacher, encoder, device=device, **still).fit(X)
        found[device] = teacher.predict_proba(X), student.predict_proba(X)
    for on_cuda, on_cpu in zip(*found.values(), strict=True):
        assert difference(on_cuda, on_cpu) < 1e-2


def test_monitors_score_while_training(X, y):
    callbacks = [KNNMonitor(X, y, n_neighbors=3), LinearMonitor(y)]
    history = quick(skssl.SimCLR, **CUDA, epochs=2, callbacks=callbacks).fit(X, y).history_
    assert history[["knn", "linear"]].notna().all(axis=None)


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
def test_the_same_seed_gives_the_same_bits(method, X, y):
    first, second = (quick(method, **CUDA).fit(X, y) for _ in range(2))
    assert_same_bits(first, second, X)


class Death(Exception):
    """What ends a training."""


class DiesAt(Callback):
    """Ends a training at the beginning of a step."""

    def __init__(self, step):
        self.left = step

    def on_batch_begin(self, net, **kwargs):
        self.left -= 1
        if self.left < 0:
            raise Death


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("method", FEW, ids=lambda method: method.__name__)
def test_killed_training_resumes(method, X, y, tmp_path):
    settings = {**CUDA, "epochs": 2}
    with pytest.raises(Death):
        quick(method, **settings, checkpoint=tmp_path, checkpoint_every="1 us", callbacks=[DiesAt(3)]).fit(X, y)
    resumed = quick(method, **settings, checkpoint=tmp_path).fit(X, y)
    assert_same_bits(resumed, quick(method, **settings).fit(X, y), X)


def test_estimator_saved_on_cuda_loads_on_a_cpu(X, tmp_path):
    estimator = quick(skssl.SimCLR, **CUDA).fit(X)
    estimator.save(tmp_path / "saved")
    np.save(tmp_path / "X.npy", X)
    script = (
        "import sys, warnings; warnings.simplefilter('ignore'); import numpy, skssl, torch\n"
        "assert not torch.cuda.is_available()\n"
        "loaded, X = skssl.load(sys.argv[1] + '/saved'), numpy.load(sys.argv[1] + '/X.npy')\n"
        "numpy.save(sys.argv[1] + '/features.npy', loaded.transform(X))\n"
        "loaded.partial_fit(X)\n"
    )
    root = Path(__file__).parents[1]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert difference(np.load(tmp_path / "features.npy"), estimator.transform(X)) < 1e-3


@pytest.mark.parametrize("name", ["simclr", "byol", "simsiam", "moco", "gsg-cifar10", "rotnet", "none"])
def test_compiled_views_equal_eager_views_on_cuda(name, X):
    images = torch.from_numpy(np.array(X)).permute(0, 3, 1, 2).cuda()
    for augment in preset(name, 16):
        eager, compiled = (
            augment(images, torch.Generator("cuda").manual_seed(0), compile=compile) for compile in (False, True)
        )
        torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-4)


class NoWaits(Callback):
    """Lets nothing wait for the device from the end of the first step to that of an epoch's last."""

    def __init__(self, steps):
        self.steps, self.done = steps, 0

    def on_batch_end(self, net, **kwargs):
        self.done += 1
        torch.cuda.set_sync_debug_mode("error" if self.done < self.steps else "default")


def test_no_step_waits_for_the_device(method, X, y):
    try:
        quick(method, **CUDA, batch_size=8, callbacks=[NoWaits(len(X) // 8)]).fit(X, y)
    finally:
        torch.cuda.set_sync_debug_mode("default")


class Graphs(Callback):
    """Counts how many graphs have been compiled by the end of each epoch."""

    def initialize(self):
        self.counts = []
        return self

    def on_epoch_end(self, net, **kwargs):
        self.counts.append(counters["stats"]["unique_graphs"])


@pytest.mark.parametrize(
    ("method", "backend"),
    [*((method, "aot_eager") for method in QUICK), *((method, "inductor") for method in FEW[:3])],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_nothing_is_compiled_after_the_first_epoch(method, backend, X, y, monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    graphs, own = Graphs(), {skssl.SwAV: {"queue_length": 0}}  # a queue that fills is another step from then on
    settings = {**CUDA, "compile": True, "epochs": 3, "callbacks": [graphs], **own.get(method, {})}
    estimator = quick(method, **settings).fit(X, y)
    estimator.partial_fit(X, y)
    assert estimator.net_.compiled, "it has fallen back"
    assert graphs.counts[0] > 0
    assert graphs.counts == graphs.counts[:1] * 4


@pytest.mark.parametrize(
    ("method", "params"),
    [
        # In steps of eight images at DCL's rate, rounding grows.
        *((method, {"lr": 0.01} if method is skssl.DCL else {}) for method in QUICK),
        (skssl.SimCLR, {"optimizer": "adamw", "lr": 1e-3}),
        (skssl.SimSiam, {"aux": "rotation"}),
        (skssl.SimCLR, {"aux": "jigsaw"}),
        (skssl.ContextEncoder, {"adversarial_weight": 0.1}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "-".join(map(str, value.values())),
)
def test_step_as_cuda_graph_equals_eager_step(method, params, X, y, monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    replays = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda self: (replays.append(self), replay(self))[1])
    settings = {**CUDA, "compile": True, "epochs": 3, "batch_size": 8, **params}
    monkeypatch.setattr(Trainer, "_graphs", False)
    plain = quick(method, **settings).fit(X, y)
    assert not replays
    monkeypatch.setattr(Trainer, "_graphs", True)
    graphed = quick(method, **settings).fit(X, y)
    if can_record(graphed.net_.optimizer_, "cuda") and graphed.weight_decay_end is None:
        assert len(replays) >= 10 - 3, f"of 15 steps {len(replays)} were replayed"
    else:
        assert not replays
    assert_close(graphed, plain, X, tolerance=1e-2)


def test_tf32_is_allowed_in_training_only(X):
    class Seen(Callback):
        def on_batch_end(self, net, **kwargs):
            seen.append(torch.get_float32_matmul_precision())

    seen = []
    for precision, expected in (("auto", "high"), ("float32", "highest")):
        quick(skssl.SimCLR, device="cuda", precision=precision, callbacks=[Seen()]).fit(X)
        assert set(seen) == {expected}
        assert torch.get_float32_matmul_precision() == "highest"
        seen.clear()


def test_long_trainings_are_compiled(X, monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    for from_steps, expected in ((2, True), (3, False)):
        monkeypatch.setattr(skssl.training.trainer, "COMPILED_FROM", from_steps)
        assert quick(skssl.SimCLR, device="cuda", epochs=1).fit(X).net_.compiled is expected


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("method", [skssl.SimCLR, skssl.BYOL, skssl.DINO], ids=lambda method: method.__name__)
def test_killed_training_with_cuda_graphs_resumes(method, X, y, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    settings = {**CUDA, "compile": True, "epochs": 3, "batch_size": 8}
    set_learning_rate, left = Trainer.set_learning_rate, [9]

    def dying(self, *where):
        left[0] -= 1
        if left[0] < 0:
            raise Death
        set_learning_rate(self, *where)

    doomed = quick(method, **settings, checkpoint=tmp_path, checkpoint_every="1 us")
    with monkeypatch.context() as dangerous:
        dangerous.setattr(Trainer, "set_learning_rate", dying)
        with pytest.raises(Death):
            doomed.fit(X, y)
    resumed = quick(method, **settings, checkpoint=tmp_path).fit(X, y)
    assert_same_bits(resumed, quick(method, **settings).fit(X, y), X)
