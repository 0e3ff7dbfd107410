"""The methods, a file each."""

from skssl.methods.byol import BYOL, BYOLGSG
from skssl.methods.instdisc import InstDisc
from skssl.methods.pirl import PIRL
from skssl.methods.rotation_decoupling import RotationDecoupling
from skssl.methods.rotnet import RotNet
from skssl.methods.simclr import SimCLR
from skssl.methods.simsiam import SimSiam, SimSiamGSG
from skssl.methods.supcon import SupCon

__all__ = [
    "BYOL",
    "BYOLGSG",
    "PIRL",
    "InstDisc",
    "RotNet",
    "RotationDecoupling",
    "SimCLR",
    "SimSiam",
    "SimSiamGSG",
    "SupCon",
]
