"""The version of skssl."""

__version__ = "0.1.0"
