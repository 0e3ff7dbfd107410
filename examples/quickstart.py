"""
Images in, a scikit-learn pipeline out
======================================

An encoder learns from images without labels; a classifier on its features then needs only a few. The pieces are
scikit-learn's: a ``Pipeline``, a ``GridSearchCV`` over parameters of the method, a cache, a pandas table in the end.

CIFAR-10 is used where it is found (in the folder that ``SKSSL_DATA`` names, in ``../shared/data``, or by a download),
otherwise a generated set of shapes. It takes about two minutes on two CPU cores.
"""

import tempfile
import time

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skssl import KNNProbe, LinearProbe, SimCLR, SimSiamGSG
from skssl.datasets import load_images, make_shapes

started = time.perf_counter()

# %%
# The images
# ----------
# 8,000 to learn from and 2,000 to test on.

try:
    (X, y), (X_test, y_test) = (load_images("cifar10", split=split) for split in ("train", "test"))
    name = "CIFAR-10"
except (OSError, ValueError) as error:
    print(f"CIFAR-10 is not at hand, a generated set of shapes takes its place: {error}\n")
    (X, y), (X_test, y_test) = make_shapes(8000, random_state=0), make_shapes(2000, random_state=1)
    name = "generated shapes"

draw = np.random.default_rng(0)
train, test = draw.permutation(len(X))[:8000], draw.permutation(len(X_test))[:2000]
X, y, X_test, y_test = X[train], y[train], X_test[test], y_test[test]
print(f"{name}: {len(X)} images of shape {X.shape[1:]} to learn from, {len(np.unique(y))} classes\n")

# %%
# A pipeline
# ----------
# SimSiam with guided stop-gradient and rotation prediction as an auxiliary task, then logistic regression.

settings = {"backbone": "convnet", "epochs": 5, "batch_size": 128, "random_state": 0, "verbose": 1}
method = SimSiamGSG(aux="rotation", pairing="shared", proj_dim=256, lr=0.2, **settings)
pipeline = Pipeline([("ssl", method), ("scale", StandardScaler()), ("clf", LogisticRegression(C=0.01, max_iter=500))])
pipeline.fit(X, y)
print(f"\naccuracy of the pipeline: {pipeline.score(X_test, y_test):.3f}. How it was trained:")
print(pipeline["ssl"].history_.round(3).to_string(index=False), "\n")

# %%
# A search
# --------
# Which weight of the rotation task, which temperature? The cache keeps encoders that were trained once, so that more
# classifiers cost no more training. (One small split, to be quick: the best setting is then trained on all images.)

with tempfile.TemporaryDirectory() as cache:
    search = GridSearchCV(
        Pipeline([("ssl", SimCLR(aux="rotation", **{**settings, "verbose": 0})), ("clf", LinearProbe())], memory=cache),
        {"ssl__aux_weight": [0.1, 1.0], "ssl__temperature": [0.2, 0.5], "clf__C": [0.01, 1.0]},
        cv=StratifiedShuffleSplit(n_splits=1, train_size=2000, test_size=1000, random_state=0),
    ).fit(X, y)
columns = ["param_ssl__aux_weight", "param_ssl__temperature", "param_clf__C", "mean_test_score", "rank_test_score"]
print(pd.DataFrame(search.cv_results_)[columns].sort_values("rank_test_score").to_string(index=False), "\n")

# %%
# The table
# ---------
# Features against raw pixels and against the same network untrained, with 50 and with all labels a class, and by the
# nearest neighbours.

pixels = FunctionTransformer(lambda images: images.reshape(len(images), -1) / np.float32(255))
encoders = {
    "raw pixels": pixels,
    "untrained encoder": SimCLR(**{**settings, "epochs": 0}).fit(X),
    "SimCLR + rotation, best of the search": search.best_estimator_["ssl"],
    "SimSiamGSG + rotation": pipeline["ssl"],
}
few = np.concatenate([np.flatnonzero(y == label)[:50] for label in np.unique(y)])
rows = {}
for title, encoder in encoders.items():
    features, features_test = encoder.transform(X), encoder.transform(X_test)
    linear = make_pipeline(StandardScaler(), LinearProbe(C=0.01))
    rows[title] = {
        "linear, 50 labels a class": linear.fit(features[few], y[few]).score(features_test, y_test),
        "linear, all labels": linear.fit(features, y).score(features_test, y_test),
        "20 nearest neighbours": KNNProbe(n_neighbors=20).fit(features, y).score(features_test, y_test),
    }
print(pd.DataFrame(rows).T.round(3).to_string())
print(f"\n{time.perf_counter() - started:.0f} seconds in all")
