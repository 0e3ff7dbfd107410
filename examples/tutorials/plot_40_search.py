"""
Choosing settings by a grid search
==================================

Every method is an estimator, so ``GridSearchCV`` chooses its parameters. This tutorial searches the temperature of
the loss and the weight of an auxiliary task.
"""

# %%
# A pipeline to search
# --------------------
#
# The encoder learns from the training part of each split, and the classifier from its features. The names of the
# parameters are scikit-learn's: ``ssl__temperature`` is the temperature of the step "ssl".
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline

from skssl import Augmentation, KNNProbe, SimCLR

X, y = load_digits().images, load_digits().target
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=0.3, stratify=y, random_state=0
)

augment = Augmentation(crop_scale=(0.4, 1.0), flip=0.0)
encoder = SimCLR(
    backbone="convnet",
    augment=augment,
    aux="rotation",
    epochs=4,
    batch_size=128,
    random_state=0,
)
pipeline = Pipeline([("ssl", encoder), ("clf", KNNProbe(n_neighbors=3))])

# %%
# The search
# ----------
#
# ``aux_weight`` is lambda in the papers: the loss of the rotation task is multiplied by it. Without the task it would
# be 0. Two splits and four epochs show how a search works. They are too few to choose settings.
grid = {"ssl__temperature": [0.1, 0.2, 0.5], "ssl__aux_weight": [0.1, 0.3, 1.0]}
search = GridSearchCV(pipeline, grid, cv=2).fit(X_train, y_train)
print(search.best_params_)
print(f"accuracy in the search {search.best_score_:.3f}")
print(f"accuracy on test images {search.score(X_test, y_test):.3f}")

# %%
# The score of the search is the best of nine, so it is too good. The test images were used for nothing else, so their
# score is fair.
import pandas as pd

scores = pd.DataFrame(search.cv_results_)
table = scores.pivot(
    index="param_ssl__aux_weight",
    columns="param_ssl__temperature",
    values="mean_test_score",
)
table.round(3)

# %%
import matplotlib.pyplot as plt

figure, ax = plt.subplots(figsize=(4, 3), layout="constrained")
shown = ax.imshow(table, cmap="viridis")
ax.set_xticks(range(3), table.columns)
ax.set_yticks(range(3), table.index)
ax.set(xlabel="temperature", ylabel="aux_weight")
figure.colorbar(shown, label="mean kNN accuracy")

# %%
# Larger searches
# ---------------
#
# - ``HalvingGridSearchCV(pipeline, grid, resource="ssl__epochs", max_resources=200)`` trains all settings briefly,
#   and the best ones longer.
# - ``Pipeline(..., memory="cache")`` trains each encoder once if only the classifier's parameters differ.
# - With several GPUs or machines, the search runs through joblib's Dask backend: see :doc:`/scaling`.
# - If few images are labelled, fit the encoder on all images once, and search the classifier's parameters only, with
#   the encoder in a ``FrozenEstimator``: see :doc:`/guide/evaluation`.
