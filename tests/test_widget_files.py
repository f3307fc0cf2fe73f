"""What belongs to a widget besides its class. Each message says what was forgotten, and where.

CONTRIBUTING.md, "Add a widget", is the same list in the order of the work. How a widget behaves is
tested in a browser.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from gptlib import widgets

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "gptlib" / "widgets"


def classes() -> dict[str, str]:
    """The class of each widget, by its module, as the source files have them."""
    found = {}
    for path in sorted(FOLDER.glob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            for line in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "_module":
                    found[ast.literal_eval(line.value)] = node.name
    return found


WIDGETS = classes()

each_widget = pytest.mark.parametrize("module", WIDGETS)


def test_every_widget_is_known():
    assert sorted(WIDGETS.values()) == sorted(widgets.__all__), (
        "gptlib/widgets/__init__.py must import every widget and name it in __all__: "
        f"{sorted(set(WIDGETS.values()) ^ set(widgets.__all__))}"
    )


@each_widget
def test_a_widget_is_three_files_side_by_side(module):
    for kind in ("py", "js", "css"):
        assert (FOLDER / f"{module}.{kind}").is_file(), f"write gptlib/widgets/{module}.{kind}"


@each_widget
def test_a_widget_takes_its_colors_from_the_palette(module):
    """A color that is not for light and dark together is unreadable in one of them."""
    for line in (FOLDER / f"{module}.css").read_text("utf-8").splitlines():
        fixed = re.search(
            r"#[0-9a-f]{3,8}\b|\b(rgba?|hsla?|oklch)\(|: *(black|white)\b", line, re.I
        )
        opaque = "mask" in line  # what a mask hides has no color
        assert not fixed or opaque or "light-dark(" in line, (
            f"gptlib/widgets/{module}.css: {line.strip()}: use a color of lib/base.css, such as "
            "var(--gptlib-blue-solid), or name one for light and one for dark: light-dark(…, …)"
        )


@each_widget
def test_a_widget_is_tested(module):
    name = WIDGETS[module]
    tests = [path for path in ROOT.glob("tests/**/*.py") if path != Path(__file__)]
    assert any(re.search(rf"\b{name}\(", path.read_text("utf-8")) for path in tests), (
        f"no test makes a {name}: write tests/test_{module}.py for what it refuses and describes, "
        f"and tests/browser/test_{module}.py for what a reader does with it"
    )


@each_widget
def test_a_widget_is_shown_to_readers(module):
    name = WIDGETS[module]
    shown = [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("book/*.md")]
    assert any(
        re.search(rf"\b{name}\(|\{{gptlib-widget\}} {name}\b", path.read_text("utf-8"))
        for path in shown
    ), f"no chapter and no page shows {name}: use it in a cell of a notebook, or take it out"
