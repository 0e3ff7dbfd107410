"""The methods, a file each."""

from skssl.methods.barlow_twins import BarlowTwins
from skssl.methods.byol import BYOL, BYOLGSG
from skssl.methods.deepcluster import DeepCluster
from skssl.methods.deepcluster_v2 import DeepClusterV2
from skssl.methods.densecl import DenseCL
from skssl.methods.dino import DINO
from skssl.methods.directpred import DirectPred
from skssl.methods.leoclr import LeOCLR
from skssl.methods.moco import MoCo
from skssl.methods.pcl import PCL
from skssl.methods.rotnet import RotNet
from skssl.methods.simclr import SimCLR
from skssl.methods.simsiam import SimSiam, SimSiamGSG
from skssl.methods.swav import SwAV
from skssl.methods.vicreg import VICReg

__all__ = [
    "BYOL",
    "BYOLGSG",
    "DINO",
    "PCL",
    "BarlowTwins",
    "DeepCluster",
    "DeepClusterV2",
    "DenseCL",
    "DirectPred",
    "LeOCLR",
    "MoCo",
    "RotNet",
    "SimCLR",
    "SimSiam",
    "SimSiamGSG",
    "SwAV",
    "VICReg",
]
