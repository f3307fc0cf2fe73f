"""A real Chromium over the built site."""

from __future__ import annotations

import contextlib
import functools
import gzip
import http.server
import mimetypes
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gptlib.widgets import page as widgets
from gptlib.widgets.base import Widget

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

ROOT = Path(__file__).resolve().parent.parent.parent
SITE = ROOT / "_build" / "html"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "browser" in item.path.parts:
            item.add_marker(pytest.mark.browser)


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serve files quietly, text compressed, as the hosts of static sites do."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        if not path.is_file():
            self.send_error(404)
            return
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        kind = "text/javascript" if path.suffix == ".js" else kind
        body = path.read_bytes()
        self.send_response(200)
        if kind.startswith("text/") or kind.endswith(("json", "svg+xml")):
            body = _compressed(path, path.stat().st_mtime_ns)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@functools.cache
def _compressed(path: Path, _: int) -> bytes:
    return gzip.compress(path.read_bytes(), mtime=0)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A browser that closes early is no error of the server."""


def serve_folder(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port of this machine; yield its address, ending in a slash."""
    handler = functools.partial(_Handler, directory=str(folder))
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join()


def lone_page(folder: Path, widget: Widget, title: str) -> None:
    """Write index.html with nothing but a widget, as Python stores it, and all that it loads."""
    widgets.write_files(folder)
    placed = widgets.widget_html(widget._module, widget.state(), widget.describe())
    (folder / "index.html").write_text(page_html(title, placed), encoding="utf-8")


def page_html(title: str, body: str) -> str:
    """Return a page that holds widgets, and loads them as the pages of the site do."""
    styles, modules = widgets.loaded(re.findall(r'data-gptlib-widget="(\w+)"', body))
    head = [f'<link rel="stylesheet" href="{name}">' for name in styles]
    head += [f'<link rel="modulepreload" href="{name}">' for name in modules]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,">{"".join(head)}'
        "<style>:root { color-scheme: light dark } body { max-width: 736px }</style></head>"
        f"<body><main><h1>{title}</h1>{body}"
        '</main><script type="module" src="page/host.js"></script></body></html>'
    )


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    """Serve the built site; `make test` builds it first."""
    if not (SITE / ".complete").is_file():
        pytest.fail("the site is not built: run 'make book' first")
    yield from serve_folder(SITE)


@pytest.fixture(scope="session")
def browser() -> Iterator[playwright_api.Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not path:
        pytest.skip("no chromium on this machine: install it, or name it in CHROMIUM")
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@contextlib.contextmanager
def quiet_page(browser: playwright_api.Browser, **options: Any) -> Iterator[playwright_api.Page]:
    """Open a page in a context of its own; fail if it prints anything as an error."""
    context = browser.new_context(**options)
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


@pytest.fixture
def page(browser: playwright_api.Browser) -> Iterator[playwright_api.Page]:
    """Open a page at 1280 x 800; the test fails if anything is printed as an error."""
    with quiet_page(browser, viewport={"width": 1280, "height": 800}) as page:
        yield page


def violations(page: playwright_api.Page, context: Any = None, **options: Any) -> list[str]:
    """Return what axe finds, within a selector: each rule, and the first elements that break it.

    Elements that pass are not listed: to describe thousands of them takes longer than the checks.
    """
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page, context, {"resultTypes": ["violations"], **options}).response
    checked = {rule["id"] for rule in (*found["passes"], *found["violations"])}
    assert len(checked) > 10 or checked == {*options["runOnly"]}, checked
    assert "color-contrast" in checked or "rules" in options
    return [_summary(violation) for violation in found["violations"]]


def _summary(violation: dict[str, Any]) -> str:
    nodes = "; ".join(node["html"][:120] for node in violation["nodes"][:3])
    return f"{violation['id']} ({len(violation['nodes'])}): {nodes}"
