"""The training-cost calculator in a page of its own, without a kernel, against accounting."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from gptlib import accounting
from gptlib.config import FAMILY, GPTConfig
from gptlib.widgets import TrainingCost
from tests.browser.conftest import lone_page, quiet_page, serve_folder, violations

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright_api.expect
Page = playwright_api.Page

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a page that holds nothing but the widget, as Python stores it."""
    folder = tmp_path_factory.mktemp("cost")
    widget = TrainingCost("gpt2", n_tokens=10**10, device="h100", n_devices=4, utilization=0.4)
    lone_page(folder, widget, "Cost")
    yield from serve_folder(folder)


def show(page: Page, address: str) -> Any:
    page.goto(address)
    place = page.locator(".gptlib-widget")
    expect(place).to_have_class(re.compile("gptlib-mounted"))
    return place.locator(".gptlib-root")


@pytest.fixture
def root(page: Page, address: str) -> Any:
    return show(page, address)


def figure(root: Any, name: str) -> Any:
    return root.get_by_role("region", name=name, exact=True).locator(".gptlib-tc-figure b")


def number(place: Any) -> float:
    return float(place.text_content().replace(",", ""))


def box(root: Any, name: str) -> Any:
    return root.locator(f'[data-field="{name}"] input:not([type="range"])')


def enter(root: Any, name: str, value: object) -> None:
    box(root, name).fill(str(value))
    box(root, name).press("Enter")


def press(root: Any, name: str) -> Any:
    return root.get_by_role("group", name="Examples").get_by_role("button", name=name)


def test_one_click_gives_the_years_of_lambda_s_estimate(root: Any) -> None:
    for name, years in {"GPT-3 on one V100": 355, "GPT-3 on one RTX 8000": 665}.items():
        press(root, name).click()
        expect(press(root, name)).to_have_attribute("aria-pressed", "true")
        expect(root.locator(".gptlib-tc-says")).to_contain_text(f"{years} years")
        assert number(figure(root, "On one device")) == pytest.approx(years, rel=0.01)
        assert number(figure(root, "On the wall clock")) == pytest.approx(years * 365.25, rel=0.01)
        expect(figure(root, "FLOPs")).to_have_text(re.compile(r"^3\.14 . 10²³$"))
        expect(root.locator(".gptlib-tc-fits")).to_contain_text("Does not fit")
    enter(root, "n_devices", 2)
    expect(root.locator('[data-preset][aria-pressed="true"]')).to_have_count(0)
    expect(root.locator(".gptlib-tc-says")).to_have_text("Your own settings.")


def test_figures_are_those_of_accounting(root: Any) -> None:
    config, n_tokens = FAMILY["gpt2"], 10**10

    def check(flops: float, flops_per_second: float, share: float, n: int, price: float) -> None:
        seconds = accounting.training_seconds(flops, flops_per_second, share, n)
        days = figure(root, "On the wall clock")
        expect(days).not_to_be_empty()
        assert number(days) == pytest.approx(seconds / 86_400, rel=1e-3)
        expected = accounting.training_price(seconds, n, price)
        assert number(figure(root, "Price")) == pytest.approx(expected, rel=1e-3)

    rule = accounting.six_nd_flops(accounting.total(config), n_tokens)
    check(rule, 989.5e12, 0.4, 4, 1)
    root.get_by_label("How FLOPs are counted").select_option("products")
    check(accounting.run_flops(config, n_tokens), 989.5e12, 0.4, 4, 1)
    enter(root, "n_tokens", "0.3 trillion")
    enter(root, "n_devices", "1,024")
    enter(root, "utilization", "50")
    enter(root, "flops_per_second", "100")
    enter(root, "price_per_device_hour", "2.5")
    check(accounting.run_flops(config, 300 * 10**9), 1e14, 0.5, 1024, 2.5)
    tile = root.get_by_role("region", name="On one device")
    expect(tile).to_contain_text("100 TFLOP/s: your own figure. 50% of it used.")
    root.get_by_role("combobox", name="Device").select_option("a100")
    expect(box(root, "flops_per_second")).to_have_value("312")
    check(accounting.run_flops(config, 300 * 10**9), 312e12, 0.5, 1024, 2.5)


def test_memory_follows_the_type_and_the_shards(root: Any) -> None:
    memory = root.get_by_role("region", name="Memory of each device")
    together = memory.get_by_role("row").last.get_by_role("cell").last
    held = accounting.training_bytes(FAMILY["gpt2"])
    expect(together).to_have_text(accounting.format_bytes(sum(held.values())))
    expect(root.locator(".gptlib-tc-fits")).to_contain_text("Fits: H100 has 80 GiB")
    memory.get_by_label("Sharded over all devices").check()
    held = accounting.sharded_bytes(accounting.training_bytes(FAMILY["gpt2"]), 4)
    expect(together).to_have_text(accounting.format_bytes(sum(held.values())))
    expect(memory).to_contain_text("cut into 4 equal shares")
    memory.get_by_label("Type of weights and gradients").select_option("bfloat16")
    expect(memory.get_by_role("row").nth(3)).to_contain_text("Master weights")
    expect(memory.get_by_role("row").nth(3).get_by_role("cell").first).to_have_text("4")


def test_the_model_s_numbers_are_the_reader_s(root: Any) -> None:
    root.get_by_text("The model's numbers").click()
    enter(root, "n_layers", 24)
    expect(root.get_by_role("combobox", name="Model").locator("option:checked")).to_have_text(
        "Your own (209M)"
    )
    flops = root.get_by_role("region", name="FLOPs", exact=True)
    expect(flops).to_contain_text(f"{accounting.total(GPTConfig(n_layers=24)):,} parameters")
    enter(root, "emb_dim", 770)
    error = root.get_by_role("alert")
    expect(error).to_have_text("emb_dim must be divisible by n_heads, but 770 % 12 = 2")
    expect(box(root, "emb_dim")).to_have_attribute("aria-invalid", "true")
    enter(root, "emb_dim", 768)
    expect(error).to_be_empty()


def test_what_is_wrong_is_one_line_and_the_last_good_figures_stay(root: Any) -> None:
    before = figure(root, "On the wall clock").text_content()
    for name, value, words in (
        ("n_tokens", "many", "Tokens must be a whole number of at least 1"),
        ("utilization", "120", "Utilization must be at most 100 here"),
        ("n_devices", "", "Devices must be a whole number of at least 1"),
        ("price_per_device_hour", "-1", "Price must be a number at least 0"),
    ):
        good = box(root, name).input_value()
        enter(root, name, value)
        expect(root.get_by_role("alert")).to_have_text(words)
        expect(box(root, name)).to_have_attribute("aria-invalid", "true")
        expect(figure(root, "On the wall clock")).to_have_text(before)
        enter(root, name, good)
        expect(root.get_by_role("alert")).to_be_empty()


def test_by_keyboard_sliders_move_and_presets_are_pressed(root: Any, page: Page) -> None:
    slider = root.get_by_role("slider", name="Devices")
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(box(root, "n_devices")).to_have_value("8")
    expect(slider).to_have_attribute("aria-valuetext", "8")
    expect(root.get_by_role("slider", name="Speed")).to_have_attribute(
        "aria-valuetext", "989.5 TFLOP/s"
    )
    press(root, "Mini on a laptop").focus()
    page.keyboard.press("Space")
    expect(press(root, "Mini on a laptop")).to_be_focused()
    expect(root.get_by_role("combobox", name="Model")).to_have_value("mini")
    expect(root.get_by_role("status")).to_contain_text("device-years")
    for kind in ("button", "input", "select", "summary"):
        assert root.locator(f"{kind}:not([data-lm-suppress-shortcuts])").count() == 0


@pytest.fixture
def phone(browser: Any, address: str) -> Iterator[Any]:
    with quiet_page(browser, **PHONE) as page:
        yield show(page, address)


def test_on_a_phone_all_can_be_touched_and_nothing_scrolls_sideways(phone: Any) -> None:
    phone.get_by_text("The model's numbers").tap()
    for preset in ("GPT-3 on one RTX 8000", "GPT-3 on 1,024 A100", "Mini on a laptop"):
        press(phone, preset).tap()
        expect(press(phone, preset)).to_have_attribute("aria-pressed", "true")
        page = phone.page
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert phone.evaluate("root => root.scrollWidth - root.clientWidth") <= 0, preset
    for kind in ("button", "select", "summary", "input"):
        found = phone.locator(f"{kind}:visible:not([type=checkbox])").evaluate_all(
            "found => found.map(e => [e.outerHTML, e.offsetWidth, e.offsetHeight])"
        )
        assert [one for one in found if min(one[1:]) < 39.5] == [], kind


def test_reduced_motion_stops_the_marks_from_gliding(page: Page, address: str) -> None:
    page.emulate_media(reduced_motion="reduce")
    root = show(page, address)
    mark = root.locator(".gptlib-tc-scale > .gptlib-tc-together")
    assert mark.evaluate("mark => getComputedStyle(mark).transitionDuration") == "0s"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_no_accessibility_violation(page: Page, address: str, theme: str, width: int) -> None:
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 800})
    root = show(page, address)
    root.get_by_text("The model's numbers").click()
    press(root, "GPT-3 on one V100").click()
    enter(root, "utilization", "0")
    expect(root.get_by_role("alert")).not_to_be_empty()
    assert violations(page, context=".gptlib-mounted") == []
