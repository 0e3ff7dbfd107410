"""The table of the demo: pixels, an untrained network and SimCLR after seconds of training, on CIFAR-10.

    python -m benchmarks demo [--results FOLDER]

README shows these rows; ``python docs/figures.py`` writes them there.
"""

from __future__ import annotations

import argparse
import runpy
import sys
import time
from pathlib import Path

from benchmarks.record import RESULTS, record

DEMO = Path(__file__).parents[1] / "examples" / "quickstart.py"


def main() -> None:
    """Run the demo, and record its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    started = time.perf_counter()
    found = runpy.run_path(str(DEMO))
    if found["name"] != "CIFAR-10":
        sys.exit("CIFAR-10 was not found, so nothing is recorded.")
    total = time.perf_counter() - started
    rows = [{"encoder": title, **scores, "total_seconds": total} for title, scores in found["rows"].items()]
    record("demo", rows, arguments.results)
