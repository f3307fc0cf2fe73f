"""Make an environment with other versions of the packages than those of requirements.txt.

    python -m tools.versions lowest     the lowest that pyproject.toml allows, on Python 3.10
    python -m tools.versions colab      what Colab runs, on Python 3.13

It lies in _build/lowest or _build/colab. `make lowest` and `make colab` make it and test in it.
The versions stand in tests/constraints; the head of each file there is the command that writes it.
"""

from __future__ import annotations

import re
import subprocess
import sys

from tools import bootstrap
from tools.repository import ROOT

PYTHONS = {"lowest": (3, 10), "colab": (3, 13)}


def make(name: str) -> None:
    """Make an environment anew, and install in it what the tests need."""
    folder, constraints = ROOT / "_build" / name, f"tests/constraints/{name}.txt"
    python = str(folder / "bin" / "python")
    bootstrap.run("Making it", sys.executable, "-m", "venv", "--clear", str(folder))
    if name == "colab":
        install(python, "-c", constraints, "-r", "tests/constraints/colab.in")
        check_the_set_up_cell(python)
    install(python, "-c", constraints, "-e", ".[test]")
    (folder / ".complete").touch()


def check_the_set_up_cell(python: str) -> None:
    """Install gptlib as the first cell of a notebook does: what Colab has must stay as it is."""
    before = installed(python)
    install(python, ".")
    changed = {re.split("==| @ ", line)[0] for line in installed(python) ^ before} - {"gptlib"}
    if changed:
        bootstrap.fail(f"On Colab the set-up cell would replace or add {', '.join(changed)}.")


def install(python: str, *arguments: str) -> None:
    """Let pip install something into the environment of a Python."""
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *arguments)
    bootstrap.run(f"Installing {' '.join(arguments)}", *pip)


def installed(python: str) -> set[str]:
    """Return the packages of an environment, each with its version."""
    freeze = [python, "-m", "pip", "freeze"]
    listed = subprocess.run(freeze, check=True, capture_output=True, text=True)
    return set(listed.stdout.split("\n"))


def main(arguments: list[str]) -> None:
    """Make the environment that is named."""
    if len(arguments) != 1 or arguments[0] not in PYTHONS:
        bootstrap.fail(f"Name one of {', '.join(PYTHONS)}, not {' '.join(arguments) or 'nothing'}.")
    name, version = arguments[0], sys.version_info[:2]
    if version != PYTHONS[name]:
        wanted = "{}.{}".format(*PYTHONS[name])
        bootstrap.fail(
            f"'make {name}' needs Python {wanted}, and '{sys.executable}' is "
            "{}.{}: install it, or name it with 'make {} PYTHON=...'.".format(*version, name)
        )
    print(f"Setting up _build/{name} (a few minutes)...", flush=True)
    make(name)


if __name__ == "__main__":
    main(sys.argv[1:])
