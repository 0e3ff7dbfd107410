"""Methods that train on clips: what is asked of every method, their sampling and their losses."""

import functools
import itertools
import pickle
import re

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.signal
import torch
from conftest import CLIP_METHODS, quick
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch.callbacks import Callback
from torch.nn import functional as F

import skssl
from skssl import Augmentation
from skssl.datasets import make_clips
from skssl.images import Clips
from skssl.images.sounds import log_spectrogram
from skssl.methods.base import SSLTransformer
from skssl.methods.shuffle_and_learn import frame_motion, order_class
from skssl.nn.correspondence import Correspondence
from skssl.training.objective import Batch

N, T = 24, 6
CLIPS, SOUNDS, SHAPES, _ = make_clips(N, n_frames=T, image_size=16, random_state=0)


@pytest.fixture(params=CLIP_METHODS, ids=lambda method: method.__name__)
def method(request):
    return request.param


@pytest.fixture
def X(method):
    """What the method trains on."""
    return (CLIPS, SOUNDS) if method is skssl.AudioVisual else CLIPS


class Tables:
    """Read each row of a table as a clip of six equal frames, with a sound of its own."""

    def _as_images(self, X, **how):
        images = SSLTransformer._as_images(self, X, **how)
        rows = torch.arange(len(images)).repeat_interleave(T)
        sounds = torch.randn(len(images), 1, 9, 9, generator=torch.Generator().manual_seed(0))
        return Clips(images.take(rows), T, {"sounds": sounds})


class TableShuffleAndLearn(Tables, skssl.ShuffleAndLearn):
    pass


class TableAudioVisual(Tables, skssl.AudioVisual):
    pass


TINY = {"backbone": "convnet", "epochs": 1, "batch_size": 16, "random_state": 0, "image_shape": (1, 1, -1)}


@pytest.mark.filterwarnings("ignore::skssl.CollapseWarning")  # the images of the checks are single pixels
@parametrize_with_checks([TableShuffleAndLearn(**TINY), TableAudioVisual(**TINY, proj_dim=8)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_history_and_features(method, X):
    fitted = quick(method, epochs=2, precision="float32").fit(X)
    history = fitted.history_
    assert np.isfinite(history.to_numpy(float)).all()
    (measure,) = fitted.chance
    assert history[measure].between(0, 1).all()
    features = fitted.transform(CLIPS)
    of_frames = fitted.transform(CLIPS.reshape(-1, 16, 16, 3))
    np.testing.assert_allclose(features, of_frames.reshape(N, T, 128).mean(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fitted.transform(X), features, rtol=1e-5)
    assert fitted.get_feature_names_out()[0] == f"{method.__name__.lower()}0"
    with pytest.raises(ValueError, match=r"fitted on images of shape \(3, 16, 16\)"):
        fitted.transform(CLIPS[..., :12, :])


def test_same_seed_gives_same_bits(method, X):
    first, second, other = (quick(method, aux="rotation", random_state=seed).fit(X) for seed in (0, 0, 1))
    assert np.array_equal(first.transform(CLIPS), second.transform(CLIPS))
    assert not np.array_equal(first.transform(CLIPS), other.transform(CLIPS))


def test_partial_fit_for_all_epochs_equals_fit(method, X):
    whole, parts = quick(method, epochs=2).fit(X), quick(method, epochs=2)
    for _ in range(2):
        parts = pickle.loads(pickle.dumps(parts.partial_fit(X)))
    assert np.array_equal(whole.transform(CLIPS), parts.transform(CLIPS))


def test_clone_and_joblib(method, X, tmp_path):
    estimator = quick(method, n_frames=5, augment=Augmentation(crop_scale=(0.5, 1.0)))
    assert clone(estimator).get_params()["n_frames"] == 5
    joblib.dump(estimator.fit(X), tmp_path / "a")
    assert np.array_equal(joblib.load(tmp_path / "a").transform(CLIPS), estimator.transform(CLIPS))
    assert repr(clone(estimator)) == repr(estimator)


def test_saved_estimator_continues_bit_for_bit(method, X, tmp_path):
    estimator = quick(method, epochs=2).partial_fit(X)
    estimator.save(tmp_path / "a")
    loaded = skssl.load(tmp_path / "a")
    assert np.array_equal(loaded.transform(CLIPS), estimator.transform(CLIPS))
    pd.testing.assert_frame_equal(loaded.history_, estimator.history_, check_dtype=False)
    assert np.array_equal(loaded.partial_fit(X).transform(CLIPS), estimator.partial_fit(X).transform(CLIPS))


class Die(Callback):
    """Raise an error after a number of steps."""

    def __init__(self, after):
        self.left = after

    def on_batch_end(self, net, **kwargs):
        self.left -= 1
        if not self.left:
            raise RuntimeError("died")


def test_resumed_training_is_bit_exact(method, X, tmp_path):
    params = {"epochs": 3, "batch_size": 8}
    with pytest.raises(RuntimeError, match="died"):
        quick(method, **params, checkpoint=tmp_path, checkpoint_every=1, callbacks=[Die(5)]).fit(X)
    resumed = quick(method, **params, checkpoint=tmp_path, checkpoint_every=1).fit(X)
    assert np.array_equal(resumed.transform(CLIPS), quick(method, **params).fit(X).transform(CLIPS))
    with pytest.raises(ValueError, match="differs in: X"):
        quick(method, **params, checkpoint=tmp_path).fit((CLIPS[::-1], SOUNDS) if isinstance(X, tuple) else CLIPS[::-1])


@pytest.mark.parametrize("params", [{"frame_order": "sort"}, {"fusion": "distance"}, {"fusion": "concatenate"}, {}])
def test_compiled_steps_equal_plain_ones(method, X, params, monkeypatch):
    if params.keys() - method().get_params().keys():
        pytest.skip("a parameter of the other method")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager", fullgraph=True))
    compiled, plain = (quick(method, compile=how, **params).fit(X) for how in (True, False))
    assert compiled.net_.compiled, "it has fallen back"
    np.testing.assert_allclose(compiled.transform(CLIPS), plain.transform(CLIPS), rtol=1e-4, atol=1e-5)


def test_parts_of_a_batch_train(method, X):
    assert len(quick(method, accumulate=2).fit(X).history_) == 1


def test_frames_are_read_from_folders(method, tmp_path):
    for i, k in itertools.product(range(8), range(T)):
        (tmp_path / f"{i}").mkdir(exist_ok=True)
        Image.fromarray(CLIPS[i, k]).save(tmp_path / f"{i}" / f"{k}.png")
    X, folder = (
        (CLIPS[:8], tmp_path) if method is skssl.ShuffleAndLearn else ((CLIPS[:8], SOUNDS[:8]), (tmp_path, SOUNDS[:8]))
    )
    of_files, of_arrays = quick(method).fit(folder), quick(method).fit(X)
    assert np.array_equal(of_files.transform(tmp_path), of_arrays.transform(CLIPS[:8]))


def test_transforms_of_other_libraries_are_refused(method, X):
    with pytest.raises(TypeError, match="same random numbers, which transforms of other libraries do not allow"):
        quick(method, augment=lambda image: image).fit(X)


def test_docstring_lists_parameters_and_defaults(method):
    text = method.__doc__
    assert text.index("Parameters\n") < text.index("Other Parameters\n") < text.index("References\n")
    found = re.findall(r"^(\w+) : .*default=(.*)$", text, flags=re.MULTILINE)
    assert {name: eval(default) for name, default in found} == method().get_params(deep=False)


# Shuffle and Learn


def test_images_and_short_clips_are_refused():
    for X, count in ((CLIPS[:, 0], 1), (CLIPS[:, :4], 4)):
        with pytest.raises(ValueError, match=f"needs clips of at least 5 frames. Those in X have {count}"):
            quick(skssl.ShuffleAndLearn).fit(X)
    with pytest.raises(ValueError, match="Those in X have 3 with n_frames=3"):
        quick(skssl.ShuffleAndLearn, n_frames=3).fit(CLIPS)
    assert len(quick(skssl.ShuffleAndLearn, frame_order="sort").fit(CLIPS[:, :4]).history_) == 1


@pytest.mark.parametrize("side", [16, 70])
def test_motion_matches_a_literal_loop(side):
    clips = torch.randint(0, 256, (2, 4, 3, side, side), dtype=torch.uint8)
    step = 1 if side == 16 else 2
    expected = torch.zeros(2, 4)
    for i, k in itertools.product(range(2), range(4)):
        near = [j for j in (k - 1, k + 1) if 0 <= j < 4]
        small = clips[i, :, :, ::step, ::step].double()
        expected[i, k] = sum((small[k] - small[j]).abs().mean() for j in near) / len(near)
    torch.testing.assert_close(frame_motion(clips), expected)


def literal_frames(clips, draw, method):
    """Choose the frames of clips by loops, with the same random numbers."""
    n, t = clips.shape[:2]
    numbers, motion = torch.rand(n, t, generator=draw), frame_motion(clips)
    rest = (
        [torch.rand(n, 1, generator=draw) for _ in range(3)]
        if method.n_views == 3
        else torch.rand(n, 4, generator=draw)
    )
    found = []
    for i in range(n):
        waits = [-np.log1p(-float(numbers[i, k])) / max(float(motion[i, k]), 1e-6) for k in range(t)]
        first = sorted(sorted(range(t), key=waits.__getitem__)[: method.least_frames])
        if method.n_views == 4:
            found.append([first[k] for k in sorted(range(4), key=rest[i].tolist().__getitem__)])
            continue
        a, b, c, d, e = first
        ordered, late, reverse = (
            float(of[i]) < share for of, share in zip(rest, (method.positives, 0.5, 0.5), strict=True)
        )
        middle = c if ordered else e if late else a
        found.append([d, middle, b] if reverse else [b, middle, d])
    return torch.tensor(found)


@pytest.mark.parametrize("frame_order", ["verify", "sort"])
def test_frames_match_a_literal_loop(frame_order):
    method = skssl.ShuffleAndLearn(frame_order=frame_order)
    clips = torch.from_numpy(CLIPS).movedim(-1, 2)
    chosen = method.choose_frames(clips, torch.Generator().manual_seed(3))
    assert torch.equal(chosen, literal_frames(clips, torch.Generator().manual_seed(3), method))


def test_frames_are_drawn_by_their_motion():
    values = torch.tensor([0.0, 1, 1, 1, 1, 1, 3])  # motion at the second and before the last frame
    clips = values.view(1, 7, 1, 1, 1).repeat(6000, 1, 1, 1, 1)
    method = skssl.ShuffleAndLearn(frame_order="sort")
    weights = frame_motion(clips[:1])[0].clamp(min=1e-6).tolist()
    expected = torch.zeros(7)
    for order in itertools.permutations(range(7), 4):  # frames one after another, without replacement
        left, chance = sum(weights), 1.0
        for k in order:
            chance, left = chance * weights[k] / left, left - weights[k]
        expected[list(order)] += chance
    chosen = method.choose_frames(clips, torch.Generator().manual_seed(0))
    share = torch.zeros(6000, 7).scatter_(1, chosen, 1.0).mean(0)
    assert (share - expected).abs().max() < 0.03


def test_a_quarter_of_the_triplets_are_in_order_and_half_are_reversed():
    clips = torch.rand(4000, 7, 1, 2, 2)
    frames = skssl.ShuffleAndLearn().choose_frames(clips, torch.Generator().manual_seed(0))
    first, middle, last = frames.T
    ordered = (first - middle) * (middle - last) > 0
    assert abs(ordered.float().mean() - 0.25) < 0.03
    assert abs((first > last).float().mean() - 0.5) < 0.03
    assert abs((middle < torch.minimum(first, last)).float().mean() - 0.375) < 0.03


def test_orders_and_their_reverses_have_the_same_class():
    orders = torch.tensor([order for order in itertools.permutations(range(4)) if order[0] < order[-1]])
    frames = torch.tensor(list(itertools.permutations([2, 3, 7, 9])))
    classes = order_class(frames, orders)
    assert torch.equal(classes, order_class(frames.flip(1), orders))
    assert classes.bincount().tolist() == [2] * 12
    for row, found in zip(frames.tolist(), classes.tolist(), strict=True):
        ranks = [sorted(row).index(value) for value in row]
        assert orders[found].tolist() in (ranks, ranks[::-1])


@pytest.mark.parametrize("frame_order", ["verify", "sort"])
def test_order_loss_matches_a_literal_loop(frame_order):
    method = quick(skssl.ShuffleAndLearn, frame_order=frame_order, epochs=0, precision="float32").fit(CLIPS)
    net = method.net_.module_.eval()
    views = list(torch.randn(method.n_views, 5, 3, 16, 16))
    frames = torch.stack([torch.randperm(6)[: method.n_views] for _ in range(5)])
    with torch.no_grad():
        found = method.losses(net, Batch(views[0], views, torch.arange(5), made={"frames": frames}))
        losses, hits = [], []
        for i in range(5):
            features = torch.cat([net.encoder(view[i : i + 1]) for view in views], 1)
            log_p = net.order_classifier(features)[0].log_softmax(0)
            ranks = [sorted(frames[i].tolist()).index(value) for value in frames[i].tolist()]
            ranks = min(ranks, ranks[::-1], key=lambda order: order[0])
            if frame_order == "verify":
                label = 0 if ranks == [0, 1, 2] else 1
            else:
                label = [order for order in itertools.permutations(range(4)) if order[0] < order[-1]].index(
                    tuple(ranks)
                )
            losses.append(-log_p[label])
            hits.append(float(log_p.argmax() == label))
    torch.testing.assert_close(found["frame_order"], torch.stack(losses).mean())
    assert found["frame_order_accuracy"] == pytest.approx(np.mean(hits))


# Audio-visual correspondence


def test_pairs_are_tuples_of_arrays_or_lists_of_pairs():
    of_arrays = quick(skssl.AudioVisual).fit((CLIPS, SOUNDS))
    of_pairs = quick(skssl.AudioVisual).fit(list(zip(CLIPS, SOUNDS, strict=True)))
    assert np.array_equal(of_arrays.transform(CLIPS), of_pairs.transform(list(zip(CLIPS, SOUNDS, strict=True))))
    of_images = quick(skssl.AudioVisual).fit((CLIPS[:, 0], SOUNDS))
    assert of_images.transform(CLIPS).shape == (N, 128)


def test_pairs_can_be_split_in_a_grid_search():
    pairs = list(zip(CLIPS, SOUNDS, strict=True))
    pipe = Pipeline([("ssl", quick(skssl.AudioVisual)), ("clf", LogisticRegression())])
    search = GridSearchCV(pipe, {"ssl__proj_dim": [4, 8]}, cv=2).fit(pairs, SHAPES)
    assert len(search.cv_results_["params"]) == 2
    assert search.predict(CLIPS).shape == (N,)


def test_missing_and_wrong_sounds_are_refused():
    encoder = quick(skssl.AudioVisual)
    for X, error, message in (
        (CLIPS, TypeError, r"Pass X as \(frames, waveforms\) or as a list of pairs"),
        ((CLIPS, SOUNDS[:-1]), ValueError, f"a waveform for each of its {N} images or clips. Got {N - 1}"),
        ((CLIPS, SOUNDS[:, :9]), ValueError, r"shape \(24, 9\), but \(n, samples\) with at least window=64"),
        ((CLIPS, np.full((N, 99), np.nan)), ValueError, "waveforms contains NaN"),
    ):
        with pytest.raises(error, match=message):
            encoder.fit(X)


def test_sounds_of_clips_that_cannot_be_read_are_left_out(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}").mkdir()
        Image.fromarray(CLIPS[i, 0]).save(tmp_path / f"{i}" / "0.png")
    (tmp_path / "1" / "0.png").write_bytes(b"no image")
    encoder = quick(skssl.AudioVisual, on_bad_image="skip")
    with pytest.warns(skssl.BadImageWarning):
        clips = encoder._read((tmp_path, SOUNDS[:4]), reset=True, on_bad_image="skip")
    assert torch.equal(clips.extra["sounds"], log_spectrogram(SOUNDS[[0, 2, 3]], 64))


def test_log_spectrogram_matches_a_literal_transform():
    window, wave = 16, SOUNDS[:2, :60]
    found = log_spectrogram(wave, window)
    taper = scipy.signal.get_window(("tukey", 0.25), window)
    for i in range(2):
        power = np.array(
            [
                [
                    abs(
                        sum(
                            taper[j] * wave[i, start + j] * np.exp(-2j * np.pi * band * j / window)
                            for j in range(window)
                        )
                    )
                    ** 2
                    for start in range(0, 60 - window + 1, window // 2)
                ]
                for band in range(window // 2 + 1)
            ]
        )
        power[1:-1] *= 2  # the negative frequencies
        logs = np.log(power / power.mean() + 1e-5)
        np.testing.assert_allclose(found[i, 0], (logs - logs.mean()) / logs.std(), atol=1e-3)


def test_sounds_of_integers_and_silence():
    integers = (SOUNDS * 32767).astype(np.int16)
    torch.testing.assert_close(log_spectrogram(integers, 64), log_spectrogram(SOUNDS, 64), atol=0.05, rtol=0)
    assert log_spectrogram(np.zeros((2, 99)), 64).abs().max() < 1e-3


@pytest.mark.parametrize("fusion", ["concatenate", "distance", "localize"])
def test_correspondence_matches_a_literal_loop(fusion):
    torch.manual_seed(0)
    net = Correspondence(fusion, 5, 7, 16).eval()
    frames = torch.randn(3, 5, 2, 2) if fusion == "localize" else torch.randn(3, 5)
    sounds = torch.randn(3, 7)
    logits = net(frames, sounds, 1)
    assert logits.shape == (2, 3)
    for (k, i), logit in np.ndenumerate(logits.detach().numpy()):
        sound = sounds[[i - k]]
        if fusion == "concatenate":
            weight = torch.cat([net.frame_embedding.weight, net.sound_embedding.weight], 1)
            hidden = weight @ torch.cat([frames[i], sound[0]]) + net.frame_embedding.bias
            expected = net.classifier(hidden.relu())[0]
        elif fusion == "distance":
            a, b = net.frame_embedding(frames[[i]])[0], net.sound_embedding(sound)[0]
            distance = sum((x / a.norm() - y / b.norm()) ** 2 for x, y in zip(a, b, strict=True)).sqrt()
            expected = net.calibration.weight[0, 0] * distance + net.calibration.bias[0]
        else:
            cells = [frames[i, :, y, x][None] for y, x in itertools.product(range(2), repeat=2)]
            products = [net.frame_embedding(cell)[0] @ net.sound_embedding(sound)[0] for cell in cells]
            values = [net.calibration(product[None])[0] for product in products]
            expected = max(values)
            if k == 0:
                torch.testing.assert_close(net.cells(frames, sounds)[i].flatten(), torch.stack(values))
        assert float(logit) == pytest.approx(expected.item(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("fusion", ["concatenate", "distance", "localize"])
@pytest.mark.parametrize("n_negatives", [1, 2, 9])
def test_loss_compares_each_frame_with_its_sound_and_the_next_ones(fusion, n_negatives):
    how = {"fusion": fusion, "n_negatives": n_negatives, "epochs": 0, "precision": "float32"}
    method = quick(skssl.AudioVisual, **how).fit((CLIPS, SOUNDS))
    net = method.net_.module_.eval()
    view, sounds = torch.randn(4, 3, 16, 16), torch.randn(4, 1, 33, 20)
    with torch.no_grad():
        found = method.losses(net, Batch(view, [view], torch.arange(4), made={"sounds": sounds}))
        losses, hits = ([], []), ([], [])  # of pairs that belong together, and of others
        for i, j in itertools.product(range(4), range(min(n_negatives, 3) + 1)):
            logit = net.correspondence(method.look(net, view[[i]]), net.audio_encoder(sounds[[i - j]]), 0)[0, 0]
            losses[j > 0].append(float(-F.logsigmoid(-logit if j else logit)))
            hits[j > 0].append(float((logit > 0) != bool(j)))
    assert float(found["correspondence"]) == pytest.approx(np.mean([np.mean(of) for of in losses]), rel=1e-4)
    assert float(found["correspondence_accuracy"]) == pytest.approx(np.mean([np.mean(of) for of in hits]))


def test_features_of_sounds_are_those_of_the_sound_encoder():
    fitted = quick(skssl.AudioVisual, precision="float32").fit((CLIPS, SOUNDS))
    encoder = fitted.net_.module_.audio_encoder.eval()
    with torch.no_grad():
        expected = encoder(log_spectrogram(SOUNDS, 64))
    np.testing.assert_allclose(fitted.transform_audio(SOUNDS), expected, rtol=1e-3, atol=1e-4)


def test_sound_map_is_the_logits_of_the_cells():
    fitted = quick(skssl.AudioVisual, precision="float32").fit((CLIPS, SOUNDS))
    fitted.net_.module_.correspondence.calibration.weight.data.fill_(1000.0)  # far from a probability of one half
    maps = fitted.sound_map(CLIPS, SOUNDS)
    assert (maps.shape, maps.dtype) == ((N, T, 16, 16), np.float32)
    assert 0 <= maps.min() < 0.49
    assert maps.std() > 0.01
    np.testing.assert_allclose(fitted.sound_map(CLIPS[:, 2], SOUNDS), maps[:, 2], atol=1e-3)
    net = fitted.net_.module_.eval()
    with torch.no_grad():
        images = fitted.net_.augmentations[0].normalize(torch.from_numpy(CLIPS[:, 2]).movedim(3, 1))
        logits = net.correspondence.cells(fitted.look(net, images), net.audio_encoder(log_spectrogram(SOUNDS, 64)))
        expected = F.interpolate(logits[:, None].sigmoid(), (16, 16), mode="bilinear")[:, 0]
    np.testing.assert_allclose(maps[:, 2], expected, atol=1e-3)
    assert not np.allclose(fitted.sound_map(CLIPS[:, 2], SOUNDS[::-1].copy()), maps[:, 2], atol=1e-2)


def test_only_the_localising_form_has_a_sound_map():
    assert hasattr(skssl.AudioVisual(), "sound_map")
    message = r"no attribute 'sound_map' with these parameters, see help\(AudioVisual.sound_map\)"
    with pytest.raises(AttributeError, match=message):
        skssl.AudioVisual(fusion="distance").sound_map(CLIPS, SOUNDS)


def test_display_of_sound_maps_lights_frames_by_their_maps():
    plt = pytest.importorskip("matplotlib.pyplot")
    fitted = quick(skssl.AudioVisual).fit((CLIPS, SOUNDS))
    display = skssl.SoundMapDisplay.from_estimator(fitted, CLIPS, SOUNDS, n_images=3)
    np.testing.assert_allclose(display.maps, fitted.sound_map(CLIPS[:3, 3], SOUNDS[:3]), rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(display.pictures, CLIPS[:3, 3] / 255, atol=1e-6)
    drawn = [image.get_array() for image in display.ax_.get_images()]
    assert len(drawn) == 6
    found = display.maps[0]
    light = 0.15 + 0.85 * (found - found.min()) / (found.max() - found.min())
    np.testing.assert_allclose(drawn[3], display.pictures[0] * light[..., None], atol=1e-6)
    assert f"{found.min():.2f} to {found.max():.2f}" in [text.get_text() for text in display.ax_.texts]
    flat = skssl.SoundMapDisplay(display.pictures, np.full_like(display.maps, 0.5)).plot()
    np.testing.assert_allclose(flat.ax_.get_images()[3].get_array(), 0.15 * display.pictures[0], atol=1e-6)
    plt.close(display.figure_)
    with pytest.raises(TypeError, match="estimator must be an AudioVisual"):
        skssl.SoundMapDisplay.from_estimator(quick(skssl.ShuffleAndLearn), CLIPS, SOUNDS)
    with pytest.raises(ValueError, match=f"a waveform for each of its {N} images or clips. Got 5"):
        skssl.SoundMapDisplay.from_estimator(fitted, CLIPS, SOUNDS[:5])
    without = quick(skssl.AudioVisual, fusion="distance", epochs=0).fit((CLIPS, SOUNDS))
    with pytest.raises(ValueError, match=r"with fusion='localize', which has sound maps. Got fusion='distance'"):
        skssl.SoundMapDisplay.from_estimator(without, CLIPS, SOUNDS)
