"""The benchmarks' own parts: what can be run, and a long run that goes on where it stopped."""

import itertools
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import quick
from sklearn.base import clone

import skssl

ROOT = Path(__file__).parents[1]
tables = pytest.importorskip("benchmarks.tables", reason="the benchmarks are not where the tests are run")


def test_every_benchmark_is_found_by_its_name():
    found = subprocess.run([sys.executable, "-m", "benchmarks"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 1, "there is no name"
    for name in ("throughput", "methods", "probes", "scaling", "tables"):
        assert f"\n  {name} " in found.stderr


def test_a_run_of_the_papers_tables_goes_on_where_it_stopped(tmp_path, monkeypatch):
    X = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    method, place = quick(skssl.SimCLR, epochs=3), tmp_path / "state" / "run.joblib"
    clock = itertools.count()
    monkeypatch.setattr(tables, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    stopped, spent = tables.train(clone(method), X, None, place, until=3.0, every=100.0)
    assert tables.epochs_left(stopped) == 2
    assert spent == 4.0
    resumed, spent = tables.train(clone(method), X, None, place, until=1e9, every=0.0)
    assert tables.epochs_left(resumed) == 0
    assert spent > 4.0
    assert np.array_equal(resumed.transform(X), method.fit(X).transform(X))
    assert [file.name for file in place.parent.iterdir()] == ["run.joblib"]
