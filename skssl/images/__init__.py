"""Whatever the user calls images, read as `Images`."""

from skssl.images.base import Images
from skssl.images.reading import as_images, is_decoded, subset

__all__ = ["Images", "as_images", "is_decoded", "subset"]
