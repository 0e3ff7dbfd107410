"""
Image search, and export to other programs
==========================================

The features of an encoder, its embeddings, are vectors, so image similarity is a distance. This tutorial builds an
index of images, retrieves those similar to a query, and exports the encoder for programs that do not have skssl.
"""

# %%
# An index
# --------
#
# The encoder learns from the images to be searched. Features are compared by cosine similarity.
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from skssl import Augmentation, SimCLR

X, y = load_digits().images, load_digits().target
known, new = slice(0, 1500), slice(1500, None)
augment = Augmentation(crop_scale=(0.4, 1.0), flip=0.0)
encoder = SimCLR(
    backbone="convnet", augment=augment, epochs=12, batch_size=128, random_state=0
).fit(X[known])
index = NearestNeighbors(n_neighbors=8, metric="cosine").fit(
    encoder.transform(X[known])
)

# %%
# Each new image is a query. The share of results of the query's class is the precision; the encoder was never told
# the classes.
distances, found = index.kneighbors(encoder.transform(X[new]))
precision = (y[known][found] == y[new][:, None]).mean()
print(f"precision of the first 8 results {precision:.2f}")
print(f"nearest distance {distances[:, 0].mean():.3f} on average")

# %%
# :class:`skssl.NeighborsDisplay` draws the same search.
from skssl import NeighborsDisplay

NeighborsDisplay.from_estimator(
    encoder, X[known], y[known], X_query=X[new], y_query=y[new], n_queries=4
)

# %%
# ``NearestNeighbors`` compares a query with all images, which is fast enough for a hundred thousand. For millions,
# pass the same features to a library of approximate search, such as FAISS. Nearly equal images of a data set, which
# would leak from the training to the test set, are pairs with a distance near zero.
#
# Export
# ------
#
# A ``state_dict`` has the names of torchvision and timm. ``encoder_`` is a plain module, which maps normalised
# images to features.
import tempfile
from pathlib import Path

import torch

folder = Path(tempfile.mkdtemp())
encoder.export(folder / "encoder.pt")
weights = torch.load(folder / "encoder.pt", weights_only=True)
print(len(weights), "tensors, the first is", next(iter(weights)))

# %%
# ONNX also contains the normalisation, so that other languages and programs compute what ``transform`` does. It needs
# ``pip install "skssl[onnx]"``.
from importlib.util import find_spec

if find_spec("onnxscript"):
    encoder.export(folder / "encoder.onnx")
    print(f"encoder.onnx has {(folder / 'encoder.onnx').stat().st_size / 1e6:.1f} MB")
else:
    print("ONNX is not installed.")

# %%
# In a program of its own, with ``pip install onnxruntime``:
#
# .. code-block:: python
#
#     import onnxruntime
#
#     session = onnxruntime.InferenceSession("encoder.onnx")
#     (features,) = session.run(None, {session.get_inputs()[0].name: images})  # (n, c, h, w) float32 in [0, 1]
