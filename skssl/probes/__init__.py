"""Probes: how well simple classifiers on frozen features recover the classes."""

from skssl.probes.knn import KNNProbe
from skssl.probes.linear import LinearProbe
from skssl.probes.mlp import MLPProbe

__all__ = ["KNNProbe", "LinearProbe", "MLPProbe"]
