"""The parameter breakdown in a page of its own, without a kernel, against PyTorch's counts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from gptlib import accounting
from gptlib.config import FAMILY, GPTConfig
from gptlib.model import GPT
from gptlib.widgets import ParameterBreakdown
from gptlib.widgets.parameter_breakdown import PATHS
from tests.browser.conftest import lone_page, quiet_page, serve_folder, violations

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright_api.expect
Page = playwright_api.Page

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
TIMES = "\u00d7"
WEIGHT = "blocks/attention/query_key_value/weight"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a page that holds nothing but the widget, as Python stores it."""
    folder = tmp_path_factory.mktemp("breakdown")
    widget = ParameterBreakdown("gpt2")
    lone_page(folder, widget, "Breakdown")
    yield from serve_folder(folder)


def show(page: Page, address: str) -> Any:
    page.goto(address)
    place = page.locator(".gptlib-widget")
    expect(place).to_have_class(re.compile("gptlib-mounted"))
    return place.locator(".gptlib-root")


@pytest.fixture
def root(page: Page, address: str) -> Any:
    return show(page, address)


def row(root: Any, path: str) -> Any:
    return root.locator(f'.gptlib-pb-row:has(.gptlib-pb-open[data-path="{path}"])')


def button(root: Any, path: str) -> Any:
    return root.locator(f'.gptlib-pb-open[data-path="{path}"]')


def area(root: Any, path: str) -> Any:
    return root.locator(f'.gptlib-pb-area[data-path="{path}"]')


def number(root: Any, name: str) -> Any:
    return root.locator(f'[data-field="{name}"] input[type="number"]')


def whole_number(place: Any) -> int:
    return int(place.text_content().replace(",", ""))


def enter(root: Any, name: str, value: object) -> None:
    number(root, name).fill(str(value))
    number(root, name).press("Enter")


def counts_by_pytorch(config: GPTConfig) -> dict[str, int]:
    """Count the numbers in each part of a real model, whose weights take no memory."""
    with torch.device("meta"):
        model = GPT(config)
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        parts = [part for part in name.split(".") if not part.isdigit()]
        for end in range(len(parts) + 1):
            path = "/".join(parts[:end])
            counts[path] = counts.get(path, 0) + parameter.numel()
    return counts


# --- the numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mini", "gpt2", "gpt2-xl", "gpt3"])
def test_every_part_counts_what_pytorch_counts(root: Any, name: str) -> None:
    counts = counts_by_pytorch(FAMILY[name])
    root.get_by_role("combobox", name="Model").select_option(name)
    expect(root.locator(".gptlib-pb-total b")).to_have_text(f"{counts['']:,}")
    holders = {path.rpartition("/")[0] for path in PATHS if path}
    seen = set()
    for holder in sorted(holders):
        names = holder.split("/") if holder else []
        for end in range(len(names)):
            button(root, "/".join(names[: end + 1])).click()
        for one in root.locator(".gptlib-pb-rows-of .gptlib-pb-row").all():
            path = one.locator("button").get_attribute("data-path")
            in_block = path.startswith("blocks/")
            count = whole_number(one.locator(".gptlib-pb-all" if in_block else ".gptlib-pb-each"))
            assert count == counts.get(path, 0), path
            if in_block:
                each = whole_number(one.locator(".gptlib-pb-each"))
                assert each * FAMILY[name].n_layers == count
            seen.add(path)
        assert whole_number(root.locator(".gptlib-pb-together .gptlib-pb-all")) == counts[holder]
        if holder:
            root.locator(".gptlib-pb-crumb").first.click()
    assert seen == set(PATHS) - {""}


def test_the_page_shapes_are_those_of_the_built_model(root: Any, page: Page) -> None:
    for config in (FAMILY["gpt2"], GPTConfig(n_layers=3, tie_head=False, qkv_bias=False)):
        with torch.device("meta"):
            built = {name: list(p.shape) for name, p in GPT(config).named_parameters()}
        script = "async config => (await import('./parameter_breakdown.js')).shapes(config)"
        assert page.evaluate(script, ParameterBreakdown(config).config) == built


def test_bytes_follow_the_type(root: Any) -> None:
    memory = root.get_by_role("region", name="Memory")
    config = FAMILY["gpt2"]
    titles = ("Weights", "Gradients", "Master weights", "AdamW's moments")
    for dtype in accounting.BYTES:
        memory.get_by_label("Type of a value").select_option(dtype)
        held = accounting.training_bytes(config, dtype)
        weights = accounting.format_bytes(accounting.weight_bytes(config, dtype))
        expect(memory).to_contain_text(f"The weights alone: {weights}")
        for title, count in zip(titles, held.values(), strict=True):
            head = root.page.get_by_role("rowheader", name=title, exact=True)
            line = memory.get_by_role("row").filter(has=head)
            expect(line.get_by_role("cell").last).to_have_text(accounting.format_bytes(count))
        sum_of_all = accounting.format_bytes(sum(held.values()))
        expect(memory.get_by_role("row").last).to_contain_text(sum_of_all)
        expect(root.locator(".gptlib-pb-together .gptlib-pb-bytes")).to_have_text(weights)


def test_areas_are_as_large_as_their_counts(root: Any) -> None:
    root.locator('[data-field="tie_head"] input').uncheck()
    config = GPTConfig(tie_head=False)
    whole = root.locator(".gptlib-pb-picture").bounding_box()
    for path in ("token_embedding", "blocks", "output_head"):
        box = area(root, path).bounding_box()
        share = box["width"] * box["height"] / (whole["width"] * whole["height"])
        expected = counts_by_pytorch(config)[path] / accounting.total(config)
        assert share == pytest.approx(expected, abs=0.01), path


# --- the configuration ------------------------------------------------------------------------


def test_a_configuration_is_typed_dragged_and_doubled(root: Any, page: Page) -> None:
    total = root.locator(".gptlib-pb-total b")
    enter(root, "n_layers", 24)
    expect(total).to_have_text(f"{accounting.total(GPTConfig(n_layers=24)):,}")
    expect(root.get_by_role("combobox", name="Model").locator("option:checked")).to_have_text(
        "Your own (209M)"
    )
    expect(root.locator(".gptlib-pb-ratio")).to_have_text(f"1.68 {TIMES} GPT-2 small")

    slider = root.get_by_role("slider", name="Width")
    slider.focus()
    page.keyboard.press("ArrowRight")
    width = int(number(root, "emb_dim").input_value())
    assert width > 768
    expect(slider).to_have_attribute("aria-valuetext", f"{width:,}")
    expect(total).to_have_text(f"{accounting.total(GPTConfig(n_layers=24, emb_dim=width)):,}")

    root.get_by_role("button", name="Back to GPT-2 small").click()
    expect(total).to_have_text("124,439,808")
    expect(root.get_by_role("combobox", name="Model")).to_have_value("gpt2")
    expect(root.get_by_role("combobox", name="Model")).to_be_focused()

    growth = root.get_by_role("region", name="What grows")
    doubled = {"layers": "n_layers", "width": "emb_dim", "vocabulary": "vocab_size"}
    for title, name in doubled.items():
        line = growth.get_by_role("row").filter(has_text=title)
        config = GPTConfig(**{name: 2 * getattr(GPTConfig(), name)})
        factor = accounting.total(config) / 124_439_808
        expect(line.get_by_role("cell").last).to_have_text(f"{TIMES} {factor:.2f}")
        line.get_by_role("button", name=f"Double {title}").click()
        expect(total).to_have_text(f"{accounting.total(config):,}")
        root.get_by_role("button", name="Back to GPT-2 small").click()


def test_from_124m_to_175b_and_the_start_is_still_there_to_compare(root: Any) -> None:
    root.get_by_role("combobox", name="Model").select_option("gpt3")
    expect(root.locator(".gptlib-pb-total")).to_contain_text("174,604,259,328 parameters ≈ 175B")
    expect(root.locator(".gptlib-pb-ratio")).to_have_text(f"1,403 {TIMES} GPT-2 small")
    since = root.get_by_role("row").filter(has_text="Since the start")
    expect(since.get_by_role("cell").last).to_have_text(f"{TIMES} 1,403")
    now, ghost = (
        root.locator(".gptlib-pb-scale > span").nth(i).bounding_box()["width"] for i in (0, 1)
    )
    assert ghost < now / 100


def test_what_is_wrong_is_one_line_and_the_last_good_picture_stays(root: Any) -> None:
    error = root.get_by_role("alert")
    before = area(root, "blocks").bounding_box()
    tried = {
        ("emb_dim", "770"): "emb_dim must be divisible by n_heads, but 770 % 12 = 2",
        ("n_layers", "0"): "n_layers must be a whole number of at least 1, not 0",
        ("n_layers", "5000"): "n_layers must be at most 1,000 here, not 5000",
        ("vocab_size", ""): "vocab_size must be a whole number of at least 1, not ''",
        ("n_heads", "1.5"): "n_heads must be a whole number of at least 1, not 1.5",
    }
    for (name, value), words in tried.items():
        good = number(root, name).input_value()
        enter(root, name, value)
        expect(error).to_have_text(words)
        expect(number(root, name)).to_have_attribute("aria-invalid", "true")
        expect(root.locator(".gptlib-pb-total b")).to_have_text("124,439,808")
        after = area(root, "blocks").bounding_box()
        assert (after["width"], after["height"]) == (before["width"], before["height"])
        enter(root, name, good)
        expect(error).to_be_empty()
    enter(root, "emb_dim", 770)
    expect(error).not_to_be_empty()
    enter(root, "n_heads", 10)  # two steps that are right only together
    expect(error).to_be_empty()
    config = GPTConfig(emb_dim=770, n_heads=10)
    expect(root.locator(".gptlib-pb-total b")).to_have_text(f"{accounting.total(config):,}")


def test_what_a_model_lacks_stays_in_the_table(root: Any) -> None:
    expect(row(root, "output_head")).to_contain_text("tied to the token embedding")
    expect(area(root, "output_head")).to_be_hidden()
    root.locator('[data-field="tie_head"] input').uncheck()
    expect(row(root, "output_head")).to_contain_text("38,597,376")
    expect(area(root, "output_head")).to_be_visible()
    root.locator('[data-field="qkv_bias"] input').uncheck()
    expect(root.locator(".gptlib-pb-total b")).to_have_text("163,009,536")
    for path in ("blocks", "blocks/attention", "blocks/attention/query_key_value"):
        button(root, path).click()
    expect(row(root, "blocks/attention/query_key_value/bias")).to_contain_text("qkv_bias is off")


# --- by mouse, keyboard and touch -------------------------------------------------------------


def test_areas_open_by_mouse_down_to_a_matrix(root: Any) -> None:
    steps = ["blocks", "blocks/attention", "blocks/attention/query_key_value", WEIGHT]
    for path in steps:
        target = area(root, path)
        target.hover(position={"x": 8, "y": 8})
        expect(row(root, path)).to_have_class(re.compile("gptlib-pb-lit"))
        target.click(position={"x": 8, "y": 8})
    leaf = root.locator(".gptlib-pb-leaf")
    expect(leaf).to_contain_text(f"2,304 {TIMES} 768 = 1,769,472")
    expect(leaf).to_contain_text("blocks.0.attention.query_key_value.weight")
    expect(leaf).to_contain_text("(B, T, 768) → (B, T, 2304)")
    sheet = root.locator(".gptlib-pb-sheet").bounding_box()
    assert sheet["height"] / sheet["width"] == pytest.approx(3, rel=0.05)
    crumbs = root.get_by_role("navigation").get_by_role("listitem")
    words = ["Whole model", "Transformer blocks", "Attention", "Query, key, value", "Weight"]
    expect(crumbs).to_have_text(words)
    crumbs.nth(1).get_by_role("button").click()
    expect(crumbs).to_have_count(2)
    expect(button(root, "blocks/attention")).to_be_focused()


def test_parts_open_by_keyboard(root: Any, page: Page) -> None:
    root.locator('[data-field="tie_head"] input').focus()
    page.keyboard.press("Tab")
    expect(button(root, "token_embedding")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    expect(button(root, "blocks")).to_be_focused()
    expect(area(root, "blocks")).to_have_class(re.compile("gptlib-pb-lit"))
    page.keyboard.press("Enter")
    expect(button(root, "blocks/norm_1")).to_be_focused()
    page.keyboard.press("End")
    expect(button(root, "blocks/feed_forward")).to_be_focused()
    page.keyboard.press("ArrowDown")  # there is nothing after the last
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(root.locator(".gptlib-pb-leaf")).to_contain_text("1,769,472")
    expect(button(root, WEIGHT)).to_be_focused()
    expect(button(root, WEIGHT)).to_have_attribute("aria-current", "true")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(root.locator(".gptlib-pb-leaf")).to_contain_text("(2304,)")
    page.keyboard.press("Escape")
    expect(button(root, "blocks/attention/query_key_value/bias")).to_be_focused()
    page.keyboard.press("Backspace")
    expect(button(root, "blocks/attention/query_key_value")).to_be_focused()
    page.keyboard.press("Escape")
    expect(button(root, "blocks/attention")).to_be_focused()
    page.keyboard.press("Escape")
    expect(button(root, "blocks")).to_be_focused()
    page.keyboard.press("Escape")  # there is nothing above the model
    expect(button(root, "blocks")).to_be_focused()
    assert root.locator('.gptlib-pb-open[tabindex="0"]').count() == 1


def test_keys_in_a_notebook_belong_to_the_control_that_has_the_focus(root: Any) -> None:
    button(root, "blocks").click()
    for kind in ("button", "input", "select"):
        assert root.locator(kind).count() > 1
        assert root.locator(f"{kind}:not([data-lm-suppress-shortcuts])").count() == 0


def test_what_opens_and_what_changes_is_said(root: Any) -> None:
    said = root.get_by_role("status")
    root.page.wait_for_timeout(700)
    expect(said).to_be_empty()
    button(root, "blocks").click()
    expect(said).to_have_text("Transformer blocks: 85,054,464 parameters of 124,439,808")
    enter(root, "n_layers", 24)
    expect(said).to_have_text("Transformer blocks: 170,108,928 parameters of 209,494,272")


def test_screen_readers_find_a_table_behind_the_picture(root: Any) -> None:
    table = root.get_by_role("table", name="Parts of: Whole model")
    heads = ["Part", "Formula", "Parameters", "Share", "as float32"]
    expect(table.get_by_role("columnheader")).to_have_text(heads)
    rows = table.get_by_role("row")
    expect(rows).to_have_count(7)
    embedding = rows.nth(1)
    expect(embedding.get_by_role("rowheader")).to_have_text("Token embedding")
    cells = ["V · C", "38,597,376", "31.0%", "147.2 MiB"]
    expect(embedding.get_by_role("cell")).to_have_text(cells)
    assert root.locator(".gptlib-pb-picture").get_attribute("aria-hidden") == "true"


@pytest.fixture
def phone(browser: Any, address: str) -> Iterator[Any]:
    with quiet_page(browser, **PHONE) as page:
        yield show(page, address)


def test_on_a_phone_areas_open_by_touch_and_nothing_scrolls_sideways(phone: Any) -> None:
    page = phone.page

    def sideways() -> int:
        return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))

    for model in ("gpt3", "gpt2"):
        phone.get_by_role("combobox", name="Model").select_option(model)
        assert sideways() <= 0
        for path in ("blocks", "blocks/attention", "blocks/attention/query_key_value", WEIGHT):
            area(phone, path).tap(position={"x": 8, "y": 8})
            assert sideways() <= 0, path
            assert phone.evaluate("root => root.scrollWidth - root.clientWidth") <= 0, path
        expect(phone.locator(".gptlib-pb-leaf")).to_be_visible()
        phone.locator(".gptlib-pb-crumb").first.tap()
    button(phone, "final_norm").tap()  # no finger can hit its area
    expect(button(phone, "final_norm/scale")).to_be_visible()
    for kind in ("button", "select", 'input[type="number"]', 'input[type="range"]', "label"):
        found = phone.locator(f"{kind}:visible").evaluate_all(
            "found => found.filter(e => e.offsetHeight && e.className !== 'gptlib-pb-label')"
            ".map(e => [e.className, e.offsetWidth, e.offsetHeight])"
        )
        assert [one for one in found if min(one[1:]) < 40] == [], kind


def test_a_slider_stays_under_the_finger_that_moves_it(phone: Any) -> None:
    slider = phone.get_by_role("slider", name="Layers")
    before = slider.bounding_box()["y"]
    slider.focus()
    phone.page.keyboard.press("ArrowRight")
    assert slider.bounding_box()["y"] == before


# --- light, dark, motion, accessibility -------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_no_accessibility_violation(page: Page, address: str, theme: str, width: int) -> None:
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 800})
    root = show(page, address)

    def check() -> None:
        page.wait_for_timeout(300)  # until the picture has opened
        assert violations(page, context=".gptlib-mounted") == []

    check()
    enter(root, "emb_dim", 770)
    check()
    root.get_by_role("combobox", name="Model").select_option("gpt3")
    button(root, "blocks").click()
    check()
    for path in ("blocks/attention", "blocks/attention/query_key_value", WEIGHT):
        button(root, path).click()
    check()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_on_the_areas_can_be_read(page: Page, address: str, theme: str) -> None:
    """The picture is hidden from screen readers, and so from axe: its contrast is measured here."""
    page.emulate_media(color_scheme=theme)
    root = show(page, address)
    root.locator('[data-field="tie_head"] input').uncheck()
    ratios = root.evaluate(CONTRAST)
    button(root, "blocks").click()
    page.wait_for_timeout(300)
    ratios += root.evaluate(CONTRAST)
    assert len(ratios) >= 5
    assert min(ratios) >= 4.5


CONTRAST = """root => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const light = color => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return [...root.querySelectorAll(".gptlib-pb-area:not([hidden]), .gptlib-pb-inner")].map(e => {
    const style = getComputedStyle(e);
    const [a, b] = [light(style.color), light(style.backgroundColor)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
}"""


def test_nothing_moves_for_who_wants_no_motion(page: Page, address: str) -> None:
    opened = """async root => {
      root.querySelector('.gptlib-pb-open[data-path="blocks"]').click();
      await null; // until it is drawn
      return root.getAnimations({ subtree: true }).length;
    }"""
    for motion, moves in (("no-preference", True), ("reduce", False)):
        page.emulate_media(reduced_motion=motion)
        assert (show(page, address).evaluate(opened) > 0) == moves


def test_the_widget_leaves_the_page_without_a_trace(root: Any, page: Page) -> None:
    script = "async () => (await import('./page/host.js')).unmount(document.querySelector('%s'))"
    page.evaluate(script % ".gptlib-widget")
    assert page.locator(".gptlib-root").count() == 0
    expect(page.locator(".gptlib-fallback")).to_be_visible()
