"""Encoders, by name or from any torch module, which map images to features."""

from skssl.backbones.building import build_backbone
from skssl.backbones.channels import adapt_channels
from skssl.backbones.dilation import dilate
from skssl.backbones.maps import feature_map, last_module, map_channels, module_outputs, stages
from skssl.backbones.networks import SMALL, AudioConvNet, ConvNet
from skssl.backbones.outputs import Pooled
from skssl.backbones.stage_pool import StagePool
from skssl.backbones.vit import ViT
from skssl.backbones.weights import load_weights

__all__ = [
    "SMALL",
    "AudioConvNet",
    "ConvNet",
    "Pooled",
    "StagePool",
    "ViT",
    "adapt_channels",
    "build_backbone",
    "dilate",
    "feature_map",
    "last_module",
    "load_weights",
    "map_channels",
    "module_outputs",
    "stages",
]
