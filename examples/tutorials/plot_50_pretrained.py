"""
Starting from pretrained weights
================================

With few images of your own, start from a network that was trained on many. This tutorial reads the weights of a file,
uses them without training, and trains them further on other images.
"""

# %%
# A pretrained network
# --------------------
#
# So that the script needs no download, it first trains a small network on generated images of discs and rings, and
# writes its weights as a ``state_dict``. In practice the file comes from torchvision, timm or Hugging Face, or is a
# checkpoint of MoCo or SwAV.
import tempfile
from pathlib import Path

import numpy as np

from skssl import Augmentation, SimCLR


def make_cells(n, contrast, noise, seed):
    """Generate grey images of discs, rings, and rings with a dot."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:24, :24]
    y = rng.integers(3, size=n)
    kind, radius = y[:, None, None], rng.uniform(4, 7, (n, 1, 1))
    centre = rng.uniform(9, 15, (n, 2, 1, 1))
    distance = np.hypot(rows - centre[:, 0], columns - centre[:, 1])
    cell = np.where(kind == 0, distance < radius, abs(distance - radius) < 1.2) | ((kind == 2) & (distance < 2))
    X = 60 + contrast * cell * rng.uniform(0.5, 1, (n, 1, 1)) + rng.normal(0, noise, (n, 24, 24))
    return X.clip(0, 255).astype(np.uint8), y


augment = Augmentation(crop_scale=(0.5, 1.0), quarter_turn=1.0, brightness=0.3, contrast=0.3)
settings = {"backbone": "convnet", "augment": augment, "random_state": 0}
many, _ = make_cells(600, contrast=110, noise=22, seed=0)
weights = Path(tempfile.mkdtemp()) / "weights.safetensors"
SimCLR(epochs=12, batch_size=64, **settings).fit(many).export(weights)

# %%
# Your own images are few, and from another microscope: here 60 with half the contrast. 300 others are for the test.
X, y = make_cells(360, contrast=60, noise=12, seed=1)
train, test = slice(0, 60), slice(60, None)

# %%
# Features with and without training
# ----------------------------------
#
# - ``epochs=0`` with ``backbone_weights`` extracts features, and trains nothing.
# - ``backbone_weights`` with some epochs and a low learning rate adapts the network to the images, without labels.
# - Without weights, the training starts from a random network.
from skssl import KNNProbe

encoders = {
    "untrained": SimCLR(epochs=0, batch_size=30, **settings),
    "trained from scratch": SimCLR(epochs=10, batch_size=30, **settings),
    "pretrained": SimCLR(epochs=0, batch_size=30, backbone_weights=weights, **settings),
    "pretrained, trained further": SimCLR(epochs=10, lr=0.02, batch_size=30, backbone_weights=weights, **settings),
}
for title, encoder in encoders.items():
    encoder.fit(X[train])
    probe = KNNProbe(n_neighbors=5).fit(encoder.transform(X[train]), y[train])
    print(f"{title:28} kNN accuracy {probe.score(encoder.transform(X[test]), y[test]):.2f}")

# %%
# A guess is right for one image of three. One seed of a small experiment shows the order roughly, no more.
#
# Pretrained networks of other libraries
# --------------------------------------
#
# A module that has weights is a backbone itself. Its classifier is removed, and its first convolution is adapted to
# the channels of your images:
#
# .. code-block:: python
#
#     import timm
#     import torchvision
#
#     SimCLR(backbone=torchvision.models.resnet18(weights="DEFAULT"), epochs=0)  # downloads the weights
#     SimCLR(backbone=timm.create_model("vit_small_patch16_224", pretrained=True), epochs=0)
#     SimCLR(backbone="resnet50", backbone_weights="moco_v2_800ep_pretrain.pth.tar")
#     SimCLR(warm_start_from=fitted)  # another estimator of skssl
#
# Fine-tuning uses labels: see :doc:`plot_60_few_labels`. :doc:`/guide/encoders` lists the formats of files.
