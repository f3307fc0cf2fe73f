"""What every widget must do, each as a chapter stores it, in a page of its own without a kernel.

A new widget needs no test of its own for this: it is taken from the first chapter that shows it.
What is particular to a widget is in its own ``test_<name>.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from gptlib import widgets
from gptlib.widgets import page as book
from gptlib.widgets.base import MIME_TYPE
from tests.browser.conftest import ROOT, page_html, quiet_page, serve_folder, violations

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright_api.expect
Page = playwright_api.Page

NAMES = sorted(getattr(widgets, name)._module for name in widgets.__all__)
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
HOSTILE = {
    "an image": "a <img src=x onerror=alert(1)> b",
    "the end of a script": "</script><script>alert(1)</script>",
    "lone surrogates": "a \ud800 b \udfff c",
    "right to left": "שלום, עולם! مرحبا بالعالم 123",
    "10,000 characters": "long " * 2000,
}
# Set by JavaScript, since WebDriver takes no lone surrogates; then a reader's event follows.
TYPE = """(box, text) => {
  box.focus();
  box.value = JSON.parse(text);
  for (const kind of ["input", "change"]) box.dispatchEvent(new Event(kind, { bubbles: true }));
}"""
EDGED = (
    "select, textarea, input[type=text], input[type=number], .gptlib-swatch, .gptlib-stack > span"
)
CONTROLS = "button, select, summary, textarea, input"
# A finger needs 40 px. What is smaller stands in a line or a grid of its kind, where a larger one
# would push the others away; all of these can also be reached by a larger control beside them.
SMALL = (
    "[type=checkbox]",  # its label is the target
    "[type=radio]",
)


def stored() -> dict[str, dict[str, Any]]:
    """Return each widget's state as the first chapter that shows it has stored it."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                if bundle := output.get("data", {}).get(MIME_TYPE):
                    found.setdefault(bundle["widget"], bundle["state"])
    return found


STATES = stored()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a page for each widget, with one and with two of it."""
    folder = tmp_path_factory.mktemp("widgets")
    book.write_files(folder)
    for name, state in STATES.items():
        placed = book.widget_html(name, state, f"The words that stand for the {name}.")
        for kind, body in (("one", placed), ("two", placed * 2)):
            (folder / f"{name}_{kind}.html").write_text(page_html("A widget", body), "utf-8")
    yield from serve_folder(folder)


def show(page: Page, address: str, name: str, kind: str = "one") -> Any:
    page.goto(f"{address}{name}_{kind}.html")
    places = page.locator(".gptlib-widget")
    for i in range(places.count()):
        places.nth(i).scroll_into_view_if_needed()
        expect(places.nth(i)).to_have_class(re.compile("gptlib-mounted"))
    return places.locator(".gptlib-root")


def open_all(page: Page) -> None:
    """Open whatever is folded away."""
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")


def sideways(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


def test_every_widget_is_shown_by_a_chapter_and_tested() -> None:
    missing = set(NAMES) - set(STATES)
    assert not missing, f"show them in a chapter, run it and store its outputs: {missing}"


@pytest.mark.parametrize("name", NAMES)
def test_no_look_has_a_violation_or_overflows(page: Page, address: str, name: str) -> None:
    page.emulate_media(reduced_motion="reduce")
    show(page, address, name)
    open_all(page)
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 800})
        assert sideways(page) <= 0, f"at {width} px"
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme, reduced_motion="reduce")
            assert violations(page, context=".gptlib-mounted") == [], f"{width} px, {theme}"


@pytest.mark.parametrize("name", NAMES)
def test_a_finger_finds_every_control(browser: Any, address: str, name: str) -> None:
    with quiet_page(browser, **PHONE) as page:
        root = show(page, address, name)
        open_all(page)
        script = """(root, [controls, small]) => [...root.querySelectorAll(controls)]
            .filter((one) => one.checkVisibility({ checkVisibilityCSS: true }))
            .filter((one) => !one.matches(small))
            .map((one) => [one.outerHTML.slice(0, 160), one.offsetWidth, one.offsetHeight])
            .filter(([, width, height]) => width && Math.min(width, height) < 39.5)"""
        assert root.evaluate(script, [CONTROLS, ", ".join(SMALL)]) == []


@pytest.mark.parametrize("name", NAMES)
def test_keys_stay_in_the_widget_and_the_focus_is_seen(page: Page, address: str, name: str) -> None:
    root = show(page, address, name)
    focusable = "button, input, select, textarea, summary, a[href], [tabindex]"
    bare = f":is({focusable}):not([data-lm-suppress-shortcuts])"  # JupyterLab would take its keys
    assert root.locator(bare).evaluate_all("all => all.map((one) => one.outerHTML)") == []
    page.evaluate(
        "document.querySelector('.gptlib-root').insertAdjacentHTML('afterend', "
        "'<button id=after>after</button>')"
    )
    seen = 0
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id === 'after'"):
            break
        outline = page.evaluate(
            """() => { const { activeElement: one } = document;
            const marked = [one, one.closest("label"), one.parentElement].filter(Boolean);
            return marked.some((each) => getComputedStyle(each).outlineStyle !== "none"); }"""
        )
        assert outline, page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
        seen += 1
    assert page.evaluate("document.activeElement.id") == "after", "Tab does not lead out again"
    assert seen > 0


@pytest.mark.parametrize("name", NAMES)
def test_reduced_motion_moves_nothing(page: Page, address: str, name: str) -> None:
    page.emulate_media(reduced_motion="reduce")
    root = show(page, address, name)
    moving = root.evaluate("""(root) => [root, ...root.querySelectorAll("*")]
        .filter((one) => {
          const { transitionDuration, animationName, animationDuration } = getComputedStyle(one);
          const moves = animationName !== "none" && parseFloat(animationDuration) > 0;
          return moves || transitionDuration.split(",").some((time) => parseFloat(time) > 0);
        }).map((one) => one.outerHTML.slice(0, 160))""")
    assert moving == []


@pytest.mark.parametrize("name", NAMES)
def test_forced_colors_leave_every_control_an_edge(page: Page, address: str, name: str) -> None:
    page.emulate_media(forced_colors="active")
    root = show(page, address, name)
    open_all(page)
    script = """(root, edged) => [...root.querySelectorAll(edged)]
        .filter((one) => one.checkVisibility() && one.offsetWidth > 0)
        .filter((one) => {
          const style = getComputedStyle(one);
          const edge = style.borderStyle !== "none" && parseFloat(style.borderWidth) > 0;
          const behind = getComputedStyle(one.parentElement).backgroundColor;
          const drawn = style.backgroundImage !== "none";
          const filled = style.backgroundColor !== "rgba(0, 0, 0, 0)" || drawn;
          return !edge && !(filled && style.backgroundColor !== behind);
        }).map((one) => one.outerHTML.slice(0, 160))"""
    assert root.evaluate(script, EDGED) == []


@pytest.mark.parametrize("name", NAMES)
def test_hostile_text_is_text(page: Page, address: str, name: str) -> None:
    page.on("dialog", lambda dialog: pytest.fail(f"a text was run: {dialog.message}"))
    root = show(page, address, name)
    open_all(page)
    boxes = root.locator("textarea:visible, input[type=text]:visible, input[type=search]:visible")
    page.set_viewport_size({"width": 360, "height": 800})
    for kind, text in HOSTILE.items():
        for i in range(boxes.count()):
            boxes.nth(i).evaluate(TYPE, json.dumps(text))
        page.wait_for_timeout(300)
        assert root.locator("img, script").count() == 0, kind
        assert sideways(page) <= 0, kind
    expect(root).to_be_visible()


@pytest.mark.parametrize("name", NAMES)
def test_two_in_a_page_keep_apart(page: Page, address: str, name: str) -> None:
    roots = show(page, address, name, "two")
    expect(roots).to_have_count(2)
    open_all(page)
    ids = page.locator(".gptlib-root [id]").evaluate_all("all => all.map((one) => one.id)")
    assert len(ids) == len(set(ids)), f"names that are not unique: {sorted(ids)}"
    names = "all => all.map((one) => one.name)"
    groups = [set(roots.nth(i).locator("[type=radio]").evaluate_all(names)) for i in range(2)]
    assert not groups[0] & groups[1], "radios of two widgets are one group"
    before = roots.nth(1).evaluate("root => root.innerHTML")
    for control in roots.first.locator("select, [type=radio], [type=range], [tabindex='0']").all()[
        :6
    ]:
        if not control.is_visible():
            continue
        control.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
    page.wait_for_timeout(100)
    assert roots.nth(1).evaluate("root => root.innerHTML") == before, "the second one has moved too"


@pytest.mark.parametrize("name", NAMES)
def test_fifty_times_on_and_off_the_page_nothing_is_left(
    page: Page, address: str, name: str
) -> None:
    show(page, address, name)
    client = page.context.new_cdp_session(page)
    script = """async (times) => {
      const { mount, unmount } = await import("./page/host.js");
      const place = document.querySelector(".gptlib-widget");
      for (let i = 0; i < times; i++) {
        unmount(place);
        await mount(place);
      }
    }"""

    def counted(times: int) -> tuple[int, int]:
        page.evaluate(script, times)
        page.wait_for_timeout(200)
        client.send("HeapProfiler.enable")
        client.send("HeapProfiler.collectGarbage")
        found = client.send("Memory.getDOMCounters")
        return found["nodes"], found["jsEventListeners"]

    nodes, listeners = counted(3)
    more_nodes, more_listeners = counted(50)
    assert more_nodes - nodes < 0.5 * nodes, f"{nodes} nodes have become {more_nodes}"
    assert more_listeners - listeners <= 50, f"{listeners} listeners, then {more_listeners}"
