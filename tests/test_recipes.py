"""Recipes make valid estimators, with the settings of their sources."""

import itertools
import re

import numpy as np
import pytest
import torch
from conftest import quick

import skssl
from skssl import recipes
from skssl.augment import sample_crops
from skssl.augment.presets import CROPS_AND_FLIPS
from skssl.training.optim import LARC, LARS
from skssl.training.schedules import check_schedule, schedule_factor

ALL = [
    pytest.param(recipe, id=f"{name}: {title}")
    for name in ("CIFAR10", "CIFAR100", "STL10", "TINY_IMAGENET", "IMAGENET100", "IMAGENET", "VIDEO", "RACE")
    for title, recipe in getattr(recipes, name).items()
]
DECOUPLING = [recipe for recipe in recipes.TINY_IMAGENET.values() if recipe["method"] == "RotationDecoupling"]
WITHOUT_SCORE = ("RotNet", "RelativePatch", "Colorization", "ContextEncoder", "DeepCluster")  # of IMAGENET
WITHOUT_SCORE += ("ContextEncoder, adversarial",)


@pytest.mark.parametrize("recipe", ALL)
def test_recipe_makes_a_valid_estimator(recipe):
    assert set(recipe) == {"method", "params", "linear", "knn", "scores", "source", "origin", "protocol"}
    assert set(recipe["origin"]) == set(recipe["params"])
    assert set(recipe["origin"].values()) <= {"printed", "code", "inferred"}
    assert recipe["source"]
    scores = [score for score in (recipe["linear"], recipe["knn"]) if score is not None]
    assert all(1 < score < 100 for score in scores)
    unknown = recipe in [recipes.IMAGENET[title] for title in WITHOUT_SCORE] or "not known" in recipe["source"]
    assert scores or recipe["scores"] or unknown
    estimator = recipes.make(recipe, random_state=0)
    assert type(estimator).__name__ == recipe["method"]
    assert estimator.random_state == 0
    estimator._validate_params()
    estimator._augmentations(224)
    estimator._tasks()
    probes = recipes.make_probes(recipe, skssl.backbones.ConvNet(), device="cpu")
    assert {name: type(probe).__name__ for name, probe in probes.items()} == {
        "linear": "LinearProbe",
        "knn": "KNNProbe",
    }
    for name, probe in probes.items():
        probe._validate_params()
        assert recipe["protocol"][name].items() <= probe.get_params(deep=False).items()


@pytest.mark.parametrize(
    ("table", "title"),
    [
        ("CIFAR10", "SimCLR + rotation, false negatives removed"),
        ("CIFAR10", "SwAV + rotation"),
        ("CIFAR10", "BYOLGSG"),
        ("IMAGENET", "DeepClusterV2"),
        ("IMAGENET", "SwAV + rotation, 50 epochs"),
        ("IMAGENET", "RelativePatch"),
        ("IMAGENET", "Colorization"),
        ("IMAGENET", "ContextEncoder"),
        ("IMAGENET", "ContextEncoder, adversarial"),
        ("STL10", "SpotArtifacts"),
        ("IMAGENET", "DeepCluster"),
        ("STL10", "MMCR"),
        ("CIFAR10", "ReSSL, 200 epochs"),
    ],
)
def test_reduced_recipe_trains(table, title, X, y):
    recipe = getattr(recipes, table)[title]
    small = quick(getattr(skssl, recipe["method"])).get_params(deep=False)
    names = ("backbone", "epochs", "batch_size", "random_state", "hidden_dim", "proj_dim", "n_prototypes", "stride")
    names += ("pretrain_epochs", "width")
    size = {name: small[name] for name in names if name in small}
    estimator = recipes.make(recipe, **size, warmup_epochs=0).fit(X, y)
    assert np.isfinite(estimator.history_["loss"]).all()


def test_rotation_recipes_add_only_the_task_and_its_weight():
    for table, title, weight in [("CIFAR10", "BYOL", 5.0), ("CIFAR100", "SimSiam", 0.2), ("IMAGENET100", "SwAV", 0.1)]:
        recipe = getattr(recipes, table)
        plain, rotated = recipe[title]["params"], recipe[f"{title} + rotation"]["params"]
        assert rotated == {**plain, "aux": "rotation", "aux_weight": weight}
        assert recipe[f"{title} + rotation"]["linear"] > recipe[title]["linear"]


def test_table_2_of_effssl_differs_in_labels_alone():
    found = {}
    for title, recipe in recipes.CIFAR10.items():
        if "false negatives removed" in title:
            base = recipes.CIFAR10[title.split(",")[0]]["params"]
            share = recipe["params"].get("label_fraction", 1.0)
            few = {} if share == 1 else {"label_fraction": share}
            assert recipe["params"] == {**base, "false_negatives": "remove", **few}
            found["rotation" in title, share] = recipe["linear"]
    scores = {False: {0.3: 92.26, 0.5: 92.93, 1.0: 93.27}, True: {0.3: 93.94, 0.5: 94.02, 1.0: 94.15}}
    assert found == {(rotated, share): value for rotated, row in scores.items() for share, value in row.items()}


def test_ablations_differ_from_their_base_in_one_thing():
    bases = {"CIFAR10": ("BYOL", "SimSiam"), "CIFAR100": ("BYOL",), "IMAGENET100": ("BYOL",)}
    kinds = {
        "SupCon loss": {"aux"},
        "cosine loss": {"aux"},
        "label noise": {"aux"},
        "shared to": {"aux"},
        "angles": {"aux"},
        "degrees": {"aux"},
        "turned views": {"augment"},
        "no colour jitter": {"augment"},
        "saliency-guided": {"augment", "epochs"},
        "random": {"stop_gradient"},
        "reverse": {"stop_gradient"},
        "no predictor": {"predictor", "epochs"},
    }
    seen = set()
    for table, titles in bases.items():
        found = getattr(recipes, table)
        for title, recipe in found.items():
            base = title.rpartition(", ")[0]
            kind = next((kind for kind in kinds if kind in title), None)
            if kind is None or not base.startswith(titles):
                continue
            params, plain = recipe["params"], found[base]["params"]
            assert {name for name in params if params[name] != plain.get(name)} == kinds[kind], title
            seen.add(kind)
    assert seen == set(kinds)


def test_angles_and_shared_layers_of_the_rotation_task():
    tasks = {title: recipe["params"]["aux"] for title, recipe in recipes.CIFAR100.items() if "BYOL + rot" in title}
    sets = [tasks[title].angles for title in tasks if "angles" in title or "degrees" in title]
    assert [len(angles) for angles in sets] == [2, 2, 2, 2, 4, 8, 12]
    assert all(len({b - a for a, b in itertools.pairwise(angles)}) == 1 for angles in sets)
    assert [of.shared for title, of in tasks.items() if "shared" in title] == [
        "conv1",
        "layer1",
        "layer2",
        "layer3",
        "backbone",
    ]
    found = recipes.CIFAR100
    assert (found["BYOL + rotation, 8 angles"]["linear"], found["BYOL + rotation, shared to conv1"]["knn"]) == (
        67.25,
        50.36,
    )
    assert found["BYOL + rotation, 8 angles"]["origin"]["aux"] == "inferred"


def test_rotated_views_and_no_colour_jitter_change_both_views():
    plain = recipes.make(recipes.CIFAR10["BYOL"])._augmentations(32)
    turned = recipes.make(recipes.CIFAR10["BYOL, turned views"])._augmentations(32)
    gray = recipes.make(recipes.CIFAR10["BYOL + rotation, no colour jitter"])._augmentations(32)
    for view, other, still in zip(plain, turned, gray, strict=True):
        assert other.get_params() == {**view.get_params(), "quarter_turn": 1.0}
        assert still.get_params() == {**view.get_params(), "jitter": 0.0}


def test_saliency_guided_crops_by_share():
    for share in (0, 25, 50, 100):
        views = recipes.make(recipes.IMAGENET100[f"BYOL, {share} % saliency-guided crops"])._augmentations(224)
        assert [view.good_crops for view in views] == [share / 100] * 2
        assert [view.blur for view in views] == [1.0, 0.1]


def test_learning_rate_of_guided_batches_is_proportional():
    for title in ("SimSiamGSG", "BYOLGSG"):
        rates = {
            recipes.IMAGENET[name]["params"]["batch_size"]: recipes.IMAGENET[name]["params"]["lr"]
            for name in (title, f"{title}, batch 1024", f"{title}, batch 256")
        }
        assert rates == pytest.approx({512: 0.1, 1024: 0.2, 256: 0.05})


def test_leoclr_experiments_on_imagenet():
    table = recipes.IMAGENET
    assert table["LeOCLR, 200 epochs"]["params"] == table["MoCo v2, 200 epochs"]["params"]
    whole, cropped = (
        recipes.make(table[name])._augmentations(224) for name in ("LeOCLR, 200 epochs", "LeOCLR, cropped original")
    )
    assert (whole[0].crop_scale, cropped[0].crop_scale) == (None, cropped[1].crop_scale)
    alone = recipes.make(table["LeOCLR, crops alone"])._augmentations(224)
    assert [view.crop_scale for view in alone] == [None, (0.08, 1.0), (0.08, 1.0)]
    assert {(view.flip, view.jitter, view.gray, view.blur) for view in alone} == {(0.0, 0.0, 0.0, 0.0)}
    assert recipes.make(table["LeOCLR, end-to-end"]).encoder == "end-to-end"


def test_effssl_task_weights_on_imagenet():
    table = recipes.IMAGENET100
    for title in ("BYOL + rotation", "BYOL + jigsaw", "BYOL + jigsaw + rotation"):
        weights = [weight for _, weight in recipes.make(table[title])._tasks().values()]
        assert weights == [6.0] * title.count("+")
    for epochs in (35, 50, 100):
        plain, rotated = (
            recipes.IMAGENET[f"{title}, {epochs} epochs, 2 x 224"] for title in ("SwAV", "SwAV + rotation")
        )
        short = recipes.IMAGENET["SwAV, 30 epochs"]["params"]
        assert plain["params"] == {**short, "epochs": epochs}
        assert plain["params"].items() < rotated["params"].items()
        assert (plain["linear"], rotated["linear"]) == (None, {35: 59.5, 50: 61.9, 100: 64.3}[epochs])
    for epochs, linear in [(30, (54.90, 57.30)), (50, (65.8, 68.3))]:
        plain, rotated = (recipes.IMAGENET[f"{title}, {epochs} epochs"] for title in ("SwAV", "SwAV + rotation"))
        assert (plain["linear"], rotated["linear"]) == linear
        assert plain["params"].items() < rotated["params"].items()
        ((task, weight),) = recipes.make(rotated)._tasks().values()
        assert (task.name, task.head, weight) == ("rotation", "backbone", 0.1)
        assert plain["params"]["optimizer"] == "lars"
        assert (plain["params"]["epochs"], plain["params"]["warmup_epochs"]) == (epochs, {30: 0, 50: 10}[epochs])


def test_swav_uses_larc_and_simclr_notes_another_lars():
    assert {recipes.make(recipes.IMAGENET[title]).optimizer for title in ("SwAV", "DeepClusterV2")} == {LARC}
    assert "LARS differs" in recipes.IMAGENET["SimCLR"]["source"]


def test_barlow_twins_loss_scale_equals_two_learning_rates():
    params = recipes.IMAGENET["BarlowTwins"]["params"]
    draw = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in ((4, 3), (4,))]
    x = torch.randn(8, 3, generator=draw, dtype=torch.float64)
    found = []
    for two_rates in (True, False):
        weight, bias = (torch.nn.Parameter(value.clone()) for value in start)
        if two_rates:  # of ImageNet, per 256 images
            groups = [{"params": [weight], "lr": 0.2 * 2048 / 256}, {"params": [bias], "lr": 0.0048 * 2048 / 256}]
            lars, scale = LARS(groups, lr=0.0, weight_decay=1e-6), 1.0
        else:
            lars = LARS([weight, bias], lr=params["lr"], weight_decay=params["weight_decay"])
            scale = params["loss_scale"]
        for _ in range(20):
            lars.zero_grad()
            (scale * (x @ weight.T + bias).sin().square().sum()).backward()
            lars.step()
        found.append((weight.detach(), bias.detach()))
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=0)
    assert all((value - first).abs().max() > 1e-2 for value, first in zip(found[0], start, strict=True)), "it moved"


def test_rotation_decoupling_uses_alexnet_with_batchnorm():
    assert {recipe["params"]["backbone"] for recipe in DECOUPLING} == {"alexnet_bn"}


def test_leoclr_weight_decay_and_momentum():
    for table in (recipes.CIFAR10, recipes.IMAGENET):
        estimator = recipes.make(table["LeOCLR"])
        assert (estimator.setting("weight_decay"), estimator.ema_momentum) == (1e-4, 0.999)


def test_fine_tuning_on_one_and_ten_per_cent():
    table = recipes.FINE_TUNING
    shares = {title: table[f"{title}, 10 %"]["params"] for title in re.findall(r"(.+), 1 %", "\n".join(table))}
    assert set(shares) == {"SwAV, PCL and EffSSL", "SimCLR", "SimCLRv2", "LeOCLR", "Barlow Twins", "VICReg"}
    assert (shares["Barlow Twins"]["backbone_lr"], shares["Barlow Twins"]["head_lr"]) == (0.005, 0.05)
    for title in ("SimCLR", "SimCLRv2", "LeOCLR"):
        assert shares[title] == {**table[f"{title}, 1 %"]["params"], "epochs": 30}
        assert table[f"{title}, 1 %"]["params"]["epochs"] == 60
    assert shares["SimCLRv2"]["layer"] == "projector1"


@pytest.mark.parametrize("title", recipes.DENSE)
def test_dense_recipe_makes_a_valid_estimator(title):
    recipe = recipes.DENSE[title]
    assert set(recipe) == {"method", "params", "scores", "source", "origin"}
    assert set(recipe["origin"]) == set(recipe["params"])
    assert set(recipe["origin"].values()) <= {"printed", "code", "inferred"}
    estimator = recipes.make(recipe, encoder=skssl.backbones.ConvNet(), device="cpu")
    assert type(estimator).__name__ == recipe["method"]
    estimator._validate_params()
    check_schedule(estimator.schedule, estimator.warmup_epochs)


@pytest.mark.parametrize(
    ("title", "images", "steps", "warmup", "falls"),
    [
        ("MoCo v2 and DenseCL, VOC07+12", 16551, 24000, 100, (18000, 22000)),
        ("GSG and Ericsson et al., VOC07+12", 16551, 144000, 100, (96000, 128000)),
        ("Ericsson et al., VOC07+12, fine-tuned", 16551, 144000, 100, (96000, 128000)),
        ("MoCo, COCO, 1x", 118287, 90000, 1000, (60000, 80000)),
        ("MoCo, COCO, 2x", 118287, 180000, 1000, (120000, 160000)),
        ("Ericsson et al., ADE20K", 20210, 150000, 0, ()),
        ("MoCo, VOC12", 10582, 30000, 0, (21000, 27000)),
        ("MoCo, Cityscapes", 2975, 90000, 0, (63000, 81000)),
        ("DenseCL, Cityscapes", 2975, 40000, 0, ()),
    ],
)
def test_dense_recipes_train_for_the_steps_of_their_papers(title, images, steps, warmup, falls):
    estimator = recipes.make(recipes.DENSE[title], encoder=None)
    epochs = steps * estimator.batch_size / images
    assert abs(estimator.epochs - epochs) < 0.7
    assert estimator.warmup_epochs == pytest.approx(warmup * estimator.batch_size / images, rel=0.2)
    for step in np.linspace(warmup / steps + 0.01, 0.99, 50):
        factor = schedule_factor(estimator.schedule, step * 1000, 1000)
        expected = 0.1 ** sum(step >= fall / steps for fall in falls) if falls else (1 - step) ** 0.9
        assert factor == pytest.approx(expected)


def test_dense_recipes_freeze_what_their_papers_freeze():
    frozen = {title: recipe["params"]["frozen"] for title, recipe in recipes.DENSE.items()}
    assert frozen.pop("GSG and Ericsson et al., VOC07+12") == "layer3"
    assert frozen.pop("Ericsson et al., VOC07+12, fine-tuned") == "layer1"
    assert not any(frozen.values())
    assert len(frozen) == 7


def test_guided_recipes_have_no_schedule_as_printed_and_a_cosine_as_in_the_code():
    for title in ("SimSiam, GSG's baseline", "SimSiamGSG", "BYOL, GSG's baseline", "BYOLGSG"):
        printed, code = recipes.CIFAR10[title], recipes.CIFAR10[f"{title}, cosine"]
        assert code["params"] == {**printed["params"], "schedule": "epoch_cosine"}
        assert (printed["params"]["schedule"], printed["origin"]["schedule"]) == ("constant", "printed")
        assert code["origin"]["schedule"] == "code"
        assert printed["protocol"] == code["protocol"] == {"linear": {"protocol": "gsg"}, "knn": {"protocol": "gsg"}}
        assert (printed["params"]["lr"], printed["params"]["weight_decay"]) == (0.06, 5e-4)


def test_leoclr_and_its_baseline_have_the_same_settings():
    found, baseline = (recipes.CIFAR10[title] for title in ("LeOCLR", "MoCo v2, LeOCLR's baseline"))
    assert found["params"] == baseline["params"]
    assert (found["linear"], baseline["linear"], found["params"]["epochs"]) == (79.59, 73.88, 800)
    assert found["origin"]["queue_size"] == "inferred"
    crops = recipes.make(found)._augmentations(32)[1:]
    views = recipes.make(baseline)._augmentations(32)
    assert [crop.get_params() for crop in crops] == [view.get_params() for view in views]


def test_imagenet_100_of_effssl_follows_the_codes_with_one_batch_and_warm_up():
    found = [recipe for recipe in recipes.IMAGENET100.values() if "EffSSL" in recipe["source"]]
    assert len(found) > 10
    for recipe in found:
        assert (recipe["params"]["batch_size"], recipe["params"]["warmup_epochs"]) == (512, 10)
        assert recipe["origin"]["batch_size"] == recipe["origin"]["warmup_epochs"] == "inferred"
    swav = recipes.make(recipes.IMAGENET100["SwAV"])
    assert [view.size for view in swav._augmentations(224)] == [None] * 2 + [96] * 6
    assert (swav.optimizer, swav.epsilon, swav.weight_decay, swav.n_prototypes) == (LARC, 0.05, 1e-6, 300)
    simclr = recipes.make(recipes.IMAGENET100["SimCLR"])
    assert (simclr.temperature, simclr.hidden_dim, simclr.weight_decay) == (0.2, 2048, 1e-4)
    jigsaw = recipes.IMAGENET100["BYOL + jigsaw"]["origin"]
    assert (jigsaw["aux"], jigsaw["aux_weight"]) == ("printed", "inferred")


@pytest.mark.parametrize(
    ("table", "images", "epochs"),
    [
        ("CIFAR10", 50000, 1000),
        ("CIFAR100", 50000, 1000),
        ("STL10", 105000, 2000),
        ("TINY_IMAGENET", 100000, 1000),
        ("IMAGENET100", 126689, 240),
    ],
)
def test_w_mse_warms_up_for_500_steps_and_its_rate_falls_near_the_end(table, images, epochs):
    for views, batch_size in ((2, 512), (4, 256)):
        estimator = recipes.make(getattr(recipes, table)[f"WMSE, {views} views"])
        assert (estimator.epochs, estimator.batch_size, estimator.n_views) == (epochs, batch_size, views)
        assert estimator.whitening_size == 2 * estimator.proj_dim
        warmup = estimator.warmup_epochs
        assert warmup * (images // batch_size) == pytest.approx(500)
        for epoch in [5.5, epochs - 50.5, epochs - 49.5, epochs - 25.5, epochs - 24.5]:
            factor = schedule_factor(estimator.schedule, epoch, epochs, warmup)
            assert factor == pytest.approx(0.2 ** sum(epoch >= epochs - left for left in (50, 25)))


def test_w_mse_scores_of_its_table_1():
    found = {
        table: [
            (recipe["linear"], recipe["knn"])
            for title, recipe in getattr(recipes, table).items()
            if title in ("WMSE, 2 views", "WMSE, 4 views")
        ]
        for table in ("CIFAR10", "CIFAR100", "TINY_IMAGENET")
    }
    assert found == {
        "CIFAR10": [(91.55, 89.69), (91.99, 89.87)],
        "CIFAR100": [(66.10, 56.69), (67.64, 56.45)],
        "TINY_IMAGENET": [(48.20, 34.16), (49.20, 35.44)],
    }


def test_larger_batches_of_lightly_on_cifar_10():
    found = recipes.CIFAR10
    for title, rate in [("DCL", 0.24), ("DCLW", 0.24), ("NNCLR, lightly", 0.24), ("FastSiam", 0.06)]:
        for epochs in (200, 800):
            large = found[f"{title}, batch 512, {epochs} epochs"]
            own = {"queue_size": 8192} if "NNCLR" in title else {}
            changes = {"batch_size": 512, "epochs": epochs, "lr": rate, **own}
            assert large["params"] == {**found[title]["params"], **changes}
            assert large["knn"] > 75
            assert large["origin"]["lr"] == ("inferred" if title == "FastSiam" else "code")


def test_imagenet_100_of_solo_learn_differs_from_cifar_in_epochs_rate_and_views():
    for title, other in [("MoCoV3", set()), ("NNCLR", set()), ("ReSSL", {"lr"}), ("VICReg", {"augment"})]:
        found, small = recipes.IMAGENET100[title]["params"], recipes.CIFAR10[title]["params"]
        assert {name for name in found if found[name] != small.get(name)} == {"epochs"} | other
        assert (found["epochs"], found["batch_size"]) == (400, 256)
    views = recipes.make(recipes.IMAGENET100["MoCoV3"])._augmentations(224)
    assert [(view.blur, view.solarize) for view in views] == [(1.0, 0.0), (0.1, 0.2)]
    assert recipes.IMAGENET100["MoCoV3"]["linear"] == recipes.IMAGENET100["MoCoV3"]["scores"]["online"] == 80.36


def test_lightly_on_imagenet_trains_for_100_epochs_with_the_rates_of_its_code():
    found = {title: recipe["params"] for title, recipe in recipes.IMAGENET.items() if title.endswith("lightly")}
    assert {params["epochs"] for params in found.values()} == {100}
    rates = {title: (params["batch_size"], params["lr"]) for title, params in found.items()}
    assert rates == {
        "SimCLR, lightly": (256, 0.075 * 256**0.5),
        "DCL, lightly": (256, 0.075 * 256**0.5),
        "DCLW, lightly": (256, 0.075 * 256**0.5),
        "SwAV, lightly": (256, 0.6),
        "BYOL, lightly": (256, 0.45),
        "BarlowTwins, lightly": (256, 0.2),
        "VICReg, lightly": (256, 0.2),
        "TiCo, lightly": (512, 0.2 * 512 / 256),
        "IBOT, ViT-S, lightly": (128, 5e-4 * 128 / 256),
        "MAE, ViT-B, lightly": (256, 1.5e-4),
        "LeJEPA, ViT-S, lightly": (256, 5e-4),
    }
    views = recipes.make(recipes.IMAGENET["LeJEPA, ViT-S, lightly"])._augmentations(224)
    assert [(view.blur, view.solarize) for view in views] == [(0.5, 0.0), (0.5, 0.2)] + [(0.5, 0.0)] * 6


def test_rates_of_rotation_decoupling_are_those_of_its_code():
    for recipe in DECOUPLING:
        estimator = recipes.make(recipe)
        assert estimator.epochs == 200
        rates = [0.01 * schedule_factor(estimator.schedule, epoch, 200) for epoch in range(200)]
        expected = [0.01] * 90 + [0.001] * 40 + [1e-4] * 60 + [1e-5] * 10
        np.testing.assert_allclose(rates, expected)
        assert recipes.make_probes(recipe, estimator)["linear"].layer == "conv5"


@pytest.mark.parametrize(
    ("title", "tenths"),
    [("RotNet", (15, 30, 45)), ("RelativePatch", (30, 50)), ("MoCo v1", (120, 160)), ("InstDisc", (120, 160))],
)
def test_rates_that_fall_to_a_tenth(title, tenths):
    estimator = recipes.make(recipes.IMAGENET[title])
    warmup = estimator.setting("warmup_epochs")
    for epoch in range(int(warmup), estimator.epochs):
        factor = schedule_factor(estimator.schedule, epoch, estimator.epochs, warmup)
        assert factor == pytest.approx(0.1 ** sum(epoch >= tenth for tenth in tenths))


def test_protocols_of_the_sources():
    linear = recipes.make_probes(recipes.CIFAR10["SimSiam"], None)["linear"]
    found = [linear.setting(name) for name in ("lr", "epochs", "batch_size", "augment")]
    assert found == [30, 100, 512, CROPS_AND_FLIPS]
    assert recipes.make_probes(recipes.CIFAR10["MoCo"], None)["knn"].layer == "projector"
    assert recipes.CIFAR10["SimSiam"]["params"]["lr"] == 0.07
    assert recipes.CIFAR100["SimSiam"]["params"]["lr"] == 0.05


def test_byol_momentum():
    assert recipes.CIFAR10["BYOL"]["params"]["ema_momentum"] == 0.95
    assert recipes.CIFAR100["BYOL"]["params"]["ema_momentum"] == 0.85
    assert recipes.CIFAR10["BYOLGSG"]["params"]["ema_momentum"] == 0.99


def test_dino_augmentations_are_those_of_its_code():
    made = recipes.make(recipes.IMAGENET["DINO"])._augmentations(224)
    assert [view.blur for view in made] == [1.0, 0.1, *[0.5] * 8]
    assert [view.solarize for view in made] == [0.0, 0.2, *[0.0] * 8]
    assert [view.crop_scale for view in made] == [(0.14, 1.0)] * 2 + [(0.05, 0.14)] * 8
    assert [view.size for view in made] == [None] * 2 + [96] * 8


def test_recipes_of_vision_transformers_scale_the_rates_of_their_codes():
    rates = {"DINO, ViT-S": 5e-4, "IBOT, ViT-S": 5e-4, "IBOT, ViT-B": 7.5e-4, "SimMIM, ViT-B": 5e-5}
    rates |= {"MAE, ViT-B": 1.5e-4, "MAE, ViT-L": 1.5e-4, "MAE, ViT-B, 100 epochs": 2e-4}
    for title, rate in rates.items():
        params = recipes.IMAGENET[title]["params"]
        assert params["lr"] == pytest.approx(rate * params["batch_size"] / 256), title
    made = recipes.make(recipes.IMAGENET["DINO, ViT-S"])._augmentations(224)
    assert [view.crop_scale for view in made] == [(0.4, 1.0)] * 2 + [(0.05, 0.4)] * 8
    made = recipes.make(recipes.IMAGENET["IBOT, ViT-S"])._augmentations(224)
    assert [view.crop_scale for view in made] == [(0.25, 1.0)] * 2 + [(0.05, 0.25)] * 10
    assert [(view.blur, view.solarize) for view in made] == [(1.0, 0.0), (0.1, 0.2)] + [(0.5, 0.0)] * 10
    schedule = recipes.IMAGENET["SimMIM, ViT-B"]["params"]["schedule"]
    assert [schedule_factor(schedule, epoch, 800, 10) for epoch in (5, 10, 699, 701)] == [0.5, 1.0, 1.0, 0.1]


def test_rotation_decoupling_with_nt_xent_crops_224_of_256():
    view = recipes.TINY_IMAGENET["RotationDecoupling, NT-Xent"]["params"]["augment"]
    boxes = sample_crops(50, (64, 64), view.crop_scale, view.crop_ratio, torch.Generator().manual_seed(0))
    assert {(int(h), int(w)) for h, w in zip(*boxes[2:], strict=True)} == {(56, 56)}
    assert set(boxes[0].tolist()) == set(range(9))
    assert view.size == 224


def test_moco_versions_differ_in_head_temperature_and_augmentation():
    for version, expected in [(1, (1, 0.07, 1.0, 0.4, 0.0)), (2, (2, 0.2, 0.8, 0.1, 0.5))]:
        estimator = recipes.make(recipes.IMAGENET[f"MoCo v{version}"])
        view, other = estimator._augmentations(224)
        assert view is other
        assert (view.crop_scale, view.gray, view.flip) == ((0.2, 1.0), 0.2, 0.5)
        found = (estimator.proj_layers, estimator.temperature, view.jitter, view.hue, view.blur)
        assert found == expected
