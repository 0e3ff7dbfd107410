"""The benchmarks' own parts: what can be run, and a long run that goes on where it stopped."""

import argparse
import importlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK, quick
from sklearn.base import clone

import skssl

ROOT = Path(__file__).parents[1]
tables = pytest.importorskip("benchmarks.tables", reason="the benchmarks are not where the tests are run")
gpu, record = (pytest.importorskip(f"benchmarks.{name}") for name in ("gpu", "record"))


def test_every_benchmark_is_found_by_its_name(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmarks"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("benchmarks.__main__").main()
    for name in ("throughput", "methods", "probes", "scaling", "tables", "gpu", "sharing"):
        assert f"\n  {name} " in ended.value.code


def test_a_run_of_the_papers_tables_goes_on_where_it_stopped(tmp_path):
    X = np.random.default_rng(0).integers(0, 256, (200, 16, 16, 3), dtype=np.uint8)
    method = quick(skssl.SimCLR, epochs=12, checkpoint=tmp_path / "state")
    assert not tables.train(clone(method), X, None, until=time.monotonic() + 0.3)
    resumed = clone(method)
    assert tables.train(resumed, X, None, until=float("inf"))
    assert len(resumed.history_) == 12
    assert np.array_equal(resumed.transform(X), method.set_params(checkpoint=None, callbacks=None).fit(X).transform(X))


@pytest.mark.slow
def test_all_that_needs_a_gpu_runs_on_a_cpu_too(tmp_path, monkeypatch):
    for owner, name in ((torch, "compile"), (gpu.tables, "cifar10"), (gpu.tables, "judge"), (sys, "argv")):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # as they are again afterwards
    monkeypatch.setattr(gpu.recording, "RESULTS", tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where a stopped table would go on
    gpu.stand_ins()
    for part in gpu.PARTS:
        if part != "tests":
            gpu.RUNS[part](gpu.TINY, torch.device("cpu"), 1.0)
    command = [sys.executable, "-m", "benchmarks", "gpu", "--tiny", "--device", "cpu", "--parts", "tests"]
    done = subprocess.run([*command, "--results", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "== tests ended with 0" in done.stdout, done.stdout + done.stderr
    table = pd.read_csv(tmp_path / "gpu.csv")
    missing = table["error"].fillna("").str.startswith("not installed")
    assert table["error"].isna().equals(~missing), table["error"].dropna().tolist()
    assert (table.loc[~missing, "images_per_second"] > 0).all()
    loops = {"throughput": 4, "graph": 1, "methods": 1, "passes": 2, "others": 2}
    assert table.groupby("part")["loop"].nunique().to_dict() == loops
    assert table["commit"].nunique() == 1
    assert len(pd.read_csv(tmp_path / "tables.csv")) == 1
    assert "torch finds no CUDA device" in (tmp_path / "tests.log").read_text() or torch.cuda.is_available()
    assert "short of the goals" in done.stdout
    assert len([file for file in tmp_path.iterdir() if file.is_file()]) <= 8, "more do not come back from the machine"


@pytest.mark.parametrize("name", gpu.METHODS)
def test_every_method_is_measured_with_parameters_that_it_has(name):
    gpu.make(name, gpu.TINY, torch.device("cpu"), batch=8)._validate_params()


def test_all_methods_are_measured():
    assert {kind for kind, _ in gpu.METHODS.values()} == set(QUICK)


def test_a_part_whose_time_is_over_is_stopped_and_loses_nothing(tmp_path):
    arguments = argparse.Namespace(results=tmp_path, device="cpu", tiny=True)
    begun = time.monotonic()
    said = gpu.run_part("throughput", arguments, 0.5)
    assert "was stopped when its time was over" in said
    assert time.monotonic() - begun < 30


def test_a_figure_is_recorded_once_and_an_error_in_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu.recording, "RESULTS", tmp_path)
    calls = []

    def prepare():
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("out of\nmemory")
        return lambda: 5.0

    for batch in (1, 2, 2):  # the second is there already
        gpu.measure({"part": "methods", "method": "SimCLR", "loop": "fit, eager", "batch": batch}, prepare)
    table = pd.read_csv(tmp_path / "gpu.csv")
    assert len(calls) == len(table) == 2
    assert table["error"][0] == "RuntimeError: out of memory"
    assert table["images_per_second"][1] == 5
    gpu.measure({"part": "methods", "method": "SimCLR", "loop": "fit, eager", "batch": 1}, prepare)
    table = pd.read_csv(tmp_path / "gpu.csv")
    assert table["batch"].tolist() == [1, 2, 1], "what failed is tried again"
    assert "out of memory" not in "".join(gpu.shortfalls(table))


def test_goals_are_compared_with_what_was_measured():
    def row(part, method, loop, batch, rate, error=""):
        names = "part", "method", "loop", "batch", "images_per_second", "error"
        return dict(zip(names, (part, method, loop, batch, rate, error), strict=True))

    good = [
        *(row("throughput", "SimCLR", "fit, compiled", batch, 40_000) for batch in (512, 256)),
        *(row("graph", "SimCLR", "fit, graph", batch, 43_000) for batch in (512, 256)),
        *(row("throughput", "SimCLR", "bare loop, compiled", batch, 44_000) for batch in (512, 256)),
        *(row("others", "SimCLR", "lightly", batch, 9_600) for batch in (512, 256)),
        *(row("passes", name, "fit, graph", 512, 34_000) for name in ("SimSiam", "BYOL")),
        *(row("passes", name, "own passes, compiled", 512, 37_000) for name in ("SimSiam", "BYOL")),
        *(row("methods", name, "fit, eager", 256, rate) for name, rate in (("SimCLR", 20_000), ("MoCo", 11_000))),
    ]
    assert gpu.shortfalls(pd.DataFrame(good)) == []
    slower = [row if row["method"] != "MoCo" else {**row, "images_per_second": 9_000} for row in good]
    worse = [row for row in slower if (row["part"], row["batch"]) != ("graph", 512)]
    said = gpu.shortfalls(pd.DataFrame([*worse, row("methods", "PIRL", "fit, eager", 256, np.nan, "broke")]))
    assert said[0] == "PIRL, fit, eager, batch 256: broke"
    assert "SimCLR, batch 512, images/s: not measured, the goal is 38,000" in said
    assert said[-1] == "MoCo, batch 256, of SimCLR, eager: 0.45, the goal is 0.5"


def test_the_commit_is_named_where_there_is_no_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SKSSL_COMMIT", "abc")
    assert record.commit() == "abc"
