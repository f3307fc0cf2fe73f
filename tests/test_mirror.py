"""The blocks that the chapters show are the library's: the same code, docstrings aside."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import json
import re
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

Cell = tuple[str, dict[str, Any]]  # where it stands, and the cell itself


def mirrors() -> list[Cell]:
    """Every cell of every notebook that is tagged, or only marked, as a mirror."""
    found = []
    for path in sorted(NOTEBOOKS.rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        for number, cell in enumerate(json.loads(path.read_text("utf-8"))["cells"], start=1):
            metadata = cell["metadata"]
            if "mirror" in metadata.get("tags", []) or "mirror" in metadata:
                found.append((f"{path.relative_to(NOTEBOOKS).as_posix()}, cell {number}", cell))
    return found


MIRRORS = mirrors()


def definition_in(source: str, name: str) -> ast.AST:
    """The one definition of a cell, which must bear the library object's name."""
    found = [node for node in ast.parse(source).body if isinstance(node, DEFINITIONS)]
    names = [node.name for node in found]
    assert names == [name], f"expected one definition, {name}, found {names}"
    return found[0]


def definition_of(target: str) -> ast.AST:
    """The library's definition of ``package.module.object``."""
    module, name = target.rsplit(".", 1)
    source = inspect.getsource(getattr(importlib.import_module(module), name))
    return definition_in(textwrap.dedent(source), name)


def without_docstrings(node: ast.AST) -> ast.AST:
    """Take the docstrings out, in place; a body that was nothing else becomes ``pass``."""
    for part in ast.walk(node):
        if isinstance(part, DEFINITIONS) and ast.get_docstring(part) is not None:
            part.body = part.body[1:] or [ast.Pass()]
    return node


def difference(cell_source: str, target: str) -> str:
    """Return a diff of the cell's block against the library's, empty when they are one."""
    name = target.rsplit(".", 1)[1]
    shown = without_docstrings(definition_in(cell_source, name))
    library = without_docstrings(definition_of(target))
    if ast.dump(shown) == ast.dump(library):
        return ""
    lines = difflib.unified_diff(
        ast.unparse(library).splitlines(),
        ast.unparse(shown).splitlines(),
        fromfile=target,
        tofile="the chapter",
        lineterm="",
    )
    return "\n".join(lines)


def test_there_are_mirrors() -> None:
    assert MIRRORS, f"no cell of {NOTEBOOKS} is tagged mirror"


@pytest.mark.parametrize(("where", "cell"), MIRRORS, ids=[where for where, _ in MIRRORS])
def test_a_mirror_shows_the_library(where: str, cell: dict[str, Any]) -> None:
    assert cell["cell_type"] == "code", f"{where} is tagged mirror but holds no code"
    assert "mirror" in cell["metadata"].get("tags", []), f"{where} lacks the tag mirror"
    target = cell["metadata"].get("mirror")
    assert isinstance(target, str), f'{where} lacks the metadata {{"mirror": "gptlib.…"}}'
    assert target.startswith("gptlib."), f"{where} mirrors {target}, which is not of gptlib"
    parted = difference("".join(cell["source"]), target)
    assert not parted, f"{where} and the library have parted:\n{parted}"


def test_no_block_is_shown_twice() -> None:
    times = Counter(cell["metadata"].get("mirror") for _, cell in MIRRORS)
    twice = {target for target, count in times.items() if count > 1}
    assert not twice, f"shown in more than one cell of the course: {sorted(map(str, twice))}"


BUILT = re.compile(r"\bBuilt in chapter (\d+)\.")


@pytest.mark.parametrize(("where", "cell"), MIRRORS, ids=[where for where, _ in MIRRORS])
def test_the_library_says_where_it_is_built(where: str, cell: dict[str, Any]) -> None:
    module, name = cell["metadata"]["mirror"].rsplit(".", 1)
    docstring = inspect.getdoc(getattr(importlib.import_module(module), name)) or ""
    assert BUILT.findall(docstring) == [str(int(where[:2]))], docstring


def test_nothing_names_a_chapter_that_does_not_build_it() -> None:
    """Methods included, of which none is a mirror."""
    claims = Counter()
    for path in Path(inspect.getfile(importlib.import_module("gptlib"))).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (*DEFINITIONS, ast.Module)):
                found = BUILT.findall(ast.get_docstring(node) or "")
                claims.update((getattr(node, "name", path.name), number) for number in found)
    assert claims == Counter(
        (cell["metadata"]["mirror"].rsplit(".", 1)[1], str(int(where[:2])))
        for where, cell in MIRRORS
    )


LIBRARY = inspect.getsource(importlib.import_module("gptlib.data").windows)


def test_docstrings_and_layout_do_not_matter() -> None:
    other = LIBRARY.replace('"""Cut', '"""Carve', 1).replace("# (N, T)", "")
    assert other != LIBRARY
    assert difference(other, "gptlib.data.windows") == ""


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("stream[1:]", "stream[:-1]"),
        ("stride: int", "stride"),
        ("-> tuple[Tensor, Tensor]", ""),
        ("raise ValueError", "raise TypeError"),
    ],
)
def test_any_other_change_is_shown(ours: str, theirs: str) -> None:
    changed = LIBRARY.replace(ours, theirs, 1)
    assert changed != LIBRARY
    parted = difference(changed, "gptlib.data.windows")
    assert parted.startswith("--- gptlib.data.windows\n+++ the chapter\n")


def test_a_cell_with_more_than_the_block_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"expected one definition, windows, found \['win"):
        difference(LIBRARY + "\ndef other(): ...\n", "gptlib.data.windows")
