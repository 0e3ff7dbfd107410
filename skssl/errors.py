"""Warnings, and the error for an unknown name."""

from __future__ import annotations

import difflib
import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from sklearn.utils._param_validation import InvalidParameterError

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])


class CollapseWarning(UserWarning):
    """Warning for collapsed embeddings: all images map to nearly the same point or into a few dimensions.

    The loss does not show a collapse: a collapsed encoder often has the lowest loss of all.

    Examples
    --------
    >>> import warnings
    >>> from skssl import CollapseWarning
    >>> warnings.simplefilter("error", CollapseWarning)  # end a training when it collapses
    """


class BadImageWarning(UserWarning):
    """Warning for images and files that are left out.

    These are images that cannot be read and are skipped, with ``on_bad_image="skip"``, and files in a folder that are
    no images.

    Examples
    --------
    >>> import warnings
    >>> from skssl import BadImageWarning
    >>> warnings.simplefilter("ignore", BadImageWarning)
    """


def warn_of_bad(bad: Mapping[int, str], n: int, instead: str = "left out") -> None:
    """Warn of images that cannot be read.

    Parameters
    ----------
    bad : mapping of int to str
        The reason for each bad image, by its index.
    n : int
        The number of all images.
    instead : str, default="left out"
        What was done with the bad ones.
    """
    was = "was" if len(bad) == 1 else "were"
    warnings.warn(
        f"{len(bad)} of the {n} images in X cannot be read and {was} {instead}. The first: {bad[min(bad)]}",
        BadImageWarning,
        stacklevel=2,
    )


def pick(parameter: str, name: str, options: Mapping[str, T]) -> T:
    """Return the option with a name; refuse an unknown name and suggest the nearest one.

    Parameters
    ----------
    parameter : str
        The name of the parameter, for the message.
    name : str
        The value of the parameter.
    options : mapping of str to object
        The options by name.

    Returns
    -------
    object
        The option.

    Raises
    ------
    InvalidParameterError
        If the name is unknown. This is scikit-learn's ValueError for parameters, which the estimators raise, too.

    Examples
    --------
    >>> pick("backbone", "resnet18", {"resnet18": 1, "resnet50": 2})
    1
    >>> pick("backbone", "resnet81", {"resnet18": 1, "resnet50": 2})
    Traceback (most recent call last):
    ...
    sklearn...InvalidParameterError: Unknown backbone 'resnet81', did you mean 'resnet18'? Known names: ...
    """
    if name in options:
        return options[name]
    near = difflib.get_close_matches(str(name), options, n=1)
    hint = f", did you mean {near[0]!r}?" if near else "."
    raise InvalidParameterError(f"Unknown {parameter} {name!r}{hint} Known names: {', '.join(map(repr, options))}.")


def show_call(example: str) -> Callable[[Function], Function]:
    """Return a decorator that shows the right call of a function when its arguments do not fit its signature.

    Parameters
    ----------
    example : str
        The right call.

    Returns
    -------
    callable
        The decorator. The signature of the function is unchanged.

    Examples
    --------
    >>> from skssl.errors import show_call
    >>> @show_call("half(x)")
    ... def half(x):
    ...     return x / 2
    >>> half(1, 2)
    Traceback (most recent call last):
    ...
    TypeError: half: too many positional arguments. Call it as half(x).
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except TypeError:
                name = function.__qualname__.removesuffix(".__init__")
                try:
                    signature.bind(*args, **kwargs)
                except TypeError as error:
                    raise TypeError(f"{name}: {error}. Call it as {example}.") from None
                raise

        return cast(Function, call)

    return decorate


def show_constructor(example: str) -> Callable[[type], None]:
    """Return a function that applies `show_call` to the constructor of a class.

    Parameters
    ----------
    example : str
        The right call.

    Returns
    -------
    callable
        Takes the class, and changes it in place.
    """

    def change(cls: Any) -> None:
        cls.__init__ = show_call(example)(cls.__init__)

    return change
