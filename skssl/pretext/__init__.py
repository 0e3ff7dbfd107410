"""Pretext tasks, one file each. Any method takes them as ``aux``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skssl.errors import pick
from skssl.pretext.colorization import ColorizationTask
from skssl.pretext.inpainting import ContextEncoderTask
from skssl.pretext.jigsaw import JigsawTask
from skssl.pretext.relative_patch import RelativePatchTask
from skssl.pretext.rotation import Rotation
from skssl.pretext.task import Task

__all__ = ["ColorizationTask", "ContextEncoderTask", "JigsawTask", "RelativePatchTask", "Rotation", "Task", "as_tasks"]

TASKS: dict[str, Any] = {
    "colorization": ColorizationTask,
    "inpainting": ContextEncoderTask,
    "jigsaw": JigsawTask,
    "relative_patch": RelativePatchTask,
    "rotation": Rotation,
}


def as_tasks(aux: Any) -> dict[str, Any]:
    """Return the tasks for the parameter ``aux``, by name.

    Parameters
    ----------
    aux : None, str, task or sequence of these
        A name ("colorization", "inpainting", "jigsaw", "relative_patch" or "rotation"), a task such as `Rotation()`, or
        a list of these.

    Returns
    -------
    dict of str to task
        The tasks by name. The history records their losses under these names.

    Raises
    ------
    ValueError
        If a name is unknown or a task is given twice.
    TypeError
        If an entry is neither a name nor a task.

    Examples
    --------
    >>> from skssl.pretext import as_tasks
    >>> as_tasks("rotation")
    {'rotation': Rotation()}
    """
    if aux is None:
        return {}
    tasks: dict[str, Any] = {}
    for given in [aux] if isinstance(aux, str) or not isinstance(aux, Sequence) else aux:
        task = pick("aux", given, TASKS)() if isinstance(given, str) else given
        if not isinstance(task, Task) or hasattr(task, "fit"):  # methods such as Jigsaw are tasks, too
            raise TypeError(f"aux must be a task such as 'rotation' or Rotation(), or a list of tasks. Got {given!r}.")
        if task.name in tasks:
            raise ValueError(f"aux must contain each task once. Got {task.name!r} twice.")
        tasks[task.name] = task
    return tasks
