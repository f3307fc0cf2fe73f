"""The widgets' JavaScript and CSS as sources, and how they reach a notebook.

What deno checks (types, style, length of functions) is in ``make lint``.
"""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
import tinycss2

from gptlib.widgets import linker
from gptlib.widgets.base import Kit, Widget
from tests.javascript import run_deno

ROOT = Path(__file__).resolve().parent.parent
FOLDER = linker.FOLDER
VENDORED = "lib/lit-html.js"
MODULES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.js"))
OWN = [name for name in MODULES if name != VENDORED]
STYLES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.css"))
WIDGETS = [name.removesuffix(".js") for name in OWN if "/" not in name]
SENT = 60_000  # bytes that a widget and the kit send to a notebook together, at most
JAVASCRIPT = 10_800  # lines in all, with blank ones and comments; see CONTRIBUTING.md
CSS = 4_550


def source(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


# --- sources ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OWN)
def test_a_module_sets_text_as_text_and_hides_nothing_from_the_linter(name: str) -> None:
    code = source(name)
    assert not re.search(r"@ts-(ignore|nocheck|expect-error)|deno-(lint|fmt)-ignore", code)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", code)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", code), "a module asks no other site"


def test_no_helper_is_defined_twice() -> None:
    """Two functions with the same text stand in one file too many: lib/ is for what is shared."""
    found: dict[str, str] = {}
    for name in OWN:
        for text in definitions(source(name)):
            body = re.sub(
                r"\s+", " ", re.sub(r"^(export )?(async )?(function|const) \w+", "", text)
            )
            if len(body) < 60:
                continue
            first = found.setdefault(body, name)
            title = text.split("{")[0].split("=")[0].strip()
            assert first == name, f"{title} is in {first} and in {name}: move it into lib/"
    assert len(found) > 300


def definitions(code: str) -> list[str]:
    """Return the top-level functions of a module, and the constants that are functions."""
    functions = re.findall(r"^(?:export )?(?:async )?function\b.*?^}", code, re.DOTALL | re.M)
    arrows = re.findall(r"^(?:export )?const \w+ = [^\n]*=>.*?;$", code, re.DOTALL | re.M)
    return functions + arrows


def test_the_front_end_stays_as_small_as_it_is() -> None:
    """A limit that is reached is a reason to look for what stands twice, or to raise it here."""
    assert sum(source(name).count("\n") for name in MODULES) <= JAVASCRIPT
    assert sum(source(name).count("\n") for name in STYLES) <= CSS


@pytest.mark.parametrize("name", STYLES)
def test_a_style_sheet_touches_nothing_outside_the_widgets(name: str) -> None:
    rules = tinycss2.parse_stylesheet(source(name), skip_comments=True, skip_whitespace=True)
    for selector in selectors(rules):
        assert ".gptlib-" in selector, f"{name}: {selector}"
    assert max(map(len, source(name).splitlines())) <= 100, f"{name}: a line is over 100 characters"


def selectors(rules: list[tinycss2.ast.Node]) -> list[str]:
    """Return the selectors of all rules, in media and container queries too; not nested ones."""
    found = []
    for rule in rules:
        assert rule.type in ("qualified-rule", "at-rule"), rule
        if rule.type == "qualified-rule":
            parts: list[list[tinycss2.ast.Node]] = [[]]
            for node in rule.prelude:
                if node.type == "literal" and node.value == ",":
                    parts.append([])
                else:
                    parts[-1].append(node)
            found += [tinycss2.serialize(part).strip() for part in parts]
        elif rule.lower_at_keyword in ("media", "container", "supports"):
            inner = tinycss2.parse_stylesheet(
                tinycss2.serialize(rule.content), skip_comments=True, skip_whitespace=True
            )
            found += selectors(inner)
    return found


# --- the linker -------------------------------------------------------------------------------


@pytest.mark.parametrize("widget", WIDGETS)
def test_what_a_widget_sends_to_a_notebook_is_small(widget: str) -> None:
    """Its own program and style, and the kit, although a kernel sends that only once."""
    program = dict(linker.linked(f"{widget}.js"))[f"{widget}.js"]
    plain = linker.css(f"{widget}.css") + source("lib/link.js")
    sent = len(plain.encode()) + len(linker.packed(program)) + len(Kit.shared().packed)
    assert sent <= SENT


@pytest.mark.parametrize("name", OWN)
def test_a_module_comes_after_what_it_imports(name: str) -> None:
    order = [other for other, _ in linker.linked(name)]
    assert order[-1] == name
    for place, other in enumerate(order):
        assert set(linker.imports(other)) <= set(order[:place])


@pytest.mark.parametrize("name", OWN)
def test_what_is_sent_is_the_module_without_its_comments(name: str) -> None:
    """No line of a text in backticks looks like a comment, and no import is overlooked."""
    sent = dict(linker.linked(name))[name]
    assert not re.search(r'(?:from|import)\s+"\.', sent)
    plain = re.sub(r'"gptlib:[\w./-]+"', '""', sent)
    whole = re.sub(
        r'^((?:import|export)\b[^;"]*)"\.{1,2}/[^"]+"', r'\1""', source(name), flags=re.M
    )
    missing = [line for line in whole.splitlines() if line not in plain.splitlines()]
    assert all(re.match(r"\s*(//|/\*|\*|$)", line) for line in missing), missing


def test_modules_in_a_circle_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.js").write_text('import { b } from "./b.js";\n')
    (tmp_path / "b.js").write_text('import { a } from "./a.js";\n')
    monkeypatch.setattr(linker, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"circle: a\.js -> b\.js -> a\.js"):
        linker.linked("a.js")


def test_linked_modules_find_one_another_and_are_made_once() -> None:
    code = """
        const { link } = await import(LINK);
        const sources = [
          ["lib/a.js", "export const made = []; made.push('a');"],
          ["b.js", 'import { made } from "gptlib:lib/a.js"; made.push("b"); export { made };'],
          ["c.js", 'import { made } from "gptlib:lib/a.js"; made.push("c"); export { made };'],
        ];
        const urls = link(sources);
        await import(urls["b.js"]);
        const { made } = await import(link(sources)["c.js"]);
        await import(link(sources)["b.js"]);
        console.log(JSON.stringify(made));
    """.replace("LINK", f'"{(FOLDER / "lib/link.js").as_uri()}"')
    assert run_deno("eval", "--ext=js", code) == '["a","b","c"]\n'


def test_the_kit_is_shared_and_made_anew_when_it_was_closed() -> None:
    class Small(Widget):
        _module = "training_cost"

    one, two = Small(), Small()
    assert one._kit is two._kit
    kit = json.loads(gzip.decompress(one._kit.packed))
    names = [name for name, _ in kit["modules"]]
    assert set(linker.all_imports([f"{widget}.js" for widget in WIDGETS])) <= set(names)
    assert ".gptlib-root" in kit["css"]
    one._kit.close()
    assert Kit.shared() is not one._kit
    assert Small()._kit is Kit.shared()
