"""Self-supervised learning of visual representations, as scikit-learn estimators."""

from skssl.augment import Augmentation, MultiCrop
from skssl.dense import DetectionTransfer, SegmentationTransfer
from skssl.errors import CollapseWarning
from skssl.methods import (
    BYOL,
    BYOLGSG,
    DINO,
    PCL,
    PIRL,
    BarlowTwins,
    Colorization,
    ContextEncoder,
    DeepCluster,
    DeepClusterV2,
    DenseCL,
    DirectPred,
    InstDisc,
    Jigsaw,
    LeOCLR,
    MoCo,
    RelativePatch,
    RotationDecoupling,
    RotNet,
    SimCLR,
    SimSiam,
    SimSiamGSG,
    SupCon,
    SwAV,
    VICReg,
)
from skssl.pretext import ColorizationTask, ContextEncoderTask, JigsawTask, RelativePatchTask, Rotation
from skssl.probes import KNNProbe, LinearProbe
from skssl.transfer import transfer_table

__version__ = "0.1.0"

__all__ = [
    "BYOL",
    "BYOLGSG",
    "DINO",
    "PCL",
    "PIRL",
    "Augmentation",
    "BarlowTwins",
    "CollapseWarning",
    "Colorization",
    "ColorizationTask",
    "ContextEncoder",
    "ContextEncoderTask",
    "DeepCluster",
    "DeepClusterV2",
    "DenseCL",
    "DetectionTransfer",
    "DirectPred",
    "InstDisc",
    "Jigsaw",
    "JigsawTask",
    "KNNProbe",
    "LeOCLR",
    "LinearProbe",
    "MoCo",
    "MultiCrop",
    "RelativePatch",
    "RelativePatchTask",
    "RotNet",
    "Rotation",
    "RotationDecoupling",
    "SegmentationTransfer",
    "SimCLR",
    "SimSiam",
    "SimSiamGSG",
    "SupCon",
    "SwAV",
    "VICReg",
    "transfer_table",
]
