"""The command line: its commands on small photographs, its help, and what it says when something is wrong."""

import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import skssl
from skssl import cli
from skssl.datasets import make_shapes
from skssl.methods.base import SSLTransformer
from skssl.methods.docstrings import documented

QUICK = [
    "--backbone",
    "convnet",
    "--batch-size",
    "8",
    "--image-shape",
    "16,16",
    "--random-state",
    "0",
    "--verbose",
    "0",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of JPEG files of several sizes in two splits of two classes."""
    folder = tmp_path_factory.mktemp("photos")
    X, y = make_shapes(36, image_size=32, n_classes=2, random_state=0)
    for i, (image, name) in enumerate(zip(X, y, strict=True)):
        path = folder / ("train" if i < 24 else "test") / name / f"{i:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((30 + i % 3, 34 - i % 5)).save(path)
    return folder


@pytest.fixture(scope="module")
def encoder(photos, tmp_path_factory):
    """The file of a trained encoder."""
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    assert run("fit", "SimCLR", photos / "train", "--epochs", "2", "--aux", "rotation", *QUICK, "--out", path) == 0
    return path


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def test_fit_trains_with_the_options(encoder, photos):
    estimator = skssl.load(encoder)
    assert (estimator.aux, estimator.epochs, estimator.image_shape) == ("rotation", 2, (16, 16))
    direct = skssl.SimCLR(
        backbone="convnet", batch_size=8, image_shape=(16, 16), random_state=0, epochs=2, aux="rotation"
    ).fit(sorted(map(str, (photos / "train").rglob("*.jpg"))))
    assert direct.history_["loss"].tolist() == estimator.history_["loss"].tolist()


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet"])
def test_transform_writes_paths_classes_and_features(suffix, encoder, photos, tmp_path, capsys):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / f"features{suffix}"
    assert run("transform", encoder, photos, "--out", out) == 0
    assert capsys.readouterr().out == f"{out}: 128 features of 36 images\n"
    if suffix == ".npz":
        table = np.load(out)
        paths, classes, features = table["path"].tolist(), table["class"].tolist(), table["features"]
    else:
        table = pd.read_csv(out) if suffix == ".csv" else pd.read_parquet(out)
        assert table.columns[:4].tolist() == ["path", "class", "simclr0", "simclr1"]
        paths, classes, features = table["path"].tolist(), table["class"].tolist(), table.iloc[:, 2:].to_numpy()
    assert paths == sorted(map(str, photos.rglob("*.jpg")))
    assert classes == [path.split(os.sep)[-2] for path in paths]
    np.testing.assert_allclose(features, skssl.load(encoder).transform(paths), rtol=1e-6)


def test_fit_uses_the_training_split(photos, tmp_path, capsys):
    for split, n_images in [([], 24), (["--split", "test"], 12), (["--split", "all"], 36)]:
        assert run("fit", "RotNet", photos, *split, "--epochs", "1", *QUICK, "--out", tmp_path / "a") == 0
        assert f"RotNet, 1 epoch of {n_images} images" in capsys.readouterr().out


def test_commands_of_the_readme_run(photos, tmp_path, capsys, monkeypatch):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    commands = [shlex.split(line) for line in re.findall(r"^skssl (.*)$", readme, flags=re.MULTILINE)]
    assert [command[0] for command in commands] == ["fit", "transform", "probe"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(photos)
    for command in commands:
        if not importlib.util.find_spec("pyarrow"):
            command = [word.replace(".parquet", ".csv") for word in command]
        command = ["1" if word == "100" else word for word in command]
        assert run(*command, *(QUICK if command[0] == "fit" else [])) == 0
    assert "24 training and 12 test images" in capsys.readouterr().out


def test_files_without_a_class_are_named_in_one_line(encoder, photos, tmp_path, capsys):
    shutil.copytree(photos / "train", tmp_path / "images")
    shutil.copy(next((photos / "train").rglob("*.jpg")), tmp_path / "images" / "lost.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run("probe", encoder, tmp_path / "images", "--cv", "2") == 0
    shown = capsys.readouterr().err
    assert re.fullmatch(r"skssl: warning: .*1 in no class folder \('lost\.jpg'\)\.\n", shown)


def test_transform_reads_arrays_and_splits(encoder, photos, tmp_path):
    X, y = make_shapes(5, image_size=16, random_state=0)
    np.savez(tmp_path / "data.npz", X=X, y=y)
    estimator = skssl.SimCLR(backbone="convnet", epochs=0, random_state=0).fit(X)
    estimator.save(tmp_path / "arrays.safetensors")
    assert run("transform", tmp_path / "arrays.safetensors", tmp_path / "data.npz", "--out", tmp_path / "a.npz") == 0
    found = np.load(tmp_path / "a.npz")
    assert found["path"].tolist() == list(range(5))
    assert found["class"].tolist() == y.tolist()
    assert np.array_equal(found["features"], estimator.transform(X))
    assert (
        run("transform", encoder, photos, "--split", "test", "--layer", "projector", "--out", tmp_path / "b.npz") == 0
    )
    assert np.load(tmp_path / "b.npz")["features"].shape == (12, 128)


def test_probe_uses_the_test_split(encoder, photos, capsys):
    assert run("probe", encoder, photos) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "24 training and 12 test images"
    assert lines[1].split() == ["probe", "accuracy"]
    linear = float(lines[2].split()[-1])
    files = {split: sorted((photos / split).rglob("*.jpg")) for split in ("train", "test")}
    features = {split: skssl.load(encoder).transform(list(map(str, files[split]))) for split in files}
    classes = {split: [path.parent.name for path in files[split]] for split in files}
    mean, std = features["train"].mean(0), features["train"].std(0)
    scaled = {split: (features[split] - mean) / np.where(std, std, 1) for split in files}
    probe = skssl.LinearProbe().fit(scaled["train"], classes["train"])
    assert linear == pytest.approx(probe.score(scaled["test"], classes["test"]), abs=5e-4)
    assert lines[4].split() == ["most", "frequent", "class", "0.500"]
    assert run("probe", encoder, photos / "train", "--test", photos / "test") == 0
    assert capsys.readouterr().out.splitlines() == lines


def test_probe_cross_validates_without_a_test_split(encoder, photos, capsys):
    assert run("probe", encoder, photos / "train", "--cv", "3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3-fold cross-validation on 24 images"
    assert lines[1].split() == ["probe", "accuracy", "deviation"]
    assert lines[3].startswith("16 nearest neighbours")
    assert run("probe", encoder, photos / "train", "--cv", "13") == 1
    assert "--cv 13 must be at least 2, and at most 12" in capsys.readouterr().err


def test_report_writes_a_page(encoder, photos, tmp_path):
    assert run("report", encoder, photos, "--out", tmp_path / "report.html", "--n-samples", "20") == 0
    page = (tmp_path / "report.html").read_text()
    assert "SimCLR" in page
    assert "2 classes" in page


def test_methods_with_labels_read_the_classes(photos, tmp_path, capsys):
    fit = ["fit", "SupCon", "--epochs", "1", *QUICK, "--out", tmp_path / "a"]
    assert run(*fit[:2], photos, *fit[2:]) == 0
    assert "SupCon, 1 epoch of 24 images, loss" in capsys.readouterr().out
    assert run(*fit[:2], photos / "train" / "disc", *fit[2:]) == 1
    assert "has no classes" in capsys.readouterr().err


def test_methods_are_listed_with_their_papers(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert run("methods") == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines.keys() == {"method", *skssl.methods.__all__}
    assert lines["SimCLR"].endswith("A Simple Framework for Contrastive Learning of Visual Representations, ICML 2020")
    assert "arXiv:2403.06813" in lines["LeOCLR"]
    assert all(cli._paper(cli._summary(getattr(skssl, name))[1])[-4:].isdigit() for name in skssl.methods.__all__)


# Help and usage


def test_help_of_a_method_shows_the_paper_and_each_option(method, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "10000")
    with pytest.raises(SystemExit) as of:
        run("fit", method.__name__, "--help")
    assert of.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert cli._paper(cli._summary(method)[1]) in text
    described = {**documented(method, "Parameters"), **documented(method, "Other Parameters")}
    assert described.keys() == method().get_params(deep=False).keys()
    for name, (_, words) in described.items():
        if name not in ("warm_start_from", "callbacks", "pu_weights"):
            flag = f"--{name.replace('_', '-')}"
            assert flag in text
            assert words.replace("`", "") in text


def test_version_shows_packages_and_devices(capsys):
    with pytest.raises(SystemExit) as of:
        run("--version")
    assert of.value.code == 0
    shown = capsys.readouterr().out
    skssl.show_versions()
    assert capsys.readouterr().out == shown
    for name, value in {
        "skssl": skssl.__version__,
        "torch": torch.__version__.partition("+")[0],
        "threads of torch": torch.get_num_threads(),
        "CUDA devices": "none" if not torch.cuda.is_available() else torch.cuda.get_device_name(0),
    }.items():
        assert re.search(rf"^ +{name}: {re.escape(str(value))}", shown, flags=re.MULTILINE), name


def test_help_does_not_import_torch():
    code = "import sys; from skssl.cli import main\ntry: main(['--help'])\nfinally: print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("usage: skssl")
    assert found.stdout.endswith("False\n")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("int", "12", 12),
        ("float", "1e-3", 0.001),
        ("float or dict of str to float", "0.5", 0.5),
        ("float or dict of str to float", "rotation=1,jigsaw=0.5", {"rotation": 1.0, "jigsaw": 0.5}),
        ("int or tuple of int", "8", 8),
        ("int or tuple of int", "8,16", (8, 16)),
        ("tuple of float", "0.2,1", (0.2, 1.0)),
        ("tuple of float", "0.2", (0.2,)),
        ("int, str or datetime.timedelta", "2", 2),
        ("int, str or datetime.timedelta", "30 s", "30 s"),
        ("int, RandomState instance or None", "7", 7),
        ('{"auto"} or bool', "auto", "auto"),
        ('{"auto"} or bool', "False", False),
        ('{"sgd", "lars"} or torch.optim.Optimizer subclass', "lars", "lars"),
        ("str, task or list of these", "rotation", "rotation"),
        ("str, task or list of these", "rotation,jigsaw", ["rotation", "jigsaw"]),
        ("str or path-like", "a,b", "a,b"),
    ],
)
def test_values_are_read_as_documented(kind, text, value):
    found = cli._reader(kind)(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("kind", ["list of skorch callbacks", "SSLTransformer or FrozenEstimator of one", "array-like"])
def test_values_that_cannot_be_written_have_no_option(kind):
    assert cli._reader(kind) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "SimCRL", "x", "--out", "y"], "Unknown method 'SimCRL', did you mean 'SimCLR'?"),
        (["fit", "SimCLR", "x"], "the following arguments are required: --out"),
        (["fit", "SimCLR", "x", "--out", "y", "--epochs", "1.5"], "argument --epochs: expected int. Got '1.5'"),
        (["fit", "SimCLR", "x", "--out", "y", "--schedule", "none"], "argument --schedule: expected"),
        (["fit", "SimCLR", "x", "--out", "y", "--queue-size", "3"], "unrecognized arguments: --queue-size 3"),
        (["train"], "invalid choice: 'train'"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_wrong_usage_ends_with_status_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as of:
        run(*arguments)
    assert of.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["fit", "SimCLR", "{photos}", "--out", "{tmp}/none/y"],
            "--out {tmp}/none/y cannot be written: there is no folder",
        ),
        (
            ["fit", "SimCLR", "{photos}", "--out", "{tmp}/y", "--epochs", "-1"],
            "The 'epochs' parameter of SimCLR must be",
        ),
        (["fit", "SimCLR", "{tmp}/none", "--out", "{tmp}/y"], "there is no such folder or file"),
        (["transform", "{tmp}/none", "{photos}", "--out", "{tmp}/y.csv"], "No such file or directory: '{tmp}/none'"),
        (["transform", "{encoder}", "{photos}", "--out", "{tmp}/y.txt"], "Unknown suffix of --out '.txt'"),
        (["transform", "{encoder}", "{photos}", "--out", "{tmp}/y.csv", "--layer", "conv9"], "Unknown layer 'conv9'"),
        (["probe", "{encoder}", "{photos}/test/disc"], "has no classes, but images at <class>/<file> were expected"),
    ],
)
def test_errors_are_one_line_with_status_1(arguments, message, photos, encoder, tmp_path, capsys):
    fill = {"photos": photos, "tmp": tmp_path, "encoder": encoder}
    assert run(*(argument.format(**fill) for argument in arguments)) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("skssl: ")
    assert message.format(**fill) in shown.err
    assert shown.err.count("\n") == 1
    assert not os.listdir(tmp_path)
    index = 1
    assert (
        run(
            *(argument.format(**fill) for argument in arguments[:index]),
            "--debug",
            *(argument.format(**fill) for argument in arguments[index:]),
        )
        == 1
    )
    assert capsys.readouterr().err.startswith("Traceback (most recent call last)")


def test_parquet_without_pyarrow_is_refused(encoder, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run("transform", encoder, photos, "--out", tmp_path / "a.parquet") == 1
    assert capsys.readouterr().err.startswith("skssl: Writing '.parquet' needs pyarrow: pip install pyarrow.")


def test_files_of_other_estimators_are_refused(tmp_path, capsys):
    skssl.KNNProbe(n_neighbors=1).fit(np.eye(4), [0, 1, 0, 1]).save(tmp_path / "knn")
    assert run("transform", tmp_path / "knn", tmp_path, "--out", tmp_path / "a.csv") == 1
    assert "holds a KNNProbe, but an encoder was expected" in capsys.readouterr().err


# Ctrl-C


def test_ctrl_c_saves_what_was_trained(photos, tmp_path, capsys, monkeypatch):
    after_step = SSLTransformer.after_step

    def interrupt(self, net, step, progress):
        after_step(self, net, step, progress)
        if progress > 0.5:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(SSLTransformer, "after_step", interrupt)
    out = tmp_path / "encoder.safetensors"
    assert run("fit", "SimCLR", photos, "--epochs", "4", *QUICK, "--out", out) == 130
    assert f"interrupted in epoch 3 of 4; saved what was trained to {str(out)!r}.\n" in capsys.readouterr().err
    assert len(skssl.load(out).history_) == 2


def test_the_command_in_a_process_of_its_own(photos, tmp_path):
    """Ctrl-C ends a training with status 130, and the same command resumes it from the checkpoint."""
    out = tmp_path / "encoder.safetensors"
    command = [sys.executable, "-m", "skssl", "fit", "RotNet", str(photos), *QUICK, "--out", str(out)]
    command += ["--checkpoint", str(tmp_path / "state"), "--checkpoint-every", "1", "--verbose", "1", "--epochs", "300"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        started = time.monotonic()
        while not (tmp_path / "state" / "training.safetensors").exists():
            assert process.poll() is None
            assert time.monotonic() - started < 60
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in shown
    assert f"saved what was trained to {str(out)!r}; the same command resumes the training.\n" in shown
    assert len(skssl.load(out).history_) >= 1
