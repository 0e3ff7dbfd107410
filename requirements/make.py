"""Writes the version files that the Makefile installs from.

``python requirements/make.py tested`` asks pip for the newest versions that `pyproject.toml` allows and prints them as
constraints. ``python requirements/make.py oldest`` prints the lowest versions that `pyproject.toml` allows. `make lock`
keeps both, in `tested.txt` and `oldest.txt`.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]


def tested() -> list[str]:
    """Resolve the project with all its extras, without installing anything."""
    wanted = [f"{ROOT}[{','.join(EXTRAS)}]", *PROJECT["build-system"]["requires"]]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    report = json.loads(subprocess.run([*command, *wanted], check=True, capture_output=True, text=True).stdout)
    found = [item["metadata"] for item in report["install"]]
    # Which build of torch fits ("2.14.1+cu130") depends on the machine, and each pins its own CUDA libraries.
    return sorted(
        f"{of['name'].lower()}=={of['version'].split('+')[0]}"
        for of in found
        if not of["name"].startswith(("skssl", "nvidia-", "cuda-", "triton"))
    )


def oldest() -> list[str]:
    """Turn the lower bounds into exact versions: those of what users install, and of the tests' own tools."""
    extras = [bound for extra in EXTRAS if extra != "docs" for bound in EXTRAS[extra]]
    bounds = [*PROJECT["project"]["dependencies"], *extras, *PROJECT["build-system"]["requires"]]
    exact = (re.sub(r"(\[.*\])?>=", "==", bound) for bound in bounds)
    return sorted({bound for bound in exact if "==" in bound})


if __name__ == "__main__":
    print("\n".join({"tested": tested, "oldest": oldest}[sys.argv[1]]()))
