"""Self-supervised learning of visual representations, as scikit-learn estimators."""

import importlib
from typing import TYPE_CHECKING, Any

from skssl.storage.version import __version__  # noqa: F401
from skssl.training import cpu_threads  # noqa: F401  before torch, which reads what it sets

if TYPE_CHECKING:
    from skssl.api import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """Import all public names when the first of them is used. ``import skssl`` alone does not import torch."""
    if name.startswith("_") and name != "__all__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    api = importlib.import_module("skssl.api")
    globals().update({public: getattr(api, public) for public in api.__all__}, __all__=api.__all__)
    if name not in globals():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})
