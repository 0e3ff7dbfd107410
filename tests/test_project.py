"""The files around the code name the package's version, its modules and its commands."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import skssl

ROOT = Path(__file__).parents[1]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()


def unreleased():
    return CHANGELOG.split("\n## ")[1]


def test_newest_version_of_the_changelog_is_the_package_version():
    assert unreleased().startswith("Unreleased")
    versions = re.findall(r"^## (\d\S*) - \d{4}-\d\d-\d\d$", CHANGELOG, flags=re.MULTILINE)
    assert versions[0] == skssl.__version__
    assert versions == sorted(versions, key=lambda version: [int(part) for part in version.split(".")], reverse=True)


def moved_modules():
    """Names in the right column of the table of moved modules; a name without a dot is in the first one's folder."""
    for cell in re.findall(r"^ *\| `skssl[^|]*\| ([^|]*) \|$", unreleased(), flags=re.MULTILINE):
        first, *others = re.findall("`([^`]+)`", cell)
        folder = first.rpartition(".")[0]
        yield from (first, *(f"{folder}.{name}" for name in others))


@pytest.mark.parametrize("name", list(moved_modules()))
def test_new_places_of_moved_modules_exist(name):
    assert importlib.util.find_spec(name) is not None


def test_citation_has_the_required_fields_and_the_package_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert str(citation["version"]) == skssl.__version__
    assert f"## {citation['version']} - {citation['date-released']}" in CHANGELOG
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["license"], citation["keywords"]) == (project["license"], project["keywords"])


def test_pre_commit_runs_make_lint_without_other_repositories():
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    assert [hook["entry"] for hook in repositories[0]["hooks"]] == ["make lint"]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_commands_in_the_pages_are_targets_of_the_makefile(page):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    commands = re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)`", (ROOT / page).read_text(), flags=re.MULTILINE)
    named = {name for names in commands for name in names if name}
    assert named
    assert named <= set(targets)
