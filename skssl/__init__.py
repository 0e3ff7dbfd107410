"""Self-supervised learning of visual representations, as scikit-learn estimators."""

from skssl.augment import Augmentation, MultiCrop
from skssl.errors import CollapseWarning
from skssl.methods import (
    BYOL,
    BYOLGSG,
    Colorization,
    ContextEncoder,
    Jigsaw,
    RelativePatch,
    RotNet,
    SimCLR,
    SimSiam,
    SimSiamGSG,
)
from skssl.pretext import ColorizationTask, ContextEncoderTask, JigsawTask, RelativePatchTask, Rotation
from skssl.probes import KNNProbe, LinearProbe

__version__ = "0.1.0"

__all__ = [
    "BYOL",
    "BYOLGSG",
    "Augmentation",
    "CollapseWarning",
    "Colorization",
    "ColorizationTask",
    "ContextEncoder",
    "ContextEncoderTask",
    "Jigsaw",
    "JigsawTask",
    "KNNProbe",
    "LinearProbe",
    "MultiCrop",
    "RelativePatch",
    "RelativePatchTask",
    "RotNet",
    "Rotation",
    "SimCLR",
    "SimSiam",
    "SimSiamGSG",
]
