"""`Augmentation` and `MultiCrop` as scikit-learn objects, presets, and normalisation."""

from __future__ import annotations

import pickle

import joblib
import pytest
import torch
from augment_cases import NAMES, NO_STEPS, gen, smooth_images
from sklearn.base import clone
from torchvision.transforms.v2 import functional as TF

from skssl.augment import Augmentation, MultiCrop, as_augmentations, preset


@pytest.mark.parametrize("name", [*NAMES, "instdisc", "pirl"])
@pytest.mark.parametrize("side", [16, 72])
def test_presets_draw_for_every_image(name, side):
    image = smooth_images(1, side, side)
    before = torch.random.get_rng_state()
    for augmentation in preset(name, side):
        views = augmentation(image.expand(6, -1, -1, -1), gen())
        assert views.shape == (6, 3, side, side)
        assert views.dtype == torch.float32
        assert views.isfinite().all()
        assert len({view.numpy().tobytes() for view in views}) == (1 if name == "none" else 6)
        again = augmentation(image.expand(6, -1, -1, -1), gen())
        assert torch.equal(views, again)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_presets_have_the_settings_of_the_papers():
    small, large = preset("simclr", 32)[0], preset("simclr", 224)[0]
    assert (small.brightness, small.hue, small.blur, small.mean) == (0.4, 0.1, 0.0, (0.485, 0.456, 0.406))
    assert (large.brightness, large.saturation, large.hue, large.blur) == (0.8, 0.8, 0.2, 0.5)
    assert preset("simsiam", 224)[1].get_params() == Augmentation(crop_scale=(0.2, 1.0), blur=0.5).get_params()
    assert [view.blur for view in preset("byol", 224)] == [1.0, 0.1]
    assert [view.solarize for view in preset("byol", 32)] == [0.0, 0.2]
    assert preset("gsg-cifar10", 32)[0].get_params() == Augmentation().get_params()
    assert preset("moco", 224)[1].get_params() == Augmentation(crop_scale=(0.2, 1.0), blur=0.5).get_params()
    assert preset("moco", 32)[1].get_params() == Augmentation().get_params()
    strong, weak = preset("ressl", 224)
    assert strong.get_params() == preset("moco", 224)[0].get_params()
    assert weak.get_params() == Augmentation(crop_scale=(0.2, 1.0), jitter=0.0, gray=0.0).get_params()
    assert preset("ressl", 32)[1].get_params() == Augmentation(jitter=0.0, gray=0.0).get_params()
    assert [view.crop_scale for view in preset("leoclr", 32)] == [None, (0.08, 1.0), (0.08, 1.0)]
    assert preset("leoclr", 224)[0].get_params() == Augmentation(crop_scale=None, blur=0.5).get_params()
    assert (preset("rotnet", 32)[0].crop_padding, preset("rotnet", 96)[0].crop_padding) == (4, 0)
    with pytest.raises(ValueError, match="Unknown augment 'simsam', did you mean 'simsiam'"):
        preset("simsam", 32)


@pytest.mark.parametrize("size", [None, 7, (6, 9)])
@pytest.mark.parametrize("c", [1, 3, 4])
def test_shapes_for_all_channels_and_sizes(c, size):
    images = smooth_images(5, 8, 12, c)
    for settings in (
        {},
        {"crop_padding": 2},
        {"crop_scale": None},
        NO_STEPS,
        {"blur": 1.0, "interpolation": "bicubic"},
    ):
        views = Augmentation(size=size, **settings)(images, gen())
        assert views.shape == (5, c, *((8, 12) if size is None else (7, 7) if size == 7 else size))
        assert views.isfinite().all()


def test_views_without_steps_are_normalized_images():
    images = smooth_images(4)
    augmentation = preset("none", 32)[0]
    expected = TF.normalize(images / 255, list(augmentation.mean), list(augmentation.std))
    torch.testing.assert_close(augmentation.normalize(images), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(augmentation(images, gen()), augmentation.normalize(images), atol=1e-5, rtol=0)
    grey = augmentation.normalize(images[:, :1])
    torch.testing.assert_close(grey, (images[:, :1] / 255 - 0.449) / 0.226, atol=1e-5, rtol=0)


def test_eval_transform_resizes_and_normalizes():
    images = smooth_images(4)
    augmentation = preset("none", 32)[0].set_params(size=(20, 24))
    expected = augmentation.normalize(TF.resize(images / 255, [20, 24], antialias=True))
    torch.testing.assert_close(augmentation.eval_transform(images), expected, atol=1e-5, rtol=0)
    same = augmentation.set_params(size=None)
    assert torch.equal(same.eval_transform(images), same.normalize(images))


def test_views_carry_no_gradient():
    images = torch.rand(2, 3, 8, 8, generator=gen(), requires_grad=True)
    assert not Augmentation()(images, gen()).requires_grad


def test_repr_hash_clone_and_pickle():
    augmentation = Augmentation(crop_scale=(0.2, 1.0), hue=0.0)
    assert repr(augmentation) == "Augmentation(crop_scale=(0.2, 1.0), hue=0.0)"
    fresh = joblib.hash(augmentation)
    augmentation(smooth_images(2), gen())
    assert joblib.hash(augmentation) == fresh
    copy = pickle.loads(pickle.dumps(clone(augmentation)))
    assert copy.get_params() == augmentation.get_params()
    assert torch.equal(copy(smooth_images(2), gen()), augmentation(smooth_images(2), gen()))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("crop_scale", (1.0, 0.2), "two numbers, the lower first, above 0 and at most 1"),
        ("crop_scale", (0.2, 1.5), "two numbers, the lower first, above 0 and at most 1"),
        ("crop_scale", 0.5, "an array-like or None"),
        ("crop_ratio", (0.0, 1.0), "two numbers, the lower first, above 0."),
        ("crop_ratio", (1.0,), "two numbers"),
        ("crop_padding", -1, r"an int in the range \[0, inf\)"),
        ("size", 0, "int in the range"),
        ("size", (32, 0), "two of them"),
        ("size", (32.0, 32.0), "two of them"),
        ("interpolation", "nearest", "a str among"),
        ("flip", 1.1, r"a float in the range \[0.0, 1.0\]"),
        ("brightness", -0.1, "a float in the range"),
        ("hue", 0.6, r"a float in the range \[0.0, 0.5\]"),
        ("hue_space", "lab", "a str among"),
        ("blur_sigma", (2.0, 0.1), "two numbers, the lower first"),
        ("mean", (0.5, 0.5), "three numbers"),
        ("std", (0.5, 0.0, 0.5), "three numbers above 0"),
        ("std", ("a", "b", "c"), "three numbers above 0"),
    ],
)
def test_invalid_parameter_is_named_in_the_error(name, value, expected):
    with pytest.raises(ValueError, match=rf"The '{name}' parameter of Augmentation must be .*{expected}.*Got"):
        Augmentation(**{name: value}).validate()


def test_changed_parameter_is_validated_again():
    augmentation = Augmentation()
    augmentation(smooth_images(2), gen())
    augmentation.set_params(flip=2.0)
    with pytest.raises(ValueError, match="'flip' parameter"):
        augmentation(smooth_images(2), gen())
    with pytest.raises(ValueError, match="'flip' parameter"):
        augmentation.normalize(smooth_images(2))


@pytest.mark.parametrize(
    ("augment", "error", "message"),
    [
        ([Augmentation(), "simclr"], TypeError, "sequence of them .*Got 'simclr'"),
        (3, TypeError, "a preset's name, .*Got 3"),
        ([], ValueError, "at least one Augmentation. Got an empty sequence"),
        ([Augmentation(), Augmentation(flip=2.0)], ValueError, "'flip' parameter"),
    ],
    ids=str,
)
def test_as_augmentations_rejects_other_objects(augment, error, message):
    with pytest.raises(error, match=message):
        as_augmentations(augment, 32)


def test_multi_crop_makes_global_views_first():
    views = MultiCrop(n_global=2, n_local=3, augment=preset("byol", 224)).views(224)
    assert [view.crop_scale for view in views] == [(0.14, 1.0)] * 2 + [(0.05, 0.14)] * 3
    assert [view.size for view in views] == [None] * 2 + [96] * 3
    assert [view.solarize for view in views] == [0.0, 0.2, 0.0, 0.2, 0.0]


def test_multi_crop_names_its_own_parameter_in_the_error():
    for name in ("global_scale", "local_scale"):
        with pytest.raises(ValueError, match=f"The '{name}' parameter of MultiCrop must be two numbers"):
            MultiCrop(**{name: (1, 0.2)}).views(32)
