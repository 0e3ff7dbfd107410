"""Transforms of other libraries, and functions of the user, as augmentations."""

# ruff: noqa: NPY002 - transforms draw from the global generator of NumPy

import random
import re

import numpy as np
import pytest
import torch
from conftest import quick
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback
from torch.utils.data import Dataset
from torchvision import transforms as v1
from torchvision.transforms import v2

import skssl
from skssl.augment import Augmentation, MultiCrop, Transform
from skssl.augment.transforms import preserved_generators, resolve_transforms, seed_generators, transform_images
from skssl.images import as_images
from skssl.training.digests import digest
from skssl.training.loader import ImageLoader

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
CROP = v2.Compose([v2.RandomResizedCrop(12), v2.RandomHorizontalFlip(), v2.ColorJitter(0.4, 0.4, 0.4, 0.1)])
TO_FLOAT = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
TORCHVISION = v2.Compose([CROP, TO_FLOAT, v2.Normalize(MEAN, STD)])


def fit(X, augment=TORCHVISION, **params):
    return quick(skssl.SimCLR, augment=augment, precision="float32", **params).fit(X)


def same_bits(a, b):
    states = (estimator.net_.module_.state_dict() for estimator in (a, b))
    return all(torch.equal(one, two) for one, two in zip(*(state.values() for state in states), strict=True))


def epoch(X, augment, batch_size=8, n_jobs=None, seed=5, **params):
    """Return the batches of an epoch, as a list."""
    images = as_images(X)
    resolved = resolve_transforms(augment, images, "SimCLR", 2)
    views = [resolved[i % len(resolved)] for i in range(2)]
    loader = ImageLoader(images, batch_size, views, torch.device("cpu"), n_jobs=n_jobs, **params)
    try:
        return list(loader.epoch(torch.Generator().manual_seed(seed), torch.Generator().manual_seed(1)))
    finally:
        loader.close()


def by_hand(transform, images, seed, k, call=0):
    """Return views of a batch, one image at a time, from the documented seeds."""
    made = []
    for row, image in enumerate(images):
        own = np.random.SeedSequence((seed, k, row, 0, call)).generate_state(1, np.uint64)[0]
        torch.manual_seed(int(own))
        random.seed(int(own))
        made.append(transform(Image.fromarray(image.permute(1, 2, 0).numpy())))
    return made


def test_views_are_those_of_each_image_by_itself(X):
    batches = epoch(X, TORCHVISION)
    assert len(batches) == 5
    for k, batch in enumerate(batches):
        for call, view in enumerate(batch.views):
            assert torch.equal(view, torch.stack(by_hand(TORCHVISION, batch.images, 5, k, call)))
    assert not torch.equal(batch.views[0], batch.views[1])


def test_one_image_gets_other_crops_in_each_place_of_a_batch():
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    views = epoch(np.repeat(picture[None], 8, 0), v2.RandomCrop(4))[0].views
    assert len(torch.cat(views).unique(dim=0)) > 8  # of 16: not one crop for all


def test_an_epoch_goes_on_after_some_batches(X):
    images = as_images(X)
    (view,) = resolve_transforms(TORCHVISION, images, "SimCLR", 2)
    loader = ImageLoader(images, 8, [view], torch.device("cpu"))
    whole, rest = (
        [batch.views[0] for batch in loader.epoch(torch.Generator().manual_seed(5), torch.Generator(), done=done)]
        for done in (0, 3)
    )
    assert len(rest) == 2
    assert all(map(torch.equal, whole[3:], rest))


def test_a_process_makes_its_share_of_the_views_of_a_batch(X, monkeypatch):
    (whole,) = epoch(X, TORCHVISION, batch_size=40)
    monkeypatch.setattr("skssl.training.loader.local_rows", lambda rows: rows[20:])
    (share,) = epoch(X, TORCHVISION, batch_size=40)
    assert torch.equal(share.index, whole.index[20:])
    assert torch.equal(share.views[1], whole.views[1][20:])


def test_uint8_views_are_mapped_to_01(X):
    (batch,) = epoch(X, v1.CenterCrop(8), batch_size=40)
    assert torch.equal(batch.views[0], batch.images[:, :, 4:12, 4:12].float() / 255)
    assert batch.views[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", ["arrays", "files", "items"])
def test_bits_do_not_depend_on_the_number_of_processes(X, kind, tmp_path):
    given = {"arrays": X, "files": photographs(tmp_path), "items": Items(photographs(tmp_path))}[kind]
    one, two = (fit(given, epochs=2, n_jobs=n_jobs) for n_jobs in (None, 2))
    assert same_bits(one, two)
    assert one.history_["loss"].tolist() == two.history_["loss"].tolist()


def photographs(folder, n=16):
    rng, paths = np.random.default_rng(0), []
    for i in range(n):
        path = folder / f"{i}.png"
        Image.fromarray(rng.integers(0, 256, (20 + i, 30 - i // 2, 3), dtype=np.uint8)).save(path)
        paths.append(str(path))
    return paths


class Items(Dataset):
    """Pictures that are opened when they are asked for."""

    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        with Image.open(self.paths[i]) as picture:
            return picture.convert("RGB")


@pytest.mark.parametrize("wrap", [list, Items])
def test_photographs_are_given_whole_and_decoded_once(tmp_path, wrap):
    paths = photographs(tmp_path)
    sizes = []

    def crop(picture):
        sizes.append(picture.size)
        return picture.crop((0, 0, 9, 7))

    images = as_images(wrap(paths))
    (resolved,) = resolve_transforms(crop, images, "SimCLR", 2)
    assert resolved.size == (7, 9)
    sizes.clear()
    loader = ImageLoader(images, 16, [resolved, Augmentation(size=8)], torch.device("cpu"))
    (batch,) = loader.epoch(torch.Generator().manual_seed(0), torch.Generator())
    pictures = [images.pictures(index[None])[1][0] for index in batch.index]
    assert sizes == [picture.shape[:0:-1] for picture in pictures]
    assert torch.equal(batch.views[0][0], pictures[0][:, :7, :9] / 255)
    assert batch.views[1].shape == (16, 3, 8, 8)


def test_our_views_of_photographs_are_the_same_beside_a_transform(tmp_path):
    images, ours = as_images(photographs(tmp_path)), Augmentation(size=8)
    of_both = []
    for views in ([ours, Augmentation(size=8)], [ours, Transform(v2.CenterCrop(8), size=8)]):
        loader = ImageLoader(images, 16, views, torch.device("cpu"), reads_images=True)
        (batch,) = loader.epoch(torch.Generator().manual_seed(0), torch.Generator().manual_seed(1))
        of_both.append(batch)
    assert torch.equal(of_both[0].index, of_both[1].index)
    assert torch.equal(of_both[0].images, of_both[1].images)
    assert torch.equal(of_both[0].views[0], of_both[1].views[0])


def test_views_of_photographs_set_the_size_that_the_network_is_given(tmp_path):
    encoder = fit(photographs(tmp_path))
    assert encoder.n_features_in_ == 3 * 12 * 12
    assert encoder.net_.augmentations[0].size == (12, 12)


def test_bad_photographs_are_replaced(tmp_path):
    items = Items(photographs(tmp_path, 20))
    (tmp_path / "3.png").write_bytes(b"not an image")
    with pytest.warns(skssl.BadImageWarning, match=r"replaced by the next"):
        fit(items, on_bad_image="skip")
    with pytest.raises(ValueError, match="Item 3 of the data set"):
        fit(items)


def test_a_training_resumes_from_a_checkpoint_bit_for_bit(X, tmp_path):
    whole = fit(X, epochs=3)
    with pytest.raises(RuntimeError, match="stop"):
        fit(X, epochs=3, checkpoint=tmp_path, checkpoint_every=1, callbacks=[Stop()])
    resumed = fit(X, epochs=3, checkpoint=tmp_path)
    assert same_bits(whole, resumed)
    with pytest.raises(ValueError, match="augment"):
        fit(X, CROP, epochs=3, checkpoint=tmp_path)


class Stop(Callback):
    """Fail within the second epoch."""

    def on_batch_begin(self, net, **kwargs):
        if len(net.history) == 2:
            raise RuntimeError("stop")


def test_global_generators_are_left_alone(X):
    random.seed(3)
    np.random.seed(4)
    torch.manual_seed(5)
    before = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(3)
    np.random.seed(4)
    torch.manual_seed(5)
    fit(X, [CROP, flip_by_numpy])
    assert before == (random.random(), np.random.rand(), torch.rand(1).item())


def flip_by_numpy(image):
    """A plain function, which draws from NumPy's and Python's generators."""
    array = np.asarray(image)[:12, :12]
    return array[:, ::-1] if np.random.rand() < 0.5 else array[:: -1 if random.random() < 0.5 else 1]


def test_plain_function_and_ours_one_for_each_view(X):
    ours = Augmentation(size=12, mean=(0, 0, 0), std=(1, 1, 1))
    first, second = (fit(X, [flip_by_numpy, ours]) for _ in range(2))
    assert same_bits(first, second)
    assert [type(view) for view in first.net_.augmentations] == [Transform, Augmentation]


def test_a_function_gets_what_it_asks_for(X):
    given = {}
    for kind in ("pil", "tensor", "array"):

        def note(image, kind=kind):
            given[kind] = image
            return image

        epoch(X, Transform(note, input=kind), batch_size=40)
    assert given["pil"].mode == "RGB"
    assert given["tensor"].shape == (3, 16, 16)
    assert given["tensor"].dtype == torch.uint8
    assert given["array"].shape == (16, 16, 3)
    assert given["array"].dtype == np.uint8


def test_floats_are_given_as_tensors(X):
    (batch,) = epoch(X / np.float32(255), v2.CenterCrop(8), batch_size=40)
    assert torch.equal(batch.views[0], batch.images[..., 4:12, 4:12])
    with pytest.raises(ValueError, match="Pass input='tensor'"):
        epoch(X / np.float32(255), Transform(v2.CenterCrop(8), input="pil"))


def test_a_function_may_change_its_image(X):
    def blacken(image):
        image[:] = 0
        return image

    (batch,) = epoch(X, Transform(blacken, input="array"), batch_size=40)
    assert not batch.views[0].any()
    assert np.array_equal(batch.images.permute(0, 2, 3, 1), X[batch.index])


def test_lists_of_views_share_a_call(X):
    calls = []

    def two(image):
        calls.append(torch.rand(1))
        return [image, image.transpose(Image.Transpose.ROTATE_180)]

    batches = epoch(X, two, batch_size=40)
    assert len(calls) - 5 == 40  # five calls in the trial
    assert torch.equal(batches[0].views[0], batches[0].views[1].flip(2, 3))
    with pytest.raises(ValueError, match=r"returns 2 views .*RotNet compares 1.*output=0"):
        quick(skssl.RotNet, augment=two).fit(X)
    quick(skssl.RotNet, augment=Transform(two, output=1)).fit(X)
    with pytest.raises(ValueError, match="'output' parameter of Transform must be below 2"):
        fit(X, Transform(two, output=2))


def noisy(images):
    """A batched function: noise of its own for each image."""
    return (images + 0.1 * torch.rand_like(images)).clamp(0, 1)


def test_batched_functions_get_floats_and_repeat(X):
    seen = []

    def note(images):
        seen.append(images)
        return noisy(images)

    one, two = (fit(X, Transform(note, batched=True), epochs=2, n_jobs=n_jobs) for n_jobs in (None, 2))
    assert same_bits(one, two)
    assert seen[-1].shape == (16, 3, 16, 16)
    assert seen[-1].dtype == torch.float32
    assert 0 <= seen[-1].min() <= seen[-1].max() <= 1


def test_batched_functions_see_whole_photographs(tmp_path):
    assert fit(photographs(tmp_path), Transform(noisy, batched=True), image_shape=(12, 12)).n_features_in_ == 432


def test_one_crop_for_a_whole_batch_is_refused(X):
    with pytest.raises(ValueError, match="once for a batch, so that all images would get the same crop"):
        fit(X, Transform(CROP, batched=True))

    def one_crop(images):
        return v2.functional.crop(images, int(torch.randint(9, ())), 0, 8, 8)

    with pytest.raises(ValueError, match="draws its random numbers once for a batch"):
        fit(X, Transform(one_crop, batched=True))


def test_still_views_are_resized_and_normalised_as_the_transform_does(X):
    encoder = fit(X, [TORCHVISION, v1.Compose([CROP, v1.ToTensor(), v1.Normalize(MEAN, STD)])], epochs=0)
    images = torch.from_numpy(X.copy()).permute(0, 3, 1, 2)
    still = torch.nn.functional.interpolate(images / 255, (12, 12), mode="bilinear", antialias=True)
    with torch.no_grad():
        features = encoder.encoder_((still - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None])
    np.testing.assert_allclose(encoder.transform(X), features, rtol=1e-4, atol=1e-5)


def test_normalisation_that_cannot_be_seen_must_be_said(X):
    def normalise(image):
        return (np.asarray(image) / 255 - 0.5) / 0.25

    with pytest.raises(ValueError, match=r"values from -\d.*but no Normalize was found in it"):
        fit(X, normalise)
    encoder = fit(X, Transform(normalise, mean=(0.5,) * 3, std=(0.25,) * 3), epochs=0)
    view = encoder.net_.augmentations[0].eval_transform(torch.from_numpy(X.copy()).permute(0, 3, 1, 2))
    np.testing.assert_allclose(view.permute(0, 2, 3, 1), (X / 255 - 0.5) / 0.25, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (lambda image: image.crop((0, 0, 4 + random.randrange(9), 4)), "differ in size.*Add a Resize or a crop"),
        (lambda image: 3, r"must return a PIL image, array \(h, w, c\) or tensor.*Got int 3"),
        (lambda image: image.convert("L"), "must return views of 3 channels"),
        (lambda image: 1 / 0, r"failed on an image of shape \(3, 16, 16\): ZeroDivisionError"),
        (lambda image: np.random.default_rng().random((4, 4, 3)), "returns different views from the same seeds"),
        (Transform(CROP, size=9), "differ in size: 9x9, 12x12"),
        ([CROP, v2.RandomCrop(9)], "SimCLR compares views of one size"),
        ([CROP, TORCHVISION], r"normalised in different ways: by mean=\(0.0, 0.0, 0.0\) .* mean=\(0.4, 0.5, 0.6\)"),
        (Transform(CROP, mean=MEAN), "needs mean and std, or neither"),
        (Transform(CROP, batched=True, input="pil"), "A batched Transform is given tensors"),
    ],
)
def test_wrong_transforms_are_refused_before_the_training(X, augment, message):
    with pytest.raises(ValueError, match=message):
        fit(X, augment)


def test_methods_and_parts_that_need_our_augmentation_refuse_transforms_early(X):
    with pytest.raises(TypeError, match="PIRL changes the colours of tiles by an Augmentation, not by a Transform"):
        quick(skssl.PIRL, augment=CROP)._make_trainer(as_images(X))
    with pytest.raises(TypeError, match="must be a preset's name, an Augmentation"):
        quick(skssl.SwAV, augment=MultiCrop(augment=CROP)).fit(X)
    with pytest.raises(ValueError, match="'augment' parameter of FineTuner"):
        skssl.FineTuner(fit(X, epochs=0), augment=CROP).fit(X, np.arange(40) % 2)


def test_saved_encoders_name_the_transform_that_they_lack(X, tmp_path):
    encoder = fit(X, [TORCHVISION, Transform(flip_by_numpy, mean=MEAN, std=STD)])
    encoder.save(tmp_path / "a.safetensors")
    loaded = skssl.load(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(loaded.transform(X), encoder.transform(X))
    assert "torchvision.transforms.v2._container.Compose, not saved" in repr(loaded.augment)
    for train in (loaded.fit, loaded.partial_fit):
        with pytest.raises(ValueError, match=r"no more than the name of .*set_params\(augment=...\).fit"):
            train(X)
    loaded.save(tmp_path / "b.safetensors")
    assert repr(skssl.load(tmp_path / "b.safetensors").augment) == repr(loaded.augment)
    loaded.set_params(augment=[TORCHVISION, Transform(flip_by_numpy, mean=MEAN, std=STD)]).fit(X)
    assert same_bits(loaded, encoder)


def test_probes_with_such_encoders_are_saved(X, tmp_path):
    probe = skssl.LinearProbe(encoder=quick(skssl.SimCLR, augment=TORCHVISION), solver="sgd", epochs=1)
    probe.fit(X, np.arange(40) % 2).save(tmp_path / "probe.safetensors")
    np.testing.assert_array_equal(skssl.load(tmp_path / "probe.safetensors").predict(X), probe.predict(X))


def test_tasks_cut_tiles_of_whole_photographs_beside_such_views(tmp_path):
    history = fit(photographs(tmp_path), aux=["rotation", "jigsaw"]).history_
    assert {"rotation", "jigsaw"} <= set(history)


def test_clones_and_searches(X):
    estimator = quick(skssl.SimCLR, augment=Transform(CROP, input="pil"))
    assert repr(clone(estimator)) == repr(estimator)
    estimator.set_params(augment__input="tensor")
    pipe = make_pipeline(quick(skssl.SimCLR), skssl.KNNProbe(n_neighbors=1))
    grid = {"simclr__augment": [CROP, [flip_by_numpy, CROP], "simclr", Augmentation(size=12)]}
    search = GridSearchCV(pipe, grid, cv=2).fit(X, np.arange(40) % 2)
    assert len(search.cv_results_["params"]) == 4
    assert not np.isnan(search.cv_results_["mean_test_score"]).any()


def test_digests_tell_transforms_apart():
    first, second = (v2.Compose([v2.RandomCrop(size)]) for size in (8, 9))
    assert digest(first, "") == digest(v2.Compose([v2.RandomCrop(8)]), "") != digest(second, "")
    assert digest(Transform(first), "") != digest(Transform(first, input="tensor"), "")


def test_views_are_displayed_as_images(X):
    pytest.importorskip("matplotlib")
    display = skssl.ViewsDisplay.from_estimator(quick(skssl.SimCLR, augment=TORCHVISION), X, n_images=3)
    assert list(display.columns) == ["original", "view 1", "view 2"]
    assert display.columns["view 1"][0].shape == (12, 12, 3)


def test_contrastive_accuracy_draws_views_of_the_transform(X):
    encoder = fit(X)
    assert 0 <= skssl.metrics.contrastive_accuracy(encoder, X, batch_size=20) <= 1


def test_seeds_reach_every_generator():
    with preserved_generators():
        drawn = []
        for seed in (1, 1, 2):
            seed_generators(seed, len)
            drawn.append((torch.rand(1).item(), np.random.rand(), random.random()))
    assert drawn[0] == drawn[1]
    assert not set(drawn[0]) & set(drawn[2])


def test_views_of_one_type_are_stacked_as_floats_if_any_is_a_float():
    def sometimes(image):
        return torch.full((3, 2, 2), 0.5) if image.getpixel((0, 0))[0] else image.crop((0, 0, 2, 2))

    pictures = [torch.full((3, 4, 4), value, dtype=torch.uint8) for value in (0, 255)]
    (made,) = transform_images([Transform(sometimes)], pictures, [(0,), (1,)])
    assert re.match("torch.float32", str(made.dtype))
    assert made[:, 0, 0, 0].tolist() == [0.0, 0.5]
