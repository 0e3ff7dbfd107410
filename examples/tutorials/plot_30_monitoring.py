"""
Watching a training, and stopping it
====================================

The loss of a self-supervised method does not tell how good the features are. This tutorial records scores during the
training, stops when they no longer improve, and recognises collapse.
"""

# %%
# Scores after each epoch
# -----------------------
#
# :class:`skssl.callbacks.KNNMonitor` classifies held-out images by their neighbours after each epoch.
# :class:`skssl.callbacks.LinearMonitor` trains a linear classifier beside the encoder. Both need labels of some
# images; -1 marks an unknown class. The encoder is the same with and without them.
#
# ``callbacks`` also takes skorch's callbacks, such as ``EarlyStopping``, which stands last. It stops when the kNN
# accuracy has not improved for five epochs.
import numpy as np
from sklearn.datasets import load_digits
from skorch.callbacks import EarlyStopping

from skssl import Augmentation, SimCLR, TrainingDisplay
from skssl.callbacks import KNNMonitor, LinearMonitor

X, y = load_digits().images, load_digits().target
X_train, X_val, y_val = X[:1200], X[1200:], y[1200:]
few = np.where(np.arange(1200) < 200, y[:1200], -1)  # 200 labels

augment = Augmentation(crop_scale=(0.4, 1.0), flip=0.0)
settings = {
    "backbone": "convnet",
    "augment": augment,
    "batch_size": 128,
    "random_state": 0,
}
watch = [
    KNNMonitor(X_train, few, X_val, y_val, n_neighbors=3),
    LinearMonitor(few, X_val, y_val),
    EarlyStopping("knn", lower_is_better=False, patience=5),
]
encoder = SimCLR(epochs=40, callbacks=watch, **settings).fit(X_train)
print(f"stopped after {len(encoder.history_)} of 40 epochs")
encoder.history_[["epoch", "loss", "knn", "linear", "effective_rank"]].tail().round(3)

# %%
TrainingDisplay.from_estimator(
    encoder, measures=["loss", ("knn", "linear"), "effective_rank"]
)

# %%
# Stopping early saves time, but the learning rate then never reaches the end of its schedule, and short plateaus are
# normal. For a final model, choose the number of epochs and train to the end. The images that decide when to stop
# also make its score too good: report that of other images.
#
# Collapse
# --------
#
# A method without negatives may map all images to nearly one point while its loss falls. ``history_`` has two
# measures: ``embedding_std`` (1 is healthy, 0 is collapse) and ``effective_rank``, the number of directions in use.
# SimSiam without its predictor, here at a high learning rate, is the textbook case:
from skssl import SimSiam

collapsed = SimSiam(proj_dim=128, predictor=False, lr=2.0, epochs=10, **settings)
history = collapsed.fit(X_train).history_
history[["epoch", "loss", "embedding_std", "effective_rank"]].tail(3).round(3)

# %%
# The loss approaches -1, its lowest value, but only because the features use two directions. A
# :class:`skssl.CollapseWarning` is given if the measures fall far enough, and suggests remedies.
# ``warnings.simplefilter("error", skssl.CollapseWarning)`` stops the training instead. A training of hours needs
# ``checkpoint="folder"``, too, from which an interrupted ``fit`` resumes: see :doc:`/guide/training`.
