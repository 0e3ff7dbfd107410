"""Features without training: random patches of the images, whitened, as filters (Coates and Ng).

Coates, Ng and Lee, An Analysis of Single-Layer Networks in Unsupervised Feature Learning, AISTATS 2011; Coates and Ng,
The Importance of Encoding Versus Training with Sparse Coding and Vector Quantization, ICML 2011.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from torch import Tensor
from torch.nn import functional as F

N_SAMPLES, BATCH = 100_000, 256  # patches from which the whitening is estimated; images per convolution


@dataclass(eq=False, repr=False)
class WhitenedPatches(TransformerMixin, BaseEstimator):
    """Correlations of images with random whitened patches, rectified with both signs and averaged on a grid.

    Parameters
    ----------
    n_patches : int, default=256
        Number of filters. The features are 2 * n_patches * grid**2.
    size : int, default=6
        Height and width of the patches.
    grid : int, default=2
        Number of cells in each direction whose mean responses are the features.
    threshold : float, default=0.25
        Responses below it count as zero.
    contrast_eps, whitening_eps : float
        What is added to the variance of a patch, and to the eigenvalues of the covariance of all patches.
    random_state : int, default=0
        Seed of the drawn patches.

    Examples
    --------
    >>> from benchmarks.patches import WhitenedPatches
    >>> from skssl.datasets import make_shapes
    >>> X, y = make_shapes(20, image_size=16, random_state=0)
    >>> WhitenedPatches(n_patches=8).fit_transform(X).shape
    (20, 64)
    """

    n_patches: int = 256
    size: int = 6
    grid: int = 2
    threshold: float = 0.25
    contrast_eps: float = 1e-3
    whitening_eps: float = 0.1
    random_state: int = 0

    def fit(self, X: np.ndarray, y: object = None) -> WhitenedPatches:
        """Draw patches of uint8 images (n, h, w, c), and whiten them."""
        generator, size = torch.Generator().manual_seed(self.random_state), self.size
        rows = torch.randint(len(X), (N_SAMPLES,), generator=generator)
        corners = [torch.randint(side - size + 1, (N_SAMPLES,), generator=generator) for side in X.shape[1:3]]
        down, right = (corner[:, None] + torch.arange(size) for corner in corners)
        drawn = torch.from_numpy(X)[rows[:, None, None], down[:, :, None], right[:, None]]  # (n, size, size, c)
        patches = drawn.permute(0, 3, 1, 2).flatten(1) / 255
        patches = patches - patches.mean(1, keepdim=True)
        patches = patches / (patches.square().mean(1, keepdim=True) + self.contrast_eps).sqrt()
        mean, covariance = patches.mean(0), patches.T.cov(correction=0)
        values, vectors = torch.linalg.eigh(covariance)
        whitening = vectors * (values + self.whitening_eps).rsqrt() @ vectors.T
        chosen = torch.randperm(N_SAMPLES, generator=generator)[: self.n_patches]
        filters = F.normalize((patches[chosen] - mean) @ whitening) @ whitening
        self.bias_ = filters @ mean
        self.filters_ = filters.view(-1, X.shape[3], size, size)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Return features (n, 2 * n_patches * grid**2), float32."""
        return torch.cat([self._encode(images) for images in torch.from_numpy(X).split(BATCH)]).numpy()

    def _encode(self, images: Tensor) -> Tensor:
        x = images.permute(0, 3, 1, 2) / 255
        mean, square = (F.avg_pool2d(of.mean(1, keepdim=True), self.size, 1) for of in (x, x * x))
        scale = ((square - mean * mean).clamp(min=0) + self.contrast_eps).rsqrt()  # of each patch's contrast
        centred = self.filters_ - self.filters_.mean((1, 2, 3), keepdim=True)
        responses = F.conv2d(x, centred) * scale - self.bias_[:, None, None]
        both = torch.cat([F.relu(sign * responses - self.threshold) for sign in (1, -1)], 1)
        return F.adaptive_avg_pool2d(both, self.grid).flatten(1)
