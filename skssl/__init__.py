"""Self-supervised learning of visual representations, as scikit-learn estimators."""

from skssl import cores  # noqa: F401  first, since torch reads what it sets
from skssl.augment import Augmentation, MultiCrop
from skssl.comparison import compare
from skssl.dense import DetectionTransfer, SegmentationTransfer
from skssl.display import EmbeddingDisplay, NeighborsDisplay, ResultsDisplay, TrainingDisplay, ViewsDisplay
from skssl.errors import BadImageWarning, CollapseWarning
from skssl.finetune import Distiller, FineTuner, label_fraction
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
from skssl.probes import KNNProbe, LinearProbe, MLPProbe
from skssl.reporting import report
from skssl.results import Results
from skssl.saving import load
from skssl.transfer import transfer_table

__version__ = "0.1.0"

__all__ = [
    "BYOL",
    "BYOLGSG",
    "DINO",
    "PCL",
    "PIRL",
    "Augmentation",
    "BadImageWarning",
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
    "Distiller",
    "EmbeddingDisplay",
    "FineTuner",
    "InstDisc",
    "Jigsaw",
    "JigsawTask",
    "KNNProbe",
    "LeOCLR",
    "LinearProbe",
    "MLPProbe",
    "MoCo",
    "MultiCrop",
    "NeighborsDisplay",
    "RelativePatch",
    "RelativePatchTask",
    "Results",
    "ResultsDisplay",
    "RotNet",
    "Rotation",
    "RotationDecoupling",
    "SegmentationTransfer",
    "SimCLR",
    "SimSiam",
    "SimSiamGSG",
    "SupCon",
    "SwAV",
    "TrainingDisplay",
    "VICReg",
    "ViewsDisplay",
    "compare",
    "label_fraction",
    "load",
    "report",
    "transfer_table",
]
