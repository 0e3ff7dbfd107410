"""Linear transfer: the protocol against a literal version, metrics, and the loading of data sets."""

import warnings

import numpy as np
import pytest
import torch
from conftest import quick
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from torch import nn

import skssl
from skssl import transfer_table
from skssl.backbones import ConvNet
from skssl.datasets import make_shapes, make_voc_folder
from skssl.probes.encoders import Encoder
from skssl.transfer import mean_average_precision
from skssl.transfer.benchmark_datasets import BENCHMARK_DATASETS
from skssl.transfer.linear import METRICS, can_hold_out, hold_out

X, y = make_shapes(200, image_size=16, n_classes=4, random_state=0)
red = X[..., 0].mean((1, 2))
shade = np.array(list("abcd"))[np.digitize(red, np.quantile(red, (0.25, 0.5, 0.75)))]


@pytest.fixture(scope="module")
def encoder():
    return quick(skssl.SimCLR, epochs=0).fit(X)


def literal(features, y, val, metric):
    """Ericsson et al.'s linear.py, step by step, with scikit-learn's regression at its optimum."""
    train, test = np.arange(100), np.arange(150, 200)
    best_score, best = 0, None
    for decay in torch.logspace(-6, 5, 45).double().tolist():
        model = LogisticRegression(C=1 / decay, solver="newton-cholesky", tol=1e-8, max_iter=1000)
        score = metric(y[val], model.fit(features[train], y[train]).predict(features[val]))
        if score > best_score:
            best_score, best = score, 1 / decay
    model = LogisticRegression(C=best, solver="newton-cholesky", tol=1e-8, max_iter=1000)
    both = np.concatenate([train, val])
    return best, metric(y[test], model.fit(features[both], y[both]).predict(features[test]))


def test_table_matches_a_literal_version_of_the_protocol(encoder):
    parts = (X[:100], shade[:100], X[100:150], shade[100:150], X[150:], shade[150:])
    table = transfer_table(encoder, {"shades": parts})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Newton's method, if the penalty is very small
        C, score = literal(
            encoder.transform(X).astype(float), shade, np.arange(100, 150), lambda true, found: (true == found).mean()
        )
    row = table.iloc[0]
    assert row[["dataset", "metric", "n_train", "n_test"]].tolist() == ["shades", "accuracy", 150, 50]
    assert row["C"] == pytest.approx(C, rel=1e-4)
    assert row["score"] == pytest.approx(score)
    assert row["score"] > 0.5, "chance is 0.25"
    assert row["seconds"] > 0


def test_held_out_fifth_depends_only_on_the_seed(encoder, monkeypatch):
    sizes = []
    fit_predict = skssl.transfer.linear._fit_predict
    monkeypatch.setattr(
        skssl.transfer.linear,
        "_fit_predict",
        lambda C, X, y, new, device: sizes.append((len(X), len(new))) or fit_predict(C, X, y, new, device),
    )
    monkeypatch.setitem(skssl.transfer.linear.LINEAR["transfer"], "C", (100.0, 1.0, 0.01))
    parts = {"a": (X[:104], y[:104], X[150:], y[150:]), "b": (X[50:150], y[50:150], X[:50], y[:50])}
    first = transfer_table(encoder, parts, random_state=1)
    assert sizes[:4] == [(84, 20)] * 3 + [(104, 50)]
    second = transfer_table(encoder, {"b": parts["b"], "a": parts["a"]}, random_state=1)
    columns = ["dataset", "score", "C"]
    assert second[columns].values.tolist() == first[columns].values[::-1].tolist()


def test_mean_average_precision_matches_voc():
    rng = np.random.default_rng(0)
    for _ in range(20):
        y_true, y_score = rng.integers(-1, 2, (30, 3)), rng.normal(size=(30, 3))
        values = []
        for k in range(3):
            kept = [i for i in np.argsort(-y_score[:, k]) if y_true[i, k] >= 0]
            n_present, hits, curve = sum(y_true[kept, k]), 0, []
            for rank, i in enumerate(kept, start=1):
                hits += int(y_true[i, k])
                curve.append((hits, hits / rank))
            highest = [max(p for hits, p in curve if 10 * hits >= tenth * n_present) for tenth in range(11)]
            values.append(sum(highest) / 11)
        assert mean_average_precision(y_true, y_score) == pytest.approx(np.mean(values))
    with pytest.raises(ValueError, match="at least one 1"):
        mean_average_precision(np.zeros((3, 2)), np.zeros((3, 2)))


def test_mean_per_class_weights_classes_equally():
    true, found = np.array(list("aaaab")), np.array(list("aaaac"))
    assert METRICS["accuracy"](true, found) == 0.8
    assert METRICS["mean per class"](true, found) == 0.5


def test_multi_label_data(encoder):
    """The colour shows the two classes. Labels of -1 must be ignored."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (120, 16, 16, 3), dtype=np.uint8)
    target = rng.integers(0, 2, (120, 2))
    for k in range(2):
        images[target[:, k] == 1, :, :, k] += 120
    hidden = np.where(rng.random((120, 2)) < 0.2, -1, target)
    parts = (images[:60], hidden[:60], images[60:90], hidden[60:90], images[90:], hidden[90:])
    row = transfer_table(encoder, {"colours": parts}).iloc[0]
    assert row["metric"] == "11-point mAP"
    assert row["score"] > 0.95


def learnable(labels):
    """Whether each column has a 0 and a 1, by a loop."""
    return all({0, 1} <= set(column) for column in labels.T.tolist())


def test_held_out_samples_leave_every_class_learnable():
    rng = np.random.default_rng(0)
    drawn = {True: 0, False: 0}
    for seed in range(300):
        n, shares = rng.integers(5, 40), rng.choice([0.05, 0.5, 0.95], rng.integers(1, 5))
        labels = (rng.random((n, len(shares))) < shares).astype(int)
        labels[rng.random(labels.shape) < 0.1] = -1
        if not learnable(labels):
            continue
        spare = [1 in labels[i] and learnable(np.delete(labels, i, axis=0)) for i in range(n)]
        assert can_hold_out(labels).tolist() == spare
        drawn[any(spare)] += 1
        if any(spare):
            (train, y_train), (out, y_out) = hold_out(np.arange(n), labels, np.random.RandomState(seed))
            assert sorted([*train, *out]) == list(range(n))
            np.testing.assert_array_equal(np.concatenate([y_train, y_out]), labels[[*train, *out]])
            assert learnable(y_train)
            assert (y_out == 1).any()
            assert len(out) == n // 5 or len(train) <= 2 * len(shares), "fewer only if the training samples need all"
    assert min(drawn.values()) > 5, drawn


@pytest.mark.parametrize("seed", range(3))
def test_rare_classes_are_learned(encoder, seed, monkeypatch):
    monkeypatch.setitem(skssl.transfer.linear.LINEAR["transfer"], "C", (100.0, 0.01))
    target = np.stack([np.arange(60) % 2, np.arange(60) == 7, np.arange(60) != 9], axis=1).astype(int)
    test = np.stack([y[150:] == y[0], y[150:] == y[1], y[150:] != y[2]], axis=1)
    row = transfer_table(encoder, {"rare": (X[:60], target, X[150:], test)}, random_state=seed).iloc[0]
    assert (row["metric"], row["n_train"]) == ("11-point mAP", 60)
    assert 0 < row["score"] <= 1


def test_unusable_labels_raise_before_encoding(encoder, monkeypatch):
    monkeypatch.setattr(Encoder, "transform", lambda self, X: pytest.fail("encoded"))
    both = np.stack([np.arange(50) % 2, np.arange(50) % 3 > 0], axis=1).astype(int)
    for column, value, wrong in ((1, 1, 0), (0, 0, 1), (0, 1, -1), (1, 0, -1)):
        labels = both.copy()
        labels[labels[:, column] == value, column] = wrong
        expected = f"train split of 'own' must have .* but it has no {value} in column {column}"
        for val in ((), (X[50:100], both)):
            with pytest.raises(ValueError, match=expected):
                transfer_table(encoder, {"own": (X[:50], labels, *val, X[50:100], both)})
    absent, single = np.minimum(both, 0), np.eye(50, 2, dtype=int)
    with pytest.raises(ValueError, match="test split of 'own' has no 1 in any column"):
        transfer_table(encoder, {"own": (X[:50], both, X[50:100], absent)})
    with pytest.raises(ValueError, match="val split of 'own' has no 1 in any column"):
        transfer_table(encoder, {"own": (X[:50], both, X[50:100], absent, X[50:100], both)})
    with pytest.raises(ValueError, match="'own' needs a validation split: no training sample with a 1 can be held out"):
        transfer_table(encoder, {"own": (X[:50], single, X[50:100], both)})


def test_layers_modules_and_frozen_estimators(encoder, monkeypatch):
    monkeypatch.setitem(skssl.transfer.linear.LINEAR["transfer"], "C", (1.0,))
    parts = {"shapes": (X[:150], y[:150], X[150:], y[150:])}
    assert transfer_table(FrozenEstimator(encoder), parts)["score"][0] == transfer_table(encoder, parts)["score"][0]
    torch.manual_seed(0)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(768, 8, bias=False), nn.ReLU())  # accepts images of one size only
    module = {"image_size": 16, "device": "cpu"}
    for net, options in ((encoder, {"layer": "projector"}), (ConvNet(), module), (flat, module)):
        assert 0 < transfer_table(net, parts, **options)["score"][0] < 1
    with pytest.raises(ValueError, match="Unknown layer 'layer4'"):
        transfer_table(encoder, parts, layer="layer4")
    with pytest.raises(ValueError, match=r"16, 16\), but image_shape=\(3, 224, 224\)"):
        transfer_table(ConvNet(), parts, device="cpu")


# Named data sets, written where torchvision looks for them


def picture(folder, name, seed, size=(12, 10)):
    """Write a noisy picture whose mean shows its class, and return the picture as read from the file."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 100, (*size, 3)) + 120 * (seed % 2)
    Image.fromarray(values.astype(np.uint8)).save(folder / name)


def draw_dtd(home):
    root = home / "torchvision" / "dtd" / "dtd"
    (root / "labels").mkdir(parents=True)
    for i, split in enumerate(("train", "val", "test")):
        names = []
        for k in range(10):
            kind = ("banded", "dotted")[k % 2]
            picture(root / "images" / kind, f"{split}{k}.jpg", 10 * i + k)
            names.append(f"{kind}/{split}{k}.jpg")
        (root / "labels" / f"{split}1.txt").write_text("\n".join(names) + "\n")


def test_images_are_resized_by_the_shorter_side_and_cropped(encoder, tmp_path, monkeypatch):
    draw_dtd(tmp_path)
    seen, encode = [], skssl.transfer.linear._encode
    monkeypatch.setattr(skssl.transfer.linear, "_encode", lambda *args: seen.append(encode(*args)) or seen[-1])
    row = transfer_table(encoder, ["dtd"], data_home=tmp_path).iloc[0]
    assert row[["metric", "score", "n_train", "n_test"]].tolist() == ["accuracy", 1.0, 20, 10]
    images = []
    for k in range(10):
        kind = ("banded", "dotted")[k % 2]
        image = Image.open(tmp_path / "torchvision" / "dtd" / "dtd" / "images" / kind / f"test{k}.jpg")
        # 12 x 10 pixels: the shorter side, 10, becomes 16, which leaves the middle 16 of 19.2
        images.append(np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC, box=(0, 1, 10, 11))))
    np.testing.assert_allclose(seen[2][0], encoder.transform(np.stack(images)), rtol=1e-3, atol=1e-3)
    assert seen[2][1].tolist() == [0, 1] * 5
    assert transfer_table(encoder, ["dtd"], data_home=tmp_path, image_size=24)["score"][0] == 1.0


def test_data_sets_without_splits_are_split_by_the_seed(tmp_path):
    for kind in ("ant", "bass", "BACKGROUND_Google"):
        for i in range(34):
            picture(
                tmp_path / "torchvision" / "caltech101" / "101_ObjectCategories" / kind, f"image_{i + 1:04d}.jpg", i
            )
    names = ("abbey", "beach/sand")
    for name in names:
        for i in range(103):
            picture(tmp_path / "torchvision" / "SUN397" / name[0] / name, f"sun_{i}.jpg", i, (8, 8))
    (tmp_path / "torchvision" / "SUN397" / "ClassName.txt").write_text("".join(f"/{n[0]}/{n}\n" for n in names))
    for name, n_train, n_test in (("caltech101", 30, 4), ("sun397", 50, 50)):
        drawn = [BENCHMARK_DATASETS[name][1](name, tmp_path, False, np.random.RandomState(seed)) for seed in (0, 0, 1)]
        for split, n in (("train", n_train), ("test", n_test)):
            labels = []
            for image, label in drawn[0][split]:
                labels.append(label)
                if name == "caltech101":
                    image.close()  # torchvision opens it
            assert np.bincount(labels).tolist() == [n, n]
            assert drawn[0][split].indices == drawn[1][split].indices != drawn[2][split].indices
        assert not set(drawn[0]["train"].indices) & set(drawn[0]["test"].indices)


def test_voc_labels_ignore_difficult_objects(tmp_path, encoder):
    folder = make_voc_folder(tmp_path / "torchvision" / "VOCdevkit" / "VOC2007", 60, random_state=0)
    lists = folder / "ImageSets" / "Main"
    names = [f"{i:06d}" for i in range(60)]
    for split, part in (("train", names[:20]), ("val", names[20:40]), ("test", names[40:])):
        (lists / f"{split}.txt").write_text("\n".join(part))
    for name, kinds in ((names[40], ["disc", "disc"]), (names[41], ["disc"]), (names[42], ["square"])):
        things = "".join(
            f"<object><name>{kind}</name><difficult>{int(i == 0)}</difficult><bndbox><xmin>1</xmin><ymin>1</ymin>"
            "<xmax>9</xmax><ymax>9</ymax></bndbox></object>"
            for i, kind in enumerate(kinds)
        )
        (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{things}</annotation>")
    pairs = BENCHMARK_DATASETS["voc2007"][1]("voc2007", tmp_path, False, None)
    assert [len(pairs[split]) for split in ("train", "val", "test")] == [20, 20, 20]
    assert [label for _, label in pairs["test"][:3]] == [[1, 0], [-1, 0], [0, -1]]
    row = transfer_table(encoder, ["voc2007"], data_home=tmp_path).iloc[0]
    assert row["metric"] == "11-point mAP"
    assert 0 < row["score"] <= 1


def test_cifar_is_found_where_load_images_finds_it(tmp_path, monkeypatch, encoder):
    values = {"X_train": X[:150], "y_train": y[:150], "X_test": X[150:], "y_test": y[150:]}
    np.savez(tmp_path / "cifar10.npz", **values)
    monkeypatch.setenv("SKSSL_DATA", str(tmp_path))
    monkeypatch.setitem(skssl.transfer.linear.LINEAR["transfer"], "C", (1.0, 0.1))
    given = transfer_table(encoder, {"own": (X[:150], y[:150], X[150:], y[150:])}, random_state=0)
    found = transfer_table(encoder, ["cifar10"], random_state=0, download=False)
    assert found["score"][0] == given["score"][0], "pictures of the encoder's size must not be resized"


@pytest.mark.parametrize("name", BENCHMARK_DATASETS)
def test_missing_data_set_raises(name, encoder, tmp_path, monkeypatch):
    monkeypatch.delenv("SKSSL_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"^'{name}' was .* download=False"):
        transfer_table(encoder, [name], data_home=tmp_path)


def test_invalid_input_raises(encoder):
    good = (X[:50], y[:50], X[50:], y[50:])
    with pytest.raises(ValueError, match="Unknown data set 'flowers', did you mean 'flowers102'"):
        transfer_table(encoder, ["flowers"])
    with pytest.raises(ValueError, match="'image_size' parameter of transfer_table must be an int"):
        transfer_table(encoder, {"own": good}, image_size=0)
    with pytest.raises(TypeError, match="put it into a list"):
        transfer_table(encoder, "dtd")
    with pytest.raises(NotFittedError, match="SimCLR, is not fitted"):
        transfer_table(quick(skssl.SimCLR), {"own": good})
    with pytest.raises(TypeError, match="Got 'resnet18'"):
        transfer_table("resnet18", {"own": good})
    with pytest.raises(ValueError, match=r"'own' must be \(X_train, .* Got 3 parts"):
        transfer_table(encoder, {"own": good[:3]})
    with pytest.raises(ValueError, match="The test split of 'own' has 150 images, but 50 labels"):
        transfer_table(encoder, {"own": (*good[:3], y[:50])})
    with pytest.raises(ValueError, match="The test split of 'own' has the class 'z', which its train split lacks"):
        transfer_table(encoder, {"own": (*good[:3], np.where(y[50:] == "disc", "z", y[50:]))})
    with pytest.raises(ValueError, match="'own' has 4 training samples, but at least 5"):
        transfer_table(encoder, {"own": (X[:4], y[:4], X[:4], y[:4])})
    with pytest.raises(ValueError, match=r"shape \(150, 4\), but"):
        transfer_table(encoder, {"own": (*good[:3], np.zeros((150, 4)))})
    with pytest.raises(ValueError, match="only one class"):
        transfer_table(encoder, {"own": (X[:50], np.zeros(50), X[50:], np.zeros(150))})


def test_progress_is_shown_if_verbose(encoder, tmp_path, capsys):
    draw_dtd(tmp_path)
    transfer_table(encoder, ["dtd"], data_home=tmp_path)
    assert capsys.readouterr() == ("", "")
    transfer_table(encoder, ["dtd"], data_home=tmp_path, verbose=1)
    assert "dtd, train" in capsys.readouterr().err
