"""The files of a comparison's runs: a JSON file of scores and an .npz file of features for each run."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skssl.storage.files import atomic_write, first_line

SPEED = ("seconds", "images_per_second")  # of a training


@dataclass
class RunFiles:
    """The files of one run.

    Attributes
    ----------
    path : pathlib.Path or None
        The path without suffix; None stores nothing.
    """

    path: Path | None

    def read_scores(self) -> Any:
        """Return the scores of the run, or None if the file is missing or damaged."""
        return self._read(".json", _load_scores)

    def write_scores(self, run: dict[str, Any]) -> None:
        """Write the scores of the run.

        Parameters
        ----------
        run : dict
            The method, the seed, the speed and, by the digests of the probes, the scores.
        """
        if self.path is not None:
            with atomic_write(self.path.with_suffix(".json")) as file:
                file.write(json.dumps(run, indent=1).encode())

    def read_features(self) -> Any:
        """Return the features of the run, or None if the file is missing or damaged."""
        return self._read(".npz", _load_arrays)

    def write_features(self, features: dict[str, Any]) -> None:
        """Write the features of the run.

        Parameters
        ----------
        features : dict
            "train" and "test" features (n, d), and the speed of the training.
        """
        if self.path is not None:
            with atomic_write(self.path.with_suffix(".npz")) as file:
                np.savez(file, allow_pickle=False, **features)

    def _read(self, suffix: str, load: Callable[[Path], Any]) -> Any:
        """Load a file; return None if it is missing or, with a warning, if it is damaged."""
        path = None if self.path is None else self.path.with_suffix(suffix)
        if path is None or not path.exists():
            return None
        try:
            return load(path)
        except Exception as error:
            warnings.warn(
                f"{str(path)!r} is damaged, so it is computed anew. {type(error).__name__}: {first_line(error)}",
                stacklevel=4,
            )
            return None


def _load_scores(path: Path) -> dict[str, Any]:
    """Return the scores of a run."""
    run = json.loads(path.read_text())
    if not all(isinstance(run[column], float) for column in SPEED):
        raise ValueError("it lacks the speed")
    if not all(isinstance(score["score"], float) for score in run["scores"].values()):
        raise ValueError("it lacks scores")
    return run


def _load_arrays(path: Path) -> dict[str, Any]:
    """Return the features of a run, and its speed."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in ("train", "test", *SPEED)}
