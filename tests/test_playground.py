"""The playground's Python side: its example is the model's, its state small and the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import traitlets
from torch.nn import functional

from gptlib import pretrained, tokenizer
from gptlib.widgets.base import MIME_TYPE
from gptlib.widgets.engine import weights
from gptlib.widgets.playground import (
    LIKELIEST,
    LONGEST,
    SHARES,
    SHORTEST,
    WRITTEN,
    Playground,
    example,
)

pytestmark = pytest.mark.asset  # the widget shows what the mini model says


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_example_is_what_the_model_says() -> None:
    encoding = tokenizer.stories()
    stored = example("Once upon a time 🙂")
    ids = torch.tensor(stored["ids"])
    begun = [encoding.eot_token, *encoding.encode_ordinary("Once upon a time 🙂")]
    assert stored["ids"][: stored["prompt"]] == begun
    assert stored["prompt"] == len(begun)
    assert SHORTEST <= len(ids) - len(begun) <= WRITTEN
    assert "".join(stored["texts"]).startswith("Once upon a time 🙂")
    assert stored["texts"][0] == ""
    with torch.no_grad():
        logits = pretrained.load("mini")(ids[None])[0]  # (T, V)
    losses = functional.cross_entropy(logits[:-1], ids[1:], reduction="none")
    assert torch.tensor(stored["losses"]) == pytest.approx(losses, abs=1e-3)
    assert len(stored["alternatives"]) == len(ids)  # one more place than there are losses
    for row, listed in zip(logits.softmax(-1), stored["alternatives"], strict=True):
        found = dict(zip(listed[::2], listed[1::2], strict=True))
        assert len(found) == LIKELIEST
        assert sorted(found.values(), reverse=True) == list(found.values())
        for token, share in found.items():
            assert share / SHARES == pytest.approx(float(row[token]), abs=1e-4)
            if token != encoding.eot_token:
                text = encoding.decode_bytes([token]).decode(errors="replace")
                assert stored["names"][str(token)] == text


@pytest.mark.parametrize("prompt", ["Once upon a time", "", "<script>alert(1)</script> שלום"])
def test_the_state_is_small_and_always_the_same(prompt: str) -> None:
    widget = Playground(prompt)
    text = json.dumps(widget.state(), separators=(",", ":"))
    example.cache_clear()
    assert json.dumps(Playground(prompt).state(), separators=(",", ":")) == text
    assert len(text) <= 12_000
    assert widget.state()["parts"] == ["write", "next", "surprise", "attention"]
    words = widget.describe()
    assert repr(prompt) in words
    assert "own browser" in words


def test_a_long_beginning_has_no_example() -> None:
    widget = Playground("word " * 2 * LONGEST)
    assert widget.state()["example"] == {}
    assert "As an example" not in widget.describe()


def test_what_is_shown_at_first_can_be_chosen() -> None:
    assert Playground(parts=["attention", "next"]).parts == ["write", "next", "attention"]
    assert Playground(parts=[]).parts == ["write"]
    assert Playground("\ud800!", seed=7).prompt == "\ufffd!"


@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (TypeError, "prompt must be a str, not int: 3", {"prompt": 3}),
        (TypeError, "parts must be a list of names, not the str 'next'", {"parts": "next"}),
        (ValueError, "one of write, next, surprise, attention, not 'bars'", {"parts": ["bars"]}),
        (ValueError, "seed must be from 0 to 4,294,967,295, not -1", {"seed": -1}),
    ],
)
def test_what_it_does_not_take(error: type, words: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(error, match=words):
        Playground(**arguments)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("temperature", 2.5, "temperature must be from 0 to 2 here, not 2.5"),
        ("temperature", 1e-9, "temperature must be from 0 to 2"),
        ("top_k", 0, "top_k must be from 1 to 100 here, not 0"),
        ("top_p", 0.0, "top_p must be above 0 and at most 1 here, not 0.0"),
        ("layer", 4, "layer must be from 0 to 3, not 4"),
        ("head", -1, "head must be from 0 to 5, not -1"),
        ("parts", ["write", "map"], "not 'map'"),
    ],
)
def test_settings_out_of_range(name: str, value: Any, words: str) -> None:
    widget = Playground()
    before = getattr(widget, name)
    with pytest.raises((ValueError, traitlets.TraitError), match=words):
        setattr(widget, name, value)
    assert getattr(widget, name) == before


def test_settings_are_in_the_state_and_what_was_written_is_not() -> None:
    widget = Playground(seed=5)
    widget.temperature, widget.top_k, widget.top_p, widget.text = 0.5, 3, 0.9, "Once."
    state = widget.state()
    chosen = ("seed", "temperature", "top_k", "top_p", "text")
    assert [state[name] for name in chosen] == [5, 0.5, 3, 0.9, ""]
    assert state["size"] == len(weights())


def test_a_notebook_gets_the_example_when_it_shows_the_widget() -> None:
    widget = Playground()
    assert widget.example == {}
    bundle = widget._repr_mimebundle_()
    assert bundle is not None
    assert bundle[0][MIME_TYPE]["widget"] == "playground"
    assert widget.example == bundle[0][MIME_TYPE]["state"]["example"] != {}
