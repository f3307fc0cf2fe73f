"""The logit lens: what is stored, how exact it is, and what is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from torch import Tensor, nn

from gptlib import activations, pretrained, stories, tokenizer
from gptlib.config import GPTConfig
from gptlib.model import GPT
from gptlib.widgets import engine, logit_lens
from gptlib.widgets.base import MIME_TYPE
from gptlib.widgets.logit_lens import LogitLens

STORIES = tokenizer.stories()


def story(n_tokens: int) -> str:
    """Return the first tokens of a story, as text."""
    return STORIES.decode(STORIES.encode_ordinary(" ".join(stories.sample(2, seed=4)))[:n_tokens])


def random_gpt(**sizes: Any) -> GPT:
    """Return a small GPT with GPT-2's encoding."""
    known = {"vocab_size": 50_257, "context_length": 64, "emb_dim": 24, "n_heads": 2, "n_layers": 2}
    return GPT(GPTConfig(**known | sizes), torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def mini() -> GPT:
    return pretrained.load("mini")


def unpacked(lens: dict[str, Any]) -> tuple[list[str], Tensor, Tensor]:
    """Return the words that are said (E * T * K), and probabilities (E, T, K), (E, T, 2)."""
    cells = np.frombuffer(base64.b64decode(lens["cells"]), "<u2").astype(np.int64)
    table = torch.from_numpy(cells).view(lens["layers"] + 1, len(lens["tokens"]), -1)
    count = lens["count"]
    words = [lens["words"][i] for i in table[..., :count].flatten().tolist()]
    shares = table[..., count:].double() / 65_535
    return words, shares[..., :count], shares[..., count:]


def test_state_is_the_models_own_reading(mini: GPT) -> None:
    text = story(30)
    lens = LogitLens(mini, text, STORIES).lens
    ids = torch.tensor([[STORIES.eot_token, *STORIES.encode_ordinary(text)]])
    with activations.record(mini) as r, torch.no_grad():
        mini(ids)
    expected = activations.logit_lens(mini, r.residual)[:, 0].softmax(-1)  # (E, T, V)
    words, own, asked = unpacked(lens)
    top = expected.topk(5)
    assert (own - top.values).abs().max() < 1e-5
    said = [STORIES.decode_single_token_bytes(i) for i in top.indices.flatten().tolist()]
    ends = b"<|endoftext|>"
    assert words == ["" if word == ends else word.decode("latin-1") for word in said]
    wanted = torch.stack([expected[-1].argmax(-1), ids[0].roll(-1)], -1).expand(5, -1, -1)
    assert (asked - expected.gather(-1, wanted)).abs().max() < 1e-5
    assert lens["tokens"][0] == ""
    assert "".join(lens["tokens"]) == text
    shares = (expected.argmax(-1) == expected[-1].argmax(-1)).double().mean(-1)
    assert logit_lens.agreement(lens) == pytest.approx(shares.tolist())


def test_state_is_small_and_the_same_each_time(mini: GPT) -> None:
    bundles = []
    for _ in range(2):
        data, metadata = DisplayFormatter().format(LogitLens(mini, story(40), STORIES))
        assert data.pop("application/vnd.jupyter.widget-view+json")
        bundles.append(json.dumps([data, metadata]))
    assert bundles[0] == bundles[1]
    state = data[MIME_TYPE]["state"]
    assert set(state) == {"lens", "layer", "token", "mini"}
    assert state["mini"] == len(engine.weights())
    assert len(json.dumps(state)) < 15_000
    assert data["text/plain"].startswith("Logit lens of the text 'One ")
    assert "41 tokens" in data["text/plain"]


def test_gpt2s_twelve_layers_are_small_enough() -> None:
    gpt2 = tokenizer.gpt2()
    text = gpt2.decode(gpt2.encode_ordinary("Data visualization empowers users to " * 8)[:40])
    state = LogitLens(random_gpt(n_layers=12), text, gpt2).state()
    assert len(json.dumps(state)) < 30_000
    assert "mini" not in state
    assert state["lens"]["tokens"][:2] == ["", "Data"]


def test_the_table_follows_the_text(mini: GPT) -> None:
    widget = LogitLens(mini, story(20), STORIES)
    widget.token = 15
    before = widget.lens
    for text, part in (("", "empty"), (story(129), "129 tokens, but at most 128 can be shown")):
        widget.text = text
        assert part in widget.error
        assert widget.lens is before
    widget.text = "One \ud800day"
    assert (widget.error, widget.text) == ("", "One \ufffdday")
    assert "".join(widget.lens["tokens"]).encode("latin-1").decode() == widget.text
    assert widget.token <= len(widget.lens["tokens"]) - 1
    assert LogitLens(mini, "One \ufffdday", STORIES).lens == widget.lens


class Letters:
    """An encoding without an end of the text."""

    def encode_ordinary(self, text: str) -> list[int]:
        return [ord(character) - ord("a") for character in text]

    def decode_single_token_bytes(self, token: int) -> bytes:
        return chr(ord("a") + token).encode()


def test_any_encoding_any_type_any_mode() -> None:
    model = random_gpt(vocab_size=3, drop_rate=0.5).to(torch.bfloat16).train()
    lens = LogitLens(model, "abca", Letters()).lens
    assert model.training
    assert model.blocks[0].training
    assert not model.blocks[0]._forward_hooks
    assert (lens["tokens"], lens["count"]) == (["a", "b", "c", "a"], 3)
    _, own, _ = unpacked(lens)
    assert torch.allclose(own.sum(-1), torch.ones(()).double(), atol=1e-3)


def nan() -> GPT:
    model = random_gpt(vocab_size=3)
    model.final_norm.scale.data.fill_(torch.nan)
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogitLens(random_gpt(vocab_size=3), "", Letters()), "empty"),
        (lambda: LogitLens(random_gpt(vocab_size=3), "abcd", Letters()), "ids must be from 0"),
        (lambda: LogitLens(random_gpt(), "a " * 65, tokenizer.gpt2()), "at most 63 can be shown"),
        (lambda: LogitLens(nan(), "abc", Letters()), "finite"),
        (lambda: LogitLens(nn.Linear(2, 2), "abc", Letters()), "GPT"),  # type: ignore[arg-type]
        (
            lambda: setattr(LogitLens(random_gpt(vocab_size=3), "ab", Letters()), "layer", 3),
            "0 to 2",
        ),
        (
            lambda: setattr(LogitLens(random_gpt(vocab_size=3), "ab", Letters()), "token", -1),
            "0 to 1",
        ),
    ],
)
def test_what_cannot_be_shown_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_text_must_be_text(mini: GPT) -> None:
    with pytest.raises(TypeError, match="bytes"):
        LogitLens(mini, b"One day", STORIES)  # type: ignore[arg-type]
