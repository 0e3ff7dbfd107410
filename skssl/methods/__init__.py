"""The methods, a file each."""

from skssl.methods.byol import BYOL, BYOLGSG
from skssl.methods.densecl import DenseCL
from skssl.methods.leoclr import LeOCLR
from skssl.methods.moco import MoCo
from skssl.methods.pcl import PCL
from skssl.methods.rotnet import RotNet
from skssl.methods.simclr import SimCLR
from skssl.methods.simsiam import SimSiam, SimSiamGSG

__all__ = ["BYOL", "BYOLGSG", "PCL", "DenseCL", "LeOCLR", "MoCo", "RotNet", "SimCLR", "SimSiam", "SimSiamGSG"]
