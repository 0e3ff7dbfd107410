"""Inherited parameters in a class's docstring."""

from __future__ import annotations

import inspect
import re


def inherit_parameters(cls: type, root: type) -> None:
    """Document the parameters and attributes that a class inherits.

    Parameters of the root are listed as "Other Parameters", those of the bases in between as "Parameters". An entry in
    the class's own docstring takes precedence. Each inherited entry states the default of the class.

    Parameters
    ----------
    cls : type
        The class, whose docstring is changed. Nothing is done if it has no docstring.
    root : type
        The base class whose parameters are shared by all.

    Examples
    --------
    >>> from skssl.methods.docstrings import inherit_parameters
    >>> class Base:
    ...     '''A base class.
    ...
    ...     Parameters
    ...     ----------
    ...     epochs : int, default=100
    ...         Number of epochs.
    ...     '''
    ...
    ...     epochs = 100
    >>> class Method(Base):
    ...     '''A method.'''
    ...
    ...     epochs = 20
    >>> inherit_parameters(Method, Base)
    >>> Method.__doc__.splitlines()[-2]
    'epochs : int, default=20'
    """
    if cls.__doc__ is None:
        return
    shared = _entries(root, "Parameters", cls)
    parameters: dict[str, str] = {}
    attributes: dict[str, str] = {}
    for base in cls.__mro__[: cls.__mro__.index(root) + 1]:
        for name, entry in _entries(base, "Parameters", cls).items():
            if base is cls or name not in shared:
                parameters.setdefault(name, entry)
        for name, entry in _entries(base, "Attributes", cls).items():
            attributes.setdefault(name, entry)
    other = {name: entry for name, entry in shared.items() if name not in parameters}
    if not parameters:
        parameters, other = other, {}
    own = sections(cls)
    merged = {"Parameters": parameters, "Other Parameters": other, "Attributes": attributes}
    merged_sections = (
        {"": own.pop("")}
        | {title: "\n".join(entries.values()) for title, entries in merged.items()}
        | {title: text for title, text in own.items() if title not in merged}
    )
    cls.__doc__ = "\n\n".join(
        f"{title}\n{'-' * len(title)}\n{text}" if title else text for title, text in merged_sections.items() if text
    )


def sections(cls: type) -> dict[str, str]:
    """Split the docstring of a class into its sections.

    Parameters
    ----------
    cls : type
        The class.

    Returns
    -------
    dict of str to str
        The text of each section by its title, which is empty for the summary.

    Examples
    --------
    >>> from skssl import SimCLR
    >>> from skssl.methods.docstrings import sections
    >>> list(sections(SimCLR))
    ['', 'Parameters', 'Other Parameters', 'Attributes', 'References', 'Examples']
    """
    summary, *parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", inspect.cleandoc(cls.__doc__ or ""), flags=re.MULTILINE)
    return {title: text.strip() for title, text in zip(["", *parts[::2]], [summary, *parts[1::2]], strict=True)}


def documented(cls: type, title: str) -> dict[str, tuple[str, str]]:
    """Return the parameters or attributes that a section of a docstring describes.

    Parameters
    ----------
    cls : type
        The class.
    title : str
        The section, such as "Parameters".

    Returns
    -------
    dict of str to (str, str)
        The type and the description of each, by name. The type may end with the default: "int, default=100".

    Examples
    --------
    >>> from skssl import SimCLR
    >>> from skssl.methods.docstrings import documented
    >>> documented(SimCLR, "Parameters")["proj_dim"]
    ('int, default=128', "Width of the projector's output.")
    """
    heads = {name: entry.partition("\n") for name, entry in _entries(cls, title, cls).items()}
    return {name: (head.partition(" : ")[2], " ".join(text.split())) for name, (head, _, text) in heads.items()}


def _entries(base: type, title: str, cls: type) -> dict[str, str]:
    """Return the entries of a section by name, with the defaults of `cls`."""
    entries = {}
    for entry in filter(None, re.split(r"\n(?=\S)", sections(base).get(title, ""))):
        name = entry.partition(" : ")[0]
        default = getattr(cls, name, None)
        if default != getattr(base, name, None):
            head, _, text = entry.partition("\n")
            shown = f'"{default}"' if isinstance(default, str) else default
            entry = f"{head.partition('default=')[0]}default={shown}\n{text}"
        entries[name] = entry.rstrip()
    return entries
