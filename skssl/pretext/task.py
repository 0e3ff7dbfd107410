"""What pretext tasks share: parameters that are checked, and the two hooks of a method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sklearn.base import BaseEstimator
from torch import Tensor

from skssl.storage.registry import register

if TYPE_CHECKING:
    from skssl.training.objective import Batch, Objective


@dataclass(kw_only=True, eq=False, repr=False)
class Task(BaseEstimator):
    """A pretext task that any method takes as ``aux``; abstract."""

    #: Under which its loss is recorded.
    name: ClassVar[str]
    #: Whether the loss is that of views, and not of what is cut from the images themselves.
    reads_views: ClassVar[bool] = True

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

    def build(self, net: Objective, dim: int, n_samples: int) -> None:
        """Put on the net what the task needs.

        Parameters
        ----------
        net : Objective
            The network, with the method's parts.
        dim : int
            Width of the features.
        n_samples : int
            Number of training images.

        Raises
        ------
        ValueError
            If the task cannot be done with this network or these images.
        """
        raise NotImplementedError

    def prepare(self, net: Objective, batch: Batch) -> None:
        """Put on the batch, in ``made``, what a compiled step cannot make: further views, drawn by its generator.

        Parameters
        ----------
        net : Objective
            The network.
        batch : Batch
            The batch.
        """

    def losses(self, net: Objective, batch: Batch) -> dict[str, Tensor]:
        """Compute the task's loss.

        Parameters
        ----------
        net : Objective
            The network.
        batch : Batch
            The batch.

        Returns
        -------
        dict of str to scalar Tensor
            The loss under the task's name, and what is recorded only, detached.
        """
        raise NotImplementedError
