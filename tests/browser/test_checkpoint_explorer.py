"""The checkpoint explorer in a page of its own, without a kernel, against the file itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from gptlib import pretrained
from gptlib.config import GPTConfig
from gptlib.model import GPT
from gptlib.widgets import CheckpointExplorer, page
from tests.browser.conftest import page_html, quiet_page, serve_folder, violations

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright_api.expect
Page = playwright_api.Page

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
ODD = "<img src=x onerror=alert(1)>"


def odd_file(folder: Path) -> Path:
    """A small file that `load` refuses: NaN, an unknown tensor, a mask, two types."""
    model = GPT(GPTConfig(64, 16, 16, 2, 2, 0.0), torch.Generator().manual_seed(0))
    tensors = pretrained.to_gpt2(model)
    for name, tensor in tensors.items():
        if name.endswith("c_attn.bias"):
            tensor.copy_(torch.linspace(-1, 3, len(tensor)))
    tensors["transformer.h.1.mlp.c_fc.weight"][3, 3] = torch.nan
    tensors["transformer.h.1.attn.bias"] = torch.ones(1, 1, 16, 16)
    tensors[ODD] = torch.arange(8)
    save_file(tensors, folder / "odd.safetensors")
    return folder / "odd.safetensors"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a page for the mini model, as Python stores it, and one for an odd file."""
    folder = tmp_path_factory.mktemp("explorer")
    page.write_files(folder)
    for name, place in (("index", "mini"), ("odd", odd_file(folder))):
        widget = CheckpointExplorer(place)
        placed = page.widget_html(widget._module, widget.state(), widget.describe())
        style = "<style>main { margin: auto }</style>"
        (folder / f"{name}.html").write_text(page_html("Explorer", style + placed), "utf-8")
    yield from serve_folder(folder)


def show(page: Page, address: str, name: str = "index") -> Any:
    page.goto(f"{address}{name}.html")
    place = page.locator(".gptlib-widget")
    expect(place).to_have_class(re.compile("gptlib-mounted"))
    return place.locator(".gptlib-root")


def item(root: Any, label: str) -> Any:
    return root.locator(f'[role="treeitem"][aria-label^="{label},"]')


def fact(root: Any, title: str) -> Any:
    pair = root.locator(".gptlib-ce-facts > div").filter(has=root.page.get_by_text(title))
    return pair.locator("dd")


def pixel(root: Any, i: int, j: int) -> list[int]:
    """Return the color of a cell of the picture."""
    script = """(canvas, [i, j]) =>
      [...canvas.getContext("2d").getImageData(j, i, 1, 1).data]"""
    found: list[int] = root.locator("canvas").evaluate(script, [i, j])
    return found


def test_the_tree_by_keyboard(page: Page, address: str) -> None:
    root = show(page, address)
    tree = root.get_by_role("tree", name="Tensors")
    items = tree.get_by_role("treeitem")
    expect(items).to_have_count(20)  # two, four blocks of which one is open with twelve, two
    root.get_by_role("searchbox").press("ArrowDown")
    expect(item(root, "wte.weight")).to_be_focused()
    for key, label in (
        ("ArrowDown", "wpe.weight"),
        ("ArrowDown", "h.0"),
        ("ArrowRight", "ln_1.weight"),
        ("ArrowDown", "ln_1.bias"),
        ("ArrowLeft", "h.0"),
        ("ArrowLeft", "h.0"),  # which closes it
        ("ArrowDown", "h.1"),
        ("Enter", "h.1"),  # which opens it
        ("ArrowRight", "ln_1.weight"),
        ("End", "ln_f.bias"),
        ("Home", "wte.weight"),
    ):
        page.keyboard.press(key)
        expect(item(root, label)).to_be_focused()
        assert tree.locator('[tabindex="0"]').count() == 1
    expect(item(root, "h.0")).to_have_attribute("aria-expanded", "false")
    expect(item(root, "h.1")).to_have_attribute("aria-expanded", "true")
    expect(items).to_have_count(20)
    expect(tree.locator('[aria-selected="true"]')).to_have_count(1)
    expect(root.locator(".gptlib-ce-hidden")).to_have_text(re.compile("^wte.weight: mean \u2212?0"))
    item(root, "h.1").click()
    expect(items).to_have_count(8)
    for kind in ("button", "input", '[role="treeitem"]'):
        assert root.locator(f"{kind}:not([data-lm-suppress-shortcuts])").count() == 0


def test_a_tensor_in_numbers_and_as_a_picture(page: Page, address: str) -> None:
    root = show(page, address)
    item(root, "attn.c_attn.weight").click()
    expect(root.locator(".gptlib-ce-tensor")).to_have_text("h.0.attn.c_attn.weight")
    ours = "blocks.0.attention.query_key_value.weight"
    expect(root.locator(".gptlib-ce-ours")).to_have_text(f"ours: {ours}")
    expect(root.locator(".gptlib-ce-order")).to_have_text(
        "Stored transposed: 192 \u00d7 576 in the file, 576 \u00d7 192 in our model."
    )
    weight = pretrained.load("mini").get_parameter(ours).detach().T
    for title, text in {"Shape": "192 \u00d7 576", "Type": "F16", "Values": "110,592"}.items():
        expect(fact(root, title)).to_have_text(text)
    spread = {"deviation": weight.std(), "Smallest": weight.min(), "Largest": weight.max()}
    for title, value in spread.items():
        number = float(fact(root, title).inner_text().replace("\u2212", "-"))
        assert number == pytest.approx(float(value), rel=0.006)
    expect(root.locator(".gptlib-ce-panel rect")).to_have_count(40)

    averages = torch.stack(
        [
            torch.stack([part.mean() for part in band.tensor_split(55, 1)])
            for band in weight.tensor_split(18)
        ]
    )
    place = divmod(int(averages.argmax()), 55)
    red, _, blue, alpha = pixel(root, *place)
    assert (alpha, red > blue) == (255, averages.max() > 0)
    red, _, blue, _ = pixel(root, *divmod(int(averages.argmin()), 55))
    assert blue > red
    root.locator("canvas").scroll_into_view_if_needed()
    box = root.locator("canvas").bounding_box()
    x = box["x"] + box["width"] * (place[1] + 0.5) / 55
    page.mouse.move(x, box["y"] + box["height"] * (place[0] + 0.5) / 18)
    number = root.locator(".gptlib-ce-look .gptlib-ce-cell").inner_text().rpartition(": ")[2]
    assert float(number) == pytest.approx(float(averages.max()), rel=0.03)
    root.locator(".gptlib-ce-chart").first.scroll_into_view_if_needed()
    bar = root.locator(".gptlib-ce-panel rect").nth(20).bounding_box()
    page.mouse.move(bar["x"] + bar["width"] / 2, bar["y"] + bar["height"] / 2)
    expect(root.locator(".gptlib-ce-panel .gptlib-ce-cell")).to_have_text(
        re.compile(r" to .*: \d+\.\d+% of the values$")
    )
    root.locator(".gptlib-ce-place").nth(2).click()
    expect(root.locator(".gptlib-ce-tensor")).to_have_text("h.2.attn.c_attn.weight")
    expect(item(root, "h.2")).to_have_attribute("aria-expanded", "true")


def test_a_search_unfolds_what_it_finds(page: Page, address: str) -> None:
    root = show(page, address)
    search = root.get_by_role("searchbox", name="Find tensors")
    search.fill("transposed")
    expect(root.locator(".gptlib-ce-finder [role=status]")).to_have_text("16 of 52 tensors")
    expect(root.get_by_role("treeitem")).to_have_count(4 + 16)
    search.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(root.locator(".gptlib-ce-tensor")).to_have_text("h.0.attn.c_attn.weight")
    search.fill("no such thing")
    expect(root.locator(".gptlib-ce-none")).to_have_text("No tensor has “no such thing”.")
    search.fill("")
    expect(root.get_by_role("treeitem")).to_have_count(20)


def test_nothing_below_moves_from_tensor_to_tensor(page: Page, address: str) -> None:
    root = show(page, address)
    heights = root.evaluate("""async root => {
      const items = [...root.querySelectorAll('[role="treeitem"]:not([aria-expanded])')];
      const heights = [];
      for (const item of items) {
        item.click();
        await null; // it is drawn when the click is over
        heights.push(root.offsetHeight);
      }
      return heights;
    }""")
    assert max(heights) - min(heights) <= 1


def test_a_choice_is_drawn_within_a_frame(page: Page, address: str) -> None:
    root = show(page, address)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})  # not what others take

    def seconds() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))

    before = seconds()
    root.evaluate("""async root => {
      for (const item of root.querySelectorAll('[role="treeitem"]:not([aria-expanded])')) {
        item.click();
        await null; // it is drawn when the click is over
        root.getBoundingClientRect(); // styles and layout too
      }
    }""")
    each = (seconds() - before) / 16
    print(f"a choice takes {1000 * each:.1f} ms")
    assert each < 0.016
    page.wait_for_timeout(600)  # until it is spoken of
    page.evaluate(
        "window.changes = 0; new MutationObserver(found => { changes += found.length; }).observe("
        "document.querySelector('.gptlib-root'), { subtree: true, childList: true,"
        " attributes: true, characterData: true });"
    )
    page.wait_for_timeout(150)
    assert page.evaluate("changes") == 0


def test_a_file_that_load_refuses_shows_what_is_wrong(page: Page, address: str) -> None:
    root = show(page, address, "odd")
    expect(root.locator(".gptlib-ce-notes")).to_contain_text("Left out: 1 mask (1.0 KiB, ")
    item(root, "h.1").click()
    item(root, "mlp.c_fc.weight").last.click()
    expect(root.locator(".gptlib-ce-odd")).to_have_text(
        "Of 1,024 values, 1 not a number (NaN). They are left out below."
    )
    assert item(root, "mlp.c_fc.weight").last.locator(".gptlib-ce-wrong").inner_text() == "NaN"
    assert pixel(root, 3, 3)[:3] == [166, 77, 128]
    item(root, "ln_1.weight").last.click()  # all ones: a new model's
    expect(root.locator(".gptlib-ce-panel .gptlib-ce-cell")).to_have_text("All values are 1.00.")
    item(root, "attn.c_attn.bias").last.click()
    expect(fact(root, "Mean")).to_have_text("1.00")
    root.get_by_role("treeitem").last.click()
    expect(root.locator(".gptlib-ce-tensor")).to_have_text(ODD)
    expect(root.locator(".gptlib-ce-about")).to_have_text("GPT-2 has no tensor of this name.")
    assert root.locator("img").count() == 0


@pytest.mark.parametrize("name", ["index", "odd"])
def test_any_screen_any_reader(browser: Any, address: str, name: str) -> None:
    phone = name == "index"
    options = PHONE if phone else {"viewport": {"width": 1280, "height": 800}}
    with quiet_page(browser, **options, reduced_motion="reduce") as page:
        root = show(page, address, name)
        line = item(root, "mlp.c_fc.weight").first
        if phone:
            line.tap()
        else:
            line.click()
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert root.evaluate("root => root.scrollWidth - root.clientWidth") <= 0
        if phone:
            controls = root.locator('[role="treeitem"]:visible, input:visible')
            heights = controls.evaluate_all("found => found.map(e => e.offsetHeight)")
            assert min(heights) >= 44
            panel, tree = (
                root.locator(f".gptlib-ce-{part}").bounding_box() for part in ("panel", "browse")
            )
            assert panel["y"] > tree["y"] + tree["height"]
        colors = []
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme, reduced_motion="reduce")
            page.wait_for_timeout(50)
            colors.append(pixel(root, 0, 0))
            assert violations(page) == []
        assert colors[0] != colors[1]
