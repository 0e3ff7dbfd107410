"""
How a training went
===================

The losses by name, the accuracy of the pretext task, and two measures of collapse: the
spread of the embeddings, of which 1 is healthy, and their effective rank.
"""

from sklearn.datasets import load_digits

from skssl import Augmentation, SimCLR, SimSiam, TrainingDisplay

X = load_digits().images
augment = Augmentation(crop_scale=(0.4, 1.0), flip=0.0)
settings = {
    "backbone": "convnet",
    "augment": augment,
    "epochs": 15,
    "batch_size": 128,
    "random_state": 0,
}

# %%
# One estimator, with the terms of its loss.
rotated = SimCLR(aux="rotation", **settings).fit(X)
TrainingDisplay.from_estimator(rotated)

# %%
# Several, side by side.
estimators = {
    "SimCLR": SimCLR(**settings).fit(X),
    "SimSiam": SimSiam(proj_dim=128, pred_dim=32, **settings).fit(X),
    "SimSiam, no predictor": SimSiam(proj_dim=128, predictor=False, **settings).fit(X),
}
TrainingDisplay.from_estimator(
    estimators, measures=["loss", "embedding_std", "effective_rank"]
)
