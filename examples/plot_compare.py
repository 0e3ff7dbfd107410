"""
A comparison
============

Raw pixels, an untrained encoder and two trained ones, with three seeds each, judged by the same probes: one call, the
papers' table and a picture.
"""

from sklearn.datasets import load_digits
from sklearn.preprocessing import FunctionTransformer

from skssl import Augmentation, KNNProbe, LinearProbe, ResultsDisplay, SimCLR, compare

X, y = load_digits().images, load_digits().target
augment = Augmentation(crop_scale=(0.4, 1.0), flip=0.0)
settings = {"backbone": "convnet", "augment": augment, "batch_size": 128}
methods = {
    "raw pixels": FunctionTransformer(lambda images: images.reshape(len(images), -1) / 16),
    "untrained": SimCLR(**settings, epochs=0),
    "SimCLR": SimCLR(**settings, epochs=8),
    "SimCLR + rotation": SimCLR(**settings, epochs=8, aux="rotation"),
}
probes = {"linear": LinearProbe(), "kNN": KNNProbe(n_neighbors=5)}
results = compare(methods, X, y, test_size=0.5, probes=probes, random_state=[0, 1, 2])
results

# %%
# A row a run and probe:
results.frame.round(3).head()

# %%
ResultsDisplay.from_results(results)
