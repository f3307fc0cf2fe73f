"""Checks of chapter 7, “Scaling up”."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gptlib import accounting
from gptlib.checks import (
    WrongAnswerError,
    call,
    compare,
    describe,
    exercise,
    function,
    number,
)
from gptlib.config import FAMILY, GPTConfig

_WIDTH = FAMILY["gpt3"].emb_dim


@exercise(
    "7.1",
    shows="Six times the width. GPT-3's context is far below it, so its pairs cost little.",
)
def _pairs_take_over(answer: object) -> str | None:
    got = number(answer, 0)
    slips = {
        6 * FAMILY["gpt2"].emb_dim: "that is right for the width of GPT-2.",
        12 * _WIDTH: "the pairs are multiplied twice: queries with keys, and weights with values.",
        3 * _WIDTH: "count the FLOPs of a pair again: 2 C for each of the two products.",
        2 * _WIDTH: "that leaves out the feed-forward network's matrices.",
    }
    if got in slips:
        return f"Your answer is {describe(answer)}, but {slips[int(got)]}"
    if got != 6 * _WIDTH:
        return f"Your answer is {describe(answer)}. Where is T / (6 C + T) one half?"
    return None


_REPORTS = [
    (GPTConfig(vocab_size=1_000, context_length=300, emb_dim=24, n_heads=2), 40_000.0, 1, 2e11),
    (FAMILY["gpt3-6.7b"], 25_000.0, 16, 312e12),
    (FAMILY["gpt3"], 150_000.0, 1_024, 312e12),
]


@exercise(
    "7.2",
    shows="Tokens per second alone say little: with the model and the peak they become a share.",
)
def _utilization(answer: object) -> str | None:
    reader = function(answer)
    for config, speed, n_devices, peak in _REPORTS:
        got = call(reader, config, speed, n_devices, peak)
        each = accounting.run_flops(config, config.context_length) / config.context_length
        right = each * speed / (n_devices * peak)
        difference = compare(got, right, 1e-6)
        if difference is not None:
            what = (
                f"A model of width {config.emb_dim:,}, {speed:,.0f} tokens per second, "
                f"{n_devices:,} devices of {peak:.3g} FLOP/s: your function {difference}"
            )
            return what + _utilization_slip(got, right, config, n_devices)
    return None


def _utilization_slip(got: object, right: float, config: GPTConfig, n_devices: int) -> str:
    slips = {
        right * (1 + accounting.six_nd_error(config)): " That is 6 N D.",
        right * 100: " A share, not a percentage.",
        right / 3: " Training is three times the forward pass.",
        right * n_devices: " All devices together have n_devices times the peak.",
        1 / right: " That is the peak divided by what was reached.",
    }
    return next((why for slip, why in slips.items() if compare(got, slip, 1e-6) is None), "")


def _kept(config: GPTConfig, rows: int, attention: str = "fused") -> int:
    return sum(accounting.activation_bytes(config, rows, attention=attention).values())


def _pieces(config: GPTConfig, memory: int, batch_size: int) -> int:
    state = sum(accounting.training_bytes(config).values())
    for pieces in range(1, batch_size + 1):
        if batch_size % pieces == 0 and state + _kept(config, batch_size // pieces) <= memory:
            return pieces
    return 0


_SMALL = GPTConfig(vocab_size=500, context_length=64, emb_dim=32, n_heads=2, n_layers=3)


def _rooms() -> list[tuple[GPTConfig, int, int]]:
    """Return models with room for a number of rows to the byte, or short of it by one."""
    state = sum(accounting.training_bytes(_SMALL).values())
    exact = [(12, 6), (12, 12), (12, 1), (7, 3), (10, 5)]  # rows of the batch, rows with room
    rooms = [(_SMALL, state + _kept(_SMALL, room), rows) for rows, room in exact]
    rooms += [
        (_SMALL, state + _kept(_SMALL, 6) - 1, 12),
        (_SMALL, state + _kept(_SMALL, 1) - 1, 12),
    ]
    return [*rooms, (FAMILY["gpt2"], 16 * 2**30, 512), (FAMILY["gpt2-xl"], 16 * 2**30, 512)]


@exercise(
    "7.3",
    shows="What is too large at once is done in pieces, until the state alone is too large.",
)
def _pieces_needed(answer: object) -> str | None:
    reader = function(answer)
    for config, memory, batch_size in _rooms():
        got = call(reader, config, memory, batch_size)
        right = _pieces(config, memory, batch_size)
        difference = compare(got, right, 0)
        if difference is not None:
            what = (
                f"A model of {accounting.total(config):,} parameters, {memory:,} bytes, a batch of "
                f"{batch_size}: your function {difference}"
            )
            return what + _pieces_slip(got, right, config, memory, batch_size)
    return None


def _pieces_slip(got: object, right: int, config: GPTConfig, memory: int, batch_size: int) -> str:
    state = sum(accounting.training_bytes(config).values())
    if right == 0:
        return " Not even a single row fits beside the state."
    if got == 0:
        return " There is room for fewer rows at once. What fits exactly, fits."
    if got == batch_size // right:
        return " That is the rows of a piece, not the number of pieces."
    if isinstance(got, int) and got > 0 and batch_size % got:
        return f" {batch_size} rows cannot be cut into {got} equal pieces."
    if isinstance(got, int) and 0 < got < right:
        first = _kept(config, batch_size // got)
        return f" Then {first:,} bytes of activations and {state:,} of state are there at once."
    return " Fewer pieces are enough. What fits exactly, fits."


_PARTS: list[tuple[list[list[float]], list[int]]] = [
    ([[1.0, 2.0], [3.0, -2.0]], [5, 5]),
    ([[1.0, 2.0], [3.0, -2.0]], [1, 3]),
    ([[0.5, 0.0, 1.0], [math.nan] * 3, [2.0, 4.0, -1.0]], [10, 0, 30]),
    ([[math.nan], [4.0]], [0, 2]),
]


@exercise(
    "7.4",
    shows="Every target counts the same, on whichever rank it is.",
)
def _combined(answer: object) -> str | None:
    reader = function(answer)
    for gradients, counts in _PARTS:
        given = [torch.tensor(gradient) for gradient in gradients]
        got = call(reader, given, counts)
        used = [(g, n) for g, n in zip(given, counts, strict=True) if n]
        right = torch.stack([g * n for g, n in used]).sum(dim=0) / sum(counts)
        difference = compare(got, right)
        if difference is not None:
            what = f"Gradients {gradients} and counts {counts}: your function {difference}"
            return what + _combined_slip(got, right, [g for g, _ in used], counts)
    return None


def _combined_slip(
    got: object, right: Tensor, gradients: Sequence[Tensor], counts: Sequence[int]
) -> str:
    if isinstance(got, Tensor) and got.shape == right.shape and bool(got.isnan().any()):
        return " A rank without targets has no gradient to add, and nan times 0 is nan."
    if compare(got, torch.stack(list(gradients)).mean(dim=0)) is None:
        return " That is the mean of the means."
    if compare(got, right * sum(counts)) is None:
        return " That is the sum over all targets, not their mean."
    if compare(got, right * sum(counts) / len(counts)) is None:
        return " Divide by the number of all targets, not by the number of ranks."
    return ""


@exercise(
    "7.5",
    shows="Each rank sent 2 (n - 1) chunks, each an n-th of the numbers: less than twice all of "
    "them, however many ranks there are.",
)
def _ring(answer: object) -> str | None:
    reader = function(answer)
    for n in (2, 3, 4, 7):
        rounds = _checked_rounds(call(reader, n), n)
        # What rank r has of chunk c: how often each rank's numbers are in it.
        has = [[_only(rank, n) for _ in range(n)] for rank in range(n)]
        for number_of, sent in enumerate(rounds):
            arriving = [list(has[rank][chunk]) for rank, chunk in enumerate(sent)]
            for rank, chunk in enumerate(sent):
                to = (rank + 1) % n
                ours = has[to][chunk] if number_of < n - 1 else [0] * n
                has[to][chunk] = [a + b for a, b in zip(ours, arriving[rank], strict=True)]
        problem = _ring_slip(has, n)
        if problem:
            return f"With {n} ranks, {problem}"
    return None


def _only(rank: int, n: int) -> list[int]:
    return [int(other == rank) for other in range(n)]


def _checked_rounds(got: object, n: int) -> list[list[int]]:
    """Return the rounds as lists; what is no plan for ``n`` ranks is wrong."""
    rounds = list(got) if isinstance(got, (list, tuple)) else []
    if len(rounds) != 2 * (n - 1):
        raise WrongAnswerError(
            f"ring({n}) gave {describe(got)}, expected a list of {2 * (n - 1)} rounds."
        )
    for number_of, sent in enumerate(rounds):
        whole = isinstance(sent, (list, tuple)) and all(
            isinstance(chunk, int) and not isinstance(chunk, bool) for chunk in sent
        )
        if not whole or len(sent) != n or not all(0 <= chunk < n for chunk in sent):
            raise WrongAnswerError(
                f"ring({n}): round {number_of} is {describe(sent)}, expected {n} numbers of "
                f"chunks, from 0 to {n - 1}."
            )
    return [list(sent) for sent in rounds]


def _ring_slip(has: list[list[list[int]]], n: int) -> str | None:
    for rank, chunks in enumerate(has):
        for chunk, times in enumerate(chunks):
            if max(times) > 1:
                twice = times.index(max(times))
                return f"rank {rank} ends with rank {twice}'s chunk {chunk} counted more than once."
            if min(times) == 0:
                lacks = times.index(0)
                return f"rank {rank} ends with a chunk {chunk} that lacks what rank {lacks} had."
    return None


_LAWS = [
    (400.0, 0.34, 410.0, 0.28, 1e21),
    (50.0, 0.5, 50.0, 0.5, 6e12),
    (300.0, 0.6, 9_000.0, 0.7, 1e14),
    (2.0, 0.2, 80.0, 0.45, 1e17),
]


def _best_size(a: float, alpha: float, b: float, beta: float, flops: float) -> float:
    balance = (alpha * a) / (beta * b)
    return float((balance * (flops / 6) ** beta) ** (1 / (alpha + beta)))


@exercise(
    "7.6",
    shows="The best size grows as compute to the power beta / (alpha + beta).",
)
def _best(answer: object) -> str | None:
    reader = function(answer)
    for law in _LAWS:
        got, right = call(reader, *law), _best_size(*law)
        difference = compare(got, right, 1.5e-3)
        if difference is not None:
            a, alpha, b, beta, flops = law
            what = (
                f"{a:g} / N**{alpha:g} + {b:g} / D**{beta:g} with {flops:.0e} FLOPs: your function "
                f"{difference}"
            )
            slips = {
                flops / 6 / right: " That is the best number of tokens.",
                _best_size(a, alpha, b, beta, 6 * flops): " D is F / 6 N, not F / N.",
                _equal_parts(*law): " The parts are equal there; their slopes should be.",
            }
            return what + next(
                (why for slip, why in slips.items() if compare(got, slip, 1.5e-3) is None), ""
            )
    return None


def _equal_parts(a: float, alpha: float, b: float, beta: float, flops: float) -> float:
    """Return where both parts of the loss are equally large."""
    return float((a / b * (flops / 6) ** beta) ** (1 / (alpha + beta)))
