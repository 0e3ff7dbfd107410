"""Self-supervised learning of visual representations, as scikit-learn estimators."""

from skssl.augment import Augmentation, MultiCrop
from skssl.errors import CollapseWarning
from skssl.methods import BYOL, BYOLGSG, PIRL, InstDisc, RotationDecoupling, RotNet, SimCLR, SimSiam, SimSiamGSG, SupCon
from skssl.pretext import Rotation
from skssl.probes import KNNProbe, LinearProbe

__version__ = "0.1.0"

__all__ = [
    "BYOL",
    "BYOLGSG",
    "PIRL",
    "Augmentation",
    "CollapseWarning",
    "InstDisc",
    "KNNProbe",
    "LinearProbe",
    "MultiCrop",
    "RotNet",
    "Rotation",
    "RotationDecoupling",
    "SimCLR",
    "SimSiam",
    "SimSiamGSG",
    "SupCon",
]
