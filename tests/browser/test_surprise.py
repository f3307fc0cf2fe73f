"""The surprise widget in a page of its own, without a kernel and as with one, against Python."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from gptlib import pretrained, stories, tokenizer
from gptlib.model import GPT
from gptlib.widgets.linker import linked
from gptlib.widgets.surprise import Surprise, judge
from tests.browser.conftest import lone_page, quiet_page, serve_folder, violations

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright_api.expect
Page = playwright_api.Page

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
STORY = stories.sample(1, stories.VALIDATION_SEED)[0]
HOSTILE = "</script><img src=x onerror=alert(1)> \u202e שלום 🙂\n"
WAIT = 20_000  # milliseconds: the machine may be busy


@pytest.fixture(scope="module")
def widget() -> Iterator[Surprise]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Surprise([STORY, HOSTILE])
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def mini(widget: Surprise) -> GPT:
    return pretrained.load("mini")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, widget: Surprise) -> Iterator[str]:
    """Serve a page as Python stores it, and what the kernel would send."""
    folder = tmp_path_factory.mktemp("surprise")
    lone_page(folder, widget, "Surprise")
    (folder / "kernel.json").write_text(json.dumps(from_kernel(widget)))
    (folder / "kernel.html").write_text(KERNEL)
    yield from serve_folder(folder)


def from_kernel(widget: Surprise) -> dict[str, Any]:
    """Return what Python answers to the widget's messages, and its traits."""
    answers = {}
    with pytest.MonkeyPatch.context() as patch:
        for kind in ("engine", "grammar"):
            sent: list[Any] = []
            patch.setattr(widget, "send", lambda content, buffers=None, to=sent: to.append(content))
            widget._handle_custom_msg({"type": kind}, [])
            (answers[kind],) = sent
    return {"state": widget.state(), "modules": linked("surprise.js"), "answers": answers}


# As in Jupyter: modules come as text, and messages are answered with what Python sends.
KERNEL = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><main></main>
<script type="module">
  import { link } from "./lib/link.js";
  const { state, modules, answers } = await (await fetch("kernel.json")).json();
  const bytes = await (await fetch("mini.safetensors")).arrayBuffer();
  const listeners = new Set();
  const model = {
    get: (name) => state[name], set: (name, value) => { state[name] = value; },
    on: (name, hear) => name === "msg:custom" && listeners.add(hear),
    off: (name, hear) => listeners.delete(hear), save_changes() {},
    send: ({ type }) => setTimeout(() => [...listeners].forEach((hear) =>
      hear(answers[type], type === "engine" ? [new DataView(bytes.slice())] : []))),
  };
  const { default: widget } = await import(link(modules)["surprise.js"]);
  window.cleanUp = widget.render({ model, el: document.querySelector("main") });
</script>"""


def show(page: Page, address: str) -> Any:
    page.set_default_timeout(WAIT)
    page.goto(address)
    root = page.locator(".gptlib-root")
    expect(root).to_be_visible(timeout=WAIT)
    return root


def sums(root: Any) -> list[list[str]]:
    cells: list[list[str]] = root.locator(".gptlib-sp-sums tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].slice(1).map(cell => cell.textContent))"
    )
    return cells


def shares(root: Any) -> list[list[str]]:
    cells: list[list[str]] = root.locator(".gptlib-sp-shares tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return cells


def number(text: str) -> float:
    return float(text.replace("\u2212", "-"))


def check(root: Any, story: dict[str, Any], token: int) -> None:
    """Compare what is shown of a token with what Python knows of it."""
    expect(root.locator(".gptlib-sp-card strong")).to_contain_text(f"Token {token + 1} of")
    known = len(story["surprisal"])
    names = ("loss", "surprisal", "entropy")
    loss, surprisal, entropy = (story[name] for name in names)
    rows = sums(root)
    for row, values in zip([0, 1, 3], (loss, surprisal, entropy), strict=True):
        assert number(rows[row][1]) == pytest.approx(sum(values[: token + 1][:known]), abs=0.006)
        assert number(rows[row][2]) == pytest.approx(sum(values[:known]), abs=0.006)
    assert number(rows[0][0]) == pytest.approx(loss[token], abs=0.006)
    if token < known:
        assert number(rows[1][0]) == pytest.approx(surprisal[token], abs=0.006)
        assert number(rows[2][0]) == pytest.approx(loss[token] - surprisal[token], abs=0.006)
    assert number(rows[2][2]) == pytest.approx(sum(loss[:known]) - sum(surprisal), abs=0.006)


def test_without_a_kernel(page: Page, address: str, widget: Surprise) -> None:
    root, story = show(page, address), widget.stories[0]
    text = root.get_by_role("listbox", name="Tokens of the text")
    assert text.evaluate("e => e.textContent") == f"{STORY} end"
    check(root, story, widget.token)
    expect(root.locator(".gptlib-sp-verdict")).to_contain_text("A whole story")

    text.focus()
    page.keyboard.press("Home")
    check(root, story, 0)
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    check(root, story, 3)
    option = text.get_by_role("option").nth(3)
    expect(option).to_have_attribute("aria-selected", "true")
    assert text.get_attribute("aria-activedescendant") == option.get_attribute("id")
    page.keyboard.press("ArrowDown")
    above, below = option.bounding_box(), text.locator("[aria-selected=true]").bounding_box()
    assert above["height"] < below["y"] - above["y"] < 3 * above["height"]
    page.keyboard.press("ArrowUp")
    page.keyboard.press("End")
    check(root, story, len(story["tokens"]) - 1)
    root.get_by_role("button", name="Token before").click()
    check(root, story, len(story["tokens"]) - 2)

    text.get_by_role("option").nth(9).hover()  # a look, not a choice
    check(root, story, 9)
    expect(text.get_by_role("option").nth(9)).to_have_attribute("aria-selected", "false")
    listed = shares(root)
    assert [row[0] for row in listed if row[0].endswith("came")] == [
        story["tokens"][9].replace(" ", "\u2423") + "came"
    ]
    chart = root.locator(".gptlib-sp-chart")
    box = chart.bounding_box()
    step = (box["width"] - 28) / len(story["tokens"])
    page.mouse.click(box["x"] + 26 + 12.5 * step, box["y"] + 60)
    check(root, story, 12)
    assert number(
        root.locator(".gptlib-sp-pointer")
        .evaluate("e => e.transform.baseVal[0].matrix.e")
        .__str__()
    ) == pytest.approx(26 + 12.5 * step, abs=0.2)


def test_colors_and_another_text(page: Page, address: str, widget: Surprise) -> None:
    root, story = show(page, address), widget.stories[0]
    steps = {"Model\u2019s loss": [0.1, 0.5, 1, 2, 4], "Exact surprisal": [0.1, 0.5, 1, 2, 4]}
    steps["Excess"] = [0.05, 0.2, 0.5, 1, 2]
    excess = [a - b for a, b in zip(story["loss"], story["surprisal"], strict=True)]
    by = dict(zip(steps, (story["loss"], story["surprisal"], excess), strict=True))
    for name in reversed(steps):
        root.get_by_role("radio", name=name).check()
        levels = root.locator(".gptlib-sp-text .gptlib-sp-token").evaluate_all(
            "found => found.map(e => Number(e.dataset.level))"
        )
        expected = [
            sum(abs(value) >= step for step in steps[name]) * (-1 if value < 0 else 1)
            for value in by[name]
        ]
        assert levels == expected

    root.get_by_role("combobox", name="Text").select_option("1")
    text = root.get_by_role("listbox")
    assert "<img src=x" in text.evaluate("e => e.textContent")
    expect(root.locator(".gptlib-sp-verdict")).to_contain_text("leaves the grammar")
    assert root.locator("img").count() == 0
    check(root, widget.stories[1], widget.stories[1]["loss"].index(max(widget.stories[1]["loss"])))


def load(root: Any) -> None:
    root.get_by_role("button", name="Load the model (4.4 MB)").click()
    expect(root.get_by_role("button", name="Write a story")).to_be_visible(timeout=WAIT)


def test_the_model_and_the_grammar_run_in_the_page(page: Page, address: str, mini: GPT) -> None:
    root = show(page, address)
    load(root)
    status, area = root.get_by_role("status"), root.get_by_role("textbox")
    expect(area).to_have_value(STORY)
    other = STORY.replace(" friends", " purple", 1)
    area.fill(other)
    expect(status).to_contain_text("leaves the grammar", timeout=WAIT)
    story = judge(other, tokenizer.stories(), mini)
    at = story["tokens"].index(" purple")
    root.get_by_role("listbox").get_by_role("option").nth(at).click()
    check(root, story, at)
    expect(root.locator(".gptlib-sp-shares")).to_contain_text("\u2423friends", timeout=WAIT)
    expect(root.locator(".gptlib-sp-words")).to_contain_text("an infinite surprisal")
    root.get_by_role("listbox").get_by_role("option").nth(at + 3).click()
    check(root, story, at + 3)
    expect(root.locator(".gptlib-sp-shares tbody tr").nth(1)).to_be_visible(timeout=WAIT)
    assert {row[1] for row in shares(root)} == {"\u2013"}

    names = story["tokens"].index(" Zoe")  # 31 names are as likely, and the model's favorites too
    root.get_by_role("listbox").get_by_role("option").nth(names).click()
    expect(root.locator(".gptlib-sp-shares tbody tr").nth(4)).to_be_visible(timeout=WAIT)
    *listed, others = shares(root)
    possible = [row for row in listed if row[1] != "0%"]  # the model may like the child's own, too
    assert {row[1] for row in possible} == {"3.2%"}
    assert len(possible) >= len(listed) - 1
    assert others[0] == f"{31 - len(possible)} others"

    area.fill("It was a sunny day. Bella and her")
    could = "It breaks off: next could come \u201cfriend\u201d, \u201cbest\u201d"
    expect(status).to_contain_text(could, timeout=WAIT)
    area.fill("x" * 10_000)
    expect(root.get_by_role("alert")).to_contain_text("The first 400 of", timeout=WAIT)
    root.get_by_role("combobox", name="Text").select_option("0")
    expect(area).to_have_value(STORY)

    root.get_by_role("button", name="Write a story").click()
    expect(area).not_to_have_value(STORY, timeout=WAIT)  # the status is still that of this one
    expect(status).to_contain_text(re.compile(r"Loss [\d.]+, exact"), timeout=WAIT)
    story = judge(area.input_value(), tokenizer.stories(), mini)
    check(root, story, int(root.locator("[aria-selected=true]").get_attribute("data-index")))
    assert root.get_by_role("combobox").locator("option:checked").inner_text() == "Your own"


def test_a_load_that_fails_or_is_cancelled_can_be_tried_again(
    page: Page, address: str, widget: Surprise
) -> None:
    root = show(page, address)
    page.route("**/stories_grammar.json", lambda route: route.fulfill(body="", status=204))
    root.get_by_role("button", name="Load the model").click()
    expect(root.get_by_role("alert")).to_contain_text("The grammar", timeout=WAIT)
    page.unroute("**/stories_grammar.json")
    check(root, widget.stories[0], widget.token)  # what was shown stays

    held: list[Any] = []
    page.route("**/mini.safetensors", lambda route: held.append(route))
    root.get_by_role("button", name="Try again").click()
    expect(root.get_by_role("alert")).to_be_hidden()
    root.get_by_role("button", name="Cancel").click()
    expect(root.get_by_role("button", name="Load the model")).to_be_focused()
    page.unroute("**/mini.safetensors")
    root.get_by_role("button", name="Load the model").click()
    expect(root.get_by_role("button", name="Write a story")).to_be_focused(timeout=WAIT)


def test_as_in_jupyter(page: Page, address: str, mini: GPT) -> None:
    root = show(page, f"{address}kernel.html")
    load(root)
    text = "One sunny day, Ada"
    root.get_by_role("textbox").fill(text)
    expect(root.get_by_role("status")).to_contain_text("It breaks off", timeout=WAIT)
    story = judge(text, tokenizer.stories(), mini)
    root.get_by_role("listbox").get_by_role("option").last.click()
    check(root, story, len(story["tokens"]) - 1)
    assert len(page.workers) == 1
    page.evaluate("cleanUp()")
    page.wait_for_timeout(50)
    assert page.workers == []


@pytest.mark.parametrize("phone", [False, True])
def test_any_screen_any_reader(browser: Any, address: str, phone: bool) -> None:
    options = PHONE if phone else {"viewport": {"width": 1280, "height": 800}}
    with quiet_page(browser, **options, reduced_motion="reduce") as page:
        root = show(page, address)
        if phone:
            load(root)
            root.get_by_role("combobox", name="Text").select_option("1")
        else:
            root.get_by_role("radio", name="Excess").check()
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert root.evaluate("root => root.scrollWidth - root.clientWidth") <= 0
        assert root.evaluate("root => root.getAnimations({ subtree: true }).length") == 0
        controls = root.locator("button:visible, select:visible, .gptlib-sp-color")
        heights = controls.evaluate_all("found => found.map(e => e.offsetHeight)")
        assert min(heights) >= (44 if phone else 24)
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme, reduced_motion="reduce")
            assert violations(page) == []
