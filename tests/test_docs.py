"""The docs keep up: every public name is in the reference, and what the pages show can be pasted and run."""

import importlib
import re
from pathlib import Path

import pytest

import skssl

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def code_of(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def test_every_public_name_is_in_the_reference():
    listed = set(re.findall(r"^   ([\w.]+)$", (ROOT / "docs" / "api.md").read_text(), flags=re.MULTILINE))
    public = set(skssl.__all__)
    for room in ("augment", "callbacks", "datasets", "images", "losses", "metrics", "transfer"):
        names = importlib.import_module(f"skssl.{room}").__all__
        public |= {name if name in skssl.__all__ else f"{room}.{name}" for name in names}
    assert public <= listed, f"docs/api.md lacks {sorted(public - listed)}"
    for name in listed:
        room, _, last = name.rpartition(".")
        assert getattr(importlib.import_module(f"skssl.{room}".rstrip(".")), last).__doc__, f"{name} is not documented"


def test_all_is_sorted():
    assert skssl.__all__ == sorted(skssl.__all__, key=lambda name: (not name.isupper(), name))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_on_every_page_runs(page):
    for block in code_of(page):
        exec(compile(block, str(page), "exec"), {})


def test_the_readme_has_code():
    assert code_of(ROOT / "README.md")
