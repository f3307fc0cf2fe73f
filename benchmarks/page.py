"""How fast the mini model writes in a page: python benchmarks/page.py.

Headless Chromium on this machine. Figures by the clock depend on what else runs here; so each has
the processor time of the page's process beside it: its main thread and the worker's together. The
first token counts from the moment that the page hears of the last byte of the weights, in a page
that has run nothing yet. The main thread's tasks come from a trace, while a story is written and
each of its tokens is put into the page.
"""

import gzip
import json
import os
import shutil
import statistics
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from gptlib import stories, tokenizer
from gptlib.widgets import engine, linker

RUNS = 5
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu"]
WIDGETS = Path(engine.__file__).parent
MINI = WIDGETS.parent / "assets" / "mini"
ENGINE = ("page/gpt.js", "page/gpt_worker.js")

# `first` loads the model and writes one token after a prompt; `write` writes on, whatever ends.
PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><p></p>
<script type="module">
  import { connect } from "./page/gpt_worker.js";
  const announced = ANNOUNCED;
  announced.vocabulary = await (await fetch("vocabulary.json")).json();
  announced.url = new URL("model.safetensors", location.href).href;
  const model = connect();
  window.first = async (ids) => {
    let arrived, written;
    const load = await model.ask("load", announced, ({ loaded, total }) => {
      if (loaded === total) arrived = performance.now();
    });
    const fed = model.ask("feed", { ids });
    const token = () => (written ??= performance.now());
    await Promise.all([fed, model.ask("continue", { count: 1 }, token)]);
    return { ...load, waited: written - arrived };
  };
  window.write = async (ids, count) => {
    await model.ask("feed", { ids });
    const text = document.querySelector("p");
    const start = performance.now();
    let written = 0;
    const show = (part) => (written++, text.append(part.text));
    while (written < count) await model.ask("continue", { count: count - written, seed: 1 }, show);
    return (performance.now() - start) / 1000;
  };
  window.ready = true;
</script>"""


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a word."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".js": "text/javascript"}

    def log_message(self, *_: object) -> None:
        """Write no log."""


def write_site(folder: Path) -> None:
    for name, _ in linker.linked(*ENGINE):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(WIDGETS / name, folder / name)
    shutil.copy(MINI / "model.safetensors", folder)
    (folder / "vocabulary.json").write_text(engine.vocabulary_json("stories"))
    (folder / "index.html").write_text(PAGE.replace("ANNOUNCED", json.dumps(engine.about())))


def opened(browser: Browser, url: str) -> Page:
    """Return the page, in a context of its own: nothing is kept from one to the next."""
    view = browser.new_context().new_page()
    view.goto(url)
    view.wait_for_function("window.ready")
    return view


def processor_time(browser: Browser) -> float:
    """Return the seconds that all renderer processes have computed for."""
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    return sum(process["cpuTime"] for process in processes if process["type"] == "renderer")


def first_token(browser: Browser, url: str, ids: list[int]) -> None:
    waits, busy = [], []
    for _ in range(RUNS):
        view = opened(browser, url)
        before = processor_time(browser)
        waits.append(view.evaluate("ids => first(ids)", ids)["waited"])
        busy.append(1000 * (processor_time(browser) - before))
        view.context.close()
    print(
        f"first token after a prompt of {len(ids)}: best {min(waits):.0f} ms after the weights, "
        f"median {statistics.median(waits):.0f}; processor time, the download included: best "
        f"{min(busy):.0f} ms, median {statistics.median(busy):.0f}"
    )


def speed(browser: Browser, view: Page, ids: list[int], count: int, what: str) -> None:
    rates, busy = [], []
    for _ in range(RUNS):
        before = processor_time(browser)
        rates.append(count / view.evaluate("([ids, n]) => write(ids, n)", [ids, count]))
        busy.append(count / (processor_time(browser) - before))
    print(
        f"{what}: best {max(rates):.0f} tokens/s, median {statistics.median(rates):.0f}; by "
        f"processor time best {max(busy):.0f}, median {statistics.median(busy):.0f}"
    )


def main_thread(view: Page, ids: list[int], count: int) -> None:
    """Print the longest tasks of the page's main thread while it writes."""
    session = view.context.new_cdp_session(view)
    events: list[dict[str, Any]] = []
    done: list[object] = []
    session.on("Tracing.dataCollected", lambda message: events.extend(message["value"]))
    session.on("Tracing.tracingComplete", lambda message: done.append(message))
    categories = ["toplevel", "devtools.timeline", "__metadata"]
    session.send("Tracing.start", {"traceConfig": {"includedCategories": categories}})
    view.evaluate("([ids, n]) => write(ids, n)", [ids, count])
    session.send("Tracing.end")
    while not done:
        view.wait_for_timeout(50)
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
        f"main thread while {count} tokens are written, {len(tasks):,} tasks: the longest "
        f"{processor:.1f} ms of the processor, {clock:.1f} ms by the clock"
    )


def main() -> None:
    for name in ENGINE:
        code = (WIDGETS / name).read_bytes()
        print(f"{name}: {len(code):,} bytes, gzip {len(gzip.compress(code)):,}")
    print(f"model.safetensors: {(MINI / 'model.safetensors').stat().st_size:,} bytes")
    print(f"load of this machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    encoding = tokenizer.stories()
    ids = [encoding.eot_token, *encoding.encode_ordinary(" ".join(stories.sample(4)))]
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        write_site(Path(folder))
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        for length in (20, 200):
            first_token(browser, url, ids[:length])
        view = opened(browser, url)
        view.evaluate("ids => first(ids)", ids[:1])
        speed(browser, view, ids[:1], 255, "writing until the context is full")
        speed(browser, view, ids[:1], 600, "writing 600 tokens, past the context")
        main_thread(view, ids[:1], 255)
        browser.close()
        server.shutdown()


if __name__ == "__main__":
    main()
