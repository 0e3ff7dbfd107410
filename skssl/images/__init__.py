"""Anything that users call images, read as `Images`; clips; class labels."""

from skssl.images.base import Images
from skssl.images.clips import Clips, as_clips
from skssl.images.reading import as_images, subset

__all__ = ["Clips", "Images", "as_clips", "as_images", "subset"]
