"""Checks of chapter 1, "What a GPT is"."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from gptlib.checks import call, compare, exercise, function, number, trials


@exercise(
    "1.1",
    shows="Nobody will ever fill a table with that many rows. A model must share what it learns "
    "between contexts.",
)
def _digits(answer: object) -> str | None:
    # Python refuses to print a whole number this long, so the exercise needs a logarithm.
    log10 = 1_024 * math.log10(50_257)
    value = number(answer)
    if value == math.floor(log10):
        return f"Your answer is {value:g}, one short: log10(1000) is 3, but 1000 has 4 digits."
    if value > 1e6:
        return "Your answer is the number of contexts, or near it; asked for is how many digits."
    if math.isclose(value, log10 * math.log(10), abs_tol=1):
        return f"Your answer is {value:g}, from a natural logarithm; digits are powers of 10."
    if not value.is_integer():
        return f"Your answer is {value:g}, but digits are counted whole."
    if value != math.floor(log10) + 1:
        return f"Your answer is {value:g}; expected are the digits of 50,257 to the power 1,024."
    return None


@exercise(
    "1.2",
    shows="A perplexity of 4 means: as unsure as someone who picks one of 4 words blindly.",
)
def _perplexity(answer: object) -> str | None:
    for probabilities in ([0.5, 0.5], [1.0], [0.5, 0.25, 0.125], [0.01] * 5_000):
        reader = function(answer)
        got = call(reader, probabilities)
        expected = math.exp(-sum(map(math.log, probabilities)) / len(probabilities))
        difference = compare(got, expected)
        if difference is None:
            continue
        shown = probabilities if len(probabilities) < 9 else f"0.01, {len(probabilities)} times"
        hint = ""
        if compare(got, len(probabilities) / sum(probabilities)) is None:
            hint = " You averaged the probabilities; average their logarithms."
        elif compare(got, math.log(expected)) is None:
            hint = " That is the loss; its exponential is missing."
        return f"For the probabilities {shown} your function {difference}{hint}"
    return None


@exercise(
    "1.3",
    shows="Cutting off the unlikely words is one of the knobs of every text generator; chapter 5 "
    "turns it.",
)
def _top_k(answer: object) -> str | None:
    votes = {"cat": 0.5, "dog": 0.25, "hen": 0.15, "owl": 0.1}
    cases: list[tuple[tuple[Any, ...], Any]] = [
        ((votes, 1), {"cat": 1.0}),
        ((votes, 2), {"cat": 2 / 3, "dog": 1 / 3}),
        (({"hen": 0.2, "cat": 0.8}, 1), {"cat": 1.0}),
        ((votes, 4), votes),
        ((votes, 9), votes),
    ]
    problem = trials(answer, cases)
    if problem is not None and compare(call(function(answer), votes, 2), _cut_only(votes)) is None:
        return f"{problem} The kept probabilities must again add up to 1."
    return problem


def _cut_only(votes: dict[str, float]) -> dict[str, float]:
    return dict(sorted(votes.items(), key=lambda item: -item[1])[:2])


@exercise(
    "1.4",
    shows="Splitting the work is the only way to train a model of this size within a month; "
    "chapter 7 does it.",
)
def _gpus_needed(answer: object) -> str | None:
    gpt3, v100 = (175e9, 300e9), 28e12
    cases: list[tuple[tuple[Any, ...], Any]] = [
        ((1e9, 1e9, 1e12, 1), _gpus(1e9, 1e9, 1e12, 1)),
        ((*gpt3, v100, 365), _gpus(*gpt3, v100, 365)),
        ((*gpt3, v100, 30), _gpus(*gpt3, v100, 30)),
        ((1e6, 1e6, 1e12, 10), 1),
    ]
    problem = trials(answer, cases)
    if problem is None:
        return None
    got = call(function(answer), 1e9, 1e9, 1e12, 1)
    exact = 6 * 1e9 * 1e9 / (1e12 * 86_400)
    slips = {
        exact: f" There is no {exact:.2f} of a GPU: round up.",
        math.ceil(exact / 6): " Each token costs 6 operations for each parameter.",
        math.ceil(exact * 86_400): " A day has 86,400 seconds.",
    }
    return problem + next((s for slip, s in slips.items() if compare(got, slip) is None), "")


def _gpus(parameters: float, tokens: float, flops_per_second: float, days: float) -> int:
    return math.ceil(6 * parameters * tokens / (flops_per_second * days * 86_400))


@exercise(
    "1.5",
    shows="The best mixture leans on the long context as far as its zeros allow.",
)
def _best_mix(answer: object) -> str | None:
    cases: list[tuple[list[float], list[float]]] = [
        ([0.1, 0.1, 0.1, 0.1], [0.9, 0.9, 0.9, 0.0]),
        ([0.2, 0.3, 0.2], [0.4, 0.5, 0.3]),
        ([0.4, 0.5, 0.3], [0.1, 0.2, 0.3]),
        ([0.2, 0.1, 0.3, 0.2, 0.1], [0.6, 0.0, 0.5, 0.0, 0.7]),
    ]
    for short, long in cases:
        share = number(call(function(answer), short, long), 0.0, 1.0)
        best = min((i / 100 for i in range(101)), key=lambda s: _mixed_loss(s, short, long))
        if abs(share - best) > 0.0051:
            return (
                f"For short = {short} and long = {long} your function gave {share:g}, where the "
                f"loss is {_mixed_loss(share, short, long):.4f}; with {best:g} it is "
                f"{_mixed_loss(best, short, long):.4f}."
            )
    return None


def _mixed_loss(share: float, short: Sequence[float], long: Sequence[float]) -> float:
    mixed = [share * b + (1 - share) * a for a, b in zip(short, long, strict=True)]
    return -sum(math.log(p) if p > 0 else -math.inf for p in mixed) / len(mixed)


@exercise(
    "1.6",
    shows="What the model said minus what was true: that is the whole signal from which a GPT "
    "learns.",
)
def _gradient(answer: object) -> str | None:
    reader: Callable[..., Any] = function(answer)
    generator = torch.Generator().manual_seed(6)
    for size, target in ((2, 0), (3, 2), (7, 4)):
        logits = torch.randn(size, generator=generator)
        expected = _autograd(logits, target)
        got = call(reader, logits, target)
        difference = compare(got, expected, tolerance=1e-4)
        if difference is None:
            continue
        hint = ""
        if compare(got, -expected, tolerance=1e-4) is None:
            hint = " The sign is turned around: the loss must fall when the right logit rises."
        elif compare(got, torch.softmax(logits, 0), tolerance=1e-4) is None:
            hint = " The right word's entry must differ: its probability should have been 1."
        return f"For {size} logits and the right word {target} your function {difference}{hint}"
    return None


def _autograd(logits: torch.Tensor, target: int) -> torch.Tensor:
    leaf = logits.clone().requires_grad_()
    loss = functional.cross_entropy(leaf.unsqueeze(0), torch.tensor([target]))
    (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient
