"""The sampling bench in a page of its own, without a kernel and as with one, against PyTorch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from gptlib import tokenizer
from gptlib.generation import next_probabilities
from gptlib.widgets import SamplingBench, page
from tests.browser.conftest import page_html, quiet_page, serve_folder, violations
from tests.test_sampling_bench import given_logits, normal

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright_api.expect
Page = playwright_api.Page

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
PROMPTS = ["Once upon a time </script><img src=x onerror=alert(1)>", ""]
ROWS = 12
LOGITS = normal(2048, 11, 2.0)
LOGITS[[0, 10, 220, 300, 400]] = torch.tensor([7.0, 7.4, 6.8, 7.8, 8.2])  # bytes among the first


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a page as Python stores it, and one whose widget takes itself for live."""
    folder = tmp_path_factory.mktemp("bench")
    page.write_files(folder)
    widget = SamplingBench(given_logits(LOGITS), PROMPTS, tokenizer.stories())
    live = {"live": True, "typed": {}, "error": ""}
    for name, more in (("index", {}), ("live", live)):
        state = {**widget.state(), **more}
        (folder / f"{name}.html").write_text(
            page_html("Bench", page.widget_html(widget._module, state, widget.describe())),
            encoding="utf-8",
        )
    yield from serve_folder(folder)


def show(page: Page, address: str, name: str = "index") -> Any:
    page.goto(f"{address}{name}.html")
    place = page.locator(".gptlib-widget")
    expect(place).to_have_class(re.compile("gptlib-mounted"))
    return place.locator(".gptlib-root")


def rows(root: Any) -> list[dict[str, Any]]:
    """Return what each row shows, and how wide its bars are, in shares of the scale."""
    found: list[dict[str, Any]] = root.locator(
        ".gptlib-sb-row:not(.gptlib-sb-headings)"
    ).evaluate_all(
        """rows => rows.map(row => {
          const read = (name) => row.querySelector(`.gptlib-sb-${name}`);
          return {
            token: read("token").textContent,
            dropped: row.classList.contains("gptlib-sb-dropped"),
            now: read("now").textContent,
            own: read("own").textContent,
            count: Number(read("count").textContent.replace(",", "")),
            fill: parseFloat(read("fill").style.width) / 100,
            ghost: parseFloat(read("ghost").style.width) / 100,
            dot: parseFloat(read("dot").style.left) / 100,
          };
        })"""
    )
    return found


def share(text: str) -> float:
    return float(text.lstrip("<>").rstrip("%")) / 100


def check(root: Any, **settings: Any) -> None:
    """Check every row against what Python draws from."""
    order = LOGITS.sort(descending=True, stable=True).indices
    expected, own = next_probabilities(LOGITS, **settings)[order], LOGITS.softmax(-1)[order]
    end = share(root.locator(".gptlib-sb-ticks span").last.inner_text())
    *named, others = rows(root)
    for rank, row in enumerate(named):
        assert share(row["now"]) == pytest.approx(float(expected[rank]), abs=6e-4)
        assert share(row["own"]) == pytest.approx(float(own[rank]), abs=6e-4)
        assert row["fill"] * end == pytest.approx(float(expected[rank]), abs=2e-4)
        assert row["ghost"] * end == pytest.approx(float(own[rank]), abs=2e-4)
        assert row["dropped"] == (float(expected[rank]) == 0)
    assert share(others["now"]) == pytest.approx(float(expected[ROWS:].sum()), abs=6e-4)
    facts = root.locator(".gptlib-sb-fact b").all_inner_texts()
    kept = expected > 0
    entropy = abs(float(torch.special.xlogy(expected, expected).sum()))
    assert facts[0] == f"{int(kept.sum()):,}"
    assert share(facts[1]) == pytest.approx(float(own[kept].sum()), abs=6e-4)
    assert facts[2] == f"{entropy:.2f} nats"
    assert float(facts[3].replace(",", "")) == pytest.approx(2.718281828**entropy, rel=0.02)


def test_without_a_kernel(page: Page, address: str) -> None:
    root = show(page, address)
    encoding = tokenizer.stories()
    first = encoding.decode_single_token_bytes(int(LOGITS.argmax()))
    assert rows(root)[0]["token"].encode() == first.replace(b" ", "\u2423".encode())
    check(root)
    expect(root.get_by_role("button", name="As trained")).to_have_attribute("aria-pressed", "true")

    root.get_by_role("button", name="Greedy").click()
    check(root, temperature=0)
    root.get_by_role("button", name="Cautious").click()
    check(root, temperature=0.7, top_k=40, top_p=0.9)
    slider = root.get_by_role("slider", name="Top-k")
    slider.focus()
    page.keyboard.press("Home")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "5")
    check(root, temperature=0.7, top_k=5, top_p=0.9)
    expect(root.get_by_role("button", pressed=True)).to_have_count(0)
    expect(root.get_by_role("status").last).to_contain_text("tokens possible, entropy")
    assert rows(root)[-1]["token"] == "2,036 others"

    root.get_by_role("button", name="As trained").click()
    for _ in range(3):
        root.get_by_role("button", name="Draw 100").click()
    root.get_by_role("button", name="Draw a token").click()
    drawn = rows(root)
    assert sum(row["count"] for row in drawn) == 301
    end = share(root.locator(".gptlib-sb-ticks span").last.inner_text())
    for row in drawn[:-1]:
        assert row["dot"] * end == pytest.approx(min(row["count"] / 301, end), abs=2e-4)
    expect(root.get_by_role("status").last).to_contain_text("Drawn: ")
    seed = root.get_by_role("spinbutton", name="Seed")
    seed.fill("2")
    seed.press("Enter")
    again = rows(root)
    assert [row["count"] for row in again] != [row["count"] for row in drawn]
    seed.fill("1")
    seed.press("Enter")
    assert rows(root) == drawn
    root.get_by_role("button", name="Reset").click()
    assert sum(row["count"] for row in rows(root)) == 0
    expect(root.get_by_role("button", name="Draw a token")).to_be_focused()

    assert root.locator("textarea, table img, script").count() == 0
    assert root.locator(".gptlib-sb-row button").count() == 0
    expect(root.locator(".gptlib-sb-context")).to_have_text(f"\u201c{PROMPTS[0]}\u201d")
    root.get_by_role("combobox", name="Prompt").select_option("1")
    expect(root.locator(".gptlib-sb-context")).to_have_text("nothing: a text begins")
    for kind in ("button", "input", "select"):
        assert root.locator(f"{kind}:not([data-lm-suppress-shortcuts])").count() == 0


def test_a_step_of_a_slider_is_drawn_within_a_frame(page: Page, address: str) -> None:
    root = show(page, address)
    for _ in range(10):
        root.get_by_role("button", name="Draw 100").click()
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})  # not what others take

    def seconds() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))

    before = seconds()
    root.locator('[data-field="temperature"] input').evaluate(
        """slider => {
          for (let stop = 0; stop < 41; stop++) {
            slider.value = stop;
            slider.dispatchEvent(new Event("input"));
            slider.getBoundingClientRect(); // styles and layout too
          }
        }"""
    )
    assert (seconds() - before) / 41 < 0.016
    page.wait_for_timeout(800)  # until the slider rests, and is spoken of
    page.evaluate(
        "window.changes = 0; new MutationObserver(found => { changes += found.length; }).observe("
        "document.querySelector('.gptlib-root'), { subtree: true, childList: true,"
        " attributes: true, characterData: true });"
    )
    page.wait_for_timeout(150)
    assert page.evaluate("changes") == 0


def test_with_a_kernel(page: Page, address: str) -> None:
    root = show(page, address, "live")
    token = root.locator(".gptlib-sb-row button")
    name = token.nth(2).get_attribute("aria-label")
    token.first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(token.nth(2)).to_be_focused()
    assert token.and_(root.locator('[tabindex="0"]')).count() == 1
    page.keyboard.press("Enter")  # Python would answer; here nobody does
    expect(root).to_have_class(re.compile("gptlib-sb-stale"))
    expect(root.get_by_role("status").last).to_have_text(
        f"{name.removeprefix('Add ').removesuffix(' to the prompt')} added to the prompt."
    )
    area = root.get_by_role("textbox", name="Your prompt")
    area.fill("The fox")
    expect(root.locator(".gptlib-sb-error")).to_have_text(
        "Waiting for Python. Is the kernel running?"
    )
    root.get_by_role("combobox", name="Examples").select_option("0")
    expect(area).to_have_value(PROMPTS[0])
    expect(root).not_to_have_class(re.compile("gptlib-sb-stale"))
    expect(root.locator(".gptlib-sb-error")).to_be_empty()


@pytest.mark.parametrize("name", ["index", "live"])
def test_any_screen_any_reader(browser: Any, address: str, name: str) -> None:
    phone = name == "live"
    options = PHONE if phone else {"viewport": {"width": 1280, "height": 800}}
    with quiet_page(browser, **options, reduced_motion="reduce") as page:
        root = show(page, address, name)
        root.get_by_role("button", name="Cautious").click()
        root.get_by_role("button", name="Draw 100").click()
        assert root.evaluate("root => root.getAnimations({ subtree: true }).length") == 0
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert root.evaluate("root => root.scrollWidth - root.clientWidth") <= 0
        if phone:
            controls = root.locator("button:visible, select:visible, input:visible")
            heights = controls.evaluate_all("found => found.map(e => e.offsetHeight)")
            assert min(heights) >= 44
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme, reduced_motion="reduce")
            assert violations(page) == []
