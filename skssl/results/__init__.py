"""Comparisons of methods, and their scores as tables."""

from skssl.results.comparison import compare
from skssl.results.tables import Results

__all__ = ["Results", "compare"]
