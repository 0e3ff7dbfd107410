"""
A map of the features
=====================

Digits, whose classes the encoder has never been told, as points and as thumbnails.
"""

from sklearn.datasets import load_digits

from skssl import Augmentation, EmbeddingDisplay, SimCLR

X, y = load_digits().images, load_digits().target
augment = Augmentation(crop_scale=(0.4, 1.0), flip=0.0)
encoder = SimCLR(
    backbone="convnet", augment=augment, epochs=20, batch_size=128, random_state=0
).fit(X)

# %%
# t-SNE shows who is near whom. In a report the pointer on a point shows its image.
EmbeddingDisplay.from_estimator(encoder, X, y)

# %%
# The two directions in which the features vary most, with as many images as find room.
EmbeddingDisplay.from_estimator(encoder, X, y, method="pca", thumbnails=True)
