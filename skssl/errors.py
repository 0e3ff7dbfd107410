"""What the library says when something is wrong: its warnings, and the refusal of an unknown name."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


class CollapseWarning(UserWarning):
    """The embeddings have collapsed: all images are mapped to nearly the same point, or into a few dimensions.

    A collapsed encoder often has the lowest loss of all, which is why the loss alone cannot show it.

    Examples
    --------
    >>> import warnings
    >>> from skssl import CollapseWarning
    >>> warnings.simplefilter("error", CollapseWarning)  # stop a long run as soon as it collapses
    """


class BadImageWarning(UserWarning):
    """Some of the images could not be read and were left out, as ``on_bad_image="skip"`` asks.

    Examples
    --------
    >>> import warnings
    >>> from skssl import BadImageWarning
    >>> warnings.simplefilter("ignore", BadImageWarning)  # who knows that some are damaged need not be told
    """


def warn_of_bad(bad: Mapping[int, str], n: int, instead: str = "they were left out") -> None:
    """Warn of images that cannot be read.

    Parameters
    ----------
    bad : mapping of int to str
        What is wrong with them, by their numbers.
    n : int
        How many images there are in all.
    instead : str, default="they were left out"
        What became of them.
    """
    warnings.warn(
        f"{len(bad)} of the {n} images in X cannot be read, and {instead}. The first: {bad[min(bad)]}",
        BadImageWarning,
        stacklevel=2,
    )


def pick(parameter: str, name: str, options: Mapping[str, T]) -> T:
    """Look a name up among the options, or refuse it and name the nearest one.

    Parameters
    ----------
    parameter : str
        The parameter that the name was given for, as the user knows it.
    name : str
        What the user gave.
    options : mapping of str to object
        The names that exist and what they stand for.

    Returns
    -------
    object
        What the name stands for.

    Raises
    ------
    ValueError
        If there is no such name.

    Examples
    --------
    >>> pick("backbone", "resnet18", {"resnet18": 1, "resnet50": 2})
    1
    >>> pick("backbone", "resnet81", {"resnet18": 1, "resnet50": 2})
    Traceback (most recent call last):
    ...
    ValueError: Unknown backbone 'resnet81', did you mean 'resnet18'? Known names: 'resnet18', 'resnet50'.
    """
    if name in options:
        return options[name]
    near = difflib.get_close_matches(str(name), options, n=1)
    hint = f", did you mean {near[0]!r}?" if near else "."
    raise ValueError(f"Unknown {parameter} {name!r}{hint} Known names: {', '.join(map(repr, options))}.")
