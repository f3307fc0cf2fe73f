"""The widgets in a real JupyterLab and in Notebook 7, with a kernel behind them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest

from gptlib import tokenizer

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")
expect = playwright_api.expect

CELLS = [
    "from gptlib.widgets import ArchitectureMap, TokenExplorer\n"
    "chart = ArchitectureMap('attention')\nchart",
    "explorer = TokenExplorer('Once upon a time')\nexplorer",
    "print('python has', repr(explorer.text), explorer.tokens['gpt2']['ids'])",
    "explorer.text = 'Hello, world'",
    "print('python has', chart.chosen, chart.model)",
    "chart.model, chart.chosen, chart.lit = 'gpt2-xl', 'output_head', ['output_head']",
    "from gptlib.widgets import Playground\n"
    "playground = Playground('One gusty', parts=['write'])\nplayground",
    "print('python has', playground.text)",
]
ATTACK = "a <img src=x onerror=alert(1)> b"
TIMEOUT_MS = 60_000


class NoAnswerError(AssertionError):
    """Jupyter is silent, as on a starved machine: nothing is drawn yet that could be wrong."""


tried_again = pytest.mark.flaky(reruns=2, only_rerun="NoAnswerError")
pytestmark = tried_again


class Lab(NamedTuple):
    url: str
    token: str
    folder: Path

    def address(self, view: str, name: str) -> str:
        """Return the address of a new copy of the notebook in a view of the server."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(notebook, self.folder / name)
        self._start_kernel(name)
        return f"{self.url}{view}/{name}?reset&token={self.token}"

    def _start_kernel(self, name: str) -> None:
        """Give the notebook its kernel now: on a busy machine Lab loses track of its own start,
        asks which kernel to take, and the widgets of the first one are gone.
        """
        session = {"path": name, "name": name, "type": "notebook", "kernel": {"name": "python3"}}
        request = urllib.request.Request(
            f"{self.url}api/sessions",
            json.dumps(session).encode(),
            {"Authorization": f"token {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 201


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Start a JupyterLab of its own, with empty settings, on a free port of this machine."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "config" / "labconfig").mkdir(parents=True)
    (folder / "work").mkdir()
    settings = {
        "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
        "@jupyterlab/apputils-extension:notification": {
            "fetchNews": "false",
            "checkForUpdates": False,
        },
    }
    path = folder / "config" / "labconfig" / "default_setting_overrides.json"
    path.write_text(json.dumps(settings))
    places = {
        f"JUPYTER_{place.upper()}_DIR": str(folder / place)
        for place in ("config", "data", "runtime")
    }
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ServerApp.port=0",
    ]
    command += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={folder / 'work'}"]
    command += ["--LabApp.expose_app_in_browser=True", "--IdentityProvider.token=here"]
    process = subprocess.Popen(command, env=os.environ | places)  # what it says, pytest captures
    try:
        yield Lab(_server_url(folder / "runtime", process), "here", folder / "work")
    finally:
        process.terminate()
        process.wait(timeout=30)


def _server_url(runtime: Path, process: subprocess.Popen[bytes]) -> str:
    """Wait until the server says where it is."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        for path in runtime.glob("jpserver-*.json"):
            if path.stat().st_size:
                return str(json.loads(path.read_text())["url"])
        time.sleep(0.2)
    raise RuntimeError("jupyter lab did not start: see what it said")


@pytest.fixture
def notebook_page(browser: Any) -> Iterator[Any]:
    """Open a page; the test fails on an error in a widget's module, and on any dialog."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    found: list[str] = []

    def on_error(error: Any) -> None:
        # Jupyter prints errors of its own; anywidget loads the widgets' modules from blobs.
        if "blob:" in (error.stack or "") or "anywidget" in (error.stack or ""):
            found.append(str(error))

    def on_dialog(dialog: Any) -> None:
        found.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def answer(dialog: Any) -> None:
        # Seen now and then on a busy machine although the notebook has its kernel.
        print("Jupyter asked:", dialog.inner_text())
        dialog.locator("button.jp-mod-accept").click()

    page.on("pageerror", on_error)
    page.on("dialog", on_dialog)
    page.add_locator_handler(page.locator("dialog.jp-Dialog"), answer)
    yield page
    context.close()
    assert found == []


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Tell a Jupyter that does not answer from a widget that is wrong."""
    try:
        yield
    except (AssertionError, playwright_api.TimeoutError) as error:
        raise NoAnswerError(f"Jupyter was silent for {TIMEOUT_MS / 1000:g} s") from error


def open_notebook(page: Any, address: str) -> None:
    """Open a notebook and wait for its kernel."""
    cells = page.locator(".jp-Notebook .jp-CodeCell")
    idle = page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
    with answering():
        page.goto(address)
        expect(cells).to_have_count(len(CELLS), timeout=TIMEOUT_MS)
        expect(idle.first).to_be_attached(timeout=TIMEOUT_MS)


def run(page: Any, number: int) -> Any:
    """Run one cell and return it once the kernel has answered."""
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(number)
    prompt = cell.locator(".jp-InputPrompt")
    for _ in range(5):  # while it opens a notebook, Lab loses keys
        cell.locator(".cm-content").click()
        page.keyboard.press("Control+Enter")
        with contextlib.suppress(AssertionError):
            expect(prompt).not_to_have_text("[ ]:", timeout=3_000)
            break
    with answering():
        expect(prompt).to_have_text(re.compile(r"\[\d+\]:"), timeout=TIMEOUT_MS)
    return cell


def printed(page: Any, number: int) -> Any:
    return run(page, number).locator(".jp-OutputArea-output").last


def ids(widget: Any, encoding: str) -> list[int]:
    panel = widget.locator(".gptlib-te-panel", has_text=encoding)
    return [int(text) for text in panel.locator(".gptlib-te-id").all_inner_texts()]


def test_map_in_lab(notebook_page: Any, lab: Lab) -> None:
    page = notebook_page
    open_notebook(page, lab.address("lab/tree", "chart.ipynb"))
    chart = run(page, 0).locator(".gptlib-am")
    attention = chart.locator('[data-block="attention"]')
    expect(attention).to_have_attribute("aria-current", "location")
    expect(attention).to_have_attribute("aria-pressed", "true")

    # Keys belong to the widget while it has the focus, though Lab uses the same ones.
    attention.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(chart.locator('[data-block="norm_2"]')).to_have_attribute("aria-pressed", "true")
    expect(chart.locator('[data-block="norm_2"]')).to_be_focused()
    chart.locator("select").select_option("mini")
    expect(printed(page, 4)).to_contain_text("python has norm_2 mini")

    run(page, 5)
    expect(chart.locator("select")).to_have_value("gpt2-xl")
    expect(chart.locator(".gptlib-am-total")).to_contain_text("1,557,611,200")
    here = chart.locator('[aria-current="location"]')
    expect(here).to_have_attribute("data-block", "output_head")
    expect(chart.locator(".gptlib-am-card")).to_contain_text("Output head")

    ground = "() => getComputedStyle(document.querySelector('.gptlib-root > div')).backgroundColor"
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    theme = "jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"
    page.evaluate(theme)
    expect(page.locator('[data-jp-theme-light="false"]').first).to_be_attached()
    assert page.evaluate(ground) != "rgb(255, 255, 255)"


def test_explorer_in_lab(notebook_page: Any, lab: Lab) -> None:
    page = notebook_page
    open_notebook(page, lab.address("lab/tree", "explorer.ipynb"))
    run(page, 0)
    explorer = run(page, 1).locator(".gptlib-te")
    count = explorer.locator(".gptlib-te-panel", has_text="GPT-2").locator(".gptlib-te-count")
    expect(count).to_have_text("4 tokens")
    assert ids(explorer, "GPT-2") == tokenizer.gpt2().encode_ordinary("Once upon a time")

    area = explorer.locator("textarea")
    area.fill("")
    area.press_sequentially(ATTACK, delay=5)  # as a reader types, while the kernel answers
    expected = tokenizer.gpt2().encode_ordinary(ATTACK)
    expect(count).to_have_text(f"{len(expected)} tokens")
    assert ids(explorer, "GPT-2") == expected
    assert ids(explorer, "Stories") == tokenizer.stories().encode_ordinary(ATTACK)
    expect(area).to_have_value(ATTACK)
    expect(printed(page, 2)).to_contain_text(f"python has {ATTACK!r} {expected}")
    assert explorer.locator("img").count() == 0

    run(page, 3)
    expect(area).to_have_value("Hello, world")
    expect(count).to_have_text("3 tokens")
    assert ids(explorer, "GPT-2") == [15496, 11, 995]


def test_both_in_notebook_7(notebook_page: Any, lab: Lab) -> None:
    page = notebook_page
    open_notebook(page, lab.address("notebooks", "both.ipynb"))
    chart = run(page, 0).locator(".gptlib-am")
    chart.locator('[data-block="final_norm"]').click()
    expect(chart.locator(".gptlib-am-card")).to_contain_text("Final norm")
    expect(printed(page, 4)).to_contain_text("python has final_norm gpt2")
    explorer = run(page, 1).locator(".gptlib-te")
    explorer.locator("textarea").fill("Hello, world")
    expect(explorer.locator(".gptlib-te-count").first).to_have_text("3 tokens")


def test_the_model_writes_in_lab(notebook_page: Any, lab: Lab) -> None:
    page = notebook_page
    open_notebook(page, lab.address("lab/tree", "playground.ipynb"))
    playground = run(page, 6).locator(".gptlib-pg")
    playground.get_by_role("checkbox", name="Fast").check()
    playground.get_by_role("button", name="Write", exact=True).click()
    stopped = playground.get_by_role("button", name="Continue", exact=True)
    expect(stopped).to_be_visible(timeout=60_000)  # the weights come from the kernel
    written = playground.locator(".gptlib-pg-text").text_content().removeprefix("start")
    assert written.startswith("One gusty ")
    assert len(written) > 100
    expect(printed(page, 7)).to_contain_text(f"python has {written[:100]}")
