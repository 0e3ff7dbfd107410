"""Segmentation: UPerNet's head on an encoder's maps, and its mean intersection over union."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.transfer.dense import DenseTransfer, check_known, each_image
from skssl.transfer.pyramid import Pyramid, resize
from skssl.transfer.voc import VOID, Samples, find_files, read_mask

_MASKS = ("Segmentation", "SegmentationClass", ".png")


@dataclass(kw_only=True, eq=False, repr=False)
class SegmentationTransfer(DenseTransfer):
    """UPerNet's head on the maps of a trained encoder: how well what it has learned serves to classify pixels.

    The encoder's last map is pooled over grids of several sizes, a feature pyramid joins the maps of its stages, and
    all of the pyramid's maps together, at the size of the finest, are classified by two convolutions. The head is
    trained on a folder in PASCAL VOC's format: the images in ``JPEGImages``, masks in
    ``SegmentationClass/<name>.png``, which of them are for what in ``ImageSets/Segmentation/<split>.txt``.

    Attributes
    ----------
    classes_ : ndarray of uint8
        The masks' values. 255 is void, and no class.
    history_ : pandas.DataFrame
        A row an epoch: epoch, loss, loss_pixels, lr, images_per_second.
    model_ : torch.nn.Module
        The trained network.

    Notes
    -----
    Simpler than [1]_ and its code, which Ericsson et al. [2]_ use: the learning rate falls along a cosine and not
    polynomially, there is no second loss on an inner layer, the loss is taken at the images' full size and not at a
    quarter of it, and images are tested at one size.

    References
    ----------
    .. [1] Xiao et al., Unified Perceptual Parsing for Scene Understanding, ECCV 2018, section 3.1.
    .. [2] Ericsson et al., How Well Do Self-Supervised Models Transfer?, CVPR 2021, and its code.

    Examples
    --------
    >>> import tempfile
    >>> from skssl import SegmentationTransfer, SimCLR
    >>> from skssl.datasets import make_shapes, make_voc_folder
    >>> encoder = SimCLR(backbone="convnet", epochs=0).fit(make_shapes(2, random_state=0)[0])
    >>> folder = make_voc_folder(tempfile.mkdtemp(), 8, random_state=0)
    >>> segmenter = SegmentationTransfer(encoder, image_size=64, width=16, epochs=1, random_state=0).fit(folder)
    >>> segmenter.classes_
    array([0, 1, 2], dtype=uint8)
    >>> sorted(segmenter.evaluate(folder))
    ['mean_iou', 'pixel_accuracy']
    """

    image_size: Any = 480
    epochs: int = 45

    def predict(self, X: Any) -> list[np.ndarray]:
        """Classify pixels.

        Parameters
        ----------
        X : sequence of files, PIL images or arrays (h, w), (h, w, c) or (c, h, w), or array of these
            Images, each of its own size; uint8, or float in [0, 1].

        Returns
        -------
        list of ndarray of uint8, shape (h, w)
            For each image the class of every pixel, of `classes_`.
        """
        check_is_fitted(self, "model_")
        return [self._valued(self._run(image)) for image in each_image(X, self._channels)]

    def evaluate(self, folder: str | os.PathLike[str], split: str = "val") -> dict[str, float]:
        """Compare predicted masks with the true ones.

        Parameters
        ----------
        folder : str or path
            A folder in PASCAL VOC's format.
        split : str, default="val"
            Which of its images.

        Returns
        -------
        dict of str to float
            See `mean_iou`. Void pixels do not count.

        Raises
        ------
        FileNotFoundError
            If this is no such folder, or an image or a mask is missing.
        ValueError
            If there is no such split, or there are pixels of classes that the training images do not hold.
        """
        check_is_fitted(self, "model_")
        files = find_files(folder, split, *_MASKS)
        check_known(set(_values(files).tolist()), self.classes_, split)
        samples, truth, found = Samples(files, self._channels), [], []
        for i in self._progress(len(samples)):
            image, mask = samples[i]
            truth.append(mask.numpy())
            found.append(self._valued(self._run(image)))
        return mean_iou(truth, found)

    def _learn(self, folder: Any, split: str) -> list[tuple[Path, Any]]:
        files = find_files(folder, split, *_MASKS)
        self.classes_ = _values(files)
        if len(self.classes_) < 2:
            raise ValueError(
                f"The masks of the split {split!r} of {str(folder)!r} must hold at least 2 classes, the background "
                f"among them. Got {self.classes_.tolist()}."
            )
        return files

    def _build(self, encoder: nn.Module, channels: int, **transform: Any) -> nn.Module:
        from torchvision.models.detection.transform import GeneralizedRCNNTransform

        pyramid = Pyramid(encoder, channels, self.width, frozen=self.frozen, pooled=True)
        return Segmenter(pyramid, len(self.classes_), GeneralizedRCNNTransform(**transform))

    def _target(self, target: Tensor, device: torch.device, mirrored: int) -> Tensor:
        places = torch.full((256,), VOID)
        places[torch.from_numpy(self.classes_).long()] = torch.arange(len(self.classes_))
        target = places[target.long()].to(device)
        return target.flip(-1) if mirrored else target

    def _valued(self, found: Tensor) -> np.ndarray:
        """Turn places among the classes into their values."""
        return self.classes_[found.cpu().numpy()]


class Segmenter(nn.Module):
    """From images to classes of their pixels, called as torchvision's detectors are.

    Parameters
    ----------
    pyramid : Pyramid
        From images to maps.
    n_classes : int
        The number of classes.
    transform : torchvision.models.detection.transform.GeneralizedRCNNTransform
        Brings images to size, normalises and pads them.
    """

    def __init__(self, pyramid: Pyramid, n_classes: int, transform: nn.Module) -> None:
        from torchvision.ops import Conv2dNormActivation

        super().__init__()
        self.transform, self.pyramid, width = transform, pyramid, pyramid.out_channels
        self.fuse = Conv2dNormActivation(len(pyramid.strides) * width, width, 3)
        self.classifier = nn.Conv2d(width, n_classes, 1)

    def forward(self, images: list[Tensor], targets: list[Tensor] | None = None) -> Any:
        """Give the loss of images (c, h, w) and masks (h, w) of int64; in evaluation mode the predicted masks."""
        batch, _ = self.transform(images)
        maps = list(self.pyramid(batch.tensors).values())
        joined = torch.cat([resize(grid, maps[0].shape[2:]) for grid in maps], dim=1)
        scores = resize(self.classifier(self.fuse(joined)), batch.tensors.shape[2:])
        if targets is None:
            return [
                resize(score[None, :, :h, :w], image.shape[1:])[0].argmax(0)
                for score, (h, w), image in zip(scores, batch.image_sizes, images, strict=True)
            ]
        truth = torch.full_like(scores[:, 0], VOID, dtype=torch.int64)
        for i, (target, (h, w)) in enumerate(zip(targets, batch.image_sizes, strict=True)):
            truth[i, :h, :w] = F.interpolate(target[None, None].float(), (h, w), mode="nearest-exact")[0, 0].long()
        known = (truth != VOID).sum().clamp(min=1)  # a batch may be void altogether
        return {"loss_pixels": F.cross_entropy(scores, truth, ignore_index=VOID, reduction="sum") / known}


def _values(files: Sequence[tuple[Path, Any]]) -> np.ndarray:
    """List the classes in masks, as uint8."""
    values = np.unique(np.concatenate([np.unique(read_mask(path)) for _, path in files]))
    return values[values != VOID]


def mean_iou(truth: Iterable[np.ndarray], found: Iterable[np.ndarray]) -> dict[str, float]:
    """Mean intersection over union of the classes of pixels, and the share of pixels whose class is right.

    Parameters
    ----------
    truth : iterable of ndarray of uint8, shape (h, w)
        The masks. Pixels of 255 are void and do not count.
    found : iterable of ndarray of uint8, shape (h, w)
        The predicted ones.

    Returns
    -------
    dict of str to float
        "mean_iou", the mean over the classes that are in any mask, true or predicted, of the pixels that have the class
        in both, by those that have it in either, all images together; "pixel_accuracy". From 0 to 1.

    Raises
    ------
    ValueError
        If there are not as many predicted masks as true ones, their shapes differ, or all pixels are void.

    Examples
    --------
    >>> import numpy as np
    >>> from skssl.transfer.segmentation import mean_iou
    >>> scores = mean_iou([np.array([[0, 0], [1, 255]])], [np.array([[0, 1], [1, 1]])])
    >>> scores["mean_iou"], round(scores["pixel_accuracy"], 2)
    (0.5, 0.67)
    """
    counts = np.zeros((256, 256), np.int64)  # of pixels, by their true and their predicted class
    for true, predicted in zip(truth, found, strict=True):
        if true.shape != predicted.shape:
            raise ValueError(f"A mask of shape {true.shape} has been predicted as one of shape {predicted.shape}.")
        pairs = true.astype(np.int64) * 256 + predicted
        counts += np.bincount(pairs.ravel(), minlength=256**2).reshape(256, 256)
    counts[VOID] = 0
    if not counts.any():
        raise ValueError("truth must hold at least one pixel that is not void. Got none.")
    right = counts.diagonal()
    either = counts.sum(0) + counts.sum(1) - right
    return {
        "mean_iou": float((right[either > 0] / either[either > 0]).mean()),
        "pixel_accuracy": float(right.sum() / counts.sum()),
    }
