"""Chapter 8's checkers: right answers pass, and typical wrong ones are told what is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gptlib.activations import Record, changed, record, same_word
from gptlib.model import GPT
from tests.test_model import one_thread

__all__ = ["one_thread"]  # the fixture serves this module too

Say = Callable[[str, object], str]
ALL = ["8.1", "8.2", "8.3", "8.4", "8.5", "8.6"]


def blank(*_: Any) -> Any:
    return ...


@pytest.mark.parametrize("name", ALL)
def test_a_blank_is_not_tried_yet(say: Say, name: str) -> None:
    assert say(name, ...).startswith(f"○ {name} not tried yet")
    if name != "8.4":
        assert say(name, blank).startswith(f"○ {name} not tried yet")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("answer", ["words", None, lambda *_: None, lambda: 1, lambda *_: "x"])
def test_answers_of_the_wrong_kind_are_told_so(say: Say, name: str, answer: object) -> None:
    assert say(name, answer).startswith(f"✗ {name} ")


def wrong(say: Say, name: str, answer: object, words: str) -> None:
    line = say(name, answer)
    assert line.startswith(f"✗ {name} ")
    assert words in line


def far(weights: Tensor) -> Tensor:
    position = torch.arange(weights.shape[-1])
    return (weights * (position[:, None] - position)).sum(-1)  # (L, H, T)


class TestDistance:
    def test_right(self, say: Say) -> None:
        assert say("8.1", lambda weights: far(weights).mean(-1)).startswith("✓ 8.1 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda weights: far(weights).sum(-1), "Average over the positions"),
            (lambda weights: -far(weights).mean(-1), "stands in the row"),
            (lambda weights: far(weights).mean(-1) / weights.shape[-1], "a sum, not a mean"),
            (lambda weights: far(weights).mean(), "expected shape (2, 3)"),
            (lambda weights: far(weights)[..., 1:].mean(-1), "with distance 0"),
        ],
    )
    def test_wrong(self, say: Say, answer: object, words: str) -> None:
        wrong(say, "8.1", answer, words)


def latest(ids: Tensor) -> Tensor:
    places = torch.zeros(len(ids), len(ids), dtype=torch.bool)
    for t in range(len(ids)):
        before = [i for i in range(t) if ids[i] == ids[t]]
        if before:
            places[t, before[-1]] = True
    return places


class TestLatest:
    def test_right(self, say: Say) -> None:
        assert say("8.2", latest).startswith("✓ 8.2 ")

    def test_ones_and_zeros_will_do(self, say: Say) -> None:
        assert say("8.2", lambda ids: latest(ids).int()).startswith("✓ 8.2 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (same_word, "names all earlier places"),
            (lambda ids: same_word(ids) & (same_word(ids).cumsum(-1) == 1), "the first time"),
            (lambda ids: latest(ids) | torch.eye(len(ids)).bool(), "not its own past"),
            (lambda ids: latest(ids).T, "is the row"),
            (lambda ids: latest(ids)[0], "expected a map of shape (7, 7)"),
        ],
    )
    def test_wrong(self, say: Say, answer: object, words: str) -> None:
        wrong(say, "8.2", answer, words)


def excess(exact: dict[int, float], logits: Tensor) -> float:
    log_q = logits.log_softmax(-1)
    return sum(p * (math.log(p) - log_q[token].item()) for token, p in exact.items())


def rounded(exact: dict[int, float], logits: Tensor) -> float:
    q = logits.softmax(-1)
    return sum(p * math.log(p / q[token].item()) for token, p in exact.items())


def infinite(exact: dict[int, float], logits: Tensor) -> float:
    q = torch.stack([logits.softmax(-1)[token] for token in exact])
    p = torch.tensor(list(exact.values()))
    return (p * (p.log() - q.log())).sum().item()


class TestExcess:
    def test_right(self, say: Say) -> None:
        assert say("8.3", excess).startswith("✓ 8.3 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda e, z: -sum(p * z.log_softmax(-1)[t] for t, p in e.items()), "entropy is still"),
            (lambda e, z: -excess(e, z), "The sign is wrong"),
            (lambda e, z: excess(e, z) / math.log(2), "in bits"),
            (
                lambda e, z: sum(p * (math.log(p) - z[t].item()) for t, p in e.items()),
                "not log-probabilities yet",
            ),
            (
                lambda e, z: sum(
                    q * math.log(q / e[t]) for t, q in enumerate(z.softmax(-1).tolist()) if t in e
                ),
                "not by the model's q",
            ),
            (rounded, "ZeroDivisionError"),
            (infinite, "use log_softmax"),
        ],
    )
    def test_wrong(self, say: Say, answer: object, words: str) -> None:
        wrong(say, "8.3", answer, words)


@pytest.mark.asset
class TestEnding:
    def test_only_one_head_is_right(self, say: Say) -> None:
        lines = [say("8.4", (layer, head)) for layer in range(4) for head in range(6)]
        assert sum(line.startswith("✓ 8.4 ") for line in lines) == 1
        assert sum("Another head is missed more" in line for line in lines) == 23

    def test_no_such_head(self, say: Say) -> None:
        wrong(say, "8.4", (4, 0), "layers 0 to 3 and heads 0 to 5")
        wrong(say, "8.4", (1, 2, 3), "a pair (layer, head)")


def carried(
    model: GPT, ids: Tensor, other: Tensor, name: str, positions: list[int], a: int, b: int
) -> float:
    def gap(logits: Tensor) -> float:
        return float(logits[0, -1, a] - logits[0, -1, b])

    before = gap(model(ids))
    with record(model) as theirs:
        there = gap(model(other))
    with changed(model, name, theirs[name], positions):
        after = gap(model(ids))
    return (before - after) / (before - there)


def carried_from_itself(model: GPT, ids: Tensor, other: Tensor, *rest: Any) -> float:
    """Record the wrong telling; the gap is still measured between the two."""
    name, positions, a, b = rest
    with record(model) as theirs:
        before = model(ids)[0, -1]
    there = model(other)[0, -1]
    with changed(model, name, theirs[name], positions):
        after = model(ids)[0, -1]
    return float((before - after)[[a, b]].diff() / (before - there)[[a, b]].diff())


def moved_only(
    model: GPT, ids: Tensor, other: Tensor, name: str, positions: list[int], a: int, b: int
) -> float:
    logits = torch.stack([model(ids)[0, -1], model(other)[0, -1]])[:, [b, a]].diff()
    share = carried(model, ids, other, name, positions, a, b)
    return share * float(logits[0] - logits[1])


class TestCarried:
    def test_right(self, say: Say) -> None:
        assert say("8.5", carried).startswith("✓ 8.5 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda *given: 1 - carried(*given), "the share that stayed"),
            (lambda *given: -carried(*given), "The sign is wrong"),
            (lambda m, i, o, n, p, a, b: carried(m, i, o, n, [*range(9)], a, b), "named positions"),
            (carried_from_itself, "taken from the other telling"),
            (moved_only, "how far the two tellings are apart"),
        ],
    )
    def test_wrong(self, say: Say, answer: object, words: str) -> None:
        wrong(say, "8.5", answer, words)


def parts(r: Record) -> Tensor:
    names = ["embeddings"]
    for i in range(r.n_layers):
        names += [f"blocks.{i}.attention", f"blocks.{i}.feed_forward"]
    return torch.stack([r[name][0, -1] for name in names])


def votes(model: GPT, r: Record, token: int, unbiased: bool = False, scaled: bool = True) -> Tensor:
    x, norm = parts(r), model.final_norm
    row = model.output_head.weight[token] * (norm.scale if scaled else 1)
    spread = (x.sum(0).var(unbiased=unbiased) + norm.eps).sqrt()
    return (x - x.mean(-1, keepdim=True)) @ row / spread


def with_shift(model: GPT, r: Record, token: int) -> Tensor:
    found = votes(model, r, token)
    return found + model.final_norm.shift @ model.output_head.weight[token] / len(found)


class TestVotes:
    def test_right(self, say: Say) -> None:
        assert say("8.6", votes).startswith("✓ 8.6 ")

    def test_they_add_up(self, say: Say) -> None:
        def answer(model: GPT, r: Record, token: int) -> Tensor:
            found, row = votes(model, r, token), model.output_head.weight[token]
            whole = found.sum() + model.final_norm.shift @ row
            assert torch.allclose(whole, r["final_norm"][0, -1] @ row, atol=1e-4)
            return found

        assert say("8.6", answer).startswith("✓ 8.6 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda m, r, t: m.final_norm(parts(r)) @ m.output_head.weight[t], "not by its own"),
            (lambda m, r, t: votes(m, r, t, unbiased=True), "the biased one"),
            (lambda m, r, t: votes(m, r, t, scaled=False), "scale is missing"),
            (with_shift, "Leave the shift out"),
            (lambda m, r, t: votes(m, r, t).sum(), "expected shape (5,)"),
        ],
    )
    def test_wrong(self, say: Say, answer: object, words: str) -> None:
        wrong(say, "8.6", answer, words)
