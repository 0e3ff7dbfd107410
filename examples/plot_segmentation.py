"""
What an encoder segments
========================

A frozen encoder with UPerNet's head classifies the pixels of images of discs and
squares, and a Faster R-CNN on the same encoder finds them. The white edges have no
class in the true masks.
"""

import tempfile

from skssl import (
    DetectionDisplay,
    DetectionTransfer,
    SegmentationDisplay,
    SegmentationTransfer,
    SimCLR,
)
from skssl.datasets import make_shapes, make_voc_folder

X, _ = make_shapes(200, random_state=0)
encoder = SimCLR(backbone="convnet", epochs=5, batch_size=50, random_state=0).fit(X)
folder = make_voc_folder(tempfile.mkdtemp(), 40, random_state=0)
small = {"image_size": 64, "width": 16, "batch_size": 2, "lr": 0.05, "random_state": 0}

segmenter = SegmentationTransfer(encoder, epochs=4, **small).fit(folder)
names = {0: "background", 1: "disc", 2: "square"}
SegmentationDisplay.from_estimator(segmenter, folder, n_images=3, class_names=names)

# %%
# Boxes with scores of at least 0.5:

detector = DetectionTransfer(encoder, epochs=8, **small).fit(folder)
DetectionDisplay.from_estimator(detector, folder, n_images=3)
