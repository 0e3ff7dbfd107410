"""Detection and segmentation on an encoder's maps: transfer to tasks that ask where things are."""

from skssl.dense.detection import DetectionTransfer, average_precision
from skssl.dense.segmentation import SegmentationTransfer, mean_iou

__all__ = ["DetectionTransfer", "SegmentationTransfer", "average_precision", "mean_iou"]
