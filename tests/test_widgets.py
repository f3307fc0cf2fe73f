"""The widgets: what they store, what they refuse, and that JavaScript and Python agree."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import deno
import nbformat
import pytest
import torch
import traitlets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from IPython.core.formatters import DisplayFormatter

from gptlib import accounting, pretrained, tokenizer
from gptlib.config import FAMILY, GPTConfig
from gptlib.model import GPT
from gptlib.widgets import (
    ArchitectureMap,
    TokenExplorer,
    architecture_map,
    engine,
    page,
    token_explorer,
)
from gptlib.widgets.base import MIME_TYPE
from tests.javascript import FOLDER as SCRIPTS
from tests.javascript import run_deno

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "gptlib" / "widgets"
MODULES = ("architecture_map", "token_explorer")
SCRIPT = "</script><img src=x onerror=alert(1)>&<!--"
VIEW = "application/vnd.jupyter.widget-view+json"


# --- the output of a cell ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        ArchitectureMap,
        lambda: ArchitectureMap(["attention", "embeddings"], model="gpt3"),
        lambda: TokenExplorer("Once upon a time"),
        lambda: TokenExplorer(SCRIPT, encodings=["stories"]),
    ],
)
def test_output_has_three_forms_and_is_the_same_each_time(make: Callable[[], Any]) -> None:
    bundles = []
    for _ in range(2):
        widget = make()
        data, metadata = DisplayFormatter().format(widget)
        assert data.pop(VIEW)["model_id"] == widget.model_id
        assert set(data) == {MIME_TYPE, "text/plain"}
        assert data[MIME_TYPE]["widget"] == widget._module
        assert metadata[MIME_TYPE] == {"alt": data["text/plain"]}
        bundles.append(json.dumps([data, metadata]))
    assert bundles[0] == bundles[1]


def test_output_survives_a_notebook_file(tmp_path: Path) -> None:
    data, metadata = DisplayFormatter().format(TokenExplorer("two\nlines"))
    output = nbformat.v4.new_output("display_data", data, metadata=metadata)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output])])
    nbformat.write(notebook, tmp_path / "n.ipynb")
    read = nbformat.read(tmp_path / "n.ipynb", as_version=4).cells[0].outputs[0]
    assert read.data == data
    assert read.metadata == metadata


# --- architecture map -------------------------------------------------------------------------


def test_groups_stand_for_their_blocks() -> None:
    expected = ["token_embedding", "position_embedding", "dropout"]
    assert ArchitectureMap("embeddings").lit == expected
    assert ArchitectureMap(["dropout", "embeddings"]).lit == expected
    assert len(ArchitectureMap("block").lit) == 6
    assert ArchitectureMap().lit == []
    assert ArchitectureMap().chosen == ""
    assert ArchitectureMap(["sampling", "attention"]).chosen == "attention"


@pytest.mark.parametrize(
    ("wrong", "value", "allowed"),
    [
        (lambda: ArchitectureMap(lit="atention"), "atention", "attention"),
        (lambda: ArchitectureMap(lit=["block", 3]), "3", "embeddings"),  # type: ignore[list-item]
        (lambda: ArchitectureMap(model="gpt4"), "gpt4", "gpt2-xl"),
        (lambda: setattr(ArchitectureMap(), "model", "gpt4"), "gpt4", "gpt2-xl"),
        (lambda: setattr(ArchitectureMap(), "lit", ["x"]), "x", "output_head"),
        (lambda: setattr(ArchitectureMap(), "chosen", "x"), "x", "output_head"),
        (lambda: TokenExplorer("", encodings=["gpt4"]), "gpt4", "stories"),
        (lambda: TokenExplorer("", encodings=[]), "at least one", "stories"),
        (lambda: TokenExplorer("", encodings=["gpt2", "gpt2"]), "repeat", "gpt2"),
    ],
)
def test_wrong_names_are_refused_with_those_allowed(
    wrong: Callable[[], object], value: str, allowed: str
) -> None:
    with pytest.raises(ValueError, match=f"(?=.*{value}).*{allowed}"):
        wrong()


def test_description_of_the_map_counts_the_parameters() -> None:
    words = ArchitectureMap("attention").describe()
    assert "124,439,808 parameters" in words
    assert "You are here: masked multi-head attention" in words
    assert "You are here" not in ArchitectureMap().describe()


# --- token explorer ---------------------------------------------------------------------------


def test_tokens_follow_the_text() -> None:
    widget = TokenExplorer("Hello")
    widget.text = "Hello, world"
    assert widget.tokens["text"] == "Hello, world"
    assert widget.tokens["gpt2"] == {"ids": [15496, 11, 995], "lengths": [5, 1, 6]}
    assert sum(widget.tokens["stories"]["lengths"]) == 12
    widget.encodings = ["gpt2"]
    assert set(widget.tokens) == {"text", "gpt2"}


def test_special_tokens_in_a_text_are_text() -> None:
    ids = TokenExplorer(tokenizer.END_OF_TEXT).tokens["gpt2"]["ids"]
    assert 50256 not in ids
    assert len(ids) > 1


def test_a_token_is_as_long_as_its_bytes() -> None:
    text = "Lily's café 🙂"
    for name in ("gpt2", "stories"):
        lengths = TokenExplorer(text).tokens[name]["lengths"]
        assert sum(lengths) == len(text.encode()) > len(text), name


def test_long_texts_are_cut_and_lone_surrogates_replaced() -> None:
    widget = TokenExplorer("🙂" * (token_explorer.LIMIT + 1))
    assert widget.tokens["text"] == "🙂" * token_explorer.LIMIT
    assert len(widget.text) == token_explorer.LIMIT + 1
    widget.text = "a\ud800b"
    assert widget.text == widget.tokens["text"] == "a\ufffdb"
    assert TokenExplorer("").tokens["gpt2"] == {"ids": [], "lengths": []}


def test_text_must_be_text() -> None:
    with pytest.raises(TypeError, match="bytes"):
        TokenExplorer(b"bytes")  # type: ignore[arg-type]
    with pytest.raises(traitlets.TraitError):
        TokenExplorer("").text = 3


def test_stored_state_packs_the_tokens() -> None:
    state = TokenExplorer("Hello, world", ["gpt2"]).state()
    assert state["tokens"]["gpt2"] == {"ids": "15496 11 995", "lengths": "5 1 6"}


# --- the page ---------------------------------------------------------------------------------


class _Elements(HTMLParser):
    """Collects the elements and the text of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_state_in_a_page_is_inert_and_complete() -> None:
    widget = TokenExplorer(SCRIPT + " \u2028 é")
    html = page.widget_html(widget._module, widget.state(), widget.describe())
    parsed = _Elements(html)
    assert parsed.found == ["div", "script", "p"]
    assert "<" not in parsed.texts[0]
    state = json.loads(parsed.texts[0])
    assert state["text"] == widget.text
    assert state["tokens"] == widget.state()["tokens"]
    assert state["vocabularies"]["gpt2"] == {"$asset": "gpt2_vocabulary.json", "lazy": True}
    assert parsed.texts[1] == widget.describe()


def test_renderer_leaves_other_outputs_alone() -> None:
    def handle(mime_type: str, metadata: dict[str, Any], inline: bool = False) -> object:
        data = SimpleNamespace(mime_type=mime_type, content="", output_metadata=metadata)
        return page.Renderer.handle_mime(None, data, inline)

    assert handle("text/html", {}) is None
    assert handle("image/png", {}) is None
    assert handle("image/png", {"image/png": {"width": 3}}) is None
    assert handle(MIME_TYPE, {MIME_TYPE: {"alt": ""}}, inline=True) is None


@pytest.mark.asset
def test_a_site_loads_the_widgets_where_they_are(tmp_path: Path) -> None:
    sphinx = pytest.importorskip("sphinx.cmd.build", reason="the book's packages are not installed")
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "conf.py").write_text(
        "extensions = ['myst_nb', 'gptlib.widgets.page']\n"
        "nb_execution_mode = 'off'\nhtml_theme = 'furo'\n"
    )
    data, metadata = DisplayFormatter().format(ArchitectureMap())
    del data[VIEW]
    picture = {"image/png": "iVBORw0KGgo=", "text/plain": "words"}
    size = {"image/png": {"alt": 'A <b>"line"', "width": 640, "height": 360}}
    outputs = [
        nbformat.v4.new_output("display_data", data, metadata=metadata),
        nbformat.v4.new_output("display_data", picture, metadata=size),
        nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="}),
    ]
    code = nbformat.v4.new_code_cell("draw()", outputs=outputs)
    cells = [nbformat.v4.new_markdown_cell("# One"), code]
    language = {"language_info": {"name": "python", "pygments_lexer": "python"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=language)
    nbformat.write(notebook, source / "index.ipynb")
    (source / "other.md").write_text("---\norphan: true\n---\n# Two\n\nNo widget.\n")
    assert sphinx.build_main(["-W", "-n", "-q", str(source), str(out)]) == 0

    folder = page.site_folder()
    index, other = (out / "index.html").read_text(), (out / "other.html").read_text()
    assert 'data-gptlib-widget="architecture_map"' in index
    assert f'type="module" src="_static/{folder}/page/host.js' in index
    assert 0 < index.index(f"{folder}/lib/base.css") < index.index(f"{folder}/architecture_map.css")
    assert f'<link rel="modulepreload" href="_static/{folder}/lib/kit.js">' in index
    assert "token_explorer.css" not in index
    assert "gptlib" not in other
    first, second = re.findall("<img[^>]*>", index)
    assert 'alt="A &lt;b&gt;&quot;line&quot;" height="360" loading="lazy"' in first
    assert 'width="640"' in first
    assert "style" not in first
    assert "loading" not in second
    site = out / "_static" / folder
    files = {path.relative_to(site).as_posix() for path in site.rglob("*.*")}
    assert files >= {"page/host.js", "lib/base.css", "lib/kit.js"}
    assert files >= {"stories_vocabulary.json", "gpt2_vocabulary.json"}
    assert files >= {f"{name}.js" for name in MODULES}
    about = json.loads((site / "mini.json").read_text())
    weights = (site / about["file"]).read_bytes()
    assert (len(weights), hashlib.sha256(weights).hexdigest()) == (about["bytes"], about["sha256"])
    assert about["config"]["n_layer"] == FAMILY["mini"].n_layers


def test_a_file_that_changes_moves_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a browser would mix yesterday's modules, which it still holds, with today's page."""
    files = list(page.page_files())
    names = set()
    for text in (b"one", b"two"):
        monkeypatch.setattr(page, "page_files", lambda text=text: [*files, ("lib/new.js", text)])
        page.site_folder.cache_clear()
        names.add(page.site_folder())
    monkeypatch.undo()
    page.site_folder.cache_clear()
    assert len({*names, page.site_folder()}) == 3


# --- the model in the page --------------------------------------------------------------------


@pytest.mark.asset
def test_the_kernel_hands_the_model_over_when_it_is_asked(monkeypatch) -> None:
    sent = []

    class Runs(engine.EngineWidget):
        _module = "token_explorer"

    widget = Runs()
    monkeypatch.setattr(widget, "send", lambda content, buffers: sent.append((content, buffers)))
    for content in ({"type": "other"}, "engine", None, {"type": "engine"}):
        widget._handle_custom_msg(content, [])
    ((answer, (weights,)),) = sent
    modules = dict(answer["modules"])
    assert set(modules) == {"page/gpt.js", "page/gpt_worker.js", "lib/bpe.js"}
    assert "export class KVCache" in modules["page/gpt.js"]
    assert len(answer["load"]["vocabulary"]["tokens"]) == answer["load"]["config"]["vocab_size"]
    assert hashlib.sha256(weights).hexdigest() == answer["load"]["sha256"]


@pytest.mark.asset
def test_the_mini_model_is_told_from_others() -> None:
    mini = pretrained.load("mini")
    assert engine.is_mini(mini)
    with torch.no_grad():
        mini.final_norm.shift[0] += 1
    assert not engine.is_mini(mini)
    assert not engine.is_mini(GPT(replace(FAMILY["mini"], n_layers=1)))


# --- the front end ----------------------------------------------------------------------------


def test_javascript_tests_pass() -> None:
    files = sorted((ROOT / "tests" / "js").glob("*.test.js"))
    assert len(files) > 10
    run_deno("test", "--no-check", "--allow-read", *files)


@pytest.fixture(scope="module")
def javascript() -> Iterator[Callable[..., Any]]:
    """Call an exported function of a module: ``javascript("token_explorer", "cut", text)``."""
    process = subprocess.Popen(
        [deno.find_deno_bin(), "run", "--no-check", "--allow-read", SCRIPTS / "bridge.js"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert process.stdin
    assert process.stdout

    def call(module: str, name: str, *arguments: object) -> Any:
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps([module, name, *arguments]) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield call
    process.stdin.close()
    process.wait(timeout=10)
    process.stdout.close()


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabularies")
    for name in ("stories", "gpt2"):
        (folder / f"{name}_vocabulary.json").write_text(engine.vocabulary_json(name), "utf-8")
    return folder


def _sizes(config: GPTConfig) -> dict[str, Any]:
    return {size: getattr(config, size) for size in architecture_map._SIZES}


def test_javascript_knows_the_same_blocks_and_limit(javascript: Callable[..., Any]) -> None:
    blocks = javascript("architecture_map", "BLOCKS")
    assert [block["name"] for block in blocks] == list(architecture_map.BLOCKS)
    assert javascript("token_explorer", "LIMIT") == token_explorer.LIMIT


def test_javascript_counts_the_family_as_python_does(javascript: Callable[..., Any]) -> None:
    assert [member["name"] for member in architecture_map.family()] == list(FAMILY)
    for config in FAMILY.values():
        assert javascript("lib/accounting", "parameters", _sizes(config)) == (
            accounting.parameters(config)
        )
        total = javascript("lib/accounting", "total", _sizes(config))
        assert total == accounting.total(config)
        text = javascript("lib/numbers", "formatCount", total)
        assert text == accounting.format_count(total)


_configs = st.builds(
    lambda heads, head_dim, **sizes: GPTConfig(n_heads=heads, emb_dim=heads * head_dim, **sizes),
    heads=st.integers(1, 128),
    head_dim=st.integers(1, 256),
    vocab_size=st.integers(1, 300_000),
    context_length=st.integers(1, 100_000),
    n_layers=st.integers(1, 200),
    qkv_bias=st.booleans(),
    tie_head=st.booleans(),
)
_FIXTURE = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow)


@settings(max_examples=200, deadline=None, suppress_health_check=_FIXTURE)
@given(config=_configs)
def test_javascript_counts_any_model_as_python_does(
    javascript: Callable[..., Any], config: GPTConfig
) -> None:
    assert javascript("lib/accounting", "parameters", _sizes(config)) == (
        accounting.parameters(config)
    )


# Characters that this Python knows, so that the two sides' versions of Unicode cannot differ.
_characters = st.characters(exclude_categories=("Cs", "Cn"))
_TRICKY = [
    *("\u0085", "\ufeff", "\u180e", "\u00a0", "\u200b", "\u2028", "\u3000", "\x1c", "\x00"),
    *(
        "e\u0301",
        "\u0301",
        "👩\u200d👩\u200d👧",
        "🙂",
        "漢字",
        "가",
        "नमस्ते",
        "²",
        "٣",
        "Ⅷ",
        "½",
        "ǅ",
    ),
    *("'", "''", "'ll", "'LL", "'S", "'s", "'re", "'", " ", "  ", "\n", "\r\n", "\t", "_", "-"),
    *("the", " the", "The ", "12", "3", "<|endoftext|>", "<img src=x onerror=alert(1)>", "\u202e"),
    *("aaaaaaaaaaaaaaaa", "====", "https://", "\ufffd", "\U0010ffff", "\ue000"),
]
_texts = st.lists(st.sampled_from(_TRICKY) | st.text(_characters, max_size=12), max_size=12).map(
    "".join
)


@pytest.mark.parametrize("name", ["stories", "gpt2"])
@settings(max_examples=300, deadline=None, suppress_health_check=_FIXTURE)
@given(text=_texts)
def test_javascript_tokenizes_as_tiktoken_does(
    javascript: Callable[..., Any], vocabularies: Path, name: str, text: str
) -> None:
    path = {"$vocabulary": str(vocabularies / f"{name}_vocabulary.json")}
    tokens = javascript("token_explorer", "encode", text, path)
    assert tokens == token_explorer.tokenize(text, [name])[name]


@pytest.mark.parametrize("name", ["stories", "gpt2"])
def test_javascript_tokenizes_long_pieces_as_tiktoken_does(
    javascript: Callable[..., Any], vocabularies: Path, name: str
) -> None:
    path = {"$vocabulary": str(vocabularies / f"{name}_vocabulary.json")}
    for text in ("ab" * 2500, "a" * 5000, "-=" * 2500, " " * 5000, "🙂" * 5000, "thethat" * 700):
        tokens = javascript("token_explorer", "encode", text, path)
        assert tokens == token_explorer.tokenize(text, [name])[name]


@settings(max_examples=100, deadline=None, suppress_health_check=_FIXTURE)
@given(text=st.text(st.characters(), max_size=30), times=st.integers(1, 400))
def test_javascript_cuts_a_text_where_python_does(
    javascript: Callable[..., Any], text: str, times: int
) -> None:
    shown = token_explorer.tokenize(text * times, [])["text"]
    assert javascript("token_explorer", "cut", text * times) == shown
    assert javascript("token_explorer", "countCharacters", shown) == len(shown)
