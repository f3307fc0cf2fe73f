"""Every link inside the built site leads to a page, a file or a heading that is there."""

from __future__ import annotations

import functools
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from gptlib import __version__
from tests.browser.conftest import SITE
from tools.repository import repository

PAGES = sorted(SITE.rglob("*.html"))
NOTEBOOKS = sorted(SITE.glob("notebooks/**/*.html"))


class _Reader(HTMLParser):
    """Collect the links and the anchors of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = {"", "top"}

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        for name in ("href", "src"):
            if tag != "base" and values.get(name):
                self.links.add(values[name])


@functools.cache
def read(path: Path) -> _Reader:
    reader = _Reader()
    reader.feed(path.read_text("utf-8"))
    return reader


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.relative_to(SITE).as_posix())
def test_links_inside_the_site_lead_somewhere(path):
    broken = []
    for link in sorted(read(path).links):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if target.is_dir():
            target /= "index.html"
        fragment = unquote(parts.fragment)
        missing_anchor = target.suffix == ".html" and fragment not in _anchors(target, fragment)
        if not target.is_file() or missing_anchor:
            broken.append(link)
    assert broken == []


def _anchors(target: Path, fragment: str) -> set[str]:
    return read(target).anchors if fragment and target.is_file() else {fragment}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.relative_to(SITE).as_posix())
def test_the_colab_button_opens_the_notebook_of_the_release(path):
    """Its set-up cell installs the library of the same release."""
    slug = repository().removeprefix("https://github.com/")
    name = path.relative_to(SITE).with_suffix(".ipynb").as_posix()
    colab = [link for link in read(path).links if "colab." in link]
    assert colab == [f"https://colab.research.google.com/github/{slug}/blob/v{__version__}/{name}"]
