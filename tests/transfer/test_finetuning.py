"""Fine-tuning: trained parameters, learning rates, images that are used, and rejected input."""

import copy
import pickle
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import quick
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import top_k_accuracy_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn
from torch.nn import functional as F

import skssl
from skssl import Augmentation, Distiller, FineTuner, label_fraction, recipes
from skssl.backbones import ConvNet
from skssl.datasets import make_shapes
from skssl.training.optim import make_optimizer
from skssl.training.schedules import schedule_factor
from skssl.training.trainer import Trainer

QUICK = {"epochs": 2, "batch_size": 16, "random_state": 0}
STILL = {"augment": "none", "precision": "float32"}


@pytest.fixture(scope="module")
def encoder():
    X = make_shapes(40, image_size=16, random_state=0)[0]
    return quick(skssl.SimCLR, proj_layers=3).fit(X)


@pytest.fixture
def few(y):
    return label_fraction(y, 0.5, random_state=0)


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.filterwarnings("ignore::skssl.CollapseWarning")  # the images of the checks are single pixels
@parametrize_with_checks(
    [
        FineTuner(
            quick(skssl.SimCLR, image_shape=(1, 1, -1), epochs=0),
            backbone_lr=0.1,
            batch_size=32,
            epochs=12,
            schedule="cosine",
            augment="none",
            random_state=0,
        )
    ],
    expected_failed_checks=lambda estimator: {
        "check_sample_weight_equivalence_on_dense_data": "BatchNorm counts an image once, whatever its weight",
    },
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


# Labels


def test_weights_of_images_and_classes(encoder, X, y, few):
    """Balanced classes equal their sample weights; images of weight 0 or without a class are left out."""
    names, sizes = np.unique(few[few != -1], return_counts=True)
    assert len(set(sizes)) == 1
    rare = few.copy()
    rare[np.flatnonzero(few == names[0])[1:]] = -1
    weights = np.where(rare == names[0], sizes[0], 1.0)
    balanced = FineTuner(encoder, class_weight="balanced", **QUICK).fit(X, rare)
    given = FineTuner(encoder, **QUICK).fit(X, rare, sample_weight=np.where(rare == -1, 0, weights))
    by_name = FineTuner(encoder, class_weight=dict.fromkeys(names, 1) | {names[0]: sizes[0]}, **QUICK).fit(X, rare)
    np.testing.assert_allclose(balanced.predict_proba(X), given.predict_proba(X), rtol=1e-5)
    np.testing.assert_allclose(balanced.predict_proba(X), by_name.predict_proba(X), rtol=1e-5)
    plain = FineTuner(encoder, **QUICK).fit(X, rare)
    assert np.abs(balanced.predict_proba(X) - plain.predict_proba(X)).max() > 1e-3
    assert list(balanced.net_.module_.state_dict()) == list(plain.net_.module_.state_dict())
    with pytest.raises(ValueError, match=r"all samples of the class .* have the weight 0"):
        FineTuner(encoder, **QUICK).fit(X, rare, sample_weight=(rare != names[0]).astype(float))


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.2, 0.37, 1.0])
def test_label_fraction_keeps_equal_numbers_per_class(fraction):
    y = np.random.default_rng(0).permutation(np.arange(2000) % 5)
    kept = label_fraction(y, fraction, random_state=0)
    assert kept.dtype == y.dtype
    assert ((kept == y) | (kept == -1)).all()
    assert np.bincount(kept[kept >= 0]).tolist() == [round(400 * fraction)] * 5
    np.testing.assert_array_equal(kept, label_fraction(y, fraction, random_state=0))
    if fraction < 1:
        assert (kept != label_fraction(y, fraction, random_state=1)).any()


def test_small_class_keeps_all_its_labels():
    y = np.repeat([0, 1, 2], [80, 15, 5])
    assert np.bincount(label_fraction(y, 0.2, random_state=0) + 1).tolist() == [79, 8, 8, 5]
    np.testing.assert_array_equal(label_fraction(y, 1.0), y)


def test_label_fraction_of_any_labels():
    names = label_fraction(np.repeat(["a", "b"], 10), 0.5, random_state=0)
    assert names.dtype == object
    assert sorted(names, key=str) == [-1] * 10 + ["a"] * 5 + ["b"] * 5
    unsigned = label_fraction(np.repeat([7, 9], 10).astype(np.uint8), 0.5, random_state=0)
    assert sorted(unsigned.tolist()) == [-1] * 10 + [7] * 5 + [9] * 5
    known = np.repeat([-1, 4, 5], 10)  # unknown labels stay unknown and do not count
    assert np.unique(label_fraction(pd.Series(known), 0.5, random_state=0), return_counts=True)[1].tolist() == [
        20,
        5,
        5,
    ]


@pytest.mark.parametrize(
    ("fraction", "message"),
    [
        (0.05, r"fraction=0.05 leaves a class without a label: it keeps 2 of 40 labels, but there are 8 classes\."),
        (0.0, r"fraction must be a number above 0 and up to 1\. Got 0\.0\."),
        (1.5, r"Got 1\.5"),
        ("all", r"Got 'all'"),
    ],
)
def test_invalid_fractions_raise(fraction, message, y):
    with pytest.raises(ValueError, match=message):
        label_fraction(y, fraction)
    with pytest.raises(ValueError, match="leaves a class without a label"):
        label_fraction(np.full(5, -1), 0.5)
    with pytest.raises(ValueError, match=r"holds only -1 and 1, which are two classes, .* Replace -1 by 0\."):
        label_fraction(np.repeat([-1, 1], 10), 0.5)


# Fine-tuning


def test_fine_tuning_learns_and_leaves_the_encoder_unchanged(encoder, X, y):
    before, features, training = state(encoder.net_.module_), encoder.transform(X), encoder.encoder_.training
    tuner = FineTuner(encoder, epochs=30, batch_size=20, backbone_lr=0.1, head_lr=0.5, augment="none", random_state=0)
    tuner.fit(X, y)
    assert tuner.score(X, y) > 0.9
    assert tuner.history_["accuracy"].iloc[-1] > 0.9
    for name, value in encoder.net_.module_.state_dict().items():
        assert torch.equal(value, before[name]), name
    np.testing.assert_array_equal(encoder.transform(X), features)
    assert encoder.encoder_.training is training
    moved = [
        not torch.equal(p, q)
        for p, q in zip(tuner.classifier_[0].parameters(), encoder.encoder_.parameters(), strict=True)
    ]
    assert all(moved), "the whole encoder must be trained"


@pytest.mark.parametrize("weighted", [False, True])
def test_two_steps_match_plain_sgd(weighted, encoder, X, y):
    """Training mode, cross-entropy, SGD with momentum, separate rates for encoder and head, and a head of zeros."""
    rates, momentum = (0.05, 0.7), 0.9
    tuner = FineTuner(
        encoder, epochs=2, batch_size=40, backbone_lr=rates[0], head_lr=rates[1], schedule="constant", **STILL
    )
    weights = np.random.default_rng(0).random(40) if weighted else np.ones(40)
    tuner.fit(X, y, sample_weight=weights if weighted else None)
    net, head = copy.deepcopy(encoder.encoder_).train(), nn.Linear(128, 8)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    pixels = encoder.net_.augmentations[0].normalize(torch.from_numpy(X.copy()).permute(0, 3, 1, 2))
    target = torch.from_numpy(np.unique(y, return_inverse=True)[1])
    velocity = {}
    for _ in range(2):
        losses = F.cross_entropy(head(net(pixels)), target, reduction="none")
        loss = (losses * torch.from_numpy(weights / weights.mean())).mean().float()
        parameters = [*net.parameters(), *head.parameters()]
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
                velocity[i] = momentum * velocity.get(i, 0) + gradient
                parameter -= (rates[1] if i >= len(parameters) - 2 else rates[0]) * velocity[i]
    for found, expected in zip(tuner.classifier_.parameters(), parameters, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert tuner.history_["lr"].tolist() == [rates[0]] * 2


def test_only_labelled_images_are_trained_on(encoder, X, y, few, monkeypatch):
    seen = []
    step = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda self, batch: seen.append(batch) or step(self, batch))
    FineTuner(encoder, **QUICK, **STILL).fit(X, few)
    mean, std = (torch.tensor(of).view(3, 1, 1) for of in (Augmentation().mean, Augmentation().std))
    known = {X[i].tobytes(): few[i] for i in np.flatnonzero(few != -1)}
    classes = np.unique(y)
    assert len(seen) == 2, "24 labels, batches of 16"
    for batch in seen:
        images = ((batch.views[0] * std + mean) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        assert [known[image.tobytes()] for image in images] == classes[batch.labels].tolist()


def test_unlabelled_images_do_not_change_the_result(encoder, X, few):
    known = few != -1
    whole = FineTuner(encoder, **QUICK).fit(X, few)
    alone = FineTuner(encoder, **QUICK).fit(X[known], few[known])
    np.testing.assert_array_equal(whole.predict_proba(X), alone.predict_proba(X))
    assert whole.classes_.tolist() == alone.classes_.tolist() == sorted(set(few[known]))


def test_head_can_be_placed_on_any_layer(encoder, X, y):
    net = encoder.net_.module_
    for layer, width in [("backbone", 128), ("projector1", 256), ("projector", 128), ("conv2", 2048)]:
        tuner = FineTuner(encoder, layer=layer, **QUICK).fit(X, y)
        assert tuner.net_.module_.head.in_features == width
        assert tuner.predict_proba(X[:3]).shape == (3, 8)
    middle = FineTuner(encoder, layer="projector1", **QUICK).fit(X, y).classifier_[0]
    assert [type(part).__name__ for part in middle[1]] == ["Linear", "BatchNorm1d", "ReLU"]
    assert not torch.equal(middle[1][0].weight, net.projector[0].weight), "the kept projector layers are trained"


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [1] * 5), ((0.6, 0.8), [1, 1, 1, 0.2, 0.04]), ("epoch_cosine", [1, 0.9045, 0.6545, 0.3455, 0.0955])],
)
def test_both_rates_follow_the_schedule(schedule, expected, encoder, X, y, monkeypatch):
    rates = []
    after = Trainer.set_learning_rate

    def watch(self, *where):
        after(self, *where)
        rates.append([group["lr"] for group in self.optimizer_.param_groups])

    monkeypatch.setattr(Trainer, "set_learning_rate", watch)
    FineTuner(encoder, epochs=5, batch_size=40, backbone_lr=0.1, head_lr=2.0, schedule=schedule).fit(X, y)
    np.testing.assert_allclose(rates, np.outer(expected, [0.1, 2.0]), rtol=1e-3)


def test_step_schedules_match_the_papers():
    lookup = [0.1] * 5 + [0.02] * 20 + [0.004] * 20 + [0.0008] * 20  # the 65 epochs of RotationDecoupling
    schedule = recipes.FINE_TUNING["RotationDecoupling, Tiny-ImageNet, 20 %"]["params"]["schedule"]
    assert [0.1 * schedule_factor(schedule, epoch, epochs=65) for epoch in range(65)] == pytest.approx(lookup)
    swav = [0.02] * 12 + [0.004] * 4 + [0.0008] * 4
    assert [0.02 * schedule_factor((0.6, 0.8), epoch, epochs=20) for epoch in range(20)] == pytest.approx(swav)


def test_optimizer_has_a_learning_rate_for_each_submodule():
    net = nn.ModuleDict({"encoder": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    made = make_optimizer("adamw", net, lr=0.1, momentum=0.9, weight_decay=0.3, rates={"head": 4.0})
    found = {(group["lr"], group["peak"], group["weight_decay"]) for group in made.param_groups}
    assert found == {(0.1, 0.1, 0.3), (0.1, 0.1, 0.0), (4.0, 4.0, 0.3), (4.0, 4.0, 0.0)}


@pytest.mark.parametrize("recipe", recipes.FINE_TUNING.values(), ids=recipes.FINE_TUNING)
def test_fine_tuning_recipes_run(recipe, X, y):
    assert set(recipe) == {"method", "origin", "params", "scores", "source"}
    small = quick(skssl.SimCLR, proj_layers=3, epochs=0)
    tuner = recipes.make(recipe, encoder=small, epochs=1, batch_size=16, random_state=0).fit(X, y)
    assert np.isfinite(tuner.history_["loss"]).all()


def test_views_are_normalised_as_in_the_encoders_training(X, y):
    own = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)}
    encoder = quick(skssl.SimCLR, augment=Augmentation(**own)).fit(X)
    for augment in (None, "rotnet", Augmentation(crop_scale=(0.5, 1.0))):
        (view,) = FineTuner(encoder, augment=augment, **QUICK).fit(X, y).net_.augmentations
        assert (view.mean, view.std) == (own["mean"], own["std"])
    assert view.crop_scale == (0.5, 1.0)
    default = FineTuner(encoder, **QUICK).fit(X, y).net_.augmentations[0]
    assert default.get_params() == Augmentation(jitter=0.0, gray=0.0, **own).get_params()


def test_fine_tuning_uses_the_encoders_image_size(X, y):
    wide = nn.Sequential(nn.Conv2d(3, 4, 20), nn.AdaptiveAvgPool2d(1), nn.Flatten())  # too wide for 16 pixels
    encoder = quick(skssl.SimCLR, backbone=wide, augment=Augmentation(size=24), epochs=0).fit(X)
    for augment, size in ((None, 24), ("rotnet", 24), (Augmentation(size=20), 20)):
        tuner = FineTuner(encoder, augment=augment, **{**QUICK, "epochs": 1}).fit(X, y)
        assert tuner.net_.augmentations[0].size == size
        assert tuner.predict(X[:3]).shape == (3,)


def test_same_seed_gives_same_bits_and_global_state_is_unchanged(encoder, X, few):
    before = torch.get_rng_state()
    first, second = (FineTuner(encoder, **QUICK).fit(X, few).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    other = FineTuner(encoder, **{**QUICK, "random_state": 1}).fit(X, few).predict_proba(X)
    assert (first != other).any()
    np.testing.assert_allclose(first.sum(1), 1, rtol=1e-6)


def test_clone_pickle_and_search(encoder, X, y):
    tuner = FineTuner(FrozenEstimator(encoder), **QUICK).fit(X, y)
    loaded = pickle.loads(pickle.dumps(tuner))
    np.testing.assert_array_equal(loaded.predict_proba(X), tuner.predict_proba(X))
    pd.testing.assert_frame_equal(loaded.history_, tuner.history_)
    copied = clone(tuner)
    with pytest.raises(NotFittedError):
        copied.predict(X)
    np.testing.assert_array_equal(copied.fit(X, y).predict_proba(X), tuner.predict_proba(X))
    search = GridSearchCV(copied, {"head_lr": [0.1, 1.0]}, cv=2).fit(X, y)
    assert search.best_estimator_.encoder.estimator is encoder


def test_top_k_accuracy_of_classes_named_by_strings(encoder, X, y):
    tuner = FineTuner(FrozenEstimator(encoder), **QUICK)
    scores = cross_val_score(tuner, X, y, scoring="top_k_accuracy", cv=2)  # k = 2
    for score, (train, test) in zip(scores, StratifiedKFold(2).split(X, y), strict=True):
        tuner.fit(X[train], y[train])
        best = np.argsort(tuner.predict_proba(X[test]))[:, -2:]
        assert score == (tuner.classes_[best] == y[test, None]).any(1).mean()
    best = np.argsort(tuner.predict_proba(X[:5]))[:, -5:]
    some = top_k_accuracy_score(y[:5], tuner.predict_proba(X[:5]), k=5, labels=tuner.classes_)
    assert some == (tuner.classes_[best] == y[:5, None]).any(1).mean()


def test_score_ignores_unknown_labels(encoder, X, y):
    names = np.array(["cat", "dog"])[np.arange(40) % 2]
    tuner, few = FineTuner(encoder, **QUICK).fit(X, names), label_fraction(names, 0.5, random_state=0)
    known = few != -1
    right = tuner.predict(X) == names
    assert tuner.score(X, names) == right.mean()
    assert tuner.score(X, few) == tuner.score(X, few.tolist()) == right[known].mean()
    weight = np.arange(40.0)
    assert tuner.score(X, few, weight) == pytest.approx(np.average(right[known], weights=weight[known]))
    with pytest.raises(ValueError, match="y contains the class 'eel', but FineTuner was fitted on 2 classes"):
        tuner.score(X, np.where(np.arange(40) == 7, "eel", names))
    with pytest.raises(ValueError, match="every label is -1"):
        tuner.score(X, np.full(40, -1))


def test_labels_that_are_minus_one_or_one_are_two_classes(encoder, X, y):
    """-1 is a class if all labels are -1 or 1, as for the probes; otherwise it is unknown."""
    binary = np.where(np.arange(40) % 2, 1, -1)
    tuner, same = FineTuner(encoder, **QUICK).fit(X, binary), FineTuner(encoder, **QUICK).fit(X, binary > 0)
    assert tuner.classes_.tolist() == [-1, 1]
    assert set(tuner.predict(X)) <= {-1, 1}
    np.testing.assert_array_equal(tuner.predict_proba(X), same.predict_proba(X))
    assert tuner.score(X, binary) == same.score(X, binary > 0)
    assert tuner.score(X, np.full(40, -1)) == (tuner.predict(X) == -1).mean()
    student = Distiller(tuner, encoder, alpha=0.5, **QUICK).fit(X, binary)
    assert student.classes_.tolist() == [-1, 1]
    few = np.where(np.arange(40) % 4, -1, 1)  # the teacher decides what -1 is
    np.testing.assert_array_equal(student._class_indices(few), (few + 1) // 2)
    teacher = FineTuner(encoder, **QUICK).fit(X, binary > 0)
    np.testing.assert_array_equal(Distiller(teacher, encoder, **QUICK).fit(X)._class_indices(few), few)


def test_unfitted_encoder_is_fitted_to_all_images(X, few):
    unfitted = quick(skssl.SimCLR)
    tuner = FineTuner(unfitted, **QUICK).fit(X, few)
    fitted = FineTuner(clone(unfitted).fit(X), **QUICK).fit(X, few)
    np.testing.assert_array_equal(tuner.predict_proba(X), fitted.predict_proba(X))
    with pytest.raises(NotFittedError):
        unfitted.transform(X)


def test_only_labelled_items_of_a_data_set_are_read(encoder, X, few):
    class Counting(torch.utils.data.Dataset):
        read: ClassVar[set] = set()

        def __len__(self):
            return 40

        def __getitem__(self, i):
            self.read.add(i)
            return X[i], "a label that nobody reads"

    tuner = FineTuner(encoder, **QUICK).fit(Counting(), few)
    assert len(Counting.read) > 10
    assert {0, *np.flatnonzero(few != -1)} >= Counting.read, "the first image is read for its shape"
    np.testing.assert_array_equal(
        tuner.predict_proba(Counting()), FineTuner(encoder, **QUICK).fit(X, few).predict_proba(X)
    )


ENCODERS = {
    "fitted": lambda X: quick(skssl.SimCLR).fit(X),
    "unfitted": lambda X: quick(skssl.SimCLR),
    "module": lambda X: ConvNet(),
}


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_fine_tuning_decodes_files_once_and_accepts_a_stream(encoder, png_files, X, y, decoded_names):
    torch.manual_seed(0)
    encoder = encoder(X)
    expected = FineTuner(encoder, **QUICK).fit(X, y)
    tuner = FineTuner(encoder, **QUICK).fit(png_files, y)
    assert len(decoded_names) == len(set(decoded_names)) == 40
    streamed = FineTuner(encoder, **QUICK).fit(iter(X), y)
    for found in (tuner, streamed):
        np.testing.assert_array_equal(found.predict_proba(X), expected.predict_proba(X))


def test_modules_tables_and_gray_images(X, y):
    net = ConvNet().requires_grad_(False)
    before = state(net)
    tuner = FineTuner(net, **QUICK).fit(X, y)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all((a != b).any() for a, b in zip(tuner.classifier_[0].parameters(), net.parameters(), strict=True))
    table = X.reshape(len(X), -1)
    rows = quick(skssl.SimCLR, image_shape=(16, 16, 3)).fit(table)
    np.testing.assert_array_equal(
        FineTuner(rows, **QUICK).fit(table, y).predict_proba(table),
        FineTuner(quick(skssl.SimCLR).fit(X), **QUICK).fit(X, y).predict_proba(X),
    )
    gray = X.mean(3)
    tuner = FineTuner(quick(skssl.SimCLR).fit(gray), **QUICK).fit(gray, y)
    assert tuner.n_features_in_ == 256
    assert tuner.predict(gray[:5]).shape == (5,)


def test_labels_of_any_kind(encoder, X):
    for classes in ([3, 7], ["cat", "dog"], [True, False], [0.0, 1.0]):
        y = np.array(classes)[np.arange(40) % 2]
        tuner = FineTuner(encoder, **QUICK).fit(X, y)
        assert set(tuner.classes_) == set(classes)
        assert set(tuner.predict(X)) <= set(classes)
        few = label_fraction(y, 0.5, random_state=0)
        assert FineTuner(encoder, **QUICK).fit(X, few.tolist()).classes_.tolist() == tuner.classes_.tolist()


@pytest.mark.parametrize(
    ("params", "labels", "message"),
    [
        ({}, np.zeros(39), r"inconsistent numbers of samples: \[40, 39\]"),
        ({}, np.zeros(40), r"images of at least 2 classes, but y has only one class, 0\.0"),
        ({}, np.r_[np.full(39, -1), 3], "only one class, 3"),
        ({}, np.full(40, -1), r"every label in y is -1 \(unknown\)"),
        ({}, None, "requires y to be passed, but the target y is None"),
        ({}, np.linspace(0, 1, 40), "Unknown label type: continuous"),
        ({"schedule": "cosinus"}, "y", "Unknown schedule 'cosinus', did you mean 'cosine'"),
        ({"schedule": (12, 16)}, "y", r"a name, a function, or fractions of the training, .* Got \(12, 16\)"),
        ({"optimizer": "sdg"}, "y", "Unknown optimizer 'sdg'"),
        ({"backbone_lr": -1}, "y", "'backbone_lr' parameter of FineTuner"),
        ({"epochs": 0}, "y", "'epochs' parameter of FineTuner"),
        ({"layer": "projector4"}, "y", "Unknown layer 'projector4', did you mean 'projector"),
        ({"augment": "simcrl"}, "y", "Unknown augment 'simcrl'"),
    ],
)
def test_invalid_input_raises(params, labels, message, encoder, X, y):
    with pytest.raises(ValueError, match=message):
        FineTuner(encoder, **params).fit(X, y if isinstance(labels, str) else labels)


def test_images_unlike_the_training_images_raise(encoder, X, y):
    with pytest.raises(TypeError, match="images in X are floats, but SimCLR was fitted on uint8"):
        FineTuner(encoder, **QUICK).fit(X / 255, y)
    tuner = FineTuner(encoder, **QUICK).fit(X, y)
    with pytest.raises(ValueError, match=r"shape \(c, h, w\) = \(3, 8, 16\)"):
        tuner.predict(X[:, :8])
    with pytest.raises(TypeError, match="encoder must be an estimator of skssl"):
        FineTuner("resnet18").fit(X, y)


def test_divergence_names_the_learning_rates(encoder, X, y):
    with pytest.raises(FloatingPointError, match=r"below lr=0.01 or 1e\+30"):
        FineTuner(encoder, **{**QUICK, "epochs": 4}, head_lr=1e30, precision="float32").fit(X, y)
