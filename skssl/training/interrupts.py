"""Telling Ctrl-C from a callback that stops a training early."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self


class Interrupts:
    """A context that notes whether SIGINT arrives.

    skorch's callbacks stop a training early by raising KeyboardInterrupt, as Ctrl-C does.

    Attributes
    ----------
    received : bool
        Whether SIGINT has arrived. It is also passed to the handler that was installed before.

    Examples
    --------
    >>> from skssl.training.interrupts import Interrupts
    >>> with Interrupts() as interrupts:
    ...     pass
    >>> interrupts.received
    False
    """

    def __init__(self) -> None:
        self.received = False
        self._previous: Any = None

    def __enter__(self) -> Self:
        """Install the handler, unless SIGINT is ignored. Signals arrive in the main thread only."""
        handler = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and callable(handler):
            self._previous = handler
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *raised: object) -> None:
        """Install the previous handler again."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _note(self, kind: int, frame: FrameType | None) -> None:
        self.received = True
        self._previous(kind, frame)
