"""Warnings, and the error for an unknown name."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from typing import TypeVar

from sklearn.utils._param_validation import InvalidParameterError

T = TypeVar("T")


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


def warn_of_bad(bad: Mapping[int, str], n: int, instead: str = "they were left out") -> None:
    """Warn of images that cannot be read.

    Parameters
    ----------
    bad : mapping of int to str
        The reason for each bad image, by its index.
    n : int
        The number of all images.
    instead : str, default="they were left out"
        What happens to the bad ones.
    """
    warnings.warn(
        f"{len(bad)} of the {n} images in X cannot be read, and {instead}. The first: {bad[min(bad)]}",
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
