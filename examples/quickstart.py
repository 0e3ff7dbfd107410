"""
Images in, a scikit-learn pipeline out
======================================

An encoder learns from images without labels; a classifier on its features then needs
only a few. The pieces are scikit-learn's: a ``Pipeline``, a ``GridSearchCV``, a pandas
table in the end.

CIFAR-10 is used where it is found (in the folder that ``SKSSL_DATA`` names, in
``../shared/data``, or by a download), otherwise a generated set of shapes. It takes
about two minutes on two CPU cores.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skssl import KNNProbe, NeighborsDisplay, SimCLR, recipes
from skssl.callbacks import KNNMonitor
from skssl.datasets import load_images, make_shapes

started = time.perf_counter()

# %%
# The images
# ----------
# 20,000 to learn from, of which 5,000 have labels, and 10,000 to test on.

try:
    X, y = load_images("cifar10")
    X_test, y_test = load_images("cifar10", split="test")
    name = "CIFAR-10"
except (OSError, ValueError) as error:
    print(f"CIFAR-10 is not at hand, generated shapes take its place: {error}\n")
    X, y = make_shapes(20_000, random_state=0)
    X_test, y_test = make_shapes(10_000, random_state=1)
    name = "generated shapes"

draw = np.random.default_rng(0)
train, test = draw.permutation(len(X))[:20_000], draw.permutation(len(X_test))
X, y, X_test, y_test = X[train], y[train], X_test[test], y_test[test]
labelled = np.concatenate([np.flatnonzero(y == label)[:500] for label in np.unique(y)])
print(f"{name}: {len(X)} images of shape {X.shape[1:]}, {len(labelled)} with labels\n")

# %%
# Two encoders
# ------------
# SimCLR with a small network: with its default settings, and with those of the race,
# which are the best after two minutes. Beside each training a kNN probe is scored after
# every epoch.

monitor = KNNMonitor(
    X[labelled], y[labelled], X_test[:2000], y_test[:2000], n_neighbors=20
)
settings = {"random_state": 0, "verbose": 1, "callbacks": [monitor]}
best = recipes.make(recipes.RACE["CPU"], **{**settings, "epochs": 8})
encoders = {
    "SimCLR": SimCLR(backbone="convnet", epochs=4, **settings).fit(X),
    "SimCLR, settings of the race": best.fit(X),
}
print("\nHow the second was trained:")
print(best.history_.round(3).to_string(index=False), "\n")

# %%
# A pipeline, and a search
# ------------------------
# The trained encoder is a step of a pipeline like any other. ``FrozenEstimator`` keeps
# it from being trained again.

classifier = LogisticRegression(max_iter=1000)
pipeline = Pipeline(
    [("ssl", FrozenEstimator(best)), ("scale", StandardScaler()), ("clf", classifier)]
)
search = GridSearchCV(pipeline, {"clf__C": [0.001, 0.01]}, cv=2)
search.fit(X[labelled], y[labelled])
accuracy = search.score(X_test, y_test)
print(f"best of the search: {search.best_params_}, test accuracy {accuracy:.3f}\n")

# %%
# The table
# ---------
# Features against raw pixels and an untrained network, by few and by more labels, and
# by the nearest neighbours.

untrained = recipes.make(recipes.RACE["CPU"], random_state=0, epochs=0).fit(X)
pixels = FunctionTransformer(lambda X: X.reshape(len(X), -1) / np.float32(255))
few = np.concatenate([np.flatnonzero(y[labelled] == of)[:50] for of in np.unique(y)])
linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
probes = {
    "linear, 50 labels per class": (linear, few),
    "linear, 500 labels per class": (linear, slice(None)),
    "20 nearest neighbours": (KNNProbe(n_neighbors=20), slice(None)),
}
baselines = {"raw pixels": pixels, "the race's network, untrained": untrained}
rows = {}
for title, encoder in {**baselines, **encoders}.items():
    features, features_test = encoder.transform(X[labelled]), encoder.transform(X_test)
    rows[title] = {
        kind: probe.fit(features[part], y[labelled][part]).score(features_test, y_test)
        for kind, (probe, part) in probes.items()
    }
print(pd.DataFrame(rows).T.round(3).to_string())

# %%
# The pictures
# ------------
# Accuracy by second, and which test images are alike.

figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
for title, encoder in encoders.items():
    seconds = (len(X) / encoder.history_["images_per_second"]).cumsum()
    left.plot(seconds, encoder.history_["knn"], marker="o", label=title)
left.set(xlabel="seconds of training", ylabel="accuracy of 20 nearest neighbours")
left.legend()
NeighborsDisplay.from_estimator(best, X_test[:2000], y_test[:2000], ax=right)
figure.savefig("demo.png", dpi=150)
print("\nThe curves and the neighbours are in demo.png.")
print(f"All took {time.perf_counter() - started:.0f} seconds.")
