"""Sequences of images: folders, lists of data sets' items, columns of tables, and columns in a ColumnTransformer."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch.utils.data import Dataset

import skssl
from skssl import (
    BadImageWarning,
    EmbeddingDisplay,
    FineTuner,
    KNNProbe,
    NeighborsDisplay,
    SimCLR,
    compare,
    report,
)
from skssl.callbacks import KNNMonitor
from skssl.datasets import load_images, make_shapes
from skssl.images import Images, as_images
from skssl.metrics import rotation_accuracy

X, Y = make_shapes(12, image_size=16, n_classes=2, random_state=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders, whose images have one size."""
    path = tmp_path_factory.mktemp("images")
    for i, (image, name) in enumerate(zip(X, Y, strict=True)):
        (path / name / "deep").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path / name / ("deep" if i % 3 == 0 else "") / f"{i:02}.png")
    return path


@pytest.fixture(scope="module")
def paths(folder: Path) -> list[str]:
    return load_paths(folder)


def load_paths(folder: Path) -> list[str]:
    return sorted(map(str, folder.rglob("*.png")))


def encoder(**params: Any) -> SimCLR:
    settings = {"backbone": "convnet", "epochs": 1, "batch_size": 6, "random_state": 0, "precision": "float32"}
    return SimCLR(**{**settings, **params})


def everything(images: Images) -> np.ndarray:
    return images.read(torch.arange(len(images))).numpy()


# Folders


@pytest.mark.parametrize("form", [str, Path])
def test_folder_is_its_images_in_sorted_order(form: Any, folder: Path, paths: list[str]) -> None:
    images, y = load_images(folder)
    assert len(paths) == 12
    np.testing.assert_array_equal(everything(as_images(form(folder))), images.transpose(0, 3, 1, 2))
    assert y.tolist() == [Path(path).relative_to(folder).parts[0] for path in paths]


def test_estimators_take_folders(folder: Path, paths: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    y = load_images(folder)[1]
    features = encoder().fit(paths).transform(paths)
    fitted = encoder(verbose=1, callbacks="disable")
    np.testing.assert_array_equal(fitted.fit_transform(str(folder)), features)
    assert f"{folder}: 12 images." in capsys.readouterr().out
    np.testing.assert_array_equal(fitted.partial_fit(folder).transform(folder).shape, features.shape)
    tuner = FineTuner(encoder(epochs=0), epochs=1, random_state=0)
    for classifier in (KNNProbe(encoder=encoder(epochs=0), n_neighbors=3), tuner):
        expected = classifier.fit(paths, y).predict(paths)
        assert classifier.fit(folder, y).predict(str(folder)).tolist() == expected.tolist()
        assert 0 <= classifier.score(folder, y) <= 1


def test_displays_measures_and_comparisons_take_folders(folder: Path, tmp_path: Path) -> None:
    y = load_images(folder)[1]
    where = str(folder)
    probes = {"kNN": KNNProbe(n_neighbors=2)}
    results = compare(
        {"untrained": encoder(epochs=0)}, where, y, X_test=where, y_test=y, probes=probes, random_state=[0]
    )
    assert len(results.frame) == 1
    compare({"untrained": encoder(epochs=0)}, where, y, test_size=0.5, probes=probes, random_state=[0])
    fitted = encoder(callbacks=[KNNMonitor(where, y, where, y, n_neighbors=2)]).fit(where)
    assert fitted.history_["knn"].notna().all()
    assert len(NeighborsDisplay.from_estimator(fitted, where, y, X_query=where, n_neighbors=2).queries) == 5
    assert len(EmbeddingDisplay.from_estimator(fitted, where, y, method="pca").embedding) == 12
    assert report(fitted, where, y, tmp_path / "report.html", method="pca", n_neighbors=2).exists()
    assert rotation_accuracy(encoder(aux="rotation", epochs=0).fit(where), where, where) >= 0


def test_folder_names_what_it_leaves_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "linked").symlink_to(folder)
    for name in ("notes.txt", "scan.heic", ".hidden.png"):
        (tmp_path / "all" / name).write_text("no image")
    expected = r"Found 12 images in .*all'\. Left out: 2 without the ending .* \('notes\.txt', 'scan\.heic'\)\."
    with pytest.warns(BadImageWarning, match=expected) as caught:
        assert len(as_images(tmp_path / "all")) == 12
    assert len(caught) == 1
    (tmp_path / "all" / "cut.png").write_text("no image")
    with pytest.warns(BadImageWarning), pytest.raises(ValueError, match=r"Sample 0 of X, the file '.*cut\.png', can"):
        as_images(tmp_path / "all")
    with (
        pytest.warns(BadImageWarning, match="Found 13 images"),
        pytest.warns(BadImageWarning, match=r"1 of the 13 images in X cannot be read.*cut\.png"),
    ):
        images = as_images(tmp_path / "all", on_bad_image="skip")
    assert images.kept is not None
    assert images.kept.tolist() == [False] + [True] * 12


def test_paths_of_anything_but_a_folder_of_images_are_refused(folder: Path, paths: list[str], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"X is the path 'nowhere', but there is no such folder\. Pass a fol"):
        as_images("nowhere")
    with pytest.raises(NotADirectoryError, match=r"X is the path of a file, .*, but a folder was expected\. Pass \["):
        as_images(Path(paths[0]))
    with pytest.raises(ValueError, match=r"contains no image files, but files such as a\.jpg or a/b\.png"):
        as_images(tmp_path)


# Lists of the items of data sets


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


FORMS: dict[str, Any] = {
    "bytes": png,
    "bytearray": lambda image: bytearray(png(image)),
    "dict of a PIL image": lambda image: {"label": 3, "image": Image.fromarray(image)},
    "dict of an array": lambda image: {"img": image, "label": 3},
    "dict of bytes and path": lambda image: {"image": {"bytes": png(image), "path": None}, "label": 3},
    "bytes and path": lambda image: {"bytes": png(image), "path": "a.png"},
    "WebDataset's": lambda image: {"__key__": "0", "png": png(image), "cls": b"3"},
    "tuple with bytes": lambda image: (png(image), 3),
    "tuple with a dict": lambda image: ({"image": Image.fromarray(image)}, 3),
    "list with a PIL image": lambda image: [Image.fromarray(image), 3],
    "list with a tensor": lambda image: [torch.from_numpy(image), 3],
    "list with an array": lambda image: [image, np.int64(3)],
    "tuple with an array": lambda image: (image, 3),
    "tuple with a file": lambda image: (io.BytesIO(png(image)), 3),
}


@pytest.mark.parametrize("form", FORMS)
def test_lists_take_the_items_of_data_sets(form: str) -> None:
    items = [FORMS[form](image) for image in X]
    for sequence in (items, tuple(items)):
        np.testing.assert_array_equal(everything(as_images(sequence)), X.transpose(0, 3, 1, 2))


def test_rows_of_numbers_are_no_items() -> None:
    rows = np.arange(8.0).reshape(2, 4)
    for table in (rows.tolist(), [tuple(row) for row in rows], tuple(map(tuple, rows))):
        assert as_images(table).shape == (1, 2, 2)
    nested = np.arange(16.0).reshape(2, 2, 4)
    for array in (nested.tolist(), list(map(list, nested)), [tuple(map(tuple, image)) for image in nested]):
        np.testing.assert_array_equal(everything(as_images(array))[:, 0], np.float32(nested) / 15)


class Rows(Dataset):
    """A data set as Hugging Face's: its items are dicts."""

    def __init__(self, form: Any) -> None:
        self.form = form

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, i: int) -> Any:
        return self.form(X[i])


@pytest.mark.parametrize("form", ["dict of a PIL image", "dict of bytes and path", "bytes", "tuple with bytes"])
def test_data_sets_are_cross_validated(form: str) -> None:
    pipeline = make_pipeline(encoder(epochs=0), LogisticRegression())
    scores = cross_val_score(pipeline, Rows(FORMS[form]), Y, cv=3, error_score="raise")
    np.testing.assert_array_equal(scores, cross_val_score(pipeline, X, Y, cv=3))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([png(X[0]), X[1]], r"Sample 1 of X is ndarray of uint8 and shape \(16, 16, 3\), but sample 0 is bytes"),
        (
            [{"image": X[0]}, {"image": png(X[0])}],
            "Sample 1 of X is bytes .*, but sample 0 is ndarray",
        ),
        ([None, "b.png", X[0]], r"Sample 2 of X is ndarray .*, but sample 1 is str 'b\.png'"),
        ([{"label": 3}, {"label": 4}], "Sample 0 of X is dict {'label': 3}, which holds no image"),
    ],
)
def test_samples_without_an_image_or_of_several_kinds_are_named(samples: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        as_images(samples)


@pytest.mark.parametrize("missing", [None, float("nan"), np.float32("nan"), pd.NA])
def test_missing_files_are_files_that_cannot_be_read(missing: Any, paths: list[str]) -> None:
    expected = everything(as_images(paths[2:4]))
    table = pd.DataFrame({"path": pd.Series([missing, *paths[2:4], missing], dtype=object)})
    text = pd.DataFrame({"path": pd.Series([missing, *paths[2:4], missing], dtype="str")})
    for column in (table["path"].tolist(), table, table["path"], table.values, text, text["path"].array):
        with pytest.raises(ValueError, match="Sample 0 of X cannot be read as an image: it is missing"):
            as_images(column)
        with pytest.warns(BadImageWarning, match=r"2 of the 4 images in X cannot be read.*: Sample 0 of X .* missing"):
            images = as_images(column, on_bad_image="skip")
        assert images.kept is not None
        assert images.kept.tolist() == [False, True, True, False]
        np.testing.assert_array_equal(everything(images), expected)


# Columns of tables

COLUMNS: dict[str, Any] = {
    "array of text": np.array,
    "array of objects": lambda paths: np.array(paths, dtype=object),
    "array of numpy's strings": lambda paths: np.array(paths, dtype=np.dtypes.StringDType()),
    "array (n, 1)": lambda paths: np.array(paths, dtype=object)[:, None],
    "array (n, 1) of text": lambda paths: np.array(paths)[:, None],
    "Series": lambda paths: pd.Series(paths, index=range(5, 5 + len(paths))),
    "Series of objects": lambda paths: pd.Series(paths, dtype=object),
    "Series of pandas' strings": lambda paths: pd.Series(paths, dtype=pd.StringDtype("python")),
    "Series of paths": lambda paths: pd.Series(map(Path, paths)),
    "values": lambda paths: pd.Series(paths).values,
    "array": lambda paths: pd.Series(paths).array,
    "pandas' strings": lambda paths: pd.array(paths, dtype=pd.StringDtype("python")),
    "categories": lambda paths: pd.Series(paths).astype("category"),
    "Categorical": pd.Categorical,
    "Index": pd.Index,
    "data frame": lambda paths: pd.DataFrame({"path": paths}),
    "data frame of categories": lambda paths: pd.DataFrame({"path": pd.Categorical(paths)}),
    "data frame's values": lambda paths: pd.DataFrame({"path": paths}).values,
    "Series of PIL images": lambda paths: pd.Series([Image.open(path) for path in paths]),
    "Series of bytes": lambda paths: pd.Series([Path(path).read_bytes() for path in paths]),
    "data frame of dicts": lambda paths: pd.DataFrame({"image": [{"bytes": None, "path": path} for path in paths]}),
}


class ArrowColumn:
    """A stand-in for pyarrow.ChunkedArray."""

    def __init__(self, values: list[str]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, i: int) -> Any:
        return object()

    def __array__(self) -> Any:
        return np.array(self.values, dtype=object)

    def to_pylist(self) -> list[str]:
        return self.values


@pytest.mark.parametrize("form", [*COLUMNS, "Arrow"])
def test_columns_of_paths_and_images_are_one_feature(form: str, paths: list[str]) -> None:
    column = ArrowColumn(paths) if form == "Arrow" else COLUMNS[form](paths)
    expected = everything(as_images(paths))
    estimator = BaseEstimator()
    np.testing.assert_array_equal(everything(as_images(column, estimator=estimator)), expected)
    assert estimator.n_features_in_ == 1
    assert hasattr(estimator, "feature_names_in_") == form.startswith("data frame") ^ (form == "data frame's values")


def test_columns_of_arrow_strings_and_of_polars(paths: list[str]) -> None:
    expected = everything(as_images(paths))
    pa = pytest.importorskip("pyarrow")
    forms = [pd.Series(paths, dtype="string[pyarrow]"), pa.array(paths), pa.chunked_array([paths[:5], paths[5:]])]
    forms += [pd.Series(paths, dtype=pd.ArrowDtype(pa.string())), pd.array(paths, dtype="string[pyarrow]")]
    pl = pytest.importorskip("polars")
    for column in [*forms, pl.Series(paths), pl.DataFrame({"path": paths})]:
        np.testing.assert_array_equal(everything(as_images(column)), expected)


def test_lists_of_paths_count_values_and_tables_keep_their_features(paths: list[str]) -> None:
    for form, n_features in ((paths, 768), (tuple(paths), 768), (iter(paths), 768), (X, 768)):
        estimator = BaseEstimator()
        as_images(form, estimator=estimator)
        assert estimator.n_features_in_ == n_features
    estimator = BaseEstimator()
    as_images(pd.DataFrame({"only": [1.0, 2.0]}), estimator=estimator)
    assert (estimator.n_features_in_, list(estimator.feature_names_in_)) == (1, ["only"])


def test_names_of_columns_are_checked_as_in_scikit_learn(paths: list[str], tmp_path: Path) -> None:
    frame = pd.DataFrame({"path": paths})
    fitted = encoder(epochs=0).set_output(transform="pandas").fit(frame)
    names = [f"simclr{i}" for i in range(128)]
    assert fitted.get_feature_names_out(["path"]).tolist() == names
    features = fitted.transform(frame)
    assert features.columns.tolist() == names
    np.testing.assert_array_equal(fitted.transform(frame["path"]), features)  # without names nothing is compared
    np.testing.assert_array_equal(fitted.transform(paths), features)
    with pytest.raises(ValueError, match="The feature names should match those that were passed during fit"):
        fitted.transform(frame.rename(columns={"path": "file"}))
    for X_fit in (frame, frame["path"]):
        fitted.fit(X_fit).save(tmp_path / "encoder.safetensors")
        loaded = skssl.load(tmp_path / "encoder.safetensors")
        assert loaded.n_features_in_ == 1
        assert loaded.get_feature_names_out(["path"]).tolist() == names
        np.testing.assert_array_equal(loaded.transform(frame), features)


def test_table_of_paths_and_numbers_is_refused_with_advice(paths: list[str]) -> None:
    frame = pd.DataFrame({"price": range(12), "path": paths})
    with pytest.raises(ValueError, match=r"2 columns, and the column 'path' holds text\. .* X\['path'\], or choose it"):
        encoder().fit(frame)


@pytest.mark.parametrize("output", ["default", "pandas"])
@pytest.mark.parametrize("column", ["path", ["path"]])
def test_column_transformer_encodes_a_column_of_paths(column: Any, output: str, paths: list[str]) -> None:
    index = range(20, 32) if isinstance(column, list) else None  # scikit-learn 1.7 loses the index of a Series
    frame = pd.DataFrame({"price": np.arange(12.0), "path": paths, "size": np.arange(12) % 5}, index=index)
    columns = ColumnTransformer(
        [("image", encoder(epochs=0), column), ("number", StandardScaler(), ["price"])],
        remainder="passthrough",
        verbose_feature_names_out=False,
    ).set_output(transform=output)
    found = columns.fit_transform(frame)
    names = [*(f"simclr{i}" for i in range(128)), "price", "size"]
    assert columns.get_feature_names_out().tolist() == names
    fitted = columns.named_transformers_["image"]
    assert fitted.n_features_in_ == 1
    assert hasattr(fitted, "feature_names_in_") == isinstance(column, list)
    expected = np.column_stack(
        [fitted.transform(paths), StandardScaler().fit_transform(frame[["price"]]), frame["size"]]
    )
    np.testing.assert_array_equal(found, expected)
    if output == "pandas":
        assert found.index.tolist() == frame.index.tolist()
        assert found.columns.tolist() == names


def test_arrays_of_a_function_transformer_and_of_a_column_transformer_are_read(paths: list[str]) -> None:
    table = np.array([[path, i] for i, path in enumerate(paths)], dtype=object)
    for column in (0, [0]):
        columns = ColumnTransformer([("image", encoder(epochs=0), column)])
        assert columns.fit_transform(table).shape == (12, 128)
    pipeline = make_pipeline(FunctionTransformer(lambda table: table[:, :1]), encoder(epochs=0))
    assert pipeline.fit_transform(table).shape == (12, 128)


def test_pipeline_of_paths_and_numbers_is_cross_validated(paths: list[str]) -> None:
    y = [Path(path).parts[-3 if "deep" in path else -2] for path in paths]
    frame = pd.DataFrame({"path": paths, "price": [len(label) for label in y]})
    columns = ColumnTransformer([("image", encoder(), "path"), ("number", StandardScaler(), ["price"])])
    pipeline = make_pipeline(columns, LogisticRegression())
    assert pipeline.fit(frame, y).score(frame, y) == 1
    assert cross_val_score(pipeline, frame, y, cv=2, error_score="raise").tolist() == [1, 1]
