"""Whatever the user calls images, read as `Images`."""

from skssl.images.base import Images
from skssl.images.reading import as_images, subset

__all__ = ["Images", "as_images", "subset"]
