"""Clips as input: arrays, folders of frames and videos; their batches, digests and features."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from skssl import Augmentation, BadImageWarning
from skssl.datasets import make_clips
from skssl.images import Clips, as_clips, as_images
from skssl.images.clips import ClipFiles
from skssl.images.labels import labels_in
from skssl.training.digests import _digest_images
from skssl.training.encoding import encode
from skssl.training.loader import ImageLoader
from skssl.training.objective import Hooks

CLIPS = make_clips(6, n_frames=4, image_size=12, random_state=0)[0]
EVERY = torch.arange(6)


def write_folders(root, clips=CLIPS):
    for i, clip in enumerate(clips):
        (root / f"clip{i}").mkdir()
        for k, frame in enumerate(clip):
            Image.fromarray(frame).save(root / f"clip{i}" / f"{k:03d}.png")
    return [str(root / f"clip{i}") for i in range(len(clips))]


def values(X, **how):
    return as_clips(X, **how).read(EVERY).movedim(2, -1).numpy()


def test_arrays_tensors_and_lists_are_read_alike():
    first = np.moveaxis(CLIPS, -1, 2)
    for X in (CLIPS, first, torch.from_numpy(CLIPS), list(CLIPS), list(first), as_clips(CLIPS)):
        clips = as_clips(X)
        assert (len(clips), clips.n_frames, clips.shape) == (6, 4, (3, 12, 12))
        np.testing.assert_array_equal(values(X), CLIPS)


def test_four_axes_are_grey_clips_unless_one_holds_channels():
    grey = np.tile(CLIPS[..., 0], (1, 2, 1, 1))  # 8 frames
    assert as_clips(grey).n_frames == 8
    np.testing.assert_array_equal(values(grey)[..., 0], grey)
    assert as_clips(CLIPS[:, 0]).n_frames == 1, "(n, h, w, 3)"
    assert as_clips(CLIPS[..., :3, :, 0]).shape == (4, 3, 12), "four channels"


def test_floats_are_scaled_by_the_range_of_all_frames():
    clips = as_clips(CLIPS.astype(np.float32))
    assert clips.scale == (CLIPS.min(), CLIPS.max())
    assert clips.read(EVERY).max() == 1


def test_frames_are_evenly_spaced():
    np.testing.assert_array_equal(values(CLIPS, n_frames=2), CLIPS[:, [0, 3]])
    longer = [np.concatenate([clip, clip[::-1]]) for clip in CLIPS]
    mixed = [CLIPS[0], *longer[1:]]
    found = values(mixed)
    np.testing.assert_array_equal(found[0], CLIPS[0])
    np.testing.assert_array_equal(found[1], longer[1][[0, 2, 5, 7]])
    with pytest.raises(ValueError, match="Sample 0 of X has 4 frames, but n_frames=5 were expected"):
        as_clips(mixed, n_frames=5)
    with pytest.raises(ValueError, match="Sample 0 of X has 4 frames"):
        as_clips(CLIPS, n_frames=5)


def test_folders_of_frames_are_clips(tmp_path):
    folders = write_folders(tmp_path)
    np.testing.assert_array_equal(values(folders), CLIPS)
    np.testing.assert_array_equal(values(tmp_path), CLIPS)
    np.testing.assert_array_equal(
        values([sorted(map(str, (tmp_path / "clip0").iterdir()))] * 6, n_frames=2)[0], CLIPS[0, [0, 3]]
    )
    assert as_clips(folders, (6, 6)).shape == (3, 6, 6)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="contains no image files"):
        as_clips([*folders, str(tmp_path / "empty")])
    with pytest.raises(ValueError, match="neither video files nor folders of image files"):
        as_clips(tmp_path / "empty")
    with pytest.raises(NotADirectoryError, match="there is no such folder"):
        as_clips(tmp_path / "missing")


def test_long_folders_are_thinned_out(tmp_path):
    write_folders(tmp_path, [np.tile(CLIPS[0], (5, 1, 1, 1)), np.tile(CLIPS[1], (6, 1, 1, 1))])
    assert as_clips(tmp_path).n_frames == 16


def test_clip_with_a_damaged_frame_is_skipped(tmp_path):
    folders = write_folders(tmp_path)
    (tmp_path / "clip2" / "001.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"001\.png"):
        as_clips(folders)
    with pytest.warns(BadImageWarning):
        clips = as_clips(folders, on_bad_image="skip")
    assert clips.kept.tolist() == [True, True, False, True, True, True]
    np.testing.assert_array_equal(clips.read(torch.arange(5)).movedim(2, -1), np.delete(CLIPS, 2, 0))


def test_mapped_clips_stay_on_disk(tmp_path):
    np.save(tmp_path / "clips.npy", CLIPS)
    mapped = np.load(tmp_path / "clips.npy", mmap_mode="r")
    clips = as_clips(mapped)
    assert clips.frames._stored.file is not None
    np.testing.assert_array_equal(values(mapped), CLIPS)


def test_too_few_clips_are_refused():
    with pytest.raises(ValueError, match=r"X has 1 sample\(s\), while a minimum of 2 is required by the estimator"):
        as_clips(CLIPS[:1])
    assert len(as_clips(CLIPS[:1], reset=False)) == 1


def test_subsets_keep_frames_and_extra_rows_together():
    clips = Clips(as_clips(CLIPS).frames, 4, {"number": torch.arange(6)})
    subset = clips.take(torch.tensor([4, 1])).to("cpu")
    np.testing.assert_array_equal(subset.read(torch.arange(2)).movedim(2, -1), CLIPS[[4, 1]])
    assert subset.extra["number"].tolist() == [4, 1]


class Pair(Hooks):
    """Choose the second and the last frame."""

    def choose_frames(self, clips, generator):
        return torch.tensor([[1, clips.shape[1] - 1]]).repeat(len(clips), 1)


def batches(clips, augmentations, hooks):
    loader = ImageLoader(clips, 3, augmentations, torch.device("cpu"), choose_frames=hooks.choose_frames)
    return list(loader.epoch(torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)))


def test_views_are_those_of_the_chosen_frames():
    clips = Clips(as_clips(CLIPS).frames, 4, {"number": torch.arange(6)})
    still = Augmentation(crop_scale=None, flip=0.0, jitter=0.0, gray=0.0)
    for batch in batches(clips, [still, still], Pair()):
        frames = torch.from_numpy(CLIPS).movedim(-1, 2)[batch.index]
        assert torch.equal(batch.images, frames[:, 1])
        for view, place in zip(batch.views, (1, 3), strict=True):
            torch.testing.assert_close(view, still.normalize(frames[:, place]))
        assert batch.made["number"].tolist() == batch.index.tolist()
        assert batch.made["frames"].tolist() == [[1, 3]] * 3


@pytest.mark.parametrize("saliency", [None, np.random.default_rng(0).random((6, 12, 12))])
def test_frames_of_a_clip_have_the_same_random_numbers(saliency):
    still = as_clips(np.repeat(CLIPS[:, :1], 4, axis=1))
    augment = Augmentation(saliency=saliency, blur=0.5)
    for batch in batches(still, [augment, augment], Pair()):
        assert torch.equal(*batch.views)
        assert not torch.equal(batch.views[0][0], batch.views[0][1])
    views = batches(still, [augment, Augmentation(flip=0.1)], Pair())[0].views
    assert not torch.equal(*views), "augmentations of their own"


def test_frames_are_random_by_default():
    found = Hooks().choose_frames(torch.zeros(400, 4, 1, 1, 1), torch.Generator().manual_seed(0))
    assert found.shape == (400, 1)
    assert (found.flatten().bincount() > 70).all()


def test_features_of_a_clip_are_the_mean_of_its_frames():
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 144, 5))
    how = Augmentation(), torch.device("cpu"), torch.float32
    of_clips = encode(module, as_clips(CLIPS), *how)
    of_frames = encode(module, as_images(CLIPS.reshape(-1, 12, 12, 3)), *how)
    torch.testing.assert_close(of_clips, of_frames.view(6, 4, 5).mean(1))


def test_digests_tell_clips_apart():
    frames = as_clips(CLIPS).frames
    found = {
        _digest_images(clips)
        for clips in (
            Clips(frames, 4),
            Clips(frames, 2),
            as_clips(CLIPS[:, ::-1]),
            Clips(frames, 4, {"sound": torch.zeros(6, 2)}),
            Clips(frames, 4, {"sound": torch.ones(6, 2)}),
        )
    }
    assert len(found) == 5
    assert _digest_images(as_clips(CLIPS)) in found


def test_videos_need_pyav(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"pip install 'skssl\[video\]'"):
        as_clips(["a.mp4", "b.mp4"])


@pytest.fixture
def videos(tmp_path):
    """Two videos of grey frames, of 12 and 9 frames and of several sizes, with a tone of 440 Hz."""
    av = pytest.importorskip("av")
    for name, count, size in (("a", 12, (48, 64)), ("b", 9, (64, 48))):
        with av.open(str(tmp_path / f"{name}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=12)
            stream.height, stream.width = size
            sound = container.add_stream("aac", rate=8000, layout="mono")
            for k in range(count):
                frame = np.full((*size, 3), 20 * k, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            wave = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000).astype(np.float32)
            for part in wave.reshape(1, -1, 1000).swapaxes(0, 1):
                audio = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
                audio.sample_rate = 8000
                container.mux(sound.encode(audio))
            container.mux([*stream.encode(None), *sound.encode(None)])
    return [tmp_path / "a.mp4", tmp_path / "b.mp4"]


def test_videos_are_read_as_evenly_spaced_frames(videos, tmp_path):
    for X in (videos, tmp_path):
        clips = as_clips(X, n_frames=4)
        assert (len(clips), clips.n_frames, clips.shape) == (2, 4, (3, 48, 64))
        brightness = clips.read(torch.arange(2)).float().mean((2, 3, 4)) / 20
        expected = torch.tensor([[0, 4, 7, 11], [0, 3, 5, 8]])
        assert (brightness - expected).abs().max() < 0.3
    assert as_clips(videos).n_frames == 9, "as many as the shortest has"
    assert as_clips(videos, (24, 24)).shape == (3, 24, 24)
    with pytest.raises(ValueError, match=r"b.mp4' has 9 frames, but n_frames=10 were expected"):
        as_clips(videos, n_frames=10)


def test_damaged_video_is_named(videos):
    videos[1].write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"b\.mp4' cannot be read"):
        as_clips(videos)


def test_sound_of_a_video_is_resampled(videos):
    from skssl.images.videos import read_sound

    wave = read_sound(videos[0], 4000)
    assert wave.dtype == np.float32
    spectrum = np.abs(np.fft.rfft(wave[200:3200]))
    assert abs(spectrum.argmax() * 4000 / 3000 - 440) < 5


def test_folder_of_clips_has_names_and_labels(tmp_path):
    for name, folder in zip(("b/x", "a/z", "a/y"), write_folders(tmp_path, CLIPS[:3]), strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Path(folder).rename(tmp_path / name)
    files = ClipFiles(tmp_path)
    assert (files.names, files.labels) == (["a/y", "a/z", "b/x"], ["a", "a", "b"])
    clips = as_clips(tmp_path)
    assert labels_in(tmp_path, clips).tolist() == labels_in(tmp_path, files).tolist() == ["a", "a", "b"]
    np.testing.assert_array_equal(as_clips(files).read(EVERY[:3]).movedim(2, -1), CLIPS[[2, 1, 0]])
    assert clips.take(torch.tensor([2])).labels is None
    assert labels_in(tmp_path / "a", as_clips(tmp_path / "a")) is None


def test_second_entries_of_pairs_are_ignored(tmp_path):
    np.testing.assert_array_equal(values([(clip, np.zeros(9)) for clip in CLIPS]), CLIPS)
    np.testing.assert_array_equal(values([(folder, "cat") for folder in write_folders(tmp_path)]), CLIPS)


def test_middle_frames_are_images():
    clips = as_clips(CLIPS)
    np.testing.assert_array_equal(clips.middle_frames().read(torch.arange(6)).movedim(1, -1), CLIPS[:, 2])
    assert (clips.unit, as_clips(CLIPS[:, 0]).unit) == ("clips", "images")


def test_clips_given_as_images_are_refused_with_advice():
    with pytest.raises(ValueError, match=r"Pass their frames as images, X.reshape\(-1, \*X.shape\[2:\]\)"):
        as_images(CLIPS)
