"""Several processes train as one does: gradients, buffers, weights. By gloo, in a pair of processes that stays."""

import os
import subprocess
import sys
import traceback
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import QUICK, quick
from torch import distributed as dist
from torch import multiprocessing, nn

import skssl
from skssl import distributed
from skssl.datasets import make_shapes
from skssl.engine import Batch, ImageLoader
from skssl.images import as_images
from skssl.pretext import Rotation

N = 28  # images a batch; a process's half is a number that no other axis has


def attend(rank, file, calls, answers):
    """Join, and do what is asked for until nothing is."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    for function, arguments in iter(calls.get, None):
        try:
            answers.put((function(**arguments), None))
        except Exception:
            answers.put((None, traceback.format_exc()))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Call a function in both of two processes."""
    context = multiprocessing.get_context("spawn")
    file = tmp_path_factory.mktemp("group") / "store"
    queues = [(context.SimpleQueue(), context.SimpleQueue()) for _ in range(2)]
    processes = [context.Process(target=attend, args=(rank, file, *queues[rank]), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()

    def call(function, **arguments):
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
    """Let a draw for a process's n images be its share of the draw for all of them."""

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


def step(method, params, aux=None):
    """Take a step in float64 without an optimiser; return the loss, all gradients and all buffers."""
    X, y = make_shapes(40, image_size=16, random_state=0)
    trainer = quick(method, **{"precision": "float32", "device": "cpu", "aux": aux, **params})._make_trainer(
        images := as_images(X)
    )
    net = trainer.module_.double().train()
    for part in net.modules():  # crops that a task makes itself are in float32
        part.register_forward_pre_hook(lambda part, args: tuple(x.double() if torch.is_tensor(x) else x for x in args))
    draw = torch.Generator().manual_seed(0)
    index = torch.randperm(40, generator=draw)[:N]
    views = torch.randn(len(trainer.augmentations), N, 3, 16, 16, generator=draw, dtype=torch.float64)
    target = torch.from_numpy(np.unique(y, return_inverse=True)[1])
    share = distributed.share
    local = Batch(
        share(images.read(index)), [share(view) for view in views], share(index), share(target[index]), None
    )
    everything = torch.randn(40, 3, 16, 16, generator=draw, dtype=torch.float64)
    torch.manual_seed(0)
    hooks = net.method

    def encode(module):
        with skssl.nn.evaluating(module), torch.no_grad():
            return module(everything)

    hooks.before_epoch(net, 0, encode)
    torch.manual_seed(0)
    network = distributed.parallel(net)
    losses = []
    for _ in range(2):  # the second with what the first has left in queues, banks and centres
        net.zero_grad()
        with distributed.synchronized(net), shared_draws(N // distributed.n_processes()):
            numbers = network(local)
        numbers["loss"].backward()
        hooks.after_backward(net)
        hooks.after_step(net, 0.5)
        losses.append(distributed.average(numbers["loss"].detach()))
    assert not any(isinstance(part, nn.SyncBatchNorm) for part in net.modules())
    found = {f"gradient of {name}": p.grad for name, p in net.named_parameters() if p.grad is not None}
    found |= {name: value.clone() for name, value in net.named_buffers()}
    return {"loss": torch.stack(losses), **found}


def assert_same(one, two, tolerance=1e-9):
    """Compare, norm by norm."""
    assert one.keys() == two.keys()
    assert any(name.startswith("gradient") for name in one)
    # What is zero but for rounding, as a shift's gradient where BatchNorm follows, is compared with what is not.
    largest = max(value.norm() for name, value in one.items() if name.startswith("gradient"))
    for name, value in one.items():
        floor = 1e-3 * largest if name.startswith("gradient") else 1e-3
        difference = (value.double() - two[name].double()).norm() / value.double().norm().clamp(min=floor)
        assert difference < tolerance or value.isnan().all(), f"{name}: {difference:.2g}"


CASES = {method.__name__: (method, params) for method, params in QUICK.items() if method is not skssl.PIRL} | {
    "SimCLR without false negatives": (skssl.SimCLR, {"false_negatives": "remove"}),
    "SimSiam, reverse": (skssl.SimSiam, {"stop_gradient": "reverse", **QUICK[skssl.SimSiam]}),
    "MoCo, plain BatchNorm, symmetric": (skssl.MoCo, {"bn_splits": 1, "symmetric": True}),
    "LeOCLR, end to end": (skssl.LeOCLR, {"encoder": "end-to-end"}),
    "PCL with clusters": (skssl.PCL, {**QUICK[skssl.PCL], "instance_epochs": 0}),
    "InstDisc, softmax": (skssl.InstDisc, {"loss": "softmax"}),
    "InstDisc, first": (skssl.InstDisc, {"n_negatives": 16, "normalizer": "first"}),
    "RotationDecoupling, nt_xent": (skssl.RotationDecoupling, {"loss": "nt_xent"}),
    "SimCLR and tasks": (skssl.SimCLR, {"aux": ["rotation", "jigsaw", "relative_patch", "colorization", "inpainting"]}),
    "SimCLR and rotation, sup_con": (skssl.SimCLR, {"aux": Rotation(loss="sup_con")}),
    "SwAV, frozen": (skssl.SwAV, {**QUICK[skssl.SwAV], "freeze_prototypes": 1}),
    "DINO, frozen": (skssl.DINO, {**QUICK[skssl.DINO], "freeze_last_layer": 1}),
}


@pytest.mark.parametrize("case", CASES)
def test_two_halves_have_the_gradient_of_the_whole(case, both):
    method, params = CASES[case]
    first, second = both(step, method=method, params=params)
    assert_same(step(method, params), first)
    assert all(torch.equal(value, second[name]) or value.isnan().all() for name, value in first.items())
