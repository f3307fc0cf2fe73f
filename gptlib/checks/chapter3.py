"""Checks of chapter 3, “Attention”."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gptlib.activations import attention_steps
from gptlib.checks import WrongAnswerError, call, compare, describe, exercise, function, number


@exercise(
    "3.1",
    shows="A score of 7 outvotes a thousand others: softmax needs no large scores to be sharp.",
)
def _half(answer: object) -> str | None:
    value = number(answer)
    if math.isclose(value, math.log(1_023), abs_tol=5e-4):
        return None
    if value == 1_023:
        return "Your answer is 1023: that is what the power of e must be, not yet the score."
    if math.isclose(value, math.log(1_024), abs_tol=5e-4):
        return (
            f"Your answer is {value:.6g}, close: the other half belongs to the 1,023 others, "
            "without the key itself."
        )
    for base in (2, 10):
        if math.isclose(value, math.log(1_023, base), abs_tol=5e-4):
            return f"Your answer is {value:.6g}, a logarithm to base {base}; softmax uses e."
    weight = 1 / (1 + 1_023 * math.exp(-value)) if value > -700 else 0.0
    return f"With a score of {describe(value)} the key gets {weight:.4f} of the weight, not half."


@exercise(
    "3.2",
    shows="Equal scores make a running mean: with the mask, even a head that asks nothing knows "
    "what came before.",
)
def _asks_nothing(answer: object) -> str | None:
    reader = function(answer)
    generator = torch.Generator().manual_seed(2)
    for length, width in ((3, 1), (1, 4), (6, 4)):
        values = torch.randn(length, width, generator=generator)
        zeros = torch.zeros(length, 2)
        expected = attention_steps(zeros, zeros).weights @ values
        got = call(reader, values)
        difference = compare(got, expected)
        if difference is None:
            continue
        hint = ""
        if compare(got, values.mean(0).expand_as(values)) is None:
            hint = " You took the mean of all values; the head is causal."
        elif compare(got, values.cumsum(0)) is None:
            hint = " That is the running sum; weights add up to 1."
        elif compare(got, values.cumsum(0) / length) is None:
            hint = " You divided each row by T; how many values does place t see?"
        return f"For values of shape {tuple(values.shape)} your function {difference}{hint}"
    return None


@exercise(
    "3.3",
    shows="Scored only inside the window, the cost grows like T times the width, not T times T.",
)
def _window_weights(answer: object) -> str | None:
    reader = function(answer)
    generator = torch.Generator().manual_seed(3)
    for shape, width in (((5, 5), 2), ((2, 3, 6, 6), 3), ((4, 4), 1), ((4, 4), 9)):
        scaled = torch.randn(shape, generator=generator)
        got = call(reader, scaled, width)
        expected = _window(scaled, width)
        difference = compare(got, expected)
        if difference is not None:
            hint = _window_hint(got, scaled, width)
            return f"For scores {shape} and width {width} your function {difference}{hint}"
    return None


def _window(scaled: Tensor, width: int) -> Tensor:
    seen = torch.ones_like(scaled, dtype=torch.bool)
    return scaled.masked_fill(~seen.tril().triu(1 - width), -torch.inf).softmax(-1)


def _window_hint(got: object, scaled: Tensor, width: int) -> str:
    if not isinstance(got, Tensor) or got.shape != scaled.shape:
        return ""
    if bool(got.isnan().any()):
        return " A row in which everything is hidden becomes nan: who may not see itself?"
    if bool(got.triu(1).ne(0).any()):
        return " Some position looks ahead."
    if compare(got, _window(scaled, width + 1)) is None:
        return f" It sees {width + 1} positions, one too many: the width counts itself."
    if width > 1 and compare(got, _window(scaled, width - 1)) is None:
        return f" It sees {width - 1} positions, one too few: the width counts itself."
    if compare(got, _window(scaled, scaled.shape[-1])) is None:
        return " It sees the whole past."
    if compare(got.sum(-1), torch.ones(got.shape[:-1])) is not None:
        return " The rows must sum to 1: hide before softmax, not after."
    return ""


@exercise(
    "3.4",
    shows="A head that looks one place back: the position vectors are all it needs.",
)
def _neighbor_matrices(answer: object) -> str | None:
    reader = function(answer)
    for length in (5, 2, 16, 64):
        queries, keys = _two_matrices(call(reader, length), length)
        steps = attention_steps(queries, keys)
        place = torch.arange(1, length)
        given = steps.weights[place, place - 1]
        if bool((given > 0.99).all()):
            continue
        if steps.scores[:-1].argmax(-1).equal(place):
            return f"For T = {length}, each position asks for the one after it, which is masked."
        return f"For T = {length}, {_neighbor_problem(steps.weights, int(given.argmin()) + 1)}"
    return None


def _two_matrices(value: object, length: int) -> tuple[Tensor, Tensor]:
    """Return the queries and keys that two matrices give to positions that are one-hot."""
    if isinstance(value, (tuple, list)) and len(value) == 2:
        first, second = value
        if isinstance(first, Tensor) and isinstance(second, Tensor):
            if first.shape == second.shape == (length, length):
                return first.detach().double(), second.detach().double()
            raise WrongAnswerError(
                f"For T = {length} your matrices have shapes {tuple(first.shape)} and "
                f"{tuple(second.shape)}, not both ({length}, {length})."
            )
    raise WrongAnswerError(
        f"For T = {length} your function gave {describe(value)}, expected two matrices."
    )


def _neighbor_problem(weights: Tensor, worst: int) -> str:
    row = weights[worst]
    where = int(row.argmax())
    if bool(row.isnan().any()):
        return f"the weights of position {worst} are nan."
    if where == worst:
        return f"position {worst} looks mostly at itself, with weight {row[worst].item():.3f}."
    if where != worst - 1:
        return f"position {worst} looks mostly at position {where}, not at {worst - 1}."
    return (
        f"position {worst} gives {row[where].item():.3f} of its weight to the one before, "
        "not more than 0.99: larger scores make it sharper."
    )


Piece = tuple[Tensor, Tensor, Tensor]


@exercise(
    "3.5",
    shows="Piece by piece, and exact: nobody ever needs the whole row of scores.",
)
def _merge(answer: object) -> str | None:
    reader = function(answer)
    generator = torch.Generator().manual_seed(5)
    for scale, shift in ((1.0, 0.0), (3.0, 2.0), (1.0, -1_000.0), (1.0, 1_000.0)):
        scores = scale * torch.randn(7, generator=generator)
        scores[:3] += shift
        values = torch.randn(7, 4, generator=generator)
        a, b = _piece(scores[:3], values[:3]), _piece(scores[3:], values[3:])
        got = _three_tensors(call(reader, a, b))
        expected = _piece(scores, values)
        for name, ours, wanted in zip(("top", "total", "mean"), got, expected, strict=True):
            difference = compare(ours, wanted, tolerance=1e-4)
            if difference is not None:
                tops = f"{a[0].item():.4g} and {b[0].item():.4g}"
                hint = _merge_hint(name, ours, a, b)
                return f"For pieces whose tops are {tops}, {name} {difference}{hint}"
    return None


def _piece(scores: Tensor, values: Tensor) -> Piece:
    return scores.max(), (scores - scores.max()).exp().sum(), scores.softmax(-1) @ values


def _three_tensors(value: object) -> Piece:
    if isinstance(value, (tuple, list)) and len(value) == 3:
        first, second, third = (torch.as_tensor(part) for part in value)
        return first, second, third
    raise WrongAnswerError(f"merge gave {describe(value)}, expected three: top, total, mean.")


def _merge_hint(name: str, got: Tensor, a: Piece, b: Piece) -> str:
    if not bool(got.isfinite().all()):
        return " Powers of large scores overflow: subtract the new top first, then take e to it."
    if name == "total" and compare(got, a[1] + b[1]) is None:
        return " The two sums were made with different tops; correct them before you add."
    if name == "total" and got.numel() == 1 and bool(got > a[1] + b[1]):
        return " A correction can only shrink a sum: its top minus the new top is never above 0."
    if name == "mean" and compare(got, (a[2] + b[2]) / 2) is None:
        return " The pieces do not count the same: weigh each mean by its corrected sum."
    if name == "mean" and compare(got, (a[1] * a[2] + b[1] * b[2]) / (a[1] + b[1])) is None:
        return " You weighed the means by the sums as they came; correct these first."
    return ""


@exercise(
    "3.6",
    shows="Each term has a weight as its factor and a difference as the other: where one weight "
    "is 1, nothing is left.",
)
def _scores_gradient(answer: object) -> str | None:
    reader = function(answer)
    generator = torch.Generator().manual_seed(6)
    for shape in ((3,), (2, 5), (2, 3, 4, 4)):
        w: Any = torch.randn(shape, generator=generator).softmax(-1)
        grad = torch.randn(shape, generator=generator)
        expected = w * (grad - (w * grad).sum(-1, keepdim=True))
        got = call(reader, w, grad)
        difference = compare(got, expected)
        if difference is None:
            continue
        hint = ""
        if compare(got, w * grad) is None:
            hint = " The other weights fall when one rises; that part is missing."
        elif compare(got, w * (1 - w) * grad) is None:
            hint = " You followed each weight's own score; a score also moves the other weights."
        elif compare(got, w * (grad - grad.mean(-1, keepdim=True))) is None:
            hint = " The mean that you subtract has to be weighted, with w."
        elif compare(got, w * (grad - (w * grad).sum())) is None:
            hint = " Sum over each row alone: dim=-1, keepdim=True."
        elif compare(got, -expected) is None:
            hint = " The sign is turned around."
        return f"For weights of shape {shape} your function {difference}{hint}"
    return None
