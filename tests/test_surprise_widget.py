"""The surprise widget: what it stores, what it refuses, and its follower in JavaScript."""

from __future__ import annotations

import gzip
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import torch
from IPython.core.formatters import DisplayFormatter
from torch.nn import Identity, Linear, functional

from gptlib import pretrained, stories, tokenizer
from gptlib.config import GPTConfig
from gptlib.model import GPT
from gptlib.stories.surprise import Follower, surprisals
from gptlib.widgets import engine, page, surprise
from gptlib.widgets.base import MIME_TYPE
from gptlib.widgets.surprise import Surprise, grammar_json
from tests.javascript import run_script

pytestmark = pytest.mark.asset  # the widget shows what the mini model says

ROOT = Path(__file__).resolve().parent.parent
ENCODING = tokenizer.stories()
STORIES = stories.sample(3, stories.VALIDATION_SEED)
LEAVES = STORIES[0].replace("best friends", "best purple", 1)


@pytest.fixture(scope="module")
def widget() -> Surprise:
    return Surprise([STORIES[0], LEAVES, "It was a sunny day. Bella and her"])


def other_model(**sizes: int) -> GPT:
    size = {"vocab_size": 2048, "context_length": 256, "emb_dim": 8, "n_heads": 2, "n_layers": 1}
    return GPT(GPTConfig(**size | sizes), torch.Generator().manual_seed(0))


def small() -> Surprise:
    return Surprise("One", model=other_model())


# --- what is known of a story -----------------------------------------------------------------


def test_a_story_has_the_losses_of_the_model_and_of_the_best_predictor(widget: Surprise) -> None:
    story = widget.stories[0]
    exact = surprisals(STORIES[0], ENCODING)
    ids = [one.token for one in exact]
    with torch.no_grad():
        logits = pretrained.load("mini")(torch.tensor([[ENCODING.eot_token, *ids[:-1]]]))[0]
    losses = functional.cross_entropy(logits, torch.tensor(ids), reduction="none").tolist()
    assert "".join(story["tokens"]) == STORIES[0]
    assert story["tokens"][-1] == ""
    assert story["loss"] == pytest.approx(losses, abs=1e-4)
    assert story["surprisal"] == pytest.approx([one.surprisal for one in exact], abs=6e-5)
    assert story["entropy"] == pytest.approx([one.entropy for one in exact], abs=6e-5)
    assert story["end"] == {"kind": "whole"}
    assert widget.weights == engine.about()["bytes"]
    costs = [loss - one.surprisal for loss, one in zip(losses, exact, strict=True)]
    assert costs[widget.token] == pytest.approx(max(costs), abs=1e-3)


def test_shares_are_those_of_the_grammar_and_of_the_model(widget: Surprise) -> None:
    story = widget.stories[0]
    follower = Follower(ENCODING)
    for i, token in enumerate([*ENCODING.encode_ordinary(STORIES[0]), ENCODING.eot_token]):
        exact, flat = follower.next, story["shares"][i]
        rows = [flat[at : at + 3] for at in range(0, len(flat), 3)]
        assert story["possible"][i] == len(exact)
        for other, p, _ in rows:
            assert p == pytest.approx(exact.get(other, 0.0), abs=6e-4)
            assert story["names"][str(other)] == ENCODING.decode([other])
        if rows:
            assert rows[0][0] == token
            assert rows[0][2] == pytest.approx(math.exp(-story["loss"][i]), abs=6e-4)
            likeliest = max(exact.values())
            assert max(p for _, p, _ in rows) == pytest.approx(likeliest, abs=6e-4)
        else:
            assert exact == {token: 1.0}
            assert story["loss"][i] < 0.006
        follower.read(token)


def test_a_text_is_followed_as_far_as_it_is_a_story(widget: Surprise) -> None:
    whole, leaves, breaks = widget.stories
    at = leaves["tokens"].index(" purple")
    assert len(leaves["surprisal"]) == at
    assert leaves["surprisal"] == whole["surprisal"][:at]
    assert len(leaves["entropy"]) == len(leaves["possible"]) == at + 1
    assert len(leaves["loss"]) == len(leaves["tokens"])
    assert leaves["end"] == {"kind": "leaves", "expected": [" friends"], "others": 0}
    own, p, _ = leaves["shares"][at][:3]
    assert (ENCODING.decode([own]), p) == (" purple", 0.0)
    assert leaves["shares"][at + 1][1] is None

    assert breaks["end"]["kind"] == "breaks"
    assert len(breaks["surprisal"]) == len(breaks["loss"]) == len(breaks["tokens"])
    assert breaks["end"]["expected"] == [" friend", " best", " cousin", " neighbor", " classmate"]


def test_any_text_any_model_any_encoding() -> None:
    text = "<script>\u202e שלום 👩\u200d👩\u200d👧\x00<|endoftext|>\ud800"
    widget = Surprise(text, model=other_model())
    assert "".join(widget.stories[0]["tokens"]) == text.replace("\ud800", "\ufffd")
    assert widget.weights == 0
    gpt2 = other_model(vocab_size=50257)
    widget = Surprise(STORIES[0], tokenizer.gpt2(), gpt2)
    assert sum(widget.stories[0]["surprisal"]) == pytest.approx(
        -stories.log_prob(STORIES[0]), abs=0.01
    )
    assert widget.weights == 0
    assert gpt2.training


# --- the widget -------------------------------------------------------------------------------


def test_output_is_small_and_the_same_each_time(widget: Surprise) -> None:
    bundles = []
    for _ in range(2):
        data, metadata = DisplayFormatter().format(Surprise(STORIES[0]))
        del data["application/vnd.jupyter.widget-view+json"]
        assert set(data) == {MIME_TYPE, "text/plain"}
        assert metadata[MIME_TYPE] == {"alt": data["text/plain"]}
        bundles.append(json.dumps([data, metadata]))
    assert bundles[0] == bundles[1]
    for story in Surprise(STORIES).stories:
        assert len(json.dumps(story, separators=(",", ":"))) < 8_500  # 160 tokens
    words = widget.describe()
    assert f"{sum(widget.stories[0]['surprisal']):.2f}" in words
    assert "all as a story has them" in words
    widget.chosen = 1
    assert "the first 6 as a story has them" in widget.describe()
    widget.chosen = 0


def test_a_page_has_the_grammar(tmp_path: Path, widget: Surprise) -> None:
    page.write_files(tmp_path)
    data = (tmp_path / surprise.GRAMMAR).read_bytes()
    assert json.loads(data) == json.loads(grammar_json())
    assert len(gzip.compress(data, mtime=0)) < 40_000
    html = page.widget_html(widget._module, widget.state(), "")
    assert json.loads(html.split(">")[2].split("<")[0])["grammar"]["lazy"] is True


def test_the_kernel_hands_over_the_grammar(
    widget: Surprise, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(widget, "send", lambda content, buffers=None: sent.append(content))
    for message in ("grammar", {"type": "other"}, {"type": "grammar"}):
        widget._handle_custom_msg(message, [])
    (content,) = sent
    assert content["grammar"] == json.loads(grammar_json())
    assert len(content["vocabulary"]["tokens"]) == ENCODING.n_vocab
    assert "class Follower" in dict(content["modules"])["page/story_follower.js"]


def bare(**special: int) -> tiktoken.Encoding:
    """An encoding of two letters, and perhaps an end of text."""
    ranks = {b"a": 0, b"b": 1}
    return tiktoken.Encoding("bare", pat_str=".", mergeable_ranks=ranks, special_tokens=special)


@pytest.mark.parametrize(
    ("error", "words", "wrong"),
    [
        (TypeError, "str or several, not int: 3", lambda: Surprise(["One", 3])),  # type: ignore[list-item]
        (TypeError, "str or several, not bytes", lambda: Surprise(b"One")),  # type: ignore[arg-type]
        (TypeError, "str or several, not NoneType", lambda: Surprise(None)),  # type: ignore[arg-type]
        (ValueError, "must not be empty", lambda: Surprise("")),
        (ValueError, "1 to 12 texts, not 0", lambda: Surprise([])),
        (ValueError, "must not repeat a text", lambda: Surprise(["One", "One"])),
        (TypeError, "encoding must be .* not str", lambda: Surprise("One", "stories")),  # type: ignore[arg-type]
        (TypeError, "model must be .* not str", lambda: Surprise("One", model="mini")),  # type: ignore[arg-type]
        (ValueError, "no special token <.endoftext.>", lambda: Surprise("One", bare())),
        (
            ValueError,
            "'bare' has no token for 'O'",
            lambda: Surprise("One", bare(**{"<|endoftext|>": 2})),
        ),
        (ValueError, "301 tokens .* at most 256", lambda: Surprise("." + " a" * 300)),
        (
            ValueError,
            "the model knows 99 tokens, the encoding 2,048",
            lambda: Surprise("One", model=other_model(vocab_size=99)),
        ),
        (
            ValueError,
            "not take this story .RuntimeError",
            lambda: Surprise("One", model=Linear(3, 3)),
        ),
        (
            ValueError,
            "logits of shape .1, 2. for 2 tokens",
            lambda: Surprise("It was", model=Identity()),
        ),
        (ValueError, "color must be one of loss", lambda: small().set_trait("color", "x")),
        (ValueError, "chosen must be from 0 to 0", lambda: small().set_trait("chosen", 1)),
        (ValueError, "token must be from 0 to 0", lambda: small().set_trait("token", 7)),
    ],
)
def test_what_is_wrong_is_named(error: type[Exception], words: str, wrong: Any) -> None:
    with pytest.raises(error, match=words):
        wrong()


# --- the follower in JavaScript ---------------------------------------------------------------


def texts(n: int) -> list[list[int]]:
    """Return the ids of n stories, and of n that are cut or changed at a random place."""
    whole = [[*ENCODING.encode_ordinary(s), ENCODING.eot_token] for s in stories.sample(n, seed=5)]
    rng = random.Random(0)
    wrong = []
    for ids in whole:
        at = rng.randrange(len(ids) - 1)
        wrong.append(
            ids[:at] if rng.random() < 0.3 else [*ids[:at], rng.randrange(2047), *ids[at:]]
        )
    return whole + wrong


def in_python(ids: list[int]) -> dict[str, Any]:
    follower = Follower(ENCODING)
    found: dict[str, Any] = {"surprisals": [], "entropies": []}
    for token in ids:
        if token not in follower.next:
            best = sorted(follower.next, key=lambda other: -follower.next[other])
            return found | {
                "lost": {
                    "index": len(found["surprisals"]),
                    "character": len(ENCODING.decode(ids[: len(found["surprisals"])])),
                    "expected": [ENCODING.decode([other]) for other in best[:5]],
                    "others": max(len(best) - 5, 0),
                }
            }
        read = follower.read(token)
        found["surprisals"].append(read.surprisal)
        found["entropies"].append(read.entropy)
    return found


def compare(n: int) -> None:
    vocabulary = json.loads(engine.vocabulary_json("stories"))
    head = {"grammar": json.loads(grammar_json()), "vocabulary": vocabulary}
    cases = texts(n)
    answers = run_script("follow.js", [head, *cases])
    lost = 0
    for ids, found in zip(cases, answers, strict=True):
        expected = in_python(ids)
        assert found.get("lost") == expected.get("lost")
        for name in ("surprisals", "entropies"):
            assert found[name] == pytest.approx(expected[name], abs=1e-9)
        lost += "lost" in found
    assert 0.3 * n < lost <= n


def test_javascript_follows_a_story_as_python_does() -> None:
    compare(30)


@pytest.mark.slow
def test_javascript_follows_two_hundred_stories_as_python_does() -> None:
    compare(200)
