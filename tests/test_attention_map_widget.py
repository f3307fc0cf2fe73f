"""The attention maps: what is stored, how exact it is, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
import tiktoken
import torch
import traitlets
from IPython.core.formatters import DisplayFormatter
from torch import nn

from gptlib import pretrained, tokenizer
from gptlib.activations import AttentionSteps, attention_maps
from gptlib.config import GPTConfig
from gptlib.model import GPT, CausalSelfAttention
from gptlib.widgets import AttentionMap, attention_map, engine
from gptlib.widgets.base import MIME_TYPE
from tests.javascript import run_code

TEXT = "The quick brown fox's café 🙂\n\tjumps over <b>"

# The number shown last is off by one at most: an error of half a step, and half a step to round.
WEIGHT_ERROR = 0.0005


class Words:
    """An encoding of a chapter's own: a word is a token."""

    words = ("the", "fox", "saw", "a", "dog")

    def encode_ordinary(self, text: str) -> list[int]:
        ids = {word: i for i, word in enumerate(self.words)}
        return [ids[word] for word in text.split()]

    def decode_single_token_bytes(self, token: int) -> bytes:
        return self.words[token].encode()


def toy(**sizes: int) -> nn.Module:
    """Return attention on an embedding, with random weights."""
    config = GPTConfig(
        **{"vocab_size": 5, "context_length": 8, "emb_dim": 8, "n_heads": 2, "n_layers": 1} | sizes
    )
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(config.vocab_size, 8), CausalSelfAttention(config))


def gpt(peaked: float = 1.0, **sizes: Any) -> GPT:
    """Return a small GPT; the larger `peaked`, the more its heads look at single tokens."""
    config = GPTConfig(
        **{
            "vocab_size": 50_257,
            "context_length": 64,
            "emb_dim": 32,
            "n_heads": 4,
            "n_layers": 3,
            "drop_rate": 0.1,
        }
        | sizes
    )
    model = GPT(config, torch.Generator().manual_seed(0))
    for block in model.blocks:
        block.attention.query_key_value.weight.data *= peaked
    return model


@pytest.fixture(scope="module")
def model() -> GPT:
    return gpt(peaked=30)


@pytest.fixture(scope="module")
def widget(model: GPT) -> AttentionMap:
    return AttentionMap(model, TEXT, tokenizer.gpt2(), layer=1, head=3)


def drawn(maps: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    """Return scaled scores, their errors and weights `(L, H, T, T)` as the front end has them."""
    code = """
        const codes = widget.decode(given);
        for (let k = 0; k < given.layers * given.heads; k++) {
          const { scaled, errors, weights } = widget.headOf(codes, k);
          log([scaled, errors, weights].map((values) => [...values]));
        }
    """
    heads = run_code("attention_map", code, maps)
    size = len(maps["tokens"])
    shape = (maps["layers"], maps["heads"], size, size)
    return tuple(
        torch.tensor(
            [[float("nan") if value is None else value for value in head[part]] for head in heads],
            dtype=torch.float64,
        ).reshape(shape)
        for part in range(3)
    )


def steps_of(model: nn.Module, text: str) -> AttentionSteps:
    ids = torch.tensor([tokenizer.gpt2().encode_ordinary(text)])
    return AttentionSteps(*(step[:, 0].double() for step in attention_maps(model, ids)))


def worst(found: tuple[torch.Tensor, ...], steps: AttentionSteps) -> float:
    """Check scores and weights against PyTorch's; return the weights' largest error."""
    scaled, errors, weights = found
    size = scaled.shape[-1]
    stored = ~scaled.isnan()
    assert stored[..., torch.ones(size, size).tril().bool()].all()
    slack = 1e-6 + 1e-6 * steps.scaled.abs().max()
    assert ((scaled - steps.scaled).abs() <= errors + slack)[stored].all()
    assert (weights[steps.masked.isneginf()] == 0).all()
    assert torch.allclose(weights.sum(-1), torch.ones(()).double())
    return float((weights - steps.weights).abs().max())


# --- what is stored ---------------------------------------------------------------------------


def test_state_is_the_models_attention(model: GPT, widget: AttentionMap) -> None:
    maps = widget.state()["maps"]
    ids = tokenizer.gpt2().encode_ordinary(TEXT)
    assert (maps["layers"], maps["heads"], maps["channels"]) == (3, 4, 8)
    assert b"".join(token.encode("latin-1") for token in maps["tokens"]) == TEXT.encode()
    assert len(maps["tokens"]) == len(ids)
    found = drawn(maps)
    assert not found[0].isnan().any()
    assert worst(found, steps_of(model, TEXT)) < WEIGHT_ERROR / 10


@pytest.mark.parametrize("peaked", [1, 12, 40, 150])
@pytest.mark.parametrize("full", [True, False])
def test_twelve_bits_are_enough_for_three_decimals(
    monkeypatch: pytest.MonkeyPatch, peaked: float, full: bool
) -> None:
    monkeypatch.setattr(attention_map, "PACKINGS", ((12, full),))
    model = gpt(peaked=peaked, n_layers=4)
    text = "Once upon a time there was a small fox who looked at the moon. " * 3
    text = tokenizer.gpt2().decode(tokenizer.gpt2().encode_ordinary(text)[:48])
    found = drawn(AttentionMap(model, text, tokenizer.gpt2()).maps)
    assert found[0].isnan().any() == (not full)
    assert worst(found, steps_of(model, text)) < WEIGHT_ERROR


def test_large_maps_keep_to_700_kilobytes() -> None:
    scaled = torch.randn(12, 12, 64, 64, generator=torch.Generator().manual_seed(0)) * 5
    packed = attention_map.pack(scaled)
    assert packed["bits"] == 12
    assert not packed["above"]
    assert 600_000 < sum(len(str(value)) for value in packed.values()) < 660_000
    smaller = attention_map.pack(scaled[:, :, :40, :40])
    assert smaller["bits"] == 16
    assert smaller["above"]


def test_stored_notebook_of_twelve_by_twelve_by_64_tokens(tmp_path: Path) -> None:
    model = gpt(peaked=12, n_layers=12, n_heads=12, emb_dim=48, vocab_size=64)
    text = "".join(chr(ord("0") + i) for i in range(64))

    class Characters:
        def encode_ordinary(self, text: str) -> list[int]:
            return [ord(character) - ord("0") for character in text]

        def decode_single_token_bytes(self, token: int) -> bytes:
            return chr(ord("0") + token).encode()

    data, metadata = DisplayFormatter().format(AttentionMap(model, text, Characters()))
    del data["application/vnd.jupyter.widget-view+json"]
    output = nbformat.v4.new_output("display_data", data, metadata=metadata)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("m", outputs=[output])])
    nbformat.write(notebook, tmp_path / "n.ipynb")
    assert (tmp_path / "n.ipynb").stat().st_size < 700_000


def test_equal_scores_and_a_single_token_can_be_shown() -> None:
    model = toy()
    model[1].query_key_value.weight.data.zero_()
    model[1].query_key_value.bias.data.zero_()
    scaled, errors, weights = drawn(AttentionMap(model, "the fox saw", Words()).maps)
    assert (scaled == 0).all()
    assert (errors < 1e-6).all()
    assert torch.allclose(weights[0, 0, 2], torch.full((3,), 1 / 3, dtype=torch.float64))
    assert drawn(AttentionMap(toy(), "dog", Words()).maps)[2].flatten().tolist() == [1, 1]


def test_half_precision_models_can_be_shown() -> None:
    model = toy().to(torch.bfloat16)
    steps = attention_maps(model, torch.tensor([[0, 1, 2]]))
    weights = drawn(AttentionMap(model, "the fox saw", Words()).maps)[2]
    assert torch.allclose(
        weights,
        steps.scaled[:, 0]
        .double()
        .tril()
        .masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf)
        .softmax(-1),
        atol=1e-4,
    )


@pytest.mark.asset
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loaded_model_can_be_shown(dtype: torch.dtype) -> None:
    model = pretrained.load("mini", dtype)
    maps = AttentionMap(model, "Once upon a time", tokenizer.stories()).maps
    assert (maps["layers"], maps["heads"]) == (model.config.n_layers, model.config.n_heads)
    ids = torch.tensor([tokenizer.stories().encode_ordinary("Once upon a time")])
    steps = attention_maps(model, ids)
    weights = steps.scaled[:, 0].double() + torch.full((ids.shape[1],) * 2, -torch.inf).triu(1)
    assert torch.allclose(drawn(maps)[2], weights.softmax(-1), atol=WEIGHT_ERROR)


def test_a_model_from_a_folder_with_a_head_of_its_own_can_be_shown(tmp_path: Path) -> None:
    """It has GPT-2's encoding, as one of 124 million parameters has."""
    saved = gpt(peaked=30, tie_head=False, n_layers=2)
    model = pretrained.load(pretrained.save(saved, tmp_path))
    widget = AttentionMap(model, TEXT, tokenizer.gpt2())
    assert widget.maps == AttentionMap(saved.eval(), TEXT, tokenizer.gpt2()).maps


def test_output_is_the_same_each_time_and_names_no_number_of_the_model(model: GPT) -> None:
    bundles = []
    for _ in range(2):
        data, metadata = DisplayFormatter().format(AttentionMap(model, TEXT, tokenizer.gpt2()))
        assert data.pop("application/vnd.jupyter.widget-view+json")
        assert set(data) == {MIME_TYPE, "text/plain"}
        assert data[MIME_TYPE]["widget"] == "attention_map"
        assert "live" not in data[MIME_TYPE]["state"]
        assert "error" not in data[MIME_TYPE]["state"]
        bundles.append(json.dumps([data, metadata]))
    assert bundles[0] == bundles[1]
    words = AttentionMap(toy(), "the fox", Words()).describe()
    assert words.startswith("Attention maps of the text 'the fox': 2 tokens, 1 layer with 2 heads")
    assert "." not in words.replace(". ", " ").rstrip(".")


@pytest.mark.asset
def test_only_of_the_mini_model_a_page_reads_other_texts(model: GPT) -> None:
    mini, encoding = pretrained.load("mini"), tokenizer.stories()
    size = len(engine.weights())
    assert AttentionMap(mini, "One day", encoding).state()["mini"] == size
    assert "mini" not in AttentionMap(model, TEXT, tokenizer.gpt2()).state()
    mini.final_norm.shift.data += 1
    assert "mini" not in AttentionMap(mini, "One day", encoding).state()


def test_the_model_stays_in_its_mode(model: GPT) -> None:
    model.train()
    AttentionMap(model, TEXT, tokenizer.gpt2())
    assert model.training
    assert not model.blocks[0].attention._forward_pre_hooks


def test_widgets_are_imported_without_torch() -> None:
    code = "import sys, gptlib.widgets; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


# --- the reader types -------------------------------------------------------------------------


def test_maps_follow_the_text(model: GPT) -> None:
    widget = AttentionMap(model, TEXT, tokenizer.gpt2(), layer=2, head=1)
    widget.token, widget.column = 14, 3
    sent: list[dict[str, Any]] = []
    widget.observe(lambda change: sent.append(change), "maps")
    widget.text = "Two dogs"
    assert len(sent) == 1
    assert widget.maps["tokens"] == ["Two", " dogs"]
    assert (widget.token, widget.column, widget.layer, widget.head) == (1, -1, 2, 1)
    assert worst(drawn(widget.maps), steps_of(model, "Two dogs")) < WEIGHT_ERROR
    assert widget.error == ""
    widget.text = "a\ud800b"
    assert widget.text == widget.maps["text"] == "a\ufffdb"


def test_a_text_that_cannot_be_shown_leaves_the_last_map(model: GPT) -> None:
    widget = AttentionMap(model, TEXT, tokenizer.gpt2())
    before = widget.maps
    for text, part in (("", "empty"), ("dog " * 65, "context_length is 64")):
        widget.text = text
        assert part in widget.error
        assert "\n" not in widget.error
        assert widget.maps is before
    widget.text = TEXT
    assert widget.error == ""
    assert widget.maps is before


# --- what is refused --------------------------------------------------------------------------

LETTERS = tiktoken.Encoding(
    "abc", pat_str=".", mergeable_ranks={b"a": 0, b"b": 1, b"c": 2}, special_tokens={}
)
PAIRS = tiktoken.Encoding("ab", pat_str=r"\w+", mergeable_ranks={b"ab": 0}, special_tokens={})


class Failing(nn.Module):
    """Holds attention, but cannot be called."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = CausalSelfAttention(GPTConfig(8, 8, 8, 2, 1))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("sizes differ\nand more")


def nan() -> nn.Module:
    model = toy()
    model[1].query_key_value.weight.data.fill_(torch.nan)
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AttentionMap(toy(), "", Words()), "empty"),
        (lambda: AttentionMap(toy(), "   ", Words()), "no token"),
        (lambda: AttentionMap(toy(), "the cat", Words()), "no token for 'cat'"),
        (lambda: AttentionMap(toy(), "abé", LETTERS), "no token for 'é'"),
        (lambda: AttentionMap(toy(), "abb", PAIRS), "no tokens for a part"),
        (lambda: AttentionMap(toy(), "the " * 129, Words()), "129 tokens, but at most 128"),
        (lambda: AttentionMap(toy(vocab_size=3), "a dog", Words()), "IndexError: index out"),
        (lambda: AttentionMap(Failing(), "a dog", Words()), r"\(RuntimeError: sizes differ\)$"),
        (lambda: AttentionMap(nan(), "a dog", Words()), "finite"),
        (lambda: AttentionMap(nn.Linear(2, 2), "a dog", Words()), "no CausalSelfAttention"),
        (lambda: AttentionMap(toy(), "a dog", Words(), layer=1), "layer must be from 0 to 0, .* 1"),
        (lambda: AttentionMap(toy(), "a dog", Words(), head=-1), "head must be from 0 to 1, .* -1"),
        (lambda: setattr(AttentionMap(toy(), "a dog", Words()), "token", 2), "token must be .* 2"),
        (lambda: setattr(AttentionMap(toy(), "a dog", Words()), "column", -2), "from -1 to 1"),
        (lambda: setattr(AttentionMap(toy(), "a dog", Words()), "step", "sum"), "scores, scaled"),
    ],
)
def test_what_cannot_be_shown_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_large_models_allow_fewer_tokens() -> None:
    config = GPTConfig(8, 128, 48 * 2, 48, 1)
    model = nn.Sequential(nn.Embedding(8, 96), *(CausalSelfAttention(config) for _ in range(25)))
    with pytest.raises(ValueError, match="41 tokens, but at most 40"):
        AttentionMap(model, "the " * 41, Words())


def test_text_must_be_text() -> None:
    with pytest.raises(TypeError, match="bytes"):
        AttentionMap(toy(), b"the fox", Words())  # type: ignore[arg-type]
    with pytest.raises(traitlets.TraitError):
        AttentionMap(toy(), "the fox", Words()).text = 3
