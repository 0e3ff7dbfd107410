"""A run in a process of its own: neither what ran before nor what it leaves behind (malloc's thresholds) counts."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def alone(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call a function in a fresh process, and wait for what it returns."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments, **named).result()
