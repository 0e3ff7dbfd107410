"""Tests of every method: scikit-learn's conventions, kinds of images, history, determinism, documentation."""

import pickle
import re

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import QUICK, quick, width
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch.callbacks import Callback, EarlyStopping

import skssl
from skssl import Augmentation, CollapseWarning, Rotation
from skssl.backbones import ViT
from skssl.images import as_images
from skssl.methods.settings import Settings
from skssl.training.collapse import check_collapse

# Every check of scikit-learn's that an estimator is expected to fail, with the reason.
EXPECTED_FAILURES: dict[str, str] = {}
ROUNDED = {"check_methods_subset_invariance": "products of tokens are rounded differently for other numbers of rows"}
COLOUR = {skssl.Colorization}  # what needs three channels; the checks' images have as many as they like


@pytest.mark.filterwarnings("ignore::skssl.CollapseWarning")  # the images of the checks are single pixels
@parametrize_with_checks(
    [quick(method, image_shape=(1, 1, -1)) for method in QUICK if method not in COLOUR],
    expected_failed_checks=lambda estimator: ROUNDED if isinstance(estimator.backbone, ViT) else EXPECTED_FAILURES,
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_history_has_one_finite_row_for_each_epoch(method, X, y):
    estimator = quick(method, epochs=2).fit(X, y)
    history = estimator.history_
    assert history["epoch"].tolist() == [1, 2]
    assert {"loss", "lr", "images_per_second", "embedding_std", "effective_rank"} < set(history)
    own = set(history) - {"epoch", "loss", "lr", "images_per_second", "embedding_std", "effective_rank"}
    assert own, "the losses are recorded by name"
    assert np.isfinite(history.to_numpy(float)).all()
    assert (history["effective_rank"] >= 1).all()


def test_transform_returns_the_encoders_features(method, X, y):
    estimator = quick(method, precision="float32")
    features = estimator.fit_transform(X, y)
    assert features.shape == (40, width(method))
    assert features.dtype == np.float32
    views = torch.from_numpy(X.copy()).permute(0, 3, 1, 2)
    normalised = estimator.net_.augmentations[0].normalize(views)
    assert not estimator.encoder_.training
    with torch.no_grad():
        expected = estimator.encoder_(normalised).numpy()
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(estimator.transform(X[:1]), features[:1], rtol=1e-4, atol=1e-5)
    assert estimator.get_feature_names_out()[:2].tolist() == [f"{method.__name__.lower()}{i}" for i in (0, 1)]


def test_transform_computes_in_the_precision_of_the_training(X):
    exact = quick(skssl.SimCLR, precision="float32").fit(X)
    half = quick(skssl.SimCLR, precision="bfloat16", epochs=0).fit(X)
    half.net_.module_.load_state_dict(exact.net_.module_.state_dict())
    features, rounded = exact.transform(X), half.transform(X)
    error = np.linalg.norm(rounded - features, axis=1) / np.linalg.norm(features, axis=1)
    assert 0 < error.max() < 0.02
    assert rounded.dtype == np.float32
    np.testing.assert_allclose(half.transform(X[:5]), rounded[:5], rtol=0.01, atol=1e-3)


def test_same_seed_gives_same_bits_and_global_state_is_unchanged(method, X, y):
    before, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = quick(method, aux="rotation").fit(X, y), quick(method, aux="rotation").fit(X, y)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpys)  # noqa: NPY002
    for a, b in zip(first.encoder_.state_dict().values(), second.encoder_.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert np.array_equal(first.transform(X), second.transform(X))
    assert not np.array_equal(first.transform(X), quick(method, random_state=1).fit(X, y).transform(X))


def test_partial_fit_for_all_epochs_equals_fit(method, X, y):
    whole = quick(method, epochs=3).fit(X, y)
    parts = quick(method, epochs=3)
    for _ in range(3):
        parts = pickle.loads(pickle.dumps(parts.partial_fit(X, y)))
    assert np.array_equal(whole.transform(X), parts.transform(X))
    columns = ["epoch", "loss", "lr"]
    pd.testing.assert_frame_equal(whole.history_[columns], parts.history_[columns])
    assert parts.partial_fit(X, y).history_["epoch"].tolist() == [1, 2, 3, 4]


def test_images_with_one_three_and_more_channels(method):
    draw = np.random.default_rng(0)
    for shape in [(24, 12, 12), (24, 12, 12, 3), (24, 5, 12, 12)]:
        pixels = draw.integers(0, 256, shape, dtype=np.uint8)
        if method in COLOUR and shape[-1] != 3:
            with pytest.raises(ValueError, match=r"expected X with 3 channels \(red, green and blue\), got [15]"):
                quick(method).fit(pixels)
            continue
        fitted = quick(method, aux="rotation").fit(pixels, np.arange(24) % 3)
        assert fitted.transform(pixels).shape == (24, width(method))


def test_load_digits():
    digits = load_digits().data[:64]
    estimator = quick(skssl.SimCLR).fit(digits)
    assert estimator.n_features_in_ == 64
    assert estimator.transform(digits).shape == (64, 128)
    assert estimator.encoder_.features[0].in_channels == 1


def test_clone_pickle_and_joblib(method, X, y, tmp_path):
    estimator = quick(method, augment=Augmentation(crop_scale=(0.5, 1.0)), aux=[Rotation(label_noise=0.1)])
    copied = clone(estimator)
    assert copied.get_params()["augment__crop_scale"] == (0.5, 1.0)
    assert copied.set_params(augment__crop_scale=(0.4, 1.0)).augment.crop_scale == (0.4, 1.0)
    assert estimator.augment.crop_scale == (0.5, 1.0)
    estimator.fit(X, y)
    joblib.dump(estimator, tmp_path / "estimator.joblib")
    loaded = joblib.load(tmp_path / "estimator.joblib")
    assert np.array_equal(loaded.transform(X), estimator.transform(X))
    assert loaded.net_.module is loaded.net_.module_, "the network is not duplicated"
    pd.testing.assert_frame_equal(loaded.history_, estimator.history_)
    assert repr(clone(estimator)) == repr(estimator)


def test_training_changes_the_networks_parameters(method, X, y):
    """Training changes every parameter."""
    phases = {"epochs": 2, "pretrain_epochs": 1} if method is skssl.SpotArtifacts else {}
    estimator = quick(method, aux="rotation", **phases).fit(X, y)
    untrained = quick(method, aux="rotation", lr=1e-30, weight_decay=0.0, **phases).fit(X, y)
    moved = dict(estimator.net_.module_.named_parameters())
    for name, start in untrained.net_.module_.named_parameters():
        assert not torch.equal(start, moved[name]), f"{name} did not move"


def test_rotation_as_auxiliary_task_of_any_method(method, X, y):
    history = (
        quick(method, aux=Rotation(angles=(0, 180), head="backbone"), aux_weight={"rotation": 2.0}).fit(X, y).history_
    )
    named = history.drop(columns=["epoch", "loss", "lr", "images_per_second", "embedding_std", "effective_rank"])
    losses = named.drop(columns=[name for name in named if name.endswith(("accuracy", "nmi"))])
    if method is skssl.RotNet:
        return
    own = losses.drop(columns="rotation").sum(axis=1)
    np.testing.assert_allclose(history["loss"], own + 2 * losses["rotation"], rtol=1e-4)


def test_compile_falls_back_with_a_warning(X, monkeypatch):
    def broken(module, **options):
        def call(batch):
            raise RuntimeError("no compiler found")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.warns(UserWarning, match="compile=True failed.*no compiler found"):
        compiled = quick(skssl.SimCLR, compile=True).fit(X)
    assert np.array_equal(compiled.transform(X), quick(skssl.SimCLR).fit(X).transform(X))


def test_numpy_scalars_are_accepted(X):
    found = quick(
        skssl.DINO, batch_size=np.int64(16), epochs=np.int32(2), freeze_last_layer=np.int64(1), lr=np.float32(1e-3)
    )
    assert len(found.fit(X).history_) == 2
    assert len(quick(skssl.DirectPred, freq=np.int64(2)).fit(X).history_) == 1


def test_zero_epochs_leave_the_encoder_untrained(X):
    untrained = quick(skssl.SimCLR, epochs=0).fit(X)
    assert untrained.history_.empty
    assert untrained.transform(X).std() > 0
    assert len(untrained.partial_fit(X).history_) == 1


def test_optimizers_and_schedules(X):
    for optimizer in ("sgd", "lars", "adamw", torch.optim.RMSprop):
        fitted = quick(skssl.SimCLR, optimizer=optimizer, lr=0.01).fit(X)
        assert np.isfinite(fitted.history_["loss"]).all()
    flat = quick(skssl.SimCLR, schedule="constant", warmup_epochs=0, epochs=3, lr=0.05).fit(X).history_
    assert flat["lr"].tolist() == [0.05] * 3
    default = quick(skssl.SimCLR, batch_size=32, epochs=1)
    assert default.setting("lr") == pytest.approx(0.4 * 32 / 256)


def test_skorch_callbacks_are_called(X):
    class Count(Callback):
        def on_train_begin(self, net, **kwargs):
            self.batches, self.epochs = 0, 0

        def on_batch_end(self, net, batch, **kwargs):
            self.batches += 1
            assert len(batch.views) == 2

        def on_epoch_end(self, net, **kwargs):
            self.epochs += 1
            net.history.record("batches_seen", self.batches)

    history = quick(skssl.SimCLR, epochs=2, callbacks=[Count()]).fit(X).history_
    assert history["batches_seen"].tolist() == [2, 4]


def test_early_stopping(X):
    stopping = EarlyStopping(monitor="loss", patience=2, threshold=100.0)
    method = quick(skssl.SimCLR, epochs=5, callbacks=[stopping]).fit(X)
    assert len(method.history_) == 3
    assert method.transform(X).shape == (40, 128)


def test_verbose_shows_a_progress_bar_for_each_epoch(X, capsys):
    quick(skssl.SimCLR, epochs=2, verbose=1).fit(X)
    shown = capsys.readouterr().err
    assert "Epoch 2/2: 100%" in shown
    assert "images/s" in shown
    assert "loss=" in shown
    quick(skssl.SimCLR).fit(X)
    assert capsys.readouterr().err == ""


def test_last_short_batch_is_dropped_unless_it_is_the_only_one(X):
    assert len(quick(skssl.SimCLR, batch_size=30).fit(X).net_.get_iterator((as_images(X), None))) == 1
    assert quick(skssl.SimCLR, batch_size=500).fit(X[:2]).transform(X).shape == (40, 128)


def test_collapse_warns(X):
    alone = {"predictor": False, "ema_momentum": 0.0, "ema_schedule": "constant"}
    with pytest.warns(CollapseWarning, match=r"collapsed in epoch \d+.*Try") as warned:
        fitted = quick(skssl.BYOL, lr=0.5, epochs=20, batch_size=40, schedule="constant", **alone).fit(X)
    history = fitted.history_
    assert history["loss"].iloc[-1] < history["loss"].iloc[0] / 10, "the loss says that all is well"
    assert history["embedding_std"].iloc[0] > 0.2
    assert history["embedding_std"].iloc[-1] < 0.1
    collapses = (history["embedding_std"] < 0.1).astype(int).diff() == 1
    assert len(warned) == collapses.sum() < (history["embedding_std"] < 0.1).sum(), "not in every epoch"


def test_collapse_into_a_few_dimensions_warns():
    z = torch.randn(40, 32, generator=torch.Generator().manual_seed(0))
    check_collapse(z, epoch=1)  # no warning: they use all 32 dimensions
    z[:, 3:] *= 1e-3
    with pytest.warns(CollapseWarning, match=r"effective rank is 3\.\d of 32"):
        measures, collapsed = check_collapse(z, epoch=1)
    assert collapsed
    assert measures["embedding_std"] > 0.1


def test_divergence_raises(X):
    with pytest.raises(FloatingPointError, match=r"diverged in epoch \d+: .* below lr=1e\+30"):
        quick(skssl.RotNet, lr=1e30, epochs=4, precision="float32").fit(X)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"backbone": "convent"}, "Unknown backbone 'convent', did you mean 'convnet'"),
        ({"augment": "simlcr"}, "Unknown augment 'simlcr', did you mean 'simclr'"),
        ({"augment": ["simclr"]}, "'augment' parameter must be .* Got 'simclr'"),
        ({"optimizer": "adam"}, "Unknown optimizer 'adam', did you mean 'adamw'"),
        ({"schedule": "cos"}, "Unknown schedule 'cos'"),
        ({"precision": "float23"}, "Unknown precision 'float23', did you mean 'float32'"),
        ({"aux": "rotate"}, "Unknown aux 'rotate', did you mean 'rotation'"),
        ({"aux": ["rotation", Rotation()]}, "contain each task once. Got 'rotation' twice"),
        ({"aux": 3}, "aux must be a task"),
        ({"aux": skssl.Jigsaw()}, "aux must be a task"),
        ({"aux": Rotation(angles=(0, 360))}, "'angles' parameter of Rotation must be two or more different angles"),
        ({"aux": Rotation(angles=(0, "90"))}, "'angles' parameter of Rotation must be .* Got \\(0, '90'\\)"),
        ({"aux": Rotation(shared="layer1")}, "Unknown shared 'layer1'.* Known names: 'conv1', 'conv2'"),
        (
            {"aux": Rotation(label_noise=2.0)},
            "'label_noise' parameter of Rotation must be a float in the range",
        ),
        ({"aux": "rotation", "aux_weight": {"rotatoin": 1.0}}, "Unknown aux_weight 'rotatoin', did you mean"),
        ({"aux_weight": -1.0}, "'aux_weight' parameter of SimCLR must be .* Got -1.0 instead"),
        (
            {"epochs": -1},
            r"'epochs' parameter of SimCLR must be an int in the range \[0, inf\). Got -1 instead",
        ),
        ({"batch_size": 1}, r"'batch_size' parameter of SimCLR must be an int in the range \[2, inf\)"),
        ({"temperature": 0.0}, "'temperature' parameter of SimCLR must be a float in the range"),
        ({"lr": -0.1}, "'lr' parameter of SimCLR must be a float in the range"),
        ({"device": "gpu"}, "device must be .* Got 'gpu'"),
        ({"augment": Augmentation(flip=1.5)}, "'flip' parameter of Augmentation must be"),
        ({"image_shape": (8, 8, 3)}, "image_shape"),
    ],
)
def test_invalid_parameters_raise_before_training(params, message, X):
    estimator = quick(skssl.SimCLR, **params)
    with pytest.raises((ValueError, TypeError), match=message):
        estimator.fit(X)


def test_rotation_requires_square_images():
    oblong = np.random.default_rng(0).integers(0, 256, (20, 12, 16, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"square"):
        quick(skssl.SimCLR, aux="rotation").fit(oblong)
    with pytest.raises(ValueError, match=r"square"):
        quick(skssl.RotNet).fit(oblong)
    assert quick(skssl.RotNet, angles=(0, 180)).fit(oblong).transform(oblong).shape == (20, 128)
    assert quick(skssl.SimCLR).fit(oblong).transform(oblong).shape == (20, 128)


def test_epochs_of_one_step_train_at_the_peak_learning_rate(X):
    """The warm-up, in which the learning rate would be 0, does not take whole epochs of one batch."""
    estimator = quick(skssl.SimCLR, batch_size=40)
    for _ in range(3):
        estimator.partial_fit(X)
    assert (estimator.history_["lr"] == estimator.net_.optimizer_.param_groups[0]["peak"]).all()


def test_transform_encodes_at_the_size_of_the_views(X):
    estimator = quick(skssl.SimCLR, augment=Augmentation(size=24), precision="float32").fit(X)
    larger = torch.nn.functional.interpolate(
        torch.from_numpy(X.copy()).permute(0, 3, 1, 2) / 255, (24, 24), mode="bilinear", antialias=True
    )
    with torch.no_grad():
        expected = estimator.encoder_(estimator.net_.augmentations[0].normalize(larger))
    np.testing.assert_allclose(estimator.transform(X), expected, rtol=1e-4, atol=1e-5)
    stem = quick(skssl.SimCLR, backbone="resnet18", augment=Augmentation(size=72), epochs=0).fit(X).encoder_.conv1
    assert stem.kernel_size == (7, 7), "the stem for large images"


def test_transform_refuses_images_unlike_those_of_fit(X):
    estimator = quick(skssl.SimCLR)
    with pytest.raises(NotFittedError):
        estimator.transform(X)
    estimator.fit(X)
    with pytest.raises(ValueError, match=r"\(1, 16, 16\)|\(3, 16, 16\)"):
        estimator.transform(X[..., 0])


def test_user_modules_are_not_modified(X):
    given = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
    before = {name: value.clone() for name, value in given.state_dict().items()}
    estimator = quick(skssl.SimCLR, backbone=given).fit(X)
    assert all(torch.equal(given.state_dict()[name], value) for name, value in before.items())
    assert estimator.transform(X).shape == (40, 8)
    assert estimator.get_params()["backbone"] is given


def test_docstring_lists_own_and_shared_parameters(method):
    text = method.__doc__
    assert text.index("Parameters\n") < text.index("Other Parameters\n") < text.index("References\n")
    for name in method(**{}).get_params():
        assert f"\n{name} : " in text, f"{method.__name__} does not document {name}"


def test_documented_defaults_match_the_constructor(method):
    found = re.findall(r"^(\w+) : .*default=(.*)$", method.__doc__, flags=re.MULTILINE)
    assert {name: eval(default) for name, default in found} == method().get_params(deep=False)


def test_settings_refuse_unknown_and_missing_names():
    for wrong in ({"learning_rate": 0.1}, {"lr": 0.1}):
        with pytest.raises(TypeError, match=r"unexpected keyword|missing"):
            Settings(**wrong)
