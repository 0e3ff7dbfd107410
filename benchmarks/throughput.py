"""Training speed of `fit`, compared with a bare PyTorch loop and with lightly's and Kornia's loops if installed.

The runs of a comparison take turns in one process, and their ratios are reported, since the load of a shared machine
varies. The images are random; the speed does not depend on their content.

SimCLR is compared with the loops of `--against`. The methods of `--methods` are compared with their own passes instead:
forward pass, backward pass and optimiser step on the same prepared batch, without the views, momentum copies, queues
and records of `fit`. `--compile` uses ``compile=True`` in `fit`, against the same loops. `--transform` compares
`transform` with a plain float32 forward pass of the same network, each in a separate process.

    python -m benchmarks throughput [--backbones convnet resnet18] [--rounds 5] [--methods BYOL MoCo] [--device auto]
                                    [--against "bare loop" lightly kornia] [--compile] [--transform]
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from skorch.callbacks import Callback
from torch import nn

from benchmarks.methods import METHODS
from benchmarks.processes import run_in_process
from benchmarks.record import record
from skssl import SimCLR
from skssl.augment.normalization import IMAGENET_MEAN, IMAGENET_STD
from skssl.backbones import build_backbone
from skssl.losses import nt_xent
from skssl.nn.heads import MLP
from skssl.nn.precision import resolve_precision
from skssl.training.devices import keeping_memory, resolve_device

BATCH, SIDE = 256, 32


def random_images(batches: int, batch: int = BATCH, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Draw random images and classes for some batches."""
    n = batches * batch
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8), np.arange(n) % 10


def skssl_fit(method: Any, steps: int, side: int = SIDE) -> Callable[[], float]:
    """Return a function that fits, and returns the images per second of its history without the first epoch."""
    pixels, labels = random_images(steps, method.batch_size, side)

    def run() -> float:
        return method.fit(pixels, labels).history_["images_per_second"].iloc[1:].max()

    return run


def seconds_per_step(step: Callable[[Any], None], batches: Iterator[Any], steps: int, device: torch.device) -> float:
    """Return the seconds per step, the better of two measurements as for `fit`, after two warm-up steps."""
    for batch in itertools.islice(batches, 2):
        step(batch)
    best = float("inf")
    for _ in range(2):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for batch in itertools.islice(batches, steps):
            step(batch)
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best / steps


def own_passes(method: Any, steps: int, device: torch.device, side: int = SIDE) -> Callable[[], float]:
    """Return a function that times a method's own passes and optimiser steps on the same prepared batch.

    The method is fitted to as many images as in `fit`, so that queues and memory banks have the same size.
    """

    class LastBatch(Callback):
        def on_batch_begin(self, net: Any, batch: Any = None, training: Any = None, **kwargs: Any) -> None:
            self.batch = batch

    last = LastBatch()
    images = random_images(steps, method.batch_size, side)
    net = clone(method).set_params(epochs=1, callbacks=[last]).fit(*images).net_
    net.module_.train()

    def step(batch: Any) -> None:
        net.optimizer_.zero_grad()
        net.infer(batch)["loss"].backward()
        net.optimizer_.step()

    def run() -> float:
        with keeping_memory():  # as in `fit`
            return method.batch_size / seconds_per_step(step, itertools.repeat(last.batch), steps, device)

    return run


def plain_step(
    backbone: str, device: torch.device, side: int = SIDE, *, compile: bool = False
) -> Callable[[Any], None]:
    """Return a plain PyTorch step of SimCLR, from views to the optimiser step."""
    dtype = resolve_precision("auto", device, side)
    encoder, dim = build_backbone(backbone, (3, side, side))
    projector = MLP((dim, max(dim, 256), 128), output_norm=True, output_affine=True)
    net = nn.Sequential(encoder, projector).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.4, momentum=0.9, weight_decay=5e-4)

    def loss(views: list[torch.Tensor]) -> torch.Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            z1, z2 = net(torch.cat(views)).chunk(2)
        return nt_xent(z1, z2, 0.2)

    loss = torch.compile(loss, dynamic=False) if compile else loss

    def step(views: list[torch.Tensor]) -> None:
        optimizer.zero_grad()
        loss(views).backward()
        optimizer.step()

    return step


def bare_loop(
    backbone: str, steps: int, device: torch.device, batch: int = BATCH, side: int = SIDE, *, compile: bool = False
) -> Callable[[], float]:
    """Return a function that times a plain loop on the same prepared views."""
    step = plain_step(backbone, device, side, compile=compile)
    views = [
        torch.randn(batch, 3, side, side, device=device).contiguous(memory_format=torch.channels_last) for _ in range(2)
    ]
    return lambda: batch / seconds_per_step(step, itertools.repeat(views), steps, device)


def kornia_loop(
    backbone: str, steps: int, device: torch.device, batch: int = BATCH, side: int = SIDE
) -> Callable[[], float]:
    """Return a function that times a plain loop on views that Kornia makes on the device by batch."""
    import kornia.augmentation as K

    augment = nn.Sequential(
        K.RandomResizedCrop((side, side), scale=(0.08, 1.0)),
        K.RandomHorizontalFlip(),
        K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        K.RandomGrayscale(p=0.2),
        K.Normalize(torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)),
    ).to(device)
    step = plain_step(backbone, device, side)
    images = torch.from_numpy(random_images(steps, batch, side)[0]).permute(0, 3, 1, 2).to(device)

    def batches() -> Iterator[list[torch.Tensor]]:
        while True:
            for index in torch.randperm(len(images)).split(batch):
                chosen = images.index_select(0, index.to(device)).float() / 255
                yield [augment(chosen), augment(chosen)]

    return lambda: batch / seconds_per_step(step, batches(), steps, device)


def lightly_loop(
    backbone: str, steps: int, device: torch.device, batch: int = BATCH, side: int = SIDE, workers: int = 2
) -> Callable[[], float]:
    """Return a function that times lightly: its transform in worker processes, its head and its loss, in float32."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform
    from PIL import Image

    class Pixels(torch.utils.data.Dataset):
        def __init__(self) -> None:
            self.images, _ = random_images(2 + 2 * steps, batch, side)  # those of one run

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, i: int) -> list[torch.Tensor]:
            return transform(Image.fromarray(self.images[i]))

    transform = SimCLRTransform(input_size=side, gaussian_blur=0.0)
    loader = torch.utils.data.DataLoader(Pixels(), batch_size=batch, shuffle=True, num_workers=workers)
    encoder, dim = build_backbone(backbone, (3, side, side))
    net = nn.Sequential(encoder, SimCLRProjectionHead(dim, max(dim, 256), 128)).to(device)
    criterion, optimizer = NTXentLoss(temperature=0.2), torch.optim.SGD(net.parameters(), lr=0.06, momentum=0.9)

    def step(views: Any) -> None:
        x0, x1 = views
        optimizer.zero_grad()
        criterion(net(x0.to(device)), net(x1.to(device))).backward()
        optimizer.step()

    def run() -> float:
        batches = iter(loader)  # its workers end with this run
        return batch / seconds_per_step(step, batches, steps, device)

    return run


def skssl_transform(method: Any, steps: int) -> float:
    """Return the images per second of `transform`."""
    images, _ = random_images(4 * steps)
    method.fit(images[: 2 * BATCH]).transform(images)
    start = time.perf_counter()
    method.transform(images)
    return len(images) / (time.perf_counter() - start)


def plain_forward(backbone: str, steps: int, device: torch.device) -> float:
    """Return the images per second of a plain forward pass: float32, batches of 256, prepared input."""
    network = build_backbone(backbone, (3, SIDE, SIDE))[0].to(device).eval()
    batch = torch.randn(BATCH, 3, SIDE, SIDE, device=device)

    @torch.inference_mode()
    def step(batch: torch.Tensor) -> None:
        network(batch).cpu()

    return BATCH / seconds_per_step(step, itertools.repeat(batch), 4 * steps, device)


LOOPS = {"bare loop": bare_loop, "lightly": lightly_loop, "kornia": kornia_loop}


def compare(runs: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run each of the functions in turn; return their results by name."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(run())
    return found


def rows(method: str, backbone: str, found: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return a row for each loop, with the speed of the first, ours, relative to it."""
    made = []
    for name, rates in found.items():
        ratios = [ours / theirs for ours, theirs in zip(next(iter(found.values())), rates, strict=True)]
        made.append(
            {
                "method": method,
                "backbone": backbone,
                "loop": name,
                "images_per_second": statistics.median(rates),
                "fit_is_faster_by": statistics.median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
                "rounds": len(rates),
            }
        )
    return made


def main() -> None:
    """Run the comparisons and record them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="*", default=[], choices=METHODS, metavar="NAME")
    parser.add_argument("--backbones", nargs="+", default=["convnet", "resnet18"])
    parser.add_argument("--against", nargs="+", default=list(LOOPS), choices=LOOPS, metavar="LOOP")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=None, help="steps per run (default: 30 for convnet, 6 for others)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--transform", action="store_true")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    for backbone in arguments.backbones:
        steps = arguments.steps or (30 if backbone == "convnet" or device.type != "cpu" else 6)
        shared = {"backbone": backbone, "epochs": 3, "batch_size": BATCH, "random_state": 0, "device": str(device)}
        shared["compile"] = arguments.compile
        suffix = ", compiled" * arguments.compile
        if arguments.transform:
            # Separate processes, since a training adapts malloc's thresholds in favour of both.
            method = SimCLR(**{**shared, "epochs": 1})
            runs = {
                "fit": functools.partial(run_in_process, skssl_transform, method, steps),
                "plain forward": functools.partial(run_in_process, plain_forward, backbone, steps, device),
            }
            record("throughput", rows("SimCLR.transform", backbone, compare(runs, arguments.rounds)))
        elif not arguments.methods:
            runs = {"fit": skssl_fit(SimCLR(**shared), steps)}
            for name in arguments.against:
                try:
                    runs[name] = LOOPS[name](backbone, steps, device)
                except ImportError:
                    print(f"{name} is skipped, since it is not installed (pip install {name})")
            record("throughput", rows(f"SimCLR{suffix}", backbone, compare(runs, arguments.rounds)))
        for name in arguments.methods:
            method, params = METHODS[name]
            estimator = method(**{**params, **shared})
            runs = {"fit": skssl_fit(estimator, steps), "own passes": own_passes(estimator, steps, device)}
            record("throughput", rows(f"{name}{suffix}", backbone, compare(runs, arguments.rounds)))


if __name__ == "__main__":
    main()
