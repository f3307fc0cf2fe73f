"""Chapter 5's checkers: right answers pass, and typical wrong ones are told what is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gptlib import accounting
from gptlib.config import GPTConfig

Say = Callable[[str, object], str]
ALL = ["5.1", "5.2", "5.3", "5.4", "5.5", "5.6"]


def blank(*_: Any) -> Any:
    return ...


@pytest.mark.parametrize("name", ALL)
def test_a_blank_is_not_tried_yet(say: Say, name: str) -> None:
    assert say(name, ...).startswith(f"○ {name} not tried yet")
    assert say(name, blank).startswith(f"○ {name} not tried yet")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("answer", ["words", None, lambda *_: None, lambda: 1, lambda *_: "x"])
def test_answers_of_the_wrong_kind_are_told_so(say: Say, name: str, answer: object) -> None:
    assert say(name, answer).startswith(f"✗ {name} ")


class TestBitsPerByte:
    def test_right(self, say: Say) -> None:
        def solve(loss: float, n_tokens: int, n_bytes: int) -> float:
            return loss / math.log(2) * n_tokens / n_bytes

        assert say("5.1", solve).startswith("✓ 5.1 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda loss, t, b: loss * t / b, "a bit is ln 2 nats"),
            (lambda loss, t, b: loss * t / b * math.log(2), "more bits than nats"),
            (lambda loss, t, b: loss / math.log(2), "bits per token"),
            (lambda loss, t, b: loss / math.log(2) * t, "of the whole text"),
            (lambda loss, t, b: loss / math.log(2) * b / t, "divide it by the bytes"),
            (lambda loss, t, b: 0.5, "expected 0.25"),
        ],
    )
    def test_wrong(self, say: Say, answer: object, words: str) -> None:
        line = say("5.1", answer)
        assert line.startswith("✗ 5.1 ")
        assert words in line


def length_of(gradients: list[Tensor]) -> float:
    return math.sqrt(sum(part.square().sum().item() for part in gradients))


class TestClip:
    def test_right(self, say: Say) -> None:
        def solve(gradients: list[Tensor], longest: float) -> list[Tensor]:
            length = length_of(gradients)
            return [part * min(1.0, longest / (length + 1e-6)) for part in gradients]

        assert say("5.2", solve).startswith("✓ 5.2 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda g, m: [p * min(1, m / (p.norm() + 1e-9)) for p in g], "each tensor by itself"),
            (lambda g, m: [p.clamp(-m, m) for p in g], "each number by itself"),
            (lambda g, m: [p * m / (length_of(g) + 1e-9) for p in g], "short enough stays"),
            (lambda g, m: [p * min(1, m / (length_of(g) ** 2 + 1e-9)) for p in g], "square root"),
            (lambda g, m: g, "Nothing was clipped"),
            (lambda g, m: g[0], "a list of tensors"),
            (lambda g, m: [p * min(1, m / length_of(g)) for p in g], "ZeroDivisionError"),
        ],
    )
    def test_wrong(self, say: Say, answer: object, words: str) -> None:
        line = say("5.2", answer)
        assert line.startswith("✗ 5.2 ")
        assert words in line


class TestExcess:
    def test_right(self, say: Say) -> None:
        def solve(model: Tensor, grammar: Tensor) -> tuple[float, float]:
            apart = model - grammar
            return apart.mean().item(), apart.std().item() / math.sqrt(len(apart))

        assert say("5.3", solve).startswith("✓ 5.3 ")

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (lambda m, g: (m - g).std(), "the root of their number"),
            (lambda m, g: (m - g).std() / len(m), "not by the number"),
            (lambda m, g: ((m.var() + g.var()) / len(m)).sqrt(), "take the differences first"),
            (lambda m, g: m.std() / len(m) ** 0.5, "the model's costs alone"),
            (lambda m, g: (m - g).std(correction=0) / len(m) ** 0.5, "with n - 1"),
            (lambda m, g: 0.0, "the standard error gave 0"),
        ],
    )
    def test_wrong_error(
        self, say: Say, error: Callable[[Tensor, Tensor], Any], words: str
    ) -> None:
        def answer(model: Tensor, grammar: Tensor) -> tuple[float, float]:
            return (model - grammar).mean().item(), float(error(model, grammar))

        line = say("5.3", answer)
        assert line.startswith("✗ 5.3 ")
        assert words in line

    def test_wrong_mean(self, say: Say) -> None:
        line = say("5.3", lambda m, g: ((g - m).mean(), torch.tensor(0.0)))
        assert "the model's cost minus the grammar's" in line
        assert "two numbers" in say("5.3", lambda m, g: (m - g).mean())


# --- 5.4 to 5.6 ---


def cut(logits: Tensor, share: float, rows: bool = True, whole: bool = True) -> Tensor:
    p = logits.softmax(-1)
    kept = p.where(p >= share * (p.amax(-1, keepdim=True) if rows else p.max()), 0)
    return kept / kept.sum(-1, keepdim=True) if whole else kept


class TestMinP:
    def test_right(self, say: Say) -> None:
        assert say("5.4", cut).startswith("✓ 5.4 ")

    def test_right_by_masking_logits(self, say: Say) -> None:
        def solve(logits: Tensor, share: float) -> Tensor:
            bar = logits.amax(-1, keepdim=True) + math.log(share)
            return logits.masked_fill(logits < bar, -math.inf).softmax(-1)

        assert say("5.4", solve).startswith("✓ 5.4 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda z, s: cut(z, s, whole=False), "divide by its sum"),
            (lambda z, s: cut(z, s, rows=False), "of its own: dim=-1"),
            (lambda z, s: z.softmax(-1), "Nothing was cut"),
            (lambda z, s: torch.stack([cut(row, s) for row in z]), "gave 1 at [0], expected 0.7"),
            (lambda z, s: cut(z, s)[..., :2], "expected shape"),
        ],
    )
    def test_wrong(self, say: Say, answer: object, words: str) -> None:
        line = say("5.4", answer)
        assert line.startswith("✗ 5.4 min_p(")
        assert words in line

    def test_an_absolute_bar(self, say: Say) -> None:
        def absolute(logits: Tensor, share: float) -> Tensor:
            kept = logits.softmax(-1) * (logits.softmax(-1) >= share)
            return kept / kept.sum(-1, keepdim=True)

        assert "not the share itself" in say("5.4", absolute)


def served(weights: int = 2, cache: int = 4, more: int = 0, whole: bool = True) -> Any:
    def solve(config: GPTConfig, memory: int, n: int) -> float:
        if n > config.context_length:
            return 0
        each = cache * config.n_layers * config.emb_dim * n
        left = memory - weights * accounting.total(config)
        return max(0, (left // each if whole else left / each) + more)

    return solve


class TestTextsAtOnce:
    def test_right(self, say: Say) -> None:
        assert say("5.5", served()).startswith("✓ 5.5 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (served(weights=0), "The weights are in memory too"),
            (served(cache=2), "keys and there are values"),
            (served(weights=4), "The weights have 2 bytes each"),
            (served(weights=4, cache=8), "16 bits have 2 bytes"),
            (served(cache=8), "16 bits have 2 bytes"),
            (served(more=1), "round down"),
            (served(whole=False), "counted whole"),
            (
                lambda c, m, n: served()(c, m, n) // c.n_heads * c.n_heads,
                "texts_at_once(gpt2, 4,294,967,296 bytes, 1,024)",
            ),
            (
                lambda c, m, n: (m - 2 * accounting.total(c)) // (4 * c.n_layers * c.head_dim * n),
                "Every head has a cache",
            ),
            (
                lambda c, m, n: (m - 2 * accounting.total(c)) // (4 * c.n_layers * c.emb_dim * n),
                "no text does",
            ),
            (
                lambda c, m, n: max(
                    0, (m - 2 * accounting.total(c)) // (4 * c.n_layers * c.emb_dim * n)
                ),
                "The model has 1,024 positions",
            ),
        ],
    )
    def test_wrong(self, say: Say, answer: object, words: str) -> None:
        line = say("5.5", answer)
        assert line.startswith("✗ 5.5 ")
        assert words in line


def beams(score: Callable[[float, float], float], widen: int = 0, only: int = 0) -> Any:
    def solve(log_probs: Callable[[list[int]], Tensor], n: int, width: int) -> list[int]:
        kept: list[tuple[float, list[int]]] = [(0.0, [])]
        for _ in range(n):
            longer = [
                (score(so_far, value), [*ids, token])
                for so_far, ids in kept
                for token, value in enumerate(log_probs(ids).tolist())
            ]
            kept = sorted(longer, reverse=True)[: only or width + widen]
        return kept[0][1]

    return solve


class TestBeamSearch:
    def test_right(self, say: Say) -> None:
        assert say("5.6", beams(lambda a, b: a + b)).startswith("✓ 5.6 ")

    def test_right_as_tensor(self, say: Say) -> None:
        solve = beams(lambda a, b: a + b)
        assert say("5.6", lambda *how: torch.tensor(solve(*how))).startswith("✓ 5.6 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (beams(lambda a, b: a + b, only=1), "the likeliest text of all"),
            (beams(lambda a, b: b), "beam_search gave"),
            (beams(lambda a, b: a + b, widen=1), "beam_search gave"),
            (lambda f, n, width: [0] * (n + 1), "expected a list of 1 ids"),
        ],
    )
    def test_wrong(self, say: Say, answer: object, words: str) -> None:
        line = say("5.6", answer)
        assert line.startswith("✗ 5.6 ")
        assert words in line

    def test_slips_at_a_narrow_beam(self, say: Say) -> None:
        right = beams(lambda a, b: a + b)

        def only_where_narrow(slip: Any) -> Any:
            return lambda f, n, width: (slip if 1 < width < 10 else right)(f, n, width)

        greedy = only_where_narrow(beams(lambda a, b: a + b, only=1))
        assert "That is the greedy text" in say("5.6", greedy)
        last = only_where_narrow(beams(lambda a, b: b))
        assert "not the last one's" in say("5.6", last)
        wide = only_where_narrow(beams(lambda a, b: a + b, widen=1))
        assert "one wider" in say("5.6", wide)
