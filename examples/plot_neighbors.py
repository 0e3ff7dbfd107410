"""
Which images are alike
======================

Some digits, and the images whose features are nearest to theirs by cosine similarity.
Green frames are of the query's class, which the encoder has never been told; broken
orange ones are not.
"""

from sklearn.datasets import load_digits

from skssl import Augmentation, NeighborsDisplay, SimCLR

X, y = load_digits().images, load_digits().target
augment = Augmentation(crop_scale=(0.4, 1.0), flip=0.0)
encoder = SimCLR(
    backbone="convnet", augment=augment, epochs=10, batch_size=128, random_state=0
).fit(X)

NeighborsDisplay.from_estimator(encoder, X, y, random_state=1)
