"""The logit lens in pages of its own, without a kernel; other texts are read by the mini model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch

from gptlib import pretrained, tokenizer
from gptlib.model import GPT
from gptlib.widgets import engine
from gptlib.widgets.logit_lens import LogitLens
from tests.browser.conftest import lone_page, quiet_page, serve_folder, violations
from tests.test_logit_lens import random_gpt, story, unpacked

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright_api.expect
Page = playwright_api.Page

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
OTHER = "The <b>moon</b> was \u05e9\u05dc\u05d5\u05dd. She"


class Served(NamedTuple):
    """Where the pages are, and what they show."""

    url: str
    mini: GPT
    widgets: dict[str, LogitLens]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve a page each for a short text, a long one, and a model that no page can run."""
    folder = tmp_path_factory.mktemp("lens")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the browser needs the other one
    mini, stories = pretrained.load("mini"), tokenizer.stories()
    widgets = {
        "short": LogitLens(mini, story(12), stories),
        "long": LogitLens(mini, story(60), stories),
        "other": LogitLens(random_gpt(), "Two dogs", tokenizer.gpt2()),
    }
    for name, widget in widgets.items():
        lone_page(folder, widget, "Logit lens")
        (folder / "index.html").rename(folder / f"{name}.html")
    server = serve_folder(folder)
    yield Served(next(server), mini, widgets)
    next(server, None)
    torch.set_num_threads(threads)


def show(page: Page, served: Served, name: str) -> Any:
    page.goto(f"{served.url}{name}.html")
    place = page.locator(".gptlib-widget")
    expect(place).to_have_class(re.compile("gptlib-mounted"))
    return place.locator(".gptlib-root")


def labels(root: Any, tokens: list[str]) -> list[str]:
    """Return how the widget shows tokens."""
    found: list[str] = root.evaluate(
        """async (_, tokens) => {
          const { label } = await import("./lib/tokens.js");
          return tokens.map(token => token ? label(token) : "⟨end⟩");
        }""",
        tokens,
    )
    return found


def assert_shows(root: Any, lens: dict[str, Any]) -> None:
    """Compare every cell with what Python has for the same text."""
    words, own, _ = unpacked(lens)
    expect(root.locator(".gptlib-ll-frame th[scope=col]")).to_have_text(
        labels(root, lens["tokens"])
    )
    cells = root.locator(".gptlib-ll-cell").evaluate_all(
        """found => found.map(cell => [
          cell.querySelector(".gptlib-ll-token").textContent, cell.style.getPropertyValue("--p"),
          cell.classList.contains("gptlib-ll-same")])"""
    )
    size, count = len(lens["tokens"]), lens["count"]
    first = words[::count]
    last, shown = first[-size:], labels(root, first)
    assert len(cells) == len(first)
    for place, (text, share, same) in enumerate(cells):
        end, token = divmod(place, size)
        assert abs(float(share) - float(own[end, token, 0])) < 1.6e-3
        if own[end, token, 0] - own[end, token, 1] > 1e-3:  # else either may be said
            assert text == shown[place]
            assert same == (first[place] == last[token] and end < lens["layers"])


def test_cells_are_what_python_stores(page: Page, served: Served) -> None:
    root = show(page, served, "short")
    assert_shows(root, served.widgets["short"].lens)
    expect(root.locator(".gptlib-ll-cell")).to_have_count(5 * 13)
    share = root.locator("tbody th .gptlib-ll-soft").first
    expect(share).to_have_text(re.compile(r"^● \d+%$"))


def test_a_chosen_cell_shows_the_likeliest_and_the_way_to_the_end(
    page: Page, served: Served
) -> None:
    root = show(page, served, "short")
    lens = served.widgets["short"].lens
    words, own, asked = unpacked(lens)
    root.locator("[data-end='2'][data-token='6']").click()
    place = 2 * 13 + 6
    names = root.locator(".gptlib-ll-list .gptlib-ll-name > :last-child")
    expect(names).to_have_text(labels(root, words[5 * place : 5 * place + 5]))
    bars = root.locator(".gptlib-ll-list .gptlib-ll-bar").evaluate_all(
        "found => found.map(bar => +bar.style.getPropertyValue('--p'))"
    )
    assert bars == pytest.approx(own[2, 6].tolist(), abs=1e-4)
    course = root.locator(".gptlib-ll-course tbody tr")
    assert course.locator("td:nth-of-type(1) .gptlib-ll-bar").evaluate_all(
        "found => found.map(bar => +bar.style.getPropertyValue('--p'))"
    ) == pytest.approx(asked[:, 6, 0].tolist(), abs=1e-4)
    expect(root.locator(".gptlib-ll-where")).to_contain_text("After block 1, having read")
    expect(root.locator(".gptlib-ll-here th")).to_have_text("block 1")


def test_by_keyboard(page: Page, served: Served) -> None:
    root = show(page, served, "long")
    root.locator(".gptlib-ll-cell[tabindex='0']").focus()
    focused = root.locator(".gptlib-ll-cell:focus")
    for key, end, token in (
        ("Home", 4, 0),
        ("PageUp", 0, 0),
        ("ArrowUp", 0, 0),
        ("ArrowDown", 1, 0),
        ("ArrowRight", 1, 1),
        ("End", 1, 60),
        ("ArrowLeft", 1, 59),
    ):
        page.keyboard.press(key)
        expect(focused).to_have_attribute("data-token", str(token))
        expect(focused).to_have_attribute("data-end", str(end))
        expect(focused).to_have_attribute("aria-pressed", "true")
    expect(root.locator("[aria-live]")).to_contain_text("after block 0, having read")
    expect(root.locator(".gptlib-ll-cell[tabindex='0']")).to_have_count(1)
    frame, cell = root.locator(".gptlib-ll-frame").bounding_box(), focused.bounding_box()
    assert frame["x"] <= cell["x"]
    assert cell["x"] + cell["width"] <= frame["x"] + frame["width"] + 1
    expect(root.locator(".gptlib-ll-turns")).to_contain_text("tokens 14\u201361 of 61")
    root.get_by_role("button", name="Earlier").click()
    expect(root.locator(".gptlib-ll-turns")).to_contain_text("tokens 1\u201348 of 61")
    expect(root.locator(".gptlib-ll-cell")).to_have_count(5 * 48)


def test_another_text_is_read_in_the_page(page: Page, served: Served) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    root = show(page, served, "short")
    area, load = root.locator("textarea"), root.get_by_role("button", name="load the model")
    error = root.locator(".gptlib-ll-error")
    expect(load).to_be_hidden()
    area.fill(OTHER)
    expect(load).to_have_text("Read this text: load the model, 4.4 MB")
    assert not [url for url in asked if engine.WEIGHTS in url or "gpt_worker" in url]
    load.click()
    stories = tokenizer.stories()
    expect(root.locator(".gptlib-ll-frame th[scope=col]").nth(1)).to_have_text("The")
    assert_shows(root, LogitLens(served.mini, OTHER, stories).lens)
    expect(area).to_be_focused()
    expect(load).to_be_hidden()
    area.fill("One day a fox")  # from now on the table follows
    expect(root.locator(".gptlib-ll-frame th[scope=col]")).to_have_count(6)
    assert_shows(root, LogitLens(served.mini, "One day a fox", stories).lens)
    for text, sentence in (("", "The text is empty"), (story(129), "129 tokens, but at most 128")):
        area.fill(text)
        expect(error).to_contain_text(sentence)
        expect(root.locator(".gptlib-ll-frame th[scope=col]")).to_have_count(6)
    area.fill("One day a fox")
    expect(error).to_have_text("")
    assert len([url for url in asked if url.endswith(engine.WEIGHTS)]) == 1
    assert all(url.startswith((served.url, "data:", "blob:")) for url in asked)


def test_weights_that_do_not_arrive_can_be_asked_for_again(browser: Any, served: Served) -> None:
    context = browser.new_context()  # which prints the failure in its console
    page = context.new_page()
    root = show(page, served, "short")
    page.route(f"**/{engine.WEIGHTS}", lambda route: route.abort())
    root.locator("textarea").fill("One day")
    root.get_by_role("button", name="load the model").click()
    expect(root.locator(".gptlib-ll-error")).to_contain_text("weights do not arrive")
    expect(root.locator(".gptlib-ll-cell")).to_have_count(5 * 13)
    page.unroute(f"**/{engine.WEIGHTS}")
    held: list[Any] = []
    page.route(f"**/{engine.WEIGHTS}", lambda route: held.append(route))
    again = root.get_by_role("button", name="Try again")
    again.click()
    root.get_by_role("button", name="Cancel").click()
    expect(again).to_be_focused()
    page.unroute(f"**/{engine.WEIGHTS}")
    again.click()
    expect(root.locator(".gptlib-ll-cell")).to_have_count(5 * 3)
    assert len(page.workers) == 1  # that of the canceled load is gone
    context.close()


def test_a_model_that_no_page_can_run_offers_no_typing(page: Page, served: Served) -> None:
    root = show(page, served, "other")
    expect(root.locator("textarea, .gptlib-ll-loader")).to_have_count(0)
    expect(root.locator(".gptlib-ll-input")).to_contain_text("open the notebook")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_any_screen_any_reader(browser: Any, served: Served, width: int, theme: str) -> None:
    options = PHONE if width == 360 else {"viewport": {"width": width, "height": 800}}
    with quiet_page(browser, color_scheme=theme, **options) as page:
        root = show(page, served, "long")
        root.locator("textarea").fill("One day")  # the button comes
        expect(root.get_by_role("button", name="load the model")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        controls = root.locator("button:visible, textarea")
        boxes = controls.evaluate_all("found => found.map(e => [e.offsetWidth, e.offsetHeight])")
        assert min(min(box) for box in boxes) >= 24
        assert violations(page) == []
