"""Sharing the cores of a machine with other programs."""

import os
import subprocess
import sys
import warnings

import pytest
import torch

from skssl.training import cpu_threads


@pytest.mark.parametrize(
    ("first", "variables", "expected"),
    [
        ("", {}, str(cpu_threads.SPIN_COUNT)),
        ("import torch", {}, "None"),
        ("", {"GOMP_SPINCOUNT": "7"}, "7"),
        ("", {"OMP_WAIT_POLICY": "ACTIVE"}, "None"),
    ],
)
def test_threads_spin_briefly_unless_the_user_has_chosen(first, variables, expected):
    script = (
        f"{first}\nimport os, runpy\nrunpy.run_path({cpu_threads.__file__!r})\nprint(os.environ.get('GOMP_SPINCOUNT'))"
    )
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**kept, **variables}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


def test_the_spin_count_is_set_before_torch_is_imported():
    code = "import sys, skssl; print(skssl.training.cpu_threads.IN_TIME)"
    kept = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=kept).stdout == "True\n"


def test_threads_are_limited_to_the_cores(monkeypatch):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        monkeypatch.setattr("joblib.cpu_count", lambda: 2)
        with cpu_threads.limited_threads(torch.device("cpu")):
            assert torch.get_num_threads() == 2
        with cpu_threads.limited_threads(torch.device("meta")):
            assert torch.get_num_threads() == 3
        monkeypatch.setattr("joblib.cpu_count", lambda: 4)
        with cpu_threads.limited_threads(torch.device("cpu")):
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("wall", "computed", "switches", "crowded"),
    [(10, 10, 2500, True), (10, 19.9, 340, False), (10, 10, 100, False), (10, 19, 2500, False), (1, 1, 250, False)],
)
def test_crowded_cores_warn_once(wall, computed, switches, crowded, monkeypatch):
    cpu_threads._warn.cache_clear()
    monkeypatch.setattr(cpu_threads, "IN_TIME", False)
    monkeypatch.setattr(cpu_threads, "CHOSEN", False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    moments = iter([(0, 0, 0), *[(wall, computed, switches)] * 2])
    monkeypatch.setattr(cpu_threads, "_usage", lambda: next(moments))
    crowd = cpu_threads.Crowd(torch.device("cpu"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        crowd.check()
        crowd.check()
    assert len(caught) == crowded
    if crowded:
        assert "the cores of this training's 2 threads" in str(caught[0].message)
    cpu_threads._warn.cache_clear()


def test_cores_are_not_checked_with_one_thread_or_brief_spins(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(cpu_threads, "IN_TIME", False)
    assert cpu_threads.Crowd(torch.device("cpu")).threads == 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(cpu_threads, "IN_TIME", True)
    assert cpu_threads.Crowd(torch.device("cpu")).threads == 1
    assert cpu_threads.Crowd(torch.device("cuda")).threads == 1
