"""Self-supervised learning of visual representations, as scikit-learn estimators."""

from skssl.augment import Augmentation, MultiCrop
from skssl.errors import CollapseWarning
from skssl.methods import (
    BYOL,
    BYOLGSG,
    DINO,
    PCL,
    PIRL,
    BarlowTwins,
    DeepCluster,
    DeepClusterV2,
    DenseCL,
    DirectPred,
    InstDisc,
    LeOCLR,
    MoCo,
    RotationDecoupling,
    RotNet,
    SimCLR,
    SimSiam,
    SimSiamGSG,
    SupCon,
    SwAV,
    VICReg,
)
from skssl.pretext import Rotation
from skssl.probes import KNNProbe, LinearProbe

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
    "DeepCluster",
    "DeepClusterV2",
    "DenseCL",
    "DirectPred",
    "InstDisc",
    "KNNProbe",
    "LeOCLR",
    "LinearProbe",
    "MoCo",
    "MultiCrop",
    "RotNet",
    "Rotation",
    "RotationDecoupling",
    "SimCLR",
    "SimSiam",
    "SimSiamGSG",
    "SupCon",
    "SwAV",
    "VICReg",
]
