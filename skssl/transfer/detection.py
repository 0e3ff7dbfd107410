"""Detection with Faster R-CNN on an encoder, and average precision."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skssl.transfer.annotations import OBJECTS, AnnotatedImages, AnnotatedObject, Sample, find_samples
from skssl.transfer.dense import DenseTransfer, Folders, check_known, iter_images
from skssl.transfer.pyramid import Pyramid

ANCHOR_SCALE = 8  # side of an anchor in units of the stride of its map: 32 at stride 4, 64 at stride 8, …


@dataclass(kw_only=True, eq=False, repr=False)
class DetectionTransfer(DenseTransfer):
    """Evaluate a trained encoder by object detection with Faster R-CNN.

    A feature pyramid network (FPN) on the stages of the encoder is the backbone of torchvision's ``FasterRCNN``. Both
    are trained on folders in one of these formats:

    - PASCAL VOC: images in ``JPEGImages``, objects in ``Annotations/<name>.xml``, splits in
      ``ImageSets/Main/<split>.txt``;
    - COCO: images in ``<split>``, objects in ``annotations/instances_<split>.json``. Only the boxes are used.

    Attributes
    ----------
    classes_ : ndarray of str
        Names of the classes, sorted.
    history_ : pandas.DataFrame
        One row per epoch: epoch, loss, its four terms by torchvision's names, lr, images_per_second.
    model_ : torchvision.models.detection.FasterRCNN
        The trained detector. Label 0 is the background; label i + 1 is ``classes_[i]``.

    Notes
    -----
    The settings are those of MoCo [1]_ and Ericsson et al. [2]_: 24,000 steps of 16 images at a rate of 0.02, or
    144,000 steps of 2 images at 0.0025, after 100 steps of warm-up. There the rate falls twice to a tenth instead of
    following a cosine, see `recipes.DENSE`. The detector has a pyramid, as in [2]_; [1]_ uses a C4 head on VOC. The
    side of an anchor is eight times the stride of its map: 32 pixels at stride 4. Difficult objects are used in
    training, as in Detectron2.

    References
    ----------
    .. [1] He et al., Momentum Contrast for Unsupervised Visual Representation Learning, CVPR 2020, section 4.2.
    .. [2] Ericsson et al., How Well Do Self-Supervised Models Transfer?, CVPR 2021, and its code.
    .. [3] Ren et al., Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks, NeurIPS 2015.

    Examples
    --------
    >>> import tempfile
    >>> from skssl import DetectionTransfer, SimCLR
    >>> from skssl.datasets import make_shapes, make_voc_folder
    >>> encoder = SimCLR(backbone="convnet", epochs=0).fit(make_shapes(2, random_state=0)[0])
    >>> folder = make_voc_folder(tempfile.mkdtemp(), 8, random_state=0)
    >>> detector = DetectionTransfer(encoder, image_size=64, width=16, epochs=1, random_state=0).fit(folder)
    >>> detector.classes_
    array(['disc', 'square'], dtype='<U6')
    >>> sorted(detector.evaluate(folder))
    ['AP', 'AP50', 'AP75']
    """

    def predict(self, X: Any) -> list[dict[str, np.ndarray]]:
        """Detect objects.

        Parameters
        ----------
        X : sequence of files, PIL images or arrays (h, w), (h, w, c) or (c, h, w), or array of these
            Images, each of its own size; uint8, or float in [0, 1].

        Returns
        -------
        list of dict
            For each image "boxes", float32 (k, 4): left, top, right, bottom in pixels; "labels", str (k,); and
            "scores", float32 (k,), in (0.05, 1], in decreasing order.
        """
        check_is_fitted(self, "model_")
        return [self._to_arrays(self._predict_one(image)) for image in iter_images(X, self._channels)]

    def evaluate(
        self, folder: Folders, split: str | Sequence[str] = "val", *, n_recalls: int = 101
    ) -> dict[str, float]:
        """Compute the average precision on a split.

        Parameters
        ----------
        folder : str, path, or list of these
            The folder or folders, as for `fit`.
        split : str or list of str, default="val"
            The split, or one for each folder.
        n_recalls : int, default=101
            Number of recalls over which the precision is averaged. 11 is the metric of PASCAL VOC 2007, by which MoCo
            and the papers after it report AP, AP50 and AP75 on its test images.

        Returns
        -------
        dict of str to float
            See `average_precision`. Difficult objects and crowds are ignored.

        Raises
        ------
        FileNotFoundError
            If a folder lacks a part of its format, an image or an annotation.
        ImportError
            If pycocotools is not installed.
        ValueError
            If there is no such split, or it has a class that the training images lack.
        """
        check_is_fitted(self, "model_")
        _pycocotools()  # raise before the detection, not after it
        files = find_samples(folder, split, OBJECTS)
        check_known({thing.name for _, things in files for thing in things}, self.classes_, split)
        truth = [objects_to_arrays(things) for _, things in files]
        samples = AnnotatedImages(files, self._channels)
        found = [self._to_arrays(self._predict_one(samples[i][0])) for i in self._progress(len(samples))]
        return average_precision(truth, found, n_recalls=n_recalls)

    def _find_training_samples(self, folder: Any, split: Any) -> list[Sample]:
        samples = find_samples(folder, split, OBJECTS)
        names = {thing.name for _, things in samples for thing in things}
        if not names:
            raise ValueError(f"The split {split!r} of {str(folder)!r} has no objects.")
        self.classes_ = np.unique(list(names))
        return samples

    def _build(self, encoder: nn.Module, channels: int, **transform: Any) -> nn.Module:
        from torchvision.models.detection import FasterRCNN
        from torchvision.models.detection.anchor_utils import AnchorGenerator
        from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
        from torchvision.ops import MultiScaleRoIAlign

        pyramid = Pyramid(encoder, channels, self.width, frozen=self.frozen, beyond=True)
        strides = [*pyramid.strides, 2 * pyramid.strides[-1]]
        cells = 7
        return FasterRCNN(
            pyramid,
            rpn_anchor_generator=AnchorGenerator(
                [(ANCHOR_SCALE * s,) for s in strides], [(0.5, 1.0, 2.0)] * len(strides)
            ),
            box_roi_pool=MultiScaleRoIAlign([str(i) for i in range(len(pyramid.strides))], cells, sampling_ratio=2),
            box_head=TwoMLPHead(self.width * cells**2, 4 * self.width),
            box_predictor=FastRCNNPredictor(4 * self.width, len(self.classes_) + 1),
            **transform,
        )

    def _target(self, target: list[AnnotatedObject], device: torch.device, flipped_width: int) -> dict[str, Tensor]:
        target = [thing for thing in target if not thing.crowd]
        boxes = torch.tensor([thing.box for thing in target], dtype=torch.float32).reshape(-1, 4)
        if flipped_width:
            boxes[:, [0, 2]] = flipped_width - boxes[:, [2, 0]]
        labels = np.searchsorted(self.classes_, np.array([thing.name for thing in target], self.classes_.dtype)) + 1
        return {"boxes": boxes.to(device), "labels": torch.from_numpy(labels).to(device)}

    def _to_arrays(self, found: dict[str, Tensor]) -> dict[str, np.ndarray]:
        """Convert torchvision's output to arrays, with class names as labels."""
        arrays = {name: value.cpu().numpy() for name, value in found.items()}
        return {**arrays, "labels": self.classes_[arrays["labels"] - 1]}


def objects_to_arrays(objects: Sequence[AnnotatedObject]) -> dict[str, np.ndarray]:
    """Convert the objects of an image to arrays, as `average_precision` expects them.

    Parameters
    ----------
    objects : sequence of AnnotatedObject
        The objects.

    Returns
    -------
    dict of str to ndarray
        "boxes", float32 (k, 4): left, top, right, bottom in pixels; "labels", str (k,); "difficult" and "crowd", bool
        (k,).
    """
    return {
        "boxes": np.array([thing.box for thing in objects], np.float32).reshape(-1, 4),
        "labels": np.array([thing.name for thing in objects], str),
        "difficult": np.array([thing.difficult for thing in objects], bool),
        "crowd": np.array([thing.crowd for thing in objects], bool),
    }


def average_precision(
    truth: Sequence[dict[str, np.ndarray]], found: Sequence[dict[str, np.ndarray]], *, n_recalls: int = 101
) -> dict[str, float]:
    """Compute COCO's mean average precision of boxes, with pycocotools.

    For each class and each threshold of the intersection over union (IoU), predicted boxes are matched in decreasing
    order of score. A box is a true positive if its IoU with an unmatched true box of the same image and class reaches
    the threshold. The precision at a recall is the highest at that recall or beyond. It is averaged over recalls from 0
    to 1. At most 100 boxes per image are used.

    Parameters
    ----------
    truth : sequence of dict
        For each image "boxes" (k, 4): left, top, right, bottom; "labels" (k,); and optionally "difficult" (k,) and
        "crowd" (k,) of bool. Difficult objects are ignored, whether they are detected or not. The box of a crowd is
        ignored, too, and may be detected more than once.
    found : sequence of dict
        For each image the predicted "boxes", "labels" and "scores".
    n_recalls : int, default=101
        Number of recalls. COCO has 101, and PASCAL VOC 2007 has 11.

    Returns
    -------
    dict of str to float
        "AP", the mean over the classes in `truth` and the thresholds 0.5, 0.55, …, 0.95; "AP50" and "AP75", the means
        at the thresholds 0.5 and 0.75. All are in [0, 1].

    Raises
    ------
    ImportError
        If pycocotools is not installed.
    ValueError
        If `truth` and `found` differ in length, or all objects are difficult or crowds.

    References
    ----------
    Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014, and its code.

    Examples
    --------
    >>> import numpy as np
    >>> from skssl.transfer.detection import average_precision
    >>> truth = [{"boxes": np.array([[0, 0, 10, 10]]), "labels": np.array(["cat"])}]
    >>> found = [{"boxes": np.array([[0, 0, 10, 8]]), "labels": np.array(["cat"]), "scores": np.array([0.9])}]
    >>> {name: round(value, 2) for name, value in average_precision(truth, found).items()}
    {'AP': 0.7, 'AP50': 1.0, 'AP75': 1.0}
    """
    COCO, COCOeval = _pycocotools()
    if len(truth) != len(found):
        raise ValueError(f"truth and found must have the same length. Got {len(truth)} and {len(found)}.")
    classes = np.unique([name for image in truth for name in image["labels"]])

    def as_coco(images: Sequence[dict[str, np.ndarray]]) -> Any:
        """Return boxes as a COCO data set."""
        rows: list[dict[str, Any]] = []
        for i, image in enumerate(images):
            no = np.zeros(len(image["labels"]), bool)
            columns = [image["boxes"], image["labels"], image.get("difficult", no), image.get("crowd", no)]
            for box, name, hard, crowd, score in zip(*columns, image.get("scores", ~no), strict=True):
                left, top, right, bottom = (float(value) for value in box)
                index = np.searchsorted(classes, name)
                if index < len(classes) and classes[index] == name:
                    rows.append(
                        {
                            "id": len(rows) + 1,
                            "image_id": i,
                            "category_id": int(index),
                            "bbox": [left, top, right - left, bottom - top],
                            # objects outside the range of areas are ignored
                            "area": -1.0 if hard else (right - left) * (bottom - top),
                            "iscrowd": int(crowd),
                            "score": float(score),
                        }
                    )
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(len(images))],
            "annotations": rows,
            "categories": [{"id": k} for k in range(len(classes))],
        }
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(as_coco(truth), as_coco(found), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [100]
        evaluation.params.recThrs = np.linspace(0, 1, n_recalls)
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, 0]  # thresholds, recalls, classes
    precision = precision[:, :, (precision[0] >= 0).all(0)]  # -1 if all objects of a class are ignored
    if not precision.size:
        raise ValueError("truth needs at least one object that is not difficult. Got none.")
    by_threshold = precision.mean((1, 2))
    return {"AP": float(by_threshold.mean()), "AP50": float(by_threshold[0]), "AP75": float(by_threshold[5])}


def _pycocotools() -> tuple[Any, Any]:
    """Import pycocotools, which is optional."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ImportError("Average precision needs pycocotools: pip install 'skssl[detection]'.") from error
    return COCO, COCOeval
