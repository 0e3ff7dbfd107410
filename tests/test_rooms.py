"""The imports of the package form the floors that docs/rooms.py lists."""

import graphlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import rooms
import structure

sys.path.pop(0)
ORDER, IMPORTS = list(rooms.ROOMS), rooms.imports()


def test_the_folders_are_the_rooms():
    entries = {path.stem for path in rooms.PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert entries - {"__init__", "__main__"} == set(ORDER)
    assert len(ORDER) <= 20


@pytest.mark.parametrize("module", [module for module in IMPORTS if module != "skssl"])
def test_a_file_imports_from_its_own_room_and_those_below(module):
    below = ORDER[: ORDER.index(rooms.room_of(module)) + 1]
    above = {other for other in IMPORTS[module] if rooms.room_of(other) not in below}
    assert not above, f"{module} imports from above: {sorted(above)}"


def test_no_files_import_each_other():
    graph = {module: others for module, others in IMPORTS.items() if module != "skssl"}
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle
    assert all(order.index(other) < order.index(module) for module, others in graph.items() for other in others)


def test_the_picture_of_a_step_shows_its_calls():
    steps = structure.trace()  # raises where a step calls something else, or in another order
    assert {room for room, *_ in steps} == {"images", "training", "methods", "pretext", "torch"}
    assert "2 x float32 (256, 3, 32, 32)" in [found for *_, found in steps]
