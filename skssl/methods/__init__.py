"""The methods, a file each."""

from skssl.methods.barlow_twins import BarlowTwins
from skssl.methods.byol import BYOL, BYOLGSG
from skssl.methods.deepcluster import DeepCluster
from skssl.methods.deepcluster_v2 import DeepClusterV2
from skssl.methods.dino import DINO
from skssl.methods.directpred import DirectPred
from skssl.methods.rotnet import RotNet
from skssl.methods.simclr import SimCLR
from skssl.methods.simsiam import SimSiam, SimSiamGSG
from skssl.methods.swav import SwAV
from skssl.methods.vicreg import VICReg

__all__ = [
    "BYOL",
    "BYOLGSG",
    "DINO",
    "BarlowTwins",
    "DeepCluster",
    "DeepClusterV2",
    "DirectPred",
    "RotNet",
    "SimCLR",
    "SimSiam",
    "SimSiamGSG",
    "SwAV",
    "VICReg",
]
