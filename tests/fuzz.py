"""Fuzzing for a night: ``python tests/fuzz.py load --cases 100000``. The suite runs a few hundred of the same cases."""

import argparse
import faulthandler
import tempfile
import time
from collections import Counter
from pathlib import Path

import hypothesis
from strategies import TARGETS

BATCH = 500  # cases that Hypothesis is given at a time, as it remembers them all


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        hypothesis.configuration.set_hypothesis_home_dir(Path(folder) / "hypothesis")
        home = Path(folder) / "files"
        home.mkdir()
        cases, check = TARGETS[args.target](home)
        outcomes: Counter[str] = Counter()
        started = time.perf_counter()
        while (done := outcomes.total()) < args.cases and time.perf_counter() - started < args.seconds:

            def one(case):
                faulthandler.dump_traceback_later(60, exit=True)  # a hang is a failure, too
                outcomes[check(case)] += 1

            settings = hypothesis.settings(
                max_examples=min(BATCH, args.cases - done),
                deadline=None,
                database=None,
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            settings(hypothesis.seed(args.seed + done)(hypothesis.given(cases)(one)))()
            seconds = time.perf_counter() - started
            print(
                f"{outcomes.total()} cases in {seconds:.0f} s, {outcomes.total() / seconds:.0f}/s",
                dict(outcomes),
                flush=True,
            )
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
