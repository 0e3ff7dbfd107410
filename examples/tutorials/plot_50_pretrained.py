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

from skssl import Augmentation, SimCLR
from skssl.datasets import make_rings

augment = Augmentation(
    crop_scale=(0.5, 1.0), quarter_turn=1.0, brightness=0.3, contrast=0.3
)
settings = {"backbone": "convnet", "augment": augment, "random_state": 0}
many = make_rings(600, random_state=0)[0].mean(-1).astype("uint8")  # grey
weights = Path(tempfile.mkdtemp()) / "weights.safetensors"
SimCLR(epochs=12, batch_size=64, **settings).fit(many).export(weights)

# %%
# Your own images are few, and from another camera: here 60 with half the contrast. 300 others are for the test.
X, y = make_rings(360, random_state=1)
X = (64 + X.mean(-1) / 2).astype("uint8")
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
    "pretrained, trained further": SimCLR(
        epochs=10, lr=0.02, batch_size=30, backbone_weights=weights, **settings
    ),
}
for title, encoder in encoders.items():
    encoder.fit(X[train])
    probe = KNNProbe(n_neighbors=5).fit(encoder.transform(X[train]), y[train])
    accuracy = probe.score(encoder.transform(X[test]), y[test])
    print(f"{title:28} kNN accuracy {accuracy:.2f}")

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
