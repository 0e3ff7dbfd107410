"""The files of a comparison's runs: a JSON file of scores and an .npz file of features for each run."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skssl.storage.files import atomic_write


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
        """Return the scores of the run, or None if the file is missing or truncated."""
        return self._read(".json", lambda path: json.loads(path.read_text()))

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
        """Return the features of the run, or None if the file is missing or truncated."""
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
        """Load a file; return None if it is missing or truncated, for example by a full disk."""
        path = None if self.path is None else self.path.with_suffix(suffix)
        if path is None or not path.exists():
            return None
        try:
            return load(path)
        except (ValueError, EOFError, zipfile.BadZipFile):
            return None


def _load_arrays(path: Path) -> dict[str, Any]:
    """Return the arrays of an .npz file."""
    with path.open("rb") as file, np.load(file) as arrays:
        return dict(arrays)
