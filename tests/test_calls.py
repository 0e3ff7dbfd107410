"""Wrong calls of public functions: each error shows the right call."""

import inspect

import numpy as np
import pytest
from conftest import quick
from matplotlib import pyplot as plt

import skssl
from skssl import (
    EmbeddingDisplay,
    FineTuner,
    LinearProbe,
    NeighborsDisplay,
    Results,
    ResultsDisplay,
    SimCLR,
    SupCon,
    TrainingDisplay,
    ViewsDisplay,
    compare,
    label_fraction,
    report,
    transfer_table,
)
from skssl.callbacks import KNNMonitor, LinearMonitor


@pytest.fixture(scope="module")
def e(X):
    return quick(SimCLR).fit(X)


AS_IMAGES, INSTANCE = (
    r"X, the images, is the first argument; the classes y are the second",
    r"Pass an instance, SimCLR\(\)",
)
NO_ENCODER = r"Pass LinearProbe\(encoder=encoder\).fit\(X, y\) for images, or LinearProbe\(\).fit\(encoder.transform"
CALLS = [
    # positional mistakes
    (lambda e, X, y: SimCLR(X), r"SimCLR: too many positional arguments. Call it as SimCLR\(.*\).fit\(X\)"),
    (lambda e, X, y: SimCLR(n_epochs=3), r"unexpected keyword argument 'n_epochs'. Call it as SimCLR\(epochs"),
    (lambda e, X, y: LinearProbe(e), r"Call it as LinearProbe\(encoder=encoder\).fit\(X, y\), or LinearProbe\(\).fit"),
    (lambda e, X, y: FineTuner(), r"missing a required argument: 'encoder'. Call it as FineTuner\(encoder"),
    (lambda e, X, y: skssl.Augmentation("simclr"), r"Call it as Augmentation\(crop_scale="),
    (lambda e, X, y: skssl.Rotation(4), r"Call it as Rotation\(\), with parameters by name"),
    (lambda e, X, y: EmbeddingDisplay(e, X), r"Call it as EmbeddingDisplay.from_estimator\(encoder, X, y\)"),
    (lambda e, X, y: compare([e], X, y, X, y), r"Call it as compare\(methods, X, y, X_test=X_test, y_test=y_test"),
    (lambda e, X, y: report(e), r"Call it as report\(encoder, X, y, path='report.html'\)"),
    (lambda e, X, y: transfer_table(e, X, y), r"Call it as transfer_table\(encoder, {'name': \(X_train, y_train"),
    (lambda e, X, y: label_fraction(y), r"Call it as label_fraction\(y, 0.1\)"),
    # swapped arguments
    (lambda e, X, y: SimCLR().fit(y), AS_IMAGES),
    (lambda e, X, y: SupCon().fit(y, X), AS_IMAGES),
    (lambda e, X, y: FineTuner(e).fit(y, X), AS_IMAGES),
    (lambda e, X, y: LinearProbe().fit(y, e.transform(X)), NO_ENCODER),
    (lambda e, X, y: compare([e], y, X), r"y must be a 1-D array .*, after the images X. Got ndarray of uint8"),
    (lambda e, X, y: compare(X, y), r"as in compare\(\[SimCLR\(\), BYOL\(\)\], X, y.*Got ndarray of uint8 and shape"),
    (lambda e, X, y: EmbeddingDisplay.from_estimator(X, e), "The estimator comes first, then the images"),
    (lambda e, X, y: NeighborsDisplay.from_estimator(X, e), "The estimator comes first, then the images"),
    (lambda e, X, y: ViewsDisplay.from_estimator(X, e), r"as in ViewsDisplay.from_estimator\(encoder, X\)"),
    (lambda e, X, y: report(X, y, e), "The estimator comes first, then the images"),
    (lambda e, X, y: report(e, X, "page.html"), r"y must be a 1-D array .* Got str 'page.html'"),
    (lambda e, X, y: label_fraction(0.1, y), r"Got ndarray .* Call label_fraction\(y, 0.1\)"),
    (lambda e, X, y: quick(SimCLR, callbacks=[LinearMonitor(X, y)]).fit(X), r"y must be a 1-D array .* Got ndarray"),
    # a missing y
    (lambda e, X, y: SupCon().fit(X), "Pass the classes as y, or a data set of items"),
    (lambda e, X, y: LinearProbe(encoder=e).fit(X), "Pass the classes as y, or a data set of items"),
    (lambda e, X, y: compare([e], X), r"y is missing. Call compare\(methods, X, y\)"),
    # a class in place of an instance
    (lambda e, X, y: LinearProbe(encoder=SimCLR).fit(X, y), INSTANCE),
    (lambda e, X, y: FineTuner(SimCLR).fit(X, y), INSTANCE),
    (lambda e, X, y: compare([SimCLR], X, y), rf"methods\['SimCLR'\] must be .*{INSTANCE}"),
    (lambda e, X, y: report(SimCLR, X), INSTANCE),
    (lambda e, X, y: EmbeddingDisplay.from_estimator(SimCLR, X), INSTANCE),
    (lambda e, X, y: ViewsDisplay.from_estimator(SimCLR, X), INSTANCE),
    (lambda e, X, y: TrainingDisplay.from_estimator(SimCLR), r"a dict of these by name, as in from_estimator"),
    (lambda e, X, y: SimCLR(augment=skssl.Augmentation).fit(X), r"'augment' .* class Augmentation. Pass an instance"),
    (lambda e, X, y: SimCLR(callbacks=[KNNMonitor]).fit(X), r"'callbacks' .* class KNNMonitor. Pass an instance"),
    (lambda e, X, y: SimCLR(warm_start_from=SimCLR).fit(X), INSTANCE),
    # a string, or an object of another kind
    (lambda e, X, y: LinearProbe(encoder="a.safetensors").fit(X, y), r"Pass skssl.load\(path\) for a file"),
    (lambda e, X, y: FineTuner(LinearProbe()).fit(X, y), "Pass the encoder that the LinearProbe was given"),
    (lambda e, X, y: LinearProbe().fit(X, y), NO_ENCODER),
    (lambda e, X, y: LinearProbe().fit(["a.png", "b.png"], ["a", "b"]), NO_ENCODER),
    (lambda e, X, y: LinearProbe().fit(e, X), NO_ENCODER),
    (lambda e, X, y: compare(e, X, y), r"as in compare\(\[SimCLR\(\), BYOL\(\)\], X, y.*Got SimCLR"),
    (lambda e, X, y: compare([e], X, y, probes="linear"), r"probes=\[KNNProbe\(\)\]\). Got str 'linear'"),
    (lambda e, X, y: compare([e], X, np.linspace(0, 1, 40)), "Unknown label type: continuous"),
    (lambda e, X, y: Results({"SimCLR": 0.8}), "a list of dicts, such as {'method': 'SimCLR'"),
    (lambda e, X, y: ResultsDisplay.from_results({"a": 1}), r"must be Results, as compare returns. Got dict"),
    (lambda e, X, y: TrainingDisplay(e), r"as in TrainingDisplay\(encoder.history_\). Got SimCLR"),
    (lambda e, X, y: TrainingDisplay.from_estimator([e]), r"as in from_estimator\({'SimCLR': encoder}\). Got list"),
    (lambda e, X, y: TrainingDisplay.from_estimator(e, measures="loss"), "Got 'loss'; put it into a list"),
    (lambda e, X, y: EmbeddingDisplay.from_features(e, X), r"as in from_features\(encoder.transform\(X\), y\)"),
    (
        lambda e, X, y: transfer_table(e, [("a", (X, y, X, y))]),
        r"a dict of a tuple \(X_train, y_train, X_test, y_test\)",
    ),
    (
        lambda e, X, y: skssl.DetectionTransfer(e).fit(X, y),
        "the path of a folder in the format of PASCAL VOC or COCO, or a list of these. Got ndarray",
    ),
    (lambda e, X, y: skssl.load(e), "path must be the path of a file that save has written. Got SimCLR"),
    (lambda e, X, y: e.predict(X), r"'predict'. SimCLR gives features: LinearProbe\(encoder=encoder\).fit\(X, y\)"),
    (lambda e, X, y: e.transform(X[0]), r"Pass a single image as X\[None\]"),
]


@pytest.mark.parametrize(("call", "message"), CALLS, ids=range(len(CALLS)))
def test_wrong_call_shows_the_right_one(call, message, e, X, y):
    with pytest.raises((TypeError, ValueError, AttributeError), match=message):
        call(e, X, y)
    plt.close("all")


def test_constructors_keep_their_signatures(X):
    assert list(inspect.signature(SimCLR).parameters)[:2] == ["backbone", "backbone_weights"]
    assert inspect.signature(FineTuner).parameters["encoder"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert not hasattr(SimCLR(), "predict")
    with pytest.raises(TypeError, match="unsupported operand"):  # an error within the call is not changed
        skssl.errors.show_call("f(x)")(lambda x: x + None)(1)
