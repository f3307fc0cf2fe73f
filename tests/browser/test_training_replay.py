"""The training replay in a page of its own, without a kernel, against what Python stored."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator
from typing import Any

import pytest

from gptlib import replay
from gptlib.widgets import TrainingReplay
from tests.browser.conftest import lone_page, quiet_page, serve_folder, violations

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright_api.expect
Page = playwright_api.Page

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
LAST = len(replay.mini()["moments"]) - 1


@pytest.fixture(scope="module")
def mini() -> replay.Replay:
    return replay.mini()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a page that holds nothing but the widget, as Python stores it."""
    folder = tmp_path_factory.mktemp("replay")
    widget = TrainingReplay()
    lone_page(folder, widget, "Replay")
    yield from serve_folder(folder)


def show(page: Page, address: str) -> Any:
    page.goto(address)
    place = page.locator(".gptlib-widget")
    expect(place).to_have_class(re.compile("gptlib-mounted"))
    return place.locator(".gptlib-root")


@pytest.fixture
def root(page: Page, address: str) -> Any:
    return show(page, address)


def slider(root: Any) -> Any:
    return root.get_by_role("slider", name="Moment of the training")


def fact(root: Any, title: str) -> Any:
    return root.locator(".gptlib-tr-facts > div").filter(has_text=title).locator(".gptlib-tr-value")


def dot(root: Any, number: int) -> tuple[float, float]:
    box = root.locator(".gptlib-tr-chart > .gptlib-tr-dot").nth(1 + number).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def digits(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{3 if value < 10 else 1 if value < 100 else 0}f}"


# --- the numbers ------------------------------------------------------------------------------


def test_every_moment_shows_what_python_stored(root: Any, mini: replay.Replay) -> None:
    """One walk over all moments, in the page: numbers, text and weights."""
    found = root.evaluate(WALK)
    for shown, moment in zip(found, mini["moments"], strict=True):
        loss = moment["held_out"]
        numbers = [f"{moment['step']:,}", f"{moment['stories']:,}", digits(loss)]
        numbers += [digits(loss - mini["floor"]), digits(math.exp(loss))]
        assert shown["facts"] == numbers
        sample = moment["samples"][0]
        assert sample["text"].startswith(shown["good"])
        at = len(sample["text"]) if sample["fails_at"] is None else sample["fails_at"]
        word = re.search(r"\S*$", sample["text"][:at])
        assert word is not None
        assert at - len(word[0]) <= len(shown["good"]) <= at
        assert (shown["leaves"] == "") == (at == len(sample["text"]))
        flags = [sample["names"], sample["pronouns"], sample["object"]]
        assert [text.endswith("✓") for text in shown["flags"]] == flags
        query = mini["fragment"]["query"]
        codes = base64.b64decode(moment["map"])[query * (query + 1) // 2 :][: query + 1]
        expected = [code / 255 if code / 255 >= 0.005 else 0 for code in codes]
        for weight, wanted in zip(shown["weights"], expected, strict=False):
            assert float(weight or 0) == pytest.approx(wanted, abs=0.0051)
        assert not any(shown["weights"][query + 1 :])
        assert shown["scores"] == [f"{moment[name]:.2f}" for name in ("score", "others")]


# A click is drawn at the end of what it does, so each is waited for.
WALK = """async root => {
  const one = selector => root.querySelector(`.gptlib-tr-${selector}`).textContent;
  const all = selector => [...root.querySelectorAll(`.gptlib-tr-${selector}`)]
    .map(e => e.textContent);
  const next = root.querySelector(".gptlib-tr-next");
  const found = [];
  for (;;) {
    found.push({
      facts: all("value"), good: one("prompt") + one("good"), leaves: one("leaves"),
      flags: all("flag"), weights: all("weight"), scores: all("score b"),
    });
    if (next.disabled) return found;
    next.click();
    await null;
  }
}"""


def test_the_floor_lies_under_every_point_of_the_curve(root: Any) -> None:
    floor = root.locator(".gptlib-tr-floor").bounding_box()["y"]
    for number in (0, LAST):
        assert dot(root, number)[1] < floor + 1  # the last may lie on it, but for a pixel
    under = root.locator(".gptlib-tr-under").bounding_box()
    assert under["y"] == pytest.approx(floor, abs=2)
    chart = root.locator(".gptlib-tr-chart")
    expect(chart).to_contain_text("training steps (log scale)")
    expect(chart).to_contain_text("the floor: the entropy of the stories, 0.335")


# --- by keyboard, mouse and touch -------------------------------------------------------------


def test_keys_on_the_slider_go_from_moment_to_moment(root: Any, mini: replay.Replay) -> None:
    steps = [f"{moment['step']:,}" for moment in mini["moments"]]
    slider(root).focus()
    for key, expected in (
        *(("ArrowRight", 1), ("ArrowUp", 2), ("ArrowLeft", 1), ("PageUp", 5), ("PageDown", 1)),
        *(("End", LAST), ("ArrowRight", LAST), ("Home", 0), ("ArrowDown", 0)),
    ):
        root.page.keyboard.press(key)
        expect(fact(root, "Step")).to_have_text(steps[expected])
        loss = digits(mini["moments"][expected]["held_out"])
        text = f"step {steps[expected]}, loss {loss}"
        expect(slider(root)).to_have_attribute("aria-valuetext", text)
    said = root.get_by_role("status")
    expect(said).to_contain_text(re.compile(r"^Step 0: loss \d+\.\d+, .* above the floor\. It "))
    for kind in ("button", "input", "summary"):
        assert root.locator(f"{kind}:not([data-lm-suppress-shortcuts])").count() == 0


def test_the_curve_is_dragged_and_the_slider_stands_under_it(root: Any, page: Page) -> None:
    x, y = dot(root, 0)
    page.mouse.move(x, y + 40)
    page.mouse.down()
    for number in (2, LAST, 4):
        x, y = dot(root, number)
        page.mouse.move(x + 2, y + 40)
        expect(fact(root, "Step")).to_have_text(f"{replay.mini()['moments'][number]['step']:,}")
        place = float(slider(root).input_value())
        track = slider(root).bounding_box()
        assert track["x"] + 10 + place * (track["width"] - 20) == pytest.approx(x, abs=1)
    page.mouse.up()
    page.mouse.move(dot(root, 7)[0], y)
    expect(fact(root, "Step")).to_have_text(f"{replay.mini()['moments'][4]['step']:,}")


def test_a_dragged_slider_snaps_to_the_moments(root: Any) -> None:
    expect(fact(root, "Step")).to_have_text("0")
    box = slider(root).bounding_box()
    root.page.mouse.click(dot(root, 3)[0] + 4, box["y"] + box["height"] / 2)
    expect(fact(root, "Step")).to_have_text(f"{replay.mini()['moments'][3]['step']:,}")
    place = float(slider(root).input_value())
    assert box["x"] + 10 + place * (box["width"] - 20) == pytest.approx(dot(root, 3)[0], abs=1)


def test_play_walks_on_until_a_reader_takes_over(page: Page, address: str) -> None:
    page.clock.install()
    root = show(page, address)
    play = root.get_by_role("button", name="Play")
    play.click()
    page.clock.run_for(3_700)
    expect(fact(root, "Step")).to_have_text(f"{replay.mini()['moments'][3]['step']:,}")
    slider(root).press("ArrowLeft")
    page.clock.run_for(3_000)
    expect(fact(root, "Step")).to_have_text(f"{replay.mini()['moments'][2]['step']:,}")
    slider(root).press("End")
    play.click()  # from the end it starts again
    page.clock.run_for(100)
    expect(fact(root, "Step")).to_have_text("0")
    page.clock.run_for(1_300 * (LAST + 1))
    expect(root.get_by_role("button", name="Play")).to_be_visible()
    expect(fact(root, "Step")).to_have_text(f"{replay.mini()['moments'][LAST]['step']:,}")


def test_nothing_plays_for_who_wants_no_motion(page: Page, address: str) -> None:
    page.emulate_media(reduced_motion="reduce")
    root = show(page, address)
    expect(root.locator(".gptlib-tr-play")).to_be_hidden()
    root.get_by_role("button", name="Next moment").click()
    expect(fact(root, "Step")).to_have_text(f"{replay.mini()['moments'][1]['step']:,}")
    assert root.evaluate("root => root.getAnimations({ subtree: true }).length") == 0


def test_prompts_and_tokens_are_chosen(root: Any, mini: replay.Replay) -> None:
    slider(root).press("End")
    root.get_by_role("radio").first.focus()
    for prompt in mini["prompts"][1:]:
        root.page.keyboard.press("ArrowRight")
        expect(root.locator(".gptlib-tr-prompt")).to_have_text(prompt)
    chips = root.locator(".gptlib-tr-token")
    query = mini["fragment"]["query"]
    expect(chips.nth(query)).to_have_attribute("aria-pressed", "true")
    assert root.locator('.gptlib-tr-token[tabindex="0"]').count() == 1
    targets = root.locator(".gptlib-tr-target")
    expect(targets).to_have_count(len(mini["fragment"]["targets"]))
    chips.nth(query).press("ArrowLeft")
    expect(chips.nth(query - 1)).to_be_focused()
    expect(root.locator(".gptlib-tr-looks")).to_contain_text("“and” looks at")
    chips.nth(4).click()
    expect(root.locator(".gptlib-tr-looks")).to_contain_text("“Tom” looks at")
    root.page.keyboard.press("Escape")
    expect(chips.nth(query)).to_be_focused()
    box = root.locator(".gptlib-tr-map").bounding_box()
    root.locator(".gptlib-tr-map").click(
        position={"x": 5, "y": box["height"] * 4.5 / len(mini["fragment"]["tokens"])}
    )
    expect(chips.nth(4)).to_have_attribute("aria-pressed", "true")


def test_nothing_below_moves_from_moment_to_moment(root: Any) -> None:
    heights = root.evaluate("""async root => {
      const next = root.querySelector(".gptlib-tr-next");
      const found = [];
      while (!next.disabled) { next.click(); await null; found.push(root.offsetHeight); }
      return found;
    }""")
    assert max(heights) - min(heights) <= 1


def test_the_table_has_every_moment(root: Any, mini: replay.Replay) -> None:
    root.locator("summary").click()
    table = root.get_by_role("table", name="The moments of the training")
    expect(table.get_by_role("row")).to_have_count(LAST + 2)
    last = mini["moments"][-1]
    cells = table.get_by_role("row").last.get_by_role("cell")
    expect(cells.nth(0)).to_have_text(f"{last['stories']:,}")
    expect(cells.nth(1)).to_have_text(digits(last["held_out"]))
    expect(cells.last).to_have_text(f"{last['score']:.2f}")


def test_a_phone_has_room_for_all_and_for_fingers(browser: Any, address: str) -> None:
    with quiet_page(browser, **PHONE) as page:
        root = show(page, address)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        for kind in ("button", "input", "summary"):
            sizes = root.locator(f"{kind}:visible").evaluate_all(
                "found => found.map(e => [e.className, e.offsetWidth, e.offsetHeight])"
            )
            assert [one for one in sizes if min(one[1:]) < 40] == [], kind
        x, y = dot(root, 5)
        page.touchscreen.tap(x, y + 30)
        expect(fact(root, "Step")).to_have_text(f"{replay.mini()['moments'][5]['step']:,}")
        root.locator(".gptlib-tr-token").nth(4).tap()
        expect(root.locator(".gptlib-tr-looks")).to_contain_text("“Tom” looks at")


# --- light, dark, accessibility ---------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_accessibility_violation(page: Page, address: str, theme: str) -> None:
    page.emulate_media(color_scheme=theme)
    root = show(page, address)
    root.locator("summary").click()
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 800})
        slider(root).press("ArrowRight" if width == 360 else "End")
        assert violations(page, context=".gptlib-mounted") == []


def test_the_map_is_drawn_in_the_colors_of_the_theme(page: Page, address: str) -> None:
    root = show(page, address)
    pixel = """root => [...root.querySelector("canvas").getContext("2d")
      .getImageData(0, 0, 1, 1).data].join()"""
    colors = []
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        page.wait_for_timeout(50)
        colors.append(root.evaluate(pixel))
    assert colors == ["0,114,178,255", "86,180,233,255"]


def test_the_widget_leaves_the_page_without_a_trace(root: Any, page: Page) -> None:
    script = "async () => (await import('./page/host.js')).unmount(document.querySelector('%s'))"
    page.evaluate(script % ".gptlib-widget")
    assert page.locator(".gptlib-root").count() == 0
    expect(page.locator(".gptlib-fallback")).to_be_visible()
