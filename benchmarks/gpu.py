"""All benchmarks for GPUs, the most important first, each part in a separate process with a time limit.

tests: the tests marked ``cuda``; throughput: SimCLR's `fit`, eager and compiled, and bare loops; graph: `fit` with each
step as one CUDA graph; methods: the images per second of every method; passes: methods and their own compiled passes;
others: Kornia, and lightly on all cores; race: ``benchmarks race``; tables: rows of ``benchmarks tables`` in the
remaining time. Images are random except for the race and the tables. Each measurement is a row of ``RESULTS/gpu.csv``,
and is skipped if the same commit has recorded it. The output of the parts is in ``RESULTS/tests.log`` and ``log.txt``.
The missed goals are printed at the end.

    python -m benchmarks gpu --minutes 8 --results FOLDER [--parts tests throughput ...] [--tiny]
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import skssl
from benchmarks import race, tables, throughput
from benchmarks.record import COMMIT, RESULTS, hardware, read, record, recorded
from skssl import methods
from skssl.augment import MultiCrop
from skssl.methods.clips import ClipMethod
from skssl.training.devices import resolve_device
from skssl.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
#: The share of the time that a part may take; the last one has all the remaining time.
PARTS = {
    "tests": 0.3,
    "throughput": 0.3,
    "graph": 0.15,
    "methods": 0.3,
    "passes": 0.3,
    "others": 0.1,
    "race": 0.6,
    "tables": 1.0,
}
SHARED = {"pairing": "shared"}
METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    **{
        name: (kind := getattr(methods, name), {} if kind.backbone == "resnet18" else {"backbone": kind.backbone})
        for name in ("SimCLR", "MoCo", "SimSiam", *methods.__all__)
        if not issubclass(getattr(methods, name), ClipMethod)
    },
    "SwAV, crops": (skssl.SwAV, {"augment": MultiCrop()}),
    "SimCLR + rotation": (skssl.SimCLR, {"aux": "rotation"}),
    "SimCLR + jigsaw": (skssl.SimCLR, {"aux": "jigsaw"}),
    "SimSiamGSG, shared": (skssl.SimSiamGSG, SHARED),
}


@dataclass
class Size:
    """The size of the runs."""

    backbone: str = "resnet18"
    side: int = 32
    batches: tuple[int, ...] = (512, 256)
    steps: int = 60
    method_batch: int = 256
    method_steps: int = 30
    epochs: int = 20
    rows: tuple[str, ...] = ("SimSiam, GSG's baseline", "SimSiamGSG", "SimCLR", "BYOL", "MoCo, symmetric")
    methods: tuple[str, ...] = tuple(METHODS)
    passes: tuple[str, ...] = ("SimSiam", "BYOL", "MoCo")
    race: tuple[str, ...] = ()


TINY = Size("convnet", 16, (8, 4), 2, 8, 2, 1, ("SimCLR",), ("SimCLR", "MoCo"), ("SimSiam",), ("--epochs", "1"))


def measure(results: Path, row: dict[str, Any], prepare: Callable[[], Callable[[], float]]) -> None:
    """Record a measurement or its error, unless this commit has recorded it."""
    if recorded("gpu", {**row, "error": "", "commit": COMMIT}, results):
        return
    started = time.perf_counter()
    found: dict[str, Any] = {"images_per_second": float("nan"), "error": ""}
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        found["images_per_second"] = prepare()()
    except ImportError as error:
        found["error"] = f"not installed: {error.name}"
    except Exception as error:  # recorded in the row
        found["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    found["seconds"] = time.perf_counter() - started  # includes the preparation, such as compiling
    found["gib"] = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else float("nan")
    record("gpu", [{**row, **found}], results)


def fit(method: Any, size: Size, steps: int, *, graph: bool = False) -> Callable[[], float]:
    """Return a function that fits, with or without CUDA graphs, and returns the images per second."""
    run = throughput.skssl_fit(method, steps, size.side)

    def run_with_setting() -> float:
        before, Trainer._graphs = Trainer._graphs, graph
        try:
            return run()
        finally:
            Trainer._graphs = before

    return run_with_setting


def make(name: str, size: Size, device: torch.device, batch: int, **params: Any) -> Any:
    """Return a method with its default sizes, those of the papers."""
    kind, own = METHODS[name]
    shared = {"backbone": size.backbone, "epochs": 3, "random_state": 0, "device": str(device), "compile": False}
    return kind(**{**shared, "batch_size": batch, **own, **params})


def run_tests(size: Size, device: torch.device, minutes: float, results: Path) -> None:
    """Run the tests marked ``cuda``, with a worker for most of the cores if pytest-xdist is installed."""
    workers = max(1, (os.cpu_count() or 1) - 4)
    several = ["-n", str(workers)] if device.type == "cuda" and importlib.util.find_spec("xdist") else []
    command = ["-m", "pytest", "-m", "cuda", "tests/test_cuda.py", *several]
    plugins = ["-p", "no:cacheprovider", "-p", "no:benchmark"]  # pytest-benchmark warns about workers
    options = ["-v", "-rfEs", "--tb=short", *plugins, "-o", "addopts=", "--durations=8"]
    options += ["-W", "default"]  # warnings of other packages are not errors
    threads = {"OMP_NUM_THREADS": "2", "TORCHINDUCTOR_COMPILE_THREADS": "4"}
    done = subprocess.run([sys.executable, *command, *options], cwd=ROOT, env={**os.environ, **threads}, check=False)
    print(f"pytest ended with {done.returncode}")


def run_throughput(size: Size, device: torch.device, minutes: float, results: Path) -> None:
    """Measure the training of SimCLR and bare loops."""
    for batch in size.batches:
        same = size.backbone, size.steps, device, batch, size.side
        row = {"part": "throughput", "method": "SimCLR", "batch": batch}
        for suffix, compile in ((", compiled", True), ("", False)):
            method = make("SimCLR", size, device, batch, compile=compile)
            loop = f"fit{suffix or ', eager'}"
            measure(results, {**row, "loop": loop}, functools.partial(fit, method, size, size.steps))
            bare = functools.partial(throughput.bare_loop, *same, compile=compile)
            measure(results, {**row, "loop": f"bare loop{suffix}"}, bare)


def run_graph(size: Size, device: torch.device, minutes: float, results: Path) -> None:
    """Measure the training of SimCLR with each step as one CUDA graph."""
    for batch in size.batches:
        method = make("SimCLR", size, device, batch, compile=True)
        row = {"part": "graph", "method": "SimCLR", "loop": "fit, graph", "batch": batch}
        measure(results, row, functools.partial(fit, method, size, size.steps, graph=True))


def run_others(size: Size, device: torch.device, minutes: float, results: Path) -> None:
    """Measure the loops of other libraries."""
    for batch in size.batches:
        row = {"part": "others", "method": "SimCLR", "batch": batch}
        same = device, batch, size.side
        kornia = functools.partial(throughput.kornia_loop, size.backbone, size.steps, *same)
        measure(results, {**row, "loop": "kornia"}, kornia)
        few, workers = max(size.steps // 4, 2), os.cpu_count() or 1
        lightly = functools.partial(throughput.lightly_loop, size.backbone, few, *same, workers)
        measure(results, {**row, "loop": "lightly"}, lightly)


def run_methods(size: Size, device: torch.device, minutes: float, results: Path) -> None:
    """Measure every method without compiling, which would take too long."""
    for name in size.methods:
        batch = size.method_batch
        method = make(name, size, device, batch)
        row = {"part": "methods", "method": name, "loop": "fit, eager", "batch": batch}
        measure(results, row, functools.partial(fit, method, size, size.method_steps))


def run_passes(size: Size, device: torch.device, minutes: float, results: Path) -> None:
    """Measure compiled methods and their own compiled passes on a prepared batch."""
    for name in size.passes:
        batch = size.batches[0]
        method = make(name, size, device, batch, compile=True)
        row = {"part": "passes", "method": name, "batch": batch}
        measure(results, {**row, "loop": "fit, graph"}, functools.partial(fit, method, size, size.steps, graph=True))
        passes = functools.partial(throughput.own_passes, method, size.steps, device, size.side)
        measure(results, {**row, "loop": "own passes, compiled"}, passes)


def run_race(size: Size, device: torch.device, minutes: float, results: Path) -> None:
    """Run the record of the track "GPU"."""
    sys.argv = ["race", "--track", "GPU", "--results", str(results), *size.race]
    race.main()


def run_tables(size: Size, device: torch.device, minutes: float, results: Path) -> None:
    """Run rows of the papers' tables."""
    options = ["--epochs", str(size.epochs), "--backbone", size.backbone, "--minutes", str(minutes)]
    state = Path("~/.cache/skssl/benchmarks/gpu").expanduser() / COMMIT.rstrip("+")
    sys.argv = ["tables", *size.rows, *options, "--results", str(results), "--state", str(state)]
    tables.main()


RUNS: dict[str, Callable[[Size, torch.device, float, Path], None]] = {
    "tests": run_tests,
    "throughput": run_throughput,
    "graph": run_graph,
    "methods": run_methods,
    "passes": run_passes,
    "others": run_others,
    "race": run_race,
    "tables": run_tables,
}


def shortfalls(table: pd.DataFrame, images: int = 50_000, epochs: int = 200) -> list[str]:
    """Return the missed goals and the failed measurements.

    The goals are for a ResNet-18 on an H200: SimCLR, compiled and as graphs, at 0.9 of the bare compiled loop, at 4
    times lightly, at 38,000 images/s in batches of 512 and 34,000 in batches of 256; SimSiam and BYOL at 0.9 of their
    own compiled passes; MoCo at half of SimCLR; 200 epochs of SimSiam on CIFAR-10 within 5 minutes.
    """
    keys = ["part", "method", "loop", "batch"]
    table = table.drop_duplicates(keys, keep="last")
    found: dict[tuple[Any, ...], float] = {}
    for row in table.to_dict("records"):
        found[tuple(row[key] for key in keys)] = float(row["images_per_second"])
    missed = [
        f"{row['method']}, {row['loop']}, batch {row['batch']}: {row['error']}"
        for row in table.to_dict("records")
        if str(row["error"]) not in ("", "nan")
    ]

    def goal(what: str, *keys: tuple[Any, ...], least: float) -> None:
        """Compare a speed, or the ratio of two, with a goal."""
        rates = [found.get(key, float("nan")) for key in keys]
        reached = rates[0] / rates[1] if len(rates) > 1 else rates[0]
        if not reached >= least:
            missed.append(
                f"{what}: {'not measured' if np.isnan(reached) else f'{reached:,.4g}'}, the goal is {least:,}"
            )

    for batch, least in ((512, 38_000), (256, 34_000)):
        compiled, bare = (("throughput", "SimCLR", loop, batch) for loop in ("fit, compiled", "bare loop, compiled"))
        fit, lightly = ("graph", "SimCLR", "fit, graph", batch), ("others", "SimCLR", "lightly", batch)
        goal(f"SimCLR, batch {batch}, images/s", fit, least=least)
        goal(f"SimCLR, batch {batch}, of the bare compiled loop", fit, bare, least=0.9)
        goal(f"SimCLR, batch {batch}, times lightly", fit, lightly, least=4)
        goal(f"SimCLR as a CUDA graph, batch {batch}, of compiled steps", fit, compiled, least=1.05)
    for name in ("SimSiam", "BYOL"):
        fit, own = (("passes", name, loop, 512) for loop in ("fit, graph", "own passes, compiled"))
        goal(f"{name}, batch 512, of its own compiled passes", fit, own, least=0.9)
    moco, simclr = (("methods", name, "fit, eager", 256) for name in ("MoCo", "SimCLR"))
    goal("MoCo, batch 256, of SimCLR, eager", moco, simclr, least=0.5)
    simsiam = "passes", "SimSiam", "fit, graph", 512
    goal("SimSiam, batch 512, images/s for 200 epochs in 5 minutes", simsiam, least=round(images * epochs / 300))
    return missed


def run_part(name: str, arguments: argparse.Namespace, seconds: float) -> str:
    """Run a part in a separate process group, which is killed at the time limit; return how it ended."""
    log = log_of(name, arguments.results)
    options = ["--results", str(arguments.results), "--device", arguments.device, *["--tiny"] * arguments.tiny]
    minutes = str(0.9 * seconds / 60)  # parts that can stop do so before the limit
    command = [sys.executable, "-m", "benchmarks", "gpu", "--part", name, "--minutes", minutes, *options]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    begun = time.monotonic()
    with log.open("a") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            how = f"ended with {process.wait(seconds)}"
        except subprocess.TimeoutExpired:
            how = "was stopped at its time limit"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return f"== {name} {how}, after {time.monotonic() - begun:.0f} s of {seconds:.0f}"


def log_of(name: str, results: Path) -> Path:
    """Return the log of a part; there are few files, since some machines return only a few."""
    return results / ("tests.log" if name == "tests" else "log.txt")


def tail(file: Path, lines: int) -> str:
    """Return the last lines of a file."""
    return "\n".join(file.read_text(errors="replace").splitlines()[-lines:])


def main() -> None:
    """Run the parts within the time limit, or one part in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, metavar="PART")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tiny", action="store_true", help="use a few images, as in the test")
    parser.add_argument("--part", choices=PARTS, help="run only this part, in this process")
    arguments = parser.parse_args()
    arguments.results = arguments.results.resolve()
    arguments.results.mkdir(parents=True, exist_ok=True)
    if arguments.part:
        size = TINY if arguments.tiny else Size()
        if arguments.tiny:
            stand_ins()
        RUNS[arguments.part](size, resolve_device(arguments.device), arguments.minutes, arguments.results)
        return
    end = time.monotonic() + 60 * arguments.minutes
    for name in arguments.parts:
        left = end - time.monotonic()
        if left < 5:
            print(f"== {name}: skipped at the time limit")
            continue
        print(run_part(name, arguments, min(left, 60 * PARTS[name] * arguments.minutes)), flush=True)
        print(tail(log_of(name, arguments.results), 40 if name == "tests" else 6), flush=True)
    if (arguments.results / "gpu.csv").exists():
        numbers = {"images_per_second": [""], "seconds": [""]}
        table = read("gpu", arguments.results, keep_default_na=False, na_values=numbers)
        table = table[table["commit"] == COMMIT]
        columns = ["part", "method", "loop", "batch", "images_per_second", "seconds", "error"]
        print(table[columns].to_string(index=False, float_format=lambda value: f"{value:.4g}"))
        missed = "\n".join(f"- {line}" for line in shortfalls(table)) or "- nothing"
        (arguments.results / "shortfalls.txt").write_text(missed + "\n")
        print(f"== missed goals on {hardware()}:\n{missed}")


def stand_ins() -> None:
    """Replace the slow parts: the compiler, CIFAR-10, and the evaluation of the tables."""
    torch.compile = functools.partial(torch.compile, backend="eager")
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (64, 16, 16, 3), dtype=np.uint8), np.arange(64) % 10
    tables.cifar10 = race.cifar10 = lambda *_: (X, y, X, y)
    tables.evaluate = lambda *_: {"linear": 0.1, "knn": 0.1}


if __name__ == "__main__":
    main()
