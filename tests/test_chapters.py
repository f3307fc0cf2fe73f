"""What belongs to a chapter besides its notebook. Each message says what was forgotten, and where.

CONTRIBUTING.md, "Add a chapter", is the same list in the order of the work.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from gptlib import checks

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
COUNTS = dict(
    enumerate(
        ["eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen"], start=8
    )
)

each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)


def number(path: Path) -> int:
    """The chapter's number, which the notebook's name begins with."""
    return int(path.stem[:2])


def title(path: Path) -> str:
    heading: str = nbformat.read(path, as_version=4).cells[0].source.splitlines()[0]
    return heading.removeprefix("# ")


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def listed(part: str) -> list[dict[str, str]]:
    """The entries of one part of the table of contents."""
    parts = yaml.safe_load(read("_toc.yml"))["parts"]
    return next(entry["chapters"] for entry in parts if entry["caption"] == part)


def test_chapters_are_numbered_without_a_gap():
    wanted = list(range(1, len(CHAPTERS) + 1))
    assert [number(path) for path in CHAPTERS] == wanted, (
        "the notebooks' names must begin with 01, 02, 03, … : where one is taken out or put "
        "between two, rename those that follow, with their exercises, solutions and checks"
    )


def test_the_table_of_contents_lists_the_chapters():
    wanted = [f"notebooks/{path.stem}" for path in CHAPTERS]
    found = [entry["file"] for entry in listed("Chapters")]
    assert found == wanted, _difference("Chapters", found, wanted)


def test_the_table_of_contents_lists_the_solutions():
    wanted = [
        {"file": f"notebooks/solutions/{path.stem}", "title": f"Chapter {number(path)}"}
        for path in CHAPTERS
    ]
    found = listed("Worked solutions")
    assert found == wanted, _difference("Worked solutions", found, wanted)


def _difference(part: str, found: list[Any], wanted: list[Any]) -> str:
    add = [entry for entry in wanted if entry not in found]
    remove = [entry for entry in found if entry not in wanted]
    return f"_toc.yml, '{part}': add {add}, remove {remove}; in the order of the chapters"


@each_chapter
def test_a_chapter_has_solutions(path):
    solutions = path.parent / "solutions" / path.name
    assert solutions.is_file(), f"write the worked solutions: {solutions.relative_to(ROOT)}"
    assert title(solutions).lower() == f"worked solutions: {title(path)}".lower(), (
        f"the first line of {solutions.relative_to(ROOT)} must be "
        f"'# Worked solutions: ' and the chapter's title, {title(path)}"
    )


@each_chapter
def test_a_chapter_is_on_the_landing_page(path):
    row = f"| [{number(path)} {title(path)}](../notebooks/{path.name}) | "
    assert row in read("book/index.md"), (
        f"book/index.md, 'The chapters': add a row that begins with '{row}' and says in a sentence "
        "what the reader does"
    )


def test_the_readme_names_the_chapters():
    wanted = f"The {COUNTS.get(len(CHAPTERS), len(CHAPTERS))} chapters: "
    text = " ".join(read("README.md").split())
    assert wanted in text, f"README.md: the sentence on the chapters must begin '{wanted}…'"
    sentence = text.partition(wanted)[2].partition(". ")[0].lower()
    for path in CHAPTERS:
        assert title(path).lower().removeprefix("the ") in sentence, (
            f"README.md: name '{title(path)}' in the sentence that begins '{wanted}…'"
        )


@each_chapter
def test_a_chapter_s_exercises_are_asked_checked_solved_and_tested(path):
    chapter = number(path)
    module = f"gptlib/checks/chapter{chapter}.py"
    assert (ROOT / module).is_file(), f"write the checks of chapter {chapter}'s exercises: {module}"
    importlib.import_module(f"gptlib.checks.chapter{chapter}")
    registered = {name for name in checks._REGISTRY if name.startswith(f"{chapter}.")}
    asked, solved = (_checked(file) for file in (path, path.parent / "solutions" / path.name))
    tests = "".join(file.read_text("utf-8") for file in sorted(ROOT.glob("tests/test_checks*.py")))
    tested = set(re.findall(rf'"({chapter}\.\d+)"', tests))
    places = {
        path.relative_to(ROOT): asked,
        f"notebooks/solutions/{path.name}": solved,
        module: registered,
        f"tests/test_checks_chapter{chapter}.py": tested,
    }
    everywhere = set().union(*places.values())
    missing = {str(place): sorted(everywhere - names) for place, names in places.items()}
    missing = {place: names for place, names in missing.items() if names}
    assert everywhere, f'chapter {chapter} asks nothing: checks.check("{chapter}.1", answer)'
    assert not missing, f"exercises that are missing there: {missing}"


def _checked(path: Path) -> set[str]:
    cells = nbformat.read(path, as_version=4).cells
    source = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    return set(re.findall(r'check\(\s*"(\d+\.\d+)"', source))


@each_chapter
def test_exercises_are_numbered_by_their_chapter(path):
    for place in (path, *path.parent.glob(f"solutions/{path.name}")):
        other = {name for name in _checked(place) if name.partition(".")[0] != str(number(path))}
        assert not other, (
            f"{place.relative_to(ROOT)} is chapter {number(path)}, but checks {sorted(other)}"
        )
