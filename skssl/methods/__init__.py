"""The methods, one file each."""

from skssl.methods.audio_visual import AudioVisual
from skssl.methods.barlow_twins import BarlowTwins
from skssl.methods.byol import BYOL, BYOLGSG
from skssl.methods.colorization import Colorization
from skssl.methods.context_encoder import ContextEncoder
from skssl.methods.dcl import DCL
from skssl.methods.deepcluster import DeepCluster
from skssl.methods.deepcluster_v2 import DeepClusterV2
from skssl.methods.densecl import DenseCL
from skssl.methods.dino import DINO
from skssl.methods.directpred import DirectPred
from skssl.methods.fastsiam import FastSiam
from skssl.methods.ibot import IBOT
from skssl.methods.ijepa import IJEPA
from skssl.methods.instdisc import InstDisc
from skssl.methods.jigsaw import Jigsaw
from skssl.methods.lejepa import LeJEPA
from skssl.methods.leoclr import LeOCLR
from skssl.methods.mae import MAE
from skssl.methods.mmcr import MMCR
from skssl.methods.moco import MoCo
from skssl.methods.mocov3 import MoCoV3
from skssl.methods.msn import MSN
from skssl.methods.nnclr import NNCLR
from skssl.methods.pcl import PCL
from skssl.methods.pirl import PIRL
from skssl.methods.relative_patch import RelativePatch
from skssl.methods.ressl import ReSSL
from skssl.methods.rotation_decoupling import RotationDecoupling
from skssl.methods.rotnet import RotNet
from skssl.methods.shuffle_and_learn import ShuffleAndLearn
from skssl.methods.simclr import SimCLR
from skssl.methods.simmim import SimMIM
from skssl.methods.simsiam import SimSiam, SimSiamGSG
from skssl.methods.spot_artifacts import SpotArtifacts
from skssl.methods.supcon import SupCon
from skssl.methods.swav import SwAV
from skssl.methods.tico import TiCo
from skssl.methods.vicreg import VICReg
from skssl.methods.vicregl import VICRegL
from skssl.methods.wmse import WMSE

__all__ = [
    "BYOL",
    "BYOLGSG",
    "DCL",
    "DINO",
    "IBOT",
    "IJEPA",
    "MAE",
    "MMCR",
    "MSN",
    "NNCLR",
    "PCL",
    "PIRL",
    "WMSE",
    "AudioVisual",
    "BarlowTwins",
    "Colorization",
    "ContextEncoder",
    "DeepCluster",
    "DeepClusterV2",
    "DenseCL",
    "DirectPred",
    "FastSiam",
    "InstDisc",
    "Jigsaw",
    "LeJEPA",
    "LeOCLR",
    "MoCo",
    "MoCoV3",
    "ReSSL",
    "RelativePatch",
    "RotNet",
    "RotationDecoupling",
    "ShuffleAndLearn",
    "SimCLR",
    "SimMIM",
    "SimSiam",
    "SimSiamGSG",
    "SpotArtifacts",
    "SupCon",
    "SwAV",
    "TiCo",
    "VICReg",
    "VICRegL",
]
