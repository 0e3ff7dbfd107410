"""Displays of data, training and representations by matplotlib, one per file, and the HTML report (reporting.py)."""

from skssl.display.dense import DetectionDisplay, SegmentationDisplay
from skssl.display.embedding import EmbeddingDisplay
from skssl.display.neighbors import NeighborsDisplay
from skssl.display.reporting import report
from skssl.display.results import ResultsDisplay
from skssl.display.sound_maps import SoundMapDisplay
from skssl.display.training import TrainingDisplay
from skssl.display.views import ViewsDisplay

__all__ = [
    "DetectionDisplay",
    "EmbeddingDisplay",
    "NeighborsDisplay",
    "ResultsDisplay",
    "SegmentationDisplay",
    "SoundMapDisplay",
    "TrainingDisplay",
    "ViewsDisplay",
    "report",
]
