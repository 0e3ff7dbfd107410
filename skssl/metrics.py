"""Measures of representations that need no class, and the one of classes that is the transfer sets' own."""

from __future__ import annotations

from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.metrics import pairwise_distances_chunked, recall_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize
from sklearn.utils import check_array, check_random_state
from torch import Tensor, nn
from tqdm.auto import tqdm

from skssl.nn.passes import eval_mode
from skssl.probes.encoders import as_encoder
from skssl.training import collapse

__all__ = [
    "alignment",
    "contrastive_accuracy",
    "effective_rank",
    "mean_per_class_accuracy",
    "rotation_accuracy",
    "uniformity",
]


def rotation_accuracy(
    encoder: Any,
    X: Any,
    X_test: Any,
    *,
    layer: str = "backbone",
    probe: Any = None,
    device: Any = "auto",
    random_state: Any = None,
    verbose: int = 0,
) -> float:
    """How well a classifier on frozen features tells by how much an image was turned.

    Every image is turned by 0, 90, 180 and 270 degrees; the probe learns from the features of `X` and is judged on
    those of `X_test`. Chance is 0.25.

    Parameters
    ----------
    encoder : SSLTransformer, FrozenEstimator of one, or torch.nn.Module
        See `encoders.as_encoder`; it is run in evaluation mode.
    X, X_test : array-like, sequence of files or PIL images, or torch Dataset
        Images to train the probe with, and to judge it on; no labels are needed.
    layer : str, default="backbone"
        Which layer's features: "backbone", "projector", or another one of `encoders.at_layer`.
    probe : classifier, default=None
        What is trained on the features. None is an MLP with one hidden layer as wide as they are, on standardised
        features, which stops when it no longer gains on a tenth that is held out.
    device : str or torch.device, default="auto"
        Where a module goes. An estimator has its own.
    random_state : int, RandomState or None, default=None
        Seed of the default probe.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    float
        The share of the turned test images whose turn is found.

    References
    ----------
    Towards Efficient and Effective Self-Supervised Learning of Visual Representations (EffSSL), ECCV 2022, table 4. How
    its head is trained is not stated.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skssl import SimCLR
    >>> from skssl.datasets import make_shapes
    >>> from skssl.metrics import rotation_accuracy
    >>> X, _ = make_shapes(80, image_size=16, random_state=0)
    >>> encoder = SimCLR(backbone="convnet", epochs=0, random_state=0)
    >>> rotation_accuracy(encoder, X[:60], X[60:], probe=LogisticRegression(max_iter=1000)) > 0.25
    True
    """
    found = as_encoder(encoder, X, layer=layer, device=device)
    features, turns = [], []
    with tqdm(total=8, desc="Turns", disable=not verbose) as bar:
        for images in (found.read(X), found.read(X_test)):
            parts = []
            for turn in range(4):
                parts.append(replace(found, module=nn.Sequential(_Turn(turn), found.module)).transform(images))
                bar.update()
            features.append(np.concatenate(parts))
            turns.append(np.arange(4).repeat(len(images)))
    if probe is None:
        seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
        n, width = features[0].shape
        mlp = MLPClassifier((width,), batch_size=min(512, n // 2), random_state=seed, verbose=bool(verbose))
        probe = make_pipeline(StandardScaler(), mlp.set_params(early_stopping=True, n_iter_no_change=5))
    return float(clone(probe).fit(features[0], turns[0]).score(features[1], turns[1]))


class _Turn(nn.Module):
    """Turn all images by a multiple of 90 degrees, counter-clockwise."""

    def __init__(self, turn: int) -> None:
        super().__init__()
        self.turn = turn

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (n, c, h, w)."""
        return torch.rot90(images, self.turn, (2, 3))


def contrastive_accuracy(
    encoder: Any,
    X: Any,
    *,
    batch_size: int = 512,
    layer: str = "backbone",
    augment: Any = None,
    device: Any = "auto",
    random_state: Any = None,
    verbose: int = 0,
) -> float:
    """How often an image's other view is the nearest of all views in a batch.

    Two views are made of every image. A view is right if its cosine similarity to the image's other view is larger than
    to either view of any other image. The larger the batch the harder, so that the value goes with the batch's size.

    Parameters
    ----------
    encoder : SSLTransformer, FrozenEstimator of one, or torch.nn.Module
        See `encoders.as_encoder`; it is run in evaluation mode.
    X : array-like, sequence of files or PIL images, or torch Dataset
        Images, which are shuffled; those beyond the last full batch are left out.
    batch_size : int, default=512
        Images a batch, at most as many as there are.
    layer : str, default="backbone"
        Which layer's features: "backbone", "projector", or another one of `encoders.at_layer`.
    augment : str, Augmentation or sequence of Augmentation, default=None
        What makes the views, in the encoder's own normalisation; to compare encoders give them the same. None is what
        the encoder was trained with (its first view's, for both), but for saliency maps, which belong to the images
        that it was trained on; a module has the preset "simclr". Maps that are given are those of `X`, one an image.
    device : str or torch.device, default="auto"
        Where a module goes. An estimator has its own.
    random_state : int, RandomState or None, default=None
        Seed of the order and of the views.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    float
        The share of the views that are right.

    Raises
    ------
    ValueError
        If there are fewer images than a batch has, or saliency maps are of another number than the images.

    References
    ----------
    Towards Efficient and Effective Self-Supervised Learning of Visual Representations (EffSSL), ECCV 2022, table 4. The
    size of its batches is not stated.

    Examples
    --------
    >>> from skssl import SimCLR
    >>> from skssl.datasets import make_shapes
    >>> from skssl.metrics import contrastive_accuracy
    >>> X, _ = make_shapes(64, image_size=16, random_state=0)
    >>> encoder = SimCLR(backbone="convnet", epochs=0, random_state=0)
    >>> contrastive_accuracy(encoder, X, batch_size=32, augment="none")
    1.0
    """
    found = as_encoder(encoder, X, layer=layer, device=device)
    images = found.read(X).to(found.device)
    if not isinstance(batch_size, Integral) or not 2 <= batch_size <= len(images):
        raise ValueError(f"batch_size must be from 2 to the number of images, {len(images)}. Got {batch_size!r}.")
    if augment is None and isinstance(encoder, nn.Module):
        augment = "simclr"
    augmentations = found.augmentations(augment, max(images.shape[1:]), len(images))
    first, second = (augmentations * 2)[:2]
    seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
    draws = torch.Generator(found.device).manual_seed(seed)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    batches = order[: len(order) // batch_size * batch_size].split(int(batch_size))
    right = []
    with eval_mode(found.module), torch.inference_mode():
        for index in tqdm(batches, desc="Batches", disable=not verbose):
            index = index.to(found.device)
            batch = images.read(index)
            right.append(_finds_its_other(*(found.module(a(batch, draws, index)).float() for a in (first, second))))
    return float(torch.cat(right).cpu().double().mean())  # MPS has no float64


def _finds_its_other(z1: Tensor, z2: Tensor) -> Tensor:
    """Tell of each view, first all of z1 (n, d), then of z2, whether its image's other one is the nearest of all."""
    z = nn.functional.normalize(torch.cat([z1, z2]), dim=1)
    similarity = z @ z.T  # (2n, 2n)
    n = len(z1)
    other = torch.arange(2 * n, device=z.device).roll(n)[:, None]
    own = similarity.gather(1, other)
    similarity = similarity.scatter(1, other, -torch.inf).fill_diagonal_(-torch.inf)
    return own[:, 0] > similarity.amax(1)


def alignment(z1: Any, z2: Any, *, alpha: float = 2.0) -> float:
    r"""How far apart the embeddings of an image's two views are, on average.

    .. math:: \frac{1}{n} \sum_i \lVert z^1_i - z^2_i \rVert^\alpha

    with all rows normalised to length one.

    Parameters
    ----------
    z1, z2 : array-like of shape (n, d)
        The embeddings of both views of the same images.
    alpha : float, default=2.0
        The power.

    Returns
    -------
    float
        0 where views are the same, at most 2 to the power alpha. The lower the more invariant.

    References
    ----------
    Wang and Isola, Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere, ICML 2020, section 4.1.

    Examples
    --------
    >>> from skssl.metrics import alignment
    >>> round(alignment([[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, -1.0]]), 6)
    2.0
    """
    z1, z2 = check_array(z1), check_array(z2)
    if z1.shape != z2.shape:
        raise ValueError(f"z1 and z2 must have the same shape. Got {z1.shape} and {z2.shape}.")
    return float((np.linalg.norm(normalize(z1) - normalize(z2), axis=1) ** alpha).mean())


def uniformity(z: Any, *, t: float = 2.0) -> float:
    r"""How evenly embeddings are spread over the sphere.

    .. math:: \log \frac{1}{n (n - 1)} \sum_{i \neq j} \exp(-t \lVert z_i - z_j \rVert^2)

    with all rows normalised to length one. Pairs are compared block by block, so that memory stays bounded.

    Parameters
    ----------
    z : array-like of shape (n, d)
        Embeddings of different images, two at least.
    t : float, default=2.0
        The kernel's sharpness.

    Returns
    -------
    float
        0 where all are the same (collapse), down to -4t. The lower the more uniform.

    References
    ----------
    Wang and Isola, Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere, ICML 2020, section 4.1.

    Examples
    --------
    >>> from skssl.metrics import uniformity
    >>> uniformity([[1.0, 0.0], [-1.0, 0.0]])
    -8.0
    """
    z = normalize(check_array(z, ensure_min_samples=2))

    def kernel(distances: np.ndarray, start: int) -> np.ndarray:
        rows = np.arange(len(distances))
        distances[rows, start + rows] = np.inf  # not with itself
        return logsumexp(-t * distances, axis=1)

    sums = pairwise_distances_chunked(z, metric="sqeuclidean", reduce_func=kernel)
    return float(logsumexp(np.concatenate(list(sums))) - np.log(len(z) * (len(z) - 1.0)))


def effective_rank(z: Any) -> float:
    """How many dimensions embeddings make use of: the exponential of the entropy of their singular values.

    Parameters
    ----------
    z : array-like of shape (n, d)
        Embeddings; they are centred.

    Returns
    -------
    float
        Between 1 (all on a line, or all equal) and min(n - 1, d).

    References
    ----------
    Roy and Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007.

    Examples
    --------
    >>> from skssl.metrics import effective_rank
    >>> round(effective_rank([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), 3)
    2.0
    """
    return collapse.effective_rank(torch.from_numpy(check_array(z, dtype=np.float32))).item()


def mean_per_class_accuracy(y_true: Any, y_pred: Any) -> float:
    """Average the accuracies within each of the true classes, so that all weigh the same.

    The measure of transfer to data sets whose classes differ in size, such as Caltech-101, Pets and Flowers. It is
    scikit-learn's ``balanced_accuracy_score``, without a warning where a class is predicted that is not there.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n,)
        The classes and those that were predicted.

    Returns
    -------
    float
        Between 0 and 1.

    References
    ----------
    Ericsson et al., How Well Do Self-Supervised Models Transfer?, CVPR 2021, section 3.2.

    Examples
    --------
    >>> from skssl.metrics import mean_per_class_accuracy
    >>> mean_per_class_accuracy(["cat", "cat", "cat", "dog"], ["cat", "cat", "cat", "cat"])
    0.5
    """
    return float(recall_score(y_true, y_pred, labels=np.unique(y_true), average="macro"))
