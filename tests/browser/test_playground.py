"""The playground in a page, with the real model: it writes, shows what it weighed, never breaks."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from gptlib import pretrained, tokenizer
from gptlib.widgets import engine
from gptlib.widgets.playground import Playground
from tests.browser.conftest import lone_page, quiet_page, serve_folder, violations

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright_api.expect
Page = playwright_api.Page

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
END = tokenizer.stories().eot_token


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("playground")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the browser needs the other one
    lone_page(folder, Playground(), "Playground")
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    yield from serve_folder(folder)


def show(page: Page, address: str) -> Any:
    page.goto(address)
    place = page.locator(".gptlib-widget")
    expect(place).to_have_class(re.compile("gptlib-mounted"))
    return place.locator(".gptlib-root")


def button(root: Any, name: str) -> Any:
    return root.get_by_role("button", name=name, exact=True)


def text_of(root: Any) -> str:
    return str(root.locator(".gptlib-pg-text").text_content()).removeprefix("start")


def drawn(root: Any) -> None:
    """Wait until what was clicked is on the screen: the widget draws in the next frame."""
    root.page.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )


def stop(root: Any) -> None:
    """Stop the writing and wait until it has stopped."""
    button(root, "Stop").click()
    expect(button(root, "Stop")).to_have_count(0, timeout=20_000)
    drawn(root)


def wait_for_text(root: Any, length: int) -> None:
    """Wait until the model, which may have to be loaded, has written so much."""
    caption = root.locator(".gptlib-pg-caption")
    expect(caption).not_to_contain_text("An example", timeout=20_000)
    root.page.wait_for_function(
        "n => document.querySelector('.gptlib-pg-text').textContent.length >= n", arg=length
    )


def tokens_of(root: Any) -> list[tuple[str, float]]:
    """Return each token's text and the loss that it is labeled with."""
    found = root.locator(".gptlib-pg-tok").evaluate_all(
        """found => found.map((one, i) => {
          const between = document.createRange();
          if (i) between.setStartAfter(found[i - 1]);
          else between.setStart(one.parentNode, 0);
          between.setEndBefore(one);
          // The line break after the end of a story is no part of the next one's first token.
          const tail = i && found[i - 1].classList.contains("gptlib-pg-end") ? 1 : 0;
          const text = between.toString().slice(tail) + one.textContent;
          return [text, one.getAttribute("aria-label"), one.classList.contains("gptlib-pg-begin")];
        }).filter(([, , begins]) => !begins)"""
    )
    return [
        (text, float(re.findall(r"([\d.]+|Infinity) nats", label)[0])) for text, label, _ in found
    ]


def write(root: Any, prompt: str, *, length: int = 0) -> None:
    """Write as fast as it goes, and stop once there are so many characters."""
    if button(root, "Start again").is_visible():
        button(root, "Start again").click()
        expect(root.locator(".gptlib-pg-tok")).to_have_count(0)
    root.get_by_role("checkbox", name="Fast").check()
    root.get_by_role("textbox", name="The beginning").fill(prompt)
    button(root, "Write").click()
    wait_for_text(root, length)
    if length:
        stop(root)
    expect(button(root, "Stop")).to_have_count(0, timeout=20_000)


def test_before_it_is_loaded(page: Page, address: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    root = show(page, address)
    expect(root.locator(".gptlib-pg-caption")).to_contain_text("An example")
    expect(root.locator(".gptlib-pg-status")).to_have_text("Loads the model once: 4.4 MB.")
    assert text_of(root).startswith("Once upon a time")
    token = root.locator(".gptlib-pg-tok").nth(6)
    token.click()
    expect(token).to_have_attribute("aria-pressed", "true")
    expect(root.locator(".gptlib-pg-place")).to_contain_text("Here stands")
    expect(root.locator(".gptlib-pg-here")).to_have_count(1)
    assert not any("safetensors" in url or "worker" in url for url in asked)

    before = [text for text, _ in tokens_of(root)][:5]
    other = root.locator(".gptlib-pg-row:not(.gptlib-pg-here)").first
    name = other.locator(".gptlib-pg-token").inner_text()
    other.click()  # which loads the model
    wait_for_text(root, 80)
    stop(root)
    found = [text for text, _ in tokens_of(root)]
    assert found[:5] == before
    assert found[5] == name.replace("␣", " ")
    expect(root.locator(".gptlib-pg-caption")).to_be_empty()


def test_the_same_seed_writes_the_same_text_with_pytorchs_losses(page: Page, address: str) -> None:
    root = show(page, address)
    write(root, "Once upon a time", length=300)
    first = text_of(root)
    button(root, "Continue").click()
    wait_for_text(root, 420)
    stop(root)
    longer = text_of(root)
    assert longer.startswith(first)

    found = tokens_of(root)
    encoding = tokenizer.stories()
    written = [text.replace("end of the story", "<|endoftext|>") for text, _ in found]
    ids = torch.tensor([[END, *map(encoding.encode_single_token, written)]])
    with torch.no_grad():
        logits = pretrained.load("mini")(ids)[0]
    losses = functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none")
    assert torch.tensor([loss for _, loss in found]) == pytest.approx(losses, abs=0.01)
    words = root.locator('[data-part="surprise"] .gptlib-pg-words').inner_text()
    assert f"{float(losses.sum()):.1f} nats" in words

    button(root, "Start again").click()
    drawn(root)
    assert text_of(root) == ""
    write(root, "Once upon a time", length=400)  # at one go
    again = text_of(root)
    shorter = min(len(again), len(longer))
    assert again[:shorter] == longer[:shorter]
    button(root, "Another one").click()
    wait_for_text(root, 100)
    stop(root)
    assert text_of(root)[:100] != longer[:100]


def test_what_was_weighed_can_be_taken_and_the_sampling_moves_the_bars(
    page: Page, address: str
) -> None:
    root = show(page, address)
    write(root, "Once upon a time", length=120)
    before = tokens_of(root)
    place = next(i for i in range(5, len(before)) if before[i][1] > 1.5)
    token = root.locator(".gptlib-pg-tok:not(.gptlib-pg-begin)").nth(place)
    token.click()
    expect(root.locator(".gptlib-pg-place")).to_contain_text("Here stands")
    drawn(root)
    row = root.locator(".gptlib-pg-row:not(.gptlib-pg-here):visible").nth(1)
    name = row.locator(".gptlib-pg-token").inner_text().replace("␣", " ")
    row.click()
    expect(token).to_have_text(name.strip())
    wait_for_text(root, sum(len(text) for text, _ in before[:place]) + 60)
    stop(root)
    after = tokens_of(root)
    assert after[:place] == before[:place]
    assert after[place][0] == name

    shares = root.locator(".gptlib-pg-row:visible .gptlib-pg-now")
    expect(root.locator(".gptlib-pg-place")).to_contain_text("After")
    root.get_by_role("slider", name="Temperature").focus()
    page.keyboard.press("Home")
    expect(shares.first).to_have_text("100%")
    expect(shares.nth(1)).to_have_text("0%")
    page.keyboard.press("End")
    expect(shares.first).not_to_have_text("100%")
    slider = root.get_by_role("slider", name="Top-k")
    slider.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(root.locator(".gptlib-pg-row:visible:not(.gptlib-pg-dropped)")).to_have_count(2)
    total = sum(float(text.strip("<>%")) for text in shares.all_inner_texts())
    assert total == pytest.approx(100, abs=0.2)


def test_any_beginning(page: Page, address: str) -> None:
    root = show(page, address)
    for text in ("<script>alert(1)</script>", "שלום עולם", "👩\u200d👩\u200d👧 e\u0301\u202e!", ""):
        write(root, text, length=len(text) + 30)
        shown = text_of(root)
        visible = re.sub("[\u200d\u202e]", lambda mark: f"⟨U+{ord(mark[0]):04X}⟩", text)
        assert shown.startswith(visible)
        expect(root.locator(".gptlib-pg-error")).to_be_empty()
    assert root.locator(".gptlib-pg-text script").count() == 0


def test_ten_thousand_characters(page: Page, address: str) -> None:
    root = show(page, address)
    root.get_by_role("textbox", name="The beginning").fill("🙂 word, " * 1_250)
    page.evaluate(
        """() => {
          window.longest = 0;
          new PerformanceObserver((list) => {
            for (const { duration } of list.getEntries()) longest = Math.max(longest, duration);
          }).observe({ type: "longtask" });
        }"""
    )
    button(root, "Write").click()
    expect(root.locator(".gptlib-pg-earlier")).to_contain_text("The model reads the newest")
    expect(root.locator(".gptlib-pg-status")).to_contain_text("Writing", timeout=20_000)
    stop(root)
    assert root.locator(".gptlib-pg-tok").count() <= 601
    expect(button(root, "Continue")).to_be_visible()
    assert page.evaluate("longest") < 1_000  # of a busy machine; see the slow test for the figure


def test_by_keyboard_alone(page: Page, address: str) -> None:
    root = show(page, address)
    root.get_by_role("textbox", name="The beginning").focus()
    page.keyboard.press("Enter")
    wait_for_text(root, 60)
    page.keyboard.press("Escape")
    expect(button(root, "Continue")).to_be_visible()
    token = root.locator(".gptlib-pg-tok:not(.gptlib-pg-begin)")
    assert root.locator('.gptlib-pg-tok[tabindex="0"]').count() == 1
    token.nth(6).focus()
    page.keyboard.press("ArrowLeft")
    expect(token.nth(5)).to_be_focused()
    page.keyboard.press("Enter")
    expect(token.nth(5)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("ArrowDown")
    rows = root.locator(".gptlib-pg-row:visible")
    expect(rows.first).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(rows.nth(1)).to_be_focused()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    expect(token.nth(5)).to_be_focused()
    page.keyboard.press("Escape")
    expect(token.nth(5)).to_have_attribute("aria-pressed", "false")
    expect(token.nth(5)).to_be_focused()


def test_where_a_head_looks(page: Page, address: str) -> None:
    root = show(page, address)
    write(root, "Once upon a time", length=120)
    size = root.locator(".gptlib-pg-tok").count()
    canvas = root.locator("canvas")
    expect(canvas).to_have_attribute("aria-label", re.compile(rf"layer 0, head 2: {size} tokens"))
    assert canvas.evaluate("canvas => canvas.width") == size
    root.get_by_role("radio", name="3").first.check()
    root.locator(".gptlib-pg-tok").nth(9).hover()
    seen = root.locator('[data-part="attention"] .gptlib-pg-words')
    expect(seen).to_contain_text(re.compile(r"^From \S+ this head looks at: .*\d+%"))
    expect(root).to_have_class(re.compile("gptlib-pg-looking"))
    expect(canvas).to_have_attribute("aria-label", re.compile("layer 3, head 2"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("missing", "The model's weights do not arrive: the server answers 404."),
        ("truncated", "The model's weights are not whole: 1000000 of 4449456 bytes arrived."),
        ("corrupt", "The model's weights are damaged: their SHA-256 is another one."),
        ("no list", "The model's files do not arrive: mini.json: 404"),
        ("no worker", "This browser cannot run the model in the background"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    browser: Any, folder: Path, tmp_path: Path, change: str, words: str
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    whole = engine.weights()
    wrong = {"truncated": whole[:1_000_000], "corrupt": whole[:-1] + bytes([whole[-1] ^ 1])}
    if change in wrong:
        (tmp_path / engine.WEIGHTS).write_bytes(wrong[change])
    missing = {"missing": engine.WEIGHTS, "no list": engine.ABOUT}.get(change)
    if missing:
        (tmp_path / missing).unlink()
    with contextlib.closing(serve_folder(tmp_path)) as served:
        context = browser.new_context(**DESKTOP)
        page = context.new_page()
        if change == "no worker":
            page.add_init_script("delete window.Worker")
        root = show(page, next(served))
        before = text_of(root)
        button(root, "Write").click()
        expect(root.locator(".gptlib-pg-error")).to_contain_text(words)
        assert text_of(root) == before
        if missing == engine.WEIGHTS:
            (tmp_path / engine.WEIGHTS).write_bytes(whole)
            button(root, "Try again").click()
            wait_for_text(root, 60)
            expect(root.locator(".gptlib-pg-error")).to_be_empty()
        else:
            expect(button(root, "Try again")).to_be_visible()
        context.close()


def test_a_page_that_nobody_sees_is_written_to_the_end(page: Page, address: str) -> None:
    page.add_init_script(
        "Object.defineProperty(document, 'hidden', { get: () => window.away ?? false });"
        "const frame = window.requestAnimationFrame.bind(window), held = [];"
        "window.requestAnimationFrame = (f) => window.away ? held.push(f) : frame(f);"
        "window.back = () => { window.away = false; held.forEach((f) => frame(f)); };"
    )
    root = show(page, address)
    button(root, "Write").click()
    wait_for_text(root, 30)
    page.evaluate("window.away = true")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    said = root.locator(".gptlib-pg-hidden[role=status]")
    expect(said).to_have_text(re.compile("The story has ended|200 tokens"), timeout=20_000)
    page.evaluate("window.back()")
    expect(button(root, "Continue")).to_be_visible()
    assert len(tokens_of(root)) > 100


def test_taken_off_the_page_while_it_writes(page: Page, address: str) -> None:
    root = show(page, address)
    button(root, "Write").click()
    wait_for_text(root, 30)
    assert len(page.workers) == 1
    page.evaluate(
        "import('./page/host.js')"
        ".then((host) => host.unmount(document.querySelector('.gptlib-widget')))"
    )
    page.wait_for_timeout(200)
    assert page.workers == []


@pytest.mark.slow
def test_the_page_stays_free_while_it_writes(page: Page, address: str) -> None:
    root = show(page, address)
    root.get_by_role("radio", name="3").first.check()
    session = page.context.new_cdp_session(page)
    events: list[dict[str, Any]] = []
    done: list[object] = []
    session.on("Tracing.dataCollected", lambda message: events.extend(message["value"]))
    session.on("Tracing.tracingComplete", lambda message: done.append(message))
    button(root, "Write").click()
    wait_for_text(root, 30)  # the model is loaded, and what draws has run
    categories = ["toplevel", "devtools.timeline", "__metadata"]
    session.send("Tracing.start", {"traceConfig": {"includedCategories": categories}})
    said = root.locator(".gptlib-pg-hidden[role=status]")
    expect(said).to_have_text(re.compile("The story has ended|200 tokens"), timeout=60_000)
    session.send("Tracing.end")
    while not done:
        page.wait_for_timeout(50)
    named = [event for event in events if event["name"] == "thread_name"]
    mains = {(e["pid"], e["tid"]) for e in named if e["args"]["name"] == "CrRendererMain"}
    tasks = [
        event
        for event in events
        if event["name"] == "ThreadControllerImpl::RunTask"
        and (event["pid"], event["tid"]) in mains
        and "dur" in event
    ]
    processor = max(task.get("tdur", 0) for task in tasks) / 1000
    clock = max(task["dur"] for task in tasks) / 1000
    print(
        f"{len(tokens_of(root))} tokens, {len(tasks)} tasks of the main thread: the longest "
        f"{processor:.1f} ms of the processor, {clock:.1f} ms by the clock"
    )
    assert processor <= 50


@pytest.mark.parametrize("phone", [False, True])
def test_any_screen_any_reader(browser: Any, address: str, phone: bool) -> None:
    with quiet_page(browser, **(PHONE if phone else DESKTOP), reduced_motion="reduce") as page:
        root = show(page, address)
        button(root, "Write").click()
        wait_for_text(root, 100)
        assert root.evaluate("root => root.getAnimations({ subtree: true }).length") == 0
        stop(root)
        root.locator(".gptlib-pg-tok").nth(9).click()
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        if phone:
            controls = root.locator("button:visible, summary:visible, input[type=range]:visible")
            assert min(controls.evaluate_all("found => found.map(e => e.offsetHeight)")) >= 24
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme, reduced_motion="reduce")
            assert violations(page) == []
