"""
Your own augmentation
=====================

The views decide what an encoder learns: it learns to ignore what differs between two views of an image. This tutorial
adapts the views to the images, and passes transforms of torchvision.
"""

# %%
# Images whose colours mean nothing
# ---------------------------------
#
# The generated images show a disc, a ring, or a ring with a dot. Only the form is the class; the colour is random.
from skssl.datasets import make_rings

X, y = make_rings(900, random_state=0)

# %%
# Views that fit the images
# -------------------------
#
# An :class:`skssl.Augmentation` sets each step of the views, and makes those of a whole batch at once. Three are
# compared: views that keep all colours, the default, which is SimCLR's for photographs, and one that suits these
# images: colours vary more, crops are larger, so that the shape remains in view, and no side is up.
from skssl import Augmentation, SimCLR, ViewsDisplay

colours = {"brightness": 0.6, "contrast": 0.6, "saturation": 0.6, "hue": 0.3}
augmentations = {
    "colours kept": Augmentation(crop_scale=(0.5, 1.0), jitter=0.0, gray=0.0),
    "default": Augmentation(),
    "adapted": Augmentation(crop_scale=(0.5, 1.0), quarter_turn=1.0, **colours),
}
settings = {"backbone": "convnet", "batch_size": 64, "random_state": 0}
ViewsDisplay.from_estimator(
    SimCLR(augment=augmentations["default"], **settings), X, n_images=4, random_state=0
)

# %%
ViewsDisplay.from_estimator(
    SimCLR(augment=augmentations["adapted"], **settings), X, n_images=4, random_state=0
)

# %%
# The scores
# ----------
#
# If both views have the colour of the image, the encoder tells images apart by colour, and hardly learns the form.
from skssl import KNNProbe

train, test = slice(0, 600), slice(600, None)
for title, augment in augmentations.items():
    encoder = SimCLR(augment=augment, epochs=10, **settings).fit(X[train])
    probe = KNNProbe(n_neighbors=5).fit(encoder.transform(X[train]), y[train])
    accuracy = probe.score(encoder.transform(X[test]), y[test])
    print(f"{title:12} kNN accuracy {accuracy:.2f}")

# %%
# The opposite holds where colours are the class, as for ripe and unripe fruit: there, jitter must be weak. One seed
# and ten epochs show large differences only. The ranges can be searched like any other parameter, as
# ``ssl__augment__crop_scale`` in a pipeline: see :doc:`plot_40_search`.
#
# Transforms of torchvision
# -------------------------
#
# ``augment`` also takes transforms of torchvision, Albumentations, Kornia and lightly, and functions of an image.
# Here they turn images by a few degrees, which an ``Augmentation`` cannot do. They are given PIL images, and run
# image by image, so they are slower.
from torchvision.transforms import v2

turned = v2.Compose(
    [
        v2.RandomResizedCrop(24, scale=(0.5, 1.0)),
        v2.RandomRotation(30),
        v2.RandomGrayscale(0.5),
    ]
)
own = SimCLR(augment=turned, epochs=1, **settings).fit(X[:200])
ViewsDisplay.from_estimator(own, X, n_images=4, random_state=0)

# %%
# "Your own augmentation" in :doc:`/guide/training` lists what is assumed of transforms.
