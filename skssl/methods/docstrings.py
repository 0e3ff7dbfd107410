"""Parameters that a class inherits, in its constraints and in its docstring."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


_OTHER = "Other Parameters\n----------------"


def add_shared(cls: type, base: type) -> None:
    """Add a base class's parameters to the constraints and to the docstring of a class that inherits them.

    Parameters
    ----------
    cls : type
        The class. Its docstring has references or examples, unless it is abstract, too.
    base : type
        Its base. What its docstring has from the parameters on becomes the "Other Parameters".
    """
    inherited = [vars(parent).get("_parameter_constraints", {}) for parent in cls.__mro__[::-1]]
    cls._parameter_constraints = {  # type: ignore[attr-defined]
        name: rule for rules in inherited for name, rule in rules.items()
    }
    shared = inspect.getdoc(base) or ""
    shared = shared[shared.index("Parameters\n---") :].replace("Parameters\n----------", _OTHER, 1)
    own = inspect.cleandoc(cls.__doc__ or "")
    for section in ("References\n---", "Examples\n---"):
        if section in own:
            cls.__doc__ = own.replace(section, f"{shared}\n\n{section}", 1)
            break
