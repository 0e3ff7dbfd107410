"""
A comparison
============

How far do fifty labels go? Encoders learn from 1,200 digits, the probes from the fifty that have a label, against raw
pixels and an untrained encoder: one call, the papers' table and a picture.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skssl import Augmentation, KNNProbe, LinearProbe, ResultsDisplay, SimCLR, compare

X, y = load_digits().images, load_digits().target
few = np.where(np.arange(1200) < 50, y[:1200], -1)  # -1 is an unknown class
augment = Augmentation(crop_scale=(0.4, 1.0), flip=0.0)
settings = {"backbone": "convnet", "augment": augment, "batch_size": 128}
methods = {
    "raw pixels": FunctionTransformer(
        lambda images: images.reshape(len(images), -1) / 16
    ),
    "untrained": SimCLR(**settings, epochs=0),
    "SimCLR": SimCLR(**settings, epochs=6),
    "SimCLR + rotation": SimCLR(**settings, epochs=6, aux="rotation"),
}
linear = make_pipeline(StandardScaler(), LinearProbe())
probes = {"linear": linear, "kNN": KNNProbe(n_neighbors=3)}
test = {"X_test": X[1200:], "y_test": y[1200:]}
results = compare(methods, X[:1200], few, **test, probes=probes, random_state=[0, 1, 2])
results

# %%
# A row a run and probe:
results.frame.round(3).head()

# %%
ResultsDisplay.from_results(results)
