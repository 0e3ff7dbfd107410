"""Distillation: the loss against a literal version, accepted teachers, and rejected input."""

import pickle

import numpy as np
import pytest
import torch
from conftest import quick
from interruptions import OFTEN, Death, DiesAt
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from torch import nn

import skssl
from skssl import Augmentation, Distiller, FineTuner, label_fraction
from skssl.backbones import ConvNet
from skssl.datasets import make_shapes

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


@pytest.fixture
def teacher(encoder, X, few):
    return FineTuner(encoder, **QUICK, backbone_lr=0.1).fit(X, few)


def test_student_learns_from_the_teacher_without_labels(teacher, encoder, X, y):
    before = state(teacher.classifier_)
    student = Distiller(teacher, encoder, epochs=30, batch_size=20, augment="none", random_state=0).fit(X)
    history = student.history_
    assert {"distillation", "agreement"} < set(history)
    assert "cross_entropy" not in history
    entropy = -(teacher.predict_proba(X) * np.log(teacher.predict_proba(X))).sum(1).mean()  # the minimum of the loss
    assert entropy - 0.01 < history["distillation"].iloc[-1] < entropy + 0.1
    assert (student.predict(X) == teacher.predict(X)).mean() > 0.8
    assert student.classes_ is teacher.classes_
    for name, value in teacher.classifier_.state_dict().items():
        assert torch.equal(value, before[name]), name
    frozen = student.net_.module_.teacher
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    for name, value in teacher.classifier_.state_dict().items():
        assert torch.equal(frozen.module.state_dict()[name], value), name


def test_resume_within_an_epoch_keeps_the_teacher_in_evaluation_mode(teacher, encoder, X, tmp_path):
    def make(**more):
        return Distiller(teacher, encoder, epochs=1, batch_size=10, random_state=0, **more)

    with pytest.raises(Death):
        make(checkpoint=tmp_path, checkpoint_every=OFTEN, callbacks=[DiesAt(2)]).fit(X)
    np.testing.assert_array_equal(make(checkpoint=tmp_path).fit(X).predict_proba(X), make().fit(X).predict_proba(X))


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_loss_is_equation_3_of_simclrv2(alpha, teacher, encoder, X, y, few):
    """A loop over images in float64, for a student that has taken two steps."""
    temperature = 0.5
    params = {"batch_size": 40, "temperature": temperature, "alpha": alpha, "backbone_lr": 0.0, "schedule": "constant"}
    student = Distiller(teacher, encoder, epochs=2, head_lr=1.0, random_state=0, **params, **STILL).fit(X, few)
    net = student.net_.module_
    pixels = encoder.net_.augmentations[0].normalize(torch.from_numpy(X.copy()).permute(0, 3, 1, 2))
    batch = skssl.training.objective.Batch(pixels, [pixels], torch.arange(40), student._class_indices(few))
    net.train()
    net.teacher.eval()
    found = {name: value.item() for name, value in net(batch).items()}
    with torch.no_grad():
        outputs = net.head(net.encoder(pixels)).double().numpy()
        taught = teacher.classifier_(pixels).double().numpy()
    distilled = labelled = 0.0
    for i in range(40):
        p_teacher = np.exp(taught[i] / temperature) / np.exp(taught[i] / temperature).sum()
        p_student = np.exp(outputs[i] / temperature) / np.exp(outputs[i] / temperature).sum()
        distilled -= sum(p_teacher[c] * np.log(p_student[c]) for c in range(8))
        if few[i] != -1:
            c = list(teacher.classes_).index(few[i])
            labelled -= np.log(np.exp(outputs[i][c]) / np.exp(outputs[i]).sum())
    assert found["distillation"] == pytest.approx(alpha * distilled / 40, rel=1e-4)
    assert found["loss"] == pytest.approx((alpha * distilled + (1 - alpha) * labelled) / 40, rel=1e-4)
    assert ("cross_entropy" in found) == (alpha < 1)


def test_teacher_receives_images_in_its_own_normalisation(teacher, X):
    other = quick(skssl.SimCLR, epochs=0, augment=Augmentation(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))).fit(X)
    student = Distiller(teacher, other, **QUICK).fit(X)
    pixels = torch.from_numpy(X.copy()).permute(0, 3, 1, 2)
    with torch.no_grad():
        found = student.net_.module_.teacher.eval()(student.net_.augmentations[0].normalize(pixels))
        expected = teacher.classifier_(teacher.net_.augmentations[0].normalize(pixels))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_teachers_of_any_kind(teacher, encoder, X, y, few):
    fresh = quick(skssl.SimCLR, epochs=0)
    student = Distiller(teacher, fresh, **QUICK).fit(X)
    frozen = Distiller(FrozenEstimator(teacher), fresh, **QUICK).fit(X)
    np.testing.assert_array_equal(student.predict_proba(X), frozen.predict_proba(X))
    np.testing.assert_array_equal(clone(frozen).fit(X).predict_proba(X), frozen.predict_proba(X))
    whole = Distiller(FineTuner(encoder, **QUICK), fresh, **QUICK).fit(X, few)
    tuned = FineTuner(clone(encoder), **QUICK).fit(X, few)
    assert whole.classes_.tolist() == tuned.classes_.tolist()
    again = Distiller(student, fresh, **QUICK).fit(X)
    assert again.classes_ is student.classes_
    module = Distiller(nn.Sequential(ConvNet(), nn.Linear(128, 3)), fresh, **QUICK).fit(X)
    assert module.classes_.tolist() == [0, 1, 2]
    loaded = pickle.loads(pickle.dumps(module))
    np.testing.assert_array_equal(loaded.predict_proba(X), module.predict_proba(X))


def test_invalid_input_raises(teacher, encoder, X, y):
    with pytest.raises(TypeError, match=r"teacher must be a FineTuner or a Distiller, .* Got SimCLR"):
        Distiller(encoder, encoder).fit(X)
    with pytest.raises(ValueError, match=r"the classes \['house'\], which the teacher does not know"):
        Distiller(teacher, encoder, alpha=0.5).fit(X, np.where(np.arange(40) == 3, "house", y))
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[40, 39\]"):
        Distiller(teacher, encoder).fit(X, y[:39])
    for unlabelled in (None, np.full(40, -1)):
        with pytest.raises(ValueError, match=r"alpha=0\.5 uses labels in the loss, but no image has a label"):
            Distiller(teacher, encoder, alpha=0.5).fit(X, unlabelled)
    with pytest.raises(ValueError, match="requires y to be passed"):
        Distiller(FineTuner(encoder), encoder).fit(X)
    with pytest.raises(ValueError, match="'temperature' parameter of Distiller"):
        Distiller(teacher, encoder, temperature=0.0).fit(X)
    with pytest.raises(ValueError, match="'alpha' parameter of Distiller"):
        Distiller(teacher, encoder, alpha=1.1).fit(X)
    numbers = X.astype(np.float32)
    bright = FineTuner(quick(skssl.SimCLR, epochs=0).fit(numbers * 2), **QUICK).fit(numbers * 2, y)
    with pytest.raises(ValueError, match="teacher and student must expect images of the same shape"):
        Distiller(bright, quick(skssl.SimCLR, epochs=0)).fit(numbers)


STUDENTS = {
    "fitted": lambda X: quick(skssl.SimCLR).fit(X),
    "unfitted": lambda X: quick(skssl.SimCLR),
    "module": lambda X: ConvNet(),
}
TEACHERS = {
    "fitted": lambda X, y: FineTuner(quick(skssl.SimCLR, epochs=0), **QUICK).fit(X, y),
    "unfitted": lambda X, y: FineTuner(quick(skssl.SimCLR, epochs=0), **QUICK),
    "module": lambda X, y: nn.Sequential(ConvNet(), nn.Linear(128, 8)),
}


@pytest.mark.parametrize("student", STUDENTS.values(), ids=STUDENTS)
@pytest.mark.parametrize("teacher", TEACHERS.values(), ids=TEACHERS)
def test_distillation_decodes_files_once_and_accepts_a_stream(teacher, student, png_files, X, y, decoded_names):
    torch.manual_seed(0)
    y = np.unique(y, return_inverse=True)[1]  # the classes of a module are 0 to 7
    teacher, student = teacher(X, y), student(X)
    expected = Distiller(teacher, student, **QUICK).fit(X, y)
    distilled = Distiller(teacher, student, **QUICK).fit(png_files, y)
    assert len(decoded_names) == len(set(decoded_names)) == 40
    streamed = Distiller(teacher, student, **QUICK).fit((image for image in X), y)
    for found in (distilled, streamed):
        np.testing.assert_array_equal(found.predict_proba(X), expected.predict_proba(X))
