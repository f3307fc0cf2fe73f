"""Chapter 2's checkers: right answers pass, and typical wrong ones are told what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch

from gptlib import data

Say = Callable[[str, object], str]


def blank(*_: Any) -> Any:
    return ...


@pytest.mark.parametrize("name", ["2.1", "2.2", "2.3", "2.4", "2.5", "2.6"])
def test_a_blank_is_not_tried_yet(say: Say, name: str) -> None:
    assert say(name, ...).startswith(f"○ {name} not tried yet")
    if name != "2.2":
        assert say(name, blank).startswith(f"○ {name} not tried yet")


@pytest.mark.parametrize("name", ["2.1", "2.2", "2.3", "2.4", "2.5", "2.6"])
@pytest.mark.parametrize("answer", ["words", None, lambda *_: None, lambda: 1, lambda *_: "x"])
def test_answers_of_the_wrong_kind_are_told_so(say: Say, name: str, answer: object) -> None:
    assert say(name, answer).startswith(f"✗ {name} ")


class TestNumberOfWindows:
    def test_right(self, say: Say) -> None:
        def right(n: int, length: int, stride: int) -> int:
            return len(range(0, n - length, stride))

        assert say("2.1", right).startswith("✓ 2.1 ")

    @pytest.mark.parametrize(
        "wrong",
        [
            lambda n, length, stride: (n - length) // stride + 1,  # forgets the last target
            lambda n, length, stride: (n - length - 1) // stride + 1,  # below 0 if too short
            lambda n, length, stride: max(0, n - length) // stride,
            lambda n, length, stride: max(0, (n - length - 1) / stride + 1),  # not whole
        ],
    )
    def test_wrong(self, say: Say, wrong: object) -> None:
        said = say("2.1", wrong)
        assert said.startswith("✗ 2.1 number_of_windows(")
        assert "but there are" in said


class TestTwins:
    def test_right(self, say: Say) -> None:
        assert say("2.2", 8_536).startswith("✓ 2.2 ")

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (2 * 8_536, "counts both twins"),
            (8_535, "there are more than that"),
            (9_000, "there are fewer than that"),
            (-1, "must lie between"),
            (10**9, "must lie between"),
        ],
    )
    def test_wrong(self, say: Say, answer: int, words: str) -> None:
        assert words in say("2.2", answer)


class TestTableGradient:
    def test_right(self, say: Say) -> None:
        def right(ids: torch.Tensor, grad: torch.Tensor, n_rows: int) -> torch.Tensor:
            table = torch.zeros(n_rows, grad.shape[-1], requires_grad=True)
            (table[ids] * grad).sum().backward()
            return table.grad

        assert say("2.3", right).startswith("✓ 2.3 ")

    def test_a_repeated_row_must_get_the_sum(self, say: Say) -> None:
        def last_only(ids: torch.Tensor, grad: torch.Tensor, n_rows: int) -> torch.Tensor:
            table = torch.zeros(n_rows, grad.shape[-1])
            table[ids] = grad
            return table

        said = say("2.3", last_only)
        assert said.startswith("✗ 2.3 last_only(")
        assert "gave 3 at [1, 0], expected 4." in said

    def test_wrong_shape(self, say: Say) -> None:
        assert "expected shape (3, 2)" in say("2.3", lambda ids, grad, n: grad)


class TestAsTheyCome:
    def test_right(self, say: Say) -> None:
        def right(ids: list[int], encoding: Any) -> list[str]:
            texts = [
                encoding.decode_bytes(ids[:n]).decode(errors="ignore") for n in range(len(ids) + 1)
            ]
            return [now.removeprefix(before) for before, now in pairwise(texts)]

        assert say("2.4", right).startswith("✓ 2.4 ")
        assert say("2.4", lambda ids, encoding: iter(right(ids, encoding))).startswith("✓ 2.4 ")

    def test_half_a_character(self, say: Say) -> None:
        def each_alone(ids: list[int], encoding: Any) -> list[str]:
            return [encoding.decode([i]) for i in ids]

        assert "gave half a character" in say("2.4", each_alone)

    def test_all_at_the_end(self, say: Say) -> None:
        def late(ids: list[int], encoding: Any) -> list[str]:
            return [""] * (len(ids) - 1) + [encoding.decode(ids)]

        assert say("2.4", late).startswith("✗ 2.4 For 'Good dog 🐶!' your function gave")

    def test_waiting_for_whole_tokens_only_is_too_late(self, say: Say) -> None:
        def waits(ids: list[int], encoding: Any) -> list[str]:
            kept, out = b"", []
            for i in ids:
                kept += encoding.decode_single_token_bytes(i)
                try:
                    out.append(kept.decode())
                    kept = b""
                except UnicodeDecodeError:
                    out.append("")
            return out

        assert say("2.4", waits).startswith("✗ 2.4 ")

    def test_too_few_strings(self, say: Say) -> None:
        assert "gave 1 strings" in say("2.4", lambda ids, encoding: [encoding.decode(ids)])


class TestWindowsCountedOnce:
    @staticmethod
    def masked(ids: list[int], length: int, stride: int, seen: int) -> tuple[Any, Any]:
        inputs, targets = data.windows(ids, length, stride)
        targets = targets.clone()
        targets[1:, :seen] = -100
        return inputs, targets

    def test_right(self, say: Say) -> None:
        def right(ids: list[int], length: int, stride: int) -> tuple[Any, Any]:
            return self.masked(ids, length, stride, length - stride)

        assert say("2.5", right).startswith("✓ 2.5 ")

    def test_off_by_one(self, say: Say) -> None:
        said = say("2.5", lambda ids, n, stride: self.masked(ids, n, stride, n - stride + 1))
        assert "the targets of window 1 are [-100, -100, 6, 7], expected [-100, 5, 6, 7]" in said

    def test_nothing_masked(self, say: Say) -> None:
        assert "the targets of window 1 are [4, 5, 6, 7]" in say("2.5", data.windows)

    def test_other_inputs(self, say: Say) -> None:
        def swapped(ids: list[int], length: int, stride: int) -> tuple[Any, Any]:
            return data.windows(ids, length, stride)[::-1]

        assert "the inputs are not those of windows" in say("2.5", swapped)


class TestEncodePiece:
    def test_right(self, say: Say) -> None:
        def right(piece: bytes, ranks: dict[bytes, int]) -> list[int]:
            parts = [bytes([b]) for b in piece]
            while True:
                joined = [left + right for left, right in pairwise(parts)]
                known = [ranks[pair] for pair in joined if pair in ranks]
                if not known:
                    return [ranks[part] for part in parts]
                i = joined.index(next(p for p in joined if ranks.get(p) == min(known)))
                parts[i : i + 2] = [joined[i]]

        assert say("2.6", right).startswith("✓ 2.6 ")

    def test_longest_match_is_not_bpe(self, say: Say) -> None:
        def greedy(piece: bytes, ranks: dict[bytes, int]) -> list[int]:
            ids = []
            while piece:
                end = next(n for n in range(len(piece), 0, -1) if piece[:n] in ranks)
                ids.append(ranks[piece[:end]])
                piece = piece[end:]
            return ids

        assert say("2.6", greedy).startswith("✗ 2.6 encode_piece(b'")

    def test_single_bytes_are_not_enough(self, say: Say) -> None:
        assert "ranks of stories) gave [" in say("2.6", lambda piece, ranks: list(piece))
