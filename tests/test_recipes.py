"""Every recipe makes an estimator whose parameters are in range, and whose scores and source are there."""

import numpy as np
import pytest
import torch
from conftest import quick

import skssl
from skssl import recipes
from skssl.augment import sample_crops

ALL = [
    pytest.param(recipe, id=f"{name}: {title}")
    for name in ("CIFAR10", "CIFAR100", "TINY_IMAGENET", "IMAGENET100", "IMAGENET")
    for title, recipe in getattr(recipes, name).items()
]


@pytest.mark.parametrize("recipe", ALL)
def test_recipes_make_estimators(recipe):
    assert set(recipe) == {"method", "params", "linear", "knn", "source"}
    assert recipe["source"]
    assert any(score is not None and 1 < score < 100 for score in (recipe["linear"], recipe["knn"]))
    estimator = recipes.make(recipe, random_state=0)
    assert type(estimator).__name__ == recipe["method"]
    assert estimator.random_state == 0
    estimator._validate_params()
    estimator._augmentations(224)
    estimator._tasks()


@pytest.mark.parametrize("title", ["SimCLR + rotation, false negatives removed", "SwAV + rotation", "BYOLGSG"])
def test_a_recipe_trains_when_it_is_made_small(title, X, y):
    recipe = recipes.CIFAR10[title]
    small = quick(getattr(skssl, recipe["method"])).get_params(deep=False)
    size = {name: small[name] for name in ("backbone", "epochs", "batch_size", "random_state", "proj_dim")}
    estimator = recipes.make(recipe, **size, warmup_epochs=0).fit(X, y)
    assert np.isfinite(estimator.history_["loss"]).all()


def test_rotation_is_added_with_the_papers_weight_and_nothing_else():
    for table, title, weight in [("CIFAR10", "BYOL", 5.0), ("CIFAR100", "SimSiam", 0.2), ("IMAGENET100", "SwAV", 0.1)]:
        recipe = getattr(recipes, table)
        plain, rotated = recipe[title]["params"], recipe[f"{title} + rotation"]["params"]
        assert rotated == {**plain, "aux": "rotation", "aux_weight": weight}
        assert recipe[f"{title} + rotation"]["linear"] > recipe[title]["linear"]


def test_byols_momentum_is_that_of_short_trainings():
    assert recipes.CIFAR10["BYOL"]["params"]["ema_momentum"] == 0.95
    assert recipes.CIFAR100["BYOL"]["params"]["ema_momentum"] == 0.85
    assert recipes.CIFAR10["BYOLGSG"]["params"]["ema_momentum"] == 0.99


def test_dinos_small_crops_are_blurred_as_its_codes():
    made = recipes.make(recipes.IMAGENET["DINO"])._augmentations(224)
    assert [view.blur for view in made] == [1.0, 0.1, *[0.5] * 8]
    assert [view.solarize for view in made] == [0.0, 0.2, *[0.0] * 8]
    assert [view.crop_scale for view in made] == [(0.14, 1.0)] * 2 + [(0.05, 0.14)] * 8
    assert [view.size for view in made] == [None] * 2 + [96] * 8


def test_nt_xents_decoupling_crops_224_of_256():
    view = recipes.TINY_IMAGENET["RotationDecoupling, NT-Xent"]["params"]["augment"]
    boxes = sample_crops(50, (64, 64), view.crop_scale, view.crop_ratio, torch.Generator().manual_seed(0))
    assert {(int(h), int(w)) for h, w in zip(*boxes[2:], strict=True)} == {(56, 56)}
    assert set(boxes[0].tolist()) == set(range(9))
    assert view.size == 224


def test_the_versions_of_moco_differ_in_head_temperature_and_augmentation():
    for version, expected in [(1, (1, 0.07, 1.0, 0.4, 0.0)), (2, (2, 0.2, 0.8, 0.1, 0.5))]:
        estimator = recipes.make(recipes.IMAGENET[f"MoCo v{version}"])
        view, other = estimator._augmentations(224)
        assert view is other
        assert (view.crop_scale, view.gray, view.flip) == ((0.2, 1.0), 0.2, 0.5)
        found = (estimator.proj_layers, estimator.temperature, view.jitter, view.hue, view.blur)
        assert found == expected
