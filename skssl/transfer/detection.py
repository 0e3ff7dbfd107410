"""Detection: Faster R-CNN on an encoder's maps, and its average precision."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skssl.transfer.dense import DenseTransfer, check_known, each_image
from skssl.transfer.pyramid import Pyramid
from skssl.transfer.voc import Samples, VOCObject, find_files, read_objects

ANCHOR = 8  # an anchor's side by its map's stride: 32 by 4, 64 by 8, …


@dataclass(kw_only=True, eq=False, repr=False)
class DetectionTransfer(DenseTransfer):
    """Faster R-CNN on the maps of a trained encoder: how well what it has learned serves to find objects.

    A feature pyramid (FPN) joins the maps of the encoder's stages, torchvision's ``FasterRCNN`` does the rest, and both
    are trained on a folder in PASCAL VOC's format: the images in ``JPEGImages``, what they show in
    ``Annotations/<name>.xml``, which of them are for what in ``ImageSets/Main/<split>.txt``.

    Attributes
    ----------
    classes_ : ndarray of str
        The names of the classes.
    history_ : pandas.DataFrame
        A row an epoch: epoch, loss, its four parts by torchvision's names, lr, images_per_second.
    model_ : torchvision.models.detection.FasterRCNN
        The trained detector; label 0 is the background, the others are places in `classes_` plus 1.

    Notes
    -----
    The settings are those of MoCo [1]_ and Ericsson et al. [2]_ (24,000 steps of 16 images at a rate of 0.02, or
    144,000 of 2 at 0.0025, after 100 steps of warm-up), but the rate falls along a cosine and not in two steps of a
    tenth. As in [2]_ and other than in [1]_ on VOC, whose head is C4, the detector has a pyramid. Anchors are eight
    times as large as their map's stride, 32 pixels at a stride of 4. Objects marked difficult are learned from, as in
    Detectron2.

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
        """Find objects.

        Parameters
        ----------
        X : sequence of files, PIL images or arrays (h, w), (h, w, c) or (c, h, w), or array of these
            Images, each of its own size; uint8, or float in [0, 1].

        Returns
        -------
        list of dict
            For each image "boxes", float32 (k, 4), in pixels from the left, the top, the left and the top edge to the
            box's left, top, right and bottom; "labels", str (k,); and "scores", float32 (k,), in (0.05, 1], falling.
        """
        check_is_fitted(self, "model_")
        return [self._named(self._run(image)) for image in each_image(X, self._channels)]

    def evaluate(self, folder: str | os.PathLike[str], split: str = "val") -> dict[str, float]:
        """Compare what is found with what is there.

        Parameters
        ----------
        folder : str or path
            A folder in PASCAL VOC's format.
        split : str, default="val"
            Which of its images.

        Returns
        -------
        dict of str to float
            See `average_precision`. Objects marked difficult do not count.

        Raises
        ------
        FileNotFoundError
            If this is no such folder, or an image or an annotation is missing.
        ImportError
            If pycocotools is not installed.
        ValueError
            If there is no such split, or there are objects of classes that the training images do not hold.
        """
        check_is_fitted(self, "model_")
        _pycocotools()  # refuse before the work rather than after it
        files = _objects(folder, split)
        check_known({thing.name for _, things in files for thing in things}, self.classes_, split)
        truth = [
            {
                "boxes": np.array([thing.box for thing in things], np.float32).reshape(-1, 4),
                "labels": np.array([thing.name for thing in things], self.classes_.dtype),
                "difficult": np.array([thing.difficult for thing in things], bool),
            }
            for _, things in files
        ]
        samples = Samples(files, self._channels)
        found = [self._named(self._run(samples[i][0])) for i in self._progress(len(samples))]
        return average_precision(truth, found)

    def _learn(self, folder: Any, split: str) -> list[tuple[Path, Any]]:
        files = _objects(folder, split)
        names = [thing.name for _, things in files for thing in things]
        if not names:
            raise ValueError(f"The split {split!r} of {str(folder)!r} has no objects to learn from.")
        self.classes_ = np.unique(names)
        return files

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
            rpn_anchor_generator=AnchorGenerator([(ANCHOR * s,) for s in strides], [(0.5, 1.0, 2.0)] * len(strides)),
            box_roi_pool=MultiScaleRoIAlign([str(i) for i in range(len(pyramid.strides))], cells, sampling_ratio=2),
            box_head=TwoMLPHead(self.width * cells**2, 4 * self.width),
            box_predictor=FastRCNNPredictor(4 * self.width, len(self.classes_) + 1),
            **transform,
        )

    def _target(self, target: list[VOCObject], device: torch.device, mirrored: int) -> dict[str, Tensor]:
        boxes = torch.tensor([thing.box for thing in target], dtype=torch.float32).reshape(-1, 4)
        if mirrored:
            boxes[:, [0, 2]] = mirrored - boxes[:, [2, 0]]
        labels = np.searchsorted(self.classes_, [thing.name for thing in target]) + 1
        return {"boxes": boxes.to(device), "labels": torch.from_numpy(labels).to(device)}

    def _named(self, found: dict[str, Tensor]) -> dict[str, np.ndarray]:
        """Turn what torchvision gives into arrays, labels into names."""
        arrays = {name: value.cpu().numpy() for name, value in found.items()}
        return {**arrays, "labels": self.classes_[arrays["labels"] - 1]}


def _objects(folder: Any, split: str) -> list[tuple[Path, list[VOCObject]]]:
    """Find the images of a split with the objects in them."""
    return [(image, read_objects(path)) for image, path in find_files(folder, split, "Main", "Annotations", ".xml")]


def average_precision(
    truth: Sequence[dict[str, np.ndarray]], found: Sequence[dict[str, np.ndarray]]
) -> dict[str, float]:
    r"""Mean average precision of boxes, as COCO computes it.

    For each class and each threshold of the intersection over union the found boxes are gone through by falling score;
    each is true if it meets the threshold with a true box of its image and class that no earlier one has taken. The
    precision at a recall is the highest at that recall or beyond, and is averaged over 101 recalls from 0 to 1. At most
    100 boxes an image count. pycocotools computes it.

    Parameters
    ----------
    truth : sequence of dict
        For each image "boxes" (k, 4), from edge to edge as left, top, right, bottom; "labels" (k,); and, if some do not
        count, whether found or not, "difficult" (k,) of bool.
    found : sequence of dict
        For each image "boxes", "labels" and "scores".

    Returns
    -------
    dict of str to float
        "AP", the mean over the classes that are there and the thresholds 0.5, 0.55, …, 0.95; "AP50" and "AP75",
        those at 0.5 and 0.75 alone. From 0 to 1.

    Raises
    ------
    ImportError
        If pycocotools is not installed.
    ValueError
        If `truth` and `found` are of several lengths, or no object counts.

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
        raise ValueError(f"truth and found must be of one length. Got {len(truth)} and {len(found)}.")
    classes = np.unique([name for image in truth for name in image["labels"]])

    def index(images: Sequence[dict[str, np.ndarray]]) -> Any:
        """Put boxes into COCO's form."""
        rows: list[dict[str, Any]] = []
        for i, image in enumerate(images):
            difficult = image.get("difficult", np.zeros(len(image["labels"]), bool))
            scores = image.get("scores", np.ones(len(image["labels"])))
            for box, name, hard, score in zip(image["boxes"], image["labels"], difficult, scores, strict=True):
                left, top, right, bottom = (float(value) for value in box)
                place = np.searchsorted(classes, name)
                if place < len(classes) and classes[place] == name:
                    rows.append(
                        {
                            "id": len(rows) + 1,
                            "image_id": i,
                            "category_id": int(place),
                            "bbox": [left, top, right - left, bottom - top],
                            # What is out of the range of areas neither counts as found nor as missed
                            "area": -1.0 if hard else (right - left) * (bottom - top),
                            "iscrowd": 0,
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
        evaluation = COCOeval(index(truth), index(found), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, 0]  # thresholds, recalls, classes
    precision = precision[:, :, (precision[0] >= 0).all(0)]  # -1 where no object of a class counts
    if not precision.size:
        raise ValueError("truth must hold at least one object that counts. Got none.")
    by_threshold = precision.mean((1, 2))
    return {"AP": float(by_threshold.mean()), "AP50": float(by_threshold[0]), "AP75": float(by_threshold[5])}


def _pycocotools() -> tuple[Any, Any]:
    """Import what computes average precision."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ImportError("Average precision needs pycocotools: pip install 'skssl[detection]'.") from error
    return COCO, COCOeval
