"""What pretext tasks share: parameters that are checked, and the two hooks of a method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from sklearn.base import BaseEstimator

from skssl.storage.registry import register
from skssl.training.objective import Hooks


@dataclass(kw_only=True, eq=False, repr=False)
class Task(Hooks, BaseEstimator):
    """A pretext task that any method takes as ``aux``; abstract."""

    #: Under which its loss is recorded.
    name: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Register the task, so that saved files may name it."""
        super().__init_subclass__(**kwargs)
        register("object")(cls)

    def validate(self) -> None:
        """Refuse parameters that are out of range.

        Raises
        ------
        ValueError
            Naming the parameter, what was expected and what came.
        """
        self._validate_params()
