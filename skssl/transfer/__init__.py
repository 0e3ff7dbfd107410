"""Transfer of a trained encoder: fine-tuning, linear transfer, detection and segmentation."""

from skssl.images.labels import label_fraction
from skssl.transfer.detection import DetectionTransfer, average_precision
from skssl.transfer.distillation import Distiller
from skssl.transfer.finetuning import FineTuner
from skssl.transfer.linear import mean_average_precision, transfer_table
from skssl.transfer.segmentation import SegmentationTransfer, mean_iou

__all__ = [
    "DetectionTransfer",
    "Distiller",
    "FineTuner",
    "SegmentationTransfer",
    "average_precision",
    "label_fraction",
    "mean_average_precision",
    "mean_iou",
    "transfer_table",
]
