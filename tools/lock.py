"""Write requirements.txt: the exact version of everything that builds, runs and tests the course.

    python -m tools.lock               keep the versions that still fit, add what is new
    python -m tools.lock ruff          take the newest ruff
    python -m tools.lock all           take the newest of everything

The ranges are in pyproject.toml. uv resolves them for every system and Python version at once; it
is installed for the moment, into a temporary folder.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tools.repository import ROOT

REQUIREMENTS = ROOT / "requirements.txt"
UV = "uv==0.13.9"
#: The stored outputs and the trained models come from this PyTorch. After a change of it, run
#: `make notebooks`, and see what prints other digits.
TORCH = "torch==2.13.0"
EXTRAS = ("book", "test")
#: PyTorch's own wheels ask for these where they are of use; a pin would install them everywhere.
GPU = re.compile(r"^(nvidia-|cuda-|triton\b)")


def command(uv: Path, constraints: Path, upgrade: str) -> list[str | Path]:
    """Build the call of uv."""
    arguments: list[str | Path] = [uv, "pip", "compile", "pyproject.toml", "--universal"]
    arguments += [part for extra in EXTRAS for part in ("--extra", extra)]
    arguments += ["--python-version", "3.10", "--fork-strategy", "fewest"]
    arguments += ["--no-header", "--no-annotate", "--quiet", "--constraints", constraints]
    if upgrade == "all":
        arguments.append("--upgrade")
    elif upgrade:
        arguments += ["--upgrade-package", upgrade]
    return [*arguments, "--output-file", REQUIREMENTS]


def without_gpu(lines: list[str]) -> list[str]:
    """Leave out the packages that only a machine with a GPU needs."""
    return [line for line in lines if not GPU.match(line)]


def main(arguments: list[str]) -> int:
    """Lock; leave requirements.txt as it was if that fails."""
    before = REQUIREMENTS.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        scripts = Path(folder) / ("Scripts" if os.name == "nt" else "bin")
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text(TORCH + "\n")
        try:
            pip = [scripts / "python", "-m", "pip", "install", "--quiet", UV]
            subprocess.run(pip, check=True)
            subprocess.run(
                command(scripts / "uv", constraints, "".join(arguments)), cwd=ROOT, check=True
            )
        except subprocess.CalledProcessError as error:
            REQUIREMENTS.write_bytes(before)
            print(f"requirements.txt is as it was: {error}", file=sys.stderr)
            return 1
    lines = without_gpu(REQUIREMENTS.read_text("utf-8").splitlines())
    REQUIREMENTS.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    print("Now 'make book' installs what changed.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
