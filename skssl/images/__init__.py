"""Anything that users call images, read as `Images`; class labels."""

from skssl.images.base import Images
from skssl.images.reading import as_images, subset

__all__ = ["Images", "as_images", "subset"]
