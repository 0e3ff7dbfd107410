"""Profile of a training step of SimCLR on one batch, and the time of its views.

Parts are sums of the self times of operations, in milliseconds per step of 256 images. *memory as ever* is the step
without `keeping_memory`; *compiled* is the step with ``compile=True``.

    python -m benchmarks profile [--backbones convnet resnet18] [--steps 10] [--device auto]
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile

import skssl.training.trainer
from benchmarks.processes import run_in_process
from benchmarks.record import record
from benchmarks.throughput import BATCH, random_images
from skssl import SimCLR
from skssl.images import as_images
from skssl.training.devices import resolve_device

#: Parts of a step by substrings of the names of operations; the first match counts.
PARTS = {
    "compiled": ("CompiledFxGraph", "triton"),
    "convolutions": ("conv", "Conv", "gemm", "cutlass"),
    "BatchNorm": ("batch_norm", "batchnorm", "BatchNorm", "bn_"),
    "ReLU and sums": ("clamp_min", "threshold", "relu", "Relu", "add_"),
    "optimiser": ("sgd", "SGD", "multi_tensor"),
}
KINDS = [("memory as ever", False, False), ("eager", False, True), ("compiled", True, True)]  # compiled, memory kept


def shares(step: Callable[[], Any], steps: int, device: torch.device) -> dict[str, float]:
    """Profile some steps; return the milliseconds per step of each part."""
    for _ in range(2):
        step()
    kinds = [ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU]
    with profile(activities=kinds) as seen:
        for _ in range(steps):
            step()
    found = dict.fromkeys([*PARTS, "all else"], 0.0)
    for event in seen.key_averages():
        part = next((part for part, names in PARTS.items() if any(name in event.key for name in names)), "all else")
        spent = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        found[part] += spent / steps / 1000
    return found


def run(backbone: str, device: torch.device, steps: int, *, compiled: bool, keep: bool) -> dict[str, float]:
    """Profile a step in this process, which must be fresh since glibc adapts its thresholds."""
    if keep:
        return profile_step(backbone, device, steps, compiled=compiled)
    with mock.patch.object(skssl.training.trainer, "keeping_memory", contextlib.nullcontext):
        return profile_step(backbone, device, steps, compiled=compiled)


def profile_step(backbone: str, device: torch.device, steps: int, *, compiled: bool) -> dict[str, float]:
    """Return the milliseconds of the views and of the parts of a step."""
    pixels, _ = random_images(1)
    shared = {"backbone": backbone, "batch_size": BATCH, "device": str(device), "random_state": 0}
    net = SimCLR(**shared, epochs=1, compile=compiled).fit(pixels).net_
    loader = net.get_iterator((as_images(pixels).to(device), None), training=True)
    order, draws = net.generators(0)
    net.module_.train()
    with skssl.training.trainer.keeping_memory():
        batch = next(iter(loader.epoch(order, draws)))
        begun = time.perf_counter()
        for _ in range(10):
            loader.views(batch.images, draws, batch.index)
        if device.type == "cuda":
            torch.cuda.synchronize()
        views = (time.perf_counter() - begun) * 100

        def step() -> None:
            net.optimizer_.zero_grad()
            net.infer(batch)["loss"].backward()
            net.optimizer_.step()

        return {"views": views, **shares(step, steps, device)}


def main() -> None:
    """Profile each kind of step, and record the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["convnet", "resnet18"])
    parser.add_argument("--steps", type=int, default=None, help="default: 10 for convnet, 2 for others on a CPU")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    for backbone in arguments.backbones:
        steps = arguments.steps or (10 if backbone == "convnet" or device.type != "cpu" else 2)
        rows = []
        for name, compiled, keep in KINDS:
            found = run_in_process(run, backbone, device, steps, compiled=compiled, keep=keep)
            rows.append({"backbone": backbone, "step": name, **found})
        record("profile", rows)


if __name__ == "__main__":
    main()
