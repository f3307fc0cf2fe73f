"""The widgets in the built site, without a kernel: mouse, keyboard, touch, small, dark, hostile."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from gptlib import accounting, tokenizer
from gptlib.config import FAMILY
from tests.browser.conftest import SITE, quiet_page, violations

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright_api.expect
Page = playwright_api.Page

ATTACK = "a <img src=x onerror=alert(1)></script><script>alert(2)</script> b"
ORDER = ["tokenizer", "token_embedding", "position_embedding", "dropout", "norm_1", "attention"]

# How a phone differs from the desk.
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


def address(site: str, widget: str) -> str:
    """Return the address of the first page of the site that holds the widget."""
    for path in sorted(SITE.glob("notebooks/**/*.html")):
        if f'data-gptlib-widget="{widget}"' in path.read_text(encoding="utf-8"):
            return site + path.relative_to(SITE).as_posix()
    return pytest.fail(f"no page of the site holds the widget {widget}")


def show(page: Page, site: str, widget: str) -> Any:
    """Open the widget's page, scroll to the widget and return it once it is drawn."""
    page.goto(address(site, widget))
    place = page.locator(f'[data-gptlib-widget="{widget}"]').first
    place.scroll_into_view_if_needed()
    expect(place).to_have_class(re.compile("gptlib-mounted"))
    return place.locator(".gptlib-root")


def ids(panel: Any) -> list[int]:
    return [int(text) for text in panel.locator(".gptlib-te-id").all_inner_texts()]


def write(widget: Any, text: str) -> None:
    """Put a text into the explorer and wait until the stories' tokens are those of that text."""
    widget.locator("textarea").fill(text)
    count = f"{len(text.encode()):,} byte"
    expect(widget.locator(".gptlib-te-counts")).to_contain_text(f"· {count}")


@pytest.fixture
def phone(browser: Any) -> Iterator[Page]:
    """Open a page as a phone does; the test fails if anything is printed as an error."""
    with quiet_page(browser, **PHONE) as page:
        yield page


# --- architecture map -------------------------------------------------------------------------


def test_map_by_mouse(page: Page, site: str) -> None:
    chart = show(page, site, "architecture_map")
    feed_forward = chart.locator('[data-block="feed_forward"]')
    card = chart.locator(".gptlib-am-card")
    feed_forward.click()
    expect(feed_forward).to_have_attribute("aria-pressed", "true")
    expect(chart.locator('[aria-pressed="true"]')).to_have_count(1)
    expect(card).to_contain_text("(B, T, C) → (B, T, C)")
    expect(card).to_contain_text("4,722,432")
    card.get_by_role("button", name="Close").click()
    expect(chart.locator('[aria-pressed="true"]')).to_have_count(0)
    expect(feed_forward).to_be_focused()
    expect(card).to_contain_text("From a text to its next token")


def test_map_shows_every_model(page: Page, site: str) -> None:
    chart = show(page, site, "architecture_map")
    options = chart.locator("option").evaluate_all("found => found.map(option => option.value)")
    assert options == list(FAMILY)
    for name, config in FAMILY.items():
        chart.locator("select").select_option(name)
        total = accounting.format_count(accounting.total(config))
        expect(chart.locator(".gptlib-am-total")).to_contain_text(total)
        expect(chart.locator(".gptlib-am-times")).to_contain_text(f" {config.n_layers}")


def test_map_by_keyboard(page: Page, site: str) -> None:
    chart = show(page, site, "architecture_map")
    chart.locator("select").focus()
    page.keyboard.press("Tab")  # into the map: one stop for all blocks
    page.keyboard.press("Home")
    for name in ORDER:
        expect(chart.locator(f'[data-block="{name}"]')).to_be_focused()
        page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    attention = chart.locator('[data-block="attention"]')
    expect(attention).to_have_attribute("aria-pressed", "true")
    expect(chart.locator(".gptlib-am-card")).to_contain_text("Masked multi-head attention")
    page.keyboard.press("End")
    page.keyboard.press("Space")
    sampling = chart.locator('[data-block="sampling"]')
    expect(sampling).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("ArrowDown")  # there is nothing after the last
    expect(sampling).to_be_focused()
    page.keyboard.press("Escape")
    expect(chart.locator('[aria-pressed="true"]')).to_have_count(0)
    assert chart.locator('.gptlib-am-block[tabindex="0"]').count() == 1


def test_map_on_a_phone_keeps_the_chosen_block_in_sight(phone: Page, site: str) -> None:
    chart = show(phone, site, "architecture_map")
    card = chart.locator(".gptlib-am-card")
    for name in ("token_embedding", "attention", "shortcut_2", "final_norm"):
        block = chart.locator(f'[data-block="{name}"]')
        block.tap()
        expect(block).to_have_attribute("aria-pressed", "true")
        box, cover = block.bounding_box(), card.bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= cover["y"]
        assert cover["y"] + cover["height"] <= 740


# --- token explorer ---------------------------------------------------------------------------


def test_explorer_tokenizes_what_is_typed(page: Page, site: str) -> None:
    explorer = show(page, site, "token_explorer")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    text = "Lily's café 🙂 \u0085 ²٣\n\tdon't <|endoftext|>"
    write(explorer, text)
    stories = explorer.locator(".gptlib-te-panel", has_text="Stories")
    expected = tokenizer.stories().encode_ordinary(text)
    assert ids(stories) == expected
    expect(stories.locator(".gptlib-te-count")).to_have_text(f"{len(expected)} tokens")
    expect(explorer.get_by_role("status")).to_contain_text("ordinary text here")
    assert asked == []

    gpt2 = explorer.locator(".gptlib-te-panel", has_text="GPT-2")
    gpt2.get_by_role("button", name="Load it").click()
    expect(gpt2.locator(".gptlib-te-id").first).to_be_visible()
    assert ids(gpt2) == tokenizer.gpt2().encode_ordinary(text)
    assert len(asked) == 1
    write(explorer, "Another text")
    assert ids(gpt2) == tokenizer.gpt2().encode_ordinary("Another text")


def test_explorer_returns_to_the_first_text(page: Page, site: str) -> None:
    explorer = show(page, site, "token_explorer")
    area, reset = explorer.locator("textarea"), explorer.get_by_role("button", name="Back")
    first = area.input_value()
    before = ids(explorer)
    expect(reset).to_be_hidden()
    write(explorer, "new")
    reset.click()
    expect(area).to_have_value(first)
    expect(area).to_be_focused()
    expect(reset).to_be_hidden()
    assert ids(explorer) == before


def test_explorer_shows_text_and_never_runs_it(page: Page, site: str) -> None:
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    explorer = show(page, site, "token_explorer")
    write(explorer, ATTACK)
    explorer.locator(".gptlib-te-token").nth(3).hover()
    shown = "".join(
        explorer.locator(".gptlib-te-panel .gptlib-te-tokens .gptlib-te-text").all_text_contents()
    )
    assert shown.replace("␣", " ") == ATTACK
    assert explorer.locator("img, script").count() == 0
    page.wait_for_timeout(200)
    assert dialogs == []


def test_explorer_tells_a_tokens_bytes_by_mouse_and_keyboard(page: Page, site: str) -> None:
    explorer = show(page, site, "token_explorer")
    write(explorer, "a é")
    panel = explorer.locator(".gptlib-te-panel", has_text="Stories")
    detail, tokens = panel.locator(".gptlib-te-detail"), panel.locator(".gptlib-te-token")
    tokens.last.hover()
    expect(detail).to_contain_text("A9")
    explorer.locator("textarea").focus()
    tokens.first.focus()
    expect(detail).to_contain_text("id 97")
    expect(detail).to_contain_text("1 byte 61")
    page.keyboard.press("End")
    expect(tokens.last).to_be_focused()
    expect(tokens.last).to_have_attribute("aria-label", "bytes A9, id 169")
    page.keyboard.press("ArrowRight")
    expect(tokens.last).to_be_focused()
    page.keyboard.press("Home")
    expect(tokens.first).to_be_focused()
    assert panel.locator('[tabindex="0"]').count() == 1


def test_explorer_marks_the_same_bytes_in_the_other_encoding(page: Page, site: str) -> None:
    explorer = show(page, site, "token_explorer")
    panels = explorer.locator(".gptlib-te-panel")
    if panels.count() < 2:
        pytest.fail("the first token explorer of the site should show two encodings")
    panels.nth(0).locator(".gptlib-te-token").nth(1).hover()
    chosen, others = (panels.nth(i).locator(".gptlib-te-on .gptlib-te-text") for i in (0, 1))
    assert "".join(chosen.all_inner_texts()) in "".join(others.all_inner_texts())
    expect(panels.nth(1).locator(".gptlib-te-detail")).to_contain_text("The same bytes")


def test_explorer_cuts_a_long_text_and_stays_quick(page: Page, site: str) -> None:
    explorer = show(page, site, "token_explorer")
    explorer.locator("textarea").fill("漢字かな" * 50_000)
    status = explorer.get_by_role("status")
    expect(status).to_contain_text("only its first 5,000 characters", timeout=5_000)
    assert explorer.locator(".gptlib-te-token").count() <= 1_500
    expect(explorer).to_contain_text("more tokens")
    write(explorer, "short again")
    expect(status).to_be_hidden()


def test_explorer_without_text(page: Page, site: str) -> None:
    explorer = show(page, site, "token_explorer")
    explorer.locator("textarea").fill("")
    expect(explorer.locator(".gptlib-te-counts")).to_contain_text("0 characters · 0 bytes")
    expect(explorer).to_contain_text("No text, no tokens.")


# --- both -------------------------------------------------------------------------------------

WIDGETS = ["architecture_map", "token_explorer"]


@pytest.mark.parametrize("widget", WIDGETS)
def test_small_screens_need_no_sideways_scrolling(phone: Page, site: str, widget: str) -> None:
    root = show(phone, site, widget)
    if widget == "token_explorer":
        write(root, "W" * 300 + " " * 100 + ATTACK)
    assert phone.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert root.evaluate("root => root.scrollWidth - root.clientWidth") <= 0
    controls = root.locator("button:visible, select:visible, textarea:visible")
    boxes = controls.evaluate_all(
        "found => found.map(e => [e.className, e.offsetWidth, e.offsetHeight])"
    )
    assert [box for box in boxes if min(box[1:]) < 40] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("widget", WIDGETS)
def test_no_accessibility_violation(page: Page, site: str, widget: str, theme: str) -> None:
    page.emulate_media(color_scheme=theme)
    root = show(page, site, widget)
    if widget == "token_explorer":
        write(root, "Lily's café 🙂\n\t<|endoftext|> " + ATTACK)
        root.locator(".gptlib-te-token").nth(2).hover()
    else:
        root.locator('[data-block="attention"]').click()
    assert violations(page, context=".gptlib-mounted") == []


@pytest.mark.parametrize("widget", WIDGETS)
def test_theme_of_the_page_is_the_widgets(page: Page, site: str, widget: str) -> None:
    def ground() -> str:
        return str(
            root.evaluate("root => getComputedStyle(root.firstElementChild).backgroundColor")
        )

    root = show(page, site, widget)
    seen = set()
    for system in ("light", "dark"):
        page.emulate_media(color_scheme=system)
        for theme, expected in (("light", "light"), ("dark", "dark"), ("auto", system)):
            page.evaluate("theme => { document.body.dataset.theme = theme; }", theme)
            color = ground()
            assert (color == "rgb(255, 255, 255)") == (expected == "light"), (system, theme, color)
            seen.add(color)
    assert len(seen) == 2


@pytest.mark.parametrize("widget", WIDGETS)
def test_nothing_moves_for_who_wants_no_motion(page: Page, site: str, widget: str) -> None:
    page.emulate_media(reduced_motion="reduce")
    root = show(page, site, widget)
    moving = root.evaluate(
        "root => root.getAnimations({ subtree: true }).length"
        " + [...root.querySelectorAll('*')].filter(e => {"
        "  const time = parseFloat(getComputedStyle(e).transitionDuration); return time > 0.001;"
        "}).length"
    )
    assert moving == 0


@pytest.mark.parametrize("widget", WIDGETS)
def test_words_stay_where_the_widget_cannot_be_drawn(browser: Any, site: str, widget: str) -> None:
    for options, break_it in (
        ({"java_script_enabled": False}, lambda context: None),
        ({}, lambda context: context.route(f"**/{widget}.js*", lambda route: route.abort())),
    ):
        context = browser.new_context(**options)
        break_it(context)
        page = context.new_page()
        page.goto(address(site, widget))
        place = page.locator(f'[data-gptlib-widget="{widget}"]').first
        place.scroll_into_view_if_needed()
        if not options:
            expect(place).to_have_class(re.compile("gptlib-failed"))
        expect(place.locator(".gptlib-fallback")).to_be_visible()
        assert place.locator(".gptlib-root").count() == 0
        context.close()


def test_a_page_loads_each_file_once_and_no_more_than_it_needs(page: Page, site: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.partition("?")[0]))
    show(page, site, "token_explorer")
    ours = [url.rpartition("/")[2] for url in asked if "/gptlib-" in url]
    assert len(ours) == len(set(ours))
    expected = {"host.js", "base.css", "kit.js", "token_explorer.js", "token_explorer.css"}
    assert expected | {"stories_vocabulary.json"} <= set(ours)
    assert "gpt2_vocabulary.json" not in ours


def test_pages_without_a_widget_load_nothing_of_ours(page: Page, site: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(site + "book/glossary.html")
    assert not [url for url in asked if "/gptlib-" in url]
