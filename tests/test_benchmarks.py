"""The benchmarks' own parts: what can be run, and a long run that goes on where it stopped."""

import subprocess
import sys
import time
from pathlib import Path

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


def test_a_run_of_the_papers_tables_goes_on_where_it_stopped(tmp_path):
    X = np.random.default_rng(0).integers(0, 256, (200, 16, 16, 3), dtype=np.uint8)
    method = quick(skssl.SimCLR, epochs=12, checkpoint=tmp_path / "state")
    assert not tables.train(clone(method), X, None, until=time.monotonic() + 0.3)
    resumed = clone(method)
    assert tables.train(resumed, X, None, until=float("inf"))
    assert len(resumed.history_) == 12
    assert np.array_equal(resumed.transform(X), method.set_params(checkpoint=None, callbacks=None).fit(X).transform(X))
