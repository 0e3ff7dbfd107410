"""
What the network sees
=====================

Before any training: what the augmentation and the pretext tasks make of the images.
Nothing is imitated here: the views are drawn as in training, and what a task shows is
recorded where a network is given it.
"""

from skssl import MultiCrop, SimCLR, SwAV, ViewsDisplay
from skssl.datasets import make_shapes

X, y = make_shapes(200, random_state=0)

# %%
# The views of SimCLR, and all auxiliary tasks at once: turned views, a puzzle's tiles,
# grey images to be coloured, views with a hole to be filled, and patches whose places
# are to be told.
tasks = ["rotation", "jigsaw", "colorization", "inpainting", "relative_patch"]
ViewsDisplay.from_estimator(SimCLR(backbone="convnet", aux=tasks), X)

# %%
# Crops of several sizes, drawn at their true scale.
ViewsDisplay.from_estimator(
    SwAV(backbone="convnet", augment=MultiCrop(n_local=4)), X, n_images=3
)
