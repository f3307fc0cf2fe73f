"""Make a release: one version everywhere, a dated changelog, a commit and a tag, on this machine.

    python -m tools.release 1.2.0

The version is in gptlib/__init__.py. The set-up cell of every notebook installs the release's tag,
so that a notebook opened on Colab next year meets the library that it was written for.
"""

from __future__ import annotations

import datetime
import re
import subprocess
import sys
from pathlib import Path

from tools.repository import ROOT

VERSION_FILE = ROOT / "gptlib/__init__.py"
CHANGELOG = ROOT / "CHANGELOG.md"
CITATION = ROOT / "CITATION.cff"
UNRELEASED = "## [Unreleased]\n"
VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")


class ReleaseError(Exception):
    """A reason not to release, as one line that says what to do."""


def version() -> str:
    """Return the version that gptlib/__init__.py states."""
    found = re.search(r'^__version__ = "(.+)"$', VERSION_FILE.read_text("utf-8"), re.M)
    if found is None:
        raise ReleaseError(f'{VERSION_FILE.name} must have a line __version__ = "…"')
    return found[1]


def check_version(new: str, old: str) -> None:
    """Refuse what is no version, and one that is not above the present one."""
    if not VERSION.fullmatch(new):
        raise ReleaseError(
            f"VERSION must be three numbers such as 1.2.0, not {new!r}: "
            "run 'make release VERSION=1.2.0'."
        )
    if _numbers(new) <= _numbers(old):
        raise ReleaseError(f"VERSION must be above the present one, {old}; {new} is not.")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(".")]


def check_tree(new: str) -> None:
    """Refuse to release with changes that are not committed, or a tag that is there already."""
    changes = _git("status", "--porcelain")
    if changes:
        raise ReleaseError(f"Commit or undo these changes first:\n{changes}")
    if _git("tag", "--list", f"v{new}"):
        raise ReleaseError(f"There is a tag v{new} already: choose a higher version.")


def date_changelog(text: str, new: str, day: datetime.date) -> str:
    """Put what is under Unreleased under the new version; refuse when nothing is."""
    before, heading, after = text.partition(UNRELEASED)
    notes = re.split(r"^(?=## )", after, maxsplit=1, flags=re.M)[0]
    if not heading or not notes.strip():
        raise ReleaseError(
            f"CHANGELOG.md has nothing under '{UNRELEASED.strip()}': write there what changes "
            "for a reader or a teacher."
        )
    dated = f"{before}{UNRELEASED}\n## [{new}] - {day.isoformat()}\n{after}"
    return re.sub(  # the links at the end, to what has changed since
        r"^\[Unreleased\]: (\S+)/compare/v(\S+)\.\.\.HEAD$",
        rf"[Unreleased]: \1/compare/v{new}...HEAD\n[{new}]: \1/compare/v\2...v{new}",
        dated,
        flags=re.M,
    )


def write(new: str, day: datetime.date) -> None:
    """Write the version, the date and the tag into every file that has them."""
    changelog = date_changelog(CHANGELOG.read_text("utf-8"), new, day)
    texts = {CHANGELOG: changelog}
    texts[VERSION_FILE] = re.sub(
        r'^__version__ = ".+"$',
        f'__version__ = "{new}"',
        VERSION_FILE.read_text("utf-8"),
        flags=re.M,
    )
    citation = re.sub(r"^version: .+$", f"version: {new}", CITATION.read_text("utf-8"), flags=re.M)
    texts[CITATION] = re.sub(
        r"^date-released: .+$", f"date-released: {day.isoformat()}", citation, flags=re.M
    )
    for path in pinned():
        texts[path] = pin(path.read_bytes().decode("utf-8"), new)
    for path, text in texts.items():
        path.write_bytes(text.encode("utf-8"))


def pinned() -> list[Path]:
    """List the files that tell a reader to install the library: notebooks and prose pages."""
    paths = sorted([*ROOT.glob("notebooks/**/*.ipynb"), *ROOT.glob("book/*.md")])
    return [path for path in paths if path.parent.name != ".ipynb_checkpoints"]


def pin(text: str, new: str) -> str:
    """Let what installs the library, such as a set-up cell, name the tag of the release."""
    return re.sub(r"(git\+https://[\w./-]+)(@v[\d.]+)?", rf"\g<1>@v{new}", text)


def release(new: str, day: datetime.date) -> None:
    """Check everything first, then write, commit and tag."""
    check_version(new, version())
    check_tree(new)
    write(new, day)
    try:
        _git("commit", "--all", "--quiet", "--message", f"Release {new}")
        _git("tag", "--annotate", f"v{new}", "--message", f"Release {new}")
    except ReleaseError as error:
        raise ReleaseError(
            f"{error}\nThe files are written, the release is not made: 'git status' shows where "
            "it stopped, 'git restore --staged --worktree .' undoes what is not committed."
        ) from None


def _git(*arguments: str) -> str:
    process = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if process.returncode:
        raise ReleaseError(f"git {arguments[0]} failed: {process.stderr.strip()}")
    return process.stdout.rstrip("\n")


def main(arguments: list[str]) -> int:
    """Make the release, and say how to publish it."""
    new = arguments[0] if arguments else ""
    try:
        release(new, datetime.date.today())
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    branch = _git("rev-parse", "--abbrev-ref", "HEAD")
    print(f"Release {new} is committed and tagged v{new}, on this machine only.")
    print(f"Publish it: git push --atomic origin {branch} v{new}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
