"""Checks of chapter 2, “From text to vectors”."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import tiktoken
import torch

from gptlib import data, tokenizer
from gptlib.checks import (
    WrongAnswerError,
    call,
    compare,
    describe,
    exercise,
    function,
    number,
    trials,
)


@exercise(
    "2.1",
    shows="The first window costs T + 1 ids, and every further one costs a stride.",
)
def _windows_by_formula(answer: object) -> str | None:
    reader = function(answer)
    for n_ids in (13, 12, 5, 4, 2, 1, 0, 100, 1_001):
        for context_length, stride in ((4, 4), (4, 1), (4, 6), (1, 1), (32, 7)):
            arguments = (n_ids, context_length, stride)
            expected = 0
            if n_ids > context_length:
                expected = len(data.windows(list(range(n_ids)), context_length, stride)[0])
            got = call(reader, *arguments)
            if compare(got, expected, 0) is not None:
                call_text = f"number_of_windows{arguments}"
                return f"{call_text} gave {describe(got)}, but there are {expected} windows."
    return None


@exercise("2.2", shows="A third of the vocabulary comes in pairs, with and without a space.")
def _twins(answer: object) -> str | None:
    got = number(answer, 0, 50_257)
    tokens = set(tokenizer.token_bytes(tokenizer.gpt2()))
    bare = [token for token in tokens if not token.startswith(b" ")]
    expected = sum(b" " + token in tokens for token in bare)
    if got == expected:
        return None
    if got == 2 * expected:
        return f"{describe(got)} counts both twins: count each pair once."
    way = "more" if got < expected else "fewer"
    return f"Your answer is {describe(got)}; there are {way} than that."


@exercise(
    "2.3",
    shows="A row gets the sum of what its places get, which is the lookup read backward.",
)
def _table_gradient(answer: object) -> str | None:
    generator = torch.Generator().manual_seed(0)
    cases = [
        (torch.tensor([[2, 0]]), torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), 3),
        (torch.tensor([[1, 1]]), torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), 2),
    ]
    for shape, n_rows in (((1, 3, 2), 5), ((2, 5, 4), 3), ((4, 16, 8), 50)):
        ids = torch.randint(n_rows, shape[:2], generator=generator)
        cases.append((ids, torch.randn(shape, generator=generator), n_rows))
    return trials(answer, [(case, _scatter(*case)) for case in cases])


def _scatter(ids: torch.Tensor, grad_out: torch.Tensor, n_rows: int) -> torch.Tensor:
    table = torch.zeros(n_rows, grad_out.shape[-1])
    return table.index_add(0, ids.flatten(), grad_out.flatten(0, 1))


@exercise(
    "2.4",
    shows="Bytes are joined first and become text only when a character is whole.",
)
def _as_they_come(answer: object) -> str | None:
    reader = function(answer)
    crossing = _crossing_characters()
    for text in ("Good dog 🐶!", "🐶🐱 and 🐶🐶", "狗在树下睡觉。", "plain"):
        ids = crossing.encode_ordinary(text)
        got = call(reader, ids, crossing)
        try:
            pieces = list(got)
        except TypeError:
            return f"For {text!r} your function gave {describe(got)}, expected a list of strings."
        problem = _stream_problem(text, pieces, _completed(ids, crossing))
        if problem is not None:
            return problem
    return None


def _crossing_characters() -> tiktoken.Encoding:
    """Return an encoding with a token that ends one 🐶 and begins the next character."""
    tokens = [bytes([byte]) for byte in range(256)]
    tokens += ["🐶".encode()[:2], "🐶".encode()[3:] + "🐶".encode()[:2]]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    pattern = tokenizer.GPT2_PATTERN
    return tiktoken.Encoding("emoji", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def _completed(ids: list[int], encoding: tiktoken.Encoding) -> list[str]:
    """Return the characters that each id completes, by decoding ever longer beginnings."""
    joined = b""
    texts = [""]
    for i in ids:
        joined += encoding.decode_single_token_bytes(i)
        texts.append(joined.decode("utf-8", errors="ignore"))
    return [now[len(before) :] for before, now in pairwise(texts)]


def _stream_problem(text: str, pieces: list[Any], expected: list[str]) -> str | None:
    if any(not isinstance(piece, str) for piece in pieces):
        return f"For {text!r} your function gave {describe(pieces)}, expected only strings."
    if len(pieces) != len(expected):
        return (
            f"For {text!r}, which is {len(expected)} tokens, your function gave {len(pieces)} "
            f"strings: {describe(pieces)}."
        )
    if "�" in "".join(pieces):
        return f"For {text!r} your function gave half a character: {describe(pieces)}."
    if pieces != expected:
        return f"For {text!r} your function gave {describe(pieces)}, expected {describe(expected)}."
    return None


# Lengths of streams, context lengths and strides.
_COUNTED_ONCE = ((13, 4, 3), (13, 4, 4), (13, 4, 1), (50, 8, 5), (9, 8, 2))


@exercise(
    "2.5",
    shows="Every token counts once, and past the first window none lacks company.",
)
def _windows_counted_once(answer: object) -> str | None:
    reader = function(answer)
    for n_ids, context_length, stride in _COUNTED_ONCE:
        ids = list(range(n_ids))
        what = f"windows_counted_once(list(range({n_ids})), {context_length}, {stride})"
        inputs, targets = _two_tensors(call(reader, ids, context_length, stride), what)
        wanted, reached = data.windows(ids, context_length, stride)
        problem = compare(inputs, wanted)
        if problem is not None:
            return f"{what}: the inputs are not those of windows; it {problem}"
        if targets.shape != wanted.shape:
            return (
                f"{what}: the targets have shape {tuple(targets.shape)}, not {tuple(wanted.shape)}."
            )
        expected = reached.clone()
        expected[1:, : context_length - stride] = -100
        for row, (got, right) in enumerate(zip(targets.tolist(), expected.tolist(), strict=True)):
            if got != right:
                return f"{what}: the targets of window {row} are {got}, expected {right}."
    return None


def _two_tensors(value: object, what: str) -> tuple[torch.Tensor, torch.Tensor]:
    if isinstance(value, (tuple, list)) and len(value) == 2:
        first, second = value
        if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
            return first, second
    raise WrongAnswerError(f"{what} gave {describe(value)}, expected two tensors: inputs, targets.")


@exercise(
    "2.6",
    shows="That is GPT-2's encoder: a pattern, a dictionary and this loop.",
)
def _encode_piece(answer: object) -> str | None:
    reader = function(answer)
    for encoding in (tokenizer.stories(), tokenizer.gpt2()):
        tokens = tokenizer.token_bytes(encoding)[:-1]  # the last is the special token
        ranks = {token: rank for rank, token in enumerate(tokens)}
        for text in (" dog", "aaaaa", " unbelievably", "SolidGoldMagikarp", "1234567", "狗", "x"):
            got = call(reader, text.encode(), ranks)
            expected = encoding.encode_ordinary(text)
            if compare(got, expected, 0) is not None:
                name = f"encode_piece({text.encode()!r}, ranks of {encoding.name})"
                return f"{name} gave {describe(got)}, expected {describe(expected)}."
    return None
