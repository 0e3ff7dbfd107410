"""Pictures of data, training and representations, by matplotlib and as scikit-learn's displays: one file a display."""

from skssl.display.embedding import EmbeddingDisplay
from skssl.display.neighbors import NeighborsDisplay
from skssl.display.reporting import report
from skssl.display.results import ResultsDisplay
from skssl.display.training import TrainingDisplay
from skssl.display.views import ViewsDisplay

__all__ = ["EmbeddingDisplay", "NeighborsDisplay", "ResultsDisplay", "TrainingDisplay", "ViewsDisplay", "report"]
