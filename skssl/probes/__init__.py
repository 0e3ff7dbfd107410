"""Probes: simple classifiers that evaluate frozen features."""

from skssl.probes.knn import KNNProbe
from skssl.probes.linear import LinearProbe
from skssl.probes.mlp import MLPProbe

__all__ = ["KNNProbe", "LinearProbe", "MLPProbe"]
