"""Labels inside data sets, lists and streams, and where they are used; data loaders."""

import io

import numpy as np
import pytest
import torch
from conftest import quick
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder

import skssl
from skssl.callbacks import KNNMonitor
from skssl.images.labels import labels_in


@pytest.fixture
def codes(y):
    """The classes of X as integers."""
    return np.unique(y, return_inverse=True)[1]


class Items(Dataset):
    """Items of images and targets, in any form; the number of reads is counted."""

    def __init__(self, X, y, make=lambda image, label: (image, label)):
        self.X, self.y, self.make, self.reads = X, y, make, 0

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        self.reads += 1
        return self.make(self.X[i], self.y[i])


class Listed(Items):
    """Items that are listed as targets, too."""

    @property
    def targets(self):
        return self.y


@pytest.fixture
def folder(X, y, tmp_path):
    for i, (image, label) in enumerate(zip(X, y, strict=True)):
        (tmp_path / "all" / str(label)).mkdir(exist_ok=True, parents=True)
        Image.fromarray(image).save(tmp_path / "all" / str(label) / f"{i:02d}.png")
    return tmp_path / "all"


def test_labels_of_an_image_folder(folder, codes):
    dataset = ImageFolder(folder)
    expected = np.sort(codes)
    np.testing.assert_array_equal(labels_in(dataset), expected)
    np.testing.assert_array_equal(labels_in(Subset(dataset, [39, 0, 20])), expected[[39, 0, 20]])
    np.testing.assert_array_equal(labels_in(ConcatDataset([dataset, Subset(dataset, [1])])), [*expected, expected[1]])
    np.testing.assert_array_equal(labels_in(dataset.samples), expected)
    assert labels_in(folder).tolist() == labels_in(str(folder.parent)).tolist()  # a split of class folders
    np.testing.assert_array_equal(np.unique(labels_in(folder), return_inverse=True)[1], expected)
    Image.new("RGB", (16, 16)).save(folder / "a.png")
    assert labels_in(folder).tolist().count(-1) == 1
    assert labels_in(folder / dataset.classes[0]) is None
    turned = ImageFolder(folder, target_transform=lambda label: 7 - label)
    np.testing.assert_array_equal(labels_in(turned), 7 - expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda image, label: (image, label),
        lambda image, label: (torch.tensor(image).permute(2, 0, 1), torch.tensor(label)),
        lambda image, label: {"image": image, "label": label},
        lambda image, label: {"jpg": Image.fromarray(image), "cls": label},
        lambda image, label: [image, np.int64(label), "more"],
    ],
)
def test_labels_of_items(make, X, codes):
    np.testing.assert_array_equal(labels_in(Items(X, codes, make)), codes)
    stream = iter(Items(X, codes, make))
    images = skssl.images.as_images(stream)
    np.testing.assert_array_equal(labels_in(stream, images), codes)


def test_listed_labels_are_used_without_reading_the_items(X, codes):
    listed = Listed(X, codes)
    np.testing.assert_array_equal(labels_in(listed), codes)
    assert listed.reads == 2
    images_alone = Listed(X, codes, make=lambda image, label: image)
    np.testing.assert_array_equal(labels_in(images_alone), codes)
    other = Listed(X, codes, make=lambda image, label: (image, int(label == codes[0])))
    np.testing.assert_array_equal(labels_in(other), codes == codes[0])  # the items count
    with_gaps = Items(X, [None if i % 2 else "cat" for i in range(40)])
    assert labels_in(with_gaps).tolist() == ["cat", -1] * 20
    np.testing.assert_array_equal(labels_in(TensorDataset(torch.tensor(X), torch.tensor(codes))), codes)


@pytest.mark.parametrize(
    "make",
    [lambda X, y: X, lambda X, y: list(X), lambda X, y: Items(X, y, lambda image, label: image),
     lambda X, y: Items(X, y, lambda image, label: (image, image)), lambda X, y: ["a.png", "b.png"],
     lambda X, y: [(0.0, 1.0), (1.0, 0.0)]],
)  # fmt: skip
def test_images_without_labels(make, X, y):
    assert labels_in(make(X, y)) is None


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def test_labels_of_a_hugging_face_data_set(X, codes):
    datasets = pytest.importorskip("datasets", reason="Hugging Face's datasets is not installed")
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    encoded = [{"bytes": png(image), "path": None} for image in X]
    table = pyarrow.table({"image": encoded, "label": codes.tolist()}, schema=kinds.arrow_schema)
    made = datasets.Dataset(datasets.table.InMemoryTable(table), fingerprint="made here")
    np.testing.assert_array_equal(labels_in(made), codes)
    np.testing.assert_array_equal(labels_in(made.with_transform(dict)), codes)
    expected = quick(skssl.SupCon).fit(X, codes).transform(X)
    np.testing.assert_array_equal(quick(skssl.SupCon).fit(made).transform(made), expected)
    np.testing.assert_array_equal(quick(skssl.SupCon).fit(made.to_iterable_dataset()).transform(X), expected)


class Stream(IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        yield from (self.items[i] for i in range(len(self.items)))


FORMS = {
    "data set": Items,
    "list of files": lambda X, y: None,
    "stream": lambda X, y: Stream(Items(X, y)),
}


@pytest.mark.parametrize("method", [skssl.SupCon, lambda **kw: skssl.SimCLR(false_negatives="remove", **kw)])
@pytest.mark.parametrize("form", FORMS)
def test_methods_use_the_labels_in_the_images(method, form, X, y, png_files):
    params = {"backbone": "convnet", "epochs": 1, "batch_size": 16, "random_state": 0}
    given = list(zip(png_files, y, strict=True)) if form == "list of files" else FORMS[form](X, y)
    expected = method(**params).fit(X, y).transform(X)
    np.testing.assert_array_equal(method(**params).fit(given).transform(X), expected)
    first = method(**params)
    again = list(zip(png_files, y, strict=True)) if form == "list of files" else FORMS[form](X, y)
    np.testing.assert_array_equal(first.partial_fit(again).transform(X), expected)


def test_labels_of_skipped_items_are_left_out(X, y):
    items = Items(X, y, lambda image, label: ("no image" if label == y[3] else image, label))
    params = {"on_bad_image": "skip"}
    with pytest.warns(skssl.BadImageWarning):
        found = quick(skssl.SupCon, **params).fit(Stream(items)).transform(X)
    kept = y != y[3]
    np.testing.assert_array_equal(found, quick(skssl.SupCon, **params).fit(X[kept], y[kept]).transform(X))


@pytest.mark.parametrize("form", ["data set", "stream"])
def test_classifiers_use_the_labels_in_the_images(form, X, y):
    encoder = quick(skssl.SimCLR).fit(X)
    for classifier in (
        skssl.KNNProbe(encoder=encoder, n_neighbors=3),
        skssl.LinearProbe(encoder=encoder),
        skssl.MLPProbe(encoder=encoder, epochs=2, random_state=0),
        skssl.FineTuner(encoder, epochs=1, batch_size=16, random_state=0),
    ):
        expected = classifier.fit(X, y).predict_proba(X)
        score = classifier.score(X, y)
        classifier.fit(FORMS[form](X, y))
        np.testing.assert_array_equal(classifier.predict_proba(X), expected)
        assert classifier.score(FORMS[form](X, y)) == score
        with pytest.raises(ValueError, match=r"requires y to be passed.*X holds no labels. Pass the classes as y, or"):
            classifier.fit(X)
        with pytest.raises(ValueError, match=r"requires y to be passed.*X holds no labels"):
            classifier.score(X)


def test_compare_and_monitor_use_the_labels_in_the_images(X, y):
    probes = [skssl.KNNProbe(n_neighbors=3)]
    expected = skssl.compare([quick(skssl.SimCLR)], X, y, probes=probes).frame["score"]
    found = skssl.compare([quick(skssl.SimCLR)], Items(X, y), probes=probes).frame["score"]
    assert found.tolist() == expected.tolist()
    test = skssl.compare([quick(skssl.SimCLR)], Items(X, y), X_test=Items(X, y), probes=probes).frame["score"]
    assert (
        test.tolist()
        == skssl.compare([quick(skssl.SimCLR)], X, y, X_test=X, y_test=y, probes=probes).frame["score"].tolist()
    )
    columns = [
        quick(skssl.SimCLR, callbacks=[KNNMonitor(*given, n_neighbors=3)]).fit(X).history_["knn"]
        for given in ((X, y), (Items(X, y),), (X, y, X, y), (Items(X, y), None, Items(X, y)))
    ]
    assert columns[0].tolist() == columns[1].tolist()
    assert columns[2].tolist() == columns[3].tolist()


@pytest.mark.parametrize(
    "call",
    [
        lambda loader, e, y: skssl.SimCLR().fit(loader),
        lambda loader, e, y: skssl.SupCon().fit(loader),
        lambda loader, e, y: e.transform(loader),
        lambda loader, e, y: skssl.LinearProbe(encoder=e).fit(loader),
        lambda loader, e, y: skssl.LinearProbe(encoder=e).fit(loader, y),
        lambda loader, e, y: skssl.FineTuner(e).fit(loader, y),
        lambda loader, e, y: skssl.FineTuner(e).fit(loader),
        lambda loader, e, y: skssl.compare([e], loader, y),
        lambda loader, e, y: skssl.compare([e], loader),
        lambda loader, e, y: skssl.EmbeddingDisplay.from_estimator(e, loader, method="pca"),
        lambda loader, e, y: skssl.report(e, loader, y),
        lambda loader, e, y: quick(skssl.SimCLR, callbacks=[KNNMonitor(loader, y)]).fit(
            np.zeros((40, 16, 16, 3), "uint8")
        ),
    ],
)
def test_data_loader_is_refused(call, X, y):
    encoder = quick(skssl.SimCLR, epochs=0).fit(X)
    with pytest.raises(TypeError, match=r"X is a DataLoader. Pass its data set, X.dataset"):
        call(DataLoader(Items(X, y), batch_size=8, shuffle=True), encoder, y)
