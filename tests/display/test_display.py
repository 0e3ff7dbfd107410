"""The displays: axes, training curves, views, maps, neighbours and scores."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import quick
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from PIL import Image
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

import skssl
from skssl import (
    Augmentation,
    DetectionDisplay,
    EmbeddingDisplay,
    MultiCrop,
    NeighborsDisplay,
    Results,
    ResultsDisplay,
    Rotation,
    SegmentationDisplay,
    SimCLR,
    SwAV,
    TrainingDisplay,
    ViewsDisplay,
)
from skssl.backbones import ConvNet
from skssl.callbacks import GradientSNR, KNNMonitor, LinearMonitor
from skssl.datasets import make_voc_folder
from skssl.display._drawing import GREY, tile
from skssl.display.neighbors import OTHER_COLOR, SAME_COLOR, nearest
from skssl.transfer.annotations import read_objects


@pytest.fixture(autouse=True)
def close():
    """Close all figures, those of other tests of this process, too."""
    plt.close("all")
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def encoder(X):
    return quick(SimCLR, aux="rotation", epochs=3).fit(X)


@pytest.fixture(scope="module")
def simsiam(X):
    return quick(skssl.SimSiam, epochs=2).fit(X)


@pytest.fixture(scope="module")
def results():
    rng = np.random.default_rng(0)
    return Results(
        [
            {"dataset": d, "method": m, "seed": s, "probe": p, "score": rng.random()}
            for d in ("D", "E")
            for m, seeds in (("one", 1), ("two", 3))
            for s in range(seeds)
            for p in ("p", "q")
        ]
    )


MASKS = [np.full((16, 16), 5, np.uint8), np.repeat([[0, 0, 1, 255]], 16, 0).repeat(4, 1).astype(np.uint8)]
BOXES = [
    {
        "boxes": np.array([[0, 0, 8, 4], [2, 3, 9, 9]]),
        "labels": np.array(["dog", "cat"]),
        "scores": np.array([0.9, 0.4]),
    },
    {"boxes": np.zeros((0, 4)), "labels": np.array([], str), "scores": np.zeros(0)},
]
DISPLAYS = {
    "views": lambda e, X, y, r, **kw: ViewsDisplay.from_estimator(e, X, n_images=2, **kw),
    "training": lambda e, X, y, r, **kw: TrainingDisplay.from_estimator(e, measures=["loss"], **kw),
    "embedding": lambda e, X, y, r, **kw: EmbeddingDisplay.from_estimator(e, X, y, method="pca", **kw),
    "neighbors": lambda e, X, y, r, **kw: NeighborsDisplay.from_estimator(e, X, y, n_queries=2, n_neighbors=2, **kw),
    "segmentation": lambda e, X, y, r, **kw: SegmentationDisplay(
        [image / 255 for image in X[:2]], MASKS, MASKS[::-1], classes=[0, 1, 5], class_names={5: "a name"}
    ).plot(**kw),
    "detection": lambda e, X, y, r, **kw: DetectionDisplay(
        [image / 255 for image in X[:2]], BOXES, BOXES[::-1], classes=["cat", "dog"]
    ).plot(**kw),
    "results": lambda e, X, y, r, **kw: ResultsDisplay.from_results(
        Results(r.frame[r.frame["dataset"] == "D"]), **kw
    ),
}  # fmt: skip


@pytest.mark.parametrize("draw", DISPLAYS.values(), ids=DISPLAYS)
def test_given_axes_are_used_and_missing_ones_are_made(draw, encoder, X, y, results):
    figure = plt.Figure()
    ax = figure.add_subplot()
    display = draw(encoder, X, y, results, ax=ax)
    assert plt.get_fignums() == []
    axes = display.axes_.tolist() if hasattr(display, "axes_") else [display.ax_]
    assert axes == [ax]
    assert display.figure_ is figure
    assert ax.has_data()
    display.plot()
    assert len(plt.get_fignums()) == 1, "a second call of plot makes a figure"
    assert display.figure_ is not figure
    with pytest.raises(ValueError, match=r"one axes for each panel: expected \d axes, got 9"):
        display.plot([ax] * 9)


@pytest.mark.parametrize("draw", DISPLAYS.values(), ids=DISPLAYS)
def test_all_artists_are_inside_the_figure(draw, encoder, X, y, results):
    display = draw(encoder, X, y, results)
    display.figure_.canvas.draw()
    whole = display.figure_.bbox
    tight = display.figure_.get_tightbbox().transformed(display.figure_.dpi_scale_trans)
    assert tight.x0 >= -1
    assert tight.y0 >= -1
    assert tight.x1 <= whole.x1 + 1
    assert tight.y1 <= whole.y1 + 1


def test_every_display_is_in_the_gallery():
    scripts = "".join(path.read_text() for path in (Path(__file__).parents[2] / "examples").rglob("plot_*.py"))
    displays = [name for name in skssl.__all__ if name.endswith("Display")]
    assert len(displays) == 8
    assert [name for name in displays if f"\n{name}.from_" not in scripts] == []


# Training


def test_curves_show_the_history(encoder):
    display = TrainingDisplay.from_estimator(encoder)
    lines = {line.get_label(): line for ax in display.axes_ for line in ax.get_lines() if line.get_label()[0] != "_"}
    history = encoder.history_
    chance = lines.pop("chance")
    assert chance.get_ydata() == [0.25, 0.25]
    assert chance.axes is display.axes_[1]
    assert set(lines) == {"loss", "nt_xent", "rotation", "rotation_accuracy", "embedding_std", "effective_rank"}
    for name, line in lines.items():
        np.testing.assert_array_equal(line.get_xydata(), history[["epoch", name]].to_numpy(float))
    assert [text.get_text() for text in display.axes_[0].get_legend().get_texts()] == ["loss", "nt_xent", "rotation"]


def test_several_trainings_share_panels(encoder, simsiam):
    display = TrainingDisplay.from_estimator({"A $x$": encoder, "B": simsiam})
    names = ["loss", "loss", "rotation accuracy", "embedding std", "effective rank"]
    assert [ax.get_ylabel() for ax in display.axes_] == names
    first, second, accuracy, _, rank = ([line.get_label() for line in ax.get_lines()] for ax in display.axes_)
    assert (first, second) == (["A $x$"], ["B"]), "the losses differ in scale"
    assert rank == ["A $x$", "B"]
    assert accuracy == ["A $x$", "chance"], "only A has the task"
    assert not any(text.get_parse_math() for text in display.axes_[-1].get_legend().get_texts())
    pair = TrainingDisplay.from_estimator({"A": encoder, "B": simsiam}, measures=[("lr", "loss")])
    assert [line.get_label() for line in pair.axes_[0].get_lines()] == ["A, lr", "A, loss", "B, lr", "B, loss"]


def panels_of(display):
    """Return the names of the curves in each panel by its axis label."""
    return {
        ax.get_ylabel(): [line.get_label() for line in ax.get_lines() if line.get_label()[0] != "_"]
        for ax in display.axes_
    }


def test_default_panels_of_a_training_with_callbacks(X, y):
    callbacks = [KNNMonitor(X, y, n_neighbors=3, every=4), GradientSNR()]
    few = {"batch_size": 8, "epochs": 24}
    encoder = quick(skssl.DeepCluster, aux="rotation", callbacks=callbacks, n_clusters=3, **few).fit(X)
    display = TrainingDisplay.from_estimator(encoder)
    panels = panels_of(display)
    assert panels == {
        "loss": ["loss", "deepcluster", "rotation"],
        "score": [
            "cluster_accuracy",
            "nmi",
            "rotation_accuracy",
            "knn",
            "chance of rotation_accuracy",
            "chance of knn",
        ],
        "gradient snr": ["gradient_snr", "gradient_snr_squared"],
        "embedding std": ["embedding_std"],
        "effective rank": ["effective_rank"],
    }
    assert [ax.get_yscale() for ax in display.axes_] == ["linear", "linear", "log", "linear", "linear"]
    knn, *chance = display.axes_[1].get_lines()[-3:]
    assert [line.get_ydata()[0] for line in chance] == [0.25, callbacks[0].chance_["knn"]]
    assert 0 <= callbacks[0].chance_["knn"] < 0.5
    assert knn.get_xdata().tolist() == [4, 8, 12, 16, 20, 24], "a line through the measured epochs"
    two = panels_of(TrainingDisplay.from_estimator({"A": encoder, "B": encoder}))
    assert list(two) == ["loss", "cluster accuracy", "nmi", "rotation accuracy", "knn", "gradient snr",
                         "gradient snr squared", "embedding std", "effective rank"]  # fmt: skip
    assert set(map(tuple, two.values())) == {("A", "B"), ("A", "B", "chance")}
    again = panels_of(TrainingDisplay.from_estimator(pickle.loads(pickle.dumps(encoder))))
    assert again == panels


def test_loss_panel_shows_the_terms_of_a_step_only():
    rng = np.random.default_rng(0)
    history = pd.DataFrame(rng.random((6, 4)), columns=["one", "two", "agreement", "mine"])
    history.insert(0, "loss", history["one"] + 0.05 * history["two"])
    history = history.assign(epoch=range(1, 7), accuracy=0.5, lr=0.1, late=rng.random(6), nothing=np.nan, saved=True)
    panels = panels_of(TrainingDisplay(history).plot())
    assert panels == {
        "loss": ["loss", "one", "two", "mine"],
        "score": ["agreement", "accuracy"],
        "late": ["late"],
    }
    assert panels_of(TrainingDisplay(history[["epoch", "loss"]]).plot()) == {"loss": ["loss"]}


def test_losses_of_another_scale_have_axes_of_their_own():
    rng = np.random.default_rng(0)
    history = pd.DataFrame({"epoch": range(1, 7), "loss": 30 + rng.random(6), "invariance": 20 + rng.random(6)})
    history = history.assign(variance=0.5 + rng.random(6), covariance=0.9, tiny=1e-3, zero=0.0, lr=0.1)
    display = TrainingDisplay(history).plot()
    assert panels_of(display) == {
        "loss": ["loss", "invariance", "zero"],
        "variance": ["variance", "covariance"],
        "tiny": ["tiny"],
    }
    trainings = {"A": history, "B": history.assign(loss=-0.9), "C": history.assign(loss=6.0)}
    display = TrainingDisplay(trainings).plot(measures=None)
    losses = [[line.get_label() for line in ax.get_lines()] for ax in display.axes_ if ax.get_ylabel() == "loss"]
    assert losses == [["A", "C"], ["B"]]
    together = TrainingDisplay(trainings).plot(measures=["loss"])
    assert [line.get_label() for line in together.axes_[0].get_lines()] == ["A", "B", "C"]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"aux": Rotation(angles=(0, 180))}, {"rotation_accuracy": 0.5}),
        ({"aux": ["jigsaw", "relative_patch"]}, {"jigsaw_accuracy": 0.01, "relative_patch_accuracy": 0.125}),
        ({}, {}),
    ],
)
def test_chance_is_that_of_the_tasks(params, expected, X):
    display = TrainingDisplay.from_estimator(quick(SimCLR, **params).fit(X))
    assert display.chance == expected


def test_chance_of_a_fine_tuner_and_of_monitors(encoder, X, y):
    tuner = skssl.FineTuner(encoder, epochs=1, batch_size=16).fit(X, y)
    assert TrainingDisplay.from_estimator(tuner).chance == {"accuracy": 1 / 8}
    rare = np.where(np.arange(40) < 10, "rare", "usual")
    watched = quick(SimCLR, callbacks=[LinearMonitor(rare, X, rare), KNNMonitor(X, rare, X, rare)]).fit(X)
    assert TrainingDisplay.from_estimator(watched).chance == {"linear": 0.75, "knn": 0.75}


def test_invalid_trainings_raise(X, encoder):
    with pytest.raises(NotFittedError):
        TrainingDisplay.from_estimator(SimCLR())
    with pytest.raises(ValueError, match="of 'none' is empty"):
        TrainingDisplay.from_estimator({"none": quick(SimCLR, epochs=0).fit(X)})
    with pytest.raises(ValueError, match="Unknown measures 'los', did you mean 'loss'"):
        TrainingDisplay.from_estimator(encoder, measures=["los"])


# Views


def test_rotation_columns_are_rotations_of_the_views(X):
    columns = ViewsDisplay.from_estimator(quick(SimCLR, aux="rotation"), X, n_images=6).columns
    assert list(columns) == ["original", "view 1", "view 2", "rotation 1", "rotation 2"]
    turns = []
    for number in ("1", "2"):
        for view, turned in zip(columns[f"view {number}"], columns[f"rotation {number}"], strict=True):
            (k,) = (k for k in range(4) if np.allclose(np.rot90(view, k), turned, atol=1e-4))
            turns.append(k)
    assert len(set(turns)) > 1
    assert all((original == X).all((1, 2, 3)).any() for original in np.round(255 * np.array(columns["original"])))


def test_inputs_of_the_other_tasks(X):
    tasks = ["jigsaw", "colorization", "inpainting", "relative_patch"]
    columns = ViewsDisplay.from_estimator(quick(SimCLR, aux=tasks), X, n_images=2).columns
    assert list(columns) == ["original", "view 1", "view 2", *tasks]
    for view, holed in zip(columns["view 1"], columns["inpainting"], strict=True):
        hidden = np.isclose(holed, np.array(Augmentation().mean), atol=1e-5).all(2)
        assert hidden.sum() >= 64, "at least a quarter of the image"
        np.testing.assert_allclose(holed[~hidden], view[~hidden], atol=1e-5)
    for gray in columns["colorization"]:
        np.testing.assert_allclose(gray, gray[..., :1].repeat(3, axis=2), atol=1e-6)
    for name in ("jigsaw", "relative_patch"):  # 3x3 tiles of 4 pixels with gaps of 1
        assert {tiles.shape for tiles in columns[name]} == {(14, 14, 3)}
        assert all((tiles[[4, 9]] == 1).all() for tiles in columns[name])


def test_views_of_every_method(method, X):
    estimator = quick(method)
    before = torch.get_rng_state()
    columns = ViewsDisplay.from_estimator(estimator, X, n_images=2).columns
    assert torch.equal(before, torch.get_rng_state()), "the global random state is unchanged"
    assert not estimator.__sklearn_is_fitted__()
    assert len(columns) > 1
    for name, pictures in columns.items():
        assert len(pictures) == 2
        assert all(picture.min() >= 0 and picture.max() <= 1 and picture.std() > 0 for picture in pictures), name
    again = ViewsDisplay.from_estimator(estimator, X, n_images=2).columns
    assert all(np.array_equal(a, b) for name in columns for a, b in zip(columns[name], again[name], strict=True))


def test_rotnet_shows_all_rotations_of_an_image(X):
    columns = ViewsDisplay.from_estimator(quick(skssl.RotNet), X, n_images=1).columns
    assert list(columns) == ["original", "RotNet"]
    (sheet,) = columns["RotNet"]
    gap = 2  # an eighth of 16
    parts = [sheet[i : i + 16, j : j + 16] for i in (0, 16 + gap) for j in (0, 16 + gap)]
    for k, part in enumerate(parts):
        np.testing.assert_allclose(part, np.rot90(parts[0], k), atol=1e-6)


def test_small_crops_are_drawn_in_proportion(X):
    display = ViewsDisplay.from_estimator(quick(SwAV, augment=MultiCrop(n_local=2)), X, n_images=1)
    assert [picture[0].shape[0] for picture in display.columns.values()] == [16, 16, 16, 7, 7]
    widths = [image.get_extent()[1] - image.get_extent()[0] for image in display.ax_.get_images()]
    assert widths == pytest.approx([1, 1, 1, 7 / 16, 7 / 16])


def test_views_of_frozen_estimators_and_grey_images(X):
    gray = X.mean(3)
    fitted = quick(SimCLR, augment="none").fit(gray)
    columns = ViewsDisplay.from_estimator(FrozenEstimator(fitted), gray, n_images=2).columns
    for original, view in zip(columns["original"], columns["view 1"], strict=True):
        np.testing.assert_allclose(original, view, atol=1e-5)
    with pytest.raises(TypeError, match="an estimator of skssl"):
        ViewsDisplay.from_estimator(PCA(), X)


def test_saliency_maps_of_another_number_of_images_are_ignored(X):
    maps = np.zeros((40, 16, 16))
    maps[:, :8, :8] = 1
    estimator = quick(SimCLR, augment=Augmentation(crop_scale=(0.1, 0.2), jitter=0.0, gray=0.0, saliency=maps))
    ViewsDisplay.from_estimator(estimator, X, n_images=2)
    ViewsDisplay.from_estimator(estimator, X[:10], n_images=2)
    assert estimator.augment.saliency is maps


def test_tile_arranges_pictures_row_by_row():
    parts = np.arange(5, dtype=np.float32).repeat(8 * 8 * 3).reshape(5, 8, 8, 3) / 5
    sheet = tile(parts)
    assert sheet.shape == (17, 26, 3)
    assert sheet[::9, ::9, 0].tolist() == pytest.approx(np.array([[0, 0.2, 0.4], [0.6, 0.8, 1]]))
    assert tile(parts[:1]).shape == (8, 8, 3)


# Maps


def test_pca_map_matches_scikit_learn(encoder, X, y):
    display = EmbeddingDisplay.from_estimator(encoder, X, y, method="pca", n_samples=25)
    assert len(set(display.index)) == 25
    assert display.y.tolist() == y[display.index].tolist()
    np.testing.assert_array_equal(np.round(255 * display.images), X[display.index])
    features = encoder.transform(X)[display.index].astype(float)
    np.testing.assert_allclose(np.abs(display.embedding), np.abs(PCA(2).fit_transform(features)), rtol=1e-3, atol=1e-3)
    (points,) = display.ax_.collections
    colors = {}
    for place, color in zip(points.get_offsets(), points.get_facecolors(), strict=True):
        (i,) = np.flatnonzero(np.isclose(display.embedding, place).all(1))
        colors.setdefault(display.y[i], set()).add(to_hex(color))
    assert all(len(of) == 1 for of in colors.values()), "a class has one colour"
    assert len(set.union(*colors.values())) == len(set(y))
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == sorted(set(display.y))


def test_t_sne_preserves_neighbours_and_is_deterministic():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    features = np.eye(8)[y] + 0.05 * rng.standard_normal((60, 8))
    display = EmbeddingDisplay.from_features(features, y)
    distance = np.linalg.norm(display.embedding[:, None] - display.embedding, axis=2) + 1e9 * np.eye(60)
    assert (y[distance.argmin(1)] == y).all()
    np.testing.assert_array_equal(display.embedding, EmbeddingDisplay.from_features(features, y).embedding)


@pytest.mark.parametrize(("n_classes", "n_names", "n_markers"), [(10, 10, 1), (15, 15, 2), (21, 0, 1)])
def test_legend_names_up_to_twenty_classes(n_classes, n_names, n_markers):
    features = np.random.default_rng(0).random((60, 4))
    display = EmbeddingDisplay.from_features(features, np.arange(60) % n_classes, method="pca")
    legend = display.ax_.get_legend()
    assert len(legend.get_texts() if legend else []) == n_names
    assert len(display.ax_.collections) == n_markers
    assert sum(len(points.get_offsets()) for points in display.ax_.collections) == 60


@pytest.mark.parametrize(("n_classes", "as_list"), [(3, True), (10, False), (20, False), (21, False)])
def test_unlabelled_points_are_grey_and_last_in_the_legend(n_classes, as_list):
    features = np.random.default_rng(0).random((84, 4))
    names = np.array([f"class {code:02}" for code in range(n_classes)], dtype=object)
    y = names[np.arange(84) % n_classes]
    y[::2] = -1
    numbers = np.where(np.arange(84) % 2, np.arange(84) % n_classes, -1)
    for labels in (y.tolist() if as_list else y, numbers):
        display = EmbeddingDisplay.from_features(features, labels, method="pca")
        gray, *others = display.ax_.collections
        np.testing.assert_array_equal(np.sort(gray.get_offsets()[:, 0]), np.sort(display.embedding[::2, 0]))
        assert {to_hex(color) for color in gray.get_facecolors()} == {GREY}
        assert sum(len(points.get_offsets()) for points in others) == 42
        assert GREY not in {to_hex(color) for points in others for color in points.get_facecolors()}
        legend = display.ax_.get_legend()
        if n_classes > 20:
            assert legend is None
            continue
        shown = [text.get_text() for text in legend.get_texts()]
        labelled = sorted({str(label) for label in labels if label != -1}, key=lambda name: (len(name), name))
        assert shown == [*labelled, "unlabelled"]
        assert to_hex(legend.legend_handles[-1].get_color()) == GREY


def test_thumbnails_do_not_overlap(encoder, X, y):
    display = EmbeddingDisplay.from_estimator(encoder, X, y, method="pca", thumbnails=True)
    display.figure_.canvas.draw()
    boxes = [box.get_window_extent() for box in display.ax_.artists]
    assert len(boxes) > 3
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    with pytest.raises(ValueError, match="thumbnails=True needs images"):
        EmbeddingDisplay(display.embedding).plot(thumbnails=True)


def test_invalid_maps_raise(encoder, X, y):
    with pytest.raises(NotFittedError):
        EmbeddingDisplay.from_estimator(quick(SimCLR), X)
    with pytest.raises(ValueError, match="y must have one class for each image of X: expected 40 classes, got 39"):
        EmbeddingDisplay.from_estimator(encoder, X, y[1:])
    with pytest.raises(ValueError, match="Unknown method 'uamp', did you mean 'umap'"):
        EmbeddingDisplay.from_estimator(encoder, X, method="uamp")
    with pytest.raises(ValueError, match="Unknown layer 'conv9'"):
        EmbeddingDisplay.from_estimator(encoder, X, layer="conv9")
    with pytest.raises(ValueError, match="at least three images"):
        EmbeddingDisplay.from_estimator(encoder, X[:2])


def test_map_of_a_module(X, y):
    display = EmbeddingDisplay.from_estimator(ConvNet(), X, y, method="pca", layer="conv2")
    assert display.embedding.shape == (40, 2)


# Neighbours


def test_nearest_matches_literal_loop():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((20, 5))
    features[7] = features[3]  # a copy
    features[9] = 2 * features[3]
    own = np.array([3, 7, 9, 0])
    similarity, index = nearest(features, features[own], 4, own)
    for i, (found, where) in enumerate(zip(similarity, index, strict=True)):
        cosine = [
            a @ features[own[i]] / np.linalg.norm(a) / np.linalg.norm(features[own[i]]) if j != own[i] else -2
            for j, a in enumerate(features)
        ]
        assert found == pytest.approx(sorted(cosine, reverse=True)[:4])
        assert [cosine[j] for j in where] == pytest.approx(found)
        assert own[i] not in where
        assert len(set(where)) == 4


def test_frames_show_the_class_of_neighbours(encoder, X, y):
    display = NeighborsDisplay.from_estimator(encoder, X, y, n_queries=4, n_neighbors=6)
    frames = [patch for patch in display.ax_.patches if isinstance(patch, Rectangle)]
    same = (display.query_y[:, None] == display.neighbor_y).ravel()
    assert 0 < same.sum() < 24
    assert [to_hex(frame.get_edgecolor()) for frame in frames] == [SAME_COLOR if each else OTHER_COLOR for each in same]
    assert [frame.get_linestyle() == "-" for frame in frames] == same.tolist(), "frames differ in style, too"
    texts = [text.get_text() for text in display.ax_.texts]
    assert [f"{each:.2f}" for each in display.similarity.ravel()] == [text for text in texts if "." in text]
    for query, label in zip(display.queries, display.query_y, strict=True):
        (i,) = np.flatnonzero((np.round(255 * query) == X).all((1, 2, 3)))
        assert y[i] == label
    shown = display.ax_.get_images()
    np.testing.assert_array_equal(shown[7].get_array(), display.queries[1])
    np.testing.assert_array_equal(shown[8].get_array(), display.neighbors[1, 0])


def test_frames_of_unlabelled_images_are_grey(encoder, X, y):
    few = skssl.label_fraction(y, 0.5, random_state=0)
    for labels in (few, few.tolist(), np.where(few == -1, -1, np.unique(y, return_inverse=True)[1])):
        display = NeighborsDisplay.from_estimator(encoder, X, labels, n_queries=6, n_neighbors=6)
        unknown = ((display.query_y == -1)[:, None] | (display.neighbor_y == -1)).ravel()
        same = (display.query_y[:, None] == display.neighbor_y).ravel()
        assert 0 < unknown.sum() < 36
        assert (same & unknown).any(), "-1 is not a class"
        frames = [patch for patch in display.ax_.patches if isinstance(patch, Rectangle)]
        wanted = np.where(unknown, GREY, np.where(same, SAME_COLOR, OTHER_COLOR)).tolist()
        assert [to_hex(frame.get_edgecolor()) for frame in frames] == wanted
        texts = [text.get_text() for text in display.ax_.texts]
        assert texts.count("unlabelled") == (display.query_y == -1).sum() > 0
        assert "-1" not in texts


def test_search_among_few_images(encoder, X):
    display = NeighborsDisplay.from_estimator(encoder, X[:3], X_query=X, n_queries=40, n_neighbors=3)
    assert display.neighbors.shape == (40, 3, 16, 16, 3)
    shown = np.round(255 * display.neighbors)
    for row in shown:
        assert sorted(next(i for i in range(3) if (image == X[i]).all()) for image in row) == [0, 1, 2]


def test_separate_queries(encoder, X, y):
    display = NeighborsDisplay.from_estimator(encoder, X[:30], X_query=X, n_queries=40, n_neighbors=1)
    found = [(np.round(255 * query) == X[:30]).all((1, 2, 3)).any() for query in display.queries]
    assert sum(found) == 30
    assert np.allclose(display.similarity[found], 1, atol=1e-5), "queries among the images are their own neighbours"
    assert len(display.ax_.patches) == 0, "no frames without classes"
    with pytest.raises(ValueError, match=r"n_neighbors=40 needs at least 41 images\. Got 40"):
        NeighborsDisplay.from_estimator(encoder, X, n_neighbors=40)
    with pytest.raises(ValueError, match="expected 40 classes, got 1"):
        NeighborsDisplay.from_estimator(encoder, X, y[:1])
    with pytest.raises(NotFittedError):
        NeighborsDisplay.from_estimator(quick(SimCLR), X)


# Scores


def test_chance_is_drawn_with_the_scores_of_classifiers(X):
    rare = np.where(np.arange(40) < 10, "rare", "usual")
    probes = {"kNN": skssl.KNNProbe(n_neighbors=3), "ridge": RidgeScore()}
    found = skssl.compare([quick(SimCLR, epochs=0)], X, rare, X_test=X, y_test=rare, probes=probes)
    assert found.frame.set_index("probe")["chance"].to_dict() == {
        "kNN": 0.75,
        "ridge": pytest.approx(np.nan, nan_ok=True),
    }
    (ax,) = ResultsDisplay.from_results(found).axes_
    assert [line.get_xdata()[0] for line in ax.get_lines() if line.get_label() == "chance"] == [75.0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["chance", "kNN", "ridge"]
    (ax,) = ResultsDisplay.from_results(Results(found.frame.drop(columns="chance"))).axes_
    assert "chance" not in [text.get_text() for text in ax.get_legend().get_texts()]


class RidgeScore(BaseEstimator):
    """No classifier, so that its score is no accuracy."""

    def fit(self, X, y):
        return self

    def score(self, X, y):
        return 0.5


def test_map_by_umap(encoder, X, y):
    pytest.importorskip("umap", reason="umap-learn is not installed")
    displays = [EmbeddingDisplay.from_estimator(encoder, X, y, method="umap", n_samples=20) for _ in range(2)]
    assert displays[0].embedding.shape == (20, 2)
    assert np.isfinite(displays[0].embedding).all()
    np.testing.assert_array_equal(displays[0].embedding, displays[1].embedding)
    assert displays[0].names == ("UMAP 1", "UMAP 2")
    assert EmbeddingDisplay.from_features(np.eye(3), method="umap").embedding.shape == (3, 2)


def test_umap_without_its_library_is_refused(encoder, X, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ImportError, match=r"needs umap-learn: pip install 'skssl\[umap\]', or use method='tsne'"):
        EmbeddingDisplay.from_estimator(encoder, X, method="umap")


def test_means_and_standard_deviations_are_drawn(results):
    display = ResultsDisplay.from_results(results)
    assert [ax.get_title(loc="left") for ax in display.axes_] == ["D", "E"]
    frame = results.frame
    for ax, dataset in zip(display.axes_, "DE", strict=True):
        for bars, probe in zip(ax.containers, "pq", strict=True):
            line, _, (spread,) = bars
            for (x, y), segment in zip(line.get_xydata(), spread.get_segments(), strict=True):
                method = ["one", "two"][round(y)]
                rows = (frame["dataset"] == dataset) & (frame["probe"] == probe) & (frame["method"] == method)
                scores = 100 * frame[rows]["score"]
                assert x == pytest.approx(scores.mean())
                deviation = scores.std() if method == "two" else 0.0
                assert segment[:, 0] == pytest.approx([x - deviation, x + deviation])
    assert [text.get_text() for text in display.axes_[-1].get_legend().get_texts()] == ["p", "q"]
    assert len(display.axes_[0].collections[0].get_offsets()) == 3, "the scores of the method with several seeds"


def test_selected_and_renamed_methods(results):
    display = ResultsDisplay.from_results(results, {"two": "TWO $1$"}, percent=False)
    (label,) = display.axes_[0].get_yticklabels()
    assert label.get_text() == "TWO $1$"
    assert not label.get_parse_math()
    assert display.axes_[0].get_xlabel() == "score"
    with pytest.raises(ValueError, match="Unknown method 'three'"):
        ResultsDisplay.from_results(results, ["three"])


# Masks and boxes


def test_masks_have_the_colours_of_the_legend():
    images = [np.zeros((16, 16, 3)), np.ones((8, 12, 3))]
    truth = [MASKS[1], np.full((8, 12), 5, np.uint8)]
    display = SegmentationDisplay(images, truth, [MASKS[0], truth[1]], classes=[0, 1, 5, 9], class_names={5: "five"})
    display.plot()
    patches = display.ax_.get_legend().get_patches()
    colors = {patch.get_label(): patch.get_facecolor()[:3] for patch in patches}
    assert list(colors) == ["0", "1", "five", "no class"], "class 9 does not occur"
    assert len(set(colors.values())) == 4
    assert colors["no class"] == (1, 1, 1)
    shown = [image.get_array() for image in display.ax_.get_images()]
    assert [array.shape[:2] for array in shown] == [(16, 16)] * 3 + [(8, 12)] * 3
    names = {0: "0", 1: "1", 5: "five", 255: "no class"}
    for place, mask in zip((1, 2, 4, 5), [truth[0], MASKS[0], truth[1], truth[1]], strict=True):
        expected = np.array([[colors[names[value]] for value in row] for row in mask.tolist()])
        np.testing.assert_allclose(np.asarray(shown[place]), expected, atol=1e-6)
    assert [text.get_text() for text in display.ax_.texts] == ["image", "truth", "prediction"]


def test_many_classes_have_different_colours():
    truth = [np.arange(150, dtype=np.uint8).reshape(10, 15) + 1]
    display = SegmentationDisplay([np.zeros((10, 15, 3))], truth, truth, classes=np.arange(1, 151)).plot()
    patches = display.ax_.get_legend().get_patches()
    assert len({patch.get_facecolor() for patch in patches}) == len(patches) == 150


def test_boxes_are_at_their_places_and_weak_ones_are_left_out():
    images = [np.zeros((16, 16, 3)), np.zeros((16, 8, 3))]
    boxes = [BOXES[0], {"boxes": np.array([[0, 8, 8, 16]]), "labels": np.array(["cat"]), "scores": np.array([0.6])}]
    display = DetectionDisplay(images, boxes, boxes, classes=["cat", "cow", "dog"]).plot(threshold=0.5)
    colors = {patch.get_label(): patch.get_facecolor() for patch in display.ax_.get_legend().get_patches()}
    assert list(colors) == ["cat", "dog"]
    pictures = [image.get_extent() for image in display.ax_.get_images()]  # left, right, bottom, top
    frames = [patch for patch in display.ax_.patches if isinstance(patch, Rectangle)]
    expected = [
        (0, [0, 0, 8, 4], "dog"),
        (0, [2, 3, 9, 9], "cat"),
        (1, [0, 0, 8, 4], "dog"),  # the weak box is not drawn
        (2, [0, 8, 8, 16], "cat"),
        (3, [0, 8, 8, 16], "cat"),
    ]
    assert len(frames) == len(expected)
    for frame, (place, box, name) in zip(frames, expected, strict=True):
        x0, x1, y1, y0 = pictures[place]
        height, width = images[place // 2].shape[:2]
        at = frame.get_bbox().extents
        ours = (at - [x0, y0, x0, y0]) / [x1 - x0, y1 - y0, x1 - x0, y1 - y0] * [width, height, width, height]
        np.testing.assert_allclose(ours, box, atol=1e-9)
        assert frame.get_edgecolor() == colors[name]


@pytest.mark.parametrize(
    ("display", "transfer"), [(SegmentationDisplay, "SegmentationTransfer"), (DetectionDisplay, "DetectionTransfer")]
)
def test_display_of_a_folder_shows_its_truth_and_the_predictions(display, transfer, tmp_path):
    folder = make_voc_folder(tmp_path, 8, image_size=32, random_state=0)
    transfer = getattr(skssl, transfer)(ConvNet(), image_size=32, width=8, epochs=0, device="cpu", random_state=0)
    with pytest.raises(NotFittedError):
        display.from_estimator(transfer, folder)
    transfer.fit(folder)
    options = {} if display is SegmentationDisplay else {"threshold": 0.0}
    drawn = display.from_estimator(transfer, folder, n_images=3, **options)
    assert len(drawn.images) == len(drawn.truth) == len(drawn.predicted) == 3
    order = np.random.RandomState(0).permutation(4)[:3] + 4  # the second half is the split "val"
    paths = [folder / "JPEGImages" / f"{i:06d}.jpg" for i in order]
    for i, (image, true, found, theirs) in enumerate(
        zip(drawn.images, drawn.truth, drawn.predicted, transfer.predict(paths), strict=True)
    ):
        np.testing.assert_allclose(image, np.asarray(Image.open(paths[i])) / 255, atol=1e-6)
        if display is SegmentationDisplay:
            np.testing.assert_array_equal(
                true, np.asarray(Image.open(folder / f"SegmentationClass/{order[i]:06d}.png"))
            )
            np.testing.assert_array_equal(found, theirs)
        else:
            objects = read_objects(folder / f"Annotations/{order[i]:06d}.xml")
            np.testing.assert_array_equal(true["boxes"], [thing.box for thing in objects])
            np.testing.assert_array_equal(found["boxes"], theirs["boxes"])
    with pytest.raises(TypeError, match=rf"estimator must be a fitted {type(transfer).__name__}. Got SimCLR"):
        display.from_estimator(SimCLR(), folder)
