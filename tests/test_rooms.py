"""The imports of the package are the floors that the docs show."""

import ast
import graphlib
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "skssl"


def floors():
    spec = importlib.util.spec_from_file_location("rooms", ROOT / "docs" / "rooms.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FLOORS


ROOMS = [room for floor in floors() for room in floor]


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(path):
    """Modules of the package that a file imports, inside functions and for types alone, too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "skssl"}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the room"
            if (node.module or "").split(".")[0] == "skssl":
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {name if name in FILES else node.module for name in names}
    return found


def room_of(module):
    return module.split(".")[1] if "." in module else "skssl"


def test_the_folders_are_the_rooms():
    entries = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert entries - {"__init__"} == set(ROOMS)
    assert len(ROOMS) <= 18


@pytest.mark.parametrize("module", [module for module in FILES if module != "skssl"])
def test_a_file_imports_from_its_own_room_and_those_below(module):
    own = ROOMS.index(room_of(module))
    above = {
        other for other in imported(FILES[module]) if room_of(other) == "skssl" or ROOMS.index(room_of(other)) > own
    }
    assert not above, f"{module} imports from above: {sorted(above)}"


def test_no_files_import_each_other():
    graph = {module: imported(path) - {module} for module, path in FILES.items() if module != "skssl"}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle
