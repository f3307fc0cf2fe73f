"""Releases: one version everywhere, and `make release` on a copy of the repository."""

from __future__ import annotations

import datetime
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

import gptlib
from tools import release, repository

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = [path for path in release.pinned() if path.suffix == ".ipynb"]
DAY = datetime.date(2031, 2, 3)


# ---- One version --------------------------------------------------------------------------------


def test_the_changelog_and_the_citation_state_the_library_s_version():
    dated = re.findall(
        r"^## \[([\d.]+)\] - (\d{4}-\d\d-\d\d)$", release.CHANGELOG.read_text("utf-8"), re.M
    )
    citation = yaml.safe_load(release.CITATION.read_text("utf-8"))
    assert dated[0] == (gptlib.__version__, citation["date-released"].isoformat())
    assert citation["version"] == gptlib.__version__ == release.version()
    assert [version for version, _ in dated] == sorted(
        (version for version, _ in dated), key=lambda v: [int(n) for n in v.split(".")]
    )[::-1]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_the_set_up_installs_this_release(path):
    wanted = f"git+{repository.repository()}@v{gptlib.__version__}"
    found = re.findall(r"git\+[^\s\"'\\]+", path.read_text("utf-8"))
    assert found == [wanted], (
        f"{path.name} installs {found}, and must install {wanted}, once: "
        "copy the set-up cell of notebooks/01_what_a_gpt_is.ipynb"
    )


def test_the_pages_tell_to_install_this_release():
    """A notebook that a reader downloads is the release's, and so must the library be."""
    pages = "\n".join(path.read_text("utf-8") for path in sorted(ROOT.glob("book/*.md")))
    found = set(re.findall(r"git\+[^\s\"'\\]+", pages))
    assert found == {f"git+{repository.repository()}@v{gptlib.__version__}"}


# ---- make release -------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A repository of the files that a release reads and writes, committed, with a first tag."""
    for name, value in {"NAME": "A Maintainer", "EMAIL": "maintainer@example.org"}.items():
        monkeypatch.setenv(f"GIT_AUTHOR_{name}", value)
        monkeypatch.setenv(f"GIT_COMMITTER_{name}", value)
    paths = [release.VERSION_FILE, release.CHANGELOG, release.CITATION, *NOTEBOOKS]
    paths += [
        *ROOT.glob("book/*.md"),
        ROOT / "tools/release.py",
        ROOT / "tools/repository.py",
        ROOT / "_config.yml",
    ]
    for path in paths:
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    notes = (tmp_path / "CHANGELOG.md").read_text("utf-8")
    notes = notes.replace(release.UNRELEASED, f"{release.UNRELEASED}\n### Added\n\n- A chapter.\n")
    (tmp_path / "CHANGELOG.md").write_text(notes, "utf-8")
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "Begin")
    git(tmp_path, "tag", f"v{gptlib.__version__}")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    process = subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return process.stdout


def make_release(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.release", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


def test_a_release_is_one_tagged_commit_and_nothing_is_pushed(copy):
    process = make_release(copy, "99.0.1")
    assert process.returncode == 0, process.stderr
    assert process.stdout.endswith("Publish it: git push --atomic origin main v99.0.1\n")
    assert git(copy, "status", "--porcelain") == ""
    assert git(copy, "rev-parse", "v99.0.1^{commit}") == git(copy, "rev-parse", "HEAD")
    assert git(copy, "log", "-1", "--format=%s") == "Release 99.0.1\n"
    assert git(copy, "cat-file", "-t", "v99.0.1") == "tag\n"
    assert '__version__ = "99.0.1"' in (copy / "gptlib/__init__.py").read_text("utf-8")
    citation = yaml.safe_load((copy / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == "99.0.1"
    assert citation["date-released"].year >= 2026
    pages = "".join(path.read_text("utf-8") for path in (copy / "book").iterdir())
    assert set(re.findall(r"@v[\d.]+", pages)) == {"@v99.0.1"}


def test_a_release_changes_one_line_of_every_notebook(copy):
    assert make_release(copy, "99.0.1").returncode == 0
    for path in NOTEBOOKS:
        before = path.read_text("utf-8").splitlines()
        after = (copy / path.relative_to(ROOT)).read_text("utf-8").splitlines()
        pairs = zip(before, after, strict=True)
        changed = [new for old, new in pairs if old != new]
        assert len(changed) == 1, path
        assert f"git+{repository.repository()}@v99.0.1" in changed[0]
        nbformat.validate(nbformat.read(copy / path.relative_to(ROOT), as_version=4))


def test_the_changelog_s_notes_move_under_the_version():
    address = "https://example.org/a/b"
    before = (
        f"# Changelog\n\n## [Unreleased]\n\n- A chapter.\n\n## [1.0.0] - 2026-11-30\n\n- All.\n\n"
        f"[Unreleased]: {address}/compare/v1.0.0...HEAD\n"
        f"[1.0.0]: {address}/releases/tag/v1.0.0\n"
    )
    assert release.date_changelog(before, "1.1.0", DAY) == (
        "# Changelog\n\n## [Unreleased]\n\n## [1.1.0] - 2031-02-03\n\n- A chapter.\n\n"
        "## [1.0.0] - 2026-11-30\n\n- All.\n\n"
        f"[Unreleased]: {address}/compare/v1.1.0...HEAD\n"
        f"[1.1.0]: {address}/compare/v1.0.0...v1.1.0\n"
        f"[1.0.0]: {address}/releases/tag/v1.0.0\n"
    )


@pytest.mark.parametrize(
    "text",
    ["# Changelog\n", "## [Unreleased]\n\n## [1.0.0] - 2026-11-30\n\n- All.\n"],
    ids=["no heading", "nothing under it"],
)
def test_a_release_without_notes_is_refused(text):
    with pytest.raises(release.ReleaseError, match="nothing under '## \\[Unreleased\\]'"):
        release.date_changelog(text, "1.1.0", DAY)


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ("", "three numbers such as 1.2.0, not ''"),
        ("v2.0.0", "not 'v2.0.0'"),
        ("2.0", "not '2.0'"),
        ("2.0.0rc1", "not '2.0.0rc1'"),
        ("01.0.0", "not '01.0.0'"),
        ("1.9.9", "must be above the present one, 1.10.0"),
        ("1.10.0", "must be above the present one, 1.10.0"),
    ],
)
def test_a_version_must_be_three_numbers_and_higher(new, words):
    with pytest.raises(release.ReleaseError) as error:
        release.check_version(new, "1.10.0")
    assert words in str(error.value)


def test_ten_is_above_nine():
    release.check_version("1.10.0", "1.9.0")


def test_what_is_not_committed_stops_a_release(copy):
    (copy / "notes.txt").write_text("")
    assert_refused(copy, "99.0.1", "Commit or undo these changes first:\n?? notes.txt")


def test_a_tag_that_is_there_stops_a_release(copy):
    git(copy, "tag", "v99.0.1")
    assert_refused(copy, "99.0.1", "There is a tag v99.0.1 already")


def assert_refused(folder: Path, version: str, words: str) -> None:
    before = git(folder, "status", "--porcelain"), git(folder, "rev-parse", "HEAD")
    process = make_release(folder, version)
    assert (process.returncode, process.stdout) == (1, "")
    assert process.stderr.startswith(words)
    assert (git(folder, "status", "--porcelain"), git(folder, "rev-parse", "HEAD")) == before


def test_a_commit_that_git_refuses_says_how_to_go_back(copy):
    hook = copy / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'lint is red' >&2\nexit 1\n")
    hook.chmod(0o755)
    process = make_release(copy, "99.0.1")
    assert process.returncode == 1
    assert "lint is red" in process.stderr
    assert "git restore --staged --worktree ." in process.stderr
    git(copy, "restore", "--staged", "--worktree", ".")
    assert git(copy, "status", "--porcelain") == ""
    assert git(copy, "tag", "--list", "v99.0.1") == ""
