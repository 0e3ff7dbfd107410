"""The command line: ``skssl fit``, ``transform``, ``probe``, ``report`` and ``methods``.

Everything that imports torch is imported where it is used, so that ``skssl --help`` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import shutil
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from skssl.methods.base import SSLTransformer

DESCRIPTION = """\
Self-supervised learning of visual representations.

  skssl fit SimCLR photos/ --backbone convnet --epochs 100 --out encoder.safetensors
  skssl transform encoder.safetensors photos/ --out features.csv
  skssl probe encoder.safetensors photos/
"""
IMAGES = (
    "a folder, an archive, an .npz file or the name of a data set, as for skssl.datasets.load_images; for methods on "
    "clips a folder of folders of frames or of videos"
)
SPLIT = "a split, such as train; by default all images in a folder, and the training images of other data"
FIT_SPLIT = "a split, or all; by default train if the images have splits"
TEST_SPLITS = ("test", "testing", "val", "valid", "validation", "dev")
INTERRUPTED = 128 + 2  # exit status after SIGINT, as in shells


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, default=None
        The arguments, by default those of the process.

    Returns
    -------
    int
        The exit status: 0, 1 after an error, which is printed in one line on stderr, or 130 after Ctrl-C.

    Raises
    ------
    SystemExit
        With status 2 if the arguments are wrong, and with status 0 after ``--help`` and ``--version``.

    Examples
    --------
    >>> from skssl.cli import main
    >>> main(["transform", "none.safetensors", "photos", "--out", "features.csv"])
    1
    """
    arguments = _parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _print_warning
            arguments.run(arguments)
            sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe, such as head, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if arguments.debug:
            traceback.print_exc()
        else:
            print(f"skssl: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 1
    return 0


def _print_warning(message: Warning | str, *where: Any, **more: Any) -> None:
    """Print a warning without its place in the code."""
    print(f"skssl: warning: {message}", file=sys.stderr)


class _ShowVersions(argparse.Action):
    """An option that prints the versions of all packages."""

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
        from skssl.storage.version import show_versions

        show_versions()
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    """Return the parser of all commands. The options of a method are added later, since they need its class."""
    parser = argparse.ArgumentParser(
        "skssl", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", nargs=0, action=_ShowVersions, help="show the versions of all packages and exit")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(run: Callable[[Any], None], name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        added.set_defaults(run=run)
        added.add_argument("--debug", action="store_true", help="show the traceback of an error")
        return added

    fit = command(_fit, "fit", "train an encoder on images")
    fit.add_argument("method", metavar="METHOD", help="such as SimCLR; see skssl methods and skssl fit SimCLR --help")
    fit.add_argument(
        "rest", metavar="...", nargs=argparse.REMAINDER, help="images, --out FILE, and the method's options"
    )
    fit.set_defaults(fail=fit.error)
    transform = command(_transform, "transform", "write the features of images to a table")
    probe = command(_probe, "probe", "score an encoder by classifying the features of images with known classes")
    report = command(_report, "report", "write an HTML report of an encoder")
    for added in (transform, probe, report):
        added.add_argument("encoder", metavar="ENCODER", help="a file of skssl fit")
        added.add_argument("images", metavar="IMAGES", help=IMAGES)
        added.add_argument("--layer", default="backbone", help="the layer of the features (default: backbone)")
        added.add_argument("--split", help=SPLIT)
    transform.add_argument(
        "--out", required=True, metavar="FILE", help="the table: .parquet, .csv or .npz, with the paths of the images"
    )
    probe.add_argument("--test", metavar="IMAGES", help="test images; by default a split such as test, or --cv")
    probe.add_argument("--cv", type=int, default=5, help="folds of the cross-validation (default: 5)")
    probe.add_argument("--random-state", type=int, default=0, help="seed of the folds (default: 0)")
    report.add_argument("--out", default="report.html", metavar="FILE", help="the page (default: report.html)")
    report.add_argument("--n-samples", type=int, default=1000, help="images in the report, at most (default: 1000)")
    command(_methods, "methods", "list the methods and their papers")
    return parser


# The commands.


def _fit(arguments: argparse.Namespace) -> None:
    """Train a method and save it, also after Ctrl-C."""
    from skssl.nn.distributed import is_main_process

    cls = _method(arguments.method, arguments.fail)
    options = vars(_fit_parser(cls).parse_args(arguments.rest))
    arguments.debug = options.pop("debug") or arguments.debug
    source, split, out = (options.pop(name) for name in ("images", "split", "out"))
    _check_folder(out)
    estimator = cls(**{"verbose": 1, **options})
    if cls.__name__ == "AudioVisual":
        raise ValueError("AudioVisual learns from sounds, too, which skssl fit cannot read. Call it from Python.")
    if split is None and os.path.isdir(source) and "train" in _splits(estimator, source):
        split = "train"
    X, y, _ = _read_images(estimator, source, None if split == "all" else split, classes=estimator.uses_labels)
    y = y if estimator.uses_labels else None
    try:
        estimator.fit(X, y)
    except KeyboardInterrupt:
        if hasattr(estimator, "net_") and is_main_process():
            estimator.save(out)
            again = "; the same command resumes the training" if estimator.checkpoint else ""
            done = f"interrupted in epoch {len(estimator.net_.history)} of {estimator.epochs}"
            print(f"\nskssl: {done}; saved what was trained to {out!r}{again}.", file=sys.stderr)
        raise
    if is_main_process():
        estimator.save(out)
        n_epochs, n_images = len(estimator.history_), estimator.net_.module_.n_samples
        loss = f", loss {estimator.history_['loss'].iloc[-1]:.4g}" if n_epochs else ""
        unit = _unit(estimator)
        print(f"{out}: {cls.__name__}, {n_epochs} epoch{'s' * (n_epochs != 1)} of {n_images:,} {unit}{loss}")


def _transform(arguments: argparse.Namespace) -> None:
    """Write features to a table."""
    import numpy as np
    import pandas as pd

    from skssl.errors import pick
    from skssl.storage.files import atomic_write

    out, suffix = arguments.out, Path(arguments.out).suffix
    pick("suffix of --out", suffix, dict.fromkeys((".parquet", ".csv", ".npz")))
    if suffix == ".parquet" and not importlib.util.find_spec("pyarrow"):
        raise ImportError("Writing '.parquet' needs pyarrow: pip install pyarrow. '.csv' and '.npz' do not need it.")
    _check_folder(out)
    encoder = _load(arguments.encoder)
    X, y, paths = _read_images(encoder, arguments.images, arguments.split)
    features = _features(encoder, X, arguments.layer)
    known = {"path": np.arange(len(features)) if paths is None else np.array(paths)}
    known |= {} if y is None else {"class": np.asarray(y)}
    with atomic_write(out) as file:
        if suffix == ".npz":
            np.savez(file, allow_pickle=False, **known, features=features)
        else:
            name = type(encoder).__name__.lower()
            columns = [f"{name}{i}" for i in range(features.shape[1])]
            table = pd.concat([pd.DataFrame(known), pd.DataFrame(features, columns=columns)], axis=1)
            table.to_csv(file, index=False, mode="wb") if suffix == ".csv" else table.to_parquet(file, index=False)
    print(f"{out}: {features.shape[1]} features of {len(features):,} {_unit(encoder)}")


def _probe(arguments: argparse.Namespace) -> None:
    """Print the accuracies of a linear and of a kNN classifier, and that of the most frequent class."""
    import numpy as np
    import pandas as pd
    from sklearn.dummy import DummyClassifier
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from skssl.probes import KNNProbe, LinearProbe

    encoder = _load(arguments.encoder)
    source, split, test, test_split = arguments.images, arguments.split, arguments.test, None
    if test is None and split is None and os.path.isdir(source):
        test_split = next((name for name in TEST_SPLITS if name in _splits(encoder, source)), None)
        test = source if test_split else None
    X, y, _ = _read_images(encoder, source, split, classes=True)
    features, n = _features(encoder, X, arguments.layer), len(y)
    if test is not None:
        X_test, y_test, _ = _read_images(encoder, test, test_split, classes=True)
        splits = [(np.arange(n), np.arange(n, n + len(y_test)))]
        features, y = np.concatenate([features, _features(encoder, X_test, arguments.layer)]), np.append(y, y_test)
        print(f"{n:,} training and {len(y_test):,} test {_unit(encoder)}")
    else:
        classes, sizes = np.unique(y, return_counts=True)
        if not 2 <= arguments.cv <= sizes.min():
            raise ValueError(
                f"--cv {arguments.cv} must be at least 2, and at most {sizes.min()}, the number of {_unit(encoder)} of "
                f"the class {classes[sizes.argmin()]!r}."
            )
        folds = StratifiedKFold(arguments.cv, shuffle=True, random_state=arguments.random_state)
        splits = list(folds.split(features, y))
        print(f"{arguments.cv}-fold cross-validation on {n:,} {_unit(encoder)}")
    n_neighbors = min(20, *(len(train) for train, _ in splits))
    probes = {
        "linear": make_pipeline(StandardScaler(), LinearProbe()),
        f"{n_neighbors} nearest neighbours": KNNProbe(n_neighbors=n_neighbors),
        "most frequent class": DummyClassifier(),
    }
    rows = []
    for name, probe in probes.items():
        scores = [probe.fit(features[train], y[train]).score(features[rest], y[rest]) for train, rest in splits]
        rows.append([name, np.mean(scores), *([np.std(scores)] if len(scores) > 1 else [])])
    table = pd.DataFrame(rows, columns=["probe", "accuracy", "deviation"][: len(rows[0])])
    print(table.to_string(index=False, float_format="{:.3f}".format))


def _report(arguments: argparse.Namespace) -> None:
    """Write an HTML report, with the classes if the images have some."""
    from skssl.display import report

    _check_folder(arguments.out)
    encoder = _load(arguments.encoder)
    X, y, _ = _read_images(encoder, arguments.images, arguments.split)
    report(encoder, X, y, arguments.out, layer=arguments.layer, n_samples=arguments.n_samples)
    print(arguments.out)


def _methods(arguments: argparse.Namespace) -> None:
    """Print the methods in columns that fit the terminal: name, idea and paper."""
    from skssl import methods

    rows = [("method", "idea", "paper")]
    for name in sorted(methods.__all__, key=str.lower):
        idea, references = _summary(getattr(methods, name))
        head, _, rest = idea.partition(": ")
        rows.append((name, (rest or head).rstrip("."), _paper(references)))
    first = max(len(name) for name, _, _ in rows)
    width = max(20, (_width() - first - 2) // 2)
    for name, *texts in rows:
        columns = [textwrap.wrap(text, width) or [""] for text in texts]
        for i in range(max(map(len, columns))):
            idea, paper = (column[i] if i < len(column) else "" for column in columns)
            print(f"{'' if i else name:{first}}  {idea:{width}}  {paper}".rstrip())


# Encoders, images and files.


def _load(path: str) -> Any:
    """Load an encoder; refuse classifiers."""
    from skssl.api import load
    from skssl.methods.base import SSLTransformer

    encoder = load(path)
    if not isinstance(encoder, SSLTransformer):
        raise TypeError(f"{path!r} holds a {type(encoder).__name__}, but an encoder was expected, as skssl fit saves.")
    return encoder


def _features(encoder: SSLTransformer, X: Any, layer: str) -> np.ndarray:
    """Return the features of images at a layer."""
    from skssl.probes.encoders import as_encoder

    return as_encoder(encoder, X, layer=layer).transform(X)


def _reads_clips(estimator: SSLTransformer) -> bool:
    """Return whether an estimator trains on clips."""
    from skssl.methods.clips import ClipMethod

    return isinstance(estimator, ClipMethod)


def _unit(estimator: SSLTransformer) -> str:
    """Return what the samples of an estimator are called."""
    return "clips" if _reads_clips(estimator) else "images"


def _read_images(
    estimator: SSLTransformer, source: str, split: str | None, classes: bool = False
) -> tuple[Any, Any, list[str] | None]:
    """Return images or clips, their classes if they are known, and their paths if they lie in a folder.

    Without a split, all images in a folder are used, or those of the training split if `classes` must be known.
    """
    import numpy as np

    from skssl.datasets import load_images
    from skssl.images.clips import ClipFiles
    from skssl.images.folders import choose_split, classes_of, find_images, image_paths, warn_of_left_out

    y: Any
    paths: list[str] | None = None
    if not os.path.isdir(source):
        X, y = load_images(source, split or "train")
    elif _reads_clips(estimator):
        clips = ClipFiles(source)
        by_name = dict(zip(clips.names, clips, strict=True))
        chosen, y = clips.names, classes_of(clips.names)
        if split is not None or classes:
            chosen, y, left_out = choose_split(clips.names, split or "train", source)
            warn_of_left_out(source, len(chosen), left_out)
        y = None if y is None or None in y else y
        X, paths = [by_name[name] for name in chosen], [os.path.join(source, name) for name in chosen]
    elif split is None and not classes:
        X = paths = image_paths(source)
        steps = [os.path.relpath(path, source).split(os.sep) for path in paths]
        depth = int(bool(_splits(estimator, source)))  # of the class folders
        y = [names[depth] for names in steps] if all(len(names) > depth + 1 for names in steps) else None
    else:
        files, left_out = find_images(source)
        chosen, y, outside = choose_split(files, split or "train", source)
        warn_of_left_out(source, len(chosen), outside | left_out)
        X = paths = [os.path.join(source, file) for file in chosen]
    if classes and y is None:
        raise ValueError(f"{source!r} has no classes, but images at <class>/<file> were expected.")
    return X, None if y is None else np.asarray(y), paths


def _splits(estimator: SSLTransformer, folder: str) -> list[str]:
    """Return the names of the splits in a folder."""
    from skssl.images.clips import ClipFiles
    from skssl.images.folders import find_images, split_names

    names = ClipFiles(folder).names if _reads_clips(estimator) else find_images(folder)[0]
    return split_names([name.split("/") for name in names], "train")


def _check_folder(out: str) -> None:
    """Refuse a file to write whose folder does not exist, before hours of training."""
    folder = os.path.dirname(os.path.abspath(out))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"--out {out} cannot be written: there is no folder {folder!r}.")
    if os.path.isdir(out) or not os.access(folder, os.W_OK):
        raise PermissionError(f"--out {out} cannot be written: it is a folder, or its folder is read-only.")


# The options of a method, from its parameters and their documentation.


def _method(name: str, fail: Callable[[str], Any]) -> type[SSLTransformer]:
    """Return the class of a method; end with a usage error if there is no such method."""
    from skssl import methods
    from skssl.errors import pick

    try:
        return pick("method", name, {known: getattr(methods, known) for known in methods.__all__})
    except ValueError as error:
        return fail(str(error))


def _fit_parser(cls: type[SSLTransformer]) -> argparse.ArgumentParser:
    """Return the parser of ``skssl fit`` for a method, with an option for each of its parameters."""
    from skssl.methods.docstrings import documented

    idea, references = _summary(cls)
    parser = argparse.ArgumentParser(
        f"skssl fit {cls.__name__}",
        usage=f"skssl fit {cls.__name__} IMAGES --out FILE [options]",
        description=f"{idea}\n\n{textwrap.fill(f'Paper: {references}', _width())}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("images", metavar="IMAGES", help=IMAGES)
    parser.add_argument("--out", required=True, metavar="FILE", help="the file of the trained encoder (.safetensors)")
    parser.add_argument("--split", default=None, help=FIT_SPLIT)
    parser.add_argument("--debug", action="store_true", default=False, help="show the traceback of an error")
    titles = {"Parameters": f"options of {cls.__name__}", "Other Parameters": "options of all methods"}
    for section, title in titles.items():
        group = parser.add_argument_group(title)
        for name, (kind, text) in documented(cls, section).items():
            _add_option(group, name, kind, text)
    return parser


def _add_option(group: Any, name: str, kind: str, text: str) -> None:
    """Add an option for a documented parameter, unless its values cannot be written on a command line."""
    flag = f"--{name.replace('_', '-')}"
    kind, _, default = kind.partition(", default=")
    if name == "verbose":
        default = "1"
    shown = "" if default in ("", "None") else f" (default: {default.strip(chr(34))})"
    words = re.sub(r"`{1,2}", "", text).replace("%", "%%") + shown.replace("%", "%%")
    if kind == "bool":
        group.add_argument(flag, action=argparse.BooleanOptionalAction, help=words)
    elif (read := _reader(kind)) is not None:
        group.add_argument(flag, type=read, metavar=_metavar(kind), help=words)


def _choices(kind: str) -> list[str]:
    """Return the names that a documented type lists in braces."""
    return re.findall(r'"([^"]+)"', " ".join(re.findall(r"\{.*?\}", kind)))


def _reader(kind: str) -> Callable[[str], Any] | None:
    """Return a function that reads a value of a documented type from text, or None if no value can be written."""
    names, words = _choices(kind), re.sub(r"\{.*?\}", "", kind)
    item = next((of for of in (int, float) if re.search(rf"\b(tuple|sequence|list) of {of.__name__}\b", words)), None)
    several = "list of these" in words
    single = re.sub(r"\b(tuple|sequence|list|dict) of [\w ]+", "", words)
    numbers = [of for of in (int, float) if re.search(rf"\b{of.__name__}\b", single)]
    is_text = re.search(r"\b(str|path-like)\b", single) is not None
    if not (names or numbers or item or is_text or "bool" in single):
        return None

    def read(text: str) -> Any:
        if text in names:
            return text
        if "bool" in single and text.lower() in ("true", "false"):
            return text.lower() == "true"
        with contextlib.suppress(ValueError):
            if "dict of str to float" in words and "=" in text:
                return {key: float(value) for key, _, value in (pair.partition("=") for pair in text.split(","))}
            if item and ("," in text or not (numbers or is_text)):
                return tuple(item(part) for part in text.split(","))
            for of in numbers:
                with contextlib.suppress(ValueError):
                    return of(text)
        if is_text:
            return text.split(",") if several and "," in text else text
        raise argparse.ArgumentTypeError(f"expected {kind}. Got {text!r}")

    return read


def _metavar(kind: str) -> str:
    """Return what stands for a value of a documented type in the help."""
    if names := _choices(kind):
        return f"{{{','.join(names + ['true', 'false'] * ('bool' in kind))}}}"
    kinds = {
        "dict of str to float": "FLOAT|NAME=FLOAT,...",
        "tuple of": "NUMBER,...",
        "list of these": "NAME,...",
        "int, str": "INT|TEXT",
        "int": "INT",
        "float": "FLOAT",
        "path": "PATH",
    }
    return next((shown for word, shown in kinds.items() if word in kind), "NAME")


def _summary(cls: type) -> tuple[str, str]:
    """Return the first sentence of a class's docstring, and its references."""
    from skssl.methods.docstrings import sections

    found = sections(cls)
    return found[""].partition("\n\n")[0].replace("\n", " "), re.sub(
        r"`{1,2}", "", " ".join(found["References"].split())
    )


def _paper(references: str) -> str:
    """Return the first paper of the references: authors, title, venue and year."""
    found = re.match(r".*?(arXiv:[\d.]+\d|\b(19|20)\d\d\b)", references)
    return found[0] if found else references


def _width() -> int:
    """Return the width of the terminal in characters."""
    return shutil.get_terminal_size((120, 24)).columns - 2
