"""Which committed assets were judged in full, and in which state: what did not change since then
need not be judged again before the night.

    python -m tests.judged     judge all of it now, and record the state if it holds (make judge)

A test marked ``judges("mini")`` runs whenever a file of that name below has changed since, and in
the nightly job; tests/test_judged.py then stays red until the new state is recorded.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "tests" / "judged.json"

#: What each verdict rests on: the asset, the grammar, and the code that writes and judges.
STORIES = (
    "gptlib/assets/stories.*",
    "gptlib/stor*",
    "gptlib/characters.py",
    "gptlib/tokenizer*",
    "tests/test_stories.py",
)
FILES = {
    "stories": STORIES,
    "mini": (
        *STORIES,
        "gptlib/assets/mini/*",
        *(f"gptlib/{name}*" for name in ("config", "data", "generation", "model", "pretrained")),
        "gptlib/tensor_files.py",
        "gptlib/text_files.py",
        "gptlib/training*",
        "tests/test_mini.py",
        "tools/teacher.py",
        "tools/train_mini.py",
    ),
}


def state(name: str) -> str:
    """Return a hash of all files that a verdict rests on."""
    digest = hashlib.sha256()
    for pattern in FILES[name]:
        found = sorted(ROOT.glob(pattern))
        if not found:
            raise FileNotFoundError(f"tests/judged.py: there is no {pattern}; was it renamed?")
        for path in (file for one in found for file in _files(one)):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0")
            digest.update(path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()[:16]


def _files(path: Path) -> list[Path]:
    """Return a file, or every module of a package."""
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def recorded(name: str) -> bool:
    """Say if the files of a name are as they were when they were judged."""
    return json.loads(RECORD.read_text("utf-8")).get(name) == state(name)


def main() -> int:
    """Run every judging test; record the state if all of them pass."""
    before = {name: state(name) for name in FILES}
    tests = sorted(file for patterns in FILES.values() for file in patterns if "test_" in file)
    command = [sys.executable, "-m", "pytest", "-n", "2", "-m", "judges", *dict.fromkeys(tests)]
    if subprocess.run(command, cwd=ROOT).returncode:
        return 1
    RECORD.write_text(json.dumps(before, indent=1) + "\n", encoding="utf-8", newline="\n")
    print(f"recorded in {RECORD.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
