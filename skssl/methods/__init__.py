"""The methods, a file each."""

from skssl.methods.byol import BYOL, BYOLGSG
from skssl.methods.colorization import Colorization
from skssl.methods.context_encoder import ContextEncoder
from skssl.methods.jigsaw import Jigsaw
from skssl.methods.relative_patch import RelativePatch
from skssl.methods.rotnet import RotNet
from skssl.methods.simclr import SimCLR
from skssl.methods.simsiam import SimSiam, SimSiamGSG

__all__ = [
    "BYOL",
    "BYOLGSG",
    "Colorization",
    "ContextEncoder",
    "Jigsaw",
    "RelativePatch",
    "RotNet",
    "SimCLR",
    "SimSiam",
    "SimSiamGSG",
]
