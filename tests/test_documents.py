"""README and CONTRIBUTING name only what exists: files, commands, modules. Their example works."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gptlib.widgets.base import Widget
from tests.javascript import WIDGETS, run_deno

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ["README.md", "CONTRIBUTING.md"]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")

each_document = pytest.mark.parametrize("name", DOCUMENTS)

# A path from one of the repository's folders, or a file beside the README. What a reader fills in
# is between < and >.
_FOLDERS = r"\.ci|\.devcontainer|\.binder|\.github|benchmarks|book|gptlib|notebooks|tests|tools"
_FILES = r"[A-Z_a-z.][\w.-]*\.(?:cff|jsonc|md|toml|txt|ya?ml)|Makefile|LICENSE"
_PATH = re.compile(rf"(?<![\w./<-])(?:(?:{_FOLDERS})/[\w./<>*-]*|(?:{_FILES})\b)")

CORE = 2_600  # lines of what chapters build and import, in all


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def commands(text: str) -> list[str]:
    """What is set as code: within a line, and line by line in a shell's block."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return re.findall(r"`([^`]+)`", prose) + [
        line for block in blocks for line in block.split("\n")
    ]


def exists(path: str) -> bool:
    pattern = re.sub(r"<[^>]*>", "*", path).rstrip("/.")
    return any(True for _ in ROOT.glob(pattern))


@each_document
def test_every_path_exists(name):
    text = read(name)
    paths = {found[0] for code in commands(text) for found in _PATH.finditer(code)}
    paths |= {link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link}
    assert len(paths) > 5
    missing = sorted(path for path in paths if not exists(path))
    assert not missing, f"{name} names what is not there: {missing}"


@each_document
def test_every_make_command_exists(name):
    found = [m for code in commands(read(name)) for m in re.findall(r"\bmake ([a-z-]+)(.*)", code)]
    assert found
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))
    wrong = {target for target, _ in found} - targets
    assert not wrong, f"{name} names commands that the Makefile lacks: {sorted(wrong)}"
    variables = {v for _, rest in found for v in re.findall(r"\b([A-Z_]+)=", rest)}
    unread = {v for v in variables if f"$({v})" not in MAKEFILE}
    assert not unread, f"{name} gives make variables that it does not read: {sorted(unread)}"


@each_document
def test_every_section_that_is_linked_or_named_exists(name):
    text = read(name)
    for target, anchor in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", text):
        anchors = {_anchor(heading) for heading in headings(target or name)}
        assert anchor in anchors, f"{name} links {target}#{anchor}, which is no heading there"
    named = set(re.findall(r"\bsee \*([^*]+)\*", text))
    assert named <= headings(name), f"{name} names sections that it lacks: {named - headings(name)}"


def headings(name: str) -> set[str]:
    prose = re.sub(r"^```.*?^```", "", read(name), flags=re.M | re.S)
    return {line.lstrip("# ") for line in prose.split("\n") if line.startswith("#")}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")


@each_document
def test_every_name_of_the_library_exists(name):
    for dotted in set(re.findall(r"\bgptlib(?:\.[A-Za-z_]\w*)+", "\n".join(commands(read(name))))):
        module, _, last = dotted.rpartition(".")
        if not hasattr(importlib.import_module(module), last):
            importlib.import_module(dotted)


def test_contributing_has_every_part_of_the_library():
    text = read("CONTRIBUTING.md")
    parts = [p for p in (ROOT / "gptlib").iterdir() if p.suffix == ".py" or p.is_dir()]
    names = {p.name if p.suffix else f"{p.name}/" for p in parts}
    names -= {"__init__.py", "__pycache__/"}
    missing = sorted(name for name in names if f"`gptlib/{name}" not in text)
    assert not missing, (
        f"CONTRIBUTING.md, 'The library': add a row for {missing}, with a sentence that says why "
        "the library cannot do without it"
    )


def test_what_chapters_build_and_import_stays_thin():
    """A limit that is reached is a reason to look for what no chapter needs, or to raise it."""
    table = read("CONTRIBUTING.md").partition("| built in chapter |\n")[2].partition("\n\n")[0]
    core = re.findall(r"^\| `(gptlib/[\w/]+\.py)`", table, re.M)
    assert len(core) >= 9
    assert sum((ROOT / name).read_text("utf-8").count("\n") for name in core) <= CORE


def test_the_reference_has_every_module_that_a_chapter_builds():
    documented = set(re.findall(r"automodule:: (\S+)", read("book/api.md")))
    for path in (ROOT / "gptlib").rglob("*.py"):
        if re.search(r"\bBuilt in chapter \d", path.read_text("utf-8")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            packages = {".".join(parts[:n]) for n in range(2, len(parts) + 1)}
            assert documented & packages, f"book/api.md: add a section for {'.'.join(parts)}"


# ---- The example of a widget --------------------------------------------------------------------


def example(kind: str) -> str:
    """The one block of a language in the section on widgets."""
    section = read("CONTRIBUTING.md").partition("## Add a widget\n")[2].partition("\n## ")[0]
    (block,) = re.findall(rf"^```{kind}\n(.*?)^```", section, re.M | re.S)
    return block


def test_the_example_s_class_holds_checks_and_describes(tmp_path, monkeypatch):
    monkeypatch.setattr("gptlib.widgets.linker.FOLDER", tmp_path)
    shutil.copytree(WIDGETS / "lib", tmp_path / "lib")
    for kind in ("js", "css"):
        (tmp_path / f"powers.{kind}").write_text(example(kind), "utf-8")
    names = {"__name__": "powers"}
    exec(compile(example("python"), "powers.py", "exec"), names)
    widget = names["Powers"](3)
    assert isinstance(widget, Widget)
    assert widget.state() == {"exponent": 3}
    assert widget.describe() == "2 to the power 3 is 8."
    with pytest.raises(ValueError, match="from 0 to 20, not 21"):
        names["Powers"](21)


def test_the_example_s_module_is_checked_linted_and_formatted(tmp_path):
    folder = tmp_path / "gptlib" / "widgets"
    shutil.copytree(WIDGETS / "lib", folder / "lib")
    shutil.copytree(ROOT / "tools", tmp_path / "tools")  # where deno.jsonc has rules of our own
    shutil.copy(ROOT / "deno.jsonc", tmp_path)
    (folder / "powers.js").write_text(example("js"), "utf-8")
    config = ("--config", tmp_path / "deno.jsonc")
    run_deno("check", "--quiet", *config, folder / "powers.js")
    run_deno("lint", "--quiet", *config, folder / "powers.js")
    formatted = run_deno("fmt", "--quiet", "--ext=js", "--line-width=100", "-", given=example("js"))
    assert formatted == example("js")


def test_the_example_s_class_is_typed_and_formatted(tmp_path):
    path = tmp_path / "powers.py"
    path.write_text(example("python"), "utf-8")
    for command in (
        ["ruff", "check"],
        ["ruff", "format", "--check"],
        ["mypy", "--config-file", ROOT / "pyproject.toml"],
    ):
        tool = [sys.executable, "-m", *command, path]
        process = subprocess.run(tool, cwd=ROOT, capture_output=True, text=True)
        assert process.returncode == 0, process.stdout + process.stderr
