"""Writes the version files that the Makefile installs from.

``python requirements/make.py tested`` asks pip for the newest versions that `pyproject.toml` allows and prints them as
constraints. `make lock` keeps them in `tested.txt`. ``python requirements/make.py oldest`` prints the lowest versions that
`pyproject.toml` allows for users. What only the tests need stays at its tested version.
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
FOR_USERS = ("plot", "detection", "onnx")  # the other extras are for those who change the library


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
    """Turn the lower bounds of what users install into exact versions, and keep the tests' own tools as tested."""
    bounds = [*PROJECT["project"]["dependencies"], *(bound for extra in FOR_USERS for bound in EXTRAS[extra])]
    lowest = [bound.replace(">=", "==") for bound in (*bounds, *PROJECT["build-system"]["requires"])]
    names = {bound.split("==")[0] for bound in lowest}
    tools = {re.split(r"[>\[]", bound)[0] for bound in EXTRAS["test"]} - names
    kept = (ROOT / "requirements" / "tested.txt").read_text().splitlines()
    return lowest + [line for line in kept if line.split("==")[0] in tools]


if __name__ == "__main__":
    print("\n".join({"tested": tested, "oldest": oldest}[sys.argv[1]]()))
