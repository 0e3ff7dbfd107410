"""Segmentation with UPerNet's head on an encoder, and mean intersection over union."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F

from skssl.transfer.annotations import IGNORE_INDEX, MASKS, AnnotatedImages, Sample, find_samples
from skssl.transfer.dense import DenseTransfer, Folders, check_known, iter_images
from skssl.transfer.pyramid import Pyramid, resize


@dataclass(kw_only=True, eq=False, repr=False)
class SegmentationTransfer(DenseTransfer):
    """Evaluate a trained encoder by semantic segmentation with UPerNet's head.

    The encoder's last feature map is pooled over grids of several sizes, and a feature pyramid is built on the maps of
    its stages. The maps of the pyramid are resized to the finest, concatenated, and classified by two convolutions.
    The network is trained on folders in one of these formats:

    - PASCAL VOC: images in ``JPEGImages``, masks in ``SegmentationClass/<name>.png``, splits in
      ``ImageSets/Segmentation/<split>.txt``. The value 255 is no class;
    - Cityscapes: images in ``leftImg8bit/<split>``, masks in ``gtFine/<split>``. The classes are the 19 train ids;
    - ADE20K (``ADEChallengeData2016``): images in ``images/<split>``, masks in ``annotations/<split>``. The classes
      are 1 to 150, and 0 is no class.

    Attributes
    ----------
    classes_ : ndarray of uint8
        The classes in the masks, sorted. Pixels without a class are not among them.
    history_ : pandas.DataFrame
        One row per epoch: epoch, loss, loss_pixels, lr, images_per_second.
    model_ : torch.nn.Module
        The trained network.

    Notes
    -----
    The protocol differs from [1]_ and its code, which Ericsson et al. [2]_ use: there is no auxiliary loss on an inner
    layer, the loss is computed at full resolution instead of a quarter, and images are tested at one size. Their
    schedule, "polynomial", is in `recipes.DENSE`.

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
            For each image the class of every pixel, one of `classes_`.
        """
        check_is_fitted(self, "model_")
        return [self._to_values(self._predict_one(image)) for image in iter_images(X, self._channels)]

    def evaluate(self, folder: Folders, split: str | Sequence[str] = "val") -> dict[str, float]:
        """Compute the mean intersection over union on a split.

        Parameters
        ----------
        folder : str, path, or list of these
            The folder or folders, as for `fit`.
        split : str or list of str, default="val"
            The split, or one for each folder.

        Returns
        -------
        dict of str to float
            See `mean_iou`. Void pixels are ignored.

        Raises
        ------
        FileNotFoundError
            If a folder lacks a part of its format, an image or a mask.
        ValueError
            If there is no such split, or it has a class that the training images lack.
        """
        check_is_fitted(self, "model_")
        files = find_samples(folder, split, MASKS)
        check_known(set(_values(files).tolist()), self.classes_, split)
        samples, truth, found = AnnotatedImages(files, self._channels), [], []
        for i in self._progress(len(samples)):
            image, mask = samples[i]
            truth.append(mask.numpy())
            found.append(self._to_values(self._predict_one(image)))
        return mean_iou(truth, found)

    def _find_training_samples(self, folder: Any, split: Any) -> list[Sample]:
        samples = find_samples(folder, split, MASKS)
        self.classes_ = _values(samples)
        if len(self.classes_) < 2:
            raise ValueError(
                f"The masks of the split {split!r} of {str(folder)!r} need at least 2 classes, including the "
                f"background. Got {self.classes_.tolist()}."
            )
        return samples

    def _build(self, encoder: nn.Module, channels: int, **transform: Any) -> nn.Module:
        from torchvision.models.detection.transform import GeneralizedRCNNTransform

        pyramid = Pyramid(encoder, channels, self.width, frozen=self.frozen, pooled=True)
        return Segmenter(pyramid, len(self.classes_), GeneralizedRCNNTransform(**transform))

    def _target(self, target: Tensor, device: torch.device, flipped_width: int) -> Tensor:
        indices = torch.full((256,), IGNORE_INDEX)
        indices[torch.from_numpy(self.classes_).long()] = torch.arange(len(self.classes_))
        target = indices[target.long()].to(device)
        return target.flip(-1) if flipped_width else target

    def _to_values(self, found: Tensor) -> np.ndarray:
        """Convert class indices to values of masks."""
        return self.classes_[found.cpu().numpy()]


class Segmenter(nn.Module):
    """A network that classifies pixels, with the interface of torchvision's detectors.

    Parameters
    ----------
    pyramid : Pyramid
        The pyramid.
    n_classes : int
        The number of classes.
    transform : torchvision.models.detection.transform.GeneralizedRCNNTransform
        Resizes, normalises and pads images.
    """

    def __init__(self, pyramid: Pyramid, n_classes: int, transform: nn.Module) -> None:
        from torchvision.ops import Conv2dNormActivation

        super().__init__()
        self.transform, self.pyramid, width = transform, pyramid, pyramid.out_channels
        self.fuse = Conv2dNormActivation(len(pyramid.strides) * width, width, 3)
        self.classifier = nn.Conv2d(width, n_classes, 1)

    def forward(self, images: list[Tensor], targets: list[Tensor] | None = None) -> Any:
        """Return the loss for images (c, h, w) and int64 masks (h, w); without masks, the predicted class indices."""
        batch, _ = self.transform(images)
        maps = list(self.pyramid(batch.tensors).values())
        joined = torch.cat([resize(grid, maps[0].shape[2:]) for grid in maps], dim=1)
        scores = resize(self.classifier(self.fuse(joined)), batch.tensors.shape[2:])
        if targets is None:
            return [
                resize(score[None, :, :h, :w], image.shape[1:])[0].argmax(0)
                for score, (h, w), image in zip(scores, batch.image_sizes, images, strict=True)
            ]
        truth = torch.full_like(scores[:, 0], IGNORE_INDEX, dtype=torch.int64)
        for i, (target, (h, w)) in enumerate(zip(targets, batch.image_sizes, strict=True)):
            truth[i, :h, :w] = F.interpolate(target[None, None].float(), (h, w), mode="nearest-exact")[0, 0].long()
        known = (truth != IGNORE_INDEX).sum().clamp(min=1)  # all pixels may be void
        return {"loss_pixels": F.cross_entropy(scores, truth, ignore_index=IGNORE_INDEX, reduction="sum") / known}


def _values(samples: Sequence[Sample]) -> np.ndarray:
    """Return the classes in the masks, uint8 (n_classes,)."""
    occurs = np.zeros(256, bool)
    for _, mask in samples:
        occurs[mask.read()] = True
    occurs[IGNORE_INDEX] = False
    return np.flatnonzero(occurs).astype(np.uint8)


def mean_iou(truth: Iterable[np.ndarray], found: Iterable[np.ndarray]) -> dict[str, float]:
    """Compute the mean intersection over union (IoU) of the classes, and the accuracy of the pixels.

    Parameters
    ----------
    truth : iterable of ndarray of uint8, shape (h, w)
        True masks. Pixels of value 255 are void and ignored.
    found : iterable of ndarray of uint8, shape (h, w)
        Predicted masks.

    Returns
    -------
    dict of str to float
        "mean_iou", the mean IoU over the classes that occur in a true or predicted mask, with the pixels of all images
        counted together; "pixel_accuracy", the fraction of the pixels whose class is correct. Both are in [0, 1].

    Raises
    ------
    ValueError
        If the numbers or the shapes of true and predicted masks differ, or all pixels are void.

    Examples
    --------
    >>> import numpy as np
    >>> from skssl.transfer.segmentation import mean_iou
    >>> scores = mean_iou([np.array([[0, 0], [1, 255]])], [np.array([[0, 1], [1, 1]])])
    >>> scores["mean_iou"], round(scores["pixel_accuracy"], 2)
    (0.5, 0.67)
    """
    counts = np.zeros((256, 256), np.int64)  # pixels by true and predicted class
    for true, predicted in zip(truth, found, strict=True):
        if true.shape != predicted.shape:
            raise ValueError(
                f"True and predicted masks must have the same shape. Got {true.shape} and {predicted.shape}."
            )
        pairs = true.astype(np.int64) * 256 + predicted
        counts += np.bincount(pairs.ravel(), minlength=256**2).reshape(256, 256)
    counts[IGNORE_INDEX] = 0
    if not counts.any():
        raise ValueError("truth needs at least one pixel that is not void. Got none.")
    right = counts.diagonal()
    either = counts.sum(0) + counts.sum(1) - right
    return {
        "mean_iou": float((right[either > 0] / either[either > 0]).mean()),
        "pixel_accuracy": float(right.sum() / counts.sum()),
    }
