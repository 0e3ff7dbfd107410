"""The methods, a file each."""

from skssl.methods.barlow_twins import BarlowTwins
from skssl.methods.byol import BYOL, BYOLGSG
from skssl.methods.dino import DINO
from skssl.methods.directpred import DirectPred
from skssl.methods.rotnet import RotNet
from skssl.methods.simclr import SimCLR
from skssl.methods.simsiam import SimSiam, SimSiamGSG
from skssl.methods.vicreg import VICReg

__all__ = [
    "BYOL",
    "BYOLGSG",
    "DINO",
    "BarlowTwins",
    "DirectPred",
    "RotNet",
    "SimCLR",
    "SimSiam",
    "SimSiamGSG",
    "VICReg",
]
