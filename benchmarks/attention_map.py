"""How large and how quick the attention maps are: python benchmarks/attention_map.py.

12 layers x 12 heads x 64 tokens of the 124M model with random weights, made larger so that its
heads look at few tokens. The browser's figures come from Chromium: the first drawing from the
moment the page begins to mount the widget until the frame after; a selection, another head and
another step from the click until all is laid out; the frames from a trace of the main thread while
the pointer jumps across the map.
"""

import gzip
import os
import random
import re
import shutil
import statistics
import tempfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import nbformat
import torch
from IPython.core.formatters import DisplayFormatter
from playwright.sync_api import Page, sync_playwright

from gptlib import stories, tokenizer
from gptlib.activations import attention_maps
from gptlib.config import FAMILY
from gptlib.model import GPT
from gptlib.widgets import AttentionMap, attention_map, page

TOKENS = 64
RUNS = 7
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu"]
CHOICES = {
    "a token": ".gptlib-at-token",
    "a step": ".gptlib-at-radio",
    "a head": ".gptlib-at-thumb",
}


def peaked_model() -> GPT:
    model = GPT(FAMILY["gpt2"], torch.Generator().manual_seed(0))
    for block in model.blocks:
        block.attention.query_key_value.weight.data *= 6
    return model


def story() -> str:
    encoding = tokenizer.gpt2()
    return encoding.decode(encoding.encode_ordinary(" ".join(stories.sample(20)))[:TOKENS])


def notebook_bytes(widget: AttentionMap) -> int:
    """Return how many bytes a stored notebook grows by when a cell shows the widget."""
    data, metadata = DisplayFormatter().format(widget)
    data.pop("application/vnd.jupyter.widget-view+json")
    sizes = []
    for outputs in ([], [nbformat.v4.new_output("display_data", data, metadata=metadata)]):
        cell = nbformat.v4.new_code_cell("", outputs=outputs)
        sizes.append(len(nbformat.writes(nbformat.v4.new_notebook(cells=[cell])).encode()))
    return sizes[1] - sizes[0]


def python_figures(model: GPT, text: str) -> AttentionMap:
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        widget = AttentionMap(model, text, tokenizer.gpt2(), layer=4, head=11)
        times.append(time.perf_counter() - start)
    ids = torch.tensor([tokenizer.gpt2().encode_ordinary(text)])
    scaled = attention_maps(model, ids).scaled[:, 0]
    start = time.perf_counter()
    attention_map.pack(scaled)
    packing = time.perf_counter() - start
    print(
        f"maps of {len(widget.maps['tokens'])} tokens: {min(times):.2f} s, packing {packing:.3f} s"
    )
    print(f"in a notebook: {notebook_bytes(widget):,} bytes, {widget.maps['bits']} bits a score")
    script = Path(attention_map.__file__).with_suffix(".js").read_bytes()
    print(f"attention_map.js: {len(script):,} bytes, gzip {len(gzip.compress(script)):,}")
    return widget


# The page mounts the widget when `go` is called; the promise is kept in the frame after.
HARNESS = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
%s<main style="width: 736px"></main>
<template>%s</template>
<script type="module">
  import { mount } from "./page/host.js";
  const frame = () => new Promise(requestAnimationFrame);
  document.querySelector("main").append(document.querySelector("template").content);
  window.go = async () => {
    const start = performance.now();
    await mount(document.querySelector(".gptlib-widget"));
    await frame();
    await new Promise((done) => { const { port1, port2 } = new MessageChannel();
      port1.onmessage = done; port2.postMessage(0); }); // after that frame is painted
    return performance.now() - start;
  };
  window.choose = async (selector, i) => {
    const all = document.querySelectorAll(selector);
    await frame();
    const start = performance.now();
    all[i % all.length].click();
    await null; // the widget draws at the end of this task's first step
    document.querySelector("main").offsetHeight;
    return performance.now() - start;
  };
</script>"""


def write_site(folder: Path, widget: AttentionMap) -> None:
    page.write_files(folder)
    # The benchmark mounts the widget itself, so that it knows when that begins.
    host = folder / "page" / "host.js"
    assert "\nif (typeof document" in host.read_text()
    host.write_text(re.sub(r"\nif \(typeof document.*", "\n", host.read_text()))
    styles, modules = page.loaded([widget._module])
    links = [f'<link rel="stylesheet" href="{name}">' for name in styles]
    links += [f'<link rel="modulepreload" href="{name}">' for name in modules]
    html = page.widget_html(widget._module, widget.state(), widget.describe())
    (folder / "index.html").write_text(HARNESS % ("".join(links), html), encoding="utf-8")


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a word."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".js": "text/javascript"}

    def log_message(self, *_: object) -> None:
        """Write no log."""


def trace(view: Page, seconds: float) -> list[dict[str, Any]]:
    """Return what Chromium's main thread does while the pointer moves across the map."""
    session = view.context.new_cdp_session(view)
    events: list[dict[str, Any]] = []
    done: list[object] = []
    session.on("Tracing.dataCollected", lambda message: events.extend(message["value"]))
    session.on("Tracing.tracingComplete", lambda message: done.append(message))
    box = view.locator(".gptlib-at-plot").bounding_box()
    assert box
    categories = ["toplevel", "devtools.timeline"]
    session.send("Tracing.start", {"traceConfig": {"includedCategories": categories}})
    rng, end = random.Random(0), time.monotonic() + seconds
    while time.monotonic() < end:
        x, y = box["x"] + rng.random() * box["width"], box["y"] + rng.random() * box["height"]
        view.mouse.move(x, y, steps=8)
    session.send("Tracing.end")
    while not done:
        view.wait_for_timeout(50)
    threads = [(e["pid"], e["tid"]) for e in events if e["name"] == "FireAnimationFrame"]
    main = statistics.mode(threads)
    return [e for e in events if (e["pid"], e["tid"]) == main and e.get("ph") == "X"]


def frames(events: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Return how long the tasks that draw a frame took, in ms: of the processor, by the clock."""
    tasks = [e for e in events if e["name"] == "ThreadControllerImpl::RunTask"]
    work = ("FireAnimationFrame", "Layout", "Paint")
    starts = sorted(e["ts"] for e in events if e["name"] in work)
    found = [e for e in tasks if any(e["ts"] <= s <= e["ts"] + e["dur"] for s in starts)]
    return [e.get("tdur", 0) / 1000 for e in found], [e["dur"] / 1000 for e in found]


def browser_figures(widget: AttentionMap) -> None:
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        write_site(Path(folder), widget)
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        drawn = []
        for _ in range(RUNS):
            view = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
            view.goto(f"http://127.0.0.1:{server.server_address[1]}/")
            drawn.append(view.evaluate("go()"))
        print(f"first drawn: best {min(drawn):.0f} ms, median {statistics.median(drawn):.0f} ms")
        for name, selector in CHOICES.items():
            times = [view.evaluate("([s, i]) => choose(s, i)", [selector, i]) for i in range(40)]
            print(f"{name}: median {statistics.median(times):.1f} ms, best {min(times):.1f} ms")
        processor, clock = frames(trace(view, 10))
        for name, times in (("processor time", processor), ("by the clock", clock)):
            late = statistics.quantiles(times, n=100)[98]
            print(
                f"{len(times)} frames, {name}: median {statistics.median(times):.1f} ms, "
                f"99% under {late:.1f} ms, longest {max(times):.1f} ms"
            )
        browser.close()
        server.shutdown()


def main() -> None:
    widget = python_figures(peaked_model(), story())
    print(f"load of this machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    browser_figures(widget)


if __name__ == "__main__":
    main()
