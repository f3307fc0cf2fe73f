"""Chapter 3's checkers: right answers pass, and typical wrong ones are told what is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

Say = Callable[[str, object], str]
Piece = tuple[Tensor, Tensor, Tensor]


NAMES = ["3.1", "3.2", "3.3", "3.4", "3.5", "3.6"]
BLANKS = {"3.4": (..., ...), "3.5": (..., ..., ...)}


@pytest.mark.parametrize("name", NAMES)
def test_a_blank_is_not_tried_yet(say: Say, name: str) -> None:
    assert say(name, ...).startswith(f"○ {name} not tried yet")
    if name != "3.1":
        blank = BLANKS.get(name, ...)
        assert say(name, lambda *_: blank).startswith(f"○ {name} not tried yet")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "answer",
    [
        "words",
        None,
        torch.zeros(3),
        lambda *_: None,
        lambda: 1,
        lambda *_: "x",
        lambda *_: 0.5,
        lambda *_: torch.zeros(1),
        lambda *_: ("a", "b"),
        lambda *_: ("a", "b", "c"),
        lambda *_: (1.0, 2.0, 3.0),
    ],
)
def test_answers_of_the_wrong_kind_are_told_so(say: Say, name: str, answer: object) -> None:
    assert say(name, answer).startswith(f"✗ {name} ")


class TestHalf:
    @pytest.mark.parametrize("answer", [math.log(1_023), 6.9305, torch.tensor(1_023.0).log()])
    def test_right(self, say: Say, answer: object) -> None:
        assert say("3.1", answer).startswith("✓ 3.1 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (1_023, "not yet the score"),
            (math.log(1_024), "without the key itself"),
            (math.log2(1_023), "base 2"),
            (math.log10(1_023), "base 10"),
            (0, "the key gets 0.0010 of the weight"),
            (-1e9, "the key gets 0.0000 of the weight"),
            (math.nan, "NaN"),
        ],
    )
    def test_wrong(self, say: Say, answer: object, words: str) -> None:
        assert words in say("3.1", answer)


class TestAsksNothing:
    def test_right(self, say: Say) -> None:
        def right(values: Tensor) -> Tensor:
            return values.cumsum(0) / torch.arange(1, len(values) + 1)[:, None]

        assert say("3.2", right).startswith("✓ 3.2 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda v: v.mean(0).expand_as(v), "the head is causal"),
            (lambda v: v.cumsum(0), "weights add up to 1"),
            (lambda v: v.cumsum(0) / len(v), "how many values does place t see"),
            (lambda v: v, "expected"),
            (lambda v: v.mean(0), "gave shape (1,), expected shape (3, 1)"),
        ],
    )
    def test_wrong(self, say: Say, answer: object, words: str) -> None:
        said = say("3.2", answer)
        assert said.startswith("✗ 3.2 For values of shape (3, 1) your function gave")
        assert words in said


def window(scaled: Tensor, width: int, ahead: int = 1) -> Tensor:
    everything = torch.ones_like(scaled, dtype=torch.bool)
    hidden = everything.triu(ahead) | everything.tril(-width)
    return scaled.masked_fill(hidden, -torch.inf).softmax(-1)


class TestWindowWeights:
    def test_right(self, say: Say) -> None:
        assert say("3.3", window).startswith("✓ 3.3 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda s, w: window(s, w + 1), "It sees 3 positions, one too many"),
            (lambda s, w: window(s, w - 1), "It sees 1 positions, one too few"),
            (lambda s, w: window(s, 99), "the whole past"),
            (lambda s, w: window(s, w, ahead=2), "looks ahead"),
            (lambda s, w: window(s, w, ahead=0), "becomes nan"),
            (lambda s, w: s.softmax(-1).tril().triu(1 - w), "hide before softmax"),
            (lambda s, w: s[0], "gave shape (5,), expected shape (5, 5)"),
        ],
    )
    def test_wrong(self, say: Say, answer: object, words: str) -> None:
        said = say("3.3", answer)
        assert said.startswith("✗ 3.3 For scores (5, 5) and width 2 your function gave")
        assert words in said

    def test_one_mask_for_two_dimensions_only(self, say: Say) -> None:
        def flat(scaled: Tensor, width: int) -> Tensor:
            return window(scaled, width) if scaled.ndim == 2 else scaled.softmax(-1)

        assert "For scores (2, 3, 6, 6)" in say("3.3", flat)


def neighbors(length: int, size: float, shift: int = 1) -> tuple[Tensor, Tensor]:
    return size * torch.eye(length).roll(-shift, dims=1), torch.eye(length)


class TestNeighborMatrices:
    @pytest.mark.parametrize(
        "right",
        [
            lambda n: neighbors(n, 12 * n**0.5),
            lambda n: neighbors(n, 1e4),
            lambda n: (torch.eye(n), 100 * torch.eye(n).roll(1, dims=1)),  # the keys are moved
        ],
    )
    def test_right(self, say: Say, right: object) -> None:
        assert say("3.4", right).startswith("✓ 3.4 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda n: neighbors(n, 100.0, 0), "position 1 looks mostly at itself"),
            (lambda n: neighbors(n, 100.0, 2), "For T = 5, position 2 looks mostly at position 0"),
            (lambda n: neighbors(n, 100.0, -1), "asks for the one after it, which is masked"),
            (lambda n: neighbors(n, 12.0), "larger scores make it sharper"),
            (lambda n: neighbors(n, 5 * n**0.5), "position 4 gives 0.974 of its weight"),
            (lambda n: neighbors(n, math.nan), "the weights of position 1 are nan"),
            (lambda n: (torch.eye(3), torch.eye(3)), "shapes (3, 3) and (3, 3), not both (5, 5)"),
            (lambda n: torch.eye(n), "expected two matrices"),
        ],
    )
    def test_wrong(self, say: Say, answer: object, words: str) -> None:
        said = say("3.4", answer)
        assert said.startswith("✗ 3.4 For T = ")
        assert words in said


class TestMerge:
    @staticmethod
    def right(a: Piece, b: Piece) -> Piece:
        top = torch.maximum(a[0], b[0])
        total_a, total_b = a[1] * (a[0] - top).exp(), b[1] * (b[0] - top).exp()
        total = total_a + total_b
        return top, total, (total_a * a[2] + total_b * b[2]) / total

    def test_right(self, say: Say) -> None:
        assert say("3.5", self.right).startswith("✓ 3.5 ")

    def test_overflow(self, say: Say) -> None:
        def careless(a: Piece, b: Piece) -> Piece:
            total_a, total_b = a[1] * a[0].exp(), b[1] * b[0].exp()
            top, total = torch.maximum(a[0], b[0]), total_a + total_b
            return top, total / top.exp(), (total_a * a[2] + total_b * b[2]) / total

        said = say("3.5", careless)
        assert "overflow" in said
        assert said.startswith("✗ 3.5 For pieces whose tops are ")

    @pytest.mark.parametrize(
        ("part", "wrong", "words"),
        [
            (0, lambda a, b: torch.minimum(a[0], b[0]), "top gave"),
            (1, lambda a, b: a[1] + b[1], "made with different tops"),
            (2, lambda a, b: (a[2] + b[2]) / 2, "weigh each mean by its corrected sum"),
            (1, lambda a, b: a[1] + b[1] * (a[0] - b[0]).abs().exp(), "can only shrink a sum"),
            (1, lambda a, b: torch.cat((a[2], b[2])), "gave shape (8,), expected shape ()"),
            (2, lambda a, b: (a[1] * a[2] + b[1] * b[2]) / (a[1] + b[1]), "correct these first"),
        ],
    )
    def test_wrong(self, say: Say, part: int, wrong: Any, words: str) -> None:
        def answer(a: Piece, b: Piece) -> tuple[Tensor, ...]:
            parts = list(self.right(a, b))
            parts[part] = wrong(a, b)
            return tuple(parts)

        said = say("3.5", answer)
        assert said.startswith("✗ 3.5 For pieces whose tops are ")
        assert words in said


class TestScoresGradient:
    @staticmethod
    def right(w: Tensor, grad: Tensor) -> Tensor:
        return w * (grad - (w * grad).sum(-1, keepdim=True))

    def test_right_is_what_backward_gives(self, say: Say) -> None:
        def by_autograd(w: Tensor, grad: Tensor) -> Tensor:
            scores = w.log().requires_grad_()
            scores.softmax(-1).backward(grad)
            assert scores.grad is not None
            return scores.grad

        assert say("3.6", self.right).startswith("✓ 3.6 ")
        assert say("3.6", by_autograd).startswith("✓ 3.6 ")

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            (lambda w, g: w * g, "fall when one rises"),
            (lambda w, g: w * (1 - w) * g, "also moves the other weights"),
            (lambda w, g: w * (g - g.mean(-1, keepdim=True)), "has to be weighted"),
            (lambda w, g: -w * (g - (w * g).sum(-1, keepdim=True)), "turned around"),
            (lambda w, g: w * (g - (w * g).sum()), "Sum over each row alone"),
            (lambda w, g: g, "gave"),
        ],
    )
    def test_wrong(self, say: Say, wrong: object, words: str) -> None:
        said = say("3.6", wrong)
        assert said.startswith("✗ 3.6 For weights of shape (")
        assert words in said
