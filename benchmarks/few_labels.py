"""Accuracy by the share of labels: pixels, a probe on frozen features, and fine-tuning.

The shares are 1, 5, 10, 20 and 100 % of the labels of the 20,000 CIFAR-10 images on which the encoders were trained;
the accuracy is that on the test set. pixels and probe: standardised logistic regression with C chosen by
cross-validation. fine-tuning: the whole network, batches of 64, random resized crops and flips, SGD with a cosine
schedule. Its learning rates are the best of five pairs for SimCLR on 5,000 other training images, and are used for all
encoders. "untrained" is supervised learning of the same network. On two CPU cores a method and seed take four to five
minutes, half of them for the training of the encoder, which is cached for other benchmarks.

    python -m benchmarks few_labels [NAME ...] [--seeds 0 1 2] [--epochs 10] [--images 20000] [--again]
"""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.encoders import options, run, to_do, trained
from benchmarks.methods import cifar10
from benchmarks.record import record
from skssl import FineTuner, LinearProbe, label_fraction

NAMES = ["pixels", "untrained", "SimCLR", "SimCLR + rotation"]
EPOCHS = {0.01: 100, 0.05: 60, 0.1: 40, 0.2: 30, 1.0: 12}  # by the share of labels: from 300 to 3,800 steps
TUNING: dict[str, Any] = {"batch_size": 64, "backbone_lr": 0.1, "head_lr": 0.5, "schedule": "cosine"}


def probe(features: np.ndarray, labels: np.ndarray) -> GridSearchCV:
    """Fit logistic regression with C chosen by cross-validation."""
    grid = {"linearprobe__C": [1e-4, 1e-3, 1e-2, 1e-1, 1.0]}
    return GridSearchCV(make_pipeline(StandardScaler(), LinearProbe()), grid, cv=5).fit(features, labels)


def main() -> None:
    """Train and evaluate the selected methods."""
    asked = options(__doc__, NAMES)
    X, y, X_test, y_test = cifar10(asked.images, asked.test)
    for name, seed in itertools.product(asked.names, asked.seeds):
        rows = [
            {**run(name, seed, asked), "fraction": fraction, "classifier": classifier}
            for fraction in EPOCHS
            for classifier in (["probe"] if name == "pixels" else ["probe", "fine-tuning"])
        ]
        features = None
        for row in to_do("few_labels", rows, again=asked.again):
            if features is None and name == "pixels":
                features, features_test = (images.reshape(len(images), -1) / np.float32(255) for images in (X, X_test))
                found: dict[str, Any] = {}
            elif features is None:
                found = trained(row, asked.cache, X, y)
                features, features_test = (found["encoder"].transform(images) for images in (X, X_test))
            few = label_fraction(y, row["fraction"], random_state=seed)
            known = few != -1
            start = time.perf_counter()
            if row["classifier"] == "probe":
                accuracy = probe(features[known], y[known]).score(features_test, y_test)
            else:
                tuner = FineTuner(found["encoder"], epochs=EPOCHS[row["fraction"]], random_state=seed, **TUNING)
                accuracy = tuner.set_params(verbose=1).fit(X, few).score(X_test, y_test)
            results = {"labels": known.sum(), "accuracy": accuracy, "seconds": time.perf_counter() - start}
            record("few_labels", [{**row, **results, "encoder_commit": found.get("commit", "")}])


if __name__ == "__main__":
    main()
