"""The methods, a file each."""

from skssl.methods.byol import BYOL, BYOLGSG
from skssl.methods.deepcluster import DeepCluster
from skssl.methods.deepcluster_v2 import DeepClusterV2
from skssl.methods.rotnet import RotNet
from skssl.methods.simclr import SimCLR
from skssl.methods.simsiam import SimSiam, SimSiamGSG
from skssl.methods.swav import SwAV

__all__ = ["BYOL", "BYOLGSG", "DeepCluster", "DeepClusterV2", "RotNet", "SimCLR", "SimSiam", "SimSiamGSG", "SwAV"]
