"""Distributed training: two processes have the gradients, buffers and weights of one, by gloo."""

import contextlib
import os
import subprocess
import sys
import traceback
import warnings
import weakref
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import CLIP_METHODS, QUICK, quick
from helpers import random_corners
from PIL import Image
from torch import distributed as dist
from torch import multiprocessing, nn

import skssl
from skssl.augment import Augmentation
from skssl.backbones import ViT
from skssl.callbacks import GradientSNR
from skssl.datasets import make_shapes
from skssl.images import Clips, as_images
from skssl.methods import ibot
from skssl.nn import accumulation, batchnorm, distributed
from skssl.nn.batchnorm import run_with_split_batchnorm
from skssl.pretext import ColorizationTask, Rotation
from skssl.training.loader import ImageLoader
from skssl.training.objective import Batch

N = 28  # images per batch; no other axis has the size of a process's half, 14


def attend(rank, file, calls, answers):
    """Join the process group and call the functions of a queue until it yields None."""
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    for function, arguments in iter(calls.get, None):
        try:
            answers.put((function(**arguments), None))
        except Exception:
            answers.put((None, traceback.format_exc()))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Return a function that calls another in each of two processes."""
    context = multiprocessing.get_context("spawn")
    file = tmp_path_factory.mktemp("group") / "store"
    queues = [(context.SimpleQueue(), context.SimpleQueue()) for _ in range(2)]
    processes = [context.Process(target=attend, args=(rank, file, *queues[rank]), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()

    def call(function, /, **arguments):
        for calls, _ in queues:
            calls.put((function, arguments))
        found = [answers.get() for _, answers in queues]
        for _, error in found:
            assert error is None, error
        return [result for result, _ in found]

    yield call
    for calls, _ in queues:
        calls.put(None)
    for process in processes:
        process.join(10)


def shared_draws(n):
    """Make random draws for a process's n images equal to its rows of the draws for all images."""

    def sharing(draw):
        def drawn(*args, **kwargs):
            shape = next((a for a in args if isinstance(a, tuple | torch.Size)), args)
            axis = next((axis for axis, size in enumerate(shape) if size == n), None)
            if axis is None or distributed.n_processes() == 1:
                return draw(*args, **kwargs)
            of_all = tuple(2 * size if i == axis else size for i, size in enumerate(shape))
            args = of_all if shape is args else tuple(of_all if a is shape else a for a in args)
            return draw(*args, **kwargs).chunk(2, axis)[dist.get_rank()]

        return drawn

    def rand_like(x):
        return torch.rand(x.shape, dtype=x.dtype)

    patches = {name: sharing(getattr(torch, name)) for name in ("rand", "randint")}
    return mock.patch.multiple(torch, rand_like=rand_like, **patches)


def embed_views(self, net, batch):
    """Replace PIRL's tiles, as their augmentation draws for the whole batch."""
    return net.tiles_projector(net.tile_projector(net.encoder(batch.views[0].flip(3))).repeat(1, 9))


def mask_one_view(shape, n_patches, *others):
    """Replace IBOT's draw of how many patches are masked, which is over all views of a process."""
    sizes = torch.tensor([5, 0])[:, None].expand(shape)
    return sizes, int(sizes.sum())


@contextlib.contextmanager
def stand_ins():
    """Disable augmentation and mask sizes within losses, and keep float64 where losses convert to float32."""
    still = Augmentation(crop_scale=None, flip=0.0, jitter=0.0, gray=0.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    narrow = torch.Tensor.float
    with (
        mock.patch.object(skssl.PIRL, "_embed_tiles", embed_views),
        mock.patch.object(ColorizationTask, "_augment", still),
        mock.patch.object(ibot, "random_mask_sizes", mask_one_view),
        mock.patch.object(torch.Tensor, "float", lambda x: x if x.dtype == torch.float64 else narrow(x)),
    ):
        yield


def widened(x):
    """Return a tensor of floats in float64, and anything else unchanged."""
    return x.double() if torch.is_tensor(x) and x.is_floating_point() else x


def step(method, params, aux=None):
    """Compute the losses of two batches in float64; return them, the last gradients and all buffers."""
    X, y = make_shapes(40, image_size=16, random_state=0)
    images = as_images(X)
    trainer = quick(method, **{"precision": "float32", "device": "cpu", "aux": aux, **params})._make_trainer(
        Clips(images, 5) if method in CLIP_METHODS else images
    )
    net = trainer.module_.double().train()
    for part in net.modules():  # crops that a task makes are in float32
        part.register_forward_pre_hook(lambda part, args: tuple(map(widened, args)))
    draw = torch.Generator().manual_seed(0)
    index = torch.randperm(40, generator=draw)[:N]
    views = torch.randn(len(trainer.augmentations), N, 3, 16, 16, generator=draw, dtype=torch.float64)
    target = torch.from_numpy(np.unique(y, return_inverse=True)[1])
    share = distributed.local_rows
    made = {
        "frames": torch.stack([torch.randperm(5, generator=draw)[: len(views)] for _ in range(N)]),
        "sounds": torch.randn(N, 1, 33, 12, generator=draw, dtype=torch.float64),
    }
    made = {name: share(rows) for name, rows in made.items()} if method in CLIP_METHODS else {}
    shares = [share(view) for view in views]
    corners = [share(of) for of in random_corners(len(views), N)] if net.reads_corners else None
    local = Batch(share(images.read(index)), shares, share(index), share(target[index]), None, made, corners)
    everything = torch.randn(40, 3, 16, 16, generator=draw, dtype=torch.float64)
    torch.manual_seed(0)
    hooks = net.method

    def encode(module):
        with skssl.nn.inference.eval_mode(module), torch.no_grad():
            return module(everything)

    hooks.before_epoch(net, 0, encode)
    network = distributed.wrap_ddp(net)
    losses = []
    for seed in range(2):  # the second uses the queues, banks and centres of the first
        torch.manual_seed(seed)
        net.zero_grad()
        shared = shared_draws(N // distributed.n_processes())
        with batchnorm.sync_batchnorm(net), shared, stand_ins(), trainer.in_parts():
            numbers = network(local)
        numbers["loss"].backward()
        hooks.after_backward(net)
        hooks.after_step(net, seed, 0.5)
        losses.append(distributed.all_reduce_mean(numbers["loss"].detach()))
    assert not any(isinstance(part, nn.SyncBatchNorm) for part in net.modules())
    found = {f"gradient of {name}": p.grad for name, p in net.named_parameters() if p.grad is not None}
    found |= {name: value.clone() for name, value in net.named_buffers()}
    return {"loss": torch.stack(losses), **found}


def assert_same(one, two, tolerance=1e-9):
    """Compare gradients and buffers by the norms of their differences."""
    assert one.keys() == two.keys()
    assert any(name.startswith("gradient") for name in one)
    # Gradients that are zero up to rounding, as of a bias before BatchNorm, are compared with the largest gradient.
    largest = max(value.norm() for name, value in one.items() if name.startswith("gradient"))
    for name, value in one.items():
        floor = 1e-3 * largest if name.startswith("gradient") else 1e-3
        difference = (value.double() - two[name].double()).norm() / value.double().norm().clamp(min=floor)
        assert difference < tolerance or value.isnan().all(), f"{name}: {difference:.2g}"


CASES = {method.__name__: (method, params) for method, params in {**QUICK, **CLIP_METHODS}.items()} | {
    "ShuffleAndLearn, sort": (skssl.ShuffleAndLearn, {"frame_order": "sort"}),
    "AudioVisual, distance": (skssl.AudioVisual, {"fusion": "distance"}),
    "SimCLR without false negatives": (skssl.SimCLR, {"false_negatives": "remove"}),
    "SimSiamGSG, reverse": (skssl.SimSiamGSG, {"stop_gradient": "reverse", **QUICK[skssl.SimSiamGSG]}),
    "MoCo, plain BatchNorm, symmetric": (skssl.MoCo, {"bn_splits": 1, "symmetric": True}),
    "LeOCLR, end to end": (skssl.LeOCLR, {"encoder": "end-to-end"}),
    "PCL with clusters": (skssl.PCL, {**QUICK[skssl.PCL], "instance_epochs": 0}),
    "InstDisc, softmax": (skssl.InstDisc, {"loss": "softmax"}),
    "InstDisc, first": (skssl.InstDisc, {"n_negatives": 16, "normalizer": "first"}),
    "RotationDecoupling, nt_xent": (skssl.RotationDecoupling, {"loss": "nt_xent"}),
    "SimCLR and tasks": (skssl.SimCLR, {"aux": ["rotation", "jigsaw", "relative_patch", "inpainting", "colorization"]}),
    "SimCLR and rotation, sup_con": (skssl.SimCLR, {"aux": Rotation(loss="sup_con")}),
    "SwAV, frozen": (skssl.SwAV, {**QUICK[skssl.SwAV], "freeze_prototypes": 1}),
    "DINO, frozen": (skssl.DINO, {**QUICK[skssl.DINO], "freeze_last_layer": 1}),
    "MSN, masked patches": (skssl.MSN, {**QUICK[skssl.MSN], "backbone": ViT("micro"), "mask_ratio": 0.5}),
    "IBOT, sinkhorn": (skssl.IBOT, {**QUICK[skssl.IBOT], "centering": "sinkhorn"}),
    "SpotArtifacts, the autoencoder": (skssl.SpotArtifacts, {"pretrain_epochs": 1, "width": 4}),
    "ContextEncoder, adversarial": (skssl.ContextEncoder, {"hidden_dim": 8, "adversarial_weight": 0.1}),
}


PLAIN = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
CASES["SimCLR in parts"] = skssl.SimCLR, {"backbone": PLAIN, "accumulate": 4, "aux": "rotation"}
CASES["MoCo in parts"] = skssl.MoCo, {"backbone": PLAIN, "accumulate": 4, "bn_splits": 2}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_have_the_gradients_and_buffers_of_one(case, both):
    method, params = CASES[case]
    first, second = both(step, method=method, params=params)
    assert_same(step(method, params), first)
    assert all(torch.equal(value, second[name]) or value.isnan().all() for name, value in first.items())


def step_with_one_pass(method, params):
    """Take the same step, but keep the activations of all parts."""
    with mock.patch.object(accumulation, "checkpoint", lambda function, *args, **kwargs: function(*args)):
        return step(method, params)


@pytest.mark.parametrize("method", [skssl.SimCLR, skssl.MoCo])
def test_the_second_pass_of_each_part_shares_the_statistics_of_batchnorm(method, both):
    arguments = {"method": method, "params": {**QUICK[method], "accumulate": 3}}
    for parts, whole in zip(both(step, **arguments), both(step_with_one_pass, **arguments), strict=True):
        assert_same(whole, parts)


def test_the_comparison_detects_a_small_difference(both):
    one, (two, _) = step(skssl.SimCLR, {}), both(step, method=skssl.SimCLR, params={"temperature": 0.2 + 1e-7})
    with pytest.raises(AssertionError):
        assert_same(one, two)


def batch_norm(shape, groups, momentum):
    """Normalise seeded rows, and return the output, the gradients and the running statistics, all in float64."""
    draw = torch.Generator().manual_seed(0)
    x, weigh = 5 + torch.randn(2, *shape, generator=draw, dtype=torch.float64)
    kind = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    layer = kind(shape[1], momentum=momentum, affine=momentum != 0.3).double()
    x, weigh = distributed.local_rows(x).requires_grad_(), distributed.local_rows(weigh)
    with batchnorm.sync_batchnorm(layer):
        if groups:
            if distributed.n_processes() == 1:
                y = torch.cat([layer(part) for half in x.chunk(2) for part in half.tensor_split(groups // 2)])
            else:
                (y,) = run_with_split_batchnorm(lambda part: (layer(part),), [layer], x, groups // 2)
        else:
            y = layer(x)
    (y * weigh).sum().backward()
    grads = [x.grad, *[p.grad for p in layer.parameters()]]
    return [y.detach(), *grads, *[b.double() for b in layer.buffers()]]


@pytest.mark.parametrize(
    ("momentum", "groups"), [(0.1, 0), (0.3, 0), (None, 0), (0.1, 4), (0.3, 4), (None, 4), (0.1, 6)]
)
@pytest.mark.parametrize("shape", [(16, 3, 2, 2), (16, 5)])
def test_sync_and_split_batchnorm_match_one_process(shape, momentum, groups, both):
    arguments = {"shape": shape, "groups": groups, "momentum": momentum}
    whole, (first, second) = batch_norm(**arguments), both(batch_norm, **arguments)
    affine = momentum != 0.3
    for i, (a, b, c) in enumerate(zip(whole, first, second, strict=True)):
        of_both = torch.cat([b, c]) if i < 2 else b + c if affine and i < 4 else b
        torch.testing.assert_close(of_both, a, rtol=1e-11, atol=1e-11)


def precision_of_batch_norm():
    layer = nn.BatchNorm2d(3)
    with batchnorm.sync_batchnorm(layer):
        y = layer(torch.randn(4, 3, 2, 2).bfloat16())
        z = layer.eval()(torch.randn(1, 3, 2, 2))
    return y.dtype, layer.running_mean.dtype, z.shape


def test_sync_batchnorm_keeps_dtypes_and_evaluates_without_communication(both):
    assert both(precision_of_batch_norm) == [(torch.bfloat16, torch.float32, (1, 3, 2, 2))] * 2


def shares(n_images, batch_size, chosen=None):
    images = as_images(np.zeros((n_images, 4, 4, 3), np.uint8))
    loader = ImageLoader(images, batch_size, [], torch.device("cpu"))
    order, draws = torch.Generator().manual_seed(3), torch.Generator()
    return [batch.index for batch in loader.epoch(order, draws, chosen)]


def test_rows_of_two_processes_concatenate_to_the_batch(both):
    for arguments in ({"n_images": 50, "batch_size": 16}, {"n_images": 10, "batch_size": 16}):
        for whole, *halves in zip(shares(**arguments), *both(shares, **arguments), strict=True):
            assert torch.equal(torch.cat(halves), whole)
    assert [len(index) for index in both(shares, n_images=11, batch_size=16)[0]] == [5], "equally many rows in each"


class Pictures(torch.utils.data.Dataset):
    """A data set of PIL images."""

    def __init__(self, files):
        self.files = files

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        return Image.open(self.files[i]), 0


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Files of several sizes, and a data set of the same pictures."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    files = [str(folder / f"{i}.png") for i in range(9)]
    for i, file in enumerate(files):
        Image.fromarray(rng.integers(0, 256, (10 + i, 20, 3), dtype=np.uint8)).save(file)
    return {"files": files, "data set": Pictures(files)}


def cropped(X):
    images = as_images(X, (8, 8))
    loader = ImageLoader(images, 4, [Augmentation(size=8, jitter=0.0, gray=0.0, flip=0.0)] * 2, torch.device("cpu"))
    epoch = loader.epoch(torch.Generator().manual_seed(3), torch.Generator())
    return [(batch.index, *batch.views, batch.images) for batch in epoch]


@pytest.mark.parametrize("kind", ["files", "data set"])
def test_two_processes_crop_photographs_as_one_does(kind, both, photographs):
    for whole, *halves in zip(cropped(photographs["files"]), *both(cropped, X=photographs[kind]), strict=True):
        for tensor, *parts in zip(whole, *halves, strict=True):
            assert torch.equal(torch.cat(parts), tensor)


def test_two_processes_train_on_photographs(both, photographs):
    params = {"method": skssl.SimCLR, "image_shape": (8, 8), "batch_size": 4, "further": False}
    results = [result for X in photographs.values() for result in both(fit, X=X, **params)]
    state, history, features = results[0]
    for other_state, other_history, other_features in results[1:]:
        assert all(torch.equal(value, other_state[name]) for name, value in state.items())
        assert history.equals(other_history)
        np.testing.assert_array_equal(features, other_features)


def refused(function, arguments):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        function(**arguments)
    return str(caught.value)


def fit(method, X, y=None, further=True, **params):
    estimator = quick(method, device="cpu", **params).fit(X, y)
    if further:
        estimator.partial_fit(X, y)
    state = {name: value.clone() for name, value in estimator.net_.module_.state_dict().items()}
    return state, estimator.history_.drop(columns="images_per_second"), estimator.transform(X)


def test_batches_and_splits_that_are_no_multiple_of_the_processes_are_rejected(both):
    assert (
        "counts the images of all processes together, so it must be a multiple of their number, 2. Got 15."
        in both(refused, function=shares, arguments={"n_images": 50, "batch_size": 15})[0]
    )
    X = np.zeros((40, 16, 16, 3), np.uint8)
    message = both(refused, function=fit, arguments={"method": skssl.MoCo, "X": X, "bn_splits": 3})[1]
    assert "must be 1 or a multiple of the number of processes, 2. Got 3" in message


@pytest.mark.parametrize("name", ["SimSiamGSG", "DeepCluster", "DeepClusterV2", "PCL", "PIRL", "DINO", "SpotArtifacts"])
def test_processes_end_with_the_same_network_and_history(name, both, X):
    phases = {"DINO": {"freeze_last_layer": 1}, "PCL": {"instance_epochs": 1}, "SpotArtifacts": {"pretrain_epochs": 1}}
    params = phases.get(name, {})
    (state, history, features), (other, others, others_features) = both(
        fit, method=getattr(skssl, name), X=X, random_state=None, aux="rotation", **params
    )
    assert state.keys() == other.keys()
    assert all(torch.equal(value, other[name]) or value.isnan().all() for name, value in state.items())
    assert history.equals(others)
    assert len(history) == 2
    np.testing.assert_array_equal(features, others_features)
    alone = quick(getattr(skssl, name), aux="rotation", **params).fit(X).net_.module_.state_dict()
    assert state.keys() == alone.keys()
    if name == "DINO":
        assert not torch.equal(state["prototypes.weight"], alone["prototypes.weight"])
        assert torch.equal(state["prototypes.weight"], other["prototypes.weight"]), "unfrozen, and updated equally"


def draws_of_a_step(X):
    seen = []

    class Seeing(skssl.SimCLR):
        def losses(self, net, batch):
            seen.append((batch.index, batch.views[0], torch.rand(3)))
            return super().losses(net, batch)

    Seeing(backbone="convnet", epochs=1, batch_size=16, random_state=0, device="cpu").fit(np.repeat(X[:1], 40, axis=0))
    return seen


def test_processes_draw_different_random_numbers(both, X):
    for (index, view, drawn), (other, others_view, others_drawn) in zip(*both(draws_of_a_step, X=X), strict=True):
        assert not set(index.tolist()) & set(other.tolist())
        assert not torch.equal(view, others_view), "the images are equal"
        assert not torch.equal(drawn, others_drawn)


class Recording(GradientSNR):
    """A callback that writes no files and runs in every process."""


def written(X):
    from skorch.callbacks import Checkpoint, EarlyStopping, PrintLog

    lines = []
    files = dict.fromkeys(("f_params", "f_optimizer", "f_criterion", "f_history"))
    callbacks = [Checkpoint(monitor=None, **files), PrintLog(sink=lines.append)]
    estimator = quick(skssl.SimCLR, device="cpu", callbacks=[*callbacks, EarlyStopping("loss"), Recording()]).fit(X)
    return bool(lines), {type(callback).__name__ for _, callback in estimator.net_.callbacks_}


def test_only_the_main_process_writes(both, X):
    first, second = both(written, X=X)
    assert first == (True, {"Checkpoint", "EarlyStopping", "PrintLog", "Recording"})
    assert second == (False, {"EarlyStopping", "Recording"})


def dropped():
    layer = nn.Linear(2, 2)
    wrapped = distributed.wrap_ddp(layer)
    wrapped(torch.ones(1, 2)).sum().backward()
    gone = weakref.ref(wrapped)
    del wrapped
    return gone() is None


def test_the_ddp_wrapper_is_freed(both):
    assert both(dropped) == [True, True], "the hooks of an old wrapper would average the gradients again"


def compiled(X):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quick(skssl.SimCLR, compile=True, device="cpu").fit(X)
    return [str(warning.message) for warning in caught]


def test_compile_with_several_processes_warns_once(both, X):
    first, second = both(compiled, X=X)
    assert first == ["compile=True is for one process. Several processes train without it."]
    assert second == []


SCRIPT = """
import sys, warnings, joblib, torch
from skssl import FineTuner, SimCLR
from skssl.datasets import make_shapes
from skssl.nn.distributed import is_main_process, n_processes

warnings.simplefilter("error")
X, y = make_shapes(64, image_size=16, random_state=0)
encoder = SimCLR(backbone="convnet", epochs=2, batch_size=32, device="cpu", verbose=1).fit(X)
tuner = FineTuner(encoder, epochs=1, batch_size=32, device="cpu").fit(X, y)
assert n_processes() == 2
parts = [encoder.net_.module_, tuner.net_.module_]
torch.save([part.state_dict() for part in parts], f"{sys.argv[1]}/{torch.distributed.get_rank()}.pt")
if is_main_process():
    joblib.dump(encoder, f"{sys.argv[1]}/encoder.joblib")
"""


@pytest.mark.slow
def test_torchrun(tmp_path, X):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script, tmp_path]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Epoch 1/2:   0%") == 1, "one bar"
    states = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for one, other in zip(*states, strict=True):
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    import joblib

    encoder = joblib.load(tmp_path / "encoder.joblib")
    assert encoder.partial_fit(X).transform(X).shape == (40, 128), "training continues in one process"


DYING = """
import os, signal, sys
import torch
from conftest import quick
import skssl
from skorch.callbacks import Callback
from skssl.datasets import make_shapes

class Death(Callback):
    seen = 0

    def on_batch_begin(self, net, **kwargs):
        self.seen += 1
        if self.seen == 6 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)

X, _ = make_shapes(40, image_size=16, random_state=0)
folder, restarts, rank = sys.argv[1], os.environ["TORCHELASTIC_RESTART_COUNT"], os.environ["RANK"]
saving = {"checkpoint": folder + "/state", "checkpoint_every": 1, "callbacks": [Death()]}
encoder = quick(skssl.SwAV, epochs=4, device="cpu", **saving).fit(X)
torch.save(encoder.net_.module_.state_dict(), f"{folder}/{rank} after {restarts} restarts.pt")
"""


def lived():
    return fit(skssl.SwAV, make_shapes(40, image_size=16, random_state=0)[0], epochs=4, further=False)[0]


@pytest.mark.slow
def test_resume_after_a_worker_is_killed_is_bit_exact(tmp_path, both):
    script = tmp_path / "train.py"
    script.write_text(DYING)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, *command, script, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("SwAV: resuming from") == 1, "only the main process reports it"
    assert "after 2 epoch(s)." in done.stderr
    for rank, state in enumerate(both(lived)):
        died = torch.load(tmp_path / f"{rank} after 1 restarts.pt")
        assert all(torch.equal(value, died[name]) for name, value in state.items())


def test_child_processes_do_not_join_the_process_group(monkeypatch):
    joined = []
    monkeypatch.setattr(dist, "init_process_group", lambda *args, **kwargs: joined.append(args))
    monkeypatch.setattr("atexit.register", lambda function: None)
    distributed.init_process_group(torch.device("cpu"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with mock.patch("multiprocessing.parent_process", return_value=object()):
        distributed.init_process_group(torch.device("cpu"))
    assert joined == []
    distributed.init_process_group(torch.device("cpu"))
    assert joined == [("gloo",)]


def test_cuda_device_is_the_local_rank(monkeypatch):
    monkeypatch.setattr("skssl.training.devices._n_devices", lambda kind: 2)
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert (
            skssl.training.devices.resolve_device("auto")
            == skssl.training.devices.resolve_device("cuda")
            == torch.device("cuda", int(rank))
        )
    assert skssl.training.devices.resolve_device("cuda:0") == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="'cuda:2' is not available: torch finds 2"):
        skssl.training.devices.resolve_device("auto")
