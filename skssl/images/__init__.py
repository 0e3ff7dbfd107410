"""Whatever the user calls images, read as `Images`."""

from skssl.images.reading import as_images, is_decoded, subset
from skssl.images.sources import Images

__all__ = ["Images", "as_images", "is_decoded", "subset"]
