"""k-nearest-neighbour classification by cosine similarity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from sklearn.preprocessing import normalize
from sklearn.utils._param_validation import Interval
from torch import Tensor
from tqdm.auto import tqdm

from skssl.probes.base import Probe, take_array
from skssl.probes.protocols import KNN, KNN_DEFAULTS

BANK_ROWS = 16384  # training samples in one block of similarities


@dataclass(kw_only=True, eq=False, repr=False)
class KNNProbe(Probe):
    """k-nearest-neighbour classifier by cosine similarity, an evaluation without training.

    The score of a class is the sum of ``exp(similarity / temperature)`` [1]_ over its samples among the ``n_neighbors``
    nearest, or their number if the temperature is infinite. The first of classes with equal scores wins. Similarities
    are computed in blocks of ``block_size`` by 16,384, which bounds the memory for data of any size.

    Parameters
    ----------
    protocol : {"effssl", "gsg", "moco"}, default=None
        The paper whose values replace None below, see the notes. There is no "simsiam" and no "transfer".
    n_neighbors : int, default=None
        The number of neighbours. None is the protocol's, or 20.
    temperature : float in (0, inf], default=None
        The temperature of the weights; with infinity all neighbours weigh the same. None is the protocol's, or
        infinity.
    block_size : int, default=1024
        The number of queries compared at once; 1,024 take 64 MiB in float32.

    Attributes
    ----------
    bank_ : ndarray of shape (n_samples, n_features), float32 or float64
        The training features, normalised to unit norm.
    codes_ : ndarray of shape (n_samples,), int64
        Their classes, as indices into ``classes_``.
    classes_ : ndarray of shape (n_classes,)
        The class labels.
    encoder_ : Encoder or None
        The encoder, if there is one.
    n_features_in_ : int
        The number of features, or of values in an image.

    Raises
    ------
    ValueError
        On ``fit``, if a parameter is invalid or the labels hold a single class; on prediction, if there are fewer
        training samples than neighbours; on ``score``, if a class is missing from the training labels.

    Notes
    -----
    ==========  ===========  ===========  ==========================================================================
    protocol    n_neighbors  temperature  source
    ==========  ===========  ===========  ==========================================================================
    "effssl"    200          0.1          MoCo's values; EffSSL [2]_ states neither
    "gsg"       1            inf          the text of guided stop-gradient [3]_ on CIFAR-10
    "moco"      200          0.1          the CIFAR-10 demo of MoCo's authors [4]_, which uses the projector's output:
                                          ``layer="projector"``
    ==========  ===========  ===========  ==========================================================================

    On ImageNet the text of [3]_ uses the majority of 200 neighbours, while its script weighs them with a temperature of
    0.2; [1]_ uses 200 neighbours and 0.07. No protocol augments. A feature vector of zeros has similarity 0 to all
    others.

    References
    ----------
    .. [1] Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018.
    .. [2] "Towards Efficient and Effective Self-Supervised Learning of Visual Representations", ECCV 2022.
    .. [3] Lee and Lee, "Implicit Contrastive Representation Learning with Guided Stop-gradient", NeurIPS 2023.
    .. [4] He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> probe = KNNProbe(n_neighbors=10, temperature=0.1, device="cpu").fit(X[::2], y[::2])
    >>> round(probe.score(X[1::2], y[1::2]), 2)
    0.97
    """

    protocol: str | None = None
    n_neighbors: int | None = None
    temperature: float | None = None
    block_size: int = 1024

    protocols: ClassVar[dict[str, dict[str, Any]]] = KNN
    defaults: ClassVar[dict[str, Any]] = KNN_DEFAULTS

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **Probe._parameter_constraints,
        "protocol": [str, None],
        "n_neighbors": [Interval(Integral, 1, None, closed="left"), None],
        "temperature": [Interval(Real, 0, None, closed="right"), None],
        "block_size": [Interval(Integral, 1, None, closed="left")],
    }

    def fit(self, X: Any, y: npt.ArrayLike | None = None) -> KNNProbe:
        """Store the training features and their labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or images
            The features, or the images if there is an `encoder`.
        y : array-like of shape (n_samples,), default=None
            The labels: numbers or strings. Samples of unknown class, -1, are left out, with a warning that says how
            many. An encoder that is not fitted is trained on all. Labels that are all -1 or 1 are two classes. None
            takes the labels in X, such as a data set of items (image, label).

        Returns
        -------
        KNNProbe
            The fitted probe.
        """
        X, labels, known = self._check_X_y(X, y)
        self.codes_ = self._codes(labels[known])
        features = self._encode_samples(self._read_samples(X, labels, known))
        if self._device.type == "mps":  # MPS has no float64
            features = features.astype(np.float32, copy=False)
        self.bank_ = normalize(features)
        return self

    def _pack_learned(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {}, {"bank": torch.from_numpy(self.bank_), "codes": torch.from_numpy(self.codes_)}

    def _set_learned(self, values: Mapping[str, Any], tensors: dict[str, Tensor], width: int) -> None:
        bank = take_array(tensors, "bank", (-1, width), torch.float32, torch.float64)
        codes = take_array(tensors, "codes", (len(bank),), torch.int64)
        if not ((codes >= 0) & (codes < len(self.classes_))).all():
            raise ValueError(f"'codes' must be indices of {len(self.classes_)} classes.")
        self.bank_, self.codes_ = bank, codes

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the share of each class in the vote.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or images
            The features, or the images if there is an `encoder`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            The shares in the order of ``classes_``.
        """
        features = self._encode_queries(X)
        n_neighbors, temperature = self.setting("n_neighbors"), self.setting("temperature")
        if n_neighbors > len(self.bank_):
            raise ValueError(
                f"Expected n_neighbors <= n_samples_fit, but n_neighbors = {n_neighbors}, "
                f"n_samples_fit = {len(self.bank_)}, n_samples = {len(features)}"
            )
        bank, codes = (torch.from_numpy(array).to(self._device) for array in (self.bank_, self.codes_))
        blocks = torch.from_numpy(normalize(features).astype(self.bank_.dtype, copy=False)).split(self.block_size)
        votes = []
        for queries in tqdm(blocks, "KNNProbe", unit=" blocks", disable=not self.verbose):
            similarity, index = _top_similarities(queries.to(bank.device), bank, n_neighbors)
            weights = ((similarity - similarity[:, :1]) / temperature).exp()  # at most 1
            score = weights.new_zeros(len(weights), len(self.classes_))
            votes.append(score.scatter_add_(1, codes[index], weights).cpu())
        share = torch.cat(votes).numpy().astype(np.float64)
        return share / share.sum(axis=1, keepdims=True)


def _top_similarities(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest products of each query with the bank, in descending order, and their indices."""
    values, indices = (
        queries.new_empty(len(queries), 0),
        torch.empty(len(queries), 0).to(queries.device, torch.int64),
    )
    for start in range(0, len(bank), BANK_ROWS):
        block = queries @ bank[start : start + BANK_ROWS].T  # (n_queries, at most BANK_ROWS)
        value, index = block.topk(min(k, block.shape[1]))
        values, indices = torch.cat([values, value], dim=1), torch.cat([indices, index + start], dim=1)
        values, order = values.topk(min(k, values.shape[1]))
        indices = indices.gather(1, order)
    return values, indices
