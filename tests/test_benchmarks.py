"""The benchmarks: the list, resumed runs, the parts for GPUs, and the records."""

import argparse
import functools
import importlib
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK, quick
from PIL import Image
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

import skssl
from skssl import LinearProbe, recipes
from skssl.callbacks import KNNMonitor
from skssl.datasets import make_shapes
from skssl.transfer.benchmark_datasets import BENCHMARK_DATASETS

ROOT = Path(__file__).parents[1]
tables = pytest.importorskip("benchmarks.tables", reason="the benchmarks are not installed")
accumulate, curves, demo, gpu, methods, papers, photographs, record, transfer = (
    importlib.import_module(f"benchmarks.{name}")
    for name in ("accumulate", "curves", "demo", "gpu", "methods", "papers", "photographs", "record", "transfer")
)


def test_benchmarks_are_listed_by_name(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmarks"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("benchmarks.__main__").main()
    for name in ("throughput", "methods", "probes", "scaling", "tables", "gpu", "sharing", "photographs"):
        assert f"\n  {name} " in ended.value.code


def test_features_of_whitened_patches_equal_those_patch_by_patch():
    patches = importlib.import_module("benchmarks.patches")
    X, _ = make_shapes(6, image_size=12, random_state=0)
    encoder = patches.WhitenedPatches(n_patches=3).fit(X)
    filters, bias = (of.double().numpy() for of in (encoder.filters_, encoder.bias_))
    expected = np.zeros((6, 6, 2, 2))
    for i, row, column in np.ndindex(6, 7, 7):
        patch = X[i, row : row + 6, column : column + 6].transpose(2, 0, 1).ravel() / 255
        patch = (patch - patch.mean()) / np.sqrt(patch.var() + 1e-3)
        response = filters.reshape(3, -1) @ patch - bias
        both = np.maximum(np.concatenate([response, -response]) - 0.25, 0)
        for down, right in np.ndindex(2, 2):  # the cells share the middle row and column of 7
            if 3 * down <= row <= 3 * down + 3 and 3 * right <= column <= 3 * right + 3:
                expected[i, :, down, right] += both / 16
    np.testing.assert_allclose(encoder.transform(X), expected.reshape(6, -1), atol=1e-5)


def test_sound_maps_point_into_boxes():
    clips = pytest.importorskip("benchmarks.clips")
    masks = np.zeros((2, 4, 4), bool)
    masks[:, 1, 1] = masks[:, 2, 2] = True  # a box of four pixels
    maps = np.zeros((2, 4, 4))
    maps[0, 1, 2] = maps[1, 3, 2] = 1.0
    assert clips.within_box(maps, masks) == (0.5, 0.25)


def test_help_of_the_tables_lists_the_rows(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tables", "--help"])
    with pytest.raises(SystemExit, match="0"):
        tables.main()
    assert "by 30 % of" in capsys.readouterr().out


def test_stopped_run_of_the_tables_resumes(tmp_path):
    X = np.random.default_rng(0).integers(0, 256, (200, 16, 16, 3), dtype=np.uint8)
    method = quick(skssl.SimCLR, epochs=12, checkpoint=tmp_path / "state")
    assert not tables.train(clone(method), X, None, until=time.monotonic() + 0.3)
    resumed = clone(method)
    assert tables.train(resumed, X, None, until=float("inf"))
    assert len(resumed.history_) == 12
    assert np.array_equal(resumed.transform(X), method.set_params(checkpoint=None, callbacks=None).fit(X).transform(X))


def test_tables_are_evaluated_by_the_probes_of_their_recipes(X, y):
    encoder = quick(skssl.MoCo, queue_size=8).fit(X)
    recipe = recipes.CIFAR10["MoCo, symmetric"]
    recipe = {
        **recipe,
        "protocol": {"linear": {"protocol": "moco", "epochs": 2}, "knn": {"n_neighbors": 3, "layer": "projector"}},
    }
    found = tables.evaluate(encoder, recipe, X, y, X, y)
    probes = recipes.make_probes(recipe, FrozenEstimator(encoder))
    assert found["knn"] == probes["knn"].fit(X, y).score(X, y)
    assert found["linear"] == probes["linear"].set_params(random_state=0).fit(X, y).score(X, y)
    fixed = LinearProbe(protocol="moco", epochs=2, random_state=0).fit(encoder.transform(X), y)
    scored = tables.evaluate(encoder, recipe, X, y, X, y, fixed_features=True)["linear"]
    assert scored == fixed.score(encoder.transform(X), y)
    assert "linear_top5" not in found


def test_tables_record_the_top_5_accuracy_of_100_classes():
    X = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
    y = np.char.add("n", np.arange(100).astype(str))[np.arange(300) % 100]
    encoder = quick(skssl.SimCLR, epochs=0).fit(X)
    recipe = {"protocol": {"linear": {}, "knn": {"n_neighbors": 1}}}
    found = tables.evaluate(encoder, recipe, X[:250], y[:250], X[50:], y[50:], fixed_features=True)
    probe = LinearProbe().fit(encoder.transform(X[:250]), y[:250])
    best = np.argsort(probe.predict_proba(encoder.transform(X[50:])))[:, -5:]
    assert found["linear_top5"] == (probe.classes_[best] == y[50:, None]).any(1).mean() > found["linear"]


class Parsed(Exception):
    """The arguments of a command, raised in place of running it."""


@functools.cache
def parse(command):
    """Return the script of a command and its parsed arguments."""
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "benchmarks"]
    original = argparse.ArgumentParser.parse_args

    def stop(self, *args, **kwargs):
        raise Parsed(original(self, *args, **kwargs))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(sys, "argv", words[3:])
        with pytest.raises(Parsed) as parsed:
            importlib.import_module(f"benchmarks.{words[3]}").main()
    return words[3], parsed.value.args[0]


COMMANDS = [(entry, where, command) for entry in papers.ENTRIES for where, command in entry.commands()]


@pytest.mark.parametrize(("entry", "where", "command"), COMMANDS, ids=[of[0].item for of in COMMANDS])
def test_commands_of_the_papers_are_valid(entry, where, command):
    script, asked = parse(command)
    assert entry.paper in papers.PAPERS
    assert where in papers.PLACES
    if script in ("tables", "curves") and asked.data is not None:
        assert set(asked.names) <= set(tables.DATA[asked.data])
        assert where == ("cluster" if asked.data == "imagenet" else "one GPU")
    elif script == "transfer":
        saved = [
            f"{tables.file_name(of.data, name, 0)}.safetensors"
            for script, of in (parse(other) for _, _, other in COMMANDS)
            if script == "tables" and of.save is not None
            for name in of.names
        ]
        assert {file.name for file in asked.encoders} <= set(saved)
        assert set(asked.linear) <= set(BENCHMARK_DATASETS)
        assert asked.fine_tune or asked.linear or asked.folder
    elif hasattr(asked, "names"):
        assert set(asked.names) <= {"pixels", *methods.METHODS}


def test_every_recipe_of_the_papers_is_named_by_a_command():
    named = set()
    for _, _, command in COMMANDS:
        script, asked = parse(command)
        if script in ("tables", "curves"):
            named |= {(asked.data, name) for name in asked.names}
        elif script == "transfer":
            named |= {("fine-tuning", title) for title in asked.fine_tune} | {("dense", asked.dense)}
    sets = {**tables.DATA, "fine-tuning": recipes.FINE_TUNING, "dense": recipes.DENSE}
    of_papers = {
        (data, title)
        for data, found in sets.items()
        for title, recipe in found.items()
        if any(paper in recipe["source"] for paper in papers.PAPERS)
    }
    assert len(of_papers) > 90
    assert of_papers <= named


def test_list_of_the_papers(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tables", "--list"])
    tables.main()
    text = capsys.readouterr().out
    for entry in papers.ENTRIES:
        assert f"  {entry.item}: {entry.shows}\n" in text
        assert entry.runs or entry.note, "an entry without a command says why"
    for paper, title in papers.PAPERS.items():
        assert f"{paper}: {title}\n" in text
    assert len({(entry.paper, entry.item) for entry in papers.ENTRIES}) == len(papers.ENTRIES)


def test_unknown_row_or_missing_maps_or_data_are_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("SKSSL_CACHE", str(tmp_path))
    monkeypatch.delenv("SKSSL_DATA", raising=False)
    for words, said in (
        (["SimCLR2"], "cifar10 has no row 'SimCLR2'. Its rows: RotNet, SimCLR, "),
        (["BYOL, 25 % saliency-guided crops", "--data", "imagenet100"], "saliency-guided crops' needs --saliency"),
    ):
        monkeypatch.setattr(sys, "argv", ["tables", *words])
        with pytest.raises(SystemExit):
            tables.main()
        assert said in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["tables", "BYOL", "--data", "imagenet100"])
    with pytest.raises(SystemExit, match="The data set 'imagenet100' cannot be loaded: "):
        tables.main()


@pytest.fixture
def tiny(X, y, monkeypatch):
    """Data sets of twelve classes, and recipes that train in a fraction of a second."""
    labels = np.arange(len(X)) % 12
    monkeypatch.setattr(tables, "load", lambda data, images: (X[:images], labels[:images], X, labels))
    views = [skssl.Augmentation(good_crops=0.5)] * 2
    small = {"linear": {"protocol": "moco", "epochs": 1}, "knn": {"n_neighbors": 3}}
    for name, params in (("SimCLR", {}), ("BYOL, saliency", {"augment": views})):
        method = skssl.SimCLR
        recipe = {"method": method.__name__, "params": {**quick(method).get_params(deep=False), **params}}
        recipe |= {"linear": 50.0, "knn": None, "protocol": small}
        recipe["params"] = {
            k: v for k, v in recipe["params"].items() if k not in ("random_state", "verbose", "compile")
        }
        monkeypatch.setitem(tables.DATA["imagenet100"], name, recipe)
    return X, labels


def test_tables_of_other_data_sets_are_recorded_and_saved(tiny, tmp_path, monkeypatch, capsys):
    X, _ = tiny
    where = ["--state", str(tmp_path / "state"), "--results", str(tmp_path), "--save", str(tmp_path / "encoders")]
    command = ["tables", "SimCLR", "--data", "imagenet100", "--images", "32", *where]
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", command)
        tables.main()
    assert "already recorded" in capsys.readouterr().out
    (row,) = pd.read_csv(tmp_path / "tables.csv").to_dict("records")
    assert (row["data"], row["method"], row["backbone"], row["images"]) == ("imagenet100", "SimCLR", "convnet", 32)
    assert (row["paper_linear"], 0 <= row["linear"] <= 1) == (50.0, True)
    encoder = skssl.load(tmp_path / "encoders" / "imagenet100-SimCLR-0.safetensors")
    assert encoder.transform(X[:3]).shape == (3, 128)
    assert not list((tmp_path / "state").rglob("*.safetensors"))

    monkeypatch.setattr(transfer, "load", tables.load)
    monkeypatch.setitem(recipes.FINE_TUNING, "tiny, 50 %", {"method": "FineTuner", "params": {"batch_size": 16}})
    file = str(tmp_path / "encoders" / "imagenet100-SimCLR-0.safetensors")
    options = ["--data", "imagenet100", "--fine-tune", "tiny, 50 %", "--epochs", "1", "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["transfer", file, *options])
    transfer.main()
    rows = pd.read_csv(tmp_path / "transfer.csv")
    assert rows["measure"].tolist() == ["top-1", "top-5"]
    assert rows["score"].is_monotonic_increasing
    assert set(rows["task"]) == {"fine-tuning, tiny, 50 %"}

    recipe = {"method": "SegmentationTransfer", "params": {"image_size": 32, "width": 8, "batch_size": 2}}
    monkeypatch.setitem(recipes.DENSE, "tiny", recipe)
    folder = skssl.datasets.make_voc_folder(tmp_path / "voc", 4, image_size=32, random_state=0)
    options = ["--dense", "tiny", "--folder", str(folder), str(folder), "--test-folder", str(folder)]
    monkeypatch.setattr(sys, "argv", ["transfer", file, *options, "--epochs", "1", "--results", str(tmp_path)])
    transfer.main()
    dense = pd.read_csv(tmp_path / "transfer.csv").iloc[2:]
    assert set(dense["task"]) == {"tiny"}
    assert set(dense["data"]) == {"voc"}
    assert dense["score"].between(0, 1).all()
    monkeypatch.setattr(sys, "argv", ["transfer", file, "--dense", "tiny"])
    with pytest.raises(SystemExit):
        transfer.main()
    assert "--dense and --folder go together" in capsys.readouterr().err


def test_tables_give_the_maps_to_all_views(tiny, tmp_path, monkeypatch):
    X, _ = tiny
    maps = np.random.default_rng(0).random((len(X), 4, 4), dtype=np.float32)
    np.save(tmp_path / "maps.npy", maps)
    seen = []
    monkeypatch.setattr(tables, "train", lambda estimator, *rest: seen.append(estimator.augment))
    where = ["--saliency", str(tmp_path / "maps.npy"), "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["tables", "BYOL, saliency", "--data", "imagenet100", *where])
    tables.main()
    assert [view.good_crops for view in seen[0]] == [0.5, 0.5]
    assert all(np.array_equal(view.saliency, maps) for view in seen[0])
    np.save(tmp_path / "maps.npy", maps[:5])
    with pytest.raises(SystemExit, match=f"a map for each of the {len(X)} training images. Got 5"):
        tables.main()


def test_images_are_chosen_in_the_order_of_the_data_set(monkeypatch, X):
    labels = np.arange(len(X))
    monkeypatch.setattr(tables, "load_images", lambda name, split: (list(X), labels))
    chosen, kept, test, test_labels = tables.load("imagenet", 10)
    assert (np.diff(kept) > 0).all()
    assert len(kept) == 10
    assert all(image is X[i] or np.array_equal(image, X[i]) for image, i in zip(chosen, kept, strict=True))
    assert len(test) == len(test_labels) == len(X)
    assert tables.load("imagenet")[1].tolist() == labels.tolist()


def test_curves_have_a_row_for_each_epoch_and_resume(X, y, tmp_path, monkeypatch, capsys):
    small = {"knn": {"n_neighbors": 3}, "linear": {}}
    params = {k: v for k, v in quick(skssl.SimCLR).get_params(deep=False).items() if k in ("backbone", "batch_size")}
    recipe = {"method": "SimCLR", "params": {**params, "epochs": 3}, "protocol": small}
    monkeypatch.setitem(tables.DATA["cifar10"], "tiny", recipe)
    monkeypatch.setattr(curves, "load", lambda *_: (X, y, X, y))
    where = ["--state", str(tmp_path / "state"), "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["curves", "tiny", "--data", "cifar10", *where])
    for _ in range(2):
        curves.main()
    assert "already recorded" in capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "curves.csv")
    assert rows["epoch"].tolist() == [1, 2, 3]
    assert rows["knn"].between(0, 1).all()
    estimator = recipes.make(recipe, random_state=0, callbacks=[KNNMonitor(X, y, X, y, n_neighbors=3)]).fit(X, y)
    assert rows["knn"].tolist() == pytest.approx(estimator.history_["knn"].tolist())


def test_curves_of_the_figures_exist():
    for small, large in curves.FIGURES.values():
        assert set(small) <= set(methods.METHODS)
        assert set(large) <= set(recipes.CIFAR10)


@pytest.mark.slow
def test_gpu_benchmarks_run_on_a_cpu(tmp_path, monkeypatch):
    replaced = ((gpu.tables, "cifar10"), (gpu.tables, "evaluate"), (gpu.race, "cifar10"))
    for owner, name in ((torch, "compile"), (sys, "argv"), *replaced):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # restored after the test
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # for checkpoints of the tables
    gpu.stand_ins()
    for part in gpu.PARTS:
        if part != "tests":
            gpu.RUNS[part](gpu.TINY, torch.device("cpu"), 1.0, tmp_path)
    command = [sys.executable, "-m", "benchmarks", "gpu", "--tiny", "--device", "cpu", "--parts", "tests"]
    done = subprocess.run([*command, "--results", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "== tests ended with 0" in done.stdout, done.stdout + done.stderr
    table = pd.read_csv(tmp_path / "gpu.csv")
    missing = table["error"].fillna("").str.startswith("not installed")
    assert table["error"].isna().equals(~missing), table["error"].dropna().tolist()
    assert (table.loc[~missing, "images_per_second"] > 0).all()
    loops = {"throughput": 4, "graph": 1, "methods": 1, "passes": 2, "others": 2}
    assert table.groupby("part")["loop"].nunique().to_dict() == loops
    assert table["commit"].nunique() == 1
    assert len(pd.read_csv(tmp_path / "tables.csv")) == 1
    assert pd.read_csv(tmp_path / "race.csv")["track"].tolist() == ["GPU"]
    assert "torch finds no CUDA device" in (tmp_path / "tests.log").read_text() or torch.cuda.is_available()
    assert "missed goals" in done.stdout
    assert len([file for file in tmp_path.iterdir() if file.is_file()]) <= 9, "some machines return only a few files"


@pytest.mark.parametrize("name", gpu.METHODS)
def test_parameters_of_measured_methods_are_valid(name):
    gpu.make(name, gpu.TINY, torch.device("cpu"), batch=8)._validate_params()


def test_all_methods_are_measured():
    assert {kind for kind, _ in gpu.METHODS.values()} == set(QUICK)


def test_part_is_stopped_at_its_time_limit(tmp_path):
    arguments = argparse.Namespace(results=tmp_path, device="cpu", tiny=True)
    begun = time.monotonic()
    ended = gpu.run_part("throughput", arguments, 0.5)
    assert "was stopped at its time limit" in ended
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("commit", ["8420859a75", "8420859e75", "0599673112"])  # the last two read as numbers, too
def test_measurements_are_recorded_once_and_errors_are_retried(tmp_path, monkeypatch, commit):
    monkeypatch.setattr(record, "COMMIT", commit)
    monkeypatch.setattr(gpu, "COMMIT", commit)
    calls = []

    def prepare():
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("out of\nmemory")
        return lambda: 5.0

    for batch in (1, 2, 2):  # the second measurement of batch 2 is skipped
        gpu.measure(tmp_path, {"part": "methods", "method": "SimCLR", "loop": "fit, eager", "batch": batch}, prepare)
    table = pd.read_csv(tmp_path / "gpu.csv")
    assert len(calls) == len(table) == 2
    assert table["error"][0] == "RuntimeError: out of memory"
    assert table["images_per_second"][1] == 5
    gpu.measure(tmp_path, {"part": "methods", "method": "SimCLR", "loop": "fit, eager", "batch": 1}, prepare)
    table = pd.read_csv(tmp_path / "gpu.csv")
    assert table["batch"].tolist() == [1, 2, 1], "failed measurements are retried"
    assert record.read("gpu", tmp_path)["commit"].unique().tolist() == [commit]
    assert "out of memory" not in "".join(gpu.shortfalls(table))


def test_shortfalls_name_missed_goals():
    def row(part, method, loop, batch, rate, error=""):
        names = "part", "method", "loop", "batch", "images_per_second", "error"
        return dict(zip(names, (part, method, loop, batch, rate, error), strict=True))

    good = [
        *(row("throughput", "SimCLR", "fit, compiled", batch, 40_000) for batch in (512, 256)),
        *(row("graph", "SimCLR", "fit, graph", batch, 43_000) for batch in (512, 256)),
        *(row("throughput", "SimCLR", "bare loop, compiled", batch, 44_000) for batch in (512, 256)),
        *(row("others", "SimCLR", "lightly", batch, 9_600) for batch in (512, 256)),
        *(row("passes", name, "fit, graph", 512, 34_000) for name in ("SimSiam", "BYOL")),
        *(row("passes", name, "own passes, compiled", 512, 37_000) for name in ("SimSiam", "BYOL")),
        *(row("methods", name, "fit, eager", 256, rate) for name, rate in (("SimCLR", 20_000), ("MoCo", 11_000))),
    ]
    assert gpu.shortfalls(pd.DataFrame(good)) == []
    slower = [row if row["method"] != "MoCo" else {**row, "images_per_second": 9_000} for row in good]
    worse = [row for row in slower if (row["part"], row["batch"]) != ("graph", 512)]
    missed = gpu.shortfalls(pd.DataFrame([*worse, row("methods", "PIRL", "fit, eager", 256, np.nan, "broke")]))
    assert missed[0] == "PIRL, fit, eager, batch 256: broke"
    assert "SimCLR, batch 512, images/s: not measured, the goal is 38,000" in missed
    assert missed[-1] == "MoCo, batch 256, of SimCLR, eager: 0.45, the goal is 0.5"


def test_benchmarks_of_photographs_run(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    for split, number in (("train", 8), ("validation", 4)):
        for i in range(number):
            folder = tmp_path / "pictures" / split / "ab"[i % 2]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (20 + i, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.jpg")
    pictures = list((tmp_path / "pictures").rglob("*.jpg"))
    monkeypatch.setattr(photographs, "run_in_process", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(photographs, "TRAINING", {**photographs.TRAINING, "augment": skssl.Augmentation(size=16)})
    monkeypatch.setattr(photographs, "CUT", 16)
    monkeypatch.setattr(photographs, "evaluate", lambda features, X, *rest: {"linear": len(features(X)), "knn": 0.5})
    sizes = ["--side", "16", "--batch", "4", "--rounds", "1", "--repeated", "15", "--seeds", "0", "--epochs", "1"]
    where = ["--folder", str(tmp_path / "pictures"), "--results", str(tmp_path / "results")]
    command = ["benchmarks", *where, "--device", "cpu", *sizes]
    monkeypatch.setattr(sys, "argv", command)
    photographs.main()
    keys = {"": "run", "_packs": "kind", "_memory": "images", "_quality": "run"}
    speed, packs, memory, quality = (
        pd.read_csv(tmp_path / "results" / f"photographs{name}.csv").set_index(key) for name, key in keys.items()
    )
    assert set(speed.index) - {"lightly"} == {"fit", "decoder", "pixels", "jpeg", "array"}
    assert (speed.images_per_second > 0).all()
    assert speed.fit_is_faster_by["fit"] == 1
    assert speed.fit_is_faster_by["decoder"] == pytest.approx(
        speed.images_per_second["fit"] / speed.images_per_second["decoder"]
    )
    assert packs.index.tolist() == ["files", "jpeg", "jpeg", "pixels", "pixels"]
    assert packs.megabytes["files"] == pytest.approx(sum(map(os.path.getsize, pictures)) / 1e6)
    assert (packs.megabytes["pixels"] > packs.megabytes["files"]).all()
    assert (packs.milliseconds > 0).all()
    assert memory.index.tolist() == [12, 12, 15]
    assert (memory.memory > 0).all()
    assert quality.index.tolist() == ["pixels", "untrained", "whole", "cut"]
    assert quality.linear.tolist() == [8] * 4
    assert "  kNN, whole pictures: 0.500, the goal is more than 0.500 (cut)" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*command, "--parts", "quality"])
    photographs.main()
    assert capsys.readouterr().out.count("already recorded") == 4


def test_benchmark_of_accumulate_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(accumulate, "run_in_process", lambda function, *arguments: function(*arguments))
    sizes = ["--backbone", "convnet", "--batch", "8", "--parts", "1", "4", "--pixels", "16", "--rounds", "2"]
    monkeypatch.setattr(sys, "argv", ["accumulate", *sizes, "--device", "cpu", "--results", str(tmp_path)])
    accumulate.main()
    rows = pd.read_csv(tmp_path / "accumulate.csv")
    assert rows[["accumulate", "rounds"]].to_numpy().tolist() == [[1, 2], [4, 2]]
    assert rows["time"][0] == 1
    assert (rows["memory"] >= 0).all()


def test_missed_goals_of_photographs():
    good = {"fit": [200.0, 202.0], "lightly": [100.0, 90.0], "decoder": [210.0, 220.0], "pixels": [300.0, 310.0]}
    assert photographs.shortfalls({**good, "array": [400.0, 400.0]}) == []
    missed = photographs.shortfalls({**good, "decoder": [600.0, 600.0], "array": [400.0, 400.0]})
    assert missed[0] == "fit, of decoder: 0.33, the goal is 0.9"
    assert missed[1].startswith("For comparison: fit takes 1.19 times as long as ")
    del good["lightly"]
    missed = photographs.shortfalls(good)
    assert missed == [f"{ours}, of lightly: not measured, the goal is {n}" for ours, n in (("fit", 2), ("pixels", 3))]


def test_commit_without_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SKSSL_COMMIT", "abc")
    assert record.commit() == "abc"


def test_demo_records_its_table(tmp_path, monkeypatch, capsys):
    (tmp_path / "demo.py").write_text("name, rows = 'CIFAR-10', {'pixels': {'linear': 0.25}}")
    monkeypatch.setattr(demo, "DEMO", tmp_path / "demo.py")
    monkeypatch.setattr("sys.argv", ["demo", "--results", str(tmp_path)])
    demo.main()
    (row,) = pd.read_csv(tmp_path / "demo.csv").to_dict("records")
    assert (row["encoder"], row["linear"]) == ("pixels", 0.25)
    (tmp_path / "demo.py").write_text("name = 'generated shapes'")
    with pytest.raises(SystemExit, match="nothing is recorded"):
        demo.main()
