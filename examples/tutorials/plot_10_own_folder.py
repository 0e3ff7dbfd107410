"""
Your own folder of photographs
==============================

This tutorial goes from a folder of image files to an encoder, a score and a picture of the nearest images.
"""

# %%
# The folder
# ----------
#
# To run anywhere, the script first writes a folder of generated JPEG files: discs, rings, and rings with a dot. With
# your own photographs, leave this block out and set ``folder`` to their path. The files may have any sizes. Class
# folders such as ``train/ring`` are needed for scores only: the encoder trains without labels.
import tempfile
from pathlib import Path

from PIL import Image

from skssl.datasets import make_rings

folder = Path(tempfile.mkdtemp())
for i, (image, name) in enumerate(zip(*make_rings(800, random_state=0), strict=True)):
    path = folder / ("train" if i < 600 else "val") / name / f"{i:03}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).resize((32 + i % 9, 32 + i % 7)).save(path, quality=95)

# %%
# :func:`skssl.datasets.load_images` lists the files. ``X`` holds paths, which are decoded in batches during the
# training, so a folder may be larger than memory.
from skssl.datasets import load_images

X, y = load_images(folder, "train")
X_val, y_val = load_images(folder, "val")
print(len(X), "training images, such as", Path(X[0]).relative_to(folder))

# %%
# What the network will see
# -------------------------
#
# A method learns that two random views of an image belong together. Look at the views before you train: a person
# should still be able to tell what they show. ``image_shape`` is their size. 24 pixels keep this example quick; 224
# is usual for photographs.
from skssl import Augmentation, SimCLR, ViewsDisplay

augment = Augmentation(
    crop_scale=(0.5, 1.0), brightness=0.6, contrast=0.6, saturation=0.6, hue=0.3
)
settings = {
    "backbone": "convnet",
    "augment": augment,
    "image_shape": (24, 24),
    "batch_size": 64,
    "random_state": 0,
}
encoder = SimCLR(epochs=10, **settings)
ViewsDisplay.from_estimator(encoder, X, n_images=4, random_state=0)

# %%
# Training and a score
# --------------------
#
# ``fit`` uses no labels. :class:`skssl.KNNProbe` then scores the features: each validation image gets the class of
# the nearest training images. An untrained network (``epochs=0``) is the baseline to beat.
from skssl import KNNProbe

encoder.fit(X)
untrained = SimCLR(epochs=0, **settings).fit(X)
for title, each in {"untrained": untrained, "trained": encoder}.items():
    probe = KNNProbe(n_neighbors=5).fit(each.transform(X), y)
    print(f"{title}: kNN accuracy {probe.score(each.transform(X_val), y_val):.2f}")

# %%
# These are 600 simple images and seconds of training; a guess is right for one image of three. Real photographs need
# thousands of images and hundreds of epochs.
#
# The nearest images
# ------------------
#
# Green frames are of the query's class. Images of one colour are near each other only if the encoder relies on
# colours.
from skssl import NeighborsDisplay

NeighborsDisplay.from_estimator(encoder, X_val, y_val, n_queries=3, random_state=0)

# %%
# Saving the encoder
# ------------------
#
# The saved file contains everything that ``transform`` needs. Loading it executes no code from it.
import skssl

encoder.save(folder / "encoder.safetensors")
features = skssl.load(folder / "encoder.safetensors").transform(X_val)
print(features.shape)

# %%
# On the command line the same steps are
#
# .. code-block:: bash
#
#     skssl fit SimCLR photos/ --backbone convnet --image-shape 64,64 --epochs 100 --out encoder.safetensors
#     skssl probe encoder.safetensors photos/
#     skssl report encoder.safetensors photos/ --out report.html
#
# :doc:`/guide/images` describes folders, damaged files and large sets.
