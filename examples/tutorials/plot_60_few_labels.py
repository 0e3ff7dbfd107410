"""
Few labels
==========

Of 600 images, 15 have a label. An encoder learns from all images, is fine-tuned on the labelled ones, and teaches a
student on all images again. This is SimCLRv2's recipe for semi-supervised learning.
"""

# %%
# Images and labels
# -----------------
#
# The generated images show a disc, a ring, or a ring with a dot. An unknown class is -1. :func:`skssl.label_fraction`
# keeps a share of the labels of each class.
from skssl import label_fraction
from skssl.datasets import make_rings

X, y = make_rings(900, random_state=0)
X = X.mean(-1).astype("uint8")  # grey
X_train, X_test, y_train, y_test = X[:600], X[600:], y[:600], y[600:]
few = label_fraction(y_train, 15 / 600, random_state=0)
labelled = few != -1
print(labelled.sum(), "labels of", len(set(few[labelled])), "classes")

# %%
# Three uses of an encoder
# ------------------------
#
# A linear probe leaves the encoder as it is. :class:`skssl.FineTuner` trains a copy of it with a linear head.
# :class:`skssl.Distiller` trains a student to predict the fine-tuned network's probabilities for all images, labelled
# or not. The student may be a smaller network.
from skssl import Augmentation, Distiller, FineTuner, LinearProbe, SimCLR

augment = Augmentation(
    crop_scale=(0.5, 1.0), quarter_turn=1.0, brightness=0.3, contrast=0.3
)
encoder = SimCLR(
    backbone="convnet", augment=augment, epochs=12, batch_size=64, random_state=0
).fit(X_train)
probe = LinearProbe().fit(encoder.transform(X_train[labelled]), few[labelled])

weak = Augmentation(
    crop_scale=(0.8, 1.0), quarter_turn=1.0, brightness=0.2, contrast=0.2
)
tuning = {
    "augment": weak,
    "epochs": 40,
    "batch_size": 15,
    "backbone_lr": 0.1,
    "head_lr": 0.2,
    "random_state": 0,
}
tuner = FineTuner(encoder, **tuning).fit(X_train, few)
student = Distiller(
    tuner, encoder, augment=weak, epochs=10, batch_size=64, random_state=0
).fit(X_train)

# %%
# The baselines use the same 15 labels: logistic regression on the pixels, and the same network, trained from scratch.
from sklearn.linear_model import LogisticRegression

scratch = FineTuner(SimCLR(backbone="convnet", epochs=0, random_state=0), **tuning).fit(
    X_train, few
)
flat, flat_test = X_train.reshape(600, -1) / 255, X_test.reshape(300, -1) / 255
pixels = LogisticRegression(max_iter=1000).fit(flat[labelled], few[labelled])

scores = {
    "pixels": pixels.score(flat_test, y_test),
    "from scratch": scratch.score(X_test, y_test),
    "linear probe": probe.score(encoder.transform(X_test), y_test),
    "fine-tuned": tuner.score(X_test, y_test),
    "distilled": student.score(X_test, y_test),
}

# %%
import matplotlib.pyplot as plt

figure, ax = plt.subplots(figsize=(5, 2.4), layout="constrained")
bars = ax.barh(list(scores), list(scores.values()))
ax.bar_label(bars, fmt="%.2f", padding=3)
ax.set(xlabel="accuracy on 300 test images", xlim=(0, 1.1))
ax.invert_yaxis()

# %%
# This is one draw of 15 labels and one seed, and all networks are tiny. The images are simple, too: in 100 epochs of
# fine-tuning the network from scratch catches up. Compare over several draws before you choose: :doc:`plot_80_compare`.
#
# The settings here fit 15 images. ``recipes.FINE_TUNING`` has those of the papers for ImageNet, see :doc:`/recipes`.
# If the encoder is not fitted, ``FineTuner(SimCLR())`` first fits it to all images, so it can be cross-validated as
# one estimator.
