"""What this book adds to Sphinx: callouts, long outputs, maths, links to references, buttons."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator

from gptlib import __version__, widgets
from gptlib.widgets.page import widget_html

ROOT = Path(__file__).resolve().parent.parent.parent
COLUMNS = 91  # of an output, in the page on a desktop
CALLOUTS = ("predict", "note", "careful", "try it", "in short")


class LiveWidget(SphinxDirective):
    """Put a widget of gptlib.widgets into a prose page: its class, then its arguments as YAML."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Make the widget and hand its state to the page."""
        arguments = yaml.safe_load("\n".join(self.content)) or {}
        widget = getattr(widgets, self.arguments[0])(**arguments)
        text = widget_html(widget._module, widget.state(), widget.describe())
        return [nodes.raw("", text, format="html", classes=["gptlib-output"])]


class Callouts(SphinxTransform):
    """Mark a quotation that begins with a bold word such as **Predict.** as a callout."""

    default_priority = 400

    def apply(self, **_: Any) -> None:
        """Add the classes; a quotation that begins otherwise stays a quotation."""
        for quote in self.document.findall(nodes.block_quote):
            strong = next(iter(quote.findall(nodes.strong)), None)
            kind = strong.astext().rstrip(".:?").lower() if strong else ""
            if kind in CALLOUTS and quote.astext().startswith(strong.astext()):
                quote["classes"] += ["callout", f"callout-{kind.replace(' ', '-')}"]


class Sentences(SphinxTransform):
    """Mark an output whose lines are too long for a table: sentences may be broken into lines."""

    default_priority = 400

    def apply(self, **_: Any) -> None:
        """Add the class."""
        for output in self.document.findall(_is_output):
            for block in output.findall(nodes.literal_block):
                if max(map(len, block.astext().splitlines()), default=0) > COLUMNS:
                    block["classes"].append("sentences")


def _is_output(node: nodes.Node) -> bool:
    return isinstance(node, nodes.container) and "cell_output" in node["classes"]


def set_dark_style(app: Sphinx) -> None:
    """Choose the colors of code in the dark; Furo reads them only after _config.yml is read."""
    app.config.pygments_dark_style = "a11y-dark"


def name_references(app: Sphinx, _: Any) -> None:
    """Let ``[text](references.md#key)`` reach the entry of the bibliography with that key."""
    keys = re.findall(r"^@\w+\{([\w-]+),", (ROOT / "book/references.bib").read_text("utf-8"), re.M)
    slugs = app.env.metadata["book/references"].setdefault("myst_slugs", {})
    slugs.update({key: (1, key, key) for key in keys})


def add_chapter_links(
    app: Sphinx, pagename: str, _: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Tell the template where a notebook can be opened and downloaded."""
    if doctree is None or not pagename.startswith("notebooks/"):
        return
    url = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))["repository"]["url"]
    slug = url.split("://", 1)[1].split("/", 1)[1]
    # The release's notebook, which installs the release's library.
    context["colab_url"] = (
        f"https://colab.research.google.com/github/{slug}/blob/v{__version__}/{pagename}.ipynb"
    )
    context["notebook_name"] = f"{pagename.rsplit('/', 1)[1]}.ipynb"


def write_inline_math(writer: HTML5Translator, node: nodes.math) -> None:
    """Write a formula as its own LaTeX, which maths.js draws in place."""
    writer.body.append(f'<span class="math">{escape(node.astext())}</span>')
    raise nodes.SkipNode


def write_display_math(writer: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula that stands on a line of its own."""
    writer.body.append(f'<div class="math">{escape(node.astext())}</div>\n')
    raise nodes.SkipNode


def add_katex(
    app: Sphinx, _: str, __: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Load KaTeX, from the book's own files, on pages that have maths to draw."""
    kinds = (nodes.math, nodes.math_block)
    if doctree is not None and any(True for kind in kinds for _ in doctree.findall(kind)):
        app.add_css_file("katex/katex.min.css")
        app.add_js_file("katex/katex.min.js", loading_method="defer")
        app.add_js_file("maths.js", loading_method="defer")


def mend_accessibility(
    app: Sphinx, _: str, __: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Correct what Sphinx and Furo write that a screen reader stumbles over."""
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace(
        'role="heading"', 'role="heading" aria-level="2"'
    )
    # The role is deprecated, and its parent is a list.
    body = context.get("body", "").replace('role="doc-biblioentry"', 'role="listitem"')
    context["body"] = body


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the pieces."""
    # Jupyter Book always sets this one, for an extension that this book leaves out.
    app.add_config_value("comments_config", {}, "")
    app.add_directive("gptlib-widget", LiveWidget)
    app.add_transform(Callouts)
    app.add_transform(Sentences)
    app.add_html_math_renderer("local_katex", (write_inline_math, None), (write_display_math, None))
    app.connect("builder-inited", set_dark_style, priority=100)
    app.connect("env-updated", name_references)
    app.connect("html-page-context", add_chapter_links)
    app.connect("html-page-context", add_katex)
    app.connect("html-page-context", mend_accessibility, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
