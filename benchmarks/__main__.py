"""Run a benchmark: ``python -m benchmarks NAME [options]``. Without a name the benchmarks are listed."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from typing import Any

import benchmarks


def scripts() -> dict[str, Any]:
    """Return the modules with a main function by name."""
    names = [module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name != "__main__"]
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "main")}


def main() -> None:
    """Run the named benchmark with its options."""
    found = scripts()
    if len(sys.argv) < 2 or sys.argv[1] not in found:
        lines = [f"  {name:18} {(module.__doc__ or '').splitlines()[0]}" for name, module in found.items()]
        sys.exit("\n".join([__doc__ or "", *lines, "\nOptions of a benchmark: python -m benchmarks NAME --help"]))
    name = sys.argv.pop(1)
    sys.argv[0] = f"python -m benchmarks {name}"
    found[name].main()


if __name__ == "__main__":
    main()
