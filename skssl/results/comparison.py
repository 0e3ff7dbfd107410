"""Compare methods: train each with several seeds, score its features by probes, and reuse finished runs."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import Interval, validate_params
from sklearn.utils.multiclass import check_classification_targets
from torch import nn
from tqdm.auto import tqdm

from skssl.errors import show_call
from skssl.images import subset
from skssl.images.base import describe
from skssl.images.labels import check_labels, encode_labels, known_labels, labels_in
from skssl.probes import KNNProbe, LinearProbe
from skssl.probes.encoders import as_encoder, as_samples
from skssl.results.cache import SPEED, RunFiles
from skssl.results.tables import Results
from skssl.training.digests import digest, digest_images

__all__ = ["compare"]


@show_call("compare(methods, X, y, X_test=X_test, y_test=y_test, probes=probes)")
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
    scoring: str | Callable[..., float] | Sequence[str] | Mapping[str, Any] | None = None,
    random_state: int | Sequence[int] = (0,),
    cache: str | os.PathLike[str] | None = None,
    n_jobs: int | None = None,
    verbose: int = 0,
) -> Results:
    """Train methods on the same images with several seeds, and score their features by the same probes.

    Parameters
    ----------
    methods : dict of str to estimator, or list of these
        The methods by name; those in a list are named by their classes. A method is an estimator of skssl, any
        transformer or pipeline from images to features, or a ``torch.nn.Module``, see `encoders.as_encoder`. Estimators
        are cloned; one in a ``FrozenEstimator`` stays fitted.
    X : array-like, sequence of files or PIL images, or torch Dataset, or dict of str to tuple
        The training images, or a tuple (X, y) or (X, y, X_test, y_test) for each of several data sets by name.
    y : array-like of shape (n,), default=None
        Their classes. Images of unknown class, -1, are used by the methods but not by the probes. If None, they are the
        labels in X, such as a data set of items (image, label).
    X_test, y_test : array-like, default=None
        The test images of the probes, and their classes. If None, a stratified share of the labelled images of `X` is
        held out, the same for all methods and seeds.
    test_size : float in (0, 1) or int, default=0.25
        The held-out share, or the number of held-out images.
    probes : dict of str to estimator, or list of these, default=None
        Classifiers or other estimators with ``fit`` and ``score``, by name, fitted to the features of the training
        images. None is ``make_pipeline(StandardScaler(), LinearProbe())`` as "linear" and ``KNNProbe()`` as "kNN".
    scoring : str, callable, list of str, or dict of str to scorer, default=None
        How the probes are scored on the test images: a name of scikit-learn's scorers, a callable
        ``scorer(probe, features, y)``, or several of these, which get a row each. Such a row is named by the probe and
        the scorer, as in "linear, top-5". None is the probe's own ``score``.
    random_state : int or sequence of int, default=(0,)
        The seeds. Each run sets every ``random_state`` of the method and of the probes to its seed. A method without
        ``random_state`` runs once, with the first seed.
    cache : str or path, default=None
        A folder for the scores of each run (a small JSON file) and its features (an .npz file, used when another probe
        is added; it may be deleted). Finished runs are not repeated, so that an interrupted comparison resumes. A run
        is identified by its images, classes, seed and parameters, not by its name. None stores nothing.
    n_jobs : int, default=None
        The number of runs in parallel, each in its own process; None is 1, and -1 uses all processors.
    verbose : int, default=0
        1 shows a progress bar over the runs.

    Returns
    -------
    Results
        A row for each data set, method, seed and probe, with the score, the seconds of the training, its
        images_per_second (the median over the epochs), and chance (the accuracy of predicting the most frequent class
        for all test images; NaN for scores other than the accuracy).

    Raises
    ------
    ValueError
        Before any training, if the number of labels is not that of the images, if there is a single class, if a test
        class is missing from the training labels, if two methods have the same name, or if a scorer is unknown.
    TypeError
        If a method is not a transformer, or a probe has no ``fit`` or ``score``.

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
    methods = _check_estimators("methods", methods, ("fit", "transform"))
    if probes is None:
        probes = {"linear": make_pipeline(StandardScaler(), LinearProbe()), "kNN": KNNProbe()}
    probes = _check_estimators("probes", probes, ("fit", "score"))
    scorers = _check_scorers(scoring, probes)
    seeds = [random_state] if isinstance(random_state, (int, Integral)) else list(random_state)
    if not seeds or not all(isinstance(seed, Integral) for seed in seeds) or len(set(seeds)) < len(seeds):
        raise ValueError(f"random_state must be an integer or distinct integers. Got {random_state!r}.")
    if isinstance(X, Mapping):
        if not all(isinstance(parts, tuple) and len(parts) in (2, 4) for parts in X.values()):
            raise TypeError("X as a dict must hold a tuple (X, y) or (X, y, X_test, y_test) for each data set.")
        given = {name: (*parts, None, None)[:4] for name, parts in X.items()}
    else:
        given = {"": (X, y, X_test, y_test)}
    data = [_check_data(methods, test_size, name, *parts) for name, parts in given.items()]
    folder = None
    if cache is not None:
        folder = Path(cache).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        for part in data:
            contents = (digest_images(part.X), part.y.tolist()), (digest_images(part.X_test), part.y_test.tolist())
            part.digest = joblib.hash(contents)
    runs = [
        (part, name, method, seed)
        for part in data
        for name, method in methods.items()
        for seed in (seeds if _seed_parameters(method) else seeds[:1])
    ]
    jobs = (joblib.delayed(_score_run)(*run, probes, scorers, folder) for run in runs)
    rows: list[dict[str, Any]] = []
    with tqdm(total=len(runs), desc="Runs", disable=not verbose) as bar:
        for found in joblib.Parallel(n_jobs, return_as="generator")(jobs):
            rows += found
            bar.update()
            bar.set_postfix_str(f"{found[0]['method']}, seed {found[0]['seed']}")
    return Results(rows)


@dataclass
class _DataSplit:
    """The training and test images of a data set."""

    name: str
    X: Any
    y: np.ndarray
    X_test: Any
    y_test: np.ndarray
    digest: str = ""  # of images and classes, if there is a cache

    @property
    def suffix(self) -> str:
        """The name in a message."""
        return f" of the data set {self.name!r}" if self.name else ""


def _check_estimators(parameter: str, given: Any, needs: tuple[str, str]) -> dict[str, Any]:
    """Return estimators by name, and check that each has the methods that are needed."""
    if not isinstance(given, Mapping):
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise TypeError(
                f"{parameter} must be a dict of names to estimators or a list of estimators, as in "
                f"compare([SimCLR(), BYOL()], X, y, probes=[KNNProbe()]). Got {describe(given)}."
            )
        names = [each.__name__ if isinstance(each, type) else type(each).__name__ for each in given]
        if len(set(names)) < len(names):
            raise ValueError(f"{parameter} holds several estimators of one class, {names}: pass a dict with names.")
        given = dict(zip(names, given, strict=True))
    if not given:
        raise ValueError(f"{parameter} must hold at least one estimator. Got {given!r}.")
    for name, each in given.items():
        is_module = needs[1] == "transform" and isinstance(each, nn.Module)
        if isinstance(each, type) or not (is_module or all(hasattr(each, need) for need in needs)):
            hint = f" Pass an instance, {each.__name__}()." if isinstance(each, type) else ""
            raise TypeError(
                f"{parameter}[{name!r}] must be an estimator with {needs[0]} and {needs[1]}. Got {describe(each)}."
                f"{hint}"
            )
    return dict(given)


def _check_scorers(scoring: Any, probes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scorers by name, which is empty for a single one, and check that they can score the probes."""
    if isinstance(scoring, Mapping):
        scorers = dict(scoring)
    else:
        scorers = {name: name for name in scoring} if isinstance(scoring, (list, tuple, set)) else {"": scoring}
    if not scorers:
        raise ValueError(f"scoring must hold at least one scorer. Got {scoring!r}.")
    for scorer in scorers.values():
        for probe in probes.values():
            check_scoring(probe, scorer)
    return scorers


def _check_data(
    methods: Mapping[str, Any], test_size: float, name: str, X: Any, y: Any, X_test: Any, y_test: Any
) -> _DataSplit:
    """Check a data set for the methods, and hold out test images if none are given."""
    of = f" of the data set {name!r}" if name else ""
    given, given_test = X, X_test
    for method in methods.values():
        X, X_test = as_samples(method, X), as_samples(method, X_test)
    y = labels_in(given, X) if y is None else y
    y_test = labels_in(given_test, X_test) if y_test is None and X_test is not None else y_test
    if y is None or (X_test is None) != (y_test is None):
        missing = "y" if y is None else "y_test" if y_test is None else "X_test"
        raise ValueError(
            f"The probes need classes and test images: {missing}{of} is missing. Call compare(methods, X, y), or "
            "compare(methods, X, y, X_test=X_test, y_test=y_test)."
        )
    y = check_labels(y, X, f"y{of}")
    check_classification_targets(y[known_labels(y)].tolist())
    classes, labels = encode_labels(y)
    if len(classes) < 2:
        raise ValueError(f"y{of} must hold at least two classes. Got {classes.tolist()}.")
    if X_test is None:
        codes = labels.numpy()
        known, unknown = np.flatnonzero(codes != -1), np.flatnonzero(codes == -1)
        train, test = train_test_split(known, test_size=test_size, stratify=codes[known], random_state=0)
        train = np.concatenate([train, unknown])
        X, y, X_test, y_test = subset(X, train), y[train], subset(X, test), y[test]
    else:
        y_test = check_labels(y_test, X_test, f"y_test{of}", "X_test")
    seen = set(encode_labels(y)[0].tolist())
    unseen = [label for label in dict.fromkeys(y_test.tolist()) if label not in seen]
    if unseen:
        raise ValueError(f"y_test{of} must hold only classes of y. Got {unseen}, which y does not hold.")
    return _DataSplit(name, X, y, X_test, np.array(y_test.tolist()))


def _seed_parameters(estimator: Any) -> list[str]:
    """Return the names of the ``random_state`` parameters of an estimator, nested ones included."""
    names = [] if isinstance(estimator, nn.Module) else estimator.get_params()
    return [name for name in names if name.rpartition("__")[2] == "random_state"]


def _clone_with_seed(estimator: Any, seed: int) -> Any:
    """Clone an estimator and set its seeds."""
    copy = clone(estimator)
    copy.set_params(**dict.fromkeys(_seed_parameters(estimator), seed))  # returns None for a FrozenEstimator
    return copy


def _score_run(
    data: _DataSplit,
    name: str,
    method: Any,
    seed: int,
    probes: Mapping[str, Any],
    scorers: Mapping[str, Any],
    folder: Path | None,
) -> list[dict[str, Any]]:
    """Train a method and score it by the probes, unless the cache holds the results."""
    method = method if isinstance(method, nn.Module) else _clone_with_seed(method, seed)
    probes = {title: _clone_with_seed(probe, seed) for title, probe in probes.items()}
    pairs = [(title, scorer) for title in probes for scorer in scorers]
    files, keys = RunFiles(None), {pair: str(pair) for pair in pairs}
    if folder is not None:
        files = RunFiles(folder / joblib.hash([data.digest, seed, digest(method, f"methods[{name!r}]")]))
        found = {title: digest(probe, f"probes[{title!r}]") for title, probe in probes.items()}
        used = {scorer: digest(value, "scoring") for scorer, value in scorers.items()}
        keys = {
            (title, scorer): found[title] if scorers[scorer] is None else f"{found[title]}-{used[scorer]}"
            for title, scorer in pairs
        }
    run = files.read_scores() or {"scores": {}}
    missing = [pair for pair in pairs if keys[pair] not in run["scores"]]
    known = known_labels(data.y)
    y = np.array(data.y[known].tolist())
    try:
        encoded = (files.read_features() or _train(method, data, files)) if missing else {}
        for title in dict.fromkeys(title for title, _ in missing):
            probe = probes[title]
            probe.fit(encoded["train"][known], y)
            speed = {column: float(encoded[column]) for column in SPEED}
            run = {"method": repr(method), "seed": int(seed), **speed, "scores": run["scores"]}
            for scorer, value in scorers.items():
                score = float(check_scoring(probe, value)(probe, encoded["test"], data.y_test))
                run["scores"][keys[title, scorer]] = {"probe": repr(probe), "scorer": repr(value), "score": score}
            files.write_scores(run)
    except Exception as error:
        error.add_note(f"This was method {name!r} with seed {seed}{data.suffix}, in compare.")
        raise
    row = {"dataset": data.name, "method": name, "seed": seed}
    classes, counts = np.unique(y, return_counts=True)
    chance = float((data.y_test == classes[counts.argmax()]).mean())
    speed = {column: run[column] for column in SPEED}
    return [
        {
            **row,
            "probe": f"{title}, {scorer}" if scorer else title,
            "score": run["scores"][keys[title, scorer]]["score"],
            **speed,
            "chance": chance if is_classifier(probes[title]) and scorers[scorer] in (None, "accuracy") else math.nan,
        }
        for title, scorer in pairs
    ]


def _train(method: Any, data: _DataSplit, files: RunFiles) -> dict[str, Any]:
    """Train a method, encode the training and the test images, and store their features."""
    start = time.perf_counter()
    fitted = as_encoder(method, data.X) if isinstance(method, nn.Module) else method.fit(data.X, data.y)
    seconds = time.perf_counter() - start
    history: Any = getattr(fitted, "history_", ())
    speed = history["images_per_second"].median() if len(history) else math.nan
    features = {part: np.asarray(fitted.transform(X)) for part, X in (("train", data.X), ("test", data.X_test))}
    encoded = {**features, "seconds": seconds, "images_per_second": speed}
    files.write_features(encoded)
    return encoded
