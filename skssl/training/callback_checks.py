"""Refuse the skorch callbacks that cannot work in a self-supervised training, with what to use instead."""

from __future__ import annotations

from typing import Any

from skorch.callbacks import LRScheduler


def check_callback(callback: Any) -> None:
    """Refuse a callback that would have no effect or fail.

    Parameters
    ----------
    callback : skorch.callbacks.Callback
        The callback.

    Raises
    ------
    ValueError
        If the callback sets the learning rate, which is the task of ``schedule``.
    """
    name = type(callback).__name__
    if isinstance(callback, LRScheduler):
        policy = callback.policy if isinstance(callback.policy, str) else callback.policy.__name__
        arguments = "".join(f", {key}={value!r}" for key, value in callback.kwargs.items())
        raise ValueError(
            f"{name} cannot set the learning rate, which the parameter 'schedule' sets. Pass "
            f"schedule=functools.partial({policy}{arguments}) instead."
        )
