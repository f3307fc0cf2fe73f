"""The attention maps in pages of their own, without a kernel, against PyTorch's numbers; in Lab."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch

from gptlib import pretrained, tokenizer
from gptlib.activations import AttentionSteps, attention_maps
from gptlib.widgets import AttentionMap, page
from tests.browser import test_widgets_lab
from tests.browser.conftest import lone_page, page_html, quiet_page, serve_folder, violations
from tests.browser.test_widgets_lab import lab, notebook_page, open_notebook, run, tried_again
from tests.test_attention_map_widget import gpt, toy

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright_api.expect
Page = playwright_api.Page

__all__ = ["lab", "notebook_page"]  # fixtures

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
MINUS, ENDLESS = "\u2212", "\u2212\u221e"  # as the widget writes them
STEPS = ("scores", "scaled", "masked", "weights")
HOSTILE = (
    "A <img src=x onerror=alert(1)>\n</script>\u05e9\u05dc\u05d5\u05dd caf\u00e9 "
    "\U0001f642\U0001f98a \u0301 " + "=" * 64
)


class Words:
    """One token for each word."""

    words = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog")

    def encode_ordinary(self, text: str) -> list[int]:
        return [self.words.index(word) for word in text.split()]

    def decode_single_token_bytes(self, token: int) -> bytes:
        return b" " + self.words[token].encode()


class Shown(NamedTuple):
    """A widget and what PyTorch says about it."""

    widget: AttentionMap
    steps: AttentionSteps  #: each (L, H, T, T)

    @property
    def size(self) -> int:
        return int(self.steps.weights.shape[-1])


def make(model: torch.nn.Module, text: str, encoding: Any, **chosen: int) -> Shown:
    ids = torch.tensor([encoding.encode_ordinary(text)])
    steps = AttentionSteps(*(step[:, 0].double() for step in attention_maps(model, ids)))
    return Shown(AttentionMap(model, text, encoding, **chosen), steps)


@pytest.fixture(scope="module")
def shown() -> dict[str, Shown]:
    """Return one head of few tokens, a few heads with hostile tokens, and 12 x 12 x 64."""
    gpt2 = tokenizer.gpt2()
    story = " ".join(["Once upon a time there was a fox, who looked at the moon."] * 5)
    story = gpt2.decode(gpt2.encode_ordinary(story)[:64])
    deep = gpt(peaked=14, n_layers=12, n_heads=12, emb_dim=96)
    return {
        "single": make(toy(vocab_size=9, n_heads=1), "the quick fox jumps over a dog", Words()),
        "few": make(gpt(peaked=30), HOSTILE, gpt2, layer=1, head=2),
        "many": make(deep, story, gpt2, layer=4, head=11),
    }


@pytest.fixture(scope="module")
def address(shown: dict[str, Shown], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a page for each widget, as Python stores it, and one with a kernel played in it."""
    folder = tmp_path_factory.mktemp("maps")
    page.write_files(folder)
    for name, (widget, _) in shown.items():
        html = page.widget_html(widget._module, widget.state(), widget.describe())
        (folder / f"{name}.html").write_text(page_html("Attention", html), encoding="utf-8")
    yield from serve_folder(folder)


def show(page: Page, address: str, name: str) -> Any:
    page.goto(f"{address}{name}.html")
    place = page.locator(".gptlib-widget")
    expect(place).to_have_class(re.compile("gptlib-mounted"))
    return place.locator(".gptlib-root")


def center(root: Any, row: int, column: int) -> dict[str, float]:
    """Return where on the map the middle of a cell is."""
    plot = root.locator(".gptlib-at-plot")
    box, size = plot.bounding_box(), int(root.evaluate("e => e.style.getPropertyValue('--tokens')"))
    return {
        "x": (column + 0.5) * box["width"] / size,
        "y": (row + 0.5) * box["height"] / size,
    }


def drawn(root: Any) -> None:
    """Wait until what was clicked is on the screen: the widget draws in the next frame."""
    root.page.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )


def click(root: Any, row: int, column: int) -> None:
    root.locator(".gptlib-at-plot").click(position=center(root, row, column))
    drawn(root)


def picker(root: Any, name: str) -> Any:
    return root.locator(f"label:has-text('{name}') select")


def values(root: Any) -> list[str]:
    """Return the four numbers of the chosen cell."""
    return root.locator(".gptlib-at-step-value").all_inner_texts()


def choose(root: Any, step: str) -> None:
    root.locator(f'.gptlib-at-step:has([value="{step}"])').click()
    drawn(root)


def check(text: str, expected: float) -> None:
    """Check a number as it is shown: its last digit may be off by one, and no more."""
    if math.isinf(expected):
        assert text == ENDLESS
        return
    digits = len(text.partition(".")[2])
    assert abs(float(text.replace(MINUS, "-")) - expected) <= 10.0**-digits, (text, expected)


def selected(root: Any) -> str:
    return str(root.locator(".gptlib-at-pair").inner_text())


# --- the numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["single", "few", "many"])
def test_cells_show_what_the_model_computes(
    page: Page, address: str, shown: dict[str, Shown], name: str
) -> None:
    root = show(page, address, name)
    widget, steps = shown[name]
    rng = random.Random(0)
    for _ in range(12):
        layer, head = rng.randrange(widget.maps["layers"]), rng.randrange(widget.maps["heads"])
        row, column = rng.randrange(shown[name].size), rng.randrange(shown[name].size)
        if name != "single":
            picker(root, "Layer").select_option(str(layer))
            picker(root, "Head").select_option(str(head))
        click(root, row, column)
        found = values(root)
        for step, text in zip(STEPS, found, strict=True):
            expected = float(getattr(steps, step)[layer, head, row, column])
            if column > row and name == "many" and step in ("scores", "scaled"):
                assert text == "…"
            else:
                check(text, expected)
        assert len(found[3].partition(".")[2]) == 3


@pytest.mark.parametrize("name", ["single", "few", "many"])
def test_table_has_every_step_of_the_row_and_who_looks_at_it(
    page: Page, address: str, shown: dict[str, Shown], name: str
) -> None:
    root = show(page, address, name)
    widget, steps = shown[name]
    row, size = shown[name].size // 3, shown[name].size
    click(root, row, 0)
    cells = root.locator("tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert len(cells) == size
    for j, (_, *texts, back) in enumerate(cells):
        for step, text in zip(STEPS, texts, strict=True):
            if text != "…":
                check(text, float(getattr(steps, step)[widget.layer, widget.head, row, j]))
        check(back, float(steps.weights[widget.layer, widget.head, j, row]))
    heading = root.locator("thead th").all_inner_texts()
    assert heading == ["Token", "Score", "Scaled", "Masked", "Weight", "Looks at it"]


def test_text_shows_where_a_token_looks_and_who_looks_at_it(
    page: Page, address: str, shown: dict[str, Shown]
) -> None:
    root = show(page, address, "single")
    weights = shown["single"].steps.weights[0, 0]
    tokens = root.locator(".gptlib-at-token")
    tokens.nth(3).click()
    for i, text in enumerate(root.locator(".gptlib-at-weight").all_inner_texts()):
        assert abs(float(text) - float(weights[3, i] if i <= 3 else weights[i, 3])) < 0.0051
    best = int(weights[3].argmax())
    assert selected(root) == f"“␣jumps” looks at “␣{['the', 'quick', 'fox', 'jumps'][best]}”"
    colors = tokens.evaluate_all(
        "found => found.map(e => e.style.backgroundColor.match(/[0-9.]+/g).map(Number))"
    )
    for i, (red, _, blue, *alpha) in enumerate(colors):
        assert (blue > red) == (i <= 3)
        weight = float(weights[3, i] if i <= 3 else weights[i, 3])
        assert abs((alpha or [1])[0] ** 2 - weight) < 0.02


PIXELS = """canvas => {
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  return Array.from({ length: width * height }, (_, i) => [...data.slice(4 * i, 4 * i + 4)]);
}"""
PIXEL = """(canvas, [x, y]) => [...canvas.getContext("2d").getImageData(x, y, 1, 1).data]"""
MIDDLE_ROW = """canvas => [
  ...canvas.getContext("2d").getImageData(0, canvas.height / 2, canvas.width, 1).data,
]"""


@pytest.mark.parametrize("step", STEPS)
def test_colors_of_the_map_follow_the_numbers(
    page: Page, address: str, shown: dict[str, Shown], step: str
) -> None:
    root = show(page, address, "few")
    choose(root, step)
    pixels = root.locator(".gptlib-at-canvas").evaluate(PIXELS)
    steps, widget, size = shown["few"].steps, shown["few"].widget, shown["few"].size
    numbers = getattr(steps, step)[widget.layer, widget.head].flatten().tolist()
    assert len(pixels) == size * size
    drawn = [
        (number, sum(pixel[:3]))
        for i, (number, pixel) in enumerate(zip(numbers, pixels, strict=True))
        if pixel[3] == 255
    ]
    future = size * (size - 1) // 2
    assert len(drawn) == size * size - (future if step in ("masked", "weights") else 0)
    drawn.sort()
    spread = drawn[-1][0] - drawn[0][0]
    for (low, light), (high, dark) in zip(drawn[:-9], drawn[9:], strict=True):
        assert dark <= light
        if high - low > 0.03 * spread:
            assert dark < light
    assert drawn[0][1] > 2 * drawn[-1][1]


def test_thumbnails_are_the_heads_weights(
    page: Page, address: str, shown: dict[str, Shown]
) -> None:
    root = show(page, address, "many")
    canvas = root.locator(".gptlib-at-thumbs-canvas")
    width, height = canvas.evaluate("c => [c.width, c.height]")
    step, size = width // 12, shown["many"].size
    assert height == width
    gap = (step - size) // 2
    for layer, head, row, column in ((0, 0, 0, 0), (4, 11, 40, 3), (11, 2, 63, 63), (7, 7, 9, 30)):
        x, y = head * step + gap + column, layer * step + gap + row
        click(root, 1, 0)  # so that the map is of another head each time
        root.locator(".gptlib-at-thumb").nth(12 * layer + head).click()
        large = root.locator(".gptlib-at-canvas").evaluate(PIXEL, [column, row])
        assert canvas.evaluate(PIXEL, [x, y]) == large


# --- mouse, keyboard, touch -------------------------------------------------------------------


def test_by_mouse(page: Page, address: str) -> None:
    root = show(page, address, "single")
    click(root, 2, 1)
    assert selected(root) == "“␣fox” looks at “␣quick”"
    root.locator(".gptlib-at-plot").hover(position=center(root, 5, 3))
    expect(root.locator(".gptlib-at-pair")).to_have_text("“␣a” looks at “␣jumps”")
    expect(root.locator("tbody tr.gptlib-at-on th")).to_have_text("␣jumps")
    page.mouse.move(0, 0)
    expect(root.locator(".gptlib-at-pair")).to_have_text("“␣fox” looks at “␣quick”")
    root.locator(".gptlib-at-token").nth(4).hover()
    expect(root.locator(".gptlib-at-pair")).to_contain_text("“␣over” looks at")
    page.mouse.move(0, 0)
    expect(root.locator(".gptlib-at-pair")).to_have_text("“␣fox” looks at “␣quick”")
    click(root, 1, 1)
    assert selected(root) == "“␣quick” looks at itself"
    click(root, 1, 4)
    assert values(root)[2:] == [ENDLESS, "0.000"]


def test_nothing_is_drawn_when_nothing_moved(page: Page, address: str) -> None:
    root = show(page, address, "many")
    here = center(root, 30, 10)
    plot = root.locator(".gptlib-at-plot")
    plot.hover(position=here)
    page.wait_for_timeout(300)
    root.evaluate(
        "root => { window.changes = 0; new MutationObserver(found => { changes += found.length; })"
        ".observe(root, { subtree: true, childList: true, attributes: true,"
        " characterData: true }); }"
    )
    for step in range(10):
        plot.hover(position={"x": here["x"] + 0.2 * (step % 3), "y": here["y"]})
    page.wait_for_timeout(300)
    assert page.evaluate("changes") == 0
    plot.hover(position=center(root, 31, 10))
    page.wait_for_timeout(300)
    assert page.evaluate("changes") > 0


def test_by_keyboard(page: Page, address: str, shown: dict[str, Shown]) -> None:
    root = show(page, address, "few")
    first = selected(root)
    plot = root.locator(".gptlib-at-plot")
    tokens = root.locator(".gptlib-at-token")
    thumbs = root.locator(".gptlib-at-thumb")
    live = root.locator("[aria-live]")

    root.locator('[value="weights"]').focus()  # the steps: one stop
    page.keyboard.press("ArrowLeft")
    assert root.locator('[value="masked"]').is_checked()
    assert root.get_attribute("data-step") == "masked"
    page.keyboard.press("ArrowRight")

    page.keyboard.press("Tab")  # the map
    expect(plot).to_be_focused()
    expect(live).to_contain_text(" looks at ")
    page.keyboard.press("PageUp")
    page.keyboard.press("Home")
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    labels = root.locator("tbody th").all_inner_texts()
    assert selected(root) == f"“{labels[3]}” looks at “{labels[1]}”"
    weights = shown["few"].steps.weights[1, 2]
    best = int(weights[3].argmax())
    expect(live).to_contain_text(f"{float(weights[3, best]):.2f}")
    page.keyboard.press("ArrowUp")
    for _ in range(4):
        page.keyboard.press("ArrowLeft")  # there is nothing before the first
    assert selected(root) == f"“{labels[2]}” looks at “{labels[0]}”"
    page.keyboard.press("Escape")
    assert selected(root) == first

    for _ in range(3):
        page.keyboard.press("Tab")  # layer, head, thumbnails: one stop for all of them
    expect(thumbs.nth(1 * 4 + 2)).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    expect(thumbs.nth(2 * 4 + 1)).to_be_focused()
    expect(picker(root, "Layer")).to_have_value("2")
    expect(picker(root, "Head")).to_have_value("1")

    page.keyboard.press("Tab")  # the text: one stop for all tokens
    expect(root.locator(".gptlib-at-token:focus")).to_have_count(1)
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(tokens.nth(1)).to_be_focused()
    assert selected(root).startswith(f"“{labels[1]}” looks at")
    expect(live).to_contain_text("space < looks at")
    page.keyboard.press("End")
    expect(tokens.last).to_be_focused()
    assert tokens.and_(root.locator('[tabindex="0"]')).count() == 1
    assert thumbs.and_(root.locator('[tabindex="0"]')).count() == 1
    page.keyboard.press("Tab")
    expect(root.get_by_role("region", name="Numbers")).to_be_focused()


def test_by_touch(browser: Any, address: str, shown: dict[str, Shown]) -> None:
    with quiet_page(browser, **PHONE) as phone:
        root = show(phone, address, "many")
        plot = root.locator(".gptlib-at-plot")
        plot.scroll_into_view_if_needed()
        plot.tap(position=center(root, 50, 20))
        check(values(root)[3], float(shown["many"].steps.weights[4, 11, 50, 20]))
        root.locator(".gptlib-at-token").nth(7).tap()
        label = root.locator("tbody th").nth(7).inner_text()
        assert selected(root).startswith(f"“{label}” looks at")
        root.locator(".gptlib-at-thumb").nth(5 * 12 + 3).tap()
        expect(picker(root, "Layer")).to_have_value("5")


# --- any screen, any reader -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["single", "few", "many"])
def test_small_screens_need_no_sideways_scrolling(browser: Any, address: str, name: str) -> None:
    with quiet_page(browser, **PHONE) as phone:
        root = show(phone, address, name)
        assert phone.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert root.evaluate("root => root.scrollWidth - root.clientWidth") <= 0
        controls = root.locator("button:visible, select:visible, label:has(input):visible")
        boxes = controls.evaluate_all(
            "found => found.map(e => [e.className, e.offsetWidth, e.offsetHeight])"
        )
        # The thumbnails are smaller where they are many: layer and head can be chosen by name.
        assert [box for box in boxes if "thumb" not in box[0] and min(box[1:]) < 40] == []
        assert [box for box in boxes if min(box[1:]) < 24] == []
        plot = root.locator(".gptlib-at-plot").bounding_box()
        assert plot["width"] > 200
        assert abs(plot["width"] - plot["height"]) < 1


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["single", "few", "many"])
def test_no_accessibility_violation(page: Page, address: str, name: str, theme: str) -> None:
    page.emulate_media(color_scheme=theme)
    root = show(page, address, name)
    root.locator(".gptlib-at-token").nth(2).click()
    assert violations(page) == []


def test_map_takes_the_theme_of_the_page(page: Page, address: str) -> None:
    root = show(page, address, "few")
    seen = []
    for theme in ("light", "dark", "light"):
        page.evaluate("theme => { document.body.dataset.theme = theme; }", theme)
        page.wait_for_timeout(100)
        pixels = root.locator(".gptlib-at-canvas").evaluate(PIXELS)
        seen.append((pixels[0], root.locator(".gptlib-at-thumbs-canvas").evaluate(MIDDLE_ROW)))
    assert seen[0] == seen[2]
    assert seen[0][0] != seen[1][0]
    assert seen[0][1] != seen[1][1]  # the thumbnails too
    assert sum(seen[0][0][:3]) < 300 < 600 < sum(seen[1][0][:3])  # weight 1: dark, then light


def test_tokens_are_text_and_never_run(page: Page, address: str, shown: dict[str, Shown]) -> None:
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    root = show(page, address, "few")
    labels = root.locator("tbody th").all_inner_texts()
    text = "".join(labels)
    assert "<img␣src=x␣onerror=alert(1)>⏎</script>" in text
    assert "⟨" in text  # bytes that are no whole character
    assert labels == root.locator(".gptlib-at-text").all_inner_texts()
    assert root.locator("img, script").count() == 0
    page.wait_for_timeout(100)
    assert dialogs == []


def test_page_without_a_kernel_offers_no_typing(page: Page, address: str) -> None:
    root = show(page, address, "few")
    assert root.locator("textarea").count() == 0
    expect(root.locator(".gptlib-at-input")).to_be_hidden()


def test_another_head_leaves_no_mark_of_the_last(page: Page, address: str) -> None:
    root = show(page, address, "few")
    looked_at = set()
    for head in range(4):
        picker(root, "Head").select_option(str(head))
        expect(root.locator(".gptlib-at-token.gptlib-at-on")).to_have_count(1)
        expect(root.locator(".gptlib-at-token.gptlib-at-self")).to_have_count(1)
        expect(root.locator("tbody .gptlib-at-on")).to_have_count(1)
        looked_at.add(selected(root))
    assert len(looked_at) > 1


def test_one_head_needs_no_choice(page: Page, address: str) -> None:
    root = show(page, address, "single")
    assert root.locator(".gptlib-at-thumb").count() == 0
    expect(picker(root, "Layer")).to_be_hidden()
    expect(root.locator(".gptlib-at-facts")).to_have_text("one head, 7 tokens")


def test_nothing_moves_for_who_wants_no_motion(page: Page, address: str) -> None:
    page.emulate_media(reduced_motion="reduce")
    root = show(page, address, "few")
    click(root, 3, 2)
    assert root.evaluate("root => root.getAnimations({ subtree: true }).length") == 0


# --- with a kernel ----------------------------------------------------------------------------

CELLS = [
    "import torch\n"
    "from gptlib import tokenizer\n"
    "from gptlib.config import GPTConfig\n"
    "from gptlib.model import GPT\n"
    "from gptlib.widgets import AttentionMap\n"
    "model = GPT(GPTConfig(50257, 16, 24, 3, 2), torch.Generator().manual_seed(0))\n"
    "for block in model.blocks: block.attention.query_key_value.weight.data *= 30\n"
    "chart = AttentionMap(model, 'Once upon a time', tokenizer.gpt2())\n"
    "chart",
    "print('python has', repr(chart.text), chart.layer, chart.head, chart.token, chart.step)",
    "chart.text, chart.layer = 'Hello, world', 1",
]


@tried_again
def test_in_lab_another_sentence_can_be_typed(
    notebook_page: Any,
    lab: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(test_widgets_lab, "CELLS", CELLS)
    page = notebook_page
    open_notebook(page, lab.address("lab/tree", "maps.ipynb"))
    root = run(page, 0).locator(".gptlib-at")
    area, error = root.locator("textarea"), root.locator(".gptlib-at-error")
    expect(area).to_have_value("Once upon a time")

    area.fill("")
    expect(error).to_contain_text("The text is empty")
    area.press_sequentially("The fox saw the moon", delay=10)  # as a reader types
    expect(root.locator("tbody th")).to_have_text(["The", "␣fox", "␣saw", "␣the", "␣moon"])
    expect(error).to_have_text("")
    area.fill("moon " * 20)
    expect(error).to_contain_text("context_length is 16")
    expect(root.locator("tbody th")).to_have_count(5)  # the last good map
    area.fill("The fox saw the moon")
    expect(error).to_have_text("")

    click(root, 3, 1)
    choose(root, "scaled")
    picker(root, "Head").select_option("2")
    printed = run(page, 1).locator(".jp-OutputArea-output").last
    expect(printed).to_contain_text("python has 'The fox saw the moon' 0 2 3 scaled")
    model = gpt(peaked=30, context_length=16, emb_dim=24, n_heads=3, n_layers=2)
    ids = torch.tensor([tokenizer.gpt2().encode_ordinary("The fox saw the moon")])
    steps = attention_maps(model, ids)
    for step, text in zip(STEPS, values(root), strict=True):
        check(text, float(getattr(steps, step)[0, 0, 2, 3, 1]))

    run(page, 2)
    expect(area).to_have_value("Hello, world")
    expect(root.locator("tbody th")).to_have_text(["Hello", ",", "␣world"])
    expect(picker(root, "Layer")).to_have_value("1")


# --- the mini model in the page ---------------------------------------------------------------


def test_in_a_page_the_mini_model_reads_another_text(
    page: Page, tmp_path_factory: pytest.TempPathFactory
) -> None:
    mini, stories = pretrained.load("mini"), tokenizer.stories()
    folder = tmp_path_factory.mktemp("mini")
    lone_page(folder, AttentionMap(mini, "One day Mia saw a fox.", stories, layer=1), "Attention")
    for address in serve_folder(folder):
        page.goto(address)
        root = page.locator(".gptlib-root")
        area, load = root.locator("textarea"), root.get_by_role("button", name="load the model")
        expect(area).to_have_value("One day Mia saw a fox.")
        expect(load).to_be_hidden()
        area.fill(HOSTILE[:60])
        load.click()
        expect(area).to_be_focused()
        shown = make(mini, HOSTILE[:60], stories)
        expect(root.locator("tbody tr")).to_have_count(shown.size)
        for layer, head, row, column in ((1, 0, 3, 1), (0, 2, shown.size - 1, 0), (3, 5, 2, 9)):
            picker(root, "Layer").select_option(str(layer))
            picker(root, "Head").select_option(str(head))
            click(root, row, column)
            for step, text in zip(STEPS, values(root), strict=True):
                check(text, float(getattr(shown.steps, step)[layer, head, row, column]))
        labels = labels_in(page, shown.widget.maps["tokens"])
        assert root.locator("tbody th").all_inner_texts() == labels
        area.fill("fox " * 65)
        expect(root.locator(".gptlib-at-error")).to_contain_text("but at most 128 can be shown")
        area.fill("")
        expect(root.locator(".gptlib-at-error")).to_contain_text("The text is empty")
        expect(root.locator("tbody tr")).to_have_count(shown.size)
        area.fill("One day")
        expect(root.locator("tbody th")).to_have_text(["One", "␣day"])
        expect(root.locator(".gptlib-at-error")).to_have_text("")


def labels_in(page: Page, tokens: list[str]) -> list[str]:
    """Return how the widget shows tokens."""
    found: list[str] = page.evaluate(
        """async tokens => {
          const { label } = await import("./lib/tokens.js");
          return tokens.map(label);
        }""",
        tokens,
    )
    return found
