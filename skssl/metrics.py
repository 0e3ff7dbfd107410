"""Measures of representations that need no classes, and the mean per-class accuracy of transfer data sets."""

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

from skssl.images.photographs import Photographs
from skssl.nn.inference import eval_mode
from skssl.probes.encoders import as_encoder, read_once
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
    """Accuracy of a classifier on frozen features that predicts the rotation of an image.

    Every image is rotated by 0, 90, 180 and 270 degrees. The probe is trained on the features of `X` and tested on
    those of `X_test`. Chance is 0.25.

    Parameters
    ----------
    encoder : SSLTransformer, FrozenEstimator of one, or torch.nn.Module
        The encoder, see `encoders.as_encoder`. It runs in evaluation mode.
    X, X_test : array-like, sequence of files or PIL images, data set or iterable
        Images to train and to test the probe on. No labels are needed.
    layer : str, default="backbone"
        The layer whose features are used: "backbone", "projector", or another one of `encoders.at_layer`.
    probe : classifier, default=None
        The classifier that is trained on the features. None is an MLP on standardised features, with one hidden layer
        of the features' width and early stopping on a held-out tenth.
    device : str or torch.device, default="auto"
        The device of a module. An estimator has its own device.
    random_state : int, RandomState or None, default=None
        Seed of the default probe.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    float
        The fraction of rotated test images whose rotation is predicted correctly.

    References
    ----------
    Towards Efficient and Effective Self-Supervised Learning of Visual Representations (EffSSL), ECCV 2022, table 4. It
    does not state how the head is trained.

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
    X = read_once(encoder, X)
    found = as_encoder(encoder, X, layer=layer, device=device)
    features, turns = [], []
    with tqdm(total=8, desc="Rotations", disable=not verbose) as bar:
        for images in (found.read(X), found.read(X_test)):
            parts = []
            for turn in range(4):
                parts.append(replace(found, module=nn.Sequential(_Rotate(turn), found.module)).transform(images))
                bar.update()
            features.append(np.concatenate(parts))
            turns.append(np.arange(4).repeat(len(images)))
    if probe is None:
        seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
        n, width = features[0].shape
        mlp = MLPClassifier((width,), batch_size=min(512, n // 2), random_state=seed, verbose=bool(verbose))
        probe = make_pipeline(StandardScaler(), mlp.set_params(early_stopping=True, n_iter_no_change=5))
    return float(clone(probe).fit(features[0], turns[0]).score(features[1], turns[1]))


class _Rotate(nn.Module):
    """Rotate all images by a multiple of 90 degrees, counter-clockwise."""

    def __init__(self, turn: int) -> None:
        super().__init__()
        self.turn = turn

    def forward(self, images: Tensor) -> Tensor:
        """Rotate images (n, c, h, w)."""
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
    """Fraction of views whose nearest view in a batch is the other view of the same image.

    Two views of every image are made, those of photographs from whole pictures. A view is correct if it is more
    similar, by the cosine, to the other view of its image than to both views of every other image. Larger batches are
    harder: report the batch size with the value.

    Parameters
    ----------
    encoder : SSLTransformer, FrozenEstimator of one, or torch.nn.Module
        The encoder, see `encoders.as_encoder`. It runs in evaluation mode.
    X : array-like, sequence of files or PIL images, data set or iterable
        Images, which are shuffled. Images beyond the last full batch are left out.
    batch_size : int, default=512
        Number of images per batch, at most the number of images.
    layer : str, default="backbone"
        The layer whose features are used: "backbone", "projector", or another one of `encoders.at_layer`.
    augment : str, Augmentation or sequence of Augmentation, default=None
        The augmentation of the views, with the encoder's normalisation. Use the same one to compare encoders. A single
        augmentation is used for both views. None is that of the first view in the encoder's training, without its
        saliency maps, which belong to the training images; for a module it is the preset "simclr". Saliency maps given
        here belong to `X`, one for each image.
    device : str or torch.device, default="auto"
        The device of a module. An estimator has its own device.
    random_state : int, RandomState or None, default=None
        Seed of the shuffling and of the views.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    float
        The fraction of correct views.

    Raises
    ------
    ValueError
        If `batch_size` exceeds the number of images, or the numbers of saliency maps and images differ.

    References
    ----------
    Towards Efficient and Effective Self-Supervised Learning of Visual Representations (EffSSL), ECCV 2022, table 4. It
    does not state the batch size.

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
    X = read_once(encoder, X)
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
            if isinstance(images, Photographs):
                views = [augment.read_views(images, index, draws) for augment in (first, second)]
                features = [found.module(view).float() for view in views]
            else:  # items of a data set are read once for both views
                batch = images.read(index)
                features = [found.encode_views(augment, batch, index, draws) for augment in (first, second)]
            right.append(nearest_is_positive(*features))
    return float(torch.cat(right).cpu().double().mean())  # MPS has no float64


def nearest_is_positive(z1: Tensor, z2: Tensor) -> Tensor:
    """Return whether the nearest view of each of z1, then of z2, both (n, d), is the other view of its image: (2n,)."""
    z = nn.functional.normalize(torch.cat([z1, z2]), dim=1)
    similarity = z @ z.T  # (2n, 2n)
    n = len(z1)
    other = torch.arange(2 * n, device=z.device).roll(n)[:, None]
    own = similarity.gather(1, other)
    similarity = similarity.scatter(1, other, -torch.inf).fill_diagonal_(-torch.inf)
    return own[:, 0] > similarity.amax(1)


def alignment(z1: Any, z2: Any, *, alpha: float = 2.0) -> float:
    r"""Mean distance between the embeddings of the two views of an image.

    .. math:: \frac{1}{n} \sum_i \lVert z^1_i - z^2_i \rVert^\alpha

    with all rows normalised to length one.

    Parameters
    ----------
    z1, z2 : array-like of shape (n, d)
        Embeddings of the first and the second view of n images.
    alpha : float, default=2.0
        Exponent of the distance.

    Returns
    -------
    float
        Between 0, where both views have the same embedding, and 2 to the power alpha. Lower values are more invariant.

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
    r"""Uniformity of the distribution of embeddings on the unit sphere.

    .. math:: \log \frac{1}{n (n - 1)} \sum_{i \neq j} \exp(-t \lVert z_i - z_j \rVert^2)

    with all rows normalised to length one. Pairs are compared in blocks, so that memory is bounded.

    Parameters
    ----------
    z : array-like of shape (n, d)
        Embeddings of at least two different images.
    t : float, default=2.0
        Sharpness of the Gaussian kernel.

    Returns
    -------
    float
        Between -4t and 0, where all embeddings are equal (collapse). Lower values are more uniform.

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
        distances[rows, start + rows] = np.inf  # exclude pairs (i, i)
        return logsumexp(-t * distances, axis=1)

    sums = pairwise_distances_chunked(z, metric="sqeuclidean", reduce_func=kernel)
    return float(logsumexp(np.concatenate(list(sums))) - np.log(len(z) * (len(z) - 1.0)))


def effective_rank(z: Any) -> float:
    """Effective number of dimensions: the exponential of the entropy of the normalised singular values.

    Parameters
    ----------
    z : array-like of shape (n, d)
        Embeddings, which are centred first.

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
    """Return the mean over classes of the accuracy within a class.

    It is the measure for transfer to data sets with classes of different sizes, such as Caltech-101, Pets and Flowers.
    It equals scikit-learn's ``balanced_accuracy_score``, but does not warn of predicted classes missing from `y_true`.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n,)
        True and predicted classes.

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
