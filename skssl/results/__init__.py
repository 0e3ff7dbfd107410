"""Comparison of methods, and tables of their scores."""

from skssl.results.comparison import compare
from skssl.results.tables import Results

__all__ = ["Results", "compare"]
