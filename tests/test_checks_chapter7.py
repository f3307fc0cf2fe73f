"""Chapter 7's checkers: right answers pass, and typical wrong ones are told what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gptlib import accounting
from gptlib.config import GPTConfig

Say = Callable[[str, object], str]
ALL = ["7.1", "7.2", "7.3", "7.4", "7.5", "7.6"]


def blank(*_: Any) -> Any:
    return ...


@pytest.mark.parametrize("name", ALL)
def test_a_blank_is_not_tried_yet(say: Say, name: str) -> None:
    assert say(name, ...).startswith(f"○ {name} not tried yet")
    if name != "7.1":
        assert say(name, blank).startswith(f"○ {name} not tried yet")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("answer", ["words", None, lambda *_: None, lambda: 1, lambda *_: "x"])
def test_answers_of_the_wrong_kind_are_told_so(say: Say, name: str, answer: object) -> None:
    assert say(name, answer).startswith(f"✗ {name} ")


def wrong(say: Say, name: str, answer: object, words: str) -> None:
    line = say(name, answer)
    assert line.startswith(f"✗ {name} ")
    assert words in line


class TestPairs:
    def test_right(self, say: Say) -> None:
        assert say("7.1", 73_728).startswith("✓ 7.1 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (4_608, "for the width of GPT-2"),
            (147_456, "are multiplied twice"),
            (36_864, "count the FLOPs of a pair again"),
            (24_576, "leaves out the feed-forward"),
            (2_048, "Where is T / (6 C + T) one half?"),
        ],
    )
    def test_wrong(self, say: Say, answer: int, words: str) -> None:
        wrong(say, "7.1", answer, words)


def share(config: GPTConfig, speed: float, n: int, peak: float) -> float:
    each = sum(accounting.training_flops(config).values()) / config.context_length
    return each * speed / (n * peak)


class TestUtilization:
    def test_right(self, say: Say) -> None:
        assert say("7.2", share).startswith("✓ 7.2 ")

    def test_right_with_run_flops(self, say: Say) -> None:
        def answer(config: GPTConfig, speed: float, n: int, peak: float) -> float:
            return accounting.run_flops(config, int(speed)) / (n * peak)

        assert say("7.2", answer).startswith("✓ 7.2 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda c, s, n, p: 6 * accounting.total(c) * s / (n * p), "That is 6 N D."),
            (lambda *given: 100 * share(*given), "not a percentage"),
            (lambda *given: share(*given) / 3, "three times the forward pass"),
            (lambda c, s, n, p: share(c, s, 1, p), "n_devices times the peak"),
            (lambda *given: 1 / share(*given), "the peak divided by"),
        ],
    )
    def test_wrong(self, say: Say, answer: object, words: str) -> None:
        wrong(say, "7.2", answer, words)


def pieces(strict: bool = False, divide: bool = True, attention: str = "fused") -> Any:
    def solve(config: GPTConfig, memory: int, batch_size: int) -> int:
        state = sum(accounting.training_bytes(config).values())
        for n in range(1, batch_size + 1):
            if divide and batch_size % n:
                continue
            rows = -(-batch_size // n)
            kept = sum(accounting.activation_bytes(config, rows, attention=attention).values())
            if state + kept + strict <= memory:
                return n
        return 0

    return solve


class TestPieces:
    def test_right(self, say: Say) -> None:
        assert say("7.3", pieces()).startswith("✓ 7.3 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (pieces(strict=True), "What fits exactly, fits"),
            (pieces(divide=False), "cannot be cut into"),
            (pieces(attention="plain"), "What fits exactly, fits"),
            (lambda c, m, b: 1, "bytes of activations and"),
            (lambda c, m, b: b // (pieces()(c, m, b) or b), "the rows of a piece"),
            (lambda c, m, b: pieces()(c, m, b) or b, "Not even a single row"),
            (lambda c, m, b: b if pieces()(c, m, b) else 0, "Fewer pieces are enough"),
            (lambda c, m, b: 0, "There is room for fewer rows"),
        ],
    )
    def test_wrong(self, say: Say, answer: object, words: str) -> None:
        wrong(say, "7.3", answer, words)


def combined(gradients: list[Tensor], counts: list[int]) -> Tensor:
    pairs = zip(gradients, counts, strict=True)
    parts = torch.stack([gradient * n for gradient, n in pairs if n])
    return parts.sum(dim=0) / sum(counts)


class TestCombined:
    def test_right(self, say: Say) -> None:
        assert say("7.4", combined).startswith("✓ 7.4 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda g, n: sum(g) / len(g), "the mean of the means"),
            (lambda g, n: combined(g, n) * sum(n), "not their mean"),
            (lambda g, n: combined(g, n) * sum(n) / len(n), "not by the number of ranks"),
            (
                lambda g, n: sum(part * k for part, k in zip(g, n, strict=True)) / sum(n),
                "nan times 0 is nan",
            ),
        ],
    )
    def test_wrong(self, say: Say, answer: object, words: str) -> None:
        wrong(say, "7.4", answer, words)


def ring(n: int, first: int = 0) -> list[list[int]]:
    return [[(r - k + first) % n for r in range(n)] for k in range(2 * n - 2)]


class TestRing:
    def test_right(self, say: Say) -> None:
        assert say("7.5", ring).startswith("✓ 7.5 ")

    def test_right_from_another_start(self, say: Say) -> None:
        assert say("7.5", lambda n: tuple(map(tuple, ring(n, 1)))).startswith("✓ 7.5 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda n: ring(n)[: n - 1], "a list of 2 rounds"),
            (lambda n: [[r + 1 for r in range(n)]] * (2 * n - 2), "from 0 to 1"),
            (lambda n: [[0] * (n + 1)] * (2 * n - 2), "expected 2 numbers of chunks"),
            (lambda n: [list(range(n)) for _ in range(2 * n - 2)], "lacks what rank"),
            (lambda n: [[(r + k) % n for r in range(n)] for k in range(2 * n - 2)], "With 3 ranks"),
            (lambda n: ring(n) if n < 3 else [[0] * n] * (2 * n - 2), "counted more than once"),
        ],
    )
    def test_wrong(self, say: Say, answer: object, words: str) -> None:
        wrong(say, "7.5", answer, words)


def best(a: float, alpha: float, b: float, beta: float, flops: float) -> float:
    return ((alpha * a) / (beta * b) * (flops / 6) ** beta) ** (1 / (alpha + beta))


def searched(a: float, alpha: float, b: float, beta: float, flops: float) -> float:
    sizes = [10 ** (k / 4_000) for k in range(80_000)]
    return min(sizes, key=lambda n: a * n**-alpha + b * (flops / 6 / n) ** -beta)


class TestBestSize:
    def test_right(self, say: Say) -> None:
        assert say("7.6", best).startswith("✓ 7.6 ")

    def test_a_search_will_do(self, say: Say) -> None:
        assert say("7.6", searched).startswith("✓ 7.6 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda *law: law[-1] / 6 / best(*law), "the best number of tokens"),
            (lambda *law: best(*law[:4], 6 * law[4]), "D is F / 6 N"),
            (lambda a, i, b, j, f: best(b, j, a, i, f), "the best number of tokens"),
            (
                lambda a, i, b, j, f: (a / b * (f / 6) ** j) ** (1 / (i + j)),
                "their slopes should be",
            ),
        ],
    )
    def test_wrong(self, say: Say, answer: object, words: str) -> None:
        wrong(say, "7.6", answer, words)
