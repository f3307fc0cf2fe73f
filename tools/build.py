"""Build the site into _build/html, with every warning an error, and say what went wrong if it did.

The whole book is built each time: it takes seconds, and a warning in a page that did not change
cannot hide behind a cache.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
SITE = BUILD / "html"
#: What a build puts there.
MADE = ("html", ".doctrees", "jupyter_execute")
COMMAND = ("build", ".", "--all", "-W", "-n", "--keep-going")


def main() -> int:
    """Build into a clean folder; return 1 after printing the log's errors if that failed."""
    try:
        for made in MADE:  # beside them lie the trainings of `make mini` and `make scaling`
            shutil.rmtree(BUILD / made, ignore_errors=True)
        process = subprocess.run(
            [Path(sys.executable).with_name("jupyter-book"), *COMMAND],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        log = process.stdout + process.stderr
        if process.returncode:
            print(explain(log), file=sys.stderr)
            return 1
        (SITE / ".complete").touch()
    except OSError as error:
        print(explain(str(error)), file=sys.stderr)
        return 1
    return 0


def explain(log: str) -> str:
    """Pick from a build's log what the person who broke it needs to read."""
    if "No space left on device" in log:
        return "The disk is full: free some space, then run make again."
    telling = [line for line in log.splitlines() if "WARNING" in line or "ERROR" in line]
    return "The site was not built.\n" + ("\n".join(telling) or log)


if __name__ == "__main__":
    sys.exit(main())
