"""A comparison of methods: every method, seed and probe a row, and nothing that is finished is done twice."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.base import clone
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import Interval, validate_params
from sklearn.utils.validation import _num_samples
from torch import nn
from tqdm.auto import tqdm

from skssl.images import subset
from skssl.images.labels import as_labels, encode_labels
from skssl.probes import KNNProbe, LinearProbe
from skssl.probes.encoders import as_encoder
from skssl.results.tables import Results
from skssl.training.digests import digest, digest_images

__all__ = ["compare"]


@validate_params(
    {
        "test_size": [Interval(Real, 0, 1, closed="neither"), Interval(Integral, 1, None, closed="left")],
        "random_state": [Integral, "array-like"],
        "cache": [str, os.PathLike, None],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    },
    prefer_skip_nested_validation=True,
)
def compare(
    methods: Mapping[str, Any] | Sequence[Any],
    X: Any,
    y: Any = None,
    *,
    X_test: Any = None,
    y_test: Any = None,
    test_size: float = 0.25,
    probes: Mapping[str, Any] | Sequence[Any] | None = None,
    random_state: int | Sequence[int] = (0,),
    cache: str | os.PathLike[str] | None = None,
    n_jobs: int | None = None,
    verbose: int = 0,
) -> Results:
    """Train methods on the same images, with several seeds, and judge their features by the same probes.

    Parameters
    ----------
    methods : dict of str to estimator, or list of these
        What is compared, by name (a list's by their classes): estimators of skssl, any transformer or pipeline from
        images to features, or a ``torch.nn.Module``, see `encoders.as_encoder`. They are cloned; one in a
        ``FrozenEstimator`` stays as it was fitted.
    X : array-like, sequence of files or PIL images, or torch Dataset, or dict of str to tuple
        The images that are learned from, or several data sets by name: (X, y) or (X, y, X_test, y_test) of each.
    y : array-like of shape (n,), default=None
        Their classes. Images of an unknown class, -1, are learned from, but the probes do not see them.
    X_test, y_test : array-like, default=None
        The images that the probes are scored on, and their classes. None: a share of the labelled images of `X`, which
        is drawn by class, and is the same for all methods and seeds.
    test_size : float in (0, 1) or int, default=0.25
        That share, or how many images.
    probes : dict of str to estimator, or list of these, default=None
        Classifiers or other estimators with ``fit`` and ``score``, by name. They are fitted to the features of the
        training images. None is ``make_pipeline(StandardScaler(), LinearProbe())`` as "linear", and ``KNNProbe()`` as
        "kNN".
    random_state : int or sequence of int, default=(0,)
        The seeds: each run gives one to every ``random_state`` of the method and of the probes. A method that has none
        is run once, with the first.
    cache : str or path, default=None
        A folder that keeps the scores of each run (a small JSON file) and its features (an .npz file, from which
        another probe is scored later; it may be deleted). What is there is not computed again, so that a comparison
        that was interrupted goes on where it stopped. A run is known by its images, classes, seed and parameters, not
        by its name. None keeps nothing.
    n_jobs : int, default=None
        How many runs at a time, in processes of their own; None is 1, -1 as many as there are processors.
    verbose : int, default=0
        1 shows a progress bar over the runs.

    Returns
    -------
    Results
        A row for each data set, method, seed and probe: score, seconds (of the training) and images_per_second (the
        median over its epochs).

    Raises
    ------
    ValueError
        Before anything is trained, if labels are of another number than the images, of one class only, or of a class
        in the test that is not in the training, or two methods have the same name.
    TypeError
        If something is neither a transformer nor, of the probes, an estimator with ``fit`` and ``score``.

    Examples
    --------
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from skssl import KNNProbe, SimCLR, compare
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(60, image_size=16, n_classes=3, random_state=0)
    >>> pixels = FunctionTransformer(lambda X: X.reshape(len(X), -1) / 255)
    >>> untrained = SimCLR(backbone="convnet", epochs=0)
    >>> results = compare({"pixels": pixels, "untrained": untrained}, X, y, probes=[KNNProbe(n_neighbors=5)])
    >>> results.frame[["method", "seed", "probe"]]
          method  seed     probe
    0     pixels     0  KNNProbe
    1  untrained     0  KNNProbe
    """
    methods = _named("methods", methods, ("fit", "transform"))
    if probes is None:
        probes = {"linear": make_pipeline(StandardScaler(), LinearProbe()), "kNN": KNNProbe()}
    probes = _named("probes", probes, ("fit", "score"))
    seeds = [random_state] if isinstance(random_state, (int, Integral)) else list(random_state)
    if not seeds or not all(isinstance(seed, Integral) for seed in seeds) or len(set(seeds)) < len(seeds):
        raise ValueError(f"random_state must be one or more different integers. Got {random_state!r}.")
    if isinstance(X, Mapping):
        if not all(isinstance(parts, tuple) and len(parts) in (2, 4) for parts in X.values()):
            raise TypeError("X as a dict must have a tuple (X, y) or (X, y, X_test, y_test) for each data set.")
        given = {name: (*parts, None, None)[:4] for name, parts in X.items()}
    else:
        given = {"": (X, y, X_test, y_test)}
    data = [_split(test_size, name, *parts) for name, parts in given.items()]
    folder = None
    if cache is not None:
        folder = Path(cache).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        for part in data:
            both = (digest_images(part.X), part.y.tolist()), (digest_images(part.X_test), part.y_test.tolist())
            part.digest = joblib.hash(both)
    runs = [
        (part, name, method, seed)
        for part in data
        for name, method in methods.items()
        for seed in (seeds if _random_states(method) else seeds[:1])
    ]
    jobs = (joblib.delayed(_run)(*run, probes, folder) for run in runs)
    rows: list[dict[str, Any]] = []
    with tqdm(total=len(runs), desc="Runs", disable=not verbose) as bar:
        for found in joblib.Parallel(n_jobs, return_as="generator")(jobs):
            rows += found
            bar.update()
            bar.set_postfix_str(f"{found[0]['method']}, seed {found[0]['seed']}")
    return Results(rows)


@dataclass
class _Split:
    """Images to learn from, images to test on, and what they are known by."""

    name: str
    X: Any
    y: np.ndarray
    X_test: Any
    y_test: np.ndarray
    digest: str = ""  # of all of it, where a cache asks for it

    @property
    def of(self) -> str:
        """The name, for a message."""
        return f" of the data set {self.name!r}" if self.name else ""


def _named(parameter: str, given: Any, needs: tuple[str, str]) -> dict[str, Any]:
    """Estimators by name, each with the methods that it needs."""
    if not isinstance(given, Mapping):
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise TypeError(
                f"{parameter} must be a dict of names to estimators or a list of estimators. Got {given!r}."
            )
        names = [type(each).__name__ for each in given]
        if len(set(names)) < len(names):
            raise ValueError(f"{parameter} holds several of one class, {names}: give a dict of names to estimators.")
        given = dict(zip(names, given, strict=True))
    if not given:
        raise ValueError(f"{parameter} is empty, but at least one estimator was expected.")
    for name, each in given.items():
        is_module = needs[1] == "transform" and isinstance(each, nn.Module)
        if isinstance(each, type) or not (is_module or all(hasattr(each, need) for need in needs)):
            raise TypeError(f"{parameter}[{name!r}] must be an estimator with {needs[0]} and {needs[1]}. Got {each!r}.")
    return dict(given)


def _split(test_size: float, name: str, X: Any, y: Any, X_test: Any, y_test: Any) -> _Split:
    """Check a data set, and split it where there are no images to test on."""
    of = f" of the data set {name!r}" if name else ""
    if y is None or (X_test is None) != (y_test is None):
        missing = "y" if y is None else "y_test" if y_test is None else "X_test"
        raise ValueError(f"The probes need classes and images to be scored on: {missing}{of} is missing.")
    y = _classes(X, y, "y", "X", of)
    classes, target = encode_labels(y)
    if len(classes) < 2:
        raise ValueError(f"y{of} must hold at least two classes. Got {classes.tolist()}.")
    if X_test is None:
        codes = target.numpy()
        known, unknown = np.flatnonzero(codes != -1), np.flatnonzero(codes == -1)
        train, test = train_test_split(known, test_size=test_size, stratify=codes[known], random_state=0)
        train = np.concatenate([train, unknown])
        X, y, X_test, y_test = subset(X, train), y[train], subset(X, test), y[test]
    else:
        y_test = _classes(X_test, y_test, "y_test", "X_test", of)
    seen = set(encode_labels(y)[0].tolist())
    unseen = [label for label in dict.fromkeys(y_test.tolist()) if label not in seen]
    if unseen:
        raise ValueError(f"y_test{of} must hold only classes that y has. Got {unseen}, which y has not.")
    return _Split(name, X, y, X_test, np.array(y_test.tolist()))


def _classes(X: Any, y: Any, name: str, of_what: str, of: str) -> np.ndarray:
    """One class for each image."""
    y = as_labels(y)
    n_samples = _num_samples(X)
    if len(y) != n_samples:
        raise ValueError(
            f"{name}{of} must have one class for each image of {of_what}: expected {n_samples}, got {len(y)}."
        )
    return y


def _random_states(estimator: Any) -> list[str]:
    """The parameters of an estimator, and of those within it, that take a seed."""
    names = [] if isinstance(estimator, nn.Module) else estimator.get_params()
    return [name for name in names if name.rpartition("__")[2] == "random_state"]


def _seeded(estimator: Any, seed: int) -> Any:
    """A copy of an estimator with a seed."""
    copy = clone(estimator)
    copy.set_params(**dict.fromkeys(_random_states(estimator), seed))  # which a FrozenEstimator answers by None
    return copy


def _run(
    data: _Split, name: str, method: Any, seed: int, probes: Mapping[str, Any], folder: Path | None
) -> list[dict[str, Any]]:
    """Train a method and score it by the probes, both only if the folder does not have it."""
    method = method if isinstance(method, nn.Module) else _seeded(method, seed)
    judges = {title: _seeded(probe, seed) for title, probe in probes.items()}
    notes = stored = None
    keys = dict(zip(judges, judges, strict=True))
    if folder is not None:
        key = joblib.hash([data.digest, seed, digest(method, f"methods[{name!r}]")])
        notes, stored = folder / f"{key}.json", folder / f"{key}.npz"
        keys = {title: digest(judge, f"probes[{title!r}]") for title, judge in judges.items()}
    note = _read(notes, lambda path: json.loads(path.read_text())) or {"scores": {}}
    missing = [title for title in judges if keys[title] not in note["scores"]]
    try:
        made = (_read(stored, _load) or _train(method, data, stored)) if missing else {}
        for title in missing:
            known = data.y != -1
            judges[title].fit(made["train"][known], np.array(data.y[known].tolist()))
            score = float(judges[title].score(made["test"], data.y_test))
            speed = {of: float(made[of]) for of in ("seconds", "images_per_second")}
            note = {"method": repr(method), "seed": int(seed), **speed, "scores": note["scores"]}
            note["scores"][keys[title]] = {"probe": repr(judges[title]), "score": score}
            _write(notes, partial(Path.write_text, data=json.dumps(note, indent=1)))
    except Exception as error:
        error.add_note(f"This was method {name!r} with seed {seed}{data.of}, in compare.")
        raise
    run = {"dataset": data.name, "method": name, "seed": seed}
    speed = {of: note[of] for of in ("seconds", "images_per_second")}
    return [{**run, "probe": title, "score": note["scores"][keys[title]]["score"], **speed} for title in judges]


def _train(method: Any, data: _Split, stored: Path | None) -> dict[str, Any]:
    """Train a method, and encode the images to train and to test probes on."""
    start = time.perf_counter()
    fitted = as_encoder(method, data.X) if isinstance(method, nn.Module) else method.fit(data.X, data.y)
    seconds = time.perf_counter() - start
    history: Any = getattr(fitted, "history_", ())
    speed = history["images_per_second"].median() if len(history) else math.nan
    features = {part: np.asarray(fitted.transform(X)) for part, X in (("train", data.X), ("test", data.X_test))}
    made = {**features, "seconds": seconds, "images_per_second": speed}
    _write(stored, lambda path: np.savez(path, allow_pickle=False, **made))
    return made


def _load(path: Path) -> dict[str, Any]:
    """Read the arrays of an .npz file."""
    with path.open("rb") as file, np.load(file) as arrays:
        return dict(arrays)


def _read(path: Path | None, load: Callable[[Path], Any]) -> Any:
    """Read a file; None where there is none, or it was cut short, as by a full disk."""
    if path is None or not path.exists():
        return None
    try:
        return load(path)
    except (ValueError, EOFError, zipfile.BadZipFile):
        return None


def _write(path: Path | None, save: Callable[[Path], Any]) -> None:
    """Write a file as a whole or not at all."""
    if path is not None:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            partial = Path(folder) / path.name
            save(partial)
            partial.replace(path)
