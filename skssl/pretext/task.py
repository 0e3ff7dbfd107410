"""Base class of pretext tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from sklearn.base import BaseEstimator

from skssl.storage.registry import register
from skssl.training.objective import Hooks


@dataclass(kw_only=True, eq=False, repr=False)
class Task(Hooks, BaseEstimator):
    """Abstract base class of pretext tasks, which any method takes as ``aux``."""

    #: Name of the task and of its loss in the history.
    name: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Register the task, so that saved files may name it."""
        super().__init_subclass__(**kwargs)
        register("object")(cls)

    def validate(self) -> None:
        """Validate the parameters.

        Raises
        ------
        ValueError
            If a parameter is out of range.
        """
        self._validate_params()
