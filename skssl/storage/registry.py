"""The classes that a saved file may name: each registers when it is defined."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

C = TypeVar("C", bound=type)

_classes: dict[str, dict[str, type]] = {"estimator": {}, "object": {}, "optimizer": {}}


def register(kind: str) -> Callable[[C], C]:
    """Return a decorator that registers a class, so that saved files may name it.

    Parameters
    ----------
    kind : {"estimator", "object", "optimizer"}
        What instances of the class are: estimators that can be saved, objects among their parameters, optimisers.

    Returns
    -------
    callable
        It returns the class unchanged. Classes from outside skssl are not registered, because loading a file must not
        run their code.

    Examples
    --------
    >>> from skssl.storage.registry import register, registered
    >>> class Rotations(dict): ...
    >>> Rotations.__module__ = "another_package"
    >>> register("object")(Rotations).__name__ in registered("object")
    False
    """

    def decorate(cls: C) -> C:
        if cls.__module__.split(".")[0] == "skssl":
            _classes[kind][cls.__name__] = cls
        return cls

    return decorate


def registered(kind: str) -> dict[str, type]:
    """Return the registered classes of a kind.

    Parameters
    ----------
    kind : {"estimator", "object", "optimizer"}
        As for `register`.

    Returns
    -------
    dict of str to type
        The classes by name.

    Examples
    --------
    >>> from skssl.storage.registry import registered
    >>> registered("estimator")["SimCLR"]
    <class 'skssl.methods.simclr.SimCLR'>
    """
    return dict(_classes[kind])
