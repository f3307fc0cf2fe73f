"""The book's side of the widgets: a MyST-NB renderer and a Sphinx extension.

The renderer turns a widget's stored state into HTML that ``host.js`` brings to life in the reader's
browser, and gives the course's figures their alternative text. The extension puts the widgets'
files into the site, and loads them on the pages that hold a widget.
"""

from __future__ import annotations

import hashlib
import html
import json
import posixpath
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from docutils import nodes
from sphinx.application import Sphinx

from gptlib import __version__
from gptlib.widgets import engine
from gptlib.widgets.architecture_map import family
from gptlib.widgets.base import MIME_TYPE
from gptlib.widgets.linker import FOLDER, all_imports
from gptlib.widgets.surprise import GRAMMAR, grammar_json
from gptlib.widgets.training_cost import devices
from gptlib.widgets.training_replay import ASSET as REPLAY

_HTML_BUILDERS = ("html", "dirhtml", "singlehtml")

# What a page adds to a widget's stored state, because it is the same everywhere. host.js fetches
# an asset from beside itself, a lazy one only when the widget asks for it.
_ADDED: dict[str, dict[str, Any]] = {
    "architecture_map": {"family": family()},
    "parameter_breakdown": {"family": family()},
    "surprise": {
        "grammar": {"$asset": GRAMMAR, "lazy": True},
        "vocabulary": {"$asset": "stories_vocabulary.json", "lazy": True},
    },
    "token_explorer": {
        "vocabularies": {
            "stories": {"$asset": "stories_vocabulary.json"},
            "gpt2": {"$asset": "gpt2_vocabulary.json", "lazy": True},
        }
    },
    "training_cost": {"family": family(), "devices": devices()},
}


class Renderer:
    """Renders widgets, and images that carry alternative text; leaves the rest to MyST-NB."""

    mime_priority_overrides: ClassVar[list[tuple[str, str, int]]] = [
        (builder, MIME_TYPE, 0) for builder in _HTML_BUILDERS
    ]

    @staticmethod
    def handle_mime(renderer: Any, data: Any, inline: bool) -> list[nodes.Element] | None:
        """Return the nodes for one output of a cell, or None to leave it to MyST-NB."""
        metadata = data.output_metadata.get(data.mime_type, {})
        if inline:
            return None
        if data.mime_type == MIME_TYPE:
            text = widget_html(data.content["widget"], data.content["state"], metadata["alt"])
            return [nodes.raw(text=text, format="html", classes=["gptlib-output"])]
        if data.mime_type == "image/png" and "alt" in metadata:
            return [_described(image, metadata) for image in renderer.render_image(data)]
        return None


def widget_html(name: str, state: dict[str, Any], description: str) -> str:
    """Return the HTML of one widget: its state as inert JSON, and the words shown without it."""
    return (
        f'<div class="gptlib-widget" data-gptlib-widget="{html.escape(name)}">'
        f'<script type="application/json">{_inert({**state, **_ADDED.get(name, {})})}</script>'
        f'<p class="gptlib-fallback">{html.escape(description)}</p></div>'
    )


def _inert(state: dict[str, Any]) -> str:
    """Write JSON in which no character can end or open an HTML element."""
    text = json.dumps(state, separators=(",", ":"), sort_keys=True)
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


class described_image(nodes.image):  # type: ignore[misc, unused-ignore]  # noqa: N801
    """An image that says its size in attributes, so that it can shrink with the page."""


def _described(image: nodes.image, metadata: dict[str, Any]) -> described_image:
    """Give an image the alternative text and the size that its output's metadata holds."""
    attributes = {key: str(metadata[key]) for key in ("alt", "width", "height") if key in metadata}
    # Sphinx links every image of a given size to its file, unless told not to.
    return described_image(uri=image["uri"], classes=["no-scaled-link"], **attributes)


def _visit_described_image(translator: Any, node: described_image) -> None:
    uri = node["uri"]
    if uri in translator.builder.images:
        uri = posixpath.join(translator.builder.imgpath, quote(translator.builder.images[uri]))
    attributes = {key: node[key] for key in ("alt", "width", "height") if key in node}
    image = nodes.image(uri=uri)
    translator.body.append(
        translator.emptytag(image, "img", "\n", src=uri, loading="lazy", **attributes)
    )


def _depart_described_image(translator: Any, node: described_image) -> None:
    pass


def page_files() -> Iterator[tuple[str, bytes]]:
    """Yield everything that the widgets load in a page: names and contents."""
    for part in ("", "lib", "page"):
        for kind in ("js", "css"):
            for source in sorted((FOLDER / part).glob(f"*.{kind}")):
                yield posixpath.join(part, source.name), source.read_bytes()
    for name in ("stories", "gpt2"):
        yield f"{name}_vocabulary.json", engine.vocabulary_json(name).encode()
    yield GRAMMAR, grammar_json().encode()
    yield REPLAY, (files("gptlib") / "assets" / "mini" / "replay.json").read_bytes()
    yield engine.WEIGHTS, engine.weights()
    yield engine.ABOUT, json.dumps({"file": engine.WEIGHTS, **engine.about()}).encode()


def write_files(folder: Path) -> None:
    """Write everything that the widgets load in a page into ``folder``."""
    for name, data in page_files():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)


@cache
def site_folder() -> str:
    """Return the name of the files' folder in the site, another one whenever a file changes.

    So a browser that still holds yesterday's modules never mixes them with today's page.
    """
    digest = hashlib.sha256()
    for name, data in page_files():
        digest.update(f"{name} {len(data)} ".encode() + data)
    return f"gptlib-{digest.hexdigest()[:12]}"


def _add_files_to_site(app: Sphinx) -> None:
    if app.builder.name in _HTML_BUILDERS:
        write_files(Path(app.outdir) / "_static" / site_folder())


def loaded(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the style sheets and the shared modules that widgets of some kinds load in a page.

    A page asks for the shared modules at once, so that no widget waits for a second answer.
    """
    names = sorted(set(names))
    styles = ["lib/base.css", *(f"{name}.css" for name in names)]
    return styles, all_imports(["page/host.js", *(f"{name}.js" for name in names)])


def _add_files_to_page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    names = [] if doctree is None else re.findall(r'data-gptlib-widget="(\w+)"', _widgets(doctree))
    if not names:
        return
    folder = site_folder()
    styles, modules = loaded(names)
    for style in styles:
        app.add_css_file(f"{folder}/{style}")
    app.add_js_file(f"{folder}/page/host.js", type="module")
    addresses = (context["pathto"](f"_static/{folder}/{name}", resource=True) for name in modules)
    links = [f'<link rel="modulepreload" href="{address}">' for address in addresses]
    context["metatags"] = "\n".join([context.get("metatags", ""), *links])


def _widgets(doctree: nodes.document) -> str:
    found = (node for node in doctree.findall(nodes.raw) if "gptlib-output" in node["classes"])
    return "".join(node.astext() for node in found)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    visitors = (_visit_described_image, _depart_described_image)
    app.add_node(described_image, **dict.fromkeys(["html"], visitors))
    app.connect("builder-inited", _add_files_to_site)
    app.connect("html-page-context", _add_files_to_page)
    return {"version": __version__, "parallel_read_safe": True, "parallel_write_safe": True}
