"""Trainings on photographs: pictures in sizes of their own."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import time
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from conftest import quick
from helpers import Look
from interruptions import KILLED_EPOCHS, KILLS, OFTEN, Death, DiesAt, assert_same, killed_and_restarted
from PIL import Image, ImageOps
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import skssl
from skssl import Augmentation, FineTuner, KNNProbe, LinearProbe, MultiCrop
from skssl.augment import augmentation, cell_positions
from skssl.callbacks import KNNMonitor
from skssl.datasets import pack_images
from skssl.images import as_images
from skssl.metrics import contrastive_accuracy, nearest_is_positive
from skssl.training import loader as loader_module
from skssl.training.loader import ImageLoader

SIDES = [(40, 60), (60, 40), (30, 30), (80, 33), (28, 90)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return 40 files in the folders of two classes."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(40):
        height, width = SIDES[i % 5]
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(
            folder / "ab"[i % 2] / f"{i:02}.jpg", quality=95
        )
    return sorted(map(str, folder.rglob("*.jpg")))


class Items(torch.utils.data.Dataset):
    """A data set that opens files, so that their sizes are not known beforehand."""

    def __init__(self, files):
        self.files = files

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        return {"label": i % 2, "image": {"bytes": None, "path": self.files[i]}}


@pytest.fixture(scope="module")
def classes(files):
    return np.array([path.split("/")[-2] for path in files])


def test_fit_on_files_of_several_sizes(files):
    with pytest.warns(UserWarning, match=r"The images in X differ in size. Their views have 33x33 pixels"):
        encoder = quick(skssl.SimCLR).fit(files)
    assert encoder.n_features_in_ == 3 * 33 * 33
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for given in (
            {"augment": Augmentation(size=24)},
            {"image_shape": (24, 24)},
            {"augment": [Augmentation(size=24)]},
        ):
            encoder = quick(skssl.SimCLR, **given).fit(files)
            assert encoder.n_features_in_ == 3 * 24 * 24
    assert encoder.transform(files).shape == (40, 128)


def test_fit_on_an_image_folder_equals_fit_on_its_files(files):
    folder = ImageFolder(files[0].rsplit("/", 2)[0])
    first, second = (quick(skssl.SimCLR, image_shape=(24, 24)).fit(X) for X in (files, folder))
    assert_same(first, second, files)


@pytest.mark.parametrize(
    ("method", "n_jobs"),
    [(skssl.SimCLR, None), (skssl.SwAV, 2), (skssl.PIRL, None), (skssl.VICRegL, 2), (skssl.DeepCluster, None)],
)
def test_fit_on_a_data_set_equals_fit_on_its_files(method, n_jobs, files):
    first, second = (quick(method, image_shape=(24, 24), n_jobs=n_jobs).fit(X) for X in (Items(files), files))
    assert_same(first, second, files)
    np.testing.assert_array_equal(first.transform(Items(files)), first.transform(files))


def test_data_sets_of_pictures_in_every_place(files, classes, tmp_path):
    X = Items(files)
    maps = np.random.default_rng(0).random((40, 5, 5)).astype(np.float32)
    crops = MultiCrop(n_local=2, augment=Augmentation(size=24, saliency=maps))
    params = {"augment": crops, "aux": ["rotation", "jigsaw"], "n_jobs": 2, "batch_size": 8, "epochs": 2}
    with pytest.raises(Death):
        quick(skssl.SwAV, **params, checkpoint=tmp_path, checkpoint_every=OFTEN, callbacks=[DiesAt(7)]).fit(X)
    encoder = quick(skssl.SwAV, **params, checkpoint=tmp_path).fit(X)
    assert_same(encoder, quick(skssl.SwAV, **params).fit(X), files)
    monitor = KNNMonitor(X, classes, n_neighbors=3)
    assert quick(skssl.SimCLR, image_shape=(24, 24), callbacks=[monitor]).fit(X).history_.knn.notna().all()
    features = encoder.transform(X)
    probe = KNNProbe(encoder=encoder, n_neighbors=3).fit(X, classes)
    assert probe.score(X, classes) == KNNProbe(n_neighbors=3).fit(features, classes).score(features, classes)
    tuned = FineTuner(encoder=encoder, epochs=1, batch_size=16, random_state=0).fit(X, classes)
    np.testing.assert_array_equal(
        tuned.predict(X),
        FineTuner(encoder=encoder, epochs=1, batch_size=16, random_state=0).fit(files, classes).predict(files),
    )
    encoder.save(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(skssl.load(tmp_path / "a.safetensors").transform(X), features)


def test_fit_on_files_of_more_than_eight_bits(files, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(24, 16, 16)).astype(np.float32)
    same, mixed = ([tmp_path / f"{name}{i}.tif" for i in range(24)] for name in ("same", "mixed"))
    for i, x in enumerate(X):
        Image.fromarray(x).save(same[i])
        Image.fromarray(x[: 16 - i % 3]).save(mixed[i])
    assert_same(quick(skssl.SimCLR).fit(same), quick(skssl.SimCLR).fit(X), X)
    encoder = quick(skssl.SimCLR, image_shape=(16, 16)).fit(mixed)
    encoder.save(tmp_path / "saved.safetensors")
    loaded = skssl.load(tmp_path / "saved.safetensors")
    assert loaded._scale == encoder._scale == as_images(mixed).scale
    np.testing.assert_array_equal(loaded.transform(mixed[:5]), encoder.transform(mixed)[:5])
    with pytest.raises(TypeError, match="The images in X are uint8, but SimCLR was fitted on floats"):
        encoder.transform(files)


def test_transform_encodes_the_papers_still_view(files):
    encoder = quick(skssl.SimCLR, augment=Augmentation(size=28), precision="float32").fit(files)
    view = v2.Compose([v2.Resize(32), v2.CenterCrop(28)])
    cut = np.stack([np.asarray(view(Image.open(path))) for path in files])
    features = encoder.transform(files)
    whole = quick(skssl.SimCLR, augment=Augmentation(size=28, eval_resize=None), precision="float32").fit(files)
    resized = np.stack([np.asarray(Image.open(path).resize((28, 28), Image.Resampling.BILINEAR)) for path in files])
    np.testing.assert_allclose(whole.transform(files), whole.transform(resized), atol=1e-5)
    near, far = (np.abs(features - encoder.transform(other)).max() for other in (cut, resized))
    assert near < far / 20  # one step of 255 at some pixels


def test_training_does_not_depend_on_threads(files):
    first, second = (quick(skssl.BYOL, image_shape=(16, 16), n_jobs=n_jobs, epochs=2).fit(files) for n_jobs in (1, 3))
    assert_same(first, second, files)


def test_epochs_and_views_have_different_boxes(files):
    loader = ImageLoader(as_images(files, (16, 16)), 20, [Augmentation(size=16)] * 2, torch.device("cpu"))
    plans = []
    loader.images.crops = lambda made: plans.extend(made) or []
    for seed in (0, 1):
        list(loader.epoch(torch.Generator().manual_seed(seed), torch.Generator()))
    boxes = [plan(loader.images.sizes[index])[0].boxes for index, plan in plans]
    assert [tuple(box.shape) for box in boxes] == [(2, 20, 4)] * 4
    assert len({tuple(view.flatten().tolist()) for box in boxes for view in box}) == 8


@pytest.mark.parametrize(
    "method", [skssl.SimCLR, skssl.SwAV, skssl.PIRL, skssl.VICRegL, skssl.Jigsaw, skssl.DeepCluster, skssl.SupCon]
)
def test_resume_within_an_epoch_is_bit_exact(method, files, classes, tmp_path):
    params = {"image_shape": (16, 16), "epochs": 2, "n_jobs": 2}
    y = classes if method(epochs=0).uses_labels else None
    with pytest.raises(Death):
        quick(method, **params, checkpoint=tmp_path, checkpoint_every=OFTEN, callbacks=[DiesAt(3)]).fit(files, y)
    resumed = quick(method, **params, checkpoint=tmp_path).fit(files, y)
    assert_same(resumed, quick(method, **params).fit(files, y), files)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["files", "pack", "data set"] if KILLS else ["files"])
def test_resume_after_sigkill_is_bit_exact(kind, processes, files, tmp_path):
    X = {"files": list, "pack": partial(pack_images, folder=tmp_path / "packs"), "data set": Items}[kind](files)
    make = partial(quick, skssl.SimCLR, image_shape=(16, 16), n_jobs=2, epochs=KILLED_EPOCHS, batch_size=8)
    kills, estimator = killed_and_restarted(processes, make, X, None, tmp_path, KILLS or 3, "photographs")
    assert kills == (KILLS or kills) > 0
    assert_same(estimator, make().fit(X), files)


def killed_with_workers(files, connection):
    """Start worker processes, send their process IDs, and be killed."""
    multiprocessing.set_start_method("forkserver", force=True)  # Python's default from 3.14 on
    multiprocessing.set_forkserver_preload(["conftest"])
    images = as_images(Items(files), (16, 16), n_jobs=2)
    next(images.batches([torch.arange(4)] * 2))
    connection.send([worker.pid for worker in images._loader._iterator._workers])
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_workers_of_a_killed_training_end(processes, files):
    receiver, sender = processes.Pipe(duplex=False)
    process = processes.Process(target=killed_with_workers, args=(files, sender))
    process.start()
    running = set(receiver.recv())
    assert len(running) == 2
    process.join()
    until = time.monotonic() + 20
    while running and time.monotonic() < until:
        time.sleep(0.01)
        running = {worker for worker in running if is_running(worker)}
    for worker in running:
        os.kill(worker, signal.SIGKILL)
    assert not running


def is_running(process):
    """Return whether a process exists and has not ended as a zombie."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True).stdout
    return bool(state.strip()) and not state.startswith("Z")


@pytest.mark.parametrize("aux", ["jigsaw", "relative_patch", "colorization", "inpainting", "rotation"])
def test_pretext_tasks(files, aux):
    history = quick(skssl.SimSiam, image_shape=(24, 24), aux=aux).fit(files).history_
    assert np.isfinite(history[aux]).all()


def test_images_of_a_batch_are_whole_pictures(files):
    images = as_images(files, (16, 24))
    loader = ImageLoader(images, 40, [Augmentation(size=8)], torch.device("cpu"), reads_images=True)
    (batch,) = loader.epoch(torch.Generator().manual_seed(0), torch.Generator())
    assert batch.images.shape == (40, 3, 16, 24)
    for i, image in zip(batch.index, batch.images, strict=True):
        expected = np.asarray(Image.open(files[i]).resize((24, 16), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(image.permute(1, 2, 0), expected.astype(int), atol=1)


@pytest.mark.parametrize("kind", ["files", "data set", "worker processes", "packed"])
def test_corners_are_positions_in_whole_pictures(kind, tmp_path):
    pictures = []
    for i, (height, width) in enumerate(SIDES * 2):
        rows, columns = np.mgrid[:height, :width] + 0.5
        pixels = np.stack((2 * rows, 2 * columns, np.full_like(rows, 10 * i)), 2)  # a pixel's value is its position
        Image.fromarray(pixels.round().astype(np.uint8)).save(tmp_path / f"{i}.png")
        pictures.append(str(tmp_path / f"{i}.png"))
    n_jobs = 2 if kind == "worker processes" else None
    X = pictures if kind == "files" else Items(pictures)
    if kind == "packed":
        X = pack_images(pictures, "pixels", folder=tmp_path / "packed")
    images = as_images(X, (16, 16), n_jobs=n_jobs, whole=True)
    augment = Augmentation(size=(12, 16), jitter=0.0, gray=0.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    loader = ImageLoader(images, 10, [augment] * 2, torch.device("cpu"), reads_images=False, reads_corners=True)
    with contextlib.closing(images):
        (batch,) = loader.epoch(torch.Generator().manual_seed(0), torch.Generator().manual_seed(1))
    assert [corners.shape for corners in batch.corners] == [(10, 2, 2, 2)] * 2
    flipped = torch.stack([corners[:, 1, 0, 1] < corners[:, 1, 0, 0] for corners in batch.corners])
    assert 0.2 < flipped.float().mean() < 0.8
    for view, corners in zip(batch.views, batch.corners, strict=True):
        positions = cell_positions(corners, (12, 16)).view(10, 12, 16, 2)[:, 3:-3, 3:-3]
        torch.testing.assert_close(255 * view[:, :2].movedim(1, 3)[:, 3:-3, 3:-3] / 2, positions, atol=1.0, rtol=0)
        torch.testing.assert_close(255 * view[:, 2, 6, 8], 10.0 * batch.index, atol=0.1, rtol=0)


@pytest.mark.parametrize("form", ["files", "array"])
def test_corners_that_no_hook_reads_are_not_computed(form, X, files, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(Augmentation, "with_corners", refuse)
    monkeypatch.setattr(augmentation, "view_corners", refuse)
    monkeypatch.setattr(loader_module, "corners_in_pictures", refuse)
    seen = Look(lambda net: None)
    seen.on_batch_end = lambda trainer, batch, **kwargs: seen.seen.append(batch.corners)
    images = {"files": files, "array": X}[form]
    quick(skssl.SimCLR, image_shape=(16, 16), callbacks=[seen]).fit(images)
    assert seen.seen[1:] == [None, None]
    with pytest.raises(AssertionError):
        quick(skssl.VICRegL, image_shape=(16, 16)).fit(images)


def test_images_that_were_not_read_raise_an_error(files, monkeypatch):
    def losses(self, net, batch):
        return {"brightness": net.encoder(batch.images.float()).mean()}

    monkeypatch.setattr(skssl.SimCLR, "losses", losses)
    with pytest.raises(RuntimeError, match="must set its class attribute reads_images to True"):
        quick(skssl.SimCLR, image_shape=(16, 16)).fit(files)
    monkeypatch.setattr(skssl.SimCLR, "reads_images", True)
    assert np.isfinite(quick(skssl.SimCLR, image_shape=(16, 16)).fit(files).history_.loss).all()
    loader = ImageLoader(
        as_images(files, (16, 16)), 40, [Augmentation(size=8)], torch.device("cpu"), reads_images=False
    )
    (batch,) = loader.epoch(torch.Generator(), torch.Generator())
    X, y = batch  # as skorch's callbacks do
    assert X is batch.views[0]
    assert y is None


def test_crops_of_several_sizes(files):
    crops = MultiCrop(n_local=2, augment=Augmentation(size=28))
    encoder = quick(skssl.SwAV, augment=crops).fit(files)
    assert [view.size for view in encoder.net_.augmentations] == [28, 28, 12, 12]
    assert np.isfinite(encoder.history_.loss).all()


def test_views_by_the_loader_are_cut_jittered_and_flipped(files):
    images = as_images(files, (16, 16))
    still = Augmentation(flip=1.0, jitter=0.0, gray=0.0, crop_scale=None)
    loader = ImageLoader(images, 40, [still, still], torch.device("cpu"))
    (batch,) = loader.epoch(torch.Generator().manual_seed(0), torch.Generator())
    for i, view in zip(batch.index, still.denormalize(batch.views[1]), strict=True):
        expected = ImageOps.mirror(Image.open(files[i]).resize((16, 16), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(view.permute(1, 2, 0) * 255, np.asarray(expected), atol=1.01)


def test_saliency_maps(files):
    maps = np.random.default_rng(0).random((40, 5, 5)).astype(np.float32)
    augment = Augmentation(size=16, saliency=maps)
    history = quick(skssl.SimCLR, augment=augment).fit(files).history_
    assert np.isfinite(history.loss).all()
    with pytest.raises(ValueError, match="one map for each training image: expected 40, got 39"):
        quick(skssl.SimCLR, augment=Augmentation(size=16, saliency=maps[1:])).fit(files)


def test_monitors_probes_and_fine_tuning(files, classes):
    monitor = KNNMonitor(files, classes, n_neighbors=3)
    encoder = quick(skssl.SimCLR, image_shape=(24, 24), callbacks=[monitor]).fit(files)
    assert encoder.history_.knn.notna().all()
    features = encoder.transform(files)
    probe = KNNProbe(encoder=encoder, n_neighbors=3).fit(files, classes)
    assert probe.score(files, classes) == KNNProbe(n_neighbors=3).fit(features, classes).score(features, classes)
    assert LinearProbe(encoder=encoder).fit(files, classes).predict(files).shape == (40,)
    tuned = FineTuner(encoder=encoder, epochs=1, batch_size=16, random_state=0).fit(files, classes)
    assert tuned.predict(files).shape == (40,)


def test_contrastive_accuracy_cuts_its_views_from_whole_pictures(files):
    augment = Augmentation(jitter=0.0, gray=0.0, crop_scale=(0.1, 0.3))
    encoder = quick(skssl.SimCLR, image_shape=(16, 16), augment=augment, epochs=0).fit(files)
    found = contrastive_accuracy(encoder, files, batch_size=40, random_state=3)
    seed = int(np.random.RandomState(3).randint(np.iinfo(np.int32).max))
    order, draws = (
        torch.randperm(40, generator=torch.Generator().manual_seed(seed)),
        torch.Generator().manual_seed(seed),
    )
    images = encoder._read(files, reset=False)
    with torch.no_grad():
        z = [encoder.encoder_(augment.read_views(images, order, draws)) for _ in range(2)]
    assert found == nearest_is_positive(*z).double().mean()
    assert 0 < found < 1


def test_saved_estimators_read_photographs_alike(files, tmp_path):
    encoder = quick(skssl.SimCLR, image_shape=(24, 24)).fit(files)
    encoder.save(tmp_path / "a.safetensors")
    same = SIDES.index((30, 30))
    for X in (files, files[same::5][:1]):  # one small file, too, is read as photographs are
        np.testing.assert_array_equal(skssl.load(tmp_path / "a.safetensors").transform(X), encoder.transform(X))
        np.testing.assert_allclose(
            encoder.transform(X), encoder.transform(files)[[files.index(x) for x in X]], atol=1e-2
        )


def test_probes_and_displays_crop_whole_pictures(files):
    images = as_images(files, (16, 16), n_jobs=2)
    augment = Augmentation(size=16, jitter=0.0, gray=0.0, flip=0.0, crop_scale=(0.1, 0.2))
    index = torch.arange(40)
    views = augment.read_views(images, index, torch.Generator().manual_seed(0))
    assert torch.equal(views, augment.read_views(images, index, torch.Generator().manual_seed(0)))
    seed = int(torch.randint(2**62, (1,), generator=torch.Generator().manual_seed(0)))
    boxes = augment.draw_crops(images.sizes, (16, 16), torch.Generator().manual_seed(seed)).boxes[0]
    for path, (top, left, height, width), view in zip(files, boxes.int().tolist(), views, strict=True):
        crop = (
            Image.open(path).crop((left, top, left + width, top + height)).resize((16, 16), Image.Resampling.BILINEAR)
        )
        pixels = augment.denormalize(view[None])[0].permute(1, 2, 0) * 255
        np.testing.assert_allclose(pixels, np.asarray(crop), atol=1.01)


def test_files_that_cannot_be_decoded_are_skipped(files, tmp_path):
    broken = tmp_path / "broken.jpg"
    with open(files[0], "rb") as file:
        broken.write_bytes(file.read()[:700])
    with pytest.raises(ValueError, match=r"Sample 1 of X, the file .*broken\.jpg.* cannot be read"):
        quick(skssl.SimCLR, image_shape=(16, 16)).fit([files[0], str(broken), *files[1:15]])
    with pytest.warns(skssl.BadImageWarning, match="1 of the 16 images in X .* replaced by the next"):
        quick(skssl.SimCLR, image_shape=(16, 16), on_bad_image="skip").fit([files[0], str(broken), *files[1:15]])
