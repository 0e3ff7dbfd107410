"""Results as CSV rows with their commit, versions, hardware and command."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torchvision

RESULTS = Path(__file__).parent / "results"


def hardware() -> str:
    """Return the name of the accelerator, or of the processor with the number of threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = found[0] if found else name
    return f"{name}, {torch.get_num_threads()} threads"


def commit() -> str:
    """Return the commit, with a plus sign if files other than the recorded results have changed since.

    The environment variable ``SKSSL_COMMIT`` replaces it where git is not available.
    """
    if "SKSSL_COMMIT" in os.environ:
        return os.environ["SKSSL_COMMIT"]

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", *arguments], cwd=RESULTS.parent.parent, capture_output=True, text=True, check=False
        )

    try:
        name = git("rev-parse", "--short=10", "HEAD").stdout.strip()
    except FileNotFoundError:  # no git
        name = ""
    if not name:
        return "unknown"
    changed = git("diff", "--quiet", "HEAD", "--", ".", ":!benchmarks/results").returncode
    return name + "+" * bool(changed)


def read(name: str, results: Path = RESULTS, **options: Any) -> pd.DataFrame:
    """Return the rows of ``<results>/<name>.csv``; ``options`` are pandas' own."""
    return pd.read_csv(results / f"{name}.csv", dtype={"commit": str}, **options)  # 8420859e75 is no number


def recorded(name: str, row: dict[str, Any], results: Path = RESULTS) -> bool:
    """Return whether ``<results>/<name>.csv`` has a row with these values."""
    if not (results / f"{name}.csv").exists():
        return False
    table = read(name, results, keep_default_na=False)
    return bool((table[list(row)].astype(str) == pd.Series(row).astype(str)).all(axis=1).any())


COMMIT = commit()  # at import, since the tree may change during a run


def record(name: str, rows: list[dict[str, Any]], results: Path = RESULTS) -> pd.DataFrame:
    """Append rows to ``<results>/<name>.csv`` and print them."""
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    table["commit"] = COMMIT
    table["date"] = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")
    table["hardware"] = hardware()
    table["versions"] = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    program = sys.argv[0] if sys.argv[0].startswith("python -m benchmarks") else f"python -m benchmarks {name}"
    table["command"] = " ".join([program, *sys.argv[1:]])
    file = results / f"{name}.csv"
    results.mkdir(exist_ok=True)
    if file.exists():
        table = pd.concat([read(name, results), table], ignore_index=True)
    table.to_csv(file, index=False)
    return table
