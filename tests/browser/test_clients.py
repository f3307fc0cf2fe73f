"""What readers' browsers do beside showing a page: no server, no storage, no modules, paper."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.browser.conftest import SITE, quiet_page

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
Page = playwright_api.Page
expect = playwright_api.expect

CHAPTER = "notebooks/03_attention.html"


@pytest.fixture
def loud(browser: playwright_api.Browser) -> Iterator[Page]:
    """A page whose console may say what did not load."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    yield context.new_page()
    context.close()


def holes(page: Page) -> list[tuple[str, int]]:
    """Widgets that are higher than the words in them, with their heights."""
    return page.locator(".gptlib-widget").evaluate_all(
        """all => all.filter(one => one.offsetHeight > 40 + [...one.children]
            .reduce((sum, part) => sum + part.offsetHeight, 0))
            .map(one => [one.dataset.gptlibWidget, one.offsetHeight])"""
    )


def test_a_page_opened_as_a_file_says_what_is_missing_and_has_no_hole(loud: Page) -> None:
    page = loud
    page.goto((SITE / CHAPTER).as_uri())
    note = page.locator(".gptlib-missing")
    expect(note).to_have_count(1)
    expect(note).to_contain_text("make serve")
    assert page.locator(".gptlib-fallback").count() > 1
    for words in page.locator(".gptlib-fallback").all():
        expect(words).to_be_visible()
    assert holes(page) == []


@pytest.mark.parametrize("how", ["blocked", "of another type"])
def test_widgets_whose_program_does_not_load_leave_their_words(
    loud: Page, site: str, how: str
) -> None:
    page = loud

    def answer(route: playwright_api.Route) -> None:
        if how == "blocked":
            route.abort()
        else:
            route.fulfill(body="export {}", content_type="text/plain")

    page.route("**/page/host.js*", answer)
    page.goto(site + CHAPTER)
    expect(page.locator(".gptlib-missing")).to_contain_text("could not be loaded")
    assert holes(page) == []


def test_a_page_that_may_store_nothing_still_searches(browser, site: str) -> None:
    blocked = """Object.defineProperty(window, "localStorage", { configurable: true,
        get() { throw new DOMException("The operation is insecure.", "SecurityError"); } });"""
    with quiet_page(browser) as page:
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.add_init_script(blocked)
        page.goto(site + "search.html?q=attention")
        expect(page.locator("#search-results li").first).to_be_visible()
        before = page.locator("body").get_attribute("data-theme")
        page.locator("button.theme-toggle:visible").first.click()
        assert page.locator("body").get_attribute("data-theme") != before
        assert errors == []


def test_the_keyboard_sees_the_button_that_copies(page: Page, site: str) -> None:
    page.goto(site + CHAPTER)
    button = page.locator("button.copybtn:visible").first
    assert button.evaluate("one => getComputedStyle(one).opacity") == "0"
    page.keyboard.press("Tab")
    button.focus()
    expect(button).to_be_focused()
    expect(button).to_have_css("opacity", "1")


@pytest.mark.parametrize("name", ["notebooks/04_gpt2_architecture.html", "book/glossary.html"])
def test_what_is_printed_is_whole(page: Page, site: str, name: str) -> None:
    """Nothing is folded away, scrolled out of sight or lying over the text; colors are kept."""
    page.goto(site + name)
    for widget in page.locator(".gptlib-widget").all():
        widget.scroll_into_view_if_needed()
        expect(widget).to_have_class(re.compile("gptlib-mounted"))
    closed = page.locator("article details:not([open])")
    folded = closed.count()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert closed.count() == 0
    expect(page.locator(".skip-to-content")).to_be_hidden()
    scrolling = page.locator("article pre, article .table-wrapper, div.math")
    assert (
        scrolling.evaluate_all(
            "all => all.filter(e => getComputedStyle(e).overflowX !== 'visible').length"
        )
        == 0
    )
    roots = page.locator(".gptlib-root")
    adjust = roots.evaluate_all("all => all.map(e => getComputedStyle(e).printColorAdjust)")
    assert set(adjust) <= {"exact"}
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert closed.count() == folded
