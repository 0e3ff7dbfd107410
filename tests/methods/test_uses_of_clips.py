"""The rest of the library with the encoders of clips: displays, callbacks, probes, metrics, transfer, compare."""

import re

import numpy as np
import pytest
import torch
from conftest import CLIP_METHODS, quick
from matplotlib import pyplot as plt
from PIL import Image
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

import skssl
from skssl import Augmentation, cli
from skssl.callbacks import GradientSNR, KNNMonitor, LinearMonitor
from skssl.datasets import make_clips
from skssl.images import as_clips
from skssl.metrics import contrastive_accuracy, rotation_accuracy
from skssl.probes.encoders import as_encoder, as_samples

N, T = 24, 6
CLIPS, SOUNDS, SHAPES, _ = make_clips(N, n_frames=T, image_size=16, n_classes=2, random_state=0)
PAIRS = list(zip(CLIPS, SOUNDS, strict=True))
STILL = Augmentation(crop_scale=None, flip=0.0, jitter=0.0, gray=0.0)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def encoders():
    """A fitted encoder of each method."""
    inputs = {skssl.ShuffleAndLearn: CLIPS, skssl.AudioVisual: (CLIPS, SOUNDS)}
    return {method: quick(method, precision="float32").fit(X) for method, X in inputs.items()}


@pytest.fixture(params=CLIP_METHODS, ids=lambda method: method.__name__)
def encoder(request, encoders):
    return encoders[request.param]


@pytest.fixture
def inputs(encoder):
    """The forms of X that hold all clips."""
    return [CLIPS, list(CLIPS), PAIRS] + [(CLIPS, SOUNDS)] * isinstance(encoder, skssl.AudioVisual)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of class folders of clips: two splits of two classes."""
    root = tmp_path_factory.mktemp("clips")
    for i, (clip, name) in enumerate(zip(CLIPS, SHAPES, strict=True)):
        place = root / ("train" if i < 16 else "test") / name / f"{i:02d}"
        place.mkdir(parents=True)
        for k, frame in enumerate(clip):
            Image.fromarray(frame).save(place / f"{k}.png")
    return root


# Displays


def test_views_are_the_frames_of_a_step_beside_their_augmented_views():
    estimator = quick(skssl.ShuffleAndLearn, augment=STILL)
    for each in (estimator, FrozenEstimator(quick(skssl.ShuffleAndLearn, augment=STILL).fit(CLIPS))):
        display = skssl.ViewsDisplay.from_estimator(each, CLIPS, n_images=3)
        assert list(display.columns) == [f"{kind} {k}" for kind in ("original", "view") for k in (1, 2, 3)]
        index = np.random.RandomState(0).permutation(N)[:3]
        for k, place in enumerate(display.frames.T, 1):
            np.testing.assert_allclose(display.columns[f"original {k}"], CLIPS[index, place] / 255, atol=1e-6)
            np.testing.assert_allclose(display.columns[f"view {k}"], CLIPS[index, place] / 255, atol=1e-5)
        first, middle, last = display.frames.T
        assert ((first != last) & (middle != first) & (middle != last)).all()
        numbers = [text.get_text() for text in display.ax_.texts if text.get_text().startswith("frame")]
        assert numbers == [f"frame {k + 1}" for k in display.frames.ravel()]


def test_views_of_sorting_with_a_task_and_of_audio_visual():
    sort = quick(skssl.ShuffleAndLearn, frame_order="sort", aux="rotation")
    titles = list(skssl.ViewsDisplay.from_estimator(sort, CLIPS).columns)
    assert titles[3:] == [
        "original 4",
        "view 1",
        "view 2",
        "view 3",
        "view 4",
        "rotation 1",
        "rotation 2",
        *titles[10:],
    ]
    for X in (CLIPS, (CLIPS, SOUNDS), PAIRS):
        display = skssl.ViewsDisplay.from_estimator(quick(skssl.AudioVisual), X, n_images=2)
        assert (list(display.columns), display.frames.shape) == (["original", "view"], (2, 1))


def test_maps_and_neighbours_show_the_middle_frames(encoder, inputs):
    features = encoder.transform(CLIPS)
    for X in inputs:
        found = skssl.EmbeddingDisplay.from_estimator(encoder, X, SHAPES, method="pca", thumbnails=True)
        np.testing.assert_allclose(found.images, CLIPS[:, 3] / 255, atol=1e-6)
        expected = skssl.EmbeddingDisplay.from_features(features, SHAPES, method="pca")
        np.testing.assert_allclose(found.embedding, expected.embedding, atol=1e-3)
        near = skssl.NeighborsDisplay.from_estimator(encoder, X, SHAPES, n_queries=2, n_neighbors=3)
        queries = np.random.RandomState(0).permutation(N)[:2]
        np.testing.assert_allclose(near.queries, CLIPS[queries, 3] / 255, atol=1e-6)
        apart = skssl.NeighborsDisplay.from_estimator(encoder, X, X_query=X[:2] if X is not inputs[-1] else PAIRS[:2])
        np.testing.assert_allclose(apart.similarity[:, 0], 1.0, atol=1e-5)
        plt.close("all")
    read = skssl.EmbeddingDisplay.from_estimator(encoder, as_clips(CLIPS), SHAPES, method="pca")
    np.testing.assert_allclose(read.images, CLIPS[:, 3] / 255, atol=1e-6)
    images = skssl.EmbeddingDisplay.from_estimator(encoder, CLIPS[:, 0], method="pca")
    np.testing.assert_allclose(images.images, CLIPS[:, 0] / 255, atol=1e-6)


def test_report_counts_clips_and_omits_the_views_of_images(encoders, tmp_path):
    audio, how = encoders[skssl.AudioVisual], {"method": "pca", "n_neighbors": 3}
    page = skssl.report(audio, (CLIPS, SOUNDS), SHAPES, tmp_path / "a.html", **how).read_text()
    for text in ("clips on this page", "24 of 6 frames of 16 × 16 × 3", "clips per second", 'alt="Views'):
        assert text in page
    page = skssl.report(encoders[skssl.ShuffleAndLearn], CLIPS[:, 0], None, tmp_path / "b.html", **how).read_text()
    assert "images on this page" in page
    assert 'alt="Views' not in page


# Callbacks


@pytest.mark.parametrize("as_tuple", [False, True])
def test_monitors_read_clips_as_the_training_does(as_tuple):
    def pairs(rows):
        return (CLIPS[rows], SOUNDS[rows]) if as_tuple else PAIRS[rows]

    first, rest = slice(0, 16), slice(16, None)
    for method, of in ((skssl.AudioVisual, pairs), (skssl.ShuffleAndLearn, lambda rows: CLIPS[rows])):
        monitors = [
            KNNMonitor(of(first), SHAPES[first], of(rest), SHAPES[rest], n_neighbors=3),
            LinearMonitor(SHAPES, of(rest), SHAPES[rest]),
            GradientSNR(),
        ]
        fitted = quick(method, epochs=6, callbacks=monitors).fit(of(slice(None)))
        probe = skssl.KNNProbe(n_neighbors=3).fit(fitted.transform(CLIPS[first]), SHAPES[first])
        assert fitted.history_["knn"].iloc[-1] == probe.score(fitted.transform(CLIPS[rest]), SHAPES[rest])
        assert fitted.history_["linear"].between(0, 1).all()
    with pytest.raises(ValueError, match=re.escape("inconsistent numbers of samples: [16, 15]")):
        quick(method, callbacks=[KNNMonitor(of(first), SHAPES[:15])]).fit(CLIPS)


def test_monitor_reads_a_folder_of_clips_and_its_classes(folder):
    history = quick(skssl.ShuffleAndLearn, callbacks=[KNNMonitor(folder / "train", n_neighbors=3)]).fit(CLIPS).history_
    assert history["knn"].between(0, 1).all()


# Probes, metrics, transfer and comparisons


def test_probes_read_every_form_of_clips(encoder, inputs):
    features = encoder.transform(CLIPS)
    for X in inputs:
        probe = skssl.KNNProbe(encoder=encoder, n_neighbors=3).fit(X, SHAPES)
        np.testing.assert_allclose(
            probe.score(X, SHAPES), skssl.KNNProbe(n_neighbors=3).fit(features, SHAPES).score(features, SHAPES)
        )
    with pytest.raises(ValueError, match=re.escape("inconsistent numbers of samples: [24, 23]")):
        skssl.LinearProbe(encoder=encoder).fit(X, SHAPES[1:])


def test_probe_takes_the_classes_from_the_folders_of_clips(encoders, folder):
    encoder = encoders[skssl.ShuffleAndLearn]
    probe = skssl.KNNProbe(encoder=encoder, n_neighbors=3).fit(folder)
    assert probe.classes_.tolist() == sorted(set(SHAPES))
    order = np.concatenate([np.argsort(SHAPES[16:], kind="stable") + 16, np.argsort(SHAPES[:16], kind="stable")])
    expected = skssl.KNNProbe(encoder=encoder, n_neighbors=3).fit(CLIPS[order], SHAPES[order])
    assert probe.score(folder) == expected.score(CLIPS, SHAPES)
    tuner = skssl.FineTuner(encoder, epochs=1, batch_size=16, random_state=0).fit(folder)
    assert tuner.score(folder) == tuner.score(CLIPS, SHAPES)
    sounding = encoders[skssl.AudioVisual]
    assert len(skssl.KNNProbe(encoder=sounding, n_neighbors=3).fit((folder, SOUNDS)).predict((folder, SOUNDS))) == N


@pytest.mark.parametrize("probe", [skssl.MLPProbe(epochs=2), skssl.LinearProbe(solver="sgd", epochs=2)])
def test_probes_augment_the_frames_of_a_clip_alike(probe, encoder):
    views = []
    module = as_encoder(encoder, CLIPS).module
    hook = module.register_forward_pre_hook(lambda module, inputs: views.append(inputs[0]))
    still = np.repeat(CLIPS[:, :1], T, axis=1)
    probe.set_params(encoder=encoder, augment=Augmentation(crop_scale=(0.3, 0.6)), random_state=0).fit(still, SHAPES)
    hook.remove()
    frames = torch.cat([view for view in views if len(view) == N * T][:1]).unflatten(0, (T, N))
    torch.testing.assert_close(frames, frames[:1].expand_as(frames))
    assert not torch.equal(frames[0, 0], frames[0, 1])


def test_features_of_views_of_clips_are_the_mean_over_their_frames(encoder):
    found, generator = as_encoder(encoder, CLIPS), torch.Generator()
    (still,) = found.augmentations(STILL, 16)
    with torch.no_grad():
        features = found.encode_views(still, torch.from_numpy(CLIPS).movedim(-1, 2), torch.arange(N), generator)
    np.testing.assert_allclose(features, encoder.transform(CLIPS), rtol=1e-3, atol=1e-4)


def test_metrics_of_clips(encoder, inputs):
    for X in inputs:
        assert contrastive_accuracy(encoder, X, batch_size=12, augment="none") == 1.0
    assert 0 <= rotation_accuracy(encoder, CLIPS, CLIPS, probe=skssl.KNNProbe(n_neighbors=1)) <= 1


def test_distiller_learns_from_a_fine_tuner_of_clips(encoder, inputs):
    how = {"epochs": 1, "batch_size": 16, "random_state": 0}
    for X in inputs:
        teacher = skssl.FineTuner(encoder, **how).fit(X, SHAPES)
        assert skssl.Distiller(teacher, encoder, **how).fit(X).predict(X).shape == (N,)


def test_compare_gives_both_methods_the_same_pairs(folder, tmp_path):
    methods = [quick(method, epochs=0) for method in CLIP_METHODS]
    probes = [skssl.KNNProbe(n_neighbors=3)]
    tables = [skssl.compare(methods, X, SHAPES, probes=probes, cache=tmp_path).frame for X in ((CLIPS, SOUNDS), PAIRS)]
    assert tables[0]["method"].tolist() == ["ShuffleAndLearn", "AudioVisual"]
    assert tables[0]["score"].tolist() == tables[1]["score"].tolist()
    clips = skssl.compare(methods[:1], CLIPS, SHAPES, probes=probes).frame
    assert clips["score"].tolist() == tables[0]["score"][:1].tolist()
    parts = skssl.compare(methods[:1], folder / "train", X_test=folder / "test", probes=probes).frame
    assert len(parts) == 1


def test_samples_can_be_counted_and_indexed(folder):
    assert len(as_samples(quick(skssl.ShuffleAndLearn), folder)) == N
    assert len(as_samples(make_pipeline(quick(skssl.ShuffleAndLearn)), folder)) == N
    assert len(as_samples(skssl.SimCLR(), folder)) == N * T
    with pytest.raises(TypeError, match="The frames in X are Clips, but arrays, files or folders were expected"):
        as_samples(skssl.AudioVisual(), (as_clips(CLIPS), SOUNDS))
    pairs = as_samples(FrozenEstimator(quick(skssl.AudioVisual)), (folder, SOUNDS))
    assert (len(pairs), len(pairs[0][0])) == (N, T)
    with pytest.raises(ValueError, match=f"a waveform for each of its {N} images or clips. Got 3"):
        as_samples(quick(skssl.AudioVisual), (folder, SOUNDS[:3]))


def test_other_estimators_refuse_clips_with_advice():
    for fit in (quick(skssl.SimCLR).fit, skssl.LinearProbe(encoder=torch.nn.Flatten()).fit):
        with pytest.raises(ValueError, match="ShuffleAndLearn and AudioVisual read clips"):
            fit(CLIPS, SHAPES)


# Texts and the command line


def test_progress_bar_counts_clips(capsys, folder):
    quick(skssl.ShuffleAndLearn, verbose=1).fit(folder)
    shown = capsys.readouterr()
    assert "24 clips." in shown.out
    assert re.search(r"16.0/16.0 \[.* clips/s", shown.err)


def test_command_line_trains_on_folders_of_clips(folder, tmp_path, capsys):
    file, table = str(tmp_path / "a.safetensors"), str(tmp_path / "a.npz")
    options = ["--backbone", "convnet", "--epochs", "1", "--batch-size", "8", "--random-state", "0", "--verbose", "0"]
    assert cli.main(["fit", "ShuffleAndLearn", str(folder), *options, "--out", file]) == 0
    assert "of 16 clips" in capsys.readouterr().out
    assert cli.main(["transform", file, str(folder), "--out", table]) == 0
    found = np.load(table)
    assert found["class"].tolist() == [*sorted(SHAPES[16:]), *sorted(SHAPES[:16])]
    features = skssl.load(file).transform([str(path) for path in found["path"]])
    np.testing.assert_allclose(found["features"], features, rtol=1e-2, atol=1e-3)
    assert cli.main(["probe", file, str(folder)]) == 0
    assert "16 training and 8 test clips" in capsys.readouterr().out
    assert cli.main(["fit", "AudioVisual", str(folder), "--out", file]) == 1
    assert "learns from sounds, too, which skssl fit cannot read" in capsys.readouterr().err
