"""
Medical and multi-channel images
================================

Scans, microscope and satellite images differ from photographs in three ways: they have one channel or more than
three, their values have more than 8 bits, and often no side is up. This tutorial trains on generated images of five
channels.
"""

# %%
# Images of five channels
# -----------------------
#
# The images imitate fluorescence microscopy: each channel is a stain of another strength, with values of 12 bits and
# noise of its own. Cells are filled discs, rings, or rings with a nucleus.
import numpy as np

from skssl.datasets import make_rings

cells, y = make_rings(600, random_state=0)
stains = np.array([10.0, 8.0, 6.0, 4.0, 2.0])[:, None, None]
noise = np.random.default_rng(0).normal(0, 100, (600, 5, 24, 24))
X = (cells.mean(-1)[:, None] * stains + noise).clip(0, 4095).astype(np.float32)
print(X.shape, X.dtype, X.min(), X.max())

# %%
# Arrays may be (n, c, h, w) or (n, h, w, c). Floats are mapped to [0, 1] by the smallest and the largest value of the
# training images. Do not scale images one by one if their absolute values mean something, as Hounsfield units do.
# Grey TIFF and PNG files of 16 bits keep their values.
#
# Views
# -----
#
# Saturation, hue and greyscale are defined for three channels only, so they are left out; brightness and contrast
# vary. Quarter turns make the encoder ignore the orientation. For the same reason the rotation task is of no use
# here. Weaker crops keep the cell in the image.
from skssl import Augmentation, SimCLR, ViewsDisplay

augment = Augmentation(
    crop_scale=(0.5, 1.0), quarter_turn=1.0, brightness=0.3, contrast=0.3
)
encoder = SimCLR(
    backbone="convnet", augment=augment, epochs=10, batch_size=64, random_state=0
)
ViewsDisplay.from_estimator(encoder, X, n_images=4, random_state=0)

# %%
# The display shows the mean of the channels.
#
# Features
# --------
#
# The first convolution is made for five channels. Pretrained weights of three channels are adapted to them.
from sklearn.base import clone

from skssl import KNNProbe

train, test = slice(0, 400), slice(400, None)
untrained = clone(encoder).set_params(epochs=0).fit(X[train])
encoder.fit(X[train])
for title, each in {"untrained": untrained, "trained": encoder}.items():
    probe = KNNProbe(n_neighbors=10).fit(each.transform(X[train]), y[train])
    print(f"{title}: kNN accuracy {probe.score(each.transform(X[test]), y[test]):.2f}")

# %%
# Before you use this on patients
# -------------------------------
#
# - Images of one patient belong to one side of a split: use ``GroupKFold`` with the patients as groups.
# - Classes are often unbalanced. ``LinearProbe(class_weight="balanced")`` weights them equally, and
#   ``scoring="balanced_accuracy"`` scores them equally.
# - Volumes are not read. Pass slices, or a few slices as channels.
# - DICOM and NIfTI files are not read either. Pass a list of arrays, or a data set that returns arrays: see
#   :doc:`/guide/images`.
