"""What every notebook must be, whatever it teaches. (nbval runs them; see pyproject.toml.)"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbconvert.exporters import ScriptExporter
from nbval.plugin import get_sanitize_patterns

from gptlib.drawn import UNKNOWN
from tests import drawing
from tools import execute

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = execute.notebooks()
CHAPTERS = [path for path in NOTEBOOKS if path.parent.name == "notebooks"]
EXEMPTIONS = ("nbval-ignore-output", "nbval-skip")


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


each_notebook = pytest.mark.parametrize(
    "path", NOTEBOOKS, ids=lambda p: f"{p.parent.name}-{p.stem}"
)
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)


@each_notebook
def test_was_run_in_order_from_a_fresh_kernel(path):
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1)), _run(path)


@each_notebook
def test_can_be_had_as_a_script(path):
    _, resources = ScriptExporter().from_filename(path)
    assert resources["output_extension"] == ".py"


@each_notebook
def test_stores_nothing_that_changes_from_run_to_run(path):
    before = path.read_text("utf-8")
    notebook = nbformat.read(path, as_version=4)
    execute.tidy(notebook)
    assert nbformat.writes(notebook, version=4).rstrip("\n") + "\n" == before, _run(path)


def _run(path: Path) -> str:
    name = path.relative_to(ROOT).as_posix()
    return f"an editor has saved this file; run 'make notebooks NOTEBOOK={name}' and commit that"


@each_notebook
def test_begins_with_the_one_set_up_cell(path):
    expected = code_cells(CHAPTERS[0])[0].source
    first = code_cells(path)[0]
    where = f"{path.relative_to(ROOT).as_posix()}: "
    assert first.source == expected, (
        f"{where}the first code cell must be chapter 1's set-up cell, unchanged:\n{expected}"
    )
    assert {"setup", "hide-input"} <= set(tags(first)), (
        f"{where}the set-up cell needs the tags 'setup' and 'hide-input': copy chapter 1's cell"
    )
    assert nbformat.read(path, as_version=4).cells[0].source.startswith("# "), (
        f"{where}the first cell must be Markdown and begin with the title: '# …'"
    )


@each_notebook
def test_cells_are_short(path):
    for cell in code_cells(path):
        lines = cell.source.splitlines()
        assert len(lines) <= 25, f"{len(lines)} lines, at most 25: two cells\n\n{cell.source}"
        if "setup" not in tags(cell):
            longest = max(map(len, lines))
            assert longest <= 88, f"a line of {longest} characters, at most 88\n\n{cell.source}"


@each_notebook
def test_at_most_one_cell_in_ten_is_exempt_and_says_why(path):
    cells = code_cells(path)
    exempt = [cell for cell in cells if set(tags(cell)) & set(EXEMPTIONS)]
    assert len(exempt) <= len(cells) / 10, (
        f"{len(exempt)} of {len(cells)} cells are not compared: print what is the same everywhere"
    )
    for cell in exempt:
        assert re.match(r"# not (compared|run): \S+", cell.source), (
            f"begin with '# not compared: ' and why, or '# not run: '\n\n{cell.source}"
        )
    marked = [cell.source for cell in cells if "NBVAL" in cell.source]
    assert not marked, f"use the tags {EXEMPTIONS} instead of comments\n\n{marked}"


@each_notebook
def test_every_picture_has_alternative_text(path):
    for cell in code_cells(path):
        for output in cell.outputs:
            data = output.get("data", {})
            kinds = [kind for kind in data if kind.startswith("image/")]
            for kind in kinds:
                words = output.metadata.get(kind, {}).get("alt", "").split()
                assert len(words) >= 5, (
                    "say in at least five words what the picture shows: "
                    f"figures.show(figure, '…')\n\n{cell.source}"
                )
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"!\[\s*\]\(|<img(?![^>]*\balt=)", cell.source), (
                f"an image without alternative text\n\n{cell.source}"
            )


def test_every_figure_is_compared():
    """Those that draw times, or errors of rounding, only by their words; see tests/drawing.py."""
    shown = [
        (figure, set(tags(cell)))
        for path in NOTEBOOKS
        for cell in code_cells(path)
        for figure in drawing.figures_of(cell.outputs)
    ]
    assert len(shown) >= 72
    for figure, _ in shown:
        assert "axes 1 x limits" in figure["drawn"], figure
        assert UNKNOWN not in figure["drawn"].values(), figure
    assert len([tags for _, tags in shown if "figure-words" in tags]) <= 3
    assert len([tags for _, tags in shown if tags & set(EXEMPTIONS)]) <= 1


@each_notebook
def test_markdown_is_plain(path):
    """MyST's directives and roles show as raw text in Colab, so notebooks do without."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"^:::|^```\{|\{[a-z:-]+\}`", cell.source, re.M), (
                f"a directive or role; plain Markdown reads the same in Colab\n\n{cell.source}"
            )


@each_chapter
def test_exercises_have_hints_and_lead_to_their_solutions(path):
    """That they are checked, solved and tested is in test_chapters.py."""
    text = path.read_text("utf-8")
    source = "\n".join(cell.source for cell in code_cells(path))
    asked = set(re.findall(r'check\(\s*"(\d+\.\d+)"', source))
    hints = text.count('class=\\"hint\\"')
    assert asked, f'{path.name} has no exercise: checks.check("N.1", answer)'
    assert hints >= len(asked), (
        f"{path.name} has {len(asked)} exercises and {hints} hints: add below each exercise "
        '<details class="hint"><summary>Hint</summary> … </details>'
    )
    assert f"solutions/{path.name}" in text, (
        f"{path.name}: link the worked solutions, solutions/{path.name}"
    )


@each_chapter
def test_self_test_gives_feedback_on_every_choice(path):
    text = "\n".join(
        cell.source
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
    )
    choices = re.findall(r'<details class="choice( right)?">(.*?)</details>', text, re.S)
    right = sum(1 for mark, _ in choices if mark)
    assert right >= 1, (
        f"{path.name} has no self-test: under 'Check yourself', ask a question with choices "
        '<details class="choice"> and one <details class="choice right">'
    )
    assert len(choices) >= 3 * right, (
        f"{path.name}: {len(choices)} choices for {right} questions: at least three for each"
    )
    for _, body in choices:
        choice, feedback = body.split("</summary>")
        assert len(feedback.split()) >= 4, f"say why this choice is right or wrong:\n\n{body}"
        assert not re.search(r"[`*$]", choice), f"in HTML, Markdown stays as it is: {choice}"


# Terms that no chapter defines as one phrase: each of these words stands in bold instead.
MADE_OF = {
    "end-of-text token": ["special token"],
    "gpt": ["generative", "pretrained", "transformer"],
    "greedy decoding": ["greedy", "decoding"],
    "held-out text": ["held-out"],
    "n-gram model": ["n-gram", "language model"],
    "position embedding": ["embedding"],
    "tied head": ["tied", "output head"],
    "token embedding": ["embedding"],
}
# Bold phrases that define nothing: they stress a word, or open a paragraph.
STRESSED = {"add", "entries against length", "fewer bits", "precision", "it takes", "write"} | {
    "you need",
    "after this chapter you can",
    "where the ideas came from",
}


def _singular(phrase: str) -> str:
    return re.sub(r"(?<=\w)s$", "", re.sub(r" \(.*\)", "", phrase).lower())


def bold_phrases(text: str) -> set[str]:
    """Return what stands in bold in a text, but for sentences, labels and titles of chapters."""
    found = {" ".join(phrase.split()) for phrase in re.findall(r"\*\*(.+?)\*\*", text, re.S)}
    return {_singular(p) for p in found if len(p.split()) <= 5 and not re.search(r"[.:?]$|^\d", p)}


def unmatched(page: str, text: str) -> set[str]:
    """Return the terms of a glossary that no text defines, and what a text defines beside them."""
    terms = set(map(_singular, re.findall(r"^(\S.*)\n  \S", page.split("```{glossary}")[1], re.M)))
    bold = bold_phrases(text)
    parts = {part for term in terms & MADE_OF.keys() for part in MADE_OF[term]}
    missing = (terms - MADE_OF.keys() | parts) - bold
    return missing | bold - terms - parts - set(map(_singular, STRESSED))


def test_the_glossary_holds_what_the_chapters_define_and_nothing_else():
    """Each of its terms stands in bold in a chapter, and what stands in bold there is a term."""
    page = (ROOT / "book/glossary.md").read_text("utf-8")
    cells = [c for path in CHAPTERS for c in nbformat.read(path, as_version=4).cells]
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert unmatched(page, text) == set()
    assert len(bold_phrases(text)) >= 100
    assert unmatched(page + "headless chicken\n  It runs.\n", text) == {"headless chicken"}
    assert unmatched(page, text + "\n\nA **headless chicken** runs.") == {"headless chicken"}
    assert unmatched(page, text.replace("**causal mask**", "causal mask")) == {"causal mask"}


def test_the_copies_that_jupyter_keeps_are_no_notebooks(tmp_path):
    for name in ("notebooks/01.ipynb", "notebooks/.ipynb_checkpoints/01-checkpoint.ipynb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert execute.notebooks(tmp_path) == [tmp_path / "notebooks/01.ipynb"]


ASK = "import socket; socket.create_connection(('nowhere.invalid', 80))"
CHANGING = (
    "import random, time\n"
    "from gptlib import figures\n"
    "from gptlib.widgets import TokenExplorer\n"
    "figure, axes = figures.new(2, 2)\n"
    "figures.show(figure, 'An empty pair of axes here')\n"
    "print(object(), 0xABCDEF)\n"
    "display(object())\n"
    "TokenExplorer('a cat')"
)


@pytest.mark.system
def test_executing_stores_the_same_bytes_twice_and_nothing_of_a_notebook_that_fails(tmp_path):
    """The one that fails asks the network, which tests/guard keeps from kernels, too."""
    broken, twice = tmp_path / "broken.ipynb", tmp_path / "twice.ipynb"
    for path, source in ((broken, ASK), (twice, CHANGING)):
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
    before = broken.read_bytes()
    command = [sys.executable, ROOT / "tools/execute.py", broken, twice]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 1
    assert "broken.ipynb: left as it was" in process.stderr
    assert "tests stay on this machine, but something asked for nowhere.invalid" in process.stderr
    assert broken.read_bytes() == before

    stored = twice.read_bytes()
    assert b"An empty pair of axes here" in stored
    assert b"widget-view" not in stored
    execute.execute(twice)
    assert twice.read_bytes() == stored


def test_nbval_hides_the_addresses_that_are_not_stored():
    text = f"{object()} and {ASK.join}, 0xABCDEF"
    hidden = text
    for pattern, replacement in get_sanitize_patterns(
        (ROOT / "tests/nbval.cfg").read_text("utf-8")
    ):
        hidden = re.sub(pattern, replacement, hidden)
    assert hidden == execute.hide_addresses(text) != text
    assert hidden.endswith("0xABCDEF")
