"""The engine of the exercises' checks, and chapter 1's checkers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from gptlib import checks


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty registry, so that a test's exercises do not meet the chapters'."""
    monkeypatch.setattr(checks, "_REGISTRY", {})


def line(capsys: pytest.CaptureFixture[str], name: str, answer: object) -> str:
    assert checks.check(name, answer) is None
    out = capsys.readouterr().out
    assert out.endswith("\n")
    assert out.count("\n") == 1, f"more than one line: {out!r}"
    return out.rstrip("\n")


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str, object], str]:
    return lambda name, answer: line(capsys, name, answer)


@pytest.fixture
def doubled(sandbox: None) -> None:
    @checks.exercise("99.1", shows="Doubling works.")
    def _(answer: object) -> str | None:
        return checks.trials(answer, [((1,), 2), ((2.5,), 5.0)])


@pytest.mark.usefixtures("doubled")
class TestEngine:
    def test_right_answer(self, say: Any) -> None:
        assert say("99.1", lambda x: 2 * x) == "✓ 99.1 Doubling works."

    @pytest.mark.parametrize("answer", [..., (..., 1), [1, ...], lambda x: ...])
    def test_dots_are_not_tried_yet(self, say: Any, answer: object) -> None:
        assert say("99.1", answer).startswith("○ 99.1 not tried yet")

    def test_wrong_value_names_what_went_in_and_out(self, say: Any) -> None:
        def triple(x: float) -> float:
            return 3 * x

        assert say("99.1", triple) == "✗ 99.1 triple(1) gave 3, expected 2."

    def test_second_case_is_tried_too(self, say: Any) -> None:
        assert say("99.1", lambda x: 2) == "✗ 99.1 your function(2.5) gave 2, expected 5."

    def test_reader_error_is_told_with_its_line(self, say: Any) -> None:
        def broken(x: float) -> float:
            return x / 0

        said = say("99.1", broken)
        assert said.startswith("✗ 99.1 broken(1) raised ZeroDivisionError: ")
        assert "“return x / 0”" in said

    def test_error_outside_call_is_caught(self, say: Any) -> None:
        @checks.exercise("99.2")
        def _(answer: Any) -> str | None:
            answer()
            return None

        def fails() -> None:
            raise KeyError

        assert say("99.2", fails) == "✗ 99.2 Running your answer raised KeyError."
        assert say("99.2", lambda: 1) == "✓ 99.2 Right."

    def test_interrupt_is_not_swallowed(self) -> None:
        def interrupted(x: float) -> float:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            checks.check("99.1", interrupted)

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (3, "Your answer is 3, but a function is asked for"),
            (None, "a function is asked for"),
            (lambda x: None, "gave None. Does it end with a return?"),
            (lambda x: "2", "gave '2', expected a number: 2."),
            (lambda x: True, "gave True, expected a number: 2."),
            (lambda x: math.nan, "gave nan, expected 2."),
            (lambda x: math.inf, "gave inf, expected 2."),
            (lambda x: [2], "gave [2], expected a number: 2."),
            (lambda x: torch.zeros(3), "gave tensor of shape (3,) (float32): [0.0, 0.0, 0.0]"),
            (lambda: 2, "raised TypeError"),
            (lambda x: 10**400, "gave inf, expected 2."),
        ],
    )
    def test_answers_of_the_wrong_kind(self, say: Any, answer: object, words: str) -> None:
        said = say("99.1", answer)
        assert said.startswith("✗ 99.1 ")
        assert words in said

    @pytest.mark.parametrize("kind", [float, np.float32, np.float64, torch.tensor])
    def test_numbers_of_every_kind(self, say: Any, kind: Callable[[float], Any]) -> None:
        assert say("99.1", lambda x: kind(2.0 * x)).startswith("✓")

    def test_broken_repr(self, say: Any) -> None:
        class Shy:
            def __repr__(self) -> str:
                raise RuntimeError("no")

        assert "an object of type Shy" in say("99.1", Shy())

    def test_arguments_are_copied(self, say: Any) -> None:
        @checks.exercise("99.3")
        def _(answer: object) -> str | None:
            values = [1, 2]
            return checks.trials(answer, [((values,), 2), ((values,), 2)])

        assert say("99.3", lambda values: values.pop()).startswith("✓")

    def test_unknown_exercise(self) -> None:
        with pytest.raises(ValueError, match=r"no exercise '99\.9'.*99\.1"):
            checks.check("99.9", 1)
        with pytest.raises(ValueError, match="no exercise 'os'"):
            checks.check("os", 1)

    def test_one_checker_an_exercise(self) -> None:
        with pytest.raises(ValueError, match="two checkers"):
            checks.exercise("99.1")(lambda answer: None)


class TestCompare:
    def test_equal_things(self) -> None:
        tensor = torch.tensor([1.0, 2.0])
        for got, expected in [
            (1, 1.0),
            ("a", "a"),
            ([1.0, 2.0000001], (1, 2)),
            ({"a": [1.0]}, {"a": [1.0]}),
            (tensor + 1e-7, tensor),
            (torch.tensor(3.0), torch.tensor(3.0)),
            (math.inf, math.inf),
        ]:
            assert checks.compare(got, expected) is None, (got, expected)

    @pytest.mark.parametrize(
        ("got", "expected", "words"),
        [
            (1.1, 1.0, "gave 1.1, expected 1."),
            ("a", "b", "gave 'a', expected 'b'."),
            ([1], [1, 2], "gave [1], expected [1, 2]."),
            ([1, 3], [1, 2], "gave [1, 3], expected [1, 2]."),
            ({"a": 1}, {"b": 1}, "gave {'a': 1}, expected {'b': 1}."),
            (3, [3], "gave 3, expected [3]."),
            ([3.0], torch.ones(1), "gave [3.0], expected a tensor of shape (1,)"),
            (torch.ones(2, 3), torch.ones(3, 2), "gave shape (2, 3), expected shape (3, 2)."),
            (torch.ones(2, 2), torch.eye(2), "gave 1 at [0, 1], expected 0."),
            (torch.full((1,), math.nan), torch.ones(1), "gave nan at [0], expected 1."),
            (torch.tensor(2), torch.tensor(1.0), "gave 2, expected 1."),
        ],
    )
    def test_different_things(self, got: object, expected: object, words: str) -> None:
        said = checks.compare(got, expected)
        assert said is not None
        assert words in said

    def test_number_bounds(self) -> None:
        assert checks.number(np.int64(3), 0, 5) == 3
        for bad, words in [(math.nan, "NaN"), (7, "between 0 and 5"), ("3", "single number")]:
            with pytest.raises(checks.WrongAnswerError, match=words):
                checks.number(bad, 0, 5)

    def test_long_values_are_cut(self) -> None:
        assert len(checks.describe("x" * 1_000)) < 100
        assert checks.describe(dict.fromkeys(range(2_047))) == "a dict of 2,047 entries"
        assert checks.describe(torch.zeros(100)) == "tensor of shape (100,) (float32)"


def perplexity(probabilities: list[float]) -> float:
    return math.exp(-sum(map(math.log, probabilities)) / len(probabilities))


def top_k(probabilities: dict[str, float], k: int) -> dict[str, float]:
    kept = sorted(probabilities.items(), key=lambda item: -item[1])[:k]
    total = sum(p for _, p in kept)
    return {word: p / total for word, p in kept}


def gpus_needed(parameters: float, tokens: float, flops_per_second: float, days: float) -> int:
    return math.ceil(6 * parameters * tokens / (flops_per_second * days * 24 * 3_600))


def best_mix(short: list[float], long: list[float]) -> float:
    def loss(share: float) -> float:
        mixed = [share * b + (1 - share) * a for a, b in zip(short, long, strict=True)]
        return -sum(math.log(p) for p in mixed) if min(mixed) > 0 else math.inf

    return min((i / 100 for i in range(101)), key=loss)


def gradient(logits: torch.Tensor, target: int) -> torch.Tensor:
    result = torch.softmax(logits, dim=0)
    result[target] -= 1
    return result


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("1.1", 4_815),
        ("1.2", perplexity),
        ("1.3", top_k),
        ("1.4", gpus_needed),
        ("1.5", best_mix),
        ("1.6", gradient),
    ],
)
def test_chapter_1_accepts_a_right_answer(say: Any, name: str, answer: object) -> None:
    said = say(name, answer)
    assert said.startswith(f"✓ {name} ")
    assert said.endswith(".")


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        ("1.1", 4_814, "one short"),
        ("1.1", 4_814.2, "counted whole"),
        pytest.param("1.1", 50_257**1_024, "how many digits", id="1.1-the number itself"),
        ("1.1", 11_085, "natural logarithm"),
        ("1.1", 5, "to the power 1,024"),
        ("1.1", "4815", "single number"),
        ("1.2", lambda p: len(p) / sum(p), "average their logarithms"),
        ("1.2", lambda p: -sum(map(math.log, p)) / len(p), "exponential is missing"),
        ("1.2", lambda p: math.prod(p) ** (-1 / len(p)), "raised ZeroDivisionError"),
        ("1.3", lambda p, k: dict(list(top_k(p, 9).items())[:k]), "add up to 1"),
        ("1.3", lambda p, k: dict(list(p.items())[:k]), "expected"),
        ("1.3", lambda p, k: list(p)[:k], "expected {'cat': 1.0}"),
        ("1.4", lambda n, d, f, t: 6 * n * d / (f * t * 86_400), "round up"),
        ("1.4", lambda n, d, f, t: math.ceil(6 * n * d / (f * t)), "86,400 seconds"),
        ("1.4", lambda n, d, f, t: math.ceil(n * d / (f * t * 86_400)), "6 operations"),
        ("1.4", lambda n, d, f, t: 3, "expected 70"),
        ("1.5", lambda a, b: 0.5, "the loss is"),
        ("1.5", lambda a, b: 1.0, "the loss is inf"),
        ("1.5", lambda a, b: 2.0, "between 0 and 1"),
        ("1.6", lambda z, t: -gradient(z, t), "sign"),
        ("1.6", lambda z, t: torch.softmax(z, 0), "right word"),
        ("1.6", lambda z, t: gradient(z, t)[None], "gave shape (1, 2), expected shape (2,)"),
        ("1.6", lambda z, t: z * math.nan, "nan"),
    ],
)
def test_chapter_1_says_what_is_wrong(say: Any, name: str, answer: object, words: str) -> None:
    said = say(name, answer)
    assert said.startswith(f"✗ {name} ")
    assert words in said


@pytest.mark.parametrize(
    "kind", [float, lambda x: torch.tensor([x]), lambda x: [x], lambda x: (x,)]
)
def test_compare_sees_one_part_in_ten_thousand(kind: Any) -> None:
    """What is rounded otherwise is right, what is computed otherwise is not."""
    assert checks.compare(kind(1.000001), kind(1.0)) is None
    assert checks.compare(kind(1.0001), kind(1.0)) is not None
    assert checks.compare(kind(0.9999), kind(1.0)) is not None
    assert checks.compare(kind(1.0001), kind(1.0), tolerance=1e-3) is None
