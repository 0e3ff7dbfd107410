"""Self-supervised learning of visual representations, as scikit-learn estimators."""

from skssl.errors import CollapseWarning

__version__ = "0.1.0"

__all__ = ["CollapseWarning"]
