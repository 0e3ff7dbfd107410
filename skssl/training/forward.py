"""The forward pass of a training step: plain, compiled, or one of several processes."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from skssl.nn.distributed import wrap_ddp
from skssl.training.objective import Batch, Objective


class ForwardPass:
    """The forward pass of an objective, compiled where that is wanted and works.

    Parameters
    ----------
    module : Objective
        The network and its losses.

    Attributes
    ----------
    compile : bool
        Whether to compile the pass. It becomes False if compiling fails.
    failed : bool
        Whether compiling has failed.
    """

    def __init__(self, module: Objective) -> None:
        self.module, self.compile, self.failed = module, False, False
        self._parallel: nn.Module = module
        self._compiled: Callable[[Batch], dict[str, Tensor]] | None = None
        self._phases: set[Any] = set()  # in which the compiled pass has worked

    def share_gradients(self, shared: bool) -> None:
        """Average gradients over several processes, or stop to do so.

        Parameters
        ----------
        shared : bool
            Whether to average them. True prepares for the layers that are trained at present.
        """
        self._parallel = wrap_ddp(self.module) if shared else self.module

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Parameters
        ----------
        batch : Batch
            The batch.

        Returns
        -------
        dict of str to scalar Tensor
            As `Objective.forward` returns them.
        """
        if not self.compile:
            return self._parallel(batch)
        if self._compiled is None:
            self._compiled = compiled(self.module)
        if self.module.phase in self._phases:
            return self._compiled(batch)
        return self._first(self._compiled, batch)

    def _first(self, run: Callable[[Batch], dict[str, Tensor]], batch: Batch) -> dict[str, Tensor]:
        """Run the compiled pass, which compiles it; if that fails, undo what it has done and run the plain one."""
        before = {name: value.clone() for name, value in self.module.state_dict().items()}
        try:
            losses = run(batch)
        except Exception as error:
            message = str(error).strip().splitlines()[:1] or ["no message"]
            warnings.warn(
                f"compile=True failed, so training continues without it: {type(error).__name__}: {message[0]}",
                stacklevel=2,
            )
            self.module.load_state_dict(before)
            self.compile, self.failed = False, True
            return self._parallel(batch)
        self._phases.add(self.module.phase)
        return losses


def compiled(module: nn.Module) -> Callable[..., Any]:
    """Compile a module's forward pass, for one shape of its input.

    torch.compile caches its results with the code object of a function, and stops after a few for the same code. Every
    training has an objective of its own, so each gets a copy of the code. Inductor's cache still finds what an earlier
    training has compiled.

    Parameters
    ----------
    module : torch.nn.Module
        The module.

    Returns
    -------
    callable
        As ``module.forward``.
    """
    forward = type(module).forward
    own = types.FunctionType(forward.__code__.replace(), forward.__globals__, closure=forward.__closure__)
    return torch.compile(types.MethodType(own, module), dynamic=False)
